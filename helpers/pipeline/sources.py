"""What a pipeline reads from: a folder of records, items with a loader, a dataset of elements."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from helpers import memory, records
from helpers.pipeline.listing import Listing
from helpers.pipeline.order import Facts

Stage = Callable[[tf.data.Dataset], tf.data.Dataset]


@dataclasses.dataclass(frozen=True)
class Record:
    """A record as an item of a smart cache: its number in the split, and its case's salted hash."""

    number: int
    case: str


class Records:
    """A folder of records, of one split."""

    def __init__(self, folder: str | Path, split: str | None) -> None:
        self.folder, self.split = Path(folder), split
        self._known: dict | None = None

    @property
    def known(self) -> dict:
        """`case`, `label` and `weight` of all records, in their order."""
        if self._known is None:
            self._known = records.index(self.folder, self.split)
        return self._known

    def __len__(self) -> int:
        return len(self.known["case"])

    @property
    def facts(self) -> Facts:
        """What the records say of themselves."""
        return Facts(self.known.get("label"), self.known.get("weight"))

    @property
    def bytes(self) -> int:
        """What the elements take in memory."""
        found = records.load_manifest(self.folder)
        known = found.split(self.split or found.splits[0])
        is_encoded = found.schema == "deeplab"
        wide = 1 if is_encoded else np.result_type(*{*known["dtype"]}).itemsize
        shapes = [[int(n) for n in text.split("x")] for text in known["shape"]]
        return sum(math.prod(shape[:-1]) * (shape[-1] * wide + 1) for shape in shapes)

    def whole(self, num_parallel_calls: int) -> tf.data.Dataset:
        """Every record once, in the order of `records.index` where the schema allows it."""
        del num_parallel_calls
        return records.read(self.folder, self.split, mapped=self.numbered)

    @property
    def numbered(self) -> bool:
        """Whether records can be read by their numbers, and come in the order of these."""
        return records.load_manifest(self.folder).schema != "deeplab"

    def shuffled(self, seed: int | None, batch: int | None) -> tf.data.Dataset:
        """Every record once, streamed from the shards."""
        return records.read(self.folder, self.split, seed=seed, batch=batch)

    def stream(
        self, order: tf.data.Dataset, num_parallel_calls: int, batch: int | None = None
    ) -> tf.data.Dataset:
        """Records by their numbers."""
        del num_parallel_calls
        return records.read(self.folder, self.split, mapped=True, indices=order, batch=batch)


class Elements:
    """A dataset of elements, read from start to end."""

    facts = Facts()
    bytes = 0

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self.dataset = dataset

    def whole(self, num_parallel_calls: int) -> tf.data.Dataset:
        """The dataset."""
        del num_parallel_calls
        return self.dataset


def opened(source, split: str | None, load: Callable | None) -> Records | Listing | Elements:
    """The one way into all kinds of source.

    Raises:
        CourseDataError: as of `Listing`.
        ValueError: for a split or a loader where there is no use for it.
    """
    if isinstance(source, tf.data.Dataset):
        if split is not None or load is not None:
            raise ValueError("a dataset has no splits, and loads by itself: no split=, no load=")
        return Elements(source)
    if isinstance(source, str | Path):
        if load is not None:
            raise ValueError("records need no loader; of files, hand in a list of paths")
        return Records(source, split)
    return Listing(source, load, split)


def applied(dataset: tf.data.Dataset, stages: Sequence[Stage]) -> tf.data.Dataset:
    """The dataset after these stages, one after another."""
    for stage in stages:
        dataset = dataset.apply(stage)
    return dataset


def items(
    source,
    split: str | None = None,
    transforms: Sequence[Stage] = (),
    load: Callable[..., dict] | None = None,
) -> tuple[tuple, Callable[[object], dict]]:
    """Items and their loader, for a cache that holds a part of them at a time.

        cache = SmartCache(*pipeline.items("records", "train", [crops.locate()]), cache_num=50)
        dataset = pipeline.segmentation(cache, batch_size=4, crop=crops.pos_neg(size, seed=1))

    Args:
        source, split, load: as for `segmentation`, without datasets: they have no items.
        transforms: stages without chance in them, done before an element enters the cache.

    Returns:
        `items`, of records small ones with their number and their case's hash, and `load(item)`,
        which gives an element of arrays, as `segmentation` would have it after `transforms`.
        Threads may call it.

    Raises:
        ValueError: for datasets.
        CourseDataError: as for `segmentation`; `load` raises what a loader raises.
    """
    found = opened(source, split, load)
    if isinstance(found, Elements):
        raise ValueError("a dataset is read from start to end: it has no items to choose from")
    if isinstance(found, Records):
        known = found.known["case"]
        names = [one.decode() if isinstance(one, bytes) else str(one) for one in known]
        read = _Graphs(lambda number: applied(found.stream(_one(number), 1), transforms))
        return tuple(Record(n, name) for n, name in enumerate(names)), lambda record: read(
            np.int64(record.number)
        )
    numbers = {id(item): number for number, item in enumerate(found.items)}
    transform = _Graphs(lambda element: applied(_one(element), transforms))

    def loaded(item) -> dict[str, np.ndarray]:
        if id(item) not in numbers:
            raise ValueError("this loader is for the items that came with it")
        element = found.element(numbers[id(item)])
        return transform(element) if transforms else element

    return found.items, loaded


def _one(value) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors(value)


class _Graphs:
    """Stages on a single element: one graph for all elements with the same fields and dtypes."""

    def __init__(self, build: Callable[[object], tf.data.Dataset]) -> None:
        self._build, self._lock, self._made = build, threading.Lock(), {}

    def __call__(self, value):
        spec = tf.nest.map_structure(_open_spec, value)
        key = str(spec)
        with self._lock:
            if key not in self._made:
                run = tf.function(
                    lambda one: self._build(one).get_single_element(), autograph=False
                )
                self._made[key] = run.get_concrete_function(spec)
        given = tf.nest.map_structure(lambda x, s: tf.constant(x, s.dtype), value, spec)
        return tf.nest.map_structure(memory.aligned, self._made[key](given))


def _open_spec(value) -> tf.TensorSpec:
    """Of an array; where it has three axes or more, their lengths are left open but the last."""
    value = np.asarray(value)
    shape = [None] * (value.ndim - 1) + [value.shape[-1]] if value.ndim > 2 else value.shape
    return tf.TensorSpec(shape, tf.string if value.dtype == object else value.dtype)
