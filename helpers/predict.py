"""Prediction of what is larger, or lies otherwise, than what a network was trained with.

def predict(windows):                                   # int16 [b, 96, 96, 96, 1]
    return model(tf.cast(windows, tf.float32) / 1000)

found = predict.sliding_window(predict, volume.voxels[..., None], (96, 96, 96))
"""

import itertools
import math

import numpy as np

from helpers.errors import need

AXES = {"x": -2, "y": -3, "z": -4}  # the last axis holds channels


def sliding_window(predict, image, size, *, overlap=0.5, blend="constant", batch=4):
    """Predict a whole image window by window, and average where windows overlap.

    Windows stand at equal steps; the last on each axis is moved inward to end with the image. An
    image smaller than a window is padded with its border on both sides, and the prediction is cut
    back. DLTK's `SlidingWindow`, with the averaging.

    Args:
        predict: gets windows `[b, *size, c]` in the image's dtype, b up to `batch`, and returns
            `[b, *size, k]`, array or tensor: a Keras model's `__call__` or `predict_on_batch`, for
            instance. k is up to it, but always the same.
        image: `[z, y, x, c]` or `[y, x, c]`, array or tensor.
        size: of a window, in voxels.
        overlap: of neighbouring windows, as a fraction of their size, from 0 to below 1.
        blend: "constant" averages evenly; "gaussian" trusts the middle of a window more, with a
            standard deviation of an eighth of the window, as MONAI does.
        batch: windows in a call.

    Returns:
        float32 `[z, y, x, k]` or `[y, x, k]`.

    Raises:
        ValueError: for bad arguments, and if `predict` returns another shape.
        CourseDataError: `NOT_FINITE` if a prediction holds NaN or infinities.

    Taught in: augmentation
    """
    image = np.asarray(image)
    missing = np.maximum(np.subtract(size, image.shape[:-1]), 0)
    before = missing // 2
    sides = [*zip(before, missing - before, strict=True), (0, 0)]
    padded = np.pad(image, sides, mode="edge")
    axes = zip(padded.shape, size, strict=False)
    spans = [windows_along(length, width, overlap) for length, width in axes]
    bells = [window_weights(width, blend) for width in size]
    weight = math.prod(np.ix_(*bells))[..., np.newaxis]
    covered = np.zeros((*padded.shape[:-1], 1), np.float32)
    places, total = itertools.product(*spans), None
    while group := list(itertools.islice(places, batch)):
        windows = np.stack([padded[place] for place in group])
        found = np.asarray(predict(windows), np.float32)
        if total is None:
            total = np.zeros((*padded.shape[:-1], *found.shape[-1:]), np.float32)
        if found.shape != (len(group), *size, total.shape[-1]):
            raise ValueError(f"predict returned {found.shape} for {len(group)} windows of {size}")
        finite = np.isfinite(found).all()
        need(finite, "NOT_FINITE", f"the prediction for windows from {group[0]} on")
        for place, one in zip(group, found, strict=True):
            total[place] += one * weight
            covered[place] += weight
    kept = tuple(map(slice, before, before + image.shape[:-1]))
    return total[kept] / covered[kept]


def windows_along(length, width, overlap):
    """Where windows lie on an axis, each a step behind the one before; the last ends with it.

    >>> [(one.start, one.stop) for one in windows_along(7, 4, 0.5)]
    [(0, 4), (2, 6), (3, 7)]

    Args:
        length: voxels of the axis, `width` or more.
        width: voxels of a window.
        overlap: of neighbours, as a fraction of `width`.

    Returns:
        Slices.

    Raises:
        ValueError: for an overlap that is not from 0 to below 1.

    Taught in: augmentation
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"an overlap lies from 0 to below 1, not {overlap}")
    step = max(1, math.floor(width * (1 - overlap) + 1e-6))  # 20 x (1 - 0.9) is 2, not 1.99...
    starts = [*range(0, length - width, step), length - width]
    return [slice(start, start + width) for start in starts]


def window_weights(width, blend):
    """What each voxel of a window counts on one axis.

    >>> window_weights(3, "constant").tolist()
    [1.0, 1.0, 1.0]

    Args:
        width: voxels of a window.
        blend: "constant", or "gaussian" with a standard deviation of an eighth of `width`.

    Returns:
        float32 `[width]`.

    Raises:
        ValueError: for another blend.

    Taught in: augmentation
    """
    if blend not in ("constant", "gaussian"):
        raise ValueError(f'a blend is "constant" or "gaussian", not {blend!r}')
    x = np.linspace(4 / width - 4, 4 - 4 / width, width)
    return np.exp(-0.5 * x**2 * (blend == "gaussian")).astype(np.float32)


def flipped(predict, images, axes):
    """Test-time augmentation: the mean of the predictions for all mirror images.

    Args:
        predict: takes a batch `[b, (z,) y, x, c]`, returns a map of the same spatial shape.
        images: such a batch, of any dtype.
        axes: to mirror, of "z", "y", "x"; n axes make 2 ** n predictions. Leave out the ones that
            training never mirrored: the network knows no patient with the heart on the right.

    Returns:
        float32 `[b, (z,) y, x, k]`, each prediction turned back before it counts.

    Raises:
        ValueError: if the prediction has another spatial shape.
        CourseDataError: `NOT_FINITE` if it holds NaN or infinities.

    Taught in: augmentation
    """
    images = np.asarray(images)
    if axes:
        axis, *others = axes
        here = flipped(predict, images, others)
        mirrored = flipped(predict, np.flip(images, AXES[axis]), others)
        return (here + np.flip(mirrored, AXES[axis])) / 2
    found = np.asarray(predict(images), np.float32)
    if found.shape[:-1] != images.shape[:-1]:
        raise ValueError(f"predict returned {found.shape} for {images.shape}")
    need(np.isfinite(found).all(), "NOT_FINITE", "a prediction holds NaN or infinities")
    return found
