"""The contenders of the records benchmark read the same voxels; nothing is timed here."""

import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from _reading import CONTENDERS, OURS, SMALL, checksums, expected_of_drawn, measure
from _workload import picture_workload, reading_workload
from records import write_crops

VOLUME, CROP = (14, 26, 22), (8, 16, 14)
ALONE = "float_list, TF1 session"  # it switches its whole process to graphs


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_each_pipeline_gives_every_example_bit_for_bit(tmp_path):
    heads = reading_workload(tmp_path / "data", 5, VOLUME, CROP)
    for one in heads.subjects:  # by nibabel, which has the axes as [x, y, z]
        voxels = np.asarray(nibabel.load(one.path).dataobj).transpose().astype(np.float32)
        inside = tuple(slice(a, a + n) for a, n in zip(one.start, CROP, strict=True))
        part = ((voxels - voxels.mean()) / voxels.std())[inside]
        assert zlib.crc32(np.ascontiguousarray(part)) == one.crc
    stored = [name for name, one in CONTENDERS.items() if one.crops == "stored" and name != ALONE]
    pictures = picture_workload(tmp_path / "data", 64, 12)
    for work, name in [(heads, name) for name in stored] + [(pictures, name) for name in SMALL]:
        folder = tmp_path / f"{len(work.crop)} {CONTENDERS[name].shards}"
        if not folder.exists():
            write_crops(work, folder, CONTENDERS[name].shards)
        next_batch = CONTENDERS[name].start(work, folder)
        batches = [np.asarray(next_batch()) for _ in range(len(work.subjects) // work.batch)]
        found = [(one.shape, one.dtype.name) for one in batches]
        assert {*found} == {((work.batch, *work.crop, 1), "float32")}, name
        crcs = sorted(crc for one in batches for crc in checksums(one))
        assert crcs == sorted({one.crc for one in work.subjects}), name
    np.random.seed(3)
    next_batch = CONTENDERS["generator"].start(heads, None)
    crcs = checksums(next_batch()) + checksums(next_batch())
    assert expected_of_drawn(heads, seed=3, count=10) == crcs and len(set(crcs)) > 5
    write_crops(reading_workload(tmp_path, 5, VOLUME, (8, 16, 13)), tmp_path / "wrong", 1)
    with pytest.raises(SystemExit, match="not the voxels"):
        measure(OURS, heads, tmp_path / "wrong", batches=1)
