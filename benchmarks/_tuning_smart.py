"""Training on crops from a cache, and the same while a smart cache replaces a part of it.

The cache holds four fifths of the volumes. In an epoch the smart one loads a fifth of them, by
decoding compressed NIfTI; the epoch has as many training steps as take twice as long as that. A
step is a small network's forward and backward pass, with one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from _tuning_inputs import work_of
from _tuning_loads import Loads
from _workload import voxels_of

from helpers import crops, memory, quiet
from helpers.smart_cache import SmartCache

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

Item = tuple[np.ndarray, ...]
SEED, BATCH, CHANNELS = 1, 2, 8
TRIED = 5  # steps, and loads, from which their times are taken
exchanges: list[tuple[float, float]] = []  # seconds waited, and spent exchanging


def paths_of(job: Mapping) -> list[Path]:
    return [one.path for one in work_of(job).subjects] * job["listed"]


def load(path: Path) -> dict[str, np.ndarray]:
    return {"image": voxels_of(path)[..., None]}


def training_step():
    """A function that trains a small network on a batch and gives its loss."""
    tf.keras.utils.set_random_seed(SEED)
    layers = [tf.keras.layers.Conv3D(CHANNELS, 3, activation="relu") for _ in range(2)]
    model = tf.keras.Sequential([*layers, tf.keras.layers.Conv3D(1, 1)])
    optimizer = tf.keras.optimizers.SGD(1e-6)

    @tf.function
    def step(image):
        image = image / 1000.0
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(image)))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return step


def calibration(job: Mapping):
    """Seconds that a load takes, with the cache's own copy, and a step.

    The median of a few loads, the least of a few steps: an epoch is rather too long than too short.
    """
    paths, step = paths_of(job), training_step()
    image = tf.cast(voxels_of(paths[0]), tf.float32)
    image = tf.stack([image[tuple(slice(n) for n in job["patch"])][..., None]] * BATCH)
    step(image)

    def kept(path: Path) -> np.ndarray:
        return memory.aligned(load(path)["image"])

    def seconds(action) -> float:
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    def run(count: int) -> Iterator[Item]:
        loads = statistics.median(seconds(lambda path=path: kept(path)) for path in paths[:TRIED])
        steps = min(seconds(lambda: step(image).numpy()) for _ in range(TRIED))
        yield (np.array([loads, steps]),)

    return run


def epochs(job: Mapping, replace_rate: float):
    """A function that trains for some epochs; all that is exchanged in one is loaded in it."""
    paths, step = paths_of(job), training_step()
    number, loads = job["cached"], Loads()
    cache = SmartCache(
        paths,
        lambda path: loads(load(path)),
        cache_num=number,
        replace_rate=replace_rate,
        seed=SEED,
    )
    order = tf.data.Dataset.range(number).repeat().take(BATCH * job["steps"])
    stage = crops.random(job["patch"], seed=SEED)
    batches = crops.from_memory(cache, stage, indices=order, batch_size=BATCH, dtype="float32")
    # With autotuning a new iterator waits for the last one's tuning thread, now and then a second.
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = batches.with_options(options)

    def run(count: int) -> Iterator[Item]:
        for _ in range(count // job["steps"]):
            if cache.replace_num:
                swap = cache.swap()
                exchanges.append((swap.waited_s, swap.swapped_s))
            for batch in batches.prefetch(1):
                yield (step(batch["image"]).numpy(),)
        # What is loaded ahead would disturb whoever comes next.
        loads.wait_for(number + cache.replace_num * (len(exchanges) + 1))

    return run


def contenders(job: Mapping) -> dict:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)  # both gradients of a layer at once
    return {
        "calibration": lambda: calibration(job),
        "plain cache": lambda: epochs(job, 0.0),
        "smart cache": lambda: epochs(job, job["replace_rate"]),
        "exchanges": lambda: lambda count: iter([(np.array(exchanges),)]),
    }
