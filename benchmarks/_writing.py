"""Parts A and B of `records.py`: writing from memory, and converting with two workers."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from _harness import compare, interleave, print_times
from _sizes import Sizes, places, scratch
from _workload import SALT, dicom_set, ready, volumes_in_memory

from helpers import dicom, quiet, records
from helpers.cases import Case, Found

WRITTEN, PLAIN, UNSYNCED = "records.write", "plain files, fsync", "plain files, no fsync"
ONE, TWO = "1 worker", "2 workers"


def in_tensorflow(folder: Path) -> list[int]:
    """Checksums of the voxels in a folder of records, as TensorFlow alone reads them."""
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"TensorFlow cannot read the records:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


class Outputs:
    """Folders that contenders write to, one a turn, each checked and removed outside the clock."""

    def __init__(self, root: Path, check: Callable[[str, Path], None]) -> None:
        self._root, self._check, self._turn = root, check, 0

    def new(self) -> Path:
        self._turn += 1
        return self._root / str(self._turn)

    def verify(self, name: str, folder: object) -> None:
        self._check(name, folder)
        shutil.rmtree(folder)
        with contextlib.suppress(AttributeError):
            os.sync()  # nobody pays for what a neighbour has left unwritten


# Part A: writing


def write_plain(folder: Path, volumes: Sequence, sync: bool) -> Path:
    """Each volume's bytes to a file of its own, hashed on their way."""
    folder.mkdir()
    for number, volume in enumerate(volumes):
        view = memoryview(volume).cast("B")
        with open(folder / f"{number}.raw", "xb", buffering=0) as file:
            hashlib.sha256(view).hexdigest()
            while len(view):
                view = view[file.write(view) :]
            if sync:
                os.fsync(file.fileno())
    return folder


def compare_writing(sizes: Sizes, data_dir: Path) -> list[dict]:
    volumes = volumes_in_memory(sizes.volumes, sizes.volume_shape)
    megabytes = sum(volume.nbytes for volume in volumes) / 1e6
    crcs = sorted(zlib.crc32(volume) for volume in volumes)
    found = Found(tuple(Case(str(n), n) for n in range(len(volumes))))
    entries, seen = [], {}

    def load(case: Case) -> dict:
        return {"image": volumes[case.source]}

    def write_ours(folder: Path) -> Path:
        records.write(folder, found, "volume", load, salt=SALT, workers=1, progress=False)
        return folder

    def check(name: str, folder: Path) -> None:
        if name == WRITTEN:
            shards = [shard.sha256 for shard in records.load_manifest(folder).shards]
            if "shards" not in seen:  # once; afterwards equal shards hold equal voxels
                seen["shards"], seen["crcs"] = shards, in_tensorflow(folder)
            right = shards == seen["shards"] and not records.verify(folder)
            right = right and seen["crcs"] == crcs
        else:
            right = sorted(zlib.crc32(path.read_bytes()) for path in folder.iterdir()) == crcs
        if not right:
            raise SystemExit(f"{name} did not write the voxels that it was given")

    for where, place in places(data_dir, megabytes, sizes).items():
        with scratch(place) as root:
            outputs = Outputs(root, check)
            contenders = {
                WRITTEN: lambda new=outputs.new: write_ours(new()),
                PLAIN: lambda new=outputs.new: write_plain(new(), volumes, sync=True),
                UNSYNCED: lambda new=outputs.new: write_plain(new(), volumes, sync=False),
            }
            times_ms = interleave(contenders, sizes.repeats, str, outputs.verify, f"A, {where}")
        name = f"{WRITTEN}, {len(volumes)} int16 volumes, to {where}"
        title = f"A. Writing {len(volumes)} int16 volumes, {megabytes:.0f} MB, to {where}"
        print_times(title, list(contenders), times_ms, WRITTEN)
        speed = megabytes / statistics.median(times_ms[WRITTEN])
        print(f"  {speed:.2f} GB/s; asked for: at least 0.6 of the speed of plain files")
        entries += compare(name, times_ms, WRITTEN)
    print(f"  TensorFlow reads back {len(crcs)} records with the checksums of the arrays")
    return entries


# Part B: two workers


def compare_workers(sizes: Sizes, data_dir: Path) -> list[dict]:
    folder, crcs = dicom_set(data_dir, sizes.series, sizes.slices, sizes.pixels)
    start = time.perf_counter()
    found = dicom.find(folder / "series")
    find_ms = 1000 * (time.perf_counter() - start)
    megabytes = sum(case.size for case in found.cases) / 1e6
    seen: dict[str, list] = {}

    # Started beforehand: what a process imports takes half a second, whatever there is to convert.
    pools = {workers: fresh_pool(workers) for workers in (1, 2)}

    def convert(target: Path, workers: int) -> Path:
        # As many cases in each shard: what is measured is the work, not how it happens to divide.
        write = functools.partial(
            records.write, target, found, "volume", dicom.load,
            salt=SALT, shard_count=len(found.cases) // 2, progress=False,
        )  # fmt: skip
        write(executor=pools[workers])
        return target

    def check(name: str, target: Path) -> None:
        shards = [shard.sha256 for shard in records.load_manifest(target).shards]
        if "shards" not in seen:
            seen["shards"], seen["crcs"] = shards, in_tensorflow(target)
        if shards != seen["shards"] or records.verify(target) or seen["crcs"] != sorted(crcs):
            raise SystemExit(f"{name}: the records do not hold the voxels of the series")

    entries = []
    for where, place in places(data_dir, megabytes, sizes).items():
        with scratch(place) as root:
            outputs = Outputs(root, check)
            contenders = {
                TWO: lambda new=outputs.new: convert(new(), 2),
                ONE: lambda new=outputs.new: convert(new(), 1),
            }
            times_ms = interleave(contenders, sizes.repeats, str, outputs.verify, f"B, {where}")
        title = (
            f"B. Converting {len(found.cases)} DICOM series of {sizes.slices} slices, "
            f"{megabytes:.0f} MB, to {where}; workers that have started"
        )
        print_times(title, [TWO, ONE], times_ms, TWO)
        print("  asked for: 2 workers at least 1.6 times as fast as 1")
        name = f"convert, {len(found.cases)} DICOM series, {TWO}, to {where}"
        entries += compare(name, times_ms, TWO)
    for pool in pools.values():
        pool.shutdown()
    started = {n: [start_up_ms(n) for _ in range(sizes.repeats)] for n in (1, 2)}
    for workers, times in started.items():
        print(f"  not counted, starting {workers}: {statistics.median(times):.0f} ms")
    print(f"  before it, finding the files, in one process: {find_ms:.0f} ms")
    return entries


def fresh_pool(workers: int) -> ProcessPoolExecutor:
    """New processes, as `records.write` starts them."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def start_up_ms(workers: int) -> float:
    """From nothing to workers that have imported what converting needs, and back."""
    start = time.perf_counter()
    with fresh_pool(workers) as pool:
        list(pool.map(ready, [records.write] * workers, [dicom.load] * workers))
    return 1000 * (time.perf_counter() - start)


def voxels_in(folder: Path) -> list[int]:
    """CRC-32 of the image bytes of each record, parsed by TensorFlow alone."""
    quiet.tensorflow_greeting()
    import tensorflow as tf

    crcs = []
    for file in sorted(folder.glob("*.tfrecord")):
        for serialized in tf.data.TFRecordDataset(str(file)):
            feature = tf.train.Example.FromString(serialized.numpy()).features.feature
            crcs.append(zlib.crc32(feature["image"].bytes_list.value[0]))
    return sorted(crcs)


if __name__ == "__main__":
    print(json.dumps(voxels_in(Path(sys.argv[1]))))
