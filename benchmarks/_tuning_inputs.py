"""What the benchmark of reading works on: the workload of 2018, in the forms that parts need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _workload import (
    SALT,
    Workload,
    cropped,
    load_crop,
    loaded,
    picture_workload,
    reading_workload,
    voxels_of,
)

from helpers.cases import Case, Found

# Volumes, and crops of them: `usual` is the size of 2018.
SIZES = {
    "small": {"head": (48, 128, 128), "crop": (32, 112, 112)},
    "medium": {"head": (96, 192, 192), "crop": (64, 160, 160)},
    "usual": {"head": (180, 240, 240), "crop": (128, 224, 224)},
}
# Thousands of small records: pictures of noise. A pass is two epochs, of which one is timed.
PICTURES = {
    "small": {"pictures": 4096, "side": 64, "items": 128},
    "medium": {"pictures": 1024, "side": 256, "items": 32},
}
COUNTS = (10, 100, 1000)  # records of which reading has to cost the same each
SHARDS = 4
RECORDS_TOGETHER = 10  # records in a batch where their cost is looked at


def make_job(quick: bool, scratch: Path) -> dict[str, object]:
    """What all workers are told, whatever the size; of plain numbers, strings and lists.

    Args:
        quick: whether the run has to end within a minute.
        scratch: folder for what is made in each run.

    Returns:
        `subjects`, volumes, as many as fill whole batches of `batch`; `counted`, the folder of
        `write_counted`, with records of shape `record`; and, beside the smart cache, `patch`, the
        shape of an example of its training step, `listed`, how often each volume stands in its
        list, so that loading takes long enough to be seen, and `epochs` of a pass.
    """
    job = {"subjects": 5, "record": (8, 32, 32), "patch": (16, 32, 32), "epochs": 2}
    if not quick:
        job = {"subjects": 10, "record": (16, 128, 128), "patch": (32, 96, 96), "epochs": 2}
    return job | {"batch": 5, "listed": 4, "counted": str(scratch / "counted")}


def make(told: Mapping, job: Mapping, data_dir: Path, scratch: Path) -> dict[str, object]:
    """Make the input of a size unless it is there.

    Returns:
        What workers are told of it. `work` is the folder of `_workload.reading_workload`; `volumes`
        has `0.npy` (int16 `[z, y, x]`) and so on, `stored` the crops that float_list has, `records`
        those as records and `whole` the volumes as records.
    """
    if "side" in told:
        work = picture_workload(data_dir, told["pictures"], told["side"])
        told = {**told, "crop": work.crop, "batch": work.batch, "subjects": len(work.subjects)}
    else:
        work = reading_workload(data_dir, job["subjects"], tuple(told["head"]), tuple(told["crop"]))
    folder = scratch / "x".join(map(str, work.crop))
    told = {**told, "work": str(work.folder)}
    told |= {name: str(folder / name) for name in ("volumes", "stored", "records", "whole")}
    if folder.exists():
        return told
    for name in ("volumes", "stored"):
        Path(told[name]).mkdir(parents=True)
    for number, one in enumerate(work.subjects):
        voxels = voxels_of(one.path)
        part = np.ascontiguousarray(cropped(voxels, one.start, work.crop))
        np.save(Path(told["volumes"], f"{number}.npy"), voxels, allow_pickle=False)
        np.save(Path(told["stored"], f"{number}.npy"), part, allow_pickle=False)
    schema = "classification" if "side" in told else "volume"
    write_records(Path(told["records"]), work.found(), schema=schema)
    if "side" in told:
        return told
    whole = [
        dataclasses.replace(case, source=(one.path, (0, 0, 0), told["head"]))
        for case, one in zip(work.found().cases, work.subjects, strict=True)
    ]
    write_records(Path(told["whole"]), Found(tuple(whole)), load_with_mask, two_classes)
    return told


def load_with_mask(case: Case) -> dict[str, np.ndarray]:
    """For `records.write`: the volume, and where it is brighter than its mean."""
    image = load_crop(case)["image"]
    return {"image": image, "mask": (image > image.mean()).astype(np.uint8)}


def two_classes(case: Case) -> frozenset[int]:
    """For `records.write`: the ids in a mask."""
    return frozenset({0, 1})


def write_records(folder: Path, found: Found, load=load_crop, survey=None, schema="volume") -> None:
    """Records in a few shards; the page cache holds them afterwards."""
    from helpers import records  # the peers' environment lacks what this imports

    records.write(
        folder, found, schema, load, survey=survey,
        salt=SALT, classes=("male", "female"), shard_count=SHARDS, workers=1, progress=False,
    )  # fmt: skip


def write_counted(job: Mapping) -> None:
    """Sets of 10, 100, 1,000 small records, one folder for each number, unless they are there."""
    for count in COUNTS:
        if Path(job["counted"], str(count)).exists():
            continue
        cases = [Case(str(i), (i, tuple(job["record"])), label=i % 2) for i in range(count)]
        write_records(Path(job["counted"], str(count)), Found(tuple(cases)), noise)


def noise(case: Case) -> dict[str, np.ndarray]:
    """For `records.write`: int16 voxels that are another's for each case."""
    number, shape = case.source
    return {"image": np.random.default_rng(number).integers(-1024, 3072, shape, np.int16)}


def work_of(job: Mapping) -> Workload:
    """The workload that a job speaks of."""
    return loaded(Path(job["work"]))
