"""The organs of the abdomen: liver, spleen, kidneys, great vessels, stomach and bowel.

Lengths are mm of the average body; see `Canvas` for the axes.
"""

from dataclasses import dataclass

import numpy as np

from helpers.lesson.phantoms.shapes import Canvas, chain, ellipsoid, smooth_max
from helpers.lesson.phantoms.torso_frame import FAT, MUSCLE, Build, Frame

GAS = -970.0


@dataclass(frozen=True, eq=False)
class Liver:
    """The liver's function (mm, negative inside) in a box of the canvas."""

    f: np.ndarray
    box: tuple[slice, slice, slice]


def paint_organs(
    c: Canvas, rng: np.random.Generator, texture, values, ids, frame: Frame, build: Build
) -> Liver:
    """Paint the abdomen into a frame; arguments as for `paint_frame`."""
    room = np.clip(0.5 - (frame.cavity + 3) / 3, 0, 1)
    room *= np.clip(0.5 - (c.z - frame.dome + 4) / 6, 0, 1)
    _crura(c)
    _small_bowel(c, rng, values, ids, room)
    _colon(c, rng, texture, values, ids, room)
    _stomach(c, rng, texture, values, ids, frame)
    _pancreas(c, rng, values, room)
    liver = _liver(c, rng, texture, values, ids, frame, build.vessel_mm)
    _spleen(c, rng, texture, values, ids, frame, build)
    _great_vessels(c, rng, values, ids, frame)
    for name, side, drop in (("left kidney", 1, 0), ("right kidney", -1, 12)):
        centre = _near(rng, (side * 64, 38, -44 - drop), 3)
        _kidney(c, rng, values, ids[name], side, centre)
    return liver


def paint_metastases(c: Canvas, rng, texture, values, ids, liver: Liver, count: int) -> np.ndarray:
    """Paint up to `count` dark round lesions, each wholly inside the liver; returns their mask."""
    mask = np.zeros(c.hu.shape, np.uint8)
    x, y, z = c.at(liver.box)
    inside = c.organs[liver.box] == ids["liver"]
    for _ in range(count):
        radius = rng.uniform(5, 16)
        places = np.flatnonzero((liver.f < -1.2 * radius - 3) & inside & (mask[liver.box] == 0))
        if places.size == 0:
            continue
        at = np.unravel_index(places[rng.integers(places.size)], inside.shape)
        centre = x[at], y[at], z[at]
        radii = radius * rng.uniform(0.85, 1.15, 3)
        f = ellipsoid(x, y, z, centre, radii) + 1.2 * texture[liver.box]
        share = c.paint(f, values["lesion"] + 5 * texture[liver.box], None, liver.box)
        mask[liver.box][(share > 0.5) & inside] = 1
    return mask


def _near(rng, centre, spread: float) -> np.ndarray:
    return np.asarray(centre, float) + rng.normal(0, spread, 3).clip(-2 * spread, 2 * spread)


def _sized(rng, radii, by: float = 0.1) -> np.ndarray:
    return np.asarray(radii, float) * rng.uniform(1 - by, 1 + by, 3)


def _around(c: Canvas, centre, radii):
    return c.box(np.subtract(centre, np.max(radii)), np.add(centre, np.max(radii)))


def _crura(c: Canvas) -> None:
    for side in (-1, 1):
        centre, radii = (2 + side * 11, 22, 0), (6, 12, 55)
        box = _around(c, centre, radii)
        c.paint(ellipsoid(*c.at(box), centre, radii, side * 0.5), MUSCLE, None, box)


def _small_bowel(c: Canvas, rng, values, ids, room) -> None:
    """Loops that wind through the fat in front of the spine, and the vessels that feed them."""
    x, y = np.abs(c.x), c.y
    front = room * np.clip(0.5 - (y + 8 - 0.3 * x) / 4, 0, 1).astype(np.float32)
    root = np.array((4.0, -8.0, -70.0))
    for _ in range(54):
        start = rng.uniform((-80, -84, -165), (80, 8, -62))
        feeder = [root, (root + start) / 2 + rng.normal(0, 9, 3), start]
        c.tube(feeder, [1.6, 1.2, 0.7], 0.7 * values["blood"], None, front)
        way, points = rng.normal(0, 1, 3) * (1, 1, 0.6), [start]
        for _ in range(3):
            way = way / np.linalg.norm(way) + rng.normal(0, 0.5, 3)
            points.append(points[-1] + 16 * way / np.linalg.norm(way))
        radius = rng.uniform(9.5, 13)
        content = GAS if rng.random() < 0.08 else rng.uniform(12, 40)
        c.tube(points, radius, values["gut"], ids["bowel"], front)
        c.tube(points, radius - 2.6, content, None, front)


def _colon(c: Canvas, rng, texture, values, ids, room) -> None:
    """Ascending and descending colon with stool, transverse colon with gas that has risen."""
    right = [(-98, 22, -175), (-102, 20, -120), (-100, 12, -95), (-84, -20, -88)]
    across = [(-84, -20, -88), (-45, -62, -90), (0, -74, -100), (48, -64, -84), (88, -18, -50)]
    left = [(88, -18, -50), (106, 22, -58), (108, 26, -110), (98, 22, -175)]
    for line, wide, full in ((left, 14, True), (across, 17, False), (right, 21, True)):
        line, wide = _near(rng, (0, 0, 0), 3) + line, wide * rng.uniform(0.85, 1.15)
        t = np.linspace(0, len(line) - 1, 6 * len(line))
        points = np.stack([np.interp(t, range(len(line)), axis) for axis in line.T], axis=1)
        radii = wide * (1 + 0.13 * np.sin(2.1 * np.arange(len(t))))  # the haustra
        box = c.box(points.min(0) - 1.2 * wide, points.max(0) + 1.2 * wide)
        x, y, z = c.at(box)
        f = chain(x, y, z, points, radii) + 0.8 * texture[box]
        c.paint(f, values["gut"] - 15, ids["bowel"], box, room)
        crumbs = 45 * texture[box] if full else 0
        c.paint(f + 2.4, 30.0 + crumbs, None, box, room)
        bubbles = 3.5 * (1.1 - texture[box]) if full else y - points[:, 1].mean() + 2
        c.paint(np.maximum(f + 3.2, bubbles), -700.0 if full else GAS, None, box, room)


def _stomach(c: Canvas, rng, texture, values, ids, frame: Frame) -> None:
    """A bag under the left dome; the patient lies, so gas stands above a level of fluid."""
    centre, radii = _near(rng, (50, -28, 10 + 0.7 * frame.lift), 4), _sized(rng, (42, 38, 48), 0.12)
    box = _around(c, centre, radii)
    x, y, z = c.at(box)
    f = ellipsoid(x, y, z, centre, radii, 0.4, 0.25)
    outlet = [centre + (-12, -8, -24), centre + (-42, -12, -46), centre + (-66, 4, -46)]
    f = -smooth_max(-f, -chain(x, y, z, outlet, [17, 14, 11]), 8.0)
    f = smooth_max(f, frame.cavity[box] + 4, 5.0)
    f = smooth_max(f, z - frame.dome[:, box[1], box[2]] + 4.5, 5.0) + 0.7 * texture[box]
    c.paint(f, values["gut"], ids["stomach"], box)
    c.paint(f + 4, 28.0 + 12 * texture[box], None, box)
    level = np.broadcast_to(c.y, c.hu.shape)[box] - (centre[1] - rng.uniform(4, 16))
    c.paint(np.maximum(f + 4.2, level), GAS, None, box)


def _pancreas(c: Canvas, rng, values, room) -> None:
    line = [(-34, -8, -46), (-20, -18, -36), (4, -26, -28), (30, -14, -18), (56, 6, -8)]
    line = np.array([*line, (78, 16, 0)], float) + rng.normal(0, 2.5, (6, 3))
    c.tube(line, [13, 11, 8.5, 8.5, 8, 6], values["gut"] + 8, None, room)


def _liver(c: Canvas, rng, texture, values, ids, frame: Frame, vessel_mm: float) -> Liver:
    """Fills the right dome; below it is cut obliquely, to the left it tapers off."""
    box = c.box((-150, -110, -105), (90, 100, 75))
    x, y, z = c.at(box)
    low = -92 + rng.normal(0, 8) + 66 * np.clip((x + 105) / 130, 0, 2) ** 1.3 + 0.4 * (y + 20)
    f = smooth_max(frame.cavity[box] + 2.5, z - frame.dome[:, box[1], box[2]] + 3.5, 6.0)
    f = smooth_max(f, (0.8 * (low - z)).astype(np.float32), 14.0)
    f = smooth_max(f, 0.85 * (y - 24 + 0.62 * x), 18.0)
    f = smooth_max(f, 0.8 * (x - np.float32(60 + rng.normal(0, 10)) - 0.35 * z), 18.0)
    groove = np.maximum(np.abs(x + 8 + 0.25 * (y + 60)) - 1.2, np.maximum(y + 48, z - 4))
    f = smooth_max(f, -groove, 4.0)  # of the falciform ligament
    bag, size = _near(rng, (-46, -40, -44), 3), _sized(rng, (13, 16, 24))
    gall = ellipsoid(x, y, z, bag, size, 0.5)
    f = smooth_max(f, 2 - gall, 4.0)
    share = c.paint(f, values["liver"] + 3 * texture[box], ids["liver"], box)
    c.paint(gall, 12.0, ids["background"], box)
    inside = np.zeros(c.hu.shape, np.float32)
    inside[box] = share
    tint = values["liver"] + 0.8 * (values["vein"] - values["liver"])
    hepatic = ((-20, 2, 36 + 0.6 * frame.lift), (-0.6, -0.5, -0.5), 6)
    portal = ((-36, -6, -8), (-0.8, -0.1, 0.2), 7)
    for root, aim, count in (hepatic, portal):
        for _ in range(count):
            way = np.array(aim) + rng.normal(0, 0.55, 3)
            line, radii = [np.array(root, float)], [vessel_mm]
            for _ in range(8):
                way = way / np.linalg.norm(way) + rng.normal(0, 0.22, 3)
                line.append(line[-1] + 11 * way / np.linalg.norm(way))
                radii.append(radii[-1] * 0.84)
            c.tube(line, radii, tint, None, inside)
    c.tube([(2, -4, -40), (-14, -4, -20), (-40, -8, -6)], [6, 6.5, 6], values["vein"])
    return Liver(f, box)


def _spleen(c: Canvas, rng, texture, values, ids, frame: Frame, build: Build) -> None:
    """Moulded on the wall behind, hollow towards the stomach."""
    centre, radii = _near(rng, (100, 30, 0 + 0.7 * frame.lift), 4), _sized(rng, (40, 58, 58))
    if not build.spleen_size:
        return
    centre, radii = centre + build.spleen_shift, radii * build.spleen_size
    box = _around(c, centre, radii)
    x, y, z = c.at(box)
    f = smooth_max(ellipsoid(x, y, z, centre, radii, -0.35), frame.cavity[box] + 2.5, 6.0)
    f = smooth_max(f, z - frame.dome[:, box[1], box[2]] + 3.5, 6.0)
    hollow = np.multiply(((54, 20, 8), (36, 44, 60)), build.spleen_size)
    f = smooth_max(f, -ellipsoid(x, y, z, centre - hollow[0], hollow[1]), 8.0)
    c.paint(f, values["spleen"] + build.mottle_hu * texture[box], ids["spleen"], box)
    if build.cyst_mm:
        cyst = ellipsoid(x, y, z, centre + build.cyst_place, [build.cyst_mm] * 3)
        c.paint(smooth_max(cyst, f + 2, 3.0), build.cyst_hu, None, box)


def _great_vessels(c: Canvas, rng, values, ids, frame: Frame) -> None:
    z = np.linspace(-170, 180, 11)
    if c.z.max() > 175:  # the scan shows more of the chest than usual
        z = np.append(z, (240, 300))
    y = 6 + 4 * np.sin((z + 70) / 55) + 17 * np.clip((z - 20) / 80, 0, 1)
    x = 9 + 7 * np.clip((z - 10) / 80, 0, 1) + rng.normal(0, 2)
    c.tube(np.stack([x, y, z], 1), rng.uniform(9, 11.5), values["blood"] + 5, ids["aorta"])
    z = np.linspace(-170, 66 + frame.lift, 9)
    y = 7 + 4 * np.sin((z + 70) / 55) - 14 * np.clip(z / 60, 0, 1)
    x = np.full_like(z, -19 + rng.normal(0, 2))
    c.tube(np.stack([x, y, z], 1), rng.uniform(10, 12), values["vein"] - 8, ids["vena cava"])
    c.tube([(3, -6, -20), (3, -15, -40), (4, -12, -95)], 3.4, values["blood"])
    for side in (-1, 1):  # to and from the kidneys
        c.tube([(side * 4 - 5, 4, -50), (side * 45, 26, -52)], 4.2, values["blood"] - 5)


def _kidney(c: Canvas, rng, values, organ: int, side: int, centre) -> None:
    """A bean in a capsule of fat: cortex, pyramids, fat and urine in the hollow."""
    radii, turn, lean = _sized(rng, (29, 26, 56), 0.07), side * 0.45, -side * 0.18
    box = _around(c, centre, radii)
    x, y, z = c.at(box)
    whole = ellipsoid(x, y, z, centre, radii, turn, lean)
    c.paint(whole - 4, FAT, 0, box)
    hollow = ellipsoid(x, y, z, centre - (side * 25, 6, 0), (15, 12, 20))
    bean = smooth_max(whole, -hollow, 6.0)
    c.paint(bean, values["cortex"], organ, box)
    around = np.arctan2(y - centre[1], x - centre[0]) + rng.uniform(0, 1)
    spokes = np.cos(5 * around) * np.cos((z - centre[2]) / 6)
    pyramids = smooth_max(bean + 7, 5 * (-0.1 - spokes), 3.0)
    c.paint(pyramids, values["medulla"], None, box)
    sinus = ellipsoid(x, y, z, centre - (side * 12, 4, 0), (13, 9, 24), turn)
    c.paint(np.maximum(sinus, bean - 2), -60.0, 0, box)
    c.paint(ellipsoid(x, y, z, centre - (side * 16, 4, 2), (12, 5, 9)), 10.0, 0, box)
