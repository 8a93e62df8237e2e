"""Whole-volume inference with a network that sees a window at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from helpers.crops.elements import checked_size
from helpers.errors import CourseDataError


def sliding_window(
    predict: Callable,
    image,
    size: Sequence[int],
    *,
    overlap: float = 0.5,
    blend: str = "constant",
    batch: int = 4,
) -> np.ndarray:
    """Predict a whole image window by window, and average where windows overlap.

        def predict(windows):                         # int16 [b, 96, 96, 96, 1]
            return model(tf.cast(windows, tf.float32) / 1000)
        probabilities = crops.sliding_window(predict, volume.voxels[..., None], (96, 96, 96))

    Windows stand at equal steps; the last on each axis is moved inward to end with the image. An
    image smaller than a window is padded with its border on both sides, and the prediction is cut
    back.

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
        float32 `[z, y, x, k]` or `[y, x, k]`. Beside it, only one batch of windows is held.

    Raises:
        ValueError: for bad arguments, and if `predict` returns another shape.
        CourseDataError: `NOT_FINITE` if a prediction holds NaN or infinities.

    DLTK's `SlidingWindow`, with the averaging.
    """
    size, image = checked_size(size), np.asarray(image)
    if image.ndim != len(size) + 1 or not image.size:
        raise ValueError(
            f"an image of {len(size)} spatial axes and one of channels is needed for windows of "
            f"{size}, not shape {image.shape}"
        )
    if not 0 <= overlap < 1:
        raise ValueError(f"an overlap is a fraction from 0 to below 1, not {overlap}")
    if blend not in ("constant", "gaussian"):
        raise ValueError(f'blend is "constant" or "gaussian", not {blend!r}')
    if batch < 1:
        raise ValueError(f"a batch has 1 window or more, not {batch}")
    missing = [max(0, want - have) for want, have in zip(size, image.shape, strict=False)]
    before = [number // 2 for number in missing]
    kept = tuple(slice(b, b + n) for b, n in zip(before, image.shape, strict=False))
    if any(missing):
        sides = [(b, number - b) for b, number in zip(before, missing, strict=True)]
        image = np.pad(image, [*sides, (0, 0)], mode="edge")
    starts = [_starts(n, width, overlap) for n, width in zip(image.shape, size, strict=False)]
    weights = [_weights(width, blend) for width in size]
    weight = math.prod(np.ix_(*weights))[..., np.newaxis]

    total = None
    corners = itertools.product(*starts)
    while group := list(itertools.islice(corners, batch)):
        places = [tuple(map(slice, c, np.add(c, size))) for c in group]
        predicted = _checked(predict(np.stack([image[place] for place in places])), group, size)
        if total is None:
            total = np.zeros([*image.shape[:-1], predicted.shape[-1]], np.float32)
        if predicted.shape[-1] != total.shape[-1]:
            raise ValueError(
                f"predict returned {predicted.shape[-1]} channels after {total.shape[-1]} before"
            )
        for place, one in zip(places, predicted, strict=True):
            total[place] += one * weight
    # Windows are a grid and weights a product, so the sum of weights is a product as well.
    for axis, (where, line) in enumerate(zip(starts, weights, strict=True)):
        covered = np.zeros(image.shape[axis], np.float32)
        for start in where:
            covered[start : start + len(line)] += line
        total /= covered.reshape([-1] + [1] * (total.ndim - 1 - axis))
    return total[kept]


def _starts(length: int, width: int, overlap: float) -> list[int]:
    """Where windows begin on an axis; the last ends with it."""
    step = max(1, math.floor(width * (1 - overlap) + 1e-6))  # 20 x (1 - 0.9) is 2, not 1.99...
    return [*range(0, length - width, step), length - width]


def _weights(width: int, blend: str) -> np.ndarray:
    """What a voxel of a window counts on one axis, float32 `[width]`."""
    if blend == "constant":
        return np.ones(width, np.float32)
    offsets = np.arange(width) - (width - 1) / 2
    return np.exp(-0.5 * (offsets / (width / 8)) ** 2).astype(np.float32)


def _checked(predicted, group: list, size: tuple) -> np.ndarray:
    """A prediction as float32, with as many windows and voxels as were asked for."""
    found = getattr(predicted, "shape", None)
    if found is None or tuple(found[:-1]) != (len(group), *size):
        what = f"shape {tuple(found)}" if found is not None else type(predicted).__name__
        raise ValueError(
            f"predict must return [{len(group)}, {', '.join(map(str, size))}, k], not {what}"
        )
    predicted = np.asarray(predicted, np.float32)
    bad = ~np.isfinite(predicted.reshape(len(group), -1)).all(axis=1)
    if bad.any():
        corner = tuple(int(n) for n in group[int(bad.argmax())])
        raise CourseDataError(
            "NOT_FINITE",
            f"the prediction of the window that starts at voxel {corner} holds NaN or infinities; "
            "look for them in the image first, then in the network's weights",
        )
    return predicted
