"""One stream out of several datasets, each with its share of every epoch."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.errors import CourseDataError
from helpers.sampling import orders
from helpers.sampling.probabilities import element


def mixed(
    datasets: Sequence,
    weights: Sequence[float],
    *,
    seed: int,
    size: int | None = None,
    epochs: int | None = None,
):
    """A dataset that draws from several, for instance one of each class, in fixed shares.

        by_class = [negative.shuffle(950, seed=1), positive.shuffle(50, seed=2)]
        dataset = sampling.mixed(by_class, [0.5, 0.5], seed=0).batch(8)
        model.fit(dataset.apply(pipeline.pairs("label")), steps_per_epoch=125, epochs=10)

    `Dataset.sample_from_datasets` draws from sources that end. When the rare one is used up, the
    rest of the common one follows, so 95 + 5 elements in equal parts are 100 with 5 %; with
    `stop_on_empty_dataset=True` they are about ten. Here every source begins again when it ends,
    and a source that shuffles has a new order each time. Shares do not come by independent draws
    but as in `indices`: in every epoch each source has its due number, rounded down or up.

    Args:
        datasets: the sources, with equal `element_spec`s. Each is read on from where it was, epoch
            after epoch, so that all its elements take turns.
        weights: of each source, in any scale; its share of an epoch is its part of their sum.
        seed: the same one gives the same stream, as far as the sources' own are the same,
            whatever the parallelism.
        size: elements in an epoch, by default as many as all sources hold together.
        epochs: how many; None for a stream without end. A stream with an end that is iterated
            again begins its sources again: those that do not shuffle would show their first
            elements only. Keras' `fit(steps_per_epoch=)` on an endless one does not do that.

    Returns:
        A `tf.data.Dataset` of the sources' elements that knows how long it is, made without
        Python at run time.

    Raises:
        CourseDataError: `EMPTY_LIST` without a source; `EMPTY_CLASS` for a source without an
            element, by position, counted from 0; `BAD_WEIGHT` as `element`.
        ValueError: for sources with different elements, another number of weights, arguments out
            of range, and no `size` where a source does not know its own.
        tf.errors.InvalidArgumentError: while it runs, `EMPTY_CLASS` for a source that did not
            know its size and has no element.
    """
    datasets = list(datasets)
    probabilities = element(weights)
    if len(datasets) != len(probabilities):
        raise ValueError(f"{len(probabilities)} weights for {len(datasets)} sources")
    for place, dataset in enumerate(datasets):
        if differing := _difference(datasets[0].element_spec, dataset.element_spec):
            raise ValueError(
                f"sources 0 and {place} have different elements: {differing}; send both through "
                "the same stages"
            )
    lengths = [int(dataset.cardinality()) for dataset in datasets]
    if 0 in lengths:
        raise CourseDataError(
            "EMPTY_CLASS",
            f"source {lengths.index(0)} of {len(lengths)}, counted from 0, has no element; add "
            "cases, or leave it out",
        )
    if size is None and min(lengths) < 0:
        unsure = next(place for place, length in enumerate(lengths) if length < 0)
        raise ValueError(
            f"source {unsure}, counted from 0, does not say how many elements it has: tell the "
            "size of an epoch"
        )
    size = sum(lengths) if size is None else size
    order = orders.stream(
        probabilities, seed=seed, size=size, epochs=epochs, groups=None, name="sampling.mixed"
    )

    import tensorflow as tf

    sources = [_without_end(dataset, place) for place, dataset in enumerate(datasets)]
    drawn = tf.data.Dataset.choose_from_datasets(sources, order)
    length = tf.data.INFINITE_CARDINALITY if epochs is None else size * epochs
    return drawn.apply(tf.data.experimental.assert_cardinality(length))


def _without_end(dataset, place: int):
    """The dataset again and again; if it does not know its length, an error where it is empty."""
    import tensorflow as tf

    from helpers import draws, elements

    if int(dataset.cardinality()) != tf.data.UNKNOWN_CARDINALITY:
        return dataset.repeat()

    def refuse(number):
        cure = "leave it out, or see that it can be read again and again"
        about = ["source", tf.cast(number, tf.int32), "counted from 0, gives no element;", cure]
        with tf.control_dependencies(elements.require(number < 0, "EMPTY_CLASS", about)):
            return tf.identity(number)

    # `repeat` ends only after a pass without an element. What then follows is never an element,
    # but has its spec.
    numbers = tf.data.Dataset.range(place, place + 1)
    refusal = draws.map_named(numbers, refuse, name="sampling.mixed", num_parallel_calls=None)
    as_before = tf.autograph.experimental.do_not_convert(lambda _: dataset)
    return dataset.repeat().concatenate(refusal.flat_map(as_before))


def _difference(one, other, where: str = "") -> str:
    """The first thing in which two `element_spec`s differ; empty if they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        if alone := sorted(set(one) ^ set(other), key=str):
            return f"only one has {where}{alone[0]!r}"
        pairs = [(one[key], other[key], f"{where}{key!r} ") for key in one]
    elif isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        pairs = [(one[place], other[place], f"{where}[{place}] ") for place in range(len(one))]
    else:
        return "" if one == other else f"{where}{one} against {other}"
    return next(filter(None, (_difference(*pair) for pair in pairs)), "")
