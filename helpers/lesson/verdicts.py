"""What every check of an exercise has in common: it calls an answer and says in a line how it is.

    ✎  not attempted yet
    ✗  what is wrong with the answer
    ✓  what it was right on

With the environment variable `COURSE_CHECKS=strict`, as in the tests of the course, anything but ✓
also raises an `AssertionError`.
"""

from __future__ import annotations

import copy
import functools
import os
import re
from collections.abc import Callable

import numpy as np

STUB = "replace the ... with your code, and return the result"


class VerdictError(Exception):
    """Ends a judgement: the answer is missing or wrong."""

    def __init__(self, symbol: str, message: str) -> None:
        self.line = f"{symbol} {message}"
        super().__init__(self.line)


def judged(judge: Callable) -> Callable:
    """Turn `judge(answer)`, which returns praise or raises, into a check that prints."""

    @functools.wraps(judge)
    def check(answer: Callable) -> None:
        try:
            line = f"✓ {judge(answer)}"
        except VerdictError as verdict:
            line = verdict.line
        print(line)
        if os.environ.get("COURSE_CHECKS") == "strict" and not line.startswith("✓"):
            raise AssertionError(line)

    return check


def wrong(message: str) -> VerdictError:
    """The verdict on a wrong answer, to be raised."""
    return VerdictError("✗", message)


def ask(answer: Callable, *arguments):
    """Call the answer on copies; a missing answer, an error or a changed input ends the check."""
    given = copy.deepcopy(arguments)
    try:
        result = answer(*given)
    except Exception as error:  # whatever a learner's code may raise
        raise wrong(f"your code raises {type(error).__name__}: {error}") from error
    if result is None or result is ...:
        raise VerdictError("✎", f"not attempted yet: {STUB}")
    for before, after in zip(arguments, given, strict=True):
        if isinstance(before, np.ndarray) and not _same(before, after):
            raise wrong("your code changes the array that it is given; work on a copy")
    return result


def _same(before: np.ndarray, after: np.ndarray) -> bool:
    # NumPy looks for NaN in numbers only; in names it raises.
    return np.array_equal(before, after, equal_nan=before.dtype.kind in "fc")


def ask_array(answer: Callable, *arguments, shape: tuple[int, ...]) -> np.ndarray:
    """Call the answer; anything but an array of finite numbers of this shape ends the check."""
    result = ask(answer, *arguments)
    try:
        values = np.asarray(result, np.float64)
    except (TypeError, ValueError):
        raise wrong(f"an array of numbers is asked for, you returned {result!r:.60}") from None
    if values.shape != shape:
        raise wrong(f"your result has shape {values.shape}, the check asks for {shape}")
    if not np.isfinite(values).all():
        raise wrong("your result holds NaN or infinite values")
    return values


def mapped(answer: Callable, given, read: Callable, said: str = ""):
    """What an answer makes of image and mask inside `Dataset.map`, as it will be used.

    Args:
        answer: gives a tuple of image and mask.
        given: a `tf.data.Dataset` of its arguments.
        read: what to take of the mapped dataset.
        said: for which data, before what went wrong.
    """
    said = f"{said}: " if said else ""
    try:
        dataset = given.map(answer)
    except Exception as error:  # whatever tracing a learner's code may raise
        raise wrong(
            f"{said}it works on one pair, but Dataset.map raises {cause(error)}; map has no values "
            "yet when it calls your function: use TensorFlow's operations"
        ) from error
    specs = dataset.element_spec
    if not (isinstance(specs, tuple) and [_kind(spec) for spec in specs] == ["a tensor"] * 2):
        raise wrong(
            f"{said}in Dataset.map it returns {_kind(specs)}; asked for is a tuple of two tensors, "
            "image and mask, there as everywhere"
        )
    for name, spec in zip(("image", "mask"), specs, strict=True):
        if spec.shape.rank is None:
            raise wrong(
                f"in Dataset.map the {name} has lost its number of axes: use TensorFlow's own "
                "operations, or state the shape (tf.ensure_shape)"
            )
    try:
        return read(dataset)
    except Exception as error:
        raise wrong(f"{said}reading the mapped dataset raises {cause(error)}") from error


def _kind(spec) -> str:
    """What an element of a dataset is, by its specification."""
    import tensorflow as tf

    if isinstance(spec, tf.TensorSpec):
        return "a tensor"
    if isinstance(spec, tuple):
        return f"a tuple of {len(spec)} ({', '.join(map(_kind, spec))})"
    return f"a {'dict' if isinstance(spec, dict) else type(spec).__name__}"


def few(values, most: int = 5, form: str = ".4g") -> str:
    """The first numbers of a list, to be shown."""
    shown = ", ".join(f"{value:{form}}" for value in values[:most])
    return f"{shown}, ..." if len(values) > most else shown


def close(value, expected, relative: float = 1e-3) -> bool:
    """Whether an answer is as good as the expected one, to rounding."""
    return bool(np.allclose(value, expected, rtol=relative, atol=1e-9))


def cause(error: Exception | str) -> str:
    """The telling line of one of TensorFlow's long messages."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    named = re.findall(r"^\s*(\w+(?:Error|Exception): .*)", text, re.M)
    line = (named[-1] if named else text).split("\n")[0]
    return re.sub(r"\{\{.*?\}\} ?|\[Op:.*", "", line).strip()[:200]
