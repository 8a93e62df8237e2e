"""How large the course is, beside what it may be.

    python -m tools.size        a table; the exit code is 1 if a row is too large

A line counts if it holds code: no docstring, no comment, no blank line. Tokens are counted in these
lines; many tokens a line mean that lines were saved at the reader's cost. A larger budget is a
decision: it is changed here, in a commit that says why.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tools.cells import ROOT, read

# Modules and packages of helpers/, and their budget in lines of code.
REBUILT = {
    "errors": 80,
    "__init__ quiet": 40,
    "volume intensity": 160,
    "dicom": 730,
    # After three rewrites: two affines of NIfTI, paths and words of data lists, JPEG segments that
    # name people, masks in parts. Files in the field ask for these rules.
    "nifti pictures lists splits leaks cases": 580,
    # The draft of 480 held the writer and the manifest alone, not schema, reader and frames.
    "records": 700,
    "__main__ commands": 250,
    # The drafts of 900, on lines that can be read, take 1,080. Presets stand a transform a line.
    "stage augment crops sampling labels": 1090,
    # The draft of 370 had no loaders that fail by name, and no caches that change meanwhile.
    "memory smart_cache pipeline": 470,
    "deeplab predict evaluation": 430,
    "timing": 310,
    # The draft of 350 has 13 tokens a line, no logarithmic axis and no volume stored otherwise.
    "lesson/show": 460,
    # Planned with 60: five decoders are tried on files, and every fault has its advice.
    "lesson/doctor lesson/__init__": 80,
}
# Not rebuilt yet: the present size, rounded up. It may only fall.
PRESENT = {
    "lesson/checks": 1720,
    # Of exercises that the coming lessons replace.
    "lesson/checks/scaling lesson/checks/speed lesson/checks/datasets": 640,
    "lesson/phantoms": 2290,
}
# Whole files, blank lines and docstrings included.
RAW = {"tests": 12870, "benchmarks": 3410, "tools": 1580}

SLACK = 1.1
MOST_TOKENS_A_LINE = 11
FORMULAS = {"stage augment crops sampling labels": 11.5}  # over arrays; their drafts have 14
MOST_ENTRIES = 26  # in helpers/, once everything is rebuilt
NOISE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}
# Python takes an f-string apart from 3.12 on; it counts as one token everywhere.
F_START, F_END = (getattr(tokenize, f"FSTRING_{end}", None) for end in ("START", "END"))
WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code(source: str) -> Counter:
    """Lines and tokens of some Python, without docstrings, comments and blank lines."""
    documented = set()
    for one in ast.walk(ast.parse(source)):
        if isinstance(one, WITH_DOCSTRING) and ast.get_docstring(one, clean=False) is not None:
            documented.update(range(one.body[0].lineno, one.body[0].end_lineno + 1))
    lines, tokens, inside = set(), 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        here = set(range(token.start[0], token.end[0] + 1)) - documented
        if token.type not in NOISE and here:
            lines |= here
            tokens += not inside
        inside += (token.type == F_START) - (token.type == F_END)
    return Counter(lines=len(lines), tokens=tokens)


def python(folder: Path) -> Iterator[Path]:
    """The modules in a folder, those in hidden ones (an environment) left out."""
    for path in sorted(folder.rglob("*.py")):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def total(paths) -> Counter:
    """Lines and tokens of several modules together."""
    return sum((code(path.read_text(encoding="utf-8")) for path in paths), Counter())


def lessons(root: Path) -> Counter:
    """Lines and tokens of the notebooks' code cells."""
    cells = (cell for path in (root / "notebooks").glob("*.ipynb") for cell in read(path).cells)
    return sum((code(cell.source) for cell in cells if cell.cell_type == "code"), Counter())


def row_of(module: str) -> str | None:
    """The row of the tables above that a module or package of helpers/ belongs to."""
    rows = {**REBUILT, **PRESENT}
    return next((row for row in rows if any(fnmatchcase(module, p) for p in row.split())), None)


def modules(root: Path) -> dict[Path, str]:
    """The modules of helpers/, each with its entry there; those of lesson/ with theirs in it."""
    folder = root / "helpers"
    paths = {one: one.relative_to(folder).with_suffix("").parts for one in python(folder)}
    names = {k: "/".join(v[: 2 if v[0] == "lesson" else 1]) for k, v in paths.items()}
    leaving = {k: "/".join(v) for k, v in paths.items() if row_of("/".join(v))}
    return names | leaving


def rebuilt(root: Path = ROOT) -> list[Path]:
    """The modules that are new, and whose docstrings are held to the rules."""
    return [path for path, name in modules(root).items() if row_of(name) in REBUILT]


def shared_names(root: Path) -> dict[str, list[Path]]:
    """Names that two or more modules have: whoever reads about one finds the other."""
    named: dict[str, list[Path]] = {}
    for path in modules(root):
        named.setdefault(path.name, []).append(path)
    return {k: paths for k, paths in named.items() if len(paths) > 1 and k != "__init__.py"}


def too_large(row: str, size: Counter, budget: int) -> Iterator[str]:
    """What is wrong with the size of a row."""
    most = SLACK * budget if row in REBUILT else budget
    if size["lines"] > most:
        yield f"{row}: {size['lines']:,} lines, budget {budget:,}"
    if row in REBUILT and size["tokens"] > FORMULAS.get(row, MOST_TOKENS_A_LINE) * size["lines"]:
        yield f"{row}: {size['tokens'] / size['lines']:.1f} tokens a line: write it plainer"


def measure(root: Path = ROOT) -> tuple[list[str], list[str]]:
    """The table, line by line, and what is wrong."""
    found = modules(root)
    table, wrong = [f"{'':40}  lines  tokens  a line  budget"], []

    def line(row: str, size: Counter, budget: int | str = "") -> None:
        name = row if len(row) <= 40 else f"{row[:37]}..."
        each = size["tokens"] / max(size["lines"], 1)
        table.append(f"{name:40} {size['lines']:6,}  {size['tokens']:6,}  {each:6.1f}  {budget:>6}")

    for row, budget in {**REBUILT, **PRESENT}.items():
        size = total(path for path, name in found.items() if row_of(name) == row)
        line(row, size, f"{budget:,}" if row in REBUILT else f"<{budget:,}")
        wrong += too_large(row, size, budget)
    every = total(found)
    line("helpers", every)
    for folder in ("tests", "benchmarks", "tools", "studies"):
        paths = list(python(root / folder))
        raw = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
        line(f"{folder} ({raw:,} raw)", total(paths), f"<{RAW[folder]:,}" if folder in RAW else "")
        every += total(paths)
        wrong += too_large(f"{folder}, raw", Counter(lines=raw), RAW.get(folder, raw))
    taught = lessons(root)
    line("notebooks", taught)
    line("all of it", every + taught)
    entries = {name.split("/")[0] for name in found.values()} - {"__init__", "__main__"}
    table.append(f"{len(entries)} entries in helpers/; {MOST_ENTRIES} at most in the end")
    for name in sorted({*found.values()}):
        if row_of(name) is None:
            wrong.append(f"helpers/{name}: belongs to no row of tools/size.py")
    for name, paths in shared_names(root).items():
        said = f"{name}: {' and '.join(path.relative_to(root).as_posix() for path in paths)}"
        if any(row_of(found[path]) in REBUILT for path in paths):
            wrong.append(f"one name for two modules: {said}")
        else:
            table.append(f"one name for two, until one is rebuilt: {said}")
    return table, wrong


def main() -> int:
    """The command line; returns the exit code."""
    table, wrong = measure()
    print(*table, *(f"✗ {one}" for one in wrong), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
