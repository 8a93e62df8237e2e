"""Decathlon data lists: what a set holds, and its NIfTI volumes with masks or class labels.

    listed = lists.read("data/decathlon_organs/dataset.json")
    listed.training[0].image, listed.labels
    found = lists.find("data/decathlon_organs/dataset.json")
    element = lists.load(found.cases[0])        # image, spacing, mask, modality

The format is that of the Medical Segmentation Decathlon, with the `weight` and the class `label`
of Clara Train, and one extension of the course: an item may name its `patient`.

Each image and each mask that a list names is an input file, whether it exists or not. An image goes
with its mask: both into one case, or both into one rejection. (A mask that two images share counts
with each.) So the files in are the files written and the files rejected. Other formats than NIfTI
are refused: some fetch their voxels from files that no list names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import psutil

from helpers import nifti
from helpers.cases import Case, Found, Rejection
from helpers.errors import CourseDataError, listed, need
from helpers.volume import TURNED, Volume, nearest_axes, turned

SPLITS = {"training": "train", "validation": "validation", "test": "test"}  # by section
LARGEST_LIST = 2**28  # bytes; a million cases need less
LARGEST_LABEL = 2**31 - 1  # records hold labels as int32
KINDS = {dict: "object", list: "list", str: "text"}  # of JSON
# What data lists call their channels, in DICOM's terms (PS3.3 C.7.3.1.1.1).
MODALITIES = {
    **{term: term for term in ("CT", "MR", "PT", "NM", "US", "CR", "DX", "MG", "XA")},
    **{"CBCT": "CT", "PET": "PT", "SPECT": "NM", "ULTRASOUND": "US", "MRI": "MR"},
    **dict.fromkeys(("T1", "T1W", "T1GD", "T1CE", "T2", "T2W", "FLAIR", "PD", "ADC", "DWI"), "MR"),
}


@dataclasses.dataclass(frozen=True)
class Item:
    """One line of a data list. Paths and patient stay out of what is printed.

    Args:
        image: the image's path, below the list's base folder.
        mask: the path of its segmentation mask, if its `label` is text.
        label: its class id, or one for each of several labels, if its `label` is that.
        weight: probability weight for sampling, finite and not negative.
        patient: all images of a person share it; empty if the list does not say.

    Taught in: segmentation with DeepLab
    """

    image: Path = dataclasses.field(repr=False)
    mask: Path | None = dataclasses.field(default=None, repr=False)
    label: int | tuple[int, ...] | None = None
    weight: float | None = None
    patient: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True)
class DataList:
    """A data set's list: `sections` of items by name; `modality` names channels, `labels` ids.

    Taught in: segmentation with DeepLab
    """

    base: Path = dataclasses.field(repr=False)
    sections: dict[str, tuple[Item, ...]] = dataclasses.field(repr=False)
    modality: dict[int, str] = dataclasses.field(default_factory=dict)
    labels: dict[int, str] = dataclasses.field(default_factory=dict)

    training = property(lambda self: self.sections.get("training", ()))
    validation = property(lambda self: self.sections.get("validation", ()))
    test = property(lambda self: self.sections.get("test", ()))


def files_of(item: object, *, text: bool = False) -> tuple[Path, ...]:
    """The files that an item is read from, as far as it says so.

    Args:
        item: an `Item`, a `cases.Case`, a path, a dict or list of paths, or anything else.
        text: whether text is taken for a path as well.

    >>> [file.name for file in files_of(Item(Path("a.nii"), mask=Path("b.nii")))]
    ['a.nii', 'b.nii']

    Taught in: no lesson; pipelines and caches use it to name files
    """
    if isinstance(item, Case):
        return item.files
    if isinstance(item, Item):
        item = (item.image, item.mask)
    if isinstance(item, Mapping):
        item = tuple(item.values())
    found = item if isinstance(item, list | tuple) else (item,)
    kinds = (os.PathLike, str) if text else os.PathLike
    return tuple(Path(one) for one in found if isinstance(one, kinds))


def read(path: str | Path, base: str | Path | None = None) -> DataList:
    """Read a data list; no image is opened, and none has to exist.

    Args:
        path: a JSON file in UTF-8, with or without a byte order mark.
        base: the folder that the paths in it start from; by default the file's own.

    `training`, `validation` and `test` are sections, and so is any other list that holds an
    object with an `image`. An item's `label` is a mask if it is text, else class ids from 0.

    Raises:
        CourseDataError: `UNSAFE_PATH` for a path that is empty or absolute, holds a backslash or
            `..`, or leaves the base folder by a link; `SAME_CASE` for an image that is listed
            twice, under whatever name; `DATA_LIST` for everything else that is not as above.
            Messages give section and item, counted from 1, and no text of the list.
        FileNotFoundError: if there is no such file.

    Example:
        listed = lists.read("data/decathlon_organs/dataset.json")

    Taught in: segmentation with DeepLab
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError("no such data list")
    try:
        size = path.stat().st_size
        need(size <= LARGEST_LIST, "DATA_LIST", f"{size} bytes, expected at most {LARGEST_LIST}")
        document = _expect(_document(path.read_bytes()), dict, "the file")
        base = path.parent if base is None else Path(base)
        modality, labels = (_numbered(document.get(key, {}), key) for key in ("modality", "labels"))
        return DataList(base, _sections(document, base), modality, labels)
    except CourseDataError as error:
        raise CourseDataError(error.code, error.message, [path]) from None


def find(dataset_json: str | Path, base: str | Path | None = None) -> Found:
    """The cases of a data list, from its text and the headers of its files.

    `training` becomes the split "train"; `validation` and `test` keep their names. A case's name
    is its image's path below the base folder; without a `patient` it is also, less the ending,
    its patient. `size` is the bytes of its voxels and one byte for each voxel of its mask.

    Args:
        dataset_json, base: as for `read`.

    Returns:
        Cases, and rejections: what `nifti.describe` refuses, `TOO_LARGE` for headers that claim
        more than memory can hold, `NO_PAIR` for an item without mask and label in a section (not
        "test") where others have one, `DATA_LIST` for items of further sections.

    Raises:
        CourseDataError: what `read` raises: a list that cannot be trusted has no cases.
        FileNotFoundError: if there is no such list, or no such base folder.

    Example:
        found = lists.find("Task04_Hippocampus/dataset.json")

    Taught in: no lesson; the converter uses it
    """
    known = read(dataset_json, base)
    if not known.base.is_dir():
        raise FileNotFoundError("no such base folder")
    cases, rejected = [], []
    for section, items in known.sections.items():
        labelled = section != "test" and any(map(_has_label, items))
        for item in items:
            try:
                sections = ", ".join(SPLITS)
                need(section in SPLITS, "DATA_LIST", f"in a section that is none of {sections}")
                alone = labelled and not _has_label(item)
                need(not alone, "NO_PAIR", "no mask or label, where others of its section have one")
                cases.append(_case(item, known, SPLITS[section]))
            except CourseDataError as error:
                rejected.append(Rejection(files_of(item), error.code, error.message))
    return Found(tuple(cases), tuple(rejected))


def survey(case: Case, mapping: Mapping[int, int] | None = None) -> frozenset[int]:
    """The class ids in a case's mask; empty without a mask. Only the mask is decoded.

    Args:
        case: one of `find`.
        mapping: class id for each stored id, {0: 0, 255: 1} for instance; None keeps them.

    Raises:
        ValueError: for a mapping to ids beyond 0 to 255.
        CourseDataError: what `load` raises about masks.

    Example:
        ids = frozenset().union(*map(lists.survey, found.cases))

    Taught in: no lesson; the converter uses it
    """
    _, mask, _ = case.source
    return frozenset() if mask is None else frozenset(np.unique(_mask(mask, mapping)[0]).tolist())


def load(case: Case, mapping: Mapping[int, int] | None = None) -> dict:
    """Read a case's voxels.

    Args:
        case, mapping: as for `survey`.

    Returns:
        `image` `[z, y, x]` as stored and scaled, or `[z, y, x, c]` for a 4D file, whose last axis
        is taken for channels, turned so that z, y, x grow to head, back and left; `spacing`
        (z, y, x) in mm; `mask` uint8 `[z, y, x]` if there is one; `modality`, a term of DICOM, if
        the list says one that is known; `notes` if something was turned or in doubt.

    Raises:
        CourseDataError: what `nifti.read` raises; `CONSTANT` for one value in all of the image;
            `MASK_MISMATCH` if a corner of the mask lies elsewhere than the image's, by more than
            0.02 of the smallest spacing; `UNKNOWN_LABEL` for values in the mask that are not
            whole, not in the mapping or, mapped, not in 0 to 255.

    Example:
        element = lists.load(found.cases[0], {0: 0, 1: 1, 2: 1})

    Taught in: no lesson; the converter uses it, and `pipeline` for an `Item`
    """
    image_path, mask_path, modality = case.source
    image, place = nifti.read(image_path)
    alike = f"all {image.size} voxels have the same value"
    need(image.min() < image.max(), "CONSTANT", alike, image_path)
    # Sets mix files from several tools, each with its own idea of where left is.
    way = nearest_axes(place.direction)
    spacing = tuple(place.spacing[axis] for axis in way[0])
    element = {"image": turned(image, *way), "spacing": spacing}
    if mask_path is not None:
        mask, mask_place = _mask(mask_path, mapping)
        _need_same_grid(place, mask_place, [image_path, mask_path])
        element["mask"] = turned(mask, *way)
    if modality:
        element["modality"] = modality
    is_turned = way != ((0, 1, 2), (False, False, False))
    notes = (*place.notes, *[TURNED] * is_turned)
    return element | ({"notes": notes} if notes else {})


def common_dtype(items: Iterable, loaded: Iterable[np.dtype]) -> np.dtype:
    """The narrowest dtype that holds all images of a set of which some were loaded.

    Sets mix stored dtypes (the hippocampi of the Decathlon are float32 and uint8). A warning says
    so: all images then come in one.

    Args:
        items: of the set; `files_of` names their image first.
        loaded: dtypes of images. If one is a dtype that NIfTI headers of the set tell, the loader
            leaves images as they are stored, and the headers of all others count, too.

    Example:
        dtype = lists.common_dtype(items, [lists.load(items[0])["image"].dtype])

    Taught in: no lesson; pipelines and caches use it
    """
    dtypes, stored = set(loaded), set(filter(None, map(_stored, items)))
    if dtypes & stored:
        dtypes |= stored
    found = np.result_type(*dtypes)
    if len(dtypes) > 1:
        kinds = ", ".join(sorted(map(str, dtypes)))
        warnings.warn(f"images are stored as {kinds}; all come as {found}", stacklevel=2)
    return found


def _stored(item: object) -> np.dtype | None:
    """The dtype of an item's image, if that is a NIfTI file that can be read."""
    with contextlib.suppress(CourseDataError, IndexError):
        return nifti.describe(files_of(item)[0])[1]


def _document(raw: bytes) -> object:
    """What is in a JSON file, if each key stands once and all text is whole."""
    try:
        document = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_unique)
        json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except (ValueError, RecursionError) as error:
        problem = "no JSON in UTF-8 with each key once, or it is nested too deeply"
        where = f", near line {error.lineno}" if hasattr(error, "lineno") else ""
        raise CourseDataError("DATA_LIST", problem + where) from None
    return document


def _unique(pairs: list[tuple]) -> dict:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def _sections(document: dict, base: Path) -> dict[str, tuple[Item, ...]]:
    sections, images, masks = {}, set(), set()
    for position, (key, entries) in enumerate(document.items(), 1):
        if key not in SPLITS and not _holds_images(entries):
            continue
        # Another section's name is text of the list, and may say too much.
        title = key if key in SPLITS else f"the section that is key {position}"
        items = []
        for number, entry in enumerate(_expect(entries, list, title), 1):
            item = _item(entry, base, f"item {number} of {title}")
            image = item.image.resolve()  # under whatever name
            again = image in images
            need(not again, "SAME_CASE", f"the image of item {number} of {title} is listed before")
            images.add(image)
            masks.add(item.mask and item.mask.resolve())
            items.append(item)
        sections[key] = tuple(items)
    need(sections, "DATA_LIST", f"expected a section: {', '.join(SPLITS)}")
    need(not masks & images, "DATA_LIST", "an image of the list is also the mask of an item")
    return sections


def _holds_images(entries: object) -> bool:
    found = entries if isinstance(entries, list) else []
    return any(isinstance(entry, dict) and "image" in entry for entry in found)


def _item(entry: object, base: Path, where: str) -> Item:
    if isinstance(entry, str) and where.endswith(" test"):
        entry = {"image": entry}
    _expect(entry, dict, where)
    image = _inside(entry.get("image"), base, f"the image of {where}")
    label, weight, patient = (entry.get(key) for key in ("label", "weight", "patient"))
    mask = None
    if isinstance(label, str):
        mask, label = _inside(label, base, f"the mask of {where}"), None
    elif label is not None:
        ids = label if isinstance(label, list) else [label]
        good = ids and all(type(one) is int and 0 <= one <= LARGEST_LABEL for one in ids)
        need(good, "DATA_LIST", f"the label of {where} is no path, no class id and no list of ids")
        label = tuple(ids) if isinstance(label, list) else label
    if weight is not None:
        good = type(weight) in (int, float) and 0 <= weight <= sys.float_info.max
        need(good, "DATA_LIST", f"the weight of {where} is no finite number from 0")
        weight = float(weight)
    patient = str(patient) if type(patient) is int else "" if patient is None else patient
    return Item(image, mask, label, weight, _expect(patient, str, f"the patient of {where}"))


def _inside(text: object, base: Path, what: str) -> Path:
    """A path below the base folder, also with its links followed; nothing is opened."""
    _expect(text, str, what)
    absolute = text.startswith("/") or PureWindowsPath(text).drive
    good = PurePosixPath(text).parts and not absolute and "\\" not in text
    try:
        followed = (base / text).resolve()
        good = good and ".." not in text.split("/") and followed.is_relative_to(base.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that no file has; links in a circle
        good = False
    need(good, "UNSAFE_PATH", f"{what} is empty or absolute, has '..' or '\\', or is a link away")
    return base / text


def _numbered(found: object, what: str) -> dict[int, str]:
    if isinstance(found, str) and what == "modality":  # of one channel, written short
        found = {"0": found}
    for number, word in _expect(found, dict, what).items():
        good = re.fullmatch("0|[1-9][0-9]{0,9}", number) and isinstance(word, str)
        need(good, "DATA_LIST", f'{what}: expected words by numbers, {{"0": "background"}}')
    return {int(number): word for number, word in found.items()}


def _expect(value: object, kind: type, what: str):
    need(isinstance(value, kind), "DATA_LIST", f"{what} is no {KINDS[kind]}")
    return value


def _has_label(item: Item) -> bool:
    return item.mask is not None or item.label is not None


def _case(item: Item, known: DataList, split: str) -> Case:
    """The case of an item, by the headers of its files."""
    shape, dtype = nifti.describe(item.image)
    size = needed = math.prod(shape) * dtype.itemsize
    if item.mask is not None:
        size += math.prod(shape[:3])
        mask_shape, mask_dtype = nifti.describe(item.mask, "mask")
        needed = max(size, math.prod(mask_shape) * mask_dtype.itemsize)
    free = psutil.virtual_memory().available
    claim = f"headers claim {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
    need(needed <= free, "TOO_LARGE", claim)
    name = item.image.relative_to(known.base).as_posix()
    patient = item.patient or name.removesuffix(".gz").removesuffix(".nii")
    terms = {MODALITIES.get(text.strip().upper(), "") for text in known.modality.values()}
    modality = terms.pop() if len(terms) == 1 else ""  # of all channels
    source = (item.image, item.mask, modality)
    return Case(name, source, files_of(item), patient, split, item.label, item.weight, size)


def _mask(path: Path, mapping: Mapping[int, int] | None) -> tuple[np.ndarray, Volume]:
    """A mask of class ids, uint8 `[z, y, x]`, and where it lies."""
    if mapping is None:
        mapping = {number: number for number in range(256)}
    if not all(0 <= new <= 255 for new in mapping.values()):
        raise ValueError("class ids lie between 0 and 255")
    stored, place = nifti.read(path, "mask")
    values = np.unique(stored)
    whole = (values == np.rint(values)).all()
    need(whole, "UNKNOWN_LABEL", "the mask holds values that are not whole", path)
    unknown = [int(value) for value in values if int(value) not in mapping]
    found = f"the mask holds {listed(unknown, 5)}; none of the {len(mapping)} ids expected"
    need(not unknown, "UNKNOWN_LABEL", found, path)
    mask = np.zeros(stored.shape, np.uint8)
    for value in values:
        mask[stored == value] = mapping[int(value)]
    return mask, place


def _need_same_grid(image: Volume, mask: Volume, files: list[Path]) -> None:
    tolerance_mm = nifti.TOLERANCE * min(image.spacing)
    found = f"image {image}, mask {mask}"
    if image.shape == mask.shape:
        found += f", corners up to {image.apart_mm(mask):.3g} mm apart"
    same = image.same_geometry(mask, tolerance_mm)
    need(same, "MASK_MISMATCH", f"{found}; expected at most {tolerance_mm:.3g} mm", *files)
