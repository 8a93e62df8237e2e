"""The manifest: what a folder of records must hold, so that a lost record cannot go unnoticed.

TFRecord files have a checksum for each record, but none that says how many records there should
be: a file cut between two records, or an empty one, is read without complaint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from helpers.errors import CODES, CourseDataError
from helpers.records import tfrecord

NAME = "manifest.json"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file; `counts` is what `tally` makes of its records."""

    file: str
    split: str
    records: int
    bytes: int
    sha256: str
    counts: dict = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Fault:
    """A shard that is not as it was written; `code` is a key of `errors.CODES`."""

    file: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A finished set of records.

    Args:
        schema: a key of `schemas.SCHEMAS`.
        parameters: what the writer was told: seed, class mapping, numbers of shards.
        classes: names by class id.
        shards: in the order of their names.
        rejected: for each case that became no record its hash, code and number of files; files
            that belong to no case have an empty hash.
        files: number of input files: all, written, rejected.
    """

    schema: str
    parameters: dict
    classes: dict[int, str]
    shards: tuple[Shard, ...]
    rejected: tuple[dict, ...]
    files: dict[str, int]

    @property
    def records(self) -> int:
        """Number of records in all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def splits(self) -> dict[str, dict]:
        """For each split what its shards hold together."""
        names = dict.fromkeys(shard.split for shard in self.shards)
        return {name: self.split(name) for name in names}

    def split(self, name: str) -> dict:
        """Counts of one split: records, patients, labels, mask ids, dtypes, shapes.

        Raises:
            ValueError: if there is no such split.
        """
        shards = [shard for shard in self.shards if shard.split == name]
        if not shards:
            known = ", ".join(dict.fromkeys(shard.split for shard in self.shards))
            raise ValueError(f"no split {name!r}; this set has: {known}")
        return merge(shard.counts for shard in shards)

    def to_json(self) -> str:
        """The manifest as text, with a checksum of itself."""
        content = {"format": "records", "version": VERSION, **dataclasses.asdict(self)}
        content["splits"] = self.splits
        # As JSON will give them back: numbers and text are sorted differently.
        content["classes"] = {str(number): name for number, name in self.classes.items()}
        content["sha256"] = _checksum(content)
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            CourseDataError: `MANIFEST_DAMAGED`.
        """
        try:
            content = json.loads(text)
            stated = content.pop("sha256")
            if stated != _checksum(content) or content["version"] != VERSION:
                raise ValueError
            values = {field.name: content[field.name] for field in dataclasses.fields(cls)}
            values["classes"] = {int(number): name for number, name in values["classes"].items()}
            values["shards"] = tuple(Shard(**shard) for shard in values["shards"])
            values["rejected"] = tuple(values["rejected"])
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CourseDataError(
                "MANIFEST_DAMAGED",
                "the manifest does not agree with its own checksum, or is of another version than "
                f"{VERSION}; fetch it again from where the records were written",
            ) from None

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {counts['records']}" for name, counts in self.splits.items())
        rejected = f", {len(self.rejected)} rejected" if self.rejected else ""
        return f"Manifest({self.schema}: {splits} in {len(self.shards)} shards{rejected})"


def _checksum(content: dict) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def tally(features: dict, case: str, element: dict) -> dict:
    """What the manifest counts of one record: its features, its hash, its element's mask and notes.

    Notes are words of the source modules for what was done to an image, never what a file says.
    """
    mask = element.get("mask")
    counts: dict = {"records": 1, "patients": [case.split("-")[0]]}
    if "image/shape" in features:
        shape = features["image/shape"]
        counts["dtypes"] = {features["image/dtype"].decode(): 1}
    else:
        shape = (features["image/height"][0], features["image/width"][0], 3)
    counts["shapes"] = {"x".join(map(str, shape)): 1}
    counts["fields"] = dict.fromkeys(features, 1)
    if "label" in features:
        counts["labels"] = {" ".join(map(str, features["label"])): 1}
    if element.get("notes"):
        counts["notes"] = dict.fromkeys(element["notes"], 1)
    if mask is not None:
        # Plane by plane: bincount makes eight bytes of each id on its way. It takes no floats.
        planes = (np.asarray(plane, np.uint8).ravel() for plane in np.asarray(mask))
        voxels = sum(np.bincount(plane, minlength=256) for plane in planes)
        ids = np.flatnonzero(voxels).tolist()
        counts["mask_records"] = {str(i): 1 for i in ids}
        counts["mask_voxels"] = {str(i): int(voxels[i]) for i in ids}
        counts["empty_masks"] = int(ids == [0])
    return counts


def merge(several: Iterable[dict]) -> dict:
    """Counts of several records, or of several shards, added up."""
    total: dict = {"records": 0, "patients": []}
    for counts in several:
        for key, value in counts.items():
            if isinstance(value, dict):
                into = total.setdefault(key, {})
                for name, count in value.items():
                    into[name] = into.get(name, 0) + count
            elif isinstance(value, list):
                total.setdefault(key, []).extend(value)
            else:
                total[key] = total.get(key, 0) + value
    # Once for all, because there may be many thousands.
    return {key: sorted({*v}) if isinstance(v, list) else v for key, v in total.items()}


def load(folder: str | Path) -> Manifest:
    """The manifest of a folder of records.

    Raises:
        CourseDataError: `NO_MANIFEST` if there is none, `MANIFEST_DAMAGED`.
        FileNotFoundError: if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError("no such folder")
    path = folder / NAME
    if not path.is_file():
        raise CourseDataError(
            "NO_MANIFEST",
            f"there is no {NAME} in this folder: it holds no records, or writing them was "
            "interrupted; run the same conversion again, it goes on where it stopped",
            [path],
        )
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except (CourseDataError, UnicodeDecodeError) as error:
        message = getattr(error, "message", "the manifest is not text")
        raise CourseDataError("MANIFEST_DAMAGED", message, [path]) from None


def verify(folder: str | Path, *, split: str | None = None, full: bool = True) -> tuple[Fault, ...]:
    """Compare a folder of records with its manifest.

    Args:
        folder: holds the shards and the manifest.
        split: look at the shards of this one only, and not for foreign ones.
        full: read every byte and compare SHA-256; False looks at presence and size only.

    Returns:
        One `Fault` for each shard that is missing, truncated, altered or foreign, by file name;
        empty if the set is whole.

    Raises:
        CourseDataError: `NO_MANIFEST` or `MANIFEST_DAMAGED`: there is nothing to compare with.
        FileNotFoundError: if there is no such folder.
    """
    folder, manifest = Path(folder), load(folder)
    faults = []
    for shard in manifest.shards:
        if split not in (None, shard.split):
            continue
        path = folder / shard.file
        found = path.stat().st_size if path.is_file() else None
        if found is None:
            code, reason = "MISSING_SHARD", f"{shard.records} records are gone"
        elif found < shard.bytes:
            code, reason = "TRUNCATED_SHARD", f"{found} bytes of {shard.bytes}"
        elif found > shard.bytes:
            code, reason = "ALTERED_SHARD", f"{found} bytes, expected {shard.bytes}"
        elif full and sha256(path) != shard.sha256:
            whole = sum(tfrecord.frames(path))
            code, reason = "ALTERED_SHARD", f"{whole} of {shard.records} records pass their own CRC"
        else:
            continue
        faults.append(Fault(shard.file, code, reason))
    known = {shard.file for shard in manifest.shards}
    for path in folder.glob("*.tfrecord") if split is None else ():
        if path.name not in known:
            faults.append(Fault(path.name, "FOREIGN_SHARD", CODES["FOREIGN_SHARD"]))
    return tuple(sorted(faults, key=lambda fault: fault.file))


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
