"""Stored pixels become values, folders become series, and nothing about the patient is told."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from helpers import dicom
from helpers.errors import CourseDataError
from tests.dicom_files import SERIES, image, outcome, save, voxels, write_enhanced, write_series

sitk.ProcessObject.SetGlobalWarningDisplay(False)
NATIVE = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
COMPRESSED = {
    "RLE": RLELossless,
    "JPEG lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
few = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def by_simpleitk(folder: Path) -> np.ndarray:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.GetArrayFromImage(reader.Execute())


def by_pydicom(paths: list[Path]) -> np.ndarray:
    images = []
    for path in paths:
        dataset = pydicom.dcmread(path, force=True)
        images.append(apply_modality_lut(pixel_array(dataset), dataset))
    return np.stack(images)


def rescale(slope, intercept) -> dict[str, str]:
    return {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}


# Encodings


@pytest.mark.parametrize("syntax", NATIVE.values(), ids=NATIVE)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_every_native_encoding_gives_the_stored_integers(tmp_path, syntax, dtype):
    low = -100 if dtype.startswith("i") else 0
    stored = voxels((4, 5, 6), dtype=dtype, low=low, high=120)
    write_series(tmp_path, stored, syntax=syntax)
    ours = dicom.read_series(tmp_path)
    assert ours.voxels.dtype == np.int16
    assert ours.voxels.dtype.isnative
    np.testing.assert_array_equal(ours.voxels, stored)


def test_big_endian_bytes_are_turned_round(tmp_path):
    stored = np.full((3, 4, 5), 1, np.int16)
    paths = write_series(tmp_path, stored, syntax=ExplicitVRBigEndian)
    assert paths[0].read_bytes().endswith(b"\x00\x01")
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, 1)
    write_series(tmp_path, voxels(), syntax=ExplicitVRBigEndian, **rescale(1, -24))
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels() - 24)


@pytest.mark.parametrize("syntax", COMPRESSED.values(), ids=COMPRESSED)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_lossless_compression_changes_nothing(tmp_path, syntax, dtype):
    low = -1024 if dtype == "int16" else 0
    high = 256 if dtype == "uint8" else 3000
    stored = voxels((3, 33, 36), dtype=dtype, low=low, high=high)
    write_series(tmp_path / "native", stored, **rescale(2, -7))
    paths = write_series(tmp_path / "packed", stored, syntax=syntax, **rescale(2, -7))
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == syntax
    packed = dicom.read_series(tmp_path / "packed")
    assert packed.voxels.dtype == np.int16
    np.testing.assert_array_equal(packed.voxels, stored.astype(int) * 2 - 7)
    native = dicom.read_series(tmp_path / "native")
    np.testing.assert_array_equal(packed.voxels, native.voxels)
    assert packed.same_geometry(native)


def test_compressed_frames_are_read_by_their_index(tmp_path):
    stored = voxels((4, 33, 36))
    frames = [{"position": (0, 0, k)} for k in (2, 0, 3, 1)]
    path = write_enhanced(tmp_path / "a.dcm", stored, frames, RLELossless)
    np.testing.assert_array_equal(dicom.read_series(path).voxels, stored[[1, 3, 0, 2]])


@pytest.mark.parametrize("kilobytes", [1, 15, 16, 17, 100, 3000])
@pytest.mark.parametrize("tag", [0x00091002, 0x00291010], ids=["before rows", "after rows"])
def test_private_data_may_make_a_header_as_long_as_it_likes(tmp_path, kilobytes, tag):
    stored = voxels()
    paths = write_series(tmp_path, stored, **rescale(1, -3))
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new((tag & 0xFFFF0000) | 0x10, "LO", "MAKER")
        dataset.add_new((tag & 0xFFFF0000) | 0x1010, "OB", b"\xfe\xff\x00\xe0" * 256 * kilobytes)
        dataset.save_as(path)
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, stored - 3)


def test_an_icon_in_the_header_is_not_taken_for_the_image(tmp_path):
    icon = image(np.full((2, 2), 99, np.uint8))
    del icon.SOPInstanceUID
    write_series(tmp_path, voxels(), IconImageSequence=[icon])
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels())


def test_padding_after_the_pixels_is_not_read(tmp_path):
    stored = voxels((3, 5, 5), dtype="uint8", low=0, high=255)
    write_series(tmp_path, stored, DataSetTrailingPadding=b"\0" * 64)
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, stored)


@pytest.mark.filterwarnings("error")
def test_a_good_series_is_read_without_a_warning_or_an_open_file(tmp_path):
    write_series(tmp_path / "a", voxels())
    write_series(tmp_path / "b", voxels((3, 33, 36)), syntax=RLELossless)
    for folder in ("a", "b"):
        assert dicom.read_series(tmp_path / folder).shape[0] in (3, 5)


# Rows 8 and 15: rescale


@few
@given(
    slope=st.integers(-20, 20).filter(bool),
    intercept=st.integers(-3000, 3000),
    signed=st.booleans(),
    bits=st.sampled_from([8, 12, 16]),
    seed=st.integers(0, 99),
)
def test_whole_rescale_numbers_give_exact_integers(
    tmp_path_factory, slope, intercept, signed, bits, seed
):
    folder = tmp_path_factory.mktemp("rescaled")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    stored = voxels((3, 4, 5), seed, "int16" if signed else "uint16", low, high)
    paths = write_series(folder, stored, BitsStored=bits, **rescale(slope, intercept))
    ours = dicom.read_series(folder).voxels
    exact = stored.astype(np.int64) * slope + intercept
    fits = exact.min() >= -32768 and exact.max() <= 32767
    assert ours.dtype == (np.int16 if fits else np.float32)
    np.testing.assert_array_equal(ours, exact)
    np.testing.assert_array_equal(ours, by_pydicom(paths))
    if bits == 16:  # ITK refuses some results of fewer bits
        np.testing.assert_array_equal(ours, by_simpleitk(folder))


@pytest.mark.parametrize("numbers", [(0.5, -10), (1.25, 0.75), (1, 0.5), (-0.1, 3), (1e-4, 0)])
def test_broken_rescale_numbers_give_float32(tmp_path, numbers):
    paths = write_series(tmp_path, voxels(), **rescale(*numbers))
    ours = dicom.read_series(tmp_path).voxels
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, by_pydicom(paths), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours, by_simpleitk(tmp_path), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"RescaleSlope": "1"},
        {"RescaleIntercept": "0"},
        {"RescaleSlope": "", "RescaleIntercept": ""},
    ],
    ids=str,
)
def test_without_rescale_numbers_stored_values_are_the_values(tmp_path, given):
    write_series(tmp_path, voxels(), **given)
    ours = dicom.read_series(tmp_path).voxels
    assert ours.dtype == np.int16
    np.testing.assert_array_equal(ours, voxels())


@pytest.mark.parametrize("numbers", [lambda k: (k + 1, -k), lambda k: (0.5 + k / 4, k)])
def test_each_slice_is_rescaled_by_its_own_numbers(tmp_path, numbers):
    stored = voxels()
    write_series(tmp_path, stored, per_slice=lambda k: rescale(*numbers(k)))
    ours = dicom.read_series(tmp_path).voxels
    expected = np.stack([stored[k] * numbers(k)[0] + numbers(k)[1] for k in range(5)])
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert ours.dtype == (np.int16 if numbers(1)[0] == 2 else np.float32)


@pytest.mark.parametrize(
    ("stored", "numbers", "dtype"),
    [
        ([-32768, 32767], (1, 0), "int16"),
        ([-32767, 32767], (-1, 0), "int16"),
        ([-32768, 32767], (-1, 0), "float32"),
        ([-32768, 0], (1, -1), "float32"),
        ([0, 32767], (1, 1), "float32"),
        ([-16384, 16383], (2, 0), "int16"),
        ([-16384, 16383], (2, 1), "int16"),
        ([-16384, 16384], (2, 0), "float32"),
        ([-4096, 4095], (8, 7), "int16"),
        ([-4096, 4095], (8, 8), "float32"),
    ],
    ids=str,
)
def test_int16_is_used_up_to_its_very_ends(tmp_path, stored, numbers, dtype):
    pixels = np.resize(np.array(stored, np.int16), (3, 4, 6))
    write_series(tmp_path, pixels, **rescale(*numbers))
    ours = dicom.read_series(tmp_path).voxels
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, pixels.astype(int) * numbers[0] + numbers[1])


@pytest.mark.parametrize(
    ("stored", "intercept", "dtype"),
    [(65535, 0, "float32"), (32768, 0, "float32"), (32767, 0, "int16"), (65535, -32768, "int16")],
)
@pytest.mark.parametrize("which", [0, 4])
def test_unsigned_values_above_int16_make_the_whole_volume_float32(
    tmp_path, stored, intercept, dtype, which
):
    pixels = np.zeros((5, 4, 5), np.uint16)
    pixels[which, 1, 2] = stored
    write_series(tmp_path, pixels, **rescale(1, intercept))
    ours = dicom.read_series(tmp_path).voxels
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, pixels.astype(int) + intercept)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_bits_above_bits_stored_are_overlays_and_not_values(tmp_path, signed, syntax):
    low = -2048 if signed else 0
    stored = voxels((3, 33, 36), dtype="int16", low=low, high=low + 4096)
    stored[0, 0, :2] = low, low + 4095
    overlay = np.random.default_rng(1).integers(0, 16, stored.shape) << 12
    mixed = ((stored & 0x0FFF) | overlay).astype(np.uint16).view("int16" if signed else "uint16")
    paths = write_series(tmp_path, mixed, syntax=syntax, BitsStored=12, **rescale(1, -24))
    ours = dicom.read_series(tmp_path).voxels
    assert ours.dtype == np.int16
    np.testing.assert_array_equal(ours, stored - 24)
    np.testing.assert_array_equal(ours, by_pydicom(paths))


def test_a_dose_grid_is_scaled_by_its_own_element(tmp_path):
    write_series(tmp_path, voxels((3, 4, 5), low=0), Modality="RTDOSE", DoseGridScaling="0.001")
    ours = dicom.read_series(tmp_path).voxels
    np.testing.assert_allclose(ours, voxels((3, 4, 5), low=0) * 0.001, rtol=1e-6)


# Modality LUT


def lut(first: int, values, bits: int = 16) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    item.LUTData = np.asarray(values, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    item.ModalityLUTType = "US"
    return item


@pytest.mark.parametrize("first", [0, 100])
def test_a_modality_lut_is_applied_as_pydicom_does(tmp_path, first):
    stored = voxels((3, 4, 5), dtype="uint16", low=0, high=600)
    curve = (np.arange(400) ** 1.6).astype(int)
    paths = write_series(tmp_path, stored, ModalityLUTSequence=[lut(first, curve)])
    ours = dicom.read_series(tmp_path).voxels
    np.testing.assert_array_equal(ours, by_pydicom(paths))
    np.testing.assert_array_equal(ours, curve[np.clip(stored.astype(int) - first, 0, 399)])


# Row 7: MONOCHROME1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSLossless])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    ("dtype", "bits", "mirror"),
    [
        ("uint8", 8, 255),
        ("uint16", 12, 4095),
        ("uint16", 16, 65535),
        ("int16", 16, -1),
        ("int16", 12, -1),
    ],
)
def test_monochrome1_is_inverted_once_within_its_bits_and_noted(
    tmp_path, syntax, count, dtype, bits, mirror
):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if mirror == -1 else (0, 2**bits)
    stored = voxels((count, 33, 36), dtype=dtype, low=low, high=high)
    stored[0, 0, 0] = low
    if syntax == JPEGLSLossless and dtype == "int16" and bits == 12:
        stored = np.where(stored == low, low + 1, stored)
    write_series(
        tmp_path, stored, syntax=syntax, PhotometricInterpretation="MONOCHROME1", BitsStored=bits
    )
    ours = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(ours.voxels, mirror - stored.astype(int))
    notes = [note for note in ours.notes if "MONOCHROME1" in note]
    assert notes == [f"MONOCHROME1 inverted on {count} of {count} slices"]


@pytest.mark.parametrize("numbers", [(1, -1024), (3, 5), (0.25, 1.5)])
def test_monochrome1_is_mirrored_before_rescale(tmp_path, numbers):
    stored = voxels((4, 5, 6), dtype="uint16", low=0, high=4096)
    write_series(
        tmp_path,
        stored,
        PhotometricInterpretation="MONOCHROME1",
        BitsStored=12,
        **rescale(*numbers),
    )
    expected = (4095 - stored.astype(int)) * numbers[0] + numbers[1]
    np.testing.assert_allclose(dicom.read_series(tmp_path).voxels, expected, rtol=1e-6)


def test_slices_that_are_not_monochrome1_are_not_inverted(tmp_path):
    stored = voxels((4, 5, 6), dtype="uint8", low=0, high=256)
    write_series(
        tmp_path,
        stored,
        per_slice=lambda k: {"PhotometricInterpretation": f"MONOCHROME{1 + k % 2}"},
    )
    ours = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(ours.voxels[1::2], stored[1::2])
    np.testing.assert_array_equal(ours.voxels[0::2], 255 - stored[0::2].astype(int))
    assert ours.notes == ("MONOCHROME1 inverted on 2 of 4 slices",)


@pytest.mark.parametrize("kind", ["modality LUT", "float"])
def test_a_note_of_inversion_is_true_whatever_the_pixels_are(tmp_path, kind):
    stored = voxels((3, 4, 5), dtype="uint16", low=0, high=256)
    curve = np.arange(256) * 3
    extra = {"BitsStored": 8, "ModalityLUTSequence": [lut(0, curve)]}
    pixels = stored
    if kind == "float":
        extra, pixels = {}, stored.astype(np.float32)
    for photometric, folder in (("MONOCHROME1", "one"), ("MONOCHROME2", "two")):
        write_series(tmp_path / folder, pixels, PhotometricInterpretation=photometric, **extra)
    two = dicom.read_series(tmp_path / "two").voxels.astype(float)
    one = outcome(tmp_path / "one")
    if kind == "float" and isinstance(one, CourseDataError):  # no range to mirror floats in
        assert "MONOCHROME1" in one.message
        return
    bright, dark = two.argmax(), two.argmin()
    if any("inverted" in note for note in one.notes):
        assert one.voxels.ravel()[bright] < one.voxels.ravel()[dark]
    else:
        np.testing.assert_array_equal(one.voxels, two)


# Row 24: float pixels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("numbers", [None, (2, -1)])
def test_float_pixel_data_is_read_as_float32(tmp_path, dtype, numbers):
    stored = np.random.default_rng(0).normal(0, 50, (4, 5, 6)).astype(dtype)
    write_series(tmp_path, stored, **(rescale(*numbers) if numbers else {}))
    ours = dicom.read_series(tmp_path).voxels
    assert ours.dtype == np.float32
    slope, intercept = numbers or (1, 0)
    np.testing.assert_allclose(ours, stored * slope + intercept, rtol=1e-5, atol=1e-4)


# Folders


def test_a_single_file_is_a_folder_of_one(tmp_path):
    paths = write_series(tmp_path, voxels())
    found = dicom.scan(paths[2])
    assert [series.files for series in found.series] == [(paths[2],)]
    np.testing.assert_array_equal(dicom.read_series(str(paths[2])).voxels[0], voxels()[2])


def test_a_series_of_a_scan_is_read_wherever_its_files_lie(tmp_path):
    paths = write_series(tmp_path, voxels())
    for k, path in enumerate(paths):
        place = tmp_path / "abc"[k % 3] / "deeper" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    (series,) = dicom.scan(tmp_path).series
    np.testing.assert_array_equal(dicom.read_series(series).voxels, voxels())


def test_a_folder_with_several_series_names_them_and_reads_each(tmp_path):
    write_series(tmp_path / "a", voxels(seed=1))
    write_series(tmp_path / "b", voxels((3, 4, 5), seed=2), series="1.2.3", Modality="MR")
    with pytest.raises(CourseDataError) as refused:
        dicom.read_series(tmp_path)
    assert refused.value.code == "SEVERAL_SERIES"
    assert "2 series" in refused.value.message
    assert "scan(folder).series" in refused.value.message
    assert "Series(MR, 3 files, 3 images of 4 x 5)" in refused.value.message
    first, second = dicom.scan(tmp_path).series
    np.testing.assert_array_equal(dicom.read_series(first).voxels, voxels(seed=1))
    np.testing.assert_array_equal(dicom.read_series(second).voxels, voxels((3, 4, 5), seed=2))


@pytest.mark.parametrize(
    "differs",
    [
        {"series": "1.2.3"},
        {"orientation": (1, 0, 0, 0, 0, -1)},
        {"orientation": (-1, 0, 0, 0, -1, 0)},
        {"shape": (4, 6, 6)},
    ],
    ids=str,
)
def test_series_are_split_by_uid_orientation_and_size(tmp_path, differs):
    other = voxels(differs.pop("shape", (4, 5, 6)), seed=2)
    a = write_series(tmp_path / "a", voxels((4, 5, 6)))
    b = write_series(tmp_path / "b", other, **differs)
    found = dicom.scan(tmp_path)
    assert found.rejected == ()
    assert [set(series.files) for series in found.series] == [set(a), set(b)]


def test_projections_of_one_study_are_never_a_stack(tmp_path):
    nothing = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    write_series(tmp_path, voxels((3, 4, 5)), Modality="DX", **nothing)
    found = dicom.scan(tmp_path)
    assert [len(series.files) for series in found.series] == [1, 1, 1]
    assert dicom.read_series(found.series[0]).shape == (1, 4, 5)


def test_images_without_a_series_uid_stay_apart(tmp_path):
    write_series(tmp_path, voxels((3, 4, 5)), series=SERIES, SeriesInstanceUID=None)
    assert [len(series.files) for series in dicom.scan(tmp_path).series] == [1, 1, 1]


def test_files_without_a_preamble_are_read_only_on_request(tmp_path):
    for k, pixels in enumerate(voxels()):
        header = image(pixels, position=(0, 0, k), SOPInstanceUID=f"1.2.{k + 1}")
        save(header, tmp_path / f"{k}.dcm", preamble=False)
    found = dicom.scan(tmp_path)
    assert found.series == ()
    assert {file.code for file in found.rejected} == {"NOT_DICOM"}
    assert all("force=True" in file.reason for file in found.rejected)
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "2.dcm").read_bytes())
    found = dicom.scan(tmp_path, force=True)
    assert found.rejected == ()
    volume = dicom.read_series(found.series[0])
    np.testing.assert_array_equal(volume.voxels, voxels())
    assert volume.notes == ("copies counted once: copy.dcm of 2.dcm",)


def test_force_does_not_make_an_image_of_a_text(tmp_path):
    (tmp_path / "notes.txt").write_text("A letter, not an image. " * 30)
    (tmp_path / "zeros").write_bytes(b"\0" * 1000)
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(1000))
    found = dicom.scan(tmp_path, force=True)
    assert found.series == ()
    assert len(found.rejected) == 3


def test_no_folder_is_no_folder(tmp_path):
    for read in (dicom.scan, dicom.read_series):
        with pytest.raises(FileNotFoundError, match="absent"):
            read(tmp_path / "absent")


def test_an_empty_folder_has_no_series(tmp_path):
    assert dicom.scan(tmp_path) == dicom.Scan((), ())
    with pytest.raises(CourseDataError) as refused:
        dicom.read_series(tmp_path)
    assert refused.value.code == "NO_SERIES"


def test_a_progress_bar_is_shown_only_on_request(tmp_path, capfd):
    write_series(tmp_path, voxels())
    dicom.scan(tmp_path)
    assert capfd.readouterr() == ("", "")
    dicom.scan(tmp_path, progress=True)
    assert "5/5" in capfd.readouterr().err


# Memory


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("kind", ["int16", "overflow in the last slice", "float slope"])
def test_reading_takes_little_more_memory_than_the_voxels(tmp_path, kind, syntax):
    stored = np.zeros((40, 256, 256), np.uint16) + np.arange(256, dtype=np.uint16)
    if kind != "int16":
        stored[-1, 0, 0] = 65535
    numbers = rescale(0.5, 0) if kind == "float slope" else rescale(1, -100)
    write_series(tmp_path, stored, syntax=syntax, **numbers)
    (series,) = dicom.scan(tmp_path).series
    dicom.read_series(series.files[0])  # what is imported at first use is not counted
    tracemalloc.start()
    voxels_read = dicom.read_series(series).voxels
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert voxels_read.dtype == ("int16" if kind == "int16" else "float32")
    assert voxels_read.nbytes <= peak < 1.3 * voxels_read.nbytes


# Privacy

SECRETS = {
    "PatientName": "Zyxwvut^Qponml",
    "PatientID": "MRN-99887766",
    "PatientBirthDate": "19470311",
    "AccessionNumber": "ACC55443322",
    "InstitutionName": "Hospital Nowhere",
    "StationName": "STATION77",
    "SeriesDescription": "Abdomen Qponml",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.777.1",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.777.2",
}


def assert_tells_nothing(text: str, folder: Path) -> None:
    for secret in (*SECRETS.values(), "Zyxwvut", "Qponml", SERIES, "1.2.826.0.1.3680043.8.498.777"):
        assert secret not in text
    assert str(folder) not in text
    assert "doe_john" not in text


@pytest.mark.parametrize(
    "fault",
    [
        None,
        {"heights": (0, 1, 2, 4, 5)},
        {"heights": (0, 1, 2, 3.5, 5)},
        {"ImagePositionPatient": None},
        {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
        {"Rows": 60000, "Columns": 60000, "NumberOfFrames": "999999"},
        {"Rows": 100},
        {"NumberOfFrames": "5"},
        {"BitsAllocated": 12},
        {"RescaleSlope": "0"},
        {"PixelData": None},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"per_slice": lambda k: {"PixelSpacing": ["1", str(1 + k)]}},
        {"per_slice": lambda k: {"position": (k, k, k)}},
        {"per_slice": lambda k: {"SOPInstanceUID": f"{SERIES}.1"}},
        {"per_slice": lambda k: {"position": (0, 0, k // 2)}},
        {
            "per_slice": lambda k: {
                "position": (0, 0, k // 2),
                "SOPInstanceUID": f"{SERIES}.{k // 2}",
            }
        },
        {"per_slice": lambda k: {"SeriesInstanceUID": f"{SERIES}.{k}"}},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"syntax": RLELossless, "cut": True},
        {"cut": True},
    ],
    ids=str,
)
def test_what_is_printed_tells_nothing_about_the_patient(tmp_path, fault, capfd):
    folder = tmp_path / "doe_john"
    fault = dict(fault or {})
    cut = fault.pop("cut", False)
    paths = write_series(folder, voxels((5, 33, 36)), **(SECRETS | fault))
    if cut:
        paths[3].write_bytes(paths[3].read_bytes()[:-200])
    found = dicom.scan(folder)
    for series in found.series:
        assert_tells_nothing(repr(series) + str(series), tmp_path)
    assert_tells_nothing(repr(found) + str(found), tmp_path)
    for file in found.rejected:
        assert_tells_nothing(file.reason, tmp_path)
        assert not {SERIES, *SECRETS.values()} & set(repr(file).replace("'", " ").split())
    try:
        volume = dicom.read_series(folder, fill_gaps=True)
    except CourseDataError as refused:
        assert_tells_nothing(str(refused), tmp_path)
    else:
        assert_tells_nothing(" ".join(volume.notes) + repr(volume), tmp_path)
    with_gaps = pytest.raises(CourseDataError) if "heights" in fault else None
    if with_gaps:
        with with_gaps as refused:
            dicom.read_series(folder)
        assert_tells_nothing(str(refused.value), tmp_path)
    printed = capfd.readouterr()
    assert_tells_nothing(printed.out + printed.err, tmp_path)


@pytest.mark.filterwarnings("error")
def test_a_name_in_the_wrong_place_is_not_printed_as_a_warning(tmp_path, capfd):
    paths = write_series(tmp_path, voxels(), PixelData=None)
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(
            content.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"ZYXWVUT^QPONML in SOP UID\0")
        )
    found = dicom.scan(tmp_path)
    assert len(found.rejected) + sum(len(series.files) for series in found.series) == 5
    text = "".join(file.reason for file in found.rejected) + "".join(capfd.readouterr())
    assert "QPONML" not in text


def test_the_environment_leaves_no_trace(tmp_path):
    before = sorted(os.listdir(tmp_path))
    write_series(tmp_path / "a", voxels())
    kept = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    dicom.read_series(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == [*before, "a"]
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == kept


def test_a_linked_folder_is_read_once_however_often_it_is_reached(tmp_path):
    paths = write_series(tmp_path / "elsewhere" / "series", voxels())
    case = tmp_path / "case"
    case.mkdir()
    (case / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (case / "again").symlink_to(tmp_path / "elsewhere" / "series", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(case, target_is_directory=True)
    found = dicom.scan(case)
    assert sorted(file.resolve() for file in found.series[0].files) == sorted(paths)
    assert found.rejected == ()


def test_the_home_folder_may_be_written_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_series(tmp_path / "series", voxels())
    assert dicom.read_series("~/series").shape == voxels().shape


def test_an_empty_path_is_not_the_working_directory():
    with pytest.raises(FileNotFoundError, match="empty path"):
        dicom.scan("")


def test_a_scan_is_not_a_series(tmp_path):
    write_series(tmp_path, voxels())
    with pytest.raises(TypeError, match=r"scan\.series"):
        dicom.read_series(dicom.scan(tmp_path))


@pytest.mark.parametrize(
    ("signed", "stored", "shown"), [(0, 63536, "63536"), (1, 63536, "-2000"), (0, 0, "0")]
)
def test_a_padding_value_is_kept_and_noted(tmp_path, signed, stored, shown):
    write_series(
        tmp_path,
        voxels(),
        PixelRepresentation=signed,
        PixelPaddingValue=stored - 65536 if signed else stored,
    )
    volume = dicom.read_series(tmp_path)
    assert f"Pixel Padding Value {shown} (stored): kept where nothing was measured" in volume.notes


def test_the_note_on_a_single_slice_says_how_thick_it_is(tmp_path):
    write_series(tmp_path, voxels()[:1], SliceThickness="5")
    assert any("Slice Thickness is 5 mm" in note for note in dicom.read_series(tmp_path).notes)
