"""Photographs and radiographs in one folder, their masks in another, joined on the stem.

    found = pictures.find("skin_lesions/images", "skin_lesions/masks")
    element = pictures.load_deeplab(found.cases[0], mapping={0: 0, 255: 1})

The stem is the path below the folder without .jpg, .jpeg or .png: `site/a.jpg` goes with
`site/a.png`, or with `site/a_segmentation.png` where all masks end so.

No metadata reach a record. A JPEG keeps its own compressed bytes and loses all segments but those
that decoding needs (`strip`); of a PNG nothing but the pixels is taken. Pillow decodes, and refuses
what is damaged; what it lets pass is looked at here, such as a PNG with rows missing. Codes that
are missing within a JPEG's scan come out grey, without a word from anybody.
"""

from __future__ import annotations

import csv
import io
import os
import re
import struct
import unicodedata
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from helpers.cases import Case, Found, Rejection
from helpers.errors import CourseDataError, listed, meaning, need

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
MAX_BYTES = 2**30  # of a file: more than its pixels could need
ORIENTATION = 0x0112  # EXIF: 1 is upright, 2 to 8 are mirrored or turned

# A JPEG's markers (ITU T.81, table B.1), and how a scan ends, which no stuffed zero does.
MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd9-\xfe])")
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
TABLES, SCAN, END = b"\xc4\xcc\xdb\xdd", b"\xda", b"\xd9"
FRAMES = b"\xc0\xc1\xc2\xc9\xca"  # what TensorFlow decodes
JFIF, ADOBE = b"\xe0JFIF", b"\xeeAdobe"  # these say how colours are coded
MAX_SEGMENTS = 500  # a decoder goes over the whole picture for each scan


def find(
    images: str | Path,
    masks: str | Path | None = None,
    *,
    mask_suffix: str | None = None,
    patients: str | Path | None = None,
    labels: str | Path | None = None,
) -> Found:
    """Look through both folders and their subfolders; a file's first bytes are all that is read.

    A picture is what starts as a JPEG or PNG file does, whatever it is called. Stems are compared
    in Unicode's composed form (NFC), so that sets packed on a Mac match.

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
        `NO_PAIR`, `SAME_CASE` (two images, or masks, of one stem, and `a_mask_1` beside `a_mask`,
        which may hold a part of it), `DATA_LIST` (a picture that is not in the CSV).
        `Case.source` is (image, mask or None).

    Raises:
        FileNotFoundError: if there is no such folder or CSV file.
        CourseDataError: `NO_PAIR` if both folders are the same, `DATA_LIST` or `UNKNOWN_LABEL` if
            a CSV file does not say what it should.

    Taught in: writing TFRecords
    """
    folders = [os.path.expanduser(one) for one in (images, masks) if one is not None]
    if not all(map(os.path.isdir, folders)):
        raise FileNotFoundError("there is no such folder of images or of masks")
    apart = len(set(map(os.path.realpath, folders))) == len(folders)
    need(apart, "NO_PAIR", "images and masks lie in one folder, expected one for each")
    pictures, rejected = _pictures(*folders)
    drawn, strange = _pictures(*reversed(folders)) if masks else ({}, [])
    by_image = _by_image(drawn, pictures, mask_suffix)
    lists = [(patients, "patient"), (labels, "label")]
    tables = [_table(path, column, folders[0], pictures) for path, column in lists if path]

    cases, rejected = [], rejected + strange
    for stem in sorted({*pictures, *by_image}):
        image, mask = pictures[stem], by_image[stem]
        files = (*image, *mask)
        try:
            found = f"{len(image)} images and {len(mask)} masks of one name"
            need(max(len(image), len(mask)) == 1, "SAME_CASE", found)
            found = f"{found}; mask_suffix says how masks are named otherwise"
            need(image and (mask or not masks), "NO_PAIR", found)
            known = all(stem in table for table in tables)
            need(known, "DATA_LIST", "a picture that is not in the list")
        except CourseDataError as error:
            rejected.append(Rejection(files, error.code, error.message))
            continue
        said = {key: value for table in tables for key, value in table[stem].items()}
        source = (image[0], mask[0] if mask else None)
        cases.append(Case(stem, source, files, said.get("patient", ""), label=said.get("label")))
    return Found(tuple(cases), tuple(sorted(rejected, key=lambda one: one.files)))


def survey(case: Case, mapping: Mapping[int, int] | None = None) -> frozenset[int]:
    """The ids in a case's mask: as stored or, with a mapping, what they become.

    Raises:
        CourseDataError: what `load_pixels` raises for a mask.

    Taught in: writing TFRecords
    """
    mask = case.source[1]
    return frozenset(np.unique(_ids(mask, mapping)).tolist() if mask else ())


def load_deeplab(case: Case, mapping: Mapping[int, int] | None = None) -> dict:
    """Read a case for a DeepLab record: the image compressed, without metadata; the mask as ids.

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
    need(image.dtype == np.uint8, "PIXEL_FORMAT", "16 bits, expected 8", path)
    data, file = _bytes(path), io.BytesIO()
    if data.startswith(JPEG):
        stored, kind = strip(data, path), "jpeg"
    else:
        Image.fromarray(image).save(file, "PNG")
        stored, kind = file.getvalue(), "png"
    height, width = image.shape[:2]
    return {**element, "image": stored, "format": kind, "height": height, "width": width}


def load_pixels(case: Case, mapping: Mapping[int, int] | None = None) -> dict:
    """Read a case for a record of pixels.

    Args:
        case: one that `find` has made.
        mapping: as for `load_deeplab`.

    Returns:
        `image`: uint8 `[y, x]` or RGB `[y, x, 3]`, uint16 `[y, x]` from grey PNG of 16 bits;
        `mask`: uint8 `[y, x]`, class ids, if there is one. A mask without foreground is one.

    Raises:
        CourseDataError: those of `decode`; `UNREADABLE`; `CONSTANT` for an image of one colour;
            `MASK_MISMATCH` if the sizes differ; for a mask also `PIXEL_FORMAT` if it is a JPEG,
            whose compression changes ids, or in colour, and `UNKNOWN_LABEL` for ids above 255 or
            ids that the mapping does not name.

    Taught in: imbalanced classification
    """
    path, mask = case.source
    image = pixels(decode(_bytes(path), path))
    need((image != image[0, 0]).any(), "CONSTANT", "every pixel is the same", path)
    if mask is None:
        return {"image": image}
    ids = _ids(mask, mapping)
    found = f"rows and columns: {image.shape[:2]} in the image, {ids.shape} in the mask"
    need(image.shape[:2] == ids.shape, "MASK_MISMATCH", found, *case.files)
    return {"image": image, "mask": ids}


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
    need(jpeg or PNG_END in data, "TRUNCATED", "there is no end chunk", *files)
    if jpeg:
        strip(data, *files)
    try:
        with warnings.catch_warnings(action="ignore"):  # of large pictures
            picture = Image.open(io.BytesIO(data), formats=["JPEG", "PNG"])
            picture.load()
            turned = picture.getexif().get(ORIENTATION, 1)
            whole = jpeg or _is_whole_png(data)
    except (Image.DecompressionBombError, MemoryError):
        raise CourseDataError("TOO_LARGE", "more pixels than are opened", files) from None
    except Exception as error:  # Pillow lets many classes escape, and may quote what it found
        found = f"Pillow ends with {type(error).__name__}"
        raise CourseDataError("DECODING_FAILED", found, files) from None
    need(turned not in range(2, 9), "ROTATED", f"orientation {turned}, expected 1", *files)
    bits = 8 if jpeg else data[24]
    modes = ("1", "L", "P", "RGB") if bits <= 8 else ("I;16",)
    found = f"{bits} bits of {picture.mode}, expected grey or RGB"
    need(picture.mode in modes, "PIXEL_FORMAT", found, *files)
    need(whole, "DECODING_FAILED", "rows, or the palette, are missing", *files)
    return picture


def pixels(picture: Image.Image) -> np.ndarray:
    """A picture's grey values or colours: uint8 or uint16 `[y, x]`, or RGB, uint8 `[y, x, 3]`."""
    mode = {"1": "L", "P": "RGB"}.get(picture.mode)
    return np.array(picture.convert(mode) if mode else picture)


def strip(data: bytes, *files: Path) -> bytes:
    """A JPEG's own bytes without what could name a person, and not one pixel changed.

        strip(path.read_bytes())      # as `jpegtran -copy none` does

    Goes from segment to segment (ITU T.81, annex B) and copies frame, tables and scans. Of the
    rest only the few fields stay that say how colours are coded, JFIF's and Adobe's. EXIF, XMP,
    comments, profiles, thumbnails and whatever follows the end are left out.

    Raises:
        CourseDataError: `TRUNCATED`, `DECODING_FAILED`, `PIXEL_FORMAT`, as `decode`.

    Taught in: no lesson; the converter uses it
    """
    kept, at, unseen = [data[:2]], 2, {None}  # the channels that no scan has shown yet
    while found := MARKER.match(data, at):
        marker, start = found[1], found.end()
        if marker == END:
            need(not unseen, "TRUNCATED", "the picture, or one of its channels, is missing", *files)
            return b"".join([*kept, b"\xff\xd9"])
        at = start + int.from_bytes(data[start : start + 2], "big")
        body, scan = data[start + 2 : at], b""
        if marker in FRAMES:
            need(body[:1] in (b"\x08", b""), "PIXEL_FORMAT", "JPEG of other than 8 bits", *files)
            unseen = {*body[6::3]}
        elif marker == SCAN:
            unseen = unseen - {*body[1:-3:2]}
            end = SCAN_END.search(data, at)
            scan = data[at : end.start() if end else None]
            at += len(scan)
        elif (marker + body).startswith((JFIF, ADOBE)):
            body = body[:12] + (b"\0\0" if marker + body[:4] == JFIF else b"")  # no thumbnail
        elif marker not in TABLES:
            need(marker > END, "PIXEL_FORMAT", "lossless or hierarchical JPEG", *files)
            continue
        kept.append(b"\xff" + marker + struct.pack(">H", len(body) + 2) + body + scan)
        need(len(kept) < MAX_SEGMENTS, "DECODING_FAILED", "more scans than anyone writes", *files)
    code = "TRUNCATED" if at > len(data) - 4 else "DECODING_FAILED"
    raise CourseDataError(code, "no segment where one is due", files)


def _is_whole_png(data: bytes) -> bool:
    """Whether the palette and all rows are there: Pillow makes up a palette and black rows.

    Each row has one byte more than its pixels need (PNG specification, section 7.2); interlaced
    files have more and shorter rows, and are only asked for as many bytes.
    """
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if colour == 3 and b"PLTE" not in data:
        return False
    bits *= 3 if colour == 2 else 1
    least = height * ((width * bits + 7) // 8 + 1)
    at, compressed = len(PNG), []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            compressed.append(data[at + 8 : at + 8 + length])
        at += length + 12
    inflate = zlib.decompressobj()
    rows = inflate.decompress(b"".join(compressed), 2 * least + 999)
    return len(rows) >= least and inflate.eof


def _bytes(path: Path) -> bytes:
    try:
        need(path.stat().st_size <= MAX_BYTES, "TOO_LARGE", "more than a gigabyte", path)
        return path.read_bytes()
    except OSError as error:
        raise CourseDataError("UNREADABLE", str(error.strerror), [path]) from None


def _ids(path: Path, mapping: Mapping[int, int] | None) -> np.ndarray:
    """The ids of a mask, uint8 `[y, x]`: grey values or palette indices, mapped."""
    data = _bytes(path)
    picture = decode(data, path)
    fit = data.startswith(PNG) and picture.mode != "RGB"
    need(fit, "PIXEL_FORMAT", "a mask in RGB or, which changes ids, in JPEG", path)
    ids = np.array(picture).astype(np.uint16)
    if picture.mode == "L":
        ids //= 255 // (2 ** data[24] - 1)  # Pillow spreads 2 and 4 bits over 0 to 255
    stored = np.unique(ids).tolist()
    classes = stored if mapping is None else [mapping.get(one, -1) for one in stored]
    lost = [old for old, new in zip(stored, classes, strict=True) if not 0 <= new <= 255]
    found = f"of {len(stored)} ids in the mask, {listed(lost)} without a class from 0 to 255"
    need(not lost, "UNKNOWN_LABEL", found, path)
    table = np.zeros(stored[-1] + 1, np.uint8)
    table[stored] = classes
    return table[ids]


def _pictures(folder: str, other: str | None = None) -> tuple[dict, list[Rejection]]:
    """The pictures under a folder by their stem, and the files that are none."""
    pictures, rejected = defaultdict(list), []
    for path in _files(folder, other):
        start = _start(path)
        if start.startswith((JPEG, PNG)):
            pictures[_stem(path.relative_to(folder))].append(path)
        else:
            code = "UNKNOWN_FORMAT" if start else "UNREADABLE"
            rejected.append(Rejection((path,), code, meaning(code)))
    return pictures, rejected


def _start(path: Path) -> bytes:
    """A file's first bytes; nothing where there are none, or none that can be read."""
    try:
        if path.is_file():  # reading a pipe would wait for ever
            with open(path, "rb") as file:
                return file.read(len(PNG))
    except OSError:
        pass
    return b""


def _files(folder: str, other: str | None) -> Iterator[Path]:
    """What lies under a folder and not under the other; a folder that is linked to counts once."""
    unlisted, seen = [], {other and os.path.realpath(other)}
    for root, folders, names in os.walk(folder, onerror=unlisted.append, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(root, name) for name in names)
    yield from (Path(error.filename) for error in unlisted)


def _stem(path: PurePath) -> str:
    name = re.sub(r"\.(jpe?g|png)$", "", path.as_posix(), flags=re.IGNORECASE)
    return unicodedata.normalize("NFC", name)


def _by_image(masks: dict, images: dict, suffix: str | None) -> dict[str, list[Path]]:
    """The masks by the stem that their image has, or should have."""
    suffix = _common_suffix(masks, images) if suffix is None else suffix
    suffix = unicodedata.normalize("NFC", suffix)
    found = defaultdict(list)
    for mask, files in masks.items():
        found[_image_of(mask, suffix, masks, images)] += files
    return found


def _common_suffix(masks: dict, images: dict) -> str:
    """The ending that all masks share and that makes most pairs; "" if two are as good."""
    name = min(masks, default="").rpartition("/")[2]
    endings = ["", *(name[sign.start() :] for sign in re.finditer(r"[\W_]", name))]
    endings = [ending for ending in endings if all(mask.endswith(ending) for mask in masks)]
    pairs = [sum(mask.removesuffix(ending) in images for mask in masks) for ending in endings]
    return endings[pairs.index(max(pairs))] if pairs.count(max(pairs)) == 1 else ""


def _image_of(mask: str, suffix: str, masks: dict, images: dict) -> str:
    """The stem of a mask's image; `a_mask_1` beside `a_mask` goes where that one goes."""
    for end in range(len(mask), 0, -1):
        part, image = mask[:end], mask[:end].removesuffix(suffix)
        apart = suffix or not mask[end : end + 1].isalnum()  # 10 is no part of 1
        if apart and part in masks and part.endswith(suffix) and image in images:
            return image
    return f"{mask}\0"  # no file's name holds a NUL: such a mask has no image


def _table(path: str | Path, needed: str, images: str, pictures: dict) -> dict[str, dict]:
    """What a CSV file says of each picture, patient, label or both, by stem."""
    path = Path(path).expanduser()
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="")
            header = table.fieldnames = [name.strip().lower() for name in table.fieldnames or ()]
            rows = [(table.line_num, row) for row in table if any(row.values())]
    except (csv.Error, UnicodeDecodeError):
        raise CourseDataError("DATA_LIST", "not a CSV file in UTF-8", [path]) from None
    key = "file" if "file" in header else "image"
    found = f"expected columns file (or image) and {needed}, with commas between them"
    need(key in header and needed in header, "DATA_LIST", found, path)
    said = {}
    for line, row in rows:
        file = PurePath(row[key].strip().replace("\\", "/"))
        places = (PurePath(os.path.relpath(path.parent / file, images)), file)
        stem = next((one for one in map(_stem, places) if one in pictures), None)
        found = f"line {line} names no picture under the folder of images"
        need(stem, "DATA_LIST", found, path)
        known = {name: row[name].strip() for name in ("patient", "label") if name in row}
        found = f"line {line} lacks patient or label, or has more fields than the header"
        need(all(known.values()) and None not in row, "DATA_LIST", found, path)
        if "label" in known:
            number = re.fullmatch(r"([0-9]{1,9})(\.0*)?", known["label"])
            need(number, "UNKNOWN_LABEL", f"line {line}: the label is no class id from 0", path)
            known["label"] = int(number[1])
        found = f"line {line} says something else than an earlier line of that picture"
        need(said.setdefault(stem, known) == known, "DATA_LIST", found, path)
    return said
