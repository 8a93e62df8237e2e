"""The course in the benchmark of reading: crops from memory, and records."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from _tuning_floor import thin
from _tuning_inputs import RECORDS_TOGETHER, arrays, batches_in_a_pass, work_of

from helpers import crops, draws, quiet, records

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402
from _pipelines import whitener  # noqa: E402

SEED = 1
CALLS = 2  # elements worked on at a time: one for each core


def passes(dataset: tf.data.Dataset, looked_at: bool = True):
    """A function that goes once through a dataset, which is finite: nobody works on after it."""

    def run() -> Iterator[tuple[np.ndarray, ...]]:
        for element in dataset.as_numpy_iterator():
            yield (element["image"] if looked_at else thin(element["image"]),)

    return run


# From memory


def indices(job: Mapping) -> tf.data.Dataset:
    """Which volume each example is cut from: all in turn, in another order each time."""
    order = tf.data.Dataset.range(job["subjects"]).shuffle(job["subjects"], seed=SEED).repeat()
    return order.take(batches_in_a_pass(job) * job["batch"])


def from_memory(job: Mapping) -> tf.data.Dataset:
    elements = [{"image": one[..., None]} for one in arrays(job["volumes"])]
    stage = crops.random(job["crop"], seed=SEED)
    dataset = crops.from_memory(
        elements, stage, indices=indices(job), batch_size=job["batch"], dtype="float32"
    )
    return dataset.prefetch(1)


def cast(element: dict) -> dict:
    return element | {"image": tf.cast(element["image"], tf.float32)}


def as_three_stages(job: Mapping) -> tf.data.Dataset:
    """The same by tf.data's own steps: cache, crop, batch, cast last."""
    volumes = arrays(job["volumes"])
    spec = {"image": tf.TensorSpec((*job["head"], 1), tf.int16)}
    dataset = tf.data.Dataset.from_generator(
        lambda: ({"image": one[..., None]} for one in volumes), output_signature=spec
    )
    dataset = dataset.cache().shuffle(len(volumes), seed=SEED).repeat()
    dataset = dataset.take(batches_in_a_pass(job) * job["batch"])
    dataset = dataset.apply(crops.random(job["crop"], seed=SEED, num_parallel_calls=CALLS))
    dataset = dataset.batch(job["batch"], drop_remainder=True)
    return draws.map_named(dataset, cast, name="cast", num_parallel_calls=1).prefetch(1)


# From records


def stored(job: Mapping, mapped: bool) -> tf.data.Dataset:
    """`records.read`, then cast and whitening as the last step, as float_list has it stored."""
    finish = whitener(work_of(job))
    dataset = records.read(job["records"], batch=job["batch"], mapped=mapped, seed=SEED)
    dataset = dataset.repeat().map(
        lambda element: {"image": finish(element["image"], element["case"])}, num_parallel_calls=1
    )
    return dataset.take(batches_in_a_pass(job)).prefetch(1)


def counted(job: Mapping, count: int, mapped: bool):
    """An epoch of small records, with all that comes before its first batch."""
    folder = Path(job["counted"], str(count))

    def run() -> Iterator[tuple[np.ndarray, ...]]:
        dataset = records.read(folder, batch=RECORDS_TOGETHER, mapped=mapped, seed=SEED)
        dataset = draws.map_named(dataset, cast, name="cast", num_parallel_calls=1)
        yield from passes(dataset.prefetch(1))()

    return run


def contenders(job: Mapping) -> dict:
    return {
        "memory": lambda: passes(from_memory(job)),
        "memory, not looked at": lambda: passes(from_memory(job), looked_at=False),
        "memory, stages": lambda: passes(as_three_stages(job)),
        "memory, stages, not looked at": lambda: passes(as_three_stages(job), looked_at=False),
        "records, mapped": lambda: passes(stored(job, mapped=True)),
        "records, streamed": lambda: passes(stored(job, mapped=False)),
    } | {
        f"{count}, {kind}": functools.partial(counted, job, count, kind == "mapped")
        for count in job["counts"]
        for kind in ("mapped", "streamed")
    }
