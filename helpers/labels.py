"""Several labels of one case, as a model's heads need them: Clara's `label_format`.

    labels.outputs([1, 1, 1, 1, 1, 6, 6, 6, 6])          # 29: five binary, four of 6 classes
    dataset = dataset.apply(labels.heads([1, 1, 6]))     # label: {"binary": [2], "class_2": []}

A format has one whole number for each label: how many classes it has, and 1 for a label that is
yes or no. Binary labels share one head, for a sigmoid and binary cross-entropy; each of the others
has a head of its own, for a softmax and cross-entropy. Only `heads` needs TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np

from helpers.errors import CourseDataError

MISSING = -1  # a label that is not known; records and data lists have it so
BINARY = "binary"


def outputs(label_format: Sequence[int]) -> int:
    """How many numbers a model gives for one case: one a binary label, one a class of the others.

    Args:
        label_format: number of classes of each label, 1 for a binary one.

    Raises:
        ValueError: for a format that is empty, or has anything but whole numbers from 1.
    """
    return sum(_checked(label_format))


def check(label_format: Sequence[int], label: int | Sequence[int], where: str | Path = "") -> None:
    """Refuse a label that does not fit its format.

    Args:
        label_format: number of classes of each label, 1 for a binary one.
        label: of one case: a class id for each label, -1 where it is not known. A single number
            will do where there is one label.
        where: what to call the case in the message, for instance "item 7"; or its file.

    Raises:
        CourseDataError: `UNKNOWN_LABEL` for another number of labels, for ids out of range, and
            for what is no whole number.
        ValueError: for an impossible format.
    """
    sizes = _checked(label_format)
    values = np.atleast_1d(np.asarray(label, object)).tolist()
    name, files = (where.name, [where]) if isinstance(where, Path) else (where, [])
    begin = f"{name}: " if name else ""
    if len(values) != len(sizes):
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"{begin}found {len(values)} label(s), expected {len(sizes)}, as many as the format "
            f"has: {list(sizes)}; write {MISSING} for one that is not known",
            files,
        )
    for place, (value, size) in enumerate(zip(values, sizes, strict=True)):
        if not isinstance(value, Integral) or not MISSING <= value <= _largest(size):
            raise CourseDataError(
                "UNKNOWN_LABEL",
                f"{begin}label {place}, counted from 0, is {value!r}; expected a whole number from "
                f"0 to {_largest(size)}, or {MISSING} where it is not known",
                files,
            )


def heads(label_format: Sequence[int], *, num_parallel_calls: int = 2) -> Callable:
    """A stage that splits each element's `label` into what the heads of a model learn.

    `dataset.apply(labels.heads([1, 1, 6]))` makes of the label `[1, 0, 4]` the dict
    `{"binary": [1.0, 0.0], "class_2": 4}`. Keras takes such a dict where the model's outputs have
    these names: `binary` (2 logits) and `class_2` (6 logits).

    Args:
        label_format: number of classes of each label, 1 for a binary one.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage for elements and for batches of them: `label`, whole numbers `[..., labels]`, or
        `[]` where there is one label, becomes a dict. `binary`, if there are any, is float32
        `[..., binary labels]` in the order of the format; `class_N`, for a label at position N
        (from 0) that has classes, is int32 `[...]`. A label that is not known stays -1, in both: a
        loss has to leave it out, by a mask or a sample weight, because -1 is no class.

    Raises:
        CourseDataError: `UNKNOWN_LABEL` for another number of labels.
        ValueError: for elements without a `label`, and for an impossible format.
        tf.errors.InvalidArgumentError: while it runs, `UNKNOWN_LABEL` for an id out of range, with
            the case.
    """
    sizes = _checked(label_format)
    binary = [place for place, size in enumerate(sizes) if size == 1]
    largest = [_largest(size) for size in sizes]

    def stage(dataset):
        import tensorflow as tf

        from helpers import draws, elements

        _check_spec(dataset.element_spec, sizes)

        def split(element: dict) -> dict:
            label = tf.cast(element["label"], tf.int32)
            label = label[tf.newaxis] if label.shape.rank == 0 else label
            fits = tf.reduce_all((label >= MISSING) & (label <= largest))
            about = ["found the label", label, "expected at most", largest, "and from 0, or -1"]
            with tf.control_dependencies(
                elements.require(fits, "UNKNOWN_LABEL", about, element.get("case"))
            ):
                label = tf.identity(label)
            parts = {f"class_{n}": label[..., n] for n, size in enumerate(sizes) if size > 1}
            if binary:
                parts[BINARY] = tf.cast(tf.gather(label, binary, axis=-1), tf.float32)
            return element | {"label": parts}

        return draws.map_named(
            dataset, split, name="labels.heads", num_parallel_calls=num_parallel_calls
        )

    return stage


def columns(labels: Sequence) -> list[np.ndarray]:
    """The labels of many cases, as one vector for each label with an entry for each case.

    Args:
        labels: of each case a class id, a class name, or a vector of ids.

    Raises:
        CourseDataError: `UNKNOWN_LABEL` for cases with unequal numbers of labels.
        ValueError: for anything else.
    """
    try:
        array = np.asarray(labels)
    except ValueError:
        raise CourseDataError(
            "UNKNOWN_LABEL",
            "cases have unequal numbers of labels; expected the same number for all, and "
            f"{MISSING} where one is not known",
        ) from None
    if array.ndim not in (1, 2) or array.shape[-1] == 0 or array.dtype.kind not in "biuUSO":
        raise ValueError(
            f"a label is a class id, a name, or a vector of ids, not {array.dtype} of shape "
            f"{array.shape[1:]}"
        )
    return [array] if array.ndim == 1 else list(array.T)


def known(column: np.ndarray) -> np.ndarray:
    """Which cases have this label: no negative id, no empty name, no None or NaN.

    Args:
        column: `[n]`, as `columns` gives it.

    Returns:
        bool `[n]`.
    """
    if column.dtype.kind in "biu":
        return column >= 0
    ids = [one if isinstance(one, Integral) else 0 for one in column]
    named = [isinstance(one, (Integral, str, bytes)) and one not in ("", b"") for one in column]
    return np.array(named) & (np.array(ids) >= 0)


def _checked(label_format: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(label_format)
    if not sizes or not all(
        isinstance(size, Integral) and not isinstance(size, bool) and size >= 1 for size in sizes
    ):
        raise ValueError(
            "a label format has one whole number for each label: how many classes it has, 1 for "
            f"yes or no; found {label_format!r}"
        )
    return tuple(int(size) for size in sizes)


def _largest(size: int) -> int:
    """The largest id of a label with so many classes; binary ones have 0 and 1."""
    return max(size - 1, 1)


def _check_spec(spec, sizes: tuple[int, ...]) -> None:
    """Refuse elements whose label cannot have the format."""
    label = spec.get("label") if isinstance(spec, dict) else None
    if label is None or not hasattr(label, "dtype") or not label.dtype.is_integer:
        raise ValueError("elements are dicts with a `label` of whole numbers, one for each label")
    if label.shape.rank == 0 and len(sizes) == 1:
        return
    found = label.shape[-1] if label.shape.rank else 1
    if found != len(sizes):
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"elements have {'an unknown number of' if found is None else found} label(s), "
            f"expected {len(sizes)}, as the format says: {list(sizes)}",
        )
