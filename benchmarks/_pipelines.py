"""How each contender of the reading benchmark gets its batches: functions for `_reading.py`.

Each takes the workload and a folder of records, and gives a function that returns the next batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from _workload import Workload, cropped, voxels_of

from helpers import records

NextBatch = Callable[[], object]  # float32 `[batch, z, y, x, 1]`


def batches_of(dataset, image=lambda element: element[0]) -> NextBatch:
    """The next batch of images of a dataset."""
    iterator = iter(dataset)
    return lambda: image(next(iterator))


# The published pipelines, and one change to them.


def start_float_list(work: Workload, folder: Path, as_in_2018: bool) -> NextBatch:
    import _published

    return batches_of(_published.float_list(work, as_in_2018=as_in_2018))


def start_session(work: Workload, folder: Path) -> NextBatch:
    import _published

    return _published.float_list_in_session(work)


def start_generator(work: Workload, folder: Path) -> NextBatch:
    import _published

    return batches_of(_published.generator(work), lambda element: element["features"]["x"])


def start_float_bytes(work: Workload, folder: Path) -> NextBatch:
    """The published TFRecord pipeline with bytes in place of float lists, nothing else."""
    import tensorflow as tf

    spec = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def decode(serialized):
        features = tf.io.parse_single_example(serialized, spec)
        voxels = tf.io.decode_raw(features["image"], tf.float32)
        return tf.reshape(voxels, [*work.crop, 1]), features["label"]

    dataset = tf.data.TFRecordDataset(str(work.float_bytes)).map(decode)
    return batches_of(dataset.repeat().batch(work.batch).prefetch(1))


# Records as the course writes and reads them.


def whitener(work: Workload, xla: bool = True) -> Callable:
    """A function of int16 images and their cases: cast and whiten, in one pass with XLA."""
    import tensorflow as tf

    cases = tf.constant([one.case for one in work.subjects])
    numbers = tf.range(len(work.subjects))
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(cases, numbers), default_value=-1
    )
    constants = tf.constant([(one.mean, one.std) for one in work.subjects], tf.float32)

    @tf.function(jit_compile=xla)
    def whiten(image, mean, std):
        return (tf.cast(image, tf.float32) - mean) / std

    def finish(image, case):
        ones = [1] * (len(work.crop) + 1)  # the axes of an image and its channel
        mean, std = tf.unstack(tf.gather(constants, table.lookup(case)), axis=-1)
        leading = [-1] if case.shape.rank else []
        return whiten(image, tf.reshape(mean, leading + ones), tf.reshape(std, leading + ones))

    return finish


def start_records(
    work: Workload,
    folder: Path,
    *,
    batch_first: bool = True,
    parallel: int | None = 1,
    prefetch: int = 1,
    xla: bool = True,
    options: dict | None = None,
) -> NextBatch:
    """`records.read`, then the cast to float32 as the last step."""
    import tensorflow as tf

    finish = whitener(work, xla)
    if batch_first:
        dataset = records.read(folder, batch=work.batch).repeat()
    else:
        dataset = records.read(folder).repeat().batch(work.batch)
    dataset = dataset.map(
        lambda element: (finish(element["image"], element["case"]), element["label"]),
        num_parallel_calls=parallel,
    )
    chosen = tf.data.Options()
    for name, value in (options or {}).items():
        group, _, field = name.rpartition("__")
        setattr(getattr(chosen, group) if group else chosen, field, value)
    return batches_of(dataset.prefetch(prefetch).with_options(chosen))


def start_records_in_step(work: Workload, folder: Path) -> NextBatch:
    """The cast belongs to the training step; the pipeline hands out int16."""
    finish = whitener(work)
    dataset = records.read(folder, batch=work.batch).repeat().prefetch(1)
    return batches_of(dataset, lambda element: finish(element["image"], element["case"]))


def start_records_repeated(work: Workload, folder: Path, *, parallel=1, prefetch=1) -> NextBatch:
    """The steps of `records.read` by hand, repeated before the batch: no gap between epochs."""
    import tensorflow as tf

    finish = whitener(work)
    text, whole = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)

    def parse(serialized):
        found = tf.io.parse_example(serialized, {"image": text, "case": text, "label": whole})
        voxels = tf.io.decode_raw(found["image"], tf.int16)
        return found | {"image": tf.reshape(voxels, [-1, *work.crop, 1])}

    files = sorted(map(str, folder.glob("*.tfrecord")))
    dataset = tf.data.Dataset.from_tensor_slices(files).interleave(
        lambda file: tf.data.TFRecordDataset(file, buffer_size=0),
        cycle_length=min(len(files), 4),
        num_parallel_calls=2,
        deterministic=True,
    )
    dataset = dataset.repeat().batch(work.batch, drop_remainder=True)
    dataset = dataset.map(parse, num_parallel_calls=parallel)
    dataset = dataset.map(
        lambda element: (finish(element["image"], element["case"]), element["label"]),
        num_parallel_calls=parallel,
    )
    return batches_of(dataset.prefetch(prefetch))


def start_records_cached(work: Workload, folder: Path) -> NextBatch:
    """int16 batches kept in memory: reads nothing after the first epoch."""
    finish = whitener(work)
    dataset = records.read(folder, batch=work.batch).cache().repeat()
    dataset = dataset.map(
        lambda element: (finish(element["image"], element["case"]), element["label"]),
        num_parallel_calls=1,
    )
    return batches_of(dataset.prefetch(1))


def start_records_mapped(work: Workload, folder: Path, *, parallel: int | None = 1) -> NextBatch:
    """`records.read(mapped=True)`: one copy from the page cache, no CRC for each read.

    The manifest's SHA-256 is compared once instead, outside the clock.
    """
    finish = whitener(work)
    dataset = records.read(folder, batch=work.batch, mapped=True).repeat()
    dataset = dataset.map(
        lambda element: (finish(element["image"], element["case"]), element["label"]),
        num_parallel_calls=parallel,
    )
    return batches_of(dataset.prefetch(1))


# What the machine needs to move the bytes: NumPy, and buffers that are used again.


def start_consumer(work: Workload, folder: Path) -> NextBatch:
    import tensorflow as tf

    batch = tf.zeros([work.batch, *work.crop, 1])
    return lambda: batch


def start_floor(work: Workload, folder: Path, *, action: str, threads: int = 1) -> NextBatch:
    """Move a batch: "cast" crops to float32, "copy" float32, or "read" int16 from a file."""
    out = np.zeros((work.batch, *work.crop), np.float32)
    volumes = [voxels_of(one.path) for one in work.subjects[: work.batch]]
    source = np.ones_like(out)
    rng, room = np.random.default_rng(0), np.subtract(volumes[0].shape, work.crop) + 1
    pool = ThreadPoolExecutor(threads)
    # The page cache holds this file as well; of its bytes only the number matters.
    file = open(work.float_list, "rb", buffering=0)  # noqa: SIM115
    into = memoryview(source.reshape(-1).view(np.uint8))[: out.nbytes // 2]

    def cast(number: int) -> None:
        np.copyto(out[number], cropped(volumes[number], starts[number], work.crop))

    def copy(number: int) -> None:
        np.copyto(out[number], source[number])

    def next_batch() -> None:
        nonlocal starts
        starts = rng.integers(room, size=(work.batch, 3))
        if action == "read":
            file.seek(0)
            file.readinto(into)
        else:
            list(pool.map({"cast": cast, "copy": copy}[action], range(work.batch)))

    starts = None
    return next_batch
