"""Pictures are where, as large and as readable as they claim, and notebooks store them well."""

import base64
import io
import types
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from pydicom.data import get_testdata_file

from helpers.lesson import figures, panels, show, views
from helpers.lesson import viewer as viewer_module
from helpers.volume import Volume
from tests.drawn_figures import outputs

PLANES = ("axial", "coronal", "sagittal")

pytestmark = pytest.mark.usefixtures("shell")
DRAWS = show


def body(shape=(20, 30, 40)) -> np.ndarray:
    """A patient with one bright voxel towards the head, at the back, on the left."""
    voxels = np.zeros(shape, np.int16)
    voxels[-3, -4, -5] = 1000
    return voxels


def brightest(ax) -> tuple[float, float]:
    """Where in the axes (mm from the left, mm from the top) the brightest pixel's centre lies."""
    image = ax.images[0]
    pixels = image.get_array()
    row, column = np.unravel_index(np.argmax(pixels), pixels.shape)
    left, right, bottom, top = image.get_extent()
    assert (left, top) == (0, 0)
    rows, columns = pixels.shape
    return (column + 0.5) * right / columns, (row + 0.5) * bottom / rows


# Geometry


@given(spacing=st.tuples(*[st.floats(0.3, 6)] * 3))
def test_every_plane_is_as_wide_and_high_as_the_spacing_says(spacing):
    stack = views.oriented(Volume(body(), spacing))
    z, y, x = np.multiply(body().shape, spacing)
    sizes = {plane: stack.cut(plane, 0).size_mm for plane in PLANES}
    assert sizes["axial"] == pytest.approx((x, y))
    assert sizes["coronal"] == pytest.approx((x, z))
    assert sizes["sagittal"] == pytest.approx((y, z))


def test_a_millimetre_has_one_length_on_paper_in_all_three_planes(drawn):
    show.planes(Volume(body(), (5, 0.8, 1.3)), title="t")
    fig, _ = drawn[0]
    inches_per_mm = []
    for ax in fig.axes:
        box = ax.get_position()
        left, right, bottom, top = ax.images[0].get_extent()
        inches_per_mm.append(box.width * fig.get_figwidth() / (right - left))
        inches_per_mm.append(box.height * fig.get_figheight() / (bottom - top))
    assert inches_per_mm == pytest.approx([inches_per_mm[0]] * 6)


def test_a_landmark_is_drawn_where_it_lies_in_the_patient(drawn):
    show.planes(Volume(body(), (5, 2, 1)), (17, 26, 35), title="t", window=(500, 1000))
    axial, coronal, sagittal = drawn[0][0].axes
    assert brightest(axial) == pytest.approx((35.5, 53))
    assert brightest(coronal) == pytest.approx((35.5, 12.5))  # head up: two slices from the top
    assert brightest(sagittal) == pytest.approx((53, 12.5))
    for ax in (axial, coronal, sagittal):
        horizontal, vertical = (line for line in ax.lines if line.get_linestyle() == "--")
        crossing = (vertical.get_xdata()[0], horizontal.get_ydata()[0])
        assert crossing == pytest.approx(brightest(ax))


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAI", "PIR", "SRA", "IPL"])
def test_however_the_voxels_are_stored_the_picture_is_the_same(drawn, orientation):
    original = Volume(body(), (5, 2, 1))
    stored = Volume.from_sitk(sitk.DICOMOrient(original.to_sitk(), orientation))
    at = np.unravel_index(np.argmax(stored.voxels), stored.shape)
    show.planes(original, (17, 26, 35), title="t")
    show.planes(stored, at, title="t")
    for ax, expected in zip(drawn[1][0].axes, drawn[0][0].axes, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), expected.images[0].get_array())
        assert ax.images[0].get_extent() == expected.images[0].get_extent()
        # Names of the panels hold stored numbers and differ; letters and cross-hair do not.
        assert [t.get_text() for t in ax.texts] == [t.get_text() for t in expected.texts]
        for line, expected_line in zip(ax.lines, expected.lines, strict=True):
            np.testing.assert_allclose(line.get_xydata(), expected_line.get_xydata())


def test_letters_name_the_sides_as_radiologists_expect_them():
    stack = views.oriented(Volume(body()))
    assert stack.cut("axial", 0).letters == ("R", "L", "A", "P")
    assert stack.cut("coronal", 0).letters == ("R", "L", "S", "I")
    assert stack.cut("sagittal", 0).letters == ("A", "P", "S", "I")


def test_a_flipped_direction_turns_the_picture_and_not_the_letters():
    flipped = Volume(body()[:, :, ::-1], direction=np.diag([-1.0, 1, 1]))
    cut = views.oriented(flipped).cut("axial", 17)
    assert cut.letters == ("R", "L", "A", "P")
    assert np.argmax(cut.pixels.max(0)) == 35
    assert views.oriented(flipped).cut("sagittal", 4).pixels.max() == 1000  # as stored: x is 4


def test_an_oblique_direction_gets_two_letters():
    angle = np.deg2rad(25)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    cut = views.oriented(Volume(body(), direction=turn)).cut("axial", 0)
    assert cut.letters == ("RA", "LP", "AL", "PR")
    assert views.letters((0.97, 0.2, 0)) == "L"


def test_a_bare_array_gets_no_letters_and_without_spacing_no_scale_bar(drawn):
    show.montage(body(), title="t", count=1)
    show.montage(body(), title="t", count=1, spacing=(5, 1, 1))
    assert [t.get_text() for t in drawn[0][0].axes[0].texts] == ["10"]
    assert [t.get_text() for t in drawn[1][0].axes[0].texts] == ["10", "10 mm"]
    bar = drawn[1][0].axes[0].lines[0].get_xdata()
    assert bar[1] - bar[0] == 10


def test_a_stack_seen_from_the_side_has_its_last_slice_on_top(drawn):
    ramp = np.broadcast_to(np.arange(10)[:, None, None], (10, 6, 8))
    show.side_views({"up": ramp, "down": ramp[::-1]}, spacing=(5, 1, 2), title="t")
    up, down = (ax.images[0].get_array() for ax in drawn[0][0].axes)
    np.testing.assert_array_equal(up[:, 0], np.arange(10)[::-1])
    np.testing.assert_array_equal(down[:, 0], np.arange(10))
    ax = drawn[0][0].axes[0]
    assert ax.images[0].get_extent() == [0, 6, 50, 0]
    heights = {
        label.get_text(): 50 - y
        for y, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
    }
    assert heights["0"] == 0
    assert heights["50"] == 50


def test_datasets_are_stacked_as_given_in_hu_and_spaced_by_their_positions():
    slices = [pydicom.dcmread(get_testdata_file("CT_small.dcm")) for _ in range(3)]
    for dataset, height in zip(slices, (10, 0, 5), strict=True):
        dataset.ImagePositionPatient = [0, 0, height]
    stack = views.oriented(slices)
    assert stack.spacing == pytest.approx((5, 0.661468, 0.661468))
    expected = slices[0].pixel_array + float(slices[0].RescaleIntercept)
    np.testing.assert_array_equal(stack.voxels[0], expected)


def test_a_montage_numbers_the_slices_it_shows(drawn):
    voxels = np.broadcast_to(np.arange(60)[:, None, None], (60, 8, 8))
    show.montage(Volume(voxels), title="t", count=12)
    shown = {int(ax.texts[0].get_text()): ax.images[0].get_array() for ax in drawn[0][0].axes}
    assert len(shown) == 12
    assert all((pixels == number).all() for number, pixels in shown.items())
    assert np.unique(np.diff(sorted(shown))) == 5
    show.montage(Volume(voxels[:3]), title="t", count=12)
    assert len(drawn[1][0].axes) == 3


# Masks


def contours(ax):
    return [path.vertices for lines in ax.collections for path in lines.get_paths()]


def test_an_outline_runs_half_way_between_the_pixels_inside_and_outside(drawn):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 10:22] = 1
    show.overlay(np.zeros((20, 30)), mask, title="t", labels={1: "liver"}, spacing=(3, 2))
    left, right = drawn[0][0].axes
    assert not contours(left)
    for line in contours(right):
        # The first pixel inside is row 5: its upper edge lies 5 rows of 3 mm below the top.
        assert line.min(0) == pytest.approx((10 * 2, 5 * 3))
        assert line.max(0) == pytest.approx((22 * 2, 9 * 3))


def test_an_outline_is_closed_where_the_mask_reaches_the_edge(drawn):
    show.overlay(np.zeros((6, 6)), np.ones((6, 6), np.uint8), title="t")
    for line in contours(drawn[0][0].axes[1]):
        assert line.min(0) == pytest.approx((0, 0))
        assert line.max(0) == pytest.approx((6, 6))
        np.testing.assert_allclose(line[0], line[-1])


@pytest.mark.parametrize("plane", PLANES)
def test_outlines_follow_the_image_into_every_plane_of_a_turned_volume(drawn, plane):
    voxels = np.zeros((12, 14, 16), np.uint8)
    voxels[2:5, 3:8, 4:14] = 1
    image = sitk.DICOMOrient(Volume(voxels, (3, 2, 1)).to_sitk(), "PIR")
    stored = Volume.from_sitk(image)
    show.overlay(stored, stored.voxels, title="t", plane=plane, labels={1: "liver"})
    ax = drawn[0][0].axes[1]
    inside = np.argwhere(ax.images[0].get_array() == 1)
    rows, columns = ax.images[0].get_array().shape
    _, right, bottom, _ = ax.images[0].get_extent()
    pixel = np.array([right / columns, bottom / rows])
    assert len(inside)
    for line in contours(ax):
        assert line.min(0) == pytest.approx(inside.min(0)[::-1] * pixel)
        assert line.max(0) == pytest.approx((inside.max(0)[::-1] + 1) * pixel)


def test_an_overlay_shows_the_slice_with_most_of_the_mask_and_says_how_much(drawn):
    mask = np.zeros((6, 10, 10), np.uint8)
    mask[1, :2], mask[4, :5] = 1, 1
    show.overlay(mask * 7, mask, title="t", labels={1: "liver", 2: "spleen"})
    fig, alt = drawn[0]
    assert fig.axes[0].images[0].get_array().sum() == 50 * 7
    assert "liver 50.0 %" in alt
    assert "spleen 0.0 %" in alt


def test_a_fill_never_hides_the_image(drawn):
    show.overlay(np.zeros((6, 6)), np.eye(6, dtype=np.uint8), title="t", fill=1.0)
    opacities = [lines.get_alpha() for lines in drawn[0][0].axes[1].collections]
    assert 0.4 in opacities
    assert 1.0 not in opacities


@pytest.mark.parametrize(
    ("image", "mask"),
    [(np.zeros((4, 5)), np.zeros((5, 4))), (np.zeros((3, 4, 5)), np.zeros((3, 5, 4)))],
)
def test_a_mask_of_another_shape_is_refused(image, mask):
    with pytest.raises(ValueError, match="the mask is"):
        show.overlay(image, mask, title="t")


def test_things_keep_their_colours_and_outlines_differ_by_more_than_colour(drawn):
    assert figures.colour("left kidney", 3) == figures.colour("kidneys") == show.PALETTE["kidneys"]
    assert figures.colour("Liver") == figures.colour("liver_mask", 5) == show.PALETTE["liver"]
    mask = np.arange(16).reshape(4, 4) // 4
    show.overlay(mask, mask, title="t", labels={1: "left kidney", 2: "right kidney"})
    handles = drawn[0][0].legends[0].legend_handles
    assert [text.get_text() for text in drawn[0][0].legends[0].get_texts()] == [
        "left kidney",
        "right kidney",
    ]
    assert handles[0].get_linestyle() != handles[1].get_linestyle()


# Grey values


def test_a_window_puts_black_and_white_at_its_edges(drawn):
    assert panels.limits(np.zeros(3), (40, 400)) == (-160, 240)
    assert panels.limits(np.zeros(3), "lung") == (-1350, 150)
    show.windows(body(), {"narrow": (100, 10), "wide": (0, 4000)}, title="t")
    assert [ax.images[0].get_clim() for ax in drawn[0][0].axes[:2]] == [(95, 105), (-2000, 2000)]


def test_without_a_window_outliers_do_not_darken_the_picture():
    values = np.append(np.linspace(0, 100, 10_001), [1e6, np.nan, -np.inf])
    assert panels.limits(values) == pytest.approx((0.5, 99.5), abs=0.1)
    assert panels.limits(np.full(5, 7)) == (7, 8)
    assert panels.limits(np.full(5, np.nan)) == (0, 1)
    rare = np.zeros(10_000)
    rare[0] = 3
    assert panels.limits(rare) == (0, 3)


@pytest.mark.parametrize("window", ["liver", (40, 0), (40, -1)])
def test_an_impossible_window_is_refused(window):
    with pytest.raises(ValueError, match="window"):
        panels.limits(np.zeros(3), window)


def test_pictures_can_share_one_range_of_greys(drawn):
    pictures = {"before": np.full((4, 4), 10), "after": np.array([[0, 20]])}
    show.images(pictures, shared=True, title="t")
    clims = [ax.images[0].get_clim() for ax in drawn[0][0].axes]
    assert clims[0] == clims[1]
    assert clims[0] == pytest.approx((0, 20), abs=0.2)


def test_a_colour_picture_keeps_its_colours(drawn):
    skin = np.full((4, 6, 3), (200, 150, 120), np.uint8)
    show.images({"skin": skin, "mask": np.eye(4, 6)}, title="t")
    np.testing.assert_array_equal(drawn[0][0].axes[0].images[0].get_array(), skin)
    assert [ax.get_title(loc="left") for ax in drawn[0][0].axes] == ["skin", "mask"]


def test_a_histogram_shows_shares_of_the_finite_values(drawn):
    values = np.array([0, 0, 0, 10, np.nan])
    show.histogram({"all": values}, title="t", xlabel="value (HU)", bins=2, marks={"five": 5})
    ax = drawn[0][0].axes[0]
    np.testing.assert_allclose(ax.patches[0].get_data().values, [75, 25])
    assert ax.lines[0].get_xdata()[0] == 5
    assert "five at 5" in drawn[0][1]


# What a notebook stores


def every_picture(voxels: np.ndarray):
    volume, mask = Volume(voxels, (5, 2, 1)), (voxels > voxels.mean()).astype(np.uint8)
    return {
        "montage": lambda: show.montage(volume, title="Finding", mask=mask),
        "planes": lambda: show.planes(volume, title="Finding"),
        "side_view": lambda: show.side_view(volume, title="Finding"),
        "windows": lambda: show.windows(volume, title="Finding"),
        "histogram": lambda: show.histogram({"a": voxels}, title="Finding", xlabel="HU"),
        "overlay": lambda: show.overlay(volume, mask, title="Finding"),
        "images": lambda: show.images({"a": voxels[0]}, title="Finding"),
        "viewer": lambda: show.viewer(volume, mask, title="Finding"),
    }


@pytest.mark.parametrize("name", every_picture(body()))
def test_every_picture_is_one_output_with_a_text_equivalent(name):
    (output,) = outputs(every_picture(body())[name])
    assert set(output.data) == {"image/png", "text/plain"}
    alt = output.metadata["image/png"]["alt"]
    assert output.data["text/plain"] == alt
    assert alt.startswith("Finding. ")
    assert "\n" not in alt
    assert output.metadata["image/png"]["width"] == 800
    assert not plt.get_fignums()


def test_alternative_text_can_be_given_and_cannot_be_empty():
    (output,) = outputs(show.planes, body(), title="t", alt="Three\n  dark planes.")
    assert output.data["text/plain"] == "Three dark planes."
    with pytest.raises(ValueError, match="alternative text"):
        show.figure(Figure(), " ")


def test_nbconvert_writes_the_alternative_text_into_the_page():
    nbformat = pytest.importorskip("nbformat")
    exporter = pytest.importorskip("nbconvert").HTMLExporter(template_name="classic")
    (output,) = outputs(show.planes, body(), title="t", alt="Three dark planes.")
    cell = nbformat.v4.new_code_cell(
        outputs=[nbformat.v4.new_output("display_data", output.data, metadata=output.metadata)]
    )
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    page, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert 'alt="Three dark planes."' in page


def test_a_figure_made_with_pyplot_is_shown_once_and_closed():
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    assert len(outputs(show.figure, fig, "A line.")) == 1
    assert not plt.get_fignums()


def test_outside_ipython_nothing_happens(monkeypatch, capsys):
    monkeypatch.setattr(figures, "notebook_shell", lambda: None)
    show.planes(body(), title="t")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("noise", ["grey", "colour"])
def test_twelve_panels_of_noise_stay_within_80_kb(drawn, noise):
    rng = np.random.default_rng(0)
    panel = (256, 256, 3) if noise == "colour" else (256, 256)
    pictures = {str(i): rng.integers(0, 256, panel, np.uint8) for i in range(12)}
    show.images(pictures, title="t")
    png = show.render(drawn[0][0])
    assert len(png) <= 80_000
    assert Image.open(io.BytesIO(png)).width >= 400


def test_greys_are_given_up_before_the_text_becomes_coarser_than_the_screen(drawn):
    rng = np.random.default_rng(0)
    pictures = {str(i): rng.normal(128, 16, (190, 190)) for i in range(4)}
    show.images(pictures, title="t", window=(128, 256))
    assert Image.open(io.BytesIO(show.render(drawn[0][0]))).width == 800


def test_a_simple_picture_is_drawn_at_twice_the_resolution_in_all_its_greys(drawn):
    ramp = np.tile(np.arange(256), (40, 1))
    show.images({"ramp": ramp}, title="t", window=(127.5, 255))
    png = Image.open(io.BytesIO(show.render(drawn[0][0])))
    assert png.width == 1600
    assert len(np.unique(np.asarray(png.convert("L")))) > 240


def test_greys_are_reduced_evenly_and_thin_lines_keep_their_colour():
    rgb = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(50, 0)
    rgb[10, 3:9] = (230, 159, 0)
    png = Image.open(io.BytesIO(figures._encode(rgb, 24))).convert("RGB")
    shown = np.asarray(png)
    assert tuple(shown[10, 5]) == (230, 159, 0)
    error = np.abs(shown[20].astype(int) - rgb[20])
    assert error.max() <= np.ceil(255 / 23 / 2)


@pytest.mark.parametrize("name", ["montage", "windows", "viewer"])
def test_the_same_picture_has_the_same_bytes_and_tells_nothing_else(name):
    voxels = np.random.default_rng(1).normal(0, 500, (20, 60, 60)).astype(np.int16)
    (first,), (second,) = (outputs(every_picture(voxels)[name]) for _ in range(2))
    assert first.data == second.data
    png = base64.b64decode(first.data["image/png"])
    chunks = Image.open(io.BytesIO(png))
    chunks.load()
    assert not chunks.info.keys() - {"transparency"}


def test_no_picture_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for draw in every_picture(np.zeros((6, 8, 9), np.int16)).values():
            outputs(draw)


# The viewer


def pixels_of(widget) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(widget.value)).convert("RGB")).astype(int)


@pytest.fixture
def ramp_viewer():
    voxels = np.broadcast_to(np.arange(50)[:, None, None], (50, 30, 40)).astype(np.int16)
    mask = np.zeros(voxels.shape, np.uint8)
    mask[20:30, 10:20, 10:30] = 1
    return viewer_module.SliceViewer(voxels, mask, {1: "liver"}, window=(25, 50), spacing=(4, 2, 2))


def test_the_viewer_follows_its_slider(ramp_viewer):
    for number in (0, 10, 49):
        ramp_viewer.slice.value = number
        assert pixels_of(ramp_viewer.image)[5, 5, 0] == pytest.approx(number / 50 * 255, abs=1)
        assert f"slice {number} of 0 to 49" in ramp_viewer.caption.value


def test_the_viewer_changes_plane_and_keeps_the_aspect(ramp_viewer):
    ramp_viewer.slice.value = 45  # beyond the last coronal slice
    ramp_viewer.plane.value = "coronal"
    assert ramp_viewer.slice.max == 29
    picture = pixels_of(ramp_viewer.image)
    assert picture.shape[1] / picture.shape[0] == pytest.approx(80 / 200, abs=0.01)
    assert picture[3, 3, 0] > picture[-3, 3, 0]  # the last slice is on top
    ramp_viewer.plane.value = "axial"
    assert ramp_viewer.slice.max == 49


def test_the_viewer_outlines_the_mask_inside_its_border(ramp_viewer):
    ramp_viewer.slice.value = 25
    picture = pixels_of(ramp_viewer.image)
    liver = tuple(int(show.PALETTE["liver"][i : i + 2], 16) for i in (1, 3, 5))
    row, column = np.nonzero((picture == liver).all(-1))
    scale = picture.shape[0] / 30
    assert (row.min(), row.max() + 1) == pytest.approx((10 * scale, 20 * scale), abs=1)
    assert (column.min(), column.max() + 1) == pytest.approx((10 * scale, 30 * scale), abs=1)
    ramp_viewer.outlines.value = False
    assert np.ptp(pixels_of(ramp_viewer.image), axis=-1).max() == 0


def test_the_viewer_changes_window(ramp_viewer):
    ramp_viewer.slice.value = 25
    ramp_viewer.center.value, ramp_viewer.width.value = 10, 10
    assert pixels_of(ramp_viewer.image)[5, 5, 0] == 255
    ramp_viewer.preset.value = "full range"
    assert pixels_of(ramp_viewer.image)[5, 5, 0] == pytest.approx(25 / 49 * 255, abs=1)
    assert "lung" not in ramp_viewer.preset.options  # these are no Hounsfield units


def test_hounsfield_units_come_with_the_usual_windows():
    viewer = viewer_module.SliceViewer(np.linspace(-1000, 1000, 27).reshape(3, 3, 3))
    viewer.preset.value = "lung"
    assert (viewer.center.value, viewer.width.value) == (-600, 1500)


Kernel = types.SimpleNamespace(kernel=object(), user_ns={})


def test_only_a_live_front_end_gets_the_widget_and_it_keeps_the_still_picture(monkeypatch):
    monkeypatch.setattr(figures, "notebook_shell", lambda: Kernel)
    for name in ("JPY_SESSION_NAME", "COURSE_STILL"):
        monkeypatch.delenv(name, raising=False)
    assert not viewer_module.live_front_end()  # a kernel of papermill, nbconvert or nbval
    (still,) = outputs(show.viewer, body(), title="t")
    monkeypatch.setenv("JPY_SESSION_NAME", "00_start_here.ipynb")
    (live,) = outputs(show.viewer, body(), title="t")
    assert live.data.pop("application/vnd.jupyter.widget-view+json")["model_id"]
    assert live.data == still.data
    monkeypatch.setenv("COURSE_STILL", "1")
    assert not viewer_module.live_front_end()


def test_a_terminal_is_no_front_end_for_widgets(monkeypatch, shell):
    monkeypatch.setenv("JPY_SESSION_NAME", "inherited.ipynb")
    assert not viewer_module.live_front_end()
    monkeypatch.setattr(figures, "notebook_shell", lambda: None)
    assert not viewer_module.live_front_end()


def test_only_the_courses_colours_that_occur_are_kept_apart():
    colours = np.array([[1, 2, 3], [230, 159, 0], [230, 159, 0]], np.uint8)
    assert figures._own_colours(colours).tolist() == [[230, 159, 0]]
    assert figures._own_colours(colours[:1]).shape == (0, 3)
    assert figures._own_colours(np.array([[51, 51, 51]], np.uint8)).shape == (0, 3)  # a grey


def test_beside_the_courses_colours_the_others_stay_what_they_are():
    y, x = np.mgrid[:120, :120]
    rgb = np.stack([60 + x, 40 + y, 200 - x], axis=-1).astype(np.uint8)
    own = [(230, 159, 0), (86, 180, 233), (0, 114, 178)]
    for row, colour in zip((10, 50, 90), own, strict=True):
        rgb[row, 20:100] = colour
    for levels in (64, 24):
        picture = Image.open(io.BytesIO(figures._encode(rgb, levels)))
        shown = np.asarray(picture.convert("RGB")).astype(int)
        for row, colour in zip((10, 50, 90), own, strict=True):
            assert tuple(shown[row, 60]) == colour
        assert np.abs(shown - rgb).mean() < 12


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
    for thing, first, last in (
        (half, "def half(", ["    # Kept: it says why.", "    return value / 2"]),
        (Volume.with_voxels, "def with_voxels(self", None),
    ):
        (shown,) = outputs(show.source, thing)
        code = shown.data["text/plain"]
        assert shown.data["text/markdown"] == f"```python\n{code}\n```"
        assert code.startswith(first) and '"""' not in code and "not_this" not in code
        assert last is None or code.splitlines()[-2:] == last
