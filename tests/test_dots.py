"""Each run is a dot that no other hides, and its row says the mean and how surely it is known."""

import base64

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats

from helpers import evaluation
from helpers.lesson import dots, figures, show
from tests.drawn_figures import assert_readable, outputs

THREE = {
    "nothing": [0.41, 0.52, 0.45],
    "class weights": [0.56, 0.49, 0.6],
    "element sampling with hard cases": [0.7, 0.71, 0.705],
}

pytestmark = pytest.mark.usefixtures("shell")
DRAWS = dots


def labels(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def places(ax) -> list[list[float]]:
    """The dots of each row, from the top, as they were given."""
    return [np.asarray(one.get_offsets())[:, 0].tolist() for one in ax.collections]


def horizontal(ax) -> list[tuple[float, float]]:
    """The intervals; the lines between rows reach from edge to edge, in axes coordinates."""
    ends = [
        tuple(line.get_xdata())
        for line in ax.lines
        if line.get_transform() == ax.transData and len(set(line.get_ydata())) == 1
    ]
    return ends


def ticks(ax) -> list[float]:
    upright = [line for line in ax.lines if line.get_transform() == ax.transData]
    return [line.get_xdata()[0] for line in upright if len(set(line.get_xdata())) == 1]


def test_each_run_is_a_dot_in_the_row_of_its_name(drawn):
    show.dots(THREE, unit="average precision", title="t")
    (ax,) = drawn[0][0].axes
    assert labels(ax) == ["nothing", "class weights", "element sampling with\nhard cases"]
    assert places(ax) == list(THREE.values())
    assert ax.get_xlabel() == "average precision"
    assert ax.yaxis_inverted()
    bottoms = [0, *(line.get_ydata()[0] for line in ax.lines[:2]), ax.get_ylim()[0]]
    for row, one in enumerate(ax.collections):
        heights = np.asarray(one.get_offsets())[:, 1]
        assert (bottoms[row] < heights).all() and (heights < bottoms[row + 1]).all()


def test_tick_and_line_are_the_mean_and_its_interval_by_student(drawn):
    show.dots(THREE, unit="u", title="t")
    fig, alt = drawn[0]
    (ax,) = fig.axes
    for runs, line, tick in zip(THREE.values(), horizontal(ax), ticks(ax), strict=True):
        low, high = stats.ttest_1samp(runs, 0).confidence_interval(0.95)
        assert line == pytest.approx((low, high))
        assert tick == pytest.approx(np.mean(runs))
    said = ["0.460 (0.322 to 0.598)", "0.550 (0.412 to 0.688)", "0.705 (0.693 to 0.717)"]
    assert [text.get_text() for text in ax.texts] == said
    note = "Dots: runs, 3 a row; tick: mean; line: 95 % interval of the mean, ± t · sd / √n"
    assert note in [text.get_text() for text in fig.texts]
    assert alt.startswith("t. Dots in rows, u: nothing 0.460 (0.322 to 0.598), runs 0.410, 0.520,")
    assert alt.endswith(f"{note}.")


def test_one_run_has_no_interval_and_equal_runs_have_none_either(drawn):
    show.dots({"one": 0.2, "same": [0.3, 0.3]}, unit="u", title="t")
    fig, alt = drawn[0]
    (ax,) = fig.axes
    assert places(ax) == [[0.2], [0.3, 0.3]]
    assert not horizontal(ax)
    assert [text.get_text() for text in ax.texts] == ["0.200", "0.300"]
    assert "interval" not in alt


def test_an_interval_that_is_handed_over_is_drawn_as_it_is(drawn):
    given = evaluation.Interval(0.71, 0.62, 0.8)
    show.dots({"bootstrap": given, "runs": [0.5, 0.7]}, unit="u", title="t")
    fig, alt = drawn[0]
    (ax,) = fig.axes
    assert horizontal(ax)[0] == (0.62, 0.8) and ticks(ax)[0] == 0.71
    assert places(ax) == [[0.5, 0.7]]
    assert ax.texts[0].get_text() == "0.71 (0.62 to 0.80)"
    assert "without dots: a value and its interval" in alt
    # Three numbers are three runs.
    show.dots({"runs": [0.71, 0.62, 0.8]}, unit="u", title="t")
    assert places(drawn[1][0].axes[0]) == [[0.71, 0.62, 0.8]]


def test_the_value_of_a_percentile_interval_may_lie_outside(drawn):
    show.dots({"skewed": evaluation.Interval(0.9, 0.5, 0.8)}, unit="u", title="t")
    (ax,) = drawn[0][0].axes
    assert ticks(ax) == [0.9]
    assert ax.get_xlim()[0] < 0.5 and ax.get_xlim()[1] > 0.9


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    runs=st.lists(
        st.lists(st.sampled_from([0.1, 0.5, 0.501, 0.52, 0.9]), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    )
)
def test_no_dot_covers_another_nor_the_line_of_the_mean(runs):
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dots, "figure", lambda fig, alt: made.append(fig))
        show.dots({f"row {n}": row for n, row in enumerate(runs)}, unit="u", title="t")
    (fig,) = made
    FigureCanvasAgg(fig).draw()
    (ax,) = fig.axes
    inches = [ax.transData.transform(one.get_offsets()) / fig.dpi for one in ax.collections]
    together = np.concatenate(inches)
    apart = np.hypot(*(together[:, None] - together[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > 0.99 * dots.DOT_INCHES
    upright = [line for line in ax.lines if len(set(line.get_xdata())) == 1]
    for row, tick in zip(inches, upright, strict=True):
        top = ax.transData.transform(tick.get_xydata())[:, 1].max() / fig.dpi
        assert row[:, 1].min() - dots.DOT_INCHES / 2 > top


def test_a_reference_is_a_named_line(drawn):
    show.dots(THREE, unit="u", title="t", reference=("prevalence", 0.05))
    fig, alt = drawn[0]
    (ax,) = fig.axes
    (line,) = [line for line in ax.lines if list(line.get_xdata()) == [0.05, 0.05]]
    assert list(line.get_ydata()) == [0, 1] and line.get_linestyle() == "--"
    assert ax.texts[-1].get_text() == "prevalence" and ax.texts[-1].xy == (0.05, 1)
    assert ax.get_xlim()[0] < 0.05
    assert "A vertical line marks prevalence, 0.05." in alt


@pytest.mark.parametrize(
    ("values", "reference"),
    [
        (THREE, ("prevalence", 0.05)),
        (THREE, ("the best that anybody has reached so far", 0.75)),
        ({"a": [-0.123, 0.04], "b": [0, 0, 0]}, ("no difference", 0.0)),
        ({"a": [123456.0, 654321.0], "b": 1e-3}, None),
        ({f"treatment number {n}": np.arange(10) / 10 for n in range(12)}, ("half", 0.45)),
        ({"zero": 0}, None),
    ],
)
def test_no_text_is_cut_off_or_lies_on_another(values, reference, drawn):
    title = "A title long enough to be wrapped " * 3
    show.dots(values, unit="average precision", title=title, reference=reference)
    fig, _ = drawn[0]
    FigureCanvasAgg(fig).draw()
    (ax,) = fig.axes
    low, high = ax.get_xlim()
    shown = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    texts = [*fig.texts, *ax.texts, *ax.get_yticklabels(), ax.xaxis.label]
    texts += [label for place, label in shown if low <= place <= high]
    assert_readable(fig, texts)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": [-0.2, 0.1, 0.1]}, "0.000 (−0.430 to 0.430)"),
        ({"a": [-0.2, 0.2 - 1e-6]}, "0.00 (−2.54 to 2.54)"),
        ({"a": 1234.4}, "1,234"),
        ({"a": 12.34, "b": 1.0}, "12.3"),
        ({"a": 0.0123}, "0.0123"),
        ({"a": 0}, "0"),
    ],
)
def test_numbers_are_said_as_people_write_them(values, said, drawn):
    show.dots(values, unit="u", title="t")
    assert drawn[0][0].axes[0].texts[0].get_text() == said


@pytest.mark.parametrize(
    ("values", "reference", "words"),
    [
        ({}, None, "no row"),
        ({"a": []}, None, "a: runs are"),
        ({"a": [1.0, np.nan]}, None, "a: runs are"),
        ({"a": [[1.0, 2.0]]}, None, "a: runs are"),
        ({"a": evaluation.Interval(0.5, 0.6, 0.4)}, None, "a: 0.5"),
        ({"a": evaluation.Interval(np.nan, 0.4, 0.6)}, None, "a: nan"),
        ({"a": 1.0}, 0.05, "reference is a pair"),
        ({"a": 1.0}, {"prevalence": 0.05}, "reference is a pair"),
        ({"a": 1.0}, ("prevalence", np.nan), "prevalence: a reference"),
    ],
)
def test_what_cannot_be_drawn_is_refused(values, reference, words, drawn):
    with pytest.raises(ValueError, match=words):
        show.dots(values, unit="u", title="t", reference=reference)
    assert not drawn


def test_a_chart_is_one_output_with_a_text_equivalent_and_within_80_kb():
    many = {f"treatment number {n}": np.linspace(0, 1, 30) ** n for n in range(1, 13)}
    (output,) = outputs(show.dots, many, unit="u", title="Finding", reference=("half", 0.5))
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.data["text/plain"] == output.metadata["image/png"]["alt"]
    assert output.data["text/plain"].startswith("Finding. Dots in rows, u: treatment number 1 ")
    assert len(base64.b64decode(output.data["image/png"])) <= figures.BUDGET_BYTES
    assert not plt.get_fignums()


def test_alternative_text_can_be_given():
    (output,) = outputs(show.dots, {"a": 1}, unit="u", title="t", alt="One dot.")
    assert output.data["text/plain"] == "One dot."


def test_the_same_chart_has_the_same_bytes():
    (first,), (second,) = (outputs(show.dots, THREE, unit="u", title="t") for _ in range(2))
    assert first.data == second.data
