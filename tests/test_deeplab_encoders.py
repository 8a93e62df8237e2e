"""Encoders of DeepLab: strides that became dilation change nothing where both can be compared."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

keras = pytest.importorskip("keras")

from helpers import deeplab  # noqa: E402
from helpers.deeplab.dilation import rebuild  # noqa: E402

APPLICATIONS = keras.applications
PREPROCESS = {
    "MobileNetV2": APPLICATIONS.mobilenet_v2.preprocess_input,
    "ResNet50": APPLICATIONS.resnet.preprocess_input,
    "Xception": APPLICATIONS.xception.preprocess_input,
}
# Channels at stride 4 and at the end, counted in the papers of the networks.
LAST = {
    "MobileNetV2": ("block_3_expand_relu", 144, "block_16_project_BN", 320),
    "ResNet50": ("conv2_block3_out", 256, "conv5_block3_out", 2048),
    "Xception": ("block3_sepconv2_bn", 256, "block14_sepconv2_act", 2048),
    "EfficientNetV2B0": ("block2b_add", 32, "block6h_add", 192),
}
# What serves classes only and is left out: the last 1x1 convolution and its normalisation.
LEFT_OUT = {"MobileNetV2": 320 * 1280 + 4 * 1280, "EfficientNetV2B0": 192 * 1280 + 4 * 1280}


def enliven(model) -> None:
    """Weights that carry a signal through: with Keras' own, a network's end forgets its image."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        values = []
        for variable in layer.weights:
            name, shape = variable.name, tuple(variable.shape)
            if "kernel" in name:
                taps = shape[0] * shape[1] * (1 if "depthwise" in variable.path else shape[2])
                values.append(random.normal(0, np.sqrt(2 / taps), shape))
            elif name in ("gamma", "moving_variance"):
                values.append(random.uniform(0.7, 1.3, shape))
            else:
                values.append(random.normal(0, 0.1, shape))
        layer.set_weights(values)
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    # Averages as they come, or squeeze-and-excitation and many layers fade the image away.
    model(random.normal(size=(4, *model.input.shape[1:])).astype(np.float32), training=True)


class Network:
    """A network of `keras.applications` with lively weights, and what was made of it."""

    def __init__(self, name: str, folder) -> None:
        self.name, self.last = name, LAST[name][2]
        # At a size of 32 k + 1, or one whose map is so after Xception's first two convolutions.
        self.side = 71 if name == "Xception" else 65
        options = {"include_preprocessing": False} if name == "EfficientNetV2B0" else {}
        shape = (self.side, self.side, 3)
        self.base = getattr(APPLICATIONS, name)(
            weights=None, include_top=False, input_shape=shape, **options
        )
        enliven(self.base)
        self.file = folder / f"{name}.weights.h5"
        self.base.save_weights(self.file)
        self.made = {}

    def rebuilt(self, output_stride: int) -> dict:
        """The layers at that stride, by name."""
        if output_stride not in self.made:
            images = keras.Input((None, None, 3))
            self.made[output_stride] = (
                images,
                rebuild(self.base, images, output_stride, last=self.last),
            )
        return self.made[output_stride][1]

    def at(self, output_stride: int):
        """The network at that stride, where squeeze-and-excitation gives every image the same."""
        made = self.rebuilt(output_stride)
        model = keras.Model(self.made[output_stride][0], made[self.last].output)
        for layer in model.layers:
            if layer.name.endswith("se_expand"):
                kernel, bias = layer.get_weights()
                layer.set_weights([np.zeros_like(kernel), bias])
        return model


@pytest.fixture(scope="module", params=list(LAST))
def network(request, tmp_path_factory):
    made = Network(request.param, tmp_path_factory.mktemp("weights"))
    yield made
    made.file.unlink()


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def signal(features: np.ndarray) -> float:
    """How much features differ from place to place: what errors are measured against."""
    return float(features.std(axis=(1, 2)).mean())


def far(one: np.ndarray, other: np.ndarray, unit: float) -> float:
    return float(np.abs(one - other).max()) / unit


def test_at_odd_sizes_the_network_is_the_one_of_keras_applications(network):
    made = network.rebuilt(32)
    first = "block1_conv2_act" if network.name == "Xception" else None
    theirs, ours = network.base.input, network.made[32][0]
    if first:  # without padding its first two convolutions shift the image, but no more than that
        theirs, ours = network.base.get_layer(first).output, made[first].output
    truth = keras.Model(theirs, network.base.get_layer(network.last).output)
    # The tail of a graph has no layer of its input's name: it is fed by itself.
    same = keras.Model(ours, made[network.last].output)
    x = np.random.default_rng(1).normal(size=(2, *truth.input.shape[1:])).astype(np.float32)
    expected, found = truth(x).numpy(), same(x).numpy()
    unit = signal(expected)
    assert far(truth(x[::-1]).numpy(), expected, unit) > 0.5  # the features tell images apart
    assert far(found, expected, unit) < 1e-3


@pytest.mark.parametrize("shape", [(65, 97), (64, 46)])
def test_with_equal_weights_a_dilated_network_agrees_with_the_strided_one(network, shape):
    x = images(2, *shape, 3) / 127.5 - 1
    strided = network.at(32)(x).numpy()
    unit = signal(strided)
    assert far(network.at(32)(x[::-1]).numpy(), strided, unit) > 0.5
    for output_stride in (16, 8):
        step = 32 // output_stride
        dilated = network.at(output_stride)(x).numpy()
        assert dilated.shape[1:3] == tuple(-(-side // output_stride) for side in shape)
        assert far(dilated[:, ::step, ::step], strided, unit) < 1e-3
        # The same features taken one position further are not those.
        aside = dilated[:, 1::step, 1::step]
        assert far(aside, strided[:, : aside.shape[1], : aside.shape[2]], unit) > 0.5


def test_a_stride_that_is_left_out_goes_on_as_dilation_in_every_kernel_after_it(network):
    made = {stride: network.rebuilt(stride) for stride in (32, 16, 8)}
    for stride, layers in made.items():
        assert max(one.grid.stride for one in layers.values() if one.grid) == stride
        for name, one in layers.items():
            if one.grid is None:
                continue
            reference = made[32][name].grid
            assert one.grid.stride * one.grid.dilation == reference.stride
            assert one.grid.stride == min(reference.stride, stride)


def test_an_encoder_takes_photographs_as_they_are(network):
    # The oracle: the preprocessing that belongs to the network, done by hand.
    encoder = deeplab.encoder(network.name, weights=network.file, output_stride=16)
    x = images(2, 64, 80, 3)
    if network.name in PREPROCESS:
        ready = PREPROCESS[network.name](x.copy())
        if network.name == "ResNet50":  # saved weights are for blue, green, red
            first = network.base.get_layer("conv1_conv")
            assert np.array_equal(
                encoder.get_layer("conv1_conv").get_weights()[0],
                first.get_weights()[0][:, :, ::-1],
            )
    else:
        mean, deviation = np.float32([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        ready = (x / 255 - mean) / deviation
    low_level, _, last, _ = LAST[network.name]
    made = network.rebuilt(16)
    outputs = [made[low_level].output, *([] if "Eff" in network.name else [made[last].output])]
    expected = keras.Model(network.made[16][0], outputs)(ready)
    expected = expected if isinstance(expected, list) else [expected]
    found = encoder(x)
    for name, truth in zip(("low_level", "features"), expected, strict=False):
        truth = truth.numpy()
        assert far(found[name].numpy(), truth, signal(truth)) < 1e-3
    moved = [*encoder.get_layer("normalisation").get_config()["mean"]]
    assert len(moved) == 3
    assert network.base.count_params() - LEFT_OUT.get(network.name, 0) == encoder.count_params()


def test_the_two_maps_are_those_of_the_paper(network):
    made = network.rebuilt(16)
    low_level, low_width, last, width = LAST[network.name]
    assert [*made][-1] == last
    of_stride_4 = [name for name, one in made.items() if one.grid and one.grid.stride == 4]
    assert of_stride_4[-1] == low_level
    assert made[low_level].output.shape == (None, None, None, low_width)
    assert made[last].output.shape == (None, None, None, width)


@pytest.fixture(scope="module")
def small():
    return deeplab.encoder(alpha=0.35, batch_norm_momentum=0.9, batch_norm_epsilon=1e-4)


def test_batch_norm_settings_are_those_asked_for_in_every_layer(small, tmp_path):
    def settings_of(encoder):
        layers = [one for one in encoder.layers if "BatchNorm" in type(one).__name__]
        assert len(layers) == 51  # 1 + 2 + 16 * 3
        return {(one.momentum, one.epsilon) for one in layers}

    assert settings_of(small) == {(0.9, 1e-4)}
    base = APPLICATIONS.MobileNetV2(
        weights=None, include_top=False, alpha=0.35, input_shape=(96, 96, 3)
    )
    base.save_weights(tmp_path / "a.weights.h5")
    trained = deeplab.encoder(alpha=0.35, weights=tmp_path / "a.weights.h5")
    assert settings_of(trained) == {(0.9997, 1e-3)}  # an epsilon belongs to its weights


def test_a_grey_image_is_to_trained_weights_what_the_same_image_in_rgb_is(tmp_path):
    base = APPLICATIONS.MobileNetV2(
        weights=None, include_top=False, alpha=0.35, input_shape=(96, 96, 3)
    )
    enliven(base)
    base.save_weights(tmp_path / "a.weights.h5")
    options = {"alpha": 0.35, "weights": str(tmp_path / "a.weights.h5")}
    grey = images(2, 50, 48, 1)
    rgb = deeplab.encoder(**options)(np.repeat(grey, 3, -1))["low_level"].numpy()
    as_grey = deeplab.encoder(input_shape=(None, None, 1), **options)
    assert np.array_equal(as_grey(grey)["low_level"].numpy(), rgb)
    # In another range the same image is the same image.
    ct = deeplab.encoder(input_shape=(None, None, 1), value_range=(-1.0, 1.0), **options)
    found = ct(grey / 127.5 - 1)["low_level"].numpy()
    assert far(found, rgb, signal(rgb)) < 1e-4


def test_without_weights_one_channel_is_one_channel_in_the_first_kernel():
    encoder = deeplab.encoder(alpha=0.35, input_shape=(None, None, 1), value_range=(0, 1))
    assert encoder.get_layer("Conv1").kernel.shape == (3, 3, 1, 16)


def test_white_of_16_bits_is_white_in_half_precision_too(tmp_path):
    base = APPLICATIONS.MobileNetV2(
        weights=None, include_top=False, alpha=0.35, input_shape=(96, 96, 3)
    )
    base.save_weights(tmp_path / "a.weights.h5")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        made = deeplab.encoder(
            alpha=0.35,
            weights=tmp_path / "a.weights.h5",
            input_shape=(None, None, 1),
            value_range=(0, 65535),
        )
    finally:
        keras.config.set_dtype_policy("float32")
    normalised = keras.Model(made.input, made.get_layer("normalisation").output)
    found = normalised(np.full((1, 40, 40, 1), 65535, np.float32)).numpy()
    assert found.shape == (1, 40, 40, 3)
    np.testing.assert_allclose(found, 1, rtol=1e-6)


def test_a_model_that_was_not_built_for_an_image_s_channels_refuses_it(small):
    for channels in (1, 4):
        with pytest.raises(ValueError, match=r"expected (axis -1|shape)"):
            small(images(1, 40, 40, channels))
    again = type(small).from_config(small.get_config())
    with pytest.raises(ValueError, match="expected axis -1"):
        again(images(1, 40, 40, 1))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"backbone": "VGG16"}, "one of MobileNetV2, ResNet50, Xception, EfficientNetV2B0"),
        ({"output_stride": 4}, "one of 8, 16, 32"),
        ({"input_shape": (64, 64)}, "height, width, channels"),
        ({"input_shape": (64, 64, 2)}, "channels 1 or 3"),
        ({"input_shape": (64, 16, 3)}, "more than 16 pixels"),
        ({"input_shape": (64.0, 64, 3)}, "whole number"),
        ({"input_shape": (64, 64, 3.0)}, "whole number"),
        ({"output_stride": 16.0}, "output_stride is a whole number"),
        ({"value_range": (1, 0)}, "lowest and the highest"),
        ({"value_range": (0, np.inf)}, "lowest and the highest"),
        ({"value_range": (-np.inf, 0)}, "lowest and the highest"),
        ({"alpha": 0}, "alpha is a finite number above 0"),
        ({"batch_norm_epsilon": 0}, "batch_norm_epsilon is a finite number above 0"),
        ({"batch_norm_epsilon": np.nan}, "batch_norm_epsilon is a finite number above 0"),
        ({"batch_norm_epsilon": np.inf}, "batch_norm_epsilon is a finite number above 0"),
        ({"batch_norm_momentum": 1.0}, "from 0 to below 1"),
        ({"backbone": "ResNet50", "alpha": 0.5}, "alpha is the width of MobileNetV2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        deeplab.encoder(**wrong)


def test_a_network_that_would_lose_its_meaning_is_refused():
    images = keras.Input((32, 32, 1))
    for layer, says in (
        (keras.layers.AveragePooling2D(2), "cannot be dilated"),
        (keras.layers.Conv2D(1, 2, strides=2), "odd squares"),
        (keras.layers.Conv2D(1, (3, 5)), "odd squares"),
        (keras.layers.Conv2D(1, 3, dilation_rate=2), "dilated by"),
    ):
        base = keras.Model(images, layer(images))
        with pytest.raises(ValueError, match=says):
            rebuild(base, keras.Input((None, None, 1)), 16, last=layer.name)


# The layers by themselves


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2]), st.sampled_from([1, 2, 3]))
def test_a_centred_maximum_is_that_of_the_pixels_round_each_centre(height, width, strides, rate):
    x = np.random.default_rng(height * 10 + width).normal(size=(1, height, width, 2))
    rate = 1 if strides > 1 else rate
    found = deeplab.CentredMaxPooling2D(3, strides, rate)(np.float32(x)).numpy()
    assert found.shape == (1, -(-height // strides), -(-width // strides), 2)
    for row in range(found.shape[1]):
        for column in range(found.shape[2]):
            rows = [row * strides + rate * k for k in (-1, 0, 1)]
            columns = [column * strides + rate * k for k in (-1, 0, 1)]
            inside = [
                x[0, r, c] for r in rows for c in columns if 0 <= r < height and 0 <= c < width
            ]
            np.testing.assert_array_equal(found[0, row, column], np.float32(inside).max(0))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4]))
def test_upsampling_reads_at_the_pixel_s_place_on_the_grid_of_features(height, width, stride):
    rows, columns = -(-height // stride), -(-width // stride)
    x = np.random.default_rng(height).normal(size=(rows, columns))
    found = deeplab.Upsampling(stride)(
        [np.float32(x)[None, ..., None], np.zeros((1, height, width, 1))]
    )
    down = [np.interp(np.arange(height) / stride, np.arange(rows), x[:, k]) for k in range(columns)]
    across = [
        np.interp(np.arange(width) / stride, np.arange(columns), row) for row in np.transpose(down)
    ]
    np.testing.assert_allclose(found.numpy()[0, ..., 0], across, atol=1e-5)


def test_where_the_paper_s_code_aligns_corners_upsampling_does_the_same(tf):
    x = np.random.default_rng(0).normal(size=(1, 5, 3, 2)).astype(np.float32)
    theirs = tf.compat.v1.image.resize_bilinear(x, [65, 33], align_corners=True)
    ours = deeplab.Upsampling(16)([x, np.zeros((1, 65, 33, 1))])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
