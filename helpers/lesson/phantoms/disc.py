"""A disc from another hospital: everything in one folder, as it comes through the post."""

import shutil
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, JPEG2000Lossless, JPEGLSLossless
from tqdm.auto import tqdm

from helpers.lesson.phantoms import traps
from helpers.lesson.phantoms.brain import brain
from helpers.lesson.phantoms.scanner import dicom_series, uid, write
from helpers.lesson.phantoms.sets import fresh_set
from helpers.lesson.phantoms.torso import torso
from helpers.volume import Volume

VERSION = 1


def messy_folder(data_dir: Path | str = "data", *, seed: int = 200) -> Path:
    """Write one folder that mixes what hospitals mix.

        IMAGES/          two CT series of two patients, shuffled together; one has a scout in it
                         and three files twice; with them a report, structures, an ECG, ...
        IMAGES/00000002/ an MR series whose rescale slope differs from slice to slice
        XR/              a radiograph, MONOCHROME1, without position
        ARCHIVE/...      a JPEG-LS and a JPEG 2000 series, in folders with long foreign names
        DICOMDIR, README.TXT, ...

    Args:
        data_dir: folder that holds all data sets.
        seed: of the patients.

    Returns:
        The folder to scan, `data_dir/messy_folder/disc`.
    """
    with fresh_set(data_dir, "messy_folder", VERSION, {"seed": seed}) as folder:
        if folder:
            _write_disc(folder / "disc", seed)
    return Path(data_dir) / "messy_folder" / "disc"


def _write_disc(disc: Path, seed: int) -> None:
    images, archive = disc / "IMAGES", disc / "ARCHIVE" / traps.UNICODE_FOLDER
    first, second = torso(seed, (40, 128, 154)), torso(seed + 1, (32, 128, 154))
    with tqdm(total=6, desc="messy_folder", unit="series") as bar:
        paths = dicom_series(first.volume, images, seed=seed, names="hex", trap="scout")
        for path in paths[5:8]:
            shutil.copy(path, path.with_name(f"{path.name} (1)"))
        bar.update()
        dicom_series(second.volume, images, seed=seed + 1, names="hex")
        bar.update()
        dicom_series(
            _thinned(brain(seed).volume), images / "00000002", modality="MR", seed=seed,
            orientation="sagittal", trap="per_slice_rescale",
        )  # fmt: skip
        bar.update()
        write(_radiograph(first.volume, seed), disc / "XR" / "00000001.dcm")
        bar.update()
        small = _thinned(first.volume)
        dicom_series(
            small, archive / "JPEG-LS", seed=seed + 2, orientation="coronal",
            transfer_syntax=JPEGLSLossless,
        )  # fmt: skip
        bar.update()
        dicom_series(
            small, archive / "JPEG 2000", seed=seed + 3, orientation="feet first",
            transfer_syntax=JPEG2000Lossless,
        )  # fmt: skip
        bar.update()
    traps.other_files(images)
    for name in ("DICOMDIR", "README.TXT"):
        (images / name).rename(disc / name)


def _thinned(volume: Volume) -> Volume:
    """Whole numbers, and every second voxel in each direction: a small series is enough here."""
    voxels = np.rint(volume.voxels[::2, ::2, ::2]).astype(np.int16)
    return Volume(voxels, np.multiply(volume.spacing, 2), volume.origin, volume.direction)


def _radiograph(volume: Volume, seed: int) -> Dataset:
    """A frontal radiograph of a torso: X-rays weakened along y, dark where little is left."""
    path_cm = volume.spacing[1] / 10
    weakened = (0.2 * (1 + volume.voxels.clip(-1000) / 1000)).sum(axis=1)[::-1] * path_cm
    square = np.repeat(weakened, round(volume.spacing[0] / volume.spacing[2]), axis=0)
    stored = np.rint(4095 * (1 - square / square.max())).astype("<u2")  # MONOCHROME1: 0 is white
    values = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": uid("radiograph", seed),
        "SeriesInstanceUID": uid("radiograph series", seed),
        "StudyInstanceUID": uid("study", seed),
        "PatientName": "PHANTOM^TORSO",
        "PatientID": f"PHANTOM-{seed:04d}",
        "StudyDate": "20200101",
        "Modality": "DX",
        "SeriesNumber": 9,
        "InstanceNumber": 1,
        "ImageType": ["DERIVED", "PRIMARY"],
        "BurnedInAnnotation": "NO",
        "ViewPosition": "AP",
        "ImagerPixelSpacing": [f"{volume.spacing[2]:g}"] * 2,
        "PhotometricInterpretation": "MONOCHROME1",
        "PresentationLUTShape": "INVERSE",
        "SamplesPerPixel": 1,
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": stored.tobytes(),
    }
    return traps.dataset(**values)
