"""Repeat a lesson with other patients and other numbers, to see which of its findings hold.

    python -m tools.study                               every study in studies/
    python -m tools.study imbalance --seeds 3           one of them, with fewer seeds
    python -m tools.study imbalance --keep build/studies --json build/imbalance.json
    python -m tools.study --publish build/imbalance.json

Each run has a kernel, a folder and a SEED of its own, and ends with the lesson's cell tagged
`study`. With --keep, what is done stays, and the same command goes on where it was interrupted. A
run is done again if the notebook's code, the parameters or the machine changed. A change in
helpers/ is not seen: take another folder then.

--publish writes docs/studies.md and docs/NAME.json. It refuses numbers that come from another
version of the lesson's code, or from other parameters, than there are now. Where docs/NAME.json
itself has become such a file, --publish docs/NAME.json lets the page say so.

The exit code is 1 if a claim holds in fewer seeds than it says, or if a run fails.
"""

import argparse
import hashlib
import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
from nbformat import NotebookNode
from tqdm import tqdm

from studies import GIVEN, Study
from tools import course
from tools.cells import ROOT, NotebookError, show
from tools.study_lesson import lesson, naming, version, with_parameters
from tools.study_published import dumps, note_on_published, publish
from tools.study_results import Results, collect, report, together

STUDIES = ROOT / "studies"


def studies_by_name(names: list[str] | None = None) -> dict[str, Study]:
    """The studies that were named, or all; each is the STUDY of a module in studies/.

    Raises:
        NotebookError: for a name without a module.
    """
    known = sorted(path.stem for path in STUDIES.glob("[!_]*.py"))
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise NotebookError(f"no study {', '.join(unknown)}; there are: {', '.join(known)}")
    return {name: importlib.import_module(f"studies.{name}").STUDY for name in names or known}


def made_by(notebook: NotebookNode, study: Study, seed: int) -> str:
    """What one run's results follow from, as a hash: code, parameters, seed, and the machine."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    parts = [code, seed, sorted(study.parameters.items()), course.machine()]
    return hashlib.sha256(json.dumps(parts, default=repr).encode()).hexdigest()


def run_seed(
    study: Study, notebook: NotebookNode, seed: int, folder: Path, on_cell: Callable | None = None
) -> pd.DataFrame:
    """The rows that the lesson gives with one seed; what is in the folder already is not run again.

    Args:
        study: what is studied.
        notebook: the lesson, cut.
        seed: its SEED.
        folder: of this run alone, and the kernel's working folder: results, the executed notebook,
            and, until it is done, its data.
        on_cell: called with `cell` and `cell_index` when a cell is done.

    Raises:
        NotebookError: for a cell that fails, or results that cannot be used.
    """
    results, stamp = folder / "results.csv", folder / "made_by.txt"
    made = made_by(notebook, study, seed)
    if results.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == made:
        return collect(results, study)
    shutil.rmtree(folder, ignore_errors=True)
    data, unfinished = folder / "data", folder / "unfinished.csv"
    data.mkdir(parents=True)
    given = dict(zip(GIVEN, (seed, str(data), str(unfinished)), strict=True))
    prepared = with_parameters(notebook, given | dict(study.parameters))
    executed = folder / f"{study.notebook}.ipynb"
    done = course.run(prepared, study.notebook, executed, False, folder, on_cell, compare=False)
    if done.problems:
        raise NotebookError("\n".join(done.problems))
    rows = collect(unfinished, study)
    stamp.write_text(made, encoding="ascii")
    # The name that says "complete" comes last.
    unfinished.replace(results)
    shutil.rmtree(data, ignore_errors=True)
    return rows


def run_study(name: str, study: Study, seeds: int, folder: Path) -> Results:
    """Run one study, seed after seed, with one progress bar that counts code cells.

    Raises:
        NotebookError: naming notebook and seed, as soon as something fails.
    """
    # Read once: what an author edits meanwhile belongs to the next study.
    notebook = lesson(study)
    now = version(notebook, study)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    by_seed: dict[int, pd.DataFrame] = {}
    with tqdm(total=cells * seeds, unit="cell") as bar:

        def on_cell(cell: NotebookNode, cell_index: int) -> None:
            bar.update(cell.cell_type == "code")

        for seed in range(seeds):
            bar.set_description(f"{name}, seed {seed}")
            with naming(f"{study.notebook}, SEED = {seed}"):
                by_seed[seed] = run_seed(study, notebook, seed, folder / f"seed_{seed:02}", on_cell)
                results = Results(name, study, together(by_seed), course.machine(), now)
                # A claim that asks for what is not there should not come to light at the very end.
                results.held()
            bar.update(cells * (seed + 1) - bar.n)
            means = results.seed_means()[study.measures[0]].loc[seed]
            said = ", ".join(f"{treatment} {value:.2f}" for treatment, value in means.items())
            bar.write(f"{name}, seed {seed}: {said}")
    return results


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="studies, for example imbalance; all if left out")
    parser.add_argument("--seeds", type=int, help="how many; the study says it if left out")
    parser.add_argument("--json", type=Path, help="write the results of one study here as well")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder, and go on there")
    parser.add_argument("--publish", type=Path, metavar="JSON", help="run nothing, publish this")
    chosen = parser.parse_args(arguments)
    if chosen.seeds is not None and chosen.seeds < 1:
        parser.error("--seeds: at least 1")
    try:
        studies = studies_by_name(chosen.names)
        if chosen.publish:
            kept, page = publish(chosen.publish, studies)
            print(f"{show(kept)}, {show(page)}: written")
            if note := note_on_published(kept.stem, studies[kept.stem]):
                print(note)
            return 0
        if chosen.json and len(studies) > 1:
            parser.error(f"--json takes one study; name one of {', '.join(studies)}")
        return run_studies(studies, chosen.seeds, chosen.keep, chosen.json)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1


def run_studies(
    studies: dict[str, Study], seeds: int | None, keep: Path | None, target: Path | None
) -> int:
    """Run studies and print their reports; 1 if a claim fails, else 0."""
    failed = 0
    with ExitStack() as stack:
        if keep is None:
            temporary = tempfile.TemporaryDirectory(prefix="study_", ignore_cleanup_errors=True)
            keep = Path(stack.enter_context(temporary))
        for name, study in studies.items():
            results = run_study(name, study, seeds or study.seeds, keep.resolve() / name)
            if target:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(dumps(results), encoding="utf-8", newline="\n")
            print(f"\n{report(results)}")
            if note := note_on_published(name, study):
                print(f"\n{note}")
            failed += len(results.failed())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
