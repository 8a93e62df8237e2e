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
import re
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from unittest.mock import patch

import nbformat
import pandas as pd
import papermill
import psutil
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from tools import cells
from tools.cells import NOTEBOOKS, ROOT, NotebookError, describe, read, tagged, tags
from tools.execution import CELL_TIMEOUT_S, changed, clean, kernel_settings, shown
from tools.publish import LAST_RUN

WORDS_A_MINUTE, MINUTES_A_CELL, MINUTES_AN_EXERCISE = 200, 0.75, 8
MARKS = ("✓", "✗", "✎")
COLUMNS = ["seconds", "peak_mb", "learner_minutes", "checks_passed", "checks_total"]


class PeakMemory(threading.Thread):
    """Watches the processes that start while it is open, as a context manager; `.peak_bytes`."""

    def __enter__(self) -> "PeakMemory":
        self.peak_bytes, self.stop = 0, threading.Event()
        self.before = set(psutil.Process().children(recursive=True))
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join()

    def run(self) -> None:
        """Ask every tenth of a second; Linux also knows the most that a process ever held."""
        while not self.stop.wait(0.1):
            resident = 0
            for child in {*psutil.Process().children(recursive=True)} - self.before:
                with contextlib.suppress(psutil.Error, OSError):
                    resident += child.memory_info().rss
                    status = Path(f"/proc/{child.pid}/status")
                    most = re.search(r"VmHWM:\s+(\d+)", status.read_text("ascii", "replace"))
                    self.peak_bytes = max(self.peak_bytes, 1024 * int(most[1]) if most else 0)
            self.peak_bytes = max(self.peak_bytes, resident)


def learner_minutes(notebook: NotebookNode) -> int:
    """Minutes of a learner: words, folded ones and printed source included, cells, exercises."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = [shown(cell) for cell in code if "show.source(" in cell.source]
    texts += [text for kinds in printed for kind, text in kinds.items() if kind != "text/html"]
    # What a command writes, addresses and HTML are not read.
    unread = r"(?s)<!-- (\w+).*?<!-- /\1 -->|<[^>]*>|\]\([^)]*\)"
    words = sum(len(re.findall(r"\w\S*", re.sub(unread, " ", text))) for text in texts)
    exercises = len(tagged(notebook, "exercise"))
    minutes = words / WORDS_A_MINUTE + MINUTES_A_CELL * len(code) + MINUTES_AN_EXERCISE * exercises
    return round(minutes)


def check_lines(cell: NotebookNode) -> list[str]:
    """What a check said: the lines that begin with its marks."""
    return [line for line in shown(cell).get("stdout", "").splitlines() if line.startswith(MARKS)]


def passed(cell: NotebookNode) -> bool:
    """Whether a cell tagged `check` ran to its end and said nothing but ✓."""
    lines = check_lines(cell)
    return bool(lines) and "error" not in shown(cell) and all(line[0] == "✓" for line in lines)


def problems(notebook: NotebookNode, strict: bool) -> list[str]:
    """One line for each cell of an executed notebook that did not do what it should.

    An error is right in a cell tagged `raises-exception`, and only there. With `strict`, a check
    has to pass; without, it has to say that nothing was attempted yet.
    """
    found, code = [], [(k, c) for k, c in enumerate(notebook.cells) if c.cell_type == "code"]
    for index, cell in code:
        where, error = describe(cell, index), shown(cell).get("error", "").strip()
        said = " / ".join(check_lines(cell)) or "nothing"
        if "raises-exception" in tags(cell):
            if cell.execution_count and not error:
                found.append(f"{where}: is tagged raises-exception and raised none")
        elif error:
            found.append(f"{where}: {error}")
        elif "check" in tags(cell) and strict and not passed(cell):
            found.append(f"{where}: the check did not pass: {said}")
        elif "check" in tags(cell) and not strict and "not attempted yet" not in said:
            found.append(f"{where}: an untouched exercise should say so; it says: {said}")
    if not found and any(cell.source.strip() and not cell.execution_count for _, cell in code):
        found.append("the notebook stopped before its last cell")
    return found


def run(
    notebook: NotebookNode,
    output: Path,
    strict: bool = True,
    folder: Path = NOTEBOOKS,
    parameters: dict | None = None,
    compare: bool = True,
    **environment: str,
) -> tuple[dict, list[str]]:
    """Execute one notebook with papermill; its measurements, `COLUMNS`, and what is wrong.

    Args:
        notebook: what to run; solved already if the checks are to pass.
        output: where the executed copy goes.
        strict: checks raise unless they pass (the environment variable COURSE_CHECKS).
        folder: the working folder of the kernel.
        parameters: values in place of those of the cell tagged `parameters`.
        compare: whether tagged cells have to show what is stored.
        **environment: further environment variables of the kernel.
    """
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    output.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, output)
    names = environment | {"COURSE_CHECKS": "strict" if strict else ""}
    options = kernel_settings() | {"execution_timeout": CELL_TIMEOUT_S, "language": "python"}
    found, start = [], time.perf_counter()
    # An error that is meant is an error to papermill all the same: judged below.
    with PeakMemory(daemon=True) as memory, contextlib.suppress(PapermillExecutionError):
        try:
            with patch.dict(os.environ, names):
                papermill.execute_notebook(output, output, parameters, cwd=folder, **options)
        except (CellTimeoutError, DeadKernelError) as error:
            found.append(f"{type(error).__name__}: {error}")
    seconds, executed = round(time.perf_counter() - start, 1), read(output)
    # Without papermill's own cells the numbers are the reader's.
    own = {"papermill-error-cell-tag", "injected-parameters"}
    executed.cells = [cell for cell in executed.cells if not own & {*tags(cell)}]
    checks = tagged(executed, "check")
    found += problems(clean(executed), strict)
    found += changed(notebook, executed, solved=strict) if compare else []
    numbers = [seconds, round(memory.peak_bytes / 1e6), learner_minutes(executed)]
    return dict(zip(COLUMNS, [*numbers, sum(map(passed, checks)), len(checks)], strict=True)), found


def machine() -> dict:
    """What a reader needs to know to judge a measurement; nothing that names this computer."""
    versions = {"python": platform.python_version(), "tensorflow": metadata.version("tensorflow")}
    return {"cores": os.cpu_count(), **versions, "system": platform.system()}


def table(entries: list[dict]) -> str:
    """The report: one line for each notebook."""
    runs = pd.DataFrame(entries).set_index("notebook").rename_axis(None)
    runs.insert(0, "minutes", (runs.pop("seconds") / 60).map("{:.1f}".format))
    return runs.rename(columns=lambda name: name.replace("_", " ").replace("mb", "MB")).to_string()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tools.course", None, __doc__, formatter_class=form)
    parser.add_argument("names", nargs="*", help="notebooks, for example 01_loading_dicom")
    parser.add_argument("--as-shipped", action="store_true", help="leave the exercises unanswered")
    parser.add_argument("--json", type=Path, help="write the measurement here as well")
    chosen = parser.parse_args(arguments)
    folder, entries, wrong = ROOT / "build" / "course", [], []
    try:
        paths = cells.notebook_paths(chosen.names)
        ready = {p: read(p) if chosen.as_shipped else cells.solved(read(p)) for p in paths}
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    for path, notebook in ready.items():
        measured, found = run(notebook, folder / path.name, strict=not chosen.as_shipped)
        entries.append({"notebook": path.stem} | measured)
        wrong += [f"✗ {path.stem}, {problem}" for problem in found]
    # Only a complete run in which everything passed is fit to be published.
    whole = not (wrong or chosen.names or chosen.as_shipped)
    measurement = json.dumps({"machine": machine(), "notebooks": entries}, indent=2) + "\n"
    for target in filter(None, [chosen.json, whole and LAST_RUN]):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(measurement, encoding="utf-8")
    print(table(entries), *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
