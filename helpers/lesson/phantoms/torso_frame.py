"""What holds a torso together: table, skin, fat, muscle wall, lungs and bones.

Lengths are mm of the average body; see `Canvas` for the axes.
"""

from dataclasses import dataclass

import numpy as np

from helpers.lesson.phantoms.shapes import Canvas, ellipsoid, smooth_max

FAT, MUSCLE = -100.0, 55.0
COMPACT, SPONGY = 950.0, 200.0
LEVEL_MM = 35.0  # one vertebra and its disc; ribs come at the same interval


@dataclass(frozen=True)
class Build:
    """What differs between varied patients; the defaults are a patient of usual build.

    Args:
        size: scale of the whole body.
        shift_mm: of the body on the scanner's grid, `(x, y, z)`.
        lift_mm: how much higher than average the diaphragm may stand, beyond its usual variety.
        spleen_size: scale of the spleen; 0 where it has been taken out.
        spleen_shift: mm `(x, y, z)`.
        mottle_hu: how uneven the spleen takes up contrast medium; strong in the arterial phase.
        cyst_mm: radius of a lesion in the spleen, 0 for none.
        cyst_place: its centre from that of the spleen, mm `(x, y, z)`.
        cyst_hu: its CT number.
        vessel_mm: radius of the liver's veins at their roots.
    """

    size: float = 1.0
    shift_mm: tuple[float, ...] = (0.0, 0.0, 0.0)
    lift_mm: float = 0.0
    spleen_size: float = 1.0
    spleen_shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    mottle_hu: float = 3.0
    cyst_mm: float = 0.0
    cyst_place: tuple[float, ...] = (0.0, 0.0, 0.0)
    cyst_hu: float = 15.0
    vessel_mm: float = 4.4


@dataclass(frozen=True, eq=False)
class Frame:
    """Where organs may lie: both functions are negative inside, in mm, on the canvas's grid.

    Args:
        cavity: inside the muscle wall.
        dome: height z of the diaphragm above each (x, y).
        lift: how much higher than average the diaphragm stands.
    """

    cavity: np.ndarray
    dome: np.ndarray
    lift: float


def paint_frame(c: Canvas, rng: np.random.Generator, texture, values, ids, build: Build) -> Frame:
    """Paint everything but the abdominal organs.

    Args:
        c: an empty canvas.
        rng: source of this patient's variety.
        texture: float32 of the grid's shape, mean 0, deviation 1.
        values: CT numbers of enhancing tissues by name.
        ids: organ ids by name.
        build: of a varied patient.
    """
    fat_mm = rng.uniform(8, 27)
    _table(c, bottom=98 + 0.5 * fat_mm)
    wall, angle, chest = _wall(c, rng, texture, fat_mm)
    back = np.exp(-((angle / 0.6) ** 2))
    front = np.exp(-(((angle - np.pi) / 0.5) ** 2))
    cavity = wall + (15 + 30 * back - 4 * front).astype(np.float32)
    c.paint(cavity, FAT + 6 * texture)
    _sheets(c, rng, wall, angle, chest)
    lift = float(rng.uniform(-12, 12)) + build.lift_mm
    dome = _diaphragm(c) + lift
    _chest(c, rng, texture, values, ids, cavity, dome, lift)
    phase = rng.uniform(0, LEVEL_MM)
    _back(c, rng, texture, ids, phase)
    _ribs(c, wall, angle, phase, ids)
    for side in (-1, 1):  # the wings of the pelvis
        centre, radii = (side * 92, 30, -178), np.array((8.0, 52.0, 66.0))
        box = c.box(np.subtract(centre, 66), np.add(centre, 66))
        place = c.at(box, rigid=True)
        c.paint(ellipsoid(*place, centre, radii, -side * 0.75), COMPACT, ids["bone"], box)
        c.paint(ellipsoid(*place, centre, radii - 2.4, -side * 0.75), 170.0, ids["bone"], box)
    return Frame(cavity, dome, lift)


def _table(c: Canvas, bottom: float) -> None:
    """A hollow, curved couch top just below the back."""
    lowest = c.shift[1] + bottom * c.scale[1] + 2
    rows = slice(max(0, int(np.searchsorted(c.grid[1].ravel(), lowest - 45)) - 1), None)
    box = (slice(None), rows, slice(None))
    x, y = c.grid[2], c.grid[1][:, rows]
    plate = np.abs(y - (lowest - 0.0009 * x**2 + 10)) - 10
    f = np.maximum(np.abs(x) - 186, plate).astype(np.float32)
    c.paint(f, 60.0, None, box)
    c.paint(f + 4.0, -930.0, None, box)


def _wall(c: Canvas, rng, texture, fat_mm: float):
    """Skin, fat and muscle; returns mm outside the muscle, angle from the back, chest or belly."""
    x, y, z = c.x, c.y, c.z
    waist = 1 - 0.07 * np.exp(-(((z + 85) / 45) ** 2)) + 0.02 * np.sin(z / 60)
    belly = 1 + rng.uniform(-0.08, 0.1) * np.exp(-(((z + 90) / 70) ** 2))
    u, v = x / (140 * waist), y / (103 * np.where(y < 0, belly, 1))
    q = np.sqrt(u**2 + v**2 - 0.3 * u**2 * v**2) + 1e-3
    radius = np.sqrt(x**2 + y**2)
    wall = smooth_max((radius - radius / q).astype(np.float32), y - 98, 16.0)
    angle = np.arctan2(np.abs(x), y)  # 0 at the back, pi in front
    front = np.exp(-(((angle - np.pi) / 0.9) ** 2))
    hip = np.exp(-(((angle - 1.1) / 0.45) ** 2))
    chest = 1 / (1 + np.exp(-(z - 15) / 25))
    fat = fat_mm * (0.6 + 0.55 * front + 0.5 * hip) * (1 - 0.35 * chest)
    skin = smooth_max((wall - fat).astype(np.float32), y - (98 + 0.5 * fat_mm), 8.0)
    c.paint(skin, 25.0)
    c.paint(skin + 2.2, FAT + 6 * texture)
    c.paint(wall, MUSCLE + 9 * texture)
    return wall, angle, chest


def _sheets(c: Canvas, rng, wall, angle, chest) -> None:
    """Fat between the three sheets of muscle at the flank, beside and between the rectus."""
    for side in (-1, 1):
        box = c.box((60 * side - 100, -100, -170), (60 * side + 100, 100, 70))
        part, turned = wall[box], angle[:, box[1], box[2]]
        flank = np.exp(-(((turned - 1.75) / 0.5) ** 2)) * (1 - chest[box[0]])
        flank[np.broadcast_to(side * c.x[:, box[1], box[2]] < 40, flank.shape)] = 0
        for depth in (5.0, 10.0):
            line = np.abs(part + depth) + 0.9 - 1.8 * flank
            c.paint(line.astype(np.float32), -70.0, None, box)
    for at_mm, half_mm in ((rng.normal(0, 1), 2.0), (-56, 1.2), (56, 1.2)):
        box = c.box((at_mm - 4, -125, -170), (at_mm + 4, -30, 70))
        x, y, _ = c.at(box, rigid=True)
        gap = np.maximum(np.abs(x - at_mm) - half_mm, y + 30)
        gap = np.maximum(gap, np.abs(wall[box] + 6) - 6)
        c.paint(gap.astype(np.float32), -50.0, None, box)


def _diaphragm(c: Canvas) -> np.ndarray:
    """Two domes and, between them, the plateau on which the heart lies."""
    x, y = c.x, c.y
    right = 48 - 60 * ((x + 60) / 82) ** 2 - 52 * ((y + 18) / 84) ** 2
    left = 38 - 60 * ((x - 66) / 78) ** 2 - 52 * ((y + 14) / 84) ** 2
    centre = 36 - 55 * ((x - 8) / 72) ** 2 - 52 * ((y + 34) / 62) ** 2
    return smooth_max(smooth_max(right, left, 12.0), centre, 14.0).astype(np.float32)


def _chest(c: Canvas, rng, texture, values, ids, cavity, dome, lift: float) -> None:
    """Lungs with their vessels, diaphragm, heart and great vessels."""
    low = -75 + lift  # the deepest recess of a lung
    box = c.box((-150, -115, low), (150, 100, 300))
    x, y, z = c.at(box, rigid=True)
    cavity, dome, grain = cavity[box], dome[:, box[1], box[2]], texture[box]
    under = c.box((-150, -115, low), (150, 100, 62 + lift))
    sheet = np.abs(c.z[under[0]] - dome + 1.2) - 1.4
    c.paint(np.maximum(cavity[: sheet.shape[0]], sheet), 50.0, None, under)
    heart = np.array((22, -30, 77 + lift)) + rng.normal(0, 2.5, 3)
    size = np.array((56, 42, 52)) * rng.uniform(0.94, 1.06, 3)
    warped = c.at(box)
    f_heart = ellipsoid(*warped, heart, size, -0.6, -0.15)
    front = ellipsoid(x, y, z, (4, -40, 170 + lift), (22, 54, 75))
    spine = ellipsoid(x, y, z, (4, 42, 150), (27, 38, 260))
    middle = np.minimum(np.minimum(front, spine), f_heart - 3)
    lung = np.maximum(np.maximum(cavity + 1, dome - z), -middle)
    air = -835 + 0.9 * (y + 20).clip(-40, 90) + 12 * grain
    inside = np.zeros(c.hu.shape, np.float32)
    inside[box] = c.paint(lung, air, ids["lungs"], box)
    c.paint(f_heart, values["blood"] * 0.45 + 28, ids["heart"], box)
    blood = values["blood"] + 4 * grain
    for offset, radii in (((15, -8, -4), (27, 20, 33)), ((-22, 8, 8), (22, 21, 30))):
        c.paint(ellipsoid(*warped, heart + offset, radii, -0.6), blood, ids["heart"], box)
    ascending = [heart + (-8, -2, 30), (-10, -28, 118 + lift), (-14, -26, 200), (-14, -26, 300)]
    trunk = [heart + (10, -14, 25), (16, -40, 120 + lift), (22, -12, 142 + lift)]
    cava = [(-14, -18, 84 + lift), (-26, -14, 115 + lift), (-28, -14, 200), (-28, -14, 300)]
    for line, radius in ((ascending, 15), (trunk, 13.5), (cava, 9.5)):
        c.tube(line, radius, values["blood"], ids["background"])
    for side in (-1, 1):
        hilum = np.array((side * 34, 2, 118 + lift))
        trunk = [(side * 4, -8, 132 + lift), hilum]
        c.tube(trunk, 9, values["blood"], ids["background"])
        for aim, count in (((0.7, 0.2, -1.0), 3), ((1.0, 0.5, -0.1), 3), ((0.8, -0.7, 0.2), 3)):
            for _ in range(count):
                _branch(c, rng, hilum, np.array(aim) * (side, 1, 1), 5.4, inside)


def _branch(c: Canvas, rng, start, way, radius: float, inside) -> None:
    """One vessel of a lung, with twigs, ever thinner."""
    way = way / np.linalg.norm(way) + rng.normal(0, 0.35, 3)
    line, radii, twigs = [start], [radius], []
    while radii[-1] > 0.7:
        way = way / np.linalg.norm(way) + rng.normal(0, 0.16, 3)
        line.append(line[-1] + 11 * way / np.linalg.norm(way))
        radii.append(radii[-1] * 0.84)
        if radii[-1] < 4.3:
            twigs.append((line[-1], way + rng.normal(0, 0.7, 3), radii[-1] * 0.7))
    c.tube(line, radii, 40.0, None, inside)
    for start, way, thin in twigs:
        if thin > 1.5:
            _branch(c, rng, start, way, thin, inside)


def _back(c: Canvas, rng, texture, ids, phase: float) -> None:
    """Spine and the muscles beside it."""
    box = c.box((-80, -10, -300), (80, 105, 300))
    x, y, z = c.at(box, rigid=True)
    x = x - (rng.normal(0, 3) * np.sin(z / 90)).astype(np.float32)  # a slight bend
    y = y - (33 + 4 * np.sin((z + 70) / 55)).astype(np.float32)
    h = (z + phase) % LEVEL_MM - LEVEL_MM / 2  # height within one vertebra
    grain = texture[box]
    psoas = np.clip((20 - z) / 100, 0, 1.2)
    for side in (-1, 1):
        f = np.hypot((x - side * (27 + 9 * psoas)) / 0.85, y - 4) - 22 * np.sqrt(psoas) + 1
        c.paint(f, MUSCLE + 7 * grain, None, box)
        # The fat round the long muscles of the back, and the cleft between two of them.
        f = np.abs(np.hypot((x - side * 30) / 1.4, y - 38 + 0.05 * np.abs(x)) - 20) + 0.5 * grain
        c.paint(f + 0.1, -75.0, None, box)
        cleft = np.maximum(np.abs(x - side * 33 - side * 0.3 * (y - 40)) + 0.6 * grain, 30 - y)
        c.paint(np.maximum(cleft, y - 54) - 0.2, -40.0, None, box)
    # The body: a drum with a waist and a flat back, closed by end plates; discs between.
    ring = np.maximum(np.hypot(x / 1.32, y) - 16.5 + 1.6 * np.cos(h * 2 * np.pi / LEVEL_MM), y - 13)
    c.paint(ring - 0.5, 85.0, None, box)
    drum = np.maximum(ring, np.abs(h) - 13.5)
    # The arch: pedicles, laminae, spinous and transverse processes, each at its own height.
    ax = np.abs(x)
    pedicle = np.maximum(np.maximum(np.abs(ax - 13.5) - 4, np.abs(y - 19) - 9), np.abs(h - 5) - 7)
    lamina = np.maximum(np.abs(0.62 * ax + y - 38) - 3.6, np.maximum(ax - 18, 24 - y))
    lamina = np.maximum(lamina, np.abs(h) - 13)
    spine = np.maximum(ax - 3.4, np.abs(y - 44) - 11)
    spine = np.maximum(spine, np.abs(h + 2 + 0.3 * (y - 44)) - 8)
    wing = np.maximum(np.abs(y - 26 + 0.12 * ax) - 4, np.maximum(ax - 40, 14 - ax))
    wing = np.maximum(wing, np.abs(h - 4) - 5)
    arch = np.minimum(np.minimum(pedicle, lamina), np.minimum(spine, wing))
    for f, compact, spongy, crust in ((drum, 720, SPONGY, 1.7), (arch, 800, SPONGY + 60, 2.2)):
        c.paint(f, compact, ids["bone"], box)
        c.paint(f + crust, spongy + 32 * grain, ids["bone"], box)
    canal = np.broadcast_to(np.hypot(x / 1.2, y - 23) - 8.5, grain.shape)
    c.paint(canal, 22.0, ids["background"], box)


def _ribs(c: Canvas, wall, angle, phase: float, ids) -> None:
    """All ribs at once: they repeat with the vertebrae and sink on their way to the front."""
    box = c.box((-190, -190, -110), (190, 190, 300))
    angle, wall = angle[:, box[1], box[2]], wall[box]
    v = c.z[box[0]] + 38 * angle + 6 * np.sin(angle) + phase
    number = np.round(v / LEVEL_MM)
    off = v - number * LEVEL_MM
    end = 0.95 + 0.7 * (number - np.round((phase - 20) / LEVEL_MM))  # the lowest ribs are short
    f = 3.8 * (np.hypot((wall + 9) / 3.8, off / 6.6) - 1)
    f = np.maximum(f, 100 * np.maximum(0.3 - angle, np.maximum(angle - end, angle - 2.95)))
    gristle = angle > 2.35  # in front, ribs end in cartilage
    f = f.astype(np.float32)
    share = c.paint(f, np.where(gristle, 95.0, COMPACT), None, box)
    c.organs[box][(share > 0.5) & ~gristle] = ids["bone"]
    c.paint(f + 1.7, np.where(gristle, 85.0, 230.0), None, box)
    x, y = c.x[:, box[1], box[2]], c.y[:, box[1], box[2]]
    sternum = smooth_max(np.abs(x) - 15, np.abs(wall + 8) - 5, 4.0)
    sternum = np.maximum(np.maximum(sternum, 66 - c.z[box[0]]), y)
    c.paint(sternum, 620.0, ids["bone"], box)
    c.paint(sternum + 1.8, 150.0, ids["bone"], box)
