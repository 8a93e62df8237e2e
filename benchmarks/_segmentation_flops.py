"""Floating-point operations of a graph, counted from its convolutions and matrix products.

The rule is the usual one: a multiplication and an addition are two operations, and a tap of a
kernel that falls on padding counts like any other. What a graph does beside (normalisation,
activations, enlargement, the optimizer's update) is left out, whoever does it.

TensorFlow makes an atrous convolution of three operations: positions that a kernel looks at
together are moved together (SpaceToBatchND), a plain convolution runs over them and over padding
that evens out their number, and all is moved back (BatchToSpaceND). Counted are the positions of
the result, so the padding costs time here, and no work.
"""

from __future__ import annotations

import math

from helpers import quiet

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

FORWARD = ("Conv2D", "DepthwiseConv2dNative")
TO_INPUT = ("Conv2DBackpropInput", "DepthwiseConv2dNativeBackpropInput")
TO_KERNEL = ("Conv2DBackpropFilter", "DepthwiseConv2dNativeBackpropFilter")
PRODUCTS = {"MatMul": "transpose_a", "BatchMatMul": "adj_x", "BatchMatMulV2": "adj_x"}
CALLS = ("Case", "If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf")
CALLS += ("StatelessWhile", "While")


def count(graph) -> int:
    """Floating-point operations of one run of a graph.

    A convolution and both of its gradients take the same: positions of its result, times the
    numbers in its kernel, times two. For a depthwise one as well, whose kernel is `[y, x, channels,
    multiplier]`, and for a grouped one, whose kernel has the channels of a group.

    Args:
        graph: `FuncGraph` of a concrete function, with all shapes known.

    Returns:
        Their number.

    Raises:
        ValueError: for an operation that may hold work of a kind that is not counted, and for
            shapes that are not known.
    """
    return 2 * sum(map(_multiply_adds, _run(graph)))


def _run(graph) -> set[tf.Operation]:
    """What results need, and what has to happen: TensorFlow leaves out the rest.

    Gradients for the image are such a rest, and stages of an encoder that nobody looks at.
    """
    found: set[tf.Operation] = set()
    waiting = [*(tensor.op for tensor in graph.outputs), *graph.control_outputs]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
            waiting += operation.control_inputs
    return found


def _multiply_adds(operation: tf.Operation) -> int:
    kind = operation.type
    if kind in PRODUCTS:
        left = _shape(operation.inputs[0])
        shared = left[-2] if operation.get_attr(PRODUCTS[kind]) else left[-1]
        return math.prod(_shape(operation.outputs[0])) * shared
    if kind in (*FORWARD, *TO_INPUT, *TO_KERNEL):
        if operation.get_attr("data_format") != b"NHWC":
            raise ValueError(f"{operation.name}: channels come last here")
        if kind in FORWARD:
            result, kernel = _moved_back(operation.outputs[0]), operation.inputs[1]
        else:
            result = _before_it_was_moved(operation.inputs[2])
            kernel = operation.inputs[1] if kind in TO_INPUT else operation.outputs[0]
        return math.prod(_shape(result)[:-1]) * math.prod(_shape(kernel))
    if kind in CALLS or any(word in kind for word in ("Conv", "MatMul", "Einsum")):
        raise ValueError(f"{operation.name}: work inside of {kind} is not counted")
    return 0


def _moved_back(result: tf.Tensor) -> tf.Tensor:
    """The result of an atrous convolution in place of that of the plain one inside of it."""
    for consumer in result.consumers():
        if consumer.type == "BatchToSpaceND":
            return consumer.outputs[0]
    return result


def _before_it_was_moved(gradient: tf.Tensor) -> tf.Tensor:
    """The gradient with respect to the result of an atrous convolution, likewise."""
    moved = gradient.op.type == "SpaceToBatchND"
    return gradient.op.inputs[0] if moved else gradient


def _shape(tensor: tf.Tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{tensor.name} has shape {tensor.shape}; all sizes have to be known")
    return tensor.shape.as_list()
