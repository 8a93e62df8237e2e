"""Does the lesson's training ever wait for its input? Part C of the segmentation benchmark."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from _harness import entry
from _segmentation_inputs import LESSON, Sizes, make_records
from _servers import Server, checksum, take_turns
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
REAL, REPEATED, ALONE = "real batches", "one batch repeated", "batches alone"
ASKED_STEP = 1.05


def check_batches(real: Sequence[Sequence[np.ndarray]], repeated: Sequence) -> None:
    """Real batches are whole, each another one; the repeated one is whole, and always the same.

    It is none of the real ones: each pass over the pipeline draws anew.

    Raises:
        SystemExit: if anything is wrong.
    """
    shape = (LESSON["batch"], *LESSON["size"])
    for images, masks in [*real, *repeated]:
        if images.shape != (*shape, 3) or masks.shape != (*shape, 1):
            raise SystemExit(f"batches of {images.shape} and {masks.shape}; expected {shape}")
        if images.dtype != np.float32 or not 0 <= images.min() <= images.max() <= 255:
            raise SystemExit("images are float32 from 0 to 255")
        if strange := {*np.unique(masks).tolist()} - {0, 1, LESSON["mask_fill"]}:
            raise SystemExit(f"masks with ids {strange}")
    if len({checksum(pair) for pair in real}) < len(real):
        raise SystemExit("two real batches are the same: the input is frozen")
    if len({checksum(pair) for pair in repeated}) != 1:
        raise SystemExit("the repeated batch is not always the same")


def measure_lesson(sizes: Sizes, data_dir: Path) -> dict[str, list[float]]:
    """Milliseconds of a step with real batches and with one repeated, and of batches alone."""
    job = {"records": str(make_records(sizes.lesions, data_dir))}
    job |= {key: getattr(sizes, key) for key in ("lesson_steps", "lead", "trail")}
    ends = {"lead": sizes.lead, "trail": sizes.trail}
    with Server(sys.executable, HERE / "_segmentation_pipeline.py", job) as worker:
        looked = [worker.keep(name, sizes.lesson_steps) for name in (ALONE, "repeated alone")]
        check_batches(*looked)
        for row in (REAL, REPEATED):
            worker.run(row, **ends)
        with tqdm(total=3 * sizes.lesson_rounds, desc="C", leave=False) as bar:

            def runs(row: str):
                def run() -> float:
                    seconds, checksums = worker.run(row, **ends)
                    if len({*checksums}) < len(checksums):
                        raise SystemExit(f"{row}: two steps gave the same")
                    return 1000 * seconds / sizes.lesson_steps

                return run

            turns = {row: runs(row) for row in (REAL, REPEATED, ALONE)}
            return take_turns(turns, sizes.lesson_rounds, bar.update)


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
        f"round: median {statistics.median(rounds):.3f}, {min(rounds):.3f} to {max(rounds):.3f})"
    )
    return entries
