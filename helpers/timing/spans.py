"""When each stage of a pipeline worked, and the arithmetic on it; no TensorFlow in here.

`timing.Timeline` records spans, `show.timeline` draws them.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

WAIT, STEP = "wait", "train"  # what `Timeline.run` calls the two halves of a turn


@dataclasses.dataclass(frozen=True)
class Span:
    """One call of a stage.

    Args:
        stage: its name.
        start_s, stop_s: in seconds from the first start of the record.
        lane: calls of one stage that overlap in time lie in different lanes, from 0.

    Taught in: tuning the pipeline
    """

    stage: str
    start_s: float
    stop_s: float
    lane: int = 0


def in_lanes(rows: Iterable[tuple]) -> tuple:
    """Spans sorted by their start, in as few lanes as will do.

    Args:
        rows: `(stage, start, stop)`; times in seconds, kept as they are.

    >>> [span.lane for span in in_lanes([("read", 0, 2), ("read", 1, 3), ("read", 2, 4)])]
    [0, 1, 0]

    Taught in: no lesson; `Timeline` and its pictures use it
    """
    ends, spans = {}, []  # stage -> end of the last call in each of its lanes
    for stage, start, stop in sorted(rows, key=lambda row: row[1:]):
        lanes = ends.setdefault(stage, [])
        lane = next((n for n, end in enumerate(lanes) if end <= start), len(lanes))
        lanes[lane : lane + 1] = [stop]
        spans.append(Span(stage, start, stop, lane))
    return tuple(spans)


def window(spans: Sequence[Span]) -> tuple:
    """From the first turn of the step to its last, in seconds; of all spans if none is a step's.

    Args:
        spans: of one record.

    Raises:
        ValueError: without spans.

    Taught in: no lesson; `Timeline` and its pictures use it
    """
    turns = [span for span in spans if span.stage in (WAIT, STEP)] or spans
    if not turns:
        raise ValueError("nothing was recorded: run a pipeline with recorded stages first")
    return min(span.start_s for span in turns), max(span.stop_s for span in turns)


def within(spans: Iterable[Span], start_s: float, stop_s: float) -> tuple:
    """What of the spans lies in a window, cut at its ends, with its start as the new 0.

    Args:
        spans: of one record.
        start_s, stop_s: the window, in seconds.

    Taught in: no lesson; pictures of a `Timeline` use it
    """
    return in_lanes(
        (span.stage, max(span.start_s, start_s) - start_s, min(span.stop_s, stop_s) - start_s)
        for span in spans
        if span.stop_s > start_s and span.start_s < stop_s
    )


def busy(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of the spans was at work: overlaps count once.

    Args:
        spans: in any order.

    >>> busy([Span("read", 0, 2), Span("read", 1, 3), Span("read", 7, 8)])
    4.0

    Taught in: no lesson; `Timeline` and its pictures use it
    """
    total, until = 0.0, -np.inf
    for span in sorted(spans, key=lambda span: span.start_s):
        total += max(0.0, span.stop_s - max(span.start_s, until))
        until = max(until, span.stop_s)
    return total


def lasting_ms(spans: Iterable[Span]) -> float:
    """The median length of spans, in ms; 0 without any.

    Args:
        spans: of one stage, say.

    Taught in: no lesson; pictures of a `Timeline` use it
    """
    return 1000 * float(np.median([span.stop_s - span.start_s for span in spans] or [0.0]))
