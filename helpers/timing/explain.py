"""A pipeline as a tree: what each stage costs, and which one sets the pace."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from helpers import quiet
from helpers.timing.model import Model, Node, complete
from helpers.timing.naming import Named, names
from helpers.timing.resident import MB
from helpers.timing.tree import Explanation, Stage

LONGEST_FILLING_S = 60.0
LEAST_WARMUP = 3  # elements


def explain(
    dataset, *, elements: int = 20, warmup: int | None = None, step: Callable | None = None
) -> Explanation:
    """Run a dataset and tell what each of its stages costs.

        print(timing.explain(dataset))
        print(timing.explain(dataset, step=train_step))     # is it the input at all?

    The numbers come from the clocks that TensorFlow keeps for the tuning of its parameters. They
    show time on the wall, not of processors: a function that waits for the disk or for Python's
    lock counts as at work, and if all cores are busy every stage looks dearer. The order of the
    stages is not changed by that; `cores_busy` tells the two cases apart. A stage inside of an
    interleave's function is measured on the sources that were open when the clocks were read.

    Args:
        dataset: a `tf.data.Dataset` of any elements. If autotuning is off, it is switched on.
        elements: to watch. A finite dataset of up to twice as many is read in whole epochs.
        warmup: elements before, unwatched. Default: until all caches are filled (a minute at
            most), and 3.
        step: called with each element, as tensors. Default: nothing is done with them.

    Returns:
        An `Explanation`.

    Raises:
        ValueError: for a dataset that is empty, or for less than 1 element.
    """
    if not hasattr(dataset, "element_spec"):
        raise ValueError(f"only a tf.data.Dataset can be explained, not {type(dataset).__name__}")
    if elements < 1 or (warmup or 0) < 0:
        raise ValueError(f"1 element or more, not {elements}, after {warmup or 0} or more")
    model = Model()
    run = _Run(dataset, model, step)
    epoch = run.warm_up(warmup)
    whole = 0 < epoch <= 2 * elements
    if whole:
        elements = -(-elements // epoch) * epoch
    run.begin(whole)
    run.watch(elements)
    complete(model.root)
    return run.told(elements, list(_stages(model.root, names(dataset, model.root), run, elements)))


class _Run:
    """Reads a dataset, one iterator after the other, and lets the model look."""

    def __init__(self, dataset, model: Model, step: Callable | None) -> None:
        self._dataset, self._cardinality = _with_model(dataset), int(dataset.cardinality())
        self.model, self._step = model, step
        self._iterator = None
        self.seconds = self.waited_s = self.worked_s = self.others_s = 0.0

    def warm_up(self, wanted: int | None) -> int:
        """Read without counting; the length of an epoch, 0 if that is not known or has no end."""
        until = time.perf_counter() + LONGEST_FILLING_S
        self._open()
        for count in itertools.count():
            if wanted is None:
                self.model.look(self._iterator, count=False)
                filling = self.model.filling and time.perf_counter() < until
                if count >= LEAST_WARMUP and not filling:
                    break
            elif count >= wanted:
                break
            try:
                self._next()
            except StopIteration:
                if not count:
                    raise ValueError("the dataset is empty: there is nothing to watch") from None
                self._iterator, self._cardinality = None, count
                return count
        return max(0, self._cardinality)

    def begin(self, whole: bool) -> None:
        """Go where the watch begins: at the start of an epoch, or where all buffers are filled."""
        if whole:
            self._open()
        elif self._iterator is None:
            self._open()
            for _ in range(LEAST_WARMUP):
                self._next()
        self.model.look(self._iterator, count=False)

    def watch(self, elements: int) -> None:
        self.waited_s = 0.0
        start, worked, busy = time.perf_counter(), time.process_time(), _machine_busy_s()
        for count in range(1, elements + 1):
            try:
                self._next()
            except StopIteration:
                self._open()
                self._next()
            # An iterator that has ended takes its clocks with it: the last look comes before.
            if count == elements or self._ends(count):
                self.model.look(self._iterator)
            else:
                self.model.glance(self._iterator)
        self.seconds = time.perf_counter() - start
        self.worked_s = time.process_time() - worked
        self.others_s = max(0.0, _machine_busy_s() - busy - self.worked_s)

    def told(self, elements: int, stages: list[Stage]) -> Explanation:
        return Explanation(
            stages=tuple(stages),
            ms=1000 * self.seconds / elements,
            elements=elements,
            cores_busy=self.worked_s / self.seconds,
            others_busy=self.others_s / self.seconds,
            cores=self.model.cores,
            waiting=None if self._step is None else self.waited_s / self.seconds,
            filling=self.model.filling,
        )

    def _open(self) -> None:
        with _quiet_options():
            self._iterator = iter(self._dataset)
        self.model.begin(self._iterator)

    def _next(self) -> None:
        start = time.perf_counter()
        element = next(self._iterator)
        self.waited_s += time.perf_counter() - start
        if self._step is not None:
            result = self._step(element)
            if hasattr(result, "numpy"):
                result.numpy()  # a GPU may still be at work on it

    def _ends(self, count: int) -> bool:
        return self._cardinality > 0 and count % self._cardinality == 0


def _stages(
    node: Node, known: dict[int, Named], run: _Run, elements: int, depth: int = 0, outer: int = 1
) -> Iterator[Stage]:
    """The stages below a node; what an interleave's function made runs in its threads."""
    for child in node.children:
        if node.kind == "Cache" and not child.calls:
            continue  # the cache is complete
        together = child.parallelism * (outer if child.nested else 1)
        named = known[id(child)]
        yield Stage(
            name=named.name,
            operation=child.operation,
            depth=depth,
            calls=round(child.calls),
            self_ms=1000 * child.seconds / elements,
            parallelism=together,
            share=min(1.0, child.seconds / together / run.seconds),
            buffered_mb=child.buffered_bytes / MB,
            given=named.given,
            added=named.added,
            python=named.python,
        )
        yield from _stages(child, known, run, elements, depth + 1, together)


def _machine_busy_s() -> float:
    """Processor seconds that all programs of this machine have used."""
    times = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are counted among the users
    return sum(seconds for name, seconds in times.items() if name not in idle)


def _with_model(dataset):
    """The dataset with autotuning, without which TensorFlow keeps no clocks."""
    import tensorflow as tf

    if dataset.options().autotune.enabled is not False:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = True
    with _quiet_options():
        return dataset.with_options(options)


@contextmanager
def _quiet_options() -> Iterator[None]:
    # TensorFlow warns, twice, that an option is changed; here that is what is wanted.
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with quiet.native_stderr_held():
            yield
    finally:
        log.setLevel(level)
