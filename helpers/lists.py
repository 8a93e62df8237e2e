"""Decathlon data lists: what a set holds, and its NIfTI volumes with masks or class labels.

    listed = lists.read("data/decathlon_organs/dataset.json")
    listed.sections["training"][0].image, listed.labels
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

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os.path import realpath  # follows links, also in a circle
from pathlib import Path

import numpy as np

from helpers import nifti
from helpers.cases import Case, Found, Rejection, class_ids
from helpers.errors import CourseDataError, need
from helpers.volume import nearest_axes, turned

SPLITS = {"training": "train", "validation": "validation", "test": "test"}  # by section
# What data lists call their channels, in DICOM's terms (PS3.3 C.7.3.1.1.1).
MODALITIES = dict.fromkeys(("MR", "MRI", "T1W", "T1GD", "T2", "T2W", "FLAIR", "ADC"), "MR")
MODALITIES |= {"CT": "CT", "PET": "PT"}


@dataclass(frozen=True)
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

    image: Path = field(repr=False)
    mask: Path | None = field(default=None, repr=False)
    label: int | tuple[int, ...] | None = None
    weight: float | None = None
    patient: str = field(default="", repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """The image and, where there is one, the mask."""
        return tuple(filter(None, (self.image, self.mask)))

    @property
    def is_labelled(self) -> bool:
        """Whether it has a mask or a label."""
        return self.mask is not None or self.label is not None


@dataclass(frozen=True)
class DataList:
    """A data set's list.

    Args:
        base: the folder that its paths start from.
        sections: the items of each by name, "training" for instance.
        modality: what the list calls the channels, "MRI" for instance.
        labels: names of the class ids.

    Taught in: segmentation with DeepLab
    """

    base: Path = field(repr=False)
    sections: dict[str, list[Item]] = field(repr=False)
    modality: str
    labels: dict[int, str]


def files_of(item: object, *, text: bool = False) -> tuple:
    """The files that an item is read from, as far as it says so.

    Args:
        item: an `Item`, a `cases.Case`, a path, a dict or list of paths, or anything else.
        text: whether text is taken for a path as well.

    >>> [file.name for file in files_of(Item(Path("a.nii"), mask=Path("b.nii")))]
    ['a.nii', 'b.nii']

    Taught in: no lesson; pipelines and caches use it to name files
    """
    found = getattr(item, "files", item)
    found = list(found.values()) if isinstance(found, Mapping) else found
    found = found if isinstance(found, list | tuple) else [found]
    kinds = (Path, str) if text else Path
    return tuple(Path(one) for one in found if isinstance(one, kinds))


def read(path: str | Path, base: str | Path | None = None) -> DataList:
    """Read a data list; no image is opened, and none has to exist.

    Args:
        path: a JSON file in UTF-8, with or without a byte order mark.
        base: the folder that the paths in it start from; by default the file's own.

    `training`, `validation` and `test` are sections, and so is any other list that holds an
    object with an `image`. An item's `label` is a mask if it is text, else class ids from 0.

    Raises:
        CourseDataError: `UNSAFE_PATH` for a path that is empty or absolute, holds a backslash, or
            leaves the base folder, by `..` or by a link; `SAME_CASE` for an image that is listed
            twice, or as a mask, under whatever name; `DATA_LIST` for all else that is not as above.
            Messages give section and item, counted from 1, and no text of the list.
        FileNotFoundError: if there is no such file.

    Example:
        listed = lists.read("data/decathlon_organs/dataset.json")

    Taught in: segmentation with DeepLab
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError("no such data list")
    base = Path(base or path.parent)
    where = "the list"
    sections = {}
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_once)
        os.fsencode(json.dumps(document, ensure_ascii=False))  # half a character has no bytes
        labels = document.get("labels", {})
        labels = {int(number): str(labels[number]) for number in labels}
        words = document.get("modality", "")
        words = words.values() if isinstance(words, dict) else [words]
        modality = " ".join(dict.fromkeys(map(str, words)))
        for key, entries in document.items():
            if key in SPLITS or _has_images(entries):
                title = key if key in SPLITS else "another section"  # its name may say too much
                need(isinstance(entries, list), "DATA_LIST", f"has a {title} that is no list")
                sections[key] = []
                for number, entry in enumerate(entries, 1):
                    where = f"item {number} of {title}"
                    sections[key].append(_item(entry, base))
    except Exception as error:  # whatever stands there; its text may quote it
        code = getattr(error, "code", "DATA_LIST")
        found = getattr(error, "message", "is not what the format says")
        raise CourseDataError(code, f"{where} {found}") from None
    need(sections, "DATA_LIST", f"expected a section: {', '.join(SPLITS)}")
    items = [item for items in sections.values() for item in items]
    images = [realpath(item.image) for item in items]
    apart = {*images}.isdisjoint(realpath(item.mask) for item in items if item.mask)
    need(apart and len({*images}) == len(images), "SAME_CASE", "an image is listed twice")
    return DataList(base, sections, modality, labels)


def find(dataset_json: str | Path, base: str | Path | None = None) -> Found:
    """The cases of a data list, from its text and the headers of its files.

    `training` becomes the split "train"; `validation` and `test` keep their names. A case's name
    is its image's path below the base folder; without a `patient` it is also, less the ending,
    its patient. `size` is the bytes of its voxels and one more for each, as for a mask.

    Args:
        dataset_json, base: as for `read`.

    Returns:
        Cases, and rejections: what `nifti.describe` refuses, `TOO_LARGE` for headers that claim
        more than memory can hold, `NO_PAIR` for an item without mask and label in a section (not
        "test") where others have one, `DATA_LIST` for items of further sections.

    Raises:
        CourseDataError: what `read` raises: a list that cannot be trusted has no cases.
        FileNotFoundError: if there is no such list.

    Example:
        found = lists.find("Task04_Hippocampus/dataset.json")

    Taught in: no lesson; the converter uses it
    """
    known = read(dataset_json, base)
    cases = []
    rejected = []
    for section, items in known.sections.items():
        labelled = section != "test" and any(item.is_labelled for item in items)
        for item in items:
            try:
                need(section in SPLITS, "DATA_LIST", "in a section of another name")
                need(item.is_labelled or not labelled, "NO_PAIR", "no mask or label, unlike others")
                cases.append(_case(item, known, SPLITS[section]))
            except CourseDataError as error:
                rejected.append(Rejection(item.files, error.code, error.message))
    return Found(tuple(cases), tuple(rejected))


def survey(case: Case, mapping: Mapping | None = None) -> frozenset:
    """The class ids in a case's mask; empty without a mask. Only the mask is decoded.

    Args:
        case: one of `find`.
        mapping: class id for each stored id, {0: 0, 255: 1} for instance; None keeps them.

    Raises:
        CourseDataError: what `load` raises about masks.

    Example:
        ids = frozenset().union(*map(lists.survey, found.cases))

    Taught in: no lesson; the converter uses it
    """
    _, mask, _ = case.source
    if mask is None:
        return frozenset()
    stored, _ = nifti.read(mask, "mask")
    return frozenset(np.unique(class_ids(stored, mapping, mask)).tolist())


def load(case: Case, mapping: Mapping | None = None) -> dict:
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
    need(image.min() < image.max(), "CONSTANT", "all voxels have the same value", image_path)
    # Sets mix files from several tools, each with its own idea of where left is.
    upright = place.in_lps_order()
    turns = nearest_axes(place.direction)
    element = {"image": turned(image, *turns), "spacing": upright.spacing, "modality": modality}
    if mask_path is not None:
        stored, there = nifti.read(mask_path, "mask")
        same = place.same_geometry(there, nifti.TOLERANCE * min(place.spacing))
        found = f"image {place} at {place.origin}, mask {there} at {there.origin}"
        need(same, "MASK_MISMATCH", found, image_path, mask_path)
        element["mask"] = turned(class_ids(stored, mapping, mask_path), *turns)
    element["notes"] = upright.notes
    return {key: value for key, value in element.items() if len(value)}


def common_dtype(items: Iterable, loaded: Iterable) -> np.dtype:
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
    dtypes = set(loaded)
    stored = set()
    for item in items:
        with suppress(CourseDataError, IndexError):  # no NIfTI, or no file
            stored.add(nifti.describe(files_of(item)[0])[1])
    if dtypes & stored:
        dtypes |= stored
    found = np.result_type(*dtypes)
    if len(dtypes) > 1:
        names = ", ".join(sorted(map(str, dtypes)))
        warnings.warn(f"images are stored as {names}; all come as {found}", stacklevel=2)
    return found


def _once(pairs) -> dict:
    """A JSON object, if it has each key once."""
    found = dict(pairs)
    need(len(found) == len(pairs), "DATA_LIST", "has a key twice")
    return found


def _has_images(entries) -> bool:
    """Whether a list holds an object with an image."""
    entries = entries if isinstance(entries, list) else []
    return any("image" in one for one in entries if isinstance(one, dict))


def _item(entry, base) -> Item:
    """An item of a section; text alone is an image."""
    entry = entry if isinstance(entry, dict) else {"image": entry}
    image, label, weight, patient = map(entry.get, ("image", "label", "weight", "patient"))
    image = _inside(image, base)
    mask = None
    if isinstance(label, str):
        mask = _inside(label, base)
        label = None
    if label is not None:
        ids = label if isinstance(label, list) else [label]
        good = ids and all(type(one) is int and 0 <= one < 2**31 for one in ids)
        need(good, "DATA_LIST", "has a label that is none")
        label = tuple(ids) if ids is label else label
    need(weight is None or 0 <= weight < 1e30, "DATA_LIST", "has a weight that is none")
    return Item(image, mask, label, weight, "" if patient is None else str(patient))


def _inside(text, base) -> Path:
    """A path below the base folder, also with its links followed; nothing is opened."""
    path = base / text
    inside = Path(realpath(base)) in Path(realpath(path)).parents
    good = inside and not text.startswith("/") and "\\" not in text
    need(good, "UNSAFE_PATH", "has a path that is not below the folder, with slashes")
    return path


def _case(item: Item, known: DataList, split: str) -> Case:
    """The case of an item, by the headers of its files."""
    shape, dtype = nifti.describe(item.image)
    size = np.prod(shape) * dtype.itemsize + np.prod(shape[:3])
    if item.mask is not None:
        nifti.describe(item.mask, "mask")
    name = item.image.relative_to(known.base).as_posix()
    patient = item.patient or name.removesuffix(".gz").removesuffix(".nii")
    terms = {MODALITIES.get(word, "") for word in known.modality.upper().split()}
    modality = terms.pop() if len(terms) == 1 else ""  # of all channels
    source = item.image, item.mask, modality
    return Case(name, source, item.files, patient, split, item.label, item.weight, int(size))
