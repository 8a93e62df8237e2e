"""Two folders become cases; a picture loses what could name a person, and not one pixel."""

import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from helpers import pictures
from helpers.errors import CourseDataError

LAWFUL = settings(derandomize=True, deadline=None, max_examples=25)
WHO = "WHO-IS-THIS"
MARK, SOS, END = WHO.encode(), b"\xff\xda", b"\xff\xd9"
ROWS, COLUMNS = np.mgrid[:37, :53]
RGB = np.stack([COLUMNS * 4, ROWS * 6, ROWS + 2 * COLUMNS], -1).astype(np.uint8)
GREY = RGB[..., 2]
DISC = ((ROWS - 17) ** 2 + (COLUMNS - 24) ** 2 < 90).astype(np.uint8)


def saved(image, kind="PNG", mode=None, **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.convert(mode or image.mode).save(file, kind, **options)
    return file.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: bytes, *chunks: bytes, bits=8, colour=0, size=(37, 53)) -> bytes:
    """A PNG by hand; each row of pixels has a zero before it."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size[::-1], bits, colour, 0, 0, 0))
    return b"".join([pictures.PNG, head, *chunks, chunk(b"IDAT", rows), chunk(b"IEND", b"")])


def rows_of(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def few_bits(ids: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits a pixel."""
    spread = np.unpackbits(ids[..., None], axis=-1)[..., -bits:].reshape(len(ids), -1)
    return png(zlib.compress(rows_of(np.packbits(spread, axis=-1))), bits=bits)


PALETTE = Image.fromarray(RGB).quantize(16)
JPEGS = {
    "4:2:0": saved(RGB, "JPEG", subsampling=2),
    "4:4:4": saved(RGB, "JPEG", subsampling=0, quality=95),
    "progressive": saved(RGB, "JPEG", progressive=True),
    "grey": saved(GREY, "JPEG"),
    "RGB with Adobe's marker": saved(RGB, "JPEG", keep_rgb=True, quality=95),
    "restart intervals": saved(RGB, "JPEG", restart_marker_blocks=2),
}
PNGS = {
    "colour PNG": saved(RGB),
    "grey PNG": saved(GREY),
    "1 bit": saved(Image.fromarray(GREY > 99)),
    "4 bits": few_bits(GREY // 16, 4),
    "palette": saved(PALETTE),
    "palette with a transparent colour": saved(PALETTE, transparency=3),
}
JPEG = JPEGS["grey"]
HEAD, REST, AT = JPEG[:20], JPEG[20:], JPEG.index(SOS)  # cut behind JFIF's segment
FILES = JPEGS | PNGS
IDAT = zlib.compress(rows_of(GREY))


def code_of(call, *arguments, **options) -> str:
    """The code of the refusal; "" where there is none."""
    try:
        call(*arguments, **options)
    except CourseDataError as error:
        return error.code + " quotes the file" * (WHO in error.message)
    return ""


def differing(rows) -> list:
    """Of rows (name, what came, what should): those where they differ."""
    return [row for row in rows if row[1] != row[2]]


def with_metadata(data: bytes) -> bytes:
    """Something that could name a person wherever a file can hold it."""
    exif = Image.Exif()
    exif[0x010E] = WHO
    if data.startswith(pictures.PNG):
        texts = [chunk(b"tEXt", b"Author\0" + MARK), chunk(b"maRk", MARK)]
        texts += [chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]
        pixels, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
        return data[:pixels] + b"".join(texts) + data[pixels:end] + texts[0] + data[end:] + MARK
    thumbnail = saved(GREY[:8, :8], "JPEG", comment=MARK)
    blocks = [segment(0xE0, b"JFXX\0\x10" + thumbnail), segment(0xE1, exif.tobytes() + MARK), MARK]
    blocks += [segment(0xE0 + n, MARK) for n in range(16)] + [segment(0xFE, b"Adobe" + MARK)]
    for name, length in ((b"JFIF", 16), (b"Adobe", 14)):
        if (at := data.find(name)) > 0:  # a thumbnail in JFIF's own segment, text in Adobe's
            body = data[at : at + 12] + b"\4\3" + MARK.ljust(36)
            data = data[: at - 4] + segment(data[at - 3], body) + data[at + length - 2 :]
    at, data = data.find(b"\xff\xdb"), data.replace(SOS, segment(0xFE, MARK) + SOS)
    return data[:at] + b"".join(blocks) + data[at:-2] + segment(0xE5, MARK) + END + thumbnail


def write(path, image=RGB):
    """Bytes or pixels as a file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    path.write_bytes(image if isinstance(image, bytes) else saved(image, kind))
    return path


def pair(folder, image=JPEG, mask=DISC):
    """The case of an image and a mask."""
    write(folder / "images/a.jpg", image)
    write(folder / "masks/a.png", mask)
    (case,) = pictures.find(folder / "images", folder / "masks").cases
    return case


def test_a_file_loses_all_that_could_name_a_person_and_no_pixel(tf, tmp_path):
    rows = [(name, pictures.strip(data), data) for name, data in JPEGS.items()]  # its own bytes
    for name, data in FILES.items():
        full = with_metadata(data)
        assert full.count(MARK) >= 5, name
        shown = tf.io.decode_image(full, channels=3).numpy()
        bare = pictures.load_deeplab(pair(tmp_path, data, shown[..., 0]))
        element = pictures.load_deeplab(pair(tmp_path, full, shown[..., 0]))
        file = element["image"]
        came = MARK in file, file, element["format"], element["height"], element["width"]
        right = bare["image"], "jpeg" if name in JPEGS else "png", *shown.shape[:2]
        rows += [(name, came, (False, *right))]
        rows += [(name, tf.io.decode_image(file, channels=3).numpy().tolist(), shown.tolist())]
        pixels = Image.fromarray(pictures.load_pixels(pair(tmp_path, full, shown[..., 0]))["image"])
        by_pillow = Image.open(io.BytesIO(data)).convert("RGB").tobytes()
        rows += [(name, pixels.convert("RGB").tobytes(), by_pillow)]
    assert not [name for name, *_ in differing(rows)]


def claiming(height: int, width: int) -> tuple[bytes, bytes]:
    """Small files whose headers claim another size."""
    jpeg = JPEGS["4:2:0"]
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg = jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]
    return jpeg, png(zlib.compress(bytes(9)), size=(height, width))


FRAME = b"\xff\xc0\0\x0b\x08"
LOSSLESS = JPEG.replace(FRAME, b"\xff\xc3\0\x0b\x08")
TWELVE_BITS = JPEG.replace(FRAME, b"\xff\xc1\0\x0b\x0c")
CMYK, COLOURS = saved(RGB, "JPEG", "CMYK"), [saved(RGB, "PNG", mode) for mode in ("RGBA", "LA")]
COLOURS += [png(zlib.compress(bytes(7)), bits=16, colour=2, size=(1, 1))]
MORE = segment(0xC4, bytes([0x13, 1, *bytes(15), 0]) + MARK)  # text behind a table
REFUSED = {
    "UNKNOWN_FORMAT": [b"", MARK, *(saved(RGB, kind) for kind in ("GIF", "BMP", "TIFF"))],
    "PIXEL_FORMAT": [JPEG[:-2] + JPEG, TWELVE_BITS, LOSSLESS, CMYK, *COLOURS],
    "DECODING_FAILED": [
        claiming(0, 9)[0],
        claiming(9, 0)[1],
        PNGS["grey PNG"].replace(b"\0\0\0\x35", b"\0\0\0\x34"),  # another checksum
        png(MARK),  # never compressed
        png(IDAT, colour=5),  # no kind of PNG
        JPEG[:AT] + END,  # no picture
        JPEG[:AT] + MORE + JPEG[AT:],
    ],
}


def test_what_no_record_can_hold_is_refused_by_name():
    files = [(right, n, data) for right in REFUSED for n, data in enumerate(REFUSED[right])]
    assert not differing([(n, code_of(pictures.decode, data), right) for right, n, data in files])


@pytest.mark.parametrize("lenient", [False, True])  # as some notebooks set it
def test_a_file_cut_anywhere_is_refused(lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    files = FILES | {"with a thumbnail": with_metadata(JPEG)[:-900]}
    cuts = [(name, at) for name, data in files.items() for at in range(8, len(data), 3)]
    rows = [
        ((name, at), code_of(pictures.decode, files[name][:at]), "TRUNCATED") for name, at in cuts
    ]
    assert not differing(rows)


@LAWFUL
@given(st.sampled_from(sorted(FILES)), st.randoms(use_true_random=False))
def test_a_damaged_file_decodes_or_is_refused_by_name(name, random):
    for _ in range(30):
        data = bytearray(FILES[name])
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        code_of(pictures.decode, bytes(data[: random.choice([None, random.randrange(len(data))])]))


def test_a_size_that_claims_gigabytes_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    for size in ((65500, 65500), (13378, 13378), (2**15, 2**14)):
        assert [code_of(pictures.decode, data) for data in claiming(*size)] == ["TOO_LARGE"] * 2


def test_a_picture_that_is_to_be_turned_is_refused():
    rows = []
    for orientation in range(10):
        head = b"II" + struct.pack("<HIH", 42, 8, 1)
        exif = head + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
        xmp = b"<tiff:Orientation>%d</tiff:Orientation>" % orientation
        for data in (
            HEAD + segment(0xE1, b"Exif\0\0" + exif) + REST,
            HEAD + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp) + REST,
            png(IDAT, chunk(b"eXIf", exif)),
            png(IDAT, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        ):
            picture = Image.open(io.BytesIO(data))
            turned = not np.array_equal(picture, ImageOps.exif_transpose(picture))
            rows.append((exif, code_of(pictures.decode, data), "ROTATED" * turned))
    assert not differing(rows) and sum(right != "" for *_, right in rows) == 28


def test_images_and_masks_that_do_not_fit_are_refused_with_their_files(tmp_path):
    flat = np.full((37, 53, 3), (9, 8, 7), np.uint8)
    two = Image.fromarray(DISC).convert("P")
    two.putpalette([1, 2, 3] * 256)  # two indices, one colour
    rows = []
    for image, mask, right in (
        (saved(flat), DISC, "CONSTANT a.jpg"),
        (saved(two), DISC, "CONSTANT a.jpg"),
        (JPEG, saved(DISC * 255, "JPEG"), "PIXEL_FORMAT a.png"),  # it has many more ids than two
        (JPEG, np.dstack([DISC] * 3), "PIXEL_FORMAT a.png"),
        (JPEG, saved(DISC)[:-20], "TRUNCATED a.png"),
        (JPEG[:-20], DISC, "TRUNCATED a.jpg"),
    ):
        with pytest.raises(CourseDataError) as error:
            pictures.load_deeplab(pair(tmp_path, image, mask))
        came = [error.value.code, *(file.name for file in error.value.files)]
        rows.append((image[:9], " ".join(came), right))
    assert not differing(rows)
    case, deep = pair(tmp_path, saved(GREY.astype(np.uint16) * 200)), GREY.astype(int) * 200
    np.testing.assert_array_equal(pictures.load_pixels(case)["image"], deep)
    assert code_of(pictures.load_deeplab, case) == "PIXEL_FORMAT"  # 16 bits
    (alone,) = pictures.find(tmp_path / "images").cases
    assert code_of(pictures.load_deeplab, alone) == "NO_PAIR"


def test_a_mask_s_ids_are_the_numbers_that_are_stored(tmp_path):
    # D1: one bit with a mapping was an IndexError. Palettes hold indices, and no colours.
    random, rows = np.random.default_rng(0), []
    for bits in (1, 2, 4, 8):
        ids = random.integers(0, 2**bits, DISC.shape, np.uint8)
        indexed = Image.fromarray(ids).convert("P")
        indexed.putpalette(random.integers(0, 256, 3 * 2**bits).tolist())
        stored = few_bits(ids, bits) if bits < 8 else ids
        for mask in (stored, saved(indexed, bits=bits), ids.astype(np.uint16)):
            case = pair(tmp_path, mask=mask)
            for mapping, right in ((None, ids), ({n: 255 - n for n in range(256)}, 255 - ids)):
                found = pictures.load_pixels(case, mapping)["mask"]
                assert found.dtype == np.uint8
                rows.append((bits, found.tolist(), right.tolist()))
                rows.append((bits, pictures.survey(case, mapping), {*right.flat}))
    assert not [name for name, *_ in differing(rows)]
    assert pictures.survey(pair(tmp_path, mask=DISC * 0), {0: 0, 255: 1}) == {0}  # kept


def test_ids_without_a_class_are_refused_and_listed(tmp_path):
    far = DISC.astype(np.uint16) * 300  # 44, were it cast
    rows = [
        (DISC * 255, {7: 0}, "0, 255"),
        (DISC * 255, {0: 0, 255: -1}, "255"),
        (far, None, "300"),
    ]
    for mask, mapping, ids in rows:
        for call in (pictures.survey, pictures.load_pixels):
            with pytest.raises(CourseDataError, match=rf"UNKNOWN_LABEL.* 255: {ids};.*\(a.png\)"):
                call(pair(tmp_path, mask=mask), mapping)


PAIRS = [  # images, masks, mask_suffix, pairs, what the rest is refused as
    ("a b", "a b c", None, "a b", "NO_PAIR c.png"),
    ("a b c", "a b", None, "a b", "NO_PAIR c.jpg"),
    ("a b sub/c a_b", "a_seg b_seg sub/c_seg a_b_seg", None, "a a_b b sub/c", ""),
    ("a b", "a-mask b-mask d-mask", None, "a b", "NO_PAIR d-mask.png"),
    ("1 2", "1_m 2_m 10_m", None, "1 2", "NO_PAIR 10_m.png"),
    ("a b", "a_liver b_liver a_tumour", None, "", "NO_PAIR"),  # which of the two?
    ("1 2 3", "10 20 30", None, "", "NO_PAIR"),
    ("a a_b", "a_b_c", None, "a_b", "NO_PAIR a.jpg"),  # the longer stem
    ("a_seg b_seg", "a_seg b_seg", None, "a_seg b_seg", ""),
    ("a a_seg", "a_seg", None, "a_seg", "NO_PAIR a.jpg"),
    ("a b", "a_liver b_liver a_tumour b", "_liver", "a b", "NO_PAIR a_tumour.png b.png"),
    # C4: a mask in several files. The case was written with the first part of its lesion.
    ("b(4) c", "b(4)_mask b(4)_mask_1 c_mask", "_mask", "c", "SAME_CASE b(4)_mask_1.png"),
    ("b(4) c", "b(4)_mask b(4)_mask2 c_mask", "_mask", "c", "SAME_CASE b(4).jpg b(4)_mask2.png"),
    ("a b", "a a_1 b", None, "b", "SAME_CASE a.jpg a.png a_1.png"),
    ("a b", "a a/2 b", None, "b", "SAME_CASE a.jpg a.png 2.png"),
    ("a a_1", "a a_1", None, "a a_1", ""),
    ("1 2", "1 2 10", None, "1 2", "NO_PAIR 10.png"),  # no part of 1
    ("a a.png b c", "a b b.PNG c", None, "c", "SAME_CASE a.jpg a.png b.png b.PNG"),
    # Suffixes, and letters that are composed or not.
    ("a.JPG s.2/a.Png Zoe\u0308.jpeg", "a_m s.2/a_m.PNG Zo\u00eb_m", None, "Zo\u00eb a s.2/a", ""),
]


def test_masks_join_their_images_and_no_pair_is_guessed(tmp_path):
    wrong = []
    for number, (images, masks, suffix, pairs, refused) in enumerate(PAIRS):
        folders = [tmp_path / f"{number}/{kind}" for kind in ("images", "masks")]
        for folder, stems, ending in zip(folders, (images, masks), ("jpg", "png"), strict=True):
            folder.mkdir(parents=True)
            for stem in stems.split():
                write(folder / (stem if "." in stem else f"{stem}.{ending}"), pictures.JPEG)
        found = pictures.find(*folders, mask_suffix=suffix)
        said = {word for one in found.rejected for word in (one.code, *(f.name for f in one.files))}
        right = {*refused.split()} <= said and len(said & {"NO_PAIR", "SAME_CASE"}) <= 1
        whole = found.files == len(f"{images} {masks}".split()) and bool(said) == bool(refused)
        names = " ".join(case.name for case in found.cases)
        wrong += [(number, names, said)] * (names != pairs or not right or not whole)
    assert not wrong


def test_other_files_are_listed_and_folders_may_lie_in_each_other(tmp_path, monkeypatch):
    for name in ("a.jpg", "sub/b.jpg", "masks/a.png", "masks/sub/b.png"):
        write(tmp_path / name)
    for name in ("Thumbs.db", "._a.jpg", "masks/a.gif", "closed/x"):
        write(tmp_path / name, b"\0\5\x16\7 something")
    write(tmp_path / "empty.jpg", b"")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")  # to open it would wait for ever
    listing = os.scandir

    def denied(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", denied)
    for folders in ((tmp_path, tmp_path / "masks"), (tmp_path / "masks", tmp_path)):
        found = pictures.find(*folders)
        assert [case.name for case in found.cases] == ["a", "sub/b"]
        codes = sorted(one.code for one in found.rejected)
        assert codes == ["UNKNOWN_FORMAT"] * 3 + ["UNREADABLE"] * 4


def test_folders_that_are_not_there_or_the_same_are_refused(tmp_path):
    for images, masks in ((tmp_path / "x", None), (tmp_path, tmp_path / "x")):
        with pytest.raises(FileNotFoundError):
            pictures.find(images, masks)
    assert code_of(pictures.find, tmp_path, tmp_path / ".." / tmp_path.name) == "NO_PAIR"


GIVEN = r"\[\('007', 1\), \('007', 1\), \('P 8', 0\)\]"
LISTS = [  # the file, and the code and words that it is refused with
    ("file,patient,label\nimages/a.jpg,007,1\nimages/b.jpg,007,1\nimages/sub/c.jpg,P 8,0\n", ""),
    ("label,Image,PATIENT\r\n1,ROOT/images/a.jpg,007\r\n1,b,007\r\n0,sub/c,P 8\r\n", ""),
    ('\ufeffimage,x,patient,label\n\n./a.JPG,"1, 2",007,1.0\nb,,007,1\nsub\\c,,P 8,0\n,,,\n', ""),
    (f"name,patient\n{WHO},P1\n", "DATA_LIST expected columns file"),
    (f"file,{WHO}\na,P1\n", "DATA_LIST expected columns file .or image. and patient"),
    (f"file;patient\na;{WHO}\n", "DATA_LIST .* with commas"),
    # D6: blank lines were not counted, and line 5 was called row 2.
    (f"file,patient\n\n\n\n{WHO},P1\n", "DATA_LIST line 5 names no picture"),
    (f"file,patient\n,\na,P1\n{WHO},P1\n", "DATA_LIST line 4 names no picture"),
    ("file,patient\na\n", "DATA_LIST line 2 lacks a patient"),
    (f"file,patient\na,{WHO}, P2\n", "DATA_LIST"),
    (f"file,patient\nb,P1\na,{WHO}, P2\n", "DATA_LIST not a CSV"),
    (f"file,patient\na,P1\na,{WHO}\n", "DATA_LIST line 3 .*contradicts"),
    ("file,patient,label\na,P1,0\na,P1,1\n", "DATA_LIST line 3 .*contradicts"),
    (f"file,patient,label\na,P1,{WHO}\n", "UNKNOWN_LABEL line 2 has no class id"),
    ("file,patient,label\na,P1,\n", "UNKNOWN_LABEL line 2"),
    ("file,patient,label\na,P1,-1\n", "UNKNOWN_LABEL line 2"),
    ("file,patient,label\na,P1,0.5\n", "UNKNOWN_LABEL line 2"),
    (b"file,patient\na,Zo\xeb\n", "DATA_LIST not a CSV file in UTF-8"),
    ("file,patient\na,P1\na,P1\n", r"\[\('P1', None\)\] DATA_LIST DATA_LIST"),  # b, c: not listed
]


def test_a_list_gives_patients_and_labels_or_is_refused_with_its_line(tmp_path):
    for stem in ("a", "b", "sub/c"):
        write(tmp_path / f"images/{stem}.jpg")
    wrong = []
    for text, right in LISTS:
        text = text if isinstance(text, bytes) else text.replace("ROOT", f"{tmp_path}").encode()
        table = write(tmp_path / "list.csv", text)
        try:
            found = pictures.find(tmp_path / "images", patients=table)
            came = str([(one.patient, one.label) for one in found.cases])
            came = " ".join([came, *(one.code for one in found.rejected)])
        except CourseDataError as error:
            came = f"{error.code} {error.message}" + WHO * ([table] != [*error.files])
        wrong += [(text[:60], came)] * (not re.match(right or GIVEN, came) or WHO in came)
    assert not wrong


@LAWFUL
@given(
    st.lists(st.sampled_from(["a", "b", "s/a", "s/b", "a_m", "b_m"]), unique=True),
    st.lists(st.sampled_from(["a", "b", "s/a", "a_m", "a_m_1", "s/a_m", "c_m"]), unique=True),
    st.lists(st.sampled_from(["x.txt", ".b.jpg", "b.JPEG", "s/t/u"]), unique=True),
    st.sampled_from([None, "", "_m"]),
)
def test_every_file_is_in_one_case_or_one_rejection(tmp_path_factory, left, right, more, suffix):
    folder = tmp_path_factory.mktemp("set")
    for kind, stems in (("images", left), ("masks", right)):
        (folder / kind).mkdir()
        for name in (*(f"{stem}.png" for stem in stems), *more):
            write(folder / kind / name, b"" if name in more else pictures.PNG)
    found = pictures.find(folder / "images", folder / "masks", mask_suffix=suffix)
    files = [file for one in (*found.cases, *found.rejected) for file in one.files]
    assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file())
    assert len({case.name for case in found.cases}) == len(found.cases)
    for case in found.cases:
        assert [path.relative_to(folder).parts[0] for path in case.source] == ["images", "masks"]
