"""The benchmark of reading asks fairly and sees wrong voxels; nothing is timed here."""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from helpers import records

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import _checks
import _tuning_epochs
import _tuning_floor
import _tuning_inputs
import _tuning_parts
import _tuning_picture
import reading
from _checks import Watch, check_batches, check_drawn, check_stored
from _harness import compare
from _servers import checksum
from _tuning_inputs import COUNTS, make, make_job, work_of, write_counted
from _tuning_loads import Loads
from _tuning_parts import ALONE, COUNTED, EPOCHS, MEMORY, NIFTI, OURS, RECORDS, Part, Row
from _workload import arrays

BENCHMARKS = Path(reading.__file__).parent
SIZE = {"head": (14, 26, 22), "crop": (8, 16, 14)}


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> dict:
    data, scratch = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("scratch")
    tiny = make_job(True, scratch) | {"listed": 1, "patch": (6, 8, 8), "record": (2, 4, 4)}
    made = tiny | make(SIZE, tiny, data, scratch)
    write_counted(made)
    return made


def box(start, size) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


def run_of(row: Row, job: dict):
    """What a worker would prepare, here in this process."""
    module = __import__(row.file.removesuffix(".py"))
    return module.contenders(job | {"style": row.style})[row.contender]()


# The input


def test_all_forms_of_the_input_hold_the_same_voxels(job):
    assert json.loads(json.dumps(job)).keys() == job.keys()
    volumes, stored = arrays(job["volumes"]), arrays(job["stored"])
    read, whole = (
        {bytes(x["case"]).decode(): x for x in records.read(job[name]).as_numpy_iterator()}
        for name in ("records", "whole")
    )
    assert len(read) == len(whole) == len(volumes) == len(stored) == 5
    for number, subject in enumerate(work_of(job).subjects):
        # By nibabel, which has the axes as [x, y, z].
        image = np.asarray(nibabel.load(subject.path).dataobj).transpose()
        part = image[box(subject.start, job["crop"])]
        assert volumes[number].dtype == stored[number].dtype == np.int16
        assert np.array_equal(volumes[number], image) and np.array_equal(stored[number], part)
        assert np.array_equal(read[subject.case]["image"][..., 0], part)
        assert np.array_equal(whole[subject.case]["image"][..., 0], image)
        values = image.astype(np.float32)
        white = ((values - values.mean()) / values.std())[box(subject.start, job["crop"])]
        assert np.allclose(_checks.stored(job, True)[number], white, atol=1e-5)


# The contenders


def test_each_contender_of_this_environment_gives_what_is_asked(job):
    tried = 0
    for part in _tuning_parts.ORDER:
        for name, row in part.rows.items():
            if row.among_peers:  # they cannot be imported here
                assert f'"{row.contender}": ' in (BENCHMARKS / row.file).read_text(), name
            if row.among_peers or part.letter in "DF":  # which have tests of their own
                continue
            run, watch = run_of(row, job), Watch(name, row.kind, job)
            for _ in range(2):
                items = [tuple(field.copy() for field in item) for item in run(4)]
                _checks.look(row.kind, name, [item[0] for item in items], job)
                watch.check([checksum(item) for item in items], 4)
            tried += 1
    assert tried == 27


def test_pictures_are_read_bit_for_bit(job, tmp_path, monkeypatch):
    told = make({"pictures": 64, "side": 12, "items": 2}, job, tmp_path, tmp_path / "scratch")
    few = job | told
    for part in _tuning_parts.pictures():
        for name, row in part.rows.items():
            assert (row.items + 2 * row.ends) % (2 * row.items) == 0  # whole epochs
            items = [(item[0].copy(),) for item in run_of(row, few)(4)]
            _checks.look(row.kind, name, [item[0] for item in items[:2]], few)
            Watch(name, row.kind, few).check([checksum(item) for item in items], 4)
    assert [one.elements for one in _tuning_parts.pictures()] == [32, 32]


def test_an_epoch_of_records_reads_each_of_them(job):
    for count, kind in itertools.product(COUNTS[:2], ("mapped", "streamed")):
        folder = Path(job["counted"], str(count))
        read = {bytes(x["image"]) for x in records.read(folder).as_numpy_iterator()}
        run = run_of(Row(OURS, f"{count}, {kind}"), job)
        found = [one.astype(np.int16) for (batch,) in run(count // 10) for one in batch]
        assert len(found) == count and {bytes(one) for one in found} == read


def test_epochs_swap_as_often_as_they_begin_and_only_where_something_is_replaced(job):
    import _tuning_smart

    _tuning_smart.exchanges.clear()
    told = job | {"steps": 3, "cached": 4}
    plain, smart = _tuning_smart.epochs(told, 0.0), _tuning_smart.epochs(told, 0.25)
    assert len(list(plain(6))) == 6 and not _tuning_smart.exchanges
    losses = [float(loss) for (loss,) in smart(6)]
    assert len(losses) == 6 and np.isfinite(losses).all()
    assert len(_tuning_smart.exchanges) == 2 and (np.array(_tuning_smart.exchanges) >= 0).all()


def test_waiting_for_loads_ends_when_they_are_done(monkeypatch):
    loads = Loads()
    assert loads({"image": 1}) == {"image": 1}
    loads.wait_for(1)
    monkeypatch.setattr("_tuning_loads.AT_MOST_S", 0.0)
    with pytest.raises(TimeoutError, match="1 of 2"):
        loads.wait_for(2)


# The checks


def test_boxes_of_the_volumes_pass_in_every_layout_and_nothing_else(job):
    volumes = arrays(job["volumes"])

    def drawn(starts, of=range(5)) -> np.ndarray:
        pairs = zip(of, starts, strict=True)
        parts = [volumes[i][box(start, job["crop"])] for i, start in pairs]
        return np.stack(parts).astype(np.float32)

    batch = drawn([(0, 0, 0), (6, 10, 8), (1, 2, 3), (4, 5, 6), (2, 0, 7)])
    for laid in (batch, batch[..., None], batch[:, None], batch.transpose(0, 3, 2, 1)[:, None]):
        check_drawn("them", [laid], job)
    wrong = batch.copy()
    wrong[3, 2, 2, 2] += 1
    one_volume = drawn([(i, 1, 1) for i in range(5)], of=[2] * 5)
    for check, given, words in (
        (check_drawn, wrong, "crop 3, which is no box"),
        (check_drawn, batch[:, ::-1], "crop 0, which is no box"),
        (check_drawn, batch.astype(np.float64), "gives float64"),
        (check_batches, batch[:, 1:], r"gives \(5, 7, 16, 14\)"),
        (check_drawn, one_volume, "one volume only, of 5"),
        (check_drawn, drawn([(1, 1, 1)] * 5), "at 1 places only"),
    ):
        with pytest.raises(SystemExit, match=words):
            check("them", [given], job)


def test_stored_crops_must_all_be_there_to_the_bit_and_equally_often(job):
    work = work_of(job)
    batch = np.stack(arrays(job["stored"])).astype(np.float32)
    white = np.stack([work.whitened(one, one.start) for one in work.subjects])
    check_stored("them", [batch[::-1]], job, whitened=False)
    check_stored("them", [white], job, whitened=True)
    doubled, off = batch.copy(), batch.copy()
    doubled[1], off[0, 0, 0, 0] = doubled[0], off[0, 0, 0, 0] + 1
    for wrong, whitened in ((doubled, False), (batch, True), (np.nextafter(white, 9), True)):
        with pytest.raises(SystemExit, match="not those of the workload"):
            check_stored("them", [wrong.astype(np.float32)], job, whitened)
    good, watch = checksum((batch,)), Watch("them", "stored", job)
    watch.check([good, checksum((batch[::-1].copy(),))], 2)
    with pytest.raises(SystemExit, match="not those"):
        watch.check([good, checksum((off,))], 2)
    with pytest.raises(ValueError, match="no whole number of epochs"):
        Watch("them", "stored", job | {"subjects": 10}).check([good], 1)


def test_a_thin_look_tells_batches_apart():
    batch = np.arange(5 * 4 * 6 * 6, dtype=np.float32).reshape(5, 4, 6, 6)
    seen = _tuning_floor.thin(batch)
    assert seen.size < batch.size and checksum((seen,)) != checksum((_tuning_floor.thin(-batch),))
    assert not np.shares_memory(seen, batch)


# The parts and reports


def test_sizes_have_names_of_their_own_and_a_quick_run_has_one(job):
    made = _tuning_parts.parts(quick=False)
    words = {"batch": 5, "crop": "1x2", "record": "", "counted": ""}
    names = [(one.letter, one.name.format(**words), str(one.told)) for one in made]
    assert len({*names}) == len(names)
    small = [one for one in made if one.size == "small"]
    assert {one.letter for one in small} == {"A", "B", "G"}
    assert all(one.unit == "ms a batch" and "crop" in one.name for one in small)
    assert all(not row.spared for one in small for row in one.rows.values())
    assert {one.size for one in _tuning_parts.parts(quick=True)} == {"usual"}
    for one in made:
        assert one.ours in one.rows and all({*asked.rows} for asked in one.asked)
    assert _tuning_inputs.SIZES["usual"]["crop"] == (128, 224, 224)


def test_what_is_worked_out_from_the_times_is_right(capsys):
    times = {"1,000 records": [500 + 1000 * 0.3], "100 records": [500 + 30.0], "10 records": [503]}
    (entry,) = reading.report_growth(COUNTED[0], times)  # free of what an epoch costs
    assert entry["name"] == "a record more, 100 to 1,000, mapped"
    assert (entry["value"], entry["against_value"], entry["ratio"]) == (0.3, 0.3, 1.0)
    assert reading.report_growth(COUNTED[0], times | {"100 records": [503.0]}) == []
    recorded = dataclasses.replace(_tuning_parts.RECORDED, elements=5)
    reading.say_the_price(recorded, {"recorded": [21.0], "not recorded": [20.0]})
    assert "recording adds 5.0%, 200 us an element" in capsys.readouterr().out


def test_an_epoch_has_as_many_steps_as_take_twice_as_long_as_loading(capsys):
    class Fake:
        def __init__(self):
            self.job = {"subjects": 5, "listed": 2, "epochs": 3}

        def start(self, rows):
            assert [row.contender for row in rows] == ["calibration"]

        def __getitem__(self, row):
            return self

        def keep(self, name, *_):
            if name == "calibration":
                return [(np.array([0.33, 0.1]),)], 0
            return [(np.array([[0.009, 0.001], [0, 0.002]]),)], 0

    part = _tuning_epochs.calibrated(EPOCHS[0], Fake())
    assert part.told == {"steps": 14, "cached": 8, "replace_rate": 0.25}  # 2 x 2 x 330 ms of 100
    assert {(row.items, row.units) for row in part.rows.values()} == {(42, 3)}
    (entry,) = _tuning_epochs.report_exchanges(part, Fake())
    assert (entry["value"], entry["against_value"], entry["ratio"]) == (2.0, 50, 25.0)
    assert "waited 4.5 ms (at most 9.0)" in capsys.readouterr().out


def entries_of(*parts: Part) -> list[dict]:
    made = []
    for part in parts:
        times = {name: [10.0 + number] for number, name in enumerate(part.rows)}
        made += compare(part.name, times, part.ours)
    return made


def test_the_picture_has_a_dot_for_each_row_and_the_floor(tmp_path):
    run = entries_of(MEMORY, ALONE, RECORDS)
    times = _tuning_picture.batches(run, RECORDS.name)
    assert times == {name: 10.0 + number for number, name in enumerate(RECORDS.rows)}
    (ax,) = _tuning_picture.figure(run).axes
    headings = set(_tuning_picture.GROUPS.values())
    rows = {
        label.get_text(): y for label, y in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)
    }
    names = [name for name in rows if name not in headings]
    assert names[0] == "crops.from_memory" and "records, mapped" in names
    assert not [name for name in names if name.startswith("floor") or "workers" in name]
    lines = [line.get_data() for line in ax.lines if len(line.get_xdata()) == 1]
    dots = {y[0]: x[0] for x, y in lines}
    times = _tuning_picture.batches(run, MEMORY.name) | times
    assert [dots[rows[name]] for name in names] == [times[name] for name in names]
    for drawn, floors in ((run, ["floor: 27", "floor: 20"]), (entries_of(MEMORY, NIFTI), None)):
        (ax,) = _tuning_picture.figure(drawn).axes
        said = [text.get_text() for text in ax.texts if text.get_text().startswith("floor")]
        assert said == (floors or ["floor: 27"] * 2)
    file = tmp_path / "new" / "p.png"
    _tuning_picture.write(file, run)
    with Image.open(file) as picture:
        assert picture.text["comparisons"] == _tuning_picture.digest(run)
    assert file.stat().st_size <= 80_000
    with pytest.raises(ValueError, match="A, B or C"):
        _tuning_picture.write(file, [])
