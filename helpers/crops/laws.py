"""Where crops start, as a function of random numbers: written once, for graphs and for arrays.

A stage asks inside its graph, `from_memory` beside it, with arrays; both get the same starts. What
TensorFlow and NumPy call by different names is passed in as `ops`, `GRAPH` or `ARRAYS`.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import tensorflow as tf

from helpers.crops.places import SIDES, find_classes, find_sides

FINE = 2**52  # steps of a uniform number in [0, 1); a product with it is never rounded up to 1

GRAPH = SimpleNamespace(
    cast=tf.cast,
    where=tf.where,
    take=tf.gather,
    cumsum=tf.cumsum,
    searchsorted=tf.searchsorted,
    stack=tf.stack,
    maximum=tf.maximum,
    minimum=tf.minimum,
    any=tf.reduce_any,
)
ARRAYS = SimpleNamespace(
    cast=lambda values, dtype: np.asarray(values).astype(dtype, copy=False),
    where=np.where,
    take=lambda values, indices: values[indices],
    cumsum=np.cumsum,
    searchsorted=np.searchsorted,
    stack=np.stack,
    maximum=np.maximum,
    minimum=np.minimum,
    any=np.any,
)


@dataclasses.dataclass(frozen=True)
class Anywhere:
    """Every start is as likely."""

    by: ClassVar[None] = None

    def starts(self, ops, place, shape, extent, numbers):
        """As `starts` of the others; there are no places to draw from."""
        return numbers % (shape - extent + 1)


@dataclasses.dataclass(frozen=True)
class _Groups:
    """Round a voxel of a group that is drawn first; crops are moved inward."""

    def limits(self, ops, place: dict):
        """First and end of each group, int64 `[groups, 2]`."""
        return ops.cast(ops.stack([place["groups"][name] for name in self.groups]), "int64")

    def starts(self, ops, place, shape, extent, numbers):
        """Where the crops of an image start, int64 `[k, axes]`.

        Args:
            ops: `GRAPH` or `ARRAYS`, which the others are of.
            place: the entry `by` of `places`, with a voxel in one group at least: see `possible`.
            shape: of the image, int64 `[axes]`.
            extent: of the crops, int64 `[axes]`.
            numbers: random, int64 `[k, axes]`, of which the first two of each crop are used.
        """
        limits = self.limits(ops, place)
        uniform = ops.cast(numbers[:, 0] % FINE, "float64") / FINE
        chosen = ops.take(limits, self.which(ops, limits[:, 1] - limits[:, 0], uniform))
        # The remainder of 64 bits favours some voxels by less than one part in 10 ** 9.
        position = chosen[:, 0] + numbers[:, 1] % (chosen[:, 1] - chosen[:, 0])
        voxel = ops.cast(voxels(ops, place, ops.cast(position, "int32")), "int64")
        axes = []
        for axis in reversed(range(shape.shape[0])):
            axes.append(voxel % shape[axis])
            voxel = voxel // shape[axis]
        centre = ops.stack(axes[::-1], 1)
        return ops.maximum(ops.minimum(centre - extent // 2, shape - extent), 0)


@dataclasses.dataclass(frozen=True)
class Sides(_Groups):
    """The foreground with this probability, or else the background; the other if one is empty."""

    probability: float
    threshold: float | None

    by: ClassVar[str] = "foreground"
    groups: ClassVar[tuple[str, ...]] = SIDES
    nothing: ClassVar[tuple] = (
        "no voxel is foreground, and none background; look at mask and threshold",
    )

    def find(self, element: dict) -> dict:
        """The entry of `places`, from image and mask."""
        return find_sides(element, self.threshold)

    def possible(self, ops, counts):
        """Whether there is a voxel to draw, from the numbers of voxels of each group."""
        return ops.any(counts > 0)

    def which(self, ops, counts, uniform):
        """The group of each crop, from a number in [0, 1) for each."""
        side = ops.cast(uniform >= self.probability, "int64")
        return ops.where(ops.take(counts, side) > 0, side, 1 - side)


@dataclasses.dataclass(frozen=True)
class Classes(_Groups):
    """One of the classes that the mask has, by their weights."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    by: ClassVar[str] = "class"

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups in `places`."""
        return tuple(str(one) for one in self.ids)

    @property
    def nothing(self) -> tuple:
        """What to say where no group has a voxel."""
        return "none of the classes", list(self.ids), "is in the mask; leave the case out"

    def find(self, element: dict) -> dict:
        """The entry of `places`, from the mask."""
        return find_classes(element, self.ids)

    def possible(self, ops, counts):
        """Whether there is a voxel to draw, from the numbers of voxels of each group."""
        return self._steps(ops, counts)[-1] > 0

    def which(self, ops, counts, uniform):
        """The group of each crop, from a number in [0, 1) for each."""
        steps = self._steps(ops, counts)
        return ops.searchsorted(steps, uniform * steps[-1], side="right")

    def _steps(self, ops, counts):
        weights = ops.cast(self.weights, "float64")
        return ops.cumsum(ops.where(counts > 0, weights, ops.cast(0.0, "float64")))


Law = Anywhere | Sides | Classes


def voxels(ops, place: dict, positions):
    """Voxel numbers of positions in the count over all groups, int32 `[n]` both."""
    run = ops.searchsorted(place["before"], positions, side="right") - 1
    return ops.take(place["starts"], run) + positions - ops.take(place["before"], run)
