"""Augmentation: how long do a warp, a flip with a rotation, and crops take, here and elsewhere?

    .venv/bin/python benchmarks/augmentation.py [--quick] [--parts ABCD] [--json PATH]

Runs in the course's own environment, which has TensorFlow, and asks the peers in benchmarks/.venv,
which has PyTorch: each contender lives in a worker process and runs when it is its turn. Parts:

A  elastic and affine warp of a volume and its mask, 128 cubed
B  affine warp of the same
C  pictures of 256 x 256 with masks, flipped and rotated, from files and from a cache
D  four crops of 96 cubed from each volume, beside copying the same bytes

README.md says how it is kept fair.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _augment_checks import (
    Freshness,
    check_crops,
    check_moved,
    check_pair,
    check_with_scipy,
    picture_pairs,
    volume_pair,
)
from _augment_inputs import CROPPED_VOLUMES, QUICK, Sizes, load, make_job
from _augment_parts import OURS, PARTS, WORKERS, Part
from _harness import compare, print_times, write_json
from _servers import ContenderFailedError, Running, Server, take_turns
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
DATA_DIR = HERE.parent / "data"
PEERS = HERE / ".venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
LOOKED_AT = 2  # items of each contender that are checked voxel by voxel


class Workers(Running):
    """Worker processes, started when they are first needed; a context ends them all."""

    def installed(self, name: str) -> bool:
        """Whether the environment of a worker is there."""
        return not WORKERS[name][2] or self.peers.exists()

    def start(self, names: set[str]) -> None:
        """Start several at a time: their imports take seconds."""
        for name in sorted(names - set(self.running)):
            file, style, among_peers = WORKERS[name]
            python = self.peers if among_peers else sys.executable
            self.running[name] = Server(python, HERE / file, dict(self.job) | {"style": style})

    def __getitem__(self, name: str) -> Server:
        return self.running[name]


def items_in_a_pass(part: Part, row: str, job: Mapping) -> int:
    """How many items a contender makes while the clock runs."""
    if row in part.slow:
        return job["slow_volumes"]
    items = {
        "volumes": job["volumes"],
        "pictures": len(job["pairs"]) // job["batch"],
        "crops": CROPPED_VOLUMES * job["crop_passes"],
    }[part.kind]
    return items * (job["long"] if row == part.ours[0] or row.startswith("NumPy") else 1)


def check_warps(row: str, inputs: list, results: list, positions: list | None) -> None:
    """Warped images and masks are pairs still; ours are what SciPy makes of them."""
    for number, (before, after) in enumerate(zip(inputs, results, strict=True)):
        check_pair(row, before, after)
        if positions is not None:
            check_with_scipy(row, before, after, np.moveaxis(positions[number], -1, 0))
    check_moved(row, list(zip(inputs, results, strict=True)))


def look_at(part: Part, present: Mapping, workers: Workers, tick) -> None:
    """Run every contender once, which also warms it up, and check what it makes.

    Raises:
        SystemExit: if something is wrong with it.
    """
    job, ours = workers.job, workers[OURS]
    pictures = part.kind == "pictures"
    if part.kind == "crops":
        inputs = [load(job["crops_from"], i) for i in range(CROPPED_VOLUMES)]
    else:
        positions = [image for image, _ in ours.keep(f"{part.ours[1]} positions", LOOKED_AT)]
        if pictures:
            inputs, positions = picture_pairs(ours.keep("pictures", 1)[0]), list(positions[0])
        else:
            inputs = [load(job["warp"], i) for i in range(LOOKED_AT)]
    for row, (worker, contender) in present.items():
        items = workers[worker].keep(contender, LOOKED_AT)
        if part.kind == "crops":
            for item in items:
                fields = volume_pair(item)
                check_crops(row, [whole[: len(fields)] for whole in inputs], fields)
        else:
            results = picture_pairs(items[0]) if pictures else [volume_pair(one) for one in items]
            check_warps(row, inputs, results, positions if worker == OURS else None)
        tick()


def measure(part: Part, workers: Workers, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round, of those that are installed."""
    everybody = part.contenders(workers.job["is_quick"])
    present = {row: who for row, who in everybody.items() if workers.installed(who[0])}
    workers.start({worker for worker, _ in present.values()})
    with tqdm(total=(rounds + 1) * len(present), desc=part.letter, leave=False) as bar:
        look_at(part, present, workers, bar.update)

        def runs(row: str):
            worker, contender = present[row]
            count = items_in_a_pass(part, row, workers.job)
            fresh = Freshness(row, count)

            def run() -> float:
                seconds, checksums = workers[worker].run(contender)
                fresh.check(checksums)
                return 1000 * seconds / count * part.per

            return run

        return take_turns({row: runs(row) for row in present}, rounds, bar.update)


def report(part: Part, times_ms: Mapping[str, list[float]], job: Mapping) -> list[dict]:
    """Print a part's table and give its entries for the JSON file."""
    words = dict(job) | {"crop_shape": "x".join(map(str, job["crop_shape"]))}
    words["per"] = part.per
    ours = part.ours[0]
    print_times(part.title.format(**words), list(part.contenders(job["is_quick"])), times_ms, ours)
    medians = {row: statistics.median(times) for row, times in times_ms.items()}
    if part.kind == "pictures":
        rates = (f"{row} {1000 * job['batch'] / ms:.0f}" for row, ms in medians.items())
        print("  pictures a second: " + ", ".join(rates))
    for begins, factor in part.asked.items():
        ahead = [ms / medians[ours] for row, ms in medians.items() if row.startswith(begins)]
        if ahead:
            print(
                f"  asked for: at least {factor:.3g} x {begins}; came out: {min(ahead):.2f} to "
                f"{max(ahead):.2f} x"
            )
    return compare(part.name.format(**words), times_ms, ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, within a minute")
    parser.add_argument("--parts", default="ABCD", help="which parts to run (default ABCD)")
    parser.add_argument("--rounds", type=int, help="of each part (default 5)")
    parser.add_argument("--json", type=Path, help="also write the comparisons to this file")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where input is kept")
    parser.add_argument("--peers", type=Path, default=PEERS, help="Python with MONAI and TorchIO")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = dataclasses.replace(sizes, rounds=options.rounds)
    entries = []
    with Workers(make_job(sizes, options.data_dir), options.peers) as workers:
        for part in PARTS:
            if part.letter not in options.parts.upper():
                continue
            try:
                times_ms = measure(part, workers, sizes.rounds)
            except ContenderFailedError as error:
                raise SystemExit(str(error)) from error
            entries += report(part, times_ms, workers.job)
            sys.stdout.flush()
            if not sizes.is_quick:
                workers.close()  # the next part begins with fresh memory
    if not options.peers.exists():
        print(f"\n{options.peers} is missing: README.md says how to install the peers")
    print(
        "\nItems were checked: pairs of image and mask belong together, crops are boxes of their\n"
        "volumes, the course's warps are what SciPy gives at the same positions, and no two items\n"
        "are equal."
    )
    if options.json:
        write_json(options.json, entries)


if __name__ == "__main__":
    main()
