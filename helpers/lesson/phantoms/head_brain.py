"""The brain inside the head phantom: folded cortex, cerebellum, nuclei, ventricles."""

import dataclasses

import numpy as np
from scipy import ndimage

from helpers.lesson.phantoms.head_canvas import REACH_MM, TISSUES
from helpers.lesson.phantoms.noise import smooth_noise

_FOLD_STEP_MM = 2.5
_FOLD_LATTICE = np.arange(-110, 111, _FOLD_STEP_MM)


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """A noise whose zeros are sulci.

    Args:
        scale_mm: half of the usual distance between sulci.
        depth_mm: how deep they reach.
        radial: 1 if the noise is constant along the radius, so that sulci run straight inwards;
            0 if it varies as much as along the surface.
        field: the noise on the lattice of folds.
        slope: size of its gradient, for each mm.
    """

    scale_mm: float
    depth_mm: float
    radial: float
    field: np.ndarray
    slope: np.ndarray


def draw_folds(rng: np.random.Generator) -> list[Fold]:
    """Main and side folds of the outer surface, then those of the medial surface."""
    folds = []
    for scale_mm, depth_mm, radial in ((9.0, 16.0, 0.65), (6.0, 7.0, 0.5), (8.0, 11.0, 0.0)):
        field = smooth_noise(rng, [_FOLD_LATTICE] * 3, scale_mm)
        slope = np.sqrt(sum(g * g for g in np.gradient(field, _FOLD_STEP_MM)))
        folds.append(Fold(scale_mm, depth_mm, radial, field, slope))
    return folds


def paint_cerebrum(canvas, rng, folds, cerebrum, cerebellum, build):
    """Cortex folded along the zeros of a noise that is nearly constant along the radius."""
    box = canvas.box((0, 0, 5), (68, 84, 62))
    x, y, z = canvas.at(box)
    depth = -cerebrum[box]
    depth = np.minimum(depth, cerebellum[box] - 2.5)  # the tentorium holds them apart
    gape = 0.15 + 0.6 * build.atrophy_mm

    # The fissure between the hemispheres stops at the corpus callosum, an arc in the midplane.
    arc = np.hypot((y - 2) / 38, (z - 3) / 22)
    local = canvas.axes_of(box)
    bend = smooth_noise(rng, local, 30, REACH_MM)
    wiggle = bend + 1.3 * smooth_noise(rng, local, 9, REACH_MM)
    middle = np.hypot(x + 0.7 * bend, np.maximum(1 - arc, 0) * 24) - 0.6
    # The lateral fissure runs in from the side and ends in the insula.
    away = np.abs(x)
    roof = z + 5 - 0.28 * (y + 10) + wiggle
    in_y = np.maximum(np.abs(y + 6) - 26, 0)
    lateral = np.sqrt(roof**2 + np.maximum(37 - away, 0) ** 2 + in_y**2) - 0.4
    insula = np.maximum(np.abs(roof) - 10, 0)
    insula = np.sqrt((away - 38 + wiggle) ** 2 + insula**2 + in_y**2) - 0.2
    near = np.minimum(np.minimum(depth, middle), np.minimum(lateral, insula))

    # The folds of the lower surface are flat, or they would cut up the basal ganglia.
    deep = depth + 8 * np.clip((14 - z) / 14, 0, 1) * np.clip((48 - away) / 12, 0, 1)
    folded = (depth > 0) & (deep < 24)
    near[folded] = np.minimum(near[folded], _sulci(folds[:2], (z - 12, y, x), folded, deep))
    medial = (depth > 0) & (away < 17) & (arc > 1.02)
    # Towards the midplane the folds run along x instead of along the radius.
    along_x = (z, y, x * 0.5)
    near[medial] = np.minimum(near[medial], _sulci(folds[2:], along_x, medial, away))
    tissue = canvas.tissue[box]
    tissue[depth > 0] = TISSUES["csf"]
    inside = depth > 0
    tissue[inside & (near > gape)] = TISSUES["grey matter"]
    tissue[inside & (near > gape + 2.6 - 0.25 * build.atrophy_mm)] = TISSUES["white matter"]


def _sulci(folds, point, where, depth):
    """Distance in mm to the nearest sulcus at the voxels `where`, `depth` mm below the surface."""
    point = [v[where] for v in point]
    depth = depth[where]
    radius = np.sqrt((point[0] / 56) ** 2 + (point[1] / 80) ** 2 + (point[2] / 64) ** 2)
    nearest = np.full(depth.shape, 99, np.float32)
    for fold in folds:
        pull = np.maximum(radius, 0.3) ** (-fold.radial)
        index = [(v * pull - _FOLD_LATTICE[0]) / _FOLD_STEP_MM for v in point]
        value = ndimage.map_coordinates(fold.field, index, order=1)
        slope = ndimage.map_coordinates(fold.slope, index, order=1)
        away = np.abs(value) / (slope * pull + 0.02)
        # The deepest folds are those where the noise is steep; the others end earlier.
        steep = np.clip(slope * (fold.scale_mm / 1.1), 0.4, 1.25)
        away = np.hypot(away, np.maximum(depth - fold.depth_mm * steep, 0))
        np.minimum(nearest, away, out=nearest)
    return nearest


def paint_cerebellum(canvas, rng, cerebellum, build):
    """Folia fan out from the fourth ventricle; white matter branches between them."""
    box = canvas.box((0, 44, -33), (56, 32, 24))
    x, y, z = canvas.at(box)
    depth = -cerebellum[box]
    wave = smooth_noise(rng, canvas.axes_of(box), 9, REACH_MM)
    angle = np.arctan2(z + 36 + 0.04 * np.abs(x), y - 18)
    span = np.hypot(z + 36, y - 18)
    near = depth
    for folds, reach_mm in ((7.0, 17.0), (21.0, 5.0)):
        phase = angle * folds + wave * 0.4
        period = span * (np.pi / folds)
        away = np.abs(phase / np.pi - np.round(phase / np.pi)) * period
        near = np.minimum(near, np.hypot(away, np.maximum(depth - reach_mm, 0)))
    inside = depth > 0
    gape = 0.3 + 0.3 * build.atrophy_mm
    canvas.paint(box, inside, "csf")
    canvas.paint(box, inside & (near > gape), "grey matter")
    canvas.paint(box, inside & (near > gape + 1.7), "white matter")


def paint_deep(canvas, rng, build):
    """Brainstem, deep nuclei and ventricles."""
    stem = [[0, 4, -8, 13], [0, 4, -22, 13], [0, 8, -42, 10], [0, 14, -58, 7], [0, 20, -110, 6]]
    canvas.tube("brainstem", np.array(stem, float))
    canvas.ellipsoid("brainstem", (0, 1, -30), (17, 12, 13))  # pons
    canvas.ellipsoid("white matter", (0, 6, 0), (30, 22, 14))
    canvas.ellipsoid("deep grey matter", (12, 10, 5), (9.5, 15, 8.5), paired=True)  # thalamus
    canvas.ellipsoid("deep grey matter", (25.5, -4, 4), (5.5, 17, 9.5), paired=True)  # putamen
    canvas.ellipsoid("brainstem", (18.5, -1, 2), (4, 10, 6.5), paired=True)  # pallidum
    canvas.ellipsoid("deep grey matter", (26, -2, -20), (7, 8, 7), paired=True)  # amygdala
    caudate = [[13, -24, 7, 6.5], [15, -10, 14, 4.5], [18, 8, 17, 3.2], [24, 24, 12, 2.4]]
    canvas.tube("deep grey matter", np.array(caudate, float), paired=True)
    hippocampus = [[27, 4, -20, 4.5], [28, 22, -12, 4.0], [24, 32, -3, 3.0]]
    canvas.tube("deep grey matter", np.array(hippocampus, float), paired=True)

    wide = build.ventricles
    lopsided = rng.normal(1, 0.08, 2).clip(0.8, 1.2)
    for side, own in zip((1, -1), lopsided, strict=True):
        w = wide * own
        body = np.array(
            [
                [9, -34, 6, 2.2 * w],
                [6.5, -18, 12, 3.6 * w],
                [7, -2, 16, 3.6 * w],
                [11, 18, 16, 4.0 * w],
                [21, 33, 9, 5.2 * w],
                [25, 50, 5, 2.2 * w],
            ]
        ) * (side, 1, 1, 1)
        body[:, 0] += side * (w - 1) * 2.5
        canvas.tube("ventricle", body)
        wing = body[:4] * (1, 1, 1, 0.75) + (side * 3.2 * w, 0, 2.0, 0)
        canvas.tube("ventricle", wing)
        horn = np.array([[21, 33, 9, 3.6 * w], [31, 22, -8, 2.2 * w], [30, 0, -16, 1.8 * w]])
        canvas.tube("ventricle", horn * (side, 1, 1, 1))
    box = canvas.box((0, 0, 10), (3, 40, 20))
    x, y, z = canvas.at(box)
    arc = np.hypot((y - 2) / 34, (z - 3) / 18)
    canvas.paint(box, (np.abs(x) < 0.8) & (arc < 0.95) & (z > 5), "white matter")  # septum
    canvas.ellipsoid("ventricle", (0, 2, -1), (1.5 * wide, 14, 9))  # third
    canvas.ellipsoid("csf", (0, -12, -16), (9, 7, 5))  # cistern above the sella
    canvas.ellipsoid("ventricle", (0, 19, -34), (5.5 * wide**0.5, 4 * wide**0.5, 10))  # fourth
    canvas.tube("ventricle", np.array([[0, 14, -6, 1.2], [0, 18, -26, 1.4]]))  # aqueduct
