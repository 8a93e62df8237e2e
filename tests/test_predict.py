"""Whole images from windows and from mirror images: what changes nothing gives the image back."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import predict
from helpers.errors import CourseDataError

few = settings(max_examples=25, derandomize=True, deadline=None)


@few
@given(st.data())
def test_overlaps_of_an_identity_average_to_the_image(data):
    axes = data.draw(st.integers(2, 3))
    sides = st.tuples(*[st.integers(1, 9 if axes == 2 else 6)] * axes)
    shape, size = data.draw(sides), data.draw(sides)
    how = {
        "overlap": data.draw(st.sampled_from([0, 0.25, 0.5, 0.75, 0.9])),
        "blend": data.draw(st.sampled_from(["constant", "gaussian"])),
        "batch": data.draw(st.integers(1, 5)),
    }
    image = np.random.default_rng(0).normal(0, 100, (*shape, 2)).astype(np.float32)
    seen = []
    found = predict.sliding_window(lambda x: seen.append(x.shape) or x, image, size, **how)
    assert found.dtype == np.float32 and found.shape == image.shape
    np.testing.assert_allclose(found, image, rtol=2e-5, atol=1e-4)
    assert {one[1:] for one in seen} == {(*size, 2)}
    assert all(one[0] == how["batch"] for one in seen[:-1]) and 1 <= seen[-1][0] <= how["batch"]


def numbered(length, size, **options):
    """What comes of windows along one axis of which each predicts its own number."""
    count = itertools.count()

    def number(windows):
        return np.stack([np.full(windows.shape[1:], next(count)) for _ in windows])

    image = np.zeros((1, length, 1), np.int16)
    return predict.sliding_window(number, image, (1, size), **options).ravel().tolist()


def test_windows_stand_at_equal_steps_and_the_last_ends_with_the_image():
    table = {  # length, size: numbers of the windows, averaged where two overlap
        (6, 4): [0, 0, 0.5, 0.5, 1, 1], (7, 4): [0, 0, 0.5, 1, 1.5, 1.5, 2],  # starts 0, 2 and 3
        (4, 4): [0, 0, 0, 0], (3, 1): [0, 1, 2],
    }  # fmt: skip
    assert {case: numbered(*case) for case in table} == table
    assert numbered(8, 4, overlap=0) == [0, 0, 0, 0, 1, 1, 1, 1]
    # 20 x (1 - 0.9) is a little less than 2 in floating point, 10 x (1 - 0.7) more than 3.
    last = {(24, 20, 0.9): 2, (19, 10, 0.7): 3, (12, 10, 0.99): 2}  # a step is 1 at least
    assert {(n, w, o): max(numbered(n, w, overlap=o)) for n, w, o in last} == last
    weight = np.exp(-0.5 * (np.arange(8) - 3.5) ** 2)  # an eighth of 8 voxels is 1
    between = weight[:4] / (weight[:4] + weight[4:])
    found = numbered(12, 8, blend="gaussian")
    np.testing.assert_allclose(found, [0] * 4 + between.tolist() + [1] * 4, atol=1e-6)


def test_an_image_smaller_than_the_window_is_padded_with_its_border():
    def tenfold(windows):
        assert windows.dtype == np.int16 and windows.ravel().tolist() == [3, 3, 5, 5, 5]
        return windows * 10

    image = np.array([[3], [5]], np.int16)[..., np.newaxis]  # two voxels of y
    assert predict.sliding_window(tenfold, image, (5, 1)).ravel().tolist() == [30, 50]


def test_a_network_may_give_other_channels_and_tensors(tf):
    image = np.random.default_rng(1).normal(size=(6, 7, 8, 1)).astype(np.float32)
    network = tf.keras.layers.Conv3D(3, 1, bias_initializer="ones")
    whole = network(image[np.newaxis]).numpy()[0]
    for volume in (image, tf.constant(image)):
        found = predict.sliding_window(network, volume, (4, 4, 4), blend="gaussian")
        np.testing.assert_allclose(found, whole, atol=1e-5)


def test_mirrored_predictions_are_turned_back_and_averaged():
    images = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    same = predict.flipped(lambda x: x[..., :1] ** 2, images, "yx")
    assert same.dtype == np.float32
    np.testing.assert_array_equal(same, images[..., :1] ** 2)
    square = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)  # 0 1 / 2 3

    def corner(batch):  # what lies in the corner, wherever the patient was turned
        return np.broadcast_to(batch[:, :1, :1], batch.shape)

    def ramp(batch):  # along x, which does not turn with the patient
        return batch + np.array([0, 10], np.float32)[:, None]

    # The corners are 0, 1 (x mirrored), 2 (y), 3 (both): mirroring a constant changes nothing.
    for axes, mean in (("yx", 1.5), ("x", 0.5), ("y", 1), ("", 0)):
        np.testing.assert_array_equal(
            predict.flipped(corner, square, axes), np.full_like(square, mean)
        )
    np.testing.assert_array_equal(predict.flipped(ramp, square, "x"), square + 5)
    np.testing.assert_array_equal(predict.flipped(ramp, square, "y"), ramp(square))
    volume = np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2, 1)
    seen = []
    predict.flipped(lambda x: seen.append(x.ravel().tolist()) or x, volume, "z")
    assert seen == [[*range(8)], [4, 5, 6, 7, 0, 1, 2, 3]]


IMAGE = np.zeros((6, 6, 1), np.float32)
REFUSED = [  # what predicts, other arguments, words
    (lambda x: x[:, 1:], {}, "returned"), (lambda x: x[:1], {}, "returned"),
    (lambda x: x[..., 0], {}, "returned"), (lambda x: None, {}, "returned"),
    (lambda x: np.repeat(x, len(x), -1), {"batch": 3}, "returned"),  # 3 channels, then 1
    (lambda x: x * np.nan, {}, "NOT_FINITE"), (lambda x: x + np.inf, {}, "NOT_FINITE"),
    *[(lambda x: x, wrong, "overlap") for wrong in
      ({"overlap": 1}, {"overlap": -0.1}, {"overlap": np.nan}, {"blend": "mean"})],
    *[(lambda x: x, wrong, "") for wrong in
      ({"size": (4, 4, 4)}, {"size": (0, 4)}, {"image": IMAGE[..., 0]}, {"batch": -1})],
]  # fmt: skip


def test_predictions_and_arguments_that_cannot_be_are_refused():
    wrong = []
    for number, (function, other, words) in enumerate(REFUSED):
        try:
            predict.sliding_window(function, **({"image": IMAGE, "size": (4, 4)} | other))
        except (ValueError, ZeroDivisionError) as error:
            wrong += [] if words in str(error) else [(number, error)]
        else:
            wrong.append((number, "taken"))
    assert wrong == []
    for function in (lambda x: x[:, 0], lambda x: x[:, 0, 0]):  # a class, where a map is expected
        with pytest.raises(ValueError, match="returned"):
            predict.flipped(function, IMAGE[np.newaxis], "x")
    with pytest.raises(CourseDataError, match="NOT_FINITE"):
        predict.flipped(lambda x: x * np.inf, IMAGE[np.newaxis] + 1, "x")
