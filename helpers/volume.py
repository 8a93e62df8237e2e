"""`Volume`: voxels with the geometry that says where in the patient they lie.

Arrays are `[z, y, x]` and so is `spacing`. A point in the patient is (x, y, z) in millimetres,
x to the patient's left, y to the back, z to the head (LPS), as DICOM PS3.3 C.7.6.2.1.1 and
SimpleITK have it. SimpleITK's index order, (x, y, z), does not leave this module.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.errors import CourseDataError

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")


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
    """

    voxels: np.ndarray
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        voxels = np.asarray(self.voxels)
        if voxels.ndim != 3:
            raise CourseDataError(
                "SHAPE_MISMATCH", f"a volume is [z, y, x]; these voxels are {voxels.shape}"
            )
        spacing = tuple(float(mm) for mm in self.spacing)
        origin = tuple(float(mm) for mm in self.origin)
        direction = np.asarray(self.direction, float)
        if len(spacing) != 3 or not all(math.isfinite(mm) and mm > 0 for mm in spacing):
            raise CourseDataError(
                "NO_GEOMETRY", f"spacing (z, y, x) must be three positive lengths, not {spacing}"
            )
        if len(origin) != 3 or not all(map(math.isfinite, origin)):
            raise CourseDataError(
                "NO_GEOMETRY", f"origin (x, y, z) must be three finite lengths, not {origin}"
            )
        basis = direction.size == 9 and np.isfinite(direction).all()
        if not basis or abs(np.linalg.det(direction.reshape(3, 3))) < 1e-3:
            raise CourseDataError("NO_GEOMETRY", f"direction is not a basis: {direction.tolist()}")
        direction = direction.reshape(3, 3)
        # A frozen dataclass is filled through object.__setattr__.
        geometry = {"spacing": spacing, "origin": origin, "direction": direction}
        for name, value in {"voxels": voxels, **geometry}.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in self.voxels.shape)
        spacing = " x ".join(f"{mm:g}" for mm in self.spacing)
        return f"Volume({shape} {self.voxels.dtype}, {spacing} mm)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels `(z, y, x)`."""
        return self.voxels.shape

    def to_patient(self, index: Sequence[float]) -> np.ndarray:
        """The point (x, y, z) in mm, LPS, at a (fractional) voxel index `(z, y, x)`."""
        steps_mm = np.multiply(index, self.spacing)[::-1]
        return np.asarray(self.origin) + self.direction @ steps_mm

    def to_index(self, point: Sequence[float]) -> np.ndarray:
        """The fractional voxel index `(z, y, x)` of a point (x, y, z) in mm, LPS."""
        steps_mm = np.linalg.solve(self.direction, np.subtract(point, self.origin))
        return steps_mm[::-1] / self.spacing

    def with_voxels(self, voxels: np.ndarray, *notes: str) -> Volume:
        """Other voxels of the same shape, say a predicted mask, in this volume's geometry.

        Raises:
            CourseDataError: `SHAPE_MISMATCH` if the shapes differ.
        """
        if np.shape(voxels) != self.shape:
            raise CourseDataError(
                "SHAPE_MISMATCH",
                f"the geometry is that of {self.shape} voxels [z, y, x], the array has "
                f"{np.shape(voxels)}; resample it first",
            )
        return dataclasses.replace(self, voxels=np.asarray(voxels), notes=self.notes + notes)

    def same_geometry(self, other: Volume, tolerance_mm: float = 1e-3) -> bool:
        """Whether every voxel of both lies at the same place, within `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in self.shape]), -1).reshape(-1, 3)
        return all(
            np.abs(self.to_patient(c) - other.to_patient(c)).max() <= tolerance_mm for c in corners
        )

    def in_lps_order(self) -> Volume:
        """The same voxels, turned so that z, y, x grow to the patient's head, back and left.

        Axes are exchanged and reversed, nothing is interpolated: an oblique image stays oblique,
        with its axes as near to those directions as they can be. Equal to SimpleITK's
        `DICOMOrient(image, "LPS")`. Files differ in this, and a network that is shown left and
        right exchanged in some of them learns that they do not matter.
        """
        order, flips = nearest_axes(self.direction)
        if order == (0, 1, 2) and not any(flips):
            return self
        ends = zip(order, flips, strict=True)
        first = dict.fromkeys(range(3), 0) | {
            axis: self.shape[axis] - 1 for axis, flip in ends if flip
        }
        signs = np.where(flips, -1, 1)
        return dataclasses.replace(
            self,
            voxels=turned(self.voxels, order, flips),
            spacing=tuple(self.spacing[axis] for axis in order),
            origin=tuple(self.to_patient([first[axis] for axis in range(3)])),
            # Columns of the direction are x, y, z; axes are counted z, y, x.
            direction=(self.direction[:, ::-1][:, list(order)] * signs)[:, ::-1],
            notes=(*self.notes, "turned: z, y, x grow to head, back and left"),
        )

    def to_sitk(self):
        """The same image for SimpleITK (its buffer is a copy)."""
        import SimpleITK as sitk

        # SimpleITK knows neither truth values nor half precision, nor the other byte order.
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
        """
        import SimpleITK as sitk

        components = image.GetNumberOfComponentsPerPixel()
        if image.GetDimension() != 3 or components != 1:
            raise CourseDataError(
                "SHAPE_MISMATCH",
                f"expected one value at each voxel of a 3D image, found {image.GetDimension()}D "
                f"with {components} components; extract one volume first",
            )
        return cls(
            sitk.GetArrayFromImage(image),
            image.GetSpacing()[::-1],
            image.GetOrigin(),
            np.reshape(image.GetDirection(), (3, 3)),
            notes,
        )

    def resample(self, spacing: float | Sequence[float], *, is_mask: bool = False) -> Volume:
        """The same field of view on another grid, through SimpleITK.

        Args:
            spacing: new spacing in mm, one number for isotropic voxels or `(z, y, x)`.
            is_mask: True keeps class ids as they are (nearest neighbour, same dtype); False
                interpolates linearly and returns float32.

        The corner of the first voxel stays where it is, so that no half voxel is lost.

        Raises:
            CourseDataError: `NO_GEOMETRY` if the spacing is not positive and finite.
        """
        new_spacing = np.broadcast_to(np.asarray(spacing, float), 3)
        if not (np.isfinite(new_spacing).all() and (new_spacing > 0).all()):
            raise CourseDataError("NO_GEOMETRY", f"cannot resample to a spacing of {spacing} mm")
        extent_mm = np.multiply(self.shape, self.spacing)
        shape = np.maximum(1, np.round(extent_mm / new_spacing)).astype(int)
        half_voxel = (new_spacing / self.spacing - 1) / 2
        grid = Volume(
            np.empty(shape, np.uint8), new_spacing, self.to_patient(half_voxel), self.direction
        )
        # Rounding the shape can put the last centre on the far edge: repeat the border there.
        return self._onto(grid, is_mask, repeat_border=True)

    def resample_like(self, reference: Volume, *, is_mask: bool = False) -> Volume:
        """This volume on the grid of another, for instance a prediction back in the scanner's.

        Args:
            reference: gives shape, spacing, origin and direction.
            is_mask: as for `resample`.

        Where the reference reaches beyond this volume, a mask is 0 and an image has its minimum.
        """
        return self._onto(reference, is_mask, repeat_border=False)

    def _onto(self, reference: Volume, is_mask: bool, repeat_border: bool) -> Volume:
        import SimpleITK as sitk

        to_size = tuple(int(n) for n in reference.shape[::-1])
        interpolator = sitk.sitkNearestNeighbor if is_mask else sitk.sitkLinear
        pixel_type = sitk.sitkUnknown if is_mask else sitk.sitkFloat32
        resampler = sitk.ResampleImageFilter()
        resampler.SetSize(to_size)
        resampler.SetOutputSpacing(reference.spacing[::-1])
        resampler.SetOutputOrigin(reference.origin)
        resampler.SetOutputDirection(reference.direction.ravel().tolist())
        resampler.SetInterpolator(interpolator)
        resampler.SetOutputPixelType(pixel_type)
        resampler.SetDefaultPixelValue(0 if is_mask else float(self.voxels.min()))
        resampler.SetUseNearestNeighborExtrapolator(repeat_border)
        way = "nearest neighbour" if is_mask else "linear"
        note = f"resampled to {'x'.join(f'{mm:g}' for mm in reference.spacing)} mm ({way})"
        return Volume.from_sitk(resampler.Execute(self.to_sitk()), (*self.notes, note))

    def save(self, path: str | Path) -> Path:
        """Write NIfTI, NRRD or MetaImage, by the ending of the name; folders are made.

        Raises:
            CourseDataError: `UNKNOWN_FORMAT` for any other ending.
        """
        import SimpleITK as sitk

        path = _known_format(Path(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(self.to_sitk(), str(path), useCompression=path.suffix == ".gz")
        return path


def nearest_axes(direction: np.ndarray) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """How to turn `[z, y, x]` so that its axes grow to the head, the back and the left.

    Args:
        direction: 3 x 3, as in `Volume`.

    Returns:
        For each axis of the result: the axis that it was, and whether it has to be reversed.
    """
    # Row i of `towards` is the patient direction in which axis i of [z, y, x] grows.
    towards = np.asarray(direction).T[::-1]
    components = np.abs(towards[:, ::-1])  # columns S, P, L, so that they match z, y, x
    order = max(
        itertools.permutations(range(3)),
        key=lambda order: sum(components[source, axis] for axis, source in enumerate(order)),
    )
    return order, tuple(bool(towards[source, 2 - axis] < 0) for axis, source in enumerate(order))


def turned(array: np.ndarray, order: Sequence[int], flips: Sequence[bool]) -> np.ndarray:
    """`[z, y, x]` or `[z, y, x, c]`, turned as `nearest_axes` says; a view."""
    rest = range(3, array.ndim)
    return np.transpose(array, (*order, *rest))[
        tuple(slice(None, None, -1 if f else 1) for f in flips)
    ]


def load(path: str | Path) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file as a `Volume`, geometry in LPS.

    Raises:
        CourseDataError: `UNKNOWN_FORMAT` for another ending, `UNREADABLE` if SimpleITK cannot
            read the file, `SHAPE_MISMATCH` if it is not a 3D scalar image.
        FileNotFoundError: if there is no such file.
    """
    import SimpleITK as sitk

    path = _known_format(Path(path))
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path.name}")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        lines = str(error).replace(str(path), path.name).strip().splitlines()
        reason = lines[-1] if lines else "no reason given"
        raise CourseDataError(
            "UNREADABLE", f"{path.name} cannot be read: {reason}", [path]
        ) from error
    try:
        return Volume.from_sitk(image)
    except CourseDataError as error:
        raise CourseDataError(error.code, error.message, [path]) from None


def _known_format(path: Path) -> Path:
    if not path.name.endswith(SUFFIXES):
        raise CourseDataError(
            "UNKNOWN_FORMAT",
            f"{path.name}: expected a name ending in {', '.join(SUFFIXES)}",
            [path],
        )
    return path
