"""Two calls in place of ten stages: the same stream, bit for bit, and what is wrong said before."""

import collections
import dataclasses
import re
import textwrap
from pathlib import Path

import keras
import nibabel
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import augment, crops, memory, pipeline, records, sampling
from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.lists import Item
from helpers.pipeline.loading import element_of
from helpers.smart_cache import SmartCache
from helpers.volume import Volume
from tests.records_cases import as_given, write

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")
some = settings(max_examples=25, deadline=None, derandomize=True)

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


def cases(**changes) -> list[Case]:
    known = {"label": LABELS, "weight": WEIGHTS} | changes
    return [
        Case(f"case {n}", n, split="train", label=known["label"][n], weight=known["weight"][n])
        for n in range(len(LABELS))
    ]


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
    made = [
        dataclasses.replace(case, source={"image": voxels(case.source)["image"][:5, :5, :5]})
        for case in cases()
    ]
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
            assert np.asarray(one[field]).dtype == np.asarray(other[field]).dtype
            np.testing.assert_array_equal(one[field], other[field])


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
BRIGHTER = [lambda dataset: dataset.map(lambda x: x | {"image": x["image"] + 1})]
STEPS = {
    "a crop": {"crop": crops.random(SIZE, seed=1)},
    "by the mask": {
        "crop": crops.pos_neg(SIZE, per_image=2, seed=1),
        "transforms": [crops.locate()],
    },
    "round the middle": {"crop": crops.centre((7, 7, 7), fill="min")},
    "augmented": {"crop": crops.random(SIZE, seed=1), "augment": FLIPS},
    "several augmented": {"crop": crops.random(SIZE, per_image=2, seed=1), "augment": FLIPS},
    "in batches": {"crop": crops.random(SIZE, seed=1), "batch_transforms": BRIGHTER},
}


def by_hand(dataset, endless, transforms=(), crop=None, augment=(), batch_transforms=()):
    """From elements in their order to batches of three, with tf.data's own words."""
    dataset = dataset.repeat() if endless else dataset
    for stage in [*transforms, crop]:
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
    size = 3 * (getattr(STEPS[what]["crop"], "per_image", None) or 1) if repeat else None
    for dataset in (cached, streamed):  # without an end, all batches are of one size
        assert dataset.element_spec["image"].shape[0] == size


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("how", ["automatic", "element", WEIGHTS], ids=str)
def test_sampling_draws_the_indices_and_reads_what_is_drawn(how, cache, pictures):
    known = records.index(pictures)
    chances = sampling.element(known["weight"] if how == "element" else WEIGHTS)
    chances = sampling.automatic(known["label"]) if how == "automatic" else chances
    groups = known["label"] if how == "automatic" else None
    options = {"batch_size": 4, "cache": cache, "repeat": True, "duplicate_count": 2, "seed": 3}
    ours = pipeline.classification(pictures, sampling=how, **options)
    order = sampling.indices(chances, seed=3, groups=groups, size=20)
    drawn = records.read(pictures, mapped=True, indices=order).batch(4, drop_remainder=True)
    assert_same(ours, cast(drawn))
    assert ours.element_spec["image"].shape == (4, 5, 5, 5, 1)


def test_a_list_a_dataset_and_records_give_the_same_elements(folder):
    order = {case: n for n, case in enumerate(records.index(folder, "train")["case"])}
    salted = {records.case_hash("nobody knows this", "", c.name): c for c in cases()}
    listed = [case for _, case in sorted((order[name], case) for name, case in salted.items())]
    options = {"batch_size": 3, "crop": crops.random(SIZE, seed=1), "seed": 4}
    of_records = batches(pipeline.segmentation(folder, split="train", **options))
    elements = records.read(folder, "train", mapped=True)
    assert_same(
        pipeline.segmentation(folder, split="train", **options),
        pipeline.segmentation(elements, **options),
    )
    for cache in (True, False):
        of_list = batches(pipeline.segmentation(listed, load=load, cache=cache, **options))
        for one, other in zip(of_list, of_records, strict=True):
            assert one.keys() == other.keys()
            for field in one.keys() - {"case"}:
                assert np.asarray(one[field]).dtype == np.asarray(other[field]).dtype
                np.testing.assert_array_equal(one[field], other[field])


def mixed(tmp_path) -> list[Item]:
    """NIfTI items of two stored dtypes: whole numbers first, then fractions."""
    images = [voxels(n)["image"].astype(np.uint8) for n in range(3)]
    images[1] = images[1] + np.float32(0.25)
    items = []
    for n, image in enumerate(images):
        scan = Volume(image, (2.0, 1.0, 0.5))
        mask = scan.with_voxels(voxels(n)["mask"]).save(tmp_path / f"{n}_mask.nii.gz")
        items.append(Item(scan.save(tmp_path / f"{n}.nii.gz"), mask))
    return items


@pytest.mark.parametrize("cache", [True, False])
def test_a_list_of_several_stored_dtypes_is_read_in_the_one_that_holds_all(tmp_path, cache):
    items, middle = mixed(tmp_path), crops.centre((9, 9, 9))
    options = {"crop": middle, "shuffle": False, "cache": cache, "dtype": "float64"}
    with pytest.warns(UserWarning, match="stored as float32, uint8; all come as float32"):
        dataset = pipeline.segmentation(items, batch_size=1, **options)
    for item, batch in zip(items, batches(dataset), strict=True):
        image = nibabel.load(item.image).get_fdata().T[..., np.newaxis]
        expected = tf.data.Dataset.from_tensors({"image": image}).apply(middle)
        np.testing.assert_array_equal(batch["image"][0], *(one["image"] for one in expected))


def test_values_that_half_precision_cannot_hold_are_refused_and_do_not_become_infinite():
    def fed(values, **more):
        dataset = pipeline.classification(
            tf.data.Dataset.from_tensor_slices(
                {"image": np.full((2, 4, 4, 1), values, np.float32), "label": [0, 1]}
            ),
            **{"batch_size": 2, "dtype": "float16", "crop": crops.centre((4, 4))} | more,
        )
        return [batch["image"] for batch in dataset.as_numpy_iterator()]

    clipped = [augment.stage([augment.Clip(0, 1e6)], seed=1)]
    for way in ({}, {"augment": clipped}, {"cache": False, "shuffle": False}):
        assert np.max(fed(65504, **way)) == 65504, way
        with pytest.raises(tf.errors.InvalidArgumentError, match="NOT_FINITE"):
            fed(200_000, **way)


@pytest.mark.parametrize("cache", [True, False])
def test_cached_items_are_loaded_once_and_streamed_ones_in_each_epoch(cache):
    calls = collections.Counter()

    def counted(case):
        calls[case.source] += 1
        return load(case)

    options = {"load": counted, "batch_size": 4, "crop": crops.random(SIZE, seed=1), "cache": cache}
    dataset = pipeline.segmentation(cases(), **options)
    assert [len(names(dataset)) for _ in range(3)] == [10] * 3
    often = 1 if cache else 3
    assert calls == {0: often + 1} | dict.fromkeys(range(1, 10), often)  # the first to see its form


@pytest.mark.parametrize("cache", [True, False])
def test_an_epoch_takes_each_element_as_often_as_it_is_told_and_in_order_if_unshuffled(
    cache, folder
):
    options = {"batch_size": 4, "crop": crops.random(SIZE, seed=1), "cache": cache}
    dataset = pipeline.segmentation(folder, split="train", duplicate_count=3, **options)
    first, second = names(dataset), names(dataset)
    assert set(collections.Counter(first).values()) == {3} and len({*first}) == 10
    assert first != second and int(dataset.cardinality()) == 8
    both = [dataclasses.replace(cases()[0], split="test"), *cases()]
    listed = pipeline.segmentation(both, split="train", load=load, shuffle=False, **options)
    assert names(listed) == [f"item {n}" for n in range(10)]


@pytest.mark.parametrize("cache", [True, False])
def test_whole_images_of_one_shape_need_no_crop(cache, pictures):
    dataset = pipeline.classification(pictures, batch_size=4, cache=cache, prefetch=0)
    found = {}
    for batch in batches(dataset):
        found |= dict(zip(batch["case"], batch["image"], strict=True))
    assert int(dataset.cardinality()) == 3 and len(found) == 10
    for element in records.read(pictures).as_numpy_iterator():
        np.testing.assert_array_equal(found[element["case"]], element["image"].astype(np.float32))


@pytest.mark.parametrize("cache", [True, False])
def test_heads_take_the_label_apart(cache):
    several = [(n % 2, n % 3, -1 if n == 4 else n % 2) for n in range(10)]
    options = {"load": load, "crop": crops.random(SIZE, seed=1), "shuffle": False, "cache": cache}
    options["batch_size"] = 10
    (batch,) = batches(
        pipeline.classification(cases(label=several), label_format=[1, 3, 1], **options)
    )
    assert batch["label"].keys() == {"binary", "class_1"}
    assert batch["label"]["binary"].tolist() == [[a, c] for a, _, c in several]
    assert batch["label"]["class_1"].tolist() == [b for _, b, _ in several]
    single = pipeline.classification(cases(), label_format=[3], **options)
    _, label = next(single.apply(pipeline.pairs("label")).as_numpy_iterator())
    assert label["class_0"].tolist() == list(LABELS)


def test_items_give_a_smart_cache_what_the_pipeline_itself_would_keep(folder):
    elements = memory.gather(records.read(folder, "train", mapped=True).apply(crops.locate()))
    numbers, load_one = pipeline.items(folder, "train", [crops.locate()])
    assert len(numbers) == len(elements) == 10
    for number, one in zip(numbers, elements, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, load_one(number), one)
    numbers, load_one = pipeline.items(cases(), load=load)
    for number, case in zip(numbers, cases(), strict=True):
        np.testing.assert_array_equal(load_one(number)["image"][..., 0], load(case)["image"])
        assert load_one(number)["label"] == case.label


def test_a_swapped_cache_gives_its_new_elements_in_the_next_epoch(folder):
    with SmartCache(*pipeline.items(folder, "train"), cache_num=4, replace_rate=0.5) as cache:
        dataset = pipeline.segmentation(cache, batch_size=2, crop=crops.random(SIZE, seed=1))
        for _ in range(4):
            assert set(names(dataset)) == {one["case"].item().decode() for one in cache}
            assert len(names(dataset)) == 4
            cache.swap()


def test_classes_of_a_smart_cache_are_balanced_as_they_are_by_then():
    items, load_one = pipeline.items(cases(label=[0] * 8 + [1] * 2), load=load)
    options = {"cache_num": 6, "replace_rate": 1, "shuffle": False}
    with SmartCache(items, load_one, **options) as cache:
        dataset = pipeline.classification(
            cache, batch_size=6, sampling="automatic", crop=crops.random(SIZE, seed=1)
        )
        (before,), (again,) = batches(dataset), batches(dataset)
        assert before["label"].tolist() == [0] * 6
        assert sorted(before["case"]) == sorted(again["case"])
        cache.swap()
        (after,) = batches(dataset)
        assert sorted(after["label"].tolist()) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("transforms", [(), [crops.locate()]])
def test_a_list_of_elements_is_a_source_and_transforms_are_done_as_they_come(folder, transforms):
    elements = memory.gather(records.read(folder, "train", mapped=True))
    options = {"batch_size": 3, "crop": crops.pos_neg(SIZE, seed=1), "seed": 4}
    of_list = pipeline.segmentation(elements, transforms=transforms, **options)
    assert_same(of_list, pipeline.segmentation(folder, split="train", **options))


def test_a_dataset_that_is_not_kept_cannot_be_shuffled_or_drawn_from(folder):
    dataset = records.read(folder, "train", seed=1)
    options = {"batch_size": 2, "crop": crops.random(SIZE, seed=1), "cache": False}
    for wrong in ({}, {"shuffle": False, "sampling": [1] * 10}):
        with pytest.raises(ValueError, match="from start to end"):
            pipeline.segmentation(dataset, **options, **wrong)
    ours = pipeline.segmentation(dataset, shuffle=False, **options)
    hand = records.read(folder, "train", seed=1).apply(crops.random(SIZE, seed=1))
    assert_same(ours, cast(hand.batch(2)))


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


class Little:
    available = 1000


CLASSIFY = {"target": "label"}
REFUSED = {
    "an empty list": ([], {}, "EMPTY_LIST", ""),
    "a class without a case": (cases(), CLASSIFY | {"classes": [0, 1, 2, 3]}, "EMPTY_CLASS", "3"),
    "a label of no class": (cases(), CLASSIFY | {"classes": [0, 1]}, "UNKNOWN_LABEL", "9"),
    "no label": (cases(label=[None, *LABELS[1:]]), CLASSIFY, "UNKNOWN_LABEL", "0"),
    "weights below 0": (cases(weight=[-1] * 10), {"sampling": "element"}, "BAD_WEIGHT", ""),
    "weights that lack": (
        cases(weight=[None, *WEIGHTS[1:]]), {"sampling": "element"}, "BAD_WEIGHT", "0",
    ),
    "weights of 0": (cases(weight=[0] * 10), {"sampling": "element"}, "BAD_WEIGHT", ""),
}  # fmt: skip
LOADED = {
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
    crop = crops.random(SIZE, seed=1)
    options = {"target": "mask", "batch_size": 2, "crop": crop, "shuffle": False} | options
    with pytest.raises(CourseDataError) as caught:
        pipeline.batches(source, **options)
    return caught.value


@pytest.mark.parametrize("cache", [True, False])
def test_what_a_list_lacks_is_said_before_anything_is_loaded(cache):
    found = {}
    for name, (source, options, _, words) in REFUSED.items():
        error = refusal(source, load=never, cache=cache, **options)
        found[name] = error.code if words in error.message else error.message
    assert found == {name: code for name, (_, _, code, _) in REFUSED.items()}


def test_a_loader_that_fails_and_an_element_unlike_the_others_are_named():
    found = {}
    for name, (loader, _, words) in LOADED.items():
        error = refusal(cases(), load=loader)
        found[name] = error.code if words in error.message else error.message
    assert found == {name: code for name, (_, code, _) in LOADED.items()}
    streamed = pipeline.segmentation(
        cases(), load=LOADED["no mask"][0], batch_size=2, cache=False, crop=crops.centre(SIZE)
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
    bare = [dataclasses.replace(case, label=None, weight=None) for case in cases()]
    for cache in (True, False):
        error = refusal(pictures, crop=None, cache=cache)
        assert (error.code, "`mask`" in error.message) == ("NO_PAIR", True)
        error = refusal(bare, load=load, cache=cache, target="label")
        assert (error.code, "`label`" in error.message) == ("NO_PAIR", True)
        empty = records.read(folder, "train").take(0)
        assert refusal(empty, cache=cache).code == "EMPTY_LIST"
    assert refusal(bare, load=load, sampling="element").code == "BAD_WEIGHT"
    assert refusal(bare, load=load, sampling="automatic").code == "UNKNOWN_LABEL"


def test_a_cache_beyond_the_memory_is_refused_before_it_fills(folder, monkeypatch):
    sized = [dataclasses.replace(case, size=200) for case in cases()]
    monkeypatch.setattr("psutil.virtual_memory", Little)
    assert refusal(folder, split="train").code == "TOO_LARGE"
    assert refusal(sized, load=failing(AssertionError("loaded"))).code == "TOO_LARGE"
    pipeline.segmentation(folder, split="train", batch_size=2, crop=crops.centre(SIZE), cache=False)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sampling": [1, 2]}, "2 probabilities for 10"),
        ({"split": "nowhere"}, "which split"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(wrong, words):
    options = {"load": load, "batch_size": 2, "crop": crops.random(SIZE, seed=1)}
    with pytest.raises(ValueError, match=words) as caught:
        pipeline.segmentation(cases(), **(options | wrong))
    assert not isinstance(caught.value, CourseDataError)
    assert refusal(cases(), load=load, crop=None).code == "SHAPE_MISMATCH"
    mixed_splits = [*cases(), dataclasses.replace(cases()[0], split="test")]
    with pytest.raises(ValueError, match="which split"):
        pipeline.segmentation(mixed_splits, **options)


# Elements, and pairs


@some
@given(st.sampled_from([2, 3]), st.sampled_from([None, 1, 3]), st.sampled_from(["spacing", "mask"]),
       st.sampled_from([bool, np.uint8, np.int64, np.float32]), st.booleans())  # fmt: skip
def test_every_way_to_write_an_image_becomes_the_same_element(rank, channels, told, dtype, axis):
    shape = (5, 6, 7)[:rank]
    image = np.arange(np.prod(shape) * (channels or 1), dtype=np.int16)
    image = image.reshape(shape if channels is None else (*shape, channels))
    mask = (np.arange(np.prod(shape)) % 2).astype(dtype).reshape(shape)
    ways = {"spacing": [1.0] * rank, "mask": mask[..., np.newaxis] if axis else mask}
    element = element_of({"image": image, told: ways[told], "notes": "for people"})
    assert element["image"].shape == (*shape, channels or 1) and "notes" not in element
    assert element["image"].ravel().tolist() == image.ravel().tolist()
    if told == "mask":
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
    of_batches, of_elements = dataset.batch(8).apply(pairs), dataset.apply(pairs).batch(8)
    exp = np.exp(logits.astype(np.float64))
    chosen = np.take_along_axis(exp / exp.sum(-1, keepdims=True), mask.astype(int), -1)[..., 0]
    expected = (-np.log(chosen).reshape(8, -1).mean(1) * weight).mean()
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for batches_of in (of_batches, of_elements):
        assert model.evaluate(batches_of, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_pairs_need_their_fields():
    with pytest.raises(CourseDataError, match="`mask`, `weight`") as caught:
        tf.data.Dataset.from_tensors({"image": 1.0}).apply(pipeline.pairs("mask", weight=True))
    assert caught.value.code == "NO_PAIR"


@pytest.mark.parametrize(
    ("dtype", "fits", "too_large"),
    [("float16", 65504, 65600), ("uint8", 255, 256), ("uint8", 0, -1), ("int16", 32767, 32768)],
)
def test_a_cast_to_a_narrower_type_is_refused_where_it_does_not_hold_the_values(
    dtype, fits, too_large
):
    def last(value):
        elements = {
            "image": np.full((2, 3, 3, 1), value, np.float32),
            "label": np.zeros(2, np.int32),
        }
        dataset = tf.data.Dataset.from_tensor_slices(elements | {"case": [b"case a", b"case b"]})
        dataset = pipeline.classification(
            dataset, batch_size=2, cache=False, shuffle=False, dtype=dtype
        )
        return next(dataset.as_numpy_iterator())["image"]

    assert last(fits).max() == fits and last(fits).dtype == dtype
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"NOT_FINITE[\s\S]*case a"):
        last(too_large)
