"""Arrays in memory as TensorFlow likes them: aligned, kept, and used again while they are warm.

    elements = memory.gather(dataset.apply(crops.locate()))   # one pass; NumPy from here on
    elements[0]["image"].shape                                # [z, y, x, c], in its stored dtype

TensorFlow takes an array that begins at a multiple of 64 bytes as it is, and copies any other.
Fresh memory costs more than the copy into it, because the system clears each page first. Nothing
here imports TensorFlow.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping

import numpy as np

ALIGNMENT = 64  # bytes; what TensorFlow asks of an array that it does not copy
MOST_KEPT = 16  # buffers; a pipeline uses a few at a time
QUIET_S = 0.05  # without a call: TensorFlow's threads have given up
LONGEST_END_S = 5.0
BATCH_BYTES = 2**24  # read at once by `gather`
LEAST_BYTES = 2**16  # of an element, for the number of them in a batch
INFINITE = -1  # `tf.data.INFINITE_CARDINALITY`, without the import
Keys = tuple[str, ...]  # of a field: its own, and before it those of the dicts that it lies in


class Buffers:
    """Memory for batches, used again as soon as nobody holds the batch that lay in it.

    An array is given out again when no array, view or tensor refers to it any more. TensorFlow
    holds a reference to an aligned array as long as a tensor of it lives, so a batch that somebody
    keeps stays as it is. Threads may share one object.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of any content that begins where TensorFlow wants it.

        Args:
            shape: of the array.
            dtype: of the array; not of objects.

        Returns:
            A C-contiguous array, warm where one of its size is free.
        """
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize + ALIGNMENT
        with self._lock:
            memory = self._free(size)
            first = -memory.ctypes.data % ALIGNMENT
            return memory[first : first + size - ALIGNMENT].view(dtype).reshape(shape)

    def _free(self, size: int) -> np.ndarray:
        alone = [count == ALONE for count in _references(self._kept)]
        for memory, is_free in zip(self._kept, alone, strict=True):
            if is_free and len(memory) == size:
                return memory
        memory = np.empty(size, np.uint8)
        if len(self._kept) < MOST_KEPT:
            self._kept.append(memory)
        elif any(alone):  # one of a size that is not asked for now
            self._kept[alone.index(True)] = memory
        return memory


def _references(arrays: list[np.ndarray]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays]


# Of an array that only such a list holds: it depends on how Python counts the call itself.
ALONE = _references([np.empty(0)])[0]


def aligned(array) -> np.ndarray:
    """The array, as TensorFlow takes it without a copy.

    Args:
        array: of any shape and dtype; also a tensor, a number or a string.

    Returns:
        The array itself if it is C-contiguous, in this machine's byte order and begins at a
        multiple of 64 bytes; otherwise a copy that is and does. Empty arrays, strings and objects,
        which TensorFlow always copies, stay as they are.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "biufc" or not array.size:
        return array
    fits = array.flags.c_contiguous and array.dtype.isnative
    if fits and array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = Buffers().empty(array.shape, array.dtype.newbyteorder("="))
    np.copyto(copy, array)
    return copy


def overflows(stored, dtype) -> bool:
    """Whether a float dtype is too narrow for the range of another dtype.

    Args:
        stored, dtype: NumPy's or TensorFlow's, or their names.

    >>> overflows("float32", "float16"), overflows("int16", "float16")
    (True, False)

    Taught in: no lesson; pipelines use it, to refuse what would become infinite
    """
    stored, dtype = (np.dtype(getattr(one, "as_numpy_dtype", one)) for one in (stored, dtype))
    if stored.kind not in "iuf" or dtype.kind != "f":
        return False
    limits = np.finfo if stored.kind == "f" else np.iinfo
    return bool(limits(stored).max > np.finfo(dtype).max)


def leaves(element: Mapping, *outer: str) -> Iterator[tuple[Keys, object]]:
    """Keys and value of each field, those of dicts inside included, as `(("places", "shape"), x)`.

    Args:
        element: a dict.
        outer: keys of the dicts that it lies in.
    """
    for name, value in element.items():
        if isinstance(value, Mapping):
            yield from leaves(value, *outer, name)
        else:
            yield (*outer, name), value


def gather(dataset) -> list[dict[str, np.ndarray]]:
    """All elements of a dataset, kept in memory as arrays.

    Args:
        dataset: a finite `tf.data.Dataset` of dicts; it is read once, from start to end.

    Returns:
        A dict of arrays for each element, in order, with dtypes as they are; scalars are arrays
        without axes, strings such of bytes objects. Dicts inside, such as `places` of
        `crops.locate`, stay dicts. Arrays are `aligned`, and not copied if they were so before:
        small ones may be parts of a common array of up to 16 MiB, which any of them keeps.

    Raises:
        ValueError: for elements that are no dicts, and for a dataset that never ends.

    The list takes the part of MONAI's `CacheDataset` and of `dataset.cache()`.
    """
    if not isinstance(dataset.element_spec, Mapping):
        raise ValueError("elements are dicts with an `image` and, if you like, a `mask`")
    if int(dataset.cardinality()) == INFINITE:
        raise ValueError("a dataset that repeats for ever has no last element; gather comes first")
    together = _together(dataset.element_spec)
    if together == 1:
        return [_arrays(element) for element in dataset.as_numpy_iterator()]
    # Small elements cost more to ask for than to read: take them by the batch.
    batches = dataset.batch(together).as_numpy_iterator()
    return [_arrays(_at(batch, n)) for batch in batches for n in range(_length(batch))]


def _together(spec: Mapping) -> int:
    """How many elements may be read at once: those of one shape, as long as they are small."""
    each = 0
    for _, leaf in leaves(spec):
        shape = getattr(leaf, "shape", None)
        if type(leaf).__name__ != "TensorSpec" or not shape.is_fully_defined():
            return 1
        each += leaf.dtype.size * shape.num_elements()
    return max(1, BATCH_BYTES // max(each, LEAST_BYTES))


def _at(batch, n: int):
    return (
        {name: _at(one, n) for name, one in batch.items()}
        if isinstance(batch, Mapping)
        else batch[n]
    )


def _length(batch: Mapping) -> int:
    return len(next(value for _, value in leaves(batch)))


def _arrays(value):
    if isinstance(value, Mapping):
        return {name: _arrays(one) for name, one in value.items()}
    return np.array(value, object) if isinstance(value, bytes) else aligned(value)


def weakly(function: Callable) -> Callable:
    """A stand-in for a function that does not keep it, and what it holds, in memory.

    `tf.numpy_function` keeps the function that it is given until the process ends, and with it all
    voxels that the function may reach. A dataset keeps what it maps only as long as it lives
    itself: map a function that refers to `function`, and give `tf.numpy_function` this.

    Args:
        function: anything that can be called and weakly referred to.

    Returns:
        What calls `function`; once that is gone, it raises ReferenceError, and StopIteration, the
        end of the dataset, when Python comes to its own.
    """
    reference = weakref.ref(function)

    def call(*arguments):
        target = reference()
        if target is None:
            raise ReferenceError("the dataset that these arrays belonged to is gone")
        _CALLS.begin()
        try:
            return target(*arguments)
        finally:
            _CALLS.finish()

    return call


class _Calls:
    """Calls from TensorFlow's threads, which have to be over before Python can end.

    An iterator that lives until then, say at the top of a script, is deleted while Python shuts
    down. TensorFlow waits for its threads in that place, and a thread that has just asked for
    Python waits for ever: the script would never end.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made = self.running = 0
        self.ended = False

    def begin(self) -> None:
        with self.lock:
            self.made += 1
            if self.ended:
                raise StopIteration
            self.running += 1

    def finish(self) -> None:
        with self.lock:
            self.running -= 1

    def end(self) -> None:
        """Let new calls find nothing, and wait until the threads have given up asking."""
        self.ended = True
        before, stop = None, time.monotonic() + LONGEST_END_S
        while (self.running or before != self.made) and time.monotonic() < stop:
            before = self.made
            time.sleep(QUIET_S)


_CALLS = _Calls()
atexit.register(_CALLS.end)
