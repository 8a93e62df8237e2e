"""Stored pixels become values as pydicom and SimpleITK have them, in little more memory."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from helpers import dicom
from tests.dicom_ends import by_pydicom, code, outcome
from tests.dicom_files import NATIVE, PACKED, item, voxels, write, write_enhanced, write_series

SHAPE = (3, 48, 36)  # large enough for JPEG 2000


def rescale(slope, intercept) -> dict[str, str]:
    return {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}


KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
ENCODINGS = [(syntax, kind) for syntax in NATIVE[:2] for kind in KINDS]
ENCODINGS += [(syntax, kind) for syntax in NATIVE[2:] for kind in KINDS[:4]]
ENCODINGS += [(syntax, kind) for syntax in PACKED for kind in ("uint8", "uint16", "int16")]


@pytest.mark.parametrize("syntax, dtype", ENCODINGS)
def test_every_encoding_gives_the_same_values_in_slices_and_in_frames(tmp_path, syntax, dtype):
    low = 0 if dtype.startswith("u") else -100
    stored = voxels(SHAPE, dtype=dtype, low=low, high=120)
    paths = write_series(tmp_path / "a", stored, syntax=syntax, **rescale(2, -7))
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == syntax
    ours = dicom.read_series(tmp_path / "a").voxels
    np.testing.assert_array_equal(ours, stored.astype(int) * 2 - 7)
    assert ours.dtype == "int16" and ours.dtype.isnative
    if syntax == uid.JPEGLosslessSV1:
        return  # GDCM gives frames other positions when it writes them
    frames = [{"position": (0, 0, k), "slope": f"{k + 1}", "intercept": "5"} for k in (2, 0, 1)]
    path = write_enhanced(tmp_path / "b.dcm", stored, frames, syntax=syntax)
    expected = [stored[1] * 1.0 + 5, stored[2] * 2.0 + 5, stored[0] * 3.0 + 5]
    np.testing.assert_array_equal(dicom.read_series(path).voxels, expected)


def lut(first: int, curve) -> dict:
    table = item(LUTDescriptor=[len(curve), first, 16], ModalityLUTType="US")
    table.LUTData = np.asarray(curve, "<u2").tobytes()
    table["LUTDescriptor"].VR = "US"
    table["LUTData"].VR = "OW"
    return {"ModalityLUTSequence": [table]}


DARK = {"PhotometricInterpretation": "MONOCHROME1"}
BITS = {"BitsStored": 12}  # those above are overlays, not values
LEAST, MOST, OWN = -(2**15), 2**15 - 1, [rescale(2, -5), rescale(0.5, 0), rescale(3, 7)]
VALUES = {  # the dtype stored, that read, elements, and the ends of what is stored if not all
    "up to the ends": ("int16", "int16", rescale(-1, 0), -MOST, MOST),
    "beyond one end": ("int16", "float32", rescale(-1, 0), LEAST, MOST),
    "beyond the other": ("int16", "float32", rescale(1, -1), LEAST, 0),
    "times 8": ("int16", "int16", rescale(8, 8), -4096, 4094),
    "times 8, beyond": ("int16", "float32", rescale(8, 8), -4096, 4095),
    "a negative slope": ("int16", "int16", rescale(-3, -1024), -9000, 9000),
    "halves": ("int16", "float32", rescale(0.5, -10), -100, 100),
    "quarters": ("int16", "float32", rescale(20, 0.75), -1, 1),
    "bits, big endian": ("int16", "int16", BITS | {"syntax": uid.ExplicitVRBigEndian}),
    "bits, RLE": ("uint16", "int16", BITS | {"syntax": uid.RLELossless}),
    "a dose grid": ("uint16", "float32", {"DoseGridScaling": "0.001", "Modality": "RTDOSE"}),
    "a curve": ("uint16", "float32", lut(100, np.arange(400) ** 1.6)),
    "dark": ("uint16", "int16", DARK | BITS | rescale(1, -1024)),
    "dark, signed": ("int16", "int16", DARK | BITS | rescale(3, 5)),
    "dark bytes": ("uint8", "float32", DARK | rescale(0.25, 1.5)),
    "a dark curve": ("uint8", "float32", DARK | lut(0, np.arange(256) * 3)),
    "a dark slice": ("uint8", "int16", {"per_slice": [{}, DARK, {}]}),
    "own numbers": ("int16", "float32", {"per_slice": OWN}),
}


@pytest.mark.parametrize("case", VALUES.values(), ids=VALUES)
def test_values_are_pydicoms_and_monochrome1_is_mirrored_within_its_bits(tmp_path, case):
    kind, dtype, elements, *ends = case
    least, most = ends or (np.iinfo(kind).min, np.iinfo(kind).max)
    stored = voxels(SHAPE, dtype=kind, low=least, high=most)
    stored[0, 2, 3:5] = least, most
    paths = write_series(tmp_path, stored, **elements)
    ours = dicom.read_series(tmp_path)
    theirs = np.concatenate([by_pydicom(path) for path in paths])
    np.testing.assert_allclose(ours.voxels, theirs, rtol=1e-6, atol=1e-6)
    dark = [note for note in ours.notes if "MONOCHROME1" in note]
    assert ours.voxels.dtype == dtype and len(dark) == ("MONOCHROME1" in str(elements))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("syntax", NATIVE)
def test_floats_become_float32_or_are_refused_if_not_finite(tmp_path, syntax, dtype):
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    keyword = {"f4": "FloatPixelData", "f8": "DoubleFloatPixelData"}[dtype]
    stored = np.random.default_rng(0).normal(0, 50, (4, 5, 6)).astype(dtype)
    for odd in ((), (np.nan,), (-np.inf,), (1e39, -1e39)):
        with np.errstate(over="ignore"):
            stored[2, 1, : len(odd)] = odd
        own = [{keyword: one.astype(order + dtype).tobytes()} for one in stored]
        paths = write_series(tmp_path, stored, syntax=syntax, per_slice=own, **rescale(2, -1))
        end = outcome(tmp_path)
        if odd:
            assert (end.code, end.files) == ("NOT_FINITE", (paths[2],))
        else:
            assert end.voxels.dtype == "float32"
            np.testing.assert_allclose(end.voxels, stored * 2 - 1, rtol=1e-5, atol=1e-5)


PROGRAM = """
import pathlib, sys
from tests.dicom_ends import outcome
for path in pathlib.Path(sys.argv[1]).iterdir():
    end = outcome(path)
    print(path.stem, end.code, end.files == (path,), sep=":")
"""


def test_damaged_compressed_pixels_are_refused_in_a_process_that_lives(tmp_path):
    # In a process of its own: a decoder that aborts takes everything with it.
    folder = tmp_path / "damaged"
    folder.mkdir()
    for syntax in PACKED:
        sizes = [write(tmp_path / f"{n}", voxels((n, 36)), syntax) for n in (48, 40, 56)]
        datasets = [pydicom.dcmread(path) for path in sizes]
        whole, low, high = (next(generate_frames(one.PixelData)) for one in datasets)
        streams = {"noise": np.random.default_rng(0).bytes(len(whole)), "low": low, "high": high}
        streams |= {"half": whole[: len(whole) // 2], "zeros": whole[:64].ljust(len(whole), b"\0")}
        # Zeros are codes as good as any, and RLE states no size: nothing can tell.
        streams.pop({uid.JPEGLosslessSV1: "zeros", uid.RLELossless: "high"}.get(syntax), None)
        for name, stream in streams.items():
            datasets[0].PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
            datasets[0].save_as(folder / f"{syntax.name}, {name}")
        for cut in (10, 100, 1000):
            (folder / f"{syntax.name}, {cut}").write_bytes(sizes[0].read_bytes()[:-cut])
    command, root = [sys.executable, "-c", PROGRAM, str(folder)], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ends = [line.split(":")[1:] for line in done.stdout.splitlines()]
    assert len(ends) == 30
    assert {*map(tuple, ends)} <= {("DECODING_FAILED", "True"), ("TRUNCATED", "True")}


@pytest.mark.parametrize("syntax", [NATIVE[0], NATIVE[2], PACKED[0]])
@pytest.mark.parametrize("last, slope", [(0, 1), (65535, 1), (0, 0.5)])
def test_reading_takes_little_more_memory_than_the_voxels(tmp_path, syntax, last, slope):
    stored = np.zeros((40, 256, 256), np.uint16) + np.arange(256, dtype=np.uint16)
    stored[-1, 0, 0] = last
    write_series(tmp_path, stored, syntax=syntax, **rescale(slope, 0))
    (series,) = dicom.scan(tmp_path).series
    dicom.read_series(series.files[0])  # what is imported at first use is not counted
    tracemalloc.start()
    found = dicom.read_series(series).voxels
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Of 40 slices, one or a few at a time stand beside the volume.
    assert found.nbytes <= peak < 1.3 * found.nbytes


def test_what_is_too_large_or_has_shrunk_since_the_scan_is_refused(tmp_path, monkeypatch):
    paths = write_series(tmp_path, voxels())
    (series,) = dicom.scan(tmp_path).series
    for free, expected in ((4 * voxels().size - 1, "TOO_LARGE"), (4 * voxels().size, "")):
        little = psutil.virtual_memory()._replace(available=free)
        monkeypatch.setattr(psutil, "virtual_memory", lambda little=little: little)
        assert code(series) == expected
    paths[3].write_bytes(paths[3].read_bytes()[:-10])
    end = outcome(series)
    assert (end.code, end.files) == ("TRUNCATED", (paths[3],))
