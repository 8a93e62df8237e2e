"""Check of notebook 06: a predicted mask back in the geometry of its scan."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import SimpleITK as sitk

from helpers.lesson.checks.answers import Wrong, check
from helpers.volume import Volume

DIRECTIONS = (
    np.eye(3),
    np.diag([-1.0, -1.0, 1.0]),
    np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]),
)
KINDS = (([0, 1], np.uint8), ([0, 1, 3], np.int64), ([0, 2, 5], np.uint8))


def predictions(rng: np.random.Generator) -> Iterator[tuple]:
    """Class ids in blocks, their grid, and the scan; from the third on the grid is a part.

    No centre of a voxel lies halfway between two of the grid, where either is the nearest.
    """
    for n in range(9):
        scan = Volume(
            rng.integers(-1000, 1500, rng.integers((9, 15, 20), (13, 19, 25)), dtype=np.int16),
            (float(rng.choice([2.51, 3.02, 4.03])), *[float(rng.choice([0.71, 0.93, 1.12]))] * 2),
            tuple(rng.uniform(5, 60, 3) * rng.choice([-1, 1], 3)),
            DIRECTIONS[n % 3],
        )
        grid = scan.resample((1.93, 1.37, 1.37) if n % 2 else (2.17, 0.83, 0.83))
        if n > 1:
            start = rng.integers(2, np.array(grid.shape) // 4 + 2)
            ends = start + np.maximum(np.array(grid.shape) // 2, 5)
            part = tuple(map(slice, start, ends))
            origin = tuple(grid.to_patient(start))
            grid = dataclasses.replace(grid, voxels=grid.voxels[part], origin=origin)
        known, dtype = KINDS[n % 3]
        blocks = rng.choice(known, -(-np.array(grid.shape) // 3))
        ids = np.kron(blocks, np.ones((3, 3, 3), int))[tuple(map(slice, grid.shape))]
        if n == 8:
            ids = np.where(ids == 0, known[1], ids)  # no background: the outside still is
        yield ids.astype(dtype), grid, scan


def places(grid: Volume, scan: Volume) -> np.ndarray:
    """The (fractional) index in the grid, `[3, z, y, x]`, of each of the scan's voxels."""
    corner = grid.to_index(scan.to_patient((0, 0, 0)))
    steps = [grid.to_index(scan.to_patient(one)) - corner for one in np.eye(3)]
    return np.einsum("aj,azyx->jzyx", steps, np.indices(scan.shape)) + corner[:, None, None, None]


def at_places(ids: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The ids at fractional indices; 0 outside."""
    index = np.floor(at + 0.5).astype(int)
    ends = np.reshape(ids.shape, (3, 1, 1, 1))
    inside = ((index >= 0) & (index < ends)).all(0)
    return np.where(inside, ids[tuple(np.clip(index, 0, ends - 1))], 0)


def placed(shift: float = 0, turn: tuple = (), home: Callable = lambda grid, scan: {}) -> Callable:
    """Nearest ids, moved by a part of a voxel, in reverse, or from a grid that lies elsewhere."""

    def answer(ids: np.ndarray, grid: Volume, scan: Volume) -> Volume:
        at = places(dataclasses.replace(grid, **home(grid, scan)), scan)
        return scan.with_voxels(at_places(np.flip(ids, turn), at + shift).astype(ids.dtype))

    return answer


def turned(turn: tuple) -> Callable:
    return lambda ids, grid, scan: scan.with_voxels(np.flip(placed()(ids, grid, scan).voxels, turn))


def from_corner(ids: np.ndarray, grid: Volume, scan: Volume) -> Volume:
    """Right for a grid of the whole scan, whose first corner is the scan's."""
    corner = scan.to_patient((np.divide(grid.spacing, scan.spacing) - 1) / 2)
    return placed()(ids, dataclasses.replace(grid, origin=tuple(corner)), scan)


def stretched(corners: bool) -> Callable:
    def answer(ids: np.ndarray, grid: Volume, scan: Volume) -> Volume:
        ends, sizes = (np.reshape(one.shape, (3, 1, 1, 1)) for one in (ids, scan))
        at = np.indices(scan.shape)
        at = at * (ends - 1) / (sizes - 1) if corners else (at + 0.5) * ends / sizes - 0.5
        return scan.with_voxels(at_places(ids, at))

    return answer


def laid(start: Callable) -> Callable:
    def answer(ids: np.ndarray, grid: Volume, scan: Volume) -> Volume:
        first = np.reshape(np.rint(start(ids, grid, scan)), (3, 1, 1, 1))
        return scan.with_voxels(at_places(ids, np.indices(scan.shape) - first))

    return answer


def bordered(ids: np.ndarray, grid: Volume, scan: Volume) -> Volume:
    ends = np.reshape(ids.shape, (3, 1, 1, 1))
    return scan.with_voxels(at_places(ids, np.clip(places(grid, scan), 0, ends - 1)))


def interpolated(how: int) -> Callable:
    def answer(ids: np.ndarray, grid: Volume, scan: Volume) -> Volume:
        image = grid.with_voxels(ids.astype(np.uint8)).to_sitk()
        image = sitk.Resample(image, scan.to_sitk(), sitk.Transform(), how, 0)
        return scan.with_voxels(sitk.GetArrayFromImage(image).astype(ids.dtype))

    return answer


def in_its_place(found, ids: np.ndarray, grid: Volume, scan: Volume) -> np.ndarray:
    """The ids of a result; where resamplers disagree about the grid's edge, nothing is asked."""
    check_geometry(found, ids, grid, scan)
    voxels = found.voxels
    if np.array_equal(voxels, scan.voxels):
        raise Wrong("these are the scan's own voxels; where are the ids?")
    between = np.setdiff1d(voxels, [*ids.flat, 0])
    if len(between):
        raise Wrong(
            f"the ids {np.unique(ids)} came back with {between[:5]} among them: interpolated "
            "between ids, or filled with something else; is_mask=True takes the nearest"
        )
    if not voxels.any():
        raise Wrong(
            "all voxels are 0: do the ids still lie where the grid lies? Its origin and direction "
            "say so"
        )
    if voxels.dtype != ids.dtype:
        raise Wrong(f"the ids were {ids.dtype}, yours are {voxels.dtype}: keep the dtype")
    at, ends = places(grid, scan), np.reshape(ids.shape, (3, 1, 1, 1))
    inside = ((at >= 0) & (at <= ends - 1)).all(0)
    outside = ((at < -0.5) | (at > ends - 0.5)).any(0)
    return np.where(inside | outside, voxels, 0)


def likeness(found: np.ndarray, made: np.ndarray) -> float:
    """Dice of all that is not background; the right id counts."""
    either = np.count_nonzero(found) + np.count_nonzero(made)
    return 2 * np.count_nonzero((found == made) & (found != 0)) / max(either, 1)


def check_geometry(found, ids: np.ndarray, grid: Volume, scan: Volume) -> None:
    if not isinstance(found, Volume):
        hint = "; Volume.from_sitk makes one of it" if isinstance(found, sitk.Image) else ""
        if isinstance(found, np.ndarray) and found.shape == scan.shape:
            hint = "; scan.with_voxels gives it the scan's geometry"
        elif isinstance(found, np.ndarray):
            hint = "; grid.with_voxels says where the ids lie"
        raise Wrong(f"a Volume is asked for, found {type(found).__name__}{hint}")
    if found.same_geometry(scan):
        return
    if found.same_geometry(grid):
        raise Wrong("the result still lies on the grid; asked for is the scan's")
    if found.shape != scan.shape:
        hint = ": SimpleITK counts x, y, z" if found.shape == scan.shape[::-1] else ""
        raise Wrong(f"the result has shape {found.shape}; the scan is {scan.shape}{hint}")
    other = [
        f"{name} {np.round(getattr(found, name), 3)} for {np.round(getattr(scan, name), 3)}"
        for name in ("spacing", "origin", "direction")
        if not np.allclose(getattr(found, name), getattr(scan, name), atol=1e-5)
    ]
    raise Wrong(f"the shape is the scan's, its geometry is not: {'; '.join(other)}")


TURNS = {
    " and ".join("zyx"[axis] for axis in turn): turn
    for count in (1, 2, 3)
    for turn in itertools.combinations(range(3), count)
}
HALF = "all lies half a voxel of the grid beside its place: "
STRETCHED = (
    "the ids are stretched to the scan's shape; where the grid lies in it, its origin and spacing "
    "say: resample_like"
)
LAID = "the ids are laid into the scan voxel by voxel, but the two spacings differ"
NEAREST = "each voxel takes the id of the nearest voxel alone, is_mask=True"
in_scan = check(
    placed(),
    predictions,
    {
        f"{NEAREST}; yours is interpolated": interpolated(sitk.sitkLabelLinear),
        f"{NEAREST}; yours is smoothed": interpolated(sitk.sitkLabelGaussian),
        f"{HALF}are indices rounded down?": placed(-0.5),
        f"{HALF}is a corner taken for the middle of a voxel?": placed(0.5),
        f"{STRETCHED} (centres of the outer voxels on each other)": stretched(corners=True),
        f"{STRETCHED} (edges on each other)": stretched(corners=False),
        f"{LAID}; they begin in the corner": laid(lambda ids, grid, scan: (0, 0, 0)),
        f"{LAID}; they lie in the middle": laid(
            lambda ids, grid, scan: (np.array(scan.shape) - ids.shape) // 2
        ),
        f"{LAID}; they begin in the right place": laid(
            lambda ids, grid, scan: scan.to_index(grid.origin)
        ),
        "the grid's origin is lost: it is not the scan's": placed(
            home=lambda grid, scan: {"origin": scan.origin}
        ),
        "the grid's origin is lost: it is a part, and begins further inside": from_corner,
        "the grid's direction is lost": placed(home=lambda *_: {"direction": np.eye(3)}),
        "beyond the grid its border goes on; there is background, 0": bordered,
        **{
            f"the ids are in reverse along {name}": placed(turn=turn)
            for name, turn in TURNS.items()
        },
        **{f"the result is in reverse along {name}": turned(turn) for name, turn in TURNS.items()},
    },
    read=in_its_place,
    same=np.array_equal,
    near=likeness,
    tell=lambda ids, grid, scan: f"a grid of {grid.shape} voxels in a scan of {scan.shape}",
)
