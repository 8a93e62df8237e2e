"""Repeat a lesson with other patients and other numbers, to see which of its findings hold.

    python -m tools.study                               every study in studies/
    python -m tools.study imbalance --seeds 3           one of them, with fewer seeds
    python -m tools.study imbalance --threads 2 1       each seed with two threads, and with one
    python -m tools.study imbalance --keep build/studies --json build/imbalance.json
    python -m tools.study --publish build/imbalance.json

Each run has a kernel, a folder and a SEED of its own, and ends with the lesson's cell tagged
`study`. With --keep, what is done stays, and the same command goes on where it was interrupted. A
run is done again if the notebook's code, the parameters or the machine changed. A change in
helpers/ is not seen: take another folder then.

--publish writes docs/studies.md and docs/NAME.json. It refuses numbers that come from another
version of the lesson's code, or from other parameters, than there are now. Where docs/NAME.json
itself has become such a file, --publish docs/NAME.json lets the page say so.

The exit code is 1 if a claim holds in fewer repetitions than it says, or if a run fails.
"""

import argparse
import ast
import copy
import hashlib
import importlib
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from nbformat import NotebookNode

from studies import DECIMALS, GIVEN, Claim, Study
from tools import course
from tools.cells import ROOT, NotebookError, notebook_paths, read, show, tagged, tags
from tools.results import PUBLISHED, between, rows_of_markdown

STUDIES = ROOT / "studies"
PAGE = PUBLISHED / "studies.md"
REPETITION = ["seed", "threads"]
KEYS = [*REPETITION, "treatment", "run"]


def studies_by_name(names: list[str] | None = None) -> dict[str, Study]:
    """The studies that were named, or all; each is the STUDY of a module in studies/."""
    known = sorted(path.stem for path in STUDIES.glob("[!_]*.py"))
    if unknown := {*(names or [])} - {*known}:
        raise NotebookError(f"no study {', '.join(unknown)}; there are: {', '.join(known)}")
    return {name: importlib.import_module(f"studies.{name}").STUDY for name in names or known}


def lesson(study: Study) -> NotebookNode:
    """The notebook of a study as it is now, up to its one cell tagged `study`."""
    notebook = copy.deepcopy(read(*notebook_paths([study.notebook])))
    places = [k for k, cell in enumerate(notebook.cells) if "study" in tags(cell)]
    if len(places) != 1:
        raise NotebookError(f"{study.notebook}: {len(places)} cells tagged study, wanted one")
    notebook.cells = notebook.cells[: places[0] + 1]
    return notebook


def version(study: Study) -> dict:
    """What a study's numbers come from: the lesson's `fingerprint`, and its `parameters`.

    The fingerprint is the SHA-256 of a JSON list of the code up to the cell tagged `study`, without
    the cells tagged `parameters`, whose values a run replaces, and `setup`, which does nothing in a
    run and has another address in each copy of the course.
    """
    notebook = lesson(study)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sources = [cell.source for cell in code if not {"parameters", "setup"} & {*tags(cell)}]
    own = "\n".join(cell.source for cell in tagged(notebook, "parameters"))
    values = {line.targets[0].id: ast.unparse(line.value) for line in ast.parse(own).body}
    if missing := {*GIVEN, *study.parameters} - {*values}:
        raise NotebookError(f"{study.notebook}: no parameter {', '.join(sorted(missing))}")
    values |= {name: repr(value) for name, value in study.parameters.items()}
    kept = {name: value for name, value in values.items() if name not in GIVEN}
    digest = hashlib.sha256(json.dumps(sources).encode("ascii")).hexdigest()
    return {"fingerprint": digest, "parameters": kept}


@dataclass(frozen=True)
class Results:
    """The rows of every repetition, and what they come from.

    Args:
        name: of the study's module.
        study: what was studied.
        rows: columns `KEYS` and the study's measures.
        made: `machine`, as `tools.course.machine` has it, and what `version` says.
    """

    name: str
    study: Study
    rows: pd.DataFrame
    made: dict

    def means(self) -> pd.DataFrame:
        """Over the runs, which share their patients: a row for each repetition and treatment."""
        groups = self.rows.groupby([*REPETITION, "treatment"], sort=False)
        return groups[[*self.study.measures]].mean().round(DECIMALS)

    def held(self) -> pd.DataFrame:
        """Whether a claim holds: a row for each repetition, a column for each claim."""
        tables = self.means().groupby(level=REPETITION, sort=False)
        try:
            held = [
                [bool(claim.holds(table.droplevel(REPETITION))) for claim in self.study.claims]
                for _, table in tables
            ]
        except KeyError as error:
            raise NotebookError(f"a claim asks for {error}, which is not there") from None
        index = self.rows[REPETITION].drop_duplicates()
        return pd.DataFrame(held, pd.MultiIndex.from_frame(index), self.study.claims)

    def failed(self) -> list[Claim]:
        """The claims that hold in fewer repetitions than they say."""
        held = self.held()
        return [c for c, number in held.sum().items() if number < c.wanted(len(held))]

    def claims(self) -> list[list[str]]:
        """For each claim a mark, the seeds and threads it was tried on, the sentence."""
        failed, rows = self.failed(), []
        for claim, held in self.held().items():
            mark = "·" if claim.at_least == 0 else "✗" if claim in failed else "✓"
            tried = [
                f"{one.sum()} of {len(one)} seeds, {threads} thread{'s'[: threads > 1]}"
                for threads, one in held.groupby(level="threads", sort=False)
            ]
            rows.append([mark, "; ".join(tried), claim.sentence])
        return rows

    def table(self) -> pd.DataFrame:
        """As text: mean over the repetitions, ± the standard deviation."""
        groups = self.means().groupby(level="treatment", sort=False)
        mean, sd = (table.map("{:.2f}".format) for table in (groups.mean(), groups.std()))
        cells = (mean + " ± " + sd).map(lambda text: text.removesuffix(" ± nan"))
        return cells.rename(columns=lambda name: name.replace("_", " ")).rename_axis(None)

    def markdown(self) -> str:
        """For the page: two tables, and above them what has to be said of their origin."""
        machine, kept = self.made["machine"], self.made["parameters"]
        own = ", ".join(f"{name} = {kept[name]}" for name in self.study.parameters if name in kept)
        repetitions = len(self.rows[REPETITION].drop_duplicates())
        origin = f"Mean ± standard deviation over {repetitions} repetitions. "
        origin += "TensorFlow {tensorflow}, Python {python}, {cores} cores.".format(**machine)
        note = standing(self.made, version(self.study))
        parts = [
            origin + (f" Run with {own}." if own else ""),
            *([f"*Run {note}.*"] if note else []),
            rows_of_markdown([self.study.rows_of, *self.table()], self.table().itertuples()),
            rows_of_markdown(["", "holds in", "claim"], self.claims(), left=3),
        ]
        return "\n\n".join(parts)


def standing(then: dict, now: dict) -> str:
    """What has to be said of numbers from a version of a lesson; nothing where it is today's."""
    said = ["on an earlier version of the lesson"] * (then["fingerprint"] != now["fingerprint"])
    if then["parameters"] != now["parameters"]:
        said.append(f"with other parameters: {then['parameters']}, now {now['parameters']}")
    return " and ".join(said)


def checked(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Rows whose measures are numbers, rounded to what is written.

    Raises NotebookError without rows, for a value that is no finite number, for two rows for one
    run, for repetitions with other treatments, and for two that gave the same numbers.
    """
    measures = [*study.measures]
    rows = rows.reindex(columns=KEYS + measures)
    numbers = rows[measures].apply(pd.to_numeric, errors="coerce").astype(float)
    wrong = rows[~np.isfinite(numbers).all(axis=1) | rows.duplicated(KEYS)]
    if rows.empty or len(wrong) or rows[KEYS].isna().any(axis=None):
        raise NotebookError(f"no rows, no finite number, or two rows for one run:\n{wrong}")
    rows = rows.assign(**numbers.round(DECIMALS))
    groups = [one.set_index(KEYS[2:])[measures] for _, one in rows.groupby(REPETITION, sort=False)]
    if any({*one.index} != {*groups[0].index} for one in groups):
        raise NotebookError("the repetitions differ in their treatments and runs")
    by_seed = rows.drop_duplicates("threads" if len(groups) == 1 else KEYS)
    numbers_of = by_seed.groupby("seed")[measures].apply(lambda one: tuple(one.to_numpy().ravel()))
    if numbers_of.duplicated().any():
        raise NotebookError("two seeds gave the same numbers: is SEED used?")
    return rows


def collect(path: Path, study: Study, seed: int, threads: int) -> pd.DataFrame:
    """Read what one run wrote, the columns of the study only."""
    if not path.exists() or not path.stat().st_size:
        raise NotebookError("the cell tagged study wrote nothing to RESULTS")
    # A treatment may be called "None" or "NA"; neither is a missing value.
    rows = pd.read_csv(path, dtype={study.rows_of: str}, keep_default_na=False)
    if study.rows_of not in rows:
        raise NotebookError(f"RESULTS lacks the column {study.rows_of}")
    runs = rows.get("run", 0)
    return checked(
        rows.assign(treatment=rows[study.rows_of], run=runs, seed=seed, threads=threads), study
    )


def run_once(study: Study, seed: int, threads: int | None, folder: Path) -> pd.DataFrame:
    """The rows that the lesson gives with one seed; what is in the folder already is not run again.

    Args:
        study: what is studied.
        seed: its SEED.
        threads: of TensorFlow; None for as many as it takes.
        folder: of this run alone, and the kernel's working folder.
    """
    notebook, machine = lesson(study), course.machine()
    folder /= f"seed_{seed:02}" + (f"_threads_{threads}" if threads else "")
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    where = machine | ({"threads": threads} if threads else {})
    parts = json.dumps([code, seed, sorted(study.parameters.items()), where], default=repr)
    made, results = hashlib.sha256(parts.encode()).hexdigest(), folder / "results.csv"
    stamp = folder / "made_by.txt"
    if not (results.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == made):
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "data").mkdir(parents=True)
        unfinished = folder / "unfinished.csv"
        own = dict(zip(GIVEN, (seed, str(folder / "data"), str(unfinished)), strict=True))
        names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
        limits = dict.fromkeys(names, str(threads)) if threads else {}
        copy_of = folder / f"{study.notebook}.ipynb"
        given = own | dict(study.parameters)
        _, wrong = course.run(notebook, copy_of, False, folder, given, compare=False, **limits)
        if wrong:
            raise NotebookError(f"{study.notebook}, SEED = {seed}: " + "\n".join(wrong))
        collect(unfinished, study, seed, 0)
        stamp.write_text(made, encoding="ascii")
        unfinished.replace(results)  # the name that says "complete" comes last
        shutil.rmtree(folder / "data", ignore_errors=True)
    return collect(results, study, seed, threads or machine["cores"])


def run_study(name: str, study: Study, seeds: int, threads: list, folder: Path) -> Results:
    """Run one study, seed after seed; a claim that asks for what is not there ends it early."""
    rows, made = [], {"machine": course.machine()} | version(study)
    for seed in range(seeds):
        rows += [run_once(study, seed, number, folder) for number in threads]
        results = Results(name, study, checked(pd.concat(rows, ignore_index=True), study), made)
        results.held()
        print(f"{name}, seed {seed}", results.means().loc[seed].to_string(), sep="\n")
    return results


def dumps(results: Results) -> str:
    """As JSON, with a line for each row."""
    head = {"study": results.name, "notebook": results.study.notebook, **results.made}
    head["columns"] = [*results.rows]
    rows = ",\n  ".join(map(json.dumps, results.rows.to_numpy(object).tolist()))
    return f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'


def loads(text: str, studies: dict[str, Study]) -> Results:
    """What `dumps` wrote; the claims are those of today."""
    try:
        kept = json.loads(text)
        study, made = (
            studies[kept["study"]],
            {k: kept[k] for k in ("machine", "fingerprint", "parameters")},
        )
        rows = pd.DataFrame(kept["rows"], columns=kept["columns"])
        rows = rows if "threads" in rows else rows.assign(threads=made["machine"]["cores"])
    except (ValueError, KeyError, TypeError) as error:
        raise NotebookError(f"not the JSON of a study: {error!r}") from None
    return Results(kept["study"], study, checked(rows, study), made)


def publish(path: Path, studies: dict[str, Study]) -> None:
    """Write a study's JSON to docs/ and its tables to the page.

    Raises NotebookError for a study that was not run with all its seeds and no others, one whose
    claims do not hold, or one of another version of the lesson. What is published already stays,
    and the page says what it comes from.
    """
    results = loads(path.read_text(encoding="utf-8"), studies)
    wanted, page = {*range(results.study.seeds)}, PAGE.read_text(encoding="utf-8")
    kept, note = PUBLISHED / f"{results.name}.json", standing(results.made, version(results.study))
    if {*results.rows["seed"]} != wanted:
        raise NotebookError(f"{show(path)}: a complete study has the seeds {wanted}")
    if failed := [claim.sentence for claim in results.failed()]:
        raise NotebookError(f"{show(path)}: does not hold, so it should not be claimed: {failed}")
    if note and path.resolve() != kept.resolve():
        raise NotebookError(f"{show(path)}: run {note}; run the study again")
    if f"<!-- {results.name} -->" not in page:
        raise NotebookError(f"{show(PAGE)} has no <!-- {results.name} --><!-- /{results.name} -->")
    kept.write_text(dumps(results), encoding="utf-8", newline="\n")
    page = between(page, results.name, results.markdown())
    PAGE.write_text(page, encoding="utf-8", newline="\n")
    print(f"{show(kept)}, {show(PAGE)}: written" + (f"; the page says: run {note}" if note else ""))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tools.study", None, __doc__, formatter_class=form)
    parser.add_argument("names", nargs="*", help="studies, for example imbalance; all if left out")
    parser.add_argument("--seeds", type=int, help="how many; the study says it if left out")
    parser.add_argument("--threads", type=int, nargs="+", default=[None], help="of TensorFlow")
    parser.add_argument("--json", type=Path, help="write the results of one study here as well")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder, and go on there")
    parser.add_argument("--publish", type=Path, metavar="JSON", help="run nothing, publish this")
    chosen, failed = parser.parse_args(arguments), 0
    try:
        studies = studies_by_name(chosen.names)
        if chosen.publish:
            publish(chosen.publish, studies)
            return 0
        if chosen.json and len(studies) > 1:
            parser.error(f"--json takes one study; name one of {', '.join(studies)}")
        with tempfile.TemporaryDirectory(prefix="study_", ignore_cleanup_errors=True) as scratch:
            keep = (chosen.keep or Path(scratch)).resolve()
            for name, study in studies.items():
                seeds = chosen.seeds or study.seeds
                results = run_study(name, study, seeds, chosen.threads, keep / name)
                if chosen.json:
                    chosen.json.parent.mkdir(parents=True, exist_ok=True)
                    chosen.json.write_text(dumps(results), encoding="utf-8", newline="\n")
                claims = (f"{mark} {tried}: {said}" for mark, tried, said in results.claims())
                print("", results.table().to_string(), "", *claims, sep="\n")
                failed += len(results.failed())
    except (NotebookError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
