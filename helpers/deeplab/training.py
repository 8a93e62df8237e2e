"""What DeepLab is trained with: the loss over pixels that count, and the poly learning rate."""

from __future__ import annotations

import keras

from helpers import arguments
from helpers.deeplab.limits import IGNORE


def loss(ignore: int = IGNORE) -> keras.losses.Loss:
    """Cross-entropy from logits, averaged over all pixels of the batch that are not ignored.

    Keras' own `SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignore)`: it divides by
    the number of pixels that count, as the paper's code does, and is 0 where none does. A
    `sample_weight` has one number a pixel, `[b, y, x]` or `[b, y, x, 1]`; the weighted sum is
    divided by the number of pixels that count, not by the sum of their weights. One weight a case,
    `[b]`, has to become `[b, 1, 1]`.

    Args:
        ignore: the id in a mask that is no class.

    Returns:
        A loss for masks `[b, y, x, 1]` or `[b, y, x]` of class ids and logits `[b, y, x, classes]`.
    """
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignore)


def poly_decay(
    base: float, steps: int, power: float = 0.9, end: float = 0.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The poly learning rate: `(base - end) * (1 - step / steps) ** power + end`.

    Keras' own `PolynomialDecay` with the paper's power. It stays at `end` after the last step.

    Args:
        base: the rate of the first step.
        steps: how many there will be: epochs times steps of an epoch.
        power: 0.9 in the paper, 1 for a straight line.
        end: the rate after the last step.

    Returns:
        A schedule for the `learning_rate` of an optimizer.

    Raises:
        ValueError: for rates or steps that are not above 0.
    """
    steps = arguments.whole("steps", steps)
    if not base > 0 or not power > 0 or not 0 <= end <= base:
        raise ValueError(
            f"expected base > 0, power > 0 and end from 0 to base; got {base}, {power} and {end}"
        )
    return keras.optimizers.schedules.PolynomialDecay(
        base, steps, end_learning_rate=end, power=power
    )
