"""One exception for bad data, and the table of codes that name what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    "TOO_LARGE": "more voxels than the memory of this machine, or than one record, can hold",
    "NOT_FINITE": "pixels or rescale values that are NaN or infinite",
    # A stack that is no volume. `dicom.read_series` refuses these.
    "NO_SERIES": "no readable image series under this folder",
    "SEVERAL_SERIES": "more than one series where one is expected",
    "NO_GEOMETRY": "position, orientation or pixel spacing is missing or impossible",
    "MIXED_SLICES": "slices of one series differ in size, orientation, pixel spacing or patient",
    "MISSING_SLICE": "a gap in the stack of a whole number of slices",
    "UNEVEN_SPACING": "slices are not equally far apart",
    "GANTRY_TILT": "the stack leans: slices are shifted sideways as they advance",
    "NOT_ALIGNED": "a slice is shifted sideways against its neighbours",
    "CONFLICTING_DUPLICATE": "one SOP Instance UID with two different contents",
    "SHARED_POSITION": "different images at one position: phases, echoes or b-values",
    # Arrays and files further down the road.
    "SHAPE_MISMATCH": "an array does not fit the geometry that it is to be given",
    "UNKNOWN_FORMAT": "an image file of a kind that the course does not read",
    # Lists of cases: what belongs together, and what may stand where.
    "DATA_LIST": "the data set's list (JSON or CSV) does not say what it should",
    "UNSAFE_PATH": "a path that is absolute, climbs with '..' or leaves the folder by a link",
    "NO_PAIR": "an image without its mask, or a mask without its image",
    "SAME_CASE": "two cases with one name",
    "PATIENT_IN_TWO_SPLITS": "one patient in two splits: the test would know its answers",
    "IMAGE_IN_TWO_SPLITS": "the same pixels in two splits: the test would know its answers",
    "UNKNOWN_LABEL": "a label, or an id in a mask, that the classes do not name",
    # A case that becomes no record. `records.write` lists these and goes on.
    "MASK_MISMATCH": "image and mask differ in shape or geometry",
    "CONSTANT": "an image in which every pixel has the same value",
    "BURNED_IN": "text may be burned into the pixels: stated, or likely and not denied",
    "ROTATED": "the photograph's EXIF says that it is to be turned; its mask may be either way",
    # Crops.
    "CROP_TOO_LARGE": "a crop that is larger than the image",
    "NO_PLACE": "no voxel that a crop could be centred on",
    # What a pipeline is fed with: said before the first batch.
    "EMPTY_LIST": "a list of cases with nothing in it",
    "EMPTY_CLASS": "a class without a single case to draw",
    "BAD_WEIGHT": "sampling weights that are missing, negative, not finite or all zero",
    "CACHE_TOO_LARGE": "a cache of more cases than the set has",
    "LOADING_FAILED": "a loader raised an error; it is told with the name of its case",
    # A folder of records.
    "NOTHING_WRITTEN": "not one case became a record",
    "LOCKED": "another process is writing to this folder",
    "DISK_FULL": "the disk has no room for the records",
    "OTHER_SET": "the folder holds records of other cases or other parameters",
    "NO_MANIFEST": "no manifest: no records, or a set that was never finished",
    "MANIFEST_DAMAGED": "the manifest was altered, or is of another version",
    "MISSING_SHARD": "a shard that the manifest lists is not there",
    "TRUNCATED_SHARD": "a shard is shorter than the manifest says",
    "ALTERED_SHARD": "a shard's bytes are not the ones that were written",
    "FOREIGN_SHARD": "a shard that the manifest does not list",
}


def listed(values: Sequence, most: int = 10) -> str:
    """The first few of them, and how many more there are, for a message."""
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more


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
        names = listed([file.name for file in self.files], most=5)
        return f"[{self.code}] {self.message}" + (f" (files: {names})" if names else "")
