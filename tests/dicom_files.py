"""DICOM files written for the tests, each element under control, by pydicom alone."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from hypothesis import settings
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, pixel_array

from helpers import dicom
from helpers.errors import CourseDataError
from helpers.volume import Volume

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
NOWHERE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
SERIES = "1.2.826.0.1.3680043.8.498.1"
NATIVE = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
NATIVE += (uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian)
PACKED = (uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless)
sitk.ProcessObject.SetGlobalWarningDisplay(False)
few = settings(max_examples=15, deadline=None, derandomize=True)  # the same each time


def voxels(shape=(5, 6, 7), seed: int = 0, dtype="int16", low=-1000, high=3000) -> np.ndarray:
    """Noise, so that no two slices are alike."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def decimals(values) -> list[str]:
    """Numbers as decimal strings of at most 16 characters (PS3.5 section 6.2)."""
    return [f"{float(value) + 0.0:.9f}"[:16] for value in values]


def item(**elements) -> Dataset:
    """A data set of some elements; those that are None are left out."""
    dataset = Dataset()
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def image(
    pixels: np.ndarray,
    *,
    position=(0.0, 0.0, 0.0),
    orientation=AXIAL,
    spacing=(1.0, 1.0),
    series: str = SERIES,
    **elements,
) -> Dataset:
    """One grey image; `elements` add to it, or take away where the value is None."""
    frame = np.asarray(pixels)
    name = [series, str(position), str(zlib.crc32(frame.tobytes()))]
    stated = {
        "SOPClassUID": uid.CTImageStorage,
        "SOPInstanceUID": uid.generate_uid(entropy_srcs=name),
        "SeriesInstanceUID": series,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": decimals(position),
        "ImageOrientationPatient": decimals(orientation),
        "PixelSpacing": decimals(spacing),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": frame.shape[-2],
        "Columns": frame.shape[-1],
        "BitsAllocated": frame.itemsize * 8,
    }
    if frame.dtype.kind == "f":
        keyword = "FloatPixelData" if frame.itemsize == 4 else "DoubleFloatPixelData"
        stated[keyword] = frame.tobytes()
    else:
        stated["BitsStored"] = frame.itemsize * 8
        stated["PixelRepresentation"] = int(frame.dtype.kind == "i")
        stated["PixelData"] = frame.tobytes() + b"\0" * (frame.nbytes % 2)
    dataset = item(**(stated | elements))
    if "BitsStored" in dataset:
        dataset.HighBit = max(dataset.BitsStored - 1, 0)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW" if frame.itemsize > 1 else "OB"
    return dataset


def save(dataset: Dataset, path: Path, syntax: str = uid.ExplicitVRLittleEndian) -> Path:
    """Write a data set with little endian pixels in any transfer syntax."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == uid.ExplicitVRBigEndian and dataset.BitsAllocated > 8 and "PixelData" in dataset:
        dtype = np.dtype(f"<u{dataset.BitsAllocated // 8}")
        dataset.PixelData = np.frombuffer(dataset.PixelData, dtype).byteswap().tobytes()
    elif syntax in PACKED:
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        if syntax != uid.JPEGLosslessSV1:
            dataset.compress(syntax, generate_instance_uid=False)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    if syntax == uid.JPEGLosslessSV1:
        _to_jpeg_lossless(path)
    return path


def write(path: Path, pixels: np.ndarray, syntax=uid.ExplicitVRLittleEndian, **elements) -> Path:
    """`image` and `save` in one."""
    return save(image(pixels, **elements), path, syntax)


def write_series(
    folder: Path,
    stored: np.ndarray,
    *,
    between: float = 2.5,
    origin=(-10.0, 20.0, 30.0),
    orientation=AXIAL,
    heights=None,
    syntax=uid.ExplicitVRLittleEndian,
    names_seed: int = 0,
    per_slice=None,
    **elements,
) -> list[Path]:
    """A stack `[z, y, x]` under names that tell no order, in mm along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    heights = np.arange(len(stored)) * between if heights is None else heights
    numbers = np.random.default_rng(names_seed).permutation(len(stored))
    paths = []
    for k, (pixels, height) in enumerate(zip(stored, heights, strict=True)):
        here = {
            "position": np.add(origin, height * normal),
            "orientation": orientation,
            "InstanceNumber": int(numbers[k]) + 1,
            "SOPInstanceUID": f"{elements.get('series', SERIES)}.{k + 1}",
        }
        own = per_slice[k] if per_slice else {}
        path = Path(folder, f"IM{numbers[k]:04d}.dcm")
        paths.append(write(path, pixels, syntax, **(elements | here | own)))
    return paths


def write_enhanced(
    path: Path,
    stored: np.ndarray,
    frames: list[dict],
    syntax=uid.ExplicitVRLittleEndian,
    **elements,
) -> Path:
    """One multi-frame file; `frames` has position, and maybe orientation and slope, each."""
    groups = []
    for frame in frames:
        place = item(ImagePositionPatient=decimals(frame["position"]))
        plane = item(ImageOrientationPatient=decimals(frame.get("orientation", AXIAL)))
        group = item(PlanePositionSequence=[place], PlaneOrientationSequence=[plane])
        if "slope" in frame:
            rescale = {"RescaleSlope": frame["slope"], "RescaleIntercept": frame["intercept"]}
            group.PixelValueTransformationSequence = [item(RescaleType="HU", **rescale)]
        groups.append(group)
    measures = item(PixelSpacing=decimals((0.8, 0.7)))
    stated = {
        "SOPClassUID": uid.EnhancedCTImageStorage,
        "NumberOfFrames": len(stored),
        "PixelSpacing": None,
        "PerFrameFunctionalGroupsSequence": groups,
        "SharedFunctionalGroupsSequence": [item(PixelMeasuresSequence=[measures])],
    }
    return write(path, stored, syntax, **(NOWHERE | stated | elements))


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


def each(rows, check, folder: Path) -> None:
    """Try every row of a list or dict in a folder of its own, and report all that fail."""
    failed = []
    rows = rows if isinstance(rows, dict) else {str(row): row for row in rows}
    for number, (name, row) in enumerate(rows.items()):
        try:
            check(folder / str(number), *(row if isinstance(row, tuple) else (row,)))
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}"[:300])
    assert not failed, "\n".join(failed)


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


def _to_jpeg_lossless(path: Path) -> None:
    """Recode a file in place; pydicom reads JPEG lossless and does not write it, GDCM does both."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
