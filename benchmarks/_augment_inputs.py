"""What the augmentation benchmark works on: torsos with their organs, and skin lesions in files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.lesson.phantoms import fresh_set, skin_lesions, torso
from helpers.lesson.phantoms.torso import ORGANS

# The same in meaning for everybody, in degrees and voxels. Control points `grid` apart are moved by
# up to `displacement` along each axis: TorchIO's default at 128 voxels. A cubic B-spline between
# them moves voxels by 1.4 rms along each axis; more than 12.8 could fold tissue over itself.
AMOUNTS = {"degrees": 15.0, "zoom": 0.1, "shift": 10.0, "displacement": 7.5, "grid": 32.0}
JOB = {"amounts": AMOUNTS, "volumes": 4, "batch": 32, "crops": 4}
# Edges of volumes and pictures; images from which crops are cut, and the crops.
VOLUMES = {
    size: {"edge": edge}
    for size, edge in (("small", 48), ("medium", 96), ("usual", 128), ("large", 160))
}
PICTURES = {
    size: {"picture": edge} for size, edge in (("small", 64), ("usual", 256), ("large", 512))
}
CROPS = {
    "small": {"whole": (64, 96, 96), "crop": (32, 32, 32)},
    "medium": {"whole": (96, 160, 160), "crop": (64, 64, 64)},
    "usual": {"whole": (160, 256, 256), "crop": (96, 96, 96)},
}
PICTURE_CROPS = {
    "small": {"whole": (64, 64), "crop": (32, 32)},
    "usual": {"whole": (256, 256), "crop": (128, 128)},
    "large": {"whole": (512, 512), "crop": (256, 256)},
}


def make(told: Mapping, data_dir: Path, quick: bool) -> dict[str, object]:
    """Make the input of a size unless it is there, and say where it lies.

    Returns:
        What the workers are told. `folder` has `image_0.npy` (int16 `[z, y, x]` or `[y, x]`),
        `mask_0.npy` (uint8) and so on; `pairs` are paths of pictures and masks.
    """
    if "picture" in told:
        pairs = make_pictures(64 if quick else 256, data_dir)
        return {**told, "pairs": [[str(image), str(mask)] for image, mask in pairs]}
    shape = tuple(told.get("whole", (told.get("edge"),) * 3))
    folder = make_volumes("crop" if "crop" in told else "warp", shape, data_dir)
    return {**told, "folder": str(folder)}


def make_volumes(kind: str, shape: tuple[int, ...], data_dir: Path) -> Path:
    """Torsos, or a slice of each. To warp, with all organs; to crop, with the liver alone."""
    count = JOB["volumes"]
    name = f"benchmark_augmentation_{kind}_{'x'.join(map(str, shape))}_{count}"
    with fresh_set(data_dir, name, 3, {"count": count, "shape": list(shape)}) as folder:
        if folder:
            for seed in tqdm(range(count), f"{name}, once", file=sys.stderr):
                patient = torso(seed, shape=shape if len(shape) == 3 else (8, *shape))
                image, mask = patient.volume.voxels, patient.organs
                if len(shape) == 2:
                    image, mask = image[4], mask[4]
                if kind == "crop":
                    mask = (mask == ORGANS["liver"]).astype(np.uint8)
                np.save(folder / f"image_{seed}.npy", image, allow_pickle=False)
                np.save(folder / f"mask_{seed}.npy", mask, allow_pickle=False)
    return data_dir / name


def make_pictures(count: int, data_dir: Path) -> list[tuple[Path, Path]]:
    """JPEG images of about 600 x 450 pixels with their PNG masks, 0 and 255."""
    root = skin_lesions(data_dir / f"benchmark_augmentation_pictures_{count}", count)
    images = sorted((root / "images").glob("*.jpg"))
    return [(path, root / "masks" / f"{path.stem}_segmentation.png") for path in images]


def load(job: Mapping, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of one volume."""
    names = (f"image_{number}.npy", f"mask_{number}.npy")
    image, mask = (np.load(Path(job["folder"], name), allow_pickle=False) for name in names)
    return image, mask
