"""What the augmentation benchmark works on: torsos with their organs, and skin lesions in files."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.phantoms import fresh_set, skin_lesions, torso
from helpers.phantoms.torso import ORGANS


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured; `QUICK` ends within a minute and is too small to quote.

    Args:
        edge: voxels along each axis of a volume to be warped.
        volumes: of these, a multiple of the two that are worked on at a time.
        slow_volumes: how many of them contenders get that take seconds for each.
        pictures: skin lesions, a multiple of the batch.
        crop_shape: voxels of a volume from which crops are cut.
        crop: edge of a crop.
        crop_passes: how often each of the two such volumes is cropped before the clock stops.
        long: as many times the items for whoever is quick, so that what a pass costs however
            short it is, such as making an iterator, weighs as little as in a real epoch.
        rounds: that count.
    """

    edge: int = 128
    volumes: int = 8
    slow_volumes: int = 4
    pictures: int = 256
    crop_shape: tuple[int, int, int] = (160, 256, 256)
    crop: int = 96
    crop_passes: int = 16
    long: int = 8
    rounds: int = 5
    is_quick: bool = False


QUICK = Sizes(
    edge=48,
    volumes=4,
    slow_volumes=2,
    pictures=64,
    crop_shape=(64, 96, 96),
    crop=32,
    crop_passes=4,
    long=2,
    rounds=2,
    is_quick=True,
)
# The same in meaning for everybody, in degrees and voxels. Control points `grid` apart are moved by
# up to `displacement` along each axis: TorchIO's default at this size. A cubic B-spline between
# them moves voxels by 1.4 rms along each axis; more than 12.8 could fold tissue over itself.
AMOUNTS = {"degrees": 15.0, "zoom": 0.1, "shift": 10.0, "displacement": 7.5, "grid": 32.0}
PICTURE, BATCH = 256, 32  # edge in pixels, pictures in a batch
CROPS, CROPPED_VOLUMES = 4, 2  # crops of a volume; volumes


def make_job(sizes: Sizes, data_dir: Path) -> dict[str, object]:
    """Make the input unless it is there, and say where it lies and what is asked for.

    Returns:
        What the workers are told, of plain numbers, strings and lists. `warp` and `crop` are
        folders with `image_0.npy` (int16 `[z, y, x]`) and `mask_0.npy` (uint8); `pairs` are paths
        of pictures and masks.
    """
    cube = (sizes.edge,) * 3
    pairs = make_pictures(sizes.pictures, data_dir)
    return dataclasses.asdict(sizes) | {
        "warp": str(make_volumes("warp", max(sizes.volumes, 2), cube, data_dir)),
        "crops_from": str(make_volumes("crop", CROPPED_VOLUMES, sizes.crop_shape, data_dir)),
        "pairs": [[str(image), str(mask)] for image, mask in pairs],
        "picture": PICTURE,
        "batch": BATCH,
        "crops": CROPS,
        "amounts": AMOUNTS,
    }


def make_volumes(kind: str, count: int, shape: tuple[int, int, int], data_dir: Path) -> Path:
    """Torsos in Hounsfield units. To warp, with all organs; to crop, with the liver alone."""
    name = f"benchmark_augmentation_{kind}_{'x'.join(map(str, shape))}_{count}"
    with fresh_set(data_dir, name, 1, {"count": count, "shape": list(shape)}) as folder:
        if folder:
            for seed in tqdm(range(count), f"{name}, once", file=sys.stderr):
                patient = torso(seed, shape=shape)
                mask = patient.organs
                if kind == "crop":
                    mask = (mask == ORGANS["liver"]).astype(np.uint8)
                np.save(folder / f"image_{seed}.npy", patient.volume.voxels, allow_pickle=False)
                np.save(folder / f"mask_{seed}.npy", mask, allow_pickle=False)
    return data_dir / name


def make_pictures(count: int, data_dir: Path) -> list[tuple[Path, Path]]:
    """JPEG images of about 600 x 450 pixels with their PNG masks, 0 and 255."""
    root = skin_lesions(data_dir / f"benchmark_augmentation_pictures_{count}", count)
    images = sorted((root / "images").glob("*.jpg"))
    return [(path, root / "masks" / f"{path.stem}_segmentation.png") for path in images]


def load(folder: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of one volume."""
    names = (f"image_{number}.npy", f"mask_{number}.npy")
    image, mask = (np.load(Path(folder, name), allow_pickle=False) for name in names)
    return image, mask
