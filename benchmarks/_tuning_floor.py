"""The floor of the benchmark of reading: what the machine needs to move a batch, by NumPy alone.

Copies with the cast to float32, into one buffer that is always the same and so always warm; from
volumes in memory, each crop at another place, or from files that the page cache holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from _tuning_inputs import arrays, batches_in_a_pass
from _workload import cropped

from helpers.memory import aligned

Item = tuple[np.ndarray, ...]
SEED = 1
THIN = 64  # voxels apart, of those that are looked at where batches are not


def thin(batch: np.ndarray) -> np.ndarray:
    """A few voxels of each example `[z, y, x]`: enough to see that it is another one."""
    batch = batch.reshape(batch.shape[0], -1)
    return batch[:, :: max(batch.shape[1] // THIN, 1)].copy()


def passes(job: Mapping, copies: Callable[[], Sequence[np.ndarray]], looked_at: bool = True):
    """A function that makes the batches of a pass, each from as many arrays as it has examples."""
    out = aligned(np.zeros((job["batch"], *job["crop"]), np.float32))
    pool = ThreadPoolExecutor(2) if job["style"] == "2 threads" else None

    def run() -> Iterator[Item]:
        for _ in range(batches_in_a_pass(job)):
            both = out, copies()
            list((pool.map if pool else map)(np.copyto, *both))
            yield (out if looked_at else thin(out),)

    return run


def from_memory(job: Mapping, looked_at: bool = True):
    """Random crops: the volumes in turn, each start as likely as any other."""
    volumes, rng = arrays(job["volumes"]), np.random.default_rng(SEED)
    room, done = np.subtract(job["head"], job["crop"]) + 1, 0

    def copies() -> list[np.ndarray]:
        nonlocal done
        starts = rng.integers(room, size=(job["batch"], 3))
        chosen = [volumes[(done + i) % len(volumes)] for i in range(job["batch"])]
        done += job["batch"]
        return [cropped(one, at, job["crop"]) for one, at in zip(chosen, starts, strict=True)]

    return passes(job, copies, looked_at)


def from_files(job: Mapping):
    """Stored crops: files of int16 that are mapped into memory, one after the other."""
    files, done = arrays(job["stored"], mapped=True), 0

    def copies() -> list[np.ndarray]:
        nonlocal done
        chosen = [files[(done + i) % len(files)] for i in range(job["batch"])]
        done += job["batch"]
        return chosen

    return passes(job, copies)


def nothing(job: Mapping):
    """What looking at the bytes of a batch takes, by itself."""
    out = aligned(np.ones((job["batch"], *job["crop"]), np.float32))

    def run() -> Iterator[Item]:
        for number in range(batches_in_a_pass(job)):
            out.flat[0] = number
            yield (out,)

    return run


def contenders(job: Mapping) -> dict:
    return {
        "memory": lambda: from_memory(job),
        "memory, not looked at": lambda: from_memory(job, looked_at=False),
        "files": lambda: from_files(job),
        "nothing": lambda: nothing(job),
    }
