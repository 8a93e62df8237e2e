"""Write a set of records: each shard complete or not there, and the manifest last.

Shards grow in a hidden folder, and get their places when all are finished. A shard is finished when
it has a note there: its SHA-256, and its rows of the manifest. A note's name holds a fingerprint of
all that decides what is in the set, so that another set never meets it. The manifest alone makes a
set: before a shard of a finished set is replaced, its manifest goes.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, wait
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
from helpers.records.schema import SCHEMAS

SHARD_BYTES = 128 * 2**20  # as large as one reader likes to take at a time
HIDDEN, LOCK = ".records", "lock"
ARRAYS = ("image", "mask")  # the manifest says where they begin
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Written(NamedTuple):
    """What `write` did: the manifest, each rejection with its files and its reason, shards kept.

    Taught in: writing TFRecords
    """

    manifest: Manifest
    rejected: tuple[Rejection, ...]
    kept: int


class Job(NamedTuple):
    """A shard to be written: its cases in their order, each with its hash; where its note lies.

    Taught in: no lesson; the converter uses it
    """

    file: str
    cases: list[tuple[str, Case]]
    note: Path | None = None


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
    _check_arguments(found.cases, salt, names)
    if schema == "classification" and any(case.label is None for case in found.cases):
        raise ValueError("this schema needs labels")
    splits.check(found.cases)
    function = getattr(load, "func", load)
    keywords = getattr(load, "keywords", {})
    if function.__module__ == "__main__" and executor is None and workers != 1:
        raise ValueError("workers import `load`: put it in a module, or pass workers=1")
    loader = (function.__module__, function.__qualname__, getattr(load, "args", ()), keywords)
    mapping = keywords.get("mapping")
    parameters = {"seed": seed, "shard_count": shard_count, "mapping": mapping and str(mapping)}
    about = {"schema": schema, "parameters": parameters, "classes": names}
    jobs = plan(found.cases, salt, seed, shard_count)
    about["fingerprint"] = mark = _fingerprint(jobs, about, loader)
    if place:
        jobs = [job._replace(note=place / HIDDEN / f"{job.file}.{mark}.json") for job in jobs]
    lock = _locked(place) if place else contextlib.nullcontext()
    with lock, _pool(executor, workers) as pool:  # no worker outlives the lock
        if place:
            _prepare(place, jobs, mark, overwrite)
        if survey:
            waiting = [job for job in jobs if not (job.note and job.note.exists())]
            cases = [case for job in waiting for _, case in job.cases]
            ask = functools.partial(_ids, survey)
            _need_known(cases, _all(pool, ask, cases, "checking masks", progress), {*names})
        work = functools.partial(write_shard, SCHEMAS[schema].encode, load, names)
        outcomes = _all(pool, work, jobs, "writing" if place else "checking", progress)
        written = _summary(found, about, outcomes)
        if not written.manifest.records:
            _forget(jobs if place else [])
            codes = dict(Counter(one.code for one in written.rejected))
            error = CourseDataError("NOTHING_WRITTEN", f"{len(found.cases)} cases; found: {codes}")
            error.rejected = written.rejected
            raise error
        if place:
            _publish(place, jobs, written.manifest)
    return written


# Before the first record


def plan(cases: Sequence[Case], salt: str, seed: int, shard_count: int | None) -> list[Job]:
    """Which cases go into which shard: fixed by the cases, the salt and the seed.

    Args:
        cases: in any order, which changes nothing.
        salt, seed, shard_count: as for `write`.

    Taught in: writing TFRecords
    """
    jobs = []
    for split in sorted({case.split for case in cases}):
        named = [(case_hash(salt, c.patient, c.name), c) for c in cases if c.split == split]
        named.sort(key=lambda pair: pair[0])
        order = np.random.default_rng([seed, zlib.crc32(split.encode())]).permutation(len(named))
        size = sum(case.size or sum(size for size, _ in _stats(case)) for _, case in named)
        count = min(shard_count or max(-(-size // SHARD_BYTES), 4), len(named))
        for number, chosen in enumerate(np.array_split(order, count)):
            file = f"{split}-{number:05d}-of-{count:05d}.tfrecord"
            jobs.append(Job(file, [named[n] for n in chosen]))
    return jobs


def _stats(case: Case) -> list[tuple[int, int]]:
    """Size and time of each file of a case."""
    stats = [os.stat(file) for file in case.files if os.path.isfile(file)]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _fingerprint(jobs: list[Job], *parameters: object) -> str:
    """Changes with a parameter, a case, or an input file."""
    parts = [*parameters]
    for job in jobs:
        for name, case in job.cases:
            parts.append((job.file, name, case.label, case.weight, _stats(case)))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _check_arguments(cases: Sequence[Case], salt: str, names: dict[int, str]) -> None:
    """Refuse what would make every record wrong, and nobody would see it.

    Where a case has several labels, -1 stands for one that is not known.
    """
    labelled = [case for case in cases if case.label is not None]
    labels = [np.ravel(case.label).tolist() for case in labelled]
    if len(salt) < 8:
        raise ValueError("a salt of less than 8 characters keeps no secret")
    words = {case.split.replace("_", "0") for case in cases}
    if not all(word.isascii() and word.isalnum() for word in words):
        raise ValueError("the name of a split has letters, digits and underscores only")
    counts = sorted({len(several) for several in labels})
    found = f"cases with {counts} labels each, expected one number"
    need(len(counts) < 2, "UNKNOWN_LABEL", found)
    _need_known(labelled, labels, {*names, -1} if counts > [1] else {*names})


def _need_known(cases: Sequence[Case], ids_of_each: Sequence, known: set[int]) -> None:
    """Refuse ids that nobody has named."""
    strange = [{*ids} - known for ids in ids_of_each]
    ids = sorted(set().union(*strange))
    files = [file for case, some in zip(cases, strange, strict=True) if some for file in case.files]
    found = f"found the ids {listed(ids)}, the classes are {sorted(known)}"
    need(not ids, "UNKNOWN_LABEL", found, *files)


def _ids(survey: Callable, case: Case) -> frozenset[int]:
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
    import joblib

    workers = workers or joblib.cpu_count()  # those that this process may use
    if executor or workers == 1:
        return contextlib.nullcontext(executor)
    # Spawned, not forked: a process that has TensorFlow's threads cannot be forked safely.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    """In a worker: do not outlive a parent that was killed, and write into its folder."""
    join = multiprocessing.parent_process().join
    threading.Thread(target=lambda: (join(), os._exit(1)), daemon=True).start()


def _all(pool: Executor | None, work: Callable, items: list, title: str, progress: bool) -> list:
    """What `work` makes of each item, in their order; nothing is under way when it ends."""
    waiting = [pool.submit(work, item) for item in items] if pool else []
    made = (one.result() for one in waiting) if pool else map(work, items)
    try:
        return list(tqdm(made, title, len(items), disable=not progress))
    finally:
        wait([one for one in waiting if not one.cancel()])


def write_shard(encode: Callable, load: Callable, names: Mapping[int, str], job: Job) -> tuple:
    """Write a shard into the hidden folder, and then its note; or find it finished.

    Args:
        encode: makes features and a row of an element, its case's hash and the case.
        load: gives the element of a case; a `CourseDataError` rejects the case.
        names: of the classes. The survey has seen every mask; here it is looked at again, for a
            file that changed since, and because there may be no survey.
        job: the cases, and the shard's name. Without a note everything is read and nothing written.

    Returns:
        What the note says: `shard`, `rows` of records and of `rejected` cases for the manifest.
        The rejections, whose reasons may quote what a file holds, so that no note has them. And
        whether an earlier run has finished the shard.

    Taught in: no lesson; the converter uses it
    """
    if noted := _noted(job):
        files = {name: case.files for name, case in job.cases}
        told = [(one["case"], one["code"]) for one in noted["rejected"]]
        return noted, [Rejection(files[name], code, meaning(code)) for name, code in told], True
    _forget([job] if job.note else [])
    rows = []
    lines = []
    rejected = []
    with tfrecord.Writer(job.note and job.note.parent / job.file) as writer:
        for name, case in job.cases:
            try:
                features, row = encode(load(case), name, case)
                strange = {*map(int, row.get("voxels", ()))} - names.keys()
                need(not strange, "UNKNOWN_LABEL", f"ids in the mask: {sorted(strange)}")
                message, starts = tfrecord.example(features)
            except (CourseDataError, OSError) as error:
                code = getattr(error, "code", "UNREADABLE")
                reason = getattr(error, "message", "") or error.strerror or meaning(code)
                rejected.append(Rejection(case.files, code, reason))
                lines.append({"case": name, "code": code, "files": len(case.files)})
            except Exception as error:
                error.add_note(f"while reading case {name} for {job.file}")
                raise
            else:
                begin = writer.write(message)
                places = {f"{key}_at": begin + starts[key] for key in ARRAYS if key in starts}
                rows.append({"shard": job.file} | row | places)
    shard = {"file": job.file, "records": len(rows), "bytes": writer.bytes}
    shard["sha256"] = writer.sha256.hexdigest()
    content = {"shard": shard, "rows": rows, "rejected": lines}
    if job.note:
        manifest.put(job.note, json.dumps(content))
    return content, rejected, False


def _noted(job: Job) -> dict | None:
    """What the note says of a shard that an earlier run has finished."""
    if job.note and job.note.exists():
        with contextlib.suppress(json.JSONDecodeError, FileNotFoundError):  # half a note; no shard
            content = json.loads(job.note.read_text("utf-8"))
            growing, placed = (folder / job.file for folder in job.note.parents[:2])
            path = growing if growing.exists() else placed
            if manifest.sha256(path) == content["shard"]["sha256"]:
                return content
    return None


def _summary(found: Found, about: dict, outcomes: list[tuple]) -> Written:
    """What was done: every input file ends in a shard or in the report."""
    lines = [{"case": "", "code": one.code, "files": len(one.files)} for one in found.rejected]
    rejected = [*found.rejected]
    rows = []
    for content, told, _ in outcomes:
        rows += content["rows"]
        lines += content["rejected"]
        rejected += told
    lost = sum(len(one.files) for one in rejected)
    keys = dict.fromkeys(key for row in rows for key in row)
    made = Manifest(
        **about,
        shards=tuple(Shard(**content["shard"]) for content, _, _ in outcomes),
        columns={key: [row.get(key) for row in rows] for key in keys},
        rejected=sorted(lines, key=lambda line: [*line.values()]),
        files={"all": found.files, "written": found.files - lost, "rejected": lost},
    )
    return Written(made, tuple(rejected), sum(kept for _, _, kept in outcomes))


# The folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep others out; it goes if nothing comes into it.

    Raises:
        CourseDataError: `LOCKED`; `DISK_FULL` for whatever finds no room while it is locked.
    """
    made = not folder.exists()
    hidden = folder / HIDDEN
    try:
        hidden.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(hidden / LOCK, timeout=0):
            try:
                yield
            finally:
                if made and os.listdir(hidden) == [LOCK]:
                    shutil.rmtree(folder)
    except filelock.Timeout:
        raise CourseDataError("LOCKED", "another process holds this folder", [folder]) from None
    except OSError as error:
        need(error.errno not in NO_SPACE, "DISK_FULL", "the disk of the output is full")
        raise


def _prepare(folder: Path, jobs: list[Job], mark: str, overwrite: bool) -> None:
    """Refuse a folder that holds something else."""
    path = folder / manifest.NAME
    hidden = folder / HIDDEN
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    if text and not overwrite:
        found = "a finished set of other cases, parameters or salt, or of inputs that have changed"
        need(manifest.load(folder).fingerprint == mark, "OTHER_SET", found, path)
    noted = {note.name.partition(".")[0] for note in hidden.glob("*.json")}
    shards = [*folder.glob("*.tfrecord")]
    foreign = [one for one in shards if one.stem not in noted and f'"{one.name}"' not in text]
    need(not foreign, "FOREIGN_SHARD", f"{len(foreign)} shards that nobody here wrote", *foreign)
    if text and overwrite:  # trust nothing that was finished
        _forget(jobs)


def _publish(folder: Path, jobs: list[Job], made: Manifest) -> None:
    """Give the finished shards their places, and write the manifest last."""
    path = folder / manifest.NAME
    hidden = folder / HIDDEN
    pending = hidden / "pending"
    files = [job.file for job in jobs]
    manifest.put(pending, made.to_json())  # whatever needs room comes before the first name
    growing = [hidden / file for file in files if (hidden / file).exists()]
    if growing:
        path.unlink(missing_ok=True)
    for shard in folder.glob("*.tfrecord"):
        if shard.name not in files:  # of the set that was here
            shard.unlink()
    for shard in growing:
        os.replace(shard, folder / shard.name)
    os.replace(pending, path)  # from here on it is this set
    for left in {*hidden.iterdir()} - {hidden / LOCK, *(job.note for job in jobs)}:
        left.unlink()


def _forget(jobs: list[Job]) -> None:
    """Remove what is in the hidden folder of some shards."""
    for job in jobs:
        for path in (job.note, job.note.parent / job.file):
            path.unlink(missing_ok=True)
