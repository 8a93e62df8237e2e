"""Checks of notebook 05: patients, weights, and what is done with a model's scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from helpers.lesson.checks.answers import Check, Wrong, ask, check

# --- a split by patient ---

TRIALS = 20
TOLERANCE = 0.1  # of all patients, by which a test set may be larger or smaller than asked for


def slices_of_patients(rng: np.random.Generator, n: int) -> tuple:
    """Slices of few positive patients; in every third set one patient has 60 % of the slices."""
    share, people = (0.25, 0.3, 0.2)[n % 3], int(rng.integers(36, 61))
    # So few that a draw which does not look at the labels often leaves a side without any, and
    # enough for the rounding of a stratified one.
    positive = math.ceil(1 / share) + 1
    counts = rng.integers(4, 10, people)
    if n % 3 == 2:
        counts[-1] = 1.5 * counts[:-1].sum()
    person = np.repeat(np.arange(people), counts)
    number = np.concatenate([np.arange(count) for count in counts])
    labels = ((person < positive) & (number <= person % 3)).astype(int)
    patients = np.array([f"P{k}" for k in rng.permutation(people) + 1])[person]
    order = rng.permutation(len(person)) if n % 2 else np.argsort(patients, kind="stable")
    return patients[order], labels[order], share


def drawn(of: Callable = np.unique, kept: bool = True, part: float = 1, seeded: bool = True):
    """Shuffles the patients of each class (or all, not `kept`), and takes the first of them."""

    def answer(patients, labels, share, seed):
        rng = np.random.default_rng(seed if seeded else 0)
        positive = np.isin(of(patients), patients[labels == 1])
        groups = [of(patients)[positive], of(patients)[~positive]] if kept else [of(patients)]
        test = [rng.permutation(one)[: round(part * share * len(one))] for one in groups]
        return np.isin(patients, np.concatenate(test))

    return answer


def in_order_of_appearance(patients: np.ndarray) -> np.ndarray:
    return np.array(list(dict.fromkeys(patients.tolist())))


def of_slices(patients, labels, share, seed):
    return np.random.default_rng(seed).random(len(labels)) < share


def every_nth(patients, labels, share, seed):
    return np.arange(len(labels)) % round(1 / share) == 0


SPLITS = {
    "patients have slices on both sides": of_slices,
    "you take one slice in 4, and the next ones are of the same patient": every_nth,
    "set has no positive slice": drawn(kept=False),
    "is this the training set?": lambda *given: ~drawn()(*given),
    "are in the test set, asked for is a share of": drawn(part=0.5),
    "all give the same split: draw by the seed": drawn(seeded=False),
    "the same slices in another order give another split": drawn(in_order_of_appearance),
}


def judge_split(answer: Callable) -> str:
    """`answer(patients, labels, share, seed)` is bool `[n]`, True in the test set."""
    rng = np.random.default_rng(59)
    for n in range(TRIALS):
        patients, labels, share = slices_of_patients(rng, n)
        seeds = rng.choice(1000, 3, replace=False).tolist()
        splits = [side_of(answer, patients, labels, share, seed) for seed in seeds]
        for test in splits:
            judge_sides(test, patients, labels, share)
        if (side_of(answer, patients, labels, share, seeds[0]) != splits[0]).any():
            raise Wrong("the same seed gives another split the second time: give it to every draw")
        order = rng.permutation(len(patients))
        again = side_of(answer, patients[order], labels[order], share, seeds[0])
        if (again != splits[0][order]).any():
            raise Wrong(
                "the same slices in another order give another split, and folders are listed in "
                "another order elsewhere: begin with np.unique(patients), which sorts the names"
            )
        if all((test == splits[0]).all() for test in splits):
            raise Wrong(f"the seeds {seeds} all give the same split: draw by the seed")
    return (
        f"right on {TRIALS} sets that the check made up, with three seeds each: no patient on both "
        "sides, both classes on each, even where one patient has most of the slices"
    )


def side_of(answer: Callable, patients, labels, share: float, seed: int) -> np.ndarray:
    result = ask(answer, patients, labels, share, seed)
    asked = f"True or False is asked for, for each of the {len(patients)} slices"
    if isinstance(result, tuple) or not np.iterable(result):
        found = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"{result!r:.60}"
        raise Wrong(f"{asked}; you returned {found}")
    test = np.asarray(list(result))
    if test.dtype.kind in "US":
        raise Wrong(f"{asked}; these are names: np.isin(patients, ...) makes one of the other")
    if test.shape == np.unique(patients).shape and test.dtype == bool:
        raise Wrong(f"{asked}; you returned one for each patient: look up each slice's patient")
    if test.shape != patients.shape:
        hint = ", as indices have it" if test.dtype.kind in "iu" else ""
        raise Wrong(f"{asked}; your result has shape {test.shape}{hint}")
    if test.dtype != bool:
        why = "as an index 0 and 1 would take slices 0 and 1"
        raise Wrong(f"{asked}; yours are {test.dtype}: {why}")
    return test


def judge_sides(test: np.ndarray, patients, labels, share: float) -> None:
    names, person, slices = np.unique(patients, return_inverse=True, return_counts=True)
    people, inside = len(names), np.bincount(person, test)
    if torn := int(((inside > 0) & (inside < slices)).sum()):
        steps = np.unique(np.diff(np.flatnonzero(test)))
        how = ""
        if len(steps) == 1 and steps[0] > 1:
            how = f"; you take one slice in {steps[0]}, and the next ones are of the same patient"
        elif abs(test[labels == 1].sum() - share * labels.sum()) < 1:
            how = "; the classes are in proportion, but that does not keep patients together"
        raise Wrong(
            f"{torn} of {people} patients have slices on both sides{how}: draw patients, then look "
            "up the side of each slice"
        )
    count, slack = int((inside > 0).sum()), max(1, TOLERANCE * people)
    if abs(count - share * people) > slack:
        hint = ""
        if slices.max() > len(test) / 2:
            hint = (
                f"; one patient has {slices.max()} of the {len(test)} slices, so that a share of "
                "the slices is not one of the patients"
            )
        elif count < people and abs(people - count - share * people) <= slack:
            hint = ": is this the training set? True marks the test set"
        said = f"{count} of {people} patients are in the test set, asked for is a share of"
        raise Wrong(f"{said} {share:g}{hint}")
    for side, name in ((test, "test"), (~test, "training")):
        for label, kind in enumerate(("negative", "positive")):
            if not (labels[side] == label).any():
                having = len(np.unique(patients[labels == label]))
                raise Wrong(
                    f"the {name} set has no {kind} slice, which {having} of {people} patients "
                    "have: draw from these and from the others apart (stratify)"
                )


patient_split = Check(judge_split, drawn(), SPLITS)

# --- balanced weights ---


def classes_of_cases(rng: np.random.Generator) -> Iterator[tuple]:
    """Of three kinds: all classes have cases, one (first: the last) has none, one has one."""
    for n in range(TRIALS):
        classes = int(rng.integers(3, 6))
        counts = rng.integers(3, 300, classes) + 5 * np.arange(classes)
        odd = classes - 1 if n == 1 else int(rng.integers(classes))
        counts[odd] = (counts[odd], 0, 1)[n % 3]
        yield rng.permutation(np.repeat(np.arange(classes), counts)), classes


def weights(rule: Callable, absent: float = 0.0) -> Callable:
    """Weights by a rule of the counts of the classes that have cases, and of all."""

    def answer(labels: np.ndarray, classes: int) -> np.ndarray:
        counts = np.bincount(labels, minlength=classes)
        made = np.full(classes, absent)
        made[counts > 0] = rule(counts[counts > 0], classes)
        return made

    return answer


def balanced(n: np.ndarray, classes: int) -> np.ndarray:
    return n.sum() / (len(n) * n)


class_weights = check(
    weights(balanced),
    classes_of_cases,
    {
        "that is 1 / n: the learning rate would shrink with it": weights(lambda n, _: 1 / n),
        "that is N / n: divide by the number of classes, too": weights(lambda n, _: n.sum() / n),
        "that is the square root; asked for is N / (K n) itself": weights(
            lambda n, k: np.sqrt(balanced(n, k))
        ),
        "scaled to sum 1; a case should weigh 1 on average": weights(
            lambda n, k: balanced(n, k) / balanced(n, k).sum()
        ),
        "scaled to sum K; a case should weigh 1 on average": weights(
            lambda n, k: balanced(n, k) / balanced(n, k).mean()
        ),
        "in the right proportions, the largest 1; a case should weigh 1 on average": weights(
            lambda n, k: n.min() / n
        ),
        "that is the largest n / n; a case should weigh 1 on average": weights(
            lambda n, _: n.max() / n
        ),
        "that is 1 - n / N; twice as rare should weigh twice as much": weights(
            lambda n, _: 1 - n / n.sum()
        ),
        "that is n / N; the rare classes should weigh most": weights(lambda n, _: n / n.sum()),
        "a class that has no case has the weight 0.0": weights(balanced, absent=1.0),
        "K is the number of classes that have cases; the others take no part": weights(
            lambda n, k: n.sum() / (k * n)
        ),
        "the last classes may have no case; their weight is 0.0": lambda labels, classes: (
            len(labels) / (len({*labels}) * np.bincount(labels))
        ),
        "return one for each class, not for each case": lambda labels, classes: weights(balanced)(
            labels, classes
        )[labels],
        "a dict is what fit(class_weight=) takes": lambda labels, classes: dict(
            enumerate(weights(balanced)(labels, classes))
        ),
    },
    tell=lambda labels, classes: f"classes of {np.bincount(labels, minlength=classes)} cases",
)

# --- a threshold for a specificity ---


def scored(rng: np.random.Generator) -> Iterator[tuple]:
    """Labels, scores, specificity; some with ties, and in the last a negative scores highest."""
    for n in range(TRIALS):
        # Of 40 negatives, the shares are whole numbers, and no rounding moves them by a case.
        labels = rng.permutation(np.repeat([0, 1], [40, 12]))
        scores = np.where(labels, rng.beta(4, 3, 52), rng.beta(2, 5, 52))
        scores = scores.round(2) if n % 4 == 3 else scores
        scores[rng.choice(np.flatnonzero(labels == (n < 18)))] = 0.995
        yield labels, scores, 1.0 if n >= 18 else (0.8, 0.9, 0.95, 0.975)[n % 4]


def lowest(among: Callable = lambda labels, scores: np.append(scores, np.inf)) -> Callable:
    def answer(labels: np.ndarray, scores: np.ndarray, share: float) -> float:
        below = scores[labels == 0]
        fits = [t for t in among(labels, scores) if np.mean(below < t) >= share - 1e-9]
        return min(fits)

    return answer


def quantile(of: Callable, share: Callable = lambda share: share, method: str = "linear"):
    return lambda labels, scores, s: np.quantile(scores[of(labels)], share(s), method=method)


def highest_finding(labels: np.ndarray, scores: np.ndarray, share: float) -> float:
    return max(t for t in scores if np.mean(scores[labels == 1] >= t) >= share - 1e-9)


def of_roc_curve(labels: np.ndarray, scores: np.ndarray, share: float) -> float:
    from sklearn.metrics import roc_curve

    alarms, _, thresholds = roc_curve(labels, scores)
    return thresholds[1 - alarms >= share - 1e-9].min()


def called_positive(found, labels: np.ndarray, scores: np.ndarray, _: float) -> np.ndarray:
    """All thresholds between two neighbouring scores do the same."""
    if np.isnan(found):
        raise Wrong("one threshold is asked for, your result is nan")
    return scores >= np.float64(found)


def of_negatives(labels: np.ndarray) -> np.ndarray:
    return labels == 0


threshold = check(
    lowest(),
    scored,
    {
        "that is a quantile of all scores; specificity is about the negatives": quantile(
            lambda labels: labels > -1
        ),
        "that is a quantile of the positives; specificity is about the negatives": quantile(
            lambda labels: labels == 1
        ),
        "that is a low quantile of the positives; specificity is about the negatives": quantile(
            lambda labels: labels == 1, lambda share: 1 - share
        ),
        "a quantile is interpolated between two cases: count the cases": quantile(of_negatives),
        "you let the share of the negatives through that is to stay": quantile(
            of_negatives, lambda share: 1 - share
        ),
        "the negative that has this very score counts as positive (>=, not >)": quantile(
            of_negatives, method="inverted_cdf"
        ),
        "that is a share of cases, not a score": lambda labels, scores, share: share,
        "higher than need be: a positive's score may be the threshold, too": lowest(
            lambda labels, scores: np.append(scores[labels == 0], np.inf)
        ),
        "higher than need be: that is the highest score": lambda labels, scores, _: scores.max(),
        "higher than need be: nothing is called positive": lambda *_: np.inf,
        "higher than need be: roc_curve leaves thresholds out unless drop_intermediate=False": (
            of_roc_curve
        ),
        "that is a threshold for sensitivity: it counts the positives": highest_finding,
        "where a negative has the highest score, no score will do: return np.inf": lowest(
            lambda labels, scores: scores
        ),
    },
    read=called_positive,
    tell=lambda labels, scores, share: f"a specificity of {share:g}",
)

# --- back to the real world ---


def shares(rng: np.random.Generator) -> Iterator[tuple]:
    """Probabilities, 0 and 1 among them, and two shares of positives; the eighth are equal."""
    for n in range(TRIALS):
        p = np.append(rng.uniform(0.02, 0.98, 7), [1e-6, 1 - 1e-6, 0, 1])
        trained, real = np.round(rng.uniform(0.02, 0.7, 2), 3).tolist()
        yield p, *((0.5, 0.05) if n == 0 else (trained, trained if n == 7 else real))


def sides(p: np.ndarray, trained: float, real: float) -> tuple:
    return p * real / trained, (1 - p) * (1 - real) / (1 - trained)


def bayes(p: np.ndarray, trained: float, real: float) -> np.ndarray:
    positive, negative = sides(p, trained, real)
    return positive / (positive + negative)


def odds(p: np.ndarray, trained: float, real: float) -> np.ndarray:
    positive, negative = sides(p, trained, real)
    return positive / negative


def by_odds(p: np.ndarray, trained: float, real: float) -> np.ndarray:
    return odds(p, trained, real) / (1 + odds(p, trained, real))


OF_ONE = "a network may say 1: do not divide by 1 - p there, but by the sum of both sides"
corrected = check(
    bayes,
    shares,
    {
        "p as it came: does it not depend on the shares?": lambda p, t, r: p,
        "that is p x real / trained; 1 - p changes too: divide by the sum": lambda p, t, r: (
            p * r / t
        ),
        "p x real / trained: clipping hides that both sides no longer sum to 1": lambda p, t, r: (
            np.clip(p * r / t, 0, 1)
        ),
        "that is p + real - trained; probabilities are rescaled, not shifted": lambda p, t, r: (
            p + r - t
        ),
        "p + real - trained: clipping hides that probabilities are rescaled": lambda p, t, r: (
            np.clip(p + r - t, 0, 1)
        ),
        "p is rescaled on the positive side alone; 1 - p has a share too": lambda p, t, r: (
            p * r / t / (p * r / t + 1 - p)
        ),
        "corrected the other way: are the two shares swapped?": lambda p, t, r: bayes(p, r, t),
        "p is scaled to the right mean; Bayes' rule looks at each case by itself": lambda p, t, r: (
            p * r / p.mean()
        ),
        "that is the odds; a probability is odds / (1 + odds)": odds,
        "that is in per cent; a probability lies between 0 and 1": lambda *given: (
            100 * bayes(*given)
        ),
        OF_ONE: by_odds,
        f"{OF_ONE}; Python's own numbers refuse": lambda p, t, r: [
            by_odds(float(one), t, r) for one in p
        ],
    },
    tell=lambda p, trained, real: f"a share of {real:g} in place of {trained:g}",
)
