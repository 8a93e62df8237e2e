"""The notebooks as data: finding, reading and writing them, their tags and their solutions."""

import copy
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# No version: the same notebook, executed by another Python, should not differ in its metadata.
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}


class NotebookError(Exception):
    """Something an author has to repair; the message says where and what."""


def notebook_paths(names: list[str] | None = None) -> list[Path]:
    """The course's notebooks in teaching order, or those that were named."""
    found = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    if not names:
        return list(found.values())
    stems = [Path(name).stem for name in names]
    unknown = [stem for stem in stems if stem not in found]
    if unknown:
        raise NotebookError(f"no notebook {', '.join(unknown)}; there are: {', '.join(found)}")
    return [found[stem] for stem in stems]


def read(path: Path) -> NotebookNode:
    """Read one notebook, in the current notebook format."""
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a valid notebook, with a newline at its end and the same bytes on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")


def tags(cell: NotebookNode) -> list[str]:
    """The cell's tags, an empty list where it has none."""
    return list(cell.metadata.get("tags", []))


def describe(cell: NotebookNode, index: int) -> str:
    """Name a cell so that an author finds it: its number and its first line of substance."""
    lines = [line.strip() for line in cell.source.splitlines() if line.strip()]
    first = lines[0] if lines else "(empty)"
    return f"cell {index + 1} ({first[:60]})"


def solution_code(markdown: str) -> str:
    """The one block of Python inside a solution's folded `<details>`.

    A block is fenced with ```` ```python ```` or indented by four spaces.
    Raises NotebookError where there is none or more than one.
    """
    folded = re.search(r"<details.*?</summary>(.*?)</details>", markdown, re.S)
    if not folded:
        raise NotebookError("a solution needs <details><summary>…</summary> … </details>")
    body = folded.group(1)
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```", body, re.S | re.M)
    if not blocks and "```" not in body:
        indented = re.findall(r"(?:^(?:(?: {4}|\t)[^\n]*|[ \t]*)(?:\n|\Z))+", body, re.M)
        blocks = [
            re.sub(r"^(?: {4}|\t)", "", block, flags=re.M) for block in indented if block.strip()
        ]
    if len(blocks) != 1:
        raise NotebookError(f"a solution holds exactly one block of Python, not {len(blocks)}")
    return blocks[0].strip("\n")


def solved(notebook: NotebookNode) -> NotebookNode:
    """A copy of the notebook in which each solution stands in place of its exercise's stub.

    The solution of a code cell tagged `exercise` is the next markdown cell tagged `solution`.
    Raises NotebookError for an exercise without a solution and for a solution without an exercise.
    """
    answered = copy.deepcopy(notebook)
    waiting = None
    for index, cell in enumerate(answered.cells):
        if cell.cell_type == "code" and "exercise" in tags(cell):
            if waiting is not None:
                raise NotebookError(f"{describe(*waiting)}: exercise without a solution below it")
            waiting = (cell, index)
        elif cell.cell_type == "markdown" and "solution" in tags(cell):
            if waiting is None:
                raise NotebookError(
                    f"{describe(cell, index)}: solution without an exercise above it"
                )
            try:
                waiting[0].source = solution_code(cell.source)
            except NotebookError as error:
                raise NotebookError(f"{describe(cell, index)}: {error}") from None
            waiting = None
    if waiting is not None:
        raise NotebookError(f"{describe(*waiting)}: exercise without a solution below it")
    return answered


def show(path: Path) -> str:
    """The path as seen from the repository's root."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
