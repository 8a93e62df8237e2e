"""README shows what the notebooks show."""

import re
from pathlib import Path

import pytest

from tools import results
from tools.cells import ROOT, NotebookError
from tools.pictures import FOLDER, PICTURES, picture


@pytest.mark.parametrize("file", PICTURES)
def test_a_picture_of_readme_is_the_one_in_its_notebook(file):
    assert (FOLDER / file).read_bytes() == picture(*PICTURES[file]), "run: make pictures"


def test_readme_shows_every_picture_with_a_text_in_its_place():
    shown = {
        file: alt
        for alt, file in re.findall(
            r"!\[([^\]]*)\]\(docs/images/([^)]+)\)", (ROOT / "README.md").read_text("utf-8")
        )
    }
    assert set(shown) == {*PICTURES, Path(results.PICTURE).name}  # the last one a benchmark draws
    assert all(len(alt) > 20 for alt in shown.values())


def test_a_title_that_no_picture_has_is_an_error():
    with pytest.raises(NotebookError, match="0 pictures"):
        picture("00_start_here", "No such title")
