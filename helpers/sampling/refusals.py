"""What the lists of cases are refused for: by position, and by class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from helpers import errors
from helpers.errors import CourseDataError


def classes(
    column: np.ndarray, there: np.ndarray, found: list, wanted: set | None, number: int
) -> None:
    """Refuse classes without a case, and cases of other classes than are wanted.

    Args:
        column: `[n]`, one label of each case.
        there: bool `[n]`, where it is known.
        found: its classes.
        wanted: those that there have to be; None if any will do.
        number: of the label, where cases have several.

    Raises:
        CourseDataError: `EMPTY_CLASS`, `UNKNOWN_LABEL`.
    """
    if not found:
        raise CourseDataError(
            "EMPTY_CLASS",
            f"label {number}, counted from 0, is known of no case; leave it out, or label cases",
        )
    if wanted is None:
        return
    if strangers := set(found) - wanted:
        cases(
            np.isin(column, list(strangers)) & there,
            "UNKNOWN_LABEL",
            f"are of the classes {listed(strangers)}",
            f"expected {listed(wanted)}",
        )
    if absent := wanted - set(found):
        raise CourseDataError(
            "EMPTY_CLASS",
            f"no case of the classes {listed(absent)} among {len(column)} cases, which have "
            f"{listed(found)}; add cases, or leave these classes out",
        )


def empty(values: Sequence) -> None:
    """Refuse a list with nothing in it."""
    if len(values) == 0:
        raise CourseDataError("EMPTY_LIST", "there is no case to draw; expected one or more")


def cases(wrong: np.ndarray, code: str, what: str, expected: str) -> None:
    """Refuse the cases that are wrong, by their positions."""
    places = np.flatnonzero(wrong)
    if len(places):
        raise CourseDataError(
            code,
            f"{len(places)} of {len(wrong)} cases {what}: at the positions {listed(places)}, "
            f"counted from 0; {expected}",
        )


def listed(values: Iterable) -> str:
    """The first few of them in ascending order, for a message."""
    return errors.listed(sorted(values, key=lambda value: (str(type(value)), value)))
