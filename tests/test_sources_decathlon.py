"""A NIfTI file of a data list becomes an element, or is refused by name; nibabel is the witness."""

import contextlib
import functools
import gzip
import json
import os
import pickle
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers import nifti, sources_decathlon
from helpers.errors import CODES, CourseDataError
from helpers.phantoms import decathlon

LAWFUL = settings(derandomize=True, deadline=None, max_examples=60)
AFFINE = np.array([[-0.8, 0, 0, 91.5], [0, -0.7, 0, 120.25], [0, 0, 3, -77.5], [0, 0, 0, 1]])
SHAPE = (6, 5, 4)  # nibabel's order, [x, y, z]
IMAGE = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
MASK = (IMAGE > 300).astype(np.uint8) + (IMAGE > 700)


def nii(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE, slope=None) -> Path:
    """A NIfTI-1 file in the voxels' byte order, voxels [x, y, z] or [x, y, z, c]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = nibabel.Nifti1Header(endianness=">" if voxels.dtype.byteorder == ">" else "<")
    image = nibabel.Nifti1Image(voxels, affine, header, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    if slope:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return path


def listed(folder: Path, **document) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "dataset.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def one(folder: Path, image=IMAGE, mask=MASK, mask_affine=AFFINE, affine=AFFINE, **document):
    """The case of a list of one image, with its mask if there is one."""
    nii(folder / "images" / "a.nii.gz", image, affine)
    item = {"image": "images/a.nii.gz"}
    if mask is not None:
        nii(folder / "labels" / "a.nii.gz", mask, mask_affine)
        item["label"] = "labels/a.nii.gz"
    found = sources_decathlon.find(listed(folder, training=[item], **document))
    assert found.rejected == ()
    return found.cases[0]


def moved(**change) -> np.ndarray:
    """The affine with other entries: `a03` is row 0, column 3."""
    affine = AFFINE.copy()
    for place, value in change.items():
        affine[int(place[1]), int(place[2])] = value
    return affine


def image_only(folder: Path, name: str, voxels: np.ndarray, slope=None):
    nii(folder / name, voxels, slope=slope)
    found = sources_decathlon.find(listed(folder, training=[{"image": name}]))
    assert found.rejected == ()
    return found.cases[0]


def refused(act, *arguments, **options) -> CourseDataError:
    with pytest.raises(CourseDataError) as error:
        act(*arguments, **options)
    assert "a.nii" not in error.value.message and "images" not in error.value.message
    return error.value


def ends(found) -> list[tuple[str, list[str]]]:
    """Codes and files of what was rejected."""
    return [(one.code, [file.name for file in one.files]) for one in found.rejected]


# What a list holds


def test_sections_become_splits_and_items_become_cases(tmp_path):
    for name in "abcde":
        nii(tmp_path / "images" / f"{name}.nii.gz", IMAGE)
    nii(tmp_path / "labels" / "a.nii.gz", MASK)
    nii(tmp_path / "images" / "sub" / "a.nii", IMAGE.astype(np.float64))
    document = {
        "training": [
            {"image": "./images/a.nii.gz", "label": "labels/a.nii.gz", "weight": 0.5},
            {"image": "images/b.nii.gz", "label": 2, "patient": "P7"},
        ],
        "validation": [{"image": "images/c.nii.gz", "label": [1, 0, 2]}],
        "test": ["images/d.nii.gz", {"image": "images/sub/a.nii", "label": 1}],
    }
    found = sources_decathlon.find(listed(tmp_path, **document))
    assert found.rejected == () and found.files == 6
    rows = [
        (case.name, case.patient, case.split, case.label, case.weight, case.size, len(case.files))
        for case in found.cases
    ]
    voxels = 6 * 5 * 4
    assert rows == [
        ("images/a.nii.gz", "images/a", "train", None, 0.5, voxels * 3, 2),
        ("images/b.nii.gz", "P7", "train", 2, None, voxels * 2, 1),
        ("images/c.nii.gz", "images/c", "validation", (1, 0, 2), None, voxels * 2, 1),
        ("images/d.nii.gz", "images/d", "test", None, None, voxels * 2, 1),
        ("images/sub/a.nii", "images/sub/a", "test", 1, None, voxels * 8, 1),
    ]
    assert found.cases[0].files == (
        tmp_path / "images" / "a.nii.gz",
        tmp_path / "labels" / "a.nii.gz",
    )


def test_the_images_may_lie_in_another_folder_than_the_list(tmp_path):
    nii(tmp_path / "elsewhere" / "a.nii", IMAGE)
    path = listed(tmp_path / "lists", training=[{"image": "a.nii"}])
    found = sources_decathlon.find(path, tmp_path / "elsewhere")
    assert sources_decathlon.load(found.cases[0])["image"].shape == (4, 5, 6)
    with pytest.raises(FileNotFoundError, match=r"^no such base folder$"):
        sources_decathlon.find(path, tmp_path / "nowhere")


def test_the_synthetic_decathlon_set_is_found_and_read_whole(tmp_path):
    folder = decathlon(tmp_path, cases=2, tests=1, labels="liver", seed=4, shape=(16, 48, 56))
    found = sources_decathlon.find(folder / "dataset.json")
    assert [case.split for case in found.cases] == ["train", "train", "test"]
    assert found.files == 5 and found.rejected == ()
    for case in found.cases:
        element = sources_decathlon.load(case)
        image = nibabel.load(case.files[0])
        np.testing.assert_array_equal(element["image"], np.asarray(image.dataobj).T)
        np.testing.assert_allclose(element["spacing"], image.header.get_zooms()[::-1], rtol=1e-6)
        assert element["modality"] == "CT"
        assert ("mask" in element) == (case.split == "train")
        if case.split == "train":
            mask = np.asarray(nibabel.load(case.files[1]).dataobj).T
            np.testing.assert_array_equal(element["mask"], mask)
            assert sources_decathlon.survey(case) == set(np.unique(mask).tolist())


# Files in = files written + files rejected


def test_each_listed_file_stands_in_one_case_or_one_rejection(tmp_path):
    for name in ("good", "no_mask", "bad_mask", "unlabelled", "test", "further"):
        nii(tmp_path / f"{name}.nii.gz", IMAGE)
    for name in ("good", "no_image", "bad_image"):
        nii(tmp_path / "labels" / f"{name}.nii.gz", MASK)
    (tmp_path / "bad_image.nii.gz").write_bytes(b"no NIfTI" * 100)
    (tmp_path / "labels" / "bad_mask.nii.gz").write_bytes(b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "folder.nii").mkdir()
    paired = ["good", "no_mask", "no_image", "bad_image", "bad_mask"]
    pairs = [{"image": f"{n}.nii.gz", "label": f"labels/{n}.nii.gz"} for n in paired]
    document = {
        "training": [*pairs, {"image": "unlabelled.nii.gz"}],
        "test": ["test.nii.gz", "a.png", "folder.nii", "x" * 300 + ".nii"],
        "further": [{"image": "further.nii.gz"}],
    }
    found = sources_decathlon.find(listed(tmp_path, **document))
    assert [case.name for case in found.cases] == ["good.nii.gz", "test.nii.gz"]
    assert ends(found) == [
        ("UNREADABLE", ["no_mask.nii.gz"] * 2),
        ("UNREADABLE", ["no_image.nii.gz"] * 2),
        ("UNREADABLE", ["bad_image.nii.gz"] * 2),
        ("UNREADABLE", ["bad_mask.nii.gz"] * 2),
        ("NO_PAIR", ["unlabelled.nii.gz"]),
        ("UNKNOWN_FORMAT", ["a.png"]),
        ("UNREADABLE", ["folder.nii"]),
        ("UNREADABLE", ["x" * 300 + ".nii"]),
        ("DATA_LIST", ["further.nii.gz"]),
    ]
    assert found.files == 5 * 2 + 1 + 4 + 1
    reasons = " ".join(one.reason for one in found.rejected)
    assert not any(name in reasons for name in ("good", "bad_", "further", "xxx", str(tmp_path)))


def test_a_section_without_any_label_is_a_section_of_images(tmp_path):
    for name in "abc":
        nii(tmp_path / f"{name}.nii", IMAGE)
    document = {
        "training": [{"image": "a.nii", "label": 0}],
        "validation": [{"image": "b.nii"}, {"image": "c.nii"}],
    }
    found = sources_decathlon.find(listed(tmp_path, **document))
    assert len(found.cases) == 3
    document["validation"][1]["label"] = 0
    assert ends(sources_decathlon.find(listed(tmp_path, **document))) == [("NO_PAIR", ["b.nii"])]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_is_listed_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    found = sources_decathlon.find(listed(tmp_path, test=["a.nii"]))
    assert ends(found) == [("UNREADABLE", ["a.nii"])]


def test_names_with_blanks_and_letters_beyond_ascii_are_read(tmp_path):
    name = "Schädel und 首 \U0001f9e0 " + "x" * 150 + ".nii.gz"
    nii(tmp_path / "o'a.nii.gz", IMAGE).rename(tmp_path / name)
    found = sources_decathlon.find(listed(tmp_path, training=[{"image": name}]))
    assert sources_decathlon.load(found.cases[0])["image"].shape == (4, 5, 6)


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode on Windows")
def test_a_name_that_is_not_utf_8_is_refused_rather_than_given_to_simpleitk(tmp_path):
    name = os.fsdecode(b"\xe9.nii")
    try:
        nii(tmp_path / "a.nii", IMAGE).rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system refuses such names")
    found = sources_decathlon.find(listed(tmp_path, training=[{"image": name}]))
    assert [one.code for one in found.rejected] == ["UNREADABLE"]


def lying(path: Path, size: tuple[int, int, int]) -> Path:
    """A file whose header claims another size than it holds."""
    content = bytearray(nii(path, IMAGE).read_bytes())
    content[40:56] = struct.pack("<8h", 3, *size, 1, 1, 1, 1)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("which", ["image", "mask"])
def test_a_header_that_claims_terabytes_is_refused_before_memory_is_taken(tmp_path, which):
    lying(tmp_path / "huge.nii", (32000, 32000, 32000))
    nii(tmp_path / "fine.nii", IMAGE)
    pair = {"image": "fine.nii", "label": "fine_mask.nii"}
    nii(tmp_path / "fine_mask.nii", MASK)
    pair["image" if which == "image" else "label"] = "huge.nii"
    found = sources_decathlon.find(listed(tmp_path, training=[pair]))
    assert [one.code for one in found.rejected] == ["TOO_LARGE"]
    assert "GiB" in found.rejected[0].reason


@pytest.mark.parametrize(
    "voxels, code",
    [
        (IMAGE[:, :, 0], "SHAPE_MISMATCH"),
        (np.zeros((3, 3, 3, 2, 2), np.int16), "SHAPE_MISMATCH"),
        (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "SHAPE_MISMATCH"),
        (IMAGE.astype(np.complex64), "PIXEL_FORMAT"),
    ],
    ids=["2D", "5D", "colour", "complex"],
)
def test_an_image_that_is_no_volume_is_refused_by_its_header(tmp_path, voxels, code):
    nii(tmp_path / "a.nii.gz", voxels)
    found = sources_decathlon.find(listed(tmp_path, training=[{"image": "a.nii.gz"}]))
    assert ends(found) == [(code, ["a.nii.gz"])]


def test_axes_that_are_not_at_right_angles_are_refused(tmp_path):
    nii(tmp_path / "a.nii", IMAGE, moved(a01=0.5))
    found = sources_decathlon.find(listed(tmp_path, training=[{"image": "a.nii"}]))
    assert ends(found) == [("NO_GEOMETRY", ["a.nii"])]


# Voxels


@LAWFUL
@given(
    st.sampled_from(["u1", "i1", "u2", "i2", ">i2", "u4", "i4", "f4", ">f4", "f8"]),
    st.tuples(*[st.integers(2, 6)] * 3),
    st.sampled_from([".nii", ".nii.gz"]),
    st.integers(0, 99),
)
def test_voxels_and_spacing_are_nibabels(tmp_path_factory, dtype, shape, ending, seed):
    folder = tmp_path_factory.mktemp("voxels")
    voxels = np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)
    path = nii(folder / f"a{ending}", voxels)
    found = sources_decathlon.find(listed(folder, training=[{"image": path.name}]))
    if voxels.min() == voxels.max():
        assert refused(sources_decathlon.load, found.cases[0]).code == "CONSTANT"
        return
    element = sources_decathlon.load(found.cases[0])
    np.testing.assert_array_equal(element["image"], voxels.T)
    assert element["image"].dtype == np.dtype(dtype).newbyteorder("=")
    assert element["image"].nbytes == found.cases[0].size
    np.testing.assert_allclose(element["spacing"], (3, 0.7, 0.8), rtol=1e-6)
    assert set(element) == {"image", "spacing"}


def test_scaled_values_are_scaled_and_sized_so(tmp_path):
    nii(tmp_path / "a.nii", IMAGE, slope=(0.5, 10))
    found = sources_decathlon.find(listed(tmp_path, training=[{"image": "a.nii"}]))
    image = sources_decathlon.load(found.cases[0])["image"]
    np.testing.assert_allclose(image, nibabel.load(tmp_path / "a.nii").get_fdata().T)
    assert image.nbytes == found.cases[0].size == IMAGE.size * 4


def test_a_4d_image_has_its_channels_last_and_a_mask_of_three_dimensions(tmp_path):
    channels = np.random.default_rng(1).normal(size=(*SHAPE, 3)).astype(np.float32)
    case = one(tmp_path, image=channels, modality={"0": "FLAIR", "1": "T1w", "2": "t1gd"})
    assert case.size == channels.nbytes + MASK.size
    element = sources_decathlon.load(case)
    np.testing.assert_array_equal(element["image"], channels.transpose(2, 1, 0, 3))
    np.testing.assert_array_equal(element["mask"], MASK.T)
    np.testing.assert_allclose(element["spacing"], (3, 0.7, 0.8), rtol=1e-6)
    assert element["modality"] == "MR"


@pytest.mark.parametrize("shift_mm, fine", [(0.0, True), (0.01, True), (0.05, False), (40, False)])
def test_a_4d_image_lies_where_its_mask_lies(tmp_path, shift_mm, fine):
    channels = np.random.default_rng(1).normal(size=(*SHAPE, 3)).astype(np.float32)
    case = one(tmp_path, image=channels, mask_affine=moved(a03=91.5 + shift_mm))
    if fine:
        assert "mask" in sources_decathlon.load(case)
    else:
        assert refused(sources_decathlon.load, case).code == "MASK_MISMATCH"


@pytest.mark.parametrize(
    "channels, term",
    [
        ({"0": "CT"}, "CT"),
        ({"0": " ct "}, "CT"),
        ({"0": "MRI"}, "MR"),
        ({"0": "PET"}, "PT"),
        ({"0": "US"}, "US"),
        ({"0": "T2", "1": "ADC"}, "MR"),
        ({"0": "CT", "1": "PET"}, None),
        ({"0": "CT of Surname^Given"}, None),
        ({"0": "CT", "1": "Surname"}, None),
        ({}, None),
        ("CT", "CT"),
    ],
    ids=str,
)
def test_only_a_modality_that_dicom_defines_is_passed_on(tmp_path, channels, term):
    element = sources_decathlon.load(one(tmp_path, modality=channels))
    assert element.get("modality") == term


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 2)], ids=["3D", "4D"])
def test_one_value_that_is_not_finite_is_refused_where_simpleitk_reads_0(
    tmp_path, value, dtype, ending, shape
):
    image = np.random.default_rng(0).normal(size=shape).astype(dtype)
    case = image_only(tmp_path, f"fine{ending}", image)
    np.testing.assert_array_equal(
        sources_decathlon.load(case)["image"], image.transpose(2, 1, 0, *range(3, image.ndim))
    )
    for place in (0, -1):
        image.flat[place] = value
        case = image_only(tmp_path, f"wrong{ending}", image)
        error = refused(sources_decathlon.load, case)
        assert error.code == "NOT_FINITE" and error.files == case.files
        read = sitk.GetArrayFromImage(sitk.ReadImage(str(case.files[0])))
        assert np.isfinite(read).all() and read.flat[place] == 0


def test_finite_values_that_scaling_makes_infinite_are_refused(tmp_path):
    case = image_only(tmp_path, "a.nii", np.float32(IMAGE) * np.float32(1e34), slope=(1e30, 0))
    assert refused(sources_decathlon.load, case).code == "NOT_FINITE"


def test_a_file_may_go_on_after_its_voxels(tmp_path):
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    case = image_only(tmp_path, "a.nii", image)
    with open(case.files[0], "ab") as file:
        file.write(np.full(3, np.nan, np.float32).tobytes() + b"\0")
    np.testing.assert_array_equal(sources_decathlon.load(case)["image"], image.T)


def test_an_image_of_one_value_is_refused(tmp_path):
    error = refused(sources_decathlon.load, one(tmp_path, image=np.full(SHAPE, 7, np.int16)))
    assert error.code == "CONSTANT" and "120 voxels" in error.message


# Files that are damaged


def smooth(path: Path) -> np.ndarray:
    """An image whose gzip data are Huffman codes, so that a flipped bit changes them quietly."""
    noise = np.random.default_rng(0).normal(size=(64, 64, 32))
    voxels = (ndimage.gaussian_filter(noise, 2) * 20000).astype(np.int16)
    nii(path, voxels)
    return voxels


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("part", [0.4, 0.9, -1], ids=["0.4", "0.9", "but one byte"])
@pytest.mark.parametrize("role", ["image", "mask"])
def test_a_file_that_is_cut_short_is_refused_where_simpleitk_pads_it(tmp_path, ending, part, role):
    whole, cut = tmp_path / f"whole{ending}", tmp_path / f"cut{ending}"
    smooth(whole)
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * part)] if part > 0 else content[:-1])
    assert sitk.ReadImage(str(cut)).GetSize() == (64, 64, 32)
    names = (cut.name, whole.name) if role == "image" else (whole.name, cut.name)
    pair = dict(zip(("image", "label"), names, strict=True))
    case = sources_decathlon.find(listed(tmp_path, training=[pair])).cases[0]
    read = sources_decathlon.load if role == "image" else sources_decathlon.survey
    error = refused(read, case)
    assert error.code == "TRUNCATED" and error.files == (cut,)
    assert error.message.startswith(f"the {role} ")


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    path = lying(tmp_path / "a.nii", (60, 50, 40))
    case = sources_decathlon.find(listed(tmp_path, test=["a.nii"])).cases[0]
    error = refused(sources_decathlon.load, case)
    assert error.code == "TRUNCATED"
    held, claimed = path.stat().st_size - 352, 60 * 50 * 40 * 2
    assert f"holds {held} bytes of voxels, its header claims {claimed}" in error.message


def test_a_flipped_bit_in_gzip_data_is_found_every_time(tmp_path):
    path = tmp_path / "a.nii.gz"
    voxels = smooth(path)
    content, silent, codes = path.read_bytes(), 0, []
    case = sources_decathlon.find(listed(tmp_path, training=[{"image": path.name}])).cases[0]
    random = np.random.default_rng(0)
    for position in random.integers(len(content) // 4, len(content) - 8, 50):
        flipped = bytearray(content)
        flipped[position] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        codes.append(refused(sources_decathlon.load, case).code)
        with contextlib.suppress(RuntimeError):
            theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            silent += not np.array_equal(theirs, voxels.T)
    assert silent > 40  # SimpleITK returns wrong voxels without a word
    assert codes.count("DECODING_FAILED") > 40


def test_gzip_data_that_turn_into_rubbish_are_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    smooth(path)
    start = gzip.compress(gzip.decompress(path.read_bytes())[:5000])
    path.write_bytes(start + start[:10] + b"\xff" * 5000)  # a block of a type that does not exist
    with pytest.raises(zlib.error):
        gzip.decompress(path.read_bytes())
    case = sources_decathlon.find(listed(tmp_path, training=[{"image": path.name}])).cases[0]
    assert refused(sources_decathlon.load, case).code == "DECODING_FAILED"


@pytest.mark.parametrize("padding", [0, 1000])
def test_a_header_does_not_fetch_its_voxels_from_another_file(tmp_path, padding):
    nibabel.save(nibabel.Nifti1Pair(IMAGE, AFFINE), tmp_path / "a.img")
    content = (tmp_path / "a.hdr").read_bytes().ljust(348, b"\0") + b"\0" * padding
    (tmp_path / "a.hdr").unlink()
    (tmp_path / "a.nii").write_bytes(content)
    case = sources_decathlon.find(listed(tmp_path, training=[{"image": "a.nii"}])).cases[0]
    error = refused(sources_decathlon.load, case)
    assert error.code == "UNREADABLE" and "voxels inside" in error.message


def test_voxels_that_would_begin_within_the_header_are_read_after_it(tmp_path):
    case = image_only(tmp_path, "a.nii", IMAGE.astype(np.float32))
    content = bytearray(case.files[0].read_bytes())
    content[108:112] = struct.pack("<f", 0)  # vox_offset
    case.files[0].write_bytes(content[:348] + content[352:])
    np.testing.assert_array_equal(sources_decathlon.load(case)["image"], IMAGE.T)
    case.files[0].write_bytes(content[:348] + content[352:-1])
    assert refused(sources_decathlon.load, case).code == "TRUNCATED"


@settings(LAWFUL, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4)
    | st.floats(width=32).map(
        lambda x: list(zip(range(108, 112), struct.pack("<f", x), strict=True))
    )
)
def test_whatever_stands_in_the_header_it_is_an_element_or_a_named_refusal(
    tmp_path_factory, changes
):
    folder = tmp_path_factory.getbasetemp() / "headers"
    content = bytearray(nii(folder / "a.nii", IMAGE).read_bytes())
    for position, value in changes:
        content[position] = value
    (folder / "a.nii").write_bytes(content)
    found = sources_decathlon.find(listed(folder, training=[{"image": "a.nii"}]))
    assert found.files == 1
    for case in found.cases:
        try:
            element = sources_decathlon.load(case)
        except CourseDataError as error:
            named = error.code in CODES
        else:
            named = np.isfinite(element["image"]).all() and min(element["spacing"]) > 0
        assert named


def test_gzip_data_in_several_members_are_whole(tmp_path):
    path = tmp_path / "a.nii.gz"
    voxels = smooth(path)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    case = sources_decathlon.find(listed(tmp_path, training=[{"image": path.name}])).cases[0]
    np.testing.assert_array_equal(sources_decathlon.load(case)["image"], voxels.T)


def test_an_uncompressed_file_of_the_same_name_is_not_read_in_place_of_the_one_listed(tmp_path):
    nii(tmp_path / "a.nii.gz", IMAGE)
    nii(tmp_path / "a.nii", IMAGE // 2)
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")))
    np.testing.assert_array_equal(read, (IMAGE // 2).T)  # the other file
    found = sources_decathlon.find(listed(tmp_path, training=[{"image": "a.nii.gz"}]))
    assert ends(found) == [("UNREADABLE", ["a.nii.gz"])]
    assert "keep one of the two" in found.rejected[0].reason


def test_a_file_that_goes_after_it_was_found_is_refused_when_it_is_read(tmp_path):
    case = one(tmp_path)
    case.files[1].unlink()
    assert refused(sources_decathlon.survey, case).code == "UNREADABLE"
    error = refused(sources_decathlon.load, case)
    assert error.code == "UNREADABLE" and error.files == (case.files[1],)


# Masks


def test_a_mask_has_the_ids_that_were_stored(tmp_path):
    case = one(tmp_path)
    element = sources_decathlon.load(case)
    np.testing.assert_array_equal(element["mask"], MASK.T)
    assert element["mask"].dtype == np.uint8
    assert sources_decathlon.survey(case) == {0, 1, 2}


@pytest.mark.parametrize("dtype", ["i1", "u2", "i2", ">i4", "u4", "i8", "f4", "f8"])
def test_whole_numbers_are_ids_in_whatever_type_they_are_stored(tmp_path, dtype):
    case = one(tmp_path, mask=MASK.astype(dtype))
    np.testing.assert_array_equal(sources_decathlon.load(case)["mask"], MASK.T)


def test_an_empty_mask_is_kept(tmp_path):
    case = one(tmp_path, mask=np.zeros(SHAPE, np.uint8))
    assert not sources_decathlon.load(case)["mask"].any()
    assert sources_decathlon.survey(case) == {0}


def test_without_a_mask_there_is_nothing_to_survey(tmp_path):
    case = one(tmp_path, mask=None)
    assert sources_decathlon.survey(case) == frozenset()
    assert sources_decathlon.survey(case, {0: 1}) == frozenset()
    assert "mask" not in sources_decathlon.load(case, {0: 1})


def test_a_survey_reads_the_mask_alone(tmp_path):
    case = one(tmp_path)
    case.files[0].unlink()
    assert sources_decathlon.survey(case) == {0, 1, 2}


@pytest.mark.parametrize("wrong", [0.5, 1.0001, np.nan, np.inf])
def test_a_value_in_a_mask_that_is_not_whole_is_refused(tmp_path, wrong):
    mask = MASK.astype(np.float32)
    mask[0, 0, 3] = wrong
    case = one(tmp_path, mask=mask)
    for read in (sources_decathlon.load, sources_decathlon.survey):
        error = refused(read, case)
        assert error.code == ("UNKNOWN_LABEL" if np.isfinite(wrong) else "NOT_FINITE")


@pytest.mark.parametrize("wrong", [-1, 256, 1000])
def test_an_id_that_records_cannot_hold_is_refused_unless_it_is_mapped(tmp_path, wrong):
    mask = MASK.astype(np.int16)
    mask[5, 4, 3] = wrong
    case = one(tmp_path, mask=mask)
    error = refused(sources_decathlon.load, case)
    assert error.code == "UNKNOWN_LABEL" and f"holds {wrong};" in error.message
    mapped = sources_decathlon.load(case, {0: 0, 1: 1, 2: 2, wrong: 3})["mask"]
    assert mapped[3, 4, 5] == 3 and (mapped == 3).sum() == 1


def test_ids_are_mapped_all_at_once_and_only_as_the_mapping_says(tmp_path):
    case = one(tmp_path)
    swap = {0: 0, 1: 2, 2: 1, 9: 9}
    np.testing.assert_array_equal(
        sources_decathlon.load(case, swap)["mask"], np.array([0, 2, 1])[MASK.T]
    )
    assert sources_decathlon.survey(case, swap) == {0, 1, 2}
    assert sources_decathlon.survey(case, {0: 0, 1: 1, 2: 1}) == {0, 1}
    for read in (sources_decathlon.load, sources_decathlon.survey):
        error = refused(read, case, {0: 0, 1: 1})
        assert error.code == "UNKNOWN_LABEL" and "holds 2;" in error.message
        assert "2 ids" in error.message


def test_a_mask_of_0_and_255_is_mapped_explicitly(tmp_path):
    case = one(tmp_path, mask=(MASK > 0).astype(np.uint8) * 255)
    assert sources_decathlon.survey(case) == {0, 255}
    assert sources_decathlon.survey(case, {0: 0, 255: 1}) == {0, 1}
    np.testing.assert_array_equal(
        sources_decathlon.load(case, {0: 0, 255: 1})["mask"], (MASK > 0).T
    )
    assert refused(sources_decathlon.load, case, {255: 1}).code == "UNKNOWN_LABEL"


def test_a_mapping_to_ids_that_records_cannot_hold_is_the_callers_mistake(tmp_path):
    case = one(tmp_path)
    for ids in ({0: -1}, {0: 0, 1: 256}):
        with pytest.raises(ValueError, match="between 0 and 255") as error:
            sources_decathlon.survey(case, ids)
        assert not isinstance(error.value, CourseDataError)


def test_an_image_in_the_place_of_a_mask_is_refused(tmp_path):
    error = refused(sources_decathlon.load, one(tmp_path, mask=IMAGE))
    assert error.code == "UNKNOWN_LABEL"
    some = sorted(set(IMAGE.ravel().tolist()))
    assert error.message.count(",") < 8 and str(some[-1]) not in error.message


def test_a_4d_mask_is_refused_by_its_header(tmp_path):
    nii(tmp_path / "a.nii", IMAGE)
    nii(tmp_path / "b.nii", np.stack([MASK, MASK], -1))
    found = sources_decathlon.find(
        listed(tmp_path, training=[{"image": "a.nii", "label": "b.nii"}])
    )
    assert ends(found) == [("SHAPE_MISMATCH", ["a.nii", "b.nii"])]


# Image and mask in one place


@pytest.mark.parametrize(
    "affine",
    [
        moved(a03=91.5 + 0.02),
        moved(a23=-77.5 + 0.05),
        moved(a00=-0.81),
        moved(a22=3.03),
        moved(a00=0.8),
        moved(a22=-3),
    ],
    ids=["x", "z", "narrower", "thicker", "mirrored", "upside down"],
)
def test_a_mask_that_lies_elsewhere_is_refused_with_both_grids(tmp_path, affine):
    case = one(tmp_path, mask_affine=affine)
    error = refused(sources_decathlon.load, case)
    assert error.code == "MASK_MISMATCH" and error.files == case.files
    assert "image 4 x 5 x 6 voxels of 3 x 0.7 x 0.8 mm" in error.message
    assert "mask 4 x 5 x 6 voxels of" in error.message
    # The distance, worked out by nibabel from the corners of both.
    corners = np.array(list(np.ndindex(2, 2, 2))) * np.subtract(SHAPE, 1)
    apart = nibabel.affines.apply_affine(AFFINE, corners) - nibabel.affines.apply_affine(
        affine, corners
    )
    stated = float(error.message.split("up to ")[1].split(" mm")[0])
    assert stated == pytest.approx(np.abs(apart).max(), rel=0.01)


@pytest.mark.parametrize("shape", [(6, 5, 3), (5, 6, 4), (12, 10, 8)])
def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path, shape):
    case = one(tmp_path, mask=np.zeros(shape, np.uint8))
    error = refused(sources_decathlon.load, case)
    assert error.code == "MASK_MISMATCH"
    assert "image 4 x 5 x 6 voxels" in error.message
    assert f"mask {' x '.join(map(str, shape[::-1]))} voxels" in error.message


@LAWFUL
@given(
    st.tuples(*[st.floats(-500, 500)] * 3),
    st.tuples(*[st.floats(0.3, 5)] * 3),
    st.tuples(*[st.floats(-180, 180)] * 3),
)
def test_what_formats_round_off_is_no_mismatch(tmp_path_factory, origin, spacing, angles):
    from scipy.spatial.transform import Rotation

    folder = tmp_path_factory.mktemp("rounding")
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = origin
    image, mask = (nibabel.Nifti1Image(v, affine, dtype=v.dtype) for v in (IMAGE, MASK))
    # One file says it in a matrix of 32 bits, the other in a quaternion alone.
    mask.set_qform(affine, code=1)
    mask.set_sform(None, code=0)
    nibabel.save(image, folder / "a.nii")
    nibabel.save(mask, folder / "b.nii")
    path = listed(folder, training=[{"image": "a.nii", "label": "b.nii"}])
    assert "mask" in sources_decathlon.load(sources_decathlon.find(path).cases[0])


# As a source


def test_cases_and_loaders_travel_to_worker_processes(tmp_path):
    case = one(tmp_path, modality={"0": "CT"})
    work = functools.partial(sources_decathlon.load, mapping={0: 0, 1: 1, 2: 1})
    case_there, work_there = pickle.loads(pickle.dumps((case, work)))  # noqa: S301
    assert work_there(case_there)["modality"] == "CT"


def test_what_is_printed_of_a_case_leads_to_nobody(tmp_path):
    nii(tmp_path / "Surname.nii", IMAGE)
    path = listed(
        tmp_path, training=[{"image": "Surname.nii", "patient": "Given"}], test=["no.nii"]
    )
    printed = repr(sources_decathlon.find(path))
    assert "Surname" not in printed and "Given" not in printed and str(tmp_path) not in printed


def test_the_reader_refuses_by_role_and_names_no_file(tmp_path):
    path = nii(tmp_path / "a.nii", np.stack([IMAGE, IMAGE], -1))
    assert nifti.read(path, "image")[0].shape == (4, 5, 6, 2)
    error = refused(nifti.read, path, "mask")
    assert error.code == "SHAPE_MISMATCH" and error.files == (path,)
    assert error.message == "the mask is 4D with 1 values at a voxel; expected 3D with 1"
