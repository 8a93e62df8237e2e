"""The parts of the augmentation benchmark: who takes part, in which process, and what is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

OURS = "ours"
# Worker -> the file of its contenders, its style, and whether it lives among the peers.
WORKERS = {
    OURS: ("_augment_ours.py", "plain", False),
    "MONAI": ("_augment_monai.py", "plain", True),
    "MONAI, 2 workers": ("_augment_monai.py", "workers", True),
    "MONAI, tuned": ("_augment_monai.py", "tuned", True),
    "MONAI, tuned, 2 workers": ("_augment_monai.py", "tuned, workers", True),
    "TorchIO": ("_augment_torchio.py", "plain", True),
    "TorchIO, 2 workers": ("_augment_torchio.py", "workers", True),
    "SciPy": ("_augment_scipy.py", "plain", False),
    "SciPy, 2 threads": ("_augment_scipy.py", "workers", False),
}
SPARED = ("MONAI, 2 workers", "TorchIO, 2 workers")  # by a quick run, which has a minute
MONAI = [name for name in WORKERS if name.startswith("MONAI")]


@dataclasses.dataclass(frozen=True)
class Part:
    """One comparison.

    Args:
        letter: to choose it by; two parts may share one.
        title: of the printed table.
        name: of its entries in the JSON file, and so of a column of the README's table.
        ours: row of the course, contender of its worker.
        rows: row -> (worker, contender).
        asked: beginning of a row's name -> by what factor the course should be ahead.
        kind: "volumes", "pictures" or "crops".
        per: items that a time is for.
        slow: rows of which a pass has fewer items.
    """

    letter: str
    title: str
    name: str
    ours: tuple[str, str]
    rows: Mapping[str, tuple[str, str]]
    asked: Mapping[str, float]
    kind: str = "volumes"
    per: int = 1
    slow: tuple[str, ...] = ()

    def contenders(self, quick: bool = False) -> dict[str, tuple[str, str]]:
        """Row -> (worker, contender), the course's first."""
        row, contender = self.ours
        rows = {row: who for row, who in self.rows.items() if not (quick and who[0] in SPARED)}
        return {row: (OURS, contender), **rows}


def _each(workers: list[str], contender: str) -> dict[str, tuple[str, str]]:
    return {worker: (worker, contender) for worker in workers}


STAGE = "augment.stage"
ELASTIC_ALONE = "TorchIO, elastic alone"
TORCHIO, SCIPY = ["TorchIO", "TorchIO, 2 workers"], ["SciPy", "SciPy, 2 threads"]
PARTS = (
    Part(
        "A",
        "A. Elastic and affine warp of image and mask, {edge} cubed, a volume",
        "elastic + affine, {edge} cubed",
        (STAGE, "elastic"),
        _each(MONAI, "elastic")
        | {ELASTIC_ALONE: ("TorchIO", "elastic alone")}
        | {f"{ELASTIC_ALONE}, 2 workers": ("TorchIO, 2 workers", "elastic alone")}
        | _each(TORCHIO, "elastic")
        | {"TorchIO, composed": ("TorchIO", "elastic, composed")}
        | _each(SCIPY, "elastic")
        | {"SimpleITK": ("SciPy", "SimpleITK")},
        {"MONAI": 12, ELASTIC_ALONE: 50},
        slow=(
            ELASTIC_ALONE,
            f"{ELASTIC_ALONE}, 2 workers",
            *TORCHIO,
            "TorchIO, composed",
            "SimpleITK",
        ),
    ),
    Part(
        "B",
        "B. Affine warp of image and mask, {edge} cubed, a volume",
        "affine, {edge} cubed",
        (STAGE, "affine"),
        _each([*MONAI, *TORCHIO, *SCIPY], "affine"),
        {"MONAI": 3},
    ),
    Part(
        "C",
        "C. JPEG and PNG files to {picture} x {picture}, flipped, rotated, a batch of {batch}",
        "{picture} x {picture} from files",
        (STAGE, "files"),
        _each(MONAI, "files"),
        {"MONAI": 4},
        kind="pictures",
    ),
    Part(
        "C",
        "   The same from a cache of uint8 pictures",
        "{picture} x {picture} from a cache",
        (STAGE, "cache"),
        _each(MONAI, "cache"),
        {"MONAI": 6},
        kind="pictures",
    ),
    Part(
        "D",
        "D. {crops} crops of {crop} cubed from each of {per} int16 volumes of {crop_shape}",
        "{crops} crops of {crop} cubed, image",
        ("crops.random", "crops"),
        {f"NumPy, {kind} array": ("SciPy", f"crops, {kind}") for kind in ("fresh", "warm")}
        | _each(MONAI, "crops"),
        {"NumPy": 1 / 1.5},
        kind="crops",
        per=100,
    ),
    Part(
        "D",
        "   The same of images and masks, half of them about the foreground",
        "{crops} crops of {crop} cubed, image + mask",
        ("crops.pos_neg", "crops of pairs"),
        {f"NumPy, {kind} array": ("SciPy", f"crops of pairs, {kind}") for kind in ("fresh", "warm")}
        | _each(MONAI, "crops of pairs"),
        {"NumPy": 1 / 1.5},
        kind="crops",
        per=100,
    ),
)
