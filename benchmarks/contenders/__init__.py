"""Who is compared: a module for each side, in which functions prepare contenders (worker.py).

Job and settings are what JSON can hold; the job's folder is that of its workload (workloads.py).
"""

import functools
import inspect
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

Item = tuple[np.ndarray, ...]
SEED = 1
AT_A_TIME = 2  # elements worked on, or threads: one for each core
SALT = "of a benchmark, not secret"


def runs_of(made) -> Callable[[int], Iterator[Item]]:
    """What gives so many items: a function already, an endless generator, or one of tf.data's.

    Nobody works on after the last one: a generator waits, and a dataset has come to its end.
    """
    if inspect.isgenerator(made):
        return lambda count: itertools.islice(made, count)
    if hasattr(made, "as_numpy_iterator"):
        return lambda count: map(item_of, made.take(count).as_numpy_iterator())
    return made


def item_of(element: Mapping | Sequence) -> Item:
    """Image and mask of an element of tf.data."""
    if isinstance(element, Mapping):
        return tuple(element[key] for key in ("image", "mask") if key in element)
    return tuple(element)


@functools.cache
def arrays(folder: str, key: str = "image", mapped: bool = False) -> list[np.ndarray]:
    """`image_0.npy` and so on, in the order of their numbers; shared, so never written to."""
    files = sorted(Path(folder).glob(f"{key}_*.npy"), key=lambda f: int(f.stem.split("_")[1]))
    return [np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False) for file in files]


def pairs(job: Mapping) -> list[Item]:
    """The job's images and their masks."""
    return list(zip(arrays(job["folder"]), arrays(job["folder"], "mask"), strict=True))


def picture_files(job: Mapping) -> list[tuple[str, str]]:
    """Paths of the job's pictures and of their masks."""
    folders = [Path(job["folder"], "skin_lesions", name) for name in ("images", "masks")]
    return list(zip(*(sorted(map(str, one.iterdir())) for one in folders), strict=True))


@functools.cache
def facts(folder: str) -> list[dict]:
    """What is known of each image of a workload, in the order of their numbers."""
    known = json.loads(Path(folder, "facts.json").read_text(encoding="utf-8"))
    return [{**one, "path": str(Path(folder, one["path"]))} for one in known]


@functools.cache
def noise(count: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Volumes that need all of int16; nothing here compresses."""
    rng = np.random.default_rng(SEED)
    return [rng.integers(-1024, 3072, shape, np.int16) for _ in range(count)]


def nifti_voxels(path: str) -> np.ndarray:
    """The voxels `[z, y, x]` of an image file."""
    return sitk.GetArrayFromImage(sitk.ReadImage(path))


def box(start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """Where a crop lies."""
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


def written(job: Mapping, write: Callable[[Path], object]) -> Iterator[Item]:
    """Writes into a new folder for each item; whoever asks looks at it and removes it."""
    while True:
        folder = tempfile.mkdtemp(dir=job["out"])
        write(Path(folder))
        yield (np.array([folder], "S"),)


# DICOM


def read_again(job: Mapping, read: Callable, axes: str = "zyx") -> Iterator[Item]:
    """Reads the job's series to an array, whose axes come in this order."""
    while True:
        yield (read(job["series"]).transpose([axes.index(axis) for axis in "zyx"]),)


def scan_again(job: Mapping, scan: Callable[[str], Sequence]) -> Iterator[Item]:
    """Finds the files of the job's series, sorted."""
    while True:
        yield (np.array([Path(name).name for name in scan(job["series"])], "S"),)


def height(header) -> float:
    """Where a slice lies along the normal of its plane."""
    row, column = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    return float(np.dot(np.cross(row, column), np.array(header.ImagePositionPatient, float)))


def loop(folder: str, open_file: Callable, pixels: Callable) -> np.ndarray:
    """The loop of most tutorials, with the sorting done right."""
    slices = sorted(map(open_file, Path(folder).iterdir()), key=height)
    return np.stack([pixels(header) for header in slices])


def tuned_loop(folder: str, open_file: Callable, decode: Callable) -> np.ndarray:
    """Written for this series: `decode` puts a slice's values into their place, as integers.

    One file's pixels at a time; nothing is kept, and nothing checked.
    """
    slices = sorted(map(open_file, Path(folder).iterdir()), key=height, reverse=True)
    voxels = np.empty((len(slices), slices[0].Rows, slices[0].Columns), np.int16)
    for out in voxels:
        decode(slices.pop(), out)
    return voxels


def scan_loop(folder: str, open_file: Callable) -> list[str]:
    """What a loop needs to split by series and to sort."""
    headers = [(open_file(path), path.name) for path in Path(folder).iterdir()]
    return [name for *_, name in sorted((h.SeriesInstanceUID, height(h), n) for h, n in headers)]
