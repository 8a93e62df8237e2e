"""Augmentation: image and mask moved together by one warp, then grey values changed.

    pieces = [augment.Rotate(15), augment.Elastic(4, grid=32), augment.Noise(10)]
    dataset = dataset.apply(augment.stage(pieces, seed=7))

Pieces are plain data. All that move voxels (`Flip`, `Rotate`, `Shear`, `Zoom`, `Translate`,
`Elastic`) become one warp, so that an image is interpolated once however many there are; after it
come, in their order, those that change grey values. Rotations are in degrees, lengths in mm, grey
values in the image's own unit. An amount is a number `a`, for a draw between -a and a, or a pair
`(low, high)`; `p` is the probability that a piece acts on an element at all.
"""

from helpers.augment.appearance import (
    BiasField,
    Brightness,
    Clip,
    Contrast,
    Cutout,
    Gamma,
    Hue,
    Noise,
    Offset,
    Saturation,
)
from helpers.augment.flips import flip, predict_flipped
from helpers.augment.presets import ct, dermoscopy, mr, xray
from helpers.augment.spatial import Elastic, Flip, Rotate, Shear, Translate, Zoom, draw
from helpers.augment.stages import once, stage
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
    "Offset",
    "Rotate",
    "Saturation",
    "Shear",
    "Translate",
    "Warp",
    "Zoom",
    "coordinates",
    "ct",
    "dermoscopy",
    "draw",
    "flip",
    "mr",
    "once",
    "predict_flipped",
    "resample",
    "stage",
    "xray",
]
