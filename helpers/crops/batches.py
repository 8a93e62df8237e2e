"""From elements with several crops each to batches of crops."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from helpers import draws


def merge_batch_dims(
    *, num_parallel_calls: int = tf.data.AUTOTUNE
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Make one batch axis of two: `[b, k, ...]` becomes `[b * k, ...]` on every field.

        dataset.apply(crops.pos_neg(size, per_image=2, seed=1)).batch(3)   # [3, 2, ...]
        dataset.apply(crops.merge_batch_dims())                            # [6, ...]

    Nothing is copied, but crops of one image stay together in a batch. Where that matters,
    `dataset.unbatch().shuffle(64, seed=1).batch(6)` after the crops, and in place of both lines,
    mixes better and costs one copy more.

    Args:
        num_parallel_calls: batches worked on at a time.

    Returns:
        A stage for elements of any structure.

    Raises:
        ValueError: for a field with fewer than two axes, or whose first two are not the others'.

    Clara's `MergeBatchDims`.
    """

    @tf.autograph.experimental.do_not_convert
    def merge(*elements):
        merged = tf.nest.map_structure(_merged, elements)
        return merged if len(merged) > 1 else merged[0]

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        leading = tf.TensorShape(None)
        for spec in tf.nest.flatten(dataset.element_spec):
            shape = spec.shape
            if shape.rank is None or shape.rank < 2 or not shape[:2].is_compatible_with(leading):
                raise ValueError(
                    f"every field needs the same two batch axes, not shape {shape}: use per_image "
                    "in the crop, then .batch()"
                )
            leading = leading.merge_with(shape[:2])
        return draws.map_named(
            dataset, merge, name="crops.merge_batch_dims", num_parallel_calls=num_parallel_calls
        )

    return apply


def _merged(value):
    batch, crops, *inner = value.shape
    count = None if batch is None or crops is None else batch * crops
    shape = tf.shape(value)
    merged = tf.reshape(value, tf.concat([[shape[0] * shape[1]], shape[2:]], 0))
    return tf.ensure_shape(merged, [count, *inner])
