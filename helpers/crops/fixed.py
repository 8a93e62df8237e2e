"""The middle of an image, cut or padded to a size: no chance in it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

from helpers import draws
from helpers.crops.elements import check, checked_size, matching


@dataclasses.dataclass(frozen=True)
class CentreCrop:
    """A stage that cuts or pads round the middle: what `centre` returns, with its arguments."""

    size: tuple[int, ...]
    fill: float | str
    mask_fill: int
    num_parallel_calls: int

    name = "crops.centre"
    per_image = None

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Cut or pad the elements of a dataset."""
        self.check(dataset.element_spec)
        return draws.map_named(
            dataset, self._place, name=self.name, num_parallel_calls=self.num_parallel_calls
        )

    def check(self, spec) -> None:
        """Refuse what can be seen before the first element, from its `element_spec`."""
        check(spec, self.size, mask=False)
        for name, value in (("image", self.fill), ("mask", self.mask_fill)):
            if name in spec and value != "min" and not _holds(spec[name].dtype, value):
                raise ValueError(
                    f"the {name} is stored as {spec[name].dtype.name}, which cannot hold the fill "
                    f"{value}; choose another, or cast the {name} first"
                )

    def _place(self, element: dict) -> dict:
        image, mask, checks = matching(element)
        fields = {name: value for name, value in element.items() if name != "places"}
        with tf.control_dependencies(checks):
            outside = tf.reduce_min(image) if self.fill == "min" else self.fill
            fields["image"] = _centred(image, self.size, tf.cast(outside, image.dtype))
            if mask is not None:
                fields["mask"] = _centred(mask, self.size, tf.cast(self.mask_fill, mask.dtype))
        return fields


def centre(
    size: Sequence[int],
    *,
    fill: float | str = 0,
    mask_fill: int = 0,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> CentreCrop:
    """Cut or pad each spatial axis to `size`, round its middle; channels stay as they are.

    Where an odd number of voxels is cut off or added, the odd one is at the end: of 7 voxels cut
    to 4, the 1st goes and the last two; 4 padded to 7 get 1 in front and 2 behind.

    Args:
        size: in voxels, `(z, y, x)` or `(y, x)`.
        fill: value of the image outside, in its own unit (-1000 for HU), or "min" for the smallest
            one of the whole image, which is air in CT and MR.
        mask_fill: the class id outside; 255 is what DeepLab ignores.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage; `places` of `locate` is dropped.

    Raises:
        ValueError: for a bad size, for batches, and for a fill that the dtype cannot hold.
        CourseDataError: `MASK_MISMATCH` where the shapes are known.
        tf.errors.InvalidArgumentError: `MASK_MISMATCH` while running; it names the case.

    DLTK's `resize_image_with_crop_or_pad`, on the spatial axes only.
    """
    if isinstance(fill, str) and fill != "min":
        raise ValueError(f'fill is a number or "min", not {fill!r}')
    return CentreCrop(checked_size(size), fill, mask_fill, num_parallel_calls)


def _centred(values, size: tuple[int, ...], outside):
    shape = tf.shape(values)[:-1]
    wanted = tf.constant(size)
    starts = tf.maximum(shape - wanted, 0) // 2
    kept = tf.minimum(shape, wanted)
    cut = tf.slice(values, tf.concat([starts, [0]], 0), tf.concat([kept, [-1]], 0))
    missing = wanted - kept
    sides = tf.stack([missing // 2, missing - missing // 2], axis=1)
    padded = tf.pad(cut, tf.concat([sides, [[0, 0]]], 0), constant_values=outside)
    return tf.ensure_shape(padded, [*size, values.shape[-1]])


def _holds(dtype: tf.DType, value: float) -> bool:
    if dtype.is_bool:
        return value in (0, 1)
    if dtype.is_integer:
        return float(value).is_integer() and dtype.min <= value <= dtype.max
    return math.isfinite(value) and abs(value) <= dtype.max
