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
    weights = [random.uniform(0.5, 2, SHAPE[-1]).astype(np.float32) for _ in range(4)]
    made = [
        kind(**options)
        for kind in (keras.layers.BatchNormalization, deeplab.FusedBatchNormalization)
    ]
    for layer in made:
        layer.build(SHAPE)
        layer.set_weights(weights)
    return made


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


def test_without_scale_it_is_keras_layer():
    theirs, ours = (
        kind(scale=False)
        for kind in (keras.layers.BatchNormalization, deeplab.FusedBatchNormalization)
    )
    np.testing.assert_array_equal(ours(images(), training=True), theirs(images(), training=True))


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
