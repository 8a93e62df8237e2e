"""The stages that crop: at random, round chosen voxels, or round the middle."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from helpers import stage
from helpers.crops.starts import NOWHERE, locate, starts
from helpers.errors import need

CUT = ("image", "mask")  # the fields that have voxels
FOREGROUND, BACKGROUND = (1, 2**31), (0, 1)  # ids: the first, and the one after the last
RARE = 1e-300  # weight of a side that is drawn only if the other one is empty


@dataclasses.dataclass(frozen=True)
class Crop:
    """A stage that crops at random: what `random`, `pos_neg` and `class_balanced` return.

    Args:
        size: in voxels.
        name: of the stage; its random numbers depend on it.
        seed: as in `stage.seeded`.
        groups, weights: of voxels that crops are centred on, as of `starts`; empty: anywhere.
        per_image, num_parallel_calls: as of `random`.

    Taught in: no lesson; the functions that return it are
    """

    size: tuple[int, ...]
    name: str
    seed: int
    groups: tuple[tuple[int, int], ...] = ()
    weights: tuple[float, ...] = ()
    per_image: int | None = None
    num_parallel_calls: int = stage.AUTOTUNE

    def __post_init__(self) -> None:
        if self.per_image is not None and self.per_image < 1:
            raise ValueError(f"1 crop of each image or more, not {self.per_image}")
        if self.groups and not (min(self.weights) >= 0 and 0 < sum(self.weights) < np.inf):
            raise ValueError(f"weights are numbers from 0, not all of them 0, not {self.weights}")

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Crop the elements of a dataset."""
        self.check(dataset.element_spec)
        if self.groups and "runs" not in dataset.element_spec:
            dataset = dataset.apply(locate())
        return stage.seeded(
            dataset,
            self._cropped,
            seed=self.seed,
            name=self.name,
            num_parallel_calls=self.num_parallel_calls,
        )

    def check(self, spec) -> None:
        """Refuse what can be seen before the first element, from its `element_spec`."""
        stage.checked(spec)
        *shape, _ = spec["image"].shape
        check_size(self.size, shape)
        located = "mask" in spec or "runs" in spec
        need(located or not self.groups, "NO_PAIR", "no mask says where to crop")
        known = zip(shape, self.size, strict=True)
        fits = all(have is None or have >= want for have, want in known)
        need(fits, "CROP_TOO_LARGE", f"a crop of {self.size} voxels, an image of {(*shape,)}")

    def numbers(self, seed) -> tf.Tensor:
        """The random numbers of an element, int64 `[per_image or 1, axes]`, from its seed."""
        shape = [self.per_image or 1, len(self.size)]
        return tf.random.stateless_uniform(shape, seed, None, None, tf.int64, "philox")

    def starts(self, shapes, numbers, runs, owners) -> tf.Tensor:
        """Where the crops of some elements start: see `crops.starts`."""
        if not self.groups:
            return numbers % (shapes - self.size + 1)[:, tf.newaxis]
        return starts(shapes, self.size, numbers, runs, owners, self.groups, self.weights)

    def _cropped(self, element: dict, seed) -> dict:
        case, checks = element.get("case"), stage.fitting(element)
        shape = tf.shape(element["image"], tf.int64)[:-1]
        if not element["image"].shape[:-1].is_fully_defined():
            about = ["a crop of", self.size, "voxels, an image of", shape]
            fits = tf.reduce_all(shape >= self.size)
            checks += stage.require(fits, "CROP_TOO_LARGE", about, case)
        runs = element.get("runs", tf.zeros([0, 3], tf.int32))
        if self.groups:
            found = tf.reduce_sum(tf.cast(runs[:, 2], tf.int64))
            about = ["runs of", found, "voxels, an image of", shape]
            same = found == tf.reduce_prod(shape)
            checks += stage.require(same, "SHAPE_MISMATCH", about, case)
        with tf.control_dependencies(checks):
            numbers, owners = self.numbers(seed), tf.zeros_like(runs[:, 0], tf.int64)
            found = self.starts(shape[tf.newaxis], numbers[tf.newaxis], runs, owners)[0]
        if self.groups:
            about = ["no voxel with an id in", self.groups]
            drawn = tf.reduce_all(found != NOWHERE)
            checks = stage.require(drawn, "NO_PLACE", about, case)
        with tf.control_dependencies(checks):
            corners = tf.unstack(tf.pad(tf.cast(found, tf.int32), [[0, 0], [0, 1]]))
        result = {}
        for name in (name for name in element if name != "runs"):
            copies = [element[name]] * len(corners)
            if name in CUT:
                channels = tf.shape(element[name])[-1:]
                whole = tf.concat([self.size, channels], 0)
                copies = [tf.slice(element[name], corner, whole) for corner in corners]
            result[name] = copies[0] if self.per_image is None else tf.stack(copies)
        return result


def check_size(size: Sequence[int], shape: Sequence[int | None]) -> None:
    """Refuse the size of a crop that is none, or of other axes than the images have.

    Args:
        size: in voxels. -1 would mean "all that is left" to TensorFlow.
        shape: of the images in space.

    Raises:
        ValueError: with both.

    Taught in: no lesson; crops ask it
    """
    if len(size) != len(shape) or min(size) < 1:
        raise ValueError(f"a crop of {size} voxels, of images of shape {shape}")


def random(size: Sequence[int], *, seed: int, **options) -> Crop:
    """Crop anywhere: every start from 0 to shape - size, the last one included, is as likely.

    Args:
        size: in voxels, `(z, y, x)` or `(y, x)`.
        seed: as in `stage.seeded`.
        options: `per_image`: crops of each image, drawn independently, so they may overlap or
            repeat. All fields get a first axis of this length, `label`, `case` and `spacing` by
            repetition; None gives one crop without that axis. `num_parallel_calls`: elements
            worked on at a time.

    Returns:
        A stage for elements of any spatial shape; `runs` of `locate` is dropped.

    Raises:
        ValueError: for a bad size or count, and for batches.
        CourseDataError: `CROP_TOO_LARGE` or `MASK_MISMATCH` where the shapes are known.
        tf.errors.InvalidArgumentError: the same codes while running; it names the case.

    DLTK's `extract_random_example_array`, except that its draw never reaches the last start.

    Taught in: augmentation, tuning the pipeline
    """
    return Crop(tuple(size), "crops.random", seed, **options)


def pos_neg(
    size: Sequence[int],
    *,
    seed: int,
    positive: float = 1.0,
    negative: float = 1.0,
    **options,
) -> Crop:
    """Crop round a voxel of the foreground or of the background, in a given ratio.

    Each crop is drawn by itself: with probability positive / (positive + negative) its centre is
    any voxel of the foreground (mask > 0), otherwise any of the background. Where it would stick
    out of the image it is moved inward. If one side is empty the other is taken.

    Args:
        size: in voxels, `(z, y, x)` or `(y, x)`. An even one has its centre at size / 2.
        positive: weight of the foreground, from 0.
        negative: weight of the background, from 0.
        seed: as in `stage.seeded`.
        options: as for `random`.

    Returns:
        A stage. It draws from `runs` of `locate` and drops them; without them it looks through
        each mask again, which takes several times as long as the crops.

    Raises:
        ValueError: for bad arguments, and for batches.
        CourseDataError: `NO_PAIR` without masks; `CROP_TOO_LARGE` or `MASK_MISMATCH` where the
            shapes are known.
        tf.errors.InvalidArgumentError: the same codes while running, `NO_PLACE` if both sides are
            empty, `SHAPE_MISMATCH` if the image has another number of voxels than the runs.

    The semantics of MONAI's `RandCropByPosNegLabeld`.

    Taught in: augmentation
    """
    weights = (positive, negative)
    if max(weights) > 0:
        weights = tuple(one or RARE for one in weights)
    groups = (FOREGROUND, BACKGROUND)
    return Crop(tuple(size), "crops.pos_neg", seed, groups, weights, **options)


def class_balanced(
    size: Sequence[int],
    *,
    classes: Sequence[int],
    seed: int,
    weights: Sequence[float] | None = None,
    **options,
) -> Crop:
    """Crop round voxels of all classes alike: exactly `per_image` crops of each image.

    For each crop a class is drawn among those that this mask has, then a voxel of the class; crops
    that would stick out are moved inward.

    Args:
        size: in voxels, `(z, y, x)` or `(y, x)`.
        classes: ids in the mask, 0 for the background.
        seed: as in `stage.seeded`.
        weights: of the classes, in proportion to their probabilities; equal by default. Absent
            classes leave their share to the others.
        options: as for `random`.

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
    groups = tuple((one, one + 1) for one in classes)
    return Crop(tuple(size), "crops.class_balanced", seed, groups, tuple(weights), **options)


def centre(
    size: Sequence[int],
    *,
    fill: float | str = 0,
    mask_fill: int = 0,
    num_parallel_calls: int = stage.AUTOTUNE,
):
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
        A stage, which belongs before the cache: no chance is in it. `runs` of `locate` is dropped.

    Raises:
        ValueError: for a bad size, for batches, and for a fill that the dtype cannot hold.
        CourseDataError: `MASK_MISMATCH` where the shapes are known.
        tf.errors.InvalidArgumentError: `MASK_MISMATCH` while running; it names the case.

    DLTK's `resize_image_with_crop_or_pad`, on the spatial axes only.

    Taught in: imbalanced classification
    """
    fills = {"image": fill, "mask": mask_fill}

    def centred(element: dict) -> dict:
        with tf.control_dependencies(stage.fitting(element)):
            shape = tf.shape(element["image"])[:-1]
        first, kept = tf.maximum(shape - size, 0) // 2, tf.minimum(shape, size)
        before = (size - kept) // 2
        sides = tf.pad(tf.stack([before, size - kept - before], 1), [[0, 1], [0, 0]])
        result = {name: value for name, value in element.items() if name != "runs"}
        for name in (name for name in fills if name in element):
            value, outside = element[name], fills[name]
            outside = tf.reduce_min(value) if outside == "min" else tf.cast(outside, value.dtype)
            cut = tf.slice(value, tf.pad(first, [[0, 1]]), tf.concat([kept, [-1]], 0))
            cut = tf.pad(cut, sides, constant_values=outside)
            result[name] = tf.ensure_shape(cut, [*size, value.shape[-1]])
        return result

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        spec = dataset.element_spec
        stage.checked(spec)
        check_size(size, spec["image"].shape[:-1])
        for name in (name for name in fills if name in spec and fills[name] != "min"):
            kind = spec[name].dtype.as_numpy_dtype
            with np.errstate(all="ignore"):
                held = np.isclose(np.float64(fills[name]).astype(kind), fills[name], rtol=1e-3)
            if not held:
                raise ValueError(f"the {name} is {kind.__name__}: no room for {fills[name]}")
        return stage.mapped(
            dataset, centred, name="crops.centre", num_parallel_calls=num_parallel_calls
        )

    return apply


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

    def merge(batch: dict) -> dict:
        shapes = {name: [[-1], tf.shape(value)[2:]] for name, value in batch.items()}
        return {name: tf.reshape(batch[name], tf.concat(shapes[name], 0)) for name in batch}

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        leads = {tuple(spec.shape[:2]) for spec in dataset.element_spec.values()}
        if len(leads) > 1 or len(*leads) < 2:
            raise ValueError(f"every field needs the same two batch axes, not {leads}")
        return stage.mapped(
            dataset, merge, name="crops.merge_batch_dims", num_parallel_calls=num_parallel_calls
        )

    return apply
