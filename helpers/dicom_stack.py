"""Put the slices of a series in order, and refuse a stack that is no volume.

Everything follows from two header elements: Image Position (Patient), the centre of a slice's
first pixel, and Image Orientation (Patient), the directions of its rows and columns (DICOM PS3.3
C.7.6.2.1.1). File names and instance numbers are not looked at.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from helpers.dicom_header import Header
from helpers.errors import CourseDataError

ORIENTATION_TOLERANCE = 1e-3  # of a direction cosine: 0.06 degrees
SPACING_TOLERANCE = 0.02  # of the distance between slices
TILT_TOLERANCE_DEGREES = 0.5


@dataclasses.dataclass(frozen=True)
class Stack:
    """Slices in order and the geometry they give: see `helpers.volume.Volume`.

    `heights_mm` are the slices' positions along the normal. `copies` are pairs of neighbours that
    lie at one place; only their pixels can tell a copy from another image.
    """

    slices: tuple[Header, ...]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: np.ndarray
    heights_mm: np.ndarray
    copies: tuple[tuple[Header, Header], ...] = ()
    notes: tuple[str, ...] = ()


@functools.lru_cache(maxsize=1024)
def normal(orientation: tuple[float, ...]) -> np.ndarray:
    """The unit vector along which slices are stacked: rows x columns."""
    row, column = np.reshape(np.asarray(orientation, float), (2, 3))
    vector = np.cross(row, column)
    length = np.linalg.norm(vector)
    return vector / length if length else vector  # zero for an orientation that is none


def same_orientation(a: Header, b: Header) -> bool:
    """Whether two slices are parallel and turned alike; two unknown orientations are alike."""
    if a.orientation == b.orientation or a.orientation is None or b.orientation is None:
        return a.orientation == b.orientation
    return np.abs(np.subtract(a.orientation, b.orientation)).max() <= ORIENTATION_TOLERANCE


def arrange(headers: list[Header], *, fill_gaps: bool = False) -> Stack:
    """Sort along the slice normal; check orientation, size, spacing, alignment, completeness.

    Args:
        headers: the images of one series, in any order.
        fill_gaps: accept missing slices and uneven spacing; the caller resamples.

    Raises:
        CourseDataError: `NO_GEOMETRY`, `MIXED_SLICES`, `MISSING_SLICE`, `UNEVEN_SPACING`,
            `GANTRY_TILT`, `NOT_ALIGNED` or `CONFLICTING_DUPLICATE`.
    """
    if len(headers) == 1:
        return _single(headers[0])
    _check_alike(headers)
    _check_identity(headers)
    first = headers[0]
    direction = _direction(first)
    positions = np.array([header.position for header in headers])
    heights = positions @ direction[:, 2]
    order = np.argsort(heights, kind="stable")
    slices = [headers[i] for i in order]
    positions, heights = positions[order], heights[order]

    # A hundredth of a pixel: slices closer than that lie at one place.
    same_place_mm = 0.01 * min(first.pixel_spacing)
    fresh = np.r_[True, np.diff(heights) > same_place_mm]
    copies = tuple((slices[i - 1], slices[i]) for i in np.flatnonzero(~fresh))
    beside = np.abs(np.diff(positions, axis=0)).max(axis=1) > 0.5 * min(first.pixel_spacing)
    for i in np.flatnonzero(~fresh[1:] & beside):
        raise CourseDataError(
            "NOT_ALIGNED",
            f"two slices lie at {heights[i]:.2f} mm, one beside the other: two stacks in a series",
            [slices[i].path, slices[i + 1].path],
        )
    slices = [header for header, keep in zip(slices, fresh, strict=True) if keep]
    positions, heights = positions[fresh], heights[fresh]

    if len(slices) == 1:
        single = _single(slices[0])
        return dataclasses.replace(single, copies=copies)
    _check_alignment(slices, positions, direction, heights)
    if not fill_gaps:
        _check_gaps(slices, heights)
    between_mm = (heights[-1] - heights[0]) / (len(slices) - 1)
    return Stack(
        slices=tuple(slices),
        spacing=(between_mm, *first.pixel_spacing),
        origin=tuple(positions[0]),
        direction=direction,
        heights_mm=heights,
        copies=copies,
    )


def _usual_gap_mm(heights: np.ndarray) -> float:
    """The usual distance between neighbours: their lower median, which a few gaps do not move."""
    gaps = np.sort(np.diff(heights))
    return float(gaps[(len(gaps) - 1) // 2])


def _best_grid(heights: np.ndarray) -> tuple[np.ndarray, float, float] | None:
    """The even grid on which all slices lie: each slice's step, the first height, the distance.

    Positions are compared with the grid that fits them best, not gap with gap: rounded positions
    then do no harm, and small steps that add up do not pass. None if there is no such grid.
    """
    usual = _usual_gap_mm(heights)
    # Positions written with one decimal lie up to 0.05 mm off some grid; a little more is allowed.
    tolerance_mm = min(max(SPACING_TOLERANCE * usual, 0.07), 0.2 * usual)
    steps = np.round(np.diff(heights) / usual).astype(int)
    index = np.r_[0, np.cumsum(steps)]
    between_mm, first_mm = np.polyfit(index, heights, 1)
    if steps.min() < 1 or _astray_mm(index, heights, between_mm) > tolerance_mm:
        return None
    return index, float(first_mm), float(between_mm)


def _astray_mm(index: np.ndarray, heights: np.ndarray, between_mm: float) -> float:
    """How far heights lie off the grid that comes nearest to the worst of them.

    The grid of least squares, `between_mm`, is close to it, but not it: an end that was rounded
    up, among others rounded down, would be blamed. The range of what remains is convex in the
    distance, so halving in thirds finds the least.
    """
    low, high = between_mm - 0.2 / index[-1], between_mm + 0.2 / index[-1]
    for _ in range(40):
        one, other = low + (high - low) / 3, high - (high - low) / 3
        if np.ptp(heights - one * index) < np.ptp(heights - other * index):
            high = other
        else:
            low = one
    return float(np.ptp(heights - low * index)) / 2


def even_grid(voxels: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, float, str]:
    """Interpolate linearly to an even distance, from the first slice on, not beyond the last.

    Args:
        voxels: `[z, y, x]`, slices in order.
        heights: of the slices along the normal, in mm.

    Returns:
        The voxels on the even grid, of the same dtype; its distance in mm; and what was done, in
        a sentence that is empty if the slices were even already.
    """
    grid = _best_grid(heights)
    if grid is not None and grid[0][-1] == len(heights) - 1:
        return voxels, grid[2], ""
    between_mm = _usual_gap_mm(heights) if grid is None else grid[2]
    span_mm = heights[-1] - heights[0]
    count = int(span_mm / between_mm + SPACING_TOLERANCE) + 1 if grid is None else grid[0][-1] + 1
    place = np.interp(heights[0] + between_mm * np.arange(count), heights, np.arange(len(heights)))
    below = np.minimum(place.astype(int), len(heights) - 2)
    even = np.empty((count, *voxels.shape[1:]), np.float32)
    for k, (i, share) in enumerate(zip(below, place - below, strict=True)):
        even[k] = (1 - share) * voxels[i] + share * voxels[i + 1]
    if np.issubdtype(voxels.dtype, np.integer):
        even = np.rint(even).astype(voxels.dtype)
    note = f"interpolated from {len(heights)} uneven slices to {count}, {between_mm:g} mm apart"
    left_mm = span_mm - (count - 1) * between_mm
    if left_mm > SPACING_TOLERANCE * between_mm:
        note += f"; the last {left_mm:.2f} mm of the scan do not fill a step and are left out"
    return even, between_mm, note


def _single(header: Header) -> Stack:
    """One image needs no neighbours; what its header leaves open is stated in the notes."""
    notes = []
    pixel_spacing = header.pixel_spacing
    if pixel_spacing is None and header.detector_spacing is not None:
        pixel_spacing = header.detector_spacing
        notes.append("pixel spacing measured at the detector, not in the patient")
    if pixel_spacing is None or min(pixel_spacing) <= 0:
        pixel_spacing = (1.0, 1.0)
        notes.append("no pixel spacing in the header: 1 mm assumed")
    if header.position is None or header.orientation is None:
        notes.append("no position or orientation in the header: origin 0, identity assumed")
        origin, direction = (0.0, 0.0, 0.0), np.eye(3)
    else:
        origin, direction = header.position, _direction(header)
    between_mm = header.spacing_between
    if between_mm is None or between_mm <= 0:
        between_mm = 1.0
        thick = f" (Slice Thickness is {header.thickness:g} mm)" if header.thickness else ""
        notes.append(f"a single slice has no neighbour: 1 mm to the next one assumed{thick}")
    height = float(np.dot(origin, direction[:, 2]))
    spacing = (between_mm, *pixel_spacing)
    return Stack((header,), spacing, origin, direction, np.array([height]), notes=tuple(notes))


def _check_alike(headers: list[Header]) -> None:
    without = [
        header.path
        for header in headers
        if header.position is None or header.orientation is None or header.pixel_spacing is None
    ]
    if without:
        raise CourseDataError(
            "NO_GEOMETRY",
            f"{len(without)} of {len(headers)} images state no position, orientation or pixel "
            "spacing, so nothing says how to stack them; as single 2D images they can be read "
            "one file at a time",
            without,
        )
    first = headers[0]
    alike = (first.rows, first.columns, first.orientation, first.pixel_spacing)
    for header in headers[1:]:
        if (header.rows, header.columns, header.orientation, header.pixel_spacing) == alike:
            continue
        size = (header.rows, header.columns)
        if size != (first.rows, first.columns):
            found = (
                f"{header.rows} x {header.columns} pixels against {first.rows} x {first.columns}"
            )
        elif not same_orientation(header, first):
            found = f"orientation {header.orientation} against {first.orientation}"
        elif not np.allclose(header.pixel_spacing, first.pixel_spacing, rtol=1e-3, atol=0):
            found = f"pixel spacing {header.pixel_spacing} against {first.pixel_spacing} mm"
        else:
            continue
        raise CourseDataError(
            "MIXED_SLICES", f"slices of one volume are alike; found {found}", [header.path]
        )


def _check_identity(headers: list[Header]) -> None:
    """One SOP Instance UID names one image: it cannot lie at two places."""
    seen: dict[str, Header] = {}
    for header in headers:
        other = seen.setdefault(header.sop_uid or str(header.path), header)
        if other.path != header.path and not np.allclose(other.position, header.position):
            raise CourseDataError(
                "CONFLICTING_DUPLICATE",
                "one SOP Instance UID at two positions: one of the files was altered, or the "
                "program that wrote them gave all images one name; fetch the series again",
                [other.path, header.path],
            )


def _direction(header: Header) -> np.ndarray:
    row, column = np.reshape(np.asarray(header.orientation, float), (2, 3))
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    skew = abs(row @ column)
    if not all(0.99 < length < 1.01 for length in lengths) or skew > 0.01:
        raise CourseDataError(
            "NO_GEOMETRY",
            f"Image Orientation {header.orientation} is not two unit vectors at right angles",
            [header.path],
        )
    if header.pixel_spacing is not None and min(header.pixel_spacing) <= 0:
        raise CourseDataError(
            "NO_GEOMETRY", f"Pixel Spacing {header.pixel_spacing} is not positive", [header.path]
        )
    return np.stack([row / lengths[0], column / lengths[1], normal(header.orientation)], axis=1)


def _check_alignment(
    slices: list[Header], positions: np.ndarray, direction: np.ndarray, heights: np.ndarray
) -> None:
    """Slices above each other: found from positions; the tilt element is often wrong or absent."""
    sideways = (positions - positions[0]) @ direction[:, :2]
    advance = (heights - heights[0]) / (heights[-1] - heights[0])
    drift = sideways[-1]
    angle = np.degrees(np.arctan2(np.linalg.norm(drift), heights[-1] - heights[0]))
    stray = np.linalg.norm(sideways - advance[:, None] * drift, axis=1)
    half_pixel_mm = 0.5 * min(slices[0].pixel_spacing)
    if (stray > half_pixel_mm).any():
        worst = int(stray.argmax())
        raise CourseDataError(
            "NOT_ALIGNED",
            f"the slice at {heights[worst]:.2f} mm lies {stray[worst]:.1f} mm beside the others; "
            "two acquisitions in one series?",
            [slices[worst].path],
        )
    if angle > TILT_TOLERANCE_DEGREES and np.linalg.norm(drift) > half_pixel_mm:
        raise CourseDataError(
            "GANTRY_TILT",
            f"slices shift sideways as they advance, as with a gantry tilted by {angle:.1f} "
            "degrees; voxels would not be boxes: resample to an upright grid first",
            [header.path for header in slices],
        )


def _check_gaps(slices: list[Header], heights: np.ndarray) -> None:
    """All slices on one even grid, and a slice on each of its steps."""
    gaps, grid = np.diff(heights), _best_grid(heights)
    if grid is None:
        i = int(np.abs(gaps - np.median(gaps)).argmax())
        raise CourseDataError(
            "UNEVEN_SPACING",
            f"slices are {np.median(gaps):.2f} mm apart for the most part, but {gaps[i]:.2f} mm "
            f"lie between {heights[i]:.2f} and {heights[i + 1]:.2f} mm; "
            "read_series(..., fill_gaps=True) interpolates",
            [slices[i].path, slices[i + 1].path],
        )
    index, first_mm, between_mm = grid
    missing = np.setdiff1d(np.arange(index[-1]), index)
    if len(missing):
        where = ", ".join(f"{first_mm + between_mm * k:.2f}" for k in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        wide = np.flatnonzero(np.diff(index) > 1)
        raise CourseDataError(
            "MISSING_SLICE",
            f"{len(missing)} missing: slices are {between_mm:.2f} mm apart, and none lies at "
            f"{where}{more} mm; fetch the series again, or read_series(..., fill_gaps=True)",
            [slices[i].path for i in sorted({*wide, *(wide + 1)})],
        )
