"""What is read before it is in memory: records, and items with a loader."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from helpers import lists, records
from helpers.cases import Case
from helpers.errors import CourseDataError, need
from helpers.smart_cache import loaded

DTYPES = {field: records.DEFAULTS[field].dtype for field in ("label", "weight", "spacing")}


class Stored:
    """A split of records, which are read by their numbers or in an order of their own.

    Args:
        folder, split: as for `records.read`.

    Raises:
        CourseDataError: as of `records.load_manifest`.
        ValueError: for an unknown split.

    Taught in: no lesson; pipelines read records with it
    """

    def __init__(self, folder: str | Path, split: str | None = None) -> None:
        manifest = records.load_manifest(folder)
        self.facts = manifest.split(split)
        shards = [shard for shard in manifest.shards if shard.split == self.facts["split"]]
        self.bytes = sum(shard.bytes for shard in shards)
        self.mapped = {"jpeg", "png"}.isdisjoint(self.facts["dtype"])
        self.read = functools.partial(records.read, folder, split)

    def __len__(self) -> int:
        return self.facts["records"]


class Loaded(Sequence):
    """Items with a loader, as elements: `[i]` loads the i-th; the first one is kept.

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
        if split not in splits and (split is not None or len(splits) > 1):
            raise ValueError(f"which split? These items have {splits}")
        self.items = [item for item in items if split in (None, getattr(item, "split", None))]
        files = [file for item in self.items for file in lists.files_of(item)]
        gone = [file for file in files if not os.path.exists(file)]
        need(not gone, "UNREADABLE", f"{len(gone)} of {len(files)} files are not there", *gone)
        self.bytes = sum(getattr(item, "size", 0) for item in self.items)
        self.facts = {}
        for field in ("label", "weight"):
            values = [getattr(item, field, None) for item in self.items]
            if values.count(None) < len(values):
                self.facts[field] = values
        self.load, self.error = load or _load_nifti, None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> dict:
        return self.element(number, like=self.first) if number else self.first

    @functools.cached_property
    def first(self) -> dict:
        """The first element, which all others are like, its image in a dtype that holds all."""
        first = self.element(0)
        dtype = lists.common_dtype(self.items, [first["image"].dtype])
        return first | {"image": first["image"].astype(dtype)}

    def element(self, number: int, *more, like: dict | None = None) -> dict:
        """The element of one item; its loader is called with `more` as well."""

        def read(item):
            found = dict(self.load(item, *more))
            found.setdefault("case", f"item {number}")
            for field, values in self.facts.items():
                own = values[number]
                found.setdefault(field, records.DEFAULTS[field] if own is None else own)
            element = element_of(found)
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


def element_of(found: Mapping) -> dict:
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
    element = {field: value for field, value in found.items() if field != "notes"}
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
        ids = f"a mask from {mask.min()} to {mask.max()}, expected ids"
        need((element["mask"] == mask).all(), "UNKNOWN_LABEL", ids)
    return element
