"""Part D of the benchmark of reading: epochs of training, with and without a smart cache."""

from __future__ import annotations

import dataclasses
import math
import statistics

from _contest import Part, Workers
from _harness import entry

REPLACED = 0.2  # of all volumes, in an epoch
AS_LONG = 2  # an epoch takes as many times as long as loading what it replaces
FEWEST = 4  # steps of an epoch
MOST_SWAP_MS = 50


def calibrated(part: Part, workers: Workers) -> Part:
    """The part with as many steps in an epoch as its library needs: each has its own pace."""
    job, row = workers.job, next(iter(part.rows.values()))
    total = job["subjects"] * job["listed"]
    cached = total - math.ceil(total * REPLACED)
    replaced = total - cached
    asked = dataclasses.replace(row, contender="calibration")
    workers.start([asked])
    (((load_s, step_s),),), _ = workers[asked].keep("calibration", 1, part.told)
    steps = max(FEWEST, math.ceil(AS_LONG * replaced * load_s / step_s))
    print(
        f"\n{replaced} of {cached} volumes are replaced in an epoch, {1000 * load_s:.0f} ms each; "
        f"{steps} steps of {1000 * step_s:.0f} ms"
    )
    told = {"steps": steps, "cached": cached, "replace_rate": replaced / cached}
    fixed = {"items": steps * job["epochs"], "units": job["epochs"]}
    rows = {name: dataclasses.replace(one, **fixed) for name, one in part.rows.items()}
    return dataclasses.replace(part, told=part.told | told, rows=rows)


def report_exchanges(part: Part, workers: Workers) -> list[dict]:
    """Print how long exchanges took and give the course's entry for the JSON file."""
    row = part.rows[part.ours]
    (times,), _ = workers[row].keep("exchanges", 1, part.told)
    waited, exchanged = 1000 * times[0].T
    print(
        f"  {part.ours}: {len(waited)} exchanges, waited {statistics.median(waited):.1f} ms "
        f"(at most {waited.max():.1f}), exchanged in {statistics.median(exchanged):.2f} ms "
        f"(at most {exchanged.max():.2f})"
    )
    if not part.asked:
        return []
    print(f"  asked for: a swap under {MOST_SWAP_MS} ms")
    limit = ("ms a swap", "what is asked for", MOST_SWAP_MS)
    return [entry("smart cache, longest swap", max(exchanged.max(), 1e-3), *limit)]
