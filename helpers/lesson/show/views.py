"""Cuts through a volume as a radiologist looks at them.

The patient's right is on the left of an axial or coronal picture, the front on the left of a
sagittal one, the head is up. A `Volume` knows its direction and is turned accordingly, whatever
order its voxels are stored in. A bare array is taken as `[z, y, x]` with z growing towards the
head, y to the back and x to the patient's left, and its pictures bear no letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helpers import intensity
from helpers.volume import Volume

# plane: (axis cut through, axis down the rows, axis along the columns), of [z, y, x]
PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}  # left, right, top, bottom
IGNORE = 255


@dataclass(frozen=True, eq=False)
class View:
    """An image as it is drawn.

    Args:
        pixels: `[row, column]`, or `[row, column, 3]` in colour.
        masks: name -> `[row, column]`, 1 inside, 255 where pixels do not count.
        spacing: of rows and of columns in mm, None if unknown.
        limits: the values shown black and white.
        letters: directions in the patient at left, right, top and bottom; empty if unknown.
    """

    pixels: np.ndarray
    masks: Mapping[str, np.ndarray]
    spacing: Sequence[float] | None
    limits: Sequence[float]
    letters: str = ""

    @property
    def size(self) -> np.ndarray:
        """Width and height, in mm where the spacing is known, else in parts of the height."""
        rows, columns = self.pixels.shape[:2]
        row, column = self.spacing or (1 / rows, 1 / rows)
        return np.array([columns * column, rows * row])

    @property
    def ignores(self) -> bool:
        """Whether there are pixels that do not count."""
        return any((mask == IGNORE).any() for mask in self.masks.values())


def limits(values: np.ndarray, window=None) -> Sequence[float]:
    """The values shown black and white.

    Args:
        values: any shape; NaN are left out.
        window: `(center, width)`, a name from `intensity.WINDOWS`, or None for the range between
            the percentiles 0.5 and 99.5.
    """
    if window is not None:
        center, width = intensity.WINDOWS.get(window, window)
        return center - width / 2, center + width / 2
    low, high = np.nanpercentile(values.ravel()[:: 1 + values.size // 1_000_000], (0.5, 99.5))
    return low, high if high > low else values.max()  # mostly one value, as in a mask


def plain(image) -> np.ndarray:
    """Voxels or pixels as an array, a last axis of one left out."""
    array = np.asarray(getattr(image, "voxels", image))
    return array[..., 0] if array.shape[-1] == 1 else array


def view(
    image,
    masks: Mapping,
    window=None,
    spacing=None,
    plane="axial",
    at=None,
) -> View:
    """An image, or a slice of a volume, with its masks; arguments as those of `show.images`.

    Raises:
        ValueError: for a mask of another shape, or with other values than 0, 1 and 255.
    """
    pixels = plain(image)
    spacing = None if spacing is None else tuple(spacing)
    masks = {name: plain(mask) for name, mask in masks.items()}
    shape = pixels.shape[:2] if pixels.shape[-1] == 3 else pixels.shape
    for name, mask in masks.items():
        if mask.shape != shape or not np.isin(mask, (0, 1, IGNORE)).all():
            expected = f"{shape}, one class as `mask == id`, and 255 for pixels left out"
            raise ValueError(f"the mask {name!r} is {mask.shape}; expected {expected}")
    black_white = limits(pixels, window)
    if len(shape) == 2:
        return View(pixels, masks, spacing, black_white)

    known = isinstance(image, Volume)
    volume = image if known else Volume(pixels, spacing or (1, 1, 1))
    turned = {name: volume.with_voxels(mask).in_lps_order() for name, mask in masks.items()}
    volume, (axis, row, column) = volume.in_lps_order(), PLANES[plane]
    at = volume.shape[axis] // 2 if at is None else at
    up = -1 if row == 0 else 1  # the head is up
    return View(
        np.take(volume.voxels, at, axis)[::up],
        {name: np.take(mask.voxels, at, axis)[::up] for name, mask in turned.items()},
        (volume.spacing[row], volume.spacing[column]) if known or spacing else None,
        black_white,
        LETTERS[plane] if known else "",
    )
