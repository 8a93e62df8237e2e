"""How much each case counts in the loss, by its class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral

import numpy as np

from helpers.sampling import refusals
from helpers.sampling.columns import columns_of, known

RULES = ("balanced", "effective")


def class_weights(
    labels: Sequence,
    classes: Iterable | None = None,
    *,
    rule: str = "balanced",
    beta: float | None = None,
) -> dict:
    """A weight for each class, larger for rare ones, for Keras' `fit(class_weight=)`.

        model.fit(dataset, class_weight=sampling.class_weights(known["label"]))

    Both rules make the weights of all cases average 1, so that the loss keeps its size and the
    learning rate its meaning. Weights of 1/n_c shrink the loss by about N/K, which is a learning
    rate that much smaller.

    A class of one case is a class like the others: "balanced" makes that case count as much as all
    cases of another class together, so look at it well. A single class gets the weight 1. Cases
    whose label is not known are left out, and N counts the others.

    Args:
        labels: of each case: a class id or a class name; -1, None, NaN or an empty name where it is
            not known. Text stays text: "1" is a name.
        classes: those that there have to be, by default those that there are. A mapping from ids
            to names will do.
        rule: "balanced", N / (K n_c), for N cases of K classes and n_c of the class; or
            "effective", in proportion to (1 - beta) / (1 - beta^n_c): the more cases a class has,
            the less each further one adds, because it resembles those that are there.
        beta: of "effective", from 0, where all weights are 1, to below 1, where they approach
            those of "balanced". By default (N - 1) / N: the cases count as draws from N different
            ones.

    Returns:
        The weight of each class by its id, or by its name if labels are names.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case; `EMPTY_CLASS` for a class without one, or if
            no label is known; `UNKNOWN_LABEL` for cases of other classes, by position, counted
            from 0.
        ValueError: for vectors of labels, another rule, and a `beta` out of range.

    "balanced" is scikit-learn's `compute_class_weight`; "effective" is that of Cui et al.,
    Class-Balanced Loss Based on Effective Number of Samples (CVPR 2019), who scale the weights of
    the classes, not of the cases, to average 1.
    """
    if rule not in RULES:
        raise ValueError(f"rule is one of {', '.join(RULES)}, not {rule!r}")
    if beta is not None and (rule != "effective" or not 0 <= beta < 1):
        raise ValueError(f'beta, from 0 to below 1, belongs to "effective"; found {beta!r}')
    refusals.empty(labels)
    columns = columns_of(labels)
    if len(columns) > 1:
        raise ValueError(
            f"each case has {len(columns)} labels, and one weight cannot balance them all; give "
            "labels.losses a weight for each label"
        )
    (column,) = columns
    there = known(column)
    values, counts = np.unique(column[there], return_counts=True)
    names = [int(one) if isinstance(one, Integral) else one for one in values.tolist()]
    refusals.classes(column, there, names, None if classes is None else set(classes), 0)
    raw = 1 / counts if rule == "balanced" else 1 / _effective(counts, beta)
    weights = raw * counts.sum() / (raw * counts).sum()
    return dict(zip(names, weights.tolist(), strict=True))


def _effective(counts: np.ndarray, beta: float | None) -> np.ndarray:
    """Cui's effective number of cases, (1 - beta^n) / (1 - beta), without loss near beta = 1."""
    beta = 1 - 1 / counts.sum() if beta is None else beta
    if beta == 0:
        return np.ones(len(counts))
    return np.expm1(counts * np.log(beta)) / (beta - 1)


def weighted(class_weights: Mapping[int, float]) -> Callable:
    """A stage that gives each element the weight of its class, for Keras' `sample_weight`.

        dataset = dataset.apply(sampling.weighted(weights))
        model.fit(dataset.apply(pipeline.pairs("label", weight=True)))

    The same loss as `fit(class_weight=)`, and it serves where that does not: models with several
    outputs, a `PyDataset`, a training loop of your own, and in `evaluate`.

    Args:
        class_weights: of each class id, as of `class_weights`.

    Returns:
        A stage for elements and for batches of them, with one `label` each: `weight`, float32 of
        the label's shape, is the weight of the class times the `weight` that is there already. So
        leave that field out where `sampling="element"` has used it: it would count twice. A label
        that is not known (-1) gets 0, which takes it out of the loss unless the loss of -1 is NaN:
        `labels.losses` has none that is.

    Raises:
        ValueError: for weights that are negative or not finite, class names in place of ids, and
            elements without a `label` of one whole number.
        tf.errors.InvalidArgumentError: while it runs, `UNKNOWN_LABEL` for a class that has no
            weight, with the case.
    """
    ids, weights = list(class_weights), np.array(list(class_weights.values()), np.float32)
    if not ids or not all(isinstance(one, Integral) and one >= 0 for one in ids):
        raise ValueError(
            f"elements have class ids, so weights are needed for whole numbers from 0, not {ids}"
        )
    if weights.ndim != 1 or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"weights are finite numbers from 0, not {list(class_weights.values())}")

    def stage(dataset):
        import tensorflow as tf

        from helpers import draws, elements

        _check_spec(dataset.element_spec)

        def weigh(element: dict) -> dict:
            label = tf.cast(element["label"], tf.int64)
            there = label[..., tf.newaxis] == tf.constant(ids, tf.int64)
            about = ["found the label", label, "expected one of", ids, "or -1; weigh it as well"]
            fits = tf.reduce_all(tf.reduce_any(there, -1) | (label < 0))
            with tf.control_dependencies(
                elements.require(fits, "UNKNOWN_LABEL", about, element.get("case"))
            ):
                weight = tf.reduce_sum(tf.where(there, tf.constant(weights), 0.0), -1)
            if "weight" in element:
                before = tf.cast(element["weight"], tf.float32)
                weight = tf.where(label < 0, 0.0, weight * before)
            return element | {"weight": weight}

        return draws.map_named(dataset, weigh, name="sampling.weighted", num_parallel_calls=None)

    return stage


def _check_spec(spec) -> None:
    """Refuse elements whose label is not one class id."""
    label = spec.get("label") if isinstance(spec, dict) else None
    if label is None:
        raise ValueError("elements are dicts with a `label`, a class id")
    several = isinstance(label, dict) or label.shape.rank not in (0, 1)
    if not several:
        # A vector may be the labels of one case, or those of a batch: its other fields tell.
        beside = (spec[name].shape.rank for name in ("case", "weight") if name in spec)
        several = any(rank != label.shape.rank for rank in beside)
    if several or not label.dtype.is_integer:
        raise ValueError(
            f"each element needs one `label`, a class id, not {label}; for several labels give "
            "labels.losses a weight for each"
        )
