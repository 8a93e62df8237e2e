"""NIfTI files that are what they claim to be: one reader for the lessons and the converter.

    voxels, place = nifti.read("image.nii.gz")       # [z, y, x], or [z, y, x, c] of a 4D file
    shape, dtype = nifti.describe("image.nii.gz")    # of the same, from the header alone

nibabel understands the header. A file is read once, to its end, so that gzip compares its checksum,
and what is damaged is refused: SimpleITK pads a file that is cut short, turns NaN into 0, and takes
damaged gzip data as they come, all without a word (measured: 2.5.7).

A header may place the voxels twice, by its sform and by its qform (NIfTI-1 standard, "3D image
orientation and location in space"). nibabel takes the sform. SimpleITK takes the qform, unless only
the sform says "scanner". Here it is the sform. Where the two differ, a note says so; where they
even differ in which way an axis runs, left might be right, and the file is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import zlib
from pathlib import Path

import numpy as np

from helpers.errors import CourseDataError, meaning, need
from helpers.volume import Volume, nearest_axes

ENDINGS = (".nii", ".nii.gz")
UNIT_MM = {1: 1000.0, 3: 0.001}  # by NIfTI's codes, metres and micrometres; all others are mm
CHUNK = 2**20  # bytes
# Of the smallest spacing. Half a voxel would give a voxel the wrong neighbour; what NIfTI's
# float32 loses is less than 0.001 mm half a metre away, what headers printed with six digits lose
# 0.003 mm.
TOLERANCE = 0.02
TWO_PLACES = "sform and qform or pixdim differ: placed by the sform, as nibabel does"
NO_PLACE = "no orientation in the header: x, y, z taken for left, back, head, as SimpleITK does"
FAULTS = {EOFError: "TRUNCATED", gzip.BadGzipFile: "DECODING_FAILED", zlib.error: "DECODING_FAILED"}


def read(path: str | Path, role: str = "image") -> tuple[np.ndarray, Volume]:
    """Read the voxels of a NIfTI-1 file that is whole.

    Args:
        path: a file named .nii or .nii.gz.
        role: "image", which may be 4D for channels, or another word, "mask" for instance, for
            what is 3D. Messages have it.

    Returns:
        Voxels `[z, y, x]`, or `[z, y, x, c]` of a 4D file, in native byte order: as stored or,
        where the header scales them, float32 (float64 if stored so); and the (first) channel as a
        `Volume`, whose notes tell where the header left a doubt.

    Raises:
        CourseDataError: `UNKNOWN_FORMAT` by its name; `UNREADABLE` for a file that is not there
            or no NIfTI-1 with its voxels inside; `TRUNCATED` for fewer bytes than the header
            claims; `DECODING_FAILED` for damaged gzip data; `PIXEL_FORMAT` for colour and complex
            numbers; `SHAPE_MISMATCH` for other axes; `NO_GEOMETRY` for axes that are not at right
            angles or run in two ways; `NOT_FINITE`; `TOO_LARGE`. Messages name no file.

    Example:
        voxels, place = nifti.read("labelsTr/liver_1.nii.gz", "mask")

    Taught in: no lesson; `volume.load` and the converter use it
    """
    with _opened(path, role) as file:
        header, shape = _header(file, role)
        place = _place(header, shape[-3:])
        stored = np.empty(shape, header.get_data_dtype())
        file.seek(int(header["vox_offset"]))
        held = _fill(stored.reshape(-1).view(np.uint8), file)
        claim = f"holds {held} bytes of voxels, its header claims {stored.nbytes}"
        need(held == stored.nbytes, "TRUNCATED", claim)
        voxels = _scaled(stored, header)
        ends = voxels.min(), voxels.max()  # NaN, if there is one
        need(np.isfinite(ends).all(), "NOT_FINITE", "holds NaN or infinite values")
    if voxels.ndim == 3:
        return voxels, dataclasses.replace(place, voxels=voxels)
    return np.moveaxis(voxels, 0, -1), dataclasses.replace(place, voxels=voxels[0])


def describe(path: str | Path, role: str = "image") -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the voxels that `read` would give, from the header alone.

    Args, raises: as for `read`, as far as the header tells.

    Example:
        shape, dtype = nifti.describe("imagesTr/liver_1.nii.gz")

    Taught in: no lesson; the converter uses it
    """
    with _opened(path, role) as file:
        header, shape = _header(file, role)
        _place(header, shape[-3:])
        nothing = np.empty(0, header.get_data_dtype())
        return (*shape[-3:], *shape[:-3]), _scaled(nothing, header).dtype


@contextlib.contextmanager
def _opened(path: str | Path, role: str):
    """The file, decompressed; whatever goes wrong with it gets a code and its name."""
    path = Path(path)
    try:
        need(path.name.endswith(ENDINGS), "UNKNOWN_FORMAT", "is not named .nii or .nii.gz")
        need(path.is_file(), "UNREADABLE", "is not there, or no regular file")
        with open(path, "rb") as plain:
            packed = plain.peek(2).startswith(b"\x1f\x8b")
            yield gzip.GzipFile(fileobj=plain) if packed else plain
    except CourseDataError as error:
        raise CourseDataError(error.code, f"the {role} {error.message}", [path]) from None
    except MemoryError:
        raise CourseDataError("TOO_LARGE", f"the {role}: more than memory holds", [path]) from None
    except Exception as error:  # a header that makes no sense may raise anything
        code = FAULTS.get(type(error), "UNREADABLE")
        raise CourseDataError(code, f"the {role}: {meaning(code)}", [path]) from None


def _header(file, role: str):
    """nibabel's header, and the shape `(z, y, x)` or `(c, z, y, x)`, of a file that is read."""
    import nibabel

    header = nibabel.Nifti1Header(file.read(348), check=False)
    inside = header["magic"] == b"n+1" and header["vox_offset"] >= 352
    need(inside, "UNREADABLE", "is no NIfTI-1 file with its voxels inside")
    stored, kind = header.get_data_dtype(), header.get_value_label("datatype")
    real = stored.kind in "iuf" and stored.itemsize <= 8
    need(real, "PIXEL_FORMAT", f"holds {kind} values, expected real numbers")
    shape = header.get_data_shape()
    if set(shape[3:]) == {1}:
        shape = shape[:3]
    channels = role == "image"
    fits = (len(shape) == 3 or (len(shape) == 4 and channels)) and min(shape) > 0
    need(fits, "SHAPE_MISMATCH", f"is {shape}, expected 3D" + " or, for channels, 4D" * channels)
    return header, shape[::-1]


def _fill(array: np.ndarray, file) -> int:
    """Read bytes into an array, and the file to its end, where gzip compares its checksum."""
    held = 0
    while count := file.readinto(array[held : held + CHUNK]):
        held += count
    while file.read(CHUNK):
        pass
    return held


def _scaled(stored: np.ndarray, header) -> np.ndarray:
    """What the stored values stand for: float32, times scl_slope plus scl_inter, if they scale."""
    slope, inter = header.get_slope_inter()
    native = stored.dtype.newbyteorder("=")
    if (slope, inter) in ((None, None), (1, 0)):
        return stored.astype(native, copy=False)
    with np.errstate(over="ignore"):  # NOT_FINITE follows
        voxels = stored.astype(native if native == np.float64 else np.float32)
        voxels *= slope
        voxels += inter
    return voxels


def _place(header, shape: tuple[int, ...]) -> Volume:
    """An empty volume where the header says that the voxels lie."""
    pixdim = np.abs(header["pixdim"][1:4].astype(float))
    unit_mm = UNIT_MM.get(int(header["xyzt_units"]) % 8, 1.0)
    forms = header.get_sform(coded=True), header.get_qform(coded=True)
    coded = [affine for affine, code in forms if code]
    if not coded:
        return _at(np.diag([*pixdim * (-1, -1, 1), 1]), shape, unit_mm, NO_PLACE)
    place, other = _at(coded[0], shape, unit_mm), _at(coded[-1], shape, unit_mm)
    alike = nearest_axes(place.direction) == nearest_axes(other.direction)
    need(alike, "NO_GEOMETRY", "has an sform and a qform whose axes run in different ways")
    sizes = np.allclose(place.spacing[::-1], pixdim * unit_mm, rtol=TOLERANCE)
    sure = sizes and place.same_geometry(other, TOLERANCE * min(place.spacing))
    return place if sure else _at(coded[0], shape, unit_mm, TWO_PLACES)


def _at(affine: np.ndarray, shape: tuple[int, ...], unit_mm: float, *notes: str) -> Volume:
    """An empty volume at the place that an affine gives; NIfTI's x and y grow right and front."""
    matrix = affine[:3] * [[-1], [-1], [1]] * unit_mm
    spacing = np.linalg.norm(matrix[:, :3], axis=0)
    axes = matrix[:, :3] / np.where(spacing > 0, spacing, 1)
    square = np.allclose(axes.T @ axes, np.eye(3), atol=1e-3)
    need(square, "NO_GEOMETRY", f"has axes not at right angles, or spacing {spacing} mm")
    nothing = np.broadcast_to(np.uint8(0), shape)
    return Volume(nothing, spacing[::-1], matrix[:, 3], axes, notes)
