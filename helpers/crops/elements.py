"""What every stage that crops asks of its arguments and of its elements."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from helpers.elements import check_image, check_mask, fits
from helpers.errors import CourseDataError


def checked_size(size: Sequence[int]) -> tuple[int, ...]:
    """The size of a crop in voxels, `(z, y, x)` or `(y, x)`.

    Raises:
        ValueError: for anything but two or three whole numbers from 1.
    """
    try:
        numbers = tuple(operator.index(number) for number in size)
    except TypeError:
        numbers = ()
    if len(numbers) not in (2, 3) or min(numbers) < 1:
        raise ValueError(f"a size is (z, y, x) or (y, x) in voxels, each from 1, not {size!r}")
    return numbers


def checked_count(per_image: int | None) -> int | None:
    """The number of crops of an image; None stands for one without an axis of its own.

    Raises:
        ValueError: for a number below 1.
    """
    if per_image is not None and operator.index(per_image) < 1:
        raise ValueError(f"per_image is 1 or more, or None, not {per_image}")
    return per_image


def check(spec, size: tuple[int, ...] | None, *, mask: bool, fits: bool = False) -> None:
    """Refuse what can be seen before the first element: `spec` is `dataset.element_spec`.

    Args:
        spec: of single elements.
        size: of the crop; None where there is no crop yet.
        mask: whether elements need one.
        fits: whether images must be as large as the crop.

    Raises:
        ValueError: for elements that are no dicts with an image, and for batches.
        CourseDataError: `NO_PAIR` without the mask, `MASK_MISMATCH`, `CROP_TOO_LARGE`.
    """
    check_image(spec)
    image = spec["image"].shape
    ranks = (3, 4) if size is None else (len(size) + 1,)
    many = "case" in spec and spec["case"].shape.rank
    if image.rank not in ranks or many:
        expected = " or ".join("[z, y, x, c]" if rank == 4 else "[y, x, c]" for rank in ranks)
        raise ValueError(
            f"single images {expected} are cropped, not shape {image}"
            f"{' with several cases' if many else ''}. Crop before .batch(); take batches, or "
            "several crops of an image, apart with .unbatch()"
        )
    if mask and "mask" not in spec:
        raise CourseDataError(
            "NO_PAIR", "these elements have no `mask`, which says where to crop; join it first"
        )
    if "mask" in spec:
        check_mask(spec["mask"], image)
    known = zip(image, size if fits else (), strict=False)
    if any(have is not None and have < want for have, want in known):
        raise CourseDataError(
            "CROP_TOO_LARGE",
            f"a crop of {size} voxels does not fit into images of {tuple(image[:-1])}; choose a "
            "smaller size, pad with crops.centre, or say allow_smaller=True",
        )


def matching(element: dict) -> tuple:
    """Image and mask of an element, and the check that they fit where shapes were not known."""
    image, mask = element["image"], element.get("mask")
    return image, mask, [] if mask is None else fits(image, mask, element.get("case"))
