"""Faults that DICOM folders really have, each put in on purpose, one at a time.

A trap is a function whose name, without the underscore, is the trap's; what is wrong stands above
it. `TRAPS` names all of them.
"""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Sequence, dcmwrite, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

TRAPS: dict[str, str] = {}  # name: what is wrong
HEADER_EDITS: dict[str, Callable] = {}  # before writing: slices, number of the one at fault
FILE_EDITS: dict[str, Callable] = {}  # after writing: paths, number of the one at fault
TRANSFER_SYNTAXES = {
    "big_endian": uid.ExplicitVRBigEndian,
    "implicit_vr": uid.ImplicitVRLittleEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg_ls": uid.JPEGLSLossless,
    "jpeg_2000": uid.JPEG2000Lossless,
    "jpeg_lossless": uid.JPEGLosslessSV1,
}
UNICODE_FOLDER = Path("Übungsdaten, 2. Teil (größer)") / f"腹部CT{4 * ' ein sehr langer Name'}"
SIDEWAYS_MM = 10.0
TILT_DEGREES = 15.0
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation")
RESCALE = ("RescaleSlope", "RescaleIntercept", "RescaleType")


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
    return HEADER_EDITS[trap](slices, k) if trap in HEADER_EDITS else slices


def edit_files(trap: str | None, paths: list[Path], rng: np.random.Generator) -> list[Path]:
    """Put a fault into files that are written; returns the paths of all files."""
    return FILE_EDITS[trap](paths, int(rng.integers(len(paths)))) if trap in FILE_EDITS else paths


def dataset(**elements: object) -> Dataset:
    """A data set of some elements, by keyword, with an empty file meta."""
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    made.file_meta = FileMetaDataset()
    return made


def _series(what: str, table: dict = HEADER_EDITS) -> Callable:
    """Enter a function of all slices and the number of one, which returns what is written."""

    def enter(edit: Callable) -> Callable:
        name = edit.__name__.removeprefix("_")
        TRAPS[name], table[name] = what, edit
        return edit

    return enter


def _files(what: str) -> Callable:
    """Enter a function of all paths and the number of one."""
    return _series(what, FILE_EDITS)


def _slices(what: str, all_of_them: bool = True) -> Callable:
    """Enter a function that changes one header, of each slice or of the one at fault."""

    def enter(edit: Callable) -> Callable:
        def change(slices: list[Dataset], k: int) -> list[Dataset]:
            for header in slices if all_of_them else [slices[k]]:
                edit(header)
            return slices

        change.__name__ = edit.__name__
        _series(what)(change)
        return edit

    return enter


def _one(what: str) -> Callable:
    return _slices(what, all_of_them=False)


# The stack


@_series("one slice in the middle is not there")
def _missing_slice(slices, k):
    return slices[:k] + slices[k + 1 :]


@_series("from the middle on, slices are 1.4 times as far apart")
def _uneven_spacing(slices, k):
    step = _position(slices[1]) - _position(slices[0])
    for extra, header in enumerate(slices[k:], start=1):
        _move(header, 0.4 * extra * step)
    return slices


@_slices("the tag says 15 degrees, the positions say upright")
def _gantry_tilt_lie(header):
    header.GantryDetectorTilt = TILT_DEGREES


@_series("slices are shifted as by a gantry tilted by 15 degrees, without the tag")
def _gantry_tilt_untagged(slices, _):
    step = _position(slices[1]) - _position(slices[0])
    slope = np.tan(np.radians(TILT_DEGREES)) * np.linalg.norm(step)
    for k, header in enumerate(slices):
        _move(header, k * slope * _directions(header)[1])
    return slices


@_series("the same shift, and the tag says so")
def _gantry_tilt(slices, k):
    return HEADER_EDITS["gantry_tilt_lie"](_gantry_tilt_untagged(slices, k), k)


@_one("one slice lies 10 mm to the side of its neighbours")
def _shifted_slice(header):
    _move(header, SIDEWAYS_MM * _directions(header)[0])


@_files("one file is there twice, byte by byte, under two names")
def _duplicate_slice(paths, k):
    return [*paths, Path(shutil.copy(paths[k], paths[k].with_name(f"copy of {paths[k].name}")))]


@_series("one SOP Instance UID stands in two files with different pixels")
def _conflicting_duplicate(slices, k):
    other = copy.deepcopy(slices[k])
    _set_pixels(other, _pixels(other)[::-1])
    return [*slices, other]


@_series("two different images at every position, in one series")
def _two_phases(slices, _):
    later = copy.deepcopy(slices)
    for header in later:
        _rename(header, "later", "SOPInstanceUID")
        header.AcquisitionNumber = 2
        header.InstanceNumber += len(slices)
        _set_pixels(header, _pixels(header) // 2)
    return slices + later


@_series("every second slice is of another acquisition, in one series")
def _interleaved(slices, _):
    for header in slices[1::2]:
        header.AcquisitionNumber = 2
        _set_pixels(header, _pixels(header) // 2)
    return slices


@_one("one slice has fewer columns than the others")
def _mixed_size(header):
    pixels = _pixels(header)[:, :-8]
    header.Columns = pixels.shape[1]
    _set_pixels(header, pixels)


@_series("a localizer of another size and orientation is filed in the series")
def _scout(slices, _):
    # The stack's mean along image columns: a projection, as a localizer is.
    shadow = np.stack([_pixels(header).mean(axis=0) for header in slices])[::-1]
    scout = copy.deepcopy(slices[-1])  # the top slice's corner is the localizer's corner
    row, column = _directions(scout)
    spacing = np.linalg.norm(_position(slices[1]) - _position(slices[0]))
    _rename(scout, "scout", "SOPInstanceUID")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.InstanceNumber = len(slices) + 1
    scout.ImageOrientationPatient = [_short(v) for v in (*row, *-np.cross(row, column))]
    scout.PixelSpacing = [_short(spacing), scout.PixelSpacing[1]]
    scout.Rows, scout.Columns = shadow.shape
    del scout.SliceLocation
    _set_pixels(scout, shadow)
    return [*slices, scout]


@_series("two series share the folder")
def _two_series(slices, _):
    second = copy.deepcopy(slices[::2])
    for number, header in enumerate(second, start=1):
        _rename(header, "second", "SOPInstanceUID", "SeriesInstanceUID")
        header.SeriesNumber += 1
        header.SeriesDescription += " second"
        header.InstanceNumber = number
    return slices + second


@_slices("Image Position and Image Orientation are missing")
def _no_position(header):
    _without(header, *PLACE)


# The values


@_slices("MONOCHROME1: stored values are subtracted from the largest that fits")
def _monochrome1(header):
    # Of unsigned values the largest is all bits set; of signed ones the mirror of v is -1 - v.
    top = 2**header.BitsStored - 1 if header.PixelRepresentation == 0 else -1
    header.PhotometricInterpretation = "MONOCHROME1"
    _set_pixels(header, top - _pixels(header).astype(np.int32))


@_series("Rescale Slope differs from slice to slice, as in PET")
def _per_slice_rescale(slices, _):
    for k, header in enumerate(slices):
        given = float(header.get("RescaleSlope", 1))
        slope = given * (1 + 0.25 * (k % 4))
        header.RescaleSlope = _short(slope)
        header.RescaleIntercept = header.get("RescaleIntercept", 0)
        _set_pixels(header, np.rint(_pixels(header) * given / slope))
    return slices


@_slices("Rescale Slope and Intercept are missing")
def _no_rescale(header):
    _without(header, *RESCALE)


@_slices("32-bit Float Pixel Data that holds the unit itself")
def _float_pixels(header):
    slope, intercept = header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
    values = _pixels(header) * float(slope) + float(intercept)
    header.SOPClassUID = uid.ParametricMapStorage
    header.BitsAllocated = 32
    header.FloatPixelData = values.astype("<f4").tobytes()
    _without(header, "PixelData", "BitsStored", "HighBit", "PixelRepresentation", *RESCALE)


@_slices("PALETTE COLOR: pixels are indices of a colour table")
def _palette(header):
    ramp = np.arange(256)
    _eight_bit(header, "PALETTE COLOR")
    for colour, table in {"Red": ramp, "Green": ramp // 2, "Blue": 255 - ramp}.items():
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        data = (table * 257).astype("<u2").tobytes()
        setattr(header, f"{colour}PaletteColorLookupTableData", data)


@_slices("YBR_FULL colour")
def _ybr(header):
    grey = _eight_bit(header, "YBR_FULL")
    _in_colour(header, grey, np.full_like(grey, 112), np.full_like(grey, 144))


# The file


@_files("one file ends in the middle of its pixels")
def _truncated(paths, k):
    whole = paths[k].read_bytes()
    paths[k].write_bytes(whole[: len(whole) - len(whole) // 3])
    return paths


@_one("one file has half the pixels that its header announces")
def _short_pixels(header):
    header.PixelData = header.PixelData[: len(header.PixelData) // 4 * 2]


@_one("one header claims frames of 65535 x 65535 pixels, 1000 of them")
def _terabytes(header):
    header.Rows = header.Columns = 65535
    header.NumberOfFrames = 1000


@_files("the 128 bytes before 'DICM', and the word itself, are missing")
def _no_preamble(paths, _):
    for path in paths:
        path.write_bytes(path.read_bytes()[132:])
    return paths


@_series("one enhanced file with a frame for each slice and full geometry")
def _multi_frame(slices, _):
    # Geometry stands in functional groups (DICOM PS3.3 C.7.6.16).
    shared, per_frame = Dataset(), []
    shared.PlaneOrientationSequence = _group(slices[0], "ImageOrientationPatient")
    shared.PixelMeasuresSequence = _group(slices[0], "PixelSpacing", "SliceThickness")
    shared.PixelValueTransformationSequence = _group(slices[0], *RESCALE)
    for k, header in enumerate(slices, start=1):
        content = dataset(StackID="1", InStackPositionNumber=k, DimensionIndexValues=[1, k])
        position = _group(header, "ImagePositionPatient")
        groups = {"FrameContentSequence": Sequence([content]), "PlanePositionSequence": position}
        per_frame.append(dataset(**groups))
    whole = _frames_in_one(slices, uid.EnhancedCTImageStorage)
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    whole.PerFrameFunctionalGroupsSequence = Sequence(per_frame)
    return [whole]


@_series("one secondary capture file with many frames and no geometry")
def _multi_frame_plain(slices, _):
    return [_frames_in_one(slices, uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage)]


@_series("one MR picture with all slices side by side, as Siemens writes functional MR")
def _mosaic(slices, _):
    whole, across = slices[0], int(np.ceil(np.sqrt(len(slices))))
    tiles = np.zeros((across, across, whole.Rows, whole.Columns), np.int32)
    for k, header in enumerate(slices):
        tiles[k // across, k % across] = _pixels(header)
    whole.SOPClassUID, whole.Modality = uid.MRImageStorage, "MR"
    whole.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    whole.AcquisitionMatrix = [whole.Rows, 0, 0, whole.Columns]
    siemens = whole.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    siemens.add_new(0x0A, "US", len(slices))
    whole.Rows, whole.Columns = whole.Rows * across, whole.Columns * across
    _set_pixels(whole, tiles.swapaxes(1, 2).reshape(whole.Rows, whole.Columns))
    return [whole]


@_slices("a video transfer syntax that no decoder here reads")
def _unknown_decoder(header):
    header.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    header.PixelData = encapsulate([b"\x00\x00\x01\xba" + bytes(60)])
    header["PixelData"].is_undefined_length = True
    header["PixelData"].VR = "OB"


TRAPS |= {
    "big_endian": "Explicit VR Big Endian",
    "implicit_vr": "Implicit VR Little Endian",
    "deflated": "the data set is deflated",
    "rle": "RLE lossless",
    "jpeg_ls": "JPEG-LS lossless",
    "jpeg_2000": "JPEG 2000 lossless",
    "jpeg_lossless": "JPEG lossless, first-order prediction",
    "unicode_path": "the path has spaces, umlauts, Chinese and many characters",
}

# The folder


@_series("a radiotherapy dose grid lies beside the slices")
def _rt_dose(slices, _):
    dose = _frames_in_one(copy.deepcopy(slices), uid.RTDoseStorage, keep=PLACE[:2])
    _rename(dose, "dose", "SOPInstanceUID", "SeriesInstanceUID")
    step = float(np.linalg.norm(_position(slices[1]) - _position(slices[0])))
    dose.Modality, dose.DoseUnits, dose.DoseType = "RTDOSE", "GY", "PHYSICAL"
    dose.DoseSummationType, dose.DoseGridScaling = "PLAN", "0.001"
    dose.PixelSpacing = slices[0].PixelSpacing
    dose.FrameIncrementPointer = 0x3004000C  # the next line's element
    dose.GridFrameOffsetVector = [_short(k * step) for k in range(len(slices))]
    return [*slices, dose]


@_series("a file of another modality, without pixels and series UID, lies between")
def _stray(slices, k):
    stray = copy.deepcopy(slices[k])
    _rename(stray, "stray", "SOPInstanceUID", "StudyInstanceUID")
    stray.SOPClassUID, stray.Modality = uid.UltrasoundImageStorage, "US"
    _without(stray, "SeriesInstanceUID", "PixelData", *PLACE, *RESCALE)
    return [*slices, stray]


@_series("a screen shot in colour is filed in the series")
def _capture(slices, k):
    shot = copy.deepcopy(slices[k])
    _rename(shot, "capture", "SOPInstanceUID")
    shot.ImageType, shot.ConversionType = ["DERIVED", "SECONDARY"], "WSD"
    grey = _eight_bit(shot, "RGB")
    _in_colour(shot, grey, grey, 255 - grey)
    _without(shot, *PLACE)
    return [*slices, shot]


@_files("files of other kinds lie between the slices")
def _not_images(paths, _):
    return paths + other_files(paths[0].parent)


def other_files(folder: Path) -> list[Path]:
    """Write what lies between images on real discs, in and out of DICOM; returns the paths."""
    beat = 900 * np.exp(-(((np.arange(500) % 250 - 120) / 6.0) ** 2))
    lead = dataset(
        NumberOfWaveformChannels=1,
        NumberOfWaveformSamples=500,
        SamplingFrequency=500,
        WaveformBitsAllocated=16,
        WaveformSampleInterpretation="SS",
        WaveformData=beat.astype("<i2").tobytes(),
    )
    files = {
        ".DS_Store": b"\x00\x00\x00\x01Bud1" + bytes(120),
        "README.TXT": b"This disc holds a phantom.\r\n",
        "empty.dcm": b"",
        "DICOMDIR": dataset(
            SOPClassUID=uid.MediaStorageDirectoryStorage,
            FileSetID="PHANTOM",
            DirectoryRecordSequence=Sequence([]),
        ),
        "report.dcm": dataset(
            SOPClassUID=uid.BasicTextSRStorage, Modality="SR", ValueType="CONTAINER"
        ),
        "structures.dcm": dataset(
            SOPClassUID=uid.RTStructureSetStorage, Modality="RTSTRUCT", StructureSetLabel="PHANTOM"
        ),
        "ecg.dcm": dataset(
            SOPClassUID=uid.TwelveLeadECGWaveformStorage,
            Modality="ECG",
            WaveformSequence=Sequence([lead]),
        ),
    }
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
            continue
        content.SOPInstanceUID = uid.generate_uid(entropy_srcs=["other", name])
        content.SeriesInstanceUID = uid.generate_uid(entropy_srcs=["other series", name])
        content.StudyInstanceUID = uid.generate_uid(entropy_srcs=["other", "study"])
        content.PatientName, content.PatientID = "PHANTOM^TORSO", "PHANTOM-0000"
        content.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dcmwrite(folder / name, content, enforce_file_format=True)
    return [folder / name for name in files]


def _position(header):
    return np.asarray(header.ImagePositionPatient, float)


def _directions(header):
    """Unit vectors along a row and down a column."""
    return np.reshape(np.asarray(header.ImageOrientationPatient, float), (2, 3))


def _move(header, by_mm):
    position = _position(header) + by_mm
    header.ImagePositionPatient = [_short(v) for v in position]
    header.SliceLocation = _short(position @ np.cross(*_directions(header)))


def _short(value):
    return f"{float(value) + 0.0:.10g}"  # fits the 16 characters of a decimal string


def _pixels(header):
    dtype = "<i2" if header.PixelRepresentation else "<u2"
    return np.frombuffer(header.PixelData, dtype).reshape(header.Rows, header.Columns)


def _set_pixels(header, pixels):
    sixteen = "<i2" if header.PixelRepresentation else "<u2"
    dtype = "u1" if header.BitsAllocated == 8 else sixteen
    header.PixelData = np.ascontiguousarray(pixels.astype(dtype)).tobytes()


def _eight_bit(header, photometric):
    """Turn a slice into 8-bit grey by its own range, as a screen shot; returns the pixels."""
    pixels = _pixels(header).astype(np.float32)
    grey = ((pixels - pixels.min()) * (255 / max(float(np.ptp(pixels)), 1.0))).astype(np.uint8)
    header.SOPClassUID = uid.SecondaryCaptureImageStorage
    header.PhotometricInterpretation = photometric
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    _without(header, *RESCALE)
    _set_pixels(header, grey)
    return grey


def _in_colour(header, *channels):
    header.SamplesPerPixel, header.PlanarConfiguration = 3, 0
    _set_pixels(header, np.stack(channels, axis=-1))


def _frames_in_one(slices, sop_class, keep=()):
    whole = copy.deepcopy(slices[0])
    whole.SOPClassUID = sop_class
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(header.PixelData for header in slices)
    of_one = {"PixelSpacing", "SliceThickness", *PLACE, *RESCALE}
    _without(whole, *of_one.difference(keep))
    return whole


def _group(header, *keywords):
    return Sequence([dataset(**{k: header[k].value for k in keywords if k in header})])


def _without(header, *keywords):
    for keyword in keywords:
        if keyword in header:
            delattr(header, keyword)


def _rename(header, why, *keywords):
    """Give UIDs that follow from the old ones and the reason."""
    for keyword in keywords:
        setattr(header, keyword, uid.generate_uid(entropy_srcs=[str(header[keyword].value), why]))
