"""DICOM folders as cases: `find` sorts the files, `load` reads the pixels of one case.

found = sources_dicom.find("data/messy_folder/disc")
element = sources_dicom.load(found.cases[0])      # image [z, y, x], spacing in mm, modality

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

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from helpers import dicom
from helpers.cases import Case, Found, Rejection
from helpers.dicom_header import Header
from helpers.dicom_pixels import INT16
from helpers.errors import CourseDataError

# Defined terms of PS3.3 C.7.3.1.1.1 that have images; free text in the tag is none of them.
MODALITIES = {
    "BDUS", "BI", "BMD", "CR", "CT", "DG", "DX", "ES", "GM", "IO", "IVOCT", "IVUS", "LS", "MG",
    "MR", "NM", "OCT", "OP", "OPT", "OT", "PT", "PX", "RF", "RG", "RTDOSE", "RTIMAGE", "SEG", "SM",
    "TG", "US", "XA", "XC",
}  # fmt: skip
ULTRASOUND = {"BDUS", "IVUS", "US", "CD", "DD", "EC"}  # the last three are US of before 2004
# How a note of `dicom.read_series` starts, and what goes on record: no number, no file name.
NOTES = {
    "MONOCHROME1 inverted": "MONOCHROME1 inverted",
    "copies counted once": "copies of slices counted once",
    "left out as scouts": "scouts left out of the series",
    "unreadable files": "unreadable files beside the series",
    "Pixel Padding Value": "padded voxels keep the padding value",
    "pixel spacing measured at the detector": "spacing measured at the detector",
    "no pixel spacing": "1 mm assumed in the plane",
    "no position": "no place in the patient stated",
    "a single slice": "1 mm assumed between slices",
    "turned": "turned: z, y, x grow to head, back and left",
}
# Ultrasound and secondary capture, with what is retired of them (PS3.4 B.5, PS3.6 A).
UNCHECKED_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}." for kind in (3, 6, 7))
FLAT = dicom.PROJECTIONS | {"RF", "US", "XA"}  # without position each image is one of its own


def find(
    folder: str | Path,
    *,
    allow_unchecked: bool = False,
    force: bool = False,
    progress: bool = False,
) -> Found:
    """Every file under a folder, in a case or in a rejection; pixels are not read.

    A case is a series, or the part of one that has one size and one orientation; radiographs and
    other images without a place in the patient are cases of their own. `Case.patient` is Patient
    ID with its issuer; without an ID that of the study's other images, else the Study Instance
    UID, else empty. `Case.size` is that of the voxels that `load` returns, or up to twice as much.

    A series with damaged files is a case here, and refused by `load`.

    Args:
        folder: searched with its subfolders.
        allow_unchecked: also take ultrasound and secondary captures that do not say whether text
            is burned in; look at them first.
        force: also parse files that lack the DICOM preamble.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    scan = dicom.scan(folder, force=force, progress=progress)
    patient_of = _patients(header for series in scan.series for header in series.headers)
    cases = []
    rejected = [Rejection((file.path,), file.code, file.reason) for file in scan.rejected]
    for name, series in _named(scan, Path(folder).expanduser()):
        patients = {patient_of(header) for header in series.headers}
        if reason := _burned_in(series, allow_unchecked):
            rejected.append(Rejection(series.files, "BURNED_IN", reason))
        elif len(patients) > 1:
            reason = f"one series names {len(patients)} patients: whose images are these?"
            rejected.append(Rejection(series.files, "MIXED_SLICES", reason))
        else:
            cases.append(Case(name, series, series.files, patients.pop(), size=_size(series)))
    return Found(tuple(cases), tuple(rejected))


def survey(case: Case) -> frozenset[int]:
    """The class ids in the case's mask: none, as these cases have no masks."""
    return frozenset()


def load(case: Case) -> dict:
    """Read a case of `find`.

    Returns:
        `image`: voxels `[z, y, x]`, int16 or float32, as of `dicom.read_series` but turned so that
        z, y, x grow to head, back and left (`Volume.in_lps_order`); `spacing`:
        `(z, y, x)` in mm, left out where the header states none in the plane, and 1 in z where a
        single image states none; `modality`: one of `MODALITIES`, left out otherwise; `notes`:
        what was done on the way, in the words of `NOTES`, left out if nothing was.

    Raises:
        CourseDataError: `CONSTANT`; `UNREADABLE` for a file that is gone by now; and what
            `dicom.read_series` raises, `NOT_FINITE` for one.
    """
    series = case.source
    try:
        for path in case.files:
            path.stat()  # a decoder would name the whole path of a file that is gone
        volume = dicom.read_series(_without_copies(series)).in_lps_order()
    except OSError as error:
        reason = f"a file of this series cannot be read any more: {error.strerror}"
        raise CourseDataError("UNREADABLE", reason, case.files) from None
    low, high = volume.voxels.min(), volume.voxels.max()
    if low == high:
        raise CourseDataError(
            "CONSTANT",
            f"every one of the {volume.voxels.size} voxels is {low}: nothing was imaged, or the "
            "pixels were wiped; leave the series out",
            case.files,
        )
    element = {"image": volume.voxels}
    first = series.headers[0]
    in_plane = first.pixel_spacing or first.detector_spacing
    if in_plane and min(in_plane) > 0:
        element["spacing"] = volume.spacing
    if series.modality.upper() in MODALITIES:
        element["modality"] = series.modality.upper()
    known = {start for start in NOTES for note in volume.notes if note.startswith(start)}
    if known:
        element["notes"] = tuple(words for start, words in NOTES.items() if start in known)
    return element


def _patients(headers: Iterable[Header]) -> Callable[[Header], str]:
    """Whose image it is, by the tags; a study has one patient (PS3.3 A.1.2), so it fills gaps.

    Derived images often lack the ID or its issuer. Without the study, one person would be two.
    """
    full: dict[str, str] = {}
    for header in headers:
        full[header.study_uid] = max(full.get(header.study_uid, ""), header.patient, key=len)

    def patient_of(header: Header) -> str:
        in_study = full[header.study_uid] if header.study_uid else ""
        if header.patient in ("", in_study.partition("^^^")[0]):
            return in_study or header.patient or header.study_uid
        return header.patient

    return patient_of


def _named(scan: dicom.Scan, folder: Path) -> Iterator[tuple[str, dicom.Series]]:
    """Series under names of their own: the UID, and where several share it, an image's as well.

    Copies of one flat image come out as one series.
    """
    by_uid: dict[str, dict[str, list[dicom.Series]]] = defaultdict(lambda: defaultdict(list))
    for series in scan.series:
        for part in _parts(series):
            # The same whatever else lies in the folder, and wherever the folder lies.
            first = min(header.sop_uid for header in part.headers)
            image = first or part.files[0].relative_to(folder).as_posix()
            by_uid[part.uid][image].append(part)
    for uid, images in by_uid.items():
        for image, (first, *copies) in images.items():
            headers = sum((copy.headers for copy in copies), first.headers)
            damaged = sum((copy.damaged for copy in copies), first.damaged)
            series = dataclasses.replace(first, headers=headers, damaged=damaged)
            yield (uid if uid and len(images) == 1 else f"{uid} {image}"), series


def _parts(series: dicom.Series) -> Iterator[dicom.Series]:
    """The series as it is, or its images one by one if they never were a stack.

    Such an image is whole even if another of its series is damaged.
    """
    if series.modality.upper() in FLAT and all(map(_placeless, series.headers)):
        for header in series.headers:
            yield dataclasses.replace(series, headers=(header,), damaged=())
    else:
        yield series


def _placeless(header: Header) -> bool:
    return header.frame is None and (header.position is None or header.orientation is None)


def _without_copies(series: dicom.Series) -> dicom.Series:
    """One of several files that hold one image without position; `read_series` does the others."""
    first, *copies = series.headers
    one_image = first.sop_uid and {header.sop_uid for header in copies} == {first.sop_uid}
    if not one_image or not all(map(_placeless, series.headers)):
        return series
    for copy in copies:
        dicom.refuse_unless_copies(first, copy)
    return dataclasses.replace(series, headers=(first,))


def _burned_in(series: dicom.Series, allow_unchecked: bool) -> str:
    """Why text may stand in the pixels, in words for people; empty if the series may be taken."""
    stated = Counter(header.burned_in.upper() for header in series.headers)
    images = len(series.headers)
    denied, silent = stated["NO"], stated[""]
    if denied + silent < images:
        return (
            f"Burned In Annotation is not NO in {images - denied - silent} of {images} images: "
            "text stands in the pixels; have it removed and state NO (PS3.15 E.3.1)"
        )
    unchecked = sum(not one.burned_in and _likely_text(one) for one in series.headers)
    if unchecked and not allow_unchecked:
        return (
            f"{unchecked} of {images} images are ultrasound or secondary captures without Burned "
            "In Annotation: names may stand in the pixels; look at them, then allow unchecked ones"
        )
    return ""


def _likely_text(header: Header) -> bool:
    """Ultrasound, secondary capture (every Conversion Type), or a screen saved as another kind."""
    return (
        header.modality.upper() in ULTRASOUND
        or f"{header.sop_class}.".startswith(UNCHECKED_CLASSES)
        or header.conversion_type != ""
        or any("SCREEN" in value for value in header.image_type)
    )


def _size(series: dicom.Series) -> int:
    """Bytes of the voxels: `dicom_pixels.read_voxels` gives int16 if all fit, else float32."""
    voxels = sum(header.rows * header.columns for header in series.headers)
    return voxels * (2 if all(map(_surely_int16, series.headers)) else 4)


def _surely_int16(header: Header) -> bool:
    if header.pixels != "integer" or header.has_modality_lut:
        return False
    lowest = -(2 ** (header.bits_stored - 1)) if header.signed else 0
    ends = (lowest, lowest + 2**header.bits_stored - 1)
    values = [header.slope * stored + header.intercept for stored in ends]
    whole = float(header.slope).is_integer() and float(header.intercept).is_integer()
    return whole and INT16.min <= min(values) and max(values) <= INT16.max
