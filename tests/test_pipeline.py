"""Two calls in place of ten stages: the same stream, bit for bit, and what is wrong said before."""

import collections
import dataclasses
import re
import textwrap
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import augment, crops, memory, pipeline, records, sampling, volume
from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.lists import Item
from helpers.pipeline.listing import Listing
from helpers.smart_cache import SmartCache
from helpers.volume import Volume
from tests.records_cases import as_given, write

tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")
some = settings(max_examples=60, deadline=None, derandomize=True)

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


@pytest.mark.parametrize("function", [pipeline.segmentation, pipeline.classification])
def test_what_the_documentation_says_is_the_same_by_hand_is(function, folder, pictures):
    blocks = re.findall(r"(?:^ {8}.*\n(?:\n(?= {8}))?)+", function.__doc__, re.M)[:2]
    codes = [
        textwrap.dedent(code)
        .split("model.fit")[0]
        .replace("(96, 96, 96)", str(SIZE))
        .replace("[0, 1]", "[0, 1, 2]")
        for code in blocks
    ]
    source = folder if function is pipeline.segmentation else pictures
    streams = []
    for code in codes:
        known = {"number_of_records": len(LABELS), "tf": tf}
        known |= {m.__name__.split(".")[-1]: m for m in (crops, pipeline, records, sampling)}
        exec(code.replace('"records"', repr(str(source))), known)
        streams.append(known["dataset"])
    assert_same(*streams)


STEPS = {
    "a crop": {"crop": crops.random(SIZE, seed=1)},
    "several crops": {"crop": crops.random(SIZE, per_image=2, seed=1)},
    "by the mask": {
        "crop": crops.pos_neg(SIZE, per_image=2, seed=1),
        "transforms": [crops.locate()],
    },
    "round the middle": {"crop": crops.centre((7, 7, 7), fill="min")},
    "augmented": {
        "crop": crops.random(SIZE, seed=1),
        "augment": [augment.stage([augment.Flip("x"), augment.Flip("z")], seed=2)],
    },
    "several augmented": {
        "crop": crops.random(SIZE, per_image=2, seed=1),
        "augment": [augment.stage([augment.Flip("x"), augment.Flip("z")], seed=2)],
    },
    "batches transformed": {
        "crop": crops.random(SIZE, per_image=2, seed=1),
        "batch_transforms": [lambda d: d.map(lambda x: x | {"image": x["image"] + 1})],
    },
}


def by_hand(dataset, transforms=(), crop=None, augment=(), batch_transforms=(), endless=False):
    """From elements in their order to batches of three, with tf.data's own words."""
    dataset = dataset.apply(crop)
    per_image = 1
    if dataset.element_spec["image"].shape.rank == 5:
        per_image = dataset.element_spec["image"].shape[0]
        dataset = dataset.unbatch()
    for stage in augment:
        dataset = dataset.apply(stage)
    dataset = dataset.batch(3 * per_image, drop_remainder=endless)
    for stage in batch_transforms:
        dataset = dataset.apply(stage)
    return cast(dataset)


@pytest.mark.parametrize(("what", "repeat"), [*zip(STEPS, [False, True] * 4, strict=False)])
def test_cached_or_streamed_it_is_the_stages_one_by_one(what, repeat, folder):
    steps = STEPS[what]
    common = {"split": "train", "batch_size": 3, "repeat": repeat, "seed": 5}
    elements = records.read(folder, "train", mapped=True)
    for stage in steps.get("transforms", ()):
        elements = elements.apply(stage)
    elements = elements.cache().shuffle(len(LABELS), seed=5)
    elements = elements.repeat() if repeat else elements
    assert_same(
        pipeline.segmentation(folder, **common, **steps), by_hand(elements, **steps, endless=repeat)
    )
    streamed = records.read(folder, "train", seed=5)
    streamed = streamed.repeat() if repeat else streamed
    for stage in steps.get("transforms", ()):
        streamed = streamed.apply(stage)
    assert_same(
        pipeline.segmentation(folder, cache=False, **common, **steps),
        by_hand(streamed, **steps, endless=repeat),
    )


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    ("how", "chances", "groups"),
    [
        ("automatic", sampling.automatic(LABELS), LABELS),
        ("element", sampling.element(WEIGHTS), None),
        (WEIGHTS, sampling.element(WEIGHTS), None),
    ],
    ids=["automatic", "element", "probabilities"],
)
def test_sampling_draws_the_indices_and_reads_what_is_drawn(how, chances, groups, cache, pictures):
    known = records.index(pictures)
    if isinstance(how, str):  # records stand in an order of their own
        chances = {
            "automatic": lambda: sampling.automatic(known["label"]),
            "element": lambda: sampling.element(known["weight"]),
        }[how]()
        groups = known["label"] if groups else None
    ours = pipeline.classification(
        pictures, batch_size=4, sampling=how, cache=cache, repeat=True, duplicate_count=2, seed=3
    )
    order = sampling.indices(chances, seed=3, groups=groups, size=20)
    drawn = records.read(pictures, mapped=True, indices=order).batch(4, drop_remainder=True)
    assert_same(ours, cast(drawn))
    assert ours.element_spec["image"].shape == (4, 5, 5, 5, 1)


def test_automatic_sampling_makes_classes_equally_frequent_in_every_epoch(pictures):
    dataset = pipeline.classification(
        pictures, batch_size=6, sampling="automatic", duplicate_count=3
    )
    for _ in range(3):  # each epoch of 30 draws
        drawn = np.concatenate([batch["label"] for batch in dataset.as_numpy_iterator()])
        assert np.bincount(drawn).tolist() == [10, 10, 10]


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


def test_nifti_files_of_a_data_list_need_no_loader(tmp_path):
    paths = [(tmp_path / f"{n}.nii.gz", tmp_path / f"{n}_mask.nii.gz") for n in range(3)]
    for n, (image, mask) in enumerate(paths):
        for path, field in ((image, "image"), (mask, "mask")):
            Volume(voxels(n)[field], (2.0, 1.0, 0.5)).save(path)
    items = [Item(image, mask, weight=1.0) for image, mask in paths]
    dataset = pipeline.segmentation(
        items, batch_size=2, crop=crops.centre((9, 9, 9)), shuffle=False, dtype="float16"
    )
    found = {k: np.concatenate([b[k] for b in batches(dataset)]) for k in dataset.element_spec}
    assert found["case"].tolist() == [b"item 0", b"item 1", b"item 2"]
    assert found["spacing"].tolist() == [[2.0, 1.0, 0.5]] * 3
    assert (found["image"].dtype, found["mask"].dtype) == (np.float16, np.uint8)
    for n in range(3):
        one = {k: v[..., np.newaxis] for k, v in voxels(n).items() if k in ("image", "mask")}
        middle = tf.data.Dataset.from_tensors(one).apply(crops.centre((9, 9, 9)))
        (expected,) = middle.as_numpy_iterator()
        np.testing.assert_array_equal(found["image"][n], expected["image"].astype(np.float16))
        np.testing.assert_array_equal(found["mask"][n], expected["mask"])


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


def test_a_smart_cache_holds_several_stored_dtypes_in_the_one_that_holds_all(tmp_path):
    items = mixed(tmp_path)

    def read(item):
        return {"image": volume.load(item.image).voxels[..., np.newaxis]}

    options = {"replace_rate": 1.0, "shuffle": False}
    spec = {"image": tf.TensorSpec([None, None, None, 1], tf.float32)}
    with pytest.warns(UserWarning, match="all come as float32"):
        SmartCache(items, read, cache_num=1, **options).close()
    with SmartCache(items, read, cache_num=1, element_spec=spec, **options) as cache:
        for item in items:
            assert cache[0]["image"].dtype == np.float32
            np.testing.assert_array_equal(cache[0]["image"], read(item)["image"])
            cache.swap()


def test_a_loader_with_an_own_dtype_keeps_it_whatever_the_files_hold(tmp_path):
    def windowed(item):
        return {"image": np.clip(volume.load(item.image).voxels, 0, 9).astype(np.int16)}

    dataset = Listing(mixed(tmp_path), windowed).whole(1)
    assert dataset.element_spec["image"].dtype == tf.int16


def test_values_that_half_precision_cannot_hold_are_refused_and_do_not_become_infinite():
    middle = crops.centre((4, 4, 4))
    options = {"batch_size": 1, "shuffle": False, "dtype": "float16"}

    def loaded(value):
        mask = np.zeros((4, 4, 4, 1), np.uint8)
        return {"image": np.full((4, 4, 4, 1), value, np.float32), "mask": mask}

    def fed(values, **more):
        dataset = pipeline.segmentation(values, load=loaded, **options, **more)
        return [batch["image"] for batch in dataset.as_numpy_iterator()]

    def python_batches(values):
        return [batch["image"] for batch in pipeline.PythonBatches(values, loaded, **options)]

    ways = {
        "cut from memory": lambda values: fed(values, crop=middle),
        "augmented": lambda values: fed(
            values, crop=middle, augment=[augment.stage([augment.Clip(0, 1e6)], seed=1)]
        ),
        "streamed": lambda values: fed(values, cache=False, crop=middle),
        "PythonBatches": python_batches,
    }
    for name, way in ways.items():
        assert np.asarray(way([1000])).max() == 1000, name
        with pytest.raises((CourseDataError, tf.errors.InvalidArgumentError)) as told:
            way([1000, 200_000])
        assert "[NOT_FINITE]" in str(told.value), name


def test_cached_items_are_loaded_once_and_streamed_ones_in_each_epoch():
    calls = collections.Counter()

    def counted(case):
        calls[case.source] += 1
        return load(case)

    options = {"load": counted, "batch_size": 4, "crop": crops.random(SIZE, seed=1)}
    cached = pipeline.segmentation(cases(), **options)
    for _ in range(3):
        assert len(names(cached)) == 10
    assert calls == dict.fromkeys(range(10), 1)
    calls.clear()
    streamed = pipeline.segmentation(cases(), cache=False, **options)
    for _ in range(3):
        assert len(names(streamed)) == 10
    assert calls == dict.fromkeys(range(10), 3)


def test_an_epoch_takes_each_element_as_often_as_duplicate_count_says(folder):
    for cache in (True, False):
        dataset = pipeline.segmentation(
            folder,
            split="train",
            batch_size=4,
            duplicate_count=3,
            crop=crops.random(SIZE, seed=1),
            cache=cache,
        )
        first, second = collections.Counter(names(dataset)), names(dataset)
        assert set(first.values()) == {3}
        assert len(first) == 10
        assert second != [*first.elements()]
        assert int(dataset.cardinality()) == 8


def test_the_order_is_that_of_the_source_where_nothing_is_shuffled(folder):
    dataset = pipeline.segmentation(
        folder, split="train", batch_size=3, crop=crops.centre(SIZE), shuffle=False
    )
    assert names(dataset) == records.index(folder, "train")["case"]


@pytest.mark.parametrize("cache", [True, False])
def test_whole_images_of_one_shape_need_no_crop(cache, pictures):
    dataset = pipeline.classification(
        pictures, batch_size=4, shuffle=False, cache=cache, prefetch=0
    )
    assert int(dataset.cardinality()) == 3
    found = {
        case: image
        for batch in batches(dataset)
        for case, image in zip(batch["case"], batch["image"], strict=True)
    }
    for element in records.read(pictures).as_numpy_iterator():
        np.testing.assert_array_equal(found[element["case"]], element["image"].astype(np.float32))


@pytest.mark.parametrize("cache", [True, False])
def test_heads_take_the_label_apart(cache):
    several = [(n % 2, n % 3, -1 if n == 4 else n % 2) for n in range(10)]
    options = {"load": load, "crop": crops.random(SIZE, seed=1), "shuffle": False, "cache": cache}
    dataset = pipeline.classification(
        cases(label=several), batch_size=10, label_format=[1, 3, 1], **options
    )
    (batch,) = batches(dataset)
    assert batch["label"].keys() == {"binary", "class_1"}
    assert batch["label"]["binary"].tolist() == [[a, c] for a, _, c in several]
    assert batch["label"]["class_1"].tolist() == [b for _, b, _ in several]
    single = pipeline.classification(cases(), batch_size=10, label_format=[3], **options)
    (batch,) = batches(single)
    assert batch["label"]["class_0"].tolist() == list(LABELS)
    _, label = next(iter(single.apply(pipeline.pairs("label"))))
    assert label.keys() == {"class_0"}


# Smart caches


def test_items_give_a_smart_cache_what_the_pipeline_itself_would_keep(folder):
    elements = memory.gather(records.read(folder, "train", mapped=True).apply(crops.locate()))
    items, load_one = pipeline.items(folder, "train", [crops.locate()])
    assert [item.case for item in items] == [one["case"].item().decode() for one in elements]
    for item, one in zip(items, elements, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, load_one(item), one)
    items, load_one = pipeline.items(cases(), None, [crops.locate()], load)
    of_list = {load_one(item)["image"].tobytes(): load_one(item) for item in items}
    for one in elements:
        runs = of_list[one["image"].tobytes()]["runs"]
        np.testing.assert_array_equal(runs, one["runs"])
    with pytest.raises(ValueError, match="came with it"):
        load_one(cases()[0])


def test_a_swapped_cache_gives_its_new_elements_in_the_next_epoch(folder):
    with SmartCache(*pipeline.items(folder, "train"), cache_num=4, replace_rate=0.5) as cache:
        dataset = pipeline.segmentation(cache, batch_size=2, crop=crops.random(SIZE, seed=1))
        for _ in range(4):
            assert set(names(dataset)) == {item.case for item in cache.items}
            assert len(names(dataset)) == 4
            cache.swap()


def test_classes_of_a_smart_cache_are_balanced_as_they_are_by_then():
    items, load_one = pipeline.items(cases(label=[0] * 8 + [1] * 2), None, (), load)
    with SmartCache(
        items, load_one, cache_num=6, replace_rate=1, shuffle=False, element_spec=None
    ) as cache:
        dataset = pipeline.classification(
            cache, batch_size=6, sampling="automatic", crop=crops.random(SIZE, seed=1)
        )
        (before,), (again,) = batches(dataset), batches(dataset)
        assert before["label"].tolist() == [0] * 6
        assert sorted(before["case"]) == sorted(again["case"])
        cache.swap()
        (after,) = batches(dataset)
        assert sorted(after["label"].tolist()) == [0, 0, 0, 1, 1, 1]


def test_what_belongs_before_a_smart_cache_is_refused_behind_it():
    with SmartCache(*pipeline.items(cases(), None, (), load), cache_num=3) as cache:
        for wrong in ({"transforms": [crops.locate()]}, {"cache": False}, {"load": load}):
            with pytest.raises(ValueError, match=r"pipeline\.items"):
                pipeline.segmentation(cache, batch_size=1, crop=crops.random(SIZE, seed=1), **wrong)
        with pytest.raises(ValueError, match="part of the set"):
            pipeline.classification(cache, batch_size=1, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="no items"):
        pipeline.items(tf.data.Dataset.range(3))


# What is wrong is said before the first batch


def refusal(code: str, function=pipeline.segmentation, *arguments, **options) -> CourseDataError:
    with pytest.raises(CourseDataError) as caught:
        function(*arguments, **({"batch_size": 2, "crop": crops.random(SIZE, seed=1)} | options))
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize("cache", [True, False])
def test_an_empty_list_is_refused(cache):
    refusal("EMPTY_LIST", pipeline.segmentation, [], load=load, cache=cache)


def test_a_dataset_without_elements_is_refused(folder):
    empty = records.read(folder, "train").take(0)
    refusal("EMPTY_LIST", pipeline.segmentation, empty)


@pytest.mark.parametrize("cache", [True, False])
def test_an_item_whose_file_is_gone_is_named_before_any_is_read(cache, tmp_path):
    there = tmp_path / "there.nii"
    there.touch()
    items = [Item(there), Item(there, tmp_path / "gone.nii"), tmp_path / "away.nii"]
    error = refusal("UNREADABLE", pipeline.segmentation, items, load=load, cache=cache)
    assert "items[1, 2]" in error.message
    assert [file.name for file in error.files] == ["gone.nii", "away.nii"]
    assert str(tmp_path) not in str(error)


@pytest.mark.parametrize("cache", [True, False])
def test_labels_and_weights_are_looked_at_before_anything_is_loaded(cache):
    def never(case):
        raise AssertionError("loaded")

    options = {"load": never, "cache": cache}
    classify = pipeline.classification
    error = refusal("EMPTY_CLASS", classify, cases(), classes=[0, 1, 2, 3], **options)
    assert "3" in error.message
    error = refusal("UNKNOWN_LABEL", classify, cases(), classes=[0, 1], **options)
    assert "9" in error.message
    holes = cases(label=[None, *LABELS[1:]])
    error = refusal("UNKNOWN_LABEL", classify, holes, **options)
    assert "0" in error.message
    for weights in ([-1, *WEIGHTS[1:]], [None, *WEIGHTS[1:]], [0] * 10, [np.nan, *WEIGHTS[1:]]):
        refusal("BAD_WEIGHT", classify, cases(weight=weights), sampling="element", **options)
    error = refusal(
        "UNKNOWN_LABEL",
        classify,
        cases(label=[(0, 2)] * 9 + [(0, 5)]),
        label_format=[1, 3],
        **options,
    )
    assert "9" in error.message


def test_without_weights_none_can_be_drawn_by_them(folder):
    bare = [dataclasses.replace(case, weight=None) for case in cases()]
    refusal("BAD_WEIGHT", pipeline.segmentation, bare, load=load, sampling="element")


def test_elements_without_what_the_task_needs_are_refused(folder, pictures):
    for cache in (True, False):
        error = refusal("NO_PAIR", pipeline.segmentation, pictures, crop=None, cache=cache)
        assert "`mask`" in error.message
    bare = [dataclasses.replace(case, label=None) for case in cases()]
    for cache in (True, False):
        error = refusal("NO_PAIR", pipeline.classification, bare, load=load, cache=cache)
        assert "`label`" in error.message


def test_a_cache_beyond_the_memory_is_refused_before_it_fills(folder, monkeypatch):
    class Little:
        available = 1000

    expected = sum(
        one["image"].nbytes + one["mask"].nbytes
        for one in records.read(folder, "train").as_numpy_iterator()
    )
    from helpers.pipeline.sources import Records

    assert Records(folder, "train").bytes == expected
    monkeypatch.setattr("psutil.virtual_memory", Little)
    error = refusal("TOO_LARGE", pipeline.segmentation, folder, split="train")
    assert "SmartCache" in error.message
    pipeline.segmentation(
        folder, split="train", batch_size=2, crop=crops.random(SIZE, seed=1), cache=False
    )


def broken(case: Case) -> dict:
    if case.source == 6:
        raise OSError("the disk is gone")
    return load(case)


def test_a_loader_that_fails_names_its_item():
    error = refusal("LOADING_FAILED", pipeline.segmentation, cases(), load=broken)
    assert "items[6]" in error.message
    assert "OSError: the disk is gone" in error.message
    streamed = pipeline.segmentation(
        cases(), load=broken, batch_size=2, cache=False, crop=crops.random(SIZE, seed=1)
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"LOADING_FAILED.*items\[6\]"):
        batches(streamed)


def test_a_loader_may_refuse_by_a_code_of_its_own(tmp_path):
    def refusing(case):
        raise CourseDataError("CONSTANT", "one value")

    error = refusal("CONSTANT", pipeline.segmentation, cases(), load=refusing)
    assert error.message == "items[0]: one value"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mask": np.zeros((2, 2, 2), np.uint8)}, "MASK_MISMATCH"),
        ({"mask": np.full((7, 7, 6), 300)}, "UNKNOWN_LABEL"),
        ({"mask": np.full((7, 7, 6), 0.5)}, "UNKNOWN_LABEL"),
        ({"image": np.full((7, 7, 6), 0.5)}, "LOADING_FAILED"),
        ({"image": np.zeros((7, 7, 6, 2), np.int16)}, "SHAPE_MISMATCH"),
        ({"image": "text"}, "LOADING_FAILED"),
        ({"image": np.zeros(3)}, "SHAPE_MISMATCH"),
    ],
)
def test_an_element_that_is_unlike_the_others_is_refused_by_name(change, code):
    def odd(case):
        return voxels(case.source) | (change if case.source == 1 else {})

    assert "items[1]" in refusal(code, pipeline.segmentation, cases(), load=odd).message


def test_fields_that_others_have_are_filled_as_in_records_but_a_mask_is_not():
    def without(*fields):
        def odd(case):
            gone = fields if case.source == 1 else ()
            return {k: v for k, v in voxels(case.source).items() if k not in gone}

        return odd

    dataset = pipeline.segmentation(
        cases(weight=[1, None] * 5),
        load=without("spacing", "modality"),
        batch_size=10,
        crop=crops.centre(SIZE),
        shuffle=False,
    )
    (batch,) = batches(dataset)
    assert batch["spacing"][:2].tolist() == [[2, 1, 1], [0, 0, 0]]
    assert batch["modality"][:2].tolist() == [b"CT", b""]
    assert set(batch["weight"].tolist()) == {1.0}
    assert (
        "items[1]"
        in refusal("NO_PAIR", pipeline.segmentation, cases(), load=without("mask")).message
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"duplicate_count": 0},
        {"prefetch": -1},
        {"sampling": "often"},
        {"sampling": [1, 2]},
        {"augment": crops.locate()},
        {"split": "nowhere"},
        {"load": None},
        {"crop": None},
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together_are_refused(wrong):
    options = {"load": load, "batch_size": 2, "crop": crops.random(SIZE, seed=1)}
    with pytest.raises(ValueError) as caught:
        pipeline.segmentation(cases(), **(options | wrong))
    assert not isinstance(caught.value, CourseDataError)


def test_a_dataset_that_is_not_kept_cannot_be_shuffled_or_drawn_from(folder):
    dataset = records.read(folder, "train", seed=1)
    options = {"batch_size": 2, "crop": crops.random(SIZE, seed=1), "cache": False}
    for wrong in ({}, {"shuffle": False, "sampling": "element"}):
        with pytest.raises(ValueError, match="from start to end"):
            pipeline.segmentation(dataset, **options, **wrong)
    ours = pipeline.segmentation(dataset, shuffle=False, **options)
    hand = records.read(folder, "train", seed=1).apply(crops.random(SIZE, seed=1))
    assert_same(ours, cast(hand.batch(2)))


# Elements


@st.composite
def loaded(draw):
    """What a loader may give, and the element that it is."""
    rank, channels = draw(st.sampled_from([2, 3])), draw(st.sampled_from([None, 1, 3]))
    shape = tuple(draw(st.lists(st.integers(5, 8), min_size=rank, max_size=rank)))
    told = draw(st.sampled_from(["spacing", "mask", "both"]))
    image = np.arange(np.prod(shape) * (channels or 1), dtype=np.int16)
    image = image.reshape(shape if channels is None else (*shape, channels))
    found = {"image": image}
    if told in ("spacing", "both"):
        found["spacing"] = [1.0] * rank
    if told in ("mask", "both"):
        dtype = draw(st.sampled_from([bool, np.uint8, np.int64, np.float32]))
        mask = (np.arange(np.prod(shape)) % 2).astype(dtype).reshape(shape)
        with_axis = channels is not None and draw(st.booleans())
        found["mask"] = mask[..., np.newaxis] if with_axis else mask
    return found, (*shape, channels or 1)


@some
@given(loaded())
def test_every_way_to_write_an_image_becomes_the_same_element(case):
    found, shape = case
    element = Listing([0], lambda _: found).element(0)
    assert element["image"].shape == shape
    assert element["image"].ravel().tolist() == found["image"].ravel().tolist()
    if "mask" in found:
        assert element["mask"].dtype == np.uint8
        assert element["mask"].shape == (*shape[:-1], 1)
        assert element["mask"].ravel().tolist() == found["mask"].ravel().tolist()


def test_pairs_are_what_keras_takes(folder):
    dataset = pipeline.segmentation(
        folder, split="train", batch_size=2, crop=crops.random(SIZE, seed=1), shuffle=False
    )
    (batch, *_), again = batches(dataset), dataset
    for target in ("mask", "label"):
        image, found, weight = next(iter(again.apply(pipeline.pairs(target, weight=True))))
        assert image.shape == batch["image"].shape
        np.testing.assert_array_equal(weight, batch["weight"])
        assert found.dtype == batch[target].dtype
    with pytest.raises(ValueError, match="target"):
        pipeline.pairs("image")
    with pytest.raises(CourseDataError) as caught:
        dataset.map(lambda x: {"image": x["image"]}).apply(pipeline.pairs("mask"))
    assert caught.value.code == "NO_PAIR"


def test_a_label_that_is_no_whole_number_is_refused_not_cut():
    with pytest.raises(CourseDataError, match=r"items\[0\].*0\.7") as caught:
        pipeline.classification(
            cases(label=[None] * 10),
            load=lambda case: voxels(1) | {"label": 0.7},
            batch_size=2,
            crop=crops.random(SIZE, seed=1),
        )
    assert caught.value.code == "UNKNOWN_LABEL"


def test_a_field_that_the_first_item_lacks_is_refused_not_dropped():
    def uneven(case):
        return voxels(case.source) | ({"dose": np.float32(3)} if case.source == 4 else {})

    with pytest.raises(CourseDataError, match=r"items\[4\] has `dose`") as caught:
        pipeline.segmentation(
            cases(), load=uneven, batch_size=2, crop=crops.random(SIZE, seed=1), shuffle=False
        )
    assert caught.value.code == "LOADING_FAILED"


def test_nan_is_no_reason_to_refuse_an_image_of_the_same_values():
    def mixed(case):
        image = voxels(1)["image"].astype(np.float32 if case.source == 0 else np.float64)
        image[0, 0, 0] = np.nan
        return {"image": image, "spacing": (1, 1, 1)}

    dataset = pipeline.classification(
        cases(), load=mixed, batch_size=5, crop=crops.centre((7, 7, 6)), shuffle=False
    )
    assert all(np.isnan(batch["image"]).sum() == 5 for batch in batches(dataset))


def test_with_a_label_format_classes_and_missing_labels_are_looked_at_too():
    def refused(code, labels, **options):
        with pytest.raises(CourseDataError) as caught:
            pipeline.classification(
                cases(label=labels),
                load=lambda case: 1 / 0,  # nothing is to be loaded
                batch_size=2,
                crop=crops.random(SIZE, seed=1),
                **options,
            )
        assert caught.value.code == code

    refused("EMPTY_CLASS", [0, 1] * 5, label_format=[3], classes=[0, 1, 2])
    refused("UNKNOWN_LABEL", [0, 1, -1] + [0] * 7, label_format=[3])
    refused("UNKNOWN_LABEL", [0, 1, None] + [0] * 7, label_format=[3])


def test_images_that_may_grow_later_need_a_crop():
    def growing(case):
        return voxels(3 if case.source < 8 else 4)

    kept, reader = pipeline.items(cases(), load=growing)
    spec = {
        "case": tf.TensorSpec([], tf.string),
        "image": tf.TensorSpec([None, None, None, 1], tf.int16),
        "label": tf.TensorSpec([], tf.int32),
        "mask": tf.TensorSpec([None, None, None, 1], tf.uint8),
        "modality": tf.TensorSpec([], tf.string),
        "spacing": tf.TensorSpec([3], tf.float32),
        "weight": tf.TensorSpec([], tf.float32),
    }
    cache = SmartCache(kept, reader, cache_num=4, shuffle=False, element_spec=spec)
    with cache, pytest.raises(ValueError, match="several shapes"):
        pipeline.segmentation(cache, batch_size=2)


def test_a_dataset_without_elements_is_refused_when_streamed_too(folder):
    empty = records.read(folder, "train").take(0)
    with pytest.raises(CourseDataError) as caught:
        pipeline.segmentation(
            empty, batch_size=2, crop=crops.random(SIZE, seed=1), cache=False, shuffle=False
        )
    assert caught.value.code == "EMPTY_LIST"
