"""What reading DICOM files ends in, here and by the libraries that tests compare with."""

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from hypothesis import settings
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, pixel_array

from helpers import dicom
from helpers.errors import CourseDataError
from helpers.volume import Volume

sitk.ProcessObject.SetGlobalWarningDisplay(False)
few = settings(max_examples=15, deadline=None, derandomize=True)  # for laws: the same each time


def outcome(source, **options) -> Volume | CourseDataError:
    """What reading a series ends in."""
    try:
        return dicom.read_series(source, **options)
    except CourseDataError as refused:
        return refused


def code(source, **options) -> str:
    """The code that reading ends in, or nothing if there is a volume."""
    return getattr(outcome(source, **options), "code", "")


def files_in(folder: Path) -> list[Path]:
    """Every file, pipe and broken link under a folder."""
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def by_simpleitk(folder: Path) -> Volume:
    """A folder with one series through GDCM's sorting and ITK's series reader."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return Volume.from_sitk(reader.Execute())


def by_pydicom(path: Path) -> np.ndarray:
    """Values of grey images by pydicom alone, `[z, y, x]`; of 12-bit JPEG by SimpleITK."""
    if path.name == "no_meta.dcm":  # of which pydicom finds no pixels
        path = Path(get_testdata_file("CT_small.dcm"))
    dataset = pydicom.dcmread(path, force=True)
    dataset.file_meta.setdefault("TransferSyntaxUID", uid.ImplicitVRLittleEndian)
    if dataset.file_meta.TransferSyntaxUID == uid.JPEGExtended12Bit:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    pixels = pixel_array(dataset, raw=True)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        white = -1 if dataset.PixelRepresentation else 2**dataset.BitsStored - 1
        pixels = white - pixels.astype(int)
    if "DoseGridScaling" in dataset:
        pixels = pixels * float(dataset.DoseGridScaling)
    return np.reshape(apply_modality_lut(pixels, dataset), (-1, *pixels.shape[-2:]))
