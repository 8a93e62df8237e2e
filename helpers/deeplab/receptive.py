"""How much of the image one feature sees."""

from __future__ import annotations

import keras

from helpers.deeplab.dilation import Conv
from helpers.deeplab.layers import CentredMaxPooling2D, Upsampling


def receptive_field(model: keras.Model, layer: str) -> int:
    """Side of the square of pixels that a feature depends on, by the windows before it.

    A window of `k` taps, `dilation` features apart on a map of stride `s`, adds
    `(k - 1) * dilation * s` pixels; where branches meet, the largest counts. Means over the whole
    map, as in the pyramid and in squeeze-and-excitation, see everything and are left out. What
    matters in practice is less: the middle weighs more than the rim (Luo et al. 2016).

    Args:
        model: of `encoder` or `model`.
        layer: name of a layer before the decoder, for instance "aspp_rate_6_depthwise_conv".

    Returns:
        The side in pixels; part of it lies outside of an image that is smaller.

    Raises:
        ValueError: for a layer that there is not, and for one behind an enlargement.
    """
    names = [one.name for one in model.layers]
    if layer not in names:
        raise ValueError(f"there is no layer {layer!r}; see [one.name for one in model.layers]")
    seen: dict[int, tuple[int, int] | None] = {}  # side and stride of each map
    for one in model.layers:
        inputs = one.input if isinstance(one.input, list) else [one.input]
        given = [found for tensor in inputs if (found := seen.get(id(tensor)))]
        if isinstance(one, keras.layers.InputLayer):
            found = (1, 1)
        elif isinstance(one, (keras.layers.GlobalAveragePooling2D, Upsampling)) or not given:
            found = None
        else:
            found = _through(one, *max(given))
        seen[id(one.output)] = found
        if one.name == layer:
            break
    if found is None:
        raise ValueError(f"{layer!r} is a mean over the whole map, or behind an enlargement")
    return found[0]


def _through(layer: keras.layers.Layer, side: int, stride: int) -> tuple[int, int]:
    """Side and stride behind a layer."""
    if isinstance(layer, CentredMaxPooling2D):
        taps, strides, dilation = layer.pool_size, layer.strides, layer.dilation_rate
    elif isinstance(layer, Conv):
        taps, strides, dilation = layer.kernel_size[0], layer.strides[0], layer.dilation_rate[0]
    else:
        return side, stride
    return side + (taps - 1) * dilation * stride, stride * strides
