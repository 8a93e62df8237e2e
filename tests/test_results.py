"""What is published is what was measured: benchmark tables, and pictures out of notebooks."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tools import results
from tools.cells import ROOT, NotebookError
from tools.pictures import FOLDER, PICTURES, picture

RUN = [
    {"name": "read_series, a", "unit": "ms", "against": "x", "ratio": 2.5},
    {"name": "read_series, b", "unit": "ms", "against": "x", "ratio": 0.5},
    {"name": "read_series, a", "unit": "x voxels", "against": "x", "ratio": 9},
    {"name": "scan, c", "unit": "ms", "against": "y", "ratio": 1},
    {"name": "d", "value": 1234.5, "unit": "ms an epoch", "against": "y", "ratio": 2},
    {"name": "d", "value": 1234.5, "unit": "ms an epoch", "against": "z", "ratio": 0.084},
    {"name": "e", "value": 9.87, "unit": "ms an epoch", "against": "y", "ratio": 1},
]
TABLE = """\
| | a | b | scan, c |
|---|---:|---:|---:|
| x | 2.50 | 0.50 |  |
| y |  |  | 1.00 |"""
OTHERS = """\
| | here | y | z |
|---|---:|---:|---:|
| d | 1,234 ms an epoch | 2.00 | 0.08 |

| | here | y |
|---|---:|---:|
| e | 9.87 ms an epoch | 1.00 |"""


def test_a_run_is_kept_and_its_tables_put_between_its_markers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "README", tmp_path / "README.md")
    monkeypatch.setattr(results, "PUBLISHED", tmp_path / "docs")
    (tmp_path / "docs").mkdir()
    given = "before <!-- run -->old<!-- /run --> <!-- run, others -->old<!-- /run, others -->"
    results.README.write_text(given, "utf-8")
    for name in ("run", "other"):
        (tmp_path / f"{name}.json").write_text(json.dumps(RUN), "utf-8")
    assert "no place <!-- other -->" in results.main(tmp_path / "other.json")
    assert results.README.read_text("utf-8") == given and not list(results.PUBLISHED.iterdir())
    for _ in range(2):  # the second time changes nothing
        assert results.main(tmp_path / "run.json") is None
        assert results.README.read_text("utf-8") == (
            f"before <!-- run -->\n\n{TABLE}\n\n<!-- /run --> "
            f"<!-- run, others -->\n\n{OTHERS}\n\n<!-- /run, others -->"
        )
    assert json.loads((results.PUBLISHED / "run.json").read_text("utf-8")) == RUN
    assert "run.json" in capsys.readouterr().out


def published(name: str) -> list[dict]:
    return json.loads((results.PUBLISHED / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", ["dicom_reading", "records", "augmentation", "reading", "deeplab"])
def test_readme_shows_the_published_run(name):
    comparisons, text = published(name), results.README.read_text("utf-8")
    assert results.with_table(text, name, comparisons) == text
    assert results.table(comparisons) in text and results.others(comparisons) in text


def test_the_course_shows_the_picture_of_the_published_run():
    comparisons, text = published("reading"), results.COURSE_README.read_text("utf-8")
    assert results.picture(comparisons) in text
    drawn_from = hashlib.sha256(json.dumps(comparisons, sort_keys=True).encode()).hexdigest()
    with Image.open(ROOT / results.PICTURE) as drawn:
        assert drawn.text["comparisons"] == drawn_from


def test_the_words_of_the_picture_have_the_numbers_of_the_run():
    rows = [
        ("from memory, random crops", "floor: NumPy, 1 thread", 10.0, 9.0),
        ("from memory, random crops", "MONAI CacheDataset", 10.0, 135.4),
        ("from records", "float_list, as in 2018", 36.0, 270.0),
        ("from records", "generator, as in 2018", 36.0, 1805.0),
        ("from NIfTI", "pipeline.classification, cached", 980.0, 11.25),
    ]
    keys = ("name", "against", "value", "against_value")
    text = results.picture([dict(zip(keys, row, strict=True)) for row in rows])
    for said in (
        "the floor 9, crops.from_memory 10, MONAI's CacheDataset 135.",
        "records, mapped, 36, float lists 270, the generator 1,805.",
        "From NIfTI: 980, and once they are cached 11.2]",
        "in 1.11 times what one thread needs",
        "7.5 times as quick as that benchmark's float lists, and 50 times as quick",
    ):
        assert said in text


@pytest.mark.parametrize("file", PICTURES)
def test_a_picture_of_readme_is_the_one_in_its_notebook(file):
    assert (FOLDER / file).read_bytes() == picture(*PICTURES[file]), "run: make pictures"
    with Image.open(FOLDER / file) as drawn:
        assert drawn.format == Image.registered_extensions()[Path(file).suffix]


def test_readme_shows_every_picture_with_a_text_in_its_place():
    readme = (ROOT / "README.md").read_text("utf-8")
    shown = {file: alt for alt, file in re.findall(r"!\[([^\]]*)\]\(docs/images/(.+?)\)", readme)}
    assert {*shown} == {*PICTURES, Path(results.PICTURE).name}  # the last one a benchmark draws
    assert all(len(alt) > 20 for alt in shown.values())


def test_a_title_that_no_picture_has_is_an_error():
    with pytest.raises(NotebookError, match="0 pictures"):
        picture("00_start_here", "No such title")
