"""JPEG and PNG files lose what could name a person, and not one bit of a pixel."""

import base64
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pydicom
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from helpers import encoded
from helpers.encoded import strip
from helpers.errors import CourseDataError

MARK = b"WHO-IS-THIS"
QUIET = settings(derandomize=True, deadline=None, max_examples=300)
ROWS, COLUMNS = np.mgrid[:37, :53]
RGB = np.stack([COLUMNS * 4, ROWS * 6, ROWS + 2 * COLUMNS], -1).astype(np.uint8)
GREY = RGB[..., 2]

# Pillow writes neither; made with cjpeg of libjpeg-turbo (-arithmetic, -progressive, -scans).
ARITHMETIC = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywt
QFdBRkxOUlNSMj5aYVpQYEpRUk//yQALCAAMABQBAREA/8wABgAQEAX/2gAIAQEAAD8A/wClgFmtpRupFlYC3CKRMP0x
k5cua31Q/9k="""
ARITHMETIC_PROGRESSIVE = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywt
QFdBRkxOUlNSMj5aYVpQYEpRUk//ygALCAAMABQBAREA/8wABAAQ/9oACAEBAAAAAf8ASrq2twykMP/MAAQQBf/aAAgB
AQABBQITwYcJjhTY/8wABBAF/9oACAEBAAY/AsD/zAAEEAX/2gAIAQEAAT8hULjD6P/aAAgBAQAAABCy/8wABBAF/9oA
CAEBAAE/EE6Y9P/Z"""
SCAN_A_CHANNEL = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4
UG1RV19iZ2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj
Y2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCAAUABwDASIAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAABAMG/8QAHBAA
AgIDAQEAAAAAAAAAAAAAAAMCBDFRYSER/9oACAEBAAA/AMkqnwaqnwaqnwXGn5ggqnwcqnwaqnwXGn5gGpUdDVKjoapU
dC4qj8wf/8QAFgEBAQEAAAAAAAAAAAAAAAAAAwIE/8QAFREBAQAAAAAAAAAAAAAAAAAAAgD/2gAIAQIRAD8Akucuwmc3
/8QAFgEBAQEAAAAAAAAAAAAAAAAABQMG/8QAGREAAwEBAQAAAAAAAAAAAAAAAAEEAxEh/9oACAEDEQA/AJT1j2Ffhhp2
x3Bvh//Z"""


def saved(image, kind, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(header, *chunks):
    """A PNG by hand: `header` is (width, height, bits, colour, compression, filter, interlace)."""
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), *chunks, chunk(b"IEND", b"")]
    return encoded.PNG + b"".join(parts)


def rows_of(pixels):
    """PNG rows without filter, of one-byte samples."""
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def interlaced(pixels):
    """The same in Adam7's seven passes, taken by slices."""
    starts = [(0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0)]
    steps = [(8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1)]
    passes = [pixels[y::dy, x::dx] for (y, x), (dy, dx) in zip(starts, steps, strict=True)]
    return b"".join(rows_of(one) for one in passes if one.size)


def grey_png(*chunks, pixels=GREY, data=None, interlace=0):
    data = chunk(b"IDAT", zlib.compress(data or rows_of(pixels)))
    return png((*pixels.shape[::-1], 8, 0, 0, 0, interlace), *chunks, data)


JPEGS = {
    "baseline 4:2:0": saved(RGB, "JPEG", subsampling=2),
    "baseline 4:4:4": saved(RGB, "JPEG", subsampling=0, quality=95),
    "progressive": saved(RGB, "JPEG", progressive=True),
    "grey": saved(GREY, "JPEG"),
    "RGB with Adobe's marker": saved(RGB, "JPEG", keep_rgb=True, quality=95),
    "restart intervals": saved(RGB, "JPEG", restart_marker_blocks=2),
    "arithmetic": base64.b64decode(ARITHMETIC),
    "arithmetic progressive": base64.b64decode(ARITHMETIC_PROGRESSIVE),
    "a scan for each channel": base64.b64decode(SCAN_A_CHANNEL),
}
PNGS = {
    "RGB": saved(RGB, "PNG"),
    "grey": saved(GREY, "PNG"),
    "1 bit": saved(Image.fromarray(GREY > 99), "PNG"),
    "4 bits": png((8, 2, 4, 0, 0, 0, 0), chunk(b"IDAT", zlib.compress(b"\0\x01\x23\x45\x67" * 2))),
    "palette": saved(Image.fromarray(RGB).quantize(16), "PNG"),
    "palette with a transparent colour": saved(
        Image.fromarray(RGB).quantize(16), "PNG", transparency=3
    ),
    "interlaced": grey_png(data=interlaced(GREY), interlace=1),
    "colour space": grey_png(
        chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"cHRM", bytes(32)), chunk(b"sBIT", b"\5")
    ),
    "sRGB": grey_png(chunk(b"sRGB", b"\0")),
}
FILES = {f"JPEG, {name}": data for name, data in JPEGS.items()}
FILES |= {f"PNG, {name}": data for name, data in PNGS.items()}
each_file = pytest.mark.parametrize("data", FILES.values(), ids=FILES)


def by_tensorflow(data):
    return tf.io.decode_image(data, channels=3).numpy()


def by_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def refused(data, code):
    with pytest.raises(CourseDataError) as caught:
        strip(data)
    assert caught.value.code == code, caught.value
    return caught.value


def decodes_or_is_named(data):
    """The code of the refusal; "" for a file that Pillow decodes and that stays as it is."""
    try:
        stripped = strip(data)
    except CourseDataError as error:
        return error.code
    picture = Image.open(io.BytesIO(stripped.data))
    picture.load()
    assert picture.size == (stripped.width, stripped.height)
    assert strip(stripped.data) == stripped
    return ""


# What stays


@each_file
def test_a_file_without_metadata_stays_as_it_is_byte_for_byte(data):
    assert strip(data).data == data


@each_file
def test_height_width_and_channels_are_what_tensorflow_decodes(data):
    found = strip(data)
    decoded = tf.io.decode_image(data)
    if "tRNS" not in str(data):  # a transparent colour is a fourth channel if asked for
        assert (found.height, found.width, found.channels) == decoded.shape
    assert found.format == Image.open(io.BytesIO(data)).format.lower()


# Privacy


def jpeg_with_everything(data):
    """Something that could name a person, wherever a JPEG can hold it, each with its number."""
    count = iter(range(1000))

    def mark(start=b""):
        return start + MARK + b"%03d" % next(count)

    thumbnail = saved(GREY[:8, :8], "JPEG", comment=mark())
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = MARK.decode(), 1
    blocks = [segment(0xE0, mark(b"JFXX\0\x10") + thumbnail)]
    blocks += [segment(0xE1, exif.tobytes() + mark() + thumbnail)]
    blocks += [segment(0xE1, mark(b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>"))]
    blocks += [segment(0xE2, mark(b"ICC_PROFILE\0\1\1")), segment(0xE2, mark(b"MPF\0II*\0"))]
    blocks += [segment(0xED, mark(b"Photoshop 3.0\x008BIM"))]
    blocks += [segment(0xE0 + n, mark()) for n in range(16)]
    blocks += [segment(0xFE, mark()), segment(0xFE, b""), b"\xff\xff" + segment(0xFE, mark())]
    # A thumbnail of 4 x 3 pixels within JFIF's own segment; text after Adobe's twelve bytes.
    jfif = data.find(b"\xff\xe0\x00\x10JFIF")
    if jfif > 0:
        fields = data[jfif + 4 : jfif + 16] + b"\4\3" + mark().ljust(36, b".")
        data = data[:jfif] + segment(0xE0, fields) + data[jfif + 18 :]
    adobe = data.find(b"\xff\xee\x00\x0eAdobe")
    if adobe > 0:
        longer = segment(0xEE, mark(data[adobe + 4 : adobe + 16]))
        data = data[:adobe] + longer + data[adobe + 16 :]
    # Before each scan, behind JFIF's segment, before the end, after the end.
    head, *scans = data.split(b"\xff\xda")
    data = head + b"".join(segment(0xFE, mark()) + b"\xff\xda" + scan for scan in scans)
    behind = data.find(b"\xff\xdb")
    data = data[:behind] + b"".join(blocks) + data[behind:]
    return data[:-2] + segment(0xE5, mark()) + b"\xff\xd9" + thumbnail + mark()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Image appears to be a malformed")
@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_loses_all_that_could_name_a_person_and_no_pixel(data):
    full = jpeg_with_everything(data)
    assert full.count(MARK) >= 25
    stripped = strip(full).data
    assert MARK not in stripped
    assert stripped == data
    np.testing.assert_array_equal(by_tensorflow(full), by_tensorflow(stripped))
    np.testing.assert_array_equal(by_pillow(full), by_pillow(stripped))


def png_with_everything(data):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = MARK.decode(), 1
    pixels = data.index(b"IDAT") - 4
    before = [
        chunk(b"tEXt", b"Author\0" + MARK),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(MARK, 0)),
        chunk(b"iTXt", b"Title\0\0\0en\0\0" + MARK),
        chunk(b"iTXt", b"Title\0\1\0en\0\0" + zlib.compress(MARK, 0)),
        chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
        chunk(b"tIME", struct.pack(">HBBBBB", 1987, 6, 5, 4, 3, 2)),
        chunk(b"iCCP", MARK + b"\0\0" + zlib.compress(MARK, 0)),
        chunk(b"sPLT", MARK + b"\0\x08"),
        chunk(b"pHYs", b"\0\0\x0b\x13\0\0\x0b\x13\1"),
        chunk(b"maRk", MARK),
        chunk(b"npTc", MARK),
    ]
    after = [chunk(b"tEXt", b"Comment\0" + MARK), chunk(b"maRk", MARK), chunk(b"tRNS", MARK)]
    end = data.index(b"IEND") - 4
    data = data[:end] + b"".join(after) + data[end:]
    data = data[:pixels] + b"".join(before) + data[pixels:]
    return data + MARK + chunk(b"tEXt", b"Comment\0" + MARK)


@pytest.mark.parametrize("data", PNGS.values(), ids=PNGS)
def test_a_png_loses_all_that_could_name_a_person_and_no_pixel(data):
    full = png_with_everything(data)
    assert full.count(MARK) >= 13
    stripped = strip(full).data
    assert MARK not in stripped
    assert stripped == data
    np.testing.assert_array_equal(by_tensorflow(full), by_tensorflow(stripped))
    np.testing.assert_array_equal(by_pillow(full)[..., :3], by_pillow(stripped)[..., :3])


def test_what_pillow_writes_into_a_file_is_out_again():
    info = PngInfo()
    info.add_text("Author", MARK.decode())
    info.add_text("Compressed", MARK.decode(), zip=True)
    info.add_itxt("Title", MARK.decode(), "en", MARK.decode())
    profile = zlib.compress(MARK)
    for data, plain in (
        (saved(RGB, "PNG", pnginfo=info, icc_profile=profile, dpi=(96, 96)), PNGS["RGB"]),
        (saved(RGB, "JPEG", comment=MARK, icc_profile=profile), saved(RGB, "JPEG")),
    ):
        assert len(data) > len(plain) + len(MARK)
        assert strip(data).data == plain


def test_a_second_jfif_segment_goes_and_a_short_one_is_none():
    data = JPEGS["grey"]
    jfif = data[2:20]
    assert strip(data[:20] + jfif + data[20:]).data == data
    without = data[:2] + segment(0xE0, b"JFIF\0\1\1") + data[20:]
    assert strip(without).data == data[:2] + data[20:]
    np.testing.assert_array_equal(by_tensorflow(without), by_tensorflow(strip(without).data))


@pytest.mark.parametrize("name", ["baseline 4:2:0", "progressive"])
@pytest.mark.parametrize("place", ["before the pixels", "after the pixels"])
@pytest.mark.parametrize(
    "table",
    [
        segment(0xDB, bytes([3, *range(1, 65)]) + MARK),
        segment(0xC4, bytes([0x13, 1, *bytes(15), 0]) + MARK),
        segment(0xDD, b"\0\0" + MARK),
        segment(0xCC, b"\0\x10" + MARK),
    ],
    ids=["DQT", "DHT", "DRI", "DAC"],
)
def test_text_behind_a_table_is_refused(name, place, table):
    data = JPEGS[name]
    at = data.index(b"\xff\xda") if place == "before the pixels" else len(data) - 2
    refused(data[:at] + table + data[at:], "DECODING_FAILED")


def test_bytes_behind_the_compressed_pixels_of_a_png_are_refused():
    hidden = zlib.compress(rows_of(GREY)) + MARK
    header = (*GREY.shape[::-1], 8, 0, 0, 0, 0)
    for file in (
        png(header, chunk(b"IDAT", hidden)),
        png(header, chunk(b"IDAT", hidden[: -len(MARK)]), chunk(b"IDAT", MARK)),
        grey_png(data=rows_of(GREY) + MARK),
    ):
        assert by_tensorflow(file).shape == (37, 53, 3)  # nobody else minds
        assert "more bytes of pixels" in str(refused(file, "DECODING_FAILED"))


# Orientation


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", "<>")
def test_a_picture_that_is_to_be_turned_is_refused(orientation, order):
    short = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    long = struct.pack(f"{order}HHII", 0x0112, 4, 1, orientation)
    width = struct.pack(f"{order}HHII", 0x0100, 4, 1, 53)
    for tag in (short, long):
        head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, 2)
        tiff = head + width + tag + bytes(4)
        jpeg = JPEGS["grey"][:20] + segment(0xE1, b"Exif\0\0" + tiff) + JPEGS["grey"][20:]
        for data in (jpeg, grey_png(chunk(b"eXIf", tiff))):
            shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
            turned = not np.array_equal(by_pillow(data), np.asarray(shown.convert("RGBA")))
            assert turned == (2 <= orientation <= 8)
            if turned:
                assert f"orientation {orientation}" in str(refused(data, "ROTATED"))
            else:
                assert strip(data).width == 53


@pytest.mark.parametrize("text", ['tiff:Orientation="6"', "<tiff:Orientation>6</tiff:Orientation>"])
def test_an_orientation_that_only_xmp_states_counts(text):
    packet = b"http://ns.adobe.com/xap/1.0/\0" + text.encode()
    jpeg = JPEGS["grey"][:20] + segment(0xE1, packet) + JPEGS["grey"][20:]
    png = grey_png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text.encode()))
    for data in (jpeg, png):
        refused(data, "ROTATED")
        assert strip(data.replace(b"6", b"1") if data is jpeg else PNGS["grey"]).width == 53


@QUIET
@given(
    st.binary(max_size=60), st.sampled_from([b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0", b""])
)
def test_broken_exif_turns_nothing_or_is_refused_by_name(noise, start):
    data = JPEGS["grey"][:20] + segment(0xE1, b"Exif\0\0" + start + noise) + JPEGS["grey"][20:]
    named = decodes_or_is_named(data)
    assert named == "ROTATED" or strip(data).data == JPEGS["grey"]


# What no record can hold


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG", b"not a picture at all"])
def test_other_bytes_are_no_picture(data):
    refused(data, "UNKNOWN_FORMAT")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_pictures_are_named_as_unknown(kind):
    refused(saved(RGB, kind), "UNKNOWN_FORMAT")


def frame(name):
    file = pydicom.dcmread(get_testdata_file(name, download=False))
    return next(generate_frames(file.PixelData, number_of_frames=1))


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_jpeg_of_12_bits_and_lossless_jpeg_are_refused_as_tensorflow_refuses_them(name):
    refused(frame(name), "PIXEL_FORMAT")
    with pytest.raises(tf.errors.InvalidArgumentError):
        by_tensorflow(frame(name))


def test_a_dicom_file_s_baseline_jpeg_is_taken():
    found = strip(frame("SC_rgb_jpeg_app14_dcmd.dcm"))
    assert (found.height, found.width, found.channels) == (256, 256, 3)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "8 bits in 4 channels"),
        (saved(Image.fromarray(RGB).convert("RGBA"), "PNG"), "8 bits with an alpha channel"),
        (saved(Image.fromarray(RGB).convert("LA"), "PNG"), "8 bits with an alpha channel"),
        (saved(GREY.astype(np.uint16) * 9, "PNG"), "16 bits without an alpha channel"),
        (
            png((1, 1, 16, 2, 0, 0, 0), chunk(b"IDAT", zlib.compress(bytes(7)))),
            "16 bits without an alpha channel",
        ),
    ],
    ids=["CMYK", "RGBA", "LA", "grey of 16 bits", "RGB of 16 bits"],
)
def test_pixels_that_a_reader_would_change_are_refused(data, found):
    assert found in str(refused(data, "PIXEL_FORMAT"))


def test_16_bits_of_grey_are_read_on_request_and_of_colour_never():
    deep = GREY.astype(np.uint16) * 200
    found, picture = encoded.read(saved(deep, "PNG"), max_bits=16)
    assert (found.bits, found.channels) == (16, 1)
    np.testing.assert_array_equal(np.asarray(picture), deep)
    colour = png((1, 1, 16, 2, 0, 0, 0), chunk(b"IDAT", zlib.compress(bytes(7))))
    with pytest.raises(CourseDataError, match="PIXEL_FORMAT"):
        encoded.read(colour, max_bits=16)


def claiming(height, width):
    """Small files whose headers claim another size."""
    jpeg = JPEGS["baseline 4:2:0"]
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg = jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]
    return jpeg, png((width, height, 8, 0, 0, 0, 0), chunk(b"IDAT", zlib.compress(bytes(9))))


@pytest.mark.parametrize("size", [(65500, 65500), (13378, 13378), (2**15, 2**14)])
def test_a_size_that_claims_gigabytes_is_refused_before_anything_is_decoded(size, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    monkeypatch.setattr(zlib, "decompressobj", None)
    for data in claiming(*size):
        assert f"{size[0]} x {size[1]}" in str(refused(data, "TOO_LARGE"))


def test_the_largest_size_is_the_one_that_both_decoders_take():
    assert 2 * Image.MAX_IMAGE_PIXELS == encoded.MAX_PIXELS
    with pytest.raises(tf.errors.InvalidArgumentError):
        by_tensorflow(claiming(13380, 13380)[0])
    refused(claiming(13377, 13377)[1], "TRUNCATED")  # allowed, were it there


def test_a_lower_limit_of_pillow_s_is_respected(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    refused(PNGS["grey"], "TOO_LARGE")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # between a warning and an error
    assert strip(PNGS["grey"]).width == 53


@pytest.mark.parametrize("size", [(0, 9), (9, 0)])
def test_no_rows_or_no_columns_is_no_picture(size):
    for data in claiming(*size):
        refused(data, "PIXEL_FORMAT")


# Damage


@each_file
def test_a_file_cut_anywhere_is_refused(data):
    for length in range(len(data)):
        known = length >= (8 if data.startswith(encoded.PNG) else 3)
        refused(data[:length], "TRUNCATED" if known else "UNKNOWN_FORMAT")


@pytest.mark.parametrize("lenient", [False, True])
def test_rows_that_are_missing_in_a_whole_file_are_missed(lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    refused(grey_png(data=rows_of(GREY[:-1])), "TRUNCATED")
    refused(grey_png(data=interlaced(GREY[:-1]), interlace=1), "TRUNCATED")
    short = zlib.compress(rows_of(GREY))[:-5]  # every row, but not their checksum
    refused(png((53, 37, 8, 0, 0, 0, 0), chunk(b"IDAT", short)), "TRUNCATED")


def test_a_channel_without_its_scan_is_missed():
    data = JPEGS["a scan for each channel"]
    last = data.rindex(b"\xff\xda")
    refused(data[:last] + b"\xff\xd9", "TRUNCATED")
    refused(data[: data.index(b"\xff\xda")] + b"\xff\xd9", "TRUNCATED")
    refused(data.replace(b"\xff\xda", b"\xff\xda\x00\x02"), "TRUNCATED")  # names no channel
    refused(b"\xff\xd8\xff\xd9", "TRUNCATED")
    no_scan = data[: data.index(b"\xff\xda")] + b"\xff\xda\x00\x02\xff\xd9"
    refused(no_scan, "DECODING_FAILED")


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
@QUIET
def test_interlaced_pictures_of_any_size_are_taken(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    data = grey_png(pixels=pixels, data=interlaced(pixels), interlace=1)
    np.testing.assert_array_equal(by_tensorflow(strip(data).data)[..., 0], pixels)


GREY_JPEG = JPEGS["grey"]
SOF = GREY_JPEG.index(b"\xff\xc0")
TABLES = GREY_JPEG.index(b"\xff\xdb")
IDAT = chunk(b"IDAT", zlib.compress(rows_of(GREY)))
HALVES = [chunk(b"IDAT", half) for half in (IDAT[8:99], IDAT[99:-4])]
HEADER = (53, 37, 8, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        GREY_JPEG[:TABLES] + b"text" + GREY_JPEG[TABLES:],
        GREY_JPEG[:TABLES] + b"\xe1\0\4ab" + GREY_JPEG[TABLES:],
        GREY_JPEG[:TABLES] + b"\xff\xfe\0\0" + GREY_JPEG[TABLES:],
        GREY_JPEG[:TABLES] + b"\xff\xd8" + GREY_JPEG[TABLES:],
        GREY_JPEG[:TABLES] + b"\xff\xd0" + GREY_JPEG[TABLES:],
        GREY_JPEG[:TABLES] + segment(0xDC, b"\0\x25") + GREY_JPEG[TABLES:],
        GREY_JPEG[:TABLES] + segment(0xF7, MARK) + GREY_JPEG[TABLES:],
        GREY_JPEG[:TABLES] + b"\xff\xfe\x00\x01" + GREY_JPEG[TABLES:],
        GREY_JPEG[:SOF] + GREY_JPEG[SOF : SOF + 13] + GREY_JPEG[SOF:],
        GREY_JPEG[:SOF] + GREY_JPEG[SOF + 13 :],
        GREY_JPEG[:SOF] + segment(0xC0, b"\x08\0\1\0\1") + GREY_JPEG[SOF + 13 :],
    ],
    ids=[
        "text between segments",
        "a segment without its first byte",
        "length 0",
        "a second start",
        "a restart outside a scan",
        "DNL",
        "unknown segment",
        "length 1",
        "two frame headers",
        "no frame header",
        "short frame header",
    ],
)
def test_a_damaged_jpeg_is_refused(data):
    refused(data, "DECODING_FAILED")


@pytest.mark.parametrize(
    "data",
    [
        png(HEADER, IDAT[:-1] + bytes([IDAT[-1] ^ 1])),
        png(HEADER, chunk(b"MARK", MARK), IDAT),
        png(HEADER, chunk(b"te\0t", MARK), IDAT),
        png(HEADER, chunk(b"gAMA", MARK), IDAT),
        png(HEADER, chunk(b"sRGB", b"\0"), chunk(b"sRGB", b"\0"), IDAT),
        png(HEADER, IDAT, chunk(b"PLTE", b"\0\0\0")),
        png(HEADER, HALVES[0], chunk(b"tEXt", MARK), HALVES[1]),
        png(HEADER, chunk(b"IHDR", bytes(13)), IDAT),
        encoded.PNG + chunk(b"tEXt", MARK) + PNGS["grey"][8:],
        encoded.PNG + chunk(b"IHDR", bytes(12)) + chunk(b"IEND", b""),
        encoded.PNG + chunk(b"IEND", b""),
        png((53, 37, 8, 3, 0, 0, 0), IDAT),
        png((53, 37, 3, 0, 0, 0, 0), IDAT),
        png((53, 37, 8, 5, 0, 0, 0), IDAT),
        png((53, 37, 8, 0, 1, 0, 0), IDAT),
        png((53, 37, 8, 0, 0, 0, 2), IDAT),
        png(HEADER, chunk(b"IDAT", MARK)),
        PNGS["grey"].replace(chunk(b"IEND", b""), chunk(b"IEND", MARK)),
    ],
    ids=[
        "a wrong checksum",
        "an unknown critical chunk",
        "a chunk without a name",
        "text for a number",
        "twice the same",
        "a palette after the pixels",
        "text between pixels",
        "two headers",
        "text before the header",
        "a short header",
        "no header",
        "no palette",
        "3 bits",
        "colour type 5",
        "compression 1",
        "interlace 2",
        "pixels that were never compressed",
        "text in the end chunk",
    ],
)
def test_a_damaged_png_is_refused(data):
    refused(data, "DECODING_FAILED")


def test_more_scans_than_any_encoder_writes_are_refused():
    data = JPEGS["progressive"]
    last = data.rindex(b"\xff\xda")
    refused(data[:-2] + data[last:-2] * encoded.MAX_SCANS + b"\xff\xd9", "DECODING_FAILED")


def test_long_runs_of_fillers_and_stuffed_zeros_take_no_time_to_speak_of():
    # With a step back for each of them, these would run for days.
    data = JPEGS["grey"]
    refused(data[:2] + b"\xff" * 10_000_000, "TRUNCATED")
    refused(data[:-2] + b"\xff" * 10_000_000, "TRUNCATED")
    refused(data[:-2] + b"\xff\x00" * 5_000_000, "TRUNCATED")
    assert strip(data[:2] + b"\xff" * 10_000_000 + data[2:]).data == data


@QUIET
@given(st.sampled_from([b"", encoded.JPEG, encoded.PNG]), st.binary(max_size=300))
def test_random_bytes_are_refused_by_name(start, noise):
    decodes_or_is_named(start + noise)


@QUIET
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
    st.binary(max_size=20),
)
def test_a_damaged_file_decodes_or_is_refused_by_name(name, flips, cut, tail):
    data = bytearray(FILES[name])
    for place, value in flips:
        data[int(place * len(data))] = value
    whole = bytes(data)
    decodes_or_is_named(whole)
    decodes_or_is_named(whole[: int(cut * len(whole))] + tail)


@QUIET
@given(
    st.sampled_from(sorted(PNGS)),
    st.sampled_from([b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"gAMA", b"zzZz"]),
    st.binary(max_size=40),
)
def test_a_png_with_a_chunk_of_noise_decodes_or_is_refused_by_name(name, kind, noise):
    data = PNGS[name]
    at = data.index(b"IDAT") - 4
    decodes_or_is_named(data[:at] + chunk(kind, noise) + data[at:])
    decodes_or_is_named(data[:33] + chunk(kind, noise) + data[33:])


def test_pixels_may_come_in_several_chunks():
    data = png(HEADER, *HALVES, chunk(b"IDAT", b""))
    assert strip(data).data == data
    np.testing.assert_array_equal(by_tensorflow(data)[..., 0], GREY)


def test_fillers_may_stand_before_a_restart():
    data = JPEGS["restart intervals"]
    filled = data.replace(b"\xff\xd1", b"\xff\xff\xff\xd1")
    assert len(filled) > len(data) and strip(filled).data == filled  # T.81, B.1.1.2
    np.testing.assert_array_equal(by_tensorflow(filled), by_tensorflow(data))


def test_messages_hold_nothing_of_the_file():
    for data in (MARK, grey_png(chunk(b"MARK", MARK)), encoded.JPEG + MARK * 99):
        with pytest.raises(CourseDataError) as caught:
            strip(data)
        assert "WHO" not in str(caught.value) and "MARK" not in str(caught.value)


def test_neither_stripping_nor_finding_pictures_needs_tensorflow():
    code = "import sys; from helpers import encoded, sources_pictures; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "helpers.sources_pictures" in modules.stdout
    assert "tensorflow" not in modules.stdout
