"""Calling the writer again: what is known is not asked twice; and what it says of odd input."""

import functools
import json

import nibabel
import numpy as np
import pytest

from helpers import dicom, records, sources_decathlon
from helpers.cases import Case
from helpers.errors import CourseDataError
from helpers.phantoms import dicom_series, torso
from helpers.records import writing
from tests.records_cases import PATIENT, SALT, case, cases, crashing, digests, ids, write

EIGHT = cases(8)

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def counting(asked: list, case: Case) -> frozenset[int]:
    asked.append(case.source)
    return ids(case)


def test_masks_of_finished_shards_are_not_surveyed_again(tmp_path):
    asked = []
    survey = functools.partial(counting, asked)
    write(tmp_path, EIGHT, survey=survey, shard_count=4)
    assert sorted(asked) == list(range(8))
    asked.clear()
    assert write(tmp_path, EIGHT, survey=survey, shard_count=4).kept == 4 and asked == []
    with pytest.raises(CourseDataError, match="OTHER_SET"):
        write(tmp_path, cases(9), survey=survey, shard_count=4)
    assert asked == []


def test_a_set_that_lost_its_hidden_files_can_be_overwritten(tmp_path):
    write(tmp_path, EIGHT, shard_count=4)
    (tmp_path / ".job").unlink()
    with pytest.raises(CourseDataError, match="OTHER_SET"):
        write(tmp_path, EIGHT, shard_count=2)
    write(tmp_path, EIGHT, shard_count=2, overwrite=True)
    assert records.verify(tmp_path) == () and len(digests(tmp_path)) == 3


def test_only_the_shards_of_the_split_that_is_read_have_to_be_there(tmp_path):
    write(tmp_path, cases(8, test=2), shard_count=1)
    (tmp_path / "test-00000-of-00001.tfrecord").unlink()
    assert len(records.read(tmp_path, "train")) == 6
    assert records.verify(tmp_path, split="train") == ()
    with pytest.raises(CourseDataError, match="MISSING_SHARD"):
        records.read(tmp_path, "test")


def test_a_case_without_a_size_counts_as_large_as_its_files(tmp_path, monkeypatch):
    file = tmp_path / "pixels"
    file.write_bytes(bytes(1000))
    six = tuple(case(n, files=(file,)) for n in range(6))
    monkeypatch.setattr(writing, "SHARD_BYTES", 1000)
    assert len(writing.plan(six, "volume", "x" * 8, 0, None)) == 6
    monkeypatch.setattr(writing, "SHARD_BYTES", 10**6)
    assert len(writing.plan(six, "volume", "x" * 8, 0, None)) == 4


def test_a_fault_of_the_loader_says_at_which_case_by_its_hash(tmp_path):
    with pytest.raises(RuntimeError) as raised:
        write(tmp_path, EIGHT, crashing)
    (note,) = raised.value.__notes__
    name = records.case_hash(SALT, EIGHT[5].patient, EIGHT[5].name)
    assert name in note and "train-0" in note and PATIENT not in note


@pytest.mark.parametrize(
    "odd",
    [{"weight": 1e39}, {"weight": float("inf")}, {"weight": float("nan")}, {"weight": -0.5}]
    + [{"label": 2**31}, {"label": (0, 2**40)}],
    ids=str,
)
def test_a_number_that_a_record_cannot_give_back_is_refused(tmp_path, odd):
    with pytest.raises(ValueError, match=r"weight is a finite|label is a class id"):
        write(tmp_path, (case(0, **odd),))
    assert not any(tmp_path.iterdir())


def test_a_batch_of_none_is_refused(tmp_path):
    write(tmp_path, EIGHT)
    for size in (0, -1):
        with pytest.raises(ValueError, match="1 record or more"):
            records.read(tmp_path, batch=size)


def test_left_is_left_whichever_way_a_file_counts(tmp_path):
    """One patient in four orders of axes gives one record, mask included."""
    voxels = np.random.default_rng(0).integers(-100, 100, (6, 5, 4)).astype(np.int16)  # x, y, z
    spacing, items = np.diag([-1.0, -2.0, 3.0, 1.0]), []  # LPS, in NIfTI's RAS coordinates
    one = nibabel.Nifti1Image(voxels, spacing)
    for code in ("LPS", "RAS", "PIR", "SLA"):
        turn = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(one.affine), nibabel.orientations.axcodes2ornt(code)
        )
        turned = one.as_reoriented(turn)
        nibabel.save(turned, tmp_path / f"{code}.nii.gz")
        mask = nibabel.Nifti1Image(
            (np.asarray(turned.dataobj) > 50).astype(np.uint8), turned.affine
        )
        nibabel.save(mask, tmp_path / f"{code}_mask.nii.gz")
        items.append({"image": f"{code}.nii.gz", "label": f"{code}_mask.nii.gz"})
    text = json.dumps({"labels": {"0": "a", "1": "b"}, "training": items})
    (tmp_path / "dataset.json").write_text(text)
    for one in sources_decathlon.find(tmp_path / "dataset.json").cases:
        element = sources_decathlon.load(one)
        assert np.array_equal(element["image"], voxels.transpose())
        assert np.array_equal(element["mask"], voxels.transpose() > 50)
        assert element["spacing"] == pytest.approx((3, 2, 1))
        assert ("notes" in element) == ("LPS" not in one.name)


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_a_series_is_turned_alike_whichever_way_it_was_cut(tmp_path, plane):
    patient = torso(3, shape=(12, 30, 32)).volume
    dicom_series(patient, tmp_path, orientation=plane, seed=3)
    (one,) = dicom.find(tmp_path).cases
    element = dicom.load(one)
    assert np.array_equal(element["image"], patient.voxels)
    assert element["spacing"] == pytest.approx(patient.spacing)
