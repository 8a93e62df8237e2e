"""Which element comes next: the order of a pipeline, and what its labels and weights allow."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from helpers import arguments, draws, labels, memory, sampling
from helpers.errors import CourseDataError

Draw = tuple[np.ndarray, Sequence | None]  # probabilities, and the groups to keep in proportion


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of all elements before they are read; None where it is not.

    Args:
        labels: of each element, a class id or a vector of them.
        weights: of each element.
    """

    labels: Sequence | None = None
    weights: Sequence | None = None

    @classmethod
    def of(cls, elements: Sequence[dict]) -> Facts:
        """What elements in memory say."""

        def field(name: str) -> list | None:
            found = [elements[number].get(name) for number in range(len(elements))]
            return None if any(one is None for one in found) else [one.tolist() for one in found]

        return cls(field("label"), field("weight"))


@dataclasses.dataclass(frozen=True)
class Order:
    """How often and in which order elements come: the arguments of that name of a pipeline.

    Args:
        sampling: None, "automatic", "element", or a number from 0 for each element.
        shuffle, repeat, duplicate_count, seed: as of `pipeline.segmentation`.
        labelled: whether each element needs a label.
        label_format, classes: as of `pipeline.classification`.
    """

    sampling: str | Sequence[float] | None
    shuffle: bool
    repeat: bool
    duplicate_count: int
    seed: int
    labelled: bool = False
    label_format: Sequence[int] | None = None
    classes: Sequence | None = None

    def __post_init__(self) -> None:
        if isinstance(self.sampling, str) and self.sampling not in ("automatic", "element"):
            raise ValueError(
                f'sampling is "automatic", "element", probabilities or None, not {self.sampling!r}'
            )
        arguments.whole("duplicate_count", self.duplicate_count)

    @property
    def asks(self) -> bool:
        """Whether facts matter at all."""
        return self.labelled or self.sampling is not None

    def knows_enough(self, facts: Facts) -> bool:
        """Whether these facts suffice for `draw`."""
        if not isinstance(self.sampling, str):
            return True
        return (facts.labels if self.sampling == "automatic" else facts.weights) is not None

    def check(self, facts: Facts) -> None:
        """Refuse labels that are missing, or that are none of the classes.

        Raises:
            CourseDataError: `UNKNOWN_LABEL`, `EMPTY_CLASS`; elements are named by position.
        """
        if not self.labelled or facts.labels is None:
            return
        if self.label_format is None or self.classes is not None:
            sampling.automatic(facts.labels, self.classes)
        for number, label in enumerate(facts.labels if self.label_format is not None else ()):
            if label is None or np.all(np.asarray(label) == labels.MISSING):
                problem = f"items[{number}] has no label; label it, or leave it out"
                raise CourseDataError("UNKNOWN_LABEL", problem)
            labels.check(self.label_format, label, f"items[{number}]")

    def draw(self, count: int, facts: Facts) -> Draw | None:
        """What `sampling.indices` needs; None if nothing is to be drawn.

        Raises:
            CourseDataError: `EMPTY_CLASS`, `UNKNOWN_LABEL`, `BAD_WEIGHT`, `EMPTY_LIST`.
            ValueError: for another number of probabilities than of elements.
        """
        if self.sampling is None:
            return None
        if not isinstance(self.sampling, str):
            if len(self.sampling) != count:
                raise ValueError(f"{len(self.sampling)} probabilities for {count} elements")
            return sampling.element(self.sampling), None
        if self.sampling == "element":
            return sampling.element(
                [None] * count if facts.weights is None else facts.weights
            ), None
        if facts.labels is None:
            raise CourseDataError(
                "UNKNOWN_LABEL", 'sampling="automatic" balances labels, and no element has one'
            )
        return sampling.automatic(facts.labels, self.classes), facts.labels

    def numbers(self, count: int, facts: Facts) -> tf.data.Dataset:
        """The numbers of the elements, in the order in which they are to come.

        Args:
            count: of the elements.
            facts: about them.

        Returns:
            A dataset of int64 scalars that knows how long it is.
        """
        draw, size = self.draw(count, facts), count * self.duplicate_count
        if draw is not None:
            probabilities, groups = draw
            epochs = None if self.repeat else 1
            drawn = sampling.indices(
                probabilities, seed=self.seed, groups=groups, size=size, epochs=epochs
            )
            return _of_length(drawn, tf.data.INFINITE_CARDINALITY if self.repeat else size)
        numbers = tf.data.Dataset.range(count)
        if self.duplicate_count > 1:
            numbers = numbers.repeat(self.duplicate_count)
        if self.shuffle:
            numbers = numbers.shuffle(size, seed=self.seed)
        return numbers.repeat() if self.repeat else numbers

    def repeated(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """A dataset that has an order of its own, as often as it is to come."""
        if self.duplicate_count > 1:
            dataset = dataset.repeat(self.duplicate_count)
        return dataset.repeat() if self.repeat else dataset

    def numbers_of_now(self, elements: Sequence[dict]) -> tf.data.Dataset:
        """As `numbers`, drawn anew for each epoch from what the elements are by then.

        Args:
            elements: of a `SmartCache`, whose classes change with each swap.
        """
        count, epochs = len(elements), itertools.count()
        if self.sampling is None:
            return self.numbers(count, Facts())
        size = count * self.duplicate_count
        self.draw(count, Facts.of(elements))  # what is wrong now is said now

        def epoch(_) -> np.ndarray:
            draw = self.draw(count, Facts.of(elements))
            return one_epoch(draw, seed=self.seed, epoch=next(epochs), size=size)

        drawing = memory.weakly(epoch) if tf.executing_eagerly() else epoch

        def drawn(number, kept=epoch):  # mapped, so whoever holds the dataset holds the elements
            del kept
            numbers = tf.numpy_function(drawing, [number], tf.int64)
            return tf.ensure_shape(numbers, [size])

        once = tf.data.Dataset.range(1)
        numbers = draws.map_named(
            once.repeat() if self.repeat else once,
            drawn,
            name="pipeline.sampling",
            num_parallel_calls=None,
        )
        length = tf.data.INFINITE_CARDINALITY if self.repeat else size
        return _of_length(numbers.unbatch(), length)


def _of_length(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    return dataset.apply(tf.data.experimental.assert_cardinality(length))


def one_epoch(draw: Draw, *, seed: int, epoch: int, size: int | None = None) -> np.ndarray:
    """The draws of one epoch, which follow from its number, as `sampling.indices` has them.

    Args:
        draw: of `Order.draw`.
        seed: of all epochs.
        epoch: from 0.
        size: draws, by default as many as there are elements.

    Returns:
        int64 `[size]`.
    """
    probabilities, groups = draw
    random = np.random.default_rng([seed, epoch])
    return sampling.epoch(probabilities, random=random, groups=groups, size=size)
