"""Charts of quantities that a notebook has measured: `show.bars` and `show.timeline`.

A row's name and its value stand beside it, so a chart can be read without its axis and colours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from helpers.lesson.show import page
from helpers.timing import spans
from helpers.timing.spans import STEP, WAIT

ROW_INCHES = 0.36
VANISHING = 60  # a bar so many times shorter than the longest could not be seen
WAITING = {"color": "white", "edgecolor": "C1", "hatch": "/////"}


def bars(
    values: Mapping,
    *,
    title: str,
    unit: str | Mapping[str, str],
    marked: Collection[str] = (),
    alt: str | None = None,
) -> None:
    """Show measured quantities as bars from 0, or as points where bars would be too short to see.

    Args:
        values: name -> quantity, or repeated measurements: then the bar is their median, and
            whiskers reach from the least to the greatest. A mapping of such mappings, all with the
            same names, makes charts side by side, because sizes and seconds share no axis.
        title: the finding, as a sentence.
        unit: of the values; a mapping gives each chart its own.
        marked: names of bars that the title is about: in another colour, and with a sign.
        alt: alternative text; made from title and values if left out.

    Example:
        show.bars({"files": [12, 13], "records": [3, 4]}, unit="ms", title="Records are faster")
    """
    charts = values if isinstance(next(iter(values.values())), Mapping) else {"": values}
    units = unit if isinstance(unit, Mapping) else dict.fromkeys(charts, unit)
    names = list(next(iter(charts.values())))
    tones = ["C1" if name in marked else "C0" for name in names]
    labels = [textwrap.fill(f"▸ {name}" if name in marked else name, 28) for name in names]
    room = 100 // len(charts)  # characters below a chart
    height = ROW_INCHES * sum(label.count("\n") / 2 + 1 for label in labels) + 0.5
    fig, axes = page.chart(title, height=height, columns=len(charts), sharey=True, squeeze=False)
    said = []
    for ax, (heading, group) in zip(axes[0], charts.items(), strict=True):
        quantity = textwrap.fill(
            f"{units[heading]}{draw_bars(ax, list(group.values()), tones)}", room
        )
        ax.set(title=heading, xlabel=quantity, ylim=(len(names) - 0.4, -0.6))
        ax.set_yticks(range(len(names)), labels)
        values = [f"{name} {number(np.median(value))}" for name, value in group.items()]
        said.append(f"{heading} {', '.join(values)} {units[heading]}".strip())
    page.figure(fig, alt or f"{title.rstrip('.')}. Bars: {'; '.join(said)}.")


def draw_bars(ax: Axes, values: Sequence, tones: Sequence[str]) -> str:
    """Draw one chart; returns what has to be said beside its unit."""
    runs = [(np.median(value), np.min(value), np.max(value)) for value in values]
    middle, least, most = np.transpose(runs)
    rows = range(len(runs))
    said = ""
    if 0 < VANISHING * middle.min() < middle.max():
        said = ", logarithmic axis"
        ax.set(xscale="log", xlim=(least.min() / 2, 3 * most.max()))
        ax.scatter(middle, rows, s=60, c=tones)
        ax.xaxis.set_major_formatter(lambda value, place: number(value))
        ax.grid()
    else:
        ax.set_xlim(0, 1.25 * most.max())
        ax.barh(rows, middle, height=0.66, color=tones)
    if (most > least).any():
        said += "; median, least and greatest"
        ends = (middle - least, most - middle)
        ax.errorbar(middle, rows, xerr=ends, fmt="none", ecolor="#333333", capsize=3)
    for row, value, end in zip(rows, middle, most, strict=True):
        ax.annotate(number(value), (end, row), (8, 0), textcoords="offset points", va="center")
    ax.tick_params(axis="y", length=0)
    return said


def number(value: float) -> str:
    """A number with three digits, as people write it: 1,234 or 0.0123."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def timeline(line, *, title: str, alt: str | None = None) -> None:
    """Show when each stage of a pipeline worked, from the first training step to the last.

    Args:
        line: a `timing.Timeline`; a mapping of them makes a chart for each of its names, one below
            the other, on one scale of time.
        title: the finding, as a sentence.
        alt: alternative text; made from title and fractions of the time if left out.

    A row is a stage, a bar a call of it; calls that overlap lie in lanes below one another. The
    last row is the training step; where it is hatched, the step waits for its element.

    Raises:
        ValueError: if nothing was recorded.

    Example:
        show.timeline({"before": line, "after": another}, title="Prefetch feeds the model")
    """
    lines = line if isinstance(line, Mapping) else {"": line}
    rows = [len(one.stages) + 1 for one in lines.values()]
    grid = {"rows": len(lines), "sharex": True, "squeeze": False, "height_ratios": rows}
    fig, axes = page.chart(title, height=ROW_INCHES * sum(rows) + 0.4 * len(lines), **grid)
    said = []
    for ax, (name, one) in zip(axes[:, 0], lines.items(), strict=True):
        shown = spans.within(one.spans, *spans.window(one.spans))
        did = {}
        for row, stage in enumerate(one.stages):
            calls = [span for span in shown if span.stage == stage]
            did[stage] = f"{len(calls)} × {number(spans.lasting_ms(calls))} ms"
            draw_calls(ax, row, calls, color="C2", edgecolor="white")
        for stage, look in {WAIT: WAITING, STEP: {"color": "C0"}}.items():
            draw_calls(ax, len(did), [span for span in shown if span.stage == stage], **look)
        did[STEP] = f"works {one.fed:.0%}"
        for row, text in enumerate(did.values()):
            ax.text(1.01, row, text, va="center", transform=ax.get_yaxis_transform())
        ax.set_yticks(range(len(did)), [textwrap.fill(stage, 28) for stage in did])
        ax.set(title=name, ylim=(len(did) - 0.4, -0.6))
        ax.grid(axis="x")
        rows = ", ".join(f"{stage} {text}" for stage, text in did.items())
        said.append(f"{name} {rows}".strip())
    axes[-1, 0].set(xlabel="time (ms); each bar: a call; hatched: the step waits")
    axes[-1, 0].set_xlim(left=0)
    page.figure(fig, alt or f"{title.rstrip('.')}. {'; '.join(said)}.")


def draw_calls(ax: Axes, row: int, calls: Sequence, **look) -> None:
    """Bars for the calls of a stage; those that overlap lie in lanes below one another."""
    height = 0.7 / (1 + max((span.lane for span in calls), default=0))
    middles = [row - 0.35 + height * (span.lane + 0.5) for span in calls]
    starts = [1000 * span.start_s for span in calls]
    lengths = [1000 * (span.stop_s - span.start_s) for span in calls]
    ax.barh(middles, lengths, height, starts, linewidth=0.6, **look)
