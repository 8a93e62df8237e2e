"""The benchmark table that is published is that of the published run."""

import json
import sys

import pytest
from PIL import Image

from tools import results

sys.path.append(str(results.README.parent))

from _tuning_picture import digest

RUN = [
    {"name": "read_series, a", "unit": "ms", "against": "x", "ratio": 2.5},
    {"name": "read_series, b", "unit": "ms", "against": "x", "ratio": 0.5},
    {"name": "read_series, a", "unit": "x voxels", "against": "x", "ratio": 9},
    {"name": "scan, c", "unit": "ms", "against": "y", "ratio": 1},
]


def test_the_table_has_a_row_for_each_peer_and_a_column_for_each_input():
    assert results.table(RUN).splitlines() == [
        "| | a | b | scan, c |",
        "|---|---:|---:|---:|",
        "| x | 2.50 | 0.50 |  |",
        "| y |  |  | 1.00 |",
    ]


def test_only_what_stands_between_the_markers_is_replaced():
    text = "before <!-- run -->old<!-- /run --> after"
    written = results.with_table(text, "run", RUN)
    assert written.startswith("before <!-- run -->\n\n| |")
    assert written.endswith("|\n\n<!-- /run --> after")
    assert results.with_table(written, "run", RUN) == written


def test_comparisons_of_another_kind_have_a_table_of_their_own():
    rows = [("d", 1234.5, "y", 2), ("d", 1234.5, "z", 0.084), ("e", 9.87, "y", 1), ("f", 1, "y", 3)]
    keys = ("name", "value", "against", "ratio")
    made = [{"unit": "ms an epoch"} | dict(zip(keys, row, strict=True)) for row in rows]
    run = [*RUN, *made]
    assert results.table(run) == results.table(RUN) and results.others(RUN) == ""
    assert results.others(run).splitlines() == [
        "| | here | y | z |",
        "|---|---:|---:|---:|",
        "| d | 1,234 ms an epoch | 2.00 | 0.08 |",
        "",
        "| | here | y |",
        "|---|---:|---:|",
        "| e | 9.87 ms an epoch | 1.00 |",
        "| f | 1 ms an epoch | 3.00 |",
    ]
    text = "<!-- run -->old<!-- /run --> <!-- run, others -->old<!-- /run, others -->"
    written = results.with_table(text, "run", run)
    assert "old" not in written and "| x | 2.50 |" in written and "| d | 1,234 ms" in written


def published(name: str) -> list[dict]:
    file = results.PUBLISHED / f"{name}.json"
    return json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize("name", ["dicom_reading", "records", "augmentation", "reading", "deeplab"])
def test_readme_shows_the_published_run(name):
    comparisons, text = published(name), results.README.read_text("utf-8")
    assert results.with_table(text, name, comparisons) == text
    assert results.table(comparisons) in text and results.others(comparisons) in text


def test_the_course_shows_the_picture_of_the_published_run():
    comparisons, text = published("reading"), results.COURSE_README.read_text("utf-8")
    assert results.with_picture(text, comparisons) == text
    assert results.picture(comparisons) in text
    with Image.open(results.ROOT / results.PICTURE) as drawn:
        assert drawn.text["comparisons"] == digest(comparisons)


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
    with pytest.raises(KeyError):
        results.picture([])


def test_without_a_file_there_is_nothing_to_publish(capsys):
    assert results.main(["no such file.json"]) == 1
    assert "JSON" in capsys.readouterr().err


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A README of benchmarks with a place for `run`, and a docs folder."""
    monkeypatch.setattr(results, "README", tmp_path / "README.md")
    monkeypatch.setattr(results, "PUBLISHED", tmp_path / "docs")
    (tmp_path / "docs").mkdir()
    results.README.write_text("<!-- run -->old<!-- /run -->", "utf-8")
    for name in ("run", "other"):
        (tmp_path / f"{name}.json").write_text(json.dumps(RUN), "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("names", "said"),
    [(["other"], "no place <!-- other -->"), (["run", "run"], "one JSON file"), ([], "one JSON")],
)
def test_what_has_no_place_or_is_not_one_file_is_refused_and_nothing_is_written(
    names, said, places, capsys
):
    assert results.main([str(places / f"{name}.json") for name in names]) == 1
    assert said in capsys.readouterr().err
    assert results.README.read_text("utf-8") == "<!-- run -->old<!-- /run -->"
    assert not list(results.PUBLISHED.iterdir())


def test_a_run_is_kept_and_its_table_put_between_its_markers(places, monkeypatch, capsys):
    monkeypatch.setattr(results, "COURSE_README", places / "none.md")
    assert results.main([str(places / "run.json")]) == 0
    assert json.loads((results.PUBLISHED / "run.json").read_text("utf-8")) == RUN
    assert results.table(RUN) in results.README.read_text("utf-8")
    assert "run.json" in capsys.readouterr().out
