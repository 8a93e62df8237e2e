"""What the panels of a picture are made of: a grey image in mm, letters, a scale bar, outlines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from helpers import intensity
from helpers.lesson import figures
from helpers.lesson.figures import PALETTE, TEXT_POINTS
from helpers.lesson.views import Cut

ON_IMAGE = {
    "size": TEXT_POINTS,
    "weight": "bold",
    "color": "white",
    "path_effects": [withStroke(linewidth=2, foreground="black")],
}
SCALE_BARS_MM = (5, 10, 20, 50, 100)
FOOT_LINE = 0.27


def limits(image: np.ndarray, window=None) -> tuple[float, float]:
    """The values shown black and white.

    Args:
        image: any shape; NaN and infinities are left out.
        window: `(center, width)`, a name from `intensity.WINDOWS`, or None for the range between
            the percentiles 0.5 and 99.5.

    Raises:
        ValueError: for a name that is not in the table or a width that is not positive.
    """
    if isinstance(window, str):
        if window not in intensity.WINDOWS:
            known = ", ".join(intensity.WINDOWS)
            raise ValueError(f"no window is called {window!r}; there are {known}")
        window = intensity.WINDOWS[window]
    if window is not None:
        center, width = window
        if width <= 0:
            raise ValueError(f"a window needs a positive width, not {width}")
        return center - width / 2, center + width / 2
    values = np.asarray(image).ravel()
    values = values[:: max(1, values.size // 1_000_000)].astype(float)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [0.5, 99.5])
    if high <= low:  # mostly one value, as in a mask
        low, high = values.min(), values.max()
    return float(low), float(high if high > low else low + 1)


def shared_limits(arrays: Iterable[np.ndarray], window=None) -> tuple[float, float]:
    """The range that holds the `limits` of every array."""
    lows, highs = zip(*(limits(array, window) for array in arrays), strict=True)
    return min(lows), max(highs)


def window_text(window) -> str:
    """How a caption names a window."""
    if window is None:
        return "grey from percentile 0.5 (black) to 99.5 (white)"
    name = f"{window} window, " if isinstance(window, str) else "window "
    center, width = intensity.WINDOWS[window] if isinstance(window, str) else window
    return f"{name}centre {center:g}, width {width:g}"


def draw(ax, cut: Cut, low_high: tuple[float, float], name: str = "") -> None:
    """One image, grey or RGB, with axes in mm and the frame hidden."""
    low, high = low_high
    width, height = cut.size_mm
    extent = (0, width, height, 0)
    if cut.pixels.ndim == 3:
        ax.imshow(cut.pixels, extent=extent)
    else:
        ax.imshow(np.asarray(cut.pixels, float), "gray", vmin=low, vmax=high, extent=extent)
    ax.set_aspect("equal")
    ax.set_axis_off()
    if name:
        ax.set_title(name, size=TEXT_POINTS + 1, color=PALETTE["line"], loc="left", pad=3)


def letter(ax, cut: Cut) -> None:
    """The patient directions, at the four edges inside the image."""
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
    sides = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for text, place, (ha, va) in zip(cut.letters, places, sides, strict=False):
        ax.text(*place, text, transform=ax.transAxes, ha=ha, va=va, **ON_IMAGE)


def scale_bar(ax, cut: Cut) -> None:
    """A bar of a round length at the bottom left, a third of the width at most.

    None where the spacing is not known.
    """
    width, height = cut.size_mm
    fitting = [mm for mm in SCALE_BARS_MM if mm <= width / 3]
    if not fitting or not cut.measured:
        return
    start, level = 0.05 * width, height * 0.94
    effects = [withStroke(linewidth=4, foreground="black")]
    ax.plot(
        [start, start + fitting[-1]],
        [level, level],
        color="white",
        linewidth=2,
        path_effects=effects,
        solid_capstyle="butt",
    )
    ax.annotate(
        f"{fitting[-1]} mm",
        (start, level),
        (0, 3),
        textcoords="offset points",
        ha="left",
        va="bottom",
        **ON_IMAGE,
    )


def outline(ax, mask: np.ndarray, cut: Cut, names: Mapping[int, str], fill: float = 0.0) -> None:
    """Lines half way between the pixels inside and outside of each class of a mask.

    Args:
        ax: axes in mm, as `draw` leaves them.
        mask: class ids `[row, column]`.
        cut: the image under it; gives the spacing.
        names: the classes to draw, in the order that decides on line and colour.
        fill: opacity of the area, at most 0.4.
    """
    row_mm, column_mm = cut.spacing
    rows, columns = mask.shape
    # A border of nothing closes outlines that touch the edge of the image.
    y = (np.arange(rows + 2) - 0.5) * row_mm
    x = (np.arange(columns + 2) - 0.5) * column_mm
    for position, (value, name) in enumerate(names.items()):
        inside = np.pad(mask == value, 1).astype(float)
        if not inside.any():
            continue
        tone = figures.colour(name, position)
        if fill:
            ax.contourf(x, y, inside, [0.5, 1.5], colors=[tone], alpha=min(fill, 0.4))
        dash = figures.LINES[position % len(figures.LINES)]
        ax.contour(x, y, inside, [0.5], colors="black", linewidths=2.6, alpha=0.5)
        ax.contour(x, y, inside, [0.5], colors=[tone], linewidths=1.6, linestyles=[dash])
    width, height = cut.size_mm
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)


def foot_height(note: str, names: Mapping[int, str]) -> float:
    """Inches that `foot` needs at the bottom of a page."""
    return FOOT_LINE * sum(_foot_lines(note, names))


def foot(fig, note: str, names: Mapping[int, str]) -> None:
    """A quiet note at the bottom left, and to the right or below it what the outlines are."""
    note_lines, legend_lines = _foot_lines(note, names)
    height = fig.get_figheight()
    fig.text(
        0.02 / figures.PAGE_INCHES,
        (0.07 + FOOT_LINE * legend_lines * note_lines) / height,
        note[:1].upper() + note[1:],
        size=TEXT_POINTS,
        color=PALETTE["muted"],
        va="bottom",
    )
    if not names:
        return
    handles = [
        Line2D(
            [],
            [],
            label=name,
            linewidth=2,
            color=figures.colour(name, position),
            linestyle=figures.LINES[position % len(figures.LINES)],
        )
        for position, name in enumerate(names.values())
    ]
    # On grey, as over the image: yellow does not show on white.
    fig.legend(
        handles=handles,
        loc="lower right",
        fontsize=TEXT_POINTS + 0.5,
        bbox_to_anchor=(1, 0),
        ncols=-(-len(handles) // max(legend_lines, 1)),
        borderaxespad=0.1,
        borderpad=0.25,
        handlelength=2.6,
        columnspacing=1.4,
        labelspacing=0.3,
        facecolor="#4D4D4D",
        labelcolor="white",
        edgecolor="none",
        framealpha=1,
        fancybox=False,
    )


def _foot_lines(note: str, names: Mapping[int, str]) -> tuple[int, int]:
    """Lines that the note and the legend take for themselves; 1 and 0 if they share one."""
    note_inches = 0.08 * len(note)
    legend_inches = sum(0.62 + 0.085 * len(name) for name in names.values())
    if note_inches + legend_inches < figures.PAGE_INCHES:
        return 1, 0
    return 1, int(np.ceil(legend_inches / figures.PAGE_INCHES))


def names_of(mask: np.ndarray | None, labels: Mapping[int, str] | None) -> dict[int, str]:
    """The classes of a mask that have a name; without names, all but the background 0."""
    if mask is None:
        return {}
    if labels is not None:
        return {int(value): str(name) for value, name in labels.items() if value != 0}
    values = [int(value) for value in np.unique(mask) if value]
    return {value: "mask" if len(values) == 1 else f"class {value}" for value in values}
