"""The benchmarks ask fairly, see wrong results, and count rightly; nothing is timed here."""

import argparse
import json
import re
import subprocess
import sys
import types
import zlib
from pathlib import Path

import keras
import nibabel
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from helpers import records

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import checks
import flops
import harness
import reading
import records as written
import segmentation
import worker
import workloads
from contenders import arrays, box, facts, floors, networks, ours_batches, pairs, runs_of, scipy
from harness import Part, row
from worker import ROOT

FULL = argparse.Namespace(short=False, sizes=harness.SIZES)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="session")
def job(data) -> dict:
    """That of reading, as workers get it."""
    part = Part("", "", {}, workloads.heads, told=workloads.READING["smoke"])
    return json.loads(json.dumps(part.job(data)))


def said(check, *given) -> str:
    """What a check says of something wrong."""
    with pytest.raises(checks.WrongError) as error:
        check(*given)
    return str(error.value)


COUNTS = {"dicom_reading": 37, "records": 6, "augmentation": 21, "reading": 24, "segmentation": 2}


@pytest.mark.parametrize("script", COUNTS)
def test_a_smoke_run_ends_well_and_writes_its_rows(script, data):
    file, command = data / f"{script}.json", [sys.executable, ROOT / f"benchmarks/{script}.py"]
    command += ["--smoke", "--data-dir", data, "--json", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())
    # In a tiny run the difference between two epochs may be lost in noise.
    rows = [one for one in rows if not one["name"].startswith("a record more")]
    named = {(one["name"], one["unit"], one["against"]) for one in rows}
    assert len(rows) == len(named) == COUNTS[script], named
    for one in rows:
        assert [*one] == ["name", "value", "unit", "against", "against_value", "ratio"]
        ratio = one["against_value"] / one["value"]
        assert one["ratio"] == pytest.approx(ratio, rel=0.1, abs=0.01) and one["ratio"] > 0, one
    assert ("not installed: " in done.stdout) == (script != "records")


def test_other_work_ends_a_run_and_a_missing_peer_is_said(job, data, monkeypatch, capsys):
    here = worker.Contenders()  # in this process
    answer = types.SimpleNamespace(ask=lambda name, **more: here.answer(contender=name, **more))
    start = lambda self, one: answer if one.module != "grain" else None  # noqa: E731
    monkeypatch.setattr(harness.Workers, "start", start)
    monkeypatch.setattr(sys, "argv", ["x", "--smoke", "--data-dir", str(data)])
    options = harness.parsed(harness.arguments("", "B"))
    rows = {"ours": row("ours_batches.stored", mapped=True, kind="whitened")}
    rows |= {"Grain": row("grain.from_files"), "floor": row("floors.mapped_files", kind="stored")}
    part = Part("B", "x", rows, workloads.heads, told=workloads.READING["smoke"])
    assert len(harness.run(options, [part, part.but(letter="C")])) == 1
    assert "not installed: Grain\n" in capsys.readouterr().out
    wrong = (np.stack(arrays(f"{job['folder']}/stored")) + np.float32(1),)
    monkeypatch.setattr(floors, "mapped_files", lambda job: lambda count: [wrong] * count)
    here.ready.clear()  # of the right one
    assert "gives other voxels" in said(harness.run, options, [part])
    asked = {"action": "tell", "settings": {}, "job": job}
    one = worker.Worker(sys.executable)
    assert np.shape(one.ask("floors.nothing", **asked)["told"]) == (1, 5, *job["crop"])
    asked |= {"action": "look", "kind": "stored", "count": 2}

    def compare(*_):
        one.ask("floors.nothing", **asked)

    with pytest.raises(SystemExit, match=r"floors.nothing: (?s:.*)gives other voxels"):
        harness.run(options, [part], compare)  # with exit code 1, and the worker lives on
    assert one.ask("floors.mapped_files", **asked)["seconds"] > 0
    one.process.kill()
    with pytest.raises(worker.ContenderFailedError, match="its worker has died"):
        compare()
    one.close()


def test_the_clock_runs_for_the_items_in_the_middle_and_passes_are_as_long(monkeypatch):
    now, order = [0.0], []

    def run(total):
        for number in range(total):
            now[0] += 10**number  # seconds of an item: digits say which are in a time
            yield (np.full(8, number, np.uint8),)

    monkeypatch.setattr(worker.time, "perf_counter", lambda: now[0])
    for count, lead, trail, seconds in ((1, 0, 0, 1), (2, 1, 0, 110), (2, 2, 3, 1100)):
        one = worker.timed(run, count, lead, trail)
        assert (one.seconds, one.first_s, len(one.checksums)) == (seconds, 1, count + lead + trail)
    names = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    assert harness.take_turns(names, 4, lambda: None)["a"] == [1, 6, 8, 10]
    assert "".join(order) == "abcbcacababc"
    for one, s, sizes in (  # a row, seconds of an item; items for the clock, before and after
        (row("monai.x"), 0.01, (30, 4, 4)),  # of 0.3 s, and what is made ahead is not timed
        (row("monai.x"), 0.0001, (400, 4, 4)),
        (row("monai.x"), 0.2, (2, 1, 1)),
        (row("monai.x"), 2.0, (1, 0, 0)),
        (row("monai.x", workers=2), 2.0, (2, 0, 0)),
        (row("grain.x", whole=True), 0.01, (30, 0, 0)),
        (row("ours.x", items=6, ends=2), 0.01, (6, 2, 2)),
    ):
        asked = harness.extent(one, s, lambda n, *_, s=s: {"seconds": n * s}, 0.3)
        assert asked == sizes, (one, s)


def test_reports_have_medians_ratios_and_differences(capsys):
    rows = {name: row("a.b", everywhere=name != "x") for name in ("ours", "MONAI", "x", "gone")}
    part = Part("B", "affine, {edge} cubed", rows, None, elements=2)
    small, usual = harness.at_sizes(part, {"small": {"edge": 48}, "usual": {"edge": (1, 2)}}, FULL)
    assert [*small.rows] == ["ours", "MONAI", "gone"] and [*usual.rows] == [*rows]
    turns = {"ours": [(9.0, 75), (10.0, 0), (12.0, 99)], "MONAI": [(40.0, 8), (35.0, 8), (50.0, 8)]}
    made = {"name": "affine, 48 cubed", "value": 10.0, "unit": "ms a batch", "against": "MONAI"}
    expected = [{**made, "against_value": 40.0, "ratio": 4.0}]
    assert harness.report(small, turns, small.told) == expected
    assert "MONAI 40 35 50 4 20,000 8\n" in re.sub(" +", " ", capsys.readouterr().out)
    assert {one["unit"] for one in harness.report(usual, turns, usual.told)} == {"ms"}
    ms = {"10 records": 503, "100 records": 530, "1,000 records": 800}  # 500 and 0.3 for each
    growth = Part("F", "an epoch of 1,000 records, mapped", {}, None)
    (grown,) = reading.report_growth(growth, {name: [(one, 0)] for name, one in ms.items()})
    assert (grown["value"], grown["against_value"], grown["ratio"]) == (0.3, 0.3, 1.0)
    graphs = {"x: forward": [(1.0, 0), (3, 0), (2, 0)], "x: training": [(4.0, 0), (9, 0), (4, 0)]}
    assert [one for one, _ in segmentation.by_phase(graphs)["backward"]["x"]] == [3, 6, 2]
    with pytest.raises(worker.ContenderFailedError, match="x, backward: lost in noise"):
        segmentation.by_phase(graphs | {"x: training": [(1.0, 0)] * 3})


def test_warped_pairs_that_do_not_belong_together_are_refused(data):
    job = {"edge": 48, **workloads.warps(data, {"edge": 48})}
    before, (after,) = pairs(job)[0], runs_of(scipy.elastic(job))(1)
    checks.look("warped", [after], job)
    image, mask = after
    for wrong, words in (
        ((image, mask[:, :, ::-1]), "different ways"),
        ((image[::-1], mask), "different ways"),
        ((image, np.where(mask == 5, 77, mask)), "invents classes: [77.0]"),
        ((np.where(mask == 5, np.nan, image), mask), "gives nan"),
        ((image[1:], mask[1:]), "for (48, 48, 48)"),
        ((image, mask * 0), "lost the classes"),
        (before, "moved 0 of 1"),
    ):
        assert words in said(checks.look, "warped", [wrong], job), words
    checks.look("copied", [before], job)
    assert "changed" in said(checks.look, "copied", [after], job)
    drawn = scipy.draw(np.random.default_rng(3), job["amounts"], (48, 48, 48))
    still = drawn._replace(matrix=np.eye(3), control=0 * drawn.control + 2)  # a constant is kept
    moved = scipy.places(still, (5, 6, 7)) - np.indices((5, 6, 7))
    assert np.allclose(moved, still.shift[:, None, None, None] + 2, atol=1e-4)


def test_crops_and_passes_that_are_not_what_was_asked_for_are_refused(job):
    volumes, crop = arrays(job["folder"]), job["crop"]

    def drawn(starts, of=range(5)) -> np.ndarray:
        both = zip(of, starts, strict=True)
        return np.stack([volumes[i][box(at, crop)] for i, at in both]).astype(np.float32)

    batch = drawn([(0, 0, 0), (6, 10, 8), (1, 2, 3), (4, 5, 6), (2, 0, 7)])
    for laid in (batch, batch[..., None], batch[:, None], batch.transpose(0, 3, 2, 1)[:, None]):
        checks.look("crops", [(laid,)], job)
    wrong, one = batch.copy(), [(i, 1, 1) for i in range(5)]
    wrong[3, 2, 2, 2] += 1
    stored = np.stack(arrays(f"{job['folder']}/stored")).astype(np.float32)
    same = job | {"crcs": [checks.crc(volumes[0])]}
    for kind, given, words in (
        ("crops", wrong, "crop 3, which is no box"),
        ("crops", batch.astype(np.float64), "gives ['float64']"),
        ("crops", batch[:, 1:], "not crops of"),
        ("crops", batch[1:], "gives 4 crops of 5"),
        ("crops", drawn(one, of=[2] * 5), "one image only, of 5"),
        ("crops", drawn([(1, 1, 1)] * 5), "at 1 places only"),
        ("stored", np.stack([*stored[:4], stored[0]]), "than are stored"),
        ("whitened", stored, "than are stored"),
        ("same", volumes[0] + 0.3, "something else"),
    ):
        assert words in said(checks.look, kind, [(given,)], same), (kind, words)
    checks.look("same", [(volumes[0].astype(np.float64),)], same)
    images, lesson = np.ones((5, 2, 2, 3), np.float32), job | {"size": [2, 2], "mask_fill": 255}
    assert "ids {7.0}" in said(checks.look, "lesson", [(images, images * 7)], lesson)
    good, bad = (checks.checksum((one,)) for one in (stored[::-1].copy(), wrong))
    watch = checks.Watch("stored", job)
    watch.check([good, good], 2, 0)
    assert "than are stored" in said(watch.check, [good, bad], 2, 0)
    new = checks.Watch("new", job)
    new.check([1, 2], 2, 0)
    assert "1 items of 2" in said(new.check, [5], 2, 0)
    assert "draw anew" in said(new.check, [6, 2], 2, 0) and said(new.check, [7, 7], 2, 0)
    for at in range(15):  # every byte counts, in every order of axes
        one = np.bincount([at], minlength=15).astype(np.int8).reshape(3, 5)
        assert checks.checksum((one,)) and checks.checksum((one.T,))


def test_all_forms_of_the_input_hold_the_same_voxels_and_so_do_outputs(job, tmp_path):
    folder = Path(job["folder"])
    each = records.read(folder / "records").as_numpy_iterator()
    read = {bytes(one["case"]).decode(): one["image"][..., 0] for one in each}
    for number, one in enumerate(facts(job["folder"])):
        image = np.asarray(nibabel.load(one["path"]).dataobj).transpose()  # it has [x, y, z]
        stored = arrays(f"{folder}/stored")[number]
        assert np.array_equal(arrays(str(folder))[number], image) and image.dtype == np.int16
        assert checks.places_of((image,), (stored,))
        assert np.array_equal(read[one["case"]], stored)
        values = image.astype(np.float32)
        white = (stored - values.mean()) / values.std()
        assert np.allclose(checks.stored(job, "whitened")[number], white, atol=1e-5)
    found = [one for (batch,) in ours_batches.counted(job, 100, True)(10) for one in batch]
    assert len({one.tobytes() for one in found}) == 100  # an epoch has each of them
    (tmp_path / "out").mkdir()
    (tmp_path / "out/0.raw").write_bytes(b"abc")
    with pytest.raises(worker.ContenderFailedError, match="does not hold the voxels"):
        written.look(tmp_path, [1], set(), None)
    written.look(tmp_path, [zlib.crc32(b"abc")], set(), None)
    assert not list(tmp_path.iterdir())


def test_work_is_counted_as_by_hand_and_what_would_be_missed_is_refused():
    def graph_of(step, *shape):
        spec = tf.TensorSpec(shape, tf.float32)
        return tf.function(step, autograph=False).get_concrete_function(spec).graph

    conv, depthwise, same = keras.layers.Conv2D, keras.layers.DepthwiseConv2D, {"padding": "same"}
    for layer, channels, positions, products in (  # of the result, and at each of them
        (conv(7, 3, **same), 5, 120, 9 * 5 * 7),
        (conv(7, 3), 5, 80, 9 * 5 * 7),
        (conv(7, 7, strides=2, **same), 3, 30, 49 * 3 * 7),
        (conv(7, 3, dilation_rate=18, **same), 5, 120, 9 * 5 * 7),  # larger than the map
        (depthwise(3, strides=2, depth_multiplier=2, **same), 6, 30, 9 * 6 * 2),
        (depthwise(3, dilation_rate=5, **same), 6, 120, 9 * 6),
    ):
        layer.build((2, 12, 10, channels))
        by_hand = 2 * 2 * positions * products  # no gradient for the images
        assert flops.count(graph_of(layer, 2, 12, 10, channels)) == (by_hand, by_hand), layer
        unneeded = graph_of(lambda x, layer=layer: (layer(x), x)[1], 2, 12, 10, channels)
        assert flops.count(unneeded) == (0, 0)
    two = keras.Sequential([conv(7, 1), conv(7, 1)])
    assert flops.count(graph_of(two, 1, 4, 4, 3)) == (32 * 70, 32 * (70 + 49))
    for step in (tf.function(lambda x: x @ x, autograph=False), lambda x: tf.einsum("ij,jk", x, x)):
        with pytest.raises(ValueError, match="is not counted"):
            flops.count(graph_of(step, 3, 3))
    job = {"backbone": "MobileNetV2", "size": [64, 96], "batch": 2}
    (_, logits, features, losses) = next(networks.told(job))
    assert [*logits] == [2, 64, 96, 2] and [*features] == [4, 6] and losses[-1] < losses[0]


def test_the_picture_says_of_which_run_it_is_and_both_environments_have_the_same_keras(data):
    run = json.loads((ROOT / "docs/reading.json").read_text())
    command = [sys.executable, ROOT / "benchmarks/reading.py", "--of", ROOT / "docs/reading.json"]
    subprocess.run([*command, "--picture", file := data / "p.png"], check=True)
    assert Image.open(file).text["comparisons"] == reading.picture.digest(run)
    assert file.stat().st_size <= 80_000
    files = (ROOT / folder / "requirements.txt" for folder in ("", "benchmarks"))
    pins = [re.findall(r"^(?:tensorflow|keras)==\S+$", one.read_text(), re.M) for one in files]
    assert sorted(pins[0]) == sorted(pins[1]) and len(pins[0]) == 2
