"""Who worked when: stages write down their start and stop inside the graph.

    line = timing.Timeline()
    dataset = dataset.apply(line.watch("read"))                           # asked, arrived
    dataset = dataset.map(line.timed(decode), num_parallel_calls=2)       # a function
    dataset = dataset.apply(line.timed(crops.random(size, seed=1), "crop"))     # a stage
    line.run(dataset.batch(5).prefetch(1), train_step, steps=20)
    show.timeline(line, title="The model waits")

No Python runs between the stages: the times are operations of the graph, and a queue of the graph
keeps them. Elements, their order and their specs stay as they are.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import tensorflow as tf

from helpers import draws, spans
from helpers.spans import STEP, WAIT, Span

Stage = Callable[[tf.data.Dataset], tf.data.Dataset]


class Timeline:
    """A record of when the stages of a pipeline, and the training step, were at work.

    Times come from the clock of the system (`tf.timestamp`): they are durations of the clock on the
    wall, not of processors, so a call that had to wait for a core is longer for it. One call costs
    tens of microseconds, `watch` about a hundred; a stage whose work is shorter is changed by being
    recorded. And TensorFlow does not fuse a recorded map with the `batch` behind it, which may have
    saved a copy.

    Attributes:
        stages: names of what is recorded, in the order in which the pipeline was built.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._rows: list[tuple[str, float, float]] = []
        # Without a limit, so that no stage ever waits for whoever reads the times.
        with tf.device("CPU:0"):
            self._queue = tf.queue.FIFOQueue(
                -1, [tf.int32, tf.float64, tf.float64], shapes=[[], [], []]
            )

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(self._names)

    def timed(self, work: Callable, name: str | None = None) -> Callable:
        """The same function or stage, with start and stop of every call recorded.

        Args:
            work: a function for `dataset.map`, or a stage of this course for `dataset.apply`.
                Which of the two it is shows when it is used: a stage is called with a dataset.
            name: of its row; by default the function's name, or the names that the functions of
                the stage have.

        Returns:
            What to use in its place. A call lasts from when its element was there until what it
            returns was made, whatever that takes.

        Raises:
            ValueError: when used, for a lambda without a name, for a name that the step has, and
                for a stage that maps no function of the course (`batch`, `shuffle`, a plain
                `dataset.map`), since nothing of it could be recorded.
        """

        def recorded(*arguments):
            if len(arguments) == 1 and isinstance(arguments[0], tf.data.Dataset):
                return self._apply(arguments[0], work, name)
            number = self._number(name or _name_of(work))
            start, arguments = _begun(arguments)
            # What `work` makes without its arguments starts no earlier either.
            with tf.control_dependencies([start]):
                result = work(*arguments)
            return _ended(self._queue, number, start, result)

        return recorded

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record every stage of the course that is applied within this block, under its own name.

        The way in for pipelines that a function builds:

            with line.recording():
                dataset = build()       # and without the block, the same without a record
        """
        with draws.watched(lambda name, function: self.timed(function, name)):
            yield

    def watch(self, name: str) -> Stage:
        """A stage that records, for each element, when it was asked for and when it arrived.

        After the source it shows reading; after a stage that works ahead (parallel calls,
        `prefetch`) it shows what the next one had to wait for. A watch at the end shows what the
        step waits for only if TensorFlow adds no prefetch behind it, as it does unless
        `options.experimental_optimization.inject_prefetch` is False; `run` shows it anyway.

        Args:
            name: of its row.

        Raises:
            ValueError: for a name that the step has.
        """
        number = self._number(name)

        def asked(count):
            del count
            return tf.timestamp()

        def arrived(start, element):
            return _ended(self._queue, number, start, element)

        def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
            # `zip` asks its inputs in their order, one after the other. The clock is an operation
            # with a state, so that TensorFlow leaves both maps sequential.
            with draws.watched(_unwatched):
                label = re.sub(r"\W", "_", f"watch_{name}", flags=re.ASCII)
                stamps = draws.map_named(
                    tf.data.Dataset.counter(), asked, name=label, num_parallel_calls=None
                )
                both = tf.data.Dataset.zip(stamps, dataset)
                return draws.map_named(both, arrived, name=label, num_parallel_calls=None)

        return apply

    def run(self, dataset: tf.data.Dataset, step: Callable, *, steps: int, warmup: int = 3) -> None:
        """Train: ask for an element, call `step` with it, and record both, as "wait" and "train".

        What was recorded before, and during the warm-up, is forgotten.

        Args:
            dataset: begins anew when it ends, as Keras does between epochs: the wait for that is
                recorded like every other.
            step: called with each element. Where there is a GPU, its work is waited for.
            steps: to record.
            warmup: steps before them, while buffers fill and graphs are compiled.

        Raises:
            ValueError: for numbers of steps that are none, and for a dataset without elements.
        """
        if steps < 1 or warmup < 0:
            raise ValueError(f"steps are 1 or more, a warm-up 0 or more, not {steps} and {warmup}")
        asynchronous = bool(tf.config.list_physical_devices("GPU"))
        rows = []
        with contextlib.closing(_endless(dataset)) as elements:
            self.clear()
            for turn in range(warmup + steps):
                if turn == warmup:
                    self.clear()
                asked = _now()
                element = next(elements)
                arrived = _now()
                step(element)
                if asynchronous:
                    tf.test.experimental.sync_devices()
                # Not kept while the next one is made: its memory may be used again.
                del element
                if turn >= warmup:
                    rows += [(WAIT, asked, arrived), (STEP, arrived, _now())]
        # The iterator has ended, and with it all calls. What began after the last step is none's.
        end = rows[-1][-1]
        self._rows += [row for row in self._queued() if row[1] <= end] + rows

    def clear(self) -> None:
        """Forget what was recorded."""
        self._queued()
        self._rows.clear()

    @property
    def spans(self) -> tuple[Span, ...]:
        """Everything recorded so far, sorted by start, in seconds from the first start."""
        self._rows += self._queued()
        zero = min((start for _, start, _ in self._rows), default=0.0)
        # A clock that was set back during a call must not give it a negative length.
        return spans.in_lanes(
            (stage, start - zero, max(start, stop) - zero) for stage, start, stop in self._rows
        )

    @property
    def fed(self) -> float:
        """The fraction of the time in which the step worked; ValueError before a `run`."""
        return spans.fed(self.spans)

    @property
    def waiting_ms(self) -> float:
        """The median wait of a step, in ms; ValueError before a `run`."""
        return spans.waiting_ms(self.spans)

    def _apply(self, dataset: tf.data.Dataset, stage: Stage, name: str | None) -> tf.data.Dataset:
        found = []

        def wrap(own: str, function: Callable) -> Callable:
            found.append(own)
            return self.timed(function, name or own)

        with draws.watched(wrap):
            result = stage(dataset)
        if not found:
            raise ValueError(
                f"{name or stage!r} records nothing: it maps no function of the course. Time the "
                "function, dataset.map(line.timed(function)), or put line.watch(name) after it"
            )
        return result

    def _number(self, name: str) -> int:
        if name in (WAIT, STEP):
            raise ValueError(f"{name!r} is what `run` calls the step's own rows; take another name")
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def _queued(self) -> list[tuple[str, float, float]]:
        """Takes what the graph has recorded out of the queue."""
        count = self._queue.size()
        if not count:
            return []
        columns = (column.numpy().tolist() for column in self._queue.dequeue_many(count))
        return [(self._names[i], start, stop) for i, start, stop in zip(*columns, strict=True)]


def _unwatched(name: str, function: Callable) -> Callable:
    del name
    return function


def _name_of(work: Callable) -> str:
    name = getattr(work, "__name__", "<lambda>")
    if name == "<lambda>":
        raise ValueError('it has no name of its own: line.timed(function, "decode")')
    return name


def _now() -> float:
    """Seconds, by the clock that the stages use."""
    return float(tf.timestamp())


def _endless(dataset: tf.data.Dataset) -> Iterator:
    """Epoch after epoch; it holds no element while the next is made."""
    while True:
        elements = iter(dataset)
        try:
            yield next(elements)
        except StopIteration:
            raise ValueError("the dataset has no elements: nothing to train on") from None
        yield from elements


@tf.autograph.experimental.do_not_convert
def _begun(arguments: tuple) -> tuple:
    """A start once the arguments are there, and the arguments not before the start."""
    with tf.control_dependencies(_tensors(arguments)):
        start = tf.timestamp()
    return start, _after([start], arguments)


@tf.autograph.experimental.do_not_convert
def _ended(queue: tf.queue.FIFOQueue, number: int, start, result):
    """The result, not before its stop is recorded."""
    with tf.control_dependencies([start, *_tensors(result)]):
        stop = tf.timestamp()
    return _after([queue.enqueue([number, start, stop])], result)


def _tensors(structure) -> list:
    return [one for one in tf.nest.flatten(structure, expand_composites=True) if tf.is_tensor(one)]


def _after(operations: list, structure):
    """The same tensors, once the operations are done; anything else as it is.

    With `tf.identity` in its place, TensorFlow's optimiser would swap a cast and the identity
    behind it, and so move the work out of what is timed.
    """
    with tf.control_dependencies([one for one in operations if one is not None]):
        return tf.nest.map_structure(
            lambda one: tf.ensure_shape(one, one.shape) if tf.is_tensor(one) else one,
            structure,
            expand_composites=True,
        )
