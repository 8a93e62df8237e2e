"""DICOM files written for the tests, each element under control, by pydicom alone."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from hypothesis import HealthCheck, settings
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    generate_uid,
)

from helpers import dicom
from helpers.errors import CourseDataError
from helpers.volume import Volume

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
sitk.ProcessObject.SetGlobalWarningDisplay(False)
few = settings(  # for laws: some examples, the same each time
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SERIES = "1.2.826.0.1.3680043.8.498.1"


def voxels(shape=(5, 6, 7), seed: int = 0, dtype="int16", low=-1000, high=3000) -> np.ndarray:
    """Noise, so that no two slices are alike."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


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
    stated = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(
            entropy_srcs=[series, str(position), str(zlib.crc32(frame.tobytes()))]
        ),
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
        "BitsStored": frame.itemsize * 8,
        "PixelRepresentation": int(frame.dtype.kind == "i"),
    }
    if frame.dtype.kind == "f":
        del stated["BitsStored"], stated["PixelRepresentation"]
        stated["FloatPixelData" if frame.itemsize == 4 else "DoubleFloatPixelData"] = (
            frame.tobytes()
        )
    else:
        stated["PixelData"] = frame.tobytes() + b"\0" * (frame.nbytes % 2)
    dataset = Dataset()
    for keyword, value in (stated | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "BitsStored" in dataset and "HighBit" not in elements:
        dataset.HighBit = max(dataset.BitsStored - 1, 0)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW" if frame.itemsize > 1 else "OB"
    return dataset


def decimals(values) -> list[str]:
    """Numbers as decimal strings of at most 16 characters (PS3.5 section 6.2)."""
    return [f"{float(value) + 0.0:.9f}"[:16] for value in values]


def save(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian, preamble=True) -> Path:
    """Write little endian pixels in any transfer syntax; without a preamble also without `DICM`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == JPEGLosslessSV1:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    elif syntax == ExplicitVRBigEndian and dataset.BitsAllocated > 8 and "PixelData" in dataset:
        dtype = np.dtype(f"<u{dataset.BitsAllocated // 8}")
        dataset.PixelData = np.frombuffer(dataset.PixelData, dtype).byteswap().tobytes()
    elif syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)
    dcmwrite(path, dataset, enforce_file_format=True)
    if syntax == JPEGLosslessSV1:
        _to_jpeg_lossless(path)
    if not preamble:
        path.write_bytes(path.read_bytes()[132:])
    return path


def write(path: Path, pixels: np.ndarray, syntax=ExplicitVRLittleEndian, **elements) -> Path:
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
    syntax=ExplicitVRLittleEndian,
    names_seed: int = 0,
    per_slice=lambda k: {},
    **elements,
) -> list[Path]:
    """A stack along rows x columns under names that tell no order.

    Args:
        folder: where the files go.
        stored: stored values `[z, y, x]`, slices in order along the normal.
        between: mm from slice to slice.
        heights: mm along the normal from `origin`, instead of `between`.
        per_slice: elements of slice k alone.

    Returns:
        Paths in the order of `stored`.
    """
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
        path = Path(folder, f"IM{numbers[k]:04d}.dcm")
        paths.append(write(path, pixels, syntax, **(elements | here | per_slice(k))))
    return paths


def write_enhanced(
    path: Path, stored: np.ndarray, frames: list[dict], syntax=ExplicitVRLittleEndian, **elements
) -> Path:
    """One multi-frame file; `frames` has position, and maybe orientation, spacing, slope, each."""
    groups = []
    for frame in frames:
        group = Dataset()
        group.PlanePositionSequence = [_item(ImagePositionPatient=decimals(frame["position"]))]
        orientation = frame.get("orientation", AXIAL)
        group.PlaneOrientationSequence = [_item(ImageOrientationPatient=decimals(orientation))]
        if "slope" in frame:
            group.PixelValueTransformationSequence = [
                _item(
                    RescaleSlope=str(frame["slope"]),
                    RescaleIntercept=str(frame["intercept"]),
                    RescaleType="HU",
                )
            ]
        groups.append(group)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=decimals((0.8, 0.7)))]
    stated = {
        "SOPClassUID": EnhancedCTImageStorage,
        "NumberOfFrames": len(stored),
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "PixelSpacing": None,
        "PerFrameFunctionalGroupsSequence": Sequence(groups),
        "SharedFunctionalGroupsSequence": Sequence([shared]),
    }
    return write(path, stored, syntax, **(stated | elements))


def outcome(source, **options) -> Volume | CourseDataError:
    """What reading a series ends in."""
    try:
        return dicom.read_series(source, **options)
    except CourseDataError as refused:
        return refused


def code(source, **options) -> str:
    """The code that reading ends in, or nothing if there is a volume."""
    return getattr(outcome(source, **options), "code", "")


def each(rows: dict, check, folder: Path) -> None:
    """Try every row in a folder of its own, and report all that fail."""
    failed = {}
    for number, (name, row) in enumerate(rows.items()):
        try:
            check(row, folder / str(number))
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:300]
    assert not failed, "\n".join(f"{name}: {why}" for name, why in failed.items())


def by_simpleitk(folder: Path) -> Volume:
    """A folder with one series through GDCM's sorting and ITK's series reader."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return Volume.from_sitk(reader.Execute())


def _item(**elements) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _to_jpeg_lossless(path: Path) -> None:
    """Recode a file in place; pydicom reads JPEG lossless and does not write it, GDCM does both."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    assert reader.Read()
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
