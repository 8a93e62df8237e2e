"""What DeepLabV3+ puts on an encoder: atrous spatial pyramid pooling, and the decoder."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from helpers import arguments
from helpers.deeplab.layers import FusedBatchNormalization, Spread, Upsampling


class Blocks:
    """Convolutions with batch normalisation and ReLU behind them, all with the same settings."""

    def __init__(self, momentum: float, epsilon: float) -> None:
        arguments.share("batch_norm_momentum", momentum)
        arguments.positive("batch_norm_epsilon", epsilon)
        self.momentum = momentum
        self.epsilon = epsilon

    def normalised(self, features, name: str):
        """Batch normalisation and ReLU."""
        features = FusedBatchNormalization(
            momentum=self.momentum, epsilon=self.epsilon, name=f"{name}_bn"
        )(features)
        return layers.ReLU(name=f"{name}_relu")(features)

    def pointwise(self, features, width: int, name: str):
        """A 1x1 convolution: it mixes channels, and sees one position."""
        conv = layers.Conv2D(
            width, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
        )
        return self.normalised(conv(features), name)

    def separable(self, features, width: int, rate: int, name: str):
        """An atrous 3x3 convolution in two steps: each channel by itself, then 1x1."""
        depthwise = layers.DepthwiseConv2D(
            3,
            padding="same",
            dilation_rate=rate,
            use_bias=False,
            # Variance 1 over nine taps; Keras' own rules count the channels, which are not summed.
            depthwise_initializer=keras.initializers.TruncatedNormal(stddev=0.33),
            name=f"{name}_depthwise_conv",
        )
        features = self.normalised(depthwise(features), f"{name}_depthwise")
        return self.pointwise(features, width, f"{name}_pointwise")


def aspp(
    features: keras.KerasTensor,
    *,
    width: int = 256,
    rates: Sequence[int] = (6, 12, 18),
    dropout: float = 0.1,
    batch_norm_momentum: float = 0.9997,
    batch_norm_epsilon: float = 1e-5,
) -> keras.KerasTensor:
    """Atrous spatial pyramid pooling: the same place looked at with windows of several sizes.

    Side by side: a 1x1 convolution; for each rate an atrous separable 3x3; and the mean of the
    whole map through a 1x1. All of `width` channels, put together and brought to `width` by a 1x1
    (Chen et al. 2017, section 3.3; separable as in Chen et al. 2018, "DeepLabV3+", section 3.2).

    The mean of the map is one number an image. In training it is normalised over the images of the
    batch, so a batch of one would tell it nothing: take two or more.

    Args:
        features: `[b, h, w, c]`.
        width: channels of each branch and of the result.
        rates: of the atrous convolutions, in features: (6, 12, 18) at output stride 16, twice that
            at 8.
        dropout: share of the result's values left out in training.
        batch_norm_momentum: how much of the old moving average stays at each step.
        batch_norm_epsilon: added to the variance.

    Returns:
        `[b, h, w, width]`.

    Raises:
        ValueError: for arguments out of range.
    """
    width = arguments.whole("aspp_width", width)
    arguments.share("dropout", dropout)
    rates = [arguments.whole("a rate", rate) for rate in rates]
    if not rates or len({*rates}) < len(rates):
        raise ValueError(f"rates are one or more different whole numbers, not {rates}")
    blocks = Blocks(batch_norm_momentum, batch_norm_epsilon)
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="aspp_image_pool")(features)
    pooled = blocks.pointwise(pooled, width, "aspp_image")
    branches = [
        blocks.pointwise(features, width, "aspp_1x1"),
        *(blocks.separable(features, width, rate, f"aspp_rate_{rate}") for rate in rates),
        Spread(name="aspp_image_spread")([pooled, features]),
    ]
    joined = layers.Concatenate(name="aspp_concat")(branches)
    projected = blocks.pointwise(joined, width, "aspp_projection")
    return layers.Dropout(dropout, name="aspp_dropout")(projected)


def decoder(
    features: keras.KerasTensor,
    low_level: keras.KerasTensor,
    *,
    stride: int = 4,
    width: int = 256,
    low_level_width: int = 48,
    batch_norm_momentum: float = 0.9997,
    batch_norm_epsilon: float = 1e-5,
) -> keras.KerasTensor:
    """Deep features on the grid of fine ones, with the edges of these.

    The fine ones go through a 1x1 to few channels, lest they outweigh the deep ones; both are put
    together and go through two separable 3x3 (Chen et al. 2018, "DeepLabV3+", section 4.1).

    Args:
        features: `[b, h, w, c]`, of `aspp`.
        low_level: `[b, y, x, c]`, where h = ceil(y / stride).
        stride: of the deep features against the fine ones: the output stride by 4.
        width: channels of the result.
        low_level_width: channels that the fine ones keep.
        batch_norm_momentum, batch_norm_epsilon: as for `aspp`.

    Returns:
        `[b, y, x, width]`.

    Raises:
        ValueError: for arguments out of range.
    """
    stride = arguments.whole("stride", stride)
    width = arguments.whole("decoder_width", width)
    low_level_width = arguments.whole("low_level_width", low_level_width)
    blocks = Blocks(batch_norm_momentum, batch_norm_epsilon)
    fine = blocks.pointwise(low_level, low_level_width, "decoder_low_level")
    large = Upsampling(stride, name="decoder_upsampling")([features, fine])
    joined = layers.Concatenate(name="decoder_concat")([large, fine])
    joined = blocks.separable(joined, width, 1, "decoder_1")
    return blocks.separable(joined, width, 1, "decoder_2")
