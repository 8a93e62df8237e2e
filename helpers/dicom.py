"""From a folder of DICOM files to volumes: `scan` says what is there, `read_series` reads it.

found = dicom.scan("data/messy_folder")
found.series, found.rejected          # every file stands in exactly one of the two
volume = dicom.read_series(found.series[0])
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import psutil
from tqdm.auto import tqdm

from helpers.dicom_header import Header, read_headers
from helpers.dicom_pixels import read_voxels, stored_pixels
from helpers.dicom_stack import arrange, even_grid, normal, same_orientation
from helpers.errors import CourseDataError
from helpers.volume import Volume

ELSEWHERE = {"NOT_DICOM", "NOT_AN_IMAGE", "UNREADABLE", "SCOUT"}
PROJECTIONS = {"CR", "DX", "IO", "MG", "PX", "RG", "XC"}  # views of one study, never a stack


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A file that is no slice of any series, and why: `code` is a key of `errors.CODES`."""

    path: Path
    code: str
    reason: str
    series_uid: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True)
class Series:
    """The files of one series with one size and one orientation, in order along the normal.

    `damaged` lists rejected files that say they belong here: the series is not whole. `notes` are
    handed on to the volume. UIDs lead to a patient, so they stay out of what is printed.
    """

    uid: str = dataclasses.field(repr=False)
    modality: str
    headers: tuple[Header, ...] = dataclasses.field(repr=False)
    damaged: tuple[Rejected, ...] = dataclasses.field(default=(), repr=False)
    notes: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """The series' files, each once, ordered by position where there is one."""
        return tuple(dict.fromkeys(header.path for header in self.headers))

    def __repr__(self) -> str:
        first = self.headers[0]
        hurt = f", {len(self.damaged)} damaged" if self.damaged else ""
        return (
            f"Series({self.modality}, {len(self.files)} files, {len(self.headers)} images of "
            f"{first.rows} x {first.columns}{hurt})"
        )


@dataclasses.dataclass(frozen=True)
class Scan:
    """What lies under a folder: `series` to read, `rejected` files with their reasons."""

    series: tuple[Series, ...]
    rejected: tuple[Rejected, ...]

    def __repr__(self) -> str:
        reasons = Counter(file.code for file in self.rejected)
        counts = ", ".join(f"{count} {code}" for code, count in sorted(reasons.items()))
        return f"Scan({len(self.series)} series; rejected: {counts or 'nothing'})"


def scan(folder: str | Path, *, force: bool = False, progress: bool = False) -> Scan:
    """Read the header of every file under a folder and sort the files into series.

    Pixels are not read. Files are split by Series Instance UID, by size and by orientation; a
    localizer, or an image that lies across the rest of its series, is listed as `SCOUT`.

    Args:
        folder: searched with its subfolders; a single file is taken as a folder of one.
        force: also parse files that lack the DICOM preamble.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    headers, rejected = [], []
    if not os.fspath(folder):
        raise FileNotFoundError("an empty path; for the working directory, pass '.'")
    files = _files(Path(folder).expanduser(), rejected)
    for path in tqdm(files, unit="file", disable=not progress):
        if not path.is_file():  # opening a pipe would wait for ever
            reason = "not a regular file: a pipe, a device or a broken link"
            rejected.append(Rejected(path, "UNREADABLE", reason))
            continue
        try:
            headers.append(read_headers(path, force=force))
        except CourseDataError as error:
            rejected.append(Rejected(path, error.code, error.message, error.series_uid))
        except OSError as error:
            rejected.append(Rejected(path, "UNREADABLE", f"cannot be opened: {error.strerror}"))

    groups = _group(headers)
    sizes = defaultdict(int)
    for uid, group in groups:
        sizes[uid] = max(sizes[uid], len(group))
    stacks = []
    for uid, group in groups:
        # A lone image that shares its series UID with a stack.
        if uid and len(group) == 1 and sizes[uid] >= 3:
            reason = "a single image in another plane or size than the rest of its series"
            rejected.append(Rejected(group[0][0].path, "SCOUT", reason, uid))
        else:
            stacks.append((uid, group))
    known = _Known(rejected)
    series = [_series(uid, group, known) for uid, group in stacks]
    series.sort(key=lambda one: min(one.files))
    rejected.sort(key=lambda file: file.path)
    return Scan(tuple(series), tuple(rejected))


def read_series(source: str | Path | Series, *, fill_gaps: bool = False) -> Volume:
    """Read one series into a `Volume`, or say by name why it is none.

    Args:
        source: a `Series` of `scan`, or a folder (or file) that holds exactly one series.
        fill_gaps: interpolate linearly to an even grid where slices are missing or unevenly
            spaced; the volume's notes record it. By default such a series is refused.

    Returns:
        Voxels `[z, y, x]`, z along the slice normal: int16 where rescale slope and intercept
        allow, else float32. Geometry equals that of SimpleITK. `notes` tell what was done:
        MONOCHROME1 inverted, a copy left out, gaps filled, a spacing assumed. Voxels that the
        scanner padded (outside its circle) keep the padding value; a window hides them.

    Raises:
        CourseDataError: the codes of `errors.CODES` that speak of files, pixels and stacks.
        FileNotFoundError: if there is no such folder.
        TypeError: for a `Scan`; choose one of its series.
    """
    if isinstance(source, Scan):
        raise TypeError("pass one of scan.series: a scan can hold several")
    series = source if isinstance(source, Series) else _only_series(source)
    if series.damaged:
        first = series.damaged[0]
        files = [file.path for file in series.damaged if file.code == first.code]
        raise CourseDataError(first.code, f"this series is not whole: {first.reason}", files)

    stack = arrange(list(series.headers), fill_gaps=fill_gaps)
    _need_memory(stack.slices)
    notes = [*series.notes, *stack.notes]
    for kept, copy in stack.copies:
        refuse_unless_copies(kept, copy)
    if stack.copies:
        kept, copy = stack.copies[0]
        first = f"{copy.path.name} of {kept.path.name}"
        more = f" and {len(stack.copies) - 1} more" if len(stack.copies) > 1 else ""
        notes.append(f"copies counted once: {first}{more}")
    voxels = read_voxels(stack.slices)
    inverted = sum(header.inverted for header in stack.slices)
    padding = {header.padding for header in stack.slices} - {None}
    if padding:
        listed = ", ".join(str(value) for value in sorted(padding))
        notes.append(f"Pixel Padding Value {listed} (stored): kept where nothing was measured")
    if inverted:
        notes.append(f"MONOCHROME1 inverted on {inverted} of {len(stack.slices)} slices")
    spacing = stack.spacing
    if fill_gaps and len(stack.slices) > 2:
        voxels, between_mm, filled = even_grid(voxels, stack.heights_mm)
        if filled:
            spacing = (between_mm, *spacing[1:])
            notes.append(filled)
    return Volume(voxels, spacing, stack.origin, stack.direction, tuple(notes))


def _files(folder: Path, rejected: list[Rejected]) -> list[Path]:
    """Every file under a folder; a subfolder that cannot be listed is rejected by name.

    Links to folders are followed; a folder that is reached twice is listed once.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    found, seen = [], set()

    def note(error: OSError) -> None:
        reason = f"this folder cannot be listed: {error.strerror}"
        rejected.append(Rejected(Path(error.filename), "UNREADABLE", reason))

    for root, folders, names in os.walk(folder, onerror=note, followlinks=True):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found += [os.path.join(root, name) for name in names]
    return [Path(name) for name in sorted(found)]


def _group(headers: list[list[Header]]) -> list[tuple[str, list[list[Header]]]]:
    """Files with one series UID, one size and one orientation.

    An image that states no orientation stays with its series, so that it is missed there.
    """
    groups: list[tuple[str, list[list[Header]]]] = []
    by_uid_and_size = defaultdict(list)
    for file in sorted(headers, key=lambda file: file[0].orientation is None):
        first = file[0]
        # Without a series UID nothing links a file to another.
        alone = not first.series_uid or (first.modality in PROJECTIONS and first.position is None)
        key = (str(first.path) if alone else first.series_uid, first.rows, first.columns)
        for group in by_uid_and_size[key]:
            if first.orientation is None or same_orientation(group[0][0], first):
                group.append(file)
                break
        else:
            group = [file]
            by_uid_and_size[key].append(group)
            groups.append((first.series_uid, group))
    return groups


class _Known:
    """The rejected files by what leads to them, so that a scan stays linear in its files."""

    def __init__(self, rejected: list[Rejected]) -> None:
        self.by_series: dict[str, list[Rejected]] = defaultdict(list)
        self.by_folder: dict[Path, list[Rejected]] = defaultdict(list)
        for file in rejected:
            self.by_series[file.series_uid].append(file)
            self.by_folder[file.path.parent].append(file)


def _series(uid: str, group: list[list[Header]], known: _Known) -> Series:
    """A series, with what else is known of its files."""
    folders = sorted({file[0].path.parent for file in group})
    beside = [file for folder in folders for file in known.by_folder.get(folder, ())]
    own = known.by_series.get(uid, ()) if uid else ()
    # An image cut before its series UID may belong to any series of its folder.
    cut = [file for file in beside if not file.series_uid and file.code == "TRUNCATED"]
    damaged = [*(file for file in own if file.code not in ELSEWHERE), *cut]
    scouts = sum(file.code == "SCOUT" for file in own)
    unreadable = sum(file.code == "UNREADABLE" for file in beside)
    notes = []
    if scouts:
        notes.append(f"left out as scouts: {scouts} of this series' images")
    if unreadable:
        notes.append(f"unreadable files beside this series: {unreadable}")
    images = sorted((header for file in group for header in file), key=_height)
    return Series(uid, images[0].modality, tuple(images), tuple(damaged), tuple(notes))


def _height(header: Header) -> tuple:
    if header.position is None or header.orientation is None:
        return (1, header.instance_number or 0, str(header.path), header.frame or 0)
    x, y, z = normal(header.orientation)
    height = header.position[0] * x + header.position[1] * y + header.position[2] * z
    return (0, height, str(header.path), header.frame or 0)


def _only_series(folder: str | Path) -> Series:
    found = scan(folder)
    if len(found.series) == 1:
        return found.series[0]
    if found.series:
        listed = "; ".join(str(series) for series in found.series[:6])
        raise CourseDataError(
            "SEVERAL_SERIES",
            f"{len(found.series)} series where one is expected: {listed}; pass one of "
            "scan(folder).series",
            [series.files[0] for series in found.series],
        )
    images = [file for file in found.rejected if file.code not in ELSEWHERE]
    if len({file.code for file in images}) == 1:
        raise CourseDataError(images[0].code, images[0].reason, [file.path for file in images])
    raise CourseDataError(
        "NO_SERIES",
        f"no readable series here ({found}); scan(folder).rejected has the reason for each file",
        [file.path for file in found.rejected],
    )


def _need_memory(slices: tuple[Header, ...]) -> None:
    first = slices[0]
    needed = len(slices) * first.rows * first.columns * 4
    available = psutil.virtual_memory().available
    if needed > available:
        raise CourseDataError(
            "TOO_LARGE",
            f"{len(slices)} slices of {first.rows} x {first.columns} may need "
            f"{needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free",
            [first.path],
        )


def refuse_unless_copies(kept: Header, copy: Header) -> None:
    """Two images at one position have to be the same image, by their values if not by their UID."""
    alike = all(
        getattr(kept, name) == getattr(copy, name)
        for name in ("slope", "intercept", "inverted", "signed", "bits_stored")
    )
    if alike and np.array_equal(stored_pixels(kept), stored_pixels(copy)):
        return
    if kept.sop_uid == copy.sop_uid:
        raise CourseDataError(
            "CONFLICTING_DUPLICATE",
            "one SOP Instance UID and one position, but different images: one of the files was "
            "altered; fetch the series again",
            [kept.path, copy.path],
        )
    raise CourseDataError(
        "SHARED_POSITION",
        "two different images lie at one position: several phases, echoes or b-values in one "
        "series; split them before stacking",
        [kept.path, copy.path],
    )
