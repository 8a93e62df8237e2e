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
    stems = [Path(name).stem for name in names or found]
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


def tagged(notebook: NotebookNode, tag: str, kind: str = "code") -> list[NotebookNode]:
    """The cells of a kind, `code` or `markdown`, that have a tag."""
    return [cell for cell in notebook.cells if cell.cell_type == kind and tag in tags(cell)]


def describe(cell: NotebookNode, index: int) -> str:
    """Name a cell so that an author finds it: its number and its first line of substance."""
    first = next(iter(cell.source.strip().splitlines()), "(empty)")
    return f"cell {index + 1} ({first[:60]})"


def solution_code(markdown: str) -> str:
    """The one block of Python inside a solution's folded `<details>`.

    Raises NotebookError where there is none or more than one.
    """
    folded = re.search(r"<details.*?</summary>(.*?)</details>", markdown, re.S)
    blocks = re.findall(r"^```python\n(.*?)^```", folded.group(1), re.S | re.M) if folded else []
    if len(blocks) != 1:
        found = f"{len(blocks)} in: {markdown[:60]}"
        raise NotebookError(f"a solution folds exactly one block of Python away; {found}")
    return blocks[0].strip("\n")


def solved(notebook: NotebookNode) -> NotebookNode:
    """A copy of the notebook in which each solution stands in place of its exercise's stub.

    Raises NotebookError unless stubs and solutions, cells so tagged, take turns.
    """
    answered = copy.deepcopy(notebook)
    stubs, solutions = tagged(answered, "exercise"), tagged(answered, "solution", "markdown")
    turns = [cell for cell in answered.cells if cell in stubs or cell in solutions]
    if [*map(tags, turns)] != [["exercise"], ["solution"]] * len(stubs):
        found = " | ".join(cell.source[:30] for cell in turns)
        raise NotebookError(f"each exercise is followed by its solution; here are: {found}")
    for stub, solution in zip(stubs, solutions, strict=True):
        stub.source = solution_code(solution.source)
    return answered


def show(path: Path) -> str:
    """The path as seen from the repository's root."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
