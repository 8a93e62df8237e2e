"""The course stays as small as it was decided to be, and its size is measured soundly."""

import pytest

from tools import size


def test_no_row_is_over_its_budget_and_no_module_without_one():
    _, wrong = size.measure()
    assert not wrong, "\n" + "\n".join(wrong)


SOURCE = '''"""A docstring

of three lines."""

import math  # a comment


class Circle:
    """Round."""

    def area(self, radius):
        # why
        """Not two of them: r squared."""
        return (
            math.pi * radius**2
        )


TEXT = """a text
that is no docstring"""
'''


def test_code_is_what_is_neither_docstring_nor_comment_nor_blank():
    # import, class, def, three of return, two of TEXT
    assert size.code(SOURCE) == {"lines": 8, "tokens": 2 + 3 + 8 + 10 + 3}


def test_an_f_string_is_one_token_in_every_python():
    assert size.code("x = f'{a + b:{width}} of {c}'\n") == {"lines": 1, "tokens": 3}


def plain(lines: int) -> str:
    return "x = 1\n" * lines


def made(root, files: dict[str, str]):
    """A small repository: files of helpers/ with `__` for a slash, and a notebook of two lines."""
    for folder in ("helpers", "tests", "benchmarks/.venv", "tools", "studies", "notebooks"):
        (root / folder).mkdir(parents=True)
    (root / "benchmarks/.venv/peer.py").write_text(plain(99999))
    for name, text in files.items():
        path = root / "helpers" / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    (root / "notebooks/00_a.ipynb").write_text(
        '{"cells": [{"cell_type": "code", "source": "x = 1\\ny = 2", "metadata": {}, '
        '"outputs": [], "execution_count": 1}], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}'
    )
    return size.measure(root)


DENSE = "x = [1, 2, 3, 4, 5, 6]\n"


@pytest.mark.parametrize(
    "files, said",
    [
        ({"errors": plain(88), "dicom/header": plain(700), "lesson/checks/speed": plain(640)}, []),
        ({"errors": plain(89)}, ["errors: 89 lines, budget 80"]),
        ({"dicom/header": plain(500), "dicom/stack": plain(500)}, ["dicom: 1,000 lines"]),
        (
            {"lesson/checks/speed": plain(640), "lesson/checks/scaling": "x = 1"},
            ["lesson/checks/datasets: 641"],
        ),
        ({"quiet": DENSE}, ["__init__ quiet: 15.0 tokens a line"]),
        ({"lesson/phantoms/torso": DENSE}, []),  # not rebuilt yet
        ({"misc": plain(1)}, ["helpers/misc: belongs to no row"]),
        ({"splits": "", "records/splits": ""}, ["splits.py: helpers/records/splits.py and"]),
        ({"lesson/phantoms/stages": "", "lesson/checks/stages": ""}, []),
        ({"augment/__init__": "", "dicom/__init__": ""}, []),
        ({"lesson/misc": ""}, ["helpers/lesson/misc: belongs to no row"]),
    ],
)
def test_what_is_too_large_too_dense_nobody_s_or_called_alike_is_named(files, said, tmp_path):
    _, wrong = made(tmp_path, files)
    assert len(wrong) == len(said)
    assert all(part in line for part, line in zip(said, wrong, strict=True))


def test_the_table_counts_every_folder_and_the_notebooks(tmp_path):
    table, _ = made(tmp_path, {"errors": plain(3), "memory": plain(4)})
    rows = {line[:40].strip(): line[40:].split() for line in table}
    assert rows["errors"] == ["3", "9", "3.0", "80"]
    assert rows["memory smart_cache pipeline"] == ["4", "12", "3.0", "470"]
    assert rows["helpers"] == ["7", "21", "3.0"]
    assert rows["notebooks"] == ["2", "6", "3.0"]
    assert rows["all of it"] == ["9", "27", "3.0"]
    assert "2 entries in helpers/; 26 at most in the end" in table
