"""Cases become shards and a manifest: the same bytes every time, every file accounted for."""

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers import records
from helpers.cases import Found, Rejection
from helpers.errors import CourseDataError
from helpers.records.write import plan
from tests.records_cases import (
    PATIENT,
    REASON,
    ROOT,
    SALT,
    as_given,
    case,
    cases,
    digests,
    disturbed,
    ending,
    ids,
    name_of,
    refusing,
    volume,
    write,
)

FOURTEEN = cases(14, test=4)
posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")
pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, records.Written]:
    """Fourteen cases, of which three are refused, in 3 + 3 shards; with what `write` returned."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, write(folder, FOURTEEN, refusing, shard_count=3)


def waiting(folder: Path, end: str = "done") -> list[str]:
    return sorted(path.name for path in folder.glob(f".*.{end}"))


# Same inputs, same bytes


def test_whoever_writes_in_whatever_order_the_bytes_are_the_same(tmp_path, whole):
    folder, written = whole
    shuffled = random.Random(1).sample(FOURTEEN, 14)
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(1, spawn) as processes:
        ways = {
            "two": {"workers": 2},
            "threads": {"executor": threads},
            "processes": {"executor": processes},
            "one": {},
        }
        for name, how in ways.items():
            again = write(tmp_path / name, tuple(shuffled), refusing, shard_count=3, **how)
            assert digests(tmp_path / name) == digests(folder), name
            assert again.manifest == written.manifest and again.kept == 0
    for number, changed in enumerate(({"seed": 1}, {"salt": "another secret"})):
        other = write(tmp_path / str(number), FOURTEEN, refusing, shard_count=3, **changed)
        assert other.manifest.shards != written.manifest.shards
        assert digests(tmp_path / str(number)) != digests(folder)


def test_every_case_goes_into_one_shard_in_an_order_that_the_first_build_had():
    for count, test, wanted in [(14, 4, 3), (5, 1, None), (3, 0, 7), (40, 10, 6)]:
        jobs = plan(cases(count, test), SALT, 0, wanted)
        planned = [one for job in jobs for _, one in job.cases]
        assert sorted(one.source for one in planned) == list(range(count))
        for split, many in (("train", count - test), ("test", test)):
            sizes = [len(job.cases) for job in jobs if job.split == split]
            assert len(sizes) == min(wanted or 4, many) and max([*sizes, 0]) - min(sizes or [0]) < 2
    order = [[one.source for _, one in job.cases] for job in plan(FOURTEEN, SALT, 0, 3)]
    assert order == ORDER
    large = tuple(case(n, size=30 * 2**20) for n in range(40))
    assert len(plan(large, SALT, 0, None)) == 10  # 1200 MiB, 128 in each


ORDER = [[12, 10], [11], [13], [2, 0, 7, 1], [3, 8, 5], [9, 4, 6]]


# Every file is accounted for


def test_files_in_are_files_written_and_files_rejected(tmp_path):
    before = Rejection((Path("x.dcm"),), "NOT_DICOM", REASON)
    found = Found(FOURTEEN, (before,))
    written = write(tmp_path / "a", found, refusing)
    assert written.manifest.files == {"all": 29, "written": 22, "rejected": 7}
    assert written.manifest.records == 11
    lost = {name_of(case(n)): code for n, code in ((1, "TRUNCATED"), (4, "TRUNCATED"),
                                                   (7, "UNREADABLE"))}  # fmt: skip
    assert {one["case"]: one["code"] for one in written.manifest.rejected if one["case"]} == lost
    told = {one.files: one.reason for one in written.rejected}
    assert told[before.files] == REASON and REASON in told[case(4).files]
    assert told[case(7).files] == "No such file or directory"
    again = write(tmp_path / "a", found, refusing)  # reasons are nowhere on the disk
    assert again.manifest == written.manifest and again.kept == 8
    assert {one.files: one.code for one in again.rejected} == {
        one.files: one.code for one in written.rejected
    }
    dry = write(tmp_path / "b", found, refusing, dry_run=True)
    assert dry.manifest == written.manifest and not (tmp_path / "b").exists()


def refuse_all(case):
    raise CourseDataError("TRUNCATED", REASON, case.files)


def test_a_set_of_which_nothing_became_a_record_leaves_nothing_behind(tmp_path):
    with pytest.raises(CourseDataError, match=r"NOTHING_WRITTEN.*'TRUNCATED': 3") as refused:
        write(tmp_path / "a", cases(3), refuse_all)
    assert [one.files for one in refused.value.rejected] and not (tmp_path / "a").exists()
    write(tmp_path / "b", FOURTEEN)
    before = digests(tmp_path / "b")
    assert ending(write, tmp_path / "b", cases(3), refuse_all, overwrite=True) == "NOTHING_WRITTEN"
    assert digests(tmp_path / "b") == before and not records.verify(tmp_path / "b")


def crashing(case):
    raise RuntimeError("a fault of the loader")


def test_a_fault_of_the_loader_says_at_which_case_by_its_hash(tmp_path):
    with pytest.raises(RuntimeError, match="a fault of the loader") as crashed:
        write(tmp_path / "a", cases(1), crashing)
    assert name_of(case(0)) in crashed.value.__notes__[0]
    with pytest.raises(RuntimeError, match="a fault of the loader"):
        write(tmp_path / "b", cases(3), crashing, workers=2)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_masks_are_looked_at_before_the_first_record(tmp_path):
    loaded = []

    def load(case):
        loaded.append(case.source)
        return volume(case)

    def seven(case):
        if case.source == 2:
            raise CourseDataError("UNREADABLE", REASON)
        return frozenset({0, 255}) if case.source == 5 else ids(case)

    with pytest.raises(CourseDataError, match=r"ids 255, .* \[0, 1, 2\]") as refused:
        write(tmp_path / "a", FOURTEEN, load, survey=seven)
    assert refused.value.code == "UNKNOWN_LABEL" and refused.value.files == case(5).files
    assert loaded == [] and not (tmp_path / "a").exists()


def test_what_the_survey_has_not_shown_rejects_the_case(tmp_path):
    masks = [np.zeros((3, 5, 4)), np.full((3, 5, 4), 2)]
    image = np.arange(60).reshape(3, 5, 4)
    two = tuple(case(n, source={"image": image, "mask": masks[n]}) for n in range(2))
    options = {"classes": ["nothing", "liver"], "survey": lambda case: frozenset({0, 1})}
    two = tuple(dataclasses.replace(one, label=None) for one in two)
    written = write(tmp_path / "a", two, as_given, **options)
    assert [one.code for one in written.rejected] == ["UNKNOWN_LABEL"]
    alone = write(tmp_path / "b", two, as_given, **options | {"survey": None})
    assert alone.manifest == written.manifest


def in_no_module(case):
    return volume(case)


in_no_module.__module__ = "__main__"


def test_what_would_make_every_record_wrong_is_refused_before_anything_is_written(tmp_path):
    twins = (case(1), case(2, name=case(1).name))
    rows = [
        ({"salt": "1234567"}, "less than 8 characters"),
        ({"load": in_no_module, "workers": 2}, "workers=1"),
        ({"load": partial(partial(in_no_module)), "workers": None}, "workers=1"),
        ({"cases": cases(2, split="../test")}, "letters, digits and underscores"),
        ({"cases": cases(2, split="")}, "letters, digits and underscores"),
        ({"cases": cases(2, label=None), "schema": "classification"}, "needs labels"),
        ({"cases": cases(2, label=3)}, "UNKNOWN_LABEL"),
        ({"cases": cases(2, label=-1)}, "UNKNOWN_LABEL"),
        ({"cases": cases(2, label=1.5)}, "UNKNOWN_LABEL"),
        ({"cases": cases(2, label=(1, 7))}, "UNKNOWN_LABEL"),
        ({"cases": cases(2, label=())}, "UNKNOWN_LABEL"),
        ({"cases": (case(1, label=(1, 2)), case(2, label=1))}, "UNKNOWN_LABEL"),
        ({"cases": cases(2), "classes": None}, "UNKNOWN_LABEL"),
        ({"cases": cases(3, test=2)}, "PATIENT_IN_TWO_SPLITS"),
        ({"cases": twins}, "SAME_CASE"),
    ]
    wrong = []
    for options, said in rows:
        options = {"load": volume, "cases": cases(2)} | options
        try:
            write(tmp_path / "a", options.pop("cases"), options.pop("load"), **options)
            wrong.append((options, said, "nothing"))
        except ValueError as error:
            if said not in str(error) or (tmp_path / "a").exists():
                wrong.append((options, said, error))
    assert not wrong
    assert write(tmp_path / "a", cases(2, label=(1, -1)), in_no_module).manifest.records == 2


# A set that is there


def test_a_finished_set_is_verified_and_kept_and_a_damaged_shard_written_again(tmp_path):
    write(tmp_path, FOURTEEN, shard_count=3)
    before = digests(tmp_path)
    stats = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.*")}
    assert write(tmp_path, FOURTEEN, survey=crashing, shard_count=3).kept == 6
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.*")} == stats
    first, second, *_ = sorted(tmp_path.glob("*.tfrecord"))
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    second.unlink()
    assert write(tmp_path, FOURTEEN, shard_count=3).kept == 4
    assert digests(tmp_path) == before
    for hidden in tmp_path.glob(".*"):  # a set that was handed on without them
        hidden.unlink()
    assert write(tmp_path, FOURTEEN, shard_count=3).kept == 0
    assert digests(tmp_path) == before and waiting(tmp_path) == []


def test_another_set_is_not_written_over_a_finished_one_unless_asked_for(tmp_path):
    files = tuple(tmp_path / f"{n}.img" for n in range(4))
    for file in files:
        file.write_text("four")
    four, out = tuple(case(n, files=(files[n],)) for n in range(4)), tmp_path / "out"
    write(out, four, shard_count=4)
    before = digests(out)
    mapped = partial(volume)
    mapped.keywords["mapping"] = {0: 1}
    rows = [{"found": four[:3]}, {"seed": 1}, {"salt": "another secret"}, {"shard_count": 2},
            {"classes": ("a", "b", "c")}, {"load": refusing}, {"load": mapped},
            {"found": (*four[1:], dataclasses.replace(four[0], label=2))},
            {"found": (*four[1:], dataclasses.replace(four[0], weight=9.0))}]  # fmt: skip
    told = [ending(write, out, **{"found": four, "shard_count": 4} | changed) for changed in rows]
    assert told == ["OTHER_SET"] * len(rows) and digests(out) == before
    os.utime(files[0], ns=(1, 1))
    assert ending(write, out, four, shard_count=4) == "OTHER_SET"
    write(out, four[:3], shard_count=2, overwrite=True)
    assert records.verify(out) == () and len(list(out.glob("*.tfrecord"))) == 2
    # The loader has changed inside, which nobody can see: so overwriting keeps nothing.
    assert write(out, four[:3], shard_count=2, overwrite=True).kept == 0
    path = out / "manifest.json"
    path.write_text(path.read_text().replace('"version":2', '"version": 1'))
    assert ending(write, out, four[:3], shard_count=2) == "MANIFEST_DAMAGED"
    write(out, four, shard_count=4, overwrite=True)
    assert records.verify(out) == () and len(list(out.glob("*.tfrecord"))) == 4


def test_a_foreign_shard_stops_the_run_and_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, FOURTEEN)
    (tmp_path / "foreign-00000-of-00001.tfrecord").write_bytes(b"x")
    before = digests(tmp_path)
    for overwrite in (False, True):
        assert ending(write, tmp_path, FOURTEEN, overwrite=overwrite) == "FOREIGN_SHARD"
    assert digests(tmp_path) == before
    (tmp_path / "foreign-00000-of-00001.tfrecord").unlink()
    write(tmp_path, cases(3), overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine" and not records.verify(tmp_path)


# Killed, two at once, out of room


@posix
@pytest.mark.parametrize("kind", ["workers", "overwriting"])
def test_a_run_that_is_killed_leaves_no_set_or_a_true_one_and_is_finished_by_the_same_call(
    tmp_path, kind
):
    code = (
        "import sys; from tests.records_cases import *\nkilled_at_each_moment(*sys.argv[1:3], 40)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, kind, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    new, seen, kept = digests(tmp_path / "whole"), set(), set()
    old = None
    runs = sorted(path for path in tmp_path.iterdir() if path.name != "whole")
    assert len(runs) > 30
    for folder in runs:
        for path in filter(Path.is_file, folder.rglob("*")):
            content = path.read_bytes() + path.name.encode()
            assert not any(mark.encode() in content for mark in (PATIENT, REASON, ".img", SALT))
        named = digests(folder)
        if "manifest.json" in named:
            listed = {one.file: one.sha256 for one in records.load_manifest(folder).shards}
            assert listed.items() <= named.items()  # what it says is true
            seen.add("new" if named == new else "old" if named.keys() != new.keys() else "both")
            old = old or named
        else:
            assert ending(records.verify, folder) == "NO_MANIFEST"
            seen.add("naming" if named else "writing")
        if seen == {"writing"} and kind == "workers":  # another set can be written there as well
            other = shutil.copytree(folder, tmp_path.with_name(f"other{folder.name}"))
            write(other, cases(5), shard_count=2)
            assert records.verify(other) == () and not waiting(other) + waiting(other, "tmp")
        kept.add(len(waiting(folder, "note")))
        disturbed(kind, folder)
        assert digests(folder) == new and not waiting(folder) + waiting(folder, "tmp")
    assert seen >= ({"writing", "naming"} if kind == "workers" else {"old", "naming"})
    assert len(kept) > 3


@posix
@pytest.mark.parametrize("whom", ["all", "only the first"])
def test_a_kill_ends_the_workers_and_frees_the_lock(tmp_path, whom):
    folder, script = tmp_path / "out", tmp_path / "paused.py"
    script.write_text(
        "from tests.records_cases import *\nif __name__ == '__main__':\n"
        f"    write(Path({str(folder)!r}), cases(12), pausing, shard_count=6, workers=2)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    workers = [psutil.Process(int(writer.stdout.readline())) for _ in range(2)]
    assert ending(write, folder, FOURTEEN) == "LOCKED" and digests(folder) == {}
    if whom == "all":
        os.killpg(writer.pid, signal.SIGKILL)
    else:
        writer.kill()
    writer.wait()
    writer.stdout.close()
    # A worker that lived on would write into the folder of the next run.
    _, alive = psutil.wait_procs(workers, timeout=30)
    alive = [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    for one in alive:
        one.kill()
    assert not alive
    assert waiting(folder, "tmp")
    write(folder, FOURTEEN)
    assert records.verify(folder) == () and not waiting(folder, "tmp")


def test_of_two_writers_in_one_folder_the_second_is_told(tmp_path):
    inside, leave = threading.Event(), threading.Event()

    def slow(case):
        inside.set()
        assert leave.wait(60)
        return volume(case)

    first = threading.Thread(target=write, args=(tmp_path / "a", FOURTEEN, slow))
    first.start()
    assert inside.wait(60)
    told = [ending(write, tmp_path / "a", FOURTEEN, overwrite=how) for how in (False, True)]
    leave.set()
    first.join()
    assert told == ["LOCKED", "LOCKED"] and records.verify(tmp_path / "a") == ()


LIMITED = """
import resource, sys
from tests.records_cases import *
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
code = ending(write, folder, cases(14, test=4), shard_count=3)
print(code, *digests(folder), *(path.name for path in folder.rglob("*.tmp")))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
print(write(folder, cases(14, test=4), shard_count=3).kept)
"""


@posix
def test_a_file_that_may_not_grow_is_a_full_disk_and_leaves_nothing_with_a_final_name(tmp_path):
    """A limit on the size of files, which needs no permission to mount a small disk."""
    write(tmp_path / "whole", FOURTEEN, shard_count=3)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "whole").glob("[mt]*")}
    manifest = sizes.pop("manifest.json")
    assert manifest > max(sizes.values()) > 300
    found = {}
    for limit in (300, max(sizes.values()) - 1, manifest - 1):
        command = [sys.executable, "-c", LIMITED, str(tmp_path / str(limit)), str(limit)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        found[limit] = done.stdout.split()
        assert digests(tmp_path / str(limit)) == digests(tmp_path / "whole"), done.stderr
    assert [one[0] for one in found.values()] == ["DISK_FULL"] * 3
    assert [len(one) for one in found.values()] == [2, 2, 2]  # the code, and what was kept
    assert [int(one[1]) for one in found.values()] == [0, 3, 6]


def test_the_space_is_looked_at_before_the_first_record(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    large = tuple(case(n, size=free // 4) for n in range(6))
    with pytest.raises(CourseDataError, match=r"\d+ bytes are needed, \d+ are free") as full:
        write(tmp_path / "a", large, crashing)
    assert full.value.code == "DISK_FULL" and not (tmp_path / "a").exists()


# Privacy


def test_nothing_that_leads_to_a_person_is_written_or_shown(tmp_path, capfd):
    marks = [PATIENT, "Placeholder", "Jane", REASON, "4711", "ward_seven", SALT]
    source = tmp_path / "ward_seven" / "4711"
    source.mkdir(parents=True)
    made = []
    for n, one in enumerate(FOURTEEN):
        (source / f"{n}.dcm").write_bytes(PATIENT.encode())
        made.append(dataclasses.replace(one, files=(source / f"{n}.dcm",)))
    found = Found(tuple(made), (Rejection((source / "x.dcm",), "NOT_DICOM", REASON),))
    out = tmp_path / "out"
    written = write(out, found, refusing, progress=True)
    write(out, found, refusing, seed=3, overwrite=True, progress=True)
    shown = [written, found, plan(found.cases, SALT, 0, None, repr(source))]
    assert [mark for mark in marks if mark in repr(shown) + "".join(capfd.readouterr())] == []
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 9 and any(path.suffix == ".note" for path in files)
    content = b"".join(path.read_bytes() + path.name.encode() for path in files)
    assert [mark for mark in marks if mark.encode() in content] == []
    assert json.loads((out / "manifest.json").read_text())["rejected"][0]["code"]


def test_writing_never_imports_tensorflow_in_any_process(tmp_path):
    out, script = tmp_path / "out", tmp_path / "script.py"
    script.write_text(
        "import sys\nimport helpers.records\n"
        "from tests.records_cases import cases, write, without_tensorflow\n"
        "if __name__ == '__main__':\n"
        f"    written = write({str(out)!r}, cases(4), without_tensorflow, workers=2)\n"
        f"    assert not helpers.records.verify({str(out)!r})\n"
        "    print(written.manifest.records, {'tensorflow', 'pandas'} & {*sys.modules})\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["4", "set()"], done.stderr
