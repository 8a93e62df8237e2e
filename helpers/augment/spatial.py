"""What moves voxels: the amounts as plain data, and the one warp that a draw of them makes.

Matrices act on distances from the centre of the image in mm, so that a rotation stays one where
voxels are not cubes. Each takes a place in the result to its place in the input; to zoom in by
1.1 is therefore to divide by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real

import numpy as np
import tensorflow as tf

from helpers.augment.amounts import NUMBERS, between, checked, probability
from helpers.augment.warp import IDS, Warp, upsample

AXES = "zyx"
LARGEST_SHEAR_DEGREES = 30  # three shears of more could turn space inside out
# Choi and Lee (2000): a cubic B-spline whose coefficients stay below 1 / 2.48 of the distance
# between them is one-to-one in three dimensions; in two, below 1 / 2.05.
LARGEST_PART_OF_GRID = 0.4


@dataclass(frozen=True)
class Flip:
    """Mirror one axis.

    Args:
        axis: "z", "y" or "x"; in LPS order x runs from right to left.
        p: probability.
        swap_ids: class ids that change places with the sides, for instance
            `{3: 4, 4: 3}` for a left and a right kidney.
    """

    axis: str
    p: float = 0.5
    swap_ids: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        probability(self.p)
        if self.axis not in ("z", "y", "x"):
            raise ValueError(f'an axis is "z", "y" or "x", not {self.axis!r}')
        ids = self.swap_ids
        if sorted(ids) != sorted(ids.values()) or not all(0 <= one < IDS for one in ids):
            raise ValueError(f"ids from 0 to {IDS - 1} change places with one another, not {ids}")

    def position(self, rank: int) -> int:
        """The number of the axis among the last `rank` of z, y, x."""
        if self.axis not in AXES[3 - rank :]:
            raise ValueError(f"an image of {rank} axes has no axis {self.axis}")
        return AXES[3 - rank :].index(self.axis)

    def matrix(self, numbers, gate, rank: int):
        flipped = np.zeros((rank, rank), np.float32)
        flipped[self.position(rank), self.position(rank)] = -2.0
        return tf.eye(rank) + gate[..., None, None] * flipped


@dataclass(frozen=True)
class Rotate:
    """Turn about the centre.

    Args:
        degrees: about the z axis, which is within the slice; or for volumes three amounts, about
            z, y and x. Positive turns from x towards y.
        p: probability.
    """

    degrees: float | Sequence
    p: float = 1.0

    def __post_init__(self) -> None:
        probability(self.p)
        for amount in self._amounts():
            checked(amount, "a rotation in degrees")

    def _amounts(self) -> list:
        three = isinstance(self.degrees, Sequence) and len(self.degrees) == 3
        return list(self.degrees) if three else [self.degrees, 0, 0]

    def matrix(self, numbers, gate, rank: int):
        amounts = self._amounts()
        if rank == 2 and (amounts[1:] != [0, 0]):
            raise ValueError(
                "a picture turns about one axis: give one amount of degrees (presets: axes=2)"
            )
        result = tf.eye(rank)
        # Pairs of axes (from the end: x is -1, y is -2, z is -3) in which each rotation turns.
        for number, (amount, (i, j)) in enumerate(
            zip(amounts, [(-2, -1), (-1, -3), (-3, -2)], strict=True)
        ):
            if amount == 0:
                continue
            angle = gate * between(amount, numbers[..., number]) * (math.pi / 180)
            one, other = np.zeros((2, rank, rank), np.float32)
            one[i, i] = one[j, j] = 1.0
            other[i, j], other[j, i] = -1.0, 1.0
            cosine, sine = ((f(angle))[..., None, None] for f in (tf.cos, tf.sin))
            turn = tf.eye(rank) + (cosine - 1) * one + sine * other
            result = tf.matmul(result, turn)
        return result


@dataclass(frozen=True)
class Shear:
    """Slide layers along one another: each axis against each other one.

    Args:
        degrees: of a line that stood upright, at most 30.
        p: probability.
    """

    degrees: float | Sequence
    p: float = 1.0

    def __post_init__(self) -> None:
        probability(self.p)
        low, high = checked(self.degrees, "a shear in degrees")
        if max(-low, high) > LARGEST_SHEAR_DEGREES:
            raise ValueError(f"a shear is at most {LARGEST_SHEAR_DEGREES} degrees")

    def matrix(self, numbers, gate, rank: int):
        pairs = [(i, j) for i in range(rank) for j in range(i + 1, rank)]
        result = tf.eye(rank)
        for number, (i, j) in enumerate(pairs):
            angle = between(self.degrees, numbers[..., number]) * (math.pi / 180)
            place = np.zeros((rank, rank), np.float32)
            place[i, j] = 1.0
            # One axis at a time keeps every volume as it is.
            result = tf.matmul(
                result, tf.eye(rank) + (gate * tf.tan(angle))[..., None, None] * place
            )
        return result


@dataclass(frozen=True)
class Zoom:
    """Enlarge or shrink about the centre.

    Args:
        factor: a number `a` draws between 1 / (1 + a) and 1 + a, as often smaller as larger; or
            a pair of factors. More than 1 makes things larger.
        p: probability.
        each_axis: draw for each axis by itself, which changes proportions.
    """

    factor: float | Sequence
    p: float = 1.0
    each_axis: bool = False

    def __post_init__(self) -> None:
        probability(self.p)
        low, high = self._limits()
        if not 0 < low <= high < math.inf:
            raise ValueError(f"a zoom is a positive factor, not {self.factor}")

    def _limits(self) -> tuple[float, float]:
        if isinstance(self.factor, Real) and self.factor >= 0:
            return 1 / (1 + float(self.factor)), 1 + float(self.factor)
        if isinstance(self.factor, Sequence):
            return checked(self.factor, "a zoom")
        raise ValueError(f"a zoom is a number from 0 or a pair of factors, not {self.factor}")

    def matrix(self, numbers, gate, rank: int):
        low, high = map(math.log, self._limits())
        drawn = numbers[..., :rank] if self.each_axis else numbers[..., :1]
        inverse = tf.exp(-gate[..., None] * (low + drawn * (high - low)))
        return tf.eye(rank) * inverse[..., None]


@dataclass(frozen=True)
class Translate:
    """Shift.

    Args:
        mm: one amount for all axes, or one for each in their order (three numbers, or pairs).
            Voxels where no spacing is known. Positive moves towards higher indices.
        p: probability.
    """

    mm: float | Sequence
    p: float = 1.0

    def __post_init__(self) -> None:
        probability(self.p)
        for amount in self._amounts(3):
            checked(amount, "a shift in mm")

    def _amounts(self, rank: int) -> list:
        nested = isinstance(self.mm, Sequence) and (
            len(self.mm) == 3 or any(isinstance(one, Sequence) for one in self.mm)
        )
        return list(self.mm) if nested else [self.mm] * rank

    def shift(self, numbers, gate, rank: int):
        amounts = self._amounts(rank)
        if len(amounts) != rank:
            raise ValueError(f"{len(amounts)} shifts for {rank} axes")
        drawn = [between(amount, numbers[..., i]) for i, amount in enumerate(amounts)]
        return gate[..., None] * tf.stack(drawn, -1)


@dataclass(frozen=True)
class Elastic:
    """Bend smoothly: cubic B-splines between control points that are moved at random.

    The other pieces act first, on the whole image; this one bends what they have made of it.

    Args:
        displacement: in mm along each axis; nothing is bent farther.
        grid: distance between control points in mm; tissue bends over about that length.
        p: probability.

    Raises:
        ValueError: if the displacement is more than 0.4 of the grid: beyond, tissue can fold over
            itself, and no patient does (Choi and Lee, Graphical Models 62, 2000).
    """

    displacement: float
    grid: float = 32.0
    p: float = 1.0

    def __post_init__(self) -> None:
        probability(self.p)
        lengths = (self.displacement, self.grid)
        if not (
            all(isinstance(one, Real) and 0 <= one < math.inf for one in lengths) and self.grid
        ):
            raise ValueError("an elastic warp needs a displacement from 0 and a positive grid")
        if self.displacement > LARGEST_PART_OF_GRID * self.grid:
            raise ValueError(
                f"a displacement of {self.displacement:g} mm between control points "
                f"{self.grid:g} mm apart can fold tissue over itself: at most "
                f"{LARGEST_PART_OF_GRID * self.grid:g} mm, or a wider grid"
            )

    def field(self, shape, spacing, gate, seed):
        """Displacement in voxels, `[(b,) r, *shape]`, for a spacing `[(b,) r]`."""
        rank, batched = len(shape), spacing.shape.rank == 2
        # A batch axis of one, if there is none: the same steps for both.
        spacing = spacing if batched else spacing[None]
        apart = self.grid / spacing
        bases, counts = [], []
        for i, n in enumerate(shape):
            # Control points lie about the centre; one more on each side of those needed.
            half = (tf.cast(n, tf.float32) - 1) / 2
            reach = tf.reduce_max(tf.math.ceil(half / apart[:, i])) + 1
            points = tf.range(-reach, reach + 1)
            place = (tf.range(n, dtype=tf.float32) - half) / apart[:, i : i + 1]
            basis = cubic_b_spline(place[..., None] - points)
            bases.append(tf.repeat(basis, rank, axis=0) if batched else basis[0])
            counts.append(tf.size(points))
        size = tf.stack([tf.shape(spacing)[0], rank, *counts])
        moved = tf.random.stateless_uniform(
            size, seed, -self.displacement, self.displacement, alg="philox"
        )
        ones = [1] * rank
        moved *= tf.reshape(gate, [-1, 1, *ones]) / tf.reshape(spacing, [-1, rank, *ones])
        fine = upsample(tf.reshape(moved, tf.concat([[-1], counts], 0)), bases)
        return tf.reshape(fine, [*([-1] if batched else []), rank, *shape])


PIECES = (Flip, Rotate, Shear, Zoom, Translate, Elastic)


def cubic_b_spline(t):
    """The uniform cubic B-spline at a distance of `t` control points: 2/3, 1/6, 0 at 0, 1, 2."""
    t = tf.abs(t)
    return (tf.nn.relu(2 - t) ** 3 - 4 * tf.nn.relu(1 - t) ** 3) / 6


def draw(pieces: Sequence, shape: Sequence[int], seed, spacing=None) -> tuple[Warp, list]:
    """Draw all amounts once.

    Args:
        pieces: `Flip`, `Rotate`, `Shear`, `Zoom`, `Translate` act in this order; `Elastic`, at
            most once, comes last wherever it stands.
        shape: of the spatial axes.
        seed: int `[2]`; equal seeds draw equal amounts.
        spacing: `[r]` in mm, or `[b, r]` to draw for a batch; None means 1 mm.

    Returns:
        The warp, and for each piece whether it acts: 0 or 1, float32, `[b]` for a batch.
    """
    rank = len(shape)
    if sum(isinstance(piece, Elastic) for piece in pieces) > 1:
        raise ValueError("two elastic warps could fold together: give one")
    spacing = tf.ones(rank) if spacing is None else tf.convert_to_tensor(spacing, tf.float32)
    batch = tf.shape(spacing)[:-1]
    size = tf.concat([batch, [len(pieces), 1 + NUMBERS]], 0)
    uniform = tf.random.stateless_uniform(size, seed, alg="philox")
    matrix, shift, displacement, gates = tf.eye(rank), tf.zeros(rank), None, []
    for number, piece in enumerate(pieces):
        numbers = uniform[..., number, 1:]
        gate = tf.cast(uniform[..., number, 0] < piece.p, tf.float32)
        gates.append(gate)
        if isinstance(piece, Elastic):
            own_seed = tf.stack([seed[0], seed[1] + 1 + number])
            displacement = piece.field(shape, spacing, gate, own_seed)
        elif isinstance(piece, Translate):
            # What comes later is undone first: the way back runs through the earlier matrices.
            moved = -piece.shift(numbers, gate, rank)
            shift = shift + tf.linalg.matvec(matrix, moved)
        else:
            matrix = tf.matmul(matrix, piece.matrix(numbers, gate, rank))
    # From mm to voxels; differences to the identity, so that an identity stays one to the bit.
    ratio = spacing[..., None, :] / spacing[..., :, None]
    matrix = tf.eye(rank) + (matrix - tf.eye(rank)) * ratio
    offset = tf.broadcast_to(shift / spacing, tf.shape(spacing))
    return Warp(matrix, offset, displacement), gates
