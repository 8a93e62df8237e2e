"""The layers that Keras has not got: most keep track of where a feature lies in the image.

They go by one rule: feature `i` of a map with stride `s` is centred on pixel `s * i`, whatever the
size of the image. A map of `n` pixels has `ceil(n / s)` features.

    import helpers.deeplab                                # then Keras knows what was saved
    model = keras.saving.load_model("model.keras")
"""

import keras
import tensorflow as tf
from keras import layers, ops

saved = keras.saving.register_keras_serializable(package="helpers")


@saved
class FusedBatchNormalization(layers.BatchNormalization):
    """Keras' batch normalisation over `[b, y, x, c]` in one operation each way, in place of many.

    Same weights, numbers and moving averages, but for rounding. Keras 3 composes the normalisation
    of elementwise operations, which pass over the map about a dozen times; TensorFlow has one for
    the whole (`FusedBatchNormV3`) and one for its gradient. What these cannot do is not for this
    layer: another axis, no scale or no shift, averages over several devices or not in float32.

    Taught in: no lesson; every batch normalisation of `deeplab.model` is one
    """

    def call(self, inputs, training=None):
        """Normalise `inputs`, in `training` by the batch, else by the moving averages."""
        learning = bool(training) and self.trainable
        moving = [self.moving_mean, self.moving_variance]
        state = [self.gamma, self.beta] + ([] if learning else moving)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            *map(tf.convert_to_tensor, state),
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
            variance *= (count - 1) / count  # it divides by n - 1, Keras by n
            for average, new in zip(moving, (mean, variance), strict=True):
                average.assign(average * self.momentum + new * (1.0 - self.momentum))
        return ops.cast(outputs, self.compute_dtype)


@saved
class CentredMaxPooling2D(layers.MaxPooling2D):
    """Maximum over windows that are centred on the pixels `strides * i`, with atrous windows.

    Keras' "same" moves the windows by a pixel where the size is even, and knows no dilation.

    Args:
        dilation_rate: from one pixel of a window to the next; above 1 `strides` has to be 1.
        options: as for Keras' own, with an odd `pool_size`.

    Called with `[b, h, w, c]`. Returns `[b, ceil(h / strides), ceil(w / strides), c]`.

    Taught in: no lesson; ResNet50 and Xception have such poolings
    """

    def __init__(self, *, dilation_rate=1, **options):
        super().__init__(**options | {"padding": "same"})
        self.dilation_rate = (dilation_rate, dilation_rate)
        self.kernel_size = self.pool_size

    def call(self, inputs):
        """The maxima, `[b, y, x, c]`."""
        sides = [self.dilation_rate[0] * (self.pool_size[0] // 2)] * 2
        padded = tf.pad(inputs, [[0, 0], sides, sides, [0, 0]], constant_values=inputs.dtype.min)
        how = {"strides": self.strides, "dilations": self.dilation_rate}
        return tf.nn.pool(padded, self.pool_size, "MAX", padding="VALID", **how)

    def get_config(self):
        """What Keras saves."""
        return super().get_config() | {"dilation_rate": self.dilation_rate[0]}


@saved
class Upsampling(layers.Layer):
    """Bilinear enlargement of features to the grid of a finer map or of the image.

    Pixel `p` takes the value at position `p / stride`. Where the size is `k * stride + 1`, as the
    paper's 513 is, this is TensorFlow's `align_corners=True`, which the paper's code uses. At any
    other size `align_corners` would stretch the map; here the grid stays where it is, and what lies
    beyond the last feature repeats it. `keras.layers.UpSampling2D` puts pixel 0 at position
    `0.5 / stride - 0.5` instead: features of stride 16 would move by 7.5 pixels.

    Args:
        stride: of the features against the grid that they are brought to.
        options: as for any layer.

    Called with `[features, finer]`: `[b, h, w, c]`, and `[b, y, x, any]` where `h = ceil(y /
    stride)`; or a single feature, 1 x 1, which is spread over the finer map. Returns `[b, y, x, c]`
    in the layer's compute dtype.

    Taught in: segmentation with DeepLab
    """

    def __init__(self, stride, **options):
        super().__init__(**options)
        self.stride = stride

    def call(self, inputs):
        """The features on the finer grid, `[b, y, x, c]`."""
        # In float32: XLA has no gradient of this for half precision.
        features, size = tf.cast(inputs[0], tf.float32), tf.shape(inputs[1])
        large = tf.maximum(tf.shape(features)[1:3] * self.stride, size[1:3])
        enlarged = tf.raw_ops.ResizeBilinear(images=features, size=large)  # reads at p / stride
        return ops.cast(enlarged[:, : size[1], : size[2]], self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """That of the finer map, with the channels of the features."""
        return (*input_shape[1][:3], input_shape[0][3])
