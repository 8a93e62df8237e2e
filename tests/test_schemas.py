"""The narrowest dtype that loses nothing, and what a record of each kind holds."""

import io
import re
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.records import IGNORE, SCHEMAS, narrowest
from tests.records_cases import case

many = settings(max_examples=300, deadline=None, derandomize=True)
INTEGERS = ("?", "u1", "i1", "<u2", ">i2", "<i4", ">u4", ">i8", "<u8")
FLOATS = ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8")
LADDER = ("uint8", "int16", "uint16", "int32", "float32", "int64", "float64")
NAME = "0123456789abcdef-01234567"


def code_of(call, *arguments) -> str:
    with pytest.raises(CourseDataError) as refused:
        call(*arguments)
    return refused.value.code


def holds(dtype: str, values: np.ndarray) -> bool:
    """Whether a dtype holds each of the values, by Python's own numbers."""
    numbers = values.ravel().tolist()
    if dtype.startswith("float"):
        with np.errstate(over="ignore"):
            return all(
                abs(number) < 2**1024 and float(np.dtype(dtype).type(float(number))) == number
                for number in numbers
            )
    limits = np.iinfo(dtype)
    return all(number == int(number) and limits.min <= number <= limits.max for number in numbers)


BORDERS = sorted(
    sign * (2**bits + more)
    for bits in (0, 7, 8, 11, 15, 16, 24, 31, 32, 53, 62, 63)
    for more in (-1, 0, 1)
    for sign in (-1, 1)
)


@st.composite
def anything_real(draw) -> np.ndarray:
    """Numbers near the borders of the dtypes, in any layout and byte order."""
    dtype = np.dtype(draw(st.sampled_from(INTEGERS + FLOATS)))
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        some = [number for number in BORDERS if limits.min <= number <= limits.max]
        elements = st.one_of(st.sampled_from(some), arrays.from_dtype(dtype))
    elif dtype.kind == "f":
        border = st.sampled_from(
            [float(n) for n in BORDERS if abs(n) <= float(np.finfo(dtype).max)]
        )
        number = st.floats(width=8 * dtype.itemsize, allow_nan=False, allow_infinity=False)
        half = st.sampled_from([0.5, -0.0, 1.5])
        elements = st.one_of(border.map(lambda n: float(dtype.type(n))), number, half)
    else:
        elements = st.booleans()
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    values = draw(arrays.arrays(dtype, shape, elements=elements))
    values = values.transpose(draw(st.permutations(range(values.ndim))))
    return values[::-1] if values.ndim and draw(st.booleans()) else values


@many
@given(anything_real())
@example(np.array([0.0, 2.0**32], ">f4"))
@example(np.array([0.0, 2.0**53], "<f8"))
@example(np.array([1.0, 2.0**53 - 1], "<f8"))
@example(np.array([1.0, -(2.0**53)], "<f8"))
@example(np.array([1.0, 2.0**31 - 1], "<f8"))
@example(np.array([1.0, -(2.0**31) + 1], "<f8"))
@example(np.array([-(2.0**31), 2.0**31 - 1], "<f8"))
@example(np.array([2.0**24 + 1, 2.0**63]))
@example(np.array([65504, 1], "<f2"))
@example(np.array([0.1, 1e300]))
@example(np.array([1e-50]))
@example(np.array([-0.0, 3.0]))
@example(np.arange(24, dtype=">i2").reshape(2, 3, 4)[:, ::-1].transpose(2, 0, 1))
def test_the_same_numbers_come_out_in_the_narrowest_dtype(values):
    if values.dtype.kind == "u" and values.size and int(values.max()) > 2**63 - 1:
        assert code_of(narrowest, values) == "PIXEL_FORMAT"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = narrowest(values)
    assert np.array_equal(found, values)
    assert found.shape == values.shape
    assert found.tolist() == values.tolist()
    assert found.flags.c_contiguous
    little = found.astype(found.dtype.newbyteorder("<"))
    assert found.tobytes() == little.tobytes()
    assert found.dtype.name in LADDER and found.dtype == np.dtype(found.dtype.name)
    # Whole numbers stay integers unless floating point is narrower.
    ladder = [name for name in LADDER if values.dtype.kind == "f" or "float" not in name]
    narrower = [name for name in ladder if np.dtype(name).itemsize < found.itemsize]
    assert not any(holds(name, values) for name in narrower)
    lowest = values.dtype.kind == "f" and -(2**31) in values.ravel().tolist()
    if holds("int32", values) and not lowest:  # else float32 may be just as narrow
        assert found.dtype.kind in "iu"
        assert found.dtype.name == next(name for name in LADDER if holds(name, values))


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 255, "uint8"),
        (0, 256, "int16"),
        (-1, 0, "int16"),
        (-32768, 32767, "int16"),
        (0, 32768, "uint16"),
        (0, 65535, "uint16"),
        (-1, 32768, "int32"),
        (0, 65536, "int32"),
        (-(2**31), 2**31 - 1, "int32"),
        (0, 2**31, "int64"),
        (-(2**63), 2**63 - 1, "int64"),
    ],
)
def test_each_integer_dtype_reaches_to_its_borders(low, high, dtype):
    assert narrowest(np.array([low, high])).dtype == dtype
    if abs(low) < 2**31 and high < 2**31:
        assert narrowest(np.array([low, high], float)).dtype == dtype


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_how_many_there_are(dtype, bad):
    values = np.array([[1, bad, 2], [bad, 3, 4]], dtype)
    with pytest.raises(CourseDataError, match="2 of 6 values") as refused:
        narrowest(values)
    assert refused.value.code == "NOT_FINITE"


@pytest.mark.parametrize(
    "values",
    [
        np.array([1j]),
        np.array(["1"]),
        np.array([None]),
        np.array(["2020-01-01"], "M8[D]"),
        np.zeros(2, [("a", "u1")]),
        np.array([0, 2**63], np.uint64),
        pytest.param(
            np.array([1.5], np.longdouble),
            marks=pytest.mark.skipif(np.longdouble(0).itemsize == 8, reason="as wide as a double"),
        ),
    ],
)
def test_numbers_that_no_stored_dtype_holds_are_refused(values):
    assert code_of(narrowest, values) == "PIXEL_FORMAT"


# What a record holds

IMAGE = np.arange(60).reshape(3, 4, 5) - 7


def volume(**element) -> dict:
    return SCHEMAS["volume"].encode({"image": IMAGE} | element, NAME, case(3, label=None))


def test_a_volume_has_these_features_and_no_others():
    mask = (IMAGE > 20).astype(bool)
    made = SCHEMAS["volume"].encode(
        {"image": IMAGE, "spacing": (2, 0.5, 0.7), "mask": mask, "modality": "CT", "name": "Jane"},
        NAME,
        case(3, label=(0, 2), weight=np.float64(0.25)),
    )
    image, ids = made.pop("image"), made.pop("mask")
    np.testing.assert_array_equal(image, IMAGE[..., np.newaxis])
    np.testing.assert_array_equal(ids, mask)
    assert (image.dtype, ids.dtype, ids.shape) == (np.int16, np.uint8, IMAGE.shape)
    assert made == {
        "image/dtype": b"int16",
        "image/shape": (3, 4, 5, 1),
        "spacing": (2.0, 0.5, 0.7),
        "modality": b"CT",
        "label": (0, 2),
        "weight": (0.25,),
        "case": NAME.encode(),
    }


def test_what_is_not_known_has_no_feature():
    unknown = Case("a", 0)
    made = SCHEMAS["volume"].encode({"image": IMAGE, "mask": None}, NAME, unknown)
    assert sorted(made) == ["case", "image", "image/dtype", "image/shape"]
    zeros = SCHEMAS["volume"].encode({"image": IMAGE}, NAME, case(3, label=0, weight=0.0))
    assert (zeros["label"], zeros["weight"]) == ((0,), (0.0,))


@pytest.mark.parametrize(
    ("schema", "shape", "more", "stored"),
    [
        ("volume", (3, 4, 5), {}, (3, 4, 5, 1)),
        ("volume", (3, 4, 5, 2), {}, (3, 4, 5, 2)),
        ("volume", (4, 5), {"spacing": (1, 1)}, (4, 5, 1)),
        ("volume", (4, 5, 3), {"spacing": (1, 1)}, (4, 5, 3)),
        ("volume", (4, 5, 3), {"spacing": (1, 1, 1)}, (4, 5, 3, 1)),
        ("volume", (4, 5), {"mask": np.ones((4, 5), int)}, (4, 5, 1)),
        ("volume", (4, 5, 3), {"mask": np.ones((4, 5), int)}, (4, 5, 3)),
        ("volume", (4, 5, 3), {"mask": np.ones((4, 5, 3), int)}, (4, 5, 3, 1)),
        ("classification", (4, 5), {}, (4, 5, 1)),
        ("classification", (4, 5, 3), {}, (4, 5, 3)),
        ("classification", (3, 4, 5), {"spacing": (1, 1, 1)}, (3, 4, 5, 1)),
        ("volume", (1, 1, 1), {}, (1, 1, 1, 1)),
    ],
)
def test_spacing_or_mask_tells_how_many_axes_are_spatial(schema, shape, more, stored):
    image = np.arange(np.prod(shape)).reshape(shape)
    made = SCHEMAS[schema].encode({"image": image} | more, NAME, case(1))
    assert made["image/shape"] == made["image"].shape == stored


@pytest.mark.parametrize(
    ("schema", "shape", "more"),
    [
        ("volume", (4, 5), {}),
        ("volume", (3, 4, 5, 2, 1), {}),
        ("volume", (3, 0, 5), {}),
        ("volume", (3, 4, 5, 0), {}),
        ("volume", (3, 4, 5), {"spacing": (1.0,)}),
        ("volume", (4, 5), {"spacing": (1, 1, 1)}),
        ("classification", (5,), {}),
        ("classification", (3, 4, 5, 1), {}),
    ],
)
def test_an_image_of_other_axes_is_refused(schema, shape, more):
    image = np.arange(np.prod(shape)).reshape(shape)
    assert code_of(SCHEMAS[schema].encode, {"image": image} | more, NAME, case(1)) == (
        "SHAPE_MISMATCH"
    )


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, np.nan), (np.inf, 1, 1)])
def test_an_impossible_spacing_is_refused(spacing):
    assert code_of(lambda: volume(spacing=spacing)) == "NO_GEOMETRY"


@pytest.mark.parametrize("value", [0, -1000, 0.5, 255])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 2), (3, 4, 5, 2)])
def test_an_image_of_one_value_is_refused(value, shape):
    assert code_of(lambda: volume(image=np.full(shape, value))) == "CONSTANT"


def test_one_voxel_that_differs_is_enough():
    for position in (0, 59):
        image = np.zeros((3, 4, 5))
        image.flat[position] = 1e-9
        assert volume(image=image)["image/dtype"] in (b"float32", b"float64")


def test_an_image_of_nothing_but_nan_is_not_finite_rather_than_constant():
    assert code_of(lambda: volume(image=np.full((3, 4, 5), np.nan))) == "NOT_FINITE"


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5, 1), (4, 3, 5), (60,)])
def test_a_mask_of_another_shape_is_refused(shape):
    mask = np.zeros(shape, np.uint8)
    assert code_of(lambda: volume(mask=mask, spacing=(1, 1, 1))) == "MASK_MISMATCH"


def test_a_mask_may_have_any_dtype_as_long_as_its_ids_are_whole_and_fit():
    for dtype in ("bool", ">i4", "uint64", "float16", "float64"):
        mask = (IMAGE > 0).astype(dtype)
        np.testing.assert_array_equal(volume(mask=mask)["mask"], IMAGE > 0)
    assert volume(mask=np.where(IMAGE > 0, IGNORE, 0))["mask"].max() == 255


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (-1, "UNKNOWN_LABEL"),
        (256, "UNKNOWN_LABEL"),
        (0.5, "UNKNOWN_LABEL"),
        (np.nan, "NOT_FINITE"),
        (1j, "PIXEL_FORMAT"),
    ],
)
def test_ids_that_are_none_are_refused_instead_of_wrapped(wrong, code):
    # NumPy makes 255, 0, 0 and 0 of them without a word.
    mask = np.zeros(IMAGE.shape, np.asarray(wrong).dtype)
    mask[1, 2, 3] = wrong
    assert code_of(lambda: volume(mask=mask)) == code


# DeepLab


def deeplab(**element) -> dict:
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2:4] = 1, IGNORE
    known = {"image": b"\xff\xd8 as it is", "format": "jpeg", "height": 4, "width": 6, "mask": mask}
    return SCHEMAS["deeplab"].encode(known | element, NAME, case(1))


def test_a_deeplab_record_has_the_public_keys_and_the_photograph_as_it_was():
    made = deeplab()
    png = made.pop("image/segmentation/class/encoded")
    assert made == {
        "image/encoded": b"\xff\xd8 as it is",
        "image/filename": NAME.encode(),
        "image/format": b"jpeg",
        "image/height": (4,),
        "image/width": (6,),
        "image/channels": (3,),
        "image/segmentation/class/format": b"png",
    }
    with Image.open(io.BytesIO(png)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (6, 4))
        np.testing.assert_array_equal(np.asarray(picture)[1], [0, 0, 1, IGNORE, 0, 0])


def test_a_deeplab_mask_of_another_size_or_of_no_ids_is_refused():
    assert code_of(lambda: deeplab(height=6, width=4)) == "MASK_MISMATCH"
    assert code_of(lambda: deeplab(mask=np.full((4, 6), 300))) == "UNKNOWN_LABEL"


# Schemas as data


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_lists_every_key_that_its_records_can_have(name):
    schema = SCHEMAS[name]
    mask = np.zeros((3, 4, 5), int)
    full = {"image": IMAGE, "mask": mask, "spacing": (1, 1, 1), "modality": "CT"}
    made = deeplab() if name == "deeplab" else schema.encode(full, NAME, case(1))
    assert set(made) == {field.key for field in schema.fields}
    kinds = {"bytes": (bytes, np.ndarray), "int64": (int,), "float": (float,)}
    for field in schema.fields:
        value = made[field.key]
        one = value[0] if isinstance(value, tuple) else value
        assert isinstance(one, kinds[field.kind]), field.key
    least = {"image": IMAGE} if name == "volume" else {"image": IMAGE[0]}
    if name != "deeplab":
        label = 1 if name == "classification" else None
        made = schema.encode(least, NAME, Case("a", 0, label=label))
        assert set(made) == {field.key for field in schema.fields if field.required}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_says_what_it_holds_when_it_is_printed(name):
    keys = ", ".join(field.key for field in SCHEMAS[name].fields)
    assert repr(SCHEMAS[name]) == f"Schema('{name}': {keys})"
    assert not re.search("0x|patient|uid", repr(SCHEMAS[name]).lower())
