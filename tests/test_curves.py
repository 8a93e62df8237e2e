"""Curves lie where scikit-learn has them, say their number, and are told apart without colour."""

import base64

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import average_precision_score, precision_score, recall_score

from helpers import evaluation
from helpers.errors import CourseDataError
from helpers.lesson import curves, figures, show
from tests.drawn_figures import assert_readable, outputs

# By hand: ranked 1, 0, 1, 0, 0 the precisions at the two positives are 1 and 2/3.
LABELS = [0, 1, 0, 1, 0]
SCORES = [0.1, 0.9, 0.8, 0.7, 0.2]


def made(count: int, n: int = 300, share: float = 0.1) -> dict:
    """Classifiers from bad to good, on the same cases, some names long."""
    rng = np.random.default_rng(count)
    labels = (np.arange(n) < share * n).astype(int)
    names = ["nothing", "element sampling with hard cases that were found before", "focal loss"]
    names += [f"treatment {position}" for position in range(3, 8)]
    return {
        name: (labels, 1 / (1 + np.exp(2 - rng.normal(size=n) - position * labels)))
        for position, name in enumerate(names[:count])
    }


pytestmark = pytest.mark.usefixtures("shell")
DRAWS = curves


def steps(ax) -> list:
    return [line for line in ax.lines if line.get_drawstyle() == "steps-pre"]


def area(line) -> float:
    """Below a step line whose values hold to the left."""
    x, y = line.get_data()
    return float(np.diff(x) @ y[1:])


def rings(ax) -> list[tuple[float, float]]:
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in ax.lines
        if line.get_markerfacecolor() == "none"
    ]


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def diagonal(ax):
    (line,) = [line for line in ax.lines if line.get_color() == figures.PALETTE["muted"]]
    return line


def predicted(ax) -> list:
    return [line for line in ax.lines if line.get_color() != figures.PALETTE["muted"]]


def test_a_case_that_can_be_worked_out_by_hand(drawn):
    show.precision_recall({"one": (LABELS, SCORES)}, title="Finding.", points={"one": 0.75})
    fig, alt = drawn[0]
    (ax,) = fig.axes
    (line,) = steps(ax)
    # Up to the first positive precision 1, at it down to 1/2, up to the second 2/3, then down.
    x, y = line.get_data()
    assert x.tolist() == [0, 0.5, 0.5, 1, 1]
    assert y.tolist() == pytest.approx([1, 1, 1 / 2, 2 / 3, 2 / 5])
    assert rings(ax) == [(0.5, 0.5)]
    assert legend(ax) == [
        "one\naverage precision 0.83\n○ at 0.75: recall 0.50, precision 0.50",
        "prevalence 0.4",
    ]
    assert alt == (
        "Finding. Precision against recall: one, average precision 0.83, at 0.75: recall 0.50, "
        "precision 0.50; prevalence 0.4."
    )
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("recall (sensitivity)", "precision")


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    cases=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=40).filter(
        lambda cases: 0 < sum(label for label, _ in cases) < len(cases)
    ),
    threshold=st.integers(0, 8),
)
def test_the_area_below_a_line_is_its_average_precision(cases, threshold):
    labels, scores = np.array(cases).T
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "figure", lambda fig, alt: drawn.append(fig))
        show.precision_recall({"one": (labels, scores)}, title="t", points={"one": threshold})
    (ax,) = drawn[0].axes
    (line,) = steps(ax)
    expected = average_precision_score(labels, scores)
    assert area(line) == pytest.approx(expected)
    assert line.get_ydata()[0] == line.get_ydata()[1]  # no fall from 1 along the axis
    assert f"average precision {expected:.2f}" in legend(ax)[0]
    (ring,) = rings(ax)
    called = scores >= threshold
    if called.any():
        assert ring == pytest.approx(
            (recall_score(labels, called), precision_score(labels, called))
        )
    else:
        assert ring[0] == 0 and "nothing is called positive" in legend(ax)[0]
    # Its markers lie on it.
    (dots,) = [one for one in ax.lines if len(one.get_xdata()) == 4 and one.get_marker() == "o"]
    x, y = line.get_data()
    for place, height in zip(*dots.get_data(), strict=True):
        assert height == y[np.flatnonzero(x >= place)[0]]


def test_a_threshold_above_all_scores_lies_at_the_start(drawn):
    show.precision_recall({"one": (LABELS, SCORES)}, title="t", points={"one": float("inf")})
    (ax,) = drawn[0][0].axes
    assert rings(ax) == [(0, 1)]
    assert "○ at inf: nothing is called positive" in legend(ax)[0]


def test_guessing_reaches_the_prevalence_which_is_a_dotted_line(drawn):
    show.precision_recall(made(2), title="t")
    (ax,) = drawn[0][0].axes
    line = diagonal(ax)
    assert list(line.get_ydata()) == pytest.approx([0.1, 0.1]) and line.get_linestyle() == "--"
    assert legend(ax)[-1] == "prevalence 0.1"
    # By patient there are more positives than by slice: a line each, with the names.
    show.precision_recall({"slices": made(1)["nothing"], "patients": (LABELS, SCORES)}, title="t")
    assert legend(drawn[1][0].axes[0])[-2:] == [
        "prevalence 0.1 (slices)",
        "prevalence 0.4 (patients)",
    ]


@pytest.mark.parametrize("draw", [show.precision_recall, show.reliability])
def test_curves_are_told_apart_without_colour(draw, drawn):
    draw(made(3), title="t")
    handles = drawn[0][0].axes[0].get_legend().legend_handles[:3]
    assert len({str(one._dash_pattern) for one in handles}) == 3
    assert len({one.get_marker() for one in handles}) == 3
    draw(made(8), title="t")
    lines = [line for ax in drawn[1][0].axes for line in ax.lines]
    markers = {line.get_marker() for line in lines} - {"None", None, "", "none"}
    assert len(markers) == 8


def test_points_of_reliability_are_the_shares_of_each_bin(drawn):
    labels, probabilities = made(3)["focal loss"]
    show.reliability({"one": (labels, probabilities)}, title="t", bins=5)
    fig, alt = drawn[0]
    upper, lower = fig.axes
    (line,) = predicted(upper)
    # By hand: 300 cases in order of probability, 60 in each bin.
    order = np.argsort(probabilities)
    assert line.get_xdata() == pytest.approx(probabilities[order].reshape(5, 60).mean(1))
    assert line.get_ydata() == pytest.approx(labels[order].reshape(5, 60).mean(1))
    whiskers = np.array(upper.collections[0].get_segments())
    expected = evaluation.reliability(labels, probabilities, bins=5)
    assert whiskers[:, :, 0] == pytest.approx(np.stack([line.get_xdata()] * 2, 1))
    assert whiskers[:, 0, 1] == pytest.approx(expected.low)
    assert whiskers[:, 1, 1] == pytest.approx(expected.high)
    error = abs(line.get_xdata() - line.get_ydata()).mean()
    assert legend(upper) == [f"one\ncalibration error {error:.3f}"]
    assert alt.startswith(
        f"t. Observed against predicted shares of positives: one, calibration error {error:.3f}, "
        f"mean prediction {probabilities.mean():.2g}, share of positives 0.1, highest bin "
    )
    assert upper.get_xlim() == lower.get_xlim() and lower.get_yscale() == "log"
    x, y = diagonal(upper).get_data()
    assert list(x) == list(y) == list(upper.get_xlim())


def test_bins_of_equal_width_are_named_so(drawn):
    labels, probabilities = made(1)["nothing"]
    show.reliability({"one": (labels, probabilities)}, title="t", bins=4, strategy="uniform")
    fig, _ = drawn[0]
    (line,) = predicted(fig.axes[0])
    filled = np.unique(np.minimum((probabilities * 4).astype(int), 3))
    assert len(line.get_xdata()) == len(filled)
    assert any("Points: bins of equal width" in text.get_text() for text in fig.texts)
    show.reliability({"one": (labels, probabilities)}, title="t")
    assert any("bins of like numbers of cases" in text.get_text() for text in drawn[1][0].texts)


@pytest.mark.parametrize("top", [0.04, 0.3, 0.95, 1.0])
def test_the_histogram_counts_every_case_and_nothing_lies_outside(top, drawn):
    labels = np.arange(400) % 20 == 0
    probabilities = np.linspace(0, top, 400)
    show.reliability({"one": (labels.astype(int), probabilities)}, title="t")
    upper, lower = drawn[0][0].axes
    (bars,) = lower.patches
    values, edges, _ = bars.get_data()
    assert values.sum() == 400
    limit = upper.get_xlim()[1]
    assert edges[0] == 0 and edges[-1] == limit >= top
    ends = np.array(upper.collections[0].get_segments())[:, 1, 1]
    # To the next tenth, not to 1 whatever is drawn.
    assert max(top, *ends) <= limit < max(top, *ends) + 0.1 + 1e-9
    assert upper.get_ylim()[1] >= limit


@pytest.mark.parametrize(
    ("count", "panels"), [(1, [1]), (3, [1]), (4, [4]), (5, [3, 2]), (8, [4, 4])]
)
def test_more_than_three_reliability_curves_get_a_panel_each(count, panels, drawn):
    classifiers = made(count)
    show.reliability(classifiers, title="t")
    fig, _ = drawn[0]
    uppers, lowers = fig.axes[::2], fig.axes[1::2]
    rows: dict = {}
    for ax in uppers:
        rows.setdefault(round(ax.get_position().y0, 6), []).append(ax)
    assert [len(row) for row in rows.values()] == panels
    assert sum(len(predicted(ax)) for ax in uppers) == count
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in uppers}) == 1
    assert len({ax.get_ylim() for ax in lowers}) == 1
    for upper, lower in zip(uppers, lowers, strict=True):
        above, below = upper.get_position(), lower.get_position()
        assert (above.x0, above.x1) == (below.x0, below.x1) and above.y0 > below.y1
    if count > 3:
        heads = [ax.get_title(loc="left").replace("\n", " ") for ax in uppers]
        for head, name in zip(heads, classifiers, strict=True):
            assert head.startswith(f"{name} calibration error 0.")


@pytest.mark.parametrize("count", [1, 3, 5, 8])
@pytest.mark.parametrize("draw", [show.precision_recall, show.reliability])
def test_no_text_is_cut_off_or_lies_on_another(draw, count, drawn):
    classifiers = made(count, n=20_000)
    more = {} if draw is show.reliability else {"points": dict.fromkeys(classifiers, 0.01234)}
    draw(classifiers, title="A title long enough to be wrapped " * 3, **more)
    fig, _ = drawn[0]
    FigureCanvasAgg(fig).draw()
    texts = [*fig.texts]
    for ax in fig.axes:
        texts += [*ax.texts, ax.xaxis.label, ax.yaxis.label, ax._left_title]
        texts += ax.get_legend().get_texts() if ax.get_legend() else []
        for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            ticks = [one for one in axis.get_major_ticks() if low <= one.get_loc() <= high]
            texts += [one.label1 for one in ticks if one.label1.get_visible()]
    assert_readable(fig, texts)


@pytest.mark.parametrize("draw", [show.precision_recall, show.reliability])
def test_what_cannot_be_drawn_is_refused_with_the_name_of_the_curve(draw, drawn):
    good = (LABELS, SCORES)
    with pytest.raises(ValueError, match="from 1 to 8 curves can be told apart, not 0"):
        draw({}, title="t")
    with pytest.raises(ValueError, match="from 1 to 8 curves can be told apart, not 9"):
        draw({str(n): good for n in range(9)}, title="t")
    with pytest.raises(ValueError, match="bad: a curve is a pair"):
        draw({"good": good, "bad": (LABELS, SCORES, SCORES)}, title="t")
    with pytest.raises(ValueError, match="bad: scores have the shape"):
        draw({"good": good, "bad": (LABELS, SCORES[:4])}, title="t")
    with pytest.raises(ValueError, match=r"bad: 1 of 5 cases.* NaN"):
        draw({"good": good, "bad": (LABELS, [0.1, np.nan, 0.2, 0.3, 0.4])}, title="t")
    for labels, scores, code in (
        ([0, 0], [0.1, 0.2], "EMPTY_CLASS"),
        ([1, 1], [0.1, 0.2], "EMPTY_CLASS"),
        ([1, -1], [0.1, 0.2], "UNKNOWN_LABEL"),
        ([], [], "EMPTY_LIST"),
    ):
        with pytest.raises(CourseDataError) as told:
            draw({"good": good, "bad": (labels, scores)}, title="t")
        assert told.value.code == code and told.value.message.startswith("bad: ")
    assert not drawn


def test_logits_are_scores_but_no_probabilities(drawn):
    logits = np.array(SCORES) * 10 - 5
    show.precision_recall({"one": (LABELS, logits)}, title="t")
    assert len(drawn) == 1
    with pytest.raises(ValueError, match=r"one: probabilities lie between 0 and 1.*sigmoid"):
        show.reliability({"one": (LABELS, logits)}, title="t")


def test_a_point_belongs_to_a_curve(drawn):
    with pytest.raises(ValueError, match="a point for other, where no curve is"):
        show.precision_recall({"one": (LABELS, SCORES)}, title="t", points={"other": 0.5})


@pytest.mark.parametrize("draw", [show.precision_recall, show.reliability])
def test_a_picture_is_one_output_with_a_text_equivalent_and_within_80_kb(draw):
    (output,) = outputs(draw, made(8, n=20_000), title="Finding")
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.data["text/plain"] == output.metadata["image/png"]["alt"]
    assert output.data["text/plain"].startswith("Finding. ")
    assert len(base64.b64decode(output.data["image/png"])) <= figures.BUDGET_BYTES
    assert not plt.get_fignums()
    (alone,) = outputs(draw, made(1), title="t", alt="One curve.")
    assert alone.data["text/plain"] == "One curve."
    (first,), (second,) = (outputs(draw, made(2), title="t") for _ in range(2))
    assert first.data == second.data
