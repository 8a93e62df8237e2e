"""Bad data, named: a table of codes, one exception, and `need`, which raises it.

    need(rows and columns, "PIXEL_FORMAT", f"{rows} rows, {columns} columns", path)

What was found stands where it is found; what it means and what to do stand in `CODES`, once, for
messages, reports and docs/converting.md alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

CODES = {  # what is wrong: what to do
    # A file that is no slice of a volume. `dicom.scan` lists these and goes on.
    "NOT_DICOM": "not DICOM, or without its preamble: nothing, or --force if it is DICOM",
    "UNREADABLE": "cannot be opened, parsed or found: copy the file again, or mend the list",
    "NOT_AN_IMAGE": "DICOM that shows no patient, such as a report or a mask: nothing, as a rule",
    "SCOUT": "a localizer or a capture beside a stack, not a slice of it: nothing, as a rule",
    "MOSAIC": "many slices tiled into one picture: convert it with dcm2niix, then read the NIfTI",
    # An image whose pixels cannot become grey values.
    "DECODER_MISSING": "no installed package decodes this transfer syntax: install what is named",
    "DECODING_FAILED": "compressed data that contradict themselves: copy the file again",
    "COLOUR": "colour where grey is expected: convert it to grey first",
    "MULTI_FRAME": "frames that nothing puts in order: read them with pydicom.pixels.pixel_array",
    "PIXEL_FORMAT": "pixels of a kind that is not read, or cannot exist: save them as grey or RGB",
    "TRUNCATED": "fewer bytes than the header asks for: copy the file again",
    "TOO_LARGE": "more than memory, or one record, can hold: crop it, or use a larger machine",
    "NOT_FINITE": "NaN, infinite, or beyond the dtype: find out what they mean and set them first",
    "WRONG_UNIT": "values that cannot be in the unit of a preset: augment first, scale afterwards",
    # A stack that is no volume. `dicom.read_series` refuses these.
    "NO_SERIES": "no series that can be read: `dicom.scan(folder).rejected` has the reasons",
    "SEVERAL_SERIES": "several series where one is expected: pass one of `scan(folder).series`",
    "NO_GEOMETRY": "place, axes or spacing missing or impossible: mend it, or resample first",
    "MIXED_SLICES": "slices that differ in what a volume shares: separate them into series",
    "MISSING_SLICE": "a gap in the stack: fetch the series again",
    "UNEVEN_SPACING": "slices that are not equally far apart: fetch the series again, or resample",
    "GANTRY_TILT": "a stack that leans, so that voxels are no boxes: resample it upright first",
    "NOT_ALIGNED": "a slice beside its neighbours: separate the acquisitions of the series",
    "CONFLICTING_DUPLICATE": "one UID with two contents: one was altered, fetch the series again",
    "SHARED_POSITION": "different images at one place: separate phases, echoes or b-values",
    # Arrays and files further down the road.
    "SHAPE_MISMATCH": "shapes that do not go together: resample, or choose what belongs together",
    "UNKNOWN_FORMAT": "a kind of file that is not read here: nothing, or convert it first",
    # Lists of cases: what belongs together, and what may stand where.
    "DATA_LIST": "a list (JSON or CSV) that does not say what it should: mend it",
    "UNSAFE_PATH": "a path that leaves the set's folder: write it below, with forward slashes",
    "NO_PAIR": "an image without its mask, or the reverse: find it, or leave the other out",
    "SAME_CASE": "cases, or masks, of one name: leave copies out, merge the parts of a mask",
    "PATIENT_IN_TWO_SPLITS": "the test would know its answers: `splits.split` splits by patient",
    "IMAGE_IN_TWO_SPLITS": "the same pixels in two splits: leave copies out, or share a patient",
    "UNKNOWN_LABEL": "an id that no class names: name it in `classes`, or map it (--map 0=0,255=1)",
    # A case that becomes no record. `records.write` lists these and goes on.
    "MASK_MISMATCH": "image and mask on different grids: find its own mask, or resample the mask",
    "CONSTANT": "every pixel has the same value: leave the image out",
    "BURNED_IN": "text stated or likely in the pixels: look; have it removed, or --allow-unchecked",
    "ROTATED": "EXIF says it is to be turned: turn image and mask alike and save without EXIF",
    # Crops.
    "CROP_TOO_LARGE": "a crop larger than the image: choose a smaller one, or pad the image",
    "NO_PLACE": "no voxel to centre a crop on: choose other classes, or leave the case out",
    # What a pipeline is fed with: said before the first batch.
    "EMPTY_LIST": "a list of cases with nothing in it: look at how it was made",
    "EMPTY_CLASS": "a class without a single case: leave the class out, or find cases",
    "BAD_WEIGHT": "weights missing, negative, not finite or all zero: mend them",
    "CACHE_TOO_LARGE": "a cache of more cases than the set has: make it smaller",
    "LOADING_FAILED": "a loader raised an error: mend the case, or leave it out",
    # A folder of records.
    "NOTHING_WRITTEN": "not one case became a record: the reasons say what is in the way",
    "LOCKED": "another process is writing here: wait for it, or choose another folder",
    "DISK_FULL": "no room for the records: make room and run the same again; what is done is kept",
    "OTHER_SET": "records of other cases or parameters: choose another folder, or --overwrite",
    "NO_MANIFEST": "no records, or a set that was never finished: run the conversion again",
    "MANIFEST_DAMAGED": "altered, or of another version: fetch it again, or convert again",
    "MISSING_SHARD": "a shard that the manifest lists is gone: fetch it, or convert again",
    "TRUNCATED_SHARD": "a shard shorter than the manifest says: fetch it, or convert again",
    "ALTERED_SHARD": "a shard with other bytes than were written: fetch it, or convert again",
    "FOREIGN_SHARD": "a shard that the manifest does not list: move it out of the folder",
}


def meaning(code: str) -> str:
    """What is wrong with a `code`, in words that name nobody.

    >>> meaning("NO_PAIR")
    'an image without its mask, or the reverse'

    Taught in: no lesson; reports use it
    """
    return CODES[code].partition(": ")[0]


def cure(code: str) -> str:
    """What to do about a `code`.

    >>> cure("TRUNCATED")
    'copy the file again'

    Taught in: no lesson; messages and reports use it
    """
    return CODES[code].partition(": ")[2]


class CourseDataError(ValueError):
    """Bad data, named: which file, what was found, what to do.

    Args:
        code: a key of `CODES`, for programs and for looking up.
        found: what was found and, where it helps, what was expected; in words for people.
        files: the files at fault, if there are any; messages hold their names, not their folders.

    Raises:
        KeyError: if `code` is not in `CODES`; a code that nobody can look up is a bug.

    Taught in: loading DICOM
    """

    def __init__(self, code: str, found: str, files: Iterable[str | Path] = ()) -> None:
        if code not in CODES:
            raise KeyError(f"{code!r} is not in helpers.errors.CODES")
        self.code, self.message = code, found
        self.files = tuple(Path(file) for file in files)
        super().__init__(code, found, self.files)

    def __str__(self) -> str:
        names = listed([file.name for file in self.files], most=5)
        return f"[{self.code}] {self.message}; {cure(self.code)}" + f" ({names})" * bool(names)


def need(good: object, code: str, found: str, *files: str | Path) -> None:
    """Go on if all is well, else say what was `found` in which `files`.

        need(rows and columns, "PIXEL_FORMAT", f"{rows} rows, {columns} columns", path)

    Raises:
        CourseDataError: with that `code`, unless `good`.

    Taught in: no lesson; every reader uses it
    """
    if not good:
        raise CourseDataError(code, found, files)


def listed(values: Sequence, most: int = 10) -> str:
    """The first of some `values`, at `most` so many, and how many more there are, for a message.

    >>> listed("abc", most=2)
    'a, b and 1 more'

    Taught in: no lesson; messages use it
    """
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more
