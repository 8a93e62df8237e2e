"""Execute and publish the notebooks.

    python -m tools.notebooks execute [NAME ...]    run in a fresh kernel, clean, write
    python -m tools.notebooks solve [NAME ...]      solved copies -> build/solved
    python -m tools.notebooks minutes               last measurement -> README and notebooks
    python -m tools.notebooks pictures              figures of the notebooks -> README's

Names are notebook names without folder and ending; without names every notebook is meant.
"""

import argparse
import sys
from pathlib import Path

from tools import pictures, publish
from tools.cells import ROOT, NotebookError, notebook_paths, read, show, solved, write
from tools.execution import execute

SOLVED = ROOT / "build" / "solved"


def execute_and_write(path: Path) -> None:
    write(execute(read(path)), path)
    print(f"{show(path)}: executed")


def solve(path: Path) -> None:
    write(solved(read(path)), SOLVED / path.name)
    print(f"{show(path)} -> {show(SOLVED / path.name)}")


EACH = {"execute": execute_and_write, "solve": solve}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tools.notebooks", None, __doc__, formatter_class=form)
    parser.add_argument("command", choices=[*EACH, "minutes", "pictures"])
    parser.add_argument("names", nargs="*", help="notebooks, for example 01_loading_dicom")
    chosen = parser.parse_args(arguments)
    failed = []
    try:
        paths = notebook_paths(chosen.names)
        if chosen.command == "minutes":
            publish.write_minutes(paths)
        elif chosen.command == "pictures":
            pictures.write_pictures()
    except NotebookError as error:
        failed.append(str(error))
    for path in paths if chosen.command in EACH and not failed else []:
        try:
            EACH[chosen.command](path)
        except NotebookError as error:
            failed.append(f"{show(path)}: not written: {error}")
    print(*failed, sep="\n", end="\n" * bool(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
