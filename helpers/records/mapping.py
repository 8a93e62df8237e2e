"""Records read without TensorFlow's record reader: shards mapped into memory, one copy for each.

The operating system keeps a mapped file in its page cache; an image is copied from there straight
into its batch. TFRecord's reader, the parser and the decoder copy it once each, and compute its
checksum. Every record can be reached at once, so shuffling is complete, whatever the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers import memory
from helpers.records import listing
from helpers.records.manifest import Shard


def order(count: int, seed: int | None):
    """The numbers from 0 to `count` - 1 once, shuffled anew in each epoch if there is a seed."""
    import tensorflow as tf

    numbers = tf.data.Dataset.range(count)
    return numbers if seed is None else numbers.shuffle(count, seed=seed)


def dataset(
    shards: Sequence[tuple[Path, Shard]],
    element_spec: dict,
    batch: int | None,
    order,
    workers: int,
):
    """A dataset of the records in some shards of "volume" or "classification".

    Args:
        shards: files, which must have been verified, and what the manifest says of them.
        element_spec: of one element, as the parser gives it: keys, shapes, dtypes.
        batch: records in a batch, or None.
        order: a dataset of whole numbers, which record each time.
        workers: batches copied at once.
    """
    import tensorflow as tf

    from helpers import draws

    draws.check_indices(order)
    records = [one for path, shard in shards for one in listing.features_of(path, shard)]
    large = [key for key in ("image", "mask") if key in element_spec]
    stored = {key: [_array(one, key) for one in records] for key in large}
    small = {
        key: tf.constant([_value(one, key, spec) for one in records], spec.dtype)
        for key, spec in element_spec.items()
        if key not in large
    }
    dtypes = [element_spec[key].dtype.as_numpy_dtype for key in large]

    buffers = memory.Buffers()

    def copies(numbers: np.ndarray) -> list[np.ndarray]:
        if np.min(numbers) < 0 or np.max(numbers) >= len(records):
            raise ValueError(
                f"found the index {np.atleast_1d(numbers).tolist()}, expected 0 to "
                f"{len(records) - 1}: there are {len(records)} records"
            )
        return [
            _copied(stored[key], numbers, dtype, buffers)
            for key, dtype in zip(large, dtypes, strict=True)
        ]

    endless = order.cardinality() == tf.data.INFINITE_CARDINALITY
    lead = [] if batch is None else [batch if endless else None]

    copying = memory.weakly(copies) if tf.executing_eagerly() else copies

    def load(numbers, kept=copies):  # mapped, so whoever holds the dataset holds the files
        del kept
        found = tf.numpy_function(copying, [numbers], dtypes, stateful=False)
        element = {
            key: tf.ensure_shape(one, [*lead, *element_spec[key].shape])
            for key, one in zip(large, found, strict=True)
        }
        with tf.control_dependencies(found):  # which says better what is wrong with a number
            return element | {key: tf.gather(values, numbers) for key, values in small.items()}

    if batch is not None:
        order = order.batch(batch, drop_remainder=bool(endless))
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
        return np.broadcast_to(listing.DEFAULTS[key], spec.shape).tolist()
    return value if spec.shape.rank else value[0]


def _copied(
    stored: list[np.ndarray], numbers: np.ndarray, dtype: type, buffers: memory.Buffers
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
