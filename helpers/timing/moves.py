"""The machine's own limit: what it costs to move an element's bytes, and nothing else."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from helpers.timing.turns import Throughput, throughput

VOLUMES = 10  # that crops are cut out of; small ones may all stay in a processor's cache


def floor(like, *, stored=None, volume=None, elements=20, repeats=5) -> Throughput:
    """How long the machine takes to put such an element into memory, with no pipeline at all.

        print(timing.floor(dataset, stored="int16", volume=(180, 240, 240)))

    NumPy copies, and casts on the way, into memory that is in use already, in one thread. A
    pipeline that prepares elements on several cores can be quicker; one that is 1.3 times as slow
    is a good one.

    Args:
        like, stored, volume: as for `moving`, which `take_turns` takes beside pipelines.
        elements, repeats: as for `throughput`.

    Returns:
        A `Throughput`, with the same look at every byte as a pipeline gets.

    Raises:
        ValueError: as `moving`.

    Taught in: tuning the pipeline
    """
    move = moving(like, stored=stored, volume=volume)
    return throughput(move, elements=elements, repeats=repeats)


def moving(like, *, stored=None, volume=None) -> Iterator[list]:
    """An iterator without end, each of whose turns moves the bytes of one element into memory.

        floor = timing.moving(dataset, stored="int16", volume=(180, 240, 240))
        timing.take_turns({"pipeline": dataset, "floor": floor}, elements=20)

    Args:
        like: an element, or a dataset, whose first element is read. The image is its largest field;
            it is moved, and with it every field of the same shape but for the channels, as a mask.
        stored: type that the image is kept in, and cast from; None: its own.
        volume: spatial shape `[z, y, x]` or `[y, x]` of the images that crops are cut out of, each
            at another place. The image is then one crop, or a batch of them, with channels. None:
            the whole element is copied as it is.

    Returns:
        The iterator, of lists of arrays. Each turn overwrites what the last one gave.

    Raises:
        ValueError: at the first turn, for a crop that does not fit into `volume`.

    Taught in: tuning the pipeline
    """
    element = next(iter(like)) if isinstance(like, tf.data.Dataset) else like
    fields = [np.asarray(field) for field in tf.nest.flatten(element)]
    image = max(fields, key=lambda field: field.nbytes)
    whole = tuple(volume or image.shape[:-1])
    crop = image.shape[:-1][-len(whole) :]
    if np.any(np.greater(crop, whole)):
        raise ValueError(f"a crop of {crop} is no part of a volume of {whole}; both are spatial")
    pairs = []  # memory that is written, and volumes that it is written from
    for field in fields:
        if field.ndim == image.ndim and field.shape[:-1] == image.shape[:-1]:
            channels = field.shape[-1]
            kind = stored if stored and field is image else field.dtype
            values = np.arange(101).astype(kind)
            rows = np.ones_like(field).reshape(-1, *crop, channels)
            pairs.append((rows, np.resize(values, (VOLUMES, *whole, channels))))
    random = np.random.default_rng(0)
    room = [VOLUMES, *np.subtract(whole, crop) + 1]
    while True:
        for row in range(len(rows)):
            number, *start = random.integers(room)
            box = (number, *map(slice, start, np.add(start, crop)))
            for rows, volumes in pairs:
                np.copyto(rows[row], volumes[box], casting="unsafe")
        yield [rows for rows, _ in pairs]
