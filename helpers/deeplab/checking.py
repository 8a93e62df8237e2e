"""A data set is looked through before DeepLab is trained with it, and bad data is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from helpers import arguments, elements
from helpers.deeplab import limits
from helpers.deeplab.limits import IGNORE
from helpers.errors import CourseDataError, listed


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a data set holds."""

    images: int
    pixels: tuple[int, ...]  # of each class
    ignored: int  # pixels
    lowest: float  # value of an image
    highest: float
    smallest: tuple[int, int]  # the smallest height and the smallest width, in pixels

    def __str__(self) -> str:
        total = max(sum(self.pixels) + self.ignored, 1)
        shares = ", ".join(f"{count / total:.1%}" for count in self.pixels)
        return (
            f"{self.images} images of {self.smallest[0]} x {self.smallest[1]} pixels or more, "
            f"values {self.lowest:g} to {self.highest:g}; pixels of each class: {shares}; ignored: "
            f"{self.ignored / total:.1%}"
        )


def check(
    dataset: tf.data.Dataset,
    classes: int,
    *,
    ignore: int = IGNORE,
    output_stride: int = 16,
    channels: int = 3,
    take: int | None = None,
) -> Checked:
    """Look through a data set for what would spoil the training, or stop it later.

        print(deeplab.check(train, classes=2))     # then compare the values with `value_range`

    Args:
        dataset: of elements or batches, as dicts with `image` `[..., y, x, c]` and `mask` `[..., y,
            x, 1]`, or as `(image, mask)` or `(image, mask, weight)`.
        classes: how many there are.
        ignore: the id in a mask that is no class.
        output_stride: of the model.
        channels: of the model.
        take: how many elements or batches to look at; None for all. A dataset that repeats and then
            goes through `filter` or `flat_map` does not know that it has no end: say `take`.

    Returns:
        A report of what there is.

    Raises:
        CourseDataError: with the case, or its place where it has no name: `UNKNOWN_LABEL` for ids
            that are neither a class nor ignored; `MASK_MISMATCH` for a mask of another size or of
            no whole numbers; `SHAPE_MISMATCH` for other channels, for images that are no numbers or
            no single tensor, and for those that are too small for the output stride; `NOT_FINITE`
            for values that are NaN or infinite; `EMPTY_CLASS` if only one class occurs at all;
            `EMPTY_LIST` for no elements.
        ValueError: for arguments that do not fit, and for a data set without end where `take` is
            not given.
    """
    limits.classes(classes, ignore)
    output_stride = limits.stride(output_stride, (16, 8))
    if take is not None:
        arguments.whole("take", take)
    elif dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("the dataset repeats without end; say how much to look at: take=100")
    _check_spec(dataset.element_spec, channels)
    found = [
        _look(*case, classes, ignore, output_stride, channels)
        for case in _cases(dataset if take is None else dataset.take(take))
    ]
    if not found:
        raise CourseDataError("EMPTY_LIST", "there is no case in the dataset; expected one or more")
    counts = np.sum([one.pixels + (one.ignored,) for one in found], axis=0).tolist()
    if np.count_nonzero(counts[:-1]) < 2:
        raise CourseDataError("EMPTY_CLASS", _one_class(counts, ignore))
    return Checked(
        images=len(found),
        pixels=tuple(counts[:-1]),
        ignored=counts[-1],
        lowest=min(one.lowest for one in found),
        highest=max(one.highest for one in found),
        smallest=tuple(np.min([one.smallest for one in found], axis=0).tolist()),
    )


def _check_spec(spec, channels: int) -> None:
    """Refuse what the shapes alone tell."""
    image, mask = _fields(spec)
    for what, one in (("image", image), ("mask", mask)):
        if not isinstance(one, tf.TensorSpec):
            raise CourseDataError(
                "SHAPE_MISMATCH",
                f"the {what} is no dense tensor, but a {type(one).__name__}; expected a dict with "
                "`image` and `mask`, or (image, mask)",
            )
    if not (image.dtype.is_floating or image.dtype.is_integer or image.dtype.is_bool):
        raise CourseDataError(
            "SHAPE_MISMATCH",
            f"images are of the type {image.dtype.name}; expected numbers: decode them first",
        )
    if image.shape.rank not in (3, 4):
        raise CourseDataError(
            "SHAPE_MISMATCH",
            f"images have shape {image.shape}; expected [y, x, {channels}], or batches of these",
        )
    if image.shape[-1] not in (None, channels):
        raise CourseDataError("SHAPE_MISMATCH", _channels(image.shape[-1], channels))
    elements.check_mask(mask, image.shape)


def _fields(element) -> list:
    """Image and mask of a dict or a tuple."""
    if isinstance(element, tuple) and len(element) in (2, 3):
        return [*element[:2]]
    elements.check_image(element)
    if "mask" not in element:
        raise CourseDataError("NO_PAIR", "elements have an image, but no mask")
    return [element["image"], element["mask"]]


def _cases(dataset: tf.data.Dataset) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, image and mask of each case, from elements and from batches."""
    number = 0
    for element in dataset.as_numpy_iterator():
        image, mask = _fields(element)
        names = element.get("case") if isinstance(element, dict) else None
        if image.ndim == 3:
            image, mask, names = image[None], mask[None], None if names is None else [names]
        if len(image) != len(mask):
            raise CourseDataError(
                "MASK_MISMATCH", f"a batch has {len(image)} images, but {len(mask)} masks"
            )
        for place in range(len(image)):
            name = f"case {number + place}, counted from 0"
            if names is not None:
                given = names[place]
                given = given.decode(errors="replace") if isinstance(given, bytes) else given
                name = f"case {given}"
            yield name, image[place], mask[place]
        number += len(image)


def _look(
    name: str,
    image: np.ndarray,
    mask: np.ndarray,
    classes: int,
    ignore: int,
    output_stride: int,
    channels: int,
) -> Checked:
    """The report of one case."""
    if image.shape[-1] != channels:
        raise CourseDataError("SHAPE_MISMATCH", f"{name}: {_channels(image.shape[-1], channels)}")
    if mask.shape != (*image.shape[:2], 1):
        raise CourseDataError(
            "MASK_MISMATCH",
            f"{name}: the mask has shape {mask.shape}, the image {image.shape}; expected "
            f"{(*image.shape[:2], 1)}: pair them anew, and resize both or neither",
        )
    if any(limits.too_small(side, output_stride) for side in image.shape[:2]):
        raise CourseDataError(
            "SHAPE_MISMATCH",
            f"{name}: {image.shape[0]} x {image.shape[1]} pixels; {limits.needed(output_stride)}",
        )
    if not np.isfinite(image).all():
        raise CourseDataError(
            "NOT_FINITE", f"{name}: the image has values that are NaN or infinite"
        )
    ids, counts = np.unique(mask, return_counts=True)
    count = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    if strange := sorted({*count} - {ignore, *range(classes)}):
        known = [*range(classes), *([] if ignore is None else [ignore])]
        between = any(min(known) < one < max(known) for one in strange)
        hint = (
            ". Ids in between come from a mask that was resized by interpolation: take nearest "
            "neighbour; or there are more classes"
            if between
            else ""
        )
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"{name}: the mask has the ids {listed(strange, most=5)}; expected "
            f"{limits.expected_ids(classes, ignore)}{hint}",
        )
    return Checked(
        images=1,
        pixels=tuple(count.get(one, 0) for one in range(classes)),
        ignored=count.get(ignore, 0),
        lowest=float(image.min()),
        highest=float(image.max()),
        smallest=image.shape[:2],
    )


def _channels(found: int, channels: int) -> str:
    """What to say about another number of channels."""
    advice = "read them so"
    if found in (1, 3):
        advice += f", or build the model with input_shape=(None, None, {found})"
    elif found > 4:
        advice = (
            "if this is the width, there is no axis of channels: add it to images and masks, "
            "[..., tf.newaxis]"
        )
    return f"images have {found} channels, the model takes {channels}; {advice}"


def _one_class(counts: list[int], ignore: int) -> str:
    """What to say about masks with one class or none."""
    there = [number for number, count in enumerate(counts[:-1]) if count]
    hint = (
        f"; with {counts[-1]} pixels of {ignore}, these may be masks of 0 and {ignore} whose "
        "foreground is taken for ignored: map it to 1"
        if there == [0] and counts[-1]
        else ""
    )
    found = f"class {there[0]} alone occurs" if there else "no class occurs"
    return f"{found} in the masks; expected two or more, or there is nothing to learn{hint}"
