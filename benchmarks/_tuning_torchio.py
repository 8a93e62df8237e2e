"""TorchIO in the benchmark of reading: its Queue of patches, with uniformly drawn crops.

`job["style"]`: "plain", one crop of each volume, as the workload has it; "tuned", five of each
while it is at hand; both also with "workers", two processes that load the volumes. How long the
queue is has no default: two batches of patches in which to shuffle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
import torchio
from _peers_torch import SEED, Item
from _tuning_inputs import work_of
from _workload import arrays

QUEUED = 2  # batches
EACH = 5  # crops of a volume, where it is tuned


def in_memory(job: Mapping) -> list[torchio.Subject]:
    """Volumes `[1, z, y, x]` that are held, int16 as they are stored."""
    tensors = [torch.from_numpy(one)[None] for one in arrays(job["volumes"])]
    return [torchio.Subject(image=torchio.ScalarImage(tensor=one)) for one in tensors]


def in_files(job: Mapping) -> list[torchio.Subject]:
    """Volumes `[1, x, y, z]` that are read whenever one is needed."""
    images = [torchio.ScalarImage(one.path) for one in work_of(job).subjects]
    return [torchio.Subject(image=one) for one in images]


def passes(job: Mapping, subjects: list[torchio.Subject], size: tuple[int, ...]):
    """A function that goes through a queue, which is filled from as many volumes as it needs."""
    each = EACH if "tuned" in job["style"] else 1

    def run(count: int) -> Iterator[Item]:
        listed = [subjects[i % len(subjects)] for i in range(-(-job["batch"] * count // each))]
        queue = torchio.Queue(
            torchio.SubjectsDataset(listed),
            max_length=QUEUED * job["batch"],
            samples_per_volume=each,
            sampler=torchio.UniformSampler(size),
            num_workers=2 if "workers" in job["style"] else 0,
            start_background=False,
        )
        for batch in torchio.SubjectsLoader(queue, batch_size=job["batch"]):
            yield (batch["image"][torchio.DATA].float().numpy(),)

    return run


def contenders(job: Mapping) -> dict:
    warnings.filterwarnings("ignore")  # stderr is kept for errors
    torch.manual_seed(SEED)
    size = tuple(job["crop"])
    return {
        "memory": lambda: passes(job, in_memory(job), size),
        "nifti": lambda: passes(job, in_files(job), size[::-1]),
    }
