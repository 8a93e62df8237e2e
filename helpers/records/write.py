"""Write a set of records: each shard complete or not there, and the manifest last.

While a shard is written, and until all are finished, its name is hidden and holds a fingerprint of
all that decides its bytes, so that another set never meets it. Beside each lies a note of its rows.
The same call again keeps every shard whose note and checksum are right, and goes on from there.
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
import re
import secrets
import shutil
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed, wait
from pathlib import Path

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
SALT_LENGTH = 8
LARGEST_WEIGHT = 2.0**127
LOCK = ".lock"
LISTED = r'"file": ?"(\w+-\d+-of-\d+\.tfrecord)"'  # shards in a manifest of any state and version
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


@dataclasses.dataclass(frozen=True)
class Job:
    """A shard to be written: its cases in their order, each with its hash, and how.

    Taught in: no lesson; the converter uses it
    """

    file: str
    split: str
    cases: tuple[tuple[str, Case], ...] = dataclasses.field(repr=False)
    parameters: str = dataclasses.field(repr=False)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes when a case, a parameter or an input file (by size and time) changes."""
        parts: list[object] = [self.file, self.parameters]
        for name, case in self.cases:
            parts += [name, case.label, case.weight]
            for file in filter(os.path.exists, case.files):
                parts += [os.stat(file).st_size, os.stat(file).st_mtime_ns]
        return hashlib.sha256(json.dumps(parts, default=float).encode()).hexdigest()[:16]

    def hidden(self, folder: Path, end: str) -> Path:
        """A name that no other set has: "done", "note", or of what is unfinished."""
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
        survey: gives the ids in the mask of a case; needed where there are masks. It is asked for
            every case before the first record is written, but not for shards that an interrupted
            run has finished.
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
    folder = Path(folder)
    pairs = classes.items() if isinstance(classes, Mapping) else enumerate(classes or ())
    names = {int(number): str(name) for number, name in pairs}
    module, described = _described(load)
    here = executor is not None or workers == 1
    _check_arguments(found.cases, schema, salt, names, here or module != "__main__")
    splits.check(found.cases)
    mapping = getattr(load, "keywords", {}).get("mapping")
    mapping = mapping and {str(old): int(new) for old, new in mapping.items()}
    parameters = {"seed": seed, "shard_count": shard_count, "mapping": mapping}
    about = {"schema": schema, "parameters": parameters, "classes": names}
    jobs = plan(found.cases, salt, seed, shard_count, json.dumps([about, described]))
    allowed = frozenset(names) if survey else None
    place = None if dry_run else folder
    work = functools.partial(write_shard, SCHEMAS[schema].encode, load, allowed, place)
    lock = contextlib.nullcontext() if dry_run else _locked(folder)
    with lock, _pool(executor, workers, len(jobs)) as pool:  # no worker outlives the lock
        waiting, stale = (jobs, set()) if dry_run else _prepare(folder, jobs, overwrite)
        if survey:
            cases = [case for job in waiting for _, case in job.cases]
            ask = functools.partial(_survey, survey, names)
            _refuse_unknown(_all(pool, ask, cases, "checking masks", not progress), names)
        contents = _all(pool, work, jobs, "checking" if dry_run else "writing", not progress)
        contents.sort(key=lambda content: content["shard"]["file"])
        if place and not any(content["rows"] for content in contents):
            _clear(folder)
        written = _summary(found, about, jobs, contents)
        if place:
            _publish(folder, jobs, stale, written.manifest.to_json())
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
        size = sum(size_of(case) for _, case in named)
        count = min(shard_count or max(-(-size // SHARD_BYTES), 4), len(named))
        for number, chosen in enumerate(np.array_split(order, count)):
            file = f"{split}-{number:05d}-of-{count:05d}.tfrecord"
            jobs.append(Job(file, split, tuple(named[n] for n in chosen), parameters))
    return jobs


def size_of(case: Case) -> int:
    """Bytes that a case may need: its own statement, else the size of its files.

    Taught in: no lesson; the converter uses it
    """
    return case.size or sum(os.stat(file).st_size for file in filter(os.path.isfile, case.files))


def _check_arguments(
    cases: Sequence[Case], schema: str, salt: str, names: Mapping[int, str], importable: bool
) -> None:
    """Refuse what would make every record wrong.

    Raises:
        CourseDataError: `UNKNOWN_LABEL` for labels that nobody has named, or of unequal lengths.
            Where a case has several labels, -1 stands for one that is not known.
        ValueError: with what to pass instead.
    """
    labelled = [case for case in cases if case.label is not None]
    lengths = {np.size(case.label) for case in labelled}
    words = all(re.fullmatch("[A-Za-z0-9_]+", case.split) for case in cases)
    wrong = {
        f"schema can be {', '.join(SCHEMAS)}, not {schema!r}": schema not in SCHEMAS,
        f"a salt of less than {SALT_LENGTH} characters keeps no secret": len(salt) < SALT_LENGTH,
        "this schema needs labels": schema == "classification" and len(labelled) < len(cases),
        "the name of a split has letters, digits and underscores only": not words,
        "workers import `load`: put it in a module, or pass workers=1": not importable,
    }
    for problem in (problem for problem, is_so in wrong.items() if is_so):
        raise ValueError(problem)
    known = {*names, -1} if any(isinstance(case.label, tuple) for case in labelled) else {*names}
    strange = [(c.files, {*np.atleast_1d(c.label).tolist()} - known) for c in labelled]
    _refuse_unknown(strange, names)
    found = f"cases with {sorted(lengths)} labels each, expected one number, at least 1"
    need(len(lengths) < 2 and 0 not in lengths, "UNKNOWN_LABEL", found)


def _refuse_unknown(found: Sequence[tuple], names: Mapping[int, str]) -> None:
    """Refuse ids that nobody has named; `found` has the files of each case and its unknown ids."""
    strange = sorted((pair for pair in found if pair[1]), key=lambda pair: pair[0])
    ids = sorted(set().union(*(ids for _, ids in strange)))
    words = f"found the ids {listed(ids)}, the classes are {sorted(names)}"
    need(not ids, "UNKNOWN_LABEL", words, *(file for files, _ in strange for file in files))


def _survey(survey: Callable, names: Mapping[int, str], case: Case) -> tuple:
    """Files of a case, and the ids in its mask that nobody has named."""
    try:
        return case.files, set(survey(case)) - names.keys()
    except (CourseDataError, OSError) as error:
        if getattr(error, "code", "") == "UNKNOWN_LABEL":
            raise
        return case.files, set()  # reading the case will say what is wrong


def _described(load: Callable) -> tuple[str, str]:
    """The module of a loader; and its name and arguments, which are only ever hashed."""
    arguments = []
    while isinstance(load, functools.partial):
        arguments += [load.args, sorted(load.keywords.items())]
        load = load.func
    name = getattr(load, "__qualname__", type(load).__qualname__)
    return load.__module__, f"{load.__module__}.{name} {arguments}"


# Work, here or in other processes


@contextlib.contextmanager
def _pool(executor: Executor | None, workers: int | None, jobs: int) -> Iterator[Executor | None]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(workers or cores or 1, max(jobs, 1))
    if executor or workers == 1:
        yield executor
        return
    # Spawned, not forked: a process that has TensorFlow's threads cannot be forked safely.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        yield pool


def _end_with_parent() -> None:
    """In a worker: do not outlive a parent that was killed, and write into its folder."""
    join = multiprocessing.parent_process().join
    threading.Thread(target=lambda: (join(), os._exit(1)), daemon=True).start()


def _all(pool: Executor | None, work: Callable, items: Sequence, title: str, quiet: bool) -> list:
    """What `work` makes of each item: through the pool in any order, or one by one here."""
    bar = functools.partial(tqdm, desc=title, total=len(items), disable=quiet)
    if pool is None:
        return [work(item) for item in bar(items)]
    waiting = [pool.submit(work, item) for item in items]
    try:
        return [future.result() for future in bar(as_completed(waiting))]
    finally:
        wait([future for future in waiting if not future.cancel()])


def write_shard(
    encode: Callable,
    load: Callable[[Case], dict],
    allowed: frozenset[int] | None,
    folder: Path | None,
    job: Job,
) -> dict:
    """Write a shard under its hidden name, or find it finished.

    Args:
        encode: makes features of an element, its case's hash and the case.
        load: gives the element of a case; a `CourseDataError` rejects the case.
        allowed: ids that masks may hold; None if nobody has looked at them.
        folder: of the set; None reads and counts everything and writes nothing.
        job: the cases, and the shard's name.

    Returns:
        `shard`, the `rows` of its records, `rejected`: hash, code and reason of each other case,
        and whether it was `kept`. The note beside the shard has codes only: reasons may quote
        what a file holds.

    Taught in: writing TFRecords
    """
    if folder and (content := _finished(job, folder)):
        return content | {"kept": True}
    rows, rejected = [], []
    temporary = _complete(job.hidden(folder, "done")) if folder else contextlib.nullcontext()
    with temporary as path, tfrecord.Writer(path) as writer:
        for name, case in job.cases:
            try:
                element = load(case)
                features = encode(element, name, case)
                known = row(features, element)
                _check_ids(known, allowed)
                message, starts = tfrecord.example(features)
            except (CourseDataError, OSError) as error:
                if getattr(error, "errno", None) in NO_SPACE:
                    raise
                code = getattr(error, "code", "UNREADABLE")
                reason = getattr(error, "message", "") or error.strerror or meaning(code)
                rejected.append((name, code, reason))
                continue
            except Exception as error:
                error.add_note(f"while reading case {name} for {job.file}")
                raise
            begin = writer.write(message)
            places = {PLACES[key]: begin + at for key, at in starts.items() if key in PLACES}
            rows.append(known | places)
    sha256, size = writer.sha256.hexdigest(), writer.bytes
    shard = vars(Shard(job.file, job.split, len(rows), size, sha256, job.fingerprint))
    content = {"shard": shard, "rows": rows, "rejected": rejected}
    if folder:
        codes = [(name, code, "") for name, code, _ in rejected]
        _put(job.hidden(folder, "note"), json.dumps(content | {"rejected": codes}))
    return content


def _check_ids(known: dict, allowed: frozenset[int] | None) -> None:
    """The survey has seen every mask; this is for a file that changed since, or a wrong survey."""
    ids = set(map(int, known.get("voxels", ())))
    if ids and allowed is None:
        raise ValueError("there are masks, and nobody looked at their ids: pass `survey`")
    strange = listed(sorted(ids - (allowed or set())))
    need(not strange, "UNKNOWN_LABEL", f"ids in the mask that the survey has not shown: {strange}")


def _finished(job: Job, folder: Path) -> dict | None:
    """What an earlier run has left of this job, if it is whole."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(job.hidden(folder, "note").read_text(encoding="utf-8"))
        # It has its own name if it was finished before, or if naming the shards was interrupted.
        for path in (job.hidden(folder, "done"), folder / job.file):
            if path.is_file() and manifest.sha256(path) == content["shard"]["sha256"]:
                return content
    return None


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
                if made and os.listdir(folder) == [LOCK]:
                    shutil.rmtree(folder, ignore_errors=True)
    except filelock.Timeout:
        raise CourseDataError("LOCKED", "another process holds this folder", [folder]) from None
    except OSError as error:
        need(error.errno not in NO_SPACE, "DISK_FULL", "the disk of the output is full")
        raise


def _prepare(folder: Path, jobs: list[Job], overwrite: bool) -> tuple[list[Job], set[str]]:
    """Refuse a folder that holds something else, and clear what a killed run left there.

    Returns:
        The jobs that are not finished, as far as their notes tell; shards that are to go.
    """
    path, mine = folder / manifest.NAME, {job.file: job.fingerprint for job in jobs}
    if path.exists() and not overwrite:
        made = {shard.file: shard.fingerprint for shard in manifest.load(folder).shards}
        found = "a finished set of other cases, parameters or salt, or of inputs that have changed"
        need(made == mine, "OTHER_SET", found, path)
    texts = [one.read_bytes().decode("utf-8", "replace") for one in folder.glob(f"*{path.name}*")]
    known = {name for text in texts for name in re.findall(LISTED, text)}
    known |= {note.name[1:].rsplit(".", 2)[0] for note in folder.glob(".*.note")}
    there = {shard.name for shard in folder.glob("*.tfrecord")}
    foreign = [folder / name for name in sorted(there - known)]
    need(not foreign, "FOREIGN_SHARD", f"{len(foreign)} shards that nobody here wrote", *foreign)
    done = {job.hidden(folder, "done") for job in jobs}
    for left in {*folder.glob(".*.tfrecord.*.done"), *folder.glob(".*.tmp")} - done:
        left.unlink()
    for job in jobs if path.exists() and overwrite else ():
        if not job.hidden(folder, "done").exists():  # the note of what is to be replaced
            job.hidden(folder, "note").unlink(missing_ok=True)
    waiting = [job for job in jobs if not job.hidden(folder, "note").exists()]
    needed = sum(size_of(case) for job in waiting for _, case in job.cases)
    free = shutil.disk_usage(folder).free
    need(needed <= free, "DISK_FULL", f"about {needed} bytes are needed, {free} are free")
    return waiting, there - mine.keys()


def _publish(folder: Path, jobs: list[Job], stale: set[str], text: str) -> None:
    """Give the finished shards their names, and write the manifest last."""
    path, pending = folder / manifest.NAME, folder / f".{manifest.NAME}.next"
    changed = not path.exists() or path.read_bytes() != text.encode()
    if changed:
        _put(pending, text)  # whatever needs room is written before the first name is given
        if path.exists():  # until the end it tells which shards were its own
            os.replace(path, folder / f".{manifest.NAME}.before")
    for job in jobs:
        with contextlib.suppress(FileNotFoundError):
            os.replace(job.hidden(folder, "done"), folder / job.file)
    for name in stale:
        (folder / name).unlink()
    if changed:
        os.replace(pending, path)  # from here on it is this set
    _clear(folder, keep={job.hidden(folder, "note") for job in jobs})


def _clear(folder: Path, keep: Set[Path] = frozenset()) -> None:
    """Remove hidden files of runs before, but for the notes of this one."""
    hidden = {*folder.glob(".*.tfrecord.*"), *folder.glob(f".{manifest.NAME}.*")}
    for left in hidden - keep:
        left.unlink()


@contextlib.contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """Another name for a file until it is whole; what is left under it is removed."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _put(path: Path, text: str) -> None:
    """Write a text file in one step, and have it on the disk."""
    with _complete(path) as temporary, open(temporary, "x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _summary(found: Found, about: dict, jobs: list[Job], contents: list[dict]) -> Written:
    """What was done: every input file ends in a shard or in the report."""
    rows = [row for content in contents for row in content["rows"]]
    refused = [("", one, "") for one in found.rejected]
    files = {name: case.files for job in jobs for name, case in job.cases}
    for content in contents:
        for name, code, reason in content["rejected"]:
            one = Rejection(files[name], code, reason or meaning(code))
            refused.append((name, one, content["shard"]["file"]))
    lines = [
        {"case": name, "code": one.code, "files": len(one.files), "shard": shard}
        for name, one, shard in refused
    ]
    lost = sum(line["files"] for line in lines)
    keys = [key for key in manifest.COLUMNS if any(key in row for row in rows)]
    made = Manifest(
        **about,
        shards=tuple(Shard(**content["shard"]) for content in contents),
        columns={key: [row.get(key) for row in rows] for key in keys},
        rejected=tuple(sorted(lines, key=lambda line: tuple(line.values()))),
        files={"all": found.files, "written": found.files - lost, "rejected": lost},
    )
    rejected, kept = tuple(one for _, one, _ in refused), sum("kept" in one for one in contents)
    codes = dict(Counter(one.code for one in rejected))
    error = CourseDataError("NOTHING_WRITTEN", f"of {len(files)} cases; rejected: {codes}")
    error.rejected = rejected
    if not rows:
        raise error
    return Written(made, rejected, kept)
