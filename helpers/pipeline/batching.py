"""From a source to batches: elements in their order, crop, augment, batch, cast."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from helpers import crops, labels, records, stage
from helpers.errors import need
from helpers.pipeline.loading import Loaded, in_memory, opened
from helpers.pipeline.order import facts_of, lacking, numbers, of_now


def batches(
    source,
    *,
    target,
    batch_size,
    split=None,
    load=None,
    transforms=(),
    cache=True,
    crop=None,
    sampling=None,
    classes=None,
    label_format=None,
    augment=(),
    batch_transforms=(),
    shuffle=True,
    repeat=False,
    duplicate_count=1,
    num_parallel_calls=2,
    prefetch=1,
    dtype="float32",
    seed=0,
) -> tf.data.Dataset:
    """Batches of images and what is to be learnt of them, from files to what Keras takes.

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

    And of labels, each class as often as the others:

        dataset = pipeline.classification("records", split="train", batch_size=8,
                                          sampling="automatic", classes=[0, 1], repeat=True)

    is

        known = records.index("records", "train")
        chances = sampling.automatic(known["label"], classes=[0, 1])
        order = sampling.indices(chances, groups=known["label"], seed=0)
        dataset = records.read("records", "train", mapped=True, indices=order)
        dataset = dataset.batch(8, drop_remainder=True)
        dataset = dataset.map(lambda x: x | {"image": tf.cast(x["image"], "float32")}).prefetch(1)

    Args:
        source: a folder of records; a list of `lists.Item`, `cases.Case` or paths, with a loader;
            a `tf.data.Dataset` of elements; or elements themselves, whatever has a length and
            `[i]`: a `SmartCache`, a list. These are asked for each element when it is due.
        target: "mask" for `segmentation`, "label" for `classification`; elements must have it.
        batch_size: images in a batch; with `per_image=k` in the crop, k times as many crops. The
            last batch may be smaller, unless the pipeline repeats.
        split: of records and of cases; may be left out where there is only one.
        load: for lists, as of `loading.Loaded`: `load(item)` gives `image`, `mask` and what else
            there is. None reads `lists.Item` as NIfTI.
        transforms: stages without chance in them, before the cache.
        cache: keep the transformed elements in memory, in their stored dtype; they are read when
            this function is called. False reads them anew in each epoch.
        crop: a stage of `helpers.crops`. None for images of one shape, taken whole.
        sampling: None takes each element once in an epoch. "automatic" draws classes of `label`
            equally often, "element" each element by its `weight`, and so do numbers from 0, one
            for each: see `sampling.indices`, which draws them.
        classes: ids that labels may have, each of which needs an element; by default those that
            there are.
        label_format: one number for each label, its count of classes, 1 for a binary one: as for
            `labels.heads`, which makes a dict of the `label`.
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
        A dataset of dicts: `image` `[b, z, y, x, c]` or `[b, y, x, c]`; `mask` uint8 with one
        channel, `label` int32 `[b]` or `[b, labels]` or the dict of `labels.heads`, and every
        other field that the elements have.

    Raises:
        CourseDataError: before the first batch `EMPTY_LIST`; `UNREADABLE` for items whose files
            are not there; `NO_PAIR` for elements without the target; `TOO_LARGE` for a cache
            of records or cases, whose sizes are known beforehand;
            `UNKNOWN_LABEL`, `EMPTY_CLASS` and `BAD_WEIGHT` of what is sampled; with `cache`, all
            that loaders raise (`LOADING_FAILED`, or their own), and what records and crops refuse.
        ValueError: for arguments that do not go together.
        tf.errors.OpError: while running, for loaders' errors with `cache=False`.

    Clara Train's image pipelines; their arguments stand in docs/pipeline_names.md.

    Taught in: tuning the pipeline, imbalanced classification, segmentation with DeepLab
    """
    labelled = target == "label" or classes is not None
    how = {"how": sampling, "labelled": labelled, "classes": classes}
    how |= {"shuffle": shuffle, "repeat": repeat, "times": duplicate_count, "seed": seed}
    source, facts, read = opened(source, split, load, num_parallel_calls)
    if isinstance(source, str | Path) and not facts and not isinstance(sampling, str | None):
        raise ValueError("photographs are not read in the order of writing: store their weights")
    unread = isinstance(source, str | Path | tf.data.Dataset | Loaded)
    kept, elements, order = cache and unread, None, None
    # Records that are read together save a copy of each; but batches go across epochs' borders.
    alone = transforms or crop or augment or (sampling is None and (repeat or duplicate_count > 1))
    batch = batch_size if isinstance(source, str | Path) and not (kept or alone) else None
    if facts and not (kept and (transforms or lacking(facts, sampling, classes))):
        order = numbers(facts, **how)  # what is known is looked at before anything is read
    if kept:
        elements = in_memory(applied(read(), transforms), source, facts)
        order = order or numbers(facts_of(elements), **how)
    elif unread or transforms:
        dataset = applied(streamed(source, split, read, order, batch, **how), transforms)
    else:
        elements = source
        changing = isinstance(sampling, str) and not isinstance(source, list | tuple)
        order = of_now(source, **how) if changing else order
    per_image, later = getattr(crop, "per_image", None), [*augment, *batch_transforms]
    if elements is not None:
        dataset = crops.from_memory(
            elements,
            crop,
            indices=order,
            batch_size=None if augment else batch_size,
            dtype=None if later else dtype,  # else a pass over the voxels of its own
            num_parallel_calls=num_parallel_calls,
        )
    elif crop is not None:
        dataset = dataset.apply(crop)
    if augment or (elements is None and batch is None):
        dataset = dataset if per_image is None else dataset.unbatch()
        dataset = applied(dataset, augment)
        dataset = dataset.batch(batch_size * (per_image or 1), drop_remainder=repeat)
    dataset = applied(dataset, batch_transforms)
    need(int(dataset.cardinality()), "EMPTY_LIST", "the dataset has no elements")
    _expect(dataset.element_spec, target)
    if elements is None or later:
        dataset = cast_image(dataset, dtype, num_parallel_calls)
    if label_format is not None:
        if dataset.element_spec["label"].shape.rank == 1:
            dataset = dataset.map(lambda batch: batch | {"label": batch["label"][:, tf.newaxis]})
        dataset = dataset.apply(labels.heads(label_format))
    # Its numbers are given, so there is nothing to tune. With tuning, each new iterator, and so
    # each epoch of Keras, waits now and then for a second until the last one's thread has ended.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(prefetch).with_options(options)


segmentation = functools.partial(batches, target="mask")
classification = functools.partial(batches, target="label")
segmentation.__doc__ = classification.__doc__ = batches.__doc__


def streamed(source, split, read, order, batch, *, how, shuffle, repeat, times, seed, **others):
    """A source's elements, read anew in each epoch.

    Args:
        source, split: as for `batches`.
        read, order: a function that gives elements by their numbers, and these.
        batch: records that are read together; None for elements.
        how, shuffle, repeat, times, seed, others: as for `order.numbers`.

    Raises:
        ValueError: for the shuffling of a dataset.

    Taught in: no lesson; pipelines use it
    """
    if isinstance(source, tf.data.Dataset):
        if shuffle or how is not None:
            raise ValueError("a dataset is read from start to end: cache=True, or shuffle=False")
        dataset = source
    elif not isinstance(source, str | Path):
        return read(order)
    elif how is not None:
        return records.read(source, split, mapped=True, indices=order, batch=batch)
    else:
        dataset = records.read(source, split, seed=seed if shuffle else None, batch=batch)
    return dataset.repeat(None if repeat else times)


def applied(dataset: tf.data.Dataset, stages: Sequence) -> tf.data.Dataset:
    """The dataset after these stages, one after another.

    Args:
        dataset: of elements or batches.
        stages: functions from dataset to dataset.

    Taught in: no lesson; pipelines use it
    """
    return functools.reduce(tf.data.Dataset.apply, stages, dataset)


def _expect(fields: Mapping, *wanted: str) -> None:
    lacking = ", ".join(f"`{field}`" for field in wanted if field not in fields)
    need(not lacking, "NO_PAIR", f"elements have no {lacking}, but {', '.join(fields)}")


def cast_image(dataset: tf.data.Dataset, dtype: str, num_parallel_calls: int) -> tf.data.Dataset:
    """Batches with their image in another dtype; what that cannot hold is refused.

    Args:
        dataset: of batches.
        dtype: of the image in the result; a narrower float rounds.
        num_parallel_calls: batches worked on at a time.

    Raises:
        tf.errors.InvalidArgumentError: while running, `NOT_FINITE`, with the cases.

    Taught in: no lesson; pipelines end with it
    """
    stored, wanted = dataset.element_spec["image"].dtype, tf.as_dtype(dtype)
    narrower = stored != tf.bool and (stored.max > wanted.max or stored.min < wanted.min)

    def cast(batch):
        image, checks = batch["image"], []
        if narrower:
            low, high = tf.cast(wanted.min, stored), tf.cast(wanted.max, stored)
            fits = tf.reduce_all((image >= low) & (image <= high))
            about = [f"an image holds values beyond the range of {wanted.name}, in"]
            checks = stage.require(fits, "NOT_FINITE", about, batch.get("case"))
        with tf.control_dependencies(checks):
            return batch | {"image": tf.cast(image, wanted)}

    return stage.mapped(dataset, cast, name="pipeline.cast", num_parallel_calls=num_parallel_calls)


def pairs(target: str, *, weight: bool = False) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """From dicts to what Keras' `fit` takes: `(image, target)` or `(image, target, weight)`.

    Args:
        target: "mask" or "label".
        weight: with the field `weight`, as Keras' `sample_weight`: a case's own number, which
            counts for each of its voxels where the target is a mask.

    Returns:
        A stage for elements or batches; all other fields are dropped.

    Raises:
        CourseDataError: `NO_PAIR` for elements without one of the fields.

    Taught in: tuning the pipeline, imbalanced classification, segmentation with DeepLab
    """

    pair = functools.partial(for_keras, target=target, weight=weight)
    return functools.partial(
        stage.mapped, function=pair, name="pipeline.pairs", num_parallel_calls=None
    )


def for_keras(batch: dict, *, target: str, weight: bool) -> tuple:
    """Image, target and maybe weight of an element or a batch, of tensors or arrays.

    Args:
        batch: a dict.
        target, weight: as for `pairs`. Weights of masks get an axis for each axis in space, `[b, 1,
            1]`: Keras would take `[b]` for a weight of each column.

    Taught in: no lesson; `pairs` and `PythonBatches` use it
    """
    _expect(batch, "image", target, *["weight"] * weight)
    if not weight:
        return batch["image"], batch[target]
    weights = batch["weight"]
    axes = len(batch["mask"].shape) - 1 - len(weights.shape) if target == "mask" else 0
    return batch["image"], batch[target], weights[(..., *[None] * axes)]


def items(source, split=None, transforms=(), load=None) -> tuple[range, Callable[[int], dict]]:
    """Items and their loader, for a cache that holds a part of them at a time.

        cache = SmartCache(*pipeline.items("records", "train", [crops.locate()]), cache_num=50)
        dataset = pipeline.segmentation(cache, batch_size=4, crop=crops.pos_neg(size, seed=1))

    Args:
        source, split, load: as for `batches`, without datasets: they have no items.
        transforms: stages without chance in them, done before an element enters the cache.

    Returns:
        The numbers of the elements, and `load(number)`, which gives an element of arrays as
        `batches` would have it after `transforms`. Threads may call it.

    Raises:
        CourseDataError: as for `batches`.

    Taught in: tuning the pipeline
    """
    _, facts, read = opened(source, split, load, 1)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int64)])
    def element(number):
        order = tf.data.Dataset.from_tensors(number)
        return applied(read(order), transforms).get_single_element()

    return range(facts["records"]), lambda number: tf.nest.map_structure(
        np.asarray, element(number)
    )
