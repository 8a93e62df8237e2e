"""Records: how fast are they written, and how much memory does the converter take?

    .venv/bin/python benchmarks/records.py [--quick] [--parts ABC] [--json PATH]

Runs in the course's own environment, because TensorFlow reads back what was written. Three parts;
`reading.py` has how records are read.

A  writing int16 volumes from memory, against plain files hashed with SHA-256 as they are written
B  converting DICOM series with two worker processes, against one
C  memory of `python -m helpers convert`, for few and for many cases
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from _harness import entry, peak_of_tree, write_json
from _sizes import QUICK, Sizes, scratch
from _workload import dicom_set
from _writing import compare_workers, compare_writing

HERE = Path(__file__).resolve().parent
DATA_DIR = HERE.parent / "data"


# Part C: memory


def compare_memory(sizes: Sizes, data_dir: Path) -> list[dict]:
    small = (sizes.small_slices, sizes.small_pixels)
    sets = {
        "few": (sizes.few, *small),
        "many": (sizes.many, *small),
        "large": (sizes.series, sizes.slices, sizes.pixels),
    }
    peaks = {}
    print("\nC. Peak memory of `python -m helpers convert dicom --workers 2`")
    for name, (count, slices, pixels) in sets.items():
        folder, _ = dicom_set(data_dir, count, slices, pixels)
        with scratch(data_dir) as root:
            command = [sys.executable, "-m", "helpers", "convert", "dicom"]
            command += [str(folder / "series"), str(root / "out"), "--workers", "2"]
            parent, others = peak_of_tree(command, HERE.parent)
        case_mb = slices * pixels * pixels * 2 / 1e6
        peaks[name] = (parent / 1e6, others[0] / 1e6, case_mb)
        print(
            f"  {count:4} cases of {case_mb:6.2f} MB: {parent / 1e6:6.1f} MB in the parent, "
            f"{others[0] / 1e6:6.1f} MB in the larger worker"
        )
    (few_parent, few, small_mb), (many_parent, many, _), (_, large, large_mb) = peaks.values()
    grows = (large - few) / (large_mb - small_mb)
    per_file_kb = 1000 * (many_parent - few_parent) / ((sizes.many - sizes.few) * small[0])
    print(f"  a worker grows by {grows:.2f} x the size of its case,")
    print(f"  the parent by {per_file_kb:.1f} kB for each file that it has listed")
    name = f"convert, {sizes.many} cases, peak memory"
    return [
        entry(f"{name} of a worker", many, "MB", f"{sizes.few} cases", few),
        entry(f"{name} of the parent", many_parent, "MB", f"{sizes.few} cases", few_parent),
        entry("convert, peak memory of a worker for its case", grows, "x voxels", "one case", 1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, within a minute")
    parser.add_argument("--parts", default="ABC", help="which parts to run (default ABC)")
    parser.add_argument("--repeats", type=int, help="rounds of each part (default 5)")
    parser.add_argument("--json", type=Path, help="also write the comparisons to this file")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where input is kept")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    if options.repeats:
        sizes = dataclasses.replace(sizes, repeats=options.repeats)
    parts = {"A": compare_writing, "B": compare_workers, "C": compare_memory}
    entries = []
    for part, measure in parts.items():
        if part in options.parts.upper():
            entries += measure(sizes, options.data_dir)
    if options.json:
        write_json(options.json, entries)


if __name__ == "__main__":
    main()
