"""DeepLabV3+: strides that became rates change nothing where both can be compared."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import deeplab
from helpers.deeplab import encoders, network
from helpers.deeplab.layers import CentredMaxPooling2D, FusedBatchNormalization

APPS = keras.applications
# From the papers of the networks: what they take; channels at stride 4 and at the end; weights of
# what serves classes only, which is left out; the receptive field, by the tables of windows.
KNOWN = {
    "MobileNetV2": (APPS.mobilenet_v2.preprocess_input, 144, 320, 324 * 1280, 491),
    "ResNet50": (APPS.resnet.preprocess_input, 256, 2048, 0, 483),
    "Xception": (APPS.xception.preprocess_input, 256, 2048, 0, 1083),
    "EfficientNetV2B0": (
        lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        *(32, 192, 196 * 1280, 763),
    ),
}
MADE = {  # a network of each backbone, and the rates of its pyramid
    "MobileNetV2": ({"alpha": 0.35}, (6, 12, 18)),
    "ResNet50": ({"output_stride": 32}, (3, 6, 9)),
    "Xception": ({"output_stride": 8}, (12, 24, 36)),
    "EfficientNetV2B0": ({"rates": (np.int64(1), np.int64(2))}, (1, 2)),
}
WIDTHS = {"aspp_width": 8, "decoder_width": 6, "low_level_width": 4, "batch_norm_momentum": 0.9}
POLICIES = {"float32": 1e-4, "mixed_float16": 0.01, "mixed_bfloat16": 0.05}  # error allowed


@functools.cache
def built(backbone="MobileNetV2"):
    """A network, once for all tests that do not change it."""
    keras.utils.set_random_seed(0)
    return deeplab.model(np.int64(2), backbone=backbone, **WIDTHS, **MADE[backbone][0])


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def enliven(model) -> None:
    """Weights that carry a signal through: with Keras' own, a network's end forgets its image."""
    random = np.random.default_rng(0)
    for one in model.weights:
        values = random.normal(0, 0.1, one.shape)
        if "kernel" in one.name:
            taps = np.prod(one.shape[: 2 if "depthwise" in one.path else 3])
            values *= 10 * np.sqrt(2 / taps)
        elif one.name in ("gamma", "moving_variance"):
            values += 1
        one.assign(values)
    for layer in model.layers:
        layer.momentum = 0.0
    # Averages as they come, or squeeze-and-excitation and many layers fade the image away.
    model(random.normal(size=(4, *model.input.shape[1:])), training=True)


def part(model, *ends, start=None):
    """The part of a network from one layer, or the image, to others."""
    given = model.get_layer(start).output if start else model.input
    return keras.Model(given, [model.get_layer(name).output for name in ends])


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


@pytest.fixture(scope="module", params=KNOWN)
def trained(request, tmp_path_factory):
    """A name, that network of `keras.applications`, and our encoders with its weights."""
    name, file = request.param, tmp_path_factory.mktemp("weights") / "trained.weights.h5"
    # Sizes of 32 k + 1, or whose maps are so after Xception's first two convolutions.
    options = {"input_shape": (71, 103, 3) if name == "Xception" else (65, 97, 3)}
    options |= {"include_preprocessing": False} if "Efficient" in name else {}
    theirs = getattr(APPS, name)(weights=None, include_top=False, **options)
    enliven(theirs)
    theirs.save_weights(file)
    make = functools.partial(deeplab.encoder, name, weights=file)
    return name, theirs, {stride: make(output_stride=stride) for stride in (32, 16, 8)}


def test_an_encoder_is_the_network_of_keras_applications_on_images_as_they_are(trained):
    name, theirs, ours = trained
    preprocess, *channels, left_out, side = KNOWN[name]
    ends = encoders.BACKBONES[name][:2]
    x = images(2, *theirs.input.shape[1:])
    ready = preprocess(x.astype(float)).astype(np.float32)
    normal = part(ours[32], "normalisation")(x)
    order = slice(None, None, -1 if name == "ResNet50" else 1)  # blue, green, red
    np.testing.assert_allclose(normal, ready[..., order], atol=1e-4)
    # Without padding Xception's first two convolutions shift the image, but no more than that.
    start = "block1_conv2_act" if name == "Xception" else None
    if start:
        x = ready = images(2, 33, 49, 64) / 255
    expected, found = (part(one, *ends, start=start) for one in (theirs, ours[32]))
    expected, found = expected(ready), found(x)
    of_stride_4 = [one.name for one in theirs.layers if one.output.shape[1] == 17]
    assert ends[0] == of_stride_4[-1]
    assert far(expected[1][::-1], expected[1]) > 0.5  # the features tell images apart
    assert far(found[0], expected[0]) < 1e-3 and far(found[1], expected[1]) < 1e-2
    names = [[n.name for n in m.layers if not n.name.endswith("_padding")] for m in ours.values()]
    assert {*names[0]} == {*names[1]} == {*names[2]}  # although Keras counts on
    epsilons = {one.epsilon for one in theirs.layers if hasattr(one, "epsilon")}
    for stride, model in ours.items():
        assert [model.output[n].shape[-1] for n in ("low_level", "features")] == channels
        assert theirs.count_params() - left_out == model.count_params()
        assert deeplab.receptive_field(model, ends[1]) == side, stride
        norms = [one for one in model.layers if hasattr(one, "epsilon")]
        assert {(type(one), one.momentum) for one in norms} == {(FusedBatchNormalization, 0.9997)}
        assert {one.epsilon for one in norms} == epsilons  # it belongs to the weights


def test_a_dilated_encoder_has_the_features_of_the_strided_one_and_more_in_between(trained):
    x, maps = images(2, 65, 46, 3), {}
    for stride, model in trained[2].items():
        for layer in model.layers:
            if layer.name.endswith("se_expand"):  # of a mean over the map, which does change
                layer.kernel.assign(0 * layer.kernel)
        found = model(x)
        maps[stride] = found["features"].numpy()
        assert maps[stride].shape[1:3] == (-(-65 // stride), -(-46 // stride))
        assert found["low_level"].shape[1:3] == (17, 12)
    for stride, step in ((16, 2), (8, 4)):
        assert far(maps[stride][:, ::step, ::step], maps[32]) < 1e-3
        aside = maps[stride][:, 1::step, 1::step]
        assert far(aside, maps[32][:, : aside.shape[1], : aside.shape[2]]) > 0.5


def test_an_encoder_takes_grey_images_in_any_range_with_and_without_trained_weights(tmp_path):
    theirs = APPS.MobileNetV2(weights=None, include_top=False, alpha=0.35, input_shape=(96, 96, 3))
    theirs.save_weights(file := tmp_path / "trained.weights.h5")
    make = functools.partial(deeplab.encoder, alpha=0.35, input_shape=(None, None, 1))
    x = images(2, 50, 48, 1)
    rgb = deeplab.encoder(alpha=0.35, weights=file)(np.repeat(x, 3, -1))["low_level"]
    np.testing.assert_array_equal(make(weights=file)(x)["low_level"], rgb)
    ct = make(weights=file, value_range=(-1.0, 1.0))
    assert far(ct(x / 127.5 - 1)["low_level"], rgb) < 1e-4
    # In half precision white of 16 bits would be infinite.
    wide = under("mixed_float16", lambda: make(weights=file, value_range=(0, 65535)))
    white = part(wide, "normalisation")(np.full((1, 40, 40, 1), 65535, np.float32))
    np.testing.assert_allclose(white, np.ones((1, 40, 40, 3)), rtol=1e-6)
    # Without weights one channel is one channel. Random ones without statistics may hardly react
    # in inference: the first layer does.
    one, other = make(value_range=(0, 1)), make()
    one.set_weights(other.get_weights())
    found, expected = part(one, "Conv1")(x / 255), part(other, "Conv1")(x)
    assert one.get_layer("Conv1").kernel.shape == (3, 3, 1, 16) and np.std(expected) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)
    known = "MobileNetV2, ResNet50, Xception, EfficientNetV2B0 at output stride 8, 16 or 32"
    for wrong in ({"backbone": "VGG16"}, {"output_stride": 4}):
        with pytest.raises(ValueError, match=known):
            deeplab.model(2, **wrong)


def test_pyramid_and_decoder_have_the_numbers_and_shapes_of_the_paper():
    full = deeplab.model(21, input_shape=(513, 513, 3))

    def pointwise(before, after):  # a kernel; of each channel scale, shift, mean and variance
        return before * after + 4 * after

    def separable(before, after):
        return 9 * before + 4 * before + pointwise(before, after)

    pyramid = 2 * pointwise(320, 256) + 3 * separable(320, 256) + pointwise(5 * 256, 256)
    decoder = pointwise(144, 48) + separable(256 + 48, 256) + separable(256, 256) + 256 * 21 + 21
    # Keras' MobileNetV2 without its top has 2,257,984, of which 414,720 serve classes only.
    assert full.count_params() == 2_257_984 - 414_720 + pyramid + decoder == 2_764_357
    shapes = {"aspp_image_pool": (1, 1, 320), "aspp_concat": (33, 33, 1280)}
    shapes |= {"decoder_concat": (129, 129, 304), "logits": (513, 513, 21)}
    assert {name: full.get_layer(name).output.shape[1:] for name in shapes} == shapes
    assert full.get_layer("aspp_dropout").rate == 0.1
    for name in ("aspp_rate_6", "decoder_1"):  # kernels of variance one over nine taps
        kernel = full.get_layer(f"{name}_depthwise_conv").get_weights()[0]
        assert 0.25 < kernel.std() < 0.33 and abs(kernel).max() <= 0.66


@pytest.mark.parametrize("backbone", MADE)
def test_rates_double_where_the_stride_halves_and_every_variable_learns(backbone):
    model, (options, rates), (*_, side) = built(backbone), MADE[backbone], KNOWN[backbone]
    found = [one for one in model.layers if one.name.endswith("_depthwise_conv")]
    assert [one.dilation_rate[0] for one in found] == [*rates, 1, 1]
    sees = [deeplab.receptive_field(model, one.name) for one in found[:-2]]
    assert sees == [side + 2 * rate * options.get("output_stride", 16) for rate in rates]
    for layer in (found[-1].name, "logits", "x"):
        with pytest.raises(ValueError, match="before the decoder"):
            deeplab.receptive_field(model, layer)
    norms = [one for one in model.layers if hasattr(one, "epsilon")]
    settings = {(type(one), one.momentum, one.epsilon) for one in norms}
    assert settings == {(FusedBatchNormalization, 0.9, 1e-5)}
    # EfficientNet leaves out up to a fifth of its blocks an image (stochastic depth): with few
    # images and an unlucky draw, a block is left out of all of them and has no gradient.
    mask = np.random.default_rng(0).integers(0, 2, (6, 65, 65, 1))
    with tf.GradientTape() as tape:
        value = deeplab.masked_loss(mask, model(images(6, 65, 65, 3), training=True))
    gradients = tape.gradient(value, model.trainable_variables)
    largest = [np.abs(one).max() for one in gradients]
    paths = [one.path for one in model.trainable_variables]
    still = [path for path, most in zip(paths, largest, strict=True) if not 0 < most < np.inf]
    # A bias in front of a batch normalisation is subtracted again: only rounding is left of it.
    assert {n for n in still if not n.endswith("/bias") or n.startswith("logits")} == set()
    assert np.isfinite(largest).all() and len(gradients) > 100


def test_images_of_any_size_give_logits_of_their_size_on_a_grid_that_ends_as_the_paper_s():
    # Only with symmetric kernels does the network commute with flips; then the grid has to as well.
    model, random = deeplab.model(2, **WIDTHS, alpha=0.35), np.random.default_rng(0)
    for one in (weight for weight in model.weights if weight.name == "kernel"):
        kernel = random.normal(0, np.sqrt(2 / np.prod(one.shape[:-1])), one.shape)
        one.assign(kernel + kernel[:, ::-1])
    for size, same in (((65, 65), True), ((50, 97), True), ((17, 64), False), ((65, 130), False)):
        image = images(1, *size, 3)
        logits, flipped = model(image).numpy(), model(image[:, :, ::-1]).numpy()
        assert logits.shape == (1, *size, 2)
        assert np.allclose(flipped[:, :, ::-1], logits, atol=1e-3 * logits.std()) == same


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
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=compiled)
        after[policy, compiled] = [float(model.train_on_batch(image, mask)) for _ in range(3)]
    exact = after["float32", False]
    assert 0.1 < exact[2] < exact[0] < 5
    wrong = {k: v for k, v in after.items() if not np.allclose(v, exact, rtol=POLICIES[k[0]])}
    assert wrong == {}


def test_logits_are_float32_whatever_the_policy_and_a_saved_model_is_the_same_model(tmp_path):
    how = {"backbone": "Xception", "output_stride": 8}  # then it has poolings with a rate
    model = under("mixed_float16", lambda: deeplab.model(2, **WIDTHS, **how))
    pools = [one for one in model.layers if isinstance(one, CentredMaxPooling2D)]
    found = [(one.strides[0], one.dilation_rate[0]) for one in pools]
    assert found == [(2, 1), (2, 1), (1, 1), (1, 2)]
    assert model.get_layer("decoder_2_pointwise_relu").compute_dtype == "float16"
    assert model.get_layer("logits_stride_4").compute_dtype == "float32"
    assert {one.dtype for one in model.trainable_variables} == {"float32"}
    model.save(tmp_path / "model.keras")
    again, x = keras.saving.load_model(tmp_path / "model.keras"), images(1, 40, 50, 3)
    assert again(x).dtype == "float32" and np.isfinite(again(x)).all()
    np.testing.assert_array_equal(again(x), model(x))
