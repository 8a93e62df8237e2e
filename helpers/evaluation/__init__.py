"""What a classifier's scores are worth where positives are rare: thresholds, intervals, shares.

    from sklearn.metrics import average_precision_score
    threshold = evaluation.threshold_at(labels, scores, specificity=0.9)  # validation patients
    print(evaluation.operating_point(test_labels, test_scores, threshold))
    print(evaluation.bootstrap(
        average_precision_score, test_labels, test_scores, groups=test_patients))

Labels are 0 or 1, scores anything that grows with the belief in 1. Metrics that scikit-learn has
are scikit-learn's: here is what it leaves to you.
"""

from helpers.evaluation.aggregation import by_patient, patients
from helpers.evaluation.intervals import Interval, bootstrap, bootstrap_cases, bootstrap_difference
from helpers.evaluation.probabilities import (
    Reliability,
    effective_prevalence,
    reliability,
    with_prevalence,
)
from helpers.evaluation.thresholds import OperatingPoint, operating_point, threshold_at

__all__ = [
    "Interval",
    "OperatingPoint",
    "Reliability",
    "bootstrap",
    "bootstrap_cases",
    "bootstrap_difference",
    "by_patient",
    "effective_prevalence",
    "operating_point",
    "patients",
    "reliability",
    "threshold_at",
    "with_prevalence",
]
