"""The course in the benchmark of reading, and the published pipelines (`_published.py`)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from _tuning_floor import thin
from _tuning_inputs import COUNTS, RECORDS_TOGETHER, work_of
from _workload import Workload, arrays, voxels_of

from helpers import crops, memory, pipeline, quiet, records, stage, timing
from helpers.cases import Case

quiet.tensorflow_greeting()
import _published  # noqa: E402
import tensorflow as tf  # noqa: E402

SEED = 1
CALLS = 2  # elements worked on at a time: one for each core


def passes(dataset: tf.data.Dataset, image: Callable = lambda element: element["image"]):
    """A function that gives the first images of an endless dataset; nobody works on after it."""

    def run(count: int) -> Iterator[tuple[np.ndarray, ...]]:
        for element in dataset.take(count).as_numpy_iterator():
            yield (image(element),)

    return run


def thinly(dataset: tf.data.Dataset):
    """The same, where nobody looks at the voxels."""
    return passes(dataset, lambda element: thin(element["image"]))


# From memory


def shuffled(count: int) -> tf.data.Dataset:
    """Which volume each example is cut from: all in turn, in another order each time."""
    return tf.data.Dataset.range(count).shuffle(count, seed=SEED).repeat()


def from_memory(job: Mapping, calls: int = CALLS) -> tf.data.Dataset:
    elements = [{"image": one[..., None]} for one in arrays(job["volumes"])]
    order, sampler = shuffled(len(elements)), crops.random(job["crop"], seed=SEED)
    dataset = crops.from_memory(
        elements, sampler, indices=order, batch_size=job["batch"], dtype="float32",
        num_parallel_calls=calls,
    )  # fmt: skip
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
    dataset = dataset.apply(crops.random(job["crop"], seed=SEED, num_parallel_calls=CALLS))
    dataset = dataset.batch(job["batch"], drop_remainder=True)
    return stage.mapped(dataset, cast, name="cast", num_parallel_calls=1).prefetch(1)


# From records


def whitener(work: Workload) -> Callable:
    """A function of int16 images and their cases: cast and whiten, in one pass with XLA."""
    cases = tf.constant([one.case for one in work.subjects])
    numbers = tf.range(len(work.subjects))
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(cases, numbers), default_value=-1
    )
    constants = tf.constant([(one.mean, one.std) for one in work.subjects], tf.float32)

    @tf.function(jit_compile=True)
    def whiten(image, mean, std):
        return (tf.cast(image, tf.float32) - mean) / std

    def finish(image, case):
        ones = [1] * (len(work.crop) + 1)  # the axes of an image and its channel
        mean, std = tf.unstack(tf.gather(constants, table.lookup(case)), axis=-1)
        leading = [-1] if case.shape.rank else []
        return whiten(image, tf.reshape(mean, leading + ones), tf.reshape(std, leading + ones))

    return finish


def stored(job: Mapping, mapped: bool) -> tf.data.Dataset:
    """`records.read`, then cast and whitening as the last step, as float_list has it stored."""
    finish = whitener(work_of(job))
    dataset = records.read(job["records"], batch=job["batch"], mapped=mapped, seed=SEED)
    dataset = dataset.repeat().map(
        lambda element: {"image": finish(element["image"], element["case"])}, num_parallel_calls=1
    )
    return dataset.prefetch(1)


def counted(job: Mapping, records_in_all: int, mapped: bool):
    """An epoch of small records, with all that comes before its first batch."""
    folder = Path(job["counted"], str(records_in_all))

    def run(count: int) -> Iterator[tuple[np.ndarray, ...]]:
        dataset = records.read(folder, batch=RECORDS_TOGETHER, mapped=mapped, seed=SEED)
        dataset = stage.mapped(dataset, cast, name="cast", num_parallel_calls=1)
        yield from passes(dataset.prefetch(1))(count)

    return run


def float_list(job: Mapping, as_in_2018: bool):
    dataset = _published.float_list(work_of(job), as_in_2018=as_in_2018)
    return passes(dataset, lambda element: element[0])


def generator(job: Mapping):
    return passes(_published.generator(work_of(job)), lambda element: element["features"]["x"])


# From NIfTI


def cases(job: Mapping) -> list[Case]:
    return [Case(one.name, one.path, label=one.label) for one in work_of(job).subjects]


def load(case: Case) -> dict[str, np.ndarray]:
    return {"image": voxels_of(case.source)[..., None], "label": np.int32(case.label)}


def load_and_crop(size: list[int], case: Case, random: np.random.Generator) -> dict:
    """For `PythonBatches`, whose loaders give what a batch is made of."""
    element = load(case)
    start = random.integers(np.subtract(element["image"].shape[:3], size) + 1)
    box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    return element | {"image": element["image"][box]}


def from_nifti(job: Mapping, cache: bool) -> tf.data.Dataset:
    return pipeline.classification(
        cases(job), load=load, crop=crops.random(job["crop"], seed=SEED), cache=cache,
        batch_size=job["batch"], repeat=True, num_parallel_calls=CALLS, seed=SEED,
    )  # fmt: skip


def python_batches(job: Mapping):
    """Threads that Keras starts, and the queue between them and `fit`, by what `fit` uses."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    one, seeds = cases(job), itertools.count(SEED)  # each pass draws others

    def run(count: int) -> Iterator[tuple[np.ndarray, ...]]:
        batches = pipeline.PythonBatches(
            [one[i % len(one)] for i in range(count * job["batch"])],
            functools.partial(load_and_crop, job["crop"]), batch_size=job["batch"],
            target="label", seeded=True, seed=next(seeds), workers=CALLS, max_queue_size=CALLS,
        )  # fmt: skip
        adapter = PyDatasetAdapter(batches)
        dataset = adapter.get_tf_dataset()
        adapter.on_epoch_begin()
        for image, _ in dataset.as_numpy_iterator():
            yield (image,)
        adapter.on_epoch_end()

    return run


# Whole pipelines and the same by hand


def kept(job: Mapping) -> tf.data.Dataset:
    return pipeline.segmentation(
        job["whole"], crop=crops.random(job["crop"], seed=SEED), batch_size=job["batch"],
        repeat=True, seed=SEED,
    )  # fmt: skip


def kept_by_hand(job: Mapping) -> tf.data.Dataset:
    elements = memory.gather(records.read(job["whole"]))
    order, sampler = shuffled(len(elements)), crops.random(job["crop"], seed=SEED)
    dataset = crops.from_memory(
        elements, sampler, indices=order, batch_size=job["batch"], dtype="float32"
    )
    return dataset.prefetch(1)


def streamed(job: Mapping) -> tf.data.Dataset:
    return pipeline.classification(
        job["records"], batch_size=job["batch"], cache=False, repeat=True, seed=SEED
    )


def streamed_by_hand(job: Mapping) -> tf.data.Dataset:
    dataset = records.read(job["records"], seed=SEED).repeat()
    dataset = dataset.batch(job["batch"], drop_remainder=True)
    return dataset.map(cast, num_parallel_calls=CALLS).prefetch(1)


# A Timeline


def unfused(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without TensorFlow's fusion of a map and `batch`, which a recorded map does without."""
    options = tf.data.Options()
    options.experimental_optimization.map_and_batch_fusion = False
    return dataset.with_options(options)


def recorded(job: Mapping):
    """The course's stages under a Timeline, with what waits for them at both ends."""
    line = timing.Timeline()
    with line.recording():
        dataset = as_three_stages(job)
    run = passes(unfused(dataset.apply(line.watch("batch"))))

    def forgetting(count: int) -> Iterator[tuple[np.ndarray, ...]]:
        yield from run(count)
        line.clear()

    return forgetting


def contenders(job: Mapping) -> dict:
    return {
        "memory": lambda: passes(from_memory(job)),
        "memory, 1 call": lambda: passes(from_memory(job, calls=1)),
        "memory, not looked at": lambda: thinly(from_memory(job)),
        "memory, stages": lambda: passes(as_three_stages(job)),
        "memory, stages, not looked at": lambda: thinly(as_three_stages(job)),
        "records, mapped": lambda: passes(stored(job, mapped=True)),
        "records, streamed": lambda: passes(stored(job, mapped=False)),
        "float_list": lambda: float_list(job, as_in_2018=True),
        "float_list, today": lambda: float_list(job, as_in_2018=False),
        "generator": lambda: generator(job),
        "nifti": lambda: passes(from_nifti(job, cache=False)),
        "nifti, cached": lambda: passes(from_nifti(job, cache=True)),
        "nifti, Python": lambda: python_batches(job),
        "from memory": lambda: passes(kept(job)),
        "from memory, by hand": lambda: passes(kept_by_hand(job)),
        "from records": lambda: passes(streamed(job)),
        "from records, by hand": lambda: passes(streamed_by_hand(job)),
        "recorded": lambda: recorded(job),
        "not recorded": lambda: passes(unfused(as_three_stages(job))),
    } | {
        f"{count}, {kind}": functools.partial(counted, job, count, kind == "mapped")
        for count in COUNTS
        for kind in ("mapped", "streamed")
    }
