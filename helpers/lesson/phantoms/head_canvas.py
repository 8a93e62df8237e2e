"""Tools to paint a head: tissue ids, the patient's frame bent from head to head, a few shapes.

The frame is that of the patient: x to the left, y to the back, z to the head, in mm, with its
zero between the ventricles. Shapes are functions of position, negative inside, about mm.
"""

import dataclasses
import itertools

import numpy as np

from helpers.lesson.phantoms.noise import smooth_noise
from helpers.lesson.phantoms.shapes import cone

_NAMES = (
    "air", "soft tissue", "fat", "bone", "marrow", "csf", "grey matter",
    "white matter", "deep grey matter", "ventricle", "eye", "lens", "mucosa", "brainstem",
)  # fmt: skip
TISSUES = {name: number for number, name in enumerate(_NAMES)}
REACH_MM = 150.0


@dataclasses.dataclass(frozen=True)
class Build:
    """What differs from head to head.

    Args:
        size: scale of the whole head, 1 = average.
        ventricles: scale of the ventricles' width, 1 = young adult.
        atrophy_mm: how far sulci and fissures gape beyond a young adult's.
    """

    size: float = 1.0
    ventricles: float = 1.0
    atrophy_mm: float = 0.0


class Canvas:
    """A tissue map and the warped coordinates of its voxels, painted shape by shape."""

    def __init__(self, rng: np.random.Generator, axes: list[np.ndarray], size: float) -> None:
        self.axes = [np.asarray(a, np.float32) / size for a in axes]
        grid = np.broadcast_arrays(*np.ix_(*self.axes))
        tilt = rng.normal(0, 0.03, (3, 3)).astype(np.float32)
        stretch = rng.normal(1, 0.025, 3).astype(np.float32)
        warped = []
        for d in range(3):
            field = smooth_noise(rng, self.axes, 45, REACH_MM)
            field *= 1.6
            field += grid[d] * stretch[d]
            for other in range(3):
                if other != d:
                    field += grid[other] * tilt[d, other]
            warped.append(field)
        self.z, self.y, self.x = warped
        self.tissue = np.zeros(self.z.shape, np.uint8)

    def box(self, centre: tuple, radii: tuple) -> tuple[slice, ...]:
        """The slices `[z, y, x]` that hold a shape of these `(x, y, z)`, with room for the warp."""
        slices = []
        for axis, c, r in zip(self.axes, centre[::-1], radii[::-1], strict=True):
            reach = r * 1.1 + 0.12 * np.abs(centre).max() + 9
            inside = np.flatnonzero(np.abs(axis - c) <= reach)
            slices.append(slice(inside[0], inside[-1] + 1) if inside.size else slice(0, 0))
        return tuple(slices)

    def axes_of(self, box: tuple[slice, ...]) -> list[np.ndarray]:
        """Unbent coordinates along z, y and x of a box."""
        return [axis[part] for axis, part in zip(self.axes, box, strict=True)]

    def at(self, box: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates (x, y, z) in a box."""
        return self.x[box], self.y[box], self.z[box]

    def paint(self, box: tuple[slice, ...], inside: np.ndarray, name: str) -> None:
        """Give the voxels of a box that are `inside` to a tissue."""
        self.tissue[box][inside] = TISSUES[name]

    def ellipsoid(self, name: str, centre: tuple, radii: tuple, paired: bool = False) -> None:
        """Paint an ellipsoid of centre and radii `(x, y, z)`, if paired on both sides."""
        for side in (1, -1) if paired else (1,):
            mirrored = (centre[0] * side, *centre[1:])
            box = self.box(mirrored, radii)
            self.paint(box, ellipsoid_mm(*self.at(box), mirrored, radii) < 0, name)

    def tube(self, name: str, nodes: np.ndarray, paired: bool = False) -> None:
        """Paint cones through rows of (x, y, z, radius), if paired on both sides."""
        for side in (1, -1) if paired else (1,):
            for start, stop in itertools.pairwise(nodes):
                a, b = start * (side, 1, 1, 1), stop * (side, 1, 1, 1)
                middle = (a[:3] + b[:3]) / 2
                half = np.abs(a[:3] - b[:3]) / 2 + max(a[3], b[3])
                box = self.box(tuple(middle), tuple(half))
                self.paint(box, cone(*self.at(box), a, b) < 0, name)


def ellipsoid_mm(x, y, z, centre, radii):
    """First-order distance in mm to an ellipsoid, negative inside."""
    squared, slope = 0, 1e-9
    for v, c, r in zip((x, y, z), centre, radii, strict=True):
        u = v - c
        u *= u
        u *= r**-2
        squared = squared + u
        u *= r**-2
        slope = slope + u
    radius = np.sqrt(squared)
    squared -= radius
    squared /= np.sqrt(slope, out=slope)
    return squared


def union_mm(a, b, blend_mm):
    """Smooth minimum: the seam of two shapes is rounded over `blend_mm`."""
    h = a - b
    np.abs(h, out=h)
    np.subtract(blend_mm, h, out=h)
    np.maximum(h, 0, out=h)
    h *= h
    h *= 0.25 / blend_mm
    return np.subtract(np.minimum(a, b), h, out=h)
