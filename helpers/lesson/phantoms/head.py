"""Anatomy of the head phantom: which tissue lies where.

Later shapes overwrite earlier ones, from the skin inwards.
"""

import numpy as np

from helpers.lesson.phantoms.head_brain import (
    draw_folds,
    paint_cerebellum,
    paint_cerebrum,
    paint_deep,
)
from helpers.lesson.phantoms.head_canvas import (
    REACH_MM,
    TISSUES,
    Build,
    Canvas,
    ellipsoid_mm,
    union_mm,
)
from helpers.lesson.phantoms.noise import smooth_noise
from helpers.lesson.phantoms.shapes import cone

_SLAB_VOXELS = 1_500_000
# Centre and radii (x, y, z) in mm: maxillary, sphenoid and frontal sinus, nasal cavity.
_AIR_SPACES = (
    ((24, -56, -50), (13, 15, 15)),
    ((7, -34, -32), (6, 10, 7)),
    ((9, -84, -2), (7, 4, 6)),
    ((6, -62, -46), (4.5, 30, 17)),
)


def paint_head(seed: int, axes: list[np.ndarray], build: Build) -> np.ndarray:
    """Tissue ids of a head.

    Args:
        seed: the individual anatomy.
        axes: coordinates in mm of the voxels along z, y and x.
        build: size and the effects of age.

    Returns:
        uint8 `[z, y, x]`, values of `TISSUES`.
    """
    folds = draw_folds(np.random.default_rng([seed, 7]))
    count = len(axes[0])
    # Slab by slab, as some thirty fields of the whole head would take half a gigabyte.
    # Each slab draws the same numbers: the anatomy depends on position alone.
    thick = max(1, _SLAB_VOXELS // (len(axes[1]) * len(axes[2])))
    slabs = [
        _paint_slab(
            np.random.default_rng([seed, 8]), [axes[0][i : i + thick], *axes[1:]], build, folds
        )
        for i in range(0, count, thick)
    ]
    return np.concatenate(slabs)


def _paint_slab(rng, axes, build, folds):
    canvas = Canvas(rng, axes, build.size)
    x, y, z = canvas.x, canvas.y, canvas.z
    # An egg, wider behind than in front.
    wide = x / (1 + 0.0006 * y)
    cerebrum = ellipsoid_mm(wide, y, z, (0, 0, 12), (64, 80, 56))
    floor = z + 12 + np.clip(-y - 30, 0, 40) * 0.06 - np.abs(x) * 0.10
    cerebrum = -union_mm(-cerebrum, floor, 12.0)
    for side in (1, -1):
        box = canvas.box((42 * side, -4, -16), (26, 45, 25))
        lobe = ellipsoid_mm(*canvas.at(box), (42 * side, -4, -16), (21, 40, 20))
        cerebrum[box] = union_mm(cerebrum[box], lobe, 6.0)
    cavity = cerebrum.copy()
    below = canvas.box((0, 44, -33), (66, 46, 36))
    cerebellum = np.full_like(cavity, 99)
    cerebellum[below] = ellipsoid_mm(
        np.abs(x[below]), y[below], z[below], (19, 44, -33), (33, 29, 20)
    )
    cavity[below] = union_mm(cavity[below], cerebellum[below], 14.0)
    stem = canvas.box((0, 13, -60), (40, 40, 75))
    brainstem = cone(*canvas.at(stem), *np.array([[0, 8, -12, 14.0], [0, 18, -100, 9.0]]))
    cavity[stem] = union_mm(cavity[stem], brainstem, 8.0)
    cavity -= 1.2 + 0.7 * build.atrophy_mm

    _paint_face(canvas, rng, cavity)
    canvas.tissue[cavity < 0] = TISSUES["csf"]
    paint_cerebrum(canvas, rng, folds, cerebrum, cerebellum, build)
    paint_cerebellum(canvas, rng, cerebellum, build)
    paint_deep(canvas, rng, build)
    return canvas.tissue


def _paint_face(canvas, rng, cavity):
    """Everything outside the dura: skull, scalp, face, eyes, air spaces, neck."""
    x, y, z = canvas.x, canvas.y, canvas.z
    wobble = smooth_noise(rng, canvas.axes, 14, REACH_MM)
    fine = smooth_noise(rng, canvas.axes, 6, REACH_MM)
    # 1 round the brain, 0 below the base of the skull
    vault = np.clip((z + 24 + 0.12 * y + 3 * wobble) / 18, 0, 1)
    face = ellipsoid_mm(x, y, z, (0, -42, -48), (60, 56, 66))
    neck = np.hypot(x / 1.08, y - 26) - 52
    neck = np.maximum(neck, z + 30)
    head = union_mm(cavity - 12.5, union_mm(face, neck, 20.0), 25.0)
    box = canvas.box((0, -100, -36), (22, 24, 36))
    nose = cone(*canvas.at(box), *np.array([[0, -92, -22, 6.0], [0, -108, -50, 11.0]]))
    head[box] = union_mm(head[box], nose, 8.0)

    tissue = canvas.tissue
    tissue[head < 0] = TISSUES["soft tissue"]
    deep = 3.0 + 2.0 * (1 - vault) + wobble
    septa = np.abs(fine) > 0.1
    tissue[(head < -1.8) & (head > -2.5 - 1.3 * deep) & septa] = TISSUES["fat"]
    below = (head < -12) & (vault < 1)
    tissue[below & (np.abs(wobble + 0.4 * fine) < 0.22)] = TISSUES["fat"]
    skull = (cavity < (6.3 + 0.8 * wobble) * np.sqrt(vault)) & (vault > 0.02)
    tissue[skull & (head < -4)] = TISSUES["bone"]
    diploe = (cavity > 2.2) & (cavity < 4.4 + 0.8 * wobble) & (fine > -0.5) & (z > 0)
    tissue[diploe & (head < -6)] = TISSUES["marrow"]
    base = (np.abs(cavity - 2.5) < 2 + 0.8 * fine) & (head < -18) & (vault < 0.9) & (y < 45)
    tissue[base] = TISSUES["bone"]
    canvas.ellipsoid("marrow", (0, -14, -33), (9, 9, 8))  # clivus
    canvas.tube("bone", np.array([[0, 40, -60, 7.0], [0, 42, -110, 7.0]]))
    canvas.tube("marrow", np.array([[0, 0, -62, 8.0], [0, 2, -110, 8.0]]))  # vertebral bodies
    for side in (1, -1):
        box = canvas.box((52 * side, 22, -34), (14, 16, 14))
        cells = ellipsoid_mm(*canvas.at(box), (52 * side, 22, -34), (13, 14, 13)) < 0
        canvas.paint(box, cells, "bone")
        canvas.paint(box, cells & (fine[box] > 0.3), "air")  # mastoid cells
    _paint_air_spaces(canvas, wobble)
    _paint_eyes(canvas, rng)


def _paint_air_spaces(canvas, wobble):
    for name, grow in (("mucosa", 1.6), ("air", 0.0)):
        for centre, radii in _AIR_SPACES:
            canvas.ellipsoid(name, centre, np.add(radii, grow), paired=True)
        canvas.tube(name, np.array([[0, -6, -52, 7 + grow], [0, -4, -110, 8 + grow]]))  # pharynx
    for z0 in (-58, -46, -36):  # turbinates
        canvas.ellipsoid("mucosa", (6, -60, z0), (2.6, 20, 3.2), paired=True)
    canvas.ellipsoid("soft tissue", (0, -48, -86), (22, 26, 12))  # tongue
    box = canvas.box((0, -62, -28), (14, 18, 10))
    ethmoid = ellipsoid_mm(*canvas.at(box), (0, -60, -26), (11, 18, 9)) < 0
    canvas.paint(box, ethmoid, "mucosa")
    canvas.paint(box, ethmoid & (np.abs(wobble[box]) > 0.35), "air")


def _paint_eyes(canvas, rng):
    apart, gaze = rng.normal(31, 1.0), rng.normal(0, 0.8)
    for side in (1, -1):
        orbit = np.array([[apart * side, -65, -21, 16.0], [12 * side, -30, -22, 4.0]])
        canvas.tube("bone", orbit + (0, 0, 0, 2.5))
        canvas.tube("fat", orbit)
        nerve = np.array([[apart * side, -58, -21, 1.9], [11 * side, -28, -21, 1.9]])
        canvas.tube("soft tissue", nerve)
        for dx, dz in ((12, 0), (-11, 0), (0, 11), (0, -11)):  # the straight muscles
            muscle = nerve + ([dx, 0, dz, 0], [dx * 0.2, 0, dz * 0.2, 0])
            canvas.tube("soft tissue", muscle)
        canvas.ellipsoid("soft tissue", (apart * side, -70, -21), (13.2, 13.2, 13.2))
        canvas.ellipsoid("eye", (apart * side, -70, -21), (12, 12, 12))
        canvas.ellipsoid("lens", (apart * side + gaze, -78.5, -21), (4.6, 2.2, 4.6))
