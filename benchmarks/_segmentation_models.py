"""DeepLab in the segmentation benchmark: the course's, and keras-hub's with several encoders.

A worker holds one network. `forward` and `training` make one step for each item, whose loss is the
item: nobody can give it without having done the work. `facts` tells what is compared, `learning` is
a longer training on one batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from _segmentation_flops import count
from _segmentation_inputs import CLASSES, LEARNT_IN, LOW_LEVEL_WIDTH, OUTPUT_STRIDE, WIDTH

from helpers import deeplab, quiet

quiet.tensorflow_greeting()
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

SEED = 1
RATE, MOMENTUM = 0.01, 0.9  # of the gradient descent that DeepLab is trained with
RESNET50 = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128, 256, 512],
    "stackwise_num_blocks": [3, 4, 6, 3],
    "block_type": "bottleneck_block",
}


def ours(backbone: str, shape: tuple[int, int, int]) -> tuple[keras.Model, tuple]:
    """The course's network, and the shape of the features that its pyramid takes."""
    network = deeplab.model(
        len(CLASSES),
        backbone=backbone,
        input_shape=shape,
        output_stride=OUTPUT_STRIDE,
        aspp_width=WIDTH,
        decoder_width=WIDTH,
        low_level_width=LOW_LEVEL_WIDTH,
    )
    return network, network.get_layer("aspp_concat").input[0].shape


def same_encoder(backbone: str, shape: tuple[int, int, int]) -> tuple[keras.Model, tuple]:
    """keras-hub's pyramid and decoder on the course's encoder, which has atrous convolution."""
    encoder = deeplab.encoder(backbone, input_shape=shape, output_stride=OUTPUT_STRIDE)
    fine, deep = encoder.output["low_level"], encoder.output["features"]
    return _keras_hub(encoder.inputs, {"P2": fine, "P4": deep}, shape)


def stride_16(backbone: str, shape: tuple[int, int, int]) -> tuple[keras.Model, tuple]:
    """keras-hub's own ResNet, whose last stage has stride 1; it knows no dilation.

    The stage is called P5 there, and P5 is taken to have stride 32 by what comes after.
    """
    base = _resnet(backbone, [1, 2, 2, 1], shape)
    fine, deep = base.pyramid_outputs["P2"], base.pyramid_outputs["P5"]
    return _keras_hub(base.inputs, {"P2": fine, "P4": deep}, shape)


def stride_32(backbone: str, shape: tuple[int, int, int]) -> tuple[keras.Model, tuple]:
    """keras-hub's own ResNet as in the example of its documentation."""
    base = _resnet(backbone, [1, 2, 2, 2], shape)
    fine, deep = base.pyramid_outputs["P2"], base.pyramid_outputs["P5"]
    return _keras_hub(base.inputs, {"P2": fine, "P5": deep}, shape)


def _resnet(backbone: str, strides: list[int], shape: tuple[int, int, int]) -> keras.Model:
    import keras_hub

    if backbone != "ResNet50":
        raise ValueError(f"keras-hub has no {backbone} with features of several strides")
    return keras_hub.models.ResNetBackbone(
        **RESNET50, stackwise_num_strides=strides, image_shape=shape
    )


def _keras_hub(inputs, pyramid: Mapping, shape: tuple[int, int, int]) -> tuple[keras.Model, tuple]:
    """keras-hub's DeepLabV3+ on two maps; it takes any model with `pyramid_outputs`."""
    import keras_hub

    fine, deep = pyramid
    encoder = keras.Model(inputs, list(pyramid.values()))
    encoder.pyramid_outputs = dict(pyramid)
    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=encoder,
        spatial_pyramid_pooling_key=deep,
        upsampling_size=2 ** (int(deep[1]) - 2),
        dilation_rates=[6, 12, 18],
        low_level_feature_key=fine,
        projection_filters=LOW_LEVEL_WIDTH,
        image_shape=shape,
    )
    network = keras_hub.models.DeepLabV3ImageSegmenter(backbone, num_classes=len(CLASSES))
    return network, pyramid[deep].shape


BUILD: dict[str, Callable[..., tuple[keras.Model, tuple]]] = {
    "ours": ours,
    "same encoder": same_encoder,
    "stride 16": stride_16,
    "stride 32": stride_32,
}


class Trained:
    """A network, a batch, and one step of it as graphs of fixed shapes."""

    def __init__(self, job: Mapping) -> None:
        keras.utils.set_random_seed(SEED)
        shape = (*job["size"], 3)
        self.network, self.features = BUILD[job["build"]](job["backbone"], shape)
        random = np.random.default_rng(SEED)
        images = random.integers(0, 156, (job["batch"], *shape))
        masks = np.zeros((*images.shape[:-1], 1), np.uint8)
        masks[:, shape[0] // 4 : 3 * shape[0] // 4, shape[1] // 4 : 3 * shape[1] // 4] = 1
        self.images = tf.constant(images + 100 * masks, tf.float32)  # something to learn
        self.masks = tf.constant(masks)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
        optimizer = keras.optimizers.SGD(RATE, MOMENTUM)
        optimizer.build(self.network.trainable_variables)

        def forward(images, masks):
            return loss(masks, self.network(images, training=True))

        def training(images, masks):
            with tf.GradientTape() as tape:
                value = forward(images, masks)
            variables = self.network.trainable_variables
            optimizer.apply(tape.gradient(value, variables), variables)
            return value

        specs = [tf.TensorSpec(one.shape, one.dtype) for one in (self.images, self.masks)]
        self.graphs = {
            step.__name__: tf.function(step, autograph=False).get_concrete_function(*specs)
            for step in (forward, training)
        }

    def steps(self, name: str, number: int) -> Iterator[tuple[np.ndarray]]:
        """The loss of each step, on the same batch."""
        graph = self.graphs[name]
        for _ in range(number):
            # Eight bytes: the checksum of fewer is the sum of single bytes.
            yield (graph(self.images, self.masks).numpy().astype(np.float64),)

    def facts(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Operations forward and in training; parameters; shapes of logits and of features."""
        operations = [count(self.graphs[name].graph) for name in ("forward", "training")]
        logits = self.network(self.images, training=False)
        yield (
            np.array([*operations, self.network.count_params()], np.int64),
            np.array(logits.shape),
            np.array(self.features[1:3]),
        )


def contenders(job: Mapping) -> dict:
    made = functools.cache(lambda: Trained(job))

    def passes(name: str, number: int = job["steps"] + job["lead"]):
        made()
        return lambda: made().steps(name, number)

    return {
        "forward": lambda: passes("forward"),
        "training": lambda: passes("training"),
        "learning": lambda: passes("training", LEARNT_IN),
        "facts": lambda: made().facts,
    }
