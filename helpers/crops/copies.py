"""Crops of elements that lie in memory: drawn, cut, cast and batched in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from helpers import memory, stage
from helpers.crops.cuts import CUT, Crop
from helpers.crops.starts import NOWHERE, runs_of
from helpers.errors import CourseDataError, need

MOST_WAITING = 64  # batches of which only the half is made, by calls that were given up


def copied(image: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> None:
    """Copy an image's crops straight to their rows of a batch, cast on the way: one pass.

    Args:
        image: `[z, y, x, c]` or `[y, x, c]`.
        starts: whole numbers `[k, axes]`, of crops that lie within the image.
        rows: `[k, *size, c]`, of the dtype to cast to; overwritten.

    Taught in: tuning the pipeline
    """
    size = rows.shape[1:-1]
    for start, row in zip(starts.tolist(), rows, strict=True):
        part = tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))
        np.copyto(row, image[part], casting="unsafe")


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
        crop: of `crops.random`, `pos_neg` or `class_balanced`; None takes whole images, which
            have one shape if they are batched. Its own `num_parallel_calls` has no part in this.
            Where it draws by the mask and elements have no `runs` of `locate`, each mask is looked
            through again.
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
    source, many = _Source(elements, crop, batch_size, dtype), batch_size or 1
    each, axes = crop and crop.per_image, source.specs["image"].shape.rank - 1
    endless = tf.get_static_value(indices.cardinality()) == tf.data.INFINITE_CARDINALITY
    indices = indices.batch(many, drop_remainder=endless or many == 1)
    numbers = stage.numbers(crop.seed if crop else 0).batch(many, drop_remainder=True)
    # Made within a graph, for instance in `interleave`, nothing but that graph keeps the dataset.
    held = memory.weakly if tf.executing_eagerly() else lambda function: function
    fetch, copy = held(source.fetch), held(source.copy)

    def load(chosen, numbers):
        kinds = [tf.int64, tf.int64, tf.int32, tf.int64]
        ticket, shapes, runs, owners = tf.numpy_function(fetch, [chosen], kinds, stateful=False)
        shapes.set_shape([None, axes])
        runs.set_shape([None, 3])
        owners.set_shape([None])
        starts = tf.zeros_like(shapes)[:, tf.newaxis]
        if crop is not None:  # one after another: each element draws by a seed of its own
            seeds = [stage.salted(number, crop.name) for number in tf.unstack(numbers)]
            drawn = tf.stack([crop.numbers(seed) for seed in seeds])[: tf.size(chosen)]
            starts = crop.starts(shapes, drawn, runs, owners)
        kinds = [spec.dtype for spec in source.specs.values()]
        fields = tf.numpy_function(copy, [ticket, starts], kinds, stateful=False)
        count = chosen.shape[0] and chosen.shape[0] * (each or 1)
        for field, spec in zip(fields, source.specs.values(), strict=True):
            field.set_shape([count, *spec.shape])
        single = batch_size is None and each is None
        fields = [field[0] for field in fields] if single else fields
        return dict(zip(source.specs, fields, strict=True))

    return stage.mapped(
        tf.data.Dataset.zip(indices, numbers),
        load,
        name="crops.from_memory",
        num_parallel_calls=num_parallel_calls,
    )


class _Source:
    """The elements, with the two calls that a graph makes for a batch of them.

    What `fetch` has told the shapes and runs of waits for `copy`: a cache may hold another element
    by then.
    """

    def __init__(self, elements: Sequence[dict], crop: Crop | None, batch_size, dtype) -> None:
        first = _specs(elements[0])
        stage.checked(first)
        image = first["image"]
        whole = [None] * (image.shape.rank - 1) if batch_size is None else image.shape[:-1]
        self._crop, self._size = crop, tf.TensorShape(whole if crop is None else crop.size)
        self._by_mask = bool(crop and crop.groups)
        self._elements, self._common, self._accepted = elements, _common(first), set()
        self._tickets, self._waiting, self._buffers = itertools.count(), {}, memory.Buffers()
        for index in range(len(elements) if isinstance(elements, list | tuple) else 1):
            self._element(index)

        wanted = image.dtype if dtype is None else tf.as_dtype(dtype)
        lossless = np.can_cast(image.dtype.as_numpy_dtype, wanted.as_numpy_dtype)
        if not (lossless or wanted.is_floating):
            raise ValueError(f"images are {image.dtype.name}, which {wanted.name} cannot hold")
        self.specs = dict(self._common)
        for name in (name for name in CUT if name in first):
            kind = wanted if name == "image" else first[name].dtype
            self.specs[name] = tf.TensorSpec([*self._size, first[name].shape[-1]], kind)

    def fetch(self, indices: np.ndarray) -> list:
        """A ticket for some elements; shapes `[b, axes]`, runs `[n, 3]` and their owners `[n]`."""
        chosen = [self._element(index) for index in indices.tolist()]
        shapes = np.array([np.shape(one["image"])[:-1] for one in chosen], np.int64)
        runs = [self._runs(one) for one in chosen]
        owners = np.repeat(np.arange(len(runs)), [len(one) for one in runs])
        ticket = next(self._tickets)
        self._waiting[ticket] = chosen
        self._waiting.pop(ticket - MOST_WAITING, None)
        return [np.int64(ticket), shapes, np.concatenate(runs), owners]

    def copy(self, ticket: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """The fields of the crops of the elements that wait under this ticket."""
        chosen, (many, each) = self._waiting.pop(int(ticket)), starts.shape[:2]
        lost = np.flatnonzero(starts[:, 0, 0] == NOWHERE)
        if lost.size:
            found = f"no voxel with an id in {self._crop.groups}{_name(chosen[lost[0]])}"
            raise CourseDataError("NO_PLACE", found)
        whole = np.shape(chosen[0]["image"])[:-1]
        size = self._crop.size if self._crop else whole
        fields = []
        for name, spec in self.specs.items():
            kind = spec.dtype.as_numpy_dtype
            if name in CUT:
                field = self._buffers.empty((many * each, *size, spec.shape[-1]), kind)
                for one, several, rows in zip(chosen, starts, np.split(field, many), strict=True):
                    try:
                        with np.errstate(over="raise"):
                            copied(one[name], several, rows)
                    except FloatingPointError:
                        found = f"values beyond the range of {spec.dtype.name}{_name(one)}"
                        raise CourseDataError("NOT_FINITE", found) from None
            else:
                values = np.stack([one[name] for one in chosen]).astype(kind)
                field = np.repeat(values, each, axis=0)
            fields.append(field)
        return fields

    def _element(self, index: int) -> dict:
        """An element, of fields and shapes that were looked at now or before."""
        if not 0 <= index < len(self._elements):
            raise ValueError(f"index {index} is asked for, of {len(self._elements)} elements")
        one = self._elements[index]
        form = tuple((name, np.shape(x), np.asarray(x).dtype) for name, x in one.items())
        if form not in self._accepted:
            self._check(one, f"element {index}{_name(one)}")
            self._accepted.add(form)
        return one

    def _check(self, one: dict, said: str) -> None:
        """Refuse an element unlike the first one, or one that the crop does not fit."""
        specs = _specs(one)
        found, shape = _common(specs), specs["image"].shape[:-1]
        if found != self._common:
            raise ValueError(f"{said} has {found}, the first one {self._common}")
        check = self._crop.check if self._crop else stage.checked
        try:
            check(specs)
        except CourseDataError as error:
            raise CourseDataError(error.code, f"{error.message} ({said})") from None
        fits = self._crop is not None or shape.is_compatible_with(self._size)
        need(fits, "SHAPE_MISMATCH", f"{said} is {shape}, the first one {self._size}")
        if self._by_mask and "runs" in one:
            count = np.sum(one["runs"][:, 2], dtype=np.int64)
            found = f"runs of {count} voxels, an image of {shape} ({said})"
            need(count == shape.num_elements(), "SHAPE_MISMATCH", found)

    def _runs(self, one: dict) -> np.ndarray:
        """Where the voxels of an element's classes are, if the crop asks for it."""
        if not self._by_mask:
            return np.zeros([0, 3], np.int32)
        # Eagerly: a function of its own could wait for threads that wait here.
        return one["runs"] if "runs" in one else runs_of(one["image"], one["mask"]).numpy()


def _specs(one: dict) -> dict[str, tf.TensorSpec] | None:
    """What a dataset's `element_spec` would say, or None of anything but a dict."""
    if not isinstance(one, Mapping):
        return None
    return {name: tf.type_spec_from_value(value) for name, value in one.items()}


def _common(specs: dict) -> dict[str, tf.TensorSpec]:
    """What all elements have alike: of images and masks dtype and channels."""
    common = {name: spec for name, spec in specs.items() if name != "runs"}
    for name in (name for name in CUT if name in specs):
        common[name] = tf.TensorSpec(specs[name].shape[-1:], specs[name].dtype)
    return common


def _name(one: dict) -> str:
    return f", case {tf.compat.as_text(np.asarray(one['case']).item())}" if "case" in one else ""
