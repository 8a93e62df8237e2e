"""keras-hub's DeepLabV3+, on the course's encoder and on its own."""

import functools

import keras
import keras_hub

from contenders import networks
from contenders.networks import CLASSES, LOW_LEVEL_CHANNELS, OUTPUT_STRIDE
from helpers import deeplab

RESNET50 = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128, 256, 512],
    "stackwise_num_blocks": [3, 4, 6, 3],
    "block_type": "bottleneck_block",
}


def segmenter(inputs, pyramid: dict, shape: tuple[int, int, int]) -> tuple[keras.Model, tuple]:
    """Its pyramid and decoder on two maps: it takes any model with `pyramid_outputs`."""
    fine, deep = pyramid
    encoder = keras.Model(inputs, list(pyramid.values()))
    encoder.pyramid_outputs = pyramid
    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=encoder, spatial_pyramid_pooling_key=deep, low_level_feature_key=fine,
        upsampling_size=2 ** (int(deep[1]) - 2), dilation_rates=[6, 12, 18],
        projection_filters=LOW_LEVEL_CHANNELS, image_shape=shape,
    )  # fmt: skip
    network = keras_hub.models.DeepLabV3ImageSegmenter(backbone, num_classes=CLASSES)
    return network, pyramid[deep].shape


def our_encoder(job):
    """The course's encoder has atrous convolution."""
    shape = (*job["size"], 3)
    encoder = deeplab.encoder(job["backbone"], input_shape=shape, output_stride=OUTPUT_STRIDE)
    maps = {"P2": encoder.output["low_level"], "P4": encoder.output["features"]}
    return segmenter(encoder.inputs, maps, shape)


def its_encoder(job, last):
    """Its own ResNet: stride 2 in the last stage, as in its documentation, or 1.

    It knows no dilation. The stage is called P5, which is taken to have stride 32 by what comes
    after; with stride 1 it is given as P4.
    """
    shape = (*job["size"], 3)
    strides = {"stackwise_num_strides": [1, 2, 2, last], "image_shape": shape}
    base = keras_hub.models.ResNetBackbone(**RESNET50, **strides)
    fine, deep = base.pyramid_outputs["P2"], base.pyramid_outputs["P5"]
    return segmenter(base.inputs, {"P2": fine, f"P{3 + last}": deep}, shape)


BUILD = {
    "our encoder": our_encoder,
    "its encoder": functools.partial(its_encoder, last=1),
    "output stride 32": functools.partial(its_encoder, last=2),
}


def step(job, graph, encoder):
    return networks.step(job, graph, BUILD[encoder])


def told(job, encoder):
    return networks.told(job, BUILD[encoder])
