"""Items and a loader as elements, and elements as a dataset: what is wrong names the item."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from helpers import lists, memory, records, stage
from helpers.cases import Case
from helpers.errors import CourseDataError, need
from helpers.pipeline.order import facts_of
from helpers.smart_cache import loaded

DTYPES = {field: records.DEFAULTS[field].dtype for field in ("label", "weight", "spacing")}


class Loaded(Sequence):
    """Items with a loader, as elements: `[i]` loads the i-th.

    Args:
        items: `lists.Item`, `cases.Case`, `pathlib.Path`, or whatever the loader understands.
        load: `load(item)` gives a dict with `image` and, if there are any, `mask`, `spacing` and
            further fields, as of `element_of`. None reads `lists.Item` as NIfTI.
        split: of cases, the ones to take; may be left out where all are in one.

    An item's own `label` and `weight` come along; a loader's go before them. `case` is "item 7",
    counted from 0, unless the loader gives one: names of files may lead to a person. All elements
    have the fields and dtypes of the first. Images that come as their NIfTI files hold them, in
    several dtypes, come in the narrowest one that holds all, with a warning.

    Raises:
        CourseDataError: `EMPTY_LIST`; `UNREADABLE` for items whose files are not there; with an
            element what its loader raises, or `LOADING_FAILED`.
        ValueError: for an unknown split.

    Taught in: no lesson; pipelines read lists with it
    """

    def __init__(self, items: Sequence, load: Callable | None = None, split: str | None = None):
        need(len(items), "EMPTY_LIST", "there are no items to load")
        splits = {getattr(item, "split", None) for item in items}
        if len(splits) > 1 if split is None else split not in splits:
            raise ValueError(f"which split? These items have {splits}")
        self.items = [item for item in items if split in (None, getattr(item, "split", None))]
        files = [file for item in self.items for file in lists.files_of(item)]
        gone = [file for file in files if not os.path.exists(file)]
        need(not gone, "UNREADABLE", f"{len(gone)} of {len(files)} files are not there", *gone)
        self.load, self.error = load or _load_nifti, None
        self.facts = {"records": len(self)}
        for field in ("label", "weight"):
            values = [getattr(item, field, None) for item in self.items]
            if values.count(None) < len(values):
                self.facts[field] = values

    def __len__(self) -> int:
        return len(self.items)

    @functools.cached_property
    def first(self) -> dict:
        """The first element, which all others are like, its image in a dtype that holds all."""
        first = self.element(0)
        dtype = lists.common_dtype(self.items, [first["image"].dtype])
        return first | {"image": first["image"].astype(dtype)}

    def __getitem__(self, number: int) -> dict:
        return self.element(number, like=self.first)

    def element(self, number: int, *more, like: dict | None = None) -> dict:
        """The element of one item; its loader is called with `more` as well."""

        def read(item):
            element = element_of(self.load(item, *more))
            element.setdefault("case", f"item {number}")
            for field in [one for one in DTYPES if one in self.facts and one not in element]:
                own = getattr(item, field)
                element[field] = np.asarray(
                    records.DEFAULTS[field] if own is None else own, DTYPES[field]
                )
            if like and np.can_cast(element["image"].dtype, like["image"].dtype):
                element["image"] = element["image"].astype(like["image"].dtype, copy=False)
            return element

        try:
            return loaded((number, self.items[number]), read, like)
        except CourseDataError as error:
            self.error = error  # of which TensorFlow keeps only the text
            raise


def _load_nifti(item: lists.Item) -> dict:
    return lists.load(Case("", (item.image, item.mask, "")))


def element_of(found: dict) -> dict:
    """What a loader gives, as an element: an axis for channels, class ids of eight bits.

    Args:
        found: `image` and maybe `mask`, and whatever else there is. Where `spacing`, or a mask
            without an axis for channels, tells that the image has none either, it gets one.
            `notes`, for people, are left out.

    Raises:
        CourseDataError: `MASK_MISMATCH`; `UNKNOWN_LABEL` for ids that are not from 0 to 255.
        TypeError: for a label that is no whole number.

    >>> element_of({"image": np.zeros((8, 8, 8)), "mask": np.ones((8, 8, 8))})["mask"].shape
    (8, 8, 8, 1)

    Taught in: no lesson; pipelines read lists with it
    """
    element = {field: found[field] for field in found if field != "notes"}
    for field in DTYPES.keys() & element.keys():
        element[field] = np.asarray(element[field]).astype(DTYPES[field], casting="same_kind")
    image, mask = np.asarray(found["image"]), np.asarray(found.get("mask", 0))
    axes = mask.ndim - (mask.ndim > 2 and mask.shape[-1] == 1)
    axes = np.size(found["spacing"]) if "spacing" in found else axes
    element["image"] = image = image[..., np.newaxis] if image.ndim == axes else image
    if "mask" in found:
        mask = mask if mask.ndim == image.ndim else mask[..., np.newaxis]
        shapes = f"the image is {image.shape}, the mask {mask.shape}"
        need(mask.shape == (*image.shape[:-1], 1), "MASK_MISMATCH", shapes)
        element["mask"] = mask.astype(np.uint8)
        found_ids = f"a mask from {mask.min()} to {mask.max()}, expected ids"
        need((element["mask"] == mask).all(), "UNKNOWN_LABEL", found_ids)
    return element


def asked_for(
    elements: Sequence[dict], order: tf.data.Dataset | None, num_parallel_calls: int
) -> tf.data.Dataset:
    """A dataset of elements, each asked for when it is due; Python runs in it.

    Args:
        elements: whatever has a length and `[i]`. Its first element tells fields and dtypes;
            lengths in space are left open.
        order: of int64 scalars, the numbers of the elements; None takes each once.
        num_parallel_calls: elements asked for at a time; Python runs one at a time, but what reads
            files, decompresses or copies mostly lets others run.

    Taught in: no lesson; pipelines use it
    """
    order = tf.data.Dataset.range(len(elements)) if order is None else order
    first = elements.first if isinstance(elements, Loaded) else elements[0]
    dtypes = [value.dtype for value in first.values()]
    shapes = [[None] * (value.ndim - 1) + [*value.shape[-1:]] for value in first.values()]

    def fetch(number):
        element = elements[int(number)]
        return [element[field] for field in first]

    # Made within a graph, nothing but that graph keeps the dataset.
    held = memory.weakly(fetch) if tf.executing_eagerly() else fetch

    def element(number, _=fetch):  # mapped, so whoever holds the dataset holds the elements
        values = tf.numpy_function(held, [number], dtypes, stateful=False)
        return dict(zip(first, map(tf.ensure_shape, values, shapes), strict=True))

    return stage.mapped(order, element, name="pipeline.load", num_parallel_calls=num_parallel_calls)


def opened(source, split: str | None, load: Callable | None, num_parallel_calls: int) -> tuple:
    """What is known of a source's elements, and how to read them.

    Args:
        source, split, load, num_parallel_calls: as for `batches`.

    Returns:
        The source, a list as `Loaded`. A dict of facts, as for `order.numbers`, empty where
        nothing is known in the order of reading. And a function that makes a dataset of the
        elements, of a dataset of their numbers or, without it, each once.

    Taught in: no lesson; pipelines use it
    """
    if isinstance(source, tf.data.Dataset):
        return source, {}, lambda: source
    if isinstance(source, str | Path):
        facts = records.load_manifest(source).split(split)
        mapped = {"jpeg", "png"}.isdisjoint(facts["dtype"])  # else in another order
        read = functools.partial(records.read, source, split, mapped=mapped)
        return source, facts if mapped else {}, lambda order=None: read(indices=order)
    if load is not None or not len(source) or not isinstance(source[0], Mapping):
        source = Loaded(source, load, split)
    facts = source.facts if isinstance(source, Loaded) else facts_of(source)
    return source, facts, lambda order=None: asked_for(source, order, num_parallel_calls)


def in_memory(dataset: tf.data.Dataset, source, facts: Mapping) -> list[dict]:
    """All elements of a dataset, read once.

    Args:
        dataset: finite.
        source: that it reads from.
        facts: about it, as of `opened`.

    Raises:
        CourseDataError: `TOO_LARGE`, `EMPTY_LIST`, and what a loader raised.

    Taught in: no lesson; pipelines use it
    """
    needed = sum(getattr(item, "size", 0) for item in getattr(source, "items", ()))
    for shape, dtype in zip(facts.get("shape", ()), facts.get("dtype", ()), strict=True):
        needed += math.prod(map(int, shape.split("x"))) * (np.dtype(dtype).itemsize + 1)  # and mask
    free = psutil.virtual_memory().available
    sizes = f"{needed / 2**30:.1f} GiB in a cache, {free / 2**30:.1f} GiB are free"
    need(needed <= free, "TOO_LARGE", f"{sizes}; say cache=False, or take a SmartCache")
    try:
        elements = memory.gather(dataset)
    except tf.errors.OpError:
        if getattr(source, "error", None) is None:
            raise
        raise source.error from None
    need(elements, "EMPTY_LIST", "the dataset has no elements")
    return elements
