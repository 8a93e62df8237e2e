"""Points lie on the pixels that they name; beside the image they lie on padding, counted."""

import base64

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from helpers.lesson import figures, phantoms, points, show
from tests.drawn_figures import assert_readable, outputs

ROWS, COLUMNS = 96, 128
IMAGE = np.random.default_rng(0).integers(0, 255, (ROWS, COLUMNS, 3)).astype(np.uint8)

pytestmark = pytest.mark.usefixtures("shell")
DRAWS = points


def kernel(rate: int, at=(48, 64), stride: int = 16) -> list[tuple[int, int]]:
    """The pixels that an atrous 3x3 convolution looks at."""
    steps = np.array([-1, 0, 1]) * rate * stride
    return [(at[0] + y, at[1] + x) for y in steps for x in steps]


RATES = {f"rate {rate}": kernel(rate) for rate in (1, 2, 3, 6, 12, 18)}


def places(ax) -> set[tuple[float, float]]:
    """(y, x) of the pixels under the marks, by what the axes say of the image."""
    left, right, bottom, top = ax.images[0].get_extent()
    per_column, per_row = (right - left) / COLUMNS, (bottom - top) / ROWS
    (marks,) = ax.collections
    return {
        ((y - top) / per_row - 0.5, (x - left) / per_column - 0.5) for x, y in marks.get_offsets()
    }


def caption(ax) -> str:
    return ax.texts[0].get_text().replace("\n", " ")


def rectangles(ax) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def test_a_mark_lies_on_the_centre_of_its_pixel(drawn):
    given = {"corners": [(0, 0), (95, 127)], "between": [(10.25, 20.5)]}
    show.points(IMAGE, given, title="t")
    corners, between = drawn[0][0].axes
    assert places(corners) == {(0, 0), (95, 127)}
    assert places(between) == {(10.25, 20.5)}
    assert [ax.get_title(loc="left") for ax in drawn[0][0].axes] == ["corners", "between"]


def test_points_beside_the_image_lie_on_padding_and_are_counted(drawn):
    show.points(IMAGE, RATES, title="t", limit=20)
    fig, _ = drawn[0]
    assert [caption(ax) for ax in fig.axes] == [
        "",
        "",
        *["3 of 9 outside"],
        *["8 of 9 outside"] * 3,
    ]
    for ax, wanted in zip(fig.axes, RATES.values(), strict=True):
        assert places(ax) == set(wanted)
        assert (ax.images[0].get_extent()) == [0, COLUMNS, ROWS, 0]
        padding = next(patch for patch in rectangles(ax) if patch.get_hatch())
        assert padding.get_zorder() < ax.images[0].get_zorder()
        (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        assert padding.get_xy() == (low, top)
        assert (padding.get_width(), padding.get_height()) == (high - low, bottom - top)
    assert "Hatched: padding, where there is no image" in [text.get_text() for text in fig.texts]


def test_the_image_ends_where_its_outermost_pixels_do(drawn):
    edges = [(-0.5, 64), (95.5, 64), (48, -0.5), (48, 127.5)]
    beyond = [(-0.6, 64), (95.6, 64), (48, -0.6), (48, 127.6)]
    show.points(IMAGE, {"edges": edges} | {str(at): [at] for at in beyond}, title="t")
    assert [caption(ax) for ax in drawn[0][0].axes] == ["", *["1 of 1 outside"] * 4]


def test_photographs_of_floats_are_shown_as_they_are(drawn):
    for image in (IMAGE, IMAGE / 255, IMAGE.astype(np.float32)):
        show.points(image, {"a": [(1, 2)]}, title="t")
        np.testing.assert_array_equal(drawn[-1][0].axes[0].images[0].get_array(), IMAGE)


def test_up_to_2_floats_run_from_0_to_1_and_above_to_255(drawn):
    photo = IMAGE / 255
    # Brightest value, and by how much the others were multiplied to be shown.
    for brightest, factor in ((1.02, 255), (2.0, 255), (3.0, 1)):
        photo[0, 0, 0] = brightest
        show.points(photo, {"a": [(1, 2)]}, title="t")
        shown = drawn[-1][0].axes[0].images[0].get_array()
        np.testing.assert_array_equal(shown, np.minimum(np.rint(photo * factor), 255))


def test_all_pictures_show_the_same_area_at_the_same_scale(drawn):
    show.points(IMAGE, RATES, title="t")
    fig, _ = drawn[0]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in fig.axes}) == 1
    FigureCanvasAgg(fig).draw()
    sizes = [ax.get_window_extent().size for ax in fig.axes]
    np.testing.assert_allclose(sizes, [sizes[0]] * len(sizes))


def test_points_beyond_the_limit_are_not_shown_but_counted(drawn):
    show.points(IMAGE, RATES, title="t", limit=2)
    fig, alt = drawn[0]
    # Half an image beyond each border: rows from -48 to 144, columns from -64 to 192.
    for ax, wanted in zip(fig.axes, RATES.values(), strict=True):
        near = {(y, x) for y, x in wanted if -48 <= y + 0.5 <= 144 and -64 <= x + 0.5 <= 192}
        assert places(ax) == near
    assert [caption(ax) for ax in fig.axes][2:] == [
        "3 of 9 outside",
        "8 of 9 outside, 3 too far to show",
        "8 of 9 outside, all too far to show",
        "8 of 9 outside, all too far to show",
    ]
    assert "rate 6, 9 points from y −48 to 144 and x −32 to 160, 8 of 9 outside, 3 too far" in alt
    assert "rate 1, 9 points from y 32 to 64 and x 48 to 80, none outside;" in alt
    width, height = (abs(np.diff(limits)[0]) for limits in (ax.get_xlim(), ax.get_ylim()))
    assert 2 <= width / COLUMNS < 2.3 and 2 <= height / ROWS < 2.3


def test_without_points_near_the_border_the_picture_is_the_image(drawn):
    show.points(IMAGE, {"rate 1": kernel(1)}, title="t")
    fig, alt = drawn[0]
    (ax,) = fig.axes
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, COLUMNS), (ROWS, 0))
    assert len(fig.texts) == 1 and "padding" not in alt


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    at=st.tuples(st.integers(-30, 130), st.integers(-30, 160)),
    rate=st.integers(1, 20),
    limit=st.floats(1, 5),
)
def test_marks_lie_whole_in_the_picture(at, rate, limit):
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "figure", lambda fig, alt: made.append(fig))
        given = {"one": kernel(rate, at), "two": kernel(1, at), "three": [at]}
        show.points(IMAGE, given, title="t", limit=limit)
    FigureCanvasAgg(made[0]).draw()
    for ax in made[0].axes:
        (marks,) = ax.collections
        if not len(marks.get_offsets()):
            continue
        pixels = ax.transData.transform(marks.get_offsets())
        radius = np.sqrt(marks.get_sizes()[0]) / 72 * made[0].dpi / 2
        box = ax.get_window_extent()
        assert (pixels - radius >= (box.x0 - 1, box.y0 - 1)).all()
        assert (pixels + radius <= (box.x1 + 1, box.y1 + 1)).all()


def test_the_image_is_dimmed_below_bright_marks_with_a_dark_edge(drawn):
    show.points(IMAGE, {"a": kernel(2)}, title="t")
    (ax,) = drawn[0][0].axes
    (veil,) = [patch for patch in rectangles(ax) if not patch.get_hatch() and patch.get_alpha()]
    assert veil.get_facecolor()[:3] == (0, 0, 0) and 0.3 <= veil.get_alpha() <= 0.6
    assert (veil.get_x(), veil.get_y()) == (0, 0)
    assert (veil.get_width(), veil.get_height()) == (COLUMNS, ROWS)
    (marks,) = ax.collections
    assert tuple(marks.get_facecolor()[0]) == (1, 1, 1, 1)
    assert tuple(marks.get_edgecolor()[0]) == (0, 0, 0, 1)
    assert ax.images[0].get_zorder() < veil.get_zorder() < marks.get_zorder()


def test_marks_are_as_large_as_neighbours_allow(drawn):
    for stride in (16, 1):
        given = {"near": kernel(1, stride=stride), "far": kernel(2, stride=stride)}
        show.points(IMAGE, given, title="t")
    diameters = []
    for fig, _ in drawn:
        FigureCanvasAgg(fig).draw()
        sizes = {float(ax.collections[0].get_sizes()[0]) for ax in fig.axes}
        assert len(sizes) == 1
        diameters.append(np.sqrt(sizes.pop()) / 72)
    assert diameters == pytest.approx([points.MARK_INCHES, points.LEAST_MARK_INCHES])


@pytest.mark.parametrize("limit", [1, 2, 6])
@pytest.mark.parametrize(
    "given",
    [
        {"rate 1": kernel(1)},
        RATES,
        {f"rate {rate}": kernel(rate, (90, 120)) for rate in range(1, 9)},
        {f"a rate of which much is to be said: {rate}": kernel(rate) for rate in (6, 12, 18)},
        {f"much is to be said of {rate}, and more " * 5: kernel(rate) for rate in (6, 12)},
    ],
)
@pytest.mark.parametrize("columns", [None, 8])
def test_no_text_is_cut_off_or_lies_on_another(given, limit, columns, drawn):
    title = "A title long enough to be wrapped " * 3
    show.points(IMAGE[..., 0], given, title=title, limit=limit, columns=columns)
    fig, _ = drawn[0]
    FigureCanvasAgg(fig).draw()
    texts = [*fig.texts, *(text for ax in fig.axes for text in (ax._left_title, *ax.texts))]
    assert_readable(fig, texts)


@pytest.mark.parametrize(
    ("image", "given", "options", "words"),
    [
        (IMAGE, {}, {}, "no point"),
        (IMAGE, {"a": []}, {}, "a: points are"),
        (IMAGE, {"a": np.zeros((0, 2))}, {}, "a: points are"),
        (IMAGE, {"a": [(1, 2, 3)]}, {}, r"a: points are \[n, 2\] of \(y, x\), not \(1, 3\)"),
        (IMAGE, {"a": [(1, np.nan)]}, {}, "a: a point needs finite"),
        (IMAGE, {"a": [(1, 2)]}, {"limit": 0.5}, "limit is a number of images from 1, not 0.5"),
        (IMAGE, {"a": [(1, 2)]}, {"limit": np.nan}, "limit is a number"),
        (IMAGE[0, 0], {"a": [(1, 2)]}, {}, "image: an image is"),
    ],
)
def test_what_cannot_be_drawn_is_refused(image, given, options, words, drawn):
    with pytest.raises(ValueError, match=words):
        show.points(image, given, title="t", **options)
    assert not drawn


def test_a_picture_is_one_output_with_a_text_equivalent_and_within_80_kb():
    image, _ = phantoms.skin_lesion(3)
    (output,) = outputs(show.points, image, RATES, title="Finding")
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.data["text/plain"] == output.metadata["image/png"]["alt"]
    assert output.data["text/plain"].startswith("Finding. Points on an image of 270 x 360 pixels: ")
    assert len(base64.b64decode(output.data["image/png"])) <= figures.BUDGET_BYTES
    assert not plt.get_fignums()


def test_alternative_text_can_be_given_and_the_title_stays_as_it_is(drawn):
    show.points(IMAGE, {"a": [(1, 2)]}, title="t", alt="A point.")
    show.points(IMAGE, {"x-ray": [(-1, 2)]}, title="An x-ray")
    assert drawn[0][1] == "A point."
    assert drawn[1][1].startswith(
        "An x-ray. Points on an image of 96 x 128 pixels: x-ray, 1 point "
    )
    assert "from y −1 to −1 and x 2 to 2, 1 of 1 outside." in drawn[1][1]


def test_the_same_picture_has_the_same_bytes():
    flat = np.zeros_like(IMAGE)
    (first,), (second,) = (outputs(show.points, flat, RATES, title="t") for _ in range(2))
    assert first.data == second.data
