"""`Volume`: voxels with the geometry that says where in the patient they lie.

Arrays are `[z, y, x]` and so is `spacing`. A point in the patient is (x, y, z) in millimetres,
x to the patient's left, y to the back, z to the head (LPS), as DICOM PS3.3 C.7.6.2.1.1 and
SimpleITK have it. SimpleITK's index order, (x, y, z), does not leave this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path

import numpy as np

from helpers.errors import CourseDataError, need

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
SMOOTHED = "smoothed before coarsening"
TURNED = "turned so that z, y, x grow to head, back and left"


@dataclass(frozen=True, eq=False)
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
            spacing is not positive, anything not finite, or axes not at right angles.

    >>> Volume(np.zeros((20, 256, 256), np.int16), spacing=(5, 0.9, 0.9))
    Volume(20 x 256 x 256 int16, 5 x 0.9 x 0.9 mm)

    Taught in: loading DICOM
    """

    voxels: np.ndarray
    spacing: tuple = (1.0, 1.0, 1.0)
    origin: tuple = (0.0, 0.0, 0.0)
    direction: np.ndarray = field(default_factory=lambda: np.eye(3))
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        voxels = np.asarray(self.voxels)
        need(voxels.ndim == 3, "SHAPE_MISMATCH", f"voxels {voxels.shape}, expected [z, y, x]")
        axes = np.reshape(self.direction, (3, 3))
        numbers = np.vstack([self.spacing, self.origin, axes], dtype=float)
        spacing, origin, *_ = map(tuple, numbers.tolist())
        square = np.allclose(axes.T @ axes, np.eye(3), atol=1e-3)
        finite = np.isfinite(numbers).all()
        possible = square and finite and min(spacing) > 0
        need(possible, "NO_GEOMETRY", f"spacing, origin and axes are {numbers.tolist()}")
        # Nothing can be assigned to a frozen dataclass.
        vars(self).update(voxels=voxels, spacing=spacing, origin=origin, direction=numbers[2:])

    def __repr__(self) -> str:
        return f"Volume({_by(self.shape)} {self.voxels.dtype}, {_by(self.spacing)} mm)"

    @property
    def shape(self) -> tuple:
        """Number of voxels `(z, y, x)`."""
        return self.voxels.shape

    def to_patient(self, index: Sequence) -> np.ndarray:
        """The point (x, y, z) in mm, LPS, at a (fractional) voxel index `(z, y, x)`.

        Indices may be an array `[..., 3]`; then so are the points. This is the affine mapping of
        DICOM PS3.3 C.7.6.2.1.1, with the slices' distance as its third step.

        >>> Volume(np.zeros((2, 2, 2)), (5, 2, 1), (10, 20, 30)).to_patient((1, 0, 0))
        array([10., 20., 35.])

        Taught in: loading DICOM
        """
        steps_mm = np.multiply(index, self.spacing)[..., ::-1]
        return self.origin + steps_mm @ self.direction.T

    def to_index(self, point: Sequence) -> np.ndarray:
        """The fractional voxel index `(z, y, x)` of a point (x, y, z) in mm, LPS.

        >>> Volume(np.zeros((2, 2, 2)), (5, 2, 1), (10, 20, 30)).to_index((10, 20, 35))
        array([1., 0., 0.])

        Taught in: no lesson; the check of masks brought back into their scan uses it
        """
        steps_mm = np.subtract(point, self.origin) @ self.direction
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
        found = f"{np.shape(voxels)} voxels, not {self.shape}"
        need(np.shape(voxels) == self.shape, "SHAPE_MISMATCH", found)
        return replace(self, voxels=voxels, notes=self.notes + notes)

    def same_geometry(self, other: Volume, tolerance_mm: float = 1e-3) -> bool:
        """Whether every voxel of both lies at the same place, within `tolerance_mm` along x, y, z.

        Example:
            image.same_geometry(mask)

        Taught in: loading DICOM
        """
        if self.shape != other.shape:
            return False
        corners = [*np.ndindex(2, 2, 2)] * np.subtract(self.shape, 1)
        apart_mm = self.to_patient(corners) - other.to_patient(corners)
        return bool(np.abs(apart_mm).max() <= tolerance_mm)

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
        voxels = turned(self.voxels, order, flips)
        spacing = np.take(self.spacing, order)
        first = np.zeros(3)  # the index that its first voxel has here
        first[[*order]] = np.subtract(voxels.shape, 1) * flips
        origin = self.to_patient(first)
        # Columns of a direction are x, y, z; axes are counted z, y, x.
        axes = self.direction[:, ::-1][:, order] * np.where(flips, -1, 1)
        notes = self.notes
        if order != (0, 1, 2) or any(flips):
            notes += (TURNED,)
        return Volume(voxels, spacing, origin, axes[:, ::-1], notes)

    def to_sitk(self):
        """The same image for SimpleITK (its buffer is a copy).

        SimpleITK knows no truth values: they become uint8.

        Example:
            gaussian = sitk.SmoothingRecursiveGaussian(scan.to_sitk(), 2.0)

        Taught in: loading DICOM
        """
        import SimpleITK as sitk

        voxels = self.voxels
        if voxels.dtype == bool:
            voxels = voxels.view(np.uint8)
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(self.spacing[::-1])
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction.ravel())
        return image

    @classmethod
    def from_sitk(cls, image) -> Volume:
        """A three-dimensional scalar SimpleITK image as a `Volume` (the voxels are copied).

        Raises:
            CourseDataError: `SHAPE_MISMATCH` for 2D, 4D or vector images.

        Example:
            scan = Volume.from_sitk(sitk.ReadImage("scan.nrrd"))

        Taught in: loading DICOM
        """
        import SimpleITK as sitk

        need(image.GetDimension() == 3, "SHAPE_MISMATCH", "an image that is not 3D")
        voxels = sitk.GetArrayFromImage(image)
        return cls(voxels, image.GetSpacing()[::-1], image.GetOrigin(), image.GetDirection())

    def resample(self, spacing: float | Sequence, *, is_mask: bool = False) -> Volume:
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

        Example:
            small = scan.resample(3.0)

        Taught in: loading DICOM
        """
        spacing = np.broadcast_to(spacing, 3)
        scale = spacing / self.spacing
        shape = np.maximum(1, np.round(self.shape / scale))
        blank = np.broadcast_to(np.uint8(0), shape.astype(int))
        origin = self.to_patient((scale - 1) / 2)
        grid = Volume(blank, spacing, origin, self.direction)
        # Rounding the shape can put the last centre on the far edge: repeat the border there.
        return self.resample_like(grid, is_mask=is_mask, repeat_border=True)

    def resample_like(
        self, reference: Volume, *, is_mask: bool = False, repeat_border: bool = False
    ) -> Volume:
        """This volume on the grid of another, for instance a prediction back in the scanner's.

        Args:
            reference: gives shape, spacing, origin and direction.
            is_mask: as for `resample`.
            repeat_border: what is where the reference reaches beyond this volume: True repeats
                the voxels of its border; False gives 0 in a mask, and in an image its minimum.

        Example:
            in_scan = predicted.resample_like(scan, is_mask=True)

        Taught in: segmentation with DeepLab
        """
        import SimpleITK as sitk

        source, how, outside = self, sitk.sitkNearestNeighbor, 0
        if not is_mask:
            source, how = self._smoothed_for(reference), sitk.sitkLinear
            outside = float(self.voxels.min())
        resampler = sitk.ResampleImageFilter()
        resampler.SetReferenceImage(reference.to_sitk())
        resampler.SetInterpolator(how)
        resampler.SetDefaultPixelValue(outside)
        resampler.SetUseNearestNeighborExtrapolator(repeat_border)
        voxels = sitk.GetArrayFromImage(resampler.Execute(source.to_sitk()))
        if source.voxels.dtype == bool:
            voxels = voxels.view(bool)
        note = f"resampled to {_by(reference.spacing)} mm"
        return replace(reference, voxels=voxels, notes=(*source.notes, note))

    def _smoothed_for(self, grid: Volume) -> Volume:
        """The volume in float32, without what a grid is too coarse for."""
        from scipy import ndimage

        # How far the grid's steps go along this volume's axes, wherever its own may point.
        steps_mm = (grid.to_patient(np.eye(3)) - grid.origin) @ self.direction
        lengths_mm = np.linalg.norm(steps_mm, axis=0)[::-1]
        coarser = lengths_mm / self.spacing
        sigma = np.sqrt(np.maximum(coarser**2 - 1.001, 0)) / 2  # voxels
        smooth = ndimage.gaussian_filter(self.voxels, sigma, output=np.float32, mode="nearest")
        notes = [SMOOTHED] if sigma.any() else []
        return self.with_voxels(smooth, *notes)

    def save(self, path: str | Path) -> Path:
        """Write NIfTI, NRRD or MetaImage, by the ending of the name; folders are made.

        Raises:
            CourseDataError: `UNKNOWN_FORMAT` for any other ending.

        Example:
            mask.save("results/mask.nii.gz")

        Taught in: loading DICOM
        """
        import SimpleITK as sitk

        path = _known(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(self.to_sitk(), str(path))
        return path


def nearest_axes(direction: np.ndarray) -> tuple:
    """How to turn `[z, y, x]` so that its axes grow to the head, the back and the left.

    Args:
        direction: 3 x 3, as in `Volume`.

    Returns:
        For each axis of the result: the axis that it was, and whether it has to be reversed.

    >>> nearest_axes(np.diag([-1, 1, 1]))
    ((0, 1, 2), (False, False, True))

    Taught in: no lesson; `Volume.in_lps_order` and the viewer use it
    """
    # Rows are the axes z, y, x; columns say how far they go to the head, the back, the left.
    towards = np.asarray(direction)[::-1, ::-1].T
    near = np.abs(towards)
    order = max(permutations(range(3)), key=lambda order: near[order, range(3)].sum())
    flips = towards[order, range(3)] < 0
    return order, tuple(flips.tolist())


def turned(array: np.ndarray, order, flips) -> np.ndarray:
    """An `array` `[z, y, x]` or `[z, y, x, c]`, turned by `order` and `flips`; a view.

    `nearest_axes` gives the two: which axis comes where, and which are reversed.

    >>> turned(np.arange(6).reshape(1, 2, 3), (0, 1, 2), (False, False, True)).ravel().tolist()
    [2, 1, 0, 5, 4, 3]

    Taught in: no lesson; `Volume.in_lps_order` and the viewer use it
    """
    upright = np.moveaxis(array, order, range(3))
    return np.flip(upright, np.flatnonzero(flips))


def load(path: str | Path) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file as a `Volume`, geometry in LPS.

    Args:
        path: a file whose name ends in .nii, .nii.gz, .nrrd or .mha.

    Raises:
        CourseDataError: `UNKNOWN_FORMAT` for another ending; for NIfTI what `nifti.read` raises;
            for the others `UNREADABLE` if SimpleITK cannot read them, as where there is no such
            file, `SHAPE_MISMATCH` if they are no 3D scalar image, `NOT_FINITE`.

    SimpleITK refuses NRRD and MetaImage files that are cut short, and NRRD files that are damaged;
    not, however, compressed MetaImage files that are damaged.

    Example:
        scan = volume.load("scan.nii.gz")

    Taught in: loading DICOM
    """
    import SimpleITK as sitk

    from helpers import nifti

    path = _known(path)
    if ".nii" in path.suffixes:
        return nifti.read(path, "volume")[1]
    try:
        found = Volume.from_sitk(sitk.ReadImage(str(path)))
    except RuntimeError:  # its text may hold the path
        raise CourseDataError("UNREADABLE", "SimpleITK cannot read it", [path]) from None
    finite = np.isfinite(found.voxels).all()
    need(finite, "NOT_FINITE", "it holds NaN or infinite values", path)
    return found


def _known(path) -> Path:
    good = str(path).endswith(SUFFIXES)
    need(good, "UNKNOWN_FORMAT", f"expected a name that ends in {', '.join(SUFFIXES)}", path)
    return Path(path)


def _by(sizes) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
