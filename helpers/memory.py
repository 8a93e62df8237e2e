"""Arrays in memory as TensorFlow likes them: aligned, kept, and used again while they are warm.

    elements = memory.gather(dataset.apply(crops.locate()))   # one pass; NumPy from here on
    elements[0]["image"].shape                                # [z, y, x, c], in its stored dtype

TensorFlow takes an array that begins at a multiple of 64 bytes as it is, and copies any other.
Fresh memory costs more than the copy into it, because the system clears each page first. Nothing
here imports TensorFlow.
"""

import atexit
import inspect
import threading
import time
import weakref
from collections.abc import Callable, Mapping

import numpy as np

ALIGNMENT = 64  # bytes; what TensorFlow asks of an array that it does not copy
MOST_OTHERS = 8  # pieces of other sizes that are kept when one of a new size is made
QUIET_S = 0.05  # without a call: TensorFlow's threads have given up
LONGEST_END_S = 5.0
INFINITE = -1  # `tf.data.INFINITE_CARDINALITY`, without the import


class Buffers:
    """Memory for batches, used again as soon as nobody holds the batch that lay in it.

    Memory comes back when the last array, view or tensor that refers to it is gone, so a batch
    that somebody keeps stays as it is. TensorFlow gives up a dozen such arrays at once, when it
    next comes by Python: so all that was ever in use together is kept. Threads may share one
    object.

    Taught in: no lesson; `crops.from_memory` and `records.read` fill batches with it
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._back: list[_Lease] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of any content that begins where TensorFlow wants it.

        Args:
            shape: of the array.
            dtype: of the array; not of objects.

        Returns:
            A C-contiguous array, warm where one of its size is back.
        """
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize + ALIGNMENT
        with self._lock:
            fitting = [place for place, one in enumerate(self._back) if one.memory.size == size]
            if fitting:
                memory = self._back.pop(fitting[-1]).memory
            else:
                memory = np.empty(size, np.uint8)
                del self._back[:-MOST_OTHERS]
        first = -memory.ctypes.data % ALIGNMENT
        array = memory[first : size - ALIGNMENT + first].view(dtype).reshape(shape)
        return np.asarray(_Lent(array, memory, self._back))


class _Lent:
    """What all arrays made of one piece of memory refer to."""

    def __init__(self, array: np.ndarray, memory: np.ndarray, back: list) -> None:
        self.__array_interface__ = array.__array_interface__
        # Nothing but C may run when this goes: TensorFlow holds a lock then, and Python might
        # change to a thread that waits for it.
        self._lease = _Lease(self, back.append)
        self._lease.memory = memory


class _Lease(weakref.ref):
    """The memory, which lies in `Buffers` as soon as nobody refers to it."""

    memory: np.ndarray


def aligned(array, *, copy: bool = False) -> np.ndarray:
    """The array, as TensorFlow takes it without a copy.

    Args:
        array: of any shape and dtype; also a tensor, a number or a string.
        copy: always make one, for whoever uses the array again.

    Returns:
        The array itself if it is C-contiguous, in this machine's byte order and begins at a
        multiple of 64 bytes; otherwise a copy that is and does. Empty arrays, strings and objects,
        which TensorFlow always copies, stay as they are; bytes become an object, zeros and all.

    >>> aligned(np.arange(99)[1:]).ctypes.data % 64
    0

    Taught in: no lesson; what keeps elements uses it
    """
    array = np.asarray(array, object if isinstance(array, bytes) else None)
    if array.dtype.kind not in "biufc" or not array.size:
        return array.copy() if copy else array
    fits = array.flags.c_contiguous and array.dtype.isnative
    if fits and array.ctypes.data % ALIGNMENT == 0 and not copy:
        return array
    result = Buffers().empty(array.shape, array.dtype.newbyteorder("="))
    np.copyto(result, array)
    return result


def gather(dataset) -> list[dict[str, np.ndarray]]:
    """All elements of a dataset, kept in memory as arrays.

    Args:
        dataset: a finite `tf.data.Dataset` of dicts; it is read once, from start to end.

    Returns:
        A dict of arrays for each element, in order, with dtypes as they are; scalars are arrays
        without axes, strings such of bytes objects. Arrays are `aligned`, and not copied if they
        were so before.

    Raises:
        ValueError: for elements that are no dicts, and for a dataset that never ends.

    The list takes the part of MONAI's `CacheDataset` and of `dataset.cache()`.

    Taught in: tuning the pipeline, imbalanced classification
    """
    if not isinstance(dataset.element_spec, Mapping) or int(dataset.cardinality()) == INFINITE:
        raise ValueError("a list is made of dicts with an `image`, and of a dataset that ends")
    elements = dataset.as_numpy_iterator()
    return [{name: aligned(value) for name, value in one.items()} for one in elements]


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

    Taught in: no lesson; whatever calls Python from a dataset uses it
    """
    refer = weakref.WeakMethod if inspect.ismethod(function) else weakref.ref
    reference = refer(function)

    def call(*arguments):
        target = reference()
        if target is None:
            raise ReferenceError("the dataset that these arrays belonged to is gone")
        with _CALLS:
            return target(*arguments)

    return call


class _Calls:
    """Calls from TensorFlow's threads, which have to be over before Python can end.

    An iterator that lives until then, say at the top of a script, is deleted while Python shuts
    down. TensorFlow waits for its threads in that place, and a thread that has just asked for
    Python waits for ever: the script would never end.
    """

    lock = threading.Lock()
    made = running = 0
    ended = False

    def __enter__(self) -> None:
        with self.lock:
            self.made += 1
            if self.ended:
                raise StopIteration
            self.running += 1

    def __exit__(self, *error) -> None:
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
