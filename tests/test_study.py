"""A study repeats a lesson with other seeds, judges what it claims, and publishes what came out."""

import dataclasses
import hashlib
import json
import re
import sys
from fractions import Fraction
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from studies import Claim, Study, ahead, reaches
from tools import cells, course, study

NAME = "05_tiny"
PARAMETERS = 'DATA_DIR = "../data"\nSEED = 0\nEPOCHS = 1\nRESULTS = None'
WORK = "import os\nfile = open(DATA_DIR + '/patients.txt', 'x')  # a folder for each run"
STUDY_CELL = """\
# Weights help by 0.1 an epoch, but for seed 1, which they harm, and with one thread.
one = os.environ.get("TF_NUM_INTRAOP_THREADS") == "1"
gain = 0.1 * EPOCHS * (-1 if SEED == 1 or one else 1)
rows = [f"{t},{run},{0.3 + gain * k + run / 100 + SEED / 1000}"
        for k, t in enumerate(["nothing", "class weights"]) for run in (0, 1)]
if RESULTS:
    open(RESULTS, "w").write("\\n".join(["treatment,run,precision", *rows]))"""
HELPS = Claim("weights help", ahead("class weights", "nothing", "precision"), at_least=5)
ALWAYS = dataclasses.replace(HELPS, sentence="weights always help", at_least=10)
COUNTED = dataclasses.replace(HELPS, sentence="weights help, said to vary", at_least=0)


def tiny(**changes) -> Study:
    return Study(**{"notebook": NAME, "measures": ("precision",), "claims": (HELPS,)} | changes)


def lesson(**sources):
    """Sources that are given take the place of the usual ones."""
    kinds = {"parameters": PARAMETERS, "error": "1 / 0", "work": WORK, "study": STUDY_CELL}
    tags = {"parameters": ["parameters"], "error": ["raises-exception"], "study": ["study"]}
    code = [
        new_code_cell(source, metadata={"tags": tags.get(kind, [])})
        for kind, source in (kinds | sources).items()
    ]
    return new_notebook(cells=[new_markdown_cell("# Tiny"), *code, new_code_cell("raise OSError")])


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A course of one lesson with one study, and a count of its runs."""
    docs, runs, really = tmp_path / "docs", [], course.run
    docs.mkdir()
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "tiny.py").touch()
    docs.joinpath("studies.md").write_text("before <!-- tiny -->old<!-- /tiny --> after")
    places = [("STUDIES", tmp_path / "studies"), ("PUBLISHED", docs), ("PAGE", docs / "studies.md")]
    for name, place in places:
        monkeypatch.setattr(study, name, place)
    monkeypatch.setattr(cells, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(course, "run", lambda *a, **b: runs.append(1) or really(*a, **b))
    monkeypatch.chdir(tmp_path)

    def teach(described=None, **sources):
        cells.write(lesson(**sources), tmp_path / "notebooks" / f"{NAME}.ipynb")
        module = SimpleNamespace(STUDY=described or tiny())
        monkeypatch.setitem(sys.modules, "studies.tiny", module)

    teach()
    return SimpleNamespace(docs=docs, runs=runs, teach=teach, page=docs / "studies.md")


def made(described=None, **by_treatment):
    """Results from numbers: for each treatment a list of runs for each seed."""
    rows = [
        (seed, 2, treatment, run, value)
        for treatment, by_seed in by_treatment.items()
        for seed, runs in enumerate(by_seed)
        for run, value in enumerate(runs)
    ]
    described = described or tiny()
    origin = {"machine": course.machine() | {"cores": 2}} | study.version(described)
    return study.Results(
        "tiny", described, pd.DataFrame(rows, columns=[*study.KEYS, "precision"]), origin
    )


def won(times, of, described=None):
    """Results in which weights are ahead in so many seeds."""
    ours = [[round((0.4 if k < times else 0.2) + k / 1000, 3)] for k in range(of)]
    return made(described, **{"nothing": [[0.3]] * of, "class weights": ours})


def test_a_study_runs_goes_on_where_it_was_and_judges(world, capsys):
    command = ["tiny", "--keep", "kept", "--json", "out/x.json", "--seeds"]
    assert study.main([*command, "1"]) == 0 and len(world.runs) == 1
    assert study.main([*command, "2"]) == 0 and len(world.runs) == 2
    assert "✓ 1 of 2 seeds, 2 threads: weights help" in capsys.readouterr().out.replace(
        f"{course.machine()['cores']} thread", "2 thread"
    )
    world.teach(tiny(claims=(HELPS, ALWAYS, COUNTED)))
    assert study.main([*command, "2"]) == 1 and len(world.runs) == 2
    said = capsys.readouterr().out
    assert "✗ 1 of 2 seeds" in said and "· 1 of 2 seeds" in said
    rows = json.loads((world.docs.parent / "out" / "x.json").read_text())["rows"]
    assert [row[-1] for row in rows] == [0.3, 0.31, 0.4, 0.41, 0.301, 0.311, 0.201, 0.211]
    left = {path.name for path in (world.docs.parent / "kept" / "tiny" / "seed_01").iterdir()}
    assert left == {"results.csv", "made_by.txt", f"{NAME}.ipynb"}
    # Code, parameters and threads that were not run yet are run; each has a row in the report.
    world.teach(tiny(parameters={"EPOCHS": 2}), study=STUDY_CELL.replace("0.3", "0.2"))
    assert study.main([*command, "1"]) == 0 and len(world.runs) == 3
    assert study.main([*command, "1", "--threads", "2", "1"]) == 0 and len(world.runs) == 5
    assert "1 of 1 seeds, 2 threads; 0 of 1 seeds, 1 thread: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "sources, described, said",
    [
        (
            {"work": "import os\nassert SEED < 1, 'no patients left'"},
            {},
            "SEED = 1: cell 4 .*no patients",
        ),
        ({"study": "1"}, {}, "wrote nothing to RESULTS"),
        ({"study": STUDY_CELL.replace(",run,p", ",run,q")}, {}, "no finite number"),
        ({"study": STUDY_CELL.replace("{run}", "0")}, {}, "two rows for one run"),
        ({"study": STUDY_CELL.replace("0.3", "float('inf')")}, {}, "no finite number"),
        ({"study": STUDY_CELL.replace("SEED", "0")}, {}, "same numbers: is SEED used"),
        ({"study": STUDY_CELL.replace('"nothing"', 'f"no{SEED}"')}, {}, "differ in their treat"),
        ({}, {"rows_of": "organ"}, "lacks the column organ"),
        ({}, {"parameters": {"EPOCH": 2}}, "no parameter EPOCH"),
        ({}, {"claims": (Claim("?", reaches("b", "precision", 1)),)}, "claim asks for 'b'"),
        ({}, {"notebook": "06_none"}, f"no notebook 06_none; there are: {NAME}"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_reason(sources, described, said, world, capsys):
    claims = () if "no{SEED}" in sources.get("study", "") else (HELPS,)
    world.teach(tiny(**{"claims": claims} | described), **sources)
    assert study.main(["tiny", "--seeds", "2"]) == 1
    error = capsys.readouterr().err
    assert re.search(said, error) and "Traceback" not in error


@given(held=st.integers(0, 40), seeds=st.integers(1, 40), at_least=st.integers(0, 10))
def test_a_claim_asks_for_the_same_share_of_any_number_of_seeds(held, seeds, at_least):
    enough = held >= Claim("x", HELPS.holds, at_least).wanted(seeds)
    assert enough == (Fraction(held, seeds) >= Fraction(at_least, 10))


def test_a_claim_is_judged_by_the_mean_of_the_runs_and_by_decimal_numbers(world):
    numbers = {"a": [[0.1, 0.9]], "b": [[0.4, 0.5]], "c": [[0.7] * 3], "d": [[0.7]]}
    means = made(**numbers, e=[[0.35]], f=[[0.2]]).means().loc[(0, 2)]
    held = [ahead("a", "b", "precision", by=0.04), reaches("c", "precision", 0.7)]
    held += [ahead("a", "b", "precision"), ahead("e", "f", "precision", by=0.15)]
    not_held = [ahead("b", "a", "precision"), ahead("c", "d", "precision")]
    not_held += [ahead("d", "c", "precision"), reaches("a", "precision", 0.500001)]
    not_held += [ahead("e", "f", "precision", by=0.150001)]
    assert all(holds(means) for holds in held) and not any(holds(means) for holds in not_held)


def test_the_table_has_the_mean_and_the_spread_of_the_seeds_not_of_the_runs(world):
    results = made(**{"nothing": [[0.1, 0.3], [0.4, 0.6]], "class weights": [[0.5], [0.5]]})
    assert results.table()["precision"].tolist() == ["0.35 ± 0.21", "0.50 ± 0.00"]
    assert won(1, 1).table()["precision"].tolist() == ["0.30", "0.40"]


def test_a_complete_study_is_published_and_the_page_says_when_the_lesson_has_changed(world, capsys):
    path, kept = world.docs.parent / "any name.json", world.docs / "tiny.json"
    path.write_text(study.dumps(won(10, 10)), "utf-8")
    assert study.main(["--publish", str(path)]) == 0
    page = f"before <!-- tiny -->\n\n{won(10, 10).markdown()}\n\n<!-- /tiny --> after"
    assert world.page.read_text("utf-8") == page and kept.read_bytes() == path.read_bytes()
    assert "| ✓ | 10 of 10 seeds, 2 threads | weights help |" in page and "earlier" not in page
    for changes, note in [
        ({"work": WORK + "\nmore = 1"}, "on an earlier version of the lesson"),
        ({"parameters": PARAMETERS.replace("EPOCHS = 1", "EPOCHS = 3")}, "with other parameters"),
    ]:
        world.teach(**changes)
        assert study.main(["--publish", str(path)]) == 1 and note in capsys.readouterr().err
        assert study.main(["--publish", str(kept)]) == 0
        assert f"\n\n*Run {note}" in world.page.read_text("utf-8")
    assert kept.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda: study.dumps(won(9, 9)), "complete study has the seeds"),
        (lambda: study.dumps(won(4, 10)), "should not be claimed: ['weights help']"),
        (lambda: study.dumps(won(10, 10)).replace("tiny", "huge"), "not the JSON of a study"),
        (lambda: study.dumps(won(10, 10)).replace("0.3]", "null]", 1), "no finite number"),
        (lambda: "[1, 2]", "not the JSON of a study"),
    ],
)
def test_what_is_incomplete_or_does_not_hold_is_not_published(change, said, world, capsys):
    path, before = world.docs.parent / "x.json", world.page.read_text()
    path.write_text(change(), "utf-8")
    assert study.main(["--publish", str(path)]) == 1
    assert said in capsys.readouterr().err
    assert world.page.read_text() == before and not (world.docs / "tiny.json").exists()


def test_a_fingerprint_is_that_of_the_code_up_to_the_tagged_cell_as_documented(world):
    listed = json.dumps(["1 / 0", WORK, STUDY_CELL])
    expected = hashlib.sha256(listed.encode("ascii")).hexdigest()
    kept = {"fingerprint": expected, "parameters": {"EPOCHS": "2"}}
    assert study.version(tiny(parameters={"EPOCHS": 2})) == kept
    world.teach(parameters="# other words\n" + PARAMETERS)
    assert study.version(tiny())["fingerprint"] == expected


# --- the course's own studies ---

STUDIES = study.studies_by_name()


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_has_the_tables_of_the_published_study_and_its_claims_hold(name):
    page = study.PAGE.read_text(encoding="utf-8")
    results = study.loads((study.PUBLISHED / f"{name}.json").read_text("utf-8"), STUDIES)
    # Where the lesson has changed since: run it again, or publish docs/NAME.json, and it is said.
    assert results.markdown() in page and not results.failed()
    assert {*results.rows["seed"]} == {*range(results.study.seeds)}
    judged = {claim.at_least for claim in results.study.claims} - {0}
    # Nine of ten are a rule; of fewer, all are wanted.
    assert judged and (results.study.seeds >= 10 or (results.study.seeds >= 3 and judged == {10}))
