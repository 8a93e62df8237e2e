"""The narrowest dtype that loses nothing, and what a record of each kind holds."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.records import SCHEMAS, narrowest, schema
from tests.records_cases import case, ending, photograph

LADDER = ("uint8", "int16", "uint16", "int32", "float32", "int64", "float64")
NAME = "0123456789abcdef-01234567"
IMAGE = np.arange(60).reshape(3, 4, 5) - 7
KINDS = ("?", "u1", "i1", "<u2", ">i2", "<i4", ">u4", ">i8", "<u8", "<f2", ">f4", "<f8")
BORDERS = [s * (2**bits + more) for bits in (0, 7, 8, 15, 16, 24, 31, 32, 53, 62)
           for more in (-1, 0, 1) for s in (-1, 1)]  # fmt: skip


def holds(dtype: str, values: np.ndarray) -> bool:
    """Whether a dtype holds each of the values, by Python's own numbers."""
    numbers = values.ravel().tolist()
    if dtype.startswith("float"):
        with np.errstate(over="ignore"):
            return all(float(np.dtype(dtype).type(float(n))) == n for n in numbers)
    limits = np.iinfo(dtype)
    return all(n == int(n) and limits.min <= n <= limits.max for n in numbers)


@st.composite
def anything_real(draw) -> np.ndarray:
    """Numbers near the borders of the dtypes, in any layout and byte order."""
    dtype = np.dtype(draw(st.sampled_from(KINDS)))
    with np.errstate(all="ignore"):
        numbers = draw(st.lists(st.sampled_from([*BORDERS, 0.5, 1e-3]), min_size=6, max_size=6))
        values = np.array(numbers, float).astype(dtype).reshape(2, 3).T
    return values if dtype.kind != "f" or np.isfinite(values).all() else np.zeros(2, dtype)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(anything_real())
@example(np.array([0.0, 2.0**32], ">f4"))
@example(np.array([1.0, 2.0**53 - 1], "<f8"))
@example(np.array([1.0, 2.0**31 - 1], "<f8"))
@example(np.array([1.0, 2.0**31], "<f4"))
@example(np.array([65504, 1], "<f2"))
@example(np.array([0.1, 1e300]))
@example(np.zeros((0, 2), ">f8"))
@example(np.arange(24, dtype=">i2").reshape(2, 3, 4)[:, ::-1].transpose(2, 0, 1))
def test_the_same_numbers_come_out_in_the_narrowest_dtype(values):
    if values.dtype.kind == "u" and int(values.max()) > 2**63 - 1:
        assert ending(narrowest, values) == "PIXEL_FORMAT"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = narrowest(values)
    assert found.shape == values.shape and found.tolist() == values.tolist()
    assert found.flags.c_contiguous and found.dtype.name in LADDER
    assert found.tobytes() == found.astype(found.dtype.newbyteorder("<")).tobytes()
    # Whole numbers stay integers unless floating point is narrower.
    ladder = [name for name in LADDER if values.dtype.kind == "f" or "float" not in name]
    narrower = [name for name in ladder if np.dtype(name).itemsize < found.itemsize]
    assert not any(holds(name, values) for name in narrower)
    if holds("int32", values):
        assert found.dtype.name == next(name for name in LADDER if holds(name, values))


def test_each_integer_dtype_reaches_to_its_borders():
    rows = [(0, 255, "uint8"), (0, 256, "int16"), (-1, 0, "int16"), (-32768, 32767, "int16"),
            (0, 32768, "uint16"), (0, 65535, "uint16"), (-1, 32768, "int32"), (0, 65536, "int32"),
            (-(2**31), 2**31 - 1, "int32"), (0, 2**31, "int64"),
            (-(2**63), 2**63 - 1, "int64")]  # fmt: skip
    found = [narrowest(np.array([low, high])).dtype.name for low, high, _ in rows]
    assert found == [dtype for _, _, dtype in rows]
    small = rows[:8]
    found = [narrowest(np.array([low, high], float)).dtype.name for low, high, _ in small]
    assert found == [dtype for _, _, dtype in small]


def test_what_no_record_can_hold_is_refused_by_name():
    mask, weight = np.zeros(IMAGE.shape), {"weight": float("nan")}
    element = {"image": IMAGE}
    rows = [
        (narrowest, [np.array([1, np.nan])], "NOT_FINITE"),
        (narrowest, [np.array([1, -np.inf], "f2")], "NOT_FINITE"),
        (narrowest, [np.array([1j])], "PIXEL_FORMAT"),
        (narrowest, [np.array(["1"])], "PIXEL_FORMAT"),
        (narrowest, [np.array([None])], "PIXEL_FORMAT"),
        (narrowest, [np.array([0, 2**63], np.uint64)], "PIXEL_FORMAT"),
        ("volume", {"image": np.full((3, 4, 5), 7)}, "CONSTANT"),
        ("volume", {"image": np.full((3, 4, 5), np.nan)}, "NOT_FINITE"),
        ("volume", {"image": IMAGE[0]}, "SHAPE_MISMATCH"),
        ("volume", {"image": IMAGE[:0]}, "SHAPE_MISMATCH"),
        ("classification", {"image": IMAGE[..., None]}, "SHAPE_MISMATCH"),
        ("volume", element | {"spacing": (1, 1)}, ""),  # [y, x, c]
        ("volume", element | {"spacing": (1.0, 0.0, 1.0)}, "NO_GEOMETRY"),
        ("volume", element | {"spacing": (1.0, np.inf, 1.0)}, "NO_GEOMETRY"),
        ("volume", element | {"mask": mask[:2]}, "MASK_MISMATCH"),
        ("volume", element | {"mask": mask + 0.5}, "UNKNOWN_LABEL"),
        ("volume", element | {"mask": mask - 1}, "UNKNOWN_LABEL"),
        ("volume", element | {"mask": mask + 256}, "UNKNOWN_LABEL"),
        ("volume", element | {"mask": mask + np.nan}, "NOT_FINITE"),
        ("volume", element | {"mask": mask.astype("f4") + 255}, ""),
        ("volume", (element, weight), "BAD_WEIGHT"),
        ("volume", (element, {"weight": -1.0}), "BAD_WEIGHT"),
        ("volume", (element, {"weight": 1e39}), "BAD_WEIGHT"),
        ("deeplab", photograph(0) | {"height": 13}, "MASK_MISMATCH"),
        ("deeplab", photograph(0) | {"mask": np.full((12, 9), 0.5)}, "UNKNOWN_LABEL"),
    ]
    wrong = []
    for what, element, code in rows:
        if callable(what):
            found = ending(what, *element)
        else:
            element, changes = element if isinstance(element, tuple) else (element, {})
            found = ending(SCHEMAS[what].encode, element, NAME, case(1, **changes))
        if found != code:
            wrong.append((what, element, code, found))
    assert not wrong


@pytest.mark.parametrize("several", [(1, -1), np.int64(2), 2])
def test_a_volume_has_these_features_and_no_others(several):
    element = {"image": IMAGE.astype(">f8"), "spacing": (2.5, 1, 0.5), "mask": IMAGE > 3}
    element |= {"modality": "MR", "notes": ("turned",), "patient": "Jane"}
    features = schema.encode_array(element, NAME, case(3, label=several))
    assert features["image"].tobytes() == IMAGE.astype("<i2").tobytes()
    assert features["mask"].tobytes() == (IMAGE > 3).tobytes()
    rest = {key: value for key, value in features.items() if key not in ("image", "mask")}
    assert rest == {
        "image/dtype": b"int16", "image/shape": (3, 4, 5, 1), "case": NAME.encode(),
        "spacing": (2.5, 1.0, 0.5), "modality": b"MR", "weight": (0.75,),
        "label": several if isinstance(several, tuple) else (2,),
    }  # fmt: skip
    known = schema.row(features, element)
    many = list(several) if isinstance(several, tuple) else 2
    inside = int((IMAGE > 3).sum())
    assert known == {
        "case": NAME, "shape": "3x4x5x1", "dtype": "int16", "image_bytes": 120, "label": many,
        "weight": 0.75, "spacing": [2.5, 1.0, 0.5], "modality": "MR", "notes": ["turned"],
        "voxels": {"0": 60 - inside, "1": inside},
    }  # fmt: skip
    keys = {field.key for field in SCHEMAS["volume"].fields}
    assert keys == set(features)
    bare = schema.encode_array({"image": IMAGE}, NAME, case(0, label=None))
    assert set(bare) == {"image", "image/dtype", "image/shape", "case"}


def test_a_deeplab_record_has_the_public_keys_and_the_photograph_as_it_was():
    given = photograph(1)
    features = SCHEMAS["deeplab"].encode(given, NAME, case(1))
    assert [field.key for field in SCHEMAS["deeplab"].fields] == list(features)
    png = features.pop("image/segmentation/class/encoded")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), given["mask"])
    assert features == {
        "image/encoded": given["image"], "image/filename": NAME.encode(), "image/format": b"jpeg",
        "image/height": (13,), "image/width": (9,), "image/channels": (3,),
        "image/segmentation/class/format": b"png",
    }  # fmt: skip
    known = schema.row(features, given)
    assert (known["shape"], known["dtype"]) == ("13x9x3", "jpeg")
    assert sum(known["voxels"].values()) == 13 * 9 and set(known["voxels"]) == {"0", "1", "255"}


def test_many_voxels_are_counted_in_parts_without_a_loss():
    mask = np.random.default_rng(0).integers(0, 256, (7, 11, 13)).astype(np.uint8)
    expected = {i: int((mask == i).sum()) for i in range(256) if (mask == i).any()}
    assert {int(i): n for i, n in schema.voxels_by_id(mask).items()} == expected
