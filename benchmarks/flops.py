"""Floating-point operations of a network, counted from the convolutions of its graph.

The rule is the usual one: a multiplication and an addition are two operations, and a tap of a
kernel that falls on padding counts like any other. What a graph does beside (normalisation,
activations, enlargement, the optimizer's update) is left out, whoever does it.

TensorFlow makes an atrous convolution of three operations: positions that a kernel looks at
together are moved together (SpaceToBatchND), a plain convolution runs over them and over padding
that evens out their number, and all is moved back (BatchToSpaceND). Counted are the positions of
the result, so the padding costs time here, and no work.
"""

import math

COUNTED = ("Conv2D", "DepthwiseConv2dNative")
REFUSED = ("Conv", "MatMul", "Einsum", "Call", "Case", "If", "While")


def count(graph) -> tuple[int, int]:
    """Operations of a forward pass, and of the backward pass that goes with it.

    Each convolution takes the positions of its result, times the numbers in its kernel, times two;
    so does each of its gradients, for its kernel and for its input, where something before it
    learns.

    Args:
        graph: `FuncGraph` of a forward pass, with all shapes known.

    Raises:
        ValueError: for an operation that may hold work of a kind that is not counted.
    """
    needed, waiting = set(), [tensor.op for tensor in graph.outputs]
    while waiting:  # TensorFlow leaves out what no result needs
        operation = waiting.pop()
        if operation not in needed:
            needed.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
    forward, backward, learn = 0, 0, set()
    for operation in graph.get_operations():  # each after those that it needs
        if operation.type == "ReadVariableOp" or any(x.op in learn for x in operation.inputs):
            learn.add(operation)
        if operation in needed and operation.type in COUNTED:
            result, kernel = operation.outputs[0], operation.inputs[1]
            moved = [one for one in result.consumers() if one.type == "BatchToSpaceND"]
            result = moved[0].outputs[0] if moved else result
            positions = math.prod(result.shape.as_list()[:-1])
            work = 2 * positions * math.prod(kernel.shape.as_list())
            forward += work
            backward += work * (1 + (operation.inputs[0].op in learn))
        elif operation in needed and any(word in operation.type for word in REFUSED):
            raise ValueError(f"{operation.name}: work inside of {operation.type} is not counted")
    return forward, backward
