"""Look at every byte of an element, at the price of one pass over its memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np


def leaves(element) -> Iterator:
    """The values of a nested structure: of dicts, tuples, lists, ragged and sparse tensors."""
    if isinstance(element, Mapping):
        for value in element.values():
            yield from leaves(value)
    elif isinstance(element, tuple | list):
        for value in element:
            yield from leaves(value)
    elif hasattr(element, "row_splits"):
        yield from (element.row_splits, *leaves(element.values))
    elif hasattr(element, "indices") and hasattr(element, "dense_shape"):
        yield from (element.indices, element.values)
    else:
        yield element


def look(element) -> int:
    """A checksum of all bytes of an element, so that nothing of it can be left undone.

    Memory is read as it lies, without a copy, 8 bytes at a time: the quickest look there is.

    Args:
        element: NumPy arrays or tensors, in any nested structure.

    Returns:
        The sum, modulo 2**64, of the bytes read as 64-bit numbers. It does not depend on how the
        values are nested, only on their bytes and their order.
    """
    return sum(_sum(array(value)) for value in leaves(element)) % 2**64


def array(value) -> np.ndarray:
    """A value as a NumPy array, of the same memory if that can be had."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "device") and hasattr(value, "numpy"):  # a tensor
        try:
            return np.asarray(memoryview(value))  # .numpy() would copy
        except (TypeError, ValueError, BufferError):  # bfloat16, say, or a variable
            return np.asarray(value.numpy())
    return np.asarray(value, object if isinstance(value, str | bytes) else None)


def count_bytes(element) -> int:
    """Bytes of an element's values; of a string its length."""
    total = 0
    for value in leaves(element):
        size = getattr(getattr(value, "dtype", None), "size", None)
        if isinstance(size, int) and size > 0:  # a tensor; it may lie on a GPU, so leave it there
            total += value.shape.num_elements() * size
        else:
            values = array(value)
            is_text = values.dtype == object
            total += sum(map(len, values.reshape(-1))) if is_text else values.nbytes
    return total


def _sum(values: np.ndarray) -> int:
    if values.dtype == object:
        joined = b"".join(
            x if isinstance(x, bytes) else str(x).encode() for x in values.reshape(-1)
        )
        values = np.frombuffer(joined, np.uint8)
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    whole = len(flat) // 8 * 8
    # Sums of unsigned numbers wrap round; that is all that a checksum needs.
    return int(flat[:whole].view(np.uint64).sum()) + int(flat[whole:].sum())
