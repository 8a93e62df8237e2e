"""What all stages ask of the elements of a dataset, before it runs and while it runs."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from helpers.errors import CourseDataError


def check_image(spec) -> None:
    """Refuse elements that are no dicts with an image.

    Args:
        spec: `dataset.element_spec`.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(spec, dict) or "image" not in spec:
        raise ValueError("elements are dicts with an `image` and, if you like, a `mask`")


def check_mask(mask, image) -> None:
    """Refuse a mask that does not fit its image, as far as their specs tell.

    Args:
        mask: `tf.TensorSpec` of the mask.
        image: shape of the image.

    Raises:
        CourseDataError: `MASK_MISMATCH` for another shape, or for anything but whole numbers.
    """
    expected = [*image[:-1], 1]
    if not mask.shape.is_compatible_with(expected) or mask.shape.rank is None:
        raise CourseDataError(
            "MASK_MISMATCH",
            f"the mask has shape {mask.shape}, the image {image}; expected {expected}: the same "
            f"spatial shape and one channel of class ids{_hint(mask.shape, image)}",
        )
    if not (mask.dtype.is_integer or mask.dtype.is_bool):
        raise CourseDataError(
            "MASK_MISMATCH",
            f"a mask holds class ids in whole numbers, not {mask.dtype.name}; read it as uint8",
        )


def _hint(mask, image) -> str:
    if None in (mask.rank, image.rank) or mask.rank not in (image.rank - 1, image.rank):
        return ""
    if mask.rank < image.rank:
        return " (mask[..., tf.newaxis] adds it)"
    if mask.is_compatible_with(image):
        return "; if neither has a channel axis, add [..., tf.newaxis] to both"
    return "; of a one-hot mask, take tf.argmax(mask, -1)" if mask[-1] != 1 else ""


def fits(image, mask, case=None) -> list:
    """The check, as of `require`, that a mask fits its image where shapes were not known before."""
    if mask.shape.is_fully_defined() and image.shape[:-1].is_fully_defined():
        return []  # `check_mask` has compared them
    found, expected = tf.shape(mask), tf.concat([tf.shape(image)[:-1], [1]], 0)
    about = ["the mask has shape", found, "but the image needs", expected, "; pair them anew"]
    return require(tf.reduce_all(found == expected), "MASK_MISMATCH", about, case)


def require(ok, code: str, about: Sequence, case=None) -> list:
    """A check that runs with the graph.

    Args:
        ok: boolean tensor.
        code: of `helpers.errors.CODES`.
        about: strings and int32 tensors: what was found, what was expected, what to do.
        case: the element's name, if it has one.

    Returns:
        For `tf.control_dependencies`. If `ok` is False, `tf.errors.InvalidArgumentError`.
    """
    about = [f"{code}: {about[0]}", *about[1:]] + ([] if case is None else ["case", case])
    operation = tf.debugging.Assert(ok, about, summarize=8)
    return [] if operation is None else [operation]
