"""The tools round the notebooks: every fault is named, and nothing gets lost."""

import base64
import json
import os
import re
import shutil
import subprocess
import tomllib
from itertools import chain

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement

from tools import cells, course, execution, notebooks, publish, style

ADDRESS = "https://github.com/someone/some-course"
NAME = "03_example"
PIXEL, LARGE, TOO_LARGE = (
    base64.b64encode(content).decode() for content in (b"small", bytes(80_000), bytes(80_001))
)
ALT = {"image/png": {"alt": "A grey square"}}
FOLDED = "<details><summary>Answer</summary>\n\nYes.\n</details>\n"


def tagged(source, *tags, outputs=()):
    return new_code_cell(source, metadata={"tags": [*tags]}, outputs=[*outputs])


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def drawn(data, metadata):
    return new_output("display_data", data=data, metadata=metadata)


def exercise(number, check="judge()"):
    """Four cells: prose, stub, check, solution."""
    untouched = [stream("✎ not attempted yet: replace …\n")]
    answer = f"```python\ndef answer_{number}():\n    return {number}\n```"
    solution = f"<details><summary>One way</summary>\n\n{answer}\n</details>"
    return [
        new_markdown_cell(f"### Exercise {number}: count"),
        tagged(f"def answer_{number}():\n    ...", "exercise"),
        tagged(check, "check", "nbval-check-output", outputs=untouched),
        new_markdown_cell(solution, metadata={"tags": ["solution"]}),
    ]


def lesson():
    """A notebook in which the linter finds nothing."""
    badges = f"<!-- badges -->{publish.badges(NAME, ADDRESS)}<!-- /badges -->"
    error = new_output("error", ename="ZeroDivisionError", evalue="x", traceback=["y"])
    made = [
        new_markdown_cell(f"# Example\n\n{badges}\n\n<!-- measured -->0.1<!-- /measured -->"),
        new_markdown_cell("**You will** count."),
        tagged('DATA_DIR = "../data"\nSEED = 1', "parameters"),
        tagged(publish.set_up(ADDRESS), "setup"),
        new_markdown_cell("## Look"),
        new_code_cell("draw()", outputs=[drawn({"image/png": PIXEL}, ALT)]),
        new_markdown_cell("The square is grey.\n\n### Bug clinic: nothing by nothing"),
        tagged("1 / 0", "raises-exception", outputs=[error]),
        new_markdown_cell("## Exercises"),
        *(exercise(1) + exercise(2)),
        new_markdown_cell("## Take-aways\n\n```python\n# no heading\n```"),
        new_markdown_cell("## Check yourself\n\n" + FOLDED * 3),
        new_markdown_cell("## With your own data\n\nSee https://example.org/home/work/tmp."),
    ]
    for count, cell in enumerate((one for one in made if one.cell_type == "code"), start=1):
        cell.execution_count = count
    return new_notebook(cells=made)


def find(notebook, text):
    return next(cell for cell in notebook.cells if text in cell.source)


def replace(text, by):
    def spoil(notebook):
        cell = find(notebook, text)
        cell.source = cell.source.replace(text, by)

    return spoil


def change(text, **changes):
    return lambda notebook: find(notebook, text).update(changes)


def shows(*outputs):
    return change("draw()", outputs=[*outputs])


def retag(text, *tags):
    return change(text, metadata=nbformat.from_dict({"tags": [*tags]}))


def remove(text):
    return lambda notebook: notebook.cells.remove(find(notebook, text))


SPOILT = [
    ("one title", replace("# Example", "## Example")),
    ("one title", replace("## Look", "# Look")),
    ("one title", replace("# Example", "Hello\n\n# Example")),
    ("level 5 below one of level 3", replace("## Look", "### Look\n\n##### Deep")),
    ("make badges", replace("blob/main/notebooks/03_example", "blob/main/notebooks/04_example")),
    ("make badges", replace(ADDRESS, "https://github.com/a/b")),
    ("make badges", retag("import helpers.lesson")),
    ("no place for minutes", replace("<!-- /measured -->", "")),
    ("You will", replace("**You will**", "**Hello**")),
    ("headings with Bug clinic", replace("## Take-aways", "## Bye")),
    ("headings with Bug clinic", replace("Bug clinic", "Bugs")),
    ("in this order", lambda notebook: notebook.cells.insert(-1, notebook.cells.pop())),
    ("three answers", replace("<details><summary>Answer", "<div>Answer")),
    ("one cell tagged parameters", retag("SEED = 1")),
    ("NAME = literal", replace("SEED = 1", "print(1)")),
    ("NAME = literal", replace("SEED = 1", "SEED = 1\nSTEPS = 10 * SEED")),
    ("NAME = literal", replace("SEED = 1", "SEED = 1\nSEED = 2")),
    ("26 lines", replace("draw()", "draw()\n" * 26)),
    ("not executed", change("1 / 0", execution_count=99)),
    ("not executed", change("draw()", execution_count=None)),
    ("stderr", shows(stream("a warning", "stderr"))),
    ("/home/ann/x.png is of one", replace("draw()", 'draw("/home/ann/x.png")')),
    ("C:\\data\\x is of one", replace("The square", "The file C:\\data\\x")),
    ("/Users/ann/x is of one", shows(stream("in /Users/ann/x"))),
    ("/tmp/x is of one", shows(stream("\x1b[32m/tmp/x\x1b[39m"))),
    ("site-packages/numpy/x.py is", shows(stream("site-packages/numpy/x.py"))),
    ("raises-exception", retag("1 / 0")),
    ("raises-exception", change("1 / 0", outputs=[])),
    ("80,001 bytes", shows(drawn({"image/png": TOO_LARGE}, ALT))),
    ("80,001", shows(drawn({"text/html": f'<img alt="a" src="x;base64,{TOO_LARGE}">'}, {}))),
    ("without alternative", shows(drawn({"image/png": PIXEL}, {}))),
    ("without alternative", shows(drawn({"image/svg+xml": "<svg/>"}, {}))),
    ("without alternative", shows(drawn({"text/html": '<img src="x">'}, {}))),
    ("no text below", remove("The square is grey")),
    ("1 exercises, wanted 2 to 4", retag("def answer_2():\n    ...")),
    ("a stub, a check, a solution", retag("return 2")),
    ("exactly one block", replace("```python\ndef", "```\ndef")),
    ("the check belongs", replace("    ...", "    ...\n\nchecks.answer(answer_1)")),
    ("the cell below a stub", remove("judge()")),
    ("says as shipped", change("judge()", outputs=[stream("✓ right")])),
    ("says as shipped", retag("judge()", "check")),
    ("makes data", replace("judge()", "judge(phantoms.heads(DATA_DIR))")),
    ("plain Python", replace("draw()", "%matplotlib inline\ndraw()")),
    ("plain Python", replace("draw()", "!ls\ndraw()")),
    ("plain Python", replace("draw()", 'warnings.filterwarnings("ignore")')),
]


@pytest.mark.parametrize("said, spoil", SPOILT)
def test_each_fault_of_a_notebook_is_named(said, spoil):
    notebook = lesson()
    spoil(notebook)
    assert any(said in found for found in style.findings(notebook, NAME, ADDRESS))


def test_a_good_notebook_has_no_fault_up_to_the_limits():
    assert style.findings(lesson(), NAME, ADDRESS) == []
    notebook = lesson()
    shows(drawn({"image/png": LARGE}, ALT))(notebook)
    find(notebook, "draw()").source = "\n".join(['draw("../data/home/x.png")'] * 25)
    assert style.findings(notebook, NAME, ADDRESS) == []


def test_each_solution_stands_in_place_of_its_stub_and_nothing_else_changes():
    shipped = lesson()
    pairs = zip(shipped.cells, cells.solved(shipped).cells, strict=True)
    changed = [(old.id, new.source) for old, new in pairs if old != new]
    stubs = [cell.id for cell in cells.tagged(shipped, "exercise")]
    answers = [f"def answer_{k}():\n    return {k}" for k in (1, 2)]
    assert changed == list(zip(stubs, answers, strict=True))
    for spoil in (retag("return 2"), retag("answer_1():\n    ...")):
        spoilt = lesson()
        spoil(spoilt)
        with pytest.raises(cells.NotebookError, match="followed by its solution"):
            cells.solved(spoilt)


def run(*code, strict=True, folder, **more):
    """Run code cells as the course does; what was measured, and what is wrong."""
    notebook = new_notebook(cells=[nbformat.from_dict(cell) for cell in code])
    return course.run(notebook, folder / "n.ipynb", strict, folder, **more)


def test_execution_numbers_the_cells_and_keeps_no_trace_of_the_run(tmp_path):
    bar = "from tqdm.auto import tqdm\nlist(tqdm(range(2)))"
    library = tagged("import json\njson.loads('{')", "raises-exception")
    notebook = new_notebook(cells=[new_code_cell("print(6 * 7)"), new_code_cell(bar), library])
    done = execution.execute(notebook, tmp_path)
    answer, value, error = (cell.outputs[0] for cell in done.cells)
    assert [cell.execution_count for cell in done.cells] == [1, 2, 3]
    assert answer.text == "42\n" and value.output_type == "execute_result"
    text = execution.ANSI_COLOUR.sub("", "\n".join(error.traceback)).replace("\\", "/")
    assert error.ename == "JSONDecodeError" and "raw_decode" in text
    assert "File json/decoder.py" in text and "def " not in text
    assert {**done.metadata} == {"kernelspec": cells.KERNEL, "language_info": cells.LANGUAGE}


@pytest.mark.parametrize(
    "source, said",
    [
        ("raise ValueError('no such organ')", "ValueError: no such organ"),
        ("print('/home' + '/ann/scan.dcm')", r"cell 1 .*/home/ann"),
    ],
)
def test_what_fails_or_would_publish_a_path_is_refused(source, said, tmp_path):
    with pytest.raises(cells.NotebookError, match=said):
        execution.execute(new_notebook(cells=[new_code_cell(source)]), tmp_path)


@pytest.mark.parametrize(
    "said, published",
    [
        (
            "\x1b[32m/opt/py/lib/python3.11/site-packages/a/b.py:3\x1b[39m",
            "\x1b[32ma/b.py:3\x1b[39m",
        ),
        ("~/env/lib/python3.13/json/decoder.py:9, in f", "json/decoder.py:9, in f"),
        ("/usr/lib/python3/dist-packages/a.py:3, in f", "a.py:3, in f"),
        (r"C:\env\Lib\site-packages\a\b.py:3, in f", r"a\b.py:3, in f"),
        (f"{cells.ROOT / 'helpers' / 'x.py'}:3", f"{os.path.join('helpers', 'x.py')}:3"),
        ("/tmp/ipykernel_12/345.py:3, in f", "this notebook:3, in f"),
    ],
)
def test_a_message_loses_the_machine_s_part_of_its_file_names(said, published):
    assert execution.shorten_path(f"File {said}") == f"File {published}"


def test_of_the_steps_outside_the_notebook_only_the_innermost_s_place_is_published():
    own = "Cell In[5], line 2\n----> 2 f(x)"
    others = ["File /v/lib/python3.11/site-packages/a.py:1\n----> 1 g()"]
    others += ["File /v/lib/python3.11/site-packages/b.py:7\n----> 7 raise E"]
    others += ["File /v/helpers/errors.py:9\n----> 9 raise"]
    at = "E: in /usr/lib/python3.11/json/x.py"
    error = new_output("error", ename="E", evalue=at, traceback=[own, *others, at])
    execution.shorten_error(error)
    assert error.traceback == [own, "File b.py:7", "E: in json/x.py"]
    assert error.evalue == "E: in json/x.py"


@pytest.mark.parametrize(
    "check, strict, said",
    [
        ("print('✓ right')", True, None),
        ("print('✗ an index')", True, "✗ an index"),
        ("print('✓ one')\nprint('✗ two')", True, "✗ two"),
        ("pass", True, "nothing"),
        ("print('✓ right')\nraise KeyError('late')", True, "KeyError: 'late'"),
        ("print('✎ not attempted yet')", True, "not attempted"),
        ("print('✎ not attempted yet')", False, None),
        ("print('✓ right')", False, "✓ right"),
        ("import os\nprint('✗', os.environ['COURSE_CHECKS'])", True, "✗ strict"),
    ],
)
def test_what_a_check_says_is_judged(check, strict, said, tmp_path):
    meant = tagged("1 / 0", "raises-exception")
    measured, problems = run(meant, tagged(check, "check"), strict=strict, folder=tmp_path)
    right = "print('✓" in check and "✗" not in check and "late" not in check
    assert (measured["checks_passed"], measured["checks_total"]) == (right, 1)
    assert [problem.startswith("cell 2 (") for problem in problems] == [True] * bool(said)
    assert (said or "") in "".join(problems)


def test_a_notebook_that_broke_since_it_was_stored_is_told_cell_by_cell(tmp_path):
    compared = ("nbval-check-output",)
    code = [
        tagged("print(f'{A} slices\\n4 mm')", *compared, outputs=[stream("2 slices\n3 mm\n")]),
        tagged("A = 1", "parameters"),
        tagged("print('right')", *compared, outputs=[stream("right\n")]),
        tagged("print('new')", outputs=[stream("old\n")]),
        tagged("print('✗ no')", "check", *compared, outputs=[stream("✎ not attempted yet\n")]),
        tagged("1", "raises-exception"),
        tagged("print(7 / 0)", *compared, outputs=[stream("7\n")]),
        tagged("print('reached')", *compared, outputs=[stream("never\n")]),
    ]
    code[:2] = code[1::-1]
    _, found = run(*code, folder=tmp_path, parameters={"A": 2})
    check, promised, failed, *changed = found
    assert check.startswith("cell 5") and "the check did not pass: ✗ no" in check
    assert promised.startswith("cell 6") and "raised none" in promised
    assert failed.startswith("cell 7") and "ZeroDivisionError" in failed
    assert [line.split(" (")[0] for line in changed] == ["cell 2", "cell 7"]
    assert changed[0].endswith("the output is not the stored one: stdout was '3 mm' and is '4 mm'")
    assert run(*code, folder=tmp_path, parameters={"A": 2}, compare=False)[1] == found[:3]


PLAIN = new_output("execute_result", data={"text/plain": "a\nb", "text/html": "<b>"})
DRAWN = drawn({"image/png": PIXEL, "text/plain": "<Figure>"}, {})
TURNED = new_output("error", ename="KeyError", evalue="'x'", traceback=["line 3"])


@pytest.mark.parametrize(
    "before, after, said",
    [
        ([stream("a\n")], [stream("b\n")], "stdout was 'a' and is 'b'"),
        ([stream("a\n")], [], "stdout was 'a' and is ''"),
        ([], [stream("oh\n", "stderr")], "stderr was '' and is 'oh'"),
        ([PLAIN], [PLAIN | {"data": {"text/plain": "a\nc", "text/html": "<b>"}}], "'b' and is 'c'"),
        ([PLAIN], [PLAIN | {"data": {"text/plain": "a\nb"}}], "text/html was '<b>' and is ''"),
        ([PLAIN], [PLAIN, PLAIN], "text/plain was '' and is 'a'"),
        ([DRAWN], [DRAWN | {"data": {"text/plain": "<Figure>"}}], "image/png was 'a picture'"),
        ([TURNED], [TURNED | {"evalue": "'y'"}], "KeyError: 'x'"),
        # What may differ from run to run.
        ([stream("a"), stream("b")], [stream("ab")], None),
        ([DRAWN], [DRAWN | {"data": {"image/png": LARGE, "text/plain": "<Figure>"}}], None),
        ([PLAIN | {"execution_count": 3}], [PLAIN | {"execution_count": 9}], None),
        ([TURNED], [TURNED | {"traceback": ["line 4"]}], None),
    ],
)
def test_text_values_tables_and_errors_have_to_come_out_again(before, after, said):
    one, other = (
        new_notebook(cells=[nbformat.from_dict(tagged("1", "nbval-check-output", outputs=side))])
        for side in (before, after)
    )
    other.cells[0].execution_count = 1
    found = execution.changed(one, other, solved=True)
    assert len(found) == bool(said) and (said or "") in "".join(found)
    for cell in (*one.cells, *other.cells):
        cell.metadata.tags.append("check")  # what it says follows from an answer
    assert not execution.changed(one, other, solved=True)
    assert execution.changed(one, other, solved=False) == found


def test_peak_memory_counts_the_kernel(tmp_path):
    hold, free = new_code_cell("block = b'1' * 300_000_000"), new_code_cell("block = None")
    heavy, light = (run(*code, folder=tmp_path)[0] for code in ([hold, free], [free]))
    assert 280 < heavy["peak_mb"] - light["peak_mb"] < 400


def test_a_learner_s_minutes_follow_from_words_cells_and_exercises():
    folded = "<details><summary>one two</summary>\n\n[three](https://a.b/c d) four\n</details>"
    unread = "<!-- measured -->0.1 minutes<!-- /measured -->"
    printed = tagged("show.source(f)", outputs=[stream("word " * 396), stream("# = -\n")])
    made = [new_markdown_cell(unread), new_markdown_cell(folded), printed, tagged("1", "exercise")]
    assert course.learner_minutes(new_notebook(cells=made)) == round(400 / 200 + 2 * 0.75 + 8)


@pytest.fixture
def small_course(tmp_path, monkeypatch):
    """A course of one notebook with one exercise, in a folder of its own."""
    folder = tmp_path / "notebooks"
    check = "import os\nprint('✓ right' if answer_1() == 1 else '✎ not attempted yet')"
    shipped = new_notebook(cells=exercise(1, check))
    cells.tagged(shipped, "check")[0].outputs = [stream("✎ not attempted yet\n")]
    cells.write(shipped, folder / f"{NAME}.ipynb")
    (tmp_path / "README.md").write_text(f"<!-- measured {NAME} --><!-- /measured -->")
    for module in (cells, notebooks, execution, course):
        monkeypatch.setattr(module, "NOTEBOOKS", folder, raising=False)
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "SOLVED", tmp_path / "solved")
    monkeypatch.setattr(publish, "README", tmp_path / "README.md")
    monkeypatch.setattr(publish, "MEASURED", tmp_path / "docs" / "measured.json")
    for module in (course, publish):
        monkeypatch.setattr(module, "LAST_RUN", tmp_path / "measured.json")
    return folder / f"{NAME}.ipynb"


def test_only_a_complete_solved_course_is_published_with_its_minutes(small_course, capsys):
    last, docs = publish.LAST_RUN, publish.MEASURED
    assert course.main(["--as-shipped"]) == course.main([NAME]) == 0 and not last.exists()
    assert course.main([]) == 0 and " 1 " in capsys.readouterr().out.splitlines()[-1]
    assert notebooks.main(["minutes"]) == 0
    published = json.loads(docs.read_text())
    assert {*published["machine"]} == {"cores", "python", "tensorflow", "system"}
    assert [*published["notebooks"][0]] == ["notebook", *course.COLUMNS]
    assert re.search(r"\d minutes for you; 0.1 of computing on", publish.README.read_text())
    last.unlink()
    small_course.write_text(
        small_course.read_text("utf-8").replace("return 1", "return 7"), "utf-8"
    )
    assert course.main(["--json", str(docs)]) == notebooks.main(["minutes"]) == 1
    said = capsys.readouterr()
    assert f"✗ {NAME}, cell 3 (import os): the check did not pass" in said.out
    assert json.loads(docs.read_text())["notebooks"][0]["checks_passed"] == 0
    assert "make course" in said.err


def test_a_notebook_is_executed_and_solved_or_left_as_it_is(small_course, capsys):
    assert notebooks.main(["execute"]) == notebooks.main(["solve"]) == 0
    assert cells.read(small_course).cells[2].outputs[0].text == "✎ not attempted yet\n"
    assert "return 1" in cells.read(notebooks.SOLVED / small_course.name).cells[1].source
    small_course.write_text(small_course.read_text("utf-8").replace("import os", "1 / 0"), "utf-8")
    before = small_course.read_bytes()
    assert notebooks.main(["execute", NAME]) == notebooks.main(["solve", "99_none"]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and f"no notebook 99_none; there are: {NAME}" in said
    assert small_course.read_bytes() == before and before.endswith(b"}\n") and b"\r" not in before


@pytest.mark.parametrize("name", ["old/place", "old/place.name"])
def test_a_fork_s_address_reaches_the_set_up_cell_and_every_badge(name):
    notebook, fork = lesson(), "https://github.com/a-teacher/her.course"
    replace("import helpers.lesson", f'pip("git+https://github.com/{name}.git")')(notebook)
    publish.with_badges(notebook, NAME, fork)
    assert style.findings(notebook, NAME, fork) == []
    assert f"github/a-teacher/her.course/blob/main/notebooks/{NAME}" in notebook.cells[0].source


def test_an_address_that_is_none_is_refused(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text('[project.urls]\nRepository = "https://example.org/x"\n')
    with pytest.raises(cells.NotebookError, match=r"github\.com/owner/name"):
        publish.repository(project)


# --- what is installed, and how it is started ---


def test_requirements_pin_everything_that_the_project_asks_for():
    comment, course_itself, *lines = (
        (cells.ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    )
    assert comment.startswith("#") and course_itself == "-e ."
    pinned = {}
    for requirement in map(Requirement, lines):
        (pin,) = requirement.specifier
        assert pin.operator == "==" and requirement.url is None
        pinned.setdefault(requirement.name.lower(), []).append(pin.version)
    project = tomllib.loads((cells.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = chain(project["dependencies"], *project["optional-dependencies"].values())
    for requirement in map(Requirement, asked):
        versions = pinned[requirement.name.lower()]
        assert all(requirement.specifier.contains(v) for v in versions), requirement.name


def test_binder_reads_the_same_requirements_and_a_python_that_fits():
    environment = yaml.safe_load((cells.ROOT / "environment.yml").read_text(encoding="utf-8"))
    *plain, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.txt"]}
    assert "python=3.11" in plain and "pip" in plain


ROOT_USER = "--allow-root " if hasattr(os, "geteuid") and os.geteuid() == 0 else ""


@pytest.mark.skipif(shutil.which("make") is None, reason="no make: README says how without")
@pytest.mark.parametrize(
    "given, said",
    [
        (["lab", "LAB_ARGS=--port=9"], f"jupyter lab {ROOT_USER}--port=9 notebooks/00_start_here"),
        (["course", "COURSE_ARGS=01_x"], "python -m tools.course 01_x"),
        (["course", "AS_SHIPPED=1"], "python -m tools.course --as-shipped"),
        (["study", "STUDY_ARGS=imbalance --seeds 3"], "python -m tools.study imbalance --seeds 3"),
    ],
)
def test_make_starts_what_it_says_in_its_environment(given, said, tmp_path):
    alone = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    command = ["make", "--dry-run", *given, f"VENV={tmp_path}"]
    done = subprocess.run(command, cwd=cells.ROOT, env=alone, capture_output=True, text=True)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any(f"{tmp_path}/bin/{said}" in line for line in lines[-3:])
    assert any("-m venv" in line for line in lines)
    assert any("pip install" in line and "-r requirements.txt" in line for line in lines)


def test_every_package_of_the_helpers_is_installed_with_them():
    # In this folder all of them import; in a hosted notebook only what was installed.
    project = tomllib.loads((cells.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"] == {"include": ["helpers*"]}
    folders = {path.parent for path in cells.ROOT.glob("helpers/**/*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
