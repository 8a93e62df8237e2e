"""Augmentation: image and mask moved together by one warp, then grey values changed.

    transforms = [augment.Rotate(15), augment.Elastic(4, grid=32), augment.Noise(10)]
    dataset = dataset.apply(augment.stage(transforms, seed=7))

Transforms are plain data. All that move voxels (`Flip`, `Rotate`, `Shear`, `Zoom`, `Translate`,
`Elastic`) become one warp, so that an image is interpolated once however many there are; after it
come, in their order, those that change grey values. Rotations are in degrees, lengths in mm, grey
values in the image's own unit. An amount is a number `a`, for a draw between -a and a, or a pair
`(low, high)`; `p` is the probability that a transform acts on an element at all.

Read in this order: `warp` (where voxels come from), `amounts` (how much, how often), `moving`,
`grey`, `presets`, `dataset` (all of it, on elements).
"""

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
)
from helpers.augment.moving import Elastic, Flip, Rotate, Shear, Translate, Zoom, draw
from helpers.augment.presets import Unit, ct, dermoscopy, mr, xray
from helpers.augment.dataset import once, stage
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
