"""The converter at a terminal: what it says is so, and what it refuses leaves no trace."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from helpers import dicom, phantoms
from helpers.__main__ import main
from helpers.errors import CODES
from tests.dicom_files import voxels, write, write_series

ROOT = Path(__file__).parent.parent
MAPPED = ["--map", "0=0,255=1", "--classes", "background,lesion,other"]
PARTS = {"dicom": "", "decathlon": "train=0.5,validation=0.5"}  # the list has a test section
THIRDS = "train=0.7,validation=0.15,test=0.15"
WRONG = """--split train|--split a=0.5|--split a=1,b=0|--split a=.5,a=.5|--split a=nan,b=1|--seed -1
--seed 4294967296|--shards many|--workers 1.5|--map 0|--map 0=0,255=256|--map 0=-1|--map a=b
--classes x=a|--classes -1=a"""


@pytest.fixture
def run(capfd):
    """Run a command line in this process: exit code, stdout, stderr on one line."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as ended:
            code = ended.code
        out, err = capfd.readouterr()
        return code, out, " ".join(err.split())

    return call


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """A small set of each kind; nobody writes into it."""
    folder = tmp_path_factory.mktemp("sets")
    phantoms.skin_lesions(folder, 12)
    phantoms.nodules(folder, 40)
    phantoms.decathlon(folder, 4, tests=2, shape=(24, 48, 56))
    for number in range(3):
        where = folder / "dicom" / str(number)
        write_series(where, voxels(seed=number), series=f"1.2.{number}", PatientID=f"P{number}")
    return folder


@pytest.fixture(scope="module")
def kinds(sets) -> dict[str, list]:
    """Arguments that convert every file of a set."""
    lesions, nodules = sets / "skin_lesions", sets / "nodules"
    table = ["--table", nodules / "labels.csv", "--classes", "none,nodule"]
    of_kind = {
        "dicom": ["dicom", sets / "dicom"],
        "decathlon": ["decathlon", sets / "decathlon_organs"],
        "lesions": ["pictures", lesions / "images", "--masks", lesions / "masks", *MAPPED],
        "nodules": ["pictures", nodules / "images", *table],
    }
    return {kind: ["convert", *words, "--workers", 1] for kind, words in of_kind.items()}


def held(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def examples(folder: Path, split: str = "*") -> list[dict]:
    """The values of each record, by TensorFlow alone."""
    shards = sorted(map(str, folder.glob(f"{split}-*.tfrecord")))
    found = tf.data.TFRecordDataset(shards).as_numpy_iterator()
    features = [tf.train.Example.FromString(one).features.feature for one in found]
    return [{key: values(one[key]) for key in one} for one in features]


def values(feature) -> list:
    return [*feature.bytes_list.value, *feature.int64_list.value, *feature.float_list.value]


def cases(folder: Path, split: str = "*", digits: int = 25) -> list[bytes]:
    """The names of the records; the first 16 digits are the patient's."""
    found = examples(folder, split)
    return [one.get("case", one.get("image/filename"))[0][:digits] for one in found]


def row(out: str, name: str) -> list[float]:
    """The numbers in the row of that name."""
    (line,) = re.findall(rf"^{re.escape(name)} +([-0-9. ]+)$", out, re.MULTILINE)
    return list(map(float, line.split()))


def equation(out: str) -> tuple[int, ...]:
    (found,) = re.findall(r"^(\d+) files = (\d+) written \+ (\d+) rejected$", out, re.MULTILINE)
    return tuple(map(int, found))


@pytest.mark.parametrize("command", ["", "convert", "convert dicom", "convert pictures", "verify"])
def test_help_fits_80_columns_and_comes_without_the_libraries_of_a_conversion(command):
    heavy = {"tensorflow", "SimpleITK", "sklearn", "pydicom", "numpy", "PIL", "pandas"}
    program = f"import sys\nfrom helpers.__main__ import main\ntry:\n    main({command.split()} + "
    program += f"['--help'])\nexcept SystemExit:\n    assert not {heavy} & set(sys.modules)"
    settings = {"cwd": ROOT, "env": os.environ | {"COLUMNS": "80"}, "capture_output": True}
    done = subprocess.run([sys.executable, "-c", program], encoding="utf-8", check=True, **settings)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not command or "exit code: 0 " in " ".join(done.stdout.split())


def test_an_argument_that_cannot_be_meant_is_refused_by_name(run, kinds, tmp_path):
    for words in re.split(r"[|\n]", WRONG):
        code, out, err = run(*kinds["lesions"], tmp_path / "out", *words.split())
        assert (code, out) == (2, "") and f"argument {words.split()[0]}: " in err, words
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_converted_is_refused_and_nothing_is_made(
    run, kinds, sets, tmp_path, monkeypatch
):
    (tmp_path / "salt").write_text("short")
    pictures = sets / "nodules" / "images"
    rows = [f"{path.name},P" for path in pictures.iterdir()]
    (tmp_path / "t.csv").write_text("\n".join(["file,patient", *rows]))
    masks = ["convert", "pictures", pictures, "--masks", sets / "skin_lesions"]
    dicoms = ["convert", "dicom", sets / "dicom"]
    inside, lists = "may not lie inside of each other", sets / "decathlon_organs"
    told = {  # the command line, and what the message says
        "an unknown option": ([*kinds["dicom"], "out", "--dryrun=DOE"], "unknown: --dryrun"),
        "a name too many": ([*kinds["dicom"], "out", "DOE", "DOE"], "2 arguments too many"),
        "no input": (["convert", "dicom", "nowhere", "out"], "o such file"),
        "no list": (["convert", "decathlon", sets / "dicom", "out"], "o such file"),
        "output in input": (["convert", "dicom", sets, sets / "out"], inside),
        "output in masks": ([*masks, sets / "skin_lesions" / "out"], inside),
        "input in output": ([*dicoms, sets], inside),
        "list in output": (["convert", "decathlon", lists / "dataset.json", lists], inside),
        "masks in output": ([*masks[:3], "--masks", tmp_path / "a" / "b", tmp_path / "a"], inside),
        "salt in input": ([*dicoms, "out", "--salt-file", sets / "dicom" / "s"], inside),
        "salt in output": ([*dicoms, "out", "--salt-file", "out/s"], inside),
        "output a file": ([*dicoms, "t.csv"], "File exists"),
        "a short salt": ([*dicoms, "out", "--salt-file", "salt"], "8 characters"),
        "neither masks nor labels": (["convert", "pictures", pictures, "out"], "--masks"),
        "no label": (["convert", "pictures", pictures, "out", "--table", "t.csv"], "column label"),
        "a section twice": ([*kinds["decathlon"], "out", "--split", "a=.5,test=.5"], "section"),
        "255 without a class": ([*kinds["lesions"], "out", "--map", "0=0"], "--map 0=0,255=1"),
        "nothing to verify": (["verify", "nowhere"], "o such file"),
        "no manifest": (["verify", sets / "dicom"], "NO_MANIFEST"),
    }
    monkeypatch.chdir(tmp_path)
    before = held(tmp_path), held(sets)
    for name, (words, expected) in told.items():
        code, out, err = run(*words)
        assert (code, out) == (2, "") and expected in err and "DOE" not in err, (name, err)
        assert (held(tmp_path), held(sets)) == before, name
    assert {*map(str, tmp_path.iterdir())} == {str(tmp_path / "salt"), str(tmp_path / "t.csv")}


def class_ids(one: dict) -> list[int]:
    """The ids in the mask of a record, or its labels."""
    if drawn := one.get("image/segmentation/class/encoded"):
        return np.unique(tf.io.decode_png(drawn[0]).numpy()).tolist()
    return one.get("label") or [*one.get("mask", [b""])[0]]


@pytest.mark.parametrize("kind", ["dicom", "decathlon", "lesions", "nodules"])
def test_every_file_is_written_and_the_report_says_what_the_records_hold(
    run, sets, kinds, tmp_path, kind
):
    folder, parts = tmp_path / "out", PARTS.get(kind, THIRDS)
    code, out, err = run(*kinds[kind], folder, *(["--split", parts] if parts else []))
    inputs = {"lesions": "skin_lesions", "decathlon": "decathlon_organs"}.get(kind, kind)
    files = [path for path in (sets / inputs).rglob("*.*") if path.suffix not in (".json", ".csv")]
    assert (code, equation(out)) == (0, (len(files), len(files), 0)) and "%|" in err
    assert max(map(len, out.splitlines())) < 80
    splits = out.splitlines()[0].split()[1:]
    found = [examples(folder, split) for split in splits]
    assert row(out, "records") == list(map(len, found))
    patients = [{*cases(folder, split, 16)} for split in splits]
    assert row(out, "patients") == list(map(len, patients))
    assert len(set.union(*patients)) == sum(map(len, patients))  # each in one split
    shards = [[*folder.glob(f"{split}-*.tfrecord")] for split in splits]
    assert row(out, "shards") == list(map(len, shards))
    sizes = [sum(one.stat().st_size for one in some) for some in shards]
    assert row(out, "MB") == [round(size / 1e6, 1) for size in sizes]
    names = {"lesions": ["background", "lesion", "other"], "nodules": ["none", "nodule"]}
    names["decathlon"] = phantoms.ORGANS
    for number, name in enumerate(names.get(kind, [])):
        title = "label 1" if kind == "nodules" else "mask"
        expected = [sum(number in class_ids(one) for one in some) for some in found]
        assert row(out, f"{title}: {number} {name}") == expected
    shapes = sorted({shape(one) for some in found for one in some})
    more = f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""
    dtype = "jpeg" if kind == "lesions" else "int16"
    assert f"\nshape: {', '.join(shapes[:3])}{more}\ndtype: {dtype}\n" in out


def shape(one: dict) -> str:
    sides = one.get("image/shape") or [*one["image/height"], *one["image/width"], 3]
    return "x".join(map(str, sides))


def test_each_option_does_what_its_help_says(run, sets, kinds, tmp_path):
    write(tmp_path / "scan" / "a.dcm", voxels()[0], Modality="US")
    bare = write(tmp_path / "bare" / "a.dcm", voxels()[0])
    bare.write_bytes(bare.read_bytes()[132:])  # without preamble and DICM
    for name in ("images/a.png", "masks/adrawn.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / name)
    images = [f"imagesTr/torso_{n:03d}.nii.gz" for n in range(4)]
    items = [{"image": one, "label": [int("003" in one), 1]} for one in images]
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    needed = {  # without which nothing is written
        "--allow-unchecked": ["dicom", tmp_path / "scan"],
        "--force": ["dicom", tmp_path / "bare"],
        "--mask-suffix drawn": ["pictures", tmp_path / "images", "--masks", tmp_path / "masks"],
        f"--base {sets / 'decathlon_organs'}": ["decathlon", tmp_path / "list.json"],
    }
    for option, words in needed.items():
        words = ["convert", *words, tmp_path / f"out {option[:6]}", "--workers", 1]
        words += [] if words[1] == "dicom" else ["--classes", "0=no,1=yes"]
        assert run(*words)[0] == 2, option
        code, out, err = run(*words, *option.split())
        assert code == 0, err
    found = ["label 1: 0 no", "label 1: 1 yes", "label 2: 0 no", "label 2: 1 yes"]
    assert [row(out, name) for name in found] == [[3], [1], [0], [4]]
    (tmp_path / "salt").write_text("the salt of all these runs")
    common, names = [*kinds["nodules"], "--shards", 1, "--salt-file", tmp_path / "salt"], []
    for seed in ("0", "1"):
        assert run(*common, tmp_path / seed, "--seed", seed)[0] == 0
        run(*common, tmp_path / f"split {seed}", "--seed", seed, "--split", THIRDS)
        names += [cases(tmp_path / seed), cases(tmp_path / f"split {seed}", "test")]
    assert names[0] != names[2] and sorted(names[0]) == sorted(names[2])  # another order
    assert {*names[1]} != {*names[3]}  # another split
    assert run(*common, tmp_path / "0", "--seed", 1)[0] == 2 and cases(tmp_path / "0") == names[0]
    assert run(*common, tmp_path / "0", "--seed", 1, "--overwrite")[0] == 0
    assert cases(tmp_path / "0") == names[2]
    assert [path.name for path in tmp_path.glob("0/*d")] == ["all-00000-of-00001.tfrecord"]


def test_rejected_files_are_counted_by_code_and_named_only_if_asked_for(run, tmp_path):
    disc = phantoms.messy_folder(tmp_path / "data")
    (disc / "clear\x1b[2J.txt").write_text("notes")
    arguments = ["convert", "dicom", disc, tmp_path / "out", "--workers", 1]
    arguments += ["--salt-file", tmp_path / "salt"]
    (tmp_path / "salt").write_text("the salt of both runs")
    before = held(tmp_path)
    code, dry, _ = run(*arguments, "--dry-run")
    assert code == 1 and held(tmp_path) == before
    code, out, err = run(*arguments)
    assert code == 1 and dry.endswith(out) and "nothing was written" in dry.removesuffix(out)
    everything, written, lost = equation(out)
    assert everything == sum(len(names) for _, _, names in os.walk(disc)) == written + lost == 253
    counts = re.findall(r"^ +(\d+)  ([A-Z_]+): (.*)\n +to do: (.*)$", out, re.MULTILINE)
    assert counts == [
        (number, code, *CODES[code].split(": "))
        for number, code in (("4", "NOT_AN_IMAGE"), ("4", "NOT_DICOM"), ("1", "SCOUT"))
    ]
    assert "clear" not in out + err and "\n       1  MONOCHROME1 inverted\n" in out
    _, out, err = run(*arguments, "--paths", "--overwrite")
    named = dict(re.findall(r"^([A-Z_]+)  '(.*)': '.+'$", out, re.MULTILINE)[::-1])
    assert "NOT_DICOM  'clear\\x1b[2J.txt': 'no DICM mark" in out and "\x1b" not in out
    assert len(re.findall("^[A-Z_]+  '.*': '", out, re.MULTILINE)) == lost and "clear" not in err
    assert named["NOT_AN_IMAGE"] == "DICOMDIR" and (disc / named["SCOUT"]).exists()


def test_where_no_case_becomes_a_record_nothing_is_left(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("notes")
    for paths in ([], ["--paths"]):
        words = ["convert", "dicom", tmp_path / "in", tmp_path / "out", "--workers", 1]
        code, out, err = run(*words, *paths)
        assert code == 2 and equation(out) == (1, 0, 1) and "NOTHING_WRITTEN" in err
        assert ("notes.txt" in out) == bool(paths) and "notes.txt" not in err
        assert os.listdir(tmp_path) == ["in"]


def test_the_salt_is_made_once_for_its_owner_and_decides_the_hashes(run, kinds, tmp_path):
    for name, more in {"a": [], "b": ["--salt-file", tmp_path / "a.salt"], "c": []}.items():
        assert run(*kinds["dicom"], tmp_path / name, *more)[0] == 0
    assert re.fullmatch("[0-9a-f]{64}\n", (tmp_path / "a.salt").read_text())
    assert (tmp_path / "a.salt").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "b.salt").exists()
    first, second, third = (cases(tmp_path / name) for name in "abc")
    assert first == second and not {*first} & {*third}
    assert run(*kinds["dicom"], tmp_path / "d", "--dry-run")[0] == 0
    assert not (tmp_path / "d.salt").exists() and not (tmp_path / "d").exists()


def test_verify_names_each_shard_that_is_not_as_it_was_written(run, kinds, tmp_path):
    folder = tmp_path / "out"
    run(*kinds["dicom"], folder)
    assert run("verify", folder) == (0, "3 shards, 3 records: no faults\n", "")
    one, two, _ = sorted(folder.glob("*.tfrecord"))
    two.rename(folder / "foreign.tfrecord")
    one.write_bytes(one.read_bytes()[:-1] + b"?")
    code, out, _ = run("verify", folder)
    found = dict(re.findall(r"^([A-Z_]+)  (\S+): .", out, re.MULTILINE))
    assert code == 1 and out.endswith("\n3 shards, 3 records: 3 faults\n")
    expected = {"ALTERED_SHARD": one.name, "MISSING_SHARD": two.name}
    assert found == expected | {"FOREIGN_SHARD": "foreign.tfrecord"}
    (folder / "manifest.json").write_text("{}")
    code, out, err = run("verify", folder)
    assert (code, out) == (2, "") and "MANIFEST_DAMAGED" in err and "out" not in err


def test_a_reader_that_has_seen_enough_is_no_error(run, kinds, tmp_path):
    run(*kinds["dicom"], tmp_path / "out")
    command = [sys.executable, "-m", "helpers", "verify", tmp_path / "out"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


WAITS = """
import os, signal, sys, time
import psutil
from helpers import __main__, dicom

def load(case):
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(600)

if __name__ == "__main__":
    import waits
    dicom.load = waits.load
    code = __main__.main(sys.argv[1:])
    commands = [" ".join(one.cmdline()) for one in psutil.Process().children()]
    print(code, [one for one in commands if "resource_tracker" not in one])
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
def test_after_ctrl_c_no_worker_lives_on_and_the_same_command_goes_on(
    run, sets, kinds, tmp_path, monkeypatch
):
    (tmp_path / "waits.py").write_text(WAITS)
    command = [sys.executable, tmp_path / "waits.py", "convert", "dicom", sets / "dicom"]
    command += [tmp_path / "a", "--workers", "2"]
    settings = {"env": os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", **settings)
    assert done.stdout == "130 []\n" and "Interrupted." in done.stderr
    assert os.listdir(tmp_path) == ["waits.py"]
    load, calls = dicom.load, []

    def last(case):
        calls.append(case)
        if len(calls) > 1:
            os.kill(os.getpid(), signal.SIGINT)
        return load(case)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(dicom, "load", last)
        code, out, err = run(*kinds["dicom"], tmp_path / "out")
    assert (code, out) == (130, "") and "Interrupted. The same command" in err
    assert signal.getsignal(signal.SIGINT) is before
    assert run("verify", tmp_path / "out")[0] == 2
    assert run(*kinds["dicom"], tmp_path / "out")[0] == 0  # with the salt that was made
    run(*kinds["dicom"], tmp_path / "whole", "--salt-file", tmp_path / "out.salt")
    assert held(tmp_path / "out") == held(tmp_path / "whole")


def test_the_guide_has_every_code_every_option_and_what_its_commands_print(run, tmp_path):
    guide = (ROOT / "docs" / "converting.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([A-Z_]+)` \| (.*) \| (.*) \|$", guide, re.MULTILINE)
    assert [": ".join(words) for _, *words in table] == [CODES[code] for code, *_ in table]
    help_ = "".join(run("convert", one, "--help")[1] for one in ("dicom", "decathlon", "pictures"))
    assert set(re.findall("--[a-z][a-z-]+", guide)) <= set(re.findall("--[a-z-]+", help_))
    disc = phantoms.messy_folder(tmp_path / "data")
    _, out, _ = run("convert", "dicom", disc, tmp_path / "out", "--workers", 1)
    assert f"```text\n{out}```" in guide
    (code,) = re.findall("```python\n(.*?)```", guide, re.DOTALL)
    found: dict = {}
    exec(code.replace('"records"', repr(str(tmp_path / "out"))), found)
    assert found["dataset"].cardinality() == int(row(out, "records")[0])
