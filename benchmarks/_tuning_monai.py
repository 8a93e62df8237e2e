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

import numpy as np
import torch
from _tuning_inputs import batches_in_a_pass, work_of
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
from torch.utils.data import RandomSampler

Item = tuple[np.ndarray, ...]
KEY, SEED = "image", 1
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


def as_float32(job: Mapping) -> Callable[[torch.Tensor], np.ndarray]:
    """What makes a batch of a loader float32; plain ones are."""
    if "tuned" not in job["style"]:
        return lambda batch: batch.numpy()
    warm = torch.zeros((job["batch"], 1, *job["crop"]))
    return lambda batch: warm.copy_(batch).numpy()


def loader_of(dataset, job: Mapping, loader=DataLoader, **options) -> DataLoader:
    """A loader whose epochs are as long as a pass, however few items there are."""
    if "workers" in job["style"]:
        options |= {"num_workers": 2, "persistent_workers": True}
    count = job["batch"] * options.pop("batches", batches_in_a_pass(job))
    sampler = RandomSampler(dataset, num_samples=count)
    return loader(dataset, batch_size=job["batch"], sampler=sampler, **options)


def passes(dataset, job: Mapping, **options):
    """A function that goes through as many batches as a pass has."""
    loader, finish = loader_of(dataset, job, **options), as_float32(job)

    def run() -> Iterator[Item]:
        for batch in loader:
            yield (finish(batch[KEY]),)

    return run


def cached(job: Mapping, **options):
    data, copy = paths(job["volumes"], job["subjects"]), "tuned" not in job["style"]
    transforms = seeded([*load(job), crop(job["crop"])])
    dataset = CacheDataset(data, transforms, copy_cache=copy, progress=False)
    return passes(dataset, job, **options)


def put_together(job: Mapping):
    """A `collate_fn` of one's own: each crop is cast straight into the warm batch."""
    warm = torch.zeros((job["batch"], 1, *job["crop"]))

    def collate(items: list[dict]) -> dict:
        for into, item in zip(warm, items, strict=True):
            into.copy_(item[KEY])
        return {KEY: warm}

    return collate


def cached_and_put_together(job: Mapping):
    run = cached(job, collate_fn=put_together(job))
    return run


def smart_cached(job: Mapping):
    """One volume is outside of the cache; one is exchanged, in the background, now and then."""
    data, copy = paths(job["volumes"], job["subjects"]), "tuned" not in job["style"]
    dataset = SmartCacheDataset(
        data, seeded([*load(job), crop(job["crop"])]), cache_num=len(data) - 1,
        replace_rate=1 / len(data), copy_cache=copy, progress=False,
    )  # fmt: skip
    total, finish = batches_in_a_pass(job), as_float32(job)

    def run() -> Iterator[Item]:
        dataset.start()
        for first in range(0, total, BETWEEN):
            for batch in loader_of(dataset, job, batches=min(BETWEEN, total - first)):
                yield (finish(batch[KEY]),)
            dataset.update_cache()
        dataset.shutdown()

    return run


def persistent(job: Mapping):
    """Stored crops in MONAI's own files, read for each batch."""
    folder = tempfile.mkdtemp(prefix="monai_", dir=Path(job["volumes"]).parent)
    dataset = PersistentDataset(paths(job["stored"], job["subjects"]), load(job), folder)
    return passes(dataset, job)


def from_nifti(job: Mapping):
    return passes(Dataset(images(job), seeded([*load(job), crop(job["crop"][::-1])])), job)


def contenders(job: Mapping) -> dict:
    warnings.filterwarnings("ignore")  # stderr is kept for errors
    torch.manual_seed(SEED)
    if "tuned" in job["style"]:
        set_track_meta(False)
    return {
        "cache": lambda: cached(job),
        "cache, thread": lambda: cached(job, loader=ThreadDataLoader),
        "cache, own collate_fn": lambda: cached_and_put_together(job),
        "smart cache": lambda: smart_cached(job),
        "persistent": lambda: persistent(job),
        "nifti": lambda: from_nifti(job),
    }
