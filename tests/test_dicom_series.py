"""Folders become series; every file is listed once, one bad neighbour condemns no other."""

import os
import threading
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import uid

from helpers import dicom
from helpers.errors import CODES, CourseDataError
from helpers.lesson.phantoms import traps
from helpers.lesson.phantoms.scanner import dicom_series
from helpers.volume import Volume
from tests.dicom_ends import by_pydicom, code, files_in, outcome
from tests.dicom_files import CORONAL, NOWHERE, SERIES, voxels, write, write_enhanced, write_series

ROOT = Path(pydicom.data.__file__).parent


def listed(found: dicom.Scan) -> list[Path]:
    files = [path for series in found.series for path in series.files]
    return sorted(files + [file.path for file in found.rejected])


RGB = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "Rows": 2}
MR = {"Modality": "MR", "PixelData": None, "SeriesInstanceUID": None}
CAPTURE = {"SOPClassUID": uid.SecondaryCaptureImageStorage, **NOWHERE}
# What lies beside a CT of five slices: its code, that of the CT (nothing is a volume), its notes.
BESIDE = {
    "a localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "SCOUT", "", 1),
    "an image across": ({"orientation": CORONAL}, "SCOUT", "", 1),
    "a larger image": ({"shape": (8, 9)}, "SCOUT", "", 1),
    "a capture in colour": (CAPTURE | RGB, "SCOUT", "", 1),
    "two captures": (CAPTURE | {"twice": True}, "SCOUT", "", 1),
    "a segmentation": ({"SOPClassUID": uid.SegmentationStorage}, "NOT_AN_IMAGE", "", 1),
    "a slice in colour": (RGB, "COLOUR", "COLOUR", 0),
    "a slice cut": ({"cut": -20}, "TRUNCATED", "TRUNCATED", 0),
    "a slice cut before its series": ({"cut": "before"}, "TRUNCATED", "TRUNCATED", 0),
    "a slice cut within its series": ({"cut": "within"}, "TRUNCATED", "TRUNCATED", 0),
    "MR cut before its series": ({"cut": "before", "Modality": "MR"}, "TRUNCATED", "", 0),
    "another kind, cut": ({"cut": -20, "SOPClassUID": uid.MRImageStorage}, "TRUNCATED", "", 0),
    "another study, cut": ({"cut": -20, "StudyInstanceUID": "1.9"}, "TRUNCATED", "", 0),
    # As priv_SQ.dcm of pydicom beside CT_small.dcm.
    "MR without pixels or series": (MR, "TRUNCATED", "", 0),
    "a text": ({"cut": 100}, "NOT_DICOM", "", 0),
}


@pytest.mark.parametrize("elements, rejected, expected, notes", BESIDE.values(), ids=BESIDE)
def test_a_bad_neighbour_condemns_only_its_own(tmp_path, elements, rejected, expected, notes):
    write_series(tmp_path, voxels(), StudyInstanceUID="1.2")
    given = {"StudyInstanceUID": "1.2", "position": (-10, 20, 60), **elements}
    shape, cut, twice = (given.pop(key, None) for key in ("shape", "cut", "twice"))
    paths = [tmp_path / "A.dcm", tmp_path / "B.dcm"][: 1 + bool(twice)]
    for seed, path in enumerate(paths, 1):
        content = write(path, voxels(shape or (6, 7), seed=seed), **given).read_bytes()
        at = content.find(b"\x20\0\x0e\0UI")
        path.write_bytes(content[: {"before": at, "within": at + 20}.get(cut, cut)])
    found = dicom.scan(tmp_path)
    assert [(file.path, file.code) for file in found.rejected] == [(p, rejected) for p in paths]
    (series,) = found.series
    end = outcome(series)
    assert getattr(end, "code", "") == expected
    if expected:
        assert end.files == tuple(paths)
    else:
        np.testing.assert_array_equal(end.voxels, voxels())
        assert len(end.notes) == notes


def test_of_several_damaged_slices_those_of_one_code_are_named(tmp_path):
    cut, *_, colour = write_series(tmp_path, voxels())
    cut.write_bytes(cut.read_bytes()[:-20])
    write(colour, voxels()[4], **RGB)
    end = outcome(tmp_path)
    assert {end.code: end.files}.items() <= {"TRUNCATED": (cut,), "COLOUR": (colour,)}.items()


OTHERS = [{"series": "1.2.3"}, {"SOPClassUID": uid.MRImageStorage}, {"orientation": CORONAL}]
OTHERS += [{"orientation": (-1, 0, 0, 0, -1, 0)}, {"Rows": 5}]


@pytest.mark.parametrize("stated", OTHERS)
def test_series_are_split_by_uid_kind_orientation_and_size(tmp_path, stated):
    a = write_series(tmp_path / "a", voxels())
    b = write_series(tmp_path / "b", voxels(seed=2), **stated)
    found = dicom.scan(tmp_path)
    assert [set(series.files) for series in found.series] == [set(a), set(b)]
    assert [code(series) for series in found.series] == ["", ""]
    assert code(tmp_path) == "SEVERAL_SERIES" and found.rejected == ()


def test_paths_of_every_kind_work(tmp_path, monkeypatch):
    folder = tmp_path / "Übung – 腹部CT" / "sub 'of' $HOME %" / ("a very long name " * 9)
    paths = write_series(folder, voxels())
    paths[3].rename(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    np.testing.assert_array_equal(dicom.read_series("~").voxels, voxels())
    np.testing.assert_array_equal(dicom.read_series(str(paths[2])).voxels[0], voxels()[2])
    paths[0].write_bytes(b"")
    assert code(paths[0]) == "NO_SERIES"
    for nowhere in ("", tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError):
            dicom.scan(nowhere)


@pytest.mark.skipif(os.name != "posix", reason="pipes, rights and names that are no text")
def test_links_pipes_and_what_may_not_be_opened_are_followed_or_listed(tmp_path, monkeypatch):
    closed, *paths = write_series(tmp_path / "a", voxels())
    write_series(tmp_path / "a" / "shut", voxels(seed=2), series="1.2.3")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "again").symlink_to("a")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "linked.dcm").symlink_to(Path("a", paths[2].name))  # a copy, as it is reached twice
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.dcm")).write_bytes(b"no image")
    os.mkfifo(tmp_path / "a" / "pipe")
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the way here may be closed to nobody
    user, found = os.geteuid(), []
    closed.chmod(0), (tmp_path / "a" / "shut").chmod(0)
    try:
        os.seteuid(user or 65534)
        reading = lambda: found.extend([dicom.scan("."), dicom.read_series(".")])  # noqa: E731
        thread = threading.Thread(target=reading, daemon=True)
        thread.start()
        thread.join(timeout=300)
    finally:
        os.seteuid(user)
        (tmp_path / "a" / "shut").chmod(0o755)
    assert found, "the scan waits for somebody to write into the pipe"
    assert [len(series.files) for series in found[0].series] == [len(paths) + 1]
    codes = {os.fsencode(file.path.name): file.code for file in found[0].rejected}
    odd = dict.fromkeys([b"self", b"pipe", b"shut", closed.name.encode()], "UNREADABLE")
    assert codes == odd | {b"\xff\xfe.dcm": "NOT_DICOM"}
    assert len(found[1].notes) == 2  # of the copy and what is unreadable


SECRETS = {"PatientName": "Zyxwvut^Qponml", "PatientID": "MRN-998877", "StudyInstanceUID": "1.2.8"}
FRAMES = [{"position": (0, 0, 0), "slope": "77777", "intercept": "0"}]
TELLING = {  # what is odd about the elements; 77777 becomes a name
    "a gap": {"heights": (0, 1, 2, 4, 5)},
    "a name as a colour": {"PhotometricInterpretation": "Zyxwvut"},
    "a name as a class": {"SOPClassUID": "Zyxwvut"},
    "a name as a number": {"NumberOfFrames": "77777"},
    "a name as a slope": {"RescaleSlope": "77777"},
    "a name as a frame's slope": {"frames": FRAMES},
    "many series": {"per_slice": [{"SeriesInstanceUID": f"{SERIES}.{k}"} for k in range(5)]},
}


@pytest.mark.filterwarnings("ignore")  # pydicom warns when it writes them
@pytest.mark.parametrize("elements", TELLING.values(), ids=TELLING)
def test_what_is_printed_tells_nothing_about_the_patient(tmp_path, capfd, elements):
    if "frames" in elements:
        write_enhanced(tmp_path / "doe_john", voxels((1, 4, 5)), **SECRETS, **elements)
    else:
        write_series(tmp_path, voxels((5, 33, 36)), **SECRETS, **elements)
    for path in files_in(tmp_path):
        path.write_bytes(path.read_bytes().replace(b"77777", b"Qponm"))
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found, end = dicom.scan(tmp_path), outcome(tmp_path)
        headers = [series.headers for series in found.series]
        reasons = [file.reason for file in found.rejected]
    told = [found, found.series, found.rejected, headers, reasons, end, str(end), *warned]
    told = f"{told} {getattr(end, 'notes', '')} {capfd.readouterr()}"
    told = told.replace(str(tmp_path), "")  # paths are told where they are asked for
    assert [word for word in (*SECRETS.values(), "Zyxwvut", "Qponm") if word in told] == []


def test_the_words_of_an_exception_are_not_told(tmp_path, monkeypatch):
    def images(stated):
        raise ValueError("could not convert string to float: 'Qponml'")

    monkeypatch.setattr("helpers.dicom.series.images", images)  # pydicom has many of this kind
    (path,) = write_series(tmp_path, voxels((1, 4, 5)))
    (file,) = dicom.scan(tmp_path).rejected
    assert (file.path, file.code, file.reason) == (path, "UNREADABLE", "ValueError")
    assert "Qponml" not in str(outcome(tmp_path))


def test_a_padding_value_is_kept_and_noted(tmp_path):
    write_series(tmp_path, voxels(), PixelRepresentation=0, PixelPaddingValue=0)
    assert dicom.read_series(tmp_path).notes == ("padded voxels keep the padding value",)


TRAPS = dict.fromkeys(traps.TRAPS, "") | {
    "missing_slice": "MISSING_SLICE", "uneven_spacing": "UNEVEN_SPACING",
    "gantry_tilt": "GANTRY_TILT", "gantry_tilt_untagged": "GANTRY_TILT",
    "shifted_slice": "NOT_ALIGNED", "conflicting_duplicate": "CONFLICTING_DUPLICATE",
    "two_phases": "SHARED_POSITION", "mixed_size": "MISSING_SLICE", "two_series": "SEVERAL_SERIES",
    "no_position": "NO_GEOMETRY", "palette": "COLOUR", "ybr": "COLOUR", "truncated": "TRUNCATED",
    "short_pixels": "TRUNCATED", "terabytes": "TOO_LARGE", "no_preamble": "NO_SERIES",
    "multi_frame_plain": "MULTI_FRAME", "unknown_decoder": "DECODER_MISSING",
    "mosaic": "MOSAIC", "interleaved": "MIXED_SLICES",
}  # fmt: skip


@pytest.mark.parametrize("trap, expected", TRAPS.items())
def test_every_trap_of_the_synthetic_scanner_ends_as_it_should(tmp_path, trap, expected):
    scanned = Volume(voxels((8, 40, 44), low=-500, high=500), (3.0, 0.8, 0.7), (-15, -16, 100))
    dicom_series(scanned, tmp_path, trap=trap, seed=5)
    assert listed(dicom.scan(tmp_path)) == files_in(tmp_path)
    end = outcome(tmp_path)
    assert getattr(end, "code", "") == expected
    if not expected:
        assert end.same_geometry(scanned)
        hu = scanned.voxels + 1024 * (trap == "no_rescale")
        np.testing.assert_allclose(end.voxels, hu, atol="slice" in trap)  # slopes cost a rounding


# pydicom's own tree: what each of its DICOM files ends in, by code; the rest is read.
TREE = {"read": 62, "TRUNCATED": 59, "COLOUR": 33, "NOT_DICOM": 25, "NOT_AN_IMAGE": 25}
TREE |= {"PIXEL_FORMAT": 3, "MULTI_FRAME": 3, "SCOUT": 2, "DECODING_FAILED": 1}


def end_of(path: Path, force: bool = False):
    found = dicom.scan(path, force=force)
    assert listed(found) == [path]
    return outcome(found.series[0]) if found.series else found.rejected[0]


@pytest.mark.filterwarnings("ignore")  # the files are odd on purpose
def test_every_file_of_pydicoms_tree_is_an_image_or_a_reason():
    assert Counter(getattr(end_of(path), "code", "read") for path in files_in(ROOT)) == TREE
    assert listed(dicom.scan(ROOT)) == files_in(ROOT)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", files_in(ROOT), ids=lambda path: path.name)
def test_images_of_pydicoms_tree_are_what_pydicom_and_simpleitk_read(path):
    end = end_of(path, force=True)
    if isinstance(end, CourseDataError):
        with pytest.raises((RuntimeError, ValueError)):
            by_pydicom(path)
    if not isinstance(end, Volume):
        return
    np.testing.assert_allclose(end.voxels, by_pydicom(path), rtol=1e-6)
    try:
        theirs = Volume.from_sitk(sitk.ReadImage(str(path)))
    except (RuntimeError, ValueError):
        return  # SimpleITK cannot read it, or as 2D
    if theirs.shape == end.shape:
        np.testing.assert_allclose(end.origin, theirs.origin, atol=1e-3)
        np.testing.assert_allclose(end.direction, theirs.direction, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cut", [0, 100, 132, 140, 200, 1000, 5000, 20000, 30000])
def test_cut_off_or_damaged_anywhere_a_file_ends_as_an_image_or_a_reason(tmp_path, cut):
    rng = np.random.default_rng(cut)
    for number, path in enumerate(files_in(ROOT)):
        content = np.fromfile(path, np.uint8)[:cut]
        content.tofile(tmp_path / f"{number} cut")
        if len(content) > 200:
            content[rng.integers(132, min(len(content), 2000), 12)] = rng.integers(0, 256, 12)
            content.tofile(tmp_path / f"{number} damaged")
    found = dicom.scan(tmp_path)
    assert listed(found) == files_in(tmp_path)
    assert {code(series) for series in found.series} <= {"", *CODES}
