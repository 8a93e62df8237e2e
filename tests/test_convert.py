"""The converter at a terminal: what it says is so, and what it refuses leaves no trace."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom.data
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import convert_report, dicom, phantoms, records
from helpers.__main__ import main
from helpers.cases import Rejection
from helpers.errors import CODES
from helpers.records.manifest import Manifest, Shard
from tests.dicom_files import voxels, write_series

ROOT = Path(__file__).parent.parent
COMMANDS = ["convert", "convert dicom", "convert decathlon", "convert pictures", "verify"]
ONE = ["--workers", 1]
SHARD = re.compile(r"([A-Za-z0-9_]+)-(\d{5})-of-(\d{5})\.tfrecord")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd):
    """Run a command line in this process."""

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as ended:
            code = ended.code
        return Ran(code, *capfd.readouterr())

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
def disc(tmp_path_factory) -> Path:
    return phantoms.messy_folder(tmp_path_factory.mktemp("disc"))


@pytest.fixture
def lesions(sets) -> list:
    """Arguments for the photographs, without classes."""
    return ["pictures", sets / "skin_lesions/images", "--masks", sets / "skin_lesions/masks", *ONE]


@pytest.fixture
def nodules(sets) -> list:
    folder = sets / "nodules"
    listed = ["--table", folder / "labels.csv", "--classes", "none,nodule"]
    return ["pictures", folder / "images", *listed, *ONE]


@pytest.fixture
def series(sets) -> list:
    return ["dicom", sets / "dicom", *ONE]


MAPPED = ["--map", "0=0,255=1", "--classes", "background,lesion"]
THIRDS = ["--split", "train=0.7,validation=0.15,test=0.15"]


def listing(folder: Path) -> dict[str, tuple]:
    """Everything in a folder: names, kinds, sizes, and times of change of files."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        changed = 0 if path.is_dir() else status.st_mtime_ns
        found[str(path)] = (status.st_mode, status.st_size, changed, status.st_ino)
    return found


def files_in(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def examples(folder: Path, split: str = "*") -> list:
    """The features of each record, by TensorFlow alone."""
    shards = sorted(str(path) for path in folder.glob(f"{split}-*.tfrecord"))
    found = tf.data.TFRecordDataset(shards).as_numpy_iterator()
    return [tf.train.Example.FromString(one).features.feature for one in found]


def names(folder: Path) -> set[str]:
    """The hashes in the records."""
    key = "image/filename" if "image/filename" in examples(folder)[0] else "case"
    return {one[key].bytes_list.value[0].decode() for one in examples(folder)}


def table(out: str, row: str = "records") -> dict[str, int]:
    """A row of the printed tables: a number for each split."""
    heads: list[str] = []
    for line in out.splitlines():
        title = line[: convert_report.TITLE].strip()
        cells = line[convert_report.TITLE :].removesuffix("of pixels").split()
        if cells and title in ("", "masks with", "records labelled"):
            heads = cells
        elif " ".join(title.split()) == row:
            return dict(zip(heads, map(int, cells[: len(heads)]), strict=False))
    raise AssertionError(f"no row {row!r} in:\n{out}")


def equation(out: str) -> tuple[int, int, int]:
    found = re.search(r"^(\d+) files? = (\d+) written \+ (\d+) rejected$", out, re.MULTILINE)
    return tuple(int(number) for number in found.groups())


def rejected(out: str) -> Counter:
    """Files by code, as the report has them."""
    lines = re.findall(r"^ +(\d+)  ([A-Z_]+)  ", out, re.MULTILINE)
    return Counter({code: int(number) for number, code in lines})


# Help and arguments


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_of_80_columns_and_tells_the_exit_codes(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    ran = run(*command.split(), "--help")
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) < 80
    assert re.search("exit code: 0 .* 1 .* 2 ", ran.out, re.DOTALL)
    if command != "verify":
        example = "python -m helpers convert dicom" if command == "convert" else command
        assert re.search(f"examples?:.*{example} [a-zA-Z]", ran.out, re.DOTALL)


def test_help_comes_without_the_libraries_that_a_conversion_needs():
    heavy = {"tensorflow", "SimpleITK", "sklearn", "scipy", "pydicom", "numpy", "PIL", "pandas"}
    code = f"""
import sys
from helpers.__main__ import main
try:
    main(["convert", "dicom", "--help"])
except SystemExit:
    sys.exit(str({heavy} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False)
    assert done.stderr.decode().strip() == "set()"


@pytest.mark.parametrize(
    "wrong",
    [
        "--split train",
        "--split train=0.5",
        "--split train=1,test=0",
        "--split train=0.5,train=0.5",
        "--split train=nan,test=0.5",
        "--split tr-ain=0.5,test=0.5",
        "--seed -1",
        "--seed 4294967296",
        "--shards 0",
        "--shards many",
        "--workers 0",
        "--map 0",
        "--map 0=0,255=256",
        "--map 0=0,0=1",
        "--map a=b",
        "--classes a,,b",
        "--classes a,a",
        "--classes 0=a,b",
        "--classes x=a",
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_by_name(run, lesions, tmp_path, wrong):
    ran = run("convert", *lesions, tmp_path / "out", *wrong.split())
    assert (ran.code, ran.out) == (2, "")
    assert f"argument {wrong.split()[0]}: " in ran.err
    assert listing(tmp_path).keys() == {str(tmp_path)}


def test_what_a_shell_made_of_a_star_is_not_quoted_but_a_misspelt_option_is(run, tmp_path):
    ran = run("convert", "dicom", tmp_path / "A", tmp_path / "B", tmp_path / "DOE", "--dryrun=DOE")
    assert ran.code == 2
    assert "--dryrun" in ran.err and "DOE" not in ran.err


def test_classes_have_names_by_number_too(run, lesions, tmp_path):
    given_ = ["--map", "0=0,255=255", "--classes", "0=background,255=ignored"]
    ran = run("convert", *lesions, tmp_path / "out", *given_)
    assert ran.code == 0
    assert table(ran.out, "0 background") == table(ran.out, "255 ignored") == {"all": 12}


# Exit codes


@pytest.fixture(scope="module")
def with_a_document(sets, tmp_path_factory) -> dict[str, list]:
    """For each kind a set with one file that is no image."""
    folder = tmp_path_factory.mktemp("documents")
    write_series(folder / "dicom", voxels())
    (folder / "dicom" / "notes.txt").write_text("notes")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        pixels = np.arange(600, dtype=np.uint8).reshape(20, 30) % 2
        Image.fromarray(pixels).save(folder / kind / "a.png")
    (folder / "images" / "notes.txt").write_text("notes")
    source = sets / "decathlon_organs"
    listed = json.loads((source / "dataset.json").read_text())
    listed["test"].append("nothing.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(listed))
    pictures = [folder / "images", "--masks", folder / "masks", "--classes", "a,b"]
    return {
        "dicom": ["dicom", folder / "dicom"],
        "decathlon": ["decathlon", folder / "dataset.json", "--base", source],
        "pictures": ["pictures", *pictures],
    }


@pytest.mark.parametrize("kind", ["dicom", "decathlon", "pictures"])
def test_exit_codes_and_what_goes_to_which_stream(sets, with_a_document, lesions, tmp_path, kind):
    whole = {
        "dicom": ["dicom", sets / "dicom"],
        "decathlon": ["decathlon", sets / "decathlon_organs"],
        "pictures": [*lesions, *MAPPED],
    }
    nowhere = [kind, tmp_path / "nowhere"]
    for code, arguments in enumerate([whole[kind], with_a_document[kind], nowhere]):
        output = tmp_path / str(code)
        command = [sys.executable, "-m", "helpers", "convert", *arguments, output, *ONE]
        command = [str(word) for word in command]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, text=True, check=False)
        assert done.returncode == code, done.stderr
        if code == 2:
            assert (done.stdout, list(tmp_path.glob("2*"))) == ("", [])
            assert "INPUT: there is no such" in done.stderr
            continue
        assert "%|" in done.stderr and "%|" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) < 80
        everything, written, lost = equation(done.stdout)
        assert everything == written + lost
        assert code == lost == rejected(done.stdout).total()
        assert len(examples(output)) == sum(table(done.stdout).values())
        assert [one["code"] for one in records.load_manifest(output).rejected] == list(
            rejected(done.stdout)
        )


# What the report says


def test_a_messy_disc_is_written_or_rejected_to_the_last_file(run, disc, tmp_path):
    ran = run("convert", "dicom", disc, tmp_path / "out", *ONE)
    assert ran.code == 1
    everything, written, lost = equation(ran.out)
    assert everything == files_in(disc) == written + lost
    assert rejected(ran.out) == {"NOT_DICOM": 3, "NOT_AN_IMAGE": 4, "SCOUT": 1}
    assert table(ran.out) == {"all": 6} == {"all": len(examples(tmp_path / "out"))}
    assert table(ran.out, "patients") == {"all": len({one[:16] for one in names(tmp_path / "out")})}
    assert table(ran.out, "shards") == {"all": len(list(tmp_path.glob("out/*.tfrecord")))}
    stored = sum(path.stat().st_size for path in tmp_path.glob("out/*.tfrecord"))
    assert f"{stored / 1e6:.1f} MB" in ran.out
    kinds = Counter(one["image/dtype"].bytes_list.value[0] for one in examples(tmp_path / "out"))
    assert f"{kinds[b'int16']} of int16, {kinds[b'float32']} of float32" in ran.out


@pytest.mark.filterwarnings("ignore")  # the files are odd on purpose
def test_every_file_that_comes_with_pydicom_is_written_or_rejected(run, tmp_path):
    folder = Path(pydicom.data.__file__).parent
    ran = run("convert", "dicom", folder, tmp_path / "out", *ONE)
    assert ran.code == 1
    everything, written, lost = equation(ran.out)
    assert everything == files_in(folder) == written + lost
    assert rejected(ran.out).total() == lost
    assert set(rejected(ran.out)) <= set(CODES)
    assert table(ran.out)["all"] == len(examples(tmp_path / "out")) > 15


def test_classes_are_counted_by_split(run, lesions, nodules, tmp_path):
    ran = run("convert", *lesions, tmp_path / "a", *MAPPED, *THIRDS)
    assert ran.out.split()[:3] == ["train", "validation", "test"]
    ids = {}
    for split in ("train", "validation", "test"):
        masks = [
            tf.io.decode_png(one["image/segmentation/class/encoded"].bytes_list.value[0]).numpy()
            for one in examples(tmp_path / "a", split)
        ]
        ids[split] = Counter(number for mask in masks for number in np.unique(mask).tolist())
    for number, name in enumerate(("background", "lesion")):
        expected = {split: counter[number] for split, counter in ids.items()}
        assert table(ran.out, f"{number} {name}") == expected
    ran = run("convert", *nodules, tmp_path / "b", *THIRDS)
    for number, name in enumerate(("none", "nodule")):
        for split, count in table(ran.out, f"{number} {name}").items():
            labels = [one["label"].int64_list.value for one in examples(tmp_path / "b", split)]
            assert labels.count([number]) == count


def test_shares_of_pixels_are_those_of_the_masks(run, lesions, sets, tmp_path):
    ran = run("convert", *lesions, tmp_path / "out", *MAPPED, "--dry-run")
    masks = [np.array(Image.open(path)) for path in (sets / "skin_lesions/masks").iterdir()]
    share = sum((mask == 255).sum() for mask in masks) / sum(mask.size for mask in masks)
    assert f"{100 * share:.2f} %" in ran.out


def test_rejected_files_are_named_only_if_asked_for_and_cannot_steer_the_terminal(run, tmp_path):
    write_series(tmp_path / "in", voxels())
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "sub" / "clear\x1b[2J.txt").write_text("notes")
    ran = run("convert", "dicom", tmp_path / "in", tmp_path / "out", *ONE)
    assert "clear" not in ran.out + ran.err
    ran = run("convert", "dicom", tmp_path / "in", tmp_path / "out", *ONE, "--paths")
    assert f"  {'sub'}{os.sep}clear\\x1b[2J.txt\n" in ran.out
    assert "\x1b" not in ran.out and "clear" not in ran.err


def test_a_reason_stands_once_above_its_files():
    rejected = [Rejection((Path("/in/b"), Path("/in/a")), "COLOUR", "three samples")]
    rejected += [Rejection((Path("/masks/c"),), "COLOUR", "three samples")]
    rejected += [Rejection((Path("/in/d"),), "SCOUT", CODES["SCOUT"])]
    lines = convert_report.files(9, rejected, Path("/in")).splitlines()
    assert lines[0] == "9 files = 5 written + 4 rejected"
    assert [line.strip() for line in lines[5:9]] == ["three samples", "../masks/c", "a", "b"]
    assert [line.strip() for line in lines[10:]] == ["d"]


@pytest.mark.parametrize(
    "number, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9949, "9.9 kB"), (9950, "10 kB")]
    + [(999_499, "999 kB"), (999_500, "1.0 MB"), (12_851_200_000, "13 GB"), (2e15, "2000 TB")],
)
def test_sizes_have_units(number, text):
    assert convert_report.size(number) == text


def made(counts: dict[str, dict], classes: dict[int, str]) -> Manifest:
    """A manifest with one shard for each split."""
    common = {"patients": ["a"], "shapes": {"4x5x1": 1}, "dtypes": {"uint8": 1}}
    shards = [
        Shard(f"{name}-00000-of-00001.tfrecord", name, 1, 1, "", {"records": 1, **common, **one})
        for name, one in counts.items()
    ]
    return Manifest("volume", {}, classes, tuple(shards), (), {"all": 1})


def test_several_labels_are_counted_one_by_one():
    counts = {"train": {"labels": {"0 1": 3, "1 1": 2, "1 -1": 4}}, "test": {"labels": {"0 0": 1}}}
    lines = convert_report.summary(made(counts, {0: "no", 1: "yes"})).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("records labelled"))
    rows = [line.split() for line in lines[start + 1 : start + 8]]
    assert rows[:3] == [["label", "1"], ["0", "no", "3", "1"], ["1", "yes", "6", "0"]]
    assert rows[3:6] == [["label", "2"], ["0", "no", "0", "1"], ["1", "yes", "5", "0"]]
    assert rows[6] == ["-1", "(not", "known)", "4", "0"]


def test_masks_without_foreground_are_counted_apart():
    counts = {"mask_records": {"0": 3, "1": 1}, "mask_voxels": {"0": 7, "1": 1}, "empty_masks": 2}
    text = convert_report.summary(made({"train": counts}, {0: "no", 1: "yes", 2: "never"}))
    assert [table(text, row)["train"] for row in ("0 no", "1 yes", "2 never")] == [3, 1, 0]
    assert table(text, "nothing but 0") == {"train": 2}
    assert re.findall(r"[0-9.]+ %", text) == ["87.50 %", "12.50 %", "0.00 %"]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    splits=st.lists(st.text("abcxyz_09", min_size=1, max_size=40), min_size=1, unique=True),
    classes=st.dictionaries(st.integers(0, 255), st.text("abc xyzé", min_size=1), min_size=1),
    voxels_=st.integers(1, 2**50),
)
def test_any_table_fits_80_columns_and_names_every_split(splits, classes, voxels_):
    ids = {str(number): voxels_ for number in classes}
    one = {"mask_records": dict.fromkeys(ids, 1), "mask_voxels": ids, "labels": {"0": 1}}
    text = convert_report.summary(made(dict.fromkeys(splits, one), classes))
    assert max(map(len, text.splitlines())) < 80
    assert set(splits) <= set(text.split())


# What is written, and what is not


def test_a_dry_run_touches_nothing_and_tells_the_same(run, disc, tmp_path):
    salt = tmp_path / "salt"
    salt.write_text("the salt of both runs")
    arguments = ["convert", "dicom", disc, tmp_path / "out", *ONE, "--salt-file", salt]
    before, source = listing(tmp_path), listing(disc)
    dry = run(*arguments, "--dry-run")
    assert (dry.code, listing(tmp_path), listing(disc)) == (1, before, source)
    real = run(*arguments)
    assert dry.out.endswith(real.out)
    assert "nothing was written" in dry.out.removesuffix(real.out)
    assert listing(disc) == source


def test_a_dry_run_makes_no_salt(run, series, tmp_path):
    before = listing(tmp_path)
    assert run("convert", *series, tmp_path / "out", "--dry-run").code == 0
    assert listing(tmp_path) == before


def test_a_second_run_keeps_every_shard_and_says_so(run, series, tmp_path):
    first = run("convert", *series, tmp_path / "out")
    assert "already" not in first.out
    before = listing(tmp_path / "out")
    again = run("convert", *series, tmp_path / "out")
    assert again.out.startswith(first.out)
    assert "3 of 3 shards were there already" in again.out
    after = listing(tmp_path / "out")
    for path in tmp_path.glob("out/*.*"):
        assert after[str(path)] == before[str(path)]


def test_another_set_in_the_folder_is_kept_unless_it_may_be_overwritten(run, series, tmp_path):
    run("convert", *series, tmp_path / "out", "--shards", 1)
    before = {path: path.read_bytes() for path in tmp_path.glob("out/*.*")}
    ran = run("convert", *series, tmp_path / "out", "--shards", 3)
    assert (ran.code, ran.out) == (2, "")
    assert "OTHER_SET" in ran.err and "--overwrite" in ran.err
    assert {path: path.read_bytes() for path in tmp_path.glob("out/*.*")} == before
    assert run("convert", *series, tmp_path / "out", "--shards", 3, "--overwrite").code == 0
    assert len(list(tmp_path.glob("out/all-*-of-00003.tfrecord"))) == 3
    assert not list(tmp_path.glob("out/*-of-00001.tfrecord"))


@pytest.mark.parametrize("shards", [None, 2])
def test_shards_are_numbered_from_0_and_of_how_many(run, nodules, tmp_path, shards):
    wanted = ["--shards", shards] if shards else []
    ran = run("convert", *nodules, tmp_path / "out", *THIRDS, *wanted)
    found = Counter()
    for path in tmp_path.glob("out/*.tfrecord"):
        split, number, total = SHARD.fullmatch(path.name).groups()
        assert int(number) < int(total)
        found[split, int(total)] += 1
    assert all(total == count == (shards or 4) for (_, total), count in found.items())
    assert {split: count for (split, _), count in found.items()} == table(ran.out, "shards")


def test_masks_of_0_and_255_are_refused_before_anything_is_written(run, lesions, tmp_path):
    before = listing(tmp_path)
    for given_ in ([], ["--classes", "background,lesion"], ["--map", "0=0", *MAPPED[2:]]):
        ran = run("convert", *lesions, tmp_path / "out", *given_)
        assert (ran.code, ran.out) == (2, "")
        assert "UNKNOWN_LABEL" in ran.err and "255" in ran.err
        assert "--map" in ran.err and "--classes" in ran.err and "0=0,255=1" in ran.err
        assert listing(tmp_path) == before
    assert run("convert", *lesions, tmp_path / "out", *MAPPED).code == 0
    for one in examples(tmp_path / "out"):
        mask = tf.io.decode_png(one["image/segmentation/class/encoded"].bytes_list.value[0])
        assert set(np.unique(mask)) == {0, 1}


def test_where_no_case_becomes_a_record_nothing_is_left(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("notes")
    before = listing(tmp_path / "in")
    ran = run("convert", "dicom", tmp_path / "in", tmp_path / "out", *ONE)
    assert ran.code == 2
    assert equation(ran.out) == (1, 0, 1)
    assert "NOTHING_WRITTEN" in ran.err
    assert listing(tmp_path / "in") == before
    assert os.listdir(tmp_path) == ["in"]


def test_pictures_need_something_to_go_with_them(run, sets, tmp_path):
    images = sets / "nodules" / "images"
    for given_, told in ([], "--masks"), (["--table", tmp_path / "t.csv"], "--table"):
        ran = run("convert", "pictures", images, tmp_path / "out", *given_)
        assert ran.code == 2 and told in ran.err
    rows = [f"{path.name},P" for path in images.iterdir()]
    (tmp_path / "t.csv").write_text("\n".join(["file,patient", *rows]))
    ran = run("convert", "pictures", images, tmp_path / "out", "--table", tmp_path / "t.csv")
    assert ran.code == 2 and "column label" in ran.err
    assert os.listdir(tmp_path) == ["t.csv"]


# Places


@pytest.mark.parametrize(
    "output, salt, told",
    [
        ("in/out", None, "OUTPUT lies inside"),
        ("in", None, "OUTPUT lies inside"),
        ("in/disc/../out", None, "OUTPUT lies inside"),
        ("link/out", None, "OUTPUT lies inside"),
        (".", None, "an input lies inside of OUTPUT"),
        ("out", "out/salt", "the salt file lies inside of OUTPUT"),
        ("out", "in/salt", "the salt file lies inside of a folder that is searched"),
        ("in/a.dcm", None, "OUTPUT is a file"),
        ("in/a.dcm/out", None, "OUTPUT cannot be made"),
    ],
)
def test_places_that_lie_in_each_other_are_refused(run, tmp_path, output, salt, told):
    (tmp_path / "in" / "disc").mkdir(parents=True)
    (tmp_path / "in" / "a.dcm").write_bytes(b"")
    if "link" in output:
        (tmp_path / "link").symlink_to(tmp_path / "in")
    before = listing(tmp_path)
    given_ = ["--salt-file", tmp_path / salt] if salt else []
    ran = run("convert", "dicom", tmp_path / "in", tmp_path / output, *ONE, *given_)
    assert (ran.code, ran.out) == (2, "")
    assert told in " ".join(ran.err.split())
    assert listing(tmp_path) == before


def test_records_may_lie_beside_the_images_of_a_data_list(run, sets, tmp_path):
    source = tmp_path / "task"
    source.symlink_to(sets / "decathlon_organs")
    assert run("convert", "decathlon", source, tmp_path / "task_records", *ONE).code == 0
    ran = run("convert", "decathlon", source, sets, *ONE)
    assert ran.code == 2 and "an input lies inside of OUTPUT" in ran.err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do anything")
def test_a_folder_that_may_not_be_written_to_is_refused_at_once(run, series, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    ran = run("convert", *series, tmp_path / "shut" / "out")
    assert ran.code == 2 and "OUTPUT cannot be made or written to" in ran.err
    assert "%|" not in ran.err


# Salt


def test_the_salt_is_made_once_for_its_owner_only(run, series, tmp_path):
    run("convert", *series, tmp_path / "out")
    salt = tmp_path / "out.salt"
    assert re.fullmatch("[0-9a-f]{64}\n", salt.read_text())
    if os.name == "posix":
        assert salt.stat().st_mode & 0o777 == 0o600
    before, first = listing(salt), names(tmp_path / "out")
    run("convert", *series, tmp_path / "other", "--salt-file", salt)
    assert listing(salt) == before
    assert not (tmp_path / "other.salt").exists()
    assert names(tmp_path / "other") == first
    run("convert", *series, tmp_path / "third")
    assert not {half for one in names(tmp_path / "third") for half in one.split("-")} & {
        half for one in first for half in one.split("-")
    }
    assert (tmp_path / "third.salt").read_text() != salt.read_text()


@pytest.mark.parametrize("content", [b"", b"short\n", b"       x       ", b"\xff\xfe long enough"])
def test_a_salt_that_keeps_no_secret_is_refused_and_kept(run, series, tmp_path, content):
    (tmp_path / "salt").write_bytes(content)
    ran = run("convert", *series, tmp_path / "out", "--salt-file", tmp_path / "salt")
    assert ran.code == 2 and "--salt-file: " in ran.err
    assert os.listdir(tmp_path) == ["salt"]
    assert (tmp_path / "salt").read_bytes() == content


# Splits


def test_a_patient_is_in_one_split_only(run, nodules, sets, tmp_path):
    ran = run("convert", *nodules, tmp_path / "out", *THIRDS)
    rows = (sets / "nodules" / "labels.csv").read_text().splitlines()[1:]
    images_of = Counter(row.split(",")[1] for row in rows)
    places, held = {}, Counter()
    for split in ("train", "validation", "test"):
        for one in examples(tmp_path / "out", split):
            patient = one["case"].bytes_list.value[0].decode().split("-")[0]
            assert places.setdefault(patient, split) == split
            held[patient] += 1
    assert sorted(held.values()) == sorted(images_of.values())
    assert Counter(places.values()) == table(ran.out, "patients")
    assert sum(table(ran.out).values()) == len(rows)


def test_another_seed_gives_another_split(run, nodules, tmp_path):
    found = set()
    salt = tmp_path / "salt"
    for seed in (1, 1, 2):
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        run("convert", *nodules, output, *THIRDS, "--seed", seed, "--salt-file", salt)
        found.add(frozenset(one["case"].bytes_list.value[0] for one in examples(output, "train")))
    assert len(found) == 2


def test_a_split_of_a_data_list_leaves_its_test_section_alone(run, sets, tmp_path):
    source = ["decathlon", sets / "decathlon_organs", *ONE]
    ran = run("convert", *source, tmp_path / "out", "--split", "train=0.5,validation=0.5")
    assert table(ran.out) == {"train": 2, "validation": 2, "test": 2}
    assert table(ran.out, "1 liver") == {"train": 2, "validation": 2, "test": 0}
    assert not any("mask" in one for one in examples(tmp_path / "out", "test"))
    before = listing(tmp_path)
    ran = run("convert", *source, tmp_path / "b", "--split", "train=0.5,test=0.5")
    assert ran.code == 2 and "section test" in ran.err
    assert listing(tmp_path) == before


def test_a_data_list_with_labels_and_an_unlabelled_test_section_is_converted(run, sets, tmp_path):
    source = sets / "decathlon_organs"
    listed = json.loads((source / "dataset.json").read_text())
    for number, item in enumerate(listed["training"]):
        item["label"] = number % 2
    (tmp_path / "list.json").write_text(json.dumps(listed))
    given_ = ["--base", source, "--classes", "no,yes", *ONE]
    ran = run("convert", "decathlon", tmp_path / "list.json", tmp_path / "out", *given_)
    assert ran.code == 0
    assert table(ran.out, "1 yes") == {"train": 2, "test": 0}


# Interrupted


def interrupting(monkeypatch, after: int) -> None:
    load, calls = dicom.load, []

    @functools.wraps(load)
    def last(case):
        calls.append(case)
        if len(calls) > after:
            os.kill(os.getpid(), signal.SIGINT)
        return load(case)

    monkeypatch.setattr(dicom, "load", last)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
def test_after_ctrl_c_the_same_command_goes_on(run, series, tmp_path, monkeypatch):
    salt = ["--salt-file", tmp_path / "salt"]
    whole = run("convert", *series, tmp_path / "whole", *salt)
    with monkeypatch.context() as patch:
        interrupting(patch, after=1)
        ran = run("convert", *series, tmp_path / "out", *salt)
    assert (ran.code, ran.out) == (130, "")
    assert "Interrupted. The same command goes on from here." in ran.err
    assert "Traceback" not in ran.err
    assert run("verify", tmp_path / "out").code == 2
    again = run("convert", *series, tmp_path / "out", *salt)
    assert again.code == 0
    assert again.out == f"{whole.out}\n1 of 3 shards were there already: verified and kept.\n"
    for path in (tmp_path / "whole").glob("*.*"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


WAITS = """
import os, signal, sys, time
import psutil
from helpers import __main__, dicom

def load(case):
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)

if __name__ == "__main__":
    import waits
    dicom.load = waits.load
    code = __main__.main(sys.argv[1:])
    commands = [" ".join(one.cmdline()) for one in psutil.Process().children()]
    print(code, [one for one in commands if "resource_tracker" not in one])
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_worker_processes_in_the_middle_of_a_case(sets, tmp_path):
    (tmp_path / "waits.py").write_text(WAITS)
    command = [tmp_path / "waits.py", "convert", "dicom", sets / "dicom", tmp_path / "out"]
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, *map(str, command), "--workers", "2"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
        timeout=45,  # the workers would sleep for longer
        check=False,
    )
    assert done.stdout == "130 []\n"
    assert "Interrupted." in done.stderr and "Traceback" not in done.stderr


# verify


@pytest.fixture
def written(run, series, tmp_path) -> Path:
    run("convert", *series, tmp_path / "out")
    return tmp_path / "out"


def test_records_that_are_whole_are_called_whole(run, written):
    ran = run("verify", written)
    stored = sum(path.stat().st_size for path in written.glob("*.tfrecord"))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"3 shards, 3 records, {stored / 1000:.1f} kB: all as they were written\n"


def test_each_damaged_shard_is_named_with_what_is_wrong(run, written):
    first, second, third = sorted(written.glob("*.tfrecord"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:-1])
    third.rename(written / "foreign.tfrecord")
    ran = run("verify", written)
    assert ran.code == 1
    found = dict(re.findall(r"^([A-Z_]+) +(\S+): ", ran.out, re.MULTILINE))
    assert found == {
        "ALTERED_SHARD": first.name,
        "TRUNCATED_SHARD": second.name,
        "MISSING_SHARD": third.name,
        "FOREIGN_SHARD": "foreign.tfrecord",
    }
    assert "4 faults" in ran.out


def test_without_a_usable_manifest_there_is_nothing_to_verify(run, written, tmp_path):
    manifest = written / "manifest.json"
    manifest.write_text(manifest.read_text().replace("3", "4"))
    for folder, told in (
        (written, "MANIFEST_DAMAGED"),
        (tmp_path, "NO_MANIFEST"),
        (tmp_path / "nowhere", "no such folder"),
    ):
        ran = run("verify", folder)
        assert (ran.code, ran.out) == (2, "")
        assert told in ran.err


def test_a_damaged_set_is_repaired_by_the_same_command(run, written, series):
    whole = {path.name: path.read_bytes() for path in written.glob("*.*")}
    first, second, _ = sorted(written.glob("*.tfrecord"))
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    ran = run("convert", *series, written)
    assert ran.code == 0
    assert "1 of 3 shards were there already" in ran.out
    assert {path.name: path.read_bytes() for path in written.glob("*.*")} == whole


# The guide


@pytest.fixture(scope="module")
def guide() -> str:
    return (ROOT / "docs" / "converting.md").read_text(encoding="utf-8")


def test_the_guide_has_every_code_but_those_that_the_converter_never_meets(guide):
    rows = [line.split("|")[1] for line in guide.splitlines() if line.startswith("| `")]
    listed = [code for row in rows for code in re.findall("`([A-Z_]+)`", row)]
    assert len(set(listed)) == len(listed)
    of_the_reader, of_crops = {"NO_SERIES", "SEVERAL_SERIES"}, {"CROP_TOO_LARGE", "NO_PLACE"}
    of_pipelines = {"EMPTY_LIST", "EMPTY_CLASS", "BAD_WEIGHT", "CACHE_TOO_LARGE", "LOADING_FAILED"}
    of_leaks = {"IMAGE_IN_TWO_SPLITS"}
    assert set(listed) == set(CODES) - of_the_reader - of_crops - of_pipelines - of_leaks
    assert len(guide.splitlines()) <= 150


def test_the_guide_names_options_that_there_are(run, guide):
    kinds = ("dicom", "decathlon", "pictures")
    known = "".join(run("convert", kind, "--help").out for kind in kinds)
    assert set(re.findall("--[a-z][a-z-]+", guide)) <= set(re.findall("--[a-z-]+", known))


def test_the_guide_shows_what_its_commands_print(run, guide, disc, tmp_path):
    ran = run("convert", "dicom", disc, tmp_path / "out", *ONE)
    assert f"```text\n{ran.out}```" in guide
    (code,) = re.findall("```python\n(.*?)```", guide, re.DOTALL)
    found = {}
    exec(code.replace('"records"', repr(str(tmp_path / "out"))), found)
    assert found["dataset"].cardinality() == table(ran.out)["all"]
    assert run("verify", tmp_path / "out").code == 0


def test_notes_of_equal_count_stand_in_the_order_of_the_alphabet():
    rows = [convert_report._by_count(Counter(notes)) for notes in ("bbbcaac", "acbbcab")]
    assert rows[0] == rows[1] == [("b", 3), ("a", 2), ("c", 2)]
