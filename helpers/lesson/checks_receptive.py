"""Check of notebook 06: how much of the image a value sees behind several layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from helpers.lesson.verdicts import VerdictError, ask_array, close, judged, wrong

TRIALS = 20
EMPTY = "without any layer a value sees its own pixel, 1"
SIMPLE = (
    [(3, 1, 1)],  # first, as it decides whether there is an answer at all
    [],
    [(3, 1, 1), (3, 1, 1)],
    [(3, 1, 2)],
    [(3, 2, 1)],
    [(3, 2, 1), (3, 1, 1)],
    [(3, 1, 1), (3, 2, 1)],
)


@judged
def receptive_field(answer: Callable) -> str:
    """Notebook 06: `answer(layers)` is the side in pixels of what one value behind them sees.

    `layers` is a list of (kernel, stride, dilation), the first layer first. A kernel of k taps, d
    values apart, adds (k - 1) d steps, and a step is the product of the strides before it (Araujo
    et al. 2019).
    """
    trials = list(_stacks(np.random.default_rng(73)))
    found = []
    for number, layers in enumerate(trials):
        try:
            found.append(float(ask_array(answer, layers, shape=())))
        except VerdictError as verdict:
            if number and verdict.line.startswith("✎"):
                raise wrong(
                    f"for {layers} you returned None; is a branch without return?"
                ) from None
            if not layers and isinstance(verdict.__cause__, Exception):
                raise wrong(f"{verdict.line[2:]}, for []: {EMPTY}") from verdict.__cause__
            raise
    expected = [_side(layers) for layers in trials]
    if not close(found, expected):
        raise wrong(_misjudged(found, expected, trials))
    return f"right on {len(trials)} stacks of layers that the check made up, strided and dilated"


def _stacks(rng: np.random.Generator) -> Iterator[list[tuple[int, int, int]]]:
    """Layers as (kernel, stride, dilation): none, one or two, then up to six."""
    yield from map(list, SIMPLE)
    for _ in range(TRIALS - len(SIMPLE)):
        layers = rng.choice([1, 3, 5], rng.integers(3, 7), p=[0.2, 0.6, 0.2]).tolist()
        # Pooling of 2 x 2 comes in as well.
        yield [
            (2, 2, 1)
            if rng.random() < 0.1
            else (kernel, int(rng.integers(1, 3)), int(rng.choice([1, 2, 4, 6])))
            for kernel in layers
        ]


def _added(kernel: int, stride: int, dilation: int) -> int:
    return (kernel - 1) * dilation


def _stride(kernel: int, stride: int, dilation: int) -> int:
    return stride


def _side(layers, adds: Callable = _added, grows: Callable = _stride, own: bool = False) -> int:
    """The side in pixels; `adds` and `grows` say what a layer adds and by what the step grows."""
    side, step = 1, 1
    for layer in layers:
        before, step = step, step * grows(*layer)
        side += adds(*layer) * (step if own else before)
    return side


def _misjudged(found: list[float], expected: list[int], trials: list) -> str:
    """What is wrong with the sides, by what would give the same on all stacks."""
    first = next(i for i in range(len(found)) if not close(found[i], expected[i]))
    said = f"for {trials[first]} you returned {found[first]:g}, it is {expected[first]}"

    def strides_added(layers) -> int:
        steps = itertools.accumulate((stride for _, stride, _ in layers), initial=1)
        return 1 + sum(_added(*one) * step for one, step in zip(layers, steps, strict=False))

    def backwards(layers) -> int:
        side = 1
        for layer in layers[::-1]:
            side = side * layer[1] + _added(*layer)
        return side

    dilated = "a kernel of k taps, d values apart, spans (k - 1) d + 1 of them"
    named = {
        "the dilation is missing": lambda them: _side(them, lambda k, s, d: k - 1),
        "the strides are missing: behind a stride of 2 the next value is 2 pixels away": (
            lambda them: _side(them, grows=lambda *_: 1)
        ),
        "strides and dilation are missing": (
            lambda them: _side(them, lambda k, s, d: k - 1, lambda *_: 1)
        ),
        "a layer's own stride counts for the layers behind it, not for itself": (
            lambda them: _side(them, own=True)
        ),
        f"you took k d for the size of a dilated kernel; {dilated}": (
            lambda them: _side(them, lambda k, s, d: k * d - 1)
        ),
        f"each layer adds the whole of its kernel, and kernels overlap by one; {dilated}": (
            lambda them: _side(them, lambda k, s, d: (k - 1) * d + 1)
        ),
        f"whole kernels are added up from 0 on, and kernels overlap by one; {dilated}": (
            lambda them: _side(them, lambda k, s, d: (k - 1) * d + 1) - 1
        ),
        f"you count k taps, not the k - 1 gaps between them; {dilated}": (
            lambda them: _side(them, lambda k, s, d: k * d)
        ),
        "a dilation does not lengthen the steps of later layers, only a stride does": (
            lambda them: _side(them, grows=lambda k, s, d: s * d)
        ),
        "the layers are in reverse: the first one's stride lengthens the steps of all others": (
            lambda them: _side(them[::-1])
        ),
        "strides multiply, they do not add up": strides_added,
        "kernels do not multiply: each adds to the side": (
            lambda them: math.prod(kernel for kernel, _, _ in them)
        ),
        "kernels are added up, but neighbours overlap; stride and dilation are missing, too": (
            lambda them: sum(kernel for kernel, _, _ in them)
        ),
        "from the last layer back, side s becomes (s - 1) stride + (k - 1) d + 1": backwards,
        "that is the step from one value to the next, not what a value sees": (
            lambda them: math.prod(stride for _, stride, _ in them)
        ),
        "one too few: without any layer a value sees its own pixel": lambda them: _side(them) - 1,
        "one too many": lambda them: _side(them) + 1,
        "that is the area; asked for is its side": lambda them: _side(them) ** 2,
        "that is how far it sees to one side; asked for is the whole side": (
            lambda them: _side(them) // 2
        ),
        "that is the last layer alone": lambda them: _side(them[-1:]),
    }
    for why, rule in named.items():
        if close(found, [rule(layers) for layers in trials]):
            return f"{said}: {why}"
    return said if trials[first] else f"{said}: {EMPTY}"
