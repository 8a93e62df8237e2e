"""The folder of a set: one writer at a time, nothing foreign, names given when all is finished."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock

from helpers.errors import CourseDataError
from helpers.records import manifest, shards
from helpers.records.manifest import Manifest

JOB, LOCK = ".job", ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep others from writing to it.

    Raises:
        CourseDataError: `LOCKED`; `DISK_FULL` for whatever finds no room while it is locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / LOCK, timeout=0):
            yield
    except filelock.Timeout:
        raise CourseDataError(
            "LOCKED",
            "another process is writing to this folder; wait for it, or choose another folder",
            [folder / LOCK],
        ) from None
    except OSError as error:
        if error.errno in shards.NO_SPACE:
            raise shards.disk_full() from error
        raise


def refuse_other(folder: Path, jobs: list[shards.Job], overwrite: bool) -> None:
    """Refuse a folder with a finished set of something else; changes nothing.

    Raises:
        CourseDataError: `OTHER_SET`.
    """
    if (folder / manifest.NAME).exists() and not overwrite and not _is_of(folder, jobs):
        raise CourseDataError(
            "OTHER_SET",
            "this folder holds a finished set of other cases, parameters or salt, or its inputs "
            "have changed since; choose another folder, or overwrite it",
            [folder / manifest.NAME],
        )


def unfinished(folder: Path, jobs: list[shards.Job], overwrite: bool) -> list[shards.Job]:
    """The jobs that no earlier run has finished, as far as the notes tell."""
    if not folder.is_dir():
        return jobs
    if not overwrite and (folder / manifest.NAME).exists() and _is_of(folder, jobs):
        return []
    return [job for job in jobs if not shards.noted(folder, job)]


def need_space(folder: Path, jobs: list[shards.Job]) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        CourseDataError: `DISK_FULL`.
    """
    needed = sum(shards.size_of(case) for job in jobs for _, case in job.cases)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise shards.disk_full(needed, free)


def prepare(folder: Path, jobs: list[shards.Job], overwrite: bool) -> None:
    """Make room for this set: refuse another one, clear what a killed run left.

    Raises:
        CourseDataError: `OTHER_SET`, `FOREIGN_SHARD`.
    """
    refuse_other(folder, jobs, overwrite)
    partial = folder / shards.PARTIAL
    partial.mkdir(exist_ok=True)
    if (folder / manifest.NAME).exists() and not overwrite:
        _keep(folder, jobs)
    mine = {f"{job.file}{end}" for job in jobs for end in (shards.DONE, shards.NOTE)}
    for left in partial.iterdir():
        if left.name not in mine:
            left.unlink()
    noted = {path.name.removesuffix(shards.NOTE) for path in partial.glob(f"*{shards.NOTE}")}
    known = _listed(folder) | noted
    foreign = [path for path in folder.glob("*.tfrecord") if path.name not in known]
    if foreign:
        raise CourseDataError(
            "FOREIGN_SHARD",
            f"{len(foreign)} .tfrecord files in this folder were not written by this converter, or "
            "have lost their manifest; move them, or choose another folder",
            foreign,
        )


def _is_of(folder: Path, jobs: list[shards.Job]) -> bool:
    """Whether the finished set was made from just this."""
    made = {file: how for file, how in _job(folder).items() if file != manifest.NAME}
    return made == {job.file: job.fingerprint for job in jobs}


def _listed(folder: Path) -> set[str]:
    """Names of shards that a finished set has here, or had."""
    names = set(_job(folder))
    with contextlib.suppress(CourseDataError):
        names |= {shard.file for shard in manifest.load(folder).shards}
    return names


def _keep(folder: Path, jobs: list[shards.Job]) -> None:
    """Note what a finished set holds, so that its shards are verified and kept."""
    if manifest.sha256(folder / manifest.NAME) != _job(folder).get(manifest.NAME):
        return  # not the manifest that was written here: everything is written again
    found, made = manifest.load(folder), {job.file: job.fingerprint for job in jobs}
    for shard in found.shards:
        rejected = [
            (one["case"], one["code"], "") for one in found.rejected if one["shard"] == shard.file
        ]
        shards.note(folder, made[shard.file], shard, rejected)


def _job(folder: Path) -> dict[str, str]:
    """By shard, what it was made from, as a fingerprint; and the manifest's SHA-256."""
    try:
        return dict(json.loads((folder / JOB).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def discard(folder: Path) -> None:
    """Remove what was written of a set that has no record."""
    shutil.rmtree(folder / shards.PARTIAL)


def publish(folder: Path, jobs: list[shards.Job], content: Manifest) -> None:
    """Give the finished shards their names, and write the manifest last."""
    partial, target = folder / shards.PARTIAL, folder / manifest.NAME
    text = content.to_json()
    waiting = [job.file for job in jobs if shards.part(folder, job.file).exists()]
    try:
        unchanged = not waiting and target.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        unchanged = False
    if not unchanged:
        wanted = {job.file: job.fingerprint for job in jobs}
        # Whatever needs room on the disk is written before the first name is given.
        shards.put(partial / manifest.NAME, text)
        vouched = manifest.sha256(partial / manifest.NAME)
        shards.put(partial / JOB, json.dumps({**wanted, manifest.NAME: vouched}))
        # Only what lies in this folder, whatever somebody has written into the list.
        here = {path.name for path in folder.glob("*.tfrecord")}
        old = here & _listed(folder) - set(wanted)
        target.unlink(missing_ok=True)
        for file in waiting:
            os.replace(shards.part(folder, file), folder / file)
        for file in old:
            (folder / file).unlink(missing_ok=True)
        os.replace(partial / JOB, folder / JOB)
        shards.flush_folder(folder)
        os.replace(partial / manifest.NAME, target)
        shards.flush_folder(folder)
    shutil.rmtree(partial)
