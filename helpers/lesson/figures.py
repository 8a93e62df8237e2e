"""One page for every picture: colours, layout, a PNG within budget, alternative text.

A picture here is a matplotlib `Figure` on a page 8 inches (800 CSS pixels) wide, drawn without
pyplot's global state, so that a notebook needs no magic and leaves no open figure behind.
"""

from __future__ import annotations

import base64
import io
import itertools
import sys
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

# After Okabe and Ito: told apart with any colour vision, on white and on grey images. The same
# thing keeps its colour throughout the course.
PALETTE = {
    "liver": "#E69F00",
    "spleen": "#56B4E9",
    "kidneys": "#009E73",
    "lesion": "#F0E442",
    "tumour": "#F0E442",
    "lungs": "#0072B2",
    "bone": "#CC79A7",
    "heart": "#D55E00",
    "body": "#999999",
    "prediction": "#56B4E9",
    "truth": "#E69F00",
    "good": "#0072B2",
    "bad": "#D55E00",
    "line": "#333333",
    "muted": "#6B6B6B",
    "grid": "#D9D9D9",
}
FURNITURE = ("line", "muted", "grid")  # of a page: no thing is called so
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Nothing needs colour alone: the second thing in a picture has another line as well.
LINES = ("solid", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))

PAGE_INCHES = 8.0
CSS_PIXELS_PER_INCH = 100
BUDGET_BYTES = 80_000
TEXT_POINTS = 9


def colour(name: str, position: int = 0) -> str:
    """The palette's colour for a thing, as `known_colour`, else the next of `SERIES`."""
    return known_colour(name) or SERIES[position % len(SERIES)]


def known_colour(name: str) -> str | None:
    """The palette's colour for a thing ("left kidney" is a kidney), None for any other name."""
    words = name.lower().replace("_", " ").split()
    for key, value in PALETTE.items():
        if key not in FURNITURE and any(word.rstrip("s") == key.rstrip("s") for word in words):
            return value
    return None


def tones(
    names: Sequence[str], series: Sequence[str], called: Mapping[str, str] | None = None
) -> list[str]:
    """A colour for each of several names, no two the same while there are enough.

    A thing that the palette knows keeps its colour, whatever stands before it.

    Args:
        names: each another one.
        series: colours for all others, in this order.
        called: colours of further names, in small letters.
    """
    known: dict[str, str] = {}
    for name in names:
        tone = (called or {}).get(name.lower(), known_colour(name))
        if tone is not None and tone not in known.values():
            known[name] = tone
    free = itertools.cycle([tone for tone in series if tone not in known.values()] or series)
    return [known[name] if name in known else next(free) for name in names]


def figure(fig: Figure, alt: str) -> None:
    """Show a matplotlib figure once, as a PNG of at most 80 kB with alternative text.

    Args:
        fig: a `matplotlib.figure.Figure`; one made through pyplot is closed.
        alt: what the picture shows, for those who cannot see it. It is stored twice: as `alt` in
            the output's metadata, where nbconvert looks for it, and as `text/plain`, which
            readers without pictures show instead.

    Raises:
        ValueError: if `alt` is empty.

    Nothing is shown outside IPython.
    """
    if not alt.strip():
        raise ValueError("a figure needs alternative text: say what there is to see")
    show_bundle(*bundle(fig, alt))


def bundle(fig: Figure, alt: str) -> tuple[dict, dict]:
    """The figure as Jupyter's mime bundle and its metadata; the figure is closed."""
    png = render(fig)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(fig)
    width = round(fig.get_figwidth() * CSS_PIXELS_PER_INCH)
    alt = " ".join(alt.split())
    # The width keeps a picture drawn at twice the resolution at its size, but sharp.
    data = {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": alt}
    return data, {"image/png": {"alt": alt, "width": width}}


def show_bundle(data: dict, metadata: dict) -> None:
    """Hand a mime bundle to the notebook; without IPython, do nothing."""
    if notebook_shell() is not None:
        from IPython.display import display

        display(data, metadata=metadata, raw=True)


def notebook_shell():
    """The running IPython shell, or None."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def render(fig: Figure, budget: int = BUDGET_BYTES) -> bytes:
    """Draw a figure as a PNG that fits the budget; the same figure gives the same bytes.

    Args:
        fig: the figure; its layout is kept, its resolution chosen here.
        budget: the most bytes that the PNG may have.

    Twice the screen's resolution if that fits, else as much as fits with 64 greys; fewer greys
    before less than the screen's resolution, where text would suffer. Noise, which does not
    compress, hides with its grain that greys are missing.
    """
    canvas = FigureCanvasAgg(fig)
    own_dpi = fig.dpi

    def draw(scale: float) -> np.ndarray:
        fig.set_dpi(scale * CSS_PIXELS_PER_INCH)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3]

    try:
        scale = 2.0
        while True:
            rgb = draw(scale)
            for levels in (64,) if scale > 1 else (64, 32, 24):
                png = _encode(rgb, levels)
                if len(png) <= budget:
                    break
            if len(png) <= budget:
                break
            smaller = scale * _scale_step(budget, len(png))
            scale = 1.0 if scale > 1 > smaller else smaller
        finer = _encode(rgb, 256)
        if len(finer) > budget and len(png) < 0.85 * budget:
            finer = _encode(draw(min(2.0, scale / _scale_step(len(png), 0.95 * budget))), 64)
        return finer if len(finer) <= budget else png
    finally:
        fig.set_dpi(own_dpi)


def _scale_step(wanted: float, have: float) -> float:
    """By what to scale a picture that is too large: bytes grow about as scale ** 1.5.

    At least by 5 %, so that a search with it ends.
    """
    return float(np.clip((wanted / have) ** (1 / 1.5), 0.5, 0.95))


def _encode(rgb: np.ndarray, levels: int) -> bytes:
    """PNG of `[y, x, 3]` uint8 with at most `levels` greys; below 256, with a palette."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    grey = (red == green) & (green == blue)
    # Each grey, and the nearest one that is kept.
    kept = np.round(np.arange(levels) * (255 / (levels - 1))).astype(np.uint8)
    index = np.round(np.arange(256) * ((levels - 1) / 255)).astype(np.uint8)
    if grey.all():
        image = Image.fromarray(kept[index[red]])
    elif levels == 256:
        image = Image.fromarray(np.ascontiguousarray(rgb))
    else:
        # Greys and colours have a share of the palette each, so that a thin coloured line does
        # not lose to a page of grey.
        count = min(256 - levels, 2 * levels)
        colours, indexed = rgb[~grey], index[red]
        own = _own_colours(colours)
        coloured = Image.fromarray(colours[None]).quantize(
            count - len(own), Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
        chosen = np.asarray(coloured)[0] + levels + len(own)
        for number, colour in enumerate(own):
            chosen[(colours == colour).all(axis=1)] = levels + number
        indexed[~grey] = chosen
        image = Image.frombytes("P", indexed.shape[::-1], indexed.tobytes())
        image.putpalette(
            [*np.repeat(kept, 3).tolist(), *own.ravel().tolist(), *coloured.getpalette()]
        )
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _own_colours(colours: np.ndarray) -> np.ndarray:
    """Which of the course's colours occur in `[n, 3]`: on a photograph, they would be the first to
    go when colours are made fewer."""
    known = {tuple(round(255 * part) for part in to_rgb(one)) for one in PALETTE.values()}
    own = [one for one in sorted(known) if len({*one}) > 1 and (colours == one).all(axis=1).any()]
    return np.array(own, np.uint8).reshape(-1, 3)


def page(
    rows: Sequence[Sequence[tuple[float, float]]],
    title: str,
    *,
    names: int = 1,
    max_height: float = 3.4,
    left: float = 0.02,
    under: float = 0.0,
    foot: float = 0.0,
    gap: float = 0.12,
) -> tuple[Figure, list[list]]:
    """A page with a title over rows of axes that all have one scale.

    Args:
        rows: `(width, height)` of each panel, in mm or any other unit common to all.
        title: the finding; wrapped, at the top left.
        names: lines of text above each panel that room is left for.
        max_height: the highest panel, in inches.
        left, under: room for axis labels left of each panel and under each row, in inches.
        foot: room at the bottom of the page, in inches.
        gap: between panels, in inches.

    Returns:
        The figure and its axes, in rows.
    """
    lines = textwrap.wrap(title, 78)
    head = (0.08 if names else 0.14) + 0.21 * len(lines)
    name = 0.24 + 0.17 * (names - 1) if names else 0.0
    free = min(PAGE_INCHES - len(row) * (left + gap) + gap - 0.04 for row in rows)
    scale = min(
        free / max(sum(width for width, _ in row) for row in rows),
        max_height / max(height for row in rows for _, height in row),
    )
    heights = [scale * max(height for _, height in row) for row in rows]
    page_height = head + sum(heights) + len(rows) * (name + under + gap) + foot
    fig = Figure(figsize=(PAGE_INCHES, page_height), facecolor="white")
    fig.text(
        0.02 / PAGE_INCHES,
        1 - 0.04 / page_height,
        "\n".join(lines),
        size=11.5,
        weight="bold",
        va="top",
        ha="left",
        linespacing=1.25,
        color=PALETTE["line"],
    )
    axes, top = [], page_height - head
    for row, row_height in zip(rows, heights, strict=True):
        x, top = 0.02 + left, top - name
        axes.append([])
        for width, height in row:
            box = (x, top - scale * height, scale * width, scale * height)
            axes[-1].append(
                fig.add_axes(
                    [
                        box[0] / PAGE_INCHES,
                        box[1] / page_height,
                        box[2] / PAGE_INCHES,
                        box[3] / page_height,
                    ]
                )
            )
            x += scale * width + gap + left
        top -= row_height + under + gap
    return fig, axes


def plain_axes(ax, xlabel: str = "", ylabel: str = "") -> None:
    """Ticks and labels in the course's size, and only the two spines that carry them."""
    ax.tick_params(labelsize=TEXT_POINTS, color=PALETTE["muted"], labelcolor=PALETTE["line"])
    ax.set_xlabel(xlabel, size=TEXT_POINTS + 0.5, color=PALETTE["line"])
    ax.set_ylabel(ylabel, size=TEXT_POINTS + 0.5, color=PALETTE["line"])
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(PALETTE["muted"])


def round_ticks(length_mm: float) -> np.ndarray:
    """Up to seven round positions from 0 along a length."""
    step = next((s for s in (1, 2, 5, 10, 20, 50, 100, 200) if length_mm / s <= 6), 500)
    return np.arange(0, length_mm + 1e-6, step)
