"""Look up an image and its mask at other places: one interpolation for all that moves voxels.

Positions are fractional voxel indices in the order of the axes, `(z, y, x)` or `(y, x)`. A warp
says, for each voxel of the result, where in the input its value comes from: the way back, as in
every resampler, so that no voxel of the result stays empty.
"""

from __future__ import annotations

import functools
import math
from numbers import Integral, Real
from typing import NamedTuple

import tensorflow as tf

from helpers.elements import check_mask

IDS = 256  # a mask is uint8


class Warp(NamedTuple):
    """Where a result is looked up in its input: at matrix (place + displacement) + offset.

    Places are counted from the centre of the image. `b` stands for a batch axis; all have it or
    none.

    Args:
        matrix: float32 `[(b,) r, r]` for r spatial axes, in voxels.
        offset: float32 `[(b,) r]` in voxels.
        displacement: float32 `[(b,) r, *shape]` in voxels, or None. It comes as r arrays, because
            arrays that lie in one piece are read faster than every r-th number.
    """

    matrix: tf.Tensor
    offset: tf.Tensor
    displacement: tf.Tensor | None = None


def coordinates(warp: Warp, shape) -> tf.Tensor:
    """The position in the input for every voxel of the result.

    Args:
        warp: without a batch axis.
        shape: of the spatial axes.

    Returns:
        float32 `[r, *shape]`, what SciPy's `map_coordinates` takes.
    """
    return tf.stack(_positions(warp, shape, batched=False))


def resample(image, mask, warp: Warp, *, fill="edge", mask_fill: int = 0, batched: bool = False):
    """Image and mask at the positions of a warp: linear for the image, nearest for the mask.

    Args:
        image: `[(b,) z, y, x, c]` or `[(b,) y, x, c]`, any real dtype.
        mask: class ids of the same spatial shape with one channel, or None.
        warp: of the same number of spatial axes.
        fill: what lies outside of the image: "edge" repeats its border, "reflect" mirrors it, a
            number is taken as it is. Along an axis of one voxel, nothing is outside.
        mask_fill: the class id outside, where `fill` is a number.
        batched: whether there is a batch axis.

    Returns:
        The image as float32, and the mask in its own dtype, or None.

    Raises:
        ValueError: for another `fill` or `mask_fill`.
        CourseDataError: `MASK_MISMATCH` for a mask of another shape.

    Where the shapes are known, XLA compiles the look-up, which takes about a second once.
    """
    fill, mask_fill = checked_fill(fill, mask_fill)
    image = tf.convert_to_tensor(image)
    if mask is not None:
        mask = tf.convert_to_tensor(mask)
        check_mask(mask, image.shape)
    known = image.shape.is_fully_defined() and (mask is None or mask.shape.is_fully_defined())
    known = known and xla_works()
    return _compiled(known, fill, mask_fill, batched)(image, mask, warp)


def checked_fill(fill, mask_fill) -> tuple[float | str, int]:
    """What lies outside of image and mask, as numbers of Python.

    Raises:
        ValueError: unless `fill` is "edge", "reflect" or finite, and `mask_fill` a class id.
    """
    number = isinstance(fill, Real) and math.isfinite(fill)
    if not number and not (isinstance(fill, str) and fill in ("edge", "reflect")):
        raise ValueError(f'fill is "edge", "reflect" or a finite number, not {fill!r}')
    if not (isinstance(mask_fill, Integral) and 0 <= mask_fill < IDS):
        raise ValueError(f"mask_fill is a class id from 0 to 255, not {mask_fill!r}")
    return (float(fill) if number else fill), int(mask_fill)


@functools.cache
def xla_works() -> bool:
    """Whether this TensorFlow can compile for the processor; some builds cannot."""
    try:
        with tf.init_scope():  # now, and not as part of a graph that is being made
            tf.function(lambda x: x + 1, jit_compile=True, autograph=False)(tf.constant(1))
    except tf.errors.OpError:
        return False
    return True


@functools.cache
def _compiled(known: bool, fill, mask_fill: int, batched: bool):
    """One function for equal arguments, so that XLA compiles each shape once."""

    def look_up(image, mask, warp):
        return _resample(image, mask, warp, fill, mask_fill, batched)

    return tf.function(look_up, jit_compile=known, autograph=False)


def _positions(warp: Warp, shape, batched: bool) -> list[tf.Tensor]:
    """For each spatial axis the positions along it, `[(b,) *shape]`."""
    rank = len(shape)
    ones = [1] * rank
    # Steps from the centre: half numbers, which float32 holds exactly, and so an identity is one.
    centres = [(tf.cast(n, tf.float32) - 1) / 2 for n in shape]
    steps = [
        tf.reshape(tf.range(n, dtype=tf.float32) - c, ones[:i] + [-1] + ones[i + 1 :])
        for i, (n, c) in enumerate(zip(shape, centres, strict=True))
    ]

    def each(values):
        return tf.reshape(values, [-1, *ones]) if batched else values

    if warp.displacement is not None:
        bent = tf.unstack(warp.displacement, rank, axis=1 if batched else 0)
        steps = [step + moved for step, moved in zip(steps, bent, strict=True)]
    positions = []
    for i in range(rank):
        moved = sum(each(warp.matrix[..., i, j]) * steps[j] for j in range(rank))
        positions.append(moved + (centres[i] + each(warp.offset[..., i])))
    return positions


def _resample(image, mask, warp: Warp, fill, mask_fill: int, batched: bool):
    sizes = tf.shape(image)
    first = 1 if batched else 0
    shape = [n if n is not None else sizes[i] for i, n in enumerate(image.shape)]
    spatial, channels = shape[first:-1], shape[-1]
    rank = len(spatial)
    positions = _positions(warp, spatial, batched)

    outside = None
    if isinstance(fill, float):
        # An axis of one voxel has no outside: there is nothing that could have come in.
        outside = [
            ((p < -0.5) | (p > tf.cast(n, tf.float32) - 0.5)) & (n > 1)
            for p, n in zip(positions, spatial, strict=True)
        ]
        while len(outside) > 1:
            outside.append(outside.pop() | outside.pop())
        outside = outside[0]

    strides = [1] * rank
    for i in reversed(range(rank - 1)):
        strides[i] = strides[i + 1] * spatial[i + 1]
    lower = nearest = 0
    if batched:
        start = tf.range(shape[0]) * (strides[0] * spatial[0])
        lower = nearest = tf.reshape(start, [-1] + [1] * rank)
    steps, fractions = [], []
    for p, n, stride in zip(positions, spatial, strides, strict=True):
        last = tf.cast(n, tf.float32) - 1
        if fill == "reflect":  # d c b a | a b c d | d c b a
            p = tf.math.floormod(p + 0.5, 2 * (last + 1))
            p = tf.minimum(p, 2 * (last + 1) - p) - 0.5
        p = tf.clip_by_value(p, 0.0, last)
        # The lower neighbour has an upper one, even at the last voxel; an axis of 1 has none.
        low = tf.minimum(tf.floor(p), tf.maximum(last - 1, 0.0))
        lower += tf.cast(low, tf.int32) * stride
        nearest += tf.cast(tf.floor(p + 0.5), tf.int32) * stride
        steps.append(tf.minimum(n - 1, 1) * stride)
        fractions.append(p - low)

    single = image.shape[-1] == 1
    values = tf.reshape(image, [-1] if single else [-1, channels])

    def between(corner, axis):
        """Interpolate along this axis and the ones after it."""
        if axis == rank:
            return tf.cast(tf.gather(values, corner), tf.float32)
        here, there = between(corner, axis + 1), between(corner + steps[axis], axis + 1)
        fraction = fractions[axis] if single else fractions[axis][..., tf.newaxis]
        return here * (1 - fraction) + there * fraction  # exact at both ends

    result = between(lower, 0)
    if single:
        result = result[..., tf.newaxis]
    if outside is not None:
        result = tf.where(outside[..., tf.newaxis], tf.cast(fill, tf.float32), result)
    if mask is not None:
        ids = tf.gather(tf.reshape(mask, [-1]), nearest)
        if outside is not None:
            ids = tf.where(outside, tf.cast(mask_fill, ids.dtype), ids)
        mask = ids[..., tf.newaxis]
    return result, mask


def upsample(grid, bases) -> tf.Tensor:
    """A tensor product on a fine grid: one small matrix product for each axis.

    Args:
        grid: float32 `[b, k, ...]`: coefficients for each spatial axis.
        bases: for each spatial axis a matrix `[n, k]` for all, or `[b, n, k]`: n voxels, k
            coefficients.

    Returns:
        float32 `[b, n, ...]`.
    """
    # The axis that varies fastest first: what the others multiply is still small. Products of
    # matrices in place; an einsum of the same moves the large array about, and takes six times
    # as long.
    for axis in reversed(range(len(bases))):
        shape, basis = tf.shape(grid), bases[axis]
        fine = tf.concat([shape[: axis + 1], tf.shape(basis)[-2:-1], shape[axis + 2 :]], 0)
        shared = basis.shape.rank == 2
        rows = tf.reduce_prod(shape[(0 if shared else 1) : axis + 1], keepdims=True)
        blocks = tf.concat([shape[: 0 if shared else 1], rows, shape[axis + 1 : axis + 2]], 0)
        if axis == len(bases) - 1:
            grid = tf.matmul(tf.reshape(grid, blocks), basis, transpose_b=True)
        else:
            blocks = tf.concat([blocks, tf.reduce_prod(shape[axis + 2 :], keepdims=True)], 0)
            grid = tf.matmul(basis if shared else basis[:, tf.newaxis], tf.reshape(grid, blocks))
        grid = tf.reshape(grid, fine)
    return grid
