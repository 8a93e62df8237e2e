"""Feedback on exercises: an answer is compared with a right one and with known mistakes.

    organ_ml = check(right, cases, {"that is a number of voxels": mistake, ...})

A check prints one line: ✎ not attempted yet, ✗ what is wrong, or ✓. It returns the answer if that
is right, and the course's own otherwise, so that a lesson can go on with it. With
COURSE_CHECKS=strict, as in the course's tests, anything but ✓ raises an `AssertionError`.
"""

from __future__ import annotations

import contextlib
import copy
import dis
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

STUB = "not attempted yet: replace the ... with your code, and return the result"
NEAR = 0.8  # how like a known mistake has to be
# What is left of a function of which only the dots are there.
EMPTY = {"RESUME", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE", "NOP", "CACHE"}


class Wrong(Exception):  # noqa: N818 - a verdict, not a failure of the course
    """The verdict on an answer: what is wrong with it."""

    mark = "✗"


class Missing(Wrong):
    """The verdict on a stub that nobody has touched."""

    mark = "✎"


def ask(answer: Callable, *arguments):
    """Call an answer on copies; no result, an error or a changed input ends the check."""
    if untouched(answer):
        raise Missing(STUB)
    given = copy.deepcopy(arguments)
    printed = io.StringIO()
    try:
        with np.errstate(all="ignore"), contextlib.redirect_stdout(printed):
            result = answer(*given)
    except Exception as error:  # whatever a learner's code may raise
        raise Wrong(f"your code raises {cause(error)}") from error
    finally:
        print(printed.getvalue(), end="")
    if result is None or result is ...:
        if printed.getvalue():
            raise Wrong("your code prints its result, and returns None: return it")
        raise Wrong(f"your code returns {result}: is there a branch without return?")
    for before, after in zip(arguments, given, strict=True):
        if isinstance(before, np.ndarray) and not alike(after, before, 0):
            raise Wrong("your code changes the array that it is given; work on a copy")
    return result


def untouched(answer: Callable) -> bool:
    """Whether a function has nothing in it but dots."""
    code = getattr(answer, "__code__", None)
    if code is None or {*code.co_consts} - {None, ..., answer.__doc__}:
        return False
    return all(one.opname in EMPTY for one in dis.get_instructions(code))


def usable(result, wanted) -> None:
    """Where numbers are asked for: whether there are any, in the right shape."""
    if isinstance(wanted, list):  # of any length
        return
    wanted = array(wanted)
    if wanted is None or wanted.dtype.kind not in "biuf":
        return
    found = array(result)
    if found is None or found.dtype.kind not in "biuf":
        kind = "an array of numbers" if wanted.shape else "a number"
        raise Wrong(f"{kind} is asked for, you returned a {type(result).__name__}")
    if found.shape != wanted.shape:
        raise Wrong(f"your result has shape {found.shape}, asked for is {wanted.shape}")


def finite(result) -> bool:
    """Whether a result holds no NaN and nothing infinite."""
    values = array(result)
    return values is None or values.dtype.kind not in "f" or bool(np.isfinite(values).all())


def array(result) -> np.ndarray | None:
    """A result as an array; None if it is none."""
    try:
        return np.asarray(result)
    except (TypeError, ValueError):  # a list of parts that do not fit together
        return None


def alike(found, wanted, tolerance: float = 1e-3) -> bool:
    """Whether two results are equal to rounding, shapes included; NaN is NaN."""
    found, wanted = array(found), array(wanted)
    if found is None or wanted is None or found.shape != wanted.shape:
        return False
    if {found.dtype.kind, wanted.dtype.kind} <= set("biuf"):
        return np.allclose(found, wanted, tolerance, 1e-3 * tolerance, equal_nan=True)
    return np.array_equal(found, wanted)


def differs(case: str, found, wanted) -> str:
    """The first of several numbers that is another one, or the whole results."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.dtype.kind not in "biuf":
        return f"for {case}"
    if np.array_equal(found, wanted, equal_nan=True):
        names = found.dtype.name, wanted.dtype.name
        names = names if len({*names}) > 1 else (found.dtype.str, wanted.dtype.str)
        return f"for {case} yours is {names[0]}, {names[1]} is asked for"
    if found.ndim and found.shape == wanted.shape and wanted.size > 4:
        other = ~np.isclose(found, wanted, 1e-3, 1e-6, True)
        at = tuple(map(int, np.argwhere(other if other.any() else found != wanted)[0]))
        place = at[0] if len(at) == 1 else at
        return f"for {case} you have {found[at]:.6g} at {place}, it is {wanted[at]:.6g}"
    return f"for {case} you returned {short(found)}, it is {short(wanted)}"


def short(value) -> str:
    """A number or a few of them, to be shown."""
    value = np.asarray(value)
    if value.dtype.kind == "f":
        return np.array2string(value, precision=6, separator=", ", threshold=8)
    return f"{value.tolist()!r:.80}"


def brief(*case) -> str:
    """A case in words: small arrays by their values, large ones by shape and dtype."""
    return ", ".join(
        f"{one.dtype.name} of shape {one.shape}" if np.size(one) > 8 else f"{short(one)}"
        for one in map(np.asarray, case)
    )


def cause(error: Exception) -> str:
    """The telling line of one of TensorFlow's long messages."""
    text = f"{type(error).__name__}: {error}"
    named = re.findall(r"^\s*(\w+(?:Error|Exception): .*)", text, re.M)
    line = (named[-1] if named else text).split("\n")[0]
    return re.sub(r"\{\{.*?\}\} ?|\[Op:.*", "", line).strip()[:200]


@dataclass(frozen=True, eq=False)
class Check:
    """A check by a judge of its own.

    Args:
        judge: `judge(answer)` returns what the answer was right on, or raises `Wrong`.
        right: the course's own answer.
        mistakes: what people get wrong -> an answer that is wrong in that way, or a remark.
    """

    judge: Callable
    right: Callable
    mistakes: Mapping[str, Callable | str]

    def __call__(self, answer: Callable) -> Callable:
        try:
            line, chosen = f"✓ {self.judge(answer)}", answer
        except Wrong as wrong:
            line, chosen = f"{wrong.mark} {wrong}", self.right
        print(line)
        if os.environ.get("COURSE_CHECKS") == "strict" and chosen is not answer:
            raise AssertionError(line)
        return chosen


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an answer makes of a case: its result and what counts of it, or how it failed."""

    result: object = None
    counts: object = None
    failed: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Judges an answer by what it makes of cases.

    Args:
        right, cases, mistakes: see `check`.
        same: whether what counts of a result is as good as that of another.
        near: how like it is to another, 0 to 1, where a mistake can be made in several ways.
        read: what counts of a result, given the case; may raise `Wrong`.
        call: gives a case to an answer.
        tell: a case in words.
        cures: what is wrong -> a change of a case after which such an answer is right.
    """

    right: Callable
    cases: Callable
    mistakes: Mapping[str, Callable]
    same: Callable = alike
    near: Callable | None = None
    read: Callable = lambda result, *case: result
    call: Callable = ask
    tell: Callable = brief
    cures: Mapping[str, Callable] = field(default_factory=dict)

    def judge(self, answer: Callable) -> str:
        """What the answer was right on; else `Wrong`."""
        trials = list(self.cases(np.random.default_rng(7)))
        found = self.outcomes(answer, trials)
        wanted = self.outcomes(self.right, trials)
        bad = [n for n in range(len(trials)) if self.likeness(found[n], wanted[n]) < 1]
        if not bad:
            return f"right on {len(trials)} cases that the check made up"
        for what, change in self.cures.items():
            cured = [change(*one) for one in trials]
            pairs = zip(self.outcomes(answer, cured), wanted, strict=True)
            if all(self.likeness(*pair) == 1 for pair in pairs):
                raise Wrong(what)
        first = next((n for n in bad if found[n].failed), bad[0])
        said = found[first].failed
        said = said or differs(self.tell(*trials[first]), found[first].result, wanted[first].result)
        reason = self.reason(found, wanted, trials, bad)
        if not reason and not found[first].failed and not finite(found[first].result):
            said = "your result holds NaN or infinite values"
        raise Wrong(f"{reason} ({said})" if reason else said)

    def outcomes(self, answer: Callable, trials: list) -> list[Outcome]:
        """What an answer makes of each case."""
        return [self.outcome(answer, given) for given in trials]

    def outcome(self, answer: Callable, given: tuple) -> Outcome:
        try:
            result = self.call(answer, *given)
            usable(result, self.call(self.right, *given))
            return Outcome(result, self.read(result, *given))
        except Missing:
            raise
        except Wrong as wrong:
            return Outcome(failed=str(wrong))

    def likeness(self, one: Outcome, other: Outcome, near: Callable | None = None) -> float:
        """1 where two do the same, or fail in the same way."""
        if one.failed or other.failed:
            return float(one.failed == other.failed)
        return float((near or self.same)(one.counts, other.counts))

    def reason(self, found: list, wanted: list, trials: list, bad: list[int]) -> str:
        """The mistake that does the same wherever the answer is wrong, and most often else."""
        scores = {}
        right = np.mean([self.likeness(found[n], wanted[n], self.near) for n in bad])
        for what, mistake in self.mistakes.items():
            made = self.outcomes(mistake, trials)
            hits = [self.likeness(*pair, self.near) for pair in zip(found, made, strict=True)]
            share = np.mean([hits[n] for n in bad])
            if share > right and share >= (NEAR if self.near else 1):
                scores[what] = sum(hits)
        return max(scores, key=scores.get, default="")


def check(right: Callable, cases: Callable, mistakes: Mapping[str, Callable], **options) -> Check:
    """A check against `right`; what is wrong is said by the mistake that does the same.

    Args:
        right: a right answer.
        cases: takes a `numpy.random.Generator`, yields arguments; the first should be simple, for
            it is quoted first.
        mistakes: what is wrong -> an answer that is wrong in that way, or fails in that way.
        options: of `Comparison`.
    """
    return Check(Comparison(right, cases, mistakes, **options).judge, right, mistakes)


def mapped(answer: Callable, given, read: Callable, said: str = ""):
    """What an answer makes of image and mask inside `Dataset.map`, as it will be used.

    Args:
        answer: gives a tuple of image and mask.
        given: a `tf.data.Dataset` of its arguments.
        read: what to take of the mapped dataset.
        said: for which data, before what went wrong.
    """
    try:
        dataset = given.map(answer)
    except Exception as error:  # whatever tracing a learner's code may raise
        raise Wrong(
            f"{said}it works on one pair, but Dataset.map raises {cause(error)}; map has no values "
            "yet when it calls your function: use TensorFlow's operations"
        ) from error
    specs = dataset.element_spec
    if not (isinstance(specs, tuple) and [kind(spec) for spec in specs] == ["a tensor"] * 2):
        raise Wrong(
            f"{said}in Dataset.map it returns {kind(specs)}; asked for is a tuple of two tensors, "
            "image and mask, there as everywhere"
        )
    for name, spec in zip(("image", "mask"), specs, strict=True):
        if spec.shape.rank is None:
            raise Wrong(
                f"in Dataset.map the {name} has lost its number of axes: use TensorFlow's own "
                "operations, or state the shape (tf.ensure_shape)"
            )
    try:
        return read(dataset)
    except Exception as error:
        raise Wrong(f"{said}reading the mapped dataset raises {cause(error)}") from error


def kind(spec) -> str:
    """What an element of a dataset is, by its specification."""
    if isinstance(spec, tuple):
        return f"a tuple of {len(spec)} ({', '.join(map(kind, spec))})"
    name = type(spec).__name__
    return "a tensor" if name == "TensorSpec" else f"a {name}"


def pair(answer: Callable, *given, wanted: Mapping[str, str], why: Mapping[str, str]):
    """Image and mask that an answer makes of two tensors and one more; else `Wrong`.

    Args:
        answer: gives a tuple of image and mask.
        given: image, mask, and what else it takes.
        wanted: the names of the two -> their dtypes.
        why: the names of the two -> what to say of another dtype.
    """
    import tensorflow as tf

    result = ask(answer, *map(tf.constant, given))
    if not isinstance(result, tuple) or len(result) != 2:
        hint = "; Dataset.map packs a list into one tensor" if isinstance(result, list) else ""
        found = type(result).__name__
        raise Wrong(f"a tuple of two is asked for: return image, mask; found {found}{hint}")
    for (name, dtype), before, after in zip(wanted.items(), given, result, strict=False):
        if after is None or after is ...:
            raise Wrong(f"the {name} comes back as {after}: return image, mask")
        after = np.asarray(after)
        if after.shape != before.shape:
            raise Wrong(f"the {name} had shape {before.shape}, yours has {after.shape}")
        if after.dtype != dtype:
            raise Wrong(f"the {name} is to be {dtype}, yours is {after.dtype}: {why[name]}")
    return result
