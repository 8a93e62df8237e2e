"""MONAI in the augmentation benchmark: dictionary transforms behind MONAI's own DataLoader.

`job["style"]` is the process's: "plain" as the documentation has it, "tuned" with the best settings
that were found, both also with "workers": two processes of MONAI's DataLoader, each with one
thread. Each style has a process of its own, because some settings hold for a whole process.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch
from _peers_torch import SEED, Item, passes
from monai.data import CacheDataset, DataLoader, Dataset, set_track_meta
from monai.transforms import (
    CastToTyped,
    Compose,
    EnsureChannelFirstd,
    FgBgToIndicesd,
    LoadImaged,
    Rand3DElasticd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandRotated,
    RandSpatialCropSamplesd,
    Resized,
)

KEYS = ("image", "mask")
ORDERS = ("bilinear", "nearest")
# The width of smoothing that MONAI's examples have. The other sides' splines, with 32 voxels
# between control points, are as smooth as Gaussians of 18; that would cost MONAI more.
SIGMA = (5.0, 8.0)
SPLINE = (151 / 315) ** 1.5  # rms of a cubic B-spline surface over that of its control points


def magnitude(displacement: float, sigma: float) -> float:
    """How much MONAI multiplies its noise, to bend as far, rms, as moved control points do.

    Both draw uniformly, MONAI for each voxel. A 3D Gaussian then divides the variance of white
    noise by (4 pi)^(3/2) sigma^3.
    """
    return displacement * SPLINE * math.sqrt((4 * math.pi) ** 1.5 * sigma**3)


def paths(job: Mapping) -> list[dict[str, str]]:
    return [{key: f"{job['folder']}/{key}_{i}.npy" for key in KEYS} for i in range(job["volumes"])]


def load_volumes() -> list:
    return [LoadImaged(KEYS), EnsureChannelFirstd(KEYS, channel_dim="no_channel")]


def affine_ranges(amounts: Mapping[str, float]) -> dict[str, list]:
    angle = math.radians(amounts["degrees"])
    return {
        "rotate_range": [angle] * 3,
        "scale_range": [amounts["zoom"]] * 3,
        "translate_range": [amounts["shift"]] * 3,
    }


def elastic(job: Mapping, tuned: bool) -> Rand3DElasticd:
    amounts = job["amounts"]
    strength = magnitude(amounts["displacement"], sum(SIGMA) / 2)
    options = {"padding_mode": "border"} if tuned else {}
    transform = Rand3DElasticd(
        KEYS, sigma_range=SIGMA, magnitude_range=(strength, strength), prob=1.0, mode=ORDERS,
        **affine_ranges(amounts), **options,
    )  # fmt: skip
    if tuned:
        transform.rand_3d_elastic.resampler.dtype = torch.float32  # float64 otherwise
    return transform


def affine(job: Mapping, tuned: bool) -> RandAffined:
    options = {"padding_mode": "border", "cache_grid": True} if tuned else {}
    if tuned:
        options["spatial_size"] = (job["edge"],) * 3
    return RandAffined(KEYS, prob=1.0, mode=ORDERS, **affine_ranges(job["amounts"]), **options)


def seeded(transforms: list) -> Compose:
    return Compose(transforms).set_random_state(seed=SEED)


def arrays(batch: Mapping) -> Item:
    return tuple(batch[key].numpy() for key in KEYS if key in batch)


def loaded(dataset, job: Mapping, batch_size: int = 1):
    """A function that gives batches of MONAI's own loader."""
    return passes(dataset, job, arrays, batch_size, DataLoader)


def warped(job: Mapping, transform):
    dataset = CacheDataset(paths(job), seeded([*load_volumes(), transform]), progress=False)
    return loaded(dataset, job)


def flip_and_rotate(job: Mapping, tuned: bool) -> list:
    angle = math.radians(job["amounts"]["degrees"])
    if tuned:  # one resampling on a grid that is made once, in float32
        rotate = RandAffined(
            KEYS, prob=1.0, rotate_range=[angle], mode=ORDERS, padding_mode="border",
            spatial_size=(job["picture"],) * 2, cache_grid=True,
        )  # fmt: skip
    else:
        rotate = RandRotated(KEYS, range_x=angle, prob=1.0, mode=ORDERS, padding_mode="border")
    return [RandFlipd(KEYS, prob=0.5, spatial_axis=1), rotate]


def load_pictures(job: Mapping) -> list:
    return [
        LoadImaged(KEYS, reader="PILReader", ensure_channel_first=True),
        Resized(KEYS, (job["picture"],) * 2, mode=ORDERS),
    ]


def picture_pairs(job: Mapping) -> list[dict[str, str]]:
    return [dict(zip(KEYS, pair, strict=True)) for pair in job["pairs"]]


def from_files(job: Mapping, tuned: bool):
    transforms = seeded([*load_pictures(job), *flip_and_rotate(job, tuned)])
    return loaded(Dataset(picture_pairs(job), transforms), job, job["batch"])


def from_cache(job: Mapping, tuned: bool):
    narrow = CastToTyped(KEYS, dtype=torch.uint8)
    transforms = seeded([*load_pictures(job), narrow, *flip_and_rotate(job, tuned)])
    return loaded(CacheDataset(picture_pairs(job), transforms, progress=False), job, job["batch"])


def cropped(job: Mapping, pairs: bool, tuned: bool):
    """Crops of one volume are put into one array by the DataLoader.

    Images anywhere, or images and masks by indices that are found once, before the cache.
    """
    keys, size = KEYS if pairs else KEYS[:1], tuple(job["crop"])
    narrow = [LoadImaged(keys), EnsureChannelFirstd(keys, channel_dim="no_channel")]
    narrow.append(CastToTyped(keys, dtype=(torch.int16, torch.uint8)[: len(keys)]))
    if pairs:
        narrow.append(FgBgToIndicesd("mask"))
        crop = RandCropByPosNegLabeld(
            keys, label_key="mask", spatial_size=size, num_samples=job["crops"],
            fg_indices_key="mask_fg_indices", bg_indices_key="mask_bg_indices",
        )  # fmt: skip
    else:
        crop = RandSpatialCropSamplesd(keys, size, num_samples=job["crops"], random_size=False)
    transforms, copy = seeded([*narrow, crop, Only(keys)]), {"copy_cache": not tuned}
    return loaded(CacheDataset(paths(job), transforms, progress=False, **copy), job)


class Only:
    """Leave the other entries of the dictionaries behind, so that they are not put together."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys

    def __call__(self, data: Mapping) -> dict:
        return {key: data[key] for key in self.keys}


def contenders(job: Mapping) -> dict:
    warnings.filterwarnings("ignore")  # stderr is kept for errors
    torch.manual_seed(SEED)
    tuned = "tuned" in job["style"]
    if tuned:
        set_track_meta(False)
    return {
        "elastic": lambda: warped(job, elastic(job, tuned)),
        "affine": lambda: warped(job, affine(job, tuned)),
        "files": lambda: from_files(job, tuned),
        "cache": lambda: from_cache(job, tuned),
        "crops": lambda: cropped(job, pairs=False, tuned=tuned),
        "crops of pairs": lambda: cropped(job, pairs=True, tuned=tuned),
    }
