"""A learner who knows every answer passes every check; one who knows none is told so.

Each notebook runs once, solved, to its last cell, and shows again what is stored with it. What it
would do as it comes is found out without running it: stubs are tried alone.
"""

import ast

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import cells, course, execution
from tools.cells import tagged

# A lesson ends with fewer steps and rounds, too, as a teacher may want it.
SHORTER = {
    "02_augmentation": {"ROUNDS": 2},
    "03_writing_tfrecords": {"ROUNDS": 2, "EPOCHS": 1},
    "04_tuning_the_pipeline": {"ROUNDS": 2},
    "05_imbalanced_classification": {"STEPS": 40},
    "06_segmentation_with_deeplab": {"EPOCHS": 1, "CT_EPOCHS": 1},
}
PATHS = cells.notebook_paths()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_solved_notebook_passes_its_checks_and_shows_what_is_stored(
    path, tmp_path, record_property
):
    solved, parameters = cells.solved(cells.read(path)), SHORTER.get(path.stem)
    # What only a training in full shows is not compared.
    for cell in tagged(solved, "trained") if parameters else []:
        cell.metadata["tags"].remove("nbval-check-output")
    compared = sum(execution.is_compared(cell, solved=True) for cell in solved.cells)
    measured, problems = course.run(solved, tmp_path / path.name, parameters=parameters)
    record_property("passed", measured["checks_passed"])
    record_property("checks", measured["checks_total"])
    record_property("compared", compared)
    assert not problems, "\n" + "\n".join(problems)
    assert measured["checks_passed"] == measured["checks_total"] > 0 and compared


def exercises(notebook: NotebookNode) -> list[tuple[NotebookNode, ...]]:
    """Stub, check and solution of each exercise, all three as code cells."""
    kinds = (notebook, "exercise"), (notebook, "check"), (cells.solved(notebook), "exercise")
    return list(zip(*(tagged(*kind) for kind in kinds), strict=True))


STUBS = [
    pytest.param(stub.source, check, id=f"{path.stem[:2]}-{number}")
    for path in PATHS
    for number, (stub, check, _) in enumerate(exercises(cells.read(path)), start=1)
]


@pytest.mark.parametrize(("stub", "check"), STUBS)
def test_an_untouched_stub_is_told_what_is_stored(
    stub, check, capsys, monkeypatch, record_property
):
    from helpers.lesson import checks

    monkeypatch.delenv("COURSE_CHECKS", raising=False)
    names = {"checks": checks}
    exec(stub, names)
    exec(check.source, names)
    assert {"stdout": capsys.readouterr().out} == execution.shown(check)
    record_property("stubs", 1)


def bound(source: str) -> set[str]:
    """The names that a cell leaves to the cells below it."""
    tree = ast.parse(source)
    inside = {
        id(one)
        for scope in ast.walk(tree)
        if isinstance(scope, ast.FunctionDef | ast.ClassDef | ast.Lambda)
        for part in (scope.body if isinstance(scope.body, list) else [scope.body])
        for one in ast.walk(part)
    }
    found = set()
    for one in ast.walk(tree):
        match one:
            case _ if id(one) in inside:
                continue
            case ast.Name(id=name, ctx=ast.Store()) | ast.FunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.split(".")[0])
    return found


def read(source: str) -> set[str]:
    """The names that a cell asks for, in its functions as well."""
    names = (one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Name))
    return {one.id for one in names if isinstance(one.ctx, ast.Load)}


def relying(notebook: NotebookNode) -> list[str]:
    """Names that are not fit for use in a notebook as it comes, or in a solved one."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = set()
    for stub, check, solution in exercises(notebook):
        below = set().union(*(read(cell.source) for cell in code[code.index(check) + 1 :]))
        others = (bound(cell.source) for cell in code if cell is not stub)
        by_one_only = bound(stub.source) ^ bound(solution.source)
        found |= below & by_one_only - set().union(*others)
        functions = {one.name for one in ast.parse(stub.source).body if hasattr(one, "name")}
        found |= below & functions - bound(check.source)
    return sorted(found)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_comes_after_an_exercise_needs_neither_the_stub_s_names_nor_the_answer_s(path):
    # An unanswered stub returns nothing, and an import in an answer is missing until it is given.
    assert relying(cells.read(path)) == []


@pytest.mark.parametrize(
    "check, below, said",
    [
        ("checks.f(f)", "x = 1", []),
        ("checks.f(f)", "np.ones(3)", ["np"]),
        ("checks.f(f)", "def later():\n    return os.sep, sys.path", ["os"]),
        ("checks.f(f)", "print(f(2))", ["f"]),
        ("f = checks.f(f)", "print(f(2))", []),
        ("import numpy as np", "np.ones(3)", []),
    ],
)
def test_names_that_only_a_stub_or_only_its_answer_leaves_behind_are_found(check, below, said):
    answer = "import os\nimport sys\n\ndef f(n):\n    inner = n\n    return inner"
    tags = ("exercise", "check", "solution")
    one, two, three = ({"tags": [tag]} for tag in tags)
    notebook = new_notebook(
        cells=[
            new_code_cell("import sys"),
            new_code_cell("import numpy as np\n\ndef f(n): ...", metadata=one),
            new_code_cell(check, metadata=two),
            new_markdown_cell(
                f"<details><summary>s</summary>\n\n```python\n{answer}\n```\n</details>",
                metadata=three,
            ),
            new_code_cell(below),
        ]
    )
    assert relying(notebook) == said
