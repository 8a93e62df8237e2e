"""Did a contender do the work: are its items what was asked for, all of them, and new each time?

What is made has a kind. "warped": images and masks moved together. "crops": boxes of the job's
images; "generator": of its first one, whitened. "stored": crops that come once an epoch, to the
bit; "whitened": likewise. "copied": as before. "same": what was written as DICOM, each time.
"lesson": float32 pictures from 0 to 255 with ids of classes, or 255. "new": nothing but that no
two items are equal, as with the first three and the lesson's.
"""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from contenders import Item, arrays, box, facts, pairs, picture_files
from PIL import Image

LARGE_CLASS = 0.005  # part of the image; the grey values of smaller classes say little
ALIKE = 0.1  # of the range of grey values: by how much the median of a class may move
MOVED = 0.1  # part of the voxels that have other values after a move
PROBES = 24  # voxels that are compared before whole boxes are
THIN = 64  # voxels of each example that are looked at where batches are not
NEW = ("warped", "crops", "generator", "lesson", "new")


class WrongError(Exception):
    """A contender has not done its work."""


def need(ok: object, words: str) -> None:
    """Refuse what a contender has made, unless it is right."""
    if not ok:
        raise WrongError(words)


def look(kind: str, items: Sequence[Item], job: Mapping) -> None:
    """Look at the first items of a contender, voxel by voxel: `WrongError` if they are wrong."""
    if kind == "warped":
        check_warped([pair for item in items for pair in pairs_of(item)], job)
    elif kind == "copied":
        same = all(map(np.array_equal, sum(items, ()), sum(pairs(job)[: len(items)], ())))
        need(same, "has changed what it was to copy")
    elif kind == "crops":
        several = (arrays(job["folder"], key) for key in ("image", "mask")[: len(items[0])])
        check_crops(items, job, list(zip(*several, strict=True)))
    elif kind == "generator":
        check_crops(items, job, [(whitened(arrays(job["folder"])[0], facts(job["folder"])[0]),)])
    elif kind in ("stored", "whitened"):
        examples = np.concatenate([as_zyx(item[0], job["crop"]) for item in items])
        found = Counter(map(crc, examples[: job["count"]]))
        need(found <= Counter(map(crc, stored(job, kind))), "gives other voxels than are stored")
    elif kind == "lesson":
        for images, masks in items:
            need(images.shape == (job["batch"], *job["size"], 3), f"gives images {images.shape}")
            need(images.dtype == np.float32, f"gives {images.dtype}, not float32")
            need(0 <= images.min() <= images.max() <= 255, "gives values beyond 0 to 255")
            strange = {*np.unique(masks).tolist()} - {0, 1, job["mask_fill"]}
            need(not strange, f"gives masks with ids {strange}")
    elif kind == "same":
        for item in items:
            need(exact_crc(item[0]) in job["crcs"], "gives something else than was written")


def crc(array: np.ndarray) -> int:
    """CRC-32 of an array in C order."""
    return zlib.crc32(np.ascontiguousarray(array))


def exact_crc(array: np.ndarray) -> int:
    """That of int16 voxels, whatever type they have now, or of names; 0 where rounding shows."""
    exact = array.astype("S" if array.dtype.kind == "S" else np.int16)
    return crc(exact) * np.array_equal(exact, array)


# Warped pairs of image and mask


def pairs_of(item: Item) -> list[Item]:
    """A volume `[z, y, x]`, or pictures `[y, x, 3]`, and masks; MONAI's are `[3, x, y]`."""
    image, mask = item
    if 3 not in (image.shape[1], image.shape[-1]):
        return [(np.squeeze(image), np.squeeze(mask))]
    if image.shape[1] == 3:
        image, mask = image.transpose(0, 3, 2, 1), mask.transpose(0, 3, 2, 1)
    return list(zip(image, mask[..., 0], strict=True))


def known_pairs(job: Mapping, count: int) -> list[Item]:
    """What passes begin with; pictures are made small by leaving pixels out."""
    if "picture" not in job:
        return pairs(job)[:count]
    found = []
    for names in (picture_files(job) * count)[:count]:
        whole = [np.asarray(Image.open(name)) for name in names]
        rows, columns = (np.arange(job["picture"]) * n // job["picture"] for n in whole[1].shape)
        found.append(tuple(one[rows][:, columns] for one in whole))
    return found


def check_warped(after: Sequence[Item], job: Mapping) -> None:
    """Images and masks are of the same stuff as before, went the same way, and most have moved."""
    moved = []
    for (old, old_mask), (image, mask) in zip(known_pairs(job, len(after)), after, strict=True):
        same = image.shape == old.shape and mask.shape == old_mask.shape
        need(same, f"gives {image.shape} and {mask.shape} for {old.shape}")
        new = {*np.unique(mask)} - {*np.unique(old_mask)}
        need(not new, f"invents classes: {sorted(map(float, new))[:5]}")
        low, high = float(old.min()), float(old.max())
        slack = ALIKE * (high - low)
        inside = low - slack <= image.min() and image.max() <= high + slack  # NaN is nowhere
        need(inside, f"gives {image.min()} to {image.max()} from {low} to {high}")
        grey, old_grey = (one.mean(-1) if one.shape[-1] == 3 else one for one in (image, old))
        sides = {one: (mask == one, old_mask == one) for one in np.unique(old_mask) if one}
        large = {k: both for k, both in sides.items() if min(map(np.mean, both)) > LARGE_CLASS}
        need(large, "has lost the classes of the mask")
        for one, (now, then) in large.items():
            together = abs(np.median(grey[now]) - np.median(old_grey[then])) <= slack
            need(together, f"moved image and mask different ways: class {one} is of other grey")
        changed = np.mean(np.abs(grey - old_grey) > slack / 10) > MOVED
        moved.append(changed and not np.array_equal(mask, old_mask))
    need(np.mean(moved) > 0.5, f"has moved {sum(moved)} of {len(moved)} images")


# Crops


def as_zyx(batch: np.ndarray, crop: Sequence[int]) -> np.ndarray:
    """Examples `[n, z, y, x]`, whichever axes of length 1 and order of axes a library has."""
    batch, crop = np.squeeze(batch), tuple(crop)
    if batch.shape[1:] == crop[::-1] != crop:
        batch = batch.transpose(0, *range(len(crop), 0, -1))
    need(batch.shape[1:] == crop, f"gives {batch.shape}, not crops of {crop}")
    return batch


def check_crops(items: Sequence[Item], job: Mapping, sources: Sequence[Item]) -> None:
    """Each crop is a box of one of the sources, its fields from the same box; places differ."""
    found, count = [], job["batch"] * job["per_image"]
    for item in items:
        dtypes = [field.dtype.name for field in item]
        need(dtypes == job["dtypes"][: len(item)], f"gives {dtypes}, not {job['dtypes']}")
        fields = [as_zyx(field, job["crop"]) for field in item]
        need(len(fields[0]) == count, f"gives {len(fields[0])} crops of {count}")
        for number, crop in enumerate(zip(*fields, strict=True)):
            at = [(i, one) for i, source in enumerate(sources) for one in places_of(source, crop)]
            need(at, f"gives crop {number}, which is no box of the image and its mask")
            found.append(at)
    places = {at[0][1] for at in found}
    need(len(places) > len(found) // 2, f"crops at {len(places)} places only, of {len(found)}")
    everywhere = set.intersection(*({i for i, _ in at} for at in found))
    need(len(sources) == 1 or not everywhere, f"crops one image only, of {len(sources)}")


def places_of(source: Item, crop: Item) -> list[tuple[int, ...]]:
    """All starts of boxes of the source's fields that equal those of a crop."""
    size, whole = np.array(crop[0].shape), source[0]
    left = np.indices(np.maximum(whole.shape - size + 1, 0)).reshape(len(size), -1).T
    for probe in np.random.default_rng(0).integers(0, size, (PROBES, len(size))):
        left = left[whole[tuple((left + probe).T)] == crop[0][tuple(probe)]]
    starts, both = [tuple(map(int, at)) for at in left], list(zip(source, crop, strict=True))
    return [at for at in starts if all(np.array_equal(a[box(at, size)], b) for a, b in both)]


def whitened(image: np.ndarray, known: Mapping) -> np.ndarray:
    """By mean and spread of the whole volume, in float32."""
    return (image.astype(np.float32) - np.float32(known["mean"])) / np.float32(known["std"])


def stored(job: Mapping, kind: str) -> list[np.ndarray]:
    """The stored crops as float32, or whitened."""
    crops = arrays(f"{job['folder']}/stored")
    if kind == "stored":
        return [crop.astype(np.float32) for crop in crops]
    return [whitened(*both) for both in zip(crops, facts(job["folder"]), strict=True)]


# Passes that are timed


def thin(item: Item) -> Item:
    """A few voxels of each example, along the first axis: enough to tell batches apart."""
    flat = [array.reshape(len(array), -1) for array in item]
    return tuple(one[:, :: max(one.shape[1] // THIN, 1)].copy() for one in flat)


def checksum(item: Item) -> int:
    """Look at every byte, at the least cost: the sum of 64-bit integers, modulo 2**64.

    Bytes are taken as they lie in memory, whatever the order of axes, so that nobody pays for a
    copy. A single voxel that is another gives another sum.
    """
    total = 0
    for array in item:
        order = np.argsort([-step for step in array.strides], kind="stable")
        flat = np.ascontiguousarray(array.transpose(order)).reshape(-1).view(np.uint8)
        whole = flat.size // 8 * 8
        total += int(flat[:whole].view(np.uint64).sum()) + int(flat[whole:].sum())
    return total % 2**64


class Watch:
    """Watches the passes of a contender by their checksums.

    Those of a new kind differ: nothing is frozen, cached or left out. Stored crops come equally
    often: the sums over whole epochs add up.
    """

    def __init__(self, kind: str, job: Mapping) -> None:
        self.kind, self.job, self.seen = kind, job, set()
        crops = stored(job, kind) if kind in ("stored", "whitened") else []
        self.epoch = sum(checksum((one,)) for one in crops)

    def check(self, sums: Sequence[int], count: int, last: int) -> None:
        """Look at a pass, which should have `count` items; `last` is `exact_crc` of the last."""
        need(len(sums) == count, f"gave {len(sums)} items of {count}")
        if self.kind in NEW:
            new = not self.seen.intersection(sums) and len({*sums}) == count
            need(new, "gave the same item twice: it does not draw anew")
        self.seen.update(sums)
        if self.kind == "same":
            right = len(self.seen) == 1 and last in self.job["crcs"]
            need(right, "gave something else than was written")
        if self.epoch:
            epochs, rest = divmod(count * self.job["batch"], self.job["count"])
            need(not rest, f"was asked for {count} batches, which are no whole epochs")
            right = sum(sums) % 2**64 == self.epoch * epochs % 2**64
            need(right, "gave other voxels than are stored")
