"""Pictures of one thing at several strengths can be compared, on the page and with the slider."""

import base64
import io
import itertools
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.utils.capture import capture_output
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from helpers.lesson import figures, show
from helpers.lesson import frames as frames_module
from helpers.lesson.viewer import WIDGET_MIME
from helpers.volume import Volume

pytestmark = pytest.mark.usefixtures("shell")


@pytest.fixture
def drawn(monkeypatch):
    """The figures and alternative texts that `frames` makes, not yet rendered."""
    made = []

    def keep(fig, alt):
        made.append((fig, alt))
        return {}, {}

    monkeypatch.setattr(figures, "bundle", keep)
    monkeypatch.setattr(figures, "show_bundle", lambda *_: None)
    return made


@pytest.fixture
def sliders(monkeypatch):
    """What is behind the widgets that `frames` makes, in a notebook that somebody is using."""
    made = []
    make = frames_module.FrameSlider
    monkeypatch.setattr(frames_module, "live_front_end", lambda: True)
    monkeypatch.setattr(
        frames_module, "FrameSlider", lambda drawing: made.append(make(drawing)) or made[0]
    )
    return made


def outputs(*args, **kwargs):
    with capture_output() as captured:
        assert show.frames(*args, **kwargs) is None
    assert captured.stdout == captured.stderr == ""
    return captured.outputs


def shifted(steps=(0, 2, 4), shape=(20, 30)):
    """A bright square and its mask, moved together."""
    mask = np.zeros(shape, np.uint8)
    mask[6:12, 8:16] = 1
    moved = {f"{step} mm": np.roll(mask, step, axis=1) for step in steps}
    return {name: (inside * 100.0, inside) for name, inside in moved.items()}


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def colour_of(name: str) -> tuple[int, ...]:
    return tuple(int(show.PALETTE[name][i : i + 2], 16) for i in (1, 3, 5))


def headings(fig) -> list[str]:
    return [ax.get_title(loc="left") for ax in fig.axes]


# The page


def test_every_strength_is_a_picture_under_its_name_in_the_order_given(drawn):
    pictures = shifted((4, 0, 2))
    show.frames(pictures, title="t", label="shift", window=(50, 100))
    fig, _ = drawn[0]
    assert headings(fig) == ["4 mm", "0 mm", "2 mm"]
    for ax, (image, _) in zip(fig.axes, pictures.values(), strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert any("shift" in text.get_text() for text in fig.texts)


def test_one_range_of_greys_shows_what_brightness_does(drawn):
    image = np.tile(np.arange(101.0), (4, 1))
    show.frames({0: image, 50: image + 50}, title="t", label="offset (HU)")
    ranges = [ax.images[0].get_clim() for ax in drawn[0][0].axes]
    assert ranges[0] == ranges[1] == (0, 150)
    assert headings(drawn[0][0]) == ["0", "50"]


def test_each_outline_goes_round_its_own_mask(drawn):
    show.frames(shifted(), title="t", label="shift", labels={1: "liver"}, spacing=(3, 2))
    for ax, step in zip(drawn[0][0].axes, (0, 2, 4), strict=True):
        lines = [path.vertices for one in ax.collections for path in one.get_paths()]
        assert len(lines) == 2
        for line in lines:
            assert line.min(0) == pytest.approx(((8 + step) * 2, 6 * 3))
            assert line.max(0) == pytest.approx(((16 + step) * 2, 12 * 3))


def test_a_picture_without_a_mask_and_an_unnamed_class_have_no_outline(drawn):
    pictures = {"with": (np.zeros((6, 6)), np.diag([1, 2, 2, 0, 0, 0])), "without": np.eye(6)}
    show.frames(pictures, title="t", label="l", labels={2: "spleen"})
    with_mask, without = drawn[0][0].axes
    assert len(with_mask.collections) == 2  # a dark and a coloured line
    assert not without.collections
    assert "Outlined: spleen." in drawn[0][1]


def test_a_class_that_a_strength_has_lost_keeps_the_colours_of_the_others(drawn):
    both, one = np.diag([1, 1, 2, 2]), np.diag([0, 0, 2, 2])
    show.frames({"weak": (both, both), "strong": (one, one)}, title="t", label="l")
    weak, strong = drawn[0][0].axes
    tones = [
        [lines.get_edgecolor()[0].tolist() for lines in ax.collections] for ax in (weak, strong)
    ]
    assert tones[1] == tones[0][2:]


def test_volumes_show_the_same_slice_with_its_sides_and_a_scale(drawn):
    voxels = np.zeros((5, 12, 60))
    voxels[3] = 7
    mask = (voxels > 0).astype(np.uint8)
    volume = Volume(voxels, (4, 3, 2))
    show.frames({"a": (volume, mask), "b": volume}, title="t", label="l", at=3)
    first, second = drawn[0][0].axes
    assert (first.images[0].get_array() == 7).all()
    assert first.images[0].get_extent() == [0, 120, 36, 0]
    assert [text.get_text() for text in first.texts] == ["R", "L", "A", "P", "20 mm"]
    assert not second.texts
    show.frames({"a": volume, "b": volume}, title="t", label="l", plane="coronal")
    assert drawn[1][0].axes[0].images[0].get_array().shape == (5, 60)


def test_a_volume_that_lies_another_way_says_so(drawn):
    def cylinder(direction):
        return Volume(np.zeros((4, 5, 6)), direction=direction)

    turned = np.array([[np.cos(0.5), -np.sin(0.5), 0], [np.sin(0.5), np.cos(0.5), 0], [0, 0, 1]])
    show.frames({"a": cylinder(np.eye(3)), "b": cylinder(turned)}, title="t", label="l")
    said = [[text.get_text() for text in ax.texts] for ax in drawn[0][0].axes]
    assert said == [["R", "L", "A", "P"], ["RA", "LP", "AL", "PR"]]


@pytest.mark.parametrize("shape", [(30, 6), (20, 20), (4, 50)])
@pytest.mark.parametrize(
    "names",
    [
        ["mmmmmmmmmmmmmmmmmmmmm 0", "mmmmmmmmmmmmmmmmmmmmm 1"],
        ["0", "1", "a name that is rather long, 3"],
        [f"{degrees}°" for degrees in range(12)],
        [f"noise with a standard deviation of {sigma} HU" for sigma in range(7)],
    ],
)
def test_headings_and_pictures_stay_on_the_page_and_apart(drawn, names, shape):
    show.frames({name: np.zeros(shape) for name in names}, title="t", label="l")
    fig, _ = drawn[0]
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    boxes = []
    for ax in fig.axes:
        heading, picture = ax._left_title.get_window_extent(), ax.get_window_extent()
        assert heading.y0 >= picture.y1
        assert max(heading.x1, picture.x1) <= fig.bbox.x1
        assert heading.x0 == pytest.approx(picture.x0, abs=1)
        boxes.append((heading, picture))
    assert boxes[0][1].x0 < 5  # narrow pictures too start at the left of the room they are given
    for one, other in itertools.combinations(boxes, 2):
        assert not any(mine.overlaps(yours) for mine in one for yours in other)


def test_few_stand_in_one_row_and_many_in_two(drawn):
    for count, rows in ((2, 1), (5, 1), (6, 2), (12, 2)):
        pictures = {str(number): np.zeros((8, 9)) for number in range(count)}
        show.frames(pictures, title="t", label="l")
        tops = {round(ax.get_position().y1, 6) for ax in drawn[-1][0].axes}
        assert len(tops) == rows


@pytest.mark.parametrize("count", [0, 1, 13])
def test_one_picture_or_too_many_cannot_be_compared(count):
    with pytest.raises(ValueError, match=f"{count} pictures; from 2 to 12"):
        show.frames({i: np.zeros((2, 2)) for i in range(count)}, title="t", label="l")


def test_strengths_that_read_the_same_are_refused():
    with pytest.raises(ValueError, match="two strengths read the same: 1, 1"):
        show.frames({1: np.zeros((2, 2)), "1": np.ones((2, 2))}, title="t", label="l")


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_a_mask_of_another_shape_is_refused(shape):
    image, mask = np.zeros(shape), np.zeros(shape[:-1] + (shape[-1] + 1,), np.uint8)
    with pytest.raises(ValueError, match="the mask is"):
        show.frames({"a": image, "b": (image, mask)}, title="t", label="l")


# What a notebook stores


def test_the_output_is_one_still_picture_with_a_text_equivalent():
    (output,) = outputs(
        shifted(), title="Finding", label="shift", labels={1: "liver"}, window=(50, 100)
    )
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.metadata["image/png"]["alt"] == output.data["text/plain"]
    assert output.data["text/plain"] == (
        "Finding. 3 pictures of 20 x 30 pixels side by side, shift: 0 mm, 2 mm, 4 mm; window "
        "centre 50, width 100. Outlined: liver."
    )
    assert output.metadata["image/png"]["width"] == 800
    assert not plt.get_fignums()
    (given,) = outputs(shifted(), title="Finding", label="shift", alt="A square\n moves.")
    assert given.data["text/plain"] == "A square moves."


def test_twelve_pictures_of_coloured_noise_stay_within_80_kb():
    rng = np.random.default_rng(0)
    noise = {str(i): rng.integers(0, 256, (128, 128, 3), np.uint8) for i in range(12)}
    (output,) = outputs(noise, title="Finding", label="noise")
    png = base64.b64decode(output.data["image/png"])
    assert len(png) <= figures.BUDGET_BYTES
    assert Image.open(io.BytesIO(png)).width >= 400
    assert "grey" not in output.data["text/plain"]  # there are no greys to explain


def test_the_same_pictures_have_the_same_bytes():
    (first,), (second,) = (outputs(shifted(), title="t", label="l") for _ in range(2))
    assert first.data == second.data


def test_the_stored_picture_shows_the_squares_where_they_are():
    (output,) = outputs(shifted((0, 10)), title="t", label="l", labels={1: "liver"})
    picture = pixels_of(base64.b64decode(output.data["image/png"]))
    orange = (np.abs(picture - colour_of("liver")).max(-1) < 12).any(0)
    half = picture.shape[1] // 2
    # Each picture is 30 pixels in half the page; the first square starts at 8, the second at 18.
    left, right = np.flatnonzero(orange[:half])[0], np.flatnonzero(orange[half:])[0]
    assert left / half == pytest.approx(8 / 30, abs=0.03)
    assert right / half == pytest.approx(18 / 30, abs=0.03)


# The slider

Kernel = types.SimpleNamespace(kernel=object(), user_ns={})


def test_only_a_live_front_end_gets_the_slider_and_it_keeps_the_still_picture(monkeypatch):
    monkeypatch.setattr(figures, "notebook_shell", lambda: Kernel)
    for name in ("JPY_SESSION_NAME", "COURSE_STILL"):
        monkeypatch.delenv(name, raising=False)
    (still,) = outputs(shifted(), title="t", label="l")
    assert WIDGET_MIME not in still.data
    monkeypatch.setenv("JPY_SESSION_NAME", "02_augmentation.ipynb")
    (live,) = outputs(shifted(), title="t", label="l")
    assert live.data.pop(WIDGET_MIME)["model_id"]
    assert live.data == still.data


def test_a_still_page_makes_no_widget(monkeypatch):
    def refuse(drawing):
        raise AssertionError("a widget nobody can see")

    monkeypatch.setattr(frames_module, "FrameSlider", refuse)
    outputs(shifted(), title="t", label="l")


def test_the_slider_leafs_through_the_strengths(sliders):
    steps = (0, 5, 10)
    outputs(shifted(steps), title="t", label="shift", labels={1: "liver"})
    (slider,) = sliders
    assert slider.strength.description == "shift"
    assert list(slider.strength.options) == ["0 mm", "5 mm", "10 mm"]
    assert slider.strength.value == "0 mm"
    starts = []
    for name in slider.strength.options:
        slider.strength.value = name
        picture = pixels_of(slider.image.value)
        orange = (np.abs(picture - colour_of("liver")).max(-1) < 12).any(0)
        starts.append(np.flatnonzero(orange)[0])
    # Equal steps, of a sixth of the picture's width, which is 30 pixels.
    assert np.diff(starts) == pytest.approx([(starts[2] - starts[0]) / 2] * 2, abs=2)
    assert (starts[1] - starts[0]) / starts[0] == pytest.approx(5 / 8, abs=0.05)


def test_leafing_back_draws_nothing_anew(sliders, monkeypatch):
    outputs(shifted(), title="t", label="l")
    (slider,) = sliders
    first = slider.image.value
    slider.strength.value = "4 mm"
    assert slider.image.value != first
    monkeypatch.setattr(figures, "render", None)
    slider.strength.value = "0 mm"
    assert slider.image.value == first


def test_outside_ipython_nothing_happens(monkeypatch, capsys):
    monkeypatch.setattr(figures, "notebook_shell", lambda: None)
    show.frames(shifted(), title="t", label="l")
    assert capsys.readouterr().out == ""
