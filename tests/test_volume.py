"""A volume's geometry is SimpleITK's, its files are nibabel's, its resampling is SciPy's."""

import contextlib
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

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
OBLIQUE = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
lengths_mm = st.floats(0.1, 10)
coordinates_mm = st.floats(-500, 500)
directions = st.tuples(*[st.floats(-180, 180)] * 3).map(
    lambda angles: Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
)


def oblique(dtype="int16", shape=(4, 5, 6), direction=OBLIQUE) -> Volume:
    voxels = np.random.default_rng(0).integers(0, 120, shape).astype(dtype)
    return Volume(voxels, (3.0, 0.7, 0.8), (-12.5, 33.0, 101.25), direction, ("a note",))


# Patient coordinates


@given(
    st.tuples(lengths_mm, lengths_mm, lengths_mm),
    st.tuples(coordinates_mm, coordinates_mm, coordinates_mm),
    directions,
    st.tuples(*[st.floats(-50, 50)] * 3),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_points_are_where_simpleitk_puts_them(spacing, origin, direction, index):
    ours = Volume(np.zeros((2, 3, 4), np.uint8), spacing, origin, direction)
    theirs = sitk.Image([4, 3, 2], sitk.sitkUInt8)
    theirs.SetSpacing(spacing[::-1])
    theirs.SetOrigin(origin)
    theirs.SetDirection(direction.ravel().tolist())
    point = ours.to_patient(index)
    expected = theirs.TransformContinuousIndexToPhysicalPoint(index[::-1])
    np.testing.assert_allclose(point, expected, atol=1e-6)
    np.testing.assert_allclose(ours.to_index(point), index, atol=1e-6)
    whole = tuple(int(n) for n in np.round(index))
    expected = theirs.TransformIndexToPhysicalPoint(whole[::-1])
    np.testing.assert_allclose(ours.to_patient(whole), expected, atol=1e-6)
    back = theirs.TransformPhysicalPointToContinuousIndex(point.tolist())
    np.testing.assert_allclose(ours.to_index(point)[::-1], back, atol=1e-6)


def test_a_step_in_z_goes_towards_the_head_by_one_spacing():
    ours = Volume(np.zeros((2, 2, 2)), (5, 2, 1), (10, 20, 30))
    np.testing.assert_allclose(ours.to_patient((1, 0, 0)), (10, 20, 35))
    np.testing.assert_allclose(ours.to_patient((0, 1, 0)), (10, 22, 30))
    np.testing.assert_allclose(ours.to_patient((0, 0, 1)), (11, 20, 30))


def test_the_same_geometry_means_every_voxel_at_the_same_place():
    ours = oblique()
    turned = OBLIQUE @ Rotation.from_euler("x", 0.5, degrees=True).as_matrix()
    assert ours.same_geometry(ours.with_voxels(np.zeros(ours.shape)))
    assert ours.same_geometry(Volume(ours.voxels, (3, 0.7, 0.80001), ours.origin, OBLIQUE))
    assert not ours.same_geometry(Volume(ours.voxels, (3, 0.7, 0.81), ours.origin, OBLIQUE))
    assert not ours.same_geometry(Volume(ours.voxels, (3, 0.8, 0.7), ours.origin, OBLIQUE))
    assert not ours.same_geometry(Volume(ours.voxels, ours.spacing, ours.origin, turned))
    assert not ours.same_geometry(Volume(ours.voxels, ours.spacing, (0, 0, 0), OBLIQUE))
    assert not ours.same_geometry(Volume(ours.voxels[1:], ours.spacing, ours.origin, OBLIQUE))
    moved = Volume(ours.voxels, ours.spacing, np.add(ours.origin, (0.5, 0, 0)), OBLIQUE)
    assert not ours.same_geometry(moved)
    assert ours.same_geometry(moved, tolerance_mm=0.6)


# What is no geometry


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 3, 3, 1)])
def test_voxels_that_are_not_three_dimensional_are_refused(shape):
    with pytest.raises(CourseDataError, match=r"SHAPE_MISMATCH.*\[z, y, x\]"):
        Volume(np.zeros(shape))


@pytest.mark.parametrize(
    "wrong",
    [
        {"spacing": (0, 1, 1)},
        {"spacing": (1, -1, 1)},
        {"spacing": (1, 1, np.nan)},
        {"spacing": (np.inf, 1, 1)},
        {"spacing": (1, 1)},
        {"direction": np.zeros((3, 3))},
        {"direction": np.ones((3, 3))},
        {"direction": np.full((3, 3), np.nan)},
        {"direction": np.eye(2)},
        {"origin": (np.nan, 0, 0)},
        {"origin": (0, 0)},
    ],
    ids=str,
)
def test_an_impossible_geometry_is_refused(wrong):
    with pytest.raises(CourseDataError) as refused:
        Volume(np.zeros((2, 2, 2)), **wrong)
    assert refused.value.code == "NO_GEOMETRY"


def test_other_voxels_take_over_geometry_and_notes_if_they_fit():
    ours = oblique()
    mask = ours.with_voxels(ours.voxels > 50, "thresholded")
    assert mask.same_geometry(ours)
    assert mask.notes == ("a note", "thresholded")
    with pytest.raises(CourseDataError) as refused:
        ours.with_voxels(np.zeros((5, 4, 6)))
    assert refused.value.code == "SHAPE_MISMATCH"
    assert "(4, 5, 6)" in refused.value.message
    assert "(5, 4, 6)" in refused.value.message


def test_its_text_tells_shape_dtype_and_spacing():
    assert repr(oblique()) == "Volume(4 x 5 x 6 int16, 3 x 0.7 x 0.8 mm)"


# SimpleITK


def test_simpleitk_gets_the_same_image_in_its_own_order():
    ours = oblique()
    image = ours.to_sitk()
    assert image.GetSize() == (6, 5, 4)
    assert image.GetSpacing() == (0.8, 0.7, 3.0)
    assert image.GetOrigin() == ours.origin
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), OBLIQUE)
    assert image.GetPixel(5, 1, 2) == ours.voxels[2, 1, 5]
    back = Volume.from_sitk(image, ("kept",))
    assert back.same_geometry(ours, 1e-9)
    np.testing.assert_array_equal(back.voxels, ours.voxels)
    assert back.notes == ("kept",)


@pytest.mark.parametrize("dtype", ["float16", ">i2", ">f4", "bool"])
def test_dtypes_that_simpleitk_lacks_are_handed_over_without_loss(dtype):
    ours = oblique(dtype)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours.to_sitk()), ours.voxels)


@pytest.mark.parametrize(
    "image",
    [
        sitk.Image([4, 4], sitk.sitkInt16),
        sitk.Image([4, 4, 4, 2], sitk.sitkInt16),
        sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3),
    ],
    ids=["2D", "4D", "colour"],
)
def test_what_is_no_scalar_volume_is_refused_and_named(image, tmp_path):
    with pytest.raises(CourseDataError) as refused:
        Volume.from_sitk(image)
    assert refused.value.code == "SHAPE_MISMATCH"
    assert f"{image.GetDimension()}D" in refused.value.message
    path = tmp_path / "study.nrrd"
    sitk.WriteImage(image, str(path))
    with pytest.raises(CourseDataError) as refused:
        volume.load(path)
    assert refused.value.code == "SHAPE_MISMATCH"
    assert refused.value.files == (path,)


# Files


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "float32"])
def test_a_file_gives_back_voxels_and_geometry(tmp_path, ending, dtype):
    ours = oblique(dtype)
    path = ours.save(tmp_path / "new folder" / f"a mask ü{ending}")
    assert path.is_file()
    back = volume.load(path)
    assert back.voxels.dtype == dtype
    np.testing.assert_array_equal(back.voxels, ours.voxels)
    assert back.same_geometry(ours)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("handedness", [1, -1])
def test_nibabel_reads_what_was_saved_at_the_same_place(tmp_path, ending, handedness):
    ours = oblique(direction=OBLIQUE @ np.diag([1, 1, handedness]))
    image = nibabel.load(ours.save(tmp_path / f"image{ending}"))
    np.testing.assert_array_equal(np.asarray(image.dataobj), ours.voxels.transpose(2, 1, 0))
    for index in np.ndindex(2, 2, 2):
        corner = np.multiply(index, np.subtract(ours.shape, 1))
        right, anterior, superior = nibabel.affines.apply_affine(image.affine, corner[::-1])
        # NIfTI counts towards right and front as positive, DICOM towards left and back.
        np.testing.assert_allclose(
            (-right, -anterior, superior), ours.to_patient(corner), atol=1e-3
        )
    assert image.header.get_xyzt_units()[0] == "mm"


def test_what_nibabel_wrote_is_read_at_the_same_place(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE @ np.diag([0.8, 0.7, 3])
    affine[:3, 3] = (5, -6, 7)
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "brain.nii.gz")
    ours = volume.load(tmp_path / "brain.nii.gz")
    np.testing.assert_array_equal(ours.voxels, array.transpose(2, 1, 0))
    np.testing.assert_allclose(ours.spacing, (3, 0.7, 0.8), rtol=1e-5)
    expected = nibabel.affines.apply_affine(affine, (1, 2, 3)) * (-1, -1, 1)
    np.testing.assert_allclose(ours.to_patient((3, 2, 1)), expected, atol=1e-3)


def test_a_compressed_file_is_compressed(tmp_path):
    blank = Volume(np.zeros((30, 30, 30), np.int16))
    assert blank.save(tmp_path / "a.nii.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert blank.save(tmp_path / "a.nii.gz").stat().st_size < 30**3 / 4
    assert blank.save(tmp_path / "a.nii").stat().st_size > 30**3 * 2


@pytest.mark.parametrize("name", ["image.dcm", "image", "image.nii.zip", "image.jpg", "nii"])
def test_another_kind_of_file_is_refused_by_name(tmp_path, name):
    for action in (oblique().save, volume.load):
        with pytest.raises(CourseDataError, match="UNKNOWN_FORMAT") as refused:
            action(tmp_path / name)
        assert refused.value.files == (tmp_path / name,)
        assert ".nii.gz" in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_capital_endings_are_either_written_or_refused(tmp_path):
    for name in ("A.NII", "A.NII.GZ", "A.NRRD", "A.MHA"):
        with contextlib.suppress(CourseDataError):
            path = oblique().save(tmp_path / name)
            np.testing.assert_array_equal(volume.load(path).voxels, oblique().voxels)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"not an image", b"\0" * 400])
def test_a_damaged_file_is_refused_by_name_and_without_its_folder(tmp_path, ending, content, capfd):
    path = tmp_path / "doe_john" / f"damaged{ending}"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(CourseDataError) as refused:
        volume.load(path)
    assert refused.value.code == "UNREADABLE"
    assert refused.value.files == (path,)
    assert path.name in str(refused.value)
    assert "doe_john" not in str(refused.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises((FileNotFoundError, CourseDataError), match=r"(?i)does not exist|no such"):
        volume.load(tmp_path / "absent.nii.gz")


# Resampling


def field(z, y, x):
    """A smooth function of patient coordinates, in mm."""
    return 100 * np.sin(x / 25) + 60 * np.cos(y / 30) + z * y / 40


def smooth(shape=(16, 20, 24), spacing=(2.5, 1.5, 1.25), direction=OBLIQUE) -> Volume:
    blank = Volume(np.zeros(shape), spacing, (-15, -12, -18), direction)
    points = np.array([blank.to_patient(index) for index in np.ndindex(*shape)])
    values = field(*points.T[::-1]).reshape(shape).astype(np.float32)
    return blank.with_voxels(values, "read")


@pytest.mark.parametrize("spacing", [1.0, 2.0, (1.25, 3.0, 2.0), (5.0, 1.5, 0.7)])
def test_resampling_interpolates_linearly_as_scipy_does(spacing):
    ours = smooth()
    new = ours.resample(spacing)
    spacing = np.broadcast_to(spacing, 3)
    np.testing.assert_allclose(new.spacing, spacing)
    np.testing.assert_allclose(new.direction, ours.direction)
    assert new.voxels.dtype == np.float32
    # The same corner and, to the nearest voxel, the same extent.
    np.testing.assert_allclose(new.to_patient((-0.5,) * 3), ours.to_patient((-0.5,) * 3), atol=1e-9)
    extent = np.multiply(new.shape, new.spacing)
    assert (np.abs(extent - np.multiply(ours.shape, ours.spacing)) <= spacing / 2 + 1e-9).all()
    grid = np.meshgrid(*[np.arange(n) for n in new.shape], indexing="ij")
    ratio = spacing / ours.spacing
    places = [(k + 0.5) * r - 0.5 for k, r in zip(grid, ratio, strict=True)]
    expected = ndimage.map_coordinates(ours.voxels, places, order=1, mode="nearest")
    np.testing.assert_allclose(new.voxels, expected, atol=2e-3)


def test_resampled_values_are_those_of_the_patient_at_that_place():
    new = smooth().resample((2.0, 1.0, 1.0))
    inner = [index for index in np.ndindex(*new.shape) if min(index) >= 2][::97]
    inner = [
        index for index in inner if all(i < n - 2 for i, n in zip(index, new.shape, strict=True))
    ]
    expected = [field(*new.to_patient(index)[::-1]) for index in inner]
    np.testing.assert_allclose([new.voxels[index] for index in inner], expected, atol=0.5)


@pytest.mark.parametrize("is_mask", [False, True])
@pytest.mark.parametrize(("spacing", "count"), [(4, 2), (13, 1), (100, 1)])
def test_a_coarse_grid_that_ends_on_or_beyond_the_rim_repeats_the_rim(spacing, count, is_mask):
    ramp = Volume(np.array([10, 50, 90], np.uint8).reshape(3, 1, 1), (2, 1, 1))
    coarse = ramp.resample((spacing, 1, 1), is_mask=is_mask)
    assert coarse.shape == (count, 1, 1)
    assert coarse.voxels[-1, 0, 0] == 90


def test_an_integer_image_is_not_rounded():
    steps = Volume(np.array([0, 100], np.int16).reshape(2, 1, 1), (2, 1, 1))
    np.testing.assert_allclose(steps.resample((1, 1, 1)).voxels.ravel(), [0, 25, 75, 100])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
@given(spacing=st.tuples(*[st.floats(0.4, 6)] * 3), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_a_resampled_mask_has_its_own_ids_and_no_others(dtype, spacing, seed):
    ids = np.random.default_rng(seed).choice([0, 3, 7, 120], (5, 6, 7)).astype(dtype)
    new = Volume(ids, (2, 1, 1.5), direction=OBLIQUE).resample(spacing, is_mask=True)
    assert new.voxels.dtype == dtype
    assert set(np.unique(new.voxels)) <= set(np.unique(ids))
    places = [
        np.clip((np.arange(n) + 0.5) * to / by - 0.5, 0, old - 1)
        for n, to, by, old in zip(new.shape, spacing, (2, 1, 1.5), ids.shape, strict=True)
    ]
    # Which neighbour wins exactly between two centres is nobody's business.
    clear = [np.abs(place % 1 - 0.5) > 1e-6 for place in places]
    nearest = ids[np.ix_(*[np.rint(place).astype(int) for place in places])]
    assert (new.voxels == nearest)[np.ix_(*clear)].all()


def test_a_boolean_mask_stays_a_mask():
    mask = Volume(np.random.default_rng(0).random((4, 5, 6)) < 0.5)
    np.testing.assert_array_equal(mask.resample(1.0, is_mask=True).voxels, mask.voxels)


def test_what_was_done_is_noted():
    assert smooth().resample((2, 1, 1)).notes == ("read", "resampled to 2x1x1 mm (linear)")
    mask = smooth().resample(3, is_mask=True)
    assert mask.notes == ("read", "resampled to 3x3x3 mm (nearest neighbour)")


@pytest.mark.parametrize("spacing", [0, -1, np.nan, np.inf, (1, 0, 1)])
def test_an_impossible_spacing_is_refused(spacing):
    with pytest.raises(CourseDataError) as refused:
        smooth().resample(spacing)
    assert refused.value.code == "NO_GEOMETRY"


def test_a_prediction_goes_back_into_the_geometry_it_came_from():
    ours = smooth()
    back = ours.resample(1.0).resample_like(ours)
    assert back.same_geometry(ours)
    inside = (slice(1, -1),) * 3
    np.testing.assert_allclose(back.voxels[inside], ours.voxels[inside], atol=3)
    mask = ours.with_voxels((ours.voxels > 80).astype(np.uint8))
    returned = mask.resample(0.6, is_mask=True).resample_like(ours, is_mask=True)
    np.testing.assert_array_equal(returned.voxels, mask.voxels)


def test_resampling_to_another_grid_agrees_with_the_patient():
    ours = smooth(direction=np.eye(3))
    grid = Volume(
        np.zeros((6, 7, 8)), (1, 2, 1.5), (-5, 2, -3), Rotation.from_euler("z", 0.3).as_matrix()
    )
    new = ours.resample_like(grid)
    assert new.same_geometry(grid)
    expected = [field(*grid.to_patient(index)[::-1]) for index in np.ndindex(6, 7, 8)]
    np.testing.assert_allclose(new.voxels.ravel(), expected, atol=0.5)


def test_an_image_of_a_crop_has_its_darkest_value_outside_the_crop():
    whole = Volume(np.zeros((6, 6, 6), np.int16))
    crop = Volume(np.full((2, 2, 2), 500, np.int16), origin=(2, 2, 2))
    crop.voxels[0, 0, 0] = -1000
    back = crop.resample_like(whole).voxels
    np.testing.assert_array_equal(back[2:4, 2:4, 2:4], crop.voxels)
    back[2:4, 2:4, 2:4] = -1000
    np.testing.assert_array_equal(back, -1000)


def test_a_mask_of_a_crop_is_empty_outside_the_crop():
    whole = Volume(np.zeros((12, 12, 12), np.uint8))
    crop = Volume(np.ones((4, 4, 4), np.uint8), origin=(4, 4, 4))
    expected = np.zeros((12, 12, 12), np.uint8)
    expected[4:8, 4:8, 4:8] = 1
    np.testing.assert_array_equal(crop.resample_like(whole, is_mask=True).voxels, expected)


EVERY_ORIENTATION = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "IS"))
    for letters in itertools.product(*order)
]


@pytest.mark.parametrize("letters", EVERY_ORIENTATION)
def test_in_lps_order_is_simpleitks_dicom_orient(letters):
    turn = Rotation.from_euler("xyz", [7, -4, 11], degrees=True).as_matrix()  # oblique
    voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    given = Volume(voxels, (3, 1.5, 0.5), (10, -20, 30), turn)
    image = sitk.DICOMOrient(given.to_sitk(), letters)
    ours, oracle = Volume.from_sitk(image).in_lps_order(), sitk.DICOMOrient(image, "LPS")
    expected = Volume.from_sitk(oracle)
    assert np.array_equal(ours.voxels, expected.voxels) and ours.same_geometry(expected)
    assert np.allclose(ours.spacing, expected.spacing)
    assert np.array_equal(ours.voxels, voxels) and ours.same_geometry(given)
    assert bool(ours.notes) == (letters != "LPS")
