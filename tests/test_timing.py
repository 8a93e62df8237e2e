"""Times are those of the elements that were read, and each stage is told its own costs."""

import itertools
import logging
import sys
import time
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers import quiet, stage, timing

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402
from tensorflow.core.framework import model_pb2  # noqa: E402

from helpers.timing import costs, turns  # noqa: E402

law = settings(derandomize=True, deadline=None, max_examples=25)
GREEDY = tf.data.Options()  # nothing is read ahead
GREEDY.experimental_optimization.inject_prefetch = False


class Clock:
    """In place of `time`: only the test moves it. `busy` cores work while somebody sleeps."""

    def __init__(self, monkeypatch, busy=()):
        self.now = self.worked = 0.0
        self.busy = iter(busy)
        monkeypatch.setattr(turns, "time", self)
        self.perf_counter = lambda: self.now
        self.process_time = lambda: self.worked

    def sleep(self, seconds):
        self.now += seconds
        self.worked += seconds * next(self.busy, 0.0)

    def taking(self, times, note=lambda: None):
        """An iterator each of whose elements of 12 bytes takes so many ms."""
        for ms in times:
            note()
            self.now += ms / 1000
            yield np.full(3, 7, np.int32)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def by_hand(data: bytes) -> int:
    whole = len(data) // 8 * 8
    words = [int.from_bytes(data[i : i + 8], sys.byteorder) for i in range(0, whole, 8)]
    return (sum(words) + sum(data[whole:])) % 2**64


KINDS = st.sampled_from([np.uint8, np.int16, np.float32, np.float64, np.bool_])


@law
@given(arrays.arrays(KINDS, arrays.array_shapes(min_dims=0, max_dims=4, max_side=5)), st.data())
def test_a_look_adds_up_all_bytes_as_they_lie(array, data):
    assert turns.look({"image": tf.constant(array)}) == by_hand(array.tobytes())
    raw = bytearray(array.tobytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    assert by_hand(bytes(raw)) != turns.look(array)


def test_a_look_sees_every_field_whatever_its_kind():
    image = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    flat = by_hand(image.tobytes()) + by_hand(b"case_7")
    for nested in ([image, b"case_7"], {"a": image, "b": ({"c": tf.constant("case_7")},)}):
        assert turns.look(nested) == flat
    assert turns.look([image, np.array([b"case", b"_8"], object)]) == flat + 1
    part = image[:, ::2, 1:]
    assert turns.look(part) == by_hand(part.tobytes())
    assert turns.look(tf.constant([1, 2], tf.bfloat16)) == by_hand(b"\x80\x3f\x00\x40")


def test_ms_median_spread_and_rates_are_those_of_the_repeats(clock):
    ms = [10, 2, 30, 4, 20]
    times = itertools.chain([1000] * 2, *([one - 1, one + 1] for one in ms), [1000])
    result = timing.throughput(clock.taking(times), elements=2)
    assert result.ms == pytest.approx(ms) and result.elements == 2
    assert (result.median_ms, *result.spread_ms) == pytest.approx((10, 2, 30))
    assert result.elements_per_s == pytest.approx(100)
    assert (result.mb, result.mb_per_s) == pytest.approx((12e-6, 12e-4))


def test_the_result_is_told_in_a_line():
    text = str(turns.Throughput((12.3, 11.0, 1234.5), elements=20, mb=128.45))
    assert text == ("12.30 ms an element (11.00 to 1,234.50, 3 x 20), 81.3 elements/s, 10,443 MB/s")


def test_a_step_takes_the_place_of_the_look_and_its_result_is_waited_for(clock):
    def loss(element):
        assert tf.is_tensor(element["image"])
        clock.now += 0.002
        return types.SimpleNamespace(numpy=lambda: setattr(clock, "now", clock.now + 0.1))

    dataset = tf.data.Dataset.range(10).map(lambda n: {"image": n})
    assert timing.throughput(dataset, step=loss).ms == pytest.approx([2 + 100 / 10] * 5)


def counted(calls, n=4):
    """A dataset that keeps account of what was read, and when."""

    def note(value):
        calls.append(int(value))
        return value

    dataset = tf.data.Dataset.range(n).map(lambda x: tf.numpy_function(note, [x], tf.int64))
    return dataset.with_options(GREEDY)


def test_repeats_are_epochs_or_go_on_from_one_iterator():
    calls, more, cached = [], [], []
    assert timing.throughput(counted(calls), repeats=3).elements == 4
    assert calls == [0, 1, 2, 3] * 4  # one to warm up
    timing.throughput(counted(more, 100).repeat(), elements=3, repeats=3)
    assert more == list(range(12))
    seen = []
    timing.throughput(counted(cached).cache(), elements=3, repeats=2, step=seen.append)
    assert cached == [0, 1, 2, 3]  # the warm-up filled the cache, though a repeat is shorter
    assert [int(one) for one in seen] == [0, 1, 2, 3] + [0, 1, 2, 3, 0, 1]


def test_a_short_last_batch_weighs_as_much_as_it_holds():
    dataset = tf.data.Dataset.from_tensor_slices(np.zeros((5, 1000), np.float32)).batch(2)
    assert timing.throughput(dataset, repeats=2).mb == pytest.approx(5 * 4000 / 3 / 1e6)


def test_what_cannot_be_timed_is_refused_with_the_reason():
    numbers = tf.data.Dataset.range
    table = [
        (lambda: timing.throughput(numbers(0)), "empty"),
        (lambda: timing.throughput(numbers(0), elements=3), "empty"),
        (lambda: timing.throughput(numbers(3).repeat()), "no end: say how many"),
        (lambda: timing.throughput(iter([1])), "no end"),
        (lambda: next(timing.moving(np.zeros((8, 4, 1)), volume=(4, 8))), r"\(8, 4\) is no part"),
        (lambda: next(timing.moving(np.zeros((4, 8, 1)), volume=(4, 4, 4))), "shape"),
    ]
    wrong = []
    for call, words in table:
        try:
            with pytest.raises(ValueError, match=words):
                call()
        except (AssertionError, pytest.fail.Exception) as failure:
            wrong.append(f"{words}: {failure}")
    assert not wrong, "\n".join(wrong)


def test_everybody_has_a_turn_in_each_round_another_one_begins_and_lead_ins_are_free(clock):
    order = []
    ready = [0, 0, 0]  # 2 to warm up or one of the lead-in, prepared while others were timed
    contenders = {
        name: clock.taking(itertools.cycle(times), lambda name=name: order.append(name))
        for name, times in {"a": [1], "b": [5], "c": [0, 0, *ready, 3, 3]}.items()
    }
    results = timing.take_turns(contenders, elements=2, lead_in=3, repeats=1)
    assert "".join(order) == "aabbcc" + "aaaaabbbbbccccc"
    assert {name: result.median_ms for name, result in results.items()} == pytest.approx(
        {"a": 1, "b": 5, "c": 3}
    )
    order.clear()
    timing.take_turns(contenders, elements={"a": 4, "b": 1, "c": 2}, repeats=2)
    assert "".join(order) == "aaaabcc" + "aaaaaabbccc" + "bbcccaaaaaa"  # a half leads in


def test_in_turns_epochs_begin_anew_and_iterators_stay_open():
    calls, again = [], []
    both = {"open": counted(calls, 100), "epoch": counted(again, 3)}
    results = timing.take_turns(both, elements={"open": 5, "epoch": None}, lead_in=1, repeats=2)
    assert calls == [*range(100), *range(12)]  # a whole epoch to warm up
    assert again == [0, 1, 2] * 3
    assert [result.elements for result in results.values()] == [5, 3]


def test_before_a_turn_the_others_come_to_rest_and_alone_nobody_pauses(monkeypatch):
    clock = Clock(monkeypatch, [1.9, 0.9, 0.01, 1.0, 0.02, 0.0, 0.01, "never asked"])
    turns.settle()
    assert next(clock.busy) == "never asked"
    clock = Clock(monkeypatch, itertools.repeat(1.0))
    turns.settle()
    assert clock.now == pytest.approx(turns.LONGEST_WAIT_S, abs=0.01)
    settled = []
    monkeypatch.setattr(turns, "settle", lambda: settled.append(1))
    timing.throughput(clock.taking(itertools.repeat(1)), elements=1)
    assert len(settled) == 1
    endless = {name: clock.taking(itertools.repeat(1)) for name in "ab"}
    timing.take_turns(endless, elements=1, repeats=3)
    assert len(settled) == 1 + 2 + 2 * 3


def boxes(shape, crop, channels):
    """All boxes of one of the volumes that are moved, by their first voxel."""
    values = (np.arange(10 * np.prod(shape) * channels) % 101).reshape(10, *shape, channels)
    windows = np.lib.stride_tricks.sliding_window_view(values, (1, *crop, channels))
    return windows.reshape(-1, *crop, channels)


@pytest.mark.parametrize(("batch", "channels"), [((), 1), ((2,), 3), ((2, 2), 1)])
@pytest.mark.parametrize("volume", [(5, 6, 7), (9, 11)])
def test_the_floor_moves_boxes_of_volumes_into_memory_that_is_warm(volume, batch, channels):
    crop = tuple(n - 2 for n in volume)
    image = np.zeros((*batch, *crop, channels), np.float32)
    mask = np.zeros((*batch, *crop, 1), np.uint8)
    move = timing.moving(
        {"image": image, "mask": mask, "label": np.int32(3)}, stored="int16", volume=volume
    )
    of_image, of_mask = boxes(volume, crop, channels), boxes(volume, crop, 1)
    places, buffers = set(), set()
    for images, masks in itertools.islice(move, 12):
        assert images.dtype == np.float32 and masks.dtype == np.uint8
        assert (images.size, masks.size) == (image.size, mask.size)
        buffers |= {images.ctypes.data, masks.ctypes.data}
        for one, its_mask in zip(images, masks, strict=True):
            found = np.flatnonzero((of_image == one).all(tuple(range(1, of_image.ndim))))
            assert any(np.array_equal(its_mask, of_mask[place]) for place in found)
            places.add(int(found[0]))
    assert len(places) > 4 and len(buffers) == 2


def test_without_a_volume_the_element_is_copied_whole_and_a_dataset_gives_its_first():
    dataset = tf.data.Dataset.from_tensors(np.zeros((3, 50, 1), np.float32)).repeat(4).batch(2)
    (moved,) = next(timing.moving(dataset, stored="uint8"))
    assert moved.shape == (1, 2, 3, 50, 1) and moved.dtype == np.float32
    assert np.isin(moved.ravel()[0], range(101)) and np.unique(moved).size == 101
    result = timing.floor(dataset, elements=3, repeats=2)
    assert (result.elements, len(result.ms), result.mb) == (3, 2, 2 * 3 * 50 * 4 / 1e6)


def told(monkeypatch, dataset, *looks):
    """What is told of clocks that are known: 1 look before, 3 at 2 elements of 50 ms each.

    A look has nodes: (number, operation, inputs, calls, ms, calls at a time).
    """
    monkeypatch.setattr(costs, "time", types.SimpleNamespace(process_time=lambda: 0.0))
    costs.time.perf_counter = itertools.count(100, 0.02).__next__
    protos = []
    for nodes in looks:
        proto = model_pb2.ModelProto(output=0)
        for number, name, inputs, calls, ms, together in [(0, "Root", [1], 0, 0, 1), *nodes]:
            node = proto.nodes[number]
            node.name, node.num_elements, node.processing_time = name, calls, int(ms * 1e6)
            node.buffered_bytes = calls * 10**6
            node.inputs.extend(inputs)
            node.parameters.add(name="cycle_length", value=99)
            node.parameters.add(name="parallelism", value=together)
        protos.append(proto)
    given = iter(protos)
    monkeypatch.setattr(tf.data.experimental, "get_model_proto", lambda iterator: next(given))
    table = timing.explain(dataset, elements=2)
    assert table.index.name == "50 ms an element, 0.0 cores at work" and not list(given)
    columns = ["ms an element", "calls", "at a time", "MB ready", "at work"]
    assert list(table.columns) == columns
    return {name: tuple(row) for name, row in zip(table.index, table.to_numpy(), strict=True)}


def test_what_is_told_is_what_the_clocks_counted_since_the_warm_up(monkeypatch):
    dataset = tf.data.Dataset.range(9).repeat().map(lambda x: x, name="cut").batch(2)

    def look(batches, ms, *source):
        fused = (2, "MapAndBatch", [3], batches, ms, 2)
        above = [(1, "Prefetch", [2], 5, 1, 1), fused, (3, "ForeverRepeat", [source[0]], 20, 1, 1)]
        return [*above, (source[0], "Range", [], *source[1:], 1)]

    looks = look(10, 100, 4, 9, 2), look(12, 140, 4, 12, 3), look(13, 250, 5, 4, 1)
    assert told(monkeypatch, dataset, *looks, look(14, 280, 5, 6, 2)) == {
        "prefetch": (0, 0, 1, 5, 0),
        " cut + batch": (90, 4, 2, 14, 0.9),
        "  repeat": (0, 0, 1, 20, 0),
        "   range": (1.5, 3 + 6, 1, 12, 0.03),  # made anew by the repeat, it is one stage
    }


def test_sources_of_an_interleave_are_one_stage_in_its_threads_wherever_they_stand(monkeypatch):
    dataset = tf.data.Dataset.range(9).repeat().interleave(lambda n: tf.data.Dataset.range(n))

    def look(sources, *maps):
        above = [(1, "ParallelInterleaveV4", [*sources, *(row[0] for row in maps)], 0, 0, 2)]
        above += [(2, "Range", [], 3, 0, 1)] if sources else []
        return above + [(number, "Map", [], calls, ms, 1) for number, calls, ms in maps]

    looks = look([2], (3, 1, 10), (4, 2, 10)), look([2], (3, 3, 50), (4, 5, 30))
    rows = told(
        monkeypatch, dataset, *looks, look([], (4, 6, 70), (5, 1, 40)), look([], (5, 2, 300))
    )
    assert rows[" map"] == (200, 2 + 4 + 2, 2, 6, 1)  # at work 4 times as long as there was: all


def test_the_tree_is_the_pipeline_with_the_names_that_were_given(monkeypatch):
    def add(x):
        return x + 1

    numbers = tf.data.Dataset.range(10**9)
    left = stage.mapped(numbers, add, name="crops.random", num_parallel_calls=2)
    right = numbers.shuffle(4).map(add, name="decode").prefetch(1).map(add, name="cast")
    both = tf.data.Dataset.zip(left, right).batch(3).prefetch(1)
    nested = numbers.interleave(lambda n: numbers.map(add), cycle_length=2)
    zipped = "2 prefetch, 3 batch, 4 zip, 5 crops_random, 6 range, 5 cast, 6 prefetch, 7 decode"
    table = {  # the first prefetch is TensorFlow's own, the repeat ours
        f"0 prefetch, 1 repeat, {zipped}, 8 shuffle, 9 range": both,
        "0 prefetch, 1 repeat, 2 crops_random + batch, 3 range": left.batch(2),
        "0 prefetch, 1 shuffle + repeat, 2 crops_random, 3 range": left.shuffle(3),
        "0 repeat, 1 interleave, 2 map, 3 range, 2 range": nested.with_options(GREEDY),
    }
    found = {}
    for expected, dataset in table.items():
        rows = [(len(name) - len(name.lstrip()), name) for name in timing.explain(dataset).index]
        found[expected] = ", ".join(f"{depth} {name.strip()}" for depth, name in rows)
    assert not [pair for pair in found.items() if pair[0] != pair[1]]


def test_a_clock_holds_the_work_of_its_stage_and_of_no_other():
    spent = []

    def wait(number):
        start = time.perf_counter()
        sum(range(100_000))
        spent.append(time.perf_counter() - start)
        return number

    numbers = tf.data.Dataset.range(10**9).map(lambda x: x + 1, name="before")
    reading = numbers.map(lambda x: tf.numpy_function(wait, [x], tf.int64), name="read")
    table = timing.explain(reading.with_options(GREEDY).repeat(), elements=6)
    own, whole = 1000 * sum(spent[-6:]) / 6, float(table.index.name.split()[0])
    read = table.loc[" read", "ms an element"]
    assert len(spent) == 7 and table.loc[" read", "calls"] == 6
    assert 0.98 * own <= read <= 1.02 * whole
    assert table["ms an element"].sum() - read <= 1.02 * whole - 0.98 * own
    assert read / whole == pytest.approx(table.loc[" read", "at work"], abs=0.03)


def test_caches_are_filled_first_and_what_they_spare_is_not_in_the_tree():
    for repeat in (False, True):
        calls = []
        cached = counted(calls).cache()
        table = timing.explain(cached.repeat() if repeat else cached, elements=8)
        assert calls == [0, 1, 2, 3]
        assert "cache" in table.index.str.strip() and "map" not in table.index.str.strip()


def test_a_dataset_without_autotuning_is_explained_in_silence(capfd):
    options = tf.data.Options()
    options.autotune.enabled = False
    timing.explain(tf.data.Dataset.range(100).with_options(options), elements=5)
    assert capfd.readouterr().err == "" and not logging.root.manager.disable


# ---------------------------------------------------------------- memory


def test_memory_is_that_of_a_fresh_process_whatever_this_one_held():
    large = np.ones(50_000_000)  # this process has 400 MB to use again
    del large
    zeros = tf.data.Dataset.range(9).map(lambda n: tf.fill([25_000_000], tf.cast(n, tf.float32)))
    assert timing.held_mb(zeros) > 95  # one element of 100 MB at least


def test_an_unknown_name_is_an_error_and_a_known_one_is_found():
    assert not hasattr(timing, "unknown") and timing.Timeline is not None
