"""Weights of classes: what scikit-learn and the paper say, and the same in the loss as in Keras."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from helpers import pipeline, sampling
from helpers.errors import CourseDataError

some = settings(max_examples=80, deadline=None, derandomize=True)
graphs = settings(max_examples=12, deadline=None, derandomize=True)
lists = st.lists(st.integers(0, 5), min_size=1, max_size=60)
RULES = [{"rule": "balanced"}, {"rule": "effective"}, {"rule": "effective", "beta": 0.9}]


def code_of(call, *arguments, **options) -> str:
    with pytest.raises(CourseDataError) as refused:
        call(*arguments, **options)
    return refused.value.code


# The numbers


@some
@given(lists)
def test_balanced_weights_are_those_of_scikit_learn(labels):
    classes = np.unique(labels)
    theirs = compute_class_weight("balanced", classes=classes, y=labels)
    expected = dict(zip(classes.tolist(), theirs, strict=True))
    for same in (labels, np.array(labels), [(one,) for one in labels]):
        found = sampling.class_weights(same)
        assert found == pytest.approx(expected, rel=1e-12)
        assert all(type(key) is int and type(value) is float for key, value in found.items())
    named = sampling.class_weights([f"class {one}" for one in labels])
    assert named == pytest.approx({f"class {key}": value for key, value in expected.items()})


@some
@given(lists, st.fractions(0, Fraction(9999, 10000)))
@example([0] * 50 + [1], Fraction(0))
def test_effective_weights_are_those_of_the_paper(labels, beta):
    """In whole numbers and fractions, exactly; scaled so that the cases average 1."""
    classes = sorted(set(labels))
    counts = [labels.count(one) for one in classes]
    raw = [1 / sum(beta**power for power in range(count)) for count in counts]
    scale = len(labels) / sum(one * count for one, count in zip(raw, counts, strict=True))
    expected = {one: float(w * scale) for one, w in zip(classes, raw, strict=True)}
    found = sampling.class_weights(labels, rule="effective", beta=float(beta))
    assert found == pytest.approx(expected, rel=1e-9)


@some
@given(lists)
def test_beta_leads_from_equal_weights_to_balanced_ones(labels):
    balanced = sampling.class_weights(labels)
    ones = sampling.class_weights(labels, rule="effective", beta=0)
    assert ones == dict.fromkeys(balanced, 1.0)
    for beta in (1 - 1e-9, 1 - 2**-53):
        close = sampling.class_weights(labels, rule="effective", beta=beta)
        assert close == pytest.approx(balanced, rel=1e-6)
    between = sampling.class_weights(labels, rule="effective")
    by_default = sampling.class_weights(labels, rule="effective", beta=1 - 1 / len(labels))
    assert between == pytest.approx(by_default)
    # A rare class weighs more than a common one, and not more than balance asks for.
    for rare in balanced:
        for common in balanced:
            if labels.count(rare) < labels.count(common):
                ratio = between[rare] / between[common]
                assert 1 - 1e-12 < ratio < balanced[rare] / balanced[common] + 1e-12


@some
@given(lists)
def test_the_weights_of_all_cases_average_one(labels):
    for rule in RULES:
        weights = sampling.class_weights(labels, **rule)
        assert np.mean([weights[one] for one in labels]) == pytest.approx(1)


def test_the_numbers_of_five_percent():
    labels = [0] * 95 + [1] * 5
    assert sampling.class_weights(labels) == pytest.approx({0: 100 / 190, 1: 10})
    # 1 / count is a twentieth of it: a learning rate that much smaller.
    assert np.mean([1 / 95] * 95 + [1 / 5] * 5) == pytest.approx(1 / 50)


@pytest.mark.parametrize("rule", RULES)
def test_cases_without_a_label_are_left_out(rule):
    expected = sampling.class_weights([0, 1, 1], **rule)
    assert sampling.class_weights([0, -1, 1, 1, -1], **rule) == expected
    named = {"a": expected[0], "b": expected[1]}
    for missing in (None, float("nan"), "", "-1", -1):
        assert sampling.class_weights(["a", missing, "b", "b"], **rule) == named
    assert sampling.class_weights(np.array([True, False, True]), **rule) == expected
    assert sampling.class_weights([7], **rule) == {7: 1.0}


def test_a_class_of_one_case_counts_as_much_as_a_class_of_many():
    weights = sampling.class_weights([0] * 999 + [1])
    assert weights[1] == pytest.approx(999 * weights[0])


def test_classes_that_must_be_there_are_there_and_no_others():
    names = {0: "normal", 1: "nodule"}
    assert sampling.class_weights([0, 1], names) == {0: 1.0, 1: 1.0}
    assert code_of(sampling.class_weights, [0, 0], names) == "EMPTY_CLASS"
    assert code_of(sampling.class_weights, [0, 1, 2], names) == "UNKNOWN_LABEL"
    assert code_of(sampling.class_weights, ["a", "b"], ["a"]) == "UNKNOWN_LABEL"
    assert code_of(sampling.class_weights, [-1, -1]) == "EMPTY_CLASS"
    assert code_of(sampling.class_weights, []) == "EMPTY_LIST"
    with pytest.raises(CourseDataError, match="positions 2, counted from 0; expected 0, 1"):
        sampling.class_weights([0, -1, 2, 1], [0, 1])


@pytest.mark.parametrize(
    "labels, options, message",
    [
        ([(0, 1), (1, 0)], {}, "2 labels, .* labels.losses a weight for each"),
        ([0.5, 1.0], {}, "not float64"),
        (["a", 1], {}, "either class ids or names; found both"),
        ([0, 1], {"rule": "inverse"}, "balanced, effective, not 'inverse'"),
        ([0, 1], {"beta": 0.9}, 'belongs to "effective"'),
        ([0, 1], {"rule": "effective", "beta": 1.0}, "to below 1"),
        ([0, 1], {"rule": "effective", "beta": -0.1}, "from 0"),
    ],
)
def test_what_has_no_weights_is_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        sampling.class_weights(labels, **options)


# The stage


@graphs
@given(st.lists(st.integers(-1, 2), min_size=1, max_size=9), st.booleans(), st.booleans())
def test_each_element_has_the_weight_of_its_class(tf, labels, before, batched):
    weights = {0: 0.5, 1: 3.0, 2: 0.0}
    fields = {"label": np.int32(labels), "image": np.zeros((len(labels), 2))}
    of_case = np.arange(1, len(labels) + 1) if before else np.ones(len(labels))
    if before:
        fields["weight"] = np.float64(of_case)
    dataset = tf.data.Dataset.from_tensor_slices(fields)
    dataset = dataset.batch(4) if batched else dataset
    dataset = dataset.apply(sampling.weighted(weights))
    assert dataset.element_spec["weight"].dtype == tf.float32
    assert dataset.element_spec["weight"].shape == dataset.element_spec["label"].shape
    found = [np.ravel(one["weight"]) for one in dataset.as_numpy_iterator()]
    expected = [weights.get(one, 0) * by for one, by in zip(labels, of_case, strict=True)]
    np.testing.assert_array_equal(np.concatenate(found), np.float32(expected))
    assert dataset.element_spec["image"].shape[-1] == 2


def test_a_weight_that_is_no_number_does_not_outlive_a_missing_label(tf):
    one = {"label": [-1, 0], "weight": [np.nan, 2.0]}
    dataset = tf.data.Dataset.from_tensor_slices(one).apply(sampling.weighted({0: 3.0}))
    assert [float(each["weight"]) for each in dataset] == [0, 6]


def test_a_class_without_a_weight_stops_the_pipeline_with_its_case(tf):
    dataset = tf.data.Dataset.from_tensors({"label": 2, "case": "abc"})
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"UNKNOWN_LABEL.*\[2\].*abc"):
        list(dataset.apply(sampling.weighted({0: 1.0, 1: 2.0})))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"image": [0]}, "a `label`, a class id"),
        ({"label": [0.5]}, "one `label`, a class id"),
        ({"label": [[[0, 1]]]}, "labels.losses a weight for each"),
        ({"label": [[0, 1]], "case": ["abc"]}, "labels.losses a weight for each"),
        ({"label": [[0, 1]], "weight": [1.0]}, "labels.losses a weight for each"),
        ({"label": {"binary": [[1.0]]}}, "labels.losses a weight for each"),
    ],
)
def test_elements_with_other_labels_are_refused_before_they_are_read(tf, fields, message):
    dataset = tf.data.Dataset.from_tensor_slices(fields)
    with pytest.raises(ValueError, match=message):
        dataset.apply(sampling.weighted({0: 1.0, 1: 1.0}))


def test_ids_with_gaps_as_pandas_has_them_are_ids():
    expected = sampling.class_weights([0, 1, 1, -1])
    assert sampling.class_weights([0.0, 1.0, 1.0, float("nan")]) == expected
    with pytest.raises(ValueError, match="class id, a name"):
        sampling.class_weights([0.5, 1.0])


@pytest.mark.parametrize("wrong", [{}, {"a": 1.0}, {-1: 1.0}, {0: -1.0}, {0: np.nan}, {0: np.inf}])
def test_weights_that_are_no_weights_are_refused(wrong):
    with pytest.raises(ValueError, match="weights are"):
        sampling.weighted(wrong)


def test_it_is_the_same_training_as_with_class_weight(tf):
    """Two models from the same start: one told by `class_weight`, one by the elements."""
    import keras

    rng = np.random.default_rng(0)
    truth = rng.permutation([0] * 28 + [1] * 4).astype(np.int32)
    fields = {"image": rng.normal(size=(32, 3)).astype(np.float32) + truth[:, None], "label": truth}
    dataset = tf.data.Dataset.from_tensor_slices(fields).batch(8)
    weights, ends = sampling.class_weights(truth), []
    plain = dataset.apply(pipeline.pairs("label"))
    told = dataset.apply(sampling.weighted(weights)).apply(pipeline.pairs("label", weight=True))
    for pairs, class_weight in ((plain, weights), (told, None), (plain, None)):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
        model.fit(pairs, epochs=3, class_weight=class_weight, shuffle=False, verbose=0)
        ends.append(model.get_weights()[0])
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)
    assert abs(ends[2] - ends[1]).max() > 1e-2


def test_it_is_a_step_of_a_pipeline(tf):
    def load(number: int) -> dict:
        return {"image": np.zeros([4, 4, 1], np.float32), "label": np.int32(number % 4 == 0)}

    dataset = pipeline.classification(
        range(8), load=load, batch_size=4, batch_transforms=[sampling.weighted({0: 1.0, 1: 3.0})]
    )
    for _, label, weight in dataset.apply(pipeline.pairs("label", weight=True)):
        np.testing.assert_array_equal(weight, np.where(label == 1, 3.0, 1.0))
