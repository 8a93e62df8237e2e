"""Batches from loaders that are Python through and through, for Keras."""

import keras
import numpy as np

from helpers.errors import need
from helpers.pipeline.loading import Loaded
from helpers.pipeline.order import one_epoch


class PythonBatches(keras.utils.PyDataset):
    """Batches that a Python function loads, item by item, in threads or processes of Keras.

        batches = pipeline.PythonBatches(items, load, batch_size=4, target="mask",
                                         workers=2)
        model.fit(batches, epochs=10, shuffle=False)

    Say `shuffle=False` to `fit`: the order is drawn here, while Keras' own would shuffle the
    finished batches once more, from a generator that this seed does not reach.

    Args:
        items: as for `pipeline.batches`.
        load: `load(item)` gives a dict with an `image`, ready for a batch: all of one shape. None
            reads `lists.Item` as NIfTI.
        batch_size: items in a batch; the last one of an epoch may be smaller.
        target: "mask" or "label" for Keras' pairs `(image, target)`; None gives dicts.
        seeded: call `load(item, random)` with a `numpy.random.Generator` that depends on the seed,
            on the epoch and on the place in it, and on nothing else: for random crops.
        shuffle: a new order in each epoch.
        seed: the same one gives the same batches, whatever the workers.
        workers: and `use_multiprocessing`, `max_queue_size`, of `keras.utils.PyDataset`, which
            uses them in `fit`, `evaluate` and `predict`. Threads help where the loader reads files
            or decompresses; processes copy each batch once more, and the queue holds
            `max_queue_size` batches.

    Raises:
        CourseDataError: from the constructor `EMPTY_LIST`, `UNREADABLE` for files that are not
            there, `UNKNOWN_LABEL`; with a batch `NO_PAIR`, `LOADING_FAILED`, or the loader's own
            code, with the item's number, and `SHAPE_MISMATCH` for items of other shapes than the
            first of their batch.

    The Keras variant of Clara Train's pipelines: worker threads or processes through Keras. Where
    rare classes are to be drawn more often, `pipeline.classification` does that.

    Taught in: tuning the pipeline
    """

    def __init__(
        self,
        items,
        load=None,
        *,
        batch_size,
        target=None,
        seeded=False,
        shuffle=True,
        seed=0,
        **workers,
    ) -> None:
        super().__init__(**workers)
        self._elements = Loaded(items, load)
        self._how = {"labelled": target == "label", "shuffle": shuffle, "seed": seed}
        self._batch_size, self._target, self._seeded = batch_size, target, seeded
        self._epoch = -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._elements) // self._batch_size)

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch; Keras calls it."""
        self._epoch += 1
        self._order = one_epoch(self._epoch, self._elements, **self._how)

    def __getitem__(self, index: int):
        """The batch at this place of the epoch."""
        if not 0 <= index < len(self):  # for Python's own loop over an epoch
            raise IndexError(f"batch {index} of {len(self)}")
        first = index * self._batch_size
        loaded = []
        for place, number in enumerate(self._order[first : first + self._batch_size], first):
            random = np.random.default_rng([self._how["seed"], self._epoch, place])
            loaded.append(self._elements.element(int(number), *[random] * self._seeded))
            shape, wanted = loaded[-1]["image"].shape, loaded[0]["image"].shape
            problem = f"items[{number}]: an image of shape {shape}, in a batch of {wanted}"
            need(shape == wanted, "SHAPE_MISMATCH", problem)
        batch = {field: np.stack([one[field] for one in loaded]) for field in loaded[0]}
        batch["image"] = batch["image"].astype(np.float32)
        if self._target is None:
            return batch
        need(self._target in batch, "NO_PAIR", f"no `{self._target}`, but {', '.join(batch)}")
        return batch["image"], batch[self._target]
