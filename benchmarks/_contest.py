"""What the side-by-side benchmarks share: parts, rows, how long a pass is, tables, options.

A part is one comparison at one size, a row one contender in it. Each row lives in a worker process
(`_servers.py`) of its environment; all rows of a part take turns. Passes last about as long for
everybody: whoever is quick makes more items.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _checks import Watch
from _harness import compare, print_times, write_json
from _servers import ContenderFailedError, Server, take_turns
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
DATA_DIR = HERE.parent / "data"
PEERS = HERE / ".venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
LIBRARIES = ("monai", "torchio", "grain", "keras-hub")  # of the peers, in files or styles

SIZES = ("small", "medium", "usual", "large")  # all peers take part at the usual one
LOOKED_AT = 2  # items of each contender that are checked voxel by voxel
AHEAD = 4  # items before the clock starts, and after it stops: what a pipeline has made in advance
SLOW_S = 0.1  # of items that take longer, one before the clock and one after it do
VERY_SLOW_S = 1.0  # peers that take longer are timed from the beginning
PROBED = 8  # items that tell how long one takes
MOST = 400  # items of a pass


@dataclasses.dataclass(frozen=True)
class Row:
    """One contender.

    Args:
        file: of the contenders.
        contender: its name there.
        style: what its process is told; "plain" or "tuned", and how many workers it has.
        kind: what its items are, which says how they are checked; see `_checks`.
        spared: by a quick run, which has a minute.
        everywhere: takes part at every size.
        least: items of a pass, at least; 1 for what does one after the other.
        whole: time all of a pass, for a contender that would make it before the clock starts.
        items: of a pass, where their number is given.
        units: what a time of such a pass is divided by.
        ends: items of such a pass that are not timed, at its beginning and at its end.
    """

    file: str
    contender: str
    style: str = "plain"
    kind: str = "drawn"
    spared: bool = False
    everywhere: bool = False
    least: int = 2
    whole: bool = False
    items: int = 0
    units: int = 1
    ends: int = 0

    @property
    def among_peers(self) -> bool:
        """Whether it lives in the environment of the peers."""
        return any(library in f"{self.file} {self.style}" for library in LIBRARIES)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What should come out: at least `factor` times as quick as the quickest of some rows.

    Args:
        factor: below 1, the course may take longer.
        rows: by their whole names.
        against: what they are called together.
    """

    factor: float
    rows: tuple[str, ...]
    against: str


@dataclasses.dataclass(frozen=True)
class Part:
    """One comparison at one size.

    Args:
        letter: to choose it by; several parts may share one.
        title: of the printed table, with places for words of the job.
        name: of its entries in the JSON file, likewise.
        rows: row -> contender, the course's first.
        asked: what should come out.
        item: what a time is for, "a batch" say.
        elements: how many are in an item.
        unit: of the entries; those in plain "ms" share README's large table. Sizes other than the
            usual one have "ms" and the item.
        size: of `SIZES`.
        told: what the workers are told of the size.
    """

    letter: str
    title: str
    name: str
    rows: Mapping[str, Row]
    asked: tuple[Asked, ...] = ()
    item: str = "a batch"
    elements: int = 1
    unit: str = "ms"
    size: str = "usual"
    told: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def ours(self) -> str:
        """The row of the course."""
        return next(iter(self.rows))

    def at(self, size: str, told: Mapping, quick: bool) -> Part:
        """The same at some size, with the rows that take part there."""
        rows = {
            name: row
            for name, row in self.rows.items()
            if (size == "usual" or row.everywhere) and not (quick and row.spared)
        }
        unit = self.unit if size == "usual" else f"ms {self.item}"
        return dataclasses.replace(self, size=size, told=told, rows=rows, unit=unit)


def at_sizes(part: Part, sizes: Mapping[str, Mapping], quick: bool) -> list[Part]:
    """A part at each of its sizes; a quick run has the small one in place of the usual one."""
    if quick:
        return [part.at("usual", sizes["small"], quick)]
    return [part.at(size, told, quick) for size, told in sizes.items()]


class Workers:
    """Worker processes, started when they are first needed; a context ends them all.

    Args:
        job: what they work on.
        peers: interpreter of the environment that has the others.
        apart: whether each contender has a process of its own, or those of one file and style
            share one.
    """

    def __init__(self, job: Mapping, peers: Path, apart: bool = False) -> None:
        self.job, self.peers, self.apart = dict(job), peers, apart
        self.running: dict[tuple, Server] = {}

    def installed(self, row: Row) -> bool:
        """Whether the environment of a row is there."""
        return not row.among_peers or self.peers.exists()

    def start(self, rows: Iterable[Row]) -> None:
        """Start several at a time: their imports take seconds."""
        for row in rows:
            if self._key(row) not in self.running:
                python = self.peers if row.among_peers else sys.executable
                job = self.job | {"style": row.style}
                self.running[self._key(row)] = Server(python, HERE / row.file, job)

    def _key(self, row: Row) -> tuple:
        return (row.file, row.style, *([row.contender] if self.apart else []))

    def __getitem__(self, row: Row) -> Server:
        return self.running[self._key(row)]

    def close(self) -> None:
        """End all of them."""
        for server in self.running.values():
            server.close()
        self.running.clear()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Times(NamedTuple):
    """Milliseconds of an item, and until the first one, of each contender in each round."""

    items_ms: dict[str, list[float]]
    firsts_ms: dict[str, list[float]]


Look = Callable[[str, Row, Sequence[tuple[np.ndarray, ...]]], None]


def extent(row: Row, each_s: float, ask: Callable[..., float], pass_s: float) -> tuple:
    """Items for the clock, so that it runs for `pass_s`, and those before and after it.

    Args:
        row: the contender.
        each_s: seconds that an item took when nothing was warm.
        ask: runs a pass of `count`, `lead` and `trail` items and gives its seconds.
        pass_s: seconds.
    """
    if row.items:
        ask(row.items)  # for caches, compilers and lazy imports
        return row.items, row.ends, row.ends
    if each_s < 5 * SLOW_S:
        each_s = ask(2, 1) / 2  # without the first, which waits for an iterator
    ends = AHEAD if each_s < SLOW_S else 1
    if row.whole or (each_s > VERY_SLOW_S and "ours" not in row.file):
        ends = 0
    if each_s < SLOW_S:
        each_s = ask(PROBED, ends, ends) / PROBED
    count = min(math.ceil(pass_s / each_s), MOST)
    if count <= row.least:
        return row.least, ends * (row.least > 1), ends * (row.least > 1)
    return count + count % 2, ends, ends  # even: two workers have as much to do


def measure(part: Part, workers: Workers, look: Look, rounds: int, pass_s: float) -> Times:
    """Times of each contender in each round, of those that are installed."""
    job = {**workers.job, **part.told}
    present = {name: row for name, row in part.rows.items() if workers.installed(row)}
    workers.start(present.values())
    turns, firsts_ms = {}, {name: [] for name in present}
    with tqdm(total=(rounds + 1) * len(present), desc=part.letter, leave=False) as bar:
        for name, row in present.items():

            def ask(count: int, lead: int = 0, trail: int = 0, row: Row = row) -> float:
                return workers[row].run(row.contender, count, lead, trail, part.told).seconds

            each_s = 0.0
            if row.kind:
                items, each_s = workers[row].keep(row.contender, LOOKED_AT, part.told)
                look(name, row, items)
            sizes = extent(row, each_s, ask, pass_s)
            watch = Watch(name, row.kind, job)

            def turn(name=name, row=row, sizes=sizes, watch=watch):
                one = workers[row].run(row.contender, *sizes, part.told)
                watch.check(one.checksums, sum(sizes))
                firsts_ms[name].append(1000 * one.first_s)
                return 1000 * one.seconds / (row.units if row.items else sizes[0])

            turns[name] = turn
            bar.update()
        return Times(take_turns(turns, rounds, bar.update), firsts_ms)


def report(part: Part, times: Times, job: Mapping) -> list[dict]:
    """Print a part's table and give its entries for the JSON file."""
    times_ms, firsts_ms = times
    words = {
        key: "x".join(map(str, value)) if isinstance(value, (tuple, list)) else value
        for key, value in {**job, **part.told}.items()
    }
    title = part.title.format(**words)
    if part.ours not in times_ms:
        print(f"\n{title}: not installed")
        return []
    medians = {name: statistics.median(several) for name, several in times_ms.items()}
    each_us = {name: 1000 * median / part.elements for name, median in medians.items()}
    firsts = {name: statistics.median(several) for name, several in firsts_ms.items()}
    columns = {"us an element": each_us, "first item, ms": firsts}
    print_times(f"{title}: ms {part.item}", list(part.rows), times_ms, part.ours, columns)
    for asked in part.asked:
        beside = {name: medians[name] for name in asked.rows if name in medians}
        if beside:
            quickest = min(beside, key=beside.get)
            print(
                f"  asked for: at least {asked.factor:.3g} x {asked.against}; came out: "
                f"{beside[quickest] / medians[part.ours]:.2f} x ({quickest})"
            )
    entries = compare(part.name.format(**words), times_ms, part.ours)
    return [one | {"unit": part.unit} for one in entries]


def arguments(description: str, letters: str) -> argparse.ArgumentParser:
    """The options that these benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a small run, within a minute")
    parser.add_argument("--parts", default=letters, help=f"which to run (default {letters})")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES, help="(default all)")
    parser.add_argument("--rounds", type=int, help="of each part (default 5, quick 2)")
    parser.add_argument("--json", type=Path, help="also write the comparisons to this file")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where input is kept")
    parser.add_argument("--peers", type=Path, default=PEERS, help="Python that has the peers")
    return parser


def run(
    options: argparse.Namespace,
    parts: Sequence[Part],
    workers: Workers,
    contest: Callable[[Part, int, float], list[dict]],
) -> list[dict]:
    """Go through the parts that are asked for, and write the JSON file.

    Args:
        options: of `arguments`.
        parts: in their order.
        workers: whoever takes part.
        contest: measures one part in so many rounds, with passes of so many seconds, and reports.

    Raises:
        SystemExit: if a contender fails.
    """
    rounds, pass_s = options.rounds or (2 if options.quick else 5), 0.05 if options.quick else 0.2
    entries, letter = [], ""
    for part in parts:
        if part.letter not in options.parts.upper() or part.size not in options.sizes:
            continue
        if letter != part.letter and not options.quick:
            workers.close()  # the next part begins with fresh memory
        letter = part.letter
        try:
            entries += contest(part, rounds, pass_s)
        except ContenderFailedError as error:
            raise SystemExit(str(error)) from error
        sys.stdout.flush()
    if not options.peers.exists():
        print(f"\n{options.peers} is missing: README.md says how to install the peers")
    if options.json:
        write_json(options.json, entries)
    return entries
