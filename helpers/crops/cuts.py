"""The stages that crop: at random, round chosen voxels, or round the middle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from helpers import stage
from helpers.crops.starts import NOWHERE, runs_of, starts
from helpers.errors import need

VOXELS = ("image", "mask")  # the fields that are cut; all others are repeated
FOREGROUND, BACKGROUND = (1, 2**31), (0, 1)  # ids: the first, and the one after the last
RARE = 1e-300  # weight of a side that is drawn only if the other one is empty


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A stage that crops at random: what `random`, `pos_neg` and `class_balanced` return.

    Args:
        name: of the stage; its random numbers depend on it.
        size: in voxels.
        seed: of the crops' places.
        per_image: crops of each image on a new first axis; None for one without that axis.
        allow_smaller: whether images may be smaller than the crop.
        groups, weights: of voxels that crops are centred on, as of `starts`; empty: anywhere.
        image_threshold: as of `locate`.
        num_parallel_calls: elements worked on at a time.

    Taught in: no lesson; the functions that return it are
    """

    name: str
    size: tuple[int, ...]
    seed: int
    per_image: int | None = None
    allow_smaller: bool = False
    groups: tuple[tuple[int, int], ...] = ()
    weights: tuple[float, ...] = ()
    image_threshold: float | None = None
    num_parallel_calls: int = stage.AUTOTUNE

    def __post_init__(self) -> None:
        _check_size(self.size)
        if self.per_image is not None and self.per_image < 1:
            raise ValueError(f"per_image is 1 or more, or None, not {self.per_image}")
        usable = all(math.isfinite(one) and one >= 0 for one in self.weights)
        if not usable or (self.groups and not sum(self.weights) > 0):
            raise ValueError(f"weights are numbers from 0, not all of them 0, not {self.weights}")

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Crop the elements of a dataset."""
        self.check(dataset.element_spec)
        return stage.seeded(
            dataset,
            self._cropped,
            seed=self.seed,
            name=self.name,
            num_parallel_calls=self.num_parallel_calls,
        )

    def check(self, spec) -> None:
        """Refuse what can be seen before the first element, from its `element_spec`."""
        _check_axes(spec, self.size)
        masked = "mask" in spec or "runs" in spec
        need(masked or not self.groups, "NO_PAIR", "no mask says where to crop")
        if self.image_threshold is not None and "runs" in spec:
            raise ValueError("image_threshold belongs to crops.locate, which has found the runs")
        shape = spec["image"].shape[:-1]
        fits = all(have is None or have >= want for have, want in zip(shape, self.size, strict=True))
        found = f"a crop of {self.size} voxels, of images of {tuple(shape)}"
        need(fits or self.allow_smaller, "CROP_TOO_LARGE", found)

    def numbers(self, seed) -> tf.Tensor:
        """The random numbers of an element, int64 `[per_image or 1, axes]`, from its seed."""
        shape = [self.per_image or 1, len(self.size)]
        return tf.random.stateless_uniform(shape, seed, None, None, tf.int64, "philox")

    def starts(self, shapes, numbers, runs, owners) -> tf.Tensor:
        """Where the crops of some elements start: see `crops.starts`."""
        sizes = tf.constant([self.size], tf.int64)
        sizes = tf.minimum(shapes, sizes) if self.allow_smaller else sizes
        if not self.groups:
            return numbers % (shapes - sizes + 1)[:, tf.newaxis]
        groups = np.array(self.groups, np.int64)
        weights = np.array(self.weights)
        return starts(shapes, sizes, numbers, runs, owners, groups, weights)

    def _cropped(self, element: dict, seed) -> dict:
        image, case = element["image"], element.get("case")
        shape, checks = image.shape[:-1], stage.fitting(element)
        if not shape.is_fully_defined():
            shape = tf.shape(image)[:-1]
            about = ["a crop of", self.size, "voxels, of an image of", shape]
            fits = self.allow_smaller or tf.reduce_all(shape >= self.size)
            checks += stage.require(fits, "CROP_TOO_LARGE", about, case)
        size = tf.minimum(shape, self.size) if self.allow_smaller else tf.constant(self.size)
        shapes = tf.cast([shape], tf.int64)
        runs = element.get("runs", tf.zeros([0, 3], tf.int32))
        with tf.control_dependencies(checks):
            numbers = self.numbers(seed)[tf.newaxis]
            if self.groups and "runs" not in element:
                runs = runs_of(image, element["mask"], self.image_threshold)
        found = self.starts(shapes, numbers, runs, tf.zeros_like(runs[:, 0], tf.int64))[0]
        checks = []
        if self.groups:
            about = ["runs of so many voxels:", tf.reduce_sum(runs[:, 2]), "the image has", shape]
            same = tf.reduce_sum(tf.cast(runs[:, 2], tf.int64)) == tf.reduce_prod(shapes)
            checks += stage.require(same, "SHAPE_MISMATCH", about, case)
            about = [f"no voxel with an id in {self.groups} (first, and after the last)"]
            checks += stage.require(tf.reduce_all(found != NOWHERE), "NO_PLACE", about, case)
        with tf.control_dependencies(checks):
            corners = tf.unstack(tf.cast(found, tf.int32))
        known = [None] * len(self.size) if self.allow_smaller else self.size
        lead = [] if self.per_image is None else [self.per_image]

        def cut(value):
            whole = tf.concat([size, tf.shape(value)[-1:]], 0)
            crops = [tf.slice(value, tf.concat([at, [0]], 0), whole) for at in corners]
            crops = tf.stack(crops) if lead else crops[0]
            return tf.ensure_shape(crops, [*lead, *known, value.shape[-1]])

        def repeated(value):
            return tf.stack([value] * self.per_image) if lead else value

        return {
            name: cut(value) if name in VOXELS else repeated(value)
            for name, value in element.items()
            if name != "runs"
        }


def random(
    size: Sequence[int],
    *,
    per_image: int | None = None,
    seed: int,
    allow_smaller: bool = False,
    num_parallel_calls: int = stage.AUTOTUNE,
) -> RandomCrop:
    """Crop anywhere: every start from 0 to shape - size, the last one included, is as likely.

    Args:
        size: in voxels, `(z, y, x)` or `(y, x)`.
        per_image: crops of each image, drawn independently, so they may overlap or repeat. All
            fields get a first axis of this length, `label`, `case` and `spacing` by repetition.
            None gives one crop without that axis.
        seed: as in `stage.seeded`.
        allow_smaller: where the image is smaller than the crop, take all of that axis.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage for elements of any spatial shape; `runs` of `locate` is dropped.

    Raises:
        ValueError: for a bad size or count, and for batches.
        CourseDataError: `CROP_TOO_LARGE` or `MASK_MISMATCH` where the shapes are known.
        tf.errors.InvalidArgumentError: the same codes while running; it names the case.

    DLTK's `extract_random_example_array`, except that its draw never reaches the last start.

    Taught in: augmentation, tuning the pipeline
    """
    return RandomCrop(
        "crops.random",
        tuple(size),
        seed,
        per_image,
        allow_smaller,
        num_parallel_calls=num_parallel_calls,
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
    num_parallel_calls: int = stage.AUTOTUNE,
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
        image_threshold: as for `locate`; with `runs` it has been said there.
        allow_smaller: as for `random`.
        seed: as in `stage.seeded`.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage. It draws from `runs` of `locate` and drops them; without them it looks through
        each mask again, which takes several times as long as the crops.

    Raises:
        ValueError: for bad arguments, for batches, and for a threshold where `runs` are.
        CourseDataError: `NO_PAIR` without masks; `CROP_TOO_LARGE` or `MASK_MISMATCH` where the
            shapes are known.
        tf.errors.InvalidArgumentError: the same codes while running, `NO_PLACE` if both sides are
            empty, `SHAPE_MISMATCH` if the image has another number of voxels than the runs.

    The semantics of MONAI's `RandCropByPosNegLabeld`.

    Taught in: augmentation
    """
    weights = (float(positive), float(negative))
    if max(weights) > 0:
        weights = tuple(one or RARE for one in weights)
    return RandomCrop(
        "crops.pos_neg",
        tuple(size),
        seed,
        per_image,
        allow_smaller,
        (FOREGROUND, BACKGROUND),
        weights,
        image_threshold,
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
    num_parallel_calls: int = stage.AUTOTUNE,
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
        seed: as in `stage.seeded`.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage, with or without `runs` as that of `pos_neg`.

    Raises:
        ValueError: for bad arguments, and for batches.
        CourseDataError: as for `pos_neg`.
        tf.errors.InvalidArgumentError: as for `pos_neg`; `NO_PLACE` if none of the classes, with a
            weight above 0, is in the mask.

    DLTK's `extract_class_balanced_example_array`, except that it may give fewer crops, or more.

    Taught in: augmentation
    """
    weights = [1.0] * len(classes) if weights is None else weights
    if len(weights) != len(classes) or not classes or len({*classes}) < len(classes):
        raise ValueError(f"different classes, each with a weight: not {classes} with {weights}")
    return RandomCrop(
        "crops.class_balanced",
        tuple(size),
        seed,
        per_image,
        allow_smaller,
        tuple((one, one + 1) for one in classes),
        tuple(map(float, weights)),
        num_parallel_calls=num_parallel_calls,
    )


@dataclasses.dataclass(frozen=True)
class CentreCrop:
    """A stage that cuts or pads round the middle: what `centre` returns.

    Args:
        size, fill, mask_fill, num_parallel_calls: as of `centre`.

    Taught in: no lesson; `centre` returns it
    """

    size: tuple[int, ...]
    fill: float | str = 0
    mask_fill: int = 0
    num_parallel_calls: int = stage.AUTOTUNE

    per_image, groups, allow_smaller = None, (), False

    def __post_init__(self) -> None:
        _check_size(self.size)

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Cut or pad the elements of a dataset."""
        self.check(dataset.element_spec)
        return stage.mapped(
            dataset,
            self._centred,
            name="crops.centre",
            num_parallel_calls=self.num_parallel_calls,
        )

    def check(self, spec) -> None:
        """Refuse what can be seen before the first element, from its `element_spec`."""
        _check_axes(spec, self.size)
        for name, fill in zip(VOXELS, (self.fill, self.mask_fill), strict=True):
            if name in spec and fill != "min":
                dtype = spec[name].dtype
                with np.errstate(all="ignore"):
                    stored = np.float64(fill).astype(dtype.as_numpy_dtype)
                if not (np.isfinite(stored) if dtype.is_floating else stored == fill):
                    raise ValueError(f"the {name} is {dtype.name}, which cannot hold {fill}")

    def starts(self, shapes, numbers, runs, owners) -> tf.Tensor:
        """Where the crops of some elements start: before the image, where it is smaller."""
        return tf.truncatediv(shapes - self.size, 2)[:, tf.newaxis]

    def _centred(self, element: dict) -> dict:
        with tf.control_dependencies(stage.fitting(element)):
            shape = tf.shape(element["image"])[:-1]
        start = tf.truncatediv(shape - self.size, 2)
        kept, before = tf.minimum(shape, self.size), tf.maximum(-start, 0)
        sides = tf.stack([before, self.size - kept - before], axis=1)
        result = {name: value for name, value in element.items() if name != "runs"}
        for name, fill in zip(VOXELS, (self.fill, self.mask_fill), strict=True):
            if name in element:
                value = element[name]
                outside = tf.reduce_min(value) if fill == "min" else tf.cast(fill, value.dtype)
                first = tf.concat([tf.maximum(start, 0), [0]], 0)
                cut = tf.slice(value, first, tf.concat([kept, [-1]], 0))
                cut = tf.pad(cut, tf.pad(sides, [[0, 1], [0, 0]]), constant_values=outside)
                result[name] = tf.ensure_shape(cut, [*self.size, value.shape[-1]])
        return result


def centre(
    size: Sequence[int],
    *,
    fill: float | str = 0,
    mask_fill: int = 0,
    num_parallel_calls: int = stage.AUTOTUNE,
) -> CentreCrop:
    """Cut or pad each spatial axis to `size`, round its middle; channels stay as they are.

    Where an odd number of voxels is cut off or added, the odd one is at the end: of 7 voxels cut
    to 4, the 1st goes and the last two; 4 padded to 7 get 1 in front and 2 behind.

    Args:
        size: in voxels, `(z, y, x)` or `(y, x)`.
        fill: value of the image outside, in its own unit (-1000 for HU), or "min" for the smallest
            one of the whole image, which is air in CT and MR.
        mask_fill: the class id outside; 255 is what DeepLab ignores.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage; `runs` of `locate` is dropped.

    Raises:
        ValueError: for a bad size, for batches, and for a fill that the dtype cannot hold.
        CourseDataError: `MASK_MISMATCH` where the shapes are known.
        tf.errors.InvalidArgumentError: `MASK_MISMATCH` while running; it names the case.

    DLTK's `resize_image_with_crop_or_pad`, on the spatial axes only.

    Taught in: imbalanced classification
    """
    return CentreCrop(tuple(size), fill, mask_fill, num_parallel_calls)


def merge_batch_dims(*, num_parallel_calls: int = stage.AUTOTUNE):
    """Make one batch axis of two: `[b, k, ...]` becomes `[b * k, ...]` on every field.

        dataset.apply(crops.pos_neg(size, per_image=2, seed=1)).batch(3)   # [3, 2, ...]
        dataset.apply(crops.merge_batch_dims())                            # [6, ...]

    Nothing is copied, but crops of one image stay together in a batch. Where that matters,
    `dataset.unbatch().shuffle(64, seed=1).batch(6)` after the crops, and in place of both lines,
    mixes better and costs one copy more.

    Args:
        num_parallel_calls: batches worked on at a time.

    Returns:
        A stage for batches of dicts.

    Raises:
        ValueError: for a field with fewer than two axes, or whose first two are not the others'.

    Clara's `MergeBatchDims`.

    Taught in: augmentation
    """

    def merged(value):
        (many, each), inner = value.shape[:2], value.shape[2:]
        count = None if None in (many, each) else many * each
        value = tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], 0))
        return tf.ensure_shape(value, [count, *inner])

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        shapes = {name: spec.shape for name, spec in dataset.element_spec.items()}
        leads = [shape[:2] for shape in shapes.values() if shape.rank is None or shape.rank > 1]
        if len(leads) < len(shapes) or not all(leads[0].is_compatible_with(one) for one in leads):
            raise ValueError(f"every field needs the same two batch axes, not {shapes}")
        return stage.mapped(
            dataset,
            lambda batch: {name: merged(value) for name, value in batch.items()},
            name="crops.merge_batch_dims",
            num_parallel_calls=num_parallel_calls,
        )

    return apply


def _check_size(size: tuple) -> None:
    if len(size) not in (2, 3) or any(one != int(one) or one < 1 for one in size):
        raise ValueError(f"a size is (z, y, x) or (y, x) in voxels, each from 1, not {size}")


def _check_axes(spec, size: tuple) -> None:
    stage.checked(spec)
    if spec["image"].shape.rank != len(size) + 1:
        raise ValueError(f"a crop of {size} voxels, of images of shape {spec['image'].shape}")
