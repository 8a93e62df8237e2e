"""Elements a second, measured so that the number can be believed."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from helpers.timing.feeds import Feed, Source
from helpers.timing.resident import MB, Peak

LOOK_EVERY_S = 0.005
IDLE = 0.2  # of one core: busier than that, and something is still being worked on
LONGEST_WAIT_S = 3.0


@dataclass(frozen=True)
class Throughput:
    """What `throughput` measured.

    Args:
        ms: milliseconds an element, one number for each repeat.
        elements: in one repeat.
        mb: decimal MB of one element, as it arrives (on average).
        peak_mb: highest resident memory, decimal MB above what was held before.
    """

    ms: tuple[float, ...]
    elements: int
    mb: float
    peak_mb: float

    @property
    def median_ms(self) -> float:
        """Median of the repeats, milliseconds an element."""
        return statistics.median(self.ms)

    @property
    def spread_ms(self) -> tuple[float, float]:
        """The quickest and the slowest repeat, milliseconds an element."""
        return min(self.ms), max(self.ms)

    @property
    def elements_per_s(self) -> float:
        """Elements a second, at the median."""
        return 1000 / self.median_ms

    @property
    def mb_per_s(self) -> float:
        """Decimal MB a second, at the median."""
        return self.mb * self.elements_per_s

    def __str__(self) -> str:
        low, high = self.spread_ms
        return (
            f"{_digits(self.median_ms)} ms an element ({_digits(low)} to {_digits(high)}, "
            f"{len(self.ms)} x {self.elements}), {_digits(self.elements_per_s)} elements/s, "
            f"{_digits(self.mb_per_s)} MB/s, peak +{self.peak_mb:.0f} MB"
        )


def throughput(
    dataset: Source,
    *,
    elements: int | None = None,
    repeats: int = 5,
    warmup: int | None = None,
    step: Callable | None = None,
) -> Throughput:
    """How long an element takes, with every byte of it looked at.

        print(timing.throughput(dataset))                       # epochs
        print(timing.throughput(dataset.repeat(), elements=20))  # steady state

    Args:
        dataset: a `tf.data.Dataset`; or another iterable; or a function each of whose calls gives
            the next element.
        elements: in one repeat. None: a repeat is an epoch and begins with a new iterator, whose
            start is timed as well. Otherwise all repeats read on from one iterator; a finite
            dataset is repeated.
        repeats: that are timed.
        warmup: what is read before: elements if `elements` is given (default: as many, and at
            least one epoch of a finite dataset, which fills its cache), else epochs (default: 1).
        step: what is done with each element, a training step say; it gets tensors. Default:
            `look`, which costs one pass over the element's memory. What the last step of a repeat
            returns is waited for.

    Returns:
        A `Throughput`. `print` shows it in a line.

    Raises:
        ValueError: for a dataset that is empty, has no end though `elements` is None, or ends.
    """
    _check(repeats=repeats)
    feed = Feed(dataset, elements, step)
    settle()
    with Peak() as peak:
        _warm(feed, warmup)
        laps = [_timed(feed) for _ in range(repeats)]
    return _told(laps, peak.mb)


def take_turns(
    contenders: Mapping[str, Source],
    *,
    elements: int | Mapping[str, int] | None = None,
    repeats: int = 5,
    lead_in: int | None = None,
    step: Callable | None = None,
) -> dict[str, Throughput]:
    """Time several pipelines in turn, so that a slow minute of the machine hits them all.

        results = timing.take_turns({"before": before, "after": after}, elements=20)

    Every contender has one turn in each round, and each round begins with another one. Iterators
    are opened once and stay open. Before a turn, the others' threads are given time to fill their
    buffers and to stop, and `lead_in` elements are read, both outside the clock: what had been
    prepared while others were timed is not counted.

    Args:
        contenders: name -> what `throughput` takes: a dataset, an iterable or a function.
        elements: in one turn, for all or by name. None, or a name left out: a turn is an epoch.
        repeats: rounds that are timed; one more comes first, to warm up.
        lead_in: elements before each turn (default: half of `elements`); none before an epoch.
        step: as for `throughput`.

    Returns:
        name -> `Throughput`, in the order given. `peak_mb` is of the contender's first turn; memory
        that earlier ones gave back to the process, but not to the system, is not seen in it.

    Raises:
        ValueError: as `throughput`; for names in `elements` that nobody has.
    """
    _check(repeats=repeats)
    names = list(contenders)
    if isinstance(elements, Mapping):
        if unknown := sorted(set(elements) - set(names)):
            raise ValueError(f"`elements` names {unknown}, which is none of {names}")
    else:
        elements = dict.fromkeys(names, elements)
    gc.collect()  # takes a while where large packages are loaded: not before every turn
    feeds = {name: Feed(contenders[name], elements.get(name), step) for name in names}
    peaks: dict[str, float] = {}
    laps: dict[str, list] = {name: [] for name in names}
    for name, feed in feeds.items():
        settle()
        with Peak() as peak:
            _warm(feed, None)
        peaks[name] = peak.mb
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            feed = feeds[name]
            settle()
            if feed.elements is not None:
                before = (feed.elements + 1) // 2 if lead_in is None else lead_in
                if before:
                    feed.lap(before)
            laps[name].append(_timed(feed))
    return {name: _told(laps[name], peaks[name]) for name in names}


def settle() -> None:
    """Wait until the threads of this process have run out of work, at most 3 seconds.

    A pipeline that nobody reads goes on until its buffers are full. What is timed meanwhile would
    pay for it.
    """
    pause = threading.Event()
    until = time.perf_counter() + LONGEST_WAIT_S
    quiet = 0
    while quiet < 3 and time.perf_counter() < until:
        start, worked = time.perf_counter(), time.process_time()
        pause.wait(LOOK_EVERY_S)
        share = (time.process_time() - worked) / (time.perf_counter() - start)
        quiet = quiet + 1 if share < IDLE else 0


def _warm(feed: Feed, warmup: int | None) -> None:
    if warmup is None:
        warmup = 1 if feed.elements is None else max(feed.elements, feed.epoch or 0)
    if warmup < 0:
        raise ValueError(f"a warm-up of {warmup} elements or epochs cannot be read")
    if feed.elements is None:
        for _ in range(warmup):
            feed.lap()
    elif warmup:
        feed.lap(warmup)


def _timed(feed: Feed) -> tuple[float, int, int]:
    if feed.elements is not None:
        feed.opened()
    start = time.perf_counter()
    count, size = feed.lap()
    return time.perf_counter() - start, count, size


def _told(laps: list[tuple[float, int, int]], peak_mb: float) -> Throughput:
    counts = [count for _, count, _ in laps]
    return Throughput(
        ms=tuple(1000 * seconds / count for seconds, count, _ in laps),
        elements=counts[-1],
        mb=sum(size for *_, size in laps) / sum(counts) / MB,
        peak_mb=peak_mb,
    )


def _check(repeats: int) -> None:
    if repeats < 1:
        raise ValueError(f"at least 1 repeat is needed, not {repeats}")


def _digits(value: float) -> str:
    """Three digits that count, and thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.2g}"
