"""Several masks on the images that they belong to: `show.outlines`.

    show.outlines({"best: 0.98": (image, {"reference": mask, "network": found}),
                   "worst: 0.61": (other, {"reference": truth, "network": missed})},
                  title="Faint borders are where the network errs")

Each mask has a colour and a dash of its own, the same in all pictures, so that two outlines that
cross can be told apart without colours. Pixels that were left out (255) are hatched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from helpers.lesson import figures, panel_grid, panels
from helpers.lesson.figures import LINES, PALETTE, TEXT_POINTS, figure
from helpers.lesson.views import Cut

IGNORE = 255
# Bright on grey and on skin; what a mask is called decides before its place does.
TONES = tuple(PALETTE[name] for name in ("truth", "prediction", "lesion", "bone"))
CALLED = {"reference": PALETTE["truth"], "network": PALETTE["prediction"]}
VEIL = {"facecolor": "#808080", "edgecolor": "#E6E6E6"}
VEIL_ALPHA, HATCH = 0.4, "////"
LEGEND_GREY = "#4D4D4D"  # as over an image: yellow does not show on white


@dataclasses.dataclass(frozen=True, eq=False)
class _Case:
    """One picture: where each mask is 1, and which pixels any of them leaves out."""

    cut: Cut
    inside: Mapping[str, np.ndarray]
    ignored: np.ndarray


def outlines(
    cases: Mapping[str, tuple[object, Mapping[str, object]]],
    *,
    title: str,
    columns: int | None = None,
    window=None,
    spacing: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    alt: str | None = None,
) -> None:
    """Show images, each under the outlines of several masks.

    Args:
        cases: for each name, which stands above the picture, an image and its masks by name. An
            image is grey `[y, x]` or RGB `[y, x, 3]`, uint8 or floats from 0 to 1 or to 255 (none
            above 2 is taken as 0 to 1). A mask is `[y, x]`, bool or 0 and 1, and 255 where a pixel
            is left out; it may be empty. A last axis of length 1 is dropped from either. Four names
            of masks at most.
        title: the finding, as a sentence.
        columns: pictures a row at most; chosen to fill the page if left out.
        window: of grey images, as in `show`; without one, each has its own range.
        spacing: mm, `(y, x)`, for all images or by name; if known for all, they have one scale.
        alt: alternative text; made from title and content if left out.

    Raises:
        ValueError: without a picture or a mask, for more than 4 names of masks, for an image that
            is neither grey nor RGB, for a mask of another shape or with other values, for the
            spacing of a picture that is not there.
    """
    cases = {str(name): given for name, given in cases.items()}
    each = spacing if isinstance(spacing, Mapping) else dict.fromkeys(cases, spacing)
    spacings = {str(name): given for name, given in each.items()}
    if strangers := [name for name in spacings if name not in cases]:
        raise ValueError(f"spacing for {', '.join(strangers)}, where no picture is")
    made = {name: _case(name, given, spacings.get(name)) for name, given in cases.items()}
    names = list(dict.fromkeys(name for case in made.values() for name in case.inside))
    if not 0 < len(names) <= len(LINES):
        raise ValueError(f"from 1 to {len(LINES)} masks can be told apart, not {len(names)}")
    styles = dict(
        zip(names, zip(figures.tones(names, TONES, CALLED), LINES, strict=False), strict=True)
    )
    handles = [_line(name, *style) for name, style in styles.items()]
    if any(case.ignored.any() for case in made.values()):
        handles.append(Patch(**VEIL, hatch=HATCH, linewidth=0, label="ignored"))
    grey = any(case.cut.pixels.ndim == 2 for case in made.values())
    note = panels.window_text(window) if grey else ""

    # Where lengths are not known, heights are made equal.
    known = all(case.cut.measured for case in made.values())
    sizes = {name: case.cut.size_mm for name, case in made.items()}
    if not known:
        sizes = {name: (width / height, 1.0) for name, (width, height) in sizes.items()}
    lines = _legend_lines(note, handles)
    fig, axes = panel_grid.page(sizes, title, columns=columns, foot=panels.FOOT_LINE * sum(lines))
    for position, (name, case) in enumerate(made.items()):
        heading = panel_grid.heading(name)
        panels.draw(axes[name], case.cut, panels.limits(case.cut.pixels, window), heading)
        _draw(axes[name], case, styles)
        if known and position == 0:
            panels.scale_bar(axes[name], case.cut)
    _legend(fig, note, handles, lines)
    figure(fig, alt or _alt(title, made, names, note))


def _case(name: str, given, spacing) -> _Case:
    if not isinstance(given, tuple | list) or len(given) != 2 or not isinstance(given[1], Mapping):
        raise ValueError(f"{name}: a case is an image and a mapping of masks")
    cut = panel_grid.cut_of(name, given[0], spacing)
    shape = cut.pixels.shape[:2]
    inside, ignored = {}, np.zeros(shape, bool)
    for called, mask in given[1].items():
        mask = np.asarray(mask)
        if mask.ndim == 3 and mask.shape[-1] == 1:
            mask = mask[..., 0]
        if mask.shape != shape:
            raise ValueError(f"{name}: {called} is {mask.shape}, the image {shape} [y, x]")
        strange = np.setdiff1d(mask, (0, 1, IGNORE))
        if strange.size:
            raise ValueError(
                f"{name}: {called} holds {strange[0]:g}; a mask is 0 and 1, and {IGNORE} where a "
                "pixel is left out"
            )
        inside[str(called)] = mask == 1
        ignored |= mask == IGNORE
    return _Case(cut, inside, ignored)


def _draw(ax, case: _Case, styles: Mapping[str, tuple]) -> None:
    row_mm, column_mm = case.cut.spacing
    rows, columns = case.cut.pixels.shape[:2]
    # A border of nothing closes outlines that touch the edge of the image.
    y = (np.arange(rows + 2) - 0.5) * row_mm
    x = (np.arange(columns + 2) - 0.5) * column_mm
    if case.ignored.any():
        field = np.pad(case.ignored, 1).astype(float)
        tone = [VEIL["facecolor"]]
        veil = ax.contourf(x, y, field, [0.5, 1.5], colors=tone, alpha=VEIL_ALPHA, hatches=[HATCH])
        veil.set(edgecolor=VEIL["edgecolor"], linewidth=0)  # the hatch takes the edge's colour
    drawn = {
        name: np.pad(inside, 1).astype(float)
        for name, inside in case.inside.items()
        if inside.any()
    }
    # All dark edges below all lines: none dims the line of another mask.
    for field in drawn.values():
        ax.contour(x, y, field, [0.5], colors="black", linewidths=2.8, alpha=0.5)
    for name, field in drawn.items():
        tone, dash = styles[name]
        ax.contour(x, y, field, [0.5], colors=[tone], linewidths=1.6, linestyles=[dash])
    width, height = case.cut.size_mm
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)


def _line(name: str, tone: str, dash) -> Line2D:
    return Line2D([], [], label=name, linewidth=2, color=tone, linestyle=dash)


def _legend_lines(note: str, handles: Sequence) -> tuple[int, int]:
    """Lines of the note and of the legend below it; 0 for the note if they share one."""
    legend = 0.2 + sum(0.6 + panel_grid.text_inches(one.get_label(), 10) for one in handles)
    free = figures.PAGE_INCHES - panel_grid.text_inches(note) - 0.2
    return int(bool(note) and legend > free), int(np.ceil(legend / figures.PAGE_INCHES))


def _legend(fig, note: str, handles: Sequence, lines: tuple[int, int]) -> None:
    above, below = lines
    fig.text(
        0.02 / figures.PAGE_INCHES,
        (0.07 + panels.FOOT_LINE * below * above) / fig.get_figheight(),
        note[:1].upper() + note[1:],
        size=TEXT_POINTS,
        color=PALETTE["muted"],
        va="bottom",
    )
    fig.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 0),
        ncols=-(-len(handles) // below),
        fontsize=TEXT_POINTS + 0.5,
        handlelength=2.6,
        borderaxespad=0.1,
        borderpad=0.25,
        columnspacing=1.4,
        labelspacing=0.3,
        facecolor=LEGEND_GREY,
        labelcolor="white",
        edgecolor="none",
        framealpha=1,
        fancybox=False,
    )


def _alt(title: str, made: Mapping[str, _Case], names: Sequence[str], note: str) -> str:
    said = []
    for name, case in made.items():
        parts = dict(case.inside)
        if case.ignored.any():
            parts["ignored"] = case.ignored
        shares = [
            f"{part} {100 * area.mean():.1f} %" if area.any() else f"{part} empty"
            for part, area in parts.items()
        ]
        rows, columns = case.cut.pixels.shape[:2]
        said.append(f"{name} ({rows} x {columns} pixels: {', '.join(shares) or 'no mask'})")
    text = f"{title.rstrip('.')}. Outlines of {', '.join(names)} on {len(made)} "
    text += f"picture{'s' if len(made) > 1 else ''}, with their shares of it: {'; '.join(said)}."
    return f"{text} {note[:1].upper()}{note[1:]}." if note else text
