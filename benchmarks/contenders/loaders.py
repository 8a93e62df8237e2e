"""PyTorch's loader, for MONAI and TorchIO: passes of any length."""

import torch
from torch.utils.data import DataLoader, Sampler


class Turns(Sampler):
    """Numbers of items, as many as a pass needs, in turn or, each time anew, shuffled."""

    def __init__(self, size: int, shuffled: bool) -> None:
        self.size, self.shuffled, self.count = size, shuffled, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        done = 0
        while done < self.count:
            order = torch.randperm(self.size) if self.shuffled else torch.arange(self.size)
            yield from order[: self.count - done].tolist()
            done += self.size


def passes(dataset, finish, batch_size=1, loader=DataLoader, shuffled=False, workers=0, **options):
    """Runs that give as many batches as they are told; `finish` makes a tuple of arrays of one."""
    if workers:
        options |= {"num_workers": workers, "persistent_workers": True}
    turns = Turns(len(dataset), shuffled)
    made = loader(dataset, batch_size=batch_size, sampler=turns, **options)

    def run(count: int):
        turns.count = count * batch_size
        for batch in made:
            yield finish(batch)

    return run
