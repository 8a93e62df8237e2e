"""A volume's geometry is SimpleITK's, its files are nibabel's, its resampling is SciPy's."""

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from helpers import volume
from helpers.errors import CourseDataError
from helpers.volume import Volume

LAWFUL = settings(max_examples=25, deadline=None, derandomize=True)
OBLIQUE = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
MM, ANY = st.tuples(*[st.floats(0.1, 10)] * 3), st.tuples(*[st.floats(-180, 180)] * 3)


def oblique(dtype="int16", shape=(4, 5, 6), direction=OBLIQUE) -> Volume:
    voxels = np.random.default_rng(0).integers(0, 120, shape).astype(dtype)
    return Volume(voxels, (3.0, 0.7, 0.8), (-12.5, 33.0, 101.25), direction, ("a note",))


@LAWFUL
@given(MM, ANY, ANY, ANY)
def test_points_are_where_simpleitk_puts_them(spacing, origin, angles, index):
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    ours = Volume(np.zeros((2, 3, 4), np.uint8), spacing, origin, direction)
    point = ours.to_patient(index)
    expected = ours.to_sitk().TransformContinuousIndexToPhysicalPoint(index[::-1])
    np.testing.assert_allclose(point, expected, atol=1e-6)
    np.testing.assert_allclose(ours.to_index(point), index, atol=1e-6)
    np.testing.assert_allclose(ours.to_patient([index, index])[1], point, atol=1e-9)


def test_the_same_geometry_means_every_voxel_at_the_same_place():
    ours = oblique()
    voxels, spacing, origin = ours.voxels, ours.spacing, ours.origin
    turned = OBLIQUE @ Rotation.from_euler("x", 0.5, degrees=True).as_matrix()
    moved = Volume(voxels, spacing, np.add(origin, (0.5, 0, 0)), OBLIQUE)
    assert ours.same_geometry(ours.with_voxels(voxels > 9))
    assert ours.same_geometry(Volume(voxels, (3, 0.7, 0.80001), origin, OBLIQUE))
    assert not ours.same_geometry(Volume(voxels, (3, 0.7, 0.81), origin, OBLIQUE))
    assert not ours.same_geometry(Volume(voxels, spacing, origin, turned))
    assert not ours.same_geometry(Volume(voxels[1:], spacing, origin, OBLIQUE))
    assert ours.same_geometry(moved, 0.51) and not ours.same_geometry(moved, 0.49)


CUBE, NAN, LEANING = np.zeros((2, 2, 2)), np.nan, [[1, 0.2, 0], [0, 1, 0], [0, 0, 1]]
ODD = [{"spacing": mm} for mm in ((0, 1, 1), (1, -1, 1), (1, 1, NAN), (np.inf, 1, 1))]
ODD += [{"direction": np.zeros((3, 3))}, {"direction": LEANING}, {"origin": (0, 0, NAN)}]
WRONG = [("NO_GEOMETRY", Volume, CUBE, how) for how in ODD]
WRONG += [("NO_GEOMETRY", oblique().resample, -1, {})]
WRONG += [("SHAPE_MISMATCH", Volume, one, {}) for one in (CUBE[0], CUBE[..., None])]
FLAT, COLOUR = sitk.Image([4, 4], sitk.sitkInt16), sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3)
RGB, FOUR = sitk.Image([4, 4], sitk.sitkVectorUInt8, 3), sitk.Image([4, 4, 4, 2], sitk.sitkInt16)
WRONG += [("SHAPE_MISMATCH", Volume.from_sitk, one, {}) for one in (FLAT, COLOUR, RGB, FOUR)]
WRONG += [("SHAPE_MISMATCH", oblique().with_voxels, np.zeros((5, 4, 6)), {})]


@pytest.mark.parametrize("code, call, what, how", WRONG)
def test_what_is_no_volume_is_refused(code, call, what, how):
    with pytest.raises(CourseDataError) as refused:
        call(what, **how)
    assert refused.value.code == code


@pytest.mark.parametrize("ending", volume.SUFFIXES)
def test_a_file_gives_back_voxels_and_geometry_and_is_what_nibabel_reads(tmp_path, ending):
    for hand, dtype in itertools.product((1, -1), ("uint8", "int16", "int64", "float32", "bool")):
        ours = oblique(dtype, direction=OBLIQUE @ np.diag([1, 1, hand]))
        path = ours.save(tmp_path / "new folder" / f"a mask ü{ending}")
        back = volume.load(path)
        assert back.voxels.dtype == (dtype if dtype != "bool" else "uint8")
        assert back.same_geometry(ours) and back.notes == ()
        np.testing.assert_array_equal(back.voxels, ours.voxels)
        assert (path.read_bytes()[:2] == b"\x1f\x8b") == (ending == ".nii.gz")
        if ".nii" in ending:
            image = nibabel.load(path)
            np.testing.assert_array_equal(np.asarray(image.dataobj), ours.voxels.T)
            corners = np.array(list(np.ndindex(2, 2, 2))) * np.subtract(ours.shape, 1)
            theirs = nibabel.affines.apply_affine(image.affine, corners[:, ::-1])
            # NIfTI counts towards right and front as positive, DICOM towards left and back.
            np.testing.assert_allclose(theirs * (-1, -1, 1), ours.to_patient(corners), atol=1e-3)


def test_another_kind_of_file_is_refused_by_name(tmp_path):
    for name in ("image.dcm", "image", "image.nii.zip", "nii"):
        for action in (oblique().save, volume.load):
            with pytest.raises(CourseDataError, match=r"UNKNOWN_FORMAT.*\.nii\.gz"):
                action(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", volume.SUFFIXES)
def test_a_file_that_is_cut_no_image_or_not_finite_is_refused_without_its_folder(tmp_path, ending):
    path = tmp_path / "doe_john" / f"damaged{ending}"
    content = oblique().save(path).read_bytes()
    endless = Volume(np.array([[[0, np.nan, np.inf]]], np.float32)).save(path).read_bytes()
    cut = "TRUNCATED" if ".nii" in ending else "UNREADABLE"
    wrong = {content[:-99]: cut, content[:-9]: cut, endless: "NOT_FINITE", None: "UNREADABLE"}
    wrong |= dict.fromkeys((b"", b"none", b"\0" * 400), "UNREADABLE")
    for damaged, code in wrong.items():
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(CourseDataError) as refused:
            volume.load(path)
        assert refused.value.code == code and refused.value.files == (path,), damaged
        assert path.name in str(refused.value) and "doe_john" not in str(refused.value)


def field(z, y, x):
    """A smooth function of patient coordinates, in mm."""
    return 100 * np.sin(x / 25) + 60 * np.cos(y / 30) + z * y / 40


def smooth(direction=OBLIQUE) -> Volume:
    blank = Volume(np.zeros((16, 20, 24)), (2.5, 1.5, 1.25), (-15, -12, -18), direction)
    points = blank.to_patient(np.moveaxis(np.indices(blank.shape), 0, -1))
    return blank.with_voxels(field(*np.moveaxis(points, -1, 0)[::-1]).astype(np.float32), "read")


@pytest.mark.parametrize("spacing", [1.0, 2.0, (1.25, 3.0, 2.0), (5.0, 1.5, 0.7)], ids=str)
def test_resampling_interpolates_linearly_as_scipy_does_after_smoothing_as_simpleitk_does(spacing):
    ours = smooth()
    new, spacing = ours.resample(spacing), np.broadcast_to(spacing, 3)
    np.testing.assert_allclose(new.spacing, spacing)
    # The same corner and, to the nearest voxel, the same extent.
    np.testing.assert_allclose(new.to_patient((-0.5,) * 3), ours.to_patient((-0.5,) * 3), atol=1e-9)
    beyond = np.multiply(new.shape, new.spacing) - np.multiply(ours.shape, ours.spacing)
    assert (np.abs(beyond) <= spacing / 2 + 1e-9).all()
    image = ours.to_sitk()
    for axis, (old, mm) in enumerate(zip(ours.spacing[::-1], spacing[::-1], strict=True)):
        if mm > old:  # variances add
            image = sitk.RecursiveGaussian(image, np.sqrt(mm**2 - old**2) / 2, False, 0, axis)
    scale = np.reshape(spacing / ours.spacing, (3, 1, 1, 1))
    places = (np.indices(new.shape) + 0.5) * scale - 0.5
    source, finer = sitk.GetArrayFromImage(image), (scale <= 1).all()
    expected = ndimage.map_coordinates(source, places, order=1, mode="nearest")
    np.testing.assert_allclose(new.voxels, expected, atol=2e-3 if finer else 1.0)
    assert (volume.SMOOTHED in new.notes) != finer and new.notes[0] == "read"


@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE], ids=["upright", "oblique"])
@pytest.mark.parametrize("phase", range(4))
def test_one_bright_column_in_four_is_a_quarter_as_bright_on_a_grid_as_coarse(turn, phase):
    voxels = np.zeros((8, 16, 96), np.int16)
    voxels[..., phase::4] = 1000
    fine = Volume(voxels, (0.5, 0.5, 0.5), direction=turn)
    coarse = fine.resample(2.0)
    quarter = turn @ [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # its y runs along our x
    sideways = Volume(np.zeros((4, 16, 8)), (0.5, 2, 0.5), fine.to_patient((2, 6, 80)), quarter)
    np.testing.assert_allclose(fine.resample_like(sideways).voxels, 250, rtol=0.02)
    for found in (coarse, fine.resample_like(coarse)):
        np.testing.assert_allclose(found.voxels[..., 3:-3], 250, rtol=0.02)
    mask = fine.with_voxels(voxels > 0).resample(2.0, is_mask=True)
    assert mask.voxels.dtype == bool and volume.SMOOTHED not in mask.notes


COLUMNS = [  # voxels 2 mm apart, the new spacing, whether they are ids, what they become
    ([0, 90, 7], 2, False, [0, 90, 7]),  # and nothing is rounded or smoothed
    ([0, 100], 1, False, [0, 25, 75, 100]),
    ([10, 50, 90], 4, True, [50, 90]),  # the last one lies on the rim
    ([10, 50, 90], 13, True, [90]),  # and here beyond it
    ([0, 3, 120], 1.5, True, [0, 3, 3, 120]),
]


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("column, spacing, is_mask, expected", COLUMNS)
def test_a_column_becomes_what_a_pencil_makes_of_it(column, spacing, is_mask, expected, axis):
    shape, old, new = np.roll([(-1, 2, spacing), (1, 1, 1), (1, 1, 1)], axis, axis=0).T
    for dtype in ("bool", "u1", "i2", "i4", "f4")[: 5 if is_mask else 0] or ("i2",):
        stored = np.reshape(column, shape.astype(int)).astype(dtype)
        found = Volume(stored, old, direction=OBLIQUE).resample(new, is_mask=is_mask)
        np.testing.assert_allclose(found.voxels.ravel(), np.array(expected).astype(dtype))
        assert found.voxels.dtype == (dtype if is_mask else "f4")
        by = " x ".join(f"{mm:g}" for mm in new)
        assert found.notes == (f"resampled to {by} mm",)


def test_a_prediction_goes_back_into_the_geometry_it_came_from_and_onto_any_other_grid():
    ours = smooth()
    mask = ours.with_voxels((ours.voxels > 80).astype(np.uint8))
    returned = mask.resample(0.6, is_mask=True).resample_like(ours, is_mask=True)
    assert returned.same_geometry(ours) and np.array_equal(returned.voxels, mask.voxels)
    turned = Rotation.from_euler("z", 0.3).as_matrix()
    grid = Volume(np.zeros((6, 7, 8)), (1, 1, 1), (-5, 2, -3), turned)
    new = smooth(np.eye(3)).resample_like(grid)
    assert new.same_geometry(grid)
    expected = [field(*grid.to_patient(index)[::-1]) for index in np.ndindex(6, 7, 8)]
    np.testing.assert_allclose(new.voxels.ravel(), expected, atol=0.5)


@pytest.mark.parametrize("is_mask, outside", [(False, -1000), (True, 0)])
def test_beyond_a_crop_an_image_has_its_darkest_value_and_a_mask_is_empty(is_mask, outside):
    crop = Volume(np.full((2, 2, 2), 500, np.int16), origin=(2, 2, 2))
    crop.voxels[0, 0, 0] = -1000
    expected = np.full((6, 6, 6), outside)
    expected[2:4, 2:4, 2:4] = crop.voxels
    found = crop.resample_like(Volume(np.zeros((6, 6, 6), np.int16)), is_mask=is_mask)
    np.testing.assert_array_equal(found.voxels, expected)


def test_in_lps_order_is_simpleitks_dicom_orient_from_every_orientation():
    turn = Rotation.from_euler("xyz", [7, -4, 11], degrees=True).as_matrix()  # oblique
    voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    given = Volume(voxels, (3, 1.5, 0.5), (10, -20, 30), turn, ("read",))
    wrong = []
    for order in itertools.permutations(("RL", "AP", "IS")):
        for letters in map("".join, itertools.product(*order)):
            there = Volume.from_sitk(sitk.DICOMOrient(given.to_sitk(), letters))
            ours = there.with_voxels(there.voxels, "read").in_lps_order()
            same = np.array_equal(ours.voxels, voxels) and ours.same_geometry(given)
            same &= np.allclose(ours.spacing, given.spacing)
            same &= ours.notes == ("read", volume.TURNED)[: 1 + (letters != "LPS")]
            wrong += [] if same else [letters]
    assert wrong == []
