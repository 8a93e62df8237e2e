"""The order of slices and the geometry of a volume follow from positions, as SimpleITK has them."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.spatial.transform import Rotation

from helpers import dicom
from helpers.dicom import stack
from helpers.dicom.header import Header
from helpers.errors import CourseDataError
from helpers.volume import Volume
from tests.dicom_files import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    SERIES,
    by_simpleitk,
    code,
    each,
    few,
    outcome,
    voxels,
    write,
    write_enhanced,
    write_series,
)

FEET_FIRST, PRONE = (-1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0)


def assert_alike(ours: Volume, theirs: Volume) -> None:
    assert ours.same_geometry(theirs, tolerance_mm=1e-3)
    np.testing.assert_allclose(ours.spacing, theirs.spacing, rtol=1e-5)
    np.testing.assert_allclose(ours.direction, theirs.direction, atol=1e-5)
    np.testing.assert_array_equal(ours.voxels, theirs.voxels)


def refused(source, **options) -> CourseDataError:
    end = outcome(source, **options)
    assert isinstance(end, CourseDataError), end
    return end


# Good series


def test_geometry_and_voxels_equal_simpleitks(tmp_path):
    def check(orientation, folder):
        paths = write_series(
            folder, voxels((6, 7, 9)), orientation=orientation, spacing=(0.7, 0.9),
            SliceThickness="5", SpacingBetweenSlices="4", GantryDetectorTilt="15",
        )  # fmt: skip
        ours = dicom.read_series(folder)
        np.testing.assert_array_equal(ours.voxels, voxels((6, 7, 9)))
        assert ours.spacing == pytest.approx((2.5, 0.7, 0.9))
        assert ours.origin == pytest.approx((-10, 20, 30)) and ours.notes == ()
        assert_alike(ours, by_simpleitk(folder))
        (series,) = dicom.scan(folder).series
        assert list(series.files) == paths

    planes = (AXIAL, SAGITTAL, CORONAL, FEET_FIRST, PRONE)
    each({str(plane): plane for plane in planes}, check, tmp_path)


@few
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 4)] * 2),
    between=st.floats(0.4, 8),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
    count=st.integers(2, 7),
    seed=st.integers(0, 99),
)
def test_an_oblique_series_under_any_names_and_numbers_equals_simpleitks(
    tmp_path_factory, angles, spacing, between, origin, count, seed
):
    folder = tmp_path_factory.mktemp("oblique")
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    place = {"orientation": (*rotation[:, 0], *rotation[:, 1]), "origin": origin}
    stored, numbers = voxels((count, 4, 5), seed), np.random.default_rng(seed).permutation(count)
    number = [{"InstanceNumber": int(k)} for k in numbers]
    write_series(
        folder, stored, spacing=spacing, between=between, names_seed=seed,
        per_slice=number.__getitem__, **place,
    )  # fmt: skip
    ours = dicom.read_series(folder)
    np.testing.assert_allclose(ours.direction, rotation, atol=1e-6)
    assert ours.spacing == pytest.approx((between, *spacing), rel=1e-4)
    np.testing.assert_array_equal(ours.voxels, stored)
    assert_alike(ours, by_simpleitk(folder))


def test_frames_of_an_enhanced_file_are_ordered_by_their_own_positions(tmp_path):
    def check(row, folder):
        orientation, seed = row
        stored, order = voxels((7, 5, 6)), np.random.default_rng(seed).permutation(7)
        normal = np.cross(orientation[:3], orientation[3:])
        frames = [{"position": 2.5 * k * normal, "orientation": orientation} for k in order]
        path = write_enhanced(folder / "enhanced.dcm", stored[order], frames)
        ours = dicom.read_series(path)
        np.testing.assert_array_equal(ours.voxels, stored)
        assert ours.spacing == pytest.approx((2.5, 0.8, 0.7))
        classic = {"orientation": orientation, "spacing": (0.8, 0.7), "origin": (0, 0, 0)}
        write_series(folder / "classic", stored, **classic)
        assert_alike(ours, by_simpleitk(folder / "classic"))
        (series,) = dicom.scan(path).series
        assert series.files == (path,) and "1 files, 7 images" in repr(series)

    each({str((o, k)): (o, k) for o in (AXIAL, SAGITTAL) for k in range(3)}, check, tmp_path)


def stub(height: float) -> Header:
    """An axial slice of which only the height matters."""
    nothing = dict.fromkeys(("frame", "acquisition", "spacing_between", "thickness"))
    return Header(
        path=Path(f"{height}.dcm"), sop_uid=str(height), position=(0.0, 0.0, float(height)),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), pixel_spacing=(1.0, 1.0), **nothing,
    )  # fmt: skip


@few
@example(1.296875, 12, 1.75, True)  # the first rounded up, its neighbours down
@example(3.499437212952272, 200, 16.75, False)
@example(3.499437212952272, 200, 16.75, True)
@given(st.floats(0.5, 6), st.integers(3, 200), st.floats(-500, 500), st.booleans())
def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(spacing, count, start, hole):
    heights = np.round(start + spacing * np.arange(count), 1)
    if hole and count >= 9 and spacing >= 1:
        with pytest.raises(CourseDataError) as error:
            stack.arrange([stub(height) for height in np.delete(heights, count // 2)])
        assert error.value.code == "MISSING_SLICE"
    else:
        for fill in (False, True):
            found = stack.arrange([stub(height) for height in heights], fill_gaps=fill)
            assert found.spacing[0] == pytest.approx(spacing, abs=0.1 / (count - 1) + 1e-9)
            assert found.even_mm is None and found.notes == []


def test_small_steps_that_add_up_are_refused():
    steps = np.r_[np.full(200, 0.99), np.full(199, 1.009)]
    with pytest.raises(CourseDataError) as error:
        stack.arrange([stub(height) for height in np.r_[0, np.cumsum(steps)]])
    assert error.value.code == "UNEVEN_SPACING"


# Gaps

GAPS = {  # heights in mm: the code, the neighbours of the gap, the slices that filling makes up
    (0, 5, 10, 20): ("MISSING_SLICE", (2, 3), [3]),
    (0, 10, 15, 20): ("MISSING_SLICE", (0, 1), [1]),
    (0, 5, 15): ("MISSING_SLICE", (1, 2), [2]),
    (0, 2, 8, 10, 12, 14): ("MISSING_SLICE", (1, 2), [2, 3]),
    (0, 2, 4, 7, 9, 12): ("UNEVEN_SPACING", (2, 3), [3, 4, 5]),
    (0, 2, 4, 5, 6, 8): ("UNEVEN_SPACING", None, []),
    (0, 1.8, 4, 6, 8): ("UNEVEN_SPACING", None, None),
    (0, 2, 4, 6, 8.4): ("UNEVEN_SPACING", (3, 4), [4]),
}


@pytest.mark.parametrize("slope", ["1", "0.25"])
def test_a_gap_is_refused_by_name_and_filled_on_request_by_straight_lines(tmp_path, slope):
    def check(heights, folder):
        named, around, made_up = GAPS[heights]
        stored = voxels((len(heights), 4, 5))
        rescale = {"RescaleSlope": slope, "RescaleIntercept": "0"}
        paths = write_series(folder, stored, heights=heights, orientation=CORONAL, **rescale)
        # SimpleITK averages the gap away, with a warning at most.
        mean = heights[-1] / (len(heights) - 1)
        assert by_simpleitk(folder).spacing[0] == pytest.approx(mean)
        error = refused(folder)
        assert error.code == named and "fill_gaps=True interpolates" in error.message
        assert around is None or set(error.files) == {paths[k] for k in around}
        ours = dicom.read_series(folder, fill_gaps=True)
        step = ours.spacing[0]
        even = np.arange(0, heights[-1] + 0.03, step)
        assert step == pytest.approx({5: 5, 10: 5}.get(heights[1], 2), abs=0.01)
        line = interp1d(heights, stored * float(slope), axis=0)(np.minimum(even, heights[-1]))
        assert ours.voxels.dtype == ("int16" if slope == "1" else "float32")
        rounding = 0.5 if slope == "1" else 0.0
        np.testing.assert_allclose(ours.voxels, line, rtol=1e-5, atol=rounding + 1e-3)
        (note,) = ours.notes
        count = f"interpolated from {len(heights)} uneven slices to {len(even)}, {step:g} mm apart"
        assert note.startswith(count)
        listed = f"; made up: {', '.join(map(str, made_up or []))}"
        assert made_up is None or (listed in note) == bool(made_up)

    each({str(heights): heights for heights in GAPS}, check, tmp_path)


def test_more_slices_than_were_measured_are_never_made_up(tmp_path):
    def check(row, folder):
        heights, named, allowed = row
        write_series(folder, voxels((len(heights), 4, 5)), heights=heights)
        error = refused(folder)
        assert error.code == named and ("fill_gaps" in str(error)) == allowed
        assert ("" if allowed else named) == code(folder, fill_gaps=True)

    rows = [
        ((0, 1.25, 2.5, 202.5), "MISSING_SLICE", False),  # 161 of 165 would be made up
        ((0, 1, 2, 7), "MISSING_SLICE", True),  # 4 of 8
        ((0, 1, 2, 8), "MISSING_SLICE", False),  # 5 of 9
        ((0, 1, 2, 3.4, 4.4), "UNEVEN_SPACING", True),
        ((0, 1, 2, 3.4, 1e7), "UNEVEN_SPACING", False),
        ((0, 1, 2, 1e7), "MISSING_SLICE", False),
    ]
    each({str(row): row for row in rows}, check, tmp_path)


@pytest.mark.parametrize(("last", "kept"), [(4.5, 4), (4.6, 4), (5.0, 5), (4.99, 5)])
def test_filling_gaps_invents_no_plane_and_says_what_it_leaves_out(tmp_path, last, kept):
    write_series(tmp_path, voxels((5, 4, 5)), heights=(0, 1, 2, 3, last))
    ours = dicom.read_series(tmp_path, fill_gaps=True)
    assert ours.shape[0] == kept + 1
    assert any(f"the last {last - kept:.2f} mm" in n for n in ours.notes) is (last - kept > 0.02)


# Stacks that are no volume


def at(*places):
    """Elements of slice k alone: its position."""
    return {"per_slice": lambda k: {"position": np.add((-10, 20, 30), places[k])}}


def tilted(by_mm: float, **elements) -> dict:
    return at(*((0, by_mm * k, 2.5 * k) for k in range(5))) | elements


def third(**elements) -> dict:
    return {"per_slice": lambda k: elements if k == 2 else {}}


def numbered(*acquisitions, **elements) -> dict:
    """Acquisition numbers of the slices."""
    return {"per_slice": lambda k: {"AcquisitionNumber": acquisitions[k]}} | elements


STACKS = {  # what is odd about five slices: the code, and which slices are named
    "a tilt": (tilted(0.67), "GANTRY_TILT", range(5)),
    "a tilt backwards": (tilted(-0.67, GantryDetectorTilt="0"), "GANTRY_TILT", range(5)),
    "a slight tilt": (tilted(0.2), "GANTRY_TILT", range(5)),
    "upright, whatever the tag says": ({"GantryDetectorTilt": "15"}, "", ()),
    "a slice beside": (at(*((30 * (k == 2), 0, 2 * k) for k in range(5))), "NOT_ALIGNED", [2]),
    "two stacks": (at(*((90 * (k % 2), 0, 2 * (k // 2)) for k in range(5))), "NOT_ALIGNED", None),
    "no position": (third(ImagePositionPatient=None), "NO_GEOMETRY", [2]),
    "no orientation": (third(ImageOrientationPatient=None), "NO_GEOMETRY", [2]),
    "no pixel spacing": (third(PixelSpacing=None), "NO_GEOMETRY", [2]),
    "another pixel spacing": (third(PixelSpacing=["1", "1.1"]), "MIXED_SLICES", [2]),
    "orientation of zeros": ({"ImageOrientationPatient": ["0"] * 6}, "NO_GEOMETRY", None),
    "parallel axes": ({"ImageOrientationPatient": list("100100")}, "NO_GEOMETRY", None),
    "long axes": ({"ImageOrientationPatient": list("200010")}, "NO_GEOMETRY", None),
    "spacing 0": ({"PixelSpacing": ["0", "0"]}, "NO_GEOMETRY", None),
    "spacing below 0": ({"PixelSpacing": ["-1", "1"]}, "NO_GEOMETRY", None),
    "a digit in the axes": (third(ImageOrientationPatient=[1, 0, 0, 0, 1, 1e-5]), "", ()),
    "one UID at two places": (
        {"per_slice": lambda k: {"SOPInstanceUID": f"1.2.{min(k, 3)}"}},
        "CONFLICTING_DUPLICATE", [3, 4],
    ),
    "acquisitions take turns": (numbered(1, 2, 1, 2, 1), "MIXED_SLICES", None),
    "slabs that overlap": (numbered(1, 1, 2, 1, 2), "MIXED_SLICES", None),
    "slabs": (numbered(1, 1, 2, 2, 2), "", ()),
    "an acquisition a slice": (numbered(5, 4, 3, 2, 1), "", ()),
    "one slice again": (numbered(1, 1, 2, 1, 1), "", ()),
    "some without a number": (numbered(1, None, 1, None, 1), "", ()),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_a_stack_that_is_no_volume_is_refused_by_name(tmp_path):
    def check(row, folder):
        elements, expected, named = row
        paths = write_series(folder, voxels(), **elements)
        end = outcome(folder)
        assert getattr(end, "code", "") == expected
        if expected:
            assert named is None or set(end.files) == {paths[k] for k in named}
            assert code(folder, fill_gaps=True) == expected
        else:
            np.testing.assert_array_equal(end.voxels, voxels())

    each(STACKS, check, tmp_path)


def test_a_tilt_is_told_in_degrees_and_the_shift_in_millimetres(tmp_path):
    write_series(tmp_path / "a", voxels(), **tilted(0.67))
    assert f"{np.degrees(np.arctan(0.67 / 2.5)):.1f} degrees" in refused(tmp_path / "a").message
    write_series(tmp_path / "b", voxels(), **STACKS["a slice beside"][0])
    assert "slice 2 of 5 lies 30.0 mm beside" in refused(tmp_path / "b").message


@pytest.mark.parametrize("text", [b"nan", b"inf", b"1,5", b"abc", b"0.0\\0.0"])
def test_a_position_that_is_no_number_is_none(tmp_path, text):
    paths = write_series(tmp_path, voxels(), origin=(-10, 20, 30))
    content = paths[2].read_bytes()
    paths[2].write_bytes(content.replace(b"-10.000000000", text.ljust(13)))
    error = refused(tmp_path)
    assert (error.code, error.files) == ("NO_GEOMETRY", (paths[2],))
    places = [(7.25 if k == 2 else 0, 0, k) for k in range(4)]
    frames = [{"position": place} for place in places]
    path = write_enhanced(tmp_path / "e" / "e.dcm", voxels((4, 5, 6)), frames)
    path.write_bytes(path.read_bytes().replace(b"7.250000000", text.ljust(11)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert code(path) in ("NO_GEOMETRY", "NO_SERIES")  # pydicom cannot parse all of them


# One image


def test_a_single_slice_is_where_simpleitk_has_it(tmp_path):
    place = {"position": (1, 2, 3), "orientation": CORONAL, "spacing": (0.5, 0.6)}
    for stated, between in (({"SpacingBetweenSlices": "7"}, 7), ({"SliceThickness": "5"}, 1)):
        path = write(tmp_path / "one.dcm", voxels((4, 5)), **place, **stated)
        ours = dicom.read_series(path)
        assert ours.spacing == pytest.approx((between, 0.5, 0.6))
        theirs = Volume.from_sitk(sitk.ReadImage(str(path)))
        assert_alike(ours, Volume(theirs.voxels, ours.spacing, theirs.origin, theirs.direction))
    (note,) = ours.notes
    assert "1 mm to the next one assumed (Slice Thickness is 5 mm)" in note


def test_a_plain_2d_image_without_any_geometry_is_fine_and_noted(tmp_path):
    nothing = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    ours = dicom.read_series(write(tmp_path / "a.dcm", voxels((4, 5)), **nothing))
    np.testing.assert_array_equal(ours.voxels[0], voxels((4, 5)))
    assert (ours.spacing, ours.origin) == ((1, 1, 1), (0, 0, 0))
    np.testing.assert_array_equal(ours.direction, np.eye(3))
    starts = ("no pixel spacing", "no position or orientation", "a single slice")
    assert [any(n.startswith(start) for n in ours.notes) for start in starts] == [True] * 3
    nothing["ImagerPixelSpacing"] = ["0.14", "0.15"]
    ours = dicom.read_series(write(tmp_path / "b.dcm", voxels((4, 5)), **nothing))
    assert ours.spacing == pytest.approx((1, 0.14, 0.15))
    assert any("at the detector" in note for note in ours.notes)


# Copies


def test_a_true_copy_is_counted_once_and_noted(tmp_path):
    def check(row, folder):
        which, same_uid = row
        paths = write_series(folder, voxels())
        name = f"{SERIES}.{which + 1}" if same_uid else "1.2.3.4"
        place = {"position": (-10, 20, 30 + 2.5 * which), "SOPInstanceUID": name}
        copy = write(folder / "sub" / "copy.dcm", voxels()[which], **place)
        ours = dicom.read_series(folder)
        np.testing.assert_array_equal(ours.voxels, voxels())
        (note,) = ours.notes
        assert note.startswith("copies counted once: ")
        assert {paths[which].name, copy.name} <= set(note.split())
        assert len(dicom.scan(folder).series[0].files) == 6

    each({str((k, u)): (k, u) for k in (0, 2, 4) for u in (True, False)}, check, tmp_path)


def test_a_whole_series_copied_twice_is_read_once(tmp_path):
    for seed, name in enumerate("abc"):
        write_series(tmp_path / name, voxels(), names_seed=seed)
    ours = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(ours.voxels, voxels())
    assert ours.notes[0].endswith(" and 9 more")


def test_two_different_images_at_one_place_are_refused(tmp_path):
    def check(row, folder):
        change, uid, named = row
        paths = write_series(folder, voxels(), RescaleSlope="1", RescaleIntercept="0")
        stated = {"RescaleSlope": "1", "RescaleIntercept": "0"} | change
        pixels = voxels()[2] + int(stated.pop("pixels", 0))
        place = {"position": (-10, 20, 35), "SOPInstanceUID": uid}
        other = write(folder / "z.dcm", pixels, **place, **stated)
        error = refused(folder)
        assert (error.code, set(error.files)) == (named, {paths[2], other})

    changes = ({"pixels": 1}, {"RescaleSlope": "3"}, {"RescaleIntercept": "5"})
    uids = ((f"{SERIES}.3", "CONFLICTING_DUPLICATE"), ("1.2.3.4", "SHARED_POSITION"))
    each({str((c, u)): (c, *u) for c in changes for u in uids}, check, tmp_path)


def test_two_times_at_each_position_are_no_copies(tmp_path):
    write_series(tmp_path / "a", voxels(seed=1), AcquisitionNumber=1)
    later = {"per_slice": lambda k: {"SOPInstanceUID": f"1.2.{k}"}, "AcquisitionNumber": 2}
    write_series(tmp_path / "b", voxels(seed=2), **later)
    assert refused(tmp_path).code == "SHARED_POSITION"
    # Frames of one file share its UID: nothing was altered.
    frames = [{"position": (0, 0, k)} for k in (0, 0, 2, 2)]
    path = write_enhanced(tmp_path / "e" / "e.dcm", voxels((4, 5, 6)), frames)
    error = refused(path)
    assert (error.code, error.files) == ("SHARED_POSITION", (path,))
    assert pydicom.dcmread(path).NumberOfFrames == 4
