"""Grey values change by the stated amounts, against NumPy by hand; and the presets."""

import functools
import math

import numpy as np
import pytest
from scipy import stats

from helpers import augment
from helpers.augment import (
    BiasField,
    Brightness,
    Clip,
    Contrast,
    Cutout,
    Flip,
    Gamma,
    Hue,
    Noise,
    Saturation,
    Unit,
)
from helpers.augment.amounts import random_numbers
from helpers.augment.dataset import changed
from helpers.augment.grey import Grey

import tensorflow as tf  # isort: skip

VOLUME, PICTURE, BATCH = (7, 9, 11, 1), (16, 20, 3), (4, 16, 20, 3)
SURE = 1e-4  # a right law is called wrong once in ten thousand fixed seeds
LUMINANCE = np.array([0.299, 0.587, 0.114])


def values(shape, low=0, high=255, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def act(transform, batch, seed=1):
    """What one transform makes of a batch, without compiling."""
    numbers = random_numbers([transform], batch.shape, None, tf.constant([seed, 2], tf.int64))
    element = {"image": tf.constant(batch, tf.float32)}
    options = {"fill": "edge", "mask_fill": 0, "batched": True}
    result, _ = changed([transform], element, None, *numbers, **options)
    assert result["image"].dtype == tf.float32 and result["image"].shape == batch.shape
    return result["image"].numpy()


def many(transform, image, count=1500):
    """Results for many draws, as one batch."""
    return act(transform, np.broadcast_to(image, (count, *np.shape(image))))


def evenly(found, low, high):
    """Whether values lie between the limits and are spread evenly."""
    slack = 1e-3 * (high - low)
    inside = low - slack <= found.min() and found.max() <= high + slack
    return inside and stats.kstest(found, "uniform", (low, high - low)).pvalue > SURE


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
    "cut out by the mean": (Cutout(1), lambda x: x.mean(tuple(range(x.ndim - 1))) + 0 * x),
    "gamma, channels": (Gamma((0.5, 0.5), each_channel=True), each(lambda x: bent(x, 0.5))),
    "contrast, channels": (
        Contrast((1.4, 1.4), each_channel=True),
        each(lambda x: x.mean() + 1.4 * (x - x.mean())),
    ),
    "brightness, channels": (
        Brightness((0.5, 0.5), relative=True, each_channel=True),
        each(lambda x: x + 0.5 * x.std()),
    ),
}
COLOUR = {
    "hue": (Hue((30, 30)), lambda x: turned(x, 30)),
    "hue back": (Hue((-100, -100)), lambda x: turned(x, -100)),
    "saturation": (Saturation((1.5, 1.5)), lambda x: paler(x, 1.5)),
    "grey": (Saturation((0, 0)), lambda x: paler(x, 0)),
}


def test_a_fixed_amount_does_what_numpy_does_by_hand():
    scales = np.array([1, 0.5, 0.1, 2]).reshape(4, 1, 1, 1)
    batches = [values(BATCH) * scales * [1, 0.3, 2], values((2, *VOLUME), -50)]
    failed = []
    for name, (transform, expected) in (BY_HAND | COLOUR).items():
        slack = 0.5 if "hue" in name else 1e-2  # U and V are known to three digits only
        for batch in batches[: 1 if name in COLOUR else 2]:
            found = act(transform, batch)
            wanted = [expected(one.astype(np.float32).astype(float)) for one in batch]
            if np.abs(found - wanted).max() > slack:
                failed.append((name, batch.shape))
    assert not failed


def test_a_stage_applies_transforms_in_their_order_after_the_move_and_gives_float32():
    picture = np.random.default_rng(1).integers(-1000, 3000, (16, 20, 1), np.int16)
    transforms = [Brightness((100, 100)), Contrast((1.5, 1.5)), Clip(-500, 500), Gamma((0.4, 0.4))]
    x = picture.astype(float) + 100
    expected = bent(np.clip(x.mean() + 1.5 * (x - x.mean()), -500, 500), 0.4)
    dataset = tf.data.Dataset.from_tensors({"image": picture})
    (compiled,) = dataset.apply(augment.stage(transforms, seed=1)).as_numpy_iterator()
    for found in (augment.once(transforms, picture), compiled["image"]):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.1)
    shift = augment.Translate(((0, 0), (3, 3)))
    covered = augment.once([Cutout(1, value=7), shift], picture, fill=-1)
    np.testing.assert_array_equal(covered, np.full_like(covered, 7))


# Many voxels


@pytest.mark.parametrize("known", [True, False])
def test_statistics_of_sixteen_million_voxels_are_right_in_float32(known):
    """The flat image is one where a plain sum in float32 says 1131.68."""
    shape = (1, 128, 256, 512, 1)
    flat = np.full(shape, 1100, np.float32)
    noisy = values(shape, 900, 1100) ** 2 / 1000
    spec = tf.TensorSpec(shape if known else [None] * 5, tf.float32)

    @tf.function(input_signature=[spec], jit_compile=known, autograph=False)
    def statistics(image):
        grey = Grey()
        reduced = [grey.over(image, f) for f in (tf.reduce_mean, tf.reduce_min, tf.reduce_max)]
        return tf.reshape(tf.stack([*reduced, grey.spread(image)]), [-1])

    for image in (flat, noisy):
        exact = image.astype(float)
        expected = [exact.mean(), exact.min(), exact.max(), exact.std()]
        np.testing.assert_allclose(statistics(image), expected, rtol=2e-6, atol=1e-3)


@pytest.mark.parametrize("run", ["once", "stage"])
def test_contrast_leaves_a_large_flat_image_as_it_is(run):
    flat, stretch = (
        np.full((128, 256, 512, 3), 1100, np.float32),
        [Contrast((2, 2), each_channel=True)],
    )
    if run == "once":  # of unknown shape
        found = augment.once(stretch, flat)
    else:
        dataset = tf.data.Dataset.from_tensors({"image": flat})
        (found,) = (one["image"] for one in dataset.apply(augment.stage(stretch, seed=1)))
    assert np.min(found) == np.max(found) == 1100


# What is drawn


def test_amounts_are_spread_evenly_between_their_limits():
    zero, ramp = np.zeros((1, 1, 1)), np.array([-1, 0, 1]).reshape(1, 3, 1)
    assert evenly(many(Brightness(3), zero).ravel(), -3, 3)
    assert evenly(many(Brightness((2, 9)), zero).ravel(), 2, 9)
    assert evenly(many(Contrast(0.3), ramp)[:, 0, 2, 0], 0.7, 1.3)
    middle = (many(Gamma(0.3), ramp)[:, 0, 1, 0] + 1) / 2
    assert evenly(np.log(np.log(middle) / np.log(0.5)), -0.3, 0.3)
    red, grey = np.array([[[1, 0, 0]]]), LUMINANCE[0]
    assert evenly((many(Saturation(0.4), red)[:, 0, 0, 0] - grey) / (1 - grey), 0.6, 1.4)
    turns = many(Hue(40), red)[:, 0, 0]
    y = turns @ LUMINANCE
    angles = np.arctan2(0.492 * (turns[:, 2] - y), 0.877 * (turns[:, 0] - y))
    start = math.atan2(0.492 * -grey, 0.877 * (1 - grey))
    assert evenly(np.rad2deg(angles - start), -40, 40)


TRANSFORMS = {
    "brightness": functools.partial(Brightness, (50, 50)),
    "noise": functools.partial(Noise, (50, 50)),
    "contrast": functools.partial(Contrast, (2, 2)),
    "gamma": functools.partial(Gamma, (1, 1)),
    "bias field": functools.partial(BiasField, 1),
    "cutout": functools.partial(Cutout, 0.5, value=-1),
    "hue": functools.partial(Hue, (40, 40)),
    "saturation": functools.partial(Saturation, (2, 2)),
    "clip": functools.partial(Clip, 100, 120),
}


def test_a_transform_acts_as_often_as_it_should_or_changes_nothing_to_the_bit():
    image, failed = values((4, 4, 3)), []
    for name, transform in TRANSFORMS.items():
        acts = (many(transform(p=0.3), image) != image).any((1, 2, 3))
        if stats.binomtest(int(acts.sum()), acts.size, 0.3).pvalue < SURE:
            failed.append((name, acts.mean()))
        for p, changes in ((1, True), (0, False)):
            if not ((many(transform(p=p), image, 50) != image).any((1, 2, 3)) == changes).all():
                failed.append((name, p))
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
    flat = np.zeros((16, 16, 1))
    assert stats.kstest(many(Noise(4), flat).std((1, 2, 3)), "uniform", (0, 4)).pvalue > SURE
    between = many(Noise((2, 3)), flat).std((1, 2, 3))
    assert between.min() > 2 * 0.8 and between.max() < 3 * 1.2
    batch = values(BATCH) * np.array([1, 0.01, 3, 40]).reshape(4, 1, 1, 1) * [1, 2, 3]
    plain = act(Noise(0.2), 0 * batch)
    for kind, axes in ((False, (1, 2, 3)), (True, (1, 2))):
        relative = act(Noise(0.2, relative=True, each_channel=kind), batch) - batch
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
    image = values((8, 6, 2))
    found = many(Cutout(0.5, value=-7), image, 4000)
    covered = found == -7
    np.testing.assert_array_equal(covered[..., 0], covered[..., 1])
    rows, columns = covered[..., 0].any(2), covered[..., 0].any(1)
    np.testing.assert_array_equal(covered[..., 0], rows[:, :, None] & columns[:, None])
    starts = rows.argmax(1), columns.argmax(1)
    for line, start, edge in zip((rows, columns), starts, (4, 3), strict=True):
        index = np.arange(line.shape[1])[None] - start[:, None]
        np.testing.assert_array_equal(line, (index >= 0) & (index < edge))
    table = np.zeros((5, 4))
    np.add.at(table, starts, 1)
    assert (table > 0).all() and stats.chisquare(table.ravel()).pvalue > SURE
    np.testing.assert_array_equal(found[~covered], np.broadcast_to(image, found.shape)[~covered])
    boxes = many(Cutout(0.4, value=-7), values(VOLUME), 30) == -7
    for axis, edge in ((1, 3), (2, 4), (3, 4)):  # of 7, 9 and 11
        others = tuple({1, 2, 3, 4} - {axis})
        assert (boxes.any(others).sum(1) == edge).all()


# Nothing to do, and nothing there

NOTHING = [
    Brightness(0),
    Brightness(0, relative=True),
    Noise(0),
    Contrast(0),
    Gamma(0),
    BiasField(0),
]
NOTHING += [Cutout(0), Hue(0), Saturation(0)]
GREY = [Brightness(0.5, relative=True), Noise(0.5, relative=True), Brightness(5), Noise(5)]
GREY += [Contrast(0.5), Gamma((0.5, 1)), Gamma((-1, -0.5)), BiasField(), Cutout(0.3), Hue(40)]


def test_no_amount_is_the_identity_to_the_bit():
    rng = np.random.default_rng(3)
    image = np.float32(rng.normal(0, 1, BATCH) * 10.0 ** rng.integers(-6, 6, BATCH))
    failed = [one for one in NOTHING if (act(one, image) != image).any()]
    stage = augment.stage(NOTHING, seed=1, batched=True)
    (after,) = tf.data.Dataset.from_tensors({"image": image}).apply(stage).as_numpy_iterator()
    assert not failed and (after["image"] == image).all()


def test_a_constant_or_empty_image_makes_no_nan_and_masks_are_not_touched():
    failed = []
    for transform in [*GREY, Saturation(0.5)]:
        for constant in (0, 7, -1000):
            found = act(transform, np.full(BATCH, constant))
            same = np.abs(found - constant).max() < 1e-3 or not isinstance(
                transform, Gamma | Contrast | Cutout
            )
            if not (np.isfinite(found).all() and same):
                failed.append((transform, constant))
    assert not failed
    mask = np.random.default_rng(5).integers(0, 256, (*PICTURE[:2], 1), np.uint8)
    image, same = augment.once(GREY, values(PICTURE), mask)
    np.testing.assert_array_equal(same, mask)
    assert (image != values(PICTURE)).mean() > 0.9


BAD = {
    Brightness: [-1, (2, 1), math.nan, (0, math.inf), (1, 2, 3)],
    Noise: [-1, (-1, 1), (2, 1), math.inf],
    Contrast: [-0.1, 1.1, (-1, 1), (2, 1)],
    Gamma: [-1, (1, -1), math.inf],
    BiasField: [-0.1, math.nan, math.inf],
    Cutout: [-0.1, 1.1, math.nan],
    Hue: [-1, (9, 8), math.nan],
    Saturation: [1.1, (-1, 1), -0.1],
    functools.partial(Clip, 5): [4, math.inf, math.nan],
    functools.partial(Cutout, 0.5): [math.inf],
    **{functools.partial(one, p=p): [0.1] for one in (Hue, Noise) for p in (-0.1, 1.1, math.nan)},
}


def test_amounts_that_mean_nothing_are_refused():
    accepted = []
    for transform, amounts in BAD.items():
        for amount in amounts:
            try:
                accepted.append(transform(amount))
            except ValueError:
                continue
    assert not accepted
    for colour in (Hue(10), Saturation(0.2)):
        for channels in (1, 2, 4):
            with pytest.raises(ValueError, match=f"3 and {channels}|{channels} and 3"):
                augment.once([colour], np.ones((16, 20, channels), np.float32))


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
    image = values(shape, low, high)
    mask = np.random.default_rng(2).choice(np.array([0, 2, 9], np.uint8), [*shape[:-1], 1])
    dataset = tf.data.Dataset.from_tensors({"image": image, "mask": mask}).repeat(12)
    after = list(dataset.apply(augment.stage(transforms, seed=1)).as_numpy_iterator())
    images = np.stack([one["image"] for one in after])
    assert np.isfinite(images).all()
    assert high > 255 or (images.min() >= 0 and images.max() <= 255)
    assert set(np.unique([one["mask"] for one in after])) <= {0, 2, 9}
    assert sum(np.abs(one - image).mean() > 1 for one in images) >= 10
    assert len({one.tobytes() for one in images}) >= 11


def test_presets_leave_out_what_their_modality_forbids():
    kinds = {name: {type(one) for one in transforms} for name, (transforms, *_) in PRESETS.items()}
    for name in ("ct", "ct, slices", "mr with sides", "xray"):
        assert Flip not in kinds[name]  # the side matters
    assert not kinds["ct"] & {Gamma, Contrast, BiasField, Hue, Saturation}  # HU are measured
    assert augment.Elastic not in kinds["xray"]  # ribs do not bend
    assert [one.axis for one in augment.mr() if isinstance(one, Flip)] == ["x"]
    assert [one.axis for one in augment.dermoscopy() if isinstance(one, Flip)] == ["x", "y"]
    assert augment.dermoscopy()[-1] == augment.xray()[-1] == Clip(0, 255)
    turns = {axes: augment.ct(axes=axes)[1].degrees for axes in (3, 2)}
    assert turns == {3: (10, 5, 5), 2: 10}  # patients lie on a table
    (noise,) = (one for one in augment.mr() if isinstance(one, Noise))
    assert noise.relative and noise.each_channel and BiasField in kinds["mr"]


def noise(mean, sigma, shape=(2, 16, 16, 1), seed=0):
    return np.random.default_rng(seed).normal(mean, sigma, shape).astype(np.float32)


HEAD = np.abs(noise(0, 1)) * [[[[0]]], [[[400]]]]  # half of it background
POSSIBLE = [
    # unit, image, whether it goes through
    ("HU", noise(50, 15), True),  # soft tissue alone
    ("HU", noise(-1000, 8), True),  # the air beside a patient
    ("HU", np.full((2, 8, 8, 1), 0.0), True),  # padding
    ("HU", np.where(np.eye(16)[None, ..., None] > 0, 40.0, 0), True),  # little of it within
    ("HU", np.concatenate([noise(0.5, 0.1), noise(50, 15)]), True),
    ("HU", noise(50, 15).astype(np.int16), True),
    ("HU", values((2, 16, 16, 1), 0, 1), False),  # windowed
    ("HU", values((2, 16, 16, 1), -1, 1), False),
    ("HU", noise(0, 1.2), False),  # whitened
    ("0 to 255", values(BATCH).astype(np.uint8), True),
    ("0 to 255", values(BATCH, -20, 280), True),  # resized, a little beyond
    ("0 to 255", values(BATCH, 0, 3), True),  # nearly black
    ("0 to 255", np.zeros(BATCH, np.uint8), True),
    ("0 to 255", values(BATCH, 0, 1), False),
    ("0 to 255", values(BATCH, 0, 4095), False),
    ("0 to 255", values(BATCH, -1000, 200), False),
    ("0 to 255", noise(0, 1.2), False),
    ("signal", HEAD, True),
    ("signal", HEAD - 20, True),  # what resampling leaves below 0
    ("signal", HEAD / 1000, True),  # any scale
    ("signal", np.zeros(VOLUME), True),
    ("signal", (HEAD - HEAD.mean()) / HEAD.std(), False),  # whitened
    ("signal", noise(-900, 200), False),  # HU
]


def test_presets_refuse_what_cannot_be_in_their_unit_and_nothing_else():
    failed = [
        (i, unit)
        for i, (unit, image, possible) in enumerate(POSSIBLE)
        if bool(Unit(unit).possible(tf.constant(image))) != possible
    ]
    assert not failed
    with pytest.raises(KeyError):
        Unit("metres")


@pytest.mark.parametrize(
    "preset, shape",
    [(augment.ct(), VOLUME), (augment.dermoscopy(), PICTURE), (augment.xray(), VOLUME[1:])],
)
def test_an_image_in_another_unit_is_refused_in_the_graph_with_its_name(preset, shape):
    elements = {"image": values((2, *shape), 0, 1), "case": ["Case 6", "Case 7"]}
    dataset = tf.data.Dataset.from_tensor_slices(elements).skip(1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"WRONG_UNIT(?s:.)*Case 7"):
        list(dataset.apply(augment.stage(preset, seed=1)))
