"""Faults that DICOM folders really have, each put in on purpose, one at a time."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Sequence, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    ParametricMapStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

TRAPS = {
    # the stack
    "missing_slice": "one slice in the middle is not there",
    "uneven_spacing": "from the middle on, slices are 1.4 times as far apart",
    "gantry_tilt": "slices are shifted as by a gantry tilted by 15 degrees, and the tag says so",
    "gantry_tilt_untagged": "the same shift, without the tag",
    "gantry_tilt_lie": "the tag says 15 degrees, the positions say upright",
    "shifted_slice": "one slice lies 10 mm to the side of its neighbours",
    "duplicate_slice": "one file is there twice, byte by byte, under two names",
    "conflicting_duplicate": "one SOP Instance UID stands in two files with different pixels",
    "two_phases": "two different images at every position, in one series",
    "mixed_size": "one slice has fewer columns than the others",
    "scout": "a localizer of another size and orientation is filed in the series",
    "two_series": "two series share the folder",
    "no_position": "Image Position and Image Orientation are missing",
    # the values
    "monochrome1": "MONOCHROME1: stored values are subtracted from the largest that fits",
    "per_slice_rescale": "Rescale Slope differs from slice to slice, as in PET",
    "no_rescale": "Rescale Slope and Intercept are missing",
    "float_pixels": "32-bit Float Pixel Data that holds the unit itself",
    "palette": "PALETTE COLOR: pixels are indices of a colour table",
    "ybr": "YBR_FULL colour",
    # the file
    "truncated": "one file ends in the middle of its pixels",
    "short_pixels": "one file has half the pixels that its header announces",
    "terabytes": "one header claims frames of 65535 x 65535 pixels, 1000 of them",
    "no_preamble": "the 128 bytes before 'DICM', and the word itself, are missing",
    "multi_frame": "one enhanced file with a frame for each slice and full geometry",
    "multi_frame_plain": "one secondary capture file with many frames and no geometry",
    "big_endian": "Explicit VR Big Endian",
    "implicit_vr": "Implicit VR Little Endian",
    "deflated": "the data set is deflated",
    "rle": "RLE lossless",
    "jpeg_ls": "JPEG-LS lossless",
    "jpeg_2000": "JPEG 2000 lossless",
    "jpeg_lossless": "JPEG lossless, first-order prediction",
    "unknown_decoder": "a video transfer syntax that no decoder here reads",
    # the folder
    "not_images": "files of other kinds lie between the slices",
    "unicode_path": "the path has spaces, umlauts, Chinese and many characters",
}
TRANSFER_SYNTAXES = {
    "big_endian": ExplicitVRBigEndian,
    "implicit_vr": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg_ls": JPEGLSLossless,
    "jpeg_2000": JPEG2000Lossless,
    "jpeg_lossless": JPEGLosslessSV1,
}
UNICODE_FOLDER = Path("Übungsdaten, 2. Teil (größer)") / f"腹部CT{4 * ' ein sehr langer Name'}"
SIDEWAYS_MM = 10.0
TILT_DEGREES = 15.0


def edit_headers(
    trap: str | None, slices: list[Dataset], rng: np.random.Generator
) -> list[Dataset]:
    """Put a fault into slices that are not yet written.

    Args:
        trap: a key of `TRAPS`, or None.
        slices: datasets in the order of the stack, PixelData uncompressed and little endian.
        rng: picks the slice at fault.

    Returns:
        The datasets to write, slices of the stack first.
    """
    k = int(rng.integers(len(slices) // 3, 2 * len(slices) // 3 + 1)) if len(slices) > 2 else 0
    edit = HEADER_EDITS.get(trap)
    return edit(slices, k) if edit else slices


def edit_files(trap: str | None, paths: list[Path], rng: np.random.Generator) -> list[Path]:
    """Put a fault into files that are written; returns the paths of all files."""
    edit = FILE_EDITS.get(trap)
    return edit(paths, int(rng.integers(len(paths)))) if edit else paths


def _missing_slice(slices, k):
    return slices[:k] + slices[k + 1 :]


def _uneven_spacing(slices, k):
    step = _position(slices[1]) - _position(slices[0])
    for extra, header in enumerate(slices[k:], start=1):
        _move(header, 0.4 * extra * step)
    return slices


def _gantry_tilt(slices, k):
    _gantry_tilt_untagged(slices, k)
    return _gantry_tilt_lie(slices, k)


def _gantry_tilt_untagged(slices, _):
    step = _position(slices[1]) - _position(slices[0])
    slope = np.tan(np.radians(TILT_DEGREES)) * np.linalg.norm(step)
    for k, header in enumerate(slices):
        _move(header, k * slope * np.asarray(header.ImageOrientationPatient[3:], float))
    return slices


def _gantry_tilt_lie(slices, _):
    for header in slices:
        header.GantryDetectorTilt = TILT_DEGREES
    return slices


def _shifted_slice(slices, k):
    _move(slices[k], SIDEWAYS_MM * np.asarray(slices[k].ImageOrientationPatient[:3], float))
    return slices


def _conflicting_duplicate(slices, k):
    other = copy.deepcopy(slices[k])
    _set_pixels(other, _pixels(other)[::-1])
    return [*slices, other]


def _two_phases(slices, _):
    later = copy.deepcopy(slices)
    for header in later:
        header.SOPInstanceUID = _derived_uid(header.SOPInstanceUID, "later")
        header.AcquisitionNumber = 2
        header.InstanceNumber += len(slices)
        _set_pixels(header, _pixels(header) // 2)
    return slices + later


def _mixed_size(slices, k):
    pixels = _pixels(slices[k])
    slices[k].Columns = pixels.shape[1] - 8
    _set_pixels(slices[k], pixels[:, :-8])
    return slices


def _scout(slices, k):
    """The stack's mean along image columns: a projection, as a localizer is."""
    shadow = np.stack([_pixels(header).mean(axis=0) for header in slices])[::-1]
    scout = copy.deepcopy(slices[-1])  # the top slice's corner is the localizer's corner
    row, column = np.reshape(np.asarray(scout.ImageOrientationPatient, float), (2, 3))
    spacing = np.linalg.norm(_position(slices[1]) - _position(slices[0]))
    scout.SOPInstanceUID = _derived_uid(scout.SOPInstanceUID, "scout")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.InstanceNumber = len(slices) + 1
    scout.ImageOrientationPatient = [_short(v) for v in (*row, *-np.cross(row, column))]
    scout.PixelSpacing = [_short(spacing), scout.PixelSpacing[1]]
    scout.Rows, scout.Columns = shadow.shape
    del scout.SliceLocation
    _set_pixels(scout, shadow)
    return [*slices, scout]


def _two_series(slices, _):
    second = copy.deepcopy(slices[::2])
    for number, header in enumerate(second, start=1):
        header.SOPInstanceUID = _derived_uid(header.SOPInstanceUID, "second")
        header.SeriesInstanceUID = _derived_uid(header.SeriesInstanceUID, "second")
        header.SeriesNumber += 1
        header.SeriesDescription += " second"
        header.InstanceNumber = number
    return slices + second


def _no_position(slices, _):
    return _without(slices, "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation")


def _no_rescale(slices, _):
    return _without(slices, "RescaleSlope", "RescaleIntercept", "RescaleType")


def _monochrome1(slices, _):
    for header in slices:
        # Of unsigned values the largest is all bits set; of signed ones the mirror of v is -1 - v.
        top = 2**header.BitsStored - 1 if header.PixelRepresentation == 0 else -1
        header.PhotometricInterpretation = "MONOCHROME1"
        _set_pixels(header, top - _pixels(header).astype(np.int32))
    return slices


def _per_slice_rescale(slices, _):
    for k, header in enumerate(slices):
        slope = float(header.get("RescaleSlope", 1)) * (1 + 0.25 * (k % 4))
        stored = np.rint(_pixels(header) * float(header.get("RescaleSlope", 1)) / slope)
        header.RescaleSlope = _short(slope)
        header.RescaleIntercept = header.get("RescaleIntercept", 0)
        _set_pixels(header, stored)
    return slices


def _float_pixels(slices, _):
    for header in slices:
        slope, intercept = header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
        values = _pixels(header) * float(slope) + float(intercept)
        header.SOPClassUID = ParametricMapStorage
        header.BitsAllocated = 32
        header.FloatPixelData = values.astype("<f4").tobytes()
    return _without(
        slices, "PixelData", "BitsStored", "HighBit", "PixelRepresentation",
        "RescaleSlope", "RescaleIntercept", "RescaleType",
    )  # fmt: skip


def _palette(slices, _):
    ramp = np.arange(256)
    tables = {"Red": ramp, "Green": ramp // 2, "Blue": 255 - ramp}
    for header in slices:
        _eight_bit(header, "PALETTE COLOR")
        for colour, table in tables.items():
            setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            data = (table * 257).astype("<u2").tobytes()
            setattr(header, f"{colour}PaletteColorLookupTableData", data)
    return slices


def _ybr(slices, _):
    for header in slices:
        grey = _eight_bit(header, "YBR_FULL")
        header.SamplesPerPixel = 3
        header.PlanarConfiguration = 0
        colour = np.stack([grey, np.full_like(grey, 112), np.full_like(grey, 144)], axis=-1)
        _set_pixels(header, colour)
    return slices


def _short_pixels(slices, k):
    slices[k].PixelData = slices[k].PixelData[: len(slices[k].PixelData) // 4 * 2]
    return slices


def _terabytes(slices, k):
    slices[k].Rows = slices[k].Columns = 65535
    slices[k].NumberOfFrames = 1000
    return slices


def _multi_frame(slices, _):
    """Enhanced CT: geometry stands in functional groups (DICOM PS3.3 C.7.6.16)."""
    whole = _frames_in_one(slices, EnhancedCTImageStorage)
    first = slices[0]
    shared, per_frame = Dataset(), []
    shared.PlaneOrientationSequence = _group(first, "ImageOrientationPatient")
    shared.PixelMeasuresSequence = _group(first, "PixelSpacing", "SliceThickness")
    shared.PixelValueTransformationSequence = _group(
        first, "RescaleIntercept", "RescaleSlope", "RescaleType"
    )
    for k, header in enumerate(slices, start=1):
        frame, content = Dataset(), Dataset()
        content.StackID, content.InStackPositionNumber = "1", k
        content.DimensionIndexValues = [1, k]
        frame.FrameContentSequence = Sequence([content])
        frame.PlanePositionSequence = _group(header, "ImagePositionPatient")
        per_frame.append(frame)
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    whole.PerFrameFunctionalGroupsSequence = Sequence(per_frame)
    return [whole]


def _multi_frame_plain(slices, _):
    return [_frames_in_one(slices, MultiFrameGrayscaleWordSecondaryCaptureImageStorage)]


def _unknown_decoder(slices, _):
    for header in slices:
        header.file_meta.TransferSyntaxUID = MPEG4HP41
        header.PixelData = encapsulate([b"\x00\x00\x01\xba" + bytes(60)])
        header["PixelData"].is_undefined_length = True
        header["PixelData"].VR = "OB"
    return slices


def _duplicate_slice(paths, k):
    return [*paths, Path(shutil.copy(paths[k], paths[k].with_name(f"copy of {paths[k].name}")))]


def _truncated(paths, k):
    whole = paths[k].read_bytes()
    paths[k].write_bytes(whole[: len(whole) - len(whole) // 3])
    return paths


def _no_preamble(paths, _):
    for path in paths:
        path.write_bytes(path.read_bytes()[132:])
    return paths


def _not_images(paths, _):
    return paths + other_files(paths[0].parent)


def other_files(folder: Path) -> list[Path]:
    """Write what lies between images on real discs, in and out of DICOM; returns the paths."""
    contents = {
        ".DS_Store": b"\x00\x00\x00\x01Bud1" + bytes(120),
        "README.TXT": b"This disc holds a phantom.\r\n",
        "empty.dcm": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    dicom = {
        "DICOMDIR": ("1.2.840.10008.1.3.10", {}),
        "report.dcm": (
            "1.2.840.10008.5.1.4.1.1.88.11",
            {"Modality": "SR", "ValueType": "CONTAINER"},
        ),
        "structures.dcm": (
            "1.2.840.10008.5.1.4.1.1.481.3",
            {"Modality": "RTSTRUCT", "StructureSetLabel": "PHANTOM"},
        ),
        "ecg.dcm": ("1.2.840.10008.5.1.4.1.1.9.1.1", {"Modality": "ECG"}),
    }
    for name, (sop_class, values) in dicom.items():
        header = Dataset()
        header.SOPClassUID = sop_class
        header.SOPInstanceUID = generate_uid(entropy_srcs=["other", name])
        header.SeriesInstanceUID = generate_uid(entropy_srcs=["other series", name])
        header.StudyInstanceUID = generate_uid(entropy_srcs=["other", "study"])
        header.PatientName, header.PatientID = "PHANTOM^TORSO", "PHANTOM-0000"
        for keyword, value in values.items():
            setattr(header, keyword, value)
        if name == "DICOMDIR":
            header.FileSetID, header.DirectoryRecordSequence = "PHANTOM", Sequence([])
        if name == "ecg.dcm":
            header.WaveformSequence = Sequence([_waveform()])
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dcmwrite(folder / name, header, enforce_file_format=True)
    return [folder / name for name in (*contents, *dicom)]


def _waveform() -> Dataset:
    lead = Dataset()
    lead.NumberOfWaveformChannels, lead.NumberOfWaveformSamples = 1, 500
    lead.SamplingFrequency = 500
    lead.WaveformBitsAllocated, lead.WaveformSampleInterpretation = 16, "SS"
    beat = 900 * np.exp(-(((np.arange(500) % 250 - 120) / 6.0) ** 2))
    lead.WaveformData = beat.astype("<i2").tobytes()
    return lead


def _position(header: Dataset) -> np.ndarray:
    return np.asarray(header.ImagePositionPatient, float)


def _move(header: Dataset, by_mm: np.ndarray) -> None:
    row, column = np.reshape(np.asarray(header.ImageOrientationPatient, float), (2, 3))
    position = _position(header) + by_mm
    header.ImagePositionPatient = [_short(v) for v in position]
    header.SliceLocation = _short(position @ np.cross(row, column))


def _short(value: float) -> str:
    return f"{float(value) + 0.0:.10g}"  # fits the 16 characters of a decimal string


def _pixels(header: Dataset) -> np.ndarray:
    dtype = "<i2" if header.PixelRepresentation else "<u2"
    return np.frombuffer(header.PixelData, dtype).reshape(header.Rows, header.Columns)


def _set_pixels(header: Dataset, pixels: np.ndarray) -> None:
    eight_bit = header.BitsAllocated == 8
    dtype = "u1" if eight_bit else "<i2" if header.PixelRepresentation else "<u2"
    header.PixelData = np.ascontiguousarray(pixels.astype(dtype)).tobytes()


def _eight_bit(header: Dataset, photometric: str) -> np.ndarray:
    """Turn a slice into 8-bit grey by its own range, as a screen shot; returns the pixels."""
    pixels = _pixels(header).astype(np.float32)
    grey = ((pixels - pixels.min()) * (255 / max(float(np.ptp(pixels)), 1.0))).astype(np.uint8)
    header.SOPClassUID = SecondaryCaptureImageStorage
    header.PhotometricInterpretation = photometric
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    _without([header], "RescaleSlope", "RescaleIntercept", "RescaleType")
    _set_pixels(header, grey)
    return grey


def _frames_in_one(slices: list[Dataset], sop_class: str) -> Dataset:
    whole = copy.deepcopy(slices[0])
    whole.SOPClassUID = sop_class
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(header.PixelData for header in slices)
    return _without(
        [whole], "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
        "SliceThickness", "SliceLocation", "RescaleSlope", "RescaleIntercept", "RescaleType",
    )[0]  # fmt: skip


def _group(header: Dataset, *keywords: str) -> Sequence:
    item = Dataset()
    for keyword in keywords:
        if keyword in header:
            setattr(item, keyword, header[keyword].value)
    return Sequence([item])


def _without(slices: list[Dataset], *keywords: str) -> list[Dataset]:
    for header in slices:
        for keyword in keywords:
            if keyword in header:
                delattr(header, keyword)
    return slices


def _derived_uid(uid: str, why: str) -> str:
    return generate_uid(entropy_srcs=[str(uid), why])


Edit = Callable[[list, int], list]
HEADER_EDITS: dict[str, Edit] = {
    "missing_slice": _missing_slice,
    "uneven_spacing": _uneven_spacing,
    "gantry_tilt": _gantry_tilt,
    "gantry_tilt_untagged": _gantry_tilt_untagged,
    "gantry_tilt_lie": _gantry_tilt_lie,
    "shifted_slice": _shifted_slice,
    "conflicting_duplicate": _conflicting_duplicate,
    "two_phases": _two_phases,
    "mixed_size": _mixed_size,
    "scout": _scout,
    "two_series": _two_series,
    "no_position": _no_position,
    "monochrome1": _monochrome1,
    "per_slice_rescale": _per_slice_rescale,
    "no_rescale": _no_rescale,
    "float_pixels": _float_pixels,
    "palette": _palette,
    "ybr": _ybr,
    "short_pixels": _short_pixels,
    "terabytes": _terabytes,
    "multi_frame": _multi_frame,
    "multi_frame_plain": _multi_frame_plain,
    "unknown_decoder": _unknown_decoder,
}
FILE_EDITS: dict[str, Edit] = {
    "duplicate_slice": _duplicate_slice,
    "truncated": _truncated,
    "no_preamble": _no_preamble,
    "not_images": _not_images,
}
