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
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

STUB = "not attempted yet: replace the ... with your code, and return the result"
NEAR = 0.8  # how like a known mistake an answer has to be, where that is measured
NEARLY = 0.9  # how like errors are that differ in numbers alone
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
    attempted(answer)
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


def attempted(answer: Callable) -> None:
    """Raise `Missing` for a function that has nothing in it but dots."""
    code = getattr(answer, "__code__", None)
    if code is None or {*code.co_consts} - {None, ..., answer.__doc__}:
        return
    if all(one.opname in EMPTY for one in dis.get_instructions(code)):
        raise Missing(STUB)


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
    frame = r"\{\{.*?\}\} ?|\[Op:.*|Error in user-defined function .*? iterator: \S+ "
    return re.sub(frame, "", line).strip()[:200]


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Nothing that a library writes there, in whatever language, is seen meanwhile."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


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
        rights = [self.call(self.right, *one) for one in trials]
        wanted, found = (self.outcomes(one, trials, rights) for one in (self.right, answer))
        bad = [n for n in range(len(trials)) if self.likeness(found[n], wanted[n]) < 1]
        if not bad:
            return f"right on {len(trials)} cases that the check made up"
        for what, change in self.cures.items():
            cured = [change(*one) for one in trials]
            pairs = zip(self.outcomes(answer, cured, rights), wanted, strict=True)
            if all(self.likeness(*pair) == 1 for pair in pairs):
                raise Wrong(what)
        first = next((n for n in bad if found[n].failed), bad[0])
        said = found[first].failed
        said = said or differs(self.tell(*trials[first]), found[first].result, rights[first])
        with without_stderr():  # TensorFlow has its own words for each of them
            made = {k: self.outcomes(one, trials, rights) for k, one in self.mistakes.items()}
        reason = self.reason(found, wanted, made, bad)
        if not reason and not found[first].failed and not finite(found[first].result):
            said = "your result holds NaN or infinite values"
        raise Wrong(f"{reason} ({said})" if reason else said)

    def outcomes(self, answer: Callable, trials: list, rights: list) -> list[Outcome]:
        """What an answer makes of each case."""
        return [self.outcome(answer, *both) for both in zip(trials, rights, strict=True)]

    def outcome(self, answer: Callable, given: tuple, right) -> Outcome:
        try:
            result = self.call(answer, *given)
            usable(result, right)
            return Outcome(result, self.read(result, *given))
        except Missing:
            raise
        except Wrong as wrong:
            return Outcome(failed=str(wrong))

    def likeness(self, one: Outcome, other: Outcome, near: Callable | None = None) -> float:
        """1 where two do the same or fail with the same words; nearly 1 with other numbers."""
        if not (one.failed or other.failed):
            return float((near or self.same)(one.counts, other.counts))
        plain = [re.sub(r"\d+", "", outcome.failed) for outcome in (one, other)]
        return 1.0 if one.failed == other.failed else NEARLY * (plain[0] == plain[1])

    def reason(self, found: list, wanted: list, made: Mapping[str, list], bad: list[int]) -> str:
        """The mistake that does the same wherever the answer is wrong, and most often else."""
        scores = {}
        right = np.mean([self.likeness(found[n], wanted[n], self.near) for n in bad])
        for what, outcomes in made.items():
            hits = [self.likeness(*pair, self.near) for pair in zip(found, outcomes, strict=True)]
            there = [hits[n] for n in bad]
            enough = np.mean(there) >= NEAR if self.near else min(there) >= NEARLY
            if enough and np.mean(there) > right:
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


def mapped(answer: Callable, given, said: str = ""):
    """A dataset of an answer's arguments, mapped by it, as it will be used.

    Args:
        answer: of an exercise.
        given: a `tf.data.Dataset` of its arguments.
        said: for which data, before what went wrong.
    """
    attempted(answer)
    try:
        return given.map(answer)
    except Exception as error:  # whatever tracing a learner's code may raise
        raise Wrong(
            f"{said}Dataset.map raises {cause(error)}; it has no values yet when it calls your "
            "function: use TensorFlow's operations"
        ) from error


def taken(dataset, take: Callable, said: str = ""):
    """What `take` takes of a mapped dataset."""
    try:
        return take(dataset)
    except Exception as error:
        raise Wrong(f"{said}reading the mapped dataset raises {cause(error)}") from error


def ranked(name: str, spec) -> None:
    """Refuse a tensor that has lost its number of axes."""
    if spec.shape.rank is None:
        raise Wrong(
            f"in Dataset.map the {name} has lost its number of axes: use TensorFlow's own "
            "operations, or state the shape (tf.ensure_shape)"
        )


def mapped_pairs(answer: Callable, given, take: Callable, said: str = ""):
    """What to take of image and mask that an answer makes in `Dataset.map`."""
    dataset = mapped(answer, given, said)
    specs = dataset.element_spec
    if not (isinstance(specs, tuple) and [kind(spec) for spec in specs] == ["a tensor"] * 2):
        raise Wrong(
            f"{said}in Dataset.map it returns {kind(specs)}; asked for is a tuple of two tensors, "
            "image and mask, there as everywhere"
        )
    for name, spec in zip(("image", "mask"), specs, strict=True):
        ranked(name, spec)
    return taken(dataset, take, said)


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
