"""Places on an image and around it: `show.points`.

    show.points(image, {"rate 6": [(y, x), ...], "rate 18": [...]},
                title="At rate 18 most of the kernel looks at padding")

All pictures show the same area at the same scale; what lies beside the image is hatched.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.patches import Rectangle

from helpers.lesson import panel_grid, panels
from helpers.lesson.figures import PALETTE, TEXT_POINTS, figure

DIM = 0.45  # how much of an image's light is taken away
PADDING = {"facecolor": "#E6E6E6", "edgecolor": "#BDBDBD", "hatch": "//", "linewidth": 0}
MARK_INCHES, LEAST_MARK_INCHES = 0.11, 0.055
MARGIN = 0.05  # of the area's longer side, around points at its edge
LINE_INCHES = 0.16
NOTE = "hatched: padding, where there is no image"


def points(
    image,
    points: Mapping[str, object],
    *,
    title: str,
    limit: float = 2.0,
    columns: int | None = None,
    window=None,
    alt: str | None = None,
) -> None:
    """Show which places of an image something looks at, and how many lie beside it.

    Args:
        image: grey `[y, x]` or RGB `[y, x, 3]`, uint8 or floats from 0 to 1 or to 255 (none above
            2 is taken as 0 to 1); a last axis of length 1 is dropped.
        points: for each name, which stands above its picture, places `[n, 2]` of (y, x) in pixels;
            whole numbers are centres of pixels. They may lie outside the image.
        title: the finding, as a sentence.
        limit: points are shown up to `(limit - 1) / 2` of the image's size beyond each border, so
            that the area shown is about `limit` images high and wide at most. It is the same in
            all pictures, and no larger than their points need.
        columns: pictures a row at most; chosen to fill the page if left out.
        window: of a grey image, as in `show`.
        alt: alternative text; made from title and content if left out.

    Below each picture stands how many points lie outside the image, and how many of these are
    too far to show.

    Raises:
        ValueError: without a picture or a point, for points that are not finite or not pairs, for
            an image that is neither grey nor RGB, for a limit below 1.
    """
    cut = panel_grid.cut_of("image", image)
    if not 1 <= limit < math.inf:
        raise ValueError(f"limit is a number of images from 1, not {limit!r}")
    made = {str(name): _places(str(name), given) for name, given in points.items()}
    if not made:
        raise ValueError("there is no point to draw")
    size = np.array(cut.pixels.shape[:2], float)
    low, high = _area(made, size, limit)
    outside = {name: ~_within(places, 0, size) for name, places in made.items()}
    most = (limit - 1) / 2 * size
    hidden = {name: ~_within(places, -most, size + most) for name, places in made.items()}
    captions = {name: _caption(outside[name], hidden[name]) for name in made}

    height, width = high - low
    sizes = dict.fromkeys(made, (width, height))
    count = panel_grid.per_row(list(made), columns)
    scale = panel_grid.scale_of(sizes, count)
    wrap = max(int(max(width * scale, 0.6) / 0.068), 8)
    captions = {name: textwrap.fill(text, wrap) for name, text in captions.items()}
    lines = max(1 + text.count("\n") if text else 0 for text in captions.values())
    padded = bool((low < 0).any() or (high > size).any())
    note = "; ".join(
        ([panels.window_text(window)] if cut.pixels.ndim == 2 else []) + [NOTE] * padded
    )
    fig, axes = panel_grid.page(
        sizes,
        title,
        columns=count,
        under=0.06 + LINE_INCHES * lines if lines else 0.0,
        foot=panels.foot_height(note, {}) if note else 0.0,
    )
    low_high = panels.limits(cut.pixels, window)
    mark = _mark_inches(made, scale)
    for name, places in made.items():
        ax = axes[name]
        panels.draw(ax, cut, low_high, panel_grid.heading(name))
        ax.add_patch(Rectangle((low[1], low[0]), width, height, zorder=-1, **PADDING))
        ax.add_patch(Rectangle((0, 0), *size[::-1], facecolor="black", alpha=DIM, linewidth=0))
        ax.set_xlim(low[1], high[1])
        ax.set_ylim(high[0], low[0])
        shown = places[~hidden[name]]
        ax.scatter(
            shown[:, 1],
            shown[:, 0],
            s=(72 * mark) ** 2,
            facecolor="white",
            edgecolor="black",
            linewidth=min(1.0, 10 * mark),
            zorder=3,
        )
        ax.annotate(
            captions[name],
            (low[1], high[0]),
            (0, -4),
            textcoords="offset points",
            va="top",
            size=TEXT_POINTS,
            color=PALETTE["line"],
            annotation_clip=False,
        )
    if note:
        panels.foot(fig, note, {})
    figure(fig, alt or _alt(title, made, size, outside, hidden, note))


def _places(name: str, given) -> np.ndarray:
    """Points as drawn: pixel (0, 0) has its centre half a pixel from the corner of the image."""
    places = np.asarray(given, float)
    if places.ndim != 2 or places.shape[1] != 2 or not len(places):
        raise ValueError(f"{name}: points are [n, 2] of (y, x), not {places.shape}")
    if not np.isfinite(places).all():
        raise ValueError(f"{name}: a point needs finite places")
    return places + 0.5


def _area(
    made: Mapping[str, np.ndarray], size: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Top left and bottom right (y, x) of what every picture shows; see `points`."""
    together = np.concatenate(list(made.values()))
    most = (limit - 1) / 2 * size
    least = np.maximum(together.min(0), -most)
    greatest = np.minimum(together.max(0), size + most)
    margin = MARGIN * float((np.maximum(greatest, size) - np.minimum(least, 0)).max())
    return np.minimum(least - margin, 0), np.maximum(greatest + margin, size)


def _within(places: np.ndarray, low, high) -> np.ndarray:
    return ((places >= low) & (places <= high)).all(1)


def _caption(outside: np.ndarray, hidden: np.ndarray) -> str:
    """What a picture says about points that lie outside, if any do."""
    if not outside.any():
        return ""
    text = f"{outside.sum()} of {outside.size} outside"
    if not hidden.any():
        return text
    return f"{text}, {'all' if hidden.sum() == outside.sum() else hidden.sum()} too far to show"


def _mark_inches(made: Mapping[str, np.ndarray], scale: float) -> float:
    """One size for all: as large as keeps neighbours apart, within what can be seen."""
    from scipy.spatial.distance import pdist

    gaps = np.concatenate([pdist(places) for places in made.values()])
    gaps = gaps[gaps > 0]
    closest = gaps.min() * scale if gaps.size else math.inf
    return float(np.clip(0.8 * closest, LEAST_MARK_INCHES, MARK_INCHES))


def _alt(
    title: str,
    made: Mapping[str, np.ndarray],
    size: np.ndarray,
    outside: Mapping[str, np.ndarray],
    hidden: Mapping[str, np.ndarray],
    note: str,
) -> str:
    said = []
    for name, places in made.items():
        ends = (places.min(0)[0], places.max(0)[0], places.min(0)[1], places.max(0)[1])
        top, bottom, left, right = (f"{end - 0.5:g}".replace("-", "−") for end in ends)
        text = f"{name}, {len(places)} point{'s' if len(places) > 1 else ''}"
        text += f" from y {top} to {bottom} and x {left} to {right}"
        said.append(f"{text}, {_caption(outside[name], hidden[name]) or 'none outside'}")
    text = f"{title.rstrip('.')}. Points on an image of {size[0]:g} x {size[1]:g} pixels: "
    text += "; ".join(said) + "."
    return f"{text} {note[:1].upper()}{note[1:]}." if note else text
