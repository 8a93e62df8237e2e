"""Is what a contender made an augmented pair, and a new one each time? Is ours what SciPy makes?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

LARGE_CLASS = 0.005  # part of the image; the grey values of smaller classes say little
ALIKE = 0.1  # of the range of grey values: by how much the median of a class may move
DECODED = 0.02  # of the range of grey values: what decoders of JPEG differ in
CLOSE = 1e-4  # of the range of grey values: rounding of float32 positions at a sharp edge
NEAR_TIE = 1e-3  # voxels: so near to the middle between two, rounding decides which is nearest
FEW_TIES = 0.05
PROBES = 24
MOVED = 0.1  # part of the voxels that have other values after a move


def volume_pair(item: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The fields of an item without axes of length 1, wherever a library puts them."""
    return tuple(np.squeeze(array) for array in item)


def picture_pairs(item: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """A batch as pairs `[y, x, 3]` and `[y, x]`; MONAI has `[b, c, x, y]`."""
    images, masks = item
    if images.shape[1] == 3:
        images, masks = images.transpose(0, 3, 2, 1), masks.transpose(0, 3, 2, 1)
    return list(zip(images, masks[..., 0], strict=True))


def grey(image: np.ndarray) -> np.ndarray:
    """One value for each place: the mean of colours."""
    return image.mean(-1) if image.shape[-1] == 3 else image


def check_pair(
    name: str, before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
) -> None:
    """An augmented image and its mask are of the same stuff as before, and moved together.

    Args:
        name: of the contender.
        before, after: image `[z, y, x]`, `[y, x]` or `[y, x, 3]`, and mask without channels.

    Raises:
        SystemExit: if shapes differ, a value or a class is new, or a class lies on other grey
            values than before.
    """
    (image_before, mask_before), (image, mask) = before, after
    if image.shape != image_before.shape or mask.shape != mask_before.shape:
        raise SystemExit(f"{name} gives {image.shape} and {mask.shape} for {image_before.shape}")
    if not np.isfinite(image).all():
        raise SystemExit(f"{name} gives values that are not finite")
    new = set(np.unique(mask)) - set(np.unique(mask_before))
    if new:
        raise SystemExit(f"{name} invents classes: {sorted(map(float, new))[:5]}")
    range_before = float(np.ptp(image_before))
    low, high = image_before.min(), image_before.max()
    slack = DECODED * range_before
    if image.min() < low - slack or image.max() > high + slack:
        raise SystemExit(f"{name} gives {image.min()} to {image.max()} from {low} to {high}")
    large = [
        one
        for one in np.unique(mask_before)
        if one and min(np.mean(mask == one), np.mean(mask_before == one)) > LARGE_CLASS
    ]
    if not large:
        raise SystemExit(f"{name} has lost the classes of the mask")
    for one in large:
        now = np.median(grey(image)[mask == one])
        then = np.median(grey(image_before)[mask_before == one])
        if abs(now - then) > ALIKE * range_before:
            raise SystemExit(
                f"{name}: class {one} lies on {now:.0f}, not on {then:.0f}: image and mask went "
                f"different ways"
            )


def check_moved(name: str, pairs: Sequence[tuple]) -> None:
    """Most images have moved, and so have their masks; a drawn angle may be next to none.

    Args:
        name: of the contender.
        pairs: before and after, each an image and a mask.

    Raises:
        SystemExit: if half of them are what they were.
    """
    moved = [
        np.mean(np.abs(image - image_before) > CLOSE * np.ptp(image_before)) > MOVED
        and not np.array_equal(mask, mask_before)
        for (image_before, mask_before), (image, mask) in pairs
    ]
    if np.mean(moved) <= 0.5:
        raise SystemExit(f"{name} has moved {sum(moved)} of {len(moved)} images")


def check_with_scipy(
    name: str,
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    positions: np.ndarray,
) -> None:
    """The result is the input at these positions: order 1 for the image, order 0 for the mask.

    Args:
        name: of the contender.
        before, after: as for `check_pair`.
        positions: `[r, *shape]` in voxels of the input, within it.

    Raises:
        SystemExit: if image or mask differ from SciPy's `map_coordinates`.
    """
    (image_before, mask_before), (image, mask) = before, after
    channels = (
        [image_before[..., i] for i in range(3)] if image.ndim > mask.ndim else [image_before]
    )
    expected = [
        ndimage.map_coordinates(one.astype(np.float64), positions, order=1, mode="nearest")
        for one in channels
    ]
    wanted = np.stack(expected, -1) if image.ndim > mask.ndim else expected[0]
    worst = np.abs(image - wanted).max()
    if not worst <= CLOSE * np.ptp(image_before):
        raise SystemExit(f"{name} differs from SciPy by up to {worst:.4g} for equal positions")
    nearest = ndimage.map_coordinates(mask_before, positions, order=0, mode="nearest")
    tied = (np.abs(positions % 1 - 0.5) < NEAR_TIE).any(0)
    if tied.mean() > FEW_TIES:
        raise SystemExit(f"{name}: {tied.mean():.0%} of the positions lie between two voxels")
    wrong = np.count_nonzero((mask != nearest) & ~tied)
    if wrong:
        raise SystemExit(f"{name}: {wrong} voxels of the mask differ from SciPy's nearest ones")


def check_crops(
    name: str, sources: Iterable[tuple[np.ndarray, ...]], crops: Sequence[np.ndarray]
) -> list[tuple[int, ...]]:
    """Each crop is a box of one of the sources, its fields from the same box.

    Args:
        name: of the contender.
        sources: volumes as tuples of fields `[z, y, x]`.
        crops: for each field `[n, d, h, w]`.

    Returns:
        Where each crop starts.

    Raises:
        SystemExit: if a crop is nowhere.
    """
    sources = list(sources)
    starts = []
    for number, fields in enumerate(zip(*crops, strict=True)):
        found = [start for source in sources for start in places_of(source, fields)]
        if not found:
            raise SystemExit(f"{name}: crop {number} is no box of the volume and its mask")
        starts.append(found[0])
    return starts


def places_of(source: Sequence[np.ndarray], fields: Sequence[np.ndarray]) -> list[tuple[int, ...]]:
    """All starts of boxes of the source's fields that equal these fields."""
    size, volume = np.array(fields[0].shape), source[0]
    room = np.array(volume.shape) - size + 1
    left = np.indices(room).reshape(3, -1).T if (room > 0).all() else np.empty((0, 3), int)
    rng = np.random.default_rng(0)
    for probe in rng.integers(0, size, (PROBES, 3)):
        left = left[volume[tuple((left + probe).T)] == fields[0][tuple(probe)]]
    boxes = [tuple(slice(a, a + n) for a, n in zip(start, size, strict=True)) for start in left]
    return [
        tuple(int(one.start) for one in box)
        for box in boxes
        if all(np.array_equal(whole[box], part) for whole, part in zip(source, fields, strict=True))
    ]


class Freshness:
    """Every item of every pass is another one: nothing is frozen, cached or left out."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count
        self.seen: set[int] = set()

    def check(self, checksums: Sequence[int]) -> None:
        """Take the checksums of one pass.

        Raises:
            SystemExit: if there are too few, or one was seen before.
        """
        if len(checksums) != self.count:
            raise SystemExit(f"{self.name} gave {len(checksums)} items of {self.count}")
        before = len(self.seen)
        self.seen.update(checksums)
        if len(self.seen) < before + self.count:
            raise SystemExit(f"{self.name} gave the same item twice: it does not draw anew")
