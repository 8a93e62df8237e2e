"""From a folder of DICOM files to volumes: `scan` says what is there, `read_series` reads it."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import psutil
from tqdm.auto import tqdm

from helpers.cases import files_below
from helpers.dicom.header import Header, images, read_header
from helpers.dicom.pixels import read_voxels
from helpers.dicom.stack import SAME_GRID, arrange, interpolated, normal
from helpers.errors import CourseDataError, listed, meaning, need
from helpers.volume import Volume

ELSEWHERE = {"NOT_DICOM", "NOT_AN_IMAGE", "UNREADABLE", "SCOUT"}
# Without a place in the patient each of these is an image of its own, never a slice of a stack.
FLAT = {"CR", "DX", "IO", "MG", "PX", "RG", "XC", "RF", "US", "XA"}
STACK = 3  # images with a place: what is alone beside them, or has none, is a scout


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A file that is no slice of any series, and why: `code` is a key of `errors.CODES`.

    `stated` is what the file says of itself, if it got that far.

    Taught in: loading DICOM
    """

    path: Path
    code: str
    reason: str
    stated: Header | None = None


@dataclasses.dataclass(frozen=True)
class Series:
    """The files of one series with one size and one orientation, in order along the normal.

    `damaged` lists rejected files that say they belong here: the series is not whole. `notes` are
    handed on to the volume. UIDs lead to a patient, so they stay out of what is printed.

    Taught in: loading DICOM
    """

    uid: str
    modality: str
    headers: tuple[Header, ...]
    damaged: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The series' files, each once, ordered by position where there is one."""
        return tuple(dict.fromkeys(header.path for header in self.headers))

    def __repr__(self) -> str:
        first, hurt = self.headers[0], f", {len(self.damaged)} damaged" * bool(self.damaged)
        counts = f"{len(self.files)} files, {len(self.headers)} images"
        return f"Series({self.modality}, {counts} of {first.rows} x {first.columns}{hurt})"


@dataclasses.dataclass(frozen=True)
class Scan:
    """What lies under a folder: `series` to read, `rejected` files with their reasons.

    Taught in: loading DICOM
    """

    series: tuple[Series, ...]
    rejected: tuple[Rejected, ...]

    def __repr__(self) -> str:
        return f"Scan({len(self.series)} series; rejected: {_by_code(self.rejected) or 'nothing'})"


def scan(folder: str | Path, *, force: bool = False, progress: bool = False) -> Scan:
    """Read the header of every file under a folder and sort the files into series.

        found = dicom.scan("data/messy_folder/disc")
        found.series, found.rejected     # every file stands in exactly one of the two

    Pixels are not read. Files are split by Series Instance UID, by kind (SOP class), by size and by
    orientation. Localizers are listed as `SCOUT`, and so is what is alone, or without a place in
    the patient, beside a stack of its series: an image across the others, a capture of a screen.

    Args:
        folder: searched with its subfolders; a single file is taken as a folder of one.
        force: also parse files that lack the DICOM preamble.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if there is no such folder.

    Taught in: loading DICOM
    """
    top = Path(folder).expanduser()
    if folder == "" or not top.exists():
        raise FileNotFoundError(f"no such folder: {folder or 'an empty path'}")
    paths, odd = files_below(top) if top.is_dir() else ([top], [])
    rejected = [Rejected(path, "UNREADABLE", meaning("UNREADABLE")) for path in odd]
    files = []  # each a list of frames
    for path in tqdm(paths, unit="file", disable=not progress):
        stated = None
        try:
            stated = read_header(path, force)
            files.append(images(stated))
            continue
        except CourseDataError as error:
            code, reason = error.code, error.message
        except Exception as error:  # by the system, or of many classes by pydicom
            # No words of the latter: they may quote.
            code, reason = "UNREADABLE", getattr(error, "strerror", None) or type(error).__name__
        rejected.append(Rejected(path, code, reason, stated))
    found = _series(_without_scouts(_groups(files), rejected), rejected)
    series = sorted(found, key=lambda series: min(series.files))
    return Scan(tuple(series), tuple(sorted(rejected, key=lambda file: file.path)))


def read_series(source: str | Path | Series, *, fill_gaps: bool = False) -> Volume:
    """Read one series into a `Volume`, or say by name why it is none.

        volume = dicom.read_series("data/ct_torso/case_00")

    Args:
        source: a `Series` of `scan`, or a folder (or file) that holds exactly one series.
        fill_gaps: interpolate linearly to an even grid, from the first slice to the last, where
            slices are missing or unevenly spaced; the volume's notes record it and name the slices
            made up. By default such a series is refused, and always if more slices would be made
            up than were measured.

    Returns:
        Voxels `[z, y, x]`, z along the slice normal: int16 where rescale slope and intercept
        allow, else float32. Geometry equals that of SimpleITK. `notes` tell what was done:
        MONOCHROME1 inverted, a copy left out, gaps filled, a spacing assumed. Voxels that the
        scanner padded (outside its circle) keep the padding value; a window hides them.

    Raises:
        CourseDataError: the codes of `errors.CODES` that speak of files, pixels and stacks.
        FileNotFoundError: if there is no such folder.
        TypeError: for a `Scan`, which can hold several; choose one of its series.

    Taught in: loading DICOM
    """
    series = source if isinstance(source, Series) else _only_series(source)
    if series.damaged:
        first = series.damaged[0]
        same = [file.path for file in series.damaged if file.code == first.code]
        raise CourseDataError(first.code, f"not whole: {first.reason}", same)
    slices, places, grid = arrange(series.headers, fill_gaps=fill_gaps)
    needed, free = 4 * grid.voxels.size, psutil.virtual_memory().available
    found = f"{needed} bytes of voxels, {free} are free"
    need(needed <= free, "TOO_LARGE", found, slices[0].path)
    voxels = read_voxels(slices)
    if not np.array_equal(places, range(len(slices))):
        voxels = interpolated(voxels, places)
    notes = list(series.notes)
    if any(header.padding is not None for header in slices):
        notes.append("padded voxels keep the padding value")
    if inverted := sum(header.inverted for header in slices):
        notes.append(f"MONOCHROME1 inverted: {inverted} of {len(slices)} slices")
    return grid.with_voxels(voxels, *notes)


Group = list[list[Header]]  # files, each a list of frames


def _groups(files: Group) -> list[Group]:
    """Files of one series UID, kind, size and orientation.

    An image that states no orientation stays with its series, so that it is missed there.
    """
    groups = defaultdict(list)
    for file in sorted(files, key=lambda file: file[0].orientation is None):
        first = file[0]
        alone = _is_alone(first) and (first.sop_uid or first.path)
        like = groups[first.series_uid, alone, first.sop_class, first.rows, first.columns]
        group = next((group for group in like if _is_parallel(group[0][0], first)), None)
        if group is None:
            like.append(group := [])
        group.append(file)
    return list(itertools.chain(*groups.values()))


def _is_alone(header: Header) -> bool:
    """Whether nothing links an image to others, but copies of it."""
    return not header.series_uid or (header.modality in FLAT and not header.placed)


def _is_parallel(known: Header, new: Header) -> bool:
    """Whether two slices are turned alike; one that does not say so is."""
    if new.orientation in (None, known.orientation):
        return True
    return np.allclose(known.orientation, new.orientation, rtol=0, atol=SAME_GRID)


def _without_scouts(groups: list[Group], rejected: list[Rejected]) -> list[Group]:
    """The groups that are no scouts beside the stack of their series; those become rejected."""
    large = [group[0][0] for group in groups if len(group) >= STACK]
    stacks, kept = {first.series_uid for first in large if first.placed} - {""}, []
    for group in groups:
        first = group[0][0]
        if first.series_uid in stacks and (len(group) == 1 or not first.placed):
            reason = "of another kind, plane or size than the rest of its series"
            rejected += [Rejected(file[0].path, "SCOUT", reason, file[0]) for file in group]
        else:
            kept.append(group)
    for k, file in enumerate(rejected):
        if file.code == "COLOUR" and file.stated.series_uid in stacks and not file.stated.placed:
            rejected[k] = dataclasses.replace(file, code="SCOUT")
    return kept


def _series(groups: list[Group], rejected: list[Rejected]) -> Iterator[Series]:
    """Each group with what else is known of its files, by lists so that a scan stays linear."""
    near = defaultdict(list)
    for file in rejected:
        uid = file.stated and file.stated.series_uid
        # One that was cut before its series UID may belong to any series of its folder.
        if uid or file.code in ("TRUNCATED", "UNREADABLE"):
            near[uid or file.path.parent].append(file)
    for group in groups:
        headers = tuple(sorted(itertools.chain(*group), key=_height))
        first, folders = headers[0], sorted({header.path.parent for header in headers})
        others = [file for place in (first.series_uid, *folders) for file in near[place]]
        damaged = tuple(file for file in others if _may_belong(file, first))
        left = _by_code(file for file in others if file.code in ELSEWHERE)
        notes = (f"files left out beside the series: {left}",) if left else ()
        yield Series(first.series_uid, first.modality, headers, damaged, notes)


def _by_code(files: Iterable[Rejected]) -> str:
    """How many files were rejected for which reason."""
    codes = sorted(Counter(file.code for file in files).items())
    return ", ".join(f"{count} {code}" for code, count in codes)


def _may_belong(file: Rejected, first: Header) -> bool:
    """Whether a file is a damaged part of a series: nothing that it states contradicts that."""
    stated = file.stated
    return (
        file.code not in ELSEWHERE
        and not _is_alone(first)
        and stated.sop_class == first.sop_class
        and stated.modality in ("", first.modality)
        and stated.study_uid in ("", first.study_uid)
    )


def _height(header: Header) -> tuple:
    height = header.position @ normal(header.orientation) if header.placed else 0.0
    return (not header.placed, height, header.path, header.frame or 0)


def _only_series(folder: str | Path) -> Series:
    found = scan(folder)
    if len(found.series) == 1:
        return found.series[0]
    several = f"{len(found.series)} series where one is expected: {listed(found.series, most=6)}"
    need(not found.series, "SEVERAL_SERIES", several, *(one.files[0] for one in found.series))
    wrong = [file for file in found.rejected if file.code not in ELSEWHERE]
    code, reason = "NO_SERIES", f"no series that can be read here: {found}"
    if len({file.code for file in wrong}) == 1:
        code, reason = wrong[0].code, wrong[0].reason
    raise CourseDataError(code, reason, [file.path for file in wrong or found.rejected])
