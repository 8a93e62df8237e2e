"""Crops of elements that lie in memory: drawn, cut, cast and batched in one pass."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import tensorflow as tf

from helpers import draws, memory
from helpers.crops.copying import Copier
from helpers.crops.fixed import CentreCrop
from helpers.crops.stages import RandomCrop
from helpers.errors import CourseDataError


def from_memory(
    elements: Sequence[dict],
    stage: RandomCrop | CentreCrop | None = None,
    *,
    indices: tf.data.Dataset | None = None,
    batch_size: int | None = None,
    dtype: str | tf.DType | None = None,
    num_parallel_calls: int = 2,
) -> tf.data.Dataset:
    """Batches of crops of elements in memory, each voxel copied once.

        elements = memory.gather(dataset.apply(crops.locate()))       # int16, as stored
        order = tf.data.Dataset.range(len(elements)).shuffle(len(elements), seed=1).repeat()
        stage = crops.pos_neg((96, 96, 96), per_image=4, seed=2)
        batches = crops.from_memory(elements, stage, indices=order, batch_size=2, dtype="float32")

    The stream is, bit for bit, that of the same stages one by one:

        dataset.apply(stage).batch(batch_size).apply(crops.merge_batch_dims()), image cast last

    There each of them writes all voxels to fresh memory. Here a crop goes from its image straight
    to its place in the batch, cast on the way, and the batch's memory is used again.

    Args:
        elements: dicts of arrays, `image` `[z, y, x, c]` or `[y, x, c]` and so on, whose shapes
            may differ: a list of `memory.gather`, or anything with a length and `elements[i]`.
            It is asked for an element when that is due, so a `SmartCache` gives what it holds then.
        stage: of `crops.random`, `pos_neg`, `class_balanced` or `centre`. Its own
            `num_parallel_calls` has no part in this. Where it draws by the mask and elements have
            no `places` of `locate`, they are found here, once for each element.
        indices: whole numbers, the position in `elements` of each to come: shuffled, repeated, or
            of `sampling.indices`. By default each element once, in order.
        batch_size: elements in a batch. With `per_image` their crops share its first axis, which is
            `batch_size * per_image` long; the last batch of a finite `indices` may be shorter. None
            gives elements one by one, as the stage does.
        dtype: of the image in the result, "float32" for instance; None leaves it as it is stored. A
            narrower float rounds, as with `tf.cast`; what it cannot hold is refused.
        num_parallel_calls: batches worked on at a time, each of which takes memory of its own.

    Returns:
        A dataset of dicts. The shape is known in full if `indices` is infinite.

    Raises:
        ValueError: for bad arguments, elements without common fields, and a dtype of whole
            numbers that cannot hold what is stored.
        CourseDataError: `EMPTY_LIST`; and what the stage refuses, of any element that is there now:
            `CROP_TOO_LARGE`, `MASK_MISMATCH`, `NO_PAIR`, `SHAPE_MISMATCH`.
        tf.errors.InvalidArgumentError: while running, the same codes for an element that came
            later; `NO_PLACE`; `NOT_FINITE` for values beyond the range of `dtype`; an index that is
            not there. It names the case.
    """
    if stage is None:
        shapes = {elements[number]["image"].shape[:-1] for number in range(len(elements))}
        if len(shapes) > 1:
            raise ValueError("images of several shapes cannot share a batch: give a crop")
        stage = CentreCrop(*shapes, 0, 0, num_parallel_calls) if shapes else None
    if elements and not isinstance(stage, RandomCrop | CentreCrop):
        raise ValueError(
            "stage is what crops.random, pos_neg, class_balanced or centre returns, not "
            f"{stage!r}; other stages are applied to the result"
        )
    if batch_size is not None and operator.index(batch_size) < 1:
        raise ValueError(f"batch_size is 1 or more, or None, not {batch_size}")
    if not len(elements):
        raise CourseDataError("EMPTY_LIST", "there are no elements to cut; fill the list first")
    with tf.init_scope():  # places are found now, even where a graph is being made
        copier = Copier(elements, stage, None if dtype is None else tf.as_dtype(dtype))
    if indices is None:
        indices = tf.data.Dataset.range(len(elements))
    draws.check_indices(indices)
    order = _numbered(indices, stage)
    if batch_size is not None:
        endless = tf.get_static_value(indices.cardinality()) == tf.data.INFINITE_CARDINALITY
        order = order.batch(batch_size, drop_remainder=endless)
    specs = copier.specs(batched=batch_size is not None)
    dtypes = [spec.dtype for spec in specs]
    # Made within a graph, for instance in `interleave`, nothing but that graph keeps the dataset.
    copy = memory.weakly(copier) if tf.executing_eagerly() else copier

    def load(chosen, numbers):
        found = tf.numpy_function(copy, [chosen, numbers], dtypes, stateful=False)
        count = None if chosen.shape.rank == 0 else chosen.shape[0]
        many = None if count is None else count * (stage.per_image or 1)
        shapes = [[many, *spec.shape[1:]] if batch_size else spec.shape for spec in specs]
        return copier.packed(map(tf.ensure_shape, found, shapes))

    return draws.map_named(
        order, load, name="crops.from_memory", num_parallel_calls=num_parallel_calls
    )


def _numbered(indices: tf.data.Dataset, stage: RandomCrop | CentreCrop) -> tf.data.Dataset:
    """Each index with the random numbers that the stage would draw for that element."""
    if isinstance(stage, CentreCrop):
        return draws.map_named(
            indices,
            lambda index: (index, tf.zeros([1, len(stage.size)], tf.int64)),
            name=stage.name,
            num_parallel_calls=None,
        )
    return draws.map_with_seeds(
        indices,
        lambda index, seed: (index, stage.numbers(seed)),
        seed=stage.seed,
        name=stage.name,
        num_parallel_calls=None,  # a few microseconds: threads would cost more
    )
