"""What a record holds, as data: one table for each kind, and the way in and out of it.

`SCHEMAS["volume"].fields` is the whole truth about a volume's record; the encoder fills these keys
and no others, and the parser asks for them. Nothing that leads to a person has a key here.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Mapping

import numpy as np

from helpers.cases import Case
from helpers.errors import CourseDataError

# From narrow to wide. All of them are known to tf.io.decode_raw.
INTEGERS = ("uint8", "int16", "uint16", "int32", "int64")
FLOATS = ("float32", "float64")
IGNORE = 255  # the id of pixels that count for nothing, in DeepLab, VOC and Cityscapes


@dataclasses.dataclass(frozen=True)
class Field:
    """One key of a record.

    Args:
        key: its name in the `tf.train.Example`.
        kind: "bytes", "int64" or "float".
        what: what it holds, with shape, dtype and unit.
        required: False where a record may lack it.
    """

    key: str
    kind: str
    what: str
    required: bool = True


@dataclasses.dataclass(frozen=True)
class Schema:
    """A kind of record: its fields, and `encode(element, name, case)`, which fills them.

    `name` is the case's salted hash. Of the case itself, only label and weight are used.
    """

    name: str
    fields: tuple[Field, ...]
    encode: Callable[[Mapping, str, Case], dict[str, object]]

    def __repr__(self) -> str:
        return f"Schema({self.name!r}: {', '.join(field.key for field in self.fields)})"


def narrowest(values: np.ndarray) -> np.ndarray:
    """The same numbers in the narrowest dtype that holds them exactly, in C order, little-endian.

    Floating point becomes an integer type if every value is whole, unless float32 is narrower.

    Args:
        values: an array of integers, truth values or floating point numbers.

    Raises:
        CourseDataError: `NOT_FINITE` for NaN and infinities, `PIXEL_FORMAT` for numbers that no
            dtype of `tf.io.decode_raw` holds (complex, or integers beyond 63 bits).
    """
    values = np.asarray(values)
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise CourseDataError(
            "PIXEL_FORMAT", f"expected real numbers of at most 64 bits, found {values.dtype}"
        )
    if values.dtype.kind != "f":
        return _as_integer(values)
    if not np.isfinite(values).all():
        bad = values.size - int(np.isfinite(values).sum())
        raise CourseDataError(
            "NOT_FINITE",
            f"{bad} of {values.size} values are NaN or infinite; decide what they mean and set "
            "them before you write records",
        )
    whole = np.array_equal(values, np.rint(values))
    largest = float(np.abs(values).max()) if values.size else 0.0
    if whole and largest < 2**31:
        return _as_integer(values)
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
    if np.array_equal(single, values):
        return np.asarray(single, order="C")
    if whole and largest < 2**53:
        return _as_integer(values)
    return np.asarray(values, "<f8", order="C")


def _as_integer(values: np.ndarray) -> np.ndarray:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for name in INTEGERS:
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return np.asarray(values, np.dtype(name).newbyteorder("<"), order="C")
    raise CourseDataError("PIXEL_FORMAT", f"values up to {high} need more than 63 bits")


def _array_fields(label_required: bool) -> tuple[Field, ...]:
    return (
        Field("image", "bytes", "raw values in C order, little-endian, narrowest lossless dtype"),
        Field("image/dtype", "bytes", "NumPy's name of that dtype"),
        Field("image/shape", "int64", "[z, y, x, c], or [y, x, c] for a picture"),
        Field("spacing", "float", "mm between pixel centres, (z, y, x) or (y, x)", False),
        Field("mask", "bytes", "uint8 class ids, C order, shape of the image without c", False),
        Field("label", "int64", "a class id, or one for each of several labels", label_required),
        Field("weight", "float", "probability weight for sampling", False),
        Field("modality", "bytes", "DICOM's term: CT, MR, PT ...", False),
        Field("case", "bytes", "salted hash: 16 digits for the patient, 8 for the case"),
    )


def _encode_volume(element: Mapping, name: str, case: Case) -> dict[str, object]:
    return _encode_array(element, name, case, rank=3)


def _encode_picture(element: Mapping, name: str, case: Case) -> dict[str, object]:
    return _encode_array(element, name, case, rank=2)


def _encode_array(element: Mapping, name: str, case: Case, rank: int) -> dict[str, object]:
    """`rank` is the number of spatial axes where neither spacing nor mask tells it."""
    image, mask = np.asarray(element["image"]), element.get("mask")
    spacing = tuple(float(mm) for mm in element.get("spacing", ()))
    if not all(0 < mm < math.inf for mm in spacing):
        raise CourseDataError(
            "NO_GEOMETRY", f"a spacing of {spacing} mm, expected finite numbers above 0, or none"
        )
    rank = len(spacing) or (rank if mask is None else np.ndim(mask))
    if image.ndim == rank:
        image = image[..., np.newaxis]
    if image.ndim != rank + 1 or 0 in image.shape:
        raise CourseDataError(
            "SHAPE_MISMATCH",
            f"an image of shape {image.shape} where {rank} spatial axes, with or without channels, "
            "are expected, none of them empty",
        )
    refuse_constant(image)
    image = narrowest(image)
    features = {
        "image": image,
        "image/dtype": image.dtype.name.encode(),
        "image/shape": image.shape,
        "case": name.encode(),
    }
    if spacing:
        features["spacing"] = spacing
    if mask is not None:
        features["mask"] = _ids(mask, image.shape[:-1])
    if element.get("modality"):
        features["modality"] = element["modality"].encode()
    if case.label is not None:
        features["label"] = case.label if isinstance(case.label, tuple) else (case.label,)
    if case.weight is not None:
        features["weight"] = (float(case.weight),)
    return features


def _encode_deeplab(element: Mapping, name: str, case: Case) -> dict[str, object]:
    from PIL import Image

    height, width = element["height"], element["width"]
    mask = _ids(element["mask"], (height, width))
    png = io.BytesIO()
    Image.fromarray(mask).save(png, format="PNG")
    return {
        "image/encoded": element["image"],
        "image/filename": name.encode(),
        "image/format": element["format"].encode(),
        "image/height": (height,),
        "image/width": (width,),
        "image/channels": (3,),
        "image/segmentation/class/encoded": png.getvalue(),
        "image/segmentation/class/format": b"png",
    }


def _ids(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask as uint8 class ids."""
    mask = np.asarray(mask)
    if mask.shape != tuple(shape):
        raise CourseDataError(
            "MASK_MISMATCH", f"the mask's shape is {mask.shape}, the image's {tuple(shape)}"
        )
    ids = narrowest(mask)
    if ids.dtype != np.uint8:
        raise CourseDataError(
            "UNKNOWN_LABEL", f"a mask holds whole class ids from 0 to 255, found {mask.dtype} "
            f"from {mask.min()} to {mask.max()}"
        )  # fmt: skip
    return ids


def refuse_constant(image: np.ndarray) -> None:
    """An image of one value teaches nothing, and whitening would divide by zero.

    Raises:
        CourseDataError: `CONSTANT`.
    """
    first = image.flat[0]
    if image.size > 1 and bool((image == first).all()):
        raise CourseDataError(
            "CONSTANT",
            f"all {image.size} values are {first}: an empty image, or one that lost its pixels",
        )


SCHEMAS = {
    schema.name: schema
    for schema in (
        Schema("volume", _array_fields(label_required=False), _encode_volume),
        Schema("classification", _array_fields(label_required=True), _encode_picture),
        # Key for key the format that TensorFlow's DeepLab reads (research/deeplab/datasets).
        Schema(
            "deeplab",
            (
                Field("image/encoded", "bytes", "a JPEG or PNG file, without metadata"),
                Field("image/filename", "bytes", "here the case's salted hash, not a file's name"),
                Field("image/format", "bytes", "jpeg or png"),
                Field("image/height", "int64", "pixels"),
                Field("image/width", "int64", "pixels"),
                Field("image/channels", "int64", "3"),
                Field("image/segmentation/class/encoded", "bytes", "PNG of class ids, one channel"),
                Field("image/segmentation/class/format", "bytes", "png"),
            ),
            _encode_deeplab,
        ),
    )
}
