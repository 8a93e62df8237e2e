"""Folders become series; every file is listed once, one bad neighbour condemns no other."""

import os
import shutil
import threading
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, pixel_array

from helpers import dicom
from helpers.errors import CODES, CourseDataError
from helpers.phantoms import traps
from helpers.phantoms.scanner import dicom_series
from helpers.volume import Volume
from tests.dicom_files import (
    SERIES,
    code,
    each,
    few,
    outcome,
    voxels,
    write,
    write_series,
)

ROOT = Path(pydicom.data.__file__).parent
NOWHERE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
CAPTURE = {"SOPClassUID": uid.SecondaryCaptureImageStorage, **NOWHERE}
RGB = {
    "PhotometricInterpretation": "RGB",
    "SamplesPerPixel": 3,
    "Rows": 2,
    "PlanarConfiguration": 0,
}
SIDEWAYS = {"orientation": (0, 1, 0, 0, 0, -1), "position": (0, 0, 0)}


def listed(found: dicom.Scan) -> list[Path]:
    """Every path of a scan, as often as it stands there."""
    files = [path for series in found.series for path in series.files]
    return sorted(files + [file.path for file in found.rejected])


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


# What lies beside a CT of five slices of 6 x 7: the codes of what is rejected, and what reading
# the CT ends in; nothing is a volume.
BESIDE = {
    "a localizer": (dict(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **SIDEWAYS), "SCOUT", ""),
    "an image across": (SIDEWAYS, "SCOUT", ""),
    "a larger image": ({"pixels": voxels((8, 9))}, "SCOUT", ""),
    "a capture in colour": (CAPTURE | RGB, "SCOUT", ""),
    "a grey capture": (CAPTURE, "SCOUT", ""),
    "a dose grid": ({"SOPClassUID": uid.RTDoseStorage, "Modality": "RTDOSE"}, "SCOUT", ""),
    "a segmentation": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "NOT_AN_IMAGE", ""),
    "a report": ({"SOPClassUID": uid.BasicTextSRStorage, "PixelData": None}, "NOT_AN_IMAGE", ""),
    "a slice in colour": (RGB, "COLOUR", "COLOUR"),
    "a slice cut": ({"cut": 20}, "TRUNCATED", "TRUNCATED"),
    "a slice cut before its series": ({"cut": "series"}, "TRUNCATED", "TRUNCATED"),
    "a slice without pixels": ({"PixelData": None}, "TRUNCATED", "TRUNCATED"),
    "MR cut before its series": ({"cut": "series", "Modality": "MR"}, "TRUNCATED", ""),
    "another class, cut": ({"cut": "series", "SOPClassUID": uid.MRImageStorage}, "TRUNCATED", ""),
    "another study, cut": ({"cut": "series", "StudyInstanceUID": "1.9"}, "TRUNCATED", ""),
    "another series, cut": ({"cut": 20, "SeriesInstanceUID": "1.9"}, "TRUNCATED", ""),
    "a slope of 0": ({"RescaleSlope": "0"}, "NOT_FINITE", "NOT_FINITE"),
    "a text": ({"content": b"Dear colleague, " * 20}, "NOT_DICOM", ""),
}


def test_one_bad_neighbour_condemns_only_what_it_has_to_do_with(tmp_path):
    def check(row, folder):
        elements, rejected, expected = row
        given = {"StudyInstanceUID": "1.2", "position": (-10, 20, 60), **elements}
        cut, content = given.pop("cut", None), given.pop("content", None)
        paths = write_series(folder, voxels(), StudyInstanceUID="1.2")
        path = write(folder / "A.dcm", given.pop("pixels", voxels((6, 7), seed=1)), **given)
        whole = path.read_bytes()
        if cut:
            path.write_bytes(whole[: whole.index(b"\x20\0\x0e\0") if cut == "series" else -cut])
        path.write_bytes(content or path.read_bytes())
        found = dicom.scan(folder)
        assert [(file.path, file.code) for file in found.rejected] == [(path, rejected)]
        (series,) = found.series
        assert set(series.files) == set(paths) and code(series) == expected
        assert repr(series).endswith("1 damaged)") == bool(expected)
        if expected:
            assert outcome(folder).files == (path,)
        else:
            volume = dicom.read_series(folder)
            np.testing.assert_array_equal(volume.voxels, voxels())
            noted = ("left out as scouts: 1 of this series' images",)
            assert volume.notes == (noted if rejected == "SCOUT" else ())

    each(BESIDE, check, tmp_path)


def test_a_stray_without_a_series_condemns_no_other_modality(tmp_path):
    for name in ("CT_small.dcm", "priv_SQ.dcm"):
        shutil.copy(get_testdata_file(name), tmp_path)
    found = dicom.scan(tmp_path)
    assert [file.path.name for file in found.rejected] == ["priv_SQ.dcm"]
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(get_testdata_file("CT_small.dcm")))
    np.testing.assert_array_equal(dicom.read_series(found.series[0]).voxels, theirs)


def test_the_last_slice_cut_anywhere_in_its_header_does_not_just_vanish(tmp_path):
    paths = write_series(tmp_path, voxels((4, 5, 6)))
    content = paths[-1].read_bytes()
    known = content.index(b"\x20\x00\x0e\x00UI") + 8 + len(SERIES) + 1
    for cut in range(known, len(content), 3):
        paths[-1].write_bytes(content[:cut])
        end = outcome(tmp_path)
        assert isinstance(end, CourseDataError) and paths[-1] in end.files, cut
        assert end.code in ("TRUNCATED", "NO_GEOMETRY"), cut


def test_series_are_split_by_uid_kind_orientation_and_size(tmp_path):
    def check(differs, folder):
        stated = dict(differs)
        pixels = voxels(stated.pop("shape", (4, 5, 6)), seed=2)
        a = write_series(folder / "a", voxels((4, 5, 6)))
        b = write_series(folder / "b", pixels, **stated)
        found = dicom.scan(folder)
        assert found.rejected == ()
        assert [set(series.files) for series in found.series] == [set(a), set(b)]
        assert [code(series) for series in found.series] == ["", ""]
        end = outcome(folder)
        assert end.code == "SEVERAL_SERIES" and "2 series" in end.message
        assert "Series(CT, 4 files, 4 images of 5 x 6)" in end.message

    rows = [{"series": "1.2.3"}, {"shape": (4, 6, 6)}, {"SOPClassUID": uid.MRImageStorage}]
    rows += [{"orientation": plane} for plane in ((1, 0, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0))]
    each({str(row): row for row in rows}, check, tmp_path)


def test_radiographs_and_images_of_no_series_stay_apart_but_copies_are_one(tmp_path):
    for name, stated in (("a", {"Modality": "DX"}), ("b", {"SeriesInstanceUID": None})):
        paths = write_series(tmp_path / name, voxels((3, 4, 5)), **stated, **NOWHERE)
        shutil.copy(paths[0], tmp_path / name / "copy.dcm")
        found = dicom.scan(tmp_path / name)
        assert sorted(len(series.files) for series in found.series) == [1, 1, 2]
        for series in found.series:
            volume = dicom.read_series(series)
            assert volume.shape == (1, 4, 5)
            assert any("copies" in note for note in volume.notes) == (len(series.files) == 2)
        paths[1].write_bytes(paths[1].read_bytes()[:-9])  # the others are whole
        assert [code(series) for series in dicom.scan(tmp_path / name).series] == ["", ""]


def test_paths_of_every_kind_work(tmp_path, monkeypatch):
    paths = write_series(tmp_path / "Übung – 腹部CT" / "sub 'of' $HOME %", voxels())
    np.testing.assert_array_equal(dicom.read_series(str(paths[2])).voxels[0], voxels()[2])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert dicom.read_series("~").shape == voxels().shape
    for k, path in enumerate(paths):
        place = tmp_path / "abc"[k % 3] / ("a very long name " * 6) / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    volume = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(volume.voxels, voxels())
    assert "name" not in repr(volume) and volume.notes == ()
    with pytest.raises(FileNotFoundError, match="absent"):
        dicom.read_series(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="empty path"):
        dicom.scan("")
    with pytest.raises(TypeError, match="not Scan"):
        dicom.read_series(dicom.scan(tmp_path))
    (tmp_path / "nothing").mkdir()
    assert dicom.scan(tmp_path / "nothing") == dicom.Scan((), ())
    assert code(tmp_path / "nothing") == "NO_SERIES"


def test_a_progress_bar_is_shown_only_on_request(tmp_path, capfd):
    write_series(tmp_path, voxels())
    dicom.scan(tmp_path)
    assert capfd.readouterr() == ("", "")
    dicom.scan(tmp_path, progress=True)
    assert "5/5" in capfd.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="pipes, links and names that are no text")
def test_links_pipes_and_names_that_are_no_text_are_followed_or_listed(tmp_path):
    paths = write_series(tmp_path / "a", voxels())
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "a" / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "linked.dcm").symlink_to(paths[2])  # a copy, as it is reached twice
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.dcm")).write_bytes(b"no image")
    os.mkfifo(tmp_path / "pipe")
    found = []
    thread = threading.Thread(target=lambda: found.append(dicom.scan(tmp_path)), daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert found, "the scan waits for somebody to write into the pipe"
    assert [len(series.files) for series in found[0].series] == [6]
    codes = {os.fsencode(file.path.name): file.code for file in found[0].rejected}
    unreadable = dict.fromkeys((b"self", b"dangling", b"pipe"), "UNREADABLE")
    assert codes == {b"\xff\xfe.dcm": "NOT_DICOM", **unreadable}
    notes = dicom.read_series(tmp_path).notes
    assert notes[0].startswith("unreadable files beside this series: ")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has other rights")
def test_what_may_not_be_opened_is_listed(tmp_path, monkeypatch):
    paths = write_series(tmp_path / "a", voxels())
    write_series(tmp_path / "a" / "closed", voxels(seed=2), series="1.2.3")
    dicom.read_series(tmp_path / "a" / "closed")  # imports what is needed
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the way here may be closed to nobody
    root = os.geteuid() == 0
    paths[2].chmod(0)
    (tmp_path / "a" / "closed").chmod(0)
    try:
        if root:
            os.seteuid(65534)
        found = dicom.scan("a")
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "a" / "closed").chmod(0o755)
    codes = {file.path.name: (file.code, "Permission" in file.reason) for file in found.rejected}
    assert codes == dict.fromkeys((paths[2].name, "closed"), ("UNREADABLE", True))
    assert [len(series.files) for series in found.series] == [4]


# Privacy

SECRETS = {
    "PatientName": "Zyxwvut^Qponml", "PatientID": "MRN-99887766", "PatientBirthDate": "19470311",
    "AccessionNumber": "ACC55443322", "InstitutionName": "Hospital Nowhere",
    "SeriesDescription": "Abdomen Qponml", "StudyInstanceUID": "1.2.826.777.1",
    "FrameOfReferenceUID": "1.2.826.777.2", "RescaleType": "Qponml", "ImageType": ["Qponml"],
}  # fmt: skip
TELLING = {
    "nothing": {},
    "a gap": {"heights": (0, 1, 2, 4, 5)},
    "no position": {"ImagePositionPatient": None},
    "a name as a colour": {"PhotometricInterpretation": "Zyxwvut"},
    "a name as a class": {"SOPClassUID": "Zyxwvut"},
    "a name as a number": {"NumberOfFrames": "77777", "replace": (b"77777", b"Qponm")},
    "a name as a slope": {"RescaleSlope": "77777", "replace": (b"77777", b"Qponm")},
    "a name as a syntax": {"replace": (b"1.2.840.10008.1.2.1\0", b"1.2.840.Zyxwvut.Q.1\0")},
    "cut": {"cut": 50},
    "compressed and cut": {"cut": 500, "syntax": uid.RLELossless},
    "other spacing": {"per_slice": lambda k: {"PixelSpacing": ["1", str(1 + k)]}},
    "a tilt": {"per_slice": lambda k: {"position": (k, k, k)}},
    "one UID": {"per_slice": lambda k: {"SOPInstanceUID": f"{SERIES}.1"}},
    "one place": {"per_slice": lambda k: {"position": (0, 0, k // 2)}},
    "many series": {"per_slice": lambda k: {"SeriesInstanceUID": f"{SERIES}.{k}"}},
}


@pytest.mark.filterwarnings("ignore")  # pydicom warns when it writes them
def test_what_is_printed_tells_nothing_about_the_patient(tmp_path, capfd):
    def check(row, folder):
        given = dict(row)
        old, new = given.pop("replace", (b"", b""))
        cut = given.pop("cut", None)
        for path in write_series(folder / "doe_john", voxels((5, 33, 36)), **(SECRETS | given)):
            assert old in path.read_bytes()
            path.write_bytes(path.read_bytes().replace(old, new)[: cut and -cut])
        capfd.readouterr()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = dicom.scan(folder)
            told = [str(found), repr(found.series), repr(found.rejected)]
            told += [file.reason for file in found.rejected]
            for fill in (False, True):
                end = outcome(folder, fill_gaps=fill)
                told += [repr(end), *end.notes] if isinstance(end, Volume) else [str(end)]
        told = " ".join([*told, *map(str, warned), *capfd.readouterr()])
        told = told.replace(str(folder), "")  # paths are told where they are asked for
        secrets = [value for value in SECRETS.values() if isinstance(value, str)]
        for secret in (*secrets, "Zyxwvut", "Qponm", "1.2.826", SERIES):
            assert secret not in told, (secret, told[max(0, told.index(secret) - 90) :][:150])

    each(TELLING, check, tmp_path)


def test_the_words_of_an_exception_are_not_told(tmp_path, monkeypatch):
    def images(stated):
        raise ValueError("could not convert string to float: 'Qponml'")

    monkeypatch.setattr("helpers.dicom.series.images", images)  # pydicom has many of this kind
    (path,) = write_series(tmp_path, voxels((1, 4, 5)))
    (file,) = dicom.scan(tmp_path).rejected
    assert (file.path, file.code) == (path, "UNREADABLE")
    assert "Qponml" not in file.reason + str(outcome(tmp_path))


def test_a_padding_value_is_kept_and_noted(tmp_path):
    for signed, stored, shown in ((0, 63536, "63536"), (1, -2000, "-2000"), (0, 0, "0")):
        padded = {"PixelRepresentation": signed, "PixelPaddingValue": stored}
        write_series(tmp_path, voxels(), **padded)
        note = f"Pixel Padding Value {shown} (stored): kept where nothing was measured"
        assert note in dicom.read_series(tmp_path).notes


# Everything together

ENDS = dict.fromkeys(traps.TRAPS, "") | {
    "missing_slice": "MISSING_SLICE", "uneven_spacing": "UNEVEN_SPACING",
    "gantry_tilt": "GANTRY_TILT", "gantry_tilt_untagged": "GANTRY_TILT",
    "shifted_slice": "NOT_ALIGNED", "conflicting_duplicate": "CONFLICTING_DUPLICATE",
    "two_phases": "SHARED_POSITION", "mixed_size": "MISSING_SLICE",
    "two_series": "SEVERAL_SERIES", "no_position": "NO_GEOMETRY", "palette": "COLOUR",
    "ybr": "COLOUR", "truncated": "TRUNCATED", "short_pixels": "TRUNCATED",
    "terabytes": "TOO_LARGE", "no_preamble": "NO_SERIES", "multi_frame_plain": "MULTI_FRAME",
    "unknown_decoder": "DECODER_MISSING",
}  # fmt: skip


def test_every_trap_of_the_synthetic_scanner_ends_as_it_should(tmp_path):
    z, y, x = np.ogrid[:8, :40, :44]
    hu = (np.hypot(y - 20, x - 22) * 20 - 500 + 30 * z).astype(np.int16)

    def check(trap, folder):
        geometry = ((3.0, 0.8, 0.7), (-15.0, -16.0, 100.0))
        dicom_series(Volume(hu, *geometry), folder, trap=trap, seed=5)
        assert listed(dicom.scan(folder)) == files_in(folder)
        end = outcome(folder)
        assert getattr(end, "code", "") == ENDS.get(trap, "")
        if isinstance(end, Volume) and trap != "monochrome1":  # mirrored on reading
            expected = hu + 1024 if trap == "no_rescale" else hu
            atol = 1 if trap == "per_slice_rescale" else 0  # slopes cost a rounding
            np.testing.assert_allclose(end.voxels, expected, atol=atol)
            assert end.same_geometry(Volume(hu, *geometry))

    assert sum(not end for end in ENDS.values()) == 17
    each({str(trap): trap for trap in (None, *traps.TRAPS)}, check, tmp_path)


@few
@given(
    st.lists(st.tuples(st.sampled_from(list(BESIDE)), st.integers(0, 99)), min_size=1, max_size=7)
)
def test_every_file_of_a_messy_folder_is_listed_exactly_once(tmp_path_factory, ingredients):
    folder = tmp_path_factory.mktemp("messy")
    for number, (kind, seed) in enumerate(ingredients):
        given = {"series": f"1.2.{number + 1}" if seed % 3 else "1.2.99", **BESIDE[kind][0]}
        content, cut = given.pop("content", b""), bool(given.pop("cut", 0))
        place, pixels = folder / str(seed % 2), given.pop("pixels", voxels((6, 7), seed))
        path = write(place / f"{number} {kind}", pixels, **given)
        path.write_bytes(content or path.read_bytes()[: -seed * 8 if cut else None])
        uids = [{"SOPInstanceUID": f"1.3.{number}.{k + 1}"} for k in range(4)]
        good = {"series": f"1.4.{number}", "names_seed": seed, "per_slice": uids.__getitem__}
        write_series(folder / f"good {number}", voxels((4, 5, 6), seed), **good)
    found = dicom.scan(folder)
    assert listed(found) == files_in(folder) and dicom.scan(folder) == found
    ends = {series.files[0].parent.name: code(series) for series in found.series}
    assert {ends[name] for name in ends if name.startswith("good")} == {""}
    assert {*ends.values(), *(file.code for file in found.rejected)} - {""} <= set(CODES)


# pydicom's own tree: what each of its DICOM files ends in, by code; the rest is read.
TREE = {"read": 62, "TRUNCATED": 59, "COLOUR": 33, "NOT_DICOM": 25, "NOT_AN_IMAGE": 25}
TREE |= {"PIXEL_FORMAT": 3, "MULTI_FRAME": 3, "SCOUT": 2, "DECODING_FAILED": 1}


def by_pydicom(path: Path) -> np.ndarray:
    """Values of a grey image by pydicom alone, `[z, y, x]`; of 12-bit JPEG by SimpleITK."""
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


@pytest.mark.filterwarnings("ignore")  # the files are odd on purpose
@pytest.mark.parametrize("force", [False, True], ids=["", "forced"])
def test_every_file_of_pydicoms_tree_is_an_image_or_a_reason(force):
    ends, failed = Counter(), []
    for path in files_in(ROOT):
        found = dicom.scan(path, force=force)
        assert listed(found) == [path]
        end = outcome(found.series[0]) if found.series else found.rejected[0]
        name = getattr(end, "code", "read")
        ends[name] += 1
        assert name == "read" or name in CODES
        if isinstance(end, Volume):
            try:
                np.testing.assert_allclose(end.voxels, by_pydicom(path), rtol=1e-6)
                theirs = sitk.ReadImage(str(path))
                if theirs.GetDimension() == 3 and theirs.GetSize()[2] == len(end.voxels):
                    assert np.allclose(end.origin, theirs.GetOrigin(), atol=1e-3)
                    direction = np.reshape(theirs.GetDirection(), (3, 3))
                    assert np.allclose(end.direction, direction, atol=1e-4)
            except RuntimeError:  # SimpleITK cannot read it
                pass
            except AssertionError as error:
                failed.append((path.name, str(error)))
        elif isinstance(end, CourseDataError):
            with pytest.raises((RuntimeError, ValueError)):
                by_pydicom(path)
    assert not failed, failed
    assert force or ends == TREE


def test_cut_off_or_damaged_anywhere_a_file_ends_as_an_image_or_a_reason(tmp_path):
    contents = [path.read_bytes()[:30000] for path in files_in(ROOT)]

    def check(change, folder):
        folder.mkdir()
        for number, content in enumerate(contents):
            (folder / f"{number}.dcm").write_bytes(change(bytearray(content)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = dicom.scan(folder)
            assert listed(found) == files_in(folder)
            for series in found.series:
                assert code(series) in ("", *CODES)

    def damage(seed):
        def change(content):
            rng = np.random.default_rng([seed, len(content)])
            for place in rng.integers(132, max(133, min(len(content), 2000)), 12):
                if len(content) > 200:
                    content[place] = rng.integers(256)
            return content

        return change

    cuts = (0, 1, 100, 131, 132, 140, 200, 1000, 5000, 20000)
    rows = {f"cut at {cut}": lambda content, cut=cut: content[:cut] for cut in cuts}
    rows |= {f"damaged {seed}": damage(seed) for seed in range(4)}
    each(rows, check, tmp_path)
