"""A window over a set that is larger than memory: some of the items now, a few others next epoch.

    with SmartCache(paths, load, cache_num=50, replace_rate=0.1) as cache:
        dataset = crops.from_memory(cache, crop, batch_size=5, dtype="float32")
        model.fit(dataset.map(pair), epochs=20, callbacks=[cache.callback()])

The set's T items lie on a circle. The cache holds N neighbours of it, and at the end of an epoch
the R oldest leave and the next R enter; a thread loads those while the model trains. Once the
window is back where it began, every item was used equally often, or once more than some others.
"""

import dataclasses
import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np

from helpers import lists, memory
from helpers.errors import CourseDataError, need

__all__ = ["SmartCache", "Swap"]

AT_FIRST = 2  # threads that fill the cache


@dataclasses.dataclass(frozen=True)
class Swap:
    """One exchange. Items stay out of what is printed: they may be the names of files.

    Args:
        waited_s: seconds that the next elements were waited for.
        swapped_s: seconds that the exchange itself took.
        left: the items that left, the oldest first.
        entered: the items that took their places, in the same order.

    Taught in: tuning the pipeline
    """

    waited_s: float
    swapped_s: float
    left: tuple = dataclasses.field(repr=False)
    entered: tuple = dataclasses.field(repr=False)


class SmartCache(Sequence, AbstractContextManager):
    """Some of a set's elements in memory, of which a few are replaced after each epoch.

    The items are shuffled once and lie on a circle of T. The cache holds N neighbours; each `swap`
    replaces the R oldest by the next R of the circle, R = min(ceil(N * replace_rate), T - N). A
    new element takes the place of one that left, so those that stay keep theirs. A thread loads
    the next R meanwhile and then ends: memory holds N + R elements.

    With T = 100, N = 50 and a rate of 0.1, R is 5: by epoch 11 every item was used, after 20
    epochs the circle has turned once and each item was used in 10 of them.

    Args:
        items: of the set: paths, `lists.Item`, `cases.Case` or anything else that `load` takes.
        load: gives an item's element, a dict of arrays, after the deterministic work: what is
            random belongs behind the cache. It runs in other threads, at the start in two at once.
            Elements agree in fields, dtypes and numbers of axes.
        cache_num: N, from 1 to T. Clara's `num_cache_objects`.
        replace_rate: from 0, for a cache that stays as it is, to 1. Clara's `replace_percent`,
            which is a fraction as well. N * replace_rate is a product of floats, as in MONAI:
            70 * 0.1 gives 8.
        shuffle: whether to shuffle the items, once; the order is that of MONAI.
        seed: of the order.

    Raises:
        ValueError: for a rate that is no fraction.
        CourseDataError: `EMPTY_LIST` without items, `CACHE_TOO_LARGE` for an N that is not from 1
            to T; what `load` raises, with the item's number, as `LOADING_FAILED` unless it has a
            code of its own; `LOADING_FAILED` for an element unlike the first.

    `cache[i]` is the element at place i now and `len(cache)` is N, so a cache goes wherever a
    list of elements goes: into `crops.from_memory`, or as the source of a `pipeline`. Its arrays
    are read-only.

    The semantics of Clara Train's SmartCache and of MONAI's `SmartCacheDataset`.

    Taught in: tuning the pipeline
    """

    def __init__(self, items, load, *, cache_num, replace_rate=0.1, shuffle=True, seed=0) -> None:
        total = len(items)
        need(total, "EMPTY_LIST", "there are no items to cache")
        need(0 < cache_num <= total, "CACHE_TOO_LARGE", f"a cache of {cache_num} of {total} items")
        if not 0 <= replace_rate <= 1:
            raise ValueError(f"replace_rate is a fraction from 0 to 1, not {replace_rate}")
        order = np.arange(total)
        if shuffle:
            # MONAI's generator, which NumPy keeps as it is (NEP 19): the order never changes.
            np.random.RandomState(seed).shuffle(order)
        self.replace_num = min(math.ceil(cache_num * replace_rate), total - cache_num)
        self.epoch = 0
        self._load, self._circle = load, [(int(number), items[number]) for number in order]
        first = loaded(self._circle[0], load)
        with ThreadPoolExecutor(AT_FIRST) as pool:
            others = pool.map(lambda one: loaded(one, load, first), self._circle[1:cache_num])
            self._elements = [first, *others]
        self._closed = threading.Event()
        weakref.finalize(self, self._closed.set)
        self._load_ahead()

    def __len__(self) -> int:
        return len(self._elements)

    def __getitem__(self, place: int) -> dict:
        return self._elements[place]

    def __exit__(self, *error) -> None:
        self.close()

    def _neighbours(self, first: int) -> list[tuple]:
        """Numbers and items of R neighbours on the circle, from this position on."""
        total = len(self._circle)
        return [self._circle[n % total] for n in range(first, first + self.replace_num)]

    def _load_ahead(self) -> None:
        """Have a thread load the next R elements; it knows nothing of the cache, which may go."""
        neighbours = self._neighbours(self.epoch * self.replace_num + len(self))
        self._next = [Future() for _ in neighbours]
        work = self._next, neighbours, self._load, self._elements[0], self._closed
        threading.Thread(target=_work, args=work, name="SmartCache", daemon=True).start()

    def swap(self) -> Swap:
        """Replace the R oldest elements, after waiting until the next R are loaded.

        Call it at the end of an epoch. A pass that is not over yet goes on with the new elements
        in the places that it has not reached. Tensors that were given out stay as they are.

        Returns:
            What left and entered, and how long it took.

        Raises:
            CourseDataError: what the loader raised, at this and at each further call; the cache
                stays as it was.
            ValueError: if the cache is closed.
        """
        if self._closed.is_set():
            raise ValueError("the cache is closed, so nothing can enter it")
        start = time.perf_counter()
        loaded = [future.result() for future in self._next]
        ready = time.perf_counter()
        oldest = self.epoch * self.replace_num  # its position, and p % N is the place of p
        elements = list(self._elements)  # readers may still go through the old list
        for position, element in enumerate(loaded, oldest):
            elements[position % len(elements)] = element
        self._elements = elements
        self.epoch += 1
        done = time.perf_counter()
        self._load_ahead()
        left = tuple(item for _, item in self._neighbours(oldest))
        entered = tuple(item for _, item in self._neighbours(oldest + len(self)))
        return Swap(ready - start, done - ready, left, entered)

    def callback(self):
        """A Keras callback that swaps at the end of each epoch and keeps each `Swap` in `swaps`."""
        import keras

        swaps = []
        one = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: swaps.append(self.swap()))
        one.swaps = swaps
        return one

    def close(self) -> None:
        """Load no further; calling it twice is harmless. The elements can still be read."""
        self._closed.set()


def loaded(neighbour: tuple, load: Callable, like: dict | None = None) -> dict:
    """An item's element, in read-only copies: its loader may use the arrays again.

    Args:
        neighbour: the item's number, from 0, and the item.
        load: gives the item's element.
        like: an element that it has to agree with in fields, dtypes, number of axes and channels.

    Returns:
        A dict of arrays, as TensorFlow takes them without a copy; text is bytes objects.

    Raises:
        CourseDataError: what the loader raised, with the item's number: `LOADING_FAILED` unless it
            has a code of its own; `LOADING_FAILED` for an element that does not agree.

    Taught in: no lesson; caches and pipelines use it
    """
    number, item = neighbour
    try:
        element = {field: _array(value) for field, value in dict(load(item)).items()}
    except Exception as error:  # whatever a loader may raise
        ours = isinstance(error, CourseDataError)
        found = error.message if ours else f"the loader raised {type(error).__name__}: {error}"
        code = error.code if ours else "LOADING_FAILED"
        files = getattr(error, "files", ()) or lists.files_of(item)
        raise CourseDataError(code, f"items[{number}]: {found}", files) from error
    form, others = _form(element), _form(like or element)
    need(form == others, "LOADING_FAILED", f"items[{number}] holds {form}, others {others}")
    return element


def _array(value) -> np.ndarray:
    array = memory.aligned(value.encode() if isinstance(value, str) else value, copy=True)
    array.flags.writeable = False
    return array


def _form(element: dict) -> dict:
    return {
        field: f"{one.dtype}, {one.ndim} axes {one.shape[-1:]}" for field, one in element.items()
    }


def _work(futures: list, neighbours: list, load: Callable, like: dict, closed) -> None:
    for future, neighbour in zip(futures, neighbours, strict=True):
        if closed.is_set():
            future.cancel()
            continue
        try:
            future.set_result(loaded(neighbour, load, like))
        except BaseException as error:  # in a thread it would go unseen
            future.set_exception(error)
