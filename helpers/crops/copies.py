"""Crops of elements that lie in memory: drawn, cut, cast and batched in one pass."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from helpers import memory, stage
from helpers.crops.cuts import Crop, centre
from helpers.crops.starts import NOWHERE, runs_of
from helpers.errors import CourseDataError, need

MOST_WAITING = 64  # batches of which only the half is made, by calls that were given up


def copied(images: Sequence[np.ndarray], starts, size, rows: np.ndarray, fill=0) -> None:
    """Copy crops straight to their rows of a batch, cast on the way: one pass over the voxels.

    Args:
        images: `[z, y, x, c]` or `[y, x, c]`, b of them.
        starts: whole numbers `[b, k, axes]`; where a crop sticks out of its image, it is padded.
        size: of the crops in voxels, `[axes]`.
        rows: `[b * k, *size, c]`, of the dtype to cast to; overwritten.
        fill: value outside, or "min" for each image's smallest.

    Taught in: tuning the pipeline
    """
    row = iter(rows)
    for image, several in zip(images, starts, strict=True):
        for start in several:
            target = next(row)
            first, last = np.maximum(start, 0), np.minimum(start + size, image.shape[:-1])
            if (last - first < size).any():
                target[...] = image.min() if fill == "min" else fill
                target = target[tuple(map(slice, first - start, last - start))]
            np.copyto(target, image[tuple(map(slice, first, last))], casting="unsafe")


def from_memory(
    elements: Sequence[dict],
    crop: Crop | None = None,
    *,
    indices: tf.data.Dataset | None = None,
    batch_size: int | None = None,
    dtype: str | tf.DType | None = None,
    num_parallel_calls: int = 2,
) -> tf.data.Dataset:
    """Batches of crops of elements in memory, each voxel copied once.

        elements = memory.gather(dataset.apply(crops.locate()))       # int16, as stored
        order = tf.data.Dataset.range(len(elements)).shuffle(len(elements), seed=1).repeat()
        crop = crops.pos_neg((96, 96, 96), per_image=4, seed=2)
        batches = crops.from_memory(elements, crop, indices=order, batch_size=2, dtype="float32")

    The stream is, bit for bit, that of the same stages one by one:

        dataset.apply(crop).batch(batch_size).apply(crops.merge_batch_dims()), image cast last

    There each of them writes all voxels to fresh memory. Here a crop goes from its image straight
    to its place in the batch, cast on the way, and the batch's memory is used again. Python runs
    in the pipeline, so it cannot move to another process.

    Args:
        elements: dicts of arrays, `image` `[z, y, x, c]` or `[y, x, c]` and so on, whose spatial
            shapes may differ: a list of `memory.gather`, or anything with a length and
            `elements[i]`. It is asked for an element when that is due, so a `SmartCache` gives
            what it holds then.
        crop: of `crops.random`, `pos_neg`, `class_balanced` or `centre`; None takes whole images,
            which are of one shape. Its own `num_parallel_calls` has no part in this. Where it draws
            by the mask and elements have no `runs` of `locate`, they are found here, once for each
            mask.
        indices: whole numbers, the position in `elements` of each to come: shuffled, repeated, or
            of `sampling.indices`. By default each element once, in order.
        batch_size: elements in a batch. With `per_image` their crops share its first axis, which is
            `batch_size * per_image` long; the last batch of a finite `indices` may be shorter. None
            gives elements one by one, as the stage does.
        dtype: of the image in the result, "float32" for instance; None leaves it as it is stored. A
            narrower float rounds, as with `tf.cast`; what it cannot hold is refused.
        num_parallel_calls: batches worked on at a time, each of which takes memory of its own.

    Returns:
        A dataset of dicts. The shape is known in full if `indices` is infinite.

    Raises:
        ValueError: for bad arguments, elements without common fields, and a dtype of whole
            numbers that cannot hold what is stored.
        CourseDataError: `EMPTY_LIST`; and what the crop refuses, of any element of a list, or of
            the first of anything else: `CROP_TOO_LARGE`, `MASK_MISMATCH`, `NO_PAIR`,
            `SHAPE_MISMATCH`.
        tf.errors.InvalidArgumentError: while running, the same codes for an element that came
            later; `NO_PLACE`; `NOT_FINITE` for values beyond the range of `dtype`; an index that is
            not there. It names the case.

    Taught in: tuning the pipeline
    """
    if not isinstance(crop, Crop | None):
        raise ValueError(f"a crop is what crops.random and the like return, not {crop}")
    need(len(elements), "EMPTY_LIST", "there are no elements to cut")
    indices = tf.data.Dataset.range(len(elements)) if indices is None else indices
    stage.check_indices(indices)
    with tf.init_scope():  # runs are found now, even where a graph is being made
        source = _Source(elements, crop, dtype)
    crop, most = source.crop, batch_size or 1
    is_random = crop.seed is not None
    order = stage.numbered(indices, crop.seed if is_random else 0)
    if batch_size is not None:
        endless = tf.get_static_value(indices.cardinality()) == tf.data.INFINITE_CARDINALITY
        order = order.batch(batch_size, drop_remainder=endless)
    # Made within a graph, for instance in `interleave`, nothing but that graph keeps the dataset.
    held = memory.weakly if tf.executing_eagerly() else lambda function: function
    fetch, copy = held(source.fetch), held(source.copy)

    def load(chosen, numbers):
        wanted = [tf.int64, tf.int64, tf.int32, tf.int64]
        ticket, *known = tf.numpy_function(fetch, [chosen], wanted, stateful=False)
        for value, shape in zip(known, ([None, len(crop.size)], [None, 3], [None]), strict=True):
            value.set_shape(shape)
        shapes, runs, owners = known
        if is_random:  # one after another: each element has a seed of its own
            full = tf.pad(tf.reshape(numbers, [-1]), [[0, most - tf.size(numbers)]])
            seeds = [stage.salted(one, crop.name) for one in tf.unstack(full, most)]
            numbers = tf.stack([crop.numbers(seed) for seed in seeds])[: tf.size(chosen)]
        starts = crop.starts(shapes, numbers, runs, owners)
        kinds = [spec.dtype for spec in source.specs.values()]
        found = tf.numpy_function(copy, [ticket, starts], kinds, stateful=False)
        many = chosen.shape[0] if chosen.shape.rank else 1
        for value, spec in zip(found, source.specs.values(), strict=True):
            value.set_shape([many and many * (crop.per_image or 1), *spec.shape])
        if batch_size is None and crop.per_image is None:
            found = [value[0] for value in found]
        return dict(zip(source.specs, found, strict=True))

    return stage.mapped(
        order, load, name="crops.from_memory", num_parallel_calls=num_parallel_calls
    )


class _Source:
    """The elements, with the two calls that a graph makes for a batch of them.

    What `fetch` has told the shapes and runs of waits for `copy`: a cache may hold another element
    by then.
    """

    def __init__(self, elements: Sequence[dict], crop: Crop | None, dtype) -> None:
        first = _specs(elements[0])
        stage.checked(first)
        self.crop = centre(first["image"].shape[:-1]) if crop is None else crop
        self._elements, self._whole, self._common = elements, crop is None, _common(first)
        self._accepted, self._runs, self._waiting = set(), {}, {}
        self._tickets, self._buffers = itertools.count(), memory.Buffers()
        self.fetch(np.arange(len(elements) if isinstance(elements, list | tuple) else 1))
        self._waiting.clear()

        stored = first["image"].dtype
        wanted = stored if dtype is None else tf.as_dtype(dtype)
        if not (wanted.is_floating or np.can_cast(stored.as_numpy_dtype, wanted.as_numpy_dtype)):
            raise ValueError(f"images are {stored.name}, which {wanted.name} cannot hold")
        self._overflows = memory.overflows(stored, wanted)
        axes = [None] * len(self.crop.size) if self.crop.allow_smaller else self.crop.size
        self.specs = dict(self._common)
        for name, _ in self.crop.fills(first):
            kind = wanted if name == "image" else first[name].dtype
            self.specs[name] = tf.TensorSpec([*axes, first[name].shape[-1]], kind)

    def fetch(self, indices: np.ndarray) -> list:
        """A ticket for some elements; shapes `[b, axes]`, runs `[n, 3]` and their owners `[n]`."""
        indices = np.atleast_1d(indices).tolist()
        chosen = [self._element(index) for index in indices]
        shapes = np.array([np.shape(one["image"])[:-1] for one in chosen], np.int64)
        runs = [np.zeros((0, 3), np.int32)] * len(chosen)
        if self.crop.groups:
            runs = list(map(self._runs_of, indices, chosen))
        owners = np.repeat(np.arange(len(runs)), [len(one) for one in runs])
        ticket = next(self._tickets)
        self._waiting[ticket] = chosen
        self._waiting.pop(ticket - MOST_WAITING, None)
        return [np.int64(ticket), shapes, np.concatenate(runs), owners]

    def copy(self, ticket: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """The fields of the crops of the elements that wait under this ticket."""
        chosen, (many, each) = self._waiting.pop(int(ticket)), starts.shape[:2]
        for one, several in zip(chosen, starts, strict=True):
            found = f"no voxel with an id in {self.crop.groups}{_name(one)}"
            need(several[0, 0] != NOWHERE, "NO_PLACE", found)
        sizes = {self.crop.size}
        if self.crop.allow_smaller:
            sizes = {tuple(np.minimum(self.crop.size, one["image"].shape[:-1])) for one in chosen}
        if len(sizes) > 1:
            raise ValueError(f"crops of {sizes} voxels cannot share a batch: crops.centre pads")
        (size,), fills = sizes, dict(self.crop.fills(self.specs))
        results = []
        for name, spec in self.specs.items():
            values, kind = [np.asarray(one[name]) for one in chosen], spec.dtype.as_numpy_dtype
            if name in fills:
                result = self._buffers.empty((many * each, *size, spec.shape[-1]), kind)
                with np.errstate(over="ignore"):  # infinite values are refused
                    copied(values, starts, size, result, fills[name])
            else:
                result = np.repeat(np.stack(values), each, axis=0)
                if kind is object:
                    result = np.vectorize(tf.compat.as_bytes, otypes=[object])(result)
                result = result.astype(kind, copy=False)
            results.append(result)
            if name == "image" and self._overflows:
                for one, own in zip(chosen, np.split(result, many), strict=True):
                    found = f"values beyond the range of {spec.dtype.name}{_name(one)}"
                    need(np.isfinite(own).all(), "NOT_FINITE", found)
        return results

    def _element(self, index: int) -> dict:
        """An element, with fields and shapes that were looked at now or before."""
        if not 0 <= index < len(self._elements):
            raise ValueError(f"index {index} is asked for, of {len(self._elements)} elements")
        one = self._elements[index]
        form = tuple((name, np.shape(x), np.asarray(x).dtype) for name, x in one.items())
        if form not in self._accepted:
            specs = _specs(one)
            found = _common(specs)
            if found != self._common:
                raise ValueError(f"element {index} has {found}, the first one {self._common}")
            try:
                self.crop.check(specs)
                shape = specs["image"].shape[:-1]
                found = f"an image of {shape} in a batch with one of {self.crop.size}"
                need(not self._whole or shape == self.crop.size, "SHAPE_MISMATCH", found)
            except CourseDataError as error:
                about = f"{error.message} (element {index}{_name(one)})"
                raise CourseDataError(error.code, about) from None
            self._accepted.add(form)
        return one

    def _runs_of(self, index: int, one: dict) -> np.ndarray:
        """The runs of an element, looked for once in each mask that is there."""
        runs = one.get("runs")
        if runs is None:
            seen, runs = self._runs.get(index, (lambda: None, None))
            if seen() is not one["mask"]:
                # Eagerly: a function of its own could wait for threads that wait here.
                runs = runs_of(one["image"], one["mask"], self.crop.image_threshold).numpy()
                self._runs[index] = weakref.ref(one["mask"]), runs
        shape, count = np.shape(one["image"])[:-1], runs[:, 2].sum()
        found = f"runs of {count} voxels, an image of {shape}{_name(one)}"
        need(count == np.prod(shape), "SHAPE_MISMATCH", found)
        return runs


def _specs(one: dict) -> dict[str, tf.TensorSpec] | None:
    """What a dataset's `element_spec` would say, or None of anything but a dict."""
    if not isinstance(one, Mapping):
        return None
    specs = {}
    for name, value in one.items():
        text = np.asarray(value).dtype.kind in "OSU"
        # Numbers of Python become 32 bits wide, as everywhere in TensorFlow.
        value = value if hasattr(value, "dtype") else tf.constant(value)
        specs[name] = tf.TensorSpec(value.shape, tf.string if text else value.dtype)
    return specs


def _common(specs: dict) -> dict[str, tf.TensorSpec]:
    """What all elements have alike: of images and masks dtype and channels."""
    common = {name: spec for name, spec in specs.items() if name != "runs"}
    for name in common.keys() & {"image", "mask"}:
        common[name] = tf.TensorSpec(common[name].shape[-1:], common[name].dtype)
    return common


def _name(one: dict) -> str:
    return f", case {tf.compat.as_text(np.asarray(one['case']).item())}" if "case" in one else ""
