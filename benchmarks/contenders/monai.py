"""MONAI: readers of DICOM, dictionary transforms, datasets with a cache, its own loaders.

Plain rows follow its documentation. Tuned ones use the best settings that were found: no metadata
is tracked, volumes stay int16 and are not copied before they are cropped, batches are cast into a
buffer that is always the same. `workers` are processes of its loader, each with one thread.
"""

import atexit
import math
import tempfile
import time
import warnings
from pathlib import Path

import itk
import torch
from monai import data as datasets
from monai import transforms as to

from contenders import SEED, epochs, facts, picture_files, read_again
from contenders.loaders import passes

warnings.filterwarnings("ignore")  # stderr is kept for errors
torch.manual_seed(SEED)

IMAGE, PAIR = ("image",), ("image", "mask")
ORDERS = ("bilinear", "nearest")
# The width of smoothing that MONAI's examples have. The other sides' splines, with 32 voxels
# between control points, are as smooth as Gaussians of 18; that would cost MONAI more.
SIGMA = (5.0, 8.0)
SPLINE = (151 / 315) ** 1.5  # rms of a cubic B-spline surface over that of its control points
BETWEEN = 10  # batches from one exchange of the SmartCacheDataset to the next


def read(job, reader_name, axes="xyz", **options):
    """The transform is made once, as in a pipeline; a folder stands for a DICOM series."""
    load = to.LoadImage(reader=reader_name, image_only=True, **options)
    return read_again(job, lambda folder: load(folder).numpy(), axes)


def read_itk_tuned(job):
    """The format named, so that it is not guessed for each file; NumPy's order of axes.

    dtype stays at MONAI's float32: with the file's own type the conversion copies nothing, and
    the array points to memory that ITK has given back. It crashes, or holds other voxels.
    """
    reader = datasets.ITKReader(reverse_indexing=True, imageio=itk.GDCMImageIO.New())
    return read(job, reader, "zyx")


def files(job, keys, folder: str = "") -> list[dict[str, str]]:
    names = ({key: f"{key}_{i}.npy" for key in keys} for i in range(job["count"]))
    return [{key: str(Path(job["folder"], folder, v)) for key, v in one.items()} for one in names]


def loading(keys, tuned: bool) -> list:
    """From files to arrays with a channel first, which are float32 or as narrow as stored."""
    found = [to.LoadImaged(keys), to.EnsureChannelFirstd(keys, channel_dim="no_channel")]
    narrow = to.CastToTyped(keys, dtype=(torch.int16, torch.uint8)[: len(keys)])
    return [*found, narrow] if tuned else found


def seeded(tuned: bool, *transforms: object) -> to.Compose:
    datasets.set_track_meta(not tuned)
    return to.Compose(transforms).set_random_state(seed=SEED)


def cache(data: list, transforms: to.Compose, copy=True) -> datasets.CacheDataset:
    return datasets.CacheDataset(data, transforms, copy_cache=copy, progress=False)


def loaded(dataset, keys, batch_size=1, workers=0, **options):
    def finish(batch) -> tuple:
        return tuple(batch[key].numpy() for key in keys)

    loader = datasets.DataLoader
    return passes(dataset, finish, batch_size, loader, workers=workers, **options)


# Augmentation


def magnitude(displacement: float) -> float:
    """How much MONAI multiplies its noise, to bend as far, rms, as moved control points do.

    Both draw uniformly, MONAI for each voxel. A 3D Gaussian then divides the variance of white
    noise by (4 pi)^(3/2) sigma^3.
    """
    return displacement * SPLINE * math.sqrt((4 * math.pi) ** 1.5 * (sum(SIGMA) / 2) ** 3)


def warped(job, elastic, tuned=False, workers=0):
    amounts, how = job["amounts"], {"prob": 1.0, "mode": ORDERS}
    how |= {"padding_mode": "border"} if tuned else {}
    how["rotate_range"] = [math.radians(amounts["degrees"])] * 3
    how["scale_range"], how["translate_range"] = [amounts["zoom"]] * 3, [amounts["shift"]] * 3
    if elastic:
        strength = magnitude(amounts["displacement"])
        bend = {"sigma_range": SIGMA, "magnitude_range": (strength, strength)}
        warp = to.Rand3DElasticd(PAIR, **bend, **how)
        if tuned:
            warp.rand_3d_elastic.resampler.dtype = torch.float32  # float64 otherwise
    else:
        once = {"cache_grid": True, "spatial_size": (job["edge"],) * 3} if tuned else {}
        warp = to.RandAffined(PAIR, **once, **how)
    dataset = cache(files(job, PAIR), seeded(tuned, *loading(PAIR, False), warp))
    return loaded(dataset, PAIR, workers=workers)


def pictures(job, cached, tuned=False, workers=0):
    """Flipped and rotated; tuned, by one resampling on a grid that is made once."""
    edge, angle = (job["picture"],) * 2, math.radians(job["amounts"]["degrees"])
    steps = [to.LoadImaged(PAIR, reader="PILReader", ensure_channel_first=True)]
    steps.append(to.Resized(PAIR, edge, mode=ORDERS))
    if cached:
        steps.append(to.CastToTyped(PAIR, dtype=torch.uint8))
    steps.append(to.RandFlipd(PAIR, prob=0.5, spatial_axis=1))
    how = {"prob": 1.0, "mode": ORDERS, "padding_mode": "border"}
    if tuned:
        once = {"spatial_size": edge, "cache_grid": True}
        steps.append(to.RandAffined(PAIR, rotate_range=[angle], **once, **how))
    else:
        steps.append(to.RandRotated(PAIR, range_x=angle, **how))
    data = [dict(zip(PAIR, pair, strict=True)) for pair in picture_files(job)]
    dataset = (cache if cached else datasets.Dataset)(data, seeded(tuned, *steps))
    return loaded(dataset, PAIR, job["batch"], workers)


def cropped(job, masks=False, tuned=False, workers=0):
    """Images anywhere, or images and masks by indices that are found once, before the cache.

    Crops of one volume are put into one array by the DataLoader.
    """
    keys, size, how = (
        PAIR if masks else IMAGE,
        tuple(job["crop"]),
        {"num_samples": job["per_image"]},
    )
    steps = loading(keys, tuned=True)
    if masks:
        how |= {"fg_indices_key": "mask_fg_indices", "bg_indices_key": "mask_bg_indices"}
        crop = to.RandCropByPosNegLabeld(keys, label_key="mask", spatial_size=size, **how)
        steps += [to.FgBgToIndicesd("mask"), crop]
    else:
        steps.append(to.RandSpatialCropSamplesd(keys, size, random_size=False, **how))
    steps.append(to.SelectItemsd(keys))  # the indices are not put together
    dataset = cache(files(job, keys), seeded(tuned, *steps), copy=not tuned)
    return loaded(dataset, keys, workers=workers)


# Batches


def cropping(size) -> to.RandSpatialCropd:
    return to.RandSpatialCropd(IMAGE, roi_size=tuple(size), random_size=False)


def batches(job, dataset, tuned=False, loader=datasets.DataLoader, **options):
    """Plain ones are float32; tuned ones become so in memory that is warm."""
    warm = torch.zeros((job["batch"], 1, *job["crop"]))

    def finish(batch) -> tuple:
        return ((warm.copy_(batch["image"]) if tuned else batch["image"]).numpy(),)

    return passes(dataset, finish, job["batch"], loader, shuffled=True, **options)


def from_memory(job, tuned=False, threads=0, by_hand=False, workers=0):
    """By hand is a `collate_fn` of one's own: each crop is cast straight into the warm batch."""
    transforms = seeded(tuned, *loading(IMAGE, tuned), cropping(job["crop"]))
    dataset = cache(files(job, IMAGE), transforms, copy=not tuned)
    warm = torch.zeros((job["batch"], 1, *job["crop"]))

    def collate(items: list[dict]) -> dict:
        for into, item in zip(warm, items, strict=True):
            into.copy_(item["image"])
        return {"image": warm}

    options = {"collate_fn": collate} if by_hand else {}
    loader = datasets.ThreadDataLoader if threads else datasets.DataLoader
    return batches(job, dataset, tuned, loader, workers=workers, **options)


def smart_cached(job, tuned=False):
    """One volume is outside of the cache; one is exchanged, in the background, now and then."""
    data, transforms = files(job, IMAGE), [*loading(IMAGE, tuned), cropping(job["crop"])]
    how = {"cache_num": len(data) - 1, "replace_rate": 1 / len(data), "copy_cache": not tuned}
    dataset = datasets.SmartCacheDataset(data, seeded(tuned, *transforms), progress=False, **how)
    some = batches(job, dataset, tuned)

    def run(count: int):
        dataset.start()
        for first in range(0, count, BETWEEN):
            yield from some(min(BETWEEN, count - first))
            dataset.update_cache()
        dataset.shutdown()

    return run


def persistent(job, tuned=False, workers=0):
    """Stored crops in MONAI's own files, read for each batch."""
    place = Path(job["folder"]).parent
    folder = tempfile.TemporaryDirectory(prefix="benchmark_monai_", dir=place)
    atexit.register(folder.cleanup)
    data, transforms = files(job, IMAGE, "stored"), seeded(tuned, *loading(IMAGE, tuned))
    dataset = datasets.PersistentDataset(data, transforms, folder.name)
    return batches(job, dataset, tuned, workers=workers)


def from_nifti(job, workers=0):
    data = [{"image": one["path"]} for one in facts(job["folder"])]
    steps = seeded(False, *loading(IMAGE, False), cropping(job["crop"][::-1]))
    return batches(job, datasets.Dataset(data, steps), workers=workers)


# Epochs of training


def training_step():
    """Trains a small network on a batch, with one thread, and gives its loss."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    layers = []
    for channels in (1, epochs.CHANNELS):
        layers += [torch.nn.Conv3d(channels, epochs.CHANNELS, 3), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Conv3d(epochs.CHANNELS, 1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def step(image: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = torch.mean(torch.square(model(image.float() / 1000)))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def trained(job, smart):
    """On crops from a cache, while a smart one replaces a part of it."""
    step, data = training_step(), [{"image": one["path"]} for one in facts(job["folder"])]
    data, cached = data * job["listed"], round(epochs.CACHED * job["count"] * job["listed"])
    transforms = seeded(True, *loading(IMAGE, False), cropping(job["patch"][::-1]))
    how = {"cache_num": cached, "copy_cache": False, "progress": False}
    if smart:
        how |= {"replace_rate": len(data) / cached - 1, "seed": SEED}
        dataset = datasets.SmartCacheDataset(data, transforms, **how)
        dataset.start()
    else:
        dataset = datasets.CacheDataset(data[:cached], transforms, **how)
    sampler = torch.utils.data.RandomSampler(
        range(cached), num_samples=epochs.PATCHES * epochs.STEPS
    )
    loader = datasets.DataLoader(dataset, batch_size=epochs.PATCHES, sampler=sampler)

    def train():
        return (step(batch["image"]) for batch in loader)

    def swap() -> list[tuple[float, float]]:
        """Until the cache was another; waiting and exchanging are not told apart."""
        start = time.perf_counter()
        if smart:
            dataset.update_cache()
        return [(time.perf_counter() - start, 0.0)] if smart else []

    def settle() -> None:
        while smart and not dataset._replace_done:
            time.sleep(0.01)

    return epochs.runs(train, swap, settle)
