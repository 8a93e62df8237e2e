"""Did a contender of the benchmark of reading read the voxels that are there, and all of them?"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from _augment_checks import Freshness, check_crops, places_of
from _servers import checksum
from _tuning_inputs import arrays, work_of

MODULUS = 2**64  # checksums are sums modulo this


def laid_out(batch: np.ndarray, crop: Sequence[int]) -> np.ndarray:
    """A batch as `[n, z, y, x]`, whichever axes of length 1 and order of axes a library has."""
    batch = np.squeeze(batch)
    if batch.shape[1:] == tuple(crop)[::-1]:
        batch = batch.transpose(0, 3, 2, 1)
    return batch


def check_batches(name: str, batches: Sequence[np.ndarray], job: Mapping) -> np.ndarray:
    """All examples of some batches, of the shape and type that are asked for.

    Raises:
        SystemExit: if they are not.
    """
    for batch in batches:
        if batch.dtype != np.float32:
            raise SystemExit(f"{name} gives {batch.dtype}, not float32")
        shape = laid_out(batch, job["crop"]).shape
        if shape != (job["batch"], *job["crop"]):
            raise SystemExit(f"{name} gives {shape}, not {job['batch']} x {job['crop']}")
    return np.concatenate([laid_out(batch, job["crop"]) for batch in batches])


def check_drawn(name: str, batches: Sequence[np.ndarray], job: Mapping) -> None:
    """Each example is a box of a volume, voxel by voxel; places differ, and so do volumes.

    Raises:
        SystemExit: if one is nowhere, all are at one place, or all are of one volume.
    """
    examples = check_batches(name, batches, job)
    volumes = arrays(job["volumes"])
    _check_places(name, check_crops(name, [(volume,) for volume in volumes], [examples]))
    if any(all(places_of((one,), (part,)) for part in examples) for one in volumes):
        raise SystemExit(f"{name} crops one volume only, of {len(volumes)}")


def check_generator(name: str, batches: Sequence[np.ndarray], job: Mapping) -> None:
    """The published generator: whitened boxes of the first volume, which is all that it yields.

    Raises:
        SystemExit: as `check_drawn`.
    """
    examples, first = check_batches(name, batches, job), work_of(job).subjects[0]
    values = arrays(job["volumes"])[0].astype(np.float32)
    whitened = (values - np.float32(first.mean)) / np.float32(first.std)
    _check_places(name, check_crops(name, [(whitened,)], [examples]))


def _check_places(name: str, starts: Sequence[tuple[int, ...]]) -> None:
    if len(set(starts)) <= len(starts) // 2:
        raise SystemExit(f"{name} crops at {len(set(starts))} places only, of {len(starts)}")


def check_stored(name: str, batches: Sequence[np.ndarray], job: Mapping, whitened: bool) -> None:
    """The first epoch has each stored crop once, bit for bit.

    Raises:
        SystemExit: if one is missing or another.
    """
    examples = check_batches(name, batches, job)[: job["subjects"]]
    expected = [zlib.crc32(one) for one in _stored(job["work"], job["stored"], whitened)]
    found = [zlib.crc32(np.ascontiguousarray(one)) for one in examples]
    if sorted(found) != sorted(expected):
        raise SystemExit(f"{name}: these are not the voxels of the workload")


@functools.cache
def _stored(work: str, folder: str, whitened: bool) -> list[np.ndarray]:
    """The stored crops as float32, whitened by their volumes' mean and spread."""
    crops = [one.astype(np.float32) for one in arrays(folder)]
    if not whitened:
        return crops
    subjects = work_of({"work": work}).subjects
    return [
        (crop - np.float32(one.mean)) / np.float32(one.std)
        for crop, one in zip(crops, subjects, strict=True)
    ]


class WholeEpochs:
    """In a pass, every stored crop comes equally often: checksums of whole epochs add up.

    Args:
        name: of the contender.
        count: batches of a pass.
        job: as from `make_job`.
        whitened: which of both forms the crops have.
    """

    def __init__(self, name: str, count: int, job: Mapping, whitened: bool) -> None:
        self.name, self.count = name, count
        epochs, rest = divmod(count * job["batch"], job["subjects"])
        if rest:
            raise ValueError(f"{count} batches are no whole number of epochs")
        once = sum(checksum((one,)) for one in _stored(job["work"], job["stored"], whitened))
        self.total = once * epochs % MODULUS

    def check(self, checksums: Sequence[int]) -> None:
        """Take the checksums of one pass.

        Raises:
            SystemExit: if there are too few or they do not add up.
        """
        if len(checksums) != self.count:
            raise SystemExit(f"{self.name} gave {len(checksums)} batches of {self.count}")
        if sum(checksums) % MODULUS != self.total:
            raise SystemExit(f"{self.name}: some of these are not the voxels of the workload")


class Counted:
    """A pass has as many items as it should; what is in them is checked elsewhere."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count

    def check(self, checksums: Sequence[int]) -> None:
        """Take the checksums of one pass.

        Raises:
            SystemExit: if there are too few.
        """
        if len(checksums) != self.count:
            raise SystemExit(f"{self.name} gave {len(checksums)} items of {self.count}")


def look(kind: str, name: str, batches: Sequence[np.ndarray], job: Mapping) -> None:
    """Look at the first batches of a contender, by the kind of its row; see `_tuning_parts.Row`."""
    if kind == "drawn":
        check_drawn(name, batches, job)
    elif kind == "generator":
        check_generator(name, batches, job)
    elif kind.startswith("stored"):
        check_stored(name, batches, job, kind.endswith("whitened"))


def watch(kind: str, name: str, count: int, job: Mapping) -> Freshness | WholeEpochs | Counted:
    """What watches the passes of a contender, by the kind of its row."""
    if kind.startswith("stored"):
        return WholeEpochs(name, count, job, kind.endswith("whitened"))
    return (Freshness if kind in ("drawn", "generator", "thin") else Counted)(name, count)
