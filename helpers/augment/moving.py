"""What moves voxels: each transform as a matrix, in mm, from a place in the result to the input.

To zoom in by 1.1 is therefore to divide by it, and to shift by 5 mm to look 5 mm before.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import field

import numpy as np
import tensorflow as tf

from helpers.augment.amounts import Amount, Transform, drawn, pair, pairs, plain, random_numbers
from helpers.augment.warp import Warp, b_spline, from_centre, fused, half, sizes, upsample

AXES = ["z", "y", "x"]
PLANES = ("yx", "xz", "zy")  # in which one turns about z, y and x
STEEPEST_DEGREES = 30  # three shears of more could turn space inside out
# Choi and Lee (2000): a cubic B-spline whose coefficients stay below 1 / 2.48 of the distance
# between them is one-to-one in three dimensions; in two, below 1 / 2.05.
LARGEST_PART_OF_GRID = 0.4


class Moving(Transform):
    """A transform that moves voxels.

    Taught in: no lesson; `Flip`, `Rotate` and others are one
    """

    def matrix(self, amounts, eye):
        """`[b, r + 1, r + 1]` in mm from the centre, for amounts `[b, k]`; or `eye`."""
        return eye


def entry(eye, row, column):
    """A matrix with a single 1.

    Args:
        eye: the identity of the same size, one more than there are axes.
        row, column: the axes where the 1 stands, "z", "y" or "x".

    Taught in: augmentation
    """
    axes = AXES[4 - len(eye) :]
    return np.outer(eye[axes.index(row)], eye[axes.index(column)])


@plain
class Flip(Moving):
    """Mirror one axis.

    Args:
        axis: "z", "y" or "x"; in LPS order x runs from right to left.
        p: probability, 0.5 if none is given.
        swap_ids: class ids that change places with the sides, for instance
            `{3: 4, 4: 3}` for a left and a right kidney.

    Taught in: augmentation
    """

    axis: str
    p: float = field(default=0.5, kw_only=True)
    swap_ids: Mapping[int, int] = field(default_factory=dict)

    def limits(self, rank):
        """One amount: whether."""
        AXES[-rank:].index(self.axis)
        if sorted(self.swap_ids) != sorted(self.swap_ids.values()):
            raise ValueError(f"ids change places with one another, not as {self.swap_ids}")
        return [(1, 1)]

    def matrix(self, amounts, eye):
        """-1 for the axis."""
        return eye - 2 * amounts[..., None] * entry(eye, self.axis, self.axis)

    def mirrored(self, image, amounts):
        """The image `[b, ..., c]` mirrored where it acts: whole voxels change places."""
        axis = image.shape.rank - 4 + AXES.index(self.axis)
        return tf.where(amounts > 0, tf.reverse(image, [axis]), image)

    def swapped(self, mask, amounts):
        """The mask with the ids of the other side where it acts."""
        result = mask
        for old, new in self.swap_ids.items():
            result = tf.where((amounts > 0) & (mask == old), tf.cast(new, mask.dtype), result)
        return result


@plain
class Rotate(Moving):
    """Turn about the centre.

    Args:
        degrees: about the z axis, which is within the slice; or for volumes three amounts, about
            z, y and x. Positive turns from x towards y.
        p: probability.

    Taught in: augmentation
    """

    degrees: Amount

    def limits(self, rank):
        """An angle in radians about each axis."""
        return np.radians(pairs(self.degrees, 1))

    def matrix(self, amounts, eye):
        """One turn after the other, by the formula of Rodrigues."""
        result, angles = eye, tf.unstack(amounts[..., None, None], axis=1)
        for (i, j), angle in zip(PLANES, angles, strict=False):
            quarter = entry(eye, j, i) - entry(eye, i, j)  # within the plane, by 90 degrees
            turn = eye + tf.sin(angle) * quarter + (1 - tf.cos(angle)) * (quarter @ quarter)
            result = tf.matmul(result, turn)
        return result


@plain
class Shear(Moving):
    """Slide layers along one another: each axis against each other one.

    Args:
        degrees: of a line that stood upright, at most 30.
        p: probability.

    Taught in: augmentation
    """

    degrees: Amount

    def limits(self, rank):
        """An angle in radians for each pair of axes."""
        limits = pair(self.degrees)
        if max(map(abs, limits)) > STEEPEST_DEGREES:
            raise ValueError(f"a shear is at most {STEEPEST_DEGREES} degrees, not {self.degrees}")
        return [np.radians(limits)] * (2 * rank - 3)

    def matrix(self, amounts, eye):
        """One slide after the other."""
        result, angles = eye, tf.unstack(amounts[..., None, None], axis=1)
        planes = itertools.combinations(AXES[4 - len(eye) :], 2)
        for (i, j), angle in zip(planes, angles, strict=True):  # one at a time keeps volumes
            result = tf.matmul(result, eye + tf.tan(angle) * entry(eye, i, j))
        return result


@plain
class Zoom(Moving):
    """Enlarge or shrink about the centre.

    Args:
        factor: a number `a` draws between 1 / (1 + a) and 1 + a, as often smaller as larger; or
            a pair of factors. More than 1 makes things larger.
        each_axis: draw for each axis by itself, which changes proportions.
        p: probability.

    Taught in: augmentation
    """

    factor: Amount
    each_axis: bool = False

    def limits(self, rank):
        """Logarithms, so that half is drawn as often as double."""
        one = self.factor
        limits = pair(one if np.iterable(one) else (1 / (1 + one), 1 + one))
        return [tuple(map(math.log, limits))] * (rank if self.each_axis else 1)

    def matrix(self, amounts, eye):
        """The way back: smaller steps in the input make things larger."""
        scales = tf.exp(-amounts) * np.ones(len(eye) - 1, np.float32)
        return tf.linalg.diag(tf.pad(scales, [[0, 0], [0, 1]], constant_values=1))


@plain
class Translate(Moving):
    """Shift.

    Args:
        mm: one amount for all axes, or one for each in their order (three numbers, or pairs).
            Voxels where no spacing is known. Positive moves towards higher indices.
        p: probability.

    Taught in: augmentation
    """

    mm: Amount

    def limits(self, rank):
        """A length in mm for each axis."""
        return pairs(self.mm, rank)

    def matrix(self, amounts, eye):
        """The way back, in the last column."""
        return eye - tf.pad(amounts, [[0, 0], [0, 1]])[..., None] * eye[-1]


@plain
class Elastic(Moving):
    """Bend smoothly: cubic B-splines between control points that are moved at random.

    The other transforms act first, on the whole image; this one bends what they have made of it.

    Args:
        displacement: in mm along each axis; nothing is bent farther.
        grid: distance between control points in mm; tissue bends over about that length.
        p: probability.

    Raises:
        ValueError: if the displacement is more than 0.4 of the grid: beyond, tissue can fold over
            itself, and no patient does (Choi and Lee, Graphical Models 62, 2000).

    Taught in: augmentation
    """

    displacement: float
    grid: float = 32.0

    def limits(self, rank):
        """The displacement in mm, or none."""
        most = LARGEST_PART_OF_GRID * self.grid
        if not 0 <= self.displacement <= most or not self.grid:
            found = f"{self.displacement:g} mm between points {self.grid:g} mm apart"
            raise ValueError(f"{found} can fold tissue over itself: at most {most:g} mm")
        return [(self.displacement, self.displacement)]

    def extra(self, shape, spacing, seed):
        """Where control points move to, between -1 and 1: one more on each side than needed."""
        half_mm = tf.stack([half(n) for n in shape[1:-1]]) * spacing
        # An even number on each side, so that XLA meets few sizes where patients' spacings differ.
        reach = tf.reduce_max(tf.math.ceil((half_mm / self.grid + 1) / 2), axis=0)
        counts = tf.cast(4 * reach + 1, tf.int32)
        return tf.random.stateless_uniform(
            [shape[0], len(shape) - 2, *tf.unstack(counts)], seed, -1, 1
        )

    def field(self, amounts, points, shape, spacing):
        """The displacement in voxels, `[b, r, *shape]`, for `points` of `extra`."""
        batch, rank, *counts = sizes(points)
        bases = []
        for i, (n, count) in enumerate(zip(shape, counts, strict=True)):
            place = from_centre(n) * spacing[:, i : i + 1] / self.grid
            basis = b_spline(place[..., None] - from_centre(count))
            bases.append(tf.repeat(basis, rank, axis=0))  # one for each direction of a bend
        voxels = tf.reshape(amounts / spacing, [batch, rank] + [1] * rank)
        fine = upsample(tf.reshape(points * voxels, [batch * rank, *counts]), bases)
        return tf.reshape(fine, [batch, rank, *shape])


def joined(moves, shape, spacing):
    """The one warp of all that moves voxels; `Elastic` bends what the others have made.

    Args:
        moves: transforms, each with its amounts and extra numbers.
        shape: of the spatial axes.
        spacing: float32 `[b, r]` in mm.

    Taught in: no lesson; `augment.stage` and `augment.draw` use it
    """
    bent = [one.field(*own, shape, spacing) for one, *own in moves if isinstance(one, Elastic)]
    return Warp(fused(moves, spacing), *bent)


def draw(transforms, shape, seed, spacing=1):
    """Draw all amounts once.

    Args:
        transforms: that move voxels; they act in this order, `Elastic` last.
        shape: of the spatial axes.
        seed: two whole numbers; equal ones draw equal amounts.
        spacing: in mm, for each axis; or `[b, r]`, to draw for a batch.

    Returns:
        The `Warp`, a batch of one or b.

    Taught in: augmentation
    """
    rank = len(shape)
    spacing = tf.reshape(tf.cast(spacing, tf.float32) * np.ones(rank, np.float32), [-1, rank])
    full = [*sizes(spacing)[:1], *shape, 1]
    numbers = random_numbers(transforms, full, spacing, tf.cast(seed, tf.int64))
    return joined(drawn(transforms, rank, *numbers), shape, spacing)
