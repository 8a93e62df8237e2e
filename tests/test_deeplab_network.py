"""DeepLabV3+ as a whole: its construction counted by hand, gradients, sizes, precision, files."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from helpers import deeplab  # noqa: E402

SMALL = {
    "alpha": 0.35,
    "aspp_width": 8,
    "decoder_width": 6,
    "low_level_width": 4,
    "batch_norm_momentum": 0.9,
}
HALF = {"mixed_float16": 0.01, "mixed_bfloat16": 0.05}  # error allowed, in standard deviations
NORM = 4  # numbers a channel: scale, shift, mean, variance


def batch(*shape: int, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    image = random.uniform(0, 255, shape).astype(np.float32)
    return image, random.integers(0, classes, (*shape[:3], 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def small():
    return deeplab.model(2, **SMALL)


@pytest.fixture(scope="module")
def full():
    return deeplab.model(21)


def numbers(model, beginning: str) -> int:
    return sum(one.count_params() for one in model.layers if one.name.startswith(beginning))


def test_the_pyramid_has_the_numbers_of_the_paper_s_construction(full):
    deep, width = 320, 256
    separable = 9 * deep + NORM * deep + deep * width + NORM * width
    assert numbers(full, "aspp_1x1") == deep * width + NORM * width == 82_944
    assert [numbers(full, f"aspp_rate_{rate}_") for rate in (6, 12, 18)] == [separable] * 3
    assert separable == 87_104
    assert numbers(full, "aspp_image") == 82_944
    assert numbers(full, "aspp_projection") == 5 * width * width + NORM * width == 328_704


def test_the_decoder_has_the_numbers_of_the_paper_s_construction(full):
    width = 256
    assert numbers(full, "decoder_low_level") == 144 * 48 + NORM * 48 == 7_104
    assert numbers(full, "decoder_1") == 13 * 304 + 304 * width + NORM * width == 82_800
    assert numbers(full, "decoder_2") == 13 * width + width * width + NORM * width == 69_888
    assert numbers(full, "logits") == width * 21 + 21
    # Keras' MobileNetV2 without its top has 2,257,984, of which 414,720 serve classes only.
    head = 82_944 * 2 + 87_104 * 3 + 328_704 + 7_104 + 82_800 + 69_888 + 5_397
    assert full.count_params() == 2_257_984 - 414_720 + head == 2_764_357


def test_each_layer_has_the_shape_that_it_has_in_the_paper():
    model = deeplab.model(21, input_shape=(513, 513, 3))
    shapes = {
        "block_16_project_BN": (33, 33, 320),
        "aspp_rate_12_depthwise_conv": (33, 33, 320),
        "aspp_rate_12_pointwise_conv": (33, 33, 256),
        "aspp_image_pool": (1, 1, 320),
        "aspp_concat": (33, 33, 1280),
        "aspp_dropout": (33, 33, 256),
        "decoder_upsampling": (129, 129, 256),
        "decoder_concat": (129, 129, 304),
        "decoder_2_pointwise_relu": (129, 129, 256),
        "logits_stride_4": (129, 129, 21),
        "logits": (513, 513, 21),
    }
    assert {name: model.get_layer(name).output.shape[1:] for name in shapes} == shapes


@pytest.mark.parametrize(("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_rates_double_where_the_stride_halves(output_stride, rates):
    model = deeplab.model(2, output_stride=output_stride, **SMALL)
    layers = [one for one in model.layers if one.name.startswith("aspp_rate")]
    found = [one.dilation_rate for one in layers if one.name.endswith("depthwise_conv")]
    assert found == [(rate, rate) for rate in rates]


def test_numbers_of_numpy_are_numbers(tmp_path):
    widths = {key: np.int64(value) for key, value in SMALL.items() if "width" in key}
    model = deeplab.model(
        np.int64(2), output_stride=np.int64(8), rates=np.array([6, 12]), **SMALL | widths
    )
    layers = [one for one in model.layers if one.name.startswith("aspp_rate")]
    found = [one.dilation_rate for one in layers if one.name.endswith("depthwise_conv")]
    assert found == [(6, 6), (12, 12)]
    model.save(tmp_path / "model.keras")
    image, _ = batch(1, 40, 50, 3)
    assert np.array_equal(keras.saving.load_model(tmp_path / "model.keras")(image), model(image))


@pytest.mark.parametrize("size", [(64, 64), (65, 65), (50, 77), (17, 130)])
def test_images_of_any_size_give_logits_of_their_size(small, size):
    logits = small(batch(2, *size, 3)[0])
    assert logits.shape == (2, *size, 2)
    assert np.isfinite(logits).all()


def test_at_sizes_like_the_paper_s_a_flipped_image_gives_flipped_logits():
    # Only with symmetric kernels does the network commute with flips; then the grid has to as well.
    model = deeplab.model(2, **SMALL)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights and "kernel" in layer.weights[0].name:
            kernel, *rest = layer.get_weights()
            kernel = random.normal(0, np.sqrt(2 / kernel[..., 0].size), kernel.shape)
            layer.set_weights([kernel + kernel[:, ::-1], *rest])
    for size, same in ((65, True), (64, False)):
        image = batch(1, size, size, 3)[0]
        logits = model(image).numpy()
        flipped = model(image[:, :, ::-1]).numpy()[:, :, ::-1]
        assert np.allclose(flipped, logits, atol=1e-3 * logits.std()) == same


@pytest.mark.parametrize("backbone", list(deeplab.BACKBONES))
def test_a_gradient_reaches_every_variable(tf, backbone):
    # EfficientNet leaves out up to a fifth of its blocks an image (stochastic depth): with few
    # images and an unlucky draw, a block is left out of all of them and has no gradient.
    keras.utils.set_random_seed(0)
    options = SMALL if backbone == "MobileNetV2" else SMALL | {"alpha": 1.0}
    model = deeplab.model(3, backbone=backbone, **options)
    image, mask = batch(6, 65, 65, 3, classes=3)

    with tf.GradientTape() as tape:
        value = deeplab.loss()(mask, model(image, training=True))
    gradients = tape.gradient(value, model.trainable_variables)
    found = dict(zip([v.path for v in model.trainable_variables], gradients, strict=True))
    assert {name for name, one in found.items() if one is None} == set()
    assert {name for name, one in found.items() if not np.isfinite(one).all()} == set()
    # A bias in front of a batch normalisation is subtracted again: only rounding is left of it.
    assert {name for name, one in found.items() if not np.abs(one).max() > 0} <= {
        name for name in found if name.endswith("/bias") and not name.startswith("logits")
    }
    assert len(found) > 100


def lively_head(model, weights=None):
    """From features to logits, with weights that carry a signal through.

    Sixty layers of random weights, as the encoder has, make rounding as large as the signal.
    """
    ends = [model.get_layer(name).output for name in ("block_3_expand_relu", "block_16_project_BN")]
    head = keras.Model([model.input, *ends], model.output)
    random = np.random.default_rng(0)
    given = []
    for one, size in zip(head.inputs, ((40, 37), (10, 10), (3, 3)), strict=True):
        values = random.normal(size=(6, *size, one.shape[-1]))
        given.append(np.float32(values * random.uniform(0.5, 2, (6, 1, 1, one.shape[-1]))))
    if weights:
        head.set_weights(weights)
        return head, given
    for layer in head.layers:
        if layer.weights and "kernel" in layer.weights[0].name:
            kernel, *rest = layer.get_weights()
            taps = kernel[..., 0].size if "depthwise" not in layer.name else 9
            layer.set_weights([random.normal(0, np.sqrt(2 / taps), kernel.shape), *rest])
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    head(given, training=True)
    return head, given


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_logits_are_float32_whatever_the_policy(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = deeplab.model(2, **SMALL)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("decoder_2_pointwise_relu").compute_dtype == policy[6:]
    assert model.get_layer("logits_stride_4").compute_dtype == "float32"
    assert {one.dtype for one in model.trainable_variables} == {"float32"}
    image, mask = batch(2, 40, 37, 3)
    assert model(image).dtype == "float32"
    assert deeplab.loss()(mask, model(image)).dtype == "float32"
    exact, given = lively_head(deeplab.model(2, **SMALL))
    head, _ = lively_head(model, exact.get_weights())
    expected = exact(given).numpy()
    error = np.abs(head(given) - expected).mean() / expected.std()
    other = np.abs(expected[::-1] - expected).mean() / expected.std()
    assert error < HALF[policy] < 0.5 < other  # that of another image


def test_a_saved_model_is_the_same_model_with_all_that_it_was_compiled_with(tmp_path):
    model = deeplab.model(2, **SMALL)
    rate = deeplab.poly_decay(1e-3, 100)
    metrics = [deeplab.mean_iou(2), deeplab.mean_dice(2, class_ids=[1])]
    optimizer = keras.optimizers.SGD(rate)
    model.compile(optimizer, deeplab.loss(), metrics=metrics, run_eagerly=True)
    image, mask = batch(2, 40, 50, 3)
    model.train_on_batch(image, mask)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(again(image), model(image))
    assert again.evaluate(image, mask, verbose=0) == model.evaluate(image, mask, verbose=0)
    assert float(again.optimizer.learning_rate) == pytest.approx(1e-3 * 0.99**0.9)
    with pytest.raises(ValueError, match="expected axis -1"):
        again(image[..., :1])


def test_a_saved_model_keeps_its_atrous_poolings(tmp_path):
    model = deeplab.model(2, backbone="Xception", output_stride=8, **SMALL | {"alpha": 1.0})
    pools = [one for one in model.layers if isinstance(one, deeplab.CentredMaxPooling2D)]
    assert [(one.strides, one.dilation_rate) for one in pools] == [(2, 1), (2, 1), (1, 1), (1, 2)]
    model.save(tmp_path / "model.keras")
    image, _ = batch(1, 40, 50, 3)
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(again(image), model(image))


def test_ct_has_one_channel_and_a_range_of_its_own():
    model = deeplab.model(2, input_shape=(None, None, 1), value_range=(0, 1), **SMALL)
    image = batch(1, 40, 40, 1)[0]
    photographs = deeplab.model(2, input_shape=(None, None, 1), **SMALL)
    photographs.set_weights(model.get_weights())
    # In inference random weights without statistics may hardly react: compare the first layer.
    first = [keras.Model(m.input, m.get_layer("Conv1").output) for m in (model, photographs)]
    expected = first[1](image).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(first[0](image / 255), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"classes": 1}, "whole number from 2"),
        ({"classes": 2.0}, "whole number"),
        ({"output_stride": 32}, "one of 16, 8"),
        ({"output_stride": 16.0}, "output_stride is a whole number"),
        ({"batch_norm_epsilon": -1.0}, "batch_norm_epsilon is a finite number above 0"),
        ({"rates": (6.0,)}, "whole number from 1"),
        ({"rates": ()}, "one or more different"),
        ({"rates": (6, 6)}, "one or more different"),
        ({"rates": (0, 6)}, "whole number from 1"),
        ({"dropout": 1}, "from 0 to below 1"),
        ({"aspp_width": 0}, "aspp_width"),
        ({"decoder_width": 0}, "decoder_width"),
        ({"low_level_width": 0}, "low_level_width"),
        ({"input_shape": (16, 64, 3)}, "enlarge or pad"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        deeplab.model(**{"classes": 2} | SMALL | wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"stride": 0}, "stride is a whole number from 1"),
        ({"batch_norm_momentum": 2.0}, "from 0 to below 1"),
        ({"batch_norm_epsilon": 0}, "finite number above 0"),
    ],
)
def test_the_parts_refuse_what_does_not_fit_as_well(wrong, says):
    features, fine = keras.Input((4, 4, 8)), keras.Input((16, 16, 8))
    with pytest.raises(ValueError, match=says):
        deeplab.decoder(features, fine, **wrong)
    if "stride" not in wrong:
        with pytest.raises(ValueError, match=says):
            deeplab.aspp(features, **wrong)


def test_a_receptive_field_is_what_a_gradient_finds(tf):
    # Kernels of ones: every pixel that is seen has a gradient.
    image = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(1, 3, strides=2, padding="same", kernel_initializer="ones")(image)
    x = deeplab.CentredMaxPooling2D(1, name="nothing")(x)
    x = keras.layers.DepthwiseConv2D(
        3, dilation_rate=3, padding="same", depthwise_initializer="ones"
    )(x)
    y = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer="ones", name="other")(x)
    x = keras.layers.Add(name="sum")([x, y])
    model = keras.Model(image, x)
    pixels = tf.Variable(np.random.default_rng(0).uniform(1, 2, (1, 65, 65, 1)).astype(np.float32))
    with tf.GradientTape() as tape:
        value = model(pixels)[0, 16, 16, 0]
    seen = np.flatnonzero(tape.gradient(value, pixels)[0, :, :, 0].numpy().any(0))
    # 1 + 2 * 1 + 2 * 3 * 2 + 2 * 2
    assert deeplab.receptive_field(model, "sum") == 19 == seen[-1] - seen[0] + 1


def test_a_rate_widens_the_receptive_field_by_two_windows_of_its_stride(small):
    end = deeplab.receptive_field(small, "block_16_project_BN")
    for rate in (6, 12, 18):
        seen = deeplab.receptive_field(small, f"aspp_rate_{rate}_depthwise_conv")
        assert seen == end + 2 * rate * 16
    # Left-out strides change what is seen next to nothing: they are dilation now.
    assert end == deeplab.receptive_field(
        deeplab.model(2, output_stride=8, **SMALL), "block_16_project_BN"
    )


def test_no_receptive_field_is_given_where_there_is_none(small):
    for layer, says in (
        ("aspp_image_conv", "mean over the whole"),
        ("logits", "enlargement"),
        ("x", "no layer"),
    ):
        with pytest.raises(ValueError, match=says):
            deeplab.receptive_field(small, layer)


def test_the_head_has_the_settings_asked_for_in_every_normalisation():
    for given, expected in (({"batch_norm_epsilon": 1e-4}, 1e-4), ({}, 1e-5)):
        model = deeplab.model(2, **SMALL | given)
        found = {
            (one.momentum, one.epsilon)
            for one in model.layers
            if isinstance(one, keras.layers.BatchNormalization)
            and one.name.startswith(("aspp", "decoder"))
        }
        assert found == {(0.9, expected)}


def test_depthwise_kernels_begin_with_the_variance_of_nine_taps():
    model = deeplab.model(2, **SMALL)
    for name in ("aspp_rate_6_depthwise_conv", "decoder_1_depthwise_conv"):
        kernel = model.get_layer(name).get_weights()[0]
        assert 0.2 < kernel.std() < 0.4 and abs(kernel).max() <= 0.66
