"""The stage: all transforms together, on datasets, and once for looking at."""

import functools

import numpy as np
import tensorflow as tf

from helpers.augment.amounts import Transform, drawn, random_numbers
from helpers.augment.grey import Grey, Unit
from helpers.augment.moving import Flip, Moving, joined
from helpers.augment.warp import resample, sizes
from helpers.stage import AUTOTUNE, checked, fitting, require, seeded


def stage(
    transforms,
    *,
    seed,
    spacing=None,
    fill="edge",
    mask_fill=0,
    batched=False,
    num_parallel_calls=AUTOTUNE,
):
    """Augment image and mask of each element with one draw.

    Args:
        transforms: from this package. Those that move voxels make one warp, which comes first; the
            others follow in their order.
        seed: equal seeds give equal streams, whatever the parallelism; each epoch is another. Two
            of these stages want two seeds, also those of training and validation. A global seed
            (`tf.random.set_seed`, `keras.utils.set_random_seed`) has a say as well.
        spacing: in mm, of all elements; by default the element's own `spacing`, or voxels where
            there is none (0 stands for not known).
        fill: outside of the image: "edge" repeats its border, "reflect" mirrors it, a number is
            taken as it is (-1000 for HU).
        mask_fill: the class id outside, where `fill` is a number; 255 is what DeepLab ignores.
        batched: for pictures `[b, y, x, c]`; each gets draws of its own. Volumes go one by one.
            Say it: a batch of pictures has as many axes as a volume, and without a `case` or a
            `spacing` nothing else tells them apart.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage: `dataset.apply(stage(...))`. It belongs after `cache` and `repeat`. Elements are
        dicts; `image` becomes float32 in its own unit, `mask` keeps its dtype and has no id that
        it did not have. Other fields stay as they are, also maps of the same shape. Fixed
        shapes are compiled by XLA, which takes a second at the first element; images of varying
        shapes take several times as long each. Crop first: an elastic warp holds 16 bytes for each
        voxel.

    Raises:
        ValueError: for a transform that is none, or that does not fit the images.
        CourseDataError: `MASK_MISMATCH` if image and mask differ in shape.
        tf.errors.InvalidArgumentError: while running, `NOT_FINITE` for an image with NaN or
            infinities, `WRONG_UNIT` for one that a preset is not made for, `MASK_MISMATCH` where
            shapes are not known before; it names the case.

    Taught in: augmentation
    """
    strange = [one for one in transforms if not isinstance(one, Transform)]
    if strange:
        raise ValueError(f"transforms are ones like augment.Rotate(15), not {strange}")
    fill = fill if fill in ("edge", "reflect") else float(fill)
    change = functools.partial(changed, transforms, fill=fill, mask_fill=np.uint8(mask_fill))

    def augmented(element, seed):
        with tf.control_dependencies(fitting(element)):
            given = {k: tf.identity(element[k]) for k in ("image", "mask") if k in element}
        batch = given if batched else {k: one[None] for k, one in given.items()}
        shape = sizes(batch["image"])
        mm = tf.cast(element.get("spacing", 1) if spacing is None else spacing, tf.float32)
        mm = tf.broadcast_to(tf.where(mm > 0, mm, 1), [shape[0], len(shape) - 2])
        numbers = random_numbers(transforms, shape, mm, seed)
        known = all(one.shape.is_fully_defined() for one in given.values())
        compiler = {"jit_compile": known and xla_works(), "autograph": False}
        image, mask, finite = tf.function(change, **compiler)(batch, mm, *numbers)
        cases = tf.broadcast_to(element.get("case", "without a name"), shape[:1])
        bad = tf.boolean_mask(cases, ~finite)
        require(tf.reduce_all(finite), "NOT_FINITE", ["an image holds NaN or infinities"], bad)
        for unit in transforms:
            if isinstance(unit, Unit):
                possible = unit.possible(given["image"])
                require(possible, "WRONG_UNIT", ["this cannot be", unit.name], cases)
        after = {"image": image, "mask": mask}
        return element | {k: tf.reshape(after[k], sizes(one)) for k, one in given.items()}

    def apply(dataset):
        checked(dataset.element_spec, batched=batched)
        if "runs" in dataset.element_spec and any(isinstance(one, Moving) for one in transforms):
            raise ValueError("crop before you augment: `runs` of crops.locate do not move along")
        return seeded(
            dataset, augmented, seed=seed, name="augment", num_parallel_calls=num_parallel_calls
        )

    return apply


@functools.cache
def xla_works():
    """Whether this TensorFlow can compile for the processor; some builds cannot.

    Taught in: no lesson; where it cannot, the same is computed more slowly
    """
    try:
        with tf.init_scope():  # now, and not as part of a graph that is being made
            tf.function(tf.abs, jit_compile=True)(tf.constant(1))
    except tf.errors.OpError:
        return False
    return True


def changed(transforms, batch, spacing, numbers, extras, *, fill="edge", mask_fill=0):
    """All transforms on a batch: what XLA compiles.

    Args:
        transforms: of a stage.
        batch: `image`, and maybe `mask`.
        spacing: float32 `[b, r]` in mm.
        numbers, extras: of `random_numbers`.
        fill, mask_fill: as for `resample`.

    Returns:
        Image; mask, or None without one; and which images were finite, `[b]`.

    Taught in: no lesson; `augment.stage` uses it
    """
    image = batch["image"]
    mask = batch.get("mask", tf.zeros_like(image[..., :1], tf.uint8))
    rank, finite = image.shape.rank - 2, tf.fill(sizes(image)[:1], True)
    if image.dtype.is_floating:  # NaN would spread in silence; a mean is finite if all is
        mean = Grey().over(tf.cast(image, tf.float32), tf.reduce_mean)
        finite = tf.math.is_finite(tf.reshape(mean, [-1]))
    every = drawn(transforms, rank, numbers, extras)
    moves = [one for one in every if isinstance(one[0], Moving)]

    def wide(amounts):
        return tf.reshape(amounts, [-1] + [1] * rank + [amounts.shape[1]])

    flips = [(flip, wide(acts)) for flip, acts, _ in moves if isinstance(flip, Flip)]
    for flip, acts in flips:  # before the warp: what comes in from outside has no other side
        mask = flip.swapped(mask, acts)
    if len(flips) < len(moves):
        warp = joined(moves, sizes(image)[1:-1], spacing)
        image, mask = resample(image, mask, warp, fill, mask_fill)
    else:
        for flip, acts in flips:  # whole voxels change places
            image, mask = flip.mirrored(image, acts), flip.mirrored(mask, acts)
    image = tf.cast(image, tf.float32)
    for one, amounts, extra in every:
        image = one.change(image, wide(amounts), extra)
    return image, mask if "mask" in batch else None, finite


def once(transforms, image, mask=None, *, seed=0, **options):
    """Augment one image, to look at.

    Args:
        transforms: as for `stage`.
        image: array `[z, y, x, c]` or `[y, x, c]`.
        mask: class ids of the same spatial shape with one channel.
        seed: another one draws other amounts.
        options: `spacing`, `fill`, `mask_fill` of `stage`.

    Returns:
        The image as a float32 array, and the mask if there is one.

    Taught in: augmentation
    """
    pair = {"image": image} if mask is None else {"image": image, "mask": mask}
    element, spec = {}, {}
    for name, one in pair.items():  # as of any shape: to compile takes longer than to do it once
        element[name] = array = np.asarray(one)
        spec[name] = tf.TensorSpec([None] * (array.ndim - 1) + [array.shape[-1]], array.dtype)
    dataset = tf.data.Dataset.from_generator(lambda: [element], output_signature=spec)
    (result,) = dataset.apply(stage(transforms, seed=seed, **options)).as_numpy_iterator()
    return result["image"] if mask is None else (result["image"], result["mask"])
