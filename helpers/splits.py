"""Splits by patient: every image of a person on one side, every class on each.

cases = splits.split(found.cases, {"train": 0.8, "test": 0.2}, seed=7)
splits.check(cases)      # what `records.write` does before it writes
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path

import numpy as np

from helpers.cases import Case
from helpers.errors import need
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

        splits.split(cases, {"train": 0.8, "test": 0.2}, seed=7)

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

    Taught in: writing TFRecords, imbalanced classification
    """
    names, shares = list(fractions), np.array(list(fractions.values()), float)
    if not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and sum to 1, not {shares.tolist()}")
    cases = tuple(cases)
    _check_names(cases)
    patients = defaultdict(list)
    for case in cases:
        patients[case.person].append(case)
    people = sorted(patients)
    found = f"{len(people)} patients for {len(names)} splits, expected one each at least"
    need(len(people) >= len(names), "DATA_LIST", found)
    counts, strata = _classes([patients[one] for one in people], len(names))
    sizes = _sizes(len(people), shares)
    random = np.random.RandomState(seed)
    draws = [_draw(strata, sizes, random) for _ in range(DRAWS)]
    best = min(draws, key=lambda where: _unevenness(where, counts, shares))
    chosen = {one: names[number] for one, number in zip(people, best, strict=True)}
    return tuple(dataclasses.replace(case, split=chosen[case.person]) for case in cases)


def check(cases: Iterable[Case]) -> None:
    """Refuse cases of one patient in two splits, and cases with one name.

        splits.check(found.cases)

    Raises:
        CourseDataError: `PATIENT_IN_TWO_SPLITS` or `SAME_CASE`, with the files at fault.

    Taught in: writing TFRecords
    """
    cases = tuple(cases)
    _check_names(cases)
    places = defaultdict(set)
    for case in cases:
        places[case.person].add(case.split)
    torn = [case for case in cases if len(places[case.person]) > 1]
    found = f"{len({case.person for case in torn})} of {len(places)} patients, with {len(torn)} "
    found += "cases, stand in more than one split"
    need(not torn, "PATIENT_IN_TWO_SPLITS", found, *files(torn))


def files(cases: Iterable[Case]) -> list[Path]:
    """The files of cases, each once, for a message."""
    return list(dict.fromkeys(file for case in cases for file in case.files))


def _check_names(cases: tuple[Case, ...]) -> None:
    times = Counter(case.name for case in cases)
    twice = [case for case in cases if times[case.name] > 1]
    found = f"{len(twice)} of {len(cases)} cases share their name with another"
    need(not twice, "SAME_CASE", found, *files(twice))


def _classes(patients: list[list[Case]], splits: int) -> tuple[np.ndarray, np.ndarray]:
    """How many cases of each class a patient has, `[patient, class]`, and each one's stratum.

    The last column counts all cases. A stratum is the patient's rarest class, or -1 where there
    is none, or too few patients have it to be in each split.
    """
    found = [Counter(one for case in cases for one in _labels(case)) for cases in patients]
    having = Counter(one for counter in found for one in counter)
    order = sorted(having, key=lambda one: (having[one], one))  # rarest first
    counts = np.array([[counter[one] for one in (*order, "all")] for counter in found])
    counts[:, -1] = [len(cases) for cases in patients]
    strata = (counts > 0).argmax(axis=1)
    few = np.bincount(strata)[strata] < splits
    strata[few | (strata == len(order))] = -1
    return counts, strata


def _labels(case: Case) -> list[tuple[int, int]]:
    """The classes of a case that are known: which label of several, and its id.

    Both are counted downwards: of classes that are equally rare, the highest comes first.
    """
    labels = case.label if isinstance(case.label, tuple) else (case.label,)
    known = [(which, one) for which, one in enumerate(labels) if one not in (None, MISSING)]
    sound = all(isinstance(one, Integral) for _, one in known)
    need(sound, "UNKNOWN_LABEL", "labels that are no class ids from 0", *case.files)
    return [(-which, -one) for which, one in known]


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

    where, rest = np.full(len(strata), len(sizes) - 1), np.arange(len(strata))
    for number, size in enumerate(sizes[:-1]):
        # scikit-learn wants two of each stratum, and room for one of each on both sides.
        room = min(size, len(rest) - size)
        common = [one for one, n in Counter(strata[rest].tolist()).most_common(room) if n > 1]
        groups = np.where(np.isin(strata[rest], common), strata[rest], common[:1] or -1)
        stratify = groups if len(common) > 1 else None
        options = {"random_state": random, "stratify": stratify}
        taken, rest = train_test_split(rest, train_size=int(size), **options)
        where[taken] = number
    for stratum in np.unique(strata[strata >= 0]):
        for number in range(len(sizes)):
            _spread(where, strata, stratum, number)
    return where


def _spread(where: np.ndarray, strata: np.ndarray, stratum: int, number: int) -> None:
    """Give a split that has nobody of a stratum, as a draw may by rounding, one in exchange."""
    held = np.bincount(where[strata == stratum], minlength=number + 1)
    if held[number]:
        return
    giver = held.argmax()
    moved = np.flatnonzero((strata == stratum) & (where == giver))[0]
    here = np.flatnonzero(where == number)
    often = Counter(strata[here].tolist())
    spare = [one for one in here if strata[one] < 0 or often[strata[one]] > 1]
    where[moved] = number
    where[spare[:1]] = giver  # where nobody can be spared, the split grows


def _unevenness(where: np.ndarray, counts: np.ndarray, shares: np.ndarray) -> float:
    """How far the cases are from the fractions, summed over splits, classes and all cases."""
    held = np.array([counts[where == number].sum(0) for number in range(len(shares))])
    return float(np.abs(held / counts.sum(0) - shares[:, None]).sum())
