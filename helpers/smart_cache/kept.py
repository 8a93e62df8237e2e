"""What a loader gives, as it is kept: read-only arrays, and what all elements have in common."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from helpers import memory

Form = dict[
    tuple[str, ...], tuple[np.dtype, tuple[int | None, ...]]
]  # dtype and shape of each field
NUMBERS = "biufc"  # kinds of NumPy's dtypes
NARROW = {"i": np.int32, "f": np.float32}  # what TensorFlow makes of Python's numbers


def kept(found: Mapping) -> dict:
    """An element of arrays that nobody else can write to.

    Args:
        found: what a loader returned: a dict of arrays, tensors, numbers, text or such dicts.

    Returns:
        The same fields as read-only arrays; numbers in them are `memory.aligned`, text is bytes
        objects. Python's own numbers become int32 and float32. Arrays are copied, since the
        loader may use them again; TensorFlow's tensors, which never change, are not.

    Raises:
        TypeError: for anything that is no such dict.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"a loader returns a dict of arrays, not {type(found).__name__}")
    return {
        key: kept(value) if isinstance(value, Mapping) else _array(key, value)
        for key, value in found.items()
    }


def _array(key: str, value) -> np.ndarray:
    array = np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
    if not hasattr(value, "__array__") and array.dtype.kind in NARROW:
        array = np.array(value, NARROW[array.dtype.kind])
    if array.dtype.kind in "SUO":
        array = _text(key, array)
    elif array.dtype.kind not in NUMBERS:
        raise TypeError(f"`{key}` is an array of {array.dtype}, not of numbers or text")
    mutable = not _is_tensor(value) and array.dtype.kind in NUMBERS
    array = _own(array) if mutable else memory.aligned(array)
    array = array.view()
    array.flags.writeable = False
    return array


def _is_tensor(value) -> bool:
    """Whether it is TensorFlow's, which never changes; tensors of others may."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.Tensor)


def _own(array: np.ndarray) -> np.ndarray:
    """An aligned copy; `memory.aligned` copies only where it has to."""
    fresh = memory.aligned(array)
    if not np.may_share_memory(fresh, array):
        return fresh
    fresh = memory.Buffers().empty(array.shape, array.dtype) if array.size else array.copy()
    np.copyto(fresh, array)
    return fresh


def _text(key: str, array: np.ndarray) -> np.ndarray:
    words = [one.encode() if isinstance(one, str) else one for one in array.ravel().tolist()]
    for word in words:
        if not isinstance(word, bytes):
            raise TypeError(f"`{key}` holds {type(word).__name__}, not numbers or text")
    return np.array(words, object).reshape(array.shape)


def form_of(element: Mapping) -> Form:
    """Dtype and shape of each field of an element."""
    return {(name,): (array.dtype, array.shape) for name, array in element.items()}


def form_of_spec(spec: Mapping) -> Form:
    """The same of a dict of `tf.TensorSpec`."""
    return {
        (name,): (np.dtype(one.dtype.as_numpy_dtype), tuple(one.shape.as_list()))
        for name, one in spec.items()
    }


def conformed(form: Form, element: dict) -> dict:
    """The element with its image in the form's dtype, if that holds any image of its own."""
    dtype, _ = form.get(("image",), (None, None))
    image = element.get("image")
    if dtype is None or not isinstance(image, np.ndarray) or not np.can_cast(image.dtype, dtype):
        return element  # `misfit` says what is wrong, if anything is
    return element if image.dtype == dtype else kept(element | {"image": image.astype(dtype)})


def misfit(form: Form, element: Mapping, *, ranks_only: bool = False) -> tuple[str, str] | None:
    """Code and description of what an element has other than the rest, None if it fits.

    Args:
        form: of the rest; a length of None fits any.
        element: of arrays.
        ranks_only: whether lengths may differ, as long as there are equally many.
    """
    found = form_of(element)
    if found.keys() != form.keys():
        return "LOADING_FAILED", f"its fields are {_names(found)}, those of others {_names(form)}"
    for path, (dtype, shape) in form.items():
        if found[path][0] != dtype:
            about = f"{_names([path])} is of {found[path][0]}, that of others of {dtype}"
            return "LOADING_FAILED", about
        length = [None] * len(shape) if ranks_only else shape
        if not _fits(found[path][1], length):
            about = f"{_names([path])} has shape {found[path][1]}, that of others {shape}"
            return "SHAPE_MISMATCH", about
    return None


def _fits(shape: Sequence[int], lengths: Sequence[int | None]) -> bool:
    return len(shape) == len(lengths) and all(
        wanted in (None, one) for one, wanted in zip(shape, lengths, strict=True)
    )


def _names(paths) -> str:
    return ", ".join(sorted("`" + "/".join(map(str, path)) + "`" for path in paths))


def widened(form: Form, element: Mapping) -> Form:
    """The form with None for each length that this element has otherwise."""
    found = form_of(element)
    return {
        path: (
            dtype,
            tuple(a if a == b else None for a, b in zip(shape, found[path][1], strict=True)),
        )
        for path, (dtype, shape) in form.items()
    }


def spec_of(form: Form) -> dict:
    """The form as nested dicts of `tf.TensorSpec`."""
    from helpers.draws import tf  # which imports it without the greeting

    spec: dict = {}
    for path, (dtype, shape) in form.items():
        into = spec
        for key in path[:-1]:
            into = into.setdefault(key, {})
        into[path[-1]] = tf.TensorSpec(shape, tf.as_dtype(dtype))
    return spec
