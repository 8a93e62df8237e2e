"""The course on files, without TensorFlow: reading DICOM, writing records, converting."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from contenders import SALT, noise, read_again, scan_again, written
from helpers import dicom, records
from helpers.cases import Case, Found


def read(job):
    return read_again(job, lambda folder: dicom.read_series(folder).voxels)


def scan(job):
    return scan_again(job, lambda folder: dicom.scan(folder).series[0].files)


def write(job):
    """Volumes from memory to records."""
    volumes = noise(job["volumes"], tuple(job["shape"]))
    found = Found(tuple(Case(str(n), n) for n in range(len(volumes))))

    def load(case: Case) -> dict:
        return {"image": volumes[case.source]}

    def write_to(folder: Path) -> None:
        records.write(folder, found, "volume", load, salt=SALT, workers=1, progress=False)

    return written(job, write_to)


def convert(job, processes):
    """DICOM series to records, with workers that have started.

    What a process imports takes half a second, whatever there is to convert. As many cases in each
    shard: what is measured is the work, not how it happens to divide.
    """
    found = dicom.find(f"{job['folder']}/series")
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    list(pool.map(repr, [dicom.load] * processes))
    how = {"salt": SALT, "shard_count": len(found.cases) // 2, "progress": False}

    def write_to(folder: Path) -> None:
        records.write(folder, found, "volume", dicom.load, executor=pool, **how)

    return written(job, write_to)
