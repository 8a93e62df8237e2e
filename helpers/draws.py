"""A seed for each element, so that a random stage gives the same stream however it is run.

Random numbers that come from a generator with a state depend on who asks first, and threads race.
Here every element is paired with a number of its own, and stateless operations make all that is
random about the element from that number.
"""

from __future__ import annotations

import contextlib
import contextvars
import zlib
from collections.abc import Callable, Iterator
from numbers import Integral

import tensorflow as tf

LARGEST_SEED = 2**31 - 1  # Dataset.random takes seeds modulo this
Wrap = Callable[[str, Callable], Callable]
_watch: contextvars.ContextVar[Wrap | None] = contextvars.ContextVar("watch", default=None)


@contextlib.contextmanager
def watched(wrap: Wrap) -> Iterator[None]:
    """Within this block, every stage that is applied hands its function to `wrap(name, function)`.

    What `wrap` returns is mapped in its place: the way in for `helpers.timing`.
    """
    token = _watch.set(wrap)
    try:
        yield
    finally:
        _watch.reset(token)


def map_named(
    dataset: tf.data.Dataset,
    function: Callable,
    *,
    name: str,
    num_parallel_calls: int | None = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """`dataset.map`, in the order of the input, under a name that `helpers.timing` shows.

    Args:
        dataset: of any elements.
        function: as for `map`; nothing in it is for AutoGraph to convert.
        name: of the stage.
        num_parallel_calls: elements worked on at a time.
    """
    wrap = _watch.get()
    if wrap is not None:
        function = wrap(name, function)
    return dataset.map(
        tf.autograph.experimental.do_not_convert(function),
        num_parallel_calls=num_parallel_calls,
        deterministic=None if num_parallel_calls is None else True,
        name=name.replace(".", "_"),
    )


def check_indices(indices: tf.data.Dataset) -> None:
    """Refuse anything but a dataset of single whole numbers.

    Raises:
        ValueError: with what it holds instead.
    """
    spec = getattr(indices, "element_spec", None)
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank != 0 or not spec.dtype.is_integer:
        raise ValueError(
            f"indices is a dataset of single whole numbers, not of {spec}; batch the result instead"
        )


def map_with_seeds(
    dataset: tf.data.Dataset,
    function: Callable,
    *,
    seed: int,
    name: str,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Map `function(element, seed)` over a dataset, with another seed for each element.

    Args:
        dataset: of any elements; a tuple arrives as a tuple.
        function: gets the element and an int64 `[2]` for `tf.random.stateless_...`.
        seed: the same one gives the same stream, from a dataset that is made anew. Each epoch, be
            it by `repeat` or by iterating again, goes on with new numbers. `tf.random.set_seed`,
            where it is called, has a say as well.
        name: of the stage; stages of different names do not share numbers although they share
            the seed. Two of one name do.
        num_parallel_calls: elements worked on at a time; it changes nothing but the speed.

    Returns:
        A dataset of the same length, in the same order.

    Raises:
        ValueError: for a seed that is negative or too large.
    """
    if not (isinstance(seed, Integral) and 0 <= seed < LARGEST_SEED):
        raise ValueError(f"a seed is a whole number from 0 to {LARGEST_SEED - 1}, not {seed}")
    salt = zlib.crc32(name.encode())
    numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)

    def seeded(element, number):
        return function(element, tf.stack([number, tf.constant(salt, tf.int64)]))

    both = tf.data.Dataset.zip(dataset, numbers)
    return map_named(both, seeded, name=name, num_parallel_calls=num_parallel_calls)
