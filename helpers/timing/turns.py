"""Elements a second, measured so that the number can be believed."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

ENDLESS = tf.data.INFINITE_CARDINALITY
IDLE = 0.2  # of one core: busier than that, and something is still being worked on
LONGEST_WAIT_S = 3.0


@dataclass(frozen=True)
class Throughput:
    """What was measured.

    Args:
        ms: milliseconds an element, one number for each repeat.
        elements: in one repeat.
        mb: decimal MB of one element, as it arrives (on average).

    Attributes:
        median_ms: median of the repeats, milliseconds an element.
        spread_ms: the quickest and the slowest repeat.
        elements_per_s, mb_per_s: elements and decimal MB a second, at the median.

    Taught in: tuning the pipeline
    """

    ms: tuple[float, ...]
    elements: int
    mb: float

    median_ms = property(lambda self: statistics.median(self.ms))
    spread_ms = property(lambda self: (min(self.ms), max(self.ms)))
    elements_per_s = property(lambda self: 1000 / self.median_ms)
    mb_per_s = property(lambda self: self.mb * self.elements_per_s)

    def __str__(self) -> str:
        low, high = self.spread_ms
        return (
            f"{self.median_ms:,.2f} ms an element ({low:,.2f} to {high:,.2f}, "
            f"{len(self.ms)} x {self.elements}), {self.elements_per_s:,.1f} elements/s, "
            f"{self.mb_per_s:,.0f} MB/s"
        )


def throughput(dataset, *, elements=None, repeats=5, step=None) -> Throughput:
    """How long an element takes, with every byte of it looked at.

        print(timing.throughput(dataset))                       # epochs
        print(timing.throughput(dataset.repeat(), elements=20))  # steady state

    Args:
        dataset: a `tf.data.Dataset`, or an iterator without end.
        elements: in one repeat. None: a repeat is an epoch and begins with a new iterator, whose
            start is timed as well. Otherwise all repeats read on from one iterator; a finite
            dataset is repeated.
        repeats: that are timed. One more comes before them: as many elements, and at least an
            epoch of a finite dataset, which fills its cache.
        step: what is done with each element, a training step say; it gets tensors. Default:
            `look`, which costs one pass over the element's memory. What the last step of a repeat
            returns is waited for.

    Returns:
        A `Throughput`. `print` shows it in a line.

    Raises:
        ValueError: for a dataset that is empty, or has no end though `elements` is None.

    Taught in: tuning the pipeline
    """
    return take_turns({"": dataset}, elements=elements, repeats=repeats, step=step)[""]


def take_turns(contenders: Mapping, *, elements=None, repeats=5, lead_in=None, step=None) -> dict:
    """Time several pipelines in turn, so that a slow minute of the machine hits them all.

        results = timing.take_turns({"before": before, "after": after}, elements=20)

    Every contender has one turn in each round, and each round begins with another one. Iterators
    stay open. Before a turn, the others' threads are given time to fill their buffers and to stop,
    and `lead_in` elements are read, both outside the clock: what had been prepared while others
    were timed is not counted. One alone reads on without a pause.

    Args:
        contenders: name -> what `throughput` takes.
        elements: in one turn, for all or by name. None: a turn is an epoch.
        repeats: rounds that are timed; one more comes first, to warm up.
        lead_in: elements before each turn (default: half of `elements`); none before an epoch.
        step: as for `throughput`.

    Returns:
        name -> `Throughput`, in the order given.

    Raises:
        ValueError: as `throughput`.

    Taught in: tuning the pipeline
    """
    each = elements if isinstance(elements, Mapping) else dict.fromkeys(contenders, elements)
    step = step or look
    streams = {}
    for name, source in contenders.items():
        length = int(source.cardinality()) if isinstance(source, tf.data.Dataset) else ENDLESS
        if each[name]:
            streams[name] = iter(source if length == ENDLESS else source.repeat())
        elif length == ENDLESS:
            raise ValueError(f"{name} has no end: say how many `elements` are to be timed")
        else:
            streams[name] = source
        settle()
        _lap(streams[name], each[name] and max(each[name], length), step)

    names, results = list(streams), {}
    times = dict.fromkeys(names, ())
    for _ in range(repeats):
        for name in names:
            if len(names) > 1:
                settle()
                if each[name]:
                    _lap(streams[name], lead_in or (each[name] + 1) // 2, step)
            ms, count, mb = _lap(streams[name], each[name], step)
            times[name] += (ms,)
            results[name] = Throughput(times[name], count, mb)
        names = names[1:] + names[:1]  # another one begins the next round
    return results


def settle() -> None:
    """Wait until the threads of this process have run out of work, at most 3 seconds.

    A pipeline that nobody reads goes on until its buffers are full. What is timed meanwhile would
    pay for it.

    Taught in: no lesson; `take_turns` uses it
    """
    quiet = 0
    until = time.perf_counter() + LONGEST_WAIT_S
    while quiet < 3 and time.perf_counter() < until:
        start = time.perf_counter()
        worked = time.process_time()
        time.sleep(0.005)
        share = (time.process_time() - worked) / (time.perf_counter() - start)
        quiet = quiet + 1 if share < IDLE else 0


def look(element) -> int:
    """A checksum of all bytes of an element, so that nothing of it can be left undone.

    Memory is read as it lies, without a copy, 8 bytes at a time: the quickest look there is.

    Args:
        element: NumPy arrays, tensors or strings, in any nested structure.

    Returns:
        The sum, modulo 2**64, of the bytes read as 64-bit numbers, field by field.

    >>> look({"image": np.arange(2), "case": b"abc"}) == 1 + sum(b"abc")
    True

    Taught in: tuning the pipeline
    """
    total = 0
    for value in tf.nest.flatten(element):
        values = np.asarray(value)
        if values.dtype == object:
            values = np.frombuffer(b"".join(values.reshape(-1)), np.uint8)
        flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        whole = len(flat) // 8 * 8
        total += int(flat[:whole].view(np.uint64).sum()) + int(flat[whole:].sum())
    return total % 2**64


def _lap(stream: Iterable, elements: int | None, step: Callable) -> tuple:
    """Read so many elements, or an epoch: ms an element, their number, decimal MB an element."""
    count = size = 0
    start = time.perf_counter()
    for element in itertools.islice(stream, elements):
        result = step(element)
        size += sum(np.asarray(value).nbytes for value in tf.nest.flatten(element))
        count += 1
    if not count:
        raise ValueError("the dataset is empty: there is nothing to time")
    if hasattr(result, "numpy"):
        result.numpy()  # a GPU may still be at work on it
    return 1000 * (time.perf_counter() - start) / count, count, size / count / 1e6
