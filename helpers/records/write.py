"""Write a set of records: each shard complete or not there, and the manifest last.

A shard is finished if its note says the SHA-256 of the file, under its hidden or its final name.
Hidden names and notes hold a fingerprint of all that decides the shard's bytes, so that another set
never meets them. Shards get their final names when all are finished. The manifest alone makes a
set: before a shard of an existing set is replaced, its manifest goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed, wait
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
from tqdm.auto import tqdm

from helpers import splits
from helpers.cases import Case, Found, Rejection, case_hash
from helpers.errors import CourseDataError, listed, meaning, need
from helpers.records import manifest, tfrecord
from helpers.records.manifest import Manifest, Shard
from helpers.records.schema import SCHEMAS, row

SHARD_BYTES = 128 * 2**20  # as large as one reader likes to take at a time
LOCK = ".lock"
PLACES = {"image": "image_at", "image/encoded": "image_at", "mask": "mask_at"}
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclasses.dataclass(frozen=True)
class Written:
    """What `write` did: the manifest, each rejection with its files and its reason, shards kept.

    Taught in: writing TFRecords
    """

    manifest: Manifest
    rejected: tuple[Rejection, ...] = dataclasses.field(repr=False)
    kept: int


class Job(NamedTuple):
    """A shard to be written: its cases in their order, each with its hash.

    The fingerprint changes with a case, a parameter, or an input file (by size and time).

    Taught in: no lesson; the converter uses it
    """

    file: str
    split: str
    cases: list[tuple[str, Case]]
    fingerprint: str

    def hidden(self, folder: Path, end: str) -> Path:
        """A name that no other set has: of the shard when it is "done", or of its "note"."""
        return folder / f".{self.file}.{self.fingerprint}.{end}"


def write(
    folder: str | Path,
    found: Found,
    schema: str,
    load: Callable[[Case], dict],
    *,
    salt: str,
    classes: Mapping[int, str] | Sequence[str] | None = None,
    survey: Callable[[Case], frozenset[int]] | None = None,
    seed: int = 0,
    shard_count: int | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: bool = True,
) -> Written:
    """Write cases to sharded TFRecord files, and a manifest when all of them are finished.

        records.write("records", found, "volume", dicom.load, salt="a secret").manifest

    Files are called `SPLIT-00000-of-00004.tfrecord`. Equal cases, seed and salt give equal bytes,
    whatever the number of workers and the order of the cases. Interrupted, the same call goes on
    where it stopped; called again on a finished set, it verifies every byte and changes nothing.

    Args:
        folder: of the set, made if it is missing. One process writes to it at a time.
        found: the cases, and the input files that are none, as the `find` functions give them.
        schema: "volume", "classification" or "deeplab": a key of `SCHEMAS`.
        load: gives the element of a case; a function of a module, because worker processes import
            it (`functools.partial` adds arguments). What it refuses with a `CourseDataError`
            becomes a line of the report.
        salt: a secret string for the hashes that name the cases, at least 8 characters.
        classes: names by class id, or in the order of the ids. Labels and mask ids must be among
            them, and so must 255, which DeepLab ignores, if masks hold it on purpose.
        survey: gives the ids in the mask of a case. It is asked for every case before the first
            record is written, but not for shards that are finished, and any id that no class names
            stops the run. Without it, such masks reject their cases, one by one.
        seed: of the order in which cases go to shards.
        shard_count: files for each split; by default about 128 MiB each, but at least 4 where
            there are as many cases.
        workers: processes of the local pool, one for each core if None; 1 works in this process.
        executor: any `concurrent.futures.Executor` in place of the local pool.
        overwrite: replace a finished set; also one of these very cases, because a change inside
            `load`, or in a case that names no files, cannot be seen from here.
        dry_run: read, check and count everything, write nothing.
        progress: show a progress bar.

    Raises:
        CourseDataError: `PATIENT_IN_TWO_SPLITS`, `SAME_CASE`, `UNKNOWN_LABEL` before anything is
            written; `DISK_FULL`, `LOCKED`, `OTHER_SET`, `FOREIGN_SHARD`, `MANIFEST_DAMAGED`;
            `NOTHING_WRITTEN` if no case became a record (its `rejected` says why).
        ValueError: for arguments that cannot be meant.

    Taught in: writing TFRecords
    """
    place = None if dry_run else Path(folder)
    pairs = classes.items() if isinstance(classes, Mapping) else enumerate(classes or ())
    names = {int(number): str(name) for number, name in pairs}
    _check_arguments(found.cases, schema, salt, names)
    splits.check(found.cases)
    function, keywords = getattr(load, "func", load), getattr(load, "keywords", {})
    if function.__module__ == "__main__" and executor is None and workers != 1:
        raise ValueError("workers import `load`: put it in a module, or pass workers=1")
    arguments = [] if function is load else [load.args, sorted(keywords.items())]
    described = f"{function.__module__}.{function.__qualname__} {arguments}"  # only ever hashed
    mapping = keywords.get("mapping")
    mapping = mapping and {str(old): int(new) for old, new in mapping.items()}
    parameters = {"seed": seed, "shard_count": shard_count, "mapping": mapping}
    about = {"schema": schema, "parameters": parameters, "classes": names}
    jobs = plan(found.cases, salt, seed, shard_count, json.dumps([about, described]))
    work = functools.partial(write_shard, SCHEMAS[schema].encode, load, names, place)
    lock = _locked(place) if place else contextlib.nullcontext()
    with lock, _pool(executor, workers) as pool:  # no worker outlives the lock
        waiting, stale = _prepare(place, jobs, overwrite) if place else (jobs, [])
        if survey:
            cases = [case for job in waiting for _, case in job.cases]
            ask = functools.partial(_ids, survey)
            _need_known(cases, _all(pool, ask, cases, "checking masks", progress), {*names})
        contents = _all(pool, work, jobs, "writing" if place else "checking", progress)
        written = _summary(found, about, jobs, contents)
        if not written.manifest.records:
            if place:
                _clear(place)
            codes = dict(Counter(one.code for one in written.rejected))
            words = f"of {len(found.cases)} cases; rejected: {codes}"
            error = CourseDataError("NOTHING_WRITTEN", words)
            error.rejected = written.rejected
            raise error
        if place:
            _publish(place, jobs, stale, written.manifest.to_json())
    return written


# Before the first record


def plan(
    cases: Sequence[Case], salt: str, seed: int, shard_count: int | None, parameters: str = ""
) -> list[Job]:
    """Which cases go into which shard: fixed by the cases, the salt and the seed.

    Args:
        cases: in any order, which changes nothing.
        salt, seed, shard_count: as for `write`.
        parameters: whatever else decides what is written.

    Taught in: writing TFRecords
    """
    jobs = []
    for split in sorted({case.split for case in cases}):
        named = [(case_hash(salt, c.patient, c.name), c) for c in cases if c.split == split]
        named.sort(key=lambda pair: pair[0])
        order = np.random.default_rng([seed, zlib.crc32(split.encode())]).permutation(len(named))
        size = sum(_size(case) for _, case in named)
        count = min(shard_count or max(-(-size // SHARD_BYTES), 4), len(named))
        for number, chosen in enumerate(np.array_split(order, count)):
            file = f"{split}-{number:05d}-of-{count:05d}.tfrecord"
            inside = [named[n] for n in chosen]
            jobs.append(Job(file, split, inside, _fingerprint(file, parameters, inside)))
    return jobs


def _fingerprint(file: str, parameters: str, cases: list[tuple[str, Case]]) -> str:
    parts = [file, parameters]
    for name, case in cases:
        parts += [name, case.label, case.weight]
        for stat in map(os.stat, filter(os.path.exists, case.files)):
            parts += [stat.st_size, stat.st_mtime_ns]
    return hashlib.sha256(json.dumps(parts, default=float).encode()).hexdigest()[:16]


def _size(case: Case) -> int:
    """Bytes that a case may need: its own statement, else the size of its files."""
    return case.size or sum(os.stat(file).st_size for file in filter(os.path.isfile, case.files))


def _check_arguments(cases: Sequence[Case], schema: str, salt: str, names: dict[int, str]) -> None:
    """Refuse what would make every record wrong, and nobody would see it.

    Where a case has several labels, -1 stands for one that is not known.
    """
    labelled = [case for case in cases if case.label is not None]
    if len(salt) < 8:
        raise ValueError("a salt of less than 8 characters keeps no secret")
    if schema == "classification" and len(labelled) < len(cases):
        raise ValueError("this schema needs labels")
    words = {case.split.replace("_", "0") for case in cases}
    if not all(name.isascii() and name.isalnum() for name in words):
        raise ValueError("the name of a split has letters, digits and underscores only")
    labels = [np.atleast_1d(case.label).tolist() for case in labelled]
    counts = sorted({len(several) for several in labels})
    one_count = len(counts) < 2 and 0 not in counts
    need(one_count, "UNKNOWN_LABEL", f"cases with {counts} labels each, expected one number")
    _need_known(labelled, labels, {*names, -1} if counts > [1] else {*names})


def _need_known(cases, ids_of_each, known: set[int]) -> None:
    """Refuse ids that nobody has named."""
    strange = [(case, {*ids} - known) for case, ids in zip(cases, ids_of_each, strict=True)]
    ids = sorted({one for _, some in strange for one in some})
    files = [file for case, some in strange if some for file in case.files]
    words = f"found the ids {listed(ids)}, the classes are {sorted(known)}"
    need(not ids, "UNKNOWN_LABEL", words, *files)


def _ids(survey, case: Case) -> frozenset[int]:
    """The ids in the mask of a case; if it cannot be read, writing will say what is wrong."""
    try:
        return survey(case)
    except (CourseDataError, OSError) as error:
        if getattr(error, "code", "") == "UNKNOWN_LABEL":
            raise
        return frozenset()


# Work, here or in other processes


def _pool(executor: Executor | None, workers: int | None):
    """What to submit work to; None where it is done here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if executor or (workers or cores) == 1:
        return contextlib.nullcontext(executor)
    # Spawned, not forked: a process that has TensorFlow's threads cannot be forked safely.
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers or cores, spawn, _end_with_parent)


def _end_with_parent() -> None:
    """In a worker: do not outlive a parent that was killed, and write into its folder."""
    join = multiprocessing.parent_process().join
    threading.Thread(target=lambda: (join(), os._exit(1)), daemon=True).start()


def _all(pool: Executor | None, work: Callable, items: list, title: str, progress: bool) -> list:
    """What `work` makes of each item, in their order; nothing is under way when it ends."""
    waiting = [pool.submit(work, item) for item in items] if pool else []
    made = (one.result() for one in as_completed(waiting)) if pool else map(work, items)
    try:
        made = list(tqdm(made, title, len(items), disable=not progress))
        return [one.result() for one in waiting] or made
    finally:
        wait([one for one in waiting if not one.cancel()])


def write_shard(encode, load, names: dict[int, str], folder: Path | None, job: Job) -> dict:
    """Write a shard under its hidden name, or find it finished.

    Args:
        encode: makes features of an element, its case's hash and the case.
        load: gives the element of a case; a `CourseDataError` rejects the case.
        names: of the classes. The survey has seen every mask; here it is looked at again, for a
            file that changed since, and because there may be no survey.
        folder: of the set; None reads and counts everything and writes nothing.
        job: the cases, and the shard's name.

    Returns:
        `shard`, the `rows` of its records, and `rejected`, as the manifest has them: so far it is
        in the note beside the shard. And, unless the shard was finished, the `reasons` by hash;
        they may quote what a file holds.

    Taught in: writing TFRecords
    """
    if folder and (noted := _finished(folder, job)):
        return noted
    rows, rejected, reasons = [], [], {}
    temporary = job.hidden(folder, f"{os.getpid()}.tmp") if folder else None
    with tfrecord.Writer(temporary) as writer:
        for name, case in job.cases:
            try:
                element = load(case)
                features = encode(element, name, case)
                known = row(features, element)
                strange = set(map(int, known.get("voxels", ()))) - names.keys()
                need(not strange, "UNKNOWN_LABEL", f"ids in the mask: {sorted(strange)}")
                message, starts = tfrecord.example(features)
            except (CourseDataError, OSError) as error:
                code = getattr(error, "code", "UNREADABLE")
                reasons[name] = getattr(error, "message", "") or error.strerror or meaning(code)
                line = {"case": name, "code": code, "files": len(case.files), "shard": job.file}
                rejected.append(line)
            except Exception as error:
                error.add_note(f"while reading case {name} for {job.file}")
                raise
            else:
                begin = writer.write(message)
                places = {PLACES[key]: begin + at for key, at in starts.items() if key in PLACES}
                rows.append(known | places)
    sha256, size = writer.sha256.hexdigest(), writer.bytes
    shard = Shard(job.file, job.split, len(rows), size, sha256, job.fingerprint)
    content = {"shard": vars(shard), "rows": rows, "rejected": rejected}
    if folder:
        os.replace(temporary, job.hidden(folder, "done"))
        _put(job.hidden(folder, "note"), json.dumps(content))
    return content | {"reasons": reasons}


def _finished(folder: Path, job: Job) -> dict | None:
    """What the note says of a shard that an earlier run has finished."""
    note, done = job.hidden(folder, "note"), job.hidden(folder, "done")
    if note.exists():
        noted = json.loads(note.read_text("utf-8"))
        path = done if done.exists() else folder / job.file
        if path.exists() and manifest.sha256(path) == noted["shard"]["sha256"]:
            return noted
    return None


def _summary(found: Found, about: dict, jobs: list[Job], contents: list[dict]) -> Written:
    """What was done: every input file ends in a shard or in the report."""
    files = {name: case.files for job in jobs for name, case in job.cases}
    rejected, lines, rows = [*found.rejected], [], []
    for one in found.rejected:
        lines.append({"case": "", "code": one.code, "files": len(one.files), "shard": ""})
    for content in contents:
        rows += content["rows"]
        lines += content["rejected"]
        reasons = content.get("reasons", {})
        for line in content["rejected"]:
            reason = reasons.get(line["case"]) or meaning(line["code"])
            rejected.append(Rejection(files[line["case"]], line["code"], reason))
    lost = sum(line["files"] for line in lines)
    keys = [key for key in manifest.COLUMNS if any(key in row for row in rows)]
    made = Manifest(
        **about,
        shards=tuple(Shard(**content["shard"]) for content in contents),
        columns={key: [row.get(key) for row in rows] for key in keys},
        rejected=tuple(sorted(lines, key=lambda line: tuple(line.values()))),
        files={"all": found.files, "written": found.files - lost, "rejected": lost},
    )
    return Written(made, tuple(rejected), sum("reasons" not in one for one in contents))


# The folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep others from writing to it; it goes if nothing comes into it.

    Raises:
        CourseDataError: `LOCKED`; `DISK_FULL` for whatever finds no room while it is locked.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / LOCK, timeout=0):
            try:
                yield
            finally:
                for left in folder.glob(".*.tmp"):
                    left.unlink()
                if made and os.listdir(folder) == [LOCK]:
                    shutil.rmtree(folder, ignore_errors=True)
    except filelock.Timeout:
        raise CourseDataError("LOCKED", "another process holds this folder", [folder]) from None
    except OSError as error:
        need(error.errno not in NO_SPACE, "DISK_FULL", "the disk of the output is full")
        raise


def _prepare(folder: Path, jobs: list[Job], overwrite: bool) -> tuple[list[Job], list[Path]]:
    """Refuse a folder that holds something else, and clear what a killed run left there.

    Returns:
        The jobs without a note; shards of other sets, which are to go.
    """
    path, mine = folder / manifest.NAME, {job.file: job.fingerprint for job in jobs}
    if path.exists() and not overwrite:
        made = {shard.file: shard.fingerprint for shard in manifest.load(folder).shards}
        found = "a finished set of other cases, parameters or salt, or of inputs that have changed"
        need(made == mine, "OTHER_SET", found, path)
    known = b"".join(one.read_bytes() for one in folder.glob(f"*{path.name}*"))
    there = sorted(folder.glob("*.tfrecord"))
    foreign = [shard for shard in there if f'"{shard.name}"'.encode() not in known]
    need(not foreign, "FOREIGN_SHARD", f"{len(foreign)} shards that nobody here wrote", *foreign)
    keep = {*folder.glob(f".{path.name}.*")}
    for job in jobs:
        done, note = job.hidden(folder, "done"), job.hidden(folder, "note")
        # To overwrite is to trust no shard that has its final name.
        keep |= {done, note} if done.exists() or not overwrite else set()
    _clear(folder, keep)
    waiting = [job for job in jobs if not job.hidden(folder, "note").exists()]
    needed = sum(_size(case) for job in waiting for _, case in job.cases)
    free = shutil.disk_usage(folder).free
    need(needed <= free, "DISK_FULL", f"about {needed} bytes are needed, {free} are free")
    return waiting, [shard for shard in there if shard.name not in mine]


def _publish(folder: Path, jobs: list[Job], stale: list[Path], text: str) -> None:
    """Give the finished shards their names, and write the manifest last."""
    path, pending = folder / manifest.NAME, folder / f".{manifest.NAME}.{jobs[0].fingerprint}"
    done = [job for job in jobs if job.hidden(folder, "done").exists()]
    if done or not path.exists() or path.read_text("utf-8") != text:
        _put(pending, text)  # whatever needs room is written before the first name is given
        if path.exists():  # until the end it tells which shards were its own
            os.replace(path, folder / f".{path.name}.before")
        for job in done:
            os.replace(job.hidden(folder, "done"), folder / job.file)
        for shard in stale:
            shard.unlink()
        os.replace(pending, path)  # from here on it is this set
    _clear(folder, {job.hidden(folder, "note") for job in jobs})


def _clear(folder: Path, keep: Set[Path] = frozenset()) -> None:
    """Remove hidden files but these and the lock."""
    for left in {*folder.glob(".*.tfrecord.*"), *folder.glob(f".{manifest.NAME}.*")} - keep:
        left.unlink()


def _put(path: Path, text: str) -> None:
    """Write a text file in one step, and have it on the disk."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
