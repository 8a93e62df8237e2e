"""Look up an image and its mask at other places: one interpolation for all that moves voxels.

A warp says, for each voxel of the result, where in the input its value comes from: the way back, as
in every resampler, so that no voxel of the result stays empty. All arrays here are batches; an
element is a batch of one.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Warp(NamedTuple):
    """Where a result is looked up: at matrix @ (place + displacement), counted from the centre.

    Args:
        matrix: float32 `[b, r + 1, r + 1]` for r spatial axes, in voxels; its last column shifts.
        displacement: float32 `[b, r, (z,) y, x]` in voxels, or None.

    Taught in: augmentation
    """

    matrix: tf.Tensor
    displacement: tf.Tensor | None = None


def fused(moves, spacing):
    """One matrix for several transforms, so that an image is interpolated once.

    A transform's matrix takes a place in the result to its place in the input, in mm from the
    centre, so that a rotation stays one where voxels are not cubes. What acts last is undone first.
    A row and a column more than there are axes make a matrix of a shift, too.

    Args:
        moves: transforms with a `matrix`, each with its amounts and extra numbers; the first one
            acts first.
        spacing: float32 `[b, r]` in mm.

    Returns:
        float32 `[b, r + 1, r + 1]` in voxels.

    Taught in: augmentation
    """
    eye = np.eye(spacing.shape[-1] + 1, dtype=np.float32)
    matrix = eye
    for transform, amounts, _ in moves:
        matrix = tf.matmul(matrix, transform.matrix(amounts, eye))
    voxel_mm = tf.pad(spacing, [[0, 0], [0, 1]], constant_values=1)
    return matrix * voxel_mm[:, None, :] / voxel_mm[:, :, None]


def sizes(array):
    """The shape of an array: plain numbers where they are known, tensors where not.

    Args:
        array: a tensor.

    Taught in: no lesson; what works on images of any shape uses it
    """
    found = tf.shape(array)
    return [found[i] if n is None else n for i, n in enumerate(array.shape)]


def half(n):
    """How far the middle of `n` voxels in a line lies from the first one, in voxels.

    >>> half(4)
    1.5

    Taught in: augmentation
    """
    return ((n if isinstance(n, int) else tf.cast(n, tf.float32)) - 1) / 2


def from_centre(n):
    """The places of `n` voxels in a line, counted from their middle.

    >>> from_centre(4).numpy().tolist()
    [-1.5, -0.5, 0.5, 1.5]

    Taught in: augmentation
    """
    return tf.range(-half(n), half(n) + 0.5)


def b_spline(t):
    """The uniform cubic B-spline at a distance of `t` control points.

    >>> (6 * b_spline([0.0, 1.0, 2.0])).numpy().tolist()
    [4.0, 1.0, 0.0]

    Taught in: augmentation
    """
    t = tf.abs(t)
    return (tf.nn.relu(2 - t) ** 3 - 4 * tf.nn.relu(1 - t) ** 3) / 6


def upsample(grid, bases):
    """A coarse grid on a fine one: a product with one small matrix for each axis.

    A spline in three dimensions is a product of three in one, so that one axis can be done after
    the other: first x, while the others are still short.

    Args:
        grid: float32 `[b, (z,) y, x]`: coefficients.
        bases: for each spatial axis a matrix `[b, n, k]`: n voxels, k coefficients.

    Returns:
        float32 `[b, (n,) n, n]`.

    Taught in: augmentation
    """
    axes = "zyx"[-len(bases) :]
    for axis, basis in reversed(list(zip(axes, bases, strict=True))):
        grid = tf.einsum(f"bn{axis},b{axes}->b{axes.replace(axis, 'n')}", basis, grid)
    return grid


def coordinates(warp, shape):
    """The position in the input for every voxel of the result.

    Args:
        warp: of as many axes as `shape`.
        shape: of the spatial axes.

    Returns:
        float32 `[b, r, *shape]`; one of a batch is what SciPy's `map_coordinates` takes.

    Taught in: augmentation
    """
    rank, ones = len(shape), [1] * len(shape)
    matrix = tf.reshape(warp.matrix, [-1, rank + 1, rank + 1, *ones])
    steps = []
    for i, n in enumerate(shape):
        step = tf.reshape(from_centre(n), [-1, *ones[i + 1 :]])
        steps.append(step if warp.displacement is None else step + warp.displacement[:, i])
    result = []
    for i, n in enumerate(shape):
        position = matrix[:, i, rank] + half(n)
        for j, step in enumerate(steps):
            position += matrix[:, i, j] * step
        result.append(position)
    return tf.stack(result, axis=1)


def resample(image, mask, warp, fill="edge", mask_fill=0):
    """Image and mask at the positions of a warp: linear for the image, nearest for the mask.

    Args:
        image: tensor `[b, (z,) y, x, c]`, any real dtype.
        mask: tensor of class ids of the same spatial shape with one channel.
        warp: of the same number of spatial axes.
        fill: what lies outside of the image: "edge" repeats its border, "reflect" mirrors it, a
            number is taken as it is. Along an axis of one voxel, nothing is outside.
        mask_fill: the class id outside, where `fill` is a number.

    Returns:
        The image as float32, and the mask in its own dtype.

    `tf.function(resample, jit_compile=True)` makes one loop of it all, several times as fast.

    Taught in: augmentation
    """
    batch, *spatial, channels = sizes(image)
    nearest = tf.reshape(tf.range(batch), [-1] + [1] * len(spatial))  # numbers of voxels
    corners, shares, outside = [nearest], [], False
    positions = tf.unstack(coordinates(warp, spatial), axis=1)
    for p, n in zip(positions, spatial, strict=True):
        last = 2 * half(n)
        if fill == "reflect":  # d c b a | a b c d | d c b a
            p = tf.math.floormod(p + 0.5, 2 * last + 2)
            p = tf.minimum(p, 2 * last + 2 - p) - 0.5
        inside = tf.clip_by_value(p, 0.0, last)
        outside |= (tf.abs(p - inside) > 0.5) & (last > 0)  # nothing is outside of a single voxel
        low = tf.floor(inside)
        shares.append((inside - low)[..., None])
        sides = [tf.cast(side, tf.int32) for side in (low, tf.minimum(low + 1, last))]
        corners = [corner * n + side for corner in corners for side in sides]
        nearest = nearest * n + tf.cast(inside + 0.5, tf.int32)
    values = tf.reshape(image, [-1, channels])
    values = [tf.cast(tf.gather(values, corner), tf.float32) for corner in corners]
    for share in reversed(shares):
        sides = zip(values[::2], values[1::2], strict=True)
        values = [low * (1 - share) + high * share for low, high in sides]  # exact at both ends
    (image,) = values
    mask = tf.gather(tf.reshape(mask, [-1]), nearest)[..., None]
    if not isinstance(fill, str):
        outside = outside[..., None]
        image = tf.where(outside, fill, image)
        mask = tf.where(outside, tf.cast(mask_fill, mask.dtype), mask)
    return image, mask
