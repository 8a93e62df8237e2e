"""Grain: volumes in memory, or NumPy files that the page cache holds.

Plain rows have the options that Grain has by itself. Tuned ones the best that were found: cast and
put together in one step, and two threads that run two batches ahead; `workers` are processes.
"""

import functools
import itertools
from pathlib import Path

import grain
import numpy as np

from contenders import AT_A_TIME, SEED, arrays, box

AHEAD = 2  # batches


def cropped(element: np.ndarray, rng: np.random.Generator, size) -> np.ndarray:
    """Any place is as likely as any other; a view."""
    return element[box(rng.integers(np.subtract(element.shape, size) + 1), size)]


def as_float32(element: np.ndarray) -> np.ndarray:
    return element.astype(np.float32)


def put_together(items) -> np.ndarray:
    return np.stack(items, dtype=np.float32)


def from_memory(job, **how):
    data = grain.MapDataset.source(arrays(job["folder"]))
    return passes(job, data, functools.partial(cropped, size=job["crop"]), **how)


def from_files(job, **how):
    names = sorted(map(str, Path(job["folder"], "stored").glob("*.npy")))
    return passes(job, grain.MapDataset.source(names).map(np.load), None, **how)


def passes(job, data, crop, tuned=False, by_hand=False, workers=0):
    """Runs that go through as many batches as they are told, other ones each time.

    By hand is a `batch_fn` of one's own: each crop is cast into a batch that is always the same.
    """
    seeds, warm = itertools.count(SEED), np.zeros((job["batch"], *job["crop"]), np.float32)

    def into_warm_memory(items) -> np.ndarray:
        for into, item in zip(warm, items, strict=True):
            np.copyto(into, item)
        return warm

    def run(count: int):
        several = data.seed(next(seeds)).shuffle().repeat(-(-count * job["batch"] // len(data)))
        several = several.random_map(crop) if crop else several
        options, batch_fn = None, None
        if by_hand:
            options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
            batch_fn = into_warm_memory
        elif tuned:
            options = grain.ReadOptions(num_threads=AT_A_TIME, prefetch_buffer_size=AHEAD)
            batch_fn = put_together
        else:
            several = several.map(as_float32)
        batches = several.batch(job["batch"], batch_fn=batch_fn).to_iter_dataset(options)
        if workers:
            batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
        for batch in itertools.islice(batches, count):
            yield (batch,)

    return run
