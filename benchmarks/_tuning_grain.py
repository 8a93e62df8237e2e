"""Grain in the benchmark of reading: volumes in memory, or NumPy files that the page cache holds.

`job["style"]`: "plain" with the options that Grain has by itself, "tuned" with the best that were
found: cast and put together in one step, and two threads that run two batches ahead; "workers" with
two processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grain
import numpy as np
from _workload import arrays, cropped

SEED = 1
AHEAD = 2  # batches


class Files:
    """A source of Grain: NumPy files, each read when it is asked for."""

    def __init__(self, folder: str) -> None:
        self.files = sorted(map(str, Path(folder).glob("*.npy")))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number) -> np.ndarray:
        return np.load(self.files[number], allow_pickle=False)


class Crop(grain.transforms.RandomMap):
    """Any place is as likely as any other; a view, or float32 at once."""

    def __init__(self, size: Sequence[int], cast: bool) -> None:
        self.size, self.cast = tuple(size), cast

    def random_map(self, element: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        part = cropped(element, rng.integers(np.subtract(element.shape, self.size) + 1), self.size)
        return part.astype(np.float32) if self.cast else part


def as_float32(element: np.ndarray) -> np.ndarray:
    return element.astype(np.float32)


def put_together(items: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(items, dtype=np.float32)


class IntoWarmMemory:
    """A `batch_fn` of one's own: each crop is cast into a batch that is always the same."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.out = np.zeros(shape, np.float32)

    def __call__(self, items: Sequence[np.ndarray]) -> np.ndarray:
        for into, item in zip(self.out, items, strict=True):
            np.copyto(into, item)
        return self.out


def passes(job: Mapping, source, crop: bool, own_batch_fn: bool = False):
    """A function that goes through as many batches as it is told, other ones each time."""
    tuned, seeds = "tuned" in job["style"], itertools.count(SEED)

    def run(total: int) -> Iterator[tuple[np.ndarray, ...]]:
        epochs = -(-total * job["batch"] // len(source))
        data = grain.MapDataset.source(source).seed(next(seeds)).shuffle().repeat(epochs)
        if crop:
            data = data.random_map(Crop(job["crop"], cast=not tuned))
        elif not tuned:
            data = data.map(as_float32)
        if own_batch_fn:
            warm = IntoWarmMemory((job["batch"], *job["crop"]))
            options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
            batches = data.batch(job["batch"], batch_fn=warm).to_iter_dataset(options)
        elif tuned:
            options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=AHEAD)
            batches = data.batch(job["batch"], batch_fn=put_together).to_iter_dataset(options)
        else:
            batches = data.batch(job["batch"]).to_iter_dataset()
        if "workers" in job["style"]:
            batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=2))
        for count, batch in enumerate(batches, 1):
            yield (batch,)
            if count == total:
                break

    return run


def contenders(job: Mapping) -> dict:
    return {
        "memory": lambda: passes(job, arrays(job["volumes"]), crop=True),
        "memory, own batch_fn": lambda: passes(job, arrays(job["volumes"]), True, True),
        "files": lambda: passes(job, Files(job["stored"]), crop=False),
    }
