"""A data list says what a set holds and leads nowhere else; its files become elements."""

import functools
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers import lists, nifti
from helpers.errors import CourseDataError
from helpers.lists import Item
from helpers.phantoms import decathlon
from helpers.volume import TURNED
from tests.test_nifti import AFFINE, FIRST, IMAGE, MIRRORED, SHAPE, SHIFTED, nii, patched

LAWFUL = settings(derandomize=True, deadline=None, max_examples=25)
MASK = (IMAGE > 40).astype(np.uint8) + (IMAGE > 90)
ITEM = {"image": "a.nii"}


def written(folder: Path, document: object) -> Path:
    """A data list; text is written as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "dataset.json").write_text(text, encoding="utf-8")
    return folder / "dataset.json"


def refused(call, *arguments) -> CourseDataError:
    with pytest.raises(CourseDataError) as error:
        call(*arguments)
    assert "a.nii" not in error.value.message and "images" not in error.value.message
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


# What a list says


def test_a_data_list_says_what_the_decathlon_and_clara_put_into_it(tmp_path):
    document = {
        "name": "Größe",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "10": "Müller \U0001f9e0"},
        "training": [
            {"image": "./x/a.nii.gz", "label": "./y/a.nii.gz", "fold": 2},
            {"image": "x/b.nii.gz", "label": 3, "weight": 2, "patient": "P1"},
            {"image": "x/c.nii.gz", "label": [0, 2, 1], "weight": 0.25, "patient": 17},
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
        assert found.training == (
            Item(folder / "x" / "a.nii.gz", mask=folder / "y" / "a.nii.gz"),
            Item(folder / "x" / "b.nii.gz", label=3, weight=2.0, patient="P1"),
            Item(folder / "x" / "c.nii.gz", label=(0, 2, 1), weight=0.25, patient="17"),
            Item(folder / "x" / "d.nii.gz"),
        )
        tests = Item(folder / "z" / "e.nii.gz"), Item(folder / "z" / "f.nii.gz", label=0)
        assert found.test == tests and found.validation == ()
        assert found.sections["fold_1"] == (Item(folder / "x" / "g.nii.gz"),)
        assert found.modality == {0: "CT"} and found.labels[10] == "Müller \U0001f9e0"
    assert lists.read(written(tmp_path, {"modality": "MRI", "training": []})).modality == {0: "MRI"}
    with pytest.raises(FileNotFoundError, match=r"^no such data list$"):
        lists.read(tmp_path / "other.json")


ESCAPES = ["/etc/a", "//server/share/a", "C:/a", "C:a", "c:\\a", "\\\\server\\a", "\\a", "b\\a"]
ESCAPES += ["b\\..\\..\\a", "../a", "b/../../a", "b/../a", "..", "", ".", "./", "a\0"]


@pytest.mark.parametrize("place", ["image", "label", "test", "private name"])
def test_a_path_that_could_leave_the_folder_is_refused(tmp_path, place):
    for text in ESCAPES:
        items = [{"image": "a/1.nii"}, {"image": "a/2.nii", "label": "b/2.nii"}]
        sections, where = {"training": items}, "training"
        if place in ("image", "label"):
            items[1][place] = text
        else:
            sections[place] = [{"image": "a/3.nii"}, text if place == "test" else {"image": text}]
            where = "test" if place == "test" else "the section that is key 2"
        error = refused(lists.read, written(tmp_path, sections))
        assert error.code == "UNSAFE_PATH" and f"item 2 of {where} " in error.message, text
        assert "private" not in error.message and error.files == (tmp_path / "dataset.json",)


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
    (tmp_path / "short").symlink_to(base)
    written(base, {"training": [{"image": "inside/a.nii"}]})
    found = lists.read(tmp_path / "short" / "dataset.json").training[0].image
    assert found == tmp_path / "short" / "inside" / "a.nii"
    twice = written(base, {"training": [{"image": "other"}], "test": ["store/a.nii"]})
    assert refused(lists.read, twice).code == "SAME_CASE"


def of(**wrong) -> dict:
    return {"training": [{"image": "b.nii", "label": 0}, ITEM | wrong]}


LABEL, WEIGHT, PATIENT = (
    f"the {key} of item 2 of training" for key in ("label", "weight", "patient")
)
WRONG = [
    *[(text, "the file is no object") for text in ("[]", "3", "null")],
    ({}, "expected a section: training, validation, test"),
    ({"training": {"image": "a.nii"}}, "training is no list"),
    ({"training": ["a.nii"]}, "item 1 of training is no object"),
    ({"test": ["a.nii", None]}, "item 2 of test is no object"),
    ({"P": [ITEM, 1.5]}, "item 2 of the section that is key 1 is no object"),
    ({"validation": [{"label": 1}]}, "the image of item 1 of validation is no text"),
    (of(image=["a", "b"]), "the image of item 2 of training is no text"),
    *[(of(label=x), LABEL) for x in (True, 1.0, -1, 2**31, {}, [], [1, True], ["x.nii"])],
    *[(of(weight=x), WEIGHT) for x in (-0.5, float("nan"), float("inf"), 10**400, True, "1")],
    *[(of(patient=x), PATIENT) for x in (["P"], True)],
    *[({"labels": x, "test": []}, "labels") for x in (["a"], {"liver": 1}, {"1": 1}, {"01": "a"})],
    *[({"labels": {x: "a"}, "test": []}, "labels: ") for x in ("-1", "1.0", "²", "9" * 5000)],
    ({"modality": ["CT"], "training": []}, "modality is no object"),
    *[(of(**{key: "\ud83e"}), "no JSON in UTF-8") for key in ("patient", "image", "label")],
    *[(text, "each key once") for text in ('{"test": [], "test": []}', '{"a": {"b": 1, "b": 2}}')],
    *[(text, "no JSON in UTF-8") for text in ("", "[" * 200_000, '{"test": ' + "9" * 5000 + "}")],
    ('{"test":\n\n["a.nii"', "near line 3"),
    ({"test": ["b.nii"], "training": [ITEM | {"label": "b.nii"}]}, "also the mask of an item"),
    *[
        ({"training": [ITEM], "test": [x]}, "item 1 of test is listed")
        for x in ("a.nii", "./a.nii")
    ],
    ({"training": [ITEM, {"image": ".//a.nii"}]}, "the image of item 2 of training is listed"),
]
SECRET = "Surname^Given"
QUOTED = [
    {SECRET: [{"image": f"../{SECRET}"}]},
    {SECRET: [{"image": SECRET}, {"image": SECRET, "label": [SECRET]}]},
    {"training": [{"image": "a", "weight": SECRET}]},
    {"training": [], "labels": {SECRET: 1}},
    f'{{"training": [{{"{SECRET}": 1, "{SECRET}": 2}}]}}',
    f'{{"training": {SECRET}',
]


def test_a_list_that_says_something_else_is_refused_with_the_place_and_never_quoted(tmp_path):
    failed = []
    for document, message in [*WRONG, *[(one, "") for one in QUOTED]]:
        error = refused(lists.read, written(tmp_path / SECRET, document))
        named = (
            error.code == ("SAME_CASE" if "is listed" in message else "DATA_LIST") or not message
        )
        fine = named and message in error.message and SECRET not in str(error)
        failed += [] if fine else [(message, error)]
    assert failed == []
    path = tmp_path / "dataset.json"
    for encoding in ("utf-16", "latin-1"):
        path.write_bytes('{"name": "é", "training": []}'.encode(encoding))
        assert "no JSON in UTF-8" in refused(lists.read, path).message
    with open(path, "wb") as file:
        file.truncate(2**28 + 1)  # a sparse file: it takes no room on the disk
    assert "expected at most" in refused(lists.read, path).message


words = st.sampled_from(["image", "label", "training", "test", "labels", "0"]) | st.text(max_size=3)
anything = st.recursive(
    st.none() | st.floats() | st.integers() | st.sampled_from(ESCAPES) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5),
)


@LAWFUL
@given(st.dictionaries(words, anything, min_size=1))
def test_whatever_stands_in_the_file_it_is_a_list_below_its_base_or_refused(
    tmp_path_factory, document
):
    path, items = written(tmp_path_factory.getbasetemp() / "fuzz", document), []
    try:
        items = [item for items in lists.read(path).sections.values() for item in items]
    except CourseDataError as error:
        refusal = error.code
        assert refusal in ("DATA_LIST", "UNSAFE_PATH", "SAME_CASE")
    for file in (file for item in items for file in lists.files_of(item)):
        assert Path(os.path.realpath(file)).is_relative_to(os.path.realpath(path.parent))


# Files in = files in cases + files in rejections


def test_each_listed_file_stands_in_one_case_or_one_rejection(tmp_path):
    for name in ("good", "no_mask", "bad_mask", "alone", "val", "more", "huge", "also", "none"):
        nii(tmp_path / "sub" / f"{name}.nii")
    for name in ("good", "no_image", "bad_image", "huge"):
        nii(tmp_path / "masks" / f"{name}.nii", MASK)
    for folder in ("sub", "masks"):
        nii(tmp_path / folder / "4d.nii", np.stack([MASK, MASK], -1))
    (tmp_path / "sub" / "bad_image.nii").write_bytes(b"no NIfTI" * 100)
    (tmp_path / "masks" / "bad_mask.nii").write_bytes(b"")
    (tmp_path / "sub" / "a.png").write_bytes(b"\x89PNG")
    for folder in ("sub", "masks"):
        patched(tmp_path / folder / "huge.nii", 40, struct.pack("<4h", 3, 32000, 32000, 32000))
    bad = ["no_mask", "no_image", "bad_image", "bad_mask", "huge", "4d"]
    pairs = [{"image": f"sub/{n}.nii", "label": f"masks/{n}.nii"} for n in ["good", *bad]]
    pairs[0]["weight"] = 0.5
    document = {
        "training": [
            *pairs,
            {"image": "./sub/none.nii", "label": [1, 0]},
            {"image": "sub/alone.nii"},
        ],
        "validation": [{"image": "sub/val.nii", "patient": "P7"}],  # no label in all of the section
        "test": ["sub/a.png", {"image": "sub/also.nii", "label": "masks/huge.nii"}],
        "further": [{"image": "sub/more.nii"}],
    }
    found = lists.find(written(tmp_path / "lists", document), tmp_path)
    n = 6 * 5 * 4
    keys = ("name", "patient", "split", "label", "weight", "size")
    assert [tuple(getattr(case, key) for key in keys) for case in found.cases] == [
        ("sub/good.nii", "sub/good", "train", None, 0.5, n * 3),
        ("sub/none.nii", "sub/none", "train", (1, 0), None, n * 2),
        ("sub/val.nii", "P7", "validation", None, None, n * 2),
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
    told = " ".join([repr(found), *(one.reason for one in found.rejected), repr(found.cases)])
    assert not any(name in told for name in ("good", "bad_", "P7", "more.", str(tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"^no such base folder$"):
        lists.find(tmp_path / "lists" / "dataset.json", tmp_path / "nowhere")


# Elements


def test_the_synthetic_decathlon_set_is_found_and_read_whole(tmp_path):
    folder = decathlon(tmp_path, cases=2, tests=1, labels="liver", seed=4, shape=(16, 48, 56))
    found = lists.find(folder / "dataset.json")
    assert [case.split for case in found.cases] == ["train", "train", "test"]
    for case in found.cases:
        element, image = lists.load(case), nibabel.load(case.files[0])
        np.testing.assert_array_equal(element["image"], np.asarray(image.dataobj).T)
        np.testing.assert_allclose(element["spacing"], image.header.get_zooms()[::-1], rtol=1e-6)
        masks = [np.asarray(nibabel.load(file).dataobj).T for file in case.files[1:]]
        assert ("mask" in element) == bool(masks) == (case.split == "train")
        for mask in masks:
            np.testing.assert_array_equal(element["mask"], mask)
            assert lists.survey(case) == set(np.unique(mask).tolist())


def test_images_masks_and_channels_are_turned_alike_and_notes_say_what_was_done(tmp_path):
    channels = np.stack([IMAGE, IMAGE + 7, 2 * IMAGE], -1).astype(np.float32)
    for image in (IMAGE, channels):
        case = one(tmp_path, image, modality={"0": "FLAIR", "1": "T1w", "2": "t1gd"})
        nii(case.files[0], image, MIRRORED), nii(case.files[1], MASK, MIRRORED)
        element = lists.load(case)
        assert case.size == image.nbytes + MASK.size and element["modality"] == "MR"
        closest = nibabel.as_closest_canonical(nibabel.Nifti1Image(image, MIRRORED))
        voxels = np.asarray(closest.dataobj)[::-1, ::-1]  # to left and back
        expected = voxels.transpose(2, 1, 0, *range(3, image.ndim))
        np.testing.assert_array_equal(element["image"], expected)
        np.testing.assert_array_equal(element["mask"], MASK[::-1].T)
        np.testing.assert_allclose(element["spacing"], (3, 0.7, 0.8), rtol=1e-6)
        assert element["notes"] == (TURNED,)
    for path, voxels in zip(case.files, (IMAGE, MASK), strict=True):
        nii(path, voxels, forms=((SHIFTED, 4), (AFFINE, 1)))
    assert lists.load(case)["notes"] == (nifti.TWO_PLACES,)
    assert "notes" not in lists.load(one(tmp_path))


def test_only_a_modality_that_dicom_defines_is_passed_on(tmp_path):
    rows = {"CT": "CT", " ct ": "CT", "MRI": "MR", "PET": "PT", "US": "US", "CT of Surname": None}
    table = [({"0": text}, term) for text, term in rows.items()]
    table += [({"0": "T2", "1": "ADC"}, "MR"), ({"0": "CT", "1": "PET"}, None), ({}, None)]
    for channels, term in [*table, ({"0": "CT", "1": "Surname"}, None), ("CT", "CT")]:
        element = lists.load(one(tmp_path, modality=channels))
        assert element.get("modality") == term, channels


def test_damaged_and_constant_files_are_refused_when_they_are_read(tmp_path):
    flat = refused(lists.load, one(tmp_path, np.full(SHAPE, 7, np.int16)))
    assert flat.code == "CONSTANT" and "120 voxels" in flat.message
    case = one(tmp_path)
    for place, read in ((0, lists.load), (1, lists.load), (1, lists.survey)):
        path, whole = case.files[place], case.files[place].read_bytes()
        path.write_bytes(whole[:-9])
        error = refused(read, case)
        assert error.code == "TRUNCATED" and error.files == (path,)
        path.unlink()
        assert refused(read, case).code == "UNREADABLE"
        path.write_bytes(whole)
    case.files[0].unlink()
    assert lists.survey(case) == {0, 1, 2}  # which reads the mask alone


# Masks


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", ">i4", "u4", "i8", "f4", "f8"])
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
    for wrong in (0.5, 1.0001, np.nan, np.inf, -1, 256, 1000):
        mask = MASK.astype(np.float32)
        mask[5, 4, 3] = wrong
        case, code = (
            one(tmp_path, mask=mask),
            "UNKNOWN_LABEL" if np.isfinite(wrong) else "NOT_FINITE",
        )
        assert refused(lists.load, case).code == refused(lists.survey, case).code == code, wrong
        if wrong in (-1, 256, 1000):
            assert f"holds {wrong};" in refused(lists.load, case).message
            mapped = lists.load(case, {0: 0, 1: 1, 2: 2, wrong: 3})["mask"]
            assert mapped[3, 4, 5] == 3 and (mapped == 3).sum() == 1
    case = one(tmp_path, mask=(MASK > 0).astype(np.uint8) * 255)
    assert lists.survey(case, {0: 0, 255: 1}) == {0, 1}
    assert "holds 0; none of the 1 ids" in refused(lists.load, case, {255: 1}).message
    many = refused(lists.load, one(tmp_path, mask=IMAGE + 300))  # an image in its place
    assert many.code == "UNKNOWN_LABEL" and len(many.message) < 100
    for ids in ({0: -1}, {0: 0, 1: 256}):
        with pytest.raises(ValueError, match="between 0 and 255"):
            lists.survey(case, ids)


def test_a_mask_that_lies_elsewhere_is_refused_with_both_grids_and_their_distance(tmp_path):
    steps = [[0, 0, 0, 0.02], [0, 0, 0, 40], [-0.01, 0, 0, 0]]
    corners = np.array(list(np.ndindex(2, 2, 2))) * np.subtract(SHAPE, 1)
    for affine in [*[AFFINE + FIRST * step for step in steps], MIRRORED]:
        case = one(tmp_path, mask_affine=affine)
        error = refused(lists.load, case)
        assert error.code == "MASK_MISMATCH" and error.files == case.files
        assert "image Volume(4 x 5 x 6 int16, 3 x 0.7 x 0.8 mm), mask Volume(4 x" in error.message
        ours, theirs = (nibabel.affines.apply_affine(one, corners) for one in (AFFINE, affine))
        stated = float(error.message.split("up to ")[1].split(" mm")[0])
        assert stated == pytest.approx(np.abs(ours - theirs).max(), rel=0.01)
    for shape in ((6, 5, 3), (5, 6, 4), (12, 10, 8)):
        error = refused(lists.load, one(tmp_path, mask=np.zeros(shape, np.uint8)))
        assert f"mask Volume({' x '.join(map(str, shape[::-1]))}" in error.message


@LAWFUL
@given(*[st.tuples(*[st.floats(*ends)] * 3) for ends in ((-500, 500), (0.3, 5), (-180, 180))])
def test_what_formats_round_off_is_no_mismatch(tmp_path_factory, origin, spacing, angles):
    folder, affine = tmp_path_factory.mktemp("rounding"), np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = origin
    # One file says it in a matrix of 32 bits, the other in a quaternion alone.
    nii(folder / "a.nii", forms=((affine, 1), (None, 0)))
    nii(folder / "b.nii", MASK, forms=((None, 0), (affine, 1)))
    path = written(folder, {"training": [ITEM | {"label": "b.nii"}]})
    assert "mask" in lists.load(lists.find(path).cases[0])


# As a module


def test_mixed_stored_dtypes_have_one_that_holds_all_and_a_warning_says_so(tmp_path):
    stored = ["u1", "i2", "f4", "u1"]
    paths = [nii(tmp_path / f"{n}.nii", IMAGE.astype(kind)) for n, kind in enumerate(stored)]
    (tmp_path / "bad.nii").write_bytes(b"")
    items = [*map(Item, paths), Item(tmp_path / "bad.nii")]
    with pytest.warns(UserWarning, match="stored as float32, int16, uint8; all come as float32"):
        assert lists.common_dtype(items, [np.dtype("u1")]) == np.float32
    own = [np.dtype("f8")]  # of a loader that changes the dtype, or of another kind of file
    assert lists.common_dtype(items, own) == lists.common_dtype([1], own) == np.float64


def test_loaders_travel_to_workers_and_load_neither_tensorflow_nor_sklearn(tmp_path):
    case = one(tmp_path, modality={"0": "CT"})
    work = functools.partial(lists.load, mapping={0: 0, 1: 1, 2: 1})
    case_there, work_there = pickle.loads(pickle.dumps((case, work)))  # noqa: S301
    assert work_there(case_there)["modality"] == "CT"
    code = "import sys, helpers.lists; print({'tensorflow', 'sklearn'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
