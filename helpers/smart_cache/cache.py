"""The cache itself: a sliding window over the items, exchanged between epochs."""

from __future__ import annotations

import dataclasses
import math
import operator
import time
import weakref
from collections.abc import Callable, Sequence
from numbers import Integral, Real

import numpy as np

from helpers import arguments
from helpers.errors import CourseDataError
from helpers.smart_cache import feeding, kept
from helpers.smart_cache.loading import Ahead, Source

CLOSING_S = 5.0  # how long `close` waits for a load that is under way
LARGEST_SEED = 2**32 - 1  # of NumPy's RandomState


@dataclasses.dataclass(frozen=True)
class Swap:
    """One exchange. Items stay out of what is printed: they may be the names of files.

    Args:
        waited_s: seconds that the next elements were waited for.
        swapped_s: seconds that the exchange itself took.
        left: the items that left, the oldest first.
        entered: the items that took their places, in the same order.
    """

    waited_s: float
    swapped_s: float
    left: tuple = dataclasses.field(repr=False)
    entered: tuple = dataclasses.field(repr=False)


class SmartCache:
    """Some of a set's elements in memory, of which a few are replaced after each epoch.

    The items are shuffled once and lie on a circle of T. The cache holds N neighbours; each `swap`
    replaces the R oldest by the next R of the circle, R = min(ceil(N * replace_rate), T - N). A
    new element takes the place of one that left, so those that stay keep theirs. A thread loads
    the next R meanwhile, in the order of the circle, and then rests: memory holds N + R elements.

    With T = 100, N = 50 and a rate of 0.1, R is 5: by epoch 11 every item was used, after 20
    epochs the circle has turned once and each item was used in 10 of them.

    Args:
        items: of the set: paths, `lists.Item`, `cases.Case` or anything else that `load` takes.
        load: gives an item's element, a dict of arrays or tensors, after the deterministic work:
            what is random belongs behind the cache. It runs in other threads, at the start in
            several at once. Elements agree in fields, dtypes and numbers of axes.
        cache_num: N, from 1 to T. Clara's `num_cache_objects`.
        replace_rate: from 0, for a cache that stays as it is, to 1. Clara's `replace_percent`,
            which is a fraction as well. N * replace_rate is a product of floats, as in MONAI:
            70 * 0.1 gives 8.
        shuffle: whether to shuffle the items, once; the order is that of MONAI.
        seed: of the order.
        init_workers: threads that fill the cache at first.
        names: of the items, for errors; by default their files' names or their positions.
        element_spec: dict of `tf.TensorSpec` that all elements fit. By default it is made of the
            first N; an axis whose length differs among them is None, and a later element that
            does not fit is an error. Give it where the first N may be more alike than the rest.

    Raises:
        ValueError: for bad arguments.
        CourseDataError: `EMPTY_LIST` without items, `CACHE_TOO_LARGE` if N exceeds T; what `load`
            raises, with the item's name, as `LOADING_FAILED` unless it has a code of its own;
            `SHAPE_MISMATCH` for an element whose shape does not fit.

    `cache[i]` is the element at place i now and `len(cache)` is N, so a cache goes wherever a
    list of elements goes, for instance into `crops.from_memory`. Its arrays are read-only.

    The semantics of Clara Train's SmartCache and of MONAI's `SmartCacheDataset`.
    """

    def __init__(
        self,
        items: Sequence,
        load: Callable,
        *,
        cache_num: int,
        replace_rate: float = 0.1,
        shuffle: bool = True,
        seed: int = 0,
        init_workers: int = 2,
        names: Sequence[str] | None = None,
        element_spec: dict | None = None,
    ) -> None:
        items = tuple(items)
        names = None if names is None else tuple(names)
        _check(len(items), cache_num, replace_rate, seed, init_workers, names)
        order = np.arange(len(items))
        if shuffle:
            # MONAI's generator, which NumPy keeps as it is (NEP 19): the order never changes.
            np.random.RandomState(seed).shuffle(order)
        order = tuple(order.tolist())
        form = None if element_spec is None else kept.form_of_spec(element_spec)
        source = Source(items, load, names, form)
        self._items, self._order, self._source = items, order, source
        self._num = int(cache_num)
        self._replace_num = min(math.ceil(cache_num * replace_rate), len(items) - self._num)
        self._epoch = 0
        self._elements = source.first(order[: self._num], init_workers)
        self._reminder = feeding.Reminder(needed=self._replace_num > 0)

        def read(position: int) -> dict:
            return source.element(order[position % len(order)])

        self._ahead = Ahead(read, self._num, self._replace_num)
        self._end = weakref.finalize(self, self._ahead.stop)

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, place: int) -> dict:
        return self._elements[operator.index(place)]

    def __enter__(self) -> SmartCache:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    @property
    def items(self) -> tuple:
        """The items whose elements are in the cache now, by place."""
        first = self._epoch * self._replace_num
        oldest = first % self._num  # what is at position p of the circle is at place p % N
        window = self._circle(first, self._num)
        return window[self._num - oldest :] + window[: self._num - oldest]

    @property
    def epoch(self) -> int:
        """How many swaps there were."""
        return self._epoch

    @property
    def replace_num(self) -> int:
        """R, how many elements a swap replaces."""
        return self._replace_num

    @property
    def element_spec(self) -> dict:
        """`tf.TensorSpec` of each field; None where elements may differ in length."""
        return kept.spec_of(self._source.form)

    def _circle(self, first: int, count: int) -> tuple:
        """Some neighbours on the circle of items."""
        total = len(self._order)
        return tuple(self._items[self._order[i % total]] for i in range(first, first + count))

    def swap(self) -> Swap:
        """Replace the R oldest elements, after waiting until the next R are loaded.

        Call it at the end of an epoch. A pass that is not over yet goes on with the new elements
        in the places that it has not reached. Tensors that were given out stay as they are.

        Raises:
            CourseDataError: what the loader raised, at this and at each further call; the cache
                stays as it was.
            ValueError: if the cache is closed.
        """
        start = time.perf_counter()
        with self._ahead.lock:
            entering = self._ahead.wait()
            ready = time.perf_counter()
            first = self._epoch * self._replace_num
            elements = list(self._elements)  # readers may still go through the old list
            left = []
            for i, element in enumerate(entering, first):
                left.append(elements[i % self._num])
                elements[i % self._num] = element
            self._elements, self._epoch = elements, self._epoch + 1
            self._reminder.needed = False
            self._ahead.go_on(left)  # and it is the thread that forgets them
            del left
        return Swap(
            waited_s=ready - start,
            swapped_s=time.perf_counter() - ready,
            left=self._circle(first, self._replace_num),
            entered=self._circle(first + self._num, self._replace_num),
        )

    def dataset(self, indices=None):
        """A `tf.data.Dataset` of the elements in the cache, without a copy of their arrays.

        Args:
            indices: dataset of whole numbers, the places to read, for instance shuffled or drawn
                by `sampling.indices`; by default each of the N once, in order.

        Each element is fetched when it is asked for. An iterator that is made after a swap, as
        Keras makes one for each epoch, reads the new elements only. Behind `repeat`, tf.data reads
        a few elements ahead: of those, some that leave may be used once more in place of some that
        enter; every other element is still read once in a pass. Do not `cache` it.

        A warning says so if two epochs were read and nobody swaps.
        """
        return feeding.dataset(self, indices, self._reminder)

    def callback(self):
        """A `keras.callbacks.Callback` that swaps at the end of each epoch.

        Returns:
            The callback; its list `swaps` holds a `Swap` for each epoch.
        """
        self._reminder.needed = False
        return feeding.callback(self)

    def close(self) -> None:
        """End the thread; calling it twice is harmless. The elements can still be read."""
        self._end()
        self._ahead.join(CLOSING_S)


def _check(total, cache_num, replace_rate, seed, init_workers, names) -> None:
    if not total:
        raise CourseDataError("EMPTY_LIST", "there are no items to cache; expected at least one")
    arguments.whole("cache_num", cache_num)
    if cache_num > total:
        raise CourseDataError(
            "CACHE_TOO_LARGE",
            f"a cache of {cache_num} items for a set of {total}; cache_num is at most {total}",
        )
    if not (isinstance(replace_rate, Real) and 0 <= replace_rate <= 1):
        raise ValueError(f"replace_rate is a fraction from 0 to 1, not {replace_rate!r}")
    if not (isinstance(seed, Integral) and 0 <= seed <= LARGEST_SEED):
        raise ValueError(f"a seed is a whole number from 0 to {LARGEST_SEED}, not {seed!r}")
    arguments.whole("init_workers", init_workers)
    if names is not None and len(names) != total:
        raise ValueError(f"{len(names)} names for {total} items")
