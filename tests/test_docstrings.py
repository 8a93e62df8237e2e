"""Whoever reads a public function learns its arguments, an example that works, and its lesson."""

import ast
import doctest
import importlib
import re

import pytest

from tools import cells, size

# What is held to the rules: entries of helpers/, a package with all its modules, or single modules.
NEW = size.REBUILT
ENTRIES = {entry for row in NEW for entry in row.split() if not entry.startswith("lesson/")}
HELD = tuple(ENTRIES - {"__main__", "commands"})
LESSONS = {path.stem.split("_", 1)[1].replace("_", " ") for path in cells.notebook_paths()}


def is_held(path) -> bool:
    module = path.relative_to(cells.ROOT / "helpers").with_suffix("")
    return not {module.as_posix(), module.parts[0]}.isdisjoint(HELD)


MODULES = [path for path in size.rebuilt() if is_held(path)]


def lessons(line: str) -> list[str]:
    """The lessons that a docstring's last line names; of `no lesson; ...` none."""
    said = line.removeprefix("Taught in: ")
    return [] if said.startswith("no lesson") else [one.strip() for one in said.split(",")]


def arguments(function: ast.FunctionDef) -> list[str]:
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [one.arg for one in every if one and one.arg not in ("self", "cls")]


def public(body: list[ast.stmt]) -> list[ast.stmt]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [one for one in body if isinstance(one, kinds) and not one.name.startswith("_")]


def findings(source: str) -> list[str]:
    """What the docstrings of a module leave out, a line each."""
    found = []
    for one in public(ast.parse(source).body):
        text = ast.get_docstring(one) or ""
        last = text.splitlines()[-1] if text else ""
        if not last.startswith("Taught in: "):
            found.append(f"{one.name}: its last line is no `Taught in: ...`: {last!r}")
        else:
            unknown = [name for name in lessons(last) if name.lower() not in LESSONS]
            found += [f"{one.name}: there is no lesson {name!r}" for name in unknown]
        members = one.body if isinstance(one, ast.ClassDef) else []
        documented = [(one.name, text, one)] if isinstance(one, ast.FunctionDef) else []
        for member in members:
            if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                documented.append((one.name, text + (ast.get_docstring(member) or ""), member))
        for name, said, function in documented:
            silent = [a for a in arguments(function) if not re.search(rf"\b{a}\b", said)]
            found += [f"{name}: nothing is said of `{argument}`" for argument in silent]
        for member in public(members):
            if not ast.get_docstring(member):
                found.append(f"{one.name}.{member.name}: no docstring")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_public_docstring_says_what_everything_is_and_where_it_is_taught(path):
    found = findings(path.read_text(encoding="utf-8"))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_examples_in_docstrings_give_what_they_say(path):
    if ">>>" in path.read_text(encoding="utf-8"):
        name = ".".join(path.relative_to(cells.ROOT).with_suffix("").parts)
        assert doctest.testmod(importlib.import_module(name.removesuffix(".__init__"))).failed == 0


GOOD = '''
def crop(image, start, *, size=3):
    """Cut `size` voxels from `start`.

    Args:
        image: [z, y, x].

    Taught in: augmentation, loading DICOM
    """

class Reader:
    """Reads from `folder`.

    Taught in: no lesson; the converter uses it
    """
    def __init__(self, folder): ...

    def next(self):
        """The next one."""

    def _hidden(self, how): ...

def _hidden(what): ...
'''


@pytest.mark.parametrize(
    "change, said",
    [
        (("", ""), None),
        (("    Taught in: augmentation, loading DICOM\n", ""), "crop: its last line"),
        (("Taught in: no lesson", "Known from: no lesson"), "Reader: its last line"),
        (("loading DICOM", "charming snakes"), "there is no lesson 'charming snakes'"),
        (("size=3", "shape=3"), "nothing is said of `shape`"),
        (("start, *", "start, *starts"), "nothing is said of `starts`"),
        (("`folder`", "a place"), "nothing is said of `folder`"),
        (('"""The next one."""', "..."), "Reader.next: no docstring"),
        (('"""Reads from `folder`.', '"""'), "nothing is said of `folder`"),
    ],
)
def test_what_a_docstring_leaves_out_is_named(change, said):
    assert change[0] in GOOD
    found = findings(GOOD.replace(*change, 1))
    assert not found if said is None else any(said in one for one in found), found
