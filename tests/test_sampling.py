"""Indices drawn so that classes are balanced: in each epoch, and exactly so over many."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.utils.class_weight import compute_sample_weight

from helpers import sampling
from helpers.errors import CourseDataError
from helpers.sampling import orders

SURE = 1e-4  # a right stream is called wrong once in ten thousand fixed seeds
some = settings(max_examples=60, deadline=None, derandomize=True)
graphs = settings(max_examples=15, deadline=None, derandomize=True)


def epochs(probabilities, count: int, **options) -> np.ndarray:
    """`count` epochs of draws, a row each."""
    options = {"seed": 1, **options}
    dataset = sampling.indices(probabilities, epochs=count, **options)
    drawn = np.array(list(dataset.as_numpy_iterator()))
    return drawn.reshape(count, -1)


def times(drawn: np.ndarray, count: int) -> np.ndarray:
    """How often each case comes in each epoch: `[epochs, cases]`."""
    return np.stack([np.bincount(row, minlength=count) for row in drawn])


def code_of(call, *arguments, **options) -> str:
    with pytest.raises(CourseDataError) as refused:
        call(*arguments, **options)
    return refused.value.code


# Probabilities


@some
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_automatic_weighs_as_scikit_learn_does(labels):
    theirs = compute_sample_weight("balanced", labels)
    for same in (labels, np.array(labels), [f"class {n}" for n in labels], [(n,) for n in labels]):
        found = sampling.automatic(same)
        assert found.dtype == np.float64 and found.shape == (len(labels),)
        np.testing.assert_allclose(found, theirs / theirs.sum(), rtol=1e-12)


def test_each_class_is_as_likely_as_the_others():
    found = sampling.automatic(["normal"] * 90 + ["nodule"] * 9 + ["cyst"])
    np.testing.assert_allclose([found[:90].sum(), found[90:99].sum(), found[99]], 1 / 3)


@st.composite
def several_labels(draw):
    """A vector for each case; labels have different numbers of classes, and some are unknown."""
    largest = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    row = st.tuples(*(st.integers(-1, most) for most in largest))
    vectors = np.array(draw(st.lists(row, min_size=1, max_size=40)))
    vectors[0] = 0  # so that each label is known of one case
    vectors[(vectors < 0).all(axis=1), 0] = 0
    return vectors


@some
@given(several_labels())
@example(np.array([[0, 0], [1, 0], [2, 0], [2, 1]]))
def test_of_several_labels_each_class_gets_its_part_of_a_fair_share(vectors):
    columns = vectors.shape[1]
    found = sampling.automatic(vectors)
    assert found.sum() == pytest.approx(1) and (found > 0).all()
    alone = np.zeros(vectors.shape)
    for number, column in enumerate(vectors.T):
        there = column >= 0
        weights = compute_sample_weight("balanced", column[there])
        alone[there, number] = weights / weights.sum()
        for one in set(column[there]):
            share = 1 / (columns * len(set(column[there])))
            assert found[column == one].sum() >= share - 1e-12
    np.testing.assert_allclose(found, alone.mean(axis=1), atol=1e-12)


def test_one_label_of_a_vector_can_be_balanced_alone():
    vectors = [(0, 1), (0, 0), (1, 0), (0, 1)]
    np.testing.assert_array_equal(
        sampling.automatic(vectors, which=0), sampling.automatic([0, 0, 1, 0])
    )
    with pytest.raises(ValueError, match="which is a label from 0 to 1, not 2"):
        sampling.automatic(vectors, which=2)


def test_a_class_without_cases_is_refused_by_name():
    with pytest.raises(CourseDataError, match="no case of the classes 2, 3 among 3") as refused:
        sampling.automatic([0, 1, 1], classes=range(4))
    assert refused.value.code == "EMPTY_CLASS"
    names = {0: "air", 1: "nodule", 2: "cyst"}
    assert code_of(sampling.automatic, [0, 1, 1], names) == "EMPTY_CLASS"
    assert code_of(sampling.automatic, ["a"], classes=("a", "b")) == "EMPTY_CLASS"
    np.testing.assert_array_equal(sampling.automatic([0, 2, 1], names), np.full(3, 1 / 3))
    # A label that nobody has looked at, and one of several that lacks a class.
    assert code_of(sampling.automatic, [(0, -1), (1, -1)]) == "EMPTY_CLASS"
    assert code_of(sampling.automatic, [(0, 1), (1, 1)], classes=(0, 1)) == "EMPTY_CLASS"


@pytest.mark.parametrize(
    "labels, positions",
    [
        ([0, None, 1, None], "positions 1, 3"),
        ([0, -1, 1], "positions 1,"),
        (["a", "", "b"], "positions 1,"),
        (["a", float("nan"), None], "positions 1, 2"),
        ([(0, 1), (-1, -1), (1, -1)], "positions 1,"),
        ([-1] * 40, "positions 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 30 more"),
    ],
)
def test_cases_without_a_label_are_named_by_position(labels, positions):
    if isinstance(labels[1], float):
        labels = np.array(labels, object)
    with pytest.raises(CourseDataError, match=f"have no label: at the {positions}") as refused:
        sampling.automatic(labels)
    assert refused.value.code == "UNKNOWN_LABEL"


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(CourseDataError, match=r"1 of 3 cases are of the classes 7: at the pos.* 1"):
        sampling.automatic([0, 7, 1], classes=(0, 1))
    assert code_of(sampling.automatic, [(0, 1), (1,)]) == "UNKNOWN_LABEL"
    with pytest.raises(ValueError, match="not float64"):
        sampling.automatic([0.5, 1.0])


@some
@given(st.lists(st.sampled_from([0.0, 0.25, 1.0, 7, 1.5e308]), min_size=1, max_size=20))
def test_an_element_is_as_likely_as_its_weight_says(weights):
    if not any(weights):
        assert code_of(sampling.element, weights) == "BAD_WEIGHT"
        return
    found = sampling.element(weights)
    exact = np.array(weights, np.longdouble)
    np.testing.assert_allclose(found, (exact / exact.sum()).astype(float), rtol=1e-12)
    assert found.dtype == np.float64 and found.sum() == pytest.approx(1)


@pytest.mark.parametrize("bad", [None, -0.5, float("nan"), float("inf")])
def test_weights_that_are_no_weights_are_named_by_position(bad):
    with pytest.raises(CourseDataError, match=r"2 of 4 cases .* positions 1, 3,") as refused:
        sampling.element([1, bad, 0.5, bad])
    assert refused.value.code == "BAD_WEIGHT"


def test_an_empty_list_is_said_to_be_empty():
    assert code_of(sampling.automatic, []) == "EMPTY_LIST"
    assert code_of(sampling.element, []) == "EMPTY_LIST"
    assert code_of(sampling.indices, np.array([]), seed=0) == "EMPTY_LIST"


# Indices


@st.composite
def sets(draw):
    """Probabilities with groups, of which some are 0, and the size of an epoch."""
    count = draw(st.integers(1, 30))
    weights = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    weights[draw(st.integers(0, count - 1))] = 1
    groups = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    return np.array(weights) / sum(weights), np.array(groups), draw(st.integers(1, 70))


def assert_due(found: np.ndarray, expected: np.ndarray) -> None:
    """Each count is its expectation, rounded down or up; whole numbers to within rounding."""
    assert (found >= np.floor(expected + 1e-9)).all()
    assert (found <= np.ceil(expected - 1e-9)).all()


@graphs
@given(sets())
def test_in_each_epoch_cases_and_groups_come_as_often_as_they_should(tf, made):
    probabilities, groups, size = made
    drawn = epochs(probabilities, 8, groups=groups, size=size)
    assert drawn.shape == (8, size)
    found = times(drawn, len(probabilities))
    assert_due(found, size * probabilities)
    for one in np.unique(groups):
        assert_due(found[:, groups == one].sum(axis=1), size * probabilities[groups == one].sum())


@some
@given(sets())
def test_the_expectation_is_that_of_the_probabilities(made):
    """To the last unit, in whole numbers; and groups with whole expectations have no unit more."""
    probabilities, groups, size = made
    units, group, bits = orders._units(probabilities, groups, size)
    assert units.sum() == size * 2**bits
    assert abs(units / 2**bits - size * probabilities).max() <= size * 2.0**-45 + 1e-12
    assert not units[probabilities == 0].any()
    together = np.bincount(group, units)
    due = size * np.bincount(group, probabilities)
    whole = abs(due - np.rint(due)) < 1e-9
    np.testing.assert_array_equal(together[whole], np.rint(due[whole]) * 2**bits)


def test_over_many_epochs_the_counts_agree_with_the_probabilities(tf):
    """The remainders are drawn: each is a binomial of its own over the epochs."""
    weights = np.array([1, 2, 3, 5, 8, 13, 21, 0])
    probabilities, many = weights / weights.sum(), 3000
    found = times(epochs(probabilities, many, size=20), 8)
    due = 20 * probabilities
    for one in range(8):
        more = int((found[:, one] > np.floor(due[one])).sum())
        chance = due[one] - np.floor(due[one])
        assert stats.binomtest(more, many, chance).pvalue > SURE
    # Much closer than independent draws would come.
    assert stats.chisquare(found.sum(axis=0)[:7], many * due[:7]).pvalue > 0.5


def test_a_rare_class_is_in_each_epoch_and_its_cases_take_turns(tf):
    labels = np.array([0] * 97 + [1] * 3)
    balanced = sampling.automatic(labels)
    found = times(epochs(balanced, 50, groups=labels, size=40), 100)
    assert (found[:, 97:].sum(axis=1) == 20).all()
    assert set(found[:, 97:].ravel()) == {6, 7}
    assert found[:, :97].max() == 1
    # Not always the same cases of the common class, and none of them much more often.
    often = found[:, :97].sum(axis=0)
    assert stats.chisquare(often).pvalue > SURE


def test_equal_probabilities_give_each_case_once_in_a_new_order(tf):
    for count in (1, 3, 7, 49, 1000):
        found = epochs(np.full(count, 1 / count), 3)
        assert (np.sort(found, axis=1) == np.arange(count)).all()
    assert len({tuple(row) for row in found}) == 3


def test_every_pair_of_cases_can_meet_and_every_place_can_be_taken(tf):
    """A fixed order of the cases would never draw some of them together."""
    found = epochs(np.full(6, 1 / 6), 3000, size=2)
    pairs = [tuple(sorted(row)) for row in found.tolist()]
    counts = [pairs.count(pair) for pair in itertools.combinations(range(6), 2)]
    assert sum(counts) == 3000 and stats.chisquare(counts).pvalue > SURE
    for place in found.T:
        assert stats.chisquare(np.bincount(place, minlength=6)).pvalue > SURE


def test_an_epoch_is_shuffled_and_not_sorted_by_group(tf):
    labels = np.repeat([0, 1], 50)
    first = epochs(sampling.automatic(labels), 400, groups=labels)[:, 0] // 50
    assert stats.binomtest(int(first.sum()), 400, 0.5).pvalue > SURE
    row = epochs(sampling.automatic(labels), 1, groups=labels)[0] // 50
    changes = int((row[1:] != row[:-1]).sum())
    assert 30 < changes < 70


def test_groups_are_ids_names_or_vectors(tf):
    probabilities = sampling.element([1, 2, 3, 4])
    numbers = epochs(probabilities, 5, groups=[0, 1, 0, 2])
    for same in (["a", "b", "a", "c"], [(0, 0), (0, 1), (0, 0), (1, 0)]):
        np.testing.assert_array_equal(epochs(probabilities, 5, groups=same), numbers)
    with pytest.raises(ValueError, match="3 groups for 4 cases"):
        sampling.indices(probabilities, seed=0, groups=[1, 2, 3])


def test_the_same_seed_gives_the_same_stream_whatever_the_parallelism(tf):
    probabilities, stream = sampling.element([1, 2, 3, 4]), []
    for threads, autotune in ((1, False), (5, True)):
        dataset = sampling.indices(probabilities, seed=3)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.deterministic = not autotune
        options.autotune.enabled = autotune
        stream.append(list(dataset.with_options(options).take(50).as_numpy_iterator()))
    assert stream[0] == stream[1]
    other = list(sampling.indices(probabilities, seed=4).take(50).as_numpy_iterator())
    assert other != stream[0]


def test_iterating_again_goes_on_with_new_numbers(tf):
    dataset = sampling.indices(np.full(20, 0.05), seed=3, epochs=1)
    first, second = (list(dataset.as_numpy_iterator()) for _ in range(2))
    assert first != second and sorted(first) == sorted(second) == list(range(20))


def test_the_stream_says_how_long_it_is(tf):
    probabilities = np.full(4, 0.25)
    endless = sampling.indices(probabilities, seed=0, size=3)
    assert endless.element_spec == tf.TensorSpec([], tf.int64)
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    assert len(sampling.indices(probabilities, seed=0, size=3, epochs=5)) == 15


def test_no_python_runs_with_the_stream(tf):
    """Such a dataset can be sent to another process, as a graph."""
    dataset = sampling.indices(np.full(4, 0.25), seed=0)
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    inside = [node.op for function in graph.library.function for node in function.node_def]
    names = {*inside, *(node.op for node in graph.node)}
    assert any("SearchSorted" in name or "UpperBound" in name for name in names)
    assert not any("Py" in name for name in names)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"probabilities": [0.5, 0.6]}, r"sum to 1\.1, expected 1; sampling\.element"),
        ({"probabilities": [1.5, -0.5]}, "numbers from 0"),
        ({"probabilities": [0.5, float("nan")]}, "numbers from 0"),
        ({"probabilities": [[0.5, 0.5]]}, "a vector"),
        ({"size": 0}, "1 draw or more, not 0"),
        ({"epochs": 0}, "1 epoch or more"),
        ({"seed": -1}, "a seed is a whole number"),
    ],
)
def test_arguments_out_of_range_are_refused(tf, changes, message):
    arguments = {"probabilities": [0.5, 0.5], "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        sampling.indices(arguments.pop("probabilities"), **arguments)


def test_probabilities_need_no_tensorflow():
    code = (
        "import sys; from helpers import sampling; sampling.automatic([0, 1]); "
        "sampling.element([1]); sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@some
@given(sets())
def test_without_a_graph_the_law_is_the_same(made):
    probabilities, groups, size = made
    drawn = np.stack(
        [
            sampling.epoch(
                probabilities, random=np.random.default_rng(seed), groups=groups, size=size
            )
            for seed in range(8)
        ]
    )
    found = times(drawn, len(probabilities))
    assert_due(found, size * probabilities)
    for one in np.unique(groups):
        assert_due(found[:, groups == one].sum(axis=1), size * probabilities[groups == one].sum())


def test_epochs_without_a_graph_come_in_another_order_each():
    random = np.random.default_rng(1)
    drawn = [sampling.epoch(np.full(50, 0.02), random=random) for _ in range(20)]
    assert all(sorted(one) == list(range(50)) for one in drawn)
    firsts = {int(one[0]) for one in drawn}
    assert len(firsts) > 10


def test_an_epoch_without_a_graph_is_shuffled_and_not_sorted_by_group():
    groups = np.repeat([0, 1], 50)
    drawn = sampling.epoch(np.full(100, 0.01), random=np.random.default_rng(0), groups=groups)
    assert sorted(drawn.tolist()) == list(range(100))
    assert np.count_nonzero(np.diff(groups[drawn])) > 25


@pytest.mark.parametrize("unknown", ["-1", "", None, b"-1", b""])
def test_a_name_of_minus_one_is_a_label_that_is_not_known(unknown):
    with pytest.raises(CourseDataError, match="1 of 3 cases have no label: at the positions 2,"):
        sampling.automatic(["cat", "dog", unknown])
