"""Killed, out of room, two at once, damaged afterwards: never half a set that looks whole."""

import errno
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from helpers import records
from helpers.errors import CourseDataError
from helpers.records import tfrecord
from helpers.records.manifest import Manifest
from tests import records_cases
from tests.records_cases import (
    PATIENT,
    REASON,
    ROOT,
    case,
    cases,
    digest,
    digests,
    disturbed,
    hidden,
    prepared,
    volume,
    write,
)

posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")
FOURTEEN = cases(14, test=4)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """What a killed process has written stays written: no power is cut here."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    """Code in a fresh process, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def ending(call, *arguments, **options) -> str:
    """The code with which a call is refused, empty where it is not."""
    try:
        call(*arguments, **options)
    except CourseDataError as error:
        return error.code
    return ""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A set that nothing happened to."""
    folder = tmp_path_factory.mktemp("set")
    write(folder, FOURTEEN, shard_count=3)
    return folder


# Killed

KILLED = "import sys; from tests.records_cases import *\nkilled_at_each_moment(*eval(sys.argv[1]))"


def killed_runs(tmp_path_factory, kind: str, moments: int | None) -> tuple[Path, list[Path]]:
    root = tmp_path_factory.mktemp(kind)
    finish(python(KILLED, (kind, str(root), moments)))
    return root / "whole", sorted(path for path in root.iterdir() if path.name != "whole")


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, list[Path]]:
    """An undisturbed set, and what was left of 20 runs of two processes, killed with both."""
    return killed_runs(tmp_path_factory, "workers", 20)


@pytest.fixture(scope="module")
def killed_overwriting(tmp_path_factory) -> tuple[Path, list[Path]]:
    """The same at each step of a run that replaces 4 + 2 shards by 2 + 2."""
    return killed_runs(tmp_path_factory, "overwriting", None)


def finished(folder: Path) -> dict[str, Path]:
    """By final name, the shards that have their name, or are ready to be given it."""
    named = {path.name: path for path in folder.glob("*.tfrecord")}
    ready = {path.name.removesuffix(".done"): path for path in folder.glob(".partial/*.done")}
    return named | ready


def noted(folder: Path) -> set[str]:
    return {path.name.removesuffix(".note") for path in folder.glob(".partial/*.note")}


@posix
def test_what_a_killed_run_leaves_never_looks_like_a_set(killed):
    whole, runs = killed
    assert len(runs) == 20
    expected, phases = digests(whole), set()
    for folder in runs:
        named = set(digests(folder))
        if "manifest.json" in named:
            assert digests(folder) == expected
            phases.add("manifest")
        elif named:
            # Names are given only when there is nothing left to write.
            assert set(finished(folder)) | {"manifest.json"} == set(expected)
            assert {name: expected[name] for name in named} == digests(folder)
            phases.add("naming")
        else:
            phases.add("writing")
        if "manifest.json" not in named:
            assert ending(records.load_manifest, folder) == "NO_MANIFEST"
            assert ending(records.verify, folder) == "NO_MANIFEST"
            assert ending(records.read, folder) == "NO_MANIFEST"
    assert phases == {"writing", "naming", "manifest"}
    assert any(path.suffix == ".tmp" for folder in runs for path in folder.rglob("*"))


@posix
def test_nothing_of_a_person_is_left_behind_by_a_killed_run(killed):
    for folder in killed[1]:
        for path in folder.rglob("*"):
            assert PATIENT not in path.name and ".img" not in path.name
            content = path.read_bytes() if path.is_file() else b""
            for mark in (PATIENT, REASON, "Placeholder", ".img", records_cases.SALT):
                assert mark.encode() not in content


@posix
def test_a_killed_run_is_finished_by_the_same_call(killed, tmp_path):
    whole, runs = killed
    some_kept = set()
    for run in runs:
        folder = tmp_path / run.name
        shutil.copytree(run, folder)  # the other tests want to see it as it was left
        vouched = noted(folder) & set(finished(folder))
        if "manifest.json" in digests(folder):
            vouched = set(digests(folder)) - {"manifest.json"}
        before = {name: finished(folder)[name].stat() for name in vouched}
        again = disturbed("workers", folder)
        assert digests(folder) == digests(whole)
        assert again.manifest == records.load_manifest(whole)
        assert hidden(folder) == {".job"}
        assert again.kept == len(vouched)
        for name, old in before.items():
            new = (folder / name).stat()
            assert (new.st_ino, new.st_mtime_ns) == (old.st_ino, old.st_mtime_ns)
        some_kept.add(again.kept)
    assert len(some_kept) > 3


@posix
def test_overwriting_that_is_killed_leaves_the_old_set_the_new_one_or_none(
    killed_overwriting, tmp_path
):
    whole, runs = killed_overwriting
    new = digests(whole)
    seen, old = set(), None
    for folder in runs:
        if "manifest.json" in digests(folder):
            assert records.verify(folder) == () or set(new) < set(digests(folder))
            old = old or digests(folder)
            assert digests(folder) in (old, new)
            seen.add("old" if digests(folder) == old else "new")
        else:
            seen.add("none")
            ready = {name: digest(path) for name, path in finished(folder).items() if name in new}
            assert {*ready, "manifest.json"} == set(new) and ready.items() <= new.items()
        if digests(folder) == old:  # to stay with it is possible as well
            folder = shutil.copytree(folder, tmp_path / folder.name)
            prepared("overwriting", folder)
            assert digests(folder) == old
        disturbed("overwriting", folder)
        assert digests(folder) == new
        assert hidden(folder) == {".job"}
    assert seen == {"old", "none", "new"}


@posix
def test_another_set_can_be_written_where_a_run_was_killed_while_writing(killed, tmp_path):
    for run in killed[1][:12:3]:
        folder = tmp_path / run.name
        shutil.copytree(run, folder)
        other, fresh, left = cases(5), tmp_path / "fresh", set()

        def load(case, partial=folder / ".partial", left=left):
            left.update(path.name for path in partial.iterdir() if path.suffix != ".tmp")
            assert len(list(partial.glob("*.tmp"))) == 1  # the one that is being written
            return volume(case)

        assert write(folder, other, load, shard_count=3).kept == 0
        assert left and all(name.startswith("train") for name in left)
        shutil.rmtree(fresh, ignore_errors=True)
        write(fresh, other, shard_count=3)
        assert digests(folder) == digests(fresh)
        assert hidden(folder) == {".job"}


PAUSED = """
import sys
from functools import partial
from tests.records_cases import *
if __name__ == "__main__":
    count = int(sys.argv[2])
    last = tuple(range(12 - count, 12))
    write(Path(sys.argv[1]), cases(12), partial(pausing, numbers=last), shard_count=6, workers=2)
"""


def paused_writer(folder: Path, processes: int = 2) -> tuple[subprocess.Popen, list]:
    """A run of the default pool whose processes wait in the middle of a shard; and those."""
    script = folder.with_suffix(".py")
    script.write_text(PAUSED)
    writer = subprocess.Popen(
        [sys.executable, str(script), str(folder), "12"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    workers = {int(writer.stdout.readline()) for _ in range(processes)}
    assert writer.pid not in workers and len(workers) == processes
    return writer, psutil.Process(writer.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end, or have ended and only wait for somebody to notice."""
    _, alive = psutil.wait_procs(processes, timeout=1)
    for _ in range(60):
        alive = [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        if not alive:
            return True
        _, alive = psutil.wait_procs(alive, timeout=1)
    return False


@posix
@pytest.mark.parametrize("whom", ["all", "only the first"])
def test_a_kill_ends_the_workers_frees_the_lock_and_loses_nothing(whole, tmp_path, whom):
    folder = tmp_path / "out"
    writer, workers = paused_writer(folder)
    assert ending(write, folder, FOURTEEN) == "LOCKED"
    assert digests(folder) == {}
    if whom == "all":
        os.killpg(writer.pid, signal.SIGKILL)
    else:
        writer.kill()
    writer.wait()
    writer.stdout.close()
    # A worker that lived on would write into the folder of the next run.
    assert gone(workers)
    assert any(path.suffix == ".tmp" for path in folder.rglob("*"))
    write(folder, FOURTEEN, shard_count=3)
    assert digests(folder) == digests(whole)
    assert hidden(folder) == {".job"}


def test_of_two_writers_in_one_folder_the_second_is_told(tmp_path):
    inside, leave = threading.Event(), threading.Event()

    def waiting(case):
        inside.set()
        assert leave.wait(60)
        return volume(case)

    first = threading.Thread(target=write, args=(tmp_path, FOURTEEN, waiting))
    first.start()
    try:
        assert inside.wait(60)
        assert ending(write, tmp_path, FOURTEEN) == "LOCKED"
        assert ending(write, tmp_path, cases(3), overwrite=True) == "LOCKED"
        write(tmp_path, FOURTEEN, dry_run=True)
        assert digests(tmp_path) == {}
    finally:
        leave.set()
        first.join()
    assert records.verify(tmp_path) == ()
    assert write(tmp_path, FOURTEEN, waiting).kept == 8


# Out of room


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of its own, and a function that gives it so many kB in all."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(where)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount; the test with a limit on file sizes runs instead")

    def resize(kilobytes: int) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(where)], check=True)
        return where

    yield resize
    subprocess.run(["umount", str(where)], check=True)


def test_a_full_disk_leaves_nothing_with_a_final_name(tiny_disk, whole):
    kept = []
    for kilobytes in range(4, 400, 4):
        folder = tiny_disk(kilobytes)
        code = ending(write, folder, FOURTEEN, shard_count=3)
        if not code:
            break
        assert code == "DISK_FULL"
        assert digests(folder) == {} and not list(folder.rglob("*.tmp"))
        kept.append(len(noted(folder)))
    assert len(kept) > 5 and kept == sorted(kept)
    assert kept[-1] == 6  # in the end, only the manifest had no room
    assert digests(folder) == digests(whole)


def test_a_disk_without_room_for_another_name_is_full_too(tiny_disk):
    folder = tiny_disk(1000)
    for names in range(2, 40):
        subprocess.run(["mount", "-o", f"remount,nr_inodes={names}", str(folder)], check=True)
        code = ending(write, folder / "set", FOURTEEN, shard_count=3)
        if not code:
            break
        assert code == "DISK_FULL" and not list(folder.rglob("*.tfrecord"))
    assert names > 10 and records.verify(folder / "set") == ()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_no_room_is_named_wherever_it_shows_and_other_troubles_stay_what_they_are(
    tmp_path, monkeypatch, number
):
    def refuse(self, *arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises((CourseDataError, PermissionError)) as refused:
        write(tmp_path / "a", FOURTEEN)
    assert getattr(refused.value, "code", "") == ("DISK_FULL" if number == errno.ENOSPC else "")


def test_a_full_disk_while_overwriting_leaves_the_old_set_whole(tiny_disk):
    folder = tiny_disk(1000)
    write(folder, FOURTEEN, shard_count=3)
    before = digests(folder)
    used = shutil.disk_usage(folder).used // 1024
    other = {"shard_count": 3, "salt": "another secret", "overwrite": True}
    for kilobytes in range(used + 4, 1000, 8):
        tiny_disk(kilobytes)
        code = ending(write, folder, FOURTEEN, **other)
        if not code:
            break
        assert code == "DISK_FULL"
        assert digests(folder) == before and records.verify(folder) == ()
    assert kilobytes > used + 4 and digests(folder) != before
    assert records.verify(folder) == ()


LIMITED = """
import resource, sys
from tests.records_cases import *
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    write(folder, cases(14, test=4), shard_count=3)
except CourseDataError as error:
    print(error.code, *digests(folder), *(path.name for path in folder.rglob("*.tmp")))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
print(write(folder, cases(14, test=4), shard_count=3).kept)
"""


@posix
@pytest.mark.parametrize("what", ["a record", "the largest shard", "the manifest"])
def test_a_file_that_may_not_grow_is_a_full_disk(whole, tmp_path, what):
    """A limit on the size of files needs no permission to mount."""
    sizes = {path.name: path.stat().st_size for path in whole.iterdir()}
    manifest = sizes.pop("manifest.json")
    largest = max(sizes.values())
    # The test split comes first; the largest shard is the first one of the other.
    limit, kept = {
        "a record": (300, 0),
        "the largest shard": (largest - 1, 3),
        "the manifest": (manifest - 1, 6),
    }[what]
    assert 300 < largest < manifest and sizes["train-00000-of-00003.tfrecord"] == largest
    assert finish(python(LIMITED, tmp_path, limit)).split() == ["DISK_FULL", str(kept)]
    assert digests(tmp_path) == digests(whole)


def test_the_space_is_looked_at_before_the_first_record(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    large = tuple(case(n, size=free // 4) for n in range(6))
    said, loaded = r"about \d+ MiB are needed, \d+ MiB are free", []
    with pytest.raises(CourseDataError, match=said) as full:
        write(tmp_path / "a", large, loaded.append, shard_count=2)
    assert full.value.code == "DISK_FULL" and loaded == []
    needed, said = map(int, re.findall(r"(\d+) MiB", full.value.message))
    assert needed == round(6 * (free // 4) / 2**20) and abs(said - free / 2**20) < free / 2**22
    assert not (tmp_path / "a").exists()


def test_shards_that_are_finished_need_no_space_any_more(tmp_path, monkeypatch):
    sized = tuple(case(n, size=1000) for n in range(6))
    write(tmp_path, sized, shard_count=3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2000))
    assert write(tmp_path, sized, shard_count=3).kept == 3
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=5999))
    assert ending(write, tmp_path / "b", sized, shard_count=3) == "DISK_FULL"
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=6000))
    write(tmp_path / "b", sized, shard_count=3)


# Damaged afterwards


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "set")


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tfrecord"))


def faults_of(folder: Path) -> list[tuple[str, str]]:
    return [(fault.file, fault.code) for fault in records.verify(folder)]


def refusals(folder: Path) -> dict[str, str]:
    """How reading ends, by kind of check."""
    return {kind: ending(records.read, folder, "train", check=kind) for kind in ("size", "full")}


def test_a_flipped_byte_is_found_wherever_it_is(copy):
    dice = random.Random(50)
    for _ in range(50):
        shard = dice.choice(shards_of(copy))
        content = shard.read_bytes()
        place, bit = dice.randrange(len(content)), 1 << dice.randrange(8)
        changed = bytearray(content)
        changed[place] ^= bit
        shard.write_bytes(changed)
        (fault,) = records.verify(copy)
        assert (fault.file, fault.code) == (shard.name, "ALTERED_SHARD")
        count = next(s.records for s in records.load_manifest(copy).shards if s.file == shard.name)
        left = int(re.match(rf"(\d+) of {count} records pass their own CRC", fault.reason)[1])
        assert left < count
        shard.write_bytes(content)
    assert records.verify(copy) == ()


def ends_of_records(shard: Path) -> list[int]:
    content, ends = shard.read_bytes(), [0]
    while ends[-1] < len(content):
        ends.append(ends[-1] + 16 + struct.unpack_from("<Q", content, ends[-1])[0])
    return ends


def test_a_shard_cut_between_two_records_is_found_without_reading_it(copy):
    shard = shards_of(copy)[-1]
    content, ends = shard.read_bytes(), ends_of_records(shard)
    assert len(ends) > 2 and ends[-1] == len(content)
    for end in [*ends[:-1], ends[1] + 5, len(content) - 1]:
        shard.write_bytes(content[:end])
        assert faults_of(copy) == [(shard.name, "TRUNCATED_SHARD")]
        assert refusals(copy) == {"size": "TRUNCATED_SHARD", "full": "TRUNCATED_SHARD"}
        assert records.verify(copy)[0].reason == f"{end} bytes of {len(content)}"


def test_a_shard_that_is_gone_or_longer_is_found_without_reading_it(copy):
    shard = shards_of(copy)[-1]
    content = shard.read_bytes()
    shard.write_bytes(content + b"x")
    assert faults_of(copy) == [(shard.name, "ALTERED_SHARD")]
    assert refusals(copy) == {"size": "ALTERED_SHARD", "full": "ALTERED_SHARD"}
    shard.unlink()
    assert faults_of(copy) == [(shard.name, "MISSING_SHARD")]
    assert refusals(copy) == {"size": "MISSING_SHARD", "full": "MISSING_SHARD"}
    shard.mkdir()
    assert faults_of(copy) == [(shard.name, "MISSING_SHARD")]


def test_two_shards_that_changed_places_are_found(tmp_path):
    write(tmp_path, cases(6, weight=1.0), shard_count=3)
    first, second, third = shards_of(tmp_path)
    assert first.stat().st_size == second.stat().st_size == third.stat().st_size
    spare = tmp_path / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    assert faults_of(tmp_path) == [(one.name, "ALTERED_SHARD") for one in (first, second)]


def test_a_byte_that_keeps_the_size_is_left_to_the_full_check(copy):
    shard = shards_of(copy)[-1]
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    assert refusals(copy) == {"size": "", "full": "ALTERED_SHARD"}
    assert records.manifest.verify(copy, full=False) == ()


def test_a_foreign_shard_is_found_by_name_and_never_read(copy):
    shutil.copy(shards_of(copy)[0], copy / "train-00003-of-00003.tfrecord")
    assert faults_of(copy) == [("train-00003-of-00003.tfrecord", "FOREIGN_SHARD")]
    assert refusals(copy) == {"size": "", "full": ""}
    assert (
        sum(1 for _ in records.read(copy, "train"))
        == records.load_manifest(copy).split("train")["records"]
    )


def test_all_faults_are_named_at_once_in_the_order_of_the_files(copy):
    one, two, three, four, five, six = shards_of(copy)
    one.unlink()
    two.write_bytes(two.read_bytes()[:-1])
    three.write_bytes(b"")
    four.write_bytes(bytes(four.stat().st_size))
    five.write_bytes(five.read_bytes() + b"x")
    (copy / "a.tfrecord").touch()
    assert faults_of(copy) == [
        ("a.tfrecord", "FOREIGN_SHARD"),
        (one.name, "MISSING_SHARD"),
        (two.name, "TRUNCATED_SHARD"),
        (three.name, "TRUNCATED_SHARD"),
        (four.name, "ALTERED_SHARD"),
        (five.name, "ALTERED_SHARD"),
    ]
    with pytest.raises(CourseDataError, match="3 shards are not as they were written") as refused:
        records.read(copy, "test", check="full")
    assert refused.value.files == (one, two, three) and refused.value.code == "MISSING_SHARD"
    with pytest.raises(CourseDataError, match="2 shards are not as they were written") as refused:
        records.read(copy, "train", check="full")  # the other split's shards may be elsewhere
    assert refused.value.files == (four, five) and six not in refused.value.files
    assert str(copy) not in str(refused.value)


def test_no_character_of_the_manifest_can_be_changed_unnoticed(whole):
    text = (whole / "manifest.json").read_text("ascii")
    known, dice = Manifest.from_json(text), random.Random(1)
    found = set()
    for _ in range(400):
        place = dice.randrange(len(text))
        other = chr(dice.choice([ord(text[place]) ^ 1, dice.randrange(32, 127)]))
        changed = text[:place] + other + text[place + 1 :]
        code = ending(Manifest.from_json, changed)
        if text[place].strip() == other.strip():  # white space says nothing
            assert code or Manifest.from_json(changed) == known
        else:
            assert code == "MANIFEST_DAMAGED"
        found.add(code)
    assert found == {"", "MANIFEST_DAMAGED"}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "3", "null", "{", '{"sha256": 1}', '"' * 3, "[" * 10**5, "\x00"]
)
def test_what_is_no_manifest_is_damaged(copy, text):
    (copy / "manifest.json").write_text(text)
    for call in (records.load_manifest, records.verify, records.read):
        with pytest.raises(CourseDataError) as refused:
            call(copy)
        assert refused.value.code == "MANIFEST_DAMAGED"
        assert refused.value.files == (copy / "manifest.json",)


def test_a_manifest_that_is_no_text_or_of_another_version_is_damaged(copy, monkeypatch):
    path = copy / "manifest.json"
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    assert ending(records.verify, copy) == "MANIFEST_DAMAGED"
    monkeypatch.setattr(records.manifest, "VERSION", 2)
    newer = Manifest("volume", {}, {}, (), (), {}).to_json()
    monkeypatch.undo()
    assert json.loads(newer)["version"] == 2
    path.write_text(newer)
    with pytest.raises(CourseDataError, match="another version than 1") as refused:
        records.verify(copy)
    assert refused.value.code == "MANIFEST_DAMAGED"


def test_without_a_manifest_there_is_nothing_to_verify_or_read(copy, tmp_path):
    (copy / "manifest.json").unlink()
    for call in (records.load_manifest, records.verify, records.read):
        assert ending(call, copy) == "NO_MANIFEST"
        with pytest.raises(FileNotFoundError) as refused:
            call(tmp_path / PATIENT)
        assert PATIENT not in str(refused.value)


def test_the_count_of_whole_records_is_that_of_the_file(whole):
    for shard in records.load_manifest(whole).shards:
        assert list(tfrecord.frames(whole / shard.file)) == [True] * shard.records
