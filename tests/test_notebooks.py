"""Each committed notebook has the form that all of them share."""

import json

import pytest

from tools import cells, publish, style
from tools.execution import clean

PATHS = cells.notebook_paths()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_has_the_course_s_form_and_no_tool_changes_it(path, address, tmp_path):
    notebook = cells.read(path)
    found = style.findings(notebook, path.stem, address)
    assert not found, "\n" + "\n".join(found)
    again = publish.with_badges(clean(notebook), path.stem, address)  # if this differs: make badges
    cells.write(again, tmp_path / path.name)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_readme_has_the_badges_that_the_command_writes(address, root):
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert publish.readme_with_badges(readme, address) == readme, "README.md: run: make badges"


def test_every_published_minute_comes_from_a_measurement_with_every_check_passed(root):
    measurement = json.loads(publish.MEASURED.read_text(encoding="utf-8"))
    words = publish.in_words(measurement)
    assert {*words} == {path.stem for path in PATHS}, "run: make course minutes"
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert publish.readme_with_minutes(readme, words) == readme, "README.md: run: make minutes"
    for path, entry in zip(PATHS, measurement["notebooks"], strict=True):
        notebook = publish.with_minutes(cells.read(path), path.stem, words)
        assert notebook == cells.read(path), f"{path.stem}: run: make minutes"
        assert f"<!-- measured {path.stem} -->{words[path.stem]}<!-- /measured -->" in readme
        assert entry["checks_passed"] == entry["checks_total"] > 0, entry["notebook"]
