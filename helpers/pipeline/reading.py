"""From a source to its elements in their order: in memory, with the order beside, or streamed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import psutil

from helpers import memory, quiet
from helpers.errors import CourseDataError
from helpers.pipeline.listing import Listing
from helpers.pipeline.order import Facts, Order
from helpers.pipeline.sources import Elements, Records, Stage, applied, opened
from helpers.smart_cache import SmartCache

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

NO_ELEMENTS = "the dataset has no elements; look at what it reads"


@dataclasses.dataclass(frozen=True)
class Kept:
    """Elements in memory, and the dataset of their numbers, in the order in which they come."""

    elements: Sequence[dict]
    numbers: tf.data.Dataset


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A dataset of elements that are read when they are asked for, maybe in batches."""

    dataset: tf.data.Dataset
    batched: bool = False


def ordered(
    source,
    order: Order,
    *,
    split: str | None,
    load: Callable[..., dict] | None,
    transforms: Sequence[Stage],
    cache: bool,
    num_parallel_calls: int,
    batch_size: int | None,
) -> Kept | Streamed:
    """The elements of a source in their order, after the transforms.

    Args:
        order: how often and in which order they come.
        batch_size: of batches of whole elements, None if there is work on single ones to come.
        source, split, load, transforms, cache, num_parallel_calls: as of `pipeline.segmentation`.

    Returns:
        Elements in memory with their order, or, with `cache=False`, a dataset, which is batched
        where reading several records together saves a copy of each.

    Raises:
        CourseDataError, ValueError: as of `pipeline.segmentation`.
    """
    if isinstance(source, SmartCache):
        if transforms or load is not None or split is not None or not cache:
            raise ValueError(
                "a SmartCache keeps elements that are loaded and transformed already; say it where "
                "the cache is made: SmartCache(*pipeline.items(source, split, transforms, load))"
            )
        if order.classes is not None:
            raise ValueError("a SmartCache holds a part of the set: not all classes need be in it")
        if order.labelled:
            order.check(Facts.of(source))
        return Kept(source, order.numbers_of_now(source))
    found = opened(source, split, load)
    if cache:
        return _kept(found, order, transforms, num_parallel_calls)
    return _streamed(found, order, transforms, num_parallel_calls, batch_size)


def _kept(
    found: Records | Listing | Elements,
    order: Order,
    transforms: Sequence[Stage],
    num_parallel_calls: int,
) -> Kept:
    facts = found.facts if order.asks else Facts()
    order.check(facts)  # before anything is read
    own = order.sampling is not None and not isinstance(order.sampling, str)
    if own and isinstance(found, Records) and not found.numbered:
        raise ValueError(
            "records of JPEG and PNG files come in the order of reading, not of writing: numbers "
            'for sampling would go to others; store a weight with each, or say "automatic"'
        )
    if not isinstance(found, Elements) and order.knows_enough(facts):
        order.draw(len(found), facts)
    elements = _gathered(found, transforms, num_parallel_calls)
    if order.asks:
        facts = Facts.of(elements)  # which a transform may have changed
        order.check(facts)
    return Kept(elements, order.numbers(len(elements), facts))


def _streamed(
    found: Records | Listing | Elements,
    order: Order,
    transforms: Sequence[Stage],
    num_parallel_calls: int,
    batch_size: int | None,
) -> Streamed:
    facts = found.facts if order.asks else Facts()
    order.check(facts)
    if order.classes is not None and facts.labels is None:
        raise ValueError("labels are not known before they are read: classes needs cache=True")
    batch = None if transforms else batch_size
    if isinstance(found, Elements):
        if int(found.dataset.cardinality()) == 0:
            raise CourseDataError("EMPTY_LIST", NO_ELEMENTS)
        if order.sampling is not None or order.shuffle:
            raise ValueError(
                "a dataset is read from start to end. Either cache=True, or draw and shuffle paths "
                "and numbers before the elements are read, and say shuffle=False"
            )
        return Streamed(applied(order.repeated(found.dataset), transforms))
    if isinstance(found, Records) and order.sampling is None:
        # Batches go across the borders of epochs, so epochs come before batches.
        batch = None if order.repeat or order.duplicate_count > 1 else batch
        dataset = order.repeated(found.shuffled(order.seed if order.shuffle else None, batch))
        return Streamed(applied(dataset, transforms), batch is not None)
    if isinstance(found, Listing) and not order.knows_enough(facts):
        raise ValueError(
            f"sampling={order.sampling!r} needs what only the loader gives; say cache=True, or let "
            "the items have it, as lists.Item and cases.Case do"
        )
    numbers = order.numbers(len(found), facts)
    if isinstance(found, Records):
        dataset = found.stream(numbers, num_parallel_calls, batch)
        return Streamed(applied(dataset, transforms), batch is not None)
    return Streamed(applied(found.stream(numbers, num_parallel_calls), transforms))


def _gathered(
    found: Records | Listing | Elements, transforms: Sequence[Stage], num_parallel_calls: int
) -> list[dict[str, np.ndarray]]:
    available = psutil.virtual_memory().available
    if found.bytes > available:
        raise CourseDataError(
            "TOO_LARGE",
            f"a cache of {found.bytes / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free; say "
            "cache=False, or keep a part of the set at a time, in a SmartCache",
        )
    try:
        elements = memory.gather(applied(found.whole(num_parallel_calls), transforms))
    except tf.errors.OpError:
        if isinstance(found, Listing) and found.error is not None:
            raise found.error from None  # TensorFlow keeps only its text
        raise
    if not elements:
        raise CourseDataError("EMPTY_LIST", NO_ELEMENTS)
    return elements
