"""Cuts through a volume as a radiologist looks at them.

The patient's right is on the left of an axial or coronal picture, the front on the left of a
sagittal one, the head is up. A `Volume` knows its direction and is turned accordingly, whatever
order its voxels are stored in. A bare array says nothing: it is taken as `[z, y, x]` with z growing
towards the head, y to the back and x to the patient's left, and its pictures bear no letters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pydicom

from helpers.volume import Volume, nearest_axes, turned

# plane: (axis cut through, axis down the rows, axis along the columns), of [z, y, x]
PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
POSITIVE = "LPS"
NEGATIVE = "RAI"


@dataclasses.dataclass(frozen=True)
class Cut:
    """One picture out of a volume.

    Args:
        pixels: `[row, column]`.
        spacing: distance between rows and between columns, in mm.
        letters: patient directions at (left, right, top, bottom), empty if unknown.
        number: index of the cut along the axis that it cuts, as the voxels are stored.
        measured: whether the spacing is known, rather than taken to be 1.
    """

    pixels: np.ndarray
    spacing: tuple[float, float]
    letters: tuple[str, ...] = ()
    number: int = 0
    measured: bool = True

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height in mm."""
        rows, columns = self.pixels.shape[:2]
        return columns * self.spacing[1], rows * self.spacing[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Oriented:
    """A volume turned so that z grows towards the head, y to the back and x to the left.

    Args:
        voxels: `[z, y, x]`, a view of the original.
        spacing: mm, `(z, y, x)`.
        order, flips: how the stored axes were permuted, and which were then reversed.
        ends: for each axis the letters where its index is low and high; empty if unknown.
        measured: whether the spacing is known, rather than taken to be 1.
    """

    voxels: np.ndarray
    spacing: tuple[float, float, float]
    order: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    ends: tuple[tuple[str, str], ...] = ()
    measured: bool = True

    def turned_alike(self, mask) -> Oriented:
        """A mask on the same grid (array or `Volume`), turned the same way."""
        array = mask.voxels if isinstance(mask, Volume) else np.asarray(mask)
        stored_shape = tuple(self.voxels.shape[self.order.index(axis)] for axis in range(3))
        if array.shape != stored_shape:
            raise ValueError(f"the mask is {array.shape}, the volume {stored_shape} [z, y, x]")
        return dataclasses.replace(self, voxels=turned(array, self.order, self.flips))

    def depth(self, plane: str) -> int:
        """Number of slices in a plane."""
        if plane not in PLANES:
            raise ValueError(f"plane must be one of {', '.join(PLANES)}, not {plane!r}")
        return self.voxels.shape[PLANES[plane][0]]

    def cut(self, plane: str, number: int) -> Cut:
        """The axial, coronal or sagittal slice with this index in the stored voxels."""
        last = self.depth(plane) - 1
        if not 0 <= number <= last:
            raise IndexError(f"{plane} slices are numbered 0 to {last}, there is no {number}")
        axis, row, column = PLANES[plane]
        pixels = np.take(self.voxels, self.turned_index(axis, number), axis)
        top, bottom = self.ends[row] if self.ends else ("", "")
        if row == 0:  # the head is up, so the last row comes first
            pixels, top, bottom = pixels[::-1], bottom, top
        letters = (*self.ends[column], top, bottom) if self.ends else ()
        spacing = (self.spacing[row], self.spacing[column])
        return Cut(pixels, spacing, letters, int(number), self.measured)

    def turned_index(self, axis: int, number: int) -> int:
        """Index along a turned axis from the stored one, and the other way round."""
        return self.voxels.shape[axis] - 1 - number if self.flips[axis] else int(number)

    def stored_axis(self, plane: str) -> int:
        """The axis of the stored voxels that a plane's slices are numbered along."""
        return self.order[PLANES[plane][0]]


def oriented(image, spacing: Sequence[float] | None = None) -> Oriented:
    """Turn a volume upright for viewing.

    Args:
        image: a `Volume`; an array `[z, y, x]`; or pydicom datasets with one slice each, which
            are stacked in the order given, rescaled where they say how.
        spacing: mm, `(z, y, x)`, for an array (1 mm if left out) or to overrule the datasets.
    """
    if isinstance(image, Oriented):
        return image
    if isinstance(image, Volume):
        return _turned_volume(image)
    if isinstance(image, Sequence) and len(image) and isinstance(image[0], pydicom.Dataset):
        voxels = np.stack([_values(dataset) for dataset in image])
        return Oriented(voxels, tuple(spacing or _dataset_spacing(image)))
    voxels = np.asarray(image)
    if voxels.ndim != 3:
        raise ValueError(f"expected a volume [z, y, x], found an array of shape {voxels.shape}")
    if spacing is None:
        return Oriented(voxels, (1.0, 1.0, 1.0), measured=False)
    return Oriented(voxels, tuple(spacing))


def _turned_volume(volume: Volume) -> Oriented:
    towards = volume.direction.T[::-1]  # row i: where axis i of [z, y, x] grows
    order, flips = nearest_axes(volume.direction)
    ends = []
    for source, flip in zip(order, flips, strict=True):
        direction = -towards[source] if flip else towards[source]
        ends.append((letters(-direction), letters(direction)))
    return Oriented(
        turned(volume.voxels, order, flips),
        tuple(volume.spacing[source] for source in order),
        order,
        flips,
        tuple(ends),
    )


def letters(direction: Sequence[float]) -> str:
    """The patient directions of a vector (LPS), largest first: "L", or "LA" when oblique.

    A component counts from 0.3 of the length, about 17 degrees.
    """
    direction = np.asarray(direction, float) / np.linalg.norm(direction)
    largest_first = np.argsort(-np.abs(direction), kind="stable")
    return "".join(
        POSITIVE[axis] if direction[axis] > 0 else NEGATIVE[axis]
        for axis in largest_first
        if abs(direction[axis]) >= 0.3
    )


def _values(dataset) -> np.ndarray:
    slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    return dataset.pixel_array * np.float32(slope) + np.float32(intercept)


def _dataset_spacing(datasets) -> tuple[float, float, float]:
    """Spacing of a stack whatever its order: the median gap of the sorted heights."""
    first = datasets[0]
    row_mm, column_mm = (float(mm) for mm in first.get("PixelSpacing", (1, 1)))
    gap_mm = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1)
    if all("ImagePositionPatient" in d and "ImageOrientationPatient" in d for d in datasets):
        row, column = np.reshape(first.ImageOrientationPatient, (2, 3)).astype(float)
        positions = np.array([d.ImagePositionPatient for d in datasets], float)
        gaps = np.diff(np.sort(positions @ np.cross(row, column)))
        if (gaps > 1e-3).any():
            gap_mm = float(np.median(gaps[gaps > 1e-3]))
    return gap_mm, row_mm, column_mm
