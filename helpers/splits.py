"""Splits by patient: every image of a person on one side, every class on each.

cases = splits.split(found.cases, {"train": 0.8, "test": 0.2}, seed=7)
splits.check(cases)      # what `records.write` does before it writes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from helpers.cases import MISSING, Case
from helpers.errors import need

DRAWS = 50  # candidates, of which the most even one is taken


def split(cases: Sequence[Case], fractions: dict[str, float], *, seed: int = 0) -> tuple[Case, ...]:
    """Put each case into a split, all cases of a patient into the same one.

    Patients are stratified by the label that fewest patients have (of 0 and 1 usually the 1, so
    that a patient with one positive slice counts as positive), through scikit-learn's
    `train_test_split`. Of several such draws the one is taken in which cases, too, come closest
    to the fractions, in all and in each class.

    A class that is the rarest one of at least as many patients as there are splits appears in
    each split, which may hold one patient more for it. Where there are fewer, those patients go
    wherever they fall: a class of a single patient is in one split, and the others are without it.
    A split too small for one patient of each class is drawn with the rarest classes taken together.
    A class without a case, and a label that is not known (-1 or None), changes nothing.

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
    names = list(fractions)
    shares = np.array(list(fractions.values()), float)
    if not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and sum to 1, not {shares.tolist()}")
    people = sorted({case.person for case in cases})
    need(len(people) >= len(names), "DATA_LIST", f"{len(people)} patients for {len(names)} splits")
    counts = _counts(cases)
    strata = (counts > 0).argmax(axis=1)
    strata[np.bincount(strata)[strata] < len(names)] = -1  # too few to be in each
    sizes = _sizes(len(people), shares)
    rng = np.random.RandomState(seed)
    draws = [_draw(strata, sizes, rng) for _ in range(DRAWS)]

    def unevenness(places):
        """How far cases are from the fractions, summed over splits, classes and all cases."""
        held = np.eye(len(names))[places].T @ counts
        return np.abs(held / counts.sum(axis=0) - shares[:, np.newaxis]).sum()

    chosen = dict(zip(people, min(draws, key=unevenness), strict=True))
    return tuple(replace(case, split=names[chosen[case.person]]) for case in cases)


def check(cases: Sequence[Case]) -> None:
    """Refuse cases of one patient in two splits, and cases with one name.

        splits.check(found.cases)

    Args:
        cases: with their `split` set.

    Raises:
        CourseDataError: `PATIENT_IN_TWO_SPLITS` or `SAME_CASE`, with the files at fault.

    Taught in: writing TFRecords
    """
    names = Counter(case.name for case in cases)
    twice = [case for case in cases if names[case.name] > 1]
    refuse(twice, "SAME_CASE", f"{len(twice)} cases share their name with another")
    sides = Counter(person for person, _ in {(case.person, case.split) for case in cases})
    torn = [case for case in cases if sides[case.person] > 1]
    found = f"{len(torn)} of {len(cases)} cases are of patients that stand in more than one split"
    refuse(torn, "PATIENT_IN_TWO_SPLITS", found)


def refuse(cases: Sequence[Case], code: str, found: str) -> None:
    """Refuse `cases`, if there are any, by the `code` and what was `found`, with their files.

        refuse(torn, "PATIENT_IN_TWO_SPLITS", f"{len(torn)} cases stand in two splits")

    Raises:
        CourseDataError: with that code; each file is named once.

    Taught in: no lesson; `leaks` uses it
    """
    files = dict.fromkeys(file for case in cases for file in case.files)
    need(not cases, code, found, *files)


def _counts(cases: Sequence[Case]) -> np.ndarray:
    """How many cases of each class a patient has, `[patient, class]`.

    The class that fewest patients have comes first, of equals the highest; the last counts all.
    """
    import pandas as pd

    several = [dict(enumerate(np.ravel(case.label))) for case in cases]
    labels = pd.DataFrame(several, dtype=object).replace(MISSING, None)
    classes = pd.get_dummies(labels, columns=labels.columns)
    classes.insert(0, "all", True)
    people = sorted({case.person for case in cases})
    # By number: pandas 2.2 compares text only up to the NUL that is in these names.
    number = {person: n for n, person in enumerate(people)}
    rows = [number[case.person] for case in cases]
    counts = classes.groupby(rows).sum()
    patients = counts.gt(0).sum()[::-1]
    return counts[patients.sort_values(kind="stable").index].to_numpy()


def _sizes(patients: int, shares: np.ndarray) -> list[int]:
    """How many patients each split gets: the nearest whole numbers, none of them 0."""
    sizes = np.ones(len(shares), int)
    while sizes.sum() < patients:
        sizes[np.argmax(shares * patients - sizes)] += 1
    return sizes.tolist()


def _draw(strata, sizes, rng) -> np.ndarray:
    """The number of a split for each patient."""
    from sklearn.model_selection import train_test_split

    rest = np.arange(len(strata))
    places = np.full(len(strata), len(sizes) - 1)
    for number, size in enumerate(sizes[:-1]):
        # scikit-learn wants two of each stratum, and room for one of each on both sides.
        groups = strata[rest]
        room = min(size, len(rest) - size)
        common = [one for one, times in Counter(groups).most_common(room) if times > 1]
        like = None
        if len(common) > 1:
            like = np.where(np.isin(groups, common), groups, common[0])
        taken, rest = train_test_split(rest, train_size=size, random_state=rng, stratify=like)
        places[taken] = number
    for stratum in {*strata} - {-1}:
        # A draw may leave a split without the stratum, by rounding: one moves there.
        members = np.flatnonzero(strata == stratum)
        for number in {*range(len(sizes))} - {*places[members]}:
            fullest = np.bincount(places[members]).argmax()
            places[members[places[members] == fullest][0]] = number
    return places
