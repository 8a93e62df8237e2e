"""Windows and whitening against arithmetic done by hand, by NumPy and by pydicom."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from helpers import intensity

few = settings(max_examples=25, deadline=None, derandomize=True)
values = st.integers(-1024, 3071)
images = hnp.arrays(np.int16, hnp.array_shapes(max_dims=4, max_side=5), elements=values)


@few
@given(images, st.sampled_from(sorted(intensity.WINDOWS)))
def test_named_windows_are_the_standards_exact_ones_and_within_a_unit_of_its_default(hu, name):
    center, width = intensity.WINDOWS[name]
    header = Dataset()
    header.WindowCenter, header.WindowWidth = center, width
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsStored, header.PixelRepresentation = 16, 1
    # LINEAR begins at the same value as LINEAR_EXACT and ends one unit earlier.
    for header.VOILUTFunction, tolerance in (("LINEAR_EXACT", 1e-6), ("LINEAR", 1 / width + 1e-6)):
        shown = apply_windowing(hu, header)  # over the range of 16 signed bits
        ours = intensity.window(hu, center, width)
        np.testing.assert_allclose(ours, (shown + 32768) / 65535, atol=tolerance)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, None])
def test_statistics_come_from_the_foreground_and_the_whole_image_is_transformed(dtype):
    rng = np.random.default_rng(1)
    image = rng.normal(1000, 30, (6, 7, 8)).astype(np.float32)
    mask = rng.choice(np.array([0, 0, 1, 250]), image.shape).astype(dtype or bool)
    image[mask == 0] = -50
    inside = image[mask != 0] if dtype else image  # several class ids weigh alike
    white = intensity.whiten(image, mask if dtype else None)
    expected = (image - inside.mean(dtype=float)) / inside.std(dtype=float)
    np.testing.assert_allclose(white, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [0, 1, -1000, 0.1, 1e-6, 123456.7])
def test_a_constant_image_gives_zero_and_a_small_but_real_spread_is_none(value):
    flat = np.full((5, 6, 7), value, np.float32)
    np.testing.assert_array_equal(intensity.whiten(flat), 0)
    steps = value + max(abs(value) / 2000, 1e-7) * np.array([0, 1, 2, 1])
    np.testing.assert_array_equal(intensity.whiten(steps, steps > 1e9), 0)  # an empty mask
    white = intensity.whiten(steps.astype(np.float32))
    np.testing.assert_allclose(white, [-np.sqrt(2), 0, np.sqrt(2), 0], atol=0.1)


def test_tensorflow_gives_the_same_inside_a_graph():
    tf = pytest.importorskip("tensorflow")
    image = np.random.default_rng(2).integers(-1000, 2000, (3, 4, 5)).astype(np.int16)
    pairs = (np.stack([image, np.full_like(image, -1000)]), np.stack([image > 0, image > 9999]))
    for case in (lambda x, m: intensity.window(x, 40, tf.constant(400.0)), intensity.whiten):
        mapped = tf.data.Dataset.from_tensor_slices(pairs).map(case)
        assert mapped.element_spec == tf.TensorSpec((3, 4, 5), tf.float32)
        for pixels, mask, in_graph in zip(*pairs, mapped, strict=True):
            np.testing.assert_allclose(in_graph, case(pixels, mask), atol=1e-5)
    assert intensity.window(image, 40, 400).dtype == intensity.whiten(image).dtype == np.float32


def test_a_window_without_width_and_a_mask_of_another_shape_are_refused():
    for width in (0, -400.0, np.int16(0)):
        with pytest.raises(ValueError, match=f"positive width, not {width}"):
            intensity.window(np.zeros(3), 40, width)
    with pytest.raises(ValueError, match="differ in shape"):
        intensity.whiten(np.zeros((8, 8, 8, 1)), np.ones((8, 8, 8)))
