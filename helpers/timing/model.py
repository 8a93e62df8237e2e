"""What TensorFlow's own model of a running pipeline has counted, stage by stage.

TensorFlow keeps a clock for every dataset of an iterator, for the tuning of its parameters. A clock
runs while a thread is inside that dataset's own code, so time spent in its inputs is not counted,
nor is waiting for them or for room in a buffer. It is time on the wall: a function that waits for
the disk, for a core or for Python's lock is at work as far as this clock can tell.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

# These make a new iterator of their input, or of the datasets of their function, again and again.
REPEATING = {"Repeat", "ShuffleAndRepeat"}
NESTING = {"Interleave", "FlatMap"}
SPELLED = {
    "TFRecord": "tf_record",
    "Tensor": "from_tensors",
    "TensorSlice": "from_tensor_slices",
}
LOOK_COST = 0.05  # of the time at most goes into looking at the model


@dataclass
class Node:
    """One dataset of the pipeline as it runs; iterators of one dataset count as one node.

    Args:
        operation: TensorFlow's name of it, "ParallelMapV2" say.
        inputs: nodes that it reads from; of a dataset of datasets first its source.
        nested: one of the datasets that a function gave.
        calls, seconds: elements that it gave, and time that its clock ran, since the start.
        parallelism: calls at a time.
        buffered_bytes: at the highest.
    """

    operation: str
    nested: bool = False
    inputs: dict[tuple, Node] = field(default_factory=dict)
    calls: float = 0
    seconds: float = 0.0
    parallelism: int = 1
    buffered_bytes: int = 0

    @property
    def kind(self) -> str:
        """The operation without versions and variants: "Map" for "ParallelMapV2"."""
        return kind(self.operation)

    @property
    def children(self) -> list[Node]:
        return list(self.inputs.values())


def kind(name: str) -> str:
    """What a dataset does, from the name of its operation or of its Python class."""
    name = re.sub(r"(V\d+)?(Dataset)?(V\d+)?$", "", name.lstrip("_"))
    name = re.sub(r"^(Legacy)?(Parallel|Finite|Forever|Memory|File|Anonymous)+(?=[A-Z])", "", name)
    return {"FromTensor": "Tensor", "CacheImpl": "Cache"}.get(name, name)


def plain(kind: str) -> str:
    """What a dataset does as the program writes it: "flat_map" for "FlatMap"."""
    return SPELLED.get(kind) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


class Model:
    """Adds up what the clocks of a dataset's iterators count from look to look."""

    def __init__(self) -> None:
        self.root = Node("Root")
        self.cores = 1
        self.filling = False  # a cache still reads from its input
        self._seen: dict[int, tuple[int, int]] = {}
        self._next_look = 0.0

    def begin(self, iterator) -> None:
        """Go on with a new iterator, of which nothing was read."""
        self._seen = {}
        self.look(iterator, count=False)

    def look(self, iterator, *, count: bool = True) -> None:
        """Read the clocks; what they count before a look without `count` is left out.

        Raises:
            tf.errors.NotFoundError: if the dataset runs without autotuning, so without a model.
        """
        import tensorflow as tf

        start = time.perf_counter()
        proto = tf.data.experimental.get_model_proto(iterator)
        self.cores = int(proto.optimization_params.cpu_budget) or self.cores
        seen: dict[int, tuple[int, int]] = {}
        self.filling = False
        self._add(proto, proto.nodes[proto.output], self.root, seen, count)
        self._seen = seen
        now = time.perf_counter()
        self._next_look = now + (now - start) / LOOK_COST

    def glance(self, iterator) -> None:
        """A look, unless looks would take more than a small part of the time."""
        if time.perf_counter() >= self._next_look:
            self.look(iterator)

    def _add(self, proto, found, node: Node, seen: dict, count: bool) -> None:
        before = self._seen.get(found.id, (0, 0))
        seen[found.id] = found.num_elements, found.processing_time
        if count:
            node.seconds += max(0, found.processing_time - before[1]) / 1e9
            if not found.name.endswith("Impl"):  # an iterator inside of the node's own
                node.calls += max(0, found.num_elements - before[0])
        parameters = {p.name: int(p.value) for p in found.parameters}
        together = parameters.get("parallelism", 0)
        if found.name.startswith("LegacyParallel"):
            together = parameters.get("cycle_length", 1)
        node.parallelism = max(1, together) if together else node.parallelism
        if count:
            node.buffered_bytes = max(node.buffered_bytes, found.buffered_bytes)
        for place, number in enumerate(found.inputs):
            if number not in proto.nodes:
                continue
            below = proto.nodes[number]
            if below.name.endswith("Impl"):
                self.filling |= node.kind == "Cache" and bool(below.inputs)
                self._add(proto, below, node, seen, count)
                continue
            # Iterators of one nested dataset come and go: they are one node, whatever their place.
            key = (below.name,) if node.kind in NESTING else (below.name, place)
            if key not in node.inputs:
                # What is there before anything was read is the source, the rest a function gave.
                nested = node.kind in NESTING and bool(node.inputs)
                node.inputs[key] = Node(below.name, nested)
            self._add(proto, below, node.inputs[key], seen, count)


def complete(node: Node, factor: float = 1.0) -> None:
    """Make up for iterators that ended between two looks, and took their clocks with them.

    What is below a `repeat` or an `interleave` gives as many elements as that gave; if fewer were
    seen, the rest is taken to have cost the same.
    """
    node.calls *= factor
    node.seconds *= factor
    renewed = node.children if node.kind in REPEATING else [x for x in node.children if x.nested]
    seen = sum(x.calls for x in renewed)
    scale = max(1.0, node.calls / seen) if seen else 1.0
    for child in node.children:
        complete(child, scale if child in renewed else factor)
