"""NIfTI volumes with masks or class labels, found through a Decathlon data list.

    found = sources_decathlon.find("data/decathlon_organs/dataset.json")
    element = sources_decathlon.load(found.cases[0])        # image, spacing, mask, modality

Each image and each mask that the list names is an input file, whether it exists or not. An image
goes with its mask: both into one case, or both into one rejection. (A mask that two images share
counts with each.) So the files in are the files written and the files rejected.

Other formats than NIfTI are refused: some fetch their voxels from files that no list names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil

from helpers import datalist, nifti
from helpers.cases import Case, Found, Rejection
from helpers.errors import CourseDataError
from helpers.volume import Volume, nearest_axes, turned

SPLITS = {"training": "train", "validation": "validation", "test": "test"}
# Of the smallest spacing. Half a voxel would give a voxel the wrong neighbour; what NIfTI's
# float32 loses is less than 0.001 mm half a metre away, what headers printed with six digits lose
# 0.003 mm.
TOLERANCE = 0.02
# What data lists call their channels, in DICOM's terms (PS3.3 C.7.3.1.1.1).
MODALITIES = {
    **{term: term for term in ("CT", "MR", "PT", "NM", "US", "CR", "DX", "MG", "XA")},
    **{"CBCT": "CT", "PET": "PT", "SPECT": "NM", "ULTRASOUND": "US", "MRI": "MR"},
    **dict.fromkeys(("T1", "T1W", "T1GD", "T1CE", "T2", "T2W", "FLAIR", "PD", "ADC", "DWI"), "MR"),
}


def find(dataset_json: str | Path, base: str | Path | None = None) -> Found:
    """The cases of a data list, from its text and the headers of its files.

    `training` becomes the split "train"; `validation` and `test` keep their names. A case's name
    is its image's path below the base folder; without a `patient` it is also, less the ending,
    its patient. `size` is the bytes of its voxels and one byte for each voxel of its mask.

    Args:
        dataset_json, base: as for `datalist.load`.

    Returns:
        Cases, and rejections: `UNREADABLE` for a file that is missing or has no header that can
        be read, `NO_PAIR` for an item without mask and label in a section (not "test") where
        others have one, `DATA_LIST` for items of further sections, `UNKNOWN_FORMAT`,
        `SHAPE_MISMATCH`, `PIXEL_FORMAT`, `NO_GEOMETRY`, `TOO_LARGE` as in `errors.CODES`.

    Raises:
        CourseDataError: what `datalist.load` raises: a list that cannot be trusted has no cases.
        FileNotFoundError: if there is no such list, or no such base folder.
    """
    listed = datalist.load(dataset_json, base)
    if not listed.base.is_dir():
        raise FileNotFoundError("no such base folder")
    modality = _modality(listed.modality)
    cases, rejected = [], []
    for section, items in listed.sections.items():
        labelled = section != "test" and any(map(_has_label, items))
        for item in items:
            files = (item.image,) if item.mask is None else (item.image, item.mask)
            try:
                if section not in SPLITS:
                    known = ", ".join(SPLITS)
                    problem = f"in a section that is no split; move it to one of {known}"
                    raise CourseDataError("DATA_LIST", problem)
                if labelled and not _has_label(item):
                    problem = "neither mask nor label, where others of its section have one"
                    raise CourseDataError("NO_PAIR", problem)
                size = _size(item)
            except CourseDataError as error:
                rejected.append(Rejection(files, error.code, error.message))
                continue
            name = item.image.relative_to(listed.base).as_posix()
            case = Case(
                name=name,
                source=(item.image, item.mask, modality),
                files=files,
                patient=item.patient or name.removesuffix(".gz").removesuffix(".nii"),
                split=SPLITS[section],
                label=item.label,
                weight=item.weight,
                size=size,
            )
            cases.append(case)
    return Found(tuple(cases), tuple(rejected))


def survey(case: Case, mapping: Mapping[int, int] | None = None) -> frozenset[int]:
    """The class ids in a case's mask; empty without a mask. Only the mask is decoded.

    Args:
        case: one of `find`.
        mapping: class id for each stored id, {0: 0, 255: 1} for instance; None keeps them.

    Raises:
        ValueError: for a mapping to ids beyond 0 to 255.
        CourseDataError: what `load` raises about masks.
    """
    _, mask, _ = case.source
    return frozenset() if mask is None else _mask(mask, mapping)[1]


def load(case: Case, mapping: Mapping[int, int] | None = None) -> dict:
    """Read a case's voxels.

    Args:
        case, mapping: as for `survey`.

    Returns:
        `image` `[z, y, x]` as stored and scaled, or `[z, y, x, c]` for a 4D file, whose last axis
        is taken for channels, turned so that z, y, x grow to head, back and left; `spacing`
        (z, y, x) in mm; `mask` uint8 `[z, y, x]` if there is one; `modality`, a term of DICOM, if
        the list says one that is known; `notes` if something was turned.

    Raises:
        CourseDataError: `TRUNCATED` or `DECODING_FAILED` for a damaged file, `NOT_FINITE` for NaN
            or infinity and `CONSTANT` for one value in all of the image, `MASK_MISMATCH` if a
            corner of the mask lies elsewhere than the image's, `UNKNOWN_LABEL` for values in the
            mask that are not whole, not in the mapping or, mapped, not in 0 to 255; and what
            makes `find` reject a file.
    """
    image_path, mask_path, modality = case.source
    image, place = nifti.read(image_path, "image")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        problem = "the image holds NaN or infinite values; expected finite ones"
        raise CourseDataError("NOT_FINITE", problem, [image_path])
    if image.min() == image.max():
        problem = f"all {image.size} voxels have the same value; expected an image"
        raise CourseDataError("CONSTANT", problem, [image_path])
    # Sets mix files from several tools, each with its own idea of where left is.
    order, flips = nearest_axes(place.direction)
    element = {
        "image": turned(image, order, flips),
        "spacing": tuple(place.spacing[axis] for axis in order),
    }
    if mask_path is not None:
        mask, _ = _mask(mask_path, mapping)
        _refuse_mismatch(place, mask, [image_path, mask_path])
        element["mask"] = turned(mask.voxels, order, flips)
    if order != (0, 1, 2) or any(flips):
        element["notes"] = ("turned: z, y, x grow to head, back and left",)
    return element | ({"modality": modality} if modality else {})


def _has_label(item: datalist.Item) -> bool:
    return item.mask is not None or item.label is not None


def _modality(channels: Mapping[int, str]) -> str:
    """DICOM's term for all channels of a list, empty if they differ or one is not known."""
    terms = {MODALITIES.get(text.strip().upper(), "") for text in channels.values()}
    return terms.pop() if len(terms) == 1 else ""


def _size(item: datalist.Item) -> int:
    """The bytes of a case, from its headers, if this machine can hold them."""
    image = nifti.read_header(item.image, "image")
    voxels = math.prod(image.GetSize()[:3])
    size = math.prod(image.GetSize()) * nifti.bytes_per_voxel(image) + (voxels if item.mask else 0)
    mask = math.prod(nifti.read_header(item.mask, "mask").GetSize()) if item.mask else 0
    needed, available = max(size, mask), psutil.virtual_memory().available
    if needed > available:
        problem = f"headers claim {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free"
        raise CourseDataError("TOO_LARGE", f"{problem}; crop or resample it first", [item.image])
    return size


def _mask(path: Path, mapping: Mapping[int, int] | None) -> tuple[Volume, frozenset[int]]:
    """A mask of class ids, uint8 `[z, y, x]`, and the ids in it."""
    if mapping is not None and not all(0 <= new <= 255 for new in mapping.values()):
        raise ValueError("class ids lie between 0 and 255")
    voxels, stored = nifti.read(path, "mask")
    mask, ids, unknown = np.zeros(voxels.shape, np.uint8), set(), set()
    for plane, ours in zip(voxels, mask, strict=True):
        if plane.dtype.kind == "f" and not (np.isfinite(plane) & (plane == np.rint(plane))).all():
            problem = "the mask holds values that are not whole; expected class ids"
            raise CourseDataError("UNKNOWN_LABEL", f"{problem}: was it interpolated?", [path])
        for value in map(int, np.unique(plane)):
            new = value if mapping is None else mapping.get(value, -1)
            if not 0 <= new <= 255:
                unknown.add(value)
                continue
            ids.add(new)
            ours[plane == value] = new
        if len(unknown) > 100:  # an image, it seems
            break
    if unknown:
        some = ", ".join(map(str, sorted(unknown)[:5])) + (", …" if len(unknown) > 5 else "")
        allowed = "0 to 255" if mapping is None else f"what the mapping names ({len(mapping)} ids)"
        problem = f"the mask holds {some}; expected {allowed}; give each stored id its class id"
        raise CourseDataError("UNKNOWN_LABEL", problem, [path])
    return stored.with_voxels(mask), frozenset(ids)


def _refuse_mismatch(image: Volume, mask: Volume, files: list[Path]) -> None:
    tolerance_mm = TOLERANCE * min(image.spacing)
    if image.same_geometry(mask, tolerance_mm):
        return
    ours, theirs = (
        f"{' x '.join(map(str, one.shape))} voxels of {' x '.join(f'{n:.6g}' for n in one.spacing)}"
        for one in (image, mask)
    )
    problem = f"image {ours} mm [z, y, x], mask {theirs} mm"
    if image.shape == mask.shape:
        corners = np.array(list(np.ndindex(2, 2, 2))) * np.subtract(image.shape, 1)
        far = max(np.abs(image.to_patient(c) - mask.to_patient(c)).max() for c in corners)
        problem += f", corners up to {far:.3g} mm apart"
    advice = f"expected one grid within {tolerance_mm:.3g} mm; resample the mask or mend its header"
    raise CourseDataError("MASK_MISMATCH", f"{problem}; {advice}", files)
