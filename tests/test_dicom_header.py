"""What a file says of itself is what pydicom finds in it, and what it is decides first."""

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from helpers import dicom
from helpers.dicom import header
from tests.dicom_ends import code
from tests.dicom_files import NATIVE, PACKED, image, item, save, voxels, write, write_enhanced

PIXELS = voxels((64, 64))


def only_code(path, **options) -> str:
    return " ".join(file.code for file in dicom.scan(path, **options).rejected)


@pytest.mark.parametrize("kilobytes", [1, 15, 16, 300, 5000])
@pytest.mark.parametrize("group", [0x0009, 0x0029])  # before and behind the rows
@pytest.mark.parametrize("syntax", NATIVE)
def test_a_header_may_be_long_and_hold_nested_sequences(tmp_path, kilobytes, group, syntax):
    inner = item(ReferencedImageSequence=[Dataset()], RescaleIntercept="99")  # of no image
    inner.is_undefined_length_sequence_item = True
    icons = {"IconImageSequence": [image(np.full((2, 2), 9, np.uint8))]}
    dataset = image(PIXELS, ReferencedSeriesSequence=[inner, inner], **icons)
    dataset.add_new((group, 0x0010), "LO", "MAKER")
    dataset.add_new((group, 0x1010), "OB", b"\xfe\xff\x00\xe0" * 256 * kilobytes)
    path = save(dataset, tmp_path / "a.dcm", syntax)
    np.testing.assert_array_equal(dicom.read_series(path).voxels[0], PIXELS)


def test_a_sequence_of_unknown_kind_and_length_is_stepped_over(tmp_path):
    # As PS3.5 section 6.2.2 has it: UN of undefined length is implicit inside.
    path = write(tmp_path / "a.dcm", PIXELS, RescaleIntercept="1")
    content = path.read_bytes()
    one = b"\x28\0\x52\x10\2\0\0\0" + b"77" + b"\xfe\xff\x0d\xe0\0\0\0\0"
    unknown = b"\x09\0\x10\x10UN\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" + one
    at = content.index(b"\x20\0\x0e\0UI")
    path.write_bytes(content[:at] + unknown + b"\xfe\xff\xdd\xe0\0\0\0\0" + content[at:])
    np.testing.assert_array_equal(dicom.read_series(path).voxels[0], PIXELS + 1)


def frames(slope="1") -> dict:
    """Elements of an enhanced file of two frames."""
    places = [(0, 0, 0), (0, 0, 1)]
    return {"frames": [{"position": p, "slope": slope, "intercept": "0"} for p in places]}


def mosaic(acquired=0, tiles=0) -> dict:
    """Elements of MR with the word; the matrix that was acquired, Siemens' number of slices."""
    word = {"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}
    matrix = {"AcquisitionMatrix": [acquired, 0, 0, acquired]} if acquired else {}
    return word | matrix | ({"tiles": tiles} if tiles else {})


BIT = {"BitsAllocated": 1, "BitsStored": 1}
KINDS = {  # elements of a file of 64 x 64 pixels, and what it is: a code, or nothing for an image
    "a CT": ({}, ""),
    "a CT in small letters": ({"PhotometricInterpretation": "monochrome2"}, ""),
    "a segmentation": ({"SOPClassUID": uid.SegmentationStorage}, "NOT_AN_IMAGE"),
    "structures": ({"SOPClassUID": uid.RTStructureSetStorage, "PixelData": None}, "NOT_AN_IMAGE"),
    "a CT without pixels": ({"PixelData": None}, "TRUNCATED"),
    "a localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "SCOUT"),
    "a mosaic": (mosaic(), "MOSAIC"),
    "a mosaic of some": (mosaic(32), "MOSAIC"),
    "a mosaic of 4": (mosaic(32, tiles=4), "MOSAIC"),
    "taken apart": (mosaic(64), ""),
    "one tile": (mosaic(64, tiles=1), ""),
    "taken apart, interpolated": (mosaic(32, tiles=25), ""),
    "enhanced with the word": (mosaic() | frames(), ""),
    "RGB": ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "Rows": 21}, "COLOUR"),
    "no rows": ({"Rows": None}, "PIXEL_FORMAT"),
    "12 bits allocated": ({"BitsAllocated": 12}, "PIXEL_FORMAT"),
    "no bits stored": ({"BitsStored": 0}, "PIXEL_FORMAT"),
    "a word for frames": ({"odd": {"NumberOfFrames": "one"}}, "PIXEL_FORMAT"),
    "a film": ({"NumberOfFrames": "4", "Rows": 16}, "MULTI_FRAME"),
    "terabytes": ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 1000}, "TOO_LARGE"),
    "too few bytes": ({"Rows": 65}, "TRUNCATED"),
    "slope 0": ({"odd": {"RescaleSlope": "0.0"}}, "NOT_FINITE"),
    "intercept with a comma": ({"odd": {"RescaleIntercept": "1,5"}}, "NOT_FINITE"),
    "a dose of nothing": ({"odd": {"DoseGridScaling": "x"}}, "NOT_FINITE"),
    "frame slope NaN": (frames("nan"), "NOT_FINITE"),
    "frame slope 0": (frames("0"), "NOT_FINITE"),
    "frame slope 1e400": (frames("1e400"), "NOT_FINITE"),
    "fragments that are plain": ({"syntax": NATIVE[0]}, "TRUNCATED"),
    "video": ({"syntax": uid.MPEG4HP41}, "DECODER_MISSING"),
    "unheard of": ({"syntax": "1.2.3.4.5.6"}, "DECODER_MISSING"),
    "single bits in RLE": ({"syntax": PACKED[0], **BIT}, "DECODER_MISSING"),
}


def packed(path, syntax: str) -> None:
    """Replace the pixels of a file by compressed nonsense, or say so of some that are not."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = PACKED[0] if syntax in NATIVE else syntax
    dataset.PixelData = encapsulate([bytes(PIXELS.nbytes)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    if syntax in NATIVE:
        path.write_bytes(path.read_bytes().replace(PACKED[0].encode(), syntax.encode()))


@pytest.mark.filterwarnings("ignore")  # pydicom warns when it writes them
@pytest.mark.parametrize("elements, expected", KINDS.values(), ids=KINDS)
def test_what_a_file_is_decides_first(tmp_path, elements, expected):
    path, given = tmp_path / "a.dcm", dict(elements)
    groups, tiles, syntax, odd = (given.pop(k, None) for k in ("frames", "tiles", "syntax", "odd"))
    if groups:
        dataset = pydicom.dcmread(write_enhanced(path, voxels((2, 64, 64)), groups, **given))
    else:
        dataset = image(PIXELS, **given)
    for keyword, value in (odd or {}).items():  # what is no number cannot be set as one
        dataset[keyword] = pydicom.DataElement(keyword, "LO", value)
    if tiles:
        dataset.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
        dataset.add_new(0x0019100A, "US", tiles)
    save(dataset, path)
    if syntax:
        packed(path, syntax)
    assert only_code(path) == expected
    assert code(path) in (expected, "NO_SERIES" if expected else "")


NO_DICOM = [b"", b"\0" * 128 + b"DICM", b"Dear colleague,\n" * 50, b"\0\0\0\1Bud1" + bytes(6000)]
NO_DICOM += [np.random.default_rng(seed).bytes(1000) for seed in range(20)]


def test_what_is_not_dicom_is_said_to_be_that_and_force_makes_no_image_of_it(tmp_path):
    for number, content in enumerate(NO_DICOM):
        (tmp_path / f"{number}").write_bytes(content)
    assert {*only_code(tmp_path).split()} == {"NOT_DICOM"}
    assert {*only_code(tmp_path, force=True).split()} <= {"NOT_DICOM", "NOT_AN_IMAGE"}


@pytest.mark.parametrize("syntax", NATIVE[:3])
def test_a_file_without_preamble_or_syntax_is_read_by_its_bytes(tmp_path, syntax):
    path = write(tmp_path / "a.dcm", PIXELS, syntax)
    dataset = pydicom.dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    kind = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
    options = kind | {"enforce_file_format": False}
    dataset.save_as(path, **options)
    np.testing.assert_array_equal(dicom.read_series(path).voxels[0], PIXELS)
    Dataset(dataset).save_as(path, **options)
    assert b"DICM" not in path.read_bytes() and only_code(path) == "NOT_DICOM"
    (series,) = dicom.scan(path, force=True).series
    np.testing.assert_array_equal(dicom.read_series(series).voxels[0], PIXELS)
    # A file of pydicom's tree that says explicit and is implicit.
    assert only_code(get_testdata_file("SC_rgb_jpeg.dcm")) == "COLOUR"


def test_a_missing_decoder_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(header, "_undecodable", header._undecodable.__wrapped__)  # no cache
    for syntax in PACKED:
        assert get_decoder(syntax).is_available
        monkeypatch.setattr(get_decoder(syntax), "_available", {})
        monkeypatch.setattr(get_decoder(syntax), "_unavailable", {"plugin": ("some-package",)})
        packed(write(tmp_path / "a.dcm", PIXELS), syntax)
        (file,) = dicom.scan(tmp_path).rejected
        assert file.code == "DECODER_MISSING"
        assert syntax.name in file.reason and "some-package" in file.reason
