"""Charts of quantities that a notebook has measured: `show.bars`.

    show.bars({"float list": 12.3, "bytes": 3.1}, unit="ms", title="A float list is read slower")

Bars are horizontal and start at 0, each has its name beside it and its value at its end, so a chart
can be read without its axis and without colours.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patheffects import withStroke

from helpers.lesson import figures, panels
from helpers.lesson.figures import PALETTE, TEXT_POINTS, figure

ROW_INCHES = 0.3
LINE_INCHES = 0.14
BAR_INCHES = 0.2
WRAP = 24  # characters of a bar's name on one line
CHARACTER_INCHES = 0.078


@dataclasses.dataclass(frozen=True)
class _Bar:
    """One quantity: its value, and the least and greatest that was measured."""

    name: str
    value: float
    low: float
    high: float
    runs: int = 1

    @property
    def spread(self) -> bool:
        return self.low < self.high


def bars(
    values: Mapping[str, float | Sequence[float]] | Mapping[str, Mapping],
    *,
    title: str,
    unit: str | Mapping[str, str],
    spread: Mapping[str, tuple[float, float]] | Mapping[str, Mapping] | None = None,
    alt: str | None = None,
) -> None:
    """Show measured quantities as horizontal bars, with their spread as whiskers.

    Args:
        values: a quantity for each name, 0 or more. A sequence is taken as repeated measurements:
            the bar is their median, the whiskers reach from the least to the greatest. A mapping
            of such mappings makes a chart for each of its names, side by side, each with an axis
            of its own, because sizes and seconds share none.
        title: the finding, as a sentence.
        unit: of the values, with what they are if the names do not say it: "MB", "ms a volume".
            A mapping gives each group its own.
        spread: `(least, greatest)` by name, for quantities whose runs are not handed over; of the
            form of `values`.
        alt: alternative text; made from title and values if left out.

    Raises:
        ValueError: without a bar, for a value that is negative or not finite, for a spread that
            does not hold its value or that belongs to no bar, for a group without a unit.
    """
    grouped = bool(values) and all(isinstance(group, Mapping) for group in values.values())
    groups = values if grouped else {"": values}
    spreads = (spread or {}) if grouped else {"": spread or {}}
    units = unit if isinstance(unit, Mapping) else dict.fromkeys(groups, unit)
    for what, given in (("unit", units), ("spread", spreads)):
        _refuse_strangers(what, given, groups)
    if unknown := [name for name in groups if name not in units]:
        raise ValueError(f"no unit for {', '.join(unknown)}")
    charts = {name: _bars_of(group, spreads.get(name, {})) for name, group in groups.items()}
    if not charts or not all(charts.values()):
        raise ValueError("there is no bar to draw")

    note = _note([bar for chart in charts.values() for bar in chart])
    fig, axes = _layout(charts, title, panels.foot_height(note, {}) if note else 0.0)
    # A name keeps its colour from chart to chart.
    order = dict.fromkeys(bar.name for chart in charts.values() for bar in chart)
    colours = {name: figures.colour(name, position) for position, name in enumerate(order)}
    for ax, (name, chart) in zip(axes, charts.items(), strict=True):
        _draw(ax, chart, units[name], name, colours)
    if note:
        panels.foot(fig, note, {})
    figure(fig, alt or _alt(title, charts, units, note))


def _refuse_strangers(what: str, given: Mapping, known: Mapping) -> None:
    strangers = [str(name) for name in given if name not in known]
    if strangers:
        raise ValueError(f"{what} for {', '.join(strangers)}, where no bars are")


def _bars_of(values: Mapping, spread: Mapping[str, tuple[float, float]]) -> list[_Bar]:
    _refuse_strangers("spread", spread, values)
    made = []
    for name, value in values.items():
        runs = np.atleast_1d(np.asarray(value, float))
        if not runs.size or not np.isfinite(runs).all() or runs.min() < 0:
            raise ValueError(f"{name}: a bar needs finite values of 0 or more, not {value!r:.60}")
        median = float(np.median(runs))
        low, high = (float(end) for end in spread.get(name, (runs.min(), runs.max())))
        if not low <= median <= high:
            raise ValueError(f"{name}: {median:g} is not between {low:g} and {high:g}")
        made.append(_Bar(name, median, low, high, runs.size))
    return made


def _layout(charts: Mapping[str, list[_Bar]], title: str, foot: float):
    """A page with axes for each chart; names stand at the left, once if all charts share them."""
    names = {chart: [_wrapped(bar.name) for bar in bars_] for chart, bars_ in charts.items()}
    shared = all(other == next(iter(names.values())) for other in names.values())
    margins = [
        0.1 if shared and position else 0.14 + CHARACTER_INCHES * _longest(group)
        for position, group in enumerate(names.values())
    ]
    rows = max(len(group) for group in names.values())
    lines = max(text.count("\n") + 1 for group in names.values() for text in group)
    height = rows * (ROW_INCHES + LINE_INCHES * (lines - 1))
    # One panel as wide as the page; the charts divide it.
    width = figures.PAGE_INCHES - 0.04
    grouped = any(charts)
    fig, ((whole,),) = figures.page(
        [[(width, height)]], title, names=grouped, under=0.42, foot=foot, max_height=height
    )
    box = whole.get_position()
    whole.remove()
    gap = 0.18
    free = width - sum(margins) - gap * (len(charts) - 1) - 0.05
    axes, x = [], 0.02
    for margin, group in zip(margins, names.values(), strict=True):
        x += margin
        inches = free / len(charts)
        # Fewer bars than in the longest chart: the same thickness, from the top.
        part = box.height * len(group) / rows
        place = (x / figures.PAGE_INCHES, box.y1 - part, inches / figures.PAGE_INCHES, part)
        ax = fig.add_axes(place)
        ax.set_yticks(range(len(group)), group if margin > 0.1 else [""] * len(group))
        axes.append(ax)
        x += inches + gap
    return fig, axes


def _draw(ax, chart: list[_Bar], unit: str, heading: str, colours: Mapping[str, str]) -> None:
    """The bars of one chart, the first on top."""
    box, fig = ax.get_position(), ax.get_figure()
    inches = box.width * fig.get_figwidth()
    thickness = BAR_INCHES * len(chart) / (box.height * fig.get_figheight())
    texts = [_number(bar.value) for bar in chart]
    # Leave room for each value behind its bar, whatever the scale.
    label_inches = [0.12 + CHARACTER_INCHES * len(text) for text in texts]
    limit = max(
        bar.high * inches / max(inches - room, 0.2 * inches)
        for bar, room in zip(chart, label_inches, strict=True)
    )
    figures.plain_axes(ax, unit)
    for row, (bar, text) in enumerate(zip(chart, texts, strict=True)):
        ax.barh(row, bar.value, height=thickness, color=colours[bar.name])
        if bar.spread:
            edge = [withStroke(linewidth=2.4, foreground="white")]
            style = {"color": PALETTE["line"], "linewidth": 1.1, "path_effects": edge}
            ax.plot([bar.low, bar.high], [row, row], solid_capstyle="butt", **style)
            cap = [row - thickness / 4, row + thickness / 4]
            for end in (bar.low, bar.high):
                ax.plot([end, end], cap, solid_capstyle="butt", **style)
        ax.annotate(
            text,
            (bar.high, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            size=TEXT_POINTS + 0.5,
            color=PALETTE["line"],
        )
    ax.set_xlim(0, limit or 1.0)
    ax.set_ylim(len(chart) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=int(np.clip(inches / 0.45, 2, 8)))
    ax.xaxis.set_major_formatter(lambda value, _: _number(value))
    ax.tick_params(axis="y", length=0, labelsize=TEXT_POINTS + 0.5)
    if heading:
        ax.set_title(heading, size=TEXT_POINTS + 1, color=PALETTE["line"], loc="left", pad=4)


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, WRAP)) or name


def _longest(names: Sequence[str]) -> int:
    return max(len(line) for name in names for line in name.split("\n"))


def _number(value: float) -> str:
    """Three digits, as people write them: 0.0123, 1.23, 12.3, 1,234."""
    if value and not 1e-4 <= value < 1e15:
        return f"{value:.2e}"
    rounded = float(f"{value:.3g}")
    return f"{value:,.0f}" if rounded >= 100 else f"{rounded:g}"


def _note(chart: Sequence[_Bar]) -> str:
    """What bars and whiskers are, where there is a spread."""
    if not any(bar.spread for bar in chart):
        return ""
    runs = {bar.runs for bar in chart if bar.spread}
    if runs == {1}:
        return "whiskers: least to greatest value"
    of = f" of {runs.pop()} runs" if len(runs) == 1 else ""
    return f"bars: median{of}; whiskers: least to greatest"


def _alt(title: str, charts: Mapping[str, list[_Bar]], units: Mapping[str, str], note: str) -> str:
    parts = []
    for name, chart in charts.items():
        said = [
            f"{bar.name} {_number(bar.value)}"
            + (f" (from {_number(bar.low)} to {_number(bar.high)})" if bar.spread else "")
            for bar in chart
        ]
        parts.append(f"{name + ' ' if name else ''}in {units[name]}: {', '.join(said)}")
    text = f"{title.rstrip('.')}. Bars, {'; '.join(parts)}."
    return f"{text} {note[:1].upper()}{note[1:]}." if note else text
