"""Named pictures in rows, as `show.outlines` and `show.points` lay them out."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from helpers.lesson import figures
from helpers.lesson.figures import TEXT_POINTS
from helpers.lesson.views import Cut

GAP_INCHES = 0.12
MOST = 4  # panels a row, unless more are asked for
ALONE_INCHES, HIGHEST_INCHES = 3.2, 2.4  # of panels in one row, in several
MOST_OF_ONE = 2  # an RGB image of floats from 0 to 1 may exceed 1 after resizing, up to this


@functools.cache
def text_inches(text: str, points: float = TEXT_POINTS) -> float:
    """Width of the longest line of a text, at whatever resolution it is drawn."""
    paths = [TextPath((0, 0), line, size=points) for line in text.split("\n") if line.strip()]
    # Letters that are fitted to pixels run up to 5 % wider than their outlines.
    return 1.05 / 72 * max((float(path.get_extents().x1) for path in paths), default=0.0)


def heading(name: str, inches: float | None = None) -> str:
    """A name as it stands above its panel: in more lines where it is too long for one.

    Args:
        name: of the panel.
        inches: width that there is; that of the page, if left out.
    """
    free = _free(1) if inches is None else inches
    text, width = name, len(name)
    while width > 1 and text_inches(text, TEXT_POINTS + 1) > free:
        # Never less than one character narrower, so that it ends.
        width = min(width - 1, int(width * free / text_inches(text, TEXT_POINTS + 1)) + 2)
        text = textwrap.fill(name, width)
    return text


def cut_of(name: str, image, spacing: Sequence[float] | None = None) -> Cut:
    """A picture ready to be drawn.

    Args:
        name: of the picture, for the error.
        image: grey `[y, x]` or `[y, x, 1]`, any numbers; or RGB `[y, x, 3]`, uint8 or floats. These
            run from 0 to 1 if none is above 2, as resizing can overshoot, else from 0 to 255; what
            lies outside is clipped.
        spacing: mm between rows and between columns, if known.

    Raises:
        ValueError: for another shape, with the name; for a spacing that is not positive.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    if not (pixels.ndim == 2 or colour) or not pixels.size:
        raise ValueError(f"{name}: an image is [y, x] or [y, x, 3], not {pixels.shape}")
    if colour and pixels.dtype != np.uint8:
        most = MOST_OF_ONE if pixels.dtype.kind == "f" else 1
        scale = 1.0 if pixels.max() > most else 255.0
        pixels = np.rint(np.clip(pixels * scale, 0, 255)).astype(np.uint8)
    if spacing is None:
        return Cut(pixels, (1.0, 1.0), measured=False)
    if len(spacing) != 2 or not min(spacing) > 0:
        raise ValueError(f"{name}: spacing is two lengths (y, x) in mm, not {spacing!r}")
    return Cut(pixels, (float(spacing[0]), float(spacing[1])))


def per_row(names: Sequence[str], columns: int | None = None) -> int:
    """Panels a row: as asked, else rows of like length; fewer where their names need the room."""
    total = len(names)
    most = min(columns or _even(total, MOST), total)
    widest = [_heading_inches(name) for name in names]
    fits = (
        count
        for count in (most, *(n for n in range(most - 1, 1, -1) if n == _even(total, n)))
        if all(sum(widest[i : i + count]) <= _free(count) for i in range(0, total, count))
    )
    return next(fits, 1)


def scale_of(sizes: Mapping[str, tuple[float, float]], count: int) -> float:
    """Inches a unit, at which rows of `count` panels and their names fit the page."""
    rows = _rows(sizes, count)
    highest = ALONE_INCHES if len(rows) == 1 else HIGHEST_INCHES
    largest = highest / max(height for _, height in sizes.values())
    # Names keep their width, so the scale is searched for, in steps of 2 %.
    tried = largest * 0.98 ** np.arange(400)
    return float(next((s for s in tried if all(_fits(row, s) for row in rows)), tried[-1]))


def page(
    sizes: Mapping[str, tuple[float, float]],
    title: str,
    *,
    columns: int | None = None,
    under: float = 0.0,
    foot: float = 0.0,
) -> tuple[Figure, dict[str, object]]:
    """A page with axes for each picture, all to one scale, with room for their `heading`s.

    Args:
        sizes: width and height by name, in a unit common to all.
        title: of the page.
        columns: panels a row at most; chosen if left out.
        under: room below each row, in inches.
        foot: room at the bottom of the page, in inches.

    Returns:
        The figure, and the axes by name.
    """
    rows = _rows(sizes, per_row(list(sizes), columns))
    scale = scale_of(sizes, len(rows[0]))
    widths = [[(max(w, _heading_inches(n) / scale), h) for n, (w, h) in row] for row in rows]
    highest = scale * max(height for _, height in sizes.values())
    lines = max(1 + heading(name).count("\n") for name in sizes)
    fig, axes = figures.page(
        widths, title, names=lines, under=under, foot=foot, gap=GAP_INCHES, max_height=highest
    )
    flat = [ax for row in axes for ax in row]
    for ax in flat:
        ax.set_anchor("NW")
    return fig, dict(zip(sizes, flat, strict=True))


def _even(total: int, most: int) -> int:
    """Panels a row, so that as few rows as `most` allows are of like length."""
    return -(-total // -(-total // most))


def _heading_inches(name: str) -> float:
    """What a name needs above its panel, as `panels.draw` writes it."""
    return min(text_inches(name, TEXT_POINTS + 1), _free(1))


def _free(count: int) -> float:
    """Inches for all panels of a row, as `figures.page` leaves them."""
    return figures.PAGE_INCHES - count * (0.02 + GAP_INCHES) + GAP_INCHES - 0.04


def _rows(sizes: Mapping[str, tuple[float, float]], count: int) -> list[list]:
    items = list(sizes.items())
    return [items[i : i + count] for i in range(0, len(items), count)]


def _fits(row: Sequence, scale: float) -> bool:
    inches = sum(max(scale * width, _heading_inches(name)) for name, (width, _) in row)
    return inches <= _free(len(row)) + 1e-6
