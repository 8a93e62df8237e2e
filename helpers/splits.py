"""Splits by patient: every image of a person on one side, every class on each.

cases = splits.split(found.cases, {"train": 0.8, "test": 0.2}, seed=7)
splits.check(cases)      # what `records.write` does before it writes
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.cases import Case
from helpers.errors import need
from helpers.labels import MISSING

DRAWS = 50  # candidates, of which the most even one is taken
EVERY = (-1, -1)  # stands for all cases where the others are classes


def split(cases: Sequence[Case], fractions: dict[str, float], *, seed: int = 0) -> tuple[Case, ...]:
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
        CourseDataError: `DATA_LIST` for fewer patients than splits.

    Taught in: writing TFRecords, imbalanced classification
    """
    names, shares = list(fractions), np.array(list(fractions.values()), float)
    if not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and sum to 1, not {shares.tolist()}")
    people = sorted({case.person for case in cases})
    need(len(people) >= len(names), "DATA_LIST", f"{len(people)} patients for {len(names)} splits")
    sizes = _sizes(len(people), shares)
    counts, strata = _classes(cases, people, len(names))
    rng = np.random.RandomState(seed)
    draws = [_draw(strata, sizes, rng) for _ in range(DRAWS)]
    best = min(draws, key=lambda where: _unevenness(where, counts, shares))
    chosen = dict(zip(people, best, strict=True))
    return tuple(dataclasses.replace(case, split=names[chosen[case.person]]) for case in cases)


def check(cases: Sequence[Case]) -> None:
    """Refuse cases of one patient in two splits, and cases with one name.

        splits.check(found.cases)

    Args:
        cases: with their `split` set.

    Raises:
        CourseDataError: `PATIENT_IN_TWO_SPLITS` or `SAME_CASE`, with the files at fault.

    Taught in: writing TFRecords
    """
    times = Counter(case.name for case in cases)
    twice = [case for case in cases if times[case.name] > 1]
    need(not twice, "SAME_CASE", f"{len(twice)} cases share their name with another", *files(twice))
    splits = Counter(person for person, _ in {(case.person, case.split) for case in cases})
    torn = [case for case in cases if splits[case.person] > 1]
    found = f"{len(torn)} of {len(cases)} cases are of patients that stand in more than one split"
    need(not torn, "PATIENT_IN_TWO_SPLITS", found, *files(torn))


def files(cases: Sequence[Case]) -> list[Path]:
    """The files of `cases`, each once, for a message.

    >>> same = files([Case("a", None, (Path("a.png"),)), Case("b", None, (Path("a.png"),))])
    >>> [file.name for file in same]
    ['a.png']

    Taught in: no lesson; the converter uses it
    """
    return list(dict.fromkeys(file for case in cases for file in case.files))


def _classes(cases: Sequence[Case], people: list, splits: int) -> tuple[np.ndarray, np.ndarray]:
    """How many cases of each class a patient has, `[patient, class]`, and each one's stratum.

    The class that fewest patients have comes first, of equals the highest; the last column counts
    all cases. A stratum is the patient's rarest class, or -1 where there is none, or too few
    patients have it to be in each split.
    """
    times = Counter()
    for case in cases:
        labels = enumerate(np.ravel(case.label))
        known = [(which, one) for which, one in labels if one not in (None, MISSING)]
        times.update((case.person, one) for one in (*known, EVERY))
    having = Counter(one for _, one in times)
    order = sorted(sorted(having, reverse=True), key=having.get)
    counts = np.array([[times[person, one] for one in order] for person in people])
    strata = (counts > 0).argmax(axis=1)
    few = np.bincount(strata)[strata] < splits
    strata[few | (strata == len(order) - 1)] = -1
    return counts, strata


def _sizes(patients: int, shares: np.ndarray) -> list[int]:
    """How many patients each split gets: the nearest whole numbers, none of them 0."""
    wanted = shares * patients
    sizes = np.maximum(1, np.floor(wanted)).astype(int)
    while sizes.sum() < patients:
        sizes[np.argmax(wanted - sizes)] += 1
    while sizes.sum() > patients:
        sizes[np.argmin(np.where(sizes > 1, wanted - sizes, np.inf))] -= 1
    return sizes.tolist()


def _draw(strata: np.ndarray, sizes: list[int], rng: np.random.RandomState) -> np.ndarray:
    """The number of a split for each patient."""
    from sklearn.model_selection import train_test_split

    rest = np.arange(len(strata))
    where = np.full(len(strata), len(sizes) - 1)
    for number, size in enumerate(sizes[:-1]):
        # scikit-learn wants two of each stratum, and room for one of each on both sides.
        groups = strata[rest].tolist()
        largest = Counter(groups).most_common(min(size, len(rest) - size))
        common = [one for one, count in largest if count > 1]
        groups = [one if one in common else common[0] for one in groups] if common[1:] else None
        taken, rest = train_test_split(rest, train_size=size, random_state=rng, stratify=groups)
        where[taken] = number
    for stratum in np.unique(strata[strata >= 0]):
        for number in range(len(sizes)):
            _spread(where, strata, stratum, number)
    return where


def _spread(where: np.ndarray, strata: np.ndarray, stratum: int, number: int) -> None:
    """Give a split that has nobody of a stratum, as a draw may by rounding, one in exchange."""
    held = np.bincount(where[strata == stratum], minlength=number + 1)
    if held[number] == 0:
        giver = held.argmax()
        moved = np.flatnonzero((strata == stratum) & (where == giver))[0]
        here = np.flatnonzero(where == number)
        often = Counter(strata[here])
        spare = [one for one in here if strata[one] < 0 or often[strata[one]] > 1]
        where[moved] = number
        where[spare[:1]] = giver  # where nobody can be spared, the split grows


def _unevenness(where: np.ndarray, counts: np.ndarray, shares: np.ndarray) -> float:
    """How far the cases are from the fractions, summed over splits, classes and all cases."""
    held = np.array([counts[where == number].sum(0) for number in range(len(shares))])
    return float(np.abs(held / counts.sum(0) - shares[:, None]).sum())
