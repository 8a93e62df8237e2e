"""Solid shapes on a voxel grid, with the blurred edges that a scanner gives them.

A shape is a function of position that is negative inside and positive outside, roughly in mm. The
share of a voxel that lies inside follows from the value at its centre and from how much the
function changes across the voxel; blending by that share is the partial volume effect.
"""

import functools
import itertools

import numpy as np
from scipy import fft


def coverage(f: np.ndarray, spacing) -> np.ndarray:
    """Share of each voxel in which `f` is negative, from 0 to 1.

    Args:
        f: float32 `[z, y, x]`, a shape's function at the voxel centres, about mm.
        spacing: mm, `(z, y, x)`.
    """
    far = sum(spacing)
    # Far from the edge slopes do not matter, and jumps there would smear.
    f = np.minimum(np.maximum(f, -far), far)
    change = np.zeros_like(f)
    for axis in range(3):  # twice the slope, from both neighbours or, at the border, from one
        here = (slice(None),) * axis
        change[(*here, slice(1, -1))] += np.abs(
            f[(*here, slice(2, None))] - f[(*here, slice(None, -2))]
        )
        change[(*here, 0)] += 2 * np.abs(f[(*here, 1)] - f[(*here, 0)])
        change[(*here, -1)] += 2 * np.abs(f[(*here, -1)] - f[(*here, -2)])
    change *= 0.5
    np.maximum(change, spacing[2], out=change)
    np.divide(f, change, out=change)
    np.subtract(0.5, change, out=change)
    return np.minimum(np.maximum(change, 0, out=change), 1, out=change)


def smooth_max(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """The intersection of two shapes with its edge rounded by about `radius` mm."""
    overlap = np.maximum(radius - np.abs(a - b), 0.0)
    return np.maximum(a, b) + overlap * overlap * (0.25 / radius)


def ellipsoid(x, y, z, centre, radii, turn=0.0, lean=0.0) -> np.ndarray:
    """Distance to an ellipsoid, exact at its surface along the shortest axis.

    Args:
        x, y, z: coordinates in mm, arrays that broadcast together.
        centre, radii: `(x, y, z)` in mm.
        turn: rotation about the z axis in radians.
        lean: sideways lean, mm of x for each mm of z.
    """
    x, y, z = (axis - np.float32(c) for axis, c in zip((x, y, z), centre, strict=True))
    x = x - lean * z
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    across, along = (c * x + s * y) / np.float32(radii[0]), (c * y - s * x) / np.float32(radii[1])
    q = np.sqrt(across**2 + along**2 + (z / np.float32(radii[2])) ** 2)
    return (q - 1) * np.float32(min(radii))


def cone(x, y, z, a, b) -> np.ndarray:
    """Distance to a rod that tapers from `a` to `b`, both `(x, y, z, radius)` in mm."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    d, px, py, pz = b - a, x - a[0], y - a[1], z - a[2]
    t = (px * d[0] + py * d[1] + pz * d[2]) / max(d[:3] @ d[:3], 1e-6)
    t = np.minimum(np.maximum(t, 0), 1)
    gap = (px - t * d[0]) ** 2 + (py - t * d[1]) ** 2 + (pz - t * d[2]) ** 2
    return np.sqrt(gap) - (a[3] + t * d[3])


def chain(x, y, z, points, radii) -> np.ndarray:
    """Distance to a chain of cones through `points` (n x 3, mm) with `radii` (n, mm)."""
    ends = itertools.pairwise(np.column_stack([points, radii]))
    return functools.reduce(np.minimum, (cone(x, y, z, a, b) for a, b in ends))


class Canvas:
    """CT numbers and organ ids on a grid, painted over shape by shape.

    Args:
        shape: voxels `(z, y, x)`.
        spacing: mm, `(z, y, x)`.
        turn: rotation of the body about its long axis in radians.
        scale: size of the body against the average, `(x, y, z)`.
        shift: place of the body's middle on the grid, `(x, y, z)` in mm.

    `x`, `y`, `z` are body coordinates in mm of the average body: x to its left, y to its back,
    z to its head, 0 in the middle. `hu` and `organs` are what has been painted so far.
    """

    def __init__(self, shape, spacing, turn, scale, shift):
        z, y, x = (
            ((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32)
            for n, mm in zip(shape, spacing, strict=True)
        )
        self.grid = z[:, None, None], y[None, :, None], x[None, None, :]
        self.spacing, self.turn, self.scale, self.shift = spacing, turn, scale, shift
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        across, back = self.grid[2] - np.float32(shift[0]), self.grid[1] - np.float32(shift[1])
        self.x = (c * across + s * back) / np.float32(scale[0])
        self.y = (c * back - s * across) / np.float32(scale[1])
        self.z = (self.grid[0] - np.float32(shift[2])) / np.float32(scale[2])
        self.warped = (self.x, self.y, self.z)
        self.hu = np.full(shape, -1000, np.float32)
        self.organs = np.zeros(shape, np.uint8)

    def warp(self, rng: np.random.Generator, size: float) -> None:
        """Bend the coordinates of soft organs by about `size` mm, smoothly."""
        bent = []
        for axis in (self.x, self.y, self.z):
            for wavelength, amplitude in ((110.0, size), (45.0, size / 4)):
                kx, ky, kz = 2 * np.pi / (wavelength * rng.uniform(0.8, 1.25, 3))
                px, py, pz = rng.uniform(0, 2 * np.pi, 3)
                plane = np.sin(kx * self.x + px) + np.sin(ky * self.y + py)
                height = np.sin(kz * self.z + pz)
                axis = axis + (0.5 * amplitude * plane).astype(np.float32) * height
            bent.append(axis.astype(np.float32))
        self.warped = tuple(bent)

    def box(self, low, high, margin=12.0):
        """Slices `(z, y, x)` of the grid that hold the body box from `low` to `high` (x, y, z)."""
        corners = np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])], float)
        corners *= self.scale[:2]
        c, s = np.cos(self.turn), np.sin(self.turn)
        x = c * corners[:, 0] - s * corners[:, 1] + self.shift[0]
        y = s * corners[:, 0] + c * corners[:, 1] + self.shift[1]
        z = np.array([low[2], high[2]]) * self.scale[2] + self.shift[2]
        slices = []
        for values, axis, mm in zip((z, y, x), self.grid, self.spacing, strict=True):
            first = int((values.min() - margin - axis.flat[0]) // mm)
            last = int((values.max() + margin - axis.flat[0]) // mm) + 2
            first = min(max(first, 0), axis.size - 3)  # three voxels: a slope needs neighbours
            slices.append(slice(first, max(last, first + 3)))
        return tuple(slices)

    def at(self, box, rigid=False):
        """Coordinates x, y, z inside a box: bent ones, or rigid ones for bones."""
        if not rigid:
            return tuple(np.broadcast_to(a, self.hu.shape)[box] for a in self.warped)
        return self.x[:, box[1], box[2]], self.y[:, box[1], box[2]], self.z[box[0]]

    def paint(self, f, hu, organ=None, box=..., within=None, edge_mm=None) -> np.ndarray:
        """Blend CT numbers into the voxels where a shape is.

        Args:
            f: the shape's function in the box.
            hu: what to paint, a number or an array of the box's shape.
            organ: id to note where more than half of a voxel is painted; None keeps ids.
            box: slices `(z, y, x)`; everything by default.
            within: share of each voxel of the whole grid that may be painted at all.
            edge_mm: width of the edge; None finds it from the shape, see `coverage`.

        Returns:
            The share of each voxel of the box that was painted.
        """
        view = self.hu[box]
        if edge_mm is None:
            share = coverage(np.broadcast_to(f, view.shape), self.spacing)
        else:
            share = np.minimum(np.maximum(0.5 - f / edge_mm, 0), 1)
        if within is not None:
            share *= within[box]
        view += share * (hu - view)
        if organ is not None:
            self.organs[box][share > 0.5] = organ
        return share

    def tube(self, points, radii, hu, organ=None, within=None) -> None:
        """Paint a chain of capsules through `points` (n x 3, body mm) with `radii` (n or one)."""
        points = np.asarray(points, np.float32)
        radii = np.broadcast_to(np.asarray(radii, np.float32), len(points))
        for k in range(0, len(points) - 1, 2):  # piece by piece, as a small box is quick
            piece, r = points[k : k + 3], radii[k : k + 3]
            box = self.box(piece.min(0) - r.max(), piece.max(0) + r.max(), self.spacing[0])
            edge = 1.5 * self.spacing[2] if r.max() < 6 else None  # a thin tube is all edge
            f = chain(*self.at(box, rigid=True), piece, r)
            self.paint(f, hu, organ, box, within, edge)


def grain(rng: np.random.Generator, shape, spacing, size_mm: float) -> np.ndarray:
    """Smooth random texture of mean 0 and deviation 1, blobs about `size_mm` wide."""
    coarse = tuple(max(4, int(n * mm / size_mm) + 2) for n, mm in zip(shape, spacing, strict=True))
    blobs = rng.standard_normal(coarse, dtype=np.float32)
    for axis, n in enumerate(shape):  # linear interpolation, one axis after the other
        place = np.linspace(0, blobs.shape[axis] - 1.001, n)
        low = place.astype(int)
        share = (place - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        blobs = np.take(blobs, low, axis) * (1 - share) + np.take(blobs, low + 1, axis) * share
    return blobs / blobs.std()


def scanner_noise(rng: np.random.Generator, shape, spacing) -> np.ndarray:
    """CT noise of deviation 1: fine grain without slow waves, with faint sideways streaks.

    Filtered back-projection passes noise in proportion to its frequency until the kernel cuts it
    off; and more of it from rays that cross the body from side to side.
    """
    nz, ny, nx = shape
    fy = np.fft.fftfreq(ny, spacing[1])[:, None]
    fx = np.fft.rfftfreq(nx, spacing[2])[None, :]
    f = np.hypot(fy, fx)
    cutoff = 0.4 / (2 * spacing[2])
    power = f * np.exp(-((f / cutoff) ** 2)) * (1 + 1.5 * (fy / np.maximum(f, 1e-9)) ** 8)
    waves = rng.standard_normal((nz, ny, fx.size, 2), dtype=np.float32).view(np.complex64)[..., 0]
    noise = fft.irfft2(waves * power.astype(np.float32), s=(ny, nx), overwrite_x=True)
    noise[1:] += 0.4 * noise[:-1]  # neighbouring slices share some of their rays
    return noise / noise.std()
