"""Two ready-made pipelines, composed of the stages that the course's other modules offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from helpers import arguments, draws, labels, quiet
from helpers.pipeline.batching import batched, check_stages, expect, finished
from helpers.pipeline.order import Order
from helpers.pipeline.reading import ordered
from helpers.pipeline.sources import Stage

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402


def segmentation(
    source,
    *,
    batch_size: int,
    split: str | None = None,
    load: Callable[..., dict] | None = None,
    transforms: Sequence[Stage] = (),
    cache: bool = True,
    crop: Stage | None = None,
    sampling: str | Sequence[float] | None = None,
    augment: Sequence[Stage] = (),
    batch_transforms: Sequence[Stage] = (),
    shuffle: bool = True,
    repeat: bool = False,
    duplicate_count: int = 1,
    num_parallel_calls: int = 2,
    prefetch: int = 1,
    dtype: str = "float32",
    seed: int = 0,
) -> tf.data.Dataset:
    """Batches of images and masks, from files to what Keras takes.

        dataset = pipeline.segmentation(
            "records", split="train", batch_size=3, transforms=[crops.locate()],
            crop=crops.pos_neg((96, 96, 96), per_image=2, seed=1),
        )
        model.fit(dataset.apply(pipeline.pairs("mask")))

    is the same stream, bit for bit, as these stages, in fewer passes over memory:

        dataset = records.read("records", "train", mapped=True)
        dataset = dataset.apply(crops.locate()).cache().shuffle(number_of_records, seed=0)
        dataset = dataset.apply(crops.pos_neg((96, 96, 96), per_image=2, seed=1))
        dataset = dataset.batch(3).apply(crops.merge_batch_dims())
        dataset = dataset.map(lambda x: x | {"image": tf.cast(x["image"], "float32")}).prefetch(1)

    Args:
        source: a folder of records; a list of `lists.Item`, `cases.Case` or paths, with a
            loader; a `SmartCache`; or a `tf.data.Dataset` of elements.
        batch_size: images in a batch; with `per_image=k` in the crop, k times as many crops. The
            last batch may be smaller, unless the pipeline repeats.
        split: of records and of cases; may be left out where there is only one.
        load: for lists, as of `pipeline.listing.Listing`: `load(item)` gives `image`, `mask` and
            what else there is. None reads `lists.Item` as NIfTI.
        transforms: stages without chance in them, before the cache.
        cache: keep the transformed elements in memory, in their stored dtype; they are read when
            this function is called. False reads them anew in each epoch.
        crop: a stage of `helpers.crops`. None for images of one shape, taken whole.
        sampling: None takes each element once in an epoch. "automatic" draws classes of `label`
            equally often, "element" each element by its `weight`, and so do numbers from 0, one
            for each: see `sampling.indices`, which draws them.
        augment: stages on single crops, after the cache.
        batch_transforms: stages on batches.
        shuffle: a new order in each epoch: complete, but for records with `cache=False`, which
            are shuffled as `records.read` says. With `sampling` the order is always drawn.
        repeat: without end; batches then go across the borders of epochs.
        duplicate_count: times that an epoch takes each element, or multiplies its draws.
        num_parallel_calls: items loaded, or batches cut, at a time. Stages have their own.
        prefetch: batches made in advance; 0 for none.
        dtype: of the image; the cast comes last.
        seed: of the order. Crops and augmentation have seeds of their own.

    Returns:
        A dataset of dicts: `image` `[b, z, y, x, c]` or `[b, y, x, c]`, `mask` uint8 with one
        channel, and every other field that the elements have.

    Raises:
        CourseDataError: before the first batch `EMPTY_LIST`; `UNREADABLE` for items whose files
            are not there; `NO_PAIR` for elements without a mask; `TOO_LARGE` for a cache
            of records or cases, whose sizes are known beforehand;
            `UNKNOWN_LABEL`, `EMPTY_CLASS` and `BAD_WEIGHT` of what is sampled; with `cache`, all
            that loaders raise (`LOADING_FAILED`, or their own), and what records and crops refuse.
        ValueError: for arguments that do not go together.
        tf.errors.OpError: while running, for loaders' errors with `cache=False`.

    Clara Train's `SegmentationImagePipeline`; its arguments stand in docs/pipeline_names.md.
    """
    order = Order(sampling, shuffle, repeat, duplicate_count, seed)
    return _composed(
        source,
        order,
        "mask",
        batch_size=batch_size,
        split=split,
        load=load,
        transforms=transforms,
        cache=cache,
        crop=crop,
        augment=augment,
        batch_transforms=batch_transforms,
        num_parallel_calls=num_parallel_calls,
        prefetch=prefetch,
        dtype=dtype,
    )


def classification(
    source,
    *,
    batch_size: int,
    split: str | None = None,
    load: Callable[..., dict] | None = None,
    transforms: Sequence[Stage] = (),
    cache: bool = True,
    crop: Stage | None = None,
    sampling: str | Sequence[float] | None = None,
    augment: Sequence[Stage] = (),
    batch_transforms: Sequence[Stage] = (),
    shuffle: bool = True,
    repeat: bool = False,
    duplicate_count: int = 1,
    num_parallel_calls: int = 2,
    prefetch: int = 1,
    dtype: str = "float32",
    seed: int = 0,
    label_format: Sequence[int] | None = None,
    classes: Iterable | None = None,
) -> tf.data.Dataset:
    """Batches of images and labels, from files to what Keras takes.

        dataset = pipeline.classification("records", split="train", batch_size=8,
                                          sampling="automatic", classes=[0, 1], repeat=True)
        model.fit(dataset.apply(pipeline.pairs("label")), steps_per_epoch=100)

    is the same stream, bit for bit, as

        known = records.index("records", "train")
        chances = sampling.automatic(known["label"], classes=[0, 1])
        order = sampling.indices(chances, groups=known["label"], seed=0)
        dataset = records.read("records", "train", mapped=True, indices=order)
        dataset = dataset.batch(8, drop_remainder=True)
        dataset = dataset.map(lambda x: x | {"image": tf.cast(x["image"], "float32")}).prefetch(1)

    Args:
        source, batch_size, split, load, transforms, cache, crop, sampling, augment: as for
            `segmentation`.
        batch_transforms, shuffle, repeat, duplicate_count: as for `segmentation`.
        num_parallel_calls, prefetch, dtype, seed: as for `segmentation`.
        label_format: one number for each label, its count of classes, 1 for a binary one: as for
            `labels.heads`, which makes a dict of the `label`.
        classes: ids that labels may have, each of which needs an element; by default those that
            there are.

    Returns:
        A dataset of dicts: `image` as of `segmentation`, `label` int32 `[b]` or `[b, labels]`, or
        the dict of `labels.heads`, and every other field that the elements have.

    Raises:
        CourseDataError: as for `segmentation`; `UNKNOWN_LABEL` for an element without a label, or
            with one that is not in `classes` or not in its `label_format`; `EMPTY_CLASS` for one
            of `classes` without an element; `NO_PAIR` where no element has a label.
        ValueError, tf.errors.OpError: as for `segmentation`.

    Clara Train's `ClassificationImagePipeline`; its arguments stand in docs/pipeline_names.md.
    """
    order = Order(
        sampling,
        shuffle,
        repeat,
        duplicate_count,
        seed,
        labelled=True,
        label_format=label_format,
        classes=None if classes is None else tuple(classes),
    )
    return _composed(
        source,
        order,
        "label",
        batch_size=batch_size,
        split=split,
        load=load,
        transforms=transforms,
        cache=cache,
        crop=crop,
        augment=augment,
        batch_transforms=batch_transforms,
        num_parallel_calls=num_parallel_calls,
        prefetch=prefetch,
        dtype=dtype,
        last=() if label_format is None else (_heads(label_format),),
    )


def _composed(
    source,
    order: Order,
    target: str,
    *,
    batch_size: int,
    prefetch: int,
    crop: Stage | None,
    augment: Sequence[Stage],
    batch_transforms: Sequence[Stage],
    transforms: Sequence[Stage],
    num_parallel_calls: int,
    dtype: str,
    last: Sequence[Stage] = (),
    **reading,
) -> tf.data.Dataset:
    """What both have in common: elements in their order, then batches, then `last` on these."""
    arguments.whole("batch_size", batch_size)
    arguments.whole("prefetch", prefetch, least=0)
    check_stages(transforms=transforms, augment=augment, batch_transforms=batch_transforms)
    found = ordered(
        source,
        order,
        transforms=transforms,
        num_parallel_calls=num_parallel_calls,
        batch_size=None if crop is not None or augment else batch_size,
        **reading,
    )
    dataset = batched(
        found,
        batch_size=batch_size,
        crop=crop,
        augment=augment,
        batch_transforms=batch_transforms,
        repeat=order.repeat,
        num_parallel_calls=num_parallel_calls,
        dtype=dtype,
    )
    return finished(dataset, target, prefetch, last)


def pairs(target: str, *, weight: bool = False) -> Stage:
    """From dicts to what Keras' `fit` takes: `(image, target)` or `(image, target, weight)`.

    Args:
        target: "mask" or "label".
        weight: with the field `weight`, as Keras' `sample_weight`.

    Returns:
        A stage for elements or batches; all other fields are dropped.

    Raises:
        ValueError: for another target.
        CourseDataError: `NO_PAIR` for elements without one of the fields.
    """
    if target not in ("mask", "label"):
        raise ValueError(f'target is "mask" or "label", not {target!r}')
    fields = ("image", target, *(["weight"] if weight else []))

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        for field in fields:
            expect(dataset, field)
        return draws.map_named(
            dataset,
            lambda element: tuple(element[field] for field in fields),
            name="pipeline.pairs",
            num_parallel_calls=None,
        )

    return apply


def _heads(label_format: Sequence[int]) -> Stage:
    """`labels.heads` for batches, of single labels as well."""

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        if dataset.element_spec["label"].shape.rank == 1:
            dataset = draws.map_named(
                dataset,
                lambda batch: batch | {"label": batch["label"][:, tf.newaxis]},
                name="pipeline.label_axis",
                num_parallel_calls=None,
            )
        return dataset.apply(labels.heads(label_format))

    return apply
