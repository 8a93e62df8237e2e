"""Smooth random fields: what makes skin uneven, a cortex fold and no two phantoms alike."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.interpolate import BSpline

# A cubic B-spline of unit noise has this variance per axis, averaged over a lattice cell.
_SPLINE_VARIANCE = 151 / 315


def smooth_noise(
    rng: np.random.Generator,
    axes: Sequence[np.ndarray],
    scale: float | Sequence[float],
    reach: float | None = None,
) -> np.ndarray:
    """Gaussian noise of unit variance that varies over the length `scale`.

    Normal numbers on a coarse lattice, joined by a tensor product of cubic B-splines. The field
    belongs to the coordinates, not to the grid: with a `reach`, a finer or a shifted grid
    samples the same field.

    Args:
        rng: where the lattice is drawn from.
        axes: one 1-D array of coordinates for each axis of the result, in any unit.
        scale: distance of lattice points, in the same unit; one number or one for each axis.
        reach: the lattice covers `-reach` to `reach` on every axis; without it, just the axes.

    Returns:
        float32, one axis for each of `axes`.
    """
    scales = [float(s) for s in np.broadcast_to(scale, len(axes))]
    lows = [-reach if reach else float(np.min(a)) for a in axes]
    highs = [reach if reach else float(np.max(a)) for a in axes]
    first = [math.floor(low / s) - 1 for low, s in zip(lows, scales, strict=True)]
    last = [math.floor(high / s) + 3 for high, s in zip(highs, scales, strict=True)]
    counts = [b - a for a, b in zip(first, last, strict=True)]
    field = rng.standard_normal(counts, dtype=np.float32)
    field /= _SPLINE_VARIANCE ** (len(axes) / 2)
    if not all(map(len, axes)):
        return np.zeros([len(a) for a in axes], np.float32)
    # The first axis comes last, so that the big product is written in the order of memory.
    for d in reversed(range(len(axes))):
        place = np.asarray(axes[d], float) / scales[d] - first[d]
        knots = np.arange(-2.0, counts[d] + 2)
        weights = BSpline.design_matrix(place, knots, 3).astype(np.float32)
        rest = np.moveaxis(field, d, 0)
        product = weights @ rest.reshape(counts[d], -1)
        field = np.moveaxis(product.reshape(-1, *rest.shape[1:]), 0, d)
    return field


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A soft threshold: 0 below `low`, 1 above `high`, smooth between (also for low > high)."""
    t = (values - low) * (1 / (high - low))
    np.clip(t, 0, 1, out=t)
    return t * t * (3 - 2 * t)
