"""Every file that comes with pydicom ends as an image or as a reason, none as a traceback."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
import SimpleITK as sitk
from pydicom.pixels import apply_modality_lut, pixel_array

from helpers import dicom
from helpers.errors import CODES, CourseDataError
from helpers.volume import Volume
from tests.dicom_files import outcome

ROOT = Path(pydicom.data.__file__).parent
FILES = sorted(
    path for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in str(path)
)
sitk.ProcessObject.SetGlobalWarningDisplay(False)
each_file = pytest.mark.parametrize(
    "path", FILES, ids=[path.relative_to(ROOT).as_posix() for path in FILES]
)
pytestmark = pytest.mark.filterwarnings("ignore")  # the files are odd on purpose

# Known files, and what they are known to be.
EXPECTED = {
    "CT_small.dcm": None,
    "MR_small.dcm": None,
    "MR_small_bigendian.dcm": None,
    "MR_small_RLE.dcm": None,
    "image_dfl.dcm": None,
    "JPEG2000.dcm": None,
    "JPEGLSNearLossless_16.dcm": None,
    "MR_small_padded.dcm": None,
    "liver_1frame.dcm": None,
    "MR_truncated.dcm": "TRUNCATED",
    "DICOMDIR": "NOT_AN_IMAGE",
    "rtplan.dcm": "NOT_AN_IMAGE",
    "rtstruct.dcm": "NOT_DICOM",
    "reportsi.dcm": "NOT_AN_IMAGE",
    "test-SR.dcm": "NOT_AN_IMAGE",
    "rtdose.dcm": "MULTI_FRAME",
    "SC_rgb_rle.dcm": "COLOUR",
    "SC_ybr_full_422_uncompressed.dcm": "COLOUR",
    "examples_palette.dcm": "COLOUR",
    "no_meta.dcm": "NOT_DICOM",
    "README.txt": "NOT_DICOM",
    "data_manager.py": "NOT_DICOM",
}


def test_the_tree_is_there():
    assert len(FILES) > 150


def test_every_file_is_listed_exactly_once():
    found = dicom.scan(ROOT)
    listed = [path for series in found.series for path in series.files]
    listed += [file.path for file in found.rejected]
    assert sorted(listed) == sorted(path for path in ROOT.rglob("*") if path.is_file())
    assert {file.code for file in found.rejected} <= set(CODES)
    assert all(len(file.reason) > 20 for file in found.rejected)


def test_the_order_of_the_scan_is_the_same_again():
    assert dicom.scan(ROOT) == dicom.scan(ROOT)


def test_every_series_of_the_tree_is_a_volume_or_has_a_reason():
    for series in dicom.scan(ROOT).series:
        end = outcome(series)
        if isinstance(end, CourseDataError):
            assert set(end.files) & {*series.files, *(file.path for file in series.damaged)}
        else:
            assert np.isfinite(end.voxels).all()


@pytest.mark.parametrize("name", EXPECTED)
def test_known_files_are_what_they_are_known_to_be(name):
    paths = [path for path in FILES if path.name == name]
    if not paths:
        pytest.skip(f"this pydicom comes without {name}")
    for path in paths:
        codes = [file.code for file in dicom.scan(path).rejected]
        assert codes == ([EXPECTED[name]] if EXPECTED[name] else [])


@each_file
@pytest.mark.parametrize("force", [False, True], ids=["", "forced"])
def test_a_file_is_an_image_or_a_reason(path, force):
    found = dicom.scan(path, force=force)
    if found.rejected:
        assert found.series == ()
        (file,) = found.rejected
        assert file.path == path
        assert file.code in CODES
        return
    (series,) = found.series
    assert series.files == (path,)
    end = outcome(series)
    if isinstance(end, CourseDataError):
        assert end.files == (path,)
        assert not readable(path), end
    else:
        np.testing.assert_allclose(end.voxels, by_pydicom(path), rtol=1e-6)
        compare_with_simpleitk(end, path)


def readable(path: Path) -> bool:
    """Whether pydicom gives pixels for the file."""
    try:
        by_pydicom(path)
    except Exception:  # of whatever class: that is the point of having codes
        return False
    return True


def by_pydicom(path: Path) -> np.ndarray:
    """Values of a grey image by pydicom alone, `[z, y, x]`."""
    dataset = pydicom.dcmread(path, force=True)
    pixels = pixel_array(dataset, raw=True)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        white = -1 if dataset.PixelRepresentation else 2**dataset.BitsStored - 1
        pixels = white - pixels.astype(int)
    if "DoseGridScaling" in dataset:
        return np.reshape(pixels * float(dataset.DoseGridScaling), (-1, *pixels.shape[-2:]))
    return np.reshape(apply_modality_lut(pixels, dataset), (-1, *pixels.shape[-2:]))


def compare_with_simpleitk(volume, path: Path) -> None:
    """Geometry and, where it decodes, values by GDCM inside SimpleITK."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return
    dataset = pydicom.dcmread(path, force=True)
    if image.GetDimension() != 3 or image.GetSize()[2] != len(volume.voxels):
        return
    if "ImagePositionPatient" in dataset and "ImageOrientationPatient" in dataset:
        np.testing.assert_allclose(volume.origin, image.GetOrigin(), atol=1e-3)
        theirs = np.reshape(image.GetDirection(), (3, 3))
        np.testing.assert_allclose(volume.direction, theirs, atol=1e-4)
    if "PixelSpacing" in dataset:
        np.testing.assert_allclose(volume.spacing[:0:-1], image.GetSpacing()[:2], rtol=1e-5)


@pytest.mark.parametrize("cut", [0, 1, 100, 131, 132, 140, 200, 1000, 5000, 20000])
def test_cut_off_anywhere_a_file_still_ends_as_an_image_or_a_reason(tmp_path, cut):
    for number, path in enumerate(FILES):
        content = path.read_bytes()[:cut]
        (tmp_path / f"{number}.dcm").write_bytes(content)
    found = dicom.scan(tmp_path)
    assert len(found.rejected) + sum(len(series.files) for series in found.series) == len(FILES)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_make_no_traceback(tmp_path, seed):
    rng = np.random.default_rng(seed)
    for number, path in enumerate(FILES):
        content = bytearray(path.read_bytes()[:30000])
        if len(content) > 200:
            for place in rng.integers(132, min(len(content), 2000), 12):
                content[place] = rng.integers(256)
        (tmp_path / f"{number}.dcm").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dicom.scan(tmp_path)
        assert len(found.rejected) + sum(len(series.files) for series in found.series) == len(FILES)
        for series in found.series:
            end = outcome(series)
            assert isinstance(end, Volume) or end.code in CODES
