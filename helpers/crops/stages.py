"""Crops at random places: anywhere, on one side of the mask, or in one of its classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from helpers import draws, quiet
from helpers.crops.cutting import around, cropped, extent
from helpers.crops.elements import check, checked_count, checked_size
from helpers.crops.places import (
    SIDES,
    checked_classes,
    checked_threshold,
    find_classes,
    find_sides,
    voxels,
)
from helpers.elements import require

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

Stage = Callable[[tf.data.Dataset], tf.data.Dataset]
FINE = 2**52  # steps of a uniform number in [0, 1); a product with it is never rounded up to 1


def random(
    size: Sequence[int],
    *,
    per_image: int | None = None,
    seed: int,
    allow_smaller: bool = False,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> Stage:
    """Crop anywhere: every start from 0 to shape - size, the last one included, is as likely.

    Args:
        size: in voxels, `(z, y, x)` or `(y, x)`.
        per_image: crops of each image, drawn independently, so they may overlap or repeat. All
            fields get a first axis of this length, `label`, `case` and `spacing` by repetition.
            None gives one crop without that axis.
        seed: as in `helpers.draws.map_with_seeds`.
        allow_smaller: where the image is smaller than the crop, take all of that axis.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage for elements of any spatial shape; `places` of `locate` is dropped.

    Raises:
        ValueError: for a bad size or count, and for batches.
        CourseDataError: `CROP_TOO_LARGE` or `MASK_MISMATCH` where the shapes are known.
        tf.errors.InvalidArgumentError: the same codes while running; it names the case.

    DLTK's `extract_random_example_array`, except that its draw never reaches the last start.
    """

    def starts(element, shape, extent, numbers):
        del element
        return numbers % tf.cast(shape - extent + 1, tf.int64)

    return _stage(
        "crops.random", size, per_image, allow_smaller, seed, num_parallel_calls, starts, by=None
    )


def pos_neg(
    size: Sequence[int],
    *,
    positive: float = 1.0,
    negative: float = 1.0,
    per_image: int | None = None,
    image_threshold: float | None = None,
    allow_smaller: bool = False,
    seed: int,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> Stage:
    """Crop round a voxel of the foreground or of the background, in a given ratio.

    Each crop is drawn by itself: with probability positive / (positive + negative) its centre is
    any voxel of the foreground (mask > 0), otherwise any of the background. Where it would stick
    out of the image it is moved inward. If one side is empty the other is taken.

    Args:
        size: in voxels, `(z, y, x)` or `(y, x)`. An even one has its centre at size / 2.
        positive: weight of the foreground, from 0.
        negative: weight of the background, from 0.
        per_image: as for `random`.
        image_threshold: as for `locate`; with `places` it has been said there.
        allow_smaller: as for `random`.
        seed: as in `helpers.draws.map_with_seeds`.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage. It draws from `places` of `locate` and drops them; without them it looks through
        each mask again, which takes several times as long as the crops.

    Raises:
        ValueError: for bad arguments, for batches, and for a threshold where `places` are.
        CourseDataError: `NO_PAIR` without masks; `CROP_TOO_LARGE` or `MASK_MISMATCH` where the
            shapes are known.
        tf.errors.InvalidArgumentError: the same codes while running, `NO_PLACE` if both sides are
            empty, `SHAPE_MISMATCH` if the mask changed its shape since `locate`.

    The semantics of MONAI's `RandCropByPosNegLabeld`.
    """
    weights = _checked_weights((positive, negative))
    probability = weights[0] / sum(weights)
    threshold = checked_threshold(image_threshold)

    def starts(element, shape, extent, numbers):
        place, checks = _place(element, "foreground", lambda: find_sides(element, threshold))
        limits = tf.stack([place["groups"][side] for side in SIDES])
        counts = limits[:, 1] - limits[:, 0]
        about = ["no voxel is foreground, and none background; look at mask and threshold"]
        some = require(tf.reduce_any(counts > 0), "NO_PLACE", about, element.get("case"))
        with tf.control_dependencies(checks + some):
            side = tf.cast(_uniform(numbers[:, 0]) >= probability, tf.int32)
        side = tf.where(tf.gather(counts, side) > 0, side, 1 - side)
        return around(_centres(place, tf.gather(limits, side), numbers[:, 1], shape), extent, shape)

    def refuse(spec):
        if threshold is not None and "foreground" in spec.get("places", {}):
            raise ValueError(
                "crops.locate has found the places already: leave image_threshold out here, and "
                "give it there"
            )

    return _stage(
        "crops.pos_neg",
        size,
        per_image,
        allow_smaller,
        seed,
        num_parallel_calls,
        starts,
        "foreground",
        refuse,
    )


def class_balanced(
    size: Sequence[int],
    *,
    classes: Sequence[int],
    per_image: int,
    weights: Sequence[float] | None = None,
    allow_smaller: bool = False,
    seed: int,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> Stage:
    """Crop round voxels of all classes alike: exactly `per_image` crops of each image.

    For each crop a class is drawn among those that this mask has, then a voxel of the class; crops
    that would stick out are moved inward.

    Args:
        size: in voxels, `(z, y, x)` or `(y, x)`.
        classes: ids in the mask, 0 for the background.
        per_image: as for `random`.
        weights: of the classes, in proportion to their probabilities; equal by default. Absent
            classes leave their share to the others.
        allow_smaller: as for `random`.
        seed: as in `helpers.draws.map_with_seeds`.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage. It draws from `places` of `locate(by="class")` and drops them; without them it
        looks through each mask again.

    Raises:
        ValueError: for bad arguments, for batches, and for a class that `locate` did not look for.
        CourseDataError: as for `pos_neg`.
        tf.errors.InvalidArgumentError: as for `pos_neg`; `NO_PLACE` if none of the classes, with a
            weight above 0, is in the mask.

    DLTK's `extract_class_balanced_example_array`, except that it may give fewer crops, or more.
    """
    ids = checked_classes(classes)
    weights = _checked_weights([1.0] * len(ids) if weights is None else weights)
    if len(weights) != len(ids):
        raise ValueError(f"{len(weights)} weights for {len(ids)} classes")
    if per_image is None:
        raise ValueError("per_image is the number of crops of each image, 1 or more")

    def starts(element, shape, extent, numbers):
        place, checks = _place(element, "class", lambda: find_classes(element, ids))
        limits = tf.stack([place["groups"][str(one)] for one in ids])
        chances = tf.where(limits[:, 1] > limits[:, 0], tf.constant(weights, tf.float64), 0.0)
        steps = tf.cumsum(chances)
        about = ["none of the classes", tf.constant(ids), "is in the mask; leave the case out"]
        some = require(steps[-1] > 0, "NO_PLACE", about, element.get("case"))
        with tf.control_dependencies(checks + some):
            drawn = _uniform(numbers[:, 0]) * steps[-1]
        which = tf.searchsorted(steps, drawn, side="right")
        centres = _centres(place, tf.gather(limits, which), numbers[:, 1], shape)
        return around(centres, extent, shape)

    def refuse(spec):
        place = spec.get("places", {}).get("class")
        missing = [one for one in ids if place and str(one) not in place["groups"]]
        if missing:
            raise ValueError(f"crops.locate did not look for classes {missing}; name them there")

    return _stage(
        "crops.class_balanced",
        size,
        per_image,
        allow_smaller,
        seed,
        num_parallel_calls,
        starts,
        "class",
        refuse,
    )


def _stage(
    name, size, per_image, allow_smaller, seed, num_parallel_calls, starts, by, refuse=None
) -> Stage:
    """What the three have in common.

    `starts` says where, from random numbers of 64 bits; `by` names the places that it draws from,
    for which there must be a mask unless they have been located.
    """
    size, count = checked_size(size), checked_count(per_image)
    static = (None,) * len(size) if allow_smaller else size

    def crop(element, number):
        shape, found, checks = extent(element, size, allow_smaller)
        # One number for each axis, of which the laws with two steps use two.
        wanted = [count or 1, len(size)]
        numbers = tf.random.stateless_uniform(wanted, number, None, None, tf.int64, "philox")
        with tf.control_dependencies(checks):
            at = tf.cast(starts(element, shape, found, numbers), tf.int32)
        return cropped(element, at, found, count, static)

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        spec = dataset.element_spec
        located = isinstance(spec, dict) and by in spec.get("places", {})
        check(spec, size, mask=by is not None and not located, fits=not allow_smaller)
        if refuse is not None:
            refuse(spec)
        return draws.map_with_seeds(
            dataset, crop, seed=seed, name=name, num_parallel_calls=num_parallel_calls
        )

    return apply


def _place(element: dict, by: str, find: Callable[[], dict]) -> tuple:
    """Places that were located, with the check that they are this mask's, or found now."""
    place = element.get("places", {}).get(by)
    if place is None:
        return find(), []
    shape = tf.shape(element["image"])[:-1]
    about = ["places were located in a mask of", place["shape"], "but the image has", shape]
    about += ["; let nothing between crops.locate and the crop change shapes"]
    same = tf.reduce_all(place["shape"] == shape)
    return place, require(same, "SHAPE_MISMATCH", about, element.get("case"))


def _centres(place: dict, limits, numbers, shape):
    """A voxel of each group `[first, end)`, int32 `[k, axes]`.

    The remainder of a number of 64 bits favours some voxels by less than one part in 10 ** 9.
    """
    first, end = tf.unstack(tf.cast(limits, tf.int64), axis=1)
    positions = tf.cast(first + numbers % (end - first), tf.int32)
    axes = tf.unravel_index(voxels(place, positions), shape)
    return tf.stack(tf.unstack(axes, shape.shape[0]), axis=1)


def _uniform(numbers):
    """Uniform float64 in [0, 1) of random int64."""
    return tf.cast(numbers % FINE, tf.float64) / FINE


def _checked_weights(weights: Sequence[float]) -> list[float]:
    numbers = [float(one) for one in weights]
    if not all(math.isfinite(one) and one >= 0 for one in numbers) or not sum(numbers) > 0:
        raise ValueError(f"weights are numbers from 0, not all of them 0, not {list(weights)}")
    return numbers
