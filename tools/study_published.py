"""The results of a study as JSON, and published: docs/NAME.json and the tables of docs/studies.md.

Where the lesson has changed since, the page says so.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from studies import DECIMALS, Study
from tools import results as benchmarks
from tools.cells import NotebookError, show
from tools.study_lesson import Version, lesson, naming, standing, version
from tools.study_results import KEYS, MACHINE, Results, checked, markdown

PUBLISHED = benchmarks.PUBLISHED
PAGE = PUBLISHED / "studies.md"
KINDS = {"seed": {int}, "treatment": {str}, "run": {int, float, str}}


def dumps(results: Results) -> str:
    """As JSON, with a line for each row."""
    kept = json.loads(results.rows.to_json(orient="split", double_precision=DECIMALS))
    head = {
        "study": results.name,
        "notebook": results.study.notebook,
        **({} if results.version is None else asdict(results.version)),
        "machine": dict(results.machine),
        "columns": kept["columns"],
    }
    rows = ",\n  ".join(map(json.dumps, kept["data"]))
    return f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'


def loads(text: str, studies: Mapping[str, Study]) -> Results:
    """What `dumps` wrote; the claims are those of today.

    Raises:
        NotebookError: for a text that is not from `dumps`, for a study that is not there or
            that measures more today, for a machine that is not described, and for rows that
            `tools.study_results.collect` would not have let pass.
    """
    try:
        kept = json.loads(text)
        name, machine = str(kept["study"]), dict(kept["machine"])
        rows = pd.DataFrame(kept["rows"], columns=kept["columns"])
        made_by = None
        if "fingerprint" in kept:
            made_by = Version(kept["fingerprint"], dict(kept["parameters"]))
    except (ValueError, KeyError, TypeError) as error:
        raise NotebookError(f"not the JSON of a study: {error!r}") from None
    if name not in studies:
        raise NotebookError(f"no study {name}; there are: {', '.join(studies)}")
    lacks = [column for column in [*KINDS, *studies[name].measures] if column not in rows]
    lacks += [f"machine.{key}" for key in MACHINE if key not in machine]
    if lacks or rows.empty:
        raise NotebookError(f"the JSON of {name} lacks {', '.join(lacks) or 'rows'}; run it again")
    for column, kinds in KINDS.items():
        for value in rows[column].tolist():
            if type(value) not in kinds or value != value:  # NaN, which JSON's null becomes
                raise NotebookError(f"the JSON of {name} has a {column} {value!r}; run it again")
    with naming(f"the JSON of {name}"):
        rows = checked(rows, studies[name], ["seed", *KEYS])
    return Results(name, studies[name], rows, machine, made_by)


def note_on(results: Results) -> str:
    """What has to be said of results beside the lesson as it is now; empty if nothing has to be.

    Raises:
        NotebookError: where the study's notebook is missing, or is no lesson for it.
    """
    return standing(results.version, version(lesson(results.study), results.study))


def note_on_published(name: str, study: Study) -> str:
    """The same of what is published, as a line with the file's name; empty if nothing has to be."""
    kept = PUBLISHED / f"{name}.json"
    if not kept.is_file():
        return ""
    try:
        note = note_on(loads(kept.read_text(encoding="utf-8"), {name: study}))
    except NotebookError as error:
        # What is published may need the very run that has just ended.
        note = str(error)
    return f"{show(kept)}: {note}" if note else ""


def with_results(page: str, results: Results, note: str = "") -> str:
    """The page's text with the tables of one study, and the note on it, between its markers.

    Raises:
        NotebookError: for a page without them.
    """
    if f"<!-- {results.name} -->" not in page:
        raise NotebookError(f"{show(PAGE)} has no <!-- {results.name} --><!-- /{results.name} -->")
    return benchmarks.between(page, results.name, markdown(results, note))


def publish(path: Path, studies: Mapping[str, Study]) -> list[Path]:
    """Write a study's JSON to docs/ and its tables to the page; returns what was written.

    Raises:
        NotebookError: for a file that is not there or not a study's, a study that was not run with
            all its seeds and no others, one whose claims do not hold, or one of another version of
            the lesson. What is published already stays, and the page says what it comes from.
    """
    if not path.is_file():
        raise NotebookError(f"no file {show(path)}")
    results = loads(path.read_text(encoding="utf-8"), studies)
    if results.seeds != list(range(results.study.seeds)):
        seeds = ", ".join(map(str, results.seeds))
        last = results.study.seeds - 1
        raise NotebookError(f"{show(path)}: seeds {seeds}; a complete study has 0 to {last}")
    failed = "; ".join(claim.sentence for claim in results.failed())
    if failed:
        raise NotebookError(f"{show(path)}: does not hold, so it should not be claimed: {failed}")
    kept = PUBLISHED / f"{results.name}.json"
    note = note_on(results)
    if note and path.resolve() != kept.resolve():
        raise NotebookError(f"{show(path)}: {note}; run the study again")
    page = with_results(PAGE.read_text(encoding="utf-8"), results, note)
    kept.write_text(dumps(results), encoding="utf-8", newline="\n")
    PAGE.write_text(page, encoding="utf-8", newline="\n")
    return [kept, PAGE]
