"""What one DICOM file says of itself, up to its pixels, and which grey images it holds.

A DICOM file is a list of elements: a tag, a length, a value. `elements` walks them; `TABLE` says
which are looked at, and how their bytes are read.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
from pydicom import dcmread, uid
from pydicom.pixels import get_decoder

from helpers.errors import need

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
LONG = set(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # these have 4 bytes of length
# SOP classes of waveforms, presentation states, masks and registrations, reports.
NO_IMAGES = tuple(f"1.2.840.10008.5.1.4.1.1.{family}." for family in (9, 11, 66, 88))
# How an element begins, with and without its value representation, by byte order.
HEADS = {
    "little": (struct.Struct("<HH2sHL").unpack_from, struct.Struct("<HHL").unpack_from),
    "big": (struct.Struct(">HH2sHL").unpack_from, struct.Struct(">HHL").unpack_from),
}
UNDEFINED = 0xFFFFFFFF  # a length that says: until the delimiter
READ_AT_ONCE = (2**14, 2**18, 2**22, 2**26)  # bytes: most headers end within the first
MEMORY = psutil.virtual_memory().total
TABLE = {  # a tag (PS3.6): the field of Header that it fills, and how its bytes are read
    0x00020002: ("sop_class", str),  # files without images often state their kind only here
    0x00080008: ("image_type", str.upper),
    0x00080016: ("sop_class", str),
    0x00080018: ("sop_uid", str),
    0x00080060: ("modality", str.upper),
    0x00080064: ("conversion_type", str.upper),
    0x00100020: ("patient", str),
    0x00100021: ("issuer", str),
    0x00180088: ("spacing_between", 1),  # a number counts decimal strings
    0x00181164: ("detector_spacing", 2),
    0x00181310: ("acquired", bytes),  # Acquisition Matrix: samples of one slice
    0x0019100A: ("tiles", int),  # Siemens: how many slices a mosaic holds
    0x0020000D: ("study_uid", str),
    0x0020000E: ("series_uid", str),
    0x00200012: ("acquisition", str),
    0x00200032: ("position", 3),
    0x00200037: ("orientation", 6),
    0x00280002: ("samples_per_pixel", int),
    0x00280004: ("photometric_interpretation", str.upper),
    0x00280008: ("number_of_frames", 1),
    0x00280010: ("rows", int),
    0x00280011: ("columns", int),
    0x00280030: ("pixel_spacing", 2),
    0x00280100: ("bits_allocated", int),
    0x00280101: ("bits_stored", int),
    0x00280103: ("pixel_representation", int),  # 1 if signed
    0x00280120: ("padding", int),
    0x00280301: ("burned_in", str.upper),
    0x00281052: ("intercept", 1),
    0x00281053: ("slope", 1),
    0x00283000: ("modality_lut", bytes),
    0x3004000E: ("slope", 1),  # Dose Grid Scaling
    0x52009230: ("frame_groups", bytes),
}
# Of these every frame of a file may have its own.
FRAME = (0x00180088, 0x00200032, 0x00200037, 0x00280030, 0x00281052, 0x00281053)
UNSTATED = {name: "" if kind in (str, str.upper) else None for name, kind in TABLE.values()}
UNSTATED |= {"slope": 1.0, "intercept": 0.0, "number_of_frames": 1.0, "samples_per_pixel": 1}
UNSTATED |= {"pixel_keyword": "", "pixel_offset": 0, "pixel_bytes": 0}


class Header(SimpleNamespace):
    """One image: a file, or one frame of a multi-frame file; the fields of `TABLE` and a few more.

    Positions and orientations are patient coordinates (x, y, z) in mm, LPS; `pixel_spacing` is
    (between rows, between columns) in mm. What a file does not state is None or empty, and so is
    what should be a finite number and is none; a slope that is missing is 1. Besides: `path`;
    `transfer_syntax`; `pixel_keyword`; `pixel_offset`, in bytes from the file's start (of a
    deflated one, once inflated); `pixel_bytes`, 0 if compressed; `frame`, its number or None;
    once `images` has looked: `stored_range`, what Bits Stored can hold; `inverted`, if MONOCHROME1.

    Taught in: loading DICOM
    """

    @property
    def placed(self) -> bool:
        """Whether it says where in the patient it lies."""
        return self.position is not None and self.orientation is not None

    def __repr__(self) -> str:  # the rest may lead to a person
        return f"Header({self.rows} x {self.columns})"


def elements(data: bytes, at: int, explicit: bool, order: str) -> Iterator[tuple[int, int, int]]:
    """The elements of a data set, one after another (PS3.5 section 7.1).

        tags = [hex(tag) for tag, start, length in elements(data, 132, True, "little")]

    Args:
        data: the file's bytes.
        at: where the first element starts.
        explicit: whether each element says how its value is represented.
        order: "little" or "big".

    Yields:
        Tag, where its value starts, how many bytes it has. What is inside of sequences is left out.

    Raises:
        struct.error: where the bytes end.

    Taught in: loading DICOM
    """
    with_kind, without = HEADS[order]
    around, kind = [], b""  # of each sequence that has begun: whether what is around it is explicit
    while True:
        if explicit:
            group, element, kind, length, long = with_kind(data, at)
        else:
            group, element, length = without(data, at)
        tag, start = group << 16 | element, at + 8
        if group == 0xFFFE:  # an item begins or ends, or a sequence ends
            if tag == 0xFFFEE0DD and around:
                explicit = around.pop()
            at = start
            continue
        if explicit and kind in LONG:
            start, length = at + 12, long
        if not around:
            yield tag, start, length
        if length == UNDEFINED:
            around.append(explicit)
            explicit = explicit and kind != b"UN"
            length = 0
        at = start + length


@functools.lru_cache(maxsize=4096)  # most values are the same in every slice
def _value_of(raw: bytes, kind: type | int, order: str = "little"):
    """An element's value: text, a whole number, bytes, or one or more decimal strings, or None."""
    if kind is bytes:
        return raw
    if kind is int:
        return int.from_bytes(raw[:2], order)
    text = raw.decode("latin-1").strip(" \0")
    if kind in (str, str.upper):
        return kind(text)
    try:
        values = tuple(map(float, text.split("\\")))
    except ValueError:
        return None
    if len(values) != kind or not all(map(math.isfinite, values)):
        return None
    return values if kind > 1 else values[0]


def read_header(path: Path, force: bool = False) -> Header:
    """What a file states, as far as the fields of `TABLE` go; nothing is checked yet.

        rows = read_header(Path("slice.dcm")).rows

    Args:
        path: a file of any kind.
        force: also try files without the preamble and `DICM` mark of PS3.10 section 7.1.

    Raises:
        CourseDataError: `NOT_DICOM`.
        OSError: if it cannot be opened.

    Taught in: no lesson; `dicom.scan` uses it
    """
    with open(path, "rb", buffering=0) as file:
        data = b""
        for size in READ_AT_ONCE:
            data += file.read(size - len(data))
            marked = data[128:132] == b"DICM"
            need(marked or force, "NOT_DICOM", "no DICM mark after 128 bytes", path)
            header = _stated(path, data, 132 if marked else 0)
            if header.pixel_keyword or len(data) < size:
                break
    return header


def _stated(path: Path, data: bytes, at: int) -> Header:
    """The header in a file's first bytes; without pixels, if those do not reach as far."""
    raw, syntax, order = {}, "", "little"
    header = Header(path=path, frame=None, **UNSTATED)
    try:
        for tag, start, length in elements(data, at, True, "little"):
            if tag >> 16 != 2:
                break
            at = start + length
            raw[tag] = data[start:at]
        syntax = _value_of(raw.get(0x00020010, b""), str)
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            data = data[:at] + zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[at:])
        # By its looks, as some files are not what their transfer syntax says, or have none.
        explicit, big = data[at + 4 : at + 6].isupper(), data[at : at + 1] == b"\0"
        syntax = syntax or NATIVE[2 if big else 1]
        order = "big" if syntax == uid.ExplicitVRBigEndian else "little"
        for tag, start, length in elements(data, at, explicit, order):
            if tag in PIXELS:
                header.pixel_keyword, header.pixel_offset = PIXELS[tag], start
                header.pixel_bytes = 0 if length == UNDEFINED else length
                break
            if tag in TABLE and (length == UNDEFINED or start + length <= len(data)):
                raw[tag] = data[start : start + length][:1024]  # no field needs more
    except (struct.error, zlib.error):
        pass  # cut, damaged, or longer than what was read
    need(raw.keys() & TABLE.keys(), "NOT_DICOM", "no DICOM element was found", path)
    header.transfer_syntax = syntax
    for tag, (name, kind) in TABLE.items():
        if raw.get(tag):
            setattr(header, name, _value_of(raw[tag], kind, order))
    return header


def images(stated: Header) -> list[Header]:
    """The grey images of a file, one a frame; or the reason why it has none.

        (header,) = images(read_header(Path("slice.dcm")))

    Args:
        stated: what `read_header` gives; it is kept as it is.

    Raises:
        CourseDataError: what a file is comes first (`NOT_AN_IMAGE`, `SCOUT`, `MOSAIC`), then
            `PIXEL_FORMAT`, `TOO_LARGE`, `COLOUR`, `TRUNCATED`, `DECODER_MISSING`, `MULTI_FRAME`
            and `NOT_FINITE`.

    Taught in: no lesson; `dicom.scan` uses it
    """
    h = copy.copy(stated)
    kind = uid.UID_dictionary.get(h.sop_class, ["no known kind"])[0]
    picture = not f"{h.sop_class}.".startswith(NO_IMAGES)
    code = "TRUNCATED" if picture and kind.endswith("Image Storage") else "NOT_AN_IMAGE"
    need(picture and h.pixel_keyword, code, f"no pixels of a patient: {kind}", h.path)
    need("LOCALIZER" not in h.image_type, "SCOUT", "Image Type says LOCALIZER", h.path)
    _check_pixels(h)
    need(not _is_mosaic(h), "MOSAIC", f"{h.rows} x {h.columns} pixels of many slices", h.path)
    h.inverted = h.photometric_interpretation == "MONOCHROME1"
    if h.patient and h.issuer:
        h.patient += f"^^^{h.issuer}"  # as HL7 writes the two (PS3.3 C.7.1.1)
    frames = _frames(h) if h.frame_groups or h.number_of_frames > 1 else [h]
    for one in frames:
        found = "Rescale Slope or Intercept is no finite number, or the slope is 0"
        need(one.slope and one.intercept is not None, "NOT_FINITE", found, h.path)
    return frames


def _check_pixels(h: Header) -> None:
    """Of a possible format and size, grey, all there, and with a decoder."""
    bits, h.number_of_frames = h.bits_allocated, int(h.number_of_frames or 0)
    h.bits_stored = bits if h.bits_stored is None else h.bits_stored
    size = f"{h.rows} x {h.columns} x {h.number_of_frames} pixels of {bits} bits"
    known = bits in (1, 8, 16, 32, 64) and 1 <= h.bits_stored <= bits
    possible = known and h.rows and h.columns and h.number_of_frames >= 1
    need(possible, "PIXEL_FORMAT", f"{size}, {h.bits_stored} of them stored", h.path)
    low = -(2 ** (h.bits_stored - 1)) if h.pixel_representation else 0
    h.stored_range = (low, low + 2**h.bits_stored - 1)
    grey = h.photometric_interpretation in ("MONOCHROME1", "MONOCHROME2")
    need(grey and h.samples_per_pixel == 1, "COLOUR", "colour, or of no known meaning", h.path)
    claimed = h.rows * h.columns * h.number_of_frames * bits // 8
    need(claimed <= MEMORY, "TOO_LARGE", f"{size} are {claimed} bytes", h.path)
    if h.transfer_syntax in NATIVE:
        there = min(h.pixel_bytes, h.path.stat().st_size - h.pixel_offset)
        need(there >= claimed, "TRUNCATED", f"{size}, and {there} of {claimed} bytes", h.path)
    else:
        why = _undecodable(h.transfer_syntax, bits)
        need(not why, "DECODER_MISSING", why, h.path)


def _is_mosaic(h: Header) -> bool:
    """Whether one picture is tiled with slices, as Siemens writes functional and diffusion MR.

    The tiles form a square. A file that was taken apart keeps the word, but is no larger than what
    was acquired for one slice. Where nothing tells what that was, it counts as a mosaic.
    """
    if "MOSAIC" not in h.image_type or h.number_of_frames > 1 or h.tiles == 1:
        return False
    acquired = np.frombuffer(h.acquired or b"", np.uint16)
    across = math.ceil(math.sqrt(h.tiles or 2))
    return max(h.rows, h.columns) >= across * min(acquired[acquired > 0], default=0)


@functools.cache
def _undecodable(syntax: str, bits: int) -> str:
    """Why compressed pixels cannot be decoded here, or nothing."""
    name = "an unknown transfer syntax"
    try:
        name = uid.UID_dictionary[syntax][0]
        decoder = get_decoder(syntax)
    except (KeyError, NotImplementedError):
        return f"no decoder exists for {name}; ask for Explicit VR Little Endian"
    if bits == 1 and not decoder.is_native:
        return f"no decoder exists for single bits in {name}"
    return "" if decoder.is_available else "; ".join([name, *decoder.missing_dependencies])


def _frames(h: Header) -> list[Header]:
    """One header a frame, from the functional groups of an enhanced image (PS3.3 C.7.6.16)."""
    names = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
    dataset = dcmread(h.path, stop_before_pixels=True, specific_tags=names)
    shared, groups = (dataset.get(name, ()) for name in names)
    if h.number_of_frames == 1 and len(groups) != 1:
        return [h]
    found = f"{h.number_of_frames} frames, and functional groups for {len(groups)} of them"
    need(len(groups) == h.number_of_frames, "MULTI_FRAME", found, h.path)
    frames = [copy.copy(h) for _ in groups]
    for number, one in enumerate(frames):
        one.frame = number
        for element in itertools.chain(*shared, groups[number]):
            for item, tag in itertools.product(element.value, FRAME):
                if tag in item:
                    name, kind = TABLE[tag]
                    text = "\\".join(map(str, np.ravel(item[tag].value)))
                    setattr(one, name, _value_of(text.encode(), kind))
    return frames
