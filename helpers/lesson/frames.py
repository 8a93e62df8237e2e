"""One thing at several strengths: `show.frames`, side by side and with a slider.

    show.frames(
        {"0": image, "10": turned, "20": turned_more}, title="Air comes in", label="degrees"
    )

All pictures share one scale and one range of greys, so that what differs between them is what was
done to them. As with the viewer, the widget is only made where somebody can use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from helpers.lesson import figures, panels
from helpers.lesson.viewer import WIDGET_MIME, live_front_end
from helpers.lesson.views import Cut, Oriented, oriented
from helpers.volume import Volume

MOST = 12
ONE_ROW = 5
GAP_INCHES = 0.1
HIGHEST_INCHES = 3.0
ALONE_INCHES = 4.4
FRAME_BYTES = 400_000  # of a picture behind the slider, which no notebook stores


def frames(
    pictures: Mapping[object, object],
    *,
    title: str,
    label: str,
    window=None,
    labels: Mapping[int, str] | None = None,
    plane: str = "axial",
    at: int | None = None,
    spacing: Sequence[float] | None = None,
    alt: str | None = None,
) -> None:
    """Show one image as it is at several strengths; in a live notebook, leaf through them.

    Args:
        pictures: for each strength, in the order of the slider, an image or a volume as in
            `show`, or a pair `(image, mask)` of them; 2 to 12.
        title: the finding, as a sentence.
        label: what the strengths are, with their unit: "rotation (degrees)".
        window: for all of them; without one, the range that holds every picture's percentiles 0.5
            to 99.5.
        labels: a name for each class of the masks; classes without one are not drawn.
        plane, at: which slice of volumes; the middle if `at` is left out.
        spacing: mm, `(y, x)` of images, `(z, y, x)` of volumes.
        alt: alternative text; made from title and content if left out.

    The output is a still picture with all of them, in a live notebook (`viewer.live_front_end`)
    with the slider in front of it.

    Raises:
        ValueError: for fewer than 2 or more than 12 pictures, for two strengths that read the
            same, and for a mask of another shape.
    """
    if not 2 <= len(pictures) <= MOST:
        raise ValueError(f"{len(pictures)} pictures; from 2 to {MOST} can be compared")
    if len(set(map(str, pictures))) < len(pictures):
        raise ValueError(f"two strengths read the same: {', '.join(map(str, pictures))}")
    cuts, insides = {}, {}
    for strength, picture in pictures.items():
        image, mask = picture if isinstance(picture, tuple) else (picture, None)
        cuts[str(strength)], inside = _cut(image, mask, spacing, plane, at)
        if inside is not None:
            insides[str(strength)] = inside
    ids = np.unique(np.concatenate([mask.ravel() for mask in insides.values()] or [[]]))
    names = panels.names_of(ids if insides else None, labels)
    low_high = panels.shared_limits((cut.pixels for cut in cuts.values()), window)
    grey = panels.window_text(window) if any(c.pixels.ndim == 2 for c in cuts.values()) else ""
    drawing = _Drawing(title, label, cuts, insides, names, low_high, grey)
    data, metadata = figures.bundle(drawing.still(), alt or drawing.alt())
    if live_front_end():
        box = FrameSlider(drawing).box
        view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
        data = {WIDGET_MIME: view, **data}
    figures.show_bundle(data, metadata)


def _heading_inches(text: str) -> float:
    """Width of a name above a picture, as `panels.draw` writes it."""
    return TextPath((0, 0), text, size=figures.TEXT_POINTS + 1).get_extents().x1 / 72


def _cut(image, mask, spacing, plane: str, at: int | None) -> tuple[Cut, np.ndarray | None]:
    """An image, or a slice of a volume, and the same of its mask."""
    mask = mask if mask is None or isinstance(mask, Volume) else np.asarray(mask)
    if not isinstance(image, Volume | Oriented | Sequence):
        pixels = np.asarray(image)
        if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3):
            if mask is not None and mask.shape != pixels.shape[:2]:
                raise ValueError(f"the mask is {mask.shape}, the image {pixels.shape} [y, x]")
            known = spacing is not None
            return Cut(pixels, tuple(spacing if known else (1.0, 1.0)), measured=known), mask
    stack = oriented(image, spacing)
    number = stack.depth(plane) // 2 if at is None else at
    cut = stack.cut(plane, number)
    return cut, None if mask is None else stack.turned_alike(mask).cut(plane, number).pixels


@dataclasses.dataclass(frozen=True, eq=False)
class _Drawing:
    """Everything that the still picture and the one behind the slider have in common."""

    title: str
    label: str
    cuts: Mapping[str, Cut]
    insides: Mapping[str, np.ndarray]
    names: Mapping[int, str]
    low_high: tuple[float, float]
    grey: str

    def still(self) -> Figure:
        """All of them, in one row or two, in more only if their headings need the room."""
        strengths = list(self.cuts)
        heading = max(map(_heading_inches, strengths))
        rows = 1 if len(strengths) <= ONE_ROW else 2
        columns = -(-len(strengths) // rows)
        while columns > 1 and heading > figures.PAGE_INCHES / columns - GAP_INCHES:
            columns -= 1
        note = f"above each picture: {self.label}"
        return self._page(
            [strengths[i : i + columns] for i in range(0, len(strengths), columns)],
            f"{note}; {self.grey}" if self.grey else note,
            HIGHEST_INCHES,
            heading,
        )

    def one(self, strength: str) -> Figure:
        """One of them, as large as the page allows."""
        return self._page([[strength]], self.grey, ALONE_INCHES)

    def _page(
        self, rows: Sequence[Sequence[str]], note: str, highest: float, heading: float = 0.0
    ) -> Figure:
        """Pictures of one scale, each with at least `heading` inches for what stands above it."""
        tallest = max(cut.size_mm[1] for cut in self.cuts.values())
        least_mm = heading * tallest / highest
        sizes = {name: np.maximum(cut.size_mm, (least_mm, 0)) for name, cut in self.cuts.items()}
        fig, axes = figures.page(
            [[tuple(sizes[strength]) for strength in row] for row in rows],
            self.title,
            gap=GAP_INCHES,
            foot=panels.foot_height(note, self.names),
            max_height=highest,
        )
        shown = [pair for row in zip(rows, axes, strict=True) for pair in zip(*row, strict=True)]
        first = self.cuts[shown[0][0]]
        for position, (strength, ax) in enumerate(shown):
            cut = self.cuts[strength]
            panels.draw(ax, cut, self.low_high, strength)
            ax.set_anchor("NW")
            if strength in self.insides:
                panels.outline(ax, self.insides[strength], cut, self.names)
            # One is enough where all lie the same way; the first is the one to compare with.
            if position == 0 or cut.letters != first.letters:
                panels.letter(ax, cut)
            if position == 0:
                panels.scale_bar(ax, cut)
        panels.foot(fig, note, self.names)
        return fig

    def alt(self) -> str:
        """Title and content as sentences."""
        rows, columns = next(iter(self.cuts.values())).pixels.shape[:2]
        content = (
            f"{len(self.cuts)} pictures of {rows} x {columns} pixels side by side, "
            f"{self.label}: {', '.join(self.cuts)}"
        )
        parts = [self.title.rstrip("."), content + (f"; {self.grey}" if self.grey else "")]
        if self.names:
            parts.append(f"Outlined: {', '.join(self.names.values())}")
        return ". ".join(parts) + "."


class FrameSlider:
    """The slider, and the picture that follows it.

    `box` is what to display; `strength` is the slider, `image` what it changes. Each picture is
    drawn when it is first asked for, by the code that draws the still one.
    """

    def __init__(self, drawing: _Drawing) -> None:
        import ipywidgets

        self._drawing = drawing
        self._drawn: dict[str, bytes] = {}
        self.strength = ipywidgets.SelectionSlider(
            options=list(drawing.cuts),
            description=drawing.label,
            style={"description_width": "initial"},
            layout={"width": "480px"},
        )
        self.image = ipywidgets.Image(
            format="png", width=int(figures.PAGE_INCHES * figures.CSS_PIXELS_PER_INCH)
        )
        self.box = ipywidgets.VBox([self.strength, self.image])
        self.strength.observe(lambda change: self._draw(), "value")
        self._draw()

    def _draw(self) -> None:
        strength = self.strength.value
        if strength not in self._drawn:
            self._drawn[strength] = figures.render(self._drawing.one(strength), FRAME_BYTES)
        self.image.value = self._drawn[strength]
