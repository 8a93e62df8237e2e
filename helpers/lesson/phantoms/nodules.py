"""Lung CT patches with and without a nodule, several slices of each patient."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm.auto import tqdm

from helpers.lesson.phantoms.noise import smooth_noise, smoothstep
from helpers.lesson.phantoms.sets import fresh_set
from helpers.lesson.phantoms.shapes import cone

VERSION = 1
SIZE = 64  # pixels a side
PIXEL_MM = 0.7
HU_OFFSET = 1024  # 16-bit PNG has no negative numbers; CT starts at -1024 HU
POSITIVE_FRACTION = 0.05
_HALF_MM = SIZE * PIXEL_MM / 2
_WALL_RADIUS_MM = 90
_RIM_MM = 1.0  # how far beyond its surface a distance is wanted


class _Block:
    """Distances inside soft tissue, in mm, at the pixels of one patient's slices."""

    def __init__(self, rng: np.random.Generator) -> None:
        count = int(rng.integers(4, 9))
        step_mm = rng.uniform(0.8, 1.4)
        self.heights = ((np.arange(count) - (count - 1) / 2) * step_mm).astype(np.float32)
        self.grid = ((np.arange(SIZE) - (SIZE - 1) / 2) * PIXEL_MM).astype(np.float32)
        # Breathing moves the slices against each other by about a pixel.
        shift = rng.normal(0, 0.5, (2, count, 1, 1)).astype(np.float32)
        self.slack_mm = float(np.abs(shift).max()) + PIXEL_MM
        self.z = self.heights[:, None, None]
        self.y = self.grid[None, :, None] + shift[0]
        self.x = self.grid[None, None, :] + shift[1]
        self.shape = (count, SIZE, SIZE)

    def empty(self) -> np.ndarray:
        """A field that is outside everywhere."""
        return np.full(self.shape, -99, np.float32)

    def add_cones(self, field: np.ndarray, cones: np.ndarray) -> None:
        """Join tapering segments to `field`: rows of two ends (x, y, z, radius) in mm."""
        ends, radii = cones[:, :, :3], cones[:, :, 3:]
        slack = np.array([self.slack_mm, self.slack_mm, 0], np.float32) + _RIM_MM
        low = (ends - radii).min(axis=1) - slack
        high = (ends + radii).max(axis=1) + slack
        first, last = np.zeros((2, len(cones), 3), int)
        for d, axis in enumerate((self.grid, self.grid, self.heights)):
            first[:, d] = np.searchsorted(axis, low[:, d])
            last[:, d] = np.searchsorted(axis, high[:, d])
        for i in np.flatnonzero((last > first).all(axis=1)):
            sx, sy, sz = map(slice, first[i].tolist(), last[i].tolist())
            inside = -cone(self.x[sz, :, sx], self.y[sz, sy, :], self.z[sz], *cones[i])
            np.maximum(field[sz, sy, sx], inside, out=field[sz, sy, sx])


def nodule_patient(seed: int = 0, positive: bool = False) -> np.ndarray:
    """Draw neighbouring CT patches of one patient's lung, with a nodule or without.

    Vessels that taper and fork, airways beside some of them, in every third patient the chest
    wall. A thick vessel crosses the middle of every patch: cut across it is as round as a nodule,
    and only its size, its border and its neighbours tell them apart. A nodule is lobed, in half
    of the patients spiculated, in a fifth of them ground glass. The slices of a patient share all
    of this, so a network that has seen one of them recognises the others.

    Args:
        seed: the same seed gives the same patches, bit by bit.
        positive: whether a nodule lies near the middle.

    Returns:
        int16 `[slice, y, x]` in HU: 4 to 8 slices of 64 x 64 pixels of 0.7 mm, about 1 mm apart.
    """
    rng = np.random.default_rng([seed, 2])
    block = _Block(rng)
    air, blood = rng.normal(-875, 25), rng.normal(40, 15)
    vessels, bronchi, lumen = _lung(rng, block)
    hu = np.full(block.shape, air, np.float32)
    hu += rng.uniform(8, 25) * smooth_noise(rng, [block.grid] * 2, 4.0)
    hu += (-250 - hu) * smoothstep(bronchi, -0.3, 0.3)
    hu += (-960 - hu) * smoothstep(lumen, -0.3, 0.3)
    hu += (blood - hu) * smoothstep(vessels, -0.4, 0.4)
    if positive:
        inside, density = _nodule(rng, block)
        hu += (rng.normal(30, 15) - hu) * density * smoothstep(inside, -0.5, 0.5)
    _add_chest_wall(rng, block, hu)
    hu = ndimage.gaussian_filter(hu, (0, 0.75, 0.75))
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, np.float32), (0, 0.6, 0.6))
    hu += noise * rng.uniform(45, 95)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _lung(rng, block):
    """Vessels, and the outside and the inside of bronchi."""
    count = rng.integers(10, 17)
    starts = rng.uniform(-1, 1, (count, 3)) * (_HALF_MM, _HALF_MM, 8)
    headings = rng.normal(size=(count, 3))
    radii = np.minimum(0.4 + rng.gamma(1.5, 0.3, count), 1.8)
    # In the middle stands a vessel that looks like a nodule where it is cut across.
    starts[0], radii[0] = rng.normal(0, 2.5, 3), rng.uniform(1.2, 2.4)
    headings[0, 2] = 4 * abs(headings[0, 2])
    cones, roots = _tree(
        rng, np.tile(starts, (2, 1)), np.concatenate([headings, -headings]), np.tile(radii, 2)
    )
    vessels, bronchi, lumen = block.empty(), block.empty(), block.empty()
    block.add_cones(vessels, cones)
    # A bronchus runs beside some of the large arteries.
    owners = np.flatnonzero(rng.random(count) < 0.3)
    beside = np.zeros((2 * count, 1, 4), np.float32)
    turn = np.tile(rng.uniform(0, 2 * np.pi, count), 2)
    beside[:, 0, 0], beside[:, 0, 1] = np.cos(turn), np.sin(turn)
    airways = np.isin(roots % count, owners) & (cones[:, 1, 3] > 0.9)
    cones, roots = cones[airways], roots[airways]
    cones = cones + beside[roots] * (2 * cones[:, :1, 3:] + 0.2)
    block.add_cones(bronchi, cones)
    block.add_cones(lumen, cones * np.array([1, 1, 1, 0.66], np.float32))
    return vessels, bronchi, lumen


def _tree(rng, points, headings, radii):
    """Vessels that bend, taper and fork twice: cones, and the root that each belongs to."""
    roots, cones, owners = np.arange(len(points)), [], []
    for level in range(3):
        if level:
            points, radii, roots = (np.repeat(v, 2, axis=0) for v in (points, radii, roots))
            headings = np.repeat(headings, 2, axis=0) + rng.normal(0, 0.55, (len(points), 3))
            radii = radii * rng.uniform(0.6, 0.85, len(points))
        for _ in range(3):
            headings = headings + rng.normal(0, 0.22, headings.shape)
            headings /= np.linalg.norm(headings, axis=1, keepdims=True)
            after = points + headings * rng.uniform(3, 7, (len(points), 1))
            thin = radii * rng.uniform(0.86, 0.98, len(points))
            start, stop = np.c_[points, radii], np.c_[after, thin]
            cones.append(np.stack([start, stop], axis=1))
            owners.append(roots)
            points, radii = after, thin
    return np.concatenate(cones).astype(np.float32), np.concatenate(owners)


def _nodule(rng, block):
    """Distance inside a nodule near the middle, and its density as a share of soft tissue."""
    centre = np.array([*rng.normal(0, 3.5, 2), rng.normal(0, 0.6)], np.float32)
    radius = np.float32(rng.uniform(2.6, 6.0))
    x, y, z = block.x - centre[0], block.y - centre[1], block.z - centre[2]
    stretch = rng.uniform(0.85, 1.2, 3).astype(np.float32)
    away = np.sqrt((x * stretch[0]) ** 2 + (y * stretch[1]) ** 2 + (z * stretch[2]) ** 2)
    lobes = smooth_noise(rng, [block.heights, block.grid, block.grid], radius * 1.1)
    inside = radius * (1 + rng.uniform(0.04, 0.2) * lobes) - away
    if rng.random() < 0.45:  # spicules: fine strands that reach out into the lung
        count = rng.integers(9, 20)
        ways = rng.normal(size=(count, 3)) * (1, 1, 0.6)
        ways *= radius * rng.uniform(1.4, 2.3, (count, 1)) / np.linalg.norm(ways, axis=1)[:, None]
        strands = np.zeros((count, 2, 4), np.float32)
        strands[:, :, :3] = centre
        strands[:, 1, :3] += ways
        strands[:, :, 3] = radius * 0.45, 0.05
        block.add_cones(inside, strands)
    density = rng.uniform(0.3, 0.6) if rng.random() < 0.2 else 1.0  # the first: ground glass
    return inside, density


def _add_chest_wall(rng, block, hu):
    """In every third patient the chest wall with a rib stands at the edge of the patch."""
    if rng.random() > 0.35:
        return
    turn = rng.uniform(0, 2 * np.pi)
    far = _WALL_RADIUS_MM - _HALF_MM * rng.uniform(0.6, 1.1)
    across, along = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    depth = block.x * across + block.y * along + far
    slide = block.y * across - block.x * along + rng.uniform(-25, 25)
    edge = np.hypot(depth, slide) - _WALL_RADIUS_MM + 0.15 * block.z
    hu += (45 - hu) * smoothstep(edge, -0.4, 0.4)
    rib = np.hypot(edge - 7, np.maximum(np.abs(slide) - rng.uniform(2, 30), 0)) - 4
    hu += (250 - hu) * smoothstep(rib, 0.5, -0.5)
    hu += 450 * np.exp(-((rib + 0.8) ** 2))


def nodules(data_dir: Path | str = "data", patients: int = 400, seed: int = 0) -> Path:
    """Write a classification set with several slices of each patient, one patient in 20 positive.

        nodules/labels.csv              columns file, patient, label
        nodules/images/P0007_2.png      16-bit grey PNG: HU + 1024, so 0 is -1024 HU

    The label is the patient's, 0 or 1, and stands in the row of each of the patient's slices.
    Reading the PNG needs 16 bits: `tf.io.decode_png(..., dtype=tf.uint16)`.

    Args:
        data_dir: folder that holds all data sets; the set goes to `data_dir/nodules`.
        patients: number of patients, at least 2; at least one of them is positive.
        seed: another seed gives other patients.

    Returns:
        The folder of the set. A complete set with the same arguments is left as it is.

    Raises:
        ValueError: for fewer than 2 patients.
    """
    if patients < 2:
        raise ValueError(f"patients must be at least 2, to have both classes; not {patients}")
    with fresh_set(data_dir, "nodules", VERSION, {"patients": patients, "seed": seed}) as folder:
        if folder:
            (folder / "images").mkdir()
            labels = np.arange(patients) < max(1, round(POSITIVE_FRACTION * patients))
            labels = np.random.default_rng([seed, 3]).permutation(labels).astype(int).tolist()
            rows = []
            for number, label in enumerate(tqdm(labels, "nodules", unit="patient")):
                slices = nodule_patient(seed * 100_000 + number, bool(label))
                stored = (slices + np.int16(HU_OFFSET)).astype(np.uint16)
                for i, pixels in enumerate(stored):
                    file = f"images/P{number:04d}_{i}.png"
                    Image.fromarray(pixels).save(folder / file, compress_level=1)
                    rows.append((file, f"P{number:04d}", label))
            with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("file", "patient", "label"))
                writer.writerows(rows)
    return Path(data_dir) / "nodules"
