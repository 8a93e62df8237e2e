"""The parts of the benchmark of reading: who takes part, in which process, and what is asked."""

from __future__ import annotations

import dataclasses

from _contest import Asked, Part, Row, at_sizes
from _tuning_inputs import COUNTS, PICTURES, RECORDS_TOGETHER, SIZES

OURS, FLOOR, MONAI = "_tuning_ours.py", "_tuning_floor.py", "_tuning_monai.py"
TORCHIO, GRAIN = "_tuning_torchio.py", "_tuning_grain.py"
SMART, SMART_MONAI = "_tuning_smart.py", "_tuning_smart_monai.py"

ALL, SPARED = {"everywhere": True}, {"spared": True}
FLOOR_1, FLOOR_2 = "floor: NumPy, 1 thread", "floor: NumPy, 2 threads"
FLOORS = {
    FLOOR_1: Row(FLOOR, "memory", **ALL),
    FLOOR_2: Row(FLOOR, "memory", "2 threads", **ALL),
}
TUNED = {
    "MONAI CacheDataset, tuned": Row(MONAI, "cache", "tuned", **ALL),
    "MONAI CacheDataset, tuned, 2 workers": Row(MONAI, "cache", "tuned, workers", **SPARED),
    "MONAI ThreadDataLoader, tuned": Row(MONAI, "cache, thread", "tuned", **ALL),
    "MONAI SmartCacheDataset, tuned": Row(MONAI, "smart cache", "tuned"),
    "TorchIO Queue, 5 crops a volume": Row(TORCHIO, "memory", "tuned", **SPARED),
    "Grain, tuned": Row(GRAIN, "memory", "tuned"),
    "Grain, tuned, 2 workers": Row(GRAIN, "memory", "tuned, workers", **SPARED),
}
BATCH = "a batch of {batch} x {crop}"
MEMORY = Part(
    "A",
    f"A. Random crops from memory, {BATCH} float32 of int16 volumes",
    "from memory, random crops",
    {
        "crops.from_memory": Row(OURS, "memory", **ALL),
        "tf.data: crop, batch, cast": Row(OURS, "memory, stages", **ALL),
        "MONAI CacheDataset": Row(MONAI, "cache", **ALL),
        "MONAI CacheDataset, 2 workers": Row(MONAI, "cache", "workers", **SPARED),
        "MONAI SmartCacheDataset": Row(MONAI, "smart cache"),
        "TorchIO Queue": Row(TORCHIO, "memory"),
        "TorchIO Queue, 2 workers": Row(TORCHIO, "memory", "workers", **SPARED),
        "Grain": Row(GRAIN, "memory", whole=True),
        **TUNED,
        "MONAI, batches put together by hand": Row(MONAI, "cache, own collate_fn", "tuned", **ALL),
        "Grain, batches put together by hand": Row(GRAIN, "memory, own batch_fn", "tuned"),
        **FLOORS,
        "looking at a batch": Row(FLOOR, "nothing", kind="", **ALL),
    },
    (
        Asked(1, (FLOOR_2,), "the floor with as many threads"),
        Asked(4, ("MONAI CacheDataset",), "MONAI at its defaults"),
        Asked(1.5, tuple(TUNED), "the best tuned peer"),
    ),
)
ONE_CALL = Part(
    "A",
    f"A. The same, one after the other, {BATCH}",
    "from memory, 1 thread",
    {"crops.from_memory": Row(OURS, "memory, 1 call", **ALL), FLOOR_1: FLOORS[FLOOR_1]},
    (Asked(1, (FLOOR_1,), "the floor with as many threads"),),
    unit="ms a batch",
)
ALONE = Part(
    "A",
    f"A. The same, but nobody looks at the batches, {BATCH}",
    "from memory, not looked at",
    {
        "crops.from_memory": Row(OURS, "memory, not looked at", kind="thin"),
        "tf.data: crop, batch, cast": Row(OURS, "memory, stages, not looked at", kind="thin"),
        FLOOR_1: Row(FLOOR, "memory, not looked at", kind="thin"),
        FLOOR_2: Row(FLOOR, "memory, not looked at", "2 threads", kind="thin"),
    },
    (Asked(1, (FLOOR_2,), "the floor with as many threads"),),
)
FLOAT_LIST, GENERATOR = "float_list, as in 2018", "generator, as in 2018"
WHITENED, STORED = {"kind": "stored, whitened"}, {"kind": "stored"}
RECORDS = Part(
    "B",
    f"B. Stored crops from the page cache, {BATCH} float32",
    "from records",
    {
        "records, mapped": Row(OURS, "records, mapped", **WHITENED, **ALL),
        "records, streamed": Row(OURS, "records, streamed", **WHITENED, **ALL),
        FLOAT_LIST: Row(OURS, "float_list", **WHITENED, **ALL),
        "float_list, today's defaults": Row(OURS, "float_list, today", **WHITENED, **SPARED),
        GENERATOR: Row(OURS, "generator", kind="generator"),
        "MONAI PersistentDataset": Row(MONAI, "persistent", **STORED, **ALL),
        "MONAI PersistentDataset, tuned": Row(MONAI, "persistent", "tuned", **STORED, **ALL),
        "MONAI PersistentDataset, tuned, 2 workers": Row(
            MONAI, "persistent", "tuned, workers", **STORED, **SPARED
        ),
        "Grain, .npy files": Row(GRAIN, "files", **STORED, whole=True),
        "Grain, .npy files, tuned": Row(GRAIN, "files", "tuned", **STORED),
        "floor: NumPy, mapped files": Row(FLOOR, "files", **STORED, **ALL),
    },
    (Asked(4, (FLOAT_LIST,), "float_list"), Asked(25, (GENERATOR,), "the generator")),
)
NIFTI = Part(
    "C",
    f"C. Random crops from .nii.gz files, {BATCH} float32",
    "from NIfTI",
    {
        "pipeline.classification": Row(OURS, "nifti"),
        "pipeline.classification, cached": Row(OURS, "nifti, cached"),
        "pipeline.PythonBatches, 2 workers": Row(OURS, "nifti, Python", "2 workers", **SPARED),
        GENERATOR: Row(OURS, "generator", kind="generator"),
        "MONAI Dataset": Row(MONAI, "nifti"),
        "MONAI Dataset, 2 workers": Row(MONAI, "nifti", "workers", **SPARED),
        "TorchIO Queue": Row(TORCHIO, "nifti"),
        "TorchIO Queue, 2 workers": Row(TORCHIO, "nifti", "workers", **SPARED),
    },
)
UNCHANGED = "the same, nothing replaced"
EPOCHS = tuple(
    Part(
        "D",
        f"D. An epoch of training on crops from {name}",
        f"epoch with {name}",
        {name: Row(file, "smart cache", kind=""), UNCHANGED: Row(file, "plain cache", kind="")},
        (Asked(1 / 1.1, (UNCHANGED,), "a cache that replaces nothing"),) if file == SMART else (),
        item="an epoch",
        unit="ms an epoch",
    )
    for name, file in (("SmartCache", SMART), ("MONAI SmartCacheDataset", SMART_MONAI))
)
BY_HAND = "the same stages by hand"
FUNCTIONS = tuple(
    Part(
        "E",
        f"E. `pipeline.{function}` {words}, {BATCH} float32",
        f"pipeline.{function} {words}",
        {
            f"pipeline.{function}": Row(OURS, words, kind=kind),
            BY_HAND: Row(OURS, f"{words}, by hand", kind=kind),
        },
        (Asked(1 / 1.05, (BY_HAND,), BY_HAND),),
        unit="ms a batch",
    )
    for function, words, kind in (
        ("segmentation", "from memory", "drawn"),
        ("classification", "from records", "stored"),
    )
)
COUNTED = tuple(
    Part(
        "F",
        f"F. Records of {{record}} int16, {kind}: opened, checked, read once as float32",
        f"an epoch of 1,000 records, {kind}",
        {
            f"{count:,} records": Row(
                OURS, f"{count}, {kind}", kind="", items=count // RECORDS_TOGETHER
            )
            for count in reversed(COUNTS)
        },
        item="an epoch",
        unit="ms an epoch",
    )
    for kind in ("mapped", "streamed")
)
NOT_RECORDED = "not recorded"
RECORDED = Part(
    "G",
    f"G. `crops.random` and `batch` with and without a Timeline, {BATCH}",
    "with a Timeline",
    {"recorded": Row(OURS, "recorded", **ALL), NOT_RECORDED: Row(OURS, "not recorded", **ALL)},
    (Asked(1 / 1.03, (NOT_RECORDED,), "the same, not recorded"),),
    unit="ms a batch",
)
ORDER = (MEMORY, ONE_CALL, ALONE, RECORDS, NIFTI, *EPOCHS, *FUNCTIONS, *COUNTED, RECORDED)
AT_SIZES = (MEMORY, ONE_CALL, RECORDS, RECORDED)  # the others at the usual one alone


def parts(quick: bool) -> list[Part]:
    """All comparisons at all sizes, those of a letter together."""
    made = []
    for part in ORDER:
        sizes = SIZES if part in AT_SIZES or quick else {"usual": SIZES["usual"]}
        elements = 1 if part.letter in "DF" else 5
        made += at_sizes(dataclasses.replace(part, elements=elements), sizes, quick)
        if part is RECORDS and not quick:
            made += pictures()
    named = (f"{one.name}, {{batch}} x {{crop}}" for one in made)
    return [
        one if one.size == "usual" else dataclasses.replace(one, name=name)
        for one, name in zip(made, named, strict=True)
    ]


def pictures() -> list[Part]:
    """Part B for thousands of small records."""
    made = []
    for size, told in PICTURES.items():
        items = {"items": told["items"], "units": told["items"], "ends": told["items"] // 2}
        rows = {
            name: dataclasses.replace(row, **items)
            for name, row in RECORDS.rows.items()
            if row.everywhere and row.file != MONAI
        }
        one = dataclasses.replace(RECORDS, rows=rows, elements=32)
        made.append(one.at(size, told, quick=False))
    return made
