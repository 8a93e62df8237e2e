"""Write a set of records: share the shards out to workers, publish when all are finished."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from helpers import datalist
from helpers.cases import Case, Found, Rejection, case_hash
from helpers.errors import CODES, CourseDataError
from helpers.records import folders, refusals, shards
from helpers.records.manifest import Manifest

SHARD_BYTES = 128 * 2**20  # as large as one reader likes to take at a time


@dataclasses.dataclass(frozen=True)
class Written:
    """What `write` did: the manifest, and each rejection with its files and its reason."""

    manifest: Manifest
    rejected: tuple[Rejection, ...] = dataclasses.field(repr=False)
    kept: int  # shards that an earlier run had finished


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

    Files are called `SPLIT-00000-of-00004.tfrecord`. Equal cases, seed and salt give equal bytes,
    whatever the number of workers and the order of the cases. Interrupted, the same call goes on
    where it stopped; called again on a finished set, it verifies every byte and changes nothing.

    Args:
        folder: of the set, made if it is missing. One process writes to it at a time.
        found: the cases, and the input files that are none, from a `sources_...` module.
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
            written; `DISK_FULL`, `LOCKED`, `OTHER_SET`, `FOREIGN_SHARD`; `NOTHING_WRITTEN` if no
            case became a record.
        ValueError: for arguments that cannot be meant.
    """
    folder = Path(folder)
    names = _class_names(classes)
    here = executor is not None or workers == 1
    refusals.check_arguments(schema, load, salt, names, survey, found.cases, here)
    datalist.check_splits(found.cases)
    refusals.check_labels(found.cases, names)
    parameters = {
        "seed": seed,
        "shard_count": shard_count,
        "mapping": _stated(load, "mapping"),
        "classes": names,
    }
    allowed = frozenset(names) if survey else None
    described = _described(load, parameters)
    jobs = plan(found.cases, schema, salt, seed, shard_count, described, allowed)
    waiting = jobs
    if not dry_run:  # what can be told from the folder comes before what takes time
        folders.refuse_other(folder, jobs, overwrite)
        waiting = folders.unfinished(folder, jobs, overwrite)
        folders.need_space(folder, waiting)
    with _pool(executor, workers, len(jobs)) as pool:
        if survey:
            cases = [case for job in waiting for _, case in job.cases]
            refusals.check_masks(_survey(pool, cases, survey, progress), names)
        if dry_run:
            results = _run(pool, jobs, None, load, progress)
            return _summary(found, schema, parameters, names, jobs, results)
        with folders.locked(folder):
            folders.prepare(folder, jobs, overwrite)
            results = _run(pool, jobs, folder, load, progress)
            try:
                written = _summary(found, schema, parameters, names, jobs, results)
            except CourseDataError:
                folders.discard(folder)
                raise
            folders.publish(folder, jobs, written.manifest)
    return written


def plan(
    cases: Sequence[Case],
    schema: str,
    salt: str,
    seed: int,
    shard_count: int | None,
    parameters: str = "",
    allowed: frozenset[int] | None = None,
) -> list[shards.Job]:
    """Which cases go into which shard: fixed by the cases, the salt and the seed."""
    jobs = []
    for split in sorted({case.split for case in cases}):
        named = [
            (case_hash(salt, case.patient, case.name), case)
            for case in cases
            if case.split == split
        ]
        named.sort(key=lambda pair: pair[0])
        order = np.random.default_rng([seed, zlib.crc32(split.encode())]).permutation(len(named))
        size = sum(shards.size_of(case) for _, case in named)
        count = shard_count or max(-(-size // SHARD_BYTES), 4)
        count = min(count, len(named))
        for number, chosen in enumerate(np.array_split(order, count)):
            file = f"{split}-{number:05d}-of-{count:05d}.tfrecord"
            chosen_cases = tuple(named[i] for i in chosen)
            jobs.append(shards.Job(file, split, chosen_cases, schema, parameters, allowed))
    return jobs


def _class_names(classes) -> dict[int, str] | None:
    if classes is None:
        return None
    pairs = classes.items() if isinstance(classes, Mapping) else enumerate(classes)
    return {int(number): str(name) for number, name in pairs}


def _stated(load: Callable, name: str) -> dict[str, int] | None:
    """A mapping of ids that a partial function was given, for the manifest."""
    mapping = getattr(load, "keywords", {}).get(name)
    return None if mapping is None else {str(old): int(new) for old, new in mapping.items()}


def _described(load: Callable, parameters: dict) -> str:
    """All that decides what is written, besides cases and files; it is only ever hashed."""
    function, arguments = load, []
    while isinstance(function, functools.partial):
        arguments.append((function.args, sorted(function.keywords.items())))
        function = function.func
    name = [getattr(function, key, repr(function)) for key in ("__module__", "__qualname__")]
    return json.dumps([name, repr(arguments), parameters], sort_keys=True)


def _each(pool: Executor | None, work: Callable, items: Sequence) -> Iterator[tuple]:
    """(item, result) for each item: through the pool in any order, or one by one here."""
    if pool is None:
        yield from ((item, work(item)) for item in items)
        return
    waiting = {pool.submit(work, item): item for item in items}
    try:
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:
        for future in waiting:
            future.cancel()


def _survey(pool, cases, survey, progress) -> Iterator[tuple[Case, frozenset[int]]]:
    asked = _each(pool, functools.partial(refusals.ids_of, survey), cases)
    yield from tqdm(asked, "checking masks", len(cases), unit="case", disable=not progress)


def _run(pool, jobs, folder, load, progress) -> list[shards.Result]:
    work = functools.partial(shards.write_shard, folder=folder, load=load)
    title = "checking" if folder is None else "writing"
    total = sum(len(job.cases) for job in jobs)
    results = []
    with tqdm(desc=title, total=total, unit="case", disable=not progress) as bar:
        for job, result in _each(pool, work, jobs):
            results.append(result)
            bar.update(len(job.cases))
    return sorted(results, key=lambda result: result.shard.file)


def _cores() -> int:
    """Cores that this process may use, which on a shared computer can be less than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _pool(executor: Executor | None, workers: int | None, jobs: int) -> Iterator[Executor | None]:
    workers = min(workers or _cores(), max(jobs, 1))
    if executor or workers == 1:
        yield executor
        return
    # Spawned, not forked: a process that has TensorFlow's threads cannot be forked safely.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        yield pool


def _end_with_parent() -> None:
    """In a worker: do not outlive a parent that was killed, and write into its folder."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _summary(found: Found, schema, parameters, names, jobs, results) -> Written:
    """What the workers have done: every input file ends in a shard or in the report."""
    case_of = {name: case for job in jobs for name, case in job.cases}
    rejected = [(Rejection(one.files, one.code, one.reason), "", "") for one in found.rejected]
    for result in results:
        for name, code, reason in result.rejected:
            refusal = Rejection(case_of[name].files, code, reason or CODES[code])
            rejected.append((refusal, name, result.shard.file))
    listed = [
        {"case": name, "code": one.code, "files": len(one.files), "shard": file}
        for one, name, file in rejected
    ]
    listed.sort(key=lambda entry: tuple(entry.values()))
    lost = sum(entry["files"] for entry in listed)
    content = Manifest(
        schema=schema,
        parameters={key: value for key, value in parameters.items() if key != "classes"},
        classes=names or {},
        shards=tuple(result.shard for result in results),
        rejected=tuple(listed),
        files={"all": found.files, "written": found.files - lost, "rejected": lost},
    )
    kept = sum(result.kept for result in results)
    written = Written(content, tuple(one for one, _, _ in rejected), kept)
    if not content.records:
        counts = Counter(one.code for one in written.rejected)
        reasons = ", ".join(f"{count} {code}" for code, count in sorted(counts.items()))
        error = CourseDataError(
            "NOTHING_WRITTEN",
            f"none of {len(found.cases)} cases became a record; rejected: {reasons or 'nothing'}",
        )
        error.rejected = written.rejected
        raise error
    return written
