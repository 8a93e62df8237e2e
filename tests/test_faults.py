"""Every input file ends as a slice or as a line with a named reason; the rest goes on."""

import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.fileset import FileSet
from pydicom.pixels import get_decoder
from pydicom.uid import (
    MPEG4HP41,
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    GeneralECGWaveformStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    RTStructureSetStorage,
)

from helpers import dicom, dicom_header
from helpers.errors import CODES, CourseDataError
from helpers.phantoms import traps
from helpers.phantoms.scanner import dicom_series
from helpers.volume import Volume
from tests.dicom_files import (
    SERIES,
    image,
    outcome,
    save,
    voxels,
    write,
    write_enhanced,
    write_series,
)

LOSSLESS = {
    "RLE": RLELossless,
    "JPEG lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
RESCALE = {"RescaleSlope": "2", "RescaleIntercept": "-5"}
few = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def listed(found: dicom.Scan) -> list[Path]:
    """Every path of a scan, as often as it stands there."""
    files = [path for series in found.series for path in series.files]
    return sorted(files + [file.path for file in found.rejected])


def only_rejected(folder: Path, **options) -> dicom.Rejected:
    """The one file that a scan rejects."""
    (file,) = dicom.scan(folder, **options).rejected
    assert file.code in CODES
    return file


def refusal(source, **options) -> CourseDataError:
    with pytest.raises(CourseDataError) as refused:
        dicom.read_series(source, **options)
    for path in refused.value.files[:5]:
        assert path.name in str(refused.value)
    return refused.value


# Row 1: not an image, or not DICOM


def storage_without_pixels(sop_class: str) -> Dataset:
    dataset = image(np.zeros((2, 2), np.uint8), SOPClassUID=sop_class, series="1.2.3")
    del dataset.PixelData, dataset.Rows, dataset.Columns
    return dataset


def dicomdir(folder: Path) -> Path:
    files = FileSet()
    dataset = image(voxels((4, 5)), StudyInstanceUID="1.2", PatientID="1", PatientName="A")
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "120000", "1"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    files.add(pydicom.dcmread(save(dataset, folder / "source")))
    files.write(folder / "set")
    path = folder / "DICOMDIR"
    shutil.copy(folder / "set" / "DICOMDIR", path)
    shutil.rmtree(folder / "set")
    (folder / "source").unlink()
    return path


NOT_IMAGES = {
    "report": (ComprehensiveSRStorage, "Comprehensive SR"),
    "structure set": (RTStructureSetStorage, "RT Structure Set"),
    "waveform": (GeneralECGWaveformStorage, "ECG"),
}
NOT_DICOM = {
    "empty": b"",
    "short": b"DICM",
    ".DS_Store": b"\0\0\0\1Bud1" + b"\0" * 6000,
    "Thumbs.db": b"\xd0\xcf\x11\xe0" * 100,
    "photo.jpg": b"\xff\xd8\xff\xe0" + b"\x11" * 500,
    "letter.txt": b"Dear colleague,\n" * 50,
    "almost.dcm": b"\0" * 128 + b"DICN" + b"\0" * 100,
}


@pytest.mark.parametrize("kind", NOT_IMAGES)
def test_dicom_that_is_no_image_is_listed_with_its_kind_and_the_rest_goes_on(tmp_path, kind):
    sop_class, name = NOT_IMAGES[kind]
    path = save(storage_without_pixels(sop_class), tmp_path / "other.dcm")
    write_series(tmp_path, voxels())
    file = only_rejected(tmp_path)
    assert (file.path, file.code) == (path, "NOT_AN_IMAGE")
    assert name in file.reason
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels())


def test_a_report_filed_under_the_series_does_not_spoil_it(tmp_path):
    report = storage_without_pixels(ComprehensiveSRStorage)
    report.SeriesInstanceUID = SERIES
    save(report, tmp_path / "report.dcm")
    write_series(tmp_path, voxels())
    assert only_rejected(tmp_path).code == "NOT_AN_IMAGE"
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels())


def test_a_dicomdir_is_listed_and_the_rest_goes_on(tmp_path):
    path = dicomdir(tmp_path)
    write_series(tmp_path, voxels())
    file = only_rejected(tmp_path)
    assert (file.path, file.code) == (path, "NOT_AN_IMAGE")
    assert "Directory" in file.reason
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels())


@pytest.mark.parametrize("name", NOT_DICOM)
def test_other_files_are_listed_and_the_rest_goes_on(tmp_path, name):
    (tmp_path / name).write_bytes(NOT_DICOM[name])
    write_series(tmp_path, voxels())
    file = only_rejected(tmp_path)
    assert (file.path.name, file.code) == (name, "NOT_DICOM")
    assert "force=True" in file.reason
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels())


def test_a_header_that_cannot_be_parsed_is_unreadable(tmp_path):
    path = write(tmp_path / "a.dcm", voxels((4, 5)))
    content = path.read_bytes()
    path.write_bytes(content[:132] + b"\x02\0\0\0\xff\xff" + content[138:])
    file = only_rejected(tmp_path)
    assert file.code in ("UNREADABLE", "NOT_AN_IMAGE")
    assert refusal(path).code == "NO_SERIES"


def test_without_a_transfer_syntax_the_reason_is_not_a_decoder(tmp_path):
    path = write(tmp_path / "a.dcm", voxels((4, 5)))
    dataset = pydicom.dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    dataset.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=False)
    found = dicom.scan(path)
    if found.series:
        np.testing.assert_array_equal(dicom.read_series(path).voxels[0], voxels((4, 5)))
    else:
        assert found.rejected[0].code == "UNREADABLE"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_bare_data_set_without_any_file_meta_is_read_on_request(tmp_path, syntax):
    stored = voxels((3, 4, 5))
    for k, path in enumerate(write_series(tmp_path, stored, syntax=syntax, **RESCALE)):
        dataset = pydicom.dcmread(path)
        bare = Dataset(dataset)
        bare.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
        assert b"DICM" not in path.read_bytes(), k
    assert {file.code for file in dicom.scan(tmp_path).rejected} == {"NOT_DICOM"}
    (series,) = dicom.scan(tmp_path, force=True).series
    np.testing.assert_array_equal(dicom.read_series(series).voxels, stored * 2 - 5)


# Row 2: scouts


@pytest.mark.parametrize("count", [1, 2])
def test_a_localizer_inside_a_series_is_listed_as_a_scout(tmp_path, count):
    write_series(tmp_path, voxels())
    for k in range(count):
        write(
            tmp_path / f"scout{k}.dcm",
            voxels((9, 9), seed=k),
            orientation=(0, 1, 0, 0, 0, -1),
            position=(k, 0, 0),
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        )
    found = dicom.scan(tmp_path)
    assert [(file.path.name, file.code) for file in found.rejected] == [
        (f"scout{k}.dcm", "SCOUT") for k in range(count)
    ]
    assert "LOCALIZER" in found.rejected[0].reason
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels())


@pytest.mark.parametrize(
    "scout",
    [
        {"orientation": (0, 1, 0, 0, 0, -1), "shape": (5, 6)},
        {"orientation": (1, 0, 0, 0, 0, -1), "shape": (8, 9)},
        {"orientation": (1, 0, 0, 0, 1, 0), "shape": (8, 9)},
    ],
    ids=["across", "across and larger", "larger"],
)
def test_a_lone_image_that_lies_across_its_series_is_a_scout_by_geometry(tmp_path, scout):
    write_series(tmp_path, voxels((4, 5, 6)))
    shape = scout.pop("shape")
    path = write(tmp_path / "A first.dcm", voxels(shape), position=(0, 0, 0), **scout)
    file = only_rejected(tmp_path)
    assert (file.path, file.code) == (path, "SCOUT")
    assert "another plane or size" in file.reason
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels((4, 5, 6)))


def test_a_lone_image_of_another_series_is_not_a_scout(tmp_path):
    write_series(tmp_path, voxels())
    write(tmp_path / "lone.dcm", voxels((9, 9)), series="1.2.3")
    found = dicom.scan(tmp_path)
    assert found.rejected == ()
    assert sorted(len(series.files) for series in found.series) == [1, 5]


# Row 3: decoders


@pytest.fixture
def without_decoders(monkeypatch):
    """A machine on which no decoding package is installed."""
    for syntax in LOSSLESS.values():
        monkeypatch.setattr(get_decoder(syntax), "_available", {})
    dicom_header._decoder_fault.cache_clear()
    yield
    dicom_header._decoder_fault.cache_clear()


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        ("RLE", "pylibjpeg-rle"),
        ("JPEG lossless", "python-gdcm"),
        ("JPEG-LS", "pyjpegls"),
        ("JPEG 2000", "pylibjpeg-openjpeg"),
    ],
)
def test_a_missing_decoder_names_transfer_syntax_and_package(
    tmp_path, kind, package, without_decoders, root
):
    syntax = LOSSLESS[kind]
    for k in range(3):
        dataset = image(voxels((8, 8)), position=(0, 0, k))
        dataset.PixelData = encapsulate([b"\0" * 64])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(tmp_path / f"{k}.dcm", dataset, enforce_file_format=True)
    found = dicom.scan(tmp_path)
    assert found.series == ()
    for file in found.rejected:
        assert file.code == "DECODER_MISSING"
        assert syntax in file.reason
        assert syntax.name in file.reason
        assert f"pip install {package}" in file.reason
    assert package in (root / "requirements.txt").read_text("utf-8")
    refused = refusal(tmp_path)
    assert (refused.code, len(refused.files)) == ("DECODER_MISSING", 3)


def test_with_the_pinned_packages_every_decoder_is_there():
    for syntax in LOSSLESS.values():
        assert get_decoder(syntax).is_available


@pytest.mark.parametrize("syntax", [MPEG4HP41, pydicom.uid.UID("1.2.3.4.5.6")])
def test_a_syntax_that_no_package_decodes_says_what_to_ask_for(tmp_path, syntax):
    path = write(tmp_path / "a.dcm", voxels((8, 8)))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"\0" * 64])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    file = only_rejected(tmp_path)
    assert file.code == "DECODER_MISSING"
    assert syntax in file.reason
    assert "Explicit VR Little Endian" in file.reason


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("damage", ["noise", "zeros", "cut"])
def test_damaged_compressed_pixels_are_refused_by_file(tmp_path, kind, damage):
    paths = write_series(tmp_path, voxels((4, 33, 36)), syntax=LOSSLESS[kind])
    dataset = pydicom.dcmread(paths[2])
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    keep = 64  # of the stream's own header
    broken = {
        "noise": np.random.default_rng(0).bytes(len(stream)),
        "zeros": stream[:keep] + bytes(len(stream) - keep),
        "cut": stream[: len(stream) // 2],
    }[damage]
    dataset.PixelData = encapsulate([broken + b"\0" * (len(broken) % 2)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(paths[2])
    if kind == "JPEG lossless" and damage == "zeros":
        # Zeros are codes as good as any: nothing in this format can tell.
        assert dicom.read_series(tmp_path).shape == (4, 33, 36)
        return
    refused = refusal(tmp_path)
    assert refused.code in ("DECODING_FAILED", "TRUNCATED")
    assert refused.files == (paths[2],)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_rle_is_read_or_refused_and_never_a_panic(tmp_path, seed):
    paths = write_series(tmp_path, voxels((1, 33, 36)), syntax=RLELossless)
    content = bytearray(paths[0].read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(len(content) - 2400, len(content) - 100, 40):
        content[place] = rng.integers(256)
    paths[0].write_bytes(content)
    end = outcome(tmp_path)
    if isinstance(end, CourseDataError):
        assert end.code in ("DECODING_FAILED", "TRUNCATED")
    else:
        assert end.shape == (1, 33, 36)


@pytest.mark.parametrize("rows", [40, 56])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_decoded_image_of_another_size_is_refused(tmp_path, kind, rows):
    if kind == "RLE" and rows == 56:
        return  # the stream states no size of its own, so more of it cannot be told
    paths = write_series(tmp_path, voxels((3, 48, 36)), syntax=LOSSLESS[kind])
    other = write(tmp_path / "other" / "a", voxels((rows, 36)), LOSSLESS[kind])
    dataset = pydicom.dcmread(paths[1])
    dataset.PixelData = pydicom.dcmread(other).PixelData
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(paths[1])
    shutil.rmtree(other.parent)
    # In a process of its own: a decoder that aborts takes everything with it.
    program = (
        "import sys; from tests.dicom_files import outcome; end = outcome(sys.argv[1])\n"
        "print(end.code, *[path.name for path in end.files])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    code, name = done.stdout.split()
    assert code in ("DECODING_FAILED", "TRUNCATED")
    assert name == paths[1].name


# Row 13: truncated


@pytest.mark.parametrize("which", [0, 2, 4])
@pytest.mark.parametrize("lost", [1, 2, 40, 84])
def test_a_truncated_slice_is_refused_wherever_it_lies(tmp_path, which, lost):
    stored = voxels()
    paths = write_series(tmp_path, stored)
    paths[which].write_bytes(paths[which].read_bytes()[:-lost])
    found = dicom.scan(tmp_path)
    (file,) = found.rejected
    assert (file.path, file.code) == (paths[which], "TRUNCATED")
    assert "6 x 7 x 1 pixels of 16 bits are 84 bytes" in file.reason
    assert f"the file holds {84 - lost}" in file.reason
    assert "copy it again" in file.reason
    assert repr(found.series[0]).endswith("1 damaged)")
    for source in (tmp_path, found.series[0]):
        refused = refusal(source, fill_gaps=True)
        assert (refused.code, refused.files) == ("TRUNCATED", (paths[which],))


def test_the_last_slice_cut_anywhere_in_its_header_does_not_just_vanish(tmp_path):
    paths = write_series(tmp_path, voxels((4, 5, 6)))
    content = paths[-1].read_bytes()
    # From the series UID on a reader can know where the file belongs.
    known = content.index(b"\x20\x00\x0e\x00UI") + 8 + len(SERIES) + 1
    for cut in range(known, len(content), 3):
        paths[-1].write_bytes(content[:cut])
        end = outcome(tmp_path)
        if isinstance(end, CourseDataError):
            assert paths[-1] in end.files, cut
            assert end.code in ("TRUNCATED", "NO_GEOMETRY", "UNREADABLE"), cut
        else:  # cut inside the length of the pixels, where no value follows
            assert content[cut - 12 : cut + 4].find(b"\xe0\x7f\x10\x00OW") >= 0, cut
            assert only_rejected(tmp_path).path == paths[-1]
            assert end.shape[0] == 3


def test_fewer_bytes_than_the_header_promises_are_refused_though_the_file_is_whole(tmp_path):
    paths = write_series(
        tmp_path, voxels(), per_slice=lambda k: {"PixelData": b"\0" * 60} if k == 4 else {}
    )
    assert only_rejected(tmp_path).path == paths[4]
    assert refusal(tmp_path).code == "TRUNCATED"


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_truncated_compressed_file_is_refused(tmp_path, kind):
    paths = write_series(tmp_path, voxels((3, 33, 36)), syntax=LOSSLESS[kind])
    content = paths[-1].read_bytes()
    for cut in (10, 100, 1000):
        paths[-1].write_bytes(content[:-cut])
        refused = refusal(tmp_path)
        assert refused.files == (paths[-1],)
        assert refused.code in ("TRUNCATED", "DECODING_FAILED")


def test_a_file_that_shrinks_between_scan_and_reading_is_refused(tmp_path):
    paths = write_series(tmp_path, voxels())
    (series,) = dicom.scan(tmp_path).series
    paths[3].write_bytes(paths[3].read_bytes()[:-10])
    refused = refusal(series)
    assert (refused.code, refused.files) == ("TRUNCATED", (paths[3],))
    assert "expected 84 bytes of pixels, found 74" in refused.message


def test_a_truncated_frame_is_refused(tmp_path):
    path = write_enhanced(
        tmp_path / "a.dcm", voxels((4, 5, 6)), [{"position": (0, 0, k)} for k in range(4)]
    )
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(path).code == "TRUNCATED"


def test_a_truncated_file_of_another_series_does_not_spoil_this_one(tmp_path):
    write_series(tmp_path, voxels())
    path = write(tmp_path / "z.dcm", voxels((4, 5)), series="1.2.3")
    path.write_bytes(path.read_bytes()[:-5])
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels())


# Row 20: colour and many frames


@pytest.mark.parametrize(
    ("photometric", "samples"),
    [("RGB", 3), ("YBR_FULL", 3), ("YBR_FULL_422", 3), ("PALETTE COLOR", 1)],
)
def test_colour_is_refused_by_name(tmp_path, photometric, samples):
    pixels = np.zeros((6, 8, samples), np.uint8)
    extra = {"PlanarConfiguration": 0} if samples == 3 else {}
    path = write(
        tmp_path / "a.dcm",
        pixels,
        PhotometricInterpretation=photometric,
        SamplesPerPixel=samples,
        Rows=6,
        Columns=8,
        **extra,
    )
    file = only_rejected(tmp_path)
    assert (file.path, file.code) == (path, "COLOUR")
    assert photometric in file.reason
    assert f"{samples} sample(s)" in file.reason
    assert "pixel_array" in file.reason
    assert refusal(path).code == "COLOUR"


def test_frames_without_geometry_are_refused_by_name(tmp_path):
    path = write(tmp_path / "film.dcm", voxels((4, 5, 6)), NumberOfFrames="4")
    file = only_rejected(tmp_path)
    assert file.code == "MULTI_FRAME"
    assert "4 frames" in file.reason
    assert "pixel_array" in file.reason
    assert refusal(path).code == "MULTI_FRAME"


def test_fewer_functional_groups_than_frames_are_refused(tmp_path):
    frames = [{"position": (0, 0, k)} for k in range(3)]
    path = write_enhanced(tmp_path / "a.dcm", voxels((4, 5, 6)), frames)
    assert refusal(path).code == "MULTI_FRAME"


# Row 24 and 15: floats


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_pixels_that_are_not_finite_are_refused(tmp_path, value, dtype):
    stored = np.ones((4, 5, 6), dtype)
    stored[2, 1, 1:3] = value
    paths = write_series(tmp_path, stored)
    refused = refusal(tmp_path)
    assert (refused.code, refused.files) == ("NOT_FINITE", (paths[2],))
    assert "2 values" in refused.message


@pytest.mark.filterwarnings("error")
def test_values_beyond_float32_are_refused_without_a_warning(tmp_path):
    stored = np.full((3, 4, 5), 1e300)
    write_series(tmp_path, stored)
    assert refusal(tmp_path).code == "NOT_FINITE"


@pytest.mark.filterwarnings("error")
def test_plus_and_minus_infinity_do_not_cancel(tmp_path):
    stored = np.ones((3, 4, 5), np.float32)
    stored[1, 0, :2] = np.inf, -np.inf
    write_series(tmp_path, stored)
    assert refusal(tmp_path).code == "NOT_FINITE"


@pytest.mark.parametrize(
    "given",
    [{"RescaleSlope": "0"}, {"RescaleSlope": "0.0"}],
    ids=str,
)
def test_a_slope_of_zero_is_refused(tmp_path, given):
    write_series(tmp_path, voxels(), RescaleIntercept="0", **given)
    file = dicom.scan(tmp_path).rejected[0]
    assert file.code == "NOT_FINITE"
    assert "Rescale Slope" in file.reason
    assert refusal(tmp_path).code == "NOT_FINITE"


@pytest.mark.parametrize("text", [b"nan     ", b"inf     ", b"1,5     ", b"one     "])
@pytest.mark.parametrize("element", ["Slope", "Intercept"])
def test_a_rescale_number_that_is_none_is_refused(tmp_path, text, element):
    numbers = {"RescaleSlope": "1", "RescaleIntercept": "0"} | {f"Rescale{element}": "1.062500"}
    paths = write_series(tmp_path, voxels(), **numbers)
    content = paths[1].read_bytes()
    assert content.count(b"1.062500") == 1
    paths[1].write_bytes(content.replace(b"1.062500", text))
    file = only_rejected(tmp_path)
    assert (file.path, file.code) == (paths[1], "NOT_FINITE")
    assert f"Rescale {element}" in file.reason
    assert refusal(tmp_path).files == (paths[1],)


def test_a_deflated_file_is_read_and_a_cut_one_refused(tmp_path):
    path = write(tmp_path / "a.dcm", voxels((20, 20)), DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(dicom.read_series(path).voxels[0], voxels((20, 20)))
    content = path.read_bytes()
    for cut in (2, 50, 400):
        path.write_bytes(content[:-cut])
        assert refusal(path).code in ("NO_SERIES", "TRUNCATED", "UNREADABLE")


# Row 25: a header that claims terabytes


@pytest.mark.parametrize(
    "claim",
    [
        {"Rows": 65535, "Columns": 65535, "NumberOfFrames": "1000"},
        {"NumberOfFrames": "999999999999"},
        {"Rows": 65535, "Columns": 65535, "NumberOfFrames": "9999", "BitsAllocated": 64},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, JPEGLSLossless], ids=["native", "packed"]
)
@pytest.mark.parametrize("frames_described", [True, False])
def test_terabytes_are_refused_before_memory_is_taken(tmp_path, claim, syntax, frames_described):
    path = write_enhanced(
        tmp_path / "a.dcm",
        voxels((1, 33, 36))[0],
        [{"position": (0, 0, 0)}],
        syntax,
        NumberOfFrames=1,
    )
    dataset = pydicom.dcmread(path)
    dataset.update(dict.fromkeys(()))
    for keyword, value in claim.items():
        setattr(dataset, keyword, value)
    if not frames_described:
        del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(path)
    resident = psutil.Process().memory_info().rss
    tracemalloc.start()
    file = only_rejected(tmp_path)
    refused = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert psutil.Process().memory_info().rss - resident < 100e6
    assert file.code == refused.code == "TOO_LARGE"
    assert "GiB" in file.reason
    assert "the header is wrong" in file.reason


def test_a_series_larger_than_the_free_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    write_series(tmp_path, voxels((5, 40, 40)))
    (series,) = dicom.scan(tmp_path).series
    little = psutil.virtual_memory()._replace(available=5 * 40 * 40 * 4 - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    refused = refusal(series)
    assert refused.code == "TOO_LARGE"
    assert "5 slices of 40 x 40" in refused.message


@pytest.mark.parametrize("frames", ["0", "-1", "1.5", "1A", "two"])
def test_a_number_of_frames_that_cannot_be_is_refused(tmp_path, frames):
    path = write(tmp_path / "a.dcm", voxels((4, 5)), NumberOfFrames="77777")
    content = path.read_bytes()
    assert content.count(b"77777 ") == 1
    path.write_bytes(content.replace(b"77777 ", frames.encode().ljust(6)))
    assert only_rejected(tmp_path).code == "PIXEL_FORMAT"
    assert refusal(path).code == "PIXEL_FORMAT"


@pytest.mark.parametrize(
    "format_",
    [
        {"BitsAllocated": 0},
        {"BitsAllocated": 12},
        {"BitsAllocated": 24},
        {"BitsStored": 0},
        {"BitsStored": 17},
        {"BitsStored": 255},
    ],
    ids=str,
)
def test_bits_that_cannot_be_are_refused(tmp_path, format_):
    write_series(tmp_path, voxels(dtype="uint16", low=0), **format_)
    assert {file.code for file in dicom.scan(tmp_path).rejected} == {"PIXEL_FORMAT"}
    assert refusal(tmp_path).code == "PIXEL_FORMAT"


def test_no_rows_or_columns_are_no_image(tmp_path):
    for keyword in ("Rows", "Columns"):
        write(tmp_path / f"{keyword}.dcm", voxels((4, 5)), **{keyword: None})
        write(tmp_path / f"{keyword}0.dcm", voxels((4, 5)), **{keyword: 0})
    found = dicom.scan(tmp_path)
    assert found.series == ()
    assert {file.code for file in found.rejected} <= {"NOT_AN_IMAGE", "PIXEL_FORMAT"}
    assert all("ows" in file.reason for file in found.rejected)


# Row 22 and the file system


@pytest.mark.parametrize(
    "place",
    [
        "with spaces/and more of them",
        "Übung – größer/腹部CT/אבג/é́",
        "quotes ' and \" and ; & $HOME % * ?",
        "/".join(["a very long name " * 6] * 12),
    ],
    ids=["spaces", "unicode", "shell", "long"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids some of these names")
def test_odd_paths_work_and_are_not_kept(tmp_path, place):
    folder = tmp_path / place
    write_series(folder, voxels())
    folder.joinpath("ä leer.dcm").write_bytes(b"")
    found = dicom.scan(tmp_path)
    assert only_rejected(tmp_path).path == folder / "ä leer.dcm"
    volume = dicom.read_series(found.series[0])
    np.testing.assert_array_equal(volume.voxels, voxels())
    assert place.split("/")[0] not in repr(volume) + " ".join(volume.notes)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no text")
def test_a_name_that_is_no_text_is_listed(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.dcm", "wb") as file:
        file.write(b"no image")
    write_series(tmp_path, voxels())
    assert only_rejected(tmp_path).code == "NOT_DICOM"
    assert dicom.read_series(tmp_path).shape == voxels().shape


def symlink(link: Path, target: Path) -> None:
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("this system allows no symbolic links")


def test_links_that_run_in_circles_end(tmp_path):
    write_series(tmp_path / "a", voxels())
    symlink(tmp_path / "a" / "up", tmp_path)
    symlink(tmp_path / "a" / "self", tmp_path / "a" / "self")
    symlink(tmp_path / "a" / "dangling", tmp_path / "nothing")
    found = dicom.scan(tmp_path)
    assert [len(series.files) for series in found.series] == [5]
    codes = {file.path.name: file.code for file in found.rejected}
    assert codes.items() >= {"self": "UNREADABLE", "dangling": "UNREADABLE"}.items()
    np.testing.assert_array_equal(dicom.read_series(tmp_path).voxels, voxels())


def test_a_linked_file_is_read(tmp_path):
    paths = write_series(tmp_path / "a", voxels())
    (tmp_path / "b").mkdir()
    for path in paths:
        symlink(tmp_path / "b" / path.name, path)
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "b").voxels, voxels())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_does_not_hang_the_scan(tmp_path):
    write_series(tmp_path, voxels())
    os.mkfifo(tmp_path / "pipe")
    found = []
    thread = threading.Thread(target=lambda: found.append(dicom.scan(tmp_path)), daemon=True)
    thread.start()
    thread.join(timeout=20)
    if not found:  # let the reader go
        os.close(os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK))
    assert found, "the scan waits for somebody to write into the pipe"
    assert [(file.path.name, file.code) for file in found[0].rejected] == [("pipe", "UNREADABLE")]


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    """Rights as an ordinary user has them, also where the tests run as root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has other rights")
    write_series(tmp_path / "warm-up", voxels())
    dicom.read_series(tmp_path / "warm-up")
    shutil.rmtree(tmp_path / "warm-up")
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the way here may be closed to nobody
    root = os.geteuid() == 0
    yield (lambda: os.seteuid(65534)) if root else (lambda: None)
    if root:
        os.seteuid(0)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)


def test_a_file_that_may_not_be_opened_is_listed(tmp_path, nobody):
    paths = write_series(tmp_path / "a", voxels())
    paths[2].chmod(0)
    nobody()
    found = dicom.scan("a")
    (file,) = found.rejected
    assert (file.path.name, file.code) == (paths[2].name, "UNREADABLE")
    assert "Permission denied" in file.reason


def test_a_folder_that_may_not_be_opened_is_listed(tmp_path, nobody):
    write_series(tmp_path / "a", voxels())
    write_series(tmp_path / "a" / "closed", voxels(seed=2), series="1.2.3")
    (tmp_path / "a" / "closed").chmod(0)
    nobody()
    found = dicom.scan("a")
    (file,) = found.rejected
    assert (file.path.name, file.code) == ("closed", "UNREADABLE")
    assert [len(series.files) for series in found.series] == [5]


# Everything together


def messy(folder: Path, ingredients: list[tuple[str, int]]) -> None:
    """One of each ingredient in a sub-folder of its own."""
    for number, (kind, seed) in enumerate(ingredients):
        place = folder / f"{number} {kind}"
        uid = f"1.2.{number + 1}"
        shape = (3 + seed % 3, 4, 5)
        if kind in NOT_DICOM:
            place.mkdir(parents=True)
            (place / kind).write_bytes(NOT_DICOM[kind])
        elif kind in NOT_IMAGES:
            save(storage_without_pixels(NOT_IMAGES[kind][0]), place / "other")
        elif kind == "same place":
            write_series(place, voxels(shape, seed), between=0, series=uid)
        elif kind == "cut":
            paths = write_series(place, voxels(shape, seed), series=uid)
            content = paths[0].read_bytes()
            paths[0].write_bytes(content[: seed * len(content) // 100])
        elif kind == "colour":
            write_series(place, voxels(shape, seed), series=uid, PhotometricInterpretation="RGB")
        elif kind == "no geometry":
            write_series(place, voxels(shape, seed), series=uid, ImagePositionPatient=None)
        elif kind == "one series everywhere":
            write_series(place, voxels(shape, seed))
        elif kind == "enhanced":
            frames = [{"position": (0, 0, k)} for k in range(shape[0])]
            write_enhanced(place / "a", voxels(shape, seed), frames, series=uid)
        else:
            write_series(place, voxels(shape, seed), series=uid)


KINDS = [
    *NOT_DICOM,
    *NOT_IMAGES,
    "same place",
    "cut",
    "colour",
    "no geometry",
    "one series everywhere",
    "enhanced",
    "good",
]


@few
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99)), min_size=1, max_size=7))
def test_every_file_of_a_messy_folder_is_listed_exactly_once(tmp_path_factory, ingredients):
    folder = tmp_path_factory.mktemp("messy")
    messy(folder, ingredients)
    found = dicom.scan(folder)
    assert listed(found) == sorted(path for path in folder.rglob("*") if path.is_file())
    assert dicom.scan(folder) == found
    good = {f"{n} good" for n, (kind, _) in enumerate(ingredients) if kind == "good"}
    read = set()
    for series in found.series:
        end = outcome(series)
        if isinstance(end, CourseDataError):
            assert end.code in CODES
        else:
            read.add(series.files[0].parent.name)
    assert good <= read
    for file in found.rejected:
        assert file.code in CODES
        assert len(file.reason) > 20
        assert str(folder) not in file.reason


ENDS = {
    None: "a volume",
    "missing_slice": "MISSING_SLICE",
    "uneven_spacing": "UNEVEN_SPACING",
    "gantry_tilt": "GANTRY_TILT",
    "gantry_tilt_untagged": "GANTRY_TILT",
    "gantry_tilt_lie": "a volume",
    "shifted_slice": "NOT_ALIGNED",
    "duplicate_slice": "a volume",
    "conflicting_duplicate": "CONFLICTING_DUPLICATE",
    "two_phases": "SHARED_POSITION",
    "mixed_size": "MISSING_SLICE",
    "scout": "a volume",
    "two_series": "SEVERAL_SERIES",
    "no_position": "NO_GEOMETRY",
    "monochrome1": "a volume",
    "per_slice_rescale": "a volume",
    "no_rescale": "a volume",
    "float_pixels": "a volume",
    "palette": "COLOUR",
    "ybr": "COLOUR",
    "truncated": "TRUNCATED",
    "short_pixels": "TRUNCATED",
    "terabytes": "TOO_LARGE",
    "no_preamble": "NO_SERIES",
    "multi_frame": "a volume",
    "multi_frame_plain": "MULTI_FRAME",
    "big_endian": "a volume",
    "implicit_vr": "a volume",
    "deflated": "a volume",
    "rle": "a volume",
    "jpeg_ls": "a volume",
    "jpeg_2000": "a volume",
    "jpeg_lossless": "a volume",
    "unknown_decoder": "DECODER_MISSING",
    "not_images": "a volume",
    "unicode_path": "a volume",
}


@pytest.mark.parametrize("trap", [None, *traps.TRAPS])
def test_every_trap_of_the_synthetic_scanner_ends_as_it_should(tmp_path, trap):
    z, y, x = np.ogrid[:8, :40, :44]
    hu = (np.hypot(y - 20, x - 22) * 20 - 500 + 30 * z).astype(np.int16)
    volume = Volume(hu, (3.0, 0.8, 0.7), (-15.0, -16.0, 100.0))
    dicom_series(volume, tmp_path, trap=trap, seed=5)
    found = dicom.scan(tmp_path)
    assert listed(found) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    end = outcome(tmp_path)
    if ENDS[trap] == "a volume":
        assert isinstance(end, Volume), end
        assert end.shape == hu.shape
        if trap == "no_rescale":
            np.testing.assert_array_equal(end.voxels, hu + 1024)
        elif trap != "monochrome1":  # mirrored on reading; slopes of their own cost a rounding
            atol = 1 if trap == "per_slice_rescale" else 0
            np.testing.assert_allclose(end.voxels, hu, atol=atol)
    else:
        assert isinstance(end, CourseDataError)
        assert end.code == ENDS[trap]


def test_a_slice_cut_before_its_series_uid_still_makes_its_neighbours_incomplete(tmp_path):
    last = write_series(tmp_path, voxels())[-1]
    content = last.read_bytes()
    last.write_bytes(content[: content.index(b"\x20\x00\x0e\x00")])
    (cut,) = dicom.scan(tmp_path).rejected
    assert (cut.path, cut.code, cut.series_uid) == (last, "TRUNCATED", "")
    with pytest.raises(CourseDataError) as refused:
        dicom.read_series(tmp_path)
    assert refused.value.code == "TRUNCATED" and refused.value.files == (last,)
