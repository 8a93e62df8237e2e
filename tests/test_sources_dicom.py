"""A DICOM folder becomes cases and rejections, each file once, and no name gets any further."""

import concurrent.futures
import multiprocessing
import shutil
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    UID_dictionary,
    UltrasoundImageStorage,
)

from helpers import dicom, phantoms, sources_dicom
from helpers.cases import Case, Found
from helpers.errors import CODES, CourseDataError
from helpers.volume import Volume
from tests.dicom_files import (
    SAGITTAL,
    SERIES,
    image,
    save,
    voxels,
    write,
    write_enhanced,
    write_series,
)

PLACELESS = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
X_RAY = {"SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX", **PLACELESS}
US = {"SOPClassUID": UltrasoundImageStorage, "Modality": "US"}
CAPTURE = {"SOPClassUID": SecondaryCaptureImageStorage, "ConversionType": "WSD", "Modality": "CT"}
SHAPE = (3, 33, 36)  # large enough for JPEG 2000


def codes(found: Found) -> list[str]:
    return sorted(file.code for file in found.rejected)


def only(folder: Path, **options) -> Case:
    """The one case of a folder without rejections."""
    found = sources_dicom.find(folder, **options)
    assert found.rejected == ()
    (case,) = found.cases
    return case


def refusal(case: Case) -> CourseDataError:
    with pytest.raises(CourseDataError) as refused:
        sources_dicom.load(case)
    return refused.value


def each_once(found: Found, folder: Path) -> bool:
    listed = [path for one in (*found.cases, *found.rejected) for path in one.files]
    return sorted(listed) == sorted(path for path in folder.rglob("*") if path.is_file())


# Text in the pixels


@pytest.mark.parametrize("kind", [{}, US, CAPTURE], ids=["CT", "ultrasound", "capture"])
@pytest.mark.parametrize("allow", [False, True])
def test_stated_text_in_one_slice_refuses_the_series_and_nobody_can_switch_that_off(
    tmp_path, kind, allow
):
    stated = [{"BurnedInAnnotation": answer} for answer in ("NO", "YES", "NO")]
    paths = write_series(tmp_path, voxels(SHAPE), per_slice=stated.__getitem__, **kind)
    found = sources_dicom.find(tmp_path, allow_unchecked=allow)
    (file,) = found.rejected
    assert (found.cases, file.code, set(file.files)) == ((), "BURNED_IN", set(paths))
    assert "1 of 3" in file.reason


@pytest.mark.filterwarnings("ignore")  # values that the standard does not know
@pytest.mark.parametrize("answer", ["yes", "Y", "UNKNOWN", "NO\\YES"])
def test_any_answer_but_no_counts_as_yes(tmp_path, answer):
    write_series(tmp_path, voxels(), BurnedInAnnotation=answer)
    assert codes(sources_dicom.find(tmp_path, allow_unchecked=True)) == ["BURNED_IN"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("answer", ["NO", "no", None, ""])
def test_a_ct_that_denies_text_or_does_not_speak_of_it_is_taken(tmp_path, answer):
    write_series(tmp_path, voxels(), BurnedInAnnotation=answer)
    assert only(tmp_path).files == dicom.scan(tmp_path).series[0].files


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless],
    ids=["implicit", "big endian", "deflated", "RLE"],
)
def test_the_answer_is_found_in_every_encoding(tmp_path, syntax):
    write_series(tmp_path, voxels(SHAPE), syntax=syntax, BurnedInAnnotation="YES", PatientID="7")
    assert codes(sources_dicom.find(tmp_path)) == ["BURNED_IN"]
    write_series(tmp_path, voxels(SHAPE), syntax=syntax, BurnedInAnnotation="NO", PatientID="7")
    assert only(tmp_path).patient == "7"


@pytest.mark.parametrize("kilobytes", [1, 15, 16, 17, 3000])
def test_the_answer_is_found_behind_any_length_of_private_data(tmp_path, kilobytes):
    dataset = image(voxels((4, 5)), BurnedInAnnotation="YES")
    dataset.add_new(0x00090010, "LO", "PRIVATE")
    dataset.add_new(0x00091002, "OB", b"\1" * 1024 * kilobytes)
    save(dataset, tmp_path / "a.dcm")
    assert codes(sources_dicom.find(tmp_path)) == ["BURNED_IN"]


def test_the_answer_is_found_without_a_preamble(tmp_path):
    save(image(voxels((4, 5)), BurnedInAnnotation="YES"), tmp_path / "a.dcm", preamble=False)
    assert codes(sources_dicom.find(tmp_path)) == ["NOT_DICOM"]
    assert codes(sources_dicom.find(tmp_path, force=True)) == ["BURNED_IN"]


def test_the_answer_and_the_patient_of_a_multi_frame_file_are_found(tmp_path):
    frames = [{"position": (0, 0, k)} for k in range(3)]
    path = write_enhanced(tmp_path / "a.dcm", voxels(SHAPE), frames, PatientID="7")
    assert (only(tmp_path).patient, only(tmp_path).files) == ("7", (path,))
    write_enhanced(path, voxels(SHAPE), frames, BurnedInAnnotation="YES")
    (file,) = sources_dicom.find(tmp_path).rejected
    assert (file.code, file.files) == ("BURNED_IN", (path,))


LIKELY = {
    "ultrasound": US,
    "ultrasound by its class alone": {**US, "Modality": None},
    "ultrasound by its modality alone": {"Modality": "US"},
    "ultrasound inside a vessel": {"Modality": "IVUS"},
    "capture by its class alone": {"SOPClassUID": SecondaryCaptureImageStorage},
    "a screen saved as CT": {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    **{
        f"conversion {kind}": {"ConversionType": kind}
        for kind in ("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN")
    },
}


@pytest.mark.parametrize("kind", LIKELY.values(), ids=LIKELY)
def test_ultrasound_and_captures_have_to_deny_text_or_be_allowed(tmp_path, kind):
    paths = write_series(tmp_path, voxels(), **kind)
    (file,) = sources_dicom.find(tmp_path).rejected
    assert (file.code, set(file.files)) == ("BURNED_IN", set(paths))
    assert "5 of 5" in file.reason
    assert len(only(tmp_path, allow_unchecked=True).files) == 5
    write_series(tmp_path, voxels(), BurnedInAnnotation="NO", **kind)
    assert len(only(tmp_path).files) == 5


def test_one_slice_that_does_not_deny_text_is_enough(tmp_path):
    answers = [{"BurnedInAnnotation": "NO"}, {}, {"BurnedInAnnotation": "NO"}]
    write_series(tmp_path, voxels(SHAPE), per_slice=answers.__getitem__, **US)
    (file,) = sources_dicom.find(tmp_path).rejected
    assert (file.code, "1 of 3" in file.reason) == ("BURNED_IN", True)


@pytest.mark.filterwarnings("ignore")
def test_the_classes_held_back_are_those_with_ultrasound_or_capture_in_their_name(tmp_path):
    names = {uid: entry[0] for uid, entry in UID_dictionary.items() if "Storage" in entry[0]}
    kinds = ("Ultrasound", "US Volume", "Secondary Capture", "Photoacoustic")
    expected = {uid for uid, name in names.items() if any(kind in name for kind in kinds)}
    for number, uid in enumerate(names):
        write(tmp_path / uid, voxels((4, 5)), SOPClassUID=uid, Modality="OT", series=f"1.{number}")
    found = sources_dicom.find(tmp_path)
    assert {file.files[0].name for file in found.rejected} == expected
    assert len(found.cases) == len(names) - len(expected) > 100


# Patients


def patients(folder: Path) -> list[str]:
    found = sources_dicom.find(folder)
    assert found.rejected == ()
    return sorted(case.patient for case in found.cases)


def test_series_of_one_patient_share_the_patient(tmp_path):
    write_series(tmp_path / "a", voxels(), series="1.1", PatientID="7", StudyInstanceUID="2.1")
    write_series(tmp_path / "b", voxels(), series="1.2", PatientID="7 ", StudyInstanceUID="2.2")
    write_series(tmp_path / "c", voxels(), series="1.3", PatientID="8", StudyInstanceUID="2.3")
    assert patients(tmp_path) == ["7", "7", "8"]


def test_one_id_of_two_issuers_is_two_patients(tmp_path):
    for number, issuer in enumerate(["EAST", "WEST", "WEST"]):
        folder = tmp_path / str(number)
        stated = {"PatientID": "7", "IssuerOfPatientID": issuer}
        write_series(folder, voxels(), series=f"1.{number}", **stated)
    assert patients(tmp_path) == ["7^^^EAST", "7^^^WEST", "7^^^WEST"]


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("lacking", [{}, {"PatientID": ""}, {"PatientID": "7"}], ids=str)
def test_a_derived_series_is_known_by_its_study(tmp_path, order, lacking):
    full = {"PatientID": "7", "IssuerOfPatientID": "EAST"}
    write_series(tmp_path / order[0], voxels(), series="1.1", StudyInstanceUID="2.1", **full)
    write_series(tmp_path / order[1], voxels(), series="1.2", StudyInstanceUID="2.1", **lacking)
    assert patients(tmp_path) == ["7^^^EAST", "7^^^EAST"]


def test_without_an_id_the_study_is_the_patient(tmp_path):
    write_series(tmp_path / "a", voxels(), series="1.1", StudyInstanceUID="2.1")
    write_series(tmp_path / "b", voxels(), series="1.2", StudyInstanceUID="2.1")
    write_series(tmp_path / "c", voxels(), series="1.3", IssuerOfPatientID="EAST")
    write_series(tmp_path / "d", voxels(), series="1.4", PatientID="7")
    assert patients(tmp_path) == ["", "2.1", "2.1", "7"]


def test_a_series_that_names_two_patients_is_refused(tmp_path):
    named = [{"PatientID": name} for name in ("7", "7", "8")]
    paths = write_series(tmp_path, voxels(SHAPE), per_slice=named.__getitem__, StudyInstanceUID="2")
    found = sources_dicom.find(tmp_path)
    (file,) = found.rejected
    assert (found.cases, file.code, set(file.files)) == ((), "MIXED_SLICES", set(paths))


# Names


def test_a_series_is_named_by_its_uid(tmp_path):
    write_series(tmp_path / "a", voxels())
    write_series(tmp_path / "b", voxels(), series="1.2.3")
    assert [case.name for case in sources_dicom.find(tmp_path).cases] == [SERIES, "1.2.3"]


def split_series(folder: Path) -> None:
    """One UID in two orientations and two sizes."""
    for name, shape, orientation in (
        ("a", (4, 5, 6), SAGITTAL),
        ("b", (4, 5, 6), (1, 0, 0, 0, 1, 0)),
        ("c", (4, 9, 9), (1, 0, 0, 0, 1, 0)),
    ):
        uids = [{"SOPInstanceUID": f"1.2.3.{ord(name)}.{k}"} for k in range(4)]
        write_series(
            folder / name,
            voxels(shape),
            orientation=orientation,
            per_slice=uids.__getitem__,
        )


def test_parts_of_one_uid_have_names_of_their_own_that_last(tmp_path):
    split_series(tmp_path / "before")
    names = {case.name for case in sources_dicom.find(tmp_path / "before").cases}
    assert len(names) == 3
    assert all(name.startswith(f"{SERIES} ") for name in names)
    (tmp_path / "after" / "z").mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "before").rglob("*.dcm"), reverse=True)):
        shutil.copy(path, tmp_path / "after" / ("z" if number % 2 else "") / f"{number}")
    write_series(tmp_path / "after" / "y", voxels(), series="1.2.3")
    after = {case.name for case in sources_dicom.find(tmp_path / "after").cases}
    assert after == names | {"1.2.3"}


def nameless(path: Path) -> None:
    """Take away what names the image."""
    dataset = pydicom.dcmread(path)
    del dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=False)


def test_images_without_any_uid_are_named_by_their_place_below_the_folder(tmp_path):
    for name in ("a.dcm", "b.dcm"):
        nameless(write(tmp_path / "one" / "sub" / name, voxels((4, 5)), SeriesInstanceUID=None))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (sources_dicom.find(tmp_path / folder) for folder in ("one", "two"))
    assert [case.name for case in one.cases] == [case.name for case in two.cases]
    assert len({case.name for case in one.cases}) == 2
    assert str(tmp_path) not in one.cases[0].name
    (tmp_path / "two" / "sub" / "b.dcm").unlink()
    assert only(tmp_path / "two").name == one.cases[0].name


# Radiographs and other images of their own


def test_radiographs_of_one_series_are_cases_of_their_own(tmp_path):
    stored = voxels(SHAPE, low=0)
    write_series(tmp_path, stored, PatientID="7", **X_RAY)
    found = sources_dicom.find(tmp_path)
    assert len({case.name for case in found.cases}) == 3
    assert {case.patient for case in found.cases} == {"7"}
    elements = [sources_dicom.load(case) for case in found.cases]
    assert {element["image"].shape for element in elements} == {(1, 33, 36)}
    sums = sorted(int(element["image"].sum()) for element in elements)
    assert sums == sorted(int(pixels.sum()) for pixels in stored)


@pytest.mark.parametrize("modality", ["DX", "CR", "MG", "US", "XA"])
def test_an_image_without_position_is_one_slice_with_its_pixel_spacing(tmp_path, modality):
    stored = voxels((33, 36))
    stated = {"Modality": modality, "spacing": (0.2, 0.3), "BurnedInAnnotation": "NO"}
    write(tmp_path / "a.dcm", stored, **PLACELESS, **stated)
    element = sources_dicom.load(only(tmp_path))
    np.testing.assert_array_equal(element["image"], stored[None])
    assert element["spacing"] == pytest.approx((1.0, 0.2, 0.3))
    assert element["modality"] == modality


def test_spacing_at_the_detector_does_and_none_is_invented(tmp_path):
    path = tmp_path / "a.dcm"
    write(path, voxels((4, 5)), PixelSpacing=None, ImagerPixelSpacing=["0.1", "0.15"], **X_RAY)
    assert sources_dicom.load(only(tmp_path))["spacing"] == pytest.approx((1.0, 0.1, 0.15))
    write(path, voxels((4, 5)), PixelSpacing=None, **X_RAY)
    assert "spacing" not in sources_dicom.load(only(tmp_path))
    write(path, voxels((4, 5)), PixelSpacing=["0", "0"], **X_RAY)
    assert "spacing" not in sources_dicom.load(only(tmp_path))


def test_two_ultrasound_images_of_a_series_are_two_cases_but_two_ct_images_are_no_volume(tmp_path):
    write_series(tmp_path, voxels((2, 4, 5)), BurnedInAnnotation="NO", **US, **PLACELESS)
    assert [len(case.files) for case in sources_dicom.find(tmp_path).cases] == [1, 1]
    write_series(tmp_path, voxels((2, 4, 5)), **PLACELESS)
    assert refusal(only(tmp_path)).code == "NO_GEOMETRY"


@pytest.mark.parametrize("kind", [X_RAY, PLACELESS], ids=["radiograph", "CT"])
def test_a_copy_of_an_image_without_position_counts_once(tmp_path, kind):
    path = write(tmp_path / "a.dcm", voxels((4, 5)), **kind)
    name = only(tmp_path).name
    copy = shutil.copy(path, tmp_path / "b.dcm")
    case = only(tmp_path)
    assert (case.name, case.files) == (name, (path, copy))
    np.testing.assert_array_equal(sources_dicom.load(case)["image"], voxels((1, 4, 5)))
    write(copy, voxels((4, 5), seed=1), SOPInstanceUID=pydicom.dcmread(path).SOPInstanceUID, **kind)
    assert refusal(only(tmp_path)).code == "CONFLICTING_DUPLICATE"


def test_images_without_position_or_any_name_are_not_taken_for_copies(tmp_path):
    for name in ("a.dcm", "b.dcm"):
        nameless(write(tmp_path / name, voxels((4, 5)), **PLACELESS))
    assert refusal(only(tmp_path)).code == "NO_GEOMETRY"


def test_frames_without_position_are_not_taken_for_copies(tmp_path):
    stored = np.repeat(voxels((1, 4, 5)), 2, axis=0)
    frames = [{"position": (0, 0, k)} for k in range(2)]
    groups = [Dataset(), Dataset()]
    write_enhanced(tmp_path / "a", stored, frames, PerFrameFunctionalGroupsSequence=groups)
    assert refusal(only(tmp_path)).code == "NO_GEOMETRY"


# Loading


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, JPEG2000Lossless], ids=["big", "jpeg"])
def test_an_element_is_the_volume_with_its_spacing_and_modality(tmp_path, syntax):
    stored = voxels(SHAPE, low=0)
    write_series(tmp_path, stored, syntax=syntax, spacing=(0.8, 0.7), RescaleIntercept="-24")
    element = sources_dicom.load(only(tmp_path))
    assert set(element) == {"image", "spacing", "modality"}
    np.testing.assert_array_equal(element["image"], stored - 24)
    assert element["image"].dtype == np.dtype("int16")
    assert element["spacing"] == pytest.approx((2.5, 0.8, 0.7))
    assert element["modality"] == "CT"


def test_there_is_no_mask_to_survey(tmp_path):
    write_series(tmp_path, voxels())
    assert sources_dicom.survey(only(tmp_path)) == frozenset()


@pytest.mark.filterwarnings("ignore")  # values that the standard does not know
@pytest.mark.parametrize("text", ["DOE^JANE", "CT DOE", "CT\\DOE", "", None])
def test_a_modality_that_is_no_defined_term_stays_out(tmp_path, text):
    write_series(tmp_path, voxels(), Modality=text)
    assert set(sources_dicom.load(only(tmp_path))) == {"image", "spacing"}


@pytest.mark.parametrize("value", [0, -1000])
def test_a_constant_image_is_refused(tmp_path, value):
    stored = np.full((3, 4, 5), value, np.int16)
    paths = write_series(tmp_path, stored)
    refused = refusal(only(tmp_path))
    assert (refused.code, set(refused.files)) == ("CONSTANT", set(paths))
    assert f"60 voxels is {value}:" in refused.message
    stored[1, 2, 3] += 1
    write_series(tmp_path, stored)
    assert np.ptp(sources_dicom.load(only(tmp_path))["image"]) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    stored = voxels().astype("float32")
    stored[2, 3, 4] = value
    write_series(tmp_path, stored)
    assert refusal(only(tmp_path)).code == "NOT_FINITE"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless], ids=["native", "RLE"])
def test_a_file_gone_since_the_look_is_refused_without_its_path(tmp_path, syntax):
    paths = write_series(tmp_path, voxels(SHAPE), syntax=syntax)
    case = only(tmp_path)
    paths[1].unlink()
    refused = refusal(case)
    assert (refused.code, set(refused.files)) == ("UNREADABLE", set(paths))
    assert "/" not in refused.message
    assert paths[1].name not in refused.message


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
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
    assert case.size == sources_dicom.load(case)["image"].nbytes


def test_where_reading_may_find_less_than_the_header_allows_the_size_is_an_upper_bound(tmp_path):
    write_series(tmp_path, voxels(SHAPE), RescaleIntercept="-1024")
    case = only(tmp_path)
    assert case.size == 2 * sources_dicom.load(case)["image"].nbytes


def test_a_series_of_which_one_slice_needs_floats_is_counted_in_floats(tmp_path):
    slopes = [{"RescaleSlope": slope} for slope in ("1", "0.5", "1")]
    write_series(tmp_path, voxels(SHAPE), per_slice=slopes.__getitem__)
    case = only(tmp_path)
    assert sources_dicom.load(case)["image"].nbytes == case.size == 4 * np.prod(SHAPE)


def test_a_case_is_loaded_alike_in_a_process_of_its_own(tmp_path):
    for number in range(2):
        write_series(tmp_path / str(number), voxels(seed=number), series=f"1.{number}")
    cases = sources_dicom.find(tmp_path).cases
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        there = list(pool.map(sources_dicom.load, cases))
    for number, element in enumerate(there):
        np.testing.assert_array_equal(element["image"], voxels(seed=number))
        assert element["modality"] == "CT"


# Every file once


def loaded_and_refused(found: Found) -> tuple[list[dict], Counter]:
    elements, refused = [], Counter()
    for case in found.cases:
        try:
            elements.append(sources_dicom.load(case))
        except CourseDataError as error:
            refused[error.code] += 1
    return elements, refused


@pytest.fixture(scope="module")
def disc(tmp_path_factory) -> Path:
    return phantoms.messy_folder(tmp_path_factory.mktemp("data"))


def test_a_messy_folder_is_all_cases_and_rejections(disc):
    found = sources_dicom.find(disc)
    assert each_once(found, disc)
    assert found.files == 252
    assert codes(found) == [*["NOT_AN_IMAGE"] * 4, *["NOT_DICOM"] * 3, "SCOUT"]
    elements, refused = loaded_and_refused(found)
    assert (len(elements), refused) == (6, Counter())
    kinds = Counter(element["modality"] for element in elements)
    assert kinds == {"CT": 4, "MR": 1, "DX": 1}
    assert Counter(case.patient for case in found.cases)["PHANTOM-0200"] == 3


@pytest.mark.parametrize("trap", phantoms.TRAPS)
def test_with_any_fault_every_file_is_in_a_case_or_a_rejection(tmp_path, trap):
    rng = np.random.default_rng(1)
    volume = Volume(rng.integers(-1000, 2000, (12, 33, 36)).astype(np.int16), (3, 1, 1))
    phantoms.dicom_series(volume, tmp_path, trap=trap)
    found = sources_dicom.find(tmp_path)
    assert each_once(found, tmp_path)
    elements, refused = loaded_and_refused(found)
    assert len(elements) + refused.total() == len(found.cases)
    if trap == "truncated":
        assert (codes(found), elements, refused) == (["TRUNCATED"], [], {"TRUNCATED": 1})
    if trap == "monochrome1":
        assert len(elements) == 1


def test_a_damaged_radiograph_does_not_take_its_neighbours_with_it(tmp_path):
    paths = write_series(tmp_path, voxels(SHAPE), **X_RAY)
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    found = sources_dicom.find(tmp_path)
    assert each_once(found, tmp_path)
    assert codes(found) == ["TRUNCATED"]
    assert len(loaded_and_refused(found)[0]) == 2


@pytest.mark.filterwarnings("ignore")  # the files are odd on purpose
@pytest.mark.parametrize("allow", [False, True])
def test_every_file_that_comes_with_pydicom_is_loaded_or_rejected(allow):
    root = Path(pydicom.data.__file__).parent
    found = sources_dicom.find(root, allow_unchecked=allow)
    assert each_once(found, root)
    assert set(codes(found)) <= set(CODES)
    assert ("BURNED_IN" in codes(found)) != allow
    assert len({case.name for case in found.cases}) == len(found.cases)
    elements, refused = loaded_and_refused(found)
    assert len(elements) + refused.total() == len(found.cases)
    assert len(elements) > 15
    for element in elements:
        assert np.isfinite(element["image"]).all()
        assert element["image"].ndim == 3
        assert element.get("modality", "CT") in sources_dicom.MODALITIES


# Names that lead to a person

PLANTED = "ZZPLANTEDZZ"
PLANTED_UID = "1.2.826.0.1.3680043.8.498.31415926"
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
# Of those, what decides whether the series is read at all, and how.
NEEDED = {"SpecificCharacterSet", "PhotometricInterpretation", "BurnedInAnnotation"}
NEEDED |= {"ConversionType"}


def planted(stored: np.ndarray, number: int, **elements) -> Dataset:
    """A slice with a marker in every text element of the dictionary, and wherever else it fits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = image(stored, position=(0, 0, number), **elements)
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
            if vr in TEXT and keyword not in NEEDED and tag >> 16 not in (0, 2, 4):
                setattr(dataset, keyword, PLANTED)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(dataset, keyword, PLANTED_UID)
        dataset.SOPInstanceUID = f"{PLANTED_UID}.{number}"
        dataset.BurnedInAnnotation = elements.get("BurnedInAnnotation", "NO")
        nested = Dataset()
        nested.PatientID = nested.PatientName = PLANTED
        dataset.ReferencedPatientSequence = [nested]
        dataset.add_new(0x00090010, "LO", PLANTED)
        dataset.add_new(0x00091001, "UT", PLANTED)
        dataset.add_new(0x60000010, "US", stored.shape[0])
        dataset.add_new(0x60000011, "US", stored.shape[1])
        dataset.add_new(0x60000022, "LO", PLANTED)
        dataset.add_new(0x60003000, "OW", PLANTED.encode() + b"Z")
        dataset.PixelData += PLANTED.encode() + b"Z"  # behind the last row
    return dataset


def plant(folder: Path, stored: np.ndarray, **elements) -> list[Path]:
    paths = []
    for number, pixels in enumerate(stored):
        path = folder / PLANTED / f"{PLANTED}_{number}.dcm"
        dataset = planted(pixels, number, **elements)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            paths.append(save(dataset, path))
    return paths


def test_nothing_planted_reaches_an_element_or_what_is_printed(tmp_path):
    paths = plant(tmp_path, voxels((4, 20, 30)))
    assert paths[0].read_bytes().count(PLANTED.encode()) > 1000
    assert paths[0].read_bytes().count(PLANTED_UID.encode()) > 3
    found = sources_dicom.find(tmp_path)
    case = only(tmp_path)
    assert (case.patient, case.name) == (f"{PLANTED}^^^{PLANTED}", PLANTED_UID)
    element = sources_dicom.load(case)
    np.testing.assert_array_equal(element["image"], voxels((4, 20, 30)))
    assert set(element) == {"image", "spacing"}
    told = [repr(element), str(case), repr(case), repr(found), repr(element["spacing"])]
    for text in told:
        assert not leaks(text), text
    assert not leaks(element["image"].tobytes().decode("latin-1"))


def test_nothing_planted_is_told_by_a_rejection(tmp_path):
    flat = np.zeros((4, 20, 30), np.int16)
    plant(tmp_path / "a", flat)
    assert not leaks(refusal(only(tmp_path / "a")).message)
    plant(tmp_path / "b", flat, BurnedInAnnotation="YES")
    write_series(tmp_path / "c", voxels(), series="1.2", PatientID=PLANTED, **US)
    named = [{"PatientID": f"{PLANTED}{k}"} for k in range(5)]
    write_series(tmp_path / "d", voxels(), series="1.3", per_slice=named.__getitem__)
    for folder, code in (("b", "BURNED_IN"), ("c", "BURNED_IN"), ("d", "MIXED_SLICES")):
        found = sources_dicom.find(tmp_path / folder)
        (file,) = found.rejected
        assert file.code == code
        for text in (repr(file), repr(found), file.reason, file.meaning):
            assert not leaks(text), text


def test_overlays_in_unused_bits_of_the_pixels_do_not_come_along(tmp_path):
    stored = voxels((3, 4, 5), dtype="uint16", low=0, high=4096)
    write_series(tmp_path, stored | 0xF000, BitsStored=12)
    np.testing.assert_array_equal(sources_dicom.load(only(tmp_path))["image"], stored)


def test_a_header_prints_neither_patient_nor_study(tmp_path):
    stated = {"PatientID": PLANTED, "StudyInstanceUID": PLANTED_UID, "ConversionType": PLANTED}
    write(tmp_path / "a.dcm", voxels((4, 5)), BurnedInAnnotation="NO", **stated)
    (header,) = only(tmp_path).source.headers
    assert (header.patient, header.study_uid) == (PLANTED, PLANTED_UID)
    assert not leaks(repr(header))


def leaks(text: str) -> bool:
    return PLANTED in text or PLANTED_UID in text


def test_what_was_done_to_an_image_goes_on_record_in_fixed_words(tmp_path):
    write(
        tmp_path / "doe.dcm",
        voxels((4, 5)),
        **{**X_RAY, "PhotometricInterpretation": "MONOCHROME1"},
    )
    notes = sources_dicom.load(only(tmp_path))["notes"]
    assert "MONOCHROME1 inverted" in notes and set(notes) <= set(sources_dicom.NOTES.values())

    series = tmp_path / "series"
    write_series(series, voxels(SHAPE))
    first = min(series.iterdir())
    first.with_name("jane_doe.dcm").write_bytes(first.read_bytes())
    assert sources_dicom.load(only(series))["notes"] == ("copies of slices counted once",)
