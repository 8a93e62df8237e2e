"""A list of items and a loader, as elements: what is missing is said before anything is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from helpers import draws, lists, memory, quiet, verdicts
from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.lists import Item, files_of
from helpers.pipeline.order import Facts
from helpers.records.schema import DEFAULTS

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

MOST_CHANNELS = 4  # of three axes, where nothing else tells, a last one beyond this is no channels
DTYPES = {"label": np.int32, "weight": np.float32, "spacing": np.float32}
DROPPED = ("notes",)  # for people, and of any length


class Listing:
    """Items that a loader turns into elements.

    Args:
        items: `lists.Item`, `cases.Case`, `pathlib.Path`, or whatever the loader understands;
            text may be anything, so it is not taken for a path.
        load: `load(item)` gives a dict with `image` and, if there are any, `mask`, `spacing` and
            further fields. A missing axis for channels is added: `spacing` and `mask` tell which
            axes are in space; without them three axes of which the last is at most 4 long are
            `[y, x, c]`. None reads `lists.Item` as NIfTI.
        split: of cases, the ones to take; may be left out where all are in one.

    An item's own `label` and `weight` come along; a loader's go before them. `case` is "item 7",
    counted from 0, unless the loader gives one: names of files may lead to a person.

    Raises:
        CourseDataError: `EMPTY_LIST`; `UNREADABLE` for items whose files are not there.
        ValueError: for an unknown split, and for items that need a loader.
    """

    def __init__(
        self, items: Sequence, load: Callable[..., dict] | None, split: str | None = None
    ) -> None:
        self.items = _of_split(tuple(items), split)
        if not self.items:
            raise CourseDataError("EMPTY_LIST", "no items to load; look at the list, and its split")
        if load is None:
            if not all(isinstance(item, Item) for item in self.items):
                raise ValueError("these items need a loader: load=lists.load, or one of your own")
            load = _load_nifti
        self.load = load
        self.error: CourseDataError | None = None  # the last one, as TensorFlow keeps only text
        self._first: dict | None = None
        self._refuse_missing_files()
        self.facts = Facts(self._told("label"), self._told("weight"))

    def __len__(self) -> int:
        return len(self.items)

    def _refuse_missing_files(self) -> None:
        gone = {
            number: missing
            for number, item in enumerate(self.items)
            if (missing := [file for file in files_of(item) if not os.path.exists(file)])
        }
        if gone:
            numbers = ", ".join(map(str, [*gone][:5])) + (", …" if len(gone) > 5 else "")
            raise CourseDataError(
                "UNREADABLE",
                f"items[{numbers}] of {len(self)}: no such file; mend the list, or the base folder "
                "that it was read with",
                [file for missing in gone.values() for file in missing],
            )

    def _told(self, field: str) -> list | None:
        """What the items say about themselves; None where none does."""
        found = [getattr(item, field, None) for item in self.items]
        return None if all(one is None for one in found) else found

    def element(self, number: int, *more) -> dict[str, np.ndarray]:
        """The element of one item, as arrays.

        Args:
            number: of the item, from 0.
            more: what else the loader is to be called with.

        Raises:
            CourseDataError: the loader's own, or `LOADING_FAILED` for whatever else it raises;
                `MASK_MISMATCH`, `UNKNOWN_LABEL` for masks. All name the item.
        """
        item, name = self.items[number], f"items[{number}]"
        files = files_of(item)
        try:
            found = self.load(item, *more)
            if not isinstance(found, Mapping) or "image" not in found:
                raise CourseDataError("LOADING_FAILED", "the loader gives no dict with an `image`")
            element = _arrays({k: v for k, v in found.items() if k not in DROPPED})
        except CourseDataError as error:
            problem = f"{name}: {error.message}"
            raise CourseDataError(error.code, problem, error.files or files) from error
        except Exception as error:  # whatever somebody's loader may raise
            problem = f"{name}: the loader raised {verdicts.cause(error)}"
            raise CourseDataError("LOADING_FAILED", problem, files) from error
        told = {"label": self.facts.labels, "weight": self.facts.weights}
        for field, values in told.items():
            if values is not None and field not in element:
                some = next(one for one in values if one is not None)
                own = DEFAULTS[field] if values[number] is None else values[number]
                element[field] = np.broadcast_to(_typed(field, own), np.shape(some))
        return {"case": np.array(f"item {number}".encode(), object)} | element

    @property
    def bytes(self) -> int:
        """What the elements take in memory, as far as the cases say."""
        return sum(item.size for item in self.items if isinstance(item, Case))

    def whole(self, num_parallel_calls: int) -> tf.data.Dataset:
        """Every element once, in their order."""
        return self.stream(tf.data.Dataset.range(len(self)), num_parallel_calls)

    def stream(self, order: tf.data.Dataset, num_parallel_calls: int) -> tf.data.Dataset:
        """A dataset of elements, loaded when they are asked for.

        Args:
            order: of int64 scalars, the numbers of the items.
            num_parallel_calls: items loaded at a time; Python runs one at a time, but what reads
                files, decompresses or copies mostly lets others run.

        Returns:
            Elements with the fields and dtypes of the first item's; lengths in space are not known
            beforehand. Images that come as their NIfTI files hold them, in several dtypes, come in
            the narrowest one that holds all, with a warning.

        Raises:
            CourseDataError: what the first item's loader raises.
            tf.errors.OpError: while running, with the text of the `CourseDataError`.
        """
        first = self._first = self.element(0)
        spec = {field: _spec(field, value) for field, value in first.items()}
        like = {field: (value.dtype, value.shape) for field, value in first.items()}
        dtype = lists.common_dtype(self.items, [first["image"].dtype])
        spec["image"] = tf.TensorSpec(spec["image"].shape, dtype)
        like["image"] = (dtype, first["image"].shape)

        def arrays(number: np.ndarray) -> list[np.ndarray]:
            kept = None
            if number == 0:  # it was loaded to see what it holds
                kept, self._first = self._first, None
            try:
                found = self.element(int(number)) if kept is None else kept
                if more := [field for field in found if field not in like]:
                    problem = f"items[{number}] has `{more[0]}`, which the first item lacks"
                    advice = "let the loader give all items the same fields"
                    raise CourseDataError("LOADING_FAILED", f"{problem}; {advice}")
                return [
                    memory.aligned(_conformed(found, field, *want, f"items[{number}]"))
                    for field, want in like.items()
                ]
            except CourseDataError as error:
                self.error = error
                raise

        loading = memory.weakly(arrays) if tf.executing_eagerly() else arrays

        def load(number, kept=arrays):  # mapped, so whoever holds the dataset holds the items
            del kept
            dtypes = [one.dtype for one in spec.values()]
            found = tf.numpy_function(loading, [number], dtypes, stateful=False)
            pairs = zip(spec.items(), found, strict=True)
            return {field: tf.ensure_shape(value, one.shape) for (field, one), value in pairs}

        return draws.map_named(
            order, load, name="pipeline.load", num_parallel_calls=num_parallel_calls
        )


def _of_split(items: tuple, split: str | None) -> tuple:
    if not all(isinstance(item, Case) for item in items):
        if split is not None:
            raise ValueError("only records and cases have splits; hand in the items of one")
        return items
    splits = list(dict.fromkeys(case.split for case in items))
    if items and (len(splits) > 1 if split is None else split not in splits):
        raise ValueError(f"which split? These cases have: {', '.join(splits)}")
    return tuple(case for case in items if split in (None, case.split))


def _load_nifti(item: Item) -> dict:
    return lists.load(Case("", (item.image, item.mask, "")))


def _arrays(found: dict) -> dict[str, np.ndarray]:
    """A loader's dict in the form that every element has."""
    element = {
        field: np.array(value.encode() if isinstance(value, str) else value, object)
        if isinstance(value, str | bytes)
        else _typed(field, value)
        for field, value in found.items()
    }
    image, mask = element["image"], element.get("mask")
    if image.dtype.kind not in "biuf":
        raise CourseDataError("LOADING_FAILED", f"the image holds {image.dtype}, expected numbers")
    if not _has_channels(image, mask, element.get("spacing")):
        element["image"] = image = image[..., np.newaxis]
    if mask is not None:
        mask = mask if mask.ndim == image.ndim else mask[..., np.newaxis]
        if mask.shape != (*image.shape[:-1], 1):
            problem = f"the mask's shape is {mask.shape}, the image's {image.shape}"
            raise CourseDataError("MASK_MISMATCH", f"{problem}; expected the same axes in space")
        with np.errstate(invalid="ignore"):
            ids = mask.astype(np.uint8, copy=False)
        if ids is not mask and not np.array_equal(ids, mask):
            problem = f"the mask holds {mask.dtype} from {mask.min()} to {mask.max()}"
            raise CourseDataError("UNKNOWN_LABEL", f"{problem}; expected class ids from 0 to 255")
        element["mask"] = ids
    return element


def _typed(field: str, value) -> np.ndarray:
    """A value in the dtype of its field; a label that is no whole number is none at all."""
    array = np.asarray(value, DTYPES.get(field))
    if field == "label" and not np.array_equal(array, np.asarray(value)):
        problem = f"the label is {value!r:.40}; expected a class id, or one for each label"
        raise CourseDataError("UNKNOWN_LABEL", problem)
    return array


def _has_channels(image: np.ndarray, mask: np.ndarray | None, spacing: np.ndarray | None) -> bool:
    if image.ndim not in (2, 3, 4):
        problem = f"the image has shape {image.shape}"
        raise CourseDataError("SHAPE_MISMATCH", f"{problem}; expected [z, y, x, c] or [y, x, c]")
    if spacing is not None and spacing.size > 1:
        return image.ndim > spacing.size
    if image.ndim == 3 and mask is not None:
        return mask.ndim == 2 or mask.shape == (*image.shape[:-1], 1)
    return image.ndim == 4 or (image.ndim == 3 and image.shape[-1] <= MOST_CHANNELS)


def _spec(field: str, value: np.ndarray) -> tf.TensorSpec:
    shape = list(value.shape)
    if field in ("image", "mask"):
        shape[:-1] = [None] * (len(shape) - 1)
    return tf.TensorSpec(shape, tf.string if value.dtype == object else value.dtype)


def _conformed(element: dict, field: str, dtype: np.dtype, shape: tuple, name: str) -> np.ndarray:
    """A field of an element in the form of the first item's, if nothing is lost by it."""
    if field not in element:
        if field == "mask":
            raise CourseDataError("NO_PAIR", f"{name} has no mask, where the first item has one")
        if field not in DEFAULTS:
            problem = f"{name} has no `{field}`, where the first item has one"
            raise CourseDataError("LOADING_FAILED", problem)
        return np.broadcast_to(np.array(DEFAULTS[field], dtype), shape)
    value = element[field]
    flexible = value.ndim - 1 if field in ("image", "mask") else 0
    if value.ndim != len(shape) or value.shape[flexible:] != shape[flexible:]:
        raise CourseDataError(
            "SHAPE_MISMATCH",
            f"{name}: `{field}` has shape {value.shape}, the first item's {shape}; expected the "
            "same axes and channels",
        )
    if value.dtype == dtype:
        return value
    with np.errstate(invalid="ignore", over="ignore"):
        cast = value.astype(dtype) if object not in (value.dtype, dtype) else None
    both_float = cast is not None and cast.dtype.kind == value.dtype.kind == "f"
    if cast is None or not np.array_equal(cast, value, equal_nan=both_float):
        raise CourseDataError(
            "LOADING_FAILED",
            f"{name}: `{field}` is {value.dtype}, the first item's {dtype}, which cannot hold its "
            "values; let the loader give one dtype for all",
        )
    return cast
