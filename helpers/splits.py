"""Splits by patient: every image of a person on one side, every class on each.

cases = splits.split(cases, {"train": 0.8, "test": 0.2}, seed=7)
splits.check_splits(cases)      # what `records.write` does before it writes
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from numbers import Integral

import numpy as np

from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.labels import MISSING

FRACTIONS = {"train": 0.7, "validation": 0.15, "test": 0.15}
DRAWS = 50  # candidates, of which the most even one is taken


def split(
    cases: Iterable[Case], fractions: Mapping[str, float] = FRACTIONS, *, seed: int = 0
) -> tuple[Case, ...]:
    """Put each case into a split, all cases of a patient into the same one.

    Patients are stratified by the label that fewest patients have (of 0 and 1 usually the 1, so
    that a patient with one positive slice counts as positive), through scikit-learn's
    `train_test_split`. Of several such draws the one is taken in which cases, too, come closest
    to the fractions, in all and in each class.

    A class that is the rarest one of at least as many patients as there are splits appears in
    each split. Where there are fewer, those patients go wherever they fall: a class of a single
    patient is in one split, and the others are without it. A split too small for one patient of
    each class is drawn with the rarest classes taken together. A class without a case, and a label
    that is not known (-1 or None), changes nothing.

    Args:
        cases: in any order, which changes nothing.
        fractions: of each split, by name; positive, 1 in all. Each split gets a patient at least.
        seed: another seed gives another split.

    Returns:
        The cases in the order given, with `split` set.

    Raises:
        ValueError: if the fractions are not positive or do not sum to 1.
        CourseDataError: `SAME_CASE` for two cases with one name, `DATA_LIST` for fewer patients
            than splits, `UNKNOWN_LABEL` for labels that are no class ids, such as names.
    """
    names, shares = list(fractions), np.array(list(fractions.values()), float)
    if not (shares > 0).all() or not math.isclose(shares.sum(), 1, abs_tol=1e-6):
        raise ValueError(f"fractions must be positive and sum to 1, not {shares.tolist()}")
    cases = tuple(cases)
    _refuse_same_names(cases)
    patients = defaultdict(list)
    for case in cases:
        patients[person(case)].append(case)
    people = sorted(patients)
    if len(people) < len(names):
        raise CourseDataError(
            "DATA_LIST",
            f"{len(people)} patients for {len(names)} splits, expected one patient each at least; "
            "ask for fewer splits",
        )
    counts, strata = _classes([patients[person] for person in people], len(names))
    sizes = _sizes(len(people), shares)
    random = np.random.RandomState(seed)
    drawn = (_draw(strata, sizes, random) for _ in range(DRAWS))
    best = min(drawn, key=lambda where: _unevenness(where, counts, shares))
    chosen = {one: names[number] for one, number in zip(people, best, strict=True)}
    return tuple(dataclasses.replace(case, split=chosen[person(case)]) for case in cases)


def check_splits(cases: Iterable[Case]) -> None:
    """Refuse cases of one patient in two splits, and cases with one name.

    Raises:
        CourseDataError: `PATIENT_IN_TWO_SPLITS` or `SAME_CASE`, with the files at fault.
    """
    cases = tuple(cases)
    _refuse_same_names(cases)
    places = defaultdict(set)
    for case in cases:
        places[person(case)].add(case.split)
    wrong = [case for case in cases if len(places[person(case)]) > 1]
    if wrong:
        torn = len({person(case) for case in wrong})
        raise CourseDataError(
            "PATIENT_IN_TWO_SPLITS",
            f"{torn} of {len(places)} patients, with {len(wrong)} cases, stand in more than one "
            "split; expected each patient in one: split by patient (datalist.split)",
            [file for case in wrong for file in case.files],
        )


def person(case: Case) -> tuple[bool, str]:
    """Whom a case belongs to; without a patient it is one of its own."""
    return (True, case.patient) if case.patient else (False, case.name)


def _refuse_same_names(cases: tuple[Case, ...]) -> None:
    times = Counter(case.name for case in cases)
    twice = [case for case in cases if times[case.name] > 1]
    if twice:
        raise CourseDataError(
            "SAME_CASE",
            f"{len(twice)} of {len(cases)} cases share their name with another, expected a name "
            "for each; leave the copies out",
            [file for case in twice for file in case.files],
        )


def _classes(patients: list[list[Case]], splits: int) -> tuple[np.ndarray, np.ndarray]:
    """How many cases of each class a patient has, `[patient, class]`, and each one's stratum.

    The last column counts all cases. A stratum is a class, or -1 where a class has too few
    patients to be in each split.
    """
    found = [Counter(one for case in cases for one in _labels(case)) for cases in patients]
    having = Counter(one for counter in found for one in counter)
    # Rarest first; of two equally rare, the higher id.
    order = sorted(having, key=lambda one: (having[one], [-number for number in one]))
    counts = [[*(counter[one] for one in order), 0] for counter in found]
    counts = np.array(counts, float).reshape(len(patients), -1)
    counts[:, -1] = [len(cases) for cases in patients]
    strata = np.where(counts[:, :-1].any(1), (counts > 0).argmax(1), -1)
    few = [stratum for stratum, size in Counter(strata.tolist()).items() if size < splits]
    strata[np.isin(strata, few)] = -1
    return counts, strata


def _labels(case: Case) -> list[tuple[int, int]]:
    """The classes of a case that are known: which label of several, and its id."""
    if case.label is None:
        return []
    labels = case.label if isinstance(case.label, tuple) else (case.label,)
    if not all(isinstance(one, Integral) for one in labels):
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"a case has the label {case.label!r:.40}; expected a class id, or a tuple of them: "
            "number the classes from 0",
            case.files,
        )
    return [(which, one) for which, one in enumerate(labels) if one != MISSING]


def _sizes(patients: int, shares: np.ndarray) -> np.ndarray:
    """How many patients each split gets: the nearest whole numbers, none of them 0."""
    sizes = np.maximum(1, np.floor(shares * patients)).astype(int)
    while (missing := patients - sizes.sum()) != 0:
        lack = shares * patients - sizes
        lack[(sizes == 1) & (missing < 0)] = np.inf
        sizes[lack.argmax() if missing > 0 else lack.argmin()] += np.sign(missing)
    return sizes


def _draw(strata: np.ndarray, sizes: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """The number of a split for each patient."""
    from sklearn.model_selection import train_test_split

    where = np.full(len(strata), len(sizes) - 1)
    rest = np.arange(len(strata))
    for number, size in enumerate(sizes[:-1]):
        # scikit-learn wants two of each stratum, and room for one of each on both sides.
        room = min(size, len(rest) - size)
        common = [one for one, n in Counter(strata[rest].tolist()).most_common(room) if n > 1]
        groups = np.where(np.isin(strata[rest], common), strata[rest], common[:1] or -1)
        stratify = groups if len(common) > 1 else None
        taken, rest = train_test_split(
            rest, train_size=int(size), random_state=random, stratify=stratify
        )
        where[taken] = number
    _spread(where, strata, len(sizes))
    return where


def _spread(where: np.ndarray, strata: np.ndarray, splits: int) -> None:
    """Exchange patients until each stratum is in each split, which a draw may miss by rounding."""
    for stratum in np.unique(strata[strata >= 0]):
        for number in range(splits):
            held = np.bincount(where[strata == stratum], minlength=splits)
            if held[number]:
                continue
            giver = held.argmax()
            moved = np.flatnonzero((strata == stratum) & (where == giver))[0]
            here = np.flatnonzero(where == number)
            often = Counter(strata[here].tolist())
            spare = [one for one in here if strata[one] < 0 or often[strata[one]] > 1]
            where[moved] = number
            if spare:  # else the split grows by one patient
                where[spare[0]] = giver


def _unevenness(where: np.ndarray, counts: np.ndarray, shares: np.ndarray) -> float:
    """How far the cases are from the fractions, summed over splits, classes and all cases."""
    held = np.array([counts[where == number].sum(0) for number in range(len(shares))])
    return float(np.abs(held / counts.sum(0) - shares[:, None]).sum())
