"""Photographs and radiographs in one folder, their masks in another, joined on the stem.

    found = sources_pictures.find("skin_lesions/images", "skin_lesions/masks")
    element = sources_pictures.load_deeplab(found.cases[0], mapping={0: 0, 255: 1})

The stem is the path below the folder without .jpg, .jpeg or .png: `site/a.jpg` goes with
`site/a.png`, or with `site/a_segmentation.png` where all masks end so.

Finding, lists of patients and reading stand together here, as in every source: hence its length.
"""

from __future__ import annotations

import csv
import os
import re
import struct
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import encoded
from helpers.cases import Case, Found, Rejection
from helpers.errors import CourseDataError

MAX_BYTES = 2**30  # of a file: more than its pixels could need
IDS = 256  # a mask is stored as uint8
_SUFFIX = re.compile(r"(?<=[^/])\.(jpe?g|png)$", re.IGNORECASE)
_Pictures = dict[str, list[tuple[Path, int]]]  # files of one stem, and a bound for their pixels


def find(
    images: str | Path,
    masks: str | Path | None = None,
    *,
    mask_suffix: str | None = None,
    patients: str | Path | None = None,
    labels: str | Path | None = None,
) -> Found:
    """Look through both folders and their subfolders; a file's first bytes are all that is read.

    A picture is what starts as a JPEG or PNG file does, or is named .jpg, .jpeg or .png. Stems are
    compared in Unicode's composed form (NFC), so that sets packed on a Mac match.

    Args:
        images: folder of the pictures.
        masks: folder of the masks; one folder may lie within the other. None: no masks.
        mask_suffix: what a mask's stem has more than its image's, for instance "_segmentation".
            None: an ending that all masks share, starting with a sign such as "_" or "-", if it
            makes more pairs than any other; else nothing.
        patients: CSV file with columns `file` (or `image`), `patient` and, if you like, `label`;
            files are relative to the CSV or to `images`, with suffix or without.
        labels: CSV file with columns `file` (or `image`) and `label`, a class id.

    Returns:
        Every file under the folders in one case or one rejection: `UNKNOWN_FORMAT`, `UNREADABLE`,
        `NO_PAIR`, `SAME_CASE` (two images, or masks, of one stem), `DATA_LIST` (a picture that is
        not in the CSV). `Case.source` is (image, mask or None); `size` bounds a DeepLab record.

    Raises:
        FileNotFoundError: if there is no such folder or CSV file.
        CourseDataError: `NO_PAIR` if both folders are the same, `DATA_LIST` or `UNKNOWN_LABEL` if
            a CSV file does not say what it should.
    """
    if not os.fspath(images):
        raise FileNotFoundError("an empty path; for the working directory, pass '.'")
    images, masks = Path(images).expanduser(), masks and Path(masks).expanduser()
    for folder, what in ((images, "images"), (masks, "masks")):
        if folder and not folder.is_dir():
            raise FileNotFoundError(f"there is no such folder of {what}")
    if masks and images.samefile(masks):
        raise CourseDataError("NO_PAIR", "images and masks lie in one folder: give each its own")
    rejected: list[Rejection] = []
    pictures = _pictures(images, masks, rejected)
    drawn = _pictures(masks, images, rejected) if masks else {}
    drawn = _by_image(
        drawn, _common_suffix(pictures, drawn) if mask_suffix is None else mask_suffix
    )
    said = [_rows(patients, "patient", images, pictures, needed=True)]
    said += [_rows(labels or patients, "label", images, pictures, needed=labels is not None)]

    cases = []
    for stem in sorted({*pictures, *drawn}):
        image, mask = pictures.get(stem, []), drawn.get(stem, [])
        files = tuple(path for path, _ in image + mask)
        if max(len(image), len(mask)) > 1:
            rejected.append(Rejection(files, "SAME_CASE", f"{len(files)} files of one stem"))
        elif not image or (masks and not mask):
            which = "a mask without image" if mask else "an image without mask"
            hint = "give mask_suffix if masks are named otherwise"
            rejected.append(Rejection(files, "NO_PAIR", f"{which}; {hint}"))
        elif any(rows is not None and stem not in rows for rows in said):
            rejected.append(Rejection(files, "DATA_LIST", "a picture that is not in the list"))
        else:
            patient, label = (rows and rows[stem] for rows in said)
            size = files[0].stat().st_size + sum(bound for _, bound in mask)
            source = (files[0], files[1] if mask else None)
            cases.append(Case(stem, source, files, patient or "", label=label, size=size))
    return Found(tuple(cases), tuple(sorted(rejected, key=lambda one: one.files)))


def survey(case: Case, mapping: Mapping[int, int] | None = None) -> frozenset[int]:
    """The ids in a case's mask: as stored or, with a mapping, what they become.

    Raises:
        CourseDataError: what `load_pixels` raises for a mask.
    """
    mask = case.source[1]
    return frozenset(np.unique(_ids(mask, mapping)).tolist() if mask else ())


def load_deeplab(case: Case, mapping: Mapping[int, int] | None = None) -> dict:
    """Read a case for a DeepLab record: the image's own bytes without metadata, the mask as ids.

    Args:
        case: one that `find` has made.
        mapping: stored id to class id, 255 being ignored in training, for instance
            `{0: 0, 255: 1}`; it has to name every stored id. None keeps ids as they are.

    Returns:
        `image` (bytes), `format` ("jpeg" or "png"), `height`, `width`, `mask` (uint8 `[y, x]`).

    Raises:
        CourseDataError: those of `encoded.strip` and `load_pixels`; `NO_PAIR` without a mask.
    """
    image, mask = case.source
    if mask is None:
        raise CourseDataError("NO_PAIR", "a DeepLab record needs a mask", case.files)
    file, _ = _image(image, max_bits=8)
    ids = _fitting_ids(case, (file.height, file.width), mapping)
    size = {"height": file.height, "width": file.width}
    return {"image": file.data, "format": file.format, **size, "mask": ids}


def load_pixels(case: Case, mapping: Mapping[int, int] | None = None) -> dict:
    """Read a case for a record of pixels.

    Args:
        case: one that `find` has made.
        mapping: as for `load_deeplab`.

    Returns:
        `image`: uint8 `[y, x]` or RGB `[y, x, 3]`, uint16 `[y, x]` from grey PNG of 16 bits;
        `mask`: uint8 `[y, x]`, class ids, if there is one. A mask without foreground is one.

    Raises:
        CourseDataError: those of `encoded.strip`; `UNREADABLE`; `CONSTANT` for an image of one
            colour; `MASK_MISMATCH` if the sizes differ; for a mask also `PIXEL_FORMAT` if it is a
            JPEG, whose compression changes ids, or in colour, and `UNKNOWN_LABEL` for ids above
            255 or ids that the mapping does not name.
    """
    _, pixels = _image(case.source[0], max_bits=16)
    if case.source[1] is None:
        return {"image": pixels}
    return {"image": pixels, "mask": _fitting_ids(case, pixels.shape[:2], mapping)}


def _pictures(folder: Path, other: Path | None, rejected: list[Rejection]) -> _Pictures:
    """The pictures under a folder by their stem, without those under the other folder.

    Links to folders are followed; a folder that is reached twice is listed once.
    """
    found, seen = (
        defaultdict(list),
        {(os.stat(other).st_dev, os.stat(other).st_ino)} if other else set(),
    )

    def refuse(path: str | Path, code: str, reason: str) -> None:
        rejected.append(Rejection((Path(path),), code, reason))

    def unlisted(error: OSError) -> None:
        refuse(error.filename, "UNREADABLE", f"this folder cannot be listed: {error.strerror}")

    for root, folders, names in os.walk(folder, onerror=unlisted, followlinks=True):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for path in (Path(root, name) for name in names):
            try:
                start = _start(path)
            except OSError as error:
                refuse(path, "UNREADABLE", f"cannot be opened: {error.strerror}")
                continue
            named = _SUFFIX.search(path.name) and not path.name.startswith(".")  # a Mac's ._a.jpg
            if named or start.startswith((encoded.JPEG, encoded.PNG)):
                stem = _stem(path.relative_to(folder).as_posix())
                found[stem].append((path, _bound(start)))
            else:
                refuse(path, "UNKNOWN_FORMAT", "neither a JPEG nor a PNG file")
    return found


def _start(path: Path) -> bytes:
    if not path.is_file():  # opening a pipe would wait for ever
        raise OSError(0, "a pipe, a device or a broken link")
    with open(path, "rb") as file:
        return file.read(24)


def _bound(start: bytes) -> int:
    """The most bytes that ids may take as PNG, if they are as many as in the PNG that starts so."""
    if not start.startswith(encoded.PNG) or len(start) < 24:
        return 0
    width, height = struct.unpack(">II", start[16:])
    raw = height * (width + 1)
    return raw + raw // 1000 + 1024 if height * width <= encoded.MAX_PIXELS else 0


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", _SUFFIX.sub("", name))


def _common_suffix(images: _Pictures, masks: _Pictures) -> str:
    """The ending that all masks share and that makes most pairs; "" if two are as good."""
    name = next(iter(masks), "").rpartition("/")[2]
    endings = ["", *(name[sign.start() :] for sign in re.finditer(r"[\W_]", name))]
    endings = [ending for ending in endings if all(stem.endswith(ending) for stem in masks)]
    pairs = [sum(stem.removesuffix(ending) in images for stem in masks) for ending in endings]
    return endings[pairs.index(max(pairs))] if pairs.count(max(pairs)) == 1 else ""


def _by_image(masks: _Pictures, suffix: str) -> _Pictures:
    """The masks by the stem that their image should have."""
    suffix = unicodedata.normalize("NFC", suffix)
    moved = defaultdict(list)
    for stem, files in masks.items():
        # No file's name holds a NUL: such a mask has no image.
        moved[stem.removesuffix(suffix) if stem.endswith(suffix) else f"{stem}\0"] += files
    return moved


def _rows(
    path: str | Path | None, column: str, images: Path, pictures: _Pictures, needed: bool
) -> dict[str, str | int] | None:
    """What a column of a CSV file says of each picture, by stem; None if there is no such thing."""
    if path is None:
        return None
    path = Path(path).expanduser()

    def refusal(found: str, code: str = "DATA_LIST") -> CourseDataError:
        return CourseDataError(code, found, [path])

    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (csv.Error, UnicodeDecodeError):
        raise refusal("not a CSV file in UTF-8: save it as such") from None
    header = [name.strip().lower() for name in header]
    which = "file" if "file" in header else "image"
    if which not in header or (needed and column not in header):
        raise refusal(f"expected columns file (or image) and {column}, with commas between them")
    if column not in header:
        return None
    stems = {images.resolve() / stem: stem for stem in pictures}
    said = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise refusal(f"row {number} has {len(row)} fields, the header {len(header)}")
        file = _stem(row[header.index(which)].strip().replace("\\", "/"))
        places = [Path(os.path.normpath(base.resolve() / file)) for base in (path.parent, images)]
        stem = next((stems[place] for place in places if place in stems), None)
        value = row[header.index(column)].strip()
        if stem is None or not value:
            missing = f"no {column}" if not value else "no picture under the folder of images"
            raise refusal(f"row {number} names {missing}: complete it or leave it out")
        if column == "label":
            if not re.fullmatch(r"[0-9]{1,9}(\.0*)?", value):
                what = "expected a class id, 0 or more, in the column label; number the classes"
                raise refusal(f"row {number}: {what}", "UNKNOWN_LABEL")
            value = int(value.partition(".")[0])
        if said.setdefault(stem, value) != value:
            raise refusal(f"row {number} has another {column} than an earlier row of that picture")
    return said


def _read(path: Path, max_bits: int) -> tuple[encoded.Encoded, Image.Image]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CourseDataError("TOO_LARGE", f"a file of more than {MAX_BYTES} bytes")
        return encoded.read(path.read_bytes(), max_bits=max_bits)
    except CourseDataError as error:
        raise CourseDataError(error.code, error.message, [path]) from None
    except OSError as error:
        reason = f"cannot be opened: {error.strerror}"
        raise CourseDataError("UNREADABLE", reason, [path]) from None


def _image(path: Path, max_bits: int) -> tuple[encoded.Encoded, np.ndarray]:
    file, picture = _read(path, max_bits)
    if picture.mode in ("1", "P"):
        picture = picture.convert("RGB" if picture.mode == "P" else "L")
    pixels = np.array(picture)
    if (pixels == pixels[0, 0]).all():
        reason = f"every pixel is {pixels[0, 0].tolist()}: leave the image out"
        raise CourseDataError("CONSTANT", reason, [path])
    return file, pixels.astype(np.uint16) if file.bits == 16 else pixels


def _fitting_ids(case: Case, shape: tuple[int, ...], mapping: Mapping | None) -> np.ndarray:
    ids = _ids(case.source[1], mapping)
    if ids.shape != shape:
        raise CourseDataError(
            "MASK_MISMATCH",
            f"rows x columns: {shape[0]} x {shape[1]} in the image, {ids.shape[0]} x "
            f"{ids.shape[1]} in the mask; find the mask that was drawn on this image",
            case.files,
        )
    return ids


def _ids(path: Path, mapping: Mapping[int, int] | None) -> np.ndarray:
    """The ids of a mask, uint8 `[y, x]`: grey values or palette indices, mapped."""
    file, picture = _read(path, max_bits=16)
    ids = np.array(picture)
    if picture.mode == "L" and file.bits < 8:
        ids //= 255 // (2**file.bits - 1)  # Pillow spreads 2 and 4 bits over 0 to 255
    if file.format == "jpeg":
        code, reason = "PIXEL_FORMAT", "a mask in JPEG, which changes ids: export it as PNG"
    elif picture.mode == "RGB":
        code, reason = "PIXEL_FORMAT", "a mask in RGB: save one id for a pixel, as grey PNG"
    elif ids.max() >= IDS:
        code, reason = "UNKNOWN_LABEL", f"id {ids.max()} in the mask, expected 0 to {IDS - 1}"
    elif mapping is None:
        return ids.astype(np.uint8)
    else:
        found = np.unique(ids).tolist()
        if set(found) <= set(mapping) and all(0 <= new < IDS for new in mapping.values()):
            table = np.zeros(IDS, np.uint8)
            table[found] = [mapping[id_] for id_ in found]
            return table[ids.astype(np.uint8)]
        code, reason = "UNKNOWN_LABEL", _mapping_advice(found, mapping)
    raise CourseDataError(code, reason, [path])


def _mapping_advice(found: list[int], mapping: Mapping[int, int]) -> str:
    complete = {old: new for old, new in mapping.items() if 0 <= new < IDS} or {0: 0}
    for id_ in found:
        complete.setdefault(id_, min(set(range(IDS + 1)) - set(complete.values())))
    listed = ", ".join(map(str, found[:10])) + (
        f" and {len(found) - 10} more" if found[10:] else ""
    )
    advice = "name each, for instance " + ",".join(f"{k}={complete[k]}" for k in sorted(complete))
    if len(found) > 10:
        advice = "if edges were smoothed, set a threshold first"
    return f"ids {listed} in the mask, not all of them mapped; {advice}"
