"""Segmentation: how fast does DeepLab train, and does it ever wait for its input?

    .venv/bin/python benchmarks/segmentation.py [--quick] [--parts ABC] [--json build/deeplab.json]

Runs in the course's own environment and asks keras-hub in benchmarks/.venv, each network in a
worker process that runs when it is its turn. Parts:

A  MobileNetV2: steps of training, forward and backward, beside keras-hub's DeepLabV3+
B  the same with ResNet50; not in a quick run
C  the lesson's training with real batches, beside one batch that is repeated

README.md says how it is kept fair.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from _checks import need
from _contest import Part, Row, Workers, arguments, measure, run
from _harness import digits, entry
from _segmentation_inputs import (
    CLASSES,
    LEARNT_IN,
    LESSON,
    OUTPUT_STRIDE,
    SIZES,
    WIDTH,
    make_records,
)
from _servers import checksum

OURS = "helpers.deeplab"
SAME, LEAVES_OUT = "keras-hub, our encoder", "keras-hub, its encoder"
EXAMPLE = "keras-hub, output stride 32"
NETWORKS = {
    "A": ("MobileNetV2", (OURS, SAME)),
    "B": ("ResNet50", (OURS, LEAVES_OUT, SAME, EXAMPLE)),
}
PHASES = ("forward", "backward", "both")
PASS_S = 0.8  # backward is a difference, which needs longer passes
HAS_KERAS_HUB = "import importlib.util as u, sys; sys.exit(not u.find_spec('keras_hub'))"
REAL, REPEATED, ALONE = "real batches", "one batch repeated", "batches alone"
LESIONS, STEPS, ENDS = 600, 16, 3  # pictures; steps of a pass; and those that are not timed
ASKED_STEP = 1.05


def parts(quick: bool) -> list[Part]:
    """All comparisons; a row of a network is one of its two graphs."""
    made = []
    for letter, (backbone, names) in NETWORKS.items():
        rows = {}
        for name in names:
            style = "ours" if name == OURS else name
            for graph, kind in (("forward", ""), ("training", "drawn")):
                rows[f"{name}: {graph}"] = Row("_segmentation_models.py", graph, style, kind)
        told = {**SIZES["small" if quick else "usual"], "backbone": backbone}
        made += [Part(letter, backbone, backbone, rows, told=told)]
    if quick:
        del made[1]  # its networks take half a minute to build
    steps = {"items": 6 if quick else STEPS, "units": 6 if quick else STEPS, "ends": ENDS}
    rows = {
        name: Row("_segmentation_pipeline.py", name, kind="drawn", **steps)
        for name in (REAL, REPEATED, ALONE)
    }
    return [*made, Part("C", "the lesson", "the lesson", rows)]


# Networks


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a network is, beside its speed; operations for one image."""

    gflop: Mapping[str, float]  # of each phase
    parameters: int
    stride: int

    @classmethod
    def of(cls, row: str, arrays: Sequence[np.ndarray], told: Mapping) -> Facts:
        """From what a worker tells.

        Raises:
            SystemExit: if it makes no logit for each pixel and class.
        """
        (forward, both, parameters), logits, features = arrays
        right = tuple(logits) == (told["batch"], *told["size"], len(CLASSES))
        need(right, row, f"gives logits of shape {tuple(logits)} for images of {told['size']}")
        counted = {"forward": forward, "backward": both - forward, "both": both}
        gflop = {phase: int(number) / told["batch"] / 1e9 for phase, number in counted.items()}
        return cls(gflop, int(parameters), round(told["size"][0] / int(features[0])))


def check_learning(row: str, losses: Sequence[float]) -> None:
    """Steps on one batch have to make its loss smaller, or the step is none.

    Raises:
        SystemExit: if they do not.
    """
    learns = np.isfinite(losses).all() and losses[-1] < losses[0]
    need(bool(learns), row, f"has losses of {', '.join(f'{one:.4g}' for one in losses)}")


def has_keras_hub(python: Path) -> bool:
    """Whether there is such a Python and it has keras-hub; importing it would take seconds."""
    command = [python, "-c", HAS_KERAS_HUB]
    return python.exists() and not subprocess.run(command, check=False).returncode


def by_phase(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, list[float]]]:
    """Phase -> network -> milliseconds of a step.

    Backward is the difference between a step of training and a forward step in the same round; the
    optimizer's update belongs to it.

    Raises:
        SystemExit: for a median that is not above 0: the difference is less than noise.
    """
    found: dict[str, dict[str, list[float]]] = {phase: {} for phase in PHASES}
    for name in dict.fromkeys(row.rpartition(":")[0] for row in times):
        forward, both = times[f"{name}: forward"], times[f"{name}: training"]
        backward = [whole - part for whole, part in zip(both, forward, strict=True)]
        for phase, several in zip(PHASES, (forward, backward, both), strict=True):
            median = statistics.median(several)
            words = f"has a median of {median:.3g} ms {phase}, which is noise; run longer"
            need(median > 0, name, words)
            found[phase][name] = several
    return found


def compare_networks(part: Part, workers: Workers, rounds: int) -> list[dict]:
    """Parts A and B: measure and report them."""
    if not has_keras_hub(workers.peers):
        rows = {name: row for name, row in part.rows.items() if not row.among_peers}
        part = dataclasses.replace(part, rows=rows)
    facts: dict[str, Facts] = {}

    def look(name: str, row: Row, items: Sequence) -> None:
        if row.contender == "training":
            network = name.rpartition(":")[0]
            arrays = workers[row].keep("facts", 1, part.told)[0][0]
            facts[network] = Facts.of(network, arrays, part.told)
            more, _ = workers[row].keep("training", LEARNT_IN, part.told)
            check_learning(network, [float(loss) for (loss,) in [*items, *more]])

    times = measure(part, workers, look, rounds, PASS_S)
    return report_networks(part, by_phase(times.items_ms), facts)


def report_networks(part: Part, times: Mapping, facts: Mapping[str, Facts]) -> list[dict]:
    """Print a part's tables and give its entries for the JSON file."""
    backbone, names = NETWORKS[part.letter]
    batch, (height, width_px) = part.told["batch"], part.told["size"]
    width = max(map(len, names))
    print(
        f"\n{part.letter}. DeepLabV3+ on {backbone}, batches of {batch} x {height}x{width_px} "
        f"pixels, {WIDTH} channels, output stride {OUTPUT_STRIDE}\n"
        f"  {'':{width}}  stride  parameters  GFLOP an image: forward, backward"
    )
    for name in names:
        if name not in facts:
            print(f"  {name:{width}}  not installed")
            continue
        one = facts[name]
        work = f"{one.gflop['forward']:9.2f} {one.gflop['backward']:9.2f}"
        print(f"  {name:{width}}  {one.stride:6}  {one.parameters:10,}  {work}")
    entries = []
    for phase in PHASES:
        words = phase if phase != "both" else "forward and backward"
        print(
            f"  {words}\n  {'':{width}}  images/s      min to max  GFLOP/s   "
            "ahead: in images  in work"
        )
        medians = {name: statistics.median(ms) for name, ms in times[phase].items()}
        ours = medians[OURS], medians[OURS] / batch / facts[OURS].gflop[phase]
        for name, median in medians.items():
            # A difference of one round may be noise, and bounds no rate.
            rates = [1000 * batch / one if one > 0 else math.inf for one in times[phase][name]]
            spread = f"{digits(min(rates))} to {digits(max(rates))}"
            each = median / batch / facts[name].gflop[phase]
            line = (
                f"  {name:{width}}  {1000 * batch / median:8.1f}  {spread:>14}  {1000 / each:7.1f}"
            )
            if name != OURS:
                line += f"   {median / ours[0]:14.2f} x  {each / ours[1]:5.2f} x"
                entries.append(entry(f"{backbone}, {words}", ours[0], "ms", name, median))
                entries.append(entry(f"{backbone}, {words}", ours[1], "ms a GFLOP", name, each))
            print(line)
    if entries:
        print("  asked for: at least 1 x the work a second of each but the last")
    print("  checked: a logit for each class and pixel, losses that fall on one batch, none twice")
    return entries


# The lesson


def check_batches(real: Sequence[Sequence[np.ndarray]], repeated: Sequence) -> None:
    """Real batches are whole, each another one; the repeated one is whole, and always the same.

    It is none of the real ones: each pass over the pipeline draws anew.

    Raises:
        SystemExit: if anything is wrong.
    """
    shape, name = (LESSON["batch"], *LESSON["size"]), "the lesson's pipeline"
    for images, masks in [*real, *repeated]:
        right = images.shape == (*shape, 3) and masks.shape == (*shape, 1)
        need(right, name, f"gives batches of {images.shape} and {masks.shape}; expected {shape}")
        right = images.dtype == np.float32 and 0 <= images.min() <= images.max() <= 255
        need(right, name, "gives images that are not float32 from 0 to 255")
        strange = {*np.unique(masks).tolist()} - {0, 1, LESSON["mask_fill"]}
        need(not strange, name, f"gives masks with ids {strange}")
    new = len({checksum(pair) for pair in real}) == len(real)
    need(new, name, "gives two real batches that are the same: the input is frozen")
    same = len({checksum(pair) for pair in repeated}) == 1
    need(same, name, "gives a repeated batch that is not always the same")


def compare_lesson(part: Part, workers: Workers, rounds: int, data_dir: Path) -> list[dict]:
    """Part C: measure and report it."""
    count = part.rows[REAL].items
    records = make_records(LESIONS if count == STEPS else 64, data_dir)
    part = dataclasses.replace(part, told={"records": str(records)})
    row = part.rows[REAL]
    workers.start([row])
    looked = [workers[row].keep(name, count, part.told)[0] for name in (ALONE, "repeated alone")]
    check_batches(*looked)
    # Less of a difference matters here than elsewhere.
    return report_lesson(measure(part, workers, lambda *_: None, 2 * rounds, PASS_S).items_ms)


def report_lesson(times_ms: Mapping[str, Sequence[float]]) -> list[dict]:
    """Print part C's table and give its entries."""
    size, width = LESSON["size"], max(map(len, times_ms))
    print(
        f"\nC. The lesson's training: {LESSON['backbone']} of width {LESSON['alpha']:g}, batches "
        f"of {LESSON['batch']} x {size[0]}x{size[1]}, flipped and scaled\n  {'':{width}}  ms a "
        f"step   min to max ms   x {REPEATED}"
    )
    base, entries = statistics.median(times_ms[REPEATED]), []
    for row, times in times_ms.items():
        median = statistics.median(times)
        spread = f"{min(times):.1f} to {max(times):.1f}"
        print(f"  {row:{width}}  {median:9.1f}  {spread:>14}   {median / base:.3f}")
        if row != REPEATED:
            entries.append(entry(row, median, "ms a step", REPEATED, base))
    came = statistics.median(times_ms[REAL]) / base
    rounds = [a / b for a, b in zip(times_ms[REAL], times_ms[REPEATED], strict=True)]
    print(
        f"  asked for: at most {ASKED_STEP:g} x {REPEATED}; came out: {came:.3f} x (round by "
        f"round: median {statistics.median(rounds):.3f}, {min(rounds):.3f} to {max(rounds):.3f})\n"
        "  checked: batches are whole, without ids in between, each another one"
    )
    return entries


def main() -> None:
    options = arguments(__doc__.splitlines()[0], "ABC").parse_args()
    with Workers({}, options.peers) as workers:

        def contest(part: Part, rounds: int, _: float) -> list[dict]:
            if part.letter == "C":
                return compare_lesson(part, workers, rounds, options.data_dir)
            return compare_networks(part, workers, rounds)

        run(options, parts(options.quick), workers, contest)


if __name__ == "__main__":
    main()
