"""Right and wrong answers to the exercises of notebook 05, for `test_checks.py`."""

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.metrics import roc_curve
from sklearn.model_selection import (
    GroupShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from helpers import evaluation

# --- splits ---


def has_positive(patients, labels):
    names, person = np.unique(patients, return_inverse=True)
    return names, np.bincount(person, labels) > 0


def by_hand(count=round, share_of=lambda share: share, seed_of=lambda seed: seed):
    """Shuffle the patients of each class, and take the first of them."""

    def answer(patients, labels, share, seed):
        rng = np.random.default_rng(seed_of(seed))
        names, positive = has_positive(patients, labels)
        test = []
        for group in (names[positive], names[~positive]):
            shuffled = rng.permutation(group)
            test.extend(shuffled[: count(share_of(share) * len(group))])
        return np.isin(patients, test)

    return answer


def of_patients(stratified=True, side=1, after=np.isin):
    """`train_test_split` over the patients; what is made of one side of it is up to `after`."""

    def answer(patients, labels, share, seed):
        names, positive = has_positive(patients, labels)
        stratify = positive if stratified else None
        sides = train_test_split(names, test_size=share, random_state=seed, stratify=stratify)
        return after(patients, sides[side])

    return answer


def with_pandas(patients, labels, share, seed):
    positive = pd.Series(labels).groupby(patients).max()
    chosen = positive.groupby(positive).sample(frac=share, random_state=seed).index
    return pd.Series(patients).isin(chosen)


def with_global_seed(patients, labels, share, seed):
    np.random.seed(seed)
    names, positive = has_positive(patients, labels)
    test = set()
    for group in (names[positive], names[~positive]):
        test |= set(np.random.permutation(group)[: round(share * len(group))])
    return [patient in test for patient in patients]


def mask_of(places, n):
    return np.isin(np.arange(n), places)


def nearest_group_fold(patients, labels, share, seed):
    """Of the folds the one with the nearest number of patients: a fold counts slices."""
    folds = StratifiedGroupKFold(round(1 / share), shuffle=True, random_state=seed)
    people = len(np.unique(patients))
    order = np.argsort(patients, kind="stable")
    ordered = patients[order]
    tests = [test for _, test in folds.split(ordered, labels[order], ordered)]
    sizes = [abs(len(np.unique(ordered[test])) - share * people) for test in tests]
    return np.isin(patients, ordered[tests[int(np.argmin(sizes))]])


def first_group_fold(patients, labels, share, seed):
    folds = StratifiedGroupKFold(round(1 / share), shuffle=True, random_state=seed)
    return mask_of(next(folds.split(patients, labels, patients))[1], len(patients))


def fold_of_patients(patients, labels, share, seed):
    names, positive = has_positive(patients, labels)
    folds = StratifiedKFold(round(1 / share), shuffle=True, random_state=seed)
    return np.isin(patients, names[next(folds.split(names, positive))[1]])


def groups_until_both(patients, labels, share, seed):
    """Draws again until both sides have both classes."""
    draws = GroupShuffleSplit(1000, test_size=share, random_state=seed)
    for train, test in draws.split(patients, labels, patients):
        if all(len(set(labels[side])) == 2 for side in (train, test)):
            return mask_of(test, len(patients))
    raise AssertionError("a thousand draws without a positive on both sides")


def groups_once(patients, labels, share, seed):
    draws = GroupShuffleSplit(1, test_size=share, random_state=seed)
    return mask_of(next(draws.split(patients, labels, patients))[1], len(patients))


def of_slices(stratified):
    def answer(patients, labels, share, seed):
        everything = np.arange(len(patients))
        stratify = labels if stratified else None
        sides = train_test_split(everything, test_size=share, random_state=seed, stratify=stratify)
        return mask_of(sides[1], len(patients))

    return answer


def every_nth(patients, labels, share, seed):
    return np.arange(len(patients)) % round(1 / share) == 0


def share_of_slices(patients, labels, share, seed):
    """Patients of each class until there are enough slices."""
    rng = np.random.default_rng(seed)
    names, positive = has_positive(patients, labels)
    test = []
    for group in (names[positive], names[~positive]):
        wanted, taken = share * np.isin(patients, group).sum(), 0
        for name in rng.permutation(group):
            if taken >= wanted:
                break
            test.append(name)
            taken += (patients == name).sum()
    return np.isin(patients, test)


def in_order_of(names_of):
    """By hand, but with the names in the order of a dict or of a set."""

    def answer(patients, labels, share, seed):
        rng = np.random.default_rng(seed)
        positive = set(patients[labels == 1])
        test = []
        for wanted in (True, False):
            group = [one for one in names_of(patients) if (one in positive) == wanted]
            rng.shuffle(group)
            test.extend(group[: round(share * len(group))])
        return np.isin(patients, test)

    return answer


def scrambling(patients, labels, share, seed):
    np.random.default_rng(seed).shuffle(patients)
    return by_hand()(patients, labels, share, seed)


# --- weights ---


def counted(rule, absent=0.0):
    """Weights by a rule of (counts of the classes that have cases, N, K, number of classes)."""

    def answer(labels, classes):
        counts = np.bincount(labels, minlength=classes)
        there = counts > 0
        weights = np.full(classes, absent)
        weights[there] = rule(counts[there], len(labels), there.sum(), classes)
        return weights

    return answer


def balanced(counts, total, known, classes):
    return total / (known * counts)


def with_where(labels, classes):
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts, len(labels) / (np.count_nonzero(counts) * counts), 0.0)


def with_sklearn(labels, classes):
    there = np.unique(labels)
    weights = np.zeros(classes)
    weights[there] = compute_class_weight("balanced", classes=there, y=labels)
    return weights


def in_plain_python(labels, classes):
    counts = [sum(int(label) == one for label in labels) for one in range(classes)]
    known = sum(count > 0 for count in counts)
    return [len(labels) / (known * count) if count else 0 for count in counts]


def scaled(by):
    return lambda *given: balanced(*given) / by(balanced(*given))


# --- thresholds ---


def count_cases(labels, scores, specificity):
    negatives = scores[labels == 0]
    fits = [t for t in np.append(scores, np.inf) if (negatives < t).mean() >= specificity - 1e-9]
    return min(fits)


def just_above(labels, scores, specificity):
    negatives = np.sort(scores[labels == 0])
    needed = int(np.ceil(specificity * len(negatives)))
    return np.nextafter(negatives[needed - 1], 1)


def with_roc(drop, allow=1e-9):
    def answer(labels, scores, specificity):
        alarms, _, thresholds = roc_curve(labels, scores, drop_intermediate=drop)
        return thresholds[1 - alarms >= specificity - allow].min()

    return answer


def quantile(of, share=lambda specificity: specificity, method="linear"):
    def answer(labels, scores, specificity):
        return np.quantile(of(labels, scores), share(specificity), method=method)

    return answer


def negatives_of(labels, scores):
    return scores[labels == 0]


def positives_of(labels, scores):
    return scores[labels == 1]


def all_of(labels, scores):
    return scores


def among(of, at_end=()):
    """The lowest threshold that fits, out of some of the scores."""

    def answer(labels, scores, specificity):
        negatives = scores[labels == 0]
        candidates = np.append(of(labels, scores), at_end)
        return min(t for t in candidates if (negatives < t).mean() >= specificity - 1e-9)

    return answer


def for_sensitivity(labels, scores, specificity):
    positives = scores[labels == 1]
    return max(t for t in scores if (positives >= t).mean() >= specificity)


# --- probabilities ---


def by_odds(probability, trained, real):
    odds = probability / (1 - probability)
    odds = odds * real / (1 - real) * (1 - trained) / trained
    return odds / (1 + odds)


def by_logits(probability, trained, real):
    return expit(logit(probability) + logit(real) - logit(trained))


def by_sides(probability, trained, real):
    positive = probability * real / trained
    return positive / (positive + (1 - probability) * (1 - real) / (1 - trained))


RIGHT = {
    "patient_split": [
        by_hand(),
        by_hand(count=int),
        of_patients(),
        with_pandas,
        with_global_seed,
        fold_of_patients,
        nearest_group_fold,
        groups_until_both,
    ],
    "class_weights": [
        counted(balanced),
        with_where,
        with_sklearn,
        in_plain_python,
        lambda labels, classes: counted(balanced)(labels, classes).astype(np.float32),
    ],
    "threshold": [
        count_cases,
        just_above,
        with_roc(drop=False),
        lambda labels, scores, share: evaluation.threshold_at(labels, scores, specificity=share),
    ],
    "corrected": [
        by_odds,
        by_logits,
        by_sides,
        lambda p, trained, real: [by_odds(float(one), trained, real) for one in p],
        evaluation.with_prevalence,
    ],
}

WRONG = {
    "patient_split": [
        (of_slices(stratified=False), "patients have slices on both sides"),
        (of_slices(stratified=True), "the classes are in proportion, but that does not keep"),
        (every_nth, "you take one slice in 4"),
        (of_patients(stratified=False), "set has no positive slice"),
        (groups_once, "set has no positive slice"),
        (of_patients(side=0), "is this the training set?"),
        (lambda *given: ~by_hand()(*given), "is this the training set?"),
        (by_hand(share_of=lambda share: share / 2), "are in the test set, asked for is"),
        (lambda patients, *_: patients == "", "0 of "),
        (share_of_slices, "one patient has"),
        (first_group_fold, "one patient has"),
        (by_hand(seed_of=lambda _: None), "the same seed gives another split"),
        (by_hand(seed_of=lambda _: 0), "all give the same split"),
        (in_order_of(dict.fromkeys), "the same slices in another order"),
        (in_order_of(set), "the same slices in another order"),
        (scrambling, "changes the array"),
        (of_patients(after=lambda patients, test: test), "these are names"),
        (of_patients(after=lambda patients, test: set(test)), "these are names"),
        (of_patients(after=lambda patients, test: np.isin(np.unique(patients), test)), "look up"),
        (
            of_patients(after=lambda patients, test: np.flatnonzero(np.isin(patients, test))),
            "as indices have it",
        ),
        (
            of_patients(after=lambda patients, test: np.isin(patients, test).astype(int)),
            "would take slices 0 and 1",
        ),
        (of_patients(after=lambda patients, test: (patients, test)), "a tuple of 2"),
        (lambda *_: 7, "you returned 7"),
    ],
    "class_weights": [
        (counted(lambda n, *_: 1 / n), "that is 1 / n; a case weighs"),
        (counted(lambda n, total, *_: total / n), "that is N / n"),
        (counted(lambda *given: np.sqrt(balanced(*given))), "the square root"),
        (counted(scaled(np.sum)), "scaled to sum 1"),
        (counted(lambda n, *_: 1 / n / (1 / n).sum()), "scaled to sum 1"),
        (counted(scaled(np.mean)), "scaled to sum K"),
        (counted(scaled(np.max)), "in the right proportions, but a case weighs"),
        (counted(lambda n, *_: n.max() / n), "the largest n / n"),
        (counted(lambda n, total, *_: 1 - n / total), "1 - n / N"),
        (counted(lambda n, total, *_: n / total), "the rare classes should weigh most"),
        (counted(lambda n, total, known, classes: total / (classes * n)), "N / (K n) with K = "),
        (counted(lambda n, *_: 1 / np.log(1.2 + n)), "; N / (K n) is"),
        (counted(balanced, absent=1.0), "has no case and the weight 1"),
        (
            lambda labels, classes: (
                len(labels) / (len(np.unique(labels)) * np.bincount(labels, minlength=classes))
            ),
            "NaN or infinite values: class 3 of 4 has no case, its weight is 0.0",
        ),
        (
            lambda labels, classes: [
                len(labels) / (len(set(labels)) * list(labels).count(one)) for one in range(classes)
            ],
            "ZeroDivisionError: division by zero: class 3 of 4 has no case",
        ),
        (
            lambda labels, classes: len(labels) / (len(set(labels)) * np.bincount(labels)),
            "has shape (3,), the check asks for (4,): class 3 of 4 has no case",
        ),
        (
            lambda labels, classes: compute_class_weight(
                "balanced", classes=np.arange(classes), y=labels
            ),
            "class 3 of 4 has no case",
        ),
        (
            lambda labels, classes: compute_sample_weight("balanced", labels),
            "one for each class, not for each case",
        ),
        (
            lambda labels, classes: dict(enumerate(counted(balanced)(labels, classes))),
            "a dict is what fit(class_weight=) takes",
        ),
    ],
    "threshold": [
        (quantile(all_of), "a quantile of all scores"),
        (quantile(positives_of), "a quantile of the positives"),
        (quantile(positives_of, lambda share: 1 - share), "a quantile of the positives"),
        (quantile(negatives_of, lambda share: 1 - share), "of the negatives through"),
        (quantile(negatives_of), "interpolated between two cases"),
        (quantile(negatives_of, method="inverted_cdf"), "counts as positive (>=, not >)"),
        (among(negatives_of, np.inf), "higher than need be"),
        (with_roc(drop=True), "drop_intermediate=False"),
        (among(all_of), "no score will do: return np.inf"),
        (lambda labels, scores, share: scores.max(), "higher than need be"),
        (lambda labels, scores, share: np.inf, "higher than need be"),
        (lambda labels, scores, share: share, "a share of cases, not a score"),
        (lambda labels, scores, share: 0.5, "negatives stay"),
        (for_sensitivity, "positives, which is sensitivity"),
        (lambda labels, scores, share: scores >= 0.5, "one threshold is asked for"),
        (lambda labels, scores, share: np.nan, "one threshold is asked for"),
        (lambda labels, scores, share: "0.5 or so", "a number is asked for"),
    ],
    "corrected": [
        (lambda p, trained, real: p, "p as it came"),
        (lambda p, trained, real: p * real / trained, "that is p x real / trained; 1 - p changes"),
        (lambda p, trained, real: np.clip(p * real / trained, 0, 1), "that is p x real / trained"),
        (lambda p, trained, real: p + real - trained, "rescaled, not shifted"),
        (lambda p, trained, real: np.clip(p + real - trained, 0, 1), "clipping hides"),
        (
            lambda p, trained, real: p * real / trained / (p * real / trained + 1 - p),
            "on the positive side alone",
        ),
        (lambda p, trained, real: by_odds(p, real, trained), "are the two shares swapped?"),
        (lambda p, trained, real: p * real / p.mean(), "looks at each case by itself"),
        (
            lambda p, trained, real: p / (1 - p) * real / (1 - real) * (1 - trained) / trained,
            "a probability is odds / (1 + odds)",
        ),
        (lambda p, trained, real: logit(by_odds(p, trained, real)), "that is no probability"),
        (lambda p, trained, real: 100 * by_odds(p, trained, real), "that is no probability"),
        (lambda p, trained, real: expit(logit(p) + real - trained), "; Bayes' rule gives"),
        (lambda p, trained, real: by_odds(p, 0.5, real), "; Bayes' rule gives"),
        (lambda p, trained, real: by_odds(p, trained, real).mean(), "has shape"),
    ],
}
