"""What the benchmark of reading works on: the workload of 2018, in the forms that parts need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _workload import SALT, Workload, cropped, load_crop, loaded, reading_workload, voxels_of

from helpers.cases import Case, Found


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured; `QUICK` ends within a minute and is too small to quote.

    Args:
        subjects: volumes, as many as fill whole batches.
        head: voxels `(z, y, x)` of a volume.
        crop: voxels of an example.
        fast, medium, slow: batches for which the clock runs in a pass, by how long a row takes for
            one. Whole epochs, and whole fillings of TorchIO's queue.
        lead, trail: batches of a pass before the clock starts, and after it has stopped; whatever
            a pipeline does ahead of its consumer, it does equally much of it at both ends.
        counts: records of which reading has to cost the same each.
        record: voxels of one of these.
        patch: voxels of an example of the training step beside the smart cache.
        listed: how often each volume stands in the list of the smart cache, so that what it loads
            in an epoch takes long enough to be seen.
        epochs: of a pass beside the smart cache.
        rounds: that count.
    """

    subjects: int = 10
    head: tuple[int, int, int] = (180, 240, 240)
    crop: tuple[int, int, int] = (128, 224, 224)
    fast: int = 60
    medium: int = 20
    slow: int = 4
    lead: int = 4
    trail: int = 4
    counts: tuple[int, ...] = (10, 100, 1000)
    record: tuple[int, int, int] = (16, 128, 128)
    patch: tuple[int, int, int] = (32, 96, 96)
    listed: int = 4
    epochs: int = 3
    rounds: int = 5
    is_quick: bool = False


QUICK = Sizes(
    subjects=5,
    head=(48, 128, 128),
    crop=(32, 112, 112),
    fast=10,
    medium=10,
    slow=2,
    lead=2,
    trail=2,
    record=(8, 32, 32),
    patch=(16, 32, 32),
    epochs=2,
    rounds=2,
    is_quick=True,
)
SHARDS = 4
RECORDS_TOGETHER = 10  # records in a batch where their cost is looked at


def make_job(sizes: Sizes, data_dir: Path, scratch: Path) -> dict[str, object]:
    """Make the input and say where it lies.

    Args:
        sizes: how much.
        data_dir: folder of all data sets, where the heads are kept.
        scratch: folder for what is made from them in each run.

    Returns:
        What the workers are told, of plain numbers, strings and lists. `work` is the folder of
        `_workload.reading_workload`; `volumes` holds `0.npy` (int16 `[z, y, x]`) and so on,
        `stored` the crops that float_list has; `records` those as records, `whole` the volumes as
        records, and `counted/10` ten small ones.
    """
    work = reading_workload(data_dir, sizes.subjects, sizes.head, sizes.crop)
    job = dataclasses.asdict(sizes) | {"work": str(work.folder), "batch": work.batch}
    for name in ("volumes", "stored", "records", "whole", "counted"):
        job[name] = str(scratch / name)
    for name in ("volumes", "stored"):
        Path(job[name]).mkdir()
    for number, one in enumerate(work.subjects):
        voxels = voxels_of(one.path)
        part = np.ascontiguousarray(cropped(voxels, one.start, work.crop))
        np.save(Path(job["volumes"], f"{number}.npy"), voxels, allow_pickle=False)
        np.save(Path(job["stored"], f"{number}.npy"), part, allow_pickle=False)
    write_records(Path(job["records"]), work.found())
    whole = [
        dataclasses.replace(case, source=(one.path, (0, 0, 0), sizes.head))
        for case, one in zip(work.found().cases, work.subjects, strict=True)
    ]
    write_records(Path(job["whole"]), Found(tuple(whole)), load_with_mask, two_classes)
    return job


def load_with_mask(case: Case) -> dict[str, np.ndarray]:
    """For `records.write`: the volume, and where it is brighter than its mean."""
    image = load_crop(case)["image"]
    return {"image": image, "mask": (image > image.mean()).astype(np.uint8)}


def two_classes(case: Case) -> frozenset[int]:
    """For `records.write`: the ids in a mask."""
    return frozenset({0, 1})


def write_records(folder: Path, found: Found, load=load_crop, survey=None) -> None:
    """Records in a few shards; the page cache holds them afterwards."""
    from helpers import records  # the peers' environment lacks what this imports

    records.write(
        folder, found, "volume", load, survey=survey,
        salt=SALT, classes=("male", "female"), shard_count=SHARDS, workers=1, progress=False,
    )  # fmt: skip


def write_counted(job: Mapping) -> None:
    """Sets of 10, 100, 1,000 small records, one folder for each number, unless they are there."""
    for count in job["counts"]:
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


def arrays(folder: str, mapped: bool = False) -> list[np.ndarray]:
    """The int16 arrays of a folder, in the order of the subjects."""
    files = sorted(Path(folder).glob("*.npy"), key=lambda file: int(file.stem))
    return [np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False) for file in files]


def batches_in_a_pass(job: Mapping) -> int:
    """How many batches a worker's contenders give, those outside of the clock included."""
    return job["lead"] + job["batches"] + job["trail"]
