"""Check of notebook 06: a predicted mask back in the geometry of its scan."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import SimpleITK as sitk

from helpers.lesson.verdicts import VerdictError, ask, few, judged, wrong
from helpers.volume import Volume

SCANS = 9
ROUNDING = 1e-3  # of a voxel: as near to two voxels as that, either of them is the nearest
ALIKE = 0.8  # Dice, from which a wrong result counts as that of a known mistake
DIRECTIONS = (
    np.eye(3),
    np.diag([-1.0, -1.0, 1.0]),
    np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]),
)
KINDS = (([0, 1], np.uint8), ([0, 1, 3], np.int64), ([0, 2, 5], np.uint8))


@judged
def in_scan(answer: Callable) -> str:
    """Notebook 06: `answer(ids, grid, scan)` is the prediction as a `Volume` like the scan.

    `ids` are class ids, integers `[z, y, x]`, one for each voxel of `grid`: a `Volume` that
    `scan.resample` made, or a part of it. The result has the scan's shape, spacing, origin and
    direction and the dtype of `ids`, each voxel the id of the grid's nearest voxel, and is 0 where
    the scan reaches further than the grid.
    """
    trials = list(_predictions(np.random.default_rng(83)))
    for number, (ids, grid, scan) in enumerate(trials):
        try:
            found = ask(answer, ids, grid, scan)
        except VerdictError as verdict:
            if number and verdict.line.startswith("✎"):
                raise wrong("you returned None; is a branch without return?") from None
            raise
        _judge_geometry(found, ids, grid, scan)
        _judge_voxels(found.voxels, ids, grid, scan)
        if found.voxels.dtype != ids.dtype:
            raise wrong(f"the ids were {ids.dtype}, yours are {found.voxels.dtype}: keep the dtype")
    return (
        f"right on {len(trials)} predictions that the check made up, on whole grids and on parts "
        "of them, in straight, turned and oblique scans"
    )


def _predictions(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Volume, Volume]]:
    """Class ids in blocks, their grid, and the scan; from the third on the grid is a part."""
    for trial in range(SCANS):
        shape = rng.integers((9, 15, 20), (13, 19, 25))
        scan = Volume(
            rng.integers(-1000, 1500, shape, dtype=np.int16),
            (float(rng.choice([2.5, 3.0, 4.0])), *[float(rng.choice([0.7, 0.9, 1.1]))] * 2),
            tuple(rng.uniform(5, 60, 3) * rng.choice([-1, 1], 3)),
            DIRECTIONS[trial % 3],
        )
        grid = scan.resample((1.9, 1.3, 1.3) if trial % 2 else (2.1, 0.8, 0.8))
        if trial > 1:
            start = rng.integers(2, np.array(grid.shape) // 4 + 2)
            size = np.maximum(np.array(grid.shape) // 2, 5)
            part = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
            origin = tuple(grid.to_patient(start))
            grid = dataclasses.replace(grid, voxels=grid.voxels[part], origin=origin)
        known, dtype = KINDS[trial % 3]
        blocks = -(-np.array(grid.shape) // 3)
        ids = rng.choice(known, blocks, p=[0.5, *[0.5 / (len(known) - 1)] * (len(known) - 1)])
        ids = np.kron(ids, np.ones((3, 3, 3), int))[tuple(map(slice, grid.shape))]
        if trial == SCANS - 1:
            ids = np.where(ids == 0, known[1], ids)  # no background: the outside still is
        yield ids.astype(dtype), grid, scan


def _judge_geometry(found, ids: np.ndarray, grid: Volume, scan: Volume) -> None:
    if not isinstance(found, Volume):
        kind = type(found)
        hint = "; Volume.from_sitk makes one of it" if "SimpleITK" in kind.__module__ else ""
        if isinstance(found, np.ndarray) and found.shape == ids.shape:
            hint = "; grid.with_voxels says where the ids lie"
        elif isinstance(found, np.ndarray) and found.shape == scan.shape:
            hint = "; scan.with_voxels gives it the scan's geometry"
        raise wrong(f"a Volume is asked for, found {kind.__name__}{hint}")
    if found.same_geometry(scan):
        return
    if found.same_geometry(grid):
        raise wrong(
            f"the result still lies on the grid, {_size(grid)}; asked for is the scan's, "
            f"{_size(scan)}"
        )
    if found.shape != scan.shape:
        hint = ": SimpleITK counts x, y, z" if found.shape == scan.shape[::-1] else ""
        raise wrong(f"the result is {_size(found)}; the scan is {_size(scan)}{hint}")
    other = [
        f"{name} {_numbers(getattr(found, name))} for {_numbers(getattr(scan, name))}"
        for name in ("spacing", "origin", "direction")
        if not np.allclose(getattr(found, name), getattr(scan, name), atol=1e-5)
    ]
    said = "; ".join(other) or "its last voxel lies elsewhere"
    raise wrong(f"the shape is the scan's, its geometry is not: {said}")


def _size(volume: Volume) -> str:
    shape, spacing = volume.shape, volume.spacing
    return f"{' x '.join(map(str, shape))} voxels of {' x '.join(f'{mm:g}' for mm in spacing)} mm"


def _numbers(values) -> str:
    return f"({few(np.ravel(values), 9, '.3g')})"


def _judge_voxels(found: np.ndarray, ids: np.ndarray, grid: Volume, scan: Volume) -> None:
    """Compare with the nearest voxels of the grid; what else was done is told if it is known."""
    if np.array_equal(found, scan.voxels):
        raise wrong("these are the scan's own voxels; where are the ids?")
    known = np.union1d(ids, 0)
    between = np.setdiff1d(found, known)
    if len(between):
        raise wrong(
            f"the ids {_numbers(np.unique(ids))} came back with {few(between)} among them: "
            "interpolated between ids, or filled with something else; is_mask=True takes the "
            "nearest"
        )
    at = _places(grid, scan)
    ends = np.reshape(ids.shape, (3, 1, 1, 1))
    inside = ((at >= -0.5) & (at <= ends - 0.5)).all(0)
    # In the outer half of the outer voxels, some resamplers hold themselves to be outside.
    rim = inside & ~((at >= 0) & (at <= ends - 1)).all(0)
    right = rim & (found == 0)
    for shift in itertools.product((-ROUNDING, ROUNDING), repeat=3):
        right |= found == _nearest(ids, at + np.reshape(shift, (3, 1, 1, 1)))
    if right.all():
        return
    expected = _nearest(ids, at)
    if not found.any():
        raise wrong(
            f"all voxels are 0, {np.count_nonzero(expected)} should not be: do the ids still lie "
            "where the grid lies? Its origin and direction say so"
        )
    best, name = max((_alike(found, made), name) for name, made in _mistakes(ids, grid, scan, at))
    share = f"{100 * (1 - right.mean()):.2g} % of the voxels are not those of the nearest id"
    if best >= ALIKE and best > _alike(found, expected):
        raise wrong(f"{share}: {name}")
    if right[inside].all():
        raise wrong(f"{share}, all of them outside of the grid: there is background, 0")
    raise wrong(share)


def _places(grid: Volume, scan: Volume) -> np.ndarray:
    """The (fractional) index in the grid, `[3, z, y, x]`, of each of the scan's voxels."""
    corner = grid.to_index(scan.to_patient((0, 0, 0)))
    steps = [grid.to_index(scan.to_patient(one)) - corner for one in np.eye(3)]
    return np.einsum("aj,azyx->jzyx", steps, np.indices(scan.shape)) + corner[:, None, None, None]


def _nearest(ids: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The ids at fractional indices; 0 outside."""
    index = np.floor(at + 0.5).astype(int)
    ends = np.reshape(ids.shape, (3, 1, 1, 1))
    inside = ((index >= 0) & (index < ends)).all(0)
    return np.where(inside, ids[tuple(np.clip(index, 0, ends - 1))], 0)


def _mistakes(ids, grid: Volume, scan: Volume, at) -> Iterator[tuple[str, np.ndarray]]:
    """What known mistakes make of the ids."""

    def at_home(**geometry) -> np.ndarray:
        given = {"spacing": grid.spacing, "origin": grid.origin, "direction": grid.direction}
        return _nearest(ids, _places(Volume(ids, **given | geometry), scan))

    def laid(start) -> np.ndarray:
        return _nearest(ids, np.indices(scan.shape) - np.reshape(start, (3, 1, 1, 1)))

    ends = np.reshape(ids.shape, (3, 1, 1, 1))
    covered = ((at >= -0.5) & (at <= ends - 0.5)).all(0)

    def smoothed(values: np.ndarray) -> np.ndarray:
        made = grid.with_voxels(values.astype(np.float32)).resample_like(scan).voxels
        return np.where(covered, made, 0)

    def plain(values: np.ndarray) -> np.ndarray:
        image = grid.with_voxels(values.astype(np.float32)).to_sitk()
        edge = float(values.min())
        made = sitk.Resample(image, scan.to_sitk(), sitk.Transform(), sitk.sitkLinear, edge)
        return np.where(covered, sitk.GetArrayFromImage(made), 0)

    for linear in (plain, smoothed):
        cut = np.floor(linear(ids))
        yield "interpolated linearly, then cut to whole numbers: is_mask=True", cut
        # With ids 0 and 1, rounding and a vote give the same: one name, true of both.
        known = np.union1d(ids, 0)
        vote = known[np.argmax([linear(ids == one) for one in known], axis=0)]
        for made in (np.rint(linear(ids)), vote):
            yield (
                "the ids around have a say in it, by rounding or by a vote; each voxel takes the "
                "id of the nearest voxel alone, is_mask=True",
                made,
            )
    for half in (-0.5, 0.5):
        yield (
            "all lies half a voxel of the grid beside its place: are indices rounded down, or is "
            "a corner taken for the middle of a voxel?",
            _nearest(ids, at + half),
        )
    sizes = np.reshape(scan.shape, (3, 1, 1, 1))
    corners = np.indices(scan.shape) * (ends - 1) / (sizes - 1)
    edges = (np.indices(scan.shape) + 0.5) * ends / sizes - 0.5
    for stretched in (corners, edges):
        yield (
            "the ids are stretched to the scan's shape; where the grid lies in it, its origin and "
            "spacing say: resample_like",
            _nearest(ids, stretched),
        )
    by_voxels = "the ids are laid into the scan voxel by voxel, but the two spacings differ"
    for start in (
        (0, 0, 0),
        (np.array(scan.shape) - ids.shape) // 2,
        np.rint(scan.to_index(grid.origin)),
    ):
        yield by_voxels, laid(start)
    yield "the grid's voxels have the grid's spacing, not the scan's", at_home(spacing=scan.spacing)
    yield "the grid's origin is lost", at_home(origin=scan.origin)
    yield "the grid's origin is lost", at_home(origin=(0, 0, 0))
    first = scan.to_patient((np.divide(grid.spacing, scan.spacing) - 1) / 2)
    yield (
        "the grid's origin is lost: it is a part, and begins further inside",
        at_home(origin=first),
    )
    yield "the grid's direction is lost", at_home(direction=np.eye(3))
    nowhere = at_home(origin=(0, 0, 0), direction=np.eye(3))
    yield "the grid's origin and direction are lost", nowhere
    clipped = _nearest(ids, np.clip(at, 0, ends - 1))
    yield "beyond the grid its border goes on; there is background, 0", clipped
    right = _nearest(ids, at)
    for count in (1, 2, 3):
        for axes in itertools.combinations(range(3), count):
            name = f"the ids are in reverse along {' and '.join('zyx'[axis] for axis in axes)}"
            yield name, np.flip(right, axes)
            yield name, _nearest(np.flip(ids, axes), at)


def _alike(found: np.ndarray, made: np.ndarray) -> float:
    """Dice of all that is not background; the right id counts."""
    either = np.count_nonzero(found) + np.count_nonzero(made)
    return 2 * np.count_nonzero((found == made) & (found != 0)) / max(either, 1)
