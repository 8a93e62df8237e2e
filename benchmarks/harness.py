"""What all benchmarks here share: rows and parts, turns, statistics, tables, JSON, options.

A part is one comparison at one size, a row one contender in it. Each row lives in a worker process
of its environment (worker.py); all rows of a part take turns. Passes last about as long for
everybody: whoever is quick makes more items.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm
from worker import ROOT, ContenderFailedError, Worker

DATA_DIR = ROOT / "data"
PEERS = ROOT / "benchmarks/.venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
AMONG_PEERS = ("monai", "torchio", "grain", "dicomsdl", "keras_hub")  # modules of contenders/
MISSING = [f"No module named '{package}'" for package in (*AMONG_PEERS, "torch", "itk")]
ONE_BY_ONE = ("monai", "torchio", "scipy", "simpleitk")  # without workers or threads

SIZES = ("small", "medium", "usual", "large")  # all peers take part at the usual one
LOOKED_AT = 2  # items of each contender that are checked voxel by voxel
AHEAD = 4  # items before the clock starts, and after it stops: what a pipeline has made in advance
SLOW_S = 0.1  # of items that take longer, one before the clock and one after it do
VERY_SLOW_S = 1.0  # peers that take longer are timed from the beginning
PROBED = 8  # items that tell how long one takes
MOST = 400  # items of a pass


@dataclasses.dataclass(frozen=True)
class Row:
    """One contender."""

    contender: str  # "module.function" in contenders/
    settings: Mapping[str, object]  # arguments of the function
    kind: str = "crops"  # of its items, which says how they are checked: see checks.py
    everywhere: bool = False  # takes part at every size
    look: str = ""  # how its items are looked at inside the clock: see `worker.timed`
    whole: bool = False  # time all of a pass: it would make it before the clock starts
    items: int = 0  # of a pass, where their number is given
    units: int = 1  # what a time of such a pass is divided by
    ends: int = 0  # items of such a pass that are not timed, at its beginning and at its end
    process: str = ""  # rows that name the same one share it; otherwise each has its own

    @property
    def module(self) -> str:
        return self.contender.partition(".")[0]


OWN = {field.name for field in dataclasses.fields(Row)}


def row(contender: str, **words: object) -> Row:
    """A row; whatever is no field of it is a setting of the contender."""
    settings = {word: value for word, value in words.items() if word not in OWN}
    return Row(contender, settings, **{word: words[word] for word in OWN & {*words}})


@dataclasses.dataclass(frozen=True)
class Part:
    """One comparison at one size."""

    letter: str  # to choose it by; several parts may share one
    name: str  # of its entries in the JSON file, with places for words of the job
    rows: Mapping[str, Row]  # the course's first
    workload: Callable[[Path, Mapping], Mapping]  # makes the input; what workers are told beside
    item: str = "a batch"  # what a time is for
    elements: int = 1  # in an item
    unit: str = "ms"  # of the entries; plain "ms" are README's large table
    size: str = "usual"
    told: Mapping[str, object] = dataclasses.field(default_factory=dict)  # of the size
    after: Callable[[], object] = bool  # looks at what a pass leaves behind, outside of the clock

    @property
    def ours(self) -> str:
        return next(iter(self.rows))

    def but(self, **changes: object) -> "Part":
        return dataclasses.replace(self, **changes)

    def job(self, data_dir: Path) -> dict:
        """What the workers are told; the input is made unless it is there."""
        return {**self.told, **self.workload(data_dir, self.told)}


def at_sizes(part: Part, sizes: Mapping[str, Mapping], options: argparse.Namespace) -> list[Part]:
    """A part at those of its sizes that are asked for; short runs have one, as the usual one."""
    if options.short:
        rows = {name: one for name, one in part.rows.items() if "workers" not in one.settings}
        return [part.but(rows=rows, told=sizes["smoke" if options.smoke else "small"])]
    made = []
    for size in SIZES:
        if size in options.sizes and size in sizes:
            usual = size == "usual"
            rows = {name: one for name, one in part.rows.items() if usual or one.everywhere}
            unit = part.unit if usual else f"ms {part.item}"
            made.append(part.but(rows=rows, unit=unit, size=size, told=sizes[size]))
    return made


class NotInstalledError(ContenderFailedError):
    """There is no environment of the peers, or it lacks a package."""


class Workers:
    """Worker processes, started when they are first needed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.peers, self.shared = options.peers, options.short
        self.running: dict[object, Worker] = {}

    def start(self, one: Row) -> Worker | None:
        """The worker of a row, or None without its environment."""
        key = one.contender, json.dumps(one.settings)
        if one.process or self.shared:  # some settings hold for a whole process
            key = one.process or (one.module, one.settings.get("tuned"))
        if key not in self.running:
            python = self.peers if one.module in AMONG_PEERS else Path(sys.executable)
            if not (python and python.exists()):
                return None
            self.running[key] = Worker(python)
        return self.running[key]

    def ask(self, one: Row, action: str, job: Mapping, **more: object) -> dict:
        """Ask the worker of a row (see `worker.Contenders.answer`), or `NotInstalledError`."""
        worker = self.start(one)
        if not worker:
            raise NotInstalledError(f"{self.peers} is missing")
        try:
            question = {"action": action, "settings": one.settings, "job": job, **more}
            return worker.ask(one.contender, **question)
        except ContenderFailedError as error:
            if one.module in AMONG_PEERS and any(words in str(error) for words in MISSING):
                raise NotInstalledError(str(error)) from error
            raise

    def close(self) -> None:
        while self.running:
            self.running.popitem()[1].close()


def extent(one: Row, each_s: float, ask: Callable[..., dict], pass_s: float) -> tuple:
    """Items for the clock, so that it runs for `pass_s`, and those before and after it.

    `each_s` is what an item took when nothing was warm; `ask` runs a pass of so many.
    """
    if one.items:
        ask(one.items)  # for caches, compilers and lazy imports
        return one.items, one.ends, one.ends
    if each_s < 5 * SLOW_S:
        each_s = ask(2, 1)["seconds"] / 2  # without the first, which waits for an iterator
    ends = AHEAD if each_s < SLOW_S else 1
    if one.whole or (each_s > VERY_SLOW_S and "ours" not in one.module):
        ends = 0
    if each_s < SLOW_S:
        each_s = ask(PROBED, ends, ends)["seconds"] / PROBED
    helped = not {"workers", "threads"}.isdisjoint(one.settings)
    if each_s > VERY_SLOW_S and one.module in ONE_BY_ONE and not helped:
        return 1, 0, 0
    count = min(math.ceil(pass_s / each_s), MOST)
    return max(count + count % 2, 2), ends, ends  # even: two workers have as much to do


def measure(part: Part, job: Mapping, workers: Workers, options) -> dict[str, list[tuple]]:
    """For each contender that is installed: ms of an item, and until the first one, in each round.

    Whoever has not done its work is a `ContenderFailedError`.
    """
    for one in part.rows.values():
        workers.start(one)  # several at a time: their imports take seconds
    turns, rounds = {}, 1 + options.rounds
    bar = tqdm(total=len(part.rows) * rounds, desc=part.letter, leave=False, disable=None)
    for name, one in part.rows.items():

        def ask(count: int, lead: int = 0, trail: int = 0, one: Row = one) -> dict:
            sizes = {"count": count, "lead": lead, "trail": trail, "look": one.look}
            found = workers.ask(one, "time", job, kind=one.kind, **sizes)
            part.after()
            return found

        bar.update()
        with contextlib.suppress(NotInstalledError):
            looked = workers.ask(one, "look", job, kind=one.kind, count=LOOKED_AT)
            part.after()
            sizes = extent(one, looked["seconds"], ask, options.pass_s)

            def turn(one=one, sizes=sizes, ask=ask) -> tuple[float, float]:
                found = ask(*sizes)
                units = one.units if one.items else sizes[0]
                return 1000 * found["seconds"] / units, 1000 * found["first_s"]

            turns[name] = turn
    with contextlib.closing(bar):
        return take_turns(turns, options.rounds, bar.update)


def take_turns(contenders: Mapping[str, Callable], rounds: int, tick: Callable) -> dict[str, list]:
    """Ask every contender once a round, each round beginning with another; one runs at a time."""
    turns: dict[str, list] = {name: [] for name in contenders}
    names = list(contenders)
    for first in range(rounds):
        # Another order in each round: nobody always runs in the wake of the same neighbour.
        for number in range(len(names)):
            name = names[(first + number) % len(names)]
            turns[name].append(contenders[name]())
            tick()
    return turns


def entry(name: str, value: float, unit: str, against: str, against_value: float) -> dict:
    """One comparison where less is better; `ratio` above 1 means that `value` is ahead."""
    both = {"value": round(value, 4), "unit": unit, "against": against}
    both |= {"against_value": round(against_value, 4), "ratio": round(against_value / value, 3)}
    return {"name": name, **both}


def digits(value: float) -> str:
    """Three of them, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show(title: str, columns: Mapping[str, Mapping[str, float]], rows: Iterable[str]) -> None:
    """Print a table: heading -> row -> number; rows without numbers are not installed."""
    table = pd.DataFrame(columns)
    print(f"\n{title}\n{table.to_string(float_format=digits, na_rep='')}")
    if missing := [name for name in rows if name not in table.index]:
        print(f"not installed: {', '.join(missing)}")
    sys.stdout.flush()


def report(part: Part, turns: Mapping[str, list], job: Mapping, more=None) -> list[dict]:
    """Print a part's table and give its entries for the JSON file.

    `turns` are those of `measure`, `more` further columns: heading -> row -> number.
    """
    words = {
        k: "x".join(map(str, v)) if isinstance(v, (tuple, list)) else v for k, v in job.items()
    }
    name, times = part.name.format(**words), {who: [ms for ms, _ in v] for who, v in turns.items()}
    medians = {who: float(np.median(several)) for who, several in times.items()}
    ours = medians.get(part.ours, math.nan)
    columns = {
        "median ms": medians,
        "least": {who: min(several) for who, several in times.items()},
        "most": {who: max(several) for who, several in times.items()},
        f"x {part.ours}": {who: ms / ours for who, ms in medians.items()},
        "us an element": {who: 1000 * ms / part.elements for who, ms in medians.items()},
        "first item, ms": {who: np.median([first for _, first in v]) for who, v in turns.items()},
    }
    title = f"{part.letter}. {name} ({part.size}), ms {part.item}"
    show(title, columns | dict(more or {}), part.rows)
    medians.pop(part.ours, None)
    return [entry(name, ours, part.unit, who, ms) for who, ms in medians.items() if ours == ours]


def arguments(description: str, letters: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a small run, within a minute")
    parser.add_argument("--smoke", action="store_true", help="once, tiny; peers if they are named")
    parser.add_argument("--parts", default=letters, help=f"which to run (default {letters})")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES, help="(default all)")
    parser.add_argument("--rounds", type=int, help="of each part (default 5, quick 2, smoke 1)")
    parser.add_argument("--json", type=Path, help="also write the comparisons to this file")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where input is kept")
    parser.add_argument("--peers", type=Path, help=f"Python that has the peers (default {PEERS})")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options that were given, with what follows from them."""
    options = parser.parse_args()
    options.short = options.quick or options.smoke
    options.rounds = options.rounds or (1 if options.smoke else 2 if options.quick else 5)
    options.pass_s = 0.001 if options.smoke else 0.05 if options.quick else 0.2
    options.peers = options.peers or (None if options.smoke else PEERS)
    return options


def compare(part: Part, workers: Workers, options: argparse.Namespace) -> list[dict]:
    """Measure a part and report it."""
    job = part.job(options.data_dir)
    return report(part, measure(part, job, workers, options), job)


def run(options: argparse.Namespace, parts: Iterable[Part], compare=compare) -> list[dict]:
    """Compare the parts that are asked for, write the JSON file; a contender may end the run."""
    entries, letter = [], ""
    with contextlib.closing(Workers(options)) as workers:
        for part in parts:
            if part.letter not in options.parts.upper():
                continue
            if letter != part.letter and not options.short:
                workers.close()  # the next part begins with fresh memory
            letter = part.letter
            try:
                entries += compare(part, workers, options)
            except ContenderFailedError as error:
                raise SystemExit(str(error)) from error
    if options.peers and not options.peers.exists():
        print(f"\n{options.peers} is missing: README.md says how to install the peers")
    if options.json:
        options.json.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return entries
