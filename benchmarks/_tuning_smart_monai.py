"""The same training with MONAI's SmartCacheDataset and PyTorch; see `_tuning_smart.py`."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from _tuning_inputs import work_of
from _tuning_loads import Loads
from _tuning_monai import KEY, crop, load, seeded
from monai.data import CacheDataset, DataLoader, SmartCacheDataset, set_track_meta
from monai.transforms import Transform
from torch.utils.data import RandomSampler

Item = tuple[np.ndarray, ...]
SEED, BATCH, CHANNELS = 1, 2, 8
TRIED = 5
exchanges: list[tuple[float, float]] = []  # seconds until the cache was another; not told apart


class CachedLoads(Loads, Transform):
    """Counts; a step that is no `Transform` of MONAI would be taken for a random one."""


def images(job: Mapping) -> list[dict[str, str]]:
    return [{KEY: str(one.path)} for one in work_of(job).subjects * job["listed"]]


def training_step():
    """A function that trains a small network on a batch and gives its loss."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    layers = []
    for channels in (1, CHANNELS):
        layers += [torch.nn.Conv3d(channels, CHANNELS, 3), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Conv3d(CHANNELS, 1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def step(image: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = torch.mean(torch.square(model(image.float() / 1000)))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def calibration(job: Mapping):
    """Seconds that a load takes, the median of a few, and a step, the least of a few."""
    dataset, step = seeded([*load(job), crop(job["patch"][::-1])]), training_step()
    data = images(job)
    image = torch.stack([dataset(data[0])[KEY]] * BATCH)
    step(image)

    def seconds(action) -> float:
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    def run(count: int) -> Iterator[Item]:
        loads = statistics.median(seconds(lambda one=one: dataset(one)) for one in data[:TRIED])
        steps = min(seconds(lambda: step(image)) for _ in range(TRIED))
        yield (np.array([loads, steps]),)

    return run


def epochs(job: Mapping, smart: bool):
    """A function that trains for some epochs; all that is exchanged in one is loaded in it."""
    data, step = images(job), training_step()
    number = job["cached"]
    options = {"cache_num": number, "copy_cache": False, "progress": False}
    loads = CachedLoads()
    transforms = seeded([*load(job), loads, crop(job["patch"][::-1])])
    if smart:
        options |= {"replace_rate": job["replace_rate"], "seed": SEED}
        dataset = SmartCacheDataset(data, transforms, **options)
        dataset.start()
    else:
        dataset = CacheDataset(data[:number], transforms, **options)
    sampler = RandomSampler(range(number), num_samples=BATCH * job["steps"])
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler)

    def run(count: int) -> Iterator[Item]:
        for _ in range(count // job["steps"]):
            if smart:
                start = time.perf_counter()
                dataset.update_cache()
                exchanges.append((time.perf_counter() - start, 0.0))
            for batch in loader:
                yield (np.float32([step(batch[KEY])]),)
        if smart:  # what is loaded ahead would disturb whoever comes next
            replaced = len(exchanges) * dataset._replace_num
            loads.wait_for(number + replaced + dataset._replace_num)

    return run


def contenders(job: Mapping) -> dict:
    warnings.filterwarnings("ignore")  # stderr is kept for errors
    set_track_meta(False)
    return {
        "calibration": lambda: calibration(job),
        "plain cache": lambda: epochs(job, smart=False),
        "smart cache": lambda: epochs(job, smart=True),
        "exchanges": lambda: lambda count: iter([(np.array(exchanges),)]),
    }
