"""MONAI in the benchmark of reading: dictionary transforms behind MONAI's own loaders.

`job["style"]`: "plain" as the documentation has it, "tuned" with the best settings that were found,
each also with "workers": two processes of its DataLoader. In tuned ones no metadata is tracked,
volumes stay int16 and are not copied before they are cropped, and the batch is cast into a buffer
that is always the same.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from _peers_torch import SEED, Item, passes
from _tuning_inputs import work_of
from monai.data import (
    CacheDataset,
    DataLoader,
    Dataset,
    PersistentDataset,
    SmartCacheDataset,
    ThreadDataLoader,
    set_track_meta,
)
from monai.transforms import (
    CastToTyped,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandSpatialCropd,
)

KEY = "image"
BETWEEN = 10  # batches from one exchange of the SmartCacheDataset to the next


def paths(folder: str, count: int) -> list[dict[str, str]]:
    return [{KEY: f"{folder}/{i}.npy"} for i in range(count)]


def images(job: Mapping) -> list[dict[str, str]]:
    return [{KEY: str(one.path)} for one in work_of(job).subjects]


def load(job: Mapping) -> list:
    """From a file to `[1, z, y, x]`, or `[1, x, y, z]` where it is NIfTI."""
    found = [LoadImaged(KEY), EnsureChannelFirstd(KEY, channel_dim="no_channel")]
    return [*found, CastToTyped(KEY, dtype=torch.int16)] if "tuned" in job["style"] else found


def crop(size) -> RandSpatialCropd:
    return RandSpatialCropd(KEY, roi_size=tuple(size), random_size=False)


def seeded(transforms: list) -> Compose:
    return Compose(transforms).set_random_state(seed=SEED)


def as_float32(job: Mapping) -> Callable[[Mapping], Item]:
    """What makes a batch of a loader float32; plain ones are."""
    if "tuned" not in job["style"]:
        return lambda batch: (batch[KEY].numpy(),)
    warm = torch.zeros((job["batch"], 1, *job["crop"]))
    return lambda batch: (warm.copy_(batch[KEY]).numpy(),)


def batches(dataset, job: Mapping, loader: type = DataLoader, **options: object):
    return passes(dataset, job, as_float32(job), job["batch"], loader, shuffled=True, **options)


def cached(job: Mapping, **options: object):
    data, copy = paths(job["volumes"], job["subjects"]), "tuned" not in job["style"]
    transforms = seeded([*load(job), crop(job["crop"])])
    dataset = CacheDataset(data, transforms, copy_cache=copy, progress=False)
    return batches(dataset, job, **options)


def put_together(job: Mapping) -> Callable:
    """A `collate_fn` of one's own: each crop is cast straight into the warm batch."""
    warm = torch.zeros((job["batch"], 1, *job["crop"]))

    def collate(items: list[dict]) -> dict:
        for into, item in zip(warm, items, strict=True):
            into.copy_(item[KEY])
        return {KEY: warm}

    return collate


def smart_cached(job: Mapping):
    """One volume is outside of the cache; one is exchanged, in the background, now and then."""
    data, copy = paths(job["volumes"], job["subjects"]), "tuned" not in job["style"]
    dataset = SmartCacheDataset(
        data, seeded([*load(job), crop(job["crop"])]), cache_num=len(data) - 1,
        replace_rate=1 / len(data), copy_cache=copy, progress=False,
    )  # fmt: skip
    some = batches(dataset, job)

    def run(count: int) -> Iterator[Item]:
        dataset.start()
        for first in range(0, count, BETWEEN):
            yield from some(min(BETWEEN, count - first))
            dataset.update_cache()
        dataset.shutdown()

    return run


def persistent(job: Mapping):
    """Stored crops in MONAI's own files, read for each batch."""
    folder = tempfile.mkdtemp(prefix="monai_", dir=Path(job["volumes"]).parent)
    data = paths(job["stored"], job["subjects"])
    return batches(PersistentDataset(data, load(job), folder), job)


def from_nifti(job: Mapping):
    return batches(Dataset(images(job), seeded([*load(job), crop(job["crop"][::-1])])), job)


def contenders(job: Mapping) -> dict:
    warnings.filterwarnings("ignore")  # stderr is kept for errors
    torch.manual_seed(SEED)
    if "tuned" in job["style"]:
        set_track_meta(False)
    return {
        "cache": lambda: cached(job),
        "cache, thread": lambda: cached(job, loader=ThreadDataLoader),
        "cache, own collate_fn": lambda: cached(job, collate_fn=put_together(job)),
        "smart cache": lambda: smart_cached(job),
        "persistent": lambda: persistent(job),
        "nifti": lambda: from_nifti(job),
    }
