"""What was written comes back: voxels, dtypes, shapes, labels, in an order that the seed fixes."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from helpers import records
from tests.records_cases import (
    SHAPE,
    as_given,
    case,
    cases,
    ending,
    ids_as_given,
    name_of,
    names,
    photograph,
    refusing,
    volume,
    write,
)

TWENTY = cases(24, test=4)
IMAGE = np.arange(60).reshape(3, 5, 4)
pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """20 cases for training in 5 shards, 4 in another split."""
    folder = tmp_path_factory.mktemp("set")
    write(folder, TWENTY, shard_count=5)
    return folder


def numbers(dataset) -> list[int]:
    by_name = {name_of(one): one.source for one in TWENTY}
    return [by_name[name] for name in names(dataset)]


def given(folder: Path, elements: list[dict], about=(), **options) -> Path:
    """Records of these elements, in one shard."""
    about = about or [{}] * len(elements)
    made = tuple(
        case(n, source=one, **({"label": None, "weight": None} | more))
        for n, (one, more) in enumerate(zip(elements, about, strict=True))
    )
    write(folder, made, as_given, survey=ids_as_given, **({"shard_count": 1} | options))
    return folder


def alike(element: dict, other: dict) -> bool:
    return element.keys() == other.keys() and all(
        np.array_equal(element[key], other[key]) and element[key].dtype == other[key].dtype
        if key not in ("case", "modality")
        else np.array_equal(element[key], other[key])
        for key in element
    )


def test_an_element_is_as_the_course_has_it(tf, whole):
    by_name = {name_of(one): one for one in TWENTY}
    for mapped in (False, True):
        dataset = records.read(whole, "train", mapped=mapped)
        assert dataset.element_spec == {
            "image": tf.TensorSpec([*SHAPE, 1], tf.int16),
            "mask": tf.TensorSpec([*SHAPE, 1], tf.uint8),
            "label": tf.TensorSpec([], tf.int32),
            "weight": tf.TensorSpec([], tf.float32),
            "spacing": tf.TensorSpec([3], tf.float32),
            "modality": tf.TensorSpec([], tf.string),
            "case": tf.TensorSpec([], tf.string),
        }
        assert len(dataset) == 20
        for element in dataset.as_numpy_iterator():
            one = by_name[element["case"].decode()]
            expected = volume(one)
            assert np.array_equal(element["image"][..., 0], expected["image"])
            assert np.array_equal(element["mask"][..., 0], expected["mask"])
            assert element["spacing"].tolist() == [2.5, 0.75, 0.5]
            assert element["modality"] == b"CT" and element["label"] == one.label
            assert element["weight"] == (1.0 if one.weight is None else one.weight)


# As the first build gave them; lessons are trained in these orders.
STREAMED = [11, 18, 13, 2, 1, 5, 6, 10, 17, 15, 0, 19, 14, 8, 7, 3, 12, 9, 4, 16]
MAPPED = [11, 1, 17, 14, 18, 5, 15, 8, 13, 6, 0, 7, 2, 10, 19, 3, 12, 9, 4, 16]
STREAMED_3 = [
    [15, 10, 0, 18, 13, 16, 9, 1, 6, 2, 17, 11, 5, 4, 8, 3, 14, 19, 7, 12],
    [13, 2, 15, 9, 4, 1, 12, 3, 11, 19, 6, 10, 7, 5, 8, 17, 18, 16, 14, 0],
]
MAPPED_3 = [
    [18, 12, 19, 7, 2, 4, 15, 9, 1, 13, 11, 10, 16, 14, 0, 6, 8, 3, 5, 17],
    [13, 8, 0, 15, 6, 19, 5, 10, 9, 12, 7, 3, 2, 14, 4, 18, 16, 11, 17, 1],
]
ORDERS = [
    ({}, [STREAMED] * 2),
    ({"mapped": True}, [MAPPED] * 2),
    ({"seed": 3}, STREAMED_3),
    ({"seed": 3, "mapped": True}, MAPPED_3),
]


@pytest.mark.parametrize(("options", "epochs"), ORDERS)
def test_the_order_of_a_seed_is_that_of_the_first_build_in_batches_too(tf, whole, options, epochs):
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    dataset = records.read(whole, "train", **options)
    assert [numbers(dataset) for _ in range(2)] == epochs
    single = [*records.read(whole, "train", **options).as_numpy_iterator()]
    batches = [*records.read(whole, "train", batch=8, **options).as_numpy_iterator()]
    assert [len(one["case"]) for one in batches] == [8, 8, 4]
    apart = [{key: value[n] for key, value in one.items()} for one in batches
             for n in range(len(one["case"]))]  # fmt: skip
    assert all(alike(*pair) for pair in zip(single, apart, strict=True))


def test_a_small_room_to_shuffle_still_gives_each_record_once(tf, whole, monkeypatch):
    reading = sys.modules["helpers.records.read"]
    monkeypatch.setattr(reading, "SHUFFLED_BYTES", 1000)
    assert sorted(numbers(records.read(whole, "train", seed=1))) == list(range(20))
    monkeypatch.setattr(reading, "LARGE", 10)  # read without a buffer
    assert numbers(records.read(whole, "train")) == STREAMED


def test_unequal_records_of_a_split_come_in_one_dtype_with_defaults_that_are_no_values(
    tf, tmp_path
):
    """As 205 images of float32 beside 55 of uint8, in one public data set."""
    half, wide = IMAGE + 0.5, IMAGE * 10_000
    elements = [{"image": IMAGE}, {"image": half, "spacing": (1, 2, 3)}, {"image": wide[:2]},
                {"image": IMAGE, "modality": "MR"}]  # fmt: skip
    about = [{"label": (1, 2)}, {}, {"weight": 0.0}, {"label": (-1, 0)}]
    folder = given(tmp_path / "a", elements, about)
    expected = {name_of(case(n)): (one, more) for n, (one, more) in
                enumerate(zip(elements, about, strict=True))}  # fmt: skip
    for mapped in (False, True):
        with pytest.warns(UserWarning, match="float32, int32, uint8: all are read as float64"):
            dataset = records.read(folder, mapped=mapped)
        assert dataset.element_spec["image"] == tf.TensorSpec([None, 5, 4, 1], tf.float64)
        for element in dataset.as_numpy_iterator():
            one, more = expected[element["case"].decode()]
            assert np.array_equal(element["image"][..., 0], one["image"])
            assert element["label"].tolist() == list(more.get("label", (-1, -1)))
            assert element["weight"] == more.get("weight", 1.0)
            assert element["spacing"].tolist() == list(one.get("spacing", (0, 0, 0)))
            assert element["modality"] == one.get("modality", "").encode()
    same = given(tmp_path / "b", [{"image": IMAGE}, {"image": half}])
    for mapped in (False, True):
        with pytest.warns(UserWarning, match="read as float32"):
            (batch,) = records.read(same, batch=3, mapped=mapped).as_numpy_iterator()
        assert batch["image"].dtype == np.float32
        found = {
            name: image[..., 0]
            for name, image in zip(*map(batch.get, ("case", "image")), strict=True)
        }
        assert np.array_equal(found[name_of(case(1)).encode()], half)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records.read(given(tmp_path / "c", [{"image": IMAGE}] * 2), batch=2)


def test_what_read_cannot_do_is_refused_before_the_first_element(tf, whole, tmp_path):
    several = given(tmp_path / "a", [{"image": IMAGE}, {"image": IMAGE[:2]}])
    some = given(tmp_path / "b", [{"image": IMAGE, "mask": IMAGE > 3}, {"image": IMAGE}])
    flat = given(tmp_path / "c", [{"image": IMAGE}, {"image": IMAGE, "spacing": (1, 1)}])
    empty = tmp_path / "d"
    write(empty, (case(0), case(4, split="test")), refusing)
    order = tf.data.Dataset.range(3)
    rows = [
        (whole, {}, "which split? This set has: test, train"),
        (whole, {"split": "dev"}, "no split 'dev'"),
        (whole, {"split": "train", "check": "fast"}, "check can be"),
        (whole, {"split": "train", "batch": 0}, "1 record or more"),
        (whole, {"split": "train", "indices": order}, "mapped=True"),
        (whole, {"split": "train", "indices": order, "mapped": True, "seed": 1}, "place of seed"),
        (whole, {"split": "train", "mapped": True, "indices": order.batch(2)}, "single whole"),
        (several, {"batch": 2}, "several shapes cannot share a batch"),
        (some, {}, "[NO_PAIR] 1 of 2 records"),
        (flat, {"mapped": True}, "[SHAPE_MISMATCH]"),
        (empty, {"split": "test"}, "[NOTHING_WRITTEN]"),
    ]
    wrong = []
    for folder, options, said in rows:
        with pytest.raises(ValueError) as refused:
            records.read(folder, **options)
        if said not in str(refused.value):
            wrong.append((options, said, refused.value))
    assert not wrong


@pytest.mark.parametrize("options", [{}, {"batch": 4}, {"seed": 3}, {"seed": 3, "batch": 5}])
def test_a_shard_that_breaks_while_it_is_read_is_named(tf, tmp_path, options):
    """Flipped, cut in a record or between two, emptied, gone, no file any more."""

    def harm(path: Path, how: str) -> None:
        good = path.read_bytes()
        frame = 12 + int.from_bytes(good[:8], "little") + 4
        bad = bytes([good[len(good) // 2] ^ 8])
        changed = {"flipped": good[: len(good) // 2] + bad + good[len(good) // 2 + 1 :],
                   "cut": good[: frame + 20], "between": good[:frame], "emptied": b""}  # fmt: skip
        if how in changed:
            path.write_bytes(changed[how])
        else:
            path.unlink()
            if how == "folder":
                path.mkdir()

    write(tmp_path / "whole", cases(18), shard_count=3)
    ways, wrong = ("flipped", "cut", "between", "emptied", "gone", "folder"), []
    for how in ways:
        folder = tmp_path / how
        write(folder, cases(18), shard_count=3)
        dataset = records.read(folder, **options)
        before = [bytes(one["image"]) for one in dataset.as_numpy_iterator()]
        fresh = records.read(folder, **options)
        path, came = folder / records.load_manifest(folder).shards[1].file, []
        harm(path, how)
        for again in (fresh, dataset):  # in the first epoch, and between two
            try:
                came = []
                came.extend(bytes(one["image"]) for one in again.as_numpy_iterator())
                wrong.append((how, "came to an end"))
            except tf.errors.InvalidArgumentError as error:
                if "ALTERED_SHARD" not in str(error) or f"{path.name}, which has 6" not in str(
                    error
                ):
                    wrong.append((how, error))
                if str(folder) in str(error):
                    wrong.append((how, "names the folder"))
            if again is fresh and came != before[: len(came)]:
                wrong.append((how, "what came before is not as it would have been"))
        if not records.verify(folder):
            wrong.append((how, "not found by verify"))
    assert not wrong


def test_a_faulty_shard_is_named_before_anything_is_read(tf, tmp_path):
    write(tmp_path, cases(9), shard_count=3)
    path = tmp_path / "train-00001-of-00003.tfrecord"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"x")
    assert ending(records.read, tmp_path) == ""  # the record's own checksum finds it in time
    for call in (lambda: records.read(tmp_path, mapped=True),
                 lambda: records.read(tmp_path, check="full"),
                 lambda: records.index(tmp_path, check="full")):  # fmt: skip
        assert ending(call) == "ALTERED_SHARD"
    path.write_bytes(good[:-1])
    assert ending(records.read, tmp_path) == ending(records.index, tmp_path) == "TRUNCATED_SHARD"


def test_the_index_is_what_elements_hold_in_the_order_of_their_numbers(tf, whole, tmp_path):
    known = records.index(whole, "train")
    elements = [*records.read(whole, "train", mapped=True).as_numpy_iterator()]
    assert known["case"] == [one["case"].decode() for one in elements]
    for key, dtype in (("label", np.int32), ("weight", np.float32)):
        assert known[key].tolist() == [one[key] for one in elements] and known[key].dtype == dtype
    asked = tf.data.Dataset.from_tensor_slices([3, 19, 3, 0])
    found = [*records.read(whole, "train", mapped=True, indices=asked).as_numpy_iterator()]
    assert all(alike(one, elements[n]) for one, n in zip(found, [3, 19, 3, 0], strict=True))
    endless = records.read(whole, "train", mapped=True, indices=asked.repeat(), batch=3)
    assert endless.element_spec["image"].shape == (3, *SHAPE, 1)
    (kept,) = [one["case"][0].decode() for one in endless.skip(1).take(1).as_numpy_iterator()]
    assert kept == known["case"][0]
    for bad in ([20], [-1]):
        with pytest.raises(tf.errors.OpError, match=r"expected 0 to 19"):
            [
                *records.read(
                    whole, "train", mapped=True, indices=tf.data.Dataset.from_tensors(bad[0])
                )
            ]
    several = given(tmp_path, [{"image": IMAGE}] * 2, [{"label": (1, -1)}, {}])
    labels = dict(zip(*map(records.index(several).get, ("case", "label")), strict=True))
    assert {name: row.tolist() for name, row in labels.items()} == {
        name_of(case(0)): [1, -1], name_of(case(1)): [-1, -1]
    }  # fmt: skip


def test_batches_that_are_kept_stay_as_they_are(tf, whole):
    dataset = records.read(whole, "train", mapped=True, batch=2)
    kept = [*dataset]
    copies = [one["image"].numpy().copy() for one in kept]
    for _ in range(3):
        assert len([*dataset]) == 10
    assert all(np.array_equal(a["image"], b) for a, b in zip(kept, copies, strict=True))


def test_tensorflow_alone_reads_deeplab_records_and_they_become_elements(tf, tmp_path):
    made = tuple(case(n, source=photograph(n), label=None, weight=None) for n in range(5))
    classes = {0: "skin", 1: "lesion", 255: "ignored"}
    how = {"schema": "deeplab", "survey": ids_as_given, "classes": classes}
    write(tmp_path, made, as_given, **how)
    by_name = {name_of(one): one.source for one in made}
    text, whole = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
    keys = {field.key: text if field.kind == "bytes" else whole for field in
            records.SCHEMAS["deeplab"].fields}  # fmt: skip
    for line in tf.data.TFRecordDataset(sorted(map(str, tmp_path.glob("*.tfrecord")))):
        found = {k: v.numpy() for k, v in tf.io.parse_single_example(line, keys).items()}
        one = by_name[found["image/filename"].decode()]
        mask = tf.io.decode_png(found["image/segmentation/class/encoded"])[..., 0]
        assert np.array_equal(mask, one["mask"]) and found["image/encoded"] == one["image"]
        assert (found["image/height"], found["image/width"]) == one["mask"].shape
    dataset = records.read(tmp_path, seed=1)
    assert dataset.element_spec["image"].shape.as_list() == [None, 9, 3] and len(dataset) == 5
    for element in dataset.as_numpy_iterator():
        one = by_name.pop(element["case"].decode())
        assert np.array_equal(element["mask"][..., 0], one["mask"])
        assert np.array_equal(element["image"], tf.io.decode_image(one["image"]))
    assert not by_name
    for options in ({"mapped": True}, {"batch": 2}):
        with pytest.raises(ValueError, match=r"decoded, not mapped|several shapes"):
            records.read(tmp_path, **options)


def test_the_parser_takes_one_record_or_many(tf, whole):
    parse = records.parser(records.load_manifest(whole), "train")
    files = sorted(map(str, whole.glob("train*.tfrecord")))
    lines = tf.data.TFRecordDataset(files)
    single = [*lines.map(parse).as_numpy_iterator()]
    (together,) = lines.batch(20).map(parse).as_numpy_iterator()
    apart = [{key: value[n] for key, value in together.items()} for n in range(20)]
    assert all(alike(*pair) for pair in zip(single, apart, strict=True))
    assert alike(single[0], {k: v.numpy() for k, v in parse(next(iter(lines))).items()})
