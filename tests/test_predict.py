"""Whole images from windows and from mirror images: what changes nothing gives the image back."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import predict


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.data())
def test_overlaps_of_an_identity_average_to_the_image(data):
    axes, seen = data.draw(st.integers(2, 3)), []
    sides = st.tuples(*[st.integers(1, 9 if axes == 2 else 6)] * axes)
    shape, size, batch = data.draw(sides), data.draw(sides), data.draw(st.integers(1, 5))
    overlap = data.draw(st.sampled_from([0, 0.25, 0.5, 0.75, 0.9]))
    blend = data.draw(st.sampled_from(["constant", "gaussian"]))
    image = np.random.default_rng(0).normal(0, 100, (*shape, 2)).astype(np.float32)

    def triple(windows):
        seen.append(windows.shape)
        return np.concatenate([windows, 2 * windows, -windows], -1)  # k is up to the network

    how = {"overlap": overlap, "blend": blend, "batch": batch}
    found = predict.sliding_window(triple, image, size, **how)
    assert found.dtype == np.float32 and {one[1:] for one in seen} == {(*size, 2)}
    assert all(one[0] == batch for one in seen[:-1]) and 1 <= seen[-1][0] <= batch
    np.testing.assert_allclose(found, triple(image), rtol=2e-5, atol=2e-4)


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
    # 20 x (1 - 0.9) is a little less than 2 in floating point, 10 x (1 - 0.7) more than 3.
    last = {(24, 20, 0.9): 2, (19, 10, 0.7): 3, (12, 10, 0.99): 2, (8, 4, 0): 1}  # 1 at least
    assert {(n, w, o): max(numbered(n, w, overlap=o)) for n, w, o in last} == last
    weight = np.exp(-0.5 * (np.arange(8) - 3.5) ** 2)  # an eighth of 8 voxels is 1
    between = weight[:4] / (weight[:4] + weight[4:])
    found = numbered(12, 8, blend="gaussian")
    np.testing.assert_allclose(found, [0] * 4 + between.tolist() + [1] * 4, atol=1e-6)


def test_an_image_smaller_than_the_window_is_padded_with_its_border():
    image, seen = np.array([[[3]], [[5]]], np.int16), []  # two voxels of y
    found = predict.sliding_window(lambda x: seen.append(x) or x * 10, image, (5, 1))
    assert found.ravel().tolist() == [30, 50]
    assert seen[0].dtype == np.int16 and seen[0].ravel().tolist() == [3, 3, 5, 5, 5]


def test_mirrored_predictions_are_turned_back_and_averaged():
    volume = np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2, 1)

    def corner(batch):  # what lies in the corner, wherever the patient was turned
        return np.broadcast_to(batch[:, :1, :1, :1], batch.shape)

    # Mirroring a constant changes nothing; x adds 1 to the corner, y 2 and z 4.
    means = {"": 0, "x": 0.5, "y": 1, "yx": 1.5, "z": 2, "zyx": 3.5}
    assert {axes: predict.flipped(corner, volume, axes).mean() for axes in means} == means
    ramp = np.array([0, 10], np.float32)[:, None]  # along x, which does not turn with the patient
    for axes, expected in {"x": volume + 5, "zy": volume + ramp}.items():
        found = predict.flipped(lambda batch: batch + ramp, volume, axes)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


IMAGE = np.ones((6, 6, 1), np.float32)
REFUSED = [  # what predicts, other arguments, words
    (lambda x: x[:, 1:], {}, "returned"), (lambda x: x[:1], {}, "returned"),
    (lambda x: x[..., 0], {}, "returned"), (lambda x: None, {}, "returned"),
    (lambda x: np.repeat(x, len(x), -1), {"batch": 3}, "returned"),  # 3 channels, then 1
    (lambda x: x * np.nan, {}, "NOT_FINITE"), (lambda x: x + np.inf, {}, "NOT_FINITE"),
    *((lambda x: x, {"overlap": one}, "overlap") for one in (1, -0.1, np.nan)),
    (lambda x: x, {"blend": "mean"}, "mean"), (lambda x: x, {"size": (4, 4, 4)}, "broadcast"),
    (lambda x: x, {"size": (0, 4)}, "zero"), (lambda x: x, {"image": IMAGE[..., 0]}, "broadcast"),
]  # fmt: skip
MIRRORED = [(lambda x: x[:, 0], "returned"), (lambda x: x * np.inf, "NOT_FINITE")]


@pytest.mark.parametrize(("function", "other", "words"), REFUSED)
def test_predictions_and_arguments_that_cannot_be_are_refused(function, other, words):
    with pytest.raises((ValueError, ZeroDivisionError), match=words):
        predict.sliding_window(function, **{"image": IMAGE, "size": (4, 4)} | other)


@pytest.mark.parametrize(("function", "words"), MIRRORED)
def test_mirrored_predictions_that_cannot_be_are_refused(function, words):
    with pytest.raises(ValueError, match=words):
        predict.flipped(function, IMAGE[None], "x")
