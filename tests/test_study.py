"""A study repeats a lesson with other seeds, judges what it claims, and publishes what came out."""

import ast
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from studies import Claim, Study, ahead, mean, reaches
from tools import cells, course, study, study_lesson, study_published, study_results

NAME = "05_tiny"
PARAMETERS = 'DATA_DIR = "../data"\nSEED = 0\nEPOCHS: int = 1\nRESULTS = None'
WORK = """\
from pathlib import Path

with Path(DATA_DIR, "patients.txt").open("a") as file:
    file.write(str(SEED))
patients = Path(DATA_DIR, "patients.txt").read_text()"""
STUDY_CELL = """\
import csv

# Weights help by 0.1 an epoch, but for seed 1, which they harm.
gain = 0.1 * EPOCHS * (-1 if SEED == 1 else 1)
rows = [(t, run, 0.3 + gain * k + run / 100, patients)
        for k, t in enumerate(["nothing", "class weights"]) for run in (0, 1)]
if RESULTS:
    with open(RESULTS, "w", newline="") as file:
        csv.writer(file).writerows([("treatment", "run", "precision", "patients"), *rows])"""

HELPS = Claim("weights help", ahead("class weights", "nothing", "precision"), at_least=5)
ALWAYS = Claim("weights always help", ahead("class weights", "nothing", "precision"), at_least=10)
HARMS = Claim("weights harm", ahead("nothing", "class weights", "precision"))
COUNTED = Claim("weights harm, said to vary", HARMS.holds, at_least=0)


def tiny(**changes) -> Study:
    return Study(**{"notebook": NAME, "measures": ("precision",), "claims": (HELPS,)} | changes)


def tagged(source, tag):
    return new_code_cell(source, metadata={"tags": [tag]})


def lesson(work=WORK, study_cell=STUDY_CELL):
    return new_notebook(
        cells=[
            new_markdown_cell("# Tiny"),
            tagged(PARAMETERS, "parameters"),
            tagged("1 / 0", "raises-exception"),
            new_code_cell(work),
            tagged(study_cell, "study"),
            new_code_cell("raise RuntimeError('the study goes on behind its cell')"),
        ]
    )


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A course of one lesson with one study, and a count of its runs."""
    folder = tmp_path / "notebooks"
    cells.write(lesson(), folder / f"{NAME}.ipynb")
    monkeypatch.setattr(cells, "NOTEBOOKS", folder)
    (tmp_path / "studies").mkdir()
    monkeypatch.setattr(study, "STUDIES", tmp_path / "studies")
    docs = tmp_path / "docs"
    docs.mkdir()
    monkeypatch.setattr(study_published, "PUBLISHED", docs)
    monkeypatch.setattr(study_published, "PAGE", docs / "studies.md")
    docs.joinpath("studies.md").write_text("before <!-- tiny -->old<!-- /tiny --> after")
    runs = []
    really = course.run

    def counted(*args, **more):
        runs.append(args)
        return really(*args, **more)

    monkeypatch.setattr(course, "run", counted)

    def claiming(described: Study, name: str = "tiny") -> None:
        (tmp_path / "studies" / f"{name}.py").touch()
        module = SimpleNamespace(STUDY=described)
        monkeypatch.setitem(sys.modules, f"studies.{name}", module)

    claiming(tiny())
    return SimpleNamespace(
        folder=tmp_path, notebook=folder / f"{NAME}.ipynb", runs=runs, claiming=claiming
    )


def made(precision: dict[str, list[list[float]]], described: Study | None = None):
    """Results from numbers: for each treatment a list of runs for each seed."""
    rows = [
        {"treatment": treatment, "run": run, "precision": value, "seed": seed}
        for seed in range(len(next(iter(precision.values()))))
        for treatment, by_seed in precision.items()
        for run, value in enumerate(by_seed[seed])
    ]
    machine = {"cores": 2, "python": "3.11.2", "tensorflow": "2.21.0", "system": "Linux"}
    described = described or tiny()
    version = study_lesson.version(lesson(), described)
    return study_results.Results("tiny", described, pd.DataFrame(rows), machine, version)


def won(times: int, of: int, described: Study | None = None):
    """Results in which weights are ahead in so many seeds."""
    ours = [[0.4 if seed < times else 0.2] for seed in range(of)]
    return made({"nothing": [[0.3]] * of, "class weights": ours}, described)


# --- the lesson, prepared ---


def test_a_study_ends_with_the_tagged_cell_and_leaves_the_lesson_as_it_is():
    notebook = lesson()
    assert [cell.source for cell in study_lesson.cut(notebook).cells][-1] == STUDY_CELL
    assert "RuntimeError" in notebook.cells[-1].source


@pytest.mark.parametrize("number", [0, 2])
def test_one_cell_and_no_other_number_is_where_a_study_ends(number):
    notebook = new_notebook(cells=[tagged("1", "study") for _ in range(number)])
    with pytest.raises(cells.NotebookError, match=f"tagged study .* there are {number}"):
        study_lesson.cut(notebook)


def test_parameters_take_the_place_of_the_lesson_s_and_no_cell_changes_its_number():
    wanted = {"SEED": 7, "DATA_DIR": "C:\\scans\\'new'", "RESULTS": None, "EPOCHS": 2.5}
    notebook = lesson()
    changed = study_lesson.with_parameters(notebook, wanted)
    values = {}
    exec(changed.cells[1].source, values)
    assert {name: values[name] for name in wanted} == wanted
    assert [a.source for a in changed.cells[2:]] == [b.source for b in notebook.cells[2:]]
    assert notebook.cells[1].source == PARAMETERS


def test_a_parameter_that_the_lesson_does_not_know_is_refused():
    with pytest.raises(cells.NotebookError, match=r"does not assign EPOCH$"):
        study_lesson.with_parameters(lesson(), {"SEED": 1, "EPOCH": 2})
    with pytest.raises(cells.NotebookError, match="tagged parameters is needed; there are 0"):
        study_lesson.with_parameters(new_notebook(), {"SEED": 1})


@pytest.mark.parametrize(
    "line, named",
    [
        ("SIZE = 10\nSIZE *= 2", "SIZE *= 2"),
        ("A, B = 1, 99", "A, B = (1, 99)"),
        ("import random; random.seed(4)", "import random"),
        ("random.seed(4)", "random.seed(4)"),
        ("if True:\n    SIZE = 77", "if True:"),
        ("SIZE = 10\nSIZE = 77", "SIZE = 77"),
        ("A = B = 1", "A = B = 1"),
        ("SIZE: int", "SIZE: int"),
        ("RATE = {[]: 1}", "RATE = {[]: 1}"),
        # It would be computed from the lesson's EPOCHS, and stay so in a run with other ones.
        ("STEPS = 10 * EPOCHS", "STEPS = 10 * EPOCHS"),
    ],
)
def test_a_cell_of_parameters_that_does_more_than_to_name_values_is_refused(line, named):
    notebook = lesson()
    notebook.cells[1].source += f"\n{line}"
    said = f"has `{re.escape(named)}`; only NAME = literal .* move .* into another cell"
    with pytest.raises(cells.NotebookError, match=said):
        study_lesson.with_parameters(notebook, {"EPOCHS": 40})
    with pytest.raises(cells.NotebookError, match=f"{NAME}: .*{said}"):
        study_lesson.version(notebook, tiny())


def test_a_cell_of_parameters_is_python():
    with pytest.raises(cells.NotebookError, match="parameters is no Python"):
        study_lesson.assigned("%matplotlib inline")


@pytest.mark.parametrize("path", cells.notebook_paths(), ids=lambda path: path.stem)
def test_the_cell_of_parameters_of_each_lesson_names_values_and_does_nothing_else(path):
    (cell,) = (cell for cell in cells.read(path).cells if "parameters" in cells.tags(cell))
    values = {}
    exec(cell.source, values)
    said = study_lesson.assigned(cell.source)
    assert {"DATA_DIR", "SEED"} <= {*said} == {*values} - {"__builtins__"}
    assert all(ast.literal_eval(text) == values[name] for name, text in said.items())


# --- runs ---


def test_each_seed_has_patients_of_its_own_and_the_results_are_what_the_lesson_wrote(world):
    kept = world.folder / "kept"
    before = world.notebook.read_bytes()
    results = study.run_study("tiny", tiny(parameters={"EPOCHS": 2}), 2, kept)
    expected = [
        ("nothing", 0, 0.3, 0),
        ("nothing", 1, 0.31, 0),
        ("class weights", 0, 0.5, 0),
        ("class weights", 1, 0.51, 0),
        ("nothing", 0, 0.3, 1),
        ("nothing", 1, 0.31, 1),
        ("class weights", 0, 0.1, 1),
        ("class weights", 1, 0.11, 1),
    ]
    columns = ["treatment", "run", "precision", "seed"]
    pd.testing.assert_frame_equal(results.rows, pd.DataFrame(expected, columns=columns))
    for seed in (0, 1):
        written = pd.read_csv(kept / f"seed_0{seed}" / "results.csv", dtype=str)
        # A second run in the same data folder would have found what the first one left.
        assert written["patients"].unique().tolist() == [str(seed)]
        left = {path.name for path in (kept / f"seed_0{seed}").iterdir()}
        assert left == {"results.csv", "made_by.txt", f"{NAME}.ipynb"}
    assert world.notebook.read_bytes() == before


@pytest.fixture
def runs(world):
    """Runs the study so far and returns how many runs that took, and the rows."""

    def counted(seeds, **changes):
        before = len(world.runs)
        rows = study.run_study("tiny", tiny(**changes), seeds, world.folder / "kept").rows
        return len(world.runs) - before, rows

    return counted


def test_what_is_done_is_not_done_again_and_what_was_interrupted_is(world, runs):
    kept = world.folder / "kept"
    first, rows = runs(1)
    again, same = runs(2)
    assert (first, again) == (1, 1)
    pd.testing.assert_frame_equal(same[same["seed"] == 0], rows)
    assert runs(2)[0] == 0
    # A run that was interrupted has no complete results.
    (kept / "seed_01" / "results.csv").rename(kept / "seed_01" / "unfinished.csv")
    (kept / "seed_01" / "data").mkdir()
    (kept / "seed_01" / "data" / "patients.txt").write_text("half of them")
    again, rows = runs(2)
    assert again == 1
    pd.testing.assert_frame_equal(rows, same)


def test_what_would_come_out_differently_is_done_again(world, runs):
    assert runs(1)[0] == 1
    # Prose, and what stands behind the tagged cell, is not what the results follow from.
    other = lesson()
    other.cells[0].source, other.cells[-1].source = "# Tiny, said better", "2"
    cells.write(other, world.notebook)
    assert runs(1)[0] == 0
    cells.write(lesson(study_cell=STUDY_CELL.replace("0.3", "0.2")), world.notebook)
    changed, rows = runs(1)
    assert changed == 1 and rows["precision"].min() == 0.2
    again, rows = runs(1, parameters={"EPOCHS": 3})
    assert again == 1 and rows["precision"].max() == 0.51


def test_another_machine_runs_a_seed_again(runs, monkeypatch):
    assert runs(1)[0] == 1
    other = course.machine() | {"tensorflow": "1.12.0"}
    monkeypatch.setattr(course, "machine", lambda: other)
    assert [runs(1)[0], runs(1)[0]] == [1, 0]


def test_a_lesson_that_fails_is_named_with_seed_cell_and_error_and_what_was_done_stays(
    world, capsys
):
    work = WORK + "\nassert SEED < 1, 'no patients left'"
    cells.write(lesson(work), world.notebook)
    kept = world.folder / "kept"
    assert study.main(["tiny", "--seeds", "3", "--keep", str(kept)]) == 1
    said = capsys.readouterr().err
    assert f"{NAME}, SEED = 1: cell 4 (from pathlib import Path): AssertionError" in said
    assert "no patients left" in said and "Traceback" not in said
    assert len(world.runs) == 2
    results = sorted(path.parent.name for path in kept.glob("tiny/*/results.csv"))
    assert results == ["seed_00"]


def test_a_claim_about_something_that_is_not_there_is_found_with_the_first_seed(world, capsys):
    world.claiming(
        tiny(claims=(Claim("?", ahead("class weights", "nothing at all", "precision")),))
    )
    assert study.main(["--keep", str(world.folder / "kept")]) == 1
    said = capsys.readouterr().err
    assert "SEED = 0" in said and "'nothing at all'; there are: 'nothing', 'class weights'" in said
    assert len(world.runs) == 1


def test_the_exit_code_is_that_of_the_claims_and_the_numbers_are_written_either_way(
    world, monkeypatch, capsys
):
    # Relative paths, as one types them; the kernel works in another folder.
    monkeypatch.chdir(world.folder)
    kept, target = ["--keep", "kept"], Path("out", "x.json")
    assert study.main(["--seeds", "2", *kept]) == 0
    assert "✓ 1 of 2: weights help" in capsys.readouterr().out
    world.claiming(tiny(claims=(HELPS, ALWAYS, COUNTED)))
    assert study.main(["--seeds", "2", *kept, "--json", str(target)]) == 1
    said = capsys.readouterr().out
    assert "✗ 1 of 2, wanted 2: weights always help" in said
    assert "· 1 of 2: weights harm, said to vary" in said
    assert len(json.loads(target.read_text())["rows"]) == 8
    assert len(world.runs) == 2


def test_without_a_folder_to_keep_them_in_nothing_of_the_runs_is_left(world, monkeypatch, capsys):
    monkeypatch.setattr(study.tempfile, "tempdir", str(world.folder / "temporary"))
    (world.folder / "temporary").mkdir()
    assert study.main(["--seeds", "1"]) == 0
    (folder,) = {args[4] for args in world.runs}
    assert folder.is_relative_to(world.folder / "temporary") and not folder.exists()
    assert list((world.folder / "temporary").iterdir()) == []
    assert "one seed, so no spread" in capsys.readouterr().out


def test_names_that_are_not_there_are_answered_with_those_that_are(world, capsys):
    assert study.main(["huge"]) == 1
    assert "no study huge; there are: tiny" in capsys.readouterr().err
    world.claiming(tiny(notebook="06_none"))
    assert study.main([]) == 1
    assert f"no notebook 06_none; there are: {NAME}" in capsys.readouterr().err
    world.claiming(tiny(), "second")
    for wrong in (["--json", "x.json"], ["tiny", "--seeds", "0"]):
        with pytest.raises(SystemExit) as stopped:
            study.main(wrong)
        assert stopped.value.code == 2
    assert world.runs == []


# --- what a run writes ---


@pytest.mark.parametrize(
    "text, said",
    [
        (None, "wrote nothing to RESULTS"),
        ("", "lacks the column treatment, precision"),
        ("treatment,run,recall\na,0,1\n", "lacks the column precision"),
        ("treatment,run,precision\n", "no rows"),
        ("treatment,run,precision\na,0,0.5\nb,1,\n", "b, run 1: precision is no finite number: ''"),
        ("treatment,run,precision\na,0,nan\n", "a, run 0: precision is no finite number: "),
        ("treatment,run,precision\na,0,inf\n", "no finite number"),
        ("treatment,run,precision\na,0,high\n", "no finite number: 'high'"),
        ("treatment,run,precision\na,0,.5\na,0,.6\n", "a, run 0: two rows for one run"),
        ("treatment,precision\na,.5\nb,.5\na,.6\n", "a, run 0: two rows for one run"),
    ],
)
def test_results_that_cannot_be_used_are_refused_with_the_reason(text, said, tmp_path):
    path = tmp_path / "results.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(cells.NotebookError, match=said):
        study_results.collect(path, tiny())


def test_a_treatment_may_be_called_none(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("run,precision,treatment,more\n0,0.1234567,None,1\n0,1,NA,2\n")
    rows = study_results.collect(path, tiny())
    assert rows.to_numpy().tolist() == [["None", 0, 0.123457], ["NA", 0, 1.0]]


def test_rows_of_something_else_than_treatments_need_neither_that_name_nor_runs(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("task,precision,treatment\n1,0.5,none\nspleen,0.25,none\n")
    rows = study_results.collect(path, tiny(rows_of="task"))
    assert rows.columns.tolist() == ["treatment", "run", "precision"]
    assert rows.to_numpy().tolist() == [["1", 0, 0.5], ["spleen", 0, 0.25]]
    with pytest.raises(cells.NotebookError, match="lacks the column organ"):
        study_results.collect(path, tiny(rows_of="organ"))


def test_a_seed_with_other_treatments_than_the_first_is_refused():
    one, two = (
        pd.DataFrame({"treatment": list(names), "run": 0, "precision": 0.5})
        for names in ("ab", "ac")
    )
    with pytest.raises(cells.NotebookError, match=r"seeds 0 and 1 differ .*'b', 0.*'c', 0"):
        study_results.together({0: one, 1: two})


def test_a_lesson_that_does_not_follow_its_seed_is_refused():
    same = pd.DataFrame({"treatment": ["a", "b"], "run": 0, "precision": [0.5, 0.6]})
    other = same.assign(precision=[0.6, 0.5])
    assert len(study_results.together({0: same, 1: other})) == 4
    with pytest.raises(cells.NotebookError, match="seeds 0 and 2 gave the same numbers"):
        study_results.together({0: same, 1: other, 2: same})


# --- claims ---


@given(held=st.integers(0, 40), seeds=st.integers(1, 40), at_least=st.integers(0, 10))
def test_a_claim_asks_for_the_same_share_of_any_number_of_seeds(held, seeds, at_least):
    enough = held >= Claim("x", HELPS.holds, at_least).wanted(seeds)
    assert enough == (Fraction(held, seeds) >= Fraction(at_least, 10))


@pytest.mark.parametrize("times, fails", [(10, False), (9, False), (8, True), (0, True)])
def test_nine_of_ten_is_enough_and_eight_is_not(times, fails):
    claim = Claim("weights help", HELPS.holds)
    results = won(times, 10, tiny(claims=(claim,)))
    assert results.held() == [(claim, times)]
    assert results.failed() == ([claim] if fails else [])
    mark = "✗" if fails else "✓"
    assert f"{mark} {times} of 10" in study_results.report(results)
    assert f"| {mark} | {times} of 10" in study_results.markdown(results)


def test_ahead_is_by_the_mean_of_the_runs_and_a_tie_is_not_ahead():
    results = made({"a": [[0.1, 0.9]], "b": [[0.4, 0.5]], "c": [[0.5, 0.5]]})
    assert mean(results.rows, "a", "precision") == 0.5
    assert ahead("a", "b", "precision")(results.rows)
    assert not ahead("b", "a", "precision")(results.rows)
    assert not ahead("a", "c", "precision")(results.rows)
    assert ahead("a", "b", "precision", by=0.04)(results.rows)
    assert not ahead("a", "b", "precision", by=0.06)(results.rows)
    with pytest.raises(cells.NotebookError, match="measure 'recall'"):
        mean(results.rows, "a", "recall")


def test_a_value_is_reached_by_the_mean_of_the_runs_and_by_the_value_itself():
    rows = made({"a": [[0.25, 0.75]], "b": [[0.9, 0.9]]}).rows
    assert reaches("a", "precision", 0.5)(rows)
    assert not reaches("a", "precision", 0.500001)(rows)
    assert reaches("b", "precision", 0.5)(rows)
    with pytest.raises(cells.NotebookError, match="'c'; there are: 'a', 'b'"):
        reaches("c", "precision", 0.5)(rows)


def test_a_claim_is_judged_by_decimal_numbers_not_by_what_is_left_of_them_in_binary():
    rows = made({"a": [[0.7] * 3], "b": [[0.7]], "c": [[0.35]], "d": [[0.2]]}).rows
    assert reaches("a", "precision", 0.7)(rows)
    assert not ahead("b", "a", "precision")(rows) and not ahead("a", "b", "precision")(rows)
    assert ahead("c", "d", "precision", by=0.15)(rows)
    assert not ahead("c", "d", "precision", by=0.150001)(rows)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Claim("x", HELPS.holds, at_least=11),
        lambda: Claim("x", HELPS.holds, at_least=-1),
        lambda: tiny(measures=()),
        lambda: tiny(seeds=0),
        lambda: tiny(parameters={"SEED": 3}),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ValueError):
        wrong()


# --- tables, JSON and the page ---


def test_the_table_has_the_mean_and_the_spread_of_the_seeds_not_of_the_runs():
    described = tiny(claims=(Claim("a is best", ahead("a", "x", "precision")),))
    results = made({"x": [[0.1, 0.3], [0.5, 0.9], [0.2, 0.2]], "a": [[1, 1]] * 3}, described)
    means = [0.2, 0.7, 0.2]
    expected = f"{np.mean(means):.2f} ± {np.std(means, ddof=1):.2f}"
    table = study_results.summary(results)
    assert table["precision"].tolist() == [expected, "1.00 ± 0.00"]
    # In the lesson's order, not the alphabet's.
    assert table.index.tolist() == ["x", "a"]
    lines = study_results.markdown(results).splitlines()
    assert lines[0] == (
        "Mean ± standard deviation over 3 seeds. TensorFlow 2.21.0, Python 3.11.2, 2 cores."
    ) and lines[2:6] == [
        "| treatment | precision |",
        "|---|---:|",
        f"| x | {expected} |",
        "| a | 1.00 ± 0.00 |",
    ]
    each = study_results.report(results).split("for each seed")[1].split("\n\n")[1].splitlines()
    assert [line.split() for line in each] == [
        ["0", "1", "2"],
        ["x", "0.20", "0.70", "0.20"],
        ["a", "1.00", "1.00", "1.00"],
    ]


def test_results_come_back_from_json_as_they_were_with_the_claims_of_today():
    results = made({"nothing": [[1 / 3], [0.25]], "class weights": [[0.5], [0.125]]})
    results.rows["precision"] = results.rows["precision"].round(6)
    today = tiny(claims=(HELPS, HARMS))
    again = study_published.loads(study_published.dumps(results), {"tiny": today})
    pd.testing.assert_frame_equal(again.rows, results.rows)
    assert (again.name, again.machine, again.study) == ("tiny", results.machine, today)
    assert again.version == results.version
    assert study_published.dumps(again) == study_published.dumps(results)


def with_row(row: str) -> str:
    """The JSON of one seed, and a row more."""
    return study_published.dumps(won(1, 1)).replace('"rows": [', f'"rows": [\n  {row},')


@pytest.mark.parametrize(
    "text, said",
    [
        ("[1, 2]", "not the JSON of a study"),
        ("{", "not the JSON of a study"),
        ("{}", "not the JSON of a study: KeyError"),
        (study_published.dumps(won(1, 1)).replace('"parameters"', '"p"'), "study: KeyError"),
        (study_published.dumps(won(1, 1)).replace('"tiny"', '"huge"'), "no study huge"),
        (study_published.dumps(won(1, 1)).replace('"precision"', '"recall"'), "lacks precision"),
        *(
            (study_published.dumps(won(1, 1)).replace(f'"{column}"', '"x"'), f"tiny lacks {column}")
            for column in ("seed", "treatment", "run")
        ),
        *(
            (study_published.dumps(won(1, 1)).replace(f'"{key}"', '"x"'), rf"lacks machine\.{key}")
            for key in course.machine()
        ),
        (with_row('["nothing", 0, null, 1]'), "seed 1, nothing, run 0: precision is no finite"),
        (with_row('["nothing", 0, NaN, 1]'), "seed 1, nothing, run 0: precision is no finite"),
        (with_row('["nothing", 0, "x", 1]'), "precision is no finite number: 'x'"),
        (with_row('["nothing", 0, [1], 1]'), r"precision is no finite number: \[1\]"),
        (with_row('["nothing", 0, 0.5, 0]'), "seed 0, nothing, run 0: two rows for one run"),
        (with_row('["nothing", 0, 0.5, null]'), "tiny has a seed nan"),
        (with_row('["nothing", 0, 0.5, "1"]'), "tiny has a seed '1'"),
        (with_row("[null, 0, 0.5, 1]"), "tiny has a treatment "),
        (with_row('["nothing", null, 0.5, 1]'), "tiny has a run nan"),
        (with_row('["nothing", [1], 0.5, 1]'), r"tiny has a run \[1\]"),
    ],
)
def test_a_json_of_something_else_is_refused(text, said):
    with pytest.raises(cells.NotebookError, match=said):
        study_published.loads(text, {"tiny": tiny()})


def test_a_complete_study_is_published_between_its_markers(world, capsys):
    results, path = won(10, 10), world.folder / "any name.json"
    path.write_text(study_published.dumps(results), "utf-8")
    assert study.main(["--publish", str(path)]) == 0
    page = study_published.PAGE.read_text("utf-8")
    table = study_results.markdown(results)
    assert page == f"before <!-- tiny -->\n\n{table}\n\n<!-- /tiny --> after"
    kept = world.folder / "docs" / "tiny.json"
    assert kept.read_bytes() == path.read_bytes()
    # What is published can be published again, after a claim was changed for instance.
    world.claiming(tiny(claims=(HELPS, COUNTED)))
    assert study.main(["--publish", str(kept)]) == 0
    assert "| · | 0 of 10 | weights harm, said to vary |" in study_published.PAGE.read_text("utf-8")


def from_one():
    """As many seeds as a complete study has, and not its seeds."""
    results = won(10, 10)
    return dataclasses.replace(results, rows=results.rows.assign(seed=results.rows["seed"] + 1))


@pytest.mark.parametrize(
    "results, said",
    [
        (won(9, 9), "seeds 0, 1, 2, 3, 4, 5, 6, 7, 8; a complete study has 0 to 9"),
        (from_one(), "seeds 1, 2, 3, 4, 5, 6, 7, 8, 9, 10; a complete study has 0 to 9"),
        (won(4, 10), "does not hold, so it should not be claimed: weights help"),
        (None, "no file"),
    ],
    ids=["incomplete", "other seeds", "untrue", "absent"],
)
def test_what_is_incomplete_or_does_not_hold_is_not_published(results, said, world, capsys):
    path, before = world.folder / "x.json", study_published.PAGE.read_text()
    if results:
        path.write_text(study_published.dumps(results), "utf-8")
    assert study.main(["--publish", str(path)]) == 1
    assert said in capsys.readouterr().err
    assert study_published.PAGE.read_text() == before
    assert not (world.folder / "docs" / "tiny.json").exists()


def test_a_page_without_markers_is_not_written(world, capsys):
    study_published.PAGE.write_text("no place")
    path = world.folder / "x.json"
    path.write_text(study_published.dumps(won(10, 10)), "utf-8")
    assert study.main(["--publish", str(path)]) == 1
    assert "<!-- tiny -->" in capsys.readouterr().err
    assert not (world.folder / "docs" / "tiny.json").exists()


# --- the lesson changes after its study ---


def changed(**sources):
    """The tiny lesson with another source in the cell of a kind."""
    notebook = lesson()
    place = {"prose": 0, "parameters": 1, "error": 2, "work": 3, "study": 4, "behind": 5}
    for kind, source in sources.items():
        notebook.cells[place[kind]].source = source
    return notebook


def test_a_fingerprint_is_that_of_the_code_up_to_the_tagged_cell_as_documented():
    listed = json.dumps(["1 / 0", WORK, STUDY_CELL])
    expected = hashlib.sha256(listed.encode("ascii")).hexdigest()
    assert study_lesson.fingerprint(lesson()) == expected
    assert study_lesson.fingerprint(study_lesson.cut(lesson())) == expected


@pytest.mark.parametrize(
    "sources, same",
    [
        ({"prose": "# Tiny, said better"}, True),
        ({"behind": "2"}, True),
        ({"parameters": PARAMETERS.replace("EPOCHS: int = 1", "EPOCHS = 5")}, True),
        ({"work": WORK + "  # a comment may be a switch"}, False),
        ({"error": "2 / 0"}, False),
        ({"study": STUDY_CELL.replace("0.3", "0.2")}, False),
        # Two cells that change places, or one that takes lines of another.
        ({"error": WORK, "work": "1 / 0"}, False),
        ({"error": "1 / 0\n" + WORK, "work": ""}, False),
    ],
)
def test_a_fingerprint_follows_the_code_that_a_study_runs_and_nothing_else(sources, same):
    notebook = changed(**sources)
    assert (study_lesson.fingerprint(notebook) == study_lesson.fingerprint(lesson())) == same


def test_a_fingerprint_does_not_know_outputs_tags_or_the_address_of_a_copy_of_the_course():
    notebook = lesson()
    notebook.cells[3].outputs = [new_output("stream", text="seen")]
    notebook.cells[3].execution_count = 9
    notebook.cells[3].metadata["tags"] = ["nbval-check-output"]
    notebook.cells.insert(2, tagged("address = 'https://github.com/one/copy'", "setup"))
    assert study_lesson.fingerprint(notebook) == study_lesson.fingerprint(lesson())


def test_a_version_has_the_parameters_that_a_run_has_but_for_its_own():
    described = tiny(parameters={"RATE": 1e-3})
    notebook = changed(parameters=PARAMETERS + "\nSIZE = ( 96,128 )  # pixels\nRATE: float = -0.1")
    assert study_lesson.version(notebook, described).parameters == {
        "EPOCHS": "1",
        "SIZE": "(96, 128)",
        "RATE": "0.001",
    }
    with pytest.raises(cells.NotebookError, match=f"{NAME}: the cell .* does not assign RATE"):
        study_lesson.version(lesson(), described)


def test_what_is_run_is_published_with_its_fingerprint_its_parameters_and_its_tasks(world, capsys):
    work = STUDY_CELL.replace('("treatment", "run"', '("task", "run"')
    cells.write(lesson(study_cell=work), world.notebook)
    world.claiming(tiny(rows_of="task", seeds=2, parameters={"EPOCHS": 2}))
    done = world.folder / "any name.json"
    assert study.main(["--json", str(done)]) == 0
    assert study.main(["--publish", str(done)]) == 0
    kept = json.loads(world.folder.joinpath("docs", "tiny.json").read_text("utf-8"))
    assert kept["fingerprint"] == study_lesson.fingerprint(cells.read(world.notebook))
    assert kept["parameters"] == {"EPOCHS": "2"}
    page = study_published.PAGE.read_text("utf-8")
    assert "cores. Run with EPOCHS = 2.\n\n| task | precision |\n" in page
    assert "\n| class weights | " in page and "treatment" not in page
    assert "earlier version" not in capsys.readouterr().out + page


@pytest.fixture
def published(world):
    """The tiny study, published on the lesson as it was; gives the JSON in docs/."""
    described = tiny(seeds=2, parameters={"EPOCHS": 2})
    world.claiming(described)
    done = world.folder / "tiny.json"
    done.write_text(study_published.dumps(won(2, 2, described)), "utf-8")
    assert study.main(["--publish", str(done)]) == 0
    return world.folder / "docs" / "tiny.json"


EARLIER = "run on an earlier version of the lesson"
OTHER = "run with other parameters (EPOCHS = 2, now 3)"


@pytest.mark.parametrize(
    "work, epochs, said",
    [
        (WORK + "\nmore = 1", 2, EARLIER),
        (WORK, 3, OTHER),
        (WORK + "\nmore = 1", 3, f"{EARLIER} and {OTHER.removeprefix('run ')}"),
    ],
)
def test_a_run_of_something_else_than_the_lesson_now_is_not_published(
    work, epochs, said, world, published, capsys
):
    page, kept = study_published.PAGE.read_bytes(), published.read_bytes()
    cells.write(lesson(work), world.notebook)
    world.claiming(tiny(seeds=2, parameters={"EPOCHS": epochs}))
    assert study.main(["--publish", str(world.folder / "tiny.json")]) == 1
    assert f"tiny.json: {said}; run the study again" in capsys.readouterr().err
    assert study_published.PAGE.read_bytes() == page and published.read_bytes() == kept
    # What stands on the page already may stay there, if the page says what it is.
    assert study.main(["--publish", str(published)]) == 0
    assert f"{published}: {said}" in capsys.readouterr().out
    assert f"\n\n*{said.capitalize()[:1]}{said[1:]}.*\n\n" in study_published.PAGE.read_text(
        "utf-8"
    )
    assert published.read_bytes() == kept


def test_a_study_that_is_run_says_what_became_of_the_published_one(world, published, capsys):
    kept = ["--seeds", "1", "--keep", str(world.folder / "kept")]
    capsys.readouterr()
    assert study.main(kept) == 0
    assert "docs" not in capsys.readouterr().out
    cells.write(lesson(WORK + "\nmore = 1"), world.notebook)
    assert study.main(kept) == 0
    assert f"{published}: {EARLIER}\n" in capsys.readouterr().out
    # A published file that cannot be read is what this run is for.
    published.write_text("{", "utf-8")
    assert study.main(kept) == 0
    assert f"{published}: not the JSON of a study" in capsys.readouterr().out


def test_numbers_from_before_fingerprints_stay_and_the_page_says_so_but_none_are_added(
    world, capsys
):
    old = dataclasses.replace(won(10, 10), version=None)
    assert study_published.loads(study_published.dumps(old), {"tiny": tiny()}).version is None
    fresh, kept = world.folder / "x.json", world.folder / "docs" / "tiny.json"
    for path in (fresh, kept):
        path.write_text(study_published.dumps(old), "utf-8")
    before = kept.read_bytes()
    assert study.main(["--publish", str(fresh)]) == 1
    assert "made before studies kept a fingerprint" in capsys.readouterr().err
    assert study.main(["--publish", str(kept)]) == 0
    assert "*Made before studies kept a fingerprint" in study_published.PAGE.read_text("utf-8")
    assert kept.read_bytes() == before


# --- the course's own studies ---

STUDIES = study.studies_by_name()


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_fits_its_lesson(name):
    described = STUDIES[name]
    (path,) = cells.notebook_paths([described.notebook])
    parameters = dict.fromkeys(study.GIVEN) | dict(described.parameters)
    prepared = study_lesson.with_parameters(study_lesson.cut(cells.read(path)), parameters)
    assert "RESULTS" in prepared.cells[-1].source
    judged = [claim.at_least for claim in described.claims if claim.at_least]
    # Nine of ten are a rule; of fewer, all are wanted.
    assert judged and (described.seeds >= 10 or (described.seeds >= 3 and {*judged} == {10}))


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_has_the_tables_of_the_published_study_and_its_claims_hold(name):
    page = study_published.PAGE.read_text(encoding="utf-8")
    assert f"<!-- {name} -->" in page and f"<!-- /{name} -->" in page
    path = study_published.PUBLISHED / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{name} is not published yet")
    results = study_published.loads(path.read_text(encoding="utf-8"), STUDIES)
    note = study_published.note_on(results)
    assert study_published.with_results(page, results, note) == page
    assert study_results.markdown(results, note) in page
    assert results.seeds == list(range(results.study.seeds)) and results.failed() == []


@pytest.mark.parametrize("name", STUDIES)
def test_a_published_study_was_run_on_the_lesson_as_it_is_or_the_page_says_that_it_was_not(name):
    path = study_published.PUBLISHED / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{name} is not published yet")
    results = study_published.loads(path.read_text(encoding="utf-8"), STUDIES)
    note = study_published.note_on(results)
    page = study_published.PAGE.read_text(encoding="utf-8")
    tables = page.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    if note:
        repair = f"run it again, or let the page say so: tools.study --publish docs/{name}.json"
        assert f"*{note[0].upper()}{note[1:]}.*" in tables, f"{name}: {note}; {repair}"
        pytest.skip(f"{name}: {note}")
    assert study_lesson.NO_FINGERPRINT[1:] not in tables and study_lesson.EARLIER not in tables


@pytest.mark.skipif(shutil.which("make") is None, reason="no make: README says how without")
def test_make_study_passes_its_arguments_on(root, tmp_path):
    (tmp_path / "installed").touch()
    command = ["make", "-n", "study", f"VENV={tmp_path}", "STUDY_ARGS=imbalance --seeds 3"]
    # A make that was started by `make test` would inherit its flags and announce its folder.
    alone = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(command, cwd=root, env=alone, capture_output=True, text=True)
    assert done.stdout.strip().endswith("-m tools.study imbalance --seeds 3")


def test_parameters_that_came_or_went_are_named():
    then = study_lesson.Version("f", {"EPOCHS": "2"})
    now = study_lesson.Version("f", {"EPOCHS": "2", "SIZE": "64"})
    said = "run with other parameters (SIZE = {})"
    assert study_lesson.standing(then, now) == said.format("absent, now 64")
    assert study_lesson.standing(now, then) == said.format("64, now absent")
    assert study_lesson.standing(now, now) == ""


def test_a_json_without_rows_is_refused():
    ten = won(1, 1)
    empty = study_published.dumps(dataclasses.replace(ten, rows=ten.rows.iloc[:0]))
    with pytest.raises(cells.NotebookError, match="lacks rows; run it again"):
        study_published.loads(empty, {"tiny": tiny()})
