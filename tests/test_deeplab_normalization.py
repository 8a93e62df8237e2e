"""Batch normalisation in one operation is Keras' own, number by number."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from helpers import deeplab  # noqa: E402

SHAPE = (4, 5, 3, 6)


def both(**options):
    """Keras' layer and ours, with the same weights, none of them trivial."""
    random = np.random.default_rng(3)
    made = [
        kind(**options)
        for kind in (keras.layers.BatchNormalization, deeplab.FusedBatchNormalization)
    ]
    for layer in made:
        layer.build(SHAPE)
    weights = [random.uniform(0.5, 2, one.shape) for one in made[0].weights]
    for layer in made:
        layer.set_weights(weights)
    return made


def after_a_step(layer, given, **call) -> list[np.ndarray]:
    """Values, gradients and all weights, moving averages among them, in float32."""
    outgoing = tf.cast(images(seed=1), layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(given)
        values = layer(given, training=True, **call)
        total = tf.reduce_sum(tf.cast(values * outgoing, tf.float32))
    assert values.dtype == layer.compute_dtype
    found = [values, *tape.gradient(total, [given, *layer.trainable_weights]), *layer.weights]
    return [tf.cast(tf.convert_to_tensor(one), tf.float32).numpy() for one in found]


def images(shape=SHAPE, seed: int = 0):
    return tf.constant(np.random.default_rng(seed).normal(3, 2, shape), tf.float32)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [SHAPE, (4, 1, 1, 6), (1, 2, 2, 6)])
def test_values_and_gradients_are_those_of_keras(training, shape):
    outgoing = images(shape, seed=1)
    found = []
    for layer in both(epsilon=1e-3, momentum=0.8):
        given = images(shape)
        with tf.GradientTape() as tape:
            tape.watch(given)
            values = layer(given, training=training)
            total = tf.reduce_sum(values * outgoing)
        found.append([values, *tape.gradient(total, [given, layer.gamma, layer.beta])])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_moving_averages_are_those_of_keras():
    theirs, ours = both(momentum=0.8)
    for seed in range(3):
        for layer in (theirs, ours):
            layer(images(seed=seed), training=True)
    # The variance of a batch divided by n, not by n - 1: with 60 values the two differ by 1.7 %.
    for one, other in zip(theirs.get_weights()[2:], ours.get_weights()[2:], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)


def test_one_value_a_channel_has_no_variance():
    _, ours = both(momentum=0.5)
    before = ours.moving_variance.numpy()
    values = ours(images((1, 1, 1, 6)), training=True)
    np.testing.assert_allclose(ours.moving_variance, 0.5 * before, rtol=1e-6)
    np.testing.assert_allclose(values[0, 0, 0], ours.beta, rtol=1e-5)


def test_a_layer_that_is_not_trained_keeps_its_averages():
    _, ours = both()
    ours.trainable = False
    before = ours.get_weights()
    values = ours(images(), training=True)
    np.testing.assert_array_equal(values, ours(images(), training=False))
    for one, other in zip(before, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


LEFT_TO_KERAS = {
    "no scale": {"scale": False},
    "no shift": {"center": False},
    "another axis": {"axis": 1},
    "renormalised": {"renorm": True},
    "over several devices": {"synchronized": True},
    **{dtype: {"dtype": dtype} for dtype in ("float16", "bfloat16", "float64")},
}


@pytest.mark.parametrize("kind", LEFT_TO_KERAS)
def test_what_the_one_operation_cannot_do_is_keras_layer(kind):
    options = LEFT_TO_KERAS[kind]
    if "renorm" in options and not hasattr(keras.layers.BatchNormalization(), "renorm"):
        pytest.skip("this Keras has no renorm")
    theirs, ours = both(**options)
    given = tf.cast(images(), ours.compute_dtype)
    pairs = zip(after_a_step(theirs, given), after_a_step(ours, given), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(other, one)
    np.testing.assert_array_equal(ours(given, training=False), theirs(given, training=False))


def test_pixels_that_a_mask_leaves_out_are_left_to_keras():
    theirs, ours = both()
    mask = np.random.default_rng(2).uniform(size=SHAPE[:3]) < 0.5
    found = [after_a_step(layer, images(), mask=tf.constant(mask)) for layer in (theirs, ours)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(other, one)
    whole = after_a_step(both()[1], images())
    assert np.abs(whole[-1] - found[1][-1]).max() > 1e-4


def test_it_runs_on_a_keras_without_renorm(monkeypatch):
    theirs, ours = both()
    if hasattr(ours, "renorm"):  # as newer versions do
        monkeypatch.delattr(ours, "renorm")
    found = ours(images(), training=True)
    np.testing.assert_allclose(found, theirs(images(), training=True), rtol=1e-4, atol=1e-4)


def test_the_layer_by_itself_is_saved_and_loaded(tmp_path):
    _, ours = both(momentum=0.8, epsilon=1e-4)
    model = keras.Sequential([keras.Input(SHAPE[1:]), ours])
    model.save(tmp_path / "layer.keras")
    again = keras.saving.load_model(tmp_path / "layer.keras")
    layer = again.layers[-1]
    assert type(layer) is deeplab.FusedBatchNormalization
    assert (layer.momentum, layer.epsilon) == (0.8, 1e-4)
    for training in (False, True):
        expected = model(images(), training=training)
        np.testing.assert_array_equal(again(images(), training=training), expected)


@pytest.mark.parametrize(("policy", "digits"), [("mixed_float16", 0.01), ("mixed_bfloat16", 0.05)])
def test_gradients_of_half_precision_are_those_of_float32_but_for_rounding(policy, digits):
    (_, ours), (theirs, _) = both(dtype=policy), both()
    given = tf.cast(images(), ours.compute_dtype)
    found = after_a_step(ours, given), after_a_step(theirs, tf.cast(given, tf.float32))
    for half, whole in zip(*found, strict=True):
        assert np.abs(half - whole).max() < digits * np.abs(whole).max()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_normalised_with_whole_averages(policy):
    _, ours = both(dtype=policy)
    theirs, _ = both()
    values = ours(tf.cast(images(), ours.compute_dtype), training=True)
    assert values.dtype == ours.compute_dtype and ours.moving_mean.dtype == "float32"
    expected = theirs(images(), training=True)
    np.testing.assert_allclose(tf.cast(values, tf.float32), expected, atol=0.05)
    for one, other in zip(ours.get_weights()[2:], theirs.get_weights()[2:], strict=True):
        np.testing.assert_allclose(one, other, rtol=0.01)


@pytest.mark.parametrize("backbone", list(deeplab.BACKBONES))
def test_every_normalisation_of_a_model_is_fused(backbone):
    encoder = deeplab.encoder(backbone)
    kinds = {
        type(one) for one in encoder.layers if isinstance(one, keras.layers.BatchNormalization)
    }
    assert kinds == {deeplab.FusedBatchNormalization}
