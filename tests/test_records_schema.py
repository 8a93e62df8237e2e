"""The narrowest dtype that loses nothing, and what a record of each kind holds."""

import io
import warnings

import numpy as np
from PIL import Image

from helpers import records
from tests.records_cases import as_given, case, ending, given, name_of, photograph, write

LADDER = ("uint8", "int16", "uint16", "int32", "float32", "int64", "float64")
KINDS = ("?", "u1", "i1", "<u2", ">i2", "<i4", ">u4", ">i8", "<u8", "<f2", ">f4", "<f8")
BORDERS = [sign * (2**bits + more) for bits in (0, 7, 8, 15, 16, 24, 31, 32, 53, 62, 63)
           for more in (-1, 0, 1) for sign in (-1, 1)]  # fmt: skip
IMAGE = np.arange(60).reshape(3, 4, 5) - 7


def held(values: np.ndarray, dtype: str) -> bool:
    """Whether NumPy gives back the same numbers, as Python compares them."""
    return values.astype(dtype).tolist() == values.tolist()


def test_the_same_numbers_come_out_in_the_narrowest_dtype():
    wrong, seen = [], set()
    for kind in map(np.dtype, KINDS):
        whole = [n for n in BORDERS if kind.kind in "bf" or n in range(*limits(kind))]
        for n in whole + [0.5, 0.1, 65504, 1e300] * (kind.kind == "f"):
            with np.errstate(all="ignore"):
                values = np.array([[0, n, 1], [1, n, 0]], kind).T
                names = [name for name in LADDER if kind.kind == "f" or "float" not in name]
                expected = next((name for name in names if held(values, name)), "PIXEL_FORMAT")
            if not np.isfinite(values).all():
                expected = "NOT_FINITE"
            with warnings.catch_warnings(action="error"):
                found = ending(records.narrowest, values) or records.narrowest(values)
            seen.add(expected)
            if isinstance(found, np.ndarray):
                assert found.shape == (3, 2) and found.tolist() == values.tolist()
                assert found.flags.c_contiguous and found.dtype.str[0] in "<|"
                found = found.dtype.name
            if found != expected:
                wrong.append((kind, n, expected, found))
    assert not wrong and seen == {*LADDER, "PIXEL_FORMAT", "NOT_FINITE"}
    empty = records.narrowest(np.zeros((0, 2), ">f8"))
    assert empty.shape == (0, 2) and empty.dtype == np.uint8
    for bad in ([1j], ["1"], [None]):
        assert ending(records.narrowest, np.array(bad)) == "PIXEL_FORMAT"


def limits(kind: np.dtype) -> tuple[int, int]:
    return np.iinfo(kind).min, np.iinfo(kind).max + 1


def test_what_no_record_can_hold_is_refused_by_name(tmp_path):
    mask, masked = np.zeros(IMAGE.shape), {"image": IMAGE}
    rows = [
        ("volume", {"image": np.full((3, 4, 5), 7)}, "CONSTANT"),
        ("volume", {"image": np.where(IMAGE == 2, np.nan, 0)}, "NOT_FINITE"),
        ("volume", {"image": np.where(IMAGE == 2, -np.inf, 0)}, "NOT_FINITE"),
        ("volume", {"image": IMAGE[0]}, "SHAPE_MISMATCH"),
        ("volume", {"image": IMAGE[:0]}, "SHAPE_MISMATCH"),
        ("volume", {"image": IMAGE, "spacing": (1, 1)}, ""),  # [y, x, c]
        ("volume", {"image": IMAGE, "spacing": (1.0, 0.0, 1.0)}, "NO_GEOMETRY"),
        ("volume", {"image": IMAGE, "spacing": (1.0, np.inf, 1.0)}, "NO_GEOMETRY"),
        ("volume", masked | {"mask": mask[:2]}, "MASK_MISMATCH"),
        ("volume", masked | {"mask": mask + 0.5}, "UNKNOWN_LABEL"),
        ("volume", masked | {"mask": mask - 1}, "UNKNOWN_LABEL"),
        ("volume", masked | {"mask": mask + 256}, "UNKNOWN_LABEL"),
        ("volume", masked | {"mask": mask + np.nan}, "NOT_FINITE"),
        ("volume", masked | {"mask": mask.astype("f4") + 255}, ""),
        ("classification", {"image": IMAGE}, ""),
        ("classification", {"image": IMAGE[..., None]}, "SHAPE_MISMATCH"),
        ("deeplab", photograph(0), ""),
        ("deeplab", photograph(0) | {"height": 13}, "MASK_MISMATCH"),
        ("deeplab", photograph(0) | {"mask": np.full((12, 9), 0.5)}, "UNKNOWN_LABEL"),
    ]
    weights = {float("nan"): "BAD_WEIGHT", -1.0: "BAD_WEIGHT", 1e39: "BAD_WEIGHT", 0.0: ""}
    rows = [(*row, None) for row in rows]
    rows += [("volume", masked, code, weight) for weight, code in weights.items()]
    options = {"survey": lambda case: frozenset(), "classes": [*map(str, range(256))]}
    wrong = []
    for schema in records.SCHEMAS:
        mine = [row for row in rows if row[0] == schema]
        made = [case(n, source=row[1], weight=row[3], label=1) for n, row in enumerate(mine)]
        written = write(tmp_path / schema, tuple(made), as_given, schema=schema, **options)
        codes = {one.files: one.code for one in written.rejected}
        told = [codes.get(one.files, "") for one in made]
        wrong += [(row, code) for row, code in zip(mine, told, strict=True) if row[2] != code]
    assert not wrong


def stored(tf, folder) -> list[dict]:
    """The features of each record, as protocol buffers have them."""
    found = []
    for line in tf.data.TFRecordDataset(sorted(map(str, folder.glob("*.tfrecord")))):
        features = tf.train.Example.FromString(line.numpy()).features.feature
        lists = {key: getattr(one, one.WhichOneof("kind")) for key, one in features.items()}
        found.append({key: list(one.value) for key, one in lists.items()})
    return found


def test_a_record_has_these_features_and_no_others(tf, tmp_path):
    full = {"image": IMAGE.astype(">f8"), "spacing": (2.5, 1, 0.5), "mask": IMAGE > 3}
    full |= {"modality": "MR", "notes": ("turned",), "patient": "Jane"}
    elements = [full, full, {"image": IMAGE, "mask": None}]
    for label in ((1, -1), np.int64(2), 2):
        about = [{"label": label, "weight": 0.75}] * 2 + [{}]
        folder = given(tmp_path / repr(label), elements, about, survey=lambda case: {0, 1})
        image, values = {"image/dtype": [b"int16"], "image/shape": [3, 4, 5, 1]}, np.ravel(label)
        image["image"] = [IMAGE.astype("<i2").tobytes()]
        rest = {"mask": [(IMAGE > 3).tobytes()], "modality": [b"MR"], "weight": [0.75],
                "spacing": [2.5, 1, 0.5], "label": values.tolist()}  # fmt: skip
        expected = [image | rest, image | rest, image]
        by_name = {one.pop("case")[0]: one for one in stored(tf, folder)}
        assert by_name == {name_of(case(n)).encode(): one for n, one in enumerate(expected)}
    keys = {field.key for field in records.SCHEMAS["volume"].fields}
    assert keys == {*image, *rest, "case"}


def test_a_deeplab_record_has_the_public_keys_and_the_photograph_as_it_was(tf, tmp_path):
    photo, classes = photograph(1), {0: "skin", 1: "lesion", 255: "ignored"}
    (found,) = stored(tf, given(tmp_path, [photo], schema="deeplab", classes=classes))
    assert found.keys() == {field.key for field in records.SCHEMAS["deeplab"].fields}
    png = found.pop("image/segmentation/class/encoded")[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), photo["mask"])
    assert found == {
        "image/encoded": [photo["image"]], "image/filename": [name_of(case(0)).encode()],
        "image/format": [b"jpeg"], "image/height": [13], "image/width": [9],
        "image/channels": [3], "image/segmentation/class/format": [b"png"],
    }  # fmt: skip
