"""Batches from loaders that are Python through and through, for Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np

from helpers import arguments, memory
from helpers.errors import CourseDataError, need
from helpers.pipeline.listing import Listing
from helpers.pipeline.order import Order, one_epoch


class PythonBatches(keras.utils.PyDataset):
    """Batches that a Python function loads, item by item, in threads or processes of Keras.

        batches = pipeline.PythonBatches(items, load, batch_size=4, target="mask",
                                         workers=2)
        model.fit(batches, epochs=10, shuffle=False)

    Say `shuffle=False` to `fit`: the order is drawn here, while Keras' own would shuffle the
    finished batches once more, from a generator that this seed does not reach.

    Args:
        items: as for `pipeline.segmentation`.
        load: `load(item)` gives a dict with an `image`, ready for a batch: all of one shape. None
            reads `lists.Item` as NIfTI.
        batch_size: items in a batch; the last one of an epoch may be smaller.
        target: "mask" or "label" for Keras' pairs `(image, target)`; None gives dicts.
        weight: with a target, also the `weight` of each item: `(image, target, weight)`.
        sampling: None takes each item once in an epoch; "automatic", "element" or probabilities,
            as for `pipeline.classification`, draw as many as there are.
        classes: ids of the classes that a label may have, each of which needs an item.
        split: of `cases.Case`, the ones to take.
        seeded: call `load(item, random)` with a `numpy.random.Generator` that depends on the seed,
            on the epoch and on the place in it, and on nothing else: for random crops.
        shuffle: a new order in each epoch; with `sampling` it is always one.
        dtype: of the image.
        seed: the same one gives the same batches, whatever the workers.
        workers, use_multiprocessing, max_queue_size: of `keras.utils.PyDataset`, which uses them
            in `fit`, `evaluate` and `predict`. Threads help where the loader reads files or
            decompresses; processes copy each batch once more, and the queue holds
            `max_queue_size` batches.

    Raises:
        CourseDataError: from the constructor `EMPTY_LIST`, `UNREADABLE` for files that are not
            there, `UNKNOWN_LABEL`, `EMPTY_CLASS` and `BAD_WEIGHT`; with a batch `NO_PAIR`,
            `LOADING_FAILED`, or the loader's own code, with the item's number, and
            `SHAPE_MISMATCH` for items of other shapes than the first of their batch.
        ValueError: for arguments that do not go together.

    The Keras variant of Clara Train's pipelines: worker threads or processes through Keras.
    """

    def __init__(
        self,
        items: Sequence,
        load: Callable[..., dict] | None = None,
        *,
        batch_size: int,
        target: str | None = None,
        weight: bool = False,
        sampling: str | Sequence[float] | None = None,
        classes: Iterable[int] | None = None,
        split: str | None = None,
        seeded: bool = False,
        shuffle: bool = True,
        dtype: str = "float32",
        seed: int = 0,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ) -> None:
        super().__init__(workers, use_multiprocessing, max_queue_size)
        arguments.whole("batch_size", batch_size)
        if target not in (None, "mask", "label"):
            raise ValueError(f'target is "mask", "label" or None, not {target!r}')
        if weight and target is None:
            raise ValueError("weights go with a target; in dicts they are a field")
        self._listing = Listing(items, load, split)
        if classes is not None and self._listing.facts.labels is None:
            raise ValueError("classes need labels that the items tell, as Item and Case do")
        labelled = target == "label" or classes is not None
        order = Order(sampling, shuffle, False, 1, seed, labelled, None, classes)
        order.check(self._listing.facts)
        self._draw = order.draw(len(self._listing), self._listing.facts)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self._target, self._weight, self._dtype = target, weight, np.dtype(dtype)
        self._seeded, self._shuffle = seeded, shuffle
        self._order = self._drawn()

    def __len__(self) -> int:
        return -(-len(self._order) // self.batch_size)

    def __getitem__(self, index: int):
        """The batch at this place of the epoch."""
        if not 0 <= index < len(self):  # for Python's own loop over an epoch
            raise IndexError(f"batch {index} of {len(self)}")
        places = range(len(self._order))[index * self.batch_size :][: self.batch_size]
        elements = [self._element(place) for place in places]
        batch = {field: self._stacked(elements, field, places) for field in elements[0]}
        stored = batch["image"]
        with np.errstate(over="ignore"):
            batch["image"] = stored.astype(self._dtype, copy=False)
        if memory.overflows(stored.dtype, self._dtype):
            problem = f"an image holds values beyond the range of {self._dtype}"
            need(np.isfinite(batch["image"]).all(), "NOT_FINITE", problem)
        if self._target is None:
            return batch
        fields = ("image", self._target, *(["weight"] if self._weight else []))
        for field in fields:
            if field not in batch:
                name = f"items[{self._order[places[0]]}]"
                raise CourseDataError("NO_PAIR", f"{name} has no `{field}`, which Keras is to get")
        return tuple(batch[field] for field in fields)

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch; Keras calls it."""
        self.epoch += 1
        self._order = self._drawn()

    def _drawn(self) -> np.ndarray:
        if self._draw is not None:
            return one_epoch(self._draw, seed=self.seed, epoch=self.epoch)
        order = np.arange(len(self._listing))
        if self._shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        return order

    def _element(self, place: int) -> dict[str, np.ndarray]:
        more = [np.random.default_rng([self.seed, self.epoch, place])] if self._seeded else []
        return self._listing.element(int(self._order[place]), *more)

    def _stacked(self, elements: list[dict], field: str, places: range) -> np.ndarray:
        first = elements[0][field]
        for place, element in zip(places, elements, strict=True):
            shape = element[field].shape if field in element else None
            if shape != first.shape:
                raise CourseDataError(
                    "SHAPE_MISMATCH",
                    f"items[{self._order[place]}]: `{field}` has shape {shape}, the first of its "
                    f"batch {first.shape}; let the loader crop, resize or pad to one shape",
                )
        return np.stack([element[field] for element in elements])
