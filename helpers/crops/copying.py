"""Copies of crops, by NumPy beside the graph: from elements in memory straight into batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from helpers import memory, quiet
from helpers.crops.cuts import Cuts, Drawing, named
from helpers.crops.fixed import CentreCrop
from helpers.crops.stages import RandomCrop
from helpers.errors import CourseDataError

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

IMAGE, MASK = ("image",), ("mask",)  # the fields that are cut; all others are repeated


class Copier:
    """Called with indices and random numbers, it returns the fields of these elements' crops.

    Args:
        elements, stage: of `from_memory`.
        dtype: of the image in the result, or None.

    Raises:
        ValueError, CourseDataError: as `from_memory`, for elements that do not go together.
    """

    def __init__(
        self, elements: Sequence[dict], stage: RandomCrop | CentreCrop, dtype: tf.DType | None
    ) -> None:
        self._elements, self._stage = elements, stage
        self._buffers, self._drawing = memory.Buffers(), Drawing(stage)
        self._accepted: set[tuple] = set()
        self._fields: dict[memory.Keys, tf.TensorSpec] = {}
        for position in range(len(elements)):
            self._drawing.prepare(self._element(position))
        stored = self._fields[IMAGE].dtype
        self._dtype = dtype or stored
        self._overflows = memory.overflows(stored, self._dtype)
        holds = np.can_cast(stored.as_numpy_dtype, self._dtype.as_numpy_dtype)
        if not (holds or self._dtype.is_floating):
            raise ValueError(
                f"images are stored as {stored.name}, which {self._dtype.name} cannot hold; bring "
                "them into its range first"
            )

    def specs(self, batched: bool) -> list[tf.TensorSpec]:
        """Of each array of a result, in order; the length of a batch is left open.

        Raises:
            ValueError: for fields of different shapes, which cannot share a batch.
        """
        crops = self._stage.per_image
        leading = [None] if batched else [] if crops is None else [crops]
        smaller = getattr(self._stage, "allow_smaller", False)
        specs = []
        for path, spec in self._fields.items():
            shape, dtype = spec.shape, self._dtype if path == IMAGE else spec.dtype
            if path in (IMAGE, MASK):
                size = [None] * len(self._stage.size) if smaller else self._stage.size
                shape = [*size, shape[-1]]
            elif batched and not shape.is_fully_defined():
                raise ValueError(
                    f"`{'.'.join(path)}` differs in shape between elements, so they cannot share a "
                    "batch; leave it out, or leave batch_size out"
                )
            specs.append(tf.TensorSpec([*leading, *shape], dtype))
        return specs

    def packed(self, values: Iterable) -> dict:
        """The element of these values, which come in the order of `specs`."""
        return _nested(zip(self._fields, values, strict=True))

    def __call__(self, indices: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
        """The arrays of one element, or of a batch of them.

        Args:
            indices: int64 `[]` or `[b]`.
            numbers: int64 `[k, axes]` or `[b, k, axes]`, of the stage.
        """
        # Each element is asked for once, so that one that is swapped meanwhile stays whole.
        chosen = [self._element(index) for index in np.atleast_1d(indices).tolist()]
        numbers = numbers.reshape(len(chosen), *numbers.shape[-2:])
        cuts = [self._drawing.cuts(*both) for both in zip(chosen, numbers, strict=True)]
        extents = sorted({one.extent for one in cuts})
        if len(extents) > 1:
            raise ValueError(
                f"crops of {extents} voxels cannot share a batch: pad with crops.centre"
            )
        crops, single = self._stage.per_image, np.ndim(indices) == 0
        results = []
        for path, spec in self._fields.items():
            values = [_array(_at(element, path), spec.dtype) for element in chosen]
            if path in (IMAGE, MASK):
                result = self._copied(path, values, cuts)
            else:
                result = np.repeat(np.stack(values), crops or 1, axis=0)
            if path == IMAGE and self._overflows:
                self._refuse_infinite(chosen, result)
            results.append(result[0] if single and crops is None else result)
        return results

    def _copied(self, path: memory.Keys, values: list[np.ndarray], cuts: list[Cuts]) -> np.ndarray:
        """The crops of all elements, one after another."""
        dtype = self._dtype.as_numpy_dtype if path == IMAGE else values[0].dtype
        count = sum(len(one.sources) for one in cuts)
        out = self._buffers.empty((count, *cuts[0].extent, values[0].shape[-1]), dtype)
        rows = iter(out)
        for value, (_, sources, target) in zip(values, cuts, strict=True):
            for source, row in zip(sources, rows, strict=False):
                if target is not None:
                    fill = self._stage.fill if path == IMAGE else self._stage.mask_fill
                    row[...] = value.min() if fill == "min" else value.dtype.type(fill)
                    row = row[target]
                with np.errstate(over="ignore"):  # infinite values are refused
                    np.copyto(row, value[source], casting="unsafe")  # other threads run meanwhile
        return out

    def _refuse_infinite(self, chosen: list[dict], crops: np.ndarray) -> None:
        for element, own in zip(chosen, np.split(crops, len(chosen)), strict=True):
            if not np.isfinite(own).all():
                problem = f"a crop holds values beyond the range of {self._dtype.name}"
                raise named("NOT_FINITE", problem, element)

    def _element(self, index: int) -> dict:
        if not 0 <= index < len(self._elements):
            raise ValueError(f"index {index} is asked for, of {len(self._elements)} elements")
        element = self._elements[index]
        if not isinstance(element, Mapping) or "image" not in element:
            raise ValueError("elements are dicts with an `image` and, if you like, a `mask`")
        leaves = dict(memory.leaves(element))
        form = tuple((path, np.shape(v), _dtype(v)) for path, v in leaves.items())
        if form not in self._accepted:
            self._accept(element, {path: _spec(value) for path, value in leaves.items()}, index)
            self._accepted.add(form)
        return element

    def _accept(self, element: dict, specs: dict[memory.Keys, tf.TensorSpec], index: int) -> None:
        """Check fields and shapes, which need not be looked at again."""
        kept = {path: spec for path, spec in specs.items() if path[0] != "places"}
        fields = self._fields or kept
        found, expected = ({k: s.dtype.name for k, s in some.items()} for some in (kept, fields))
        if found != expected:
            raise ValueError(
                f"element {index} has the fields {_listed(found)}, the first one "
                f"{_listed(expected)}; they must be the same"
            )
        try:
            self._stage.check(_nested(specs.items()))
        except CourseDataError as error:
            raise named(error.code, error.message, element, index) from None
        self._fields = {
            path: tf.TensorSpec(_common(spec.shape, kept[path].shape), spec.dtype)
            for path, spec in fields.items()
        }


def _nested(items: Iterable[tuple[memory.Keys, object]]) -> dict:
    element: dict = {}
    for (*outer, name), value in items:
        into = element
        for key in outer:
            into = into.setdefault(key, {})
        into[name] = value
    return element


def _at(element: Mapping, path: memory.Keys):
    for name in path:
        element = element[name]
    return element


def _dtype(value):
    """What tells 1 from 0.5, also where a number is Python's own."""
    found = getattr(value, "dtype", None)
    return np.asarray(value).dtype if found is None else found


def _spec(value) -> tf.TensorSpec:
    if not isinstance(value, np.ndarray | np.generic):
        value = tf.convert_to_tensor(value)  # numbers of Python become 32 bits wide
    elif value.dtype.kind in "OSU":
        return tf.TensorSpec(value.shape, tf.string)
    return tf.TensorSpec(value.shape, value.dtype)


def _array(value, dtype: tf.DType) -> np.ndarray:
    if dtype != tf.string:
        return np.asarray(value, dtype.as_numpy_dtype)
    texts = np.asarray(value, object)
    coded = [one.encode() if isinstance(one, str) else one for one in texts.ravel().tolist()]
    return np.array(coded, object).reshape(texts.shape)


def _common(one: tf.TensorShape, other: tf.TensorShape) -> tf.TensorShape:
    if one.rank != other.rank:
        return tf.TensorShape(None)
    return tf.TensorShape([a if a == b else None for a, b in zip(one, other, strict=True)])


def _listed(fields: Mapping[memory.Keys, str]) -> str:
    return ", ".join(f"{'.'.join(path)} ({dtype})" for path, dtype in sorted(fields.items()))
