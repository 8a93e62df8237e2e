"""Every picture the course draws.

Each function shows one figure whose title states a finding, and returns nothing. Images are grey
and in their physical aspect, masks are outlines, and `views` says which side is which.

    show.planes(volume, title="The liver fills the right side", window="soft tissue")

In all of them:

- `title`: the finding, as a sentence.
- `alt`: alternative text; made from title and content if left out.
- `window`: `(center, width)`, a name from `intensity.WINDOWS`, or None for the range between the
  percentiles 0.5 and 99.5 of the values.
- a volume is a `Volume`, or an array `[z, y, x]` with a `spacing` `(z, y, x)` in mm, or pydicom
  datasets, one for each slice; an image is an array `[y, x]` or `[y, x, 3]` with a `spacing`
  `(y, x)`.
- `mask`: class ids, same shape; `labels`: a name for each id.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from helpers import intensity
from helpers.lesson import figures, panels
from helpers.lesson.charts import bars
from helpers.lesson.curves import precision_recall, reliability
from helpers.lesson.dots import dots
from helpers.lesson.figures import PALETTE, TEXT_POINTS, figure, render
from helpers.lesson.frames import frames
from helpers.lesson.gantt import timeline
from helpers.lesson.lines import lines
from helpers.lesson.outlines import outlines
from helpers.lesson.points import points
from helpers.lesson.viewer import WIDGET_MIME, SliceViewer, live_front_end
from helpers.lesson.views import PLANES, Cut, Oriented, oriented
from helpers.volume import Volume

__all__ = [
    "PALETTE",
    "bars",
    "dots",
    "figure",
    "frames",
    "histogram",
    "images",
    "lines",
    "montage",
    "outlines",
    "overlay",
    "planes",
    "points",
    "precision_recall",
    "reliability",
    "render",
    "side_view",
    "side_views",
    "source",
    "timeline",
    "viewer",
    "windows",
]


def source(function) -> None:
    """Show the source of a helper, without its docstring, as code.

    Args:
        function: or class, of this package or of a lesson.
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    (defined,) = ast.parse("\n".join(lines)).body
    if ast.get_docstring(defined) is not None:
        del lines[defined.body[0].lineno - 1 : defined.body[0].end_lineno]
    code = "\n".join(lines)
    figures.show_bundle({"text/markdown": f"```python\n{code}\n```", "text/plain": code}, {})


def montage(
    volume,
    *,
    title: str,
    count: int = 12,
    plane: str = "axial",
    window=None,
    mask=None,
    labels: Mapping[int, str] | None = None,
    spacing: Sequence[float] | None = None,
    columns: int | None = None,
    alt: str | None = None,
) -> None:
    """Show slices evenly spread over a volume.

    Args:
        volume: see the module; other arguments as well.
        count: number of slices at most.
        plane: "axial", "coronal" or "sagittal".
        columns: panels a row; chosen to fill the page if left out.
    """
    stack = oriented(volume, spacing)
    turned_mask = None if mask is None else stack.turned_alike(mask)
    depth = stack.depth(plane)
    # The outermost slices show little, so the picture starts and ends a step inside.
    step = depth / min(count, depth)
    cuts = [stack.cut(plane, int((i + 0.5) * step)) for i in range(min(count, depth))]
    columns = columns or _columns(len(cuts), cuts[0].size_mm)
    low_high = panels.limits(stack.voxels, window)
    names = panels.names_of(None if mask is None else turned_mask.voxels, labels)

    note = f"numbers: {plane} slice; {panels.window_text(window)}"
    rows = [cuts[i : i + columns] for i in range(0, len(cuts), columns)]
    fig, axes = figures.page(
        [[cut.size_mm for cut in row] for row in rows],
        title,
        names=False,
        gap=0.05,
        foot=panels.foot_height(note, names),
        max_height=2.6,
    )
    for position, (ax, cut) in enumerate(zip(_flat(axes), cuts, strict=True)):
        panels.draw(ax, cut, low_high)
        ax.text(0.03, 0.97, str(cut.number), transform=ax.transAxes, va="top", **panels.ON_IMAGE)
        if names:
            panels.outline(ax, turned_mask.cut(plane, cut.number).pixels, cut, names)
        if position == 0:
            panels.letter(ax, cut)
        if position == len(cuts) - 1:
            panels.scale_bar(ax, cut)
    panels.foot(fig, note, names)
    content = (
        f"{len(cuts)} {plane} slices, numbers {cuts[0].number} to {cuts[-1].number} of {depth}, "
        f"of {_describe(stack)}"
    )
    figure(fig, alt or _alt(title, content, window, names))


def planes(
    volume,
    at: Sequence[int] | None = None,
    *,
    title: str,
    window=None,
    mask=None,
    labels: Mapping[int, str] | None = None,
    spacing: Sequence[float] | None = None,
    alt: str | None = None,
) -> None:
    """Show the axial, coronal and sagittal cut through one voxel, with a cross-hair.

    Args:
        volume: see the module; other arguments as well.
        at: the voxel `(z, y, x)` as stored; the middle if left out.
    """
    figure(*_planes(oriented(volume, spacing), at, title, window, mask, labels, alt))


def viewer(
    volume,
    mask=None,
    *,
    title: str,
    window=None,
    labels: Mapping[int, str] | None = None,
    spacing: Sequence[float] | None = None,
    alt: str | None = None,
) -> None:
    """Leaf through a volume; where no one can, show its three middle planes.

    Args:
        volume, mask: see the module; other arguments as well.

    The output is a still picture, in a live notebook with the widget in front of it. What counts
    as live, and how to overrule it, stands at `viewer.live_front_end`.
    """
    stack = oriented(volume, spacing)
    data, metadata = figures.bundle(*_planes(stack, None, title, window, mask, labels, alt))
    if live_front_end():
        box = SliceViewer(stack, mask, labels, window).box
        view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
        data = {WIDGET_MIME: view, **data}
    figures.show_bundle(data, metadata)


def side_view(stack, *, title: str, **options) -> None:
    """Show one stack of slices from the side; `side_views` has the arguments."""
    side_views({"": stack}, title=title, **options)


def side_views(
    stacks: Mapping[str, object],
    *,
    title: str,
    plane: str = "sagittal",
    at: int | None = None,
    window=None,
    spacing: Sequence[float] | None = None,
    alt: str | None = None,
) -> None:
    """Show stacks of slices from the side, next to one another, the last slice on top.

    Args:
        stacks: a volume for each name, see the module. Datasets are stacked in the order given,
            which is how a wrong order shows.
        plane: "sagittal" or "coronal".
        at: where to cut, an index along x or y; the middle if left out.
    """
    turned = {name: oriented(stack, spacing) for name, stack in stacks.items()}
    column = PLANES[plane][2]
    cuts = {
        name: stack.cut(plane, stack.depth(plane) // 2 if at is None else at)
        for name, stack in turned.items()
    }
    low_high = panels.shared_limits((stack.voxels for stack in turned.values()), window)
    fig, (axes,) = figures.page(
        [[cut.size_mm for cut in cuts.values()]],
        title,
        names=any(cuts),
        left=0.55,
        under=0.42,
        foot=0.25,
        max_height=3.6,
    )
    for ax, (name, cut) in zip(axes, cuts.items(), strict=True):
        panels.draw(ax, cut, low_high, name)
        panels.letter(ax, cut)
        width, height = cut.size_mm
        ax.set_axis_on()
        unit = "mm" if cut.measured else "voxels"
        figures.plain_axes(ax, f"{'zyx'[column]} ({unit})", f"height in the stack ({unit})")
        # The picture runs downwards, the height in the body upwards.
        ticks = figures.round_ticks(height)
        ax.set_yticks(height - ticks, [f"{mm:g}" for mm in ticks])
        ax.set_xticks(figures.round_ticks(width))
        ax.spines[:].set_visible(False)
    panels.foot(fig, panels.window_text(window), {})
    named = [f"{name + ': ' if name else ''}{_describe(stack)}" for name, stack in turned.items()]
    content = f"Seen from the side, {plane} plane: {'; '.join(named)}"
    figure(fig, alt or _alt(title, content, window))


def windows(
    image,
    windows: Mapping[str, tuple[float, float]] | Sequence[str] = ("lung", "soft tissue", "bone"),
    *,
    title: str,
    at: int | None = None,
    histogram: bool = True,
    unit: str = "HU",
    spacing: Sequence[float] | None = None,
    alt: str | None = None,
) -> None:
    """Show one slice through several windows, over a histogram with the span of each.

    Args:
        image: an image or a volume, of which the axial slice `at` (or the middle one) is shown.
        windows: `(center, width)` by name, or names from `intensity.WINDOWS`.
        histogram: draw how often each value occurs below the pictures.
        unit: of the values.
    """
    cut = _cut(image, spacing, at)
    if not isinstance(windows, Mapping):
        windows = {name: intensity.WINDOWS[name] for name in windows}
    fig, (axes,) = figures.page(
        [[cut.size_mm] * len(windows)], title, foot=1.7 if histogram else 0.05, gap=0.1
    )
    for ax, (name, (center, width)) in zip(axes, windows.items(), strict=True):
        heading = f"{name}: centre {center:g}, width {width:g}"
        panels.draw(ax, cut, panels.limits(cut.pixels, (center, width)), heading)
        panels.letter(ax, cut)
    if histogram:
        _window_strip(fig, cut.pixels, windows, unit)
    named = [f"{name} (centre {c:g}, width {w:g} {unit})" for name, (c, w) in windows.items()]
    content = f"The same slice, {_size(cut)}, in {len(named)} windows: {', '.join(named)}"
    figure(fig, alt or _alt(title, content))


def histogram(
    values: Mapping[str, np.ndarray],
    *,
    title: str,
    xlabel: str,
    marks: Mapping[str, float] | None = None,
    bins: int = 120,
    limits: tuple[float, float] | None = None,
    log: bool = False,
    alt: str | None = None,
) -> None:
    """Show how often values occur, as one line for each named array.

    Args:
        values: arrays of any shape, by name; NaN and infinities are left out.
        xlabel: quantity and unit.
        marks: values to mark with a vertical line, by name.
        limits: least and greatest value shown; the whole range if left out.
        log: logarithmic shares, for rare values.
    """
    finite = {name: _finite(array) for name, array in values.items()}
    if limits is None:
        limits = (min(v.min() for v in finite.values()), max(v.max() for v in finite.values()))
    limits = (limits[0], max(limits[1], limits[0] + 1e-6))
    # Numbers, not physical sizes: a panel 7.3 inches wide and 2.3 high.
    fig, ((ax,),) = figures.page([[(7.2, 2.3)]], title, names=False, left=0.65, under=0.5)
    edges = np.linspace(*limits, bins + 1)
    for position, (name, array) in enumerate(finite.items()):
        share = 100 * np.histogram(array, edges)[0] / array.size
        tone = figures.colour(name, position)
        line = figures.LINES[position % len(figures.LINES)]
        ax.stairs(share, edges, color=tone, linewidth=1.6, linestyle=line, label=name)
    for name, value in (marks or {}).items():
        ax.axvline(value, color=PALETTE["line"], linewidth=1, linestyle=(0, (3, 2)))
        ax.annotate(
            name,
            (value, 1),
            (3, -2),
            xycoords=("data", "axes fraction"),
            va="top",
            textcoords="offset points",
            size=TEXT_POINTS,
            color=PALETTE["line"],
        )
    figures.plain_axes(ax, xlabel, "share of values (%)")
    ax.set_xlim(limits)
    if log:
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, ax.get_ylim()[1] * (1.12 if marks else 1))  # names of marks above the lines
    if len(finite) > 1:
        ax.legend(fontsize=TEXT_POINTS + 0.5, frameon=False)
    named = [
        f"{name} (median {np.median(array):.4g}, from {array.min():.4g} to {array.max():.4g})"
        for name, array in finite.items()
    ]
    content = f"Histogram of {xlabel}: {'; '.join(named)}"
    if marks:
        content += f". Marked: {', '.join(f'{n} at {v:g}' for n, v in marks.items())}"
    figure(fig, alt or _alt(title, content))


def overlay(
    image,
    mask,
    *,
    title: str,
    labels: Mapping[int, str] | None = None,
    at: int | None = None,
    plane: str = "axial",
    window=None,
    fill: float = 0.0,
    spacing: Sequence[float] | None = None,
    alt: str | None = None,
) -> None:
    """Show an image, and beside it the same with the outlines of a mask.

    Args:
        image: an image or a volume.
        mask: class ids of the same shape.
        labels: a name for each class; classes without one are not drawn.
        at: slice of a volume; the one with most of the mask if left out.
        fill: opacity of the masked area, 0 (outlines only) to 0.4.
    """
    if _is_picture(image):
        cut, inside = _cut(image, spacing), np.asarray(mask)
        if inside.shape != cut.pixels.shape[:2]:
            raise ValueError(f"the mask is {inside.shape}, the image {cut.pixels.shape} [y, x]")
    else:
        stack = oriented(image, spacing)
        turned_mask, axis = stack.turned_alike(mask), PLANES[plane][0]
        if at is None:
            areas = np.count_nonzero(turned_mask.voxels, tuple({0, 1, 2} - {axis}))
            at = stack.turned_index(axis, int(np.argmax(areas)))
        cut, inside = stack.cut(plane, at), turned_mask.cut(plane, at).pixels
    names = panels.names_of(inside, labels)
    note = panels.window_text(window) if cut.pixels.ndim == 2 else ""
    fig, (axes,) = figures.page(
        [[cut.size_mm] * 2], title, names=False, foot=panels.foot_height(note, names)
    )
    low_high = panels.limits(cut.pixels, window)
    for ax in axes:
        panels.draw(ax, cut, low_high)
        panels.letter(ax, cut)
    panels.scale_bar(axes[0], cut)
    panels.outline(axes[1], inside, cut, names, fill)
    panels.foot(fig, note, names)
    shares = [f"{name} {100 * np.mean(inside == value):.1f} %" for value, name in names.items()]
    content = f"An image, {_size(cut)}, alone and with outlines; shares of the picture: "
    figure(fig, alt or _alt(title, content + ", ".join(shares), window))


def images(
    images: Mapping[str, object],
    *,
    title: str,
    window=None,
    shared: bool = False,
    columns: int | None = None,
    spacing: Sequence[float] | None = None,
    alt: str | None = None,
) -> None:
    """Show named pictures, grey or RGB, in rows of equal height.

    Args:
        images: an image or a volume (its middle slice) for each name.
        window: for all of them, or a mapping from name to window.
        shared: without a window, use one range of greys for all instead of one for each.
        columns: pictures a row; chosen to fill the page if left out.
    """
    cuts = {name: _cut(image, spacing) for name, image in images.items()}
    common = None
    if shared:
        common = panels.shared_limits((cut.pixels for cut in cuts.values()), window)
    columns = columns or _columns(len(cuts), next(iter(cuts.values())).size_mm)
    items = list(cuts.items())
    rows = [items[i : i + columns] for i in range(0, len(items), columns)]
    fig, axes = figures.page([[_equal_height(cut) for _, cut in row] for row in rows], title)
    for ax, (name, cut) in zip(_flat(axes), items, strict=True):
        own = window.get(name) if isinstance(window, Mapping) else window
        panels.draw(ax, cut, common or panels.limits(cut.pixels, own), name)
    content = "Pictures: " + "; ".join(f"{name}, {_size(cut)}" for name, cut in items)
    figure(fig, alt or _alt(title, content))


def _planes(stack: Oriented, at, title, window, mask, labels, alt):
    """The figure of `planes` and its alternative text."""
    numbers = {
        plane: stack.depth(plane) // 2 if at is None else at[stack.stored_axis(plane)]
        for plane in PLANES
    }
    point = [stack.turned_index(axis, n) for axis, n in enumerate(numbers.values())]
    turned_mask = None if mask is None else stack.turned_alike(mask)
    names = panels.names_of(None if mask is None else turned_mask.voxels, labels)
    cuts = {plane: stack.cut(plane, number) for plane, number in numbers.items()}
    note = panels.window_text(window)
    fig, (axes,) = figures.page(
        [[cut.size_mm for cut in cuts.values()]], title, foot=panels.foot_height(note, names)
    )
    low_high = panels.limits(stack.voxels, window)
    for ax, (plane, cut) in zip(axes, cuts.items(), strict=True):
        _, row, column = PLANES[plane]
        panels.draw(ax, cut, low_high, f"{plane} {cut.number}")
        panels.letter(ax, cut)
        if names:
            panels.outline(ax, turned_mask.cut(plane, cut.number).pixels, cut, names)
        down = stack.voxels.shape[0] - 1 - point[0] if row == 0 else point[row]
        cross = {"color": "white", "linewidth": 0.8, "linestyle": (0, (5, 4)), "alpha": 0.8}
        ax.axhline((down + 0.5) * cut.spacing[0], **cross)
        ax.axvline((point[column] + 0.5) * cut.spacing[1], **cross)
    panels.scale_bar(axes[0], cuts["axial"])
    panels.foot(fig, note, names)
    content = (
        "Three planes through one point, marked by a cross-hair: "
        f"{', '.join(f'{plane} {number}' for plane, number in numbers.items())}, "
        f"of {_describe(stack)}"
    )
    return fig, alt or _alt(title, content, window, names)


def _window_strip(fig, pixels: np.ndarray, windows: Mapping, unit: str) -> None:
    height = fig.get_figheight()
    ax = fig.add_axes([0.08, 0.45 / height, 0.895, 1.1 / height])
    values = _finite(pixels)
    edges = np.linspace(values.min(), max(values.max(), values.min() + 1), 161)
    share = 100 * np.histogram(values, edges)[0] / values.size
    ax.stairs(share, edges, fill=True, color=PALETTE["muted"])
    ax.set_yscale("log")
    floor, top = 100 / values.size, 100.0
    for position, (name, (center, width)) in enumerate(windows.items()):
        # One bar for each window above the histogram, so that nested ones stay apart.
        level = top * 20.0 ** (position + 0.8)
        start, end = max(center - width / 2, edges[0]), min(center + width / 2, edges[-1])
        ax.plot(
            [start, end], [level, level], color=PALETTE["grid"], linewidth=11, solid_capstyle="butt"
        )
        ax.text(
            (start + end) / 2,
            level,
            name,
            ha="center",
            va="center_baseline",
            size=TEXT_POINTS,
            color=PALETTE["line"],
        )
    ax.set_ylim(floor, top * 20.0 ** (len(windows) + 0.4))
    ax.set_xlim(edges[0], edges[-1])
    figures.plain_axes(ax, f"value ({unit})", "share (%)")
    ax.set_yticks([0.01, 1, 100], ["0.01", "1", "100"])
    ax.minorticks_off()


def _is_picture(image) -> bool:
    """Whether this is one image, grey or RGB, rather than a volume."""
    if isinstance(image, Volume | Oriented | Sequence):
        return False
    array = np.asarray(image)
    return array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3)


def _cut(image, spacing=None, at: int | None = None) -> Cut:
    """An image as it is, or an axial slice (the middle one) of a volume."""
    if _is_picture(image):
        known = spacing is not None
        return Cut(np.asarray(image), tuple(spacing if known else (1.0, 1.0)), measured=known)
    stack = oriented(image, spacing)
    return stack.cut("axial", stack.depth("axial") // 2 if at is None else at)


def _equal_height(cut: Cut) -> tuple[float, float]:
    width, height = cut.size_mm
    return width / height, 1.0


def _columns(count: int, size: tuple[float, float]) -> int:
    """Panels a row that fill the page without one left alone in the last row."""
    if count <= 4:
        return count
    widest = 6 if size[0] <= 1.3 * size[1] else 4
    return min(range(3, widest + 1), key=lambda columns: (-count % columns, -columns))


def _flat(rows):
    return [ax for row in rows for ax in row]


def _finite(array) -> np.ndarray:
    values = np.asarray(array).ravel()
    return values[np.isfinite(values)]


def _describe(stack: Oriented) -> str:
    shape = " x ".join(str(n) for n in stack.voxels.shape)
    spacing = f", {' x '.join(f'{mm:.3g}' for mm in stack.spacing)} mm" if stack.measured else ""
    return f"a volume of {shape} voxels{spacing}"


def _size(cut: Cut) -> str:
    return f"{cut.pixels.shape[0]} x {cut.pixels.shape[1]} pixels"


def _alt(title: str, content: str, window=None, names: Mapping[int, str] | None = None) -> str:
    """Title and content as sentences."""
    parts = [title.rstrip("."), content]
    if window is not None:
        parts[-1] += f"; {panels.window_text(window)}"
    if names:
        parts.append(f"Outlined: {', '.join(names.values())}")
    return ". ".join(parts) + "."
