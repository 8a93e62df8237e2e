"""DICOM files for the tests, each element under control."""

import zlib
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from helpers.lesson.phantoms import scanner

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
NOWHERE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
SERIES = "1.2.826.0.1.3680043.8.498.1"
EXPLICIT = uid.ExplicitVRLittleEndian
NATIVE = (EXPLICIT, uid.ImplicitVRLittleEndian)
NATIVE += (uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian)
PACKED = (uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless)


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
            if dataset[keyword].VR == "SQ":
                dataset[keyword].is_undefined_length = True
    return dataset


def image(
    pixels, *, position=(0, 0, 0), orientation=AXIAL, spacing=(1, 1), series=SERIES, **elements
) -> Dataset:
    """One grey image; `elements` add to it, or take away where the value is None."""
    frame = np.asarray(pixels)
    stated = {
        "SOPClassUID": uid.CTImageStorage,
        "SOPInstanceUID": f"1.3.{zlib.crc32(frame.tobytes() + str(position).encode())}",
        "SeriesInstanceUID": series,
        "Modality": "CT",
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


def save(dataset: Dataset, path: Path, syntax=EXPLICIT) -> Path:
    """Write a data set with little endian pixels in any transfer syntax."""
    dataset.file_meta = FileMetaDataset()
    scanner.write(dataset, path, syntax)
    return path


def write(path: Path, pixels: np.ndarray, syntax=EXPLICIT, **elements) -> Path:
    return save(image(pixels, **elements), path, syntax)


def write_series(
    folder, stored, *, between=2.5, origin=(-10, 20, 30), heights=None, per_slice=None, **elements
) -> list[Path]:
    """A stack `[z, y, x]` under names that tell no order, in mm along the normal."""
    orientation = elements.get("orientation", AXIAL)
    normal = np.cross(orientation[:3], orientation[3:])
    heights = np.arange(len(stored)) * between if heights is None else heights
    numbers = np.random.default_rng(len(stored)).permutation(len(stored))
    paths = []
    for k, (pixels, height) in enumerate(zip(stored, heights, strict=True)):
        name = f"{elements.get('series', SERIES)}.{k + 1}"
        here = {"position": np.add(origin, height * normal), "SOPInstanceUID": name}
        own = per_slice[k] if per_slice else {}
        path = Path(folder, f"IM{numbers[k]:04d}.dcm")
        paths.append(write(path, pixels, **(elements | here | own)))
    return paths


def write_enhanced(path: Path, stored: np.ndarray, frames: list[dict], **elements) -> Path:
    """One multi-frame file; `frames` has position, and maybe slope and intercept, each."""
    groups = []
    for frame in frames:
        place = item(ImagePositionPatient=decimals(frame["position"]))
        plane = item(ImageOrientationPatient=decimals(AXIAL))
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
    return write(path, stored, **(NOWHERE | stated | elements))
