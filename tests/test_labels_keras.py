"""Heads, losses and metrics for Keras: a label that is not known takes no part in anything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as scores

from helpers import labels
from helpers.pipeline import pairs

FORMAT = [1, 3, 1]  # "binary" has the labels 0 and 2
graphs = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def keras(tf):
    import keras

    return keras


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, np.float64(x))


def gradient(tf, loss, truth, logits, **options) -> tuple[float, np.ndarray]:
    """A loss and what it does to the logits."""
    logits = tf.Variable(np.float32(logits))
    with tf.GradientTape() as tape:
        value = loss(truth, logits, **options)
    return float(value), tape.gradient(value, logits).numpy()


@st.composite
def batches(draw):
    """Labels of 0, 1 and -1, and logits as large as they can become."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    count = shape[0] * shape[1]
    truth = draw(st.lists(st.sampled_from([0, 1, -1]), min_size=count, max_size=count))
    logits = st.floats(-200, 200, width=32)
    found = draw(st.lists(logits, min_size=count, max_size=count))
    return np.float32(truth).reshape(shape), np.float32(found).reshape(shape)


# Layers


def test_each_head_has_a_layer_of_its_name_with_its_logits(keras):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input([5])
        outputs = labels.layers(keras.layers.Dense(4)(inputs), [1, 3, 1, 6])
    finally:
        keras.config.set_dtype_policy("float32")
    assert {name: one.shape for name, one in outputs.items()} == {
        "binary": (None, 2),
        "class_1": (None, 3),
        "class_3": (None, 6),
    }
    assert {one.dtype for one in outputs.values()} == {"float32"}
    model = keras.Model(inputs, outputs)
    assert all(model.get_layer(name).activation is keras.activations.linear for name in outputs)
    assert sum(one.shape[-1] for one in outputs.values()) == labels.outputs([1, 3, 1, 6])


def test_the_heads_of_layers_losses_and_metrics_are_those_of_the_elements(tf, keras):
    for sizes in ([1], [3], [1, 1], [2, 2], FORMAT):
        element = {"label": np.zeros((1, len(sizes)), np.int32)}
        dataset = tf.data.Dataset.from_tensor_slices(element).apply(labels.heads(sizes))
        names = set(dataset.element_spec["label"])
        assert set(labels.layers(keras.Input([4]), sizes)) == names
        assert set(labels.losses(sizes)) == set(labels.metrics(sizes)) == names


def test_features_that_are_pictures_are_refused(keras):
    with pytest.raises(ValueError, match="pool or flatten"):
        labels.layers(keras.Input([8, 8, 4]), FORMAT)
    for call in (labels.losses, labels.metrics, lambda wrong: labels.layers(None, wrong)):
        with pytest.raises(ValueError, match="one whole number for each label"):
            call([0])


# Losses


@graphs
@given(batches())
def test_binary_cross_entropy_is_the_mean_over_the_labels_that_are_known(tf, batch):
    truth, logits = batch
    known = truth >= 0
    count = max(known.sum(), 1)
    loss = labels.losses([1] * truth.shape[1])["binary"]
    found, slope = gradient(tf, loss, truth, logits)
    expected = np.where(known, softplus(np.where(truth == 1, -logits, logits)), 0).sum() / count
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
    sigmoid = np.exp(-softplus(-logits))
    expected = np.where(known, (sigmoid - truth) / count, 0)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-7)
    assert not slope[~known].any()


def test_it_is_scikit_learn_s_log_loss_and_keras_own_where_all_is_known(tf, keras):
    rng = np.random.default_rng(0)
    truth, logits = rng.integers(0, 2, (20, 3)).astype(np.float32), rng.normal(size=(20, 3))
    loss = labels.losses([1, 1, 1])["binary"]
    found, _ = gradient(tf, loss, truth, logits)
    assert found == pytest.approx(scores.log_loss(truth.ravel(), 1 / (1 + np.exp(-logits.ravel()))))
    own, _ = gradient(tf, keras.losses.BinaryCrossentropy(from_logits=True), truth, logits)
    assert found == pytest.approx(own, rel=1e-6)


def test_of_classes_it_is_scikit_learn_s_log_loss_of_the_known_cases(tf):
    rng = np.random.default_rng(1)
    truth, logits = rng.integers(-1, 3, 30), rng.normal(size=(30, 3))
    known = truth >= 0
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = labels.losses([3])["class_0"]
    found, slope = gradient(tf, loss, np.int32(truth), logits)
    assert found == pytest.approx(scores.log_loss(truth[known], chances[known], labels=[0, 1, 2]))
    assert not slope[~known].any() and abs(slope[known]).min() > 0


@pytest.mark.parametrize("head", ["binary", "class_1"])
def test_cases_without_the_label_change_no_bit_of_a_gradient(tf, head):
    """Half of the cases, so that no rounding comes in where the mean is taken."""
    rng = np.random.default_rng(2)
    width = {"binary": 2, "class_1": 3}[head]
    logits = rng.normal(size=(16, width)).astype(np.float32)
    truth = rng.integers(0, 2, (16, 2)).astype(np.float32)
    truth = truth if head == "binary" else truth[:, 0]
    gone = rng.permutation(16) < 8
    holes = truth.copy()
    holes[gone] = -1
    loss = labels.losses(FORMAT)[head]
    value, slope = gradient(tf, loss, holes, logits)
    alone, expected = gradient(tf, loss, truth[~gone], logits[~gone])
    np.testing.assert_array_equal(slope[~gone], expected)
    assert not slope[gone].any() and value == pytest.approx(alone, rel=1e-6)


def test_a_batch_that_knows_nothing_has_the_loss_zero_and_no_gradient(tf):
    losses = labels.losses(FORMAT)
    nothing = {"binary": np.full((4, 2), -1.0), "class_1": np.full(4, -1)}
    for name, width in (("binary", 2), ("class_1", 3)):
        logits = np.float32([[300.0] * width, [-300.0] * width, [0.0] * width, [1.0] * width])
        value, slope = gradient(tf, losses[name], nothing[name], logits)
        assert value == 0 and not slope.any() and np.isfinite(slope).all()


def test_a_positive_counts_its_weight(tf):
    truth = np.float32([[1, 0], [0, 1], [-1, 1]])
    logits = np.float32([[0.5, -1], [2, 0.1], [3, -40]])
    loss = labels.losses([1, 1], weights=[3, 0.5])["binary"]
    found, _ = gradient(tf, loss, truth, logits)
    by_hand = 3 * softplus(-0.5) + softplus(2) + softplus(-1) + 0.5 * (softplus(-0.1) + 40)
    assert found == pytest.approx(by_hand / 5, rel=1e-6)
    ones, _ = gradient(tf, labels.losses([1, 1], weights=[1, 1])["binary"], truth, logits)
    none, _ = gradient(tf, labels.losses([1, 1])["binary"], truth, logits)
    assert ones == none


def test_the_weight_of_a_case_counts_in_each_head_alike(tf):
    """The weighted sum over the number of known labels, as Keras does it with `ignore_class`."""
    weight = np.float32([2, 0, 5])
    losses = labels.losses(FORMAT)
    truth, logits = np.float32([[1, -1], [0, 1], [-1, -1]]), np.float32([[1, 2], [3, 4], [5, 6]])
    found, _ = gradient(tf, losses["binary"], truth, logits, sample_weight=weight)
    assert found == pytest.approx(2 * softplus(-1) / 3, rel=1e-6)
    found, _ = gradient(
        tf, losses["class_1"], np.int32([0, 1, -1]), np.zeros((3, 3)), sample_weight=weight
    )
    assert found == pytest.approx(2 * np.log(3) / 2, rel=1e-6)


@pytest.mark.parametrize("wrong", [[1.0], [1, 1, 1], [1, -1], [1, np.nan], [1, np.inf]])
def test_weights_that_fit_no_labels_are_refused(wrong):
    with pytest.raises(ValueError, match="one for each of 2 binary"):
        labels.losses(FORMAT, weights=wrong)


# Metrics


def test_metrics_count_the_known_labels_alone(tf, keras):
    rng = np.random.default_rng(3)
    truth = rng.integers(-1, 2, (400, 2)).astype(np.float32)
    logits = (truth + 1.5 * rng.normal(size=truth.shape)).astype(np.float32)
    known = truth >= 0
    (accuracy,) = labels.metrics([1, 1])["binary"]
    for part in np.split(np.arange(400), [150]):
        accuracy.update_state(truth[part], logits[part])
    expected = scores.accuracy_score(truth[known], logits[known] > 0)
    assert float(accuracy.result()) == pytest.approx(expected)
    # What Keras' own makes of it: a label that nobody knows is one more mistake.
    own = keras.metrics.BinaryAccuracy(threshold=0.5)
    own.update_state(truth, 1 / (1 + np.exp(-logits)))
    assert float(own.result()) == pytest.approx(expected * known.mean())


def test_the_accuracy_of_classes_is_that_of_the_known_cases(tf, keras):
    rng = np.random.default_rng(4)
    truth = rng.integers(-1, 3, 200)
    logits = np.eye(3)[truth] + rng.normal(size=(200, 3))
    known = truth >= 0
    (accuracy,) = labels.metrics([3])["class_0"]
    accuracy.update_state(truth, logits)
    expected = scores.accuracy_score(truth[known], logits[known].argmax(axis=1))
    assert float(accuracy.result()) == pytest.approx(expected)
    accuracy.reset_state()
    accuracy.update_state(np.full(3, -1), np.zeros((3, 3)))
    assert float(accuracy.result()) == 0


def test_metrics_take_the_weights_of_cases(tf):
    weight = np.float32([3, 1, 0])
    (binary,) = labels.metrics(FORMAT)["binary"]
    truth = np.float32([[1, -1], [0, 1], [1, 0]])
    logits = np.float32([[1, -1], [1, 1], [-1, 1]])
    binary.update_state(truth, logits, sample_weight=weight)
    assert float(binary.result()) == pytest.approx((3 + 1) / (3 + 1 + 1))
    (classes,) = labels.metrics(FORMAT)["class_1"]
    classes.update_state([0, -1, 1], np.eye(3), sample_weight=weight)
    assert float(classes.result()) == 1


# A model


def two_headed(keras, optimizer, metrics=None):
    """A small model with a head for each label of FORMAT, not trained."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input([5])
    features = keras.layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, labels.layers(features, FORMAT))
    model.compile(optimizer, loss=labels.losses(FORMAT), metrics=metrics)
    return model


def batched(tf, images, truth):
    dataset = tf.data.Dataset.from_tensor_slices({"image": images, "label": truth}).batch(16)
    return dataset.apply(labels.heads(FORMAT)).apply(pairs("label"))


@pytest.fixture(scope="module")
def known_in_part():
    """Images that say what their labels are, of which a third is not known, and 8 cases of none."""
    rng = np.random.default_rng(5)
    truth = np.stack([rng.integers(0, n, 128) for n in (2, 3, 2)], axis=1).astype(np.int32)
    images = np.concatenate([truth[:, :1], np.eye(3)[truth[:, 1]], truth[:, 2:]], axis=1)
    given = np.where(rng.random(truth.shape) < 1 / 3, -1, truth).astype(np.int32)
    given[:64:8] = -1
    return images.astype(np.float32), truth, given


def test_a_model_learns_all_from_labels_known_in_part(tf, keras, known_in_part):
    images, truth, given = known_in_part
    model = two_headed(keras, keras.optimizers.Adam(0.05), labels.metrics(FORMAT))
    history = model.fit(batched(tf, images, given), epochs=12, shuffle=False, verbose=0).history
    found = model.predict(images, verbose=0)
    assert ((found["binary"] > 0) == truth[:, [0, 2]]).all()
    assert (found["class_1"].argmax(axis=1) == truth[:, 1]).all()
    for name in ("binary_accuracy", "class_1_accuracy"):
        assert history[name][-1] == pytest.approx(1, abs=1e-3)


def test_what_a_case_without_labels_shows_changes_nothing(tf, keras, known_in_part):
    """Bit for bit, over a whole training; and what a case with labels shows changes something."""
    images, _, given = known_in_part
    model = two_headed(keras, keras.optimizers.SGD(0.1))
    start = model.get_weights()

    def trained(shown) -> list[np.ndarray]:
        model.set_weights(start)
        model.fit(batched(tf, shown, given), epochs=3, shuffle=False, verbose=0)
        return model.get_weights()

    expected, none = trained(images), (given < 0).all(axis=1)
    assert none.sum() >= 8
    for changed, same in ((none, True), (~none, False)):
        found = trained(np.where(changed[:, None], 7 - 3 * images, images))
        assert same == all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_model_is_saved_and_loaded_with_its_losses_and_metrics(keras, known_in_part, tmp_path):
    images, _, given = known_in_part
    truth = {"binary": given[:, [0, 2]].astype(np.float32), "class_1": given[:, 1]}
    inputs = keras.Input(images.shape[1:])
    model = keras.Model(inputs, labels.layers(inputs, FORMAT))
    model.compile(loss=labels.losses(FORMAT, weights=[2.0, 3.0]), metrics=labels.metrics(FORMAT))
    expected = model.evaluate(images, truth, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(images, truth, verbose=0) == expected
    assert loaded.loss["binary"].positive_weights == [2.0, 3.0]
    assert loaded.loss["class_1"].get_config()["ignore_class"] == -1


# Focal loss


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
def test_keras_own_focal_loss_is_exact_and_its_alpha_belongs_to_the_positives(
    tf, keras, compiled, balanced
):
    """By hand in float64: alpha_t (1 - p_t)^gamma cross-entropy, Lin et al. 2017, formula 5."""
    logits = np.array([-90, -40, -20, -17, -16, -9, -2, -0.1, 0, 1, 5, 16, 17, 30, 90], np.float32)
    loss = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=balanced, from_logits=True, reduction="sum"
    )
    call = tf.function(lambda *given: gradient_of_each(tf, loss, *given))
    call = call if compiled else call.python_function
    for label, alpha in ((1, 0.25), (0, 0.75)):
        value, slope = call(np.full((len(logits), 1), label, np.float32), logits[:, None])
        signed = np.float64(logits if label else -logits)  # of the right answer
        entropy, miss = softplus(-signed), np.exp(-softplus(signed))
        alpha = alpha if balanced else 1
        expected = alpha * (miss**2 * entropy)
        assert float(value) == pytest.approx(expected.sum(), rel=1e-6)
        towards = -alpha * miss**2 * (2 * (1 - miss) * entropy + miss)
        expected = towards if label else -towards
        np.testing.assert_allclose(slope[:, 0], expected, rtol=1e-3, atol=1e-9)


def gradient_of_each(tf, loss, truth, logits):
    logits = tf.convert_to_tensor(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(truth, logits)
    return value, tape.gradient(value, logits)


def test_a_positive_may_weigh_nothing():
    assert labels.losses([1, 1, 6], [0, 2])["binary"].positive_weights == [0.0, 2.0]
