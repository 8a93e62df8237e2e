"""Pictures are where, as large and as readable as they claim, and notebooks store them well."""

import base64
import io
import tomllib
import types

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import SimpleITK as sitk
from IPython.utils.capture import capture_output
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from nbconvert import HTMLExporter
from PIL import Image

from helpers.lesson import phantoms, show
from helpers.lesson.show import leafing, page, panels, views
from helpers.timing import spans
from helpers.volume import Volume
from tests.drawn_figures import assert_readable, outputs

pytestmark = pytest.mark.usefixtures("shell")
DRAWS = page
SPACING = (5.0, 2.0, 1.0)
# One bright voxel towards the head, at the back, on the left of the patient.
VOXELS = np.zeros((20, 30, 40), np.int16)
VOXELS[17, 26, 35] = 1000
BODY = Volume(VOXELS, SPACING)
# plane: where that voxel's centre lies, in mm from the left and from the top of its picture
LANDMARK = {"axial": (35.5, 53), "coronal": (35.5, 12.5), "sagittal": (53, 12.5)}
LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}  # left, right, top, bottom
SQUARE = np.zeros((30, 40), np.uint8)
SQUARE[10:20, 5:15] = 1
NOISE = np.random.default_rng(0)


def brightest(ax) -> tuple[float, float]:
    """The centre of the brightest pixel, in mm from the left and from the top."""
    pixels, (left, right, bottom, top) = ax.images[0].get_array(), ax.images[0].get_extent()
    assert (left, top) == (0, 0) and ax.get_xlim()[0] == ax.get_ylim()[1] == 0
    row, column = np.unravel_index(np.argmax(pixels), pixels.shape)
    return (column + 0.5) * right / pixels.shape[1], (row + 0.5) * bottom / pixels.shape[0]


def written(ax) -> dict[str, tuple[float, float]]:
    """What is written on a picture, and where in parts of its width and height."""
    size = ax.images[0].get_extent()[1:3]
    return {text.get_text(): tuple(np.divide(text.get_position(), size)) for text in ax.texts}


def contours(ax, tone) -> list[np.ndarray]:
    """The polygons `[n, (x, y)]` of the outlines in a colour."""
    edges = {one: one.get_edgecolor()[:, :3] for one in ax.collections}
    ours = [one for one, edge in edges.items() if len(edge) and np.allclose(edge, to_rgb(tone))]
    found = [path.to_polygons(closed_only=False) for one in ours for path in one.get_paths()]
    return [polygon for polygons in found for polygon in polygons]


def stored(function, *args, **options) -> tuple[str, Image.Image, str]:
    """MIME type, picture and alternative text of what a call leaves in a notebook."""
    (output,) = outputs(function, *args, **options)
    (mime,) = [mime for mime in output.data if mime.startswith("image/")]
    data = base64.b64decode(output.data[mime])
    assert len(data) <= 80_000 and output.metadata[mime]["width"] == 800
    assert output.metadata[mime]["alt"] == output.data["text/plain"]
    return mime, Image.open(io.BytesIO(data)), output.data["text/plain"]


# Which way up, and how large


@pytest.mark.parametrize("stored_as", ["LPS", "RAS", "LAI", "SPR", "AIL"])
def test_however_voxels_are_stored_a_landmark_lies_where_it_is_in_the_patient(drawn, stored_as):
    turned = Volume.from_sitk(sitk.DICOMOrient(BODY.to_sitk(), stored_as))
    at = tuple(int(n) for n in np.argwhere(turned.voxels)[0])
    show.planes(turned, at, masks={"spot": turned.voxels > 0}, title="t")
    ((fig, _),) = drawn
    headings = [ax.get_title(loc="left") for ax in fig.axes]
    assert headings == ["axial 17", "coronal 26", "sagittal 35"]
    for ax, (plane, place) in zip(fig.axes, LANDMARK.items(), strict=True):
        assert brightest(ax) == pytest.approx(place)
        down, across = (line.get_data() for line in ax.lines[-2:])
        assert (across[0][0], down[1][0]) == pytest.approx(place)  # the cross-hair
        (outline,) = contours(ax, panels.OTHERS[0])
        assert outline.mean(axis=0) == pytest.approx(place, abs=1)
        sides = {letter: written(ax)[letter] for letter in LETTERS[plane]}
        left, right, top, bottom = sides.values()
        assert left[0] < 0.1 < 0.9 < right[0] and top[1] < 0.1 < 0.9 < bottom[1]


def test_a_millimetre_has_one_length_on_paper_in_all_pictures(drawn):
    show.planes(BODY, title="t")
    show.images({"a": SQUARE, "b": SQUARE[:, :15]}, spacing=(2, 3), title="t")
    for fig, _ in drawn:
        fig.draw_without_rendering()
        lengths = []
        for ax in fig.axes:
            box = ax.get_window_extent()
            lengths += [box.width / ax.get_xlim()[1], box.height / ax.get_ylim()[0]]
        assert np.ptp(lengths) < 0.01 * lengths[0]
    bar = next(line for line in drawn[1][0].axes[0].lines)
    assert np.ptp(bar.get_xdata()) == 20 and "20 mm" in written(drawn[1][0].axes[0])


def test_a_bare_array_has_its_last_slice_on_top_no_letters_and_no_scale_unless_spaced(drawn):
    show.images({"a": VOXELS}, plane="coronal", at=26, spacing=SPACING, title="t")
    show.images({"a": VOXELS[..., np.newaxis]}, plane="coronal", at=26, title="t")
    (spaced,), (plain,) = (fig.axes for fig, _ in drawn)
    assert brightest(spaced) == pytest.approx(LANDMARK["coronal"]) and set(written(spaced)) == {
        "10 mm"
    }
    assert not written(plain)
    assert plain.images[0].get_extent()[1:3] == pytest.approx([2, 1])  # height 1, 20 x 40 voxels


# Outlines


def test_an_outline_runs_half_way_between_the_pixels_and_is_closed_at_the_edge(drawn):
    corner = np.zeros_like(SQUARE)
    corner[:4, :3] = True
    show.images({"a": (SQUARE, {"square": SQUARE, "corner": corner})}, spacing=(2, 3), title="t")
    (ax,) = drawn[0][0].axes
    for tone, box in zip(panels.OTHERS, ([15, 20, 45, 40], [0, 0, 9, 8]), strict=False):
        (line,) = contours(ax, tone)
        assert [*line.min(axis=0), *line.max(axis=0)] == pytest.approx(box, abs=0)
        assert (line[0] == line[-1]).all()


def test_pixels_that_do_not_count_are_hatched_and_no_part_of_the_outline(drawn):
    mask = np.where(SQUARE, 1, 0)
    mask[:, 30:] = 255
    show.images({"a": (SQUARE, {"square": mask})}, spacing=(1, 1), title="t")
    ((fig, alt),) = drawn
    found = fig.axes[0].collections
    (hatched,) = [one for one in found if getattr(one, "hatches", None) == ["////"]]
    assert hatched.get_paths()[0].get_extents().x0 == pytest.approx(29.5, abs=0.5)
    (line,) = contours(fig.axes[0], panels.OTHERS[0])
    assert line[:, 0].max() <= 15
    assert [text.get_text() for text in fig.legends[0].texts] == ["square", "ignored"]
    assert "square on 8.3%" in alt


def test_a_thing_keeps_its_colour_and_no_two_outlines_have_one_dash(drawn):
    names = ["something", "Liver", "left kidney", "right kidney"]
    masks = {name: np.roll(SQUARE, 3 * n, 1) for n, name in enumerate(names)}
    show.images({"a": (SQUARE, masks), "b": (SQUARE, {"Liver": SQUARE})}, title="t")
    ((fig, _),) = drawn
    lines = dict(zip(names, fig.legends[0].legend_handles, strict=True))
    assert lines["Liver"].get_color() == show.PALETTE["liver"]
    assert lines["left kidney"].get_color() != lines["right kidney"].get_color()
    assert len({str(line._dash_pattern) for line in lines.values()}) == 4
    for ax in fig.axes:
        assert contours(ax, show.PALETTE["liver"])
    assert not contours(fig.axes[1], lines["left kidney"].get_color())


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (SQUARE, SQUARE[:-1]),
        (SQUARE, SQUARE.T),
        (SQUARE, 3 * SQUARE),
        (BODY, VOXELS[1:] > 0),
        (np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40, 3), np.uint8)),
    ],
)
def test_a_mask_of_another_shape_or_with_ids_is_refused(image, mask):
    with pytest.raises(ValueError, match="the mask 'liver' is"):
        show.images({"a": (image, {"liver": mask})}, title="t")


# Greys and colours


@pytest.mark.parametrize(
    ("values", "window", "black_white"),
    [
        ([0, 1], (40, 400), (-160, 240)),
        ([0, 1], "lung", (-1350, 150)),
        ([*range(1001)], None, (5, 995)),
        ([np.nan, *range(1001)], None, (5, 995)),
        ([*range(1001), 10**9], None, (5, 996)),
        ([0] * 999 + [1], None, (0, 1)),  # a small mask
    ],
)
def test_black_and_white_are_the_edges_of_the_window(values, window, black_white):
    found = views.limits(np.array(values, float), window)
    assert found == pytest.approx(black_white, abs=0.02)


def test_what_the_window_is_stands_below_and_pictures_can_have_their_own(drawn):
    show.images({"a": SQUARE}, window="soft tissue", title="t")
    show.images({"a": SQUARE, "b": SQUARE}, window={"b": (5, 2)}, title="t")
    (one, _), (two, _) = drawn
    assert one.get_supxlabel() == "Soft tissue window, centre 40, width 400"
    assert [ax.images[0].get_clim() for ax in two.axes] == [(0, 1), (4, 6)]


def test_a_photograph_keeps_its_colours_where_png_would_be_too_large():
    photograph, lesion = phantoms.skin_lesion(3)
    mime, picture, _ = stored(show.images, {"a": photograph}, title="t")
    fig, _ = panels.drawn(panels.as_views({"a": photograph}, None), "t")
    fig.draw_without_rendering()
    x0, y0, x1, y1 = fig.axes[0].get_window_extent().extents * picture.width / fig.bbox.width
    box = (x0 + 2, picture.height - y1 + 2, x1 - 2, picture.height - y0 - 2)
    shown = np.asarray(picture.convert("RGB").crop(box))
    assert mime == "image/jpeg" and len(np.unique(shown.reshape(-1, 3), axis=0)) > 5_000
    original = Image.fromarray(photograph).resize(shown.shape[1::-1], Image.Resampling.BILINEAR)
    assert np.abs(shown - np.asarray(original, int)).mean() < 4
    _, picture, _ = stored(show.images, {"a": (photograph, {"lesion": lesion})}, title="t")
    yellow = np.multiply(255, to_rgb(show.PALETTE["lesion"]))
    assert (np.abs(np.asarray(picture.convert("RGB")) - yellow).sum(axis=-1) < 60).sum() > 300


# In the notebook


@pytest.mark.parametrize("colours", [(), (3,)])
def test_twelve_pictures_of_noise_stay_within_80_kb_and_a_chart_is_sharp(colours):
    noise = NOISE.integers(0, 256, (12, 256, 256, *colours), np.uint8)
    mime, picture, _ = stored(show.images, dict(zip("abcdefghijkl", noise, strict=True)), title="t")
    assert mime == "image/jpeg" and picture.width >= 500
    mime, picture, _ = stored(show.bars, {"a": 1, "b": 2}, unit="s", title="t")
    assert mime == "image/png" and picture.width == 1600


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg"])
def test_nbconvert_writes_the_alternative_text_into_the_page(mime):
    pixels = SQUARE if mime == "image/png" else NOISE.normal(size=(400, 400))
    (output,) = outputs(show.images, {"a": pixels}, title="t", alt="A  grey\nsquare.")
    assert mime in output.data
    made = nbformat.v4.new_output("display_data", output.data, metadata=output.metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[made])])
    html, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert 'alt="A grey square."' in html


def test_equal_pictures_have_equal_bytes_and_an_empty_text_is_refused():
    photograph, _ = phantoms.skin_lesion(3)
    for pixels in (photograph, SQUARE):
        first, second = (outputs(show.images, {"a": pixels}, title="t")[0].data for _ in range(2))
        assert first == second
    with pytest.raises(ValueError, match="alternative text"):
        show.figure(Figure(), " ")


def test_a_figure_of_pyplot_is_shown_once_and_closed_and_nothing_is_outside_ipython(monkeypatch):
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    assert len(outputs(show.figure, fig, "A line.")) == 1 and not plt.get_fignums()
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    assert not outputs(show.figure, Figure(), "A line.")


def test_an_installed_package_has_its_style(root):
    with (root / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    assert data == {"helpers.lesson.show": ["course.mplstyle"]}
    fig, ax = show.chart("t", height=2)
    assert not ax.spines["top"].get_visible() and fig.get_figwidth() == 8


@pytest.fixture
def still(drawn, monkeypatch) -> list:
    """Figures and alternative texts, also of what can be leafed through."""
    monkeypatch.setattr(page, "bundle", lambda fig, alt: (drawn.append((fig, alt)), ({}, {}))[1])
    return drawn


FRAMES = {0: (SQUARE, {"liver": SQUARE}), 10: (2 * SQUARE, {"liver": 1 - SQUARE})}
LONG = "a name that is so long that it has to be wrapped somewhere on its way"
TITLE = "A finding that takes two lines: what was seen, and where, and how often it came out again"


class Recorded:
    """What a timeline is to a chart: three steps, and two calls of `crop` that overlap."""

    def __init__(self, stages=("read", "crop"), slower=1):
        rows = [
            *[("read", -0.01, 0.01), ("read", 0.02, 0.03), ("read", 0.2, 0.3)],
            *[("crop", 0.01, 0.03), ("crop", 0.02, 0.06)],
            *[("wait", 0.0, 0.03), ("train", 0.03, 0.05), ("wait", 0.05, 0.06)],
            ("train", 0.06, 0.1),
        ]
        rows = [(stage, slower * start, slower * stop) for stage, start, stop in rows]
        self.spans, self.stages, self.fed = spans.in_lanes(rows), stages, 0.6


def texts(fig: Figure) -> list:
    """What can be read on a page beside its images."""
    found = [fig._suptitle, *(text for legend in fig.legends for text in legend.texts)]
    for ax in fig.axes:
        found += [ax.title, ax._left_title] + ([] if ax.images else ax.texts)
        for axis, ends in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            ticks = axis.get_major_ticks() if ax.axison else []
            inside = [tick for tick in ticks if min(ends) <= tick.get_loc() <= max(ends)]
            found += [tick.label1 for tick in inside if tick.label1.get_visible()]
            found += [axis.label] if ax.axison else []
    return found


@pytest.mark.parametrize(
    ("function", "args", "options"),
    [
        (show.images, [{f"{LONG} {n}": SQUARE for n in range(8)}], {}),
        (show.images, [{n: (SQUARE, dict.fromkeys(["a", LONG], SQUARE)) for n in "xy"}], {}),
        (show.planes, [BODY], {"masks": {"spot": VOXELS > 0}, "window": "soft tissue"}),
        (show.frames, [FRAMES], {"label": LONG, "window": "bone"}),
        (show.bars, [{LONG: [1, 2, 3], "b": 2}], {"unit": "ms a batch"}),
        (show.bars, [{n: {LONG: [1, 2], "b": 2000} for n in "xyz"}], {"unit": "s", "marked": "b"}),
        (show.timeline, [{LONG: Recorded(), "b": Recorded(("read", LONG, "crop"), 3)}], {}),
    ],
)
def test_no_text_is_cut_off_or_lies_on_another(function, args, options, still):
    function(*args, title=TITLE, **options)
    ((fig, _),) = still
    fig.draw_without_rendering()
    note = fig._supxlabel
    if note is not None:
        box = note.get_window_extent()
        if fig.legends:  # two lines of the note are room for the legend
            assert note.get_text().endswith("\n\n")
            assert fig.legends[0].get_window_extent().y1 < box.y0 + 0.7 * box.height
        assert box.x1 <= fig.bbox.x1 and box.y1 < min(ax.bbox.y0 for ax in fig.axes)
    assert_readable(fig, texts(fig))


# Bars


def test_a_bar_is_a_median_and_its_whiskers_reach_from_the_least_to_the_greatest(drawn):
    show.bars({"a": [1, 2, 9], "b": 4, "c": [0, 0, 0]}, unit="ms a batch", title="t", marked=["b"])
    ((fig, alt),) = drawn
    (ax,) = fig.axes
    assert [bar.get_width() for bar in ax.patches] == [2, 4, 0]
    whiskers = [line.get_xdata().tolist() for line in ax.lines[:2]]
    assert whiskers == [[1, 4, 0], [9, 4, 0]]
    assert [text.get_text() for text in ax.texts] == ["2", "4", "0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "▸ b", "c"]
    colours = [bar.get_facecolor() for bar in ax.patches]
    assert colours[0] == colours[2] != colours[1]
    assert ax.get_xscale() == "linear" and ax.get_xlim()[0] == 0 and "ms a batch" in ax.get_xlabel()
    assert alt == "t. Bars: a 2, b 4, c 0 ms a batch."


def test_where_bars_would_vanish_there_are_points_on_a_logarithmic_axis(drawn):
    show.bars(
        {"s": {"a": 100, "b": 1}, "kB": {"a": 2, "b": 1}}, unit={"s": "s", "kB": "kB"}, title="t"
    )
    ((fig, alt),) = drawn
    far, near = fig.axes
    assert (far.get_xscale(), near.get_xscale()) == ("log", "linear")
    assert far.collections[0].get_offsets()[:, 0].tolist() == [100, 1] and not far.patches
    assert far.get_xlabel() == "s, logarithmic axis" and near.get_xlabel() == "kB"
    assert alt == "t. Bars: s a 100, b 1 s; kB a 2, b 1 kB."


@pytest.mark.parametrize(
    ("value", "said"), [(0.01234, "0.0123"), (1.0, "1"), (12.34, "12.3"), (1234.4, "1,234")]
)
def test_numbers_are_said_with_three_digits_as_people_write_them(value, said, drawn):
    show.bars({"a": value}, unit="s", title="t")
    assert drawn[0][0].axes[0].texts[0].get_text() == said


# Timelines


def calls(ax, row, hatched=False) -> list[tuple[float, float, float]]:
    """Start, stop and top of the bars in a row."""
    found = [one for one in ax.patches if bool(one.get_hatch()) is hatched]
    inside = [one for one in found if abs(one.get_y() + one.get_height() / 2 - row) < 0.4]
    bars = [(one.get_x(), one.get_x() + one.get_width(), one.get_y()) for one in inside]
    return sorted(tuple(round(number, 6) for number in bar) for bar in bars)


def test_a_timeline_shows_who_worked_when_from_the_first_step_to_the_last(drawn):
    show.timeline({"before": Recorded(), "after": Recorded(slower=2)}, title="t")
    ((fig, alt),) = drawn
    before, after = fig.axes
    assert [label.get_text() for label in before.get_yticklabels()] == ["read", "crop", "train"]
    assert [bar[:2] for bar in calls(before, 0)] == [(0, 10), (20, 30)]  # cut to the steps
    (start, stop, top), (later, end, below) = calls(before, 1)
    assert (start, stop, later, end) == (10, 30, 20, 60)
    assert below == pytest.approx(top + 0.35)  # they overlap, so each has a lane
    assert [bar[:2] for bar in calls(before, 2)] == [(30, 50), (60, 100)]
    assert [bar[:2] for bar in calls(before, 2, hatched=True)] == [(0, 30), (50, 60)]
    assert [text.get_text() for text in before.texts] == ["2 × 10 ms", "2 × 30 ms", "works 60%"]
    assert before.get_xlim() == after.get_xlim() and after.get_xlim()[0] == 0
    assert after.get_xlim()[1] >= 200 and "(ms)" in after.get_xlabel()
    assert alt.startswith("t. before read 2 × 10 ms, crop 2 × 30 ms, train works 60%; after read")


def test_without_a_record_there_is_no_timeline():
    with pytest.raises(ValueError, match="nothing was recorded"):
        show.timeline(types.SimpleNamespace(spans=(), stages=[], fed=0), title="t")


# Sliders


@pytest.mark.parametrize(
    ("environment", "namespace", "kernel", "live"),
    [
        ({}, {}, True, False),  # papermill, nbconvert, nbval
        ({"JPY_SESSION_NAME": "00.ipynb"}, {}, True, True),
        ({"JPY_SESSION_NAME": "00.ipynb"}, {}, False, False),  # a terminal
        ({}, {"__vsc_ipynb_file__": "00.ipynb"}, True, True),
        ({"JPY_SESSION_NAME": "00.ipynb", "COURSE_STILL": "1"}, {}, True, False),
        ({"JPY_SESSION_NAME": "00.ipynb", "COURSE_STILL": "0"}, {}, True, True),
    ],
)
def test_widgets_are_for_people_who_see_them(monkeypatch, environment, namespace, kernel, live):
    shell = types.SimpleNamespace(user_ns=namespace, **({"kernel": 1} if kernel else {}))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    for name in ("JPY_SESSION_NAME", "COURSE_STILL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert leafing.live_front_end() is live
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    assert not leafing.live_front_end()


def test_frames_stand_side_by_side_in_one_range_of_greys(still):
    show.frames(FRAMES, label="strength (mm)", window=(1, 2), spacing=(1, 1), title="t")
    ((fig, alt),) = still
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["0", "10"]
    assert {ax.images[0].get_clim() for ax in fig.axes} == {(0, 2)}
    assert fig.get_supxlabel().startswith("Above each picture: strength (mm); window, centre 1")
    assert alt == "t. Pictures: 0, liver on 8.3%; 10, liver on 91.7%."


@pytest.mark.parametrize(
    ("function", "arguments", "options", "chosen"),
    [
        (show.viewer, [BODY], {"window": (0, 2)}, {"plane": "coronal", "window": "bone"}),
        (show.viewer, [BODY, {"spot": VOXELS > 0}], {"window": (0, 2)}, {"position": 0.9}),
        (show.frames, [FRAMES], {"label": "mm", "window": (1, 2)}, {"strength": "10"}),
    ],
)
def test_a_live_picture_follows_its_controls_and_the_still_one_stays(
    function, arguments, options, chosen, monkeypatch
):
    import ipywidgets

    made, figures = [], []
    interactive, encode = ipywidgets.interactive, page.drawn
    watched = lambda *a, **b: made.append(interactive(*a, **b)) or made[-1]  # noqa: E731
    monkeypatch.setattr(ipywidgets, "interactive", watched)
    (still,) = outputs(function, *arguments, title="t", **options)
    assert not made
    monkeypatch.setattr(leafing, "live_front_end", lambda: True)
    monkeypatch.setattr(page, "drawn", lambda *a: (figures.append(a[0]), encode(*a))[1])
    with capture_output() as captured:
        function(*arguments, title="t", **options)
        data = captured.outputs[-1].data
        assert data.pop(leafing.WIDGET_MIME)["model_id"] == made[0].model_id
        assert data == still.data
        before = len(figures)
        controls = {control.description: control for control in made[0].kwargs_widgets}
        for name, value in chosen.items():
            controls[name].value = value
    assert len(figures) == before + len(chosen)
    heading = {"plane": "coronal 14", "position": "axial 17", "strength": "10"}
    assert figures[-1].axes[0].get_title(loc="left") == heading[next(iter(chosen))]
    limits = views.limits(VOXELS, chosen.get("window", options["window"]))
    assert figures[-1].axes[0].images[0].get_clim() == limits


# Code


def half(
    value: float,
) -> float:
    """Half of a value.

    def not_this(): ...
    """
    # Kept: it says why.
    return value / 2


def test_source_is_shown_as_code_without_its_docstring():
    for thing, first in ((half, "def half("), (Volume.with_voxels, "def with_voxels(self")):
        (shown,) = outputs(show.source, thing)
        code = shown.data["text/plain"]
        assert shown.data["text/markdown"] == f"```python\n{code}\n```"
        assert code.startswith(first) and '"""' not in code and "not_this" not in code
    (shown,) = outputs(show.source, half)
    last = shown.data["text/plain"].splitlines()[-2:]
    assert last == ["    # Kept: it says why.", "    return value / 2"]
