"""DeepLabV3+ from the image to a logit for each class and pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from helpers.deeplab import limits
from helpers.deeplab.encoders import LOW_LEVEL_STRIDE, encoder
from helpers.deeplab.heads import aspp, decoder
from helpers.deeplab.layers import Upsampling

RATES = (6, 12, 18)  # at output stride 16


def model(
    classes: int,
    *,
    backbone: str = "MobileNetV2",
    input_shape: Sequence[int | None] = (None, None, 3),
    output_stride: int = 16,
    weights: str | Path | None = None,
    aspp_width: int = 256,
    decoder_width: int = 256,
    low_level_width: int = 48,
    rates: Sequence[int] | None = None,
    dropout: float = 0.1,
    batch_norm_momentum: float = 0.9997,
    batch_norm_epsilon: float = 1e-5,
    alpha: float = 1.0,
    value_range: tuple[float, float] = (0.0, 255.0),
) -> keras.Model:
    """DeepLabV3+ (Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution").

    An encoder with atrous convolution, atrous spatial pyramid pooling, a decoder at stride 4, and
    the logits enlarged to the size of the image. Any size of image goes in. At sizes of
    `output_stride * k + 1` the grid of features ends on the last pixel, as the paper's crops of
    513 do; at others the last features reach a little further.

    Args:
        classes: how many there are, the background among them.
        backbone, input_shape, output_stride, weights, alpha, value_range: see `encoder`; the
            output stride is 16 or 8.
        aspp_width: channels of each branch of the pyramid and of its result.
        decoder_width: channels of the decoder's convolutions.
        low_level_width: channels of the fine features in the decoder.
        rates: of the pyramid, in features; None: 6, 12 and 18 at output stride 16, twice that at 8.
        dropout: behind the pyramid.
        batch_norm_momentum: the paper's; in a few hundred steps take 0.9, or the moving averages
            never arrive and validation collapses.
        batch_norm_epsilon: of the pyramid and the decoder, and of an encoder without weights.

    Returns:
        A functional model from images `[b, y, x, c]` in `value_range` to logits `[b, y, x,
        classes]`, float32 whatever the dtype policy.

    Raises:
        ValueError: for arguments that do not fit, among them an image that is too small.
    """
    limits.classes(classes, ignore=None)
    output_stride = limits.stride(output_stride, (16, 8))
    rates = [16 // output_stride * rate for rate in RATES] if rates is None else rates
    settings = {
        "batch_norm_momentum": batch_norm_momentum,
        "batch_norm_epsilon": batch_norm_epsilon,
    }
    encoding = encoder(
        backbone,
        input_shape=input_shape,
        output_stride=output_stride,
        weights=weights,
        alpha=alpha,
        value_range=value_range,
        **settings,
    )
    low_level, features = encoding.output["low_level"], encoding.output["features"]
    features = aspp(features, width=aspp_width, rates=rates, dropout=dropout, **settings)
    features = decoder(
        features,
        low_level,
        stride=output_stride // LOW_LEVEL_STRIDE,
        width=decoder_width,
        low_level_width=low_level_width,
        **settings,
    )
    # Half precision is too coarse for a softmax's logits, and for the sum over all pixels.
    logits = keras.layers.Conv2D(classes, 1, dtype="float32", name="logits_stride_4")(features)
    logits = Upsampling(LOW_LEVEL_STRIDE, dtype="float32", name="logits")([logits, encoding.input])
    return keras.Model(encoding.input, logits, name=f"deeplab_v3_plus_{backbone.lower()}")
