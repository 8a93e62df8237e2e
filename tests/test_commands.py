"""The converter at a terminal: what it says is so, and what it refuses leaves no trace."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from helpers import dicom, phantoms, records
from helpers.__main__ import main
from helpers.cases import Case, Found, Rejection
from helpers.commands import report
from helpers.errors import CODES, cure
from tests.dicom_files import voxels, write_series

ROOT = Path(__file__).parent.parent
ONE = ["--workers", 1]
MAPPED = ["--map", "0=0,255=1", "--classes", "background,lesion"]
THIRDS = ["--split", "train=0.7,validation=0.15,test=0.15"]


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
    return {
        "dicom": ["dicom", sets / "dicom", *ONE],
        "decathlon": ["decathlon", sets / "decathlon_organs", *ONE],
        "lesions": ["pictures", lesions / "images", "--masks", lesions / "masks", *MAPPED, *ONE],
        "nodules": ["pictures", nodules / "images", *table, *ONE],
    }


def held(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def examples(folder: Path, split: str = "*") -> list:
    """The features of each record, by TensorFlow alone."""
    shards = sorted(map(str, folder.glob(f"{split}-*.tfrecord")))
    found = tf.data.TFRecordDataset(shards).as_numpy_iterator()
    return [tf.train.Example.FromString(one).features.feature for one in found]


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
    assert max(map(len, done.stdout.splitlines())) < 80
    assert not command or "exit code: 0 " in " ".join(done.stdout.split())


def test_an_argument_that_cannot_be_meant_is_refused_by_name_and_nothing_is_made(
    run, kinds, sets, tmp_path, monkeypatch
):
    wrong = (
        "--split train | --split a=0.5 | --split a=1,b=0 | --split a=.5,a=.5 | --split a=nan,b=1"
    )
    wrong += " | --seed -1 | --seed 4294967296 | --shards many | --map 0 | --map 0=0,255=256"
    wrong += " | --map 0=0,0=1 | --map a=b | --classes a,,b | --classes a,a | --classes x=a"
    for words in wrong.split(" | "):
        code, out, err = run("convert", *kinds["lesions"], tmp_path / "out", *words.split())
        assert (code, out) == (2, "") and f"argument {words.split()[0]}: " in err, words
    (tmp_path / "salt").write_text("short")
    images = sets / "nodules" / "images"
    rows = [f"{path.name},P" for path in images.iterdir()]
    (tmp_path / "t.csv").write_text("\n".join(["file,patient", *rows]))
    told = {  # the rest of the command line, and what the message says
        "an unknown option": ([*kinds["dicom"], "out", "--dryrun=DOE"], "--dryrun"),
        "no input": (["dicom", "nowhere", "out"], "no such"),
        "no list": (["decathlon", sets / "dicom", "out"], "no such"),
        "output in input": (["dicom", sets, sets / "out"], "OUTPUT lies inside of INPUT"),
        "input in output": (["dicom", sets / "dicom", sets], "INPUT lies inside of OUTPUT"),
        "salt in output": ([*kinds["dicom"], "out", "--salt-file", "out/s"], "salt file lies"),
        "output a file": ([*kinds["dicom"], "t.csv"], "OUTPUT"),
        "a short salt": ([*kinds["dicom"], "out", "--salt-file", "salt"], "salt"),
        "neither masks nor labels": (["pictures", images, "out"], "--masks"),
        "no column label": (["pictures", images, "out", "--table", "t.csv"], "column label"),
        "a section twice": ([*kinds["decathlon"], "out", "--split", "a=.5,test=.5"], "section"),
        "255 without a class": ([*kinds["lesions"], "out", "--map", "0=0"], "--map 0=0,255=1"),
    }
    monkeypatch.chdir(tmp_path)
    before = held(tmp_path), held(sets)
    for name, (words, expected) in told.items():
        code, out, err = run("convert", *words)
        assert (code, out) == (2, "") and expected in err and "DOE" not in err, (name, err)
        assert (held(tmp_path), held(sets)) == before, name


@pytest.mark.parametrize("kind", ["dicom", "decathlon", "lesions", "nodules"])
def test_every_file_is_written_and_the_report_says_what_the_records_hold(
    run, kinds, tmp_path, kind
):
    parts = {"dicom": [], "decathlon": ["--split", "train=0.5,validation=0.5"]}.get(kind, THIRDS)
    code, out, err = run("convert", *kinds[kind], tmp_path / "out", *parts)
    written, lost = equation(out)[1:]
    assert (code, lost) == (0, 0) and "%|" in err and max(map(len, out.splitlines())) < 80
    splits = out.splitlines()[0].split()
    found = {split: examples(tmp_path / "out", split) for split in splits}
    assert row(out, "records") == list(map(len, found.values()))
    assert written >= sum(map(len, found.values()))
    key = "image/filename" if kind == "lesions" else "case"
    patients = [{one[key].bytes_list.value[0][:16] for one in found[name]} for name in splits]
    assert row(out, "patients") == list(map(len, patients))
    assert len(set.union(*patients)) == sum(map(len, patients))  # each in one split
    assert row(out, "shards") == [
        len([*tmp_path.glob(f"out/{name}-*.tfrecord")]) for name in splits
    ]
    if kind == "nodules":
        ones = [sum(e["label"].int64_list.value == [1] for e in found[name]) for name in splits]
        assert row(out, "1 nodule") == ones
    if kind == "lesions":
        masks = {
            name: [
                tf.io.decode_png(e["image/segmentation/class/encoded"].bytes_list.value[0]).numpy()
                for e in found[name]
            ]
            for name in splits
        }
        share = np.concatenate([mask.ravel() for some in masks.values() for mask in some]).mean()
        counts = [sum(mask.any() for mask in masks[name]) for name in splits]
        assert row(out, "1 lesion") == [*counts, round(100 * share, 2)]
    if kind == "decathlon":  # its own test section stays, and has no masks
        assert splits == ["train", "validation", "test"]
        assert row(out, "1 liver")[:3] == [2, 2, 0]


def test_rejected_files_are_counted_by_code_and_named_only_if_asked_for(run, tmp_path):
    disc = phantoms.messy_folder(tmp_path / "data")
    (disc / "clear\x1b[2J.txt").write_text("notes")
    arguments = ["convert", "dicom", disc, tmp_path / "out", *ONE, "--salt-file", tmp_path / "salt"]
    (tmp_path / "salt").write_text("the salt of both runs")
    before = held(tmp_path)
    code, dry, _ = run(*arguments, "--dry-run")
    assert code == 1 and held(tmp_path) == before
    code, out, err = run(*arguments)
    assert code == 1 and dry.endswith(out) and "nothing was written" in dry.removesuffix(out)
    everything, written, lost = equation(out)
    assert everything == sum(len(names) for _, _, names in os.walk(disc)) == written + lost
    lines = re.findall(r"^ +(\d+)  ([A-Z_]+)  ", out, re.MULTILINE)
    assert {code: int(number) for number, code in lines} == {
        "NOT_DICOM": 4,
        "NOT_AN_IMAGE": 4,
        "SCOUT": 1,
    }
    assert cure("NOT_DICOM")[:9] in out and "clear" not in out + err
    assert "1 MONOCHROME1 inverted" in " ".join(out.split())
    _, out, err = run(*arguments, "--paths", "--overwrite")
    assert "\n            clear\\x1b[2J.txt\n" in out and "\x1b" not in out and "clear" not in err


def test_where_no_case_becomes_a_record_nothing_is_left(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("notes")
    code, out, err = run("convert", "dicom", tmp_path / "in", tmp_path / "out", *ONE)
    assert code == 2 and equation(out) == (1, 0, 1) and "NOTHING_WRITTEN" in err
    assert os.listdir(tmp_path) == ["in"]


def test_the_salt_is_made_once_for_its_owner_and_decides_the_hashes(run, kinds, tmp_path):
    for name, more in {"a": [], "b": ["--salt-file", tmp_path / "a.salt"], "c": []}.items():
        assert run("convert", *kinds["dicom"], tmp_path / name, *more)[0] == 0
    assert re.fullmatch("[0-9a-f]{64}\n", (tmp_path / "a.salt").read_text())
    assert (tmp_path / "a.salt").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "b.salt").exists()
    names = [{one["case"].bytes_list.value[0] for one in examples(tmp_path / n)} for n in "abc"]
    assert names[0] == names[1] and not names[0] & names[2]


def test_the_same_command_keeps_repairs_or_replaces_a_set(run, kinds, tmp_path):
    arguments = ["convert", *kinds["dicom"], tmp_path / "out"]
    _, first, _ = run(*arguments)
    whole = held(tmp_path / "out")
    assert run(*arguments)[1].startswith(first.rstrip())
    one, two, three = sorted(tmp_path.glob("out/*.tfrecord"))
    one.write_bytes(one.read_bytes()[:-9])
    two.write_bytes(two.read_bytes()[:-1] + b"?")
    three.rename(tmp_path / "out" / "foreign.tfrecord")
    code, out, _ = run("verify", tmp_path / "out")
    codes = {"TRUNCATED_SHARD": one, "ALTERED_SHARD": two, "MISSING_SHARD": three}
    found = dict(re.findall(r"^([A-Z_]+) +(\S+): ", out, re.MULTILINE))
    assert code == 1 and "4 faults" in out
    expected = {code: path.name for code, path in codes.items()}
    assert found == expected | {"FOREIGN_SHARD": "foreign.tfrecord"}
    (tmp_path / "out" / "foreign.tfrecord").unlink()
    assert run(*arguments)[0] == 0 and held(tmp_path / "out") == whole
    assert run("verify", tmp_path / "out")[:2] == (
        0,
        f"3 shards, 3 records, {0.0} MB: no faults\n",
    )
    code, _, err = run(*arguments, "--shards", 1)
    assert code == 2 and "OTHER_SET" in err and held(tmp_path / "out") == whole
    assert run(*arguments, "--shards", 1, "--overwrite")[0] == 0
    assert [path.name for path in tmp_path.glob("out/*.tfrecord")] == [
        "all-00000-of-00001.tfrecord"
    ]
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("3", "4"))
    for folder, told in ((manifest.parent, "MANIFEST_DAMAGED"), (tmp_path, "NO_MANIFEST"),
                         (tmp_path / "nowhere", "no such")):  # fmt: skip
        code, out, err = run("verify", folder)
        assert (code, out) == (2, "") and told in err


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
    run, kinds, tmp_path, monkeypatch
):
    (tmp_path / "waits.py").write_text(WAITS)
    command = [tmp_path / "waits.py", "convert", *kinds["dicom"][:2], tmp_path / "a"]
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, *map(str, command), "--workers", "2"],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": paths},
        encoding="utf-8",
    )
    assert done.stdout == "130 []\n" and "Interrupted." in done.stderr
    salt = ["--salt-file", tmp_path / "a.salt"]
    _, whole, _ = run("convert", *kinds["dicom"], tmp_path / "whole", *salt)
    load, calls = dicom.load, []

    def last(case):
        calls.append(case)
        if len(calls) > 1:
            os.kill(os.getpid(), signal.SIGINT)
        return load(case)

    last.__module__, last.__qualname__ = load.__module__, load.__qualname__
    with monkeypatch.context() as patch:
        patch.setattr(dicom, "load", last)
        code, out, err = run("convert", *kinds["dicom"], tmp_path / "out", *salt)
    assert (code, out) == (130, "") and "Interrupted. The same command" in err
    assert run("verify", tmp_path / "out")[0] == 2
    code, out, _ = run("convert", *kinds["dicom"], tmp_path / "out", *salt)
    assert code == 0 and out == f"{whole}\n1 shards were there already: verified and kept.\n"
    assert held(tmp_path / "out") == held(tmp_path / "whole")


def test_several_labels_are_counted_one_by_one(tmp_path):
    labels = [(0, 1), (1, 1), (1, -1), (1, -1)]
    cases = [Case(str(n), n, label=label, split="train") for n, label in enumerate(labels)]
    options = {"salt": "a salt of the tests", "classes": ("no", "yes", "never"), "workers": 1}
    found = Found(tuple(cases))
    load = lambda case: {"image": np.arange(6).reshape(2, 3)}  # noqa: E731
    written = records.write(tmp_path, found, "classification", load, progress=False, **options)
    text = report.summary(written.manifest)
    first, second = text.split("label 1")[1].split("label 2")
    assert [row(first, one) for one in ("0 no", "1 yes", "2 never")] == [[1], [3], [0]]
    assert [row(second, one) for one in ("0 no", "1 yes")] == [[0], [2]]
    assert row(second, "-1 (not known)") == [2]


def test_a_reason_stands_with_its_files():
    class Refused:
        rejected = (Rejection((Path("/in/b"), Path("/masks/a")), "COLOUR", "three samples"),)

    lines = [line.strip() for line in report.files(Refused, Path("/in")).splitlines()]
    assert lines[0] == "2 files = 0 written + 2 rejected"
    assert lines[-3:] == ["three samples", "b", "../masks/a"]


def test_the_guide_has_every_code_every_option_and_what_its_commands_print(run, tmp_path):
    guide = (ROOT / "docs" / "converting.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([A-Z_]+)` \| (.*) \| (.*) \|$", guide, re.MULTILINE)
    assert [": ".join(words) for _, *words in table] == [CODES[code] for code, *_ in table]
    known = "".join(
        run("convert", kind, "--help")[1] for kind in ("dicom", "decathlon", "pictures")
    )
    assert set(re.findall("--[a-z][a-z-]+", guide)) <= set(re.findall("--[a-z-]+", known))
    disc = phantoms.messy_folder(tmp_path / "data")
    _, out, _ = run("convert", "dicom", disc, tmp_path / "out", *ONE)
    assert f"```text\n{out}```" in guide
    (code,) = re.findall("```python\n(.*?)```", guide, re.DOTALL)
    found: dict = {}
    exec(code.replace('"records"', repr(str(tmp_path / "out"))), found)
    assert found["dataset"].cardinality() == int(row(out, "records")[0])
