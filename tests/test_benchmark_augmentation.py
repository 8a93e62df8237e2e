"""The augmentation benchmark asks its workers fairly and sees wrong results; nothing is timed."""

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
from scipy.interpolate import BSpline

from helpers.phantoms import torso

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import _augment_scipy
import augmentation
from _augment_checks import (
    Freshness,
    check_crops,
    check_moved,
    check_pair,
    check_with_scipy,
    picture_pairs,
    volume_pair,
)
from _augment_inputs import AMOUNTS, QUICK, Sizes, load, make_job
from _augment_parts import OURS, PARTS, WORKERS
from _servers import ContenderFailedError, Server, checksum, take_turns, timed

BENCHMARKS = Path(augmentation.__file__).parent
TOYS = """
    import os, subprocess, sys
    import numpy as np

    prepared = []

    def counting():
        prepared.append(1)
        def run():
            print("a library's greeting")
            yield (np.full(3, len(prepared), np.uint64),)
        return run

    def fields():
        def run():
            for i in range(job["count"]):
                yield np.full((2, 3), i, np.int16), np.arange(i + 1, dtype=np.uint8)
        return run

    def curious():
        def run():
            read = subprocess.run([sys.executable, "-c", "input()"], capture_output=True)
            yield (np.array([read.returncode], np.uint64),)
        return run

    def said():
        return lambda: iter([(np.frombuffer(os.environ["SAID"].encode(), np.uint8),)])

    def failing():
        raise RuntimeError("no such transform")

    def dying():
        print("out of memory, say", file=sys.stderr)
        sys.stderr.flush()
        os._exit(3)

    def objects():
        return lambda: iter([(np.array([{}]),)])

    def contenders(given):
        global job
        job = given
        return {f.__name__: f for f in (counting, fields, curious, said, failing, dying, objects)}
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("toys") / "toys.py"
    path.write_text(textwrap.dedent(TOYS))
    return path


@pytest.fixture
def server(toys):
    with Server(sys.executable, toys, {"count": 3}, env={"SAID": "abc"}) as one:
        yield one


# Workers


def test_a_worker_answers_with_the_checksum_of_each_item(server):
    seconds, checksums = server.run("fields")
    # Six int16 are one 64-bit integer and four bytes more.
    four = [0x0001_0001_0001_0001 * i + 2 * i for i in range(3)]
    assert checksums == [one + sum(range(i + 1)) for i, one in enumerate(four)]
    assert seconds > 0


def test_a_contender_is_prepared_once_and_what_it_prints_is_no_answer(server):
    assert [server.run("counting")[1] for _ in range(3)] == [[3]] * 3


def test_kept_items_are_those_of_the_worker_to_the_bit(server):
    items = server.keep("fields", 2)
    assert len(items) == 2
    for i, (image, mask) in enumerate(items):
        assert image.dtype == np.int16 and np.array_equal(image, np.full((2, 3), i))
        assert mask.dtype == np.uint8 and np.array_equal(mask, np.arange(i + 1))


def test_a_process_that_a_library_starts_cannot_read_the_questions(server):
    assert server.run("curious")[1] == [1]  # it met the end of its input
    assert server.run("counting")[1] == [3]


def test_workers_of_two_environments_are_asked_in_turn(toys):
    with (
        Server(sys.executable, toys, {}, env={"SAID": "abc"}) as one,
        Server(sys.executable, toys, {}, env={"SAID": "xyz"}) as other,
    ):
        assert one.process.pid != other.process.pid
        words = [bytes(s.keep("said", 1)[0][0]) for s in (one, other, one)]
    assert words == [b"abc", b"xyz", b"abc"]


def test_an_error_is_reported_with_its_text_and_the_worker_lives_on(server):
    with pytest.raises(ContenderFailedError, match=r"failing: (?s:.*)no such transform"):
        server.run("failing")
    with pytest.raises(ContenderFailedError, match="KeyError: 'unheard of'"):
        server.run("unheard of")
    assert server.run("counting")[1] == [3]


def test_a_dead_worker_is_reported_with_its_last_words(server):
    with pytest.raises(ContenderFailedError, match=r"exit code 3(?s:.*)out of memory, say"):
        server.run("dying")
    with pytest.raises(ContenderFailedError, match="has died"):
        server.run("counting")


def test_a_worker_that_cannot_import_its_peers_says_so(tmp_path):
    path = tmp_path / "lonely.py"
    path.write_text("import a_package_that_is_nowhere\n")
    with (
        Server(sys.executable, path, {}) as one,
        pytest.raises(ContenderFailedError, match="No module named 'a_package_that_is_nowhere'"),
    ):
        one.run("anything")


def test_objects_that_need_pickle_are_refused(server):
    with pytest.raises(ContenderFailedError, match="allow_pickle"):
        server.keep("objects", 1)


def test_a_worker_ends_with_its_parent_even_if_that_is_killed(toys):
    parent = f"""if True:
        import os, sys
        sys.path.append({str(BENCHMARKS)!r})
        from _servers import Server
        server = Server(sys.executable, {str(toys)!r}, {{}})
        server.run("counting")
        print(server.process.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True)
    pid = int(done.stdout)
    if psutil.pid_exists(pid):
        gone, _ = psutil.wait_procs([psutil.Process(pid)], timeout=300)
        assert gone


def test_a_closed_worker_has_ended(toys):
    server = Server(sys.executable, toys, {})
    server.run("counting")
    server.close()
    server.close()
    assert server.process.returncode == 0
    with pytest.raises(ContenderFailedError, match="has died"):
        server.run("counting")


def test_each_round_begins_with_another_contender_and_all_have_their_turn():
    order = []
    contenders = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    ticks = []
    times = take_turns(contenders, 4, lambda: ticks.append(1))
    assert "".join(order) == "abcbcacababc"
    assert times == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}
    assert len(ticks) == 12


@settings(deadline=None)
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


def test_the_clock_runs_until_the_last_item_has_been_looked_at():
    made = []

    def run():
        for i in range(3):
            made.append(i)
            yield (np.array([i], np.uint64),)

    seconds, checksums = timed(run)
    assert made == checksums == [0, 1, 2] and seconds > 0


# Checks of what contenders make


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


def test_a_warped_pair_passes_all_checks(pair, warped, places):
    check_pair("SciPy", pair, warped)
    check_moved("SciPy", [(pair, warped)])
    check_with_scipy("SciPy", pair, warped, places)


def test_an_affine_pair_passes_as_well(pair, drawn):
    after = _augment_scipy.affine(*pair, drawn)
    still = drawn._replace(control=np.zeros_like(drawn.control))
    at = _augment_scipy.positions(still, pair[0].shape)
    inside = np.stack([np.clip(p, 0, n - 1) for p, n in zip(at, pair[0].shape, strict=True)])
    check_pair("SciPy", pair, after)
    check_with_scipy("SciPy", pair, after, inside)


def linear_mask(pair, places):
    return ndimage.map_coordinates(pair[1].astype(np.float32), places, order=1)


BROKEN = {
    "the mask turned alone": (lambda i, m: (i, m[:, :, ::-1]), "different ways"),
    "the mask shifted alone": (lambda i, m: (i, np.roll(m, 12, 1)), "different ways"),
    "the image turned alone": (lambda i, m: (i[::-1], m), "different ways"),
    "a class that was not there": (lambda i, m: (i, np.where(m == 5, 77, m)), r"invents.*77"),
    "NaN": (lambda i, m: (np.where(m == 5, np.nan, i), m), "not finite"),
    "a value out of range": (lambda i, m: (i * 2, m), "gives"),
    "another shape": (lambda i, m: (i[1:], m[1:]), "for"),
    "an empty mask": (lambda i, m: (i, m * 0), "lost the classes"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_pair_ends_the_run(what, pair, warped):
    broken, message = BROKEN[what]
    with pytest.raises(SystemExit, match=message):
        check_pair("them", pair, broken(*warped))


def test_a_mask_that_was_interpolated_linearly_ends_the_run(pair, warped, places):
    with pytest.raises(SystemExit, match="invents classes"):
        check_pair("them", pair, (warped[0], linear_mask(pair, places)))


def test_who_gives_back_what_came_has_not_moved_it(pair, warped):
    same = (pair[0].astype(np.float32), pair[1])
    with pytest.raises(SystemExit, match="moved 0 of 1"):
        check_moved("them", [(pair, same)])
    with pytest.raises(SystemExit, match="moved 1 of 2"):
        check_moved("them", [(pair, same), (pair, warped)])
    check_moved("them", [(pair, same), (pair, warped), (pair, warped)])
    with pytest.raises(SystemExit, match="moved 0 of 1"):
        check_moved("them", [(pair, (same[0] + 1.0, pair[1]))])


def test_a_shift_of_a_hundredth_of_a_voxel_is_not_what_scipy_gives(pair, warped, places):
    for axis in range(3):
        off = places.copy()
        off[axis] = np.clip(off[axis] + 0.01, 0, pair[0].shape[axis] - 1)
        with pytest.raises(SystemExit, match="differs from SciPy by"):
            check_with_scipy("ours", pair, warped, off)


def test_swapped_axes_another_order_and_another_mask_are_not_what_scipy_gives(pair, warped, places):
    image, mask = warped
    with pytest.raises(SystemExit, match="differs from SciPy by"):
        check_with_scipy("ours", pair, warped, places[[0, 2, 1]].clip(0, 47))
    cubic = ndimage.map_coordinates(pair[0], places, np.float32, order=3, mode="nearest")
    with pytest.raises(SystemExit, match="differs from SciPy by"):
        check_with_scipy("ours", pair, (cubic, mask), places)
    wrong = mask.copy()
    wrong[10, 20, 30] += 1
    with pytest.raises(SystemExit, match="1 voxels of the mask"):
        check_with_scipy("ours", pair, (image, wrong), places)


def test_positions_between_two_voxels_prove_nothing_about_the_nearest(pair):
    halves = np.indices(pair[0].shape) * 0.999 + 0.0
    halves[0] = 0.5
    image = ndimage.map_coordinates(pair[0].astype(float), halves, order=1)
    with pytest.raises(SystemExit, match="between two voxels"):
        check_with_scipy("ours", pair, (image, pair[1]), halves)


def test_simpleitk_agrees_with_scipy_about_the_same_draw(pair, drawn, warped):
    image, mask = _augment_scipy.simpleitk(*pair, drawn)
    at = _augment_scipy.positions(drawn, pair[0].shape)
    inside = np.all([(p > 0) & (p < n - 1) for p, n in zip(at, pair[0].shape, strict=True)], 0)
    assert inside.mean() > 0.5
    difference = np.abs(image - warped[0])[inside] / np.ptp(pair[0])
    # Its grid is wider than the image by a little, on purpose: positions differ by hundredths.
    assert np.quantile(difference, 0.99) < 0.01 and difference.mean() < 0.001
    assert np.mean((mask != warped[1])[inside]) < 0.01


def test_control_points_that_move_alike_move_everything_so(drawn):
    control = np.ones_like(drawn.control) * np.float32([3, -2, 1])[:, None, None, None]
    field = _augment_scipy.upsampled(control, (16, 20, 24))
    assert np.allclose(field, np.float32([3, -2, 1])[:, None, None, None], atol=1e-5)


def test_upsampling_is_a_cubic_b_spline(drawn):
    shape = (48, 56, 64)
    expected = drawn.control.astype(float)
    for axis, n in enumerate(shape, start=1):
        cells = expected.shape[axis] - 3
        at = (np.arange(n) + 0.5) * cells / n  # the image ends where its outer voxels do
        coefficients = np.moveaxis(expected, axis, 0)
        fine = BSpline(np.arange(-3, cells + 4), coefficients, 3)(at)
        expected = np.moveaxis(fine, 0, axis)
    assert np.abs(_augment_scipy.upsampled(drawn.control, shape) - expected).max() < 1e-4


def test_crops_are_found_where_they_were_cut(pair):
    boxes = [(0, 0, 0), (17, 3, 31), (28, 32, 36)]
    cut = [tuple(slice(a, a + n) for a, n in zip(s, (20, 24, 28), strict=True)) for s in boxes]
    crops = [np.stack([field[box] for box in cut]) for field in pair]
    assert check_crops("NumPy", [pair], crops) == boxes
    other = tuple(field[::-1] for field in pair)
    assert check_crops("NumPy", [other, pair], crops) == boxes


def test_a_crop_of_something_else_ends_the_run(pair):
    box = (slice(5, 25), slice(6, 30), slice(7, 35))
    image, mask = (field[box][None] for field in pair)
    near = pair[1][5:25, 6:30, 8:36][None]
    with pytest.raises(SystemExit, match="crop 0 is no box"):
        check_crops("them", [pair], [image, near])
    wrong = image.copy()
    wrong[0, 3, 4, 5] += 1
    with pytest.raises(SystemExit, match="no box"):
        check_crops("them", [pair], [wrong, mask])
    with pytest.raises(SystemExit, match="no box"):
        check_crops("them", [pair], [image[:, :, ::-1], mask[:, :, ::-1]])
    with pytest.raises(SystemExit, match="no box"):
        check_crops("them", [tuple(field[:10] for field in pair)], [image, mask])


def test_a_pass_with_too_few_items_or_with_old_ones_ends_the_run():
    fresh = Freshness("them", 2)
    fresh.check([1, 2])
    fresh.check([3, 4])
    with pytest.raises(SystemExit, match="gave 1 items of 2"):
        fresh.check([5])
    with pytest.raises(SystemExit, match="does not draw anew"):
        fresh.check([6, 2])
    with pytest.raises(SystemExit, match="does not draw anew"):
        Freshness("them", 2).check([7, 7])


def test_items_of_all_libraries_are_laid_out_alike():
    image = np.arange(24).reshape(2, 3, 4)
    for laid in (image[..., None], image[None, None]):
        assert np.array_equal(volume_pair((laid,))[0], image)
    pictures = np.arange(2 * 5 * 4 * 3).reshape(2, 5, 4, 3)
    masks = pictures[..., :1]
    for laid in ((pictures, masks), (pictures.transpose(0, 3, 2, 1), masks.transpose(0, 3, 2, 1))):
        for number, (picture, mask) in enumerate(picture_pairs(laid)):
            assert np.array_equal(picture, pictures[number])
            assert np.array_equal(mask, pictures[number, ..., 0])


# The parts


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> dict:
    sizes = Sizes(
        edge=32, volumes=2, slow_volumes=2, pictures=32, crop_shape=(40, 44, 48), crop=16,
        crop_passes=2, long=1, rounds=1,
    )  # fmt: skip
    return make_job(sizes, tmp_path_factory.mktemp("data"))


def test_a_job_is_plain_json(job):
    assert json.loads(json.dumps(job)) == job | {"crop_shape": list(job["crop_shape"])}
    image, mask = load(job["warp"], 1)
    assert image.dtype == np.int16 and mask.dtype == np.uint8
    assert image.shape == mask.shape == (32, 32, 32)
    assert set(np.unique(load(job["crops_from"], 0)[1])) == {0, 1}
    assert all(Path(path).is_file() for pair in job["pairs"] for path in pair)


@pytest.mark.parametrize("kind", ["elastic", "affine"])
def test_our_warps_are_what_scipy_makes_of_the_same_positions(kind, job):
    import _augment_ours

    table = _augment_ours.contenders(job)
    items, places = list(table[kind]()()), list(table[f"{kind} positions"]()())
    inputs = [load(job["warp"], i) for i in range(2)]
    results = [volume_pair(item) for item in items]
    augmentation.check_warps("ours", inputs, results, [image for image, _ in places])
    with pytest.raises(SystemExit, match="differs from SciPy"):
        augmentation.check_warps("ours", inputs, results, [image for image, _ in places[::-1]])


@pytest.mark.parametrize("kind", ["files", "cache"])
def test_our_pictures_are_what_scipy_makes_of_the_same_positions(kind, job):
    import _augment_ours

    table = _augment_ours.contenders(job)
    (batch,), (places,), (before,) = (
        list(table[name]()()) for name in (kind, f"{kind} positions", "pictures")
    )
    inputs, results = picture_pairs(before), picture_pairs(batch)
    assert len(results) == 32 and results[0][0].shape == (256, 256, 3)
    augmentation.check_warps("ours", inputs, results, list(places[0]))
    with pytest.raises(SystemExit, match="differs from SciPy"):
        augmentation.check_warps("ours", inputs, results, list(places[0][::-1]))


@pytest.mark.parametrize("kind, fields", [("crops", 1), ("crops of pairs", 2)])
def test_our_crops_and_the_copies_are_boxes_of_the_volumes(kind, fields, job):
    import _augment_ours

    sources = [load(job["crops_from"], i)[:fields] for i in range(2)]
    ours = _augment_ours.contenders(job)[kind]
    copies = _augment_scipy.contenders(job | {"style": "plain"})
    for prepare in (ours, copies[f"{kind}, fresh"], copies[f"{kind}, warm"]):
        count = 0
        for item in prepare()():
            cut = volume_pair(item)
            assert [one.shape for one in cut] == [(4, 16, 16, 16)] * fields
            check_crops(kind, sources, cut)
            count += 1
        assert count == 4


@pytest.mark.parametrize("style", ["plain", "workers"])
def test_scipy_draws_anew_in_each_pass_however_many_threads_it_has(style, job):
    table = _augment_scipy.contenders(job | {"style": style})
    for kind in ("elastic", "affine"):
        run, fresh = table[kind](), Freshness(kind, 2)
        for _ in range(2):
            items = list(run())
            fresh.check([checksum(item) for item in items])
            check_pair(kind, load(job["warp"], 1), volume_pair(items[1]))


def test_both_styles_of_scipy_make_the_same(job):
    first, second = (
        [checksum(item) for item in _augment_scipy.contenders(job | {"style": s})["elastic"]()()]
        for s in ("plain", "workers")
    )
    assert first == second


def test_every_row_asks_a_worker_for_a_contender_that_it_has(job):
    import _augment_ours

    tables = {
        "_augment_ours.py": _augment_ours.contenders(job),
        **{
            f"_augment_scipy.py {style}": _augment_scipy.contenders(job | {"style": style})
            for style in ("plain", "workers")
        },
    }
    for part in PARTS:
        for worker, contender in part.contenders().values():
            file, style, among_peers = WORKERS[worker]
            if among_peers:  # they cannot be imported here
                assert f'"{contender}": lambda' in (BENCHMARKS / file).read_text()
            else:
                assert contender in tables.get(file, tables.get(f"{file} {style}", ()))
        assert next(iter(part.contenders().values()))[0] == OURS


def test_who_is_quick_makes_more_items_and_who_is_slow_fewer():
    job = {"volumes": 8, "slow_volumes": 4, "long": 3, "crop_passes": 5, "batch": 32}
    job["pairs"] = [None] * 64
    elastic, _, files, _, crops, _ = PARTS
    count = augmentation.items_in_a_pass
    assert [count(elastic, row, job) for row in ("augment.stage", "MONAI", "TorchIO")] == [24, 8, 4]
    assert [count(files, row, job) for row in ("augment.stage", "MONAI")] == [6, 2]
    rows = ("crops.random", "NumPy, warm array", "MONAI")
    assert [count(crops, row, job) for row in rows] == [30, 30, 10]


def test_a_report_has_medians_ratios_and_who_is_missing(capsys):
    part = next(part for part in PARTS if part.letter == "B")
    times = {"augment.stage": [9.0, 10.0, 12.0], "MONAI": [40.0, 35.0, 50.0], "SciPy": [5.0] * 3}
    entries = augmentation.report(part, times, QUICK.__dict__ | {"batch": 32})
    name = "affine, 48 cubed"
    assert entries == [
        {"name": name, "value": 10.0, "unit": "ms", "against": "MONAI", "against_value": 40.0,
         "ratio": 4.0},
        {"name": name, "value": 10.0, "unit": "ms", "against": "SciPy", "against_value": 5.0,
         "ratio": 0.5},
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "35 to 50                   4.00 x" in printed
    assert "asked for: at least 3 x MONAI; came out: 4.00 to 4.00 x" in printed
    missing = [line.split("  ")[1] for line in printed.splitlines() if "not installed" in line]
    assert missing == ["MONAI, tuned", "MONAI, tuned, 2 workers", "TorchIO", "SciPy, 2 threads"]


def run_benchmark(tmp_path: Path, *options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, BENCHMARKS / "augmentation.py", "--quick", "--rounds", "1"]
    command += ["--data-dir", tmp_path, *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_without_the_peers_the_rest_is_measured_and_they_are_named(tmp_path):
    file = tmp_path / "out.json"
    done = run_benchmark(tmp_path, "--parts", "B", "--peers", tmp_path / "none", "--json", file)
    assert done.returncode == 0, done.stderr
    assert "none is missing: README.md says how to install the peers" in done.stdout
    assert done.stdout.count("not installed") == 4  # MONAI three times, TorchIO
    entries = json.loads(file.read_text())
    assert [row["against"] for row in entries] == ["SciPy", "SciPy, 2 threads"]
    for row in entries:
        assert row["ratio"] == pytest.approx(row["against_value"] / row["value"], abs=2e-3)


def test_a_contender_that_fails_ends_the_benchmark_with_what_it_said(job, monkeypatch):
    def fail(*_):
        raise ContenderFailedError("MONAI: No module named 'monai'")

    monkeypatch.setattr(augmentation, "make_job", lambda *_: job)
    monkeypatch.setattr(augmentation, "measure", fail)
    monkeypatch.setattr(sys, "argv", ["augmentation.py", "--parts", "B"])
    with pytest.raises(SystemExit, match="No module named 'monai'"):
        augmentation.main()
