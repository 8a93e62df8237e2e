"""Which element comes next: drawn by labels or weights, shuffled, repeated."""

import itertools
import weakref
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from helpers import sampling, stage
from helpers.errors import need

DRAWN_BY = {"automatic": "label", "element": "weight"}


def field_of(source, field: str) -> list:
    """A field of each element, None where it is not known.

    Args:
        source: what knows `facts` before it is read, a list for each field; or elements.
        field: "label" or "weight".

    Taught in: no lesson; pipelines use it
    """
    if hasattr(source, "facts"):
        return source.facts.get(field, [None] * len(source))
    return [source[n].get(field) for n in range(len(source))]


def is_told(source, how, classes) -> bool:
    """Whether a source tells what its elements are drawn by.

    Args:
        source, how, classes: as for `numbers`.

    Taught in: no lesson; pipelines use it
    """
    field = DRAWN_BY[how] if isinstance(how, str) else "label" if classes else None
    return field is None or any(one is not None for one in field_of(source, field))


def numbers(
    source, *, how=None, labelled=False, classes=None, shuffle, repeat=False, times=1, seed
) -> tf.data.Dataset:
    """The numbers of the elements, in the order in which they are to come.

    Args:
        source: as for `field_of`.
        how: "automatic", "element", a number from 0 for each element, or None to draw nothing.
        labelled: refuse labels of which some are missing, however elements are drawn.
        classes: ids that labels may have, each of which needs an element; or None.
        shuffle: a new order in each epoch, where nothing is drawn.
        repeat: without end.
        times: that an epoch takes each element, or multiplies its draws.
        seed: of the order.

    Returns:
        A dataset of int64 scalars that knows how long it is.

    Raises:
        CourseDataError: `EMPTY_LIST`, `EMPTY_CLASS`, `UNKNOWN_LABEL`, `BAD_WEIGHT`.
        KeyError: for an unknown word.
        ValueError: for another number of probabilities than of elements.

    Taught in: no lesson; pipelines use it
    """
    count, size = len(source), len(source) * times
    need(count, "EMPTY_LIST", "there are no elements")
    field = DRAWN_BY[how] if isinstance(how, str) else None
    labels = field_of(source, "label") if labelled or classes or field == "label" else []
    if classes or field == "label" or any(one is not None for one in labels):
        chances = sampling.automatic(labels, classes)  # refuses labels that are missing
    if how is None:
        order = tf.data.Dataset.range(count).repeat(times)
        order = order.shuffle(size, seed=seed) if shuffle else order
        return order.repeat() if repeat else order
    if field != "label":
        labels = None
        chances = sampling.element(field_of(source, "weight") if field else how)
    if len(chances) != count:
        raise ValueError(f"{len(chances)} probabilities for {count} elements")
    epochs = None if repeat else 1
    return sampling.indices(chances, seed=seed, groups=labels, size=size, epochs=epochs)


def one_epoch(epoch: int, source, *, seed: int, **how) -> np.ndarray:
    """The numbers of one epoch, which follow from its number and the seed.

    Args:
        epoch: from 0.
        source, seed, how: as for `numbers`, without `repeat`.

    Taught in: no lesson; pipelines use it
    """
    own = int(np.random.default_rng([seed, epoch]).integers(stage.LARGEST_SEED))
    order = numbers(source, seed=own, **how)
    return np.fromiter(order.as_numpy_iterator(), np.int64)


def drawn_anew(elements: Sequence[dict], *, repeat: bool, times: int, **how) -> tf.data.Dataset:
    """As `numbers`, drawn anew in each epoch from what the elements say by then.

    Args:
        elements: a `SmartCache`, for instance, whose classes change with each swap.
        repeat, times, how: as for `numbers`.

    Taught in: no lesson; pipelines use it
    """
    epochs, held = itertools.count(), weakref.ref(elements)  # TensorFlow keeps what it calls

    def epoch():
        return one_epoch(next(epochs), held(), times=times, **how)

    order = tf.data.Dataset.from_generator(epoch, output_signature=tf.TensorSpec([], tf.int64))
    order = order.apply(tf.data.experimental.assert_cardinality(len(elements) * times))
    return order.repeat() if repeat else order
