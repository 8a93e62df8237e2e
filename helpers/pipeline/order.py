"""Which element comes next: drawn by labels or weights, shuffled, repeated."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from helpers import sampling, stage
from helpers.errors import need


def facts_of(elements: Sequence[dict]) -> dict:
    """How many `records` elements are and, where all have one, `label` and `weight` of each.

    Args:
        elements: dicts of arrays.

    Taught in: no lesson; pipelines use it
    """
    facts = {"records": len(elements)}
    for field in ("label", "weight"):
        values = [elements[n].get(field) for n in range(len(elements))]
        if all(value is not None for value in values):
            facts[field] = np.array(values).tolist()
    return facts


def lacking(facts: Mapping, how, classes) -> str | None:
    """The field that is drawn by but not known.

    Args:
        facts, how, classes: as for `numbers`.

    Taught in: no lesson; pipelines use it
    """
    words = {"automatic": "label", "element": "weight"}
    wanted = words[how] if isinstance(how, str) else "label" if classes else None
    return None if wanted in facts else wanted


def numbers(facts, *, how, labelled, classes, shuffle, repeat, times, seed):
    """The numbers of the elements, in the order in which they are to come.

    Args:
        facts: how many `records` there are and, where they are known, a list of the `label` and
            the `weight` of each.
        how: "automatic", "element", a number from 0 for each element, or None to draw nothing.
        labelled: refuse labels that are missing, however elements are drawn.
        classes: ids that labels may have, each of which needs an element; or None.
        shuffle: a new order in each epoch, where nothing is drawn.
        repeat: without end.
        times: that an epoch takes each element, or multiplies its draws.
        seed: of the order.

    Returns:
        A dataset of int64 scalars that knows how long it is.

    Raises:
        CourseDataError: `EMPTY_CLASS`, `UNKNOWN_LABEL`, `BAD_WEIGHT`.
        ValueError: for an unknown word, and for another number of probabilities than of elements.

    Taught in: no lesson; pipelines use it
    """
    count, size = facts["records"], facts["records"] * times
    field = lacking(facts, how, classes)
    code = "BAD_WEIGHT" if field == "weight" else "UNKNOWN_LABEL"
    need(not field, code, f"no element tells its {field}, or none before it is read")
    by_class = isinstance(how, str) and how == "automatic"
    groups = facts.get("label") if labelled or by_class else None
    probabilities = sampling.automatic(groups, classes) if groups else None
    if how is None:
        order = tf.data.Dataset.range(count).repeat(times)
        order = order.shuffle(size, seed=seed) if shuffle else order
        return order.repeat() if repeat else order
    if not by_class:
        probabilities, groups = (
            sampling.element(facts["weight"] if isinstance(how, str) else how),
            None,
        )
    if len(probabilities) != count:
        raise ValueError(f"{len(probabilities)} probabilities for {count} elements")
    epochs, length = (None, tf.data.INFINITE_CARDINALITY) if repeat else (1, size)
    drawn = sampling.indices(probabilities, seed=seed, groups=groups, size=size, epochs=epochs)
    return drawn.apply(tf.data.experimental.assert_cardinality(length))


def one_epoch(epoch: int, facts: Mapping, *, seed: int, **how) -> np.ndarray:
    """The numbers of one epoch, which follow from its number and the seed.

    Args:
        epoch: from 0.
        facts, seed, how: as for `numbers`, without `repeat`.

    Taught in: no lesson; pipelines use it
    """
    own = int(np.random.default_rng([seed, epoch]).integers(stage.LARGEST_SEED))
    order = numbers(facts, seed=own, repeat=False, **how)
    return np.fromiter(order.as_numpy_iterator(), np.int64)


def of_now(elements: Sequence[dict], *, repeat: bool, times: int, **how) -> tf.data.Dataset:
    """As `numbers`, drawn anew in each epoch from what the elements say by then.

    Args:
        elements: a `SmartCache`, for instance, whose classes change with each swap.
        repeat, times, how: as for `numbers`.

    Taught in: no lesson; pipelines use it
    """
    epochs, held = itertools.count(), weakref.ref(elements)  # TensorFlow keeps what it calls

    def epoch():
        return one_epoch(next(epochs), facts_of(held()), times=times, **how)

    spec, size = tf.TensorSpec([], tf.int64), len(elements) * times
    order = tf.data.Dataset.from_generator(epoch, output_signature=spec)
    order = order.apply(tf.data.experimental.assert_cardinality(size))
    return order.repeat() if repeat else order
