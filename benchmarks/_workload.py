"""What records and reading are measured with: synthetic volumes, made once, the same for everybody.

No TensorFlow here: worker processes import this module.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers import quiet
from helpers.cases import Case, Found, case_hash

SALT = "of a benchmark, not secret"
VERSION = 1
DISTINCT = 2  # heads that are drawn; further subjects are made from these
BRIGHTER = 4  # times the phantom: IXI's T1 images go beyond 1000, so that they need int16
DISTINCT_SLICES = 16  # slices of a torso that are drawn; more are made from these


@dataclasses.dataclass(frozen=True)
class Subject:
    """One person of the reading workload.

    Args:
        name: as IXI calls it.
        label: 0 or 1, the sex as in IXI's table less one.
        path: of the image, `1mm/NAME/T1_1mm.nii.gz`.
        start: first voxel `(z, y, x)` of the crop that is stored.
        mean, std: of the whole volume, in float32, as the published whitening takes them.
        crc: CRC-32 of the whitened crop's float32 bytes.
    """

    name: str
    label: int
    path: Path
    start: tuple[int, int, int]
    mean: float
    std: float
    crc: int

    @property
    def case(self) -> str:
        """The subject's name in the records."""
        return case_hash(SALT, self.name, self.name)


@dataclasses.dataclass(frozen=True)
class Workload:
    """The published reading benchmark: crops of whitened MR heads, or pictures, in batches.

    Args:
        folder: holds the images as IXI comes, and what was made from them.
        subjects: in the order of the table.
        crop: shape `(z, y, x)` of an example, or `(y, x)`; it has one channel.
        batch: examples in a batch.
    """

    folder: Path
    subjects: tuple[Subject, ...]
    crop: tuple[int, int, int]
    batch: int = 5

    @property
    def float_list(self) -> Path:
        """Whitened crops as lists of floats, one file."""
        return self.folder / "float_list.tfrecord"

    @property
    def table(self) -> Path:
        """Column 0 id, column 1 sex (1 or 2)."""
        return self.folder / "demographic_HH.csv"

    def found(self) -> Found:
        """The int16 crops as cases for `records.write`, with `load_crop`."""
        cases = [
            Case(one.name, (one.path, one.start, self.crop), patient=one.name, label=one.label)
            for one in self.subjects
        ]
        return Found(tuple(cases))

    def whitened(self, subject: Subject, start: Sequence[int]) -> np.ndarray:
        """The voxels `[z, y, x]` that an example at `start` must have, computed by NumPy alone."""
        crop = cropped(voxels_of(subject.path), start, self.crop).astype(np.float32)
        return (crop - np.float32(subject.mean)) / np.float32(subject.std)


def reading_workload(
    data_dir: Path,
    subjects: int = 10,
    volume: tuple[int, int, int] = (180, 240, 240),
    crop: tuple[int, int, int] = (128, 224, 224),
) -> Workload:
    """The images and the float32 files of the published benchmark, made on the first call.

    Args:
        data_dir: folder of all data sets.
        subjects: number of persons; at least a batch.
        volume: voxels `(z, y, x)` of an image; by default those of IXI's T1 images at 1 mm.
        crop: voxels of an example.
    """
    from helpers.lesson.phantoms import fresh_set

    name = f"benchmark_reading_{subjects}_{'x'.join(map(str, crop))}"
    parameters = {"subjects": subjects, "volume": volume, "crop": crop}
    with fresh_set(data_dir, name, VERSION, parameters) as folder:
        if folder:
            print(f"Making {subjects} heads and their float32 files, once ...", file=sys.stderr)
            _write_subjects(folder, subjects, volume, crop)
            _write_float_list(loaded(folder))
    return loaded(data_dir / name)


def picture_workload(data_dir: Path, pictures: int, side: int, batch: int = 32) -> Workload:
    """Thousands of small records: grey pictures of noise, `side` pixels high and wide.

    Args:
        data_dir: folder of all data sets.
        pictures: how many, in whole batches.
        side: pixels.
        batch: examples in a batch.
    """
    from PIL import Image

    from helpers.lesson.phantoms import fresh_set

    name = f"benchmark_pictures_{pictures}_{side}"
    with fresh_set(data_dir, name, VERSION, {"batch": batch}) as folder:
        if folder:
            rng = np.random.default_rng(0)
            made = []
            for number in range(pictures):
                pixels = rng.integers(0, 256, (side, side)).astype(np.uint8)
                path = folder / "pictures" / f"{number:05d}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(pixels).save(path, compress_level=0)
                values = pixels.astype(np.float32)
                mean, std = np.mean(values), np.std(values)
                crc, relative = zlib.crc32((values - mean) / std), f"pictures/{path.name}"
                one = (path.stem, number % 2, relative, (0, 0), float(mean), float(std), crc)
                made.append(dataclasses.asdict(Subject(*one)))
            content = {"crop": (side, side), "batch": batch, "subjects": made}
            (folder / "workload.json").write_text(json.dumps(content), encoding="utf-8")
            _write_float_list(loaded(folder))
    return loaded(data_dir / name)


@functools.cache
def loaded(folder: Path) -> Workload:
    """The workload that `reading_workload` has made in this folder."""
    made = json.loads((folder / "workload.json").read_text(encoding="utf-8"))
    subjects = [
        Subject(**{**one, "path": folder / one["path"], "start": tuple(one["start"])})
        for one in made["subjects"]
    ]
    return Workload(folder, tuple(subjects), tuple(made["crop"]), made.get("batch", 5))


def _write_subjects(folder: Path, count: int, shape, crop) -> None:
    from helpers.lesson.phantoms import brain

    heads = [brain(seed, shape, (1, 1, 1)).volume for seed in range(min(DISTINCT, count))]
    rng = np.random.default_rng(0)
    subjects, rows = [], []
    for number in range(count):
        head = heads[number % len(heads)]
        voxels = BRIGHTER * np.roll(head.voxels, number // len(heads), axis=0)
        voxels += rng.integers(BRIGHTER, size=shape, dtype=np.int16)
        name = f"IXI{701 + number}"
        path = folder / "1mm" / name / "T1_1mm.nii.gz"
        head.with_voxels(voxels).save(path)
        # As DLTK draws it: the last possible start never comes.
        start = [int(rng.integers(max(n - m, 1))) for n, m in zip(shape, crop, strict=True)]
        values = voxels.astype(np.float32)
        mean, std = np.mean(values), np.std(values)
        crc = zlib.crc32(cropped((values - mean) / std, start, crop).tobytes())
        relative = path.relative_to(folder).as_posix()
        sex = number % 2 + 1
        subjects.append(Subject(name, sex - 1, relative, start, float(mean), float(std), crc))
        rows.append((name, sex))
    made = {"crop": crop, "subjects": [dataclasses.asdict(one) for one in subjects]}
    (folder / "workload.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
    with open(folder / "demographic_HH.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("IXI_ID", "SEX_ID (1=m, 2=f)"), *rows])


def _write_float_list(work: Workload) -> None:
    quiet.tensorflow_greeting()
    from _published import write_float_list

    examples = ((work.whitened(one, one.start), one.label) for one in work.subjects)
    write_float_list(work.float_list, examples)


def voxels_of(path: Path) -> np.ndarray:
    """The voxels `[z, y, x]` of an image file."""
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def cropped(voxels: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """A part of an array, as a view."""
    return voxels[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]


@functools.cache
def arrays(folder: str, mapped: bool = False) -> list[np.ndarray]:
    """The int16 arrays of a folder, `0.npy` and so on, in the order of their numbers."""
    files = sorted(Path(folder).glob("*.npy"), key=lambda file: int(file.stem))
    return [np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False) for file in files]


def load_crop(case: Case) -> dict:
    """For `records.write`: the stored crop, in the image's own int16."""
    path, start, shape = case.source
    return {"image": cropped(voxels_of(path), start, shape)}


@functools.cache
def volumes_in_memory(count: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """int16 volumes `[z, y, x]` that need all of int16; noise, as nothing here compresses."""
    rng = np.random.default_rng(1)
    return tuple(rng.integers(-1024, 3072, shape, np.int16) for _ in range(count))


def dicom_set(data_dir: Path, series: int, slices: int, size: int) -> tuple[Path, list[int]]:
    """DICOM series of a torso, one file a slice, uncompressed, each series a folder.

    Args:
        data_dir: folder of all data sets.
        series: number of series.
        slices: of each series.
        size: rows, and columns, of a slice.

    Returns:
        The folder, and for each series the CRC-32 of its int16 voxels in Hounsfield units.
    """
    from helpers.lesson.phantoms import dicom_series, fresh_set, torso

    name = f"benchmark_series_{series}_{slices}x{size}x{size}"
    with fresh_set(data_dir, name, VERSION, {}) as folder:
        if folder:
            print(f"Making {series} DICOM series of {slices} slices, once ...", file=sys.stderr)
            drawn = torso(0, shape=(min(slices, DISTINCT_SLICES), size, size)).volume
            crcs = []
            for number in range(series):
                copies = [
                    np.roll(drawn.voxels, 5 * shift + number, axis=2)
                    for shift in range(-(-slices // len(drawn.voxels)))
                ]
                voxels = np.concatenate(copies)[:slices].astype(np.int16)
                volume = dataclasses.replace(drawn, voxels=voxels, spacing=(1.5, 0.75, 0.75))
                dicom_series(volume, folder / "series" / f"{number:03d}", seed=number)
                crcs.append(zlib.crc32(voxels.tobytes()))
            (folder / "crcs.json").write_text(json.dumps(crcs), encoding="utf-8")
    folder = data_dir / name
    return folder, json.loads((folder / "crcs.json").read_text(encoding="utf-8"))


def ready(*imported: object) -> int:
    """What a worker does to show that it has started: import what it was given."""
    return os.getpid()
