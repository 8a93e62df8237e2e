"""`Volume`: voxels with the geometry that says where in the patient they lie.

Arrays are `[z, y, x]` and so is `spacing`. A point in the patient is (x, y, z) in millimetres,
x to the patient's left, y to the back, z to the head (LPS), as DICOM PS3.3 C.7.6.2.1.1 and
SimpleITK have it. SimpleITK's index order, (x, y, z), does not leave this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.errors import CourseDataError, need

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
TURNED = "turned: z, y, x grow to head, back and left"


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """A scalar image in the patient's space.

    Args:
        voxels: array `[z, y, x]` of any numeric dtype.
        spacing: distance between voxel centres in mm, `(z, y, x)`.
        origin: centre of `voxels[0, 0, 0]` in the patient, `(x, y, z)` in mm.
        direction: 3 x 3; its columns are the patient directions (unit vectors) in which the
            image's x, y and z index grows. Equal to SimpleITK's `GetDirection()`.
        notes: what was done to the voxels on the way, one sentence each.

    Raises:
        CourseDataError: `SHAPE_MISMATCH` if voxels are not three-dimensional, `NO_GEOMETRY` if
            spacing is not positive and finite or the direction is not a basis.

    >>> Volume(np.zeros((20, 256, 256), np.int16), spacing=(5, 0.9, 0.9))
    Volume(20 x 256 x 256 int16, 5 x 0.9 x 0.9 mm)

    Taught in: loading DICOM
    """

    voxels: np.ndarray
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        voxels = np.asarray(self.voxels)
        need(voxels.ndim == 3, "SHAPE_MISMATCH", f"voxels {voxels.shape}, expected [z, y, x]")
        spacing, origin = np.array(self.spacing, float), np.array(self.origin, float)
        direction = np.asarray(self.direction, float)
        shapes = spacing.shape == origin.shape == (3,) and direction.shape == (3, 3)
        finite = shapes and np.isfinite([spacing, origin, *direction]).all()
        good = finite and spacing.min() > 0 and abs(np.linalg.det(direction)) > 1e-3
        found = f"spacing {spacing}, origin {origin}, axes {direction.tolist()}"
        need(good, "NO_GEOMETRY", found)
        # A frozen dataclass is filled through object.__setattr__.
        object.__setattr__(self, "voxels", voxels)
        object.__setattr__(self, "spacing", tuple(spacing.tolist()))
        object.__setattr__(self, "origin", tuple(origin.tolist()))
        object.__setattr__(self, "direction", direction)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        spacing = " x ".join(f"{mm:g}" for mm in self.spacing)
        return f"Volume({shape} {self.voxels.dtype}, {spacing} mm)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels `(z, y, x)`."""
        return self.voxels.shape

    def to_patient(self, index: Sequence[float]) -> np.ndarray:
        """The point (x, y, z) in mm, LPS, at a (fractional) voxel index `(z, y, x)`.

        Indices may be an array `[..., 3]`; then so are the points. This is the affine mapping of
        DICOM PS3.3 C.7.6.2.1.1, with the slices' distance as its third step.

        >>> Volume(np.zeros((2, 2, 2)), (5, 2, 1), (10, 20, 30)).to_patient((1, 0, 0))
        array([10., 20., 35.])

        Taught in: loading DICOM
        """
        steps_mm = np.multiply(index, self.spacing)[..., ::-1]
        return np.asarray(self.origin) + steps_mm @ self.direction.T

    def to_index(self, point: Sequence[float]) -> np.ndarray:
        """The fractional voxel index `(z, y, x)` of a point (x, y, z) in mm, LPS.

        >>> Volume(np.zeros((2, 2, 2)), (5, 2, 1), (10, 20, 30)).to_index((10, 20, 35))
        array([1., 0., 0.])

        Taught in: no lesson; the check of masks brought back into their scan uses it
        """
        steps_mm = np.linalg.solve(self.direction, np.subtract(point, self.origin))
        return steps_mm[::-1] / self.spacing

    def with_voxels(self, voxels: np.ndarray, *notes: str) -> Volume:
        """Other voxels of the same shape, say a predicted mask, in this volume's geometry.

        Args:
            voxels: array `[z, y, x]`.
            notes: to be added.

        Raises:
            CourseDataError: `SHAPE_MISMATCH` if the shapes differ.

        Example:
            mask = scan.with_voxels(scan.voxels > 300, "bone, by a threshold")

        Taught in: segmentation with DeepLab
        """
        found = (
            f"the geometry is that of {self.shape} voxels [z, y, x], the array {np.shape(voxels)}"
        )
        need(np.shape(voxels) == self.shape, "SHAPE_MISMATCH", found)
        return dataclasses.replace(self, voxels=np.asarray(voxels), notes=self.notes + notes)

    def apart_mm(self, other: Volume) -> float:
        """How far corner voxels of both, which have one shape, lie apart along x, y, z at most.

        Example:
            image.apart_mm(mask) < 0.01

        Taught in: no lesson; `same_geometry` and the converter use it
        """
        corners = np.array(list(np.ndindex(2, 2, 2))) * np.subtract(self.shape, 1)
        return float(np.abs(self.to_patient(corners) - other.to_patient(corners)).max())

    def same_geometry(self, other: Volume, tolerance_mm: float = 1e-3) -> bool:
        """Whether every voxel of both lies at the same place, within `tolerance_mm`.

        Example:
            image.same_geometry(mask)

        Taught in: loading DICOM
        """
        return self.shape == other.shape and self.apart_mm(other) <= tolerance_mm

    def in_lps_order(self) -> Volume:
        """The same voxels, turned so that z, y, x grow to the patient's head, back and left.

        Axes are exchanged and reversed, nothing is interpolated: an oblique image stays oblique,
        with its axes near to those directions. Equal to SimpleITK's `DICOMOrient(image, "LPS")`,
        without its copies. Files differ in this, and a network that is shown left and
        right exchanged in some of them learns that they do not matter.

        Example:
            scan = volume.load("scan.nii.gz").in_lps_order()

        Taught in: loading DICOM
        """
        order, flips = nearest_axes(self.direction)
        if order == (0, 1, 2) and not any(flips):
            return self
        first = np.subtract(self.shape, 1) * np.take(flips, np.argsort(order))
        # Columns of the direction are x, y, z; axes are counted z, y, x.
        towards = self.direction[:, ::-1][:, order] * np.where(flips, -1, 1)
        voxels, spacing = turned(self.voxels, order, flips), np.take(self.spacing, order)
        notes = (*self.notes, TURNED)
        return Volume(voxels, spacing, self.to_patient(first), towards[:, ::-1], notes)

    def to_sitk(self):
        """The same image for SimpleITK (its buffer is a copy).

        SimpleITK knows neither truth values nor half precision, which become uint8 and float32,
        nor the other byte order.

        Example:
            gaussian = sitk.SmoothingRecursiveGaussian(scan.to_sitk(), 2.0)

        Taught in: loading DICOM
        """
        import SimpleITK as sitk

        instead = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}
        native = self.voxels.dtype.newbyteorder("=")
        voxels = self.voxels.astype(instead.get(native, native), copy=False)
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(self.spacing[::-1])
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction.ravel().tolist())
        return image

    @classmethod
    def from_sitk(cls, image, notes: tuple[str, ...] = ()) -> Volume:
        """A three-dimensional scalar SimpleITK image as a `Volume` (the voxels are copied).

        Raises:
            CourseDataError: `SHAPE_MISMATCH` for 2D, 4D or vector images.

        Example:
            scan = Volume.from_sitk(sitk.ReadImage("scan.nrrd"))

        Taught in: loading DICOM
        """
        import SimpleITK as sitk

        axes, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
        found = f"{axes}D with {components} values at a voxel, expected 3D with 1"
        need(axes == 3 and components == 1, "SHAPE_MISMATCH", found)
        direction = np.reshape(image.GetDirection(), (3, 3))
        voxels = sitk.GetArrayFromImage(image)
        return cls(voxels, image.GetSpacing()[::-1], image.GetOrigin(), direction, notes)

    def resample(self, spacing: float | Sequence[float], *, is_mask: bool = False) -> Volume:
        """The same field of view on another grid, through SimpleITK.

        Args:
            spacing: new spacing in mm, one number for isotropic voxels or `(z, y, x)`.
            is_mask: True keeps class ids as they are (nearest neighbour, same dtype); False
                interpolates linearly and returns float32.

        The corner of the first voxel stays where it is, so that no half voxel is lost.

        Along an axis that becomes coarser an image, never a mask, is smoothed first: whatever is
        finer than the new grid would come back as stripes that are not there. With each voxel
        taken for a Gaussian of half a spacing, and squares that add, sigma is
        `sqrt(new**2 - old**2) / 2` mm: nothing where the spacing stays, and half the new spacing
        where that is much larger, as in ITK's multi-resolution pyramids. A note says so.

        Raises:
            CourseDataError: `NO_GEOMETRY` if the spacing is not positive and finite.

        Example:
            small = scan.resample(3.0)

        Taught in: loading DICOM
        """
        new = np.broadcast_to(np.asarray(spacing, float), 3)
        good = np.isfinite(new).all() and new.min() > 0
        need(good, "NO_GEOMETRY", f"cannot resample to a spacing of {spacing} mm")
        shape = np.maximum(1, np.round(np.multiply(self.shape, self.spacing) / new)).astype(int)
        origin = self.to_patient((new / self.spacing - 1) / 2)
        grid = Volume(np.broadcast_to(np.uint8(0), shape), new, origin, self.direction)
        # Rounding the shape can put the last centre on the far edge: repeat the border there.
        return self._onto(grid, is_mask, repeat_border=True)

    def resample_like(self, reference: Volume, *, is_mask: bool = False) -> Volume:
        """This volume on the grid of another, for instance a prediction back in the scanner's.

        Args:
            reference: gives shape, spacing, origin and direction.
            is_mask: as for `resample`.

        Where the reference reaches beyond this volume, a mask is 0 and an image has its minimum.

        Example:
            in_scan = predicted.resample_like(scan, is_mask=True)

        Taught in: segmentation with DeepLab
        """
        return self._onto(reference, is_mask, repeat_border=False)

    def _onto(self, reference: Volume, is_mask: bool, repeat_border: bool) -> Volume:
        import SimpleITK as sitk

        source = self if is_mask else self._smoothed_for(reference)
        grid = dataclasses.replace(reference, voxels=np.broadcast_to(np.uint8(0), reference.shape))
        how = sitk.sitkNearestNeighbor if is_mask else sitk.sitkLinear
        kind = sitk.sitkUnknown if is_mask else sitk.sitkFloat32
        outside = 0 if is_mask else float(self.voxels.min())
        placed = (source.to_sitk(), grid.to_sitk(), sitk.Transform())
        voxels = sitk.GetArrayFromImage(sitk.Resample(*placed, how, outside, kind, repeat_border))
        if is_mask:
            voxels = voxels.astype(self.voxels.dtype, copy=False)  # SimpleITK has no truth values
        way = "nearest neighbour" if is_mask else "linear"
        note = f"resampled to {'x'.join(f'{mm:g}' for mm in reference.spacing)} mm ({way})"
        return dataclasses.replace(grid, voxels=voxels, notes=(*source.notes, note))

    def _smoothed_for(self, reference: Volume) -> Volume:
        """The volume without what the reference's grid is too coarse for."""
        from scipy import ndimage

        # The reference's squared spacing along this volume's axes, wherever its own may point.
        turn = np.square(self.direction.T @ reference.direction)
        coarser = (turn @ np.square(reference.spacing[::-1]))[::-1] / np.square(self.spacing)
        sigma = np.sqrt(np.where(coarser > 1.001, coarser - 1, 0)) / 2  # voxels
        if not sigma.any():
            return self
        voxels = ndimage.gaussian_filter(self.voxels.astype(np.float32), sigma, mode="nearest")
        sigma_mm = "x".join(f"{mm:.3g}" for mm in sigma * self.spacing)
        return self.with_voxels(voxels, f"smoothed before coarsening: sigma {sigma_mm} mm")

    def save(self, path: str | Path) -> Path:
        """Write NIfTI, NRRD or MetaImage, by the ending of the name; folders are made.

        Raises:
            CourseDataError: `UNKNOWN_FORMAT` for any other ending.

        Example:
            mask.save("results/mask.nii.gz")

        Taught in: loading DICOM
        """
        import SimpleITK as sitk

        path = _known_format(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(self.to_sitk(), str(path), useCompression=path.suffix == ".gz")
        return path


def nearest_axes(direction: np.ndarray) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """How to turn `[z, y, x]` so that its axes grow to the head, the back and the left.

    Args:
        direction: 3 x 3, as in `Volume`.

    Returns:
        For each axis of the result: the axis that it was, and whether it has to be reversed.

    >>> nearest_axes(np.diag([-1, 1, 1]))
    ((0, 1, 2), (False, False, True))

    Taught in: no lesson; `Volume.in_lps_order` and the viewer use it
    """
    import SimpleITK as sitk

    orient = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines
    letters = orient(np.ravel(direction).tolist())[::-1]  # where z, y and x grow, "SPL"
    pairs = ("SI", "PA", "LR")
    order = tuple(next(axis for axis in range(3) if letters[axis] in pair) for pair in pairs)
    return order, tuple(letters[axis] in "IAR" for axis in order)


def turned(array: np.ndarray, order: Sequence[int], flips: Sequence[bool]) -> np.ndarray:
    """`[z, y, x]` or `[z, y, x, c]`, turned as `nearest_axes` says; a view.

    >>> turned(np.arange(6).reshape(1, 2, 3), (0, 1, 2), (False, False, True)).ravel().tolist()
    [2, 1, 0, 5, 4, 3]

    Taught in: no lesson; `Volume.in_lps_order` and the viewer use it
    """
    backwards = np.flatnonzero(flips).tolist()
    return np.flip(np.transpose(array, (*order, *range(3, array.ndim))), backwards)


def load(path: str | Path) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file as a `Volume`, geometry in LPS.

    Args:
        path: a file whose name ends in .nii, .nii.gz, .nrrd or .mha.

    Raises:
        CourseDataError: `UNKNOWN_FORMAT` for another ending; for NIfTI what `nifti.read` raises;
            for the others `UNREADABLE` if SimpleITK cannot read them, `SHAPE_MISMATCH` if they
            are no 3D scalar image, `NOT_FINITE`.
        FileNotFoundError: if there is no such file.

    SimpleITK refuses NRRD and MetaImage files that are cut short, and NRRD files that are damaged;
    not, however, compressed MetaImage files that are damaged.

    Example:
        scan = volume.load("scan.nii.gz")

    Taught in: loading DICOM
    """
    from helpers import nifti

    path = _known_format(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path.name}")
    if path.name.endswith(nifti.ENDINGS):
        return nifti.read(path, "volume")[1]
    import SimpleITK as sitk

    try:
        found = Volume.from_sitk(sitk.ReadImage(str(path)))
    except (RuntimeError, CourseDataError) as error:  # SimpleITK's text may hold the path
        code = getattr(error, "code", "UNREADABLE")
        problem = getattr(error, "message", "SimpleITK cannot read it")
        raise CourseDataError(code, problem, [path]) from None
    finite = np.isfinite((found.voxels.min(), found.voxels.max())).all()
    need(finite, "NOT_FINITE", "it holds NaN or infinite values", path)
    return found


def _known_format(path: str | Path) -> Path:
    path = Path(path)
    known = path.name.endswith(SUFFIXES)
    need(known, "UNKNOWN_FORMAT", f"expected a name that ends in {', '.join(SUFFIXES)}", path)
    return path
