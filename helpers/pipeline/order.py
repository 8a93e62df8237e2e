"""Which element comes next: drawn by labels or weights, shuffled, repeated."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from helpers import memory, sampling, stage
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
    word = how if isinstance(how, str) else None
    wanted = {"automatic": "label", "element": "weight"}.get(word, "label" if classes else None)
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
    size = facts["records"] * times
    word = how if isinstance(how, str) else None
    if word not in (None, "automatic", "element"):
        raise ValueError(f'sampling is "automatic", "element" or numbers, not {word!r}')
    field = lacking(facts, how, classes)
    code = "BAD_WEIGHT" if field == "weight" else "UNKNOWN_LABEL"
    need(not field, code, f"no element tells its {field}, or none before it is read")
    groups = facts.get("label") if labelled or word == "automatic" else None
    probabilities = sampling.automatic(groups, classes) if groups else None
    if how is None:
        order = tf.data.Dataset.range(facts["records"]).repeat(times)
        order = order.shuffle(size, seed=seed) if shuffle else order
        return order.repeat() if repeat else order
    if word != "automatic":
        probabilities, groups = sampling.element(facts["weight"] if word else how), None
    if len(probabilities) != facts["records"]:
        raise ValueError(f"{len(probabilities)} probabilities for {facts['records']} elements")
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
    epochs = itertools.count()
    size = len(elements) * times

    def epoch(_):
        return one_epoch(next(epochs), facts_of(elements), times=times, **how)

    held = memory.weakly(epoch) if tf.executing_eagerly() else epoch

    def drawn(number, _=epoch):  # mapped, so whoever holds the dataset holds the elements
        return tf.ensure_shape(tf.numpy_function(held, [number], tf.int64), [size])

    once = tf.data.Dataset.range(1)
    once = once.repeat() if repeat else once
    order = stage.mapped(once, drawn, name="pipeline.order", num_parallel_calls=None).unbatch()
    length = tf.data.INFINITE_CARDINALITY if repeat else size
    return order.apply(tf.data.experimental.assert_cardinality(length))
