"""NIfTI files that are what they claim to be.

SimpleITK pads a NIfTI file that is cut short, takes damaged gzip data as they come, turns NaN and
infinity into 0, and reads `x.nii` instead of `x.nii.gz` where both exist, all without a word; a
path that is not UTF-8 ends the process (measured: 2.5.7). Here such files are refused by name.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from helpers import volume
from helpers.errors import CODES, CourseDataError
from helpers.volume import Volume

ENDINGS = (".nii", ".nii.gz")
FLOATS = {"16": 4, "64": 8}  # NIfTI's datatype codes, and bytes
LARGEST_OFFSET = 2**26  # bytes; extensions of the header may precede the voxels
CHUNK = 2**20  # a multiple of both


def read_header(path: Path, role: str):
    """Read the header of a NIfTI file of one value at each voxel.

    Args:
        path: a file named .nii or .nii.gz.
        role: "image", which may be 4D for channels, or "mask", which is 3D; used in messages.

    Returns:
        SimpleITK's reader; its sizes are `(x, y, z)` or `(x, y, z, c)`.

    Raises:
        CourseDataError: `UNKNOWN_FORMAT`, `UNREADABLE`, `NO_GEOMETRY`, `SHAPE_MISMATCH`,
            `PIXEL_FORMAT`. Messages name no file and quote none.
    """
    import SimpleITK as sitk

    def refuse(code: str, problem: str) -> CourseDataError:
        return CourseDataError(code, f"the {role} {problem}", [path])

    if not path.name.endswith(ENDINGS):
        raise refuse("UNKNOWN_FORMAT", f"is not named as NIfTI; expected {' or '.join(ENDINGS)}")
    try:
        str(path).encode()
    except UnicodeEncodeError:  # SimpleITK would end the whole process
        raise refuse("UNREADABLE", "has a path that is not UTF-8; rename it") from None
    if not os.path.isfile(path):
        raise refuse("UNREADABLE", "is not there, or is no regular file; mend the list")
    if path.suffix == ".gz" and os.path.exists(path.with_suffix("")):
        problem = "lies beside an uncompressed file of its name, which SimpleITK would read instead"
        raise refuse("UNREADABLE", f"{problem}; keep one of the two")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            problem = "has axes that are not at right angles; resample it first"
            raise refuse("NO_GEOMETRY", problem) from None
        raise refuse("UNREADABLE", "has no NIfTI header that SimpleITK can read") from None
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise refuse("PIXEL_FORMAT", "has complex values; expected its magnitude")
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if dimension not in ((3, 4) if role == "image" else (3,)) or components != 1:
        expected = "3D, or 4D for channels," if role == "image" else "3D"
        problem = f"is {dimension}D with {components} values at a voxel; expected {expected} with 1"
        raise refuse("SHAPE_MISMATCH", problem)
    return reader


def bytes_per_voxel(reader) -> int:
    """The bytes of a voxel as `read` returns it."""
    import SimpleITK as sitk

    return sitk.Image([1, 1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()


def read(path: Path, role: str) -> tuple[np.ndarray, Volume]:
    """Read the voxels of a NIfTI file that is whole.

    Args:
        path, role: as for `read_header`.

    Returns:
        Voxels `[z, y, x]`, or `[z, y, x, c]` of a 4D file, in native byte order and scaled; and
        the (first) channel as a volume, for its place.

    Raises:
        CourseDataError: what `read_header` raises, `TRUNCATED` for fewer bytes than the header
            claims, `DECODING_FAILED` for gzip data that contradict their checksum, `NOT_FINITE`
            for a stored NaN or infinity.
    """
    reader = read_header(path, role)
    _refuse_damaged(path, reader, role)
    try:
        if reader.GetDimension() == 3:
            found = volume.load(path)
            return found.voxels, found
        import SimpleITK as sitk

        image = reader.Execute()
        voxels = np.moveaxis(sitk.GetArrayFromImage(image), 0, -1)
        direction = np.reshape(image.GetDirection(), (4, 4))[:3, :3]
        spacing, origin = image.GetSpacing()[2::-1], image.GetOrigin()[:3]
        return voxels, Volume(voxels[..., 0], spacing, origin, direction)
    except (CourseDataError, RuntimeError, OSError) as error:
        # Their messages may hold the path, or text of the file.
        code = getattr(error, "code", "UNREADABLE")
        raise CourseDataError(code, f"the {role}: {CODES[code]}", [path]) from None


def _refuse_damaged(path: Path, reader, role: str) -> None:
    """Compare a file's bytes with what its header claims; look for what SimpleITK hides."""
    rank, bits = int(reader.GetMetaData("dim[0]")), int(reader.GetMetaData("bitpix"))
    shape = [int(reader.GetMetaData(f"dim[{axis}]")) for axis in range(1, rank + 1)]
    offset = int(float(reader.GetMetaData("vox_offset")))
    expected = math.prod(shape) * bits // 8
    floats = FLOATS.get(reader.GetMetaData("datatype"))
    held, finite = 0, True

    def refuse(code: str, problem: str) -> CourseDataError:
        return CourseDataError(code, f"the {role} {problem}", [path])

    try:
        with open(path, "rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            header = file.read(348)
            if header[344:] != b"n+1\0":  # else the voxels come from a second file, unlisted
                raise refuse("UNREADABLE", "is no NIfTI-1 file with its voxels inside")
            if not 348 <= offset <= LARGEST_OFFSET:
                raise refuse("UNREADABLE", f"has voxels that begin at byte {offset}")
            # The first number is 348, in the byte order of the file.
            order = "<" if header.startswith(b"\x5c\x01") else ">"
            file.read(offset - 348)
            if not packed and not floats:
                held = path.stat().st_size - offset
            while (packed or floats) and (chunk := file.read(CHUNK)):
                if floats and held < expected:
                    values = chunk[: min(expected - held, len(chunk)) // floats * floats]
                    finite &= bool(np.isfinite(np.frombuffer(values, f"{order}f{floats}")).all())
                held += len(chunk)
    except EOFError:
        raise refuse("TRUNCATED", "ends within its gzip data; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error):
        problem = "is damaged: its gzip data contradict their checksum; fetch it again"
        raise refuse("DECODING_FAILED", problem) from None
    except OSError:
        raise refuse("UNREADABLE", "cannot be opened") from None
    if held < expected:
        problem = f"holds {max(held, 0)} bytes of voxels, its header claims {expected}"
        raise refuse("TRUNCATED", f"{problem}; fetch it again")
    if not finite:
        raise refuse("NOT_FINITE", "holds NaN or infinite values; expected finite ones")
