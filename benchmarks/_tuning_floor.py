"""The floor of the benchmark of reading: what the machine needs to move a batch, by NumPy alone.

Copies with the cast to float32, into one buffer that is always the same and so always warm; from
volumes in memory, each crop at another place, or from files that the page cache holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from _workload import arrays, cropped

from helpers.memory import aligned

Item = tuple[np.ndarray, ...]
SEED = 1
THIN = 64  # voxels of each example that are looked at where batches are not


def thin(batch: np.ndarray) -> np.ndarray:
    """A few voxels of each example `[z, y, x]`: enough to see that it is another one."""
    batch = batch.reshape(batch.shape[0], -1)
    return batch[:, :: max(batch.shape[1] // THIN, 1)].copy()


def passes(job: Mapping, sources: Callable[[int], Sequence[np.ndarray]], looked_at: bool = True):
    """A function that makes batches; `sources(n)` gives the arrays of which batch n consists."""
    out = aligned(np.zeros((job["batch"], *job["crop"]), np.float32))
    pool = ThreadPoolExecutor(2) if "threads" in job["style"] else None

    def run(count: int) -> Iterator[Item]:
        for number in range(count):
            list((pool.map if pool else map)(np.copyto, out, sources(number)))
            yield (out if looked_at else thin(out),)

    return run


def in_turn(several: Sequence, job: Mapping, number: int) -> list:
    """The arrays for batch `number`, all in turn."""
    first = number * job["batch"]
    return [several[(first + i) % len(several)] for i in range(job["batch"])]


def from_memory(job: Mapping, looked_at: bool = True):
    """Random crops: the volumes in turn, each start as likely as any other."""
    volumes, rng = arrays(job["volumes"]), np.random.default_rng(SEED)
    room = np.subtract(job["head"], job["crop"]) + 1

    def sources(number: int) -> list[np.ndarray]:
        starts = rng.integers(room, size=(job["batch"], 3))
        pairs = zip(in_turn(volumes, job, number), starts, strict=True)
        return [cropped(one, at, job["crop"]) for one, at in pairs]

    return passes(job, sources, looked_at)


def from_files(job: Mapping):
    """Stored crops: files of int16 that are mapped into memory, one after the other."""
    files = arrays(job["stored"], mapped=True)
    return passes(job, lambda number: in_turn(files, job, number))


def nothing(job: Mapping):
    """What looking at the bytes of a batch takes, by itself."""
    out = aligned(np.ones((job["batch"], *job["crop"]), np.float32))
    return lambda count: ((out,) for _ in range(count))


def contenders(job: Mapping) -> dict:
    return {
        "memory": lambda: from_memory(job),
        "memory, not looked at": lambda: from_memory(job, looked_at=False),
        "files": lambda: from_files(job),
        "nothing": lambda: nothing(job),
    }
