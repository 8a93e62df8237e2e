"""From the cache to the model: its elements as a dataset, and the swap as a callback of Keras."""

from __future__ import annotations

import itertools
import warnings

from helpers import memory


class Reminder:
    """Says once that nobody swaps.

    Args:
        needed: False if there is nothing to swap, or, later, somebody who does.
    """

    def __init__(self, needed: bool) -> None:
        self.needed = needed

    def say(self) -> None:
        """Warn, unless it is not needed or was said before."""
        if self.needed:
            self.needed = False
            warnings.warn(
                "two epochs of a SmartCache were read, and nobody swaps: pass cache.callback() to "
                "fit, or call cache.swap() after each epoch",
                stacklevel=2,
            )


def dataset(cache, indices, reminder: Reminder):
    """What `SmartCache.dataset` returns; it keeps the cache alive."""
    from helpers import draws
    from helpers.draws import tf  # which imports it without the greeting

    spec = cache.element_spec
    leaves = tf.nest.flatten(spec)
    if indices is None:
        indices = tf.data.Dataset.range(len(cache))
    draws.check_indices(indices)
    size = tf.get_static_value(indices.cardinality())
    size = len(cache) if size is None or size < 1 else int(size)
    reads = itertools.count(1)

    def fetch(place):
        if next(reads) == 2 * size:
            reminder.say()
        if not 0 <= place < len(cache):
            raise ValueError(f"place {place} is asked for, of {len(cache)} in the cache")
        return tf.nest.flatten(cache[place])

    # Made within a graph, for instance in `interleave`, nothing but that graph keeps the dataset.
    fetching = memory.weakly(fetch) if tf.executing_eagerly() else fetch

    def element(place, kept=fetch):  # mapped, so whoever holds the dataset holds the cache
        del kept
        found = tf.numpy_function(fetching, [place], [leaf.dtype for leaf in leaves])
        known = [tf.ensure_shape(one, leaf.shape) for one, leaf in zip(found, leaves, strict=True)]
        return tf.nest.pack_sequence_as(spec, known)

    return draws.map_named(indices, element, name="smart_cache", num_parallel_calls=None)


def callback(cache):
    """What `SmartCache.callback` returns."""
    import keras

    class SwapAtEpochEnd(keras.callbacks.Callback):
        """Swaps at the end of each epoch, and keeps what `swap` returned in the list `swaps`."""

        def __init__(self) -> None:
            super().__init__()
            self.swaps: list = []

        def on_epoch_end(self, epoch, logs=None) -> None:
            self.swaps.append(cache.swap())

    return SwapAtEpochEnd()
