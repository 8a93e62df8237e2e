"""Series as scanners write them: good ones read back exactly, each trap has the fault it claims."""

import io

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_rescale
from pydicom.uid import UID, ExplicitVRLittleEndian

from helpers.lesson.phantoms.disc import messy_folder
from helpers.lesson.phantoms.scanner import ORIENTATIONS, TRAPS, dicom_series, oriented, uid
from helpers.lesson.phantoms.traps import FILE_EDITS, HEADER_EDITS, TRANSFER_SYNTAXES
from helpers.volume import Volume

GEOMETRY = (
    (4.0, 1.5, 0.75),
    (-30.0, 12.5, -400.25),
    [[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]],
)


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(1)
    z, y, x = np.indices((12, 36, 40))
    voxels = rng.integers(-300, 300, z.shape) + 60 * z + 10 * y - 5 * x - 300
    return Volume(voxels.astype(np.int16), *GEOMETRY)


def headers(paths, **options):
    return [pydicom.dcmread(path, **options) for path in paths]


def heights(files):
    """Place of each slice along the normal, computed here from the two tags alone."""
    rows = [np.reshape(np.asarray(f.ImageOrientationPatient, float), (2, 3)) for f in files]
    return np.array(
        [
            np.cross(row, column) @ np.asarray(f.ImagePositionPatient, float)
            for (row, column), f in zip(rows, files, strict=True)
        ]
    )


def values(file):
    return apply_rescale(file.pixel_array, file)


def stack(files):
    return np.stack([values(file) for file in files])


def by_height(paths):
    files = headers(paths)
    return [files[k] for k in np.argsort(heights(files))]


# Good series


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_simpleitk_reads_the_same_voxels_at_the_same_place(volume, tmp_path, orientation):
    paths = dicom_series(volume, tmp_path, orientation=orientation)
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    assert [str(path) for path in paths] == list(files)  # given in the order of the stack
    image, expected = sitk.ReadImage(files), oriented(volume, orientation)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected.voxels)
    np.testing.assert_allclose(image.GetOrigin(), expected.origin, atol=1e-6)
    np.testing.assert_allclose(image.GetSpacing(), expected.spacing[::-1], atol=1e-6)
    np.testing.assert_allclose(
        np.reshape(image.GetDirection(), (3, 3)), expected.direction, atol=1e-6
    )


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_another_orientation_leaves_every_voxel_at_its_place(volume, orientation):
    turned = oriented(volume, orientation)
    assert np.linalg.det(turned.direction) == pytest.approx(1)
    for index in np.random.default_rng(0).integers(0, turned.shape, (50, 3)):
        place = np.rint(volume.to_index(turned.to_patient(index))).astype(int)
        np.testing.assert_allclose(volume.to_patient(place), turned.to_patient(index), atol=1e-9)
        assert turned.voxels[tuple(index)] == volume.voxels[tuple(place)]


def test_a_mirrored_volume_is_written_with_slices_along_rows_times_columns(volume, tmp_path):
    mirrored = Volume(volume.voxels, volume.spacing, volume.origin, np.diag([1.0, 1, -1]))
    files = headers(dicom_series(mirrored, tmp_path))
    assert np.all(np.diff(heights(files)) > 0)
    np.testing.assert_array_equal(stack(files), mirrored.voxels[::-1])
    np.testing.assert_allclose(files[-1].ImagePositionPatient, volume.origin)


def test_orientations_are_what_their_names_say(volume, tmp_path):
    upright = Volume(volume.voxels, volume.spacing)
    expected = {
        "axial": [1, 0, 0, 0, 1, 0],
        "feet first": [-1, 0, 0, 0, 1, 0],
        "sagittal": [0, 1, 0, 0, 0, -1],
        "coronal": [1, 0, 0, 0, 0, -1],
    }
    for name, cosines in expected.items():
        file = headers(dicom_series(upright, tmp_path / name, orientation=name))[0]
        np.testing.assert_allclose(file.ImageOrientationPatient, cosines, atol=1e-12)
        assert file.PatientPosition == ("FFS" if name == "feet first" else "HFS")


@pytest.mark.parametrize("names", ["shuffled", "hex"])
def test_neither_file_names_nor_instance_numbers_of_every_series_follow_the_stack(
    volume, tmp_path, names
):
    followed = set()
    for seed in range(3):
        paths = dicom_series(volume, tmp_path / str(seed), seed=seed, names=names)
        assert sorted(paths) != paths
        numbers = [file.InstanceNumber for file in headers(paths)]
        assert sorted(numbers) == list(range(1, len(paths) + 1))
        followed.add(tuple(np.sign(np.diff(numbers))))
    assert len(followed) == 3  # upwards, downwards, and every second slice first


def test_ordered_names_follow_the_stack(volume, tmp_path):
    paths = dicom_series(volume, tmp_path, names="ordered")
    assert sorted(paths) == paths


def test_ct_is_stored_as_scanners_store_it(volume, tmp_path):
    for file in headers(dicom_series(volume, tmp_path)):
        assert (file.RescaleSlope, file.RescaleIntercept, file.RescaleType) == (1, -1024, "HU")
        assert (file.BitsAllocated, file.BitsStored, file.HighBit) == (16, 12, 11)
        assert file.pixel_array.dtype == np.uint16
        assert file.KVP and file.WindowWidth == 400 and file.FrameOfReferenceUID


def test_headers_name_nobody_and_no_place(volume, tmp_path):
    for file in headers(dicom_series(volume, tmp_path)):
        assert file.PatientName == "PHANTOM^TORSO" and file.PatientID.startswith("PHANTOM")
        assert "InstitutionName" not in file and not file.Manufacturer
        assert not any(element.tag.is_private or element.tag.group == 0x6000 for element in file)


def test_uids_are_valid_and_the_same_for_the_same_seed_only(volume, tmp_path):
    first, again, other = (
        headers(dicom_series(volume, tmp_path / str(k), seed=seed))
        for k, seed in enumerate((4, 4, 5))
    )
    keywords = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    for keyword in keywords:
        ours = [file[keyword].value for file in first]
        assert all(UID(value).is_valid for value in ours)
        assert ours == [file[keyword].value for file in again]
        assert not set(ours) & {file[keyword].value for file in other}
    assert len({file.SOPInstanceUID for file in first}) == len(first)
    assert uid("a", 1) == uid("a", 1) != uid("a", 2)


def test_the_same_seed_writes_the_same_bytes(volume, tmp_path):
    first = dicom_series(volume, tmp_path / "a", seed=2)
    again = dicom_series(volume, tmp_path / "b", seed=2)
    assert [(p.name, p.read_bytes()) for p in first] == [(p.name, p.read_bytes()) for p in again]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    slope=st.floats(0.25, 4),
    intercept=st.integers(-2000, 0),
    seed=st.integers(0, 1000),
)
def test_reading_undoes_any_rescale_up_to_half_a_step(volume, tmp_path, slope, intercept, seed):
    folder = tmp_path / f"{slope}-{intercept}-{seed}"
    files = headers(dicom_series(volume, folder, rescale=(slope, intercept), seed=seed))
    assert np.abs(stack(files) - volume.voxels).max() <= slope / 2 + 1e-6


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_mr_and_pt_have_no_rescale_unless_asked(volume, tmp_path, modality):
    positive = volume.with_voxels(volume.voxels.clip(0))
    for file in headers(dicom_series(positive, tmp_path, modality=modality)):
        assert "RescaleSlope" not in file and file.Modality == modality
        assert "KVP" not in file


def test_values_that_do_not_fit_are_refused_before_anything_is_written(volume, tmp_path):
    for voxels in (volume.voxels * 100.0, np.where(volume.voxels > 500, np.nan, 0.0)):
        with pytest.raises(ValueError, match="do not fit 16 bits"):
            dicom_series(volume.with_voxels(voxels), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["modality", "orientation", "names", "trap"])
def test_an_unknown_option_is_answered_with_the_known_ones(volume, tmp_path, option):
    with pytest.raises(ValueError, match="'nonsense' is not one of"):
        dicom_series(volume, tmp_path, **{option: "nonsense"})


# Traps


@pytest.fixture
def trapped(volume, tmp_path):
    """Write the volume with a trap; every trap of the table goes through here."""
    return lambda trap, **options: dicom_series(volume, tmp_path / "series", trap=trap, **options)


def test_every_trap_of_the_table_is_built_and_described():
    built = [*HEADER_EDITS, *FILE_EDITS, *TRANSFER_SYNTAXES, "unicode_path"]
    assert sorted(built) == sorted(TRAPS)
    assert all(5 < len(line) < 100 for line in TRAPS.values())


def test_a_missing_slice_leaves_one_double_gap(trapped, volume):
    files = by_height(trapped("missing_slice"))
    gaps = np.diff(heights(files))
    assert len(files) == volume.shape[0] - 1
    np.testing.assert_allclose(sorted(gaps), [4.0] * (len(files) - 2) + [8.0], atol=1e-6)


def test_uneven_spacing_has_two_distances_and_all_slices(trapped, volume):
    gaps = np.diff(heights(by_height(trapped("uneven_spacing"))))
    assert len(gaps) == volume.shape[0] - 1
    wide = gaps > 5
    assert 3 <= wide.sum() <= len(gaps) - 3 and np.all(np.diff(wide.astype(int)) >= 0)
    np.testing.assert_allclose(gaps, np.where(wide, 5.6, 4.0), atol=1e-6)


@pytest.mark.parametrize(
    ("trap", "leans", "tag"),
    [
        ("gantry_tilt", True, 15),
        ("gantry_tilt_untagged", True, None),
        ("gantry_tilt_lie", False, 15),
    ],
)
def test_gantry_tilt_leans_in_the_positions_and_the_tag_may_lie(trapped, trap, leans, tag):
    files = by_height(trapped(trap))
    positions = np.array([file.ImagePositionPatient for file in files], float)
    column = np.asarray(files[0].ImageOrientationPatient[3:], float)
    slope = np.diff(positions @ column) / np.diff(heights(files))
    np.testing.assert_allclose(slope, np.tan(np.radians(15)) if leans else 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(heights(files)), 4.0, atol=1e-6)
    assert all(file.get("GantryDetectorTilt") == tag for file in files)


def test_a_shifted_slice_is_off_by_a_centimetre_and_at_the_right_height(trapped):
    files = by_height(trapped("shifted_slice"))
    row = np.asarray(files[0].ImageOrientationPatient[:3], float)
    off = np.array([file.ImagePositionPatient for file in files], float) @ row
    np.testing.assert_allclose(sorted(off - np.median(off)), [0] * (len(files) - 1) + [10])
    np.testing.assert_allclose(np.diff(heights(files)), 4.0, atol=1e-6)


def test_a_duplicate_slice_is_one_file_twice(trapped, volume):
    contents = [path.read_bytes() for path in trapped("duplicate_slice")]
    assert len(contents) == volume.shape[0] + 1
    assert len(set(contents)) == volume.shape[0]


def test_a_conflicting_duplicate_has_one_uid_and_two_contents(trapped, volume):
    files = headers(trapped("conflicting_duplicate"))
    seen = {}
    for file in files:
        seen.setdefault(file.SOPInstanceUID, []).append(file)
    (pair,) = [group for group in seen.values() if len(group) == 2]
    assert len(seen) == volume.shape[0]
    assert pair[0].ImagePositionPatient == pair[1].ImagePositionPatient
    assert np.any(pair[0].pixel_array != pair[1].pixel_array)


def test_two_phases_have_two_images_at_each_position(trapped, volume):
    files = by_height(trapped("two_phases"))
    assert len({file.SOPInstanceUID for file in files}) == 2 * volume.shape[0]
    assert len({file.SeriesInstanceUID for file in files}) == 1
    np.testing.assert_allclose(np.diff(heights(files))[::2], 0, atol=1e-9)
    assert np.any(files[0].pixel_array != files[1].pixel_array)


def test_mixed_size_has_one_narrower_slice(trapped, volume):
    shapes = [file.pixel_array.shape for file in headers(trapped("mixed_size"))]
    assert shapes.count(volume.shape[1:]) == len(shapes) - 1
    assert shapes.count((volume.shape[1], volume.shape[2] - 8)) == 1


def test_a_scout_is_in_the_series_but_not_in_the_stack(trapped, volume):
    *slices, scout = headers(trapped("scout"))
    assert scout.ImageType[2] == "LOCALIZER" and len(slices) == volume.shape[0]
    assert scout.SeriesInstanceUID == slices[0].SeriesInstanceUID
    assert scout.pixel_array.shape == (volume.shape[0], volume.shape[2])
    assert scout.ImageOrientationPatient != slices[0].ImageOrientationPatient
    # It is the mean along image columns, top slice first, and lies where that stands.
    np.testing.assert_allclose(values(scout), volume.voxels.mean(axis=1)[::-1], atol=1)
    np.testing.assert_allclose(scout.ImagePositionPatient, slices[-1].ImagePositionPatient)
    np.testing.assert_allclose(scout.PixelSpacing, [4.0, 0.75])


def test_two_series_share_a_folder_and_nothing_else(trapped, tmp_path):
    files = headers(trapped("two_series"))
    assert len(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(tmp_path / "series"))) == 2
    assert len({file.SOPInstanceUID for file in files}) == len(files) == 18
    assert len({file.StudyInstanceUID for file in files}) == 1


def test_no_position_removes_position_and_orientation(trapped):
    for file in headers(trapped("no_position")):
        assert "ImagePositionPatient" not in file and "ImageOrientationPatient" not in file
        assert "PixelSpacing" in file


def test_monochrome1_is_inverted_within_the_stored_bits(trapped, volume):
    for k, file in enumerate(headers(trapped("monochrome1"))):
        assert file.PhotometricInterpretation == "MONOCHROME1"
        assert np.frombuffer(file.PixelData, "<u2").max() <= 4095  # the four bits above are 0
        np.testing.assert_array_equal(4095 - 1024 - file.pixel_array.astype(int), volume.voxels[k])


def test_signed_monochrome1_is_inverted_too(volume, tmp_path):
    paths = dicom_series(volume, tmp_path, rescale=(1, 0), trap="monochrome1")
    for k, file in enumerate(headers(paths)):
        assert file.PixelRepresentation == 1
        np.testing.assert_array_equal(-1 - file.pixel_array.astype(int), volume.voxels[k])


def test_per_slice_rescale_has_several_slopes_that_give_back_the_values(trapped, volume):
    files = headers(trapped("per_slice_rescale"))
    slopes = {float(file.RescaleSlope) for file in files}
    assert len(slopes) == 4
    assert np.abs(stack(files) - volume.voxels).max() <= max(slopes) / 2
    stored = np.stack([file.pixel_array for file in files])
    assert np.abs(stored - 1024.0 - volume.voxels).max() > 100  # one slope for all is wrong


def test_per_slice_rescale_works_for_mr_which_has_no_rescale_otherwise(volume, tmp_path):
    positive = volume.with_voxels(volume.voxels.clip(0))
    files = headers(dicom_series(positive, tmp_path, modality="MR", trap="per_slice_rescale"))
    assert np.abs(stack(files) - positive.voxels).max() <= 1
    assert len({file.RescaleSlope for file in files}) == 4


def test_no_rescale_removes_the_tags_and_nothing_else(trapped, volume):
    for k, file in enumerate(headers(trapped("no_rescale"))):
        assert "RescaleSlope" not in file and "RescaleIntercept" not in file
        np.testing.assert_array_equal(file.pixel_array - 1024.0, volume.voxels[k])


def test_float_pixels_hold_the_unit_itself(trapped, volume):
    for k, file in enumerate(headers(trapped("float_pixels"))):
        assert "FloatPixelData" in file and "PixelData" not in file
        assert file.pixel_array.dtype == np.float32
        np.testing.assert_array_equal(file.pixel_array, volume.voxels[k])


def test_palette_pixels_are_indices_of_a_colour_table(trapped):
    for file in headers(trapped("palette")):
        assert file.PhotometricInterpretation == "PALETTE COLOR"
        colour = apply_color_lut(file.pixel_array, file)
        assert colour.shape == (*file.pixel_array.shape, 3)
        assert np.any(colour[..., 0] != colour[..., 2])


def test_ybr_is_colour_with_three_samples(trapped):
    for file in headers(trapped("ybr")):
        assert file.PhotometricInterpretation == "YBR_FULL"
        assert file.pixel_array.shape[-1] == 3 == file.SamplesPerPixel


def test_one_truncated_file_ends_before_its_pixels_do(trapped):
    faults = 0
    for path in trapped("truncated"):
        try:
            file = pydicom.dcmread(path)
            faults += len(file.PixelData) != file.Rows * file.Columns * 2
        except (EOFError, OSError, ValueError):
            faults += 1
    assert faults == 1


def test_short_pixels_have_half_the_bytes_in_one_file(trapped):
    files = headers(trapped("short_pixels"))
    short = [f for f in files if len(f.PixelData) < f.Rows * f.Columns * 2]
    assert len(short) == 1
    with pytest.raises(ValueError, match="less than expected"):
        short[0].pixel_array  # noqa: B018


def test_terabytes_are_claimed_by_one_small_file(trapped):
    paths = trapped("terabytes")
    claims = [
        file.Rows * file.Columns * int(file.get("NumberOfFrames", 1)) * 2
        for file in headers(paths, stop_before_pixels=True)
    ]
    assert sum(claim > 1e12 for claim in claims) == 1
    assert max(path.stat().st_size for path in paths) < 10_000


def test_no_preamble_needs_force(trapped, volume):
    for k, path in enumerate(trapped("no_preamble")):
        with pytest.raises(InvalidDicomError):
            pydicom.dcmread(path)
        file = pydicom.dcmread(path, force=True)
        np.testing.assert_array_equal(values(file), volume.voxels[k])


def test_an_enhanced_multi_frame_file_states_the_place_of_each_frame(trapped, volume):
    (path,) = trapped("multi_frame")
    file = pydicom.dcmread(path)
    assert file.NumberOfFrames == volume.shape[0]
    shared = file.SharedFunctionalGroupsSequence[0]
    rescale = shared.PixelValueTransformationSequence[0]
    np.testing.assert_array_equal(
        file.pixel_array * rescale.RescaleSlope + rescale.RescaleIntercept, volume.voxels
    )
    for k, frame in enumerate(file.PerFrameFunctionalGroupsSequence):
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, volume.to_patient((k, 0, 0)), atol=1e-6)
    assert "ImagePositionPatient" not in file
    np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, [1.5, 0.75])
    # GDCM, behind SimpleITK, finds its way by the same groups.
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.voxels)
    np.testing.assert_allclose(image.GetSpacing(), volume.spacing[::-1], atol=1e-6)


def test_a_plain_multi_frame_file_has_no_geometry(trapped, volume):
    (file,) = headers(trapped("multi_frame_plain"))
    assert file.pixel_array.shape == volume.shape
    assert "PerFrameFunctionalGroupsSequence" not in file and "ImagePositionPatient" not in file


@pytest.mark.parametrize("trap", TRANSFER_SYNTAXES)
def test_every_encoding_is_what_it_says_and_loses_nothing(trapped, volume, trap):
    paths = trapped(trap)
    files = headers(paths)
    for file in files:
        assert file.file_meta.TransferSyntaxUID == TRANSFER_SYNTAXES[trap]
    np.testing.assert_array_equal(stack(files), volume.voxels)
    image = sitk.ReadImage([str(path) for path in paths])  # GDCM: a second decoder
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.voxels)


def test_the_bytes_of_big_endian_pixels_are_swapped(trapped, volume):
    file = pydicom.dcmread(trapped("big_endian")[0])
    wrong = np.frombuffer(file.PixelData, "<u2").reshape(volume.shape[1:])
    assert np.mean(wrong - 1024.0 == volume.voxels[0]) < 0.1


def test_the_transfer_syntax_can_be_chosen_without_a_trap(volume, tmp_path):
    files = headers(dicom_series(volume, tmp_path, transfer_syntax=TRANSFER_SYNTAXES["rle"]))
    assert {file.file_meta.TransferSyntaxUID for file in files} == {TRANSFER_SYNTAXES["rle"]}
    np.testing.assert_array_equal(stack(files), volume.voxels)


def test_no_decoder_reads_the_unknown_syntax(trapped):
    for path in trapped("unknown_decoder"):
        file = pydicom.dcmread(path)
        assert file.file_meta.TransferSyntaxUID.is_encapsulated
        with pytest.raises((NotImplementedError, RuntimeError)):
            file.pixel_array  # noqa: B018
        with pytest.raises(RuntimeError):
            sitk.ReadImage(str(path))


def test_not_images_lie_between_the_slices_and_none_has_pixels(trapped, volume):
    paths = trapped("not_images")
    others = {path.name: path for path in paths[volume.shape[0] :]}
    assert {path.parent for path in paths} == {paths[0].parent}
    for name in (".DS_Store", "README.TXT", "empty.dcm"):
        with pytest.raises((InvalidDicomError, EOFError)):
            pydicom.dcmread(others.pop(name))
    kinds = {"DICOMDIR": None, "report.dcm": "SR", "structures.dcm": "RTSTRUCT", "ecg.dcm": "ECG"}
    assert set(others) == set(kinds)
    for name, path in others.items():
        file = pydicom.dcmread(path)
        assert file.get("Modality") == kinds[name] and "PixelData" not in file


def test_the_unicode_path_has_spaces_umlauts_chinese_and_is_long(trapped):
    path = trapped("unicode_path")[0].relative_to(trapped("unicode_path")[0].parents[2])
    text = str(path)
    assert " " in text and "Ü" in text and "腹" in text and len(text) > 120
    assert max(len(part.encode()) for part in path.parts) < 255


def test_traps_are_put_in_the_same_place_for_the_same_seed(volume, tmp_path):
    for trap in ("missing_slice", "truncated", "conflicting_duplicate"):
        first = dicom_series(volume, tmp_path / f"{trap} a", trap=trap, seed=9)
        again = dicom_series(volume, tmp_path / f"{trap} b", trap=trap, seed=9)
        assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


# The disc


@pytest.fixture(scope="module")
def disc(tmp_path_factory):
    return messy_folder(tmp_path_factory.mktemp("data"))


def readable(disc):
    found = {}
    for path in sorted(p for p in disc.rglob("*") if p.is_file()):
        try:
            found[path] = pydicom.dcmread(io.BytesIO(path.read_bytes()))
        except (InvalidDicomError, EOFError):
            found[path] = None
    return found


def test_the_disc_holds_the_series_that_are_promised(disc):
    series = {}
    for path, file in readable(disc).items():
        if file is not None and "PixelData" in file:
            series.setdefault(file.SeriesInstanceUID, []).append((path, file))
    kinds = sorted(group[0][1].Modality for group in series.values())
    assert kinds == ["CT", "CT", "CT", "CT", "DX", "MR"]
    flat = [group for group in series.values() if group[0][0].parent.name == "IMAGES"]
    assert len(flat) == 2  # both in one folder
    assert sum("LOCALIZER" in file.ImageType for group in flat for _, file in group) == 1
    files = [file for group in flat for _, file in group]
    assert len(files) - len({file.SOPInstanceUID for file in files}) == 3


def test_the_disc_has_a_radiograph_that_is_dark_where_x_rays_passed(disc):
    (file,) = [f for f in readable(disc).values() if f is not None and f.get("Modality") == "DX"]
    assert file.PhotometricInterpretation == "MONOCHROME1"
    assert "ImagePositionPatient" not in file
    pixels = file.pixel_array
    middle = pixels[:, pixels.shape[1] // 2 - 5 : pixels.shape[1] // 2 + 5]
    assert np.median(pixels[:, :4]) > np.median(middle)  # MONOCHROME1: large values are dark


def test_the_disc_has_compressed_series_an_mr_with_many_slopes_and_other_files(disc):
    files = readable(disc)
    images = [f for f in files.values() if f is not None and "PixelData" in f]
    syntaxes = {file.file_meta.TransferSyntaxUID for file in images}
    expected = {TRANSFER_SYNTAXES["jpeg_ls"], TRANSFER_SYNTAXES["jpeg_2000"]}
    assert syntaxes == expected | {ExplicitVRLittleEndian}
    assert len({f.RescaleSlope for f in images if f.Modality == "MR"}) > 1
    assert sum(file is None for file in files.values()) == 3
    assert (disc / "DICOMDIR").exists() and (disc / "README.TXT").exists()
    assert not [path for path in files if path.name == ".complete.json"]


def test_the_disc_is_written_once(disc):
    before = {path: path.stat().st_mtime_ns for path in disc.rglob("*")}
    assert messy_folder(disc.parents[1]) == disc
    assert {path: path.stat().st_mtime_ns for path in disc.rglob("*")} == before
