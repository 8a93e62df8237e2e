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


def code_of(call) -> str:
    with pytest.raises(CourseDataError) as refused:
        call()
    return refused.value.code


# Patient coordinates


@LAWFUL
@given(
    st.tuples(lengths_mm, lengths_mm, lengths_mm),
    st.tuples(coordinates_mm, coordinates_mm, coordinates_mm),
    directions,
    st.tuples(*[st.floats(-50, 50)] * 3),
)
def test_points_are_where_simpleitk_puts_them(spacing, origin, direction, index):
    ours = Volume(np.zeros((2, 3, 4), np.uint8), spacing, origin, direction)
    theirs = ours.to_sitk()
    assert theirs.GetSize() == (4, 3, 2)
    point = ours.to_patient(index)
    expected = theirs.TransformContinuousIndexToPhysicalPoint(index[::-1])
    np.testing.assert_allclose(point, expected, atol=1e-6)
    np.testing.assert_allclose(ours.to_index(point), index, atol=1e-6)
    np.testing.assert_allclose(ours.to_patient([index, index])[1], point, atol=1e-9)


def test_a_step_along_each_axis_goes_its_spacing_to_head_back_and_left():
    ours = Volume(np.zeros((2, 2, 2)), (5, 2, 1), (10, 20, 30))
    np.testing.assert_allclose(ours.to_patient((1, 0, 0)), (10, 20, 35))
    np.testing.assert_allclose(ours.to_patient((0, 1, 0)), (10, 22, 30))
    np.testing.assert_allclose(ours.to_patient((0, 0, 1)), (11, 20, 30))


def test_the_same_geometry_means_every_voxel_at_the_same_place():
    ours = oblique()
    voxels, spacing, origin = ours.voxels, ours.spacing, ours.origin
    turned = OBLIQUE @ Rotation.from_euler("x", 0.5, degrees=True).as_matrix()
    moved = Volume(voxels, spacing, np.add(origin, (0.5, 0, 0)), OBLIQUE)
    others = {
        "its own": (ours.with_voxels(np.zeros(ours.shape)), True),
        "rounded": (Volume(voxels, (3, 0.7, 0.80001), origin, OBLIQUE), True),
        "wider": (Volume(voxels, (3, 0.7, 0.81), origin, OBLIQUE), False),
        "axes exchanged": (Volume(voxels, (3, 0.8, 0.7), origin, OBLIQUE), False),
        "turned": (Volume(voxels, spacing, origin, turned), False),
        "elsewhere": (Volume(voxels, spacing, (0, 0, 0), OBLIQUE), False),
        "shorter": (Volume(voxels[1:], spacing, origin, OBLIQUE), False),
        "moved": (moved, False),
    }
    assert {
        name for name, (other, same) in others.items() if ours.same_geometry(other) != same
    } == set()
    assert ours.same_geometry(moved, tolerance_mm=0.6) and ours.apart_mm(moved) == pytest.approx(
        0.5
    )


def test_what_is_no_volume_is_refused():
    wrong = {
        "SHAPE_MISMATCH": [{"voxels": np.zeros(shape)} for shape in ((3,), (3, 3), (2, 3, 3, 1))],
        "NO_GEOMETRY": [
            *[
                {"spacing": mm}
                for mm in ((0, 1, 1), (1, -1, 1), (1, 1, np.nan), (np.inf, 1, 1), (1, 1))
            ],
            *[{"origin": mm} for mm in ((np.nan, 0, 0), (0, 0))],
            *[{"direction": some} for some in (np.zeros((3, 3)), np.ones((3, 3)), np.eye(2))],
            {"direction": np.full((3, 3), np.nan)},
        ],
    }
    whole = {"voxels": np.zeros((2, 2, 2))}
    for code, changes in wrong.items():
        for change in changes:
            assert code_of(lambda change=change: Volume(**whole | change)) == code, change
    for spacing in (0, -1, np.nan, np.inf, (1, 0, 1)):
        assert code_of(lambda spacing=spacing: oblique().resample(spacing)) == "NO_GEOMETRY"


def test_other_voxels_take_over_geometry_and_notes_if_they_fit():
    ours = oblique()
    mask = ours.with_voxels(ours.voxels > 50, "thresholded")
    assert mask.same_geometry(ours) and mask.notes == ("a note", "thresholded")
    with pytest.raises(CourseDataError, match=r"SHAPE_MISMATCH.*\(4, 5, 6\).*\(5, 4, 6\)"):
        ours.with_voxels(np.zeros((5, 4, 6)))


# SimpleITK and files


@pytest.mark.parametrize("dtype", ["int16", "float16", ">i2", ">f4", "bool"])
def test_simpleitk_gets_the_same_image_in_its_own_order_and_gives_it_back(dtype):
    ours = oblique(dtype)
    image = ours.to_sitk()
    assert image.GetSize() == (6, 5, 4) and image.GetSpacing() == (0.8, 0.7, 3.0)
    assert image.GetPixel(5, 1, 2) == ours.voxels[2, 1, 5]
    back = Volume.from_sitk(image, ("kept",))
    assert back.same_geometry(ours, 1e-9) and back.notes == ("kept",)
    np.testing.assert_array_equal(back.voxels, ours.voxels)


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
    path = tmp_path / "study.nrrd"
    sitk.WriteImage(image, str(path))
    with pytest.raises(
        CourseDataError, match=f"SHAPE_MISMATCH.*{image.GetDimension()}D"
    ) as refused:
        volume.load(path)
    assert refused.value.files == (path,)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "float32"])
def test_a_file_gives_back_voxels_and_geometry(tmp_path, ending, dtype):
    ours = oblique(dtype)
    path = ours.save(tmp_path / "new folder" / f"a mask ü{ending}")
    back = volume.load(path)
    assert back.voxels.dtype == dtype and back.same_geometry(ours) and back.notes == ()
    np.testing.assert_array_equal(back.voxels, ours.voxels)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == (ending == ".nii.gz")


@pytest.mark.parametrize("handedness", [1, -1])
def test_nibabel_reads_what_was_saved_at_the_same_place(tmp_path, handedness):
    ours = oblique(direction=OBLIQUE @ np.diag([1, 1, handedness]))
    image = nibabel.load(ours.save(tmp_path / "image.nii.gz"))
    np.testing.assert_array_equal(np.asarray(image.dataobj), ours.voxels.T)
    for index in np.ndindex(2, 2, 2):
        corner = np.multiply(index, np.subtract(ours.shape, 1))
        right, front, head = nibabel.affines.apply_affine(image.affine, corner[::-1])
        # NIfTI counts towards right and front as positive, DICOM towards left and back.
        np.testing.assert_allclose((-right, -front, head), ours.to_patient(corner), atol=1e-3)


def test_another_kind_of_file_is_refused_by_name_and_a_missing_one_is_said_to_be_missing(tmp_path):
    for name in ("image.dcm", "image", "image.nii.zip", "image.jpg", "nii"):
        for action in (oblique().save, volume.load):
            with pytest.raises(CourseDataError, match=r"UNKNOWN_FORMAT.*\.nii\.gz"):
                action(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"^no such file: absent\.nii\.gz$"):
        volume.load(tmp_path / "absent.nii.gz")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_cut_no_image_or_not_finite_is_refused_without_its_folder(tmp_path, ending):
    path = tmp_path / "doe_john" / f"damaged{ending}"
    content = oblique().save(path).read_bytes()
    wrong = {
        content[: len(content) // 2]: ("UNREADABLE", "TRUNCATED"),
        content[:-9]: ("UNREADABLE", "TRUNCATED"),
    }
    wrong |= dict.fromkeys((b"", b"not an image", b"\0" * 400), ("UNREADABLE",))
    for damaged, codes in wrong.items():
        path.write_bytes(damaged)
        with pytest.raises(CourseDataError) as refused:
            volume.load(path)
        assert refused.value.code in codes and refused.value.files == (path,), len(damaged)
        assert path.name in str(refused.value) and "doe_john" not in str(refused.value)
    for value in (np.nan, np.inf):
        voxels = np.zeros((2, 2, 2), np.float32)
        voxels[1, 1, 1] = value
        assert code_of(lambda voxels=voxels: volume.load(Volume(voxels).save(path))) == "NOT_FINITE"


# Resampling


def field(z, y, x):
    """A smooth function of patient coordinates, in mm."""
    return 100 * np.sin(x / 25) + 60 * np.cos(y / 30) + z * y / 40


def smooth(shape=(16, 20, 24), spacing=(2.5, 1.5, 1.25), direction=OBLIQUE) -> Volume:
    blank = Volume(np.zeros(shape), spacing, (-15, -12, -18), direction)
    points = blank.to_patient(np.moveaxis(np.indices(shape), 0, -1))
    return blank.with_voxels(field(*np.moveaxis(points, -1, 0)[::-1]).astype(np.float32), "read")


def blurred(ours: Volume, spacing) -> np.ndarray:
    """By SimpleITK's recursive filter, sigma in mm from variances that add."""
    image = ours.to_sitk()
    for axis, (new, old) in enumerate(zip(spacing[::-1], ours.spacing[::-1], strict=True)):
        if new > old:
            image = sitk.RecursiveGaussian(image, np.sqrt(new**2 - old**2) / 2, False, 0, axis)
    return sitk.GetArrayFromImage(image)


@pytest.mark.parametrize("spacing", [1.0, 2.0, (1.25, 3.0, 2.0), (5.0, 1.5, 0.7)], ids=str)
def test_resampling_interpolates_linearly_as_scipy_does_after_smoothing_as_simpleitk_does(spacing):
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
    places = [(k + 0.5) * r - 0.5 for k, r in zip(grid, spacing / ours.spacing, strict=True)]
    expected = ndimage.map_coordinates(blurred(ours, spacing), places, order=1, mode="nearest")
    finer = (spacing <= ours.spacing).all()
    np.testing.assert_allclose(new.voxels, expected, atol=2e-3 if finer else 1.0)
    assert ("smoothed" in " ".join(new.notes)) != finer


@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE], ids=["upright", "oblique"])
def test_one_bright_column_in_four_is_a_quarter_of_its_brightness_on_a_grid_four_times_as_coarse(
    phase, turn
):
    voxels = np.zeros((8, 16, 96), np.int16)
    voxels[..., phase::4] = 1000
    fine = Volume(voxels, (0.5, 0.5, 0.5), direction=turn)
    coarse = fine.resample(2.0)
    grid = Volume(np.zeros(coarse.shape), coarse.spacing, coarse.origin, turn)
    for found in (coarse, fine.resample_like(grid)):
        np.testing.assert_allclose(found.voxels[..., 3:-3], 250, rtol=0.02)
    edges = Volume(np.repeat(voxels[:1] > 0, 8, 0), (0.5, 0.5, 0.5)).resample(2.0, is_mask=True)
    assert edges.voxels.dtype == bool and set(np.unique(edges.voxels[..., 1:-1])) < {False, True}


def test_equal_and_finer_spacing_leave_every_frequency_and_say_nothing_of_smoothing():
    ours = oblique(shape=(5, 6, 7))
    same = ours.resample(ours.spacing)
    np.testing.assert_allclose(same.voxels, ours.voxels, atol=1e-3)
    assert same.notes == ("a note", "resampled to 3x0.7x0.8 mm (linear)")
    half = ours.resample(np.divide(ours.spacing, 3))
    np.testing.assert_allclose(half.voxels[1::3, 1::3, 1::3], ours.voxels, atol=1e-3)
    cube = Volume(np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32))
    turned = Volume(
        cube.voxels, origin=(1, 1, 1), direction=Rotation.from_euler("z", 0.4).as_matrix()
    )
    assert cube.resample_like(turned).notes == ("resampled to 1x1x1 mm (linear)",)


@pytest.mark.parametrize(("spacing", "count"), [(4, 2), (13, 1), (100, 1)])
def test_a_coarse_grid_that_ends_on_or_beyond_the_rim_repeats_the_rim(spacing, count):
    ramp = Volume(np.array([10, 50, 90], np.uint8).reshape(3, 1, 1), (2, 1, 1))
    coarse = ramp.resample((spacing, 1, 1), is_mask=True)
    assert coarse.shape == (count, 1, 1) and coarse.voxels[-1, 0, 0] == 90
    flat = Volume(np.full((3, 1, 1), 90, np.uint8), (2, 1, 1)).resample((spacing, 1, 1))
    np.testing.assert_allclose(flat.voxels, 90, rtol=1e-5)


def test_an_integer_image_is_not_rounded():
    steps = Volume(np.array([0, 100], np.int16).reshape(2, 1, 1), (2, 1, 1))
    np.testing.assert_allclose(steps.resample((1, 1, 1)).voxels.ravel(), [0, 25, 75, 100])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int32", "float16"])
@LAWFUL
@given(spacing=st.tuples(*[st.floats(0.4, 6)] * 3), seed=st.integers(0, 99))
def test_a_resampled_mask_has_its_own_ids_and_no_others(dtype, spacing, seed):
    ids = np.random.default_rng(seed).choice([0, 3, 7, 120], (5, 6, 7)).astype(dtype)
    new = Volume(ids, (2, 1, 1.5), direction=OBLIQUE).resample(spacing, is_mask=True)
    assert new.voxels.dtype == dtype and len(new.notes) == 1
    places = [
        np.clip((np.arange(n) + 0.5) * to / by - 0.5, 0, old - 1)
        for n, to, by, old in zip(new.shape, spacing, (2, 1, 1.5), ids.shape, strict=True)
    ]
    # Which neighbour wins exactly between two centres is nobody's business.
    clear = [np.abs(place % 1 - 0.5) > 1e-6 for place in places]
    nearest = ids[np.ix_(*[np.rint(place).astype(int) for place in places])]
    assert (new.voxels == nearest)[np.ix_(*clear)].all()


def test_a_prediction_goes_back_into_the_geometry_it_came_from():
    ours = smooth()
    mask = ours.with_voxels((ours.voxels > 80).astype(np.uint8))
    returned = mask.resample(0.6, is_mask=True).resample_like(ours, is_mask=True)
    assert returned.same_geometry(ours)
    np.testing.assert_array_equal(returned.voxels, mask.voxels)
    # And onto any other grid: the value of the patient at that place.
    turned = Rotation.from_euler("z", 0.3).as_matrix()
    grid = Volume(np.zeros((6, 7, 8)), (1, 1, 1), (-5, 2, -3), turned)
    new = smooth(direction=np.eye(3)).resample_like(grid)
    assert new.same_geometry(grid)
    expected = [field(*grid.to_patient(index)[::-1]) for index in np.ndindex(6, 7, 8)]
    np.testing.assert_allclose(new.voxels.ravel(), expected, atol=0.5)


def test_beyond_a_crop_an_image_has_its_darkest_value_and_a_mask_is_empty():
    whole = Volume(np.zeros((6, 6, 6), np.int16))
    crop = Volume(np.full((2, 2, 2), 500, np.int16), origin=(2, 2, 2))
    crop.voxels[0, 0, 0] = -1000
    for is_mask, outside in ((False, -1000), (True, 0)):
        expected = np.full((6, 6, 6), outside)
        expected[2:4, 2:4, 2:4] = crop.voxels
        back = crop.resample_like(whole, is_mask=is_mask).voxels
        np.testing.assert_array_equal(back, expected)


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
    assert np.array_equal(ours.voxels, voxels) and ours.same_geometry(given)
    assert np.allclose(ours.spacing, expected.spacing) and bool(ours.notes) == (letters != "LPS")
