"""A data list says what a set holds and leads nowhere else; its files become elements."""

import itertools
import json
import os
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from helpers import lists, nifti
from helpers.errors import CourseDataError
from helpers.lists import Item
from helpers.volume import TURNED
from tests.test_nifti import AFFINE, FIRST, IMAGE, MIRRORED, SHIFTED, nii, patched

MASK = (IMAGE > 40).astype(np.uint8) + (IMAGE > 90)
ITEM = {"image": "a.nii"}
SECRET = "Surname^Given"


def written(folder: Path, document: object) -> Path:
    """A data list; text is written as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "dataset.json").write_text(text, encoding="utf-8")
    return folder / "dataset.json"


def refused(call, *arguments) -> CourseDataError:
    with pytest.raises(CourseDataError) as error:
        call(*arguments)
    assert not any(name in error.value.message for name in ("a.nii", "images", SECRET))
    return error.value


def one(folder: Path, image=IMAGE, mask=MASK, mask_affine=AFFINE, **document):
    """The case of a list of one image, with its mask if there is one."""
    nii(folder / "images" / "a.nii.gz", image)
    item = {"image": "images/a.nii.gz"}
    if mask is not None:
        nii(folder / "labels" / "a.nii.gz", mask, mask_affine)
        item["label"] = "labels/a.nii.gz"
    found = lists.find(written(folder, {"training": [item]} | document))
    assert found.rejected == ()
    return found.cases[0]


def test_a_data_list_says_what_the_decathlon_and_clara_put_into_it(tmp_path):
    document = {
        "name": "Größe",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "10": "Müller \U0001f9e0"},
        "training": [
            {"image": "./x/a.nii.gz", "label": "./y/a.nii.gz", "fold": 2},
            {"image": "x/b.nii.gz", "label": 3, "weight": 2, "patient": "P1"},
            {"image": "x/c.nii.gz", "label": [0, 2, 1], "weight": 0.25, "patient": 0},
            {"image": "x/d.nii.gz", "label": None, "weight": None, "patient": None},
        ],
        "test": ["./z/e.nii.gz", {"image": "z/f.nii.gz", "label": 0}],
        "fold_1": [{"image": "x/g.nii.gz"}],
        "authors": ["one", "two"],
    }
    path = written(tmp_path / "lists", document)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte order mark
    for base in (None, tmp_path / "elsewhere"):
        found, folder = lists.read(path, base), base or path.parent
        x, z = folder / "x", folder / "z"
        assert found.sections["training"] == [
            Item(x / "a.nii.gz", mask=folder / "y" / "a.nii.gz"),
            Item(x / "b.nii.gz", label=3, weight=2.0, patient="P1"),
            Item(x / "c.nii.gz", label=(0, 2, 1), weight=0.25, patient="0"),
            Item(x / "d.nii.gz"),
        ]
        assert found.sections["test"] == [Item(z / "e.nii.gz"), Item(z / "f.nii.gz", label=0)]
        assert found.sections["fold_1"] == [Item(x / "g.nii.gz")] and len(found.sections) == 3
        assert found.modality == "CT" and found.labels[10] == "Müller \U0001f9e0"
    with pytest.raises(FileNotFoundError, match=r"^no such data list$"):
        lists.read(tmp_path / "other.json")


ESCAPES = ["/etc/a", "//server/share/a", "c:\\a", "\\\\server\\a", "\\a", "b\\a", "../a"]
ESCAPES += ["b\\..\\..\\a", "b/../../a", "..", "", ".", "./"]


@pytest.mark.parametrize("section", ["training", "test", SECRET])
def test_a_path_that_could_leave_the_folder_is_refused(tmp_path, section):
    for field, text in itertools.product(("image", "label"), [*ESCAPES, f"{tmp_path}/a"]):
        items = [{"image": "a/1.nii"}, {"image": "a/2.nii"} | {field: text}]
        error = refused(lists.read, written(tmp_path, {section: items}))
        place = "item 2 of " + ("another section" if section == SECRET else section)
        assert error.code == "UNSAFE_PATH" and place in error.message, text


@pytest.mark.skipif(os.name == "nt", reason="links need rights that Windows users lack")
def test_a_link_that_leaves_the_folder_is_refused_and_one_that_stays_is_fine(tmp_path):
    base = tmp_path / "set"
    for folder in (base / "store", tmp_path / "outside"):
        folder.mkdir(parents=True)
        (folder / "a.nii").touch()
    links = {"file": "../outside/a.nii", "chain": "file", "nothing": "../outside/none.nii"}
    links |= {"folder": "../outside", "inside": "store", "other": "store/a.nii"}
    for name, target in links.items():
        (base / name).symlink_to(target)
    for image in ("file", "chain", "nothing", "folder/a.nii"):
        path = written(base, {"training": [{"image": image}]})
        assert refused(lists.read, path).code == "UNSAFE_PATH", image
    (base / "one").symlink_to("two")
    (base / "two").symlink_to("one")
    (circle,) = lists.find(written(base, {"test": ["one"]})).rejected
    assert circle.code in ("UNREADABLE", "UNKNOWN_FORMAT")
    (tmp_path / "short").symlink_to(base)
    written(base, {"training": [{"image": "inside/a.nii"}]})
    (item,) = lists.read(tmp_path / "short" / "dataset.json").sections["training"]
    assert item.image == tmp_path / "short" / "inside" / "a.nii"
    both = {"image": "b.nii", "label": "store/a.nii"}  # an image of one is the mask of another
    for first in ({"image": "other"}, both):
        twice = written(base, {"training": [first], "test": ["store/a.nii"]})
        assert refused(lists.read, twice).code == "SAME_CASE"


def of(**wrong) -> dict:
    return {"training": [{"image": "b.nii", "label": 0}, ITEM | wrong]}


BAD_LABELS = (True, 1.0, -1, 2**31, {}, [], ["x.nii"], [0, True])
BAD_WEIGHTS = (-1, float("nan"), float("inf"), 10**400, SECRET, [1])
WRONG = [  # what is said of lists, and the lists
    ("the list is not", ["[]", "3", "null", "", '{"test":', f"{{{SECRET}", "[" * 100_000]),
    ("the list is not", [of(**{key: "\ud83e"}) for key in ("patient", "image", "label")]),
    ("has a key twice", ['{"test": [], "test": []}', f'{{"a": {{"{SECRET}": 1, "{SECRET}": 2}}}}']),
    ("the list is not", [{"labels": x, "test": []} for x in (["a"], {SECRET: 1}, {"1.0": "a"})]),
    ("expected a section: training, validation, test", [{}]),
    ("training that is no list", [{"training": ITEM}, {"training": "a.nii"}]),
    ("item 2 of test is not", [{"test": ["a.nii", None]}]),
    ("item 2 of another section is not", [{SECRET: [ITEM, 1.5]}]),
    ("item 2 of training is not", [of(image=x) for x in (["a", "b"], "a\0", None)]),
    ("item 2 of training has a label", [of(label=x) for x in BAD_LABELS]),
    ("item 2 of training", [of(weight=x) for x in BAD_WEIGHTS]),
    ("listed twice", [{"training": [ITEM], "test": [f"{x}a.nii"]} for x in ("", "./", "b/../")]),
]


def test_a_list_that_says_something_else_is_refused_with_the_place_and_never_quoted(tmp_path):
    failed = []
    for message, document in ((message, one) for message, listed in WRONG for one in listed):
        error = refused(lists.read, written(tmp_path, document))
        named = error.code == ("SAME_CASE" if "twice" in message[:12] else "DATA_LIST")
        failed += [] if named and message in error.message else [(message, error)]
    assert failed == []
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "dataset.json").write_bytes('{"name": "é", "test": []}'.encode(encoding))
        assert refused(lists.read, tmp_path / "dataset.json").code == "DATA_LIST"


def test_each_listed_file_stands_in_one_case_or_one_rejection(tmp_path):
    for name in ("good", "no_mask", "bad_mask", "alone", "val", "more", "huge", "also", "none"):
        nii(tmp_path / "sub" / f"{name}.nii")
    for name in ("good", "no_image", "bad_image", "huge"):
        nii(tmp_path / "masks" / f"{name}.nii", MASK)
    for folder in ("sub", "masks"):
        nii(tmp_path / folder / "4d.nii", np.stack([MASK, MASK], -1))
        patched(tmp_path / folder / "huge.nii", 40, struct.pack("<4h", 3, 32000, 32000, 32000))
    (tmp_path / "sub" / "bad_image.nii").write_bytes(b"no NIfTI" * 100)
    (tmp_path / "masks" / "bad_mask.nii").write_bytes(b"")
    (tmp_path / "sub" / "a.png").write_bytes(b"\x89PNG")
    bad = ["no_mask", "no_image", "bad_image", "bad_mask", "huge", "4d"]
    pairs = [{"image": f"sub/{n}.nii", "label": f"masks/{n}.nii"} for n in ["good", *bad]]
    pairs[0]["weight"] = 0.5
    more = [{"image": "./sub/none.nii", "label": [1, 0]}, {"image": "sub/alone.nii"}]
    document = {
        "training": pairs + more,
        "validation": [{"image": "sub/val.nii", "patient": "P7"}],  # no label in all of the section
        "test": ["sub/a.png", {"image": "sub/also.nii", "label": "masks/huge.nii"}],
        "further": [{"image": "sub/more.nii"}],
    }
    found, n = lists.find(written(tmp_path / "lists", document), tmp_path), IMAGE.size
    keys = ("name", "patient", "split", "label", "weight", "size")
    assert [tuple(getattr(case, key) for key in keys) for case in found.cases] == [
        ("sub/good.nii", "sub/good", "train", None, 0.5, n * 3),
        ("sub/none.nii", "sub/none", "train", (1, 0), None, n * 3),
        ("sub/val.nii", "P7", "validation", None, None, n * 3),
    ]
    codes = ["UNREADABLE"] * 4 + ["TOO_LARGE", "SHAPE_MISMATCH"]
    assert [(one.code, *(file.name for file in one.files)) for one in found.rejected] == [
        *[(code, f"{name}.nii", f"{name}.nii") for code, name in zip(codes, bad, strict=True)],
        ("NO_PAIR", "alone.nii"),
        ("UNKNOWN_FORMAT", "a.png"),
        ("TOO_LARGE", "also.nii", "huge.nii"),
        ("DATA_LIST", "more.nii"),
    ]
    assert found.files == 2 * 7 + 3 + 3 + 1
    told = repr(found) + " ".join(one.reason for one in found.rejected)
    assert not any(name in told for name in ("good", "bad_", "P7", "more.", str(tmp_path)))


def test_images_masks_and_channels_are_turned_alike_and_notes_say_what_was_done(tmp_path):
    channels = np.stack([IMAGE, IMAGE + 7, 2 * IMAGE], -1).astype(np.float32)
    for image in (IMAGE, channels):
        case = one(tmp_path, image, modality={"0": "MRI", "1": "MRI"})
        nii(case.files[0], image, MIRRORED), nii(case.files[1], MASK, MIRRORED)
        element = lists.load(case)
        assert case.size == image.nbytes + MASK.size and element["modality"] == "MR"
        closest = nibabel.as_closest_canonical(nibabel.Nifti1Image(image, MIRRORED))
        voxels = np.asarray(closest.dataobj)[::-1, ::-1]  # to left and back
        expected = voxels.transpose(2, 1, 0, *range(3, image.ndim))
        np.testing.assert_array_equal(element["image"], expected)
        np.testing.assert_array_equal(element["mask"], MASK[::-1].T)
        assert element["notes"] == (TURNED,)
    for path, voxels in zip(case.files, (IMAGE, MASK), strict=True):
        nii(path, voxels.transpose(2, 0, 1), AFFINE[:, [2, 0, 1, 3]])  # its x runs along our z
    element = lists.load(case)
    np.testing.assert_array_equal(element["image"], IMAGE.T)
    np.testing.assert_array_equal(element["mask"], MASK.T)
    np.testing.assert_allclose(element["spacing"], (3, 0.7, 0.8), rtol=1e-6)
    for path, voxels in zip(case.files, (IMAGE, MASK), strict=True):
        nii(path, voxels, forms=((SHIFTED, 4), (AFFINE, 1)))
    assert lists.load(case)["notes"] == (nifti.TWO_PLACES,)
    assert "notes" not in lists.load(one(tmp_path))


def test_only_a_modality_that_dicom_defines_is_passed_on(tmp_path):
    table = [({"0": " ct "}, "CT"), ("MRI", "MR"), ({"0": "PET"}, "PT"), ({"0": SECRET}, None)]
    table += [({"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, "MR"), ({}, None), (3, None)]
    for channels, term in [*table, ({"0": "CT", "1": "PET"}, None)]:
        assert lists.load(one(tmp_path, modality=channels)).get("modality") == term, channels


def test_damaged_and_constant_files_are_refused_when_they_are_read(tmp_path):
    assert refused(lists.load, one(tmp_path, np.full((6, 5, 4), 7, "i2"))).code == "CONSTANT"
    case = one(tmp_path)
    case.files[0].unlink()
    assert lists.survey(case) == {0, 1, 2}  # which reads the mask alone
    assert refused(lists.load, case).code == "UNREADABLE"
    case.files[1].write_bytes(case.files[1].read_bytes()[:-9])
    assert refused(lists.survey, case).code == "TRUNCATED"


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">i4", "i8", "f4", "f8"])
def test_whole_numbers_are_ids_in_any_type_and_mapped_all_at_once(tmp_path, dtype):
    for stored in (MASK, MASK * 0):  # an empty mask is kept
        case = one(tmp_path, mask=stored.astype(dtype))
        for mapping in (None, {0: 0, 1: 2, 2: 1, 9: 9}, {0: 0, 1: 1, 2: 1}):
            expected = np.array([0, 1, 2] if mapping is None else [mapping[k] for k in range(3)])
            found = lists.load(case, mapping)["mask"]
            np.testing.assert_array_equal(found, expected[stored.T])
            assert found.dtype == np.uint8 and lists.survey(case, mapping) == set(np.unique(found))
    case = one(tmp_path, mask=None)
    assert lists.survey(case, {0: 1}) == frozenset() and "mask" not in lists.load(case, {0: 1})


def test_values_that_are_no_ids_are_refused_unless_they_are_mapped(tmp_path):
    mask = MASK.astype(np.float32)
    for wrong in (0.5, 1.0001, -1, 256, 1000, np.nan):
        mask[5, 4, 3] = wrong
        case, code = one(tmp_path, mask=mask), "UNKNOWN_LABEL" if wrong == wrong else "NOT_FINITE"
        assert refused(lists.load, case).code == refused(lists.survey, case).code == code, wrong
        if code == "UNKNOWN_LABEL":
            assert f"255: {mask[5, 4, 3]}" in refused(lists.load, case).message
            mapped = lists.load(case, {0: 0, 1: 1, 2: 2, mask[5, 4, 3]: 3})["mask"]
            assert mapped[3, 4, 5] == 3 and (mapped == 3).sum() == 1
    case = one(tmp_path, mask=(MASK > 0).astype(np.uint8) * 255)
    assert lists.survey(case, {0: 0, 255: 1}) == {0, 1}
    for mapping in ({255: 1}, {0: 0, 255: 256}):
        assert refused(lists.load, case, mapping).code == "UNKNOWN_LABEL"
    many = refused(lists.load, one(tmp_path, mask=IMAGE + 300))  # an image in its place
    assert many.code == "UNKNOWN_LABEL" and len(many.message) < 100


def test_a_mask_that_lies_elsewhere_is_refused_with_both_grids(tmp_path):
    steps = [[0, 0, 0, 0.02], [0, 0, 0, 40], [-0.01, 0, 0, 0]]
    moved = [{"mask_affine": AFFINE + FIRST * step} for step in steps]
    sizes = [{"mask": np.zeros(shape, "u1")} for shape in ((6, 5, 3), (5, 6, 4), (12, 10, 8))]
    for other in [*moved, *sizes, {"mask_affine": MIRRORED}]:
        case = one(tmp_path, **other)
        error = refused(lists.load, case)
        assert error.code == "MASK_MISMATCH" and error.files == case.files
        assert "image Volume(4 x 5 x 6 int16, 3 x 0.7 x 0.8 mm) at (-91.5, " in error.message
        assert "mask Volume(" in error.message


def test_mixed_stored_dtypes_have_one_that_holds_all_and_a_warning_says_so(tmp_path):
    stored = ["u1", "i2", "f4", "u1"]
    paths = [nii(tmp_path / f"{n}.nii", IMAGE.astype(kind)) for n, kind in enumerate(stored)]
    (tmp_path / "bad.nii").write_bytes(b"")
    items = [*map(Item, paths), Item(tmp_path / "bad.nii")]
    with pytest.warns(UserWarning, match="stored as float32, int16, uint8; all come as float32"):
        assert lists.common_dtype(items, [np.dtype("u1")]) == np.float32
    own = [np.dtype("f8")]  # of a loader that changes the dtype, or of another kind of file
    assert lists.common_dtype(items, own) == lists.common_dtype([1], own) == np.float64
