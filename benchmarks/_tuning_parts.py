"""The parts of the benchmark of reading: who takes part, in which process, and what is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

OURS, FLOOR, MONAI = "_tuning_ours.py", "_tuning_floor.py", "_tuning_monai.py"
PUBLISHED, TORCHIO, GRAIN = "_tuning_published.py", "_tuning_torchio.py", "_tuning_grain.py"
WHOLE, SMART, SMART_MONAI = "_tuning_whole.py", "_tuning_smart.py", "_tuning_smart_monai.py"
PEERS = (MONAI, TORCHIO, GRAIN, SMART_MONAI)  # live in benchmarks/.venv


@dataclasses.dataclass(frozen=True)
class Row:
    """One contender; in a full run it has a process of its own, in a quick one it may share.

    Args:
        file: of the contenders.
        contender: its name there.
        style: what its process is told.
        pace: "fast", "medium" or "slow", which says how many batches a pass has.
        kind: what its batches are: "drawn" crops, "generator", "stored" crops, "stored, whitened",
            "thin" ones, of which a few voxels are looked at, or "" for anything else.
        spared: by a quick run, which has a minute.
        records: of one pass, which is an epoch, timed from its beginning; 0 for anything else.
        whole: time all of a pass, for a contender that would make it before the clock starts.
    """

    file: str
    contender: str
    style: str = "plain"
    pace: str = "fast"
    kind: str = "drawn"
    spared: bool = False
    records: int = 0
    whole: bool = False

    @property
    def among_peers(self) -> bool:
        """Whether it lives in the environment of the peers."""
        return self.file in PEERS


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the course is to reach: at least `factor` times as quick as the quickest of some rows.

    Args:
        factor: below 1, the course may take longer.
        rows: by their whole names.
        against: what they are called together.
    """

    factor: float
    rows: tuple[str, ...]
    against: str


@dataclasses.dataclass(frozen=True)
class Part:
    """One comparison.

    Args:
        letter: to choose it by; two parts may share one.
        title: of the printed table.
        name: of its entries in the JSON file, and so of a column of README's table.
        rows: row -> contender, the course's first.
        asked: what should come out.
        unit: of the entries; those in plain "ms" share README's large table.
    """

    letter: str
    title: str
    name: str
    rows: Mapping[str, Row]
    asked: tuple[Asked, ...] = ()
    unit: str = "ms"

    @property
    def ours(self) -> str:
        """The row of the course."""
        return next(iter(self.rows))

    def contenders(self, quick: bool = False) -> dict[str, Row]:
        """Row -> contender, of those that take part."""
        return {name: row for name, row in self.rows.items() if not (quick and row.spared)}


FLOOR_1, FLOOR_2 = "floor: NumPy, 1 thread", "floor: NumPy, 2 threads"
TUNED = {
    "MONAI CacheDataset, tuned": Row(MONAI, "cache", "tuned"),
    "MONAI CacheDataset, tuned, 2 workers": Row(
        MONAI, "cache", "tuned, workers", "medium", spared=True
    ),
    "MONAI ThreadDataLoader, tuned": Row(MONAI, "cache, thread", "tuned"),
    "MONAI SmartCacheDataset, tuned": Row(MONAI, "smart cache", "tuned"),
    "TorchIO Queue, 5 crops a volume": Row(TORCHIO, "memory", "tuned", "medium", spared=True),
    "Grain, tuned": Row(GRAIN, "memory", "tuned"),
    "Grain, tuned, 2 workers": Row(GRAIN, "memory", "tuned, workers", "medium", spared=True),
}
MEMORY = Part(
    "A",
    "A. Random crops from memory, a batch of {batch} x {shape} float32 of int16 volumes",
    "from memory, random crops",
    {
        "crops.from_memory": Row(OURS, "memory"),
        "tf.data: crop, batch, cast": Row(OURS, "memory, stages"),
        "MONAI CacheDataset": Row(MONAI, "cache", "plain", "medium"),
        "MONAI CacheDataset, 2 workers": Row(MONAI, "cache", "workers", "medium", spared=True),
        "MONAI SmartCacheDataset": Row(MONAI, "smart cache", "plain", "medium"),
        "TorchIO Queue": Row(TORCHIO, "memory", "plain", "medium"),
        "TorchIO Queue, 2 workers": Row(TORCHIO, "memory", "workers", "medium", spared=True),
        "Grain": Row(GRAIN, "memory", "plain", "medium", whole=True),
        **TUNED,
        "MONAI, batches put together by hand": Row(MONAI, "cache, own collate_fn", "tuned"),
        "Grain, batches put together by hand": Row(GRAIN, "memory, own batch_fn", "tuned"),
        FLOOR_1: Row(FLOOR, "memory"),
        FLOOR_2: Row(FLOOR, "memory", "2 threads"),
        "looking at a batch": Row(FLOOR, "nothing", kind=""),
    },
    (
        Asked(1 / 1.25, (FLOOR_1,), "the floor"),
        Asked(4, ("MONAI CacheDataset",), "MONAI at its defaults"),
        Asked(1.5, tuple(TUNED), "the best tuned peer"),
    ),
)
ALONE = Part(
    "A",
    "   The same, but nobody looks at the batches",
    "from memory, not looked at",
    {
        "crops.from_memory": Row(OURS, "memory, not looked at", kind="thin"),
        "tf.data: crop, batch, cast": Row(OURS, "memory, stages, not looked at", kind="thin"),
        FLOOR_1: Row(FLOOR, "memory, not looked at", kind="thin"),
        FLOOR_2: Row(FLOOR, "memory, not looked at", "2 threads", kind="thin"),
    },
    (Asked(1 / 1.25, (FLOOR_1,), "the floor"),),
)
FLOAT_LIST, GENERATOR = "float_list, as in 2018", "generator, as in 2018"
FLOOR_FILES = "floor: NumPy, mapped files"
RECORDS = Part(
    "B",
    "B. Stored crops from the page cache, a batch of {batch} x {shape} float32",
    "from records",
    {
        "records, mapped": Row(OURS, "records, mapped", kind="stored, whitened"),
        "records, streamed": Row(OURS, "records, streamed", kind="stored, whitened"),
        FLOAT_LIST: Row(PUBLISHED, "float_list", pace="medium", kind="stored, whitened"),
        "float_list, today's defaults": Row(
            PUBLISHED, "float_list, today", pace="medium", kind="stored, whitened", spared=True
        ),
        GENERATOR: Row(PUBLISHED, "generator", pace="slow", kind="generator"),
        "MONAI PersistentDataset": Row(MONAI, "persistent", "plain", "medium", "stored"),
        "MONAI PersistentDataset, tuned": Row(MONAI, "persistent", "tuned", "medium", "stored"),
        "MONAI PersistentDataset, tuned, 2 workers": Row(
            MONAI, "persistent", "tuned, workers", "medium", "stored", spared=True
        ),
        "Grain, .npy files": Row(GRAIN, "files", "plain", "medium", "stored", whole=True),
        "Grain, .npy files, tuned": Row(GRAIN, "files", "tuned", "medium", "stored"),
        FLOOR_FILES: Row(FLOOR, "files", kind="stored"),
    },
    (Asked(4, (FLOAT_LIST,), "float_list"), Asked(25, (GENERATOR,), "the generator")),
)
SLOW = {"pace": "slow"}
NIFTI = Part(
    "C",
    "C. Random crops from .nii.gz files, a batch of {batch} x {shape} float32",
    "from NIfTI",
    {
        "pipeline.classification": Row(WHOLE, "nifti", **SLOW),
        "pipeline.classification, cached": Row(WHOLE, "nifti, cached"),
        "pipeline.PythonBatches, 2 workers": Row(WHOLE, "nifti, Python", spared=True, **SLOW),
        GENERATOR: Row(PUBLISHED, "generator", kind="generator", **SLOW),
        "MONAI Dataset": Row(MONAI, "nifti", **SLOW),
        "MONAI Dataset, 2 workers": Row(MONAI, "nifti", "workers", spared=True, **SLOW),
        "TorchIO Queue": Row(TORCHIO, "nifti", **SLOW),
        "TorchIO Queue, 2 workers": Row(TORCHIO, "nifti", "workers", spared=True, **SLOW),
    },
)
UNCHANGED = "the same, nothing replaced"
EPOCHS = tuple(
    Part(
        "D",
        f"{mark} An epoch of training on crops from {name}",
        f"epoch with {name}",
        {name: Row(file, "smart cache", kind=""), UNCHANGED: Row(file, "plain cache", kind="")},
        (Asked(1 / 1.1, (UNCHANGED,), "a cache that replaces nothing"),) if file == SMART else (),
        unit="ms an epoch",
    )
    for mark, name, file in (
        ("D.", "SmartCache", SMART),
        ("  ", "MONAI SmartCacheDataset", SMART_MONAI),
    )
)
BY_HAND = "the same stages by hand"
FUNCTIONS = tuple(
    Part(
        "E",
        f"{mark} `pipeline.{function}` {words}, a batch of {{batch}} x {{shape}} float32",
        f"pipeline.{function} {words}",
        {
            f"pipeline.{function}": Row(WHOLE, words, kind=kind),
            BY_HAND: Row(WHOLE, f"{words}, by hand", kind=kind),
        },
        (Asked(1 / 1.05, (BY_HAND,), "the same stages by hand"),),
        unit="ms a batch",
    )
    for mark, function, words, kind in (
        ("E.", "segmentation", "from memory", "drawn"),
        ("  ", "classification", "from records", "stored"),
    )
)
COUNTED = tuple(
    Part(
        "F",
        f"{mark} Records of {{small}} int16, {kind}: opened, checked, read once as float32",
        f"an epoch of 1,000 records, {kind}",
        {
            f"{count:,} records": Row(OURS, f"{count}, {kind}", kind="", records=count)
            for count in (1000, 100, 10)
        },
        unit="ms an epoch",
    )
    for mark, kind in (("F.", "mapped"), ("  ", "streamed"))
)
RECORDED = Part(
    "G",
    "G. `crops.random` and `batch` with and without a Timeline, a batch of {batch} x {shape}",
    "with a Timeline",
    {
        "recorded": Row(WHOLE, "recorded"),
        "not recorded": Row(WHOLE, "not recorded"),
    },
    (Asked(1 / 1.03, ("not recorded",), "the same, not recorded"),),
    unit="ms a batch",
)
PARTS = (MEMORY, ALONE, RECORDS, NIFTI, *EPOCHS, *FUNCTIONS, *COUNTED, RECORDED)
