"""Records: how fast are they written and read, and how much memory does the converter take?

    .venv/bin/python benchmarks/records.py [--quick] [--parts ABCD] [--tried] [--json PATH]

Runs in the course's own environment, because the reading part compares TensorFlow pipelines; the
environment in benchmarks/.venv has no TensorFlow. Four parts:

A  writing int16 volumes from memory, against plain files hashed with SHA-256 as they are written
B  converting DICOM series with two worker processes, against one
C  reading the published benchmark, 5 x 128x224x224 float32 a batch, against its own pipelines;
   then small volumes, and thousands of small pictures
D  memory of `python -m helpers convert`, for few and for many cases

`--tried` adds to part C what was tried to make reading quicker, and what each change gave.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from _harness import compare, entry, in_fresh_processes, peak_of_tree, print_times, write_json
from _sizes import QUICK, Sizes, scratch
from _workload import (
    SALT,
    Workload,
    dicom_set,
    load_crop,
    picture_workload,
    reading_workload,
)
from _writing import compare_workers, compare_writing

from helpers import records

HERE = Path(__file__).resolve().parent
DATA_DIR = HERE.parent / "data"


# Part C: reading


def compare_reading(sizes: Sizes, data_dir: Path, tried: bool) -> list[dict]:
    """The published benchmark, then small volumes and pictures beside its float lists alone."""
    from _reading import SMALL

    work = reading_workload(data_dir, sizes.subjects, sizes.head, sizes.crop)
    entries = read_batches(work, sizes, data_dir, tried)
    small = [reading_workload(data_dir, *sizes.small)] if sizes.small else []
    small += [picture_workload(data_dir, count, side) for count, side in sizes.pictures]
    for work in small:
        entries += read_batches(work, sizes, data_dir, tried=False, only=SMALL)
    return entries


def read_batches(
    work: Workload, sizes: Sizes, data_dir: Path, tried: bool, only: Sequence[str] = ()
) -> list[dict]:
    """Batches of one workload, from the contenders of these names, or of the usual kinds."""
    from _reading import CONTENDERS, OURS, STREAMED

    kinds = ("records", "published", "floor", *(["tried"] if tried else []))
    chosen = {
        name: one
        for name, one in CONTENDERS.items()
        if (name in only if only else one.kind in kinds and (one.quick or not sizes.is_quick))
    }
    with scratch(data_dir) as root:
        for count in {one.shards for one in chosen.values()}:
            write_crops(work, root / str(count), count)
        commands = {}
        for name, one in chosen.items():
            batches = sizes.slow_batches if one.slow else sizes.batches * (4 if only else 1)
            command = [sys.executable, str(HERE / "_reading.py"), name, str(work.folder)]
            commands[name] = [*command, str(root / str(one.shards)), "--batches", str(batches)]
        env = {name: one.env for name, one in chosen.items()}
        results = in_fresh_processes(commands, sizes.processes, "C", env)

    times_ms = {name: [one["ms"] for one in results[name]] for name in chosen}
    shape = "x".join(map(str, work.crop))
    for kind, title in (
        ("published", f"C. Reading batches of {work.batch} x {shape} float32, from the page cache"),
        ("floor", "   What the machine needs to move such a batch"),
        ("tried", "   What was tried; each line changes `records, streamed` in one thing"),
    ):
        beside = [OURS, STREAMED] if kind != "floor" else [OURS]
        names = beside + [name for name, one in chosen.items() if one.kind == kind]
        if len(names) > 1:
            print_times(title, names, {name: times_ms[name] for name in names}, OURS)
    batches_of = f"{work.batch} x {shape}"
    if only:
        entries = compare(f"{OURS}, {batches_of}", times_ms, OURS)
        del times_ms[OURS]
        return entries + compare(f"{STREAMED}, {batches_of}", times_ms, STREAMED)
    crc = zlib.crc32(json.dumps(results[OURS][0]["crcs"]).encode())
    print(
        f"  all pipelines gave the same {len(work.subjects)} examples, bit for bit (CRC-32 of "
        f"their CRCs {crc:08x}); the generator's were compared with its own draws"
    )
    print("  processor time of a batch, ms:")
    for name, several in results.items():
        if chosen[name].kind == "floor":
            continue
        print(f"    {name:42} {statistics.median(one['cpu_ms'] for one in several):6.1f}")
    print("  asked for: at least 4 x the float_list pipeline, at least 25 x the generator")
    return compare(f"{OURS}, {batches_of}", times_ms, OURS)


def write_crops(work: Workload, folder: Path, shards: int) -> None:
    """The stored crops as records; the page cache holds them afterwards."""
    schema = "volume" if len(work.crop) == 3 else "classification"
    records.write(
        folder, work.found(), schema, load_crop,
        salt=SALT, classes=("male", "female"), shard_count=shards, workers=1, progress=False,
    )  # fmt: skip


# Part D: memory


def compare_memory(sizes: Sizes, data_dir: Path) -> list[dict]:
    small = (sizes.small_slices, sizes.small_pixels)
    sets = {
        "few": (sizes.few, *small),
        "many": (sizes.many, *small),
        "large": (sizes.series, sizes.slices, sizes.pixels),
    }
    peaks = {}
    print("\nD. Peak memory of `python -m helpers convert dicom --workers 2`")
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
    parser.add_argument("--parts", default="ABCD", help="which parts to run (default ABCD)")
    parser.add_argument("--tried", action="store_true", help="part C: also what was tried")
    parser.add_argument("--repeats", type=int, help="rounds of each part (default 5)")
    parser.add_argument("--json", type=Path, help="also write the comparisons to this file")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where input is kept")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    if options.repeats:
        repeats = {"repeats": options.repeats, "processes": options.repeats}
        sizes = dataclasses.replace(sizes, **repeats)
    parts = {
        "A": compare_writing,
        "B": compare_workers,
        "C": functools.partial(compare_reading, tried=options.tried),
        "D": compare_memory,
    }
    entries = []
    for part, measure in parts.items():
        if part in options.parts.upper():
            entries += measure(sizes, options.data_dir)
    if options.json:
        write_json(options.json, entries)


if __name__ == "__main__":
    main()
