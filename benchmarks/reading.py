"""Reading: how long does a batch take from memory, from records, from NIfTI, here and elsewhere?

The workload is that of a benchmark published in 2018, batches of 5 x 128x224x224 float32.

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

import dataclasses
import json
from pathlib import Path

import harness
import numpy as np
import picture
from harness import Part, Workers, row
from workloads import COUNTS, READING, SMALL_RECORDS, TOGETHER, heads, small_records

ALL, NPY = {"everywhere": True}, {"dtype": "float32"}
STORED, WHITENED = {"kind": "stored"}, {"kind": "whitened"}
FLOORS = {
    "floor: NumPy, 1 thread": row("floors.crops", **NPY, **ALL),
    "floor: NumPy, 2 threads": row("floors.crops", threads=2, **NPY, **ALL),
}
MONAI, TUNED = "monai.from_memory", {"tuned": True}
MEMORY = {
    "crops.from_memory": row("ours_batches.from_memory", num_parallel_calls=2, **ALL),
    "tf.data: crop, batch, cast": row("ours_batches.in_stages", **ALL),
    "MONAI CacheDataset": row(MONAI, **ALL),
    "MONAI CacheDataset, 2 workers": row(MONAI, workers=2),
    "MONAI SmartCacheDataset": row("monai.smart_cached"),
    "TorchIO Queue": row("torchio.from_memory"),
    "TorchIO Queue, 2 workers": row("torchio.from_memory", workers=2),
    "Grain": row("grain.from_memory", whole=True),
    "MONAI CacheDataset, tuned": row(MONAI, **TUNED, **ALL),
    "MONAI CacheDataset, tuned, 2 workers": row(MONAI, workers=2, **TUNED),
    "MONAI ThreadDataLoader, tuned": row(MONAI, threads=1, **TUNED, **ALL),
    "MONAI SmartCacheDataset, tuned": row("monai.smart_cached", **TUNED),
    "TorchIO Queue, 5 crops a volume": row("torchio.from_memory", each=5),
    "Grain, tuned": row("grain.from_memory", **TUNED),
    "Grain, tuned, 2 workers": row("grain.from_memory", workers=2, **TUNED),
    "MONAI, batches put together by hand": row(MONAI, by_hand=True, **TUNED, **ALL),
    "Grain, batches put together by hand": row("grain.from_memory", by_hand=True),
    **FLOORS,
    "looking at a batch": row("floors.nothing", kind="", **ALL),
}
ONE_CALL = {
    "crops.from_memory": row("ours_batches.from_memory", num_parallel_calls=1, **ALL),
    "floor: NumPy, 1 thread": FLOORS["floor: NumPy, 1 thread"],
}
NOT_LOOKED_AT = {
    name: dataclasses.replace(one, look="thin", everywhere=False)
    for name, one in MEMORY.items()
    if one.module in ("ours_batches", "floors") and one.kind
}
RECORDS = {
    "records, mapped": row("ours_batches.stored", mapped=True, **WHITENED, **ALL),
    "records, streamed": row("ours_batches.stored", mapped=False, **WHITENED, **ALL),
    "float_list, as in 2018": row("published.float_list", as_in_2018=True, **WHITENED, **ALL),
    "float_list, today's defaults": row("published.float_list", as_in_2018=False, **WHITENED),
    "generator, as in 2018": row("published.generator", kind="generator"),
    "MONAI PersistentDataset": row("monai.persistent", **STORED, **ALL),
    "MONAI PersistentDataset, tuned": row("monai.persistent", **TUNED, **STORED, **ALL),
    "MONAI PersistentDataset, tuned, 2 workers": row(
        "monai.persistent", workers=2, **TUNED, **STORED
    ),
    "Grain, .npy files": row("grain.from_files", whole=True, **STORED),
    "Grain, .npy files, tuned": row("grain.from_files", **TUNED, **STORED),
    "floor: NumPy, mapped files": row("floors.mapped_files", **STORED, **ALL),
}
NIFTI = {
    "pipeline.classification": row("ours_batches.from_nifti", cache=False),
    "pipeline.classification, cached": row("ours_batches.from_nifti", cache=True),
    "pipeline.PythonBatches, 2 workers": row("ours_batches.python_batches", workers=2),
    "generator, as in 2018": row("published.generator", kind="generator"),
    "MONAI Dataset": row("monai.from_nifti"),
    "MONAI Dataset, 2 workers": row("monai.from_nifti", workers=2),
    "TorchIO Queue": row("torchio.from_nifti"),
    "TorchIO Queue, 2 workers": row("torchio.from_nifti", workers=2),
}
EPOCHS = {"SmartCache": "ours_batches", "MONAI SmartCacheDataset": "monai"}
BY_HAND = "the same stages by hand"
SEGMENTATION = {
    "pipeline.segmentation": row("ours_batches.segmentation"),
    BY_HAND: row("ours_batches.segmentation", by_hand=True),
}
CLASSIFICATION = {
    "pipeline.classification": row("ours_batches.classification", **STORED),
    BY_HAND: row("ours_batches.classification", by_hand=True, **STORED),
}
TIMELINE = {
    "recorded": row("ours_batches.timeline", recorded=True, **ALL),
    "not recorded": row("ours_batches.timeline", recorded=False, **ALL),
}


def epochs(module: str, name: str) -> dict:
    """Two epochs make a pass; both rows share a process, in which one thread computes."""
    how = {"kind": "", "items": 2, "units": 2, "process": f"epochs, {module}"}
    smart, plain = (row(f"{module}.trained", smart=smart, **how) for smart in (True, False))
    return {name: smart, "the same, nothing replaced": plain}


def counted(mapped: bool) -> dict:
    """An epoch of each set, with all that comes before its first batch."""
    how = {"kind": "", "mapped": mapped}
    return {
        f"{n:,} records": row("ours_batches.counted", number=n, items=n // TOGETHER, **how)
        for n in reversed(COUNTS)
    }


def small(count: int, batch: int, **_) -> dict:
    """Thousands of records: a pass is two epochs, of which one is timed, from its middle on."""
    batches = count // batch
    how = {"items": batches, "units": batches, "ends": batches // 2}
    return {
        k: dataclasses.replace(one, **how)
        for k, one in RECORDS.items()
        if one.everywhere and one.module != "monai"
    }


def parts(options) -> list[Part]:
    """All comparisons at all sizes, those of a letter together."""
    made = []
    usual = {size: told for size, told in READING.items() if size in ("smoke", "small", "usual")}

    def add(letter, name, rows, item="a batch", unit="ms", elements=5, sizes=READING) -> None:
        part = Part(letter, name, rows, heads, item, elements, unit)
        for one in harness.at_sizes(part, sizes, options):
            words = "" if one.size == "usual" else ", {batch} x {crop}"
            made.append(one.but(name=name + words))

    once = {size: told for size, told in usual.items() if options.short or size == "usual"}
    add("A", "from memory, random crops", MEMORY)
    add("A", "from memory, 1 thread", ONE_CALL, unit="ms a batch")
    add("A", "from memory, not looked at", NOT_LOOKED_AT, sizes=once)
    add("B", "from records", RECORDS)
    for size, told in {} if options.short else SMALL_RECORDS.items():
        part = Part("B", "from records, {batch} x {crop}", small(**told), small_records)
        made += harness.at_sizes(part.but(elements=told["batch"]), {size: told}, options)
    add("C", "from NIfTI", NIFTI, sizes=once)
    epoch = ("an epoch", "ms an epoch", 1, once)
    for name, module in EPOCHS.items():
        add("D", f"epoch with {name}", epochs(module, name), *epoch)
    for name, rows in (
        ("pipeline.segmentation from memory", SEGMENTATION),
        ("pipeline.classification from records", CLASSIFICATION),
    ):
        add("E", name, rows, unit="ms a batch", sizes=once)
    for kind in ("mapped", "streamed"):
        rows = counted(kind == "mapped")
        add("F", f"an epoch of 1,000 records, {kind}", rows, *epoch)
    add("G", "with a Timeline", TIMELINE, unit="ms a batch")
    return made


def compare(part: Part, workers: Workers, options) -> list[dict]:
    job = part.job(options.data_dir)
    turns = harness.measure(part, job, workers, options)
    entries = harness.report(part, turns, job)
    if part.letter == "D" and turns:
        entries += report_exchanges(part, job, workers)
    if part.letter == "F":
        entries += report_growth(part, turns)
    return entries


def report_exchanges(part: Part, job: dict, workers: Workers) -> list[dict]:
    """Print how long exchanges took, and give the course's entry."""
    module = part.rows[part.ours].module
    asked = row("epochs.exchanges", process=f"epochs, {module}")
    (seconds,) = workers.ask(asked, "tell", job)["told"]
    waited, swapped = (1000 * np.array(seconds)).T
    print(f"waited {np.median(waited):.1f} ms for exchanges, at most {waited.max():.1f}")
    print(f"exchanged in {np.median(swapped):.3f} ms, at most {swapped.max():.3f}")
    longest, name = max(swapped.max(), 1e-3), "smart cache, longest swap"
    ours = module != "monai"
    return [harness.entry(name, longest, "ms a swap", "what is asked for", 50)] if ours else []


def report_growth(part: Part, turns: dict) -> list[dict]:
    """What one record more takes, among few and among many: an entry.

    The difference between two sets is free of what an epoch takes however short it is.
    """
    few, some, many = (np.median([ms for ms, _ in turns[f"{n:,} records"]]) for n in COUNTS)
    among_few = (some - few) / (COUNTS[1] - COUNTS[0])
    among_many = (many - some) / (COUNTS[2] - COUNTS[1])
    print(f"a record more takes {among_few:.3f} ms among few, {among_many:.3f} ms among many")
    if min(among_few, among_many) <= 0:  # lost in the noise, as in a quick run
        return []
    name = f"a record more, {COUNTS[1]} to {COUNTS[2]:,}, {part.name.rpartition(', ')[2]}"
    between = f"{COUNTS[0]} to {COUNTS[1]}"
    return [harness.entry(name, among_many, "ms a record", between, among_few)]


if __name__ == "__main__":
    parser = harness.arguments(__doc__, "ABCDEFG")
    parser.add_argument("--picture", type=Path, help="also draw the comparisons into this PNG")
    parser.add_argument("--of", type=Path, help="draw those of this JSON file, measure nothing")
    options = harness.parsed(parser)
    if options.of:
        entries = json.loads(options.of.read_text(encoding="utf-8"))
    else:
        entries = harness.run(options, parts(options), compare)
    if options.picture:
        groups = [
            ("Random crops from memory", "from memory, random crops", MEMORY, False),
            ("Stored crops from the page cache", "from records", RECORDS, False),
            ("Random crops from .nii.gz", "from NIfTI", NIFTI, True),
        ]
        groups = [(*names, next(iter(rows)), workers) for *names, rows, workers in groups]
        picture.write(options.picture, entries, groups)
