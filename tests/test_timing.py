"""Times are those of the elements that were read, and the stage that is named is the slow one."""

import itertools
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers import draws, timing
from helpers.timing import advice, feeds, looking, model, naming, resident

THROUGHPUT = sys.modules["helpers.timing.throughput"]  # the function of that name hides the module


class Clock:
    """A clock that only the test moves."""

    def __init__(self, monkeypatch):
        self.now_s = self.worked_s = 0.0
        monkeypatch.setattr(THROUGHPUT.time, "perf_counter", lambda: self.now_s)
        monkeypatch.setattr(THROUGHPUT.time, "process_time", lambda: self.worked_s)

    def taking(self, ms, value=7):
        """A source each of whose elements takes so long (or as long as the iterator says)."""
        each = ms if hasattr(ms, "__next__") else itertools.repeat(ms)

        def element():
            self.now_s += next(each) / 1000
            return np.full(3, value, np.int32)

        return element


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(THROUGHPUT, "settle", lambda: None)
    return Clock(monkeypatch)


# ---------------------------------------------------------------- every byte is looked at

ARRAYS = arrays.arrays(
    st.sampled_from([np.uint8, np.int16, np.float32, np.float64, np.bool_]),
    arrays.array_shapes(min_dims=0, max_dims=4, max_side=5),
    elements=st.just(1),
)


def by_hand(data: bytes) -> int:
    whole = len(data) // 8 * 8
    words = [int.from_bytes(data[i : i + 8], sys.byteorder) for i in range(0, whole, 8)]
    return (sum(words) + sum(data[whole:])) % 2**64


@given(ARRAYS)
def test_a_look_adds_up_the_bytes_as_they_lie(array):
    assert timing.look(array) == by_hand(array.tobytes())


@given(ARRAYS.filter(lambda a: a.size), st.data())
def test_one_byte_that_differs_changes_the_sum(array, data):
    raw = bytearray(array.tobytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    other = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
    assert timing.look(other) != timing.look(array)


def test_a_look_sees_all_fields_however_they_are_nested(tf):
    image, case = np.arange(60, dtype=np.float32).reshape(3, 4, 5), b"case_7"
    flat = timing.look([image, case])
    assert flat == timing.look({"image": image, "more": ({"case": case},)})
    assert flat == timing.look({"image": tf.constant(image), "case": tf.constant(case)})
    assert flat != timing.look([image]) and flat != timing.look([image, b"case_8"])
    assert timing.look(image[:, ::2, 1:]) == timing.look(image[:, ::2, 1:].copy())


def test_ragged_sparse_and_rare_types_are_looked_at(tf):
    ragged = tf.ragged.constant([[1, 2, 3], [4]])
    assert timing.look(ragged) == timing.look([ragged.row_splits, ragged.flat_values])
    sparse = tf.sparse.from_dense([[0.0, 2.0]])
    assert timing.look(sparse) == timing.look([sparse.indices, sparse.values])
    assert timing.look(tf.constant([1.0, 2.0], tf.bfloat16)) == by_hand(b"\x80\x3f\x00\x40")


def test_a_tensor_is_looked_at_where_it_lies(tf):
    tensor = tf.zeros([1000, 1000])
    assert np.shares_memory(looking.array(tensor), looking.array(tensor))
    with resident.Peak() as peak:
        timing.look(tf.zeros([10_000_000]))
    assert peak.mb < 60  # the tensor's own 40 and no copy of it


def test_bytes_are_counted_without_a_look(tf):
    element = {"image": tf.zeros([2, 3, 4, 1], tf.int16), "case": tf.constant(["ab", "cde"])}
    assert looking.count_bytes(element) == 2 * 3 * 4 * 2 + 5
    assert looking.count_bytes((np.zeros(5, np.float64), np.float32(1), b"xyz")) == 40 + 4 + 3


# ---------------------------------------------------------------- throughput


def test_the_time_of_an_element_is_that_of_the_elements_timed(clock):
    warm = itertools.chain([1000.0] * 4, itertools.cycle([2.0, 4.0]))
    result = timing.throughput(clock.taking(warm), elements=4, repeats=3)
    assert result.ms == pytest.approx((3.0, 3.0, 3.0))
    assert result.elements == 4 and result.mb == pytest.approx(12e-6)


def test_median_spread_and_rates_come_from_the_repeats(clock):
    per_repeat = [10.0, 2.0, 30.0, 4.0, 20.0]
    times = itertools.chain([0.0] * 2, *([ms] * 2 for ms in per_repeat))
    result = timing.throughput(clock.taking(times), elements=2)
    assert result.ms == pytest.approx(per_repeat)
    assert result.median_ms == pytest.approx(10) and result.spread_ms == pytest.approx((2, 30))
    assert result.elements_per_s == pytest.approx(100)
    assert result.mb_per_s == pytest.approx(12e-6 * 100)


def test_the_result_is_told_in_a_line():
    text = str(timing.Throughput((12.3, 11.0, 14.0), elements=20, mb=128.45, peak_mb=300.4))
    assert text == (
        "12.3 ms an element (11.0 to 14.0, 3 x 20), 81.3 elements/s, 10,443 MB/s, peak +300 MB"
    )


def test_the_look_and_the_step_are_inside_the_clock(clock, monkeypatch):
    def slow(element):
        clock.now_s += 0.005

    monkeypatch.setattr(feeds, "look", slow)
    assert timing.throughput(clock.taking(1), elements=2).median_ms == pytest.approx(6)
    monkeypatch.undo()


def test_a_step_takes_the_place_of_the_look_and_gets_tensors(tf, clock):
    seen = []

    def step(element):
        seen.append(element)
        clock.now_s += 0.002

    dataset = tf.data.Dataset.range(3).map(lambda n: {"image": n})
    assert timing.throughput(dataset, step=step, repeats=2).median_ms == pytest.approx(2)
    assert [int(element["image"]) for element in seen] == [0, 1, 2] * 3
    seen.clear()
    timing.throughput([{"image": np.ones(2)}], step=step, repeats=1)
    assert all(tf.is_tensor(element["image"]) for element in seen)


def test_what_the_last_step_of_a_repeat_returns_is_waited_for(clock):
    class Loss:
        def numpy(self):
            clock.now_s += 0.1

    result = timing.throughput(clock.taking(1), elements=10, repeats=2, step=lambda element: Loss())
    assert result.median_ms == pytest.approx(1 + 100 / 10)


def counting(tf, calls, n=4):
    """A dataset that keeps account of who asked for what."""

    def note(value):
        calls.append(int(value))
        return value

    mapped = draws.map_named(
        tf.data.Dataset.range(n),
        lambda x: tf.ensure_shape(tf.numpy_function(note, [x], tf.int64), []),
        name="note",
        num_parallel_calls=1,
    )
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    return mapped.with_options(options)


def test_a_repeat_of_a_finite_dataset_is_an_epoch(tf):
    calls = []
    result = timing.throughput(counting(tf, calls), repeats=3)
    assert calls == [0, 1, 2, 3] * 4  # one to warm up
    assert result.elements == 4 and len(result.ms) == 3
    calls.clear()
    timing.throughput(counting(tf, calls), repeats=1, warmup=0)
    assert calls == [0, 1, 2, 3]


def test_the_warm_up_fills_a_cache_although_a_repeat_is_shorter(tf):
    calls, asked_for = [], []
    cached = counting(tf, calls).cache()
    timing.throughput(cached, elements=2, repeats=2, step=lambda n: asked_for.append(int(n)))
    assert calls == [0, 1, 2, 3]
    assert asked_for == [0, 1, 2, 3, 0, 1, 2, 3]  # 4 to warm up, 2 x 2, from one iterator


def test_a_short_last_batch_weighs_as_much_as_it_holds(tf):
    dataset = tf.data.Dataset.from_tensor_slices(np.zeros((5, 1000), np.float32)).batch(2)
    result = timing.throughput(dataset, repeats=2)
    assert result.mb == pytest.approx(5 * 4000 / 3 / 1e6)


@pytest.mark.parametrize(
    ("source", "arguments", "says"),
    [
        ([], {}, "empty"),
        ([], {"elements": 3}, "empty"),
        (iter([1, 2, 3]), {"elements": 2}, "came to an end"),
        (iter([1]), {}, "once only"),
        (lambda: 1, {}, "no end"),
        ([1], {"elements": 0}, "1 element or more"),
        ([1], {"repeats": 0}, "at least 1 repeat"),
        ([1], {"warmup": -1}, "warm-up"),
        (7, {}, "not int"),
    ],
)
def test_what_cannot_be_timed_is_refused(source, arguments, says):
    with pytest.raises(ValueError, match=says):
        timing.throughput(source, **arguments)


def test_datasets_without_elements_or_without_end_are_refused(tf):
    with pytest.raises(ValueError, match="no end: say how many"):
        timing.throughput(tf.data.Dataset.range(3).repeat())
    for elements in (None, 3):
        with pytest.raises(ValueError, match="empty"):
            timing.throughput(tf.data.Dataset.range(0), elements=elements)


# ---------------------------------------------------------------- taking turns


def test_everybody_has_a_turn_in_each_round_and_the_first_one_changes(clock):
    order = []

    def source(name, ms):
        element = clock.taking(ms)

        def given():
            if order[-1:] != [name]:
                order.append(name)
            return element()

        return given

    contenders = {name: source(name, ms) for name, ms in (("a", 1), ("b", 5), ("c", 3))}
    results = timing.take_turns(contenders, elements=4, repeats=3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"  # the warm-up, then three rounds
    assert {name: result.median_ms for name, result in results.items()} == pytest.approx(
        {"a": 1, "b": 5, "c": 3}
    )
    assert list(results) == ["a", "b", "c"] and {len(r.ms) for r in results.values()} == {3}


def test_what_is_read_before_a_turn_is_not_counted(clock):
    # 2 to warm up; then in every turn 3 that were ready, and 2 at the real price.
    times = itertools.chain([0.0] * 2, itertools.cycle([0.0, 0.0, 0.0, 8.0, 8.0]))
    results = timing.take_turns({"a": clock.taking(times)}, elements=2, lead_in=3, repeats=4)
    assert results["a"].ms == pytest.approx([8.0] * 4)


def test_iterators_stay_open_and_epochs_begin_anew(tf):
    calls, again = [], []
    results = timing.take_turns(
        {"open": counting(tf, calls, n=100).repeat(), "epoch": counting(tf, again, n=3)},
        elements={"open": 5},
        lead_in=1,
        repeats=2,
    )
    assert calls[:17] == list(range(17))  # 5 to warm up, 2 x (1 + 5), never 0 again
    assert again == [0, 1, 2] * 3
    assert results["open"].elements == 5 and results["epoch"].elements == 3


def test_elements_for_somebody_who_does_not_run_are_refused():
    with pytest.raises(ValueError, match=r"\['c'\]"):
        timing.take_turns({"a": [1], "b": [1]}, elements={"c": 3})


def test_before_a_turn_the_threads_of_the_others_have_come_to_rest(monkeypatch):
    clock = Clock(monkeypatch)
    shares = iter([1.9, 0.9, 0.01, 1.0, 0.02, 0.0, 0.01, "never asked"])

    class Pause:
        def wait(self, seconds):
            clock.now_s += seconds
            clock.worked_s += seconds * next(shares)

    monkeypatch.setattr(THROUGHPUT.threading, "Event", Pause)
    THROUGHPUT.settle()
    assert next(shares) == "never asked"


def test_a_thread_that_never_rests_is_not_waited_for_for_ever(monkeypatch):
    clock = Clock(monkeypatch)

    class Pause:
        def wait(self, seconds):
            clock.now_s += seconds
            clock.worked_s += seconds

    monkeypatch.setattr(THROUGHPUT.threading, "Event", Pause)
    THROUGHPUT.settle()
    assert clock.now_s == pytest.approx(THROUGHPUT.LONGEST_WAIT_S, abs=0.1)


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("kept_by_the_system", [True, False])
def test_the_peak_is_seen_though_the_memory_is_given_back(kept_by_the_system, monkeypatch):
    if not kept_by_the_system:
        monkeypatch.setattr(resident, "_forget_the_peak", lambda: False)
    before = np.ones(10_000_000)
    with resident.Peak() as peak:
        if kept_by_the_system and peak._watcher is not None:
            pytest.skip("only Linux keeps the peak itself")
        held = np.ones(25_000_000)  # 200 MB
        if not kept_by_the_system:
            wait_until(lambda: peak.mb > 190)
        del held
    assert 190 < peak.mb < 260
    del before


def wait_until(done):
    """Give another thread time, as much as it may need on a busy machine."""
    for _ in range(12_000):
        if done():
            return
        threading.Event().wait(0.01)
    pytest.fail("two minutes were not enough")


def test_memory_that_was_given_back_before_is_not_counted():
    held = np.ones(25_000_000)
    del held
    with resident.Peak() as peak:
        pass
    assert peak.mb < 50


# ---------------------------------------------------------------- the floor


def boxes(volume, crop):
    """All boxes of a volume, by their first voxel."""
    windows = np.lib.stride_tricks.sliding_window_view(volume, crop)
    return windows.reshape(-1, *crop)


def the_volume(shape, channels):
    """What `moving` fills its volumes with."""
    return (np.arange(np.prod(shape) * channels) % 101).reshape(*shape, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [(), (2,), (2, 2)])
@pytest.mark.parametrize("volume", [(5, 6, 7), (9, 11)])
def test_the_floor_moves_boxes_of_the_volumes(volume, batch, channels):
    crop = tuple(n - 2 for n in volume)
    image = np.zeros((*batch, *crop, channels), np.float32)
    move = timing.moving(
        {"image": image, "mask": np.zeros((*batch, *crop, 1), np.uint8), "label": np.int32(3)},
        stored="int16",
        volume=volume,
    )
    of_image = boxes(the_volume(volume, channels), (*crop, channels))
    of_mask = boxes(the_volume(volume, 1), (*crop, 1))
    places = set()
    for _ in range(12):
        element = move()
        assert element["image"].shape == image.shape and element["image"].dtype == np.float32
        images = element["image"].reshape(-1, *crop, channels)
        masks = element["mask"].reshape(-1, *crop, 1)
        for one, mask in zip(images, masks, strict=True):
            (place,) = np.flatnonzero((of_image == one).all(tuple(range(1, of_image.ndim))))
            assert np.array_equal(mask, of_mask[place])  # cut at the same place
            places.add(int(place))
    assert len(places) > 4


def test_the_buffer_is_warm_from_the_second_element_on():
    move = timing.moving((np.zeros((4, 4, 1), np.float32), np.int32(1)), volume=(8, 8))
    first, _ = move()
    copy = first.copy()
    second, label = move()
    assert first is second and not np.array_equal(copy, second) and label.shape == ()


def test_without_a_volume_the_element_is_copied_whole_and_cast():
    move = timing.moving({"image": np.zeros((3, 50, 1), np.float32)}, stored="uint8")
    expected = (np.arange(150) % 101).reshape(3, 50, 1)
    assert np.array_equal(move()["image"], expected)


def test_an_element_its_spec_and_its_dataset_give_the_same_floor(tf):
    element = {"image": np.ones((4, 4, 1), np.float32), "case": b"name"}
    dataset = tf.data.Dataset.from_tensors(element)
    for like in (element, dataset.element_spec, dataset):
        moved = timing.moving(like)()
        assert moved["image"].shape == (4, 4, 1) and moved["image"].dtype == np.float32
        assert looking.count_bytes(moved) == 64  # a string is nothing to move
    unknown = dataset.batch(2)  # [None, 4, 4, 1]
    assert timing.moving(unknown)()["image"].shape == (1, 4, 4, 1)
    with pytest.raises(ValueError, match="size of a field"):
        timing.moving(unknown.element_spec)


def test_a_step_at_the_floor_gets_tensors_of_the_warm_buffer(tf):
    move = timing.moving({"image": np.zeros((2, 8, 1), np.float32)}, tensors=True)
    assert np.shares_memory(looking.array(move()["image"]), looking.array(move()["image"]))
    seen = []
    timing.floor(
        {"image": np.zeros((8, 1), np.float32)},
        elements=2,
        repeats=1,
        step=lambda element: seen.append(float(tf.reduce_sum(element["image"]))),
    )
    assert seen == [28.0] * 4


def test_the_floor_is_a_throughput_of_the_same_bytes():
    image = np.zeros((2, 16, 16, 16, 1), np.float32)
    result = timing.floor(image, stored="int16", volume=(20, 20, 20), elements=3, repeats=2)
    assert result.elements == 3 and len(result.ms) == 2
    assert result.mb == pytest.approx(image.nbytes / 1e6)


def test_a_crop_that_is_no_part_of_the_volume_is_refused():
    with pytest.raises(ValueError, match=r"\(8, 4\) is no part of a volume of \(4, 8\)"):
        timing.moving(np.zeros((8, 4, 1)), volume=(4, 8))
    with pytest.raises(ValueError, match="no part of a volume"):
        timing.moving(np.zeros((4, 1)), volume=(4, 4, 4))


# ---------------------------------------------------------------- explain


def heavy(tf, size=320):
    """A function of much work, without Python."""

    def work(x):
        matrix = tf.random.stateless_uniform([size, size], [1, 2])
        for _ in range(3):
            matrix = tf.tanh(matrix @ matrix / 100.0)
        return x + tf.cast(0 * tf.reduce_sum(matrix), tf.int64)

    return work


def waiting(tf, seconds=0.01):
    """A Python function that does nothing but wait, as for a disk."""

    def wait(x):
        threading.Event().wait(seconds)
        return x

    return lambda x: tf.ensure_shape(tf.numpy_function(wait, [x], tf.int64), [])


def spinning(n=400_000):
    while True:
        yield sum(range(n))


def light(x):
    return x + 1


def pipelines(tf):
    """name -> (dataset, name of the stage that was made the slow one)."""
    numbers = tf.data.Dataset.range(10**9)
    slow, wait = heavy(tf), waiting(tf)

    def mapped(dataset, function, name, calls=2):
        return draws.map_named(dataset, function, name=name, num_parallel_calls=calls)

    def nested(n):
        return lambda _: mapped(numbers.take(n), slow, "inner", None)

    spec = tf.TensorSpec((), tf.int64)
    large = tf.data.Dataset.from_tensors(tf.zeros([1000, 1000, 4])).repeat()
    return {
        "first of two": (mapped(mapped(numbers, slow, "slow"), light, "light"), "slow"),
        "last of two": (mapped(mapped(numbers, light, "light"), slow, "slow"), "slow"),
        "one call at a time": (mapped(mapped(numbers, slow, "slow", 1), light, "light"), "slow"),
        "fused": (mapped(mapped(numbers, light, "a"), slow, "slow").batch(2), "slow + batch"),
        "waiting": (mapped(mapped(numbers, wait, "read"), light, "light"), "read"),
        "branch of a zip": (
            tf.data.Dataset.zip(mapped(numbers, light, "light"), mapped(numbers, slow, "slow")),
            "slow",
        ),
        "inside of an interleave": (
            numbers.interleave(nested(1000), cycle_length=2, num_parallel_calls=2),
            "map",
        ),
        "in short sources": (numbers.flat_map(nested(3)).batch(2), "map"),
        "generator": (
            mapped(tf.data.Dataset.from_generator(spinning, output_signature=spec), light, "light"),
            "generator",
        ),
        "batch of large ones": (large.batch(8).map(lambda x: x[0, 0]), "batch"),
        "behind a cache": (
            mapped(mapped(numbers.take(4), wait, "read").cache().repeat(), slow, "slow"),
            "slow",
        ),
    }


CASES = [
    "first of two",
    "last of two",
    "one call at a time",
    "fused",
    "waiting",
    "branch of a zip",
    "inside of an interleave",
    "in short sources",
    "generator",
    "batch of large ones",
    "behind a cache",
]


def explained(dataset, slow, elements):
    """An explanation that names the slow stage, if one of several does.

    On a busy machine a quick stage may stand still for longer than the slow one takes. Clocks that
    are read at a wrong place name a wrong one every time.
    """
    for _ in range(6):
        seen = timing.explain(dataset, elements=elements)
        if seen.bottleneck.name == slow:
            return seen
    pytest.fail(f"{slow} is the slow one:\n{seen}")


@pytest.mark.parametrize("case", CASES)
def test_the_slow_stage_is_named(tf, case):
    seen = explained(*pipelines(tf)[case], elements=12)
    assert seen.ms > 0 and seen.elements == 12 and seen.cores >= 1


def test_the_tree_is_the_pipeline_from_the_result_to_the_sources(tf):
    numbers = tf.data.Dataset.range(10**9)
    left = draws.map_named(numbers, light, name="crops.random", num_parallel_calls=2)
    dataset = tf.data.Dataset.zip(left, numbers.shuffle(4)).batch(3).prefetch(1)
    stages = timing.explain(dataset, elements=5).stages
    assert [(stage.name, stage.depth) for stage in stages] == [
        ("prefetch", 0),
        ("batch", 1),
        ("zip", 2),
        ("crops_random", 3),
        ("range", 4),
        ("shuffle", 3),
        ("range", 4),
    ]
    by_name = {stage.name: stage for stage in stages}
    assert by_name["crops_random"].given and by_name["crops_random"].parallelism == 2
    assert not any(stage.added or stage.python for stage in stages)
    assert not by_name["batch"].given and by_name["batch"].operation.startswith("Batch")
    # 3 for each of 5 batches; more or fewer by what lay in buffers at the start and at the end.
    assert 10 <= by_name["zip"].calls <= 24


def test_datasets_that_a_function_makes_count_as_one(tf):
    numbers = tf.data.Dataset.range(10**6)
    dataset = numbers.interleave(
        lambda n: tf.data.Dataset.from_tensors(n).repeat(30).map(light), cycle_length=4
    )  # each source is open to the end: those that are not are not counted
    seen = timing.explain(dataset, elements=30)
    stages = [stage for stage in seen.stages if not stage.added]
    assert [stage.name for stage in stages] == [
        "interleave",
        "range",
        "map",
        "repeat",
        "from_tensors",
    ]
    assert stages[2].calls >= 0.9 * stages[0].calls > 25  # a few may lie in no source that is open


def test_what_tensorflow_added_is_told_from_what_was_written(tf):
    dataset = tf.data.Dataset.range(10**6).shuffle(3).batch(2)
    first = timing.explain(dataset, elements=4).stages[0]
    assert (first.name, first.added) == ("prefetch", True)
    assert not timing.explain(dataset.prefetch(2), elements=4).stages[0].added


def test_the_time_is_per_element_of_the_result(tf):
    numbers = tf.data.Dataset.range(10**9)
    read = draws.map_named(numbers, waiting(tf, 0.004), name="read", num_parallel_calls=2)
    options = tf.data.Options()
    options.experimental_optimization.map_and_batch_fusion = False
    seen = timing.explain(read.batch(5).prefetch(1).with_options(options), elements=20)
    stage = next(stage for stage in seen.stages if "read" in stage.name)
    assert stage.python
    # 5 waits of 4 ms for one batch; more or fewer by what lay ready at the start and at the end.
    assert 80 <= stage.calls <= 120
    assert 20 * stage.self_ms > 4 * (stage.calls - 10)
    assert stage.self_ms / stage.parallelism < 1.5 * seen.ms  # in place of twice


def test_what_a_complete_cache_spares_is_not_in_the_tree(tf):
    numbers = tf.data.Dataset.range(6)
    read = draws.map_named(numbers, waiting(tf, 0.001), name="read", num_parallel_calls=1)
    for dataset in (read.cache(), read.cache().repeat(), read.cache().repeat().batch(4)):
        seen = timing.explain(dataset, elements=8)
        assert "read" not in [stage.name for stage in seen.stages] and not seen.filling
        assert "cache" in [stage.name for stage in seen.stages]
    seen = timing.explain(read.cache().repeat(), elements=3, warmup=0)
    assert "read" in [stage.name for stage in seen.stages]
    assert seen.filling and "being filled" in seen.advice


def test_short_epochs_are_watched_whole(tf):
    numbers = tf.data.Dataset.range(7)
    stage = draws.map_named(numbers, waiting(tf, 0.001), name="read", num_parallel_calls=1)
    seen = timing.explain(stage.filter(lambda x: x < 5), elements=8)  # its length is not known
    assert seen.elements == 8
    seen = timing.explain(stage, elements=8)
    assert seen.elements == 14  # two epochs
    assert next(s for s in seen.stages if s.name == "read").calls == 14


def test_with_a_step_it_tells_whether_the_input_matters(tf, monkeypatch):
    clock = Clock(monkeypatch)

    def taking(ms):
        def work(x):
            clock.now_s += ms / 1000
            return x

        return lambda x: tf.ensure_shape(tf.numpy_function(work, [x], tf.int64), [])

    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False  # nothing is read ahead
    numbers = tf.data.Dataset.range(10**9).with_options(options)
    fed = timing.explain(numbers.map(taking(4), name="read"), elements=8, step=taking(36))
    assert fed.waiting == pytest.approx(0.1) and "it is fed" in fed.advice
    assert "<-- bottleneck" not in str(fed) and "the step waits 10% of the time" in str(fed)
    starved = timing.explain(numbers.map(taking(30), name="read"), elements=8, step=taking(10))
    assert starved.waiting == pytest.approx(0.75) and "it is fed" not in starved.advice
    assert timing.explain(numbers, elements=4, step=taking(1)).waiting == 0
    monkeypatch.undo()
    assert timing.explain(numbers, elements=4).waiting is None


def test_a_dataset_without_autotuning_is_explained_in_silence(tf, capfd):
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.range(100).map(heavy(tf, 100), name="work").with_options(options)
    explained(dataset, "work", elements=5)
    assert capfd.readouterr().err == ""


def test_names_are_those_of_operations_where_the_program_does_not_tell(tf, monkeypatch):
    monkeypatch.setattr(naming, "_inputs", lambda dataset: [])
    dataset, _ = pipelines(tf)["first of two"]
    names = [stage.name for stage in timing.explain(dataset, elements=4).stages]
    assert names == ["light", "map", "range"]


def test_bad_arguments_are_refused(tf):
    with pytest.raises(ValueError, match="not list"):
        timing.explain([1, 2])
    with pytest.raises(ValueError, match="1 element or more"):
        timing.explain(tf.data.Dataset.range(3), elements=0)
    with pytest.raises(ValueError, match="empty"):
        timing.explain(tf.data.Dataset.range(0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ParallelMapV2", "Map"),
        ("_ParallelMapDataset", "Map"),
        ("MapAndBatch", "MapAndBatch"),
        ("_BatchDataset", "Batch"),
        ("ParallelInterleaveV4", "Interleave"),
        ("LegacyParallelInterleaveV2", "Interleave"),
        ("FiniteTake", "Take"),
        ("ForeverRepeat", "Repeat"),
        ("MemoryCache", "Cache"),
        ("FileCache", "Cache"),
        ("CacheDataset", "Cache"),
        ("TFRecordDatasetV2", "TFRecord"),
        ("FromTensor", "Tensor"),
        ("_TensorSliceDataset", "TensorSlice"),
    ],
)
def test_an_operation_and_its_class_are_of_one_kind(name, expected):
    assert model.kind(name) == expected


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(1, 10), st.integers(1, 10))
def test_what_ended_between_two_looks_is_made_up_for(given_calls, seen, sources):
    # An interleave gave so many; of the sources some were seen, each element 2 s, its own source 1.
    seen = min(seen, given_calls)
    inner = model.Node("Range", calls=seen, seconds=seen)
    mapped = model.Node("Map", nested=True, inputs={1: inner}, calls=seen, seconds=2 * seen)
    files = model.Node("TensorSlice", calls=sources, seconds=1)
    root = model.Node("ParallelInterleaveV4", inputs={0: files, 1: mapped}, calls=given_calls)
    model.complete(root)
    assert mapped.seconds == pytest.approx(2 * given_calls)
    assert inner.seconds == pytest.approx(given_calls)
    assert (files.calls, files.seconds) == (sources, 1)


def explanation(kind="ParallelMapV2", share=0.95, calls=2, python=False, **seen):
    stage = timing.Stage("slow", kind, 0, 20, 10.0, calls, share, 0.0, python=python)
    seen = {"cores_busy": 0.1, "others_busy": 0.0, "cores": 2} | seen
    return timing.Explanation((stage,), ms=10.0, elements=20, **seen)


def test_the_drawing_marks_the_stage_that_takes_longest_on_all_its_calls():
    stages = (
        timing.Stage("prefetch", "Prefetch", 0, 20, 0.1, 1, 0.01, 12.34, added=True),
        timing.Stage("many", "ParallelMapV2", 1, 20, 16.0, 4, 0.4, 0.0, given=True),
        timing.Stage("one + batch", "MapAndBatch", 2, 1000, 9.0, 1, 0.9, 0.0, given=True),
    )
    seen = timing.Explanation(stages, 10.0, 20, cores_busy=1.0, others_busy=0.0, cores=2)
    assert seen.bottleneck is stages[2]
    head, columns, *rows, last = str(seen).splitlines()
    assert head == "10 ms an element, 1.0 of 2 cores at work" and last == seen.advice
    assert [row.endswith("<-- bottleneck") for row in rows] == [False, False, True]
    cells = rows[2].removesuffix("  <-- bottleneck").rsplit(maxsplit=5)
    starts = ("prefetch (added)  ", " many (map)  ", "  one + batch (fused)  ")
    assert all(row.startswith(start) for row, start in zip(rows, starts, strict=True))
    assert "12.3 MB" in rows[0]
    assert cells[1:] == ["9.00", "1,000", "1", "90%", "-"]
    assert len({len(line) for line in [columns, *rows[:2]]}) == 1


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (explanation(waiting=0.02), "it is fed"),
        (explanation(filling=True), "being filled"),
        (explanation(share=0.2), "No stage limits"),
        (explanation(kind="Generator", calls=1), "one thread"),
        (explanation(cores_busy=1.9), "do not help"),
        (explanation(python=True), "holds the lock"),
        (explanation(kind="BatchV2"), "narrowest type"),
        (explanation(kind="ShuffleV3"), "paths or numbers"),
        (explanation(calls=1), "raise its num_parallel_calls"),
        (explanation(others_busy=1.5), "other programs"),
        (explanation(cores_busy=1.3), "sets the pace"),
        (explanation(), "waits rather than works"),
    ],
)
def test_the_advice_fits_what_was_seen(seen, says):
    assert says in seen.advice
    assert advice.sets_the_pace(seen) == ("fed" not in says and "No stage" not in says)
    assert seen.advice in str(seen) and seen.advice.count("\n") == 0
