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


def number(item: int) -> dict:
    """A picture that shows its number."""
    return {"image": np.full((2, 3, 1), item, np.int16), "label": item % 2}


def drawn(item: int, random: np.random.Generator) -> dict:
    return {"image": random.integers(0, 2**31, (2, 3, 1)), "label": item % 2}


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
        image, label = data
        self.given.append((image[:, 0, 0, 0].numpy().tolist(), label.numpy().tolist()))
        return super().train_step(data)


@pytest.mark.parametrize(
    "workers", [{}, {"workers": 2}, {"workers": 2, "use_multiprocessing": True}], ids=str
)
def test_fit_sees_the_same_batches_whatever_the_workers(workers):
    model = Recorder()
    model.compile(loss="mse", run_eagerly=True)
    options = {"batch_size": 3, "seeded": True}
    batches = pipeline.PythonBatches(
        range(11), drawn, target="label", max_queue_size=2, **options, **workers
    )
    assert [one.dtype for one in batches[0]] == [np.float32, np.int32]
    model.fit(batches, epochs=2, shuffle=False, verbose=0)
    # Keras looks at a batch before the first epoch, which is one for the order.
    by_hand, expected = pipeline.PythonBatches(range(11), drawn, **options), []
    for _ in range(3):
        expected += [(b["image"][:, 0, 0, 0].tolist(), b["label"].tolist()) for b in by_hand]
        by_hand.on_epoch_end()
    assert model.given == expected[4:]


def of_case(case: Case) -> dict:
    return {"image": np.zeros((2, 3, 1), np.int16)}


def broken(item: int) -> dict:
    return number(item) if item != 7 else {}[item]


WRONG = {
    "EMPTY_LIST": ([], number, {}, ""),
    "UNKNOWN_LABEL": ([Case("a", 0, label=0), Case("b", 1)], of_case, {"target": "label"}, "1"),
    "LOADING_FAILED": (range(9), broken, {}, "items[7]: the loader raised KeyError: 7"),
    "SHAPE_MISMATCH": (range(3), lambda n: {"image": np.zeros((2 + n, 2, 1))}, {}, "items[1]: an"),
    "NO_PAIR": ([Case("a", 0, label=0)], of_case, {"target": "mask"}, "`mask`"),
}


def test_what_is_wrong_is_said_with_the_items_number():
    found = {}
    for items, load, options, words in WRONG.values():
        with pytest.raises(CourseDataError) as caught:
            list(pipeline.PythonBatches(items, load, batch_size=4, shuffle=False, **options))
        found[caught.value.code] = words in caught.value.message
    assert found == dict.fromkeys(WRONG, True)


def test_training_stops_at_a_loader_that_fails_and_says_so():
    model = Recorder()
    model.compile(loss="mse", run_eagerly=True)
    batches = pipeline.PythonBatches(
        range(9), broken, batch_size=1, shuffle=False, target="label", workers=2
    )
    with pytest.raises(Exception, match=r"LOADING_FAILED\] items\[7\]"):  # TensorFlow's class
        model.fit(batches, shuffle=False, verbose=0)
