"""Write one shard after another: complete under its name, or not there.

While a set is being written, its shards lie in a hidden folder, `.partial`, each beside a note of
what went into it. They get their names only when all of them are finished, and the manifest comes
last. A run that was killed is repeated by the same call: a finished shard whose note and checksum
are right is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.records import tfrecord
from helpers.records.manifest import Shard, merge, sha256, tally
from helpers.records.schemas import SCHEMAS

PARTIAL = ".partial"
DONE, NOTE = ".done", ".note"
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to be written: which cases, in which order, each with its hash."""

    file: str
    split: str
    cases: tuple[tuple[str, Case], ...] = dataclasses.field(repr=False)
    schema: str
    # Everything else that decides what is written; it may name folders.
    parameters: str = dataclasses.field(repr=False)
    allowed: frozenset[int] | None = None  # ids that masks may hold; None if nobody surveyed them

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes when a case, a parameter or an input file (by size and time) changes."""
        parts: list[object] = [self.file, self.split, self.schema, self.parameters]
        for name, case in self.cases:
            parts += [name, case.label, None if case.weight is None else float(case.weight)]
            for file in case.files:
                try:
                    status = os.stat(file)
                    parts += [status.st_size, status.st_mtime_ns]
                except OSError:
                    parts += ["gone"]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished shard, and the cases that are not in it: their hash, code and reason."""

    shard: Shard
    rejected: tuple[tuple[str, str, str], ...] = ()
    kept: bool = False


def write_shard(job: Job, folder: Path | None, load: Callable[[Case], dict]) -> Result:
    """Write the shard of a job below `folder/.partial`, or find it finished there.

    Runs in a worker process. Holds one case at a time in memory.

    Args:
        folder: of the set; None reads and counts everything and writes nothing.
        load: gives the element of a case; a `CourseDataError` rejects the case.

    Raises:
        CourseDataError: `DISK_FULL`; the unfinished file is removed.
        Exception: what `load` raises besides; the unfinished file is removed.
    """
    if folder is None:
        with tfrecord.Writer(None) as writer:
            counts, rejected = _write(writer, job, load)
        return Result(_shard(job, writer, counts), rejected)
    if done := _finished(folder, job):
        return done
    with _temporary(folder / PARTIAL, job.file) as path:
        with tfrecord.Writer(path) as writer:
            counts, rejected = _write(writer, job, load)
        os.replace(path, part(folder, job.file))
    result = Result(_shard(job, writer, counts), rejected)
    note(folder, job.fingerprint, result.shard, result.rejected)
    return result


def note(folder: Path, fingerprint: str, shard: Shard, rejected: Sequence) -> None:
    """Say beside a finished shard what it was made from."""
    # Codes only: a reason may quote what a file holds.
    content = {
        "fingerprint": fingerprint,
        "shard": dataclasses.asdict(shard),
        "rejected": [(name, code) for name, code, _ in rejected],
    }
    put(folder / PARTIAL / f"{shard.file}{NOTE}", json.dumps(content))


def noted(folder: Path, job: Job) -> dict | None:
    """The note of this very job, if there is one."""
    try:
        text = (folder / PARTIAL / f"{job.file}{NOTE}").read_text(encoding="utf-8")
        content = json.loads(text)
        return content if content["fingerprint"] == job.fingerprint else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(writer: tfrecord.Writer, job: Job, load: Callable) -> tuple[dict, tuple]:
    schema = SCHEMAS[job.schema]
    counts, rejected = [], []
    for name, case in job.cases:
        try:
            element = load(case)
            features = schema.encode(element, name, case)
            one = tally(features, name, element)
            _check_ids(one.get("mask_voxels", {}), job.allowed)
            pieces = tfrecord.example(features)
        except CourseDataError as error:
            rejected.append((name, error.code, error.message))
            continue
        except OSError as error:
            if error.errno in NO_SPACE:
                raise
            rejected.append((name, "UNREADABLE", error.strerror or "the file cannot be read"))
            continue
        except Exception as error:
            error.add_note(f"while reading case {name} for {job.file}")
            raise
        writer.write(pieces)
        counts.append(one)
    return merge(counts), tuple(rejected)


def _check_ids(found: Iterable[str], allowed: frozenset[int] | None) -> None:
    """The survey has seen every mask; this is for a file that changed since, or a wrong survey."""
    if found and allowed is None:
        raise ValueError("there are masks, and nobody looked at their ids: pass `survey`")
    unknown = sorted({int(number) for number in found} - (allowed or set()))
    if unknown:
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"the mask holds the ids {unknown[:10]}, which the survey of all masks has not shown: "
            "has the file changed in the meantime?",
        )


def _shard(job: Job, writer: tfrecord.Writer, counts: dict) -> Shard:
    return Shard(job.file, job.split, writer.records, writer.bytes, writer.sha256, counts)


def _finished(folder: Path, job: Job) -> Result | None:
    """What an earlier run has left of this job, if it is whole."""
    content = noted(folder, job)
    if content is None:
        return None
    shard = Shard(**content["shard"])
    rejected = tuple((name, code, "") for name, code in content["rejected"])
    # The second place: the run was killed while it gave the shards their names.
    for path in (part(folder, job.file), folder / job.file):
        if path.is_file() and path.stat().st_size == shard.bytes and sha256(path) == shard.sha256:
            return Result(shard, rejected, kept=True)
        # Damaged, or of another set: it must not take the other's place later.
        part(folder, job.file).unlink(missing_ok=True)
    return None


def size_of(case: Case) -> int:
    """Bytes that a case may need: its own statement, else the size of its files."""
    if case.size:
        return case.size
    return sum(os.stat(file).st_size for file in case.files if os.path.isfile(file))


def part(folder: Path, file: str) -> Path:
    """Where a finished shard waits for the others."""
    return folder / PARTIAL / f"{file}{DONE}"


@contextlib.contextmanager
def _temporary(folder: Path, name: str) -> Iterator[Path]:
    """A name that nobody else uses; what is left under it is removed."""
    path = folder / f"{name}.{secrets.token_hex(8)}.tmp"
    try:
        yield path
    except OSError as error:
        if error.errno in NO_SPACE:
            raise disk_full() from error
        raise
    finally:
        path.unlink(missing_ok=True)


def disk_full(needed: int = 0, free: int = 0) -> CourseDataError:
    """The error for a disk without room; bytes where they are known."""
    sizes = f"about {needed / 2**20:.0f} MiB are needed, {free / 2**20:.0f} MiB are free; "
    return CourseDataError(
        "DISK_FULL",
        f"the disk of the output folder is full: {sizes if needed else ''}make room and run the "
        "same call again; shards that are finished are kept",
    )


def put(path: Path, text: str) -> None:
    """Write a small text file in one step, and have it on the disk."""
    with _temporary(path.parent, path.name) as temporary:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Have a folder's names on the disk, where the system knows how."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
