"""One exception for bad data, and the table of codes that name what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CODES = {
    # A file that is no slice of a volume. `dicom.scan` lists these and goes on.
    "NOT_DICOM": "the file is not DICOM, or its preamble is missing",
    "UNREADABLE": "the file cannot be opened or its header cannot be parsed",
    "NOT_AN_IMAGE": "valid DICOM without pixels: DICOMDIR, report, structure set, waveform",
    "SCOUT": "a localizer (scout) image, not a slice of the stack",
    # An image whose pixels cannot become grey values.
    "DECODER_MISSING": "no installed package decodes this transfer syntax",
    "DECODING_FAILED": "a decoder gave up on the compressed pixels",
    "COLOUR": "colour pixels (RGB, YBR, PALETTE COLOR) where grey ones are expected",
    "MULTI_FRAME": "several frames without the geometry that would order them",
    "PIXEL_FORMAT": "the header describes pixels that cannot exist",
    "TRUNCATED": "fewer pixel bytes than rows x columns x frames need",
    "TOO_LARGE": "the header claims more voxels than the memory of this machine",
    "NOT_FINITE": "pixels or rescale values that are NaN or infinite",
    # A stack that is no volume. `dicom.read_series` refuses these.
    "NO_SERIES": "no readable image series under this folder",
    "SEVERAL_SERIES": "more than one series where one is expected",
    "NO_GEOMETRY": "position, orientation or pixel spacing is missing or impossible",
    "MIXED_SLICES": "slices of one series differ in size, orientation or pixel spacing",
    "MISSING_SLICE": "a gap in the stack of a whole number of slices",
    "UNEVEN_SPACING": "slices are not equally far apart",
    "GANTRY_TILT": "the stack leans: slices are shifted sideways as they advance",
    "NOT_ALIGNED": "a slice is shifted sideways against its neighbours",
    "CONFLICTING_DUPLICATE": "one SOP Instance UID with two different contents",
    "SHARED_POSITION": "different images at one position: phases, echoes or b-values",
    # Arrays and files further down the road.
    "SHAPE_MISMATCH": "an array does not fit the geometry that it is to be given",
    "UNKNOWN_FORMAT": "an image file of a kind that the course does not read",
}


class CourseDataError(ValueError):
    """Bad data, named: which file, what was found, what was expected, what to do.

    Args:
        code: a key of `CODES`, for programs and for looking up.
        message: for people: what was found, what was expected, what to do about it.
        files: the files at fault, if there are any.

    Raises:
        KeyError: if `code` is not in `CODES`; a code that nobody can look up is a bug.
    """

    def __init__(self, code: str, message: str, files: Iterable[str | Path] = ()) -> None:
        if code not in CODES:
            raise KeyError(f"{code!r} is not in helpers.errors.CODES")
        self.code = code
        self.series_uid = ""  # set where a DICOM file got far enough to name its series
        self.message = message
        self.files = tuple(Path(file) for file in files)
        super().__init__(code, message, self.files)

    def __str__(self) -> str:
        names = ", ".join(file.name for file in self.files[:5])
        more = f" and {len(self.files) - 5} more" if len(self.files) > 5 else ""
        return f"[{self.code}] {self.message}" + (f" (files: {names}{more})" if names else "")
