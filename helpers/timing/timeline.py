"""Who worked when: stages write down their start and stop inside the graph.

    line = timing.Timeline()
    with line.recording():                            # every stage of the course, by its name
        dataset = dataset.apply(crops.random(size, seed=1))
    dataset = dataset.batch(5).apply(line.watch("batch"))      # anything: asked, arrived
    line.run(dataset.prefetch(1), train_step, steps=20)
    show.timeline(line, title="The model waits")

No Python runs between the stages: the times are operations of the graph, and a queue of the graph
keeps them. Elements, their order and their specs stay as they are. A recorded stage holds that
queue, so it cannot be serialised and run in another process, as the same stage unrecorded can.
"""

import time
from collections.abc import Callable

import tensorflow as tf

from helpers import stage
from helpers.timing.spans import STEP, WAIT, busy, in_lanes, window

WARMUP = 3  # steps, while buffers fill and graphs are compiled


class Timeline:
    """A record of when the stages of a pipeline, and the training step, were at work.

    Times come from the clock of the system (`tf.timestamp`): a call that had to wait for a core
    lasts longer for it. A record costs some 10 to 20 microseconds, a watch some 100, and each of
    them a few milliseconds when an iterator starts. TensorFlow does not fuse a recorded map with
    the `batch` behind it.

    Attributes:
        stages: names of what is recorded, in the order in which the pipeline was built.

    Taught in: tuning the pipeline
    """

    def __init__(self) -> None:
        self.stages, self._rows = [], []
        # Without a limit: no stage waits for whoever reads the times.
        columns = [tf.int32, tf.float64, tf.float64]
        self._queue = tf.queue.FIFOQueue(-1, columns, shapes=[[], [], []])

    def recording(self):
        """Record every stage that is applied within this block, under its own name.

        The way in for pipelines that a function builds, and for functions of one's own
        (`stage.mapped(dataset, function, name="decode")`). A call lasts from when its element was
        there until all that it returns was made.
        """
        return stage.watched(self._recorded)

    def watch(self, name: str) -> Callable:
        """A stage that records, for each element, when it was asked for and when it arrived.

        After the source it shows reading; after a stage that works ahead (parallel calls,
        `prefetch`) what the next one had to wait for.

        Args:
            name: of its row.
        """
        number = self._number(name)

        def apply(dataset):
            # `zip` asks its inputs one after the other. Reading the clock is an operation with a
            # state, so TensorFlow leaves both maps sequential.
            asked = tf.data.Dataset.from_tensors(0).repeat().map(lambda _: tf.timestamp())
            both = tf.data.Dataset.zip(asked, dataset)
            return both.map(
                lambda start, element: self._ended(number, start, element), name="watch"
            )

        return apply

    def run(self, dataset: tf.data.Dataset, step: Callable, *, steps: int) -> None:
        """Train: ask for an element, call `step` with it, record both as "wait" and "train".

        Three steps before them, and all that was recorded earlier, are forgotten.

        Args:
            dataset: begins anew when it ends.
            step: called with each element. Where there is a GPU, its work is waited for.
            steps: to record, 1 or more.
        """
        elements, turns = iter(dataset.repeat()), []
        for _ in range(WARMUP + steps):
            asked = time.time()  # the clock that the stages use
            element = next(elements)
            arrived = time.time()
            step(element)
            tf.test.experimental.sync_devices()
            del element  # its memory may be used again for the next one
            turns += [(WAIT, asked, arrived), (STEP, arrived, time.time())]
        del elements  # and with it all calls end; what began after the last step is none's
        turns = turns[2 * WARMUP :]
        begin, end = turns[0][1], turns[-1][2]
        self._rows = turns + [row for row in self._queued() if row[2] > begin and row[1] <= end]

    def clear(self) -> None:
        """Forget what was recorded."""
        self._queued()
        self._rows.clear()

    @property
    def spans(self) -> tuple:
        """Everything recorded so far, sorted by start, in seconds from the first start."""
        self._rows += self._queued()
        zero = min((start for _, start, _ in self._rows), default=0.0)
        # A clock that was set back during a call must not give it a negative length.
        return in_lanes((name, a - zero, max(a, b) - zero) for name, a, b in self._rows)

    @property
    def fed(self) -> float:
        """The fraction of the time in which the step worked; ValueError before a `run`."""
        turns = [span for span in self.spans if span.stage in (WAIT, STEP)]
        start, stop = window(turns)
        return busy(span for span in turns if span.stage == STEP) / (stop - start)

    def _recorded(self, name: str, function: Callable) -> Callable:
        number = self._number(name)

        def recorded(*arguments):
            with tf.control_dependencies(tf.nest.flatten(arguments, expand_composites=True)):
                start = tf.timestamp()
            with tf.control_dependencies([start]):
                result = function(*arguments)
                result = tf.nest.map_structure(_pinned, result, expand_composites=True)
            return self._ended(number, start, result)

        return recorded

    def _ended(self, number: int, start: tf.Tensor, result):
        # A function of a graph ends only when all of its operations with a state are done.
        values = filter(tf.is_tensor, tf.nest.flatten(result, expand_composites=True))
        with tf.control_dependencies([start, *values]):
            stop = tf.timestamp()
        self._queue.enqueue([number, start, stop])
        return result

    def _number(self, name: str) -> int:
        if name in (WAIT, STEP):
            raise ValueError(f"{name!r} is what `run` calls the step's own rows; take another name")
        if name not in self.stages:
            self.stages.append(name)
        return self.stages.index(name)

    def _queued(self) -> list:
        columns = self._queue.dequeue_many(self._queue.size())
        rows = zip(*(column.numpy().tolist() for column in columns), strict=True)
        return [(self.stages[number], start, stop) for number, start, stop in rows]


def _pinned(value):
    # Or else TensorFlow's optimiser moves a cast behind the end of its function, out of the call.
    return tf.ensure_shape(value, value.shape) if tf.is_tensor(value) else value
