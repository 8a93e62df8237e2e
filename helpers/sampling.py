"""Which case comes next, and how much it counts: balance by drawing, or by weights in the loss.

    from helpers import records, sampling
    known = records.index("records", "train")
    chances = sampling.automatic(known["label"])
    order = sampling.indices(chances, seed=0, groups=known["label"])
    dataset = records.read("records", "train", mapped=True, indices=order, batch=4)

Numbers are drawn, and then only the drawn cases are read. Rejecting cases after reading them, as
`Dataset.rejection_resample` does, throws away most of the work. Where cases cannot be read by
number, `mixed` draws from one dataset a class. The other way is to draw as things come and weigh:

    weights = sampling.class_weights(known["label"])
    model.fit(dataset, class_weight=weights)

One of the two is enough: together they correct twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from sklearn.utils.class_weight import compute_sample_weight

from helpers import stage
from helpers.errors import listed, need


def automatic(labels: Sequence, classes: Sequence[int] | None = None) -> np.ndarray:
    """Probabilities that make all classes equally likely: 1/n_class, as Clara's `automatic`.

    Args:
        labels: of each case a class id, or a vector of them, one for each of several labels; -1 or
            NaN where it is not known. For vectors, the probabilities are the mean of those that
            each label by itself would give (over the cases in which it is known), so every class
            of k labels gets at least a k-th of its fair share of the draws.
        classes: ids that there have to be, by default those that there are. A mapping from ids to
            names will do. Of vectors, each label has these classes.

    Returns:
        float64 `[n]`, which sums to 1.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case; `EMPTY_CLASS` for a class without one, or a
            label that is known of none; `UNKNOWN_LABEL` for cases without a label or with one that
            is not in `classes`, by position, counted from 0.

    >>> automatic([0, 0, 0, 1]).round(3)
    array([0.167, 0.167, 0.167, 0.5  ])

    Taught in: imbalanced classification
    """
    need(len(labels), "EMPTY_LIST", "there is no case to draw; expected one or more")
    columns = np.atleast_2d(np.array(labels, float).T)  # [labels, cases]
    known = columns >= 0
    without = np.flatnonzero(~known.any(axis=0))
    said = f"cases {listed(without)}, counted from 0, have no label"
    need(not without.size, "UNKNOWN_LABEL", said)
    shares = np.zeros(columns.shape)
    for column, there, share in zip(columns, known, shares, strict=True):
        found = set(column[there].tolist())
        wanted = set(found if classes is None else classes)
        odd = np.flatnonzero(there & ~np.isin(column, list(wanted)))
        said = f"cases {listed(odd)}, counted from 0, are not of the classes {wanted}"
        need(not odd.size, "UNKNOWN_LABEL", said)
        said = f"no case of the classes {wanted - found or 'at all'}"
        need(found and found == wanted, "EMPTY_CLASS", said)
        share[there] = compute_sample_weight("balanced", column[there]) / there.sum()
    return element(shares.sum(axis=0))


def element(weights: Sequence[float | None]) -> np.ndarray:
    """Probabilities in proportion to each case's own weight, as Clara's `element`.

    Args:
        weights: the `weight` of each item of a data list, or of each record, in any scale.

    Returns:
        float64 `[n]`, which sums to 1. A case of weight 0 is never drawn.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case; `BAD_WEIGHT` for weights that are missing,
            negative or not finite, by position, counted from 0, and if all are 0.

    >>> element([1, 1, 2])
    array([0.25, 0.25, 0.5 ])

    Taught in: imbalanced classification
    """
    values = np.array(weights, float)
    need(values.size, "EMPTY_LIST", "there is no case to draw; expected one or more")
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    said = f"cases {listed(bad)}, counted from 0, have weights that are none"
    need(not bad.size, "BAD_WEIGHT", said)
    need(values.any(), "BAD_WEIGHT", f"all {values.size} weights are 0")
    return values / values.sum()


def class_weights(labels: Sequence[int], *, beta: float = 1.0) -> dict[int, float]:
    """A weight for each class, larger for rare ones, for Keras' `fit(class_weight=)`.

    In proportion to 1 / E(n), where a class of n cases counts as E(n) = (1 - beta^n) / (1 - beta)
    ones: the more cases a class has, the less each further one adds, because it resembles those
    that are there. With `beta=1` no two cases resemble each other, E(n) = n, and the weights are
    the "balanced" ones of scikit-learn: N / (K n), for N cases of K classes.

    The weights of all cases average 1, so that the loss keeps its size and the learning rate its
    meaning. Weights of 1/n shrink the loss by about N / K, which is a learning rate that much
    smaller.

    Args:
        labels: the class id of each case; -1 or NaN where it is not known: N leaves these out.
        beta: from 0, where all weights are 1, to 1. Cui et al., Class-Balanced Loss Based on
            Effective Number of Samples (CVPR 2019), try 0.9 to 0.9999; they scale the weights of
            the classes, not of the cases, to average 1.

    Returns:
        The weight of each class by its id.

    Raises:
        CourseDataError: `EMPTY_CLASS` if no label is known.
        ValueError: for vectors of labels, which `labels.losses` weighs.

    >>> class_weights([0, 0, 0, 1])
    {0: 0.6666666666666666, 1: 2.0}

    Taught in: imbalanced classification
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError("one weight cannot balance several labels; give labels.losses one each")
    known = labels[labels >= 0].astype(int)
    need(known.size, "EMPTY_CLASS", "no case has a label that is known")
    classes, counts = np.unique(known, return_counts=True)
    effective = counts if beta == 1 else (1 - beta**counts) / (1 - beta)
    weights = 1 / effective
    weights /= np.average(weights, weights=counts)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


def systematic(expected, groups, *, size: int, seed) -> tf.Tensor:
    """One epoch of draws, in which each case comes as often as expected, rounded down or up.

    A systematic sample (W. G. Madow, 1949): cases are laid side by side, each as long as its
    expected number of draws, and a comb with teeth of distance 1 is put over them at a random
    place. So a case that should come 2.3 times comes 2 or 3 times, and on average exactly 2.3
    times. Cases lie in a random order, those of one group beside each other, so the same holds
    for the groups. Then the draws are shuffled.

    Args:
        expected: float64 `[n]`, how often each case should come; they sum to `size`.
        groups: int64 `[n]`, the group of each case, from 0.
        size: draws of the epoch.
        seed: int64 `[2]`, from which all chance follows.

    Returns:
        int64 `[size]`, numbers of cases.

    Taught in: imbalanced classification
    """
    counts = [np.max(groups) + 1, len(groups), size, 1]
    uniform = tf.random.stateless_uniform([sum(counts)], seed, dtype=tf.float64, alg="philox")
    of_groups, of_cases, of_draws, start = tf.split(uniform, counts)

    order = tf.argsort(of_cases)
    of_groups = tf.gather(of_groups, tf.gather(groups, order))
    order = tf.gather(order, tf.argsort(of_groups, stable=True))

    ends = tf.cumsum(tf.gather(expected, order))
    teeth = start + tf.range(size, dtype=tf.float64)
    hit = tf.searchsorted(ends[:-1], teeth, side="right")
    drawn = tf.gather(order, tf.gather(hit, tf.argsort(of_draws)))
    return tf.cast(drawn, tf.int64)


def indices(
    probabilities: Sequence[float],
    *,
    seed: int,
    groups: Sequence | None = None,
    size: int | None = None,
    epochs: int | None = None,
    name: str = "sampling.indices",
) -> tf.data.Dataset:
    """A dataset of drawn indices, of which each epoch holds every case its due number of times.

    Independent draws, as Clara and `random.choices` make them, leave out a third of equally likely
    cases in each epoch (1/e) and draw others three or four times; a class that should come twice
    is missing in one epoch of seven. Here an epoch is a `systematic` sample.

    Args:
        probabilities: `[n]`, from `automatic` or `element`; other weights serve as well, in any
            scale. Counts are exact but for the rounding of float64, which puts a draw astray in
            less than one epoch of 10**6, or 10**11 where cases are some thousands.
        seed: the same one gives the same stream, from a dataset that is made anew, whatever the
            parallelism; iterating again goes on with new numbers. `tf.random.set_seed`, where it
            is called, has a say as well.
        groups: what to keep in proportion besides the cases: the label of each case (an id, a
            name or a vector), its patient or its hospital.
        size: draws in an epoch, by default n.
        epochs: how many; None for a stream without end.
        name: streams of different names share no numbers although they share a seed.

    Returns:
        A dataset of int64 scalars from 0 to n - 1 that knows how long it is.

    Raises:
        CourseDataError: as `element`.
        ValueError: for another number of groups, and for a size or seed out of range.

    Taught in: imbalanced classification
    """
    probabilities = element(probabilities)
    if size is None:
        size = len(probabilities)
    if size < 1:
        raise ValueError(f"an epoch has one draw or more, not {size}")
    if groups is None:
        groups = [0] * len(probabilities)
    if len(groups) != len(probabilities):
        raise ValueError(f"{len(groups)} groups for {len(probabilities)} cases")
    _, groups = np.unique(list(groups), axis=0, return_inverse=True)
    groups = groups.reshape(-1)  # NumPy 2.0 gives a column for vectors

    def epoch(_, seed):
        return systematic(size * probabilities, groups, size=size, seed=seed)

    counter = tf.data.Dataset.counter()
    if epochs is not None:
        counter = counter.take(epochs)
    drawn = stage.seeded(counter, epoch, seed=seed, name=name, num_parallel_calls=1)
    return drawn.unbatch()


def mixed(
    datasets: Sequence[tf.data.Dataset],
    weights: Sequence[float],
    *,
    seed: int,
    size: int | None = None,
    epochs: int | None = None,
) -> tf.data.Dataset:
    """A dataset that draws from several, for instance one of each class, in fixed shares.

        by_class = [negative.shuffle(950, seed=1), positive.shuffle(50, seed=2)]
        dataset = sampling.mixed(by_class, [0.5, 0.5], seed=0).batch(8)
        model.fit(dataset.apply(pipeline.pairs("label")), steps_per_epoch=125, epochs=10)

    `Dataset.sample_from_datasets` draws from sources that end. When the rare one is used up, the
    rest of the common one follows, so 95 + 5 elements in equal parts are 100 with 5 %; with
    `stop_on_empty_dataset=True` they are about ten. Here every source begins again when it ends,
    and a source that shuffles has a new order each time. Shares come as in `indices`: in every
    epoch each source has its due number, rounded down or up.

    Args:
        datasets: the sources, with equal elements. Each is read on from where it was, epoch after
            epoch, so that all its elements take turns.
        weights: of each source, in any scale; its share of an epoch is its part of their sum.
        seed: the same one gives the same stream, as far as the sources' own are the same,
            whatever the parallelism.
        size: elements in an epoch, by default as many as all sources hold together.
        epochs: how many; None for a stream without end. A stream with an end that is iterated
            again begins again, choices and sources: those that do not shuffle would show their
            first elements only. Keras' `fit(steps_per_epoch=)` on an endless one does not do that.

    Returns:
        A dataset of the sources' elements that knows how long it is.

    Raises:
        CourseDataError: `EMPTY_CLASS` for a source without an element; as `element` for weights.
        ValueError: for another number of weights, and for arguments out of range.
        TypeError: without a `size`, where a source does not know its own.
        tf.errors.FailedPreconditionError: while it runs, for a source that did not know its size
            and has no element.

    Taught in: imbalanced classification
    """
    if len(weights) != len(datasets):
        raise ValueError(f"{len(weights)} weights for {len(datasets)} datasets")
    lengths = [int(dataset.cardinality()) for dataset in datasets]
    need(0 not in lengths, "EMPTY_CLASS", f"the datasets have {listed(lengths)} elements")
    if size is None:
        size = sum(map(len, datasets))
    order = indices(weights, seed=seed, size=size, epochs=epochs, name="sampling.mixed")
    endless = [dataset.repeat() for dataset in datasets]
    drawn = tf.data.Dataset.choose_from_datasets(endless, order)
    return drawn.apply(tf.data.experimental.assert_cardinality(order.cardinality()))
