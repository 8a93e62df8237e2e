"""A pipeline as a tree: what each stage costs, and which one sets the pace."""

import logging
import re
import time
from collections.abc import Iterator, Sequence

import pandas as pd
import tensorflow as tf

from helpers import quiet

LONGEST_FILLING_S = 60.0
LOOK_EVERY_S = 0.01  # a look takes a fraction of a millisecond


def explain(dataset: tf.data.Dataset, *, elements: int = 20) -> pd.DataFrame:
    """Run a dataset and tell what each of its stages costs.

        print(timing.explain(dataset).to_string())

    The numbers come from the clocks that TensorFlow keeps for the tuning of its parameters. A clock
    runs while a thread is inside that dataset's own code, so waiting for inputs, or for room in a
    buffer, is not counted. It is time on the wall, not of processors: a function that waits for the
    disk or for Python's lock counts as at work, and if all cores are busy every stage looks dearer.
    The order of the stages is not changed by that; the cores at work tell the two cases apart. What
    an iterator counted between the last look at it and its end is lost: files of an element or two
    in an `interleave` look cheaper than they are.

    Args:
        dataset: of any elements; a finite one is repeated. If autotuning is off, it is switched on.
        elements: to watch, after the first, and after all caches are filled (a minute at most).

    Returns:
        A table with a row for each stage, from the result to its sources, inputs indented.
        A stage has the name that was given with `name=`, or is called by what it does ("batch", or
        "map + batch" where two were fused). `calls`: elements that it gave, those for the buffers
        among them. `ms an element`: on its clock, without its inputs, for an element of the result.
        `at a time`: calls that may run together. `at work`: the part of the time in which it was,
        on all of these; the largest is the bottleneck, and 1 sets the pace. `MB ready`: decimal MB
        that lay in it, at most. The head of the names says what an element of the result took, and
        how many cores this process kept busy.

    Taught in: tuning the pipeline
    """
    if dataset.cardinality() != tf.data.INFINITE_CARDINALITY:
        dataset = dataset.repeat()
    options = tf.data.Options()
    options.autotune.enabled = True  # without it TensorFlow keeps no clocks
    logging.disable(logging.WARNING)  # it warns, twice, where that was False
    with quiet.native_stderr_held():
        iterator = iter(dataset.with_options(options))
    logging.disable(logging.NOTSET)

    filling = True
    until = time.perf_counter() + LONGEST_FILLING_S
    while filling and time.perf_counter() < until:
        next(iterator)
        before = _clocks(iterator, dataset)
        filling = "CacheImpl0/" in " ".join(before["path"])

    looks, looked = [], 0.0
    start = time.perf_counter()
    worked = time.process_time()
    for _ in range(elements):
        next(iterator)
        if time.perf_counter() > looked + LOOK_EVERY_S:
            looks.append(_clocks(iterator, dataset))
            looked = time.perf_counter()
    looks.append(_clocks(iterator, dataset))
    seconds = time.perf_counter() - start
    cores = (time.process_time() - worked) / seconds
    ms = 1000 * seconds / elements

    counts = ["ms an element", "calls"]
    rows = pd.concat(looks).groupby(level=0).last()
    rows[counts] -= before[counts].reindex(rows.index, fill_value=0)
    how = {"stage": "first", "ms an element": "sum", "calls": "sum", "at a time": "max"}
    stages = rows.groupby("path").agg(how | {"MB ready": "max"}).set_index("stage")
    stages["ms an element"] /= elements
    stages["at work"] = (stages["ms an element"] / stages["at a time"] / ms).clip(upper=1)
    stages.index.name = f"{ms:.3g} ms an element, {cores:.1f} cores at work"
    return stages.round(2)


def _clocks(iterator: Iterator, dataset: tf.data.Dataset) -> pd.DataFrame:
    """What TensorFlow's model of a pipeline has counted so far, a row for each of its nodes."""
    proto = tf.data.experimental.get_model_proto(iterator)
    (top,) = proto.nodes[proto.output].inputs
    rows = dict(_rows(proto.nodes, top, "", [dataset], 1))
    columns = ["path", "stage", "ms an element", "calls", "at a time", "MB ready"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _rows(nodes, number: int, above: str, written: Sequence, outer: int) -> Iterator[tuple]:
    """Number and row of a node of the model, and of all below it.

    Model and program are gone through side by side, since only the program knows the names that
    were given. It has no datasets that TensorFlow added, nor those that a function made.

    Args:
        nodes: of the model, by number.
        number: of the node.
        above: path to it.
        written: the dataset of the program that it, or one below it, comes from.
        outer: calls at a time of the interleave that it is in.
    """
    node = nodes[number]
    names = []
    for kind in _kinds(node.name):
        found = _found(written, kind)
        names.insert(0, getattr(found, "_name", None) or kind)
        written = found._inputs() if found else written
    parallelism = [int(one.value) for one in node.parameters if one.name == "parallelism"]
    together = outer * max([1, *parallelism])
    path = f"{above}/{node.name}"
    name = " " * above.count("/") + " + ".join(names)
    ms = node.processing_time / 1e6
    mb = node.buffered_bytes / 1e6
    yield number, (path, name, ms, node.num_elements, together, mb)
    nests = kind in ("interleave", "flat_map")
    for place, below in enumerate(node.inputs):
        if below in nodes:  # sources of an interleave come and go: they are one, whatever place
            branch = path if nests else f"{path}{place}"
            source = written[place : place + 1]
            yield from _rows(nodes, below, branch, source, together if nests else outer)


def _found(datasets: Sequence, kind: str) -> tf.data.Dataset | None:
    """The first dataset that does this, among one and its inputs down to the next with a name."""
    while len(datasets) == 1:
        if kind in _kinds(type(datasets[0]).__name__):
            return datasets[0]
        datasets = [] if getattr(datasets[0], "_name", None) else datasets[0]._inputs()
    return None


def _kinds(name: str) -> list[str]:
    """What a dataset does, by its operation or class: "ParallelMapV2" is a "map".

    Of a fused one all, from the result on: "MapAndBatch" is "batch" and "map".
    """
    name = re.sub(r"^_|(V\d+)?(Dataset)?(V\d+)?$", "", name)
    name = re.sub(r"^(Parallel|Finite|Forever|Memory|File)+(?=[A-Z])", "", name)
    return [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", one).lower() for one in name.split("And")][::-1]
