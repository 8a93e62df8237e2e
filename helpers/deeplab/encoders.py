"""The encoder: any of four networks of `keras.applications`, at output stride 16 or 8."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras

from helpers import arguments
from helpers.deeplab import limits
from helpers.deeplab.dilation import Grid, Layer, rebuild
from helpers.deeplab.layers import ChannelNormalization

LOW_LEVEL_STRIDE = 4  # of the features that the decoder takes to find edges
BUILT_AT = 224  # pixels; no layer's weights depend on it


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What has to be known of a network of `keras.applications`."""

    make: str  # its name there
    last: str  # the layer whose output is the features: what serves classes only comes after it
    mean: tuple[float, float, float]  # of red, green and blue from 0 to 255, as it was trained
    deviation: tuple[float, float, float]
    first: str | None = None  # a convolution that was trained on blue, green, red


HALF = (127.5, 127.5, 127.5)
BACKBONES = {
    "MobileNetV2": Backbone("MobileNetV2", "block_16_project_BN", HALF, HALF),
    "ResNet50": Backbone(
        "ResNet50", "conv5_block3_out", (123.68, 116.779, 103.939), (1.0, 1.0, 1.0), "conv1_conv"
    ),
    "Xception": Backbone("Xception", "block14_sepconv2_act", HALF, HALF),
    "EfficientNetV2B0": Backbone(
        "EfficientNetV2B0",
        "block6h_add",
        (0.485 * 255, 0.456 * 255, 0.406 * 255),
        (0.229 * 255, 0.224 * 255, 0.225 * 255),
    ),
}


def encoder(
    backbone: str = "MobileNetV2",
    *,
    input_shape: Sequence[int | None] = (None, None, 3),
    output_stride: int = 16,
    weights: str | Path | None = None,
    alpha: float = 1.0,
    value_range: tuple[float, float] = (0.0, 255.0),
    batch_norm_momentum: float = 0.9997,
    batch_norm_epsilon: float = 1e-5,
) -> keras.Model:
    """From images to the two maps that DeepLab takes: fine ones and deep ones.

    The first layer brings the images to the values that the network was trained with, so images
    come as they are in `value_range`. Strides beyond `output_stride` become dilation, see
    `dilation.rebuild`; the layers keep their names.

    Args:
        backbone: "MobileNetV2", "ResNet50", "Xception" or "EfficientNetV2B0". MobileNetV2 and
            EfficientNetV2B0 end before the last 1x1 convolution, which widens the features for a
            thousand classes (as the paper's MobileNetV2 does).
        input_shape: height, width and channels; None for sides of any length; channels 3 (RGB)
            or 1.
        output_stride: pixels of the image from one deep feature to the next, 16 or 8; 32 is the
            network without atrous convolution, for comparison.
        weights: None for random ones; "imagenet", which Keras downloads; or a file of the weights
            of the network without its top. With trained weights one channel is repeated to three,
            which is exact: a first kernel summed over its channels would be exact only where all
            three are normalised alike.
        alpha: width of MobileNetV2, 1.0 for the others.
        value_range: lowest and highest value of the images: (0, 255) for photographs, (0, 1) for CT
            after a window to that range.
        batch_norm_momentum: of all batch normalisations; the paper's value is for long training, in
            a few hundred steps take 0.9.
        batch_norm_epsilon: likewise, but trained weights keep the one they were trained with.

    Returns:
        A model with outputs `low_level` `[b, ceil(y / 4), ceil(x / 4), c]`, the last map of stride
        4, and `features` `[b, ceil(y / output_stride), ceil(x / output_stride), c]`.

    Raises:
        ValueError: for arguments that do not fit.
    """
    arguments.one_of("backbone", backbone, BACKBONES)
    output_stride = limits.stride(output_stride, (8, 16, 32))
    limits.images(input_shape, output_stride, value_range)
    arguments.positive("alpha", alpha)
    arguments.share("batch_norm_momentum", batch_norm_momentum)
    arguments.positive("batch_norm_epsilon", batch_norm_epsilon)
    channels = input_shape[-1] if weights is None else 3
    base = _base(backbone, channels, weights, alpha)
    epsilon = {} if weights is not None else {"epsilon": batch_norm_epsilon}

    def change(layer: keras.layers.Layer, config: dict) -> dict:
        if isinstance(layer, keras.layers.BatchNormalization):
            config = config | {"momentum": batch_norm_momentum} | epsilon
        return config

    images = keras.Input(tuple(input_shape), name="image")
    given = images
    if input_shape[-1] < channels:
        # Values of 16 bits are infinite in half precision; what follows brings them near 0.
        repeat = keras.layers.Concatenate(name="grey_to_rgb", dtype="float32")
        given = repeat([images] * channels)
    given = _normalisation(BACKBONES[backbone], channels, value_range)(given)
    made = rebuild(base, given, output_stride, last=BACKBONES[backbone].last, change=change)
    outputs = {"low_level": _low_level(made), "features": [*made.values()][-1].output}
    return keras.Model(images, outputs, name=f"{backbone.lower()}_encoder")


def _base(backbone: str, channels: int, weights: str | Path | None, alpha: float) -> keras.Model:
    """The network as `keras.applications` makes it, for RGB."""
    about = BACKBONES[backbone]
    options = {"include_top": False, "input_shape": (BUILT_AT, BUILT_AT, channels)}
    if backbone == "EfficientNetV2B0":
        options["include_preprocessing"] = False
    if backbone == "MobileNetV2":
        options["alpha"] = alpha
    elif alpha != 1:
        raise ValueError(f"alpha is the width of MobileNetV2; {backbone} has only 1.0, not {alpha}")
    weights = str(weights) if isinstance(weights, Path) else weights
    base = getattr(keras.applications, about.make)(weights=weights, **options)
    if about.first and weights is not None:
        first = base.get_layer(about.first)
        kernel, *rest = first.get_weights()
        first.set_weights([kernel[:, :, ::-1], *rest])
    return base


def _normalisation(
    about: Backbone, channels: int, value_range: tuple[float, float]
) -> keras.layers.Layer:
    """To the values of the training; one channel gets the average of the three colours'."""
    low, high = value_range
    scale = (high - low) / 255
    colours = [list(about.mean), list(about.deviation)]
    if channels == 1:
        colours = [[sum(three) / 3] for three in colours]
    mean, deviation = colours
    return ChannelNormalization(
        mean=[low + one * scale for one in mean],
        variance=[(one * scale) ** 2 for one in deviation],
        dtype="float32",
        name="normalisation",
    )


def _low_level(made: dict[str, Layer]) -> keras.KerasTensor:
    """The deepest map of stride 4, with which the paper's decoder finds edges."""
    return [one for one in made.values() if one.grid == Grid(LOW_LEVEL_STRIDE, 1)][-1].output
