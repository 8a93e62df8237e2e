"""Checks of notebook 05: what is done with a model's scores: a threshold, another prevalence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from helpers.lesson.verdicts import VerdictError, ask, ask_array, close, judged, wrong

TRIALS = 20


@judged
def threshold(answer: Callable) -> str:
    """Notebook 05: `answer(labels, scores, specificity)` is the lowest threshold that keeps it.

    `labels` are 0 or 1, `[n]`, `scores` float64 `[n]`. A case counts as positive if its score is at
    least the threshold, and at least a share `specificity` of the negatives has to stay below. If
    none of the scores will do as a threshold, it is infinite, or any number above them.
    """
    trials = list(_scored(np.random.default_rng(67)))
    for labels, scores, specificity in trials:
        negatives = np.sort(scores[labels == 0])
        needed = _needed(specificity, len(negatives))
        highest = negatives[needed - 1]  # the last of the negatives that have to stay below
        try:
            found = ask(answer, labels, scores, specificity)
        except VerdictError as verdict:
            if highest == scores.max() and verdict.line.startswith("✗"):
                raise wrong(
                    f"{verdict.line[2:]}; here a negative has the highest score of all and has to "
                    "stay below, so that no score will do: return np.inf"
                ) from None
            raise
        try:
            found = np.asarray(found, float)
        except (TypeError, ValueError):
            raise wrong(f"a number is asked for, you returned {found!r:.60}") from None
        if found.shape or np.isnan(found):
            raise wrong(f"one threshold is asked for, your result is {found!r:.60}")
        # All thresholds between two neighbouring scores do the same.
        if not np.array_equal(scores >= found, scores > highest):
            raise wrong(_misplaced(float(found), labels, scores, specificity, float(highest)))
    return (
        f"right on {len(trials)} sets of scores that the check made up, some with ties, one in "
        "which a negative scores highest"
    )


def _needed(specificity: float, negatives: int) -> int:
    """How many negatives have to stay below the threshold."""
    return math.ceil(Fraction(str(specificity)) * negatives)


def _scored(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    made = 0
    while made < TRIALS:
        count, specificity = int(rng.integers(40, 90)), float(rng.choice([0.8, 0.9, 0.95, 0.97]))
        needed, below = _needed(specificity, count), np.arange(count + 1)
        # Where the rounding of binary fractions would move it by a case, nobody is to blame.
        ways = {
            math.ceil(specificity * count),
            count - math.floor((1 - specificity) * count),
            int((below / count >= specificity).argmax()),
            int((1 - (count - below) / count >= specificity).argmax()),
            int(((count - below) / count <= 1 - specificity).argmax()),
        }
        if ways != {needed}:
            continue
        if made >= TRIALS - 2:
            specificity = 1.0
        positives = int(rng.integers(8, 16))
        labels = rng.permutation(np.repeat([0, 1], [count, positives]))
        scores = np.where(labels, rng.beta(4, 3, len(labels)), rng.beta(2, 5, len(labels)))
        if made % 4 == 3:
            scores = np.round(scores, 2)
        top = rng.choice(np.flatnonzero(labels == (made < TRIALS - 1)))
        scores[top] = 0.995
        made += 1
        yield labels, scores, specificity


def _misplaced(found: float, labels, scores, specificity: float, highest: float) -> str:
    """What is wrong with a threshold."""
    negatives, positives = scores[labels == 0], scores[labels == 1]
    below = int((negatives < found).sum())
    said = (
        f"you returned {found:.6g}, below which {below} of {len(negatives)} negatives stay, a "
        f"share of {below / len(negatives):.4g}; asked for is {specificity:g}"
    )
    wanted = math.ceil(Fraction(str(specificity)) * len(positives))

    def is_quantile(of: np.ndarray, share: float) -> bool:
        return math.isclose(found, np.quantile(of, share))

    if np.array_equal(scores > found, scores > highest):
        return f"{said}: the negative that has this very score counts as positive (>=, not >)"
    if found in (specificity, 1 - specificity):
        return f"{said}: that is a share of cases, not a score"
    if is_quantile(scores, specificity):
        return f"{said}: that is a quantile of all scores; specificity is about the negatives"
    if is_quantile(positives, specificity) or is_quantile(positives, 1 - specificity):
        return f"{said}: that is a quantile of the positives; specificity is about the negatives"
    if is_quantile(negatives, 1 - specificity):
        return f"{said}: you let {specificity:g} of the negatives through, and keep 1 - that"
    if is_quantile(negatives, specificity):
        return f"{said}: a quantile is interpolated between two cases; count the cases"
    if found == np.sort(positives)[-wanted]:
        return f"{said}: it finds {wanted} of {len(positives)} positives, which is sensitivity"
    if below < _needed(specificity, len(negatives)):
        return said
    least = scores[scores > highest].min()
    lost = int((positives >= least).sum() - (positives >= found).sum())
    said = f"you returned {found:.6g}, which is higher than need be: {least:.6g}, also a score, "
    if lost:
        return (
            f"{said}keeps a specificity of {specificity:g} too, and finds more positives ({lost})"
        )
    return f"{said}will do; roc_curve leaves thresholds out unless drop_intermediate=False"


@judged
def corrected(answer: Callable) -> str:
    """Notebook 05: `answer(probability, trained, real)` corrects for another share of positives.

    `probability` is float64 `[n]`, of a model that has seen a share `trained` of positives; the
    result is what Bayes' rule makes of it where the share is `real`.
    """
    rng = np.random.default_rng(71)
    for trial in range(TRIALS):
        probability = rng.uniform(0.02, 0.98, 9)
        probability[:2] = 1e-6, 1 - 1e-6
        trained, real = (round(float(share), 3) for share in rng.uniform(0.02, 0.7, 2))
        if trial == 0:
            trained, real = 0.5, 0.05
        if trial == 7:
            real = trained
        positive = probability * real / trained
        negative = (1 - probability) * (1 - real) / (1 - trained)
        expected = positive / (positive + negative)
        found = ask_array(answer, probability, trained, real, shape=probability.shape)
        if close(found, expected):
            continue
        given = f"from a share of {trained:g} to one of {real:g}"
        swapped = probability * trained / real
        swapped = swapped / (swapped + (1 - probability) * (1 - trained) / (1 - real))
        shifted = probability + real - trained
        half = positive / (positive + 1 - probability)
        named = {
            "p as it came": (probability, "does it not depend on the shares?"),
            "p x real / trained": (positive, "1 - p changes too: divide by the sum of both sides"),
            "p x real / trained, clipped": (
                np.clip(positive, 0, 1),
                "clipping hides that both sides no longer sum to 1",
            ),
            "p + real - trained": (shifted, "probabilities are rescaled, not shifted"),
            "p + real - trained, clipped": (
                np.clip(shifted, 0, 1),
                "clipping hides that probabilities are rescaled, not shifted",
            ),
            "p rescaled on the positive side alone": (half, "1 - p has a share too: 1 - real"),
            "p corrected the other way": (swapped, "are the two shares swapped?"),
            "p scaled to the right mean": (
                probability * real / probability.mean(),
                "Bayes' rule looks at each case by itself",
            ),
            "the odds": (positive / negative, "a probability is odds / (1 + odds)"),
        }
        worst = int(np.abs(found - expected).argmax())
        said = f"{given} you turn {probability[worst]:.6g} into {found[worst]:.4g}"
        for name, (values, why) in named.items():
            if close(found, values):
                raise wrong(f"{said}: that is {name}; {why}")
        if found.min() < 0 or found.max() > 1:
            raise wrong(f"{said}: that is no probability; Bayes' rule gives {expected[worst]:.4g}")
        raise wrong(f"{said}; Bayes' rule gives {expected[worst]:.4g}")
    return f"right on {TRIALS} pairs of shares that the check made up, one of them without a change"
