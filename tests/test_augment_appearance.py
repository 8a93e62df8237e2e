"""Grey values change by the stated amounts, against NumPy by hand; and the presets."""

import functools
import math

import numpy as np
import pytest
from scipy import stats

from helpers import augment, quiet
from helpers.augment import (
    BiasField,
    Brightness,
    Clip,
    Contrast,
    Cutout,
    Elastic,
    Flip,
    Gamma,
    Hue,
    Noise,
    Offset,
    Saturation,
)

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

VOLUME, PICTURE, BATCH = (7, 9, 11, 1), (16, 20, 3), (4, 16, 20, 3)
SURE = 1e-4  # a right law is called wrong once in ten thousand fixed seeds
LUMINANCE = np.array([0.299, 0.587, 0.114])


def values(shape, low=0, high=255, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def act(piece, image, *, seed=1, batched=False) -> np.ndarray:
    """What one piece makes of an image, without compiling."""
    drawn = piece.draw(tf.constant(image.shape), tf.constant([seed, 2], tf.int64), batched)
    changed = piece.change(tf.constant(image, tf.float32), drawn, batched)
    assert changed.dtype == tf.float32 and changed.shape == image.shape
    return changed.numpy()


def staged(pieces, image, count, *, seed=1) -> np.ndarray:
    """What a stage makes of equal images, one after the other."""
    dataset = tf.data.Dataset.from_tensors({"image": image}).repeat(count)
    after = dataset.apply(augment.stage(pieces, seed=seed))
    return np.stack([one["image"] for one in after.as_numpy_iterator()])


def evenly(found: np.ndarray, low: float, high: float) -> bool:
    """Whether values lie between the limits and are spread evenly."""
    slack = 1e-3 * (high - low)
    inside = low - slack <= found.min() and found.max() <= high + slack
    return inside and stats.kstest(found, "uniform", (low, high - low)).pvalue > SURE


# Each piece by hand


def bent(image, log_gamma):
    low, size = image.min(), np.ptp(image)
    return low + size * ((image - low) / size) ** math.exp(log_gamma)


def turned(image, degrees):
    """By its colour differences: U is how much more blue than grey, V how much more red."""
    y = image @ LUMINANCE
    u, v = 0.492 * (image[..., 2] - y), 0.877 * (image[..., 0] - y)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u, v = c * u + s * v, c * v - s * u
    red, blue = v / 0.877 + y, u / 0.492 + y
    return np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], -1)


def paler(image, factor):
    y = (image @ LUMINANCE)[..., None]
    return y + factor * (image - y)


BY_HAND = {
    "brightness": (Brightness((5, 5)), lambda x: x + 5),
    "darker": (Brightness((-0.25, -0.25)), lambda x: x - 0.25),
    "relative brightness": (Brightness((0.5, 0.5), relative=True), lambda x: x + 0.5 * x.std()),
    "contrast": (Contrast((1.4, 1.4)), lambda x: x.mean() + 1.4 * (x - x.mean())),
    "no contrast": (Contrast((0, 0)), lambda x: np.full_like(x, x.mean())),
    "gamma": (Gamma((0.5, 0.5)), lambda x: bent(x, 0.5)),
    "brighter gamma": (Gamma((-0.5, -0.5)), lambda x: bent(x, -0.5)),
    "clip": (Clip(40, 200), lambda x: np.clip(x, 40, 200)),
    "cut out all": (Cutout(1, value=3), lambda x: np.full_like(x, 3)),
    "cut out by the mean": (Cutout(1), lambda x: x.mean(tuple(range(x.ndim - 1))) + 0 * x),
}
COLOUR = {
    "hue": (Hue((30, 30)), lambda x: turned(x, 30)),
    "hue back": (Hue((-100, -100)), lambda x: turned(x, -100)),
    "saturation": (Saturation((1.5, 1.5)), lambda x: paler(x, 1.5)),
    "grey": (Saturation((0, 0)), lambda x: paler(x, 0)),
}


@pytest.mark.parametrize("name", BY_HAND | COLOUR)
def test_a_fixed_amount_does_what_numpy_does_by_hand(name):
    piece, expected = (BY_HAND | COLOUR)[name]
    # U and V are known to three digits only.
    close = functools.partial(np.testing.assert_allclose, atol=0.5 if "hue" in name else 1e-2)
    picture = values(PICTURE)
    close(act(piece, picture), expected(picture.astype(float)))
    if name in BY_HAND:
        volume = values(VOLUME)
        close(act(piece, volume), expected(volume.astype(float)))
    batch = values(BATCH) * np.array([1, 0.5, 0.1, 2]).reshape(4, 1, 1, 1)
    for found, one in zip(act(piece, batch, batched=True), batch, strict=True):
        close(found, expected(one.astype(float)))


def test_a_stage_applies_pieces_in_their_order_and_gives_float32():
    picture = np.random.default_rng(1).integers(-1000, 3000, (16, 20, 1), np.int16)
    pieces = [Brightness((100, 100)), Contrast([1.5, 1.5]), Clip(-500, 500), Gamma((0.4, 0.4))]

    def by_hand(x):
        x = x.astype(float) + 100
        x = np.clip(x.mean() + 1.5 * (x - x.mean()), -500, 500)
        return bent(x, 0.4)

    found = augment.once(pieces, picture)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(picture), atol=0.1)
    clipped_first = augment.once([Clip(-500, 500), Brightness((100, 100))], picture)
    np.testing.assert_array_equal(clipped_first, np.clip(picture, -500, 500) + 100.0)


def test_grey_values_change_after_the_move_wherever_the_piece_stands():
    picture = values((16, 20, 1))
    shift = augment.Translate(((0, 0), (3, 3)))
    pieces = [Cutout(1, value=7), shift]
    np.testing.assert_array_equal(augment.once(pieces, picture, fill=-1), np.full_like(picture, 7))


# What is drawn

MANY = 1500


def spread(piece, image, count=MANY) -> np.ndarray:
    """Results for many draws, as one batch."""
    return act(piece, np.broadcast_to(image, (count, *image.shape)), batched=True)


def test_amounts_are_spread_evenly_between_their_limits():
    zero = np.zeros((1, 1, 1), np.float32)
    assert evenly(spread(Brightness(3), zero).ravel(), -3, 3)
    assert evenly(spread(Brightness((2, 9)), zero).ravel(), 2, 9)
    ramp = np.array([-1, 0, 1], np.float32).reshape(1, 3, 1)
    assert evenly(spread(Contrast(0.3), ramp)[:, 0, 2, 0], 0.7, 1.3)
    middle = (spread(Gamma(0.3), ramp)[:, 0, 1, 0] + 1) / 2
    assert evenly(np.log(np.log(middle) / np.log(0.5)), -0.3, 0.3)
    red = np.array([[[1, 0, 0]]], np.float32)
    grey = LUMINANCE[0]
    assert evenly((spread(Saturation(0.4), red)[:, 0, 0, 0] - grey) / (1 - grey), 0.6, 1.4)
    turns = spread(Hue(40), red)[:, 0, 0]
    y = turns @ LUMINANCE
    angles = np.arctan2(0.492 * (turns[:, 2] - y), 0.877 * (turns[:, 0] - y))
    start = math.atan2(0.492 * -grey, 0.877 * (1 - grey))
    assert evenly(np.rad2deg(angles - start), -40, 40)


def test_a_compiled_stage_draws_evenly_and_each_piece_by_itself():
    zero = np.zeros((1, 1, 1), np.float32)
    assert evenly(staged([Brightness(3)], zero, MANY).ravel(), -3, 3)
    # The sum of two even spreads is a triangle; of one twice it would be even.
    twice = staged([Brightness(3), Brightness(3)], zero, MANY).ravel() / 6
    assert stats.kstest(twice, "triang", (0.5, -1, 2)).pvalue > SURE


PIECES = {
    "brightness": functools.partial(Brightness, (50, 50)),
    "offset": functools.partial(Offset, 50),
    "noise": functools.partial(Noise, (50, 50)),
    "contrast": functools.partial(Contrast, (2, 2)),
    "gamma": functools.partial(Gamma, (1, 1)),
    "bias field": functools.partial(BiasField, 1),
    "cutout": functools.partial(Cutout, 0.5, value=-1),
    "hue": functools.partial(Hue, (40, 40)),
    "saturation": functools.partial(Saturation, (2, 2)),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_acts_as_often_as_it_should_or_changes_nothing_to_the_bit(name):
    image = values((4, 4, 3))
    changed = (spread(PIECES[name](p=0.3), image) != image).any((1, 2, 3))
    assert stats.binomtest(int(changed.sum()), MANY, 0.3).pvalue > SURE
    assert (spread(PIECES[name](), image, 50) != image).any((1, 2, 3)).all()
    np.testing.assert_array_equal(
        spread(PIECES[name](p=0), image, 50), spread(Clip(-9, 999), image, 50)
    )


def test_a_compiled_stage_acts_as_often_as_it_should():
    found = staged(
        [Brightness((1, 1), p=0.2), Brightness((2, 2), p=0.7)], np.zeros((1, 1, 1)), MANY
    )
    cells = np.bincount(found.astype(int).ravel(), minlength=4)
    assert stats.chisquare(cells, np.array([0.24, 0.06, 0.56, 0.14]) * MANY).pvalue > SURE


def test_an_offset_is_one_normal_number_for_each_channel():
    image = values((3, 4, 2))
    added = spread(Offset(5), image) - image
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-4)
    first, second = added[:, 0, 0].T
    for one in (first, second):
        assert stats.kstest(one, "norm", (0, 5)).pvalue > SURE
    assert stats.pearsonr(first, second).pvalue > SURE
    volume = values((*VOLUME[:3], 2))
    added = act(Offset(5), volume) - volume
    np.testing.assert_allclose(added, np.broadcast_to(added[0, 0, 0], added.shape), atol=1e-4)
    assert abs(added[0, 0, 0, 0] - added[0, 0, 0, 1]) > 0.01


@pytest.mark.parametrize("compiled", [False, True])
def test_noise_is_normal_and_each_voxels_own(compiled):
    volume = np.full((24, 24, 24, 2), 100, np.float32)
    one = Noise((2, 2))
    noise = (augment.once([one], volume) if compiled else act(one, volume)).astype(float) - 100
    assert abs(noise.mean()) < 4 * 2 / math.sqrt(noise.size)
    assert noise.std() == pytest.approx(2, rel=0.02)
    assert stats.kstest(noise.ravel(), "norm", (0, 2)).pvalue > SURE
    for here, there in (
        (noise[1:], noise[:-1]),
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[..., 0], noise[..., 1]),
    ):
        assert stats.pearsonr(here.ravel(), there.ravel()).pvalue > SURE


def test_how_noisy_an_image_becomes_is_drawn_between_nothing_and_sigma():
    flat = np.zeros((16, 16, 1), np.float32)
    stds = spread(Noise(4), flat).std((1, 2, 3))
    assert stds.max() < 4 * 1.2
    assert stats.kstest(stds, "uniform", (0, 4)).pvalue > SURE
    between = spread(Noise((2, 3)), flat).std((1, 2, 3))
    assert between.min() > 2 * 0.8 and between.max() < 3 * 1.2
    assert between.mean() == pytest.approx(2.5, rel=0.02)


@pytest.mark.parametrize("piece", [Brightness, Offset, Noise])
def test_relative_amounts_scale_with_the_images_own_spread(piece):
    batch = values(BATCH) * np.array([1, 0.01, 3, 40], np.float32).reshape(4, 1, 1, 1)
    plain = act(piece(0.2), batch, batched=True) - batch
    relative = act(piece(0.2, relative=True), batch, batched=True) - batch
    for some, more, one in zip(plain, relative, batch, strict=True):
        np.testing.assert_allclose(more, some * one.std(), atol=1e-3 * one.std())
    volume = values(VOLUME, -1000, 1000)
    moved = act(piece(0.2, relative=True), volume) - volume
    np.testing.assert_allclose(moved, (act(piece(0.2), volume) - volume) * volume.std(), atol=0.2)


def test_gamma_keeps_both_ends_and_the_order_and_darkens_the_middle():
    image = values(PICTURE, -1000, 3000)
    for amount, sign in ((0.7, -1), (-0.7, 1)):
        found = act(Gamma((amount, amount)), image)
        assert found.min() == image.min()
        assert found.max() == pytest.approx(image.max(), rel=1e-6)
        assert (np.diff(found.ravel()[image.ravel().argsort()]) >= 0).all()
        assert (np.sign(found - image)[(image > -900) & (image < 2900)] == sign).all()


# The bias field


def monomials(shape) -> np.ndarray:
    """All up to the third degree without the constant, on axes from -1 to 1, `[n, k]`."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    powers = [p for p in np.ndindex(*[4] * len(shape)) if 0 < sum(p) <= 3]
    return np.stack([np.prod([a**k for a, k in zip(axes, p, strict=True)], 0) for p in powers], -1)


@pytest.mark.parametrize("shape, count", [((7, 9, 11), 19), ((16, 20), 9)])
def test_the_logarithm_of_a_bias_field_is_a_polynomial_of_the_third_degree(shape, count):
    basis = monomials(shape).reshape(-1, count)
    found, image = [], np.full((*shape, 2), 50, np.float32)
    for seed in range(25):
        ratio = act(BiasField(0.3), image, seed=seed) / 50
        np.testing.assert_array_equal(ratio[..., 0], ratio[..., 1])  # one for all channels
        log = np.log(ratio[..., 0].ravel().astype(float))
        coefficients, *_ = np.linalg.lstsq(basis, log, rcond=None)
        np.testing.assert_allclose(basis @ coefficients, log, atol=1e-5)
        found.append(coefficients)
    assert evenly(np.ravel(found), -0.3, 0.3)
    for one in np.transpose(found):  # each of them is used
        assert np.abs(one).max() > 0.2


def test_pictures_of_a_batch_get_fields_of_their_own_and_nothing_stays_nothing():
    batch = np.ones(BATCH, np.float32)
    batch[:, :4] = 0
    found = act(BiasField(0.3), batch, batched=True)
    assert (found[:, :4] == 0).all() and (found[:, 4:] > 0).all()
    basis = monomials(BATCH[1:3])[4:].reshape(-1, 9)
    for i in range(4):
        log = np.log(found[i, 4:, :, 0]).ravel()
        coefficients, *_ = np.linalg.lstsq(basis, log, rcond=None)
        np.testing.assert_allclose(basis @ coefficients, log, atol=1e-5)
        assert all(np.abs(found[i] - found[j]).max() > 0.01 for j in range(i))


# The box


def test_a_box_has_its_size_and_each_place_the_same_chance():
    image = values((8, 6, 2))
    found = spread(Cutout(0.5, value=-7), image, 4000)
    covered = found == -7
    np.testing.assert_array_equal(covered[..., 0], covered[..., 1])
    rows, columns = covered[..., 0].any(2), covered[..., 0].any(1)
    np.testing.assert_array_equal(covered[..., 0], rows[:, :, None] & columns[:, None])
    starts = []
    for line, edge in ((rows, 4), (columns, 3)):
        assert (line.sum(1) == edge).all()
        starts.append(line.argmax(1))
        last = line.shape[1] - 1 - line[:, ::-1].argmax(1)
        np.testing.assert_array_equal(last - starts[-1], edge - 1)  # in one piece
    table = np.zeros((5, 4))
    np.add.at(table, tuple(starts), 1)
    assert (table > 0).all()  # the first place and the last one among them
    assert stats.chisquare(table.ravel()).pvalue > SURE
    np.testing.assert_array_equal(found[~covered], np.broadcast_to(image, found.shape)[~covered])


def test_a_box_in_a_volume_covers_its_part_of_each_edge():
    volume, places = values(VOLUME), set()
    for seed in range(40):
        inside = np.argwhere(act(Cutout(0.4, value=-7), volume, seed=seed)[..., 0] == -7)
        low, high = inside.min(0), inside.max(0)
        np.testing.assert_array_equal(high - low + 1, [3, 4, 4])  # of 7, 9 and 11
        assert len(inside) == 3 * 4 * 4
        places.add(tuple(low))
    assert len(places) > 20


# Colour


def test_a_full_turn_of_hue_is_none_and_grey_has_no_hue():
    image = values(PICTURE)
    np.testing.assert_allclose(act(Hue((360, 360)), image), image, atol=1e-2)
    for degrees in (45, 180, -120):
        found = act(Hue((degrees, degrees)), image)
        np.testing.assert_allclose(found @ LUMINANCE, image @ LUMINANCE, atol=0.05)
        assert np.abs(found - image).max() > 10
        grey = np.repeat(image[..., :1], 3, -1)
        np.testing.assert_allclose(act(Hue((degrees, degrees)), grey), grey, atol=0.05)


def test_without_saturation_all_is_grey_and_luminance_stays():
    image = values(PICTURE)
    grey = act(Saturation((0, 0)), image)
    np.testing.assert_allclose(grey, np.repeat((image @ LUMINANCE)[..., None], 3, -1), atol=0.01)
    stronger = act(Saturation((1.7, 1.7)), image)
    np.testing.assert_allclose(stronger @ LUMINANCE, image @ LUMINANCE, atol=0.01)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("piece", [Hue(10), Saturation(0.2)])
def test_colour_pieces_want_three_channels(piece, channels):
    with pytest.raises(ValueError, match=rf"3 channels \(RGB\), not {channels}"):
        augment.once([piece], np.ones((16, 20, channels), np.float32))


# Nothing to do, and nothing there

GREY_NOTHING = [
    Brightness(0),
    Brightness(0, relative=True),
    Offset(0),
    Noise(0),
    Noise(0, relative=True),
    Contrast(0),
    Gamma(0),
    BiasField(0),
    Cutout(0),
]
NOTHING = [*GREY_NOTHING, Hue(0), Saturation(0)]


@pytest.mark.parametrize("piece", NOTHING, ids=repr)
def test_no_amount_is_the_identity_to_the_bit(piece):
    rng = np.random.default_rng(3)
    for shape in [PICTURE, BATCH] + ([VOLUME] if piece in GREY_NOTHING else []):
        image = rng.normal(0, 1, shape) * 10.0 ** rng.integers(-6, 6, shape)
        found = act(piece, image.astype(np.float32), batched=shape == BATCH)
        np.testing.assert_array_equal(found, image.astype(np.float32))


def test_no_amount_is_the_identity_to_the_bit_in_a_compiled_stage():
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 255, PICTURE, np.uint8, endpoint=True)
    found = augment.once(NOTHING, picture)
    np.testing.assert_array_equal(found, picture.astype(np.float32))


GREY = [
    Brightness(0.5, relative=True),
    Offset(0.5, relative=True),
    Noise(0.5, relative=True),
    Brightness(5),
    Offset(5),
    Noise(5),
    Contrast(0.5),
    Gamma((0.5, 1)),
    Gamma((-1, -0.5)),
    BiasField(0.3),
    Cutout(0.3),
]
COLOURS = [Hue(40), Saturation(0.5)]


@pytest.mark.parametrize("constant", [0, 7, -1000])
@pytest.mark.parametrize("piece", [*GREY, *COLOURS], ids=repr)
def test_a_constant_or_empty_image_makes_no_nan(piece, constant):
    for shape in [PICTURE, BATCH] + ([VOLUME] if piece in GREY else []):
        image = np.full(shape, constant, np.float32)
        found = act(piece, image, batched=shape == BATCH)
        assert np.isfinite(found).all()
        if isinstance(piece, Gamma | Contrast | Cutout):
            np.testing.assert_allclose(found, image, atol=1e-3)
        if isinstance(piece, Gamma):
            np.testing.assert_array_equal(found, image)


def test_masks_are_not_touched_and_nothing_becomes_nan_in_a_compiled_stage():
    mask = np.random.default_rng(5).integers(0, 256, (*PICTURE[:2], 1), np.uint8)
    images = np.stack([values(PICTURE), np.zeros(PICTURE, np.float32)])
    dataset = tf.data.Dataset.from_tensor_slices({"image": images, "mask": [mask, mask]})
    after = dataset.apply(augment.stage([*GREY, *COLOURS], seed=1)).as_numpy_iterator()
    for image, found in zip(images, after, strict=True):
        np.testing.assert_array_equal(found["mask"], mask)
        assert np.isfinite(found["image"]).all() and (found["image"] != image).mean() > 0.9


# Errors


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", PIECES)
def test_a_probability_lies_between_0_and_1(name, p):
    with pytest.raises(ValueError, match="a probability lies between 0 and 1"):
        PIECES[name](p=p)


BAD_AMOUNTS = {
    "brightness": [(Brightness, bad) for bad in (-1, (2, 1), math.nan, (0, math.inf), (1, 2, 3))],
    "standard deviation": [(Offset, -1), (Offset, math.nan), (Noise, -1), (Noise, (-1, 1))]
    + [(Noise, (2, 1)), (Noise, math.inf)],
    "contrast|a factor": [
        (Contrast, -0.1),
        (Contrast, 1.1),
        (Contrast, (-1, 1)),
        (Contrast, (2, 1)),
    ],
    "gamma": [(Gamma, -1), (Gamma, (1, -1)), (Gamma, math.inf)],
    "strength": [(BiasField, -0.1), (BiasField, math.nan), (BiasField, math.inf)],
    "part of an edge": [(Cutout, -0.1), (Cutout, 1.1), (Cutout, math.nan)],
    "hue": [(Hue, -1), (Hue, (9, 8)), (Hue, math.nan)],
    "saturation|a factor": [(Saturation, 1.1), (Saturation, (-1, 1)), (Saturation, -0.1)],
    "range of values": [(functools.partial(Clip, 5), 4), (functools.partial(Clip, 0), math.inf)],
}


@pytest.mark.parametrize(
    "what, piece, amount", [(what, *one) for what, bad in BAD_AMOUNTS.items() for one in bad]
)
def test_amounts_that_mean_nothing_are_refused(what, piece, amount):
    with pytest.raises(ValueError, match=what):
        piece(amount)


# Presets

PRESETS = {
    "ct": (augment.ct(), VOLUME, -1000, 1500),
    "ct, slices": (augment.ct(axes=2), (16, 20, 1), -1000, 1500),
    "mr": (augment.mr(), VOLUME, 0, 900),
    "mr with sides": (augment.mr(laterality=True), VOLUME, 0, 900),
    "mr, slices": (augment.mr(axes=2), (16, 20, 1), 0, 900),
    "dermoscopy": (augment.dermoscopy(), PICTURE, 0, 255),
    "xray": (augment.xray(), (16, 20, 1), 0, 255),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_give_other_finite_images_with_the_classes_that_were_there(name):
    pieces, shape, low, high = PRESETS[name]
    image = values(shape, low, high)
    mask = np.random.default_rng(2).choice(np.array([0, 2, 9], np.uint8), [*shape[:-1], 1])
    dataset = tf.data.Dataset.from_tensors({"image": image, "mask": mask}).repeat(12)
    after = list(dataset.apply(augment.stage(pieces, seed=1)).as_numpy_iterator())
    images = np.stack([one["image"] for one in after])
    assert np.isfinite(images).all()
    if (low, high) == (0, 255):
        assert images.min() >= 0 and images.max() <= 255
    assert set(np.unique([one["mask"] for one in after])) <= {0, 2, 9}
    assert sum(np.abs(one - image).mean() > 1 for one in images) >= 10
    assert len(np.unique(images.mean((1, 2, 3) if images.ndim == 4 else (1, 2, 3, 4)))) >= 10


def mirrored(pieces, shape) -> np.ndarray:
    """For many draws whether the warp takes a right hand to a left one."""
    spacing = np.ones((400, len(shape)), np.float32)
    moving = [one for one in pieces if hasattr(one, "matrix") or hasattr(one, "shift")]
    warp, _ = augment.draw(moving, shape, tf.constant([3, 4], tf.int64), spacing)
    return np.linalg.det(warp.matrix.numpy()) < 0


@pytest.mark.parametrize("name", ["ct", "ct, slices", "mr with sides", "xray"])
def test_where_the_side_matters_nothing_is_ever_mirrored(name):
    pieces, shape, *_ = PRESETS[name]
    assert not any(isinstance(piece, Flip) for piece in pieces)
    assert not mirrored(pieces, shape[:-1]).any()


def test_heads_are_mirrored_left_and_right_only_and_skin_both_ways():
    assert [piece for piece in augment.mr() if isinstance(piece, Flip)] == [Flip("x")]
    assert [piece.axis for piece in augment.dermoscopy() if isinstance(piece, Flip)] == ["x", "y"]
    share = mirrored(augment.mr(), VOLUME[:3])
    assert stats.binomtest(int(share.sum()), share.size, 0.5).pvalue > SURE


def test_presets_leave_out_what_their_modality_forbids():
    def kinds(name):
        return {type(piece) for piece in PRESETS[name][0]}

    assert not kinds("ct") & {Gamma, Contrast, BiasField, Hue, Saturation}  # HU are measured
    assert BiasField in kinds("mr")
    assert Elastic not in kinds("xray")  # ribs do not bend
    for name in set(PRESETS) - {"dermoscopy"}:
        assert not kinds(name) & {Hue, Saturation}
    for name in ("dermoscopy", "xray"):
        assert PRESETS[name][0][-1] == Clip(0, 255)
    for name in ("mr", "mr with sides"):
        assert all(piece.relative for piece in PRESETS[name][0] if isinstance(piece, Noise))


def test_patients_on_a_table_turn_by_little():
    spacing = np.ones((400, 3), np.float32)
    (turn,) = (piece for piece in augment.ct() if isinstance(piece, augment.Rotate))
    warp, _ = augment.draw([turn], VOLUME[:3], tf.constant([3, 4], tf.int64), spacing)
    # The angle of a rotation follows from its trace; three small ones add up to no more.
    angles = np.arccos(np.clip((np.trace(warp.matrix.numpy(), axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert 8 < np.rad2deg(angles).max() < math.hypot(10, 5, 5) + 1


@pytest.mark.parametrize("preset", [augment.ct, augment.mr])
def test_volumes_lean_and_slices_turn_within_themselves(preset):
    for axes, degrees in ((3, preset()), (2, preset(axes=2))):
        (turn,) = (piece for piece in degrees if isinstance(piece, augment.Rotate))
        assert np.size(turn.degrees) == (3 if axes == 3 else 1)
    with pytest.raises(ValueError, match="not 4"):
        preset(axes=4)


def test_a_preset_is_a_list_of_ones_own():
    augment.ct().clear()
    assert augment.ct()


@pytest.mark.parametrize(
    "piece",
    [
        Gamma((0.5, 0.5), each_channel=True),
        Contrast((1.5, 1.5), each_channel=True),
        Noise((0.5, 0.5), relative=True, each_channel=True),
        Brightness((0.5, 0.5), relative=True, each_channel=True),
    ],
    ids=lambda piece: type(piece).__name__,
)
def test_channels_of_other_ranges_keep_to_themselves(piece):
    image = values((16, 20, 2), 0, 1)
    scaled = image * np.float32([1, 1000])
    one, other = act(piece, image), act(piece, scaled)
    np.testing.assert_allclose(one * [1, 1000], other, rtol=1e-3, atol=1e-2)
    assert np.abs(one - image).max() > 0.1
