"""Arguments that cannot be, refused before any work is done."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral


def whole(name: str, value: object, least: int = 1) -> int:
    """Refuse what is no whole number of `least` or more.

    Returns:
        The number as Python's `int`: NumPy's are whole numbers, too, but Keras refuses some.

    Raises:
        ValueError: with the name.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is a whole number from {least}, not {value!r}")
    return int(value)


def positive(name: str, value: float) -> None:
    """Refuse what is not finite and above 0.

    Raises:
        ValueError: with the name.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is a finite number above 0, not {value!r}")


def share(name: str, value: float) -> None:
    """Refuse what is not at least 0 and below 1.

    Raises:
        ValueError: with the name.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{name} lies from 0 to below 1, not {value!r}")


def one_of(name: str, value: object, known: Collection) -> None:
    """Refuse what is not among `known`.

    Raises:
        ValueError: with the name, and what is known.
    """
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(map(str, known))}, not {value!r}")
