"""What stands on both sides of a split: patients, cases and identical images.

    leaks.check(found.cases, sources_pictures.load_pixels)    # before records are written
    leaks.check_records("records")                            # and afterwards, or of another's

An image is the same if its numbers are: under another name, in another file format, with other
metadata or lossless compression, in a wider dtype, grey in one channel or in three. One that was
resized, cropped, turned, inverted, windowed, rescaled to other units or compressed with loss has
other numbers and is not found. Images of one value are all alike, and are not compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from helpers import encoded, evaluation
from helpers.cases import Case, Rejection
from helpers.errors import CourseDataError
from helpers.records import listing, manifest, narrowest
from helpers.splits import check_splits, person

BLANK = "blank"
FEW = 5  # patients named in a message, by their hash
ADVICE = "leave the copies out, or give their cases one patient and split anew"


@dataclasses.dataclass(frozen=True)
class Report:
    """What was compared, and what is allowed but worth a look.

    Args:
        cases: how many.
        patients: how many; a case without a patient is one of its own.
        images: how many were compared, 0 where nobody said how to load them.
        blank: how many have one value only and are not compared.
        identical: the names of cases that have one image, for each image that occurs twice or
            more within a split. Of records, their salted hashes.
        unread: cases whose image could not be read, and why. These are not compared; they become
            no records either.
    """

    cases: int
    patients: int
    images: int = 0
    blank: int = 0
    identical: tuple[tuple[str, ...], ...] = dataclasses.field(default=(), repr=False)
    unread: tuple[Rejection, ...] = dataclasses.field(default=(), repr=False)

    def __str__(self) -> str:
        lines = f"{self.cases} cases of {self.patients} patients, each patient in one split"
        if self.images:
            lines += f"\n{self.images} images compared, none of them in two splits"
        if self.blank:
            lines += f"\n{self.blank} images of one value are not compared"
        if self.identical:
            copies = sum(map(len, self.identical))
            lines += f"\nwithin a split, {copies} cases share {len(self.identical)} images"
        if self.unread:
            lines += f"\n{len(self.unread)} cases could not be read and are not compared"
        return lines


def check(
    cases: Iterable[Case], load: Callable[[Case], dict] | None = None, *, progress: bool = False
) -> Report:
    """Refuse a split in which a patient, or an identical image, stands on both sides.

    Args:
        cases: with their `split` set; before that, all are in the split "all".
        load: gives the element of a case, as for `records.write`; its `image` is compared, which
            reads every image once. None: images are not compared.
        progress: show a progress bar.

    Raises:
        CourseDataError: `SAME_CASE`, `PATIENT_IN_TWO_SPLITS` or `IMAGE_IN_TWO_SPLITS`, with the
            files at fault.
    """
    cases = tuple(cases)
    check_splits(cases)
    report = Report(len(cases), len({person(case) for case in cases}))
    if load is None:
        return report
    from tqdm.auto import tqdm

    read, digests, unread = [], [], []
    for case in tqdm(cases, "comparing images", unit="case", disable=not progress):
        try:
            digests.append(_digest(_pixels(load(case)["image"])))
            read.append(case)
        except CourseDataError as error:
            unread.append(Rejection(case.files, error.code, error.message))
        except OSError as error:
            reason = error.strerror or "the file cannot be read"
            unread.append(Rejection(case.files, "UNREADABLE", reason))
    files = [case.files for case in read]
    identical = _identical(digests, [case.split for case in read], files)
    return dataclasses.replace(
        report,
        images=len(read) - digests.count(BLANK),
        blank=digests.count(BLANK),
        identical=tuple(tuple(read[n].name for n in same) for same in identical),
        unread=tuple(unread),
    )


def check_records(folder: str | Path) -> Report:
    """The same from written records, whatever their schema and whoever wrote them.

    Patients are told by the first half of a record's salted hash (`cases.case_hash`), so sets
    that were written with different salts cannot be compared. Images are compared decoded, also
    those that are stored as JPEG or PNG; every record is read once.

    Args:
        folder: holds the shards and the manifest.

    Raises:
        CourseDataError: `SAME_CASE`, `PATIENT_IN_TWO_SPLITS` or `IMAGE_IN_TWO_SPLITS`, with the
            shards at fault; and what `records.index` raises for a damaged set. That an image's
            bytes are the ones written is for `records.verify` to say.
    """
    folder = Path(folder)
    names, places, shards, digests = [], [], [], []
    known = manifest.load(folder)
    for split in (name for name, counts in known.splits.items() if counts["records"]):
        for path, shard in listing.opened(folder, split, "size")[2]:
            for features in listing.features_of(path, shard):
                name, pixels = _stored(features, path)
                names.append(name)
                digests.append(_digest(pixels))
                places.append(split)
                shards.append((path,))
    patients = _check_hashes(names, places, shards)
    identical = _identical(digests, places, shards)
    together = tuple(tuple(names[n] for n in same) for same in identical)
    blank = digests.count(BLANK)
    return Report(len(names), patients, len(names) - blank, blank, together)


def _check_hashes(names: list[str], places: list[str], shards: list[tuple[Path]]) -> int:
    """How many patients there are; each in one split, each case once."""
    people = evaluation.patients(names).tolist() if names else []
    sides = defaultdict(set)
    for one, place in zip(people, places, strict=True):
        sides[one].add(place)
    torn = {one: sorted(found) for one, found in sides.items() if len(found) > 1}
    if torn:
        at = [n for n, one in enumerate(people) if one in torn]
        listed = "; ".join(f"{one} in {' and '.join(torn[one])}" for one in [*torn][:FEW])
        more = f"; and {len(torn) - FEW} more" if len(torn) > FEW else ""
        raise CourseDataError(
            "PATIENT_IN_TWO_SPLITS",
            f"{len(torn)} of {len(sides)} patients, with {len(at)} records, stand in more than one "
            f"split ({listed}{more}); expected each patient in one: split by patient and write "
            "the records anew",
            _files(at, shards),
        )
    times = Counter(names)
    if twice := [n for n, name in enumerate(names) if times[name] > 1]:
        raise CourseDataError(
            "SAME_CASE",
            f"{len(twice)} of {len(names)} records share their case with another, expected a "
            "record for each; write the records anew",
            _files(twice, shards),
        )
    return len(sides)


def _identical(
    digests: list[str], places: list[str], files: Sequence[tuple[Path, ...]]
) -> list[list[int]]:
    """The positions of equal images, for each that is there twice or more, if in one split."""
    by_image = defaultdict(list)
    for n, digest in enumerate(digests):
        if digest != BLANK:
            by_image[digest].append(n)
    repeated = [same for same in by_image.values() if len(same) > 1]
    torn = [same for same in repeated if len({places[n] for n in same}) > 1]
    if torn:
        at = [n for same in torn for n in same]
        splits = " and ".join(sorted({places[n] for n in torn[0]}))
        raise CourseDataError(
            "IMAGE_IN_TWO_SPLITS",
            f"{len(torn)} of {len(by_image)} different images stand in more than one split (the "
            f"first in {splits}), in {len(at)} cases; expected each image in one: {ADVICE}",
            _files(at, files),
        )
    return repeated


def _files(at: list[int], files: Sequence[tuple[Path, ...]]) -> list[Path]:
    return list(dict.fromkeys(file for n in at for file in files[n]))


def _stored(features: dict, path: Path) -> tuple[str, np.ndarray]:
    """A record's salted hash and its pixels."""
    try:
        if "image/encoded" in features:
            name, pixels = features["image/filename"], _pixels(features["image/encoded"].tobytes())
        else:
            dtype = np.dtype(features["image/dtype"].tobytes().decode()).newbyteorder("<")
            pixels = features["image"].view(dtype).reshape(features["image/shape"])
            name = features["case"]
        return name.tobytes().decode(), pixels
    except CourseDataError as error:
        raise CourseDataError(error.code, error.message, [path]) from None
    except listing.NONSENSE:
        raise CourseDataError(
            "ALTERED_SHARD", "a record makes no sense; run records.verify on the folder", [path]
        ) from None


def _pixels(image: np.ndarray | bytes) -> np.ndarray:
    """An image as numbers; JPEG and PNG files decoded, palettes and bits as `sources_pictures`."""
    if not isinstance(image, bytes):
        return np.asarray(image)
    _, picture = encoded.read(image, max_bits=16)
    if picture.mode in ("1", "P"):
        picture = picture.convert("RGB" if picture.mode == "P" else "L")
    return np.array(picture)


def _digest(pixels: np.ndarray) -> str:
    """SHA-256 of shape and values, in the narrowest dtype and the fewest channels."""
    if pixels.ndim > 2 and pixels.shape[-1] in (1, 3) and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.size and (pixels == pixels.flat[0]).all():
        return BLANK
    pixels = narrowest(pixels)
    form = f"{pixels.dtype.name} {pixels.shape} "
    return hashlib.sha256(form.encode() + pixels.tobytes()).hexdigest()
