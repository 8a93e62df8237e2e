"""Lists of labels, one or several of each case, and which of them are known."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np

from helpers.errors import CourseDataError
from helpers.labels import MISSING


def columns_of(labels: Sequence) -> list[np.ndarray]:
    """The labels of many cases, as one vector for each label with an entry for each case.

    Args:
        labels: of each case a class id, a class name, or a vector of ids; floats if they are whole
            numbers or NaN, as pandas has ids that are not all known.

    Raises:
        CourseDataError: `UNKNOWN_LABEL` for cases with unequal numbers of labels.
        ValueError: for anything else, and for ids and names side by side.
    """
    try:
        array = np.asarray(labels)
    except ValueError:
        raise CourseDataError(
            "UNKNOWN_LABEL",
            "cases have unequal numbers of labels; expected the same number for all, and "
            f"{MISSING} where one is not known",
        ) from None
    if array.dtype.kind == "f":  # pandas makes floats of ids where some are not known
        ids = np.where(np.isnan(array), MISSING, array)
        array = ids.astype(np.int64) if (ids == np.round(ids)).all() else array
    if array.ndim not in (1, 2) or array.shape[-1] == 0 or array.dtype.kind not in "biuUSO":
        raise ValueError(
            f"a label is a class id, a name, or a vector of ids, not {array.dtype} of shape "
            f"{array.shape[1:]}"
        )
    if array.dtype.kind in "USO":
        array = np.array(labels, object)  # as they are: NaN beside names would be called "nan"
        if len({isinstance(one, Integral) for one in array.flat if _is_known(one)}) > 1:
            raise ValueError("labels are either class ids or names; found both")
    return [array] if array.ndim == 1 else list(array.T)


def known(column: np.ndarray) -> np.ndarray:
    """Which cases have this label: no negative id, no empty name, no "-1", no None or NaN.

    Args:
        column: `[n]`, as `columns_of` gives it.

    Returns:
        bool `[n]`.
    """
    if column.dtype.kind in "biu":
        return column >= 0
    return np.array([_is_known(one) for one in column], bool)


def _is_known(label: object) -> bool:
    if isinstance(label, Integral):
        return int(label) >= 0
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    return isinstance(label, str) and label not in ("", str(MISSING))
