"""Times are those of the elements that were read, and each stage is told its own costs."""

import itertools
import logging
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.framework import model_pb2

from helpers import stage, timing
from helpers.timing import costs, fresh, turns

AS_WRITTEN = tf.data.Options()  # nothing is read ahead
AS_WRITTEN.experimental_optimization.inject_prefetch = False
NUMBERS = tf.data.Dataset.range


class Clock:
    """In place of `time`: only the test moves it. `busy` cores work while somebody sleeps."""

    def __init__(self, monkeypatch, busy=()):
        self.now, self.worked, self.busy = 0.0, 0.0, iter(busy)
        self.perf_counter, self.process_time = lambda: self.now, lambda: self.worked
        monkeypatch.setattr(turns, "time", self)

    def sleep(self, seconds):
        self.now += seconds
        self.worked += seconds * next(self.busy, 0.0)

    def taking(self, times, note=lambda: None):
        """An iterator each of whose elements of 12 bytes takes so many ms."""
        for ms in times:
            note()
            self.now += ms / 1000
            yield np.full(3, 7, np.int32)


def by_hand(data: bytes) -> int:
    whole = len(data) // 8 * 8
    words = [int.from_bytes(data[i : i + 8], sys.byteorder) for i in range(0, whole, 8)]
    return (sum(words) + sum(data[whole:])) % 2**64


KINDS = st.sampled_from([np.uint8, np.int16, np.float32, np.float64, np.bool_])


@settings(derandomize=True, deadline=None, max_examples=25)
@given(arrays.arrays(KINDS, arrays.array_shapes(min_dims=0, max_dims=4, max_side=5)))
def test_a_look_adds_up_all_bytes_of_every_field_as_they_lie(array):
    texts = np.array([b"case", b"_7"], object)
    nested = {"a": array.T, "b": ({"c": tf.constant("case_7")}, texts), "d": tf.constant(array)}
    nested |= {"e": tf.constant([1], tf.bfloat16), "f": np.arange(9)[::2]}
    found = [array.T.tobytes(), b"case_7", b"case_7", array.tobytes(), b"\x80\x3f"]
    found.append(nested["f"].tobytes())
    assert turns.look(nested) == sum(map(by_hand, found)) % 2**64


def test_ms_median_spread_and_rates_are_those_of_the_repeats(monkeypatch):
    clock = Clock(monkeypatch)
    ms = [10, 2, 1230, 4, 20]
    times = itertools.chain([1000] * 2, *([one - 1, one + 1] for one in ms), [1000])
    result = timing.throughput(clock.taking(times), elements=2)
    assert result.ms == pytest.approx(ms) and result.elements == 2
    assert (result.median_ms, *result.spread_ms) == pytest.approx((10, 2, 1230))
    assert (result.mb, result.mb_per_s) == pytest.approx((12e-6, 12e-4))
    told = "10.00 ms an element (2.00 to 1,230.00, 5 x 2), 100.0 elements/s, 0 MB/s"
    assert str(result) == told


def test_a_step_takes_the_place_of_the_look_and_its_result_is_waited_for(monkeypatch):
    clock = Clock(monkeypatch)

    def loss(element):
        assert tf.is_tensor(element["image"])
        clock.now += 0.002
        return types.SimpleNamespace(numpy=lambda: setattr(clock, "now", clock.now + 0.1))

    dataset = NUMBERS(10).map(lambda n: {"image": n})
    assert timing.throughput(dataset, step=loss).ms == pytest.approx([2 + 100 / 10] * 5)


def counted(calls, n=4):
    """A dataset that keeps account of what was read, and when."""

    def note(value):
        calls.append(int(value))
        return value

    dataset = NUMBERS(n).map(lambda x: tf.numpy_function(note, [x], tf.int64))
    return dataset.with_options(AS_WRITTEN)


def test_repeats_are_epochs_or_go_on_from_one_iterator():
    calls, more, cached, seen = [], [], [], []
    assert timing.throughput(counted(calls), repeats=3).elements == 4
    assert calls == [0, 1, 2, 3] * 4  # one to warm up
    timing.throughput(counted(more, 100).repeat(), elements=3, repeats=3)
    assert more == list(range(12))
    timing.throughput(counted(cached).cache(), elements=3, repeats=2, step=seen.append)
    assert cached == [0, 1, 2, 3]  # the warm-up filled the cache, though a repeat is shorter
    assert [int(one) for one in seen] == [0, 1, 2, 3] + [0, 1, 2, 3, 0, 1]
    short = tf.data.Dataset.from_tensor_slices(np.zeros((5, 1000), np.float32)).batch(2)
    assert timing.throughput(short).mb == pytest.approx(5 * 4000 / 3 / 1e6)


REFUSED = [
    (lambda: timing.throughput(NUMBERS(0)), "empty"),
    (lambda: timing.throughput(NUMBERS(0), elements=3), "empty"),
    (lambda: timing.throughput(NUMBERS(3).repeat()), "no end: say how many"),
    (lambda: timing.throughput(iter([1])), "no end: say how many"),
    (lambda: next(timing.moving(np.zeros((8, 4, 1)), volume=(4, 8))), r"\(8, 4\) is no part"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_what_cannot_be_timed_is_refused_with_the_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_each_has_a_turn_in_every_round_another_one_begins_and_lead_ins_are_free(monkeypatch):
    clock = Clock(monkeypatch)
    order = []
    # The last one: 2 to warm up, 3 of the lead-in that lie ready, 2 at the real price.
    contenders = {
        name: clock.taking(itertools.cycle(times), lambda name=name: order.append(name))
        for name, times in {"a": [1], "b": [5], "c": [0, 0, 0, 0, 0, 3, 3]}.items()
    }
    results = timing.take_turns(contenders, elements=2, lead_in=3, repeats=1)
    assert "".join(order) == "aabbcc" + "aaaaabbbbbccccc"
    medians = {name: result.median_ms for name, result in results.items()}
    assert medians == pytest.approx({"a": 1, "b": 5, "c": 3})
    order.clear()
    timing.take_turns(contenders, elements={"a": 4, "b": 1, "c": 2}, repeats=2)
    assert "".join(order) == "aaaabcc" + "aaaaaabbccc" + "bbcccaaaaaa"  # a half leads in
    calls, again = [], []
    both = {"open": counted(calls, 100), "epoch": counted(again, 3)}
    results = timing.take_turns(both, elements={"open": 5, "epoch": None}, lead_in=1, repeats=2)
    assert calls == [*range(100), *range(12)] and again == [0, 1, 2] * 3
    assert [result.elements for result in results.values()] == [5, 3]


def test_before_a_turn_the_others_come_to_rest_and_alone_nobody_pauses(monkeypatch):
    clock = Clock(monkeypatch, [1.9, 0.9, 0.01, 1.0, 0.02, 0.0, 0.01, "never asked"])
    turns.settle()
    assert next(clock.busy) == "never asked"
    clock = Clock(monkeypatch, itertools.repeat(1.0))
    turns.settle()
    assert clock.now == pytest.approx(3, abs=0.01)  # seconds, if somebody never rests
    settled = []
    monkeypatch.setattr(turns, "settle", lambda: settled.append(1))
    endless = {name: clock.taking(itertools.repeat(1)) for name in "ab"}
    timing.throughput(endless["a"], elements=1)
    assert len(settled) == 1
    timing.take_turns(endless, elements=1, repeats=3)
    assert len(settled) == 1 + 2 + 2 * 3


@pytest.mark.parametrize("batch", [(), (2,), (2, 2)])
@pytest.mark.parametrize("volume", [(5, 6, 7), (9, 11)])
def test_the_floor_moves_boxes_of_volumes_into_memory_that_is_warm(volume, batch):
    crop = tuple(n - 2 for n in volume)
    image, mask = np.zeros((*batch, *crop, 1), np.float32), np.zeros((*batch, *crop, 1), bool)
    element = {"image": image, "mask": mask, "label": np.int32(3)}
    within = np.arange(np.prod(volume)).reshape(*volume, 1)[tuple(map(slice, crop))]
    starts, buffers = set(), set()
    moved = timing.moving(element, stored="int16", volume=volume)
    for images, masks in itertools.islice(moved, 12):
        assert (images.size, images.dtype, masks.dtype) == (image.size, np.float32, bool)
        buffers |= {images.ctypes.data, masks.ctypes.data}
        for one, mask in zip(images, masks, strict=True):
            np.testing.assert_array_equal(one, (one.flat[0] + within) % 101)  # as it counts on
            np.testing.assert_array_equal(mask, one > 0)
            starts.add(one.flat[0])
    assert len(starts) > 4 and len(buffers) == 2


def test_without_a_volume_the_first_element_is_copied_whole():
    slices = tf.data.Dataset.from_tensor_slices(np.full((4, 3, 50, 1), 300, np.float32))
    dataset = slices.batch(2)
    (moved,) = next(timing.moving(dataset, stored="bool"))
    assert moved.shape == (1, 2, 3, 50, 1) and set(moved.ravel()) == {0, 1}
    everywhere = itertools.islice(timing.moving(np.zeros((1, 1, 1)), volume=(3, 1)), 400)
    assert {int(one.item()) for (one,) in everywhere} == set(range(10 * 3))
    result = timing.floor(dataset, elements=3, repeats=2)
    assert (result.elements, len(result.ms), result.mb) == (3, 2, 2 * 3 * 50 * 4 / 1e6)


def look(batches, ms, source, *maps):
    """What TensorFlow has counted: (number, operation, inputs, calls, ms, calls at a time)."""
    rows = [(0, "Root", [1], 0, 0, 1), (1, "Prefetch", [2], 5, 1, 1)]
    rows += [(2, "MapAndBatch", [3], batches, ms, 2), (3, "ForeverRepeat", [source[0]], 20, 1, 1)]
    rows += [(source[0], "ParallelInterleaveV4", [9, *(one[0] for one in maps)], *source[1:], 2)]
    rows += [(one[0], "Map", [], *one[1:], 1) for one in maps]
    proto = model_pb2.ModelProto(output=0)
    for number, name, inputs, calls, ms, together in rows:
        node = proto.nodes[number]
        node.name, node.num_elements, node.processing_time = name, calls, int(ms * 1e6)
        node.buffered_bytes = calls * 10**6
        node.inputs.extend(inputs)
        node.parameters.add(name="cycle_length", value=99)
        node.parameters.add(name="parallelism", value=together)
    return proto


def test_what_is_told_is_what_the_clocks_counted_since_the_warm_up(monkeypatch):
    # 1 look before, 3 at 2 elements of 60 ms each.
    now = itertools.count(100, 0.02)
    fake = types.SimpleNamespace(perf_counter=now.__next__, process_time=lambda: 0.5 * next(now))
    looks = iter(
        [
            look(10, 100, (4, 9, 2), (10, 1, 10), (11, 2, 10)),
            look(12, 140, (4, 12, 3), (10, 3, 50), (11, 5, 30)),
            look(13, 210, (5, 4, 1), (11, 6, 70), (12, 1, 40)),
            look(14, 220, (5, 6, 1.4), (12, 2, 300)),
        ]
    )
    monkeypatch.setattr(costs, "time", fake)
    monkeypatch.setattr(tf.data.experimental, "get_model_proto", lambda iterator: next(looks))
    dataset = NUMBERS(9).interleave(NUMBERS).repeat().map(lambda x: x, name="cut").batch(2)
    table = timing.explain(dataset, elements=2)
    assert table.index.name == "60 ms an element, 0.5 cores at work" and not list(looks)
    columns = ["ms an element", "calls", "at a time", "MB ready", "at work"]
    assert list(table.columns) == columns
    assert {name: tuple(row) for name, row in table.iterrows()} == {
        "prefetch": (0, 0, 1, 5, 0),
        " cut + batch": (60, 4, 2, 14, 0.5),
        "  repeat": (0, 0, 1, 20, 0),
        "   interleave": (1.2, 3 + 6, 2, 12, 0.01),  # made anew by the repeat, it is one stage
        # In the interleave's threads, at work for longer than there was time: always.
        "    map": (200, 2 + 4 + 2, 2, 6, 1),
    }


def test_the_tree_is_the_pipeline_with_the_names_that_were_given(capfd, caplog):
    def add(x):
        return x + 1

    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    calls, numbers = [], NUMBERS(10**9)
    left = stage.mapped(numbers, add, name="crops.random", num_parallel_calls=2)
    right = numbers.map(add, name="decode").prefetch(1).map(add, name="cast")
    both = tf.data.Dataset.zip(left, right).batch(3).prefetch(1)
    nested = numbers.interleave(lambda n: numbers.map(add), cycle_length=2)
    zipped = "2 prefetch, 3 batch, 4 zip, 5 crops_random, 6 range, 5 cast, 6 prefetch, 7 decode"
    table = {  # the first prefetch is TensorFlow's own, the repeat ours
        f"0 prefetch, 1 repeat, {zipped}, 8 range": both,
        "0 prefetch, 1 repeat, 2 crops_random + batch, 3 range": left.batch(2),
        "0 prefetch, 1 shuffle + repeat, 2 cast, 3 prefetch, 4 decode, 5 range": right.shuffle(3),
        "0 repeat, 1 interleave, 2 map, 3 range, 2 range": nested.with_options(AS_WRITTEN),
        "0 repeat, 1 cache, 2 cache_impl": counted(calls).cache(),  # full, so what fills it is gone
        "0 prefetch, 1 repeat, 2 take, 3 range": numbers.take(9).with_options(untuned),
    }
    found = {}
    for expected, dataset in table.items():
        rows = [(len(name) - len(name.lstrip()), name) for name in timing.explain(dataset).index]
        found[expected] = ", ".join(f"{depth} {name.strip()}" for depth, name in rows)
    assert not [pair for pair in found.items() if pair[0] != pair[1]]
    assert calls == [0, 1, 2, 3]
    silent = not caplog.records and capfd.readouterr().err == ""
    assert silent and not logging.root.manager.disable


def test_memory_is_that_of_a_fresh_process(monkeypatch):
    monkeypatch.setattr(fresh, "time", None)  # whoever works here cannot sleep
    fields = NUMBERS(9).map(lambda n: tf.fill([25_000_000], tf.cast(n, tf.float32)))
    assert timing.held_mb(fields) > 95  # one element of 100 MB at least
    assert not hasattr(timing, "unknown")
