"""What MONAI and TorchIO share in the benchmarks: PyTorch's loader, for passes of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

SEED = 1
Item = tuple[np.ndarray, ...]


class Turns(Sampler):
    """Numbers of items, as many as a pass needs, in turn or, each time anew, shuffled."""

    def __init__(self, size: int, shuffled: bool) -> None:
        self.size, self.shuffled, self.count = size, shuffled, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        done = 0
        while done < self.count:
            order = torch.randperm(self.size) if self.shuffled else torch.arange(self.size)
            yield from order[: self.count - done].tolist()
            done += self.size


def passes(
    dataset,
    job: Mapping,
    finish: Callable[[Mapping], Item],
    batch_size: int = 1,
    loader: type = DataLoader,
    shuffled: bool = False,
    **options: object,
):
    """A function that gives as many batches as it is told, each `finish`ed."""
    if "workers" in job["style"]:
        options |= {"num_workers": 2, "persistent_workers": True}
    turns = Turns(len(dataset), shuffled)
    made = loader(dataset, batch_size=batch_size, sampler=turns, **options)

    def run(count: int) -> Iterator[Item]:
        turns.count = count * batch_size
        for batch in made:
            yield finish(batch)

    return run
