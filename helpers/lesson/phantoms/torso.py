"""A lower chest and abdomen as CT shows them: `torso(seed)`."""

from dataclasses import dataclass

import numpy as np

from helpers.lesson.phantoms.shapes import Canvas, grain, scanner_noise
from helpers.lesson.phantoms.torso_frame import paint_frame
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
# Mean CT numbers without contrast medium, and in the portal venous phase.
PLAIN = {
    "blood": 42, "liver": 60, "spleen": 50, "cortex": 31, "medulla": 29, "gut": 42, "lesion": 35,
}  # fmt: skip
PORTAL_VENOUS = {
    "blood": 150, "liver": 110, "spleen": 120, "cortex": 176, "medulla": 142, "gut": 82,
    "lesion": 62,
}  # fmt: skip
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

    Returns:
        A `Torso`. Its tissues have the usual CT numbers: air -1000, lung -850 to -700, fat -100,
        water 0, muscle 55, liver 110 (60 without contrast), spleen 120 (50), kidney 150 (30),
        spongy bone 200, compact bone 700 to 1200.
    """
    rng = np.random.default_rng([seed, 1])
    spacing = tuple(mm / n for mm, n in zip(FIELD_MM, shape, strict=True))
    canvas = Canvas(
        shape,
        spacing,
        turn=rng.uniform(-0.07, 0.07),
        scale=rng.uniform(0.93, 1.04, 3),
        shift=rng.uniform((-8, -8), (8, 2)),
    )
    canvas.warp(rng, size=5.0)
    texture = grain(rng, shape, spacing, 7.0)
    values = PORTAL_VENOUS if contrast else PLAIN
    count = int(rng.integers(0, 5)) if lesions is None else lesions
    frame = paint_frame(canvas, rng, texture, values, ORGANS)
    liver = paint_organs(canvas, rng, texture, values, ORGANS, frame)
    tumours = paint_metastases(canvas, rng, texture, values, ORGANS, liver, count)
    sigma = np.where(canvas.hu < -900, np.float32(0.5 * NOISE_HU), np.float32(NOISE_HU))
    voxels = canvas.hu + sigma * scanner_noise(rng, shape, spacing)
    voxels = np.clip(np.rint(voxels), -1024, 3071).astype(np.int16)
    corner = tuple(-(n - 1) / 2 * mm for n, mm in zip(shape, spacing, strict=True))[::-1]
    return Torso(Volume(voxels, spacing, corner), canvas.organs, tumours)
