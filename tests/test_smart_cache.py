"""A smart cache is a window that slides over the items, and nothing about it hangs or grows."""

import gc
import math
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import crops, memory
from helpers.errors import CourseDataError
from helpers.smart_cache import SmartCache

LONG_S = 60  # for what does happen; a test that fails waits for as long
# What MONAI 1.6.1 has cached in four epochs: 12 items, 5 of them in the cache, rate 0.3, seed 7.
MONAI = [(7, 10, 2, 5, 0), (2, 5, 0, 1, 11), (0, 1, 11, 8, 3), (11, 8, 3, 6, 9)]


def numbered(item: int) -> dict:
    """An element that says which item it is, in its image as in its label."""
    return {"image": np.full((2, 3, 4, 1), item, np.int16), "label": np.int32(item)}


def inside(cache: SmartCache) -> list[int]:
    """The items whose elements are there, by what the voxels say."""
    return [int(one["image"].max()) for one in cache]


def test_the_items_are_those_of_monai_epoch_by_epoch():
    with SmartCache(range(12), numbered, cache_num=5, replace_rate=0.3, seed=7) as cache:
        assert inside(cache) == list(MONAI[0])
        for expected in MONAI:
            assert sorted(inside(cache)) == sorted(expected)
            cache.swap()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 25), st.integers(1, 25), st.sampled_from([0, 0.05, 0.1, 1 / 3, 0.5, 1]))
def test_any_cache_slides_as_monai_does_and_those_that_stay_keep_their_places(total, num, rate):
    num, order = min(num, total), np.random.RandomState(total).permutation(total)
    replaced = min(math.ceil(num * rate), total - num)
    window, following = list(order[:num]), num
    options = {"cache_num": num, "replace_rate": rate, "seed": total}
    with SmartCache(range(total), numbered, **options) as cache:
        assert cache.replace_num == replaced and len(cache) == num
        for _ in range(4):
            before = inside(cache)
            assert sorted(before) == sorted(window)
            swap = cache.swap()
            # As MONAI does it: the first go, the next are appended.
            entered = [order[(following + i) % total] for i in range(replaced)]
            assert (list(swap.left), list(swap.entered)) == (window[:replaced], entered)
            assert swap.waited_s >= 0 and swap.swapped_s >= 0
            window, following = window[replaced:] + entered, following + replaced
            for old, new in zip(before, inside(cache), strict=True):
                assert new == old or (old in swap.left and new in swap.entered)


class Gate:
    """A loader that a test lets through, one call at a time, after the first `free` calls."""

    def __init__(self, free: int) -> None:
        self.called: list[int] = []
        self.callers: set[int] = set()
        self._free, self.passes = free, threading.Semaphore(0)

    def __call__(self, item: int) -> dict:
        self.called.append(item)
        if len(self.called) > self._free:
            self.callers.add(threading.get_ident())
            assert self.passes.acquire(timeout=LONG_S)
        return numbered(item)


def test_a_swap_waits_for_its_last_item_and_changes_nothing_until_then():
    gate = Gate(free=4)
    with SmartCache(range(10), gate, cache_num=4, replace_rate=0.5, shuffle=False) as cache:
        gate.passes.release()
        swapping = threading.Thread(target=cache.swap)
        swapping.start()
        swapping.join(0.1)
        assert swapping.is_alive() and inside(cache) == [0, 1, 2, 3]
        gate.passes.release()
        swapping.join(LONG_S)
        assert inside(cache) == [4, 5, 2, 3]
        gate.passes.release(2)
        cache.swap()
        assert gate.called[4:8] == [4, 5, 6, 7]  # one after another, in order, and not in swap's
        assert threading.get_ident() not in gate.callers
        gate.passes.release(2)


def test_memory_holds_no_more_than_the_cache_and_what_enters_next(monkeypatch):
    held, counts = [], []
    aligned = memory.aligned

    def followed(value):
        array = aligned(value)
        held.append(weakref.ref(array))
        return array

    monkeypatch.setattr(memory, "aligned", followed)

    def load(item):
        counts.append(sum(one() is not None for one in held))
        return {"image": np.zeros(100, np.float32)}

    with SmartCache(range(40), load, cache_num=10, replace_rate=0.3) as cache:
        for _ in range(20):
            cache.swap()
        assert len(counts) >= 10 + 20 * 3 and max(counts) < 13  # and the one that is loaded
    cache.close()
    assert len(cache) == 10 and cache[9]["image"].size == 100  # it can still be read
    with pytest.raises(ValueError, match="closed"):
        cache.swap()


def test_a_cache_that_nobody_holds_takes_its_elements_and_its_thread_with_it():
    gate = Gate(free=4)
    cache = SmartCache(range(9), gate, cache_num=4, replace_rate=0.75, shuffle=False)
    gone, voxels = weakref.ref(cache), weakref.ref(cache[1]["image"])
    threads = [one for one in threading.enumerate() if one.name == "SmartCache"]
    batches = crops.from_memory(cache, crops.centre((2, 3, 4)), batch_size=4)
    del cache
    gc.collect()
    assert gone() is not None and len(list(batches)) == 1  # the dataset holds it
    del batches
    gc.collect()
    assert gone() is None and voxels() is None
    gate.passes.release()  # of the load that was under way; the others are called off
    for one in threads:
        one.join(LONG_S)
    assert len(gate.called) <= 5 and not any(one.is_alive() for one in threads)


def test_the_interpreter_ends_although_a_loader_never_returns():
    code = """if True:
        import threading
        from helpers.smart_cache import SmartCache
        def load(item):
            return {"image": item if item < 3 else threading.Event().wait()}
        cache = SmartCache(range(9), load, cache_num=3, shuffle=False)
        print(len(cache))"""
    options = {"cwd": Path(__file__).parents[1], "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], timeout=LONG_S, **options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


WRONG = {  # what a loader does, the code, and what the message begins with
    "an error": (OSError("no disk"), "LOADING_FAILED", "items[5]: the loader raised OSError: no d"),
    "a code": (CourseDataError("CONSTANT", "one value"), "CONSTANT", "items[5]: one value"),
    "another dtype": ({"label": 2.0}, "LOADING_FAILED", "items[5] holds "),
    "an axis less": ({"image": np.zeros((3, 4, 1), np.int16)}, "LOADING_FAILED", "items[5] holds "),
    "channels": ({"image": np.zeros((2, 3, 4, 2), np.int16)}, "LOADING_FAILED", "items[5] holds "),
    "a field more": ({"mask": np.zeros((2, 3, 4, 1))}, "LOADING_FAILED", "items[5] holds "),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_an_item_is_told_by_each_swap_and_leaves_all_as_it_is(what):
    raised, code, said = WRONG[what]

    def load(item):
        if item == 5 and isinstance(raised, Exception):
            raise raised
        return numbered(item) | (raised if item == 5 else {})

    with pytest.raises(CourseDataError) as at_first:
        SmartCache(range(9), load, cache_num=6, shuffle=False)
    options = {"cache_num": 3, "replace_rate": 0.5, "shuffle": False}
    with SmartCache(range(9), load, **options) as cache:
        cache.swap()  # 3 and 4 enter; 5 is loaded for the next
        for _ in range(2):
            with pytest.raises(CourseDataError) as told:
                cache.swap()
            assert inside(cache) == [3, 4, 2]
    for error in (at_first.value, told.value):
        assert error.code == code and error.message.startswith(said)


def test_an_error_names_the_files_of_its_item_and_no_folder():
    def broken(item):
        raise EOFError("no bytes")

    with pytest.raises(CourseDataError, match=r"items\[0\].*no bytes.*\(scan_3\.nii\)") as told:
        SmartCache([Path("/data/doe/scan_3.nii")], broken, cache_num=1)
    assert "doe" not in str(told.value)


@pytest.mark.parametrize(
    ("items", "options", "words"),
    [
        (5, {"cache_num": 0}, "CACHE_TOO_LARGE"),
        (5, {"cache_num": 6}, "CACHE_TOO_LARGE"),
        (0, {"cache_num": 1}, "EMPTY_LIST"),
        (5, {"replace_rate": -0.1}, "fraction"),
        (5, {"replace_rate": 10}, "fraction"),
        (5, {"replace_rate": float("nan")}, "fraction"),
        (5, {"seed": -1}, "[Ss]eed"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(items, options, words):
    with pytest.raises(ValueError, match=words):
        SmartCache(range(items), pytest.fail, **{"cache_num": 2, **options})


def test_elements_are_read_only_copies_as_tensorflow_takes_them():
    own = memory.aligned(np.zeros((2, 3, 4, 1), np.int16))

    def load(item):
        own[...] = item  # a loader may use its memory again
        return {"image": own, "case": "ä" * (item + 1), "label": item}

    with SmartCache(range(4), load, cache_num=1, replace_rate=1.0, shuffle=False) as cache:
        for item in range(4):
            (element,) = cache
            assert (element["image"] == item).all()
            assert element["case"].item() == "ä".encode() * (item + 1)
            assert element["image"].ctypes.data % memory.ALIGNMENT == 0
            with pytest.raises(ValueError, match="read-only"):
                element["image"][...] = 0
            cache.swap()
    assert own.flags.writeable


def test_a_fit_sees_one_window_an_epoch_and_the_next_after_it():
    import keras
    import tensorflow as tf

    seen = []

    class Shown(keras.Model):
        """A model that trains on nothing and keeps what it was shown."""

        def call(self, x):
            return x

        def train_step(self, data):
            seen.extend(int(one) for one in data)
            return {"loss": 0.0}

    with SmartCache(range(10), numbered, cache_num=6, replace_rate=0.3, seed=1) as cache:
        order = np.random.RandomState(1).permutation(10)
        places = tf.data.Dataset.range(6).shuffle(6, seed=2)
        batches = crops.from_memory(cache, crops.centre((2, 3, 4)), indices=places, batch_size=4)
        model, swapping = Shown(), cache.callback()
        model.compile(run_eagerly=True)
        labels = batches.map(lambda one: one["label"])
        model.fit(labels, epochs=6, callbacks=[swapping], shuffle=False, verbose=0)
    assert len(swapping.swaps) == 6
    for epoch in range(6):
        window = {order[(2 * epoch + i) % 10] for i in range(6)}
        assert set(seen[6 * epoch : 6 * epoch + 6]) == window
        assert set(swapping.swaps[epoch].left) <= window
