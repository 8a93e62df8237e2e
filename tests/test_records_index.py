"""What records say of themselves without being read, and reading them by number."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from helpers import records, sampling
from helpers.errors import CourseDataError
from helpers.records import tfrecord
from tests.records_cases import (
    CLASSES,
    ROOT,
    SALT,
    SHAPE,
    as_given,
    case,
    cases,
    ids_as_given,
    name_of,
    names,
    refusing,
    write,
)

TWENTY = cases(20, test=4)

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write(folder, TWENTY, shard_count=3)
    return folder


def in_order_of_the_shards(tf, folder, split: str) -> list:
    """The messages of a split, read by TensorFlow alone."""
    shards = [one for one in records.load_manifest(folder).shards if one.split == split]
    lines = tf.data.TFRecordDataset([str(folder / one.file) for one in shards])
    return [tf.train.Example.FromString(line.numpy()).features.feature for line in lines]


# The index


def test_the_index_is_what_the_records_hold_in_the_order_of_the_shards(tf, whole):
    for split in ("train", "test"):
        known = records.index(whole, split)
        messages = in_order_of_the_shards(tf, whole, split)
        assert known["case"] == [one["case"].bytes_list.value[0].decode() for one in messages]
        by_name = {name_of(one): one for one in TWENTY}
        given = [by_name[name] for name in known["case"]]
        assert {one.split for one in given} == {split}
        np.testing.assert_array_equal(known["label"], [one.label for one in given])
        weights = [1 if one.weight is None else one.weight for one in given]
        np.testing.assert_array_equal(known["weight"], weights)
        assert (known["label"].dtype, known["weight"].dtype) == (np.int32, np.float32)


def test_the_index_holds_what_elements_hold(tf, whole):
    known = records.index(whole, "train")
    read = {one["case"].decode(): one for one in records.read(whole, "train").as_numpy_iterator()}
    for number, name in enumerate(known["case"]):
        assert known["label"][number] == read[name]["label"]
        assert known["weight"][number] == read[name]["weight"]


def test_several_labels_are_a_row_each_and_what_lacks_gets_the_reader_s_default(tf, tmp_path):
    image = {"image": np.arange(60).reshape(SHAPE)}
    rows = [(1, 0), None, (-1, 2)]
    made = tuple(case(n, source=image, label=row, weight=None) for n, row in enumerate(rows))
    write(tmp_path, made, as_given, survey=ids_as_given)
    known = records.index(tmp_path)
    found = dict(zip(known["case"], known["label"].tolist(), strict=True))
    assert found == {name_of(one): list(one.label or (-1, -1)) for one in made}
    # As with elements, there is no weight where no record has one.
    assert "weight" not in known and "weight" not in records.read(tmp_path).element_spec


def test_a_split_without_labels_has_only_names(tmp_path):
    image = {"image": np.arange(60).reshape(SHAPE)}
    made = tuple(case(n, source=image, label=None, weight=None) for n in range(3))
    write(tmp_path, made, as_given, survey=None, classes=None)
    assert records.index(tmp_path).keys() == {"case"}


def test_records_of_pictures_have_names_too(tmp_path):
    found = records.Found(tuple(case(n, label=None, weight=None) for n in range(3)))
    records.write(
        tmp_path, found, "deeplab", _picture, salt=SALT, classes=CLASSES, survey=_ids, workers=1,
        progress=False,
    )  # fmt: skip
    known = records.index(tmp_path)
    assert set(known["case"]) == {name_of(one) for one in found.cases} and known.keys() == {"case"}


def _picture(case) -> dict:
    mask = np.eye(4, dtype=np.uint8)
    return {"image": b"\xff\xd8", "format": "jpeg", "height": 4, "width": 4, "mask": mask}


def _ids(case) -> frozenset[int]:
    return frozenset({0, 1})


def test_the_index_needs_no_tensorflow(whole):
    code = (
        "import sys; from helpers import records; records.index(sys.argv[1], 'train'); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, whole], check=True, cwd=ROOT)


def test_what_read_refuses_index_refuses(whole, tmp_path):
    with pytest.raises(ValueError, match=r"which split\? This set has: test, train"):
        records.index(whole)
    with pytest.raises(ValueError, match="no split 'validation'"):
        records.index(whole, "validation")
    with pytest.raises(ValueError, match='"size" or "full", not \'crc\''):
        records.index(whole, "train", check="crc")
    with pytest.raises(CourseDataError, match="NO_MANIFEST"):
        records.index(tmp_path)
    write(tmp_path, (case(1, split="test"), case(3)), refusing)
    with pytest.raises(CourseDataError, match="NOTHING_WRITTEN"):
        records.index(tmp_path, "test")


def test_a_cut_shard_and_one_that_makes_no_sense_are_named(tmp_path):
    write(tmp_path, cases(6), shard_count=2)
    path = sorted(tmp_path.glob("*.tfrecord"))[1]
    good = path.read_bytes()
    path.write_bytes(good[:-5])
    with pytest.raises(CourseDataError, match=f"TRUNCATED_SHARD.*{path.name}"):
        records.index(tmp_path)
    # The first frame's length, the message's keys and sizes, its case; at the end label and weight.
    last = next(tfrecord.messages(path)).size + 12
    for place in (*range(90), *range(last - 90, last)):
        damaged = bytearray(good)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        outcome = _outcome(tmp_path)
        assert outcome == 6 or outcome == ("ALTERED_SHARD", (path,)), place
        with pytest.raises(CourseDataError, match="ALTERED_SHARD"):
            records.index(tmp_path, check="full")


def _outcome(folder) -> int | tuple:
    """How many names the index has, or why there is none."""
    try:
        return len(records.index(folder)["case"])
    except CourseDataError as error:
        return error.code, error.files


def test_a_field_whose_name_changed_on_the_disk_is_missed(tmp_path):
    """Otherwise its record would get a weight of 1, as one that has none."""
    write(tmp_path, cases(6), shard_count=1)
    (path,) = tmp_path.glob("*.tfrecord")
    path.write_bytes(path.read_bytes().replace(b"weight", b"weighs", 1))
    with pytest.raises(CourseDataError, match=r"ALTERED_SHARD.*its fields are not those"):
        records.index(tmp_path)


def test_a_label_that_changed_on_the_disk_is_not_taken_for_one(tmp_path):
    write(tmp_path, cases(6), shard_count=1)
    (path,) = tmp_path.glob("*.tfrecord")
    good = path.read_bytes()
    place = good.index(b"label") + len(b"label") + 6  # tags and sizes of four nested messages
    assert good[place] in (0, 1, 2)
    path.write_bytes(good[:place] + bytes([good[place] ^ 3]) + good[place + 1 :])
    with pytest.raises(CourseDataError, match=r"ALTERED_SHARD.*its labels are not those"):
        records.index(tmp_path)


# By number


def test_records_come_as_they_are_asked_for(tf, whole):
    known = records.index(whole, "train")
    asked = [3, 3, 0, 15, 7, 3]
    order = tf.data.Dataset.from_tensor_slices(tf.constant(asked, tf.int64))
    dataset = records.read(whole, "train", mapped=True, indices=order)
    assert len(dataset) == 6
    assert names(dataset) == [known["case"][number] for number in asked]
    streamed = {x["case"].decode(): x for x in records.read(whole, "train").as_numpy_iterator()}
    for element in dataset.as_numpy_iterator():
        for key, value in streamed[element["case"].decode()].items():
            np.testing.assert_array_equal(element[key], value)
    batches = records.read(whole, "train", mapped=True, indices=order, batch=4)
    assert [len(batch["case"]) for batch in batches] == [4, 2]
    found = [name.decode() for batch in batches.as_numpy_iterator() for name in batch["case"]]
    assert found == names(dataset)


def test_indices_of_the_whole_range_give_the_order_of_the_shards(tf, whole):
    order = tf.data.Dataset.range(16)
    found = names(records.read(whole, "train", mapped=True, indices=order))
    assert found == records.index(whole, "train")["case"]
    assert found == names(records.read(whole, "train", mapped=True))


def test_batches_without_end_have_a_known_size(tf, whole):
    order = tf.data.Dataset.range(16).repeat()
    dataset = records.read(whole, "train", mapped=True, indices=order, batch=5)
    assert dataset.element_spec["image"].shape == [5, *SHAPE, 1]
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert {len(batch["label"]) for batch in dataset.take(7)} == {5}


def test_balanced_draws_of_records_are_balanced(tf, tmp_path):
    labels = [0] * 10 + [1] * 2
    made = tuple(case(n, label=label) for n, label in enumerate(labels))
    write(tmp_path, made, shard_count=3)
    known = records.index(tmp_path)
    probabilities = sampling.automatic(known["label"])
    weights = compute_sample_weight("balanced", known["label"])
    np.testing.assert_allclose(probabilities, weights / weights.sum())
    order = sampling.indices(probabilities, seed=0, groups=known["label"], epochs=3)
    dataset = records.read(tmp_path, mapped=True, indices=order, batch=12)
    for batch in dataset.as_numpy_iterator():
        assert np.bincount(batch["label"]).tolist() == [6, 6]
        rare = [name for name, label in zip(batch["case"], batch["label"], strict=True) if label]
        assert sorted(rare.count(name) for name in set(rare)) == [3, 3]


@pytest.mark.parametrize("asked", [[0, 16], [-1]])
@pytest.mark.parametrize("batch", [None, 2])
def test_a_number_that_no_record_has_stops_the_pipeline(tf, whole, asked, batch):
    order = tf.data.Dataset.from_tensor_slices(tf.constant(asked, tf.int64))
    dataset = records.read(whole, "train", mapped=True, indices=order, batch=batch)
    wrong = rf"found the index \[.*{asked[-1]}\], expected 0 to 15: there are 16"
    with pytest.raises(tf.errors.InvalidArgumentError, match=wrong):
        list(dataset)


def test_indices_are_numbers_and_need_mapped_records(tf, whole):
    order = tf.data.Dataset.range(16)
    for options in ({}, {"mapped": True, "seed": 1}):
        with pytest.raises(ValueError, match="need mapped=True, and take the place of seed"):
            records.read(whole, "train", indices=order, **options)
    for wrong in (order.batch(2), order.map(lambda n: tf.cast(n, tf.float32)), order.enumerate()):
        with pytest.raises(ValueError, match="indices is a dataset of single whole numbers"):
            records.read(whole, "train", mapped=True, indices=wrong)
