"""Reading: how long does a batch take from memory, from records, from NIfTI, here and elsewhere?

    .venv/bin/python benchmarks/reading.py [--quick] [--parts ABCDEFG] [--json PATH]
                                           [--sizes small medium usual] [--picture PATH]

Runs in the course's own environment, which has TensorFlow, and asks the peers in benchmarks/.venv,
which has PyTorch and Grain: each contender has a worker process and runs when it is its turn. The
workload is that of a benchmark published in 2018, batches of 5 x 128x224x224 float32. Parts:

A  random crops from volumes in memory, beside the copies that they come down to; also of
   5 x 32x112x112 and 5 x 64x160x160
B  stored crops from records and other files in the page cache, and from float_list of 2018
C  random crops from compressed NIfTI files
D  an epoch of training with a smart cache that loads in the background
E  `pipeline.segmentation` beside the same stages by hand
F  what a record costs, of 10, 100 and 1,000
G  what a Timeline costs that records when stages work, at the sizes of part A

README.md says how it is kept fair.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import _checks
from _contest import Part, Row, Times, Workers, arguments, measure, report, run
from _harness import entry
from _sizes import scratch
from _tuning_epochs import calibrated, report_exchanges
from _tuning_inputs import COUNTS, make, make_job, write_counted
from _tuning_parts import NOT_RECORDED, parts


def contest(part: Part, workers: Workers, rounds: int, pass_s: float) -> list[dict]:
    """Measure a part and report it."""
    job = {**workers.job, **part.told}
    if part.letter == "D":
        if not workers.installed(part.rows[part.ours]):
            return report(part, Times({}, {}), job)
        part = calibrated(part, workers)
    if part.letter == "F":
        write_counted(job)

    def look(name: str, row: Row, items: Sequence) -> None:
        _checks.look(row.kind, name, [item[0] for item in items], job)

    times = measure(part, workers, look, rounds, pass_s)
    entries = report(part, times, job)
    if part.letter == "D":
        return entries + report_exchanges(part, workers)
    if part.letter == "F":
        return entries + report_growth(part, times.items_ms)
    if part.letter == "G":
        say_the_price(part, times.items_ms)
    return entries


def report_growth(part: Part, times_ms: Mapping[str, list[float]]) -> list[dict]:
    """Print what one record more takes, among few and among many, and give the entry for it.

    The difference between two sets is free of what an epoch takes however short it is.
    """
    few, some, many = COUNTS
    known = {count: statistics.median(times_ms[f"{count:,} records"]) for count in COUNTS}
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


def say_the_price(part: Part, times_ms: Mapping[str, list[float]]) -> None:
    """Print what recording adds."""
    recorded, plain = (statistics.median(times_ms[name]) for name in (part.ours, NOT_RECORDED))
    each = 1000 * (recorded - plain) / part.elements
    print(f"  recording adds {recorded / plain - 1:.1%}, {each:,.0f} us an element")


def draw(options: argparse.Namespace, entries: list[dict]) -> None:
    """The picture of the comparisons, if one is asked for."""
    if options.picture:
        import _tuning_picture

        _tuning_picture.write(options.picture, entries)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], "ABCDEFG")
    parser.add_argument("--picture", type=Path, help="also draw the comparisons into this PNG")
    parser.add_argument("--of", type=Path, help="draw those of this JSON file, measure nothing")
    options = parser.parse_args()
    if options.of:
        draw(options, json.loads(options.of.read_text(encoding="utf-8")))
        return
    with scratch(options.data_dir) as folder:
        job = make_job(options.quick, folder)
        with Workers(job, options.peers, apart=not options.quick) as workers:

            def one(part: Part, rounds: int, pass_s: float) -> list[dict]:
                told = make(part.told, job, options.data_dir, folder)
                return contest(dataclasses.replace(part, told=told), workers, rounds, pass_s)

            entries = run(options, parts(options.quick), workers, one)
    print(
        "\nBatches were checked: crops are boxes of their volumes, drawn anew each time; stored\n"
        "crops are bit for bit those of the workload, and each comes equally often."
    )
    draw(options, entries)


if __name__ == "__main__":
    main()
