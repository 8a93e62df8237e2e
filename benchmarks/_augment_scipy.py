"""SciPy and SimpleITK in the augmentation benchmark, and plain copies of crops with NumPy.

`job["style"]`: "plain" one volume after the other; "threads" two at a time, as SciPy lets go of the
interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from _augment_inputs import load
from scipy import ndimage
from scipy.spatial.transform import Rotation

SEED = 1


class Draw(NamedTuple):
    """What one warp is made of, in voxels and in the order z, y, x.

    Args:
        matrix: rotation and zoom about the centre, `[3, 3]`, from output to input.
        shift: `[3]`.
        control: displacements of control points, float32 `[3, gz, gy, gx]`.
    """

    matrix: np.ndarray
    shift: np.ndarray
    control: np.ndarray


def draw(rng: np.random.Generator, amounts: Mapping[str, float], shape: tuple[int, ...]) -> Draw:
    angles = rng.uniform(-amounts["degrees"], amounts["degrees"], 3)
    zooms = rng.uniform(1 - amounts["zoom"], 1 + amounts["zoom"], 3)
    shift = rng.uniform(-amounts["shift"], amounts["shift"], 3)
    points = [max(round(n / amounts["grid"]), 2) + 3 for n in shape]
    largest = amounts["displacement"]
    control = rng.uniform(-largest, largest, (3, *points)).astype(np.float32)
    matrix = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() * zooms
    return Draw(matrix, shift, control)


def offset_of(drawn: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """What keeps the centre in its place, but for the shift."""
    centre = (np.array(shape) - 1) / 2
    return centre - drawn.matrix @ centre + drawn.shift


def upsampled(control: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A cubic B-spline through one axis after the other, `[3, z, y, x]` float32."""
    field = control
    for axis, n in enumerate(shape, start=1):
        cells = field.shape[axis] - 3
        at = 1 + (np.arange(n) + 0.5) * cells / n
        left = np.floor(at).astype(int)
        t = (at - left)[:, None]
        weights = np.concatenate(
            [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3], axis=1
        )
        spread = np.zeros((n, cells + 3))
        for k in range(4):
            spread[np.arange(n), left - 1 + k] = weights[:, k] / 6
        field = np.moveaxis(np.tensordot(spread.astype(np.float32), field, (1, axis)), 0, axis)
    return field


def positions(drawn: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """Where each voxel of the output comes from, `[3, z, y, x]` float32."""
    at = upsampled(drawn.control, shape)
    for axis, n in enumerate(shape):
        at[axis] += np.arange(n, dtype=np.float32).reshape([-1] + [1] * (2 - axis))
    offset = offset_of(drawn, shape).astype(np.float32)
    return np.tensordot(drawn.matrix.astype(np.float32), at, 1) + offset[:, None, None, None]


def elastic(image: np.ndarray, mask: np.ndarray, drawn: Draw) -> tuple[np.ndarray, np.ndarray]:
    at = positions(drawn, image.shape)
    warped = ndimage.map_coordinates(image, at, np.float32, order=1, mode="nearest")
    return warped, ndimage.map_coordinates(mask, at, order=0, mode="nearest")


def affine(image: np.ndarray, mask: np.ndarray, drawn: Draw) -> tuple[np.ndarray, np.ndarray]:
    how = {"matrix": drawn.matrix, "offset": offset_of(drawn, image.shape), "mode": "nearest"}
    warped = ndimage.affine_transform(image, output=np.float32, order=1, **how)
    return warped, ndimage.affine_transform(mask, order=0, **how)


def simpleitk(image: np.ndarray, mask: np.ndarray, drawn: Draw) -> tuple[np.ndarray, np.ndarray]:
    """A B-spline and then an affine transform; the way is computed once for image and mask."""
    picture, labels = sitk.GetImageFromArray(image), sitk.GetImageFromArray(mask)
    turn = sitk.AffineTransform(3)
    turn.SetMatrix(drawn.matrix[::-1, ::-1].ravel().tolist())
    turn.SetTranslation(drawn.shift[::-1].tolist())
    turn.SetCenter([(n - 1) / 2 for n in picture.GetSize()])
    cells = [n - 3 for n in drawn.control.shape[:0:-1]]
    spline = sitk.BSplineTransformInitializer(picture, cells)
    spline.SetParameters(drawn.control[::-1].ravel().tolist())
    both = sitk.CompositeTransform([turn, spline])  # the last one is the first to act
    way = sitk.TransformToDisplacementField(both, sitk.sitkVectorFloat64, picture.GetSize())
    once, fill = sitk.DisplacementFieldTransform(way), float(image.min())
    warped = sitk.Resample(picture, picture, once, sitk.sitkLinear, fill, sitk.sitkFloat32)
    moved = sitk.Resample(labels, labels, once, sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(warped), sitk.GetArrayFromImage(moved)


def copied(image: np.ndarray, mask: np.ndarray, drawn: Draw) -> tuple[np.ndarray, np.ndarray]:
    """The floor: nothing moves, but the image becomes float32 and both are new."""
    return image.astype(np.float32), mask.copy()


def passes(job: Mapping, function: Callable):
    volumes = [load(job, i) for i in range(job["volumes"])]
    sequence = np.random.SeedSequence(SEED)
    pool = ThreadPoolExecutor(2) if "threads" in job["style"] else None

    def work(number: int, seed: np.random.SeedSequence) -> tuple[np.ndarray, np.ndarray]:
        image, mask = volumes[number % len(volumes)]
        drawn = None
        if function is not copied:
            drawn = draw(np.random.default_rng(seed), job["amounts"], image.shape)
        return function(image, mask, drawn)

    def run(count: int) -> Iterator[tuple[np.ndarray, ...]]:
        seeds = sequence.spawn(count)  # others each time
        yield from (pool.map if pool else map)(work, range(count), seeds)

    return run


def crops(job: Mapping, fields: int, warm: bool):
    """What a crop comes down to: the bytes of uniformly placed boxes, put into one array."""
    sources = [load(job, i)[:fields] for i in range(job["volumes"])]
    number, size = job["crops"], tuple(job["crop"])
    rng, room = np.random.default_rng(SEED), np.subtract(job["whole"], size) + 1
    kept = [np.empty((number, *size), array.dtype) for array in sources[0]]

    def run(count: int) -> Iterator[tuple[np.ndarray, ...]]:
        for turn in range(count):
            arrays = sources[turn % len(sources)]
            out = kept if warm else [np.empty_like(array) for array in kept]
            for i, start in enumerate(rng.integers(0, room, (number, len(size)))):
                box = tuple(map(slice, start, start + size))
                for array, into in zip(arrays, out, strict=True):
                    into[i] = array[box]
            yield tuple(out)

    return run


def contenders(job: Mapping) -> dict:
    return {
        "elastic": lambda: passes(job, elastic),
        "affine": lambda: passes(job, affine),
        "SimpleITK": lambda: passes(job, simpleitk),
        "copied": lambda: passes(job, copied),
        "crops, fresh": lambda: crops(job, 1, warm=False),
        "crops, warm": lambda: crops(job, 1, warm=True),
        "crops of pairs, fresh": lambda: crops(job, 2, warm=False),
        "crops of pairs, warm": lambda: crops(job, 2, warm=True),
    }
