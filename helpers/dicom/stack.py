"""Put the slices of a series in order, and refuse a stack that is no volume.

Everything follows from two header elements: Image Position (Patient), the centre of a slice's
first pixel, and Image Orientation (Patient), the directions of its rows and columns (DICOM PS3.3
C.7.6.2.1.1). File names and instance numbers are not looked at.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from helpers.dicom.header import Header
from helpers.dicom.pixels import read_voxels
from helpers.errors import listed, need
from helpers.volume import Volume

SAME_GRID = 1e-3  # of a direction cosine (0.06 degrees), and mm of the pixel spacing
SPACING_TOLERANCE = 0.02  # of the distance between slices
SAME_PLACE = 0.01  # of a pixel
TILT_TOLERANCE_DEGREES = 0.5
NO_SPACING = "no pixel spacing in the header: 1 mm assumed"


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


def arrange(headers: Sequence[Header], *, fill_gaps: bool = False) -> tuple:
    """Sort along the slice normal; check that what comes out is a volume.

        slices, places, grid = arrange(dicom.scan(folder).series[0].headers)

    Args:
        headers: the images of one series, in any order.
        fill_gaps: accept gaps, and say where slices are to be interpolated.

    Returns:
        The slices in order; the places of the volume's slices among them: 0, 1, 2, or where they
        are to be interpolated say 1.5, halfway between the second and the third; the volume's
        geometry and notes, as a `Volume` that is 0 everywhere.

    Raises:
        CourseDataError: `NO_GEOMETRY`, `MIXED_SLICES`, `MISSING_SLICE`, `UNEVEN_SPACING`,
            `GANTRY_TILT`, `NOT_ALIGNED`, `CONFLICTING_DUPLICATE` or `SHARED_POSITION`.

    Taught in: loading DICOM
    """
    first = headers[0]
    known = {((h.sop_uid or h.path, h.frame), h.position): h.path for h in headers}
    if len(known) == 1:
        return _single(first, _copies_left_out(itertools.pairwise(headers)))
    _check_alike(headers)
    count = Counter(image for image, _ in known)
    again = [path for (image, _), path in known.items() if count[image] > 1]
    need(not again, "CONFLICTING_DUPLICATE", "one SOP Instance UID at two positions", *again)
    direction = _axes(first)
    positions = np.array([header.position for header in headers])
    heights = positions @ direction[:, 2]
    order = np.argsort(heights, kind="stable")
    slices, heights = [headers[i] for i in order], heights[order]
    _check_upright(slices, heights, positions[order])

    fresh = np.r_[True, np.diff(heights) > SAME_PLACE * min(first.pixel_spacing)]
    notes = _copies_left_out(itertools.compress(itertools.pairwise(slices), ~fresh[1:]))
    slices, heights = list(itertools.compress(slices, fresh)), heights[fresh]
    if len(slices) == 1:
        return _single(slices[0], notes)
    _check_acquisitions(slices)
    step_mm, places, filled = _even(slices, heights, fill_gaps)
    blank = np.broadcast_to(0, (len(places), first.rows, first.columns))
    spacing = (step_mm, *first.pixel_spacing)
    grid = Volume(blank, spacing, slices[0].position, direction, (*notes, *filled))
    return slices, places, grid


def even_step(heights: np.ndarray) -> tuple[float, bool]:
    """How far apart slices are, and whether all lie on an even grid, whatever of it is missing.

    >>> even_step(np.array([0.0, 0.67, 1.33, 2.67]))
    (0.6675, True)

    Heights are compared with the grid that fits them best, not gap with gap: rounded positions
    then do no harm, and small steps that add up do not pass.

    Args:
        heights: of at least two slices along the normal, in mm, sorted.

    Returns:
        The grid's step in mm; where there is no such grid, the usual distance between neighbours.

    Taught in: loading DICOM
    """
    gaps = np.diff(heights)
    usual = np.quantile(gaps, 0.5, method="lower")  # a few gaps do not move it
    # Positions written with one decimal lie up to 0.05 mm off some grid; a little more is allowed.
    tolerance_mm = min(max(SPACING_TOLERANCE * usual, 0.07), 0.2 * usual)
    steps = np.round(gaps / usual)
    index = np.r_[0, np.cumsum(steps)]
    step_mm = np.ptp(heights) / index[-1]
    # A grid that all slices are near to has almost the step that the first and the last give.
    tried = step_mm + np.linspace(-2, 2, 401) * tolerance_mm / index[-1]
    astray_mm = np.ptp(heights - np.outer(tried, index), axis=1).min() / 2
    fits = bool(steps.min() >= 1 and astray_mm <= tolerance_mm)
    return float(step_mm if fits else usual), fits


def _even(slices, heights, fill_gaps: bool) -> tuple:
    """The distance between the volume's slices, their places, and a note if gaps are filled.

    Filling gives at most twice as many slices as were measured, from the first to the last.
    """
    step_mm, fits = even_step(heights)
    gaps, steps = np.diff(heights), round(np.ptp(heights) / step_mm)
    if fits and steps == len(gaps):
        return step_mm, np.arange(len(slices)), []
    few = steps < 2 * len(slices)
    offer = "fill_gaps=True interpolates" if few else "more than half would have to be made up"
    k = np.abs(gaps - step_mm).argmax()
    lie = f"the one above {heights[k]:.2f} mm is {gaps[k]:.2f} mm away"
    found = f"slices are {step_mm:.2f} mm apart for the most part, but {lie}; {offer}"
    code = "MISSING_SLICE" if fits else "UNEVEN_SPACING"
    need(fill_gaps and few, code, found, slices[k].path, slices[k + 1].path)
    even = np.linspace(heights[0], heights[-1], steps + 1)
    step_mm, places = even[1] - even[0], np.interp(even, heights, range(len(heights)))
    made_up = np.flatnonzero(np.abs(places - np.rint(places)) > 0.1)  # of the way to a neighbour
    note = f"interpolated from {len(slices)} uneven slices to {len(even)}, {step_mm:g} mm apart"
    note += f"; made up, counted from 0: {listed(made_up) or 'none'}"
    return step_mm, places, [note]


def interpolated(voxels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Voxels `[z, y, x]` at other places along z, linearly between neighbours, of the same dtype.

    >>> interpolated(np.array([[[0]], [[10]], [[40]]]), np.array([0, 1, 1.5, 2])).ravel()
    array([ 0, 10, 25, 40])

    Args:
        voxels: slices in order.
        places: the slices wanted, counted from 0 as those that there are.

    Taught in: no lesson; `read_series` uses it
    """
    below = np.minimum(places.astype(int), len(voxels) - 2)
    result = np.empty((len(places), *voxels.shape[1:]), voxels.dtype)
    for out, i, share in zip(result, below, places - below, strict=True):
        line = np.float32((1 - share) * voxels[i] + share * voxels[i + 1])
        out[...] = line if voxels.dtype.kind == "f" else np.rint(line)
    return result


def _axes(header: Header) -> np.ndarray:
    """3 x 3: in columns, the patient directions in which the image's x, y and z index grows."""
    axes = np.reshape(header.orientation, (2, 3))
    possible = np.allclose(axes @ axes.T, np.eye(2), atol=0.02)
    need(possible, "NO_GEOMETRY", f"orientation {header.orientation} cannot be", header.path)
    rows, columns = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    return np.stack([rows, columns, normal(header.orientation)], axis=1)


def _single(header: Header, notes: list[str]) -> tuple:
    """One image needs no neighbours; what its header leaves open is stated in the notes."""
    origin, direction = (0.0, 0.0, 0.0), np.eye(3)
    in_plane = header.pixel_spacing or header.detector_spacing
    between = header.spacing_between or 0.0
    if in_plane != header.pixel_spacing:
        notes.append("pixel spacing measured at the detector, not in the patient")
    if not in_plane or min(in_plane) <= 0:
        in_plane = (1.0, 1.0)
        notes.append(NO_SPACING)
    if header.placed:
        origin, direction = header.position, _axes(header)
    else:
        notes.append("no position or orientation in the header: origin 0, identity assumed")
    if between <= 0:
        between = 1.0
        notes.append("a single slice has no neighbour: 1 mm to the next one assumed")
    blank = np.broadcast_to(0, (1, header.rows, header.columns))
    return [header], [0], Volume(blank, (between, *in_plane), origin, direction, tuple(notes))


def _copies_left_out(pairs: Iterable) -> list[str]:
    """A note of the copies, each behind what it repeats; two images at one place must be equal."""
    names = []
    for kept, copy in pairs:
        one = kept.sop_uid == copy.sop_uid and kept.path != copy.path
        code = "CONFLICTING_DUPLICATE" if one else "SHARED_POSITION"
        same = np.array_equal(read_voxels([kept]), read_voxels([copy]))
        need(same, code, "two different images at one place", *{kept.path, copy.path})
        names.append(f"{copy.path.name} of {kept.path.name}")
    return [f"copies counted once: {listed(names, most=1)}"] if names else []


def _check_alike(headers: Sequence[Header]) -> None:
    """All say where they lie, in one orientation and spacing."""
    lost = [h.path for h in headers if not h.placed or min(h.pixel_spacing or (0,)) <= 0]
    found = f"position, orientation or pixel spacing missing in {len(lost)} of {len(headers)}"
    need(not lost, "NO_GEOMETRY", found, *lost)
    grids = np.array([(*h.orientation, *h.pixel_spacing) for h in headers])
    off = np.abs(grids - grids[0]).max(axis=1) > SAME_GRID
    odd = [headers[i].path for i in np.flatnonzero(off)]
    need(not odd, "MIXED_SLICES", f"{len(odd)} slices differ in orientation or spacing", *odd)


def _check_upright(slices, heights, positions) -> None:
    """Slices above each other: found from positions; the tilt element is often wrong or absent."""
    rise, way = heights - heights[0], positions - positions[0]
    straight = np.outer(rise / (rise[-1] or 1.0), way[-1])
    stray = np.linalg.norm(way - straight, axis=1)
    worst = stray.argmax()
    half_pixel_mm = 0.5 * min(slices[0].pixel_spacing)
    found = f"slice {worst} of {len(slices)} lies {stray[worst]:.1f} mm beside the others"
    need(stray[worst] <= half_pixel_mm, "NOT_ALIGNED", found, slices[worst].path)
    drift_mm = np.sqrt(max(way[-1] @ way[-1] - rise[-1] ** 2, 0))
    angle = np.degrees(np.arctan2(drift_mm, rise[-1]))
    leans = angle > TILT_TOLERANCE_DEGREES and drift_mm > half_pixel_mm
    found = f"slices shift sideways as they advance, as with a gantry tilted by {angle:.1f} degrees"
    need(not leans, "GANTRY_TILT", found, *(header.path for header in slices))


def _check_acquisitions(slices: Sequence[Header]) -> None:
    """Two acquisitions may follow each other in a stack, slab by slab; they may not take turns."""
    numbers = [header.acquisition for header in slices]
    changes = sum(map(operator.ne, numbers, numbers[1:]))
    slabs = changes <= 2 * (len(set(numbers)) - 1)  # one may lie within another
    found = "two acquisitions take turns along the stack: are they one volume?"
    need(slabs, "MIXED_SLICES", found, *(header.path for header in slices))
