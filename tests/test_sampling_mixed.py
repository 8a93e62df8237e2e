"""Several datasets as one: shares that hold in every epoch, and no source that runs dry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers import sampling
from helpers.errors import CourseDataError

SURE = 1e-4  # a right stream is called wrong once in ten thousand fixed seeds
graphs = settings(max_examples=12, deadline=None, derandomize=True)


def sources(tf, *lengths: int, shuffle: bool = False) -> list:
    """A dataset for each length, of pairs: which source, which element of it."""

    def source(place: int, length: int):
        numbers = tf.data.Dataset.range(length)
        numbers = numbers.shuffle(length, seed=place) if shuffle else numbers
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(np.int64(place)).repeat(), numbers)

    return [source(place, length) for place, length in enumerate(lengths)]


def drawn(dataset, count: int | None = None) -> np.ndarray:
    """`[elements, 2]`."""
    dataset = dataset if count is None else dataset.take(count)
    return np.array(list(dataset.as_numpy_iterator()))


def test_sampling_from_datasets_as_it_is_gives_back_the_imbalance(tf):
    """What the course warns of, seen: equal parts of 95 and 5 are 5 %, or nearly nothing."""
    plain = tf.data.Dataset.sample_from_datasets(sources(tf, 95, 5), [0.5, 0.5], seed=1)
    found = drawn(plain)[:, 0]
    assert len(found) == 100 and found.sum() == 5
    stops = tf.data.Dataset.sample_from_datasets(
        sources(tf, 95, 5), [0.5, 0.5], seed=1, stop_on_empty_dataset=True
    )
    assert len(drawn(stops)) < 40

    safe = drawn(sampling.mixed(sources(tf, 95, 5), [0.5, 0.5], seed=1, epochs=3))
    assert (safe[:, 0].reshape(3, 100).sum(axis=1) == 50).all()


@graphs
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=4),
    st.integers(1, 30),
)
def test_every_epoch_has_its_size_and_every_source_its_share(tf, made, size):
    lengths, weights = zip(*made, strict=True)
    weights = (*weights[:-1], weights[-1] or 1)
    dataset = sampling.mixed(sources(tf, *lengths), weights, seed=3, size=size, epochs=6)
    assert len(dataset) == 6 * size
    found = drawn(dataset).reshape(6, size, 2)
    due = size * np.array(weights) / sum(weights)
    for epoch in found:
        counts = np.bincount(epoch[:, 0], minlength=len(lengths))
        assert (counts >= np.floor(due + 1e-9)).all() and (counts <= np.ceil(due - 1e-9)).all()
    for place, length in enumerate(lengths):  # and none of its elements comes before its turn
        taken = found.reshape(-1, 2)[found.reshape(-1, 2)[:, 0] == place, 1]
        np.testing.assert_array_equal(taken, np.arange(len(taken)) % length)


def test_no_epoch_starves_a_source(tf):
    found = drawn(sampling.mixed(sources(tf, 50, 3), [0.96, 0.04], seed=0, size=50, epochs=40))
    rare = (found[:, 0] == 1).reshape(40, 50).sum(axis=1)
    assert (rare == 2).all()


def test_shares_that_are_no_whole_numbers_are_right_on_average(tf):
    many = 2000
    dataset = sampling.mixed(sources(tf, 1, 1, 1), [1, 2, 4], seed=5, size=3, epochs=many)
    per_epoch = drawn(dataset)[:, 0].reshape(many, 3)
    for place, due in enumerate(3 * np.array([1, 2, 4]) / 7):
        counts = (per_epoch == place).sum(axis=1)
        more = int((counts > np.floor(due)).sum())
        assert stats.binomtest(more, many, due - np.floor(due)).pvalue > SURE
    # Each place of an epoch is as likely to hold the first source as any other.
    firsts = (per_epoch == 0).sum(axis=0)
    assert stats.chisquare(firsts).pvalue > SURE


def test_a_source_that_shuffles_has_a_new_order_in_each_pass(tf):
    mixed = sampling.mixed(sources(tf, 20, 5, shuffle=True), [1, 1], seed=0, size=10, epochs=40)
    found = drawn(mixed)
    passes = found[found[:, 0] == 1, 1].reshape(-1, 5)
    assert (np.sort(passes, axis=1) == np.arange(5)).all()
    assert len({tuple(one) for one in passes}) > 10


def test_the_same_seed_gives_the_same_stream_whatever_the_parallelism(tf):
    streams = []
    for threads, autotune in ((1, False), (5, True)):
        dataset = sampling.mixed(sources(tf, 30, 4, 9, shuffle=True), [1, 2, 3], seed=3)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.deterministic = not autotune
        options.autotune.enabled = autotune
        streams.append(drawn(dataset.with_options(options), 120))
    np.testing.assert_array_equal(*streams)
    other = drawn(sampling.mixed(sources(tf, 30, 4, 9, shuffle=True), [1, 2, 3], seed=4), 120)
    assert (other[:, 0] != streams[0][:, 0]).any()


def test_its_draws_are_not_those_of_indices_with_the_same_seed(tf):
    """Otherwise a source that draws by its own would go in step with the mixture."""
    found = drawn(sampling.mixed(sources(tf, 1, 1), [1, 1], seed=0, size=64), 64)[:, 0]
    order = sampling.indices(np.array([0.5, 0.5]), seed=0, size=64).take(64)
    assert (found != list(order.as_numpy_iterator())).any()


def test_an_end_that_comes_again_begins_the_sources_again(tf):
    """Why the stream for `fit` has no end: the tail of a source would never be seen."""
    ended = sampling.mixed(sources(tf, 95, 5), [1, 1], seed=0, epochs=1)
    seen = {tuple(one) for _ in range(4) for one in drawn(ended)}
    assert len(seen) == 50 + 5
    endless = sampling.mixed(sources(tf, 95, 5), [1, 1], seed=0)
    assert len({tuple(one) for one in drawn(endless, 200)}) == 95 + 5


def test_the_stream_says_how_long_it_is_and_what_it_holds(tf):
    given = sources(tf, 3, 2)
    assert len(sampling.mixed(given, [1, 1], seed=0, epochs=4)) == 20
    endless = sampling.mixed(given, [1, 1], seed=0, size=7)
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    assert endless.element_spec == given[0].element_spec


def test_sources_of_unknown_or_no_length_need_the_size_of_an_epoch(tf):
    few = tf.data.Dataset.range(6).filter(lambda number: number % 2 == 0)
    for unsure in (few, tf.data.Dataset.range(3).repeat()):
        given = [tf.data.Dataset.range(10, 20), unsure]
        with pytest.raises(ValueError, match="source 1, counted from 0, does not say"):
            sampling.mixed(given, [1, 1], seed=0)
        found = drawn(sampling.mixed(given, [1, 1], seed=0, size=8, epochs=5)).reshape(5, 8)
        assert ((found < 10).sum(axis=1) == 4).all()


def test_an_empty_source_is_refused_by_position(tf):
    with pytest.raises(CourseDataError, match="source 1 of 2, counted from 0") as refused:
        sampling.mixed(sources(tf, 3, 0), [1, 1], seed=0)
    assert refused.value.code == "EMPTY_CLASS"
    nothing = tf.data.Dataset.range(5).filter(lambda number: number > 9)
    dataset = sampling.mixed([tf.data.Dataset.range(5), nothing], [1, 1], seed=0, size=4)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"EMPTY_CLASS: source\] \[1\]"):
        drawn(dataset, 4)
    with pytest.raises(CourseDataError) as refused:
        sampling.mixed([], [], seed=0)
    assert refused.value.code == "EMPTY_LIST"


def test_a_source_that_can_be_read_only_once_does_not_end_the_stream_in_silence(tf):
    left = iter(range(3))
    spec = tf.TensorSpec([], tf.int64)
    once = tf.data.Dataset.from_generator(lambda: left, output_signature=spec)
    dataset = sampling.mixed([tf.data.Dataset.range(5), once], [1, 1], seed=0, size=20)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"EMPTY_CLASS.*read again"):
        drawn(dataset, 20)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tf, x: {"image": x["image"]}, "only one has 'label'"),
        (lambda tf, x: x | {"more": {"a": 0}}, "only one has 'more'"),
        (lambda tf, x: x | {"label": tf.cast(x["label"], tf.int64)}, r"'label' TensorSpec.*int64"),
        (lambda tf, x: x | {"image": x["image"][:1]}, r"'image' TensorSpec\(shape=\(2.*\(1,"),
        (lambda tf, x: (x["image"], x["label"]), "against"),
    ],
)
def test_sources_of_different_elements_are_told_what_differs(tf, change, message):
    fields = {"image": np.zeros((4, 2), np.float32), "label": np.zeros(4, np.int32)}
    one = tf.data.Dataset.from_tensor_slices(fields)
    with pytest.raises(ValueError, match=f"sources 0 and 1 have different .*{message}"):
        sampling.mixed([one, one.map(lambda x: change(tf, x))], [1, 1], seed=0)


def test_pairs_of_different_elements_are_told_which_part_differs(tf):
    one = tf.data.Dataset.from_tensors((0, 1.0))
    other = tf.data.Dataset.from_tensors((0, 1))
    with pytest.raises(ValueError, match=r"\[1\] TensorSpec"):
        sampling.mixed([one, other], [1, 1], seed=0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"weights": [1.0]}, "1 weights for 2 sources"),
        ({"weights": [1.0, -1.0]}, "BAD_WEIGHT"),
        ({"weights": [0, 0]}, "BAD_WEIGHT"),
        ({"size": 0}, "1 draw or more"),
        ({"epochs": 0}, "1 epoch or more"),
        ({"seed": -1}, "a seed is a whole number"),
    ],
)
def test_arguments_out_of_range_are_refused(tf, changes, message):
    arguments = {"weights": [1, 1], "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        sampling.mixed(sources(tf, 2, 2), **arguments)


def test_no_python_runs_with_the_stream(tf):
    given = [tf.data.Dataset.range(5), tf.data.Dataset.range(5).filter(lambda number: number > 2)]
    dataset = sampling.mixed(given, [1, 1], seed=0, size=4)
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    inside = [node.op for function in graph.library.function for node in function.node_def]
    names = {*inside, *(node.op for node in graph.node)}
    assert "DirectedInterleaveDataset" in names
    assert not any("Py" in name for name in names)
