"""A smart cache is a window that slides over the items, and nothing about it hangs or grows."""

import gc
import math
import subprocess
import sys
import threading
import weakref
from functools import partial
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
            readers, before = cache._elements, inside(cache)
            swap = cache.swap()
            assert [int(one["label"]) for one in readers] == before  # nobody sees half of it
            # As MONAI does it: the first go, the next are appended.
            entered = [order[(following + i) % total] for i in range(replaced)]
            assert (list(swap.left), list(swap.entered)) == (window[:replaced], entered)
            window, following = window[replaced:] + entered, following + replaced
            assert sorted(inside(cache)) == sorted(window)
            for old, new in zip(before, inside(cache), strict=True):
                assert new == old or (old in swap.left and new in swap.entered)


class Gate:
    """A loader that a test lets through, one call at a time, after the first `free` calls."""

    def __init__(self, free: int) -> None:
        self.called, self.callers = [], set()
        self._free, self.passes = free, threading.Semaphore(0)

    def __call__(self, item: int) -> dict:
        self.called.append(item)
        if len(self.called) > self._free:
            self.callers.add(threading.get_ident())
            assert self.passes.acquire(timeout=LONG_S)
        return numbered(item)


def test_a_swap_waits_for_its_last_item_and_changes_nothing_until_then():
    gate, seen = Gate(free=4), []

    def load(item):
        if item == 5:  # the last one of the first swap
            seen.append(inside(cache))
        return gate(item)

    with SmartCache(range(10), load, cache_num=4, replace_rate=0.5, shuffle=False) as cache:
        swapping = threading.Thread(target=cache.swap)
        swapping.start()
        gate.passes.release(2)
        swapping.join(LONG_S)
        assert seen == [[0, 1, 2, 3]] and inside(cache) == [4, 5, 2, 3]
        gate.passes.release(2)
        cache.swap()
        assert gate.called[4:8] == [4, 5, 6, 7]  # one after another, in order, and not in swap's
        assert threading.get_ident() not in gate.callers
        gate.passes.release(2)


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "SmartCache"]


def test_memory_holds_no_more_than_the_cache_and_what_enters_next(monkeypatch):
    held, counts = [], []

    def followed(value, aligned=memory.aligned, **options):
        array = aligned(value, **options)
        if array.size == 100:  # a thread of another cache, closed since, may still be at its last
            held.append(weakref.ref(array))
        return array

    def load(item):
        counts.append(sum(one() is not None for one in held))
        return {"image": np.zeros(100, np.float32)}

    monkeypatch.setattr(memory, "aligned", followed)
    with SmartCache(range(40), load, cache_num=10, replace_rate=0.3) as cache:
        for _ in range(20):
            for thread in threads():
                thread.join(LONG_S)
            cache.swap()
        assert len(counts) >= 10 + 20 * 3 and max(counts) == 10 + 2  # before the third is there
    cache.close()
    assert len(cache) == 10 and cache[9]["image"].size == 100  # it can still be read
    with pytest.raises(ValueError, match="closed"):
        cache.swap()


def test_a_cache_that_nobody_holds_takes_its_elements_and_its_thread_with_it():
    gate = Gate(free=4)
    before = set(threads())
    cache = SmartCache(range(9), gate, cache_num=4, replace_rate=0.75, shuffle=False)
    gone, voxels = weakref.ref(cache), weakref.ref(cache[1]["image"])
    (thread,) = set(threads()) - before
    batches = crops.from_memory(cache, batch_size=4)
    del cache
    gc.collect()
    assert gone() is not None and len(list(batches)) == 1  # the dataset holds it
    del batches
    gc.collect()
    assert gone() is None and voxels() is None
    gate.passes.release()  # of the load that was under way; the others are called off
    thread.join(LONG_S)
    assert len(gate.called) <= 5 and not thread.is_alive()


def test_the_interpreter_ends_although_a_loader_never_returns():
    code = """if True:
        import threading
        from helpers.smart_cache import SmartCache
        def load(item):
            return {"image": item if item < 3 else threading.Event().wait()}
        print(len(SmartCache(range(9), load, cache_num=3, shuffle=False)))"""
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


def test_what_is_wrong_with_an_item_is_told_by_each_swap_and_leaves_all_as_it_is():
    found = {}
    for what, (wrong, code, said) in WRONG.items():

        def load(item, wrong=wrong):
            if item == 5 and isinstance(wrong, Exception):
                raise wrong
            return numbered(item) | (wrong if item == 5 else {})

        with SmartCache(range(9), load, cache_num=3, replace_rate=0.5, shuffle=False) as cache:
            cache.swap()  # 3 and 4 enter; 5 is loaded for the next
            errors, fill = [], partial(SmartCache, range(9), load, cache_num=6, shuffle=False)
            for call in (fill, cache.swap, cache.swap):
                with pytest.raises(CourseDataError) as caught:
                    call()
                errors.append(caught.value)
            told = [error.code == code and error.message.startswith(said) for error in errors]
            found[what] = [inside(cache) == [3, 4, 2], *told]
    assert found == dict.fromkeys(WRONG, [True] * 4)


def test_an_error_names_the_files_of_its_item_and_no_folder():
    def broken(item):
        raise EOFError("no bytes")

    with pytest.raises(CourseDataError, match=r"items\[0\].*no bytes.*\(scan_3\.nii\)") as told:
        SmartCache([Path("/data/doe/scan_3.nii")], broken, cache_num=1)
    assert "doe" not in str(told.value)


IMPOSSIBLE = {
    "CACHE_TOO_LARGE": [(5, {"cache_num": 0}), (5, {"cache_num": 6})],
    "EMPTY_LIST": [(0, {"cache_num": 1})],
    "fraction": [(5, {"replace_rate": rate}) for rate in (-0.1, 10, float("nan"))],
}


def test_what_cannot_be_is_refused_before_anything_is_loaded():
    for words, calls in IMPOSSIBLE.items():
        for items, options in calls:
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


def test_keras_swaps_at_the_end_of_each_epoch_and_the_swaps_are_kept():
    with SmartCache(range(10), numbered, cache_num=6, replace_rate=0.3, shuffle=False) as cache:
        callback = cache.callback()
        for epoch in range(3):
            assert sorted(inside(cache)) == [(2 * epoch + i) % 10 for i in range(6)]
            callback.on_epoch_end(epoch, {})
    assert [swap.left for swap in callback.swaps] == [(0, 1), (2, 3), (4, 5)]
