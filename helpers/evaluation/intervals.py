"""How sure a metric is: intervals by drawing the patients again."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from helpers import arguments
from helpers.errors import CourseDataError
from helpers.evaluation import inputs

MOST_DRAWS = 100  # for each round that is wanted
# What NumPy says of a mean or median of nothing, or of nothing but NaN.
OF_NOTHING = "Mean of empty slice|All-NaN slice|invalid value encountered in scalar divide"
Metric = Callable[[np.ndarray, np.ndarray], float]


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate, and the ends of the interval round it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def bootstrap(
    metric: Metric,
    labels: Sequence,
    scores: Sequence,
    *,
    groups: Sequence | None = None,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """How far a metric would move with other patients: a percentile interval of the bootstrap.

    Each round draws as many groups as there are, with replacement, and takes all cases of a group
    as often as it was drawn. Slices of one patient resemble each other: drawn one by one they
    would pass for more patients than there are, and the interval would be too narrow (Davison and
    Hinkley, 1997, section 3.8; the percentiles are Efron's).

    A round without a positive or without a negative case is drawn again, for most metrics have no
    value there. So the interval says nothing about such samples. With few positive patients it is
    too narrow: in simulations, intervals of 95 % held the truth 93 times in 100 with thirty of
    them, 91 times with ten, 87 times with five. It is about the model as trained: what another
    seed of training would give is not in it.

    Args:
        metric: `metric(labels, scores)`, for instance scikit-learn's `average_precision_score`.
        labels: 0 or 1, `[n]`.
        scores: `[n]`.
        groups: what is drawn whole, `[n]`: the patients. None: each case by itself.
        rounds: 1 or more.
        level: share of the rounds within the interval, between 0 and 1.
        seed: the same one gives the same interval.

    Returns:
        The metric of the cases as they are, and the ends of the interval.

    Raises:
        CourseDataError: as for `operating_point`.
        ValueError: as for `operating_point`; for fewer than two groups, for arguments out of range,
            and for a metric that is not finite.
    """
    labels, scores = inputs.pair(labels, scores)

    def value(rows):
        return metric(labels[rows], scores[rows])

    return _bootstrap(value, len(labels), groups, rounds, level, seed, _both(labels))


def bootstrap_difference(
    metric: Metric,
    labels: Sequence,
    scores: Sequence,
    other_scores: Sequence,
    *,
    groups: Sequence | None = None,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """By how much the metric of one set of scores is above that of another, on the same patients.

    Both are taken from the same draws. What makes a patient hard for both models cancels out, so
    the interval is narrower than two intervals side by side would suggest.

    Args:
        metric, labels, groups, rounds, level, seed: as for `bootstrap`.
        scores: `[n]`.
        other_scores: `[n]`, of the same cases in the same order.

    Returns:
        metric(scores) - metric(other_scores), and the ends of the interval.

    Raises:
        CourseDataError, ValueError: as for `bootstrap`.
    """
    _, other_scores = inputs.pair(labels, other_scores)
    labels, scores = inputs.pair(labels, scores)

    def value(rows):
        return metric(labels[rows], scores[rows]) - metric(labels[rows], other_scores[rows])

    return _bootstrap(value, len(labels), groups, rounds, level, seed, _both(labels))


def bootstrap_cases(
    cases: Sequence | np.ndarray,
    metric: Callable[[np.ndarray], float] = np.nanmean,
    *,
    groups: Sequence | None = None,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The same for what is known of each case by itself, such as its Dice coefficient.

        bootstrap_cases(dice_of_each_case, groups=patients)     # of the mean
        bootstrap_cases(confusion, lambda some: np.nanmean(deeplab.iou(some.sum(0))))    # mIoU

    Args:
        cases: one value or one matrix for each case, `[n, ...]`.
        metric: from such an array, of the cases drawn, to a number.
        groups, rounds, level, seed: as for `bootstrap`.

    Returns:
        The metric of the cases as they are, and the ends of the interval. A round in which the
        metric is NaN, because no case drawn has the class, is drawn again.

    Raises:
        CourseDataError: `EMPTY_LIST` for no cases.
        ValueError: for fewer than two groups, arguments out of range, and a metric that is no
            single number, infinite in any round, or NaN on the cases as they are or in nearly all
            rounds.
    """
    cases = np.asarray(cases)
    if not cases.ndim:
        raise ValueError(f"cases are one value for each, [n, ...], not {cases}")
    if not len(cases):
        raise CourseDataError("EMPTY_LIST", "there is no case to evaluate; expected one or more")

    def value(rows):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", OF_NOTHING, RuntimeWarning)
            return metric(cases[rows])

    return _bootstrap(value, len(cases), groups, rounds, level, seed)


def _both(labels: np.ndarray) -> Callable[[np.ndarray], bool]:
    """Whether cases of both classes were drawn."""
    return lambda rows: 0 < labels[rows].sum() < len(rows)


def _bootstrap(
    value: Callable[[np.ndarray], float],
    count: int,
    groups: Sequence | None,
    rounds: int,
    level: float,
    seed: int,
    usable: Callable[[np.ndarray], bool] | None = None,
) -> Interval:
    """The interval of `value(rows)`, where `rows` are the positions of the cases drawn.

    Draws that are not `usable` are made again; without it, those whose value is NaN.
    """
    arguments.whole("rounds", rounds)
    inputs.refuse_level(level)
    people, group = inputs.groups(np.arange(count) if groups is None else groups, count)
    if len(people) < 2:
        raise ValueError("all cases are of one group; with one patient there is nothing to draw")
    random = np.random.default_rng(seed)
    cases = np.arange(count)

    def number(rows, nan=False):
        found = value(rows)
        if np.ndim(found):
            raise ValueError(f"the metric has the shape {np.shape(found)}; expected one number")
        found = float(found)
        if not (math.isfinite(found) or (nan and math.isnan(found))):
            raise ValueError(f"the metric is {found} on {len(rows)} of {count} cases")
        return found

    whole, drawn = number(cases), []
    for _ in range(MOST_DRAWS * rounds):
        times = np.bincount(random.integers(len(people), size=len(people)), minlength=len(people))
        rows = np.repeat(cases, times[group])
        if usable is not None and not usable(rows):
            continue
        found = number(rows, nan=usable is None)
        drawn += [] if math.isnan(found) else [found]
        if len(drawn) == rounds:
            break
    else:
        raise ValueError(f"the metric is NaN on nearly all draws, {MOST_DRAWS * rounds} of them")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(whole, float(low), float(high))
