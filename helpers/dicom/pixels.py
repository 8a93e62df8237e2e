"""Stored pixels to real-world values, a slice at a time, straight into the volume's memory.

Plain pixels are read from the file into their place in the volume and rescaled there, so that
reading takes no more memory than its result. Others are decoded by pydicom and its plugins.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from pydicom import dcmread, uid
from pydicom.pixels import apply_modality_lut, get_decoder

from helpers.dicom.header import NATIVE, Header
from helpers.errors import CourseDataError, need

# Where pydicom's first choice is not the best: its own RLE decoder is written in Python, and GDCM
# ends the whole process when a JPEG-LS stream is shorter than the header says.
PLUGINS = {
    uid.RLELossless: "pylibjpeg",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
}


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
    for dtype in (np.int16, np.float32):
        voxels = None  # read again rather than convert: never are two volumes in memory
        voxels = np.empty(shape, dtype)
        if all(map(_fill, voxels, slices)):
            break
    return voxels


def _fill(out: np.ndarray, header: Header) -> bool:
    """Read one slice into its place; False if it does not fit int16.

    MONOCHROME1 says that low values are shown white (PS3.3 C.7.6.3.1.2). Mirroring stored values
    within their bits, floating point at 0, makes white the highest, alike for every slice. The
    mirrored values then are rescaled: a CT or PET in MONOCHROME1, a rarity, is taken for one whose
    stored values are a negative. The note on the volume tells.
    """
    stored, whole = _stored(header, out), header.pixel_keyword == "PixelData"
    least, greatest = header.stored_range
    if whole and not least <= stored.min() <= stored.max() <= greatest:
        spare = 8 * stored.itemsize - header.bits_stored  # old files keep overlays there
        stored = (stored << spare) >> spare
    if header.inverted:
        stored = (least + greatest if whole else 0) - stored
    if out.dtype == np.int16:
        exact = header.slope.is_integer() and header.intercept.is_integer()
        if not (whole and exact) or header.modality_lut:
            return False
        ends = [header.slope * end + header.intercept for end in (stored.min(), stored.max())]
        if min(ends) < -(2**15) or max(ends) >= 2**15:
            return False
        # Arithmetic modulo 2**16 gives the right bits, as the result is known to fit.
        bits = stored.view(np.uint16) if stored.itemsize == 2 else stored.astype(np.uint16)
        if header.slope != 1:
            bits = bits * np.uint16(header.slope % 2**16)
        np.add(bits, np.uint16(header.intercept % 2**16), out=out.view(np.uint16))
        return True
    if header.modality_lut:
        dataset = dcmread(header.path, force=True, stop_before_pixels=True)
        out[...] = apply_modality_lut(stored, dataset)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # found out and refused below
            out[...] = stored * header.slope + header.intercept
    odd = out.size - np.count_nonzero(np.isfinite(out))
    need(not odd, "NOT_FINITE", f"{odd} values are no finite float32", header.path)
    return True


def _stored(header: Header, out: np.ndarray) -> np.ndarray:
    """The pixels as stored, `[y, x]`; in the memory of `out`, if they are plain and as wide."""
    shape, bits = (header.rows, header.columns), header.bits_allocated
    if header.transfer_syntax in NATIVE[:2] and bits in (8, 16, 32):
        kind = "i" if header.pixel_representation else "u"
        dtype = np.dtype(f"<{kind if header.pixel_keyword == 'PixelData' else 'f'}{bits // 8}")
        pixels = out.view(dtype) if out.itemsize == dtype.itemsize else np.empty(shape, dtype)
        with open(header.path, "rb", buffering=0) as file:
            file.seek(header.pixel_offset + (header.frame or 0) * pixels.nbytes)
            count = file.readinto(pixels)
        found = f"expected {pixels.nbytes} bytes of pixels, found {count}"
        need(count == pixels.nbytes, "TRUNCATED", found, header.path)
        return pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of the encoding is checked below
            pixels = _decoded(header)
    except (OSError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # each plugin has its own; a panic in Rust is no Exception
        found = f"the pixels cannot be decoded ({type(error).__name__})"
        raise CourseDataError("DECODING_FAILED", found, [header.path]) from error
    found = f"the header says {shape}, the decoder gave {pixels.shape}"
    need(pixels.shape == shape, "DECODING_FAILED", found, header.path)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _decoded(header: Header) -> np.ndarray:
    if header.transfer_syntax == uid.JPEGExtended12Bit and header.bits_stored > 8:
        import SimpleITK as sitk  # its GDCM decodes them, pydicom's plugins do not

        values = sitk.GetArrayFromImage(sitk.ReadImage(str(header.path)))[header.frame or 0]
        return np.rint((values - header.intercept) / header.slope).astype(np.int64)
    decoder, plugin = get_decoder(header.transfer_syntax), PLUGINS.get(header.transfer_syntax)
    plugin = plugin if plugin in decoder.available_plugins else ""
    # It takes what it needs of the header, which has pydicom's names for it.
    options = vars(header) | {"raw": True, "index": header.frame or 0, "decoding_plugin": plugin}
    with open(header.path, "rb") as source:
        source.seek(header.pixel_offset)
        if header.transfer_syntax == uid.DeflatedExplicitVRLittleEndian:
            source = io.BytesIO(dcmread(header.path)[header.pixel_keyword].value)
        return decoder.as_array(source, **options)[0]
