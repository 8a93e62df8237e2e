"""What a file says of itself is what pydicom finds in it, and what it is decides first."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence

from helpers import dicom
from helpers.dicom import header
from helpers.errors import CODES
from tests.dicom_files import code, each, image, save, voxels, write, write_enhanced

ROOT = Path(pydicom.data.__file__).parent

KEYWORDS = {
    "sop_uid": "SOPInstanceUID", "series_uid": "SeriesInstanceUID", "modality": "Modality",
    "rows": "Rows", "columns": "Columns", "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored", "slope": "RescaleSlope", "intercept": "RescaleIntercept",
    "position": "ImagePositionPatient", "orientation": "ImageOrientationPatient",
    "pixel_spacing": "PixelSpacing", "thickness": "SliceThickness", "patient": "PatientID",
    "study_uid": "StudyInstanceUID", "acquisition": "AcquisitionNumber",
    "photometric_interpretation": "PhotometricInterpretation", "burned_in": "BurnedInAnnotation",
    "pixel_representation": "PixelRepresentation", "samples_per_pixel": "SamplesPerPixel",
}  # fmt: skip


def only_code(folder: Path, **options) -> str:
    """Why the one file that is rejected is, or nothing."""
    rejected = dicom.scan(folder, **options).rejected
    assert len(rejected) < 2 and all(one.code in CODES for one in rejected)
    return rejected[0].code if rejected else ""


def test_every_field_is_what_pydicom_finds_in_each_file_of_its_tree():
    failed, compared = [], 0
    for path in sorted(ROOT.rglob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            if "Rows" not in dataset or "PixelData" not in dataset:
                continue
            theirs = {name: dataset.get(keyword) for name, keyword in KEYWORDS.items()}
            pixels = dataset.PixelData
        ours = header.read_header(path, force=True)
        for name, expected in theirs.items():
            found = getattr(ours, name)
            if expected is None or expected == "":
                same = found in (None, "")
            elif isinstance(found, str):
                same = np.ravel(found.split("\\")).tolist() == [str(expected)]
            else:
                same = np.array_equal(found, np.asarray(expected, float).squeeze())
            failed += [] if same else [(path.name, name, found, expected)]
        data = path.read_bytes()[ours.pixel_offset :][: len(pixels)]
        if not uid.UID(ours.transfer_syntax).is_deflated:
            # Compressed pixels start with an item; pydicom leaves out the end of the sequence.
            failed += [] if data[:64] == pixels[:64] else [(path.name, "offset")]
        compared += 1
    assert compared > 70 and not failed, failed


def test_a_header_may_be_long_and_hold_sequences_of_any_length_and_depth(tmp_path):
    def check(row, folder):
        kilobytes, tag, syntax = row
        dataset = image(voxels((4, 5)), IconImageSequence=[image(np.full((2, 2), 9, np.uint8))])
        dataset.add_new((tag & 0xFFFF0000) | 0x10, "LO", "MAKER")
        inner = Dataset()
        inner.add_new(0x00081140, "SQ", Sequence([Dataset()]))
        inner.add_new(0x00281052, "DS", "99")  # a rescale that is not the image's
        sequence = Sequence([inner, inner])
        dataset.add_new(0x00081115, "SQ", sequence)
        dataset[0x00081115].is_undefined_length = True
        for item in sequence:
            item.is_undefined_length_sequence_item = True
        dataset.add_new((tag & 0xFFFF0000) | 0x1010, "OB", b"\xfe\xff\x00\xe0" * 256 * kilobytes)
        path = save(dataset, folder / "a.dcm", syntax)
        np.testing.assert_array_equal(dicom.read_series(path).voxels[0], voxels((4, 5)))

    syntaxes = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian)
    tags = (0x00091002, 0x00291010)  # before and behind the rows
    rows = [(k, tag, one) for k in (1, 15, 16, 17, 300, 5000) for tag in tags for one in syntaxes]
    each({str(row): row for row in rows}, check, tmp_path)


def test_a_sequence_of_unknown_kind_and_length_is_stepped_over(tmp_path):
    # As PS3.5 section 6.2.2 has it: UN of undefined length is implicit inside.
    path = write(tmp_path / "a.dcm", voxels((4, 5)), RescaleIntercept="1")
    content = path.read_bytes()
    item = b"\x28\0\x52\x10\2\0\0\0" + b"77" + b"\xfe\xff\x0d\xe0\0\0\0\0"
    unknown = b"\x09\0\x10\x10UN\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" + item
    at = content.index(b"\x20\0\x0e\0UI")
    path.write_bytes(content[:at] + unknown + b"\xfe\xff\xdd\xe0\0\0\0\0" + content[at:])
    np.testing.assert_array_equal(dicom.read_series(path).voxels[0], voxels((4, 5)) + 1)


def packed(syntax, bits=16) -> dict:
    """Elements of compressed nonsense."""
    return {"syntax": syntax, "PixelData": encapsulate([b"\0" * 64]), "BitsAllocated": bits}


MOSAIC = {"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
KINDS = {  # what stands in a file of 64 x 64 pixels, and what it is: a code, or nothing for an image
    "a CT": ({}, ""),
    "a segmentation": ({"SOPClassUID": SEGMENTATION}, "NOT_AN_IMAGE"),
    "a segmentation, one frame": ({"SOPClassUID": SEGMENTATION, "frames": 1}, "NOT_AN_IMAGE"),
    "a labelled segmentation": ({"SOPClassUID": SEGMENTATION[:-1] + "7"}, "NOT_AN_IMAGE"),
    "a report": ({"SOPClassUID": uid.ComprehensiveSRStorage, "PixelData": None}, "NOT_AN_IMAGE"),
    "structures": ({"SOPClassUID": uid.RTStructureSetStorage, "PixelData": None}, "NOT_AN_IMAGE"),
    "no known class, no pixels": ({"SOPClassUID": "1.2.3", "PixelData": None}, "NOT_AN_IMAGE"),
    "a CT without pixels": ({"PixelData": None}, "TRUNCATED"),
    "a localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "SCOUT"),
    "a mosaic": (MOSAIC, "MOSAIC"),
    "a mosaic of 4": (MOSAIC | {"AcquisitionMatrix": [32, 0, 0, 32]}, "MOSAIC"),
    "a mosaic of 25 with gaps": (
        MOSAIC | {"AcquisitionMatrix": [12, 0, 0, 12], "tiles": 25},
        "MOSAIC",
    ),
    "taken apart": (MOSAIC | {"AcquisitionMatrix": [64, 0, 0, 64]}, ""),
    "taken apart, phase partial": (MOSAIC | {"AcquisitionMatrix": [0, 64, 48, 0]}, ""),
    "taken apart, interpolated": (MOSAIC | {"AcquisitionMatrix": [32, 0, 0, 32], "tiles": 25}, ""),
    "a mosaic of one": (MOSAIC | {"tiles": 1}, ""),
    "enhanced with the word": (MOSAIC | {"frames": 2}, ""),
    "RGB": ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "Rows": 21}, "COLOUR"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "COLOUR"),
    "grey of three": ({"SamplesPerPixel": 3, "Rows": 21}, "COLOUR"),
    "no rows": ({"Rows": None}, "PIXEL_FORMAT"),
    "no columns": ({"Columns": 0}, "PIXEL_FORMAT"),
    "12 bits allocated": ({"BitsAllocated": 12}, "PIXEL_FORMAT"),
    "no bits": ({"BitsAllocated": 0}, "PIXEL_FORMAT"),
    "none stored": ({"BitsStored": 0}, "PIXEL_FORMAT"),
    "17 bits of 16": ({"BitsStored": 17}, "PIXEL_FORMAT"),
    "a film": ({"NumberOfFrames": "4", "Rows": 16}, "MULTI_FRAME"),
    "three groups, two frames": ({"frames": 3, "NumberOfFrames": 2}, "MULTI_FRAME"),
    "terabytes": ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": "1000"}, "TOO_LARGE"),
    "a million million": ({"NumberOfFrames": "999999999999"}, "TOO_LARGE"),
    "64 bits": ({"Rows": 65535, "NumberOfFrames": "999999", "BitsAllocated": 64}, "TOO_LARGE"),
    "too few bytes": ({"Rows": 65}, "TRUNCATED"),
    "slope 0": ({"RescaleSlope": "0"}, "NOT_FINITE"),
    "slope 0.0": ({"RescaleSlope": "0.0"}, "NOT_FINITE"),
    "slope NaN": ({"RescaleSlope": "nan"}, "NOT_FINITE"),
    "slope infinite": ({"RescaleSlope": "inf"}, "NOT_FINITE"),
    "intercept with comma": ({"RescaleIntercept": "1,5"}, "NOT_FINITE"),
    "frame slope NaN": ({"frames": 2, "slope": "nan"}, "NOT_FINITE"),
    "frame slope 1e400": ({"frames": 2, "slope": "1e400"}, "NOT_FINITE"),
    "frame slope 0": ({"frames": 2, "slope": "0"}, "NOT_FINITE"),
    "frame intercept infinite": ({"frames": 2, "intercept": "inf"}, "NOT_FINITE"),
    "video": (packed(uid.MPEG4HP41), "DECODER_MISSING"),
    "unheard of": (packed("1.2.3.4.5.6"), "DECODER_MISSING"),
    "single bits in RLE": (packed(uid.RLELossless, 1) | {"BitsStored": 1}, "DECODER_MISSING"),
}
TEXT = ["RescaleSlope", "RescaleIntercept", "NumberOfFrames"]


def write_kind(path: Path, row: dict) -> Path:
    """A file of a row of KINDS, odd decimal strings included."""
    given = dict(row)
    frames, tiles, syntax = given.pop("frames", 0), given.pop("tiles", 0), given.pop("syntax", "")
    numbers = {key: given.pop(key) for key in ("slope", "intercept") if key in given}
    odd = {key: given.pop(key) for key in TEXT if key in given}
    stored = voxels((max(frames, 1), 64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if frames:
            rescale = {"slope": "1", "intercept": "0"} | numbers
            places = [{"position": (0, 0, k)} | rescale for k in range(frames)]
            dataset = pydicom.dcmread(write_enhanced(path, stored, places, **given))
        else:
            dataset = pydicom.dcmread(write(path, stored[0], **given))
        for keyword, value in odd.items():
            dataset[keyword] = pydicom.DataElement(keyword, "LO", str(value))
        if tiles:
            dataset.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
            dataset.add_new(0x0019100A, "US", tiles)
        dataset.file_meta.TransferSyntaxUID = syntax or uid.ExplicitVRLittleEndian
        if syntax:
            dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.save_as(path, implicit_vr=False, little_endian=True)
    return path


def test_what_a_file_is_decides_first(tmp_path):
    def check(row, folder):
        path = write_kind(folder / "a.dcm", row[0])
        assert (only_code(path), code(path)) in ((row[1], row[1]), (row[1], "NO_SERIES"))

    each(KINDS, check, tmp_path)


NO_DICOM = {
    "empty": b"",
    "short": b"DICM",
    ".DS_Store": b"\0\0\0\1Bud1" + b"\0" * 6000,
    "Thumbs.db": b"\xd0\xcf\x11\xe0" * 100,
    "photo.jpg": b"\xff\xd8\xff\xe0" + b"\x11" * 500,
    "letter.txt": b"Dear colleague,\n" * 50,
    "almost.dcm": b"\0" * 128 + b"DICN" + b"\0" * 100,
    "nothing behind": b"\0" * 128 + b"DICM",
}


def test_what_is_not_dicom_is_said_to_be_that_and_force_makes_no_image_of_it(tmp_path):
    def check(content, folder):
        folder.mkdir()
        (folder / "file").write_bytes(content)
        assert only_code(folder) == "NOT_DICOM"
        assert only_code(folder, force=True) in ("NOT_DICOM", "NOT_AN_IMAGE")

    noise = {f"noise {k}": np.random.default_rng(k).bytes(1000) for k in range(20)}
    each(NO_DICOM | noise, check, tmp_path)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_a_bare_data_set_is_read_on_request(tmp_path, syntax):
    path = write(tmp_path / "a.dcm", voxels((4, 5)), syntax, RescaleIntercept="-5")
    bare = Dataset(pydicom.dcmread(path))
    bare.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    assert b"DICM" not in path.read_bytes() and only_code(path) == "NOT_DICOM"
    (series,) = dicom.scan(path, force=True).series
    np.testing.assert_array_equal(dicom.read_series(series).voxels[0], voxels((4, 5)) - 5)
    no_preamble = save(image(voxels((4, 5))), tmp_path / "b" / "b.dcm", syntax, preamble=False)
    (series,) = dicom.scan(no_preamble, force=True).series
    np.testing.assert_array_equal(dicom.read_series(series).voxels[0], voxels((4, 5)))


def test_a_transfer_syntax_that_is_missing_or_wrong_is_seen_by_the_bytes(tmp_path):
    for implicit in (True, False):
        path = write(tmp_path / "a.dcm", voxels((4, 5)))
        dataset = pydicom.dcmread(path)
        del dataset.file_meta.TransferSyntaxUID
        dataset.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        np.testing.assert_array_equal(dicom.read_series(path).voxels[0], voxels((4, 5)))
    # A file of pydicom's tree that says explicit and is implicit.
    assert only_code(get_testdata_file("SC_rgb_jpeg.dcm")) == "COLOUR"


def test_a_missing_decoder_is_named_with_what_to_install(tmp_path, monkeypatch):
    packages = {
        uid.RLELossless: "pylibjpeg-rle",
        uid.JPEGLosslessSV1: "gdcm",
        uid.JPEGLSLossless: "jpeg_ls",
        uid.JPEG2000Lossless: "pylibjpeg-openjpeg",
    }
    assert all(get_decoder(syntax).is_available for syntax in packages)
    header.undecodable.cache_clear()
    for syntax, package in packages.items():
        decoder = get_decoder(syntax)
        needed = {"old": ("gdcm>=1", "pylibjpeg-rle", "pylibjpeg-openjpeg", "jpeg_ls")}
        monkeypatch.setattr(decoder, "_available", {})
        monkeypatch.setattr(decoder, "_unavailable", needed)
        path = write_kind(tmp_path / "a.dcm", packed(syntax))
        (file,) = dicom.scan(path).rejected
        assert file.code == "DECODER_MISSING"
        assert syntax.name in file.reason and package in file.reason
    header.undecodable.cache_clear()


def test_a_header_prints_nothing_that_leads_to_a_person(tmp_path):
    stated = {"PatientID": "DOE", "StudyInstanceUID": "1.2.77", "ConversionType": "DOE"}
    (one,) = header.images(header.read_header(write(tmp_path / "a", voxels((4, 5)), **stated)))
    assert (one.patient, one.study_uid) == ("DOE", "1.2.77")
    assert "DOE" not in repr(one) and "1.2.77" not in repr(one)
