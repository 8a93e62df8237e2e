"""The floor: what the machine needs to move the bytes, by NumPy and plain files alone."""

import hashlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydicom import dcmread

from contenders import SEED, arrays, box, noise, pairs, read_again, written
from helpers.memory import aligned


def crops(job, keys=("image",), dtype=None, warm=True, threads=1):
    """What crops come down to: uniformly placed boxes, each copied into its place in one array.

    Args:
        job: an item has crops of `batch` images in turn, `per_image` of each.
        keys: of the fields that are cropped.
        dtype: that is cast to on the way; None keeps what is stored.
        warm: whether the array is always the same, so that its memory is warm.
        threads: that copy.
    """
    fields, size = [arrays(job["folder"], key) for key in keys], job["crop"]
    number, rng = job["batch"] * job["per_image"], np.random.default_rng(SEED)
    room = np.subtract(fields[0][0].shape, size) + 1
    kept = [aligned(np.zeros((number, *size), dtype or field[0].dtype)) for field in fields]
    copy_all = ThreadPoolExecutor(threads).map if threads > 1 else map
    for first in itertools.count(0, job["batch"]):
        out = kept if warm else [np.empty_like(one) for one in kept]
        boxes = [box(start, size) for start in rng.integers(0, room, (number, len(size)))]
        chosen = [(first + i // job["per_image"]) % len(fields[0]) for i in range(number)]
        for field, into in zip(fields, out, strict=True):
            parts = [field[i][at] for i, at in zip(chosen, boxes, strict=True)]
            list(copy_all(np.copyto, into, parts))
        yield tuple(out)


def mapped_files(job):
    """Stored crops: files of int16 that are mapped into memory, cast into a warm batch."""
    files = itertools.cycle(arrays(f"{job['folder']}/stored", mapped=True))
    out = aligned(np.zeros((job["batch"], *job["crop"]), np.float32))
    while True:
        for into in out:
            np.copyto(into, next(files))
        yield (out,)


def nothing(job):
    """What looking at the bytes of a batch takes, by itself."""
    out = aligned(np.ones((job["batch"], *job["crop"]), np.float32))
    while True:
        yield (out,)


def copies(job):
    """Nothing moves, but the image becomes float32 and both are new."""
    return lambda count: (
        (image.astype(np.float32), mask.copy())
        for image, mask in itertools.islice(itertools.cycle(pairs(job)), count)
    )


def raw_bytes(job):
    """The pixels' bytes of a DICOM series, in no order and not understood."""

    def read(folder: str) -> np.ndarray:
        paths = list(Path(folder).iterdir())
        header = dcmread(paths[0], stop_before_pixels=True)
        voxels = np.empty((len(paths), header.Rows, header.Columns), np.int16)
        for path, out in zip(paths, voxels, strict=True):
            with open(path, "rb", buffering=0) as file:
                file.seek(-out.nbytes, os.SEEK_END)
                file.readinto(memoryview(out).cast("B"))
        return voxels

    return read_again(job, read)


def plain_files(job, sync):
    """Each volume's bytes to a file of its own, hashed on their way."""

    def write_to(folder: Path) -> None:
        for number, volume in enumerate(noise(job["volumes"], tuple(job["shape"]))):
            view = memoryview(volume).cast("B")
            with open(folder / f"{number}.raw", "xb", buffering=0) as file:
                hashlib.sha256(view).hexdigest()
                while len(view):
                    view = view[file.write(view) :]
                if sync:
                    os.fsync(file.fileno())

    return written(job, write_to)
