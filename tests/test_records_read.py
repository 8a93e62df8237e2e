"""What was written comes back: voxels, dtypes, shapes, labels, in an order that the seed fixes."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from helpers import records
from tests import records_cases as some
from tests.records_cases import SHAPE, case, cases, ending, given, name_of, volume, write

TWENTY = cases(24, test=4)
IMAGE = np.arange(60).reshape(3, 5, 4)
pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """20 cases for training in 5 shards, 4 in another split."""
    folder = tmp_path_factory.mktemp("set")
    write(folder, TWENTY, shard_count=5)
    return folder


def elements(dataset):
    """Elements in their order, those of batches too."""
    for one in dataset.as_numpy_iterator():
        batch = one if isinstance(one["case"], np.ndarray) else {k: [v] for k, v in one.items()}
        for values in zip(*batch.values(), strict=True):
            element = dict(zip(batch, values, strict=True))
            yield element | {"case": element["case"].decode()}


def plain(elements) -> list[dict]:
    """To be compared, as Python's numbers."""
    arrays = [{key: np.asarray(value) for key, value in one.items()} for one in elements]
    return [{key: (one.dtype, one.tolist()) for key, one in each.items()} for each in arrays]


@pytest.mark.parametrize("mapped", [False, True])
def test_an_element_is_as_the_course_has_it(tf, whole, mapped):
    dataset = records.read(whole, "train", mapped=mapped)
    shapes = {"image": [*SHAPE, 1], "mask": [*SHAPE, 1], "spacing": [3]}
    dtypes = {"image": tf.int16, "mask": tf.uint8, "label": tf.int32, "weight": tf.float32,
              "spacing": tf.float32, "modality": tf.string, "case": tf.string}  # fmt: skip
    spec = {key: tf.TensorSpec(shapes.get(key, []), dtype) for key, dtype in dtypes.items()}
    assert dataset.element_spec == spec and len(dataset) == 20
    found = {one["case"]: one for one in elements(dataset)}
    for one in TWENTY[:20]:
        element, expected = found.pop(name_of(one)), volume(one)
        for key in ("image", "mask"):
            assert np.array_equal(element[key][..., 0], expected[key])
        assert element["spacing"].tolist() == [2.5, 0.75, 0.5]
        assert element["modality"] == b"CT" and element["label"] == one.label
        assert element["weight"] == (1.0 if one.weight is None else one.weight)
    assert not found


# As the first build gave them; lessons are trained in these orders.
ORDERS = [
    ({}, [[11, 18, 13, 2, 1, 5, 6, 10, 17, 15, 0, 19, 14, 8, 7, 3, 12, 9, 4, 16]] * 2),
    ({"mapped": True},
     [[11, 1, 17, 14, 18, 5, 15, 8, 13, 6, 0, 7, 2, 10, 19, 3, 12, 9, 4, 16]] * 2),
    ({"seed": 3}, [[15, 10, 0, 18, 13, 16, 9, 1, 6, 2, 17, 11, 5, 4, 8, 3, 14, 19, 7, 12],
                   [13, 2, 15, 9, 4, 1, 12, 3, 11, 19, 6, 10, 7, 5, 8, 17, 18, 16, 14, 0]]),
    ({"seed": 3, "mapped": True},
     [[18, 12, 19, 7, 2, 4, 15, 9, 1, 13, 11, 10, 16, 14, 0, 6, 8, 3, 5, 17],
      [13, 8, 0, 15, 6, 19, 5, 10, 9, 12, 7, 3, 2, 14, 4, 18, 16, 11, 17, 1]]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "epochs"), ORDERS)
def test_the_order_of_a_seed_is_that_of_the_first_build_in_batches_too(tf, whole, options, epochs):
    tf.random.set_seed(None)  # which has a say, and may have been set by others
    source = {name_of(one): one.source for one in TWENTY}
    single, together = (records.read(whole, "train", batch=n, **options) for n in (None, 8))
    for epoch in epochs:
        found = plain(elements(single))
        assert [source[one["case"][1]] for one in found] == epoch
        assert plain(elements(together)) == found
    assert [len(one) for one in together.map(lambda one: one["case"])] == [8, 8, 4]


def test_large_records_come_in_the_same_order_from_one_shard_too(tf, tmp_path, whole, monkeypatch):
    one_shard = given(
        tmp_path, [{"image": IMAGE, "mask": IMAGE > 3}, {"image": IMAGE, "mask": IMAGE > 9}]
    )
    for folder, split in ((whole, "train"), (one_shard, None)):
        small = plain(elements(records.read(folder, split, seed=3)))
        with monkeypatch.context() as changed:
            changed.setattr(sys.modules["helpers.records.read"], "LARGE", 0)
            assert plain(elements(records.read(folder, split, seed=3, batch=2))) == small


def test_a_split_without_labels_has_none(tf, tmp_path):
    write(tmp_path, (case(0), case(2, split="test", label=None), case(4, split="tes")))
    labelled = [records.read(tmp_path, split).element_spec.keys() for split in ("train", "test")]
    assert ["label" in keys for keys in labelled] == [True, False]
    assert len(records.read(tmp_path, "tes")) == 1


def test_unequal_records_come_in_one_dtype_with_defaults_that_are_no_values(tf, tmp_path):
    """As 205 images of float32 beside 55 of uint8, in one public data set."""
    half = IMAGE + 0.5
    made = [{"image": IMAGE}, {"image": half, "spacing": (1, 2, 3)}, {"image": IMAGE[:2] * 10_000},
            {"image": IMAGE, "modality": "MR"}]  # fmt: skip
    about = [{"label": (1, 2)}, {}, {"weight": 0.0}, {"label": (-1, 0)}]
    folder = given(tmp_path / "a", made, about)
    same = given(tmp_path / "b", [{"image": IMAGE}, {"image": half}])
    for mapped in (False, True):
        with pytest.warns(UserWarning, match="float32, int32, uint8: all are read as float64"):
            dataset = records.read(folder, mapped=mapped)
        assert dataset.element_spec["image"] == tf.TensorSpec([None, 5, 4, 1], tf.float64)
        found, known = {one["case"]: one for one in elements(dataset)}, records.index(folder)
        for n, (one, more) in enumerate(zip(made, about, strict=True)):
            element, label = found.pop(name_of(case(n))), list(more.get("label", (-1, -1)))
            assert np.array_equal(element["image"][..., 0], one["image"])
            assert element["label"].tolist() == label
            assert known["label"][known["case"].index(name_of(case(n)))].tolist() == label
            assert element["weight"] == more.get("weight", 1.0)
            assert element["spacing"].tolist() == list(one.get("spacing", (0, 0, 0)))
            assert element["modality"] == one.get("modality", "").encode()
        with pytest.warns(UserWarning, match="read as float32"):
            dataset = records.read(same, batch=3, mapped=mapped)
        images = {one["case"]: one["image"][..., 0] for one in elements(dataset)}
        assert images[name_of(case(0))].dtype == np.float32
        assert np.array_equal(images[name_of(case(1))], half)
    with warnings.catch_warnings(action="error"):
        records.read(given(tmp_path / "c", [{"image": IMAGE}] * 2), batch=2)


def test_what_read_cannot_do_is_refused_before_the_first_element(tf, whole, tmp_path):
    several = given(tmp_path / "a", [{"image": IMAGE}, {"image": IMAGE[:2]}])
    masked = given(tmp_path / "b", [{"image": IMAGE, "mask": IMAGE > 3}, {"image": IMAGE}])
    flat = given(tmp_path / "c", [{"image": IMAGE}, {"image": IMAGE, "spacing": (1, 1)}])
    write(tmp_path / "d", (case(0), case(4, split="test")), some.refusing)
    some.photographs(tmp_path / "e")
    order = tf.data.Dataset.range(3)
    rows = [
        (whole, {}, "no split None; this set has: test, train"),
        (whole, {"split": "dev"}, "no split 'dev'"),
        (whole, {"split": "train", "check": "fast"}, "check can be"),
        (whole, {"split": "train", "indices": order}, "mapped=True"),
        (whole, {"split": "train", "indices": order, "mapped": True, "seed": 1}, "place of seed"),
        (whole, {"split": "train", "mapped": True, "indices": order.batch(2)}, "single whole"),
        (several, {"batch": 2}, "several shapes"),
        (masked, {}, "[NO_PAIR] 1 of 2 records"),
        (flat, {"mapped": True}, "[SHAPE_MISMATCH]"),
        (tmp_path / "d", {"split": "test"}, "[NOTHING_WRITTEN]"),
        (tmp_path / "e", {"mapped": True}, "decoded, not mapped"),
    ]
    for folder, options, said in rows:
        with pytest.raises(ValueError) as refused:
            records.read(folder, **options)
        assert said in str(refused.value), options


HARMS = {
    "flipped": (lambda good, frame: good[:-1] + bytes([good[-1] ^ 8]), "ALTERED_SHARD"),
    "cut": (lambda good, frame: good[: frame + 20], "TRUNCATED_SHARD"),
    "cut between records": (lambda good, frame: good[:frame], "TRUNCATED_SHARD"),
    "emptied": (lambda good, frame: b"", "TRUNCATED_SHARD"),
    "gone": (None, "MISSING_SHARD"),
}


@pytest.mark.parametrize("options", [{}, {"seed": 3, "batch": 4}])
def test_a_shard_that_breaks_is_named_before_it_is_read_and_while(tf, tmp_path, options):
    write(tmp_path, cases(18), shard_count=3)
    path = tmp_path / "train-00001-of-00003.tfrecord"
    good = path.read_bytes()
    frame = 12 + int.from_bytes(good[:8], "little") + 4
    for how, (harm, code) in HARMS.items():
        path.write_bytes(good)
        running, fresh = (records.read(tmp_path, **options) for _ in range(2))
        before = plain(elements(running))
        path.write_bytes(harm(good, frame)) if harm else path.unlink()
        for dataset in (fresh, running):  # in the first epoch, and between two
            came = []
            with pytest.raises(tf.errors.InvalidArgumentError, match="ALTERED_SHARD") as error:
                came.extend(elements(dataset))  # keeps what comes before the error
            assert f"{path.name}, which has 6" in str(error.value), how
            assert str(tmp_path) not in str(error.value)
            assert dataset is running or plain(came) == before[: len(came)]
        quick = "" if how == "flipped" else code  # which the record's own checksum finds in time
        assert ending(records.read, tmp_path) == ending(records.index, tmp_path) == quick
        assert ending(records.read, tmp_path, mapped=True) == code
        assert ending(records.index, tmp_path, check="full") == code


def test_the_index_is_what_elements_hold_in_the_order_of_their_numbers(tf, whole):
    known = records.index(whole, "train")
    there = [*elements(records.read(whole, "train", mapped=True))]
    assert known["case"] == [one["case"] for one in there]
    for key, dtype in (("label", np.int32), ("weight", np.float32)):
        assert known[key].tolist() == [one[key] for one in there] and known[key].dtype == dtype
    asked = tf.data.Dataset.from_tensor_slices([3, 19, 3, 0])
    endless = records.read(whole, "train", mapped=True, indices=asked.repeat(), batch=3)
    assert endless.element_spec["image"].shape == (3, *SHAPE, 1)
    expected = plain(there[n] for n in (3, 19, 3, 0, 3, 19))
    assert plain(elements(endless.take(2))) == expected
    finite = records.read(whole, "train", mapped=True, indices=asked)
    assert plain(elements(finite)) == expected[:4]
    for bad in (20, -1):
        one = records.read(whole, "train", mapped=True, indices=tf.data.Dataset.from_tensors(bad))
        with pytest.raises(tf.errors.OpError, match=f"{bad}"):
            next(iter(one))


def test_batches_that_are_kept_stay_as_they_are(tf, whole):
    dataset = records.read(whole, "train", mapped=True, batch=2)
    kept = [one["image"] for one in dataset]
    copies = [one.numpy().copy() for one in kept]
    assert [len([*dataset]) for _ in range(3)] == [10] * 3
    assert np.array_equal(kept, copies)


def test_photographs_are_decoded_as_tensorflow_has_them(tf, tmp_path):
    by_name = some.photographs(tmp_path)
    dataset = records.read(tmp_path, seed=1)
    assert dataset.element_spec["image"].shape.as_list() == [None, 9, 3] and len(dataset) == 5
    for element in elements(dataset):
        one = by_name.pop(element["case"])
        assert np.array_equal(element["mask"][..., 0], one["mask"])
        assert np.array_equal(element["image"], tf.io.decode_image(one["image"], 3))
