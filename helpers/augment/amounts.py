"""How much, and how often: what every piece of an augmentation asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

NUMBERS = 8  # uniform numbers that one piece may use; a fixed count keeps draws independent


def checked(amount: float | Sequence, what: str) -> tuple[float, float]:
    """An amount as its limits.

    Args:
        amount: a number `a` stands for -a to a, a pair for itself.
        what: for the error.

    Raises:
        ValueError: for a negative number, a pair in the wrong order, or what is not finite.
    """
    pair = (-amount, amount) if isinstance(amount, Real) else amount
    numbers = isinstance(pair, Sequence) and all(isinstance(one, Real) for one in pair)
    if not numbers or len(pair) != 2 or not all(map(math.isfinite, pair)) or pair[0] > pair[1]:
        raise ValueError(f"{what} is a number from 0 or a pair (low, high), not {amount}")
    return float(pair[0]), float(pair[1])


def between(amount: float | Sequence, number):
    """Take a uniform number in [0, 1) to the limits of an amount."""
    low, high = checked(amount, "an amount")
    return low + (high - low) * number


def probability(p: float) -> None:
    """Refuse what is no probability.

    Raises:
        ValueError: unless 0 <= p <= 1.
    """
    if not (isinstance(p, Real) and 0 <= p <= 1):
        raise ValueError(f"a probability lies between 0 and 1, not at {p}")
