"""Whether a run shows again what is stored with the notebook.

Compared are the outputs of cells tagged `nbval-check-output`, by nbval's rules: text of each
stream, errors, tables and values. Pictures only have to be there again, because fonts differ from
machine to machine. So do scores after a training: a cell that shows some does not get the tag. What
comes out of every training in full, but not of a shorter one, is tagged `trained` as well.
"""

import copy
from collections import defaultdict
from itertools import zip_longest

from nbformat import NotebookNode

from tools.cells import describe, tags
from tools.execution import clean


def is_compared(cell: NotebookNode, solved: bool) -> bool:
    """Whether a cell has to show what is stored; what its check says changes with an answer."""
    return "nbval-check-output" in tags(cell) and not (solved and "check" in tags(cell))


def changed(notebook: NotebookNode, executed: NotebookNode, solved: bool) -> list[str]:
    """One line for each compared cell that ran and did not show what is stored.

    Args:
        notebook: with the stored outputs.
        executed: the same cells with the outputs of a run.
        solved: whether the exercises were answered in that run.
    """
    again = clean(copy.deepcopy(executed))
    return [
        f"{describe(cell, index)}: the output is not the stored one: {difference(cell, other)}"
        for index, (cell, other) in enumerate(zip(notebook.cells, again.cells, strict=True))
        if is_compared(cell, solved) and other.execution_count and shown(cell) != shown(other)
    ]


def shown(cell: NotebookNode) -> dict[str, str]:
    """What a cell shows, by kind: stdout, stderr, error, text/plain and so on."""
    found = defaultdict(str)
    for output in cell.outputs:
        if output.output_type == "stream":
            found[output.name] += output.text
        elif output.output_type == "error":
            found["error"] += f"{output.ename}: {output.evalue}\n"
        else:
            for kind, data in output.data.items():
                found[kind] += "a picture\n" if kind.startswith("image/") else f"{data}\n"
    return dict(found)


def difference(stored: NotebookNode, now: NotebookNode) -> str:
    """The first line in which two cells show something else."""
    before, after = shown(stored), shown(now)
    kind = next(kind for kind in [*before, *after] if before.get(kind) != after.get(kind))
    lines = zip_longest(*(side.get(kind, "").split("\n") for side in (before, after)))
    was, became = next((one, other) for one, other in lines if one != other)
    return f"{kind} was {was!r} and is {became!r}"
