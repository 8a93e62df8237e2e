"""The benchmarks ask their workers fairly; that of augmentation sees wrong results."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers.lesson.phantoms import torso

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import _augment_scipy
import _checks
import _contest
import _servers
import augmentation
from _augment_inputs import AMOUNTS, JOB, make
from _checks import Watch, check_crops, check_moved, check_pair, check_with_scipy
from _contest import Part, Row
from _servers import ContenderFailedError, Server, checksum, take_turns, timed

BENCHMARKS = Path(augmentation.__file__).parent
TOYS = """
    import os, subprocess, sys
    import numpy as np

    def fields():
        print("a library's greeting")
        def run(count):
            for i in range(count):
                yield np.full((2, 3), i + job["add"], np.int16), np.arange(i + 1, dtype=np.uint8)
        return run

    def curious():
        def run(count):
            read = subprocess.run([sys.executable, "-c", "input()"], capture_output=True)
            yield (np.array([read.returncode], np.uint64),)
        return run

    def failing():
        raise RuntimeError("no such transform")

    def dying():
        print("out of memory, say", file=sys.stderr)
        sys.stderr.flush()
        os._exit(3)

    def contenders(given):
        global job
        job = given
        return {f.__name__: f for f in (fields, curious, failing, dying)}
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("toys") / "toys.py"
    path.write_text(textwrap.dedent(TOYS))
    return path


# Workers


def test_a_worker_answers_with_items_times_and_errors_and_lives_on(toys):
    with Server(sys.executable, toys, {"add": 0}) as server:
        one = server.run("fields", 1, lead=1, trail=1)
        # Six int16 are one 64-bit integer and four bytes more.
        four = [0x0001_0001_0001_0001 * i + 2 * i for i in range(3)]
        assert one.checksums == [x + sum(range(i + 1)) for i, x in enumerate(four)]
        assert one.seconds > 0 and one.first_s > 0
        items, _ = server.keep("fields", 2, {"add": 7})  # another job from now on
        assert [image.tolist() for image, _ in items] == [[[7] * 3] * 2, [[8] * 3] * 2]
        assert [mask.tolist() for _, mask in items] == [[0], [0, 1]]
        assert server.run("curious", 1).checksums == [1]  # it met the end of its input
        with pytest.raises(ContenderFailedError, match=r"failing: (?s:.*)no such transform"):
            server.run("failing", 1)
        with pytest.raises(ContenderFailedError, match="KeyError: 'unheard of'"):
            server.run("unheard of", 1)
        with pytest.raises(ContenderFailedError, match=r"exit code 3(?s:.*)out of memory, say"):
            server.run("dying", 1)
    assert server.process.returncode == 3


def test_a_worker_ends_with_its_parent_even_if_that_is_killed(toys):
    parent = f"""if True:
        import os, sys
        sys.path.append({str(BENCHMARKS)!r})
        from _servers import Server
        server = Server(sys.executable, {str(toys)!r}, {{"add": 0}})
        server.run("fields", 1)
        print(server.process.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True)
    pid = int(done.stdout)
    if psutil.pid_exists(pid):
        gone, _ = psutil.wait_procs([psutil.Process(pid)], timeout=300)
        assert gone


def test_each_round_begins_with_another_contender_and_all_have_their_turn():
    order = []
    contenders = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    times = take_turns(contenders, 4, lambda: None)
    assert "".join(order) == "abcbcacababc"
    assert times == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.data())
def test_a_checksum_sees_every_byte(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    dtype = data.draw(st.sampled_from([np.uint8, np.int16, np.float32]))
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    other = array.copy()
    other[tuple(data.draw(st.integers(0, n - 1)) for n in shape)] += 1
    assert checksum((array,)) != checksum((other,))
    assert checksum((array, other)) == (checksum((array,)) + checksum((other,))) % 2**64
    assert checksum((np.asfortranarray(array),)) == checksum((array,))


def test_the_clock_runs_for_the_items_in_the_middle_only(monkeypatch):
    """Item i takes 10**i seconds: the digits of the time say which items are in it."""
    now = [0.0]

    def run(total):
        for number in range(total):
            now[0] += 10**number
            yield (np.full(8, number, np.uint8),)

    monkeypatch.setattr(_servers.time, "perf_counter", lambda: now[0])
    for count, lead, trail, seconds in ((1, 0, 0, 1), (2, 1, 0, 110), (2, 2, 3, 1100)):
        one = timed(run, count, lead, trail)
        assert (one.seconds, one.first_s, len(one.checksums)) == (seconds, 1, count + lead + trail)
    with pytest.raises(ValueError, match="are not timed"):
        timed(run, 0, 1, 1)


def test_a_pass_takes_about_as_long_for_everybody():
    fixed, alone = Row("a.py", "x", items=6, ends=2), Row("a.py", "x", least=1)
    plain, ours, whole = Row("a.py", "x"), Row("ours.py", "x"), Row("a.py", "x", whole=True)
    table = [
        (plain, 0.01, (30, 4, 4)),  # an item, of 0.3 s: 30, and what is made ahead is not timed
        (plain, 0.0001, (400, 4, 4)),
        (whole, 0.01, (30, 0, 0)),
        (plain, 0.2, (2, 1, 1)),
        (plain, 2.0, (2, 0, 0)),
        (ours, 2.0, (2, 1, 1)),
        (alone, 2.0, (1, 0, 0)),
        (fixed, 0.01, (6, 2, 2)),
    ]
    for row, each_s, expected in table:
        made = _contest.extent(row, each_s, lambda count, *_, s=each_s: count * s, 0.3)
        assert made == expected, (row, each_s)


# What contenders make


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    patient = torso(0, shape=(48, 56, 64))
    return patient.volume.voxels, patient.organs


@pytest.fixture(scope="module")
def drawn(pair) -> _augment_scipy.Draw:
    return _augment_scipy.draw(np.random.default_rng(3), AMOUNTS, pair[0].shape)


@pytest.fixture(scope="module")
def places(pair, drawn) -> np.ndarray:
    at = _augment_scipy.positions(drawn, pair[0].shape)
    return np.stack([np.clip(p, 0, n - 1) for p, n in zip(at, pair[0].shape, strict=True)])


@pytest.fixture(scope="module")
def warped(pair, drawn) -> tuple[np.ndarray, np.ndarray]:
    return _augment_scipy.elastic(*pair, drawn)


def test_scipy_passes_all_checks_and_simpleitk_agrees(pair, drawn, warped, places):
    check_pair("SciPy", pair, warped)
    check_moved("SciPy", [(pair, warped)])
    check_with_scipy("SciPy", pair, warped, places)
    still = drawn._replace(control=np.zeros_like(drawn.control))
    at = _augment_scipy.positions(still, pair[0].shape)
    inside = np.stack([np.clip(p, 0, n - 1) for p, n in zip(at, pair[0].shape, strict=True)])
    check_with_scipy("SciPy", pair, _augment_scipy.affine(*pair, drawn), inside)
    image, mask = _augment_scipy.simpleitk(*pair, drawn)
    at = _augment_scipy.positions(drawn, pair[0].shape)
    inside = np.all([(p > 0) & (p < n - 1) for p, n in zip(at, pair[0].shape, strict=True)], 0)
    difference = np.abs(image - warped[0])[inside] / np.ptp(pair[0])
    # Its grid is wider than the image by a little, on purpose: positions differ by hundredths.
    assert inside.mean() > 0.5 and np.quantile(difference, 0.99) < 0.01
    assert np.mean((mask != warped[1])[inside]) < 0.01


def refused(check, *arguments) -> str:
    """What a check says that ends the run."""
    try:
        check("them", *arguments)
    except SystemExit as end:
        return str(end)
    return "nothing"


def test_work_that_was_not_done_ends_the_run(pair, warped, places):
    image, mask = warped
    same = (pair[0].astype(np.float32), pair[1])
    linear = ndimage.map_coordinates(pair[1].astype(np.float32), places, order=1)
    cubic = ndimage.map_coordinates(pair[0], places, np.float32, order=3, mode="nearest")
    wrong, off, halves = mask.copy(), places.copy(), np.indices(pair[0].shape) * 0.999
    wrong[10, 20, 30] += 1
    off[1] = np.clip(off[1] + 0.01, 0, 55)
    halves[0] = 0.5
    between = ndimage.map_coordinates(pair[0].astype(float), halves, order=1)
    broken = [
        ((image, mask[:, :, ::-1]), "different ways"),
        ((image, np.roll(mask, 12, 1)), "different ways"),
        ((image[::-1], mask), "different ways"),
        ((image, np.where(mask == 5, 77, mask)), "invents classes: [77.0]"),
        ((image, linear), "invents classes"),
        ((np.where(mask == 5, np.nan, image), mask), "not finite"),
        ((image * 2, mask), "gives"),
        ((image[1:], mask[1:]), "for (48, 56, 64)"),
        ((image, mask * 0), "lost the classes"),
    ]
    table = [(check_pair, (pair, after), words) for after, words in broken]
    table += [
        (check_moved, ([(pair, same)],), "moved 0 of 1"),
        (check_moved, ([(pair, same), (pair, warped)],), "moved 1 of 2"),
        (check_moved, ([(pair, (same[0] + 1.0, pair[1]))],), "moved 0 of 1"),
        (check_with_scipy, (pair, warped, off), "differs from SciPy by"),
        (check_with_scipy, (pair, (cubic, mask), places), "differs from SciPy by"),
        (check_with_scipy, (pair, (image, wrong), places), "1 voxels of the mask"),
        (check_with_scipy, (pair, (between, pair[1]), halves), "between two voxels"),
    ]
    said = [(refused(check, *given), words) for check, given, words in table]
    assert [one for one in said if one[1] not in one[0]] == []


def test_crops_are_found_where_they_were_cut_and_nowhere_else(pair):
    boxes = [(0, 0, 0), (17, 3, 31), (28, 32, 36)]
    cut = [tuple(slice(a, a + n) for a, n in zip(s, (20, 24, 28), strict=True)) for s in boxes]
    crops = [np.stack([field[box] for box in cut]) for field in pair]
    other = tuple(field[::-1] for field in pair)
    assert check_crops("NumPy", [other, pair], crops) == boxes
    flat = [field[20] for field in pair]
    assert check_crops("NumPy", [flat], [one[None, 7:31, 9:37] for one in flat]) == [(7, 9)]
    image, mask = crops
    wrong = image.copy()
    wrong[0, 3, 4, 5] += 1
    small = tuple(field[:10] for field in pair)
    for sources, found in (
        ([pair], [wrong, mask]),
        ([pair], [image[:, :, ::-1], mask[:, :, ::-1]]),
        ([pair], [image[:1], mask[1:2]]),
        ([small], [image, mask]),
    ):
        assert "crop 0, which is no box" in refused(check_crops, sources, found)


def test_a_pass_with_too_few_items_or_with_old_ones_ends_the_run():
    watch = Watch("them", "drawn", {})
    watch.check([1, 2], 2)
    watch.check([3, 4], 2)
    for sums, words in (([5], "1 items of 2"), ([6, 2], "draw anew"), ([7, 7], "draw anew")):
        with pytest.raises(SystemExit, match=words):
            watch.check(sums, 2)
    Watch("them", "", {}).check([7, 7], 2)


# The parts


class Here:
    """Workers of this environment, in this process."""

    def __init__(self, job):
        self.job, self.made = job, {}

    def start(self, rows):
        pass

    def __getitem__(self, row):
        self.row = row
        return self

    def keep(self, name, count, told):
        module = __import__(self.row.file.removesuffix(".py"))
        job = {**self.job, **told, "style": self.row.style}
        return [*module.contenders(job)[name]()(count)], 0.0


TOLD = ({"edge": 32}, {"picture": 64}, {"whole": (40, 44, 48), "crop": (16, 16, 16)},
        {"whole": (40, 44), "crop": (16, 16)})  # fmt: skip


def test_each_contender_of_this_environment_does_what_its_row_says(tmp_path, monkeypatch):
    monkeypatch.setattr(_checks, "LARGE_CLASS", 0.02)  # small images: a median of few voxels
    workers, seen = Here(JOB), set()
    for part in augmentation.parts(quick=False):
        told = next(one for one in TOLD if {*one} == {*part.told} and (
            "whole" not in one or len(one["whole"]) == len(part.told["whole"])))  # fmt: skip
        if part.size != "usual":
            continue
        part = part.at("usual", make(told, tmp_path, quick=True), quick=False)
        look = augmentation.looker(part, workers)
        for name, row in part.rows.items():
            if not row.among_peers:
                items, _ = workers[row].keep(row.contender, 2, part.told)
                look(name, row, items)
                seen.add(row.contender)
                if row.contender == "elastic" and row.file == augmentation.OURS:
                    turned = [(image[:, ::-1], mask) for image, mask in items]
                    with pytest.raises(SystemExit, match="stage"):
                        look(name, row, turned)
            else:  # they cannot be imported here
                assert f'"{row.contender}": ' in (BENCHMARKS / row.file).read_text()
    assert len(seen) == 16


def test_a_report_has_medians_ratios_and_who_is_missing(capsys):
    rows = {name: Row("a.py", name, everywhere=True) for name in ("ours", "MONAI", "x", "gone")}
    asked = (_contest.Asked(3, ("MONAI",), "MONAI"), _contest.Asked(1, ("x", "MONAI"), "the best"))
    part = Part("B", "B. {edge}", "affine, {edge} cubed", rows, asked, elements=2)
    small, usual = _contest.at_sizes(part, {"small": {"edge": 48}, "usual": {"edge": 9}}, False)
    times = _contest.Times(
        {"ours": [9.0, 10.0, 12.0], "MONAI": [40.0, 35.0, 50.0], "x": [5.0] * 3},
        {"ours": [75.0], "MONAI": [8.0], "x": [1.0]},
    )
    entries = _contest.report(small, times, {})
    made = {"name": "affine, 48 cubed", "value": 10.0, "unit": "ms a batch"}
    assert entries == [
        {**made, "against": "MONAI", "against_value": 40.0, "ratio": 4.0},
        {**made, "against": "x", "against_value": 5.0, "ratio": 0.5},
    ]
    assert {one["unit"] for one in _contest.report(usual, times, {})} == {"ms"}
    printed = capsys.readouterr().out
    (line,) = {" ".join(x.split()) for x in printed.splitlines() if x.startswith("  MONAI")}
    assert line == "MONAI 40 35 to 50 4.00 x 20,000 8"
    assert "at least 3 x MONAI; came out: 4.00 x (MONAI)" in printed
    assert "at least 1 x the best; came out: 0.50 x (x)" in printed
    assert printed.count("not installed") == 2
    assert _contest.report(usual, _contest.Times({}, {}), {}) == []


@pytest.mark.parametrize(
    "script, part, count",
    [("augmentation", "B", 3), ("reading", "G", 1), ("segmentation", "C", 2), ("records", "A", 2)],
)
def test_a_quick_run_without_peers_ends_well_and_writes_its_rows(
    script, part, count, tmp_path, monkeypatch, capsys
):
    file, options = tmp_path / "out.json", ["--quick", "--parts", part, "--data-dir", tmp_path]
    if script == "records":
        options += ["--repeats", "1"]
    else:
        options += ["--rounds", "1", "--peers", tmp_path / "none"]
    monkeypatch.setattr(sys, "argv", [script, *map(str, options), "--json", str(file)])
    __import__(script).main()
    assert script == "records" or "none is missing" in capsys.readouterr().out
    entries = json.loads(file.read_text())
    assert len(entries) == count
    for row in entries:
        assert [*row] == ["name", "value", "unit", "against", "against_value", "ratio"]
        assert row["ratio"] == pytest.approx(row["against_value"] / row["value"], rel=0.05)
