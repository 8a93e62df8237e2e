"""Cases become shards and a manifest: the same bytes every time, every file accounted for."""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import records
from helpers.cases import Found, Rejection
from helpers.errors import CODES, CourseDataError
from helpers.records import refusals, shards, writing
from helpers.records.manifest import Manifest, Shard, merge
from tests import records_cases
from tests.records_cases import (
    CLASSES,
    PATIENT,
    REASON,
    ROOT,
    SALT,
    case,
    cases,
    digests,
    hidden,
    ids,
    refusing,
    volume,
    write,
)

SPAWN = multiprocessing.get_context("spawn")
FOURTEEN = cases(14, test=4)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """Flushing is looked at where it matters; elsewhere it only takes time."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Fourteen cases, of which three are refused, in 3 + 3 shards; with what `write` returned."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, write(folder, FOURTEEN, refusing, shard_count=3)


def ending_of(call, *arguments, **options) -> str:
    with pytest.raises(CourseDataError) as refused:
        call(*arguments, **options)
    assert PATIENT not in refused.value.message and REASON not in refused.value.message
    return refused.value.code


# Same inputs, same bytes


def test_two_processes_write_what_one_writes(tmp_path, whole):
    again = write(tmp_path, FOURTEEN, refusing, shard_count=3, workers=2)
    assert digests(tmp_path) == digests(whole[0])
    assert again.manifest == whole[1].manifest


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_any_executor_writes_the_same(tmp_path, whole, kind):
    pool = ThreadPoolExecutor(3) if kind == "threads" else ProcessPoolExecutor(1, SPAWN)
    with pool:
        write(tmp_path, FOURTEEN, refusing, shard_count=3, executor=pool)
        assert pool.submit(int, 1).result() == 1  # it is the caller's, and still works
    assert digests(tmp_path) == digests(whole[0])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_cases_in_another_order_give_the_same_bytes(tmp_path, whole, order):
    mixed = random.Random(order).sample(FOURTEEN, len(FOURTEEN))
    write(tmp_path, tuple(mixed), refusing, shard_count=3)
    assert digests(tmp_path) == digests(whole[0])


def test_rejections_in_another_order_give_the_same_manifest(tmp_path):
    before = tuple(Rejection((Path(code),), code, "") for code in ("SCOUT", "NOT_DICOM", "COLOUR"))
    for name, order in (("a", before), ("b", before[::-1])):
        write(tmp_path / name, Found(FOURTEEN, order), refusing)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.parametrize("changed", [{"seed": 1}, {"salt": "another secret"}])
def test_another_seed_or_salt_gives_other_shards(tmp_path, whole, changed):
    write(tmp_path, FOURTEEN, refusing, shard_count=3, **changed)
    ours, theirs = digests(tmp_path), digests(whole[0])
    assert ours.keys() == theirs.keys()
    assert ours["train-00000-of-00003.tfrecord"] != theirs["train-00000-of-00003.tfrecord"]
    assert ours["manifest.json"] != theirs["manifest.json"]


def test_the_name_of_a_case_is_salted_and_keeps_patients_together():
    name = records.case_hash(SALT, "p", "a")
    assert len(name) == 25 and name[16] == "-" and int(name.replace("-", ""), 16) >= 0
    assert records.case_hash(SALT, "p", "b")[:17] == name[:17]
    assert records.case_hash(SALT, "p", "b") != name
    assert records.case_hash("another secret", "p", "a")[:16] != name[:16]
    assert records.case_hash("another secret", "p", "a")[17:] != name[17:]
    # Without a patient each case is one of its own, and is none that has that name.
    alone = {records.case_hash(SALT, "", letter)[:16] for letter in "ab"}
    assert len(alone) == 2 and records.case_hash(SALT, "a", "a")[:16] not in alone
    plain = [hashlib.sha256(text.encode()).hexdigest()[:8] for text in ("p", "a", "patient\0p")]
    assert not any(part in name for part in plain)
    assert records.case_hash(SALT, "Ärzte \udcff", "x/ü")  # whatever a file system has


# Which case goes where


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(0, 12), st.one_of(st.none(), st.integers(1, 50)))
def test_every_case_goes_into_one_shard_and_shards_are_of_one_size(count, test, wanted):
    made = cases(count + test, test)
    jobs = writing.plan(made, "volume", SALT, 0, wanted)
    placed = [one for job in jobs for _, one in job.cases]
    assert Counter(placed) == Counter(made)
    for split, size in (("train", count), ("test", test)):
        mine = [job for job in jobs if job.split == split]
        assert len(mine) == min(wanted or 4, size)
        assert {one.split for job in mine for _, one in job.cases} <= {split}
        sizes = [len(job.cases) for job in mine]
        assert not sizes or max(sizes) - min(sizes) <= 1
        total = len(mine)
        assert [job.file for job in mine] == [
            f"{split}-{number:05d}-of-{total:05d}.tfrecord" for number in range(total)
        ]


def test_a_large_set_has_a_shard_for_each_128_mib():
    for mib, expected in ((1, 4), (52, 5), (130, 13)):
        made = cases(10, size=mib * 2**20) + cases(0)
        jobs = writing.plan(made, "volume", SALT, 0, None)
        assert len(jobs) == min(expected, 10)


def test_a_case_of_unknown_size_is_as_large_as_its_files(tmp_path):
    (tmp_path / "large").write_bytes(bytes(1000))
    both = (tmp_path / "large", tmp_path / "gone")
    assert shards.size_of(case(0, files=both)) == 1000
    assert shards.size_of(case(0, files=both, size=7)) == 7
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(64 * 2**20)
    made = cases(10, files=(tmp_path / "sparse",))
    assert len(writing.plan(made, "volume", SALT, 0, None)) == 5


def test_the_seed_shuffles_the_cases():
    orders = []
    for seed in (0, 1):
        (job,) = writing.plan(cases(30), "volume", SALT, seed, 1)
        orders.append([name for name, _ in job.cases])
    assert orders[0] != orders[1] != sorted(orders[1])
    assert sorted(orders[0]) == sorted(orders[1]) != orders[0]


# The manifest


def test_the_manifest_counts_what_is_there(whole):
    folder, written = whole
    known = records.load_manifest(folder)
    assert known == written.manifest
    accepted = [one for one in FOURTEEN if one.source not in (1, 4, 7)]
    for split in ("train", "test"):
        mine = [one for one in accepted if one.split == split]
        voxels = Counter()
        for one in mine:
            voxels.update(volume(one)["mask"].ravel().tolist())
        assert known.splits[split] == known.split(split)
        expected = {
            "records": len(mine),
            "patients": sorted({records.case_hash(SALT, c.patient, c.name)[:16] for c in mine}),
            "labels": {str(n): m for n, m in Counter(c.label for c in mine).items()},
            "dtypes": {"int16": len(mine)},
            "shapes": {"3x5x4x1": len(mine)},
            "mask_voxels": {str(n): m for n, m in voxels.items()},
            "mask_records": {str(n): len(mine) for n in range(3)},
            "empty_masks": 0,
        }
        fields = known.split(split).pop("fields")
        assert {k: v for k, v in known.split(split).items() if k != "fields"} == expected
        assert fields["mask"] == len(mine)
        assert fields["weight"] == sum(one.weight is not None for one in mine)
    assert known.records == len(accepted) == 11
    assert known.classes == dict(enumerate(CLASSES))
    assert known.parameters == {"seed": 0, "shard_count": 3, "mapping": None}
    for shard in known.shards:
        content = (folder / shard.file).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert {shard.file for shard in known.shards} | {"manifest.json"} == set(digests(folder))


def test_the_manifest_is_json_that_anybody_can_read(whole):
    content = json.loads((whole[0] / "manifest.json").read_text("ascii"))
    assert (content["format"], content["version"], content["schema"]) == ("records", 1, "volume")
    counted = Counter()
    for shard in content["shards"]:
        counted[shard["split"]] += shard["records"]
    assert counted == {name: split["records"] for name, split in content["splits"].items()}
    assert content["classes"] == {"0": "background", "1": "liver", "2": "lesion"}


def test_a_mask_of_nothing_but_background_is_kept_and_counted(tmp_path):
    images = [np.arange(9).reshape(3, 3) + n for n in range(3)]
    masks = [np.zeros((3, 3)), np.zeros((3, 3), int), np.eye(3, dtype=np.uint64)]
    made = tuple(
        case(n, source={"image": images[n], "mask": masks[n]}, label=None) for n in range(3)
    )
    counts = write(
        tmp_path, made, records_cases.as_given, survey=records_cases.ids_as_given
    ).manifest.split("train")
    assert (counts["records"], counts["empty_masks"]) == (3, 2)
    assert counts["mask_voxels"] == {"0": 24, "1": 3}


CLASS_NAMES = st.dictionaries(st.integers(0, 300), st.text(max_size=4), max_size=20)
COUNTS = st.fixed_dictionaries(
    {"records": st.integers(0, 9), "patients": st.lists(st.text("abc", max_size=3), max_size=3)},
    optional={"labels": st.dictionaries(st.sampled_from(["0", "1 0"]), st.integers(1, 9))},
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(CLASS_NAMES, st.lists(COUNTS, max_size=3))
def test_a_manifest_comes_back_from_its_text(classes, counted):
    made = tuple(Shard(f"a-{n}", "a", n, 2**40, "0f", one) for n, one in enumerate(counted))
    whole = Manifest("volume", {"seed": 3}, classes, made, ({"case": "x"},), {"all": 1})
    assert Manifest.from_json(whole.to_json()) == whole


def test_counts_of_shards_add_up_to_those_of_the_split():
    one = {"records": 1, "patients": ["b"], "labels": {"0": 1}, "empty_masks": 0}
    two = {"records": 2, "patients": ["a", "b"], "labels": {"0": 1, "1": 1}, "fields": {"mask": 2}}
    assert merge([one, two]) == {
        "records": 3,
        "patients": ["a", "b"],
        "labels": {"0": 2, "1": 1},
        "empty_masks": 0,
        "fields": {"mask": 2},
    }
    assert one == {"records": 1, "patients": ["b"], "labels": {"0": 1}, "empty_masks": 0}


def test_a_split_that_is_not_there_is_named_with_those_that_are(whole):
    with pytest.raises(ValueError, match="no split 'validation'; this set has: test, train"):
        whole[1].manifest.split("validation")


# Every input file ends as a record or in the report


def test_files_in_are_files_written_and_files_rejected(whole):
    before = (
        Rejection((Path("notes.txt"),), "NOT_AN_IMAGE", f"{REASON} notes"),
        Rejection((Path("a.dcm"), Path("b.dcm")), "SCOUT", ""),
    )
    found = Found(FOURTEEN, before)
    written = write(whole[0].with_name("with rejections"), found, refusing, shard_count=3)
    assert written.manifest.files == {"all": 31, "written": 22, "rejected": 9}
    assert Counter((one.code, one.files) for one in written.rejected) == Counter(
        [(one.code, one.files) for one in before]
        + [("TRUNCATED", FOURTEEN[1].files), ("TRUNCATED", FOURTEEN[4].files)]
        + [("UNREADABLE", FOURTEEN[7].files)]
    )
    reasons = {one.files: one.reason for one in written.rejected}
    assert reasons[FOURTEEN[1].files] == f"{REASON} of {FOURTEEN[1].patient}"
    assert reasons[FOURTEEN[7].files] == "No such file or directory"
    listed = {(one["case"], one["code"], one["files"]) for one in written.manifest.rejected}
    names = {n: records.case_hash(SALT, FOURTEEN[n].patient, FOURTEEN[n].name) for n in (1, 4, 7)}
    assert listed == {
        ("", "NOT_AN_IMAGE", 1),
        ("", "SCOUT", 2),
        (names[1], "TRUNCATED", 2),
        (names[4], "TRUNCATED", 2),
        (names[7], "UNREADABLE", 2),
    }
    assert written.manifest.records * 2 + 9 == found.files


def test_a_weight_may_be_of_any_floating_point_type(tmp_path):
    made = (case(0, weight=np.float32(0.5)), case(1, weight=np.float64(0.5)), case(2, weight=2))
    assert write(tmp_path, made).manifest.split("train")["fields"]["weight"] == 3
    same = (case(0, weight=0.5), case(1, weight=0.5), case(2, weight=2.0))
    assert write(tmp_path, same).kept == 3


def test_a_second_look_at_a_finished_set_still_tells_what_was_rejected(tmp_path):
    first = write(tmp_path, FOURTEEN, refusing)
    again = write(tmp_path, FOURTEEN, refusing)
    assert again.manifest == first.manifest
    assert [(one.files, one.code) for one in again.rejected] == [
        (one.files, one.code) for one in first.rejected
    ]
    assert {one.reason for one in again.rejected} == {CODES["TRUNCATED"], CODES["UNREADABLE"]}


def test_what_the_loader_gets_wrong_itself_stops_the_run(tmp_path):
    wrong, loaded = {9}, []

    def load(case):
        loaded.append(case.source)
        return records_cases.crashing(case, *wrong)

    with pytest.raises(RuntimeError, match="a fault of the loader"):
        write(tmp_path, FOURTEEN, load, shard_count=3)
    assert digests(tmp_path) == {}
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]
    # Once it is right, the shards that were finished before are kept.
    finished = len(list(tmp_path.rglob("*.done")))
    wrong = {None}
    again = write(tmp_path, FOURTEEN, load, shard_count=3)
    assert again.kept == finished > 0 and again.manifest.records == 14
    assert Counter(loaded)[9] == 2 and len(loaded) < 28


def test_a_crash_in_a_worker_process_stops_the_run_as_well(tmp_path):
    with pytest.raises(RuntimeError, match="a fault of the loader") as fault:
        write(tmp_path, FOURTEEN, records_cases.crashing, workers=2)
    assert digests(tmp_path) == {}
    # Which case it was can be looked up by whoever has the salt.
    name = records.case_hash(SALT, FOURTEEN[5].patient, FOURTEEN[5].name)
    assert any(name in note for note in fault.value.__notes__)
    assert PATIENT not in str(fault.value.__notes__)


def test_a_set_of_which_nothing_became_a_record_is_an_error_that_says_why(tmp_path):
    load = partial(refusing, numbers=range(14))
    with pytest.raises(CourseDataError, match=r"none of 14 cases .* 14 TRUNCATED") as refused:
        write(tmp_path, FOURTEEN, load)
    assert refused.value.code == "NOTHING_WRITTEN"
    assert len(refused.value.rejected) == 14 and refused.value.rejected[0].reason.startswith(REASON)
    assert digests(tmp_path) == {} and hidden(tmp_path) == set()
    assert ending_of(write, tmp_path / "none", ()) == "NOTHING_WRITTEN"
    assert digests(tmp_path / "none") == {}


# What is refused before the first record


def refused_unwritten(folder: Path, *arguments, **options) -> CourseDataError:
    with pytest.raises(CourseDataError) as refused:
        write(folder, *arguments, **options)
    assert not folder.exists() or (digests(folder) == {} and not list(folder.rglob("*.tfrecord*")))
    assert PATIENT not in refused.value.message
    return refused.value


def test_a_patient_in_two_splits_cannot_be_written(tmp_path):
    torn = (case(0), case(1, split="test"), case(2))
    error = refused_unwritten(tmp_path / "a", torn, overwrite=True)
    assert error.code == "PATIENT_IN_TWO_SPLITS"
    assert set(error.files) == {*torn[0].files, *torn[1].files}
    error = refused_unwritten(tmp_path / "a", torn, dry_run=True)
    assert error.code == "PATIENT_IN_TWO_SPLITS"


def test_two_cases_of_one_name_cannot_be_written(tmp_path):
    twins = (case(0), case(1, name=case(0).name), case(2))
    assert refused_unwritten(tmp_path / "a", twins).code == "SAME_CASE"


@pytest.mark.parametrize(
    "labels",
    [(0, 3), (0, -1), ((0, 1), (0, 7)), ((0, 1), (0, -2)), (0, (0, 1)), ((0,), (0, 1)), ((), ())],
)
def test_a_label_that_the_classes_do_not_name_is_refused(tmp_path, labels):
    made = tuple(case(n, label=label) for n, label in enumerate(labels))
    error = refused_unwritten(tmp_path / "a", made)
    assert error.code == "UNKNOWN_LABEL"
    if labels[1] in (3, -1, (0, 7), (0, -2)):
        assert error.files == made[1].files


@pytest.mark.parametrize("label", [(0, -1), (-1, -1), (2,), None])
def test_one_of_several_labels_may_be_unknown(tmp_path, label):
    made = (case(0, label=label), case(1, label=label))
    counts = write(tmp_path, made).manifest.split("train")
    key = None if label is None else " ".join(map(str, label))
    assert counts.get("labels") == (None if label is None else {key: 2})


def test_ids_in_masks_are_looked_at_before_the_first_record(tmp_path):
    looked, loaded = [], []

    def survey(case):
        looked.append(case.source)
        return frozenset({0, 255} if case.source == 6 else {0, 1})

    def load(case):
        loaded.append(case.source)
        return volume(case)

    error = refused_unwritten(tmp_path / "a", FOURTEEN, load, survey=survey)
    assert (error.code, error.files) == ("UNKNOWN_LABEL", FOURTEEN[6].files)
    assert "[255]" in error.message and "[0, 1, 2]" in error.message
    assert sorted(looked) == list(range(14)) and loaded == []


@pytest.mark.parametrize("order", [1, -1])
def test_unknown_ids_are_reported_alike_in_whatever_order_workers_answer(order):
    answers = [(case, frozenset({0, 7})) for case in FOURTEEN[3:9]][::order]
    with pytest.raises(CourseDataError) as raised:
        refusals.check_masks(answers, {0: "none", 1: "spot"})
    assert raised.value.files == tuple(f for case in FOURTEEN[3:9] for f in case.files)


def test_masks_of_finished_shards_are_not_looked_at_again(tmp_path):
    looked, wrong = [], {13}

    def survey(case):
        looked.append(case.source)
        return ids(case)

    def load(case):
        return records_cases.crashing(case, *wrong)

    with pytest.raises(RuntimeError):
        write(tmp_path, FOURTEEN, load, survey=survey, shard_count=3)
    assert sorted(looked) == list(range(14))
    finished = [path.name.removesuffix(".note") for path in tmp_path.rglob("*.note")]
    jobs = writing.plan(FOURTEEN, "volume", SALT, 0, 3)
    left = {one.source for job in jobs if job.file not in finished for _, one in job.cases}
    looked, wrong = [], {None}
    assert write(tmp_path, FOURTEEN, load, survey=survey, shard_count=3).kept == len(finished) > 0
    assert set(looked) == left < set(range(14))
    looked = []
    write(tmp_path, FOURTEEN, load, survey=survey, shard_count=3)
    assert looked == []
    write(tmp_path, FOURTEEN, load, survey=survey, shard_count=3, overwrite=True)
    assert sorted(looked) == list(range(14))


def test_what_the_folder_tells_comes_before_what_takes_time(tmp_path):
    write(tmp_path, FOURTEEN)
    assert ending_of(write, tmp_path, FOURTEEN, survey=not_now, seed=1) == "OTHER_SET"
    free = shutil.disk_usage(tmp_path).free
    large = (case(0, size=free * 2),)
    assert ending_of(write, tmp_path / "a" / "b", large, survey=not_now) == "DISK_FULL"
    assert not (tmp_path / "a").exists()


def not_now(case):
    raise AssertionError("nobody should have asked")


def test_an_id_that_the_survey_has_not_shown_rejects_the_case(tmp_path):
    odd = dict(volume(case(0)), mask=np.full(records_cases.SHAPE, 9))
    made = (case(0, source=odd), case(1, source=volume(case(1))))
    written = write(tmp_path, made, records_cases.as_given)
    assert [(one.code, one.files) for one in written.rejected] == [("UNKNOWN_LABEL", made[0].files)]
    assert written.manifest.split("train")["records"] == 1


def test_masks_that_nobody_looked_at_stop_the_run(tmp_path):
    with pytest.raises(ValueError, match="pass `survey`"):
        write(tmp_path, FOURTEEN, survey=None)
    assert digests(tmp_path) == {}


@pytest.mark.parametrize("kind", [CourseDataError("UNREADABLE", "damaged"), OSError(5, "no")])
def test_a_mask_that_cannot_be_read_is_for_the_loader_to_report(tmp_path, kind):
    def survey(case):
        if case.source in (1, 4, 7):
            raise kind
        return ids(case)

    written = write(tmp_path, FOURTEEN, refusing, survey=survey)
    assert Counter(one.code for one in written.rejected) == {"TRUNCATED": 2, "UNREADABLE": 1}


def test_a_survey_may_refuse_ids_itself(tmp_path):
    def survey(case):
        raise CourseDataError("UNKNOWN_LABEL", "id 7 has no name", case.files)

    assert refused_unwritten(tmp_path / "a", FOURTEEN, survey=survey).code == "UNKNOWN_LABEL"


def in_no_module(case):
    return volume(case)


in_no_module.__module__ = "__main__"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schema": "volumes"}, "schema can be volume, classification, deeplab, not 'volumes'"),
        ({"salt": "1234567"}, "less than 8 characters"),
        ({"classes": None}, "masks and labels need `classes`"),
        ({"classes": None, "survey": None}, "masks and labels need `classes`"),
        ({"schema": "deeplab", "survey": None}, "needs `survey`"),
        ({"load": in_no_module, "workers": 2}, "cannot import it from a notebook"),
        ({"load": partial(partial(in_no_module)), "workers": None}, "workers=1"),
        ({"split": "my split"}, "letters, digits and underscores"),
        ({"split": "../test"}, "letters, digits and underscores"),
        ({"split": ""}, "letters, digits and underscores"),
        ({"schema": "classification", "label": None}, "2 cases have no label"),
        ({"label": np.int64(1)}, "a label is an int"),
        ({"label": True}, "a label is an int"),
        ({"label": (1, np.int64(1))}, "a label is an int"),
        ({"label": [1, 0]}, "a label is an int"),
        ({"weight": float("nan")}, "a weight is a finite number from 0"),
        ({"weight": -1.0}, "a weight is a finite number from 0"),
        ({"weight": float("inf")}, "a weight is a finite number from 0"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_with_what_to_pass(tmp_path, options, said):
    known = {"schema": "volume", "load": volume, "salt": SALT, "classes": CLASSES, "survey": ids}
    about = {k: options[k] for k in ("split", "label", "weight") if k in options}
    options = known | {k: v for k, v in options.items() if k not in about}
    found = Found(cases(2, **about))
    schema, load = options.pop("schema"), options.pop("load")
    with pytest.raises(ValueError, match=said) as refused:
        records.write(tmp_path / "a", found, schema, load, progress=False, **options)
    assert not isinstance(refused.value, CourseDataError)
    assert not (tmp_path / "a").exists()


def test_a_function_of_a_notebook_works_in_this_process(tmp_path):
    assert write(tmp_path / "a", cases(2), in_no_module).manifest.records == 2
    with ThreadPoolExecutor(1) as pool:
        written = write(tmp_path / "b", cases(2), in_no_module, workers=None, executor=pool)
    assert written.manifest.records == 2


def test_classes_may_be_given_by_id_and_a_mapping_is_noted(tmp_path):
    classes = {0: "background", 255: "lesion", 2: "other", 1: "more"}
    load = partial(partial(mapped, mapping={0: 0, 255: 1}), more=1)
    known = write(tmp_path, cases(2), load, classes=classes, seed=5).manifest
    assert known.classes == classes
    assert known.parameters == {"seed": 5, "shard_count": None, "mapping": {"0": 0, "255": 1}}


def mapped(case, mapping, more):
    return volume(case)


def test_a_dry_run_counts_everything_and_writes_nothing(tmp_path, whole):
    tried = write(tmp_path / "a", FOURTEEN, refusing, shard_count=3, dry_run=True)
    assert tried.manifest == whole[1].manifest
    assert [one.code for one in tried.rejected] == [one.code for one in whole[1].rejected]
    assert not (tmp_path / "a").exists()


def test_a_dry_run_looks_at_everything_whatever_is_in_the_folder(tmp_path, whole):
    write(tmp_path, FOURTEEN[:5])
    before, looked = digests(tmp_path), []

    def survey(case):
        looked.append(case.source)
        return ids(case)

    options = {"survey": survey, "shard_count": 3, "dry_run": True}
    assert write(tmp_path, FOURTEEN, refusing, **options).manifest == whole[1].manifest
    assert write(whole[0], FOURTEEN, refusing, **options).kept == 0
    assert sorted(looked) == sorted(2 * [*range(14)])
    assert digests(tmp_path) == before and hidden(tmp_path) == {".job"}


# A folder that is in use


def test_a_finished_set_is_verified_and_kept(tmp_path):
    first = write(tmp_path, FOURTEEN, refusing, shard_count=3)
    assert first.kept == 0

    def state():
        return {
            path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
            for path in tmp_path.iterdir()
            if path.name != ".lock"
        }

    before = state()
    again = write(tmp_path, FOURTEEN, refusing, shard_count=3)
    assert (again.kept, again.manifest) == (6, first.manifest)
    assert state() == before and hidden(tmp_path) == {".job"}


def test_a_shard_that_was_damaged_is_written_again_and_the_others_are_kept(tmp_path, whole):
    write(tmp_path, FOURTEEN, refusing, shard_count=3)
    damaged, gone = sorted(tmp_path.glob("*.tfrecord"))[1:3]
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.write_bytes(content)
    gone.unlink()
    again = write(tmp_path, FOURTEEN, refusing, shard_count=3)
    assert again.kept == 4
    assert digests(tmp_path) == digests(whole[0])


@pytest.mark.parametrize("how", ["altered", "no text", "emptied", "of another set"])
def test_a_manifest_that_was_not_written_here_vouches_for_nothing(tmp_path, whole, how):
    write(tmp_path, FOURTEEN, refusing, shard_count=3)
    path = tmp_path / "manifest.json"
    if how == "of another set":  # with its shards, by somebody who copied what is not hidden
        other = tmp_path / "other"
        write(other, FOURTEEN, refusing, shard_count=3, salt="another secret")
        for name in digests(other):
            os.replace(other / name, tmp_path / name)
        assert records.verify(tmp_path) == ()
    else:
        text = path.read_text()
        altered = {"altered": text.replace('"seed": 0', '"seed": 1'), "emptied": ""}
        path.write_bytes(altered.get(how, "\udcff" + text).encode("utf-8", "surrogateescape"))
    again = write(tmp_path, FOURTEEN, refusing, shard_count=3)
    assert again.kept == 0
    assert digests(tmp_path) == digests(whole[0])


def other_load(case):
    return volume(case)


def moved(function, module: str):
    """The same function under another module's name."""
    twin = type(function)(function.__code__, function.__globals__, function.__name__)
    twin.__module__ = module
    return twin


@pytest.mark.parametrize(
    "changed",
    [
        {"salt": "another secret"},
        {"seed": 1},
        {"shard_count": 2},
        {"classes": ("background", "liver", "spleen")},
        {"load": other_load},
        {"load": moved(volume, "another_module")},
        {"load": partial(volume)},
        {"found": FOURTEEN[:-1]},
        {"found": tuple(dataclasses.replace(one, label=0) for one in FOURTEEN)},
        {"found": tuple(dataclasses.replace(one, weight=1.0) for one in FOURTEEN)},
        {"found": tuple(dataclasses.replace(one, split="all") for one in FOURTEEN)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_set_is_not_written_over_a_finished_one_unless_asked_for(tmp_path, changed):
    write(tmp_path, FOURTEEN, shard_count=3)
    before = digests(tmp_path)
    options = {"found": FOURTEEN, "load": volume, "shard_count": 3} | changed
    call = partial(write, tmp_path, options.pop("found"), options.pop("load"), **options)
    assert ending_of(call) == "OTHER_SET"
    assert digests(tmp_path) == before
    assert records.verify(tmp_path) == ()
    known = call(overwrite=True).manifest
    assert records.load_manifest(tmp_path) == known and records.verify(tmp_path) == ()
    assert digests(tmp_path) == digests_of_fresh(tmp_path / "fresh", call)


def digests_of_fresh(folder: Path, call: partial) -> dict[str, str]:
    """What the same call writes into an empty folder."""
    call.func(folder, *call.args[1:], **call.keywords)
    return digests(folder)


@pytest.mark.parametrize("change", ["size", "time", "gone"])
def test_an_input_file_that_changed_makes_another_set(tmp_path, change):
    file = tmp_path / "input"
    file.write_bytes(b"12345")
    os.utime(file, ns=(10**18, 10**18))
    made = (case(0, files=(file,)), case(1))
    write(tmp_path / "out", made)
    assert write(tmp_path / "out", made).kept == 2
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(b"123456" if change == "size" else b"12345")
        os.utime(file, ns=(10**18 + (change == "time"),) * 2)
    assert ending_of(write, tmp_path / "out", made) == "OTHER_SET"


def test_overwriting_writes_anew_what_the_loader_now_makes_of_the_same_cases(tmp_path):
    """A change inside a function cannot be seen; whoever made it can say so."""
    more = [0]

    def load(case):
        element = volume(case)
        return element | {"image": element["image"] + more[0]}

    write(tmp_path, cases(4), load)
    before = digests(tmp_path)
    more = [1]
    assert write(tmp_path, cases(4), load).kept == 4 and digests(tmp_path) == before
    assert write(tmp_path, cases(4), load, overwrite=True).kept == 0
    after = digests(tmp_path)
    assert all(before[name] != after[name] for name in before)
    assert records.verify(tmp_path) == () and hidden(tmp_path) == {".job"}


def test_overwriting_by_fewer_shards_leaves_no_stale_one(tmp_path):
    write(tmp_path, FOURTEEN, shard_count=5)
    assert len(digests(tmp_path)) == 10
    write(tmp_path, FOURTEEN[:6], shard_count=2, overwrite=True)
    assert sorted(digests(tmp_path)) == [
        "manifest.json",
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]
    assert records.verify(tmp_path) == ()
    assert hidden(tmp_path) == {".job"}


def test_a_set_that_came_without_hidden_files_can_be_overwritten(tmp_path):
    write(tmp_path, FOURTEEN, shard_count=5)
    (tmp_path / ".job").unlink()
    assert ending_of(write, tmp_path, FOURTEEN, shard_count=5) == "OTHER_SET"
    write(tmp_path, FOURTEEN, shard_count=2, overwrite=True)
    assert len(digests(tmp_path)) == 5 and records.verify(tmp_path) == ()


def test_only_shards_of_this_folder_can_be_stale(tmp_path):
    """The list of the set before is a file, and anybody may have written it."""
    folder, precious = tmp_path / "set", tmp_path / "precious"
    write(folder, FOURTEEN, shard_count=5)
    precious.write_text("kept")
    (folder / "notes.txt").write_text("kept")
    listed = {"../precious": "", "notes.txt": "", str(precious): ""}
    (folder / ".job").write_text(json.dumps(listed))
    for stale in folder.glob("*.tfrecord"):
        stale.unlink()
    write(folder, FOURTEEN, shard_count=2, overwrite=True)
    assert precious.exists() and (folder / "notes.txt").exists()


@pytest.mark.parametrize("text", ["[]", "3", "null", "{", "\x00"])
def test_a_damaged_list_of_the_set_before_is_as_good_as_none(tmp_path, text):
    write(tmp_path, FOURTEEN)
    (tmp_path / ".job").write_text(text)
    assert ending_of(write, tmp_path, FOURTEEN) == "OTHER_SET"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_shard_stops_the_run_before_anything_is_written(tmp_path, overwrite):
    foreign = tmp_path / "train-00000-of-00001.tfrecord"
    foreign.write_bytes(b"somebody else's")
    loaded = []
    with pytest.raises(CourseDataError, match=r"1 \.tfrecord files") as refused:
        write(tmp_path, FOURTEEN, loaded.append, overwrite=overwrite)
    assert refused.value.code == "FOREIGN_SHARD" and refused.value.files == (foreign,)
    assert foreign.read_bytes() == b"somebody else's" and loaded == []
    assert set(digests(tmp_path)) == {foreign.name}


def test_files_of_other_kinds_are_left_alone(tmp_path):
    (tmp_path / "README.txt").write_text("ours")
    (tmp_path / "pictures").mkdir()
    write(tmp_path, FOURTEEN[:4], shard_count=2)
    write(tmp_path, FOURTEEN[:2], shard_count=1, overwrite=True)
    assert (tmp_path / "README.txt").read_text() == "ours" and (tmp_path / "pictures").is_dir()
    assert records.verify(tmp_path) == ()


def test_nothing_has_a_name_before_it_is_on_the_disk(tmp_path, monkeypatch):
    steps, flushed = [], set()
    replace = os.replace

    def fsync(number):
        flushed.add(os.fstat(number).st_ino)
        steps.append(("flush", os.fstat(number).st_ino))

    def rename(source, target):
        steps.append(("name", os.stat(source).st_ino in flushed, os.path.basename(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    write(tmp_path, FOURTEEN, shard_count=3)
    named = [step for step in steps if step[0] == "name"]
    assert all(was_flushed for _, was_flushed, _ in named)
    final = [name for _, _, name in named if not name.endswith((".done", ".note"))][2:]
    assert final[:-2] == sorted(final[:-2]) and len(final[:-2]) == 6
    assert final[-2:] == [".job", "manifest.json"]
    # The folder's own entries are flushed before the manifest gets its name, and after.
    folder = ("flush", tmp_path.stat().st_ino)
    if os.name == "posix":
        assert steps[-3:-1] == [folder, ("name", True, "manifest.json")] and steps[-1] == folder


def test_a_run_says_how_far_it_is_unless_told_not_to(tmp_path, capfd):
    write(tmp_path / "a", FOURTEEN)
    assert capfd.readouterr() == ("", "")
    write(tmp_path / "b", FOURTEEN, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "checking masks" in err and "writing" in err and "14/14" in err
    assert PATIENT not in err
    write(tmp_path / "c", FOURTEEN, progress=True, dry_run=True)
    assert "checking:" in capfd.readouterr().err


def test_paths_and_names_may_be_anything_that_a_system_allows(tmp_path):
    names = ["ä ö/ü", "名前", "a" * 3000, "\udcff", "with\nnewline", "..", "\U0001f9e0"]
    made = tuple(
        case(n, name=name, patient=name, files=(tmp_path / name,)) for n, name in enumerate(names)
    )
    assert write(tmp_path / "ü ö", made).manifest.records == len(names)
    assert records.verify(tmp_path / "ü ö") == ()


# Privacy


def test_nothing_that_leads_to_a_person_is_written_or_shown(tmp_path):
    """Names, ids, paths and reasons are planted in all that is given."""
    marks = [PATIENT, "Placeholder", "Jane", REASON, "4711", "ward_seven"]
    source = tmp_path / "ward_seven" / "4711"
    source.mkdir(parents=True)
    made = []
    for n, one in enumerate(FOURTEEN):
        file = source / f"{n}.dcm"
        file.write_bytes(PATIENT.encode())
        made.append(dataclasses.replace(one, files=(file,)))
    before = Rejection((source / "x.dcm",), "NOT_DICOM", f"{REASON} {PATIENT}")
    found = Found(tuple(made), (before,))
    load = partial(refusing, numbers=(1, 4))
    out = tmp_path / "out"
    written = write(out, found, load)
    write(out, found, load, seed=3, overwrite=True)  # old lists and notes, too
    shown = [written, written.manifest, written.manifest.shards, found, *made, before]
    shown += [str(one) for one in shown] + [f"{one.code} {one.meaning}" for one in written.rejected]
    shown += writing.plan(found.cases, "volume", SALT, 0, None, parameters=repr(source))
    leaks = [mark for mark in marks for one in shown if mark in repr(one)]
    assert leaks == []
    secrets = [*marks, SALT]
    for person in {one.patient for one in made}:
        secrets.append(hashlib.sha256(person.encode()).hexdigest()[:12])
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 9 and ".job" in {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        assert not [one for one in secrets if one.encode() in content], path.name
        assert not [one for one in secrets if one in path.relative_to(tmp_path).as_posix()]


# Without TensorFlow


def test_writing_never_imports_tensorflow_in_any_process(tmp_path):
    out, script = tmp_path / "out", tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "import helpers.records\n"
        "from tests.records_cases import cases, write, without_tensorflow\n"
        "if __name__ == '__main__':\n"
        f"    written = write({str(out)!r}, cases(4), without_tensorflow, workers=2)\n"
        f"    assert not helpers.records.verify({str(out)!r})\n"
        "    print(written.manifest.records, 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["4", "False"], done.stderr
