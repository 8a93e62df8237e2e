"""Check of notebook 06: Dice of each case, where pixels are ignored and masks may be empty."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from helpers.lesson.verdicts import VerdictError, ask, judged, wrong

TRIALS = 20
IGNORE = 255
UINT8 = 255  # its largest number; sums in it begin again at 0
LARGE = 8  # how many times as long the sides are in some trials: with areas of 1,000 and more

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
# A mistake, and what it makes of the numbers of pixels in both, in the truth, in the prediction
# and of all.
FORMULAS = {
    "": lambda both, true, found, _: 2 * both / (true + found),
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
        lambda both, true, found, _: np.where(true > 0, 2 * both / (true + found), np.nan)
    ),
    "NaN is for cases where both masks are empty; where only the prediction is, Dice is 0": (
        lambda both, true, found, _: np.where(found > 0, 2 * both / (true + found), np.nan)
    ),
    "NaN is for cases where both masks are empty; where only one of them is, Dice is 0": (
        lambda both, true, found, _: np.where(both > 0, 2 * both / (true + found), np.nan)
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
    "that is the mean with the background's Dice; class 1 alone is asked for": (
        lambda both, true, found, pixels: _mean_dice(both, true, found, pixels)
    ),
    "that is Dice of the background": (
        lambda both, true, found, pixels: _mean_dice(both, true, found, pixels, of=(0,))
    ),
}
# What is returned where a formula has nothing to divide by.
EMPTY = {
    "": np.nan,
    "where neither mask has class 1 there is 0, as if all were missed; it is NaN, 0 / 0": 0.0,
    "where neither mask has class 1 there is 1, which lifts the mean; it is NaN, 0 / 0": 1.0,
}


@judged
def dice_of_cases(answer: Callable) -> str:
    """Notebook 06: `answer(truth, predicted)` is Dice of class 1 of each case, float `[n]`.

    Both are uint8 `[n, y, x]`: `truth` 0, 1 or 255 where a pixel is ignored, `predicted` 0 or 1.
    Ignored pixels take no part, neither side's; where both are empty, Dice is NaN (0 / 0).
    """
    trials = list(_pairs(np.random.default_rng(79)))
    found = [_dice(answer, number, *masks) for number, masks in enumerate(trials)]
    expected = [_by("", "", _sizes("", *masks)) for masks in trials]
    if not _same(found, expected):
        raise wrong(_miscounted(found, expected, trials))
    return (
        f"right on {sum(map(len, expected))} cases that the check made up, small and large, with "
        "ignored pixels, missed and invented lesions, and cases without any"
    )


def _pairs(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction; from the third set on, some masks are empty, and some sets large."""
    for trial in range(TRIALS):
        cases, height, width = rng.integers((6, 9, 11), (9, 13, 15))
        y, x = np.indices((height, width))
        centre = rng.uniform(3, (height - 3, width - 3), (2, cases, 2))
        centre[1] = centre[0] + rng.normal(0, 0.7, (cases, 2))
        radius = rng.uniform(2, 3.5, (2, cases, 1, 1))
        discs = [
            np.hypot(y - at[:, :1, None], x - at[:, 1:, None]) < size
            for at, size in zip(centre, radius, strict=True)
        ]
        truth, predicted = (disc.astype(np.uint8) for disc in discs)
        if trial:
            ignored = rng.random(truth.shape) < 0.15
            ignored[:, :, -2:] = True
            truth[ignored] = IGNORE
            predicted[:, 1, -2:] = 1
        if trial > 1:
            none, inside, invented, missed, perfect = rng.permutation(cases)[:5]
            empty = [none, inside, invented]
            truth[empty] = np.where(truth[empty] == IGNORE, IGNORE, 0)
            predicted[[none, missed]] = 0
            # Whatever the network finds here is where nobody can tell.
            predicted[inside] = truth[inside] == IGNORE
            predicted[perfect] = truth[perfect] == 1
        if trial % 6 == 5:
            truth, predicted = (
                mask.repeat(LARGE, axis=1).repeat(LARGE, axis=2) for mask in (truth, predicted)
            )
        yield truth, predicted


def _dice(answer: Callable, number: int, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    cases, asked = len(truth), f"Dice of each of the {len(truth)} cases is asked for"
    try:
        with np.errstate(all="ignore"):  # np.where divides by zero too, and is right in the end
            result = ask(answer, truth, predicted)
    except VerdictError as verdict:
        if number and verdict.line.startswith("✎"):
            raise wrong(f"{asked}, you returned None; is a branch without return?") from None
        if number > 1 and "ZeroDivisionError" in verdict.line:
            why = "where neither mask has a pixel of class 1, Dice is NaN"
            raise wrong(f"{verdict.line[2:]}: {why}") from None
        raise
    try:
        values = np.asarray(result, np.float64)
    except (TypeError, ValueError):
        raise wrong(f"{asked}, you returned {result!r:.60}") from None
    if values.shape == (cases,):
        return values
    said = f"{asked}, your result has shape {values.shape}"
    if not values.shape:
        raise wrong(f"{asked}, you returned one number: sum over y and x alone, axis=(1, 2)")
    if number > 1 and values.ndim == 1 and len(values) < cases:
        raise wrong(f"{said}: a case without class 1 keeps its place, as NaN")
    if values.shape in ((cases, 2), (2, cases)):
        raise wrong(f"{said}: of class 1 alone, not of the background, too")
    raise wrong(f"{said}: sum over y and x, axis=(1, 2)")


def _mean_dice(both, true, found, pixels, of: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """The mean Dice of the classes that occur."""
    background = 2 * (pixels - true - found + both) / (2 * pixels - true - found)
    values = np.stack([background, 2 * both / (true + found)])[list(of)]
    return np.where(np.isnan(values), 0, values).sum(0) / (~np.isnan(values)).sum(0)


def _sizes(ignoring: str, truth: np.ndarray, predicted: np.ndarray) -> list[np.ndarray]:
    """The pixels of each case in both, in the truth, in the prediction and of all."""
    true, found, kept = IGNORING[ignoring](truth, predicted == 1)
    return [mask.sum((1, 2), dtype=float) for mask in (true * found, true, found, kept)]


def _by(formula: str, empty: str, sizes: list[np.ndarray]) -> np.ndarray:
    """Dice of each case, or what mistakes make of it."""
    with np.errstate(all="ignore"):
        values = FORMULAS[formula](*sizes)
    return np.where(np.isnan(values), EMPTY[empty], values)


def _miscounted(found: list[np.ndarray], expected: list[np.ndarray], trials: list) -> str:
    """What is wrong with Dice, by the mistakes that give the same on all cases."""
    first = next(i for i in range(len(found)) if not _same(found[i : i + 1], expected[i : i + 1]))
    case = int(np.argmin(np.isclose(found[first], expected[first], 1e-3, equal_nan=True)))
    truth, predicted = (masks[case] for masks in trials[first])
    said = (
        f"for {(truth == 1).sum()} pixels of truth, {(predicted == 1).sum()} of prediction and "
        f"{(truth == IGNORE).sum()} ignored you returned {found[first][case]:.4g}, it is "
        f"{expected[first][case]:.4g}"
    )
    ways = itertools.product(IGNORING, FORMULAS, EMPTY)
    sizes = {ignoring: [_sizes(ignoring, *masks) for masks in trials] for ignoring in IGNORING}
    for way in sorted(ways, key=lambda way: sum(map(bool, way))):
        ignoring, formula, empty = way
        if _same(found, [_by(formula, empty, each) for each in sizes[ignoring]]):
            return f"{said}: {'; and '.join(filter(None, way))}"
    sums = np.concatenate([true + predicted for _, true, predicted, _ in sizes[""]])
    small = sums <= UINT8
    if _same([np.concatenate(found)[small]], [np.concatenate(expected)[small]]):
        return f"{said}: small cases are right, but counts above {UINT8} do not fit in uint8"
    return said


def _same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    found, expected = map(np.concatenate, (found, expected))
    return np.allclose(found, expected, rtol=1e-3, atol=1e-6, equal_nan=True)
