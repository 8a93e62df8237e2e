"""The layers that Keras has not got: most keep track of where a feature lies in the image.

They go by one rule: the feature at position `i` of a map with stride `s` is centred on the
pixel `s * i`, whatever the size of the image. A map of `n` pixels has `ceil(n / s)` features.

import helpers.deeplab                             # then Keras knows what was saved
model = keras.saving.load_model("model.keras")
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="helpers")
class ChannelNormalization(keras.layers.Normalization):
    """Keras' `Normalization`, which refuses images with other channels than the model's.

    Keras' own would spread one channel over the means of three, and nobody would notice.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: input_shape[-1]})


@keras.saving.register_keras_serializable(package="helpers")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation over `[b, y, x, c]` in one operation each way, in place of many.

    Same weights, numbers and moving averages, but for rounding. Keras 3 composes the normalisation
    of elementwise operations, which pass over the map about a dozen times; TensorFlow has one for
    the whole (`FusedBatchNormV3`) and one for its gradient. What these cannot do (another axis, no
    scale, averages over several devices or in anything but float32) is left to Keras.
    """

    def call(self, inputs, training=None, mask=None):
        learning = bool(training) and self.trainable
        renorm = getattr(self, "renorm", False)  # Keras 3.10 has none
        usual = self.scale and self.center and not renorm and not self.synchronized
        usual = usual and self.variable_dtype == "float32"  # so it is under mixed policies
        if mask is not None or not usual or len(inputs.shape) != 4 or self.axis not in (-1, 3):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            mean=None if learning else tf.convert_to_tensor(self.moving_mean),
            variance=None if learning else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            # It divides by n - 1, Keras by n.
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
            variance *= (count - 1) / count
            for average, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(average * self.momentum + found * (1.0 - self.momentum))
        return ops.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable(package="helpers")
class Upsampling(keras.layers.Layer):
    """Bilinear enlargement of features to the grid of a finer map or of the image.

    Pixel `p` takes the value at position `p / stride`. Where the size is `k * stride + 1`, as the
    paper's 513 is, this is TensorFlow's `align_corners=True`, which the paper's code uses. At any
    other size `align_corners` would stretch the map; here the grid stays where it is, and what lies
    beyond the last feature repeats it. `keras.layers.UpSampling2D` puts pixel 0 at position
    `0.5 / stride - 0.5` instead: features of stride 16 would move by 7.5 pixels.

    Args:
        stride: of the features against the grid that they are brought to.

    Called with `[features, finer]`: `[b, h, w, c]`, and `[b, y, x, any]` where `h = ceil(y /
    stride)`. Returns `[b, y, x, c]` in the layer's compute dtype.
    """

    def __init__(self, stride: int, **options) -> None:
        super().__init__(**options)
        self.stride = stride

    def call(self, inputs):
        features, finer = inputs
        shape, size = tf.shape(features), tf.shape(finer)
        # Without either flag the op reads at p / stride. It answers in float32, always.
        large = tf.raw_ops.ResizeBilinear(
            images=features,
            size=shape[1:3] * self.stride,
            align_corners=False,
            half_pixel_centers=False,
        )
        return ops.cast(large[:, : size[1], : size[2]], self.compute_dtype)

    def compute_output_shape(self, input_shape):
        features, finer = input_shape
        return (features[0], *finer[1:3], features[3])

    def get_config(self) -> dict:
        return super().get_config() | {"stride": self.stride}


@keras.saving.register_keras_serializable(package="helpers")
class Spread(keras.layers.Layer):
    """One feature for the whole image, repeated at every position of a map.

    Called with `[pooled, features]`: `[b, 1, 1, c]` and `[b, h, w, any]`. Returns `[b, h, w, c]`.
    """

    def call(self, inputs):
        pooled, features = inputs
        size = tf.shape(features)[1:3]
        return tf.broadcast_to(
            pooled, tf.concat([tf.shape(pooled)[:1], size, tf.shape(pooled)[3:]], 0)
        )

    def compute_output_shape(self, input_shape):
        pooled, features = input_shape
        return (pooled[0], *features[1:3], pooled[3])


@keras.saving.register_keras_serializable(package="helpers")
class CentredMaxPooling2D(keras.layers.Layer):
    """Maximum over windows that are centred on the pixels `strides * i`, with atrous windows.

    Keras' "same" moves the windows by a pixel where the size is even, and knows no dilation.

    Args:
        pool_size: side of the window, odd.
        strides: from one window to the next.
        dilation_rate: from one pixel of a window to the next.

    Called with `[b, h, w, c]`. Returns `[b, ceil(h / strides), ceil(w / strides), c]`.
    """

    def __init__(self, pool_size: int, strides: int = 1, dilation_rate: int = 1, **options) -> None:
        super().__init__(**options)
        self.pool_size = pool_size
        self.strides = strides
        self.dilation_rate = dilation_rate

    def call(self, inputs):
        margin = self.dilation_rate * (self.pool_size // 2)
        sides = [[0, 0], [margin, margin], [margin, margin], [0, 0]]
        padded = ops.pad(inputs, sides, constant_values=-math.inf)
        if self.dilation_rate == 1:
            return ops.max_pool(padded, self.pool_size, self.strides, padding="valid")
        # A maximum over rows, then over columns: shifted copies in place of an atrous window.
        for axis in (1, 2):
            size = tf.shape(inputs)[axis]
            starts = range(0, 2 * margin + 1, self.dilation_rate)
            rows = [tf.range(start, start + size, self.strides) for start in starts]
            shifted = [tf.gather(padded, row, axis=axis) for row in rows]
            padded = shifted[0]
            for other in shifted[1:]:
                padded = ops.maximum(padded, other)
        return padded

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        sides = [None if side is None else -(-side // self.strides) for side in sides]
        return (batch, *sides, channels)

    def get_config(self) -> dict:
        return super().get_config() | {
            "pool_size": self.pool_size,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
        }
