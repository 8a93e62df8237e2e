"""An outline goes round exactly the pixels of its mask, and says by colour and dash whose it is."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.patches import Patch
from PIL import Image

from helpers.lesson import figures, outlines, phantoms, show
from tests.drawn_figures import assert_readable, outputs

ROWS, COLUMNS = 24, 32
Y, X = np.mgrid[:ROWS, :COLUMNS]

pytestmark = pytest.mark.usefixtures("shell")
DRAWS = outlines


def disc(y: float, x: float, radius: float) -> np.ndarray:
    return (np.hypot(Y - y, X - x) <= radius).astype(np.uint8)


TRUTH, FOUND = disc(11, 15, 7), disc(12, 17, 5)
PHOTO = np.random.default_rng(0).integers(0, 255, (ROWS, COLUMNS, 3)).astype(np.uint8)
CASES = {
    "best: 0.98": (PHOTO, {"reference": TRUTH, "network": FOUND}),
    "worst: 0.61": (PHOTO, {"reference": FOUND, "network": disc(3, 3, 9)}),
}


def enclosed(contour, cut_mm=(1.0, 1.0)) -> np.ndarray:
    """The pixels whose centres a drawn line goes round."""
    centres = np.stack([(X + 0.5) * cut_mm[1], (Y + 0.5) * cut_mm[0]], -1).reshape(-1, 2)
    inside = [path.contains_points(centres) for path in contour.get_paths()]
    return np.any(inside, 0).reshape(ROWS, COLUMNS)


def contours(ax) -> list:
    """The coloured lines, in the order in which they are drawn, without their dark edges."""
    sets = [one for one in ax.collections if isinstance(one, ContourSet) and not one.filled]
    return [one for one in sets if tuple(one.get_edgecolor()[0][:3]) != (0, 0, 0)]


def look(line) -> tuple:
    tone = figures.PALETTE["line"] if line is None else line.get_edgecolor()[0]
    return (*np.round(tone, 3), str(line.get_linestyle()))


def legend(fig) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_each_outline_encloses_the_pixels_of_its_mask(drawn):
    show.outlines(CASES, title="t")
    for ax, (_, masks) in zip(drawn[0][0].axes, CASES.values(), strict=True):
        for line, mask in zip(contours(ax), masks.values(), strict=True):
            np.testing.assert_array_equal(enclosed(line), mask == 1)


def test_with_a_spacing_outlines_lie_where_the_image_does(drawn):
    show.outlines(CASES, title="t", spacing=(2.0, 0.5))
    for ax, (_, masks) in zip(drawn[0][0].axes, CASES.values(), strict=True):
        left, right, bottom, top = ax.images[0].get_extent()
        assert (left, right, bottom, top) == (0, 16, 48, 0)
        for line, mask in zip(contours(ax), masks.values(), strict=True):
            np.testing.assert_array_equal(enclosed(line, (2.0, 0.5)), mask == 1)


def test_a_mask_looks_the_same_in_all_pictures_and_unlike_the_others(drawn):
    cases = {**CASES, "only one": (PHOTO, {"network": FOUND})}
    show.outlines(cases, title="t")
    fig, _ = drawn[0]
    first, second, third = ([look(line) for line in contours(ax)] for ax in fig.axes)
    assert first == second and third == first[1:]
    assert first[0][:3] != first[1][:3] and first[0][-1] != first[1][-1]
    assert legend(fig) == ["reference", "network"]
    handles = fig.legends[0].legend_handles
    shown = [tuple(np.round(plt.matplotlib.colors.to_rgba(one.get_color()), 3)) for one in handles]
    assert shown == [tone[:4] for tone in first]
    assert len({str(one._dash_pattern) for one in handles}) == 2


def test_what_the_palette_knows_keeps_its_colour_whatever_else_there_is(drawn):
    wanted = {"reference": figures.PALETTE["truth"], "network": figures.PALETTE["prediction"]}
    wanted |= {name: figures.PALETTE[name] for name in ("lungs", "liver")}
    pairs = (["reference", "network"], ["network", "reference"], ["mine", "reference"])
    for names in (*pairs, ["grid", "lungs", "liver"]):
        show.outlines({"": (PHOTO, dict.fromkeys(names, TRUTH))}, title="t")
        handles = drawn[-1][0].legends[0].legend_handles
        tones = {name: one.get_color() for name, one in zip(names, handles, strict=True)}
        assert len(set(tones.values())) == len(names)
        assert all(tones[name] == wanted[name] for name in names if name in wanted)
        assert {*tones.values()} <= {*wanted.values(), *outlines.TONES}


def test_on_photographs_the_lines_keep_their_colours_where_the_picture_has_to_be_small(drawn):
    pictures = [phantoms.skin_lesion(number, (250, 333)) for number in (11, 25, 33, 47)]
    masks = [{"reference": mask, "network": np.roll(mask, 6, 1)} for _, mask in pictures]
    cases = {str(n): (pictures[n][0], one) for n, one in enumerate(masks)}
    show.outlines(cases, columns=2, title="t")
    picture = Image.open(io.BytesIO(show.render(drawn[0][0])))
    assert picture.mode == "P"  # with fewer colours than it was drawn in
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for name in ("truth", "prediction"):
        tone = np.round(255 * np.array(to_rgb(figures.PALETTE[name])))
        assert (colours == tone).all(axis=1).sum() > 500


def test_names_that_share_a_colour_in_the_palette_are_told_apart(drawn):
    names = ["lesion by A", "lesion by B", "lesion by C", "lesion by D"]
    show.outlines({"": (PHOTO, dict.fromkeys(names, TRUTH))}, title="t")
    assert len({one.get_color() for one in drawn[0][0].legends[0].legend_handles}) == 4


def test_an_empty_mask_has_no_line_but_stays_in_the_legend(drawn):
    empty = np.zeros_like(TRUTH)
    show.outlines({"missed": (PHOTO, {"reference": TRUTH, "network": empty})}, title="t")
    fig, alt = drawn[0]
    (line,) = contours(fig.axes[0])
    np.testing.assert_array_equal(enclosed(line), TRUTH == 1)
    assert legend(fig) == ["reference", "network"]
    assert "network empty" in alt


def test_a_mask_that_fills_the_picture_is_outlined_at_its_edge(drawn):
    show.outlines({"all": (PHOTO, {"network": np.ones_like(TRUTH)})}, title="t")
    (line,) = contours(drawn[0][0].axes[0])
    assert enclosed(line).all()
    assert drawn[0][0].axes[0].get_xlim() == (0, COLUMNS)


def test_ignored_pixels_are_hatched_and_no_part_of_the_outline(drawn):
    ignoring = TRUTH.copy()
    ignoring[:, :12] = 255
    cases = {"cut": (PHOTO, {"reference": ignoring, "network": FOUND}), **CASES}
    show.outlines(cases, title="t")
    fig, alt = drawn[0]
    (veil,) = [one for one in fig.axes[0].collections if getattr(one, "filled", False)]
    np.testing.assert_array_equal(enclosed(veil), ignoring == 255)
    assert any(veil.hatches) and veil.get_alpha() <= 0.4
    np.testing.assert_array_equal(enclosed(contours(fig.axes[0])[0]), ignoring == 1)
    assert not any(getattr(one, "filled", False) for one in fig.axes[1].collections)
    assert legend(fig) == ["reference", "network", "ignored"]
    assert isinstance(fig.legends[0].legend_handles[2], Patch)
    assert f"ignored {100 * 12 / COLUMNS:.1f} %" in alt


def test_the_veil_is_grey_on_the_page():
    ignoring = np.full_like(TRUTH, 255)
    grey = np.full((ROWS, COLUMNS, 3), 127, np.uint8)
    case = {"": (grey, {"reference": ignoring})}
    (output,) = outputs(show.outlines, case, title="t")
    png = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")
    pixels = np.asarray(png)[200:400, 100:400].astype(int)
    assert np.ptp(pixels, axis=-1).max() <= 8
    assert pixels.std() > 3  # hatched


def test_bool_ids_and_a_last_axis_of_one_mean_the_same(drawn):
    grey = PHOTO[..., 0]
    for image, mask in (
        (grey, TRUTH == 1),
        (grey[..., None], TRUTH[..., None]),
        (grey, TRUTH.astype(float)),
    ):
        show.outlines({"a": (image, {"reference": mask})}, title="t")
        ax = drawn[-1][0].axes[0]
        np.testing.assert_array_equal(ax.images[0].get_array(), grey)
        np.testing.assert_array_equal(enclosed(contours(ax)[0]), TRUTH == 1)


def test_one_window_for_all_or_a_range_for_each(drawn):
    grey = PHOTO[..., 0].astype(float)
    cases = {"a": (grey, {"spleen": TRUTH}), "b": (grey * 10, {"spleen": TRUTH})}
    show.outlines(cases, title="t", window=(40, 400))
    show.outlines(cases, title="t")
    limits = [[ax.images[0].get_clim() for ax in fig.axes] for fig, _ in drawn]
    assert limits[0] == [(-160, 240)] * 2
    assert limits[1][1] == pytest.approx(np.multiply(limits[1][0], 10))
    notes = [[text.get_text() for text in fig.texts] for fig, _ in drawn]
    assert "Window centre 40, width 400" in notes[0]
    assert "Grey from percentile 0.5 (black) to 99.5 (white)" in notes[1]
    assert drawn[0][1].endswith("Window centre 40, width 400.")


def test_known_spacings_give_one_scale_and_a_bar_unknown_ones_equal_heights(drawn):
    half = {"large": CASES["best: 0.98"], "small": (PHOTO[::2], {"reference": TRUTH[::2]})}
    show.outlines(half, title="t", spacing={"large": (1, 1), "small": (2, 1)})
    show.outlines(half, title="t")
    show.outlines(half, title="t", spacing={"large": (1, 1)})
    for (fig, _), (same, bar) in zip(drawn, [(True, "10 mm"), (None, ""), (None, "")], strict=True):
        FigureCanvasAgg(fig).draw()
        large, small = (ax.get_window_extent() for ax in fig.axes)
        assert large.height == pytest.approx(small.height)
        assert (large.width == pytest.approx(small.width)) == bool(same)
        assert "".join(text.get_text() for text in fig.axes[0].texts) == bar


def test_alternative_text_says_how_much_each_mask_covers_unless_another_is_given(drawn):
    show.outlines(CASES, title="Faint borders are missed.")
    shares = [100 * np.mean(mask) for _, masks in CASES.values() for mask in masks.values()]
    assert drawn[0][1] == (
        "Faint borders are missed. Outlines of reference, network on 2 pictures, with their shares "
        f"of it: best: 0.98 (24 x 32 pixels: reference {shares[0]:.1f} %, network {shares[1]:.1f} "
        f"%); worst: 0.61 (24 x 32 pixels: reference {shares[2]:.1f} %, network {shares[3]:.1f} %)."
    )
    show.outlines(CASES, title="t", alt="Two lesions.")
    assert drawn[1][1] == "Two lesions."


@pytest.mark.parametrize(
    ("names", "columns", "rows"),
    [
        (["best: 0.98"], None, 1),
        (["best: 0.98", "median: 0.93", "worst: 0.61"], None, 1),
        ([f"case {n}: 0.9{n}" for n in range(6)], None, 2),
        ([f"case {n}: 0.9{n}" for n in range(12)], None, 3),
        ([f"case {n}: 0.9{n}" for n in range(6)], 2, 3),
        ([f"{n}: 0.9{n}" for n in range(8)], 8, 1),
        ([f"case {n}: 0.9{n}" for n in range(8)], 8, 2),
        ([f"a case of which much is to be said, number {n}" for n in range(6)], None, 3),
        ([f"much is to be said of case {n}, and more " * 5 for n in range(2)], None, 2),
    ],
)
@pytest.mark.parametrize("grey", [False, True])
def test_no_text_is_cut_off_or_lies_on_another(names, columns, rows, grey, drawn):
    image = PHOTO[..., 0] if grey else PHOTO
    masks = {
        "reference": TRUTH,
        "network": FOUND,
        "after training four times as long": FOUND,
        "with another output stride": np.full_like(TRUTH, 255),
    }
    title = "A title long enough to be wrapped " * 3
    cases = dict.fromkeys(names, (image, masks))
    show.outlines(cases, title=title, columns=columns)
    fig, _ = drawn[0]
    FigureCanvasAgg(fig).draw()
    assert len({round(ax.get_window_extent().y1) for ax in fig.axes}) == rows
    texts = [*fig.texts, *fig.legends[0].get_texts(), *(ax._left_title for ax in fig.axes)]
    assert_readable(fig, texts)
    box = fig.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.y1 < min(ax.get_window_extent().y0 for ax in fig.axes)
    assert not any(box.overlaps(text.get_window_extent()) for text in fig.texts)


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        ({}, "1 to 4 masks"),
        ({"a": (PHOTO, {})}, "1 to 4 masks"),
        ({"a": (PHOTO, {str(n): TRUTH for n in range(5)})}, "1 to 4 masks .* not 5"),
        ({"a": PHOTO}, "a: a case is an image and"),
        ({"a": (PHOTO, TRUTH)}, "a: a case is an image and"),
        ({"a": (PHOTO[..., :2], {"m": TRUTH})}, r"a: an image is .* not \(24, 32, 2\)"),
        ({"a": (PHOTO, {"m": TRUTH.T})}, r"a: m is \(32, 24\), the image \(24, 32\)"),
        ({"a": (PHOTO, {"m": TRUTH * 2})}, "a: m holds 2;"),
        ({"a": (PHOTO, {"m": TRUTH * 0.5})}, "a: m holds 0.5;"),
    ],
)
def test_what_cannot_be_drawn_is_refused(cases, words, drawn):
    with pytest.raises(ValueError, match=words):
        show.outlines(cases, title="t")
    assert not drawn


def test_a_spacing_is_two_lengths_of_a_picture_that_is_there(drawn):
    for spacing in ((1, 1, 1), (0, 1), {"best: 0.98": (-1, 1)}):
        with pytest.raises(ValueError, match="spacing is two lengths"):
            show.outlines(CASES, title="t", spacing=spacing)
    with pytest.raises(ValueError, match="spacing for one, 2, where no picture is"):
        show.outlines(CASES, title="t", spacing={"one": (2, 1), 2: (2, 1), "best: 0.98": (2, 1)})
    for spacing in ({1: (2, 1)}, {"1": (2, 1)}):
        show.outlines({1: CASES["best: 0.98"]}, title="t", spacing=spacing)
        assert drawn[-1][0].axes[0].images[0].get_extent() == [0, COLUMNS, 2 * ROWS, 0]


def test_a_picture_is_one_output_with_a_text_equivalent_and_within_80_kb():
    lesions = {f"case {n}": phantoms.skin_lesion(n, (96, 128)) for n in range(12)}
    cases = {
        n: (image, {"reference": mask, "network": mask}) for n, (image, mask) in lesions.items()
    }
    (output,) = outputs(show.outlines, cases, title="Finding")
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.data["text/plain"] == output.metadata["image/png"]["alt"]
    assert output.data["text/plain"].startswith("Finding. Outlines of reference, network on 12 ")
    assert len(base64.b64decode(output.data["image/png"])) <= figures.BUDGET_BYTES
    assert not plt.get_fignums()


def test_the_same_picture_has_the_same_bytes():
    (first,), (second,) = (outputs(show.outlines, CASES, title="t") for _ in range(2))
    assert first.data == second.data
