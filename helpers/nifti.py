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

import gzip
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from nibabel import Nifti1Header
from nibabel.affines import voxel_sizes

from helpers.errors import CourseDataError, need
from helpers.volume import Volume, nearest_axes

# Of the smallest spacing. Half a voxel would give a voxel the wrong neighbour; what NIfTI's
# float32 loses is less than 0.001 mm half a metre away, what headers printed with six digits lose
# 0.003 mm.
TOLERANCE = 0.02
TWO_PLACES = "sform and qform or pixdim differ: placed by the sform, as nibabel does"
NO_PLACE = "no orientation in the header: x, y, z taken for left, back, head, as SimpleITK does"


def read(path: str | Path, role: str = "image") -> tuple:
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
            or no NIfTI-1 with its voxels inside, or whose gzip data are damaged; `TRUNCATED` for
            fewer bytes than the header claims; `PIXEL_FORMAT` for colour and complex
            numbers; `SHAPE_MISMATCH` for other axes; `NO_GEOMETRY` for axes that are not at right
            angles, run in two ways or are not measured in mm; `NOT_FINITE`; `TOO_LARGE` for more
            than memory can hold. Messages name no file.

    Example:
        voxels, place = nifti.read("labelsTr/liver_1.nii.gz", "mask")

    Taught in: no lesson; `volume.load` and the converter use it
    """
    with _opened(path, role) as (file, header, place):
        shape = _shape(header)[::-1]
        stored = np.empty(shape, header.get_data_dtype())
        file.seek(int(header["vox_offset"]))
        held = file.readinto(stored)
        need(held == stored.nbytes, "TRUNCATED", f"holds {held} of {stored.nbytes} bytes")
        file.read()  # at the end gzip compares its checksum
        voxels = _scaled(stored, header)
        need(np.isfinite(voxels).all(), "NOT_FINITE", "holds NaN or infinite values")
    if len(shape) == 3:
        return voxels, replace(place, voxels=voxels)
    return np.moveaxis(voxels, 0, -1), replace(place, voxels=voxels[0])


def describe(path: str | Path, role: str = "image") -> tuple:
    """Shape and dtype of the voxels that `read` would give, from the header alone.

    Args:
        path, role: as for `read`, which raises the same as far as the header tells.

    Example:
        shape, dtype = nifti.describe("imagesTr/liver_1.nii.gz")

    Taught in: no lesson; the converter uses it
    """
    with _opened(path, role) as (_, header, place):
        nothing = np.empty(0, header.get_data_dtype())
        return place.shape + _shape(header)[3:], _scaled(nothing, header).dtype


@contextmanager
def _opened(path: str | Path, role: str):
    """The file, decompressed, its header and its place; whatever goes wrong gets a code."""
    path = Path(path)
    try:
        need(".nii" in path.suffixes[-2:], "UNKNOWN_FORMAT", "is not named .nii or .nii.gz")
        need(path.is_file(), "UNREADABLE", "is not there, or no regular file")
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = Nifti1Header(file.read(348), check=False)
            _check(header, role)
            yield file, header, _place(header)
    except Exception as error:  # a header that makes no sense may raise anything
        code = "TRUNCATED" if isinstance(error, EOFError) else "UNREADABLE"
        code, found = getattr(error, "code", code), getattr(error, "message", "is damaged")
        raise CourseDataError(code, f"the {role} {found}", [path]) from None


def _shape(header) -> tuple[int, ...]:
    """`(x, y, z)`, or `(x, y, z, c)`; more axes of length 1, as some tools write, say nothing."""
    shape = header.get_data_shape()
    return shape[:3] if set(shape[3:]) == {1} else shape


def _check(header, role: str) -> None:
    """Refuse what is no 3D image of real numbers in mm or, for channels, a 4D one."""
    need(header["magic"] == b"n+1", "UNREADABLE", "is no NIfTI-1 file with its voxels inside")
    need(header["xyzt_units"] % 8 in (0, 2), "NO_GEOMETRY", "is not measured in mm")
    dtype, shape = header.get_data_dtype(), _shape(header)
    need(dtype.kind in "iuf", "PIXEL_FORMAT", "holds colours or complex numbers")
    most = 4 if role == "image" else 3
    need(3 <= len(shape) <= most, "SHAPE_MISMATCH", f"is {shape}, expected 3 to {most} axes")
    claimed, free = np.prod(shape) * dtype.itemsize, psutil.virtual_memory().available
    need(claimed <= free, "TOO_LARGE", f"claims {claimed} bytes, {free} are free")


def _scaled(stored: np.ndarray, header) -> np.ndarray:
    """What the stored values stand for: float32, times scl_slope plus scl_inter, if they scale."""
    slope, inter = header.get_slope_inter()
    dtype = stored.dtype.newbyteorder("=")
    if slope is None or (slope == 1 and inter == 0):
        return stored.astype(dtype, copy=False)
    return stored.astype(dtype if dtype == np.float64 else np.float32) * slope + inter


def _place(header) -> Volume:
    """An empty volume where the header says that the voxels lie."""
    pixdim = np.abs(header["pixdim"][1:4])
    forms = header.get_sform(coded=True), header.get_qform(coded=True)
    places = [_at(header, affine) for affine, code in forms if code]
    if not places:
        return _at(header, np.diag([*pixdim, 1]) * [-1, -1, 1, 1], NO_PLACE)
    place, ways = places[0], {nearest_axes(one.direction) for one in places}
    need(len(ways) == 1, "NO_GEOMETRY", "has an sform and a qform that run in different ways")
    same = place.same_geometry(places[-1], TOLERANCE * min(place.spacing))
    sure = same and np.allclose(place.spacing[::-1], pixdim, rtol=TOLERANCE)
    return place if sure else replace(place, notes=(TWO_PLACES,))


def _at(header, affine: np.ndarray, *notes: str) -> Volume:
    """An empty volume at the place that an affine gives; NIfTI's x and y grow right and front."""
    spacing, matrix = voxel_sizes(affine), np.diag([-1, -1, 1, 1]) @ affine
    axes = matrix[:3, :3] / np.maximum(spacing, 1e-9)
    nothing = np.broadcast_to(0, header.get_data_shape()[2::-1])
    return Volume(nothing, spacing[::-1], matrix[:3, 3], axes, notes)
