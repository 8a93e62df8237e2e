"""DeepLab's layers, Keras' loss, rate and metric, and what a data set is refused for, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import softmax
from sklearn import metrics

from helpers import deeplab
from helpers.deeplab.layers import CentredMaxPooling2D, FusedBatchNormalization

quick = settings(max_examples=25, deadline=None, derandomize=True)
SHAPE = (4, 5, 3, 6)


def after_a_step(layer, shape, training) -> list[np.ndarray]:
    """Values, gradients and all weights, moving averages among them, in float32."""
    random = np.random.default_rng(0)
    x, outgoing = (tf.cast(random.normal(3, 2, shape), layer.compute_dtype) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = layer(x, training=training)
        total = tf.reduce_sum(tf.cast(values * outgoing, tf.float32))
    assert values.dtype == layer.compute_dtype
    found = [values, *tape.gradient(total, [x, layer.gamma, layer.beta]), *layer.weights]
    return [tf.cast(tf.convert_to_tensor(one), tf.float32).numpy() for one in found]


BATCHES = [  # options of the layer, of the call, and the error allowed
    ({"momentum": 0.8, "epsilon": 0.1}, SHAPE, True, 1e-4), ({}, (4, 1, 1, 6), True, 1e-4),
    ({}, (1, 2, 2, 6), True, 1e-4),  # of so few a variance by n - 1 would be far off
    ({}, SHAPE, False, 1e-4), ({"trainable": False}, SHAPE, True, 1e-4),
    ({"dtype": "mixed_float16"}, SHAPE, True, 0.01),
    ({"dtype": "mixed_bfloat16"}, SHAPE, True, 0.05),
]  # fmt: skip


@pytest.mark.parametrize(("options", "shape", "training", "allowed"), BATCHES, ids=str)
def test_batch_normalisation_in_one_operation_is_keras_own(options, shape, training, allowed):
    exact = keras.layers.BatchNormalization(**options | {"dtype": "float32"})
    ours, random = FusedBatchNormalization(**options), np.random.default_rng(3)
    exact.build(SHAPE)
    ours.build(SHAPE)
    before = [random.uniform(0.5, 2, one.shape) for one in exact.weights]
    exact.set_weights(before)
    ours.set_weights(before)
    found, expected = (after_a_step(one, shape, training) for one in (ours, exact))
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() <= allowed * max(1, np.abs(other).max())
    moved = np.abs(found[-1] - before[-1]).max() > 1e-3  # the average of the variances
    assert moved == (training and "trainable" not in options)


@quick
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(1, 1), (2, 1), (1, 2), (1, 3)]))
def test_a_centred_maximum_is_that_of_the_pixels_round_each_centre(height, width, how):
    strides, rate = how
    x = np.random.default_rng(height * 10 + width).normal(size=(height, width)) - 9
    taps = np.zeros([2 * rate + 1] * 2)
    taps[::rate, ::rate] = 1
    expected = ndimage.maximum_filter(x, footprint=taps, mode="constant", cval=-np.inf)
    layer = CentredMaxPooling2D(pool_size=3, strides=strides, dilation_rate=rate)
    found = layer(np.float32(x)[None, ..., None]).numpy()[0, ..., 0]
    np.testing.assert_array_equal(found, np.float32(expected[::strides, ::strides]))


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4]))
def test_upsampling_reads_at_the_pixel_s_place_on_the_grid_of_features(height, width, stride):
    x = np.random.default_rng(height).normal(size=(-(-height // stride), -(-width // stride)))
    features, finer = np.float32(x)[None, ..., None], np.zeros((1, height, width, 1))
    places = np.mgrid[:height, :width] / stride
    expected = ndimage.map_coordinates(x, places, order=1, mode="nearest")
    found = deeplab.Upsampling(stride)([features, finer])
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-5)
    single = deeplab.Upsampling(1)([features[:, :1, :1], finer])
    np.testing.assert_array_equal(single, np.full(finer.shape, features[0, 0, 0]))


KERAS_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)


@pytest.mark.parametrize("loss", [KERAS_LOSS, deeplab.masked_loss], ids=["Keras", "ours"])
def test_a_loss_is_scikit_learn_s_over_the_pixels_that_count_and_0_where_none_does(loss):
    random = np.random.default_rng(0)
    truth, logits = random.integers(0, 4, (3, 8, 8)), np.float32(random.normal(size=(3, 8, 8, 4)))
    truth[0], truth[1, :2], truth[2, 3, 3] = 255, 255, 255  # images do not count alike
    known, given_ = truth != 255, tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss(np.uint8(truth[..., None]), given_)
    chances, how = softmax(logits[known], -1), {"labels": range(4)}
    assert float(value) == pytest.approx(metrics.log_loss(truth[known], chances, **how), rel=1e-5)
    gradient = tape.gradient(value, given_).numpy()
    np.testing.assert_array_equal((gradient != 0).all(-1), known)
    np.testing.assert_array_equal((gradient != 0).any(-1), known)
    assert float(loss(np.full((1, 8, 8, 1), 255), logits[:1])) == 0
    many = np.zeros((17, 1024, 1024, 1), np.uint8)  # in float32 ones add up to 16,777,216
    found = loss(many, tf.tile(tf.constant([[[[1.0, 0.0]]]]), many.shape))
    assert float(found) == pytest.approx(np.log1p(np.exp(-1)), rel=1e-5)
    if loss is KERAS_LOSS:  # a weight for each case; divided by the number of pixels all the same
        weights = np.float32([[[3.0]], [[0.5]], [[2.0]]])
        each = np.broadcast_to(weights, truth.shape)[known]
        expected = metrics.log_loss(truth[known], chances, sample_weight=each, **how) * each.mean()
        assert float(loss(truth, logits, weights)) == pytest.approx(expected, rel=1e-5)


def test_keras_metric_and_rate_are_the_paper_s():
    random = np.random.default_rng(0)
    truth, found = random.integers(0, 3, (2, 3, 8, 8))  # class 3 occurs nowhere, and has no part
    metric = keras.metrics.MeanIoU(4, ignore_class=255, sparse_y_pred=False)
    for one, other in zip(np.where(found == 0, 255, truth), np.eye(4)[found], strict=True):
        metric.update_state(one, other)
    counts = found != 0
    expected = metrics.jaccard_score(truth[counts], found[counts], average="macro")
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
    rate = keras.optimizers.schedules.PolynomialDecay(0.02, 100, 0, power=0.9)
    for step in (0, 1, 50, 99, 100, 500):
        assert float(rate(step)) == pytest.approx(0.02 * (1 - min(step, 100) / 100) ** 0.9)


def fields(height: int, width: int, channels: int, ids=(0, 1)) -> dict:
    """An image and a mask that has these ids in turn."""
    mask = np.resize(np.array(ids, np.uint8), (height, width, 1))
    return {"image": np.zeros((height, width, channels), np.float32), "mask": mask}


def elements(**changed):
    """Cases a, b and c, of which b has other fields."""

    def made():
        for number in range(3):
            element = fields(20, 24, 3, ids=[0]) | {"case": "abc"[number]}
            element["image"][0, :3, 0] = number, 254, 7.5
            element["mask"][5:9, 5:9], element["mask"][-1] = 1, 255
            yield element | (changed if number == 1 else {})

    shapes = {"image": tf.TensorSpec([None] * 3), "mask": tf.TensorSpec([None] * 3, tf.uint8)}
    shapes |= {"case": tf.TensorSpec([], tf.string)}
    return tf.data.Dataset.from_generator(made, output_signature=shapes)


@pytest.mark.filterwarnings("error:batches of one image")
def test_the_report_tells_cases_pixels_and_values_of_elements_and_batches():
    line = "3 images of 20 x 24 pixels or more, values 0 to 254; "
    line += "pixels of each class: 91.7%, 3.3%; ignored: 5.0%"
    for same in (elements(), elements().batch(2), elements().repeat().take(3)):
        assert deeplab.check(same, 2) == line
    assert "3 images of 18 x 24 " in deeplab.check(elements(**fields(18, 30, 3)), 2)
    assert "77.8%, 2.2%, 16.7%;" in deeplab.check(elements(**fields(20, 24, 3, ids=(0, 2))), 3)
    assert deeplab.check(tf.data.Dataset.from_tensors(fields(17, 17, 1)), 2, channels=1)
    # With batches of one a pyramid trained to 0.496, and evaluated to 4.678 on the same data.
    with pytest.warns(UserWarning, match="batches of one image"):
        assert deeplab.check(elements().batch(1), 2) == line


GOOD = fields(20, 24, 3)
NAN, INFINITE = (GOOD | {"image": GOOD["image"] + [0, one, 0]} for one in (np.nan, -np.inf))
OF_B = [  # what case b has, and what is said of it
    (fields(20, 24, 3, ids=range(9)), "[UNKNOWN_LABEL]", "2, 3, 4, 5, 6 and 2 more; expected 0 to"),
    (GOOD | {"mask": GOOD["mask"][:, :20]}, "[MASK_MISMATCH]", "(20, 24, 3), the mask (20, 20, 1)"),
    (GOOD | {"mask": np.zeros((20, 24, 2))}, "[MASK_MISMATCH]", "the mask (20, 24, 2)"),
    (fields(16, 24, 3), "[SHAPE_MISMATCH]", "(16, 24, 3)"),
    (fields(20, 24, 4), "[SHAPE_MISMATCH]", "of 3 channels"),
    (NAN, "[NOT_FINITE]", "NaN or infinities"), (INFINITE, "[NOT_FINITE]", "NaN or infinities"),
]  # fmt: skip
OF_ALL = [
    (lambda e: e | {"mask": tf.cast(e["mask"] == 1, tf.uint8) * 255},
     "EMPTY_CLASS] class 0 alone occurs in 3 masks; 48 pixels are 255, which is ignored: is it"),
    (lambda e: e | {"mask": e["mask"] | 255}, "no class occurs in 3 masks"),
    (lambda e: e | {"mask": e["mask"] / 1}, "whole numbers"),
    (lambda e: {"image": e["image"]}, "mask"),
    (lambda e: e | {"image": e["image"][..., 0]}, "are taken"),
]  # fmt: skip


def test_bad_data_is_named_with_its_case():
    asked = [(elements().map(change), [words]) for change, words in OF_ALL]
    asked += [(elements().repeat(), ["without end"]), (elements().take(0), ["in 0 masks"])]
    asked.append((tf.data.Dataset.range(3), []))
    asked.append((elements(**fields(9, 24, 3), case=b"J\xe9r"), ["case J\ufffdr: "]))
    for changed, *words in OF_B:
        bad = elements(**changed)
        nameless = bad.map(lambda e: {n: e[n] for n in ("image", "mask")})
        asked += [(bad, ["case b: ", *words]), (nameless, ["case 1, counted from 0: "])]
    wrong = []
    for made, words in asked:
        try:
            wrong.append((words, deeplab.check(made, 2)))
        except (ValueError, TypeError, KeyError) as error:
            wrong += [(one, error) for one in words if one not in str(error)]
    assert wrong == []
