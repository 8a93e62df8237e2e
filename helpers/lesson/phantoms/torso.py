"""A lower chest and abdomen as CT shows them: `torso(seed)`."""

from dataclasses import dataclass

import numpy as np

from helpers.lesson.phantoms.shapes import Canvas, grain, scanner_noise
from helpers.lesson.phantoms.torso_frame import Build, paint_frame
from helpers.lesson.phantoms.torso_organs import paint_metastases, paint_organs
from helpers.volume import Volume

ORGANS = {
    "background": 0,
    "liver": 1,
    "spleen": 2,
    "left kidney": 3,
    "right kidney": 4,
    "lungs": 5,
    "bone": 6,
    "heart": 7,
    "aorta": 8,
    "vena cava": 9,
    "stomach": 10,
    "bowel": 11,
}
FIELD_MM = (320.0, 320.0, 384.0)  # z, y, x: what the scan covers
# Mean CT numbers without contrast medium and some 30, 70 and 180 s after it was given.
_TISSUES = ("blood", "vein", "liver", "spleen", "cortex", "medulla", "gut", "lesion")
PHASES = {
    name: dict(zip(_TISSUES, values, strict=True))
    for name, values in {
        "plain": (42, 42, 60, 50, 31, 29, 42, 35),
        "arterial": (310, 84, 72, 128, 190, 70, 78, 50),
        "portal": (150, 150, 110, 120, 176, 142, 82, 62),
        "venous": (165, 190, 112, 122, 180, 160, 84, 60),
        "late": (112, 112, 96, 96, 142, 150, 72, 68),
    }.items()
}
NOISE_HU = 10.0


@dataclass(frozen=True, eq=False)
class Torso:
    """One synthetic patient.

    Args:
        volume: CT in Hounsfield units, int16 `[z, y, x]`, z from the feet up; in an axial slice
            the image's left is the patient's right.
        organs: uint8 of the same shape, ids as in `ORGANS`.
        lesions: uint8 of the same shape, 1 in liver metastases.
    """

    volume: Volume
    organs: np.ndarray
    lesions: np.ndarray


def torso(
    seed: int,
    shape: tuple[int, int, int] = (64, 160, 192),
    lesions: int | None = None,
    contrast: bool = True,
    varied: bool = False,
) -> Torso:
    """Make a CT of the lower chest and abdomen, with organ and lesion masks.

        patient = torso(7)
        patient.volume.voxels[patient.organs == ORGANS["liver"]].mean()     # about 110 HU

    Args:
        seed: another patient for each number; the same patient, voxel for voxel, every time.
        shape: voxels `(z, y, x)` over a field of 320 x 320 x 384 mm; the default has spacing
            (5, 2, 2) mm. More voxels show the same kind of anatomy more finely.
        lesions: number of liver metastases at most (a liver may be too small for all); None draws
            up to four.
        contrast: True for the portal venous phase, False for a scan without contrast medium.
        varied: patients differ as in a clinic: in size and place on the table, in the phase of the
            contrast medium (arterial, portal venous, late), and in the spleen, which one in ten
            has lost and one in six has enlarged, or with a cyst or another lesion in it.

    Returns:
        A `Torso`. Its tissues have the usual CT numbers: air -1000, lung -850 to -700, fat -100,
        water 0, muscle 55, liver 110 (60 without contrast), spleen 120 (50), kidney 150 (30),
        spongy bone 200, compact bone 700 to 1200.
    """
    rng = np.random.default_rng([seed, 1])
    spacing = tuple(mm / n for mm, n in zip(FIELD_MM, shape, strict=True))
    phase, build = _variety(seed) if varied else ("portal", Build())
    values = PHASES[phase if contrast else "plain"]
    canvas = Canvas(
        shape,
        spacing,
        turn=rng.uniform(-0.07, 0.07),
        scale=build.size * rng.uniform(0.93, 1.04, 3),
        shift=np.append(rng.uniform((-8, -8), (8, 2)), 0) + build.shift_mm,
    )
    canvas.warp(rng, size=5.0)
    texture = grain(rng, shape, spacing, 7.0)
    count = int(rng.integers(0, 5)) if lesions is None else lesions
    frame = paint_frame(canvas, rng, texture, values, ORGANS, build)
    liver = paint_organs(canvas, rng, texture, values, ORGANS, frame, build)
    tumours = paint_metastases(canvas, rng, texture, values, ORGANS, liver, count)
    sigma = np.where(canvas.hu < -900, (0.5 * NOISE_HU), np.float32(NOISE_HU))
    voxels = canvas.hu + sigma * scanner_noise(rng, shape, spacing)
    voxels = np.clip(np.rint(voxels), -1024, 3071).astype(np.int16)
    corner = tuple(-(n - 1) / 2 * mm for n, mm in zip(shape, spacing, strict=True))[::-1]
    return Torso(Volume(voxels, spacing, corner), canvas.organs, tumours)


def _variety(seed: int) -> tuple[str, Build]:
    """Phase and build of one patient."""
    rng = np.random.default_rng([seed, 12])
    phase = rng.choice(["arterial", "venous", "late"], p=[0.3, 0.45, 0.25])
    size = rng.uniform(0.88, 1.06)
    room = 90 * (1.06 - size)
    spleen = rng.choice(["lost", "large", "usual"], p=[0.1, 0.17, 0.73])
    sizes = {"lost": (0, 0), "large": (1.15, 1.4), "usual": (0.75, 1.05)}
    return phase, Build(
        size=size,
        shift_mm=tuple(rng.uniform((-12 - room, -2 - room, -46), (12 + room, 10 + room, 8))),
        lift_mm=rng.uniform(-14, 14),
        spleen_size=rng.uniform(*sizes[spleen]),
        spleen_shift=tuple(rng.uniform((-14, -28, -34), (8, 18, 26))),
        mottle_hu=14.0 if phase == "arterial" else 3.0,
        cyst_mm=rng.uniform(7, 16) if rng.random() < 0.25 else 0.0,
        cyst_place=tuple(rng.uniform(-15, 15, 3)),
        cyst_hu=rng.uniform(5, 60),
        vessel_mm=rng.uniform(5, 6.5),
    )
