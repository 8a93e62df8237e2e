"""A record says when the work was done, and changes nothing about it."""

import gc
import itertools
import time
import types
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import augment, crops, quiet, stage
from helpers.timing import Timeline, spans
from helpers.timing import timeline as module

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import config_pb2  # noqa: E402
from tensorflow.python.framework import meta_graph  # noqa: E402
from tensorflow.python.grappler import tf_optimizer  # noqa: E402

law = settings(derandomize=True, deadline=None, max_examples=25)


class Log:
    """When Python was inside a function that a pipeline calls, by the clock of the system."""

    def __init__(self):
        self.times = []

    def work(self, number):
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


def mapped(line, dataset, function, name="f", calls=None):
    """A stage with this function, recorded."""
    with line.recording():
        return stage.mapped(dataset, function, name=name, num_parallel_calls=calls)


def consume(dataset) -> list:
    return list(dataset.as_numpy_iterator())


def of(line, name) -> list:
    return [span for span in line.spans if span.stage == name]


def hold(outer, inner) -> bool:
    """Whether each of the outer spans holds its inner `(enter, exit)`.

    Spans count from a zero of their own. It must lie where all of them fit.
    """
    pairs = list(zip(outer, inner, strict=True))
    latest = min(enter - span.start_s for span, (enter, _) in pairs)
    earliest = max(leave - span.stop_s for span, (_, leave) in pairs)
    return bool(pairs) and earliest <= latest


# ---------------------------------------------------------------- a stage


def test_a_call_lasts_from_before_its_work_until_after_it():
    line, log, outside = Timeline(), Log(), tf.constant(5, tf.int64)
    # The work needs nothing of the argument, so that nothing of it has to wait.
    dataset = mapped(line, numbers(), lambda number: number + log.graph(outside))
    assert consume(dataset) == list(range(5, 13))
    assert len(log.times) == 8 and hold(of(line, "f"), log.times)


WORK = {
    "a wider type": lambda x: tf.cast(x, tf.float32),
    "a narrower type": lambda x: tf.cast(x, tf.uint8),
    "a wider type, then a shape": lambda x: tf.reshape(tf.cast(x, tf.float32), [-1]),
    "a shape, then a wider type": lambda x: tf.cast(tf.reshape(x, [-1]), tf.float32),
    "turned, a wider type": lambda x: tf.cast(tf.transpose(x), tf.float32),
    "scaled, beside the same": lambda x: {"image": x * 2, "same": x},
    "a fixed value": lambda x: tf.fill([2, 3], tf.reduce_sum(x)),
}


def test_the_optimiser_moves_no_work_out_of_its_call():
    moved = []
    for kind, work in WORK.items():
        spec = tf.TensorSpec([4, 5, 6], tf.int16)
        recorded = tf.autograph.experimental.do_not_convert(Timeline()._recorded("f", work))
        graph = tf.function(recorded).get_concrete_function(spec).graph
        ends = [one.name for one in (*graph.outputs, *graph.control_outputs)]
        wanted = meta_graph.create_meta_graph_def(graph=graph)
        wanted.collection_def["train_op"].node_list.value.extend(ends)
        config = config_pb2.ConfigProto()
        config.graph_options.rewrite_options.min_graph_nodes = -1
        nodes = tf_optimizer.OptimizeGraph(config, wanted).node
        inputs = {n.name: [i.lstrip("^").split(":")[0] for i in n.input] for n in nodes}

        def before(name):
            return set(inputs[name]).union(*map(before, inputs[name]))  # noqa: B023

        start, stop = sorted((n.name for n in nodes if n.op == "Timestamp"), key=len)
        around = {"Placeholder", "Const", "Identity", "NoOp", "Timestamp", "QueueEnqueueV2"}
        for node in nodes:
            inside = start in before(node.name) and node.name in before(stop)
            if node.op not in around and not inside:
                moved.append(f"{kind}: {node.op}")
    assert not moved


STRUCTURES = {
    "scalar": lambda x: x + 1,
    "tuple": lambda x: (x, tf.cast(x, tf.float32)),
    "dict": lambda x: {"image": tf.fill([2, 3], x), "case": tf.strings.as_string(x)},
    "unknown length": lambda x: tf.range(x),
    "unknown rank": lambda x: tf.numpy_function(lambda v: v, [x], tf.int64),
    "constant": lambda x: {"a": x, "b": 3, "c": "text"},
    "ragged": lambda x: tf.RaggedTensor.from_row_lengths(tf.range(x), [x]),
}


@pytest.mark.parametrize("calls", [None, 2])
def test_elements_their_order_and_their_spec_stay(calls):
    wrong = []
    for name, function in STRUCTURES.items():
        line = Timeline()
        plain = stage.mapped(numbers(), function, name="f", num_parallel_calls=calls)
        for after in (mapped(line, numbers(), function, calls=calls), plain.apply(line.watch("w"))):
            same = str(after.element_spec) == str(plain.element_spec)
            same &= after.cardinality() == plain.cardinality()
            if not same or str(list(after)) != str(list(plain)):
                wrong.append(name)
        if [len(of(line, one)) for one in "fw"] != [8, 8]:
            wrong.append(f"{name}: {line.spans}")
    assert not wrong
    for dataset in (numbers().repeat(), numbers().filter(lambda x: x > 3)):
        assert dataset.apply(Timeline().watch("w")).cardinality() == dataset.cardinality()


def test_a_block_records_the_stages_applied_in_it_and_none_after_it():
    image = np.random.default_rng(3).integers(0, 200, (6, 20, 24, 1)).astype(np.int16)
    pictures = tf.data.Dataset.from_tensor_slices({"image": image, "label": np.arange(6)})

    def build():
        noisy = augment.stage([augment.Noise((0, 0.1))], seed=4)
        return pictures.apply(crops.random((8, 8), seed=4)).apply(noisy)

    line, expected = Timeline(), consume(build())
    with line.recording():
        dataset = build().apply(line.watch("end"))
    assert line.stages == ["crops.random", "augment", "end"] and not line.spans
    for one, other in zip(consume(dataset), expected, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
    assert [len(of(line, name)) for name in line.stages] == [6, 6, 6]
    for first, then in itertools.pairwise(line.stages):  # what is there before, and what after
        pairs = list(zip(of(line, first), of(line, then), strict=True))
        assert all(one.stop_s <= other.stop_s for one, other in pairs)
    consume(build())
    assert len(line.spans) == 18
    line.clear()
    assert line.spans == ()


def test_the_names_of_the_step_are_taken():
    for call in (Timeline().watch, lambda name: mapped(Timeline(), numbers(), abs, name)):
        for name in ("wait", "train"):
            with pytest.raises(ValueError, match="step"):
                call(name)


def test_a_pipeline_outlives_the_name_of_its_timeline():
    dataset = mapped(Timeline(), numbers(), lambda x: x + 1).apply(Timeline().watch("w"))
    gc.collect()
    assert consume(dataset) == list(range(1, 9))


# ---------------------------------------------------------------- a watch


def source(log, count=8):
    """Numbers from a generator that writes down when each was asked for and when it was there."""
    spec = tf.TensorSpec([], tf.int64)
    return tf.data.Dataset.from_generator(
        lambda: map(log.work, range(count)), output_signature=spec
    )


def test_a_watch_lasts_from_before_its_source_works_until_after_it():
    line, log = Timeline(), Log()
    assert consume(source(log).apply(line.watch("read this"))) == list(range(8))
    assert hold(of(line, "read this"), log.times)


@pytest.mark.parametrize("ahead", [False, True])
def test_an_element_is_asked_for_when_somebody_wants_it_and_no_sooner(ahead):
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
    assert hold([spans.Span("turn", *turn) for turn in turns], inside)


def test_a_watch_works_within_an_interleave():
    line = Timeline()
    dataset = numbers(4).interleave(
        lambda n: tf.data.Dataset.range(n, n + 3).apply(line.watch("file")), cycle_length=2
    )
    assert len(consume(dataset)) == len(of(line, "file")) == 12


# ---------------------------------------------------------------- steps


def test_each_step_is_a_wait_and_then_its_work():
    line, log, reading, seen = Timeline(), Log(), Log(), []
    line.run(
        nothing_added(source(reading, 6)), lambda n: seen.append(int(log.work(n.numpy()))), steps=5
    )
    assert seen == [0, 1, 2, 3, 4, 5, 0, 1]  # 3 before, and the dataset begins anew
    assert [span.stage for span in line.spans] == ["wait", "train"] * 5
    edges = [edge for span in line.spans for edge in (span.start_s, span.stop_s)]
    assert edges == sorted(edges)
    assert hold(of(line, "train"), log.times[3:]) and hold(of(line, "wait"), reading.times[3:8])


def known(line, monkeypatch, clock, rows=()):
    """A run with a clock that is known, while stages record these `(start, stop)`."""
    monkeypatch.setattr(module, "time", types.SimpleNamespace(time=lambda: float(next(clock))))
    number = line._number("read")
    left = iter(rows)

    def step(element):
        for start, stop in next(left, ()):
            line._queue.enqueue([number, start, stop])

    line.run(numbers(), step, steps=3)


def test_spans_of_a_run_are_those_that_meet_it_and_fed_is_the_steps_share(monkeypatch):
    # Three turns before it, then waits of 1, 3 and 2 seconds before steps of 2, 1 and 3.
    clock = iter([0, 1, 2] * 3 + [10, 11, 13, 13, 16, 17, 17, 19, 22] * 2)
    line = Timeline()
    line._queue.enqueue([line._number("read"), 3.0, 4.0])
    rows = [[(1, 2)], [], [(8, 9)], [(9, 10.5)], [(12, 14)], [(21, 25), (22.5, 23)]]
    known(line, monkeypatch, clock, rows)
    assert line.fed == pytest.approx(6 / 12)
    turns = [(10, 11), (11, 13), (13, 16), (16, 17), (17, 19), (19, 22)]
    found = [(span.start_s + 9, span.stop_s + 9) for span in line.spans]
    assert sorted(found) == sorted(turns + [(9, 10.5), (12, 14), (21, 25)])
    assert [span.lane for span in of(line, "read")] == [0, 0, 0]


def test_without_steps_nobody_knows_how_well_they_are_fed():
    line = Timeline()
    consume(numbers().apply(line.watch("w")))
    with pytest.raises(ValueError, match="nothing was recorded"):
        _ = line.fed


def test_no_element_is_kept_while_the_next_one_is_made():
    line, seen, alive = Timeline(), [], []

    def generate():
        for number in range(6):
            alive.extend(reference() is not None for reference in seen[-1:])
            yield np.full(1000, number)

    spec = tf.TensorSpec([1000], tf.int64)
    dataset = nothing_added(tf.data.Dataset.from_generator(generate, output_signature=spec))
    line.run(dataset, lambda element: seen.append(weakref.ref(element)), steps=3)
    assert len(alive) == 5 and not any(alive)


# ---------------------------------------------------------------- arithmetic on spans

ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(0, 12)).map(
        lambda row: (row[0], float(row[1]), float(row[1] + row[2]))
    ),
    max_size=30,
)


def inside(rows, name, moment) -> int:
    return sum(one == name and start <= moment < stop for one, start, stop in rows)


@law
@given(ROWS, st.integers(0, 30), st.integers(1, 20))
def test_lanes_are_few_overlaps_count_once_and_a_window_keeps_what_lies_in_it(rows, start, length):
    found = spans.in_lanes(rows)
    assert sorted((span.stage, span.start_s, span.stop_s) for span in found) == sorted(rows)
    assert [span.start_s for span in found] == sorted(span.start_s for span in found)
    for name in "ab":
        mine = [span for span in found if span.stage == name]
        for lane in {span.lane for span in mine}:
            held = [span for span in mine if span.lane == lane]
            assert all(a.stop_s <= b.start_s for a, b in itertools.pairwise(held))
        most = max([inside(rows, name, moment) for moment in range(60)])
        if all(span.start_s < span.stop_s for span in mine):
            assert {span.lane for span in mine} == set(range(most))
        assert spans.busy(mine) == sum(inside(rows, name, moment) > 0 for moment in range(60))
    cut = spans.within(found, start, start + length)
    kept = [(span.stage, span.start_s, span.stop_s) for span in cut]
    assert all(0 <= a <= b <= length for _, a, b in kept)
    for name, moment in itertools.product("ab", range(length)):
        assert inside(kept, name, moment) == inside(rows, name, start + moment)


def test_the_window_is_that_of_the_steps_and_lengths_are_medians():
    rows = [("read", 0.0, 9.0), ("wait", 1.0, 2.0), ("train", 2.0, 5.0)]
    assert spans.window(spans.in_lanes(rows)) == (1, 5)
    assert spans.window(spans.in_lanes(rows[:1])) == (0, 9)
    assert spans.lasting_ms(spans.in_lanes(rows)) == 3000 and spans.lasting_ms([]) == 0
