"""The lesson of a study: cut, given its parameters, and known again by a fingerprint."""

import ast
import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from nbformat import NotebookNode

from studies import GIVEN, Study
from tools.cells import NotebookError, notebook_paths, read, tags
from tools.style import tagged

NO_FINGERPRINT = "made before studies kept a fingerprint of the lesson's code"
EARLIER = "on an earlier version of the lesson"


@dataclass(frozen=True)
class Version:
    """What numbers come from: a lesson's code, and the parameters that are the same in every run.

    Args:
        fingerprint: of the code, see `fingerprint`.
        parameters: names and values, as they are written in Python.
    """

    fingerprint: str
    parameters: Mapping[str, str]


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put the place before the message of an error."""
    try:
        yield
    except NotebookError as error:
        raise NotebookError(f"{where}: {error}") from None


def lesson(study: Study) -> NotebookNode:
    """The notebook of a study as it is now, cut.

    Raises:
        NotebookError: naming it, where it is missing or has no cell to end with.
    """
    (path,) = notebook_paths([study.notebook])
    with naming(study.notebook):
        return cut(read(path))


def cut(notebook: NotebookNode) -> NotebookNode:
    """A copy of a notebook that ends with its cell tagged `study`.

    Raises:
        NotebookError: where no cell has the tag, or several have.
    """
    places = [k for k, cell in enumerate(notebook.cells) if "study" in tags(cell)]
    if len(places) != 1:
        raise NotebookError(f"one cell tagged study is needed; there are {len(places)}")
    shorter = copy.deepcopy(notebook)
    shorter.cells = shorter.cells[: places[0] + 1]
    return shorter


def with_parameters(notebook: NotebookNode, parameters: Mapping[str, object]) -> NotebookNode:
    """A copy of a notebook in which the cell tagged `parameters` ends with other values.

    No cell is added, so that a message about cell 7 means the seventh of the lesson.

    Raises:
        NotebookError: without such a cell, for one that does more than to name values (see
            `assigned`), or for a name that it does not assign.
    """
    given = copy.deepcopy(notebook)
    found = tagged(given, "parameters")
    if len(found) != 1:
        raise NotebookError(f"one cell tagged parameters is needed; there are {len(found)}")
    known = assigned(found[0].source)
    missing = [name for name in parameters if name not in known]
    if missing:
        raise NotebookError(f"the cell tagged parameters does not assign {', '.join(missing)}")
    found[0].source = "\n".join([found[0].source, *_lines(parameters)])
    return given


def _lines(parameters: Mapping[str, object]) -> list[str]:
    return ["# This run's own", *(f"{name} = {value!r}" for name, value in parameters.items())]


def assigned(source: str) -> dict[str, str]:
    """The names and values of a cell tagged `parameters`; the values formatted in one way.

    Each line is `NAME = literal` or `NAME: type = literal`, each name once. Then names and values
    are all that the cell does, and a run can replace any of them below.

    Raises:
        NotebookError: for anything else, naming it.
    """
    values = {}
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        raise NotebookError(f"the cell tagged parameters is no Python: {error}") from None
    for line in lines:
        match line:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if name not in values and _is_literal(value):
                values[name] = ast.unparse(value)
            case _:
                first, *_ = ast.unparse(line).splitlines()
                raise NotebookError(
                    f"the cell tagged parameters has `{first}`; only NAME = literal may stand "
                    "there, each name once, because a run's own values come below: move what "
                    "follows from a parameter, and anything else, into another cell"
                )
    return values


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError):
        return False
    return True


def fingerprint(notebook: NotebookNode) -> str:
    """The SHA-256 of the code that a study runs, as hexadecimal digits.

    It is taken over a JSON list (ASCII, as `json.dumps` writes it) of the sources of the code cells
    up to the one tagged `study`. Outputs and prose do not count, nor do the cells tagged
    `parameters`, whose values a run replaces, and `setup`, which does nothing in a run and has
    another address in each copy of the course.
    """
    sources = [
        cell.source
        for cell in cut(notebook).cells
        if cell.cell_type == "code" and not {"parameters", "setup"} & {*tags(cell)}
    ]
    return hashlib.sha256(json.dumps(sources).encode("ascii")).hexdigest()


def version(notebook: NotebookNode, study: Study) -> Version:
    """What a study's numbers come from when it runs this notebook.

    Raises:
        NotebookError: for a notebook that the study does not fit, or whose cell tagged
            `parameters` does more than to name values.
    """
    with naming(study.notebook):
        with_parameters(notebook, dict.fromkeys(GIVEN) | dict(study.parameters))
        (cell,) = tagged(notebook, "parameters")
        values = assigned(cell.source) | assigned("\n".join(_lines(study.parameters)))
        kept = {name: value for name, value in values.items() if name not in GIVEN}
        return Version(fingerprint(notebook), kept)


def standing(then: Version | None, now: Version) -> str:
    """What has to be said of numbers from a version of a lesson; nothing where it is today's.

    Args:
        then: what the numbers come from; None where that was not kept.
        now: what they would come from today.
    """
    if then is None:
        return NO_FINGERPRINT
    said = [EARLIER] if then.fingerprint != now.fingerprint else []
    differ = [
        f"{name} = {then.parameters.get(name, 'absent')}, now {now.parameters.get(name, 'absent')}"
        for name in dict.fromkeys([*then.parameters, *now.parameters])
        if then.parameters.get(name) != now.parameters.get(name)
    ]
    if differ:
        said.append(f"with other parameters ({'; '.join(differ)})")
    return f"run {' and '.join(said)}" if said else ""
