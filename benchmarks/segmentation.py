"""Segmentation: how fast does DeepLab train, and does it ever wait for its input?

    .venv/bin/python benchmarks/segmentation.py [--quick] [--parts ABC] [--json build/deeplab.json]

Runs in the course's own environment and asks keras-hub in benchmarks/.venv, each network in a
worker process that runs when it is its turn. Parts:

A  MobileNetV2: steps of training, forward and backward, beside keras-hub's DeepLabV3+
B  the same with ResNet50
C  the lesson's training with real batches, beside one batch that is repeated

README.md says how it is kept fair.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from _harness import entry, write_json
from _segmentation_inputs import (
    CLASSES,
    LEARNT_IN,
    OUTPUT_STRIDE,
    QUICK,
    WIDTH,
    Sizes,
)
from _segmentation_lesson import measure_lesson, report_lesson
from _servers import ContenderFailedError, Running, Server, take_turns
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
DATA_DIR = HERE.parent / "data"
PEERS = HERE / ".venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
OURS = "helpers.deeplab"
SAME, LEAVES_OUT = "keras-hub, our encoder", "keras-hub, its encoder"
EXAMPLE = "keras-hub, output stride 32"
# Backbone -> row -> how its network is built. Those of keras-hub live among the peers.
PARTS = {
    "A": ("MobileNetV2", {OURS: "ours", SAME: "same encoder"}),
    "B": (
        "ResNet50",
        {OURS: "ours", LEAVES_OUT: "stride 16", SAME: "same encoder", EXAMPLE: "stride 32"},
    ),
}
ASKED_WORK = 1.0
LEAD = 1  # steps of a pass that are not timed: the caches were another network's
PHASES = ("forward", "backward", "both")
HAS_KERAS_HUB = "import importlib.util as u, sys; sys.exit(not u.find_spec('keras_hub'))"
NETWORKS_CHECKED = """\
Networks were checked: a logit for each class and pixel, losses that fall on one
batch, none twice in training."""
BATCHES_CHECKED = "Batches were checked: whole, no ids in between, each another one."


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a network is, beside its speed; operations for one image."""

    gflop: Mapping[str, float]  # of each phase
    parameters: int
    stride: int

    @classmethod
    def of(cls, row: str, arrays: Sequence[np.ndarray], size: Sequence[int], batch: int) -> Facts:
        """From what a worker tells.

        Raises:
            SystemExit: if it makes no logit for each pixel and class.
        """
        (forward, both, parameters), logits, features = arrays
        if tuple(logits) != (batch, *size, len(CLASSES)):
            raise SystemExit(f"{row}: logits of shape {tuple(logits)} for images of {size}")
        gflop = {"forward": forward, "backward": both - forward, "both": both}
        per_image = {phase: int(number) / batch / 1e9 for phase, number in gflop.items()}
        return cls(per_image, int(parameters), round(size[0] / int(features[0])))


def check_learning(row: str, losses: Sequence[float]) -> None:
    """Steps on one batch have to make its loss smaller, or the step is none.

    Raises:
        SystemExit: if they do not.
    """
    if not np.isfinite(losses).all() or not losses[-1] < losses[0]:
        raise SystemExit(f"{row}: losses of {', '.join(f'{one:.4g}' for one in losses)}")


def check_moving(row: str, checksums: Sequence[int], before: set[int]) -> None:
    """No two steps of training may have the same loss: weights have moved in between.

    Raises:
        SystemExit: if they have.
    """
    if len({*checksums}) < len(checksums) or before & {*checksums}:
        raise SystemExit(f"{row}: two steps of training gave the same loss")
    before.update(checksums)


def check_times(row: str, phase: str, times_ms: Sequence[float]) -> None:
    """A median has to be above 0. Backward is a difference, and less than noise in a short run.

    Raises:
        SystemExit: if it is not.
    """
    median = statistics.median(times_ms)
    if not median > 0:
        raise SystemExit(
            f"{row}, {phase}: a median of {median:.3g} ms, which is noise; run longer: without "
            "--quick, or with more steps and rounds in _segmentation_inputs.Sizes"
        )


def has_keras_hub(python: Path) -> bool:
    """Whether there is such a Python and it has keras-hub; importing it would take seconds."""
    if not python.exists():
        return False
    return not subprocess.run([python, "-c", HAS_KERAS_HUB], check=False).returncode


def measure_networks(
    letter: str, sizes: Sizes, peers: Path
) -> tuple[dict[str, dict[str, list[float]]], dict[str, Facts]]:
    """Milliseconds of a step, by phase and row, and what the networks are.

    The backward phase is the difference between a step of training and a forward step in the same
    round; the optimizer's update belongs to it.
    """
    backbone, rows = PARTS[letter]
    job = {"backbone": backbone, "size": sizes.size, "batch": sizes.batch, "lead": LEAD}
    job["steps"] = sizes.steps[backbone]
    if not has_keras_hub(peers):
        rows = {OURS: rows[OURS]}
    with Running(job, peers) as workers:
        for row, build in rows.items():  # several at a time: their imports take seconds
            python = sys.executable if build == "ours" else peers
            workers.running[row] = Server(
                python, HERE / "_segmentation_models.py", job | {"build": build}
            )
        facts: dict[str, Facts] = {}
        seen: dict[str, set[int]] = {row: set() for row in rows}
        with tqdm(total=(2 * sizes.rounds + 3) * len(rows), desc=letter, leave=False) as bar:
            for row in rows:
                (arrays,) = workers.running[row].keep("facts", 1)
                facts[row] = Facts.of(row, arrays, sizes.size, sizes.batch)
                bar.update()
                items = workers.running[row].keep("learning", LEARNT_IN)
                check_learning(row, [float(loss) for (loss,) in items])
                bar.update()
                workers.running[row].run("forward", LEAD)
                bar.update()

            def runs(row: str, contender: str):
                def run() -> float:
                    seconds, checksums = workers.running[row].run(contender, LEAD)
                    if contender == "training":
                        check_moving(row, checksums, seen[row])
                    return 1000 * seconds / job["steps"]

                return run

            turns = {(row, one): runs(row, one) for row in rows for one in ("forward", "training")}
            times = take_turns(turns, sizes.rounds, bar.update)
    forward = {row: times[row, "forward"] for row in rows}
    both = {row: times[row, "training"] for row in rows}
    backward = {
        row: [whole - part for whole, part in zip(both[row], forward[row], strict=True)]
        for row in rows
    }
    return {"forward": forward, "backward": backward, "both": both}, facts


def report_networks(
    letter: str, times: Mapping[str, Mapping], facts: Mapping[str, Facts], sizes: Sizes
) -> list[dict]:
    """Print a part's tables and give its entries for the JSON file.

    Raises:
        SystemExit: for times that are noise.
    """
    for phase in PHASES:
        for row, ms in times[phase].items():
            check_times(row, phase, ms)
    backbone, rows = PARTS[letter]
    width = max(map(len, rows))
    print(
        f"\n{letter}. DeepLabV3+ on {backbone}, batches of {sizes.batch} x {sizes.size[0]}x"
        f"{sizes.size[1]} pixels, {WIDTH} channels, output stride {OUTPUT_STRIDE}"
    )
    print(f"  {'':{width}}  stride  parameters  GFLOP an image: forward, backward")
    for row in rows:
        if row not in facts:
            print(f"  {row:{width}}  not installed")
            continue
        one = facts[row]
        work = f"{one.gflop['forward']:9.2f} {one.gflop['backward']:9.2f}"
        print(f"  {row:{width}}  {one.stride:6}  {one.parameters:10,}  {work}")
    entries = []
    for phase in PHASES:
        print(
            f"  {phase if phase != 'both' else 'forward and backward'}\n  {'':{width}}  images/s  "
            f"{'min to max':>14}  GFLOP/s   ahead: in images  in work"
        )
        medians = {row: statistics.median(ms) for row, ms in times[phase].items()}
        for row, median in medians.items():
            ms, gflop = times[phase][row], facts[row].gflop[phase]
            # A difference of one round may be noise, and bounds no rate.
            rates = sorted(1000 * sizes.batch / one if one > 0 else math.inf for one in ms)
            line = f"  {row:{width}}  {1000 * sizes.batch / median:8.1f}  "
            line += f"{f'{rates[0]:.1f} to {rates[-1]:.1f}':>14}  "
            line += f"{1000 * sizes.batch / median * gflop:7.1f}"
            if row != OURS:
                per_flop = median / gflop / (medians[OURS] / facts[OURS].gflop[phase])
                line += f"   {median / medians[OURS]:14.2f} x  {per_flop:5.2f} x"
            print(line)
        entries += _entries(backbone, phase, medians, facts, sizes.batch)
    _say_what_was_asked(entries, backbone)
    return entries


def _entries(
    backbone: str, phase: str, medians: Mapping[str, float], facts: Mapping, batch: int
) -> list[dict]:
    """Time of a batch, time of a GFLOP and, once, GFLOPs of an image."""
    made = []
    name = f"{backbone}, {phase if phase != 'both' else 'forward and backward'}"
    for row in (row for row in medians if row != OURS):
        pair = (OURS, row)
        made.append(entry(name, medians[OURS], "ms", row, medians[row]))
        each = [medians[one] / batch / facts[one].gflop[phase] for one in pair]
        made.append(entry(name, each[0], "ms a GFLOP", row, each[1]))
        work = [facts[one].gflop[phase] for one in pair]
        made.append(entry(name, work[0], "GFLOP an image", row, work[1]))
    return made


def _say_what_was_asked(entries: Sequence[Mapping], backbone: str) -> None:
    """Whether as much work a second is done, on the same backbone and output stride."""
    rows: dict[str, list[str]] = {}
    for one in entries:
        if one["unit"] == "ms a GFLOP" and one["against"] != EXAMPLE:
            phase = one["name"].removeprefix(f"{backbone}, ")
            rows.setdefault(one["against"], []).append(f"{phase} {one['ratio']:.2f} x")
    for row, came in rows.items():
        print(
            f"  asked for: at least {ASKED_WORK:g} x the work a second of {row}; came out: "
            f"{', '.join(came)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, within a minute")
    parser.add_argument("--parts", default="", help="which parts to run (default ABC; quick: AC)")
    parser.add_argument("--json", metavar="PATH", help="write the comparisons to this file")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where the input is kept")
    parser.add_argument("--peers", type=Path, default=PEERS, help="Python that has the peers")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    asked = set(options.parts.upper() or ("AC" if options.quick else "ABC"))
    known = {letter for letter in PARTS if PARTS[letter][0] in sizes.steps} | {"C"}
    if not asked <= known:
        parser.error(f"parts are {', '.join(sorted(known))}")
    entries = []
    try:
        for letter in sorted(asked - {"C"}):
            times, facts = measure_networks(letter, sizes, options.peers)
            entries += report_networks(letter, times, facts, sizes)
        if "C" in asked:
            entries += report_lesson(measure_lesson(sizes, options.data_dir))
    except ContenderFailedError as error:
        raise SystemExit(str(error)) from error
    print()
    if asked - {"C"}:
        print(NETWORKS_CHECKED)
    if "C" in asked:
        print(BATCHES_CHECKED)
    if options.json:
        write_json(options.json, entries)


if __name__ == "__main__":
    main()
