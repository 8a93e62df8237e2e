"""Classes are balanced by drawing, in each epoch and exactly so over many, or by weights."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from helpers import sampling

SURE = 1e-4  # a right stream is called wrong once in ten thousand fixed seeds
some = settings(max_examples=25, deadline=None, derandomize=True)
RANGE = tf.data.Dataset.range


def drawn(dataset, count: int = -1) -> np.ndarray:
    return np.array(list(dataset.take(count).as_numpy_iterator()))


def assert_due(found: np.ndarray, expected: np.ndarray) -> None:
    """Each count is its expectation, rounded down or up; whole numbers to within rounding."""
    assert (found >= np.floor(expected + 1e-9)).all()
    assert (found <= np.ceil(expected - 1e-9)).all()


@some
@given(st.lists(st.tuples(*[st.integers(-1, n) for n in (1, 5, 0)]), max_size=60))
@example([(0, 0, 0)] * 90 + [(1, 1, -1)] * 9)
def test_each_label_is_balanced_as_scikit_learn_does_and_several_share_the_draws(rows):
    rows = np.array([(1, 0, 0), *(row for row in rows if max(row) >= 0)])
    alone = np.zeros(rows.shape)
    for column, share in zip(rows.T, alone.T, strict=True):
        weights = compute_sample_weight("balanced", column[column >= 0])
        share[column >= 0] = weights / weights.sum()
        for one in (column[column >= 0], column[column >= 0].tolist()):
            np.testing.assert_allclose(sampling.automatic(one), share[column >= 0], rtol=1e-12)
    np.testing.assert_allclose(sampling.automatic(rows), alone.mean(axis=1), atol=1e-12)


@some
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=30), st.integers(1, 70))
def test_in_each_epoch_cases_and_groups_come_as_often_as_they_should(made, size):
    weights, groups = np.array([*made, (1, 0)]).T
    expected, groups = size * weights / weights.sum(), np.unique(groups, return_inverse=True)[1]
    for seed in range(8):
        found = sampling.systematic(expected, groups, size=size, seed=[seed, 0]).numpy()
        assert found.shape == (size,) and found.dtype == np.int64
        found = np.bincount(found, minlength=len(weights))
        assert_due(found, expected)
        assert_due(np.bincount(groups, found), np.bincount(groups, expected))


def test_whole_expectations_come_exactly_also_of_many_cases():
    groups, many = np.int64(np.arange(100_001) % 7 == 0), 100_001
    found = sampling.systematic(np.ones(many), groups, size=many, seed=[1, 2])
    assert sorted(found.numpy()) == list(range(many))
    found = sampling.systematic(
        50_000 * sampling.automatic(groups), groups, size=50_000, seed=[1, 2]
    )
    assert groups[found].sum() == 25_000


def test_over_many_epochs_the_counts_agree_with_the_weights():
    """The remainders are drawn: each is a binomial of its own over the epochs."""
    weights, many = np.array([1, 2, 3, 5, 8, 13, 21, 0]), 3000
    epochs = drawn(sampling.indices(weights, seed=1, size=20, epochs=many).batch(20))
    found = np.stack([np.bincount(row, minlength=8) for row in epochs])
    due = 20 * weights / weights.sum()
    more = (found > np.floor(due)).sum(axis=0)
    wrong = [n for n in range(8) if stats.binomtest(more[n], many, due[n] % 1).pvalue < SURE]
    assert wrong == []


@pytest.mark.parametrize("groups", [None, range(6)], ids=["cases", "groups"])
def test_every_pair_can_meet_and_every_place_of_an_epoch_can_be_taken(groups):
    """A fixed order of the cases, or of the groups, would never draw some of them together."""
    found = drawn(sampling.indices([1] * 6, seed=1, size=2, epochs=3000, groups=groups).batch(2))
    pairs = [tuple(sorted(row)) for row in found.tolist()]
    counts = [pairs.count(pair) for pair in itertools.combinations(range(6), 2)]
    assert sum(counts) == 3000 and stats.chisquare(counts).pvalue > SURE
    for place in found.T:
        assert stats.chisquare(np.bincount(place, minlength=6)).pvalue > SURE


def test_an_epoch_is_shuffled_not_sorted_by_group_and_anew_each_time():
    order = sampling.indices([1] * 100, seed=1, groups=np.repeat([0, 1], 50), epochs=1)
    first, again = drawn(order), drawn(order)
    assert 30 < (np.diff(first // 50) != 0).sum() < 70
    assert (first != again).any() and sorted(first) == sorted(again) == list(range(100))


@pytest.mark.parametrize("groups", ["abab", [(0, 0), (0, 1)] * 2, np.array([3, 5, 3, 5])], ids=str)
def test_groups_are_ids_names_or_vectors_and_hold_together(groups):
    order = sampling.indices([1] * 4, seed=1, size=2, epochs=40, groups=groups)
    assert (drawn(order.batch(2)).sum(axis=1) % 2 == 1).all()


def sources(*lengths: int) -> list:
    """A dataset for each length, of pairs: which source, which element of it."""
    return [tf.data.Dataset.zip(RANGE(k, k + 1).repeat(), RANGE(n)) for k, n in enumerate(lengths)]


@pytest.mark.parametrize(
    "stream",
    [
        lambda **how: sampling.indices([1, 2, 3, 4], size=15, **how),
        lambda **how: sampling.mixed(sources(9, 2, 4), [1, 2, 3], **how),
    ],
    ids=["indices", "mixed"],
)
def test_a_stream_depends_on_its_seed_alone_knows_its_length_and_runs_no_python(stream):
    found = []
    for threads, autotune in ((1, False), (5, True)):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.deterministic = not autotune
        options.autotune.enabled = autotune
        found.append(drawn(stream(seed=3).with_options(options), 120))
    np.testing.assert_array_equal(*found)
    assert (drawn(stream(seed=4), 120) != found[0]).any()
    assert stream(seed=0).cardinality() == -1 and stream(seed=0, epochs=4).cardinality() == 60
    # So it can be sent to another process, as a graph.
    graph = tf.compat.v1.GraphDef.FromString(stream(seed=0)._as_serialized_graph().numpy())
    inside = [node.op for function in graph.library.function for node in function.node_def]
    assert inside and not any("Py" in name for name in [*inside, *(n.op for n in graph.node)])


def test_draws_of_a_mixture_are_not_those_of_indices_with_the_same_seed():
    """Otherwise a source that draws by its own would go in step with the mixture."""
    found = drawn(sampling.mixed(sources(1, 1), [1, 1], seed=0, size=64), 64)[:, 0]
    assert (found != drawn(sampling.indices([1, 1], seed=0, size=64), 64)).any()


@settings(some, max_examples=12)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), max_size=3), st.integers(1, 30))
@example([(95, 2)], 50)
def test_in_every_epoch_every_source_has_its_share_and_its_elements_take_turns(made, size):
    lengths, weights = zip(*made, (3, 2), strict=True)
    unsure = [one.filter(lambda *_: True) for one in sources(*lengths)]  # of how long they are
    mixture = sampling.mixed(unsure, weights, seed=3, size=size, epochs=6)
    assert mixture.element_spec == unsure[0].element_spec
    found = drawn(mixture)
    for epoch in found.reshape(6, size, 2):
        counts = np.bincount(epoch[:, 0], minlength=len(lengths))
        assert_due(counts, size * np.array(weights) / sum(weights))
    for place, length in enumerate(lengths):
        taken = found[found[:, 0] == place, 1]
        np.testing.assert_array_equal(taken, np.arange(len(taken)) % length)


@some
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.fractions(0, Fraction(9999, 10000)))
@example([0] * 999 + [1], Fraction(0))
def test_weights_are_those_of_scikit_learn_and_of_the_paper(labels, beta):
    """The paper's in whole numbers and fractions, scaled so that the cases average 1."""
    ids = sorted(set(labels))
    theirs = compute_class_weight("balanced", classes=np.array(ids), y=labels)
    counts = [labels.count(one) for one in ids]
    raw = [1 / sum(beta**power for power in range(count)) for count in counts]
    scale = len(labels) / sum(one * count for one, count in zip(raw, counts, strict=True))
    for same in (labels, [*labels, -1], [*labels, float("nan")]):
        found = sampling.class_weights(same)
        assert found == pytest.approx(dict(zip(ids, theirs, strict=True)), rel=1e-12)
        assert all(type(key) is int for key in found)
        found = sampling.class_weights(same, beta=float(beta))
        assert list(found.values()) == pytest.approx([float(w * scale) for w in raw], rel=1e-9)


NOTHING = RANGE(5).filter(lambda number: number > 9)


def mixed(*given, weights=(1, 1), **options):
    return drawn(sampling.mixed(given, weights, seed=0, **options), 20)


REFUSED = [
    (lambda: sampling.automatic([]), "EMPTY_LIST"),
    (lambda: sampling.automatic([0, 1], {0: "air", 2: "cyst", 1: "node"}), r"EMPTY_CLASS.*\{2\}"),
    (lambda: sampling.automatic([(0, -1), (1, -1)]), "EMPTY_CLASS.* at all"),
    (lambda: sampling.automatic([0, 7, 1], (0, 1)), r"UNKNOWN_LABEL.* 1, .*\{0, 1\}"),
    (lambda: sampling.automatic([0, None, -1, float("nan")]), "UNKNOWN_LABEL.*cases 1, 2, 3,"),
    (lambda: sampling.element([]), "EMPTY_LIST"),
    (lambda: sampling.element([1, None, -0.5, np.nan, np.inf, 0]), "BAD_WEIGHT.*1, 2, 3, 4,"),
    (lambda: sampling.indices([0, 0.0], seed=0), "BAD_WEIGHT.*all 2"),
    (lambda: sampling.indices([1, 1], seed=0, size=0), "one draw or more, not 0"),
    (lambda: sampling.indices([1, 1], seed=0, groups=[1]), "1 groups for 2 cases"),
    (lambda: mixed(RANGE(3), RANGE(0)), "EMPTY_CLASS.*3, 0"),
    (lambda: mixed(RANGE(3), RANGE(3), weights=[1]), "1 weights for 2 datasets"),
    (lambda: mixed(RANGE(3), NOTHING), "length is unknown"),
    (lambda: mixed(RANGE(3), NOTHING, size=4), "infinite number of elements but"),
    (lambda: sampling.class_weights([-1, -1]), "EMPTY_CLASS"),
    (lambda: sampling.class_weights([(0, 1), (1, 0)]), "labels.losses"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_what_cannot_be_sampled_is_refused_with_its_reason(call, words):
    with pytest.raises((ValueError, TypeError, tf.errors.OpError), match=f"(?s){words}"):
        call()
