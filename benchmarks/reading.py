"""Reading: how long does a batch take from memory, from records, from NIfTI, here and elsewhere?

    .venv/bin/python benchmarks/reading.py [--quick] [--parts ABCDEFG] [--json PATH]
                                           [--picture PATH]

Runs in the course's own environment, which has TensorFlow, and asks the peers in benchmarks/.venv,
which has PyTorch and Grain: each contender has a worker process and runs when it is its turn. The
workload is that of a benchmark published in 2018, batches of 5 x 128x224x224 float32. Parts:

A  random crops from volumes in memory, beside the copies that they come down to
B  stored crops from records and other files in the page cache, and from float_list of 2018
C  random crops from compressed NIfTI files
D  an epoch of training with a smart cache that loads in the background
E  `pipeline.segmentation` beside the same stages by hand
F  what a record costs, of 10, 100 and 1,000
G  what a Timeline costs that records when stages work

README.md says how it is kept fair.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

import _tuning_checks
import _tuning_epochs
from _harness import compare, entry, print_times, write_json
from _servers import ContenderFailedError, Running, Server, take_turns
from _sizes import scratch
from _tuning_inputs import QUICK, RECORDS_TOGETHER, Sizes, make_job, write_counted
from _tuning_parts import PARTS, Part, Row
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
DATA_DIR = HERE.parent / "data"
PEERS = HERE / ".venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
LOOKED_AT = 2  # batches of each contender that are checked voxel by voxel


class Workers(Running):
    """Worker processes, one for each contender; a context ends them all.

    In a quick run contenders share a process where they can, because each takes seconds to start.
    """

    def installed(self, row: Row) -> bool:
        """Whether the environment of a row is there."""
        return not row.among_peers or self.peers.exists()

    def told(self, row: Row) -> dict[str, object]:
        """What its process is told."""
        return dict(self.job) | {"style": row.style, "batches": self.job[row.pace]}

    def start(self, rows: Mapping[str, Row], also: Mapping[str, object] | None = None) -> None:
        """Start all at a time: their imports take seconds.

        Args:
            rows: the contenders.
            also: what else their processes are told.
        """
        for row in rows.values():
            if self._key(row) not in self.running:
                python = self.peers if row.among_peers else sys.executable
                told = self.told(row) | dict(also or {})
                self.running[self._key(row)] = Server(python, HERE / row.file, told)

    def _key(self, row: Row) -> tuple:
        shared = (row.file, row.style, self.job[row.pace])
        return shared if self.job["is_quick"] else (*shared, row.contender)

    def __getitem__(self, row: Row) -> Server:
        return self.running[self._key(row)]


def extent(row: Row, job: Mapping) -> tuple[int, int, int]:
    """Batches before the clock, how many a time is divided by, and batches after the clock."""
    if row.records:
        return 0, 1, 0
    if row.whole:
        return 0, job["lead"] + job[row.pace] + job["trail"], 0
    return job["lead"], job[row.pace], job["trail"]


def measure(part: Part, workers: Workers, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round, of those that are installed."""
    job = workers.job
    everybody = part.contenders(job["is_quick"])
    present = {name: row for name, row in everybody.items() if workers.installed(row)}
    workers.start(present)
    with tqdm(total=(rounds + 1) * len(present), desc=part.letter, leave=False) as bar:
        for name, row in present.items():  # which also warms everybody up
            batches = [item[0] for item in workers[row].keep(row.contender, LOOKED_AT)]
            _tuning_checks.look(row.kind, name, batches, job)
            bar.update()

        def runs(name: str):
            row = present[name]
            lead, timed, trail = extent(row, job)
            count = row.records // RECORDS_TOGETHER or lead + timed + trail
            watch = _tuning_checks.watch(row.kind, name, count, job)

            def run() -> float:
                seconds, checksums = workers[row].run(row.contender, lead, trail)
                watch.check(checksums)
                return 1000 * seconds / timed

            return run

        return take_turns({name: runs(name) for name in present}, rounds, bar.update)


def report(part: Part, times_ms: Mapping[str, list[float]], job: Mapping) -> list[dict]:
    """Print a part's table and give its entries for the JSON file."""
    if part.ours not in times_ms:
        print(f"\n{part.title}: not installed")
        return []
    shapes = {"shape": "crop", "small": "record"}
    words = dict(job) | {key: "x".join(map(str, job[name])) for key, name in shapes.items()}
    names = list(part.contenders(job["is_quick"]))
    print_times(part.title.format(**words), names, times_ms, part.ours)
    medians = {name: statistics.median(times) for name, times in times_ms.items()}
    for asked in part.asked:
        beside = {name: medians[name] for name in asked.rows if name in medians}
        if beside:
            quickest = min(beside, key=beside.get)
            which = f" ({quickest})" if len(asked.rows) > 1 else ""
            print(
                f"  asked for: at least {asked.factor:.3g} x {asked.against}; came out: "
                f"{beside[quickest] / medians[part.ours]:.2f} x{which}"
            )
    return [one | {"unit": part.unit} for one in compare(part.name, times_ms, part.ours)]


def run_part(part: Part, workers: Workers, rounds: int) -> list[dict]:
    """Measure a part and report it."""
    if part.letter == "D":
        times_ms, exchanges = _tuning_epochs.measure(part, workers, rounds)
        entries = report(part, times_ms, workers.job)
        return entries + _tuning_epochs.report_exchanges(part, exchanges)
    if part.letter == "F":
        write_counted(workers.job)
    times_ms = measure(part, workers, rounds)
    entries = report(part, times_ms, workers.job)
    return entries + (report_growth(part, times_ms) if part.letter == "F" else [])


def report_growth(part: Part, times_ms: Mapping[str, list[float]]) -> list[dict]:
    """Print what one record more takes, among few and among many, and give the entry for it.

    The difference between two sets is free of what an epoch takes however short it is.
    """
    known = {row.records: statistics.median(times_ms[name]) for name, row in part.rows.items()}
    few, some, many = sorted(known)
    among_few = (known[some] - known[few]) / (some - few)
    among_many = (known[many] - known[some]) / (many - some)
    print(
        f"  a record more takes {among_few:.3f} ms from {few} to {some:,} records, "
        f"{among_many:.3f} ms from {some} to {many:,}"
    )
    if among_few <= 0 or among_many <= 0:  # lost in the noise, as in a quick run
        return []
    name = f"a record more, {some} to {many:,}, {part.name.rpartition(', ')[2]}"
    return [entry(name, among_many, "ms a record", f"{few} to {some}", among_few)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, within a minute")
    parser.add_argument("--parts", default="ABCDEFG", help="which parts to run (default all)")
    parser.add_argument("--rounds", type=int, help="of each part (default 5)")
    parser.add_argument("--json", type=Path, help="also write the comparisons to this file")
    parser.add_argument("--picture", type=Path, help="also draw the comparisons into this PNG")
    parser.add_argument("--of", type=Path, help="draw those of this JSON file, measure nothing")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where input is kept")
    parser.add_argument("--peers", type=Path, default=PEERS, help="Python with MONAI and Grain")
    options = parser.parse_args()
    if options.of:
        draw(options, json.loads(options.of.read_text(encoding="utf-8")))
        return
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = dataclasses.replace(sizes, rounds=options.rounds)
    entries = []
    with scratch(options.data_dir) as folder:
        job = make_job(sizes, options.data_dir, folder)
        with Workers(job, options.peers) as workers:
            for part in PARTS:
                if part.letter not in options.parts.upper():
                    continue
                try:
                    entries += run_part(part, workers, sizes.rounds)
                except ContenderFailedError as error:
                    raise SystemExit(str(error)) from error
                sys.stdout.flush()
                if not sizes.is_quick:
                    workers.close()  # the next part begins with fresh memory
    if not options.peers.exists():
        print(f"\n{options.peers} is missing: README.md says how to install the peers")
    print(
        "\nBatches were checked: crops are boxes of their volumes, drawn anew each time; stored\n"
        "crops are bit for bit those of the workload, and each comes equally often."
    )
    if options.json:
        write_json(options.json, entries)
    draw(options, entries)


def draw(options: argparse.Namespace, entries: list[dict]) -> None:
    """The picture of the comparisons, if one is asked for."""
    if options.picture:
        import _tuning_picture

        _tuning_picture.write(options.picture, entries)


if __name__ == "__main__":
    main()
