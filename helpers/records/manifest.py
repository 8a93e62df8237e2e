"""The manifest: what a folder of records must hold, so that a lost record cannot go unnoticed.

TFRecord files have a checksum for each record, but none that says how many records there should
be: a file cut between two records, or an empty one, is read without complaint. And nothing in them
says where a record begins; the manifest has a row for each, so that nobody has to search.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import NamedTuple

from helpers.errors import meaning, need

NAME, VERSION = "manifest.json", 3


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file of a set.

    Taught in: writing TFRecords
    """

    file: str
    records: int
    bytes: int
    sha256: str

    @property
    def split(self) -> str:
        """The name of the split that it belongs to."""
        return self.file.partition("-")[0]


class Fault(NamedTuple):
    """A shard that is not as it was written; `code` is a key of `errors.CODES`.

    Taught in: writing TFRecords
    """

    file: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A finished set of records.

        manifest = records.load_manifest("records")
        manifest.rows.groupby(["split", "label"]).size()

    Args:
        schema: a key of `SCHEMAS`.
        parameters: what the writer was told: seed, number of shards, class mapping.
        classes: names by class id.
        fingerprint: of all that decides what is in the set.
        shards: in the order of their names.
        columns: lists with a value for each record, in the order of the shards: `shard` (its
            file), `case` (salted hash), `shape` ("32x112x112x1"), `dtype` ("int16"; of files
            "jpeg" or "png"), `image_bytes` (raw, or of the file). And where any record has one,
            with None for those that lack it: `label` (int, or a list of them), `weight`, `spacing`
            (mm), `modality`, `voxels` (of the mask, by class id), `notes` (fixed words for what
            was done to the image), `image_at` and `mask_at` (where raw values begin in the shard).
        rejected: for each case that became no record its hash, code and number of files; files
            that belong to no case have an empty hash.
        files: number of input files: all, written, rejected.

    Taught in: writing TFRecords
    """

    schema: str
    parameters: dict
    classes: dict[int, str]
    fingerprint: str
    shards: tuple[Shard, ...]
    columns: dict[str, list] = dataclasses.field(repr=False)
    rejected: list[dict]
    files: dict[str, int]

    @property
    def records(self) -> int:
        """Number of records in all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(dict.fromkeys(shard.split for shard in self.shards))

    def split(self, name: str | None = None) -> dict:
        """The columns of one split that are not empty; `records`, how many; `split`, its name.

        Raises:
            ValueError: if there is no such split, or several and no `name`.
        """
        if name is None and len(self.splits) == 1:
            (name,) = self.splits
        if name not in self.splits:
            raise ValueError(f"no split {name!r}; this set has: {', '.join(self.splits)}")
        inside = [file.partition("-")[0] == name for file in self.columns.get("shard", ())]
        known = {"records": sum(inside), "split": name}
        for key, column in self.columns.items():
            values = [*itertools.compress(column, inside)]
            if values.count(None) < len(values):
                known[key] = values
        return known

    @property
    def rows(self):
        """A pandas table, a line for each record: the columns, split, and patient."""
        import pandas as pd

        rows = pd.DataFrame(self.columns)
        splits = rows["shard"].str.split("-").str[0]
        patients = rows["case"].str.split("-").str[0]
        return rows.assign(split=splits, patient=patients)

    def to_json(self) -> str:
        """The manifest as text, with a checksum of all that follows it."""
        content = {"format": "records", "version": VERSION} | vars(self)
        content["shards"] = [vars(shard) for shard in self.shards]
        return _sealed(json.dumps(content, separators=(",", ":"))[1:] + "\n")

    def __repr__(self) -> str:
        counts = {split: self.split(split)["records"] for split in self.splits}
        held = ", ".join(f"{split} {count}" for split, count in counts.items())
        rejected = f", {len(self.rejected)} rejected" if self.rejected else ""
        return f"Manifest({self.schema}: {held} in {len(self.shards)} shards{rejected})"


def _sealed(body: str) -> str:
    return f'{{"sha256":"{hashlib.sha256(body.encode()).hexdigest()}",\n{body}'


def load(folder: str | Path) -> Manifest:
    """The manifest of a folder of records.

        records.load_manifest("records").split("train")["records"]

    Raises:
        CourseDataError: `NO_MANIFEST` if there is none; `MANIFEST_DAMAGED` if it is not as it was
            written, or of another version.
        FileNotFoundError: if there is no such folder.

    Taught in: writing TFRecords
    """
    path = Path(folder) / NAME
    if not path.parent.is_dir():
        raise FileNotFoundError("no such folder")
    need(path.is_file(), "NO_MANIFEST", f"there is no {NAME} in this folder", path)
    text = path.read_bytes().decode("utf-8", "replace")
    content = json.loads(text) if text == _sealed(text.partition("\n")[2]) else {}
    found = f"its checksum or its version is wrong, expected version {VERSION}"
    need(content.get("version") == VERSION, "MANIFEST_DAMAGED", found, path)
    known = {field.name: content[field.name] for field in dataclasses.fields(Manifest)}
    known["classes"] = {int(number): name for number, name in known["classes"].items()}
    known["shards"] = tuple(Shard(**shard) for shard in known["shards"])
    return Manifest(**known)


def verify(folder: str | Path, *, split: str | None = None, full: bool = True) -> tuple[Fault, ...]:
    """Compare a folder of records with its manifest.

        for fault in records.verify("records"):
            print(fault.code, fault.file, fault.reason)

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

    Taught in: writing TFRecords
    """
    folder = Path(folder)
    faults = []
    shards = {shard.file: shard for shard in load(folder).shards}
    for file, shard in shards.items():
        path = folder / file
        size = path.stat().st_size if path.is_file() else None
        if split not in (None, shard.split):
            continue
        elif size is None:
            faults.append(Fault(file, "MISSING_SHARD", f"{shard.records} records are gone"))
        elif size < shard.bytes:
            faults.append(Fault(file, "TRUNCATED_SHARD", f"{size} bytes of {shard.bytes}"))
        elif size > shard.bytes or (full and sha256(path) != shard.sha256):
            faults.append(Fault(file, "ALTERED_SHARD", "other bytes than were written"))
    there = {path.name for path in folder.glob("*.tfrecord")}
    for file in there - shards.keys() if split is None else ():
        faults.append(Fault(file, "FOREIGN_SHARD", meaning("FOREIGN_SHARD")))
    return tuple(sorted(faults))


def sha256(path: Path) -> str:
    """SHA-256 of the file at `path`, in hexadecimal.

    Taught in: writing TFRecords
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def put(path: Path, text: str) -> None:
    """Write a `text` to the file at `path`, and have it on the disk.

    Taught in: no lesson; the converter uses it
    """
    with open(path, "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
