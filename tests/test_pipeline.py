"""Two calls in place of ten stages: the same stream, bit for bit, and what is wrong said before."""

import dataclasses
import gc
import itertools
import re
import textwrap
import types
import weakref
from collections import Counter
from pathlib import Path

import keras
import nibabel
import numpy as np
import pytest
import tensorflow as tf

from helpers import augment, crops, memory, pipeline, records, sampling
from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.lists import Item
from helpers.pipeline.loading import element_of
from helpers.smart_cache import SmartCache
from helpers.volume import Volume
from tests.records_cases import as_given, photographs, write

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")

SIZE = (3, 4, 2)
LABELS = (0, 0, 0, 0, 0, 0, 0, 1, 1, 2)
WEIGHTS = (0, 1, 1, 1, 1, 1, 1, 1, 1, 4)


def voxels(number: int) -> dict:
    """A volume whose shape, content and mask follow from its number."""
    random = np.random.default_rng(number)
    shape = (6 + number % 3, 7, 5 + number % 2)
    return {
        "image": random.integers(-1000, 1000, shape, np.int16),
        "mask": random.integers(0, 3, shape, np.uint8),
        "spacing": (2.0, 1.0, 1.0),
        "modality": "CT",
    }


def cases(label=LABELS, weight=WEIGHTS) -> list[Case]:
    known = enumerate(zip(label, weight, strict=True))
    return [Case(f"case {n}", n, split="train", label=a, weight=b) for n, (a, b) in known]


def load(case: Case) -> dict:
    return voxels(case.source)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Records of the cases in three shards, and two more in another split."""
    made = [dataclasses.replace(case, source=voxels(case.source)) for case in cases()]
    made += [dataclasses.replace(case, name=f"more {case.name}", split="test") for case in made[:2]]
    path = tmp_path_factory.mktemp("set")
    write(path, made, load=as_given, shard_count=3)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Records of one shape, which need no crop."""
    images = [{"image": voxels(case.source)["image"][:5, :5, :5]} for case in cases()]
    made = [dataclasses.replace(case, source=images[case.source]) for case in cases()]
    path = tmp_path_factory.mktemp("pictures")
    write(path, made, load=as_given, shard_count=3)
    return path


def cast(dataset):
    return dataset.map(lambda x: x | {"image": tf.cast(x["image"], "float32")})


def batches(dataset, count: int = 12) -> list[dict]:
    return list(dataset.take(count).as_numpy_iterator())


def assert_same(ours, by_hand, count: int = 12) -> None:
    assert ours.element_spec.keys() == by_hand.element_spec.keys()
    ours, by_hand = batches(ours, count), batches(by_hand, count)
    assert len(ours) == len(by_hand) > 0
    for one, other in zip(ours, by_hand, strict=True):
        for field in other:
            np.testing.assert_array_equal(one[field], other[field], strict=True)


def names(dataset, count: int = 12) -> list[str]:
    return [name.decode() for batch in batches(dataset, count) for name in batch["case"]]


# The same stream as by hand


def test_what_the_documentation_says_is_the_same_by_hand_is(folder, pictures):
    blocks = re.findall(r"(?:^ {8}.*\n(?:\n(?= {8}))?)+", pipeline.batches.__doc__, re.M)[:4]
    known = {"number_of_records": len(LABELS), "tf": tf}
    known |= {"crops": crops, "pipeline": pipeline, "records": records, "sampling": sampling}
    streams = []
    for code, source in zip(blocks, (folder, folder, pictures, pictures), strict=True):
        code = textwrap.dedent(code).split("model.fit")[0].replace("[0, 1]", "[0, 1, 2]")
        code = code.replace("(96, 96, 96)", str(SIZE)).replace('"records"', repr(str(source)))
        exec(code, known)
        streams.append(known["dataset"])
    assert_same(*streams[:2])
    assert_same(*streams[2:])


FLIPS = [augment.stage([augment.Flip("x"), augment.Flip("z")], seed=2)]
# Beyond what the stored dtype holds: the cast comes last.
BRIGHTER = [lambda dataset: dataset.map(lambda x: x | {"image": x["image"] * 40})]
ANYWHERE = crops.random(SIZE, seed=1)
TWO_BY_MASK = crops.pos_neg(SIZE, per_image=2, seed=1)
STEPS = {
    "a crop": {"crop": ANYWHERE},
    "by the mask": {"crop": TWO_BY_MASK, "transforms": [crops.locate()]},
    "round the middle": {"transforms": [crops.centre((7, 7, 7), fill="min")]},
    "augmented": {"crop": ANYWHERE, "augment": FLIPS},
    "several augmented": {"crop": crops.random(SIZE, per_image=2, seed=1), "augment": FLIPS},
    "in batches": {"crop": ANYWHERE, "batch_transforms": BRIGHTER},
}


def by_hand(dataset, endless, transforms=(), crop=None, augment=(), batch_transforms=()):
    """From elements in their order to batches of three, with tf.data's own words."""
    dataset = dataset.repeat() if endless else dataset
    for stage in [*transforms, *([crop] if crop else [])]:
        dataset = dataset.apply(stage)
    per_image = getattr(crop, "per_image", None)
    dataset = dataset if per_image is None else dataset.unbatch()
    for stage in augment:
        dataset = dataset.apply(stage)
    dataset = dataset.batch(3 * (per_image or 1), drop_remainder=endless)
    for stage in batch_transforms:
        dataset = dataset.apply(stage)
    return cast(dataset)


@pytest.mark.parametrize(("what", "repeat"), [*zip(STEPS, [False, True] * 3, strict=True)])
def test_cached_or_streamed_it_is_the_stages_one_by_one(what, repeat, folder):
    options = {"split": "train", "batch_size": 3, "repeat": repeat, "seed": 5} | STEPS[what]
    elements = records.read(folder, "train", mapped=True).cache().shuffle(len(LABELS), seed=5)
    cached = pipeline.segmentation(folder, **options)
    assert_same(cached, by_hand(elements, repeat, **STEPS[what]))
    streamed = pipeline.segmentation(folder, cache=False, **options)
    assert_same(streamed, by_hand(records.read(folder, "train", seed=5), repeat, **STEPS[what]))
    size = 3 * (getattr(STEPS[what].get("crop"), "per_image", None) or 1) if repeat else None
    for dataset in (cached, streamed):  # without an end, all batches are of one size
        assert dataset.element_spec["image"].shape[0] == size


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("how", ["automatic", "element", WEIGHTS], ids=str)
def test_sampling_draws_the_indices_and_reads_what_is_drawn(how, cache, pictures):
    known = records.index(pictures)
    groups = known["label"] if how == "automatic" else None
    chances = known["weight"] if how == "element" else WEIGHTS if groups is None else None
    chances = sampling.automatic(groups) if chances is None else sampling.element(chances)
    options = {"batch_size": 4, "cache": cache, "repeat": True, "duplicate_count": 2, "seed": 3}
    ours = pipeline.classification(pictures, sampling=how, **options)
    order = sampling.indices(chances, seed=3, groups=groups, size=20)
    drawn = records.read(pictures, mapped=True, indices=order).batch(4, drop_remainder=True)
    assert_same(ours, cast(drawn))
    assert ours.element_spec["image"].shape == (4, 5, 5, 5, 1)


def test_a_list_a_dataset_elements_and_records_give_the_same(folder):
    order = {case: n for n, case in enumerate(records.index(folder, "train")["case"])}
    salted = {records.case_hash("nobody knows this", "", c.name): c for c in cases()}
    listed = [case for _, case in sorted((order[name], case) for name, case in salted.items())]
    options = {"batch_size": 3, "crop": crops.pos_neg(SIZE, seed=1), "seed": 4}
    dataset, of_records = records.read(folder, "train", mapped=True), {"split": "train"} | options
    elements = memory.gather(dataset)
    assert_same(
        pipeline.segmentation(dataset, **options), pipeline.segmentation(folder, **of_records)
    )
    for transforms in ((), [crops.locate()]):  # of elements in memory, done as they come
        assert_same(
            pipeline.segmentation(elements, transforms=transforms, **options),
            pipeline.segmentation(folder, **of_records),
        )
    stored = batches(pipeline.segmentation(folder, **of_records))
    for cache in (True, False):
        of_list = batches(pipeline.segmentation(listed, load=load, cache=cache, **options))
        for one, other in zip(of_list, stored, strict=True):
            assert one.keys() == other.keys()
            for field in one.keys() - {"case"}:
                np.testing.assert_array_equal(one[field], other[field], strict=True)


@pytest.mark.parametrize("cache", [True, False])
def test_a_list_of_several_stored_dtypes_is_read_in_the_one_that_holds_all(tmp_path, cache):
    items, middle = [], crops.centre((9, 9, 9))
    for n in range(3):  # whole numbers first, then fractions
        image = voxels(n)["image"].astype(np.uint8) + (np.float32(0.25) if n == 1 else np.uint8(0))
        scan = Volume(image, (2.0, 1.0, 0.5))
        mask = scan.with_voxels(voxels(n)["mask"]).save(tmp_path / f"{n}_mask.nii.gz")
        items.append(Item(scan.save(tmp_path / f"{n}.nii.gz"), mask))
    options = {"transforms": [middle], "shuffle": False, "cache": cache, "dtype": "float64"}
    with pytest.warns(UserWarning, match="stored as float32, uint8; all come as float32"):
        dataset = pipeline.segmentation(items, batch_size=1, **options)
    for item, batch in zip(items, batches(dataset), strict=True):
        image = nibabel.load(item.image).get_fdata().T[..., np.newaxis]
        expected = tf.data.Dataset.from_tensors({"image": image}).apply(middle)
        np.testing.assert_array_equal(batch["image"][0], *(one["image"] for one in expected))


CLIPPED = {"augment": [augment.stage([augment.Clip(0, 1e6)], seed=1)]}
STREAMED = {"cache": False, "shuffle": False}
CASTS = [  # by each of the ways to a batch: what float32 can be, and what it cannot
    ({}, "float16", 65504, 200_000),
    (CLIPPED, "float16", 65504, 65_600),
    (STREAMED, "float16", -65504, -65_600),
    (STREAMED, "uint8", 255, 256),
    (STREAMED, "uint8", 0, -1),
]


def test_values_that_a_narrower_type_cannot_hold_are_refused_and_the_case_is_named():
    def fed(value, dtype, **way):
        fields = {"image": np.full((2, 4, 4, 1), value, np.float32), "label": [0, 1]}
        dataset = tf.data.Dataset.from_tensor_slices(fields | {"case": [b"case a", b"case b"]})
        way = {"batch_size": 2, "dtype": dtype} | way
        return next(pipeline.classification(dataset, **way).as_numpy_iterator())["image"]

    for way, dtype, fits, too_large in CASTS:
        held = fed(fits, dtype, **way)
        assert (held.dtype, held.max()) == (dtype, fits)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"NOT_FINITE[\s\S]*case [ab]"):
            fed(too_large, dtype, **way)


@pytest.mark.parametrize("cache", [True, False])
def test_cached_items_are_loaded_once_and_streamed_ones_in_each_epoch(cache):
    calls = Counter()

    def counted(case):
        calls[case.source] += 1
        return load(case)

    options = {"load": counted, "batch_size": 4, "crop": ANYWHERE, "cache": cache}
    dataset = pipeline.segmentation(cases(), **options)
    assert [len(names(dataset)) for _ in range(3)] == [10] * 3
    assert calls == {0: 1} | dict.fromkeys(range(1, 10), 1 if cache else 3)  # the first is kept


@pytest.mark.parametrize("cache", [True, False])
def test_an_epoch_takes_each_element_as_often_as_told_and_in_order_if_unshuffled(cache, folder):
    options = {"batch_size": 4, "crop": ANYWHERE, "cache": cache}
    dataset = pipeline.segmentation(folder, split="train", duplicate_count=3, **options)
    first, second = names(dataset), names(dataset)
    assert set(Counter(first).values()) == {3} and len({*first}) == 10
    assert first != second and int(dataset.cardinality()) == 8
    if cache:  # the copies are shuffled together
        order = tf.data.Dataset.range(10).repeat(3).shuffle(30, seed=0).as_numpy_iterator()
        assert first == [records.index(folder, "train")["case"][n] for n in order]
    both = [dataclasses.replace(cases()[0], split="test"), *cases()]
    listed = pipeline.segmentation(both, split="train", load=load, shuffle=False, **options)
    assert names(listed) == [f"item {n}" for n in range(10)]


@pytest.mark.parametrize("cache", [True, False])
def test_heads_take_the_label_apart(cache):
    several = [(n % 2, n % 3, -1 if n == 4 else n % 2) for n in range(10)]
    options = {"load": load, "crop": ANYWHERE, "shuffle": False, "cache": cache, "repeat": True}
    made = pipeline.classification(cases(several), label_format=[1, 3, 1], batch_size=10, **options)
    ((_, label),) = made.apply(pipeline.pairs("label")).take(1).as_numpy_iterator()
    assert {name: ids.tolist() for name, ids in label.items()} == {
        "binary": [[a, c] for a, _, c in several],
        "class_1": [b for _, b, _ in several],
    }
    for size in (10, 1):  # one label, of which a batch of one could be taken for a list
        made = pipeline.classification(cases(), label_format=[3], batch_size=size, **options)
        ((_, label),) = made.apply(pipeline.pairs("label")).take(1).as_numpy_iterator()
        assert label["class_0"].tolist() == list(LABELS[:size])


def test_labels_that_only_the_loader_knows_are_drawn_by_once_they_are_read():
    def labelled(case):
        return load(case) | {"label": LABELS[case.source]}

    bare = cases(label=[None] * 10)
    options = {"batch_size": 9, "crop": ANYWHERE, "sampling": "automatic"}
    (batch, _) = batches(pipeline.classification(bare, load=labelled, **options))
    (own, _) = batches(pipeline.classification(cases(), load=load, **options))
    assert batch["label"].tolist() == own["label"].tolist()
    with pytest.raises(CourseDataError, match="UNKNOWN_LABEL"):
        pipeline.classification(bare, load=never, cache=False, **options)


# A cache that changes


def test_a_swapped_cache_gives_its_new_elements_in_the_next_epoch(folder):
    whole = memory.gather(records.read(folder, "train", mapped=True))
    numbers, load_one = pipeline.items(folder, "train")
    for number, one in zip(numbers, whole, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, load_one(number), one)
    with SmartCache(numbers, load_one, cache_num=4, replace_rate=0.5) as cache:
        dataset = pipeline.segmentation(cache, batch_size=2, crop=ANYWHERE)
        for _ in range(4):
            assert set(names(dataset)) == {one["case"].item().decode() for one in cache}
            assert len(names(dataset)) == 4
            cache.swap()


def test_classes_of_a_smart_cache_are_balanced_as_they_are_by_then():
    def labelled(number):
        image = voxels(number)["image"][..., np.newaxis]
        return {"image": image, "label": np.int32(number > 7), "case": str(number)}

    options = {"cache_num": 6, "replace_rate": 1, "shuffle": False}
    with SmartCache(range(10), labelled, **options) as cache:
        dataset = pipeline.classification(cache, batch_size=6, sampling="automatic", crop=ANYWHERE)
        (before,), (again,) = batches(dataset), batches(dataset)
        assert before["label"].tolist() == [0] * 6
        assert sorted(before["case"]) == sorted(again["case"])
        cache.swap()
        (after,) = batches(dataset)
        assert sorted(after["label"].tolist()) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("transforms", [(), BRIGHTER])
def test_elements_go_with_their_dataset(transforms):
    (kept,) = memory.gather(tf.data.Dataset.from_tensors({"image": np.zeros((300, 300, 1))}))
    gone, options = weakref.ref(kept["image"]), {"target": "image", "batch_size": 1}
    dataset = pipeline.batches([kept], transforms=transforms, **options)
    assert len(batches(dataset)) == 1
    del dataset, kept
    gc.collect()
    assert gone() is None


# What is wrong is said before the first batch


def never(case):
    raise AssertionError("loaded")


def failing(error):
    def load_or_fail(case):
        if case.source == 6:
            raise error
        return load(case)

    return load_or_fail


def odd(**change):
    """Item 1 has something else than the others, or, with None, lacks it."""

    def load_odd(case):
        found = load(case) | (change if case.source == 1 else {})
        return {field: value for field, value in found.items() if value is not None}

    return load_odd


CLASSIFY, BY_WEIGHT = {"target": "label"}, {"sampling": "element"}
BEFORE = {  # a source, options, the code, and a part of the message
    "an empty list": ([], {}, "EMPTY_LIST", ""),
    "a class without a case": (cases(), CLASSIFY | {"classes": [0, 1, 2, 3]}, "EMPTY_CLASS", "3"),
    "a label of no class": (cases(), CLASSIFY | {"classes": [0, 1]}, "UNKNOWN_LABEL", "9"),
    "one in a mask's set": (cases(), {"classes": [0, 1]}, "UNKNOWN_LABEL", "9"),
    "no label": (cases(label=[None, *LABELS[1:]]), CLASSIFY, "UNKNOWN_LABEL", "0"),
    "weights below 0": (cases(weight=[-1] * 10), BY_WEIGHT, "BAD_WEIGHT", ""),
    "weights that lack": (cases(weight=[None, *WEIGHTS[1:]]), BY_WEIGHT, "BAD_WEIGHT", "0"),
    "weights of 0": (cases(weight=[0] * 10), BY_WEIGHT, "BAD_WEIGHT", ""),
}
WHILE_CACHING = {  # a loader, the code, and a part of the message
    "a loader that fails": (failing(OSError("gone")), "LOADING_FAILED", "items[6]: the loader"),
    "a code of its own": (failing(CourseDataError("CONSTANT", "one")), "CONSTANT", "items[6]: one"),
    "a mask on another grid": (odd(mask=np.zeros((2, 2, 2))), "MASK_MISMATCH", "items[1]"),
    "an id of 300": (odd(mask=np.full((7, 7, 6), 300)), "UNKNOWN_LABEL", "items[1]"),
    "half an id": (odd(mask=np.full((7, 7, 6), 0.5)), "UNKNOWN_LABEL", "items[1]"),
    "another dtype": (odd(image=np.full((7, 7, 6), 0.5)), "LOADING_FAILED", "items[1]"),
    "two channels": (odd(image=np.zeros((7, 7, 6, 2), np.int16)), "LOADING_FAILED", "items[1]"),
    "text": (odd(image="text", mask=None), "LOADING_FAILED", "items[1]"),
    "half a label": (odd(label=0.7), "LOADING_FAILED", "items[1]"),
    "no mask": (odd(mask=None), "LOADING_FAILED", "items[1]"),
    "one field more": (odd(dose=np.float32(3)), "LOADING_FAILED", "items[1]"),
    "no dict": (lambda case: None, "LOADING_FAILED", "items[0]"),
}


def refusal(source, **options) -> CourseDataError:
    options = {"target": "mask", "batch_size": 2, "crop": ANYWHERE, "shuffle": False} | options
    with pytest.raises(CourseDataError) as caught:
        pipeline.batches(source, **options)
    return caught.value


@pytest.mark.parametrize("cache", [True, False])
def test_what_a_list_lacks_is_said_before_anything_is_loaded(cache):
    found = {}
    for name, (source, options, _, words) in BEFORE.items():
        error = refusal(source, load=never, cache=cache, **options)
        found[name] = error.code if words in error.message else error.message
    assert found == {name: code for name, (_, _, code, _) in BEFORE.items()}


def test_a_loader_that_fails_and_an_element_unlike_the_others_are_named():
    found = {}
    for name, (loader, _, words) in WHILE_CACHING.items():
        error = refusal(cases(), load=loader)
        found[name] = error.code if words in error.message else error.message
    assert found == {name: code for name, (_, code, _) in WHILE_CACHING.items()}
    streamed = pipeline.segmentation(
        cases(), load=odd(mask=None), batch_size=2, cache=False, transforms=[crops.centre(SIZE)]
    )
    with pytest.raises(tf.errors.OpError, match=r"LOADING_FAILED.*items\[1\]"):
        batches(streamed)


def test_an_item_whose_file_is_gone_is_named_before_any_is_read(tmp_path):
    there = tmp_path / "there.nii"
    there.touch()
    items = [Item(there), Item(there, tmp_path / "gone.nii"), tmp_path / "away.nii"]
    error = refusal(items, load=never)
    assert error.code == "UNREADABLE"
    assert [file.name for file in error.files] == ["gone.nii", "away.nii"]
    assert str(tmp_path) not in str(error)


def test_elements_without_what_the_task_needs_are_refused(folder, pictures):
    bare = cases(label=[None] * 10, weight=[None] * 10)
    for cache in (True, False):
        error = refusal(pictures, crop=None, cache=cache)
        assert (error.code, "`mask`" in error.message) == ("NO_PAIR", True)
        error = refusal(bare, load=load, cache=cache, target="label")
        assert (error.code, "`label`" in error.message) == ("NO_PAIR", True)
        empty = records.read(folder, "train").take(0)
        assert refusal(empty, cache=cache).code == "EMPTY_LIST"
    assert refusal(bare, load=load, sampling="element").code == "BAD_WEIGHT"
    assert refusal(bare, load=load, sampling="automatic").code == "UNKNOWN_LABEL"
    assert refusal(cases(), load=load, crop=None).code == "SHAPE_MISMATCH"
    with pytest.raises(CourseDataError, match="`mask`, `weight`") as caught:
        tf.data.Dataset.from_tensors({"image": 1.0}).apply(pipeline.pairs("mask", weight=True))
    assert caught.value.code == "NO_PAIR"


def test_a_cache_beyond_the_memory_is_refused_before_it_fills(folder, monkeypatch):
    held = sum(path.stat().st_size for path in folder.glob("train-*"))
    sized = [dataclasses.replace(case, size=held) for case in cases()]
    options, free = {"batch_size": 2, "crop": crops.random(SIZE, seed=1), "split": "train"}, held
    monkeypatch.setattr("psutil.virtual_memory", lambda: types.SimpleNamespace(available=free))
    pipeline.segmentation(folder, **options)
    free = held - 1
    pipeline.segmentation(folder, cache=False, **options)
    monkeypatch.setattr("helpers.records.read", never)
    assert refusal(folder, split="train").code == "TOO_LARGE"
    assert refusal(sized, load=never).code == "TOO_LARGE"


def test_arguments_that_do_not_go_together_are_refused(folder, tmp_path):
    photographs(tmp_path)
    dataset = records.read(folder, "train", seed=1)
    two_splits = [*cases(), dataclasses.replace(cases()[0], split="test")]
    wrong = {
        "2 probabilities for 10": (cases(), {"load": load, "sampling": [1, 2]}),
        "which split.*train": (cases(), {"load": load, "split": "nowhere"}),
        "which split.*test": (two_splits, {"load": load}),
        "from start to end": (dataset, {"cache": False}),
        "from start.*False": (dataset, STREAMED | {"sampling": [1] * 10}),
        "photographs": (tmp_path, {"sampling": [1] * 5}),
    }
    for words, (source, options) in wrong.items():
        with pytest.raises(ValueError, match=words):
            pipeline.segmentation(source, batch_size=2, **{"crop": ANYWHERE} | options)
    ours = pipeline.segmentation(dataset, batch_size=2, crop=ANYWHERE, **STREAMED)
    assert_same(ours, cast(records.read(folder, "train", seed=1).apply(ANYWHERE).batch(2)))
    squares = crops.random((9, 9), seed=1)
    assert len(batches(pipeline.segmentation(tmp_path, batch_size=2, crop=squares))) == 3


# Elements, and pairs


def test_every_way_to_write_an_image_becomes_the_same_element():
    ways = itertools.product([2, 3], [None, 1, 3], [bool, np.uint8, np.int64, np.float32])
    for (rank, channels, dtype), told in itertools.product(ways, ["spacing", "mask", "mask, 1"]):
        shape = (5, 6, 7)[:rank]
        image = np.arange(np.prod(shape) * (channels or 1), dtype=np.int16)
        image = image.reshape(shape if channels is None else (*shape, channels))
        mask = (np.arange(np.prod(shape)) % 2).astype(dtype).reshape(shape)
        fields = {"spacing": [1.0] * rank, "mask": mask, "mask, 1": mask[..., np.newaxis]}
        element = element_of({"image": image, told.split(",")[0]: fields[told], "notes": "x"})
        assert element["image"].shape == (*shape, channels or 1) and "notes" not in element
        assert element["image"].ravel().tolist() == image.ravel().tolist()
        if "mask" in element:
            assert (element["mask"].dtype, element["mask"].shape) == (np.uint8, (*shape, 1))
            assert element["mask"].ravel().tolist() == mask.ravel().tolist()


@pytest.mark.parametrize("space", [(8, 8), (3, 8, 8)])
def test_a_cases_weight_counts_for_each_of_its_voxels_in_keras(space):
    random = np.random.default_rng(2)
    logits = random.normal(size=(8, *space, 5)).astype(np.float32)
    weight = random.uniform(0.1, 3, 8).astype(np.float32)
    mask = random.integers(0, 5, (8, *space, 1)).astype(np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices({"image": logits, "mask": mask, "weight": weight})
    pairs = pipeline.pairs("mask", weight=True)
    exp = np.exp(logits.astype(np.float64))
    chosen = np.take_along_axis(exp / exp.sum(-1, keepdims=True), mask.astype(int), -1)[..., 0]
    expected = (-np.log(chosen).reshape(8, -1).mean(1) * weight).mean()
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for batches_of in (dataset.batch(8).apply(pairs), dataset.apply(pairs).batch(8)):
        assert model.evaluate(batches_of, verbose=0) == pytest.approx(expected, rel=1e-5)
