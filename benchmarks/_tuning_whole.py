"""The course in the benchmark of reading: whole pipelines, their stages by hand, a Timeline."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import numpy as np
from _tuning_inputs import batches_in_a_pass, work_of
from _workload import voxels_of

from helpers import crops, memory, pipeline, quiet, records, timing
from helpers.cases import Case

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402
from _tuning_ours import CALLS, SEED, as_three_stages, cast, passes  # noqa: E402


def shortened(dataset: tf.data.Dataset, job: Mapping) -> tf.data.Dataset:
    """As many batches as a pass has, of a dataset without an end."""
    return dataset.take(batches_in_a_pass(job))


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
    dataset = pipeline.classification(
        cases(job), load=load, crop=crops.random(job["crop"], seed=SEED), cache=cache,
        batch_size=job["batch"], repeat=True, num_parallel_calls=CALLS, seed=SEED,
    )  # fmt: skip
    return shortened(dataset, job)


def python_batches(job: Mapping):
    """Threads that Keras starts, and the queue between them and `fit`, by what `fit` uses."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    one, examples = cases(job), batches_in_a_pass(job) * job["batch"]
    batches = pipeline.PythonBatches(
        [one[i % len(one)] for i in range(examples)], functools.partial(load_and_crop, job["crop"]),
        batch_size=job["batch"], target="label", seeded=True, seed=SEED, workers=CALLS,
        max_queue_size=CALLS,
    )  # fmt: skip
    adapter = PyDatasetAdapter(batches)
    dataset = adapter.get_tf_dataset()

    def run() -> Iterator[tuple[np.ndarray, ...]]:
        adapter.on_epoch_begin()
        for image, _ in dataset.as_numpy_iterator():
            yield (image,)
        adapter.on_epoch_end()

    return run


# Whole pipelines and the same by hand


def kept(job: Mapping) -> tf.data.Dataset:
    dataset = pipeline.segmentation(
        job["whole"], crop=crops.random(job["crop"], seed=SEED), batch_size=job["batch"],
        repeat=True, seed=SEED,
    )  # fmt: skip
    return shortened(dataset, job)


def kept_by_hand(job: Mapping) -> tf.data.Dataset:
    elements = memory.gather(records.read(job["whole"]))
    order = tf.data.Dataset.range(len(elements)).shuffle(len(elements), seed=SEED).repeat()
    stage = crops.random(job["crop"], seed=SEED)
    dataset = crops.from_memory(
        elements, stage, indices=order, batch_size=job["batch"], dtype="float32"
    )
    return shortened(dataset.prefetch(1), job)


def streamed(job: Mapping) -> tf.data.Dataset:
    dataset = pipeline.classification(
        job["records"], batch_size=job["batch"], cache=False, repeat=True, seed=SEED
    )
    return shortened(dataset, job)


def streamed_by_hand(job: Mapping) -> tf.data.Dataset:
    dataset = records.read(job["records"], seed=SEED).repeat()
    dataset = dataset.batch(job["batch"], drop_remainder=True)
    return shortened(dataset.map(cast, num_parallel_calls=CALLS).prefetch(1), job)


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

    def forgetting() -> Iterator[tuple[np.ndarray, ...]]:
        yield from run()
        line.clear()

    return forgetting


def contenders(job: Mapping) -> dict:
    return {
        "nifti": lambda: passes(from_nifti(job, cache=False)),
        "nifti, cached": lambda: passes(from_nifti(job, cache=True)),
        "nifti, Python": lambda: python_batches(job),
        "from memory": lambda: passes(kept(job)),
        "from memory, by hand": lambda: passes(kept_by_hand(job)),
        "from records": lambda: passes(streamed(job)),
        "from records, by hand": lambda: passes(streamed_by_hand(job)),
        "recorded": lambda: recorded(job),
        "not recorded": lambda: passes(unfused(as_three_stages(job))),
    }
