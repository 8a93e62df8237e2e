"""Edit, execute and publish the notebooks.

    python -m tools.notebooks text [NAME ...]       notebooks -> build/text/NAME.py
    python -m tools.notebooks update [NAME ...]     build/text/NAME.py -> notebooks
    python -m tools.notebooks execute [NAME ...]    run in a fresh kernel, clean, write
    python -m tools.notebooks solve [NAME ...]      solved copies -> build/solved
    python -m tools.notebooks badges                address in pyproject.toml -> every badge
    python -m tools.notebooks minutes               last measurement -> README and notebooks
    python -m tools.notebooks pictures              figures of the notebooks -> README's

`update` keeps the outputs of cells whose code has not changed.
Names are notebook names without folder and ending; without names every notebook is meant.
"""

import argparse
import sys
from pathlib import Path

from tools import execution, pictures, publish, text_view
from tools.cells import NOTEBOOKS, ROOT, NotebookError, notebook_paths, read, show, solved, write

TEXT = ROOT / "build" / "text"
SOLVED = ROOT / "build" / "solved"


def run_text(names: list[str]) -> None:
    TEXT.mkdir(parents=True, exist_ok=True)
    for path in notebook_paths(names):
        target = TEXT / f"{path.stem}.py"
        target.write_text(text_view.to_text(read(path)), encoding="utf-8", newline="\n")
        print(f"{show(path)} -> {show(target)}")


def run_update(names: list[str]) -> None:
    stems = [Path(name).stem for name in names] or [path.stem for path in sorted(TEXT.glob("*.py"))]
    for stem in stems:
        target = NOTEBOOKS / f"{stem}.ipynb"
        before = read(target) if target.exists() else None
        after = text_view.from_text((TEXT / f"{stem}.py").read_text(encoding="utf-8"), before)
        write(after, target)
        print(f"{show(TEXT / stem)}.py -> {show(target)}")


def run_execute(names: list[str]) -> None:
    failures = []
    for path in notebook_paths(names):
        try:
            write(execution.execute(read(path)), path)
            print(f"{show(path)}: executed")
        except NotebookError as error:
            failures.append(f"{show(path)}: not written: {error}")
    if failures:
        raise NotebookError("\n".join(failures))


def run_solve(names: list[str]) -> None:
    for path in notebook_paths(names):
        target = SOLVED / path.name
        write(solved(read(path)), target)
        print(f"{show(path)} -> {show(target)}")


def run_badges(names: list[str]) -> None:
    publish.write_badges(notebook_paths(names))


def run_minutes(names: list[str]) -> None:
    publish.write_minutes(notebook_paths(names))


def run_pictures(names: list[str]) -> None:
    if names:
        raise NotebookError("pictures are listed in tools/pictures.py; name no notebook")
    pictures.write_pictures()


COMMANDS = {
    "text": run_text,
    "update": run_update,
    "execute": run_execute,
    "solve": run_solve,
    "badges": run_badges,
    "minutes": run_minutes,
    "pictures": run_pictures,
}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("names", nargs="*", help="notebooks, for example 01_loading_dicom")
    chosen = parser.parse_args(arguments)
    try:
        COMMANDS[chosen.command](chosen.names)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
