"""Crops at random places: anywhere, on one side of the mask, or in one of its classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

from helpers import draws
from helpers.crops.cutting import cropped, extent
from helpers.crops.elements import check, checked_count, checked_size
from helpers.crops.laws import GRAPH, Anywhere, Classes, Law, Sides
from helpers.crops.places import checked_classes, checked_threshold
from helpers.elements import require


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A stage that crops at random: what `random`, `pos_neg` and `class_balanced` return.

    It stands where a function would, in `dataset.apply(stage)`, and can be asked for its law, which
    `from_memory` does.

    Args:
        name: of the stage; its random numbers depend on it.
        size: in voxels.
        per_image: crops of each image, or None for one without an axis of its own.
        allow_smaller: whether images may be smaller than the crop.
        law: where crops start.
        seed, num_parallel_calls: as in `helpers.draws.map_with_seeds`.
    """

    name: str
    size: tuple[int, ...]
    per_image: int | None
    allow_smaller: bool
    law: Law
    seed: int
    num_parallel_calls: int

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Crop the elements of a dataset."""
        self.check(dataset.element_spec)
        return draws.map_with_seeds(
            dataset,
            self._crop,
            seed=self.seed,
            name=self.name,
            num_parallel_calls=self.num_parallel_calls,
        )

    def check(self, spec) -> None:
        """Refuse what can be seen before the first element, from its `element_spec`."""
        by = self.law.by
        located = isinstance(spec, dict) and by in spec.get("places", {})
        check(spec, self.size, mask=by is not None and not located, fits=not self.allow_smaller)
        if located and by == "foreground" and self.law.threshold is not None:
            raise ValueError(
                "crops.locate has found the places already: leave image_threshold out here, and "
                "give it there"
            )
        if located and by == "class":
            missing = [one for one in self.law.ids if str(one) not in spec["places"][by]["groups"]]
            if missing:
                raise ValueError(
                    f"crops.locate did not look for classes {missing}; name them there"
                )

    def numbers(self, seed) -> tf.Tensor:
        """The random numbers of an element, int64 `[per_image or 1, axes]`, from its seed."""
        # One number for each axis, of which the laws with two steps use two.
        shape = [self.per_image or 1, len(self.size)]
        return tf.random.stateless_uniform(shape, seed, None, None, tf.int64, "philox")

    def _crop(self, element: dict, seed) -> dict:
        shape, size, checks = extent(element, self.size, self.allow_smaller)
        numbers, place = self.numbers(seed), None
        if self.law.by is not None:
            place, located = _place(element, self.law)
            limits = self.law.limits(GRAPH, place)
            possible = self.law.possible(GRAPH, limits[:, 1] - limits[:, 0])
            checks = checks + located
            checks += require(possible, "NO_PLACE", self.law.nothing, element.get("case"))
        with tf.control_dependencies(checks):
            wide = tf.cast(shape, tf.int64), tf.cast(size, tf.int64)
            starts = tf.cast(self.law.starts(GRAPH, place, *wide, numbers), tf.int32)
        static = (None,) * len(self.size) if self.allow_smaller else self.size
        return cropped(element, starts, size, self.per_image, static)


def random(
    size: Sequence[int],
    *,
    per_image: int | None = None,
    seed: int,
    allow_smaller: bool = False,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> RandomCrop:
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

    return RandomCrop(
        "crops.random",
        checked_size(size),
        checked_count(per_image),
        allow_smaller,
        Anywhere(),
        seed,
        num_parallel_calls,
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
) -> RandomCrop:
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
    law = Sides(weights[0] / sum(weights), checked_threshold(image_threshold))
    return RandomCrop(
        "crops.pos_neg",
        checked_size(size),
        checked_count(per_image),
        allow_smaller,
        law,
        seed,
        num_parallel_calls,
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
) -> RandomCrop:
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

    return RandomCrop(
        "crops.class_balanced",
        checked_size(size),
        checked_count(per_image),
        allow_smaller,
        Classes(ids, tuple(weights)),
        seed,
        num_parallel_calls,
    )


def _place(element: dict, law: Sides | Classes) -> tuple:
    """Places that were located, with the check that they are this mask's, or found now."""
    place = element.get("places", {}).get(law.by)
    if place is None:
        return law.find(element), []
    shape = tf.shape(element["image"])[:-1]
    about = ["places were located in a mask of", place["shape"], "but the image has", shape]
    about += ["; let nothing between crops.locate and the crop change shapes"]
    same = tf.reduce_all(place["shape"] == shape)
    return place, require(same, "SHAPE_MISMATCH", about, element.get("case"))


def _checked_weights(weights: Sequence[float]) -> list[float]:
    numbers = [float(one) for one in weights]
    if not all(math.isfinite(one) and one >= 0 for one in numbers) or not sum(numbers) > 0:
        raise ValueError(f"weights are numbers from 0, not all of them 0, not {list(weights)}")
    return numbers
