"""DICOM folders as cases: `find` sorts the files, `load` reads the pixels of one case.

    found = dicom.find("data/messy_folder/disc")
    element = dicom.load(found.cases[0])      # image [z, y, x], spacing in mm, modality

Tags stay behind, but names can stand in the pixels, where no list of tags helps. Burned In
Annotation (0028,0301) says so, if it is there: where it is missing, either may be true (PS3.3
C.7.6.1). Ultrasound writes names into its images as a rule, CT does not (PS3.15 E.3.1), and what
was captured from a screen or scanned from paper (PS3.3 C.8.6.1) shows what stood there. So:

- any value but NO: refused, and nothing switches that off;
- no value, and ultrasound or a secondary capture: refused unless `allow_unchecked`;
- no value, and another kind of image: taken.

A statement is all that is looked at; whether it is true needs a person. So does a face: from a CT
or MR of a head it can be rendered. Recognizable Visual Features (0028,0302) and PS3.15 E.3.2 are
about that, and nothing here removes one. Overlays (60xx) and private tags are not read at all.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from helpers.cases import Case, Found, Rejection
from helpers.dicom.header import Header
from helpers.dicom.series import Series, read_series, scan
from helpers.dicom.stack import NO_SPACING
from helpers.errors import CourseDataError

# Defined terms of PS3.3 C.7.3.1.1.1 that have images; free text in the tag is none of them.
MODALITIES = {
    "BDUS", "BI", "BMD", "CR", "CT", "DG", "DX", "ES", "GM", "IO", "IVOCT", "IVUS", "LS", "MG",
    "MR", "NM", "OCT", "OP", "OPT", "OT", "PT", "PX", "RF", "RG", "RTDOSE", "RTIMAGE", "SEG", "SM",
    "TG", "US", "XA", "XC",
}  # fmt: skip
ULTRASOUND = {"BDUS", "IVUS", "US", "CD", "DD", "EC"}  # the last three are US of before 2004
# Ultrasound and secondary capture, with what is retired of them (PS3.4 B.5, PS3.6 A).
UNCHECKED_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}." for kind in (3, 6, 7))


def find(
    folder: str | Path,
    *,
    allow_unchecked: bool = False,
    force: bool = False,
    progress: bool = False,
) -> Found:
    """Every file under a folder, in a case or in a rejection; pixels are not read.

        found = dicom.find("data/messy_folder/disc")

    A case is a series, or the part of one that has one size and one orientation; radiographs and
    other images without a place in the patient are cases of their own. `Case.patient` is Patient
    ID with its issuer; without an ID that of the study's other images, else the Study Instance
    UID, else that of the series. `Case.size` counts 4 bytes a voxel, though many need 2 only.
    A series with damaged files is a case here, and refused by `load`.

    Args:
        folder: searched with its subfolders.
        allow_unchecked: also take ultrasound and secondary captures that do not say whether text
            is burned in; look at them first.
        force: also parse files that lack the DICOM preamble.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if there is no such folder.

    Taught in: writing TFRecords
    """
    scanned = scan(folder, force=force, progress=progress)
    in_study = defaultdict(str)  # a study has one patient (PS3.3 A.1.2): it fills what is missing
    for series in scanned.series:
        for header in series.headers:
            in_study[header.study_uid] = max(in_study[header.study_uid], header.patient)
    in_study[""] = ""
    cases, rejected = [], [Rejection((one.path,), one.code, one.reason) for one in scanned.rejected]
    for series in scanned.series:
        patients = _patients(series, in_study)
        # A name that is the same whatever else lies in the folder, and wherever the folder lies.
        image = min(header.sop_uid for header in series.headers)
        image = image or series.files[0].relative_to(Path(folder).expanduser()).as_posix()
        if reason := _burned_in(series, allow_unchecked):
            rejected.append(Rejection(series.files, "BURNED_IN", reason))
        elif len(patients) > 1:
            reason = f"one series names {len(patients)} patients"
            rejected.append(Rejection(series.files, "MIXED_SLICES", reason))
        else:
            size = sum(4 * header.rows * header.columns for header in series.headers)
            name = f"{series.uid} {image}"
            cases.append(Case(name, series, series.files, patients.pop(), size=size))
    return Found(tuple(cases), tuple(rejected))


def load(case: Case) -> dict:
    """Read a case of `find`.

        element = dicom.load(dicom.find("data/messy_folder/disc").cases[0])

    Returns:
        `image`: voxels `[z, y, x]`, int16 or float32, as of `dicom.read_series` but turned so that
        z, y, x grow to head, back and left (`Volume.in_lps_order`); `spacing`:
        `(z, y, x)` in mm, left out where the header states none in the plane, and 1 in z where a
        single image states none; `modality`: one of `MODALITIES`, left out otherwise; `notes`:
        what was done on the way, in fixed words, left out if nothing was.

    Raises:
        CourseDataError: `UNREADABLE` for a file that is gone by now; and what
            `dicom.read_series` raises, `NOT_FINITE` for one.

    Taught in: writing TFRecords
    """
    try:
        volume = read_series(case.source).in_lps_order()
    except OSError as error:
        reason = f"a file of this series cannot be read any more: {error.strerror}"
        raise CourseDataError("UNREADABLE", reason, case.files) from None
    element = {"image": volume.voxels}
    if NO_SPACING not in volume.notes:
        element["spacing"] = volume.spacing
    if case.source.modality in MODALITIES:
        element["modality"] = case.source.modality
    if volume.notes:  # without what follows a colon: numbers, and names of files
        element["notes"] = tuple(note.partition(":")[0] for note in volume.notes)
    return element


def _patients(series: Series, in_study: dict[str, str]) -> set[str]:
    """Whom a series names; if nobody, the study stands for the patient, or the series itself."""
    named, studies = set(), {header.study_uid for header in series.headers}
    for header in series.headers:
        full = in_study[header.study_uid]
        # Derived images often lack the ID or its issuer: one person would be two.
        named.add(full if header.patient in ("", full.partition("^^^")[0]) else header.patient)
    return named - {""} or (studies if len(studies) == 1 and "" not in studies else {series.uid})


def _burned_in(series: Series, allow_unchecked: bool) -> str:
    """Why text may stand in the pixels, in words for people; empty if the series may be taken."""
    if {header.burned_in for header in series.headers} - {"NO", ""}:
        return "Burned In Annotation is not NO"
    silent = [header for header in series.headers if not header.burned_in]
    if any(map(_likely_text, silent)) and not allow_unchecked:
        return "ultrasound or secondary captures without Burned In Annotation"
    return ""


def _likely_text(header: Header) -> bool:
    """Ultrasound, secondary capture (every Conversion Type), or a screen saved as another kind."""
    return (
        header.modality in ULTRASOUND
        or f"{header.sop_class}.".startswith(UNCHECKED_CLASSES)
        or header.conversion_type != ""
        or "SCREEN" in header.image_type
    )
