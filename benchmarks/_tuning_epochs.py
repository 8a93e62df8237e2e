"""Part D of the benchmark of reading: epochs of training, with and without a smart cache."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping

import numpy as np
from _harness import entry
from _servers import take_turns
from _tuning_checks import Counted
from _tuning_parts import Part, Row
from tqdm import tqdm

REPLACED = 0.2  # of all volumes, in an epoch
AS_LONG = 2  # an epoch takes as many times as long as loading what it replaces
FEWEST = 4  # steps of an epoch
MOST_SWAP_MS = 50


def calibrated(row: Row, workers, cached: int, replace_rate: float) -> dict[str, object]:
    """How many steps make an epoch, for the library of a row: its training step has its own pace.

    Args:
        row: any of that library.
        workers: as in `reading.py`.
        cached: volumes in the cache.
        replace_rate: part of them that is replaced in an epoch.

    Returns:
        What the processes of that library are told.
    """
    # Its style gives it a process of its own, since others are to be told what it finds.
    asked = dataclasses.replace(row, contender="calibration", style="calibration")
    workers.start({"": asked})
    (((load_s, step_s),),) = workers[asked].keep("calibration", 1)
    replaced = math.ceil(cached * replace_rate)
    steps = max(FEWEST, math.ceil(AS_LONG * replaced * load_s / step_s))
    print(
        f"\n{replaced} of {cached} volumes are replaced in an epoch, {1000 * load_s:.0f} ms each; "
        f"{steps} steps of {1000 * step_s:.0f} ms"
    )
    return {"steps": steps, "cached": cached, "replace_rate": replace_rate}


def measure(
    part: Part, workers, rounds: int
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Milliseconds of an epoch in each round, and what each exchange took.

    Returns:
        Name -> times; name -> milliseconds `[n, 2]` waited for loading and spent exchanging, of
        the contenders that exchange.
    """
    job = workers.job
    everybody = part.contenders(job["is_quick"])
    present = {name: row for name, row in everybody.items() if workers.installed(row)}
    total = job["subjects"] * job["listed"]
    cached = total - math.ceil(total * REPLACED)
    rate = REPLACED * total / cached
    if not present:
        return {}, {}
    told = calibrated(next(iter(present.values())), workers, cached, rate)
    workers.start(present, told)

    def runs(name: str):
        row = present[name]
        count = told["steps"] * job["epochs"]
        watch = Counted(name, count)

        def run() -> float:
            seconds, checksums = workers[row].run(row.contender)
            watch.check(checksums)
            return 1000 * seconds / job["epochs"]

        return run

    with tqdm(total=(rounds + 1) * len(present), desc=part.letter, leave=False) as bar:
        runs_of = {name: runs(name) for name in present}
        take_turns(runs_of, 1, bar.update)  # for caches, compilers and lazy imports
        times_ms = take_turns(runs_of, rounds, bar.update)
    exchanges = {
        name: 1000 * workers[row].keep("exchanges", 1)[0][0]
        for name, row in present.items()
        if row.contender == "smart cache"
    }
    return times_ms, exchanges


def report_exchanges(part: Part, exchanges: Mapping[str, np.ndarray]) -> list[dict]:
    """Print how long exchanges took and give the course's entry for the JSON file."""
    entries = []
    for name, times in exchanges.items():
        waited, exchanged = times.T
        print(
            f"  {name}: {len(times)} exchanges, waited {statistics.median(waited):.1f} ms "
            f"(at most {waited.max():.1f}), exchanged in {statistics.median(exchanged):.2f} ms "
            f"(at most {exchanged.max():.2f})"
        )
        if part.asked:
            print(f"  asked for: a swap under {MOST_SWAP_MS} ms")
            limit = ("ms a swap", "what is asked for", MOST_SWAP_MS)
            entries.append(entry("smart cache, longest swap", max(exchanged.max(), 1e-3), *limit))
    return entries
