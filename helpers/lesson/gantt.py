"""Who worked when, as a picture: `show.timeline`.

    show.timeline({"before": line, "after": another}, title="Prefetch feeds the model")

Each row is a stage, each bar a call of it; the training step is the last row, and what is hatched
there is a model that waits. What a row did is also written beside it, so that a chart can be read
without its axis and without colours.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

from helpers.lesson import figures, panels
from helpers.lesson.figures import PALETTE, TEXT_POINTS, figure
from helpers.timing import spans
from helpers.timing.spans import STEP, WAIT, Span

WRAP = 24  # characters of a row's name on one line
CHARACTER_INCHES = 0.078
ROW_INCHES = 0.32
LINE_INCHES = 0.14
LANE_INCHES = 0.15
LANES_INCHES = 0.9  # at most, of all lanes of a row together
BAR_INCHES = 0.22
BESIDE_INCHES = 1.45
AXIS_INCHES = 0.34
SHORTEST_S = 1e-6  # of a chart: the tick of the clock
SECONDS_FROM = 2.0  # shorter charts count in ms
SHARPEST = 1600  # pixels that a page is wide at most; a shorter wait could not be seen
NOTE = "each bar: a call; hatched: the training step waits for its element"
COLOURS = {STEP: PALETTE["good"], WAIT: PALETTE["bad"], "": figures.SERIES[2]}


def timeline(line, *, title: str, alt: str | None = None) -> None:
    """Show when each stage of a pipeline worked, as a Gantt chart.

    Args:
        line: a `timing.Timeline`, or spans of one. A mapping of them makes a chart for each of its
            names, one below the other, on one scale of time.
        title: the finding, as a sentence.
        alt: alternative text; made from title and spans if left out.

    The rows above the training step stand in the order of the pipeline, or of their first results
    where only spans are known. Calls that overlap lie in lanes below one another. All fractions are
    of the time that is shown: from the first step to the last, or all of it if no step was
    recorded.

    Raises:
        ValueError: without spans.
    """
    lines = line if isinstance(line, Mapping) else {"": line}
    if not lines:
        raise ValueError("there is no timeline to draw")
    charts = {str(name): _chart(one) for name, one in lines.items()}
    seconds = max(chart.seconds for chart in charts.values())
    scale, unit = (1.0, "s") if seconds >= SECONDS_FROM else (1000.0, "ms")

    waits = any(row.stage == STEP for chart in charts.values() for row in chart.rows)
    note = NOTE if waits else NOTE.split(";")[0]
    fig, axes = _layout(charts, title, note)
    for ax, (name, chart) in zip(axes, charts.items(), strict=True):
        _draw(ax, chart, name, scale, seconds, last=ax is axes[-1])
    axes[-1].set_xlabel(f"time ({unit})", size=TEXT_POINTS + 0.5, color=PALETTE["line"])
    panels.foot(fig, note, {})
    figure(fig, alt or _alt(title, charts))


@dataclasses.dataclass(frozen=True)
class _Row:
    """What one stage did: its calls, and for the training step its waits as well."""

    stage: str
    calls: tuple[Span, ...]
    waits: tuple[Span, ...]
    seconds: float  # of the chart
    call_ms: float  # medians, of whole calls and waits, also where the chart cuts some
    wait_ms: float

    @property
    def lanes(self) -> int:
        return 1 + max((span.lane for span in self.calls), default=0)

    @property
    def inches(self) -> float:
        """Height of the bars."""
        return BAR_INCHES if self.lanes == 1 else min(LANES_INCHES, LANE_INCHES * self.lanes)

    @property
    def row_inches(self) -> float:
        """With the room between rows, and as high as the name needs."""
        lines = _wrapped(self.stage).count("\n")
        return max(ROW_INCHES + LINE_INCHES * lines, self.inches + ROW_INCHES - BAR_INCHES)

    @property
    def working(self) -> float:
        """The fraction of the time in which at least one call was at work."""
        return spans.busy(self.calls) / self.seconds

    def beside(self) -> str:
        if self.stage == STEP:
            return f"works {_percent(self.working)}"
        if not self.calls:
            return "no call"
        return f"{_calls(self.calls)} of {_ms(self.call_ms)}"

    def said(self) -> str:
        if self.stage == STEP:
            waiting = spans.busy(self.waits) / self.seconds
            length = f"; its median wait is {_ms(self.wait_ms)}"
            return (
                f"the training step worked {_percent(self.working)} of the time and waited "
                f"{_percent(waiting)}{length if self.waits else ''}"
            )
        if not self.calls:
            return f"{self.stage} did nothing"
        at_once = f", up to {self.lanes} at once" if self.lanes > 1 else ""
        return f"{self.stage} worked {_percent(self.working)} of it, {self.beside()}{at_once}"


@dataclasses.dataclass(frozen=True)
class _Chart:
    rows: tuple[_Row, ...]
    seconds: float

    @property
    def inches(self) -> float:
        return sum(row.row_inches for row in self.rows)


def _chart(line) -> _Chart:
    """The rows of one timeline, cut to what is shown, with its start as 0."""
    recorded = tuple(getattr(line, "spans", line))
    first, last = spans.window(recorded)
    shown = spans.within(recorded, first, last)
    whole = [span for span in recorded if span.stop_s > first and span.start_s < last]
    seconds = max(last - first, SHORTEST_S)
    known = list(getattr(line, "stages", ()))
    by_result = sorted(recorded, key=lambda span: span.stop_s)
    known += [span.stage for span in by_result if span.stage not in (WAIT, STEP)]
    names = list(dict.fromkeys(known))
    if any(span.stage in (WAIT, STEP) for span in recorded):
        names.append(STEP)
    rows = []
    for name in names:
        waiting = WAIT if name == STEP else None
        rows.append(
            _Row(
                name,
                tuple(span for span in shown if span.stage == name),
                tuple(span for span in shown if span.stage == waiting),
                seconds,
                spans.lasting_ms(span for span in whole if span.stage == name),
                spans.lasting_ms(span for span in whole if span.stage == waiting),
            )
        )
    return _Chart(tuple(rows), seconds)


def _layout(charts: Mapping[str, _Chart], title: str, note: str):
    """A page with a chart below the other, all with the same left and right edge."""
    width = figures.PAGE_INCHES - 0.04
    sizes = [[(width, chart.inches)] for chart in charts.values()]
    fig, axes = figures.page(
        sizes,
        title,
        names=any(charts),
        max_height=max(chart.inches for chart in charts.values()),
        foot=AXIS_INCHES + panels.foot_height(note, {}),
    )
    names = [_wrapped(row.stage) for chart in charts.values() for row in chart.rows]
    longest = max(len(part) for name in names for part in name.split("\n"))
    left = 0.14 + CHARACTER_INCHES * longest
    for (ax,) in axes:
        box = ax.get_position()
        inches = figures.PAGE_INCHES - left - BESIDE_INCHES
        ax.set_position(
            (left / figures.PAGE_INCHES, box.y0, inches / figures.PAGE_INCHES, box.height)
        )
    return fig, [ax for (ax,) in axes]


def _draw(ax, chart: _Chart, name: str, scale: float, seconds: float, last: bool) -> None:
    """The rows of one chart, the first on top; the y axis is in inches."""
    figures.plain_axes(ax)
    ax.tick_params(axis="y", length=0, labelsize=TEXT_POINTS + 0.5)
    ax.tick_params(axis="x", labelbottom=last)
    ax.set_xlim(0, seconds * scale)
    ax.set_ylim(chart.inches, 0)
    ax.grid(axis="x", color=PALETTE["grid"], linewidth=0.6)
    ax.set_axisbelow(True)
    top, middles = 0.0, []
    for row in chart.rows:
        middles.append(top + row.row_inches / 2)
        _bars(ax, row, middles[-1] - row.inches / 2, scale, seconds)
        ax.annotate(
            row.beside(),
            (1, middles[-1]),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            size=TEXT_POINTS,
            color=PALETTE["line"],
        )
        top += row.row_inches
    ax.set_yticks(middles, [_wrapped(row.stage) for row in chart.rows])
    if name:
        ax.set_title(name, size=TEXT_POINTS + 1, color=PALETTE["line"], loc="left", pad=4)


def _bars(ax, row: _Row, top: float, scale: float, seconds: float) -> None:
    """The calls of one row in their lanes, above the waits."""
    seen = [span for span in row.waits if span.stop_s - span.start_s > seconds / SHARPEST]
    if seen:
        ax.broken_barh(
            _ranges(seen, scale),
            (top, row.inches),
            facecolor="white",
            edgecolor=COLOURS[WAIT],
            hatch="/////",
            linewidth=0.7,
        )
    tone = COLOURS.get(row.stage, COLOURS[""])
    for lane in range(row.lanes):
        calls = [span for span in row.calls if span.lane == lane]
        if not calls:
            continue
        lasting = spans.lasting_ms(calls) / 1000
        # Neighbours are told apart where there is room; a short call must not vanish.
        wide = lasting > seconds / 100
        thickness = row.inches / row.lanes
        ax.broken_barh(
            _ranges(calls, scale),
            (top + lane * thickness, thickness * (0.9 if row.lanes > 1 else 1)),
            facecolor=tone,
            edgecolor="white" if wide else tone,
            linewidth=0.6 if wide else 0.4,
        )


def _ranges(some: Sequence[Span], scale: float) -> list[tuple[float, float]]:
    return [(span.start_s * scale, (span.stop_s - span.start_s) * scale) for span in some]


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, WRAP)) or name


def _calls(some: Sequence[Span]) -> str:
    return f"{len(some):,} call{'s' if len(some) > 1 else ''}"


def _percent(fraction: float) -> str:
    return "less than 1 %" if 0 < fraction < 0.005 else f"{100 * fraction:.0f} %"


def _ms(value: float) -> str:
    if 0 < value < 0.095:
        return f"{1000 * value:.2g} µs"
    return f"{value:,.0f} ms" if value >= 99.5 else f"{value:.2g} ms"


def _alt(title: str, charts: Mapping[str, _Chart]) -> str:
    parts = []
    for name, chart in charts.items():
        lasts = f"{chart.seconds:.3g} s" if chart.seconds >= 1 else _ms(1000 * chart.seconds)
        what = f"{name}, {lasts}" if name else f"A Gantt chart of {lasts}"
        parts.append(f"{what}: {'; '.join(row.said() for row in chart.rows)}")
    start = "Gantt charts. " if any(charts) else ""
    return f"{title.rstrip('.')}. {start}{'. '.join(parts)}."
