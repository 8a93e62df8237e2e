"""What every committed notebook of the course has to be, as far as a machine can tell."""

import ast
import base64
import itertools
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from tools.cells import NotebookError, describe, solution_code, tagged, tags
from tools.execution import machine_paths, shown
from tools.publish import FIRST_NOTEBOOK, badges, set_up

LONGEST_CELL, LARGEST_PICTURE_BYTES = 25, 80_000
SECTIONS = ("Bug clinic", "Exercise", "Take-aways", "Check yourself", "With your own data")
SILENCING = r"(?m)^\s*[%!]\S|get_ipython\(\)|warnings\.(?:filterwarnings|simplefilter)\("

Judged = Iterator[tuple[bool, str]]


def findings(notebook: NotebookNode, name: str, address: str | None) -> list[str]:
    """Everything that is wrong with one notebook, as sentences; an empty list for a good one.

    Args:
        notebook: the notebook as committed.
        name: its file name without ending.
        address: the repository's public address; None while it has none.
    """
    cells, wrong = notebook.cells, [f"{path} is of one machine" for path in machine_paths(notebook)]
    wrong += [said for good, said in [*text(notebook, name), *exercises(notebook)] if not good]
    (setup,) = tagged(notebook, "setup") or [None]
    if not setup or setup.source != set_up(address) or badges(name, address) not in cells[0].source:
        wrong.append("set-up cell and badges are not those of `make badges`")
    for index, cell in enumerate(cells):
        following = cells[index + 1] if index + 1 < len(cells) else None
        judged = [*code(cell), *pictures(cell, following)] if cell.cell_type == "code" else []
        wrong += [f"{describe(cell, index)}: {said}" for good, said in judged if not good]
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    if counts != [*range(1, len(counts) + 1)]:
        wrong.append(f"not executed from the first cell to the last: {counts}")
    return wrong


def text(notebook: NotebookNode, name: str) -> Judged:
    """Title, order of headings, sections, self-test, the place for the measurement."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    plain = re.sub(r"(?ms)^(```|~~~).*?^\1", "", "\n".join(prose))
    headings = re.findall(r"(?m)^(#{1,6})\s+(.+)$", plain)
    levels = [len(marks) for marks, _ in headings]
    yield plain.startswith("# ") and levels.count(1) == 1, "one title, in the first line"
    for above, level in itertools.pairwise(levels):
        yield level <= above + 1, f"a heading of level {level} below one of level {above}"
    start = "\n".join(prose[:3])
    yield "you will" in start.lower(), "'You will' in the first cells"
    yield bool(re.search("<!-- measured -->.*<!-- /measured -->", start)), "no place for minutes"
    # The first notebook shows how the course works; it is not a lesson.
    wanted = ("Exercise",) if name == FIRST_NOTEBOOK else SECTIONS
    places = [
        [k for k, (_, said) in enumerate(headings) if s.lower() in said.lower()] for s in wanted
    ]
    yield all(places), f"headings with {', '.join(wanted)}"
    last = [place[-1] for place in places[-3:] if place]
    yield last == sorted(last), f"at the end {', '.join(wanted[-3:])}, in this order"
    answers = re.search(r"(?ims)^#+ [^\n]*check yourself.*?(?=^#{1,2} |\Z)", plain)
    yield not answers or answers[0].count("<details") >= 3, "'Check yourself' folds three answers"
    fewest, most = (1, 1) if name == FIRST_NOTEBOOK else (2, 4)
    number = len(tagged(notebook, "exercise"))
    yield fewest <= number <= most, f"{number} exercises, wanted {fewest} to {most}"
    parameters = tagged(notebook, "parameters")
    yield len(parameters) == 1, "one cell tagged parameters"
    for cell in parameters:
        yield assigns_only(cell.source), "the cell tagged parameters: NAME = literal, each once"


def assigns_only(source: str) -> bool:
    """Whether each line is `NAME = literal`, each name once: then a run can replace any of them."""
    names = []
    for line in ast.parse(source).body:
        match line:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names.append(name)
                try:
                    ast.literal_eval(value)
                except (ValueError, TypeError):
                    return False
            case _:
                return False
    return len(names) == len(set(names)) and all(name.isupper() for name in names)


def code(cell: NotebookNode) -> Judged:
    """Length, magics and silenced warnings, stderr, errors."""
    length, said, meant = (
        len(cell.source.splitlines()),
        shown(cell),
        "raises-exception" in tags(cell),
    )
    yield length <= LONGEST_CELL, f"{length} lines, at most {LONGEST_CELL}"
    is_silent = re.search(SILENCING, cell.source) and "setup" not in tags(cell)
    yield not is_silent, "plain Python: no magic, no shell, no silenced warning"
    yield "stderr" not in said, "something was written to stderr"
    yield ("error" in said) == meant, "errors where the tag raises-exception is, only and always"
    makes_data = re.search(r"phantoms\.\w+\(DATA_DIR", cell.source)
    compared = "nbval-check-output" in tags(cell)
    yield not (makes_data and compared), "makes data: it shows a bar only once, and is compared"


def pictures(cell: NotebookNode, following: NotebookNode | None) -> Judged:
    """Size and alternative text of every picture, drawn or inside HTML, and the text below it."""
    found = []
    for output in cell.outputs:
        for kind, data in output.get("data", {}).items():
            alt = output.metadata.get(kind, {}).get("alt", "")
            if kind.startswith("image/"):
                found.append((len(data) if "svg" in kind else len(base64.b64decode(data)), alt))
            for image in re.findall(r"<img\b[^>]*>", data) if kind == "text/html" else []:
                inside = re.search(r"base64,([A-Za-z0-9+/=]+)", image)
                alt = re.search(r"""(?s)\balt=(["'])(.*?)\1""", image)
                size = len(base64.b64decode(inside[1])) if inside else 0
                found.append((size, alt[2] if alt else ""))
    for size, alt in found:
        yield size <= LARGEST_PICTURE_BYTES, f"a picture of {size:,} bytes"
        yield bool(alt.strip()), "a picture without alternative text"
    is_told = following is not None and following.cell_type == "markdown"
    yield not found or is_told, "no text below the picture"


def exercises(notebook: NotebookNode) -> Judged:
    """Stub, check and solution of each exercise; what its check says as shipped."""
    kinds = ("exercise", "check", "solution")
    order = [tag for cell in notebook.cells for tag in kinds if tag in tags(cell)]
    stubs, code = tagged(notebook, "exercise"), [c for c in notebook.cells if c.cell_type == "code"]
    yield order == [*kinds] * len(stubs), "each exercise is a stub, a check, a solution"
    for stub in stubs:
        below = code[code.index(stub) + 1 :]
        yield bool(below) and "check" in tags(below[0]), "the cell below a stub is its check"
        yield "checks." not in stub.source, "the check belongs in the cell below the stub"
    for check in tagged(notebook, "check"):
        said = shown(check).get("stdout", "")
        untouched = "not attempted yet" in said and "nbval-check-output" in tags(check)
        yield untouched, f"a compared check says as shipped 'not attempted yet', not: {said[:80]}"
    for solution in tagged(notebook, "solution", "markdown"):
        try:
            solution_code(solution.source)
        except NotebookError as error:
            yield False, str(error)
