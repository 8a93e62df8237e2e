"""What stands on both sides of a split: patients, cases and identical images.

    leaks.check(found.cases, pictures.load_pixels)    # before records are written
    leaks.check_records("records")                    # and afterwards, or of another's

An image is the same if its numbers are: under another name, in another file format, with other
metadata or lossless compression, in a wider dtype, grey in one channel or in three. One that was
resized, cropped, turned, inverted, windowed, rescaled to other units or compressed with loss has
other numbers and is not found. Images of one value are all alike, and are not compared.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers import records, splits
from helpers.cases import Case, Rejection
from helpers.errors import CourseDataError, meaning


@dataclass(frozen=True)
class Report:
    """What was compared, and what is allowed but worth a look.

    Args:
        cases: how many.
        patients: how many; a case without a patient is one of its own.
        images: how many were compared.
        blank: how many have one value only and are not compared.
        identical: the names of cases that have one image, for each image that occurs twice or
            more within a split. Of records, their salted hashes.
        unread: cases whose image could not be read, and why. These are not compared; they become
            no records either.

    Taught in: imbalanced classification
    """

    cases: int
    patients: int
    images: int
    blank: int
    identical: tuple[tuple[str, ...], ...] = field(repr=False)
    unread: tuple[Rejection, ...] = field(repr=False)

    def __str__(self) -> str:
        told = [
            f"{self.cases} cases of {self.patients} patients, each patient in one split",
            f"{self.images} images compared, none of them in two splits",
            f"{self.blank} images of one value, which are not compared",
            f"{len(self.identical)} images that several cases of one split share",
            f"{len(self.unread)} cases that could not be read",
        ]
        return "\n".join(line for line in told if not line.startswith("0 "))


def check(cases: Sequence[Case], load: Callable[[Case], dict]) -> Report:
    """Refuse a split in which a patient, or an identical image, stands on both sides.

        print(leaks.check(cases, pictures.load_pixels))

    Args:
        cases: with their `split` set; before that, all are in the split "all".
        load: gives the element of a case, as for `records.write`; its `image` is compared, which
            reads every image once.

    Raises:
        CourseDataError: `SAME_CASE`, `PATIENT_IN_TWO_SPLITS` or `IMAGE_IN_TWO_SPLITS`, with the
            files at fault.

    Taught in: imbalanced classification
    """
    return _report(cases, lambda case: _digest(load(case)["image"]))


def check_records(folder: str | Path) -> Report:
    """The same from written records, whatever their schema and whoever wrote them.

        print(leaks.check_records("records"))

    Patients are told by the first half of a record's salted hash (`cases.case_hash`), so sets
    that were written with different salts cannot be compared. Images are compared decoded, also
    those that are stored as JPEG or PNG; every record is read once.

    Args:
        folder: holds the shards and the manifest.

    Raises:
        CourseDataError: `SAME_CASE`, `PATIENT_IN_TWO_SPLITS` or `IMAGE_IN_TWO_SPLITS`, with the
            shards at fault; and what `records.read` raises for a damaged set.

    Taught in: imbalanced classification
    """
    folder = Path(folder)
    cases = []
    rows = records.load_manifest(folder).rows
    shards = dict(zip(rows["case"], rows["shard"], strict=True))
    for split in dict.fromkeys(rows["split"]):
        for element in records.read(folder, split).as_numpy_iterator():
            name = element["case"].decode()
            patient = name.partition("-")[0]
            files = (folder / shards[name],)
            cases.append(Case(name, _digest(element["image"]), files, patient, split))
    return _report(cases, lambda case: case.source)


def _report(cases: Sequence[Case], digest: Callable[[Case], str]) -> Report:
    """The report, if no two equal digests stand in different splits; blank images have none."""
    splits.check(cases)
    same = defaultdict(list)
    unread = []
    for case in cases:
        try:
            same[digest(case)].append(case)
        except (CourseDataError, OSError) as error:
            code = getattr(error, "code", "UNREADABLE")
            unread.append(Rejection(case.files, code, meaning(code)))
    blank = len(same.pop("", []))
    twice = [copies for copies in same.values() if len(copies) > 1]
    torn = [copies for copies in twice if len({case.split for case in copies}) > 1]
    wrong = [case for copies in torn for case in copies]
    found = f"{len(torn)} images, in {len(wrong)} cases, stand in more than one split"
    splits.refuse(wrong, "IMAGE_IN_TWO_SPLITS", found)
    people = {case.person for case in cases}
    images = len(cases) - blank - len(unread)
    names = tuple(tuple(case.name for case in copies) for copies in twice)
    return Report(len(cases), len(people), images, blank, names, tuple(unread))


def _digest(image: np.ndarray) -> str:
    """Shape and SHA-256 of the values, in the narrowest dtype, the fewest channels; "" if blank."""
    channels = image.shape[-1] if image.ndim > 2 else 0
    if channels in (1, 3) and (image == image[..., :1]).all():
        image = image[..., 0]
    if image.min() == image.max():
        return ""
    image = records.narrowest(image)
    return f"{image.dtype} {image.shape} {hashlib.sha256(image).hexdigest()}"
