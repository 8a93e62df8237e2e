"""How much, and how often: what every transform of an augmentation is built on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

Amount = float | Sequence  # a number, for both sides of what changes nothing; or a pair (low, high)
plain = dataclass(frozen=True)  # what each transform is: data


@plain
class Transform:
    """What all transforms share: a probability, limits of their amounts, and to change nothing.

    An amount of 0 changes nothing. So a transform that does not act, as the coin of `p` fell, is
    one whose amounts are 0, and none needs a way of its own to do nothing.

    Args:
        p: probability of acting on an image at all.

    Raises:
        ValueError: for a probability or an amount that cannot be.

    Taught in: no lesson; all transforms are one
    """

    p: float = field(default=1.0, kw_only=True)

    def __post_init__(self):
        if not 0 <= self.p <= 1:
            raise ValueError(f"a probability lies between 0 and 1, not at {self.p}")
        self.limits(3)

    def limits(self, rank):
        """For each amount the numbers that it lies between, in an image of `rank` axes."""
        return []

    def extra(self, shape, spacing, seed):
        """Random numbers beside the amounts, if any: for control points, or for each voxel."""

    def change(self, image, amounts, extra):
        """The float32 `image` with other grey values, if any, for `amounts` `[b, 1, ..., k]`."""
        return image


def pair(amount, middle=0, least=-math.inf):
    """The limits of an amount: a number reaches as far to both sides of the middle.

    Args:
        amount: a number, or a pair (low, high), which is taken as it is.
        middle: what changes nothing.
        least: what the lower limit cannot be below.

    Raises:
        ValueError: for a negative number, a pair in the wrong order, or what is not finite.

    >>> pair(15), pair((2, 5)), pair(0.25, middle=1)
    ((-15.0, 15.0), (2.0, 5.0), (0.75, 1.25))

    Taught in: no lesson; all transforms are built on it
    """
    low, high = amount if np.iterable(amount) else (middle - amount, middle + amount)
    if not (least <= low <= high and math.isfinite(high - low)):
        raise ValueError(f"an amount is a number from 0 or a pair (low, high), not {amount}")
    return float(low), float(high)


def pairs(amount, count):
    """The limits of several amounts.

    Args:
        amount: one for all, or as many as there are: three numbers, or pairs.
        count: how many one stands for.

    >>> pairs(2, 2), pairs((1, 2, (3, 4)), 3)
    ([(-2.0, 2.0), (-2.0, 2.0)], [(-1.0, 1.0), (-2.0, 2.0), (3.0, 4.0)])

    Taught in: no lesson; `Rotate` and `Translate` use it
    """
    several = np.iterable(amount) and (len(amount) == 3 or np.iterable(amount[0]))
    return [pair(one) for one in (amount if several else [amount] * count)]


def random_numbers(transforms, shape, spacing, seed):
    """All that is random about an image; `drawn` makes of it what the transforms ask for.

    TensorFlow's own kernels draw it, as XLA would draw other numbers from the same seed.

    Args:
        transforms: of one stage.
        shape: `[b, (z,) y, x, c]`, numbers or tensors.
        spacing: float32 `[b, r]` in mm.
        seed: int64 `[2]`; equal seeds draw equal numbers.

    Returns:
        float32 `[b, n]` from 0 to 1, and for each transform its `extra` or None.

    Taught in: no lesson; `augment.stage` and `augment.draw` use it
    """
    count = sum(1 + len(one.limits(len(shape) - 2)) for one in transforms)
    extras = [one.extra(shape, spacing, seed + [0, 1 + i]) for i, one in enumerate(transforms)]
    return tf.random.stateless_uniform([shape[0], count], seed), extras


def drawn(transforms, rank, numbers, extras):
    """Whether each transform acts, and how much: for all of them at once.

    Args:
        transforms: of one stage.
        rank: of an image: 2 or 3 spatial axes.
        numbers, extras: of `random_numbers`; a coin for each transform comes first.

    Returns:
        For each transform itself; its amounts `[b, k]`, one between each of its limits, and all 0
        if it does not act; and its extra numbers.

    Taught in: no lesson; `augment.stage` and `augment.draw` use it
    """
    result, used = [], len(transforms)
    for i, (transform, extra) in enumerate(zip(transforms, extras, strict=True)):
        low, high = np.float32(transform.limits(rank)).reshape(-1, 2).T
        places = numbers[:, used : used + len(low)]
        used += len(low)
        acts = tf.cast(numbers[:, i : i + 1] < transform.p, tf.float32)
        result.append((transform, acts * (low + (high - low) * places), extra))
    return result
