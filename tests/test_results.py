"""The benchmark table that is published is that of the published run."""

import json

import pytest

from tools import results

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


@pytest.mark.parametrize("name", ["dicom_reading", "records", "augmentation"])
def test_readme_shows_the_published_run(name):
    comparisons = json.loads((results.PUBLISHED / f"{name}.json").read_text("utf-8"))
    text = results.README.read_text("utf-8")
    assert results.with_table(text, name, comparisons) == text
    assert results.table(comparisons) in text


def test_without_a_file_there_is_nothing_to_publish(capsys):
    assert results.main(["no such file.json"]) == 1
    assert "JSON" in capsys.readouterr().err
