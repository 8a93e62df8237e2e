"""DeepLab's layers, Keras' loss, rate and metric, and what a data set is refused for, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from helpers import deeplab, evaluation  # noqa: E402
from helpers.deeplab.layers import CentredMaxPooling2D, FusedBatchNormalization  # noqa: E402

quick = settings(max_examples=25, deadline=None, derandomize=True)
SHAPE = (4, 5, 3, 6)
LOSS = {"from_logits": True, "ignore_class": 255}


def normal(shape=SHAPE, seed: int = 0):
    return tf.constant(np.random.default_rng(seed).normal(3, 2, shape), tf.float32)


def both(**options):
    """Keras' batch normalisation and ours, with the same weights, none of them trivial."""
    random = np.random.default_rng(3)
    made = [kind(**options) for kind in (keras.layers.BatchNormalization, FusedBatchNormalization)]
    for layer in made:
        layer.build(SHAPE)
    weights = [random.uniform(0.5, 2, one.shape) for one in made[0].weights]
    for layer in made:
        layer.set_weights(weights)
    return made


def after_a_step(layer, shape=SHAPE, training=True, **call) -> list[np.ndarray]:
    """Values, gradients and all weights, moving averages among them, in float32."""
    inputs, outgoing = (tf.cast(normal(shape, seed), layer.compute_dtype) for seed in (0, 1))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = layer(inputs, training=training, **call)
        total = tf.reduce_sum(tf.cast(values * outgoing, tf.float32))
    assert values.dtype == layer.compute_dtype
    found = [values, *tape.gradient(total, [inputs, layer.gamma, layer.beta]), *layer.weights]
    return [tf.cast(tf.convert_to_tensor(one), tf.float32).numpy() for one in found]


BATCHES = [  # options of the layer, of the call, and the error allowed
    ({"momentum": 0.8, "epsilon": 1e-3}, {}, 1e-4), ({}, {"shape": (4, 1, 1, 6)}, 1e-4),
    ({}, {"shape": (1, 2, 2, 6)}, 1e-4), ({}, {"training": False}, 1e-4),
    ({"trainable": False}, {}, 1e-4), ({"dtype": "mixed_float16"}, {}, 0.01),
    ({"dtype": "mixed_bfloat16"}, {}, 0.05),
]  # fmt: skip


@pytest.mark.parametrize(("options", "call", "allowed"), BATCHES, ids=str)
def test_batch_normalisation_in_one_operation_is_keras_own(options, call, allowed):
    theirs, ours = both(**options)
    exact = both(**options | {"dtype": "float32"})[0] if "mixed" in str(options) else theirs
    before = ours.get_weights()
    for one, other in zip(after_a_step(exact, **call), after_a_step(ours, **call), strict=True):
        assert np.abs(one - other).max() <= allowed * max(1, np.abs(one).max())
    if call.get("training", True) and options.get("trainable", True):
        # The variance of a batch is divided by n, not by n - 1.
        np.testing.assert_allclose(ours.moving_variance, exact.moving_variance, rtol=1e-2)
        assert any((np.asarray(b) != a).any() for a, b in zip(before, ours.weights, strict=True))
    else:
        np.testing.assert_array_equal(np.asarray(ours.moving_mean), before[2])


@quick
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(1, 1), (2, 1), (1, 2), (1, 3)]))
def test_a_centred_maximum_is_that_of_the_pixels_round_each_centre(height, width, how):
    strides, rate = how
    x = np.random.default_rng(height * 10 + width).normal(size=(1, height, width, 2)) - 9
    layer = CentredMaxPooling2D(pool_size=3, strides=strides, dilation_rate=rate)
    found = layer(np.float32(x)).numpy()
    assert found.shape == (1, -(-height // strides), -(-width // strides), 2)
    for place in np.ndindex(*found.shape[1:3]):
        rows, columns = ([n * strides + rate * k for k in (-1, 0, 1)] for n in place)
        inside = [x[0, r, c] for r in rows for c in columns if 0 <= r < height and 0 <= c < width]
        np.testing.assert_array_equal(found[0][place], np.float32(inside).max(0))


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4]))
def test_upsampling_reads_at_the_pixel_s_place_on_the_grid_of_features(height, width, stride):
    rows, columns = -(-height // stride), -(-width // stride)
    x = np.random.default_rng(height).normal(size=(rows, columns))
    given_ = [np.float32(x)[None, ..., None], np.zeros((1, height, width, 1))]
    found = deeplab.Upsampling(stride)(given_).numpy()[0, ..., 0]
    down = [np.interp(np.arange(height) / stride, np.arange(rows), column) for column in x.T]
    across = [
        np.interp(np.arange(width) / stride, np.arange(columns), row) for row in np.array(down).T
    ]
    np.testing.assert_allclose(found, across, atol=1e-5)
    single = deeplab.Upsampling(1)([given_[0][:, :1, :1], given_[1]])
    np.testing.assert_array_equal(single, np.full((1, height, width, 1), np.float32(x[0, 0])))


# The loss, the rate and the metric


def masks(shape, classes: int, ignored: float = 0.2):
    """Truth with ignored pixels, and logits."""
    random = np.random.default_rng(0)
    truth = random.integers(0, classes, shape).astype(np.uint8)
    truth[random.uniform(size=shape) < ignored] = 255
    return truth, random.normal(size=(*shape, classes)).astype(np.float32)


def cross_entropy(truth, logits, weights=1.0) -> float:
    """By hand, in float64."""
    logits = np.float64(logits)
    chosen = np.where(truth == 255, 0, truth).astype(int)[..., None]
    each = np.logaddexp.reduce(logits, -1) - np.take_along_axis(logits, chosen, -1)[..., 0]
    return float((each * weights * (truth != 255)).sum() / (truth != 255).sum())


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_keras_loss_is_the_mean_over_pixels_that_count_and_so_is_ours(policy):
    keras.config.set_dtype_policy(policy)
    loss = keras.losses.SparseCategoricalCrossentropy(**LOSS)
    metric = keras.metrics.MeanIoU(4, ignore_class=255, sparse_y_pred=False)
    keras.config.set_dtype_policy("float32")
    truth, logits = masks((3, 8, 8), 4)
    truth[0] = 255  # one image has none
    truth[1, :2] = 255  # images do not count alike: pixels do
    weights = np.random.default_rng(1).uniform(0, 3, truth.shape).astype(np.float32)
    nonsense = logits + np.float32([99, 0, -99, 0]) * (truth == 255)[..., None]
    exact, mask = cross_entropy(truth, logits), truth[..., None]
    by_pixel, of_case = (cross_entropy(truth, logits, w) for w in (weights, weights[:, :1, :1]))
    empty = np.full_like(mask, 255)
    table = {
        "plain": (loss(mask, logits), exact), "no channel": (loss(truth, logits), exact),
        "masked_loss": (deeplab.masked_loss(mask, logits), exact),
        "masked_loss, nonsense": (deeplab.masked_loss(mask, nonsense), exact),
        "nonsense": (loss(mask, nonsense), exact),
        "pixels": (loss(mask, logits, weights), by_pixel),
        "one channel": (loss(mask, logits, weights[..., None]), by_pixel),
        "cases": (loss(mask, logits, weights[:, :1, :1]), of_case),
        "none": (loss(empty, logits), 0), "none, ours": (deeplab.masked_loss(empty, logits), 0),
    }  # fmt: skip
    wrong = {name: (float(a), b) for name, (a, b) in table.items() if not np.isclose(a, b, 1e-5)}
    assert wrong == {}
    truth[truth == 3], logits[..., 3] = 255, -9  # class 3 occurs nowhere, so it has no part
    for rows in (slice(0, 1), slice(1, 3)):
        metric.update_state(truth[rows, ..., None], logits[rows])
    expected = evaluation.iou(evaluation.confusion(truth, logits.argmax(-1), 4))
    assert np.isnan(expected[3])
    assert float(metric.result()) == pytest.approx(np.nanmean(expected), rel=1e-6)


def test_an_ignored_pixel_has_no_gradient_and_millions_are_counted_right():
    truth, values = masks((1, 6, 6), 3)
    many = np.zeros((17, 1024, 1024, 1), np.uint8)  # in float32 ones add up to 16,777,216
    for loss in (keras.losses.SparseCategoricalCrossentropy(**LOSS), deeplab.masked_loss):
        logits = tf.Variable(values)
        with tf.GradientTape() as tape:
            value = loss(truth[..., None], logits)
        gradient = tape.gradient(value, logits).numpy()
        assert not gradient[truth == 255].any() and gradient[truth != 255].all()
        found = loss(many, tf.tile(tf.constant([[[[1.0, 0.0]]]]), many.shape))
        assert float(found) == pytest.approx(np.log1p(np.exp(-1)), rel=1e-5)
    rate = keras.optimizers.schedules.PolynomialDecay(0.02, 100, 0, power=0.9)
    for step in (0, 1, 50, 99, 100, 500):
        poly = 0.02 * (1 - min(step, 100) / 100) ** 0.9
        assert float(rate(step)) == pytest.approx(poly, abs=1e-8)


# What would spoil a training


def elements(count: int = 3, **changed):
    """Cases a, b, c ..., of which b has other fields."""

    def made():
        for number in range(count):
            image = np.random.default_rng(number).uniform(0, 254, (20, 24, 3)).astype(np.float32)
            image[0, 0] = number
            mask = np.zeros((20, 24, 1), np.uint8)
            mask[5:9, 5:9], mask[-1] = 1, 255
            element = {"image": image, "mask": mask, "case": "abc"[number]}
            yield element | (changed if number == 1 else {})

    shapes = {"image": tf.TensorSpec([None] * 3), "mask": tf.TensorSpec([None] * 3, tf.uint8)}
    shapes |= {"case": tf.TensorSpec([], tf.string)}
    return tf.data.Dataset.from_generator(made, output_signature=shapes)


def fields(height: int, width: int, channels: int, ids=(0, 1)) -> dict:
    mask = np.resize(np.array(ids, np.uint8), (height, width, 1))
    return {"image": np.zeros((height, width, channels), np.float32), "mask": mask}


@pytest.mark.filterwarnings("error:batches of one image")
def test_the_report_tells_cases_pixels_and_values_of_elements_and_batches():
    line = deeplab.check(elements(), 2)
    assert line.startswith("3 images of 20 x 24 pixels or more, values 0 to 25")
    assert line.endswith("pixels of each class: 91.7%, 3.3%; ignored: 5.0%")
    assert deeplab.check(elements().batch(2), 2) == line
    assert deeplab.check(elements().repeat().take(3), 2) == line
    assert "3 images of 18 x 24 " in deeplab.check(elements(**fields(18, 30, 3)), 2)
    assert "77.8%, 2.2%, 16.7%;" in deeplab.check(elements(**fields(20, 24, 3, ids=(0, 2))), 3)
    assert deeplab.check(tf.data.Dataset.from_tensors(fields(18, 18, 1)), 2, channels=1)
    # With batches of one a pyramid trained to 0.496, and evaluated to 4.678 on the same data.
    with pytest.warns(UserWarning, match="batches of one image"):
        assert deeplab.check(elements().batch(1), 2) == line


GOOD = fields(20, 24, 3)
HOLES = [np.where(np.arange(3) == 1, one, GOOD["image"]) for one in (np.nan, np.inf, -np.inf)]
BAD = [
    (fields(20, 24, 3, ids=(0, 2, 7)), "UNKNOWN_LABEL", "ids 2, 7; expected 0 to 1, or 255"),
    (fields(20, 24, 3, ids=range(9)), "UNKNOWN_LABEL", "2, 3, 4, 5, 6 and 2 more"),
    (GOOD | {"mask": GOOD["mask"][:, :20]}, "MASK_MISMATCH", "(20, 24, 3), the mask (20, 20, 1)"),
    (GOOD | {"mask": np.zeros((20, 24, 2), np.uint8)}, "MASK_MISMATCH", "the mask (20, 24, 2)"),
    (fields(16, 24, 3), "SHAPE_MISMATCH", "(16, 24, 3)"),
    *((fields(20, 24, n), "SHAPE_MISMATCH", "of 3 channels") for n in (1, 4, 30)),
    *((GOOD | {"image": image}, "NOT_FINITE", "NaN or infinities") for image in HOLES),
]


SETS = [
    (lambda e: e.map(lambda x: x | {"mask": tf.cast(x["mask"] == 1, tf.uint8) * 255}),
     "EMPTY_CLASS] class 0 alone occurs in 3 masks; 48 pixels are 255, which is ignored: is it"),
    (lambda e: e.take(0), "no class occurs in 0 masks"),
    (lambda e: e.map(lambda x: x | {"mask": x["mask"] | 255}), "no class occurs in 3 masks"),
    (lambda e: e.map(lambda x: x | {"mask": x["mask"] / 1}), "whole numbers"),
    (lambda e: e.repeat(), "without end"), (lambda e: tf.data.Dataset.range(3), ""),
    (lambda e: e.map(lambda x: {"mask": x["mask"]}), "dicts with an `image`"),
    (lambda e: e.map(lambda x: {"image": x["image"]}), "mask"),
    (lambda e: e.map(lambda x: x | {"image": x["image"][..., 0]}), "are taken"),
]  # fmt: skip


def said(made) -> str:
    try:
        return f"taken: {deeplab.check(made, 2)}"
    except (ValueError, TypeError, KeyError) as error:
        return str(error)


def test_bad_data_is_named_with_its_case():
    asked = [(make(elements()), words) for make, words in SETS]
    asked.append((elements(**fields(9, 24, 3), case=b"J\xe9r"), "case J\ufffdr: "))
    for changed, code, words in BAD:
        asked += [(elements(**changed), one) for one in (f"[{code}]", words, "case b: ")]
        nameless = elements(**changed).map(lambda e: {n: e[n] for n in ("image", "mask")})
        asked.append((nameless, "case 1, counted from 0: "))
    found = [(said(made), words) for made, words in asked]
    assert [one for one in found if one[1] not in one[0] or one[0].startswith("taken")] == []
