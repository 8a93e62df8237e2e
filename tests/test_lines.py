"""Each line goes through its values and ends at its name, and no name covers another."""

import base64

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from helpers.lesson import figures, line_panels, lines, show
from tests.drawn_figures import assert_readable, outputs

TWO = {"training": [0.7, 0.4, 0.25, 0.2], "validation": [0.8, 0.5, 0.45]}
GROUPS = {"loss": TWO, "mean IoU": {"validation": [0.5, 0.8, 0.9], "test": [0.4, 0.7, 0.85]}}
UNITS = {"loss": "cross-entropy a pixel", "mean IoU": "mIoU"}
NAN = float("nan")

pytestmark = pytest.mark.usefixtures("shell")
DRAWS = lines


def drawn_lines(ax) -> dict:
    """By what is written at their ends: the place that an annotation points at."""
    ends = {note.xy: note.get_text() for note in ax.texts}
    made = {}
    for line in ax.lines:
        there = ~np.isnan(line.get_ydata())
        end = (line.get_xdata()[there][-1], line.get_ydata()[there][-1])
        made[ends[end]] = line
    return made


def styles(ax) -> list[tuple]:
    return [(line.get_color(), str(line._dash_pattern), line.get_marker()) for line in ax.lines]


def without_arrows(texts) -> list:
    """Annotations whose extent is that of their text."""
    for text in texts:
        text.arrowprops = text.arrow_patch = None
    return list(texts)


def assert_all_readable(fig) -> None:
    """No text is cut off or lies on another, and no name on the data."""
    FigureCanvasAgg(fig).draw()
    texts = [*fig.texts]
    for ax in fig.axes:
        names = without_arrows(ax.texts)
        for name in names:
            assert name.get_window_extent().x0 > ax.bbox.x1, name.get_text()
        low, high = ax.get_xlim()
        shown = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
        texts += [*names, ax.xaxis.label, ax.yaxis.label, ax._left_title, *ax.get_yticklabels()]
        texts += [label for place, label in shown if low <= place <= high]
    assert_readable(fig, texts)


def test_a_line_goes_through_its_values_from_x_1_and_ends_at_its_name_and_last_value(drawn):
    show.lines(TWO, unit="cross-entropy a pixel", title="t")
    (ax,) = drawn[0][0].axes
    found = drawn_lines(ax)
    assert set(found) == {"training 0.200", "validation 0.450"}
    for text, values in zip(found, TWO.values(), strict=True):
        assert found[text].get_xdata().tolist() == list(range(1, len(values) + 1))
        assert found[text].get_ydata().tolist() == values
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "cross-entropy a pixel")
    low, high = ax.get_ylim()
    assert low < 0.2 and high > 0.8
    show.lines(TWO, unit="u", x="step", title="t")
    assert drawn[1][0].axes[0].get_xlabel() == "step"


def test_lines_are_told_apart_without_colours(drawn):
    show.lines({f"run {n}": [n, n + 1, n] for n in range(8)}, unit="u", title="t")
    (ax,) = drawn[0][0].axes
    assert len({(dash, marker) for _, dash, marker in styles(ax)}) == 8
    assert len({dash for _, dash, _ in styles(ax)[:4]}) == 4
    assert len({colour for colour, _, _ in styles(ax)[:6]}) == 6


def test_every_value_of_a_short_line_has_a_marker_and_of_a_long_one_some_have(drawn):
    values = {"short": np.arange(15.0), "long": np.arange(16.0), "gap": [*range(14), NAN, 1, NAN]}
    show.lines(values, unit="u", title="t")
    short, long, gap = (set(line.get_markevery()) for line in drawn[0][0].axes[0].lines)
    assert short == {*range(15)} and gap == {*range(14), 15}
    assert 15 in long and 6 <= len(long) <= 9


def test_the_last_value_has_a_marker_and_so_has_one_without_neighbours(drawn):
    values = {"gaps": [1, NAN, 2, NAN, NAN, *np.arange(40.0), NAN], "whole": np.arange(46.0)}
    show.lines(values, unit="u", title="t")
    gaps, whole = drawn[0][0].axes[0].lines
    assert {0, 2, 44} <= set(gaps.get_markevery()) and 45 in whole.get_markevery()
    for line in (gaps, whole):
        marked = line.get_markevery()
        assert not np.isnan(line.get_ydata()[marked]).any()
        assert 6 <= len(marked) <= 11
    # Between their ends, neither covers the other's.
    assert not set(gaps.get_markevery()) & set(whole.get_markevery()) - {0, 2, 44}


def test_nan_leaves_a_gap_and_the_chart_says_so(drawn):
    show.lines({"a": [1, NAN, 3, 4, NAN]}, unit="u", title="t")
    fig, alt = drawn[0]
    (line,) = fig.axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [1, NAN, 3, 4, NAN])
    assert fig.axes[0].texts[0].xy == (4, 4)
    assert "Gap in a line: no value" in [text.get_text() for text in fig.texts]
    assert ", 2 missing. Gap in a line: no value." in alt
    show.lines(TWO, unit="u", title="t")
    assert "Gap" not in drawn[1][1] and len(drawn[1][0].texts) == 1


def test_groups_stand_side_by_side_with_axes_of_their_own(drawn):
    show.lines(GROUPS, unit=UNITS, title="t")
    fig, _ = drawn[0]
    loss, iou = fig.axes
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["loss", "mean IoU"]
    assert [ax.get_ylabel() for ax in fig.axes] == list(UNITS.values())
    assert set(drawn_lines(loss)) == {"training\n0.200", "validation\n0.450"}
    assert loss.get_ylim() != iou.get_ylim()
    left, right = (ax.get_position() for ax in fig.axes)
    assert left.x1 < right.x0 and (left.y0, left.y1) == (right.y0, right.y1)
    # The same thing looks the same in both, another does not.
    assert styles(loss)[1] == styles(iou)[0]
    assert len({*styles(loss), *styles(iou)}) == 3


def test_charts_that_would_be_too_narrow_take_another_row(drawn):
    for count, rows in ((3, 1), (4, 2), (6, 2), (7, 3)):
        charts = {f"stride {n}": TWO for n in range(count)}
        show.lines(charts, unit="cross-entropy", title="t")
        fig, _ = drawn[-1]
        boxes = [ax.get_position() for ax in fig.axes]
        assert len({box.y0 for box in boxes}) == rows, count
        assert min(box.width for box in boxes) * 8 >= line_panels.NARROWEST_INCHES
        assert_all_readable(fig)


def test_alternative_text_says_how_each_line_went(drawn):
    show.lines(GROUPS, unit=UNITS, title="Validation stops improving.")
    assert drawn[0][1] == (
        "Validation stops improving. Lines, loss, cross-entropy a pixel: "
        "training 0.700 at epoch 1, 0.200 at epoch 4 (least 0.200 at 4, greatest 0.700 at 1); "
        "validation 0.800 at epoch 1, 0.450 at epoch 3 (least 0.450 at 3, greatest 0.800 at 1). "
        "mean IoU, mIoU: "
        "validation 0.500 at epoch 1, 0.900 at epoch 3 (least 0.500 at 1, greatest 0.900 at 3); "
        "test 0.400 at epoch 1, 0.850 at epoch 3 (least 0.400 at 1, greatest 0.850 at 3)."
    )
    show.lines({"once": [-12.5]}, unit="HU", title="t")
    assert drawn[1][1] == "t. Lines, HU: once −12.5 at epoch 1."


@pytest.mark.parametrize(
    "values",
    [
        TWO,
        GROUPS,
        {"once": [0.5]},
        {f"a name that goes over several lines, number {n}": [0.5 + n / 1e3] * 9 for n in range(8)},
        {"large": [12345.0, 25000.0, 1e-3], "small": [1e-7, 2e-7, 3e-7]},
        {"millions": [1.5e6, -2.25e6], "nothing": [0, 0]},
        {"almost constant": [0.9999991, 0.9999992, 0.9999993]},
        {"a chart with a name as long as this one": TWO, "another, of which the same is true": TWO},
        {"rate": {"learning rate": [0.002, 0.0015, 0.0005]}, "loss": TWO, "mean IoU": TWO},
        {f"a chart of which much is to be said, number {n}, " * 4: TWO for n in range(3)},
        {f"chart {n}": {f"line {m}": [m, n] for m in range(8)} for n in range(2)},
        {"short": [1.0, 2.0], "long": np.linspace(0, 3, 1000)},
    ],
)
def test_no_text_is_cut_off_or_lies_on_another(values, drawn):
    title = "A title long enough to be wrapped " * 3
    show.lines(values, unit="cross-entropy, mean over valid pixels of a batch", title=title)
    assert_all_readable(drawn[0][0])


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    texts=st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 0.5)), min_size=1, max_size=8),
    room=st.floats(0, 2),
)
def test_names_keep_apart_within_the_chart_and_in_the_order_of_their_lines(texts, room):
    wanted, heights = map(np.array, zip(*texts, strict=True))
    room += heights.sum()
    wanted = np.minimum(wanted, room)
    levels = line_panels.apart(wanted, heights, room)
    order = np.argsort(wanted, kind="stable")
    below, above = (levels + sign * heights / 2 for sign in (-1, 1))
    assert (below[order][1:] >= above[order][:-1] - 1e-9).all()
    assert below.min() >= -1e-9 and above.max() <= room + 1e-9


def test_a_name_stays_at_its_line_where_there_is_room():
    wanted, heights = np.array([1.0, 0.2, 1.8]), np.full(3, 0.2)
    assert line_panels.apart(wanted, heights, 2.0) == pytest.approx(wanted)
    # Two that meet move by the same amount.
    assert line_panels.apart(np.array([1.0, 1.0]), np.full(2, 0.2), 2.0) == pytest.approx(
        [0.9, 1.1]
    )


def test_what_a_lesion_is_measured_by_can_be_seen_on_white(drawn):
    show.lines({"lesion IoU": [0.5, 0.6], "lesion Dice": [0.6, 0.7]}, unit="u", title="t")
    tones = [line.get_color() for line in drawn[0][0].axes[0].lines]
    assert len(set(tones)) == 2 and figures.PALETTE["lesion"] not in tones


@pytest.mark.parametrize("order", [("mean", "lungs", "heart"), ("lungs", "mean", "heart")])
def test_what_the_palette_knows_has_its_colour_whatever_comes_before_it(order, drawn):
    show.lines({name: [1.0, 2.0] for name in order}, unit="u", title="t")
    lines_of = zip(order, drawn[0][0].axes[0].lines, strict=True)
    tones = {name: line.get_color() for name, line in lines_of}
    assert tones["lungs"] == figures.PALETTE["lungs"]
    assert tones["heart"] == figures.PALETTE["heart"]
    assert len(set(tones.values())) == 3


def test_no_thing_is_called_as_what_a_page_is_drawn_with():
    for name in ("grid search", "line", "muted lines", "training"):
        assert figures.known_colour(name) is None
        assert figures.colour(name, 1) == figures.SERIES[1]
    assert figures.known_colour("left lung") == figures.SERIES[0]


@pytest.mark.parametrize(
    "values",
    [
        [0.9999991, 0.9999992, 0.9999993],
        [-12345.6781, -12345.6782],
        [3.0, 3.0],
        [1e-9, 1e-9 + 1e-20],
    ],
)
def test_numbers_beside_an_axis_differ_even_where_values_hardly_do(values, drawn):
    show.lines({"a": values}, unit="u", title="t")
    numbers = [text.get_text() for text in drawn[0][0].axes[0].get_yticklabels()]
    assert len(set(numbers)) == len(numbers) >= 2


@pytest.mark.parametrize("values", [[1e-320], [1e-320, -3e-300, 2e-290], [1e-285, 2e-285], [0, 0]])
def test_values_too_small_for_an_axis_lie_at_0(values, drawn):
    show.lines({"a": values}, unit="u", title="t")
    (ax,) = drawn[0][0].axes
    assert ax.get_ylim()[0] < 0 < ax.get_ylim()[1]
    assert "0" in [text.get_text() for text in ax.get_yticklabels()]
    assert_all_readable(drawn[0][0])


@pytest.mark.parametrize(
    ("values", "unit", "words"),
    [
        ({}, "u", "no line"),
        ({"loss": {}, "mean IoU": {"a": [1]}}, "u", "no line"),
        ({"a": []}, "u", "a: a line is"),
        ({"a": [NAN, NAN]}, "u", "a: a line is"),
        ({"a": [[1.0], [2.0]]}, "u", "a: a line is"),
        ({"a": [1.0, 2.0, np.inf]}, "u", "a: value 3 is infinite"),
        ({f"{n}": [1.0] for n in range(9)}, "u", "8 lines can be told apart, not 9"),
        ({"a": "0.5, 0.4"}, "u", "a: a line is a sequence of numbers, not '0.5, 0.4'"),
        ({"a": [1.0], "b": [[1.0], [1.0, 2.0]]}, "u", "b: a line is"),
        ({"a": [10**400]}, "u", "a: a line is"),
        ({"loss": {"a": {"b": [1.0]}}}, "u", "a: a line is"),
        ({"a": {"b": [1.0]}, "c": [1.0]}, "u", "all are charts; a is a mapping, .* c is not"),
        (TWO, {"training": "u"}, "without charts, unit is one text, not {'training': 'u'}"),
        (GROUPS, {"loss": "u"}, "no unit for mean IoU"),
        (GROUPS, {**UNITS, "rate": "u"}, "unit for rate, where no chart is"),
    ],
)
def test_what_cannot_be_drawn_is_refused(values, unit, words, drawn):
    with pytest.raises(ValueError, match=words):
        show.lines(values, unit=unit, title="t")
    assert not drawn


def test_a_chart_is_one_output_with_a_text_equivalent_and_within_80_kb():
    noise = np.random.default_rng(0).random((8, 200))
    many = {f"line {n}": values for n, values in enumerate(noise)}
    for values in (TWO, {f"chart {n}": many for n in range(6)}):
        (output,) = outputs(show.lines, values, unit="u", title="Finding")
        assert set(output.data) == {"image/png", "text/plain"}
        assert output.data["text/plain"] == output.metadata["image/png"]["alt"]
        assert output.data["text/plain"].startswith("Finding. Lines, ")
        assert len(base64.b64decode(output.data["image/png"])) <= figures.BUDGET_BYTES
    assert not plt.get_fignums()


def test_alternative_text_can_be_given():
    (output,) = outputs(show.lines, {"a": [1, 2]}, unit="u", title="t", alt="One line.")
    assert output.data["text/plain"] == "One line."


def test_the_same_chart_has_the_same_bytes():
    (first,), (second,) = (outputs(show.lines, GROUPS, unit=UNITS, title="t") for _ in range(2))
    assert first.data == second.data
