"""Which case comes next: draws of indices that balance classes, or follow a weight of each case.

    from helpers import records, sampling
    known = records.index("records", "train")
    probabilities = sampling.automatic(known["label"])
    order = sampling.indices(probabilities, seed=0, groups=known["label"])
    dataset = records.read("records", "train", mapped=True, indices=order, batch=4)

Indices are drawn, and then only the drawn cases are read. Rejecting cases after reading them, as
`Dataset.rejection_resample` does, throws away most of the work. Only `indices` needs TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from helpers import labels as label_lists
from helpers.errors import CourseDataError

UNIT_BITS = 46  # of the draws of an epoch: floating point is exact well beyond
LARGEST_EPOCH = 2**31
FEW = 10  # positions or classes named in a message


def automatic(
    labels: Sequence, classes: Iterable | None = None, *, which: int | None = None
) -> np.ndarray:
    """Probabilities that make all classes equally likely: 1/n_class, as Clara's `automatic`.

    The proportions are those of scikit-learn's `compute_sample_weight("balanced", labels)`.

    Args:
        labels: of each case: a class id, a class name, or a vector of ids, one for each of several
            labels, where -1 stands for one that is not known. For vectors, the probabilities are
            the mean of those that each label by itself would give (over the cases in which it is
            known), so every class of k labels gets at least a k-th of its fair share of the draws.
        classes: those that there have to be, by default those that there are. A mapping from ids
            to names will do. Of vectors, each label has these classes.
        which: balance this label of each vector alone, counted from 0.

    Returns:
        float64 `[n]`, which sums to 1.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case; `EMPTY_CLASS` for a class without one, or a
            label that is known of none; `UNKNOWN_LABEL` for cases without a label or with one that
            is not in `classes`, and for vectors of unequal length. Cases are named by position,
            counted from 0.
        ValueError: for labels that are neither ids nor names, and for an impossible `which`.
    """
    _refuse_empty(labels)
    columns = label_lists.columns(labels)
    if which is not None:
        if not 0 <= which < len(columns):
            raise ValueError(f"which is a label from 0 to {len(columns) - 1}, not {which!r}")
        columns = [columns[which]]
    known = [label_lists.known(column) for column in columns]
    _refuse(
        ~np.any(known, axis=0),
        "UNKNOWN_LABEL",
        "have no label",
        "label them, or leave them out of what is balanced",
    )
    wanted = None if classes is None else set(classes)
    shares = np.zeros((len(columns), len(columns[0])))
    for number, (column, there) in enumerate(zip(columns, known, strict=True)):
        values, place, counts = np.unique(column[there], return_inverse=True, return_counts=True)
        _refuse_classes(column, there, values.tolist(), wanted, number)
        shares[number, there] = 1 / (len(values) * counts[place])
    return _normal(shares.mean(axis=0))


def element(weights: Sequence[float | None]) -> np.ndarray:
    """Probabilities in proportion to each case's own weight, as Clara's `element`.

    Args:
        weights: the `weight` of each item of a data list, or of each record.

    Returns:
        float64 `[n]`, which sums to 1. A case of weight 0 is never drawn.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case; `BAD_WEIGHT` for weights that are missing,
            negative or not finite, naming the cases by position, counted from 0, and if all are 0.
    """
    weights = list(weights)
    _refuse_empty(weights)
    values = np.array([np.nan if one is None else one for one in weights], np.float64)
    if values.ndim != 1:
        raise ValueError("each case has one weight")
    _refuse(
        ~(np.isfinite(values) & (values >= 0)),
        "BAD_WEIGHT",
        "have a weight that is missing, negative or not finite",
        "expected a number from 0, in each item",
    )
    if not values.any():
        raise CourseDataError(
            "BAD_WEIGHT", f"all {len(values)} weights are 0: no case could be drawn"
        )
    return _normal(values / values.max())  # a sum of very large weights would be infinite


def indices(
    probabilities: np.ndarray,
    *,
    seed: int,
    groups: Sequence | None = None,
    size: int | None = None,
    epochs: int | None = None,
):
    """A dataset of drawn indices, of which each epoch holds every case its due number of times.

    Independent draws, as Clara and `random.choices` make them, leave out a third of equally likely
    cases in each epoch (1/e) and draw others three or four times; a class that should come twice
    is missing in one epoch of seven. Here an epoch is a systematic sample (W. G. Madow, 1949):
    cases are laid side by side, each as long as its expected number of draws, and a comb with teeth
    of distance 1 is put over them at a random place. So a case that should come 2.3 times comes
    2 or 3 times, and on average exactly 2.3 times. Cases lie in a new order in each epoch, those
    of one group beside each other, so the same holds for the groups. Then the epoch is shuffled.

    Args:
        probabilities: `[n]`, from `automatic` or `element`; exact to `size` x 2**-45 draws.
        seed: the same one gives the same stream, from a dataset that is made anew, whatever the
            parallelism; iterating again goes on with new numbers, as in `draws.map_with_seeds`.
        groups: what to keep in proportion besides the cases: the label of each case (an id, a
            name or a vector), its patient or its hospital.
        size: draws in an epoch, by default n.
        epochs: how many; None for a stream without end.

    Returns:
        A `tf.data.Dataset` of int64 scalars from 0 to n - 1, made without Python at run time.

    Raises:
        CourseDataError: `EMPTY_LIST` without a case.
        ValueError: for probabilities that are negative or do not sum to 1, and for other arguments
            out of range.
    """
    probabilities = np.asarray(probabilities, np.float64)
    _refuse_empty(probabilities)
    if probabilities.ndim != 1 or not (probabilities >= 0).all():
        raise ValueError("probabilities are a vector of numbers from 0")
    if not abs(probabilities.sum() - 1) < 1e-6:
        raise ValueError(
            f"probabilities sum to {probabilities.sum():.6g}, expected 1; sampling.element makes "
            "probabilities of weights"
        )
    size = len(probabilities) if size is None else size
    if not 1 <= size < LARGEST_EPOCH:
        raise ValueError(f"an epoch has 1 draw or more, not {size}")
    if epochs is not None and epochs < 1:
        raise ValueError(f"expected 1 epoch or more, or None for no end, not {epochs}")
    units, group, bits = _units(probabilities, groups, size)

    from helpers import quiet

    quiet.tensorflow_greeting()
    import tensorflow as tf

    from helpers import draws

    lengths, group_of = tf.constant(units), tf.constant(group)
    count, group_count, unit = len(units), int(group.max()) + 1, 2**bits

    def epoch(number, seed):
        uniform = tf.random.stateless_uniform(
            [group_count + count + size + 1], seed, dtype=tf.float64, alg="philox"
        )
        of_groups, of_cases, of_draws, start = tf.split(uniform, [group_count, count, size, 1])
        # Keys in [rank, rank + 1): groups in a random order, cases in one within their group.
        rank = tf.argsort(tf.argsort(of_groups))
        order = tf.argsort(tf.cast(tf.gather(rank, group_of), tf.float64) + of_cases)
        ends = tf.cumsum(tf.gather(lengths, order))
        teeth = tf.range(size, dtype=tf.int64) * unit + tf.cast(start * unit, tf.int64)
        drawn = tf.gather(order, tf.searchsorted(ends, teeth, side="right"))
        return tf.cast(tf.gather(drawn, tf.argsort(of_draws)), tf.int64)

    counter = tf.data.Dataset.counter() if epochs is None else tf.data.Dataset.range(epochs)
    drawn = draws.map_with_seeds(
        counter, epoch, seed=seed, name="sampling.indices", num_parallel_calls=1
    )
    return drawn.unbatch()


def epoch(
    probabilities: np.ndarray,
    *,
    random: np.random.Generator,
    groups: Sequence | None = None,
    size: int | None = None,
) -> np.ndarray:
    """One epoch of draws, by the law of `indices`, without a graph and with NumPy's numbers.

    Args:
        probabilities, groups, size: as for `indices`.
        random: where the chance comes from.

    Returns:
        int64 `[size]`.
    """
    size = len(probabilities) if size is None else size
    units, group, bits = _units(np.asarray(probabilities, np.float64), groups, size)
    rank = random.permutation(int(group.max()) + 1)[group]
    order = np.lexsort((random.random(len(units)), rank))
    ends = np.cumsum(units[order])
    teeth = (np.arange(size) << bits) + int(random.random() * (1 << bits))
    return random.permutation(order[np.searchsorted(ends, teeth, side="right")])


def _units(
    probabilities: np.ndarray, groups: Sequence | None, size: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Expected draws of each case as whole numbers of units, its group, and the bits of a draw.

    In whole numbers sums are exact: a case that should come once comes once, not 0 or 2 times
    because 1/3 is no binary fraction.
    """
    if groups is None:
        group = np.zeros(len(probabilities), np.int64)
    else:
        if len(groups) != len(probabilities):
            raise ValueError(f"{len(groups)} groups for {len(probabilities)} cases")
        _, group = np.unique(np.asarray(groups), axis=0, return_inverse=True)
        group = group.reshape(-1)
    bits = UNIT_BITS - size.bit_length()
    total = size << bits
    of_group = np.bincount(group, probabilities)
    together = np.zeros(len(of_group), np.int64)
    group_units = _apportioned(of_group / of_group.sum() * total, together, np.array([total]))
    share = probabilities / np.where(of_group > 0, of_group, 1)[group]
    return _apportioned(share * group_units[group], group, group_units), group, bits


def _apportioned(shares: np.ndarray, groups: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Whole numbers, each its share rounded down or up, that sum to the total of each group.

    The largest remainders are rounded up (A. Hamilton's method).
    """
    whole = np.floor(shares).astype(np.int64)
    missing = totals - np.bincount(groups, whole, len(totals)).astype(np.int64)
    order = np.lexsort((whole - shares, groups))  # within each group the largest remainder first
    first = np.searchsorted(groups[order], np.arange(len(totals)))
    place = np.arange(len(order)) - first[groups[order]]
    whole[order] += place < missing[groups[order]]
    return whole


def _normal(values: np.ndarray) -> np.ndarray:
    return values / values.sum()


def _refuse_classes(
    column: np.ndarray, there: np.ndarray, found: list, wanted: set | None, number: int
) -> None:
    """Refuse classes without a case, and cases of other classes than are wanted."""
    if not found:
        raise CourseDataError(
            "EMPTY_CLASS",
            f"label {number}, counted from 0, is known of no case; leave it out, or label cases",
        )
    if wanted is None:
        return
    if strangers := set(found) - wanted:
        _refuse(
            np.isin(column, list(strangers)) & there,
            "UNKNOWN_LABEL",
            f"are of the classes {_listed(strangers)}",
            f"expected {_listed(wanted)}",
        )
    if empty := wanted - set(found):
        raise CourseDataError(
            "EMPTY_CLASS",
            f"no case of the classes {_listed(empty)} among {len(column)} cases, which have "
            f"{_listed(found)}; add cases, or leave these classes out",
        )


def _refuse_empty(values: Sequence) -> None:
    if len(values) == 0:
        raise CourseDataError("EMPTY_LIST", "there is no case to draw; expected one or more")


def _refuse(wrong: np.ndarray, code: str, what: str, expected: str) -> None:
    """Refuse the cases that are wrong, by their positions."""
    places = np.flatnonzero(wrong)
    if len(places):
        raise CourseDataError(
            code,
            f"{len(places)} of {len(wrong)} cases {what}: at the positions {_listed(places)}, "
            f"counted from 0; {expected}",
        )


def _listed(values: Iterable) -> str:
    values = sorted(values, key=lambda value: (str(type(value)), value))
    more = f" and {len(values) - FEW} more" if len(values) > FEW else ""
    return ", ".join(str(value) for value in values[:FEW]) + more
