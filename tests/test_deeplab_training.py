"""Loss, learning rate and measures of DeepLab: 255 takes no part in anything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as scores

keras = pytest.importorskip("keras")

from helpers import deeplab, evaluation  # noqa: E402
from helpers.errors import CourseDataError  # noqa: E402

quick = settings(max_examples=30, deadline=None, derandomize=True)


def masks(shape, classes: int, seed: int = 0, ignored: float = 0.2):
    """Truth with ignored pixels, prediction, and logits whose largest is the prediction."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, shape).astype(np.uint8)
    truth[random.uniform(size=shape) < ignored] = 255
    logits = random.normal(size=(*shape, classes)).astype(np.float32)
    return truth, logits.argmax(-1), logits


def cross_entropy(truth, logits, weights=1.0) -> float:
    """By hand, in float64."""
    logits = np.float64(logits)
    chosen = np.where(truth == 255, 0, truth).astype(int)[..., None]
    each = np.logaddexp.reduce(logits, -1) - np.take_along_axis(logits, chosen, -1)[..., 0]
    counts = truth != 255
    return float((each * weights * counts).sum() / counts.sum())


def test_the_loss_is_the_mean_over_pixels_that_count():
    truth, _, logits = masks((3, 4, 5), 4)
    truth[0] = 255  # one image has none
    truth[1, :2] = 255  # images do not count alike: pixels do
    expected = cross_entropy(truth, logits)
    for mask in (truth, truth[..., None], truth[..., None].astype(np.int32)):
        assert float(deeplab.loss()(mask, logits)) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_a_pixel_that_counts_costs_nothing(tf):
    logits = tf.Variable(masks((2, 3, 3), 2)[2])
    with tf.GradientTape() as tape:
        value = deeplab.loss()(np.full((2, 3, 3, 1), 255, np.uint8), logits)
    assert float(value) == 0
    assert not tape.gradient(value, logits).numpy().any()


def test_an_ignored_pixel_changes_no_gradient(tf):
    truth, _, values = masks((1, 6, 6), 3)
    gradients = []
    for shift in (0, 50):
        logits = tf.Variable(values + shift * (truth == 255)[..., None] * np.float32([1, 0, -1]))
        with tf.GradientTape() as tape:
            value = deeplab.loss()(truth, logits)
        gradients.append(tape.gradient(value, logits).numpy())
    assert np.array_equal(*gradients)
    assert not gradients[0][truth == 255].any() and gradients[0].any()


def test_each_pixel_may_have_a_weight_of_its_own():
    truth, _, logits = masks((2, 4, 5), 3)
    weights = np.random.default_rng(1).uniform(0, 3, truth.shape).astype(np.float32)
    expected = cross_entropy(truth, logits, weights)
    for given_as in (weights, weights[..., None]):
        found = deeplab.loss()(truth[..., None], logits, sample_weight=given_as)
        assert float(found) == pytest.approx(expected, rel=1e-5)
    of_case = np.float32([1, 3]).reshape(2, 1, 1)
    found = deeplab.loss()(truth[..., None], logits, sample_weight=of_case)
    assert float(found) == pytest.approx(cross_entropy(truth, logits, of_case), rel=1e-5)


def test_another_id_may_be_ignored():
    truth, _, logits = masks((1, 4, 4), 3)
    zero = np.where(truth == 255, 7, truth)
    assert float(deeplab.loss(7)(zero, logits)) == float(deeplab.loss()(truth, logits))


@pytest.mark.parametrize("step", [0, 1, 50, 99, 100, 500])
def test_the_poly_rate_follows_the_paper_s_law_and_stays_at_its_end(step):
    law = 0.02 * (1 - min(step, 100) / 100) ** 0.9
    assert float(deeplab.poly_decay(0.02, 100)(step)) == pytest.approx(law, abs=1e-8)
    ending = deeplab.poly_decay(0.02, 100, power=2, end=0.01)
    found = float(type(ending).from_config(ending.get_config())(step))
    assert found == pytest.approx(0.01 + 0.01 * (1 - min(step, 100) / 100) ** 2, abs=1e-8)


@pytest.mark.parametrize(
    "wrong", [{"base": 0}, {"steps": 0}, {"steps": 1.5}, {"power": 0}, {"end": 1}, {"end": -1}]
)
def test_rates_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected base > 0|steps is a whole number"):
        deeplab.poly_decay(**{"base": 0.1, "steps": 10} | wrong)


# Measures


@quick
@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 1000))
def test_iou_and_dice_are_scikit_learn_s_over_the_pixels_that_count(classes, pixels, seed):
    truth, predicted, _ = masks((pixels,), classes, seed)
    counts = truth != 255
    truth_counts, predicted_counts = truth[counts], predicted[counts]
    occurs = [c for c in range(classes) if c in truth_counts or c in predicted_counts]
    for ours, theirs in ((deeplab.iou, scores.jaccard_score), (deeplab.dice, scores.f1_score)):
        found = ours(deeplab.confusion(truth, predicted, classes))
        assert np.flatnonzero(~np.isnan(found)).tolist() == occurs
        if occurs:
            expected = theirs(truth_counts, predicted_counts, labels=occurs, average=None)
            np.testing.assert_allclose(found[occurs], expected)


@quick
@given(st.integers(1, 5), st.integers(0, 1000))
def test_cases_are_measured_one_by_one_and_their_counts_add_up(cases, seed):
    truth, predicted, _ = masks((cases, 3, 4), 3, seed)
    matrices = deeplab.confusion(truth, predicted, 3, per_case=True)
    each = [deeplab.confusion(*pair, 3) for pair in zip(truth, predicted, strict=True)]
    np.testing.assert_array_equal(matrices, each)
    np.testing.assert_array_equal(matrices.sum(0), deeplab.confusion(truth, predicted, 3))
    for measure in (deeplab.iou, deeplab.dice):
        np.testing.assert_array_equal(measure(matrices), [measure(one) for one in each])


def test_a_case_worked_out_by_hand():
    truth = np.array([0, 0, 1, 1, 255, 255])
    predicted = np.array([0, 1, 1, 1, 1, 2])
    matrix = deeplab.confusion(truth, predicted, 4)
    assert matrix[:2, :2].tolist() == [[1, 1], [0, 2]]
    np.testing.assert_allclose(deeplab.iou(matrix), [1 / 2, 2 / 3, np.nan, np.nan])
    np.testing.assert_allclose(deeplab.dice(matrix), [2 / 3, 4 / 5, np.nan, np.nan])
    # Where 255 is foreground by mistake, a class is found that nobody outlined.
    assert deeplab.dice(deeplab.confusion(np.array([0]), np.array([2]), 3))[2] == 0


@pytest.mark.parametrize(
    ("truth", "predicted", "error", "says"),
    [
        (np.zeros((2, 3, 1), int), np.zeros((2, 3), int), "MASK_MISMATCH", "mask\\[..., 0\\]"),
        (np.zeros((2, 3), int), np.zeros((2, 3, 4)), "MASK_MISMATCH", "argmax"),
        (np.zeros((2, 3, 1), int), np.zeros((2, 3, 4)), "MASK_MISMATCH", "argmax"),
        (np.zeros((2, 3), int), np.zeros((2, 3, 1), int), "MASK_MISMATCH", r"predicted\[..., 0\]"),
        (np.zeros((3, 2), int), np.zeros((3, 3), int), "MASK_MISMATCH", "in both;"),
        (np.zeros((2, 3), int), np.zeros((3, 3), int), "MASK_MISMATCH", "in both;"),
        (np.array([0, 7]), np.array([0, 1]), "UNKNOWN_LABEL", "ids 7; expected 0 to 1, or 255 to"),
        (np.arange(9), np.zeros(9, int), "UNKNOWN_LABEL", "ids 2, 3, 4, 5, 6 and 2 more;"),
        (np.array([0.5, 1]), np.array([0, 1]), "UNKNOWN_LABEL", r"float64.*astype\(np.uint8\)"),
        (np.float32([255, 255]), np.array([0, 1]), "UNKNOWN_LABEL", "the type float32"),
        (np.array([0, 1]), np.array([0, 255]), None, "from 0 to 1, not 255"),
        (np.array([0, 1]), np.array([0.2, 0.8]), None, r"float64.*argmax\(-1\), or a threshold"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(truth, predicted, error, says):
    with pytest.raises(ValueError, match=says) as caught:
        deeplab.confusion(truth, predicted, 2)
    assert getattr(caught.value, "code", None) == error
    assert isinstance(caught.value, CourseDataError) == (error is not None)


def test_without_an_ignored_id_none_is_offered():
    with pytest.raises(CourseDataError, match=r"ids 255; expected 0 to 1;"):
        deeplab.confusion(np.array([0, 255]), np.array([0, 1]), 2, ignore=None)


@pytest.mark.parametrize("metric", ["iou", "dice"])
def test_keras_metrics_over_batches_are_the_numpy_ones_over_all(metric):
    truth, predicted, logits = masks((4, 5, 6), 4)
    truth[truth == 3] = 255
    logits[..., 3] = -9  # class 3 occurs nowhere: it has no part in the mean
    predicted = logits.argmax(-1)
    ours = {"iou": deeplab.mean_iou, "dice": deeplab.mean_dice}[metric](4)
    for rows in (slice(0, 1), slice(1, 4)):
        ours.update_state(truth[rows, ..., None], logits[rows])
    matrix = deeplab.confusion(truth, predicted, 4)
    expected = {"iou": deeplab.iou, "dice": deeplab.dice}[metric](matrix)
    assert np.isnan(expected[3])
    assert float(ours.result()) == pytest.approx(np.nanmean(expected), rel=1e-6)
    ours.reset_state()
    assert float(ours.result()) == 0


def test_the_background_can_be_left_out_of_the_mean_dice():
    truth, predicted, logits = masks((2, 5, 6), 3)
    metric = deeplab.mean_dice(3, class_ids=[1, 2])
    metric = type(metric).from_config(metric.get_config())
    metric.update_state(truth, logits)
    expected = deeplab.dice(deeplab.confusion(truth, predicted, 3))[1:].mean()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
    assert deeplab.mean_dice(3, class_ids=iter(np.array([1, 2]))).get_config()["class_ids"] == [
        1,
        2,
    ]
    for wrong, says in (
        ([], "some of 0 to 2"),
        ([3], "some of 0 to 2"),
        ([1, 1, 2], "each of them once"),
        ([-1], "whole number from 0"),
        ([1.0], "whole number from 0"),
        (1, "a list such as"),
    ):
        with pytest.raises(ValueError, match=says):
            deeplab.mean_dice(3, class_ids=wrong)


def test_an_ignored_id_among_the_classes_is_refused():
    for call in (deeplab.mean_iou, deeplab.mean_dice):
        with pytest.raises(ValueError, match="ignored id 2 is one of the classes"):
            call(3, ignore=2)


def test_the_miou_of_a_set_has_an_interval_over_its_cases():
    truth, predicted, _ = masks((12, 4, 4), 2)
    matrices = deeplab.confusion(truth, predicted, 2, per_case=True)

    def miou(some):
        return np.nanmean(deeplab.iou(some.sum(axis=0)))

    found = evaluation.bootstrap_cases(matrices, miou)
    assert found.value == miou(deeplab.confusion(truth, predicted, 2)[np.newaxis])
    assert found.low < found.value < found.high


def test_the_first_id_that_is_no_class_is_refused_in_both():
    with pytest.raises(CourseDataError, match="ids 2"):
        deeplab.confusion(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="from 0 to 1, not 2"):
        deeplab.confusion(np.array([0, 1]), np.array([0, 2]), 2)


def test_what_is_predicted_where_nothing_counts_may_be_anything():
    matrix = deeplab.confusion(np.array([0, 1, 255]), np.array([0, 1, 255]), 2)
    assert matrix.tolist() == [[1, 0], [0, 1]]


def test_probabilities_are_refused_even_where_no_pixel_counts():
    with pytest.raises(ValueError, match="class ids are whole numbers"):
        deeplab.confusion(np.array([255, 255]), np.array([0.2, 0.8]), 2)


def test_one_pixel_has_no_axis_of_cases():
    with pytest.raises(ValueError, match="per_case needs a first axis"):
        deeplab.confusion(np.array(1), np.array(1), 2, per_case=True)
