"""A seed for each element: the same stream however it is run, another one in the next epoch."""

import numpy as np
import pytest
from scipy import stats

from helpers import draws, quiet

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

COUNT = 2000
SURE = 1e-4  # a right stream is called wrong once in ten thousand fixed seeds


def seeds(element, seed):
    return seed


def uniform(element, seed):
    return tf.random.stateless_uniform([2], seed, alg="philox")


def stream(function=seeds, *, count=COUNT, seed=1, name="stage", **options) -> np.ndarray:
    """One pass over a dataset that is made anew."""
    numbers = tf.data.Dataset.range(count)
    dataset = draws.map_with_seeds(numbers, function, seed=seed, name=name, **options)
    return np.stack(list(dataset.as_numpy_iterator()))


def test_each_element_gets_an_integer_pair_of_its_own():
    found = stream()
    assert found.shape == (COUNT, 2) and found.dtype == np.int64
    assert len(np.unique(found[:, 0])) == COUNT


def test_the_stream_does_not_depend_on_how_many_threads_work_on_it():
    def slow_at_first(element, seed):
        # The first elements take longest, so that threads would overtake one another.
        steps = tf.where(element < 8, 4000, 1)
        total = tf.while_loop(lambda i, t: i < steps, lambda i, t: (i + 1, t), (0, 0.0))[1]
        return tf.random.stateless_uniform([2], seed, alg="philox") + total

    alone = stream(slow_at_first, count=64, num_parallel_calls=1)
    np.testing.assert_array_equal(stream(slow_at_first, count=64, num_parallel_calls=8), alone)
    np.testing.assert_array_equal(stream(slow_at_first, count=64), alone)


def test_a_dataset_made_anew_repeats_its_stream_and_another_seed_does_not():
    np.testing.assert_array_equal(stream(seed=5), stream(seed=5))
    assert not np.isin(stream(seed=5)[:, 0], stream(seed=6)[:, 0]).any()


@pytest.mark.parametrize("seed", [0, 2**31 - 2])
def test_the_least_and_the_largest_seed_are_streams_of_their_own(seed):
    first, second = stream(seed=seed, count=8), stream(seed=seed, count=8)
    np.testing.assert_array_equal(first, second)
    assert not np.isin(first[:, 0], stream(count=8)[:, 0]).any()


@pytest.mark.parametrize("seed", [-1, 2**31 - 1])
def test_a_seed_that_would_be_taken_for_another_is_refused(seed):
    with pytest.raises(ValueError, match="from 0 to 2147483646"):
        stream(seed=seed)


def test_the_next_epoch_draws_anew_by_repeat_and_by_iterating_again():
    def made():
        numbers = tf.data.Dataset.range(10)
        return draws.map_with_seeds(numbers, seeds, seed=3, name="stage")

    dataset = made()
    first, second = (np.stack(list(dataset.as_numpy_iterator())) for _ in range(2))
    assert not np.isin(second[:, 0], first[:, 0]).any()

    numbers = tf.data.Dataset.range(10).repeat(2)
    whole = draws.map_with_seeds(numbers, seeds, seed=3, name="stage")
    both = np.stack(list(whole.as_numpy_iterator()))
    assert len(np.unique(both[:, 0])) == 20

    after = np.stack(list(made().repeat(2).as_numpy_iterator()))
    assert len(np.unique(after[:, 0])) == 20


def test_epochs_of_a_dataset_made_anew_are_the_same_ones_in_the_same_order():
    def epochs():
        numbers = tf.data.Dataset.range(6)
        dataset = draws.map_with_seeds(numbers, uniform, seed=3, name="stage")
        return [np.stack(list(dataset.as_numpy_iterator())) for _ in range(3)]

    np.testing.assert_array_equal(epochs(), epochs())


def test_stages_of_one_seed_but_other_names_draw_independently():
    crop, augment = (stream(uniform, name=name) for name in ("crop", "augment"))
    assert not (crop == augment).any()
    assert stats.pearsonr(crop[:, 0], augment[:, 0]).pvalue > SURE


def test_numbers_made_from_the_seeds_are_uniform_and_neighbours_independent():
    drawn = stream(uniform)
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > SURE
    assert stats.pearsonr(drawn[:-1, 0], drawn[1:, 0]).pvalue > SURE
    # Pairs of neighbours fill the square evenly.
    table = np.histogram2d(drawn[:-1, 0], drawn[1:, 0], bins=5, range=[[0, 1]] * 2)[0]
    assert stats.chisquare(table.ravel()).pvalue > SURE


def test_length_order_and_structure_of_elements_stay():
    pairs = tf.data.Dataset.zip(tf.data.Dataset.range(5), tf.data.Dataset.range(5, 10))

    def both(element, seed):
        assert isinstance(element, tuple)
        first, second = element
        return {"first": first, "second": second}

    dataset = draws.map_with_seeds(pairs, both, seed=1, name="stage")
    assert dataset.cardinality() == 5
    found = [(one["first"], one["second"]) for one in dataset.as_numpy_iterator()]
    assert found == [(i, i + 5) for i in range(5)]


def test_without_a_seed_there_is_no_stage():
    with pytest.raises(TypeError, match="seed"):
        draws.map_with_seeds(tf.data.Dataset.range(1), seeds, name="stage")


def test_a_named_map_keeps_order_and_carries_its_name():
    named = draws.map_named(tf.data.Dataset.range(50), lambda x: x * x, name="some.stage")
    assert list(named.as_numpy_iterator()) == [i * i for i in range(50)]
    assert named.options().deterministic in (None, True)
    assert named._name == "some_stage"


def test_a_watcher_gets_each_stage_that_is_applied_in_its_block_and_no_other():
    numbers, seen = tf.data.Dataset.range(3), []

    def wrap(name, function):
        seen.append(name)
        return lambda *given: function(*given) + 100

    def stages():
        plain = draws.map_named(numbers, lambda x: x, name="plain")
        return draws.map_with_seeds(plain, lambda x, seed: x, seed=1, name="drawn")

    with draws.watched(wrap):
        watched = stages()
    assert seen == ["plain", "drawn"]
    assert list(watched.as_numpy_iterator()) == [200, 201, 202]
    assert list(stages().as_numpy_iterator()) == [0, 1, 2]
    assert seen == ["plain", "drawn"]


def test_a_block_that_fails_stops_watching():
    with pytest.raises(KeyError), draws.watched(lambda name, function: 1 / 0):
        raise KeyError
    named = draws.map_named(tf.data.Dataset.range(2), lambda x: x, name="stage")
    assert list(named.as_numpy_iterator()) == [0, 1]
