"""The course's batches: from memory, from records, from NIfTI; whole pipelines; epochs."""

import functools
import itertools
import threading

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from contenders import AT_A_TIME, SEED, box, epochs, facts, nifti_voxels
from contenders.ours import elements
from helpers import crops, memory, pipeline, records, stage, timing
from helpers.cases import Case
from helpers.smart_cache import SmartCache

HOW = {"repeat": True, "seed": SEED}


def shuffled(count: int) -> tf.data.Dataset:
    """Which volume each example is cut from: all in turn, in another order each time."""
    return tf.data.Dataset.range(count).shuffle(count, seed=SEED).repeat()


def cast(element: dict) -> dict:
    return element | {"image": tf.cast(element["image"], tf.float32)}


# From memory


def from_memory(job, each=None, **how):
    each, sampler = each or elements(job), crops.random(job["crop"], seed=SEED)
    how |= {"indices": shuffled(len(each)), "batch_size": job["batch"], "dtype": "float32"}
    return crops.from_memory(each, sampler, **how).prefetch(1)


def in_stages(job):
    """The same by tf.data's own steps: cache, crop, batch, cast last."""
    each = elements(job)
    spec = {"image": tf.TensorSpec((*job["head"], 1), tf.int16)}
    dataset = tf.data.Dataset.from_generator(lambda: iter(each), output_signature=spec)
    dataset = dataset.cache().shuffle(len(each), seed=SEED).repeat()
    sampler = crops.random(job["crop"], seed=SEED, num_parallel_calls=AT_A_TIME)
    dataset = dataset.apply(sampler).batch(job["batch"], drop_remainder=True)
    return stage.mapped(dataset, cast, name="cast", num_parallel_calls=1).prefetch(1)


def timeline(job, recorded):
    """Those stages with what a Timeline adds to them and waits for at both ends, or without.

    TensorFlow fuses a map and `batch`, which a recorded map does without.
    """
    options, line = tf.data.Options(), timing.Timeline()
    options.experimental_optimization.map_and_batch_fusion = False
    if not recorded:
        return in_stages(job).with_options(options)
    with line.recording():
        dataset = in_stages(job)
    dataset = dataset.apply(line.watch("batch")).with_options(options)

    def run(count: int):
        for element in dataset.take(count).as_numpy_iterator():
            yield (element["image"],)
        line.clear()

    return run


# From records


def stored(job, mapped):
    """`records.read`, then cast and whitening in one pass, as float_list has it stored."""
    known = facts(job["folder"])
    numbers = tf.lookup.KeyValueTensorInitializer(
        tf.constant([one["case"] for one in known]), tf.range(len(known))
    )
    table = tf.lookup.StaticHashTable(numbers, default_value=-1)
    constants = tf.constant([(one["mean"], one["std"]) for one in known], tf.float32)
    shape = [-1] + [1] * (len(job["crop"]) + 1)  # the axes of an image and its channel

    @tf.function(jit_compile=True)
    def whiten(image, mean, std):
        return (tf.cast(image, tf.float32) - mean) / std

    def finish(element: dict) -> dict:
        mean, std = tf.unstack(tf.gather(constants, table.lookup(element["case"])), axis=-1)
        return {"image": whiten(element["image"], tf.reshape(mean, shape), tf.reshape(std, shape))}

    folder = f"{job['folder']}/records"
    dataset = records.read(folder, batch=job["batch"], mapped=mapped, seed=SEED)
    return dataset.repeat().map(finish, num_parallel_calls=1).prefetch(1)


def counted(job, number, mapped):
    """An epoch of small records, with all that comes before its first batch."""

    def run(count: int):
        folder = f"{job['folder']}/counted/{number}"
        dataset = records.read(folder, batch=job["together"], mapped=mapped, seed=SEED)
        dataset = stage.mapped(dataset, cast, name="cast", num_parallel_calls=1)
        for element in dataset.prefetch(1).take(count).as_numpy_iterator():
            yield (element["image"],)

    return run


# From NIfTI


def cases(job) -> list[Case]:
    return [Case(one["name"], one["path"], label=one["label"]) for one in facts(job["folder"])]


def load(case: Case) -> dict[str, np.ndarray]:
    return {"image": nifti_voxels(case.source)[..., None], "label": np.int32(case.label)}


def load_and_crop(size: list[int], case: Case, random: np.random.Generator) -> dict:
    """For `PythonBatches`, whose loaders give what a batch is made of."""
    element = load(case)
    start = random.integers(np.subtract(element["image"].shape[:3], size) + 1)
    return element | {"image": element["image"][box(start, size)]}


def from_nifti(job, cache):
    sampler = crops.random(job["crop"], seed=SEED)
    how = {"batch_size": job["batch"], "num_parallel_calls": AT_A_TIME, "cache": cache, **HOW}
    return pipeline.classification(cases(job), load=load, crop=sampler, **how)


def python_batches(job, workers):
    """Threads that Keras starts, and the queue between them and `fit`, by what `fit` uses."""
    each, seeds = cases(job), itertools.count(SEED)  # each pass draws others

    def run(count: int):
        batches = pipeline.PythonBatches(
            [each[i % len(each)] for i in range(count * job["batch"])],
            functools.partial(load_and_crop, job["crop"]), batch_size=job["batch"],
            target="label", seeded=True, seed=next(seeds), workers=workers, max_queue_size=workers,
        )  # fmt: skip
        adapter = PyDatasetAdapter(batches)
        dataset = adapter.get_tf_dataset()
        adapter.on_epoch_begin()
        for image, _ in dataset.as_numpy_iterator():
            yield (image,)
        adapter.on_epoch_end()

    return run


# Whole pipelines, and the same by hand


def segmentation(job, by_hand=False):
    folder = f"{job['folder']}/whole"
    if by_hand:
        return from_memory(job, memory.gather(records.read(folder)))
    sampler = crops.random(job["crop"], seed=SEED)
    return pipeline.segmentation(folder, crop=sampler, batch_size=job["batch"], **HOW)


def classification(job, by_hand=False):
    folder = f"{job['folder']}/records"
    if not by_hand:
        return pipeline.classification(folder, batch_size=job["batch"], cache=False, **HOW)
    dataset = records.read(folder, seed=SEED).repeat().batch(job["batch"], drop_remainder=True)
    return dataset.map(cast, num_parallel_calls=AT_A_TIME).prefetch(1)


# Epochs of training


def training_step():
    """Trains a small network on a batch, with one thread, and gives its loss."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)  # both gradients of a layer at once
    keras.utils.set_random_seed(SEED)
    layers = [keras.layers.Conv3D(epochs.CHANNELS, 3, activation="relu") for _ in range(2)]
    model = keras.Sequential([*layers, keras.layers.Conv3D(1, 1)])
    optimizer = keras.optimizers.SGD(1e-6)

    @tf.function
    def step(image):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(image / 1000.0)))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return step


def trained(job, smart):
    """On crops from a cache, while a smart one replaces a part of it."""
    step, items = training_step(), cases(job) * job["listed"]
    cached = round(epochs.CACHED * len(items))
    rate = len(items) / cached - 1 if smart else 0.0
    cache = SmartCache(items, load, cache_num=cached, replace_rate=rate, seed=SEED)
    order = tf.data.Dataset.range(cached).repeat().take(epochs.PATCHES * epochs.STEPS)
    sampler = crops.random(job["patch"], seed=SEED)
    batches = crops.from_memory(
        cache, sampler, indices=order, batch_size=epochs.PATCHES, dtype="float32"
    )
    # With autotuning a new iterator waits for the last one's tuning thread, now and then a second.
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = batches.with_options(options).prefetch(1)

    def train():
        return (step(batch["image"]).numpy() for batch in batches)

    def swap() -> list[tuple[float, float]]:
        done = [cache.swap()] if smart else []
        return [(one.waited_s, one.swapped_s) for one in done]

    def settle() -> None:
        for thread in threading.enumerate():
            if thread.name == "SmartCache":
                thread.join()

    return epochs.runs(train, swap, settle)
