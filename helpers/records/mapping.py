"""Records read without TensorFlow's record reader: shards mapped into memory, one copy for each.

The operating system keeps a mapped file in its page cache; an image is copied from there straight
into its batch. TFRecord's reader, the parser and the decoder copy it once each, and compute its
checksum. Every record can be reached at once, so shuffling is complete, whatever the size.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np

from helpers.records import tfrecord

ALIGNMENT = 64  # bytes; TensorFlow takes an array that starts so as it is, and copies any other
MOST_KEPT = 8  # buffers; a pipeline uses a few at a time


def dataset(
    files: list[Path], element_spec: dict, batch: int | None, seed: int | None, workers: int
):
    """A dataset of the records in some shards of "volume" or "classification".

    Args:
        files: shards; they must have been verified.
        element_spec: of one element, as the parser gives it: keys, shapes, dtypes.
        batch: records in a batch, or None.
        seed: of the order, or None for that of the shards.
        workers: batches copied at once.
    """
    import tensorflow as tf

    from helpers import draws

    records = [tfrecord.features(one) for file in files for one in tfrecord.messages(file)]
    large = [key for key in ("image", "mask") if key in element_spec]
    stored = {key: [_array(one, key) for one in records] for key in large}
    small = {
        key: tf.constant([_value(one, key, spec) for one in records], spec.dtype)
        for key, spec in element_spec.items()
        if key not in large
    }
    dtypes = [element_spec[key].dtype.as_numpy_dtype for key in large]

    buffers = _Buffers()

    def copies(numbers: np.ndarray) -> list[np.ndarray]:
        return [
            _copied(stored[key], numbers, dtype, buffers)
            for key, dtype in zip(large, dtypes, strict=True)
        ]

    def load(numbers):
        found = tf.numpy_function(copies, [numbers], dtypes, stateful=False)
        lead = [] if batch is None else [None]
        element = {
            key: tf.ensure_shape(one, [*lead, *element_spec[key].shape])
            for key, one in zip(large, found, strict=True)
        }
        return element | {key: tf.gather(values, numbers) for key, values in small.items()}

    order = tf.data.Dataset.range(len(records))
    if seed is not None:
        order = order.shuffle(len(records), seed=seed)
    if batch is not None:
        order = order.batch(batch)
    return draws.map_named(order, load, name="records.mapped", num_parallel_calls=workers)


def _array(record: dict, key: str) -> np.ndarray:
    """The image `[..., c]` or the mask `[..., 1]` of a record, as a view on its file."""
    shape = record["image/shape"]
    if key == "mask":
        return record["mask"].reshape(*shape[:-1], 1)
    dtype = np.dtype(record["image/dtype"].tobytes().decode()).newbyteorder("<")
    return record["image"].view(dtype).reshape(shape)


def _value(record: dict, key: str, spec):
    """Label, weight, spacing, modality or case, with the parser's defaults."""
    value = record.get(key)
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if value is None:
        default = {"label": -1, "weight": 1.0, "spacing": 0.0, "modality": b""}[key]
        return np.broadcast_to(default, spec.shape).tolist()
    return value if spec.shape.rank else value[0]


def _copied(
    stored: list[np.ndarray], numbers: np.ndarray, dtype: type, buffers: _Buffers
) -> np.ndarray:
    """One of the arrays, or several as a batch."""
    chosen = [stored[number] for number in np.atleast_1d(numbers)]
    out = buffers.empty((len(chosen), *chosen[0].shape), np.dtype(dtype))
    for into, one in zip(out, chosen, strict=True):
        if one.dtype == out.dtype and into.size:
            # As bytes: a view on a file may begin anywhere, and NumPy copies odd ones slowly.
            into, one = into.reshape(-1).view(np.uint8), _bytes(one)
        np.copyto(into, one)
    return out if np.ndim(numbers) else out[0]


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ndarray(array.nbytes, np.uint8, array)


class _Buffers:
    """Memory for batches, used again as soon as nobody holds the batch that lay in it.

    Fresh memory costs more than the copy into it, because the system clears each page. TensorFlow
    takes an aligned array as it is, and holds a reference to it as long as the tensor lives.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of any content that begins where TensorFlow wants it."""
        size = int(np.prod(shape)) * dtype.itemsize + ALIGNMENT
        with self._lock:
            memory = self._free(size)
            first = -memory.ctypes.data % ALIGNMENT
            return memory[first : first + size - ALIGNMENT].view(dtype).reshape(shape)

    def _free(self, size: int) -> np.ndarray:
        for memory, count in zip(self._kept, _references(self._kept), strict=True):
            if len(memory) == size and count == ALONE:
                return memory
        memory = np.empty(size, np.uint8)
        if len(self._kept) < MOST_KEPT:
            self._kept.append(memory)
        return memory


def _references(arrays: list[np.ndarray]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays]


# Of an array that only such a list holds: it depends on how Python counts the call itself.
ALONE = _references([np.empty(0)])[0]
