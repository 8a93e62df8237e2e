"""The tools round the notebooks: every rule of the linter fires, and nothing gets lost."""

import base64
import copy
import json
import os
import shutil
import subprocess
import sys
import tomllib
from itertools import chain

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement

from tools import cells, course, execution, notebooks, publish, stored, style, text_view

ADDRESS = "https://github.com/someone/some-course"
NAME = "03_example"
PIXEL = base64.b64encode(b"not really a picture, but small").decode()


def tagged(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)})


def exercise(number):
    """Four cells: prose, stub, check, solution."""
    check = tagged(f"judge({number})", "check", "nbval-check-output")
    check.outputs = [new_output("stream", name="stdout", text="✎ not attempted yet: replace …\n")]
    solution = new_markdown_cell(
        "<details><summary>One way</summary>\n\n"
        f"```python\ndef answer_{number}():\n    return {number}\n```\n</details>",
        metadata={"tags": ["solution"]},
    )
    return [
        new_markdown_cell(f"### Exercise {number}: count"),
        tagged(f"def answer_{number}():\n    ...", "exercise"),
        check,
        solution,
    ]


def lesson():
    """A notebook in which the linter finds nothing."""
    picture = new_code_cell("draw()")
    alt = {"image/png": {"alt": "A grey square"}}
    picture.outputs = [new_output("display_data", data={"image/png": PIXEL}, metadata=alt)]
    failing = tagged("1 / 0", "raises-exception")
    failing.outputs = [new_output("error", ename="ZeroDivisionError", evalue="x", traceback=[])]
    folded = "<details><summary>Answer</summary>\n\nYes.\n</details>\n"
    notebook = new_notebook(
        cells=[
            new_markdown_cell(
                f"# Example\n\n<!-- badges -->{publish.badges(NAME, ADDRESS)}<!-- /badges -->\n\n"
                "<!-- measured -->0.1 minutes<!-- /measured -->"
            ),
            new_markdown_cell("**You will** count."),
            tagged('DATA_DIR = "../data"\nSEED = 1', "parameters"),
            tagged(f'COURSE = "{ADDRESS}"', "setup"),
            new_markdown_cell("## Look"),
            picture,
            new_markdown_cell("The square is grey.\n\n### Bug clinic: nothing by nothing"),
            failing,
            new_markdown_cell("## Exercises"),
            *exercise(1),
            *exercise(2),
            new_markdown_cell("## Take-aways"),
            new_markdown_cell("## Check yourself\n\n" + folded * 3),
            new_markdown_cell("## With your own data"),
        ]
    )
    return numbered(notebook)


def numbered(notebook):
    """Execution counts as a run from the first to the last cell leaves them."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
    return notebook


def cell_with(notebook, tag=None, text=None):
    return next(
        cell
        for cell in notebook.cells
        if (tag is None or tag in cell.metadata.get("tags", [])) and (text or "") in cell.source
    )


def spoil_replace(text, by):
    def spoil(notebook):
        cell = cell_with(notebook, text=text)
        cell.source = cell.source.replace(text, by)

    return spoil


def spoil_output(tag, text, output):
    def spoil(notebook):
        cell_with(notebook, tag, text).outputs.append(output)

    return spoil


def spoil_tags(tag, new):
    def spoil(notebook):
        cell_with(notebook, tag).metadata["tags"] = new

    return spoil


def spoil_picture(data, metadata):
    def spoil(notebook):
        cell_with(notebook, text="draw()").outputs = [
            new_output("display_data", data=data, metadata=metadata)
        ]

    return spoil


def spoil_remove(text):
    def spoil(notebook):
        notebook.cells.remove(cell_with(notebook, text=text))
        numbered(notebook)

    return spoil


def spoil_count(notebook):
    cell_with(notebook, "raises-exception").execution_count = 99


def spoil_unexecuted(notebook):
    cell_with(notebook, text="draw()").execution_count = None


def spoil_order(notebook):
    last = notebook.cells.pop()
    notebook.cells.insert(-1, last)
    assert "own data" in last.source


def spoil_all_exercises(notebook):
    first = next(i for i, c in enumerate(notebook.cells) if "### Exercise 2" in c.source)
    del notebook.cells[first : first + 4]
    numbered(notebook)


def spoil_error_gone(notebook):
    cell_with(notebook, "raises-exception").outputs = []


def spoil_check_passed(notebook):
    cell_with(notebook, "check").outputs[0].text = "✓ right\n"


def stream(name, text):
    return new_output("stream", name=name, text=text)


BIG = base64.b64encode(bytes(80_001)).decode()
ALT = {"image/png": {"alt": "A grey square"}}
SPOILT = [
    ("title", spoil_replace("# Example", "## Example")),
    ("title", spoil_replace("## Look", "# Look")),
    ("title", spoil_replace("# Example", "Hello\n\n# Example")),
    ("headings", spoil_replace("## Look", "### Look\n\n##### Deep")),
    ("badges", spoil_replace("some-course/main", "some-course/master")),
    ("badges", spoil_replace("blob/main/notebooks/03_example", "blob/main/notebooks/04_example")),
    ("measured", spoil_replace("<!-- /measured -->", "")),
    ("sections", spoil_replace("**You will**", "**Hello**")),
    ("sections", spoil_replace("## Take-aways", "## Bye")),
    ("sections", spoil_replace("Bug clinic", "Bugs")),
    ("sections", spoil_order),
    ("self-test", spoil_replace("<details><summary>Answer", "<div>Answer")),
    ("parameters", spoil_tags("parameters", [])),
    ("parameters", spoil_replace("SEED = 1", "print(1)")),
    ("setup", spoil_tags("setup", [])),
    ("setup", spoil_replace(f'COURSE = "{ADDRESS}"', 'COURSE = "https://github.com/a/b"')),
    ("length", spoil_replace("draw()", "draw()\n" * 26)),
    ("executed", spoil_count),
    ("executed", spoil_unexecuted),
    ("stderr", spoil_output(None, "draw()", stream("stderr", "a warning"))),
    ("machine path", spoil_replace("draw()", 'draw("/home/ann/x.png")')),
    ("machine path", spoil_replace("The square", "The file C:\\data\\x")),
    ("machine path", spoil_output(None, "draw()", stream("stdout", "in /Users/ann/x"))),
    ("machine path", spoil_output(None, "draw()", stream("stdout", "\x1b[32m/tmp/x\x1b[39m"))),
    ("machine path", spoil_output(None, "draw()", stream("stdout", "site-packages/numpy/x.py"))),
    ("errors", spoil_tags("raises-exception", [])),
    ("errors", spoil_error_gone),
    ("figure size", spoil_picture({"image/png": BIG}, ALT)),
    ("figure size", spoil_picture({"text/html": f'<img alt="a" src="x;base64,{BIG}">'}, {})),
    ("alt text", spoil_picture({"image/png": PIXEL}, {})),
    ("alt text", spoil_picture({"image/svg+xml": "<svg/>"}, {})),
    ("alt text", spoil_picture({"text/html": '<img src="x">'}, {})),
    ("figure text", spoil_remove("The square is grey")),
    ("exercises", spoil_all_exercises),
    ("exercises", spoil_replace("```python", "```")),
    ("exercises", spoil_replace("    ...", "    ...\n\nchecks.answer(answer_1)")),
    ("exercises", spoil_remove("judge(2)")),
    ("untouched", spoil_check_passed),
    ("untouched", spoil_tags("check", ["check"])),
    ("data", spoil_replace("judge(1)", "judge(phantoms.heads(DATA_DIR))")),
    ("magic", spoil_replace("draw()", "%matplotlib inline\ndraw()")),
    ("magic", spoil_replace("draw()", "!ls\ndraw()")),
    ("magic", spoil_replace("draw()", 'warnings.filterwarnings("ignore")')),
]


def test_a_good_notebook_has_no_findings():
    assert style.findings(lesson(), NAME, ADDRESS) == []


@pytest.mark.parametrize("rule, spoil", SPOILT, ids=[f"{i}-{r}" for i, (r, _) in enumerate(SPOILT)])
def test_a_spoilt_notebook_breaks_the_rule_that_was_broken(rule, spoil):
    notebook = lesson()
    spoil(notebook)
    assert notebook != lesson()
    assert rule in {finding.rule for finding in style.findings(notebook, NAME, ADDRESS)}


def test_every_rule_is_broken_by_some_spoilt_notebook():
    assert {rule for rule, _ in SPOILT} == set(style.RULES)


def test_a_figure_of_exactly_the_largest_size_and_a_cell_of_the_longest_length_are_good():
    notebook = lesson()
    exact = base64.b64encode(bytes(80_000)).decode()
    spoil_picture({"image/png": exact}, ALT)(notebook)
    cell_with(notebook, text="draw()").source = "\n".join(["draw()"] * 25)
    assert style.findings(notebook, NAME, ADDRESS) == []


def test_a_heading_inside_a_block_of_code_is_no_heading():
    notebook = lesson()
    cell_with(notebook, text="## Look").source += "\n\n```python\n# a comment\n```"
    assert style.findings(notebook, NAME, ADDRESS) == []


def test_a_web_address_is_no_path_of_a_machine():
    notebook = lesson()
    cell_with(notebook, text="## Look").source += "\n\nSee https://example.org/home/work/tmp."
    cell_with(notebook, text="draw()").source = 'draw("../data/home/x.png")'
    assert style.findings(notebook, NAME, ADDRESS) == []


def test_set_up_cells_that_differ_are_found():
    other = lesson()
    cell_with(other, "setup").source += "\nimport os"
    assert style.between_notebooks({"a": lesson(), "b": lesson()}) == []
    assert [f.where for f in style.between_notebooks({"a": lesson(), "b": other})] == ["b"]


# --- solutions ---


def test_each_solution_stands_in_place_of_its_stub_and_nothing_else_changes():
    shipped = lesson()
    solved = cells.solved(shipped)
    changed = [
        (old.source, new.source)
        for old, new in zip(shipped.cells, solved.cells, strict=True)
        if old.source != new.source
    ]
    assert changed == [
        ("def answer_1():\n    ...", "def answer_1():\n    return 1"),
        ("def answer_2():\n    ...", "def answer_2():\n    return 2"),
    ]
    assert shipped.cells[9].id == solved.cells[9].id


def test_an_indented_solution_reads_like_a_fenced_one():
    start, end = "<details><summary>s</summary>\n\n", "\n\nWhy.\n</details>"
    fenced = f"{start}```python\ndef f():\n\n    return 1\n```{end}"
    indented = f"{start}    def f():\n\n        return 1{end}"
    assert (
        cells.solution_code(fenced) == cells.solution_code(indented) == "def f():\n\n    return 1"
    )


@pytest.mark.parametrize("removed", ["<details><summary>One way", "### Exercise 2"])
def test_an_exercise_without_a_solution_is_named(removed):
    notebook = lesson()
    place = next(i for i, cell in enumerate(notebook.cells) if removed in cell.source)
    notebook.cells = [
        cell
        for i, cell in enumerate(notebook.cells)
        if not (i >= place and "solution" in cell.metadata.get("tags", []))
    ]
    with pytest.raises(cells.NotebookError, match=r"def answer_\d.*without a solution"):
        cells.solved(notebook)


def test_a_solution_without_an_exercise_is_named():
    notebook = lesson()
    cell_with(notebook, "exercise").metadata["tags"] = []
    with pytest.raises(cells.NotebookError, match="without an exercise"):
        cells.solved(notebook)


def test_two_blocks_in_one_solution_are_refused():
    block = "```python\n1\n```\n"
    with pytest.raises(cells.NotebookError, match="exactly one"):
        cells.solution_code(f"<details><summary>s</summary>\n{block}\n{block}</details>")


# --- the text view ---


def test_to_text_and_back_changes_nothing():
    notebook = lesson()
    again = text_view.from_text(text_view.to_text(notebook), notebook)
    assert again.cells == notebook.cells


def test_an_edited_cell_keeps_its_id_and_loses_its_outputs_and_the_others_keep_theirs():
    notebook = lesson()
    edited = text_view.to_text(notebook).replace("draw()", "draw(2)")
    again = text_view.from_text(edited, notebook)
    before, after = cell_with(notebook, text="draw()"), cell_with(again, text="draw(2)")
    assert after.id == before.id and before.outputs
    assert after.outputs == [] and after.execution_count is None
    assert cell_with(again, "check").outputs == cell_with(notebook, "check").outputs


def test_a_new_cell_gets_an_id_of_its_own_and_the_rest_stay():
    notebook = lesson()
    text = text_view.to_text(notebook).replace(
        "# %% [markdown]\n# ## Look", "# %%\nnew = 1\n\n# %% [markdown]\n# ## Look"
    )
    again = text_view.from_text(text, notebook)
    ids = [cell.id for cell in again.cells]
    assert len(set(ids)) == len(ids) == len(notebook.cells) + 1
    assert set(ids) > {cell.id for cell in notebook.cells}


def test_tags_before_the_kind_of_a_cell_are_refused_because_they_would_be_lost():
    with pytest.raises(cells.NotebookError, match="before the tags"):
        text_view.from_text('# %% tags=["solution"] [markdown]\n# text\n', None)


# --- execution ---


def small(*sources):
    """A notebook of plain code cells."""
    return new_notebook(cells=[new_code_cell(source) for source in sources])


def test_execution_numbers_the_cells_and_keeps_no_trace_of_the_run(tmp_path):
    notebook = small("print(6 * 7)", "from tqdm.auto import tqdm\nlist(tqdm(range(2)))")
    done = execution.execute(notebook, tmp_path)
    assert [cell.execution_count for cell in done.cells] == [1, 2]
    assert done.cells[0].outputs[0].text == "42\n"
    assert [output.output_type for output in done.cells[1].outputs] == ["execute_result"]
    assert all(not cell.metadata for cell in done.cells)
    assert dict(done.metadata) == {"kernelspec": cells.KERNEL, "language_info": cells.LANGUAGE}


def test_a_failing_cell_stops_the_execution_and_is_shown(tmp_path):
    with pytest.raises(cells.NotebookError, match="ValueError: no such organ"):
        execution.execute(small("raise ValueError('no such organ')"), tmp_path)


def test_a_path_of_this_machine_in_an_output_is_refused(tmp_path):
    with pytest.raises(cells.NotebookError, match=r"cell 2 .*/home/ann"):
        execution.execute(small("1", "print('/home' + '/ann/scan.dcm')"), tmp_path)


def test_a_traceback_through_a_library_names_its_file_and_keeps_none_of_its_source(tmp_path):
    notebook = new_notebook(cells=[tagged("import json\njson.loads('{')", "raises-exception")])
    error = execution.execute(notebook, tmp_path).cells[0].outputs[0]
    text = execution.ANSI_COLOUR.sub("", "\n".join(error.traceback))
    assert error.ename == "JSONDecodeError"
    assert "json/decoder.py" in text.replace("\\", "/") and "raw_decode" in text
    assert "def " not in text
    assert execution.machine_paths(notebook) == []


@pytest.mark.parametrize(
    "said, published",
    [
        (
            "File \x1b[32m/opt/py/lib/python3.11/site-packages/a/b.py:3\x1b[39m, in f(x)",
            "File \x1b[32ma/b.py:3\x1b[39m, in f(x)",
        ),
        ("File ~/env/lib/python3.13/json/decoder.py:9, in f", "File json/decoder.py:9, in f"),
        ("File /usr/lib/python3/dist-packages/a.py:3, in f", "File a.py:3, in f"),
        (r"File C:\env\Lib\site-packages\a\b.py:3, in f", r"File a\b.py:3, in f"),
        (
            f"File {cells.ROOT / 'helpers' / 'x.py'}:3, in f",
            f"File {os.path.join('helpers', 'x.py')}:3, in f",
        ),
        ("File /tmp/ipykernel_12/345.py:3, in f", "File this notebook:3, in f"),
        ("Cell In[5], line 2\n----> 2 f(x)", "Cell In[5], line 2\n----> 2 f(x)"),
    ],
    ids=lambda text: text.split(",")[0].replace("\x1b", "").replace(str(cells.ROOT), ""),
)
def test_a_message_loses_the_machine_s_part_of_its_file_names(said, published):
    assert execution.shorten_path(said) == published


def test_of_the_steps_outside_the_notebook_only_the_innermost_s_place_is_published():
    error = new_output(
        "error",
        ename="E",
        evalue="in /usr/lib/python3.11/json/x.py",
        traceback=[
            "E  Traceback (most recent call last)",
            "Cell In[5], line 2\n----> 2 f(x)",
            "File /v/lib/python3.11/site-packages/a.py:1, in f\n----> 1 g()",
            "File /v/lib/python3.11/site-packages/b.py:7, in g\n----> 7 raise E",
            "E: in /usr/lib/python3.11/json/x.py",
        ],
    )
    execution.shorten_error(error)
    assert error.traceback == [
        "E  Traceback (most recent call last)",
        "Cell In[5], line 2\n----> 2 f(x)",
        "File b.py:7, in g",
        "E: in json/x.py",
    ]
    assert error.evalue == "in json/x.py"


# --- the course ---


def answered(check, tmp_path, strict=True):
    """Run one exercise whose check prints what `check` says, and judge it."""
    notebook = new_notebook(cells=[new_code_cell("x = 1"), tagged(check, "check")])
    return course.run(notebook, "n", tmp_path / "n.ipynb", strict=strict, folder=tmp_path)


def test_a_passed_check_is_counted(tmp_path):
    run = answered("print('✓ right')", tmp_path)
    assert (run.checks_passed, run.checks_total, run.problems) == (1, 1, [])
    assert run.seconds > 0 and run.peak_mb > 10
    assert not (tmp_path / "n.source.ipynb").exists()


@pytest.mark.parametrize(
    "check, said",
    [
        ("print('✗ an index')", "✗ an index"),
        ("print('✎ not attempted yet')", "not attempted"),
        ("print('✓ one')\nprint('✗ two')", "✗ two"),
        ("pass", "nothing"),
        ("print('✓ right')\nraise KeyError('late')", "KeyError: 'late'"),
    ],
)
def test_a_check_that_did_not_pass_is_named_with_its_cell(check, said, tmp_path):
    run = answered(check, tmp_path)
    assert (run.checks_passed, run.checks_total) == (0, 1)
    assert (
        len(run.problems) == 1
        and run.problems[0].startswith("cell 2 (")
        and said in run.problems[0]
    )


def test_as_shipped_an_untouched_exercise_has_to_say_so(tmp_path):
    assert answered("print('✎ not attempted yet')", tmp_path, strict=False).problems == []
    assert answered("print('✓ right')", tmp_path, strict=False).problems


def stale(*outputs, source="1", tags=("nbval-check-output",)):
    """A cell that is compared, with outputs as they are stored."""
    cell = tagged(source, *tags)
    cell.outputs, cell.execution_count = list(outputs), 1
    return cell


def test_a_notebook_that_broke_since_it_was_stored_is_told_cell_by_cell(tmp_path):
    stored_cells = [
        stale(stream("stdout", "2 slices\n3 mm\n"), source="print('2 slices')\nprint('4 mm')"),
        stale(stream("stdout", "right\n"), source="print('right')"),
        stale(stream("stdout", "old\n"), source="print('new')", tags=()),  # not tagged
        stale(source="from IPython.display import HTML\nHTML('<b>1</b>')"),
        stale(stream("stdout", "✎ not attempted yet\n"), source="print('✗ no')")
        | {"metadata": {"tags": ["check", "nbval-check-output"]}},
        stale(stream("stdout", "7\n"), source="print(7 / 0)"),
        stale(stream("stdout", "never\n"), source="print('reached')"),
    ]
    notebook = new_notebook(cells=[nbformat.from_dict(cell) for cell in stored_cells])
    run = course.run(notebook, "n", tmp_path / "n.ipynb", folder=tmp_path)
    check, failed, *changed = run.problems
    assert check.startswith("cell 5") and "the check did not pass: ✗ no" in check
    assert failed.startswith("cell 6") and "ZeroDivisionError" in failed
    assert [line.split(" (")[0] for line in changed] == ["cell 1", "cell 4", "cell 6"]
    assert changed[0].endswith("the output is not the stored one: stdout was '3 mm' and is '4 mm'")
    loose = course.run(notebook, "n", tmp_path / "n.ipynb", folder=tmp_path, compare=False)
    assert loose.problems == [check, failed]


PLAIN = new_output("execute_result", data={"text/plain": "a\nb", "text/html": "<b>"})
DRAWN = new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"})
TURNED = new_output("error", ename="KeyError", evalue="'x'", traceback=["line 3"])


@pytest.mark.parametrize(
    "before, after, said",
    [
        ([stream("stdout", "a\n")], [stream("stdout", "b\n")], "stdout was 'a' and is 'b'"),
        ([stream("stdout", "a\n")], [], "stdout was 'a' and is ''"),
        ([], [stream("stderr", "oh\n")], "stderr was '' and is 'oh'"),
        ([stream("stdout", "a")], [stream("stdout", "a\n")], "stdout was None and is ''"),
        ([PLAIN], [PLAIN | {"data": {"text/plain": "a\nc", "text/html": "<b>"}}], "'b' and is 'c'"),
        ([PLAIN], [PLAIN | {"data": {"text/plain": "a\nb"}}], "text/html was '<b>' and is ''"),
        ([PLAIN], [PLAIN, PLAIN], "text/plain was '' and is 'a'"),
        ([DRAWN], [DRAWN | {"data": {"text/plain": "<Figure>"}}], "image/png was 'a picture'"),
        ([TURNED], [TURNED | {"evalue": "'y'"}], "KeyError: 'x'"),
        ([TURNED], [], "error was"),
        # What may differ from run to run.
        ([stream("stdout", "a"), stream("stdout", "b")], [stream("stdout", "ab")], None),
        ([DRAWN], [DRAWN | {"data": {"image/png": BIG, "text/plain": "<Figure>"}}], None),
        ([PLAIN | {"execution_count": 3}], [PLAIN | {"execution_count": 9}], None),
        ([TURNED], [TURNED | {"traceback": ["line 4"]}], None),
    ],
)
def test_text_values_tables_and_errors_have_to_come_out_again(before, after, said):
    one, other = (
        new_notebook(cells=[nbformat.from_dict(stale(*outputs))]) for outputs in (before, after)
    )
    found = stored.changed(one, other, solved=True)
    assert bool(found) == (said is not None)
    assert said is None or said in found[0]


def test_what_a_check_says_is_compared_as_long_as_nothing_was_answered():
    check = stale(stream("stdout", "✎\n"), tags=("check", "nbval-check-output"))
    one = new_notebook(cells=[check])
    other = copy.deepcopy(one)
    other.cells[0].outputs = [stream("stdout", "✓\n")]
    assert stored.changed(one, other, solved=True) == []
    assert "stdout was '✎' and is '✓'" in stored.changed(one, other, solved=False)[0]


def test_strictness_reaches_the_kernel_and_does_not_outlive_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CHECKS", "gentle")
    show = "import os\nprint('✓' if os.environ.get('COURSE_CHECKS') == 'strict' else '✗')"
    assert answered(show, tmp_path).checks_passed == 1
    assert answered(show, tmp_path, strict=False).checks_passed == 0
    assert os.environ["COURSE_CHECKS"] == "gentle"


def test_an_error_is_right_where_it_is_meant_and_the_notebook_goes_on(tmp_path):
    notebook = new_notebook(
        cells=[tagged("1 / 0", "raises-exception"), tagged("print('✓')", "check")]
    )
    run = course.run(notebook, "n", tmp_path / "n.ipynb", folder=tmp_path)
    assert (run.checks_passed, run.problems) == (1, [])


def test_an_error_that_was_promised_and_did_not_come_is_a_problem(tmp_path):
    notebook = new_notebook(cells=[tagged("1", "raises-exception")])
    run = course.run(notebook, "n", tmp_path / "n.ipynb", folder=tmp_path)
    assert "raised none" in run.problems[0]


def test_peak_memory_counts_the_kernel(tmp_path):
    hold = new_notebook(
        cells=[new_code_cell("block = b'1' * 300_000_000"), new_code_cell("del block")]
    )
    light = new_notebook(cells=[new_code_cell("1")])
    heavy_mb, light_mb = (
        course.run(nb, "n", tmp_path / "n.ipynb", folder=tmp_path).peak_mb for nb in (hold, light)
    )
    assert 280 < heavy_mb - light_mb < 400


def test_the_table_has_a_line_for_each_notebook():
    runs = [course.Run("00_start_here", 30, 500, 1, 1), course.Run("01_x", 90, 1400, 2, 3, ["bad"])]
    lines = course.table(runs).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["00_start_here", "0.5", "500", "1/1"],
        ["01_x", "1.5", "1,400", "2/3", "✗"],
    ]


# --- what is published ---


@pytest.mark.parametrize(
    "before",
    [
        "https://github.com/old/place",
        "git+https://github.com/old/place.git",
        "git+https://github.com/old/place.name@main#egg=x",
    ],
)
def test_a_fork_s_address_reaches_the_set_up_cell_and_every_badge(before):
    notebook = lesson()
    cell_with(notebook, "setup").source = f'pip("{before}")'
    fork = "https://github.com/a-teacher/her.course"
    publish.with_badges(notebook, NAME, fork)
    old = "https://github.com/old/place" + (".name" if ".name" in before else "")
    assert cell_with(notebook, "setup").source == f'pip("{before.replace(old, fork)}")'
    assert [f.rule for f in style.findings(notebook, NAME, fork)] == []
    assert (
        "colab.research.google.com/github/a-teacher/her.course/blob/main/notebooks/03_example.ipynb"
        in notebook.cells[0].source
    )
    assert (
        "mybinder.org/v2/gh/a-teacher/her.course/main?urlpath=lab/tree/notebooks/03_example.ipynb"
        in notebook.cells[0].source
    )


def test_an_address_that_is_none_is_refused(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text('[project.urls]\nRepository = "https://example.org/x"\n')
    with pytest.raises(cells.NotebookError, match=r"github\.com/owner/name"):
        publish.repository(project)


def test_minutes_are_written_where_the_marker_stands_and_twice_is_the_same():
    measurement = {
        "machine": {"cores": 2},
        "notebooks": [
            {"notebook": NAME, "seconds": 47.0, "peak_mb": 891},
            {"notebook": "04_next", "seconds": 1.0, "peak_mb": 1500},
        ],
    }
    words = publish.in_words(measurement)
    assert words[NAME] == "0.8 minutes on 2 cores, 900 MB of memory"
    assert words["04_next"] == "0.1 minutes on 2 cores, 1500 MB of memory"
    notebook = publish.with_minutes(lesson(), NAME, words)
    assert f"<!-- measured -->{words[NAME]}<!-- /measured -->" in notebook.cells[0].source
    assert publish.with_minutes(copy.deepcopy(notebook), NAME, words) == notebook
    rows = (
        "| a | <!-- measured 04_next --><!-- /measured --> |\n"
        "| b | <!-- measured 03_example -->x<!-- /measured --> |"
    )
    written = publish.readme_with_minutes(rows, words)
    assert (
        written.splitlines()[0]
        == f"| a | <!-- measured 04_next -->{words['04_next']}<!-- /measured --> |"
    )
    assert words[NAME] in written.splitlines()[1]


# --- the command line ---


def test_an_unknown_notebook_is_named_and_so_are_the_known_ones():
    done = subprocess.run(
        [sys.executable, "-m", "tools.notebooks", "solve", "99_none"],
        cwd=cells.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no notebook 99_none" in done.stderr and "Traceback" not in done.stderr


def test_a_notebook_is_written_with_the_same_bytes_everywhere(tmp_path):
    path = tmp_path / "n.ipynb"
    cells.write(lesson(), path)
    raw = path.read_bytes()
    assert raw.endswith(b"}\n") and b"\r" not in raw
    assert nbformat.reads(raw.decode("utf-8"), as_version=4) == json.loads(raw) | {
        "cells": cells.read(path).cells
    }


@pytest.fixture
def small_course(tmp_path, monkeypatch):
    """A course of one notebook with one exercise, in a folder of its own."""
    folder = tmp_path / "notebooks"
    check = "import os\nprint('✓ right' if answer_1() == 1 else '✎ not attempted yet')"
    prose, stub, _, solution = exercise(1)
    shipped = new_notebook(cells=[prose, stub, tagged(check, "check"), solution])
    cells.write(shipped, folder / f"{NAME}.ipynb")
    readme = tmp_path / "README.md"
    readme.write_text(f"| it | <!-- measured {NAME} --><!-- /measured --> |\n")
    for module in (cells, notebooks, execution):
        monkeypatch.setattr(module, "NOTEBOOKS", folder, raising=False)
    monkeypatch.setattr(course, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "TEXT", tmp_path / "text")
    monkeypatch.setattr(notebooks, "SOLVED", tmp_path / "solved")
    monkeypatch.setattr(publish, "README", readme)
    monkeypatch.setattr(publish, "MEASURED", tmp_path / "docs" / "measured.json")
    for module in (course, publish):
        monkeypatch.setattr(module, "LAST_RUN", tmp_path / "measured.json")
    return tmp_path


def test_a_complete_course_is_measured_and_its_minutes_are_published(small_course, capsys):
    assert course.main([]) == 0
    assert "1/1" in capsys.readouterr().out
    assert notebooks.main(["minutes"]) == 0
    published = json.loads((small_course / "docs" / "measured.json").read_text())
    (entry,) = published["notebooks"]
    assert set(entry) == {"notebook", "seconds", "peak_mb", "checks_passed", "checks_total"}
    assert set(published["machine"]) == {"cores", "python", "tensorflow", "system"}
    assert "0.1 minutes on" in (small_course / "README.md").read_text()


def test_a_failed_course_says_where_and_is_not_fit_to_be_published(small_course, capsys):
    path = small_course / "notebooks" / f"{NAME}.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("return 1", "return 7"), "utf-8")
    assert course.main(["--json", str(small_course / "x.json")]) == 1
    assert f"✗ {NAME}, cell 3 (import os): the check did not pass" in capsys.readouterr().out
    assert json.loads((small_course / "x.json").read_text())["notebooks"][0]["checks_passed"] == 0
    assert notebooks.main(["minutes"]) == 1
    assert "make course" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--as-shipped"], [NAME]])
def test_only_a_complete_solved_run_is_kept_for_publication(arguments, small_course):
    assert course.main(arguments) == 0
    assert not (small_course / "measured.json").exists()


def test_text_edit_update_execute_is_a_circle(small_course):
    path = small_course / "notebooks" / f"{NAME}.ipynb"
    assert notebooks.main(["text"]) == 0
    text = small_course / "text" / f"{NAME}.py"
    text.write_text(text.read_text("utf-8").replace("count", "count up"), "utf-8", newline="\n")
    assert notebooks.main(["update", NAME]) == 0
    assert "count up" in cells.read(path).cells[0].source
    assert notebooks.main(["execute"]) == 0
    assert cells.read(path).cells[2].outputs[0].text == "✎ not attempted yet\n"
    assert notebooks.main(["solve"]) == 0
    assert "return 1" in cells.read(small_course / "solved" / path.name).cells[1].source


def test_a_notebook_that_fails_stays_as_it_was(small_course, capsys):
    path = small_course / "notebooks" / f"{NAME}.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("import os", "1 / 0"), "utf-8")
    before = path.read_bytes()
    assert notebooks.main(["execute", NAME]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert path.read_bytes() == before


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


@pytest.mark.skipif(shutil.which("make") is None, reason="no make: README says how without")
def test_make_lab_opens_the_first_notebook_and_passes_options_on(tmp_path):
    done = subprocess.run(
        ["make", "--dry-run", "lab", "LAB_ARGS=--no-browser --port=9", f"VENV={tmp_path}"],
        cwd=cells.ROOT,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
    )
    *setup, start = done.stdout.splitlines()
    root = "--allow-root " if os.geteuid() == 0 else ""
    assert start == (
        f"{tmp_path}/bin/jupyter lab {root}--no-browser --port=9 notebooks/00_start_here.ipynb"
    )
    assert any("-m venv" in line for line in setup)
    assert any("pip install" in line and "-r requirements.txt" in line for line in setup)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make: README says how without")
@pytest.mark.parametrize("given, said", [([], ""), (["AS_SHIPPED=1"], " --as-shipped")])
def test_make_course_runs_the_notebooks_solved_or_as_they_come(given, said, tmp_path):
    done = subprocess.run(
        ["make", "--dry-run", "course", *given, "COURSE_ARGS=01_x", f"VENV={tmp_path}"],
        cwd=cells.ROOT,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
    )
    start = " ".join(done.stdout.splitlines()[-1].split())
    assert start == f"{tmp_path}/bin/python -m tools.course{said} 01_x"


def test_every_package_of_the_helpers_is_installed_with_them():
    # In this folder all of them import; in a hosted notebook only what was installed.
    project = tomllib.loads((cells.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"] == {"include": ["helpers*"]}
    folders = {path.parent for path in cells.ROOT.glob("helpers/**/*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
