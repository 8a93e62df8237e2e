"""Stored pixels to real-world values, a slice at a time, straight into the volume's memory.

Native pixels are read from the file into their place in the volume and rescaled there, so that
reading takes no more memory than its result. Compressed ones are decoded by pydicom's plugins.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread, uid
from pydicom.pixels import apply_modality_lut, get_decoder

from helpers.dicom.header import NATIVE, Header
from helpers.errors import CourseDataError, need

INT16 = np.iinfo(np.int16)
# Where pydicom's first choice is not the best: its own RLE decoder is written in Python, and GDCM
# ends the whole process when a JPEG-LS stream is shorter than the header says.
PLUGINS = {
    uid.RLELossless: "pylibjpeg",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
}
# What a decoder of pydicom has to be told, by the names of its options and of Header's fields.
OPTIONS = ("pixel_keyword", "rows", "columns", "number_of_frames", "samples_per_pixel")
OPTIONS += ("photometric_interpretation", "bits_allocated", "bits_stored", "pixel_representation")


def read_voxels(slices: Sequence[Header]) -> np.ndarray:
    """The slices as one array `[z, y, x]`: value = slope x stored + intercept, each its own.

        voxels = read_voxels(dicom.scan(folder).series[0].headers)

    MONOCHROME1 is mirrored, a modality LUT applied (DICOM PS3.3 C.11.1).

    Args:
        slices: in the order wanted; equal rows and columns.

    Returns:
        int16 if every slope and intercept is a whole number and every result fits, else float32.

    Raises:
        CourseDataError: `TRUNCATED`, `DECODING_FAILED` or `NOT_FINITE`, with the file.

    Taught in: loading DICOM
    """
    shape = (len(slices), slices[0].rows, slices[0].columns)
    encoded = functools.lru_cache(maxsize=1)(_encoded)  # frames share their file's
    voxels = np.empty(shape, np.int16)
    if not _filled(voxels, slices, encoded):
        del voxels  # read again rather than convert: never are two volumes in memory
        voxels = np.empty(shape, np.float32)
        _filled(voxels, slices, encoded)
    return voxels


def _filled(voxels: np.ndarray, slices: Sequence[Header], encoded) -> bool:
    """Read the slices into their places, until one does not fit."""
    return all(_fill(out, h, encoded) for out, h in zip(voxels, slices, strict=True))


def _fill(out: np.ndarray, header: Header, encoded) -> bool:
    """Read one slice into its place; False if it does not fit int16."""
    stored = _without_unused_bits(stored_pixels(header, out, encoded), header)
    slope, intercept = slope_intercept(header)
    if out.dtype == np.int16:
        if not fits_int16(header, *map(float, (stored.min(), stored.max()))):
            return False
        # Arithmetic modulo 2**16 gives the right bits, as the result is known to fit.
        bits = out.view(np.uint16)
        if not np.may_share_memory(stored, out):
            bits[...] = stored.astype(np.uint16)
        if slope != 1:
            np.multiply(bits, np.uint16(slope % 65536), out=bits)
        if intercept:
            np.add(bits, np.uint16(intercept % 65536), out=bits)
        return True
    if header.modality_lut:
        if header.inverted:
            stored = (sum(stored_range(header)) - stored).astype(stored.dtype)
        dataset = dcmread(header.path, force=True, stop_before_pixels=True)
        out[...] = apply_modality_lut(stored, dataset)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # found out and refused below
            out[...] = stored * slope + intercept
    with np.errstate(invalid="ignore"):  # in float64, so that the sum itself cannot overflow
        finite = np.isfinite(out.sum(dtype=np.float64))
    found = "" if finite else f"{np.count_nonzero(~np.isfinite(out))} values are no finite float32"
    need(finite, "NOT_FINITE", found, header.path)
    return True


def slope_intercept(header: Header) -> tuple[float, float]:
    """Rescale slope and intercept, with the inversion of MONOCHROME1 folded in.

    MONOCHROME1 says that low values are shown white (PS3.3 C.7.6.3.1.2). Mirroring stored values
    within their bits makes white the highest, alike for every slice. The mirrored values then are
    rescaled: a CT or PET in MONOCHROME1, a rarity, is taken for one whose stored values are a
    negative. The note on the volume tells.
    """
    if not header.inverted:
        return header.slope, header.intercept
    # The sum of a value and its mirror image; floating point is mirrored at 0.
    both = sum(stored_range(header)) if header.pixel_keyword == "PixelData" else 0
    return -header.slope, header.intercept + header.slope * both


def stored_range(header: Header) -> tuple[int, int]:
    """The least and the greatest value that Bits Stored can hold."""
    low = -(2 ** (header.bits_stored - 1)) if header.pixel_representation else 0
    return low, low + 2**header.bits_stored - 1


def fits_int16(header: Header, low: int, high: int) -> bool:
    """Whether int16 holds the values that stored ones from `low` to `high` stand for."""
    if header.pixel_keyword != "PixelData" or header.modality_lut:
        return False
    slope, intercept = slope_intercept(header)
    ends = slope * low + intercept, slope * high + intercept
    whole = float(slope).is_integer() and float(intercept).is_integer()
    return whole and min(ends) >= INT16.min and max(ends) <= INT16.max


def _encoded(path: Path, syntax: str, keyword: str, offset: int) -> bytes:
    """The bytes of an image's pixels, and maybe what follows them."""
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        return dcmread(path)[keyword].value
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read()


def stored_pixels(header: Header, out: np.ndarray | None = None, encoded=_encoded) -> np.ndarray:
    """The pixels as stored, `[y, x]`, in the file's own range and this machine's byte order.

    Args:
        header: of the image or frame.
        out: memory to read into, if its values are as wide as those in the file.
        encoded: gives the bytes of a compressed file; a caller with many frames keeps them.

    Raises:
        CourseDataError: `TRUNCATED` or `DECODING_FAILED`.

    Taught in: no lesson; `read_voxels` uses it
    """
    dtype = _native_dtype(header)
    if dtype is not None:
        fits = out is not None and out.itemsize == dtype.itemsize
        pixels = out.view(dtype) if fits else np.empty((header.rows, header.columns), dtype)
        with open(header.path, "rb", buffering=0) as file:
            file.seek(header.pixel_offset + (header.frame or 0) * pixels.nbytes)
            count = file.readinto(memoryview(pixels).cast("B"))
        found = f"expected {pixels.nbytes} bytes of pixels, found {count}"
        need(count == pixels.nbytes, "TRUNCATED", found, header.path)
        return (
            pixels if dtype.isnative else pixels.byteswap(inplace=True).view(dtype.newbyteorder())
        )
    where = (header.path, header.transfer_syntax, header.pixel_keyword, header.pixel_offset)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of the encoding is checked below
            pixels = _decoded(header, encoded(*where))
    except (OSError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # each plugin has its own; a panic in Rust is no Exception
        short = re.search("length.*expected|expected.*length|truncated", str(error), re.DOTALL)
        found = f"the pixels cannot be decoded ({type(error).__name__})"
        code = "TRUNCATED" if short else "DECODING_FAILED"
        raise CourseDataError(code, found, [header.path]) from error
    found = f"the header says {header.rows} x {header.columns}, the decoder gave {pixels.shape}"
    need(pixels.shape == (header.rows, header.columns), "DECODING_FAILED", found, header.path)
    return pixels


def _native_dtype(header: Header) -> np.dtype | None:
    """The dtype of uncompressed pixels in the file; None where pydicom should unpack them."""
    big = header.transfer_syntax == uid.ExplicitVRBigEndian
    odd = header.bits_allocated not in (8, 16, 32) or (big and header.bits_allocated == 8)
    if odd or header.transfer_syntax not in NATIVE:
        return None  # bits, 64-bit numbers; bytes that big endian stores as swapped words
    kind = (
        "f" if header.pixel_keyword != "PixelData" else "i" if header.pixel_representation else "u"
    )
    return np.dtype(f"{'>' if big else '<'}{kind}{header.bits_allocated // 8}")


def _decoded(header: Header, stream: bytes) -> np.ndarray:
    if header.transfer_syntax == uid.JPEGExtended12Bit and header.bits_stored > 8:
        import SimpleITK as sitk  # its GDCM decodes them, pydicom's plugins do not

        values = sitk.GetArrayFromImage(sitk.ReadImage(str(header.path)))[header.frame or 0]
        return np.rint((values - header.intercept) / header.slope).astype(np.int64)
    decoder = get_decoder(header.transfer_syntax)
    plugin = PLUGINS.get(header.transfer_syntax, "")
    options = {name: getattr(header, name) for name in OPTIONS}
    pixels, _ = decoder.as_array(
        stream,
        raw=True,
        index=header.frame or 0,
        decoding_plugin=plugin if plugin in decoder.available_plugins else "",
        **options,
    )
    return pixels


def _without_unused_bits(stored: np.ndarray, header: Header) -> np.ndarray:
    """Clear bits above Bits Stored, where old files keep overlays (PS3.5 section 8.1.1)."""
    spare = 8 * stored.itemsize - header.bits_stored
    low, high = stored_range(header)
    if spare > 0 and stored.dtype.kind != "f" and not low <= stored.min() <= stored.max() <= high:
        return (stored << spare) >> spare
    return stored


def need_copy(kept: Header, copy: Header) -> None:
    """Two images at one place have to be the same image, by their values if not by their UID.

    Raises:
        CourseDataError: `CONFLICTING_DUPLICATE` if they are not, though their UID is the same;
            `SHARED_POSITION` otherwise, and for frames of one file.
    """
    fields = ("slope", "intercept", "inverted", "pixel_representation", "bits_stored")
    alike = all(getattr(kept, name) == getattr(copy, name) for name in fields)
    if alike and np.array_equal(stored_pixels(kept), stored_pixels(copy)):
        return
    one = kept.sop_uid == copy.sop_uid and kept.path != copy.path
    code = "CONFLICTING_DUPLICATE" if one else "SHARED_POSITION"
    files = dict.fromkeys([kept.path, copy.path])
    raise CourseDataError(code, "two different images at one place", files)
