"""Checks of notebook 06: how far a network sees, and Dice of each case."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from helpers.lesson.checks.answers import check

# --- how far does it see? ---

SIMPLE = (
    [(3, 1, 1)],  # first, as it decides whether there is an answer at all
    [],
    [(3, 1, 1), (3, 1, 1)],
    [(3, 1, 2)],
    [(3, 2, 1)],
    [(3, 2, 1), (3, 1, 1)],
    [(3, 1, 1), (3, 2, 1)],
)


def layers_of(rng: np.random.Generator) -> Iterator[tuple]:
    """Layers as (kernel, stride, dilation): none, one or two, then five, pooling among them."""
    for simple in SIMPLE:
        yield (list(simple),)
    for _ in range(13):
        kernels = rng.choice([1, 2, 3, 5], 5, p=[0.2, 0.1, 0.5, 0.2]).tolist()
        strides, dilations = rng.integers(1, 3, 5).tolist(), rng.choice([1, 2, 4], 5).tolist()
        yield (list(zip(kernels, strides, dilations, strict=True)),)


def side(
    adds: Callable = lambda k, s, d: (k - 1) * d,
    grows: Callable = lambda k, s, d: s,
    first: int = 1,
) -> Callable:
    """The side by what a layer adds, in steps, and by what the step grows."""

    def answer(layers: list) -> int:
        seen, step = first, 1
        for layer in layers:
            seen, step = seen + adds(*layer) * step, step * grows(*layer)
        return seen

    return answer


def backwards(layers: list) -> int:
    seen = 1
    for kernel, stride, dilation in layers[::-1]:
        seen = seen * stride + (kernel - 1) * dilation
    return seen


def strides_added(layers: list) -> int:
    seen, step = 1, 1
    for kernel, stride, dilation in layers:
        seen, step = seen + (kernel - 1) * dilation * step, step + stride
    return seen


receptive_field = check(
    side(),
    layers_of,
    {
        "the dilation is missing": side(lambda k, s, d: k - 1),
        "the strides are missing: behind a stride of 2 the next value is 2 pixels away": side(
            grows=lambda *_: 1
        ),
        "strides and dilation are missing": side(lambda k, s, d: k - 1, lambda *_: 1),
        "a layer's own stride counts for the layers behind it, not for itself": side(
            lambda k, s, d: (k - 1) * d * s
        ),
        "you took k d for the size of a dilated kernel; it spans (k - 1) d + 1": side(
            lambda k, s, d: k * d - 1
        ),
        "each layer adds the whole of its kernel, and kernels overlap by one": side(
            lambda k, s, d: (k - 1) * d + 1
        ),
        "whole kernels are added up from 0 on, and kernels overlap by one": side(
            lambda k, s, d: (k - 1) * d + 1, first=0
        ),
        "you count k taps, not the k - 1 gaps between them": side(lambda k, s, d: k * d),
        "a dilation does not lengthen the steps of later layers, only a stride does": side(
            grows=lambda k, s, d: s * d
        ),
        "the layers are in reverse: the first one's stride lengthens the steps of all others": (
            lambda layers: side()(layers[::-1])
        ),
        "strides multiply, they do not add up": strides_added,
        "kernels do not multiply: each adds to the side": lambda layers: math.prod(
            kernel for kernel, _, _ in layers
        ),
        "kernels are added up, but neighbours overlap; stride and dilation are missing, too": (
            lambda layers: sum(kernel for kernel, _, _ in layers)
        ),
        "from the last layer back, side s becomes (s - 1) stride + (k - 1) d + 1": backwards,
        "that is the step from one value to the next, not what a value sees": lambda layers: (
            math.prod(stride for _, stride, _ in layers)
        ),
        "one too few: without any layer a value sees its own pixel": side(first=0),
        "one too many": side(first=2),
        "without any layer a value sees its own pixel, 1": lambda layers: (
            side()(layers) if layers else 0
        ),
        "for []: without any layer a value sees its own pixel, 1": lambda layers: (
            layers[0] and side()(layers)
        ),
        "that is the area; asked for is its side": lambda layers: side()(layers) ** 2,
        "that is how far it sees to one side; asked for is the whole side": lambda layers: (
            side()(layers) // 2
        ),
        "that is the last layer alone": lambda layers: side()(layers[-1:]),
    },
    tell=str,
)

# --- Dice, case by case ---

IGNORE = 255


def pairs(rng: np.random.Generator) -> Iterator[tuple]:
    """Truth and prediction; from the second set on with ignored pixels and empty masks."""
    for n in range(10):
        truth = (rng.random((8, 4, 5)) < 0.4).astype(np.uint8)
        found = np.where(rng.random(truth.shape) < 0.2, 1 - truth, truth)
        if n:
            truth[rng.random(truth.shape) < 0.15] = IGNORE
            truth[:, 0, 0], found[:, 0, :2] = IGNORE, 1
        if n > 1:  # nothing to find, found where nobody can tell, invented; missed; perfect
            truth[:3] *= truth[:3] == IGNORE
            found[[0, 3]], found[1], found[4] = 0, truth[1] == IGNORE, truth[4] == 1
        if n % 3 == 2:  # areas of more than 255 pixels
            truth, found = (one.repeat(12, 1).repeat(12, 2) for one in (truth, found))
        yield truth, found


# A mistake, and what it takes for class 1 in truth, for class 1 in prediction, and for all pixels.
IGNORING = {
    "": lambda truth, found: (truth == 1, found & (truth != IGNORE), truth != IGNORE),
    "ignored pixels of the prediction are counted; leave them out of both": (
        lambda truth, found: (truth == 1, found, truth >= 0)
    ),
    "255 counts as class 1 of the truth, but marks pixels to ignore": (
        lambda truth, found: (truth > 0, found, truth >= 0)
    ),
    "255 counts as class 1 of the truth, but marks pixels to ignore in both": (
        lambda truth, found: (truth > 0, found & (truth != IGNORE), truth >= 0)
    ),
    "the ids of the truth are added up, 255 among them: count pixels, and ignore these": (
        lambda truth, found: (truth.astype(float), found, truth >= 0)
    ),
}


def ratio(both, true, found, pixels) -> np.ndarray:
    return 2 * both / (true + found)


def background(both, true, found, pixels) -> np.ndarray:
    return ratio(pixels - true - found + both, pixels - true, pixels - found, pixels)


def mean_of_both(*sizes) -> np.ndarray:
    values = np.stack([background(*sizes), ratio(*sizes)])
    return np.nan_to_num(values).sum(0) / (~np.isnan(values)).sum(0)


def only_where(anything: Callable) -> Callable:
    return lambda both, true, found, n: np.where(
        anything(both, true, found), ratio(both, true, found, n), np.nan
    )


# A mistake, and what it makes of the pixels in both, in the truth, in the prediction, and of all.
FORMULAS = {
    "": ratio,
    "that is IoU, both / union; Dice is 2 both / (truth + prediction)": (
        lambda both, true, found, _: both / (true + found - both)
    ),
    "you divide by the union; Dice divides by the sum of both sizes": (
        lambda both, true, found, _: 2 * both / (true + found - both)
    ),
    "the 2 is missing: Dice is 2 both / (truth + prediction)": (
        lambda both, true, found, _: both / (true + found)
    ),
    "that is precision, the share of the prediction that is right": (
        lambda both, true, found, _: both / found
    ),
    "that is sensitivity, the share of the truth that is found": (
        lambda both, true, found, _: both / true
    ),
    "NaN is for cases where both masks are empty; where only the truth is, Dice is 0": (
        only_where(lambda both, true, found: true > 0)
    ),
    "NaN is for cases where both masks are empty; where only the prediction is, Dice is 0": (
        only_where(lambda both, true, found: found > 0)
    ),
    "NaN is for cases where both masks are empty; where only one of them is, Dice is 0": (
        only_where(lambda both, true, found: both > 0)
    ),
    "that is accuracy, to which the easy background contributes most": (
        lambda both, true, found, pixels: (pixels - true - found + 2 * both) / pixels
    ),
    "1 is added above and below (smoothing): that belongs into a loss, not into a measure": (
        lambda both, true, found, _: (2 * both + 1) / (true + found + 1)
    ),
    "all cases have the value of all pixels pooled; one value a case is asked for": (
        lambda both, true, found, _: np.full(len(both), 2 * both.sum() / (true + found).sum())
    ),
    "that is the mean with the background's Dice; class 1 alone is asked for": mean_of_both,
    "that is Dice of the background": background,
}
# What is returned where a formula has nothing to divide by.
EMPTY = {
    "": np.nan,
    "where neither mask has class 1 there is 0, as if all were missed; it is NaN, 0 / 0": 0.0,
    "where neither mask has class 1 there is 1, which lifts the mean; it is NaN, 0 / 0": 1.0,
}


def dice(ignoring: str = "", formula: str = "", empty: str = "") -> Callable:
    """Dice of each case with none, one or more of the mistakes."""

    def answer(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        true, found, kept = IGNORING[ignoring](truth, predicted == 1)
        sizes = [mask.sum((1, 2), dtype=float) for mask in (true * found, true, found, kept)]
        values = FORMULAS[formula](*sizes)
        return np.where(np.isnan(values), EMPTY[empty], values)

    return answer


def counted_in_bytes(*masks: np.ndarray) -> np.ndarray:
    """Right, as long as there are no more pixels than a byte can count."""
    true, found, _ = IGNORING[""](masks[0], masks[1] == 1)
    both, true, found = (one.sum((1, 2)).astype(np.uint8) for one in (true & found, true, found))
    return 2 * both / (true + found).astype(float)


def in_integers(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    """Right, as long as no case is empty."""
    true, found, _ = IGNORING[""](truth, predicted == 1)
    sizes = [mask.sum((1, 2)).tolist() for mask in (true & found, true, found)]
    return [2 * both / (one + other) for both, one, other in zip(*sizes, strict=True)]


def of_both_classes(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    names = "", "that is Dice of the background"
    return np.stack([dice(formula=name)(truth, predicted) for name in names], -1)


# Not one number for each case.
OTHERWISE = {
    "small cases are right, but counts above 255 do not fit in uint8": counted_in_bytes,
    "where neither mask has a pixel of class 1, Dice is NaN": in_integers,
    "of class 1 alone, not of the background, too": of_both_classes,
    "of class 1 alone, not of the background, too; and one number a case": lambda *masks: (
        of_both_classes(*masks).T
    ),
    "a case without class 1 keeps its place, as NaN": lambda *masks: dice()(*masks)[
        ~np.isnan(dice()(*masks))
    ],
    "sum over y and x alone, axis=(1, 2), for one number a case": lambda *masks: np.nanmean(
        dice()(*masks)
    ),
}
NAMED = [list(one)[1:] for one in (IGNORING, FORMULAS, EMPTY)]
# Each mistake alone; then those of which people make two at a time.
WAYS = [
    *[(one, "", "") for one in NAMED[0]],
    *[("", one, "") for one in NAMED[1]],
    *[("", "", one) for one in NAMED[2]],
    *[(NAMED[0][0], one, "") for one in (*NAMED[1][:4], NAMED[1][8])],
    *itertools.product([""], NAMED[1][:5], NAMED[2]),
    *itertools.product(NAMED[0][:1], [""], NAMED[2]),
]
dice_of_cases = check(
    dice(),
    pairs,
    {"; and ".join(filter(None, way)): dice(*way) for way in WAYS} | OTHERWISE,
    tell=lambda truth, predicted: f"{len(truth)} cases of {truth[0].size} pixels",
)
