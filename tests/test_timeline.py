"""A record says when the work was done, and changes nothing about it."""

import gc
import itertools
import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import augment, crops, draws, quiet, spans
from helpers.spans import Span
from helpers.timing import Timeline
from helpers.timing import timeline as module

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402


class Log:
    """When Python was inside a function that a pipeline calls, by the clock of the system."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def work(self, number):
        """Takes some time, and writes down from when to when."""
        enter = time.time()
        total = sum(range(20_000))
        self.times.append((enter, time.time()))
        return np.int64(number + 0 * total)

    def graph(self, number):
        # Declared to be without side effects, as decoding is: functions of a graph keep the rest in
        # order of their own accord.
        done = tf.numpy_function(self.work, [number], tf.int64, stateful=False)
        return tf.ensure_shape(done, [])


def numbers(count=8):
    return tf.data.Dataset.range(count)


def nothing_added(dataset):
    """Without the prefetch that TensorFlow puts at the end of a pipeline of its own accord."""
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    return dataset.with_options(options)


def consume(dataset) -> list:
    return list(dataset.as_numpy_iterator())


def of(line, stage) -> list[Span]:
    return [span for span in line.spans if span.stage == stage]


def hold(outer, inner) -> bool:
    """Whether each of the outer spans holds its inner `(enter, exit)`.

    Spans count from a zero of their own. It must lie where all of them fit.
    """
    pairs = list(zip(outer, inner, strict=True))
    latest = min(enter - span.start_s for span, (enter, _) in pairs)
    earliest = max(leave - span.stop_s for span, (_, leave) in pairs)
    return bool(pairs) and earliest <= latest


# A function


def test_a_call_lasts_from_before_its_work_until_after_it():
    line, log = Timeline(), Log()
    consume(numbers().map(line.timed(log.graph, "work")))
    assert len(log.times) == 8
    assert hold(of(line, "work"), log.times)


def test_work_that_needs_no_argument_starts_no_earlier():
    line, log, outside = Timeline(), Log(), tf.constant(5, tf.int64)
    dataset = numbers().map(line.timed(lambda number: number + log.graph(outside), "add"))
    assert consume(dataset) == list(range(5, 13))
    assert len(log.times) == 8
    assert hold(of(line, "add"), log.times)


WORK = {
    "a wider type": (np.int16, lambda x: tf.cast(x, tf.float32)),
    "a narrower type": (np.float32, lambda x: tf.cast(x, tf.uint8)),
    "a wider type, then a shape": (np.int16, lambda x: tf.reshape(tf.cast(x, tf.float32), [-1])),
    "a shape, then a wider type": (np.int16, lambda x: tf.cast(tf.reshape(x, [-1]), tf.float32)),
    "a narrower type, turned": (np.float32, lambda x: tf.transpose(tf.cast(x, tf.int16))),
    "turned": (np.int16, lambda x: tf.transpose(x)),
    "cut": (np.int16, lambda x: x[1:-1, 1:-1, 1:-1]),
    "scaled": (np.float32, lambda x: x * 2),
    "joined": (np.int16, lambda x: tf.concat([x, x], 0)),
}


@pytest.mark.parametrize("kind", WORK)
def test_the_optimiser_does_not_move_the_work_out_of_its_call(kind):
    # Work that is moved leaves a call of a microsecond, a thousandth of what the watch sees.
    dtype, function = WORK[kind]
    line, volume = Timeline(), np.ones((96, 128, 128), dtype)
    dataset = tf.data.Dataset.from_tensors(volume).repeat(9).map(line.timed(function, "work"))
    for _ in nothing_added(dataset.apply(line.watch("all"))):
        pass
    work, whole = (spans.lasting_ms(of(line, name)) for name in ("work", "all"))
    assert whole / 20 < work <= whole


def test_within_one_function_a_call_starts_once_its_argument_is_there():
    line, first, second = Timeline(), Log(), Log()
    timed = line.timed(second.graph, "second")
    consume(numbers().map(lambda x: timed(first.graph(x))))
    # By the clock of the system, not from the first start as spans are.
    for (_, begun, _), (_, ready) in zip(line._queued(), first.times, strict=True):
        assert begun >= ready


def test_calls_at_the_same_time_lie_in_lanes_of_their_own():
    line, both_here = Timeline(), threading.Barrier(2, timeout=60)

    def meet(number):
        both_here.wait()
        return number

    def work(number):
        return tf.ensure_shape(tf.numpy_function(meet, [number], tf.int64), [])

    options = tf.data.Options()
    options.threading.private_threadpool_size = 4  # two at the same time, on one core as well
    met = numbers().map(line.timed(work, "met"), num_parallel_calls=2).with_options(options)
    assert consume(met) == list(range(8))
    lanes = [span.lane for span in of(line, "met")]
    assert len(lanes) == 8 and set(lanes) == {0, 1}

    line, log = Timeline(), Log()
    consume(numbers().map(line.timed(log.graph, "alone")))
    assert {span.lane for span in line.spans} == {0}


STRUCTURES = {
    "scalar": lambda x: x + 1,
    "tuple": lambda x: (x, tf.cast(x, tf.float32)),
    "tuple of one": lambda x: (x,),
    "list": lambda x: [x, tf.strings.as_string(x)],
    "list inside": lambda x: {"a": [x, x + 1]},
    "dict in dict": lambda x: {"image": tf.fill([2, 3], x), "places": {"b": (x, x)}},
    "unknown length": lambda x: tf.range(x),
    "unknown rank": lambda x: tf.numpy_function(lambda v: v, [x], tf.int64),
    "constant": lambda x: {"a": x, "b": 3, "c": "text"},
    "nothing of the argument": lambda x: 7,
    "ragged": lambda x: tf.RaggedTensor.from_row_lengths(tf.range(x), [x]),
    "sparse": lambda x: tf.sparse.from_dense(tf.one_hot(x, 8)),
    "dataset": lambda x: tf.data.Dataset.range(x),
}


def comparable(value):
    if isinstance(value, tf.data.Dataset):
        return consume(value)
    dense = tf.sparse.to_dense(value) if isinstance(value, tf.SparseTensor) else value
    if isinstance(dense, tf.RaggedTensor):
        return dense.to_list()
    return np.asarray(dense).tolist()


def plain(dataset) -> list:
    leaves = (tf.nest.flatten(element) for element in dataset)
    return [[comparable(leaf) for leaf in element] for element in leaves]


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("calls", [None, 2])
def test_elements_their_order_and_their_spec_stay(name, calls):
    line, function = Timeline(), STRUCTURES[name]
    before = numbers().map(function, num_parallel_calls=calls)
    timed = numbers().map(line.timed(function, "f"), num_parallel_calls=calls)
    watched = before.apply(line.watch("w"))
    for after in (timed, watched):
        assert str(after.element_spec) == str(before.element_spec)
        assert after.cardinality() == before.cardinality()
        assert plain(after) == plain(before)
    assert len(of(line, "f")) == len(of(line, "w")) == 8


def test_a_function_of_several_arguments_gets_them_all():
    line, pairs = Timeline(), tf.data.Dataset.zip(numbers(), {"n": numbers()})
    assert consume(pairs.map(line.timed(lambda a, b: a * b["n"], "f")))[-1] == 49


def test_python_in_a_function_means_what_it_means_without_a_record():
    def branch(number):
        if number % 2 == 0:
            number = number * 10
        for _ in tf.range(2):
            number += 1
        return number

    expected = consume(numbers().map(branch))
    assert expected[:3] == [2, 3, 22]
    assert consume(numbers().map(Timeline().timed(branch))) == expected


def test_infinite_and_unknown_lengths_stay():
    line = Timeline()
    for dataset in (numbers().repeat(), numbers().filter(lambda x: x > 3)):
        assert dataset.apply(line.watch("w")).cardinality() == dataset.cardinality()


# A stage


def pictures(count=6):
    image = np.random.default_rng(3).integers(0, 200, (count, 20, 24, 1)).astype(np.int16)
    return tf.data.Dataset.from_tensor_slices({"image": image, "label": np.arange(count)})


STAGES = [crops.random((8, 8), seed=4), augment.stage([augment.Noise((0, 0.1))], seed=4)]


@pytest.mark.parametrize(
    ("stage", "own"), list(zip(STAGES, ["crops.random", "augment"], strict=True))
)
def test_a_stage_gives_the_same_stream_and_a_span_for_each_element(stage, own):
    line = Timeline()
    expected = consume(pictures().apply(stage))
    for timed, name in ((line.timed(stage), own), (line.timed(stage, "mine"), "mine")):
        dataset = pictures().apply(timed)
        assert dataset.element_spec == pictures().apply(stage).element_spec
        found = consume(dataset)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one["image"], other["image"])
        assert len(of(line, name)) == 6
    assert line.stages == (own, "mine")


def test_a_block_records_every_stage_applied_in_it_and_none_after_it():
    line = Timeline()

    def build():
        return pictures().apply(STAGES[0]).apply(STAGES[1])

    with line.recording():
        dataset = build()
    assert line.stages == ("crops.random", "augment")
    expected = consume(build())
    assert not line.spans
    for one, other in zip(consume(dataset), expected, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
    assert len(line.spans) == 12


def test_within_a_block_a_stage_is_recorded_once_and_a_watch_not_as_a_stage():
    line = Timeline()
    with line.recording():
        dataset = pictures().apply(line.timed(STAGES[0], "crop")).apply(line.watch("w"))
    consume(dataset)
    assert line.stages == ("crop", "w")
    assert len(line.spans) == 12


def test_a_call_begins_once_its_element_is_there():
    line, log = Timeline(), Log()

    def read(element):
        return element | {"label": log.graph(element["label"])}

    crop = crops.random((8, 8), seed=4, num_parallel_calls=1)
    dataset = pictures().map(line.timed(read)).apply(line.timed(crop, "crop"))
    consume(dataset.apply(line.watch("end")))
    for first, then in zip(of(line, "read"), of(line, "crop"), strict=True):
        assert first.stop_s <= then.start_s
    for first, then in zip(of(line, "crop"), of(line, "end"), strict=True):
        assert first.stop_s <= then.stop_s


@pytest.mark.parametrize("stage", [lambda d: d.batch(2), lambda d: d.map(lambda x: x)])
def test_a_stage_of_which_nothing_can_be_recorded_is_refused(stage):
    with pytest.raises(ValueError, match=r"'batches' records nothing.*line\.watch"):
        numbers().apply(Timeline().timed(stage, "batches"))


def test_names_are_needed_and_those_of_the_step_are_taken():
    line = Timeline()
    with pytest.raises(ValueError, match="no name"):
        numbers().map(line.timed(lambda x: x))
    for name in ("wait", "train"):
        with pytest.raises(ValueError, match="step"):
            numbers().map(line.timed(lambda x: x, name))
        with pytest.raises(ValueError, match="step"):
            line.watch(name)


# A watch


def source(log, count=8):
    """Numbers from a generator that writes down when each was asked for and when it was there."""

    def generate():
        for number in range(count):
            yield log.work(number)

    return tf.data.Dataset.from_generator(generate, output_signature=tf.TensorSpec([], tf.int64))


def test_a_watch_lasts_from_before_its_source_works_until_after_it():
    line, log = Timeline(), Log()
    assert consume(source(log).apply(line.watch("read this"))) == list(range(8))
    assert line.stages == ("read this",)
    assert hold(of(line, "read this"), log.times)


@pytest.mark.parametrize("ahead", [False, True])
def test_the_clock_is_read_when_an_element_is_asked_for_not_ahead(ahead):
    # Were the stamps made ahead, an element would seem to have been asked for before it was.
    line, turns, log = Timeline(), [], Log()
    dataset = source(log)
    if ahead:
        dataset = dataset.map(lambda x: x + 0, num_parallel_calls=2).prefetch(2)
    iterator = iter(nothing_added(dataset.apply(line.watch("end"))))
    for _ in range(8):
        asked = time.time()
        next(iterator)
        turns.append((asked, time.time()))
        log.work(0)
    # This time the turns are outside: the spans must fit into them.
    inside = [(span.start_s, span.stop_s) for span in of(line, "end")]
    assert hold([Span("turn", *turn) for turn in turns], inside)


def test_a_watch_works_within_an_interleave():
    line = Timeline()

    def read(start):
        return tf.data.Dataset.range(start, start + 3).apply(line.watch("file"))

    starts = tf.data.Dataset.from_tensor_slices(np.array([0, 10, 20, 30]))
    dataset = starts.interleave(read, cycle_length=2, num_parallel_calls=2)
    assert sorted(consume(dataset)) == sorted(i + j for i in (0, 10, 20, 30) for j in range(3))
    assert len(of(line, "file")) == 12


def test_a_pipeline_outlives_the_name_of_its_timeline():
    def build():
        line = Timeline()
        return numbers().map(line.timed(lambda x: x, "f")).apply(line.watch("w"))

    dataset = build()
    gc.collect()
    assert consume(dataset) == list(range(8))


def test_spans_add_up_until_they_are_cleared():
    line = Timeline()
    assert line.spans == ()
    dataset = numbers().map(line.timed(lambda x: x, "f"))
    consume(dataset)
    assert len(line.spans) == 8 and line.spans[0].start_s == 0
    consume(dataset)
    assert len(line.spans) == len(line.spans) == 16
    line.clear()
    assert line.spans == ()


# Steps


def test_each_step_is_a_wait_and_then_its_work():
    line, log, seen = Timeline(), Log(), []

    def step(element):
        seen.append(int(log.work(element.numpy())))

    line.run(source(Log(), 20), step, steps=5, warmup=3)
    assert seen == list(range(8))
    assert [span.stage for span in line.spans] == ["wait", "train"] * 5
    edges = [edge for span in line.spans for edge in (span.start_s, span.stop_s)]
    assert edges == sorted(edges)
    assert hold(of(line, "train"), log.times[3:])


def test_a_wait_lasts_as_long_as_the_source_works():
    line, log = Timeline(), Log()
    line.run(nothing_added(source(log, 20)), lambda element: None, steps=6, warmup=2)
    assert hold(of(line, "wait"), log.times[2:8])


def test_the_warm_up_and_everything_before_it_is_forgotten():
    line, timed = Timeline(), []

    def tell(number):
        timed.append(int(number))
        return number

    def function(number):
        return tf.ensure_shape(tf.numpy_function(tell, [number], tf.int64), [])

    dataset = nothing_added(numbers(50).map(line.timed(function, "f")))
    consume(dataset.take(4))
    line.run(dataset, lambda element: None, steps=6, warmup=4)
    assert [span.stage for span in line.spans].count("train") == 6
    assert len(of(line, "f")) == 6
    line.run(dataset, lambda element: None, steps=2, warmup=0)
    assert len(of(line, "f")) == 2


def test_what_begins_when_the_steps_are_over_is_not_recorded(monkeypatch):
    line, gate, tick, steps = Timeline(), threading.Semaphore(0), module._now, 4
    moments = itertools.count(1)

    def passed(number):
        assert gate.acquire(timeout=60)
        return number

    def function(number):
        return tf.ensure_shape(tf.numpy_function(passed, [number], tf.int64), [])

    def now():
        moment = tick()
        if next(moments) == 3 * steps:  # the end of the last step: let the pipeline go on
            gate.release(3)
            until = time.monotonic() + 60
            while line._queue.size() < steps + 3 and time.monotonic() < until:
                threading.Event().wait(0.001)
        return moment

    monkeypatch.setattr(module, "_now", now)
    gate.release(steps)
    ahead = numbers(steps + 3).map(line.timed(function, "f")).prefetch(8)
    line.run(ahead, lambda element: None, steps=steps, warmup=0)
    end = max(span.stop_s for span in of(line, "train"))
    # The first of the three had begun before.
    assert steps <= len(of(line, "f")) <= steps + 1
    assert max(span.start_s for span in line.spans) <= end
    assert not line._queued()


def test_a_dataset_that_ends_begins_anew():
    line, seen = Timeline(), []
    line.run(numbers(3), lambda element: seen.append(int(element)), steps=5, warmup=2)
    assert seen == [0, 1, 2, 0, 1, 2, 0]


def test_no_element_is_kept_while_the_next_one_is_made():
    line, seen, alive = Timeline(), [], []

    def generate():
        for number in range(6):
            alive.extend(reference() is not None for reference in seen[-1:])
            yield np.full(1000, number)

    spec = tf.TensorSpec([1000], tf.int64)
    dataset = nothing_added(tf.data.Dataset.from_generator(generate, output_signature=spec))
    line.run(dataset, lambda element: seen.append(weakref.ref(element)), steps=4, warmup=1)
    assert len(alive) == 4 and not any(alive)


@pytest.mark.parametrize(("steps", "warmup"), [(0, 3), (-1, 0), (2, -1)])
def test_numbers_of_steps_that_are_none_are_refused(steps, warmup):
    with pytest.raises(ValueError, match="steps are 1 or more"):
        Timeline().run(numbers(), print, steps=steps, warmup=warmup)


def test_a_dataset_without_elements_is_refused():
    with pytest.raises(ValueError, match="no elements"):
        Timeline().run(numbers(0), print, steps=1)


def test_an_error_of_the_step_comes_through_and_the_timeline_goes_on():
    line = Timeline()
    dataset = numbers().map(line.timed(lambda x: x, "f"), num_parallel_calls=2).prefetch(2)
    with pytest.raises(ZeroDivisionError):
        line.run(dataset, lambda element: 1 // 0, steps=3)
    line.run(dataset, lambda element: None, steps=3)
    assert len(of(line, "train")) == 3


def test_fed_and_waiting_are_what_the_clock_says(monkeypatch):
    # Two warm-up turns, then waits of 1, 3 and 2 seconds before steps of 2, 1 and 3.
    clock = itertools.chain([0, 1, 2, 3], [10, 11, 13, 16, 16, 17, 17, 19, 22])
    line = Timeline()
    monkeypatch.setattr(module, "_now", lambda: float(next(clock)))
    line.run(numbers(), lambda element: None, steps=1, warmup=0)
    assert line.fed == 0.5 and line.waiting_ms == 1000

    clock = iter([0, 0, 0, 0, 10, 11, 13, 13, 16, 17, 17, 19, 22])
    line.run(numbers(), lambda element: None, steps=3, warmup=2)
    assert line.fed == pytest.approx(6 / 12)
    assert line.waiting_ms == 2000
    assert [span.start_s for span in line.spans] == [0, 1, 3, 6, 7, 9]


def test_without_steps_nobody_knows_how_well_they_are_fed():
    line = Timeline()
    consume(numbers().apply(line.watch("w")))
    for ask in (lambda: line.fed, lambda: line.waiting_ms):
        with pytest.raises(ValueError, match="no step was recorded"):
            ask()


def test_nobody_watches_once_a_stage_is_applied():
    line, names = Timeline(), []

    def wrap(name, function):
        names.append(name)
        return function

    with draws.watched(wrap):
        pictures().apply(line.timed(STAGES[0])).apply(STAGES[1])
    assert names == ["augment"]


# Arithmetic on spans

ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(0, 12)).map(
        lambda row: (row[0], float(row[1]), float(row[1] + row[2]))
    ),
    max_size=30,
)
law = settings(derandomize=True, deadline=None, max_examples=200)


def inside(rows, stage, moment) -> int:
    return sum(name == stage and start <= moment < stop for name, start, stop in rows)


@law
@given(ROWS)
def test_lanes_hold_every_call_without_overlap_and_are_as_few_as_will_do(rows):
    found = spans.in_lanes(rows)
    assert sorted((span.stage, span.start_s, span.stop_s) for span in found) == sorted(rows)
    assert [span.start_s for span in found] == sorted(span.start_s for span in found)
    for stage in "ab":
        mine = [span for span in found if span.stage == stage]
        for lane in {span.lane for span in mine}:
            held = [span for span in mine if span.lane == lane]
            assert all(a.stop_s <= b.start_s for a, b in itertools.pairwise(held))
        longer = [row for row in rows if row[0] == stage and row[1] < row[2]]
        if longer and len(longer) == len(mine):
            most = max(inside(rows, stage, start) for _, start, _ in longer)
            assert {span.lane for span in mine} == set(range(most))


@law
@given(ROWS)
def test_overlapping_work_counts_once(rows):
    mine = [span for span in spans.in_lanes(rows) if span.stage == "a"]
    # Whole seconds: count those in which at least one call was at work.
    assert spans.busy(mine) == sum(inside(rows, "a", moment) > 0 for moment in range(60))


@law
@given(ROWS, st.integers(0, 30), st.integers(1, 20))
def test_a_window_keeps_what_lies_in_it(rows, start, length):
    cut = spans.within(spans.in_lanes(rows), start, start + length)
    found = [(span.stage, span.start_s, span.stop_s) for span in cut]
    assert all(0 <= a <= b <= length for _, a, b in found)
    for stage, moment in itertools.product("ab", range(length)):
        assert inside(found, stage, moment) == inside(rows, stage, start + moment)


def test_the_window_is_that_of_the_steps():
    rows = [("read", 0.0, 9.0), ("wait", 1.0, 2.0), ("train", 2.0, 5.0)]
    assert spans.window(spans.in_lanes(rows)) == (1, 5)
    assert spans.window(spans.in_lanes(rows[:1])) == (0, 9)
    assert spans.fed(spans.in_lanes(rows)) == 0.75
    with pytest.raises(ValueError, match="nothing was recorded"):
        spans.window(())
