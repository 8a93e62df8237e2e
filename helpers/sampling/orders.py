"""Indices drawn by their probabilities, so that each epoch holds what is due."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helpers.sampling import refusals

UNIT_BITS = 46  # of the draws of an epoch: floating point is exact well beyond
LARGEST_EPOCH = 2**31


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
    return stream(
        probabilities, seed=seed, groups=groups, size=size, epochs=epochs, name="sampling.indices"
    )


def stream(
    probabilities: np.ndarray,
    *,
    seed: int,
    groups: Sequence | None,
    size: int | None,
    epochs: int | None,
    name: str,
):
    """`indices` under a name: streams of different names share no numbers, even of one seed."""
    probabilities = np.asarray(probabilities, np.float64)
    refusals.empty(probabilities)
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
    drawn = draws.map_with_seeds(counter, epoch, seed=seed, name=name, num_parallel_calls=1)
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
