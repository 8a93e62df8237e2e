"""Where crops start: which voxels belong to which class, and how one of them is drawn.

A list of voxel numbers, as MONAI keeps it, takes 8 bytes a voxel: 84 MB for a case of 160 x 256 x
256, more than the image. Neighbours in a row mostly belong together, so here each run of them is
one entry of 12 bytes: about 0.1 MB for the same case with an organ in it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from helpers import stage
from helpers.errors import need

FINE = 2**52  # steps of a uniform number in [0, 1); a product with it is never rounded up to 1
IDS = 2**32  # more than there are ids
NOWHERE = tf.int64.min  # for a start: there is no voxel to draw


def starts(shapes, size, numbers, runs, owners, groups, weights):
    """Draw where crops start: a group by its weight, a voxel of it, the crop round it.

    All elements of a batch at once, each with several crops. A crop that would stick out of its
    image is moved inward.

    Args:
        shapes: of the images in voxels, int64 `[b, r]`.
        size: of the crops in voxels, `[r]`; an even one has its centre at size / 2.
        numbers: random, int64 `[b, k, r]`, of which the first two of each crop are used.
        runs: int32 `[n, 3]`, of `locate`: those of all elements, one after another.
        owners: int64 `[n]`, which element each run is of.
        groups: `[g, 2]`, the first id of each group and the one after the last.
        weights: `[g]`, in proportion to the groups' probabilities. A group without a voxel
            leaves its share to the others.

    Returns:
        int64 `[b, k, r]`; `NOWHERE` if no group has both a voxel and a weight.

    The rule of MONAI's `RandCropByPosNegLabeld` and `RandCropByLabelClassesd`.

    Taught in: augmentation
    """
    ids, first, length = tf.unstack(tf.cast(runs, tf.int64), axis=1)
    ends = tf.cumsum(length)  # of runs, as if all voxels lay in one row, run after run
    low, high = group_ranges(owners, ids, ends, tf.shape(shapes)[0], groups)
    place = drawn_places(low, high, weights, numbers)

    run = tf.searchsorted(ends, tf.reshape(place, [-1]), side="right")
    run = tf.reshape(run, tf.shape(place))
    left = tf.gather(ends, run) - place  # from this voxel to the end of its run
    voxel = tf.gather(first + length, run) - left
    shapes = shapes[:, tf.newaxis]
    strides = tf.math.cumprod(shapes, axis=2, exclusive=True, reverse=True)  # in C order
    centre = voxel[..., tf.newaxis] // strides % shapes
    start = tf.clip_by_value(centre - np.array(size) // 2, 0, shapes - size)
    return tf.where(place[..., tf.newaxis] == NOWHERE, NOWHERE, start)


def group_ranges(owners, ids, ends, count, groups):
    """Where the voxels of each group begin and end, if all voxels lie in one row, run after run.

    Args:
        owners: int64 `[n]`, the element of each run.
        ids: int64 `[n]`, its class. Runs come by element and by id, so that the voxels of a group
            are neighbours.
        ends: int64 `[n]`, where each run ends in that row.
        count: of elements.
        groups: as of `starts`.

    Returns:
        Two of int64 `[b, g]`: the first place, and the one after the last.

    Taught in: augmentation
    """
    element = tf.range(count, dtype=tf.int64)[:, tf.newaxis, tf.newaxis]
    wanted = tf.reshape(element * IDS + np.array(groups), [-1])
    edges = tf.searchsorted(owners * IDS + ids, wanted)
    places = tf.gather(tf.concat([[0], ends], 0), edges)
    return tf.unstack(tf.reshape(places, [count, len(groups), 2]), axis=2)


def drawn_places(low, high, weights, numbers):
    """Draw a group by its weight, and any of its voxels.

    Args:
        low, high: of `group_ranges`.
        weights: as of `starts`.
        numbers: random, int64 `[b, k, 2 or more]`.

    Returns:
        int64 `[b, k]`, places in the row of all voxels; or `NOWHERE`.

    Taught in: augmentation
    """
    weights = np.array(weights, np.float64)
    high = tf.where(weights > 0, high, low)  # without a weight, it is as good as empty
    chances = tf.cumsum(tf.where(high > low, weights, 0), axis=1)
    uniform = tf.cast(numbers[..., 0] % FINE, tf.float64) / FINE
    group = tf.searchsorted(chances, uniform * chances[:, -1:], side="right")
    group = tf.minimum(group, len(weights) - 1)
    low = tf.gather(low, group, batch_dims=1)
    size = tf.gather(high, group, batch_dims=1) - low
    # The remainder of 63 bits favours some voxels by less than one part in 10 ** 9.
    place = low + numbers[..., 1] % tf.maximum(size, 1)
    return tf.where(size > 0, place, NOWHERE)


def runs_of(image, mask, image_threshold: float | None = None) -> tf.Tensor:
    """The runs of an element, int32 `[n, 3]`: see `locate`.

    Args:
        image: `[z, y, x, c]` or `[y, x, c]`; looked at where there is a threshold only.
        mask: class ids of the same spatial shape, one channel.
        image_threshold: as of `locate`.

    Taught in: no lesson; `locate` and the crops use it
    """
    ids = tf.cast(tf.reshape(mask, [-1]), tf.int32)
    if image_threshold is not None:
        shown = tf.reduce_any(tf.cast(image, tf.float64) > image_threshold, axis=-1)
        ids = tf.where((ids == 0) & ~tf.reshape(shown, [-1]), -1, ids)
    after = tf.cast(tf.where(ids[1:] != ids[:-1])[:, 0], tf.int32) + 1
    first = tf.concat([[0], after], 0)
    length = tf.concat([after, [tf.size(ids)]], 0) - first
    found = tf.gather(ids, first)
    runs = tf.stack([found, first, length], axis=1)
    return tf.gather(runs, tf.argsort(found, stable=True))


def locate(*, image_threshold: float | None = None, num_parallel_calls: int = stage.AUTOTUNE):
    """Find where the voxels of each class are, for `pos_neg` and `class_balanced`.

    It stands before the cache, so that no mask is looked through twice.

    Args:
        image_threshold: background is where the mask is 0 and any channel of the image is above
            this value, in the image's own unit (-500 leaves out the air of a CT). None takes all
            voxels with mask 0.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage that adds the field `runs`, int32 `[n, 3]`: class id, first voxel in C order over
        the spatial axes, and length of each row of equal voxels, sorted by id. Voxels that are
        neither foreground nor background have the id -1. Crops use the field and drop it. Nothing
        that moves voxels may come between: another number of voxels is noticed, a flip is not.

    Raises:
        ValueError: for batches.
        CourseDataError: `NO_PAIR` for elements without a mask, `MASK_MISMATCH`.
        tf.errors.InvalidArgumentError: while running, `MASK_MISMATCH`; `TOO_LARGE` from 2^31
            voxels.

    The rule for background is that of MONAI's `map_binary_to_indices`. An ignored id such as 255 is
    foreground to it: map it first.

    Taught in: augmentation
    """

    def add(element: dict) -> dict:
        image, mask = element["image"], element["mask"]
        checks = stage.fitting(element)
        about = ["more voxels than a number of 32 bits can name:", tf.shape(mask)]
        small = tf.size(mask, tf.int64) < 2**31
        checks += stage.require(small, "TOO_LARGE", about, element.get("case"))
        with tf.control_dependencies(checks):
            mask = tf.identity(mask)
        return element | {"runs": runs_of(image, mask, image_threshold)}

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        spec = dataset.element_spec
        stage.checked(spec)
        need("mask" in spec, "NO_PAIR", f"elements have {', '.join(spec)}, and no mask")
        return stage.mapped(
            dataset, add, name="crops.locate", num_parallel_calls=num_parallel_calls
        )

    return apply
