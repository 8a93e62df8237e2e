"""Records: how fast are they written, and how much memory does the converter take?

A  writing int16 volumes from memory, against plain files hashed with SHA-256 as they are written
B  converting DICOM series with two worker processes, against one
C  memory of `python -m helpers convert`, for few and for many cases

`reading.py` has how records are read. README.md says how it is kept fair.
"""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import harness
import psutil
from contenders import facts, noise
from harness import Part, Workers, entry, row
from worker import ROOT, ContenderFailedError, peak_resident
from workloads import dicom_files

from helpers import records

MEMORY_DISK = Path("/dev/shm")  # a file system without a disk, on Linux
SAMPLE_EVERY_S = 0.02
VOLUMES = {
    "smoke": {"volumes": 2, "shape": (4, 8, 8)},
    "small": {"volumes": 8, "shape": (64, 256, 256)},
    "usual": {"volumes": 32, "shape": (64, 256, 256)},
}
NATIVE = {"encoding": "uncompressed"}
SERIES = {
    "smoke": {"series": 4, "slices": 16, "pixels": 256, **NATIVE},
    "small": {"series": 4, "slices": 12, "pixels": 256, **NATIVE},
    "usual": {"series": 12, "slices": 100, "pixels": 512, **NATIVE},
}
FEW = {
    "smoke": {"series": 2, "slices": 4, "pixels": 32, **NATIVE},
    "small": {"series": 5, "slices": 4, "pixels": 64, **NATIVE},
    "usual": {"series": 50, "slices": 8, "pixels": 256, **NATIVE},
}
MANY = {size: {**told, "series": 10 * told["series"]} for size, told in FEW.items()}
ONCE = {"kind": "", "items": 1}
WRITERS = {
    "records.write": row("ours_files.write", **ONCE),
    "plain files, fsync": row("floors.plain_files", sync=True, **ONCE),
    "plain files, no fsync": row("floors.plain_files", sync=False, **ONCE),
}
CONVERTERS = {
    f"{n} worker{'s' * (n > 1)}": row("ours_files.convert", processes=n, **ONCE) for n in (2, 1)
}


def given(data_dir: Path, told: dict) -> dict:
    """Nothing is made for volumes in memory; CRC-32 of each."""
    volumes = noise(told["volumes"], tuple(told["shape"]))
    return {
        "crcs": sorted(map(zlib.crc32, volumes)),
        "megabytes": sum(v.nbytes for v in volumes) / 1e6,
    }


def many_series(data_dir: Path, told: dict) -> dict:
    job = dicom_files(data_dir, told)
    voxels = told["series"] * told["slices"] * told["pixels"] ** 2
    known = [one["crcs"][0] for one in facts(job["folder"])]
    return {**job, "crcs": sorted(known), "megabytes": 2 * voxels / 1e6}


def parts(options) -> list[Part]:
    name = "records.write, {volumes} int16 volumes, to {where}"
    written = Part("A", name, WRITERS, given, "a set")
    name = "convert, {series} DICOM series, 2 workers, to {where}"
    converted = Part("B", name, CONVERTERS, many_series, "a set")
    peaks = Part("C", "convert, peak memory", {}, many_series)
    sizes = ((written, VOLUMES), (converted, SERIES), (peaks, {k: {"of": k} for k in SERIES}))
    return [one for part, told in sizes for one in harness.at_sizes(part, told, options)]


def compare(part: Part, workers: Workers, options) -> list[dict]:
    """Write to the disk and, if there is room, to memory, where it is the code that is measured."""
    if part.letter == "C":
        return compare_memory(part, options)
    job, entries = part.job(options.data_dir), []
    places = {"disk": options.data_dir}
    room = MEMORY_DISK.exists() and shutil.disk_usage(MEMORY_DISK).free > 4e6 * job["megabytes"]
    if room and not options.short:
        places["memory"] = MEMORY_DISK
    for where, place in places.items():
        with tempfile.TemporaryDirectory(prefix="benchmark_output_", dir=place) as out:
            here = job | {"out": out, "where": where}
            after = functools.partial(look, Path(out), job["crcs"], set(), workers)
            turns = harness.measure(part.but(after=after), here, workers, options)
            entries += harness.report(part, turns, here)
    return entries


def look(out: Path, crcs: list[int], known: set, workers: Workers) -> None:
    """Do files or records hold the voxels? Then they go.

    TensorFlow alone parses the first records; equal shards hold equal voxels.
    """
    for folder in out.iterdir():
        if (folder / "manifest.json").exists():
            shards = tuple(one.sha256 for one in records.load_manifest(folder).shards)
            found = crcs if shards in known and not records.verify(folder) else None
            if not known:
                parsed = workers.ask(
                    row("published.crcs_in_records"), "tell", {"folder": str(folder)}
                )
                (found,) = parsed["told"]
                known.add(shards)
        else:
            found = sorted(zlib.crc32(path.read_bytes()) for path in folder.iterdir())
        if found != crcs:
            raise ContenderFailedError(f"{folder} does not hold the voxels that were given")
        shutil.rmtree(folder)
    getattr(os, "sync", bool)()  # nobody pays for what a neighbour has left unwritten


def peak_of_tree(command: list[str]) -> tuple[float, float]:
    """Peak resident memory of a command, and of the largest process that it starts, in MB.

    Looked at every 20 ms; on Linux the system keeps the peak, so that only the last moments of a
    process can be missed.
    """
    peaks: dict[int, float] = {}
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for one in (process, *process.children(recursive=True)):
                peaks[one.pid] = max(peaks.get(one.pid, 0), peak_resident(one.pid) / 1e6)
        time.sleep(SAMPLE_EVERY_S)
    if process.returncode:
        raise ContenderFailedError(f"{' '.join(command)} failed")
    return peaks.pop(process.pid), max(peaks.values(), default=0)


def compare_memory(part: Part, options) -> list[dict]:
    """Of the converter and of its workers, for few cases, for many, and for large ones."""
    few, many, large = (told[part.told["of"]] for told in (FEW, MANY, SERIES))
    rows = {}
    for told in (few, many, large):
        folder = dicom_files(options.data_dir, told)["folder"]
        with tempfile.TemporaryDirectory(prefix="benchmark_output_", dir=options.data_dir) as out:
            command = [sys.executable, "-m", "helpers", "convert", "dicom", f"{folder}/series"]
            peaks = peak_of_tree([*command, f"{out}/records", "--workers", "2"])
        rows[f"{told['series']} cases"] = (*peaks, told["slices"] * told["pixels"] ** 2 * 2 / 1e6)
    heads = ("MB in the parent", "in a worker", "of a case")
    columns = {head: {k: row[i] for k, row in rows.items()} for i, head in enumerate(heads)}
    harness.show("C. Peak memory of `python -m helpers convert dicom --workers 2`", columns, rows)
    (parent, worker, case), (parents, workers, _), (_, most, larger) = rows.values()
    name, against = f"convert, {many['series']} cases, peak memory of", f"{few['series']} cases"
    grows = (most - worker) / (larger - case)
    return [
        entry(f"{name} a worker", workers, "MB", against, worker),
        entry(f"{name} the parent", parents, "MB", against, parent),
        entry("convert, peak memory of a worker for its case", grows, "x voxels", "one case", 1),
    ]


if __name__ == "__main__":
    options = harness.parsed(harness.arguments(__doc__, "ABC"))
    harness.run(options, parts(options), compare)
