"""Bars are as long as what was measured, say so in words, and keep out of each other's way."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from helpers.lesson import charts, figures, show
from tests.drawn_figures import assert_readable, outputs

THREE = {
    "size": {"float list": 31.5, "bytes": 31.4},
    "write": {"float list": [1.41, 1.35, 1.5], "bytes": [0.021, 0.019, 0.05]},
    "read": {"float list": [0.05, 0.06, 0.058], "bytes": [0.02, 0.022, 0.03]},
}
UNITS = {"size": "MB", "write": "s", "read": "s"}

pytestmark = pytest.mark.usefixtures("shell")
DRAWS = charts


def lengths(ax) -> list[float]:
    """From the first bar at the top to the last; all start at 0."""
    assert all(bar.get_x() == 0 for bar in ax.patches)
    to_page = ax.transData.transform
    heights = [to_page((0, bar.get_y()))[1] for bar in ax.patches]
    assert heights == sorted(heights, reverse=True)
    return [bar.get_width() for bar in ax.patches]


def labels(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def whiskers(ax) -> list[tuple[float, float]]:
    """The horizontal lines; the caps are vertical."""
    ends = [line.get_xdata() for line in ax.lines if len(set(line.get_ydata())) == 1]
    return [tuple(pair) for pair in ends]


def test_a_bar_is_as_long_as_its_value_and_says_it(drawn):
    show.bars({"float list": 12.34, "bytes": 3.1}, unit="MB", title="t")
    (ax,) = drawn[0][0].axes
    assert lengths(ax) == [12.34, 3.1]
    assert labels(ax) == ["float list", "bytes"]
    assert [text.get_text() for text in ax.texts] == ["12.3", "3.1"]
    assert ax.get_xlabel() == "MB"
    assert ax.get_xlim()[0] == 0
    assert not whiskers(ax)


def test_repeated_measurements_become_a_median_with_their_whole_range(drawn):
    show.bars({"read": [5.0, 1.0, 2.0], "once": [4.0]}, unit="s", title="t")
    fig, alt = drawn[0]
    assert lengths(fig.axes[0]) == [2, 4]
    assert whiskers(fig.axes[0]) == [(1, 5)]
    note = "Bars: median of 3 runs; whiskers: least to greatest"
    assert note in [text.get_text() for text in fig.texts]
    assert alt == f"t. Bars, in s: read 2 (from 1 to 5), once 4. {note}."


def test_a_spread_can_be_handed_over(drawn):
    show.bars({"a": 2, "b": 3}, unit="s", title="t", spread={"b": (1, 4)})
    assert lengths(drawn[0][0].axes[0]) == [2, 3]
    assert whiskers(drawn[0][0].axes[0]) == [(1, 4)]
    show.bars({"x": {"a": 2}, "y": {"a": 3}}, unit="s", title="t", spread={"y": {"a": (3, 5)}})
    assert [whiskers(ax) for ax in drawn[1][0].axes] == [[], [(3, 5)]]
    assert "median" not in drawn[1][1]


def test_groups_stand_side_by_side_with_axes_of_their_own(drawn):
    show.bars(THREE, unit=UNITS, title="t")
    fig, alt = drawn[0]
    size, write, read = fig.axes
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["size", "write", "read"]
    assert [ax.get_xlabel() for ax in fig.axes] == ["MB", "s", "s"]
    assert lengths(size) == [31.5, 31.4]
    assert lengths(write) == [1.41, 0.021]
    assert lengths(read) == [0.058, 0.022]
    assert read.get_xlim()[1] < 0.1 < write.get_xlim()[1] < size.get_xlim()[1]
    boxes = [ax.get_position() for ax in fig.axes]
    assert len({(box.y0, box.y1) for box in boxes}) == 1
    assert boxes[0].x1 < boxes[1].x0 and boxes[1].x1 < boxes[2].x0
    assert "size in MB: float list 31.5, bytes 31.4; write in s: float list 1.41" in alt


def test_names_that_all_groups_share_are_written_once(drawn):
    show.bars(THREE, unit=UNITS, title="t")
    assert [labels(ax) for ax in drawn[0][0].axes] == [["float list", "bytes"], ["", ""], ["", ""]]
    show.bars({"read": {"a": 1, "b": 2}, "size": {"b": 1, "c": 2}}, unit="s", title="t")
    left, right = drawn[1][0].axes
    assert (labels(left), labels(right)) == (["a", "b"], ["b", "c"])
    # The same thing has the same colour in both.
    assert left.patches[1].get_facecolor() == right.patches[0].get_facecolor()
    assert left.patches[0].get_facecolor() != right.patches[1].get_facecolor()


@pytest.mark.parametrize(
    "values",
    [
        {"float list": 12.3, "bytes": 3.1},
        {"nothing": 0, "all": 0},
        {"a": 1234567, "b": 0.00001},
        {"one-hot, float32": 1474.56, "a name that does not fit on a single line of text": 1e-3},
        THREE,
        {"read": {"DICOM, one file a slice": [0.2, 0.3], "records": [0.0101, 0.012]}, "size": {}},
    ],
)
def test_no_text_is_cut_off_or_lies_on_another(values, drawn):
    values = {name: v for name, v in values.items() if v != {}}
    show.bars(values, unit="kB a mask", title="A title long enough to be wrapped " * 3)
    fig, _ = drawn[0]
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    texts = [*fig.texts]
    for ax in fig.axes:
        texts += [*ax.texts, *ax.get_yticklabels(), ax.xaxis.label, ax.title, ax._left_title]
        low, high = ax.get_xlim()
        ticks = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
        texts += [label for place, label in ticks if low <= place <= high]
    assert_readable(fig, texts)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(value=st.floats(0, 1e12, allow_nan=False))
def test_a_number_is_said_to_within_half_a_percent(value):
    said = float(charts._number(value).replace(",", ""))
    assert said == pytest.approx(value, rel=0.005, abs=0)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (1, "1"), (0.01234, "0.0123"), (12.345, "12.3"), (99.96, "100"), (1474.6, "1,475")],
)
def test_a_number_is_said_as_people_write_it(value, said):
    assert charts._number(value) == said


@pytest.mark.parametrize(
    ("values", "spread", "words"),
    [
        ({}, None, "no bar"),
        ({"read": {}, "write": {"a": 1}}, None, "no bar"),
        ({"a": -1.0}, None, "a: a bar needs"),
        ({"a": [1.0, np.nan]}, None, "a: a bar needs"),
        ({"a": []}, None, "a: a bar needs"),
        ({"a": 1.0}, {"a": (2, 3)}, "a: 1 is not between 2 and 3"),
        ({"a": 1.0}, {"b": (0, 2)}, "spread for b"),
        ({"read": {"a": 1.0}}, {"write": {"a": (0, 2)}}, "spread for write"),
    ],
)
def test_what_cannot_be_a_bar_is_refused(values, spread, words, drawn):
    with pytest.raises(ValueError, match=words):
        show.bars(values, unit="s", title="t", spread=spread)
    assert not drawn


def test_units_belong_to_the_groups_that_are_there(drawn):
    with pytest.raises(ValueError, match="unit for sizes"):
        show.bars(THREE, unit={**UNITS, "sizes": "MB"}, title="t")
    with pytest.raises(ValueError, match="no unit for write, read"):
        show.bars(THREE, unit={"size": "MB"}, title="t")


def test_a_chart_is_one_output_with_a_text_equivalent_and_within_80_kb():
    many = {f"quantity number {i}": list(np.arange(1, 6) * (i + 1.0)) for i in range(12)}
    for values in ({"a": 1}, {"left": many, "right": many}):
        (output,) = outputs(show.bars, values, unit="s", title="Finding")
        assert set(output.data) == {"image/png", "text/plain"}
        alt = output.metadata["image/png"]["alt"]
        assert output.data["text/plain"] == alt
        assert alt.startswith("Finding. Bars, ")
        png = base64.b64decode(output.data["image/png"])
        assert len(png) <= figures.BUDGET_BYTES
        assert Image.open(io.BytesIO(png)).width >= 800
    assert not plt.get_fignums()


def test_alternative_text_can_be_given():
    (output,) = outputs(show.bars, {"a": 1}, unit="s", title="t", alt="One bar.")
    assert output.data["text/plain"] == "One bar."


def test_the_same_chart_has_the_same_bytes():
    (first,), (second,) = (outputs(show.bars, THREE, unit=UNITS, title="t") for _ in range(2))
    assert first.data == second.data
