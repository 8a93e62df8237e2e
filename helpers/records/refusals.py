"""What is refused before the first record is written, because every record would be wrong."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.records.schemas import IGNORE, SCHEMAS

SALT_LENGTH = 8
LARGEST_WEIGHT = 2.0**127


def check_arguments(
    schema: str,
    load: Callable,
    salt: str,
    names: dict[int, str] | None,
    survey: Callable | None,
    cases: Sequence[Case],
    here: bool,
) -> None:
    """Refuse what the caller cannot mean; `here` is True where no worker has to import `load`.

    Raises:
        ValueError: with what to pass instead.
    """
    if schema not in SCHEMAS:
        raise ValueError(f"schema can be {', '.join(SCHEMAS)}, not {schema!r}")
    if len(salt) < SALT_LENGTH:
        raise ValueError(f"a salt of less than {SALT_LENGTH} characters keeps no secret")
    for case in cases:
        labels = case.label if isinstance(case.label, tuple) else (case.label,)
        if case.label is not None and not all(type(one) is int for one in labels):
            raise ValueError("a label is an int, or a tuple of them: int(label), label.tolist()")
        # Readers give labels as int32, and records hold weights as float32.
        if case.label is not None and not all(-(2**31) <= one < 2**31 for one in labels):
            raise ValueError("a label is a class id that fits into int32")
        if case.weight is not None and not 0 <= float(case.weight) <= LARGEST_WEIGHT:
            raise ValueError("a weight is a finite number from 0, as float32 holds it")
    unlabelled = sum(case.label is None for case in cases)
    if names is None and (survey or unlabelled < len(cases)):
        raise ValueError("masks and labels need `classes`: what do the ids mean?")
    if schema == "deeplab" and survey is None:
        raise ValueError("this schema needs `survey`, to look at every mask before writing")
    if schema == "classification" and unlabelled:
        raise ValueError(f"{unlabelled} cases have no label, which this schema needs")
    for split in {case.split for case in cases}:
        if not re.fullmatch("[A-Za-z0-9_]+", split):
            raise ValueError("the name of a split has letters, digits and underscores only")
    function = load
    while isinstance(function, functools.partial):
        function = function.func
    if not here and getattr(function, "__module__", "__main__") == "__main__":
        raise ValueError(
            "worker processes import `load`, and cannot import it from a notebook or script: put "
            "it in a module, or pass workers=1"
        )


def check_labels(cases: Sequence[Case], names: dict[int, str] | None) -> None:
    """Refuse labels that nobody has named, of unequal lengths, or that are no ids.

    Where a case has several labels, -1 stands for one that is not known.

    Raises:
        CourseDataError: `UNKNOWN_LABEL`.
    """
    lengths, unknown, files = set(), set(), []
    for case in cases:
        if case.label is None:
            continue
        several = isinstance(case.label, tuple)
        lengths.add(len(case.label) if several else 1)
        allowed = {*names, -1} if several else set(names)
        wrong = {n for n in (case.label if several else (case.label,)) if n not in allowed}
        if wrong:
            unknown |= wrong
            files += case.files
    if unknown:
        raise _unknown_ids(unknown, names, files)
    if len(lengths) > 1 or 0 in lengths:
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"some cases have {min(lengths)} label(s) and some {max(lengths)}; expected the same "
            "number for all, at least one, and -1 where one is not known",
        )


def _unknown_ids(found: set[int], names: dict[int, str], files: list[Path]) -> CourseDataError:
    ignored = f"; {IGNORE} is the id that DeepLab ignores" if IGNORE in found else ""
    return CourseDataError(
        "UNKNOWN_LABEL",
        f"found the ids {sorted(found)[:10]}, the classes are {sorted(names)}{ignored}. Name them "
        "as classes, or say what each stored id becomes (a mapping, for instance 0=0,255=1). "
        "Nothing was written",
        files,
    )


def check_masks(asked: Iterable[tuple[Case, frozenset[int]]], names: dict[int, str]) -> None:
    """Refuse ids that nobody has named, over all masks, before the first record is written.

    Args:
        asked: each case with the ids in its mask.
        names: class names by id; also of an id that is to be ignored.

    Raises:
        CourseDataError: `UNKNOWN_LABEL`.
    """
    unknown, cases = set(), []
    for case, ids in asked:
        if wrong := set(ids) - set(names):
            unknown |= wrong
            cases.append(case.files)
    if unknown:  # workers answer in any order
        raise _unknown_ids(unknown, names, [file for files in sorted(cases) for file in files])


def ids_of(survey: Callable, case: Case) -> frozenset[int]:
    """The ids in a case's mask; none if the mask cannot be read, for reading it will say why."""
    try:
        return survey(case)
    except CourseDataError as error:
        if error.code == "UNKNOWN_LABEL":
            raise
        return frozenset()
    except OSError:
        return frozenset()
