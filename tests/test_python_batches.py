"""Batches that Python loads: each item once an epoch, in an order that the seed fixes."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import pipeline
from helpers.cases import Case
from helpers.errors import CourseDataError

LABELS = (0, 0, 0, 0, 0, 0, 1, 1, 2)


def number(item: int) -> dict:
    """A picture that shows its number."""
    return {"image": np.full((2, 3, 1), item, np.int16), "label": item % 2}


def drawn(item: int, random: np.random.Generator) -> dict:
    return {"image": random.integers(0, 2**31, (2, 3, 1)), "label": item % 2}


def cases(labels=LABELS, weights=None) -> list[Case]:
    weights = weights or [None] * len(labels)
    return [
        Case(str(n), n, label=one, weight=weight)
        for n, (one, weight) in enumerate(zip(labels, weights, strict=True))
    ]


def of_case(case: Case) -> dict:
    return {"image": np.full((2, 3, 1), case.source, np.int16)}


def epochs(batches, count: int) -> list[list[int]]:
    """The numbers in some passes."""
    found = []
    for _ in range(count):
        found.append([int(one.flat[0]) for batch in batches for one in batch["image"]])
        batches.on_epoch_end()
    return found


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 20), st.integers(1, 8), st.booleans(), st.integers(0, 2**31))
def test_an_epoch_has_every_item_once_whatever_the_batch_size(count, batch_size, shuffle, seed):
    options = {"shuffle": shuffle, "seed": seed}
    batches = pipeline.PythonBatches(range(count), number, batch_size=batch_size, **options)
    sizes = [len(batch["image"]) for batch in batches]
    assert len(batches) == len(sizes) == -(-count // batch_size)
    assert set(sizes[:-1]) <= {batch_size}
    found = epochs(batches, 2)
    assert all(sorted(one) == list(range(count)) for one in found)
    assert shuffle or found == [list(range(count))] * 2
    again = pipeline.PythonBatches(range(count), number, batch_size=1, **options)
    assert epochs(again, 2) == found


def test_each_epoch_has_an_order_of_its_own_and_so_has_each_seed():
    made = [pipeline.PythonBatches(range(30), number, batch_size=4, seed=seed) for seed in (0, 1)]
    assert len({tuple(one) for batches in made for one in epochs(batches, 4)}) == 8


def test_automatic_sampling_draws_each_class_as_often_in_every_epoch():
    found = epochs(pipeline.PythonBatches(cases(), of_case, batch_size=4, sampling="automatic"), 10)
    for one in found:  # of 9 draws, 3 of each class
        assert np.bincount(np.take(LABELS, one)).tolist() == [3, 3, 3]
    assert len(set(map(tuple, found))) == 10


def test_a_seeded_loader_draws_anew_in_each_epoch_and_the_same_again():
    def images(seed: int, batch_size: int) -> list[list[int]]:
        options = {"seeded": True, "seed": seed}
        return epochs(pipeline.PythonBatches(range(5), drawn, batch_size=batch_size, **options), 3)

    first = images(1, 2)
    assert images(1, 5) == first
    assert len(set(itertools.chain(*first, *images(2, 2)))) == 30


class Recorder(keras.Model):
    """A model that notes what it is given."""

    def __init__(self):
        super().__init__()
        self.layer, self.given = keras.layers.Dense(1), []

    def call(self, x):
        return self.layer(x[:, 0, 0])

    def train_step(self, data):
        self.given.append(data[0][:, 0, 0, 0].numpy().tolist())
        return super().train_step(data)


@pytest.mark.parametrize(
    "workers", [{}, {"workers": 2}, {"workers": 2, "use_multiprocessing": True}], ids=str
)
def test_fit_sees_the_same_batches_whatever_the_workers(workers):
    model = Recorder()
    model.compile(loss="mse", run_eagerly=True)
    batches = pipeline.PythonBatches(
        range(11), drawn, batch_size=3, target="label", seeded=True, max_queue_size=2, **workers
    )
    model.fit(batches, epochs=2, shuffle=False, verbose=0)
    # Keras looks at a batch before the first epoch, which is one for the order.
    by_hand = pipeline.PythonBatches(range(11), drawn, batch_size=3, seeded=True)
    expected = []
    for _ in range(3):
        expected += [batch["image"][:, 0, 0, 0].tolist() for batch in by_hand]
        by_hand.on_epoch_end()
    assert model.given == expected[4:]


def test_keras_gets_image_target_and_weight_of_which_a_mask_has_one_for_all_its_pixels():
    def masked(case):
        return of_case(case) | {"mask": np.ones((2, 3), np.uint8)}

    options = {"batch_size": 9, "shuffle": False, "weight": True}
    given = cases(weights=[0.5] * 8 + [None])
    image, label, weight = pipeline.PythonBatches(given, of_case, target="label", **options)[0]
    assert (image.dtype, label.dtype, weight.shape) == (np.float32, np.int32, (9,))
    assert label.tolist() == list(LABELS) and weight.tolist() == [0.5] * 8 + [1.0]
    _, mask, weight = pipeline.PythonBatches(given, masked, target="mask", **options)[0]
    assert (mask.shape, weight.shape) == ((9, 2, 3, 1), (9, 1, 1))


def broken(item: int) -> dict:
    if item == 7:
        raise OSError("the disk is gone")
    return number(item)


def growing(item: int) -> dict:
    return {"image": np.zeros((2 + item, 2, 1))}


@pytest.mark.parametrize(
    ("items", "load", "options", "code", "words"),
    [
        ([], number, {}, "EMPTY_LIST", ""),
        (cases([0, None, 1]), of_case, {"target": "label"}, "UNKNOWN_LABEL", "1"),
        (cases(), of_case, {"sampling": "element"}, "BAD_WEIGHT", ""),
        (cases([0, 0], [0.0, 0.0]), of_case, {"sampling": "element"}, "BAD_WEIGHT", ""),
        (range(9), number, {"sampling": "automatic"}, "UNKNOWN_LABEL", ""),
        (range(9), broken, {}, "LOADING_FAILED", "items[7]: the loader raised OSError: the disk"),
        (range(3), growing, {}, "SHAPE_MISMATCH", "items[1]: an image of shape (3, 2, 1)"),
        (cases(), of_case, {"target": "mask"}, "NO_PAIR", "`mask`"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_with_the_items_number(items, load, options, code, words):
    with pytest.raises(CourseDataError) as caught:
        list(pipeline.PythonBatches(items, load, batch_size=4, shuffle=False, **options))
    assert caught.value.code == code and words in caught.value.message


def test_training_stops_at_a_loader_that_fails_and_says_so():
    model = Recorder()
    model.compile(loss="mse", run_eagerly=True)
    batches = pipeline.PythonBatches(
        range(9), broken, batch_size=1, shuffle=False, target="label", workers=2
    )
    with pytest.raises(Exception, match=r"LOADING_FAILED\] items\[7\]"):  # TensorFlow's class
        model.fit(batches, shuffle=False, verbose=0)
