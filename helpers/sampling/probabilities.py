"""How likely each case is to be drawn: by its class, or by a weight of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from helpers.errors import CourseDataError
from helpers.sampling import refusals
from helpers.sampling.columns import columns_of, known


def automatic(
    labels: Sequence, classes: Iterable | None = None, *, which: int | None = None
) -> np.ndarray:
    """Probabilities that make all classes equally likely: 1/n_class, as Clara's `automatic`.

    The proportions are those of scikit-learn's `compute_sample_weight("balanced", labels)`.

    Args:
        labels: of each case: a class id, a class name, or a vector of ids, one for each of several
            labels, where -1 stands for one that is not known. For vectors, the probabilities are
            the mean of those that each label by itself would give (over the cases in which it is
            known), so every class of k labels gets at least a k-th of its fair share of the draws.
        classes: those that there have to be, by default those that there are. A mapping from ids
            to names will do. Of vectors, each label has these classes.
        which: balance this label of each vector alone, counted from 0.

    Returns:
        float64 `[n]`, which sums to 1.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case; `EMPTY_CLASS` for a class without one, or a
            label that is known of none; `UNKNOWN_LABEL` for cases without a label or with one that
            is not in `classes`, and for vectors of unequal length. Cases are named by position,
            counted from 0.
        ValueError: for labels that are neither ids nor names, and for an impossible `which`.
    """
    refusals.empty(labels)
    columns = columns_of(labels)
    if which is not None:
        if not 0 <= which < len(columns):
            raise ValueError(f"which is a label from 0 to {len(columns) - 1}, not {which!r}")
        columns = [columns[which]]
    all_known = [known(column) for column in columns]
    refusals.cases(
        ~np.any(all_known, axis=0),
        "UNKNOWN_LABEL",
        "have no label",
        "label them, or leave them out of what is balanced",
    )
    wanted = None if classes is None else set(classes)
    shares = np.zeros((len(columns), len(columns[0])))
    for number, (column, there) in enumerate(zip(columns, all_known, strict=True)):
        values, place, counts = np.unique(column[there], return_inverse=True, return_counts=True)
        refusals.classes(column, there, values.tolist(), wanted, number)
        shares[number, there] = 1 / (len(values) * counts[place])
    return _normal(shares.mean(axis=0))


def element(weights: Sequence[float | None]) -> np.ndarray:
    """Probabilities in proportion to each case's own weight, as Clara's `element`.

    Args:
        weights: the `weight` of each item of a data list, or of each record.

    Returns:
        float64 `[n]`, which sums to 1. A case of weight 0 is never drawn.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case; `BAD_WEIGHT` for weights that are missing,
            negative or not finite, naming the cases by position, counted from 0, and if all are 0.
    """
    weights = list(weights)
    refusals.empty(weights)
    values = np.array([np.nan if one is None else one for one in weights], np.float64)
    if values.ndim != 1:
        raise ValueError("each case has one weight")
    refusals.cases(
        ~(np.isfinite(values) & (values >= 0)),
        "BAD_WEIGHT",
        "have a weight that is missing, negative or not finite",
        "expected a number from 0, in each item",
    )
    if not values.any():
        raise CourseDataError(
            "BAD_WEIGHT", f"all {len(values)} weights are 0: no case could be drawn"
        )
    return _normal(values / values.max())  # a sum of very large weights would be infinite


def _normal(values: np.ndarray) -> np.ndarray:
    return values / values.sum()
