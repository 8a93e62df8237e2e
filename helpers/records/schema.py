"""What a record holds, as data: one table for each kind, and the way into it.

`SCHEMAS["volume"].fields` is the whole truth about a volume's record; the encoder fills these keys
and no others, and the parser asks for them. Nothing that leads to a person has a key here.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from helpers.cases import Case
from helpers.errors import need

# From narrow to wide, all known to tf.io.decode_raw. Integers stay integers.
NARROW = ("uint8", "int16", "uint16", "int32", "float32", "int64", "float64")
# Where a record lacks what others have; these are also the dtypes of elements.
DEFAULTS = {"label": np.int32(-1), "weight": np.float32(1), "spacing": np.float32(0)}
DEFAULTS["modality"] = b""
Encoded = tuple[dict[str, object], dict[str, object]]  # features, and a row of the manifest


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
    encode: Callable[[Mapping, str, Case], Encoded]


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
    kind = values.dtype.kind
    size = values.dtype.itemsize
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


def encode_array(element: Mapping, name: str, case: Case, rank: int = 3) -> Encoded:
    """A volume or a picture, as `tfrecord.example` and the manifest take it.

        features, row = encode_array({"image": voxels, "spacing": (2.5, 0.8, 0.8)}, name, case)

    Args:
        element: what a loader gives: `image`, and where there are any `mask`, `spacing` (mm, in
            the order of the axes), `modality` and `notes`.
        name: the case's salted hash.
        case: for its label and weight; nothing else of it is used.
        rank: the number of spatial axes where neither spacing nor mask tells it.

    Returns:
        The features of the record, and its row in the manifest.

    Raises:
        CourseDataError: `NO_GEOMETRY`, `SHAPE_MISMATCH`, `CONSTANT`, `MASK_MISMATCH`,
            `UNKNOWN_LABEL`, `BAD_WEIGHT`, and what `narrowest` refuses.

    Taught in: writing TFRecords
    """
    image = np.asarray(element["image"])
    mask = element.get("mask")
    spacing = element.get("spacing", ())
    weight = case.weight
    label = case.label
    need(all(0 < mm < np.inf for mm in spacing), "NO_GEOMETRY", f"a spacing of {spacing} mm")
    need(weight is None or 0 <= weight < 1e38, "BAD_WEIGHT", f"a weight of {weight}")
    rank = len(spacing) or (rank if mask is None else np.ndim(mask))
    if image.ndim == rank:
        image = image[..., np.newaxis]
    found = f"an image of shape {image.shape}, expected {rank} spatial axes"
    need(image.ndim == rank + 1 and image.size, "SHAPE_MISMATCH", found)
    need(image.size == 1 or image.min() != image.max(), "CONSTANT", f"{image.size} equal values")
    image = narrowest(image)
    about = {
        "case": name,
        "label": None if label is None else np.asarray(label, int).tolist(),
        "weight": None if weight is None else float(weight),
        "spacing": [float(mm) for mm in spacing] or None,
        "modality": element.get("modality") or None,
    }
    about = {key: value for key, value in about.items() if value is not None}
    dtype = image.dtype.name
    shape = image.shape
    features = about | {"image": image, "image/dtype": dtype, "image/shape": shape}
    row = about | {"shape": _by(shape), "dtype": dtype, "image_bytes": image.nbytes}
    if mask is not None:
        features["mask"] = _ids_like(mask, shape[:-1])
        row["voxels"] = voxels_by_id(features["mask"])
    if element.get("notes"):
        row["notes"] = list(element["notes"])
    return features, row


def _by(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def encode_deeplab(element: Mapping, name: str, case: Case) -> Encoded:
    """A photograph and its mask, key for key as TensorFlow's DeepLab reads them.

    Source: https://github.com/tensorflow/models/tree/master/research/deeplab/datasets

    Args:
        element: `image` is a JPEG or PNG file as bytes, `format` says which, `height` and `width`
            its size in pixels, `mask` class ids `[y, x]`.
        name: the case's salted hash; it stands where DeepLab has the file's name.
        case: not used.

    Returns:
        The features of the record, and its row in the manifest, where the format stands for the
        dtype.

    Raises:
        CourseDataError: `MASK_MISMATCH`, `UNKNOWN_LABEL`.

    Taught in: writing TFRecords
    """
    from PIL import Image

    file, kind, height, width = (element[key] for key in ("image", "format", "height", "width"))
    ids = _ids_like(element["mask"], (height, width))
    png = io.BytesIO()
    Image.fromarray(ids).save(png, format="PNG")
    features = {
        "image/encoded": file,
        "image/filename": name,
        "image/format": kind,
        "image/height": height,
        "image/width": width,
        "image/channels": 3,
        "image/segmentation/class/encoded": png.getvalue(),
        "image/segmentation/class/format": "png",
    }
    shape = _by((height, width, 3))
    row = {"case": name, "shape": shape, "dtype": kind, "image_bytes": len(file)}
    return features, row | {"voxels": voxels_by_id(ids)}


def _ids_like(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask as uint8 class ids, if it has this shape."""
    ids = narrowest(mask)
    need(ids.shape == shape, "MASK_MISMATCH", f"the mask's shape is {ids.shape}, not {shape}")
    need(ids.dtype == np.uint8, "UNKNOWN_LABEL", f"ids from {ids.min()} to {ids.max()}, not 255")
    return ids


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
