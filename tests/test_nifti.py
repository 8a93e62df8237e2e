"""A NIfTI file is read as nibabel and SimpleITK read it, or it is refused; doubt is said."""

import gzip
import os
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers import nifti, volume
from helpers.errors import CODES, CourseDataError
from helpers.volume import Volume

AFFINE = np.array([[-0.8, 0, 0, 91.5], [0, -0.7, 0, 120.25], [0, 0, 3, -77.5], [0, 0, 0, 1]])
SHAPE = (6, 5, 4)  # nibabel's order, [x, y, z]
IMAGE = np.random.default_rng(0).integers(0, 120, SHAPE).astype(np.int16)
FIRST = np.eye(4)[:1].T  # the row of x
SHIFTED, MIRRORED = AFFINE + FIRST * [0, 0, 0, 5], AFFINE * (1 - 2 * FIRST)


def nii(path: Path, voxels=IMAGE, affine=AFFINE, slope=None, forms=None, **fields) -> Path:
    """A NIfTI-1 file in the voxels' byte order; `forms` are (affine, code) of sform and qform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = nibabel.Nifti1Header(endianness=">" if voxels.dtype.byteorder == ">" else "<")
    image = nibabel.Nifti1Image(voxels, affine, header, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(*slope or (None, None))
    if forms:
        image.set_qform(*forms[1])
        image.set_sform(*forms[0])
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def patched(path: Path, at: int, content: bytes) -> Path:
    """The file with other bytes at a place."""
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    return path


def code_of(path: Path, role="image", act=nifti.read) -> str:
    with pytest.raises(CourseDataError) as refused:
        act(path, role)
    assert refused.value.files == (path,) and refused.value.message.startswith(f"the {role}")
    assert path.name not in refused.value.message and str(path.parent) not in str(refused.value)
    return refused.value.code


@pytest.mark.parametrize("slope", [None, (1, 0), (0.37, -12.5), (1, 5)], ids=str)
def test_voxels_dtype_and_place_are_simpleitks_and_values_nibabels(tmp_path, slope):
    different = []
    for kind in [*"bBhHiIqQfd", ">h", ">i", ">f", ">d"]:
        for ending in (".nii", ".nii.gz"):
            path = nii(tmp_path / f"Schädel 首{ending}", IMAGE.astype(kind), slope=slope)
            voxels, place = nifti.read(path)
            theirs = Volume.from_sitk(sitk.ReadImage(str(path)))
            same = voxels.dtype == theirs.voxels.dtype and voxels.dtype.isnative
            same &= voxels.flags.writeable and np.array_equal(volume.load(path).voxels, voxels)
            for oracle in (theirs.voxels, nibabel.load(path).get_fdata().T):
                same &= np.allclose(voxels, oracle, rtol=2e-7, atol=1e-5)
            same &= place.same_geometry(theirs, 1e-4) and place.notes == ()
            same &= nifti.describe(path) == (voxels.shape, voxels.dtype)
            path.unlink()
            different += [] if same else [(kind, ending)]
    assert different == []


@pytest.mark.parametrize("kind", ["i2", ">f4"])
def test_a_4d_image_has_its_channels_last_and_nothing_else_is_4d(tmp_path, kind):
    channels = np.stack([IMAGE, IMAGE + 7, 2 * IMAGE], -1).astype(kind)
    path = nii(tmp_path / "a.nii.gz", channels)
    voxels, place = nifti.read(path)
    np.testing.assert_array_equal(voxels, channels.transpose(2, 1, 0, 3))
    np.testing.assert_array_equal(place.voxels, IMAGE.T)
    assert nifti.describe(path) == ((4, 5, 6, 3), np.dtype(kind).newbyteorder("="))
    assert code_of(path, "mask") == code_of(path, "volume", nifti.describe) == "SHAPE_MISMATCH"
    nii(path, IMAGE[..., np.newaxis, np.newaxis])  # as some tools write
    np.testing.assert_array_equal(nifti.read(path, "mask")[0], IMAGE.T)


def test_what_is_no_volume_of_real_numbers_is_refused_by_its_header(tmp_path):
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    patched(nii(tmp_path / "pair.nii"), 344, b"ni1")  # whose voxels are in a second file
    nii(tmp_path / "2d.nii", IMAGE[:, :, 0])
    nii(tmp_path / "5d.nii", np.zeros((3, 3, 3, 2, 2), "i2"))
    nii(tmp_path / "colour.nii.gz", colour)
    nii(tmp_path / "complex.nii", IMAGE.astype("c8"))
    nii(tmp_path / "sheared.nii", affine=AFFINE + FIRST * [0, 0.5, 0, 0])
    nii(tmp_path / "metres.nii", xyzt_units=1)
    for name, side in (("terabytes.nii", 32000), ("empty.nii", 0)):
        patched(nii(tmp_path / name), 40, struct.pack("<4h", 3, side, side, side))
    nii(tmp_path / "a.nii").rename(tmp_path / "a.png")
    (tmp_path / "folder.nii").mkdir()
    expected = {"2d.nii": "SHAPE_MISMATCH", "5d.nii": "SHAPE_MISMATCH", "a.png": "UNKNOWN_FORMAT"}
    expected |= {"empty.nii": "SHAPE_MISMATCH"}
    expected |= {"colour.nii.gz": "PIXEL_FORMAT", "complex.nii": "PIXEL_FORMAT"}
    expected |= {"sheared.nii": "NO_GEOMETRY", "metres.nii": "NO_GEOMETRY"}
    os.mkfifo(tmp_path / "pipe.nii")  # which nobody writes to
    unreadable = ["pair.nii", "folder.nii", "absent.nii", "pipe.nii"]
    expected |= dict.fromkeys(unreadable, "UNREADABLE") | {"terabytes.nii": "TOO_LARGE"}
    for act in (nifti.read, nifti.describe):
        assert {name: code_of(tmp_path / name, act=act) for name in expected} == expected


NEAR = AFFINE + FIRST * [0, 0, 0, 0.005]  # mm, within what files round off
FORMS = [  # sform, qform, and whether there is a note; None: refused
    ((AFFINE, 1), (AFFINE, 1), False),
    ((AFFINE, 2), (NEAR, 1), False),
    ((AFFINE, 2), (None, 0), False),
    ((None, 0), (AFFINE, 1), False),
    ((AFFINE + FIRST * [0, 0, 0, 0.05], 2), (AFFINE, 1), True),
    ((SHIFTED, 4), (AFFINE, 1), True),
    ((SHIFTED, 1), (AFFINE, 1), True),
    ((AFFINE, 2), (MIRRORED, 1), None),
    ((AFFINE, 1), (MIRRORED, 1), None),
]


@pytest.mark.parametrize("sform, qform, noted", FORMS)
def test_forms_that_differ_are_noted_with_the_one_taken_or_refused_if_an_axis_runs_back(
    tmp_path, sform, qform, noted
):
    path = nii(tmp_path / "a.nii.gz", forms=(sform, qform))
    if noted is None:
        assert code_of(path) == code_of(path, act=nifti.describe) == "NO_GEOMETRY"
        return
    corners = np.array(list(np.ndindex(2, 2, 2))) * np.subtract(SHAPE, 1)
    place, oracle = volume.load(path), nibabel.load(path).affine
    assert place.notes == ((nifti.TWO_PLACES,) if noted else ())
    expected = nibabel.affines.apply_affine(oracle, corners) * (-1, -1, 1)
    np.testing.assert_allclose(place.to_patient(corners[:, ::-1]), expected, atol=1e-3)


def test_spacing_that_is_told_twice_and_a_place_that_is_not_told_are_noted(tmp_path):
    path = nii(tmp_path / "a.nii", forms=((AFFINE, 1), (None, 0)))
    patched(path, 80, struct.pack("<3f", 3, 3, 3))  # pixdim, which SimpleITK takes
    assert sitk.ReadImage(str(path)).GetSpacing() == (3, 3, 3)
    assert volume.load(path).notes == (nifti.TWO_PLACES,)
    np.testing.assert_allclose(volume.load(path).spacing, (3, 0.7, 0.8), rtol=1e-6)
    nowhere = volume.load(nii(path, forms=((None, 0), (None, 0))))
    assert nowhere.notes == (nifti.NO_PLACE,)
    assert nowhere.same_geometry(Volume.from_sitk(sitk.ReadImage(str(path))))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_what_is_cut_or_flipped_is_refused_where_simpleitk_pads_it(tmp_path, ending):
    # Smooth, so that gzip data are Huffman codes, which a flipped bit changes quietly.
    noise = np.random.default_rng(0).normal(size=(64, 64, 32))
    voxels = (ndimage.gaussian_filter(noise, 2) * 20000).astype(np.int16)
    path, random = nii(tmp_path / f"a{ending}", voxels), np.random.default_rng(0)
    content = path.read_bytes()
    for part in (len(content) // 3, len(content) * 9 // 10, len(content) - 1):
        path.write_bytes(content[:part])
        assert sitk.ReadImage(str(path)).GetSize() == (64, 64, 32)
        assert code_of(path) == code_of(path, "mask") == "TRUNCATED"
    if ending == ".nii":
        return
    for position in random.integers(len(content) // 4, len(content) - 8, 20):
        path.write_bytes(content)
        patched(path, position, bytes([content[position] ^ 1 << random.integers(8)]))
        assert code_of(path) in ("UNREADABLE", "TRUNCATED")
    path.write_bytes(content)
    assert code_of(patched(path, len(content) - 8, b"\0\0\0\0")) == "UNREADABLE"
    raw = gzip.decompress(content)
    path.write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]))  # odd, but whole
    np.testing.assert_array_equal(nifti.read(path)[0], voxels.T)


def test_one_value_that_is_not_finite_is_refused_where_simpleitk_reads_0(tmp_path):
    path = tmp_path / "a.nii.gz"
    for kind, value in (("<f4", np.nan), (">f4", np.inf), ("<f8", -np.inf), (">f8", np.nan)):
        for shape in (SHAPE, (*SHAPE, 2)):
            voxels = np.random.default_rng(0).normal(size=shape).astype(kind)
            voxels.flat[-1] = value
            assert code_of(nii(path, voxels)) == "NOT_FINITE", (value, kind)
            assert np.isfinite(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))).all()


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_stands_in_the_header_it_is_a_volume_or_a_named_refusal(tmp_path_factory, changes):
    path, code = nii(tmp_path_factory.getbasetemp() / "headers" / "a.nii"), None
    for position, value in changes:
        patched(path, position, bytes([value]))
    try:
        voxels, place = nifti.read(path)
    except CourseDataError as error:
        code = error.code
    assert code in CODES or (np.isfinite(voxels).all() and min(place.spacing) > 0)
