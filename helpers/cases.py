"""What is to become a record: cases, and the files that cannot be one, each with its reason."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers.errors import listed, need

MISSING = -1  # a label that is not known: records and data lists have it so
SAME = {number: number for number in range(256)}  # the class ids that a mask can hold


@dataclass(frozen=True)
class Case:
    """One record to be: where its pixels come from and what is known of them.

    Nothing of this is written but `split`, `label`, `weight` and a salted hash of `patient` and
    `name`: these two, the source and the files lead to a person, so they stay out of what is
    printed.

    Args:
        name: unique within the set, for instance the image's path below the set's folder.
        source: what the loader needs to read the case; it travels to worker processes.
        files: every input file that goes into the case.
        patient: all images of a person share it; the splits and the hash are made from it.
            Empty means that the case is a patient of its own.
        split: "train", "validation", "test" or a name of your own; "all" where nothing is split.
        label: class id, or one id for each of several labels; None if there is none.
        weight: probability weight for sampling, as in a data list; None if there is none.
        size: an upper bound for the record's size in bytes, 0 if unknown.

    Taught in: writing TFRecords
    """

    name: str = field(repr=False)
    source: object = field(repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)
    patient: str = field(default="", repr=False)
    split: str = "all"
    label: int | tuple[int, ...] | None = None
    weight: float | None = None
    size: int = 0

    @property
    def person(self) -> str:
        """Whom the case belongs to; without a patient it is one of its own."""
        return f"patient\0{self.patient}" if self.patient else f"alone\0{self.name}"


@dataclass(frozen=True)
class Rejection:
    """Input files that became no record, and why: `code` is a key of `errors.CODES`.

    `reason` may quote what was found in the files, so only the code is ever written or printed
    without being asked for.

    Taught in: writing TFRecords
    """

    files: tuple[Path, ...] = field(repr=False)
    code: str
    reason: str = field(repr=False)


@dataclass(frozen=True)
class Found:
    """What a source holds: each input file belongs to one case or to one rejection.

    Taught in: writing TFRecords
    """

    cases: tuple[Case, ...]
    rejected: tuple[Rejection, ...] = ()

    @property
    def files(self) -> int:
        """How many input files there are."""
        return sum(len(one.files) for one in (*self.cases, *self.rejected))


def files_below(folder: Path, *others: Path) -> tuple[list[Path], list[Path]]:
    """Every file below a `folder`, but not below the `others`; and what cannot be read there.

    Links to folders are followed; a folder that is reached twice is listed once.

        files, odd = files_below(Path("disc"))

    Returns:
        Files; and folders that cannot be listed, pipes, devices and links to nowhere: opening a
        pipe would wait for ever. Both are sorted.

    Taught in: no lesson; `dicom.scan` and `pictures.find` use it
    """
    failed = []
    names = []
    seen = set(map(os.path.realpath, others))
    for root, folders, inside in os.walk(folder, onerror=failed.append, followlinks=True):
        here = os.path.realpath(root)
        if here in seen:
            folders.clear()
        else:
            seen.add(here)
            names += [os.path.join(root, name) for name in inside]
    files = sorted(filter(os.path.isfile, names))
    odd = {*names, *(error.filename for error in failed)} - {*files}
    return list(map(Path, files)), list(map(Path, sorted(odd)))


def class_ids(stored: np.ndarray, mapping: Mapping | None, path: Path) -> np.ndarray:
    """The class ids of a mask, uint8, from the numbers that are stored in it.

    Args:
        stored: array of whole numbers, of any dtype and shape.
        mapping: class id for each stored number, `{0: 0, 255: 1}` for instance; it has to name
            every stored one. None keeps them.
        path: the mask's file, for the message.

    Raises:
        CourseDataError: `UNKNOWN_LABEL` for numbers that the mapping does not name, or that are,
            mapped, not whole or not in 0 to 255.

    >>> class_ids(np.array([0, 255, 0]), {0: 0, 255: 1}, Path("a.png"))
    array([0, 1, 0], dtype=uint8)

    Taught in: no lesson; `pictures` and `lists` use it
    """
    values = np.unique(stored).tolist()
    classes = mapping or SAME
    lost = [value for value in values if classes.get(value) not in SAME]
    need(not lost, "UNKNOWN_LABEL", f"ids without a class from 0 to 255: {listed(lost, 5)}", path)
    ids = stored.astype(np.uint8)
    for value in values if mapping else ():
        ids[stored == value] = mapping[value]
    return ids


def case_hash(salt: str, patient: str, name: str) -> str:
    """The name that a case has in its record: 16 hexadecimal digits, a dash, 8 more.

    The first part is the same for all cases of a patient, so that results can be summed up by
    patient. Without the salt, nobody can try names until one fits (HMAC, RFC 2104, with SHA-256).

    Args:
        salt: a secret; whoever has it can find out whether a known person is in the set.
        patient: as in `Case`; if empty, the case counts as a patient of its own.
        name: as in `Case`.

    >>> case_hash("a secret", "Doe", "a")[:16] == case_hash("a secret", "Doe", "b")[:16]
    True

    Taught in: writing TFRecords
    """

    def digest(text: str, digits: int) -> str:
        message = text.encode("utf-8", "surrogateescape")
        return hmac.new(salt.encode(), message, hashlib.sha256).hexdigest()[:digits]

    person = Case(name, None, patient=patient).person
    return "-".join([digest(person, 16), digest("case\0" + name, 8)])
