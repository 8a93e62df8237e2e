"""Thresholds, intervals, probabilities and overlaps agree with scikit-learn, SciPy and by hand."""

import math
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

from helpers import cases, evaluation

lawful = settings(max_examples=25, derandomize=True, deadline=None)
SCORES = st.sampled_from([-2.0, -0.5, 0.0, 0.1, 0.3, 0.7, 5.0])  # few, so that there are ties


@st.composite
def scored(draw):
    """Labels of both classes, and a score for each."""
    labels = draw(st.lists(st.integers(0, 1), min_size=2, max_size=40))
    assume(0 < sum(labels) < len(labels))
    scores = draw(st.lists(SCORES, min_size=len(labels), max_size=len(labels)))
    return np.array(labels), np.array(scores)


@lawful
@given(scored(), st.sampled_from([0, 0.1, 0.3, 1 / 3, 0.5, 0.7, 0.9, 0.95, 1]))
def test_a_threshold_is_the_lowest_score_that_spares_enough_negatives(data, share):
    labels, scores = data
    negatives = scores[labels == 0]
    choices = [*scores, math.inf]
    enough = [c for c in choices if sum(negatives < c) >= share * len(negatives) - 1e-9]
    assert evaluation.threshold_at(labels, scores, specificity=share) == min(enough)


def test_a_share_of_a_hundred_is_a_whole_number_of_cases():
    # In floating point 0.55 x 100 is more than 55, and 0.29 x 100 less than 29.
    scores = np.tile(np.arange(100), 2).astype(np.float32) / 7
    for dtype in (bool, np.uint8, np.float32):
        at = partial(evaluation.threshold_at, np.repeat([0, 1], 100).astype(dtype), scores)
        assert [at(specificity=n / 100) for n in range(100)] == scores[:100].tolist()


@lawful
@given(scored(), SCORES)
def test_an_operating_point_is_what_scikit_learn_counts(data, threshold):
    labels, scores = data
    called = scores >= threshold
    point = evaluation.operating_point(labels, scores, threshold)
    tn, fp, fn, tp = metrics.confusion_matrix(labels, called).ravel()
    rates = [
        metrics.recall_score(labels, called),
        metrics.recall_score(labels, called, pos_label=0),
        metrics.precision_score(labels, called, zero_division=np.nan),
        metrics.balanced_accuracy_score(labels, called),
    ]
    assert point == pytest.approx((tp, fp, tn, fn, *rates), nan_ok=True)
    assert str(point) == (
        f"sensitivity {rates[0]:.2f} ({tp} of {tp + fn}), specificity {rates[1]:.2f} "
        f"({tn} of {tn + fp}), precision {rates[2]:.2f}, balanced accuracy {rates[3]:.2f}"
    )


def test_patients_are_told_by_the_first_half_of_the_hash():
    names = [cases.case_hash("a salt", *one) for one in ("Aa", "Ab", "Ba", ("", "a"), ("", "b"))]
    for given_as in (names, np.char.encode(names), np.char.encode(names).astype(object)):
        one, same, *others = evaluation.patients(given_as).tolist()
        assert one == same == names[0].split("-")[0] and len({one, *others}) == 4


@lawful
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.floats(0, 1)), min_size=1),
    st.sampled_from([("max", max), ("mean", np.mean)]),
)
def test_one_positive_slice_makes_a_patient_positive(rows, how):
    people, labels, scores = evaluation.by_patient(*zip(*rows, strict=True), how[0])
    assert people.tolist() == sorted({who for who, _, _ in rows})
    own = [[row[1:] for row in rows if row[0] == one] for one in people]
    assert labels.tolist() == [max(label for label, _ in some) for some in own]
    assert scores == pytest.approx([how[1]([score for _, score in some]) for some in own])


def hits(labels, scores):
    """Balanced accuracy at 0, in two lines: quick enough for thousands of rounds."""
    called = scores >= 0
    return (called[labels == 1].mean() + 1 - called[labels == 0].mean()) / 2


def ahead(labels, one, other):
    return hits(labels, one) - hits(labels, other)


def test_intervals_by_patient_hold_what_they_promise_and_those_by_slice_do_not():
    # Slices share much with their patient, every fourth of whom is positive: of all such patients
    # the balanced accuracy is Phi(shift / sqrt(2)). Another model sees them half as clearly.
    truth = stats.norm.cdf([1 / math.sqrt(2), 0.5 / math.sqrt(2.25)])
    inside, narrower, random = np.zeros(3), 0, np.random.default_rng(5)
    patients = np.repeat(np.arange(120), 10)
    labels = (patients % 4 == 0).astype(int)
    for seed in range(120):
        scores = random.normal(size=120)[patients] + random.normal(size=1200) + 2 * labels - 1
        other = scores - (labels - 0.5) + random.normal(scale=0.5, size=1200)
        drawn = partial(evaluation.bootstrap, rounds=150, seed=seed)
        slices = drawn(hits, labels, scores)
        one, two = (drawn(hits, labels, s, groups=patients) for s in (scores, other))
        lead = drawn(ahead, labels, scores, other, groups=patients)
        assert lead.value == pytest.approx(one.value - two.value)
        held = ((one, truth[0]), (slices, truth[0]), (lead, truth[0] - truth[1]))
        inside += [found.low <= value <= found.high for found, value in held]
        narrower += lead.high - lead.low < math.hypot(one.high - one.low, two.high - two.low)
    by_patient, by_slice, of_lead = inside / 120
    assert 0.89 <= by_patient <= 0.99 and 0.89 <= of_lead <= 0.99
    assert by_slice < 0.75 and narrower > 110


def test_each_round_takes_whole_patients_as_often_as_they_were_drawn():
    patients, seen = np.array(["c", "a", "b", "a", "c", "c"]), []
    evaluation.bootstrap(lambda rows: seen.append(rows) or 0.0, np.arange(6), groups=patients)
    assert len(seen) == 1001 and len({tuple(rows) for rows in seen}) > 9
    for times in (np.bincount(rows, minlength=6) for rows in seen):
        assert times[0] == times[4] == times[5] and times[1] == times[3]
        assert times[0] + times[1] + times[2] == 3
    # The ends are percentiles of the means: by the normal law 1.96 standard errors away.
    values = np.random.default_rng(0).normal(size=400)
    found, again, other = (evaluation.bootstrap(np.mean, values, seed=n) for n in (1, 1, 2))
    assert found == again != other and str(found) == "-0.04 (-0.14 to 0.06)"
    half = 1.96 * values.std() / 20
    assert (values.mean() - found.low, found.high - found.value) == pytest.approx((half,) * 2, 0.1)


def test_rounds_without_a_value_are_drawn_again_and_others_are_not():
    for ones in (1, 3):
        labels, shares = np.repeat([0, 1], [4 - ones, ones]), []
        evaluation.bootstrap(lambda y, _, s=shares: s.append(y.mean()) or s[-1], labels, labels)
        assert len(shares) == 1001 and 0 < min(shares) < max(shares) < 1
    known = evaluation.bootstrap(lambda some: some[0] if some[0] == 1 else math.nan, [1, 2, 2])
    assert known == evaluation.Interval(1, 1, 1)
    # Values of 0 and 1 are no labels: a draw of ones alone counts.
    assert evaluation.bootstrap(np.mean, [0, 1, 1]).high == 1


def test_probabilities_move_as_bayes_says():
    scores = np.linspace(-4, 4, 41)
    likely, unlikely = stats.norm.pdf(scores, 1), stats.norm.pdf(scores, -1)
    after = {p: p * likely / (p * likely + (1 - p) * unlikely) for p in (0.05, 0.3, 0.5, 0.9)}
    for trained, before in after.items():
        for real, expected in after.items():
            found = evaluation.with_prevalence(before, trained, real)
            np.testing.assert_allclose(found, expected, rtol=1e-9)
    found = evaluation.with_prevalence(np.float32([[0.0, 0.2], [0.5, 1.0]]), 0.5, 0.1)
    np.testing.assert_allclose(found, [[0, 0.25 / 9.25], [0.1, 1]], rtol=1e-6)


@lawful
@given(scored(), st.integers(1, 12), st.sampled_from(["quantile", "uniform"]))
def test_reliability_is_the_calibration_curve_of_scikit_learn_with_wilson_s_ends(data, bins, how):
    labels, scores = data
    p = 1 / (1 + np.exp(-scores))
    found = evaluation.reliability(labels, p, bins=bins, strategy=how)
    curve = calibration_curve(labels, p, n_bins=bins, strategy=how)
    np.testing.assert_allclose([found.observed, found.predicted], curve)
    assert found.cases.sum() == len(labels)
    # Wilson, written out: (p + z2/2n -+ z sqrt(p q/n + z2/4n2)) / (1 + z2/n).
    z2, n, share = stats.norm.ppf(0.975) ** 2, found.cases.to_numpy(), curve[0]
    middle, half = share + z2 / (2 * n), np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2)))
    np.testing.assert_allclose(found.low, (middle - half) / (1 + z2 / n), atol=1e-9)
    np.testing.assert_allclose(found.high, (middle + half) / (1 + z2 / n), atol=1e-9)


@lawful
@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 1000), st.sampled_from([255, 7]))
def test_iou_and_dice_are_scikit_learn_s_over_the_pixels_that_count(classes, count, seed, ignore):
    random, confusion = np.random.default_rng(seed), partial(evaluation.confusion, ignore=ignore)
    truth, predicted = random.integers(0, classes, (2, count, 3, 4)).astype(np.uint8)
    ignored = random.uniform(size=truth.shape) < 0.2
    truth[ignored], predicted[ignored] = ignore, random.integers(0, 255)  # whatever
    each = [confusion(*pair, classes) for pair in zip(truth, predicted, strict=True)]
    matrices = np.stack(each)
    np.testing.assert_array_equal(matrices.sum(0), confusion(truth, predicted, classes))
    one, other = truth[~ignored], predicted[~ignored]
    occurs = np.union1d(one, other)
    theirs = {evaluation.iou: metrics.jaccard_score, evaluation.dice: metrics.f1_score}
    for ours, score in theirs.items():
        np.testing.assert_array_equal(ours(matrices), [ours(matrix) for matrix in each])
        found = ours(matrices.sum(0))  # NaN for what is in neither
        np.testing.assert_array_equal(np.flatnonzero(~np.isnan(found)), occurs)
        expected = score(one, other, labels=occurs, average=None) if len(occurs) else []
        np.testing.assert_allclose(found[occurs], expected)


GOOD, FINE = [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4]
few = partial(evaluation.bootstrap, rounds=9)
REFUSED = [  # what refuses, arguments, words
    *((evaluation.checked, pair, words) for *pair, words in (
        ([], [], "EMPTY_LIST"), ([0, -1, 1, 2], FINE, "-1.0, 2.0"), (["no", "yes"], [0, 1], "'no'"),
        ([[0, 1], [1, 0]], [[0, 1], [1, 0]], "shape"), (GOOD, [[s] for s in FINE], "shape"),
        ([0] * 4, FINE, "EMPTY_CLASS"), (GOOD, [0.1, math.nan, math.inf, 0.4], "2 of 4 cases"))),
    *((function, ([0, 1, 2], FINE[:3]), "UNKNOWN_LABEL") for function in (
        partial(evaluation.threshold_at, specificity=0.9), evaluation.reliability,
        partial(evaluation.operating_point, threshold=0.5), partial(few, hits),
        partial(evaluation.by_patient, "abc"))),
    (few, (ahead, GOOD, FINE, [math.nan] * 4), "4 of 4 cases"),
    (partial(few, groups="aaaa"), (hits, GOOD, FINE), "1 groups"),
    (few, (lambda some: math.nan, FINE), "0 draws"),
    (few, (lambda some: 1 if len({*some}) == 12 else math.nan, range(12)), "draws with a value"),
    (partial(evaluation.threshold_at, specificity=90), (GOOD, FINE), "a share, 0 to 1, not 90"),
    (evaluation.reliability, (GOOD, [0.1, 0.2, 0.5, -3]), "sigmoid"),
    (evaluation.patients, (["a1-7", "Jane Doe"],), "two hashes"),
    *((evaluation.grouped, (who,), "without a name") for who in (["a", ""], [1.0, math.nan])),
    *((evaluation.with_prevalence, one, "above 0 and below 1") for one in (
        (0.5, 0, 0.1), (0.5, 0.5, 1), (1.5, 0.5, 0.1), (math.nan, 0.5, 0.1))),
    *((evaluation.confusion, (*masks, 2), words) for *masks, words in (
        (np.zeros((2, 3, 1), int), np.zeros((2, 3), int), "MASK_MISMATCH"),
        ([0, 7], [0, 1], "ids 7;"), ([0, 1], [0, 255], "ids 255"), ([0, 1], [0.2, 0.8], "0.2, 0.8"),
        ([*range(9)], [0] * 9, "2, 3, 4, 5, 6 and 2 more"))),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "words"), REFUSED)
def test_what_makes_no_sense_is_refused_with_what_was_found(function, arguments, words):
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        function(*arguments)


def test_importing_it_loads_neither_tensorflow_nor_scikit_learn_nor_scipy():
    heavy = "{'tensorflow', 'keras', 'sklearn', 'scipy'}"
    code = f"import sys, helpers.evaluation, helpers.leaks; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
