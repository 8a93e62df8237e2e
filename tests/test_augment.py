"""Image and mask move together, in physical units, as SciPy and SimpleITK would move them."""

import functools
import math

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from helpers import augment, crops, quiet
from helpers.augment import Elastic, Flip, Rotate, Shear, Translate, Zoom
from helpers.augment import warp as warping
from helpers.errors import CourseDataError

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

# Few shapes: XLA compiles each of them once for the whole file.
VOLUME, PICTURE, BATCH = (9, 11, 13), (17, 21), 4
SPACING = {3: (3.0, 1.0, 1.5), 2: (1.0, 1.5)}  # mm
SURE = 1e-4  # a right law is called wrong once in ten thousand fixed seeds
TIE = 1e-3  # voxels from the middle between two, where rounding decides which is nearest

many = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # a smaller example would take minutes to find
)


def places(shape) -> np.ndarray:
    """An image whose channels hold the voxel's own position."""
    return np.moveaxis(np.indices(shape, np.float32), 0, -1)


def ids(shape, count=256, seed=0) -> np.ndarray:
    """A mask in which neighbours have different ids, so that each voxel can be told."""
    return np.random.default_rng(seed).integers(0, count, [*shape, 1], np.uint8)


def run(elements: list[dict], pieces, *, seed=1, **options) -> list[dict]:
    """What a stage makes of these elements."""
    stacked = {key: np.stack([one[key] for one in elements]) for key in elements[0]}
    dataset = tf.data.Dataset.from_tensor_slices(stacked)
    return list(dataset.apply(augment.stage(pieces, seed=seed, **options)).as_numpy_iterator())


def nearest(mask: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids at positions `[..., r]` within the image, and where there is no doubt about them."""
    index = np.floor(positions + 0.5).astype(int)
    sure = (np.abs(positions % 1 - 0.5) > TIE).all(-1)
    return mask[tuple(np.moveaxis(index, -1, 0))][..., 0], sure


def assert_one_move(moved: np.ndarray, mask: np.ndarray, before: np.ndarray) -> None:
    """The mask was taken from the places that the image says it was taken from."""
    expected, sure = nearest(before, moved)
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(mask[..., 0][sure], expected[sure])


def centres(shape) -> np.ndarray:
    return (np.array(shape) - 1) / 2


def rotation(about_z, about_y=0.0, about_x=0.0) -> np.ndarray:
    """A right-handed rotation, first about z, in the order z, y, x of our axes."""
    turn = Rotation.from_euler("zyx", [about_z, about_y, about_x], degrees=True).as_matrix()
    return turn[::-1, ::-1]


def sources(shape, spacing, forward, shift=0.0) -> np.ndarray:
    """Where in the input each voxel of the result comes from, `[*shape, r]`, within the image.

    The content at a distance of p mm from the centre goes to forward @ p + shift.
    """
    spacing = np.array(spacing, float)
    there = (np.moveaxis(np.indices(shape, float), 0, -1) - centres(shape)) * spacing
    here = (there - shift) @ np.linalg.inv(forward).T
    return np.clip(here / spacing + centres(shape), 0, np.array(shape) - 1)


def drawn(pieces, count=3000, shape=PICTURE, spacing=None, seed=(1, 2)):
    """Warps for many images at a time."""
    spacing = np.ones(len(shape)) if spacing is None else np.array(spacing)
    each = np.broadcast_to(spacing, (count, len(shape))).astype(np.float32)
    warp, gates = augment.draw(pieces, shape, tf.constant(seed, tf.int64), each)
    return augment.Warp(*(None if one is None else one.numpy() for one in warp)), np.stack(gates)


def degrees(matrix: np.ndarray, i: int, j: int) -> np.ndarray:
    """The angle by which content turns from axis j towards axis i; a matrix is the way back."""
    return np.rad2deg(np.arctan2(matrix[..., j, i], matrix[..., j, j]))


def evenly(values: np.ndarray, low: float, high: float) -> bool:
    """Whether values lie between the limits and are spread evenly."""
    slack = 1e-4 * (high - low)
    inside = low - slack <= values.min() and values.max() <= high + slack
    return inside and stats.kstest(values, "uniform", (low, high - low)).pvalue > SURE


# Image and mask, one move

RANDOM = {
    "flip": [Flip("x"), Flip("y")],
    "rotate": [Rotate(40)],
    "shear": [Shear(25)],
    "zoom": [Zoom(0.4, each_axis=True)],
    "translate": [Translate(3)],
    "elastic": [Elastic(2.4, grid=6)],
    "all": [
        Flip("y"),
        Rotate(40),
        Shear(10),
        Elastic(2.4, grid=6),
        Zoom(0.3),
        Translate(2),
    ],
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("shape", [VOLUME, PICTURE], ids=["volume", "picture"])
def test_image_and_mask_are_taken_from_the_same_places(name, shape):
    elements = [{"image": places(shape), "mask": ids(shape, seed=i)} for i in range(4)]
    for before, after in zip(elements, run(elements, RANDOM[name]), strict=True):
        assert_one_move(after["image"], after["mask"], before["mask"])


@pytest.mark.parametrize("name", RANDOM)
def test_image_and_mask_of_a_batch_are_taken_from_the_same_places(name):
    mask = np.stack([ids(PICTURE, seed=i) for i in range(BATCH)])
    image = np.stack([places(PICTURE)] * BATCH)
    # Several draws: a flip may leave a whole batch as it is.
    for after in run([{"image": image, "mask": mask}] * 3, RANDOM[name], batched=True):
        for moved, found, before in zip(after["image"], after["mask"], mask, strict=True):
            assert_one_move(moved, found, before)


@pytest.mark.parametrize("shape", [VOLUME, PICTURE], ids=["volume", "picture"])
def test_an_image_of_one_channel_moves_as_one_of_several_does(shape):
    weights = np.array([100, 10, 1], np.float32)[: len(shape)]  # tells the place by one number
    several = {"image": places(shape), "mask": ids(shape)}
    one = several | {"image": several["image"] @ weights[:, None]}
    (moved,), (single,) = run([several], RANDOM["all"]), run([one], RANDOM["all"])
    np.testing.assert_allclose(single["image"], moved["image"] @ weights[:, None], rtol=1e-4)
    np.testing.assert_array_equal(single["mask"], moved["mask"])


FORWARD_3D = {
    # Piece, matrix that takes content from where it was to where it goes, in mm; shift in mm.
    "flip x": (Flip("x", p=1), np.diag([1, 1, -1]), 0),
    "flip y": (Flip("y", p=1), np.diag([1, -1, 1]), 0),
    "flip z": (Flip("z", p=1), np.diag([-1, 1, 1]), 0),
    "turn": (Rotate((20, 20)), rotation(20), 0),
    "turn about y": (Rotate((0, (20, 20), 0)), rotation(0, 20), 0),
    "turn about x": (Rotate((0, 0, (20, 20))), rotation(0, 0, 20), 0),
    "turn thrice": (Rotate([(20, 20), (-15, -15), (30, 30)]), rotation(20, -15, 30), 0),
    "zoom": (Zoom((1.3, 1.3)), np.diag([1.3, 1.3, 1.3]), 0),
    "shift": (Translate(((4, 4), (-2, -2), (1, 1))), np.eye(3), np.array([4, -2, 1])),
    "shift all": (Translate((2, 2)), np.eye(3), np.array([2, 2, 2])),
}


@pytest.mark.parametrize("name", FORWARD_3D)
def test_content_of_a_volume_goes_where_the_amounts_say(name):
    piece, forward, shift = FORWARD_3D[name]
    # A shift of whole voxels and a flip have no doubtful voxels, nor have the others many.
    image, mask = augment.once([piece], places(VOLUME), ids(VOLUME), spacing=SPACING[3])
    expected = sources(VOLUME, SPACING[3], forward, shift)
    np.testing.assert_allclose(image, expected, atol=1e-4)
    found, sure = nearest(ids(VOLUME), expected)
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(mask[..., 0][sure], found[sure])


FORWARD_2D = {
    "flip": (Flip("x", p=1), np.diag([1, -1]), 0),
    "turn": (Rotate((20, 20)), rotation(20)[1:, 1:], 0),
    "zoom": (Zoom((0.7, 0.7)), np.diag([0.7, 0.7]), 0),
    "shift": (Translate(((2, 2), (-1, -1))), np.eye(2), np.array([2, -1])),
}


@pytest.mark.parametrize("name", FORWARD_2D)
def test_content_of_pictures_goes_where_the_amounts_say(name):
    piece, forward, shift = FORWARD_2D[name]
    expected = sources(PICTURE, SPACING[2], forward, shift)
    image, _ = augment.once([piece], places(PICTURE), ids(PICTURE), spacing=SPACING[2])
    np.testing.assert_allclose(image, expected, atol=1e-4)
    batch = {"image": np.stack([places(PICTURE)] * BATCH)}
    (found,) = run([batch], [piece], spacing=SPACING[2], batched=True)
    for one in found["image"]:
        np.testing.assert_allclose(one, expected, atol=1e-4)


@pytest.mark.parametrize("shape", [VOLUME, PICTURE], ids=["volume", "picture"])
def test_landmarks_land_in_image_and_mask_where_the_forward_map_says(shape):
    rank, spacing = len(shape), np.array(SPACING[len(shape)])
    offsets = np.array([[0, 0, 0], [1, 2, -3], [-1, -3, 2], [2, 1, 3]])[:, -rank:]
    marks = centres(shape) + offsets * (1 if rank == 3 else 2)
    grid = np.moveaxis(np.indices(shape, float), 0, -1)
    pieces = [Rotate((25, 25)), Zoom((1.2, 1.2)), Translate((1.2, 1.2))]
    turned = rotation(25)[-rank:, -rank:]
    elements = []
    for number, mark in enumerate(marks):
        distance = np.abs(grid - mark).max(-1, keepdims=True)
        tent = np.maximum(0, 1 - distance).astype(np.float32)  # one voxel
        elements.append({"image": tent, "mask": (distance < 1).astype(np.uint8) * (number + 1)})
    moved = run(elements, pieces, spacing=spacing)
    for number, (mark, after) in enumerate(zip(marks, moved, strict=True)):
        where = 1.2 * turned @ ((mark - centres(shape)) * spacing) + 1.2
        expected = where / spacing + centres(shape)
        weights = after["image"] / after["image"].sum()
        centroid = (grid * weights).reshape(-1, rank).sum(0)
        np.testing.assert_allclose(centroid, expected, atol=0.25)
        assert set(np.unique(after["mask"])) == {0, number + 1}
        found = np.argwhere(after["mask"][..., 0]).mean(0)
        np.testing.assert_allclose(found, expected, atol=0.6)


def test_what_comes_first_in_the_list_acts_first():
    dot = np.zeros((*PICTURE, 1), np.float32)
    dot[8, 13] = 1  # 3 voxels from the centre at (8, 10)
    turn, shift, flip = Rotate((90, 90)), Translate(((0, 0), (2, 2))), Flip("x", p=1)
    for pieces, place in (
        ([turn, shift], (11, 12)),
        ([shift, turn], (13, 10)),
        ([turn, flip], (11, 10)),
        ([flip, turn], (5, 10)),
        ([flip, turn, shift], (5, 12)),
    ):
        image = augment.once(pieces, dot)
        assert np.unravel_index(image[..., 0].argmax(), PICTURE) == place
        assert image[place] == pytest.approx(1, abs=1e-5)


def test_an_elastic_warp_bends_what_the_others_have_made_wherever_it_stands():
    turn, bend = Rotate((30, 30)), Elastic(2, grid=6)
    plain, _ = augment.draw([turn], PICTURE, (1, 2))
    for pieces in ([turn, bend], [bend, turn]):
        warp, _ = augment.draw(pieces, PICTURE, (1, 2))
        np.testing.assert_array_equal(warp.matrix, plain.matrix)
        found = augment.coordinates(warp, PICTURE).numpy()
        # First to where it was before the bend, then to where it was before the turn.
        bent = np.indices(PICTURE) + warp.displacement.numpy() - centres(PICTURE)[:, None, None]
        back = np.linalg.inv(rotation(30)[1:, 1:])
        expected = np.einsum("ij,jyx->iyx", back, bent) + centres(PICTURE)[:, None, None]
        np.testing.assert_allclose(found, expected, atol=1e-4)


# Physical units


@pytest.mark.parametrize(
    "pieces, forward, shift",
    [
        ([Rotate([(20, 20), (-15, -15), (10, 10)])], rotation(20, -15, 10), (0, 0, 0)),
        (
            [Rotate((35, 35)), Zoom((0.8, 0.8)), Translate(((3, 3), (-1, -1), (2, 2)))],
            0.8 * rotation(35),
            (3, -1, 2),
        ),
    ],
)
def test_simpleitk_resamples_to_the_same_volume(pieces, forward, shift):
    rng = np.random.default_rng(4)
    image = ndimage.gaussian_filter(rng.normal(0, 100, VOLUME), 1).astype(np.float32)
    fixed = sitk.GetImageFromArray(image)
    fixed.SetSpacing(SPACING[3][::-1])
    fixed.SetOrigin((-7, 20, 55))
    centre = fixed.TransformContinuousIndexToPhysicalPoint((centres(VOLUME)[::-1]).tolist())
    back = np.linalg.inv(forward)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(back[::-1, ::-1].ravel().tolist())
    transform.SetCenter(centre)
    transform.SetTranslation((-back @ shift)[::-1].tolist())
    resampled = sitk.Resample(fixed, fixed, transform, sitk.sitkLinear, -9999.0)
    expected = sitk.GetArrayFromImage(resampled)
    inside = expected > -9999
    assert inside.mean() > 0.3
    moved = augment.once(pieces, image[..., None], spacing=SPACING[3])[..., 0]
    np.testing.assert_allclose(moved[inside], expected[inside], atol=2e-2)


def test_a_bar_keeps_its_length_in_mm_when_it_turns():
    bar = np.zeros((*PICTURE, 1), np.uint8)
    bar[8, 8:13] = 1  # 5 voxels of 3 mm along x
    image = np.zeros_like(bar)
    _, turned = augment.once([Rotate((90, 90))], image, bar, spacing=(1, 3))
    found = np.argwhere(turned[..., 0])
    np.testing.assert_array_equal(found[:, 0], np.arange(1, 16))  # 15 voxels of 1 mm along y
    assert (found[:, 1] == 10).all()


def test_a_zoom_of_two_doubles_lengths():
    bar = np.zeros((*PICTURE, 1), np.uint8)
    bar[8, 8:13] = 1
    _, larger = augment.once([Zoom((2, 2))], bar, bar)
    assert larger[8].sum() == 10 and larger[:, 10].sum() == 2


def test_six_millimetres_of_two_are_three_voxels_towards_higher_indices():
    image = np.random.default_rng(0).normal(size=(*VOLUME, 1)).astype(np.float32)
    for axis in range(3):
        amounts = [(0, 0)] * 3
        amounts[axis] = (6, 6)
        moved = augment.once([Translate(amounts)], image, spacing=(2, 2, 2))
        kept, before = np.moveaxis(moved, axis, 0), np.moveaxis(image, axis, 0)
        np.testing.assert_array_equal(kept[3:], before[:-3])
        np.testing.assert_array_equal(kept[:3], np.broadcast_to(before[0], kept[:3].shape))


def test_the_elements_own_spacing_counts_unless_one_is_given_and_zero_is_unknown():
    picture = places(PICTURE)
    spacings = np.array([[2, 2], [3, 3], [0, 0], [0, 6]], np.float32)
    expected = np.array([[3, 3], [2, 2], [6, 6], [6, 1]])  # voxels
    move = [Translate((6, 6))]
    elements = [{"image": picture, "spacing": one} for one in spacings]
    (batched,) = run(
        [{"image": np.stack([picture] * BATCH), "spacing": spacings}], move, batched=True
    )
    for found in ([one["image"] for one in run(elements, move)], batched["image"]):
        middle = np.stack(found)[:, 10, 12]
        np.testing.assert_array_equal(np.array([10, 12]) - middle, expected)
    for one in run(elements, move, spacing=(1.5, 6)):
        np.testing.assert_array_equal([10, 12] - one["image"][10, 12], [4, 1])


def test_a_shear_slants_one_axis_by_its_angle_and_keeps_areas():
    warp, _ = drawn([Shear((20, 20))], count=1)
    forward = np.linalg.inv(warp.matrix[0])
    assert np.linalg.det(forward) == pytest.approx(1)
    # One of the two axes stays, the other one leans by 20 degrees.
    leaning = sorted(np.rad2deg(np.arctan(np.abs([forward[0, 1], forward[1, 0]]))))
    np.testing.assert_allclose(leaning, [0, 20], atol=1e-4)
    warp, _ = drawn([Shear(30)], shape=VOLUME)
    np.testing.assert_allclose(np.linalg.det(warp.matrix), 1, atol=1e-4)


# Interpolation

WARPED = {
    "volume": (*VOLUME, 1),
    "picture": (*PICTURE, 3),
    "batch": (BATCH, *PICTURE, 1),
    "batch of volumes": (2, 5, 6, 7, 2),
}


def any_warp(shape, batched):
    """A warp that reaches far outside, and where it looks each voxel up, in float64."""
    spatial = shape[1:-1] if batched else shape[:-1]
    rank, count = len(spatial), shape[0] if batched else 1
    rng = np.random.default_rng(len(shape) + rank)
    matrix = np.eye(rank) * 1.2 + rng.normal(0, 0.2, (count, rank, rank))
    offset = rng.uniform(-4, 4, (count, rank))
    displacement = rng.normal(0, 2, (count, rank, *spatial))
    warp = [one.astype(np.float32) for one in (matrix, offset, displacement)]
    middle = centres(spatial).reshape(-1, *[1] * rank)
    positions = [
        np.einsum("ij,j...->i...", m, np.indices(spatial) - middle + u)
        + middle
        + o.reshape(middle.shape)
        for m, o, u in zip(*(one.astype(float) for one in warp), strict=True)
    ]
    return augment.Warp(*(warp if batched else [one[0] for one in warp])), positions


@pytest.mark.parametrize("fill", ["edge", "reflect", -7.5])
@pytest.mark.parametrize("kind", WARPED)
def test_scipy_finds_the_same_values_at_the_same_positions(kind, fill):
    shape, batched = WARPED[kind], kind.startswith("batch")
    rng = np.random.default_rng(3)
    image = rng.normal(0, 100, shape).astype(np.float32)
    mask = rng.integers(0, 200, [*shape[:-1], 1], np.uint8)
    warp, positions = any_warp(shape, batched)
    tensors = tf.constant(image), tf.constant(mask)
    found = augment.resample(*tensors, warp, fill=fill, mask_fill=222, batched=batched)
    found, labels = (one.numpy() for one in found)
    assert found.dtype == np.float32 and labels.dtype == np.uint8
    assert found.shape == image.shape and labels.shape == mask.shape
    parts = zip(*(one if batched else [one] for one in (image, mask, found, labels)), strict=True)
    for (values, classes, moved, kept), places_ in zip(parts, positions, strict=True):
        limits = np.array(values.shape[:-1]).reshape(-1, *[1] * (values.ndim - 1)) - 0.5
        outside = ((places_ < -0.5) | (places_ > limits)).any(0)
        assert outside.mean() > 0.2  # or the test would say little about borders
        unclear = (np.abs(places_ % 1 - 0.5) < TIE).any(0)
        look = functools.partial(
            ndimage.map_coordinates,
            coordinates=places_,
            mode="reflect" if fill == "reflect" else "nearest",
        )
        channels = [values[..., i].astype(float) for i in range(values.shape[-1])]
        expected = np.stack([look(one, order=1) for one in channels], -1)
        nearby = look(classes[..., 0], order=0)
        if isinstance(fill, float):
            expected[outside], nearby[outside] = fill, 222
            expected, moved = expected[~unclear], moved[~unclear]
        np.testing.assert_allclose(moved, expected, atol=2e-3)
        np.testing.assert_array_equal(kept[..., 0][~unclear], nearby[~unclear])


def test_a_number_fills_from_half_a_voxel_beyond_the_border():
    row = np.array([[10, 20, 30, 40]], np.float32)
    image = tf.constant(np.stack([row] * 4)[..., None])
    offset = np.array([[0, -0.4], [0, -0.6], [0, 0.4], [0, 0.6]], np.float32)
    warp = augment.Warp(np.stack([np.eye(2, dtype=np.float32)] * 4), offset)
    mask = tf.cast(image, tf.uint8)
    found, labels = augment.resample(image, mask, warp, fill=-1000, mask_fill=255, batched=True)
    expected = [[10, 16, 26, 36], [-1000, 14, 24, 34], [14, 24, 34, 40], [16, 26, 36, -1000]]
    np.testing.assert_allclose(found[:, 0, :, 0], expected, rtol=1e-5)
    named = [[10, 20, 30, 40], [255, 10, 20, 30], [10, 20, 30, 40], [20, 30, 40, 255]]
    np.testing.assert_array_equal(labels[:, 0, :, 0], named)


def test_a_stage_fills_image_and_mask_at_the_same_places():
    image, mask = np.ones((*PICTURE, 1), np.float32), np.full((*PICTURE, 1), 3, np.uint8)
    pieces = [Rotate((30, 30)), Translate((5, 5))]
    moved, labels = augment.once(pieces, image, mask, fill=-1000, mask_fill=255)
    assert set(np.unique(labels)) == {3, 255}
    np.testing.assert_array_equal(moved == -1000, labels == 255)


@functools.cache
def resampler(fill, rank: int):
    """`resample` for shapes that are not known, so that each new one costs nothing."""
    spatial = [None] * rank
    signature = [
        tf.TensorSpec([*spatial, 1], tf.float32),
        tf.TensorSpec([*spatial, 1], tf.uint8),
        tf.TensorSpec([rank, rank], tf.float32),
        tf.TensorSpec([rank], tf.float32),
        tf.TensorSpec([rank, *spatial], tf.float32),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def look_up(image, mask, matrix, offset, displacement):
        warp = augment.Warp(matrix, offset, displacement)
        return augment.resample(image, mask, warp, fill=fill, mask_fill=255)

    return look_up


amounts = st.floats(0, 1, width=32)
pieces_of_any_amount = st.lists(
    st.one_of(
        st.builds(lambda axis: Flip(axis), st.sampled_from("yx")),
        st.builds(lambda a: Rotate(180 * a), amounts),
        st.builds(lambda a: Shear(30 * a), amounts),
        st.builds(lambda a, each: Zoom(4 * a, each_axis=each), amounts, st.booleans()),
        st.builds(lambda a: Translate(50 * a), amounts),
    ),
    max_size=4,
)
elastic = st.one_of(
    st.just([]),
    st.builds(lambda a, grid: [Elastic(0.4 * a * grid, grid)], amounts, st.floats(1, 30)),
)


@many
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=3),
    pieces=pieces_of_any_amount,
    bend=elastic,
    spacing=st.lists(st.floats(0.5, 8, width=32), min_size=3, max_size=3),
    fill=st.sampled_from(["edge", "reflect", -1000.0]),
    seed=st.integers(0, 2**31),
)
def test_no_move_invents_labels_or_values(shape, pieces, bend, spacing, fill, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 100, [*shape, 1]).astype(np.float32)
    mask = rng.choice(np.array([0, 1, 7, 200], np.uint8), [*shape, 1])
    warp, _ = augment.draw(pieces + bend, shape, (seed, 5), spacing[: len(shape)])
    displacement = warp.displacement
    if displacement is None:
        displacement = np.zeros((len(shape), *shape), np.float32)
    look_up = resampler(fill, len(shape))
    found, labels = (one.numpy() for one in look_up(image, mask, *warp[:2], displacement))
    filled = isinstance(fill, float)
    assert set(np.unique(labels)) <= set(np.unique(mask)) | ({255} if filled else set())
    kept = found[found != fill] if filled else found
    assert np.isfinite(found).all()
    if kept.size:
        slack = 1e-4 * max(1, np.abs(image).max())
        assert image.min() - slack <= kept.min() and kept.max() <= image.max() + slack
    if filled:
        np.testing.assert_array_equal(found == fill, labels == 255)


@pytest.mark.parametrize("shape", [(2, 1, 13), (1, 1, 1)])
def test_axes_of_one_and_two_voxels_survive_every_piece_of_a_stage(shape):
    pieces = [Flip("z"), *RANDOM["all"]]
    element = {"image": places(shape), "mask": ids(shape)}
    for after in run([element] * 3, pieces):
        expected, sure = nearest(element["mask"], after["image"])
        np.testing.assert_array_equal(after["mask"][..., 0][sure], expected[sure])


# Nothing to do is nothing done

NOTHING = [
    Rotate(0),
    Rotate((0, 0)),
    Shear(0),
    Zoom(0),
    Zoom((1, 1), each_axis=True),
    Translate(0),
    Elastic(0),
    Flip("x", p=0),
]


def values(shape, dtype) -> np.ndarray:
    rng = np.random.default_rng(7)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return (rng.normal(0, 1, shape) * 10.0 ** rng.integers(-6, 6, shape)).astype(dtype)


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ((*VOLUME, 1), np.int16),
        ((*VOLUME, 1), np.float32),
        ((8, 10, 12, 2), np.float32),
        ((*PICTURE, 3), np.uint8),
        ((BATCH, *PICTURE, 1), np.float32),
    ],
)
def test_no_amount_is_the_identity_to_the_bit(shape, dtype):
    image, mask = values(shape, dtype), ids(shape[:-1])
    batched = len(shape) == 4 and shape[0] == BATCH
    rank = len(shape) - 1 - batched
    (after,) = run(
        [{"image": image, "mask": mask}],
        NOTHING,
        spacing=(2.5, 0.7, 0.9)[:rank],
        batched=batched,
        fill=-5,
        mask_fill=9,
    )
    assert after["image"].dtype == np.float32 and after["mask"].dtype == np.uint8
    np.testing.assert_array_equal(after["image"], image.astype(np.float32))
    np.testing.assert_array_equal(after["mask"], mask)


@pytest.mark.parametrize("shape", [(*VOLUME, 1), (*PICTURE, 3)])
def test_what_never_acts_is_the_identity_to_the_bit(shape):
    image, mask = values(shape, np.int16), ids(shape[:-1])
    pieces = [Rotate(90, p=0), Zoom(1, p=0), Elastic(4, p=0), Translate(9, p=0), Shear(9, p=0)]
    moved, labels = augment.once(pieces, image, mask)
    np.testing.assert_array_equal(moved, image.astype(np.float32))
    np.testing.assert_array_equal(labels, mask)


def test_in_a_batch_those_on_which_nothing_acts_stay_as_they_are_to_the_bit():
    image = np.stack([values((*PICTURE, 1), np.float32)] * BATCH)
    mask = np.stack([ids(PICTURE)] * BATCH)
    pieces = [Rotate((20, 30), p=0.3), Elastic(2, grid=6, p=0.3)]
    after = run([{"image": image, "mask": mask}] * 10, pieces, batched=True)
    found = [np.stack([one[key] for one in after]) for key in ("image", "mask")]
    same = (found[0] == image).all((2, 3, 4))
    kept = (found[1] == mask).all((2, 3, 4))
    np.testing.assert_array_equal(same, kept)
    # 0.7 * 0.7 of 40
    assert stats.binomtest(int(same.sum()), same.size, 0.49).pvalue > SURE
    assert (same.any(1) & ~same.all(1)).any()


# Flips


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_flips_alone_keep_every_value(dtype):
    image, mask = values((*VOLUME, 1), dtype), ids(VOLUME)
    moved, labels = augment.once([Flip("z", p=1), Flip("x", p=1)], image, mask)
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, image[::-1, :, ::-1].astype(np.float32))
    np.testing.assert_array_equal(labels, mask[::-1, :, ::-1])
    twice = augment.once([Flip("y", p=1), Flip("y", p=1)], image)
    np.testing.assert_array_equal(twice, image.astype(np.float32))


@pytest.mark.parametrize("more", [[], [Translate(0)]], ids=["flips alone", "among others"])
def test_sides_that_are_classes_change_names_with_the_sides(more):
    mask = np.array([0, 1, 2, 3, 4, 255], np.uint8)[ids(PICTURE, 6)]
    swapped = np.array([0, 1, 2, 4, 3], np.uint8)[np.where(mask == 255, 0, mask)]
    swapped = np.where(mask == 255, 255, swapped).astype(np.uint8)
    pieces = [Flip("x", p=0.5, swap_ids={3: 4, 4: 3}), *more]
    image = places(PICTURE)
    single = run([{"image": image, "mask": mask}] * 20, pieces)
    batch = {"image": np.stack([image] * BATCH), "mask": np.stack([mask] * BATCH)}
    batches = run([batch] * 5, pieces, batched=True)
    both = [(one["image"], one["mask"]) for one in single]
    both += [pair for b in batches for pair in zip(b["image"], b["mask"], strict=True)]
    flipped = 0
    for moved, found in both:
        if moved[0, 0, 1] > 0:
            flipped += 1
            np.testing.assert_array_equal(found, swapped[:, ::-1])
        else:
            np.testing.assert_array_equal(found, mask)
    assert 8 < flipped < 32


@pytest.mark.parametrize("axes", ["", "x", "y", "z", "yx", "zx", "zyx"])
def test_a_flip_without_chance_is_undone_by_itself(axes):
    image = values((2, *VOLUME, 1), np.int16)
    mirrored = augment.flip(image, axes)
    where = [{"z": 1, "y": 2, "x": 3}[axis] for axis in axes]
    np.testing.assert_array_equal(mirrored, np.flip(image, where))
    assert np.array_equal(mirrored, image) == (not axes)
    np.testing.assert_array_equal(augment.flip(mirrored, axes), image)


def test_the_axes_of_a_flip_are_the_last_ones_before_the_channels():
    picture = places(PICTURE)
    np.testing.assert_array_equal(augment.flip(picture, "x"), picture[:, ::-1])
    np.testing.assert_array_equal(augment.flip(picture, ["y"]), picture[::-1])
    for axes in ("z", "c", ["xy"]):
        with pytest.raises(ValueError, match="no axis"):
            augment.flip(picture, axes)


def test_mirrored_predictions_of_what_moves_along_are_the_prediction():
    images = values((2, *PICTURE, 3), np.float32) / 1e3
    same = augment.predict_flipped(lambda batch: batch, images, "yx")
    assert same.dtype == np.float32
    np.testing.assert_array_equal(same, images)
    squares = augment.predict_flipped(lambda batch: batch[..., :1] ** 2, images, ["x"])
    np.testing.assert_array_equal(squares, images[..., :1] ** 2)


def test_mirrored_predictions_of_what_does_not_move_along_are_averaged_by_hand():
    images = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)  # 0 1 / 2 3

    def corner(batch):  # what lies in the corner, wherever the patient was turned
        return np.broadcast_to(batch[:, :1, :1], batch.shape)

    # The corners are 0, 1 (x mirrored), 2 (y), 3 (both): mirroring a constant changes nothing.
    np.testing.assert_array_equal(
        augment.predict_flipped(corner, images, "yx"), np.full_like(images, 1.5)
    )
    np.testing.assert_array_equal(
        augment.predict_flipped(corner, images, "x"), np.full_like(images, 0.5)
    )

    def left(batch):  # each voxel and a ramp that does not turn with the patient
        return batch + np.array([0, 10], np.float32)[:, None]

    expected = images + 5
    np.testing.assert_array_equal(augment.predict_flipped(left, images, "x"), expected)
    np.testing.assert_array_equal(augment.predict_flipped(left, images, "y"), left(images))


def test_predictions_of_another_shape_or_with_nan_are_refused():
    images = np.ones((1, 4, 4, 1), np.float32)
    with pytest.raises(ValueError, match=r"\(1, 4, 1\).*expected the same shape"):
        augment.predict_flipped(lambda batch: batch[:, 0], images, "x")
    with pytest.raises(CourseDataError) as refused:
        augment.predict_flipped(lambda batch: batch * np.inf, images, "x")
    assert refused.value.code == "NOT_FINITE"


# What is drawn


def test_rotations_are_spread_evenly_between_their_limits():
    warp, _ = drawn([Rotate(15)])
    np.testing.assert_allclose(np.linalg.det(warp.matrix), 1, atol=1e-5)
    assert evenly(degrees(warp.matrix, 0, 1), -15, 15)
    warp, _ = drawn([Rotate((5, 40))])
    assert evenly(degrees(warp.matrix, 0, 1), 5, 40)
    for amounts_, (i, j), limit in (
        ((10, 0, 0), (1, 2), 10),
        ((0, 7, 0), (2, 0), 7),
        ((0, 0, 5), (0, 1), 5),
    ):
        warp, _ = drawn([Rotate(amounts_)], shape=VOLUME)
        assert evenly(degrees(warp.matrix, i, j), -limit, limit)


def test_zooms_are_as_often_smaller_as_larger():
    warp, _ = drawn([Zoom(0.25)], shape=VOLUME)
    factors = 1 / np.diagonal(warp.matrix, axis1=1, axis2=2)
    np.testing.assert_allclose(factors, factors[:, :1].repeat(3, 1), rtol=1e-6)
    assert evenly(np.log(factors[:, 0]), -math.log(1.25), math.log(1.25))
    warp, _ = drawn([Zoom((0.5, 2), each_axis=True)], shape=VOLUME)
    factors = 1 / np.diagonal(warp.matrix, axis1=1, axis2=2)
    for i in range(3):
        assert evenly(np.log2(factors[:, i]), -1, 1)
        assert stats.pearsonr(factors[:, i], factors[:, i - 1]).pvalue > SURE


def test_shifts_and_shears_are_spread_evenly_along_each_axis_by_itself():
    warp, _ = drawn([Translate(6)], shape=VOLUME, spacing=(3, 1, 2))
    limits = np.array([2, 6, 3])  # voxels
    for i in range(3):
        assert evenly(warp.offset[:, i], -limits[i], limits[i])
        assert stats.pearsonr(warp.offset[:, i], warp.offset[:, i - 1]).pvalue > SURE
    warp, _ = drawn([Translate((1, 3, 0))], shape=VOLUME)
    assert evenly(warp.offset[:, 0], -1, 1) and evenly(warp.offset[:, 1], -3, 3)
    assert (warp.offset[:, 2] == 0).all()
    warp, _ = drawn([Shear(20)])
    assert evenly(np.rad2deg(np.arctan(warp.matrix[:, 0, 1])), -20, 20)


def test_pieces_act_as_often_as_they_should_and_independently_of_each_other():
    pieces = [Rotate(9, p=0.2), Flip("x"), Elastic(1, p=0.7), Zoom(0.2), Translate(1, p=0)]
    warp, gates = drawn(pieces, shape=(5, 5), count=2000)
    assert set(np.unique(gates)) == {0, 1}
    for acts, piece in zip(gates, pieces, strict=True):
        assert stats.binomtest(int(acts.sum()), acts.size, piece.p).pvalue > SURE
    cells = np.bincount((gates[:3] * [[4], [2], [1]]).sum(0).astype(int), minlength=8)
    odds = [a * b * c * cells.sum() for a in (0.8, 0.2) for b in (0.5, 0.5) for c in (0.3, 0.7)]
    assert stats.chisquare(cells, odds).pvalue > SURE
    # What is drawn comes true.
    np.testing.assert_array_equal(np.linalg.det(warp.matrix) < 0, gates[1] == 1)
    np.testing.assert_array_equal(np.abs(warp.displacement).max((1, 2, 3)) > 0, gates[2] == 1)
    # How much and whether have nothing to do with each other, nor have two pieces.
    turns = degrees(drawn([Rotate(9, p=0.5), Rotate(9)], count=2000)[0].matrix, 0, 1)
    gates = drawn([Rotate(9, p=0.5), Rotate(9)], count=2000)[1]
    assert stats.ttest_ind(turns[gates[0] == 1], turns[gates[0] == 0]).pvalue > SURE


def test_two_equal_pieces_draw_different_amounts():
    warp, _ = drawn([Translate(3), Translate(3)], count=4000)
    # The sum of two even spreads is a triangle; of one twice it would be even.
    shifts = -warp.offset[:, 0] / 6
    assert stats.kstest(shifts, "triang", (0.5, -1, 2)).pvalue > SURE


def test_a_stage_flips_as_often_as_it_should():
    picture = places((2, 3))
    after = run([{"image": picture}] * 600, [Flip("x", p=0.3)])
    flipped = sum(int(one["image"][0, 0, 1] == 2) for one in after)
    assert stats.binomtest(flipped, 600, 0.3).pvalue > SURE


def test_elements_of_a_batch_draw_different_amounts():
    image = np.stack([places(PICTURE)] * BATCH)
    for name in ("rotate", "shear", "zoom", "translate", "elastic"):
        (after,) = run([{"image": image}], RANDOM[name], batched=True)
        for i in range(BATCH):
            for j in range(i):
                assert np.abs(after["image"][i] - after["image"][j]).max() > 0.05, name


# Elastic warps


def control_points(field: np.ndarray, shape, spacing, grid) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients, by least squares, and the field that SciPy's B-splines make of them."""
    inverses, bases = [], []
    for n, mm in zip(shape, spacing, strict=True):
        half = (n - 1) / 2 * mm / grid
        assert half == int(half)  # or a control point at the border could not be told
        reach = int(half) + 1
        knots = np.arange(-reach - 2, reach + 3, dtype=float)
        place = (np.arange(n) - (n - 1) / 2) * mm / grid
        splines = [BSpline.basis_element(knots[i : i + 5], False) for i in range(2 * reach + 1)]
        basis = np.stack([np.nan_to_num(one(place)) for one in splines], -1)
        bases.append(basis)
        inverses.append(np.linalg.pinv(basis))
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
    warp, _ = drawn([Elastic(limit, grid)], count=40, shape=shape, spacing=spacing)
    mm = np.array(spacing, float).reshape(-1, *[1] * len(shape))
    field = warp.displacement.astype(float) * mm
    assert np.abs(field).max() <= limit
    points, expected = control_points(field, shape, spacing, grid)
    np.testing.assert_allclose(field, expected, atol=1e-5)
    if min(shape) > 1:
        assert evenly(points.ravel(), -limit - 1e-3, limit + 1e-3)
    # Each axis bends by itself.
    first, second = points[:, 0].ravel(), points[:, 1].ravel()
    assert stats.pearsonr(first, second).pvalue > SURE


def test_the_bend_in_mm_does_not_depend_on_the_size_of_voxels():
    fine, _ = augment.draw([Elastic(3, grid=8)], (17, 13), (4, 5), (1, 1))
    coarse, _ = augment.draw([Elastic(3, grid=8)], (9, 7), (4, 5), (2, 2))
    flat, _ = augment.draw([Elastic(3, grid=8)], (17, 7), (4, 5), (1, 2))
    whole = fine.displacement.numpy()
    np.testing.assert_allclose(coarse.displacement * 2, whole[:, ::2, ::2], atol=1e-5)
    mm = flat.displacement.numpy() * np.array([1, 2]).reshape(2, 1, 1)
    np.testing.assert_allclose(mm, whole[:, :, ::2], atol=1e-5)


@pytest.mark.parametrize("more", [[], [Rotate(30), Shear(20), Zoom(0.3)]])
@pytest.mark.parametrize("shape, spacing", [((33, 41), (1, 0.5)), ((17, 17, 21), (1, 1, 0.8))])
def test_at_its_limit_no_bend_folds(shape, spacing, more):
    for number in range(12):
        pieces = [*more, Elastic(3.2, grid=8)]
        warp, _ = augment.draw(pieces, shape, (number, 1), spacing)
        positions = augment.coordinates(warp, shape).numpy().astype(float)
        slopes = [np.gradient(one) for one in positions]
        jacobian = np.moveaxis(np.array(slopes), (0, 1), (-2, -1))
        assert np.linalg.det(jacobian).min() > 0


@pytest.mark.parametrize("displacement, grid", [(3.21, 8), (4.1, 10), (0.5, 1)])
def test_a_bend_that_could_fold_is_refused(displacement, grid):
    Elastic(0.4 * grid, grid)
    with pytest.raises(ValueError, match=f"at most {0.4 * grid:g} mm"):
        Elastic(displacement, grid)


# The stream

EVERYTHING = [
    Flip("x"),
    Rotate(20, p=0.8),
    Elastic(2, grid=6),
    augment.Contrast(0.3),
    augment.Noise(0.2),
    augment.Cutout(0.3),
]


def pictures(count=12):
    rng = np.random.default_rng(2)
    image = rng.normal(size=(count, *PICTURE, 2)).astype(np.float32)
    mask = rng.integers(0, 4, (count, *PICTURE, 1), np.uint8)
    return tf.data.Dataset.from_tensor_slices({"image": image, "mask": mask})


def both(dataset) -> list[np.ndarray]:
    elements = list(dataset.as_numpy_iterator())
    return [np.stack([one[key] for one in elements]) for key in ("image", "mask")]


def test_one_seed_is_one_stream_with_one_thread_and_with_eight():
    runs = [
        both(pictures().apply(augment.stage(EVERYTHING, seed=3, num_parallel_calls=n)))
        for n in (1, 8, 8)
    ]
    for other in runs[1:]:
        for one, again in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(one, again)
    (image, _) = both(pictures().apply(augment.stage(EVERYTHING, seed=4)))
    assert (image != runs[0][0]).any((1, 2, 3)).all()


def test_every_epoch_draws_anew():
    dataset = pictures(6).apply(augment.stage(EVERYTHING, seed=3))
    repeated = pictures(6).repeat(2).apply(augment.stage(EVERYTHING, seed=3))
    (first, _), (second, _), (twice, _) = both(dataset), both(dataset), both(repeated)
    for one, other in ((first, second), (twice[:6], twice[6:])):
        assert (one != other).any((1, 2, 3)).all()
    # The first epoch is the first one either way.
    np.testing.assert_array_equal(first, twice[:6])


def test_the_seed_of_once_draws_other_amounts():
    image = places(PICTURE)
    one, same, other = (augment.once(RANDOM["rotate"], image, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_other_fields_shapes_and_length_stay():
    element = {
        "image": values((*VOLUME, 1), np.int16),
        "mask": ids(VOLUME),
        "label": np.int32(3),
        "weight": np.float32(0.5),
        "spacing": np.array([3, 1, 1], np.float32),
        "case": "Case 7",
        "modality": "CT",
        "prior": np.arange(4.0),
    }
    dataset = tf.data.Dataset.from_tensors(element).repeat(3)
    after = dataset.apply(augment.stage([*RANDOM["all"], augment.Noise(1)], seed=1))
    kept = dict(dataset.element_spec) | {"image": tf.TensorSpec((*VOLUME, 1), tf.float32)}
    assert after.element_spec == kept
    assert after.cardinality() == 3
    for found in after.as_numpy_iterator():
        for key in element.keys() - {"image", "mask", "case", "modality"}:
            np.testing.assert_array_equal(found[key], element[key])
            assert found[key].dtype == element[key].dtype
        assert (found["case"], found["modality"]) == (b"Case 7", b"CT")


@pytest.mark.parametrize("shape", [VOLUME, PICTURE], ids=["volume", "picture"])
def test_unknown_shapes_give_the_same_as_known_ones(shape):
    rng = np.random.default_rng(2)
    image = ndimage.gaussian_filter(rng.normal(0, 9, shape), 1).astype(np.float32)[..., None]
    element = {"image": image, "mask": ids(shape), "spacing": np.float32(SPACING[len(shape)])}
    pieces = [
        *RANDOM["all"],
        augment.Brightness((3, 3)),
        augment.Contrast((1.3, 1.3)),
        augment.Gamma((0.3, 0.3)),
        augment.Clip(-20, 20),
    ]
    known = tf.data.Dataset.from_tensors(element)
    signature = {
        "image": tf.TensorSpec([None] * len(shape) + [1], tf.float32),
        "mask": tf.TensorSpec([None] * len(shape) + [1], tf.uint8),
        "spacing": tf.TensorSpec([len(shape)], tf.float32),
    }
    unknown = tf.data.Dataset.from_generator(lambda: [element] * 3, output_signature=signature)
    augmented = unknown.apply(augment.stage(pieces, seed=6))
    assert augmented.element_spec == signature
    expected = both(known.repeat(3).apply(augment.stage(pieces, seed=6)))
    found = both(augmented)
    np.testing.assert_allclose(found[0], expected[0], atol=2e-3)
    assert (found[1] == expected[1]).mean() > 0.995  # where two voxels are equally near


def test_where_nothing_can_be_compiled_the_same_comes_out(monkeypatch):
    element, pieces = {"image": places(VOLUME), "mask": ids(VOLUME)}, RANDOM["all"]
    compiled = run([element] * 2, pieces)
    monkeypatch.setattr(augment.warp, "xla_works", lambda: False)
    for one, other in zip(run([element] * 2, pieces), compiled, strict=True):
        np.testing.assert_allclose(one["image"], other["image"], atol=1e-4)
        assert (one["mask"] == other["mask"]).mean() > 0.995


def test_images_of_varying_shapes_go_through_one_stage():
    shapes = [(5, 7), (7, 5), (3, 3), (1, 4)]
    signature = {
        "image": tf.TensorSpec([None, None, 2], tf.float32),
        "mask": tf.TensorSpec([None, None, 1], tf.uint8),
    }
    elements = [{"image": places(shape), "mask": ids(shape)} for shape in shapes]
    dataset = tf.data.Dataset.from_generator(lambda: elements, output_signature=signature)
    after = list(dataset.apply(augment.stage(RANDOM["all"], seed=1)).as_numpy_iterator())
    for before, found in zip(elements, after, strict=True):
        assert found["image"].shape == before["image"].shape
        expected, sure = nearest(before["mask"], found["image"])
        np.testing.assert_array_equal(found["mask"][..., 0][sure], expected[sure])


# Errors

IMAGE = np.ones((*PICTURE, 1), np.float32)


def refuse(element, match, error=ValueError, pieces=RANDOM["rotate"], **options):
    dataset = tf.data.Dataset.from_tensors(element)
    with pytest.raises(error, match=match) as refused:
        dataset.apply(augment.stage(pieces, seed=1, **options))
    return refused.value


@pytest.mark.parametrize("element", [IMAGE, (IMAGE, IMAGE), {"picture": IMAGE}])
def test_elements_that_are_no_dicts_with_an_image_are_refused(element):
    refuse(element, "dicts with an `image`")


def test_images_of_a_wrong_rank_are_refused():
    refuse({"image": IMAGE[..., 0]}, r"not of shape \(17, 21\)")
    refuse({"image": np.ones((2, 3, 4, 5, 1))}, "one by one, before .batch")
    refuse({"image": np.ones((2, 3, 4, 5, 1))}, r"\[b, y, x, c\]", batched=True)
    refuse({"image": IMAGE}, r"\[b, y, x, c\]", batched=True)


def test_a_batch_is_not_taken_for_a_volume_nor_a_volume_for_a_batch_where_cases_are_named():
    refuse({"image": IMAGE[None], "case": np.array(["a"])}, "batches: batched=True")
    refuse({"image": IMAGE[None], "case": "a"}, "leave out batched=True", batched=True)


@pytest.mark.parametrize("mask", [(17, 20, 1), (17, 21, 2), (17, 21), (1, 17, 21, 1)])
def test_a_mask_of_another_shape_is_refused_by_name(mask):
    element = {"image": IMAGE, "mask": np.zeros(mask, np.uint8)}
    refused = refuse(element, r"\(17, 21, 1\)", CourseDataError)
    assert refused.code == "MASK_MISMATCH"


@pytest.mark.parametrize("dtype", [np.float32, np.int16, bool, np.int64])
def test_a_mask_that_holds_no_class_ids_is_refused(dtype):
    element = {"image": IMAGE, "mask": np.zeros((*PICTURE, 1), dtype)}
    refused = refuse(element, np.dtype(dtype).name, CourseDataError)
    assert refused.code == "MASK_MISMATCH"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pieces", [[Rotate(5, p=0)], [Flip("x")], [augment.Noise(1)], []])
def test_values_that_are_not_finite_are_refused_with_the_name_of_the_case(bad, pieces):
    image = np.stack([IMAGE] * 2)
    image[1, 3, 4, 0] = bad
    dataset = tf.data.Dataset.from_tensor_slices({"image": image, "case": ["Case 6", "Case 7"]})
    elements = dataset.apply(augment.stage(pieces, seed=1, num_parallel_calls=1))
    iterator = elements.as_numpy_iterator()
    assert np.isfinite(next(iterator)["image"]).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"NOT_FINITE(?s:.)*Case 7") as refused:
        next(iterator)
    assert "Case 6" not in str(refused.value)


def test_values_that_are_not_finite_are_refused_without_a_name_as_well():
    image = IMAGE.copy()
    image[0, 0] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match="NOT_FINITE"):
        augment.once([Rotate(5)], image)


@pytest.mark.parametrize("piece", [Rotate, "rotate", None, 5, lambda image: image])
def test_what_is_no_piece_is_refused(piece):
    with pytest.raises(ValueError, match="is no piece of an augmentation"):
        augment.stage([Flip("x"), piece], seed=1)


@pytest.mark.parametrize("fill", ["constant", "", None, [0]])
def test_an_unknown_fill_is_refused(fill):
    with pytest.raises(ValueError, match='"edge", "reflect" or a finite'):
        augment.stage([Rotate(5)], seed=1, fill=fill)


def test_a_stage_without_a_seed_does_not_exist():
    with pytest.raises(TypeError, match="seed"):
        augment.stage([Rotate(5)])


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize(
    "piece",
    [
        functools.partial(Flip, "x"),
        functools.partial(Rotate, 5),
        functools.partial(Shear, 5),
        functools.partial(Zoom, 0.1),
        functools.partial(Translate, 5),
        functools.partial(Elastic, 1),
    ],
)
def test_a_probability_lies_between_0_and_1(piece, p):
    with pytest.raises(ValueError, match="a probability lies between 0 and 1"):
        piece(p=p)


BAD_AMOUNTS = {
    "rotation in degrees": [(Rotate, bad) for bad in (-1, (2, 1), math.nan, (0, math.inf))]
    + [(Rotate, (5, -1, 5)), (Rotate, (1, 2, 3, 4))],
    "shear": [(Shear, 31), (Shear, (-40, 0)), (Shear, -1)],
    "zoom": [(Zoom, -0.1), (Zoom, (0, 1)), (Zoom, (2, 1)), (Zoom, math.inf), (Zoom, (-1, 1))],
    "shift in mm": [(Translate, -1), (Translate, (2, 1)), (Translate, ((1, 2), (4, 3)))],
    "elastic warp": [(Elastic, -1), (Elastic, math.nan), (functools.partial(Elastic, 0), 0)],
    "an axis is": [(Flip, "a"), (Flip, "xy"), (Flip, 0)],
}


@pytest.mark.parametrize(
    "what, piece, amount", [(what, *one) for what, bad in BAD_AMOUNTS.items() for one in bad]
)
def test_amounts_that_mean_nothing_are_refused(what, piece, amount):
    with pytest.raises(ValueError, match=what):
        piece(amount)


def test_ids_that_change_places_come_in_both_columns():
    Flip("x", swap_ids={1: 2, 2: 3, 3: 1})
    for ids_ in ({3: 4}, {3: 4, 4: 4}, {1: 2, 2: 3}):
        with pytest.raises(ValueError, match="change places"):
            Flip("x", swap_ids=ids_)


def test_pieces_that_do_not_fit_the_image_are_refused():
    refuse({"image": IMAGE}, "2 axes has no axis z", pieces=[Flip("z")])
    refuse({"image": IMAGE}, "2 axes has no axis z", pieces=[Flip("z"), Rotate(5)])
    refuse({"image": IMAGE}, "one amount of degrees", pieces=[Rotate((5, 5, 5))])
    refuse({"image": IMAGE}, "3 shifts for 2 axes", pieces=[Translate((1, 2, 3))])
    refuse({"image": IMAGE}, "give one", pieces=[Elastic(1), Elastic(2)])


def test_a_spacing_of_another_length_is_refused():
    refuse({"image": IMAGE}, r"\(3,\) for images of 2 spatial axes", spacing=(1, 1, 1))
    element = {"image": IMAGE, "spacing": np.ones(3, np.float32)}
    refuse(element, r"\(3,\) for images of 2 spatial axes")


# What is refused while running, and what looked right


RAMP = np.arange(16 * 20, dtype=np.float32).reshape(16, 20, 1)


@pytest.mark.parametrize(
    "piece",
    [
        augment.Brightness(3),
        augment.Offset(2),
        augment.Noise(2),
        augment.Contrast(0.3),
        augment.Gamma(0.3),
        augment.BiasField(0.3),
        augment.Cutout(0.3),
    ],
    ids=lambda piece: type(piece).__name__,
)
def test_unknown_shapes_draw_the_same_grey_values_as_known_ones(piece):
    known = tf.data.Dataset.from_tensors({"image": RAMP})
    signature = {"image": tf.TensorSpec([None, None, 1], tf.float32)}
    unknown = tf.data.Dataset.from_generator(lambda: [{"image": RAMP}], output_signature=signature)
    one, other = (
        next(dataset.apply(augment.stage([piece], seed=6)).as_numpy_iterator())["image"]
        for dataset in (known, unknown)
    )
    np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("piece", [Rotate(10), Rotate(10, p=0), Flip("x")], ids=repr)
@pytest.mark.parametrize("shape", [(20, 16, 1), (20, 20, 1), (8, 8, 1)])
def test_a_mask_of_another_shape_is_refused_while_running(shape, piece):
    element = {"image": RAMP, "mask": np.zeros(shape, np.uint8), "case": "Case 7"}
    signature = {
        "image": tf.TensorSpec([None, None, 1], tf.float32),
        "mask": tf.TensorSpec([None, None, 1], tf.uint8),
        "case": tf.TensorSpec([], tf.string),
    }
    dataset = tf.data.Dataset.from_generator(lambda: [element], output_signature=signature)
    dataset = dataset.apply(augment.stage([piece], seed=1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"MASK_MISMATCH(?s:.)*Case 7"):
        list(dataset)


def test_a_batch_names_the_case_that_is_not_finite():
    image = np.stack([RAMP] * 6)
    image[4, 3, 3] = np.nan
    cases = [f"Case {i}" for i in range(6)]
    dataset = tf.data.Dataset.from_tensors({"image": image, "case": cases})
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"NOT_FINITE(?s:.)*Case 4") as refused:
        list(dataset.apply(augment.stage([Rotate(5)], seed=1, batched=True)))
    assert "Case 1" not in str(refused.value)


@pytest.mark.parametrize("mask_fill", [300, -1, 1.5])
def test_a_class_id_outside_is_one_that_a_mask_can_hold(mask_fill):
    with pytest.raises(ValueError, match="mask_fill"):
        augment.stage([Translate(5)], seed=1, fill=0, mask_fill=mask_fill)


@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_what_fills_an_image_is_finite(fill):
    with pytest.raises(ValueError, match="fill"):
        augment.stage([Translate(5)], seed=1, fill=fill)
    with pytest.raises(ValueError):
        augment.Cutout(0.3, value=fill)


@pytest.mark.parametrize("ids", [{300: 301, 301: 300}, {-1: 1, 1: -1}])
def test_ids_that_change_places_are_ones_that_a_mask_can_hold(ids):
    with pytest.raises(ValueError):
        Flip("x", swap_ids=ids)


def test_a_batch_of_pictures_has_no_z_to_mirror():
    with pytest.raises(ValueError, match="no axis 'z'"):
        augment.predict_flipped(lambda batch: batch, np.ones((3, 4, 4, 1), np.float32), "z")


def test_arrays_are_resampled_as_tensors_are():
    mask = np.ones((16, 20, 1), np.uint8)
    warp, _ = augment.draw([Rotate(10)], (16, 20), (1, 2))
    found, labels = augment.resample(RAMP, mask, warp)
    expected, _ = augment.resample(tf.constant(RAMP), tf.constant(mask), warp)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, mask)


@pytest.mark.parametrize("spacing", [np.float32(2), 2.0])
def test_a_spacing_without_axes_is_refused(spacing):
    dataset = tf.data.Dataset.from_tensors({"image": RAMP})
    with pytest.raises(ValueError, match="spacing"):
        dataset.apply(augment.stage([Rotate(5)], seed=1, spacing=spacing))


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_a_spacing_of_any_number_is_taken(dtype):
    dataset = tf.data.Dataset.from_tensors({"image": RAMP, "spacing": np.array([2, 1], dtype)})
    list(dataset.apply(augment.stage([Rotate(5)], seed=1)))


def test_values_beyond_float32_are_not_finite():
    image = np.full((16, 20, 1), 1e300)
    with pytest.raises(tf.errors.InvalidArgumentError, match="NOT_FINITE"):
        augment.once([Rotate(5)], image)


@pytest.mark.parametrize("amount", [None, (1, 2)])
def test_a_sigma_that_is_no_number_is_a_value_error(amount):
    with pytest.raises(ValueError):
        augment.Offset(amount)


@pytest.mark.parametrize(
    "piece", [augment.Brightness, Rotate, Translate, augment.Zoom, augment.Noise]
)
def test_numbers_of_numpy_are_numbers(piece):
    piece(np.float32(0.5))


def test_the_mask_fill_outside_is_not_swapped():
    mask = np.full((16, 20, 1), 1, np.uint8)
    pieces = [Translate((5, 5)), Flip("x", p=1, swap_ids={3: 4, 4: 3})]
    _, labels = augment.once(pieces, RAMP, mask, fill=0, mask_fill=3)
    assert set(np.unique(labels)) == {1, 3}


@pytest.mark.parametrize("image", [(16, 20, 1), (None, None, 1)])
def test_a_mask_whose_shape_alone_is_not_known_is_compared_while_running(image):
    element = {"image": RAMP, "mask": np.zeros((32, 40, 1), np.uint8)}
    signature = {
        "image": tf.TensorSpec(image, tf.float32),
        "mask": tf.TensorSpec([None, None, None], tf.uint8),
    }
    for wrong in ((32, 40, 1), (16, 20, 2)):
        element["mask"] = np.zeros(wrong, np.uint8)
        dataset = tf.data.Dataset.from_generator(lambda: [element], output_signature=signature)
        with pytest.raises(tf.errors.InvalidArgumentError, match="MASK_MISMATCH"):
            list(dataset.apply(augment.stage([Rotate(5)], seed=1)))


@pytest.mark.parametrize("number", [np.int16(-1000), np.float32(-1000), -1000, -1000.0])
def test_a_number_of_any_kind_fills_what_is_outside(number):
    warping._compiled.cache_clear()  # what was compiled for an equal number must not help
    mask = np.ones((16, 20, 1), np.uint8)
    image, ids_ = augment.once([Translate((3, 3))], RAMP, mask, fill=number, mask_fill=255)
    assert image.min() == -1000 and set(np.unique(ids_)) == {1, 255}


def test_resample_checks_what_it_is_given():
    place, _ = augment.draw([Rotate(10)], (16, 20), (1, 2))
    with pytest.raises(ValueError, match="fill"):
        augment.resample(RAMP, None, place, fill="constant")
    with pytest.raises(CourseDataError, match="MASK_MISMATCH"):
        augment.resample(RAMP, np.zeros((16, 21, 1), np.uint8), place)


def test_a_single_slice_is_never_outside_of_itself():
    image = np.arange(16 * 20, dtype=np.float32).reshape(1, 16, 20, 1) + 1
    found = augment.once([Translate(((5, 5), (0, 0), (0, 0)))], image, fill=-1000)
    np.testing.assert_array_equal(found, image)


def test_crops_come_before_augmentation_when_runs_were_located():
    dataset = tf.data.Dataset.from_tensors(
        {"image": RAMP, "mask": np.ones((16, 20, 1), np.uint8)}
    ).apply(crops.locate())
    with pytest.raises(ValueError, match="crop before you augment"):
        dataset.apply(augment.stage([Flip("x")], seed=1))
    list(dataset.apply(augment.stage([augment.Noise(1)], seed=1)))


def test_a_batch_shows_by_the_spacing_that_it_holds():
    picture = {"image": RAMP, "spacing": np.ones(2, np.float32)}
    batches = tf.data.Dataset.from_tensors(picture).repeat(4).batch(4)
    with pytest.raises(ValueError, match="batched=True"):
        batches.apply(augment.stage([Rotate(5)], seed=1))
    list(batches.apply(augment.stage([Rotate(5)], seed=1, batched=True)))


@pytest.mark.parametrize("pieces", [Flip("x"), augment.ct])
def test_pieces_come_as_a_list(pieces):
    with pytest.raises(ValueError, match="pieces are a list"):
        augment.stage(pieces, seed=1)
