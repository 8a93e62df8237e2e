"""Where the voxels of each side, or of each class, are: found once, kept small, drawn from fast.

A list of voxel numbers, as MONAI keeps it, takes 8 bytes a voxel: 84 MB for a case of 160 x 256 x
256, more than the image. Neighbours in a row mostly belong together, so here each run of them is
one entry of 8 bytes: about 0.1 MB for the same case with an organ in it. The r-th voxel of a group
is found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from helpers import draws
from helpers.crops.elements import check, matching
from helpers.elements import require

SIDES = ("foreground", "background")
ELSEWHERE = 2  # neither side: in the air, below the threshold


def locate(
    *,
    by: str = "foreground",
    classes: Sequence[int] | None = None,
    image_threshold: float | None = None,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Find the places that `pos_neg` or `class_balanced` draw from; put it before the cache.

    Args:
        by: "foreground" finds voxels with mask > 0 and the background; "class" those of each class.
        classes: ids, for "class" only.
        image_threshold: for "foreground" only: background is where the mask is 0 and any channel
            of the image is above this value, in the image's own unit (-500 leaves out the air of
            a CT). None takes all voxels with mask 0.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage that adds the field `places`, a dict: `places[by]` has `starts` (int32 `[runs]`,
        voxel numbers in C order over the spatial axes), `before` (int32 `[runs]`, voxels in all
        runs before), `groups` (a dict of int32 `[2]`: first and end of each group in that count;
        equal for an empty one) and `shape` (int32, of the mask). The crops use it and drop it.
        Nothing that moves voxels may come between: a changed shape is noticed, a flip is not.

    Raises:
        ValueError: for arguments that do not go together, and for batches.
        CourseDataError: `NO_PAIR` for elements without a mask, `MASK_MISMATCH`.
        tf.errors.InvalidArgumentError: while running, `MASK_MISMATCH`; `TOO_LARGE` from 2^31
            voxels.

    The rule for the two sides is that of MONAI's `map_binary_to_indices`. An ignored id such as
    255 is foreground to it: map it first.
    """
    if by not in ("foreground", "class"):
        raise ValueError(f'by is "foreground" or "class", not {by!r}')
    misplaced = classes if by == "foreground" else image_threshold
    if misplaced is not None:
        raise ValueError('classes go with by="class", image_threshold with by="foreground"')
    ids = checked_classes(classes) if by == "class" else None
    threshold = checked_threshold(image_threshold)

    @tf.autograph.experimental.do_not_convert
    def add(element: dict) -> dict:
        found = find_sides(element, threshold) if ids is None else find_classes(element, ids)
        return element | {"places": element.get("places", {}) | {by: found}}

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        check(dataset.element_spec, None, mask=True)
        return draws.map_named(
            dataset, add, name="crops.locate", num_parallel_calls=num_parallel_calls
        )

    return apply


def checked_classes(classes: Sequence[int] | None) -> tuple[int, ...]:
    """Ids without repetition.

    Raises:
        ValueError: without ids, for the same one twice, and for negative ones.
    """
    ids = tuple(int(one) for one in classes or ())
    if not ids or len(set(ids)) < len(ids) or min(ids) < 0:
        raise ValueError(f"classes are different ids from 0, at least one, not {classes!r}")
    return ids


def checked_threshold(threshold: float | None) -> float | None:
    """A threshold, or None.

    Raises:
        ValueError: for NaN and infinities.
    """
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"image_threshold is a finite number or None, not {threshold}")
    return threshold


def find_sides(element: dict, threshold: float | None) -> dict:
    """The entry of `places` for the two sides."""
    image, mask, checks = matching(element)
    with tf.control_dependencies(checks):
        inside = mask if mask.dtype.is_bool else mask > 0
        sides = tf.cast(inside, tf.uint8)
        if threshold is not None:
            shown = tf.reduce_any(_above(image, threshold), axis=-1, keepdims=True)
            sides = tf.where(inside | shown, sides, tf.constant(ELSEWHERE, tf.uint8))
    return _entry(sides, dict(zip(SIDES, (1, 0), strict=True)), element.get("case"))


def find_classes(element: dict, classes: Sequence[int]) -> dict:
    """The entry of `places` for these ids."""
    _, mask, checks = matching(element)
    with tf.control_dependencies(checks):
        ids = tf.cast(mask, tf.uint8) if mask.dtype.is_bool else tf.identity(mask)
    return _entry(ids, {str(one): one for one in classes}, element.get("case"))


def _above(image, threshold: float):
    """`image > threshold` without a copy in another dtype, exact for whole numbers too."""
    if image.dtype.is_floating:
        return image > tf.constant(threshold, image.dtype)
    whole = math.floor(threshold)
    if not image.dtype.min <= whole < image.dtype.max:
        return tf.fill(tf.shape(image), whole < image.dtype.min)
    return image > tf.constant(whole, image.dtype)


def _entry(values, wanted: dict[str, int], case) -> dict:
    shape = tf.shape(values)[:-1]
    values = tf.reshape(values, [-1])
    count = tf.size(values, tf.int64)
    about = ["more voxels than numbers of 32 bits can name; crop or resample the case first"]
    with tf.control_dependencies(require(count < 2**31, "TOO_LARGE", about, case)):
        changes = tf.where(values[1:] != values[:-1])[:, 0] + 1
    ends = tf.concat([tf.zeros([tf.minimum(count, 1)], tf.int64), changes, [count]], 0)
    starts, lengths = ends[:-1], ends[1:] - ends[:-1]
    found = tf.cast(tf.gather(values, starts), tf.int64)  # one value a run: few
    runs = [tf.where(found == value)[:, 0] for value in wanted.values()]
    totals = [tf.reduce_sum(tf.gather(lengths, some)) for some in runs]
    limits = tf.cast(tf.cumsum(tf.stack([tf.constant(0, tf.int64), *totals])), tf.int32)
    order = tf.concat(runs, 0)
    return {
        "starts": tf.cast(tf.gather(starts, order), tf.int32),
        "before": tf.cast(tf.cumsum(tf.gather(lengths, order), exclusive=True), tf.int32),
        "groups": {name: limits[i : i + 2] for i, name in enumerate(wanted)},
        "shape": shape,
    }
