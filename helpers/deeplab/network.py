"""DeepLabV3+ from the image to a logit for each class and pixel, and what a feature of it sees."""

import keras
import tensorflow as tf
from keras import layers

from helpers.deeplab.encoders import EPSILON, encoder
from helpers.deeplab.layers import FusedBatchNormalization, Upsampling

LOW_LEVEL_STRIDE = 4  # of the features that the decoder takes to find edges
RATES = (6, 12, 18)  # at output stride 16
DROPOUT = 0.1  # behind the pyramid


def model(
    classes,
    *,
    backbone="MobileNetV2",
    output_stride=16,
    aspp_width=256,
    decoder_width=256,
    low_level_width=48,
    rates=None,
    batch_norm_momentum=0.9997,
    **encoding,
) -> keras.Model:
    """DeepLabV3+ (Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution").

    An encoder with atrous convolution, atrous spatial pyramid pooling, a decoder at stride 4, and
    the logits enlarged to the size of the image. Any size of image goes in. At sizes of
    `output_stride * k + 1` the grid of features ends on the last pixel, as the paper's crops of
    513 do; at others the last features reach a little further.

        model = deeplab.model(2, alpha=0.35, batch_norm_momentum=0.9)

    Args:
        classes: how many there are, the background among them.
        backbone, output_stride: see `encoder`.
        aspp_width: channels of each branch of the pyramid and of its result.
        decoder_width: channels of the decoder's convolutions.
        low_level_width: channels of the fine features in the decoder.
        rates: of the pyramid, in features; None: 6, 12 and 18 at output stride 16, twice that at 8.
        batch_norm_momentum: the paper's; in a few hundred steps take 0.9, or the moving averages
            never arrive and validation collapses.
        encoding: other arguments of `encoder`: `input_shape`, `weights`, `value_range`, `alpha`.

    Returns:
        A functional model from images `[b, y, x, c]` in `value_range` to logits `[b, y, x,
        classes]`, float32 whatever the dtype policy.

    Raises:
        ValueError: as `encoder`.

    Taught in: segmentation with DeepLab
    """
    encoded = encoder(
        backbone,
        output_stride=output_stride,
        batch_norm_momentum=batch_norm_momentum,
        **encoding,
    )
    norm = {"momentum": batch_norm_momentum, "epsilon": EPSILON}
    if rates is None:
        rates = [rate * 16 // output_stride for rate in RATES]
    features = aspp(encoded.output["features"], aspp_width, rates, norm)
    low_level = encoded.output["low_level"]
    fine = pointwise(low_level, low_level_width, "decoder_low_level", norm)
    enlarge = Upsampling(output_stride // LOW_LEVEL_STRIDE, name="decoder_upsampling")
    large = enlarge([features, fine])
    joined = layers.Concatenate(name="decoder_concat")([large, fine])
    joined = separable(joined, decoder_width, 1, "decoder_1", norm)
    joined = separable(joined, decoder_width, 1, "decoder_2", norm)
    # Half precision is too coarse for a softmax's logits, and for the sum over all pixels.
    logits = layers.Conv2D(classes, 1, dtype="float32", name="logits_stride_4")(joined)
    enlarge = Upsampling(LOW_LEVEL_STRIDE, dtype="float32", name="logits")
    logits = enlarge([logits, encoded.input])
    return keras.Model(encoded.input, logits, name=f"deeplab_v3_plus_{backbone.lower()}")


def aspp(features, width, rates, norm):
    """Atrous spatial pyramid pooling: the same place looked at with windows of several sizes.

    Side by side: a 1x1 convolution; for each rate an atrous separable 3x3; and the mean of the
    whole map through a 1x1. All of `width` channels, put together and brought to `width` by a 1x1
    (Chen et al. 2017, section 3.3; separable as in Chen et al. 2018, "DeepLabV3+", section 3.2).

    The mean of the map is one number an image. In training it is normalised over the images of the
    batch, so a batch of one would tell it nothing: take two or more.

    Args:
        features: `[b, h, w, c]`.
        width: channels of each branch and of the result.
        rates: of the atrous convolutions, in features, each of them once.
        norm: `momentum` and `epsilon` of the batch normalisations.

    Returns:
        `[b, h, w, width]`.

    Taught in: segmentation with DeepLab
    """
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="aspp_image_pool")(features)
    pooled = pointwise(pooled, width, "aspp_image", norm)
    branches = [pointwise(features, width, "aspp_1x1", norm)]
    for rate in rates:
        branches.append(separable(features, width, int(rate), f"aspp_rate_{rate}", norm))
    branches.append(Upsampling(1, name="aspp_image_spread")([pooled, features]))
    joined = layers.Concatenate(name="aspp_concat")(branches)
    projected = pointwise(joined, width, "aspp_projection", norm)
    return layers.Dropout(DROPOUT, name="aspp_dropout")(projected)


def pointwise(features, width, name, norm):
    """A 1x1 convolution, which mixes channels and sees one position; normalisation and ReLU.

    Args:
        features: `[b, h, w, c]`.
        width: channels of the result.
        name: what the names of the layers begin with.
        norm: `momentum` and `epsilon` of the batch normalisation.

    Returns:
        `[b, h, w, width]`.

    Taught in: segmentation with DeepLab
    """
    how = {"use_bias": False, "kernel_initializer": "he_normal"}
    return normalised(features, layers.Conv2D(width, 1, name=f"{name}_conv", **how), norm)


def separable(features, width, rate, name, norm):
    """An atrous 3x3 convolution in two steps: each channel by itself, then `pointwise`.

    Args:
        features: `[b, h, w, c]`.
        width: channels of the result.
        rate: features from one tap of the window to the next.
        name: what the names of the layers begin with.
        norm: `momentum` and `epsilon` of the batch normalisations.

    Returns:
        `[b, h, w, width]`.

    Taught in: segmentation with DeepLab
    """
    how = {"padding": "same", "dilation_rate": rate, "use_bias": False}
    # Variance 1 over nine taps; Keras' own rules count the channels, which are not summed.
    how["depthwise_initializer"] = keras.initializers.TruncatedNormal(stddev=0.33)
    depthwise = layers.DepthwiseConv2D(3, name=f"{name}_depthwise_conv", **how)
    return pointwise(normalised(features, depthwise, norm), width, f"{name}_pointwise", norm)


def normalised(features, conv, norm):
    """A convolution with batch normalisation and ReLU behind it.

    Args:
        features: `[b, h, w, c]`.
        conv: the layer; its name ends in "_conv".
        norm: `momentum` and `epsilon` of the batch normalisation.

    Returns:
        `[b, h, w, c]`, c as of `conv`.

    Taught in: segmentation with DeepLab
    """
    name = conv.name.removesuffix("_conv")
    features = FusedBatchNormalization(**norm, name=f"{name}_bn")(conv(features))
    return layers.ReLU(name=f"{name}_relu")(features)


def masked_loss(mask, logits, ignore=255):
    """Cross-entropy from logits, averaged over all pixels of the batch that are not ignored.

    This is what Keras' own loss does, with which networks are trained:
    `keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)`. Both divide by
    the number of pixels that count, as the paper's code does, and are 0 where none does. Keras'
    takes a `sample_weight` as well, one number a pixel; one a case, `[b]`, has to be `[b, 1, 1]`.

    Args:
        mask: class ids `[b, y, x, 1]`.
        logits: `[b, y, x, classes]`.
        ignore: the id in a mask that is no class.

    Returns:
        A float32 scalar.

    Taught in: segmentation with DeepLab
    """
    mask = tf.cast(mask[..., 0], tf.int32)
    counts = mask != ignore
    ids = tf.where(counts, mask, 0)
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(ids, logits)
    counts = tf.cast(counts, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(each * counts), tf.reduce_sum(counts))


def receptive_field(model, layer):
    """Side of the square of pixels that a feature depends on, by the windows before it.

    A window of `k` taps, `rate` features apart on a map of stride `s`, adds `(k - 1) * rate * s`
    pixels; where branches meet, the largest counts. Means over the whole map, as in the pyramid and
    in squeeze-and-excitation, see everything and are left out. What matters in practice is less:
    the middle weighs more than the rim (Luo et al. 2016).

    Args:
        model: of `encoder` or `model`.
        layer: name of a layer before the decoder, for instance "aspp_rate_6_depthwise_conv".

    Returns:
        The side in pixels; part of it lies outside of an image that is smaller.

    Raises:
        ValueError: for a layer that there is not, or that is behind an enlargement.

    Taught in: segmentation with DeepLab
    """
    seen = {}  # side and stride of each map
    for one in model.layers:
        if isinstance(one, Upsampling) and one.stride > 1:
            break
        given = [seen.get(id(tensor), (1, 1)) for tensor in keras.tree.flatten(one.input)]
        side, stride = max(given, default=(1, 1))
        names = ("kernel_size", "dilation_rate", "strides")
        taps, rate, step = (getattr(one, name, (1,))[0] for name in names)
        side += (taps - 1) * rate * stride
        seen[id(one.output)] = side, stride * step
        if one.name == layer:
            return side
    raise ValueError(f"there is no layer {layer!r} before the decoder")
