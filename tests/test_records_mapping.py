"""Shards mapped into memory give the same elements, in an order that the seed fixes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import records
from helpers.errors import CourseDataError
from helpers.records import tfrecord
from tests.records_cases import CLASSES, SALT, as_given, case, cases, ids_as_given, write

MIXED = (
    {"image": np.arange(60).reshape(3, 4, 5) - 20, "spacing": (2.0, 1.0, 0.5), "modality": "CT"},
    {"image": np.arange(70.0).reshape(2, 5, 7) / 4, "modality": "MR"},
    {"image": np.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)[..., :1] * 999, "spacing": (1, 1, 1)},
    {"image": np.arange(24).reshape(4, 3, 2) % 200},
)

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write(folder, cases(14, test=2), shard_count=3)
    return folder


def elements(folder, split, **options) -> dict[bytes, dict]:
    """The elements of an epoch by case."""
    read = list(records.read(folder, split, **options).as_numpy_iterator())
    return {element["case"]: element for element in read}


def assert_equal(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, element in ours.items():
        assert element.keys() == theirs[name].keys()
        for key, value in element.items():
            assert np.array_equal(value, theirs[name][key]), key
            assert np.asarray(value).dtype == np.asarray(theirs[name][key]).dtype


def test_a_mapped_element_is_the_parsed_one(tf, whole):
    parsed, mapped = (records.read(whole, "train", mapped=way) for way in (False, True))
    assert mapped.element_spec == parsed.element_spec and len(mapped) == len(parsed) == 12
    assert_equal(elements(whole, "train", mapped=True), elements(whole, "train"))


@pytest.mark.parametrize("masks", [False, True])
def test_other_shapes_dtypes_and_missing_features_are_mapped_as_they_are_parsed(
    tf, tmp_path, masks
):
    given = [dict(one) for one in MIXED]
    for one in given if masks else ():
        one["mask"] = np.arange(one["image"][..., :1].size if one["image"].ndim == 4 else
                                one["image"].size).reshape(one["image"].shape[:3]) % 3  # fmt: skip
    labels = [(1, -1), (0, 2), (2, 2), (1, 0)]
    made = [case(n, source=one, label=labels[n]) for n, one in enumerate(given)]
    write(tmp_path, tuple(made), as_given, survey=ids_as_given if masks else None)
    parsed, mapped = (records.read(tmp_path, mapped=way) for way in (False, True))
    assert mapped.element_spec == parsed.element_spec
    assert_equal(elements(tmp_path, "train", mapped=True), elements(tmp_path, "train"))
    with pytest.raises(ValueError, match="4 shapes cannot share a batch"):
        records.read(tmp_path, mapped=True, batch=2)


def test_batches_are_mapped_whole_and_the_last_may_be_smaller(tf, whole):
    sizes = [len(one["case"]) for one in records.read(whole, "train", mapped=True, batch=5)]
    assert sizes == [5, 5, 2]
    single = elements(whole, "train")
    for batch in records.read(whole, "train", mapped=True, batch=4, seed=5).as_numpy_iterator():
        for number, name in enumerate(batch["case"]):
            assert_equal({name: {k: v[number] for k, v in batch.items()}}, {name: single[name]})


def test_the_seed_fixes_the_order_and_each_epoch_has_another(tf, whole):
    def epochs(seed):
        dataset = records.read(whole, "train", mapped=True, seed=seed)
        return [[x["case"] for x in dataset.as_numpy_iterator()] for _ in range(2)]

    first, second = epochs(1)
    assert epochs(1) == [first, second] and epochs(2)[0] != first != second
    assert sorted(first) == sorted(second) and len(set(first)) == 12


def test_a_byte_that_changed_is_found_before_anything_is_mapped(tf, whole, tmp_path):
    write(tmp_path, cases(4))
    path = next(tmp_path.glob("*.tfrecord"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 8
    path.write_bytes(damaged)
    with pytest.raises(CourseDataError) as refused:
        records.read(tmp_path, mapped=True)
    assert refused.value.code == "ALTERED_SHARD"
    assert len(elements(tmp_path, "train", mapped=True, check="size")) == 4


def test_records_of_compressed_pictures_are_not_mapped(tf, tmp_path):
    found = records.Found((case(0, source=None, label=None, weight=None),))
    records.write(
        tmp_path, found, "deeplab", _picture, salt=SALT, classes=CLASSES, survey=_ids, workers=1,
        progress=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="decoded, not mapped"):
        records.read(tmp_path, mapped=True)


def _picture(case) -> dict:
    mask = np.eye(4, dtype=np.uint8)
    return {"image": b"\xff\xd8", "format": "jpeg", "height": 4, "width": 4, "mask": mask}


def _ids(case) -> frozenset[int]:
    return frozenset({0, 1})


def test_an_empty_shard_has_no_messages(tmp_path):
    path = tmp_path / "empty.tfrecord"
    path.touch()
    assert list(tfrecord.messages(path)) == []


values = st.one_of(
    st.binary(max_size=300),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(tuple),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5).map(tuple),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=10), values, max_size=6))
def test_features_are_what_the_example_was_given(features):
    pieces = tfrecord.example(features)
    message = b"".join(bytes(memoryview(piece)) for piece in pieces)
    found = tfrecord.features(np.frombuffer(message, np.uint8))
    assert found.keys() == features.keys()
    for key, value in features.items():
        ours = found[key].tobytes() if isinstance(value, bytes) else found[key]
        assert ours == value


def test_batches_that_are_kept_stay_as_they_are(tf, tmp_path):
    """Large ones: TensorFlow copies small arrays, whatever their place."""
    rng = np.random.default_rng(0)
    images = rng.integers(-900, 900, (12, 16, 48, 40)).astype(np.int16)
    made = tuple(case(n, source={"image": one}, label=None) for n, one in enumerate(images))
    write(tmp_path, made, as_given, survey=None, classes=None)
    of = {records.case_hash(SALT, one.patient, one.name).encode(): one.source for one in made}
    dataset = records.read(tmp_path, mapped=True, batch=3, seed=1).repeat(6)
    kept = list(dataset.map(lambda x: x, num_parallel_calls=2).prefetch(4))
    assert len(kept) == 24
    for batch in kept:
        for name, image in zip(batch["case"].numpy(), batch["image"].numpy(), strict=True):
            assert np.array_equal(image[..., 0], of[name]["image"])
