"""From slices to patients: whose each record is, and one score for each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helpers.evaluation import inputs

HOW = ("max", "mean", "noisy_or")


def patients(cases: Sequence[str | bytes]) -> np.ndarray:
    """Whose record each one is: the first half of its `case`, see `cases.case_hash`.

    Args:
        cases: `[n]` salted hashes, as `records.index` and the elements have them.

    Returns:
        Strings `[n]`, equal for cases of one patient.

    Raises:
        ValueError: for what is no such hash.
    """
    names = [one.decode() if isinstance(one, bytes) else str(one) for one in cases]
    halves = [name.partition("-") for name in names]
    if wrong := [n for n, (person, _, case) in enumerate(halves) if not (person and case)]:
        raise ValueError(
            f"{inputs.places(wrong, len(names))} are no salted hashes of a patient and a case; "
            "expected two halves with a dash between them"
        )
    return np.array([person for person, _, _ in halves], dtype=str)


def by_patient(
    patients: Sequence, labels: Sequence, scores: Sequence, how: str = "max"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One label and one score for each patient, from those of the slices.

    A patient with one positive slice is positive. "max" and "noisy_or" grow with the number of
    slices even where all are negative, so compare patients with like numbers, or take "mean".

    Args:
        patients: whose each slice is, `[n]`: strings or numbers, for instance of `patients`.
        labels: 0 or 1, `[n]`.
        scores: `[n]`.
        how: "max", "mean", or "noisy_or": 1 - product of (1 - p), the probability of one positive
            slice at least if slices were independent (J. Pearl, 1988); it needs probabilities.

    Returns:
        Patients `[m]` in ascending order; their labels, int64 `[m]`; their scores, float64 `[m]`.

    Raises:
        CourseDataError: `EMPTY_LIST` or `UNKNOWN_LABEL`, as for `operating_point`. One class only
            is no error here.
        ValueError: for another `how`, lengths that differ, patients without a name, scores that
            are not finite, or that are no probabilities where these are needed.
    """
    if how not in HOW:
        raise ValueError(f"how can be {', '.join(HOW)}, not {how!r}")
    labels, scores = inputs.pair(labels, scores, both=False, probabilities=how == "noisy_or")
    people, group = inputs.groups(patients, len(labels), "patients")
    positive = np.zeros(len(people), np.int64)
    np.maximum.at(positive, group, labels)
    if how == "max":
        together = np.full(len(people), -np.inf)
        np.maximum.at(together, group, scores)
    elif how == "mean":
        together = np.bincount(group, scores) / np.bincount(group)
    else:
        with np.errstate(divide="ignore"):  # a slice of probability 1 settles it
            together = -np.expm1(np.bincount(group, np.log1p(-scores)))
    return people, positive, together
