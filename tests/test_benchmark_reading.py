"""The benchmark of reading asks fairly and sees wrong voxels; nothing is timed here."""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import records

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import _servers
import _tuning_checks
import _tuning_epochs
import _tuning_floor
import _tuning_picture
import reading
from _harness import compare
from _servers import checksum, timed
from _tuning_checks import WholeEpochs, check_batches, check_drawn, check_stored
from _tuning_inputs import QUICK, Sizes, arrays, make_job, work_of, write_counted
from _tuning_loads import Loads
from _tuning_parts import (
    ALONE,
    COUNTED,
    EPOCHS,
    FLOOR,
    MEMORY,
    NIFTI,
    PARTS,
    RECORDS,
    Asked,
    Part,
    Row,
)

BENCHMARKS = Path(reading.__file__).parent
TINY = Sizes(
    subjects=5, head=(14, 26, 22), crop=(8, 16, 14), fast=2, medium=2, slow=1, lead=1, trail=1,
    counts=(10, 20), record=(2, 4, 4), patch=(6, 8, 8), listed=1, epochs=2, rounds=2,
)  # fmt: skip
HERE = [
    (part, name)
    for part in PARTS
    for name, row in part.rows.items()
    if not row.among_peers and part.letter not in "DF"  # which have tests of their own
]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> dict:
    made = make_job(TINY, tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("scratch"))
    write_counted(made)
    return made


def image_of(subject) -> np.ndarray:
    """The voxels [z, y, x] by nibabel, which has them as [x, y, z]."""
    return np.asarray(nibabel.load(subject.path).dataobj).transpose()


def box(start, size) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


# The clock


@given(count=st.integers(1, 8), lead=st.integers(0, 4), trail=st.integers(0, 4))
@settings(deadline=None)
def test_the_clock_runs_for_the_items_in_the_middle_only(count, lead, trail):
    """Item i takes 10**i seconds: the digits of the time say which items are in it."""
    now = [0.0]

    def run():
        for number in range(count):
            now[0] += 10**number
            yield (np.full(8, number, np.uint8),)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_servers.time, "perf_counter", lambda: now[0])
        patch.setattr(_servers.gc, "collect", lambda: None)  # takes long beside TensorFlow
        if lead + trail >= count:
            with pytest.raises(ValueError, match="are not timed"):
                timed(run, lead, trail)
            return
        seconds, checksums = timed(run, lead, trail)
    assert seconds == sum(10**number for number in range(lead, count - trail))
    assert checksums == [0x0101010101010101 * number for number in range(count)]


def test_an_epoch_and_whatever_is_made_ahead_are_timed_from_the_beginning():
    words = dataclasses.asdict(TINY)
    assert reading.extent(Row(FLOOR, "memory", pace="slow"), words) == (1, 1, 1)
    assert reading.extent(Row(FLOOR, "memory"), words) == (1, 2, 1)
    assert reading.extent(Row(FLOOR, "memory", records=100), words) == (0, 1, 0)
    assert reading.extent(Row(FLOOR, "memory", whole=True), words) == (0, 4, 0)


# The input


def test_a_job_is_plain_json(job):
    assert json.loads(json.dumps(job)) == {
        key: list(value) if isinstance(value, tuple) else value for key, value in job.items()
    }


def test_all_forms_of_the_input_hold_the_same_voxels(job):
    work = work_of(job)
    volumes, stored = arrays(job["volumes"]), arrays(job["stored"])
    read = {bytes(x["case"]).decode(): x for x in records.read(job["records"]).as_numpy_iterator()}
    whole = {bytes(x["case"]).decode(): x for x in records.read(job["whole"]).as_numpy_iterator()}
    assert len(read) == len(whole) == len(volumes) == len(stored) == 5
    for number, subject in enumerate(work.subjects):
        image = image_of(subject)
        part = image[box(subject.start, work.crop)]
        assert volumes[number].dtype == stored[number].dtype == np.int16
        assert np.array_equal(volumes[number], image) and np.array_equal(stored[number], part)
        assert np.array_equal(read[subject.case]["image"][..., 0], part)
        assert np.array_equal(whole[subject.case]["image"][..., 0], image)
        assert set(np.unique(whole[subject.case]["mask"])) == {0, 1}


def test_counted_sets_have_as_many_records_and_no_two_alike(job):
    for count in job["counts"]:
        found = records.read(Path(job["counted"], str(count))).as_numpy_iterator()
        assert len({bytes(x["image"]) for x in found}) == count


# The contenders


def contender(row: Row, job: dict, batches: int = 2):
    """What a worker would prepare, here in this process."""
    module = __import__(row.file.removesuffix(".py"))
    return module.contenders(job | {"style": row.style, "batches": batches})[row.contender]()


@pytest.mark.parametrize("part, name", HERE, ids=lambda x: x if isinstance(x, str) else x.letter)
def test_each_contender_of_this_environment_gives_what_is_asked(part, name, job):
    row = part.rows[name]
    run = contender(row, job)
    watch = _tuning_checks.watch(row.kind, name, 4, job) if "stored" not in row.kind else None
    for _ in range(2):
        items = [tuple(field.copy() for field in item) for item in run()]
        assert len(items) == 4
        batches = [item[0] for item in items]
        if row.kind not in ("", "thin"):
            _tuning_checks.look(row.kind, name, batches, job)
        if watch:
            watch.check([checksum(item) for item in items])
        else:
            WholeEpochs(name, 4, job, "white" in row.kind).check([checksum(x) for x in items])


@pytest.mark.parametrize("threads", ["plain", "2 threads"])
def test_the_floor_draws_every_start_and_every_volume(threads, job):
    run = contender(Row(FLOOR, "memory", threads), job, batches=60)
    volumes, seen = arrays(job["volumes"]), set()
    for (batch,) in run():
        for number, example in enumerate(batch):
            seen |= {(number, place) for place in _places(volumes[number], example)}
    room = np.subtract(job["head"], job["crop"]) + 1
    assert {number for number, _ in seen} == set(range(5))
    for axis, length in enumerate(room):
        assert {place[axis] for _, place in seen} == set(range(length))


def _places(volume, example) -> list[tuple[int, ...]]:
    room = np.subtract(volume.shape, example.shape) + 1
    starts = itertools.product(*map(range, room))
    return [at for at in starts if np.array_equal(volume[box(at, example.shape)], example)]


@pytest.mark.parametrize("kind", ["mapped", "streamed"])
def test_an_epoch_of_records_reads_each_of_them(kind, job):
    for count in job["counts"]:
        run = contender(Row("_tuning_ours.py", f"{count}, {kind}"), job)
        read = {bytes(x["image"]) for x in records.read(Path(job["counted"], str(count)))
                .map(lambda x: {"image": x["image"]}).as_numpy_iterator()}  # fmt: skip
        for _ in range(2):
            found = [one.astype(np.int16) for (batch,) in run() for one in batch]
            assert len(found) == count and {bytes(one) for one in found} == read


def test_epochs_swap_as_often_as_they_begin_and_only_where_something_is_replaced(job):
    import _tuning_smart

    _tuning_smart.exchanges.clear()
    told = job | {"steps": 3, "cached": 4}
    plain, smart = _tuning_smart.epochs(told, 0.0), _tuning_smart.epochs(told, 0.25)
    assert len(list(plain())) == 3 * job["epochs"] and not _tuning_smart.exchanges
    for turn in (1, 2):
        losses = [float(loss) for (loss,) in smart()]
        assert len(losses) == 3 * job["epochs"] and np.isfinite(losses).all()
        assert len(_tuning_smart.exchanges) == turn * job["epochs"]
    assert (np.array(_tuning_smart.exchanges) >= 0).all()


def test_waiting_for_loads_ends_when_they_are_done(monkeypatch):
    loads = Loads()
    assert loads({"image": 1}) == {"image": 1}
    loads.wait_for(1)
    monkeypatch.setattr("_tuning_loads.AT_MOST_S", 0.0)
    with pytest.raises(TimeoutError, match="1 of 2"):
        loads.wait_for(2)


def test_every_row_asks_for_a_contender_that_there_is(job):
    for part in PARTS:
        assert not next(iter(part.rows.values())).spared
        for name, row in part.rows.items():
            text = (BENCHMARKS / row.file).read_text()
            assert f'"{row.contender}": ' in text or part.letter == "F", name
            assert row.pace in ("fast", "medium", "slow")
        for asked in part.asked:
            assert set(asked.rows) <= set(part.rows) - {part.ours}


def test_sizes_end_with_whole_epochs_and_whole_fillings_of_a_queue():
    for sizes in (Sizes(), QUICK, TINY):
        for batches in (sizes.fast, sizes.medium, sizes.slow):
            total = sizes.lead + batches + sizes.trail
            assert 5 * total % sizes.subjects == 0
    for sizes in (Sizes(), QUICK):
        assert {n % 2 for n in (sizes.lead, sizes.fast, sizes.medium, sizes.slow)} == {0}


# The checks


def drawn(job, starts) -> np.ndarray:
    """A batch [5, z, y, x] of float32, by hand."""
    volumes = arrays(job["volumes"])
    parts = [volumes[i][box(start, job["crop"])] for i, start in enumerate(starts)]
    return np.stack(parts).astype(np.float32)


def test_boxes_of_the_volumes_pass_in_every_layout(job):
    batch = drawn(job, [(0, 0, 0), (6, 10, 8), (1, 2, 3), (4, 5, 6), (2, 0, 7)])
    for laid in (batch, batch[..., None], batch[:, None], batch.transpose(0, 3, 2, 1)[:, None]):
        check_drawn("them", [laid], job)


def test_other_voxels_types_and_shapes_are_refused(job):
    batch = drawn(job, [(0, 0, 0), (6, 10, 8), (1, 2, 3), (4, 5, 6), (2, 0, 7)])
    wrong = batch.copy()
    wrong[3, 2, 2, 2] += 1
    with pytest.raises(SystemExit, match="crop 3 is no box"):
        check_drawn("them", [wrong], job)
    with pytest.raises(SystemExit, match="crop 0 is no box"):
        check_drawn("them", [batch[:, ::-1]], job)
    with pytest.raises(SystemExit, match="gives float64"):
        check_drawn("them", [batch.astype(np.float64)], job)
    with pytest.raises(SystemExit, match=r"gives \(5, 7, 16, 14\)"):
        check_batches("them", [batch[:, 1:]], job)
    third = arrays(job["volumes"])[2]
    one_volume = np.stack([third[box((i, 1, 1), job["crop"])] for i in range(5)])
    with pytest.raises(SystemExit, match="one volume only, of 5"):
        check_drawn("them", [one_volume.astype(np.float32)], job)
    with pytest.raises(SystemExit, match="at 1 places only"):
        check_drawn("them", [drawn(job, [(1, 1, 1)] * 5)], job)


def test_stored_crops_must_all_be_there_to_the_bit(job):
    work = work_of(job)
    batch = np.stack(arrays(job["stored"])).astype(np.float32)
    white = np.stack([work.whitened(one, one.start) for one in work.subjects])
    check_stored("them", [batch[::-1]], job, whitened=False)
    check_stored("them", [white], job, whitened=True)
    doubled = batch.copy()
    doubled[1] = doubled[0]
    for wrong, whitened in ((doubled, False), (batch, True), (np.nextafter(white, 9), True)):
        with pytest.raises(SystemExit, match="not the voxels of the workload"):
            check_stored("them", [wrong.astype(np.float32)], job, whitened)


def test_sums_over_a_pass_are_those_of_whole_epochs(job):
    batch = np.stack(arrays(job["stored"])).astype(np.float32)
    good = checksum((batch,))
    watch = WholeEpochs("them", 2, job, whitened=False)
    watch.check([good, checksum((batch[::-1].copy(),))])
    wrong = batch.copy()
    wrong[0, 0, 0, 0] += 1
    with pytest.raises(SystemExit, match="not the voxels"):
        watch.check([good, checksum((wrong,))])
    with pytest.raises(SystemExit, match="1 batches of 2"):
        watch.check([good])
    with pytest.raises(ValueError, match="no whole number of epochs"):
        WholeEpochs("them", 1, job | {"subjects": 10}, whitened=False)


def test_a_thin_look_tells_batches_apart():
    batch = np.arange(5 * 4 * 6 * 6, dtype=np.float32).reshape(5, 4, 6, 6)
    seen = _tuning_floor.thin(batch)
    assert seen.size < batch.size and checksum((seen,)) != checksum((_tuning_floor.thin(-batch),))
    assert not np.shares_memory(seen, batch)


# The reports


def test_a_report_says_what_was_asked_and_what_came_out(capsys):
    rows = {"ours": Row(FLOOR, "a"), "x": Row(FLOOR, "b"), "y": Row("_tuning_monai.py", "c")}
    asked = (Asked(4, ("x",), "x"), Asked(1.5, ("x", "y"), "the best"))
    part = Part("A", "A. {batch} x {shape}", "crops", rows, asked, unit="ms a batch")
    words = dataclasses.asdict(TINY) | {"batch": 5}
    entries = reading.report(part, {"ours": [10.0, 9, 11], "x": [55.0], "y": [30.0]}, words)
    assert [(one["against"], one["unit"], one["ratio"]) for one in entries] == [
        ("x", "ms a batch", 5.5), ("y", "ms a batch", 3.0)
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "A. 5 x 8x16x14" in printed
    assert "at least 4 x x; came out: 5.50 x" in printed
    assert "at least 1.5 x the best; came out: 3.00 x (y)" in printed
    assert reading.report(part, {}, words) == []
    assert "not installed" in capsys.readouterr().out


def test_a_record_more_is_free_of_what_an_epoch_costs(capsys):
    part, kind = COUNTED[0], "mapped"
    times = {"1,000 records": [500 + 1000 * 0.3], "100 records": [500 + 30.0], "10 records": [503]}
    (entry,) = reading.report_growth(part, times)
    assert entry["name"] == f"a record more, 100 to 1,000, {kind}"
    assert (entry["value"], entry["against_value"], entry["ratio"]) == (0.3, 0.3, 1.0)
    assert reading.report_growth(part, times | {"100 records": [503.0]}) == []


def test_an_epoch_has_as_many_steps_as_take_twice_as_long_as_loading(capsys):
    class Fake:
        def start(self, rows):
            assert [row.contender for row in rows.values()] == ["calibration"]

        def __getitem__(self, row):
            return self

        def keep(self, name, count):
            return [(np.array([0.33, 0.1]),)]

    told = _tuning_epochs.calibrated(Row("a.py", "smart cache"), Fake(), 8, 0.25)
    assert told == {"steps": 14, "cached": 8, "replace_rate": 0.25}  # 2 x 2 x 330 ms of 100
    part = EPOCHS[0]
    (entry,) = _tuning_epochs.report_exchanges(part, {"SmartCache": np.array([[9, 1.0], [0, 2]])})
    assert (entry["value"], entry["against_value"], entry["ratio"]) == (2.0, 50, 25.0)
    assert "waited 4.5 ms (at most 9.0)" in capsys.readouterr().out


def entries_of(*parts: Part) -> list[dict]:
    made = []
    for part in parts:
        times = {name: [10.0 + number] for number, name in enumerate(part.rows)}
        made += compare(part.name, times, part.ours)
    return made


def test_the_picture_has_a_dot_for_each_row_and_the_floor():
    run = entries_of(MEMORY, ALONE, RECORDS)
    assert _tuning_picture.batches(run, RECORDS.name) == {
        name: 10.0 + number for number, name in enumerate(RECORDS.rows)
    }
    (ax,) = _tuning_picture.figure(run).axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "crops.from_memory" and "records, mapped" in names
    assert not [name for name in names if name.startswith("floor") or "workers" in name]
    dots = {
        line.get_ydata()[0]: line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1
    }
    times = _tuning_picture.batches(run, MEMORY.name) | _tuning_picture.batches(run, RECORDS.name)
    assert [dots[y] for y in ax.get_yticks()] == [times[name] for name in names]
    said = [text.get_text() for text in ax.texts]
    floors = [text for text in said if text.startswith("floor")]
    assert floors == ["floor: 27", "floor: 20"]
    (ax,) = _tuning_picture.figure(entries_of(MEMORY, NIFTI)).axes
    said = [text.get_text() for text in ax.texts]
    assert [text for text in said if text.startswith("floor")] == ["floor: 27"] * 2


def test_the_picture_knows_its_run_and_keeps_its_budget(tmp_path):
    run = entries_of(MEMORY, RECORDS)
    _tuning_picture.write(tmp_path / "new" / "p.png", run)
    file = tmp_path / "new" / "p.png"
    with Image.open(file) as drawn:
        assert drawn.text["comparisons"] == _tuning_picture.digest(run)
    assert file.stat().st_size <= 80_000
    changed = [run[0] | {"value": 9.0}, *run[1:]]
    assert _tuning_picture.digest(changed) != _tuning_picture.digest(run)
    with pytest.raises(ValueError, match="A, B or C"):
        _tuning_picture.write(file, [])


# All of it


@pytest.fixture
def floors_only(monkeypatch):
    """A run that needs no TensorFlow and no peers."""
    rows = {name: row for name, row in MEMORY.rows.items() if row.file == FLOOR}
    part = dataclasses.replace(MEMORY, rows=rows | {"MONAI": Row("_tuning_monai.py", "cache")})
    monkeypatch.setattr(reading, "PARTS", (part,))
    monkeypatch.setattr(reading, "QUICK", dataclasses.replace(TINY, is_quick=True))


def test_a_run_measures_whoever_is_there_and_cleans_up(floors_only, tmp_path, monkeypatch, capsys):
    data, file = tmp_path / "data", tmp_path / "out.json"
    options = ["--quick", "--data-dir", data, "--peers", tmp_path / "none", "--json", file]
    options += ["--picture", tmp_path / "p.png"]
    monkeypatch.setattr(sys, "argv", ["reading.py", *map(str, options)])
    reading.main()
    printed = capsys.readouterr().out
    assert printed.count("not installed") == 1 and "none is missing" in printed
    entries = json.loads(file.read_text())
    assert [one["against"] for one in entries] == ["floor: NumPy, 2 threads", "looking at a batch"]
    assert [one.name for one in data.iterdir()] == ["benchmark_reading_5_8x16x14"]


def test_wrong_voxels_end_a_run(floors_only, tmp_path, monkeypatch):
    monkeypatch.setattr(reading._tuning_checks, "arrays", lambda _: [np.zeros((14, 26, 22))] * 5)
    options = ["--quick", "--data-dir", tmp_path, "--peers", tmp_path / "none"]
    monkeypatch.setattr(sys, "argv", ["reading.py", *map(str, options)])
    with pytest.raises(SystemExit, match="crop 0 is no box"):
        reading.main()
