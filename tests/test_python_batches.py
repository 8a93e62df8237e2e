"""Batches that Python loads: each item once an epoch, in an order that the seed fixes."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from helpers import pipeline
from helpers.cases import Case
from helpers.errors import CourseDataError

pytest.importorskip("keras")

some = settings(max_examples=60, deadline=None, derandomize=True)
LABELS = (0, 0, 0, 0, 0, 0, 1, 1, 2)


def number(item: int) -> dict:
    """A picture that shows its number."""
    return {"image": np.full((2, 3, 1), item, np.int16), "label": item % 2}


def drawn(item: int, random: np.random.Generator) -> dict:
    return {"image": random.integers(0, 2**31, (2, 3, 1)), "label": item % 2}


def cases(labels=LABELS, weights=None) -> list[Case]:
    weights = [None] * len(labels) if weights is None else weights
    pairs = zip(labels, weights, strict=True)
    return [Case(str(n), n, label=one, weight=w) for n, (one, w) in enumerate(pairs)]


def of_case(case: Case) -> dict:
    return {"image": np.full((2, 3, 1), case.source, np.int16)}


def seen(batches) -> list[int]:
    """The numbers in one pass."""
    return [int(one.flat[0]) for batch in batches for one in batch["image"]]


def epochs(batches, count: int) -> list[list[int]]:
    found = []
    for _ in range(count):
        found.append(seen(batches))
        batches.on_epoch_end()
    return found


@some
@given(st.integers(1, 20), st.integers(1, 8), st.booleans(), st.integers(0, 2**31))
def test_an_epoch_has_every_item_once_whatever_the_batch_size(count, batch_size, shuffle, seed):
    options = {"shuffle": shuffle, "seed": seed}
    batches = pipeline.PythonBatches(range(count), number, batch_size=batch_size, **options)
    sizes = [len(batch["image"]) for batch in batches]
    assert len(batches) == len(sizes) == -(-count // batch_size)
    assert set(sizes[:-1]) <= {batch_size}
    found = epochs(batches, 3)
    assert all(sorted(one) == list(range(count)) for one in found)
    assert shuffle or found == [list(range(count))] * 3
    again = pipeline.PythonBatches(range(count), number, batch_size=1, **options)
    assert epochs(again, 3) == found


def test_each_epoch_has_an_order_of_its_own_and_so_has_each_seed():
    orders = [
        tuple(one)
        for seed in (0, 1)
        for one in epochs(pipeline.PythonBatches(range(30), number, batch_size=4, seed=seed), 4)
    ]
    assert len(set(orders)) == 8


def test_a_batch_stacks_all_fields_and_casts_the_image():
    (batch,) = pipeline.PythonBatches(cases(), of_case, batch_size=9, shuffle=False)
    assert batch["image"].dtype == np.float32
    assert batch["label"].dtype == np.int32
    assert batch["label"].tolist() == list(LABELS)
    assert batch["case"].tolist() == [f"item {n}".encode() for n in range(9)]


def test_keras_gets_image_target_and_weight():
    weights = [0.5] * 8 + [None]
    image, label, weight = pipeline.PythonBatches(
        cases(weights=weights),
        of_case,
        batch_size=9,
        shuffle=False,
        target="label",
        weight=True,
        dtype="float16",
    )[0]
    assert image.dtype == np.float16
    assert label.tolist() == list(LABELS)
    assert weight.tolist() == [0.5] * 8 + [1.0]
    with pytest.raises(CourseDataError) as caught:
        pipeline.PythonBatches(cases(), of_case, batch_size=9, target="mask")[0]
    assert caught.value.code == "NO_PAIR"


def test_automatic_sampling_draws_in_the_proportions_of_scikit_learn():
    batches = pipeline.PythonBatches(cases(), of_case, batch_size=4, sampling="automatic")
    found = epochs(batches, 40)
    for one in found:  # of 9 draws, 3 of each class, in every epoch
        assert np.bincount(np.take(LABELS, one)).tolist() == [3, 3, 3]
    expected = compute_sample_weight("balanced", LABELS) * 40
    counts = np.bincount(list(itertools.chain(*found)), minlength=9)
    assert np.abs(counts - expected).max() < 4 * np.sqrt(expected.max())
    assert counts[8] == 120
    assert len(set(map(tuple, found))) == 40


def test_element_sampling_and_probabilities_follow_the_weights():
    weights = [0.0, 3.0, 3.0, 3.0]
    for how, given_weights in (("element", weights), (weights, None)):
        batches = pipeline.PythonBatches(
            cases([0] * 4, given_weights), of_case, batch_size=4, sampling=how
        )
        found = epochs(batches, 30)
        for one in found:  # of 4 draws, 4/3 of each item that has a weight
            assert set(collections.Counter(one)) == {1, 2, 3}
        counts = np.bincount(list(itertools.chain(*found)), minlength=4)
        assert np.abs(counts[1:] - 40).max() < 4 * np.sqrt(30 * 2 / 9)
        again = pipeline.PythonBatches(
            cases([0] * 4, given_weights), of_case, batch_size=2, sampling=how
        )
        assert epochs(again, 30) == found


def test_a_seeded_loader_draws_anew_in_each_epoch_and_the_same_again():
    def images(seed: int, batch_size: int) -> list[list[int]]:
        batches = pipeline.PythonBatches(
            range(5), drawn, batch_size=batch_size, seeded=True, seed=seed
        )
        return epochs(batches, 3)

    first = images(1, 2)
    assert images(1, 5) == first
    assert len(set(itertools.chain(*first, *images(2, 2)))) == 30


class Recorder:
    """A model that notes what it is given."""

    def __new__(cls):
        import keras

        class Model(keras.Model):
            def __init__(self):
                super().__init__()
                self.layer, self.given = keras.layers.Dense(1), []

            def call(self, x):
                return self.layer(x[:, 0, 0])

            def train_step(self, data):
                self.given.append(data[0][:, 0, 0, 0].numpy().tolist())
                return super().train_step(data)

        model = Model()
        model.compile(loss="mse", run_eagerly=True)
        return model


@pytest.mark.parametrize(
    "workers", [{}, {"workers": 2}, {"workers": 2, "use_multiprocessing": True}], ids=str
)
def test_fit_sees_the_same_batches_whatever_the_workers(workers):
    model = Recorder()
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


def broken(item: int) -> dict:
    if item == 7:
        raise OSError("the disk is gone")
    return number(item)


def test_an_error_of_a_loader_names_its_item():
    batches = pipeline.PythonBatches(range(9), broken, batch_size=4, shuffle=False)
    batches[0]
    with pytest.raises(CourseDataError, match=r"items\[7\].*OSError: the disk is gone") as caught:
        batches[1]
    assert caught.value.code == "LOADING_FAILED"


@pytest.mark.parametrize("workers", [1, 2])
def test_training_stops_at_a_loader_that_fails_and_says_so(workers):
    batches = pipeline.PythonBatches(
        range(9), broken, batch_size=1, shuffle=False, target="label", workers=workers
    )
    with pytest.raises(Exception, match=r"LOADING_FAILED\] items\[7\]"):  # TensorFlow's class
        Recorder().fit(batches, shuffle=False, verbose=0)


def test_items_of_other_shapes_are_refused_by_name():
    def growing(item: int) -> dict:
        return {"image": np.zeros((2 + item, 2, 1))}

    with pytest.raises(CourseDataError, match=r"items\[1\].*\(3, 2, 1\)") as caught:
        pipeline.PythonBatches(range(3), growing, batch_size=2, shuffle=False)[0]
    assert caught.value.code == "SHAPE_MISMATCH"


@pytest.mark.parametrize(
    ("items", "options", "code"),
    [
        ([], {}, "EMPTY_LIST"),
        (cases(), {"classes": [0, 1, 2, 3]}, "EMPTY_CLASS"),
        (cases(), {"classes": [0, 1]}, "UNKNOWN_LABEL"),
        (cases([0, None, 1]), {"target": "label"}, "UNKNOWN_LABEL"),
        (cases(), {"sampling": "element"}, "BAD_WEIGHT"),
        (cases([0, 0], [0.0, 0.0]), {"sampling": "element"}, "BAD_WEIGHT"),
        (cases([0, 0], [1.0, -1.0]), {"sampling": "element"}, "BAD_WEIGHT"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_batch(items, options, code):
    with pytest.raises(CourseDataError) as caught:
        pipeline.PythonBatches(items, of_case, batch_size=2, **options)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"target": "image"},
        {"weight": True},
        {"sampling": "often"},
        {"load": None},
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ValueError) as caught:
        pipeline.PythonBatches(cases(), **({"load": of_case, "batch_size": 2} | wrong))
    assert not isinstance(caught.value, CourseDataError)


def test_there_is_no_batch_behind_the_last():
    batches = pipeline.PythonBatches(range(3), number, batch_size=2)
    with pytest.raises(IndexError):
        batches[2]


def test_classes_need_labels_that_are_known_beforehand():
    with pytest.raises(ValueError, match="classes need labels"):
        pipeline.PythonBatches(
            list(range(4)),
            lambda item: {"image": np.zeros((2, 2, 1)), "label": item % 2},
            batch_size=2,
            target="label",
            classes=[0, 1],
        )
