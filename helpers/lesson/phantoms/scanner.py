"""DICOM series as scanners write them: `dicom_series(volume, folder)`, with faults on request."""

import dataclasses
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from helpers.lesson.phantoms import traps
from helpers.lesson.phantoms.traps import TRAPS
from helpers.volume import Volume

# Where rows, columns and slices run: to the patient's left or right, to the back (posterior), to
# the head (superior) or the feet (inferior). Every line is a rotation, so slices advance along
# rows x columns.
ORIENTATIONS = {"axial": "LPS", "feet first": "RPI", "sagittal": "PIR", "coronal": "LIP"}
NAMES = ("shuffled", "hex", "ordered")
STORAGE = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}
MODALITY_TAGS = {
    "CT": {"KVP": 120, "ConvolutionKernel": "B30f", "XRayTubeCurrent": 180, "ExposureTime": 500},
    "MR": {
        "ScanningSequence": "GR",
        "SequenceVariant": "SP",
        "MRAcquisitionType": "3D",
        "RepetitionTime": 9.8,
        "EchoTime": 4.6,
        "FlipAngle": 8,
        "MagneticFieldStrength": 1.5,
    },
    "PT": {"Units": "BQML", "DecayCorrection": "START", "CorrectedImage": ["ATTN", "SCAT", "DECY"]},
}


def dicom_series(
    volume: Volume,
    folder: Path | str,
    *,
    modality: str = "CT",
    seed: int = 0,
    transfer_syntax: str = ExplicitVRLittleEndian,
    rescale: tuple[float, float] | None = None,
    orientation: str = "axial",
    names: str = "shuffled",
    trap: str | None = None,
) -> list[Path]:
    """Write a volume as one DICOM file a slice, in an order that the file names do not tell.

        paths = dicom_series(torso(0).volume, "data/example", trap="missing_slice")

    Args:
        volume: voxels `[z, y, x]` in the unit that reading is to give back (HU for CT).
        folder: where the files go; made if it is missing.
        modality: "CT", "MR" or "PT".
        seed: gives UIDs, file names and the order of the instance numbers.
        transfer_syntax: UID of the encoding, any of pydicom's native or lossless ones; JPEG 2000
            needs slices of at least 32 x 32 pixels.
        rescale: (slope, intercept) from stored values to the unit; None does as the modality
            does: (1, -1024) for CT, no such tags for MR and PT.
        orientation: a key of `ORIENTATIONS`; the files really are cut that way.
        names: "shuffled" (numbers without meaning), "hex" (nor an ending) or "ordered".
        trap: a key of `TRAPS`: one fault, put in on purpose.

    Returns:
        The paths of all files written, slices first, ordered along rows x columns.

    Raises:
        ValueError: for an unknown modality, orientation, kind of names or trap, and for values
            that do not fit 16 bits.
    """
    options = (modality, STORAGE), (orientation, ORIENTATIONS), (names, NAMES)
    for given, known in (*options, (trap, (None, *TRAPS))):
        if given not in known:
            raise ValueError(f"{given!r} is not one of {', '.join(map(str, known))}")
    rng = np.random.default_rng([seed, 3])
    if rescale is None and modality == "CT":
        rescale = (1.0, -1024.0)
    slices = _headers(oriented(volume, orientation), modality, orientation, seed, rescale)
    slices = traps.edit_headers(trap, slices, rng)
    transfer_syntax = traps.TRANSFER_SYNTAXES.get(trap, transfer_syntax)
    folder = Path(folder)
    if trap == "unicode_path":
        folder = folder / traps.UNICODE_FOLDER
    paths = [folder / name for name in _file_names(len(slices), names, rng)]
    for path, header in zip(paths, slices, strict=True):
        write(header, path, transfer_syntax)
    return traps.edit_files(trap, paths, rng)


def oriented(volume: Volume, orientation: str) -> Volume:
    """The same volume with the axes in the order in which a series of that orientation has them.

    Args:
        volume: any volume.
        orientation: a key of `ORIENTATIONS`.

    Returns:
        A `Volume` whose `voxels[k]` is slice k, slices advancing along rows x columns. Nothing is
        interpolated: every voxel stays at its place in the patient.
    """
    image = sitk.DICOMOrient(volume.to_sitk(), ORIENTATIONS[orientation])
    return dataclasses.replace(Volume.from_sitk(image), notes=volume.notes)


def write(header: Dataset, path: Path, transfer_syntax: str = ExplicitVRLittleEndian) -> None:
    """Write one slice whose PixelData is little endian and uncompressed, in any encoding."""
    syntax = UID(transfer_syntax)
    if "TransferSyntaxUID" in header.file_meta:  # a trap has encoded it already
        syntax = header.file_meta.TransferSyntaxUID
    elif syntax == JPEGLosslessSV1:
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    elif syntax.is_compressed and not syntax.is_deflated:
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.compress(syntax, generate_instance_uid=False)
    else:
        header.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian and header.BitsAllocated == 16:
            header.PixelData = np.frombuffer(header.PixelData, "<u2").astype(">u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, header, enforce_file_format=True)
    if syntax == JPEGLosslessSV1 and header.file_meta.TransferSyntaxUID != syntax:
        _jpeg_lossless(path)


def _jpeg_lossless(path: Path) -> None:
    """Recode a file in place with GDCM: pydicom decodes JPEG lossless but cannot write it."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    writer = gdcm.ImageWriter()
    if reader.Read():
        change.SetInput(reader.GetImage())
        if change.Change():
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            writer.SetFileName(str(path))
            if writer.Write():
                return
    raise ValueError(f"GDCM could not write {path} as JPEG lossless")


def _headers(
    volume: Volume, modality: str, orientation: str, seed: int, rescale: tuple | None
) -> list[Dataset]:
    """One dataset a slice, pixels stored as whole numbers of 16 bits."""
    slope, intercept = rescale or (1.0, 0.0)
    stored = np.rint((volume.voxels - np.float64(intercept)) / slope)
    low, high = stored.min(), stored.max()
    if not (low >= -32768 and high <= (65535 if low >= 0 else 32767)):  # so that NaN is caught
        raise ValueError(f"stored values from {low:g} to {high:g} do not fit 16 bits")
    stored = np.ascontiguousarray(stored.astype("<u2" if low >= 0 else "<i2"))
    row, column = volume.direction[:, 0], volume.direction[:, 1]
    n = len(stored)
    # Upwards, downwards, or every second slice first.
    orders = (np.arange(n), np.arange(n)[::-1], np.argsort(np.r_[:n:2, 1:n:2]))
    numbers = orders[seed % 3] + 1
    shared = {
        "SOPClassUID": STORAGE[modality],
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"],
        "Modality": modality,
        "StudyDate": "20200101",
        "SeriesDate": "20200101",
        "StudyTime": "120000",
        "AccessionNumber": "",
        "Manufacturer": "",
        "ReferringPhysicianName": "",
        "SeriesDescription": f"Phantom {modality}",
        "PatientName": "PHANTOM^TORSO" if modality == "CT" else "PHANTOM",
        "PatientID": f"PHANTOM-{seed:04d}",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "StudyID": "1",
        "SeriesNumber": 1 + seed % 7,
        "AcquisitionNumber": 1,
        "PatientPosition": "FFS" if row[0] < -0.5 else "HFS",
        "StudyInstanceUID": uid("study", seed),
        "SeriesInstanceUID": uid("series", seed, modality, orientation),
        "FrameOfReferenceUID": uid("frame", seed),
        "PositionReferenceIndicator": "",
        "ImageOrientationPatient": [_decimal(v) for v in (*row, *column)],
        "PixelSpacing": [_decimal(volume.spacing[1]), _decimal(volume.spacing[2])],
        "SliceThickness": _decimal(volume.spacing[0]),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[1],
        "Columns": stored.shape[2],
        "BitsAllocated": 16,
        "BitsStored": 12 if low >= 0 and high < 4096 else 16,
        "HighBit": 11 if low >= 0 and high < 4096 else 15,
        "PixelRepresentation": int(low < 0),
        **MODALITY_TAGS[modality],
    }
    if modality == "CT":
        shared |= {"WindowCenter": 40, "WindowWidth": 400, "RescaleType": "HU"}
    if rescale:
        shared |= {"RescaleSlope": _decimal(slope), "RescaleIntercept": _decimal(intercept)}
    normal = np.cross(row, column)
    positions = [volume.to_patient((k, 0, 0)) for k in range(len(stored))]
    return [
        traps.dataset(
            **shared,
            SOPInstanceUID=uid("slice", seed, modality, orientation, k),
            InstanceNumber=int(numbers[k]),
            ImagePositionPatient=[_decimal(v) for v in position],
            SliceLocation=_decimal(float(position @ normal)),
            PixelData=stored[k].tobytes(),
        )
        for k, position in enumerate(positions)
    ]


def uid(*what: object) -> UID:
    """The same UID for the same things, so that a series is the same on every machine."""
    return generate_uid(entropy_srcs=["phantom", *map(str, what)])


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters (DICOM PS3.5, value representation DS)."""
    value = float(value) + 0.0  # no minus zero
    return next(t for digits in range(15, 5, -1) if len(t := f"{value:.{digits}g}") <= 16)


def _file_names(n: int, names: str, rng: np.random.Generator) -> list[str]:
    if names == "ordered":
        return [f"slice_{k:04d}.dcm" for k in range(n)]
    if names == "hex":
        return [f"{code:08x}" for code in rng.choice(2**32, n, replace=False)]
    return [f"IM{number:06d}.dcm" for number in rng.choice(999_999, n, replace=False)]
