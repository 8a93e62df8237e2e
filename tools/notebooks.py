"""Edit, execute and publish the notebooks.

    python -m tools.notebooks text [NAME ...]       notebooks -> build/text/NAME.py
    python -m tools.notebooks update [NAME ...]     build/text/NAME.py -> notebooks
    python -m tools.notebooks execute [NAME ...]    run in a fresh kernel, clean, write
    python -m tools.notebooks solve [NAME ...]      solved copies -> build/solved
    python -m tools.notebooks minutes               last measurement -> README and notebooks
    python -m tools.notebooks pictures              figures of the notebooks -> README's

`update` keeps the outputs of cells whose code has not changed.
Names are notebook names without folder and ending; without names every notebook is meant.
"""

import argparse
import copy
import re
import sys
from pathlib import Path

import jupytext
from jupytext.combine import combine_inputs_with_outputs
from nbformat import NotebookNode

from tools import pictures, publish
from tools.cells import (
    KERNEL,
    NOTEBOOKS,
    ROOT,
    NotebookError,
    notebook_paths,
    read,
    show,
    solved,
    write,
)
from tools.execution import clean, execute

TEXT, SOLVED = ROOT / "build" / "text", ROOT / "build" / "solved"
FILTERS = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "tags,-all"}


def to_text(notebook: NotebookNode) -> str:
    """The notebook as a Python file with `# %%` between cells; tags are kept, outputs are not."""
    view = copy.deepcopy(notebook)
    settings = {"kernelspec": KERNEL, "jupytext": FILTERS | {"comment_magics": False}}
    view.metadata = NotebookNode(settings)
    return jupytext.writes(view, fmt="py:percent")


def from_text(text: str, before: NotebookNode | None) -> NotebookNode:
    """The notebook that the text view describes.

    Cells that were there keep id and outputs. A changed one keeps its id and loses its outputs,
    because they no longer show what the code does.
    """
    if misplaced := re.search(r"^# %%.*=.*\[markdown\].*$", text, re.M):
        raise NotebookError(f"{misplaced.group()}: [markdown] stands before the tags")
    after = jupytext.reads(text, fmt="py:percent")
    after.nbformat, after.nbformat_minor = 4, 5
    if before:
        given = [tuple(cell.metadata.get("tags", [])) for cell in after.cells]
        known = {cell.id: cell.source for cell in before.cells}
        after = combine_inputs_with_outputs(after, before, fmt="py:percent")
        for cell, tags in zip(after.cells, given, strict=True):
            cell.metadata = NotebookNode({"tags": list(tags)})
            if cell.cell_type == "code" and known.get(cell.id) != cell.source:
                cell.outputs, cell.execution_count = [], None
    return clean(after)


def write_text(path: Path) -> None:
    TEXT.mkdir(parents=True, exist_ok=True)
    (TEXT / f"{path.stem}.py").write_text(to_text(read(path)), encoding="utf-8", newline="\n")
    print(f"{show(path)} -> {show(TEXT)}/{path.stem}.py")


def update(path: Path) -> None:
    text = (TEXT / f"{path.stem}.py").read_text(encoding="utf-8")
    write(from_text(text, read(path) if path.exists() else None), path)
    print(f"{show(TEXT)}/{path.stem}.py -> {show(path)}")


def execute_and_write(path: Path) -> None:
    write(execute(read(path)), path)
    print(f"{show(path)}: executed")


def solve(path: Path) -> None:
    write(solved(read(path)), SOLVED / path.name)
    print(f"{show(path)} -> {show(SOLVED / path.name)}")


EACH = {"text": write_text, "update": update, "execute": execute_and_write, "solve": solve}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tools.notebooks", None, __doc__, formatter_class=form)
    parser.add_argument("command", choices=[*EACH, "minutes", "pictures"])
    parser.add_argument("names", nargs="*", help="notebooks, for example 01_loading_dicom")
    chosen = parser.parse_args(arguments)
    failed = []
    try:
        if chosen.command == "minutes":
            publish.write_minutes(notebook_paths(chosen.names))
        elif chosen.command == "pictures":
            pictures.write_pictures()
        elif chosen.command == "update":
            names = chosen.names or [path.stem for path in sorted(TEXT.glob("*.py"))]
            paths = [NOTEBOOKS / f"{Path(name).stem}.ipynb" for name in names]
        else:
            paths = notebook_paths(chosen.names)
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
