"""IoU and Dice of masks as NumPy arrays, over a set or for each case.

Their intervals are `evaluation.bootstrap_cases`.
"""

from __future__ import annotations

import numpy as np

from helpers.deeplab import limits
from helpers.deeplab.limits import IGNORE
from helpers.errors import CourseDataError, listed


def confusion(
    truth: np.ndarray,
    predicted: np.ndarray,
    classes: int,
    ignore: int | None = IGNORE,
    *,
    per_case: bool = False,
) -> np.ndarray:
    """How many pixels of each class were given to each class.

    Matrices of several cases or batches can be added: `iou` and `dice` take the sum.

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
    limits.classes(classes, ignore)
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise CourseDataError(
            "MASK_MISMATCH",
            f"the truth has shape {truth.shape}, the prediction {predicted.shape}; expected one "
            f"class id for each pixel in both{_hint(truth.shape, predicted.shape)}",
        )
    if per_case and not truth.ndim:
        raise ValueError("per_case needs a first axis of cases")
    if truth.dtype.kind not in "biu":
        raise CourseDataError("UNKNOWN_LABEL", f"the truth is {_no_ids(truth)}")
    if predicted.dtype.kind not in "biu":
        raise ValueError(
            f"the prediction is {_no_ids(predicted)}; of logits or probabilities take argmax(-1), "
            "or a threshold"
        )
    counts = truth != ignore if ignore is not None else np.ones(truth.shape, bool)
    if strange := _ids(truth[counts], classes):
        expected = limits.expected_ids(classes, ignore)
        raise CourseDataError("UNKNOWN_LABEL", f"the truth has ids {strange}; expected {expected}")
    if strange := _ids(predicted[counts], classes):
        raise ValueError(f"predictions are class ids from 0 to {classes - 1}, not {strange}")
    cases = len(truth) if per_case else 1
    case = np.arange(cases).reshape([-1, *[1] * (truth.ndim - 1)]) if per_case else 0
    cells = (case * classes + truth.astype(np.int64)) * classes + predicted.astype(np.int64)
    matrices = np.bincount(cells[counts], minlength=cases * classes**2)
    return matrices.reshape([cases, classes, classes] if per_case else [classes, classes])


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class: TP / (TP + FP + FN), Jaccard's index.

        iou(confusion(truth, predicted, 2))                      # of a set
        dice(confusion(truth, predicted, 2, per_case=True))      # of each case

    Args:
        matrix: of `confusion`, `[..., classes, classes]`, or a sum of such matrices.

    Returns:
        float64 `[..., classes]`. NaN for a class that is in neither mask, so `np.nanmean` is the
        mIoU.
    """
    both, pixels = _counts(matrix)
    return _ratio(both, pixels - both)


def dice(matrix: np.ndarray) -> np.ndarray:
    """Dice coefficient of each class: 2 TP / (2 TP + FP + FN), the F1 score of its pixels.

    Args:
        matrix: as for `iou`.

    Returns:
        float64 `[..., classes]`. NaN for a class that is in neither mask; 0 for one that is in the
        prediction only.
    """
    both, pixels = _counts(matrix)
    return _ratio(2 * both, pixels)


def _hint(truth: tuple[int, ...], predicted: tuple[int, ...]) -> str:
    """What to do about two shapes, where they tell."""
    if truth == (*predicted, 1):
        return "; take mask[..., 0]"
    if predicted == (*truth, 1):
        return "; take predicted[..., 0]"
    if predicted[:-1] == truth or truth == (*predicted[:-1], 1):
        return "; take logits.argmax(-1)"
    return ""


def _no_ids(found: np.ndarray) -> str:
    """What to say about an array that is not of whole numbers."""
    return (
        f"of the type {found.dtype}; class ids are whole numbers: of such ids as floats, take "
        ".astype(np.uint8)"
    )


def _ids(found: np.ndarray, classes: int) -> str:
    """Those ids that are no class, at most five of them."""
    return listed(np.unique(found[(found < 0) | (found >= classes)]).tolist(), most=5)


def _counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels right in each class, and pixels of truth and of prediction added up."""
    matrix = np.asarray(matrix, np.float64)
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1) + matrix.sum(-2)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN for 0 / 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
