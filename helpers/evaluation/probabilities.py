"""Whether probabilities mean what they say, and their correction for another share of positives."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from helpers.evaluation import inputs

STRATEGIES = ("quantile", "uniform")


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Predicted against observed share of positives, one entry for each bin that is not empty.

    `low` and `high` are the ends of Wilson's interval (1927) round `observed`, which takes the
    cases for independent; slices of one patient are not, so it is rather too narrow for them.
    """

    mean_predicted: np.ndarray
    observed: np.ndarray
    count: np.ndarray
    low: np.ndarray
    high: np.ndarray
    expected_calibration_error: float


def with_prevalence(probabilities: Sequence, trained: float, real: float) -> np.ndarray:
    """Probabilities learnt at one share of positives, corrected to another by Bayes' rule.

    The odds are multiplied by real/(1 - real) * (1 - trained)/trained (Elkan, 2001; Saerens et
    al., 2002). The order of the cases stays. This presumes that the cases within each class are
    the same ones: it undoes class weights and sampling by class, but not the sampling of hard
    cases, nor focal loss.

    Args:
        probabilities: 0 to 1, any shape; a single number will do.
        trained: share of positives that the model was trained with, between 0 and 1: 0.5 after
            `sampling.automatic` with two classes, `effective_prevalence` after class weights.
        real: share of positives where the probabilities are to hold.

    Returns:
        float64, of the shape given.

    Raises:
        ValueError: for probabilities out of range or NaN, and for a share that is not above 0 and
            below 1.
    """
    probabilities = np.asarray(probabilities, np.float64)
    inputs.refuse_improbable(probabilities)
    for name, share in (("trained", trained), ("real", real)):
        if not 0 < share < 1:
            raise ValueError(f"{name} is a share of positives above 0 and below 1, not {share}")
    positive = probabilities * (real / trained)
    negative = (1 - probabilities) * ((1 - real) / (1 - trained))
    return positive / (positive + negative)


def effective_prevalence(labels: Sequence, class_weights: Mapping[int, float]) -> float:
    """The share of positives that class weights make of the real one: that of the summed weights.

    Args:
        labels: 0 or 1, `[n]`: those of the training cases.
        class_weights: of 0 and 1, as for Keras' `fit(class_weight=...)`.

    Returns:
        w1 n1 / (w1 n1 + w0 n0), for `with_prevalence`: 0.5 for balanced weights.

    Raises:
        CourseDataError: as for `operating_point`.
        ValueError: if a weight is missing, not finite, or not above 0.
    """
    labels = inputs.binary(labels)
    inputs.refuse_one_class(labels)
    weights = [class_weights.get(kind, math.nan) for kind in (0, 1)]
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(
            f"expected a weight above 0 for class 0 and for class 1, not {dict(class_weights)}"
        )
    negative, positive = np.bincount(labels) * weights
    return float(positive / (positive + negative))


def reliability(
    labels: Sequence,
    probabilities: Sequence,
    *,
    bins: int = 10,
    strategy: str = "quantile",
    level: float = 0.95,
) -> Reliability:
    """Whether of the cases called 30 % likely 30 % are positive: shares by bins of probability.

    The bins are those of scikit-learn's `calibration_curve`. Empty ones are left out, and where
    many probabilities are equal there may be fewer bins than asked for.

    Args:
        labels: 0 or 1, `[n]`.
        probabilities: 0 to 1, `[n]`.
        bins: 1 or more.
        strategy: "quantile" for bins with like numbers of cases, which suits rare positives, or
            "uniform" for bins of equal width.
        level: of Wilson's intervals, between 0 and 1.

    Returns:
        Arrays `[m]`, m <= bins, in ascending order; and the expected calibration error: the mean
        over all cases of the distance between predicted and observed share in the case's bin.

    Raises:
        CourseDataError: as for `operating_point`.
        ValueError: as for `operating_point`, for probabilities out of range, and for arguments
            out of range.
    """
    from scipy import stats

    if bins < 1:
        raise ValueError(f"expected 1 bin or more, not {bins}")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy can be {' or '.join(STRATEGIES)}, not {strategy!r}")
    inputs.refuse_level(level)
    labels, probabilities = inputs.pair(labels, probabilities, probabilities=True)
    edges = np.linspace(0, 1, bins + 1)
    if strategy == "quantile":
        edges = np.quantile(probabilities, edges)
    # A probability that is an edge belongs to the bin below it.
    place = np.searchsorted(edges[1:-1], probabilities, side="left")
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    predicted = np.bincount(place, probabilities, bins)[filled] / count[filled]
    positives = np.bincount(place, labels, bins)[filled].astype(int)
    count = count[filled]
    observed = positives / count
    wilson = [
        stats.binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
        for k, n in zip(positives, count, strict=True)
    ]
    return Reliability(
        mean_predicted=predicted,
        observed=observed,
        count=count,
        low=np.array([one.low for one in wilson]),
        high=np.array([one.high for one in wilson]),
        expected_calibration_error=float(np.abs(predicted - observed) @ count / count.sum()),
    )
