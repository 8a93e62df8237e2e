"""A slice viewer for a notebook that somebody is using: plane, slice, window, outlines.

A widget needs a live front end: on a static page it is an error text, and its random id would make
every run of a notebook another file. So `show.viewer` always leaves a still picture, and puts the
widget in front of it only where `live_front_end` finds one.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage

from helpers import intensity
from helpers.lesson import figures, panels
from helpers.lesson.views import PLANES, Cut, oriented

STILL = "COURSE_STILL"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
LARGEST_PIXELS = (640, 440)


def live_front_end() -> bool:
    """Whether somebody sees this kernel's widgets, rather than a tool that stores its outputs.

    True if the kernel belongs to a session that a Jupyter server opened for a notebook (it names
    the notebook in JPY_SESSION_NAME; papermill, nbconvert and nbval start kernels of their own,
    without it), to Visual Studio Code or to Colab. COURSE_STILL=1 in the environment overrules
    that, for tools that are themselves started from a notebook.
    """
    if os.environ.get(STILL, "0") not in ("", "0"):
        return False
    shell = figures.notebook_shell()
    if shell is None or not hasattr(shell, "kernel"):
        return False
    return (
        "JPY_SESSION_NAME" in os.environ
        or "__vsc_ipynb_file__" in shell.user_ns
        or "google.colab" in sys.modules
    )


class SliceViewer:
    """The widgets, and the picture that follows them.

    Args:
        volume, mask, labels, window, spacing: as for `show.viewer`.
        plane: the first to show.

    `box` is what to display; `plane`, `slice`, `preset`, `center`, `width` and `outlines` are the
    controls, `image` and `caption` what they change. A slice is drawn with Pillow, not matplotlib,
    to keep up with a slider that is dragged.
    """

    def __init__(
        self,
        volume,
        mask=None,
        labels: Mapping[int, str] | None = None,
        window=None,
        spacing: Sequence[float] | None = None,
        plane: str = "axial",
    ) -> None:
        import ipywidgets

        self._stack = oriented(volume, spacing)
        self._mask = None if mask is None else self._stack.turned_alike(mask)
        self._names = panels.names_of(None if mask is None else self._mask.voxels, labels)
        low, high = panels.limits(self._stack.voxels, window)
        least, most = float(np.nanmin(self._stack.voxels)), float(np.nanmax(self._stack.voxels))
        self._presets = {"as given": (low, high), "full range": (least, max(most, least + 1))}
        if least <= -500:  # only values in HU have air so far below zero
            for name in intensity.WINDOWS:
                self._presets[name] = panels.limits(self._stack.voxels, name)

        step = (self._presets["full range"][1] - least) / 200
        lows, highs = zip(*self._presets.values(), strict=True)
        widest = max(np.subtract(highs, lows))
        self.plane = ipywidgets.Dropdown(options=list(PLANES), value=plane, description="plane")
        self.slice = ipywidgets.IntSlider(min=0, max=0, description="slice")
        self.preset = ipywidgets.Dropdown(options=list(self._presets), description="window")
        self.center = ipywidgets.FloatSlider(
            min=min(lows), max=max(highs), step=step, description="centre"
        )
        self.width = ipywidgets.FloatSlider(min=step, max=widest, step=step, description="width")
        self.outlines = ipywidgets.Checkbox(value=True, description="outlines", indent=False)
        self.image = ipywidgets.Image(format="png")
        self.caption = ipywidgets.Label()
        controls = [self.plane, self.slice, self.preset, self.center, self.width]
        if self._names:
            controls.append(self.outlines)
        self.box = ipywidgets.HBox(
            [ipywidgets.VBox([self.image, self.caption]), ipywidgets.VBox(controls)]
        )
        self._choose_preset()
        self._choose_plane()
        self.plane.observe(lambda change: self._choose_plane(), "value")
        self.preset.observe(lambda change: self._choose_preset(), "value")
        for control in (self.slice, self.center, self.width, self.outlines):
            control.observe(lambda change: self._draw(), "value")

    def _choose_plane(self) -> None:
        depth = self._stack.depth(self.plane.value)
        # Both at once, so that no slice beyond the new plane's last is ever asked for.
        with self.slice.hold_trait_notifications():
            self.slice.max, self.slice.value = depth - 1, depth // 2
        self._draw()

    def _choose_preset(self) -> None:
        low, high = self._presets[self.preset.value]
        self.center.value, self.width.value = (low + high) / 2, high - low

    def _draw(self) -> None:
        cut = self._stack.cut(self.plane.value, self.slice.value)
        low = self.center.value - self.width.value / 2
        grey = np.clip((cut.pixels - np.float32(low)) * (255 / self.width.value), 0, 255)
        scale = min(np.divide(LARGEST_PIXELS, cut.size_mm))
        size = tuple(max(1, round(scale * mm)) for mm in cut.size_mm)
        picture = Image.fromarray(np.nan_to_num(grey).astype(np.uint8))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
        legend = ""
        if self._names and self.outlines.value:
            inside = self._mask.cut(self.plane.value, self.slice.value).pixels
            picture = _outlined(picture, inside, self._names)
            legend = f"; outlined: {', '.join(self._names.values())}"
        _write_letters(picture, cut)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
        self.image.value = buffer.getvalue()
        last = self._stack.depth(self.plane.value) - 1
        self.caption.value = f"{self.plane.value} slice {cut.number} of 0 to {last}{legend}"


def _outlined(picture: Image.Image, mask: np.ndarray, names: Mapping[int, str]) -> Image.Image:
    """The picture in colour with a line inside the border of each class, and its name."""
    rgb = np.array(picture.convert("RGB"))
    centres = {}
    for position, (value, name) in enumerate(names.items()):
        shape = Image.fromarray((mask == value).astype(np.uint8))
        inside = np.array(shape.resize(picture.size, Image.Resampling.NEAREST), bool)
        line = inside & ~ndimage.binary_erosion(inside, iterations=2)
        rgb[line] = ImageColor.getrgb(figures.colour(name, position))
        if inside.any():
            centres[name] = [float(axis.mean()) for axis in np.nonzero(inside)]
    picture = Image.fromarray(rgb)
    for name, (y, x) in centres.items():
        _write(picture, (x, y), name, "mm", size=12)
    return picture


def _write_letters(picture: Image.Image, cut: Cut) -> None:
    width, height = picture.size
    places = {
        (6, height / 2): "lm",
        (width - 6, height / 2): "rm",
        (width / 2, 4): "mt",
        (width / 2, height - 4): "mb",
    }
    for text, (place, anchor) in zip(cut.letters, places.items(), strict=False):
        _write(picture, place, text, anchor, size=16)


def _write(picture: Image.Image, place, text: str, anchor: str, size: int) -> None:
    white, black = ((255,) * 3, (0,) * 3) if picture.mode == "RGB" else (255, 0)
    ImageDraw.Draw(picture).text(
        place,
        text,
        fill=white,
        font=ImageFont.load_default(size),
        anchor=anchor,
        stroke_width=2,
        stroke_fill=black,
    )
