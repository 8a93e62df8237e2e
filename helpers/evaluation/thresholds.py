"""A threshold for the specificity or sensitivity that is wanted, and what it does elsewhere."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from helpers.evaluation import inputs

_ROUNDING = 1e-9  # 0.9 of 10 negatives are 9, whatever floating point makes of it


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """What a classifier does at one threshold; `precision` is NaN if nothing is called positive."""

    sensitivity: float
    specificity: float
    precision: float
    balanced_accuracy: float
    accuracy: float
    tp: int
    fp: int
    tn: int
    fn: int
    threshold: float

    def __str__(self) -> str:
        return (
            f"sensitivity {self.sensitivity:.2f} ({self.tp} of {self.tp + self.fn}), "
            f"specificity {self.specificity:.2f} ({self.tn} of {self.tn + self.fp}), "
            f"precision {self.precision:.2f}, balanced accuracy {self.balanced_accuracy:.2f}"
        )


def threshold_at(
    labels: Sequence,
    scores: Sequence,
    *,
    specificity: float | None = None,
    sensitivity: float | None = None,
) -> float:
    """The threshold that a wanted specificity, or sensitivity, asks for; chosen on validation data.

    A case is positive if `score >= threshold`, as in scikit-learn's `roc_curve`. Thresholds are
    the scores that occur, and +inf, at which nothing is positive. Equal scores stay together, so
    what is reached may be more than what is asked for, never less.

    Args:
        labels: 0 or 1, `[n]`.
        scores: `[n]`, higher for a stronger belief in 1: logits or probabilities.
        specificity: share of the negatives, 0 to 1, that has to stay negative. The lowest
            threshold that does it is returned: the one that finds most positives.
        sensitivity: share of the positives, 0 to 1, that has to be found. The highest threshold
            that does it is returned: the one with fewest false alarms. Give one of the two.

    Returns:
        The threshold; +inf if no score that occurs will do.

    Raises:
        CourseDataError: as for `operating_point`.
        ValueError: for a share out of range, for both or neither, and as for `operating_point`.
    """
    if (specificity is None) == (sensitivity is None):
        raise ValueError("give either a specificity or a sensitivity")
    share = specificity if sensitivity is None else sensitivity
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not {share}")
    labels, scores = inputs.pair(labels, scores)
    thresholds = np.append(np.unique(scores), np.inf)
    kind = 0 if sensitivity is None else 1
    ordered = np.sort(scores[labels == kind])
    below = np.searchsorted(ordered, thresholds, side="left")  # called negative
    needed = math.ceil(share * len(ordered) - _ROUNDING)
    if sensitivity is None:
        return float(thresholds[below >= needed].min())
    return float(thresholds[len(ordered) - below >= needed].max())


def operating_point(labels: Sequence, scores: Sequence, threshold: float) -> OperatingPoint:
    """What the classifier does if `score >= threshold` counts as positive.

    Args:
        labels: 0 or 1, `[n]`.
        scores: `[n]`.
        threshold: on the scale of the scores; not NaN.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case, `EMPTY_CLASS` without a positive or without a
            negative one, `UNKNOWN_LABEL` for labels other than 0 and 1.
        ValueError: for lengths that differ, and for scores that are not finite.
    """
    labels, scores = inputs.pair(labels, scores)
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN")
    called = scores >= threshold
    tp, fp = int((called & (labels == 1)).sum()), int((called & (labels == 0)).sum())
    fn, tn = int((labels == 1).sum()) - tp, int((labels == 0).sum()) - fp
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    return OperatingPoint(
        sensitivity=sensitivity,
        specificity=specificity,
        precision=tp / (tp + fp) if tp + fp else math.nan,
        balanced_accuracy=(sensitivity + specificity) / 2,
        accuracy=(tp + tn) / len(labels),
        tp=tp,
        fp=fp,
        tn=tn,
        fn=fn,
        threshold=float(threshold),
    )
