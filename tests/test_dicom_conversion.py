"""A DICOM folder becomes cases and rejections, each file once, and no name gets any further."""

import concurrent.futures
import multiprocessing
import shutil
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
from pydicom.dataset import Dataset

from helpers import dicom, phantoms
from helpers.cases import Case, Found
from helpers.dicom.conversion import MODALITIES, NOTES
from helpers.errors import CODES, CourseDataError
from tests.dicom_files import (
    SAGITTAL,
    SERIES,
    each,
    few,
    image,
    save,
    voxels,
    write,
    write_enhanced,
    write_series,
)  # fmt: skip

PLACELESS = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
X_RAY = {"SOPClassUID": uid.DigitalXRayImageStorageForPresentation, "Modality": "DX", **PLACELESS}
US = {"SOPClassUID": uid.UltrasoundImageStorage, "Modality": "US"}
CAPTURE = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "ConversionType": "WSD"}
SHAPE = (3, 33, 36)  # large enough for JPEG 2000


def codes(folder: Path, **options) -> str:
    """Of what is rejected, each once."""
    return " ".join(sorted({file.code for file in dicom.find(folder, **options).rejected}))


def only(folder: Path, **options) -> Case:
    """The one case of a folder without rejections."""
    found = dicom.find(folder, **options)
    assert found.rejected == ()
    (case,) = found.cases
    return case


def refusal(case: Case) -> CourseDataError:
    with pytest.raises(CourseDataError) as refused:
        dicom.load(case)
    return refused.value


def each_once(found: Found, folder: Path) -> bool:
    listed = [path for one in (*found.cases, *found.rejected) for path in one.files]
    return sorted(listed) == sorted(path for path in folder.rglob("*") if path.is_file())


# Text in the pixels: elements, the code of `find`, and of `find(allow_unchecked=True)`

NO, YES = {"BurnedInAnnotation": "NO"}, {"BurnedInAnnotation": "YES"}
BURNED = {
    "a CT that does not speak of it": ({}, "", ""),
    "a CT that denies it": (NO, "", ""),
    "a CT that denies it quietly": ({"BurnedInAnnotation": "no"}, "", ""),
    "a CT that says nothing": ({"BurnedInAnnotation": ""}, "", ""),
    **{answer: ({"BurnedInAnnotation": answer}, "BURNED_IN", "BURNED_IN")
       for answer in ("YES", "yes", "Y", "UNKNOWN", "NO\\YES")},
    "an ultrasound that denies it": (US | NO, "", ""),
    "a capture that admits it": (CAPTURE | YES, "BURNED_IN", "BURNED_IN"),
    "ultrasound": (US, "BURNED_IN", ""),
    "ultrasound by its class alone": (US | {"Modality": None}, "BURNED_IN", ""),
    "ultrasound by its modality alone": ({"Modality": "US"}, "BURNED_IN", ""),
    "ultrasound inside a vessel": ({"Modality": "IVUS"}, "BURNED_IN", ""),
    "a capture by its class alone": ({"SOPClassUID": CAPTURE["SOPClassUID"]}, "BURNED_IN", ""),
    "a screen saved as CT": ({"ImageType": ["DERIVED", "OTHER", "SCREEN SAVE"]}, "BURNED_IN", ""),
    **{kind: ({"ConversionType": kind}, "BURNED_IN", "")
       for kind in ("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN")},
    "one slice admits": ({"per_slice": [NO, YES, NO].__getitem__}, "BURNED_IN", "BURNED_IN"),
    "one slice is silent": (US | {"per_slice": [NO, {}, NO].__getitem__}, "BURNED_IN", ""),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # values that the standard does not know
def test_stated_text_is_refused_and_likely_text_unless_it_is_allowed(tmp_path):
    def check(row, folder):
        elements, expected, allowed = row
        paths = write_series(folder, voxels(SHAPE), **elements)
        for options, named in (({}, expected), ({"allow_unchecked": True}, allowed)):
            found = dicom.find(folder, **options)
            assert [file.code for file in found.rejected] == [named] * bool(named)
            assert {*(found.rejected or found.cases)[0].files} == set(paths)

    each(BURNED, check, tmp_path)


def test_the_answer_and_the_patient_are_found_in_every_kind_of_file(tmp_path):
    syntaxes = {
        uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
    }  # fmt: skip

    def check(kind, folder):
        for answer, expected in ((YES, "BURNED_IN"), (NO, "")):
            stated = {"PatientID": "7"} | answer
            if kind == "enhanced":
                places = [{"position": (0, 0, k)} for k in range(3)]
                write_enhanced(folder / "a", voxels(SHAPE), places, **stated)
            elif kind == "no preamble":
                save(image(voxels((4, 5)), **stated), folder / "a", preamble=False)
                assert codes(folder) == "NOT_DICOM"
            elif isinstance(kind, int):
                dataset = image(voxels((4, 5)), **stated)
                dataset.add_new(0x00090010, "LO", "PRIVATE")
                dataset.add_new(0x00091002, "OB", b"\1" * 1024 * kind)
                save(dataset, folder / "a")
            else:
                write_series(folder, voxels(SHAPE), syntax=kind, **stated)
            assert codes(folder, force=True) == expected
        assert only(folder, force=True).patient == "7"

    kinds = (*syntaxes, "enhanced", "no preamble", 1, 15, 16, 17, 3000)
    each({str(kind): kind for kind in kinds}, check, tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_the_classes_held_back_are_those_with_ultrasound_or_capture_in_their_name(tmp_path):
    names = {one: entry[0] for one, entry in uid.UID_dictionary.items() if "Storage" in entry[0]}
    kinds = ("Ultrasound", "US Volume", "Secondary Capture", "Photoacoustic")
    likely = {one for one, name in names.items() if any(kind in name for kind in kinds)}
    for number, one in enumerate(names):
        write(tmp_path / one, voxels((4, 5)), SOPClassUID=one, Modality="OT", series=f"1.{number}")
    found = dicom.find(tmp_path)
    codes = {file.files[0].name: file.code for file in found.rejected}
    assert {one for one, code in codes.items() if code == "BURNED_IN"} == likely
    others = {names[one] for one, code in codes.items() if code == "NOT_AN_IMAGE"}
    assert not any("Image Storage" in name for name in others)
    assert len(found.cases) == len(names) - len(likely) - len(others) > 60


# Patients


def patients(folder: Path) -> list[str]:
    found = dicom.find(folder)
    assert found.rejected == ()
    return [case.patient for case in found.cases]


A, B = {"PatientID": "7", "IssuerOfPatientID": "EAST"}, {"PatientID": "7"}
STUDY = {"StudyInstanceUID": "2.1"}
PEOPLE = {  # what the series of a folder state: whose they are
    "one id in two studies": ([B | STUDY, {"PatientID": "7 ", "StudyInstanceUID": "2.2"}], "7 7"),
    "two ids": ([B, {"PatientID": "8"}], "7 8"),
    "one id of two issuers": ([A, B | {"IssuerOfPatientID": "WEST"}], "7^^^EAST 7^^^WEST"),
    "an issuer that is missing": ([A | STUDY, B | STUDY], "7^^^EAST 7^^^EAST"),
    "an id that is missing": ([STUDY, A | STUDY], "7^^^EAST 7^^^EAST"),
    "an empty id": ([A | STUDY, {"PatientID": ""} | STUDY], "7^^^EAST 7^^^EAST"),
    "nobody named, one study": ([STUDY, STUDY], "2.1 2.1"),
    "nobody named, no study": ([{"IssuerOfPatientID": "EAST"}, {}], "1.0 1.1"),
    # As SimpleITK's writer leaves it: a study for each file, and nobody named.
    "nobody named, many studies": ([{"studies": True}, {"studies": True}], "1.0 1.1"),
    "named in one slice, many studies": ([{"studies": True, "first": B}], "7"),
}


def test_whose_an_image_is_follows_from_its_id_its_study_or_its_series(tmp_path):
    def check(row, folder):
        for number, stated in enumerate(row[0]):
            stated = dict(stated)
            many, first = stated.pop("studies", False), stated.pop("first", {})
            studies = [{"StudyInstanceUID": f"3.{number}.{k}"} if many else {} for k in range(3)]
            studies[0] = studies[0] | first
            given = {"series": f"1.{number}", "per_slice": studies.__getitem__}
            write_series(folder / str(number), voxels(SHAPE), **given, **stated)
        assert " ".join(patients(folder)) == row[1]

    each(PEOPLE, check, tmp_path)


def test_a_series_that_simpleitk_wrote_names_nobody_and_is_one_case(tmp_path):
    volume = sitk.GetImageFromArray(voxels(SHAPE))
    for k in range(3):
        one = volume[:, :, k]
        place = {"0020|0032": f"0\\0\\{k}", "0020|0037": "1\\0\\0\\0\\1\\0", "0020|000e": SERIES}
        for tag, value in (place | {"0008|0060": "CT"}).items():
            one.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(tmp_path / f"{k}.dcm"))
        writer.Execute(one)
    case = only(tmp_path, allow_unchecked=True)
    assert len({pydicom.dcmread(path).StudyInstanceUID for path in case.files}) == 3
    assert (case.patient, case.name) == (SERIES, SERIES)


def test_a_series_that_names_two_patients_is_refused(tmp_path):
    named = [{"PatientID": name} for name in ("7", "7", "8")]
    paths = write_series(tmp_path, voxels(SHAPE), per_slice=named.__getitem__, **STUDY)
    found = dicom.find(tmp_path)
    (file,) = found.rejected
    assert (found.cases, file.code, set(file.files)) == ((), "MIXED_SLICES", set(paths))


# Names


def nameless(path: Path) -> None:
    """Take away what names the image."""
    dataset = pydicom.dcmread(path)
    del dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=False)


def test_a_case_is_named_by_its_uids_whatever_else_lies_in_the_folder(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    shapes = {
        "a": ((4, 5, 6), SAGITTAL),
        "b": ((4, 5, 6), (1, 0, 0, 0, 1, 0)),
        "c": ((4, 9, 9), SAGITTAL),
    }
    for name, (shape, orientation) in shapes.items():
        uids = [{"SOPInstanceUID": f"1.2.3.{ord(name)}.{k}"} for k in range(4)]
        given = {"orientation": orientation, "per_slice": uids.__getitem__}
        write_series(before / name, voxels(shape), **given)
    names = {case.name for case in dicom.find(before).cases}
    assert len(names) == 3 and all(name.startswith(f"{SERIES} 1.2.3.") for name in names)
    (after / "z").mkdir(parents=True)
    for number, path in enumerate(sorted(before.rglob("*.dcm"), reverse=True)):
        shutil.copy(path, after / ("z" if number % 2 else "") / f"{number}")
    write_series(after / "y", voxels(), series="1.2.3")
    assert {case.name for case in dicom.find(after).cases} == names | {"1.2.3"}


def test_images_without_any_uid_are_named_by_their_place_below_the_folder(tmp_path):
    for name in ("a.dcm", "b.dcm"):
        nameless(write(tmp_path / "one" / "sub" / name, voxels((4, 5)), SeriesInstanceUID=None))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = ([case.name for case in dicom.find(tmp_path / f).cases] for f in ("one", "two"))
    assert one == two and len(set(one)) == 2 and str(tmp_path) not in one[0]
    (tmp_path / "two" / "sub" / "b.dcm").unlink()
    assert only(tmp_path / "two").name == one[0]


# Images of their own


def test_radiographs_of_one_series_are_cases_of_their_own_and_copies_count_once(tmp_path):
    stored = voxels(SHAPE, low=0)
    paths = write_series(tmp_path, stored, PatientID="7", **X_RAY)
    names = {case.name for case in dicom.find(tmp_path).cases}
    copy = shutil.copy(paths[0], tmp_path / "z.dcm")
    found = dicom.find(tmp_path)
    assert each_once(found, tmp_path)
    assert {case.name for case in found.cases} == names and len(names) == 3
    assert {case.patient for case in found.cases} == {"7"}
    sums = sorted(int(dicom.load(case)["image"].sum()) for case in found.cases)
    assert sums == sorted(int(pixels.sum()) for pixels in stored)
    name = pydicom.dcmread(paths[0]).SOPInstanceUID
    write(copy, voxels((33, 36), seed=1), SOPInstanceUID=name, **X_RAY)
    ends = [refusal(case).code for case in dicom.find(tmp_path).cases if copy in case.files]
    assert ends == ["CONFLICTING_DUPLICATE"]
    paths[1].write_bytes(paths[1].read_bytes()[:-100])  # and damage stays where it is
    assert codes(tmp_path) == "TRUNCATED" and len(dicom.find(tmp_path).cases) == 2


def test_placeless_slices_and_frames_are_not_taken_for_copies(tmp_path):
    for name in ("a.dcm", "b.dcm"):
        nameless(write(tmp_path / "one" / name, voxels((4, 5)), **PLACELESS))
    frames, groups = [{"position": (0, 0, k)} for k in range(2)], [Dataset(), Dataset()]
    same = np.repeat(voxels((1, 4, 5)), 2, axis=0)
    write_enhanced(tmp_path / "two" / "a", same, frames, PerFrameFunctionalGroupsSequence=groups)
    write_series(tmp_path / "three", voxels((2, 4, 5)), **PLACELESS)
    for folder in ("one", "two", "three"):
        assert refusal(only(tmp_path / folder)).code == "NO_GEOMETRY"


def test_an_image_without_position_has_the_spacing_that_it_states(tmp_path):
    path = tmp_path / "a.dcm"
    rows = [
        ({"PixelSpacing": ["0.2", "0.3"]}, (1.0, 0.2, 0.3)),
        ({"PixelSpacing": None, "ImagerPixelSpacing": ["0.1", "0.15"]}, (1.0, 0.1, 0.15)),
        ({"PixelSpacing": None}, None),
        ({"PixelSpacing": ["0", "0"]}, None),
    ]
    for modality in ("DX", "CR", "MG", "US", "XA"):
        for stated, spacing in rows:
            write(path, voxels((4, 5)), **(X_RAY | NO | stated | {"Modality": modality}))
            element = dicom.load(only(tmp_path))
            np.testing.assert_array_equal(element["image"], voxels((1, 4, 5)))
            assert element["modality"] == modality
            assert element.get("spacing") == (spacing and pytest.approx(spacing))


# Loading


@pytest.mark.parametrize("syntax", [uid.ExplicitVRBigEndian, uid.JPEG2000Lossless])
def test_an_element_is_the_volume_in_lps_order_with_its_spacing_and_modality(tmp_path, syntax):
    stored = voxels(SHAPE, low=0)
    place = {"spacing": (0.8, 0.7), "orientation": SAGITTAL}
    write_series(tmp_path, stored, syntax=syntax, RescaleIntercept="-24", **place)
    element = dicom.load(only(tmp_path))
    assert set(element) == {"image", "spacing", "modality", "notes"}
    expected = sitk.DICOMOrient(dicom.read_series(tmp_path).to_sitk(), "LPS")
    np.testing.assert_array_equal(element["image"], sitk.GetArrayFromImage(expected))
    assert element["image"].dtype == np.int16 and element["image"].max() == stored.max() - 24
    assert element["spacing"] == pytest.approx(expected.GetSpacing()[::-1])
    assert element["modality"] == "CT" and element["notes"] == (NOTES["turned"],)


@pytest.mark.filterwarnings("ignore")  # values that the standard does not know
@pytest.mark.parametrize("text", ["DOE^JANE", "CT DOE", "CT\\DOE", "", None])
def test_a_modality_that_is_no_defined_term_stays_out(tmp_path, text):
    write_series(tmp_path, voxels(), Modality=text)
    assert set(dicom.load(only(tmp_path))) == {"image", "spacing"}


def test_what_cannot_be_loaded_is_refused_without_its_path(tmp_path):
    def check(row, folder):
        stored, syntax, expected = row
        paths = write_series(folder, stored, syntax=syntax)
        case = only(folder)
        if expected == "UNREADABLE":
            paths[1].unlink()
        refused = refusal(case)
        assert refused.code == expected and set(refused.files) <= set(paths)
        assert "/" not in refused.message and paths[1].name not in refused.message

    odd, native = voxels().astype("float32"), uid.ExplicitVRLittleEndian
    odd[2, 3, 4] = np.nan
    rows = {"zeros": (np.zeros((3, 4, 5), np.int16), native, "CONSTANT")}
    rows |= {"all alike": (np.full((3, 4, 5), -9, np.int16), native, "CONSTANT")}
    rows |= {"NaN": (odd, native, "NOT_FINITE"), "gone": (voxels(SHAPE), native, "UNREADABLE")}
    rows |= {"gone, RLE": (voxels(SHAPE), uid.RLELossless, "UNREADABLE")}
    rows |= {"gone, deflated": (voxels(), uid.DeflatedExplicitVRLittleEndian, "UNREADABLE")}
    each(rows, check, tmp_path)


@few
@given(
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "float32"]),
    bits=st.sampled_from([1, 7, 8, 12, 15, 16]),
    slope=st.sampled_from(["1", "-1", "3", "0.5", None]),
    intercept=st.sampled_from(["-1024", "0.25", "32767", None]),
    seed=st.integers(0, 100),
)
def test_the_size_is_that_of_the_voxels(tmp_path, dtype, bits, slope, intercept, seed):
    kind = np.dtype(dtype)
    bits = min(bits, 8 * kind.itemsize)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if kind.kind == "i" else (0, 2**bits)
    stored = np.random.default_rng(seed).integers(low, high, (2, 4, 5)).astype(dtype)
    stored[0, 0, :2] = low, high - 1
    write_series(tmp_path, stored, RescaleSlope=slope, RescaleIntercept=intercept, BitsStored=bits)
    case = only(tmp_path)
    # The smallest and the largest value are there: the header tells as much as reading.
    assert case.size == dicom.load(case)["image"].nbytes
    write_series(tmp_path, stored[:, ::-1], RescaleIntercept="-1024")
    assert only(tmp_path).size >= dicom.load(only(tmp_path))["image"].nbytes


def test_a_case_is_loaded_alike_in_a_process_of_its_own(tmp_path):
    for number in range(2):
        write_series(tmp_path / str(number), voxels(seed=number), series=f"1.{number}")
    cases = dicom.find(tmp_path).cases
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        there = list(pool.map(dicom.load, cases))
    for number, element in enumerate(there):
        np.testing.assert_array_equal(element["image"], voxels(seed=number))


# Every file once


def ends(found: Found) -> Counter:
    """What loading each case ends in."""
    counted = Counter()
    for case in found.cases:
        try:
            element = dicom.load(case)
            assert np.isfinite(element["image"]).all() and element["image"].ndim == 3
            assert {element.get("modality", "CT")} <= MODALITIES
            assert set(element.get("notes", ())) <= set(NOTES.values())
            counted["read"] += 1
        except CourseDataError as error:
            counted[error.code] += 1
    return counted


def test_a_messy_folder_is_all_cases_and_rejections(tmp_path):
    disc = phantoms.messy_folder(tmp_path)
    found = dicom.find(disc)
    assert each_once(found, disc) and found.files == 252
    counted = Counter(file.code for file in found.rejected)
    assert counted == {"NOT_AN_IMAGE": 4, "NOT_DICOM": 3, "SCOUT": 1}
    assert ends(found) == {"read": 6}
    assert Counter(case.patient for case in found.cases)["PHANTOM-0200"] == 3


@pytest.mark.filterwarnings("ignore")  # the files are odd on purpose
def test_every_file_that_comes_with_pydicom_is_loaded_or_rejected():
    root = Path(pydicom.data.__file__).parent
    for allow in (False, True):
        found = dicom.find(root, allow_unchecked=allow)
        assert each_once(found, root)
        assert {file.code for file in found.rejected} <= set(CODES)
        assert len({case.name for case in found.cases}) == len(found.cases)
        assert ends(found)["read"] >= (31 if allow else 20)


def test_what_was_done_goes_on_record_in_fixed_words(tmp_path):
    write(
        tmp_path / "a" / "doe.dcm",
        voxels((4, 5)),
        **X_RAY | {"PhotometricInterpretation": "MONOCHROME1"},
    )
    assert "MONOCHROME1 inverted" in dicom.load(only(tmp_path / "a"))["notes"]
    first, *_ = write_series(tmp_path / "b", voxels(SHAPE))
    shutil.copy(first, first.with_name("jane_doe.dcm"))
    assert dicom.load(only(tmp_path / "b"))["notes"] == (NOTES["copies counted once"],)
    # Each start is one of a note that reading really gives.
    texts = "".join(path.read_text() for path in Path(dicom.__file__).parent.glob("s*.py"))
    texts += (Path(dicom.__file__).parents[1] / "volume.py").read_text()
    assert all(f'"{start}' in texts for start in NOTES)
