"""What was written comes back: voxels, dtypes, shapes, labels, in an order that the seed fixes."""

import io
import itertools
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import records
from helpers.cases import Found
from helpers.errors import CourseDataError
from helpers.records import reading
from tests.records_cases import (
    CLASSES,
    SALT,
    SHAPE,
    as_given,
    case,
    cases,
    ids_as_given,
    name_of,
    names,
    refusing,
    volume,
    write,
)

some = settings(
    max_examples=18,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # a smaller example would take minutes to find: each builds graphs
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TWENTY = cases(24, test=4)

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """20 cases for training in 5 shards, 4 in another split."""
    folder = tmp_path_factory.mktemp("set")
    write(folder, TWENTY, shard_count=5)
    return folder


# The element


def test_an_element_is_as_the_course_has_it(tf, whole):
    dataset = records.read(whole, "train")
    assert dataset.element_spec == {
        "image": tf.TensorSpec([*SHAPE, 1], tf.int16),
        "mask": tf.TensorSpec([*SHAPE, 1], tf.uint8),
        "label": tf.TensorSpec([], tf.int32),
        "weight": tf.TensorSpec([], tf.float32),
        "spacing": tf.TensorSpec([3], tf.float32),
        "case": tf.TensorSpec([], tf.string),
        "modality": tf.TensorSpec([], tf.string),
    }
    assert len(dataset) == 20 and len(records.read(whole, "test")) == 4
    by_name = {name_of(one): one for one in TWENTY}
    for element in dataset.as_numpy_iterator():
        one = by_name.pop(element["case"].decode())
        given = volume(one)
        np.testing.assert_array_equal(element["image"][..., 0], given["image"])
        np.testing.assert_array_equal(element["mask"][..., 0], given["mask"])
        assert element["label"] == one.label
        assert element["weight"] == (1.0 if one.weight is None else one.weight)
        assert element["spacing"].tolist() == [2.5, 0.75, 0.5]
        assert element["modality"] == b"CT"
    assert {one.split for one in by_name.values()} == {"test"}


@pytest.mark.parametrize("size", [1, 3, 20, 32])
def test_a_batch_holds_what_its_elements_hold(tf, whole, size):
    single = list(records.read(whole, "train").as_numpy_iterator())
    dataset = records.read(whole, "train", batch=size)
    assert len(dataset) == -(-20 // size)
    assert {key: spec.shape.as_list() for key, spec in dataset.element_spec.items()} == {
        "image": [None, *SHAPE, 1],
        "mask": [None, *SHAPE, 1],
        "label": [None],
        "weight": [None],
        "spacing": [None, 3],
        "case": [None],
        "modality": [None],
    }
    batches = list(dataset.as_numpy_iterator())
    assert [len(batch["case"]) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    for key in single[0]:
        together = np.concatenate([batch[key] for batch in batches])
        np.testing.assert_array_equal(together, [element[key] for element in single])
        assert together.dtype == np.asarray(single[0][key]).dtype or together.dtype == object


NARROWEST = ("uint8", "int16", "uint16", "int32", "int64", "float32", "float64")


def numbers(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Values that need this very dtype; some of them in a wider one, and in another layout."""
    random = np.random.default_rng(seed)
    if dtype.startswith("float"):
        values = random.normal(0, 1e30, shape).astype(dtype)
        values.flat[0] = 0.1 if dtype == "float64" else 0.5
    else:
        limits = np.iinfo(dtype)
        values = random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        values.flat[0], values.flat[-1] = limits.max, limits.min
    if seed % 2:
        return np.asfortranarray(values).astype(f">{values.dtype.kind}8", order="K")
    return values.astype(float) if dtype == "uint8" else values


@st.composite
def a_set(draw) -> tuple[str, list]:
    """A schema, and cases whose sources are elements that fit it."""
    schema = draw(st.sampled_from(["volume", "classification"]))
    rank = 3 if schema == "volume" else 2
    count = draw(st.integers(1, 4))
    channels = draw(st.sampled_from([(), (1,), (3,)]))
    side = st.integers(1, 5)
    one_shape = draw(st.tuples(*[side] * (rank - 1), st.integers(2, 5)))
    one_dtype = draw(st.sampled_from(NARROWEST))
    alike_shape, alike_dtype, masks = draw(st.tuples(*[st.booleans()] * 3))
    # Beyond 2**53 no dtype holds all of int64 and of floating point.
    mixed = draw(st.sampled_from([NARROWEST[:5], NARROWEST[:4] + NARROWEST[5:]]))
    several = draw(st.booleans())
    some_labels, some_spacing, some_weights, some_modality = draw(st.tuples(*[st.booleans()] * 4))
    shapes = st.tuples(*[side] * (rank - 1), st.integers(2, 5))
    made = []
    for number in range(count):
        shape = one_shape if alike_shape else draw(shapes)
        dtype = one_dtype if alike_dtype else draw(st.sampled_from(mixed))
        seed = draw(st.integers(0, 99))
        element = {"image": numbers(seed, shape + channels, dtype)}
        if some_spacing and draw(st.booleans()):
            element["spacing"] = tuple(draw(st.sampled_from([0.5, 1.25, 3.0])) for _ in range(rank))
        if masks:
            element["mask"] = np.random.default_rng(seed).integers(0, 3, shape)
        if some_modality and draw(st.booleans()):
            element["modality"] = "MR"
        labels = st.tuples(*[st.integers(-1, 2)] * 2) if several else st.integers(0, 2)
        labelled = schema == "classification" or (some_labels and draw(st.booleans()))
        label = draw(labels) if labelled else None
        weight = draw(st.sampled_from([0.0, 0.25, 7.0])) if some_weights else None
        made.append(case(number, source=element, label=label, weight=weight))
    return schema, made


def shared(sizes: list[tuple[int, ...]]) -> list[int | None]:
    """The most that can be known of the shape of all: the channels, or everything."""
    if len(set(sizes)) == 1:
        return list(sizes[0])
    channels = {size[-1] for size in sizes}
    return [None] * (len(sizes[0]) - 1) + [channels.pop() if len(channels) == 1 else None]


@some
@given(a_set())
def test_whatever_is_written_is_read_back(tf, tmp_path, made):
    schema, given = made
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    options = {"salt": SALT, "classes": CLASSES, "survey": ids_as_given, "workers": 1}
    records.write(folder, Found(tuple(given)), schema, as_given, progress=False, **options)
    dataset = records.read(folder, check="full", seed=1)
    assert len(dataset) == len(given)
    elements = {element["case"].decode(): element for element in dataset.as_numpy_iterator()}
    assert elements.keys() == {name_of(one) for one in given}
    rank = 3 if schema == "volume" else 2
    stored = [records.narrowest(one.source["image"]).dtype for one in given]
    sizes = []
    for one in given:
        element, source = elements[name_of(one)], one.source
        image = source["image"] if source["image"].ndim > rank else source["image"][..., None]
        sizes.append(image.shape)
        np.testing.assert_array_equal(element["image"], image)
        assert element["image"].dtype == np.result_type(*stored)
        assert ("mask" in element) == ("mask" in source)
        if "mask" in source:
            np.testing.assert_array_equal(element["mask"], source["mask"][..., None])
            assert element["mask"].dtype == np.uint8
        if "spacing" in element:
            expected = source.get("spacing", [0.0] * rank)
            np.testing.assert_array_equal(element["spacing"], np.float32(expected))
        if "label" in element:
            some_label = next(other.label for other in given if other.label is not None)
            unknown = (-1,) * len(some_label) if isinstance(some_label, tuple) else -1
            expected = unknown if one.label is None else one.label
            np.testing.assert_array_equal(element["label"], expected)
            assert element["label"].dtype == np.int32
        if "weight" in element:
            assert element["weight"] == (1 if one.weight is None else one.weight)
        if "modality" in element:
            assert element["modality"] == source.get("modality", "").encode()
    for key, known in {
        "mask": [one.source.get("mask") for one in given],
        "spacing": [one.source.get("spacing") for one in given],
        "modality": [one.source.get("modality") for one in given],
        "label": [one.label for one in given],
        "weight": [one.weight for one in given],
    }.items():
        assert (key in dataset.element_spec) == any(value is not None for value in known)
    assert dataset.element_spec["image"].shape.as_list() == shared(sizes)
    if "mask" in dataset.element_spec:
        assert dataset.element_spec["mask"].shape.as_list() == [*shared(sizes)[:-1], 1]
    if len(set(sizes)) > 1:
        with pytest.raises(ValueError, match="cannot share a batch"):
            records.read(folder, batch=2)
        return
    (batch,) = records.read(folder, batch=4).as_numpy_iterator()
    for key, values in batch.items():
        single = [elements[name.decode()][key] for name in batch["case"]]
        np.testing.assert_array_equal(values, single)


@pytest.mark.parametrize("labels", [((1, 0), [-1, -1]), (2, -1)], ids=["several", "one"])
def test_what_only_some_records_have_gets_a_default_that_is_no_value(tf, tmp_path, labels):
    label, unknown = labels
    image = {"image": np.arange(60).reshape(SHAPE)}
    full = image | {"spacing": (2.5, 1.5, 0.5), "modality": "MR"}
    made = (case(0, source=image, label=None), case(1, source=full, label=label, weight=0.5))
    write(tmp_path, made, as_given, survey=ids_as_given)
    found = {one["case"].decode(): one for one in records.read(tmp_path).as_numpy_iterator()}
    bare, known = (found[name_of(one)] for one in made)
    assert (known["weight"], known["modality"]) == (0.5, b"MR")
    assert np.array_equal(known["spacing"], [2.5, 1.5, 0.5])
    assert np.array_equal(known["label"], label)
    # A spacing of 0 mm and the label -1 do not exist; a weight of 1 counts as one case does.
    assert (bare["weight"], bare["modality"]) == (1.0, b"")
    assert np.array_equal(bare["spacing"], [0, 0, 0])
    assert np.array_equal(bare["label"], unknown)


def test_a_case_of_one_label_in_a_tuple_has_a_scalar(tf, tmp_path):
    write(tmp_path, (case(0, label=(2,)), case(1, label=1)))
    labels = [element["label"] for element in records.read(tmp_path).as_numpy_iterator()]
    assert sorted(map(int, labels)) == [1, 2] and {label.shape for label in labels} == {()}


# Order


def test_the_same_seed_gives_the_same_epochs(tf, whole):
    one, two = (records.read(whole, "train", seed=7) for _ in range(2))
    epochs = [[names(dataset) for _ in range(3)] for dataset in (one, two)]
    assert epochs[0] == epochs[1]
    assert all(sorted(epoch) == sorted(epochs[0][0]) for epoch in epochs[0])
    assert len({*epochs[0][0]}) == 20
    assert len({tuple(epoch) for epoch in epochs[0]}) == 3
    assert names(records.read(whole, "train", seed=8)) != epochs[0][0]
    assert names(records.read(whole, "train", seed=0)) != names(records.read(whole, "train"))


def test_records_of_one_shard_are_shuffled_by_the_seed(tf, tmp_path):
    write(tmp_path, cases(12), shard_count=1)
    orders = [names(records.read(tmp_path, seed=seed)) for seed in (None, 0, 1, 2)]
    assert len({tuple(one) for one in orders}) == 4
    assert len({tuple(sorted(one)) for one in orders}) == 1


def test_parallelism_does_not_change_the_order(tf, whole):
    def with_options(dataset, **changes):
        options = tf.data.Options()
        options.deterministic = changes.get("deterministic", True)
        options.threading.private_threadpool_size = changes.get("threads", 2)
        options.experimental_optimization.map_parallelization = False
        return dataset.with_options(options)

    for seed in (None, 7):
        expected = [names(records.read(whole, "train", seed=seed)) for _ in range(2)]
        expected[1] = names(records.read(whole, "train", seed=seed).repeat(2))[20:]
        for changes in ({"threads": 1}, {"threads": 5, "deterministic": False}):
            dataset = with_options(records.read(whole, "train", seed=seed), **changes)
            assert [names(dataset), names(dataset)] == expected, changes


def test_batches_come_in_the_order_of_their_records(tf, whole):
    single = names(records.read(whole, "train", seed=7))
    batches = records.read(whole, "train", seed=7, batch=6).as_numpy_iterator()
    assert [name.decode() for batch in batches for name in batch["case"]] == single


def test_without_a_seed_up_to_four_shards_take_turns(tf, whole):
    written = {}
    for shard in records.load_manifest(whole).shards:
        lines = tf.data.TFRecordDataset(str(whole / shard.file)).as_numpy_iterator()
        messages = map(tf.train.Example.FromString, lines)
        found = [one.features.feature["case"].bytes_list.value[0].decode() for one in messages]
        written.setdefault(shard.split, []).append(found)
    first, fifth = written["train"][:4], written["train"][4]
    turns = [name for row in itertools.zip_longest(*first) for name in row if name]
    dataset = records.read(whole, "train")
    assert names(dataset) == turns + fifth == names(dataset)


@pytest.mark.parametrize("room", [1, 2000, 10**9])
def test_a_small_buffer_still_gives_each_record_once(tf, whole, monkeypatch, room):
    monkeypatch.setattr(reading, "SHUFFLED_BYTES", room)
    dataset = records.read(whole, "train", seed=3)
    epochs = [names(dataset) for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) and len(set(epochs[0])) == 20
    assert epochs[0] != epochs[1] and epochs[0] != names(records.read(whole, "train"))


def test_large_records_are_read_without_a_buffer_and_alike(tf, whole, monkeypatch):
    expected = list(records.read(whole, "train").as_numpy_iterator())
    asked = []
    original = tf.data.TFRecordDataset

    def listening(file, **options):
        asked.append(options["buffer_size"])
        return original(file, **options)

    monkeypatch.setattr(tf.data, "TFRecordDataset", listening)
    monkeypatch.setattr(reading, "LARGE", 1)
    found = list(records.read(whole, "train").as_numpy_iterator())
    monkeypatch.undo()
    assert set(asked) == {0}
    for one, two in zip(found, expected, strict=True):
        assert all(np.array_equal(one[key], two[key]) for key in two)


# What cannot be read


def test_which_split_has_to_be_said_where_there_are_several(tf, whole, tmp_path):
    with pytest.raises(ValueError, match=r"which split\? This set has: test, train"):
        records.read(whole)
    with pytest.raises(ValueError, match="no split 'validation'; this set has: test, train"):
        records.read(whole, "validation")
    write(tmp_path, cases(2))
    assert len(records.read(tmp_path)) == 2


def test_a_check_of_another_name_is_refused(whole):
    with pytest.raises(ValueError, match='"size" or "full", not \'crc\''):
        records.read(whole, "train", check="crc")


def test_masks_for_some_cases_only_are_refused_rather_than_invented(tf, tmp_path):
    without = {key: value for key, value in volume(case(0)).items() if key != "mask"}
    made = (case(0, source=without), case(1, source=volume(case(1))), case(2, source=without))
    write(tmp_path, made, as_given, survey=ids_as_given)
    with pytest.raises(CourseDataError, match="1 of 3 records") as refused:
        records.read(tmp_path)
    assert refused.value.code == "NO_PAIR"


def test_pictures_and_volumes_in_one_split_are_refused(tf, tmp_path):
    flat = {"image": np.arange(20).reshape(4, 5), "spacing": (1, 1)}
    made = (case(0, source=flat), case(1, source=flat | {"image": np.arange(20).reshape(4, 5, 1)}))
    write(tmp_path, made, as_given, survey=ids_as_given)
    assert len(names(records.read(tmp_path))) == 2
    deep = {"image": np.arange(60).reshape(3, 4, 5)}
    made = (case(0, source=flat), case(1, source=deep))
    write(tmp_path, made, as_given, survey=ids_as_given, overwrite=True)
    with pytest.raises(CourseDataError, match="with and without a z axis") as refused:
        records.read(tmp_path)
    assert refused.value.code == "SHAPE_MISMATCH"


def test_a_split_in_which_everything_was_rejected_says_so(tf, tmp_path):
    made = (case(1, split="test"), case(3))
    write(tmp_path, made, refusing)
    assert len(records.read(tmp_path, "train", batch=2)) == 1
    for options in ({}, {"batch": 2}, {"seed": 1}):
        with pytest.raises(CourseDataError, match="all cases of this split") as refused:
            records.read(tmp_path, "test", **options)
        assert refused.value.code == "NOTHING_WRITTEN"


def test_an_empty_shard_among_others_is_passed_over(tf, tmp_path):
    made = tuple(case(n) for n in (1, 3, 4, 5))
    known = write(tmp_path, made, refusing, shard_count=4).manifest
    assert [shard.records for shard in known.shards].count(0) == 2
    assert records.verify(tmp_path) == ()
    assert len(names(records.read(tmp_path, seed=1))) == 2


# The parser by itself


def test_the_parser_takes_one_record_or_many(tf, whole):
    known = records.load_manifest(whole)
    parse = records.parser(known, "test")
    files = [str(whole / shard.file) for shard in known.shards if shard.split == "test"]
    lines = tf.data.TFRecordDataset(files)
    single = list(lines.map(parse).as_numpy_iterator())
    (together,) = lines.batch(9).map(parse).as_numpy_iterator()
    for key in single[0]:
        np.testing.assert_array_equal(together[key], [element[key] for element in single])
    eager = parse(next(iter(lines)))
    np.testing.assert_array_equal(eager["image"].numpy(), single[0]["image"])


# DeepLab


def photograph(number: int, kind: str) -> tuple[bytes, np.ndarray]:
    """The bytes of a file, and its mask."""
    random = np.random.default_rng(number)
    height, width = 12 + number, 9
    smooth = np.linspace(0, 200, height * width * 3).reshape(height, width, 3)
    file = io.BytesIO()
    Image.fromarray((smooth + random.integers(0, 20, 3)).astype(np.uint8)).save(file, kind)
    mask = random.choice(np.array([0, 1, 255], np.uint8), (height, width))
    return file.getvalue(), mask


def deeplab_case(number: int, kind: str, alike: bool = False):
    file, mask = photograph(0 if alike else number, kind)
    height, width = mask.shape
    source = {"image": file, "format": kind.lower(), "height": height, "width": width, "mask": mask}
    return case(number, source=source, label=None, weight=None)


def write_deeplab(folder: Path, made: tuple) -> records.Manifest:
    classes = {0: "skin", 1: "lesion", 255: "ignored"}
    options = {"salt": SALT, "classes": classes, "survey": ids_as_given, "progress": False}
    found = Found(made)
    return records.write(folder, found, "deeplab", as_given, workers=1, **options).manifest


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> tuple[Path, dict[bytes, np.ndarray]]:
    """A folder of DeepLab records, and each file's bytes with its mask."""
    folder = tmp_path_factory.mktemp("deeplab")
    made = tuple(deeplab_case(n, "JPEG" if n % 3 else "PNG") for n in range(9))
    write_deeplab(folder, made)
    return folder, {one.source["image"]: one.source["mask"] for one in made}


def test_tensorflow_alone_reads_the_deeplab_records(photographs):
    """From the public table of keys; nothing of the course's own code."""
    import tensorflow as tf

    folder, masks = photographs
    expected = dict(masks)
    files = sorted(os.listdir(folder))
    shards = [name for name in files if name.endswith(".tfrecord")]
    assert shards == [f"train-{number:05d}-of-{len(shards):05d}.tfrecord" for number in range(4)]
    text, number = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
    table = {
        "image/encoded": text,
        "image/filename": text,
        "image/format": text,
        "image/height": number,
        "image/width": number,
        "image/channels": number,
        "image/segmentation/class/encoded": text,
        "image/segmentation/class/format": text,
    }
    names = set()
    for line in tf.data.TFRecordDataset([os.path.join(folder, name) for name in shards]):
        message = tf.train.Example.FromString(line.numpy())
        assert set(message.features.feature) == set(table)
        parsed = tf.io.parse_single_example(line, table)
        found = {key: value.numpy() for key, value in parsed.items()}
        names.add(found["image/filename"].decode())
        decode = {b"jpeg": tf.io.decode_jpeg, b"png": tf.io.decode_png}[found["image/format"]]
        size = (found["image/height"], found["image/width"])
        assert decode(found["image/encoded"], channels=3).shape == (*size, 3)
        assert found["image/channels"] == 3
        assert found["image/segmentation/class/format"] == b"png"
        mask = tf.io.decode_png(found["image/segmentation/class/encoded"]).numpy()
        assert mask.shape == (*size, 1) and mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1, 255}
        np.testing.assert_array_equal(mask[..., 0], expected.pop(found["image/encoded"]))
    assert expected == {} and len(names) == 9
    assert all(re.fullmatch("[0-9a-f]{16}-[0-9a-f]{8}", name) for name in names)


def test_deeplab_records_become_elements_like_the_others(tf, photographs, tmp_path):
    folder, _ = photographs
    dataset = records.read(folder, check="full")
    assert dataset.element_spec == {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "mask": tf.TensorSpec([None, None, 1], tf.uint8),
        "case": tf.TensorSpec([], tf.string),
    }
    by_name = {name_of(deeplab_case(n, "PNG")): n for n in range(9)}
    for element in dataset.as_numpy_iterator():
        number = by_name.pop(element["case"].decode())
        file, mask = photograph(number, "JPEG" if number % 3 else "PNG")
        np.testing.assert_array_equal(element["mask"][..., 0], mask)
        with Image.open(io.BytesIO(file)) as picture:
            theirs = np.asarray(picture).astype(int)
        # Decoders of JPEG may round differently; PNG knows no rounding.
        assert np.abs(theirs - element["image"]).max() <= (3 if number % 3 else 0)
    assert by_name == {}
    with pytest.raises(ValueError, match="images of 9 shapes cannot share a batch"):
        records.read(folder, batch=2)
    write_deeplab(tmp_path, tuple(deeplab_case(n, "PNG", alike=True) for n in range(3)))
    (batch,) = records.read(tmp_path, batch=4)
    height, width = photograph(0, "PNG")[1].shape
    assert batch["image"].shape == (3, height, width, 3)
    assert batch["mask"].shape == (3, height, width, 1)
    spec = records.read(tmp_path).element_spec
    assert spec["image"].shape == (height, width, 3) and spec["mask"].shape == (height, width, 1)


def test_the_manifest_counts_pictures_like_volumes(photographs):
    folder, masks = photographs
    counts = records.load_manifest(folder).split("train")
    voxels = np.sum([np.bincount(mask.ravel(), minlength=256) for mask in masks.values()], 0)
    assert counts["mask_voxels"] == {str(n): int(voxels[n]) for n in (0, 1, 255)}
    assert counts["shapes"] == {f"{12 + n}x9x3": 1 for n in range(9)}
    assert "dtypes" not in counts and "labels" not in counts
