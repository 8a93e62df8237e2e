"""Splits of sets as they come: rare classes, labels that are missing, names in place of numbers.

The laws of `splits.split` are tested in test_datalist.py.
"""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from helpers import sources_pictures, splits
from helpers.cases import Case
from helpers.errors import CourseDataError

TWO = {"train": 0.75, "test": 0.25}


def made(patients: dict[str, list]) -> list[Case]:
    return [
        Case(f"{who} {n}", None, patient=who, label=label)
        for who, labels in patients.items()
        for n, label in enumerate(labels)
    ]


def sides(cases, label) -> set[str]:
    return {case.split for case in cases if case.label == label}


def test_a_patient_with_both_labels_counts_as_positive_and_stays_whole():
    # Every positive slice has negative ones beside it; eight such patients, 6 and 2 by hand.
    patients = {f"P{k:02d}": [1, 0, 0] if k < 8 else [0] * 3 for k in range(40)}
    for seed in range(5):
        found = splits.split(made(patients), TWO, seed=seed)
        assert Counter(case.split for case in found if case.label == 1) == {"train": 6, "test": 2}
        assert len({(case.patient, case.split) for case in found}) == 40


@pytest.mark.parametrize("slices", [1, 7])
def test_a_class_of_one_patient_is_in_one_split(slices):
    patients = {f"P{k}": [0] * 3 for k in range(12)} | {"alone": [2] * slices}
    found = splits.split(made(patients), TWO, seed=3)
    assert len(sides(found, 2)) == 1
    assert sides(found, 0) == {"train", "test"}


def test_a_class_without_a_case_changes_nothing():
    # Ids 0 and 5 are split as 0 and 1 are: nobody asks for what lies between.
    apart = made({f"P{k}": [5 * (k % 4 == 0)] for k in range(40)})
    beside = [dataclasses.replace(case, label=case.label // 5) for case in apart]
    found = [[case.split for case in splits.split(some, TWO, seed=1)] for some in (apart, beside)]
    assert found[0] == found[1]


def test_a_label_that_is_not_known_is_no_class_of_its_own():
    # Were -1 a class, it would be the rarest: one of its two patients would have to be in each
    # split, and one of the other two positive ones as well.
    patients = {f"P{k:02d}": [int(k < 4), -1 if k < 2 else 0] for k in range(40)}
    unknown = made(patients)
    nothing = [dataclasses.replace(one, label=None) if one.label == -1 else one for one in unknown]
    for seed in range(3):
        found = splits.split(unknown, TWO, seed=seed)
        assert Counter(case.split for case in found if case.label == 1) == {"train": 3, "test": 1}
        assert [case.split for case in splits.split(nothing, TWO, seed=seed)] == [
            case.split for case in found
        ]
    several = made({f"P{k:02d}": [(int(k < 4), -1 if k % 2 else 0)] for k in range(16)})
    found = splits.split(several, TWO, seed=0)
    positive = Counter(case.split for case in found if case.label[0] == 1)
    assert positive == {"train": 3, "test": 1}


@pytest.mark.parametrize("label", ["malignant", ("benign", 0), 0.5], ids=str)
def test_labels_that_are_no_class_ids_are_refused_with_what_to_do(label):
    with pytest.raises(CourseDataError, match="number the classes from 0") as error:
        splits.split([Case(f"{k}", None, label=label) for k in range(9)], TWO)
    assert error.value.code == "UNKNOWN_LABEL"


def test_ids_of_numpy_are_class_ids():
    cases = made({f"P{k}": [np.int32(k % 2)] for k in range(12)})
    assert sides(splits.split(cases, TWO), 1) == {"train", "test"}


def test_a_csv_that_names_its_classes_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    table = tmp_path / "labels.csv"
    table.write_text("file,patient,label\na.png,P1,malignant\n", encoding="utf-8")
    with pytest.raises(CourseDataError) as error:
        sources_pictures.find(tmp_path / "images", patients=table)
    assert error.value.code == "UNKNOWN_LABEL"
    assert error.value.message == (
        "row 2: expected a class id, 0 or more, in the column label; number the classes"
    )
    assert [file.name for file in error.value.files] == ["labels.csv"]
