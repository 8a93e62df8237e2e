"""A smart cache is a window that slides over the items, and nothing about it hangs or grows."""

import collections
import gc
import math
import re
import subprocess
import sys
import threading
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import memory
from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.lists import Item
from helpers.smart_cache import SmartCache, kept, loading

LONG_S = 300  # for what does happen; a test that fails waits for as long
SHORT_S = 0.1  # for what does not
# What MONAI 1.6.1 has cached in four epochs: 12 items, 5 of them in the cache, rate 0.3, seed 7.
MONAI = [(7, 10, 2, 5, 0), (2, 5, 0, 1, 11), (0, 1, 11, 8, 3), (11, 8, 3, 6, 9)]


def numbered(item: int) -> dict:
    """An element that says which item it is, in its image as in its label."""
    return {"image": np.full((2, 3, 4, 1), item, np.int16), "label": np.int32(item)}


def inside(cache: SmartCache) -> list[int]:
    """The items whose elements are there, by what the voxels say."""
    return [int(cache[place]["image"].max()) for place in range(len(cache))]


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("SmartCache")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    if threads():
        gc.collect()
    for one in threads():
        one.join(LONG_S)
    assert not threads()


class Gate:
    """A loader that a test lets through, one call at a time, after the first `free` calls."""

    def __init__(self, free: int) -> None:
        self.called: list[int] = []
        self.callers: set[int] = set()
        self._free, self._passes = free, threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)

    def __call__(self, item: int) -> dict:
        self.called.append(item)
        if len(self.called) > self._free:
            self.callers.add(threading.get_ident())
            self.arrived.release()
            assert self._passes.acquire(timeout=LONG_S)
        return numbered(item)

    def let(self, calls: int) -> None:
        self._passes.release(calls)


# The window


def test_a_hundred_items_fifty_places_a_tenth_replaced():
    used, epochs = collections.Counter(), []
    with SmartCache(range(100), numbered, cache_num=50, replace_rate=0.1, shuffle=False) as cache:
        assert (len(cache), cache.replace_num, cache.epoch) == (50, 5, 0)
        for epoch in range(20):
            epochs.append(inside(cache))
            assert set(epochs[-1]) == {(5 * epoch + i) % 100 for i in range(50)}
            used.update(epochs[-1])
            swap = cache.swap()
            assert swap.left == tuple((5 * epoch + i) % 100 for i in range(5))
            assert swap.entered == tuple((5 * epoch + 50 + i) % 100 for i in range(5))
        assert inside(cache) == epochs[0]  # the circle has turned once
    assert len(set().union(*epochs[:10])) == 95
    assert set().union(*epochs[:11]) == set(range(100))
    assert set(used.values()) == {10} and len(used) == 100


def test_the_items_are_those_of_monai_epoch_by_epoch():
    with SmartCache(range(12), numbered, cache_num=5, replace_rate=0.3, seed=7) as cache:
        assert inside(cache) == list(MONAI[0])
        for expected in MONAI:
            assert sorted(inside(cache)) == sorted(expected)
            cache.swap()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    total=st.integers(1, 25),
    num=st.integers(1, 25),
    rate=st.sampled_from([0, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1]),
    seed=st.integers(0, 2**32 - 1),
    shuffle=st.booleans(),
)
def test_any_cache_slides_as_monai_does(total, num, rate, seed, shuffle):
    num = min(num, total)
    order = np.arange(total)
    if shuffle:
        np.random.RandomState(seed).shuffle(order)
    replaced = min(math.ceil(num * rate), total - num)
    window, following = list(order[:num]), num
    turn = total // math.gcd(total, replaced) if replaced else 1
    used = collections.Counter()
    with SmartCache(
        range(total), numbered, cache_num=num, replace_rate=rate, shuffle=shuffle, seed=seed
    ) as cache:
        assert cache.replace_num == replaced
        for epoch in range(turn):
            before = inside(cache)
            assert cache.epoch == epoch
            assert sorted(before) == sorted(window)
            assert list(cache.items) == before
            used.update(before)
            swap = cache.swap()
            # As MONAI does it: the first go, the next are appended.
            entered = [order[(following + i) % total] for i in range(replaced)]
            assert (list(swap.left), list(swap.entered)) == (window[:replaced], entered)
            window, following = window[replaced:] + entered, following + replaced
            for old, new in zip(before, inside(cache), strict=True):
                assert new == old or (old in swap.left and new in swap.entered)
        if replaced:
            # Windows begin at every multiple of `step`, and each item is in N / step of them.
            step = math.gcd(total, replaced)
            expected = {num // step} if num % step == 0 else {num // step, num // step + 1}
            assert len(used) == total and set(used.values()) == expected


def test_a_rate_of_nothing_or_a_cache_of_everything_never_changes():
    for num, rate in [(4, 0), (9, 0.5)]:
        cache = SmartCache(range(9), numbered, cache_num=num, replace_rate=rate)
        before = [cache[place]["image"] for place in range(num)]
        swap = cache.swap()
        assert (swap.left, swap.entered, cache.epoch) == ((), (), 1)
        assert all(cache[place]["image"] is before[place] for place in range(num))
        assert not threads()


# In the background


def test_one_thread_loads_the_next_ones_in_order_and_then_rests():
    gate = Gate(free=4)
    with SmartCache(range(10), gate, cache_num=4, replace_rate=0.75, shuffle=False) as cache:
        for epoch in range(4):
            for _ in range(3):
                assert gate.arrived.acquire(timeout=LONG_S)
                gate.let(1)
            assert not gate.arrived.acquire(timeout=SHORT_S)  # a fourth would be one too many
            assert inside(cache) == list(cache.items)
            assert gate.called[4:] == [(4 + i) % 10 for i in range(3 * (epoch + 1))]
            cache.swap()
        assert len(gate.callers) == 1 and threading.get_ident() not in gate.callers
        gate.let(1)


def test_a_swap_waits_for_its_last_item_and_changes_nothing_until_then():
    gate = Gate(free=4)
    with SmartCache(range(10), gate, cache_num=4, replace_rate=0.5, shuffle=False) as cache:
        gate.let(1)
        swaps = []
        waiting = threading.Thread(target=lambda: swaps.append(cache.swap()))
        waiting.start()
        waiting.join(SHORT_S)
        assert waiting.is_alive() and cache.epoch == 0 and inside(cache) == [0, 1, 2, 3]
        gate.let(1)
        waiting.join(LONG_S)
        assert inside(cache) == [4, 5, 2, 3] and swaps[0].entered == (4, 5)
        gate.let(2)


class Watched:
    """An image that is kept without a copy, as a tensor is, and whose memory can be followed."""

    def __init__(self, memories: list[weakref.ref]) -> None:
        self._array = memory.Buffers().empty((100,), np.float32)
        memories.append(weakref.ref(self._array.base))

    def __array__(self, dtype=None, copy=None):
        return self._array


def test_memory_holds_no_more_than_the_cache_and_what_enters_next(monkeypatch):
    # Taken as it is, as a tensor is, so that what the cache holds is what the test made.
    monkeypatch.setattr(kept, "_is_tensor", lambda value: isinstance(value, Watched))
    memories, counts = [], []

    def alive() -> int:
        return sum(one() is not None for one in memories)

    def load(item):
        image = Watched(memories)
        counts.append(alive())
        return {"image": image}

    with SmartCache(range(40), load, cache_num=10, replace_rate=0.3, init_workers=1) as cache:
        for _ in range(50):
            cache.swap()
        assert counts[:10] == list(range(1, 11))
        assert len(counts) >= 10 + 50 * 3 and max(counts) == 13
    assert alive() == 10


def test_what_leaves_is_forgotten_before_anything_is_loaded_in_its_stead():
    gate = Gate(free=4)
    with SmartCache(range(12), gate, cache_num=4, replace_rate=0.5, shuffle=False) as cache:
        gate.let(2)
        leaving = [weakref.ref(cache[place]["image"].base) for place in range(4)]
        cache.swap()
        for _ in range(3):  # the third call is the first one after the swap
            assert gate.arrived.acquire(timeout=LONG_S)
        assert [one() is None for one in leaving] == [True, True, False, False]
        gate.let(2)


def test_a_cache_that_nobody_holds_takes_its_thread_with_it(tf):
    for used in (False, True):
        cache = SmartCache(range(8), numbered, cache_num=4, replace_rate=0.5)
        held = weakref.ref(cache)
        voxels = weakref.ref(cache[0]["image"].base)
        (thread,) = threads()
        if used:
            dataset = cache.dataset().batch(2)
            del cache
            gc.collect()
            assert held() is not None  # the dataset holds it
            assert len(list(dataset)) == 2
            del dataset
        else:
            del cache
        gc.collect()
        thread.join(LONG_S)
        assert not thread.is_alive() and held() is None and voxels() is None


@pytest.mark.parametrize("waiting", ["False", "True"])
def test_the_interpreter_ends_although_a_cache_is_open(waiting):
    # Once with a thread that rests, once with one whose loader never returns.
    code = (
        "import threading\n"
        "from helpers.smart_cache import SmartCache\n"
        "def load(item):\n"
        f"    if {waiting} and threading.current_thread().name == 'SmartCache':\n"
        "        threading.Event().wait()\n"
        "    return {'image': item}\n"
        "cache = SmartCache(range(9), load, cache_num=3)\n"
        "print(len(cache))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_closing_ends_the_thread_and_what_waits_for_it():
    gate = Gate(free=4)
    cache = SmartCache(range(9), gate, cache_num=4, replace_rate=0.5, shuffle=False)
    told = []

    def swap():
        try:
            cache.swap()
        except ValueError as error:
            told.append(str(error))

    waiting = threading.Thread(target=swap)
    waiting.start()
    assert gate.arrived.acquire(timeout=LONG_S)
    gate.let(1)
    assert gate.arrived.acquire(timeout=LONG_S)
    closing = threading.Thread(target=cache.close)
    closing.start()
    waiting.join(LONG_S)  # it does not need the loader to return
    assert told == ["the cache is closed, so nothing can enter it"]
    gate.let(1)
    closing.join(LONG_S)
    assert not threads()
    cache.close()
    assert inside(cache) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="closed"):
        cache.swap()


# Errors of a loader


def refusal(items, load, *, swaps: int = 2, **options) -> CourseDataError:
    """What is raised when such a cache is made, or swapped that often."""
    with pytest.raises(CourseDataError) as told:  # noqa: PT012 - whichever comes first
        cache = SmartCache(items, load, shuffle=False, **options)
        for _ in range(swaps):
            cache.swap()
    if not isinstance(items, range):
        assert "/" not in str(told.value)  # a path may name a patient, so it is not told whole
    return told.value


def failing(at: int, error: BaseException):
    def load(item):
        number = int(re.search(r"\d+", str(item))[0]) if not isinstance(item, int) else item
        if number == at:
            raise error
        return numbered(number)

    return load


def test_an_error_in_the_background_is_told_by_each_swap_and_nothing_hangs():
    load = failing(5, OSError("the disk is gone"))
    with SmartCache(range(9), load, cache_num=3, replace_rate=0.5, shuffle=False) as cache:
        cache.swap()  # 3 and 4 enter; 5 is loaded for the next
        for _ in range(3):
            with pytest.raises(CourseDataError) as told:
                cache.swap()
            assert told.value.code == "LOADING_FAILED"
            assert told.value.message.startswith(
                "items[5]: the loader raised OSError: the disk is gone; "
            )
            assert isinstance(told.value.__cause__, OSError)
            assert cache.epoch == 1 and inside(cache) == [3, 4, 2]
    assert not threads()


def test_a_swap_that_waits_already_is_told_as_well():
    gate = Gate(free=3)

    def load(item):
        if gate(item)["label"] == 4:
            raise KeyError("voxels")
        return numbered(item)

    with SmartCache(range(9), load, cache_num=3, replace_rate=0.5, shuffle=False) as cache:
        told = []

        def swap():
            try:
                cache.swap()
            except CourseDataError as error:
                told.append(error)

        waiting = threading.Thread(target=swap)
        waiting.start()
        gate.let(2)
        waiting.join(LONG_S)
        assert [one.code for one in told] == ["LOADING_FAILED"]
        assert "items[4]: the loader raised KeyError: 'voxels'" in told[0].message


@pytest.mark.parametrize("at", [1, 3])
def test_no_exception_ends_the_thread_unseen(at):
    for error in (SystemExit("enough"), KeyboardInterrupt(), StopIteration(), MemoryError()):
        told = refusal(range(4), failing(at, error), cache_num=3)
        assert told.code == "LOADING_FAILED"
        assert f"items[{at}]: the loader raised {type(error).__name__}" in told.message


@pytest.mark.parametrize("at", [0, 3])
def test_a_code_of_its_own_stays_and_the_item_is_added(at):
    own = CourseDataError("UNREADABLE", "the header ends early", ["/a/folder/scan.nii.gz"])
    told = refusal(range(4), failing(at, own), cache_num=2)
    assert (told.code, told.files) == ("UNREADABLE", own.files)
    assert told.message == f"items[{at}]: the header ends early"


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ("/data/scan_3.nii.gz", ["scan_3.nii.gz"]),
        (Path("/data/scan_3.nii.gz"), ["scan_3.nii.gz"]),
        (Item(Path("/data/image_3.nii"), Path("/data/mask_3.nii")), ["image_3.nii", "mask_3.nii"]),
        (Item(Path("/data/image_3.nii"), label=1), ["image_3.nii"]),
        (Case("3", None, (Path("a_3.dcm"), Path("b_3.dcm"))), ["a_3.dcm", "b_3.dcm"]),
        ({"image": "/data/image_3.nii", "age": 3}, ["image_3.nii"]),
        (("/data/image_3.nii", "/data/mask_3.nii"), ["image_3.nii", "mask_3.nii"]),
        (3, []),
    ],
)
def test_an_error_names_the_files_of_its_item(item, named):
    def load(found):
        if found is item:
            raise EOFError("no more bytes")
        return numbered(0)

    told = refusal(["first", "second", item], load, cache_num=2)
    assert "items[2]: the loader raised EOFError: no more bytes" in told.message
    assert [file.name for file in told.files] == named
    assert all(name in str(told) for name in named)


def test_names_take_the_place_of_files_that_may_name_a_patient():
    items = [f"/data/patient_{number}.nii" for number in range(4)]
    names = [f"case {number}" for number in "abcd"]
    load = failing(2, RuntimeError("no"))
    with pytest.raises(CourseDataError) as told:
        SmartCache(items, load, cache_num=4, names=names)
    assert "items[2] (case c): the loader raised RuntimeError: no" in str(told.value)
    assert "patient" not in str(told.value)


def test_the_constructor_tells_the_first_error_and_loads_no_further():
    called = []

    def load(item):
        called.append(item)
        raise ValueError(f"number {item}")

    for workers in (1, 3):
        called.clear()
        with pytest.raises(CourseDataError, match=r"items\[0\]: the loader raised ValueError"):
            SmartCache(range(500), load, cache_num=400, shuffle=False, init_workers=workers)
        assert len(called) < 400
        assert not threads()


def test_the_first_fill_uses_as_many_threads_as_it_is_told():
    together = threading.Barrier(3)

    def load(item):
        if item < 3:
            together.wait(LONG_S)  # passes only if three are in here at once
        return numbered(item)

    cache = SmartCache(range(6), load, cache_num=6, shuffle=False, init_workers=3)
    assert inside(cache) == list(range(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_num": 0}, "cache_num is a whole number from 1"),
        ({"cache_num": 2.5}, "cache_num is a whole number from 1"),
        ({"replace_rate": -0.1}, "fraction from 0 to 1"),
        ({"replace_rate": 10}, "fraction from 0 to 1, not 10"),
        ({"replace_rate": float("nan")}, "fraction from 0 to 1"),
        ({"seed": -1}, "a seed is"),
        ({"init_workers": 0}, "init_workers"),
        ({"names": ["a"]}, "1 names for 5 items"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_loaded(options, message):
    with pytest.raises(ValueError, match=message) as refused:
        SmartCache(range(5), pytest.fail, **{"cache_num": 2, **options})
    assert not isinstance(refused.value, CourseDataError)


def test_no_items_and_more_places_than_items_are_bad_data():
    with pytest.raises(CourseDataError) as told:
        SmartCache([], pytest.fail, cache_num=1)
    assert told.value.code == "EMPTY_LIST"
    with pytest.raises(CourseDataError, match="6 items for a set of 5") as told:
        SmartCache(range(5), pytest.fail, cache_num=6)
    assert told.value.code == "CACHE_TOO_LARGE"


# Elements


def test_elements_are_kept_as_tensorflow_takes_them(tf):
    written = np.arange(24, dtype=">i2").reshape(2, 3, 4, 1)[::-1]

    def load(item):
        return {
            "image": written,
            "mask": tf.cast(written[..., :1] > 3, tf.uint8),
            "label": item,
            "weight": 0.5,
            "spacing": (3.0, 1.0, 1.0),
            "case": f"ä{item}",
            "modality": np.array(["T1", "T2ä"]),
            "series": np.array([b"a\0", b""], object),
            "places": {"foreground": {"indices": tf.range(3), "name": b"a\0"}},
        }

    (element,) = SmartCache([7], load, cache_num=1)
    assert np.array_equal(element["image"], written) and element["image"].dtype == np.int16
    assert np.array_equal(element["mask"], written > 3) and element["mask"].dtype == np.uint8
    assert (element["label"].dtype, element["weight"].dtype) == (np.int32, np.float32)
    assert element["spacing"].dtype == np.float32 and element["spacing"].tolist() == [3, 1, 1]
    assert element["case"].item() == "ä7".encode()
    assert element["modality"].tolist() == [b"T1", "T2ä".encode()]
    assert element["series"].tolist() == [b"a\0", b""]
    assert element["places"]["foreground"]["indices"].tolist() == [0, 1, 2]
    assert element["places"]["foreground"]["name"].item() == b"a\0"
    for field in ("image", "mask", "spacing"):
        assert element[field].ctypes.data % memory.ALIGNMENT == 0
        with pytest.raises(ValueError, match="read-only"):
            element[field][...] = 0


def test_a_loader_may_use_its_memory_again():
    memory_of_the_loader = memory.aligned(np.zeros((4, 100), np.float32))

    def load(item):
        memory_of_the_loader[:] = item
        return {"image": memory_of_the_loader}

    cache = SmartCache(range(4), load, cache_num=4, shuffle=False, init_workers=1)
    assert [float(one["image"].max()) for one in cache] == [0, 1, 2, 3]
    assert memory_of_the_loader.flags.writeable


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (np.zeros(3), "TypeError: a loader returns a dict of arrays, not ndarray"),
        (None, "TypeError: a loader returns a dict of arrays, not NoneType"),
        ({"image": object()}, "TypeError: `image` holds object"),
        ({"image": [1, None]}, "TypeError: `image` holds int"),
        ({"image": np.datetime64("2020-01-01")}, "`image` is an array of datetime64"),
        ({"label": 2**40}, "OverflowError"),
    ],
)
def test_what_is_no_element_is_refused_by_name(found, message):
    with pytest.raises(CourseDataError, match=r"items\[0\]") as told:
        SmartCache([0], lambda item: found, cache_num=1)
    assert told.value.code == "LOADING_FAILED" and message in told.value.message


def sized(item):
    """Elements whose second axis is as long as the item says."""
    return {"image": np.zeros((2, item, 4, 1), np.int16), "label": np.int32(item)}


def test_lengths_that_differ_are_open_in_the_spec(tf):
    cache = SmartCache([5, 6, 7], sized, cache_num=3, shuffle=False)
    assert cache.element_spec == {
        "image": tf.TensorSpec([2, None, 4, 1], tf.int16),
        "label": tf.TensorSpec([], tf.int32),
    }
    shapes = [element["image"].shape for element in cache.dataset()]
    assert shapes == [(2, 5, 4, 1), (2, 6, 4, 1), (2, 7, 4, 1)]


def test_a_later_element_that_does_not_fit_is_refused_unless_the_spec_is_given(tf):
    told = refusal([5, 5, 6], sized, cache_num=2)
    assert told.code == "SHAPE_MISMATCH"
    assert "items[2]: `image` has shape (2, 6, 4, 1), that of others (2, 5, 4, 1)" in told.message
    assert "element_spec" in told.message
    spec = {
        "image": tf.TensorSpec([2, None, 4, 1], tf.int16),
        "label": tf.TensorSpec([], tf.int32),
    }
    options = {"cache_num": 2, "element_spec": spec}
    with SmartCache([5, 5, 6], sized, shuffle=False, **options) as cache:
        assert cache.element_spec == spec
        cache.swap()
        assert [one["image"].shape[1] for one in cache.dataset()] == [6, 5]
    flat = refusal([5, 5, 6], lambda item: {**sized(item), "image": np.int16(1)}, **options)
    assert flat.code == "SHAPE_MISMATCH" and "items[0]" in flat.message


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"mask": 1}, "LOADING_FAILED", "its fields are `image`, `label`, `mask`"),
        ({"label": np.float32(1)}, "LOADING_FAILED", "`label` is of float32"),
        ({"image": np.zeros((3, 4, 1), np.int16)}, "SHAPE_MISMATCH", "has shape (3, 4, 1)"),
    ],
)
@pytest.mark.parametrize("at", [1, 2])
def test_elements_agree_in_fields_dtypes_and_axes(change, code, message, at):
    def load(item):
        return numbered(item) | (change if item == at else {})

    told = refusal(range(3), load, cache_num=2)
    assert told.code == code and f"items[{at}]: " in told.message and message in told.message


# As a dataset


def test_a_dataset_gives_the_elements_once_and_the_new_ones_after_a_swap(tf):
    with SmartCache(range(7), numbered, cache_num=4, replace_rate=0.5, shuffle=False) as cache:
        dataset = cache.dataset()
        assert int(dataset.cardinality()) == 4
        assert dataset.element_spec == cache.element_spec
        for expected in ([0, 1, 2, 3], [4, 5, 2, 3], [4, 5, 6, 0], [1, 2, 6, 0]):
            for one, label in zip(dataset, expected, strict=True):
                assert int(one["label"]) == label
                assert one["image"].numpy().tolist() == numbered(label)["image"].tolist()
            cache.swap()


def test_indices_say_which_places(tf):
    cache = SmartCache(range(5), numbered, cache_num=5, shuffle=False)
    places = [4, 4, 0, 2]
    dataset = cache.dataset(tf.data.Dataset.from_tensor_slices(places))
    assert [int(one["label"]) for one in dataset] == places
    endless = cache.dataset(tf.data.Dataset.range(5).shuffle(5, seed=3).repeat())
    assert int(endless.cardinality()) == tf.data.INFINITE_CARDINALITY
    labels = [int(one["label"]) for one in endless.take(15)]
    assert all(sorted(labels[i : i + 5]) == list(range(5)) for i in (0, 5, 10))
    assert labels[:5] != labels[5:10]
    with pytest.raises(tf.errors.OpError, match="place 5 is asked for, of 5"):
        list(cache.dataset(tf.data.Dataset.range(6)))


def test_voxels_are_not_copied_and_cannot_be_overwritten(tf):
    cache = SmartCache(range(3), lambda i: {"image": np.full(10**6, i, np.float32)}, cache_num=3)
    before = [one["image"].copy() for one in cache]
    for place, one in enumerate(cache.dataset()):
        assert np.shares_memory(np.asarray(memoryview(one["image"])), cache[place]["image"])
    # TensorFlow computes in place where it may.
    changed = cache.dataset().map(lambda one: tf.square(one["image"] + 1.0))
    assert len(list(changed)) == 3
    assert all(np.array_equal(a, one["image"]) for a, one in zip(before, cache, strict=True))


def test_a_pass_that_a_swap_interrupts_still_reads_each_staying_item_once(tf):
    with SmartCache(range(20), numbered, cache_num=10, replace_rate=0.3, shuffle=False) as cache:
        reading = iter(cache.dataset().prefetch(2))
        held = [next(reading) for _ in range(2)]
        cache.swap()
        labels = [int(one["label"]) for one in [*held, *reading]]
        assert labels[3:] == list(range(3, 10)) and labels[:2] == [0, 1]
        assert [int(one["image"][0, 0, 0, 0]) for one in held] == [0, 1]  # as they were
        repeated = iter(cache.dataset().repeat().prefetch(4))
        for _ in range(5):
            labels = [int(next(repeated)["label"]) for _ in range(10)]
            # What was fetched ahead may be of those that have just left; nothing is read twice.
            assert len(set(labels)) == 10
            assert len(set(labels) - set(cache.items)) <= 3
            cache.swap()


def test_a_dataset_outlives_the_variable_of_its_cache(tf):
    dataset = SmartCache(range(4), numbered, cache_num=4, shuffle=False).dataset()
    batches = iter(dataset.repeat().batch(2).map(lambda one: one["label"]).prefetch(1))
    del dataset
    gc.collect()
    assert [next(batches).numpy().tolist() for _ in range(3)] == [[0, 1], [2, 3], [0, 1]]


def test_a_dataset_may_be_made_within_another(tf, caplog):
    tf.get_logger().addHandler(caplog.handler)
    cache = SmartCache(range(4), numbered, cache_num=4, shuffle=False)
    nested = tf.data.Dataset.range(3).flat_map(lambda _: cache.dataset())
    for _ in range(2):
        gc.collect()
        assert [int(one["label"]) for one in nested] == [0, 1, 2, 3] * 3
    tf.get_logger().removeHandler(caplog.handler)
    assert not caplog.records  # AutoGraph would print what it fails to convert, as the environment


def test_crops_from_memory_follow_the_swaps(tf):
    from helpers import crops

    def load(item):
        mask = np.zeros((6, 6, 6, 1), np.uint8)
        mask[2:4, item % 6, 3] = 1
        image = np.where(mask, 1000 + item, item).astype(np.int16)
        return {"image": image, "mask": mask, "label": np.int32(item)}

    with SmartCache(range(9), load, cache_num=4, replace_rate=0.5, seed=3) as cache:
        stage = crops.pos_neg((1, 1, 1), positive=1, negative=0, per_image=2, seed=5)
        batches = crops.from_memory(cache, stage, batch_size=4, dtype="float32")
        for _ in range(9):
            (batch,) = batches
            assert batch["label"].numpy().tolist() == np.repeat(cache.items, 2).tolist()
            # Each crop is of the foreground, so it was found in the mask of this very item.
            assert np.array_equal(batch["image"].numpy().ravel() - 1000, batch["label"])
            cache.swap()


def test_reading_two_epochs_without_a_swap_is_warned_of_once():
    cache = SmartCache(range(8), numbered, cache_num=4)
    dataset = cache.dataset()
    with pytest.warns(UserWarning, match="nobody swaps: pass cache.callback") as warned:
        counts = [len(list(one)) for one in (dataset, dataset, dataset, cache.dataset().repeat(3))]
    assert counts == [4, 4, 4, 12] and len(warned) == 1
    with pytest.warns(UserWarning, match="nobody swaps"):
        list(SmartCache(range(8), numbered, cache_num=4).dataset().repeat(2))


def test_no_warning_where_somebody_swaps_or_nothing_is_to_be_swapped():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            list(SmartCache(range(8), numbered, cache_num=4).dataset())
        plain = SmartCache(range(8), numbered, cache_num=4, replace_rate=0).dataset()
        full = SmartCache(range(4), numbered, cache_num=4).dataset()
        cache = SmartCache(range(8), numbered, cache_num=4)
        dataset = cache.dataset()
        trained = SmartCache(range(8), numbered, cache_num=4)
        trained.callback()  # which will swap, however often an epoch reads the cache
        often = trained.dataset()
        for _ in range(4):
            assert [len(list(one)) for one in (plain, full, dataset, often)] == [4] * 4
            cache.swap()


# In Keras


def test_a_fit_sees_one_window_an_epoch_and_the_next_after_it(tf):
    import keras

    class Records(keras.Model):
        """A model that trains on nothing and keeps what it was shown."""

        def __init__(self):
            super().__init__()
            self.seen = []

        def call(self, x):
            return x

        def train_step(self, data):
            self.seen.extend(int(one) for one in data)
            return {"loss": 0.0}

    with SmartCache(range(10), numbered, cache_num=6, replace_rate=0.3, seed=1) as cache:
        order = np.random.RandomState(1).permutation(10)
        places = tf.data.Dataset.range(6).shuffle(6, seed=2)
        labels = cache.dataset(places).map(lambda one: one["label"]).batch(4).prefetch(2)
        model, swapping = Records(), cache.callback()
        model.compile(run_eagerly=True)
        model.fit(labels, epochs=6, callbacks=[swapping], shuffle=False, verbose=0)
        assert cache.epoch == 6 and len(swapping.swaps) == 6
        for epoch in range(6):
            window = {order[(2 * epoch + i) % 10] for i in range(6)}
            seen = model.seen[6 * epoch : 6 * epoch + 6]
            assert len(seen) == 6 and set(seen) == window
            assert set(swapping.swaps[epoch].left) <= window


def test_a_loader_that_fails_ends_the_fit_with_the_name_of_its_item(tf):
    import keras

    load = failing(6, OSError("no such disk"))
    with SmartCache(range(9), load, cache_num=4, replace_rate=0.5, shuffle=False) as cache:
        pairs = cache.dataset().map(
            lambda one: (tf.cast(tf.reshape(one["image"], [24]), tf.float32), one["label"])
        )
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile(loss="mse")
        with pytest.raises(CourseDataError, match=r"items\[6\].*no such disk"):
            model.fit(
                pairs.batch(2), epochs=9, callbacks=[cache.callback()], shuffle=False, verbose=0
            )
        assert cache.epoch == 1


def test_what_a_loader_uses_again_is_copied_whatever_it_is():
    buffer = memory.aligned(np.zeros((2, 3, 4, 1), np.int16))

    def reused(item):
        buffer[...] = item
        return {"image": memoryview(buffer), "label": np.int32(item)}

    cache = SmartCache(range(4), reused, cache_num=3, replace_rate=0, shuffle=False, init_workers=1)
    assert inside(cache) == [0, 1, 2]
    cache.close()


@pytest.mark.parametrize("place", [-1, 3])
def test_a_place_that_is_not_there_is_refused(tf, place):
    with SmartCache(range(3), numbered, cache_num=3) as cache:
        dataset = cache.dataset(tf.data.Dataset.from_tensors(np.int64(place)))
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"place {place} is asked for"):
            list(dataset)


def test_places_come_one_by_one(tf):
    cache = SmartCache(range(3), numbered, cache_num=3)
    with cache, pytest.raises(ValueError, match="single whole numbers"):
        cache.dataset(tf.data.Dataset.range(3).batch(2))


def test_whatever_goes_wrong_in_the_thread_is_told_and_not_waited_for(monkeypatch):
    gate = Gate(free=2)
    with SmartCache(range(4), gate, cache_num=2, replace_rate=0.5, shuffle=False) as cache:
        assert gate.arrived.acquire(timeout=LONG_S)  # the thread is at its first load
        monkeypatch.setattr(
            "helpers.smart_cache.kept.misfit", lambda *_, **__: (_ for _ in ()).throw(KeyError("x"))
        )
        gate._passes.release()
        with pytest.raises(CourseDataError, match="KeyError") as caught:
            cache.swap()
    assert caught.value.code == "LOADING_FAILED"


def test_a_cache_that_goes_between_the_look_and_the_wait_ends_its_thread(monkeypatch):
    """Garbage is collected at any moment, also in the thread, just before it waits."""
    wait, going = threading.Condition.wait, []

    def collected_first(condition, timeout=None):
        if going and condition is going[0].lock:
            going.pop().stop()
        return wait(condition, timeout)

    armed = threading.Event()

    def load(position):
        assert armed.wait(LONG_S)
        return numbered(position)

    monkeypatch.setattr(threading.Condition, "wait", collected_first)
    ahead = loading.Ahead(load, 0, 2)
    going.append(ahead)
    armed.set()
    (thread,) = threads()
    thread.join(LONG_S)
    assert not going and not thread.is_alive()
