"""The bytes of a TFRecord file: `tf.train.Example` messages in frames, written without TensorFlow.

A frame is the length of the message (8 bytes), a checksum of the length, the message, a checksum
of the message; a file is frame after frame, without a header and without an end. The message is a
protocol buffer of three kinds of lists. Both are small enough to write out here, and worth it:
large arrays go from memory to disk without being copied, and worker processes start in a fraction
of the time and the memory that importing TensorFlow takes.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord (frames) and
https://protobuf.dev/programming-guides/encoding (messages).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from helpers.errors import CourseDataError

BYTES, FLOATS, INTEGERS = 1, 2, 3  # the numbers of the three lists in tf.train.Feature
LARGEST = 2**31 - 1  # bytes of a message; TensorFlow loses what lies beyond (protobuf's limit)
SMALL = 4096  # pieces shorter than this are joined: one write instead of many


def example(features: Mapping[str, object]) -> list[bytes | np.ndarray]:
    """A serialized `tf.train.Example`, in pieces to be written one after the other.

    Args:
        features: by key, `bytes` or an array of any dtype (its raw bytes, C order) for a bytes
            list of one value; a sequence of `int`, or of `float`, for the other two lists.

    Returns:
        Pieces whose concatenation is the message as protocol buffers serialize it, keys sorted by
        their bytes. (Its Python library sorts `image/dtype` before `image`; a map's order means
        nothing.) Arrays are not copied.

    Raises:
        CourseDataError: `TOO_LARGE` for a message of 2 GiB and more, which nobody could read.
        TypeError: for a value of another kind.
    """
    pieces: list[bytes | np.ndarray] = []
    for key in sorted(features, key=str.encode):
        kind, value, size = _list(features[key])
        feature = _tagged(kind, size)
        name = key.encode()
        head = _tagged(1, len(name)) + name + _tagged(2, len(feature) + size) + feature
        pieces += [_tagged(1, len(head) + size) + head, *value]
    pieces.insert(0, _tagged(1, sum(map(_size, pieces))))
    if (size := sum(map(_size, pieces))) > LARGEST:
        raise CourseDataError(
            "TOO_LARGE",
            f"a record of {size} bytes, of which TensorFlow reads {LARGEST} at most; crop the "
            "image, or cut it into several cases",
        )
    return pieces


def _list(value: object) -> tuple[int, list[bytes | np.ndarray], int]:
    """The kind of list, its content in pieces, and their size in bytes."""
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value)
        return (
            BYTES,
            [_tagged(1, value.nbytes), value],
            len(_tagged(1, value.nbytes)) + value.nbytes,
        )
    if isinstance(value, bytes):
        packed, kind = _tagged(1, len(value)) + value, BYTES
    elif isinstance(value, Sequence) and all(isinstance(number, float) for number in value):
        numbers = np.asarray(value, "<f4").tobytes()
        packed, kind = _tagged(1, len(numbers)) + numbers if value else b"", FLOATS
    elif isinstance(value, Sequence) and all(type(number) is int for number in value):
        # A negative number takes its two's complement in 64 bits.
        numbers = b"".join(_varint(number & 0xFFFFFFFFFFFFFFFF) for number in value)
        packed, kind = _tagged(1, len(numbers)) + numbers, INTEGERS
    else:
        raise TypeError(f"expected bytes, an array, ints or floats; found {type(value).__name__}")
    return kind, [packed], len(packed)


def _tagged(number: int, size: int) -> bytes:
    """The head of a field whose content has `size` bytes (wire type 2)."""
    return bytes([number << 3 | 2]) + _varint(size)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _size(piece: bytes | np.ndarray) -> int:
    return piece.nbytes if isinstance(piece, np.ndarray) else len(piece)


def masked_crc(pieces: Sequence[bytes | np.ndarray]) -> int:
    """CRC-32C, rotated and shifted, as TFRecord stores it."""
    crc = 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, piece)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class Writer:
    """Write one TFRecord file; afterwards it knows its `records`, `bytes` and `sha256`.

    with Writer(path) as writer:
        writer.write(tfrecord.example({"label": (1,)}))

    The file is on the disk, not only in the system's cache, when the `with` block ends well.
    `path=None` counts and hashes without writing.

    Raises:
        FileExistsError: if there is a file of that name.
        OSError: as the file system has it; the caller removes what is left.
    """

    def __init__(self, path: Path | None) -> None:
        self.records = self.bytes = 0
        self._hash = hashlib.sha256()
        self._file = open(path, "xb", buffering=0) if path else None  # noqa: SIM115

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._file:
            try:
                if kind is None:
                    os.fsync(self._file.fileno())
            finally:
                self._file.close()

    @property
    def sha256(self) -> str:
        """Of everything written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, pieces: Sequence[bytes | np.ndarray]) -> None:
        """Write one frame around a message that comes in pieces."""
        length = struct.pack("<Q", sum(map(_size, pieces)))
        head = length + struct.pack("<I", masked_crc([length]))
        tail = struct.pack("<I", masked_crc(pieces))
        joined = b""
        for piece in (head, *pieces, tail):
            if isinstance(piece, bytes) and len(joined) + len(piece) < SMALL:
                joined += piece
                continue
            self._put(joined)
            joined = b""
            self._put(piece)
        self._put(joined)
        self.records += 1

    def _put(self, piece: bytes | np.ndarray) -> None:
        view = memoryview(piece.reshape(-1).view(np.uint8) if _is_array(piece) else piece)
        self._hash.update(view)
        self.bytes += len(view)
        while self._file and len(view):
            view = view[self._file.write(view) :]  # a write may take less than it is given


def _is_array(piece: bytes | np.ndarray) -> bool:
    return isinstance(piece, np.ndarray)


def messages(path: Path) -> Iterator[np.ndarray]:
    """The messages of a file, mapped into memory: uint8 arrays; nothing is read or checked here."""
    if not path.stat().st_size:
        return
    file = np.memmap(path, np.uint8, "r").view(np.ndarray)
    begin = 0
    while begin < len(file):
        (length,) = struct.unpack_from("<Q", file, begin)
        yield file[begin + 12 : begin + 12 + length]
        begin += 12 + length + 4


def features(message: np.ndarray) -> dict[str, np.ndarray | tuple]:
    """What `example` was given: for each key a view of uint8, or a tuple of ints or floats.

    Args:
        message: uint8, one that `example` has made.
    """
    found = {}
    for _, content in _fields(message):
        for _, entry in _fields(content):
            (_, key), (_, feature) = _fields(entry)
            ((kind, values),) = _fields(feature)
            packed = next((value for _, value in _fields(values)), values[:0])
            if kind == FLOATS:
                packed = tuple(np.frombuffer(packed.tobytes(), "<f4").tolist())
            elif kind == INTEGERS:
                packed = tuple(_integers(packed))
            found[key.tobytes().decode()] = packed
    return found


def _fields(message: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Number and content of each field; all of an Example's are of wire type 2."""
    begin = 0
    while begin < len(message):
        number = int(message[begin]) >> 3
        size, begin = _read_varint(message, begin + 1)
        yield number, message[begin : begin + size]
        begin += size


def _integers(packed: np.ndarray) -> Iterator[int]:
    begin = 0
    while begin < len(packed):
        number, begin = _read_varint(packed, begin)
        yield number - 2**64 if number >= 2**63 else number


def _read_varint(message: np.ndarray, begin: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    number = shift = 0
    while True:
        byte, begin = int(message[begin]), begin + 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, begin


def frames(path: Path) -> Iterator[bool]:
    """Walk through a file's frames: for each, whether its message is as its checksum says.

    Ends after the last whole frame, or where a length is damaged, because nothing says where the
    next frame begins. Reads each message, so it costs as much as reading the file.
    """
    with open(path, "rb") as file:
        while len(head := file.read(12)) == 12:
            length, crc = struct.unpack("<QI", head)
            if masked_crc([head[:8]]) != crc:
                yield False
                return
            if length > os.fstat(file.fileno()).st_size - file.tell() - 4:
                yield False
                return
            message = file.read(length)
            yield struct.unpack("<I", file.read(4))[0] == masked_crc([message])
