"""What pictures of curves are made of: a line and marker for each, panels in rows, a legend."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D

from helpers import evaluation
from helpers.errors import CourseDataError
from helpers.lesson import figures
from helpers.lesson.figures import PALETTE, TEXT_POINTS

MARKERS = "os^DvPX*"  # as many as curves that can be told apart
ACROSS = 4  # panels in a row
LEFT_INCHES, UNDER_INCHES, GAP_INCHES, BETWEEN_INCHES = 0.68, 0.45, 0.14, 0.32
LINE_INCHES = 0.17
WRAP = 38  # characters of a legend's line
CHARACTER_INCHES = 0.066
DOTTED = {"color": PALETTE["muted"], "linestyle": (0, (1, 2)), "linewidth": 1.2}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One classifier: its name, how it is drawn, its labels int64 and scores float64 `[n]`."""

    name: str
    line: Mapping[str, object]
    marks: Mapping[str, object]
    labels: np.ndarray
    scores: np.ndarray

    @property
    def handle(self) -> Line2D:
        """For the legend."""
        return Line2D([], [], **self.line | self.marks)


def curves_of(curves: Mapping[str, Sequence], probabilities: bool = False) -> list[Curve]:
    """Curves from `(labels, scores)` by name; their place decides on colour, dash and marker.

    Raises:
        ValueError: without a curve, for more than 8, for what is no pair; and for scores as
            `evaluation.operating_point` refuses them, with the name of the curve.
        CourseDataError: as `evaluation.operating_point`, with the name of the curve.
    """
    if not 0 < len(curves) <= len(MARKERS):
        raise ValueError(f"from 1 to {len(MARKERS)} curves can be told apart, not {len(curves)}")
    made = []
    for position, (name, pair) in enumerate(curves.items()):
        if len(pair) != 2:
            raise ValueError(f"{name}: a curve is a pair of labels and scores, not {len(pair)}")
        try:
            labels, scores = evaluation.checked(*pair, probabilities=probabilities)
        except CourseDataError as error:
            raise CourseDataError(error.code, f"{name}: {error.message}") from error
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        tone = figures.colour(str(name), position)
        dash = figures.LINES[position % len(figures.LINES)]
        line = {"color": tone, "linestyle": dash, "linewidth": 1.6}
        marks = {"color": tone, "marker": MARKERS[position], "markersize": 6 if position < 5 else 8}
        marks |= {"markeredgecolor": "white", "markeredgewidth": 0.6}
        made.append(Curve(str(name), line, marks, labels, scores))
    return made


def layout(
    title: str,
    count: int,
    heights: Sequence[float],
    *,
    wide: float | None = None,
    heads: Sequence[str] = (),
    foot: float = 0.0,
):
    """A page of panels in rows, all sizes in inches.

    Args:
        title: of the page.
        count: of panels.
        heights: of the axes of a panel, which lie below one another and share the x axis.
        wide: width of a panel; all that there is, if left out.
        heads: a text above each panel.
        foot: room at the bottom of the page.

    Returns:
        The figure, and for each row and each of its panels the axes from the top.
    """
    page = figures.PAGE_INCHES
    rows = -(-count // ACROSS)
    columns = -(-count // rows)
    if wide is None:
        wide = (page - LEFT_INCHES - 0.15 - BETWEEN_INCHES * (columns - 1)) / columns
    heads = [wrapped(text, int(wide / CHARACTER_INCHES)) for text in heads]
    head = 0.06 + LINE_INCHES * max((text.count("\n") + 1 for text in heads), default=0)
    high = head + sum(heights) + GAP_INCHES * (len(heights) - 1)
    blocks = [[(page - 0.1, high)]] * rows
    fig, whole = figures.page(
        blocks, title, names=False, max_height=high, left=0.0, under=UNDER_INCHES, foot=foot
    )
    tall = fig.get_figheight()
    made = []
    for row, (block,) in enumerate(whole):
        top = block.get_position().y1 * tall - head
        block.remove()
        made.append([])
        for column in range(min(columns, count - row * columns)):
            x, y, axes = LEFT_INCHES + column * (wide + BETWEEN_INCHES), top, []
            for height in heights:
                place = (x / page, (y - height) / tall, wide / page, height / tall)
                axes.append(fig.add_axes(place, sharex=axes[0] if axes else None))
                y -= height + GAP_INCHES
            if heads:
                style = {"size": TEXT_POINTS + 0.5, "color": PALETTE["line"]}
                axes[0].set_title(heads[row * columns + column], loc="left", pad=4, **style)
            made[-1].append(tuple(axes))
    return fig, made


def legend_height(texts: Sequence[str]) -> float:
    """Inches that `legend` takes."""
    return sum(0.09 + 0.155 * (wrapped(text).count("\n") + 1) for text in texts)


def legend(ax, entries: Sequence[tuple[Line2D, str]]) -> None:
    """Beside the axes, where it hides nothing."""
    handles, texts = zip(*entries, strict=True)
    ax.legend(
        handles,
        [wrapped(text) for text in texts],
        loc="upper left",
        bbox_to_anchor=(1.03, 1),
        frameon=False,
        fontsize=TEXT_POINTS + 0.5,
        labelcolor=PALETTE["line"],
        handlelength=3,
        labelspacing=0.6,
        borderpad=0,
        borderaxespad=0,
    )


def wrapped(text: str, width: int = WRAP) -> str:
    """Each line of a text in lines of at most this many characters."""
    return "\n".join(textwrap.fill(line, width) for line in text.split("\n"))
