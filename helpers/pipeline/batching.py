"""From a source to batches: elements in their order, crop, augment, batch, cast."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from helpers import crops, labels, memory, records, stage
from helpers.errors import need
from helpers.pipeline.loading import Loaded, Stored
from helpers.pipeline.order import drawn_anew, is_told, numbers

UNREAD = tf.data.Dataset | Stored | Loaded  # sources whose elements are not in memory


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
            there is. None reads `lists.Item` as NIfTI. The first element is loaded once, and kept.
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
    how = {"how": sampling, "labelled": target == "label", "classes": classes}
    how |= {"shuffle": shuffle, "repeat": repeat, "times": duplicate_count, "seed": seed}
    source = opened(source, split, load)
    if isinstance(source, Stored) and not (source.mapped or isinstance(sampling, str | None)):
        raise ValueError("photographs are not read in the order of writing: store their weights")
    has_numbers = not isinstance(source, tf.data.Dataset)
    kept = cache and isinstance(source, UNREAD)

    # Labels and weights are looked at before anything is read, as far as they are known.
    order = None
    if has_numbers and not (kept and (transforms or not is_told(source, sampling, classes))):
        order = numbers(source, **how)
    if kept:
        source, transforms = in_memory(source, transforms, num_parallel_calls), ()
        order = order or numbers(source, **how)
    elif isinstance(sampling, str) and not isinstance(source, UNREAD | list | tuple):
        order = drawn_anew(source, **how)

    one_by_one = augment or transforms or isinstance(source, UNREAD)
    later = [*augment, *batch_transforms]
    if transforms or isinstance(source, tf.data.Dataset | Stored):
        dataset = streamed(source, order, num_parallel_calls, **how)
        dataset = applied(dataset, transforms if crop is None else [*transforms, crop])
    else:
        dataset = crops.from_memory(
            source,
            crop,
            indices=order,
            batch_size=None if one_by_one else batch_size,
            dtype=None if later else dtype,  # else a pass over the voxels of its own
            num_parallel_calls=num_parallel_calls,
        )
    if one_by_one:
        per_image = getattr(crop, "per_image", None)
        dataset = dataset if per_image is None else dataset.unbatch()
        dataset = applied(dataset, augment)
        dataset = dataset.batch(batch_size * (per_image or 1), drop_remainder=repeat)
    dataset = applied(dataset, batch_transforms)
    need(int(dataset.cardinality()), "EMPTY_LIST", "the dataset has no elements")
    _expect(dataset.element_spec, target)
    if dataset.element_spec["image"].dtype != dtype:
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


def opened(source, split: str | None, load: Callable | None):
    """A source as a dataset, or as what tells how many elements it has, and maybe their `facts`.

    Args:
        source, split, load: as for `batches`.

    Taught in: no lesson; pipelines use it
    """
    if isinstance(source, tf.data.Dataset):
        return source
    if isinstance(source, str | Path):
        return Stored(source, split)
    are_elements = load is None and len(source) and isinstance(source[0], Mapping)
    return source if are_elements else Loaded(source, load, split)


def read(source, order: tf.data.Dataset | None, num_parallel_calls: int) -> tf.data.Dataset:
    """A dataset of a source's elements.

    Args:
        source: a dataset, `Stored` or `Loaded`, or elements.
        order: of int64 scalars, the numbers of the elements; None takes each once, in order.
        num_parallel_calls: items loaded at a time.

    Taught in: no lesson; pipelines use it
    """
    if isinstance(source, tf.data.Dataset):
        return source
    if isinstance(source, Stored):
        return source.read(mapped=source.mapped, indices=order)
    return crops.from_memory(source, indices=order, num_parallel_calls=num_parallel_calls)


def in_memory(source, transforms: Sequence, num_parallel_calls: int) -> list[dict]:
    """All elements of a source after these transforms, read once.

    Args:
        source, num_parallel_calls: as for `read`.
        transforms: stages.

    Raises:
        CourseDataError: `TOO_LARGE`, before anything is read; what a loader raised.

    Taught in: no lesson; pipelines use it
    """
    needed, free = getattr(source, "bytes", 0), psutil.virtual_memory().available
    sizes = f"{needed / 2**30:.1f} GiB in a cache, {free / 2**30:.1f} GiB are free"
    need(needed <= free, "TOO_LARGE", f"{sizes}; say cache=False, or take a SmartCache")
    try:
        return memory.gather(applied(read(source, None, num_parallel_calls), transforms))
    except tf.errors.OpError as error:
        raise getattr(source, "error", None) or error from None


def streamed(source, order, num_parallel_calls, *, how, shuffle, repeat, times, seed, **others):
    """A source's elements, read anew in each epoch.

    Args:
        source, order, num_parallel_calls: as for `read`.
        how, shuffle, repeat, times, seed, others: as for `order.numbers`.

    Raises:
        ValueError: for a dataset that should be shuffled or drawn from.

    Taught in: no lesson; pipelines use it
    """
    if isinstance(source, tf.data.Dataset) and (shuffle or how is not None):
        raise ValueError("a dataset is read from start to end: cache=True, or shuffle=False")
    if isinstance(source, Stored) and how is None:
        source = source.read(seed=seed if shuffle else None)
    dataset = read(source, order, num_parallel_calls)
    in_own_order = isinstance(source, tf.data.Dataset)
    return dataset.repeat(None if repeat else times) if in_own_order else dataset


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
            counts for each of its voxels where the target is a mask: `[b, 1, 1]`, because Keras
            would take `[b]` for a weight of each column.

    Returns:
        A stage for elements or batches; all other fields are dropped.

    Raises:
        CourseDataError: `NO_PAIR` for elements without one of the fields.

    Taught in: tuning the pipeline, imbalanced classification, segmentation with DeepLab
    """
    fields = ["image", target, *["weight"] * weight]

    def pair(batch):
        _expect(batch, *fields)
        image, wanted, *weights = (batch[field] for field in fields)
        if weights and target == "mask":
            axes = [None] * (len(wanted.shape) - 1 - len(batch["weight"].shape))
            weights = [batch["weight"][(..., *axes)]]
        return image, wanted, *weights

    return lambda dataset: stage.mapped(
        dataset, pair, name="pipeline.pairs", num_parallel_calls=None
    )


def items(folder: str | Path, split: str | None = None) -> tuple[range, Callable[[int], dict]]:
    """The records of a folder and their loader, for a cache that holds a part of them at a time.

        cache = SmartCache(*pipeline.items("records", "train"), cache_num=50)
        dataset = pipeline.segmentation(cache, batch_size=4, crop=crops.pos_neg(size, seed=1))

    Args:
        folder, split: as for `records.read`.

    Returns:
        The numbers of the records, and `load(number)`, which gives an element of arrays. Threads
        may call it.

    Raises:
        CourseDataError: as of `records.read`.

    Taught in: tuning the pipeline
    """

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int64)])
    def element(number):
        order = tf.data.Dataset.from_tensors(number)
        return records.read(folder, split, mapped=True, indices=order).get_single_element()

    count = records.load_manifest(folder).split(split)["records"]
    return range(count), lambda number: tf.nest.map_structure(np.asarray, element(number))
