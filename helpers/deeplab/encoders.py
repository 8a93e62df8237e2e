"""The encoder: any of four networks of `keras.applications`, where strides turn into dilation.

Where a stride would make the map coarser than asked for, it is left out, and every kernel after it
looks at features that are so many times further apart. Taken at every second position, the map is
then the one that the stride would have made, so trained weights keep their meaning (Chen et al.
2018, "DeepLab", section 3.1; Holschneider's algorithme à trous). Squeeze-and-excitation is the one
exception: its mean over the map is now one over more positions.
"""

import re

import keras
import numpy as np
from keras import layers

from helpers.deeplab.layers import CentredMaxPooling2D, FusedBatchNormalization

BUILT_AT = 224  # pixels; no layer's weights depend on it
EPSILON = 1e-5  # of batch normalisations, as in the paper
HALF = [127.5, 127.5, 127.5]
CAFFE = [123.68, 116.779, 103.939]
TORCH = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
# The last layer at stride 4, with which the paper's decoder finds edges; the layer whose output is
# the features, for what serves classes only comes after it; mean and deviation of red, green and
# blue from 0 to 255, as the network was trained.
BACKBONES = {
    "MobileNetV2": ("block_3_expand_relu", "block_16_project_BN", HALF, HALF),
    "ResNet50": ("conv2_block3_out", "conv5_block3_out", CAFFE, [1, 1, 1]),
    "Xception": ("block3_sepconv2_bn", "block14_sepconv2_act", HALF, HALF),
    "EfficientNetV2B0": ("block2b_add", "block6h_add", *TORCH),
}
COUNTED = ("add", "batch_normalization", "conv2d")  # named by Keras, not by hand


def encoder(
    backbone="MobileNetV2",
    *,
    input_shape=(None, None, 3),
    output_stride=16,
    weights=None,
    value_range=(0.0, 255.0),
    batch_norm_momentum=0.9997,
    **options,
) -> keras.Model:
    """From images to the two maps that DeepLab takes: fine ones and deep ones.

    The first layer brings the images to the values that the network was trained with, so images
    come as they are in `value_range`. Strides beyond `output_stride` become dilation, see
    `stride_to_rate`; the layers keep their names.

    Args:
        backbone: "MobileNetV2", "ResNet50", "Xception" or "EfficientNetV2B0". MobileNetV2 and
            EfficientNetV2B0 end before the last 1x1 convolution, which widens the features for a
            thousand classes (as the paper's MobileNetV2 does).
        input_shape: height, width and channels; None for sides of any length.
        output_stride: pixels of the image from one deep feature to the next, 16 or 8; 32 is the
            network without atrous convolution, for comparison.
        weights: None for random ones; "imagenet", which Keras downloads; or a file of the weights
            of the network without its top. With trained weights one channel is repeated to three,
            which is exact: a first kernel summed over its channels would be exact only where all
            three are normalised alike.
        value_range: lowest and highest value of the images: (0, 255) for photographs, (0, 1) for CT
            after a window to that range.
        batch_norm_momentum: of all batch normalisations; the paper's value is for long training, in
            a few hundred steps take 0.9. (Their epsilon is 1e-5; trained weights keep their own.)
        options: of the network in `keras.applications`, for instance `alpha`, MobileNetV2's width.

    Returns:
        A model with outputs `low_level` `[b, ceil(y / 4), ceil(x / 4), c]`, the last map of stride
        4, and `features` `[b, ceil(y / output_stride), ceil(x / output_stride), c]`.

    Raises:
        ValueError: for another backbone or output stride.

    Taught in: segmentation with DeepLab
    """
    if backbone not in BACKBONES or output_stride not in (8, 16, 32):
        raise ValueError(f"expected {', '.join(BACKBONES)} at output stride 8, 16 or 32")
    *names, mean, deviation = BACKBONES[backbone]
    norm = {"momentum": batch_norm_momentum}
    images = keras.Input(tuple(input_shape), name="image")
    given, channels = images, input_shape[-1]
    if weights is None:
        norm["epsilon"] = EPSILON
    elif channels == 1:
        # Values of 16 bits are infinite in half precision; what follows brings them near 0.
        given = layers.Concatenate(dtype="float32", name="grey_to_rgb")([images] * 3)
        channels = 3
    low, high = value_range
    scale = (high - low) / 255
    normalise = layers.Normalization(
        mean=[low + one * scale for one in mean[:channels]],
        variance=[(one * scale) ** 2 for one in deviation[:channels]],
        dtype="float32",
        name="normalisation",
    )
    if backbone == "EfficientNetV2B0":
        options["include_preprocessing"] = False
    options |= {"include_top": False, "input_shape": (BUILT_AT, BUILT_AT, channels)}
    base = getattr(keras.applications, backbone)(weights=weights and str(weights), **options)
    if backbone == "ResNet50" and weights is not None:  # it was trained on blue, green, red
        first = base.get_layer("conv1_conv")
        kernel, *rest = first.get_weights()
        first.set_weights([kernel[:, :, ::-1], *rest])
    base = keras.Model(base.input, [base.get_layer(name).output for name in names])
    made = atrous(base, normalise(given), output_stride, norm)
    low_level, features = (made[id(end)] for end in base.outputs)
    outputs = {"low_level": low_level, "features": features}
    return keras.Model(images, outputs, name=f"{backbone.lower()}_encoder")


def stride_to_rate(before, after, output_stride):
    """Stride and rate of a layer, where no map may have a stride above `output_stride`.

    A window that makes 32 of 16 loses its stride at output stride 16. The next one, which stays at
    32, has its taps twice as far apart instead:

    >>> stride_to_rate(16, 32, 16), stride_to_rate(32, 32, 16)
    ((1, 1), (1, 2))

    Args:
        before, after: pixels between the features that the layer takes, and between those that it
            makes, in the network as it was.
        output_stride: the largest that is left.

    Returns:
        The layer's own stride, and how many features lie between two of its taps.

    Taught in: segmentation with DeepLab
    """
    stride = min(after, output_stride) // min(before, output_stride)
    rate = max(before // output_stride, 1)
    return stride, rate


def atrous(base, images, output_stride, norm):
    """The network `base` on other images, layer by layer, with no stride above `output_stride`.

    Every window, strided or not, is centred on its pixel: explicit paddings are taken out and put
    in anew on both sides. `keras.applications` does the same at sizes of `32 k + 1`, and moves all
    by a pixel at even sizes; so features of all backbones lie on one grid at all sizes, and trained
    weights mean what they meant, but for a shift of the image.

    Args:
        base: built for 224 x 224 pixels, so that a map of 7 x 7 tells its stride: 32.
        images: `[b, y, x, c]`, as `base` takes them, of any size.
        output_stride: the largest stride, a power of 2.
        norm: what batch normalisations are made with, for instance `momentum`.

    Returns:
        The new tensors, each by the `id` of the old one. Layers keep their names, except that what
        Keras counts over a whole session ("conv2d_7") is counted within this network.

    Taught in: segmentation with DeepLab
    """
    made = {id(base.input): images}
    for number, layer in enumerate(base.layers[1:]):
        given = keras.tree.map_structure(lambda tensor: made[id(tensor)], layer.input)
        if isinstance(layer, layers.ZeroPadding2D):  # the window after it brings its own
            made[id(layer.output)] = given
            continue
        stem = re.sub(r"_\d+$", "", layer.name)
        name = f"{stem}_{number}" if stem in COUNTED else layer.name
        new = remade(layer, name, output_stride, norm)
        if getattr(new, "padding", "same") == "valid":
            pad = layers.ZeroPadding2D(new.kernel_size[0] // 2, name=f"{name}_padding")
            given = pad(given)
        made[id(layer.output)] = new(given)
        new.set_weights(layer.get_weights())
    return made


def remade(layer, name, output_stride, norm):
    """A layer as it was, but for the stride and the rate of windows, and for normalisation.

    Args:
        layer: of a network of `keras.applications`, built for 224 x 224 pixels.
        name: of the new layer.
        output_stride: the largest stride that is left, see `stride_to_rate`.
        norm: what batch normalisations are made with, for instance `momentum`.

    Returns:
        The new layer, not yet built. A convolution with a stride has no padding: Keras' "same"
        would be lopsided at even sizes.

    Taught in: segmentation with DeepLab
    """
    kind, config = type(layer), layer.get_config() | {"name": name}
    if isinstance(layer, layers.BatchNormalization):
        kind, config = FusedBatchNormalization, config | norm
    elif hasattr(layer, "strides"):  # a window: a convolution or a pooling
        sides = [one.shape[1] for one in (layer.input, layer.output)]
        # 7 features of 224 pixels have stride 32; so have 8, one of which is padding.
        strides = [2 ** round(np.log2(BUILT_AT / side)) for side in sides]
        stride, rate = stride_to_rate(*strides, output_stride)
        single = config.get("kernel_size") == (1, 1)
        config |= {"strides": stride, "dilation_rate": 1 if single else rate}
        config["padding"] = "same" if single or stride == 1 else "valid"
        kind = CentredMaxPooling2D if isinstance(layer, layers.MaxPooling2D) else kind
    return kind.from_config(config)
