"""Which shards a split has, and what its records say of themselves, without TensorFlow."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import numpy as np

from helpers.errors import CourseDataError
from helpers.records import manifest, tfrecord
from helpers.records.manifest import Manifest, Shard

# What parsing raises where bytes are not as they were written.
NONSENSE = (struct.error, ValueError, KeyError, IndexError, TypeError, OverflowError)
DEFAULTS = {"label": -1, "weight": 1.0, "spacing": 0.0, "modality": b""}  # where a record lacks it


def opened(
    folder: Path, split: str | None, check: str
) -> tuple[Manifest, str, list[tuple[Path, Shard]]]:
    """The manifest, the split, and its shards with records in their order, looked at before.

    Args:
        folder: holds the shards and the manifest.
        split: may be None where there is only one.
        check: "size" or "full", as for `records.read`.

    Raises:
        CourseDataError, ValueError: as `records.read`.
    """
    if check not in ("size", "full"):
        raise ValueError(f'check can be "size" or "full", not {check!r}')
    found = manifest.load(folder)
    if split is None:
        if len(found.splits) > 1:
            raise ValueError(f"which split? This set has: {', '.join(found.splits)}")
        split = next(iter(found.splits))
    counts = found.split(split)
    _refuse_faulty(folder, split, full=check == "full")
    if not counts["records"]:
        raise CourseDataError("NOTHING_WRITTEN", "all cases of this split were rejected")
    shards = [one for one in found.shards if one.split == split and one.records]
    return found, split, [(folder / one.file, one) for one in shards]


def _refuse_faulty(folder: Path, split: str, full: bool) -> None:
    faults = manifest.verify(folder, split=split, full=full)
    if faults:
        listed = "; ".join(f"{fault.code}: {fault.reason}" for fault in faults[:4])
        more = f"; and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise CourseDataError(
            faults[0].code,
            f"{len(faults)} shards are not as they were written ({listed}"
            f"{more}); run the conversion again, or fetch these files again",
            [folder / fault.file for fault in faults],
        )


def index(folder: str | Path, split: str | None = None, *, check: str = "size") -> dict:
    """What to sample by: the case, label and weight of each record of one split.

    Args:
        folder: holds the shards and the manifest.
        split: "train", for instance; may be left out where there is only one.
        check: as for `records.read`. Only the few bytes that are asked for are read, unless it is
            "full".

    Returns:
        `case`, a list of n salted hashes; and where the split has them, as its elements do,
        `label`, int32 `[n]` or, where cases have several, `[n, labels]`, and `weight`, float32
        `[n]`. A record that lacks what others have gets -1 for the label and 1 for the weight.
        They stand in the order of the shards in the manifest: these are the numbers of the records
        for `records.read(..., mapped=True, indices=...)`.

    Raises:
        CourseDataError: `NO_MANIFEST`, `MANIFEST_DAMAGED`, `NOTHING_WRITTEN`, or the code of the
            first faulty shard.
        ValueError: for an unknown split or check.
    """
    found, split, shards = opened(Path(folder), split, check)
    counts = found.split(split)
    case = "image/filename" if found.schema == "deeplab" else "case"
    unlabelled = (DEFAULTS["label"],) * labels_in(counts)
    names, labels, weights = [], [], []
    for path, shard in shards:
        records = features_of(path, shard)
        try:
            names += [one[case].tobytes().decode() for one in records]
            rows = [tuple(map(int, one.get("label", unlabelled))) for one in records]
            weights += [float(one.get("weight", (DEFAULTS["weight"],))[0]) for one in records]
        except NONSENSE:
            raise _altered(path, "a record makes no sense") from None
        known_rows = (one["label"] for one in records if "label" in one)
        tally = Counter(" ".join(map(str, row)) for row in known_rows)
        if tally != shard.counts.get("labels", {}):
            raise _altered(path, "its labels are not those that the manifest counts")
        labels += rows
    known: dict = {"case": names}
    if "label" in counts["fields"]:
        rows = np.array(labels, np.int32)
        known["label"] = rows if labels_in(counts) > 1 else rows[:, 0]
    if "weight" in counts["fields"]:
        known["weight"] = np.array(weights, np.float32)
    return known


def labels_in(counts: dict) -> int:
    """How many labels each case of a split has; 1 if none has a label."""
    return len(next(iter(counts.get("labels", {"": 1}))).split(" "))


def features_of(path: Path, shard: Shard) -> list[dict]:
    """The features of each record of a shard, mapped into memory.

    Raises:
        CourseDataError: `ALTERED_SHARD` if they cannot be made out.
    """
    try:
        records = [tfrecord.features(one) for one in tfrecord.messages(path)]
    except NONSENSE:
        raise _altered(path, "a record makes no sense") from None
    if Counter(key for one in records for key in one) != shard.counts["fields"]:
        raise _altered(path, "its fields are not those that the manifest counts")
    return records


def _altered(path: Path, what: str) -> CourseDataError:
    return CourseDataError(
        "ALTERED_SHARD",
        f"{what}: its bytes are not as they were written; fetch the file again, or run the "
        "conversion again",
        [path],
    )
