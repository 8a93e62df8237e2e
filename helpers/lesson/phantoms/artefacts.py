"""What lies between a dermatoscope's lens and the lesion: hairs, gel bubbles, ruler marks."""

import numpy as np
from PIL import Image, ImageDraw

from helpers.lesson.phantoms.noise import smooth_noise

_FINE = 2  # lines are drawn at twice the size and shrunk, so that thin hairs stay smooth


def draw_artefacts(image: np.ndarray, rng: np.random.Generator, unit: float) -> None:
    """Draw over a picture in place.

    Args:
        image: float32 `[3, y, x]`, 0 to 1.
        rng: what is drawn and where; three pictures in five have hairs.
        unit: pixels for one pixel of a picture 288 high.
    """
    chance = rng.random()
    if chance < 0.6:
        draw_hairs(
            image, rng, unit, int(rng.integers(1, 8) if chance < 0.4 else rng.integers(10, 32))
        )
    if rng.random() < 0.15:
        for _ in range(rng.integers(1, 7)):
            _bubble(image, rng, unit)
    if rng.random() < 0.1:
        _ruler(image, rng, unit)


def draw_hairs(image, rng, unit, count):
    """Draw `count` hairs of one colour; arguments as for `draw_artefacts`."""
    height, width = image.shape[1:]
    layer = Image.new("L", (width * _FINE, height * _FINE))
    draw = ImageDraw.Draw(layer)
    typical = rng.uniform(0.8, 2.1) * unit * _FINE
    along = np.linspace(0, 1, 24)
    for _ in range(count):
        start = rng.uniform(0, 1, 2) * (layer.width, layer.height)
        angle = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.9) * along
        step = rng.uniform(0.25, 1.1) * layer.width / len(along)
        points = start + step * np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1), axis=0)
        thick = typical * rng.uniform(0.6, 1.5)
        for i in range(0, len(along) - 3, 4):  # a hair grows thinner to its tip
            piece = [tuple(p) for p in points[i : i + 5].tolist()]
            draw.line(piece, fill=255, width=max(1, round(thick * (1 - 0.6 * along[i]))))
    cover = np.asarray(layer.resize((width, height), Image.Resampling.BOX), np.float32)
    cover *= 0.9 / 255
    if rng.random() < 0.9:
        colour = rng.uniform(0.05, 0.35) * np.array([1.0, 0.8, 0.65])
    else:
        colour = np.array([0.86, 0.80, 0.72])  # grey or fair
    image += cover * (colour.astype(np.float32)[:, None, None] - image)


def draw_ink(image, rng, unit, strokes, centre, radius):
    """Draw strokes of a skin marker round a lesion: arcs and ticks, violet, thinner where dry.

    Args:
        image, rng, unit: as for `draw_artefacts`.
        strokes: how many.
        centre, radius: of the lesion, pixels `(y, x)`.
    """
    if not strokes:
        return
    height, width = image.shape[1:]
    layer = Image.new("L", (width * _FINE, height * _FINE))
    draw = ImageDraw.Draw(layer)
    away = radius * rng.uniform(1.15, 1.6)
    for _ in range(strokes):
        angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(0.05, 0.9), 16)
        reach = away * np.linspace(1, rng.uniform(0.95, 1.25), 16)
        points = centre[::-1] + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        line = [tuple(p) for p in (points * _FINE).tolist()]
        draw.line(line, fill=255, width=round(rng.uniform(4, 9) * unit * _FINE), joint="curve")
    cover = np.asarray(layer.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    dry = smooth_noise(rng, [np.arange(height), np.arange(width)], 3 * unit)
    cover *= np.clip(rng.uniform(0.5, 0.85) + 0.15 * dry, 0, 1)
    violet = np.array([0.27, 0.16, 0.48], np.float32)
    image += cover * (violet[:, None, None] * (0.5 + 0.5 * image) - image)


def _bubble(image, rng, unit):
    """A ring, dark on one side and bright on the other, with a glint of the lamp."""
    radius = rng.uniform(4, 16) * unit
    middle = rng.uniform(0, 1, 2) * image.shape[1:]
    low = np.maximum(middle - radius - 6, 0).astype(int)
    high = np.minimum(middle + radius + 7, image.shape[1:]).astype(int)
    y, x = np.ix_(*(np.arange(a, b) - m for a, b, m in zip(low, high, middle, strict=True)))
    away = np.hypot(y, x)
    ring = np.exp(-(((away - radius) / (1.3 * unit)) ** 2))
    towards_lamp = 0.5 - 0.5 * (y + x) / (1.5 * away + 1)
    glint = np.exp(-((y + 0.4 * radius) ** 2 + (x + 0.4 * radius) ** 2) / (0.03 * radius**2 + 1))
    part = image[:, low[0] : high[0], low[1] : high[1]]
    part *= (1 - 0.45 * ring * (1 - towards_lamp)).astype(np.float32)
    bright = 0.35 * ring * towards_lamp + 0.6 * glint + 0.05 * (away < radius)
    part += bright.astype(np.float32) * (1 - part)


def _ruler(image, rng, unit):
    """Millimetre marks along the lower edge, every fifth one longer."""
    height, width = image.shape[1:]
    layer = Image.new("L", (width * _FINE, height * _FINE))
    draw = ImageDraw.Draw(layer)
    step = rng.uniform(16, 26) * unit * _FINE
    foot = layer.height - rng.uniform(2, 10) * unit * _FINE
    for i in range(int(layer.width / step) + 1):
        tall = (18 if i % 5 == 0 else 9) * unit * _FINE
        draw.line([i * step, foot, i * step, foot - tall], fill=255, width=round(1.5 * _FINE))
    cover = np.asarray(layer.resize((width, height), Image.Resampling.BOX), np.float32)
    image *= 1 - cover * (0.8 / 255)
