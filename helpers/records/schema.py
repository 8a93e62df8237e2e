"""What a record holds, as data: one table for each kind, and the way into it.

`SCHEMAS["volume"].fields` is the whole truth about a volume's record; the encoder fills these keys
and no others, and the parser asks for them. Nothing that leads to a person has a key here.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from helpers.cases import Case
from helpers.errors import need

# From narrow to wide, all known to tf.io.decode_raw. Integers stay integers.
NARROW = ("uint8", "int16", "uint16", "int32", "float32", "int64", "float64")
DEFAULTS = {"label": -1, "weight": 1.0, "spacing": 0.0, "modality": b""}  # where a record lacks it
LARGEST_WEIGHT = 2.0**127  # float32 holds it


class Field(NamedTuple):
    """One key of a record: its name, the kind of its list, and what it holds.

    Taught in: writing TFRecords
    """

    key: str
    kind: str
    what: str


class Schema(NamedTuple):
    """A kind of record: its fields, and `encode(element, name, case)`, which fills them.

    Taught in: writing TFRecords
    """

    fields: tuple[Field, ...]
    encode: Callable[[Mapping, str, Case], dict[str, object]]


def narrowest(values: np.ndarray) -> np.ndarray:
    """The same numbers in the narrowest dtype that holds them exactly, in C order, little-endian.

        >>> narrowest(np.array([0.0, -1000.0])).dtype.name, narrowest(np.array([0.5])).dtype.name
        ('int16', 'float32')

    Floating point becomes an integer type if every value is whole, unless float32 is narrower.

    Args:
        values: an array of integers, truth values or floating point numbers.

    Raises:
        CourseDataError: `NOT_FINITE` for NaN and infinities, `PIXEL_FORMAT` for numbers that no
            dtype of `tf.io.decode_raw` holds (complex, or integers beyond 63 bits).

    Taught in: writing TFRecords
    """
    values = np.asarray(values)
    kind, size = values.dtype.kind, values.dtype.itemsize
    need(kind in "biuf" and size <= 8, "PIXEL_FORMAT", f"{values.dtype}, not numbers of 64 bits")
    bad = values.size - int(np.isfinite(values).sum()) if kind == "f" else 0
    need(not bad, "NOT_FINITE", f"{bad} of {values.size} values are NaN or infinite")
    low, high = (values.min().item(), values.max().item()) if values.size else (0, 0)
    whole = kind != "f" or np.array_equal(values, np.rint(values))
    for dtype in map(np.dtype, NARROW):
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                fits = kind == "f" and np.array_equal(values.astype(dtype), values)
        else:
            fits = whole and np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max
        if fits:
            return np.asarray(values, dtype.newbyteorder("<"), order="C")
    need(False, "PIXEL_FORMAT", f"values up to {high} need more than 63 bits")


def encode_array(element: Mapping, name: str, case: Case, rank: int = 3) -> dict[str, object]:
    """The features of a volume or a picture, as `tfrecord.example` takes them.

        features = encode_array({"image": voxels, "spacing": (2.5, 0.8, 0.8)}, name, case)

    Args:
        element: what a loader gives: `image`, and where there are any `mask`, `spacing` (mm, in
            the order of the axes) and `modality`.
        name: the case's salted hash.
        case: for its label and weight; nothing else of it is used.
        rank: the number of spatial axes where neither spacing nor mask tells it.

    Raises:
        CourseDataError: `NO_GEOMETRY`, `SHAPE_MISMATCH`, `CONSTANT`, `MASK_MISMATCH`,
            `UNKNOWN_LABEL`, `BAD_WEIGHT`, and what `narrowest` refuses.

    Taught in: writing TFRecords
    """
    image, mask = np.asarray(element["image"]), element.get("mask")
    label, weight = case.label, case.weight
    spacing = tuple(float(mm) for mm in element.get("spacing", ()))
    need(all(0 < mm < np.inf for mm in spacing), "NO_GEOMETRY", f"a spacing of {spacing} mm")
    rank = len(spacing) or (rank if mask is None else np.ndim(mask))
    image = image[..., np.newaxis] if image.ndim == rank else image
    found = f"an image of shape {image.shape}, expected {rank} spatial axes"
    need(image.ndim == rank + 1 and image.size, "SHAPE_MISMATCH", found)
    need(image.size == 1 or image.min() != image.max(), "CONSTANT", f"{image.size} equal values")
    need(weight is None or 0 <= weight <= LARGEST_WEIGHT, "BAD_WEIGHT", f"a weight of {weight}")
    image = narrowest(image)
    return _filled(
        ARRAY,
        image,
        image.dtype.name.encode(),
        image.shape,
        name.encode(),
        spacing or None,
        None if mask is None else class_ids(mask, image.shape[:-1]),
        None if label is None else tuple(map(int, np.atleast_1d(label))),
        None if weight is None else (float(weight),),
        (element.get("modality") or "").encode() or None,
    )


def _filled(fields: tuple[Field, ...], *values: object) -> dict[str, object]:
    pairs = zip(fields, values, strict=True)
    return {field.key: value for field, value in pairs if value is not None}


def encode_deeplab(element: Mapping, name: str, case: Case) -> dict[str, object]:
    """The features of a photograph and its mask, key for key as TensorFlow's DeepLab reads them.

    Source: https://github.com/tensorflow/models/tree/master/research/deeplab/datasets

    Args:
        element: `image` is a JPEG or PNG file as bytes, `format` says which, `height` and `width`
            its size in pixels, `mask` class ids `[y, x]`.
        name: the case's salted hash; it stands where DeepLab has the file's name.
        case: not used.

    Raises:
        CourseDataError: `MASK_MISMATCH`, `UNKNOWN_LABEL`.

    Taught in: writing TFRecords
    """
    from PIL import Image

    sides, png = (element["height"], element["width"]), io.BytesIO()
    Image.fromarray(class_ids(element["mask"], sides)).save(png, format="PNG")
    kind, (height, width) = element["format"].encode(), sides
    texts = element["image"], name.encode(), kind
    return _filled(DEEPLAB, *texts, (height,), (width,), (3,), png.getvalue(), b"png")


def class_ids(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask of this shape as uint8 class ids.

    Raises:
        CourseDataError: `MASK_MISMATCH`, `UNKNOWN_LABEL` for what is no whole number up to 255.

    Taught in: writing TFRecords
    """
    ids = narrowest(mask)
    need(ids.shape == shape, "MASK_MISMATCH", f"the mask's shape is {ids.shape}, not {shape}")
    found = f"expected ids from 0 to 255, found {ids.min()} to {ids.max()}"
    need(ids.dtype == np.uint8, "UNKNOWN_LABEL", found)
    return ids


def row(features: Mapping[str, object], element: Mapping) -> dict[str, object]:
    """What the manifest says of one record, from its `features` and the `element` they are made of.

    Of a JPEG or PNG file, the format stands for the dtype.

    Taught in: no lesson; the converter uses it
    """
    if "image/encoded" in features:
        shape = (*features["image/height"], *features["image/width"], 3)
        texts = {"case": "image/filename", "dtype": "image/format"}
        size = len(features["image/encoded"])
    else:
        shape, size = features["image/shape"], features["image"].nbytes
        texts = {"case": "case", "dtype": "image/dtype", "modality": "modality"}
    known = {key: features[name].decode() for key, name in texts.items() if name in features}
    known |= {"shape": "x".join(map(str, shape)), "image_bytes": size}
    for key in {"label", "weight", "spacing"} & features.keys():
        first, *more = features[key]
        known[key] = [first, *more] if more else first
    if element.get("mask") is not None:
        known["voxels"] = voxels_by_id(features.get("mask", np.asarray(element["mask"])))
    return known | ({"notes": list(element["notes"])} if element.get("notes") else {})


def voxels_by_id(mask: np.ndarray) -> dict[str, int]:
    """How many voxels of a mask have each id, without a copy of large ones.

        >>> voxels_by_id(np.array([[0, 2], [2, 2]]))
        {'0': 1, '2': 3}

    Taught in: no lesson; the converter uses it
    """
    # Part by part: bincount makes eight bytes of each id on its way.
    counts = sum(np.bincount(part.reshape(-1), minlength=256) for part in mask)
    return {str(number): int(counts[number]) for number in np.flatnonzero(counts)}


ARRAY = (
    Field("image", "bytes", "raw values in C order, little-endian, narrowest lossless dtype"),
    Field("image/dtype", "bytes", "NumPy's name of that dtype"),
    Field("image/shape", "int64", "[z, y, x, c], or [y, x, c] for a picture"),
    Field("case", "bytes", "salted hash: 16 digits for the patient, 8 for the case"),
    # From here on what a record may lack, but for the label of "classification".
    Field("spacing", "float", "mm between pixel centres, (z, y, x) or (y, x)"),
    Field("mask", "bytes", "uint8 class ids, C order, shape of the image without c"),
    Field("label", "int64", "a class id, or one for each of several labels"),
    Field("weight", "float", "probability weight for sampling"),
    Field("modality", "bytes", "DICOM's term: CT, MR, PT ..."),
)
DEEPLAB = (
    Field("image/encoded", "bytes", "a JPEG or PNG file, without metadata"),
    Field("image/filename", "bytes", "here the case's salted hash, not a file's name"),
    Field("image/format", "bytes", "jpeg or png"),
    Field("image/height", "int64", "pixels"),
    Field("image/width", "int64", "pixels"),
    Field("image/channels", "int64", "3"),
    Field("image/segmentation/class/encoded", "bytes", "PNG of class ids, one channel"),
    Field("image/segmentation/class/format", "bytes", "png"),
)
SCHEMAS = {
    "volume": Schema(ARRAY, encode_array),
    "classification": Schema(ARRAY, functools.partial(encode_array, rank=2)),
    "deeplab": Schema(DEEPLAB, encode_deeplab),
}
