"""Patients stay whole, classes are spread, and what stands on two sides is found."""

import dataclasses
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import splits
from helpers.cases import Case
from helpers.errors import CourseDataError

LAWFUL = settings(derandomize=True, deadline=None, max_examples=25)
TWO = {"train": 0.75, "test": 0.25}
THREE = {"train": 0.7, "validation": 0.15, "test": 0.15}


def made(patients: dict[str, list]) -> list[Case]:
    """A case for each label of each patient."""
    listed = [(who, n, label) for who, labels in patients.items() for n, label in enumerate(labels)]
    return [Case(f"{who}/{n}", None, patient=who, label=label) for who, n, label in listed]


def positive(cases) -> Counter:
    """How many cases of each split have label 1."""
    return Counter(case.split for case in cases if case.label == 1)


labels = st.none() | st.integers(-1, 3) | st.tuples(st.integers(0, 1), st.integers(-1, 2))
names = st.text("abcdefgh", min_size=1, max_size=3)
sets = st.dictionaries(names, st.lists(labels, min_size=1, max_size=5), min_size=3)
shares = st.sampled_from([THREE, TWO, {"a": 0.98, "b": 0.01, "c": 0.01}, {"all of it": 1.0}])


def rarest(patients: dict[str, list]) -> dict[str, tuple | None]:
    """The class of each patient that fewest patients have, worked out the slow way."""
    classes = defaultdict(set)
    for patient, known in patients.items():
        for label in known:
            several = enumerate(label if isinstance(label, tuple) else (label,))
            classes[patient] |= {pair for pair in several if pair[1] not in (None, -1)}
    having = Counter(pair for found in classes.values() for pair in found)
    key = {pair: (having[pair], -pair[0], -pair[1]) for pair in having}
    return {patient: min(found, key=key.get, default=None) for patient, found in classes.items()}


@LAWFUL
@given(sets, shares, st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_split_is_by_patient_with_each_class_on_each_side(patients, fractions, seed, random):
    cases = made(patients)
    found = splits.split(cases, fractions, seed=seed)
    assert [dataclasses.replace(case, split="all") for case in found] == cases
    sides = {(case.patient, case.split) for case in found}
    assert len(sides) == len(patients) and {split for _, split in sides} == set(fractions)
    order = random.sample(range(len(cases)), len(cases))  # which changes nothing
    again = splits.split([cases[n] for n in order], fractions, seed=seed)
    assert again == tuple(found[n] for n in order)
    splits.check(found)
    groups, where = defaultdict(list), dict(sides)
    for patient, label in rarest(patients).items():
        groups[label].append(patient)
    for label, members in groups.items():
        if label is not None and len(members) >= len(fractions):
            assert {where[patient] for patient in members} == set(fractions)


def test_classes_keep_their_share():
    sizes = {0: 1000, 1: 500, 2: 300, 3: 140, 4: 60}
    cases = [Case(f"{one} {k}", None, label=one) for one in sizes for k in range(sizes[one])]
    counts = Counter((case.split, case.label) for case in splits.split(cases, THREE, seed=1))
    assert all(abs(n - THREE[name] * sizes[one]) <= 2 for (name, one), n in counts.items())
    # Every positive slice has negative ones beside it; eight such patients, 6 and 2 by hand.
    patients = {f"P{k:02d}": [1, 0, 0] if k < 8 else [0] * 3 for k in range(40)}
    few = {f"P{k}": [int(k < 3), 0] for k in range(60)}
    for seed in range(3):
        found = splits.split(made(patients), TWO, seed=seed)
        assert positive(found) == {"train": 6, "test": 2}
        assert positive(splits.split(made(few), THREE, seed=seed)) == dict.fromkeys(THREE, 1)
    ten = splits.split(made({f"P{k}": [0] for k in range(10)}), THREE)
    ten = Counter(case.split for case in ten)
    assert ten == {"train": 7, "validation": 2, "test": 1}  # of 1.5 and 1.5, the first gets 2


def test_positives_are_spread_evenly_where_patients_have_1_to_15_slices():
    for seed in range(5):  # half of the slices of every sixth patient are positive
        random = np.random.default_rng(seed)
        ill = random.random(150) < 0.15
        slices = [random.random(random.integers(1, 16)) < 0.5 * one for one in ill]
        cases = made({f"P{k:04d}": one.astype(int).tolist() for k, one in enumerate(slices)})
        held = positive(splits.split(cases, THREE, seed=seed))
        assert max(abs(held[name] / held.total() - THREE[name]) for name in THREE) < 0.05


def test_seeds_differ_old_splits_go_and_nobody_is_taken_for_another():
    cases = made({f"{k}": [k % 2] for k in range(40)})
    cases = [dataclasses.replace(case, split="old") for case in cases]
    drawn = {
        tuple(case.split for case in splits.split(cases, THREE, seed=seed)) for seed in range(5)
    }
    assert len(drawn) == 5 and "old" not in set().union(*drawn)
    alone = [Case("A", None), Case("B", None), Case("C", None, patient="A")]
    assert len({case.split for case in splits.split(alone, dict.fromkeys("xyz", 1 / 3))}) == 3


def test_what_cannot_be_split_is_refused():
    for fractions in ({}, {"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}, {"a": np.nan}):
        with pytest.raises(ValueError, match="positive and sum to 1"):
            splits.split(made({"P": [0] * 9}), fractions)
    for patients in ({}, {"A": [0] * 9, "B": [1] * 9}):
        with pytest.raises(CourseDataError, match=f"{len(patients)} patients for 3 splits"):
            splits.split(made(patients), THREE)


def test_one_name_twice_and_one_patient_on_two_sides_are_refused_with_files_but_no_name():
    def case(name, patient, split, *files):
        return Case(name, None, tuple(map(Path, files)), patient, split)

    torn = [case("1", "Surname", "train", "a", "b"), case("2", "Surname", "test", "c")]
    torn.append(case("3", "Other", "test", "d"))
    twice = [case("Surname", f"P{k}", "train", f"{k}") for k in range(2)]
    twice.append(case("4", "", "train", "e"))
    for cases, code, words, files in (
        (torn, "PATIENT_IN_TWO_SPLITS", "2 of 3 cases are of patients", "a b c"),
        (twice, "SAME_CASE", "2 cases share their name", "0 1"),
    ):
        with pytest.raises(CourseDataError, match=words) as error:
            splits.check(cases)
        assert (error.value.code, " ".join(map(str, error.value.files))) == (code, files)
        assert "Surname" not in str(error.value)
    splits.check(torn[1:])
    splits.check([case("1", "", "train"), case("2", "", "test")])  # no patient: each its own
