"""What pictures of trainings are made of: a line, its name at its end, charts in rows."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from helpers.lesson import figures
from helpers.lesson.panel_grid import heading, text_inches

UNDER_INCHES, BETWEEN_INCHES = 0.45, 0.1
TICK_INCHES = 0.18  # of a tick, and between its number and the unit beside it
HIGH_INCHES, TOGETHER_INCHES = 2.6, 2.0  # of a chart alone, and of one among several
NARROWEST_INCHES = 1.05  # of the axes of a chart; below that, charts take another row
LEADER_INCHES = 0.2  # from the axes to the names of the lines
NAME_POINTS = figures.TEXT_POINTS + 1  # of a chart
LINE_INCHES, UNIT_INCHES = 0.15, 0.165  # of a line of a name, of a unit
WRAP, WRAP_TOGETHER = 24, 13  # characters of a name on one line
ALL_MARKED = 15  # a line of as many values or fewer has a marker at each
MARKS = 7  # of a longer line, about
LEAST_ROOM = 1e-280  # below about 1e-287, matplotlib takes the ends of an axis for the same


@dataclasses.dataclass(frozen=True)
class Line:
    """Values at x = 1, 2, ...; NaN where there is none."""

    name: str
    values: np.ndarray

    @property
    def places(self) -> np.ndarray:
        """The x of all values that there are."""
        return 1 + np.flatnonzero(~np.isnan(self.values))

    @property
    def end(self) -> tuple[int, float]:
        """The x and the value of the last one."""
        last = int(self.places[-1])
        return last, float(self.values[last - 1])

    def marked(self, shift: float) -> list[int]:
        """Where markers stand, from 0: at every value of a short line.

        With a marker at some of them only, these would be taken for all that was measured. A
        longer line has markers back from its end, and where no neighbour is.

        Args:
            shift: from 0 to below 1, another for each long line, so that none covers another's
                marker.
        """
        there = ~np.isnan(self.values)
        if there.sum() <= ALL_MARKED:
            return [int(n) for n in np.flatnonzero(there)]
        beside = np.pad(there, 1)
        alone = there & ~beside[:-2] & ~beside[2:]
        step = max(1, round(len(self.values) / MARKS))
        last = self.end[0] - 1
        back = np.arange(last - step - int(shift * step), -1, -step)
        return [int(n) for n in sorted({last, *back, *np.flatnonzero(alone)}) if there[n]]


def said(line: Line, together: bool) -> str:
    """What stands at the end of a line: its name and last value."""
    last = number(line.end[1])
    if together:
        return textwrap.fill(line.name, WRAP_TOGETHER) + f"\n{last}"
    return textwrap.fill(f"{line.name} {last}", WRAP)


def label_heights(chart: Sequence[Line], together: bool) -> np.ndarray:
    """Inches that the names at the ends of the lines take."""
    return np.array([0.04 + LINE_INCHES * (1 + said(n, together).count("\n")) for n in chart])


def layout(charts: Mapping[str, list[Line]], title: str, units: Mapping[str, str], foot: float):
    """A page with axes for each chart below its name, in as few rows as leave each wide enough.

    Args:
        charts: lines by name of the chart.
        title: of the page.
        units: by name of the chart.
        foot: room at the bottom of the page, in inches.

    Returns:
        The figure, and the axes in the order of the charts.
    """
    together = len(charts) > 1
    high = max(
        TOGETHER_INCHES if together else HIGH_INCHES,
        *(label_heights(chart, together).sum() for chart in charts.values()),
    )
    margins = []  # left and right of the axes of each chart
    for name, chart in charts.items():
        numbers = max(map(text_inches, ticks(*limits(chart))[1]))
        labels = max(text_inches(said(line, together)) for line in chart)
        left = TICK_INCHES + numbers + UNIT_INCHES * (1 + unit_lines(units[name], high).count("\n"))
        margins.append((left, LEADER_INCHES + labels + 0.06))
    page = figures.PAGE_INCHES
    for columns in range(len(charts), 0, -1):
        of_columns = [np.max(margins[column::columns], axis=0) for column in range(columns)]
        free = page - np.sum(of_columns) - BETWEEN_INCHES * (columns - 1)
        rows = -(-len(charts) // columns)
        # Of as many rows, the one with the least empty place at its end.
        evenly = columns == -(-len(charts) // rows)
        wide = free / columns
        headed = all(
            text_inches(name, NAME_POINTS) <= wide + of_columns[n % columns][1]
            for n, name in enumerate(charts)
        )
        if columns == 1 or (evenly and headed and wide >= NARROWEST_INCHES):
            break
    # Only where there is one column, a name may need more than one line.
    headings = [heading(name, wide + of_columns[n % columns][1]) for n, name in enumerate(charts)]
    fig, whole = figures.page(
        [[(page - 0.1, high)]] * rows,
        title,
        names=max(1 + text.count("\n") for text in headings) if any(headings) else 0,
        max_height=high,
        under=UNDER_INCHES,
        foot=foot,
    )
    axes = []
    for row, (block,) in enumerate(whole):
        box, start = block.get_position(), 0.0
        block.remove()
        for left, right in of_columns[: len(charts) - row * columns]:
            place = ((start + left) / page, box.y0, wide / page, box.height)
            axes.append(fig.add_axes(place))
            start += left + wide + right + BETWEEN_INCHES
    for ax, text in zip(axes, headings, strict=True):
        ax.set_title(text, size=NAME_POINTS, color=figures.PALETTE["line"], loc="left", pad=4)
    return fig, axes


def limits(chart: Sequence[Line]) -> tuple[float, float]:
    """The least and the greatest value, with some room.

    Values too close to 0 for an axis of their own, such as 1e-320, get one on which they lie at 0.
    """
    values = np.concatenate([line.values for line in chart])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    # Numbers beside ticks have six digits, so that ticks must not lie closer than they can tell.
    room = max(0.05 * (high - low), 1e-3 * abs(high))
    room = room if room > LEAST_ROOM else 1.0
    return low - room, high + room


def ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Round places from `low` to `high`, and their numbers."""
    places = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    inside = [float(place) for place in places if low <= place <= high]
    return inside, [f"{place:g}".replace("-", "−") for place in inside]


def unit_lines(unit: str, high: float) -> str:
    """A unit, in lines that fit along an axis of this height."""
    return textwrap.fill(unit, int(high / 0.075))


def inches_high(ax) -> float:
    """Height of axes."""
    return ax.get_position().height * ax.get_figure().get_figheight()


def apart(wanted: np.ndarray, heights: np.ndarray, room: float) -> np.ndarray:
    """Middles from 0 to `room` that keep texts of these heights apart, as near as can be."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    # Less what lies below each text, they only have to rise.
    below = np.cumsum(heights[order]) - heights[order] / 2
    found = isotonic_regression(wanted[order] - below).x
    levels = np.empty_like(wanted)
    levels[order] = np.clip(found, 0, max(room - heights.sum(), 0)) + below
    return levels


def number(value: float) -> str:
    """Three digits, as people write them."""
    if value and not 1e-4 <= abs(value) < 1e15:
        text = f"{value:.2e}"
    else:
        text = f"{value:,.0f}" if abs(float(f"{value:.3g}")) >= 100 else f"{value:#.3g}"
    return (text.rstrip(".") if value else "0").replace("-", "−")
