"""Flips without chance: test-time augmentation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from helpers.errors import CourseDataError

AXES = {"x": -2, "y": -3, "z": -4}  # the last axis holds channels


def flip(image, axes: Sequence[str]) -> np.ndarray:
    """Mirror the named axes; doing it again gives back the very same values.

    Args:
        image: `[..., y, x, c]` or `[..., z, y, x, c]`.
        axes: of "z", "y", "x"; a string of letters will do.
    """
    image = np.asarray(image)
    for axis in axes:
        if axis not in AXES or image.ndim < -AXES[axis]:
            raise ValueError(f"an image of shape {image.shape} has no axis {axis!r}")
    return np.flip(image, [AXES[axis] for axis in axes])


def predict_flipped(predict: Callable, images, axes: Sequence[str]) -> np.ndarray:
    """Test-time augmentation: the mean of the predictions for all mirror images.

    Args:
        predict: takes a batch `[b, (z,) y, x, c]`, returns a map of the same spatial shape.
        images: such a batch, of any dtype.
        axes: to mirror; n axes make 2 ** n predictions. Leave out the ones that training never
            mirrored: the network knows no patient with the heart on the right.

    Returns:
        float32 `[b, (z,) y, x, k]`, each prediction turned back before it counts.

    Raises:
        ValueError: if the prediction has another spatial shape, or images lack an axis.
        CourseDataError: `NOT_FINITE` if it holds NaN or infinities.
    """
    images = np.asarray(images)
    for axis in axes:
        if axis not in AXES or images.ndim + AXES[axis] < 1:  # the first axis is the batch
            raise ValueError(f"a batch of shape {images.shape} has no axis {axis!r}")
    total, count = None, 0
    for chosen in itertools.product((False, True), repeat=len(axes)):
        mirrored = [axis for axis, yes in zip(axes, chosen, strict=True) if yes]
        predicted = np.asarray(predict(flip(images, mirrored)))
        if predicted.shape[:-1] != images.shape[:-1]:
            raise ValueError(
                f"predict gave {predicted.shape} for {images.shape}; expected the same shape but "
                "for the channels"
            )
        if not np.isfinite(predicted).all():
            raise CourseDataError("NOT_FINITE", "the prediction holds NaN or infinities")
        back = flip(predicted, mirrored).astype(np.float64)
        total = back if total is None else total + back
        count += 1
    return (total / count).astype(np.float32)
