"""Stored pixels to real-world values, a slice at a time, straight into the volume's memory.

Native pixels are read from the file into their place in the volume and rescaled there, so that
reading takes no more memory than its result. Compressed ones are decoded by pydicom's plugins.
"""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, get_decoder, pixel_array
from pydicom.uid import ExplicitVRBigEndian, JPEGLSLossless, JPEGLSNearLossless, RLELossless

from helpers.dicom_elements import NATIVE
from helpers.dicom_header import Header
from helpers.errors import CourseDataError

INT16 = np.iinfo(np.int16)

# Where pydicom's first choice is not the best: its own RLE decoder is written in Python, and GDCM
# ends the whole process when a JPEG-LS stream is shorter than the header says.
PLUGINS = {
    RLELossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
}


class _NotInt16Error(Exception):
    """A value of the volume does not fit int16; only known once the pixels are read."""


def read_voxels(slices: tuple[Header, ...]) -> np.ndarray:
    """The slices as one array `[z, y, x]`, modality transform and MONOCHROME1 applied.

    int16 if every slope and intercept is a whole number and every result fits, else float32
    (DICOM PS3.3 C.11.1: value = slope x stored + intercept, with each slice's own numbers).

    Args:
        slices: in the order wanted; equal rows and columns.

    Raises:
        CourseDataError: `TRUNCATED`, `DECODING_FAILED` or `NOT_FINITE`, with the file.
    """
    shape = (len(slices), slices[0].rows, slices[0].columns)
    whole = all(
        header.pixels == "integer"
        and not header.has_modality_lut
        and float(header.slope).is_integer()
        and float(header.intercept).is_integer()
        for header in slices
    )
    if whole:
        try:
            return _fill(np.empty(shape, np.int16), slices, _read_int16)
        except _NotInt16Error:
            # Read again rather than convert: at no time are two volumes in memory.
            pass
    return _fill(np.empty(shape, np.float32), slices, _read_float32)


_open = functools.partial(pydicom.dcmread, force=True)  # `scan` has decided what is DICOM


def stored_pixels(header: Header, opened=_open) -> np.ndarray:
    """The pixels as stored, `[y, x]`, in the file's own range and this machine's byte order.

    `opened` gives the pydicom data set of a path; a caller with many frames of one file keeps it.
    """
    dtype = _native_dtype(header)
    if dtype is not None:
        pixels = np.empty((header.rows, header.columns), dtype)
        _read_into(pixels, header)
        return pixels.astype(dtype.newbyteorder("="), copy=False)
    try:
        with warnings.catch_warnings():
            # Oddities of the encoding; what matters of them is checked below.
            warnings.simplefilter("ignore")
            pixels = _decode(header, opened)
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # each plugin has its own; a panic in Rust is no Exception
        short = "length" in str(error) and "expected" in str(error)
        raise CourseDataError(
            "TRUNCATED" if short else "DECODING_FAILED",
            f"the pixels cannot be decoded: {' '.join(str(error).split())[:160]}",
            [header.path],
        ) from error
    if pixels.shape != (header.rows, header.columns):
        raise CourseDataError(
            "DECODING_FAILED",
            f"the header says {header.rows} x {header.columns}, the decoder gave {pixels.shape}",
            [header.path],
        )
    return pixels


def _decode(header: Header, opened) -> np.ndarray:
    decoder = get_decoder(header.transfer_syntax)
    preferred = PLUGINS.get(header.transfer_syntax, "")
    plugin = preferred if preferred in decoder.available_plugins else ""
    compressed = header.transfer_syntax not in NATIVE and header.pixel_offset is not None
    if not compressed or header.frame is not None:
        dataset = opened(header.path)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = header.transfer_syntax  # as guessed by `scan`
        return pixel_array(dataset, raw=True, index=header.frame or 0, decoding_plugin=plugin)
    # The header is known: spare pydicom a second walk through the file.
    with open(header.path, "rb") as file:
        file.seek(header.pixel_offset)
        code_stream = file.read()
    pixels, _ = decoder.as_array(
        code_stream,
        raw=True,
        index=0,
        decoding_plugin=plugin,
        number_of_frames=1,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME1" if header.inverted else "MONOCHROME2",
        pixel_keyword="PixelData",
        rows=header.rows,
        columns=header.columns,
        bits_allocated=header.bits_allocated,
        bits_stored=header.bits_stored,
        pixel_representation=int(header.signed),
    )
    return pixels


def _fill(voxels: np.ndarray, slices: tuple[Header, ...], read_slice) -> np.ndarray:
    # One thread: copies are short, and the decoders keep the interpreter's lock.
    opened = functools.lru_cache(maxsize=1)(_open)
    for out, header in zip(voxels, slices, strict=True):
        read_slice(out, header, opened)
    return voxels


def _read_int16(out: np.ndarray, header: Header, opened) -> None:
    """Fill an int16 slice, or raise `_NotInt16Error`."""
    dtype = _native_dtype(header)
    if dtype is not None and dtype.itemsize == 2:
        _read_into(out, header)
        if not dtype.isnative:
            out.byteswap(inplace=True)
        stored = out.view(dtype.newbyteorder("="))
    else:
        stored = stored_pixels(header, opened)
    stored = _without_unused_bits(stored, header)
    slope, intercept = (int(number) for number in _slope_intercept(header))
    ends = [int(stored.min()) * slope + intercept, int(stored.max()) * slope + intercept]
    if min(ends) < INT16.min or max(ends) > INT16.max:
        raise _NotInt16Error
    if stored.itemsize == 2:
        # Arithmetic modulo 2**16 gives the right bits, as the result is known to fit.
        bits = out.view(np.uint16)
        if not np.may_share_memory(stored, out):
            bits[...] = stored.view(np.uint16)
        if slope != 1:
            np.multiply(bits, np.uint16(slope % 65536), out=bits)
        if intercept:
            np.add(bits, np.uint16(intercept % 65536), out=bits)
    else:
        out[...] = stored.astype(np.int64) * slope + intercept


def _read_float32(out: np.ndarray, header: Header, opened) -> None:
    stored = stored_pixels(header, opened)
    if header.pixels == "integer":
        stored = _without_unused_bits(stored, header)
    if header.has_modality_lut:
        if header.inverted:
            stored = (_mirror(header) - stored).astype(stored.dtype)
        out[...] = apply_modality_lut(stored, opened(header.path))
    else:
        slope, intercept = _slope_intercept(header)
        with np.errstate(over="ignore", invalid="ignore"):  # found out and refused below
            out[...] = stored * slope + intercept
    with np.errstate(invalid="ignore"):
        # NaN or infinite if any value is; in float64, so that the sum itself cannot overflow.
        total = out.sum(dtype=np.float64)
    if not np.isfinite(total):
        raise CourseDataError(
            "NOT_FINITE",
            f"{np.count_nonzero(~np.isfinite(out))} values are NaN, infinite or beyond float32",
            [header.path],
        )


def _slope_intercept(header: Header) -> tuple[float, float]:
    """Rescale slope and intercept, with the inversion of MONOCHROME1 folded in.

    MONOCHROME1 says that low values are shown white (PS3.3 C.7.6.3.1.2). Mirroring stored values
    within their bits makes white the highest, alike for every slice. The mirrored values then are
    rescaled: a CT or PET in MONOCHROME1, a rarity, is taken for one whose stored values are a
    negative. The note on the volume tells.
    """
    if not header.inverted:
        return header.slope, header.intercept
    return -header.slope, header.intercept + header.slope * _mirror(header)


def _mirror(header: Header) -> int:
    """The sum of a stored value and its mirror image; floating point is mirrored at 0."""
    if header.pixels != "integer":
        return 0
    return -1 if header.signed else 2**header.bits_stored - 1


def _native_dtype(header: Header) -> np.dtype | None:
    """The dtype of uncompressed pixels in the file; None where pydicom should unpack them."""
    big = header.transfer_syntax == ExplicitVRBigEndian
    if header.pixels != "integer" or header.pixel_offset is None:
        return None
    if header.transfer_syntax not in NATIVE:
        return None
    if header.bits_allocated not in (8, 16, 32) or (big and header.bits_allocated == 8):
        return None  # bits, 64-bit integers; bytes that big endian stores as swapped words
    kind = "i" if header.signed else "u"
    return np.dtype(f"{'>' if big else '<'}{kind}{header.bits_allocated // 8}")


def _read_into(out: np.ndarray, header: Header) -> None:
    with open(header.path, "rb", buffering=0) as file:
        file.seek(header.pixel_offset + (header.frame or 0) * out.nbytes)
        count = file.readinto(memoryview(out).cast("B"))
    if count != out.nbytes:
        raise CourseDataError(
            "TRUNCATED", f"expected {out.nbytes} bytes of pixels, found {count}", [header.path]
        )


def _without_unused_bits(stored: np.ndarray, header: Header) -> np.ndarray:
    """Clear bits above Bits Stored, where old files keep overlays (PS3.5 section 8.1.1)."""
    spare = 8 * stored.itemsize - header.bits_stored
    if spare <= 0 or header.bits_allocated == 1:
        return stored
    low, high = (-(2 ** (header.bits_stored - 1)), 2 ** (header.bits_stored - 1) - 1)
    if not header.signed:
        low, high = 0, 2**header.bits_stored - 1
    if low <= stored.min() and stored.max() <= high:
        return stored
    return (stored << spare) >> spare
