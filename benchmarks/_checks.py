"""Did a contender do the work: are its items what was asked for, all of them, and new each time?"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from _servers import checksum
from _workload import arrays, loaded
from scipy import ndimage

LARGE_CLASS = 0.005  # part of the image; the grey values of smaller classes say little
ALIKE = 0.1  # of the range of grey values: by how much the median of a class may move
DECODED = 0.02  # of the range of grey values: what decoders of JPEG differ in
CLOSE = 1e-4  # of the range of grey values: rounding of float32 positions at a sharp edge
NEAR_TIE = 1e-3  # voxels: so near to the middle between two, rounding decides which is nearest
FEW_TIES = 0.05
PROBES = 24
MOVED = 0.1  # part of the voxels that have other values after a move

MODULUS = 2**64  # checksums are sums modulo this
NEW = ("drawn", "generator", "thin")  # kinds of which no two items are equal


def need(ok: bool, name: str, words: str) -> None:
    """End the run if a contender has not done its work.

    Raises:
        SystemExit: with the contender's name.
    """
    if not ok:
        raise SystemExit(f"{name} {words}")


# Warped pairs of image and mask


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
    (old, old_mask), (image, mask) = before, after
    same = image.shape == old.shape and mask.shape == old_mask.shape
    need(same, name, f"gives {image.shape} and {mask.shape} for {old.shape}")
    need(bool(np.isfinite(image).all()), name, "gives values that are not finite")
    new = set(np.unique(mask)) - set(np.unique(old_mask))
    need(not new, name, f"invents classes: {sorted(map(float, new))[:5]}")
    extent, low, high = float(np.ptp(old)), old.min(), old.max()
    slack = DECODED * extent
    inside = image.min() >= low - slack and image.max() <= high + slack
    need(inside, name, f"gives {image.min()} to {image.max()} from {low} to {high}")
    sides = {one: (mask == one, old_mask == one) for one in np.unique(old_mask) if one}
    large = {one: both for one, both in sides.items() if min(map(np.mean, both)) > LARGE_CLASS}
    need(bool(large), name, "has lost the classes of the mask")
    for one, (now, then) in large.items():
        values = np.median(grey(image)[now]), np.median(grey(old)[then])
        together = abs(values[0] - values[1]) <= ALIKE * extent
        words = f"moved image and mask different ways: class {one} lies on other grey values"
        need(together, name, words)


def check_moved(name: str, pairs: Sequence[tuple]) -> None:
    """Most images have moved, and so have their masks; a drawn angle may be next to none.

    Args:
        name: of the contender.
        pairs: before and after, each an image and a mask.

    Raises:
        SystemExit: if half of them are what they were.
    """
    moved = [
        np.mean(np.abs(image - old) > CLOSE * np.ptp(old)) > MOVED
        and not np.array_equal(mask, old_mask)
        for (old, old_mask), (image, mask) in pairs
    ]
    need(np.mean(moved) > 0.5, name, f"has moved {sum(moved)} of {len(moved)} images")


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
    (old, old_mask), (image, mask) = before, after
    shape = (*mask.shape, -1)
    pairs = zip(*(np.moveaxis(one.reshape(shape), -1, 0) for one in (old, image)), strict=True)
    for channel, found in pairs:
        values = channel.astype(np.float64)
        wanted = ndimage.map_coordinates(values, positions, order=1, mode="nearest")
        worst = np.abs(found - wanted).max()
        words = f"differs from SciPy by up to {worst:.4g} for equal positions"
        need(worst <= CLOSE * np.ptp(old), name, words)
    nearest = ndimage.map_coordinates(old_mask, positions, order=0, mode="nearest")
    tied = (np.abs(positions % 1 - 0.5) < NEAR_TIE).any(0)
    few = tied.mean() <= FEW_TIES
    need(few, name, f"has {tied.mean():.0%} of the positions between two voxels")
    wrong = np.count_nonzero((mask != nearest) & ~tied)
    need(not wrong, name, f"has {wrong} voxels of the mask that are not SciPy's nearest ones")


# Crops


def check_crops(
    name: str, sources: Iterable[tuple[np.ndarray, ...]], crops: Sequence[np.ndarray]
) -> list[tuple[int, ...]]:
    """Each crop is a box of one of the sources, its fields from the same box.

    Args:
        name: of the contender.
        sources: images as tuples of fields `[z, y, x]` or `[y, x]`.
        crops: for each field `[n, d, h, w]` or `[n, h, w]`.

    Returns:
        Where each crop starts.

    Raises:
        SystemExit: if a crop is nowhere.
    """
    sources = list(sources)
    starts = []
    for number, fields in enumerate(zip(*crops, strict=True)):
        found = [start for source in sources for start in places_of(source, fields)]
        need(bool(found), name, f"gives crop {number}, which is no box of the image and its mask")
        starts.append(found[0])
    return starts


def places_of(source: Sequence[np.ndarray], fields: Sequence[np.ndarray]) -> list[tuple[int, ...]]:
    """All starts of boxes of the source's fields that equal these fields."""
    size, whole = np.array(fields[0].shape), source[0]
    room = np.array(whole.shape) - size + 1
    if not (room > 0).all():
        return []
    left = np.indices(room).reshape(len(room), -1).T
    for probe in np.random.default_rng(0).integers(0, size, (PROBES, len(size))):
        left = left[whole[tuple((left + probe).T)] == fields[0][tuple(probe)]]
    boxes = {tuple(map(int, at)): tuple(map(slice, at, at + size)) for at in left}
    return [
        at
        for at, box in boxes.items()
        if all(np.array_equal(one[box], part) for one, part in zip(source, fields, strict=True))
    ]


# Batches of the benchmark of reading


def laid_out(batch: np.ndarray, crop: Sequence[int]) -> np.ndarray:
    """A batch as `[n, z, y, x]`, whichever axes of length 1 and order of axes a library has."""
    batch = np.squeeze(batch)
    if len(crop) == 3 and batch.shape[1:] == tuple(crop)[::-1]:
        batch = batch.transpose(0, 3, 2, 1)
    return batch


def check_batches(name: str, batches: Sequence[np.ndarray], job: Mapping) -> np.ndarray:
    """All examples of some batches, of the shape and type that are asked for.

    Raises:
        SystemExit: if they are not.
    """
    laid = [laid_out(batch, job["crop"]) for batch in batches]
    for batch, one in zip(batches, laid, strict=True):
        need(batch.dtype == np.float32, name, f"gives {batch.dtype}, not float32")
        right = one.shape == (job["batch"], *job["crop"])
        need(right, name, f"gives {one.shape}, not {job['batch']} x {job['crop']}")
    return np.concatenate(laid)


def check_drawn(name: str, batches: Sequence[np.ndarray], job: Mapping) -> None:
    """Each example is a box of a volume, voxel by voxel; places differ, and so do volumes.

    Raises:
        SystemExit: if one is nowhere, all are at one place, or all are of one volume.
    """
    examples = check_batches(name, batches, job)
    volumes = arrays(job["volumes"])
    _check_places(name, check_crops(name, [(volume,) for volume in volumes], [examples]))
    for one in volumes:
        only = all(places_of((one,), (part,)) for part in examples)
        need(not only, name, f"crops one volume only, of {len(volumes)}")


def check_generator(name: str, batches: Sequence[np.ndarray], job: Mapping) -> None:
    """The published generator: whitened boxes of the first volume, which is all that it yields.

    Raises:
        SystemExit: as `check_drawn`.
    """
    examples, first = check_batches(name, batches, job), loaded(Path(job["work"])).subjects[0]
    values = arrays(job["volumes"])[0].astype(np.float32)
    whitened = (values - np.float32(first.mean)) / np.float32(first.std)
    _check_places(name, check_crops(name, [(whitened,)], [examples]))


def _check_places(name: str, starts: Sequence[tuple[int, ...]]) -> None:
    many = len(set(starts)) > len(starts) // 2
    need(many, name, f"crops at {len(set(starts))} places only, of {len(starts)}")


def check_stored(name: str, batches: Sequence[np.ndarray], job: Mapping, whitened: bool) -> None:
    """In the first epoch each stored crop comes once, bit for bit.

    Raises:
        SystemExit: if one is missing or another.
    """
    examples = check_batches(name, batches, job)[: job["subjects"]]
    expected = Counter(zlib.crc32(one) for one in stored(job, whitened))
    found = Counter(zlib.crc32(np.ascontiguousarray(one)) for one in examples)
    need(found <= expected, name, "gives voxels that are not those of the workload")


def stored(job: Mapping, whitened: bool) -> list[np.ndarray]:
    """The stored crops as float32, or whitened by their volumes' mean and spread."""
    crops = [one.astype(np.float32) for one in arrays(job["stored"])]
    if not whitened:
        return crops
    pairs = zip(crops, loaded(Path(job["work"])).subjects, strict=True)
    return [(crop - np.float32(one.mean)) / np.float32(one.std) for crop, one in pairs]


def look(kind: str, name: str, batches: Sequence[np.ndarray], job: Mapping) -> None:
    """Look at the first batches of a contender, by the kind of its row."""
    if kind == "drawn":
        check_drawn(name, batches, job)
    elif kind == "generator":
        check_generator(name, batches, job)
    elif kind.startswith("stored"):
        check_stored(name, batches, job, kind.endswith("whitened"))


class Watch:
    """Watches the passes of a contender that are timed, by their checksums.

    There are as many items as there should be. Those of a kind that is drawn are new each time:
    nothing is frozen, cached or left out. Stored crops come equally often: the sums over whole
    epochs add up.

    Args:
        name: of the contender.
        kind: of its row.
        job: what it works on.
    """

    def __init__(self, name: str, kind: str, job: Mapping) -> None:
        self.name, self.kind, self.job = name, kind, job
        self.seen: set[int] = set()
        if kind.startswith("stored"):
            crops = stored(job, kind.endswith("whitened"))
            self.epoch = sum(checksum((one,)) for one in crops)

    def check(self, checksums: Sequence[int], count: int) -> None:
        """Take the checksums of one pass, which should be `count`.

        Raises:
            SystemExit: if they are not what the kind asks for.
        """
        need(len(checksums) == count, self.name, f"gave {len(checksums)} items of {count}")
        if self.kind in NEW:
            before = len(self.seen)
            self.seen.update(checksums)
            new = len(self.seen) == before + count
            need(new, self.name, "gave the same item twice: it does not draw anew")
        if self.kind.startswith("stored"):
            epochs, rest = divmod(count * self.job["batch"], self.job["subjects"])
            if rest:
                raise ValueError(f"{count} batches are no whole number of epochs")
            right = sum(checksums) % MODULUS == self.epoch * epochs % MODULUS
            need(right, self.name, "gave voxels that are not those of the workload")
