"""A view of the notebooks as Python files with `# %%` between the cells, to edit and to review."""

import copy
import difflib
import re

import jupytext
import nbformat
from nbformat import NotebookNode

from tools.cells import KERNEL, LANGUAGE, NotebookError, tags

PERCENT = {"extension": ".py", "format_name": "percent"}
JUPYTEXT = {
    "notebook_metadata_filter": "-all",
    "cell_metadata_filter": "tags,-all",
    "comment_magics": False,
}


def to_text(notebook: NotebookNode) -> str:
    """The notebook as a Python file with `# %%` between cells; tags are kept, outputs are not."""
    view = copy.deepcopy(notebook)
    view.metadata = NotebookNode({"kernelspec": KERNEL, "jupytext": JUPYTEXT})
    return jupytext.writes(view, fmt=PERCENT)


def from_text(text: str, before: NotebookNode | None) -> NotebookNode:
    """The notebook that the text view describes.

    Cells whose type and source are unchanged keep id and outputs. A changed cell keeps its id and
    loses its outputs, because they no longer show what the code does. New cells get new ids.
    """
    misplaced = re.search(r"^# %%.*=.*\[markdown\].*$", text, re.M)
    if misplaced:
        raise NotebookError(f"{misplaced.group()}: [markdown] stands before the tags")
    after = jupytext.reads(text, fmt=PERCENT)
    after.metadata = NotebookNode({"kernelspec": KERNEL, "language_info": LANGUAGE})
    after.nbformat, after.nbformat_minor = 4, 5
    old = before.cells if before is not None else []
    key = [(cell.cell_type, cell.source) for cell in old]
    new_key = [(cell.cell_type, cell.source) for cell in after.cells]
    for kind, a, a_end, b, b_end in difflib.SequenceMatcher(
        None, key, new_key, autojunk=False
    ).get_opcodes():
        if kind not in ("equal", "replace"):
            continue
        for was, now in zip(old[a:a_end], after.cells[b:b_end], strict=False):
            if was.cell_type != now.cell_type:
                continue
            now.id = was.id
            if kind == "equal" and was.cell_type == "code":
                now.outputs, now.execution_count = was.outputs, was.execution_count
    for cell in after.cells:
        cell.metadata = NotebookNode({"tags": tags(cell)} if tags(cell) else {})
        cell.setdefault("id", nbformat.v4.new_code_cell().id)
    return after
