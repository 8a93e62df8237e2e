"""A classifier's network becomes an encoder of a chosen stride: strides turn into dilation.

Where a stride would make the map smaller than asked for, it is left out, and every kernel after it
looks at features that are so many times further apart. Taken at every second position, the map is
then the one that the stride would have made, so trained weights keep their meaning (Chen et al.
2018, "DeepLab", section 3.1; Holschneider's algorithme à trous). Squeeze-and-excitation is the one
exception: its mean over the map is now one over more positions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import keras

from helpers.deeplab.layers import CentredMaxPooling2D, FusedBatchNormalization

Conv = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
POINTWISE = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.Multiply,
    keras.layers.ReLU,
    keras.layers.Reshape,
)
COUNTED = re.compile(r"(add|batch_normalization|conv2d)(?:_\d+)?")  # named by Keras, not by hand


@dataclasses.dataclass(frozen=True)
class Grid:
    """How the features of a map lie in the image."""

    stride: int  # pixels of the image from one feature to the next
    dilation: int  # features from one tap of the next kernel to its neighbour


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the network as it was made anew: its output, and the grid of that.

    `grid` is None for what has no positions any more, as in squeeze-and-excitation.
    """

    output: keras.KerasTensor
    grid: Grid | None


def rebuild(
    base: keras.Model,
    images: keras.KerasTensor,
    output_stride: int,
    *,
    last: str,
    change: Callable[[keras.layers.Layer, dict], dict] = lambda layer, config: config,
) -> dict[str, Layer]:
    """The network `base` on other images, with no stride above `output_stride`.

    Every window, strided or not, is centred on its pixel: explicit paddings are taken out and put
    in anew on both sides. `keras.applications` does the same at sizes of `32 k + 1`, and moves all
    by a pixel at even sizes; so features of all backbones lie on one grid at all sizes, and trained
    weights mean what they meant, but for a shift of the image.

    Args:
        base: a functional model of convolutions with odd kernels, of poolings and of operations on
            single positions; one input, one output.
        images: `[b, y, x, c]`, as `base` takes them, of any size.
        output_stride: the largest stride, a power of 2.
        last: name of the layer in `base` that is the last one to be made.
        change: from a layer and its config to the config that the new one gets.

    Returns:
        The new layers by name, in the order of the network. Names are those of `base`, except that
        names which Keras counts over a whole session ("conv2d_7") are counted within this network.
        The weights are those of `base`.

    Raises:
        ValueError: for a layer of a kind that is not known to keep its meaning.
    """
    names = _names(base)
    known = {id(base.input): Layer(images, Grid(1, 1))}
    made: dict[str, Layer] = {}
    for layer in base.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        given = [known[id(one)] for one in inputs]
        if isinstance(layer, keras.layers.ZeroPadding2D):
            known[id(layer.output)] = given[0]  # the window after it brings its own
            continue
        name = names[layer.name]
        config = change(layer, layer.get_config() | {"name": name})
        done = _make(layer, config, given, output_stride)
        known[id(layer.output)] = made[name] = done
        if layer.name == last:
            break
    return made


def _make(layer: keras.layers.Layer, config: dict, given: list[Layer], output_stride: int) -> Layer:
    """One layer made anew on what was made before it."""
    outputs = [one.output for one in given]
    grids = {one.grid for one in given} - {None}
    if len(grids) > 1:
        raise ValueError(f"layer {layer.name} joins maps of different grids: {grids}")
    grid = next(iter(grids), None)
    if isinstance(layer, (*Conv, keras.layers.MaxPooling2D)) and grid is not None:
        return _window(layer, config, outputs[0], grid, output_stride)
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        grid = None
    elif not isinstance(layer, (*POINTWISE, *Conv)):
        raise ValueError(f"layer {layer.name}: {type(layer).__name__} cannot be dilated")
    return Layer(_copy(layer, config, outputs if len(outputs) > 1 else outputs[0]), grid)


def _window(
    layer: keras.layers.Layer,
    config: dict,
    features: keras.KerasTensor,
    grid: Grid,
    output_stride: int,
) -> Layer:
    """A convolution or pooling, with its stride or with dilation in the place of it."""
    size, strides = window(layer)
    keep = grid.stride * strides <= output_stride
    after = Grid(grid.stride * (strides if keep else 1), grid.dilation * (1 if keep else strides))
    strides = strides if keep else 1
    if isinstance(layer, keras.layers.MaxPooling2D):
        pool = CentredMaxPooling2D(
            size, strides, grid.dilation, name=config["name"], dtype=config["dtype"]
        )
        return Layer(pool(features), after)
    config = config | {"strides": (strides, strides), "padding": "same"}
    if size > 1:
        config["dilation_rate"] = (grid.dilation, grid.dilation)
    if size > 1 and strides > 1:  # "same" would be lopsided at even sizes
        config["padding"] = "valid"
        pad = keras.layers.ZeroPadding2D(size // 2, name=f"{config['name']}_padding")
        features = pad(features)
    return Layer(_copy(layer, config, features), after)


def window(layer: keras.layers.Layer) -> tuple[int, int]:
    """Side and stride of a layer's window; square, and odd, or a centre would not exist."""
    sides = layer.kernel_size if isinstance(layer, Conv) else layer.pool_size
    if len({*sides}) > 1 or len({*layer.strides}) > 1 or sides[0] % 2 == 0:
        raise ValueError(f"layer {layer.name} has windows of {sides}; expected odd squares")
    if isinstance(layer, Conv) and {*layer.dilation_rate} != {1}:
        raise ValueError(f"layer {layer.name} is dilated by {layer.dilation_rate} already")
    return sides[0], layer.strides[0]


def _copy(layer: keras.layers.Layer, config: dict, inputs):
    """The layer of that config on those inputs, with the weights of the old one."""
    kind = type(layer)
    if kind is keras.layers.BatchNormalization:
        kind = FusedBatchNormalization
    new = kind.from_config(config)
    outputs = new(inputs)
    if layer.weights:
        new.set_weights(layer.get_weights())
    return outputs


def _names(base: keras.Model) -> dict[str, str]:
    """Names that are the same in every session."""
    names, counts = {}, {}
    for layer in base.layers:
        automatic = COUNTED.fullmatch(layer.name)
        kind = automatic[1] if automatic else ""
        counts[kind] = counts.get(kind, 0) + 1
        names[layer.name] = f"{kind}_{counts[kind]}" if automatic else layer.name
    return names
