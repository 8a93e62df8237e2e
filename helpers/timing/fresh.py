"""The memory that a pipeline holds, measured where nothing else was held before."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import psutil
import tensorflow as tf

ELEMENTS, STEP_S = 6, 0.2  # that are taken, and how long each is held


def held_mb(dataset: tf.data.Dataset) -> float:
    """The memory that a dataset holds once its buffers are full, in a fresh process.

    A process that has worked before has memory to use again, and what it takes on top says little.
    So the dataset's graph goes to a new process, which takes a few elements, holds each for as long
    as a slow step would, and looks. That takes some seconds. A script calls this under its
    `if __name__ == "__main__":`, since the new process imports the script.

    Args:
        dataset: one that calls no Python, since that cannot leave this process.

    Returns:
        Decimal MB at the most, above what TensorFlow takes without a dataset; the element that the
        step works on is among it.

    Taught in: tuning the pipeline
    """
    variant = tf.data.experimental.to_variant(dataset)
    graph = tf.raw_ops.DatasetToGraphV2(input_dataset=variant).numpy()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_held, graph, dataset.element_spec).result()


def _held(graph: bytes, spec) -> float:
    """In the fresh process: what it holds on top of what it held before."""
    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph)
    dataset = tf.data.experimental.from_variant(variant, spec)
    highest = before = psutil.Process().memory_info().rss
    for _ in dataset.take(ELEMENTS):
        time.sleep(STEP_S)
        highest = max(highest, psutil.Process().memory_info().rss)
    return (highest - before) / 1e6
