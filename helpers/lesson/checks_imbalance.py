"""Checks of notebook 05: what is set up before a model is trained: patients, class weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from helpers.lesson.verdicts import VerdictError, ask, ask_array, close, few, judged, wrong

TRIALS = 20
TOLERANCE = 0.1  # of all patients, by which a test set may be larger or smaller than asked for


@judged
def patient_split(answer: Callable) -> str:
    """Notebook 05: `answer(patients, labels, share, seed)` is bool `[n]`, True in the test set.

    `patients` names the patient of each slice, str `[n]`; `labels` is 0 or 1, `[n]`. Whole
    patients are drawn, about `share` of them, so that both sides have positives and negatives; by
    the seed alone, whatever the order of the slices.
    """
    rng = np.random.default_rng(59)
    for trial in range(TRIALS):
        patients, labels, share = _slices(rng, trial)
        seeds = rng.choice(1000, 3, replace=False).tolist()
        splits = [_sides(answer, patients, labels, share, seed) for seed in seeds]
        for test in splits:
            _judge_sides(test, patients, labels, share)
        if (_sides(answer, patients, labels, share, seeds[0]) != splits[0]).any():
            raise wrong("the same seed gives another split the second time: give it to every draw")
        order = rng.permutation(len(patients))
        again = _sides(answer, patients[order], labels[order], share, seeds[0])
        if (again != splits[0][order]).any():
            raise wrong(
                "the same slices in another order give another split, and folders are listed in "
                "another order elsewhere: begin with np.unique(patients), which sorts the names"
            )
        if all((test == splits[0]).all() for test in splits):
            raise wrong(f"the seeds {few(seeds)} all give the same split: draw by the seed")
    return (
        f"right on {TRIALS} sets that the check made up, with three seeds each: no patient on both "
        "sides, both classes on each, even where one patient has most of the slices"
    )


def _slices(rng: np.random.Generator, trial: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Slices of few positive patients; in every third set one patient has 60 % of the slices."""
    share = (0.25, 0.3, 0.2)[trial % 3]
    people = int(rng.integers(36, 61))
    # So few that a draw which does not look at the labels often leaves a side without any, and
    # enough for the rounding of a stratified one.
    positive = math.ceil(1 / share) + 1
    slices = rng.integers(4, 10, people)
    if trial % 3 == 2:
        slices[-1] = 1.5 * slices[:-1].sum()
    person = np.repeat(np.arange(people), slices)
    number = np.concatenate([np.arange(n) for n in slices])
    labels = ((person < positive) & (number <= person % 3)).astype(int)
    patients = np.array([f"P{n}" for n in rng.permutation(people) + 1])[person]
    order = rng.permutation(len(person)) if trial % 2 else np.argsort(patients, kind="stable")
    return patients[order], labels[order], share


def _sides(answer: Callable, patients, labels, share: float, seed: int) -> np.ndarray:
    result = ask(answer, patients, labels, share, seed)
    asked = f"True or False is asked for, for each of the {len(patients)} slices"
    if isinstance(result, tuple):
        raise wrong(f"{asked}; you returned a tuple of {len(result)}")
    try:
        test = np.asarray(list(result))
    except (TypeError, ValueError):
        raise wrong(f"{asked}; you returned {result!r:.60}") from None
    if test.dtype.kind in "US":
        raise wrong(f"{asked}; these are names: np.isin(patients, ...) makes one of the other")
    if test.shape == np.unique(patients).shape and test.dtype == bool:
        raise wrong(f"{asked}; you returned one for each patient: look up each slice's patient")
    if test.shape != patients.shape:
        hint = ", as indices have it" if test.dtype.kind in "iu" else ""
        raise wrong(f"{asked}; your result has shape {test.shape}{hint}")
    if test.dtype != bool:
        raise wrong(
            f"{asked}; yours are {test.dtype}: as an index 0 and 1 would take slices 0 and 1"
        )
    return test


def _judge_sides(test: np.ndarray, patients, labels, share: float) -> None:
    names, person, slices = np.unique(patients, return_inverse=True, return_counts=True)
    people, inside = len(names), np.bincount(person, test)
    if torn := int(((inside > 0) & (inside < slices)).sum()):
        raise wrong(
            f"{torn} of {people} patients have slices on both sides{_by_slice(test, labels, share)}"
            ": draw patients, then look up the side of each slice"
        )
    count, slack = int((inside > 0).sum()), max(1, TOLERANCE * people)
    said = f"{count} of {people} patients are in the test set, asked for is a share of {share:g}"
    if abs(count - share * people) > slack:
        if slices.max() > len(test) / 2:
            raise wrong(
                f"{said}; one patient has {slices.max()} of the {len(test)} slices, so that a "
                "share of the slices is not one of the patients"
            )
        if 0 < count < people and abs(people - count - share * people) <= slack:
            raise wrong(f"{said}: is this the training set? True marks the test set")
        raise wrong(said)
    for side, name in ((test, "test"), (~test, "training")):
        for label, kind in enumerate(("negative", "positive")):
            if not (labels[side] == label).any():
                having = len(np.unique(patients[labels == label]))
                raise wrong(
                    f"the {name} set has no {kind} slice, which {having} of {people} patients "
                    "have: draw from these and from the others apart (stratify)"
                )


def _by_slice(test: np.ndarray, labels: np.ndarray, share: float) -> str:
    """How slices seem to have been drawn, if that can be told."""
    steps = np.unique(np.diff(np.flatnonzero(test)))
    if len(steps) == 1 and steps[0] > 1:
        return f"; you take one slice in {steps[0]}, and the next ones are of the same patient"
    if abs(test[labels == 1].sum() - share * labels.sum()) < 1:
        return "; the classes are in proportion, but that does not keep patients together"
    return ""


@judged
def class_weights(answer: Callable) -> str:
    """Notebook 05: `answer(labels, classes)` is N / (K n) for each class, 0 for one without a case.

    `labels` are ids from 0, int `[N]`, `classes` is how many ids there are, n a class's number of
    cases, and K the number of classes that have cases.
    """
    rng = np.random.default_rng(61)
    for trial in range(TRIALS):
        # Of three kinds: all classes have cases, the last or another one has none, one has one.
        classes = int(rng.integers(2 + trial % 2, 6))
        counts = rng.integers(3, 12, classes) * rng.integers(1, 30, classes) + np.arange(classes)
        odd = classes - 1 if trial == 1 else int(rng.integers(classes))
        counts[odd] = (counts[odd], 0, 1)[trial % 3] if classes > 2 else counts[odd]
        labels = rng.permutation(np.repeat(np.arange(classes), counts))
        found = _weights(answer, labels, counts)
        there = counts > 0
        expected = len(labels) / there.sum() / counts[there]
        if not close(found[there], expected):
            raise wrong(_misweighted(found[there], expected, counts))
        if found[~there].any():
            raise wrong(
                f"class {odd} of {classes} has no case and the weight {found[odd]:.4g}; asked for "
                "is 0.0"
            )
    return (
        f"right on {TRIALS} sets of labels that the check made up, some of them with a class of "
        "one case or of none"
    )


def _weights(answer: Callable, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    try:
        with np.errstate(all="ignore"):  # np.where divides by zero too, and is right in the end
            return ask_array(answer, labels, len(counts), shape=counts.shape)
    except VerdictError as verdict:
        line, hint = verdict.line, ""
        if not counts.all() and line.startswith("✗"):
            hint = f": class {counts.argmin()} of {len(counts)} has no case, its weight is 0.0"
        if f"shape {labels.shape}" in line:
            hint = ": return one for each class, not for each case"
        if "you returned {" in line:
            line, hint = line.partition(",")[0], "; a dict is what fit(class_weight=) takes"
        raise VerdictError(line[0], line[2:] + hint) from None


def _misweighted(found: np.ndarray, expected: np.ndarray, counts: np.ndarray) -> str:
    """What is wrong with the weights of the classes that have cases."""
    given, there = f"for classes of {few(counts)} cases you returned {few(found)}", counts > 0
    cases, total, known = counts[there], counts.sum(), int(there.sum())
    mean = (found * cases).sum() / total
    average = f"a case weighs {mean:.3g} on average, asked for is 1"
    named = {
        "1 / n": (1 / cases, f"{average}, and the learning rate would shrink with it"),
        "N / n": (total / cases, f"{average}: divide by the number of classes, too"),
        "the largest n / n": (cases.max() / cases, average),
        "1 - n / N": (1 - cases / total, "twice as rare should weigh twice as much"),
        "n / N": (cases / total, "the rare classes should weigh most"),
        "the square root": (np.sqrt(expected), "asked for is N / (K n) itself"),
        "N / (K n), scaled to sum 1": (expected / expected.sum(), average),
        "N / (K n), scaled to sum K": (expected / expected.mean(), average),
        f"N / (K n) with K = {len(counts)}": (
            expected * known / len(counts),
            f"but {known} classes have cases, and the others take no part",
        ),
    }
    for name, (values, why) in named.items():
        if close(found, values):
            return f"{given}: that is {name}; {why}"
    if close(found / expected, found[0] / expected[0]):
        return f"{given}: in the right proportions, but {average}"
    return f"{given}; N / (K n) is {few(expected)}"
