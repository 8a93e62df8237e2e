"""From elements in their order to batches: crop, augment, batch, cast."""

from __future__ import annotations

from collections.abc import Sequence

from helpers import crops, draws, memory, quiet
from helpers.errors import CourseDataError
from helpers.pipeline.reading import Kept, Streamed
from helpers.pipeline.sources import Stage, applied

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402


def batched(
    found: Kept | Streamed,
    *,
    batch_size: int,
    crop: Stage | None,
    augment: Sequence[Stage],
    batch_transforms: Sequence[Stage],
    repeat: bool,
    num_parallel_calls: int,
    dtype: str,
) -> tf.data.Dataset:
    """Batches, with the image cast last.

    Args, raises: as of `pipeline.segmentation`.
    """
    per_image = getattr(crop, "per_image", None)
    if isinstance(found, Kept):
        later = [*augment, *batch_transforms]
        dataset = crops.from_memory(
            found.elements,
            _whole(found.elements) if crop is None else crop,
            indices=found.numbers,
            batch_size=None if augment else batch_size,
            dtype=None if later else dtype,  # else a pass over the voxels of its own
            num_parallel_calls=num_parallel_calls,
        )
        if not later:
            return dataset
    else:
        dataset = found.dataset if crop is None else found.dataset.apply(crop)
    if augment:
        dataset = applied(dataset if per_image is None else dataset.unbatch(), augment)
        dataset = dataset.batch(batch_size * (per_image or 1), drop_remainder=repeat)
    elif isinstance(found, Streamed) and not found.batched:
        dataset = dataset.batch(batch_size, drop_remainder=repeat)
        if per_image is not None:
            dataset = dataset.apply(crops.merge_batch_dims())
    dataset = applied(dataset, batch_transforms)
    return draws.map_named(
        dataset,
        lambda batch: batch | {"image": _cast(batch["image"], dtype)},
        name="pipeline.cast",
        num_parallel_calls=num_parallel_calls,
    )


def finished(
    dataset: tf.data.Dataset, field: str, prefetch: int, last: Sequence[Stage] = ()
) -> tf.data.Dataset:
    """The dataset after its last stages, if it has the field that it is for."""
    expect(dataset, field)
    dataset = applied(dataset, last)
    dataset = dataset.prefetch(prefetch) if prefetch else dataset
    # Its numbers are given, so there is nothing to tune. With tuning, each new iterator, and so
    # each epoch of Keras, waits now and then for a second until the last one's thread has ended.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def expect(dataset: tf.data.Dataset, field: str) -> None:
    """Refuse elements without a field.

    Raises:
        CourseDataError: `NO_PAIR`.
    """
    if field not in dataset.element_spec:
        raise CourseDataError(
            "NO_PAIR",
            f"these elements have no `{field}`, but {', '.join(dataset.element_spec)}; look at "
            "what the loader gives, or at what was written to the records",
        )


def check_stages(**lists: Sequence[Stage]) -> None:
    """Refuse a stage where a list of them is expected.

    Raises:
        ValueError: with the name.
    """
    for name, stages in lists.items():
        if callable(stages):
            raise ValueError(f"{name} is a list of stages: {name}=[stage]")


def _cast(image: tf.Tensor, dtype: str) -> tf.Tensor:
    found = tf.cast(image, dtype)
    if memory.overflows(image.dtype, found.dtype):
        problem = f"an image holds values beyond the range of {found.dtype.name}"
        found = tf.debugging.check_numerics(found, f"[NOT_FINITE] {problem}")
    return found


def _whole(elements: Sequence[dict]) -> Stage:
    """The crop that takes images as they are."""
    shapes = {elements[number]["image"].shape[:-1] for number in range(len(elements))}
    spec = getattr(elements, "element_spec", None)  # of a SmartCache: of elements to come as well
    if len(shapes) > 1 or (spec is not None and None in spec["image"].shape[:-1]):
        raise ValueError(
            "images of several shapes cannot share a batch: give a crop, crops.centre(size) for "
            "instance, which pads as well"
        )
    return crops.centre(*shapes)
