"""What was seen of a pipeline that ran, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from helpers.timing import advice
from helpers.timing.model import kind, plain

COLUMNS = ("ms an element", "calls", "at a time", "at work", "buffered")


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline that ran.

    Args:
        name: given with `name=`, else what it does ("batch"); joined by " + " if fused.
        operation: TensorFlow's name, "ParallelMapV2" say.
        depth: 0 for the one that gives the result; its inputs one more.
        calls: elements that it gave while it was watched, those for the buffers among them.
        self_ms: milliseconds on the clock, without its inputs, for one element of the result.
        parallelism: calls that run at a time.
        share: of the time in which it was at work on all of these calls; 1.0 sets the pace.
        buffered_mb: decimal MB that lay ready in it, at most.
        given: the name was given with `name=`.
        added: by TensorFlow; the program does not have it.
        python: its function calls Python.
    """

    name: str
    operation: str
    depth: int
    calls: int
    self_ms: float
    parallelism: int
    share: float
    buffered_mb: float
    given: bool = False
    added: bool = False
    python: bool = False

    @property
    def kind(self) -> str:
        """The operation without versions and variants: "Map" for "ParallelMapV2"."""
        return kind(self.operation)


@dataclass(frozen=True)
class Explanation:
    """What `explain` saw. `print` draws it.

    Args:
        stages: from the result to the sources, every stage before its inputs.
        ms: milliseconds an element, from one to the next.
        elements: that were watched.
        cores_busy: processor cores that this process kept at work, on average.
        others_busy: cores that other programs kept at work.
        cores: that TensorFlow counts on.
        waiting: fraction of the time in which the step had to wait for elements; None without one.
        filling: a cache was not complete yet.
    """

    stages: tuple[Stage, ...]
    ms: float
    elements: int
    cores_busy: float
    others_busy: float
    cores: int
    waiting: float | None = None
    filling: bool = False

    @property
    def bottleneck(self) -> Stage:
        """The stage that takes longest for one element, on all its calls together."""
        return max(self.stages, key=lambda stage: stage.self_ms / stage.parallelism)

    @property
    def advice(self) -> str:
        """One sentence on what to try."""
        return advice.advice(self)

    def __str__(self) -> str:
        rows = [_row(stage) for stage in self.stages]
        sizes = [max(map(len, column)) for column in zip(*rows, ("", *COLUMNS), strict=True)]
        lines = [
            f"{self.ms:.3g} ms an element, {self.cores_busy:.1f} of {self.cores} cores at work"
            + ("" if self.waiting is None else f", the step waits {self.waiting:.0%} of the time"),
            _line(("", *COLUMNS), sizes),
        ]
        slowest = self.bottleneck if advice.sets_the_pace(self) else None
        for stage, row in zip(self.stages, rows, strict=True):
            lines.append(_line(row, sizes) + "  <-- bottleneck" * (stage is slowest))
        return "\n".join([*lines, self.advice])


def _row(stage: Stage) -> tuple[str, ...]:
    does = "added" if stage.added else "fused" if "And" in stage.kind else ""
    if stage.given and not does:
        does = plain(stage.kind)
    return (
        " " * stage.depth + stage.name + (f" ({does})" if does else ""),
        f"{stage.self_ms:,.2f}",
        f"{stage.calls:,}",
        str(stage.parallelism),
        f"{stage.share:.0%}",
        f"{stage.buffered_mb:,.1f} MB" if stage.buffered_mb >= 0.05 else "-",
    )


def _line(cells: tuple[str, ...], sizes: list[int]) -> str:
    first, *rest = (
        cell.ljust(size) if not place else cell.rjust(size)
        for place, (cell, size) in enumerate(zip(cells, sizes, strict=True))
    )
    return "  ".join([first, *rest])
