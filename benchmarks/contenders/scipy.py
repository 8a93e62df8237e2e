"""SciPy: a B-spline and an affine warp, one volume after the other or two at a time.

It lets go of the interpreter's lock, so that threads help.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from contenders import SEED, pairs


class Draw(NamedTuple):
    """What one warp is made of, in voxels and in the order z, y, x."""

    matrix: np.ndarray  # rotation and zoom about the centre, [3, 3], from output to input
    shift: np.ndarray  # [3]
    control: np.ndarray  # displacements of control points, float32 [3, gz, gy, gx]

    def offset(self, shape) -> np.ndarray:
        """What keeps the centre in its place, but for the shift."""
        centre = (np.array(shape) - 1) / 2
        return centre - self.matrix @ centre + self.shift


def draw(rng: np.random.Generator, amounts, shape) -> Draw:
    angles = rng.uniform(-amounts["degrees"], amounts["degrees"], 3)
    zooms = rng.uniform(1 - amounts["zoom"], 1 + amounts["zoom"], 3)
    shift = rng.uniform(-amounts["shift"], amounts["shift"], 3)
    points, largest = (
        [max(round(n / amounts["grid"]), 2) + 3 for n in shape],
        amounts["displacement"],
    )
    control = rng.uniform(-largest, largest, (3, *points)).astype(np.float32)
    return Draw(
        Rotation.from_euler("zyx", angles, degrees=True).as_matrix() * zooms, shift, control
    )


def places(drawn: Draw, shape) -> np.ndarray:
    """Where each voxel of the output comes from, `[3, z, y, x]` float32."""
    at = drawn.control
    for axis, n in enumerate(shape, start=1):
        cells = at.shape[axis] - 3
        middles, knots = (np.arange(n) + 0.5) * cells / n, np.arange(-3.0, cells + 4)
        weights = BSpline.design_matrix(middles, knots, 3).toarray().astype(np.float32)
        at = np.moveaxis(np.tensordot(weights, at, (1, axis)), 0, axis)
    for axis, n in enumerate(shape):
        at[axis] += np.arange(n, dtype=np.float32).reshape([-1] + [1] * (2 - axis))
    offset = drawn.offset(shape).astype(np.float32)
    return np.tensordot(drawn.matrix.astype(np.float32), at, 1) + offset[:, None, None, None]


def elastic(job, **how):
    def warped(image, mask, drawn: Draw) -> tuple[np.ndarray, np.ndarray]:
        at = places(drawn, image.shape)
        result = ndimage.map_coordinates(image, at, np.float32, order=1, mode="nearest")
        return result, ndimage.map_coordinates(mask, at, order=0, mode="nearest")

    return warps(job, warped, **how)


def affine(job, **how):
    def warped(image, mask, drawn: Draw) -> tuple[np.ndarray, np.ndarray]:
        way = {"matrix": drawn.matrix, "offset": drawn.offset(image.shape), "mode": "nearest"}
        result = ndimage.affine_transform(image, output=np.float32, order=1, **way)
        return result, ndimage.affine_transform(mask, order=0, **way)

    return warps(job, warped, **how)


def warps(job, warped, threads=1):
    """Runs that warp image and mask of the volumes in turn, another way each time."""
    volumes, sequence = pairs(job), np.random.SeedSequence(SEED)
    work_on = ThreadPoolExecutor(threads).map if threads > 1 else map

    def work(number: int, seed: np.random.SeedSequence) -> tuple[np.ndarray, np.ndarray]:
        image, mask = volumes[number % len(volumes)]
        return warped(image, mask, draw(np.random.default_rng(seed), job["amounts"], image.shape))

    return lambda count: work_on(work, range(count), sequence.spawn(count))
