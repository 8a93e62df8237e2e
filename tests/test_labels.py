"""A format of labels in heads: a label that is not known takes no part in anything."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from helpers import labels

FORMAT = [1, 3, 1]  # "binary" has the labels 0 and 2
some = settings(max_examples=20, deadline=None, derandomize=True)


def heads(label_format, rows, batch=None, **fields) -> list[dict]:
    dataset = tf.data.Dataset.from_tensor_slices({"label": rows} | fields)
    dataset = (dataset.batch(batch) if batch else dataset).apply(labels.heads(label_format))
    return [element["label"] for element in dataset.as_numpy_iterator()]


def gradient(loss, truth, logits, **options) -> tuple[float, np.ndarray]:
    """A loss and what it does to the logits."""
    logits = tf.Variable(np.float32(logits))
    with tf.GradientTape() as tape:
        value = loss(truth, logits, **options)
    return float(value), tape.gradient(value, logits).numpy()


@some
@given(st.lists(st.integers(1, 6), min_size=1, max_size=7), st.sampled_from([None, 9]))
def test_heads_hold_the_labels_of_their_positions_of_an_element_or_a_batch(sizes, batch):
    binary, largest = np.array(sizes) == 1, np.maximum(np.array(sizes) - 1, 1)
    rows = np.random.default_rng(0).integers(-1, largest + 1, (4, len(sizes)))
    found = heads(sizes, rows[:, 0] if len(sizes) == 1 else rows, batch)
    for row, head in zip([rows] if batch else rows, found, strict=True):
        expected = {f"class_{n}": np.int32(row[..., n]) for n in np.flatnonzero(~binary)}
        expected |= {"binary": np.float32(row[..., binary])} if binary.any() else {}
        assert head.keys() == expected.keys() == labels.losses(sizes).keys()
        for name, part in head.items():
            np.testing.assert_array_equal(part, expected[name], strict=True)


@some
@given(st.integers(1, 3), st.lists(st.sampled_from([0, 1, -1]), min_size=3, max_size=18), st.data())
def test_binary_cross_entropy_is_the_weighted_mean_over_the_labels_that_are_known(n, truth, data):
    truth = np.float32(truth[: len(truth) // n * n]).reshape(-1, n)
    logit = st.floats(-200, 200, width=32)
    logits = np.array([data.draw(logit) for _ in range(truth.size)]).reshape(truth.shape)
    weights = data.draw(st.sampled_from([None, [3.0, 0.5, 0.0][:n]]))
    of_case = np.resize([1, 0, 5], len(truth))
    loss = labels.losses([1] * n, weights)["binary"]
    found, slope = gradient(loss, truth, logits, sample_weight=of_case)
    known, count = truth >= 0, max((truth >= 0).sum(), 1)
    each = np.where(truth == 1, weights or 1, known) * of_case[:, None]
    entropy = each * np.logaddexp(0, np.where(truth == 1, -logits, logits))
    assert found == pytest.approx(entropy.sum() / count, rel=1e-5, abs=1e-7)
    expected = each * (np.exp(-np.logaddexp(0, -logits)) - truth) / count
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-7)
    assert not slope[~known].any()


def test_of_classes_it_is_scikit_learn_s_log_loss_and_0_of_a_batch_that_knows_nothing():
    rng, losses = np.random.default_rng(1), labels.losses([1, 1, 1, 3])
    truth, logits = rng.integers(-1, 3, 30).astype(np.int32), rng.normal(size=(30, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found, slope = gradient(losses["class_3"], truth, logits)
    known = truth >= 0
    assert found == pytest.approx(log_loss(truth[known], chances[known]))
    np.testing.assert_array_equal(slope.any(axis=1), known)
    for name, shape in (("binary", (30, 3)), ("class_3", 30)):
        value, slope = gradient(losses[name], np.full(shape, -1.0), 300 * logits)
        assert value == 0 and not slope.any()


def test_a_model_learns_all_from_labels_known_in_part_and_is_saved_with_its_losses(tmp_path):
    rng = np.random.default_rng(5)
    truth = np.stack([rng.integers(0, n, 128) for n in (2, 3, 2)], axis=1).astype(np.int32)
    images = np.concatenate([truth[:, :1], np.eye(3)[truth[:, 1]], truth[:, 2:]], axis=1)
    (given,) = heads(FORMAT, np.where(rng.random(truth.shape) < 1 / 3, -1, truth), batch=128)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input([5])
    outputs = labels.layers(keras.layers.Dense(8)(inputs), FORMAT)
    keras.config.set_dtype_policy("float32")
    sides = {name: (one.shape, one.dtype) for name, one in outputs.items()}
    assert sides == {"binary": ((None, 2), "float32"), "class_1": ((None, 3), "float32")}
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.3), labels.losses(FORMAT, [2.0, 3.0]), jit_compile=True)
    model.fit(images, given, epochs=25, shuffle=False, verbose=0)
    found = model.predict(images, verbose=0)
    assert ((found["binary"] > 0) == truth[:, [0, 2]]).all()
    assert (found["class_1"].argmax(axis=1) == truth[:, 1]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(images, given, verbose=0) == model.evaluate(images, given, verbose=0)
    assert loaded.loss["binary"].positive_weights == [2.0, 3.0]


REFUSED = [
    (lambda: labels.heads([]), "from 1"), (lambda: labels.heads([1, 0]), "from 1"),
    (lambda: heads([1, 3], [[2, 0]], case=["abc"]), "UNKNOWN_LABEL.*case.*abc"),
    (lambda: heads([1, 3], [[0, 3]]), "UNKNOWN_LABEL.*3"),
    (lambda: heads([1, 3], [[-2, 0]]), "UNKNOWN_LABEL.*-2"),
    (lambda: heads([2, 2], [[1, 1, 1]]), r"UNKNOWN_LABEL.*\(3,\).*\[2, 2\]"),
    (lambda: heads([2, 2], [1]), r"UNKNOWN_LABEL.*\(\).*\[2, 2\]"),
    (lambda: labels.losses(FORMAT, [1.0]), "1 weights for 2 binary"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_labels_and_formats_that_do_not_fit_are_refused_with_their_reason(call, words):
    with pytest.raises((ValueError, tf.errors.OpError), match=f"(?s){words}"):
        call()
