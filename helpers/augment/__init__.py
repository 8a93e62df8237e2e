"""Augmentation: image and mask moved together by one warp, then grey values changed.

    transforms = [augment.Rotate(15), augment.Elastic(4, grid=32), augment.Noise(10)]
    dataset = dataset.apply(augment.stage(transforms, seed=7))

Transforms are plain data. All that move voxels (`Flip`, `Rotate`, `Shear`, `Zoom`, `Translate`,
`Elastic`) become one warp, so that an image is interpolated once however many there are; after it
come, in their order, those that change grey values. Rotations are in degrees, lengths in mm, grey
values in the image's own unit. An amount is a number `a`, for a draw between -a and a, or a pair
`(low, high)`; `p` is the probability that a transform acts on an element at all.

Read in this order: `warp` (where voxels come from), `amounts` (how much, how often), `moving`,
`grey`, `dataset` (all of it, on elements). Below are lists to start from, by modality: amounts that
make patients who could exist. Take some away, add your own. The first one of each looks whether
images can be in the unit that the amounts are meant for.
"""

from helpers.augment.dataset import once, stage
from helpers.augment.grey import (
    BiasField,
    Brightness,
    Clip,
    Contrast,
    Cutout,
    Gamma,
    Hue,
    Noise,
    Saturation,
    Unit,
)
from helpers.augment.moving import Elastic, Flip, Rotate, Shear, Translate, Zoom, draw
from helpers.augment.warp import Warp, coordinates, resample

__all__ = [
    "BiasField",
    "Brightness",
    "Clip",
    "Contrast",
    "Cutout",
    "Elastic",
    "Flip",
    "Gamma",
    "Hue",
    "Noise",
    "Rotate",
    "Saturation",
    "Shear",
    "Translate",
    "Unit",
    "Warp",
    "Zoom",
    "coordinates",
    "ct",
    "dermoscopy",
    "draw",
    "mr",
    "once",
    "resample",
    "stage",
    "xray",
]


def ct(*, axes=3):
    """For CT in HU, before a window scales them.

    Args:
        axes: 3 for volumes, 2 for single axial slices.

    - No flips. The liver lies on the right; mirrored, the network sees people with situs inversus,
      about one in ten thousand, half of the time.
    - Small rotations: patients lie on a table, 10 degrees in the slice and less across it.
    - Zoom by up to a tenth and a gentle bend: people differ in size and breathe.
    - Noise up to 20 HU, as from a lower dose; and a few HU of offset. No gamma or contrast: HU are
      measured, and water is 0 in every scanner.

    Taught in: augmentation
    """
    return [
        Unit("HU"),
        Rotate((10, 5, 5) if axes == 3 else 10, p=0.8),
        Zoom(0.1, p=0.5),
        Translate(10, p=0.5),
        Elastic(4, grid=32, p=0.5),
        Brightness(5, p=0.3),
        Noise(20, p=0.5),
    ]


def mr(*, axes=3, laterality=False):
    """For MR of the head, values as stored or scaled, before whitening.

    Args:
        axes: 3 for volumes, 2 for single axial slices.
        laterality: True where the side is part of the answer, for instance "left hippocampus".

    - The brain is almost symmetric, so mirroring left and right is allowed unless the side matters.
    - The bias field is what coils do; it multiplies a signal, so whitening comes afterwards.
    - Units of MR are arbitrary and sequences differ: contrast and gamma vary, noise is relative
      to the image's own spread; channels, which are sequences, each have their own.

    Taught in: augmentation
    """
    return [
        Unit("signal"),
        *([] if laterality else [Flip("x")]),
        Rotate((10, 10, 10) if axes == 3 else 10, p=0.8),
        Zoom(0.1, p=0.5),
        Elastic(4, grid=32, p=0.5),
        BiasField(0.3, p=0.5),
        Gamma(0.3, p=0.3, each_channel=True),
        Contrast(0.2, p=0.3, each_channel=True),
        Noise(0.1, p=0.5, relative=True, each_channel=True),
    ]


def dermoscopy():
    """For photographs of skin, RGB from 0 to 255, before they are scaled to 0 to 1.

    - Skin has no up and no left: any rotation, all flips. With `fill="reflect"`, corners that a
      rotation uncovers hold skin rather than streaks.
    - Cameras and lamps differ, so a little hue, saturation, contrast and brightness; hue stays
      small, because colour tells melanin from blood.

    Taught in: augmentation
    """
    return [
        Unit("0 to 255"),
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


def xray():
    """For radiographs, one channel from 0 to 255, before they are scaled to 0 to 1.

    - No flips: the heart points to the left, and side markers are letters.
    - Small rotations and shifts, as patients stand; no elastic warp, ribs do not bend.
    - Exposure and processing differ between machines: gamma, contrast and brightness do too.

    Taught in: augmentation
    """
    return [
        Unit("0 to 255"),
        Rotate(7, p=0.8),
        Zoom(0.1, p=0.5),
        Translate(10, p=0.5),
        Gamma(0.3, p=0.5),
        Contrast(0.2, p=0.5),
        Brightness(15, p=0.5),
        Noise(8, p=0.3),
        Clip(0, 255),
    ]
