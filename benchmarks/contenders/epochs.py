"""Epochs of training on crops from a cache, while a smart one replaces a part of it.

The cache holds four fifths of the volumes; in an epoch as many are replaced as are outside of it,
by decoding NIfTI. Steps of training, with one thread, take about twice as long as that.
"""

import numpy as np

PATCHES, CHANNELS, STEPS, CACHED = 2, 8, 12, 0.8  # of a batch, a network, an epoch, the volumes
exchanged: list[tuple[float, float]] = []  # seconds waited, and spent exchanging


def runs(train, swap, settle):
    """Of whole epochs, whose losses are the items.

    What is exchanged in a run is loaded in it: in the background it would disturb the next one.
    """

    def run(count: int):
        for _ in range(count):
            exchanged.extend(swap())
            yield (np.array(list(train())),)
        settle()

    return run


def exchanges(job):
    """How long all exchanges of this process took."""
    yield (np.array(exchanged),)
