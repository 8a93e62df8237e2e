"""Cases become shards and a manifest: the same bytes every time, every file accounted for."""

import dataclasses
import functools
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from helpers import records
from helpers.cases import Found, Rejection
from helpers.errors import CourseDataError
from tests import records_cases as some
from tests.records_cases import PATIENT, REASON, case, cases, digests, ending, name_of, write

FOURTEEN = cases(14, test=4)
posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")
pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def python(code: str, *arguments) -> subprocess.Popen:
    """A script that has `records_cases`, in a process of its own."""
    command = [sys.executable, "-c", f"from tests.records_cases import *\n{code}"]
    command += map(str, arguments)
    return subprocess.Popen(command, cwd=some.ROOT, stdout=subprocess.PIPE, text=True)


def test_whoever_writes_in_whatever_order_the_bytes_are_the_same(tmp_path):
    first = write(tmp_path / "first", FOURTEEN, some.refusing, shard_count=3).manifest
    shuffled = tuple(random.Random(1).sample(FOURTEEN, 14))
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(1, spawn) as processes:
        ways = [{}, {"workers": 2}, {"executor": threads}, {"executor": processes}]
        for n, how in enumerate(ways):
            again = write(tmp_path / str(n), shuffled, some.refusing, shard_count=3, **how)
            assert digests(tmp_path / str(n)) == digests(tmp_path / "first"), how
            assert again.manifest == first and again.kept == 0
    for changed in ({"seed": 1}, {"salt": "another secret"}):
        other = write(tmp_path, FOURTEEN, some.refusing, shard_count=3, dry_run=True, **changed)
        assert [one.sha256 for one in other.manifest.shards] != [one.sha256 for one in first.shards]


def test_every_case_goes_into_one_shard_in_an_order_that_the_first_build_had(tmp_path):
    rows = write(tmp_path, FOURTEEN, shard_count=3, dry_run=True).manifest.rows
    source = {name_of(one): one.source for one in FOURTEEN}
    order = rows.groupby("shard").case.agg(lambda names: [*map(source.get, names)])
    assert order.tolist() == [[12, 10], [11], [13], [2, 0, 7, 1], [3, 8, 5], [9, 4, 6]]
    # By default at least 4 shards, and about 128 MiB in each.
    for count, size, asked, sizes in [(5, 0, None, [2, 1, 1, 1]), (3, 0, 7, [1] * 3),
                                      (40, 30 * 2**20, None, [4] * 10)]:  # fmt: skip
        written = write(tmp_path, cases(count, size=size), shard_count=asked, dry_run=True)
        assert [shard.records for shard in written.manifest.shards] == sizes


def test_files_in_are_files_written_and_files_rejected_and_nobody_is_named(tmp_path, capfd):
    before = Rejection((tmp_path / PATIENT / "x.dcm",), "NOT_DICOM", REASON)
    found, out = Found(FOURTEEN, (before,)), tmp_path / "out"
    dry = write(out, found, some.refusing, dry_run=True)
    assert not out.exists()
    written = write(out, found, some.refusing, progress=True)
    assert written.manifest == dry.manifest == records.load_manifest(out)
    assert written.manifest.files == {"all": 29, "written": 22, "rejected": 7}
    codes = {1: "TRUNCATED", 4: "TRUNCATED", 7: "UNREADABLE"}
    told = {one["case"]: one["code"] for one in written.manifest.rejected}
    assert told == {name_of(case(n)): code for n, code in codes.items()} | {"": "NOT_DICOM"}
    told = {one.files: one.reason for one in written.rejected}
    assert told[before.files] == REASON and REASON in told[case(4).files]
    assert told[case(7).files] == "No such file or directory"
    again = write(out, found, some.refusing)  # reasons are nowhere on the disk
    assert again.manifest == written.manifest and again.kept == 8
    codes = [{one.files: one.code for one in run.rejected} for run in (written, again)]
    shown = repr([written, found]) + "".join(capfd.readouterr())
    assert codes[0] == codes[1] and "writing" in shown and not leaked(out, shown)


def leaked(folder: Path, shown: str = "") -> list[str]:
    """Words that lead to a person, in a folder of records or in what was shown."""
    marks = (*PATIENT.split("^"), REASON, ".img", some.SALT)
    files = [path for path in folder.rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() + path.name.encode() for path in files)
    return [mark for mark in marks if mark.encode() in content or mark in shown]


def test_a_set_that_comes_to_nothing_leaves_nothing_behind_but_what_was_there(tmp_path):
    out, bad = tmp_path / "out", tuple(case(n) for n in (1, 4, 7))
    with pytest.raises(CourseDataError, match=r"NOTHING_WRITTEN.*'TRUNCATED': 2") as refused:
        write(out, bad, some.refusing)
    assert {one.files for one in refused.value.rejected} == {one.files for one in bad}
    for count, workers in ((1, 1), (3, 2)):
        with pytest.raises(RuntimeError, match="a fault of the loader") as crashed:
            write(out, cases(count), some.crashing, workers=workers)
        assert any(name_of(one) in str(crashed.value.__notes__) for one in cases(count))
    assert not out.exists()
    write(out, FOURTEEN)
    before = digests(out)
    assert ending(write, out, bad, some.refusing, overwrite=True) == "NOTHING_WRITTEN"
    assert digests(out) == before and not records.verify(out)


def test_nothing_is_under_way_when_a_run_has_failed(tmp_path):
    started, failed, ended = threading.Event(), threading.Event(), []

    def load(case):
        if case.source == 0:
            started.wait()
            failed.set()
            raise RuntimeError("a fault of the loader")
        started.set()
        failed.wait()
        time.sleep(0.2)
        ended.append(case.source)
        return some.volume(case)

    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(RuntimeError):
            write(tmp_path, (case(0), case(2)), load, executor=threads, survey=None)
        assert ended == [2]


def test_masks_are_looked_at_before_the_first_record(tmp_path):
    def ids(case):
        if case.source == 2:
            raise CourseDataError("UNREADABLE", REASON)
        return frozenset({0, 255}) if case.source == 5 else frozenset({0, 1, 2})

    with pytest.raises(CourseDataError, match=r"ids 255, .* \[0, 1, 2\]") as refused:
        write(tmp_path, FOURTEEN, some.crashing, survey=ids)
    assert refused.value.code == "UNKNOWN_LABEL" and refused.value.files == case(5).files


def test_what_would_make_every_record_wrong_is_refused_before_anything_is_written(tmp_path):
    load = functools.partial(lambda case: some.volume(case))
    load.func.__module__ = "__main__"  # as in a notebook
    rows = [
        ({"schema": "volumes"}, "volumes"),
        ({"salt": "1234567"}, "less than 8 characters"),
        ({"found": cases(2, split="tést")}, "letters, digits and underscores"),
        ({"load": load, "workers": 2}, "workers=1"),
        ({"found": cases(2, split="../test")}, "letters, digits and underscores"),
        ({"found": cases(2, label=None), "schema": "classification"}, "needs labels"),
        ({"found": cases(2, label=3)}, "UNKNOWN_LABEL"),
        ({"found": cases(2, label=-1)}, "UNKNOWN_LABEL"),
        ({"found": cases(2, label=1.5)}, "UNKNOWN_LABEL"),
        ({"found": cases(2, label=(1, 7))}, "UNKNOWN_LABEL"),
        ({"found": (case(1, label=(1, 2)), case(2, label=1))}, "UNKNOWN_LABEL"),
        ({"classes": None}, "UNKNOWN_LABEL"),
        ({"found": cases(3, test=2)}, "PATIENT_IN_TWO_SPLITS"),
        ({"found": (case(1), case(2, name=case(1).name))}, "SAME_CASE"),
    ]
    for options, said in rows:
        with pytest.raises((ValueError, KeyError)) as refused:
            write(tmp_path / "a", **({"found": cases(2)} | options))
        assert said in str(refused.value) and not (tmp_path / "a").exists(), options
    assert write(tmp_path, cases(2, label=(1, -1)), load).manifest.records == 2


def test_a_finished_set_is_verified_and_kept_and_a_damaged_shard_written_again(tmp_path):
    write(tmp_path, FOURTEEN, shard_count=3)
    before, shown = digests(tmp_path), [*tmp_path.glob("*.tfrecord")]
    stats = [path.stat().st_mtime_ns for path in shown]
    assert write(tmp_path, FOURTEEN, survey=some.crashing, shard_count=3).kept == 6
    assert [path.stat().st_mtime_ns for path in shown] == stats
    first, second, *_ = sorted(tmp_path.glob("*.tfrecord"))
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    second.unlink()
    assert write(tmp_path, FOURTEEN, shard_count=3).kept == 4 and digests(tmp_path) == before
    note = next(tmp_path.glob(".records/*.json"))
    note.write_text(note.read_text()[:50])  # a disk was full
    assert write(tmp_path, FOURTEEN, shard_count=3).kept == 5 and digests(tmp_path) == before
    shutil.rmtree(tmp_path / ".records")  # a set that was handed on without it
    write(tmp_path, FOURTEEN, shard_count=3)
    assert digests(tmp_path) == before


def test_another_set_is_not_written_over_a_finished_one_unless_asked_for(tmp_path):
    file, out = tmp_path / "0.img", tmp_path / "out"
    file.write_text("four")
    one, *rest = four = cases(4, files=(file,))
    write(out, four, shard_count=4)
    (out / "notes.txt").write_text("mine")
    before, asked = digests(out), {"found": four, "shard_count": 4}
    rows = [{"found": tuple(rest)}, {"seed": 1}, {"salt": "another secret"}, {"shard_count": 2},
            {"classes": ("a", "b", "c")}, {"load": some.refusing},
            {"load": functools.partial(some.volume, mapping={0: 1})},
            {"found": (dataclasses.replace(one, label=2), *rest)},
            {"found": (dataclasses.replace(one, weight=9.0), *rest)}]  # fmt: skip
    told = [ending(write, out, **(asked | changed)) for changed in rows]
    assert told == ["OTHER_SET"] * len(rows) and digests(out) == before
    os.utime(file, ns=(1, 1))
    assert ending(write, out, **asked) == "OTHER_SET"
    foreign = out / "foreign-00000-of-00001.tfrecord"
    foreign.touch()
    assert ending(write, out, **asked, overwrite=True) == "FOREIGN_SHARD"
    foreign.unlink()
    assert digests(out) == before
    for _ in range(2):  # the loader may have changed inside, which nobody can see
        assert write(out, tuple(rest), shard_count=2, overwrite=True).kept == 0
        assert records.verify(out) == () and len(digests(out)) == 4
        assert len(os.listdir(out / ".records")) == 3  # the lock, and a note of each shard
    path = out / "manifest.json"
    path.write_text(path.read_text().replace('"version":3', '"version": 1'))
    assert ending(write, out, tuple(rest), shard_count=2) == "MANIFEST_DAMAGED"
    write(out, **asked, overwrite=True)
    assert records.verify(out) == () and (out / "notes.txt").read_text() == "mine"


@posix
@pytest.mark.parametrize("kind", ["writing", "overwriting"])
def test_a_killed_run_leaves_no_set_or_a_true_one_and_the_same_call_ends_it(tmp_path, kind):
    root = tmp_path / "runs"
    assert python("killed_at_moments(*sys.argv[1:])", kind, root).wait() == 0
    *killed, whole = sorted(root.iterdir())
    new, inside, seen, kept = digests(whole), sorted(os.listdir(whole)), [], set()
    for folder in killed:
        named = digests(folder)
        if "manifest.json" in named:
            listed = {one.file: one.sha256 for one in records.load_manifest(folder).shards}
            assert listed.items() <= named.items()  # what it says is true
        else:
            assert ending(records.verify, folder) == "NO_MANIFEST"
        if not named:
            other = shutil.copytree(folder, tmp_path / folder.name)
            write(other, cases(5), shard_count=2)  # another set can be written there as well
            assert records.verify(other) == ()
        seen += [named] if named not in seen else []
        assert not leaked(folder)
        kept.add(some.disturbed(kind, folder).kept)
        assert digests(folder) == new and sorted(os.listdir(folder)) == inside
    assert len(seen) > 2 and ("manifest.json" in seen[0]) == (kind == "overwriting")
    assert kept >= {0, len(new) - 1}


@posix
def test_a_folder_is_locked_and_a_kill_frees_it_and_ends_the_workers(tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    code = "write(sys.argv[1], cases(12), pausing, shard_count=6, workers=2)"
    with python(code, out) as writer:
        workers = [psutil.Process(int(writer.stdout.readline())) for _ in range(2)]
        told = [ending(write, out, FOURTEEN, overwrite=how) for how in (False, True)]
        writer.kill()
    # A worker that lived on would write into the folder of the next run.
    _, alive = psutil.wait_procs(workers, timeout=30)
    alive = [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    for one in alive:
        one.kill()
    assert not alive and told == ["LOCKED", "LOCKED"] and digests(out) == {}
    for folder in (out, fresh):
        write(folder, FOURTEEN)
    assert digests(out) == digests(fresh) and len(os.listdir(out)) == len(os.listdir(fresh))


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
folder = Path(sys.argv[1])
print(ending(disturbed, "writing", folder), *digests(folder), *folder.rglob("*.tmp"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
print(disturbed("writing", folder).kept)
"""


@posix
def test_a_file_that_may_not_grow_is_a_full_disk_and_leaves_nothing_with_a_final_name(tmp_path):
    """A limit on the size of files, which needs no permission to mount a small disk."""
    some.disturbed("writing", tmp_path / "whole")
    sizes = sorted(path.stat().st_size for path in (tmp_path / "whole").glob("[!.]*"))
    for limit, kept in [(300, "0"), (sizes[-1] - 1, "6")]:  # the manifest is the largest
        shown, _ = python(LIMITED, tmp_path / kept, limit).communicate()
        assert shown.split() == ["DISK_FULL", kept]
        assert digests(tmp_path / kept) == digests(tmp_path / "whole")


def test_writing_never_imports_tensorflow_in_any_process(tmp_path):
    code = "write(sys.argv[1], cases(4), workers=2); print({'tensorflow'} & {*sys.modules})"
    assert python(code, tmp_path / "out").communicate()[0].strip() == "set()"
