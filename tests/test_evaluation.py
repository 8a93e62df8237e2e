"""Thresholds, intervals and probabilities agree with scikit-learn, SciPy and sums by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

from helpers import cases, evaluation
from helpers.errors import CourseDataError

LAWFUL = settings(max_examples=150, derandomize=True, deadline=None, database=None)
SCORES = st.sampled_from([-2.0, -0.5, 0.0, 0.1, 0.3, 0.7, 5.0])  # few, so that there are ties
SHARES = st.sampled_from([0.0, 0.1, 0.3, 1 / 3, 0.5, 0.7, 0.9, 0.95, 1.0])


@st.composite
def scored(draw):
    """Labels of both classes, and a score for each."""
    labels = draw(st.lists(st.integers(0, 1), min_size=2, max_size=40))
    assume(0 < sum(labels) < len(labels))
    scores = draw(st.lists(SCORES, min_size=len(labels), max_size=len(labels)))
    return np.array(labels), np.array(scores)


def rare(seed: int = 0, number: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """5 % positives, scores that overlap."""
    random = np.random.default_rng(seed)
    labels = (random.random(number) < 0.05).astype(int)
    return labels, random.normal(1.5 * labels)


# Thresholds


def roc(labels, scores):
    """scikit-learn's curve: thresholds, false and true positives as whole numbers."""
    false, true, thresholds = metrics.roc_curve(labels, scores, drop_intermediate=False)
    positive = labels.sum()
    false = np.rint(false * (len(labels) - positive)).astype(int)
    return thresholds, false, np.rint(true * positive).astype(int)


@LAWFUL
@given(scored(), SHARES)
def test_the_threshold_for_a_specificity_is_the_lowest_of_the_roc_curve(data, share):
    labels, scores = data
    thresholds, false, _ = roc(labels, scores)
    negative = len(labels) - labels.sum()
    enough = (negative - false) / negative >= share - 1e-12
    found = evaluation.threshold_at(labels, scores, specificity=share)
    assert found == thresholds[enough].min()


@LAWFUL
@given(scored(), SHARES)
def test_the_threshold_for_a_sensitivity_is_the_highest_of_the_roc_curve(data, share):
    labels, scores = data
    thresholds, _, true = roc(labels, scores)
    enough = true / labels.sum() >= share - 1e-12
    found = evaluation.threshold_at(labels, scores, sensitivity=share)
    assert found == thresholds[enough].max()


def test_a_specificity_of_nine_in_ten_spares_nine_of_ten_negatives():
    # By hand: nine negatives below 10, the tenth may be called positive.
    labels, scores = np.array([0] * 10 + [1, 1]), np.array([*range(1, 11), 9.5, 20])
    assert evaluation.threshold_at(labels, scores, specificity=0.9) == 9.5
    assert evaluation.threshold_at(labels, scores, specificity=0.91) == 20
    assert evaluation.threshold_at(labels, scores, sensitivity=0.5) == 20
    assert evaluation.threshold_at(labels, scores, sensitivity=0.51) == 9.5


@pytest.mark.parametrize("percent", [7, 14, 28, 29, 55, 56, 57, 58])
def test_a_share_of_a_hundred_is_a_whole_number_of_cases(percent):
    # In floating point 0.55 x 100 is more than 55, and 0.29 x 100 less than 29.
    labels, scores = np.array([0] * 100 + [1] * 100), np.tile(np.arange(100), 2)
    assert evaluation.threshold_at(labels, scores, specificity=percent / 100) == percent
    assert evaluation.threshold_at(labels, scores, sensitivity=percent / 100) == 100 - percent


def test_of_equal_scores_all_are_positive_or_none():
    labels, scores = [0, 0, 0, 1], [0.2, 0.6, 0.6, 0.6]
    assert evaluation.threshold_at(labels, scores, specificity=1 / 3) == 0.6
    assert evaluation.threshold_at(labels, scores, specificity=0.5) == math.inf
    assert str(evaluation.operating_point(labels, scores, math.inf)).startswith("sensitivity 0.00")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_threshold_divides_the_very_scores_that_it_was_chosen_on(dtype):
    labels, scores = rare()
    scores = scores.astype(dtype)
    threshold = evaluation.threshold_at(labels, scores, specificity=0.9)
    below = int((scores[labels == 0] < threshold).sum())
    assert (
        below == evaluation.operating_point(labels, scores, threshold).tn >= 0.9 * sum(labels == 0)
    )


@LAWFUL
@given(scored(), SCORES)
def test_an_operating_point_is_what_scikit_learn_counts(data, threshold):
    labels, scores = data
    called = scores >= threshold
    point = evaluation.operating_point(labels, scores, threshold)
    tn, fp, fn, tp = metrics.confusion_matrix(labels, called).ravel()
    assert (point.tp, point.fp, point.tn, point.fn) == (tp, fp, tn, fn)
    assert point.sensitivity == pytest.approx(metrics.recall_score(labels, called))
    assert point.specificity == pytest.approx(metrics.recall_score(labels, called, pos_label=0))
    assert point.accuracy == pytest.approx(metrics.accuracy_score(labels, called))
    balanced = metrics.balanced_accuracy_score(labels, called)
    assert point.balanced_accuracy == pytest.approx(balanced)
    precision = metrics.precision_score(labels, called, zero_division=np.nan)
    assert point.precision == pytest.approx(precision, nan_ok=True)
    assert point.threshold == threshold


def test_an_operating_point_is_a_line_to_read():
    point = evaluation.operating_point([0, 0, 0, 1, 1], [0.1, 0.2, 0.9, 0.3, 0.8], 0.5)
    assert str(point) == (
        "sensitivity 0.50 (1 of 2), specificity 0.67 (2 of 3), precision 0.50, "
        "balanced accuracy 0.58"
    )


@pytest.mark.parametrize(
    "asked",
    [{}, {"specificity": 0.9, "sensitivity": 0.9}, {"specificity": 90}, {"sensitivity": -1}],
)
def test_a_threshold_needs_one_share_between_0_and_1(asked):
    with pytest.raises(ValueError, match=r"either|between 0 and 1"):
        evaluation.threshold_at([0, 1], [0.1, 0.9], **asked)


def test_no_score_is_above_or_below_a_threshold_that_is_no_number():
    with pytest.raises(ValueError, match="NaN"):
        evaluation.operating_point([0, 1], [0.1, 0.9], math.nan)


# Patients


def test_patients_are_told_by_the_first_half_of_the_hash():
    names = [
        cases.case_hash("a salt", who, what)
        for who, what in ["Aa", "Ab", "Ba", ("", "a"), ("", "b")]
    ]
    found = evaluation.patients(names)
    assert found[0] == found[1] and len(set(found)) == 4
    assert all(name.startswith(f"{one}-") for name, one in zip(names, found, strict=True))
    assert (evaluation.patients([name.encode() for name in names]) == found).all()
    with pytest.raises(ValueError, match="1 of 2 cases, at the positions 1 counted from 0"):
        evaluation.patients([names[0], "Jane Doe"])


def test_one_positive_slice_makes_a_patient_positive():
    who = np.array(["b", "a", "b", "c", "a"])
    people, labels, scores = evaluation.by_patient(
        who, [0, 0, 1, 0, 0], [0.5, 0.1, 0.2, 1.0, 0.4], "max"
    )
    assert (people.tolist(), labels.tolist(), scores.tolist()) == (
        ["a", "b", "c"], [0, 1, 0], [0.4, 0.5, 1.0]
    )  # fmt: skip
    mean = evaluation.by_patient(who, [0, 0, 1, 0, 0], [0.5, 0.1, 0.2, 1.0, 0.4], "mean")[2]
    np.testing.assert_allclose(mean, [0.25, 0.35, 1.0])
    # 1 - 0.9 x 0.6, 1 - 0.5 x 0.8, and a slice that is certain.
    noisy = evaluation.by_patient(who, [0, 0, 1, 0, 0], [0.5, 0.1, 0.2, 1.0, 0.4], "noisy_or")[2]
    np.testing.assert_allclose(noisy, [0.46, 0.6, 1.0])


@LAWFUL
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.floats(0, 1)), min_size=1),
    st.sampled_from(["max", "mean", "noisy_or"]),
    st.randoms(use_true_random=False),
)
def test_patients_are_summed_up_the_slow_way_whatever_the_order_of_slices(rows, how, random):
    slow = {
        "max": max,
        "mean": lambda scores: sum(scores) / len(scores),
        "noisy_or": lambda scores: 1 - math.prod(1 - score for score in scores),
    }[how]
    random.shuffle(rows)
    people, labels, scores = evaluation.by_patient(*zip(*rows, strict=True), how)
    assert people.tolist() == sorted({who for who, _, _ in rows})
    for one, label, score in zip(people, labels, scores, strict=True):
        own = [row for row in rows if row[0] == one]
        assert label == max(row[1] for row in own)
        assert score == pytest.approx(slow([row[2] for row in own]), abs=1e-12)


def test_many_improbable_slices_do_not_vanish_in_rounding():
    scores = evaluation.by_patient(["a"] * 3, [0, 0, 0], [1e-18] * 3, "noisy_or")[2]
    assert scores[0] == pytest.approx(3e-18, rel=1e-9, abs=0)


def test_patients_of_one_class_are_summed_up_as_well():
    assert evaluation.by_patient(["a", "a"], [0, 0], [1.0, 2.0])[2].tolist() == [2.0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"how": "median"}, "max, mean, noisy_or"),
        ({"patients": ["a"]}, r"patients have the shape \(1,\), expected one a case: \(2,\)"),
        ({"patients": ["a", ""]}, "1 of 2 cases, at the positions 1 .* no name"),
        ({"patients": np.array(["a", None])}, "positions 1 .* no name"),
        ({"patients": [1.0, math.nan]}, "positions 1 .* no name"),
        ({"how": "noisy_or", "scores": [0.5, 2.5]}, "from 0.5 to 2.5; logits .* sigmoid"),
    ],
    ids=str,
)
def test_patients_that_cannot_be_summed_up_are_refused(changed, words):
    known = {"patients": ["a", "b"], "labels": [0, 1], "scores": [0.5, 0.6]}
    with pytest.raises(ValueError, match=words):
        evaluation.by_patient(**(known | changed))


# Intervals


def hits(labels, scores):
    """Balanced accuracy at 0, in two lines: quick enough for thousands of rounds."""
    called = scores >= 0
    return (called[labels == 1].mean() + 1 - called[labels == 0].mean()) / 2


def people(random, number=120, slices=10, shift=1.0):
    """Slices that share much with their patient, every fourth of whom is positive.

    The balanced accuracy of all such patients is Phi(shift / sqrt(2)), at any threshold of 0.
    """
    patients = np.repeat(np.arange(number), slices)
    labels = (patients % 4 == 0).astype(int)
    own = random.normal(size=number)[patients]
    scores = own + random.normal(size=len(patients)) + np.where(labels, shift, -shift)
    return patients, labels, scores


def coverage(runs, grouped):
    truth, random, inside = stats.norm.cdf(1 / math.sqrt(2)), np.random.default_rng(5), 0
    for seed in range(runs):
        patients, labels, scores = people(random)
        groups = patients if grouped else None
        found = evaluation.bootstrap(hits, labels, scores, groups=groups, rounds=200, seed=seed)
        inside += found.low <= truth <= found.high
    return inside / runs


def test_intervals_by_patient_hold_what_they_promise_and_those_by_slice_do_not():
    # Of 200 intervals of 95 %, with 30 positive patients each.
    assert 0.90 <= coverage(200, grouped=True) <= 0.98
    assert coverage(200, grouped=False) < 0.75


def test_intervals_of_differences_hold_what_they_promise_and_are_narrower_for_being_paired():
    truth = stats.norm.cdf(1 / math.sqrt(2)) - stats.norm.cdf(0.5 / math.sqrt(2.25))
    random, inside, narrower = np.random.default_rng(6), 0, 0
    for seed in range(200):
        patients, labels, scores = people(random)
        # Another model: it sees the same patients, half as clearly and with noise of its own.
        other = scores - np.where(labels, 0.5, -0.5) + random.normal(scale=0.5, size=len(scores))
        arguments = {"groups": patients, "rounds": 200, "seed": seed}
        found = evaluation.bootstrap_difference(hits, labels, scores, other, **arguments)
        one, two = (evaluation.bootstrap(hits, labels, s, **arguments) for s in (scores, other))
        assert found.value == pytest.approx(one.value - two.value)
        inside += found.low <= truth <= found.high
        narrower += found.high - found.low < math.hypot(one.high - one.low, two.high - two.low)
    assert 0.90 <= inside / 200 <= 0.98
    assert narrower > 190


def test_case_by_case_it_is_the_percentile_interval_of_scipy():
    labels, scores = rare(number=1000)

    def metric(rows):
        return hits(labels[rows], scores[rows])

    theirs = stats.bootstrap(
        (np.arange(1000),), metric, n_resamples=4000, method="percentile", vectorized=False,
        rng=np.random.default_rng(9),
    )  # fmt: skip
    ours = evaluation.bootstrap(hits, labels, scores, rounds=4000)
    assert ours.value == hits(labels, scores)
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)


def test_each_round_takes_whole_patients_as_often_as_they_were_drawn():
    patients = np.array(["c", "a", "b", "a", "c", "c"])
    labels, seen = np.array([1, 0, 0, 0, 1, 1]), []

    def metric(labels, scores):
        seen.append(scores.astype(int))
        return 0.0

    evaluation.bootstrap(metric, labels, np.arange(6), groups=patients, rounds=50)
    for rows in seen:
        times = np.bincount(rows, minlength=6)
        assert times[0] == times[4] == times[5] and times[1] == times[3]
        assert times[0] + times[1] + times[2] == 3
    assert len({tuple(rows) for rows in seen}) > 3


@pytest.mark.parametrize("ones", [1, 3])
def test_rounds_of_positives_alone_and_of_negatives_alone_are_drawn_again(ones):
    labels, shares = np.repeat([0, 1], [4 - ones, ones]), []

    def metric(labels, scores):
        shares.append(labels.mean())
        return shares[-1]

    evaluation.bootstrap(metric, labels, np.zeros(4), rounds=300)
    assert len(shares) == 301 and min(shares) > 0 and max(shares) < 1


def test_the_same_seed_gives_the_same_interval_and_a_lower_level_a_narrower_one():
    labels, scores = rare(number=400)
    one, two, other, narrow = (
        evaluation.bootstrap(hits, labels, scores, rounds=200, **how)
        for how in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {"seed": 1, "level": 0.5})
    )
    assert one == two != other
    assert one.low < narrow.low < narrow.high < one.high
    assert str(evaluation.Interval(0.712, 0.6249, 0.8)) == "0.71 (0.62 to 0.80)"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rounds": 0}, "rounds is a whole number from 1"),
        ({"level": 95}, "above 0 and below 1"),
        ({"groups": ["a"] * 4}, "one group"),
        ({"groups": ["a", "b"]}, "one a case"),
        ({"metric": lambda labels, scores: math.nan}, "metric is nan"),
    ],
    ids=["rounds", "level", "one group", "groups", "metric"],
)
def test_what_cannot_be_drawn_again_is_refused(changed, words):
    known = {"metric": hits, "labels": [0, 1, 0, 1], "scores": [1, 2, 3, 4], "rounds": 10}
    with pytest.raises(ValueError, match=words):
        evaluation.bootstrap(**(known | changed))


# Probabilities

PROBABILITY = st.floats(0, 1)
SHARE = st.floats(0.01, 0.99)


def test_probabilities_of_two_normal_classes_move_as_bayes_says():
    scores = np.linspace(-4, 4, 41)
    likely, unlikely = stats.norm.pdf(scores, 1), stats.norm.pdf(scores, -1)

    def posterior(share):
        return share * likely / (share * likely + (1 - share) * unlikely)

    found = evaluation.with_prevalence(posterior(0.5), 0.5, 0.05)
    np.testing.assert_allclose(found, posterior(0.05), rtol=1e-12)


@LAWFUL
@given(st.lists(PROBABILITY, min_size=1), SHARE, SHARE, SHARE)
def test_corrections_add_up_go_back_and_keep_the_order(probabilities, one, two, three):
    given_ones = np.sort(probabilities)
    there = evaluation.with_prevalence(given_ones, one, two)
    assert ((there >= 0) & (there <= 1)).all() and (np.diff(there) >= -1e-15).all()
    np.testing.assert_allclose(
        evaluation.with_prevalence(there, two, three),
        evaluation.with_prevalence(given_ones, one, three), rtol=1e-7, atol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(evaluation.with_prevalence(given_ones, one, one), given_ones)


def test_the_odds_are_multiplied_and_the_shape_stays():
    # Odds of 1 become 1/19 where 5 % are positive instead of half.
    assert evaluation.with_prevalence(0.5, 0.5, 0.05) == pytest.approx(0.05)
    found = evaluation.with_prevalence(np.float32([[0.0, 0.2], [0.5, 1.0]]), 0.5, 0.1)
    np.testing.assert_allclose(found, [[0, 0.25 / 9.25], [0.1, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    "arguments", [(0.5, 0, 0.1), (0.5, 0.5, 1), (0.5, 0.5, 50), (1.5, 0.5, 0.1)]
)
def test_corrections_need_probabilities_and_shares_of_both_classes(arguments):
    with pytest.raises(ValueError, match=r"0 and (below )?1"):
        evaluation.with_prevalence(*arguments)


def test_weighted_classes_count_as_the_share_of_their_weights():
    labels = np.array([0] * 95 + [1] * 5)
    weights = {0: 100 / (2 * 95), 1: 100 / (2 * 5)}  # scikit-learn's "balanced"
    assert evaluation.effective_prevalence(labels, weights) == pytest.approx(0.5)
    assert evaluation.effective_prevalence(labels, {0: 1, 1: 1}) == pytest.approx(0.05)
    assert evaluation.effective_prevalence(labels, {0: 1, 1: 3}) == pytest.approx(15 / 110)
    for wrong in ({1: 3.0}, {0: 1, 1: 0}, {0: 1, 1: math.inf}, {"0": 1, "1": 1}):
        with pytest.raises(ValueError, match="a weight above 0 for class 0 and for class 1"):
            evaluation.effective_prevalence(labels, wrong)


def test_a_model_fitted_with_class_weights_is_calibrated_again_by_the_correction():
    from sklearn.linear_model import LogisticRegression

    labels, scores = rare(number=60_000)
    weights = {0: 1.0, 1: 12.0}
    model = LogisticRegression(C=1e6, class_weight=weights).fit(scores[:, None], labels)
    trained = model.predict_proba(scores[:, None])[:, 1]
    share = evaluation.effective_prevalence(labels, weights)
    corrected = evaluation.with_prevalence(trained, share, labels.mean())
    before, after = (evaluation.reliability(labels, p) for p in (trained, corrected))
    assert before.expected_calibration_error > 0.2
    assert after.expected_calibration_error < 0.005


@LAWFUL
@given(scored(), st.integers(1, 12), st.sampled_from(["quantile", "uniform"]))
def test_reliability_is_the_calibration_curve_of_scikit_learn(data, bins, strategy):
    labels, scores = data
    probabilities = 1 / (1 + np.exp(-scores))
    observed, predicted = calibration_curve(labels, probabilities, n_bins=bins, strategy=strategy)
    found = evaluation.reliability(labels, probabilities, bins=bins, strategy=strategy)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.mean_predicted, predicted)
    assert found.count.sum() == len(labels) and (found.count > 0).all()
    assert ((found.low <= found.observed + 1e-12) & (found.observed <= found.high + 1e-12)).all()


def test_reliability_of_four_cases_by_hand():
    # Two bins: 0.1 and 0.2 with no positive, 0.6 and 0.8 with one.
    found = evaluation.reliability([0, 0, 1, 0], [0.1, 0.2, 0.6, 0.8], bins=2)
    np.testing.assert_allclose(found.mean_predicted, [0.15, 0.7])
    np.testing.assert_allclose(found.observed, [0, 0.5])
    assert found.count.tolist() == [2, 2]
    assert found.expected_calibration_error == pytest.approx((0.15 + 0.2) / 2)
    # Wilson, written out: (p + z2/2n -+ z sqrt(p q/n + z2/4n2)) / (1 + z2/n).
    z2, n, share = stats.norm.ppf(0.975) ** 2, 2, np.array([0, 0.5])
    middle, factor = share + z2 / (2 * n), 1 + z2 / n
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2)))
    np.testing.assert_allclose(found.low, (middle - half) / factor, atol=1e-12)
    np.testing.assert_allclose(found.high, (middle + half) / factor)


def test_the_calibration_error_weighs_each_bin_by_its_cases():
    # Three cases at 0.1 with one positive, one at 0.9 that is: distances 0.2333 and 0.1.
    found = evaluation.reliability([0, 0, 1, 1], [0.1, 0.1, 0.1, 0.9], bins=2, strategy="uniform")
    assert found.count.tolist() == [3, 1]
    assert found.expected_calibration_error == pytest.approx((3 * (1 / 3 - 0.1) + 0.1) / 4)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"bins": 0}, "1 bin or more"),
        ({"strategy": "kmeans"}, "quantile or uniform"),
        ({"level": 0}, "above 0 and below 1"),
        ({"probabilities": [0.5, -3.0]}, "from -3 to 0.5; logits"),
    ],
    ids=str,
)
def test_reliability_needs_probabilities_and_bins(changed, words):
    with pytest.raises(ValueError, match=words):
        evaluation.reliability(**({"labels": [0, 1], "probabilities": [0.1, 0.2]} | changed))


# What all of them refuse

TAKING = {
    "threshold_at": lambda y, s: evaluation.threshold_at(y, s, specificity=0.9),
    "operating_point": lambda y, s: evaluation.operating_point(y, s, 0.5),
    "bootstrap": lambda y, s: evaluation.bootstrap(hits, y, s),
    "first of a difference": lambda y, s: evaluation.bootstrap_difference(hits, y, s, [0.1] * 4),
    "other of a difference": lambda y, s: evaluation.bootstrap_difference(hits, y, [0.1] * 4, s),
    "reliability": evaluation.reliability,
    "by_patient": lambda y, s: evaluation.by_patient(["a", "b", "c", "d"], y, s),
}
GOOD, FINE = [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("take", TAKING.values(), ids=TAKING)
@pytest.mark.parametrize(
    ("labels", "scores", "code", "words"),
    [
        ([], FINE, "EMPTY_LIST", "no case to evaluate"),
        (
            [0, -1, 1, 2],
            FINE,
            "UNKNOWN_LABEL",
            "2 of 4 cases, at the positions 1, 3 counted from 0",
        ),
        ([0, 0.5, 1, 1], FINE, "UNKNOWN_LABEL", "at the positions 1 counted"),
        (["no", "yes", "no", "no"], FINE, "UNKNOWN_LABEL", "which class is positive"),
        (["0", "1", "0", "1"], FINE, "UNKNOWN_LABEL", "which class is positive"),
        ([[0, 1], [1, 0]], FINE, None, "take one label"),
        (GOOD, FINE[:3], None, r"shape \(3,\), expected one for each label: \(4,\)"),
        (GOOD, [[s] for s in FINE], None, r"take scores\[:, 0\]"),
        (GOOD, [0.1, math.nan, math.inf, 0.4], None, "2 of 4 cases, at the positions 1, 2 .* NaN"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_labels_and_scores_that_make_no_sense_are_refused(take, labels, scores, code, words):
    with pytest.raises(ValueError, match=words) as error:
        take(labels, scores)
    assert getattr(error.value, "code", None) == code


@pytest.mark.parametrize("take", [one for name, one in TAKING.items() if name != "by_patient"])
@pytest.mark.parametrize(("labels", "missing"), [([0] * 4, "positive"), ([1] * 4, "negative")])
def test_one_class_alone_has_no_metric(take, labels, missing):
    with pytest.raises(CourseDataError, match=f"not one of 4 cases is {missing}") as error:
        take(labels, FINE)
    assert error.value.code == "EMPTY_CLASS"
    with pytest.raises(CourseDataError, match=f"is {missing}"):
        evaluation.effective_prevalence(labels, {0: 1, 1: 1})


def test_truth_values_and_whole_floats_are_labels():
    labels, scores = rare(number=300)
    wanted = evaluation.threshold_at(labels, scores, specificity=0.9)
    for dtype in (bool, np.uint8, np.float32):
        assert evaluation.threshold_at(labels.astype(dtype), scores, specificity=0.9) == wanted


# Intervals of what is known of each case


def test_both_bootstraps_agree_where_both_apply():
    # Every round has both classes, so that none is drawn again and the draws are the same.
    random = np.random.default_rng(0)
    labels, values = np.tile([0, 1], 30), random.normal(size=60)
    people = np.repeat(np.arange(30), 2)
    theirs = evaluation.bootstrap(lambda _, score: score.mean(), labels, values, groups=people)
    ours = evaluation.bootstrap_cases(values, groups=people)
    assert ours.value == pytest.approx(theirs.value)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours != evaluation.bootstrap_cases(values)


def test_an_interval_of_a_mean_is_as_wide_as_its_standard_error_says():
    values = np.random.default_rng(0).normal(size=400)
    found = evaluation.bootstrap_cases(values, rounds=2000)
    width = 2 * 1.96 * values.std() / np.sqrt(400)
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert found.low < found.value < found.high


def test_a_round_without_a_value_is_drawn_again():
    rare = np.array([0.5, np.nan, np.nan])
    assert evaluation.bootstrap_cases(rare) == evaluation.Interval(0.5, 0.5, 0.5)


def test_a_metric_that_is_infinite_in_some_rounds_has_no_interval():
    with pytest.raises(ValueError, match="the metric is inf on 5 of 5 cases"):
        evaluation.bootstrap_cases([1, 2, 3, np.inf, np.inf], np.median)


@pytest.mark.timeout(60)
def test_drawing_comes_to_an_end_where_hardly_any_draw_has_a_value():
    def of_all(some):  # twelve cases are drawn without a double once in 18,600 times
        return some.mean() if len({*some}) == 12 else np.nan

    with pytest.raises(ValueError, match="NaN on nearly all draws, 1000 of them"):
        evaluation.bootstrap_cases(np.arange(12), of_all, rounds=10)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "metric", [np.nanmean, np.nanmedian, lambda some: some[~np.isnan(some)].mean()]
)
def test_nothing_is_said_of_a_mean_of_nothing_but_of_all_else(metric):
    rare = np.array([0.5, np.nan, np.nan])
    assert evaluation.bootstrap_cases(rare, metric).low == 0.5
    with pytest.raises(RuntimeWarning, match="overflow"):
        evaluation.bootstrap_cases(np.array([1.0, 2.0]), lambda some: np.exp(1000 * some).mean())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rounds": 0}, "rounds"),
        ({"level": 1}, "level"),
        ({"groups": ["a", "a"]}, "one group"),
        ({"groups": ["a"]}, "shape"),
        ({"cases": [np.nan, np.nan]}, "nan"),
        ({"cases": []}, "no case"),
        ({"cases": 0.5}, "one value for each"),
        ({"cases": [[0.5], [0.6]], "metric": lambda some: some.mean(0)}, "expected one number"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_intervals_of_no_cases_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        evaluation.bootstrap_cases(**{"cases": [0.5, 0.6]} | wrong)


def test_importing_it_loads_neither_tensorflow_nor_scikit_learn_nor_scipy():
    code = (
        "import sys, helpers.evaluation, helpers.leaks;"
        "print({'tensorflow', 'keras', 'sklearn', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
