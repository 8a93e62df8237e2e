"""Each committed notebook has the form that all of them share."""

import json

import pytest

from tools import cells, publish, style

PATHS = cells.notebook_paths()


@pytest.fixture(scope="module")
def notebooks():
    return {path.stem: cells.read(path) for path in PATHS}


@pytest.mark.parametrize("name", [path.stem for path in PATHS])
def test_a_notebook_has_the_course_s_form(name, notebooks, address):
    found = style.findings(notebooks[name], name, address)
    assert not found, "\n" + "\n".join(map(str, found))


def test_every_notebook_has_the_same_set_up_cell(notebooks):
    found = style.between_notebooks(notebooks)
    assert not found, "\n" + "\n".join(map(str, found))


def test_the_badges_are_those_that_the_command_writes(notebooks, address, root):
    for name, notebook in notebooks.items():
        again = publish.with_badges(cells.read(cells.NOTEBOOKS / f"{name}.ipynb"), name, address)
        assert again == notebook, f"{name}: run: make badges"
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert publish.readme_with_badges(readme, address) == readme, "README.md: run: make badges"


def test_every_published_minute_comes_from_the_measurement(notebooks, root):
    measurement = json.loads(publish.MEASURED.read_text(encoding="utf-8"))
    words = publish.in_words(measurement)
    assert set(words) == set(notebooks), "run: make course minutes"
    for name, notebook in notebooks.items():
        again = cells.read(cells.NOTEBOOKS / f"{name}.ipynb")
        assert publish.with_minutes(again, name, words) == notebook, f"{name}: run: make minutes"
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert publish.readme_with_minutes(readme, words) == readme, "README.md: run: make minutes"
    for name in notebooks:
        assert f"<!-- measured {name} -->{words[name]}<!-- /measured -->" in readme


def test_the_measurement_was_made_with_every_check_passed():
    measurement = json.loads(publish.MEASURED.read_text(encoding="utf-8"))
    for entry in measurement["notebooks"]:
        assert entry["checks_passed"] == entry["checks_total"] > 0, entry["notebook"]


def test_notebooks_do_not_change_when_a_tool_rewrites_them(tmp_path):
    for path in PATHS:
        cells.write(cells.read(path), tmp_path / path.name)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
