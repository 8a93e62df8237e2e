"""Walk through a DICOM file up to its pixels and keep the few raw elements that are needed.

pydicom's element generator does the walking; values stay raw bytes until one is asked for, because
for a stack of hundreds of files the conversion of elements that nobody looks at is most of the
time. Anything out of the ordinary goes through `pydicom.dcmread`, slower and more patient.
"""

from __future__ import annotations

import enum
import functools
import io
import math
import warnings
from pathlib import Path

import pydicom
from pydicom.filereader import data_element_generator
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from helpers.errors import CourseDataError


class Tag(enum.IntEnum):
    """The elements looked at, by their DICOM tags (PS3.6)."""

    IMAGE_TYPE = 0x00080008
    SOP_CLASS_UID = 0x00080016
    SOP_INSTANCE_UID = 0x00080018
    MODALITY = 0x00080060
    CONVERSION_TYPE = 0x00080064
    PATIENT_ID = 0x00100020
    ISSUER_OF_PATIENT_ID = 0x00100021
    SLICE_THICKNESS = 0x00180050
    SPACING_BETWEEN_SLICES = 0x00180088
    IMAGER_PIXEL_SPACING = 0x00181164
    STUDY_INSTANCE_UID = 0x0020000D
    SERIES_INSTANCE_UID = 0x0020000E
    INSTANCE_NUMBER = 0x00200013
    IMAGE_POSITION_PATIENT = 0x00200032
    IMAGE_ORIENTATION_PATIENT = 0x00200037
    SAMPLES_PER_PIXEL = 0x00280002
    PHOTOMETRIC_INTERPRETATION = 0x00280004
    NUMBER_OF_FRAMES = 0x00280008
    ROWS = 0x00280010
    COLUMNS = 0x00280011
    PIXEL_SPACING = 0x00280030
    BITS_ALLOCATED = 0x00280100
    BITS_STORED = 0x00280101
    PIXEL_REPRESENTATION = 0x00280103
    PIXEL_PADDING_VALUE = 0x00280120
    BURNED_IN_ANNOTATION = 0x00280301
    RESCALE_INTERCEPT = 0x00281052
    RESCALE_SLOPE = 0x00281053
    MODALITY_LUT_SEQUENCE = 0x00283000
    DOSE_GRID_SCALING = 0x3004000E
    PER_FRAME_GROUPS = 0x52009230
    FLOAT_PIXEL_DATA = 0x7FE00008
    DOUBLE_PIXEL_DATA = 0x7FE00009
    PIXEL_DATA = 0x7FE00010


PIXEL_TAGS = (Tag.PIXEL_DATA, Tag.FLOAT_PIXEL_DATA, Tag.DOUBLE_PIXEL_DATA)
FIRST_PIXEL_TAG = int(min(PIXEL_TAGS))  # none of the other elements comes behind it
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
HEAD_BYTES = 16384
# Plain integers: pydicom builds a set of them for each file.
TAGS = [int(tag) for tag in Tag]


class Elements(dict):
    """Raw elements by tag, with conversions for the few value representations needed."""

    syntax = ""
    reached_pixels = False
    offset: int | None = None  # of the pixel bytes
    length: int | None = None  # of the pixel bytes, if they are not compressed

    def text(self, tag: int) -> str:
        value = getattr(self.get(tag), "value", None)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        return "" if value is None else str(value).strip(" \0")

    def number(self, tag: int, default: float | None = None) -> float | None:
        numbers = self.numbers(tag, 1)
        return numbers[0] if numbers else default

    def numbers(self, tag: int, count: int) -> tuple[float, ...] | None:
        """The first `count` decimal strings, or None if they are not all finite numbers."""
        return _numbers(self.text(tag), count)

    def integer(self, tag: int, default: int = 0) -> int:
        element = self.get(tag)
        if element is None or not element.value:
            return default
        order = "little" if element.is_little_endian else "big"
        return int.from_bytes(element.value[:2], order)


@functools.lru_cache(maxsize=1024)  # orientation, spacing, slope repeat from slice to slice
def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(float(part) for part in text.split("\\")[:count])
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def read_elements(path: Path, *, force: bool = False) -> Elements:
    """The elements of `TAGS` in a file; `force` also tries one without the DICM mark.

    Raises:
        CourseDataError: `NOT_DICOM`.
        Exception: whatever pydicom raises for a file that it cannot parse.
    """
    with open(path, "rb", buffering=0) as file:
        head = file.read(HEAD_BYTES)
        if head[128:132] != b"DICM":
            if not force:
                raise CourseDataError(
                    "NOT_DICOM",
                    "no DICM mark after 128 bytes: not DICOM, packed (unpack it first), or written "
                    "without the preamble; scan(folder, force=True) tries the last kind too",
                    [path],
                )
            return _elements_by_dcmread(path, force)
        # Most headers fit into the head, and walking through memory is quicker than through a file.
        elements = _try_walk(io.BytesIO(head))
    if elements is None and len(head) == HEAD_BYTES:
        with open(path, "rb") as file:
            elements = _try_walk(file)
    return elements or _elements_by_dcmread(path, force)


def _try_walk(file) -> Elements | None:
    """What `_walk` finds, if it gets as far as the pixels."""
    try:
        elements = _walk(file)
    except Exception:  # an element cut at the end of the head, or a broken file
        return None
    return elements if elements.reached_pixels else None


def _walk(file) -> Elements:
    """Take the elements of `TAGS` up to the pixels, without a look at the pixels."""
    elements = Elements()
    file.seek(132)
    meta = data_element_generator(file, False, True, lambda tag, vr, length: tag >> 16 != 2)
    for element in meta:
        tag = int(element.tag)  # comparing pydicom's tags costs more than reading them
        if tag == 0x00020002:
            # Files without images often state their kind only here.
            elements[Tag.SOP_CLASS_UID] = element
        if tag == 0x00020010:
            elements.syntax = element.value.decode("ascii").strip(" \0")
    if elements.syntax in ("", DeflatedExplicitVRLittleEndian):
        return elements  # for dcmread, which guesses and inflates
    # Native pixels are skipped by their length; compressed ones have none, so stop there.
    native = elements.syntax in NATIVE
    generator = data_element_generator(
        file,
        elements.syntax == ImplicitVRLittleEndian,
        elements.syntax != ExplicitVRBigEndian,
        None if native else (lambda tag, vr, length: tag >= FIRST_PIXEL_TAG),
        defer_size=4096,
        specific_tags=TAGS,
    )
    for element in generator:
        tag = int(element.tag)
        elements[tag] = element
        if tag >= FIRST_PIXEL_TAG:
            elements.offset, elements.length = element.value_tell, element.length
            elements.reached_pixels = True
            return elements
    position = file.tell()
    if not native and file.read(4) in (b"\xe0\x7f\x10\0", b"\xe0\x7f\x08\0", b"\xe0\x7f\x09\0"):
        elements[Tag.PIXEL_DATA] = None
        elements.offset = position + 12  # after tag, representation, two spare bytes and length
        elements.reached_pixels = True
    return elements


def _elements_by_dcmread(path: Path, force: bool) -> Elements:
    """The same through `dcmread`: deflated files, no transfer syntax, no preamble."""
    elements = Elements()
    with warnings.catch_warnings():
        # It warns of what it guesses, and quotes what it finds odd: a misplaced name, say.
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=force, specific_tags=TAGS, defer_size=4096)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if "MediaStorageSOPClassUID" in dataset.file_meta:
            elements[Tag.SOP_CLASS_UID] = dataset.file_meta["MediaStorageSOPClassUID"]
        for tag in TAGS:
            if tag in dataset:
                elements[tag] = dataset.get_item(tag, keep_deferred=True)
    if not elements:
        raise CourseDataError("NOT_DICOM", "no DICOM element was found in the file", [path])
    implicit, little = dataset.original_encoding
    guessed = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    elements.syntax = syntax or (guessed if little else ExplicitVRBigEndian)
    return elements
