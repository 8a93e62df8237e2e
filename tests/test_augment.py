"""Image and mask move together, in physical units, as SciPy and SimpleITK would move them."""

import functools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from helpers import augment
from helpers.augment import Elastic, Flip, Noise, Rotate, Shear, Translate, Zoom

import tensorflow as tf  # isort: skip

VOLUME, PICTURE, BATCH = (9, 11, 13), (17, 21), 4
SPACING = {3: (3.0, 1.0, 1.5), 2: (1.0, 1.5)}  # mm
SURE = 1e-4  # a right law is called wrong once in ten thousand fixed seeds
TIE = 1e-3  # voxels from the middle between two, where rounding decides which is nearest
resample = tf.function(augment.resample, jit_compile=True, autograph=False)

RANDOM = [Flip("x")], [Rotate(40)], [Shear(25)], [Zoom(0.4, each_axis=True)], [Translate(3)]
RANDOM += ([Elastic(2.4, grid=6)],)
ALL = [Flip("y"), Rotate(40), Shear(10), Elastic(2.4, grid=6), Zoom(0.3), Translate(2)]


def places(shape):
    """An image whose channels hold the voxel's own position."""
    return np.moveaxis(np.indices(shape, np.float32), 0, -1)


def ids(shape, count=256, seed=0):
    """A mask in which neighbours have different ids, so that each voxel can be told."""
    return np.random.default_rng(seed).integers(0, count, [*shape, 1], np.uint8)


def values(shape, dtype):
    rng = np.random.default_rng(7)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return (rng.normal(0, 1, shape) * 10.0 ** rng.integers(-6, 6, shape)).astype(dtype)


def run(element, transforms, *, count=1, seed=1, **options):
    """What a compiled stage makes of an element, so many times."""
    dataset = tf.data.Dataset.from_tensors(element).repeat(count)
    return list(dataset.apply(augment.stage(transforms, seed=seed, **options)).as_numpy_iterator())


def of_any_shape(element):
    """The same as a dataset of which no more is known than the number of axes and channels."""
    spec = {
        name: tf.TensorSpec(
            [None] * (np.ndim(one) - 1) + [*np.shape(one)[-1:]], np.array(one).dtype
        )
        for name, one in element.items()
    }
    spec |= {"case": tf.TensorSpec([], tf.string)} if "case" in element else {}
    return tf.data.Dataset.from_generator(lambda: [element], output_signature=spec)


def nearest(mask, positions):
    """The ids at positions `[..., r]` within the image, and where there is no doubt about them."""
    index = np.floor(positions + 0.5).astype(int)
    sure = (np.abs(positions % 1 - 0.5) > TIE).all(-1)
    return mask[tuple(np.moveaxis(index, -1, 0))][..., 0], sure


def taken_from_one_place(moved, mask, before):
    """Whether the mask was taken from the places that the image says it was taken from."""
    expected, sure = nearest(before, moved)
    return sure.mean() > 0.8 and np.array_equal(mask[..., 0][sure], expected[sure])


def centres(shape):
    return (np.array(shape) - 1) / 2


def rotation(about_z, about_y=0.0, about_x=0.0):
    """A right-handed rotation, first about z, in the order z, y, x of our axes."""
    turn = Rotation.from_euler("zyx", [about_z, about_y, about_x], degrees=True).as_matrix()
    return turn[::-1, ::-1]


def drawn(transforms, count=3000, shape=PICTURE, spacing=None):
    """Warps for many images at a time."""
    spacing = np.ones(len(shape)) if spacing is None else np.array(spacing)
    warp = augment.draw(transforms, shape, (1, 2), np.tile(spacing, (count, 1)))
    return augment.Warp(*(None if one is None else one.numpy() for one in warp))


def evenly(found, low, high):
    """Whether values lie between the limits and are spread evenly."""
    slack = 1e-4 * (high - low)
    inside = low - slack <= found.min() and found.max() <= high + slack
    return inside and stats.kstest(found, "uniform", (low, high - low)).pvalue > SURE


# Image and mask, one move


def test_image_and_mask_are_taken_from_the_same_places():
    failed = []
    for shape in (VOLUME, PICTURE):
        mask = ids(shape)
        found = [augment.once(some, places(shape), mask, seed=1) for some in RANDOM]
        compiled = run({"image": places(shape), "mask": mask}, ALL, count=4)
        found += [(one["image"], one["mask"]) for one in compiled]
        right = [taken_from_one_place(*pair, mask) for pair in found]
        failed += [] if all(right) else [(shape, right)]
    assert not failed


@pytest.mark.parametrize("transforms", [ALL, [Flip("x"), Flip("y")]], ids=["all", "flips"])
def test_pictures_of_a_batch_move_with_their_masks_each_its_own_way(transforms):
    masks = np.stack([ids(PICTURE, seed=i) for i in range(BATCH)])
    element = {"image": np.stack([places(PICTURE)] * BATCH), "mask": masks}
    after = run(element, transforms, count=3, batched=True)
    for one in after:
        assert all(map(taken_from_one_place, one["image"], one["mask"], masks))
    kinds = {image.tobytes() for one in after for image in one["image"]}
    assert len(kinds) == (4 if transforms is not ALL else 12)


FORWARD = {
    # transforms, the matrix that takes content to where it goes, in mm; the shift in mm
    "flip x": ([Flip("x", p=1)], np.diag([1, 1, -1]), 0),
    "flip z": ([Flip("z", p=1), Translate(0)], np.diag([-1, 1, 1]), 0),
    "turn": ([Rotate((20, 20))], rotation(20), 0),
    "turn about y": ([Rotate((0, (20, 20), 0))], rotation(0, 20), 0),
    "turn thrice": ([Rotate([(20, 20), (-15, -15), (30, 30)])], rotation(20, -15, 30), 0),
    "zoom": ([Zoom((1.3, 1.3))], np.eye(3) * 1.3, 0),
    "shift": ([Translate(((4, 4), (-2, -2), (1, 1)))], np.eye(3), [4, -2, 1]),
    "shift all": ([Translate((2, 2))], np.eye(3), [2, 2, 2]),
    "turn, shift": ([Rotate((20, 20)), Translate((2, 2))], rotation(20), [2, 2, 2]),
    "shift, turn": ([Translate((2, 2)), Rotate((20, 20))], rotation(20), rotation(20) @ [2, 2, 2]),
    "zoom, turn": ([Zoom((0.77, 0.77)), Rotate((35, 35))], 0.77 * rotation(35), 0),
    "of pictures: flip": ([Flip("y", p=1)], np.diag([-1, 1]), 0),
    "of pictures: turn": ([Rotate((20, 20))], rotation(20)[1:, 1:], 0),
    "of pictures: shift": ([Translate(((2, 2), (-1, -1)))], np.eye(2), [2, -1]),
}


def test_content_goes_where_the_amounts_say_in_mm():
    failed = []
    for name, (transforms, forward, shift) in FORWARD.items():
        shape = VOLUME if len(forward) == 3 else PICTURE
        spacing = np.array(SPACING[len(shape)])
        image, mask = augment.once(transforms, places(shape), ids(shape), spacing=spacing)
        there = (places(shape) - centres(shape)) * spacing
        back = (there - shift) @ np.linalg.inv(forward).T
        expected = np.clip(back / spacing + centres(shape), 0, np.array(shape) - 1)
        found, sure = nearest(ids(shape), expected)
        right = np.abs(image - expected).max() < 1e-4
        if not (right and sure.mean() > 0.9 and np.array_equal(mask[..., 0][sure], found[sure])):
            failed.append(name)
    assert not failed


def test_the_elements_own_spacing_counts_unless_one_is_given_and_zero_is_unknown():
    picture, move = places(PICTURE), [Translate((6, 6))]
    spacings = np.array([[2, 2], [3, 3], [0, 0], [0, 6]])
    expected = np.array([[3, 3], [2, 2], [6, 6], [6, 1]])  # voxels
    batch = {"image": np.stack([picture] * BATCH), "spacing": spacings}
    (batched,) = run(batch, move, batched=True)
    one_by_one = [run({"image": picture, "spacing": one}, move)[0]["image"] for one in spacings]
    for found in (batched["image"], one_by_one):
        np.testing.assert_allclose([10, 12] - np.stack(found)[:, 10, 12], expected, atol=1e-5)
    (given_,) = run({"image": picture, "spacing": spacings[0]}, move, spacing=(1.5, 6))
    np.testing.assert_allclose([10, 12] - given_["image"][10, 12], [4, 1], atol=1e-5)


def test_a_shear_slants_one_axis_by_its_angle_and_keeps_volumes():
    forward = np.linalg.inv(drawn([Shear((20, 20))], count=1).matrix[0])
    leaning = sorted(np.rad2deg(np.arctan(np.abs([forward[0, 1], forward[1, 0]]))))
    np.testing.assert_allclose(leaning, [0, 20], atol=1e-4)  # one of the two axes stays
    steep = drawn([Shear(30)], shape=VOLUME).matrix
    np.testing.assert_allclose(np.linalg.det(steep), 1, atol=1e-4)
    assert (np.abs(steep[:, [0, 0, 1], [1, 2, 2]]).max(0) > 0.5).all()  # each pair of axes


# Interpolation

WARPED = {"volume": (1, *VOLUME, 1), "pictures": (2, *PICTURE, 3), "volumes": (2, 5, 6, 7, 2)}


def any_warp(shape):
    """A warp that reaches far outside, and where it looks each voxel up, in float64."""
    count, *spatial, _ = shape
    rng, rank = np.random.default_rng(len(shape)), len(spatial)
    matrix = np.tile(np.eye(rank + 1), (count, 1, 1))
    matrix[:, :rank, :rank] += 0.2 * np.eye(rank) + rng.normal(0, 0.2, (count, rank, rank))
    matrix[:, :rank, rank] = rng.uniform(-4, 4, (count, rank))
    warp = augment.Warp(np.float32(matrix), np.float32(rng.normal(0, 2, (count, rank, *spatial))))
    middle = centres(spatial).reshape(-1, *[1] * rank)
    positions = []
    for one, bent in zip(*(part.astype(float) for part in warp), strict=True):
        turned = np.einsum("ij,j...->i...", one[:rank, :rank], np.indices(spatial) - middle + bent)
        positions.append(turned + middle + one[:rank, rank].reshape(middle.shape))
    return warp, positions


@pytest.mark.parametrize("kind", WARPED)
def test_scipy_finds_the_same_values_at_the_same_positions(kind):
    shape, failed = WARPED[kind], []
    image = np.random.default_rng(3).normal(0, 100, shape).astype(np.float32)
    mask = ids(shape[:-1], 200)
    warp, positions = any_warp(shape)
    np.testing.assert_allclose(augment.coordinates(warp, shape[1:-1]), positions, atol=1e-4)
    for fill in ("edge", "reflect", -7.5):
        found, labels = resample(image, mask, warp, fill, 222)
        assert found.dtype == tf.float32 and labels.dtype == tf.uint8
        mode = "reflect" if fill == "reflect" else "nearest"
        for i, at in enumerate(positions):
            look = functools.partial(ndimage.map_coordinates, coordinates=at, mode=mode)
            channels = [look(one.astype(float), order=1) for one in np.moveaxis(image[i], -1, 0)]
            expected, classes = np.stack(channels, -1), look(mask[i, ..., 0], order=0)
            limits = np.array(shape[1:-1]).reshape(-1, *[1] * len(at)) - 0.5
            outside = ((at < -0.5) | (at > limits)).any(0)
            assert outside.mean() > 0.2  # or this would say little about borders
            clear = (np.abs(at % 1 - 0.5) > TIE).all(0)
            if not isinstance(fill, str):
                expected[outside], classes[outside] = fill, 222
            close = np.abs(found[i] - expected)[clear].max() < 2e-3
            if not (close and np.array_equal(labels[i, ..., 0][clear], classes[clear])):
                failed.append((fill, i))
    assert not failed


def test_a_number_fills_from_half_a_voxel_beyond_the_border_and_ids_have_their_own():
    row = np.tile(np.float32([[[10], [20], [30], [40]]]), (4, 3, 1, 1))
    matrix = np.tile(np.eye(3, dtype=np.float32), (4, 1, 1))
    matrix[:, 1, 2] = [-0.4, -0.6, 0.4, 0.6]
    found, labels = resample(row, row.astype(np.uint8), augment.Warp(matrix), -1000.0, 255)
    expected = [[10, 16, 26, 36], [-1000, 14, 24, 34], [14, 24, 34, 40], [16, 26, 36, -1000]]
    np.testing.assert_allclose(found[:, 0, :, 0], expected, rtol=1e-5)
    named = [[10, 20, 30, 40], [255, 10, 20, 30], [10, 20, 30, 40], [20, 30, 40, 255]]
    np.testing.assert_array_equal(labels[:, 0, :, 0], named)
    slice_ = values((1, *PICTURE, 1), np.int16)  # never outside of itself
    moved = augment.once([Translate(((5, 5), (0, 0), (0, 0)))], slice_, fill=np.int16(-1000))
    np.testing.assert_array_equal(moved, slice_)


share = st.floats(0, 1, width=32)
flips = st.sampled_from([Flip("y"), Flip("x")])
makers = st.sampled_from(
    [lambda a: Rotate(180 * a), lambda a: Shear(30 * a), lambda a: Zoom(4 * a)]
)
moves = st.one_of(flips, st.builds(lambda make, a: make(a), makers, share))
bends = st.builds(lambda a, grid: Elastic(0.39 * a * grid, grid), share, st.floats(1, 30))
spacings = st.lists(st.floats(0.5, 8, width=32), min_size=3, max_size=3)
FILLS = st.sampled_from(["edge", "reflect", -1000.0])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=3), st.lists(moves, max_size=3), bends, share,
    spacings, FILLS, st.integers(0, 2**31),
)  # fmt: skip
def test_no_move_invents_labels_or_values(shape, some, bend, shift, spacing, fill, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 100, [1, *shape, 1]).astype(np.float32)
    mask = rng.choice(np.array([0, 1, 7, 200], np.uint8), [1, *shape, 1])
    transforms = [*some, Translate(50 * shift), bend]
    warp = augment.draw(transforms, shape, (seed, 5), spacing[: len(shape)])
    found, labels = (one.numpy() for one in augment.resample(image, mask, warp, fill, 255))
    assert set(np.unique(labels)) <= set(np.unique(mask)) | {255}
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found == -1000, labels == 255)
    kept, slack = found[found != -1000], 1e-4 * np.abs(image).max()
    assert np.all((image.min() - slack <= kept) & (kept <= image.max() + slack))


# Nothing to do is nothing done

NOTHING = [Rotate(0), Shear(0), Zoom(0), Zoom((1, 1), each_axis=True), Translate(0), Elastic(0)]
NEVER = [Rotate(9, p=0), Zoom(1, p=0), Elastic(4, p=0), Translate(9, p=0), Shear(9, p=0)]


@pytest.mark.parametrize("transforms", [NOTHING, [*NEVER, Flip("x", p=0)]], ids=["zero", "never"])
def test_no_amount_and_no_act_are_the_identity_to_the_bit(transforms):
    failed = []
    for shape, dtype in (
        ((*VOLUME, 1), np.int16),
        ((*VOLUME, 2), np.float32),
        ((*PICTURE, 3), np.uint8),
    ):
        element = {"image": values(shape, dtype), "mask": ids(shape[:-1])}
        options = {"spacing": (2.5, 0.7, 0.9)[: len(shape) - 1], "fill": -5, "mask_fill": 9}
        (after,) = run(element, transforms, **options)
        assert after["image"].dtype == np.float32 and after["mask"].dtype == np.uint8
        failed += [(name, shape) for name in element if (after[name] != element[name]).any()]
    assert not failed


def test_in_a_batch_those_on_which_nothing_acts_stay_as_they_are_to_the_bit():
    image, mask = np.stack([values((*PICTURE, 1), np.float32)] * 10), np.stack([ids(PICTURE)] * 10)
    transforms = [Rotate((20, 30), p=0.3), Elastic(2, grid=6, p=0.3)]
    after = run({"image": image, "mask": mask}, transforms, count=5, batched=True)
    same = np.array([(one["image"] == image).all((1, 2, 3)) for one in after])
    kept = np.array([(one["mask"] == mask).all((1, 2, 3)) for one in after])
    np.testing.assert_array_equal(same, kept)
    assert stats.binomtest(int(same.sum()), same.size, 0.49).pvalue > SURE  # 0.7 * 0.7


def test_flips_alone_keep_every_value():
    for dtype in (np.int16, np.uint8, np.float32):
        image, mask = values((*VOLUME, 1), dtype), ids(VOLUME)
        (after,) = run({"image": image, "mask": mask}, [Flip("z", p=1), Flip("x", p=1)])
        assert after["image"].dtype == np.float32
        np.testing.assert_array_equal(after["image"], image[::-1, :, ::-1])
        np.testing.assert_array_equal(after["mask"], mask[::-1, :, ::-1])


@pytest.mark.parametrize("more", [[], [Translate(0)]], ids=["flips alone", "among others"])
def test_sides_that_are_classes_change_names_with_the_sides(more):
    mask = np.array([0, 1, 2, 3, 4, 255], np.uint8)[ids(PICTURE, 6)]
    swapped = np.choose(np.minimum(mask, 5), np.array([0, 1, 2, 4, 3, 255], np.uint8))
    element = {"image": np.stack([places(PICTURE)] * 20), "mask": np.stack([mask] * 20)}
    transforms = [Flip("x", swap_ids={3: 4, 4: 3}), *more]
    (after,) = run(element, transforms, batched=True)
    flipped = after["image"][:, 0, 0, 1] > 0
    assert 3 < flipped.sum() < 17
    for found, other in zip(after["mask"], flipped, strict=True):
        np.testing.assert_array_equal(found, swapped[:, ::-1] if other else mask)
    # What comes in from outside has no other side.
    ones = np.ones_like(mask)
    moves = [Translate((5, 5)), Flip("x", p=1, swap_ids={3: 4, 4: 3})]
    assert set(np.unique(augment.once(moves, mask, ones, fill=0, mask_fill=3)[1])) == {1, 3}


# What is drawn


def turned(matrix, i, j):
    """The angle by which content turns from axis j towards axis i; a matrix is the way back."""
    return np.rad2deg(np.arctan2(matrix[:, j, i], matrix[:, j, j]))


def shifts(warp, axis):
    return -warp.matrix[:, axis, -1]


SPREAD = {
    # transforms, shape, what is drawn, its limits
    "turn": (Rotate(15), PICTURE, lambda w: turned(w.matrix, 0, 1), -15, 15),
    "turn, a pair": (Rotate((5, 40)), PICTURE, lambda w: turned(w.matrix, 0, 1), 5, 40),
    "turn about z": (Rotate((10, 0, 0)), VOLUME, lambda w: turned(w.matrix, 1, 2), -10, 10),
    "turn about y": (Rotate((0, 7, 0)), VOLUME, lambda w: turned(w.matrix, 2, 0), -7, 7),
    "turn about x": (Rotate((0, 0, 5)), VOLUME, lambda w: turned(w.matrix, 0, 1), -5, 5),
    "zoom": (Zoom(0.25), VOLUME, lambda w: -np.log(w.matrix[:, 0, 0]) / np.log(1.25), -1, 1),
    "zoom, a pair": (Zoom((0.5, 2)), PICTURE, lambda w: -np.log2(w.matrix[:, 1, 1]), -1, 1),
    "shift z": (Translate(6), VOLUME, lambda w: shifts(w, 0), -2, 2),  # voxels of 3, 1, 1.5 mm
    "shift y": (Translate((1, 3, 0)), VOLUME, lambda w: shifts(w, 1), -3, 3),
    "shear": (Shear(20), PICTURE, lambda w: np.rad2deg(np.arctan(w.matrix[:, 0, 1])), -20, 20),
}


def test_amounts_are_spread_evenly_between_their_limits():
    failed = []
    for name, (transform, shape, measure, low, high) in SPREAD.items():
        spacing = SPACING[3] if "shift" in name else None
        if not evenly(measure(drawn([transform], shape=shape, spacing=spacing)), low, high):
            failed.append(name)
    assert not failed


def test_axes_and_transforms_draw_numbers_of_their_own():
    matrix = drawn([Zoom(0.5, each_axis=True), Translate(3)], shape=VOLUME).matrix
    numbers = [*matrix[:, range(3), range(3)].T, *matrix[:, :3, 3].T]
    table = np.abs(np.corrcoef(numbers) - np.eye(6))
    np.fill_diagonal(table[3:, :3], 0)  # a shift is seen through the zoom of its axis
    assert table.max() < 0.08
    assert not np.array_equal(matrix[:, 0, 0], matrix[:, 1, 1])
    same = drawn([Zoom(0.5)], shape=VOLUME).matrix
    np.testing.assert_array_equal(same[:, 0, 0], same[:, 2, 2])
    # The sum of two even spreads is a triangle; of one twice it would be even.
    twice = shifts(drawn([Translate(3), Translate(3)]), 0) / 6
    assert stats.kstest(twice, "triang", (0.5, -1, 2)).pvalue > SURE


def test_transforms_act_as_often_as_they_should_and_independently_of_each_other():
    transforms = [Flip("x"), Elastic(1, p=0.7), Rotate(9, p=0.2), Translate(1, p=0)]
    warp = drawn(transforms, shape=(5, 5), count=2000)
    flips, turns = np.linalg.det(warp.matrix) < 0, np.abs(warp.matrix[:, 0, 1]) > 0
    bends = np.abs(warp.displacement).max((1, 2, 3)) > 0
    assert not warp.matrix[:, :2, 2].any()
    cells = np.bincount(4 * turns + 2 * flips + bends, minlength=8)
    odds = [a * b * c * cells.sum() for a in (0.8, 0.2) for b in (0.5, 0.5) for c in (0.3, 0.7)]
    assert stats.chisquare(cells, odds).pvalue > SURE
    degrees = turned(warp.matrix, 0, 1)[turns & ~flips]
    assert evenly(degrees, -9, 9)  # how much has nothing to do with whether


# Elastic warps


def b_splines(field, shape, spacing, grid):
    """The coefficients, by least squares, and the field that SciPy's B-splines make of them."""
    inverses, bases = [], []
    for n, mm in zip(shape, spacing, strict=True):
        reach = int((n - 1) / 2 * mm / grid) + 1
        knots = np.arange(-reach - 2, reach + 3, dtype=float)
        place = (np.arange(n) - (n - 1) / 2) * mm / grid
        splines = [BSpline.basis_element(knots[i : i + 5], False) for i in range(2 * reach + 1)]
        bases.append(np.stack([np.nan_to_num(one(place)) for one in splines], -1))
        inverses.append(np.linalg.pinv(bases[-1]))
    letters = "zyx"[-len(shape) :]
    turn = ",".join(f"{k.upper()}{k}" for k in letters)
    equation = f"{turn},...{letters}->...{letters.upper()}"
    found = np.einsum(equation, *inverses, field)
    return found, np.einsum(equation, *bases, found)


@pytest.mark.parametrize(
    "shape, spacing", [((17, 13), (1, 2)), ((9, 17, 13), (3, 1.5, 1)), ((1, 9, 9), (5, 3, 3))]
)
def test_a_bend_is_a_cubic_b_spline_between_points_that_are_a_grid_apart(shape, spacing):
    grid, limit = 6 if len(shape) == 3 else 4, 1.5
    bent = drawn([Elastic(limit, grid)], count=40, shape=shape, spacing=spacing).displacement
    field = bent.astype(float) * np.array(spacing, float).reshape(-1, *[1] * len(shape))
    assert 0.5 < np.abs(field).max() <= limit
    points, expected = b_splines(field, shape, spacing, grid)
    np.testing.assert_allclose(field, expected, atol=1e-5)
    if min(shape) > 1:
        assert evenly(points.ravel(), -limit - 1e-3, limit + 1e-3)
    first, second = points[:, 0].ravel(), points[:, 1].ravel()  # each axis bends by itself
    assert stats.pearsonr(first, second).pvalue > SURE


def test_the_bend_in_mm_does_not_depend_on_the_size_of_voxels_and_comes_last():
    fine, coarse, flat = (
        augment.draw([Elastic(3, grid=8)], shape, (4, 5), spacing).displacement[0].numpy()
        for shape, spacing in (((17, 13), (1, 1)), ((9, 7), (2, 2)), ((17, 7), (1, 2)))
    )
    np.testing.assert_allclose(coarse * 2, fine[:, ::2, ::2], atol=1e-5)
    np.testing.assert_allclose(flat * [[[1]], [[2]]], fine[:, :, ::2], atol=1e-5)
    for transforms in ([Rotate((30, 30)), Elastic(2, 6)], [Elastic(2, 6), Rotate((30, 30))]):
        warp = augment.draw(transforms, PICTURE, (1, 2))
        middle = centres(PICTURE)[:, None, None]
        bent = np.indices(PICTURE) - middle + warp.displacement[0]
        back = np.linalg.inv(rotation(30)[1:, 1:])
        expected = np.einsum("ij,jyx->iyx", back, bent) + middle
        np.testing.assert_allclose(augment.coordinates(warp, PICTURE)[0], expected, atol=1e-4)


@pytest.mark.parametrize("more", [[], [Rotate(30), Shear(20), Zoom(0.3)]])
@pytest.mark.parametrize("shape, spacing", [((33, 41), (1, 0.5)), ((17, 17, 21), (1, 1, 0.8))])
def test_at_its_limit_no_bend_folds(shape, spacing, more):
    for number in range(8):
        warp = augment.draw([*more, Elastic(3.2, grid=8)], shape, (number, 1), spacing)
        positions = augment.coordinates(warp, shape)[0].numpy().astype(float)
        jacobian = np.moveaxis(np.array([np.gradient(one) for one in positions]), (0, 1), (-2, -1))
        assert np.linalg.det(jacobian).min() > 0


@pytest.mark.parametrize(
    "displacement, grid", [(3.21, 8), (4.1, 10), (0.5, 1), (-1, 8), (math.nan, 8)]
)
def test_a_bend_that_could_fold_is_refused(displacement, grid):
    Elastic(0.4 * grid, grid)
    with pytest.raises(ValueError, match=f"at most {0.4 * grid:g} mm"):
        Elastic(displacement, grid)


# The stage

EVERYTHING = [Flip("x"), Rotate(20, p=0.8), Elastic(2, grid=6), augment.Contrast(0.3), Noise(0.2)]


def both(dataset):
    elements = list(dataset.as_numpy_iterator())
    return [np.stack([one[key] for one in elements]) for key in ("image", "mask")]


def pictures(count=8):
    image = np.random.default_rng(2).normal(size=(count, *PICTURE, 2)).astype(np.float32)
    mask = ids((count, *PICTURE), 4)
    return tf.data.Dataset.from_tensor_slices({"image": image, "mask": mask})


def test_one_seed_is_one_stream_with_one_thread_and_with_eight_and_epochs_go_on():
    one, eight = (
        pictures().apply(augment.stage(EVERYTHING, seed=3, num_parallel_calls=n)) for n in (1, 8)
    )
    first, again, second = both(one), both(eight), both(one)
    repeated = both(pictures().repeat(2).apply(augment.stage(EVERYTHING, seed=3)))
    other = both(pictures().apply(augment.stage(EVERYTHING, seed=4)))
    for i in range(2):
        np.testing.assert_array_equal(first[i], again[i])
        np.testing.assert_array_equal(first[i], repeated[i][:8])
    for image in (second[0], other[0], repeated[0][8:]):
        assert (image != first[0]).any((1, 2, 3)).all()


@pytest.mark.parametrize("shape", [VOLUME, PICTURE], ids=["volume", "picture"])
def test_unknown_shapes_and_builds_that_cannot_compile_give_the_same(shape, monkeypatch):
    noise = np.random.default_rng(2).normal(0, 9, shape)
    image = ndimage.gaussian_filter(noise, 1).astype(np.float32)[..., None]
    element = {"image": image, "mask": ids(shape), "spacing": np.float32(SPACING[len(shape)])}
    grey = [augment.Brightness(3), augment.Contrast(0.3), augment.Gamma(0.3), augment.Cutout(0.3)]
    stage = augment.stage([*ALL, *grey, augment.BiasField(), Noise(0.1)], seed=6)
    known = tf.data.Dataset.from_tensors(element).repeat(2)
    unknown = of_any_shape(element).repeat(2)
    assert unknown.apply(stage).element_spec == unknown.element_spec
    expected = both(known.apply(stage))
    found = [both(unknown.apply(stage))]
    monkeypatch.setattr("helpers.augment.dataset.xla_works", lambda: False)
    found.append(both(known.apply(stage)))
    for image, mask in found:
        np.testing.assert_allclose(image, expected[0], atol=2e-3)
        assert (mask == expected[1]).mean() > 0.995  # where two voxels are equally near


def test_images_of_one_and_two_voxels_and_of_varying_shapes_go_through_one_stage():
    for shape in ((2, 1, 13), (1, 1, 1), (5, 7), (1, 4)):
        element = {"image": places(shape), "mask": ids(shape)}
        for after in of_any_shape(element).repeat(2).apply(augment.stage(ALL, seed=1)):
            expected, sure = nearest(element["mask"], after["image"].numpy())
            np.testing.assert_array_equal(after["mask"].numpy()[..., 0][sure], expected[sure])


def test_other_fields_shapes_and_length_stay():
    element = {"image": values((*VOLUME, 1), np.int16), "mask": ids(VOLUME), "weight": 0.5}
    element |= {"spacing": np.float32([3, 1, 1]), "case": "Case 7", "prior": np.arange(4.0)}
    dataset = tf.data.Dataset.from_tensors(element).repeat(2)
    after = dataset.apply(augment.stage([*ALL, Noise(1)], seed=1))
    image = {"image": tf.TensorSpec((*VOLUME, 1), tf.float32)}
    assert after.element_spec == dict(dataset.element_spec) | image
    assert after.cardinality() == 2
    for found in after.as_numpy_iterator():
        assert found["case"] == b"Case 7"
        for key in ("weight", "spacing", "prior"):
            np.testing.assert_array_equal(found[key], element[key])


# Errors

IMAGE = np.ones((*PICTURE, 1), np.float32)
MASK = ids(PICTURE)


def applied(element, transforms=RANDOM[1], **options):
    stage = augment.stage(transforms, **{"seed": 1} | options)
    return tf.data.Dataset.from_tensors(element).apply(stage)


REFUSED = [
    (lambda: applied(IMAGE), "dicts with an `image`"),
    (lambda: applied({"image": IMAGE}, batched=True), "b, y, x, c"),
    (lambda: applied({"image": IMAGE[None, None]}), r"1, 1, 17, 21, 1"),
    (lambda: applied({"image": IMAGE[None], "case": ["a"]}), "single.*case"),
    (lambda: applied({"image": IMAGE[None], "case": "a"}, batched=True), "batches.*case"),
    (lambda: applied({"image": IMAGE[None], "spacing": np.ones((1, 2))}), "must be equal"),
    (lambda: applied({"image": IMAGE, "mask": MASK[:-1]}), r"MASK_MISMATCH.*\(16, 21, 1\)"),
    (lambda: applied({"image": IMAGE, "mask": MASK[..., 0]}), "MASK_MISMATCH"),
    (lambda: applied({"image": IMAGE, "mask": np.tile(MASK, 2)}), "MASK_MISMATCH"),
    (lambda: applied({"image": IMAGE, "mask": MASK / 1.0}), "MASK_MISMATCH.*float"),
    (lambda: applied({"image": IMAGE, "runs": np.ones((1, 3))}), "crop before you augment"),
    (lambda: applied({"image": IMAGE}, [Flip("z")]), "'z' is not in list"),
    (lambda: applied({"image": IMAGE}, [Rotate((5, 5, 5))]), "'z' is not in list"),
    (lambda: applied({"image": IMAGE}, [Translate((1, 2, 3))]), "must be equal"),
    (lambda: applied({"image": IMAGE}, [Elastic(1), Elastic(2)]), "arguments"),
    (lambda: applied({"image": IMAGE}, spacing=(1, 1, 1)), "spacing|shapes"),
    (lambda: applied({"image": IMAGE}, seed=-1), "seed"),
    (lambda: augment.stage([Flip("x"), Rotate], seed=1), "transforms are ones"),
    (lambda: augment.stage([lambda image: image], seed=1), "transforms are ones"),
    (lambda: augment.stage([Rotate(5)]), "seed"),
    (lambda: augment.stage([Rotate(5)], seed=1, fill="constant"), "constant"),
    (lambda: augment.stage([Rotate(5)], seed=1, mask_fill=300), "300"),
    (lambda: Flip("a"), "not in list"),
    (lambda: Flip("x", swap_ids={3: 4}), "change places"),
    (lambda: Flip("x", swap_ids={3: 4, 4: 4}), "change places"),
    (lambda: Shear(31), "at most 30"),
    (lambda: Shear((-40, 0)), "at most 30"),
    *[(lambda p=p: Rotate(5, p=p), "probability") for p in (-0.1, 1.1, math.nan)],
    *[
        (lambda bad=bad: Rotate(bad), "")
        for bad in (-1, (2, 1), math.nan, (0, math.inf), (1, 2, 3, 4))
    ],
    *[(lambda bad=bad: Zoom(bad), "") for bad in (-0.1, (0, 1), (2, 1), math.inf, (-1, 1))],
    *[(lambda bad=bad: Translate(bad), "") for bad in (-1, (2, 1), ((1, 2), (4, 3)))],
]


def test_what_cannot_be_is_refused_when_a_pipeline_is_made():
    failed = []
    for i, (call, words) in enumerate(REFUSED):
        try:
            call()
            failed.append((i, words, "nothing"))
        except (ValueError, TypeError, OverflowError) as error:
            if not re.search(words, str(error), re.DOTALL):
                failed.append((i, words, str(error)))
    assert not failed


@pytest.mark.parametrize("transforms", [[Rotate(5, p=0)], [Flip("x")], []])
def test_values_that_are_not_finite_are_refused_with_the_name_of_the_case(transforms):
    image = np.stack([IMAGE] * 3)
    image[1, 3, 4, 0] = np.nan
    elements = {"image": image, "case": ["Case 5", "Case 6", "Case 7"]}
    dataset = tf.data.Dataset.from_tensor_slices(elements)
    stage = augment.stage(transforms, seed=1, num_parallel_calls=1)
    iterator = dataset.apply(stage).as_numpy_iterator()
    assert np.isfinite(next(iterator)["image"]).all()
    batch = applied(elements, transforms, batched=True).as_numpy_iterator()
    for run_ in (iterator, batch):
        with pytest.raises(tf.errors.InvalidArgumentError, match="NOT_FINITE") as refused:
            next(run_)
        assert "Case 6" in str(refused.value) and "Case 7" not in str(refused.value)
    for bad in (np.inf, -np.inf, 1e300):
        with pytest.raises(tf.errors.InvalidArgumentError, match="NOT_FINITE"):
            augment.once(transforms, np.where(image[1] == 1, IMAGE.astype(float), bad))


@pytest.mark.parametrize("transforms", [[Rotate(10)], [Rotate(10, p=0)], [Flip("x")]], ids=repr)
def test_a_mask_of_another_shape_is_refused_while_running(transforms):
    for shape in ((21, 17, 1), (21, 21, 1), (8, 8, 1), (34, 42, 1)):
        element = {"image": IMAGE, "mask": np.zeros(shape, np.uint8), "case": "Case 7"}
        dataset = of_any_shape(element).apply(augment.stage(transforms, seed=1))
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"MASK_MISMATCH(?s:.)*Case 7"):
            list(dataset)
