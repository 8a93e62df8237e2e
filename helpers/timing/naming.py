"""Which dataset of the program is which node of the pipeline that TensorFlow made of it."""

from __future__ import annotations

from collections.abc import Iterator

from helpers.timing.model import Node, kind, plain

# Written in the program, but nothing that runs; and what the optimiser puts in of its own accord.
ADDED = {"Prefetch"}
PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


class Named:
    """What the program says of a node.

    Args:
        name: given with `name=`, or what the dataset does; of a fused one, both names.
        given: with `name=`.
        added: by TensorFlow; the program does not have it.
        python: its function calls Python.
    """

    def __init__(
        self, name: str, given: bool = False, added: bool = False, python: bool = False
    ) -> None:
        self.name, self.given, self.added, self.python = name, given, added, python


def names(dataset, root: Node) -> dict[int, Named]:
    """Go through program and pipeline side by side, from the result to the sources.

    Datasets know their inputs and names by attributes that TensorFlow does not promise. Without
    them, and for datasets inside of a function, a node is called after what it does.

    Args:
        dataset: as the program made it.
        root: of the pipeline that runs.

    Returns:
        `id(node)` -> what is known, for every node below the root.
    """
    found: dict[int, Named] = {}
    for child in root.children:
        _match(dataset, child, found)
    _fill(root, found)
    return found


def _match(dataset, node: Node, found: dict[int, Named]) -> None:
    chain = list(_chain(dataset))
    wanted = node.kind.split("And")[::-1]  # a "MapAndBatch" is a batch that reads from a map
    for place in range(len(chain)):
        fused = chain[place : place + len(wanted)]
        if [kind(type(x).__name__) for x in fused] != wanted:
            continue
        parts = [_given(x) or plain(kind(type(x).__name__)) for x in reversed(fused)]
        found[id(node)] = Named(
            " + ".join(parts),
            given=any(_given(x) for x in fused),
            python=any(_calls_python(x) for x in fused),
        )
        inputs = _inputs(fused[-1])
        # Of an interleave only the source is in the program; the rest its function makes.
        children = [x for x in node.children if not x.nested]
        if len(inputs) == len(children):
            for below, child in zip(inputs, children, strict=True):
                _match(below, child, found)
        elif inputs and children:
            _match(inputs[0], children[0], found)
        return
    found[id(node)] = Named(plain(node.kind), added=bool(chain) and node.kind in ADDED)
    children = [x for x in node.children if not x.nested]
    if len(children) == 1:
        _match(dataset, children[0], found)


def _chain(dataset) -> Iterator:
    """The dataset and its inputs, as far down as there is one input each, and what ends it."""
    while dataset is not None:
        yield dataset
        inputs = _inputs(dataset)
        dataset = inputs[0] if len(inputs) == 1 else None


def _fill(node: Node, found: dict[int, Named]) -> None:
    for child in node.children:
        found.setdefault(id(child), Named(plain(child.kind)))
        _fill(child, found)


def _inputs(dataset) -> list:
    try:
        return list(dataset._inputs())
    except (AttributeError, TypeError, NotImplementedError):
        return []


def _given(dataset) -> str | None:
    return getattr(dataset, "_name", None)


def _calls_python(dataset) -> bool:
    function = getattr(getattr(dataset, "_map_func", None), "function", None)
    graph = getattr(function, "graph", None)
    return graph is not None and any(x.type in PYTHON for x in graph.get_operations())
