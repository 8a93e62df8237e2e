"""A record says when the work was done, and changes nothing about it."""

import gc
import itertools
import time
import types
import weakref

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import augment, crops, stage
from helpers.timing import Timeline, spans
from helpers.timing import timeline as module

AS_WRITTEN = tf.data.Options()  # nothing is read ahead
AS_WRITTEN.experimental_optimization.inject_prefetch = False


class Log(list):
    """When Python was inside a function that a pipeline calls, by the clock of the system."""

    def work(self, number):
        enter = time.time()
        total = sum(range(20_000))
        self.append((enter, time.time()))
        return np.int64(number + 0 * total)


def numbers(function, count=8):
    """Numbers through a Python function, one after the other when they are asked for."""
    dataset = tf.data.Dataset.range(count)
    told = dataset.map(lambda n: tf.numpy_function(function, [n], tf.int64))
    return told.with_options(AS_WRITTEN)


def mapped(line, function, calls=None):
    """Numbers from 0 to 7 through a stage with this function, recorded."""
    with line.recording():
        return stage.mapped(tf.data.Dataset.range(8), function, name="f", num_parallel_calls=calls)


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


def test_a_call_lasts_from_before_its_work_until_after_it():
    line, log, outside = Timeline(), Log(), tf.constant(5, tf.int64)

    def work(number):
        # As decoding it has no side effects; what has some is kept in order by TensorFlow itself.
        # It needs nothing of the argument, so nothing of it has to wait for that.
        return number + tf.numpy_function(log.work, [outside], tf.int64, stateful=False)

    dataset = mapped(line, work)
    assert list(dataset.as_numpy_iterator()) == list(range(5, 13))
    assert len(log) == 8 and hold(of(line, "f"), log)


def test_between_a_call_and_its_stop_stands_what_the_optimiser_does_not_move():
    def work(x):
        return {"image": tf.reshape(tf.cast(x, tf.float32), [-1]), "same": x}

    recorded = tf.function(Timeline()._recorded("f", work), autograph=False)
    graph = recorded.get_concrete_function(tf.TensorSpec([4, 5, 6], tf.int16)).graph
    start, stop = (one for one in graph.get_operations() if one.type == "Timestamp")
    held = [one.op.inputs[0].op for one in graph.outputs]  # in front of a function's own identity
    assert [one.type for one in held] == ["EnsureShape"] * 2
    # An identity in its place would change sides with the cast: seen, a call of a microsecond.
    assert set(held) <= set(stop.control_inputs) and start in held[1].control_inputs


def many(x):
    ragged = tf.RaggedTensor.from_row_lengths(tf.range(x), [x])
    return {"a": ragged, "b": (tf.range(x), tf.strings.as_string(x)), "c": 3}


@pytest.mark.parametrize("function", [many, lambda x: (x, x + 1), lambda x: x])
def test_elements_their_order_their_number_and_their_spec_stay(function):
    line = Timeline()
    plain = stage.mapped(tf.data.Dataset.range(8), function, name="f", num_parallel_calls=2)
    for after in (mapped(line, function, calls=2), plain.apply(line.watch("w"))):
        assert str(after.element_spec) == str(plain.element_spec)
        assert str(list(after)) == str(list(plain))
    assert [len(of(line, one)) for one in "fw"] == [8, 8]
    for dataset in (plain.repeat(), plain, plain.filter(lambda *x: True)):
        watched = dataset.apply(Timeline().watch("w"))  # which outlives the name of its Timeline
        gc.collect()
        assert watched.cardinality() == dataset.cardinality() and next(iter(watched)) is not None


def test_a_block_records_the_stages_applied_in_it_and_none_after_it():
    image = np.random.default_rng(3).integers(0, 200, (6, 20, 24, 1)).astype(np.int16)
    pictures = tf.data.Dataset.from_tensor_slices({"image": image})

    def build():
        noisy = augment.stage([augment.Noise((0, 0.1))], seed=4)
        return pictures.apply(crops.random((8, 8), seed=4)).apply(noisy)

    line, expected = Timeline(), list(build().as_numpy_iterator())
    with line.recording():
        dataset = build().apply(line.watch("end"))
    assert line.stages == ["crops.random", "augment", "end"] and not line.spans
    for one, other in zip(dataset.as_numpy_iterator(), expected, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
    assert len(list(build())) == 6 and len(line.spans) == 18
    crop, noise, end = (of(line, name) for name in line.stages)
    ends = [sorted(span.stop_s for span in one) for one in (crop, noise, end)]
    assert np.less_equal(ends[0], [span.start_s for span in noise]).all()
    assert np.less_equal(ends[1], ends[2]).all()
    line.clear()
    assert line.spans == ()
    for name in ("wait", "train"):
        with pytest.raises(ValueError, match="step's own rows"):
            line.watch(name)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_watch_lasts_from_when_an_element_is_wanted_until_it_is_there(ahead):
    line, turns, log, other = Timeline(), [], Log(), Log()
    dataset = numbers(log.work).apply(line.watch("read this"))
    if ahead:
        dataset = dataset.map(lambda x: x + 0, num_parallel_calls=2).prefetch(2)
    iterator = iter(dataset.apply(line.watch("end")))
    for _ in range(8):
        asked = time.time()
        next(iterator)
        turns.append((asked, time.time()))
        other.work(0)
    assert hold(of(line, "read this"), log)
    # This time the turns are outside: the spans must fit into them.
    inside = [(span.start_s, span.stop_s) for span in of(line, "end")]
    assert hold([spans.Span("turn", *turn) for turn in turns], inside)


def test_a_run_is_waits_and_steps_and_the_spans_that_meet_it(monkeypatch):
    line, seen = Timeline(), []
    with pytest.raises(ValueError, match="nothing was recorded"):
        _ = line.fed
    # Three turns before it, then waits of 1, 3 and 2 seconds before steps of 2, 1 and 3.
    times = iter([0, 1, 2] * 3 + [10, 11, 13, 13, 16, 17, 17, 19, 22])
    monkeypatch.setattr(module, "time", types.SimpleNamespace(time=lambda: float(next(times))))
    recorded = iter([[(1, 2)], [], [(8, 9)], [(9, 10.5)], [(12, 14)], [(21, 25), (22.5, 23)]])
    number = line._number("read")

    def step(element):
        seen.append(int(element))
        for start, stop in next(recorded):
            line._queue.enqueue([number, start, stop])

    line._queue.enqueue([number, 3.0, 14.5])
    _ = line.spans  # read already, and still from before the run
    line.run(tf.data.Dataset.range(4), step, steps=3)
    assert seen == [0, 1, 2, 3, 0, 1]  # the dataset begins anew
    assert line.fed == pytest.approx(6 / 12)
    rows = {"wait": [(10, 11), (13, 16), (17, 19)], "train": [(11, 13), (16, 17), (19, 22)]}
    rows["read"] = [(9, 10.5), (12, 14), (21, 25)]
    for name, expected in rows.items():
        assert [(span.start_s + 9, span.stop_s + 9) for span in of(line, name)] == expected


def test_no_element_is_kept_while_the_next_one_is_made():
    seen, alive = [], []

    def generate(number):
        alive.extend(reference() is not None for reference in seen[-1:])
        return np.full(1000, number)

    run = Timeline().run
    run(numbers(generate, 6), lambda element: seen.append(weakref.ref(element)), steps=3)
    assert len(alive) == 5 and not any(alive)


ROW = st.tuples(st.sampled_from(["a", "wait"]), st.integers(0, 40), st.integers(0, 12))


def inside(rows, name, moment) -> int:
    return sum(one == name and start <= moment < stop for one, start, stop in rows)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.lists(ROW, max_size=30), st.integers(0, 30), st.integers(1, 20))
def test_lanes_are_few_overlaps_count_once_and_a_window_keeps_what_lies_in_it(drawn, start, length):
    rows = [(name, begin, begin + lasts) for name, begin, lasts in drawn]
    found = spans.in_lanes(rows)
    assert sorted((span.stage, span.start_s, span.stop_s) for span in found) == sorted(rows)
    assert [span.start_s for span in found] == sorted(span.start_s for span in found)
    cut = spans.within(found, start, start + length)
    cut = [(one.stage, one.start_s, one.stop_s) for one in cut]
    assert all(0 <= a <= b <= length for _, a, b in cut)
    for name in ("a", "wait"):
        mine = [span for span in found if span.stage == name]
        for lane in {span.lane for span in mine}:
            held = [span for span in mine if span.lane == lane]
            assert all(a.stop_s <= b.start_s for a, b in itertools.pairwise(held))
        at_once = [inside(rows, name, moment) for moment in range(60)]
        if all(span.start_s < span.stop_s for span in mine):
            assert {span.lane for span in mine} == set(range(max(at_once)))
        assert spans.busy(mine) == np.count_nonzero(at_once)
        lengths = [lasts for one, _, lasts in drawn if one == name] or [0]
        assert spans.lasting_ms(mine) == 1000 * np.median(lengths)
        kept = [inside(cut, name, moment) for moment in range(length)]
        assert kept == at_once[start : start + length]
    turns = [row for row in rows if row[0] == "wait"] or rows  # of the step, if there are any
    if turns:
        assert spans.window(found) == (min(r[1] for r in turns), max(r[2] for r in turns))
