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

from helpers import dicom
from helpers.__main__ import main
from helpers.commands.convert import KINDS
from helpers.errors import CODES
from helpers.lesson import phantoms
from tests.dicom_files import voxels, write, write_series

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "converting.md").read_text(encoding="utf-8")
THIRDS = "train=0.7,validation=0.15,test=0.15"
WRONG = """--split train|--split ../a=0.5,b=0.5|--split a=0.5|--split a=1,b=0|--split a=.5,a=.5
--split a=nan,b=1|--seed -1
--seed 4294967296|--shards many|--workers 1.5|--map 0|--map 0=0,255=256|--map 0=-1|--map a=b
--classes x=a|--classes a=b=c|--classes 1=a,1=b|--map 0=0,0=1"""


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
    for n in range(3):
        write_series(folder / f"dicom/{n}", voxels(seed=n), series=f"1.2.{n}", PatientID=f"P{n}")
    return folder


@pytest.fixture(scope="module")
def kinds(sets) -> dict[str, list]:
    """Arguments that convert every file of a set."""
    lesions, nodules, one = sets / "skin_lesions", sets / "nodules", ["--workers", 1]
    mapped = ["--masks", lesions / "masks", "--map", "0=0,255=1"]
    return {
        "dicom": ["convert", "dicom", sets / "dicom", *one],
        "decathlon": ["convert", "decathlon", sets / "decathlon_organs", *one],
        "skin_lesions": ["convert", "pictures", lesions / "images", *one, *mapped]
        + ["--classes", "background,lesion,other"],
        "nodules": ["convert", "pictures", nodules / "images", *one, "--classes", "none,nodule"]
        + ["--table", nodules / "labels.csv"],
    }


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
        code, out, err = run(*kinds["skin_lesions"], tmp_path / "out", *words.split())
        assert (code, out) == (2, "") and f"argument {words.split()[0]}: " in err, words
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_converted_leaves_nothing(run, kinds, sets, tmp_path, monkeypatch):
    (tmp_path / "salt").write_text("short")
    pictures = sets / "nodules" / "images"
    rows = [f"{path.name},P" for path in pictures.iterdir()]
    (tmp_path / "t.csv").write_text("\n".join(["file,patient", *rows]))
    masks = ["convert", "pictures", pictures, "--masks", sets / "skin_lesions"]
    dicoms, away = ["convert", "dicom", sets / "dicom"], ["--salt-file", tmp_path / "a salt"]
    inside, lists = "may not lie inside of each other", sets / "decathlon_organs"
    told = {  # the command line, and what the message says
        "an unknown option": ([*kinds["dicom"], "out", "--dryrun=DOE"], "unknown: --dryrun"),
        "a name too many": ([*kinds["dicom"], "out", "DOE", "DOE"], "2 arguments too many"),
        "no input": (["convert", "dicom", "nowhere", "out"], "o such file"),
        "output in input": (["convert", "dicom", sets, sets / "out", *away], inside),
        "output in masks": ([*masks, sets / "skin_lesions" / "out", *away], inside),
        "input in output": ([*dicoms, sets], inside),
        "list in output": (["convert", "decathlon", lists / "dataset.json", lists], inside),
        "masks in output": ([*masks[:3], "--masks", tmp_path / "a" / "b", tmp_path / "a"], inside),
        "salt in input": ([*dicoms, "out", "--salt-file", sets / "dicom" / "s"], inside),
        "salt in output": ([*dicoms, "out", "--salt-file", "out/s"], inside),
        "output a file": ([*dicoms, "t.csv"], "Not a directory"),
        "a short salt": ([*dicoms, "out", "--salt-file", "salt"], "8 characters"),
        "neither masks nor labels": (["convert", "pictures", pictures, "out"], "--masks"),
        "no label": (["convert", "pictures", pictures, "out", "--table", "t.csv"], "column label"),
        "a section twice": ([*kinds["decathlon"], "out", "--split", "a=.5,test=.5"], "section"),
        "255 without a class": ([*kinds["skin_lesions"], "out", "--map", "0=0"], "--map 0=0,255=1"),
        "no manifest": (["verify", sets / "dicom"], "NO_MANIFEST"),
    }
    monkeypatch.chdir(tmp_path)
    before = held(tmp_path), held(sets)
    for name, (words, expected) in told.items():
        code, out, err = run(*words)
        assert (code, out) == (2, "") and expected in err, (name, err)
        assert not re.search(r"DOE|\.(jpg|png|nii|dcm)", err), (name, err)
        assert (held(tmp_path), held(sets)) == before, name
    assert len([*tmp_path.iterdir()]) == 2


def class_ids(one: dict) -> list[int]:
    """The ids in the mask of a record, or its labels."""
    if drawn := one.get("image/segmentation/class/encoded"):
        return np.unique(tf.io.decode_png(drawn[0]).numpy()).tolist()
    return one.get("label") or [*one.get("mask", [b""])[0]]


HELD = {  # the classes by their ids, and what the images are
    "dicom": ("mask", [], "shape: 5x6x7x1\ndtype: int16"),
    "decathlon": ("mask", phantoms.ORGANS, "shape: 24x48x56x1\ndtype: int16"),
    "skin_lesions": ("mask", ["background", "lesion", "other"], "9 more\ndtype: jpeg"),
    "nodules": ("label 1", ["none", "nodule"], "shape: 64x64x1\ndtype: int16"),
}


@pytest.mark.parametrize("kind", HELD)
def test_the_report_says_what_the_records_hold(run, sets, kinds, tmp_path, kind):
    # The data list has a test section.
    folder, parts = tmp_path / "out", "train=.5,validation=.5" if kind == "decathlon" else THIRDS
    code, out, err = run(*kinds[kind], folder, "--split", parts)
    inside = sets.glob(f"{kind}*/**/*.*")
    files = [path for path in inside if path.suffix not in (".json", ".csv")]
    assert (code, equation(out)) == (0, (len(files), len(files), 0)) and "%|" in err
    title, names, images = HELD[kind]
    assert images in out and "--paths" not in out and max(map(len, out.splitlines())) < 80
    splits = out.splitlines()[0].split()[1:]
    found = [examples(folder, split) for split in splits]
    assert row(out, "records") == list(map(len, found)) == sorted(map(len, found), reverse=True)
    patients = [{*cases(folder, split, 16)} for split in splits]
    assert row(out, "patients") == list(map(len, patients))
    assert len(set.union(*patients)) == sum(map(len, patients))  # each in one split
    shards = [[*folder.glob(f"{split}-*.tfrecord")] for split in splits]
    assert row(out, "shards") == list(map(len, shards))
    sizes = [sum(one.stat().st_size for one in some) for some in shards]
    assert row(out, "MB") == [round(size / 1e6, 1) for size in sizes]
    for number, name in enumerate(names):
        expected = [sum(number in class_ids(one) for one in some) for some in found]
        assert row(out, f"{title}: {number} {name}") == expected


def test_each_option_does_what_its_help_says(run, sets, kinds, tmp_path):
    write_series(tmp_path / "scan", voxels(), Modality="US")
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
    before = held(tmp_path)
    for option, words in needed.items():
        words = ["convert", *words, tmp_path / f"out {option[:6]}", "--workers", 1]
        words += [] if words[1] == "dicom" else ["--classes", "0=no,1=yes"]
        code, out, err = run(*words, "--paths")
        names = re.findall(r"^[A-Z_]+  '(\.\./m|a|IM|imagesTr/)", out, re.MULTILINE)
        counts = re.findall(r"^ +(\d+)  [A-Z_]+: ", out, re.MULTILINE)
        assert code == 2 and equation(out) == (len(names), 0, sum(map(int, counts))), option
        assert "NOTHING_WRITTEN" in err and held(tmp_path) == before
        code, out, err = run(*words, *option.split())
        assert code == 0, err
        before = held(tmp_path)
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


def test_the_guide_shows_what_its_commands_print_and_names_come_only_if_asked_for(run, tmp_path):
    disc = phantoms.messy_folder(tmp_path / "data")
    (tmp_path / "salt").write_text("the salt of all runs")
    arguments = ["convert", "dicom", disc, tmp_path / "out", "--workers", 1]
    arguments, before = [*arguments, "--salt-file", tmp_path / "salt"], held(tmp_path)
    code, dry, _ = run(*arguments, "--dry-run")
    assert code == 1 and held(tmp_path) == before
    code, out, err = run(*arguments)
    assert code == 1 and dry.endswith(out) and "nothing was written" in dry.removesuffix(out)
    assert f"```text\n{out}```" in GUIDE
    count = sum(len(names) for _, _, names in os.walk(disc))
    assert equation(out)[0] == count and f"{count}/{count}" in err  # progress
    (code,) = re.findall("```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(code.replace('"records"', repr(str(tmp_path / "out"))), found := {})
    assert found["dataset"].cardinality() == int(row(out, "records")[0])
    (disc / "clear\x1b[2J.txt").write_text("notes")
    _, out, err = run(*arguments, "--paths", "--overwrite")
    named = re.findall(r"^([A-Z_]+)  '(.*)': '(.+)'$", out, re.MULTILINE)
    assert ("NOT_DICOM", r"clear\x1b[2J.txt", "no DICM mark after 128 bytes") in named
    assert "\x1b" not in out and "clear" not in err and len(named) == equation(out)[2] == 9
    assert all((disc / name).exists() for _, name, _ in named if "clear" not in name)


def test_the_guide_has_every_code_and_no_option_that_there_is_not(run):
    table = re.findall(r"^\| `([A-Z_]+)` \| (.*) \| (.*) \|$", GUIDE, re.MULTILINE)
    assert [": ".join(words) for _, *words in table] == [CODES[code] for code, *_ in table]
    told = "".join(run("convert", kind, "--help")[1] for kind in KINDS)
    assert set(re.findall("--[a-z][a-z-]+", GUIDE)) <= set(re.findall("--[a-z-]+", told))


def test_the_salt_is_made_once_for_its_owner_and_decides_the_hashes(run, kinds, tmp_path):
    salt = tmp_path / "a.salt"
    (tmp_path / "d").mkdir()
    for name, more in {"a": [], "b": ["--salt-file", salt], "c": [], "d": ["--dry-run"]}.items():
        assert run(*kinds["dicom"], tmp_path / name, *more)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.salt", "b", "c", "c.salt", "d"}
    assert re.fullmatch("[0-9a-f]{64}\n", salt.read_text()) and salt.stat().st_mode & 0o777 == 0o600
    first, second, third = (cases(tmp_path / name) for name in "abc")
    assert first == second and not {*first} & {*third}


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
    reader, writer = os.pipe()
    os.close(reader)  # it has seen enough
    command = [sys.executable, "-m", "helpers", "verify", folder]
    buffered = {"env": os.environ | {"PYTHONUNBUFFERED": ""}, "cwd": ROOT}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, **buffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_after_ctrl_c_the_same_command_goes_on(run, kinds, tmp_path, monkeypatch):
    load, calls, before = dicom.load, [], signal.getsignal(signal.SIGINT)

    def second(case):
        calls.append(case)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return load(case)

    with monkeypatch.context() as patch:
        patch.setattr(dicom, "load", second)
        code, out, err = run(*kinds["dicom"], tmp_path / "out")
    assert (code, out) == (130, "") and "Interrupted. The same command" in err
    assert signal.getsignal(signal.SIGINT) is before and run("verify", tmp_path / "out")[0] == 2
    assert (tmp_path / "out.salt").exists() and run(*kinds["dicom"], tmp_path / "out")[0] == 0
