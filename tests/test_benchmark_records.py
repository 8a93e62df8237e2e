"""The contenders of the records benchmark read the same voxels; nothing is timed here."""

import itertools
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from _harness import in_fresh_processes, peak_of_tree
from _reading import CONTENDERS, OURS, checksums, expected_of_drawn, measure, voxels_in
from _workload import SALT, Workload, load_crop, reading_workload

from helpers import records

VOLUME, CROP = (14, 26, 22), (8, 16, 14)
STORED = [name for name, one in CONTENDERS.items() if one.crops == "stored"]
ONLY_ALONE = "float_list, TF1 session"  # it switches its whole process to graphs


def image_of(subject) -> np.ndarray:
    """The voxels [z, y, x] by nibabel, which has them as [x, y, z]."""
    return np.asarray(nibabel.load(subject.path).dataobj).transpose()


def whitened(voxels: np.ndarray) -> np.ndarray:
    voxels = voxels.astype(np.float32)
    return (voxels - voxels.mean()) / voxels.std()


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Workload:
    return reading_workload(tmp_path_factory.mktemp("data"), 5, VOLUME, CROP)


@pytest.fixture(scope="module")
def folders(work, tmp_path_factory) -> dict[int, Path]:
    """Folders of records, by their number of shards."""
    made = {}
    for count in {one.shards for one in CONTENDERS.values()}:
        made[count] = tmp_path_factory.mktemp("records") / "out"
        records.write(
            made[count], work.found(), "volume", load_crop, salt=SALT,
            classes=("male", "female"), shard_count=count, workers=1, progress=False,
        )  # fmt: skip
    return made


def test_an_example_is_a_part_of_its_whitened_image(work):
    for subject in work.subjects:
        inside = tuple(slice(a, a + n) for a, n in zip(subject.start, CROP, strict=True))
        part = np.ascontiguousarray(whitened(image_of(subject))[inside])
        assert part.shape == CROP and zlib.crc32(part) == subject.crc
        assert np.array_equal(work.whitened(subject, subject.start), part)


def test_no_two_examples_are_alike(work):
    assert len({one.crc for one in work.subjects}) == len(work.subjects) == 5


@pytest.mark.parametrize("name", [name for name in STORED if name != ONLY_ALONE])
def test_each_pipeline_gives_every_example_bit_for_bit(name, work, folders):
    contender = CONTENDERS[name]
    batch = contender.start(work, folders[contender.shards])()
    assert tuple(batch.shape) == (5, *CROP, 1)
    assert np.asarray(batch).dtype == np.float32
    assert sorted(checksums(batch)) == sorted(one.crc for one in work.subjects)


def test_records_hold_the_crops_in_the_images_own_integers(work, folders):
    expected = []
    for subject in work.subjects:
        inside = tuple(slice(a, a + n) for a, n in zip(subject.start, CROP, strict=True))
        expected.append(zlib.crc32(np.ascontiguousarray(image_of(subject)[inside], "<i2")))
    counts = records.load_manifest(folders[4]).split("all")
    assert counts["dtypes"] == {"int16": 5}
    assert voxels_in(folders[4]) == sorted(expected)


def test_the_generator_crops_its_first_subject_at_random_and_no_other(work):
    np.random.seed(3)
    next_batch = CONTENDERS["generator"].start(work, None)
    crcs = checksums(next_batch()) + checksums(next_batch())
    rooms = [n - m for n, m in zip(VOLUME, CROP, strict=True)]
    first = whitened(image_of(work.subjects[0]))
    possible = {}
    for start in itertools.product(*(range(room + 1) for room in rooms)):
        inside = tuple(slice(a, a + n) for a, n in zip(start, CROP, strict=True))
        possible[zlib.crc32(np.ascontiguousarray(first[inside]))] = start
    starts = [possible[crc] for crc in crcs]
    assert len(set(starts)) > 5
    assert all(a < room for start in starts for a, room in zip(start, rooms, strict=True))
    assert expected_of_drawn(work, seed=3, count=10) == crcs


def test_crops_from_elsewhere_end_the_run(work, tmp_path):
    other = records.Found(
        tuple(
            records.Case(one.name, (one.path, (0, 0, 0), CROP), patient=one.name, label=one.label)
            for one in work.subjects
        )
    )
    records.write(
        tmp_path / "out", other, "volume", load_crop, salt=SALT,
        classes=("male", "female"), workers=1, progress=False,
    )  # fmt: skip
    with pytest.raises(SystemExit, match="not the voxels"):
        measure(OURS, work, tmp_path / "out", batches=1)


def test_the_memory_of_a_worker_is_not_counted_as_its_parents(tmp_path, monkeypatch):
    full, looks, real = tmp_path / "full", itertools.count(), psutil.Process.children

    def children(process, recursive=False):
        if full.exists() and next(looks) == 2:
            full.unlink()  # seen at its largest: now it may go
        return real(process, recursive=recursive)

    monkeypatch.setattr(psutil.Process, "children", children)
    worker = (
        f"import pathlib, time; full = pathlib.Path({str(full)!r})\n"
        "block = bytearray(200_000_000); full.touch()\n"
        "while full.exists(): time.sleep(0.01)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    own, others = peak_of_tree([sys.executable, "-c", parent])
    assert others[0] > 200e6 > own


def test_a_contender_that_fails_ends_the_run_with_what_it_said():
    broken = [sys.executable, "-c", "raise SystemExit('no such disk')"]
    with pytest.raises(SystemExit, match="no such disk"):
        in_fresh_processes({"broken": broken}, repeats=1)


def test_each_round_has_its_result_and_each_contender_its_environment():
    command = [sys.executable, "-c", "import os; print('warm'); print(os.environ['SIZE'])"]
    env = {"small": {"SIZE": "1"}, "large": {"SIZE": "2"}}
    results = in_fresh_processes(dict.fromkeys(env, command), repeats=3, env=env)
    assert results == {"small": [1, 1, 1], "large": [2, 2, 2]}
