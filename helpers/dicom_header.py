"""The facts about one DICOM image that geometry and pixels need, or the reason why it gives none.

Nothing here looks at pixels; that there are enough of them, that a decoder is installed and that
they are grey can be told from the header.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import psutil
import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
)

from helpers.dicom_elements import NATIVE, PIXEL_TAGS, Elements, Tag, read_elements
from helpers.errors import CourseDataError

GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
DECODER_PACKAGES = {"RLE": "pylibjpeg-rle", "2000": "pylibjpeg-openjpeg", "JPEG-LS": "pyjpegls"}


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """One image of a series: a file, or one frame of a multi-frame file.

    Positions and orientations are patient coordinates (x, y, z) in mm, LPS; `pixel_spacing` is
    (between rows, between columns) in mm. What a file does not state is None.

    The fields after `frame` are for grouping by patient and for what may be written in the pixels;
    empty where a file does not state them. They lead to a person, or hold text that may, so they
    are not printed.
    """

    path: Path
    series_uid: str
    sop_uid: str
    modality: str
    transfer_syntax: str
    instance_number: int | None
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    inverted: bool
    pixels: str
    slope: float
    intercept: float
    has_modality_lut: bool
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    detector_spacing: tuple[float, ...] | None
    spacing_between: float | None
    thickness: float | None
    padding: int | None
    pixel_offset: int | None  # of the pixels, compressed or not, in bytes from the file's start
    frame: int | None = None
    patient: str = dataclasses.field(default="", repr=False)  # id, or id^^^issuer
    study_uid: str = dataclasses.field(default="", repr=False)
    sop_class: str = dataclasses.field(default="", repr=False)
    image_type: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    conversion_type: str = dataclasses.field(default="", repr=False)
    burned_in: str = dataclasses.field(default="", repr=False)


def read_headers(path: Path, *, force: bool = False) -> list[Header]:
    """The header of an image file, one for each frame.

    Args:
        path: a file of any kind.
        force: also try files without the preamble and `DICM` mark of PS3.10 section 7.1.

    Raises:
        CourseDataError: with the reason why the file gives no grey image. The exception has a
            `series_uid` where the file got far enough to name one.
    """
    try:
        elements = read_elements(path, force=force)
    except (CourseDataError, OSError):
        raise
    except Exception as error:  # pydicom lets many classes escape from a broken header
        raise CourseDataError(
            "UNREADABLE", f"the header cannot be parsed ({type(error).__name__})", [path]
        ) from error
    try:
        header, frames = _header(path, elements)
        enhanced = frames > 1 or Tag.PER_FRAME_GROUPS in elements
        return _frames(header, frames) if enhanced else [header]
    except Exception as error:
        if not isinstance(error, CourseDataError):  # again pydicom, on broken functional groups
            # Its message may quote what the header holds, a name for instance.
            reason = f"the header cannot be parsed ({type(error).__name__})"
            error = CourseDataError("UNREADABLE", reason, [path])
        error.series_uid = elements.text(Tag.SERIES_INSTANCE_UID)
        raise error from None


def _header(path: Path, elements: Elements) -> tuple[Header, int]:
    pixels = next((tag for tag in PIXEL_TAGS if tag in elements), None)
    rows, columns = elements.integer(Tag.ROWS), elements.integer(Tag.COLUMNS)
    if pixels is not None and not (rows and columns):
        raise CourseDataError(
            "PIXEL_FORMAT", f"there are pixels, but {rows} rows and {columns} columns", [path]
        )
    if pixels is None:
        name = _name(elements.text(Tag.SOP_CLASS_UID))
        if name.endswith("Image Storage"):
            raise CourseDataError(
                "TRUNCATED",
                f"a {name} without pixels: the file was cut before them, or they were removed; "
                "copy it again from the source",
                [path],
            )
        what = f"its kind: {name}" if name else "its kind is not stated"
        raise CourseDataError("NOT_AN_IMAGE", f"there are no pixels; {what}", [path])
    image_type = tuple(elements.text(Tag.IMAGE_TYPE).upper().split("\\"))
    if "LOCALIZER" in image_type:
        raise CourseDataError("SCOUT", "Image Type says LOCALIZER: a scout for planning", [path])

    bits_stored = elements.integer(Tag.BITS_STORED, elements.integer(Tag.BITS_ALLOCATED))
    stated_frames = elements.text(Tag.NUMBER_OF_FRAMES)
    frames = elements.number(Tag.NUMBER_OF_FRAMES) if stated_frames else 1.0
    allocated = elements.integer(Tag.BITS_ALLOCATED)
    possible = allocated in (1, 8, 16, 32, 64) and 1 <= bits_stored <= allocated
    if not possible or frames is None or frames < 1 or frames % 1:
        raise CourseDataError(
            "PIXEL_FORMAT",
            f"Bits Allocated {allocated}, Bits Stored {bits_stored}, Number of Frames "
            f"{stated_frames or '1'!r}: expected 1, 8, 16, 32 or 64 bits, no more of them stored "
            "than allocated, and a whole number of frames",
            [path],
        )
    samples, photometric = (
        elements.integer(Tag.SAMPLES_PER_PIXEL, 1),
        elements.text(Tag.PHOTOMETRIC_INTERPRETATION).upper(),
    )
    claimed = rows * columns * int(frames) * samples * allocated // 8
    if claimed > _memory():
        raise CourseDataError(
            "TOO_LARGE",
            f"{rows} x {columns} x {int(frames)} pixels of {allocated} bits are "
            f"{claimed / 2**30:.0f} GiB, more than this machine has; the header is wrong, or this "
            "is not for a laptop",
            [path],
        )
    if samples != 1 or not photometric.startswith("MONOCHROME"):
        raise CourseDataError(
            "COLOUR",
            f"{photometric or 'no photometric interpretation'} with {samples} sample(s) a pixel; a "
            "volume holds grey values; pydicom.pixels.pixel_array gives RGB",
            [path],
        )
    if elements.length is not None:
        there = min(elements.length, path.stat().st_size - elements.offset)
        if there < claimed:
            raise CourseDataError(
                "TRUNCATED",
                f"{rows} x {columns} x {int(frames)} pixels of {allocated} bits are {claimed} "
                f"bytes, the file holds {there}; copy it again from the source",
                [path],
            )
    _need_decoder(path, elements.syntax)

    # A dose grid has a scaling of its own (PS3.3 C.8.8.3) and no rescale slope.
    slope = elements.number(Tag.DOSE_GRID_SCALING) or elements.number(Tag.RESCALE_SLOPE, 1.0)
    intercept = elements.number(Tag.RESCALE_INTERCEPT, 0.0)
    for name, tag, value in (
        ("Slope", Tag.RESCALE_SLOPE, slope),
        ("Intercept", Tag.RESCALE_INTERCEPT, intercept),
    ):
        if (elements.text(tag) and elements.number(tag) is None) or (name, value) == ("Slope", 0):
            raise CourseDataError(
                "NOT_FINITE",
                f"Rescale {name} is {elements.text(tag)!r}, not a usable number",
                [path],
            )
    header = Header(
        path=path,
        series_uid=elements.text(Tag.SERIES_INSTANCE_UID),
        sop_uid=elements.text(Tag.SOP_INSTANCE_UID),
        modality=elements.text(Tag.MODALITY),
        transfer_syntax=elements.syntax,
        instance_number=_whole(elements.number(Tag.INSTANCE_NUMBER)),
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=bits_stored,
        signed=bool(elements.integer(Tag.PIXEL_REPRESENTATION)),
        inverted=photometric == "MONOCHROME1",
        pixels={Tag.PIXEL_DATA: "integer"}.get(pixels, "float"),
        slope=slope,
        intercept=intercept,
        has_modality_lut=Tag.MODALITY_LUT_SEQUENCE in elements,
        position=elements.numbers(Tag.IMAGE_POSITION_PATIENT, 3),
        orientation=elements.numbers(Tag.IMAGE_ORIENTATION_PATIENT, 6),
        pixel_spacing=elements.numbers(Tag.PIXEL_SPACING, 2),
        detector_spacing=elements.numbers(Tag.IMAGER_PIXEL_SPACING, 2),
        spacing_between=elements.number(Tag.SPACING_BETWEEN_SLICES),
        thickness=elements.number(Tag.SLICE_THICKNESS),
        padding=_padding(elements),
        pixel_offset=elements.offset,
        patient=_patient(elements),
        study_uid=elements.text(Tag.STUDY_INSTANCE_UID),
        sop_class=elements.text(Tag.SOP_CLASS_UID),
        image_type=image_type,
        conversion_type=elements.text(Tag.CONVERSION_TYPE),
        burned_in=elements.text(Tag.BURNED_IN_ANNOTATION),
    )
    return header, int(frames)


def _frames(header: Header, count: int) -> list[Header]:
    """One header a frame, from the functional groups of an enhanced image (PS3.3 C.7.6.16)."""
    dataset = pydicom.dcmread(header.path, stop_before_pixels=True, specific_tags=GROUPS)
    shared = dataset.get("SharedFunctionalGroupsSequence", ())
    groups = dataset.get("PerFrameFunctionalGroupsSequence", ())
    if count == 1 and len(groups) != 1:
        return [header]
    if len(groups) != count:
        raise CourseDataError(
            "MULTI_FRAME",
            f"{count} frames without a functional group for each: nothing says where they lie "
            "(a film or a multi-view image?); read it with pydicom.pixels.pixel_array",
            [header.path],
        )

    def stated(frame, sequence: str, keyword: str, count: int):
        for group in (frame, *shared):
            for item in group.get(sequence, ()):
                if item.get(keyword) is not None:
                    return _finite(item, keyword, count)
        return None

    frames = []
    for index, frame in enumerate(groups):
        slope = stated(frame, "PixelValueTransformationSequence", "RescaleSlope", 1)
        intercept = stated(frame, "PixelValueTransformationSequence", "RescaleIntercept", 1)
        frames.append(
            dataclasses.replace(
                header,
                frame=index,
                position=stated(frame, "PlanePositionSequence", "ImagePositionPatient", 3),
                orientation=stated(frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6),
                pixel_spacing=stated(frame, "PixelMeasuresSequence", "PixelSpacing", 2),
                spacing_between=stated(frame, "PixelMeasuresSequence", "SpacingBetweenSlices", 1),
                slope=header.slope if slope is None else slope,
                intercept=header.intercept if intercept is None else intercept,
            )
        )
    return frames


def _finite(item, keyword: str, count: int):
    """`count` finite numbers (one of them not as a tuple), or None if the element has others."""
    try:
        value = item[keyword].value
        numbers = (float(value),) if count == 1 else tuple(float(number) for number in value)
    except (TypeError, ValueError):
        return None
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        return None
    return numbers[0] if count == 1 else numbers


def _name(uid: str) -> str:
    """The registered name of a UID, or nothing; an odd UID is not worth pydicom's warning."""
    name = UID(uid, validation_mode=pydicom.config.IGNORE).name if uid else ""
    return "" if name == uid else name


@functools.cache
def _memory() -> int:
    return psutil.virtual_memory().total


@functools.cache
def _decoder_fault(syntax: str) -> str | None:
    if syntax in NATIVE or syntax == DeflatedExplicitVRLittleEndian:
        return None
    name = _name(syntax) or "an unknown transfer syntax"
    try:
        if get_decoder(UID(syntax, validation_mode=pydicom.config.IGNORE)).is_available:
            return None
    except NotImplementedError:
        return f"no decoder exists for {name}; ask the archive to send Explicit VR Little Endian"
    package = next((p for key, p in DECODER_PACKAGES.items() if key in name), "python-gdcm")
    return f"{name} cannot be decoded here; install it with: pip install {package}"


def _need_decoder(path: Path, syntax: str) -> None:
    if fault := _decoder_fault(syntax):
        raise CourseDataError("DECODER_MISSING", f"transfer syntax {syntax}: {fault}", [path])


def _patient(elements: Elements) -> str:
    """Patient ID; its issuer beside it, as HL7 writes the two (PS3.3 C.7.1.1, HL7 v2 type CX)."""
    identity = elements.text(Tag.PATIENT_ID)
    issuer = elements.text(Tag.ISSUER_OF_PATIENT_ID)
    return f"{identity}^^^{issuer}" if identity and issuer else identity


def _padding(elements: Elements) -> int | None:
    """Pixel Padding Value (PS3.3 C.7.5.1.1.2) as stored; its sign is that of the pixels."""
    value = elements.integer(Tag.PIXEL_PADDING_VALUE, -1)
    if value < 0:
        return None
    signed = bool(elements.integer(Tag.PIXEL_REPRESENTATION))
    return value - 65536 if signed and value >= 32768 else value


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
