"""The order of slices and the geometry of a volume follow from positions, as SimpleITK has them."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.spatial.transform import Rotation

from helpers import dicom, dicom_stack
from helpers.dicom_header import Header
from helpers.dicom_stack import arrange
from helpers.errors import CourseDataError
from helpers.volume import Volume
from tests.dicom_files import AXIAL, CORONAL, SAGITTAL, voxels, write, write_enhanced, write_series

sitk.ProcessObject.SetGlobalWarningDisplay(False)
FEET_FIRST = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
few = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def by_simpleitk(folder: Path) -> Volume:
    """A folder with one series through GDCM's sorting and ITK's series reader."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return Volume.from_sitk(reader.Execute())


def assert_alike(ours: Volume, theirs: Volume, rtol: float = 0.0) -> None:
    assert ours.same_geometry(theirs, tolerance_mm=1e-3)
    np.testing.assert_allclose(ours.spacing, theirs.spacing, rtol=1e-5)
    np.testing.assert_allclose(ours.direction, theirs.direction, atol=1e-5)
    np.testing.assert_allclose(ours.voxels, theirs.voxels, rtol=rtol, atol=rtol)


def refusal(source, **options) -> CourseDataError:
    with pytest.raises(CourseDataError) as refused:
        dicom.read_series(source, **options)
    return refused.value


# Good series


@pytest.mark.parametrize(
    "orientation",
    [AXIAL, SAGITTAL, CORONAL, FEET_FIRST, PRONE],
    ids=["axial", "sagittal", "coronal", "feet first", "prone"],
)
def test_geometry_and_voxels_equal_simpleitks(tmp_path, orientation):
    stored = voxels((6, 7, 9))
    write_series(tmp_path, stored, orientation=orientation, spacing=(0.7, 0.9))
    ours = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(ours.voxels, stored)
    assert ours.voxels.dtype == np.int16
    assert ours.notes == ()
    assert ours.spacing == pytest.approx((2.5, 0.7, 0.9))
    assert ours.origin == pytest.approx((-10, 20, 30))
    assert_alike(ours, by_simpleitk(tmp_path))


@few
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 4)] * 2),
    between=st.floats(0.4, 8),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
    count=st.integers(2, 7),
    seed=st.integers(0, 99),
)
def test_an_oblique_series_equals_simpleitks(
    tmp_path_factory, angles, spacing, between, origin, count, seed
):
    folder = tmp_path_factory.mktemp("oblique")
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    write_series(
        folder,
        voxels((count, 4, 5), seed),
        orientation=(*rotation[:, 0], *rotation[:, 1]),
        spacing=spacing,
        between=between,
        origin=origin,
        names_seed=seed,
    )
    ours = dicom.read_series(folder)
    np.testing.assert_allclose(ours.direction, rotation, atol=1e-6)
    assert ours.spacing == pytest.approx((between, *spacing), rel=1e-4)
    np.testing.assert_array_equal(ours.voxels, voxels((count, 4, 5), seed))
    assert_alike(ours, by_simpleitk(folder))


@given(seed=st.integers(0, 10**6), reverse=st.booleans())
@few
def test_names_instance_numbers_and_order_of_acquisition_do_not_matter(
    tmp_path_factory, seed, reverse
):
    folder = tmp_path_factory.mktemp("shuffled")
    stored = voxels((8, 4, 5))
    numbers = np.random.default_rng(seed).permutation(8)
    order = slice(None, None, -1) if reverse else slice(None)
    write_series(
        folder,
        stored[order],
        heights=(np.arange(8) * 2.5)[order],
        names_seed=seed,
        per_slice=lambda k: {"InstanceNumber": int(numbers[k])},
    )
    ours = dicom.read_series(folder)
    np.testing.assert_array_equal(ours.voxels, stored)
    assert_alike(ours, by_simpleitk(folder))


def test_a_series_lists_its_files_in_the_order_of_the_volume(tmp_path):
    paths = write_series(tmp_path, voxels((9, 4, 5)), orientation=SAGITTAL)
    (series,) = dicom.scan(tmp_path).series
    assert list(series.files) == paths
    for k, path in enumerate(series.files):
        np.testing.assert_array_equal(dicom.read_series(path).voxels[0], voxels((9, 4, 5))[k])


def test_headers_are_arranged_whatever_order_they_come_in(tmp_path):
    paths = write_series(tmp_path, voxels((9, 4, 5)), orientation=CORONAL)
    (series,) = dicom.scan(tmp_path).series
    shuffled = [series.headers[k] for k in np.random.default_rng(0).permutation(9)]
    stack = dicom_stack.arrange(shuffled)
    assert [header.path for header in stack.slices] == paths
    assert stack.heights_mm == pytest.approx(2.5 * np.arange(9) + 20)


def test_positions_that_a_scanner_has_rounded_are_even(tmp_path):
    heights = [0, 0.67, 1.33, 2.0, 2.67, 3.33, 4.0]
    write_series(tmp_path, voxels((7, 4, 5)), heights=heights)
    assert dicom.read_series(tmp_path).spacing[0] == pytest.approx(4 / 6)
    assert_alike(dicom.read_series(tmp_path), by_simpleitk(tmp_path))


def test_orientations_that_differ_in_the_last_digits_are_one_series(tmp_path):
    write_series(
        tmp_path,
        voxels(),
        per_slice=lambda k: {"ImageOrientationPatient": [1, 0, 0, 0, 1, 1e-5 * k]},
    )
    assert dicom.read_series(tmp_path).shape == voxels().shape


def test_a_slice_thickness_that_is_not_the_spacing_is_not_believed(tmp_path):
    write_series(tmp_path, voxels(), between=2.5, SliceThickness="5", SpacingBetweenSlices="4")
    assert dicom.read_series(tmp_path).spacing[0] == pytest.approx(2.5)


# A single image


def test_a_single_slice_is_where_simpleitk_has_it(tmp_path):
    stored = voxels((4, 5))
    path = write(
        tmp_path / "one.dcm",
        stored,
        position=(1, 2, 3),
        orientation=CORONAL,
        spacing=(0.5, 0.6),
        SpacingBetweenSlices="7",
    )
    ours = dicom.read_series(path)
    assert ours.spacing == pytest.approx((7, 0.5, 0.6))
    assert_alike(ours, Volume.from_sitk(sitk.ReadImage(str(path))))


def test_what_a_single_slice_does_not_say_is_assumed_and_noted(tmp_path):
    path = write(tmp_path / "one.dcm", voxels((4, 5)), spacing=(0.5, 0.6))
    ours = dicom.read_series(path)
    assert ours.spacing == pytest.approx((1, 0.5, 0.6))
    assert_alike(ours, Volume.from_sitk(sitk.ReadImage(str(path))))
    assert any("1 mm to the next one assumed" in note for note in ours.notes)


def test_a_plain_2d_image_without_any_geometry_is_fine(tmp_path):
    nothing = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    ours = dicom.read_series(write(tmp_path / "a.dcm", voxels((4, 5)), **nothing))
    np.testing.assert_array_equal(ours.voxels[0], voxels((4, 5)))
    assert (ours.spacing, ours.origin) == ((1, 1, 1), (0, 0, 0))
    np.testing.assert_array_equal(ours.direction, np.eye(3))
    assert any("no pixel spacing" in note for note in ours.notes)
    assert any("no position or orientation" in note for note in ours.notes)
    detector = write(
        tmp_path / "b.dcm", voxels((4, 5)), **nothing, ImagerPixelSpacing=["0.14", "0.15"]
    )
    ours = dicom.read_series(detector)
    assert ours.spacing == pytest.approx((1, 0.14, 0.15))
    assert any("at the detector" in note for note in ours.notes)


# Row 6: gaps


@pytest.mark.parametrize(
    ("missing", "where"),
    [
        ((1,), "32.50"),
        ((4,), "40.00"),
        ((6,), "45.00"),
        ((3, 4), "37.50, 40.00"),
        ((1, 5), "32.50, 42.50"),
    ],
    ids=str,
)
def test_a_missing_slice_is_refused_by_name_and_place(tmp_path, missing, where):
    kept = [k for k in range(8) if k not in missing]
    paths = write_series(tmp_path, voxels((8, 4, 5))[kept], heights=np.multiply(kept, 2.5))
    refused = refusal(tmp_path)
    assert refused.code == "MISSING_SLICE"
    assert f"{len(missing)} missing" in refused.message
    assert "2.50 mm apart" in refused.message
    assert f"at {where} mm" in refused.message
    assert "fill_gaps=True" in refused.message
    around = {
        paths[i + j] for i in range(len(kept) - 1) for j in (0, 1) if kept[i + 1] - kept[i] > 1
    }
    assert set(refused.files) == around


@pytest.mark.parametrize("heights", [(0, 5, 10, 20), (0, 10, 15, 20), (0, 5, 15)], ids=str)
def test_the_gap_that_simpleitk_averages_away_is_refused(tmp_path, heights):
    write_series(tmp_path, voxels((len(heights), 4, 5)), heights=heights)
    assert by_simpleitk(tmp_path).spacing[0] == pytest.approx(heights[-1] / (len(heights) - 1))
    assert refusal(tmp_path).code == "MISSING_SLICE"


def stub(height):
    """An axial slice of which only the height matters."""
    return Header(
        path=Path(f"{height}.dcm"), series_uid="1", sop_uid=str(height), modality="CT",
        transfer_syntax="", instance_number=None, rows=4, columns=4, bits_allocated=16,
        bits_stored=16, signed=False, inverted=False, pixels="integer", slope=1.0, intercept=0.0,
        has_modality_lut=False, position=(0.0, 0.0, float(height)),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), pixel_spacing=(1.0, 1.0),
        detector_spacing=None, spacing_between=None, thickness=None, padding=None,
        pixel_offset=0,
    )  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@example(1.296875, 12, 1.75, True)  # the first rounded up, its neighbours down
@example(3.499437212952272, 200, 16.75, False)
@example(3.499437212952272, 200, 16.75, True)
@given(st.floats(0.5, 6), st.integers(3, 200), st.floats(-500, 500), st.booleans())
def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(spacing, count, start, hole):
    heights = np.round(start + spacing * np.arange(count), 1)
    if hole and count >= 9 and spacing >= 1:
        with pytest.raises(CourseDataError) as refused:
            arrange([stub(height) for height in np.delete(heights, count // 2)])
        assert refused.value.code == "MISSING_SLICE"
        assert refused.value.message.startswith("1 missing")
    else:
        stack = arrange([stub(height) for height in heights])
        assert stack.spacing[0] == pytest.approx(spacing, abs=0.1 / (count - 1) + 1e-9)


def test_small_steps_that_add_up_are_refused():
    steps = np.r_[np.full(200, 0.99), np.full(199, 1.009)]
    with pytest.raises(CourseDataError) as refused:
        arrange([stub(height) for height in np.r_[0, np.cumsum(steps)]])
    assert refused.value.code == "UNEVEN_SPACING"


@pytest.mark.parametrize(("last", "kept"), [(4.5, 4), (4.6, 4), (5.0, 5), (4.99, 5)])
def test_filling_gaps_invents_no_plane_and_says_what_it_leaves_out(tmp_path, last, kept):
    write_series(tmp_path, voxels((5, 4, 5)), heights=(0, 1, 2, 3, last))
    ours = dicom.read_series(tmp_path, fill_gaps=True)
    assert ours.shape[0] == kept + 1
    told = any(f"the last {last - kept:.2f} mm" in note for note in ours.notes)
    assert told is (last - kept > 0.02)


@pytest.mark.parametrize(
    ("heights", "apart"),
    [((0, 2, 4, 7, 9), "3.00"), ((0, 1.8, 4, 6, 8), "2.20"), ((0, 2, 4, 6, 8.4), "2.40")],
    ids=str,
)
def test_uneven_spacing_is_refused_with_the_distance_found(tmp_path, heights, apart):
    write_series(tmp_path, voxels((5, 4, 5)), heights=heights)
    refused = refusal(tmp_path)
    assert refused.code == "UNEVEN_SPACING"
    assert "2.00 mm apart" in refused.message
    assert apart in refused.message or "1.80" in refused.message
    assert "fill_gaps=True" in refused.message
    assert len(refused.files) >= 2


@pytest.mark.parametrize(
    "heights",
    [(0, 2, 4, 8, 10), (0, 2, 8, 10, 12, 14), (0, 2, 4, 7, 9, 12), (0, 2, 4, 5, 6, 8)],
    ids=str,
)
@pytest.mark.parametrize("slope", ["1", "0.25"])
def test_gaps_are_filled_on_request_by_linear_interpolation_and_noted(tmp_path, heights, slope):
    stored = voxels((len(heights), 4, 5))
    write_series(
        tmp_path,
        stored,
        heights=heights,
        orientation=CORONAL,
        RescaleSlope=slope,
        RescaleIntercept="0",
    )
    assert refusal(tmp_path).code in ("MISSING_SLICE", "UNEVEN_SPACING")
    ours = dicom.read_series(tmp_path, fill_gaps=True)
    assert ours.spacing == pytest.approx((2, 1, 1))
    assert ours.origin == pytest.approx((-10, 20, 30))
    even = np.arange(0, heights[-1] + 0.1, 2)
    line = interp1d(heights, stored * float(slope), axis=0)(even)
    if slope == "1":
        assert ours.voxels.dtype == np.int16
        np.testing.assert_array_equal(ours.voxels, np.rint(line))
    else:
        assert ours.voxels.dtype == np.float32
        np.testing.assert_allclose(ours.voxels, line, rtol=1e-5, atol=1e-3)
    (note,) = ours.notes
    assert f"from {len(heights)} uneven slices to {len(even)}, 2 mm apart" in note


def test_nothing_is_interpolated_where_nothing_is_missing(tmp_path):
    write_series(tmp_path, voxels())
    ours = dicom.read_series(tmp_path, fill_gaps=True)
    np.testing.assert_array_equal(ours.voxels, voxels())
    assert ours.notes == ()


# Row 16: gantry tilt


def tilted(folder: Path, by_mm: float, count: int = 6, **elements) -> None:
    """Slices 2.5 mm apart, each one `by_mm` further back than the last."""
    write_series(
        folder,
        voxels((count, 5, 6)),
        per_slice=lambda k: {"position": (-10, 20 + by_mm * k, 30 + 2.5 * k)},
        **elements,
    )


@pytest.mark.parametrize("tag", [None, "0", "15"])
@pytest.mark.parametrize("by_mm", [0.67, -0.67, 0.2])
def test_a_tilt_is_found_from_the_positions_whatever_the_tag_says(tmp_path, tag, by_mm):
    tilted(tmp_path, by_mm, GantryDetectorTilt=tag)
    refused = refusal(tmp_path)
    assert refused.code == "GANTRY_TILT"
    angle = np.degrees(np.arctan(abs(by_mm) / 2.5))
    assert f"{angle:.1f} degrees" in refused.message
    assert len(refused.files) == 6
    assert refusal(tmp_path, fill_gaps=True).code == "GANTRY_TILT"


def test_an_upright_stack_with_a_lying_tilt_tag_is_read(tmp_path):
    write_series(tmp_path, voxels(), GantryDetectorTilt="15")
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels())


def test_a_slice_beside_the_others_is_refused(tmp_path):
    paths = write_series(
        tmp_path,
        voxels(),
        per_slice=lambda k: {"position": (-10 + 30 * (k == 2), 20, 30 + 2.5 * k)},
    )
    refused = refusal(tmp_path)
    assert refused.code == "NOT_ALIGNED"
    assert "35.00 mm" in refused.message
    assert "30.0 mm beside" in refused.message
    assert refused.files == (paths[2],)


# Rows 2 and 11: mixed and missing geometry


@pytest.mark.parametrize("which", [0, 2, 4])
@pytest.mark.parametrize(
    "keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
def test_one_slice_that_does_not_say_where_it_lies_spoils_the_volume(tmp_path, which, keyword):
    paths = write_series(
        tmp_path, voxels(), per_slice=lambda k: {keyword: None} if k == which else {}
    )
    refused = refusal(tmp_path)
    assert refused.code in ("NO_GEOMETRY", "SEVERAL_SERIES")
    assert paths[which] in refused.files
    found = dicom.scan(tmp_path)
    assert [file.code for file in found.rejected] == []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", ["0"] * 6),
        ("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"]),
        ("ImageOrientationPatient", ["2", "0", "0", "0", "1", "0"]),
        ("PixelSpacing", ["0", "0"]),
        ("PixelSpacing", ["-1", "1"]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 5])
def test_a_geometry_that_cannot_be_is_refused(tmp_path, keyword, value, count):
    write_series(tmp_path, voxels((count, 4, 5)), **{keyword: value})
    refused = refusal(tmp_path)
    assert refused.code == "NO_GEOMETRY"
    assert refused.files


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("text", [b"nan", b"inf", b"1,5", b"abc"])
def test_a_position_that_is_no_number_is_none(tmp_path, text):
    paths = write_series(tmp_path, voxels(), origin=(-10, 20, 30))
    content = paths[2].read_bytes()
    assert content.count(b"-10.000000000") == 1
    paths[2].write_bytes(content.replace(b"-10.000000000", text.ljust(13)))
    refused = refusal(tmp_path)
    assert (refused.code, refused.files) == ("NO_GEOMETRY", (paths[2],))


def test_another_pixel_spacing_in_one_slice_is_refused(tmp_path):
    paths = write_series(
        tmp_path, voxels(), per_slice=lambda k: {"PixelSpacing": ["1", "1.1" if k == 3 else "1"]}
    )
    refused = refusal(tmp_path)
    assert refused.code == "MIXED_SLICES"
    assert "1.1" in refused.message
    assert set(refused.files) & set(paths)


# Row 12: duplicates


@pytest.mark.parametrize("same_uid", [True, False])
@pytest.mark.parametrize("which", [0, 2, 4])
def test_a_true_copy_is_counted_once_and_noted(tmp_path, same_uid, which):
    stored = voxels()
    paths = write_series(tmp_path, stored)
    other = {} if same_uid else {"SOPInstanceUID": "1.2.3.4"}
    copy = write(
        tmp_path / "sub" / "copy.dcm",
        stored[which],
        position=(-10, 20, 30 + 2.5 * which),
        **({"SOPInstanceUID": f"1.2.826.0.1.3680043.8.498.1.{which + 1}"} | other),
    )
    ours = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(ours.voxels, stored)
    assert ours.spacing[0] == pytest.approx(2.5)
    (note,) = ours.notes
    assert {paths[which].name, copy.name} <= set(note.replace(":", "").split())
    assert "counted once" in note
    assert len(dicom.scan(tmp_path).series[0].files) == 6


def test_a_whole_series_copied_twice_is_read_once(tmp_path):
    write_series(tmp_path / "a", voxels())
    write_series(tmp_path / "b", voxels(), names_seed=1)
    write_series(tmp_path / "c", voxels(), names_seed=2)
    ours = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(ours.voxels, voxels())
    (note,) = ours.notes
    assert note.startswith("copies counted once: ") and note.endswith(" and 9 more")


@pytest.mark.parametrize(
    ("uid", "code"),
    [("1.2.826.0.1.3680043.8.498.1.3", "CONFLICTING_DUPLICATE"), ("1.2.3.4", "SHARED_POSITION")],
)
@pytest.mark.parametrize(
    "change",
    [{"pixels": True}, {"RescaleSlope": "3"}, {"RescaleIntercept": "5"}],
    ids=["other pixels", "other slope", "other intercept"],
)
def test_two_different_images_at_one_position_are_refused(tmp_path, uid, code, change):
    stored = voxels()
    rescale = {"RescaleSlope": "1", "RescaleIntercept": "0"}
    paths = write_series(tmp_path, stored, **rescale)
    change = dict(change)
    pixels = stored[2] + int(change.pop("pixels", False))
    other = write(
        tmp_path / "z.dcm", pixels, position=(-10, 20, 35), SOPInstanceUID=uid, **(rescale | change)
    )
    refused = refusal(tmp_path)
    assert refused.code == code
    assert set(refused.files) == {paths[2], other}


def test_one_uid_at_two_places_with_two_contents_is_refused(tmp_path):
    paths = write_series(
        tmp_path, voxels(), per_slice=lambda k: {"SOPInstanceUID": "1.2.3"} if k in (1, 3) else {}
    )
    refused = refusal(tmp_path)
    assert refused.code == "CONFLICTING_DUPLICATE"
    assert set(refused.files) == {paths[1], paths[3]}


def test_blank_slices_side_by_side_are_no_copies(tmp_path):
    blank = np.zeros((5, 4, 5), np.int16)
    write_series(tmp_path, blank)
    write(tmp_path / "z.dcm", blank[0], position=(90, 20, 30), SOPInstanceUID="1.2.3")
    assert refusal(tmp_path).code in ("NOT_ALIGNED", "SHARED_POSITION")


def test_two_phases_at_each_position_are_refused(tmp_path):
    write_series(tmp_path / "a", voxels(seed=1))
    write_series(tmp_path / "b", voxels(seed=2), per_slice=lambda k: {"SOPInstanceUID": f"1.2.{k}"})
    refused = refusal(tmp_path)
    assert refused.code == "SHARED_POSITION"
    assert "split them" in refused.message


# Row 20: multi-frame


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL], ids=["axial", "sagittal"])
def test_frames_of_an_enhanced_file_are_ordered_by_their_own_positions(tmp_path, seed, orientation):
    stored = voxels((7, 5, 6))
    order = np.random.default_rng(seed).permutation(7)
    normal = np.cross(orientation[:3], orientation[3:])
    frames = [{"position": 2.5 * k * normal, "orientation": orientation} for k in order]
    path = write_enhanced(tmp_path / "enhanced.dcm", stored[order], frames)
    ours = dicom.read_series(path)
    np.testing.assert_array_equal(ours.voxels, stored)
    assert ours.spacing == pytest.approx((2.5, 0.8, 0.7))
    write_series(
        tmp_path / "classic", stored, origin=(0, 0, 0), orientation=orientation, spacing=(0.8, 0.7)
    )
    assert_alike(ours, by_simpleitk(tmp_path / "classic"))
    (series,) = dicom.scan(path).series
    assert series.files == (path,)
    assert "7 images" in repr(series)


def test_each_frame_has_its_own_rescale(tmp_path):
    stored = voxels((4, 5, 6))
    numbers = [(1, -5), (2, 0), (1, 100), (3, 7)]
    frames = [
        {"position": (0, 0, k), "slope": slope, "intercept": intercept}
        for k, (slope, intercept) in enumerate(numbers)
    ]
    ours = dicom.read_series(write_enhanced(tmp_path / "enhanced.dcm", stored, frames))
    expected = [image.astype(int) * m + b for image, (m, b) in zip(stored, numbers, strict=True)]
    np.testing.assert_array_equal(ours.voxels, expected)


def test_a_frame_that_is_missing_is_missed(tmp_path):
    frames = [{"position": (0, 0, k)} for k in (0, 1, 3, 4)]
    path = write_enhanced(tmp_path / "enhanced.dcm", voxels((4, 5, 6)), frames)
    assert refusal(path).code == "MISSING_SLICE"


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("text", [b"abcdefghijk", b"nan        ", b"0.0\\0.0    ", b"1e999      "])
@pytest.mark.parametrize("frame", [0, 2, 3])
def test_a_frame_whose_position_is_broken_makes_no_traceback(tmp_path, text, frame):
    places = [(7.25 if k == frame else 0, 0, k) for k in range(4)]
    path = write_enhanced(
        tmp_path / "enhanced.dcm", voxels((4, 5, 6)), [{"position": place} for place in places]
    )
    content = path.read_bytes()
    assert content.count(b"7.250000000") == 1
    path.write_bytes(content.replace(b"7.250000000", text))
    found = dicom.scan(tmp_path)
    assert len(found.series) + len(found.rejected) == 1
    assert refusal(path).code in ("NO_GEOMETRY", "UNREADABLE", "MULTI_FRAME")


def test_rounded_positions_are_even_already_when_gaps_are_to_be_filled(tmp_path):
    heights = np.round(0.625 * np.arange(20), 1)
    write_series(tmp_path, voxels((20, 4, 5)), heights=heights)
    plain, filled = dicom.read_series(tmp_path), dicom.read_series(tmp_path, fill_gaps=True)
    np.testing.assert_array_equal(filled.voxels, plain.voxels)
    assert filled.spacing == plain.spacing and filled.notes == plain.notes
