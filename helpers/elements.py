"""What all stages ask of the elements of a dataset, before it runs and while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from helpers import quiet
from helpers.errors import CourseDataError

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402


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
            "spatial shape and one channel (mask[..., tf.newaxis] adds it)",
        )
    if not (mask.dtype.is_integer or mask.dtype.is_bool):
        raise CourseDataError(
            "MASK_MISMATCH",
            f"a mask holds class ids in whole numbers, not {mask.dtype.name}; read it as uint8",
        )


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
