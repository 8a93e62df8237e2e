"""Dermoscopy-like pictures of skin lesions, and a set of them as ISIC 2018 task 1 comes.

Colours follow from what the skin does to light: melanin and blood each take away their share of
red, green and blue (law of Beer and Lambert), so that a thin network is light brown, a thick one
dark brown, and the same lesion looks different on light and on dark skin.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm.auto import tqdm

from helpers.lesson.phantoms.artefacts import draw_artefacts, draw_hairs, draw_ink
from helpers.lesson.phantoms.noise import smooth_noise, smoothstep
from helpers.lesson.phantoms.sets import fresh_set, only_if

VERSION = 1
JPEG_QUALITY = 88
DEFAULT_SIZE = (270, 360)

# Absorption of red, green and blue by one unit of pigment; the light that bare skin sends back.
_MELANIN = np.array([0.42, 0.66, 0.93], np.float32)
_BLOOD = np.array([0.06, 0.46, 0.36], np.float32)
_BARE_SKIN = np.array([0.94, 0.83, 0.77], np.float32)
_VEIL = np.array([0.42, 0.44, 0.49], np.float32)  # deep pigment scatters back blue-grey


@dataclass(frozen=True)
class Look:
    """What differs between varied lesions; the defaults are a brown one in the middle.

    Args:
        shift: from the middle of the picture `(y, x)`, in heights.
        pigment: share of the usual melanin.
        flush: blood in the lesion beyond the usual.
        pale: share of the skin's own melanin that the lesion has lost.
        ink: strokes of a surgeon's pen round the lesion.
        hairs: more of them than usual.
    """

    shift: tuple[float, ...] = (0.0, 0.0)
    pigment: float = 1.0
    flush: float = 0.0
    pale: float = 0.0
    ink: int = 0
    hairs: int = 0


def skin_lesion(
    seed: int = 0, size: tuple[int, int] = DEFAULT_SIZE, varied: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one skin lesion as a dermatoscope shows it, with its outline.

    Skin from light to dark, uneven light, a vignette; a lesion with an irregular and unevenly
    sharp border, several tones of pigment, a network, globules or dots, sometimes a blue-white
    veil; hairs, gel bubbles and ruler marks. About a fifth of the lesions are faint.

    Args:
        seed: the same seed gives the same picture, bit by bit.
        size: height and width in pixels; details grow with the height.
        varied: lesions lie anywhere, are brown, pink or pale, in part hidden by hairs, and in one
            picture of three a surgeon has drawn round them.

    Returns:
        The image, uint8 `[y, x, 3]`, and the mask, uint8 `[y, x]`: 1 in the lesion, 0 elsewhere.
        The mask is a single region without holes, as the challenge describes its own.
    """
    rng = np.random.default_rng([seed, 1])
    axes = [np.arange(n, dtype=np.float32) for n in size]
    unit = size[0] / 288
    look = _look(seed) if varied else Look()
    inside, edge, radius, centre = _outline(rng, axes, unit, look.shift)
    mask = single_region(inside > 0)

    melanin, blood = _skin(rng, axes, unit)
    spots, redness, veil = _pigment(rng, axes, unit, inside, edge, radius)
    body = smoothstep(inside / edge, -1.0, 1.0)
    melanin = melanin * (1 - look.pale * body) + spots * look.pigment
    blood += redness + look.flush * body
    light = _light(rng, axes, size)
    white_balance = rng.normal(1, 0.035, 3).astype(np.float32)
    channels = []
    for i in range(3):
        channel = np.exp(-_MELANIN[i] * melanin - _BLOOD[i] * blood)
        channel *= _BARE_SKIN[i] * white_balance[i]
        channel += veil * (_VEIL[i] - channel)
        channels.append(channel)
    image = np.stack(channels)  # [3, y, x] until the end: whole planes are quicker
    draw_artefacts(image, rng, unit)
    own = np.random.default_rng([seed, 14])
    draw_ink(image, own, unit, look.ink, centre, radius)
    if look.hairs:
        draw_hairs(image, own, unit, look.hairs)
    image *= light
    grain = rng.standard_normal(size, dtype=np.float32) * 0.012
    image += grain * (0.3 + image)
    np.clip(image, 0, 1, out=image)
    image *= 255
    picture = np.ascontiguousarray(np.moveaxis(np.rint(image).astype(np.uint8), 0, 2))
    return picture, mask.astype(np.uint8)


def skin_lesions(
    data_dir: Path | str = "data",
    count: int = 600,
    size: tuple[int, int] = DEFAULT_SIZE,
    seed: int = 0,
    workers: int | None = None,
    varied: bool = False,
) -> Path:
    """Write a segmentation set of skin lesions, laid out and named as ISIC 2018 task 1.

        skin_lesions/images/ISIC_9000123.jpg                colour JPEG
        skin_lesions/masks/ISIC_9000123_segmentation.png    8-bit grey PNG, 0 and 255

    The numbers ascend with gaps, as in the challenge; they start at 9000000, so that no picture
    is mistaken for one of its own. Sizes differ by about a tenth from picture to picture.

    Args:
        data_dir: folder that holds all data sets; the set goes to `data_dir/skin_lesions`.
        count: number of lesions.
        size: typical height and width in pixels.
        seed: another seed gives other lesions.
        workers: threads that draw, one for each core if None. The files do not depend on it.
        varied: as for `skin_lesion`.

    Returns:
        The folder of the set. A complete set with the same arguments is left as it is.
    """
    parameters = {"count": count, "size": list(size), "seed": seed, **only_if(varied)}
    with fresh_set(data_dir, "skin_lesions", VERSION, parameters) as folder:
        if folder:
            (folder / "images").mkdir()
            (folder / "masks").mkdir()
            gaps = np.random.default_rng([seed, 4]).integers(1, 25, count)
            jobs = [
                (folder, f"ISIC_{9_000_000 + number}", seed * 100_000 + i, size, varied)
                for i, number in enumerate(np.cumsum(gaps))
            ]
            # Threads, not processes: NumPy and Pillow let go of the interpreter's lock, and a
            # notebook needs no guard against being imported by its own workers.
            with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
                done = pool.map(lambda job: _write_lesion(*job), jobs)
                for _ in tqdm(done, "skin_lesions", count, unit="image"):
                    pass
    return Path(data_dir) / "skin_lesions"


def _write_lesion(folder: Path, stem: str, seed: int, size: tuple[int, int], varied: bool) -> None:
    rng = np.random.default_rng([seed, 5])
    scale, wide = rng.uniform(0.9, 1.08), rng.choice([1.0, 1.125], p=[0.7, 0.3])
    own_size = (round(size[0] * scale), round(size[1] * scale * wide))
    image, mask = skin_lesion(seed, own_size, varied)
    Image.fromarray(image).save(folder / "images" / f"{stem}.jpg", quality=JPEG_QUALITY)
    Image.fromarray(mask * np.uint8(255)).save(folder / "masks" / f"{stem}_segmentation.png")


def single_region(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask, its holes filled; both bool `[y, x]`."""
    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    _, outside = ndimage.label(~mask)
    return ndimage.binary_fill_holes(mask) if outside > 1 else mask


def _look(seed):
    rng = np.random.default_rng([seed, 13])
    kind = rng.choice(["brown", "pink", "pale"], p=[0.5, 0.35, 0.15])
    pigment = {"brown": (0.35, 1.0), "pink": (0.05, 0.3), "pale": (0.0, 0.15)}
    flush = {"brown": (0.0, 0.15), "pink": (0.15, 0.7), "pale": (0.1, 0.3)}
    return Look(
        shift=tuple(rng.uniform((-0.2, -0.3), (0.2, 0.3))),
        pigment=rng.uniform(*pigment[kind]),
        flush=rng.uniform(*flush[kind]),
        pale=rng.uniform(0.5, 0.9) if kind == "pale" else 0.0,
        ink=int(rng.integers(2, 9)) if rng.random() < 0.35 else 0,
        hairs=int(rng.integers(5, 40)) if rng.random() < 0.4 else 0,
    )


def _outline(rng, axes, unit, shift):
    """Distance inside the border, width of its blur, mean radius and centre, in pixels."""
    height, width = len(axes[0]), len(axes[1])
    radius = height * (rng.uniform(0.12, 0.24) if rng.random() < 0.4 else rng.uniform(0.22, 0.42))
    centre = np.array([height, width]) / 2 + rng.normal(0, 0.05, 2) * height
    centre += np.multiply(shift, height)
    y, x = np.ix_(axes[0] - np.float32(centre[0]), axes[1] - np.float32(centre[1]))
    turn, stretch = rng.uniform(0, np.pi), (rng.uniform(1.0, 1.5) ** 0.5)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = (x * cos + y * sin) / stretch, (y * cos - x * sin) * stretch
    angle = np.arctan2(v, u)
    rough = rng.uniform(0.3, 1.3)
    reach = np.ones_like(angle)
    for k in range(2, 7):
        swing = rough * rng.normal(0, 0.16 / k)
        reach += swing * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    inside = radius * reach - np.hypot(u, v)
    inside += (rough * 4 * unit) * smooth_noise(rng, axes, 18 * unit)
    inside += (rough * 1.8 * unit) * smooth_noise(rng, axes, 6 * unit)
    blur = rng.uniform(1.5, 11) * unit
    edge = blur * np.exp(0.5 * smooth_noise(rng, axes, 60 * unit))
    return inside, edge, radius, centre


def _skin(rng, axes, unit):
    """Melanin and blood of the skin round the lesion."""
    light, tan, dark = rng.uniform(0.03, 0.3), rng.uniform(0.3, 0.75), rng.uniform(0.8, 1.6)
    tone = np.float32(rng.choice([light, tan, dark], p=[0.6, 0.27, 0.13]))
    patches = smooth_noise(rng, axes, 70 * unit)
    blotches = smooth_noise(rng, axes, 25 * unit)
    furrows = smoothstep(np.abs(smooth_noise(rng, axes, (9 * unit, 13 * unit))), 0.3, 0.0)
    melanin = tone * (1 + 0.1 * patches)
    melanin += 0.02 * smooth_noise(rng, axes, 3.5 * unit)
    melanin += rng.uniform(0.01, 0.07) * furrows
    flush = rng.uniform(0.08, 0.5)
    blood = flush * (1 + 0.18 * blotches + 0.15 * patches)
    if rng.random() < 0.4:  # fine vessels
        ridge = np.abs(smooth_noise(rng, axes, 30 * unit))
        blood += 0.3 * smoothstep(ridge, 0.06, 0.0) * (blotches > 0)
    return melanin, blood


def _pigment(rng, axes, unit, inside, edge, radius):
    """What the lesion adds: melanin, blood, and a blue-white veil from 0 to 1."""
    body = smoothstep(inside / edge, -1.0, 1.0)
    depth = np.clip(inside / radius, 0, 1)
    region = max(radius / 2, 8)
    faint = rng.random() < 0.22
    strength = rng.uniform(0.09, 0.28) if faint else rng.uniform(0.4, 1.3)
    amount = 1 + rng.uniform(0.1, 0.3) * smooth_noise(rng, axes, region)
    amount += 0.12 * smooth_noise(rng, axes, 7 * unit)
    amount += rng.uniform(-0.3, 0.6) * (depth - 0.3)
    if not faint and rng.random() < 0.5:  # a second, darker tone
        darker = smooth_noise(rng, axes, region)
        amount += rng.uniform(0.4, 1.1) * smoothstep(darker, 0.2, 1.0)
    if rng.random() < 0.25:  # pigment has gone from a part
        lighter = smooth_noise(rng, axes, region)
        amount *= 1 - rng.uniform(0.3, 0.75) * smoothstep(lighter, 0.4, 1.3)
    pattern = rng.choice(["network", "globules", "both", "plain"], p=[0.42, 0.18, 0.15, 0.25])
    if pattern != "plain":
        cells = _honeycomb(rng, axes, unit)
        where = smoothstep(smooth_noise(rng, axes, region), -0.9, 0.6)
        if pattern != "globules":
            walls = smoothstep(cells, -0.3, -1.35)
            amount += rng.uniform(0.5, 1.1) * where * walls
        if pattern != "network":
            amount += rng.uniform(0.4, 1.0) * (1 - where) * smoothstep(cells, 1.0, 2.2)
    melanin = strength * np.maximum(amount, 0.1) * body
    melanin += _dots(rng, axes, unit, inside)
    redness = rng.uniform(0.0, 0.15 if faint else 0.45) * smoothstep(inside / edge, -3.0, 0.5)
    veil = np.zeros_like(body)
    if not faint and rng.random() < 0.2:
        cloud = smooth_noise(rng, axes, region)
        veil = rng.uniform(0.3, 0.6) * smoothstep(cloud, 0.2, 2.0) * body
    return melanin, redness, veil


def _honeycomb(rng, axes, unit):
    """Three warped waves at 120 degrees: 3 in the middle of a cell, -1.5 where walls meet."""
    wave = 2 * np.pi / (rng.uniform(6, 10) * unit)
    y = axes[0][:, None] + (2.8 * unit) * smooth_noise(rng, axes, 12 * unit)
    x = axes[1][None, :] + (2.8 * unit) * smooth_noise(rng, axes, 12 * unit)
    turns = rng.uniform(0, np.pi) + np.arange(3) * 2 * np.pi / 3
    directions = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32) * wave
    return sum(np.cos(along_x * x + along_y * y) for along_x, along_y in directions)


def _dots(rng, axes, unit, inside):
    """Dark dots scattered in every other lesion."""
    field = np.zeros(inside.shape, np.float32)
    candidates = np.flatnonzero(inside > 2)
    count = int(rng.integers(1, 60)) if rng.random() < 0.5 else 0
    if not candidates.size:
        return field
    rows, columns = np.unravel_index(rng.choice(candidates, count), inside.shape)
    sizes, weights = rng.uniform(0.8, 2.6, count) * unit, rng.uniform(0.2, 0.9, count)
    for row, column, size, weight in zip(rows, columns, sizes, weights, strict=True):
        r = int(3 * size) + 1
        box = np.s_[max(row - r, 0) : row + r + 1, max(column - r, 0) : column + r + 1]
        away = (axes[0][box[0], None] - row) ** 2 + (axes[1][None, box[1]] - column) ** 2
        field[box] += weight * np.exp(-((away / size**2) ** 2))
    return field


def _light(rng, axes, size):
    """Brightness of the lamp: uneven, darker in the corners, in some cut by the lens."""
    middle = rng.normal(0, 0.04, 2)
    y, x = np.ix_(
        axes[0] / size[0] - np.float32(0.5 + middle[0]),
        axes[1] / size[0] - np.float32(0.5 * size[1] / size[0] + middle[1]),
    )
    slope = rng.normal(0, 0.1, 2).astype(np.float32)
    light = 1 + slope[0] * y + slope[1] * x
    light += 0.03 * smooth_noise(rng, axes, size[0] / 2)
    away = np.hypot(y, x)
    light *= 1 - rng.uniform(0.1, 0.45) * away**2
    if rng.random() < 0.15:
        rim = rng.uniform(0.6, 0.72)
        light *= smoothstep(away, rim + 0.02, rim - 0.02)
    return light
