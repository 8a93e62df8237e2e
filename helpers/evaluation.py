"""What scores are worth: thresholds, intervals by patient, probabilities; overlaps of masks.

    from sklearn.metrics import average_precision_score
    threshold = evaluation.threshold_at(labels, scores, specificity=0.9)  # validation patients
    print(evaluation.operating_point(test_labels, test_scores, threshold))
    print(evaluation.bootstrap(
        average_precision_score, test_labels, test_scores, groups=test_patients))

Labels are 0 or 1, scores anything that grows with the belief in 1. Metrics that scikit-learn has
are scikit-learn's: here is what it leaves to you.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.errors import listed, need


def checked(labels, scores, *, both=True, probabilities=False):
    """Labels as int64 and scores as float64, both `[n]`.

    Args:
        labels: 0 or 1, `[n]`.
        scores: finite, `[n]`.
        both: whether both classes have to be there.
        probabilities: whether scores have to lie between 0 and 1.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case, `EMPTY_CLASS` without a positive or without a
            negative one, `UNKNOWN_LABEL` for labels other than the numbers 0 and 1.
        ValueError: for shapes that differ, scores that are not finite or no probabilities.

    Taught in: no lesson; all that takes labels and scores asks it
    """
    labels, scores = np.asarray(labels, float), np.asarray(scores, float)
    need(labels.size, "EMPTY_LIST", "there is no case to evaluate")
    if labels.ndim != 1 or scores.shape != labels.shape:  # [n] against [n, 1] would broadcast
        raise ValueError(f"scores have the shape {scores.shape}, labels {labels.shape}, not [n]")
    found = f"labels are 0 or 1, not {listed(np.setdiff1d(labels, (0, 1)).tolist())}"
    need(np.isin(labels, (0, 1)).all(), "UNKNOWN_LABEL", found)
    found = f"all of {len(labels)} cases have the label {labels[0]:g}"
    need(not both or 0 < labels.mean() < 1, "EMPTY_CLASS", found)
    bad = np.count_nonzero(~np.isfinite(scores))
    if bad:
        raise ValueError(f"{bad} of {len(scores)} cases have a score that is NaN or infinite")
    if probabilities and not 0 <= scores.min() <= scores.max() <= 1:
        raise ValueError("probabilities lie between 0 and 1; of logits take a sigmoid")
    return labels.astype(int), scores


def threshold_at(labels, scores, *, specificity):
    """The threshold that a wanted specificity asks for; chosen on validation data.

    A case is positive if `score >= threshold`, as in scikit-learn's `roc_curve`. Thresholds are
    the scores that occur, and +inf, at which nothing is positive. Equal scores stay together, so
    what is reached may be more than what is asked for, never less.

    >>> threshold_at([0, 0, 1], [0.1, 0.3, 0.6], specificity=0.5)
    0.3

    Args:
        labels: 0 or 1, `[n]`.
        scores: `[n]`, higher for a stronger belief in 1: logits or probabilities.
        specificity: share of the negatives, 0 to 1, that has to stay negative.

    Returns:
        The lowest threshold that does it, which finds most positives; +inf if no score will do.

    Raises:
        CourseDataError, ValueError: as `checked`; ValueError for a share above 1.

    Taught in: imbalanced classification
    """
    from sklearn.metrics import roc_curve

    if not 0 <= specificity <= 1:
        raise ValueError(f"a specificity is a share, 0 to 1, not {specificity}")
    false, _, thresholds = roc_curve(*checked(labels, scores), drop_intermediate=False)
    # 0.9 of 10 are 9, whatever floating point says.
    return float(thresholds[1 - false >= specificity - 1e-9].min())


class OperatingPoint(NamedTuple):
    """What a classifier does at one threshold; `precision` is NaN if nothing is called positive.

    Taught in: imbalanced classification
    """

    tp: int
    fp: int
    tn: int
    fn: int
    sensitivity: float
    specificity: float
    precision: float
    balanced_accuracy: float

    def __str__(self):
        return (
            f"sensitivity {self.sensitivity:.2f} ({self.tp} of {self.tp + self.fn}), "
            f"specificity {self.specificity:.2f} ({self.tn} of {self.tn + self.fp}), "
            f"precision {self.precision:.2f}, balanced accuracy {self.balanced_accuracy:.2f}"
        )


def operating_point(labels, scores, threshold):
    """What the classifier does if `score >= threshold` counts as positive.

    >>> operating_point([0, 0, 1], [0.1, 0.3, 0.6], 0.3).specificity
    0.5

    Args:
        labels: 0 or 1, `[n]`.
        scores: `[n]`.
        threshold: on the scale of the scores.

    Returns:
        An `OperatingPoint`.

    Raises:
        CourseDataError, ValueError: as `checked`.

    Taught in: imbalanced classification
    """
    labels, scores = checked(labels, scores)
    (tn, fp), (fn, tp) = confusion(labels, scores >= threshold, 2).tolist()
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    precision = tp / (tp + fp or math.nan)
    balanced = (sensitivity + specificity) / 2
    return OperatingPoint(tp, fp, tn, fn, sensitivity, specificity, precision, balanced)


def patients(cases):
    """Whose record each one is: the first half of its `case`, see `cases.case_hash`.

    >>> patients(["a1-7", b"a1-8", "b3-1"]).tolist()
    ['a1', 'a1', 'b3']

    Args:
        cases: `[n]` salted hashes, text or bytes, as the elements have them.

    Returns:
        Strings `[n]`, equal for cases of one patient.

    Raises:
        ValueError: for what is no such hash.

    Taught in: imbalanced classification
    """
    halves = np.char.partition(np.asarray(cases).astype(str), "-")
    if "" in halves:
        raise ValueError("a case is named by two hashes, of patient and image, with a dash between")
    return halves[:, 0]


def by_patient(patients, labels, scores, how="max"):
    """One label and one score for each patient, from those of the slices.

    A patient with one positive slice is positive. "max" grows with the number of slices even where
    all are negative, so compare patients with like numbers, or take "mean".

    Args:
        patients: whose each slice is, `[n]`: strings or numbers, for instance of `patients`.
        labels: 0 or 1, `[n]`.
        scores: `[n]`.
        how: "max", "mean" or another word of pandas for a score of several.

    Returns:
        Patients `[m]` in ascending order; their labels, int64 `[m]`; their scores, float64 `[m]`.

    Raises:
        CourseDataError, ValueError: as `checked`, but one class alone is no error here; ValueError
            for a patient without a name.

    Taught in: imbalanced classification
    """
    labels, scores = checked(labels, scores, both=False)
    people, person = grouped(patients)
    slices = pd.DataFrame({"label": labels, "score": scores}).groupby(person)
    found = slices.agg({"label": "max", "score": how})
    return people, found["label"].to_numpy(), found["score"].to_numpy()


class Interval(NamedTuple):
    """An estimate, and the ends of the interval round it.

    >>> print(Interval(0.712, 0.6249, 0.8))
    0.71 (0.62 to 0.80)

    Taught in: imbalanced classification
    """

    value: float
    low: float
    high: float

    def __str__(self):
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def grouped(groups):
    """The groups, each once, and which of them every case belongs to.

    >>> [one.tolist() for one in grouped(["b", "a", "b"])]
    [['a', 'b'], [1, 0, 1]]

    Args:
        groups: `[n]` names or numbers, of patients for instance.

    Returns:
        The groups in ascending order, `[m]`; for each case the position of its own, int64 `[n]`.

    Raises:
        ValueError: for a case whose group has no name.

    Taught in: imbalanced classification
    """
    named = pd.Series(groups)
    if (named.isna() | (named == "")).any():
        raise ValueError("some cases belong to a group, or a patient, without a name")
    return np.unique(groups, return_inverse=True)


def bootstrap(metric, *arrays, groups=None, rounds=1000, seed=0):
    """How far a metric would move with other patients: the bootstrap's interval of 95 %.

        bootstrap(average_precision_score, labels, scores, groups=patients)
        bootstrap(np.nanmean, dice)                                      # of each case
        bootstrap(lambda some: iou(some.sum(0)).mean(), matrices)        # mIoU, from confusion
        bootstrap(lambda y, one, other: metric(y, one) - metric(y, other), labels, one, other)

    Each round draws as many groups as there are, with replacement, and takes all cases of a group
    as often as it was drawn. Slices of one patient resemble each other: drawn one by one they
    would pass for more patients than there are, and the interval would be too narrow (Davison and
    Hinkley, 1997, section 3.8; the percentiles are Efron's). Two models on the same draws, as in
    the last line, have what makes a patient hard in common; it cancels out.

    A round without a positive or without a negative case is drawn again, for most metrics have no
    value there; so is one in which the metric is NaN. The interval says nothing about such samples.
    With few positive patients it is too narrow: in simulations, intervals of 95 % held the truth 93
    times in 100 with thirty of them, 91 times with ten, 87 times with five. It is about the model
    as trained: what another seed of training would give is not in it.

    Args:
        metric: gets the arrays, of the cases that were drawn, and returns a number.
        arrays: one, with a value or a matrix for each case, `[n, ...]`; or labels of 0 and 1 and
            the scores of one or more models, all `[n]`.
        groups: what is drawn whole, `[n]`: the patients. None: each case by itself.
        rounds: 1 or more.
        seed: the same one gives the same interval.

    Returns:
        The metric of the cases as they are, and the ends of the interval.

    Raises:
        CourseDataError: as `checked`.
        ValueError: as `checked`; for fewer than two groups, and for a metric that is no finite
            number on the cases as they are, or is NaN in nearly all rounds.

    Taught in: imbalanced classification, segmentation with DeepLab
    """
    arrays = [np.asarray(one) for one in arrays]
    for scores in arrays[1:]:
        checked(arrays[0], scores)
    cases = np.arange(len(arrays[0]))
    people, person = grouped(cases if groups is None else groups)
    random, found = np.random.default_rng(seed), []
    whole = float(metric(*arrays))
    for _ in range(100 * rounds):
        drawn = random.integers(len(people), size=len(people))
        times = np.bincount(drawn, minlength=len(people))
        rows = np.repeat(cases, times[person])  # all cases of a patient, as often as drawn
        if len(arrays) > 1 and not 0 < arrays[0][rows].mean() < 1:
            continue
        value = float(metric(*(one[rows] for one in arrays)))
        found += [] if math.isnan(value) else [value]
        if len(found) == rounds and len(people) > 1:
            low, high = np.quantile(found, [0.025, 0.975]).tolist()
            return Interval(whole, low, high)
    raise ValueError(f"{len(people)} groups, {len(found)} draws with a value: nothing to say")


def with_prevalence(probabilities, trained, real):
    """Probabilities learnt at one share of positives, corrected to another by Bayes' rule.

    The odds are multiplied by real/(1 - real) * (1 - trained)/trained (Elkan, 2001; Saerens et
    al., 2002). The order of the cases stays. This presumes that the cases within each class are
    the same ones: it undoes class weights and sampling by class, but not the sampling of hard
    cases, nor focal loss.

    >>> round(float(with_prevalence(0.5, trained=0.5, real=0.05)), 3)
    0.05

    Args:
        probabilities: 0 to 1, any shape; a single number will do.
        trained: share of positives that the model was trained with, between 0 and 1: 0.5 after
            `sampling.automatic` with two classes; after class weights, that of their sums.
        real: share of positives where the probabilities are to hold.

    Returns:
        float64, of the shape given.

    Raises:
        ValueError: for probabilities out of range or NaN, and for a share that is not above 0 and
            below 1.

    Taught in: imbalanced classification
    """
    p = np.asarray(probabilities, float)
    if not (0 <= p.min() <= p.max() <= 1 and 0 < trained < 1 and 0 < real < 1):
        raise ValueError("probabilities lie from 0 to 1, shares of positives above 0 and below 1")
    factor = real / (1 - real) * (1 - trained) / trained
    return p * factor / (p * factor + 1 - p)


def reliability(labels, probabilities, *, bins=10, strategy="quantile"):
    """Whether of the cases called 30 % likely 30 % are positive: shares by bins of probability.

    The bins are those of scikit-learn's `calibration_curve`. Empty ones are left out, and where
    many probabilities are equal there may be fewer bins than asked for. The mean distance between
    both shares, weighted by the cases, is the expected calibration error.

    Args:
        labels: 0 or 1, `[n]`.
        probabilities: 0 to 1, `[n]`.
        bins: 1 or more.
        strategy: "quantile" for bins with like numbers of cases, which suits rare positives, or
            "uniform" for bins of equal width.

    Returns:
        A table with a row a bin, in ascending order: `predicted` and `observed` shares of
        positives, `cases`, and `low` and `high`, the ends of Wilson's interval of 95 % (1927) round
        `observed`. It takes the cases for independent; slices of one patient are not, so it is
        rather too narrow for these.

    Raises:
        CourseDataError, ValueError: as `checked`.

    Taught in: imbalanced classification
    """
    from scipy.stats import binomtest

    labels, probabilities = checked(labels, probabilities, probabilities=True)
    edges = np.linspace(0, 1, bins + 1)
    if strategy == "quantile":
        edges = np.quantile(probabilities, edges)
    # A probability that is an edge belongs to the bin below it.
    places = np.searchsorted(edges[1:-1], probabilities, side="left")
    rows = pd.DataFrame({"predicted": probabilities, "observed": labels}).groupby(places)
    table = rows.mean().assign(cases=rows.size()).reset_index(drop=True)
    counts = zip(rows["observed"].sum(), table["cases"], strict=True)
    ends = [binomtest(*one).proportion_ci(method="wilson") for one in counts]
    return table.join(pd.DataFrame(ends))


def confusion(truth, predicted, classes, ignore=255):
    """How many pixels of each class were given to each class.

    Matrices of several cases or batches can be added: `iou` and `dice` take the sum.

    >>> confusion([0, 1, 1, 255], [0, 1, 0, 1], 2).tolist()
    [[1, 0], [1, 1]]

    Args:
        truth: class ids, of any shape: an image, a volume, or many of them.
        predicted: class ids of the same shape: `logits.argmax(-1)`.
        classes: how many there are.
        ignore: the id in `truth` that is no class.

    Returns:
        int64 `[classes, classes]`, truth along the first axis.

    Raises:
        CourseDataError: `MASK_MISMATCH` for shapes that differ, `UNKNOWN_LABEL` for what is neither
            a class nor ignored, on either side: probabilities, for instance.

    Taught in: segmentation with DeepLab
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    found = f"the truth has shape {truth.shape}, the prediction {predicted.shape}"
    need(truth.shape == predicted.shape, "MASK_MISMATCH", found)
    counts = truth != ignore
    truth, predicted = truth[counts], predicted[counts]
    for ids in (truth, predicted):
        strange = np.unique(ids[~np.isin(ids, range(classes))]).tolist()
        found = f"ids {listed(strange, most=5)}; expected 0 to {classes - 1}"
        need(not strange, "UNKNOWN_LABEL", found)
    cells = classes * truth.astype(int) + predicted.astype(int)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def iou(matrix):
    """Intersection over union of each class: TP / (TP + FP + FN), Jaccard's index.

    >>> iou([[2, 1], [1, 4]]).round(2).tolist()
    [0.5, 0.67]

    Args:
        matrix: of `confusion`, `[..., classes, classes]`, or a sum of such matrices.

    Returns:
        float64 `[..., classes]`. NaN for a class that is in neither mask, so `np.nanmean` is the
        mIoU.

    Taught in: segmentation with DeepLab
    """
    both = np.diagonal(matrix, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return both / (np.sum(matrix, -1) + np.sum(matrix, -2) - both)


def dice(matrix):
    """Dice coefficient of each class: 2 TP / (2 TP + FP + FN), the F1 score of its pixels.

    >>> dice([[2, 1], [1, 4]]).round(2).tolist()
    [0.67, 0.8]

    Args:
        matrix: as for `iou`.

    Returns:
        float64 `[..., classes]`. NaN for a class that is in neither mask; 0 for one that is in the
        prediction only.

    Taught in: segmentation with DeepLab
    """
    overlap = iou(matrix)
    return 2 * overlap / (1 + overlap)
