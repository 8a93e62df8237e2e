"""Images side by side, to one scale where spacings are known, with masks as outlines."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from helpers import intensity
from helpers.lesson.show import page
from helpers.lesson.show.views import IGNORE, PLANES, View, view
from helpers.volume import Volume

MOST_IN_A_ROW = 4
HIGHEST_INCHES = 3.6
NAME_INCHES = 0.2  # a line of a picture's name
NOTE_CHARACTERS = 110
FOOT_INCHES = 0.24  # a line of the note, or the legend
SCALE_BARS_MM = (1, 2, 5, 10, 20, 50, 100)
OTHERS = ("#F0E442", "#56B4E9", "#E69F00", "#CC79A7")  # outlines that the palette does not know
# Nothing needs colour alone: the second outline of a picture has another line as well.
DASHES = ("solid", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
EDGE = [withStroke(linewidth=2, foreground="black")]
WHITE = {"color": "white", "weight": "bold", "path_effects": EDGE}
CROSS = {
    "color": "white",
    "linewidth": 0.8,
    "linestyle": (0, (5, 4)),
    "alpha": 0.8,
}
# Of a legend on grey, as over an image: yellow does not show on white.
GREY = {
    "facecolor": "#4D4D4D",
    "labelcolor": "white",
    "frameon": True,
    "framealpha": 1,
}


def images(
    pictures: Mapping,
    *,
    title: str,
    window=None,
    spacing: Sequence[float] | None = None,
    plane: str = "axial",
    at: int | None = None,
    columns: int | None = None,
    alt: str | None = None,
) -> None:
    """Show pictures side by side, each alone or with masks as outlines.

    Args:
        pictures: name -> image, or `(image, {name: mask})`. An image is an array `[y, x]`,
            `[y, x, 1]` or `[y, x, 3]` in colour, or a slice of a `Volume` or an array `[z, y, x]`.
            Masks have its shape: 1 or True inside, 255 (hatched) where pixels do not count.
        title: the finding, as a sentence.
        window: `(center, width)`, a name from `intensity.WINDOWS`, or None for the range between
            the percentiles 0.5 and 99.5 of each image; a mapping gives pictures windows by name.
        spacing: of arrays, in mm: `(y, x)`, of volumes `(z, y, x)`.
        plane, at: which slice of volumes: "axial" slices are counted to the head, "coronal" ones to
            the back, "sagittal" ones to the left; the middle one if `at` is left out.
        columns: pictures a row; at most four if left out.
        alt: alternative text; made from title and content if left out.

    Raises:
        ValueError: for a mask of another shape, or with other values than 0, 1 and 255.

    Example:
        show.images({"scan": scan, "liver": (scan, {"liver": organs == 1})}, title="A mask")
    """
    views = as_views(pictures, window, spacing=spacing, plane=plane, at=at)
    page.figure(*drawn(views, title, window, alt, columns=columns))


def planes(
    volume: Volume,
    at: Sequence[int] | None = None,
    *,
    title: str,
    masks: Mapping | None = None,
    window=None,
    alt: str | None = None,
) -> None:
    """Show the axial, coronal and sagittal cut through one voxel, with a cross-hair.

    Args:
        volume: what to cut.
        at: the voxel `(z, y, x)` as stored; the middle if left out.
        title, window, alt: as for `images`.
        masks: name -> mask of the volume's shape.

    Example:
        show.planes(scan, (40, 80, 96), masks={"spleen": spleen}, title="Three cuts")
    """
    page.figure(*planes_drawn(volume, at, title, masks, window, alt))


def planes_drawn(
    volume: Volume,
    at,
    title,
    masks,
    window,
    alt,
) -> tuple[Figure, str]:
    """The figure of `planes` and its alternative text."""
    turned = volume.in_lps_order()
    stored = np.array(volume.shape) // 2 if at is None else at
    point = np.rint(turned.to_index(volume.to_patient(stored))).astype(int)
    views = {}
    for plane, (axis, *_) in PLANES.items():
        number = int(point[axis])
        views[f"{plane} {number}"] = view(volume, masks or {}, window, None, plane, number)
    fig, alt = drawn(views, title, window, alt)
    places = (point + 0.5) * turned.spacing
    height = turned.shape[0] * turned.spacing[0]
    for ax, (_, row, column) in zip(fig.axes, PLANES.values(), strict=True):
        ax.axhline(height - places[row] if row == 0 else places[row], **CROSS)
        ax.axvline(places[column], **CROSS)
    return fig, alt


def as_views(pictures: Mapping, window, **where) -> dict[str, View]:
    """What `images` was given, by name, as it is drawn."""
    views = {}
    for name, given in pictures.items():
        image, masks = given if isinstance(given, tuple) else (given, {})
        own = window.get(name) if isinstance(window, Mapping) else window
        views[str(name)] = view(image, masks, own, **where)
    return views


def drawn(
    views: Mapping[str, View],
    title: str,
    window=None,
    alt: str | None = None,
    *,
    note: str = "",
    columns: int | None = None,
) -> tuple[Figure, str]:
    """The figure of some views and its alternative text; `note` stands below."""
    columns = columns or min(len(views), MOST_IN_A_ROW)
    rows = -(-len(views) // columns)
    widest, highest = np.max([one.size for one in views.values()], axis=0)
    names = [textwrap.fill(name, 100 // columns) for name in views]
    height = min(HIGHEST_INCHES, page.WIDTH_INCHES / columns * highest / widest)
    height += NAME_INCHES * (1 + max(name.count("\n") for name in names))
    lines = line_styles([name for one in views.values() for name in one.masks])
    first = next(iter(views.values()))
    if first.pixels.ndim == 2 and not isinstance(window, Mapping):
        note = "; ".join(filter(None, (note, window_text(window))))
    height = rows * height + FOOT_INCHES * (bool(note) + bool(lines))
    grid = {"rows": rows, "columns": columns, "squeeze": False}
    fig, axes = page.chart(title, height=height, **grid)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, name, one in zip(axes.flat, names, views.values(), strict=False):
        draw(ax, one, lines)
        ax.set(title=name, xlim=(0, widest), ylim=(highest, 0), anchor="NW")
    if first.spacing:
        scale_bar(axes[0, 0], *first.size)
    write_foot(fig, note, lines, any(one.ignores for one in views.values()))
    said = "; ".join(described(name, one) for name, one in views.items())
    return fig, alt or f"{title.rstrip('.')}. Pictures: {said}."


def described(name: str, one: View) -> str:
    """What alternative text says of a view: how much of it each outline encloses."""
    shares = [f"{key} on {np.mean(mask == 1):.1%}" for key, mask in one.masks.items()]
    return ", ".join([name, *shares])


def write_foot(
    fig: Figure,
    note: str,
    lines: Mapping[str, Line2D],
    ignored: bool,
) -> None:
    """A note at the bottom of a page, and below it what the outlines are."""
    if note:
        note = textwrap.fill(note[:1].upper() + note[1:], NOTE_CHARACTERS)
        note += "\n\n" if lines else ""  # room for the legend
        fig.supxlabel(note, x=page.LEFT, ha="left", size=9, color="#6B6B6B")
    handles = list(lines.values())
    if ignored:
        handles.append(Patch(label="ignored", facecolor="#808080", hatch="////"))
    if handles:
        fig.legend(handles=handles, ncols=len(handles), loc="outside lower left", **GREY)


def line_styles(names: Sequence[str]) -> dict[str, Line2D]:
    """A line for each name: what the palette knows has its colour, and each has other dashes."""
    lines = {}
    for place, name in enumerate(dict.fromkeys(names)):
        known = [tone for thing, tone in page.PALETTE.items() if thing in name.lower()]
        tone = known[0] if known else OTHERS[place % len(OTHERS)]
        dash = DASHES[place % len(DASHES)]
        lines[name] = Line2D([], [], color=tone, linestyle=dash, label=name)
    return lines


def draw(ax: Axes, one: View, lines: Mapping[str, Line2D]) -> None:
    """One view on its axes: the image, its letters, its outlines."""
    width, height = one.size
    low, high = one.limits
    ax.imshow(one.pixels, vmin=low, vmax=high, extent=(0, width, height, 0))
    places = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.05), (0.5, 0.95))
    for letter, place in zip(one.letters, places, strict=False):
        ax.text(*(place * one.size), letter, ha="center", va="center", **WHITE)
    for name, mask in one.masks.items():
        outline(ax, mask, one.size, lines[name])


def outline(ax: Axes, mask: np.ndarray, size: np.ndarray, line: Line2D) -> None:
    """A line half way between the pixels inside and outside; hatched where pixels do not count."""
    # A border of nothing closes outlines that touch the edge of the image.
    inside, ignored = (np.pad(mask == value, 1).astype(float) for value in (1, IGNORE))
    rows, columns = mask.shape
    x = (np.arange(columns + 2) - 0.5) * size[0] / columns
    y = (np.arange(rows + 2) - 0.5) * size[1] / rows
    if ignored.any():
        ax.contourf(x, y, ignored, [0.5, 1.5], colors=["#808080"], alpha=0.4, hatches=["////"])
    if inside.any():
        tone, dash = line.get_color(), line.get_linestyle()
        ax.contour(x, y, inside, [0.5], colors="black", linewidths=2.6, alpha=0.5)
        ax.contour(x, y, inside, [0.5], colors=[tone], linewidths=1.6, linestyles=[dash])


def scale_bar(ax: Axes, width: float, height: float) -> None:
    """A bar of a round length in mm at the bottom left, a third of the width at most."""
    fitting = [mm for mm in SCALE_BARS_MM if mm <= width / 3]
    if fitting:
        ends = np.array([0, fitting[-1]]) + 0.05 * width
        ax.plot(ends, [0.94 * height] * 2, color="white", linewidth=2, path_effects=EDGE)
        ax.text(ends[0], 0.92 * height, f"{fitting[-1]} mm", va="bottom", **WHITE)


def window_text(window) -> str:
    """How a note names a window."""
    if window is None:
        return "grey from percentile 0.5 (black) to 99.5 (white)"
    center, width = intensity.WINDOWS.get(window, window)
    name = f"{window} window" if isinstance(window, str) else "window"
    return f"{name}, centre {center:g}, width {width:g}"
