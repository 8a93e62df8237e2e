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

import functools
import hashlib
import itertools
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from helpers.errors import need

BYTES, FLOATS, INTEGERS = 1, 2, 3  # the numbers of the three lists in tf.train.Feature
LARGEST = 2**31 - 1  # bytes of a message; TensorFlow loses what lies beyond (protobuf's limit)
HEAD = 12  # bytes of a frame before its message
Pieces = Sequence[bytes | np.ndarray]


def varint(number: int) -> bytes:
    """A whole number in as few bytes as it needs: seven bits in each, the lowest first.

        >>> varint(300).hex()
        'ac02'

    Taught in: no lesson; the converter uses it
    """
    if number < 0x80:
        return bytes([number])
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7)


def nested(number: int, pieces: Pieces) -> Pieces:
    """A field around its content: its number, wire type 2, the size, then the pieces as they are.

    Taught in: no lesson; the converter uses it
    """
    return [bytes([number << 3 | 2]) + varint(sum(map(len, pieces))), *pieces]


def feature(value: bytes | str | np.ndarray | float | Sequence[float]) -> Pieces:
    """One `tf.train.Feature`: a bytes list of one value, a list of floats, or one of integers.

    Taught in: no lesson; the converter uses it
    """
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    if isinstance(value, bytes | np.ndarray):
        return nested(BYTES, nested(1, [value]))
    numbers = np.atleast_1d(value)
    if numbers.dtype.kind == "f":
        return nested(FLOATS, nested(1, [numbers.astype("<f4").tobytes()]))
    # A negative number takes its two's complement in 64 bits.
    packed = b"".join(varint(number & 2**64 - 1) for number in numbers.tolist())
    return nested(INTEGERS, nested(1, [packed]))


def example(features: Mapping[str, object]) -> tuple[Pieces, dict[str, int]]:
    """A serialized `tf.train.Example`, in pieces to be written one after the other.

        pieces, starts = example({"image": voxels, "label": (1,)})

    Args:
        features: by key, `bytes`, text or an array of any dtype (its raw bytes, C order) for a
            bytes list of one value; one or more `int`, or `float`, for the other two lists.

    Returns:
        Pieces whose concatenation is the message as protocol buffers serialize it, keys sorted by
        their bytes (a map's order means nothing); arrays are not copied. And by key the byte of
        the message at which its raw values begin.

    Raises:
        CourseDataError: `TOO_LARGE` for a message of 2 GiB and more, which nobody could read.

    Taught in: no lesson; the converter uses it
    """
    entries = []
    ends = {}
    for key in sorted(features, key=str.encode):
        entries += nested(1, nested(1, [key.encode()]) + nested(2, feature(features[key])))
        ends[key] = len(entries)
    message = nested(1, entries)
    bounds = [0, *itertools.accumulate(map(len, message))]
    need(bounds[-1] <= LARGEST, "TOO_LARGE", f"a record of {bounds[-1]} bytes, of {LARGEST}")
    return message, {key: bounds[end] for key, end in ends.items()}


def masked_crc(pieces: Pieces) -> bytes:
    """CRC-32C of all pieces together, rotated and shifted, as TFRecord stores it.

    Taught in: no lesson; the converter uses it
    """
    crc = functools.reduce(google_crc32c.extend, pieces, 0)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class Writer:
    """Write one TFRecord file; afterwards it knows its `records`, `bytes` and SHA-256.

        with Writer(path) as writer:
            writer.write(example({"label": (1,)})[0])

    The file is on the disk, not only in the system's cache, when the `with` block ends well.
    `path=None` counts and hashes without writing.

    Raises:
        FileExistsError: if there is a file of that name.
        OSError: as the file system has it; then nothing is left.

    Taught in: no lesson; the converter uses it
    """

    def __init__(self, path: Path | None) -> None:
        self.records = self.bytes = 0
        self.sha256 = hashlib.sha256()
        self._path = path

    def __enter__(self) -> Writer:
        self._file = open(self._path, "xb") if self._path else open(os.devnull, "wb")
        return self

    def __exit__(self, kind, error, trace) -> None:
        with self._file:
            if kind is None and self._path:
                self._file.flush()
                os.fsync(self._file.fileno())
        if kind and self._path:
            self._path.unlink()

    def write(self, message: Pieces) -> int:
        """Write one frame around a message in pieces; at which byte of the file that begins."""
        begin = self.bytes + HEAD
        length = struct.pack("<Q", sum(map(len, message)))
        for piece in (length, masked_crc([length]), *message, masked_crc(message)):
            self.sha256.update(piece)
            self.bytes += self._file.write(piece)
        self.records += 1
        return begin
