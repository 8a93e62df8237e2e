"""Checks of notebook 02: a flip of image and mask together, a crop's start, augmenting anew."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from helpers.lesson.verdicts import VerdictError, ask, cause, judged, mapped, wrong

AXES = {4: ("z", "y", "x", "channel"), 3: ("y", "x", "channel")}
KINDS = {4: "volumes [z, y, x, c]", 3: "pictures [y, x, c]"}
PAIRS = 1000
TOLERANCE = 0.07  # more than four standard deviations of the share of flips among PAIRS
EPOCHS = 3


@judged
def flip_pair(answer: Callable) -> str:
    """Notebook 02: `answer(image, mask, seed)` flips both left to right, or neither, p = 0.5."""
    rng = np.random.default_rng(37)
    for shape in ((3, 4, 5), (4, 6)):
        # More than one channel, and no two voxels alike, so that every wrong axis shows.
        images = rng.normal(size=(PAIRS, *shape, 2)).astype(np.float32)
        masks = rng.integers(0, 4, (PAIRS, *shape, 1), np.uint8)
        seeds = rng.integers(0, 2**32, (PAIRS, 2), np.int64)
        kind = KINDS[len(shape) + 1]
        _judge_alone(answer, images[0], masks[0], seeds[0], kind)
        pairs = _mapped(answer, images, masks, seeds, kind)
        flipped = _decisions(images, masks, pairs, kind)
        _judge_share(answer, images, masks, seeds, flipped, kind)
        # Backwards, so that an answer which counts its calls, not looks at the seed, shows.
        backwards = _mapped(answer, images[::-1], masks[::-1], seeds[::-1], kind)
        again = _decisions(images[::-1], masks[::-1], backwards, kind)[::-1]
        if changed := int((again != flipped).sum()):
            raise wrong(
                f"{kind}: the same seed flips or not as it happens ({changed} of {PAIRS} pairs "
                "came out otherwise the second time): draw with tf.random.stateless_uniform"
            )
    return (
        f"right on {PAIRS} volumes and {PAIRS} pictures that the check made up: half of them "
        "flipped, each mask with its image, and the same again from the same seeds"
    )


def _judge_alone(answer: Callable, image, mask, seed, kind: str) -> None:
    import tensorflow as tf

    pair = ask(answer, tf.constant(image), tf.constant(mask), tf.constant(seed))
    if not isinstance(pair, tuple) or len(pair) != 2:
        hint = "; Dataset.map packs a list into one tensor" if isinstance(pair, list) else ""
        found = type(pair).__name__
        raise wrong(f"a tuple of two is asked for: return image, mask; found {found}{hint}")
    for name, before, after in zip(("image", "mask"), (image, mask), pair, strict=True):
        if after is None or after is ...:
            raise wrong(f"the {name} comes back as {after}: return image, mask")
        after = np.asarray(after)
        if after.shape != before.shape:
            raise wrong(f"{kind}: the {name} had shape {before.shape}, yours has {after.shape}")
        if after.dtype != before.dtype:
            why = "class ids stay whole numbers" if name == "mask" else "a flip changes no value"
            raise wrong(f"the {name} was {before.dtype}, yours is {after.dtype}: {why}")


def _mapped(answer: Callable, images, masks, seeds, kind: str) -> tuple[np.ndarray, ...]:
    """What the answer makes of all pairs inside `Dataset.map`, as it will be used."""
    import tensorflow as tf

    given = tf.data.Dataset.from_tensor_slices((images, masks, seeds))
    # One batch, which is faster to compare.
    return mapped(answer, given, lambda made: next(made.batch(PAIRS).as_numpy_iterator()), kind)


def _decisions(images, masks, pairs, kind: str) -> np.ndarray:
    """Whether each pair was flipped; anything but "both along x, or neither" ends the check."""
    moves = {"image": _moves(images, pairs[0]), "mask": _moves(masks, pairs[1])}
    for name, found in moves.items():
        strange = found[~np.isin(found, ("kept", "x"))]
        if len(strange):
            raise wrong(f"{kind}: the {name} {_strange(strange[0], images.ndim - 1)}")
    image, mask = (found == "x" for found in moves.values())
    if image.any() and not mask.any():
        raise wrong(f"{kind}: the mask stays as it is where the image is flipped")
    if mask.any() and not image.any():
        raise wrong(f"{kind}: the image stays as it is where the mask is flipped")
    if parted := int((image != mask).sum()):
        raise wrong(
            f"{kind}: image and mask part company in {parted} of {PAIRS} pairs; one draw has to "
            "decide for both"
        )
    return image


def _moves(before: np.ndarray, after: np.ndarray) -> np.ndarray:
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
        sliced = before.ndim == 5 and np.isin(_moves(before[odd], after[odd]), ("kept", "x")).all()
        found[odd] = "slices" if sliced else "changed"
    return found


def _strange(move: str, axes: int) -> str:
    if move == "slices":
        return "has some slices flipped and others not: one draw has to decide for the volume"
    if move == "changed":
        return "comes out with other values than went in; a flip only moves them"
    return (
        f"is flipped along {move}; left and right lie along x, the last axis before the channel "
        f"(axis -2, here {axes - 2})"
    )


def _judge_share(answer: Callable, images, masks, seeds, flipped: np.ndarray, kind: str) -> None:
    import tensorflow as tf

    share = flipped.mean()
    if abs(share - 0.5) <= TOLERANCE:
        return
    if 0 < share < 1:
        raise wrong(f"{kind}: {100 * share:.0f} % are flipped; asked for is one half")
    # The same in every element: was it drawn once, while map traced, or is there no draw at all?
    alone = [
        np.asarray(ask(answer, *map(tf.constant, given))[0])
        for given in zip(images[:40], masks[:40], seeds[:40], strict=True)
    ]
    every = "every pair is flipped" if share else "no pair is flipped"
    if len(set(_moves(images[:40], np.stack(alone)))) > 1:
        raise wrong(
            f"{kind}: inside Dataset.map {every}: map runs your Python once, so that a number from "
            "random or NumPy is drawn once and stays; draw with tf.random.stateless_uniform"
        )
    raise wrong(f"{kind}: {every}; asked for is one half of them, decided by the seed")


@judged
def crop_start(answer: Callable) -> str:
    """Notebook 02: `answer(centre, size, shape)` is the start of a crop, pushed into the image."""
    trials = list(_crops(np.random.default_rng(41)))
    for number, (centre, size, shape) in enumerate(trials):
        given = f"centre {_row(centre)}, size {_row(size)}, shape {_row(shape)}"
        try:
            result = ask(answer, centre, size, shape)
        except VerdictError as verdict:
            if number and verdict.line.startswith("✎"):
                raise wrong(f"{given}: you returned None; is a branch without return?") from None
            raise
        try:
            starts = np.asarray(result)
            numbers = starts.astype(float)
        except (TypeError, ValueError):
            raise wrong(
                f"a start for each axis is asked for, you returned {result!r:.60}"
            ) from None
        if starts.shape != centre.shape:
            raise wrong(
                f"{given}: {len(centre)} starts are asked for, one for each axis; you returned "
                f"{result!r:.60}"
            )
        for at, voxel, length, end in zip(numbers, *map(_ints, (centre, size, shape)), strict=True):
            if at != min(max(voxel - length // 2, 0), end - length):
                raise wrong(f"{given}: {_misplaced(at, voxel, length, end)}")
        if starts.dtype.kind not in "iu":
            raise wrong(
                f"{given}: the numbers are right, but of dtype {starts.dtype}: an index is a "
                "whole number; divide with //"
            )
    return f"right on {len(trials)} crops that the check made up, at every edge and in the middle"


def _crops(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Centre, size and shape: first with room on all sides, so that rounding is judged alone."""
    for trial in range(120):
        axes = 2 if trial % 4 == 3 else 3
        size = rng.integers(2, 9, axes)
        shape = 3 * size + rng.integers(1, 9, axes)
        near, far = size, shape - size
        if trial >= 40:
            near, far = np.zeros(axes, int), shape
        centre = rng.integers(near, far)
        if trial >= 60:  # the edges of the image, where a small organ may well lie
            edge = rng.integers(0, 3, axes)
            centre = np.choose(edge, [np.zeros(axes, int), shape - 1, centre])
        if trial >= 100:  # along one axis the crop is the whole image, along another one voxel
            whole, thin = rng.permutation(axes)[:2]
            shape[whole], size[thin] = size[whole], 1
            centre = np.minimum(centre, shape - 1)
        yield centre, size, shape


def _misplaced(at: float, centre: int, size: int, end: int) -> str:
    """What is wrong with a start along one axis."""
    free = centre - size // 2
    said = f"along an axis of {end} voxels a crop of {size} starts at {at:g}"
    if not np.isfinite(at):
        return said
    if at != int(at):
        return f"{said}: that is between two voxels; divide with //"
    if at < 0:
        return f"{said}, outside the image: the first voxel is 0"
    if at + size > end:
        return f"{said} and ends outside the image: the last start that fits is {end - size}"
    if 0 < free < end - size:
        if at == centre:
            return f"{said}, the centre itself: it begins half its size before that"
        return f"{said}; there is room on both sides, and {centre} - {size} // 2 is {free}"
    if not at <= centre < at + size:
        return f"{said} and has lost its centre, {centre}: push it inside, no further"
    if free <= 0:
        return f"{said}; it can start at 0, nearer to the centre {centre}"
    return f"{said}; it can start at {end - size} (shape - size), nearer to the centre {centre}"


def _ints(values: np.ndarray) -> list[int]:
    return [int(value) for value in values]


def _row(values: np.ndarray) -> str:
    return f"({', '.join(map(str, values))})"


@judged
def cached_then_augmented(answer: Callable) -> str:
    """Notebook 02: `answer(paths, read, augment)` reads each file once, augments in each epoch.

    The answer is a dataset of single elements, a pass through it an epoch. One that repeats gives
    several epochs in a pass, and is judged by as many of its elements.
    """
    with tempfile.TemporaryDirectory() as root:
        paths = [str(Path(root, f"case {number}.txt")) for number in range(6)]
        for number, path in enumerate(paths):
            Path(path).write_text(str(number), encoding="utf-8")
        given = _Counted()
        dataset = ask(answer, paths, given.read, given.augment)
        epochs = _epochs(dataset, len(paths))
        _judge_epochs(epochs, given.paths, len(paths))
    return (
        f"right on {len(paths)} files that the check wrote: each read once for {EPOCHS} epochs, "
        "and augmented anew in every one of them"
    )


class _Counted:
    """A reader and an augmentation that can be told apart by what they leave in the element.

    The image is `[1, 3, 1]`: the file's number, how often it was augmented, and the number of the
    last augmentation, which is given out once.
    """

    def __init__(self) -> None:
        import tensorflow as tf

        self.paths: list[str] = []
        tickets = itertools.count(1)

        def load(path) -> np.ndarray:
            name = os.fsdecode(np.asarray(path).item())  # bytes in a map, text outside of it
            self.paths.append(name)
            return np.float32([[[int(Path(name).read_text(encoding="utf-8"))], [0], [0]]])

        def change(image: np.ndarray) -> np.ndarray:
            return np.float32([[image[0, 0], image[0, 1] + 1, [next(tickets)]]])

        @tf.autograph.experimental.do_not_convert
        def read(path):
            image = tf.numpy_function(load, [path], tf.float32)
            return {"image": tf.ensure_shape(image, (1, 3, 1)), "case": path}

        @tf.autograph.experimental.do_not_convert
        def augment(element):
            image = tf.numpy_function(change, [element["image"]], tf.float32)
            return {**element, "image": tf.ensure_shape(image, (1, 3, 1))}

        self.read, self.augment = read, augment


def _epochs(dataset, count: int) -> list[np.ndarray]:
    """What the images hold, `[count, 3]` for each of `EPOCHS` epochs."""
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset):
        raise wrong(f"a tf.data.Dataset is asked for, you returned {dataset!r:.60}")
    spec = dataset.element_spec
    if not isinstance(spec, Mapping) or "image" not in spec:
        raise wrong(f"each element should be what augment returns, a dict; found {spec!r:.80}")
    if spec["image"].shape.rank == 4:
        raise wrong("the elements are batches; here each is one image: leave batch to the end")
    rows: list[np.ndarray] = []
    while len(rows) < EPOCHS * count:
        before = len(rows)
        try:
            # To the end of the pass, since only then a cache is complete; unless there is no end.
            for element in dataset.as_numpy_iterator():
                rows.append(np.asarray(element["image"]).ravel())
                if len(rows) == EPOCHS * count + before:
                    break
        except Exception as error:
            raise wrong(f"reading the dataset raises {cause(error)}") from error
        found = len(rows) - before
        if found == 0 or found % count:
            raise wrong(f"{found} elements in one pass, from {count} files")
    return [np.stack(rows[i * count : (i + 1) * count]) for i in range(EPOCHS)]


def _judge_epochs(epochs: list[np.ndarray], read: list[str], count: int) -> None:
    for number, epoch in enumerate(epochs, 1):
        there = len(set(epoch[:, 0]))
        if there < count:
            raise wrong(
                f"epoch {number} has {there} of the {count} cases, some of them twice: shuffle "
                "before repeat, and leave none out"
            )
    times, tickets = (np.concatenate([epoch[:, i] for epoch in epochs]) for i in (1, 2))
    if not times.all():
        raise wrong("there are elements that augment has not seen")
    if len(set(tickets)) < len(tickets):
        raise wrong(
            "the second epoch brings the very pictures of the first: augment stands before the "
            "cache, and is frozen in it"
        )
    if times.max() > 1:
        raise wrong("an element goes through augment more than once on its way")
    if len(read) > count:
        raise wrong(
            f"read was called {len(read)} times for {count} files in {len(epochs)} epochs: put "
            "cache() behind it, with no repeat in front of the cache, and let each pass reach its "
            "end"
        )
    if len(read) < count:
        raise wrong(
            f"read was called {len(read)} times for {count} files: something else made the "
            "elements; a cache file of an earlier run?"
        )
