"""The manifest knows every record, and notices whatever happens to a shard or to itself."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import records
from tests.records_cases import SHAPE, cases, ending, given, name_of, photographs, volume, write

FOURTEEN = cases(14, test=4)
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


def counts(mask: np.ndarray) -> dict[str, int]:
    return {str(n): int((mask == n).sum()) for n in np.unique(mask)}


def test_every_record_has_a_row_that_says_what_was_written(whole):
    manifest, by_name = records.load_manifest(whole), {name_of(one): one for one in FOURTEEN}
    assert manifest.records == len(manifest.rows) == 14 and manifest.splits == ("test", "train")
    images = records.images(whole)
    for row, (name, split, path, image) in zip(manifest.rows.itertuples(), images, strict=True):
        one = by_name.pop(row.case)
        element, size = volume(one), 2 * np.prod(SHAPE)
        expected = {
            "case": name, "split": one.split, "shard": path.name, "patient": row.case[:16],
            "label": one.label, "shape": "x".join(map(str, (*SHAPE, 1))), "dtype": "int16",
            "image_bytes": size, "spacing": [2.5, 0.75, 0.5], "modality": "CT",
            "notes": ["turned", "inverted"] if one.source % 2 else None,
            "voxels": counts(element["mask"]),
        }  # fmt: skip
        assert {key: getattr(row, key) for key in expected} == expected and split == one.split
        assert row.weight == one.weight or (np.isnan(row.weight) and one.weight is None)
        content, mask = path.read_bytes(), element["mask"].astype("u1").tobytes()
        raw = element["image"].astype("<i2").tobytes()
        assert content[row.image_at : row.image_at + size] == raw == image.tobytes()
        assert content[row.mask_at : row.mask_at + len(mask)] == mask
        assert image.dtype == "<i2" and image.shape == (*SHAPE, 1) and not image.flags.writeable
    assert not by_name
    for shard in manifest.shards:
        content = (whole / shard.file).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    train = manifest.split("train")
    assert train["records"] == 10 == len(train["case"])
    assert sorted(train["label"]) == sorted(one.label for one in FOURTEEN[:10])
    with pytest.raises(ValueError, match="no split 'dev'; this set has: test, train"):
        manifest.split("dev")


def test_masks_are_counted_by_class_and_photographs_come_as_they_were(whole, tmp_path):
    by_name = photographs(tmp_path / "deeplab")
    large = np.random.default_rng(0).integers(0, 3, (65, 66, 67)).astype(np.uint8)
    given(tmp_path / "large", [{"image": np.arange(large.size).reshape(large.shape), "mask": large}])
    for folder, elements in (
        (whole, [(one.split, volume(one)["mask"]) for one in FOURTEEN]),
        (tmp_path / "deeplab", [("train", one["mask"]) for one in by_name.values()]),
        (tmp_path / "large", [("train", large)]),
    ):
        masks = records.load_manifest(folder).masks
        found = sorted(masks[["split", "id", "voxels"]].itertuples(index=False, name=None))
        expected = [(split, int(n), many) for split, mask in elements
                    for n, many in counts(mask).items()]  # fmt: skip
        assert found == sorted(expected)
    rows = records.load_manifest(tmp_path / "deeplab").rows
    assert sorted(rows["dtype"]) == ["jpeg", "jpeg", "png", "png", "png"]
    assert sorted(rows["shape"]) == [f"{12 + n}x9x3" for n in range(5)]
    assert "label" not in rows and "spacing" not in rows
    files = {name: image for name, _, _, image in records.images(tmp_path / "deeplab")}
    assert files == {name: one["image"] for name, one in by_name.items()}
    (tmp_path / "deeplab" / "train-00001-of-00004.tfrecord").unlink()
    assert ending(lambda: [*records.images(tmp_path / "deeplab")]) == "MISSING_SHARD"


def test_the_manifest_is_json_and_comes_back_as_it_was(tmp_path):
    written = write(tmp_path, FOURTEEN, classes={2: "c", 0: "a", 1: "b"}, seed=3)
    content, found = json.loads((tmp_path / "manifest.json").read_text()), written.manifest
    assert (content["format"], content["version"], content["schema"]) == ("records", 2, "volume")
    assert records.load_manifest(tmp_path) == found and content["columns"] == found.columns
    assert found.classes == {0: "a", 1: "b", 2: "c"} and found.parameters["seed"] == 3


def test_no_character_of_the_manifest_can_be_changed_unnoticed(copy):
    path = copy / "manifest.json"
    text = path.read_text()
    for at in np.random.default_rng(0).integers(0, len(text), 60):
        for changed in (text[:at] + text[at + 1 :], text[:at] + "7" + text[at + 1 :]):
            path.write_text(changed)
            end = ending(records.load_manifest, copy)
            assert end == "MANIFEST_DAMAGED" or json.loads(changed) == json.loads(text)
    old = json.dumps({"format": "records", "shards": [], "version": 1}, indent=1)
    for other in ("", "null", "[]", '{"version": 2}', "\x80", "\udcff", text[:-1], old):
        path.write_text(other, errors="surrogateescape")
        assert ending(records.load_manifest, copy) == "MANIFEST_DAMAGED", other
    path.unlink()
    for call in (records.load_manifest, records.verify, records.index, records.read):
        assert ending(call, copy) == "NO_MANIFEST"
    with pytest.raises(FileNotFoundError):
        records.verify(copy / "nowhere")


def test_whatever_happened_to_a_shard_is_found_and_all_at_once(copy):
    assert records.verify(copy) == ()
    test0, test1, test2, train0, train1, train2 = sorted(copy.glob("*.tfrecord"))
    good = train0.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(good), 40).tolist():
        train0.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert [fault.code for fault in records.verify(copy)] == ["ALTERED_SHARD"], at
    assert records.verify(copy, full=False) == ()  # reading is what the full check is for
    second = train1.read_bytes()
    frame = 12 + int.from_bytes(second[:8], "little") + 4
    train1.write_bytes(second[:frame])  # cut between two records: TensorFlow reads to a clean end
    train2.write_bytes(train2.read_bytes() + b"x")
    test0.unlink()
    content = test1.read_bytes()
    test1.write_bytes(test2.read_bytes())
    test2.write_bytes(content)
    (copy / "foreign.tfrecord").touch()
    train = [(train0.name, "ALTERED_SHARD"), (train1.name, "TRUNCATED_SHARD"),
             (train2.name, "ALTERED_SHARD")]  # fmt: skip
    faults = [("foreign.tfrecord", "FOREIGN_SHARD"), (test0.name, "MISSING_SHARD"),
              (test1.name, "ALTERED_SHARD"), (test2.name, "ALTERED_SHARD"), *train]  # fmt: skip
    for options, expected in (
        ({}, faults),
        ({"split": "train"}, train),
        ({"split": "train", "full": False}, train[1:]),
    ):
        found = records.verify(copy, **options)
        assert [(fault.file, fault.code) for fault in found] == expected
        assert f"{frame} bytes of {len(second)}" in [fault.reason for fault in found]
