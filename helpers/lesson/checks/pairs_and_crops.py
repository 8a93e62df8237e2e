"""Checks of notebook 02: a flip of image and mask together, augmenting anew, a crop's start."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from helpers.lesson.checks.answers import Check, Wrong, alike, ask, check, mapped_pairs, pair

# --- flip a volume ---

AXES = {4: ("z", "y", "x", "channel"), 3: ("y", "x", "channel")}
KINDS = {4: "volumes [z, y, x, c]: ", 3: "pictures [y, x, c]: "}
PAIRS = 1000
TOLERANCE = 0.07  # more than four standard deviations of the share of flips among PAIRS
PAIR = {"image": "float32", "mask": "uint8"}
WHY = {"image": "a flip changes no value", "mask": "class ids stay whole numbers"}


def flipping(share: float = 0.5, axes: tuple = (-2, -2), other_seed: int = 0) -> Callable:
    """A flip of image and mask along an axis each, by draws that may differ."""

    def answer(image, mask, seed):
        import tensorflow as tf

        given = zip((image, mask), axes, (seed, seed + other_seed), strict=True)
        return tuple(
            tf.where(tf.random.stateless_uniform([], by) < share, tf.reverse(one, [axis]), one)
            for one, axis, by in given
        )

    return answer


def stateful(image, mask, seed):
    import tensorflow as tf

    heads = tf.random.uniform([]) < 0.5
    return tuple(tf.where(heads, tf.reverse(one, [-2]), one) for one in (image, mask))


def of_python(image, mask, seed):
    flip = np.random.rand() < 0.5
    return (image[..., ::-1, :], mask[..., ::-1, :]) if flip else (image, mask)


def each_slice(image, mask, seed):
    import tensorflow as tf

    flip = tf.image.stateless_random_flip_left_right
    return flip(image, seed), flip(mask, seed)


FLIPS = {
    "image and mask part company in": flipping(other_seed=1),
    "the same seed flips or not as it happens": stateful,
    "a number from random or NumPy is drawn once and stays": of_python,
    "some slices flipped and others not: one draw has to decide for the volume": each_slice,
    "flipped along z; left and right lie along x": flipping(axes=(0, 0)),
    "flipped along y; left and right lie along x": flipping(axes=(1, 1)),
    "pictures [y, x, c]: the image is flipped along channel": flipping(axes=(2, 2)),
    "the image is flipped along channel; left and right": flipping(axes=(-1, -1)),
    "the mask is flipped along y": flipping(axes=(-2, 1)),
    "the mask stays as it is where the image is flipped": lambda image, mask, seed: (
        flipping()(image, mask, seed)[0],
        mask,
    ),
    "the image stays as it is where the mask is flipped": lambda image, mask, seed: (
        image,
        flipping()(image, mask, seed)[1],
    ),
    "every pair is flipped; asked for is one half": flipping(share=2),
    "no pair is flipped; asked for is one half": flipping(share=0),
    "are flipped; asked for is one half": flipping(share=0.2),
}


def judge_flips(answer: Callable) -> str:
    """`answer(image, mask, seed)` flips both left to right, or neither, p = 0.5."""
    rng = np.random.default_rng(37)
    for shape in ((3, 4, 5), (4, 6)):
        # More than one channel, and no two voxels alike, so that every wrong axis shows.
        images = rng.normal(size=(PAIRS, *shape, 2)).astype(np.float32)
        masks = rng.integers(0, 4, (PAIRS, *shape, 1), np.uint8)
        given = images, masks, rng.integers(0, 2**32, (PAIRS, 2), np.int64)
        kind = KINDS[images.ndim - 1]
        pair(answer, *(one[0] for one in given), wanted=PAIR, why=WHY)
        flipped = decisions(answer, given, kind)
        judge_share(answer, given, flipped.mean(), kind)
        # Backwards, so that an answer which counts its calls, not looks at the seed, shows.
        again = decisions(answer, [one[::-1] for one in given], kind)[::-1]
        if changed := int((again != flipped).sum()):
            raise Wrong(
                f"{kind}the same seed flips or not as it happens ({changed} of {PAIRS} pairs "
                "came out otherwise the second time): draw with tf.random.stateless_uniform"
            )
    return (
        f"right on {PAIRS} volumes and {PAIRS} pictures that the check made up: half of them "
        "flipped, each mask with its image, and the same again from the same seeds"
    )


def decisions(answer: Callable, given, kind: str) -> np.ndarray:
    """Whether each pair is flipped in `Dataset.map`; anything but "both along x" ends the check."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(tuple(given))
    made = mapped_pairs(answer, dataset, lambda one: one.batch(PAIRS).get_single_element(), kind)
    made = [one.numpy() for one in made]
    image, mask = (moves(*both) for both in zip(given, made, strict=False))
    for name, found in (("image", image), ("mask", mask)):
        strange = found[~np.isin(found, ("kept", "x"))]
        if len(strange):
            raise Wrong(f"{kind}the {name} {stranger(strange[0], given[0].ndim - 1)}")
    image, mask = image == "x", mask == "x"
    for name, other, stays in (("image", image, mask), ("mask", mask, image)):
        if other.any() and not stays.any():
            still = "mask" if name == "image" else "image"
            raise Wrong(f"{kind}the {still} stays as it is where the {name} is flipped")
    if parted := int((image != mask).sum()):
        raise Wrong(
            f"{kind}image and mask part company in {parted} of {PAIRS} pairs; one draw has to "
            "decide for both"
        )
    return image


def moves(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """For each element the axes it was flipped along ("x", "z and y"), or else "kept".

    Where that is not all: "slices" if only some slices were flipped along x, or "changed".
    """
    if after.shape != before.shape:
        return np.full(len(before), "changed", object)
    axes, within = AXES[before.ndim - 1], tuple(range(1, before.ndim))
    found = np.full(len(before), "", object)
    for count in range(len(axes) + 1):
        for flipped in itertools.combinations(range(len(axes)), count):
            same = (np.flip(before, [axis + 1 for axis in flipped]) == after).all(axis=within)
            # A mask has one channel, so that several answers fit: the shortest, which is first.
            found[same & (found == "")] = " and ".join(axes[axis] for axis in flipped) or "kept"
    for odd in np.flatnonzero(found == ""):
        sliced = before.ndim == 5 and np.isin(moves(before[odd], after[odd]), ("kept", "x")).all()
        found[odd] = "slices" if sliced else "changed"
    return found


def stranger(move: str, axes: int) -> str:
    if move == "slices":
        return "has some slices flipped and others not: one draw has to decide for the volume"
    if move == "changed":
        return "comes out with other values than went in; a flip only moves them"
    return (
        f"is flipped along {move}; left and right lie along x, the last axis before the channel "
        f"(axis -2, here {axes - 2})"
    )


def judge_share(answer: Callable, given, share: float, kind: str) -> None:
    import tensorflow as tf

    if abs(share - 0.5) <= TOLERANCE:
        return
    if 0 < share < 1:
        raise Wrong(f"{kind}{100 * share:.0f} % are flipped; asked for is one half")
    # The same in every element: was it drawn once, while map traced, or is there no draw at all?
    some = list(zip(*given, strict=True))[:40]
    alone = [np.asarray(ask(answer, *map(tf.constant, one))[0]) for one in some]
    every = "every pair is flipped" if share else "no pair is flipped"
    if len(set(moves(given[0][:40], np.stack(alone)))) > 1:
        raise Wrong(
            f"{kind}inside Dataset.map {every}: map runs your Python once, so that a number from "
            "random or NumPy is drawn once and stays; draw with tf.random.stateless_uniform"
        )
    raise Wrong(f"{kind}{every}; asked for is one half of them, decided by the seed")


flip_pair = Check(judge_flips, flipping(), FLIPS)

# --- where does the crop start? ---


def boxes(rng: np.random.Generator) -> Iterator[tuple]:
    """Centre, size and shape: first with room on all sides, so that rounding is judged alone."""
    for n in range(120):
        axes = 2 if n % 4 == 3 else 3
        size = rng.integers(2, 9, axes)
        shape = 3 * size + rng.integers(1, 9, axes)
        centre = rng.integers(size, shape - size)
        if n >= 40:  # the edges of the image, where a small organ may well lie
            edge = rng.integers(0, 4, axes)
            centre = np.choose(edge, [np.zeros(axes, int), shape - 1, centre, shape - size // 2])
        if n >= 100:  # along one axis the crop is the whole image, along another one voxel
            whole, thin = rng.permutation(axes)[:2]
            shape[whole], size[thin] = size[whole], 1
        yield np.minimum(centre, shape - 1), size, shape


def start(
    before: Callable = lambda size: size // 2,
    inside: Callable = np.clip,
    after: Callable = lambda start: start,
) -> Callable:
    """By how many voxels lie before the centre, and by what is done at the edges."""
    return lambda centre, size, shape: after(inside(centre - before(size), 0, shape - size))


def zero_outside(start: np.ndarray, low: int, high: np.ndarray) -> np.ndarray:
    return np.where((start < low) | (start > high), 0, start)


def same_start(found, wanted) -> bool:
    whole = np.asarray(found).dtype.kind in "iu", np.asarray(wanted).dtype.kind in "iu"
    return alike(found, wanted, 1e-9) and whole[0] == whole[1]


crop_start = check(
    start(),
    boxes,
    {
        "outside the image: the first voxel is 0, the last start is shape - size": start(
            inside=lambda start, *_: start
        ),
        "a crop ends outside the image: the last start that fits is shape - size": start(
            inside=lambda start, low, high: np.maximum(start, low)
        ),
        "a crop starts outside the image: the first voxel is 0": start(
            inside=lambda start, low, high: np.minimum(start, high)
        ),
        "it can start at shape - size itself, nearer to the centre": start(
            inside=lambda start, low, high: np.clip(start, low, high - 1)
        ),
        "where it fits but once, the last start that fits is 0": start(
            inside=lambda start, low, high: np.clip(start, low, np.maximum(high, 1))
        ),
        "it can start at 0, nearer to the centre": lambda centre, size, shape: np.where(
            centre > 0, np.maximum(start()(centre, size, shape), 1), 0
        ),
        "it has lost its centre: push it inside, no further; yours goes to 0": start(
            inside=zero_outside
        ),
        "it has lost its centre: push it inside, no further; % begins again at 0": start(
            inside=lambda start, low, high: start % (high + 1)
        ),
        "it ends with the image at the latest; the centre may lie at its very edge": (
            lambda centre, size, shape: start()(np.minimum(centre, shape - 2), size, shape)
        ),
        "that is the centre itself: a crop begins half its size before that": start(
            before=lambda size: 0
        ),
        "rounded up: size // 2 voxels lie before the centre": start(
            before=lambda size: (size + 1) // 2
        ),
        "rounded down too far: size // 2 voxels lie before the centre": start(
            before=lambda size: (size - 1) // 2
        ),
        "half a size is added; it begins before its centre": start(
            before=lambda size: -(size // 2)
        ),
        "that is between two voxels; divide with //": start(before=lambda size: size / 2),
        "the numbers are right, but an index is a whole number; divide with //": start(
            after=lambda start: start * 1.0
        ),
        "the axes are in reverse": start(after=lambda start: start[::-1]),
        "that is the end of the crop": lambda centre, size, shape: (
            start()(centre, size, shape) + size
        ),
    },
    same=same_start,
    tell=lambda centre, size, shape: f"centre {centre}, size {size}, shape {shape}",
)
