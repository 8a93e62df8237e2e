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

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from nibabel import Nifti1Header, aff2axcodes
from nibabel.affines import voxel_sizes
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import Opener
from psutil import virtual_memory

from helpers.errors import CourseDataError, need
from helpers.volume import Volume

# Of the smallest spacing. Half a voxel would give a voxel the wrong neighbour; what NIfTI's
# float32 loses is less than 0.001 mm half a metre away, what headers printed with six digits lose
# 0.003 mm.
TOLERANCE = 0.02
RAS_TO_LPS = np.diag([-1, -1, 1, 1])  # NIfTI's x and y grow to the right and the front
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
    with _opened(path, role) as (file, proxy, place):
        voxels = proxy.get_unscaled().T.astype(_dtype(proxy), copy=False)
        file.read()  # at the end gzip compares its checksum
        if (proxy.slope, proxy.inter) != (1, 0):
            voxels = voxels * proxy.slope + proxy.inter
        need(np.isfinite(voxels).all(), "NOT_FINITE", "holds NaN or infinite values")
    if voxels.ndim == 3:
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
    with _opened(path, role) as (_, proxy, place):
        return place.shape + proxy.shape[3:], _dtype(proxy)


@contextmanager
def _opened(path, role):
    """The file, decompressed, its voxels and their place; whatever goes wrong gets a code."""
    path = Path(path)
    try:
        need(path.name.endswith((".nii", ".nii.gz")), "UNKNOWN_FORMAT", "is no .nii or .nii.gz")
        need(path.is_file(), "UNREADABLE", "is not there, or no regular file")
        with Opener(path) as file:
            header = Nifti1Header(file.read(348), check=False)
            shape = header.get_data_shape()
            if {*shape[3:]} == {1}:  # as some tools write
                header.set_data_shape(shape[:3])
            _check(header, 4 if role == "image" else 3)
            yield file, ArrayProxy(file, header, mmap=False), _place(header)
    except Exception as error:  # a header that makes no sense may raise anything
        # nibabel says with a bare OSError that it has read too little.
        code = "TRUNCATED" if type(error) in (EOFError, OSError) else "UNREADABLE"
        code = getattr(error, "code", code)
        found = getattr(error, "message", "is damaged")
        raise CourseDataError(code, f"the {role} {found}", [path]) from None


def _check(header, most) -> None:
    """Refuse what is no 3D image of real numbers in mm, with at `most` so many axes."""
    dtype = header.get_data_dtype()
    shape = header.get_data_shape()
    need(header["magic"] == b"n+1", "UNREADABLE", "is no NIfTI-1 file with its voxels inside")
    need(header["xyzt_units"] % 8 in (0, 2), "NO_GEOMETRY", "is not measured in mm")
    need(dtype.kind in "iuf", "PIXEL_FORMAT", "holds colours or complex numbers")
    need(3 <= len(shape) <= most and min(shape) > 0, "SHAPE_MISMATCH", f"has the axes {shape}")
    claimed = np.prod(shape, dtype=float) * dtype.itemsize
    need(claimed <= virtual_memory().available, "TOO_LARGE", f"claims {claimed:.0f} bytes")


def _dtype(proxy: ArrayProxy) -> np.dtype:
    """As stored, in native byte order; float32 at least where scl_slope and scl_inter scale."""
    dtype = proxy.dtype.newbyteorder("=")
    plain = (proxy.slope, proxy.inter) == (1, 0) or dtype == np.float64
    return dtype if plain else np.dtype(np.float32)


def _place(header) -> Volume:
    """An empty volume where the header says that the voxels lie."""
    shape = header.get_data_shape()[:3]
    pixdim = np.abs(header["pixdim"][1:4])
    affine = header.get_best_affine()
    notes = ()
    if not (header["sform_code"] or header["qform_code"]):
        affine = np.diag([*pixdim, 1]) @ RAS_TO_LPS
        notes = (NO_PLACE,)
    other = header.get_qform() if header["qform_code"] else affine
    need(aff2axcodes(affine) == aff2axcodes(other), "NO_GEOMETRY", "has two forms that run apart")
    spacing = voxel_sizes(affine)
    apart_mm = np.abs(affine - other) @ [*shape, 1]
    same = np.allclose(spacing, pixdim, rtol=TOLERANCE)
    if apart_mm.max() > TOLERANCE * min(spacing) or not same:
        notes = (TWO_PLACES,)
    matrix = RAS_TO_LPS @ affine
    axes = matrix[:3, :3] / np.maximum(spacing, 1e-9)
    nothing = np.broadcast_to(0, shape[::-1])
    return Volume(nothing, spacing[::-1], matrix[:3, 3], axes, notes)
