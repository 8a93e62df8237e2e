"""Photographs and radiographs in one folder, their masks in another, joined on the stem.

    found = pictures.find("skin_lesions/images", "skin_lesions/masks")
    element = pictures.load_deeplab(found.cases[0], mapping={0: 0, 255: 1})

The stem is the path below the folder without .jpg, .jpeg or .png: `site/a.jpg` goes with
`site/a.png`, or with `site/a_segmentation.png` where all masks have this more than their images.

No metadata reach a record. A JPEG keeps its own compressed bytes and loses all segments but those
that decoding needs (`strip`); of a PNG nothing but the pixels is taken. A file that was cut is
refused, and so is what Pillow calls damaged. Codes that are missing within a JPEG's scan come out
grey, rows that are missing within a PNG black, without a word from anybody.
"""

from __future__ import annotations

import io
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from helpers.cases import Case, Found, Rejection, class_ids, files_below
from helpers.errors import CourseDataError, meaning, need

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

# A JPEG's markers (ITU T.81, table B.1), but not those that stand within a scan.
MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd8-\xfe])")
FRAMES = b"\xc0\xc1\xc2\xc9\xca"  # what TensorFlow decodes
NEEDED, SCAN, END = b"\xc4\xcc\xda\xdb\xdd", b"\xda", b"\xd9"
# How colours are coded; and what stands for a thumbnail.
COLOURS = {b"\xe0JFIF": b"\0\0", b"\xeeAdob": b""}


def find(
    images: str | Path,
    masks: str | Path | None = None,
    *,
    mask_suffix: str | None = None,
    patients: str | Path | None = None,
) -> Found:
    """Look through both folders and their subfolders; a file's first bytes are all that is read.

        found = pictures.find("images", "masks", mask_suffix="_segmentation")

    A picture is what starts as a JPEG or PNG file does, whatever it is called. Stems are compared
    in Unicode's composed form (NFC), so that sets packed on a Mac match.

    Args:
        images: folder of the pictures.
        masks: folder of the masks; one folder may lie within the other. None: no masks.
        mask_suffix: what a mask's stem has more than its image's, for instance "_segmentation".
            None: what all masks have more, each beside the longest stem of an image that it begins
            with; nothing if they differ in this, or if it does not start with a sign such as "_".
        patients: CSV file with columns `file` (or `image`), `patient` and, if you like, `label`,
            a class id; files are relative to the CSV or to `images`, with suffix or without.

    Returns:
        Every file under the folders in one case or one rejection: `UNKNOWN_FORMAT`, `UNREADABLE`,
        `NO_PAIR`, `SAME_CASE` (two images, or masks, of one stem, and `a_mask_1` beside `a_mask`,
        which may hold a part of it), `DATA_LIST` (a picture that is not in the CSV).
        `Case.source` is (image, mask or None).

    Raises:
        FileNotFoundError: if there is no such folder or CSV file.
        CourseDataError: `NO_PAIR` if both folders are the same, `DATA_LIST` or `UNKNOWN_LABEL` if
            the CSV file does not say what it should.

    Taught in: writing TFRecords
    """
    folders = [Path(one).expanduser() for one in (images, masks) if one]
    apart = len({folder.resolve(strict=True) for folder in folders}) == len(folders)
    need(apart, "NO_PAIR", "images and masks lie in one folder, expected one for each")
    cases = []
    rejected = []
    pictures = _pictures(rejected, *folders)
    drawn = _pictures(rejected, *reversed(folders)) if masks else {}
    pairs = _by_image(drawn, pictures, mask_suffix)
    table = {}
    if patients:
        table = _table(Path(patients).expanduser(), folders[0], pictures)
    for stem in sorted({*pictures, *pairs}):
        image = pictures[stem]
        mask = pairs[stem]
        files = (*image, *mask)
        faults = {
            "SAME_CASE": max(len(image), len(mask)) > 1,
            "NO_PAIR": not image or (masks and not mask),
            "DATA_LIST": patients and stem not in table,
        }
        code = next(filter(faults.get, faults), None)
        if code:
            rejected.append(Rejection(files, code, f"{len(image)} images, {len(mask)} masks"))
        else:
            source = (image[0], mask[0] if mask else None)
            cases.append(Case(stem, source, files, **table.get(stem, {})))
    return Found(tuple(cases), tuple(rejected))


def survey(case: Case, mapping: Mapping | None = None) -> frozenset[int]:
    """The ids in a case's mask: as stored or, with a mapping, what they become.

        pictures.survey(found.cases[0])      # frozenset({0, 255})

    Args:
        case: one with a mask.
        mapping: as for `load_deeplab`.

    Raises:
        CourseDataError: what `load_pixels` raises for a mask.

    Taught in: writing TFRecords
    """
    return frozenset(np.unique(_ids(case.source[1], mapping)).tolist())


def load_deeplab(case: Case, mapping: Mapping | None = None) -> dict:
    """Read a case for a DeepLab record: the image compressed, without metadata; the mask as ids.

        element = pictures.load_deeplab(found.cases[0], mapping={0: 0, 255: 1})

    Args:
        case: one that `find` has made.
        mapping: stored id to class id, 255 being ignored in training, for instance
            `{0: 0, 255: 1}`; it has to name every stored id. None keeps ids as they are.

    Returns:
        `image` (bytes), `format` ("jpeg" or "png"), `height`, `width`, `mask` (uint8 `[y, x]`).
        `tf.io.decode_image(image, channels=3)` gives the same pixels as for the file.

    Raises:
        CourseDataError: those of `load_pixels`; `NO_PAIR` without a mask; `PIXEL_FORMAT` for more
            than 8 bits.

    Taught in: writing TFRecords
    """
    path, mask = case.source
    need(mask, "NO_PAIR", "a DeepLab record needs a mask", path)
    element = load_pixels(case, mapping)
    image = element["image"]
    data = path.read_bytes()
    need(image.dtype == np.uint8, "PIXEL_FORMAT", "16 bits, expected 8", path)
    element["height"], element["width"] = image.shape[:2]
    if data.startswith(JPEG):
        return element | {"image": strip(data, path), "format": "jpeg"}
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return element | {"image": file.getvalue(), "format": "png"}


def load_pixels(case: Case, mapping: Mapping | None = None) -> dict:
    """Read a case for a record of pixels.

        element = pictures.load_pixels(found.cases[0])

    Args:
        case: one that `find` has made.
        mapping: as for `load_deeplab`.

    Returns:
        `image`: uint8 `[y, x]` or RGB `[y, x, 3]`, uint16 `[y, x]` from grey PNG of 16 bits;
        `mask`: uint8 `[y, x]`, class ids, if there is one. A mask without foreground is one.

    Raises:
        CourseDataError: those of `decode`; `UNREADABLE`; `CONSTANT` for an image of one colour;
            for a mask also `PIXEL_FORMAT` if it is a JPEG, whose compression changes ids, or in
            colour, and `UNKNOWN_LABEL` for ids above 255 or ids that the mapping does not name.
            That both are of one size is for `records.write` or the pipeline to say.

    Taught in: imbalanced classification
    """
    path, mask = case.source
    image = pixels(decode(path.read_bytes(), path))
    need((image != image[0, 0]).any(), "CONSTANT", "every pixel is the same", path)
    element = {"image": image}
    if mask is not None:
        element["mask"] = _ids(mask, mapping)
    return element


def decode(data: bytes, *files: Path) -> Image.Image:
    """The picture in a JPEG or PNG file, if it is whole, upright, and grey or RGB.

        pictures.pixels(pictures.decode(path.read_bytes()))

    Args:
        data: the whole file.
        files: where it comes from, for the message.

    Returns:
        Pillow's image, of mode 1, L, P, RGB or I;16.

    Raises:
        CourseDataError: `UNKNOWN_FORMAT` for another kind of file, `TRUNCATED`, `DECODING_FAILED`
            for a damaged one, `TOO_LARGE` before anything is decoded, `ROTATED` if EXIF or XMP
            says that the picture is to be turned, `PIXEL_FORMAT` for CMYK, an alpha channel,
            colour of 16 bits, JPEG of 12 bits, lossless JPEG.

    Taught in: no lesson; the converter uses it
    """
    jpeg = data.startswith(JPEG)
    need(jpeg or data.startswith(PNG), "UNKNOWN_FORMAT", "neither a JPEG nor a PNG file", *files)
    whole = strip(data, *files) if jpeg else PNG_END in data
    need(whole, "TRUNCATED", "there is no end chunk", *files)
    try:
        picture = Image.open(io.BytesIO(data), formats=["JPEG", "PNG"])
        picture.load()
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # Pillow lets many classes escape, and may quote what it found
        name = type(error).__name__
        code = "TOO_LARGE" if name == "DecompressionBombError" else "DECODING_FAILED"
        raise CourseDataError(code, f"Pillow's {name}", files) from None
    need(turned not in range(2, 9), "ROTATED", f"orientation {turned}, expected 1", *files)
    bits = 8 if jpeg else data[24]
    modes = ("1", "L", "P", "RGB") if bits <= 8 else ("I;16",)
    need(picture.mode in modes, "PIXEL_FORMAT", f"{picture.mode}, expected grey or RGB", *files)
    return picture


def pixels(picture: Image.Image) -> np.ndarray:
    """A picture's grey values or colours: uint8 or uint16 `[y, x]`, or RGB, uint8 `[y, x, 3]`.

    >>> pixels(Image.new("1", (3, 2), 1)).tolist()
    [[255, 255, 255], [255, 255, 255]]

    Args:
        picture: one that `decode` gives; single bits become 0 and 255, palettes their colours.

    Taught in: no lesson; the converter uses it
    """
    mode = {"1": "L", "P": "RGB"}.get(picture.mode)
    return np.array(picture.convert(mode) if mode else picture)


def strip(data: bytes, *files: Path) -> bytes:
    """A JPEG's own bytes without what could name a person, and not one pixel changed.

    `data` is the whole file; `files` is where it comes from, for the message.

        strip(path.read_bytes())      # as `jpegtran -copy none` does

    Goes from segment to segment (ITU T.81, annex B) and copies frame, tables and scans. Of the
    rest only the few fields stay that say how colours are coded, JFIF's and Adobe's. EXIF, XMP,
    comments, profiles, thumbnails and whatever follows the end are left out.

    Raises:
        CourseDataError: `TRUNCATED`, `DECODING_FAILED`, `PIXEL_FORMAT`, as `decode`.

    Taught in: no lesson; the converter uses it
    """
    kept = [data[:2]]
    at = 2
    marker = b""
    while found := MARKER.search(data, at):
        if marker == SCAN:
            kept.append(data[at : found.start()])
        marker = found[1]
        start = found.end()
        if marker == END:
            return b"".join([*kept, b"\xff", END])
        at = start + int.from_bytes(data[start : start + 2])
        body = data[start + 2 : at]
        if marker + body[:4] in COLOURS:
            body = body[:12] + COLOURS[marker + body[:4]]
        elif marker >= b"\xe0":
            continue  # which says nothing of the pixels
        else:
            good = marker in NEEDED or (marker in FRAMES and body[:1] in (b"\x08", b""))
            need(good, "PIXEL_FORMAT", "a JPEG of 12 bits, lossless or hierarchical", *files)
        kept += [b"\xff", marker, (len(body) + 2).to_bytes(2), body]
    raise CourseDataError("TRUNCATED", "there is no end marker", files)


def _ids(path, mapping) -> np.ndarray:
    """The ids of a mask, uint8 `[y, x]`: grey values or palette indices, mapped."""
    data = path.read_bytes()
    picture = decode(data, path)
    good = picture.format == "PNG" and picture.mode != "RGB"
    need(good, "PIXEL_FORMAT", "a mask in colour or in JPEG", path)
    ids = np.array(picture).astype(np.uint16)
    if picture.mode == "L":
        ids //= 255 // (2 ** data[24] - 1)  # Pillow spreads 2 and 4 bits over 0 to 255
    return class_ids(ids, mapping, path)


def _pictures(rejected, folder, *others) -> dict[str, list[Path]]:
    """The pictures under a folder, but not under others, by stem; all else is `rejected`."""
    files, odd = files_below(folder, *others)
    pictures = defaultdict(list)
    codes = dict.fromkeys(odd, "UNREADABLE")
    for path in files:
        start = b""
        with suppress(OSError), open(path, "rb") as file:
            start = file.read(len(PNG))
        if start.startswith((JPEG, PNG)):
            pictures[_stem(path.relative_to(folder))].append(path)
        else:
            codes[path] = "UNKNOWN_FORMAT" if start else "UNREADABLE"
    for path, code in codes.items():
        rejected.append(Rejection((path,), code, meaning(code)))
    return pictures


def _stem(path) -> str:
    """A path without suffix, spelled in one way."""
    name = str(path).replace("\\", "/")
    name = Path(unicodedata.normalize("NFC", name)).as_posix()
    return re.sub(r"\.(jpe?g|png)$", "", name, flags=re.IGNORECASE)


def _by_image(masks, images, suffix) -> dict[str, list[Path]]:
    """The masks by the stem that their image has; `a_mask_1` beside `a_mask` goes where it goes."""
    owners = {}
    for mask in masks:  # the longest stem that it begins with, but 10 does not begin with 1
        ends = [0]
        for end in range(len(mask) + 1):
            if mask[:end] in images and not mask[end : end + 1].isdigit():
                ends.append(end)
        owners[mask] = mask[: ends[-1]]
    if suffix is None:
        endings = {mask.removeprefix(owner) for mask, owner in owners.items() if owner}
        (suffix,) = endings if len(endings) == 1 else [""]
        suffix = "" if suffix[:1].isalnum() else suffix
    found = defaultdict(list)
    for mask, owner in owners.items():
        whole = owner + suffix
        fits = whole in masks and mask.startswith(whole)
        found[owner if fits else f"{mask}\0"] += masks[mask]  # else a name that no image has
    return found


def _table(path, images, pictures) -> dict[str, dict]:
    """What a CSV file says of each picture by its stem: patient, and label if there is one."""
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except ValueError:
        raise CourseDataError("DATA_LIST", "not a CSV file in UTF-8", [path]) from None
    columns = [name.strip().lower().replace("file", "image") for name in table]
    found = "expected columns file (or image) and patient, with commas between them"
    need({"image", "patient"} <= {*columns}, "DATA_LIST", found, path)
    said = {}
    for line, row in enumerate(table.itertuples(index=False), 2):
        told = dict(zip(columns, map(str.strip, row), strict=True))
        if not any(told.values()):
            continue
        places = os.path.relpath(path.parent / told["image"], images), told["image"]
        stem = next((stem for stem in map(_stem, places) if stem in pictures), None)
        need(stem, "DATA_LIST", f"line {line} names no picture under the folder of images", path)
        known = {"patient": told["patient"], "label": None}
        if "label" in told:
            number = told["label"].removesuffix(".0")
            need(number.isdecimal(), "UNKNOWN_LABEL", f"line {line} has no class id", path)
            known["label"] = int(number)
        good = known["patient"] and said.setdefault(stem, known) == known
        need(good, "DATA_LIST", f"line {line} lacks a patient or contradicts another line", path)
    return said
