"""When each stage of a pipeline worked, and the arithmetic on it; no TensorFlow in here.

`helpers.timing.Timeline` records spans, `helpers.gantt` draws them.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable, Sequence

import numpy as np

WAIT, STEP = "wait", "train"  # what `Timeline.run` calls the two halves of a turn


@dataclasses.dataclass(frozen=True)
class Span:
    """One call of a stage.

    Attributes:
        stage: its name.
        start_s, stop_s: in seconds from the first start of the record.
        lane: calls of one stage that overlap in time lie in different lanes, from 0.
    """

    stage: str
    start_s: float
    stop_s: float
    lane: int = 0


def in_lanes(rows: Iterable[tuple[str, float, float]]) -> tuple[Span, ...]:
    """Spans of `(stage, start, stop)`, sorted by their start, in as few lanes as will do.

    Args:
        rows: times in seconds, kept as they are.
    """
    lanes: dict[str, _Lanes] = {}
    spans = []
    for stage, start, stop in sorted(rows, key=lambda row: (row[1], row[2], row[0])):
        lane = lanes.setdefault(stage, _Lanes()).take(start, stop)
        spans.append(Span(stage, start, stop, lane))
    return tuple(spans)


class _Lanes:
    """The lanes of one stage: which are in use until when, and which are free."""

    def __init__(self) -> None:
        self._used: list[tuple[float, int]] = []
        self._free: list[int] = []
        self._count = 0

    def take(self, start: float, stop: float) -> int:
        while self._used and self._used[0][0] <= start:
            heapq.heappush(self._free, heapq.heappop(self._used)[1])
        if self._free:
            lane = heapq.heappop(self._free)
        else:
            lane, self._count = self._count, self._count + 1
        heapq.heappush(self._used, (stop, lane))
        return lane


def window(spans: Sequence[Span]) -> tuple[float, float]:
    """From the first turn of the step to its last, in seconds; of all spans if none is a step's.

    Raises:
        ValueError: without spans.
    """
    turns = [span for span in spans if span.stage in (WAIT, STEP)] or list(spans)
    if not turns:
        raise ValueError("nothing was recorded: run a pipeline with recorded stages first")
    return min(span.start_s for span in turns), max(span.stop_s for span in turns)


def within(spans: Iterable[Span], start_s: float, stop_s: float) -> tuple[Span, ...]:
    """What of the spans lies in a window, cut at its ends, with `start_s` as the new 0."""
    rows = [
        (span.stage, max(span.start_s, start_s) - start_s, min(span.stop_s, stop_s) - start_s)
        for span in spans
        if span.stop_s > start_s and span.start_s < stop_s
    ]
    return in_lanes(rows)


def busy(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of the spans was at work: overlaps count once."""
    total, until = 0.0, -np.inf
    for span in sorted(spans, key=lambda span: span.start_s):
        total += max(0.0, span.stop_s - max(span.start_s, until))
        until = max(until, span.stop_s)
    return total


def fed(spans: Sequence[Span]) -> float:
    """The fraction of the time, from the first turn to the last, in which the step worked.

    Raises:
        ValueError: if no step was recorded.
    """
    _need_steps(spans)
    start, stop = window(spans)
    return busy(span for span in spans if span.stage == STEP) / (stop - start)


def waiting_ms(spans: Sequence[Span]) -> float:
    """The median wait of a step for its element, in ms.

    Raises:
        ValueError: if no step was recorded.
    """
    _need_steps(spans)
    return lasting_ms(span for span in spans if span.stage == WAIT)


def lasting_ms(spans: Iterable[Span]) -> float:
    """The median length of spans, in ms; 0 without any."""
    return 1000 * float(np.median([span.stop_s - span.start_s for span in spans] or [0.0]))


def _need_steps(spans: Sequence[Span]) -> None:
    if {WAIT, STEP} - {span.stage for span in spans}:
        raise ValueError("no step was recorded: Timeline.run(dataset, step, ...) records them")
