"""A T1-weighted MR head, and a set of heads laid out as the IXI collection comes."""

import csv
import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from helpers.lesson.phantoms.head import paint_head
from helpers.lesson.phantoms.head_canvas import REACH_MM, TISSUES, Build
from helpers.lesson.phantoms.noise import smooth_noise
from helpers.lesson.phantoms.sets import fresh_set
from helpers.volume import Volume

VERSION = 1
NOISE_SIGMA = 6.0

# Brightness of each tissue with T1 weighting: fat is bright, water dark, bone without signal.
INTENSITY = {
    "air": 0,
    "soft tissue": 72,
    "fat": 235,
    "bone": 12,
    "marrow": 120,
    "csf": 38,
    "grey matter": 108,
    "white matter": 160,
    "deep grey matter": 122,
    "ventricle": 34,
    "eye": 30,
    "lens": 78,
    "mucosa": 88,
    "brainstem": 146,
}
_MIDDLE_MM = (7, -8, 0)  # of the field of view (z, y, x), seen from between the ventricles
_ONE_MM_SHAPE = (160, 216, 168)
_COLUMNS = (
    "IXI_ID", "SEX_ID (1=m, 2=f)", "HEIGHT", "WEIGHT", "ETHNIC_ID", "MARITAL_ID",
    "OCCUPATION_ID", "QUALIFICATION_ID", "DOB", "DATE_AVAILABLE", "STUDY_DATE", "AGE",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Brain:
    """An MR head and what is known about it.

    Args:
        volume: T1-weighted image, int16 `[z, y, x]`; patient coordinates are LPS.
        tissues: uint8 `[z, y, x]`, ids of `TISSUES`: what the image was made from.
        bias: float32 `[z, y, x]`, the factor by which the coils brighten or darken each voxel.
        sex: 1 male, 2 female, as IXI codes it.
        age: in years.
        height_cm: of the body.
        weight_kg: of the body.
    """

    volume: Volume
    tissues: np.ndarray
    bias: np.ndarray
    sex: int
    age: float
    height_cm: int
    weight_kg: int


def brain(
    seed: int = 0,
    shape: tuple[int, int, int] = (112, 220, 168),
    spacing: tuple[float, float, float] = (1.5, 1.0, 1.0),
    sex: int | None = None,
    age: float | None = None,
) -> Brain:
    """Draw a T1-weighted MR image of a head.

    Ventricles and sulci widen with age, men's heads are some 6 % larger; both with enough
    scatter that they can be learnt from and not read off. The coils' sensitivity multiplies the
    image by a smooth field. Noise is added to the real and the imaginary part before the
    magnitude is taken, so it is Rician: in air its mean is `NOISE_SIGMA * sqrt(pi / 2)`, not 0.

    Args:
        seed: the same seed gives the same image, bit by bit. The anatomy belongs to the seed, not
            to the grid: another shape or spacing scans the same head.
        shape: voxels `(z, y, x)`.
        spacing: mm `(z, y, x)`. The default field of view holds the head down to the upper jaw.
        sex: 1 or 2; drawn if None.
        age: years from 18 to 90; drawn from 20 to 82 if None.

    Returns:
        The image with its tissues and its person.

    Raises:
        ValueError: for another sex or age.
    """
    if sex not in (None, 1, 2) or (age is not None and not 18 <= age <= 90):
        raise ValueError(f"sex is 1 or 2 and age 18 to 90 years, not {sex} and {age}")
    rng = np.random.default_rng([seed, 0])
    drawn_sex, drawn_age = int(rng.integers(1, 3)), float(rng.uniform(20, 82))
    sex, age = sex or drawn_sex, age or drawn_age
    decades = (age - 20) / 10
    build = Build(
        size=(1.01 if sex == 1 else 0.95) * rng.normal(1, 0.02),
        ventricles=np.clip(0.8 + 0.06 * decades**1.5 + rng.normal(0, 0.12), 0.6, 2.2),
        atrophy_mm=np.clip(0.16 * decades + rng.normal(0, 0.15), 0, 1.8),
    )
    height_cm = rng.normal(177 if sex == 1 else 164, 6.5)
    weight_kg = rng.normal(24.5, 3) * (height_cm / 100) ** 2

    axes = [
        ((np.arange(n) - (n - 1) / 2) * mm + middle).astype(np.float32)
        for n, mm, middle in zip(shape, spacing, _MIDDLE_MM, strict=True)
    ]
    tissues = paint_head(seed, axes, build)
    brightness = np.zeros(len(TISSUES), np.float32)
    for name, value in INTENSITY.items():
        brightness[TISSUES[name]] = value * rng.normal(1, 0.02)
    image = brightness[tissues]
    image *= 1 + 0.035 * smooth_noise(rng, axes, 5, REACH_MM)
    ndimage.gaussian_filter(image, [0.55 / mm for mm in spacing], output=image, truncate=2.5)
    bias = np.exp(0.11 * smooth_noise(rng, axes, 75, REACH_MM))
    image *= bias
    image += NOISE_SIGMA * rng.standard_normal(shape, dtype=np.float32)
    imaginary = NOISE_SIGMA * rng.standard_normal(shape, dtype=np.float32)
    np.hypot(image, imaginary, out=image)
    voxels = np.rint(image, out=image).astype(np.int16)
    origin = tuple(float(axis[0]) for axis in reversed(axes))
    volume = Volume(voxels, spacing, origin)
    return Brain(volume, tissues, bias, sex, age, round(height_cm), round(weight_kg))


def mr_brain(data_dir: Path | str = "data", subjects: int = 8, seed: int = 0) -> Path:
    """Write MR heads with a table of persons, laid out as DLTK's IXI readers expect them.

        mr_brain/demographic_HH.csv             column 0 id, 1 sex (1 = m, 2 = f), 11 age
        mr_brain/1mm/IXI703/T1_1mm.nii.gz       isotropic, 1 mm
        mr_brain/2mm/IXI703/T1_2mm.nii.gz       means of 2 x 2 x 2 of those voxels

    There are T1-weighted images only; IXI also has T2, PD and MRA. As in a real collection the
    table and the images do not quite agree: the last person of the table has no image, and the
    second has no date of birth and no age. The numbers start at 701, above IXI's own.

    Args:
        data_dir: folder that holds all data sets; the set goes to `data_dir/mr_brain`.
        subjects: rows of the table, at least 3; one image fewer is written.
        seed: another seed gives other heads.

    Returns:
        The folder of the set. A complete set with the same arguments is left as it is.

    Raises:
        ValueError: for fewer than 3 subjects.
    """
    if subjects < 3:
        raise ValueError(f"subjects must be at least 3, to have one complete; not {subjects}")
    parameters = {"subjects": subjects, "seed": seed}
    with fresh_set(data_dir, "mr_brain", VERSION, parameters) as folder:
        if folder:
            rng = np.random.default_rng([seed, 6])
            numbers = np.arange(subjects)
            ids = [f"IXI{700 + n:03d}" for n in np.cumsum(rng.integers(1, 6, subjects))]
            sexes = rng.permutation(numbers % 2 + 1).tolist()
            # Ages spread over the range, so that even a small set has young and old.
            ages = rng.permutation(20 + 62 * (numbers + rng.random(subjects)) / subjects).tolist()

            def write(i: int) -> tuple:
                has_image = i < subjects - 1
                shape = _ONE_MM_SHAPE if has_image else (1, 1, 1)
                head = brain(seed * 1000 + i, shape, (1, 1, 1), sexes[i], ages[i])
                if has_image:
                    head.volume.save(folder / "1mm" / ids[i] / "T1_1mm.nii.gz")
                    _halve(head.volume).save(folder / "2mm" / ids[i] / "T1_2mm.nii.gz")
                return _person(ids[i], head, np.random.default_rng([seed, i, 9]), has_age=i != 1)

            # Two heads at a time: more would take more memory than a notebook may.
            with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
                rows = list(tqdm(pool.map(write, range(subjects)), "mr_brain", subjects))
            with open(folder / "demographic_HH.csv", "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(_COLUMNS)
                writer.writerows(rows)
    return Path(data_dir) / "mr_brain"


def _halve(volume: Volume) -> Volume:
    """Twice the spacing in each direction, each voxel the mean of eight."""
    z, y, x = (n // 2 for n in volume.shape)
    means = volume.voxels.reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5), dtype=np.float32)
    spacing = tuple(2 * mm for mm in volume.spacing)
    voxels = np.rint(means).astype(volume.voxels.dtype)
    return Volume(voxels, spacing, tuple(volume.to_patient((0.5, 0.5, 0.5))), volume.direction)


def _person(ixi_id, head, rng, has_age):
    """A row of the table."""
    studied = np.datetime64("2005-06-01") + int(rng.integers(0, 500))
    born = studied - round(head.age * 365.25)
    codes = rng.integers(1, 6, 4).tolist()
    dates = (str(born) if has_age else "", 1, str(studied))
    age = round(float((studied - born).astype(int)) / 365.25, 10) if has_age else ""
    return (ixi_id, head.sex, head.height_cm, head.weight_kg, *codes, *dates, age)
