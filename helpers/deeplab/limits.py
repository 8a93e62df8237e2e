"""What `deeplab` is called with, refused before anything is built."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from helpers.arguments import one_of, whole

IGNORE = 255  # pixels nobody has outlined, or that padding added
SIDES = "expected (height, width, channels): sides of whole numbers or None, channels 1 or 3"


def classes(count: object, ignore: int | None) -> None:
    """Refuse fewer than two classes, and an ignored id that is one of them."""
    whole("classes, the background among them,", count, least=2)
    if ignore is not None and 0 <= ignore < count:
        raise ValueError(f"the ignored id {ignore} is one of the classes 0 to {count - 1}")


def chosen(class_ids: Iterable[int], count: int) -> list[int]:
    """Some of the classes, each of them once."""
    if not isinstance(class_ids, Iterable):
        raise ValueError(f"class_ids are a list such as [1], not {class_ids!r}")
    ids = [whole("a class id", one, least=0) for one in class_ids]
    if not ids or len({*ids}) < len(ids) or max(ids) >= count:
        raise ValueError(f"class_ids are some of 0 to {count - 1}, each of them once, not {ids}")
    return ids


def expected_ids(count: int, ignore: int | None) -> str:
    """Which ids a mask may hold."""
    return f"0 to {count - 1}" + ("" if ignore is None else f", or {ignore} to be ignored")


def stride(output_stride: object, known: Sequence[int]) -> int:
    """The output stride as an `int`, if it is a known one."""
    one_of("output_stride", output_stride, known)
    return whole("output_stride", output_stride)


def images(
    shape: Sequence[int | None], output_stride: int, value_range: tuple[float, float]
) -> None:
    """Refuse images that no network could take."""
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise ValueError(f"input_shape is {tuple(shape)}; {SIDES}")
    whole("the number of channels", shape[-1])
    for side in shape[:-1]:
        if side is not None:
            whole("a side of input_shape", side)
            if too_small(side, output_stride):
                raise ValueError(f"input_shape is {tuple(shape)}; {needed(output_stride)}")
    if len(value_range) != 2 or not -math.inf < value_range[0] < value_range[1] < math.inf:
        raise ValueError(f"value_range is the lowest and the highest value, not {value_range}")


def too_small(side: int, output_stride: int) -> bool:
    """Whether a side of the image would be a single feature, with nothing beside it."""
    return side <= output_stride


def needed(output_stride: int) -> str:
    """What to do about images that are too small."""
    return (
        f"with output stride {output_stride} both sides need more than {output_stride} pixels, or "
        "they would become a single feature: enlarge or pad the images, or take a smaller stride"
    )
