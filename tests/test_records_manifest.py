"""The manifest knows every record, and notices whatever happens to a shard or to itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import records
from tests import records_cases as some
from tests.records_cases import SHAPE, cases, digests, ending, name_of, volume, write

FOURTEEN = cases(14, test=4)
pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture
def whole(tmp_path) -> Path:
    write(tmp_path / "whole", FOURTEEN, shard_count=3)
    return tmp_path / "whole"


def counts(mask: np.ndarray) -> dict[str, int]:
    return {str(n): int((mask == n).sum()) for n in np.unique(mask)}


def test_every_record_has_a_row_that_says_what_was_written(whole):
    manifest, by_name = records.load_manifest(whole), {name_of(one): one for one in FOURTEEN}
    assert manifest.records == len(manifest.rows) == 14 and manifest.splits == ("test", "train")
    for row in manifest.rows.itertuples():
        one = by_name.pop(row.case)
        element, content = volume(one), (whole / row.shard).read_bytes()
        raw, mask = element["image"].astype("<i2").tobytes(), element["mask"].astype("u1").tobytes()
        expected = {
            "split": one.split, "patient": row.case[:16], "label": one.label, "dtype": "int16",
            "shape": "x".join(map(str, (*SHAPE, 1))), "image_bytes": len(raw), "modality": "CT",
            "spacing": [2.5, 0.75, 0.5], "voxels": counts(element["mask"]),
            "notes": ["turned", "inverted"] if one.source % 2 else None,
        }  # fmt: skip
        assert {key: getattr(row, key) for key in expected} == expected
        assert row.weight == one.weight or (np.isnan(row.weight) and one.weight is None)
        assert content[row.image_at :].startswith(raw) and content[row.mask_at :].startswith(mask)
    shards = {shard.file: shard.sha256 for shard in manifest.shards}
    assert shards.items() <= digests(whole).items() and not by_name
    train = manifest.split("train")
    assert train["records"] == 10 == len(train["case"])
    assert sorted(train["label"]) == sorted(one.label for one in FOURTEEN[:10])


def test_rows_of_photographs_and_of_large_masks(tmp_path):
    by_name = some.photographs(tmp_path / "deeplab")
    large = np.random.default_rng(0).integers(0, 3, (65, 66, 67)).astype(np.uint8)
    image = np.arange(large.size).reshape(large.shape)
    some.given(tmp_path / "large", [{"image": image, "mask": large}])
    assert records.load_manifest(tmp_path / "large").columns["voxels"] == [counts(large)]
    rows = records.load_manifest(tmp_path / "deeplab").rows.set_index("case")
    for name, one in by_name.items():
        assert rows.voxels[name] == counts(one["mask"]) and rows["dtype"][name] == one["format"]
        assert rows["shape"][name] == f"{one['height']}x9x3" and "label" not in rows


def test_no_character_of_the_manifest_can_be_changed_unnoticed(whole, monkeypatch):
    path, made = whole / "manifest.json", records.load_manifest(whole)
    text = path.read_text()
    with monkeypatch.context() as other:
        other.setattr("helpers.records.manifest.VERSION", 2)
        old = made.to_json()
    for at in np.random.default_rng(0).integers(0, len(text), 60):
        for changed in (text[:at] + text[at + 1 :], text[:at] + "7" + text[at + 1 :]):
            path.write_text(changed)
            end = ending(records.load_manifest, whole)
            assert end == "MANIFEST_DAMAGED" or json.loads(changed) == json.loads(text)
    for other in ("", "null", "[]", '{"version": 2}', "\x80", "\udcff", text[:-1], old):
        path.write_text(other, errors="surrogateescape")
        assert ending(records.load_manifest, whole) == "MANIFEST_DAMAGED", other
    path.unlink()
    for call in (records.load_manifest, records.verify, records.index, records.read):
        assert ending(call, whole) == "NO_MANIFEST"
    with pytest.raises(FileNotFoundError):
        records.verify(whole / "nowhere")


def test_whatever_happened_to_a_shard_is_found_and_all_at_once(whole):
    assert records.verify(whole) == ()
    test0, test1, test2, train0, train1, train2 = sorted(whole.glob("*.tfrecord"))
    good = train0.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(good), 40).tolist():
        train0.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert [fault.code for fault in records.verify(whole)] == ["ALTERED_SHARD"], at
    assert records.verify(whole, full=False) == ()  # reading is what the full check is for
    second = train1.read_bytes()
    frame = 12 + int.from_bytes(second[:8], "little") + 4
    train1.write_bytes(second[:frame])  # cut between two records: TensorFlow reads to a clean end
    train2.write_bytes(train2.read_bytes() + b"x")
    test0.rename(whole / "foreign.tfrecord")
    test1.rename(test0)
    test2.rename(test1)
    test0.rename(test2)
    train = [(train0.name, "ALTERED_SHARD"), (train1.name, "TRUNCATED_SHARD"),
             (train2.name, "ALTERED_SHARD")]  # fmt: skip
    faults = [("foreign.tfrecord", "FOREIGN_SHARD"), (test0.name, "MISSING_SHARD"),
              (test1.name, "ALTERED_SHARD"), (test2.name, "ALTERED_SHARD"), *train]  # fmt: skip
    for options, expected in (
        ({}, faults),
        ({"split": "train"}, train),
        ({"split": "train", "full": False}, train[1:]),
    ):
        found = records.verify(whole, **options)
        assert [(fault.file, fault.code) for fault in found] == expected
        assert f"{frame} bytes of {len(second)}" in [fault.reason for fault in found]
