"""Image and mask move together, in mm, as SciPy would move them; and laws of all transforms."""

import functools
import math
import re

import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from helpers import augment
from helpers.augment import Elastic, Flip, Rotate, Shear, Translate, Zoom, grey
from tests.augmented import SURE, act, evenly, evenly_drawn, ids, refusal, run

import tensorflow as tf  # isort: skip

VOLUME, PICTURE = (9, 11, 13), (17, 21)
SPACING = {3: (3.0, 1.0, 1.5), 2: (1.0, 1.5)}  # mm
TIE = 1e-3  # voxels from the middle between two, where rounding decides which is nearest
resample = tf.function(augment.resample, jit_compile=True, autograph=False)

RANDOM = [Flip("x")], [Rotate(40)], [Shear(25)], [Zoom(0.4, each_axis=True)], [Translate(3)]
RANDOM += ([Elastic(2.4, grid=6)],)
ALL = [Flip("y"), Rotate(40), Shear(10), Elastic(2.4, grid=6), Zoom(0.3), Translate(2)]


def places(shape):
    """An image whose channels hold the voxel's own position."""
    return np.moveaxis(np.indices(shape, np.float32), 0, -1)


def values(shape, dtype):
    rng = np.random.default_rng(7)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return (rng.normal(0, 1, shape) * 10.0 ** rng.integers(-6, 6, shape)).astype(dtype)


def of_any_shape(element):
    """The same as a dataset of which no more is known than the number of axes and channels."""
    spec = {}
    for name, one in element.items():
        shape = [None] * (np.ndim(one) - 1) + [*np.shape(one)[-1:]]
        spec[name] = tf.TensorSpec(shape, tf.as_dtype(np.array(one).dtype))
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


# Laws of all transforms

NEVER = [-1, (2, 1), math.nan, (0, math.inf)]  # no amount of anything
FACTORS = [-0.1, 1.1, (-1, 1), (2, 1)]  # nor are these of what is a factor
TRANSFORMS = [
    # what makes one of an amount; one that changes every image, some that change none, what is none
    (Flip, "x", [], ["a"]),
    (Rotate, (20, 30), [0], [*NEVER, (1, 2, 3, 4)]),
    (Shear, (20, 25), [0], [*NEVER, 31, (-40, 0)]),
    (Zoom, (1.3, 1.5), [0], [-0.1, (0, 1), (2, 1), math.inf, (-1, 1)]),
    (functools.partial(Zoom, each_axis=True), 0.9, [(1, 1)], []),
    (Translate, (3, 4), [0], [*NEVER, ((1, 2), (4, 3))]),
    (functools.partial(Elastic, grid=8), 3.2, [0], [3.21, -1, math.nan]),
    (functools.partial(Elastic, 0.4), 1, [], [0, 0.9]),
    (grey.Brightness, (50, 50), [0], [*NEVER, (1, 2, 3)]),
    (functools.partial(grey.Brightness, relative=True), (1, 2), [0], []),
    (grey.Noise, (50, 50), [0], [-1, (-1, 1), (2, 1), math.inf]),
    (grey.Contrast, (2, 2), [0], FACTORS),
    (grey.Gamma, (1, 1), [0], NEVER),
    (grey.BiasField, 1, [0], [-0.1, math.nan, math.inf]),
    (grey.Cutout, 0.5, [0], [-0.1, 1.1, math.nan]),
    (functools.partial(grey.Cutout, 0.5), -1, [], [math.inf]),
    (grey.Hue, (40, 40), [0], NEVER),
    (grey.Saturation, (2, 2), [0], FACTORS),
    (functools.partial(grey.Clip, 100), 120, [], [99, math.inf, math.nan]),
]


def test_amounts_and_probabilities_that_mean_nothing_are_refused():
    accepted = []
    for make, amount, _, impossible in TRANSFORMS:
        calls = [functools.partial(make, one) for one in impossible]
        calls += [functools.partial(make, amount, p=p) for p in (-0.1, 1.1, math.nan)]
        accepted += [one for one in calls if "ValueError" not in str(refusal(one))]
    assert not accepted


def test_a_transform_acts_as_often_as_it_should_or_changes_nothing_to_the_bit():
    image, mask, failed = evenly_drawn((*PICTURE, 3)), ids(PICTURE), []
    for make, amount, *_ in TRANSFORMS:
        for p, count in ((0.3, 400), (0, 20), (1, 20)):
            transform = make(amount, p=p)
            after, masks = act([transform], np.stack([image] * count), np.stack([mask] * count))
            acts, kept = (after != image).any((1, 2, 3)), (masks == mask).all((1, 2, 3))
            often = stats.binomtest(int(acts.sum()), count, p).pvalue > SURE
            still = kept.all() if isinstance(transform, grey.Grey) else kept[~acts].all()
            failed += [] if often and still else [(transform, acts.mean(), kept.mean())]
    assert not failed


def test_no_amount_and_no_act_change_nothing_and_flips_no_value_to_the_bit():
    still = [make(one) for make, _, nothing, _ in TRANSFORMS for one in nothing]
    picture = values((2, *PICTURE, 3), np.dtype("float32"))
    failed = [one for one in still if (act([one], picture) != picture).any()]
    still += [make(amount, p=0) for make, amount, *_ in TRANSFORMS if "Elastic" not in str(make)]
    for shape, dtype in (((*VOLUME, 1), "int16"), ((*VOLUME, 3), "float32"), ((5, 6, 3), "uint8")):
        element = {"image": values(shape, np.dtype(dtype)), "mask": ids(shape[:-1])}
        options = {"spacing": (2.5, 0.7, 0.9)[: len(shape) - 1], "fill": -5, "mask_fill": 9}
        colours = () if shape[-1] == 3 else (grey.Hue, grey.Saturation)
        quiet = [one for one in still if not isinstance(one, colours)]
        for some, step in ((quiet, 1), ([Flip("y", p=1), Flip("x", p=1)], -1)):
            (after,) = run(element, some, **options)
            assert after["image"].dtype == np.float32 and after["mask"].dtype == np.uint8
            for name, before in element.items():
                same = np.array_equal(after[name], before[..., ::step, ::step, :])
                failed += [] if same else [(name, shape, step)]
    assert not failed


# Image and mask, one move


def test_image_and_mask_are_taken_from_the_same_places_and_each_of_a_batch_its_own_way():
    failed = []
    for shape in (VOLUME, PICTURE):
        mask = ids(shape)
        found = [next(zip(*act(some, [places(shape)], [mask]), strict=True)) for some in RANDOM]
        compiled = run({"image": places(shape), "mask": mask}, ALL, count=4)
        found += [(one["image"], one["mask"]) for one in compiled]
        failed += [shape] if not all(taken_from_one_place(*one, mask) for one in found) else []
    masks = np.stack([ids(PICTURE, seed=i) for i in range(4)])
    batch = {"image": np.stack([places(PICTURE)] * 4), "mask": masks}
    for transforms, kinds in ((ALL, 12), ([Flip("x"), Flip("y")], 4)):
        after = run(batch, transforms, count=3, batched=True)
        moved = [one for batch in after for one in zip(*batch.values(), masks, strict=True)]
        right = [taken_from_one_place(*one) for one in moved]
        if not all(right) or len({image.tobytes() for image, *_ in moved}) != kinds:
            failed.append((transforms, right))
    assert not failed


LEAN = math.tan(math.radians(20))
SLANTS = [np.eye(3) - LEAN * np.eye(3)[:, [i]] * np.eye(3)[j] for i, j in ((0, 1), (0, 2), (1, 2))]
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
    "shear": ([Shear((20, 20))], SLANTS[2] @ SLANTS[1] @ SLANTS[0], 0),  # keeps volumes
    "of pictures: shear": ([Shear((20, 20))], np.array([[1, -LEAN], [0, 1]]), 0),
    "of pictures: flip": ([Flip("y", p=1)], np.diag([-1, 1]), 0),
    "of pictures: turn": ([Rotate((20, 20))], rotation(20)[1:, 1:], 0),
    "of pictures: shift": ([Translate(((2, 2), (-1, -1)))], np.eye(2), [2, -1]),
}


def test_content_goes_where_the_amounts_say_in_mm():
    failed = []
    for name, (transforms, forward, shift) in FORWARD.items():
        shape = VOLUME if len(forward) == 3 else PICTURE
        spacing = np.array(SPACING[len(shape)])
        (image,), (mask,) = act(transforms, [places(shape)], [ids(shape)], spacing)
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
    batch = {"image": np.stack([picture] * 4), "spacing": spacings}
    (batched,) = run(batch, move, batched=True)
    one_by_one = [run({"image": picture, "spacing": one}, move)[0]["image"] for one in spacings]
    for found in (batched["image"], one_by_one):
        np.testing.assert_allclose([10, 12] - np.stack(found)[:, 10, 12], expected, atol=1e-5)
    (given_,) = run({"image": picture, "spacing": spacings[0]}, move, spacing=(1.5, 6))
    np.testing.assert_allclose([10, 12] - given_["image"][10, 12], [4, 1], atol=1e-5)


@pytest.mark.parametrize("more", [[], [Translate(0)]], ids=["flips alone", "among others"])
def test_sides_that_are_classes_change_names_with_the_sides(more):
    mask = np.array([0, 1, 2, 3, 4, 255], np.uint8)[ids(PICTURE, 6)]
    swapped = np.choose(np.minimum(mask, 5), np.array([0, 1, 2, 4, 3, 255], np.uint8))
    transforms = [Flip("x", swap_ids={3: 4, 4: 3}), *more]
    image, masks = act(transforms, np.stack([places(PICTURE)] * 20), np.stack([mask] * 20))
    flipped = image[:, 0, 0, 1] > 0
    assert 3 < flipped.sum() < 17
    for found, other in zip(masks, flipped, strict=True):
        np.testing.assert_array_equal(found, swapped[:, ::-1] if other else mask)
    # What comes in from outside has no other side.
    moves = [Translate((5, 5)), Flip("x", p=1, swap_ids={3: 4, 4: 3})]
    outside = {"fill": 0, "mask_fill": 3}
    assert set(np.unique(augment.once(moves, mask, np.ones_like(mask), **outside)[1])) == {1, 3}


# Interpolation

WARPED = {"volume": (1, *VOLUME, 1), "pictures": (2, *PICTURE, 3), "volumes": (2, 5, 6, 7, 2)}
WARPED |= {"slice": (1, 1, 8, 9, 1), "column": (1, 12, 1, 1, 1)}  # and axes of one voxel


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
            beyond = (at < -0.5) | (at > limits)
            outside = (beyond & (limits > 0.5)).any(0)  # nothing is outside of a single voxel
            assert outside.mean() > 0.2  # or this would say little about borders
            clear = (np.abs(at % 1 - 0.5) > TIE).all(0)
            if not isinstance(fill, str):
                expected[outside], classes[outside] = fill, 222
            close = np.abs(found[i] - expected)[clear].max() < 2e-3
            if not (close and np.array_equal(labels[i, ..., 0][clear], classes[clear])):
                failed.append((fill, i))
    assert not failed


# What is drawn


def turned(matrix, i, j):
    """The angle by which content turns from axis j towards axis i; a matrix is the way back."""
    return np.rad2deg(np.arctan2(matrix[:, j, i], matrix[:, j, j]))


SPREAD = {
    # transform, shape, what is drawn, its limits
    "turn": (Rotate(15), PICTURE, lambda m: turned(m, 0, 1), -15, 15),
    "turn, a pair": (Rotate((5, 40)), PICTURE, lambda m: turned(m, 0, 1), 5, 40),
    "turn about z": (Rotate((10, 0, 0)), VOLUME, lambda m: turned(m, 1, 2), -10, 10),
    "turn about y": (Rotate((0, 7, 0)), VOLUME, lambda m: turned(m, 2, 0), -7, 7),
    "turn about x": (Rotate((0, 0, 5)), VOLUME, lambda m: turned(m, 0, 1), -5, 5),
    "zoom": (Zoom(0.25), VOLUME, lambda m: -np.log(m[:, 0, 0]) / np.log(1.25), -1, 1),
    "zoom, a pair": (Zoom((0.5, 2)), PICTURE, lambda m: -np.log2(m[:, 1, 1]), -1, 1),
    "shift z": (Translate(6), VOLUME, lambda m: -m[:, 0, -1], -2, 2),  # voxels of 3, 1, 1.5 mm
    "shift y": (Translate((1, 3, 0)), VOLUME, lambda m: -m[:, 1, -1], -3, 3),
    "shear": (Shear(20), PICTURE, lambda m: np.rad2deg(np.arctan(m[:, 0, 1])), -20, 20),
}


def test_amounts_are_spread_evenly_between_their_limits():
    failed = []
    for name, (transform, shape, measure, low, high) in SPREAD.items():
        spacing = SPACING[3] if "shift" in name else None
        if not evenly(measure(drawn([transform], shape=shape, spacing=spacing).matrix), low, high):
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
    twice = -drawn([Translate(3), Translate(3)]).matrix[:, 0, -1] / 6
    assert stats.kstest(twice, "triang", (0.5, -1, 2)).pvalue > SURE


def test_transforms_act_independently_of_each_other():
    transforms = [Flip("x"), Elastic(1, p=0.7), Rotate(9, p=0.2)]
    warp = drawn(transforms, shape=(5, 5), count=2000)
    flips, turns = np.linalg.det(warp.matrix) < 0, np.abs(warp.matrix[:, 0, 1]) > 0
    bends = np.abs(warp.displacement).max((1, 2, 3)) > 0
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


@pytest.mark.parametrize("shape, spacing", [((33, 41), (1, 0.5)), ((17, 17, 21), (1, 1, 0.8))])
def test_at_its_limit_no_bend_folds(shape, spacing):
    for number in range(16):
        more = [Rotate(30), Shear(20), Zoom(0.3)] if number % 2 else []
        warp = augment.draw([*more, Elastic(3.2, grid=8)], shape, (number, 1), spacing)
        positions = augment.coordinates(warp, shape)[0].numpy().astype(float)
        jacobian = np.moveaxis(np.array([np.gradient(one) for one in positions]), (0, 1), (-2, -1))
        assert np.linalg.det(jacobian).min() > 0


# The stage

GREYS = [grey.Brightness(3), grey.Contrast(0.3), grey.Gamma(0.3), grey.Cutout(0.3)]
GREYS += [grey.BiasField(), grey.Noise(0.1)]


def images(dataset):
    return np.stack([one["image"] for one in dataset.as_numpy_iterator()])


def test_one_seed_is_one_stream_with_one_thread_and_with_eight_and_epochs_go_on():
    dataset = tf.data.Dataset.from_tensor_slices({"image": evenly_drawn((8, *PICTURE, 2))})
    stage = functools.partial(augment.stage, [*ALL, *GREYS])
    one, eight = (dataset.apply(stage(seed=3, num_parallel_calls=n)) for n in (1, 8))
    first, repeated = images(one), images(dataset.repeat(2).apply(stage(seed=3)))
    np.testing.assert_array_equal([images(eight), repeated[:8]], [first, first])
    for other in (images(one), repeated[8:], images(dataset.apply(stage(seed=4)))):
        assert (other != first).any((1, 2, 3)).all()


@pytest.mark.parametrize("shape", [VOLUME, PICTURE], ids=["volume", "picture"])
def test_unknown_shapes_and_builds_that_cannot_compile_give_the_same(shape, monkeypatch):
    noise = np.random.default_rng(2).normal(0, 900, shape)
    image = ndimage.gaussian_filter(noise, 1).astype(np.int16)[..., None]
    element = {"image": image, "mask": ids(shape), "spacing": np.float32(SPACING[len(shape)])}
    element |= {"weight": 0.5, "case": "Case 7", "prior": np.arange(4.0)}
    stage = functools.partial(augment.stage, [*ALL, *GREYS], seed=6)
    known = tf.data.Dataset.from_tensors(element).repeat(2)
    unknown = of_any_shape(element).repeat(2)
    stages = [known.apply(stage()), unknown.apply(stage())]
    monkeypatch.setattr("helpers.augment.dataset.xla_works", lambda: False)
    stages.append(known.apply(stage()))
    expected, *found = (list(dataset.as_numpy_iterator()) for dataset in stages)
    for one, other in zip([*found[0], *found[1]], expected * 2, strict=True):
        np.testing.assert_allclose(one["image"], other["image"], atol=0.2)
        assert (one["mask"] == other["mask"]).mean() > 0.99  # where two voxels are equally near
        assert one["case"] == b"Case 7"
        np.testing.assert_array_equal([one["weight"], *one["prior"]], [0.5, 0, 1, 2, 3])
        np.testing.assert_array_equal(one["spacing"], element["spacing"])
    for dataset, before in zip(stages, (known, unknown, known), strict=True):
        floats = {"image": tf.TensorSpec(before.element_spec["image"].shape, tf.float32)}
        assert dataset.element_spec == dict(before.element_spec) | floats


def test_images_of_one_and_two_voxels_and_of_varying_shapes_go_through_one_stage():
    for shape in ((2, 1, 13), (1, 1, 1), (5, 7), (1, 4)):
        element = {"image": places(shape), "mask": ids(shape)}
        for after in of_any_shape(element).repeat(2).apply(augment.stage(ALL, seed=1)):
            expected, sure = nearest(element["mask"], after["image"].numpy())
            np.testing.assert_array_equal(after["mask"].numpy()[..., 0][sure], expected[sure])


# Errors

IMAGE = np.ones((*PICTURE, 1), np.float32)


def applied(element, transforms=RANDOM[1], **options):
    stage = augment.stage(transforms, **{"seed": 1} | options)
    return tf.data.Dataset.from_tensors(element).apply(stage)


REFUSED = [
    (lambda: applied(IMAGE), "dicts with an `image`"),
    (lambda: applied({"image": IMAGE}, batched=True), "b, y, x, c"),
    (lambda: applied({"image": IMAGE[None], "spacing": np.ones((1, 2))}), "must be equal"),
    (lambda: applied({"image": IMAGE, "mask": ids((16, 21))}), r"MASK_MISMATCH.*\(16, 21, 1\)"),
    (lambda: applied({"image": IMAGE, "runs": np.ones((1, 3))}), "crop before you augment"),
    (lambda: applied({"image": IMAGE}, [Flip("z")]), "'z' is not in list"),
    (lambda: applied({"image": IMAGE}, [Rotate((5, 5, 5))]), "'z' is not in list"),
    (lambda: applied({"image": IMAGE}, [Translate((1, 2, 3))]), "must be equal"),
    (lambda: applied({"image": IMAGE}, [Elastic(1), Elastic(2)]), "arguments"),
    (lambda: applied({"image": IMAGE}, [grey.Hue(9)]), "3 and 1|1 and 3"),
    (lambda: applied({"image": np.tile(IMAGE, 4)}, [grey.Saturation(1)]), "3 and 4|4 and 3"),
    (lambda: applied({"image": IMAGE}, spacing=(1, 1, 1)), "spacing|shapes"),
    (lambda: applied({"image": IMAGE}, seed=-1), "seed"),
    (lambda: augment.stage([Flip("x"), Rotate], seed=1), "transforms are ones"),
    (lambda: augment.stage([Rotate(5)]), "seed"),
    (lambda: augment.stage([Rotate(5)], seed=1, fill="constant"), "constant"),
    (lambda: augment.stage([Rotate(5)], seed=1, mask_fill=300), "300"),
    (lambda: Flip("x", swap_ids={3: 4}), "change places"),
    (lambda: Flip("x", swap_ids={3: 4, 4: 4}), "change places"),
    (lambda: Shear(31), "at most 30"),
    (lambda: Elastic(4.1, 10), "at most 4 mm"),
    (lambda: Rotate(5, p=2), "probability"),
]


def test_what_cannot_be_is_refused_when_a_pipeline_is_made():
    said = [(refusal(call), words) for call, words in REFUSED]
    assert not [one for one in said if not re.search(one[1], one[0] or "", re.DOTALL)]


@pytest.mark.parametrize("transforms", [[Rotate(10, p=0)], [Flip("x")]], ids=repr)
def test_what_is_not_finite_and_masks_that_do_not_fit_are_refused_with_the_case(transforms):
    image = np.stack([IMAGE] * 3)
    image[1, 3, 4, 0] = np.nan
    elements = {"image": image, "case": ["Case 5", "Case 6", "Case 7"]}
    single = tf.data.Dataset.from_tensor_slices(elements)
    single = single.apply(augment.stage(transforms, seed=1, num_parallel_calls=1))
    named = r"NOT_FINITE(?s:.)*Case 6"
    for dataset in (single.skip(1), applied(elements, transforms, batched=True)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=named) as said:
            list(dataset)
        assert "Case 7" not in str(said.value)
    for bad in (np.inf, -np.inf, 1e300):
        with pytest.raises(tf.errors.InvalidArgumentError, match="NOT_FINITE"):
            augment.once(transforms, np.where(image[1] == 1, IMAGE.astype(float), bad))
    for shape in ((21, 17, 1), (21, 21, 1), (8, 8, 1), (34, 42, 1)):
        element = {"image": IMAGE, "mask": np.zeros(shape, np.uint8), "case": "Case 7"}
        dataset = of_any_shape(element).apply(augment.stage(transforms, seed=1))
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"MASK_MISMATCH(?s:.)*Case 7"):
            list(dataset)
