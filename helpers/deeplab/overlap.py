"""IoU and Dice of masks as NumPy arrays, over a set or for each case, and their intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from helpers.deeplab import arguments
from helpers.deeplab.arguments import IGNORE
from helpers.errors import CourseDataError
from helpers.evaluation import Interval
from helpers.evaluation.inputs import groups as grouped
from helpers.evaluation.inputs import refuse_level


def confusion(
    truth: np.ndarray,
    predicted: np.ndarray,
    classes: int,
    ignore: int | None = IGNORE,
    *,
    per_case: bool = False,
) -> np.ndarray:
    """How many pixels of each class were given to each class.

    Matrices of several cases or batches can be added: `iou_of` and `dice_of` take the sum.

    Args:
        truth: class ids, of any shape: an image, a volume, or many of them.
        predicted: class ids of the same shape: `logits.argmax(-1)`.
        classes: how many there are.
        ignore: the id in `truth` that is no class; None if there is none.
        per_case: a matrix for each entry of the first axis.

    Returns:
        int64 `[classes, classes]`, truth along the first axis; with `per_case` `[n, ...]` of them.

    Raises:
        CourseDataError: `MASK_MISMATCH` for shapes that differ, `UNKNOWN_LABEL` for ids in `truth`
            that are neither a class nor ignored.
        ValueError: for arguments that do not fit, predictions that are no class ids among them.
    """
    arguments.classes(classes, ignore)
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        hint = (
            "; take mask[..., 0]" if truth.shape == (*predicted.shape, 1) else
            "; take logits.argmax(-1)" if predicted.shape[:-1] in (truth.shape, truth.shape[:-1])
            else ""
        )  # fmt: skip
        raise CourseDataError(
            "MASK_MISMATCH",
            f"the truth has shape {truth.shape}, the prediction {predicted.shape}; expected one "
            f"class id for each pixel in both{hint}",
        )
    if per_case and not truth.ndim:
        raise ValueError("per_case needs a first axis of cases")
    counts = truth != ignore if ignore is not None else np.ones(truth.shape, bool)
    if strange := _ids(truth[counts], classes):
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"the truth has the ids {strange}; expected 0 to {classes - 1}, or {ignore} to be "
            "ignored",
        )
    if strange := _ids(predicted[counts], classes):
        raise ValueError(f"predictions are class ids from 0 to {classes - 1}, not {strange}")
    cases = len(truth) if per_case else 1
    case = np.arange(cases).reshape([-1, *[1] * (truth.ndim - 1)]) if per_case else 0
    cells = (case * classes + truth.astype(np.int64)) * classes + predicted.astype(np.int64)
    matrices = np.bincount(cells[counts], minlength=cases * classes**2)
    return matrices.reshape([cases, classes, classes] if per_case else [classes, classes])


def iou(
    truth: np.ndarray,
    predicted: np.ndarray,
    classes: int,
    ignore: int | None = IGNORE,
    *,
    per_case: bool = False,
) -> np.ndarray:
    """Intersection over union of each class: TP / (TP + FP + FN), Jaccard's index.

    Args:
        truth, predicted, classes, ignore, per_case: as for `confusion`.

    Returns:
        float64 `[classes]`, or `[n, classes]` with `per_case`. NaN for a class that is in neither
        mask, so `np.nanmean` is the mIoU.

    Raises:
        CourseDataError, ValueError: as for `confusion`.
    """
    return iou_of(confusion(truth, predicted, classes, ignore, per_case=per_case))


def dice(
    truth: np.ndarray,
    predicted: np.ndarray,
    classes: int,
    ignore: int | None = IGNORE,
    *,
    per_case: bool = False,
) -> np.ndarray:
    """Dice coefficient of each class: 2 TP / (2 TP + FP + FN), the F1 score of its pixels.

    Args:
        truth, predicted, classes, ignore, per_case: as for `confusion`.

    Returns:
        float64 `[classes]`, or `[n, classes]` with `per_case`. NaN for a class that is in neither
        mask; 0 for one that is in the prediction only.

    Raises:
        CourseDataError, ValueError: as for `confusion`.
    """
    return dice_of(confusion(truth, predicted, classes, ignore, per_case=per_case))


def iou_of(matrix: np.ndarray) -> np.ndarray:
    """`iou` from matrices `[..., classes, classes]` of `confusion`, or sums of them."""
    both, pixels = _counts(matrix)
    return _ratio(both, pixels - both)


def dice_of(matrix: np.ndarray) -> np.ndarray:
    """`dice` from matrices `[..., classes, classes]` of `confusion`, or sums of them."""
    both, pixels = _counts(matrix)
    return _ratio(2 * both, pixels)


def interval(
    cases: Sequence | np.ndarray,
    metric: Callable[[np.ndarray], float] = np.nanmean,
    *,
    groups: Sequence | None = None,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """How far a metric would move with other cases: a percentile interval of the bootstrap.

    `evaluation.bootstrap` for what has no labels of 0 and 1. Slices of one patient are drawn
    together if `groups` says whose they are.

        interval(dice(truth, predicted, 2, per_case=True)[:, 1])            # mean Dice of a case
        interval(confusion(truth, predicted, 2, per_case=True),             # mIoU of the set
                 lambda matrices: np.nanmean(iou_of(matrices.sum(0))))

    Args:
        cases: one value or one matrix for each case, `[n, ...]`.
        metric: from such an array, of the cases drawn, to a number.
        groups: what is drawn whole, `[n]`: the patients. None: each case by itself.
        rounds: 1 or more.
        level: share of the rounds within the interval, between 0 and 1.
        seed: the same one gives the same interval.

    Returns:
        The metric of the cases as they are, and the ends of the interval. A round in which the
        metric is NaN, because no case drawn has the class, is left out.

    Raises:
        ValueError: for fewer than two groups, arguments out of range, and a metric that is NaN on
            the cases as they are.
    """
    cases = np.asarray(cases)
    arguments.whole("rounds", rounds)
    refuse_level(level)
    people, group = grouped(np.arange(len(cases)) if groups is None else groups, len(cases))
    if len(people) < 2:
        raise ValueError("all cases are of one group; with one patient there is nothing to draw")
    value = float(metric(cases))
    if not np.isfinite(value):
        raise ValueError(f"the metric of these {len(cases)} cases is {value}")
    random = np.random.default_rng(seed)
    rows, drawn = np.arange(len(cases)), []
    for _ in range(rounds):
        times = np.bincount(random.integers(len(people), size=len(people)), minlength=len(people))
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing but NaN
            drawn.append(float(metric(cases[np.repeat(rows, times[group])])))
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _ids(found: np.ndarray, classes: int) -> list:
    """Those ids that are no class; all of them if they are no whole numbers."""
    if found.dtype.kind not in "biu":
        return np.unique(found)[:10].tolist() or ["none"]
    return np.unique(found[(found < 0) | (found >= classes)]).tolist()


def _counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels right in each class, and pixels of truth and of prediction added up."""
    matrix = np.asarray(matrix, np.float64)
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1) + matrix.sum(-2)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN for 0 / 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
