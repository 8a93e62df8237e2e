"""Grey values change by the stated amounts, against NumPy by hand; and the presets."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from helpers import augment
from helpers.augment import Elastic, Flip, Unit
from helpers.augment.grey import (
    BiasField,
    Brightness,
    Clip,
    Contrast,
    Cutout,
    Gamma,
    Grey,
    Hue,
    Noise,
    Saturation,
)
from tests.augmented import SURE, act, evenly, evenly_drawn, ids, many, run

import tensorflow as tf  # isort: skip

VOLUME, PICTURE, BATCH = (7, 9, 11, 1), (16, 20, 3), (4, 16, 20, 3)
LUMINANCE = np.array([0.299, 0.587, 0.114])


# Each transform by hand


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


def each(function):
    """The same for each channel by itself."""
    return lambda x: np.stack([function(one) for one in np.moveaxis(x, -1, 0)], -1)


BY_HAND = {
    "brightness": (Brightness((5, 5)), lambda x: x + 5),
    "relative brightness": (Brightness((0.5, 0.5), relative=True), lambda x: x + 0.5 * x.std()),
    "contrast": (Contrast((1.4, 1.4)), lambda x: x.mean() + 1.4 * (x - x.mean())),
    "no contrast": (Contrast((0, 0)), lambda x: np.full_like(x, x.mean())),
    "gamma": (Gamma((0.5, 0.5)), lambda x: bent(x, 0.5)),
    "brighter gamma": (Gamma([-0.5, -0.5]), lambda x: bent(x, -0.5)),
    "clip": (Clip(40, 200), lambda x: np.clip(x, 40, 200)),
    "cut out all": (Cutout(1, value=3), lambda x: np.full_like(x, 3)),
    "cut out by the mean": (Cutout(1), each(lambda x: np.full_like(x, x.mean()))),
    "hue": (Hue((30, 30)), lambda x: turned(x, 30)),
    "hue back": (Hue((-100, -100)), lambda x: turned(x, -100)),
    "saturation": (Saturation((1.5, 1.5)), lambda x: paler(x, 1.5)),
    "grey": (Saturation((0, 0)), lambda x: paler(x, 0)),
}
BY_HAND |= {
    f"{name}, channels": (
        dataclasses.replace(BY_HAND[name][0], each_channel=True),
        each(BY_HAND[name][1]),
    )
    for name in ("gamma", "contrast", "relative brightness")
}


def test_a_fixed_amount_does_what_numpy_does_by_hand():
    scales = np.array([1, 0.5, 0.1, 2]).reshape(4, 1, 1, 1)
    batches = [evenly_drawn(BATCH) * scales * [1, 0.3, 2], evenly_drawn((2, *VOLUME), -50)]
    failed = []
    for name, (transform, expected) in BY_HAND.items():
        slack = 0.5 if "hue" in name else 1e-2  # U and V are known to three digits only
        for batch in batches[: 1 if isinstance(transform, (Hue, Saturation)) else 2]:
            found = act([transform], batch)
            wanted = [expected(one.astype(np.float32).astype(float)) for one in batch]
            if np.abs(found - wanted).max() > slack:
                failed.append((name, batch.shape))
    assert not failed


def test_a_stage_applies_transforms_in_their_order_after_the_move_and_gives_float32():
    picture = np.random.default_rng(1).integers(-1000, 3000, (16, 20, 1), np.int16)
    transforms = [Brightness((100, 100)), Contrast((1.5, 1.5)), Clip(-500, 500), Gamma((0.4, 0.4))]
    x = picture.astype(float) + 100
    expected = bent(np.clip(x.mean() + 1.5 * (x - x.mean()), -500, 500), 0.4)
    (compiled,) = run({"image": picture}, transforms)
    for found in (augment.once(transforms, picture), compiled["image"]):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.1)
    shift = augment.Translate(((0, 0), (3, 3)))
    covered = augment.once([Cutout(1, value=7), shift], picture, fill=-1)
    np.testing.assert_array_equal(covered, np.full_like(covered, 7))


# Many voxels


@pytest.mark.parametrize("known", [True, False])
def test_sixteen_million_voxels_are_added_up_right_in_float32(known):
    """The flat image is one where a plain sum in float32 says 1131.68."""
    shape = (1, 128, 256, 512, 1)
    spec = tf.TensorSpec(shape if known else [None] * 5, tf.float32)

    @tf.function(input_signature=[spec], jit_compile=known, autograph=False)
    def statistics(image):
        grey = Grey()
        found = [grey.over(image, f) for f in (tf.reduce_mean, tf.reduce_min, tf.reduce_max)]
        stretched = Contrast((2, 2)).change(image, 1.0, None)
        return tf.reshape([*found, grey.spread(image), grey.over(stretched, tf.reduce_max)], [-1])

    for image in (np.full(shape, 1100, np.float32), evenly_drawn(shape, 900, 1100) ** 2 / 1000):
        exact = image.astype(float)
        mean, low, high = exact.mean(), exact.min(), exact.max()
        expected = [mean, low, high, exact.std(), 2 * high - mean]
        np.testing.assert_allclose(statistics(image), expected, rtol=2e-6, atol=1e-3)


# What is drawn


RED, RAMP = np.array([[[1, 0, 0]]]), np.array([-1, 0, 1]).reshape(1, 3, 1)


def hue(x):
    """The angle by which red was turned, in degrees."""
    y = x[:, 0, 0] @ LUMINANCE
    angles = np.arctan2(0.492 * (x[:, 0, 0, 2] - y), 0.877 * (x[:, 0, 0, 0] - y))
    return np.rad2deg(angles - math.atan2(-0.492 * 0.299, 0.877 * 0.701))


SPREAD = [
    # transform, image, what is drawn, its limits
    (Brightness(3), RAMP, lambda x: x[:, 0, 1, 0], -3, 3),
    (Brightness((2, 9)), RAMP, lambda x: x[:, 0, 1, 0], 2, 9),
    (Contrast(0.3), RAMP, lambda x: x[:, 0, 2, 0], 0.7, 1.3),
    (Gamma(0.3), RAMP, lambda x: np.log(-np.log2((x[:, 0, 1, 0] + 1) / 2)), -0.3, 0.3),
    (Saturation(0.4), RED, lambda x: (x[:, 0, 0, 0] - 0.299) / 0.701, 0.6, 1.4),
    (Hue(40), RED, hue, -40, 40),
    (Noise(4), np.zeros((32, 32, 1)), lambda x: x.std((1, 2, 3)), 0, 4),
    (Noise((2, 3)), np.zeros((64, 64, 1)), lambda x: x.std((1, 2, 3)), 2, 3),
]


def test_amounts_are_spread_evenly_between_their_limits():
    failed = []
    for transform, image, measure, low, high in SPREAD:
        slack = 0.1 if isinstance(transform, Noise) else 1e-3  # a sample's spread is not exact
        if not evenly(measure(many(transform, image, 600)), low, high, slack):
            failed.append(transform)
    assert not failed


def test_noise_is_normal_and_each_voxels_own():
    volume = np.full((24, 24, 24, 2), 100, np.float32)
    noise = augment.once([Noise((2, 2))], volume).astype(float) - 100
    assert abs(noise.mean()) < 4 * 2 / math.sqrt(noise.size)
    assert noise.std() == pytest.approx(2, rel=0.02)
    assert stats.kstest(noise.ravel(), "norm", (0, 2)).pvalue > SURE
    for axis in range(4):
        here, there = np.split(noise, 2, axis)
        assert stats.pearsonr(here.ravel(), there.ravel()).pvalue > SURE
    twice = augment.once([Noise((2, 2)), Noise((2, 2))], volume) - 100
    assert twice.std() == pytest.approx(math.sqrt(8), rel=0.02)  # each of its own
    numbers = Noise(1).extra([2**25], None, (1, 2)).numpy()  # among so many, a 0 would be one
    assert numbers.min() > 0 and numbers.max() < 1
    batch = evenly_drawn(BATCH) * np.array([1, 0.01, 3, 40]).reshape(4, 1, 1, 1) * [1, 2, 3]
    plain = act([Noise(0.2)], 0 * batch)
    for kind, axes in ((False, (1, 2, 3)), (True, (1, 2))):
        relative = act([Noise(0.2, relative=True, each_channel=kind)], batch) - batch
        spread = batch.std(axes, keepdims=True)
        np.testing.assert_allclose(relative / spread, plain, atol=1e-3)


def monomials(shape):
    """All up to the third degree without the constant, on axes from -1 to 1, `[n, k]`."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    powers = [p for p in np.ndindex(*[4] * len(shape)) if 0 < sum(p) <= 3]
    columns = [np.prod([a**k for a, k in zip(axes, p, strict=True)], 0) for p in powers]
    return np.stack(columns, -1).reshape(-1, len(powers))


@pytest.mark.parametrize("shape, count", [((7, 9, 11), 19), ((16, 20), 9)])
def test_the_logarithm_of_a_bias_field_is_a_polynomial_of_the_third_degree(shape, count):
    basis, image = monomials(shape), np.full((*shape, 2), 50.0)
    image[0, 0, 0] = 0
    ratio = many(BiasField(0.3), image, 40)
    assert (ratio[:, 0, 0, 0] == 0).all()  # nothing stays nothing
    inside = image[..., 0].ravel() > 0
    np.testing.assert_array_equal(
        ratio[..., 0].reshape(40, -1)[:, inside], ratio[..., 1].reshape(40, -1)[:, inside]
    )
    logs = np.log(ratio[..., 0].reshape(40, -1)[:, inside].astype(float) / 50)
    coefficients, *_ = np.linalg.lstsq(basis[inside], logs.T, rcond=None)
    np.testing.assert_allclose(basis[inside] @ coefficients, logs.T, atol=1e-5)
    assert coefficients.shape == (count, 40) and evenly(coefficients.ravel(), -0.3, 0.3)
    assert (np.abs(coefficients).max(1) > 0.2).all()  # each of them is used


def test_a_box_has_its_size_and_each_place_the_same_chance():
    image = evenly_drawn((8, 6, 2))
    found = many(Cutout(0.5, value=-7), image, 4000)
    covered = found == -7
    rows, columns = covered[..., 0].any(2), covered[..., 0].any(1)
    np.testing.assert_array_equal(
        covered, (rows[:, :, None] & columns[:, None])[..., None] | [0, 0]
    )
    table = np.zeros((5, 4))
    np.add.at(table, (rows.argmax(1), columns.argmax(1)), 1)
    assert (table > 0).all() and stats.chisquare(table.ravel()).pvalue > SURE
    for line, edge in ((rows, 4), (columns, 3)):
        index = np.arange(line.shape[1]) - line.argmax(1)[:, None]
        np.testing.assert_array_equal(line, (index >= 0) & (index < edge))
    np.testing.assert_array_equal(found[~covered], np.broadcast_to(image, found.shape)[~covered])
    boxes = many(Cutout(0.4, value=-7), evenly_drawn(VOLUME), 30) == -7
    for axis, edge in ((1, 3), (2, 4), (3, 4)):  # of 7, 9 and 11
        assert (boxes.any(tuple({1, 2, 3, 4} - {axis})).sum(1) == edge).all()


# Nothing there

FLAT = [Brightness(0.5, relative=True), Noise(0.5, relative=True), Contrast(0.5), Cutout(0.3)]
FLAT += [Gamma((0.5, 1)), Gamma((-1, -0.5)), Hue(40), Saturation(0.5)]


def test_an_image_of_one_grey_value_stays_as_it_is():
    flat = [np.full(BATCH, constant) for constant in (0, 7, -1000)]
    failed = [
        (one, x[0, 0, 0])
        for one in FLAT
        for x in flat
        if not np.abs(act([one], x) - x).max() < 1e-3
    ]
    assert not failed


# Presets

PRESETS = {
    "ct": (augment.ct(), VOLUME, -1000, 1500),
    "ct, slices": (augment.ct(axes=2), (16, 20, 1), -1000, 1500),
    "mr": (augment.mr(), VOLUME, 0, 900),
    "mr with sides": (augment.mr(laterality=True, axes=2), (16, 20, 1), 0, 900),
    "dermoscopy": (augment.dermoscopy(), PICTURE, 0, 255),
    "xray": (augment.xray(), (16, 20, 1), 0, 255),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_give_other_finite_images_with_the_classes_that_were_there(name):
    transforms, shape, low, high = PRESETS[name]
    mask = np.array([0, 2, 9], np.uint8)[ids(shape[:-1], 3)]
    after = run({"image": evenly_drawn(shape, low, high), "mask": mask}, transforms, count=12)
    images = np.stack([one["image"] for one in after])
    assert np.isfinite(images).all()
    assert high > 255 or (images.min() >= 0 and images.max() <= 255)
    assert set(np.unique([one["mask"] for one in after])) <= {0, 2, 9}
    assert sum(np.abs(one - evenly_drawn(shape, low, high)).mean() > 1 for one in images) >= 10
    assert len({one.tobytes() for one in images}) >= 11


def test_presets_leave_out_what_their_modality_forbids():
    kinds = {name: {type(one) for one in transforms} for name, (transforms, *_) in PRESETS.items()}
    for name in ("ct", "ct, slices", "mr with sides", "xray"):
        assert Flip not in kinds[name]  # the side matters
    assert not kinds["ct"] & {Gamma, Contrast, BiasField, Hue, Saturation}  # HU are measured
    assert Elastic not in kinds["xray"]  # ribs do not bend
    assert [one.axis for one in augment.mr() if isinstance(one, Flip)] == ["x"]
    assert [one.axis for one in augment.dermoscopy() if isinstance(one, Flip)] == ["x", "y"]
    assert augment.dermoscopy()[-1] == augment.xray()[-1] == Clip(0, 255)
    turns = {axes: augment.ct(axes=axes)[1].degrees for axes in (3, 2)}
    assert turns == {3: (10, 5, 5), 2: 10}  # patients lie on a table
    (noise,) = (one for one in augment.mr() if isinstance(one, Noise))
    assert noise.relative and noise.each_channel and BiasField in kinds["mr"]


def noise(mean, sigma, shape=(2, 16, 16, 1)):
    return np.random.default_rng(0).normal(mean, sigma, shape).astype(np.float32)


HEAD = np.abs(noise(0, 1)) * [[[[0]]], [[[400]]]]  # half of it background
LITTLE = np.where(np.eye(16)[None, ..., None] > 0, 40.0, 0)
FLOAT, WHITENED = evenly_drawn(BATCH, 0, 1), noise(0, 1.2)
# By unit: images that go through, and images that do not.
POSSIBLE = {
    # Soft tissue alone, the air beside a patient, padding, little of it within, half of it dark.
    "HU": [noise(50, 15), noise(-1000, 8), 0 * HEAD, LITTLE, HEAD / 9, HEAD.astype(np.int16)],
    # Bytes; a little beyond, as of resizing; nearly black; black.
    "0 to 255": [ids(BATCH[:3]), evenly_drawn(BATCH, -20, 280), 3 * FLOAT, 0 * FLOAT],
    # What resampling leaves below 0; any scale.
    "signal": [HEAD, HEAD - 20, HEAD / 1000, 0 * HEAD],
}
IMPOSSIBLE = {
    "HU": [FLOAT, evenly_drawn(BATCH, -1, 1), WHITENED],
    "0 to 255": [FLOAT, 4095 * FLOAT, evenly_drawn(BATCH, -1000, 200), WHITENED],
    "signal": [(HEAD - HEAD.mean()) / HEAD.std(), noise(-900, 200)],
}


def test_presets_refuse_what_cannot_be_in_their_unit_and_nothing_else():
    failed = []
    for table, possible in ((POSSIBLE, True), (IMPOSSIBLE, False)):
        for unit, some in table.items():
            found = [bool(Unit(unit).possible(tf.constant(image))) for image in some]
            failed += [] if set(found) == {possible} else [(unit, found)]
    assert not failed
    with pytest.raises(KeyError):
        Unit("metres")


@pytest.mark.parametrize("name", ["ct", "dermoscopy", "xray"])
def test_an_image_in_another_unit_is_refused_in_the_graph_with_its_name(name):
    preset, shape, *_ = PRESETS[name]
    elements = {"image": evenly_drawn((2, *shape), 0, 1), "case": ["Case 6", "Case 7"]}
    dataset = tf.data.Dataset.from_tensor_slices(elements).skip(1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"WRONG_UNIT(?s:.)*Case 7"):
        list(dataset.apply(augment.stage(preset, seed=1)))
