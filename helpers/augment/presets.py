"""What to start from, by modality: amounts that make patients who could exist.

Each returns a list of pieces for `stage`: take some away, add your own.
"""

from __future__ import annotations

from helpers.augment.appearance import (
    BiasField,
    Brightness,
    Clip,
    Contrast,
    Cutout,
    Gamma,
    Hue,
    Noise,
    Saturation,
)
from helpers.augment.spatial import Elastic, Flip, Rotate, Shear, Translate, Zoom


def ct(*, axes: int = 3) -> list:
    """For CT in HU, before a window scales them: on values from 0 to 1 it is nothing but noise.

    Args:
        axes: 3 for volumes, 2 for single axial slices.

    - No flips. The liver lies on the right; mirrored, the network sees people with situs inversus,
      about one in ten thousand, half of the time.
    - Small rotations: patients lie on a table, 10 degrees in the slice and less across it.
    - Zoom by up to a tenth and a gentle bend: people differ in size and breathe.
    - Noise up to 20 HU, as from a lower dose; and a few HU of offset. No gamma or contrast: HU are
      measured, and water is 0 in every scanner.
    """
    return [
        _rotation((10, 5, 5), axes),
        Zoom(0.1, p=0.5),
        Translate(10, p=0.5),
        Elastic(4, grid=32, p=0.5),
        Brightness(5, p=0.3),
        Noise(20, p=0.5),
    ]


def mr(*, axes: int = 3, laterality: bool = False) -> list:
    """For MR of the head, values as stored or scaled, before whitening.

    Args:
        axes: 3 for volumes, 2 for single axial slices.
        laterality: True where the side is part of the answer, for instance "left hippocampus".

    - The brain is almost symmetric, so mirroring left and right is allowed unless the side matters.
    - The bias field is what coils do; it multiplies a signal, so whitening comes afterwards.
    - Units of MR are arbitrary and sequences differ: contrast and gamma vary, noise is relative
      to the image's own spread; channels, which are sequences, each have their own.
    """
    sides = [] if laterality else [Flip("x")]
    return [
        *sides,
        _rotation((10, 10, 10), axes),
        Zoom(0.1, p=0.5),
        Elastic(4, grid=32, p=0.5),
        BiasField(0.3, p=0.5),
        Gamma(0.3, p=0.3, each_channel=True),
        Contrast(0.2, p=0.3, each_channel=True),
        Noise(0.1, p=0.5, relative=True, each_channel=True),
    ]


def dermoscopy() -> list:
    """For photographs of skin, RGB from 0 to 255, before they are scaled to 0 to 1.

    - Skin has no up and no left: any rotation, all flips. With `fill="reflect"`, corners that a
      rotation uncovers hold skin rather than streaks.
    - Cameras and lamps differ, so a little hue, saturation, contrast and brightness; hue stays
      small, because colour tells melanin from blood.
    """
    return [
        Flip("x"),
        Flip("y"),
        Rotate(180),
        Zoom(0.25),
        Shear(5),
        Hue(8, p=0.5),
        Saturation(0.2, p=0.5),
        Contrast(0.2, p=0.5),
        Brightness(20, p=0.5),
        Cutout(0.2, p=0.2),
        Clip(0, 255),
    ]


def xray() -> list:
    """For radiographs, one channel from 0 to 255, before they are scaled to 0 to 1.

    - No flips: the heart points to the left, and side markers are letters.
    - Small rotations and shifts, as patients stand; no elastic warp, ribs do not bend.
    - Exposure and processing differ between machines: gamma, contrast and brightness do too.
    """
    return [
        Rotate(7, p=0.8),
        Zoom(0.1, p=0.5),
        Translate(10, p=0.5),
        Gamma(0.3, p=0.5),
        Contrast(0.2, p=0.5),
        Brightness(15, p=0.5),
        Noise(8, p=0.3),
        Clip(0, 255),
    ]


def _rotation(degrees: tuple[float, float, float], axes: int) -> Rotate:
    if axes not in (2, 3):
        raise ValueError(f"axes is 3 for volumes or 2 for slices, not {axes}")
    return Rotate(degrees if axes == 3 else degrees[0], p=0.8)
