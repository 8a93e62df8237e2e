"""Grey values that a network can use: windows and whitening.

Every function takes a NumPy array or, inside `Dataset.map`, a TensorFlow tensor, of any shape and
numeric dtype, and gives float32 of the same kind and shape. Statistics are taken over the whole
array that is passed: one volume at a time, before batching.
"""

from __future__ import annotations

import sys

import numpy as np

WINDOWS = {
    # name: (center, width) in Hounsfield units, as reading rooms set them
    "soft tissue": (40.0, 400.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
}


def window(image, center: float, width: float):
    """Map HU (or any unit) linearly to [0, 1], clipped: black below the window, white above.

    Args:
        image: array or tensor, any shape.
        center: value that becomes 0.5, in the image's unit.
        width: distance between the values that become 0 and 1; positive.

    Raises:
        ValueError: if `width` is a number and not positive; a tensor is not looked at.

    The course uses the plain linear function (`LINEAR_EXACT` in DICOM PS3.3 C.11.2.1.3.2). The
    default `LINEAR` function of C.11.2.1.2.1 is made for whole numbers: it reaches white one unit
    earlier.

    >>> window(np.array([-160, 40, 140]), center=40, width=400)
    array([0.  , 0.5 , 0.75], dtype=float32)

    Taught in: loading DICOM
    """
    if np.isscalar(width) and width <= 0:
        raise ValueError(f"a window needs a positive width, not {width}")
    xp, image = _float32(image)
    return xp.clip((image - (center - width / 2)) / width, 0.0, 1.0)


def whiten(image, mask=None):
    """Subtract the mean and divide by the standard deviation (z-score).

    Args:
        image: array or tensor, any shape.
        mask: True (or not 0) where the statistics are to be taken, same shape; without it they
            are taken everywhere, air included. The whole image is transformed in both cases.

    Raises:
        ValueError: if the shapes of image and mask differ.

    A constant image, or an empty mask, gives 0 everywhere: there is nothing to scale by. The rule
    is that of DLTK's `whitening`, with the mask added.

    >>> whiten([2, 4, 4, 4, 5, 5, 7, 9])
    array([-1.5, -0.5, -0.5, -0.5,  0. ,  0. ,  1. ,  2. ], dtype=float32)

    Taught in: augmentation
    """
    xp, image = _float32(image)
    mask = xp.ones_like(image) if mask is None else mask
    if image.shape != mask.shape:
        raise ValueError(f"image {image.shape} and mask {mask.shape} differ in shape")
    weights = _float32(_float32(mask)[1] != 0)[1]
    count = xp.maximum(xp.sum(weights), 1.0)
    mean = xp.sum(image * weights) / count
    centred = image - mean
    std = xp.sqrt(xp.sum(centred * centred * weights) / count)
    # Rounding leaves a tiny spread in a constant image; against its own size that is none.
    return centred / xp.where(std > 1e-6 * xp.abs(mean), std, np.float32(np.inf))


def _float32(image):
    """The array library that `image` belongs to, and the image as its float32."""
    tf = sys.modules.get("tensorflow")  # a tensor exists only if it has been imported
    if tf is not None and tf.is_tensor(image):
        return tf.experimental.numpy, tf.cast(image, tf.float32)
    return np, np.asarray(image, np.float32)
