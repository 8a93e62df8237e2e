"""What every committed notebook of the course has to be, as rules that a machine can check.

`findings(notebook, name, address)` returns what is wrong with one notebook, `between_notebooks`
what is wrong between several. Each finding names its rule; RULES says in a line what each asks for.
"""

import base64
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

from tools.cells import NotebookError, describe, solution_code, tags
from tools.execution import machine_paths
from tools.publish import ADDRESS, FIRST_NOTEBOOK, badges

RULES = {
    "title": "one H1, on the first line of the first cell",
    "headings": "heading levels go down one at a time",
    "badges": "the badges lead to this notebook at the address in pyproject.toml",
    "measured": "one of the first cells has a place for the measured minutes",
    "sections": "the sections that every lesson has, in their order",
    "self-test": "'Check yourself' folds three answers away",
    "parameters": "one cell tagged parameters, which only assigns",
    "setup": "one cell tagged setup, the same in every notebook, with the right address",
    "length": "a code cell has at most 25 lines",
    "executed": "every code cell was executed, from the first to the last",
    "stderr": "nothing was written to stderr",
    "machine path": "no path of one machine in a source or an output",
    "errors": "errors in cells tagged raises-exception, there always and nowhere else",
    "figure size": "an embedded picture has at most 80 kB",
    "alt text": "every picture has alternative text",
    "figure text": "a cell with a picture is followed by text that says what to see",
    "exercises": "two to four exercises, each with stub, check and solution",
    "untouched": "as shipped, each check says 'not attempted yet', and it is compared",
    "data": "a cell that makes data shows a progress bar, once: its output is not compared",
    "magic": "plain Python: no magics, no shell commands, no silenced warnings",
}

LONGEST_CELL = 25
LARGEST_PICTURE_BYTES = 80_000
FIRST_CELLS = 5
SECTIONS = ("Bug clinic", "Exercise", "Take-aways", "Check yourself", "With your own data")


@dataclass(frozen=True)
class Finding:
    """One thing to repair: the rule from RULES, where, and what was found."""

    rule: str
    where: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}: {self.found} (rule '{self.rule}': {RULES[self.rule]})"


def findings(notebook: NotebookNode, name: str, address: str) -> list[Finding]:
    """Everything that is wrong with one notebook; an empty list for a good one.

    Args:
        notebook: the notebook as committed.
        name: its file name without ending.
        address: the repository's public address, `https://github.com/owner/name`.
    """
    return [
        *structure(notebook, name),
        *publication(notebook, name, address),
        *code(notebook),
        *outputs(notebook),
        *pictures(notebook),
        *exercises(notebook, name),
    ]


def between_notebooks(notebooks: dict[str, NotebookNode]) -> list[Finding]:
    """What is wrong between notebooks: a set-up cell that differs from the first notebook's."""
    sources = {
        name: [cell.source for cell in tagged(nb, "setup")] for name, nb in notebooks.items()
    }
    first = next(iter(sources.values()), [])
    return [
        Finding("setup", name, f"the set-up cell differs from that of {next(iter(sources))}")
        for name, source in sources.items()
        if source != first
    ]


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """The code cells with a tag."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and tag in tags(cell)]


def headings(notebook: NotebookNode) -> list[tuple[int, int, str]]:
    """Cell index, level and text of every Markdown heading, code blocks left out."""
    found = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            prose = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.M | re.S)
            for marks, text in re.findall(r"^(#{1,6})\s+(.+?)\s*#*$", prose, re.M):
                found.append((index, len(marks), text))
    return found


def structure(notebook: NotebookNode, name: str) -> Iterator[Finding]:
    """Title, order of headings, sections, self-test, the place for the measurement."""
    cells, found = notebook.cells, headings(notebook)
    titles = [text for _, level, text in found if level == 1]
    starts = bool(cells) and cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    if len(titles) != 1 or not starts:
        yield Finding("title", name, f"{len(titles)} titles, first cell starts with one: {starts}")
    for (_, above, _), (index, level, text) in itertools.pairwise(found):
        if level > above + 1:
            yield Finding(
                "headings", describe(cells[index], index), f"level {above} -> {level}: {text}"
            )
    first = "\n".join(cell.source for cell in cells[:FIRST_CELLS] if cell.cell_type == "markdown")
    if "you will" not in first.lower():
        yield Finding("sections", name, "no 'You will' in the first cells")
    if not re.search(r"<!-- measured -->[^\n]*<!-- /measured -->", first):
        yield Finding("measured", name, "no <!-- measured --><!-- /measured -->")
    # The first notebook shows how the course works; it is not a lesson.
    wanted = SECTIONS if name != FIRST_NOTEBOOK else ("Exercise",)
    positions = []
    for section in wanted:
        place = [i for i, (_, _, text) in enumerate(found) if section.lower() in text.lower()]
        if not place:
            yield Finding("sections", name, f"no heading with '{section}'")
        positions += place[-1:]
    closing = positions[-3:]
    if closing != sorted(closing):
        yield Finding("sections", name, f"the closing sections do not stand in order {wanted[-3:]}")
    if "Check yourself" in wanted and self_test_answers(notebook) < 3:
        yield Finding("self-test", name, f"{self_test_answers(notebook)} folded answers")


def self_test_answers(notebook: NotebookNode) -> int:
    """How many `<details>` follow the heading 'Check yourself', up to the next of its level."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    section = re.search(
        r"^(#+) [^\n]*check yourself[^\n]*\n(.*?)(?=^#{1,2} |\Z)", text, re.M | re.S | re.I
    )
    return section.group(2).count("<details") if section else 0


def publication(notebook: NotebookNode, name: str, address: str) -> Iterator[Finding]:
    """Badges, the address in the set-up cell, paths of one machine."""
    prose = "\n".join(cell.source for cell in notebook.cells[:3] if cell.cell_type == "markdown")
    if badges(name, address) not in prose:
        yield Finding("badges", name, "not the badges that `make badges` writes")
    setups = tagged(notebook, "setup")
    if len(setups) != 1:
        yield Finding("setup", name, f"{len(setups)} cells tagged setup")
    for cell in setups:
        if set(ADDRESS.findall(cell.source)) != {address}:
            yield Finding("setup", name, f"the address is not {address}; run: make badges")
    for index, path in machine_paths(notebook):
        yield Finding("machine path", describe(notebook.cells[index], index), path)


def code(notebook: NotebookNode) -> Iterator[Finding]:
    """Parameters, length of cells, magics and silenced warnings."""
    parameters = tagged(notebook, "parameters")
    if len(parameters) != 1:
        yield Finding("parameters", "notebook", f"{len(parameters)} cells tagged parameters")
    for cell in parameters:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if not all(re.match(r"#|[A-Z][A-Z0-9_]* *=", line) for line in lines):
            yield Finding("parameters", "cell tagged parameters", "a line that does not assign")
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        length = len(cell.source.splitlines())
        if length > LONGEST_CELL:
            yield Finding("length", describe(cell, index), f"{length} lines")
        makes_data = re.search(r"phantoms\.\w+\(DATA_DIR", cell.source)
        if makes_data and "nbval-check-output" in tags(cell):
            yield Finding("data", describe(cell, index), "tagged nbval-check-output")
        magic = re.search(
            r"^\s*[%!]\S.*|get_ipython\(\)|warnings\.(?:filterwarnings|simplefilter)\(.*",
            cell.source,
            re.M,
        )
        if magic:
            yield Finding("magic", describe(cell, index), magic.group().strip())


def outputs(notebook: NotebookNode) -> Iterator[Finding]:
    """Execution counts, stderr, errors."""
    expected = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        where = describe(cell, index)
        expected += 1
        if cell.execution_count != expected:
            yield Finding("executed", where, f"count {cell.execution_count} in place of {expected}")
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                yield Finding("stderr", where, output.text.strip()[:200])
        errors = [output.ename for output in cell.outputs if output.output_type == "error"]
        meant = "raises-exception" in tags(cell)
        if errors and not meant:
            yield Finding("errors", where, f"{errors[0]} without the tag")
        if meant and not errors:
            yield Finding("errors", where, "the tag without an error")


def embedded(output: NotebookNode) -> Iterator[tuple[int, str]]:
    """Bytes and alternative text of each picture in one output, drawn or inside HTML."""
    for mime, data in output.get("data", {}).items():
        if mime == "image/svg+xml":
            yield len(data.encode()), output.metadata.get(mime, {}).get("alt", "")
        elif mime.startswith("image/"):
            yield len(base64.b64decode(data)), output.metadata.get(mime, {}).get("alt", "")
        elif mime == "text/html":
            for image in re.findall(r"<img\b[^>]*>", data):
                content = re.search(r"base64,([A-Za-z0-9+/=]+)", image)
                alt = re.search(r"""\balt=(["'])(.*?)\1""", image, re.S)
                size = len(base64.b64decode(content.group(1))) if content else 0
                yield size, alt.group(2) if alt else ""


def pictures(notebook: NotebookNode) -> Iterator[Finding]:
    """Size and alternative text of every picture, and the text below it."""
    for index, cell in enumerate(notebook.cells):
        found = [picture for output in cell.get("outputs", []) for picture in embedded(output)]
        where = describe(cell, index)
        for size, alt in found:
            if size > LARGEST_PICTURE_BYTES:
                yield Finding("figure size", where, f"{size:,} bytes")
            if not alt.strip():
                yield Finding("alt text", where, "a picture without alternative text")
        following = notebook.cells[index + 1 : index + 2]
        if found and not (following and following[0].cell_type == "markdown"):
            yield Finding("figure text", where, "no text below the picture")


def exercises(notebook: NotebookNode, name: str) -> Iterator[Finding]:
    """Number of exercises; stub, check and solution of each; what its check says as shipped."""
    cells = notebook.cells
    stubs = [i for i, cell in enumerate(cells) if cell in tagged(notebook, "exercise")]
    fewest, most = (1, 1) if name == FIRST_NOTEBOOK else (2, 4)
    if not fewest <= len(stubs) <= most:
        yield Finding("exercises", name, f"{len(stubs)} exercises, wanted {fewest} to {most}")
    checks = tagged(notebook, "check")
    solutions = [c for c in cells if c.cell_type == "markdown" and "solution" in tags(c)]
    if not len(stubs) == len(checks) == len(solutions):
        found = f"{len(stubs)} stubs, {len(checks)} checks, {len(solutions)} solutions"
        yield Finding("exercises", name, found)
    for index in stubs:
        where = describe(cells[index], index)
        if "checks." in cells[index].source:
            yield Finding("exercises", where, "the check belongs in the next cell")
        following = [cell for cell in cells[index + 1 :] if cell.cell_type == "code"]
        if not following or "check" not in tags(following[0]):
            yield Finding("exercises", where, "the next code cell is not tagged check")
        answer = next((c for c in cells[index + 1 :] if "solution" in tags(c)), None)
        try:
            solution_code(answer.source if answer else "")
        except NotebookError as error:
            yield Finding("exercises", where, str(error))
    for cell in checks:
        where = describe(cell, cells.index(cell))
        said = "".join(output.get("text", "") for output in cell.outputs)
        if "not attempted yet" not in said:
            yield Finding("untouched", where, f"the check says: {said.strip()[:100]}")
        if "nbval-check-output" not in tags(cell):
            yield Finding("untouched", where, "not tagged nbval-check-output")
