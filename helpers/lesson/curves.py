"""How good a classifier's scores are, as pictures: `show.precision_recall`, `show.reliability`.

    show.precision_recall({"nothing": (labels, scores), "class weights": (labels, others)},
                          title="Class weights find more nodules at the same precision")

Each curve has a dash and a marker of its own, and its number stands beside its name, so that it
can be read without colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D

from helpers import evaluation
from helpers.lesson import curve_panels, figures, panels
from helpers.lesson.curve_panels import DOTTED, Curve
from helpers.lesson.figures import figure

WIDE_INCHES, HIGH_INCHES = 4.1, 3.2  # of a panel with its legend beside it
PANEL_INCHES, LOWER_INCHES = 1.6, 0.55  # heights of one among several, and of a histogram
TOGETHER = 3  # reliability curves that one panel can hold
BARS = 20  # of the histogram
RING = "○"


def precision_recall(
    curves: Mapping[str, tuple],
    *,
    title: str,
    points: Mapping[str, float] | None = None,
    alt: str | None = None,
) -> None:
    """Show precision against recall for each classifier, with its average precision.

    Args:
        curves: for each name `(labels, scores)`, both `[n]`: labels 0 or 1, scores that are higher
            for a stronger belief in 1. Eight at most.
        title: the finding, as a sentence.
        points: thresholds by name of a curve; a ring marks what `score >= threshold` reaches.
        alt: alternative text; made from title and numbers if left out.

    Lines are steps, for no threshold lies between two scores: the area below one is its average
    precision, as scikit-learn's `average_precision_score` has it. Straight lines between the
    points would flatter (Davis and Goadrich 2006). Dotted: the prevalence, which is the precision
    of guessing.

    Raises:
        ValueError: without a curve or for more than 8, for scores that are not finite or not one
            for each label, for a point that belongs to no curve.
        CourseDataError: `EMPTY_LIST`, `EMPTY_CLASS`, `UNKNOWN_LABEL`, as
            `evaluation.operating_point`.
    """
    from sklearn.metrics import average_precision_score

    made = curve_panels.curves_of(curves)
    points = {str(name): float(threshold) for name, threshold in (points or {}).items()}
    if strangers := set(points) - {curve.name for curve in made}:
        raise ValueError(f"a point for {', '.join(sorted(strangers))}, where no curve is")
    lines = {curve.name: _steps(curve) for curve in made}
    rings = {c.name: _point(c, points[c.name], lines[c.name]) for c in made if c.name in points}
    entries = []
    for curve in made:
        area = average_precision_score(curve.labels, curve.scores)
        text = f"{curve.name}\naverage precision {area:.2f}"
        if curve.name in rings:
            text += f"\n{RING} {rings[curve.name][1]}"
        entries.append((curve.handle, text))
    prevalences = _prevalences(made)
    entries += [(Line2D([], [], **DOTTED), text) for text in prevalences.values()]
    texts = [text for _, text in entries]

    high = max(HIGH_INCHES, curve_panels.legend_height(texts))
    fig, (((ax,),),) = curve_panels.layout(title, 1, [high], wide=WIDE_INCHES)
    for share in prevalences:
        ax.axhline(share, **DOTTED)
    for position, curve in enumerate(made):
        recall, precision = lines[curve.name]
        ax.plot(recall, precision, drawstyle="steps-pre", **curve.line)
        # Each curve's markers at places of their own, so that none covers another's.
        places = (np.arange(4) + (position + 0.5) / len(made)) / 4
        heights = precision[np.searchsorted(recall, places)]
        ax.plot(places, heights, linestyle="", **curve.marks)
    for curve in made:
        if curve.name in rings:
            ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
            ring |= {"markeredgewidth": 2, "markeredgecolor": curve.line["color"]}
            ax.plot(*rings[curve.name][0], **ring, linestyle="", zorder=4, clip_on=False)
    figures.plain_axes(ax, "recall (sensitivity)", "precision")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    curve_panels.legend(ax, entries)
    figure(fig, alt or _alt(title, "Precision against recall", texts))


def reliability(
    curves: Mapping[str, tuple],
    *,
    title: str,
    bins: int = 10,
    strategy: str = "quantile",
    alt: str | None = None,
) -> None:
    """Show predicted against observed shares of positives, above a histogram of the predictions.

    Args:
        curves: for each name `(labels, probabilities)`, both `[n]`: labels 0 or 1, probabilities
            from 0 to 1. More than 3 get a panel each; eight at most.
        title: the finding, as a sentence.
        bins: into which the cases of a curve are put; a point for each.
        strategy: "quantile" for bins of like numbers of cases, "uniform" for bins of equal width.
        alt: alternative text; made from title and numbers if left out.

    Points, Wilson intervals and the expected calibration error are those of
    `evaluation.reliability`. On the dotted diagonal a probability means what it says. The axes end
    at the tenth above the greatest value. The histogram counts cases by their prediction, in 20
    bars of equal width whatever the bins above, on a logarithmic axis: where positives are rare,
    most predictions are small.

    Raises:
        ValueError, CourseDataError: as for `precision_recall` and `evaluation.reliability`.
    """
    made = curve_panels.curves_of(curves, probabilities=True)
    found = [
        evaluation.reliability(curve.labels, curve.scores, bins=bins, strategy=strategy)
        for curve in made
    ]
    errors = [np.average(abs(one.predicted - one.observed), weights=one.cases) for one in found]
    texts = [
        f"{curve.name}\ncalibration error {error:.3f}"
        for curve, error in zip(made, errors, strict=True)
    ]
    kind = "like numbers of cases" if strategy == "quantile" else "equal width"
    note = f"points: bins of {kind}; whiskers: 95 % Wilson intervals; dotted: as predicted"
    foot = panels.foot_height(note, {})
    alone = len(made) <= TOGETHER
    if alone:
        heights = [HIGH_INCHES - LOWER_INCHES, LOWER_INCHES]
        fig, rows = curve_panels.layout(title, 1, heights, wide=WIDE_INCHES, foot=foot)
        pairs = [rows[0][0]] * len(made)
        entries = [(curve.handle, text) for curve, text in zip(made, texts, strict=True)]
        curve_panels.legend(pairs[0][0], entries)
    else:
        heights = [PANEL_INCHES, LOWER_INCHES]
        fig, rows = curve_panels.layout(title, len(made), heights, heads=texts, foot=foot)
        pairs = [pair for row in rows for pair in row]
    ends = [curve.scores.max() for curve in made] + [one.high.max() for one in found]
    limit = min(math.ceil(10 * max(ends) - 1e-9) / 10, 1.0)
    for row in rows:
        for position, (upper, lower) in enumerate(row):
            _share_scale(upper, lower, limit, max(len(c.scores) for c in made), not position)
    for curve, one, (upper, lower) in zip(made, found, pairs, strict=True):
        whole = {"clip_on": False, "zorder": 3}  # also points on the axis
        tone = curve.line["color"]
        upper.vlines(one.predicted, one.low, one.high, color=tone, linewidth=1.1, **whole)
        upper.plot(one.predicted, one.observed, **curve.line | curve.marks, **whole)
        cases, edges = np.histogram(curve.scores, np.linspace(0, limit, BARS + 1))
        lower.stairs(cases, edges, baseline=0.5, **curve.line)
    panels.foot(fig, note, {})
    said = [
        f"{text}, mean prediction {curve.scores.mean():.2g}, share of positives "
        f"{curve.labels.mean():.2g}, highest bin {one.predicted.iloc[-1]:.2g} predicted and "
        f"{one.observed.iloc[-1]:.2g} observed"
        for text, curve, one in zip(texts, made, found, strict=True)
    ]
    figure(fig, alt or _alt(title, "Observed against predicted shares of positives", said))


def _steps(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Recall from 0 upwards, and the precision up to each; see `precision_recall`."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(
        curve.labels, curve.scores, drop_intermediate=True
    )
    # scikit-learn ends the curve at precision 1 by convention; where nothing is found, there is
    # no precision to show.
    found = recall > 0
    recall, precision = recall[found][::-1], precision[found][::-1]
    return np.append(0.0, recall), np.append(precision[0], precision)


def _point(curve: Curve, threshold: float, line) -> tuple[tuple[float, float], str]:
    """Where a threshold lies, and in words; one above all scores at the start of the line."""
    point = evaluation.operating_point(curve.labels, curve.scores, threshold)
    if math.isnan(point.precision):
        return (0.0, float(line[1][0])), f"at {threshold:.2g}: nothing is called positive"
    reached = f"recall {point.sensitivity:.2f}, precision {point.precision:.2f}"
    return (point.sensitivity, point.precision), f"at {threshold:.2g}: {reached}"


def _prevalences(made: Sequence[Curve]) -> dict[float, str]:
    """A name for each share of positives; whose it is, where they differ."""
    names: dict[float, list[str]] = {}
    for curve in made:
        names.setdefault(float(curve.labels.mean()), []).append(curve.name)
    return {
        share: f"prevalence {share:.2g}" + (f" ({', '.join(of)})" if len(names) > 1 else "")
        for share, of in names.items()
    }


def _share_scale(upper, lower, limit: float, cases: int, first: bool) -> None:
    """One scale for all panels; its numbers at the first of a row."""
    figures.plain_axes(upper, "", "observed share" if first else "")
    figures.plain_axes(lower, "predicted probability", "cases" if first else "")
    upper.plot([0, limit], [0, limit], **DOTTED)
    upper.set_xlim(0, limit)
    upper.set_ylim(0, limit * 1.02)
    upper.locator_params(nbins=6, steps=[1, 2, 5, 10])
    upper.tick_params(labelbottom=False, labelleft=first)
    lower.set_yscale("log")
    lower.set_ylim(0.5, 2 * cases)
    powers = np.arange(0, math.log10(2 * cases), 1 if cases < 1000 else 2).astype(int)
    lower.set_yticks(10.0**powers, [f"$10^{{{n}}}$" if n > 3 else f"{10**n}" for n in powers])
    lower.minorticks_off()
    lower.tick_params(labelleft=first)
    lower.figure.align_ylabels([upper, lower])


def _alt(title: str, what: str, texts: Sequence[str]) -> str:
    said = [text.replace("\n", ", ").replace(f"{RING} ", "") for text in texts]
    return f"{title.rstrip('.')}. {what}: {'; '.join(said)}."
