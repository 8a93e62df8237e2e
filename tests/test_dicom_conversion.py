"""A DICOM folder becomes cases and rejections, each file once, and no name gets any further."""

import multiprocessing
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import uid

from helpers import dicom
from helpers.cases import Case, Found
from helpers.errors import CourseDataError
from helpers.volume import TURNED
from tests.dicom_ends import files_in
from tests.dicom_files import NOWHERE, SAGITTAL, SERIES, voxels, write, write_series

X_RAY = {"SOPClassUID": uid.DigitalXRayImageStorageForPresentation, "Modality": "DX", **NOWHERE}


def only(folder: Path) -> Case:
    (case,) = dicom.find(folder).cases
    return case


def ends(found: Found, folder: Path) -> Counter:
    """What the files of a folder end in: a code each; `read` for a case."""
    listed = [path for one in (*found.cases, *found.rejected) for path in one.files]
    assert sorted(listed) == files_in(folder)
    counted = Counter(file.code for file in found.rejected)
    for case in found.cases:
        try:
            element = dicom.load(case)
            assert np.isfinite(element["image"]).all() and case.size >= element["image"].nbytes
            counted["read"] += 1
        except CourseDataError as error:
            counted[error.code] += 1
    return counted


US = {"SOPClassUID": uid.UltrasoundMultiFrameImageStorage}
CAPTURE = {"SOPClassUID": uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage}
NO, YES = {"BurnedInAnnotation": "NO"}, {"BurnedInAnnotation": "YES"}
BURNED = {  # elements, and whether they are refused: always, unless allowed, or never
    "a CT that does not speak of it": ({}, "never"),
    "a CT that denies it": (NO, "never"),
    "a CT that admits it": (YES, "always"),
    "one slice admits it": ({"per_slice": [NO, YES, NO]}, "always"),
    "a capture that admits it": (CAPTURE | YES, "always"),
    "a capture": (CAPTURE, "unless"),
    "ultrasound of which one slice is silent": (US | {"per_slice": [NO, {}, NO]}, "unless"),
    "ultrasound by its modality": ({"Modality": "us"}, "unless"),
    "a scanned film": ({"ConversionType": "DF"}, "unless"),
    "photoacoustic": ({"SOPClassUID": uid.PhotoacousticImageStorage}, "unless"),
    "a screen saved as CT": ({"ImageType": ["DERIVED", "OTHER", "SCREEN SAVE"]}, "unless"),
}


@pytest.mark.parametrize("elements, refused", BURNED.values(), ids=BURNED)
def test_stated_text_is_refused_and_likely_text_unless_allowed(tmp_path, elements, refused):
    write_series(tmp_path, voxels((3, 4, 5)), **elements)
    for allow in (False, True):
        held = refused == "always" or (refused == "unless" and not allow)
        end = ends(dicom.find(tmp_path, allow_unchecked=allow), tmp_path)
        assert end == {"BURNED_IN" if held else "read": 1}


A, B = {"PatientID": "7", "IssuerOfPatientID": "EAST"}, {"PatientID": "7"}
STUDY, OTHER = {"StudyInstanceUID": "2.1"}, {"StudyInstanceUID": "2.2"}
# As SimpleITK's writer leaves it: a study for each file, and nobody named.
STUDIES = {"per_slice": [{"StudyInstanceUID": f"3.{k}"} for k in range(3)]}
PEOPLE = {  # what the series of a folder state: whose they are
    "one id in two studies": ([B | STUDY, {"PatientID": "7 "} | OTHER], "7 7"),
    "one id of two issuers": ([A, B | {"IssuerOfPatientID": "WEST"}], "7^^^EAST 7^^^WEST"),
    "an issuer that is missing": ([A | STUDY, B | STUDY], "7^^^EAST 7^^^EAST"),
    "nobody named, one study": ([STUDY, STUDY], "2.1 2.1"),
    "nobody named, no study": ([{}, {}], "1.0 1.1"),
    "one of two named, no study": ([B, {}], "7 1.1"),
    "nobody named, many studies": ([STUDIES, STUDIES], "1.0 1.1"),
    "two ids in a series": ([{"per_slice": [B, B, {"PatientID": "8"}]}], "MIXED_SLICES"),
}


@pytest.mark.parametrize("people, expected", PEOPLE.values(), ids=PEOPLE)
def test_an_image_is_whose_its_id_its_study_or_its_series_says(tmp_path, people, expected):
    for number, stated in enumerate(people):
        write_series(tmp_path / f"{number}", voxels((3, 4, 5)), series=f"1.{number}", **stated)
    found = dicom.find(tmp_path)
    whose = [case.patient for case in found.cases] + [file.code for file in found.rejected]
    assert " ".join(whose) == expected


def test_a_case_is_named_by_its_uids_or_its_place_whatever_else_lies_in_the_folder(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    for name, size in (("1", 5), ("2", 9)):  # two parts of one series
        own = [{"SOPInstanceUID": f"1.3.{name}.{k}"} for k in range(4)]
        write_series(before / name, voxels((4, size, 6)), per_slice=own)
    nameless = write(before / "a.dcm", voxels((4, 5)), SeriesInstanceUID=None)
    dataset = pydicom.dcmread(nameless)
    del dataset.SOPInstanceUID
    dataset.save_as(nameless, enforce_file_format=False)
    shutil.copytree(before, after)
    shutil.move(after / "1", after / "z")
    write_series(after / "y", voxels(), series="1.2.3")
    names = [{case.name for case in dicom.find(one).cases} for one in (before, after)]
    assert [len(one) for one in names] == [3, 4] and names[0] < names[1]
    assert "before" not in str(names)


@pytest.mark.parametrize("odd", [X_RAY, {"SeriesInstanceUID": None}])
def test_images_that_are_no_slices_are_cases_of_their_own_and_copies_count_once(tmp_path, odd):
    stored = voxels((3, 4, 5), low=0)
    paths = write_series(tmp_path, stored, PatientID="7", **odd)
    for copy in (tmp_path / "y.dcm", tmp_path / "z.dcm"):
        shutil.copy(paths[0], copy)
    found = dicom.find(tmp_path)
    assert ends(found, tmp_path) == {"read": 3}
    assert {case.patient for case in found.cases} == {"7"}
    sums = sorted(int(dicom.load(case)["image"].sum()) for case in found.cases)
    assert sums == sorted(int(pixels.sum()) for pixels in stored)
    write(copy, voxels((4, 5), seed=1), SOPInstanceUID=f"{SERIES}.1", **odd)
    paths[1].write_bytes(paths[1].read_bytes()[:-10])  # and damage stays where it is
    expected = {"read": 1, "CONFLICTING_DUPLICATE": 1, "TRUNCATED": 1}
    assert ends(dicom.find(tmp_path), tmp_path) == expected


STATED = [  # a keyword with two lengths, the modality; the spacing, and how many notes
    ("PixelSpacing", "DX", (1, 0.1, 0.15), 2),
    ("ImagerPixelSpacing", "DOE^JANE", (1, 0.1, 0.15), 3),
    ("BodyPartThickness", None, None, 3),
]


@pytest.mark.filterwarnings("ignore")  # values that the standard does not know
@pytest.mark.parametrize("keyword, modality, spacing, notes", STATED)
def test_spacing_and_modality_are_those_stated_or_none(tmp_path, keyword, modality, spacing, notes):
    stated = X_RAY | {"Modality": modality, "PixelSpacing": None, keyword: ["0.1", "0.15"]}
    write(tmp_path / "a.dcm", voxels((4, 5)), **stated)
    element = dicom.load(only(tmp_path))
    np.testing.assert_array_equal(element["image"], voxels((1, 4, 5)))
    assert element.get("spacing") == spacing and len(element["notes"]) == notes
    assert element.get("modality") == ("DX" if modality == "DX" else None)


def test_an_element_is_the_volume_in_lps_order_and_alike_in_another_process(tmp_path):
    odd = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 7}
    paths = write_series(tmp_path, voxels(), orientation=SAGITTAL, spacing=(0.8, 0.7), **odd)
    shutil.copy(paths[0], tmp_path / "DOE: JANE.dcm")
    (tmp_path / "DOE.dcm").symlink_to("nowhere")
    words = {"copies counted once", "files left out beside the series", TURNED}  # and no names
    words |= {"padded voxels keep the padding value", "MONOCHROME1 inverted"}
    case = only(tmp_path)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        elements = [dicom.load(case), pool.submit(dicom.load, case).result()]
    expected = sitk.DICOMOrient(dicom.read_series(tmp_path).to_sitk(), "LPS")
    for element in elements:
        np.testing.assert_array_equal(element.pop("image"), sitk.GetArrayFromImage(expected))
        assert element.pop("spacing") == pytest.approx(expected.GetSpacing()[::-1])
        assert {*element.pop("notes")} == words and element == {"modality": "CT"}


def test_a_file_that_is_gone_is_refused_without_its_path(tmp_path):
    paths = write_series(tmp_path, voxels())
    case = only(tmp_path)
    paths[1].unlink()
    with pytest.raises(CourseDataError) as error:
        dicom.load(case)
    assert error.value.code == "UNREADABLE" and set(error.value.files) == set(paths)
    assert "/" not in error.value.message and paths[1].name not in error.value.message
