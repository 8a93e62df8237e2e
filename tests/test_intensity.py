"""Windows, whitening and scaling against arithmetic done by hand, by NumPy and by pydicom."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from helpers import intensity

few = settings(max_examples=50, deadline=None, derandomize=True)
images = hnp.arrays(
    np.int16, hnp.array_shapes(max_dims=4, max_side=5), elements=st.integers(-1024, 3071)
)


def test_a_window_is_black_below_white_above_and_a_half_at_its_centre():
    hu = np.array([-1024, -160, -60, 40, 140, 240, 3000], np.int16)
    shown = intensity.window(hu, 40, 400)
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown, [0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-7)


@pytest.mark.parametrize("width", [0, -1, -400.0])
def test_a_window_without_width_is_refused(width):
    with pytest.raises(ValueError, match=f"positive width, not {width}"):
        intensity.window(np.zeros(3), 40, width)


@few
@given(images, st.sampled_from(sorted(intensity.WINDOWS)))
def test_named_windows_are_the_standards_exact_ones_and_within_a_unit_of_its_default(hu, name):
    center, width = intensity.WINDOWS[name]
    ours = intensity.window(hu, center, width)
    # LINEAR begins at the same value as LINEAR_EXACT and ends one unit earlier.
    for function, tolerance in (("LINEAR_EXACT", 1e-6), ("LINEAR", 1 / width + 1e-6)):
        header = Dataset()
        header.WindowCenter, header.WindowWidth = center, width
        header.VOILUTFunction = function
        header.PhotometricInterpretation = "MONOCHROME2"
        header.BitsStored, header.PixelRepresentation = 16, 1
        shown = apply_windowing(hu, header)  # over the range of 16 signed bits
        np.testing.assert_allclose(ours, (shown + 32768) / 65535, atol=tolerance)


def test_windows_bear_the_values_that_reading_rooms_use():
    assert intensity.WINDOWS == {
        "soft tissue": (40, 400),
        "lung": (-600, 1500),
        "bone": (400, 1800),
        "brain": (40, 80),
    }


def test_whitening_gives_mean_zero_and_deviation_one():
    image = np.random.default_rng(0).normal(300, 50, (8, 9, 10)).astype(np.float32)
    white = intensity.whiten(image)
    assert white.dtype == np.float32
    assert abs(white.mean()) < 1e-5
    assert abs(white.std() - 1) < 1e-5
    np.testing.assert_allclose(white, (image - image.mean()) / image.std(), atol=1e-4)


def test_whitening_by_hand():
    np.testing.assert_allclose(
        intensity.whiten([2, 4, 4, 4, 5, 5, 7, 9]), [-1.5, -0.5, -0.5, -0.5, 0, 0, 1, 2]
    )


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_statistics_come_from_the_foreground_and_the_whole_image_is_transformed(dtype):
    rng = np.random.default_rng(1)
    image = rng.normal(1000, 30, (6, 7, 8)).astype(np.float32)
    mask = (rng.random(image.shape) < 0.4).astype(dtype)
    if dtype is np.uint8:  # several class ids weigh alike
        mask *= rng.choice(np.array([1, 2, 250], np.uint8), mask.shape)
    inside = mask != 0
    image[~inside] = 0
    white = intensity.whiten(image, mask)
    expected = (image.astype(float) - image[inside].mean(dtype=float)) / image[inside].std(
        dtype=float
    )
    np.testing.assert_allclose(white, expected, rtol=1e-4, atol=1e-4)
    assert abs(white[~inside][0]) > 10


@pytest.mark.parametrize("value", [0, 1, -1000, 0.1, 1e-6, 123456.7])
def test_a_constant_image_becomes_zero_and_not_nan(value):
    image = np.full((5, 6, 7), value, np.float32)
    np.testing.assert_array_equal(intensity.whiten(image), 0)
    np.testing.assert_array_equal(intensity.zero_one(image), 0)
    np.testing.assert_array_equal(intensity.one_one(image), -1)


def test_an_empty_mask_gives_zero_everywhere():
    image = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(intensity.whiten(image, np.zeros_like(image)), 0)


def test_a_small_but_real_spread_is_not_taken_for_a_constant():
    image = np.array([1000.0, 1000.5, 1001.0, 1000.5])
    np.testing.assert_allclose(intensity.whiten(image), [-np.sqrt(2), 0, np.sqrt(2), 0], atol=1e-4)
    tiny = np.array([1e-4, 2e-4, 3e-4, 2e-4])
    np.testing.assert_allclose(intensity.whiten(tiny), [-np.sqrt(2), 0, np.sqrt(2), 0], atol=1e-4)


def test_scaling_by_hand():
    image = np.array([[-1000, 0], [1000, 3000]], np.int16)
    np.testing.assert_allclose(intensity.zero_one(image), [[0, 0.25], [0.5, 1]])
    np.testing.assert_allclose(intensity.one_one(image), [[-1, -0.5], [0, 1]])


@few
@given(images)
def test_scaling_reaches_both_ends_keeps_order_and_shape_and_leaves_the_input_alone(image):
    kept = image.copy()
    for scale, low in ((intensity.zero_one, 0), (intensity.one_one, -1)):
        scaled = scale(image)
        assert scaled.dtype == np.float32
        assert scaled.shape == image.shape
        assert scaled.min() == low
        if image.min() < image.max():
            assert scaled.max() == 1
        assert (np.diff(scaled.ravel()[np.argsort(image.ravel(), kind="stable")]) >= 0).all()
    np.testing.assert_array_equal(image, kept)


@few
@given(images, st.integers(-1000, 1000), st.integers(1, 50))
def test_whitening_does_not_see_rescaling(image, shift, factor):
    changed = image.astype(np.float64) * factor + shift
    np.testing.assert_allclose(intensity.whiten(changed), intensity.whiten(image), atol=2e-2)


def test_tensorflow_gives_the_same_eagerly_and_inside_a_graph():
    from helpers import quiet

    quiet.tensorflow_greeting()
    import tensorflow as tf

    rng = np.random.default_rng(2)
    image = rng.integers(-1000, 2000, (3, 4, 5)).astype(np.int16)
    constant = np.full_like(image, -1000)
    mask = (rng.random(image.shape) < 0.5).astype(np.uint8)
    cases = {
        "window": lambda x, m: intensity.window(x, 40, 400),
        "whiten": lambda x, m: intensity.whiten(x),
        "whiten over a mask": lambda x, m: intensity.whiten(x, m),
        "whiten over a boolean mask": lambda x, m: intensity.whiten(x, m > 0),
        "zero_one": lambda x, m: intensity.zero_one(x),
        "one_one": lambda x, m: intensity.one_one(x),
    }
    for name, case in cases.items():
        mapped = tf.data.Dataset.from_tensor_slices(
            (np.stack([image, constant]), np.stack([mask, mask * 0]))
        ).map(case)
        assert mapped.element_spec == tf.TensorSpec((3, 4, 5), tf.float32), name
        for pixels, where, in_graph in zip(
            (image, constant), (mask, mask * 0), mapped, strict=True
        ):
            expected = case(pixels, where)
            assert type(expected) is np.ndarray, name
            eager = case(tf.constant(pixels), tf.constant(where))
            assert tf.is_tensor(eager), name
            assert eager.dtype == tf.float32
            np.testing.assert_allclose(eager, expected, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(in_graph, expected, atol=1e-5, err_msg=name)


def test_a_mask_of_another_shape_is_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match="differ in shape"):
        intensity.whiten(np.zeros((8, 8, 8, 1)), np.ones((8, 8, 8)))
