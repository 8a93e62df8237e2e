"""The manifest knows every record, and notices whatever happens to a shard or to itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import records
from helpers.errors import CourseDataError
from tests.records_cases import (
    SHAPE,
    as_given,
    case,
    cases,
    ending,
    ids_as_given,
    name_of,
    photograph,
    refusing,
    volume,
    write,
)

FOURTEEN = cases(14, test=4)
PHOTOGRAPHED = tuple(case(n, source=photograph(n), label=None, weight=None) for n in range(5))
pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def noted(case) -> dict:
    return volume(case) | ({"notes": ("turned", "inverted")} if case.source % 2 else {})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write(folder, FOURTEEN, noted, shard_count=3)
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder, classes = tmp_path_factory.mktemp("deeplab"), {0: "skin", 1: "lesion", 255: "ignored"}
    how = {"schema": "deeplab", "survey": ids_as_given, "classes": classes}
    write(folder, PHOTOGRAPHED, as_given, **how)
    return folder


def test_every_record_has_a_row_that_says_what_was_written(whole):
    manifest, by_name = records.load_manifest(whole), {name_of(one): one for one in FOURTEEN}
    rows = manifest.rows
    assert manifest.records == len(rows) == 14 and manifest.splits == ("test", "train")
    assert repr(manifest) == "Manifest(volume: test 4, train 10 in 6 shards)"
    wrong = []
    for row in rows.itertuples():
        one = by_name.pop(row.case)
        content = (whole / row.shard).read_bytes()
        element = volume(one)
        size, ids = 2 * np.prod(SHAPE), np.unique(element["mask"], return_counts=True)
        expected = {
            "split": one.split, "patient": row.case[:16], "label": one.label, "dtype": "int16",
            "shape": "x".join(map(str, (*SHAPE, 1))), "spacing": [2.5, 0.75, 0.5],
            "modality": "CT", "image_bytes": size,
            "notes": ["turned", "inverted"] if one.source % 2 else None,
            "voxels": dict(zip(map(str, ids[0]), ids[1].tolist(), strict=True)),
        }  # fmt: skip
        found = {key: getattr(row, key) for key in expected}
        image = content[row.image_at : row.image_at + size]
        mask = content[row.mask_at : row.mask_at + np.prod(SHAPE)]
        stored = (element["image"].astype("<i2").tobytes(), element["mask"].astype("u1").tobytes())
        if found != expected or (image, mask) != stored:
            wrong.append((found, expected))
        assert row.weight == one.weight or (np.isnan(row.weight) and one.weight is None)
    assert not wrong and not by_name
    train = manifest.split("train")
    assert train["records"] == 10 == len(train["case"])
    assert sorted(train["label"]) == sorted(one.label for one in FOURTEEN[:10])
    with pytest.raises(ValueError, match="no split 'dev'; this set has: test, train"):
        manifest.split("dev")


def test_masks_are_counted_by_class(whole, photographs):
    for folder, elements in (
        (whole, [(one.split, volume(one)["mask"]) for one in FOURTEEN]),
        (photographs, [("train", one.source["mask"]) for one in PHOTOGRAPHED]),
    ):
        masks = records.load_manifest(folder).masks
        found = masks.groupby(["split", "id"]).voxels.agg(["size", "sum"]).to_dict("index")
        keys = {(split, int(i)) for split, mask in elements for i in np.unique(mask)}
        assert found == {
            (split, number): {
                "size": sum(number in mask for place, mask in elements if place == split),
                "sum": sum((mask == number).sum() for place, mask in elements if place == split),
            }
            for split, number in keys
        }
    rows = records.load_manifest(photographs).rows
    assert sorted(rows["dtype"]) == ["jpeg", "jpeg", "png", "png", "png"]
    assert sorted(rows["shape"]) == [f"{12 + n}x9x3" for n in range(5)]
    assert "label" not in rows and "spacing" not in rows


def test_images_come_from_their_shards_without_tensorflow(whole, photographs):
    by_name = {name_of(one): one for one in FOURTEEN}
    for name, split, path, image in records.images(whole):
        one = by_name.pop(name)
        assert (split, path.parent) == (one.split, whole) and name.encode() in path.read_bytes()
        assert image.dtype == "<i2" and not image.flags.writeable
        assert np.array_equal(image[..., 0], volume(one)["image"])
    assert not by_name
    files = {name: image for name, _, _, image in records.images(photographs)}
    assert files == {name_of(one): one.source["image"] for one in PHOTOGRAPHED}
    (photographs / "train-00001-of-00004.tfrecord").rename(photographs / "gone")
    assert ending(lambda: [*records.images(photographs)]) == "MISSING_SHARD"


def test_what_is_json_anybody_can_read_and_comes_back_as_it_was(whole, tmp_path):
    content = json.loads((whole / "manifest.json").read_text())
    assert (content["format"], content["version"], content["schema"]) == ("records", 2, "volume")
    assert len(content["columns"]["case"]) == 14
    written = write(tmp_path, FOURTEEN, refusing, classes={2: "c", 0: "a", 1: "b"}, seed=3)
    found = records.load_manifest(tmp_path)
    assert found == written.manifest and found.parameters["seed"] == 3
    assert found.classes == {0: "a", 1: "b", 2: "c"}


def test_no_character_of_the_manifest_can_be_changed_unnoticed(copy):
    path = copy / "manifest.json"
    text = path.read_text()
    for at in np.random.default_rng(0).integers(0, len(text), 60):
        for changed in (text[:at] + text[at + 1 :], text[:at] + "7" + text[at + 1 :]):
            path.write_text(changed)
            end = ending(records.load_manifest, copy)
            assert end == "MANIFEST_DAMAGED" or json.loads(changed) == json.loads(text)
    for other in ("", "null", "[]", "{}", '{"version": 2}', "\x80", text[:-1], text.strip()):
        path.write_text(other)
        assert ending(records.load_manifest, copy) == "MANIFEST_DAMAGED", other
    path.write_bytes(b"\xff\xfe")
    assert ending(records.load_manifest, copy) == "MANIFEST_DAMAGED"
    path.write_text(json.dumps({"format": "records", "shards": [], "version": 1}, indent=1))
    with pytest.raises(CourseDataError, match="expected version 2"):
        records.load_manifest(copy)
    path.unlink()
    for call in (records.load_manifest, records.verify, records.index, records.read):
        assert ending(call, copy) == "NO_MANIFEST"
    with pytest.raises(FileNotFoundError):
        records.verify(copy / "nowhere")


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_whatever_happened_to_a_shard_is_found_and_all_at_once(copy):
    assert records.verify(copy) == ()
    test0, test1, test2, train0, train1, train2 = sorted(copy.glob("*.tfrecord"))
    size = train0.stat().st_size
    flipped(train0, size - 1)
    assert records.verify(copy, full=False) == ()  # reading is what the full check is for
    first = records.load_manifest(copy).shards[4]
    second = train1.read_bytes()
    frame = 12 + int.from_bytes(second[:8], "little") + 4
    train1.write_bytes(second[:frame])  # cut between two records: TensorFlow reads to a clean end
    train2.write_bytes(train2.read_bytes() + b"x")
    test0.unlink()
    content = test1.read_bytes()
    test1.write_bytes(test2.read_bytes())
    test2.write_bytes(content)
    (copy / "foreign.tfrecord").touch()
    faults = [(fault.file, fault.code) for fault in records.verify(copy)]
    swapped = [(test1.name, "ALTERED_SHARD"), (test2.name, "ALTERED_SHARD")]
    assert faults == [
        ("foreign.tfrecord", "FOREIGN_SHARD"), (test0.name, "MISSING_SHARD"), *swapped,
        (train0.name, "ALTERED_SHARD"), (train1.name, "TRUNCATED_SHARD"),
        (train2.name, "ALTERED_SHARD"),
    ]  # fmt: skip
    reasons = {fault.file: fault.reason for fault in records.verify(copy, split="train")}
    assert reasons.keys() == {train0.name, train1.name, train2.name}
    assert reasons[train1.name] == f"{frame} bytes of {first.bytes}"
    quick = [fault.file for fault in records.verify(copy, split="train", full=False)]
    assert quick == [train1.name, train2.name]


def test_a_flipped_bit_is_found_wherever_it_is(copy):
    path = next(copy.glob("train*.tfrecord"))
    for at in np.random.default_rng(0).integers(0, path.stat().st_size, 40).tolist():
        flipped(path, at)
        assert [fault.code for fault in records.verify(copy)] == ["ALTERED_SHARD"], at
        flipped(path, at)
