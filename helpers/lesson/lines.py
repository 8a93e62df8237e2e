"""How a training went: `show.lines`.

    show.lines({"training": history["loss"], "validation": history["val_loss"]},
               unit="cross-entropy a pixel", title="Validation stops improving at epoch 8")

Each line has a dash and a marker of its own and ends at its name and last value, so that it can be
read without a legend and without colours. Up to 15 values have a marker each; of more, some have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from helpers.lesson import figures, line_panels, panels
from helpers.lesson.curve_panels import MARKERS
from helpers.lesson.figures import PALETTE, TEXT_POINTS, figure
from helpers.lesson.line_panels import Line

ON_WHITE = {PALETTE["lesion"]: "#B3A100"}  # yellow is made for images; on white it is darker


def lines(
    values: Mapping[str, Sequence[float]] | Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str,
    unit: str | Mapping[str, str],
    x: str = "epoch",
    alt: str | None = None,
) -> None:
    """Show how quantities went, one value an epoch, as lines that end at their names.

    Args:
        values: a sequence for each name, drawn at x = 1, 2, ...; they may differ in length. NaN
            leaves a gap. A mapping of such mappings makes a chart for each of its names, side by
            side, each with axes of its own. Eight names at most; in all charts, a name has the
            same colour, dash and marker.
        title: the finding, as a sentence.
        unit: of the values, with what they are: "cross-entropy a pixel". A mapping gives each
            chart its own.
        x: what the values are counted in.
        alt: alternative text; made from title and values if left out.

    Raises:
        ValueError: without a line, for more than 8 names, for a line without a number, with an
            infinite one or with what is none, for charts beside lines, for a chart without a unit.
    """
    of_charts = [str(name) for name, given in values.items() if isinstance(given, Mapping)]
    if of_charts and len(of_charts) < len(values):
        alone = [str(name) for name in values if str(name) not in of_charts]
        raise ValueError(
            f"all are lines or all are charts; {', '.join(of_charts)} is a mapping, as a chart is, "
            f"{', '.join(alone)} is not"
        )
    if isinstance(unit, Mapping) and not of_charts:
        raise ValueError(f"without charts, unit is one text, not {dict(unit)!r:.60}")
    groups = values if of_charts else {"": values}
    charts = {
        str(name): [_line(str(called), line) for called, line in group.items()]
        for name, group in groups.items()
    }
    if not all(charts.values()):
        raise ValueError("there is no line to draw")
    units = {str(k): v for k, v in unit.items()} if isinstance(unit, Mapping) else None
    units = dict.fromkeys(charts, unit) if units is None else units
    if unknown := [name for name in charts if name not in units]:
        raise ValueError(f"no unit for {', '.join(unknown)}")
    if strangers := [name for name in units if name not in charts]:
        raise ValueError(f"unit for {', '.join(strangers)}, where no chart is")
    names = list(dict.fromkeys(line.name for chart in charts.values() for line in chart))
    if len(names) > len(MARKERS):
        raise ValueError(f"from 1 to {len(MARKERS)} lines can be told apart, not {len(names)}")

    styles = _styles(names)
    gaps = any(np.isnan(line.values).any() for chart in charts.values() for line in chart)
    note = "gap in a line: no value" if gaps else ""
    fig, axes = line_panels.layout(
        charts, title, units, panels.foot_height(note, {}) if note else 0.0
    )
    for ax, (name, chart) in zip(axes, charts.items(), strict=True):
        _draw(ax, chart, styles, len(charts) > 1)
        figures.plain_axes(ax, x, line_panels.unit_lines(units[name], line_panels.inches_high(ax)))
    if note:
        panels.foot(fig, note, {})
    figure(fig, alt or _alt(title, charts, units, x, note))


def _line(name: str, given) -> Line:
    wrong = f"{name}: a line is a sequence of numbers, not {given!r:.60}"
    try:
        values = np.asarray(given, float)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(wrong) from error
    if values.ndim != 1 or np.isnan(values).all():
        raise ValueError(wrong)
    if np.isinf(values).any():
        place = 1 + int(np.argmax(np.isinf(values)))
        raise ValueError(f"{name}: value {place} is infinite; NaN leaves a gap")
    return Line(name, values)


def _styles(names: Sequence[str]) -> dict[str, dict]:
    """Colour, dash and marker for each name."""
    return {
        name: {
            "color": ON_WHITE.get(tone, tone),
            "linestyle": figures.LINES[position % len(figures.LINES)],
            "linewidth": 1.6,
            "marker": MARKERS[position],
            "markersize": 6 if position < 5 else 8,
            "markeredgecolor": "white",
            "markeredgewidth": 0.6,
        }
        for position, (name, tone) in enumerate(
            zip(names, figures.tones(names, figures.SERIES), strict=True)
        )
    }


def _draw(ax, chart: Sequence[Line], styles: Mapping[str, dict], together: bool) -> None:
    for position, line in enumerate(chart):
        places = np.arange(1, len(line.values) + 1)
        # Markers of long lines stand at different places, so that none covers another's.
        marks = line.marked(position / len(chart))
        ax.plot(places, line.values, markevery=marks, zorder=3, **styles[line.name])
    longest = max(len(line.values) for line in chart)
    room = 0.03 * (longest - 1) or 0.5
    ax.set_xlim(1 - room, longest + room)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    low, high = line_panels.limits(chart)
    ax.set_ylim(low, high)
    ax.set_yticks(*line_panels.ticks(low, high))
    ax.grid(axis="y", color=PALETTE["grid"], linewidth=0.6)
    ax.set_axisbelow(True)
    inches = line_panels.inches_high(ax)
    ends = np.array([(line.end[1] - low) / (high - low) * inches for line in chart])
    levels = line_panels.apart(ends, line_panels.label_heights(chart, together), inches)
    reach = 1 + line_panels.LEADER_INCHES / (ax.get_position().width * figures.PAGE_INCHES)
    for line, level in zip(chart, levels, strict=True):
        ax.annotate(
            line_panels.said(line, together),
            line.end,
            (reach, level / inches),
            textcoords="axes fraction",
            va="center",
            size=TEXT_POINTS,
            color=PALETTE["line"],
            linespacing=1.1,
            # Thin and grey, so that nobody takes it for a part of the line.
            arrowprops={
                "arrowstyle": "-",
                "color": PALETTE["muted"],
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def _alt(
    title: str, charts: Mapping[str, list[Line]], units: Mapping[str, str], x: str, note: str
) -> str:
    parts = []
    for name, chart in charts.items():
        said = []
        for line in chart:
            first, last = int(line.places[0]), line.end[0]
            text = f"{line.name} {line_panels.number(line.values[first - 1])} at {x} {first}"
            if last > first:
                least, most = (int(f(line.values)) for f in (np.nanargmin, np.nanargmax))
                text += f", {line_panels.number(line.end[1])} at {x} {last}"
                text += f" (least {line_panels.number(line.values[least])} at {least + 1},"
                text += f" greatest {line_panels.number(line.values[most])} at {most + 1})"
            if missing := int(np.isnan(line.values).sum()):
                text += f", {missing} missing"
            said.append(text)
        parts.append(f"{name + ', ' if name else ''}{units[name]}: {'; '.join(said)}")
    text = f"{title.rstrip('.')}. Lines, {'. '.join(parts)}."
    return f"{text} {note[:1].upper()}{note[1:]}." if note else text
