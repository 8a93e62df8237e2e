"""The Decathlon data list: the images, masks and labels of a set; its splits are `splits`'.

    listed = datalist.load("data/decathlon_organs/dataset.json")
    listed.training[0].image, listed.labels
    cases = datalist.split(cases, {"train": 0.8, "test": 0.2}, seed=7)

The format is that of the Medical Segmentation Decathlon, with the `weight` and the class `label`
of Clara Train, and one extension of the course: an item may name its `patient`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NoReturn

from helpers import splits
from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.splits import split

__all__ = ["DataList", "Item", "check_splits", "files_of", "load", "save", "split"]

SECTIONS = ("training", "validation", "test")
LARGEST_LIST = 2**28  # bytes; a million cases need less
LARGEST_LABEL = 2**31 - 1  # records hold labels as int32
KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
}


@dataclasses.dataclass(frozen=True)
class Item:
    """One line of a data list. Paths, patient and what else it holds stay out of what is printed.

    Args:
        image: the image's path, below the list's base folder.
        mask: the path of its segmentation mask, if its `label` is text.
        label: its class id, or one for each of several labels, if its `label` is that.
        weight: probability weight for sampling, finite and not negative.
        patient: all images of a person share it; empty if the list does not say.
        other: the item's other keys, as they came.
    """

    image: Path = dataclasses.field(repr=False)
    mask: Path | None = dataclasses.field(default=None, repr=False)
    label: int | tuple[int, ...] | None = None
    weight: float | None = None
    patient: str = dataclasses.field(default="", repr=False)
    other: dict = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True)
class DataList:
    """A data set's list: `sections` of items by name, and what the list says about the set.

    `labels` names class ids, `modality` channels; `other` keeps the list's remaining keys.
    """

    base: Path = dataclasses.field(repr=False)
    sections: dict[str, tuple[Item, ...]] = dataclasses.field(repr=False)
    name: str = ""
    description: str = ""
    modality: dict[int, str] = dataclasses.field(default_factory=dict)
    labels: dict[int, str] = dataclasses.field(default_factory=dict)
    other: dict = dataclasses.field(default_factory=dict, repr=False)

    training = property(lambda self: self.sections.get("training", ()))
    validation = property(lambda self: self.sections.get("validation", ()))
    test = property(lambda self: self.sections.get("test", ()))


def check_splits(cases: Iterable[Case]) -> None:
    """Until the records call `splits.check` themselves."""
    splits.check(cases)


def files_of(item: object, *, text: bool = False) -> tuple[Path, ...]:
    """The files that an item is read from, as far as it says so.

    Args:
        item: an `Item`, a `cases.Case`, a path, a dict or list of paths, or anything else.
        text: whether text is taken for a path as well.
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


def load(path: str | Path, base: str | Path | None = None) -> DataList:
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
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError("no such data list")
    doubled = []

    def unique(pairs: list[tuple]) -> dict:
        made = dict(pairs)
        if len(made) < len(pairs):
            doubled.append(made)
        return made

    try:
        if path.stat().st_size > LARGEST_LIST:
            raise CourseDataError("DATA_LIST", f"expected at most {LARGEST_LIST // 2**20} MiB")
        try:
            document = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            where = f" after line {error.lineno}" if hasattr(error, "lineno") else ""
            problem = f"this is no JSON in UTF-8, or it is nested too deeply{where}"
            raise CourseDataError("DATA_LIST", f"{problem}; check how it was written") from None
        return _parse(document, path.parent if base is None else Path(base), doubled)
    except CourseDataError as error:
        raise CourseDataError(error.code, error.message, [path]) from None


def save(datalist: DataList, path: str | Path) -> Path:
    """Write a data list, with paths below its base folder; folders are made.

    `load(path, datalist.base)` gives an equal list; in the base folder `load(path)` does.

    Raises:
        ValueError: for a list that would not come back equal: an item with both a mask and a
            label, an image outside of the base folder, a number that is not finite.
        CourseDataError: for what `load` refuses.
    """

    def text(file: Path) -> str:
        if not file.is_relative_to(datalist.base):
            raise ValueError("an item lies outside of the list's base folder")
        return file.relative_to(datalist.base).as_posix()

    def entry(item: Item, section: str) -> dict | str:
        label = item.label if item.mask is None else text(item.mask)
        known = {"label": label, "weight": item.weight, "patient": item.patient or None}
        found = {key: value for key, value in known.items() if value is not None} | item.other
        image = text(item.image)
        return {"image": image, **found} if found or section != "test" else image

    about = {"name": datalist.name, "description": datalist.description}
    for key in ("modality", "labels"):
        about[key] = {str(number): word for number, word in getattr(datalist, key).items()}
    document = {key: value for key, value in about.items() if value} | datalist.other
    for section, items in datalist.sections.items():
        document[section] = [entry(item, section) for item in items]
    # ASCII, so that any file name that the system can hold survives.
    written = json.dumps(document, indent=1)
    if _parse(json.loads(written), datalist.base) != datalist:
        raise ValueError("a list that JSON cannot hold: it would not read back equal")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written + "\n", encoding="ascii", newline="\n")
    return path


def _parse(document: object, base: Path, doubled: Iterable[dict] = ()) -> DataList:
    """The list in a JSON document; `doubled` are its objects in which a key stands twice."""
    root, twice = base.resolve(), {id(one) for one in doubled}
    rest, sections, images, masks = dict(_expect(document, dict, "the file")), {}, set(), set()
    if id(document) in twice:
        raise CourseDataError("DATA_LIST", "a key stands twice at the top; keep one of them")
    for position, (key, value) in enumerate(document.items(), 1):
        entries = value if isinstance(value, list) else []
        if key not in SECTIONS and not any(isinstance(e, dict) and "image" in e for e in entries):
            continue
        # Another section's name is text of the list, and may say too much.
        title = key if key in SECTIONS else f"the section that is key {position}"
        items = []
        for number, entry in enumerate(_expect(rest.pop(key), list, title), 1):
            where = f"item {number} of {title}"
            if id(entry) in twice:
                raise CourseDataError("DATA_LIST", f"{where}: a key stands twice; keep one of them")
            if key == "test" and isinstance(entry, str):
                entry = {"image": entry}
            item = _item(_expect(entry, dict, where), base, root, where)
            image, mask = (_identity(file) for file in (item.image, item.mask))
            if image in images:
                problem = "an image that is listed before; list it once, in one section"
                raise CourseDataError("SAME_CASE", f"{where}: {problem}")
            images.add(image)
            masks.add(mask)
            items.append(item)
        sections[key] = tuple(items)
    if not sections:
        raise CourseDataError("DATA_LIST", f"expected a section: {', '.join(SECTIONS)}")
    if masks & images:
        raise CourseDataError("DATA_LIST", "an image of the list is also the mask of an item")
    if twice:
        raise CourseDataError("DATA_LIST", "a key stands twice in an object; keep one of them")
    words = {key: _expect(rest.pop(key, ""), str, key) for key in ("name", "description")}
    if isinstance(rest.get("modality"), str):  # one channel, written short
        rest["modality"] = {"0": rest["modality"]}
    maps = {key: _numbered(rest.pop(key, {}), key) for key in ("modality", "labels")}
    return DataList(base, sections, **words, **maps, other=rest)


def _item(found: dict, base: Path, root: Path, where: str) -> Item:
    rest = dict(found)
    image = _inside(rest.pop("image", None), base, root, f"the image of {where}")
    label, weight, patient = (rest.pop(key, None) for key in ("label", "weight", "patient"))
    mask = None
    if isinstance(label, str):
        mask, label = _inside(label, base, root, f"the mask of {where}"), None
    elif label is not None:
        ids = label if isinstance(label, list) else [label]
        if not ids or not all(type(one) is int and 0 <= one <= LARGEST_LABEL for one in ids):
            _refuse(f"the label of {where}", label, "a mask's path, a class id from 0, or such ids")
        label = tuple(ids) if isinstance(label, list) else label
    if weight is not None:
        if type(weight) not in (int, float) or not 0 <= weight <= sys.float_info.max:
            _refuse(f"the weight of {where}", weight, "a finite number from 0")
        weight = float(weight)
    patient = str(patient) if type(patient) is int else "" if patient is None else patient
    return Item(image, mask, label, weight, _expect(patient, str, f"the patient of {where}"), rest)


def _inside(text: object, base: Path, root: Path, what: str) -> Path:
    """A path below the base folder, `root` with its links followed; nothing is opened."""
    _expect(text, str, what)
    if not PurePosixPath(text).parts:
        problem = "is empty"
    elif text.startswith("/") or PureWindowsPath(text).drive:
        problem = "is absolute"
    elif "\\" in text:
        problem = "holds a backslash"
    elif ".." in text.split("/"):
        problem = "climbs with '..'"
    else:
        problem = "leaves the folder by a link"
        try:
            if (base / text).resolve().is_relative_to(root):
                return base / text
        except (OSError, ValueError, RuntimeError):  # a name that no file has; links in a circle
            problem = "is none that this system can follow"
    wanted = "a path below the set's folder, with forward slashes"
    raise CourseDataError("UNSAFE_PATH", f"{what}: the path {problem}; expected {wanted}")


def _identity(file: Path | None) -> str | None:
    """What tells a file from another, whatever it is called."""
    return file and os.path.normcase(file.resolve())


def _numbered(found: object, what: str) -> dict[int, str]:
    for number, word in _expect(found, dict, what).items():
        if not re.fullmatch("0|[1-9][0-9]{0,9}", number) or not isinstance(word, str):
            wanted = 'expected numbers as keys and text as values, {"0": "background"}'
            raise CourseDataError("DATA_LIST", f"{what}: {wanted}; turn the map round")
    return {int(number): word for number, word in found.items()}


def _expect(value: object, kind: type, what: str):
    """The value, if it is of that kind; text has to be whole characters."""
    if not isinstance(value, kind):
        _refuse(what, value, KINDS[kind])
    if kind is str:
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise CourseDataError("DATA_LIST", f"{what} holds half a character") from None
    return value


def _refuse(what: str, value: object, wanted: str) -> NoReturn:
    kind = "nothing" if value is None else KINDS.get(type(value), "a number")
    raise CourseDataError("DATA_LIST", f"{what} is {kind}, expected {wanted}")
