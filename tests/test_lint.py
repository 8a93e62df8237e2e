"""Code, notebooks and prose pass the linters."""

import subprocess
import sys

import pytest

from tools import cells


def run(*command: object) -> None:
    """Fail with what a linter printed."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cells.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


def test_ruff_finds_nothing_in_code_and_notebooks():
    run("ruff", "check", ".")


def test_code_and_notebooks_are_formatted():
    run("ruff", "format", "--check", ".")


def test_codespell_finds_nothing_in_prose_and_comments():
    run("codespell_lib", ".")


@pytest.mark.parametrize("path", cells.notebook_paths(), ids=lambda path: path.stem)
def test_codespell_finds_nothing_in_a_notebook(path, tmp_path):
    # Sources only: ids and pictures look like misspelt words.
    text = tmp_path / f"{path.stem}.txt"
    sources = [cell.source for cell in cells.read(path).cells]
    text.write_text("\n".join(sources), encoding="utf-8")
    run("codespell_lib", "--toml", cells.ROOT / "pyproject.toml", text)
