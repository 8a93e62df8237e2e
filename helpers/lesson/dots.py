"""Repeated runs as dots: `show.dots`.

    show.dots({"nothing": [0.41, 0.52, 0.44], "class weights": [0.56, 0.49, 0.61]},
              unit="average precision", title="Class weights help, but not in every run")

A bar would hide what a mean of three runs is made of. Here each run stays a dot, and its row says
the mean and how surely it is known, so that the chart can be read without its axis or colours.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from helpers.lesson import figures, panels
from helpers.lesson.figures import PALETTE, TEXT_POINTS, figure

LEVEL = 0.95
WRAP = 24  # characters of a row's name on one line
CHARACTER_INCHES = 0.078
LINE_INCHES = 0.15
DOT_INCHES = 0.085
TICK_INCHES = 0.11
GAP_INCHES = 0.06  # between dots and the line of their mean, and to the neighbours' rows


@dataclasses.dataclass(frozen=True)
class _Row:
    """One treatment: its runs, and the interval of its mean; without runs, of its value."""

    name: str
    runs: tuple[float, ...]
    value: float
    low: float
    high: float

    @property
    def spread(self) -> bool:
        return self.low < self.high

    @property
    def ends(self) -> tuple[float, float]:
        return min(self.low, *self.runs, self.value), max(self.high, *self.runs, self.value)


def dots(
    values: Mapping[str, object],
    *,
    title: str,
    unit: str,
    reference: tuple[str, float] | None = None,
    alt: str | None = None,
) -> None:
    """Show repeated runs as a row of dots for each treatment, with their mean and its interval.

    Args:
        values: for each name its runs, one finite number each: a dot a run, a tick at the mean
            and, from two runs on, a line for the 95 % interval of the mean. An object with
            `value`, `low` and `high`, as `evaluation.bootstrap` returns it, becomes a tick and a
            line without dots.
        title: the finding, as a sentence.
        unit: of the values, with what they are: "average precision", "minutes an epoch".
        reference: name and place of a vertical line to compare with: `("prevalence", 0.05)`.
        alt: alternative text; made from title and values if left out.

    The interval is mean ± t · sd / √n with n - 1 degrees of freedom (Student 1908). It speaks of
    further runs of the same kind, no more: runs that differ only in their seed say nothing about
    other patients.

    Raises:
        ValueError: without a row or a run, for a value that is not finite, for an interval whose
            ends are swapped, for a reference that is no pair of name and number.
    """
    rows = [_row(str(name), given) for name, given in values.items()]
    if not rows:
        raise ValueError("there is no row to draw")
    reference = _reference(reference)
    decimals = _decimals(rows)
    note = _note(rows)
    fig, ax, lanes = _layout(rows, title, decimals, note, reference)
    for position, (row, middle) in enumerate(zip(rows, ax.get_yticks(), strict=True)):
        _draw(ax, row, middle, figures.colour(row.name, position), lanes[position])
        ax.annotate(
            _said(row, decimals),
            (1, middle),
            (8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            size=TEXT_POINTS + 0.5,
            color=PALETTE["line"],
        )
    if reference is not None:
        _draw_reference(ax, *reference)
    figures.plain_axes(ax, unit)
    ax.locator_params(axis="x", nbins=8)
    ax.tick_params(axis="y", length=0, labelsize=TEXT_POINTS + 0.5)
    ax.spines["left"].set_visible(False)
    panels.foot(fig, note, {})
    figure(fig, alt or _alt(title, unit, rows, decimals, note, reference))


def _row(name: str, given) -> _Row:
    if all(hasattr(given, part) for part in ("value", "low", "high")):
        value, low, high = (float(part) for part in (given.value, given.low, given.high))
        # A percentile interval of a skewed metric need not hold the value.
        if not np.isfinite([value, low, high]).all() or low > high:
            raise ValueError(f"{name}: {value:g} ({low:g} to {high:g}) is no interval")
        return _Row(name, (), value, low, high)
    runs = np.atleast_1d(np.asarray(given, float))
    if runs.ndim != 1 or not runs.size or not np.isfinite(runs).all():
        raise ValueError(f"{name}: runs are one finite number each, not {given!r:.60}")
    mean = float(runs.mean())
    half = 0.0
    if runs.size > 1:
        from scipy import stats

        sd = float(runs.std(ddof=1))
        half = float(stats.t.ppf((1 + LEVEL) / 2, runs.size - 1)) * sd / np.sqrt(runs.size)
    return _Row(name, tuple(runs.tolist()), mean, mean - half, mean + half)


def _reference(given) -> tuple[str, float] | None:
    if given is None:
        return None
    if not (isinstance(given, Sequence) and len(given) == 2 and isinstance(given[0], str)):
        raise ValueError(f"reference is a pair of name and number, not {given!r:.60}")
    name, place = given[0], float(given[1])
    if not np.isfinite(place):
        raise ValueError(f"{name}: a reference needs a finite place, not {place}")
    return name, place


def _limits(rows: Sequence[_Row], reference) -> tuple[float, float]:
    """From the least to the greatest thing drawn, with room for half a dot."""
    ends = [end for row in rows for end in row.ends] + ([reference[1]] if reference else [])
    low, high = min(ends), max(ends)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _layout(rows: Sequence[_Row], title: str, decimals: int, note: str, reference):
    """A page with one row for each treatment, and the lane of each dot; y is in inches."""
    page = figures.PAGE_INCHES
    names = [_wrapped(row.name) for row in rows]
    left = 0.14 + CHARACTER_INCHES * max(len(line) for name in names for line in name.split("\n"))
    right = 0.25 + CHARACTER_INCHES * max(len(_said(row, decimals)) for row in rows)
    low, high = _limits(rows, reference)
    wide = DOT_INCHES * (high - low) / (page - left - right)
    lanes = [_lanes(row.runs, wide) for row in rows]
    heights = [
        2 * GAP_INCHES + max(_inches(lane), LINE_INCHES * (1 + name.count("\n")))
        for lane, name in zip(lanes, names, strict=True)
    ]
    fig, ((ax,),) = figures.page(
        [[(page - 0.04, sum(heights))]],
        title,
        names=reference is not None,
        under=0.42,
        foot=panels.foot_height(note, {}),
        max_height=sum(heights),
    )
    box = ax.get_position()
    ax.set_position((left / page, box.y0, (page - left - right) / page, box.height))
    ax.set_xlim(low, high)
    ax.set_ylim(sum(heights), 0)
    bottoms = np.cumsum(heights)
    ax.set_yticks(bottoms - np.asarray(heights) / 2, names)
    for bottom in bottoms[:-1]:
        ax.axhline(bottom, color=PALETTE["grid"], linewidth=0.6, zorder=0)
    return fig, ax, lanes


def _lanes(runs: Sequence[float], wide: float) -> list[int]:
    """A lane for each dot: the lowest in which no other dot is within `wide`, its own width."""
    lanes = [0] * len(runs)
    last: list[float] = []
    for position in np.argsort(runs, kind="stable"):
        free = (lane for lane, end in enumerate(last) if runs[position] - end >= wide)
        lane = next(free, len(last))
        last[lane : lane + 1] = [runs[position]]
        lanes[position] = lane
    return lanes


def _inches(lanes: Sequence[int]) -> float:
    """Height of what is drawn in a row: dots, if there are any, above the line of the mean."""
    return TICK_INCHES + (GAP_INCHES + DOT_INCHES * (1 + max(lanes)) if lanes else 0)


def _draw(ax, row: _Row, middle: float, tone: str, lanes: Sequence[int]) -> None:
    bottom = middle + _inches(lanes) / 2
    if lanes:
        first = bottom - TICK_INCHES - GAP_INCHES - DOT_INCHES / 2
        ax.scatter(
            row.runs,
            [first - DOT_INCHES * lane for lane in lanes],
            s=(72 * DOT_INCHES) ** 2,
            facecolor=tone,
            edgecolor="white",
            linewidth=0.6,
            zorder=3,
        )
    at = bottom - TICK_INCHES / 2
    if row.spread:
        ax.plot([row.low, row.high], [at, at], color=PALETTE["line"], linewidth=1.3)
    tick = [bottom - TICK_INCHES, bottom]
    ax.plot([row.value] * 2, tick, color=PALETTE["line"], linewidth=2.4, solid_capstyle="butt")


def _draw_reference(ax, name: str, place: float) -> None:
    ax.axvline(place, color=PALETTE["line"], linewidth=1.1, linestyle=(0, (1, 1.5)), zorder=1)
    low, high = ax.get_xlim()
    share = (place - low) / (high - low)
    ax.annotate(
        name,
        (place, 1),
        (0, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if share < 0.3 else "right" if share > 0.7 else "center",
        size=TEXT_POINTS,
        color=PALETTE["line"],
    )


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, WRAP)) or name


def _decimals(rows: Sequence[_Row]) -> int:
    """Decimals that give the largest number of the chart three digits."""
    largest = max(abs(end) for row in rows for end in row.ends)
    return int(np.clip(2 - np.floor(np.log10(largest)), 0, 6)) if largest else 0


def _number(value: float, decimals: int) -> str:
    """With the sign that the axis has, and no sign before a zero."""
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")


def _said(row: _Row, decimals: int) -> str:
    value, low, high = (_number(part, decimals) for part in (row.value, row.low, row.high))
    return f"{value} ({low} to {high})" if row.spread else value


def _note(rows: Sequence[_Row]) -> str:
    """What dots, ticks and lines are."""
    parts = []
    if any(row.runs for row in rows):
        counts = {len(row.runs) for row in rows if row.runs}
        each = f", {counts.pop()} a row" if len(counts) == 1 else ""
        parts.append(f"dots: runs{each}; tick: mean")
        if any(row.runs and row.spread for row in rows):
            parts.append("line: 95 % interval of the mean, ± t · sd / √n")
    if any(not row.runs for row in rows):
        parts.append("without dots: a value and its interval")
    return "; ".join(parts)


def _alt(title, unit, rows: Sequence[_Row], decimals: int, note: str, reference) -> str:
    parts = []
    for row in rows:
        runs = ", ".join(_number(run, decimals) for run in row.runs)
        several = f", runs {runs}" if len(row.runs) > 1 else ""
        parts.append(f"{row.name} {_said(row, decimals)}{several}")
    text = f"{title.rstrip('.')}. Dots in rows, {unit}: {'; '.join(parts)}."
    if reference is not None:
        text += f" A vertical line marks {reference[0]}, {reference[1]:.3g}."
    return f"{text} {note[:1].upper()}{note[1:]}."
