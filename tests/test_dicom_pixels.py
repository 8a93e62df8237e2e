"""Stored pixels become values as pydicom and SimpleITK have them, in little more memory."""

import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_modality_lut, pixel_array

from helpers import dicom
from helpers.errors import CourseDataError
from tests.dicom_files import (
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

NATIVE = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
PACKED = (uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless)


def by_pydicom(paths: list[Path]) -> np.ndarray:
    images = []
    for path in paths:
        dataset = pydicom.dcmread(path, force=True)
        images.append(apply_modality_lut(pixel_array(dataset), dataset))
    return np.stack(images)


def rescale(slope, intercept) -> dict[str, str]:
    return {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}


def values(folder: Path, dtype: str) -> np.ndarray:
    """Of the one series of a folder, once their dtype is looked at."""
    found = dicom.read_series(folder).voxels
    assert found.dtype == dtype and found.dtype.isnative
    return found


def test_every_encoding_gives_the_same_values(tmp_path):
    def check(row, folder):
        syntax, dtype = row
        high = 256 if dtype == "uint8" else 120 if dtype == "int8" else 3000
        low = -100 if dtype.startswith("i") else 0
        stored = voxels((3, 33, 36), dtype=dtype, low=low, high=high)
        paths = write_series(folder, stored, syntax=syntax, **rescale(2, -7))
        assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == syntax
        np.testing.assert_array_equal(values(folder, "int16"), stored.astype(int) * 2 - 7)

    kinds = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
    rows = [(s, k) for s in NATIVE for k in kinds]
    rows += [(s, k) for s in PACKED for k in ("uint8", "uint16", "int16")]
    each({str(row): row for row in rows}, check, tmp_path)


def test_frames_are_read_by_their_index_in_every_encoding(tmp_path):
    def check(syntax, folder):
        stored, frames = voxels((4, 33, 36)), [{"position": (0, 0, k)} for k in (2, 0, 3, 1)]
        path = write_enhanced(folder / "a.dcm", stored, frames, syntax)
        np.testing.assert_array_equal(dicom.read_series(path).voxels, stored[[1, 3, 0, 2]])

    # GDCM, which writes JPEG lossless for these tests, gives frames other positions.
    each({s.name: s for s in NATIVE + PACKED if s != uid.JPEGLosslessSV1}, check, tmp_path)


def test_each_frame_and_each_slice_has_its_own_rescale(tmp_path):
    stored, numbers = voxels((4, 5, 6)), [(1, -5), (2, 0), (1, 100), (3, 7)]
    frames = [
        {"position": (0, 0, k), "slope": slope, "intercept": intercept}
        for k, (slope, intercept) in enumerate(numbers)
    ]
    write_enhanced(tmp_path / "a" / "enhanced.dcm", stored, frames)
    write_series(tmp_path / "b", stored, per_slice=lambda k: rescale(*numbers[k]))
    expected = [one.astype(int) * m + b for one, (m, b) in zip(stored, numbers, strict=True)]
    for name in "ab":
        np.testing.assert_array_equal(values(tmp_path / name, "int16"), expected)
    write_series(tmp_path / "c", stored, per_slice=lambda k: rescale(0.5 + k / 4, k))
    expected = [one * (0.5 + k / 4) + k for k, one in enumerate(stored)]
    np.testing.assert_allclose(values(tmp_path / "c", "float32"), expected, rtol=1e-6)


# Rescale


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
    exact = stored.astype(np.int64) * slope + intercept
    fits = exact.min() >= -32768 and exact.max() <= 32767
    ours = values(folder, "int16" if fits else "float32")
    np.testing.assert_array_equal(ours, exact)
    np.testing.assert_array_equal(ours, by_pydicom(paths))
    if bits == 16:  # ITK refuses some results of fewer bits
        np.testing.assert_array_equal(ours, by_simpleitk(folder).voxels)


@pytest.mark.parametrize("numbers", [(0.5, -10), (1.25, 0.75), (1, 0.5), (-0.1, 3), (1e-4, 0)])
def test_broken_rescale_numbers_give_float32(tmp_path, numbers):
    paths = write_series(tmp_path, voxels(), **rescale(*numbers))
    ours = values(tmp_path, "float32")
    np.testing.assert_allclose(ours, by_pydicom(paths), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours, by_simpleitk(tmp_path).voxels, rtol=1e-6, atol=1e-6)


ENDS = [  # stored, slope, intercept: the dtype that holds the result
    ([-32768, 32767], 1, 0, "int16"), ([-32767, 32767], -1, 0, "int16"),
    ([-32768, 32767], -1, 0, "float32"), ([-32768, 0], 1, -1, "float32"),
    ([0, 32767], 1, 1, "float32"), ([-16384, 16383], 2, 1, "int16"),
    ([-16384, 16384], 2, 0, "float32"), ([-4096, 4095], 8, 7, "int16"),
    ([-4096, 4095], 8, 8, "float32"), ([0, 65535], 1, 0, "float32"),
    ([0, 32768], 1, 0, "float32"), ([0, 65535], 1, -32768, "int16"),
    ([0, 100], "", "", "int16"), ([0, 100], None, None, "int16"),
    ([70000, 100000], 1, -68000, "int16"), ([-(2**31), 2**31 - 1], 1, 0, "float32"),
]  # fmt: skip


def test_int16_is_used_up_to_its_very_ends(tmp_path):
    def check(row, folder):
        stored, slope, intercept, dtype = row
        kind = np.int32 if max(map(abs, stored)) > 65535 else np.int16
        kind = np.uint16 if 32767 < max(stored) < 65536 else kind
        numbers = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        numbers = {name: None if one is None else str(one) for name, one in numbers.items()}
        pixels = np.zeros((5, 4, 6), kind) + kind(stored[0])
        pixels[3, 1, 2:4] = stored
        write_series(folder, pixels, **numbers)
        exact = pixels.astype(int) * (slope or 1) + (intercept or 0)
        np.testing.assert_array_equal(values(folder, dtype), exact.astype(dtype))

    each({str(row): row for row in ENDS}, check, tmp_path)


def test_bits_above_bits_stored_are_overlays_and_not_values(tmp_path):
    def check(row, folder):
        signed, syntax = row
        low = -2048 if signed else 0
        stored = voxels((3, 33, 36), dtype="int16", low=low, high=low + 4096)
        stored[0, 0, :2] = low, low + 4095
        overlay = np.random.default_rng(1).integers(0, 16, stored.shape) << 12
        mixed = ((stored & 0x0FFF) | overlay).astype(np.uint16).view("i2" if signed else "u2")
        paths = write_series(folder, mixed, syntax=syntax, BitsStored=12, **rescale(1, -24))
        ours = values(folder, "int16")
        np.testing.assert_array_equal(ours, stored - 24)
        np.testing.assert_array_equal(ours, by_pydicom(paths))

    syntaxes = (uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless)
    each({str((k, s)): (k, s) for k in (True, False) for s in syntaxes}, check, tmp_path)


def test_a_dose_grid_is_scaled_by_its_own_element(tmp_path):
    write_series(tmp_path, voxels((3, 4, 5), low=0), Modality="RTDOSE", DoseGridScaling="0.001")
    expected = voxels((3, 4, 5), low=0) * 0.001
    np.testing.assert_allclose(values(tmp_path, "float32"), expected, rtol=1e-6)


def lut(first: int, curve) -> Dataset:
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [len(curve), first, 16], "US"
    item["LUTDescriptor"].VR = "US"
    item.LUTData = np.asarray(curve, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


@pytest.mark.parametrize("first", [0, 100])
def test_a_modality_lut_is_applied_as_pydicom_does(tmp_path, first):
    stored = voxels((3, 4, 5), dtype="uint16", low=0, high=600)
    curve = (np.arange(400) ** 1.6).astype(int)
    paths = write_series(tmp_path, stored, ModalityLUTSequence=[lut(first, curve)])
    ours = values(tmp_path, "float32")
    np.testing.assert_array_equal(ours, by_pydicom(paths))
    np.testing.assert_array_equal(ours, curve[np.clip(stored.astype(int) - first, 0, 399)])


# MONOCHROME1


def test_monochrome1_is_mirrored_within_its_bits_before_rescale_and_noted(tmp_path):
    def check(row, folder):
        dtype, bits, syntax, slope, intercept = row
        signed = dtype == "int16"
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
        stored = voxels((3, 33, 36), dtype=dtype, low=low + 1, high=high)
        grey = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": bits}
        write_series(folder, stored, syntax=syntax, **grey, **rescale(slope, intercept))
        ours = dicom.read_series(folder)
        white = -1 if signed else 2**bits - 1
        expected = (white - stored.astype(int)) * slope + intercept
        np.testing.assert_allclose(ours.voxels, expected, rtol=1e-6)
        assert ours.notes == ("MONOCHROME1 inverted on 3 of 3 slices",)

    kinds = (("uint8", 8), ("uint16", 12), ("uint16", 16), ("int16", 16), ("int16", 12))
    syntaxes = (uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.JPEGLSLossless)
    rows = [(*kind, syntax, 1, 0) for kind in kinds for syntax in syntaxes]
    rows += [(*kinds[1], syntaxes[0], *numbers) for numbers in ((1, -1024), (3, 5), (0.25, 1.5))]
    each({str(row): row for row in rows}, check, tmp_path)


def test_slices_that_are_not_monochrome1_are_not_inverted(tmp_path):
    stored = voxels((4, 5, 6), dtype="uint8", low=0, high=256)
    one = [{"PhotometricInterpretation": f"MONOCHROME{1 + k % 2}"} for k in range(4)]
    write_series(tmp_path, stored, per_slice=one.__getitem__)
    ours = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(ours.voxels[1::2], stored[1::2])
    np.testing.assert_array_equal(ours.voxels[0::2], 255 - stored[0::2].astype(int))
    assert ours.notes == ("MONOCHROME1 inverted on 2 of 4 slices",)


@pytest.mark.parametrize("kind", ["modality LUT", "float"])
def test_a_note_of_inversion_is_true_whatever_the_pixels_are(tmp_path, kind):
    stored = voxels((3, 4, 5), dtype="uint16", low=0, high=256)
    extra = {"BitsStored": 8, "ModalityLUTSequence": [lut(0, np.arange(256) * 3)]}
    extra, pixels = ({}, stored.astype(np.float32)) if kind == "float" else (extra, stored)
    for name in ("MONOCHROME1", "MONOCHROME2"):
        write_series(tmp_path / name, pixels, PhotometricInterpretation=name, **extra)
    dark, bright = (values(tmp_path / name, "float32") for name in ("MONOCHROME1", "MONOCHROME2"))
    np.testing.assert_array_equal(dark, -bright if kind == "float" else 765 - bright)


# Floats


@pytest.mark.parametrize("syntax", NATIVE)
def test_float_pixel_data_is_read_as_float32(tmp_path, syntax):
    def check(dtype, folder):
        stored = np.random.default_rng(0).normal(0, 50, (4, 5, 6)).astype(dtype)
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        keyword = "FloatPixelData" if dtype == "float32" else "DoubleFloatPixelData"
        pixels = [{keyword: one.astype(order + one.dtype.str[1:]).tobytes()} for one in stored]
        write_series(folder, stored, syntax=syntax, per_slice=pixels.__getitem__, **rescale(2, -1))
        ours = values(folder, "float32")
        np.testing.assert_allclose(ours, stored * 2 - 1, rtol=1e-5, atol=1e-4)

    each({kind: kind for kind in ("float32", "float64")}, check, tmp_path)


@pytest.mark.filterwarnings("error")
def test_values_that_are_no_finite_float32_are_refused_with_their_file(tmp_path):
    def check(row, folder):
        dtype, *odd = row
        stored = np.ones((4, 5, 6), dtype)
        stored[2, 1, : len(odd)] = odd
        paths = write_series(folder, stored)
        end = outcome(folder)
        assert (end.code, end.files) == ("NOT_FINITE", (paths[2],))
        assert f"{len(odd)} values" in end.message

    rows = [(kind, one, one) for kind in ("f4", "f8") for one in (np.nan, np.inf, -np.inf)]
    rows += [("f4", np.inf, -np.inf), ("f8", 1e300, -1e300)]
    each({str(row): row for row in rows}, check, tmp_path)


# Compressed pixels


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_jpeg_of_12_bits_is_read_as_simpleitk_does(name):
    path = get_testdata_file(name)
    ours = dicom.read_series(path).voxels
    np.testing.assert_array_equal(ours, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert 100 < ours.max() < 4096


def swap_stream(path: Path, stream: bytes) -> None:
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


def test_damaged_compressed_pixels_are_refused_by_file(tmp_path):
    def check(row, folder):
        syntax, damage = row
        paths = write_series(folder, voxels((4, 33, 36)), syntax=syntax)
        content = paths[2].read_bytes()
        stream = next(generate_frames(pydicom.dcmread(paths[2]).PixelData, number_of_frames=1))
        if isinstance(damage, int):
            paths[2].write_bytes(content[:-damage])
        elif damage == "noise":
            swap_stream(paths[2], np.random.default_rng(0).bytes(len(stream)))
        elif damage == "zeros":
            swap_stream(paths[2], stream[:64] + bytes(len(stream) - 64))
        else:
            swap_stream(paths[2], stream[: len(stream) // 2])
        end = outcome(folder)
        assert (end.code in ("DECODING_FAILED", "TRUNCATED"), end.files) == (True, (paths[2],))

    rows = [(s, d) for s in PACKED for d in ("noise", "zeros", "half", 10, 100, 1000)]
    # Zeros are codes as good as any: nothing in JPEG lossless can tell.
    rows.remove((uid.JPEGLosslessSV1, "zeros"))
    each({str(row): row for row in rows}, check, tmp_path)


def test_damaged_12_bit_jpeg_is_refused_or_read_and_never_ends_the_process(tmp_path):
    content = Path(get_testdata_file("JPGExtended.dcm")).read_bytes()
    for cut in (10, 1000, 4000):
        (tmp_path / "a.dcm").write_bytes(content[:-cut])
        assert code(tmp_path) in ("", "DECODING_FAILED", "TRUNCATED")


def test_damaged_rle_is_read_or_refused_and_never_a_panic(tmp_path):
    (path,) = write_series(tmp_path, voxels((1, 33, 36)), syntax=uid.RLELossless)
    whole = path.read_bytes()
    for seed in range(20):
        content, rng = bytearray(whole), np.random.default_rng(seed)
        for place in rng.integers(len(content) - 2400, len(content) - 100, 40):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        assert code(tmp_path) in ("", "DECODING_FAILED", "TRUNCATED")


def test_a_decoded_image_of_another_size_is_refused_in_a_process_that_lives(tmp_path):
    # In a process of its own: a decoder that aborts takes everything with it.
    expected = {}
    for number, (syntax, rows) in enumerate((s, r) for s in PACKED for r in (40, 56)):
        if syntax == uid.RLELossless and rows == 56:
            continue  # the stream states no size of its own, so more of it cannot be told
        folder = tmp_path / str(number)
        paths = write_series(folder, voxels((3, 48, 36)), syntax=syntax)
        other = write(tmp_path / "other" / "a", voxels((rows, 36)), syntax)
        swap_stream(paths[1], next(generate_frames(pydicom.dcmread(other).PixelData)))
        shutil.rmtree(other.parent)
        expected[str(number)] = paths[1].name
    program = (
        "import sys, pathlib; from tests.dicom_files import outcome\n"
        "for folder in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    end = outcome(folder); print(folder.name, end.code, *[f.name for f in end.files])"
    )
    command, root = [sys.executable, "-c", program, str(tmp_path)], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert {name: file for name, _, file in found} == expected
    assert {named for _, named, _ in found} <= {"DECODING_FAILED", "TRUNCATED"}


# Memory


def test_reading_takes_little_more_memory_than_the_voxels(tmp_path):
    def check(row, folder):
        syntax, last, slope = row
        stored = np.zeros((40, 256, 256), np.uint16) + np.arange(256, dtype=np.uint16)
        stored[-1, 0, 0] = last
        write_series(folder, stored, syntax=syntax, **rescale(slope, 0))
        (series,) = dicom.scan(folder).series
        dicom.read_series(series.files[0])  # what is imported at first use is not counted
        tracemalloc.start()
        found = dicom.read_series(series).voxels
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.dtype == ("float32" if last > 32767 or slope != 1 else "int16")
        # Of 40 slices, one or a few at a time stand beside the volume.
        assert found.nbytes <= peak < 1.3 * found.nbytes

    syntaxes = (uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless)
    kinds = ((0, 1), (65535, 1), (0, 0.5))
    each({str((s, k)): (s, *k) for s in syntaxes for k in kinds}, check, tmp_path)


def test_a_series_larger_than_the_free_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    write_series(tmp_path, voxels((5, 40, 40)))
    (series,) = dicom.scan(tmp_path).series
    for free, expected in ((5 * 40 * 40 * 4 - 1, "TOO_LARGE"), (5 * 40 * 40 * 4, "")):
        little = psutil.virtual_memory()._replace(available=free)
        with monkeypatch.context() as patch:
            patch.setattr(psutil, "virtual_memory", lambda little=little: little)
            assert code(series) == expected


def test_a_file_that_shrinks_between_scan_and_reading_is_refused(tmp_path):
    paths = write_series(tmp_path, voxels())
    (series,) = dicom.scan(tmp_path).series
    paths[3].write_bytes(paths[3].read_bytes()[:-10])
    end = outcome(series)
    assert isinstance(end, CourseDataError)
    assert (end.code, end.files) == ("TRUNCATED", (paths[3],))
