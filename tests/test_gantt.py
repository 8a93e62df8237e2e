"""Bars lie where the work was done, waiting shows without colour, and words say it all again."""

import base64
import io
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from helpers.lesson import figures, gantt, show
from helpers.timing import spans
from tests.drawn_figures import assert_readable, outputs

# Two turns: wait 30 ms and 10 ms, train 20 ms and 40 ms; two crops overlap for 10 ms.
ROWS = [
    ("read", 0.0, 0.01),
    ("read", 0.02, 0.03),
    ("crop", 0.01, 0.03),
    ("crop", 0.02, 0.06),
    ("wait", 0.0, 0.03),
    ("train", 0.03, 0.05),
    ("wait", 0.05, 0.06),
    ("train", 0.06, 0.1),
]
SPANS = spans.in_lanes(ROWS)

pytestmark = pytest.mark.usefixtures("shell")
DRAWS = gantt


def recorded(rows=ROWS, stages=("read", "crop")):
    """What a timeline is to a chart."""
    return types.SimpleNamespace(spans=spans.in_lanes(rows), stages=stages)


def labels(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def bars(ax, name, hatched=False) -> list[tuple[float, float, float, float]]:
    """`(start, stop, top, bottom)` of what is drawn in a row, in the units of the axes."""
    middle = ax.get_yticks()[labels(ax).index(name)]
    found = []
    for collection in ax.collections:
        if bool(collection.get_hatch()) is not hatched:
            continue
        for path in collection.get_paths():
            (left, top), (right, bottom) = path.get_extents().get_points()
            if abs(top - middle) < 0.5 and abs(bottom - middle) < 0.5:
                found.append((left, right, top, bottom))
    rows = dict(zip(labels(ax), ax.get_yticks(), strict=True))
    nearest = [
        bar
        for bar in found
        if min(rows, key=lambda row: abs(rows[row] - (bar[2] + bar[3]) / 2)) == name
    ]
    return sorted(nearest)


def times(some) -> list[tuple[float, float]]:
    return [(round(left, 6), round(right, 6)) for left, right, *_ in some]


def test_each_call_is_a_bar_from_its_start_to_its_stop(drawn):
    show.timeline(recorded(), title="t")
    ((fig, _),) = drawn
    (ax,) = fig.axes
    assert labels(ax) == ["read", "crop", "train"]
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == "time (ms)" and ax.get_xlim() == pytest.approx((0, 100))
    assert times(bars(ax, "read")) == [(0, 10), (20, 30)]
    assert times(bars(ax, "crop")) == [(10, 30), (20, 60)]
    assert times(bars(ax, "train")) == [(30, 50), (60, 100)]


def test_waiting_is_hatched_in_the_row_of_the_step_and_nowhere_else(drawn):
    show.timeline(recorded(), title="t")
    (ax,) = drawn[0][0].axes
    assert times(bars(ax, "train", hatched=True)) == [(0, 30), (50, 60)]
    assert not bars(ax, "read", hatched=True) and not bars(ax, "crop", hatched=True)
    assert any("hatched" in text.get_text() for text in drawn[0][0].texts)


def test_calls_that_overlap_lie_below_one_another_within_their_row(drawn):
    show.timeline(recorded(), title="t")
    (ax,) = drawn[0][0].axes
    (_, _, _, first_bottom), (_, _, second_top, _) = bars(ax, "crop")
    assert first_bottom <= second_top
    tops = {bar[2] for bar in bars(ax, "read")}
    assert len(tops) == 1
    edges = [(min(b[2] for b in bars(ax, n)), max(b[3] for b in bars(ax, n))) for n in labels(ax)]
    assert edges[0][1] < edges[1][0] and edges[1][1] < edges[2][0]


def test_what_each_row_did_is_written_beside_it(drawn):
    show.timeline(recorded(), title="t")
    (ax,) = drawn[0][0].axes
    assert [text.get_text() for text in ax.texts] == [
        "2 calls of 10 ms",
        "2 calls of 30 ms",
        "works 60 %",
    ]


def test_the_alternative_text_says_the_fractions(drawn):
    show.timeline(recorded(), title="The model waits.")
    assert drawn[0][1] == (
        "The model waits. A Gantt chart of 100 ms: read worked 20 % of it, 2 calls of 10 ms; "
        "crop worked 50 % of it, 2 calls of 30 ms, up to 2 at once; the training step worked 60 % "
        "of the time and waited 40 %; its median wait is 20 ms."
    )


def test_before_and_after_share_one_scale_of_time(drawn):
    slow = [(stage, 2 * start, 2 * stop) for stage, start, stop in ROWS]
    show.timeline({"before": recorded(slow), "after": recorded()}, title="t")
    ((fig, alt),) = drawn
    before, after = fig.axes
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["before", "after"]
    assert before.get_xlim() == after.get_xlim() == pytest.approx((0, 200))
    assert before.get_position().x0 == after.get_position().x0
    assert before.get_position().width == after.get_position().width
    assert before.get_position().y0 > after.get_position().y1
    assert times(bars(before, "train"))[-1] == (120, 200)
    assert times(bars(after, "train"))[-1] == (60, 100)
    assert alt.startswith("t. Gantt charts. before, 200 ms: read") and "after, 100 ms" in alt


def test_a_stage_that_did_nothing_while_the_step_ran_says_so(drawn):
    show.timeline(recorded([("read", -0.02, -0.01), *ROWS[4:]], ["read"]), title="t")
    ((fig, alt),) = drawn
    assert next(text.get_text() for text in fig.axes[0].texts) == "no call"
    assert "read did nothing" in alt


def test_what_happened_before_the_first_step_and_after_the_last_is_not_shown(drawn):
    rows = [("read", -0.05, 0.005), ("read", 0.095, 0.2), *ROWS[4:]]
    shifted = [(stage, start + 0.05, stop + 0.05) for stage, start, stop in rows]
    show.timeline(recorded(shifted, ["read"]), title="t")
    (ax,) = drawn[0][0].axes
    assert ax.get_xlim() == pytest.approx((0, 100))
    assert times(bars(ax, "read")) == [(0, 5), (95, 100)]


def test_without_steps_there_are_only_stages(drawn):
    show.timeline(spans.in_lanes(ROWS[:4]), title="t")
    ((fig, alt),) = drawn
    assert labels(fig.axes[0]) == ["read", "crop"]
    assert not any("hatched" in text.get_text() for text in fig.texts)
    assert "training" not in alt


def test_rows_are_in_the_order_of_the_pipeline(drawn):
    show.timeline(recorded(stages=("crop", "read")), title="t")
    show.timeline(SPANS, title="t")
    found = [labels(fig.axes[0]) for fig, _ in drawn]
    assert found == [["crop", "read", "train"], ["read", "crop", "train"]]


def test_a_little_is_not_nothing(drawn):
    show.timeline([spans.Span("read", 0, 0.001), spans.Span("other", 0, 2)], title="t")
    assert "read worked less than 1 % of it" in drawn[0][1]


def test_long_records_count_in_seconds(drawn):
    show.timeline([spans.Span("train", 0, 2), spans.Span("wait", 2, 4)], title="t")
    ((fig, alt),) = drawn
    assert fig.axes[0].get_xlabel() == "time (s)"
    assert times(bars(fig.axes[0], "train")) == [(0, 2)]
    assert "A Gantt chart of 4 s" in alt


def test_a_wait_that_is_too_short_to_be_seen_is_not_made_wider(drawn):
    rows = [("wait", 0.0, 1e-5), ("train", 1e-5, 0.5), ("wait", 0.5, 0.6), ("train", 0.6, 1.0)]
    show.timeline(spans.in_lanes(rows), title="t")
    assert times(bars(drawn[0][0].axes[0], "train", hatched=True)) == [(500, 600)]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 ms"), (2e-6, "2 µs"), (9.4e-5, "94 µs"), (0.00123, "1.2 ms"), (0.12345, "123 ms")],
)
def test_lengths_are_said_with_two_digits_or_more(seconds, said, drawn):
    show.timeline([spans.Span("read", 1, 1 + seconds), spans.Span("other", 0, 2)], title="t")
    assert next(text.get_text() for text in drawn[0][0].axes[0].texts) == f"1 call of {said}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ((), "nothing was recorded"),
        ({}, "no timeline"),
        ({"a": SPANS, "b": ()}, "nothing was recorded"),
    ],
)
def test_what_cannot_be_drawn_is_refused(line, words, drawn):
    with pytest.raises(ValueError, match=words):
        show.timeline(line, title="t")
    assert not drawn


def busy_pipeline(turns=40, workers=3, seed=0):
    """A record as of several workers that keep a step fed most of the time."""
    rng = np.random.default_rng(seed)
    rows, free, now = [], [0.0] * workers, 0.0
    for _ in range(turns):
        worker = int(np.argmin(free))
        read, crop, step = rng.uniform(0.01, 0.03, 3)
        ready = free[worker] + read + crop
        rows.append(("read", free[worker], free[worker] + read))
        rows.append(("crops.random, four crops of every image", free[worker] + read, ready))
        rows.append(("wait", now, max(now, ready)))
        now, free[worker] = max(now, ready) + step, ready
        rows.append(("train", now - step, now))
    return spans.in_lanes(rows)


@pytest.mark.parametrize(
    "line",
    [
        recorded(),
        busy_pipeline(),
        SPANS[:1],
        [spans.Span("read", 1.0, 1.0)],
        {"before": busy_pipeline(300, 1), "after": busy_pipeline(300, 12)},
        {"before": busy_pipeline(60, 1), "a name": SPANS, "after": busy_pipeline(60)},
    ],
)
def test_no_text_is_cut_off_or_lies_on_another(line, drawn):
    show.timeline(line, title="A title long enough to be wrapped " * 3)
    fig, _ = drawn[0]
    FigureCanvasAgg(fig).draw()
    texts = [*fig.texts]
    for ax in fig.axes:
        texts += [*ax.texts, *ax.get_yticklabels(), ax.xaxis.label, ax._left_title]
        low, high = ax.get_xlim()
        ticks = [tick for tick in ax.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        texts += [tick.label1 for tick in ticks if tick.label1.get_visible()]
    assert_readable(fig, texts)


def test_a_chart_is_one_output_with_a_text_equivalent_and_within_80_kb():
    for line in (recorded(), {"a": busy_pipeline(400, 1), "b": busy_pipeline(400, 8)}):
        (output,) = outputs(show.timeline, line, title="Finding")
        assert set(output.data) == {"image/png", "text/plain"}
        alt = output.metadata["image/png"]["alt"]
        assert output.data["text/plain"] == alt and alt.startswith("Finding. ")
        png = base64.b64decode(output.data["image/png"])
        assert len(png) <= figures.BUDGET_BYTES
        assert Image.open(io.BytesIO(png)).width >= 800
    assert not plt.get_fignums()


def test_alternative_text_can_be_given_and_the_same_record_has_the_same_bytes():
    (first,), (second,) = (
        outputs(show.timeline, busy_pipeline(), title="t", alt="One chart.") for _ in range(2)
    )
    assert first.data["text/plain"] == "One chart."
    assert first.data == second.data
