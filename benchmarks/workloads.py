"""What is measured on, as data: sizes, and synthetic input that is made once, for everybody."""

import csv
import dataclasses
import functools
import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from checks import crc, whitened
from contenders import SALT, box, facts, noise
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from helpers import pictures
from helpers.cases import Case, Found, case_hash
from helpers.lesson.phantoms import ORGANS, brain, dicom_series, fresh_set, skin_lesions, torso

VERSION = 2
VOLUMES = 4  # that are warped and cropped
# The same in meaning for everybody, in degrees and voxels. Control points `grid` apart are moved by
# up to `displacement` along each axis: TorchIO's default at 128 voxels. A cubic B-spline between
# them moves voxels by 1.4 rms along each axis; more than 12.8 could fold tissue over itself.
AMOUNTS = {"degrees": 15.0, "zoom": 0.1, "shift": 10.0, "displacement": 7.5, "grid": 32.0}
WARPS = {
    size: {"edge": edge}
    for size, edge in {"smoke": 48, "small": 48, "medium": 96, "usual": 128, "large": 160}.items()
}
PICTURES = {
    "smoke": {"picture": 48, "batch": 4, "count": 8},
    "small": {"picture": 64, "batch": 32, "count": 64},
    "usual": {"picture": 256, "batch": 32, "count": 256},
    "large": {"picture": 512, "batch": 32, "count": 256},
}
CROPS = {
    "smoke": {"whole": (20, 24, 24), "crop": (12, 12, 12)},
    "small": {"whole": (64, 96, 96), "crop": (32, 32, 32)},
    "medium": {"whole": (96, 160, 160), "crop": (64, 64, 64)},
    "usual": {"whole": (160, 256, 256), "crop": (96, 96, 96)},
}
PICTURE_CROPS = {
    "smoke": {"whole": (32, 32), "crop": (16, 16)},
    "small": {"whole": (64, 64), "crop": (32, 32)},
    "usual": {"whole": (256, 256), "crop": (128, 128)},
    "large": {"whole": (512, 512), "crop": (256, 256)},
}
# Volumes and crops of them, `usual` as in 2018; small records; patches for training, and how often
# each volume stands in the list of the smart cache, so that loading takes long enough to be seen.
READING = {
    size: dict(zip(("count", "head", "crop", "record", "patch", "listed"), values, strict=True))
    for size, values in {
        "smoke": (5, (14, 26, 22), (8, 16, 14), (2, 4, 4), (6, 8, 8), 1),
        "small": (10, (48, 128, 128), (32, 112, 112), (8, 32, 32), (16, 32, 32), 4),
        "medium": (10, (96, 192, 192), (64, 160, 160), (8, 32, 32), (16, 32, 32), 4),
        "usual": (10, (180, 240, 240), (128, 224, 224), (16, 128, 128), (32, 96, 96), 4),
    }.items()
}
SMALL_RECORDS = {  # thousands of pictures of noise
    "small": {"crop": (64, 64), "count": 4096, "batch": 32},
    "medium": {"crop": (256, 256), "count": 1024, "batch": 32},
}
COUNTS, TOGETHER = (10, 100, 1000), 10  # records that have to cost the same each, so many a batch
ENCODINGS = {
    "uncompressed": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG 2000 lossless": JPEG2000Lossless,
}
# Side by side: height and width in pixels, multiples of 32, as keras-hub enlarges by whole factors.
NETWORK = {
    "smoke": {"size": (32, 64), "batch": 2},
    "small": {"size": (96, 128), "batch": 4},
    "usual": {"size": (192, 256), "batch": 4},
}
LESSON = {size: {"count": n} for size, n in {"smoke": 20, "small": 64, "usual": 600}.items()}
TRAINED = {  # the lesson's network and pictures
    "size": (72, 96),
    "batch": 16,
    "zoom": (0.5, 2.0),
    "fill": 127,
    "mask_fill": 255,
    "network": {"backbone": "MobileNetV2", "alpha": 0.35, "rates": (1, 2)}
    | {"aspp_width": 64, "decoder_width": 64, "low_level_width": 24},
}
DISTINCT = 16  # slices of a torso that are drawn; more are made from these


def made_once(**more: object):
    """Of `make(folder, **told)`, which writes a set of files, a workload of a part.

    That is a function of the folder of all data and of what is told of a size. It has the set made
    unless it is there, and gives its folder and `more` that contenders are told.
    """

    def workload_of(make: Callable) -> Callable[[Path, Mapping], dict]:
        def workload(data_dir: Path, told: Mapping) -> dict:
            words = re.sub(r"\W+", "_", "_".join(map(str, told.values()))).strip("_").lower()
            name = f"benchmark_{make.__name__}_{words}"
            with fresh_set(data_dir, name, VERSION, told) as folder:
                if folder:
                    print(f"Making {name}, once ...", file=sys.stderr)
                    make(folder, **told)
            return {"folder": str(data_dir / name), **more}

        return workload

    return workload_of


def save(folder: Path, **fields: Sequence[np.ndarray]) -> None:
    """Arrays of each field as `image_0.npy` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, several in fields.items():
        for number, array in enumerate(several):
            np.save(folder / f"{key}_{number}.npy", array, allow_pickle=False)


def save_facts(folder: Path, known: Sequence[Mapping]) -> None:
    (folder / "facts.json").write_text(json.dumps(known, indent=1), encoding="utf-8")


@made_once(amounts=AMOUNTS, count=VOLUMES)
def warps(folder: Path, edge: int) -> None:
    """CTs and masks of all organs."""
    patients = [torso(seed, shape=(edge,) * 3) for seed in range(VOLUMES)]
    save(folder, image=[p.volume.voxels for p in patients], mask=[p.organs for p in patients])


@made_once(count=VOLUMES, batch=1, per_image=4, dtypes=["int16", "uint8"])
def crops(folder: Path, whole: Sequence[int], crop: Sequence[int]) -> None:
    """CTs and masks of the liver, or a slice of each."""
    patients = [torso(seed, shape=(8, *whole)[-3:]) for seed in range(VOLUMES)]
    masks = [(p.organs == ORGANS["liver"]).astype(np.uint8) for p in patients]
    at = slice(None) if len(whole) == 3 else 4
    save(folder, image=[p.volume.voxels[at] for p in patients], mask=[mask[at] for mask in masks])


@made_once(amounts=AMOUNTS)
def skin(folder: Path, picture: int, batch: int, count: int) -> None:
    """JPEG images of about 600 x 450 pixels with their PNG masks, 0 and 255."""
    skin_lesions(folder, count)


def write_records(folder: Path, elements: Sequence[Mapping], known=None, schema="volume") -> None:
    """Records in a few shards; the page cache holds them afterwards."""
    from helpers import records  # the peers' environment lacks what this imports

    known = known or [{"name": str(i), "label": i % 2} for i in range(len(elements))]
    several = [
        Case(one["name"], i, (), one["name"], label=one["label"]) for i, one in enumerate(known)
    ]
    records.write(
        folder, Found(tuple(several)), schema, lambda case: elements[case.source], salt=SALT,
        survey=(lambda case: frozenset({0, 1})) if "mask" in elements[0] else None,
        classes=("male", "female"), shard_count=4, workers=1, progress=False,
    )  # fmt: skip


def facts_of(name: str, number: int, voxels: np.ndarray) -> dict:
    """Mean and spread are those of the whole image in float32, as it was whitened in 2018."""
    values = voxels.astype(np.float32)
    known = {"name": name, "label": number % 2, "path": f"1mm/{name}/T1_1mm.nii.gz"}
    known |= {"mean": float(np.mean(values)), "std": float(np.std(values))}
    return known | {"case": case_hash(SALT, name, name)}


def write_forms(folder: Path, parts: Sequence[np.ndarray], known: list[dict], schema: str) -> None:
    """Stored crops as arrays, as records and, whitened, as lists of floats."""
    from contenders.published import write_float_list

    save_facts(folder, known)
    save(folder / "stored", image=parts)
    write_records(folder / "records", [{"image": part} for part in parts], known, schema)
    examples = ((whitened(*both), both[1]["label"]) for both in zip(parts, known, strict=True))
    write_float_list(folder / "float_list.tfrecord", examples)


@made_once(batch=5, per_image=1, dtypes=["float32", "uint8"], together=TOGETHER)
def heads(folder: Path, count: int, head, crop, record, **_) -> None:
    """The images and the files of the benchmark of 2018, with names and table as IXI has them.

    And sets of 10, 100 and 1,000 small records of noise.
    """
    drawn = [brain(seed, tuple(head), (1, 1, 1)).volume for seed in range(2)]
    rng, known, images, parts = np.random.default_rng(0), [], [], []
    for number in range(count):
        # IXI's T1 images go beyond 1000, so that they need int16.
        voxels = 4 * np.roll(drawn[number % 2].voxels, number // 2, axis=0)
        voxels += rng.integers(4, size=head, dtype=np.int16)
        known.append(facts_of(f"IXI{701 + number}", number, voxels))
        drawn[0].with_voxels(voxels).save(folder / known[-1]["path"])
        start = rng.integers(np.maximum(np.subtract(head, crop), 1))  # the last one never comes
        images.append(voxels)
        parts.append(np.ascontiguousarray(voxels[box(start, crop)]))
    masks = [(image > image.mean()).astype(np.uint8) for image in images]
    save(folder, image=images, mask=masks)
    both = [{"image": image, "mask": mask} for image, mask in zip(images, masks, strict=True)]
    write_records(folder / "whole", both, known)
    write_forms(folder, parts, known, "volume")
    for number in COUNTS:
        several = [{"image": image} for image in noise(number, tuple(record))]
        write_records(folder / "counted" / str(number), several)
    with open(folder / "demographic_HH.csv", "w", newline="", encoding="utf-8") as file:
        rows = [(one["name"], one["label"] + 1) for one in known]
        csv.writer(file).writerows([("IXI_ID", "SEX_ID (1=m, 2=f)"), *rows])


@made_once(per_image=1, dtypes=["float32"])
def small_records(folder: Path, crop: Sequence[int], count: int, **_) -> None:
    """Pictures of noise."""
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, crop).astype(np.uint8) for _ in range(count)]
    known = [facts_of(f"{i:05d}", i, part) for i, part in enumerate(parts)]
    write_forms(folder, parts, known, "classification")


@made_once()
def dicom_files(folder: Path, series: int, slices: int, pixels: int, encoding: str) -> None:
    """CTs of a torso, one file a slice, file names without meaning, each series a folder.

    Anatomy, edges and noise are those of the course's phantom, so that it compresses like a CT.
    Beyond `DISTINCT` slices they come again, shifted sideways, so that no two are alike. The first
    series numbers its slices upwards: MONAI's PydicomReader sorts by that number.
    """
    drawn = torso(0, shape=(min(slices, DISTINCT), pixels, pixels)).volume
    known = []
    for number in range(series):
        shifts = range(number, number + 5 * -(-slices // len(drawn.voxels)), 5)
        voxels = np.concatenate([np.roll(drawn.voxels, by, axis=2) for by in shifts])[:slices]
        volume = dataclasses.replace(drawn, voxels=voxels, spacing=(1.5, 0.75, 0.75))
        place = f"series/{number:03d}"
        paths = dicom_series(
            volume, folder / place, transfer_syntax=ENCODINGS[encoding], seed=number
        )
        names = np.array([path.name for path in paths], "S")
        known.append({"path": place, "crcs": [crc(voxels.astype(np.int16)), crc(names)]})
    save_facts(folder, known)


def one_series(data_dir: Path, told: Mapping) -> dict:
    """The first of such series, and the CRC-32 of its voxels and of its sorted names."""
    job = dicom_files(data_dir, told)
    first = facts(job["folder"])[0]
    return job | {"series": first["path"], "crcs": first["crcs"]}


@made_once(**TRAINED)
def lesions(folder: Path, count: int) -> None:
    """Skin lesions as records: JPEG and PNG of about 360 x 270 pixels, in one split."""
    from helpers import records

    mapping = {0: 0, 255: 1}  # of the masks' PNG files
    with tempfile.TemporaryDirectory() as place:
        drawn = skin_lesions(place, count)
        records.write(
            folder / "records", pictures.find(drawn / "images", drawn / "masks"), "deeplab",
            functools.partial(pictures.load_deeplab, mapping=mapping),
            survey=functools.partial(pictures.survey, mapping=mapping),
            salt=SALT, classes=("background", "lesion"), workers=1, progress=False,
        )  # fmt: skip
