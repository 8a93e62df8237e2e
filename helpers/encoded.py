"""A JPEG or PNG file's own bytes, minus everything that could name a person.

    photograph = encoded.strip(path.read_bytes())
    photograph.data, photograph.format, photograph.height, photograph.width

Pixels are not encoded anew. Segments and chunks that decoding needs are copied, everything else is
left out: EXIF, XMP, comments, profiles, thumbnails, times, private data, whatever follows the end.
`jpegtran -copy none` does as much for JPEG; no Python package that the course installs does.

A JPEG's entropy-coded data is not searched, as that takes a decoder of our own: bytes after its
last code stay, and codes that are missing before an end marker come out grey, without a word.

Two formats, each with its parser, make this module longer than most.
"""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator

from PIL import Image

from helpers.errors import CourseDataError

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Pillow opens no picture of more pixels, and TensorFlow no JPEG of 2**29 or more values.
MAX_PIXELS = 2**29 // 3
MAX_SCANS = 200  # a decoder goes over the whole picture for each; progressive files have about ten

# ITU T.81 table B.1. Baseline, extended and progressive, with Huffman or arithmetic coding, are
# what TensorFlow decodes (tried with 2.21); lossless and hierarchical JPEG it does not.
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
_EOI, _SOS, _APP0, _APP14 = 0xD9, 0xDA, 0xE0, 0xEE
_TABLES = {0xC4, 0xCC, 0xDB, 0xDD}  # DHT, DAC, DQT, DRI: decoders refuse them if they are too long
_METADATA = {*range(0xE0, 0xF0), 0xFE}  # APPn, COM
_FILLERS = re.compile(rb"\xff*")  # at least one stands before a marker
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # not a stuffed zero, a filler or a restart

# The chunks that stay, and how long each may be (PNG specification, section 11): none holds text.
_CHUNKS = {b"IHDR": 13, b"PLTE": 768, b"IDAT": 2**31 - 1, b"IEND": 0}
_CHUNKS |= {b"tRNS": 256, b"sBIT": 4, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}
# Of each pass of an interlaced PNG: first column and row, steps (section 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4))
_ADAM7 += ((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

_ADVICE = {
    "UNKNOWN_FORMAT": "expected a JPEG or PNG file",
    "TRUNCATED": "the file was cut: copy it again",
    "DECODING_FAILED": "the file is damaged: copy it again",
    "PIXEL_FORMAT": "expected grey or RGB of 8 bits: save it as such first",
    "TOO_LARGE": "cut the picture into tiles first",
    "ROTATED": "expected 1: turn image and mask alike, and save them without it",
}
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([0-9])")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A picture as a file's bytes: `format` is "jpeg" or "png", sizes are in pixels.

    `channels` is 1 or 3, as decoded; `bits` are those of a stored sample or palette index.
    """

    data: bytes = dataclasses.field(repr=False)
    format: str
    height: int
    width: int
    channels: int
    bits: int = 8


def strip(data: bytes) -> Encoded:
    """The file without its metadata, byte for byte the same if it has none.

    Args:
        data: a whole JPEG or PNG file.

    Returns:
        What `tf.io.decode_image(..., channels=3)` decodes to the same pixels as before. A PNG's
        colour space (gAMA, cHRM, sRGB) and transparent colours (tRNS) stay.

    Raises:
        CourseDataError: `UNKNOWN_FORMAT` for another kind of file, `TRUNCATED`, `DECODING_FAILED`
            for a damaged one, `TOO_LARGE` before anything is decoded, `ROTATED` if EXIF or XMP
            says that the picture is to be turned, `PIXEL_FORMAT` for CMYK, an alpha channel, more
            than 8 bits, lossless JPEG.
    """
    return read(data)[0]


def read(data: bytes, *, max_bits: int = 8) -> tuple[Encoded, Image.Image]:
    """As `strip`, and the picture decoded: its mode is 1, L, P, RGB or I;16.

    `max_bits=16` also takes grey PNG of 16 bits; in colour, Pillow would drop half of them.
    """
    if data.startswith(JPEG):
        encoded, metadata = _jpeg(data)
    elif data.startswith(PNG):
        encoded, metadata = _png(data, max_bits)
    else:
        raise _refusal("UNKNOWN_FORMAT", f"{len(data)} bytes of another kind")
    for orientation in map(_orientation, metadata):
        if 2 <= orientation <= 8:
            raise _refusal("ROTATED", f"the metadata says orientation {orientation}")
    try:
        with warnings.catch_warnings():  # of sizes that Pillow finds suspicious but opens
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(encoded.data), formats=[encoded.format])
            picture.load()
    except (Image.DecompressionBombError, MemoryError):
        raise _refusal("TOO_LARGE", "the pixels do not fit into memory") from None
    except Exception as error:  # Pillow lets many classes escape, and may quote what it found
        raise _refusal(
            "DECODING_FAILED", f"the pixels cannot be decoded, {type(error).__name__}"
        ) from None
    return encoded, picture


def _jpeg(data: bytes) -> tuple[Encoded, list[bytes]]:
    """The file by ITU T.81 annex B, and the metadata left out."""
    kept, metadata, frame, unseen, scans, has_jfif = [data[:2]], [], b"", set(), 0, False
    for marker, segment in _segments(data):
        body = segment[4:]
        if marker in _METADATA:
            if marker == _APP0 and body[:5] == b"JFIF\0" and len(body) >= 14 and not has_jfif:
                has_jfif = True  # says, with Adobe's, whether colours are YCbCr or RGB
                kept.append(segment[:2] + b"\0\x10" + body[:12] + b"\0\0")  # a 0 x 0 thumbnail
            elif marker == _APP14 and body[:5] == b"Adobe" and len(body) >= 12:
                kept.append(segment[:2] + b"\0\x0e" + body[:12])
            else:
                metadata.append(body)
            continue
        if marker in _OTHER_FRAMES:
            raise _refusal("PIXEL_FORMAT", "lossless or hierarchical JPEG")
        if marker in _FRAMES and len(body) > 5:
            frame, unseen = body, set(body[6::3])
        elif marker == _SOS and frame and body and scans < MAX_SCANS:
            scans, unseen = scans + 1, unseen - set(body[1 : 1 + 2 * body[0] : 2])
        elif marker not in _TABLES:
            raise _refusal("DECODING_FAILED", "a segment that is unknown or out of place")
        kept.append(segment)
    if not frame or unseen:
        raise _refusal("TRUNCATED", "the picture, or one of its channels, is missing")
    bits, height, width, channels = struct.unpack_from(">BHHB", frame)
    _check_size(height, width)
    if bits != 8 or channels not in (1, 3):
        raise _refusal("PIXEL_FORMAT", f"JPEG of {bits} bits in {channels} channels")
    return Encoded(b"".join([*kept, b"\xff\xd9"]), "jpeg", height, width, channels), metadata


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each segment's marker and bytes, a scan's with the pixels, up to the end of the image."""
    at = 2
    while True:
        first, at = at, _FILLERS.match(data, at).end()
        if at >= len(data):
            raise _refusal("TRUNCATED", "there is no end-of-image marker")
        marker = data[at]
        if at == first or marker < 0xC0 or 0xD0 <= marker < _EOI:
            raise _refusal("DECODING_FAILED", "no segment where one is due")
        if marker == _EOI:
            return
        start, at = at - 1, at + 1 + int.from_bytes(data[at + 1 : at + 3], "big")
        if len(data) < max(at, start + 4):
            raise _refusal("TRUNCATED", "it ends in a segment")
        if marker == _SOS:
            end = _SCAN_END.search(data, at)
            if end is None:
                raise _refusal("TRUNCATED", "it ends in the pixels")
            at = end.start()
        yield marker, data[start:at]


def _png(data: bytes, max_bits: int) -> tuple[Encoded, list[bytes]]:
    """The file by the PNG specification, section 5, and the metadata left out."""
    kept, metadata, pixels, seen, kind, at = [PNG], [], [], set(), b"", 8
    while kind != b"IEND":
        start, last = at, kind
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if len(data) < at:
            raise _refusal("TRUNCATED", "there is no end chunk")
        kind, body = data[start + 4 : start + 8], data[start + 8 : at - 4]
        ancillary = kind.isalpha() and kind[:1].islower()
        # What describes the colours stands before the pixels; after them nobody takes notice.
        if seen and ancillary and (kind not in _CHUNKS or b"IDAT" in seen):
            metadata.append(body)
            continue
        twice = kind in seen and not kind == last == b"IDAT"
        misplaced = (kind == b"IHDR") == bool(seen) or (kind == b"PLTE" and b"IDAT" in seen)
        if twice or misplaced or len(body) > _CHUNKS.get(kind, -1):
            raise _refusal("DECODING_FAILED", "a chunk that is unknown, out of place or too long")
        if zlib.crc32(data[start + 4 : at - 4]) != int.from_bytes(data[at - 4 : at], "big"):
            raise _refusal("DECODING_FAILED", "a checksum is wrong")
        if kind == b"IDAT":
            pixels.append(body)
        elif kind == b"IHDR":
            if len(body) != 13:
                raise _refusal("DECODING_FAILED", "the header is too short")
            width, height, bits, colour, *methods = struct.unpack(">IIBBBBB", body)
        seen.add(kind)
        kept.append(data[start:at])
    if methods not in ([0, 0, 0], [0, 0, 1]):
        raise _refusal("DECODING_FAILED", "a way of compressing that PNG does not have")
    if colour == 3 and b"PLTE" not in seen:
        raise _refusal("DECODING_FAILED", "the palette is missing")
    _check_size(height, width)
    if colour in (4, 6) or bits > (max_bits if colour == 0 else 8):
        raise _refusal(
            "PIXEL_FORMAT", f"PNG of {bits} bits with{'out' if colour < 4 else ''} an alpha channel"
        )
    _check_pixels(pixels, height, width, bits * (3 if colour == 2 else 1), methods[-1])
    return Encoded(b"".join(kept), "png", height, width, 1 if colour == 0 else 3, bits), metadata


def _check_pixels(pixels: list[bytes], height: int, width: int, bits: int, interlaced: int) -> None:
    """Refuse rows that are missing and bytes that belong to none, which nobody would ever see."""
    expected = 0
    for x, y, dx, dy in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = (width - x + dx - 1) // dx, (height - y + dy - 1) // dy
        expected += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    inflate = zlib.decompressobj()
    try:
        found = len(inflate.decompress(b"".join(pixels), expected + 1))
    except zlib.error:
        raise _refusal("DECODING_FAILED", "the pixels cannot be decompressed") from None
    if found > expected or inflate.unused_data:
        raise _refusal("DECODING_FAILED", "more bytes of pixels than the header asks for")
    if found < expected or not inflate.eof:
        raise _refusal("TRUNCATED", f"{found} bytes of pixels found, {expected} expected")


def _orientation(metadata: bytes) -> int:
    """What XMP or EXIF, a TIFF file (TIFF 6.0, section 2), says in tag 0x0112; 1 if nothing."""
    exif = metadata.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        xmp = _XMP_ORIENTATION.search(metadata)
        return int(xmp[1]) if xmp else 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * entries, 12):
            tag, kind, _ = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == 0x0112:
                return struct.unpack_from(f"{order}{'I' if kind == 4 else 'H'}", exif, entry + 8)[0]
    except struct.error:
        pass  # what no viewer can read turns no picture
    return 1


def _check_size(height: int, width: int) -> None:
    found = f"the header says {height} x {width} pixels"
    if not height or not width:
        raise _refusal("PIXEL_FORMAT", found)
    if height * width > MAX_PIXELS:
        raise _refusal("TOO_LARGE", f"{found}, decoders take {MAX_PIXELS} at most")


def _refusal(code: str, found: str) -> CourseDataError:
    return CourseDataError(code, f"{found}; {_ADVICE[code]}")
