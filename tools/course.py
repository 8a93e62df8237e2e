"""Run the whole course as a learner who knows every answer, and measure it.

    python -m tools.course                      every notebook, solved, with strict checks
    python -m tools.course 01_loading_dicom     some of them
    python -m tools.course --as-shipped         with the exercises left unanswered

Each notebook runs from its first cell to its last in a fresh kernel, in the notebooks' folder. The
executed copies and the measurement (measured.json) are left under build/. The exit code is 1 if a
notebook fails, a check does not pass, or a tagged output is not the one that is stored.
"""

import argparse
import contextlib
import json
import logging
import os
import platform
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import nbformat
import papermill
import psutil
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from tools.cells import NOTEBOOKS, ROOT, NotebookError, describe, notebook_paths, read, solved, tags
from tools.execution import ANSI_COLOUR, CELL_TIMEOUT_S, kernel_settings
from tools.publish import LAST_RUN
from tools.stored import changed

MEGABYTE = 1_000_000
SAMPLE_EVERY_S = 0.1


@dataclass
class Run:
    """What one run of one notebook showed.

    `peak_mb` is resident memory of the kernel and its children, in units of 10^6 bytes. `problems`
    holds one line for each failed cell, each check that did not pass and each changed output.
    """

    notebook: str
    seconds: float
    peak_mb: int
    checks_passed: int
    checks_total: int
    problems: list[str] = field(default_factory=list)


class PeakMemory:
    """Watches the processes that start while it is open, as a context manager; `.peak_bytes`."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._known: set[int] = set()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._known = {child.pid for child in psutil.Process().children(recursive=True)}
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            resident = 0
            for child in psutil.Process().children(recursive=True):
                if child.pid in self._known:
                    continue
                with contextlib.suppress(psutil.Error):
                    resident += child.memory_info().rss
                    self.peak_bytes = max(self.peak_bytes, high_water_bytes(child.pid))
            self.peak_bytes = max(self.peak_bytes, resident)


def high_water_bytes(pid: int) -> int:
    """The most that one process ever held, as Linux counts it; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def check_lines(cell: NotebookNode) -> list[str]:
    """What a check said: the lines that begin with its marks."""
    text = "".join(output.get("text", "") for output in cell.outputs)
    return [line for line in text.splitlines() if line[:1] in ("✓", "✗", "✎")]


def passed(cell: NotebookNode) -> bool:
    """Whether a cell tagged `check` ran to its end and said nothing but ✓."""
    lines = check_lines(cell)
    failed = any(output.output_type == "error" for output in cell.outputs)
    return bool(lines) and not failed and all(line.startswith("✓") for line in lines)


def problems(notebook: NotebookNode, strict: bool) -> list[str]:
    """One line for each cell of an executed notebook that did not do what it should.

    An error is right in a cell tagged `raises-exception`, and only there. With `strict`, a check
    has to pass; without, it has to say that nothing was attempted yet.
    """
    found = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        where = describe(cell, index)
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if "raises-exception" in tags(cell):
            if cell.execution_count and not errors:
                found.append(f"{where}: is tagged raises-exception and raised none")
        elif errors:
            message = ANSI_COLOUR.sub("", f"{errors[0].ename}: {errors[0].evalue}")
            found.append(f"{where}: {message}")
        elif "check" in tags(cell):
            said = " / ".join(check_lines(cell)) or "nothing"
            if strict and not passed(cell):
                found.append(f"{where}: the check did not pass: {said}")
            if not strict and "not attempted yet" not in said:
                found.append(f"{where}: an untouched exercise should say so; it says: {said}")
    if not found and any(
        cell.cell_type == "code" and cell.source.strip() and not cell.execution_count
        for cell in notebook.cells
    ):
        found.append("the notebook stopped before its last cell")
    return found


def run(
    notebook: NotebookNode,
    name: str,
    output: Path,
    strict: bool = True,
    folder: Path = NOTEBOOKS,
    on_cell=None,
    compare: bool = True,
) -> Run:
    """Execute one notebook with papermill, measure it and judge it.

    Args:
        notebook: what to run; solved already if the checks are to pass.
        name: its name in the report.
        output: where the executed copy goes.
        strict: checks raise unless they pass (the environment variable COURSE_CHECKS).
        folder: the working folder of the kernel.
        on_cell: called with `cell` and `cell_index` when a code cell is done.
        compare: whether tagged cells have to show what is stored, see `tools.stored`.
    """
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    output.parent.mkdir(parents=True, exist_ok=True)
    source = output.with_name(f"{output.stem}.source.ipynb")
    nbformat.write(notebook, source)
    before = os.environ.pop("COURSE_CHECKS", None)
    if strict:
        os.environ["COURSE_CHECKS"] = "strict"
    broken: list[str] = []
    start = time.perf_counter()
    try:
        # An error that is meant is an error to papermill all the same: judged below.
        with PeakMemory() as memory, contextlib.suppress(PapermillExecutionError):
            papermill.execute_notebook(
                source,
                output,
                cwd=folder,
                progress_bar=False,
                execution_timeout=CELL_TIMEOUT_S,
                on_cell_complete=on_cell,
                **kernel_settings(),
            )
    except (CellTimeoutError, DeadKernelError) as error:
        broken = [f"{type(error).__name__}: {error}"]
    finally:
        source.unlink()
        os.environ.pop("COURSE_CHECKS", None)
        if before is not None:
            os.environ["COURSE_CHECKS"] = before
    seconds = time.perf_counter() - start
    executed = read(output)
    # papermill puts its own remarks round a failed cell; without them the numbers are the reader's.
    executed.cells = [
        cell for cell in executed.cells if "papermill-error-cell-tag" not in tags(cell)
    ]
    found = broken + problems(executed, strict)
    if compare:
        found += changed(notebook, executed, solved=strict)
    checks = [cell for cell in executed.cells if "check" in tags(cell)]
    return Run(
        notebook=name,
        seconds=round(seconds, 1),
        peak_mb=round(memory.peak_bytes / MEGABYTE),
        checks_passed=sum(passed(cell) for cell in checks),
        checks_total=len(checks),
        problems=found,
    )


def machine() -> dict:
    """What a reader needs to know to judge a measurement; nothing that names this computer."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": metadata.version("tensorflow"),
        "system": platform.system(),
    }


def table(runs: list[Run]) -> str:
    """The report: one line for each notebook."""
    wide = max([len("notebook"), *(len(run.notebook) for run in runs)])
    lines = [f"{'notebook':<{wide}}  minutes  peak MB  checks passed"]
    for run in runs:
        checks = f"{run.checks_passed}/{run.checks_total}"
        verdict = "  ✗" if run.problems else ""
        numbers = f"{run.seconds / 60:7.1f}  {run.peak_mb:7,}  {checks:>13}"
        lines.append(f"{run.notebook:<{wide}}  {numbers}{verdict}")
    return "\n".join(lines)


def run_course(paths: list[Path], strict: bool) -> list[Run]:
    """Run notebooks one after the other, with one progress bar that counts code cells."""
    prepared = {}
    for path in paths:
        shipped = read(path)
        try:
            prepared[path.stem] = solved(shipped) if strict else shipped
        except NotebookError as error:
            raise NotebookError(f"{path.stem}: {error}") from None
    cells = sum(cell.cell_type == "code" for nb in prepared.values() for cell in nb.cells)
    folder = ROOT / "build" / ("course" if strict else "as_shipped")
    runs = []
    with tqdm(total=cells, unit="cell") as bar:
        for name, notebook in prepared.items():
            bar.set_description(name)
            runs.append(
                run(
                    notebook,
                    name,
                    folder / f"{name}.ipynb",
                    strict=strict,
                    on_cell=lambda cell, cell_index: bar.update(cell.cell_type == "code"),
                )
            )
    return runs


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.course",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="notebooks, for example 01_loading_dicom")
    parser.add_argument("--as-shipped", action="store_true", help="leave the exercises unanswered")
    parser.add_argument("--json", type=Path, help="write the measurement here as well")
    chosen = parser.parse_args(arguments)
    try:
        paths = notebook_paths(chosen.names)
        runs = run_course(paths, strict=not chosen.as_shipped)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    failed = [run for run in runs if run.problems]
    entries = [{k: v for k, v in asdict(run).items() if k != "problems"} for run in runs]
    measurement = {"machine": machine(), "notebooks": entries}
    targets = [chosen.json] if chosen.json else []
    if not failed and not chosen.names and not chosen.as_shipped:
        # Only a complete run in which everything passed is fit to be published.
        targets.append(LAST_RUN)
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(measurement, indent=2) + "\n", encoding="utf-8")
    print(table(runs))
    for run_ in failed:
        for problem in run_.problems:
            print(f"✗ {run_.notebook}, {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
