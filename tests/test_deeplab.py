"""DeepLabV3+: strides that became rates change nothing where both can be compared."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from helpers import deeplab  # noqa: E402
from helpers.deeplab import encoders, network  # noqa: E402
from helpers.deeplab.layers import CentredMaxPooling2D, FusedBatchNormalization  # noqa: E402

APPLICATIONS = keras.applications
PREPROCESS = {
    "MobileNetV2": APPLICATIONS.mobilenet_v2.preprocess_input,
    "ResNet50": APPLICATIONS.resnet.preprocess_input,
    "Xception": APPLICATIONS.xception.preprocess_input,
    "EfficientNetV2B0": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
}
# From the papers of the networks: channels at stride 4 and at the end; weights of what serves
# classes only, which is left out; the receptive field, by the tables of windows.
KNOWN = {
    "MobileNetV2": (144, 320, 320 * 1280 + 4 * 1280, 491),
    "ResNet50": (256, 2048, 0, 483),
    "Xception": (256, 2048, 0, 1083),
    "EfficientNetV2B0": (32, 192, 192 * 1280 + 4 * 1280, 763),
}
WIDTHS = {"aspp_width": 8, "decoder_width": 6, "low_level_width": 4, "batch_norm_momentum": 0.9}
SMALL = WIDTHS | {"alpha": 0.35}
POLICIES = {"float32": 1e-4, "mixed_float16": 0.01, "mixed_bfloat16": 0.05}  # error allowed
IS_NORM = keras.layers.BatchNormalization


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


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
        if isinstance(layer, IS_NORM):
            layer.momentum = 0.0
    # Averages as they come, or squeeze-and-excitation and many layers fade the image away.
    model(random.normal(size=(4, *model.input.shape[1:])), training=True)


def application(name: str, side: int, **options):
    options |= {"include_preprocessing": False} if "Efficient" in name else {}
    options |= {"weights": None, "include_top": False, "input_shape": (side, side, 3)}
    return getattr(APPLICATIONS, name)(**options)


class Trained:
    """A network of `keras.applications` with lively weights, and what was made of it."""

    def __init__(self, name: str, folder) -> None:
        self.name, (self.low_level, self.last, *_) = name, encoders.BACKBONES[name]
        # At a size of 32 k + 1, or one whose map is so after Xception's first two convolutions.
        self.theirs = application(name, 71 if name == "Xception" else 65)
        enliven(self.theirs)
        self.base = application(name, 224)
        self.base.set_weights(self.theirs.get_weights())
        self.file = folder / f"{name}.weights.h5"
        self.base.save_weights(self.file)
        self.made = {}

    def at(self, stride: int, *names: str, start: str | None = None):
        """The maps of these layers at that output stride, as a model of what `start` gives."""
        if stride not in self.made:
            given = keras.Input((None, None, 3))
            self.made[stride] = given, encoders.atrous(self.base, given, stride, {"momentum": 0.9})
        given, made = self.made[stride]
        given = made[id(self.base.get_layer(start).output)] if start else given
        maps = [made[id(self.base.get_layer(one).output)] for one in names]
        return keras.Model(given, maps if len(maps) > 1 else maps[0])


@pytest.fixture(scope="module", params=list(encoders.BACKBONES))
def trained(request, tmp_path_factory):
    return Trained(request.param, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def small():
    return deeplab.model(2, **SMALL)


def under(policy: str, make):
    """What `make()` gives with that dtype policy."""
    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy("float32")


def far(one, other) -> float:
    """The largest error, in units of how much features differ from place to place."""
    one, other = np.asarray(one), np.asarray(other)
    return float(np.abs(one - other).max() / other.std(axis=(1, 2)).mean())


def test_at_odd_sizes_an_encoder_is_the_one_of_keras_applications(trained):
    # Without padding Xception's first two convolutions shift the image, but no more than that.
    start = "block1_conv2_act" if trained.name == "Xception" else None
    theirs = trained.theirs.get_layer(start).output if start else trained.theirs.input
    truth = keras.Model(theirs, trained.theirs.get_layer(trained.last).output)
    x = np.random.default_rng(1).normal(size=(2, *truth.input.shape[1:])).astype(np.float32)
    expected = truth(x)
    assert far(truth(x[::-1]), expected) > 0.5  # the features tell images apart
    assert far(trained.at(32, trained.last, start=start)(x), expected) < 1e-3


def test_a_dilated_encoder_has_the_features_of_the_strided_one_and_more_in_between(trained):
    x = images(2, 65, 46, 3) / 127.5 - 1
    made = {stride: trained.at(stride, trained.last) for stride in (32, 16, 8)}
    for layer in (one for model in made.values() for one in model.layers):
        if layer.name.endswith("se_expand"):  # a mean over the map, the one thing that does change
            kernel, bias = layer.get_weights()
            layer.set_weights([np.zeros_like(kernel), bias])
    strided = made[32](x).numpy()
    for stride, step in ((16, 2), (8, 4)):
        dilated = made[stride](x).numpy()
        assert dilated.shape[1:3] == (-(-65 // stride), -(-46 // stride))
        assert far(dilated[:, ::step, ::step], strided) < 1e-3
        aside = dilated[:, 1::step, 1::step]
        assert far(aside, strided[:, : aside.shape[1], : aside.shape[2]]) > 0.5


def test_a_stride_that_is_left_out_becomes_the_rate_of_every_window_after_it():
    table = {  # before, after, output stride: stride, rate
        (1, 2, 8): (2, 1), (8, 16, 16): (2, 1), (8, 16, 8): (1, 1), (16, 16, 8): (1, 2),
        (16, 32, 16): (1, 1), (16, 32, 8): (1, 2), (32, 32, 16): (1, 2), (32, 32, 8): (1, 4),
        (32, 32, 32): (1, 1), (16, 32, 32): (2, 1),
    }  # fmt: skip
    assert {case: encoders.stride_to_rate(*case) for case in table} == table


def test_an_encoder_takes_photographs_as_they_are_and_gives_the_two_maps_of_the_paper(trained):
    encoder, x = deeplab.encoder(trained.name, weights=trained.file), images(2, 64, 80, 3)
    ready = PREPROCESS[trained.name](x.astype(float)).astype(np.float32)
    expected = trained.at(16, trained.low_level, trained.last)(ready)
    if trained.name == "ResNet50":  # its own weights are for blue, green, red
        one, other = (m.get_layer("conv1_conv").get_weights()[0] for m in (encoder, trained.base))
        np.testing.assert_array_equal(one, other[:, :, ::-1])
    found = encoder(x)
    low_level, last, left_out, side = KNOWN[trained.name]
    assert found["low_level"].shape == (2, 16, 20, low_level)
    assert found["features"].shape == (2, 4, 5, last)
    assert far(found["low_level"], expected[0]) < 1e-3
    assert "Efficient" in trained.name or far(found["features"], expected[1]) < 1e-2
    assert trained.base.count_params() - left_out == encoder.count_params()
    assert deeplab.receptive_field(encoder, trained.last) == side
    theirs, ours = (
        [n for n in m.layers if isinstance(n, IS_NORM)] for m in (trained.base, encoder)
    )
    assert {(type(one), one.momentum) for one in ours} == {(FusedBatchNormalization, 0.9997)}
    assert {one.epsilon for one in ours} == {one.epsilon for one in theirs}  # it belongs to weights


def test_layers_have_the_same_names_in_every_session():
    first = [one.name for one in deeplab.encoder("Xception").layers]
    keras.layers.Conv2D(1, 1), keras.layers.Add(), keras.layers.BatchNormalization()
    assert [one.name for one in deeplab.encoder("Xception").layers] == first
    assert len({*first}) == len(first)


def test_a_grey_image_is_to_trained_weights_what_the_same_image_in_rgb_is(tmp_path):
    base = application("MobileNetV2", 96, alpha=0.35)
    enliven(base)
    base.save_weights(tmp_path / "a.weights.h5")
    how, grey = {"alpha": 0.35, "weights": tmp_path / "a.weights.h5"}, images(2, 50, 48, 1)
    rgb = deeplab.encoder(**how)(np.repeat(grey, 3, -1))["low_level"]
    how["input_shape"] = (None, None, 1)
    np.testing.assert_array_equal(deeplab.encoder(**how)(grey)["low_level"], rgb)
    ct = deeplab.encoder(**how, value_range=(-1.0, 1.0))
    assert far(ct(grey / 127.5 - 1)["low_level"], rgb) < 1e-4
    # In half precision white of 16 bits would be infinite.
    wide = under("mixed_float16", lambda: deeplab.encoder(**how, value_range=(0, 65535)))
    normalised = keras.Model(wide.input, wide.get_layer("normalisation").output)
    white = normalised(np.full((1, 40, 40, 1), 65535, np.float32))
    np.testing.assert_allclose(white, np.ones((1, 40, 40, 3)), rtol=1e-6)


def test_without_weights_one_channel_is_one_channel_in_its_own_range(small):
    made = [
        deeplab.encoder(input_shape=(None, None, 1), value_range=range_, alpha=0.35)
        for range_ in ((0, 1), (0, 255))
    ]
    assert made[0].get_layer("Conv1").kernel.shape == (3, 3, 1, 16)
    made[0].set_weights(made[1].get_weights())
    # In inference random weights without statistics may hardly react: compare the first layer.
    one, other = (keras.Model(m.input, m.get_layer("Conv1").output) for m in made)
    image = images(1, 40, 40, 1)
    assert other(image).numpy().std() > 0.01
    np.testing.assert_allclose(one(image / 255), other(image), atol=1e-5)
    for model, channels in ((made[0], 3), (small, 4)):
        with pytest.raises(ValueError, match=r"expected (axis -1|shape)"):
            model(images(1, 40, 40, channels))
    # Grey for RGB is the same grey three times, nothing else.
    np.testing.assert_array_equal(small(image), small(np.repeat(image, 3, -1)))
    for wrong in ({"backbone": "VGG16"}, {"output_stride": 4}, {"output_stride": 12}):
        with pytest.raises(
            ValueError, match="MobileNetV2, ResNet50, Xception, EfficientNetV2B0 at"
        ):
            deeplab.model(2, **wrong)


# The pyramid and the decoder


def test_pyramid_and_decoder_have_the_numbers_and_shapes_of_the_paper():
    full = deeplab.model(21, input_shape=(513, 513, 3))
    norm, deep, width = 4, 320, 256  # a channel: scale, shift, mean, variance
    separable = 9 * deep + norm * deep + deep * width + norm * width
    expected = {
        "aspp_1x1": deep * width + norm * width,
        **{f"aspp_rate_{rate}_": separable for rate in (6, 12, 18)},
        "aspp_image": deep * width + norm * width,
        "aspp_projection": 5 * width * width + norm * width,
        "decoder_low_level": 144 * 48 + norm * 48,
        "decoder_1": 13 * 304 + 304 * width + norm * width,
        "decoder_2": 13 * width + width * width + norm * width,
        "logits": width * 21 + 21,
    }
    counts = [(one.name, one.count_params()) for one in full.layers]
    assert expected == {
        part: sum(n for name, n in counts if name.startswith(part)) for part in expected
    }
    # Keras' MobileNetV2 without its top has 2,257,984, of which 414,720 serve classes only.
    assert full.count_params() == 2_257_984 - 414_720 + sum(expected.values()) == 2_764_357
    shapes = {
        "block_16_project_BN": (33, 33, 320), "aspp_rate_12_depthwise_conv": (33, 33, 320),
        "aspp_image_pool": (1, 1, 320), "aspp_image_spread": (33, 33, 256),
        "aspp_concat": (33, 33, 1280), "decoder_upsampling": (129, 129, 256),
        "decoder_concat": (129, 129, 304), "logits_stride_4": (129, 129, 21),
        "logits": (513, 513, 21),
    }  # fmt: skip
    assert {name: full.get_layer(name).output.shape[1:] for name in shapes} == shapes
    assert full.get_layer("aspp_dropout").rate == 0.1
    for name in ("aspp_rate_6", "decoder_1"):  # kernels of variance one over nine taps
        kernel = full.get_layer(f"{name}_depthwise_conv").get_weights()[0]
        assert 0.25 < kernel.std() < 0.33 and abs(kernel).max() <= 0.66


@pytest.mark.parametrize(("stride", "rates"), [(32, (3, 6, 9)), (8, (12, 24, 36)), (16, (1, 2))])
def test_rates_double_where_the_stride_halves_and_settings_reach_every_layer(stride, rates):
    given = {"rates": np.array(rates)} if stride == 16 else {}
    model = deeplab.model(2, output_stride=stride, **SMALL, **given)
    found = [one for one in model.layers if one.name.endswith("depthwise_conv")]
    assert [one.dilation_rate[0] for one in found] == [*rates, 1, 1]
    norms = [one for one in model.layers if isinstance(one, IS_NORM)]
    settings = {(type(one), one.momentum, one.epsilon) for one in norms}
    assert settings == {(FusedBatchNormalization, 0.9, 1e-5)}
    assert len(norms) == 51 + 3 + 2 * len(rates) + 1 + 4  # the encoder's, the pyramid's, ...


def test_images_of_any_size_give_logits_of_their_size(small):
    for size in ((64, 64), (65, 65), (50, 77), (17, 130)):
        logits = small(images(2, *size, 3))
        assert logits.shape == (2, *size, 2) and np.isfinite(logits).all()


def test_at_sizes_like_the_paper_s_a_flipped_image_gives_flipped_logits():
    # Only with symmetric kernels does the network commute with flips; then the grid has to as well.
    model, random = deeplab.model(2, **SMALL), np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights and "kernel" in layer.weights[0].name:
            kernel, *rest = layer.get_weights()
            kernel = random.normal(0, np.sqrt(2 / kernel[..., 0].size), kernel.shape)
            layer.set_weights([kernel + kernel[:, ::-1], *rest])
    for size, same in ((65, True), (64, False)):
        image = images(1, size, size, 3)
        logits = model(image).numpy()
        flipped = model(image[:, :, ::-1]).numpy()[:, :, ::-1]
        assert np.allclose(flipped, logits, atol=1e-3 * logits.std()) == same


@pytest.mark.parametrize("backbone", list(encoders.BACKBONES))
def test_a_gradient_reaches_every_variable(tf, backbone):
    # EfficientNet leaves out up to a fifth of its blocks an image (stochastic depth): with few
    # images and an unlucky draw, a block is left out of all of them and has no gradient.
    keras.utils.set_random_seed(0)
    model = deeplab.model(3, backbone=backbone, **WIDTHS)
    mask = np.random.default_rng(0).integers(0, 3, (6, 65, 65, 1))
    with tf.GradientTape() as tape:
        value = deeplab.masked_loss(mask, model(images(6, 65, 65, 3), training=True))
    found = {one.path: one for one in model.trainable_variables}
    gradients = [np.asarray(one) for one in tape.gradient(value, [*found.values()])]
    still = [name for name, g in zip(found, gradients, strict=True) if not np.abs(g).max() > 0]
    # A bias in front of a batch normalisation is subtracted again: only rounding is left of it.
    assert {n for n in still if not n.endswith("/bias") or n.startswith("logits")} == set()
    assert all(np.isfinite(one).all() for one in gradients) and len(gradients) > 100


def test_logits_and_variables_are_float32_whatever_the_policy():
    model = under("mixed_float16", lambda: deeplab.model(2, **SMALL))
    assert model(images(2, 40, 37, 3)).dtype == "float32"
    assert {one.dtype for one in model.trainable_variables} == {"float32"}
    assert model.get_layer("logits_stride_4").compute_dtype == "float32"
    assert model.get_layer("decoder_2_pointwise_relu").compute_dtype == "float16"


def narrow():
    """A small network with every layer of ours, each at least once."""
    image, norm = keras.Input((33, 29, 3)), {"momentum": 0.9, "epsilon": 1e-5}
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)
    x = fine = CentredMaxPooling2D(pool_size=3, strides=2)(FusedBatchNormalization()(x))
    x = CentredMaxPooling2D(pool_size=3, strides=1, dilation_rate=2)(x)
    x = network.aspp(x, 4, (1, 2), norm)
    x = keras.layers.Concatenate()([deeplab.Upsampling(1)([x, fine]), fine])
    x = keras.layers.Conv2D(2, 1, dtype="float32")(x)
    return keras.Model(image, deeplab.Upsampling(4, dtype="float32")([x, image]))


def test_every_layer_of_ours_trains_under_xla_in_any_precision_as_without_it():
    image, after = images(2, 33, 29, 3), {}
    mask = (image[..., :1] > 128).astype(np.uint8)
    for policy, compiled in (("float32", False), *((one, True) for one in POLICIES)):
        keras.utils.set_random_seed(0)
        model = under(policy, narrow)
        model.get_layer("aspp_dropout").rate = 0.0
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
        model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=compiled)
        after[policy, compiled] = [float(model.train_on_batch(image, mask)) for _ in range(3)]
    exact = after["float32", False]
    assert 0.1 < exact[2] < exact[0] < 5
    far_off = {how: found for how, found in after.items()
               if not np.allclose(found, exact, rtol=POLICIES[how[0]])}  # fmt: skip
    assert far_off == {}


def test_a_saved_model_is_the_same_model(tmp_path):
    # Numbers of NumPy are numbers; Xception at stride 8 has poolings with a rate.
    model = deeplab.model(np.int64(2), backbone="Xception", output_stride=8, aspp_width=np.int64(8))
    pools = [one for one in model.layers if isinstance(one, CentredMaxPooling2D)]
    found = [(one.strides[0], one.dilation_rate[0]) for one in pools]
    assert found == [(2, 1), (2, 1), (1, 1), (1, 2)]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images(1, 40, 50, 3)), model(images(1, 40, 50, 3)))


def test_a_receptive_field_is_what_a_gradient_finds_and_grows_with_the_rate(tf, small):
    # Kernels of ones: every pixel that is seen has a gradient.
    ones, image = {"padding": "same", "kernel_initializer": "ones"}, keras.Input((None, None, 1))
    x = keras.layers.Conv2D(1, 3, strides=2, **ones)(image)
    x = CentredMaxPooling2D(pool_size=1, strides=1)(x)
    x = keras.layers.Conv2D(1, 3, dilation_rate=3, **ones)(x)
    x = keras.layers.Add(name="sum")([x, keras.layers.Conv2D(1, 3, **ones)(x)])
    model = keras.Model(image, x)
    pixels = tf.Variable(1 + images(1, 65, 65, 1))
    with tf.GradientTape() as tape:
        value = model(pixels)[0, 16, 16, 0]
    seen = np.flatnonzero(tape.gradient(value, pixels)[0, :, :, 0].numpy().any(0))
    # 1 + 2 * 1 + 2 * 3 * 2 + 2 * 2
    assert deeplab.receptive_field(model, "sum") == 19 == seen[-1] - seen[0] + 1
    end = deeplab.receptive_field(small, "block_16_project_BN")
    for rate in (6, 12, 18):
        layer = f"aspp_rate_{rate}_depthwise_conv"
        assert deeplab.receptive_field(small, layer) == end + 2 * rate * 16
    # Left-out strides change what is seen next to nothing: they are dilation now.
    fine = deeplab.encoder(output_stride=8, alpha=0.35)
    assert deeplab.receptive_field(fine, "block_16_project_BN") == end
    for layer in ("decoder_concat", "logits", "x"):
        with pytest.raises(ValueError, match="before the decoder"):
            deeplab.receptive_field(small, layer)
