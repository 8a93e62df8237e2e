"""Where the elements come from that are timed: datasets, iterables, functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from helpers.timing.looking import count_bytes, look

Source = Iterable | Callable[[], object]


class Feed:
    """The elements of a source and what is done with each.

    Args:
        source: a `tf.data.Dataset`, another iterable, or a function each of whose calls gives the
            next element.
        elements: a lap has so many, read from one iterator that is kept open; None: a lap is an
            epoch, from a new iterator.
        step: gets each element as tensors; None: `look`, at NumPy arrays that alias them.

    Raises:
        ValueError: for a source without end and no `elements`; for something else than a source.
    """

    def __init__(self, source: Source, elements: int | None, step: Callable | None) -> None:
        if elements is not None and elements < 1:
            raise ValueError(f"a repeat needs 1 element or more, not {elements}")
        self.elements = elements
        self.epoch = None  # elements of an epoch, if they are known before it is read
        self._use = step or look
        self._epochs = self._way_in(source, step is not None)
        self._open: Iterator | None = None

    def _way_in(self, source: Source, tensors: bool) -> Callable[[], Iterator]:
        endless = "say how many `elements` are to be timed"
        if hasattr(source, "element_spec") and hasattr(source, "as_numpy_iterator"):
            count = int(source.cardinality())
            if count == -1 and self.elements is None:  # tf.data.INFINITE_CARDINALITY
                raise ValueError(f"the dataset has no end: {endless}")
            self.epoch = count if count >= 0 else None
            if self.elements is not None and count != -1:
                source = source.repeat()
            return source.__iter__ if tensors else source.as_numpy_iterator
        if isinstance(source, Iterable):
            if iter(source) is source:
                if self.elements is None:
                    raise ValueError(f"an iterator can be read once only: {endless}")
                epochs = source.__iter__
            else:
                epochs = source.__iter__ if self.elements is None else lambda: _again(source)
        elif callable(source):
            if self.elements is None:
                raise ValueError(f"a function has no end: {endless}")
            epochs = lambda: (source() for _ in itertools.count())  # noqa: E731
        else:
            raise ValueError(
                "what is timed is a dataset, an iterable, or a function that gives the next "
                f"element at each call, not {type(source).__name__}"
            )
        return (lambda: map(as_tensors, epochs())) if tensors else epochs

    def lap(self, elements: int | None = None) -> tuple[int, int]:
        """Read one epoch, or the next `elements` (default: those of a lap).

        Returns:
            How many elements were read, and their bytes.

        Raises:
            ValueError: if there was none, or if an open iterator came to its end.
        """
        wanted = elements or self.elements
        if self.elements is None:
            stream = self._epochs()
        else:
            stream = itertools.islice(self.opened(), wanted)
        count, size, result = 0, 0, None
        for element in stream:
            result = self._use(element)
            size += count_bytes(element)
            count += 1
        if not count:
            raise ValueError("the dataset is empty: there is nothing to time")
        if self.elements is not None and count < wanted:
            raise ValueError(f"the elements came to an end after {count} of {wanted}")
        _finish(result)
        return count, size

    def opened(self) -> Iterator:
        """The iterator that is kept open."""
        if self._open is None:
            self._open = self._epochs()
        return self._open


def as_tensors(element):
    """The element with its arrays as tensors: copied, as Keras copies them."""
    import tensorflow as tf

    return tf.nest.map_structure(tf.convert_to_tensor, element)


def _again(source: Iterable) -> Iterator:
    for epoch in itertools.count():
        count = 0
        for element in source:
            count += 1
            yield element
        if not count:
            raise ValueError(f"the source is empty in epoch {epoch}: there is nothing to time")


def _finish(result) -> None:
    # A GPU may still be at work on the last step: the clock stops when its result is there.
    if hasattr(result, "numpy"):
        result.numpy()
