"""What every evaluation is given: labels of 0 and 1, a score for each, whose case it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helpers.errors import CourseDataError, listed


def pair(
    labels: Sequence, scores: Sequence, *, both: bool = True, probabilities: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Labels as int64 and scores as float64, both `[n]`, or an error that says what is wrong.

    Args:
        labels, scores: as given by the caller.
        both: refuse labels of one class only.
        probabilities: refuse scores outside of 0 to 1.
    """
    labels, scores = binary(labels), np.asarray(scores)
    if scores.shape != labels.shape:
        # [n] against [n, 1] would broadcast to [n, n], and give a number.
        hint = "; take scores[:, 0]" if scores.shape == (len(labels), 1) else ""
        raise ValueError(
            f"scores have the shape {scores.shape}, expected one for each label: "
            f"{labels.shape}{hint}"
        )
    scores = scores.astype(np.float64)
    if len(wrong := np.flatnonzero(~np.isfinite(scores))):
        raise ValueError(
            f"{places(wrong, len(scores))} have a score that is NaN or infinite; a model that "
            "diverged makes such ones"
        )
    if probabilities:
        refuse_improbable(scores)
    if both:
        refuse_one_class(labels)
    return labels, scores


def binary(labels: Sequence) -> np.ndarray:
    """Labels as int64 `[n]`, all of them 0 or 1."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels have the shape {labels.shape}, expected [n]: take one label")
    if not len(labels):
        raise CourseDataError("EMPTY_LIST", "there is no case to evaluate; expected one or more")
    if labels.dtype.kind not in "biuf":  # "1" is not 1
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"labels are of the type {labels.dtype}; expected the numbers 0 and 1: say which class "
            'is positive, for instance labels == "malignant"',
        )
    if len(wrong := np.flatnonzero(~np.isin(labels, (0, 1)))):
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"{places(wrong, len(labels))} have a label other than 0 and 1; make it one of these, "
            "or leave out the cases whose label is not known",
        )
    return labels.astype(np.int64)


def groups(groups: Sequence, count: int, what: str = "groups") -> tuple[np.ndarray, np.ndarray]:
    """The groups in ascending order, and the number of that of each case."""
    groups = np.asarray(groups)
    if groups.shape != (count,):
        raise ValueError(f"{what} have the shape {groups.shape}, expected one a case: ({count},)")
    nameless = [n for n, one in enumerate(groups.tolist()) if one in ("", b"", None) or one != one]
    if nameless:
        raise ValueError(f"{places(nameless, count)} have no name among the {what}")
    return np.unique(groups, return_inverse=True)


def refuse_one_class(labels: np.ndarray) -> None:
    """Both classes have to be there."""
    for kind, name in ((1, "positive"), (0, "negative")):
        if not (labels == kind).any():
            raise CourseDataError(
                "EMPTY_CLASS",
                f"not one of {len(labels)} cases is {name} (label {kind}); expected both classes: "
                "take more patients, or split so that each part gets some of both",
            )


def refuse_improbable(probabilities: np.ndarray) -> None:
    """Numbers from 0 to 1, NaN refused as well."""
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(
            "probabilities lie between 0 and 1; these go from "
            f"{probabilities.min():.3g} to {probabilities.max():.3g}; logits become probabilities "
            "by a sigmoid"
        )


def refuse_level(level: float) -> None:
    """The share of an interval."""
    if not 0 < level < 1:
        raise ValueError(f"a level lies above 0 and below 1, not {level}")


def places(wrong: Sequence[int], count: int) -> str:
    """The begin of a message: how many cases, and at which positions."""
    at = listed([int(one) for one in wrong])
    return f"{len(wrong)} of {count} cases, at the positions {at} counted from 0,"
