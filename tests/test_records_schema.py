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
MASK = np.zeros(IMAGE.shape)


def numbers(kind: str) -> list:
    """Those near the borders of all dtypes that this one can say."""
    if np.dtype(kind).kind in "iu":
        return [n for n in BORDERS if np.iinfo(kind).min <= n <= np.iinfo(kind).max]
    return [0, 1] if kind == "?" else [*BORDERS, 0.5, 0.1, 65504, 1e300]


def test_the_same_numbers_come_out_in_the_narrowest_dtype():
    wrong, seen = [], set()
    for one, n in [(kind, n) for kind in KINDS for n in numbers(kind)]:
        with np.errstate(all="ignore"):
            values = np.array([[0, n, 1], [1, n, 0]], one).T
            # NumPy gives back the same numbers, as Python compares them; integers stay integers.
            held = [name for name in LADDER if ("f" in one or "float" not in name)
                    and values.astype(name).tolist() == values.tolist()]  # fmt: skip
        code = "PIXEL_FORMAT" if np.isfinite(values).all() else "NOT_FINITE"
        with warnings.catch_warnings(action="error"):
            if not held or code == "NOT_FINITE":
                found, expected = ending(records.narrowest, values), code
            else:
                made = records.narrowest(values)
                found = (made.dtype.name, made.dtype.str[0] in "<|", made.flags.c_contiguous)
                found, expected = (*found, made.tolist()), (held[0], True, True, values.tolist())
        seen.add(expected[0] if held else code)
        if found != expected:
            wrong.append((one, n, expected, found))
    assert not wrong and seen >= {*LADDER, "PIXEL_FORMAT"}
    assert records.narrowest(np.zeros((0, 2), ">f8")).shape == (0, 2)
    for bad in ([1j], ["1"], [None]):
        assert ending(records.narrowest, np.array(bad)) == "PIXEL_FORMAT"


REFUSED = {
    "volume": [
        ({"image": np.full((3, 4, 5), 7)}, "CONSTANT"),
        ({"image": np.where(IMAGE == 2, np.nan, IMAGE)}, "NOT_FINITE"),
        ({"image": IMAGE[0]}, "SHAPE_MISMATCH"),
        ({"image": IMAGE[:0]}, "SHAPE_MISMATCH"),
        ({"spacing": (1, 1)}, ""),  # [y, x, c]
        ({"spacing": (1.0, 0.0, 1.0)}, "NO_GEOMETRY"),
        ({"spacing": (1.0, np.inf, 1.0)}, "NO_GEOMETRY"),
        ({"mask": MASK[:2]}, "MASK_MISMATCH"),
        ({"mask": MASK + 0.5}, "UNKNOWN_LABEL"),
        ({"mask": MASK - 1}, "UNKNOWN_LABEL"),
        ({"mask": MASK + 256}, "UNKNOWN_LABEL"),
        ({"mask": MASK + np.nan}, "NOT_FINITE"),
        ({"mask": MASK.astype("f4") + 255}, ""),
        ({"mask": MASK + 254}, "UNKNOWN_LABEL"),  # has no name, and the survey has not shown it
        *[({"weight": weight}, "BAD_WEIGHT") for weight in (np.nan, -1.0, 1e39)],
    ],
    "classification": [({}, ""), ({"image": IMAGE[..., None]}, "SHAPE_MISMATCH")],
    "deeplab": [
        (photograph(0), ""),
        (photograph(0) | {"height": 13}, "MASK_MISMATCH"),
        (photograph(0) | {"mask": np.full((12, 9), 0.5)}, "UNKNOWN_LABEL"),
    ],
}


def test_what_no_record_can_hold_is_refused_by_name(tmp_path):
    options = {"classes": dict.fromkeys([*range(254), 255], "")}
    wrong = []
    for schema, rows in REFUSED.items():
        made = [case(n, source={"image": IMAGE} | one, weight=one.get("weight"))
                for n, (one, _) in enumerate(rows)]  # fmt: skip
        written = write(tmp_path / schema, tuple(made), as_given, schema=schema, **options)
        codes = {one.files: one.code for one in written.rejected}
        told = [codes.get(one.files, "") for one in made]
        wrong += [(row, code) for row, code in zip(rows, told, strict=True) if row[1] != code]
    assert not wrong


def test_a_record_has_these_features_and_no_others(tf, tmp_path):
    full = {"image": IMAGE.astype(">f8"), "spacing": (2.5, 1, 0.5), "mask": IMAGE > 3}
    full |= {"modality": "MR", "notes": ("turned",), "patient": "Jane"}
    about, photo = {"label": np.int64(2), "weight": 0.75}, photograph(1)
    name = name_of(case(0)).encode()
    bare = {"image": [IMAGE.astype("<i2").tobytes()], "image/dtype": [b"int16"],
            "image/shape": [3, 4, 5, 1], "case": [name]}  # fmt: skip
    rest = {"mask": [(IMAGE > 3).tobytes()], "modality": [b"MR"], "spacing": [2.5, 1, 0.5],
            "weight": [0.75], "label": [2]}  # fmt: skip
    file = {"image/encoded": [photo["image"]], "image/format": [b"jpeg"], "image/height": [13],
            "image/width": [9], "image/channels": [3], "image/filename": [name],
            "image/segmentation/class/format": [b"png"]}  # fmt: skip
    rows = [("volume", full, about, bare | rest), ("volume", {"image": IMAGE}, {}, bare),
            ("deeplab", photo, {}, file)]  # fmt: skip
    options = {"classes": {0: "a", 1: "b", 2: "c", 255: "d"}}
    for n, (schema, element, more, expected) in enumerate(rows):
        folder = given(tmp_path / str(n), [element], [more], schema=schema, **options)
        (line,) = tf.data.TFRecordDataset(*map(str, folder.glob("*.tfrecord")))
        features = tf.train.Example.FromString(line.numpy()).features.feature
        found = {key: getattr(one, one.WhichOneof("kind")) for key, one in features.items()}
        found = {key: [*one.value] for key, one in found.items()}
        if png := found.pop("image/segmentation/class/encoded", None):
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(*png))), photo["mask"])
        assert found == expected
