"""The order of slices and the geometry of a volume follow from positions, as SimpleITK has them."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.spatial.transform import Rotation

from helpers import dicom
from helpers.dicom.stack import arrange
from helpers.volume import Volume
from tests.dicom_ends import by_simpleitk, code, few, outcome
from tests.dicom_files import CORONAL, NOWHERE, SERIES, voxels, write, write_enhanced, write_series

DEGREES, MM = st.tuples(*[st.floats(-180, 180)] * 3), st.floats(0.4, 4)


@few
@example((0, 0, 0), (1, 1), 2.5, (0, 0, 0), 5)
@example((90, 90, 0), (0.7, 0.9), 2.5, (-10, 20, 30), 6)
@given(DEGREES, st.tuples(MM, MM), MM, st.tuples(MM, MM, st.floats(-400, 400)), st.integers(2, 7))
def test_geometry_equals_simpleitks(tmp_path_factory, angles, spacing, between, origin, count):
    folder = tmp_path_factory.mktemp("oblique")
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    stated = {"SliceThickness": "5", "SpacingBetweenSlices": "4", "GantryDetectorTilt": "15"}
    stated |= {"orientation": (*rotation[:, 0], *rotation[:, 1])}
    stored = voxels((count, 4, 5))
    paths = write_series(folder, stored, spacing=spacing, between=between, origin=origin, **stated)
    ours, theirs = dicom.read_series(folder), by_simpleitk(folder)
    np.testing.assert_array_equal(ours.voxels, stored)
    np.testing.assert_array_equal(ours.voxels, theirs.voxels)
    np.testing.assert_allclose(ours.direction, theirs.direction, atol=1e-5)
    np.testing.assert_allclose(ours.spacing, (between, *spacing), rtol=1e-4)
    assert ours.same_geometry(theirs, tolerance_mm=1e-3) and ours.notes == ()
    (series,) = dicom.scan(folder).series
    assert list(series.files) == paths
    assert arrange(series.headers[::-1])[2].same_geometry(ours)


def enhanced(folder, heights):
    frames = [{"position": (0, 0, height)} for height in heights]
    return write_enhanced(folder / "a.dcm", voxels((len(frames), 2, 2)), frames)


@few
@example(1.296875, 12, 1.75, True)  # the first rounded up, its neighbours down
@example(3.499437212952272, 200, 16.75, True)
@given(st.floats(0.5, 6), st.integers(3, 200), st.floats(-500, 500), st.booleans())
def test_positions_rounded_to_a_tenth_are_even(tmp_path_factory, spacing, count, start, hole):
    folder = tmp_path_factory.mktemp("rounded")
    heights = np.round(start + spacing * np.arange(count), 1)
    if hole and count >= 9 and spacing >= 1:
        assert code(enhanced(folder, np.delete(heights, count // 2))) == "MISSING_SLICE"
    else:
        for fill in (False, True):
            found = outcome(enhanced(folder, heights), fill_gaps=fill)
            assert found.spacing[0] == pytest.approx(spacing, abs=0.1 / (count - 1) + 1e-9)
            assert len(found.voxels) == count and found.notes == ()


def test_small_steps_that_add_up_and_two_times_at_one_place_are_refused(tmp_path):
    steps = np.cumsum(np.r_[0, np.full(200, 0.99), np.full(199, 1.009)])
    assert code(enhanced(tmp_path, steps)) == "UNEVEN_SPACING"
    # Frames of one file share its UID: nothing was altered.
    assert code(enhanced(tmp_path, (0, 0, 2, 2))) == "SHARED_POSITION"


GAPS = [  # heights in mm, the code, the neighbours of the gap, step, what filling makes up
    ((0, 2, 8, 10, 12, 14), "MISSING_SLICE", (1, 2), 2, "2, 3"),
    ((0, 1, 2, 7), "MISSING_SLICE", (2, 3), 1, "3, 4, 5, 6"),
    ((0, 2, 4, 7, 9, 12), "UNEVEN_SPACING", (2, 3), 2, "3, 4, 5"),
    ((0, 1, 2.2, 3, 4), "UNEVEN_SPACING", (1, 2), 1, "2"),
    ((0, 0.3, 0.73, 0.9, 1.2), "UNEVEN_SPACING", (2, 3), 0.3, "2"),  # a fifth of a step is a lot
    ((0, 1, 2, 3, 4.6), "UNEVEN_SPACING", (3, 4), 0.92, "2, 3, 4"),  # up to the last
]


@pytest.mark.parametrize("heights, named, around, step, made_up", GAPS)
def test_a_gap_is_refused_and_filled_on_request(tmp_path, heights, named, around, step, made_up):
    stored = voxels((len(heights), 4, 5))
    paths = write_series(tmp_path, stored, heights=heights)
    end = outcome(tmp_path)
    assert (end.code, set(end.files)) == (named, {paths[k] for k in around})
    assert "fill_gaps" in str(end)
    ours = dicom.read_series(tmp_path, fill_gaps=True)
    assert ours.spacing[0] == pytest.approx(step, abs=1e-6) and ours.voxels.dtype == "int16"
    even = np.linspace(0, heights[-1], len(ours.voxels))
    assert even[1] == pytest.approx(step)
    np.testing.assert_allclose(ours.voxels, interp1d(heights, stored, axis=0)(even), atol=0.501)
    (note,) = ours.notes
    assert f": {made_up}" in note


def slices(keyword: str, *given) -> dict:
    return {"per_slice": [{keyword: one} for one in given]}


def places(x, y, z=(0, 2, 4, 6, 8)) -> dict:
    return slices("position", *np.broadcast(x, y, z))


FIVE, NAMES = np.arange(5), ("1.1", "1.2", "1.3", "1.4", "1.4")
STACKS = {  # what is odd about five slices: the code, and which slices are named
    "a tilt": (places(0, 0.67 * FIVE, 2.5 * FIVE), "GANTRY_TILT", FIVE),
    "a tilt the other way": (places(-0.2 * FIVE, 0), "GANTRY_TILT", FIVE),
    # Too many would have to be made up: that is not offered.
    "a gap of 200 mm": ({"heights": (0, 1.25, 2.5, 3.75, 203.75)}, "MISSING_SLICE", [3, 4]),
    "more missing than there are": ({"heights": (0, 1, 2, 3, 10)}, "MISSING_SLICE", [3, 4]),
    "a slice beside": (places((0, 0, 30, 0, 0), 0), "NOT_ALIGNED", [2]),
    "other pixels": (slices("spacing", (1, 1), (1, 1), (1, 1.1), *[(1, 1)] * 2), "MIXED_SLICES", 2),
    "long axes": ({"ImageOrientationPatient": list("200010")}, "NO_GEOMETRY", None),
    "spacing 0": ({"PixelSpacing": ["0", "0"]}, "NO_GEOMETRY", FIVE),
    "a place of two numbers": ({"ImagePositionPatient": ["1", "2"]}, "NO_GEOMETRY", FIVE),
    "no spacing": ({"PixelSpacing": None}, "NO_GEOMETRY", FIVE),
    "one without a place": ({"per_slice": [{}] * 4 + [NOWHERE]}, "NO_GEOMETRY", 4),
    "one UID twice": (slices("SOPInstanceUID", *NAMES), "CONFLICTING_DUPLICATE", [3, 4]),
    "acquisitions take turns": (slices("AcquisitionNumber", 1, 2, 1, 2, 1), "MIXED_SLICES", FIVE),
    "slabs": (slices("AcquisitionNumber", 1, 1, 2, 2, 2), "", ()),
    "one slice again": (slices("AcquisitionNumber", 1, 1, 2, 1, 1), "", ()),
    "an acquisition a slice": (slices("AcquisitionNumber", 5, 4, 3, 2, 1), "", ()),
    "a slice a little off": ({"heights": (0, 10, 20.15, 30, 40)}, "", ()),
    "an empty rescale": ({"RescaleSlope": "", "RescaleIntercept": ""}, "", ()),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("elements, expected, named", STACKS.values(), ids=STACKS)
def test_a_stack_that_is_no_volume_is_refused_by_name(tmp_path, elements, expected, named):
    paths = write_series(tmp_path, voxels(), **elements)
    end = outcome(tmp_path)
    assert getattr(end, "code", "") == expected == code(tmp_path, fill_gaps=True)
    if expected:
        assert "fill_gaps" not in str(end)
        assert named is None or set(end.files) == {paths[k] for k in np.ravel(named)}
    else:
        np.testing.assert_array_equal(end.voxels, voxels())


PLACE, NONE = {"position": (1, 2, 3), "spacing": (0.5, 0.6)}, {"PixelSpacing": None, **NOWHERE}
SINGLE = [
    (0, PLACE | {"SpacingBetweenSlices": "7"}, (7, 0.5, 0.6)),
    (1, PLACE | {"SliceThickness": "7"}, (1, 0.5, 0.6)),  # which tells no distance
    (2, PLACE | {"PixelSpacing": ["0", "0"]}, (1, 1, 1)),
    (3, NONE, (1, 1, 1)),
    (3, NONE | {"ImagerPixelSpacing": ["0.14", "0.15"]}, (1, 0.14, 0.15)),
]


@pytest.mark.parametrize("notes, stated, spacing", SINGLE)
def test_one_slice_is_where_simpleitk_has_it_and_doubt_is_noted(tmp_path, notes, stated, spacing):
    path = write(tmp_path / "one.dcm", voxels((4, 5)), orientation=CORONAL, **stated)
    ours, theirs = dicom.read_series(path), Volume.from_sitk(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(ours.voxels[0], voxels((4, 5)))
    np.testing.assert_allclose(ours.spacing, spacing)
    np.testing.assert_allclose(ours.origin, theirs.origin)
    np.testing.assert_allclose(ours.direction, theirs.direction, atol=1e-6)
    assert len(ours.notes) == notes


COPIES = [  # UID, what is added to pixels, intercept; the code
    ("1.2.3.4", 0, "0", ""),
    ("1.2.3.4", 1, "0", "SHARED_POSITION"),
    ("1.2.3.4", 0, "5", "SHARED_POSITION"),
    (f"{SERIES}.3", 0, "0", ""),
    (f"{SERIES}.3", 1, "0", "CONFLICTING_DUPLICATE"),
]


@pytest.mark.parametrize("name, add, intercept, expected", COPIES)
def test_only_true_copies_share_a_place(tmp_path, name, add, intercept, expected):
    paths = write_series(tmp_path, voxels(), RescaleIntercept="0")
    stated = {"position": (-10, 20, 35), "RescaleIntercept": intercept}
    other = write(tmp_path / "z.dcm", voxels()[2] + add, SOPInstanceUID=name, **stated)
    end = outcome(tmp_path)
    assert getattr(end, "code", "") == expected
    if expected:
        assert set(end.files) == {paths[2], other}
    else:
        np.testing.assert_array_equal(end.voxels, voxels())
        assert paths[2].name in end.notes[0] and "z.dcm" in end.notes[0]
