"""Put the slices of a series in order, and refuse a stack that is no volume.

Everything follows from two header elements: Image Position (Patient), the centre of a slice's
first pixel, and Image Orientation (Patient), the directions of its rows and columns (DICOM PS3.3
C.7.6.2.1.1). File names and instance numbers are not looked at.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from helpers.dicom.header import Header
from helpers.dicom.pixels import read_voxels
from helpers.errors import listed, need

SAME_GRID = 1e-3  # of a direction cosine (0.06 degrees), and of the pixel spacing
SPACING_TOLERANCE = 0.02  # of the distance between slices
SAME_PLACE = 0.01  # of a pixel
TILT_TOLERANCE_DEGREES = 0.5


@dataclasses.dataclass(frozen=True)
class Stack:
    """Slices in order and the geometry they give: see `helpers.volume.Volume`.

    `heights_mm` are the slices' places along the normal; `even_mm` those of the volume, where they
    differ and are to be interpolated.

    Taught in: loading DICOM
    """

    slices: Sequence[Header]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: np.ndarray
    notes: Sequence[str]
    heights_mm: np.ndarray | None = None
    even_mm: np.ndarray | None = None


@functools.lru_cache(maxsize=1024)
def normal(orientation: tuple[float, ...]) -> np.ndarray:
    """The unit vector along which slices are stacked: rows x columns.

    >>> (normal((1, 0, 0, 0, 0, -1)) + 0.0).tolist()
    [0.0, 1.0, 0.0]

    Args:
        orientation: direction cosines of rows, then columns (x, y, z each), LPS.

    Returns:
        (x, y, z); zero for an orientation that is none.

    Taught in: loading DICOM
    """
    vector = np.cross(orientation[:3], orientation[3:])
    return vector / (np.linalg.norm(vector) or 1.0)


def arrange(headers: Sequence[Header], *, fill_gaps: bool = False) -> Stack:
    """Sort along the slice normal; check that what comes out is a volume.

        stack = arrange(dicom.scan(folder).series[0].headers)

    Args:
        headers: the images of one series, in any order.
        fill_gaps: accept gaps; `even_mm` then tells where slices are to be interpolated.

    Raises:
        CourseDataError: `NO_GEOMETRY`, `MIXED_SLICES`, `MISSING_SLICE`, `UNEVEN_SPACING`,
            `GANTRY_TILT`, `NOT_ALIGNED`, `CONFLICTING_DUPLICATE` or `SHARED_POSITION`.

    Taught in: loading DICOM
    """
    first = headers[0]
    if len({(h.sop_uid or h.path, h.frame, h.position) for h in headers}) == 1:
        return _single(first, _copies_left_out(itertools.pairwise(headers)))
    _check_alike(headers)
    direction = _axes(first)
    positions = np.array([header.position for header in headers])
    heights = positions @ direction[:, 2]
    order = np.argsort(heights, kind="stable")
    slices, heights = [headers[i] for i in order], heights[order]
    _check_upright(slices, heights, positions[order] @ direction[:, :2])

    fresh = np.r_[True, np.diff(heights) > SAME_PLACE * min(first.pixel_spacing)]
    notes = _copies_left_out(itertools.compress(itertools.pairwise(slices), ~fresh[1:]))
    slices, heights = list(itertools.compress(slices, fresh)), heights[fresh]
    if len(slices) == 1:
        return _single(slices[0], notes)
    _check_acquisitions(slices)
    between_mm, even_mm, filled = _even(slices, heights, fill_gaps)
    spacing = (between_mm, *first.pixel_spacing)
    return Stack(slices, spacing, slices[0].position, direction, notes + filled, heights, even_mm)


def best_grid(heights: np.ndarray) -> tuple[np.ndarray | None, float]:
    """The even grid on which all slices lie, if there is one, with steps left out at gaps.

    >>> best_grid(np.array([0.0, 0.67, 1.33, 2.67]))[0]
    array([0, 1, 2, 4])

    Heights are compared with the grid that fits them best, not gap with gap: rounded positions
    then do no harm, and small steps that add up do not pass.

    Args:
        heights: of at least two slices along the normal, in mm, sorted.

    Returns:
        Each slice's step on the grid and the distance between steps in mm; or None, if there is no
        such grid, and the usual distance between neighbours.

    Taught in: loading DICOM
    """
    gaps = np.diff(heights)
    usual = float(np.quantile(gaps, 0.5, method="lower"))  # a few gaps do not move it
    # Positions written with one decimal lie up to 0.05 mm off some grid; a little more is allowed.
    tolerance_mm = min(max(SPACING_TOLERANCE * usual, 0.07), 0.2 * usual)
    steps = np.round(gaps / usual).astype(int)
    index = np.r_[0, np.cumsum(steps)]
    between_mm = np.polyfit(index, heights, 1)[0]
    # Least squares is near the grid that suits the worst slice, but it is another one.
    around = between_mm + np.linspace(-0.2, 0.2, 401) / index[-1]
    astray_mm = np.ptp(heights - np.outer(around, index), axis=1).min() / 2
    fits = steps.min() >= 1 and astray_mm <= tolerance_mm
    return (index, float(between_mm)) if fits else (None, usual)


def _even(slices, heights, fill_gaps: bool) -> tuple[float, np.ndarray | None, list[str]]:
    """The distance between slices; if gaps are filled, at which heights, and a note of it.

    Filling gives at most twice as many slices as were measured.
    """
    index, between_mm = best_grid(heights)
    gaps, span_mm = np.diff(heights), float(heights[-1] - heights[0])
    if index is None:
        code, steps = "UNEVEN_SPACING", int(span_mm / between_mm + SPACING_TOLERANCE)
    else:
        code, steps = "MISSING_SLICE", int(index[-1])
        if steps == len(gaps):
            return span_mm / steps, None, []
    few = steps < 2 * len(slices)
    offer = "fill_gaps=True interpolates" if few else "more than half would have to be made up"
    k = int(np.abs(gaps - between_mm).argmax())
    lie = f"the one above {heights[k]:.2f} mm is {gaps[k]:.2f} mm away"
    found = f"slices are {between_mm:.2f} mm apart for the most part, but {lie}; {offer}"
    need(fill_gaps and few, code, found, slices[k].path, slices[k + 1].path)
    even = heights[0] + between_mm * np.arange(steps + 1)
    off_mm = np.abs(even - heights[:, None]).min(axis=0)
    made_up = np.flatnonzero(off_mm > max(SPACING_TOLERANCE * between_mm, 0.1))
    note = f"interpolated from {len(slices)} uneven slices to {len(even)}, {between_mm:g} mm apart"
    if len(made_up):
        note += f"; made up, counted from 0: {listed(made_up)}"
    left_mm = span_mm - steps * between_mm
    if left_mm > SPACING_TOLERANCE * between_mm:
        note += f"; the last {left_mm:.2f} mm of the scan do not fill a step and are left out"
    return between_mm, even, [note]


def interpolated(voxels: np.ndarray, heights: np.ndarray, even: np.ndarray) -> np.ndarray:
    """Voxels `[z, y, x]` at other heights, linearly between neighbours, of the same dtype.

    >>> interpolated(np.array([[[0]], [[10]], [[40]]]), np.array([0, 1, 3]), np.arange(4)).ravel()
    array([ 0, 10, 25, 40])

    Args:
        voxels: slices in order.
        heights: of the slices along the normal, in mm.
        even: the heights wanted, in mm.

    Taught in: no lesson; `read_series` uses it
    """
    place = np.interp(even, heights, np.arange(len(heights)))
    below = np.minimum(place.astype(int), len(heights) - 2)
    result = np.empty((len(even), *voxels.shape[1:]), voxels.dtype)
    for out, i, share in zip(result, below, place - below, strict=True):
        line = np.float32((1 - share) * voxels[i] + share * voxels[i + 1])
        out[...] = line if voxels.dtype.kind == "f" else np.rint(line)
    return result


def _axes(header: Header) -> np.ndarray:
    """3 x 3: in columns, the patient directions in which the image's x, y and z index grows."""
    axes = np.reshape(header.orientation, (2, 3))
    possible = np.allclose(axes @ axes.T, np.eye(2), atol=0.02)
    possible &= min(header.pixel_spacing or (1,)) > 0
    found = f"orientation {header.orientation} or pixel spacing {header.pixel_spacing} cannot be"
    need(possible, "NO_GEOMETRY", found, header.path)
    row, column = (axis / np.linalg.norm(axis) for axis in axes)
    return np.stack([row, column, normal(header.orientation)], axis=1)


def _single(header: Header, notes: list[str]) -> Stack:
    """One image needs no neighbours; what its header leaves open is stated in the notes."""
    pixel_spacing = header.pixel_spacing or header.detector_spacing
    spaced = bool(pixel_spacing) and min(pixel_spacing) > 0
    placed, apart = header.placed, (header.spacing_between or 0) > 0
    thick = f" (Slice Thickness is {header.thickness:g} mm)" if header.thickness else ""
    known = {  # each note with what makes it needless
        "pixel spacing measured at the detector, not in the patient": (
            header.pixel_spacing or not header.detector_spacing
        ),
        "no pixel spacing in the header: 1 mm assumed": spaced,
        "no position or orientation in the header: origin 0, identity assumed": placed,
        f"a single slice has no neighbour: 1 mm to the next one assumed{thick}": apart,
    }
    origin, direction = (header.position, _axes(header)) if placed else ((0.0,) * 3, np.eye(3))
    in_plane = pixel_spacing if spaced else (1.0, 1.0)
    spacing = (header.spacing_between if apart else 1.0, *in_plane)
    notes += [note for note, stated in known.items() if not stated]
    return Stack([header], spacing, origin, direction, notes)


def _copies_left_out(pairs: Iterable[tuple[Header, Header]]) -> list[str]:
    """A note of the copies; two images at one place have to be the same, by their values."""
    names = []
    for kept, copy in pairs:
        one = kept.sop_uid == copy.sop_uid and kept.path != copy.path
        code = "CONFLICTING_DUPLICATE" if one else "SHARED_POSITION"
        same = np.array_equal(read_voxels([kept]), read_voxels([copy]))
        need(same, code, "two different images at one place", *{kept.path, copy.path})
        names.append(f"{copy.path.name} of {kept.path.name}")
    return [f"copies counted once: {listed(names, most=1)}"] if names else []


def _check_alike(headers: Sequence[Header]) -> None:
    """All say where they lie, in one orientation and spacing, each image at one place only."""
    lost = [h.path for h in headers if not h.placed or h.pixel_spacing is None]
    found = f"{len(lost)} of {len(headers)} images state no position, orientation or pixel spacing"
    need(not lost, "NO_GEOMETRY", found, *lost)
    grids = np.array([(*h.orientation, *h.pixel_spacing) for h in headers])
    off = np.abs(grids - grids[0]) > SAME_GRID * np.r_[np.ones(6), np.abs(grids[0, 6:])]
    odd = [headers[i].path for i in np.flatnonzero(off.any(axis=1))]
    need(not odd, "MIXED_SLICES", f"{len(odd)} slices differ in orientation or spacing", *odd)
    seen, found = {}, "one SOP Instance UID at two positions"
    for h in headers:
        other = seen.setdefault((h.sop_uid or h.path, h.frame), h)
        alike = other is h or np.allclose(other.position, h.position)
        need(alike, "CONFLICTING_DUPLICATE", found, other.path, h.path)


def _check_upright(slices, heights, sideways) -> None:
    """Slices above each other: found from positions; the tilt element is often wrong or absent."""
    rise, sideways = heights - heights[0], sideways - sideways[0]
    straight = np.outer(rise / (rise[-1] or 1.0), sideways[-1])
    stray = np.linalg.norm(sideways - straight, axis=1)
    worst = int(stray.argmax())
    half_pixel_mm = 0.5 * min(slices[0].pixel_spacing)
    found = f"slice {worst} of {len(slices)} lies {stray[worst]:.1f} mm beside the others"
    need(stray[worst] <= half_pixel_mm, "NOT_ALIGNED", found, slices[worst].path)
    drift_mm = np.linalg.norm(sideways[-1])
    angle = np.degrees(np.arctan2(drift_mm, rise[-1]))
    leans = angle > TILT_TOLERANCE_DEGREES and drift_mm > half_pixel_mm
    found = f"slices shift sideways as they advance, as with a gantry tilted by {angle:.1f} degrees"
    need(not leans, "GANTRY_TILT", found, *(header.path for header in slices))


def _check_acquisitions(slices: Sequence[Header]) -> None:
    """Two acquisitions may follow each other in a stack, slab by slab; they may not take turns."""
    numbers = [header.acquisition for header in slices if header.acquisition is not None]
    count = Counter(numbers)
    slabs = [key for key, _ in itertools.groupby(n for n in numbers if count[n] > 1)]
    found = "two acquisitions take turns along the stack: are they one volume?"
    need(len(slabs) == len(set(slabs)), "MIXED_SLICES", found, *(h.path for h in slices))
