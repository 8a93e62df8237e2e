"""Checks of notebooks 00 and 01: an organ's size, and what scanners leave to the reader."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from helpers.lesson.checks.answers import Wrong, alike, array, check

# --- 00: how large is the organ? ---


def masks(rng: np.random.Generator) -> Iterator[tuple]:
    for n in range(20):
        mask = rng.random((9, 14, 11)) < 0.3
        spacing = tuple(rng.choice([0.5, 0.7, 1.3, 2.0, 5.0], 3, False).tolist())
        # Also a mask of class ids: an organ's voxels count once, whatever its number.
        yield mask * np.uint8(3) if n % 2 else mask, spacing


def volume_mm3(mask: np.ndarray, spacing: tuple) -> float:
    return np.count_nonzero(mask) * np.prod(spacing)


def cubes(axis: int) -> Callable:
    return lambda mask, mm: np.count_nonzero(mask) * mm[axis] ** 3 / 1000


organ_ml = check(
    lambda mask, mm: volume_mm3(mask, mm) / 1000,
    masks,
    {
        "that is a number of voxels; how large is a voxel?": lambda mask, mm: np.count_nonzero(
            mask
        ),
        "those are ids added up; count voxels, and how large is one?": lambda mask, mm: mask.sum(),
        "that is mm³; a millilitre has 1000 of them": volume_mm3,
        "you added up the ids of the mask; count its voxels": lambda mask, mm: (
            mask.sum() * np.prod(mm) / 1000
        ),
        "voxels are no cubes: z has a spacing of its own": cubes(0),
        "voxels are no cubes: y has a spacing of its own": cubes(1),
        "voxels are no cubes: x has a spacing of its own": cubes(2),
    },
)

# --- 01: a slope for each slice ---


def series(rng: np.random.Generator) -> Iterator[tuple]:
    for n in range(20):
        slices = []
        for _ in range(rng.integers(3, 7)):
            one = Dataset()
            one.file_meta = FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.Rows, one.Columns, one.SamplesPerPixel = 6, 8, 1
            one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
            one.PixelRepresentation, one.PhotometricInterpretation = 0, "MONOCHROME2"
            one.PixelData = rng.integers(0, 32000, (6, 8), np.uint16).tobytes()
            one.RescaleSlope = f"{rng.uniform(0.5, 40):.5f}"
            one.RescaleIntercept = str(rng.integers(-1000, 1000)) if n % 2 else "0"
            slices.append(one)
        yield (slices,)


def rescaled(formula: Callable = lambda stored, slope, intercept: stored * slope + intercept):
    """An answer by a formula of stored values and each slice's two numbers."""

    def answer(slices: list) -> np.ndarray:
        numbers = [(float(one.RescaleSlope), float(one.RescaleIntercept)) for one in slices]
        stored = [one.pixel_array.astype(float) for one in slices]
        return np.stack([formula(one, *both) for one, both in zip(stored, numbers, strict=True)])

    return answer


def as_the_first(slices: list) -> np.ndarray:
    slope, intercept = float(slices[0].RescaleSlope), float(slices[0].RescaleIntercept)
    return rescaled(lambda stored, *_: stored * slope + intercept)(slices)


def wrapped(dtype: str) -> Callable:
    return lambda slices: rescaled()(slices).astype("i8").astype(dtype)


activity = check(
    rescaled(),
    series,
    {
        "these are the stored values; the header says how to rescale them": rescaled(
            lambda stored, *_: stored
        ),
        "all slices got the numbers of the first; in PET each has its own": as_the_first,
        "the slope is right, the intercept is missing": rescaled(
            lambda stored, slope, _: stored * slope
        ),
        "the intercept is added after the slope has been applied, not before": rescaled(
            lambda stored, slope, intercept: (stored + intercept) * slope
        ),
        "the intercept is subtracted; it is added": rescaled(
            lambda stored, slope, intercept: stored * slope - intercept
        ),
        "the values wrap around: rescale in floating point, not in 16 bits": wrapped("i2"),
        "the values wrap around, for 16 bits are too few: use floating point": wrapped("u2"),
        "rounded to whole numbers; activities have fractions": wrapped("i8"),
        "the slices stand in reverse; keep their order": lambda slices: rescaled()(slices[::-1]),
    },
    tell=lambda slices: f"{len(slices)} slices",
)

# --- 01: what is missing? ---

# Which patient axis slices are stacked along, and the orientation of their rows and columns.
PLANES = {
    "axial": (2, [1, 0, 0, 0, 1, 0]),
    "sagittal": (0, [0, 1, 0, 0, 0, -1]),
    "coronal": (1, [1, 0, 0, 0, 0, -1]),
}


def stacks(rng: np.random.Generator) -> Iterator[tuple]:
    """Headers of one series, in any order, with two slices missing in the first."""
    for n in range(20):
        count, gap = int(rng.integers(9, 16)), float(rng.choice([1.25, 2.5, 3.0, 5.0]))
        heights = round(rng.uniform(-300, 100), 1) + gap * np.arange(count)
        # At least two neighbours stay together, so that the usual distance can be told.
        lost = rng.choice(np.arange(3, count - 1), rng.integers(1, 4) * (n != 4), replace=False)
        lost = [4, 5] if n == 0 else lost
        plane = ("axial", "sagittal", "coronal")[n % 3]
        yield ([slice_at(plane, mm) for mm in rng.permutation(np.delete(heights, lost))],)


def slice_at(plane: str, height: float) -> Dataset:
    _, orientation = PLANES[plane]
    normal = np.cross(orientation[:3], orientation[3:])
    corner = np.where(normal == 0, [-90.0, -80.0, 310.0], normal * height)
    header = Dataset()
    header.ImageOrientationPatient = orientation
    header.ImagePositionPatient = [f"{mm:.6g}" for mm in corner]
    return header


def height_mm(header: Dataset) -> float:
    along, down = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    return float(np.dot(np.cross(along, down), np.array(header.ImagePositionPatient, float)))


def gaps(height: Callable = height_mm, between: Callable | None = None) -> Callable:
    """An answer by each slice's height and by what it makes of a gap: low, high and usual gap."""
    between = between or (lambda low, high, usual: np.arange(low + usual, high - usual / 2, usual))

    def answer(headers: list) -> list[float]:
        heights = np.sort([height(one) for one in headers])
        usual = np.median(np.diff(heights))
        found = [
            between(low, high, usual)
            for low, high in itertools.pairwise(heights)
            if high - low > 1.5 * usual
        ]
        return [float(mm) for part in found for mm in np.atleast_1d(part)]

    return answer


def indices(headers: list) -> list[int]:
    heights = np.sort([height_mm(one) for one in headers])
    at = np.rint((heights - heights[0]) / np.diff(heights).min()).astype(int)
    return np.setdiff1d(np.arange(at[-1]), at).tolist()


def largest_gap(headers: list) -> list[float]:
    heights = np.sort([height_mm(one) for one in headers])
    n = np.diff(heights).argmax()
    return [heights[n : n + 2].mean()]


def patient_axis(axis: int) -> Callable:
    return gaps(lambda header: float(header.ImagePositionPatient[axis]))


def numbers_in_order(found, headers: list) -> list[float]:
    values = array(list(found)) if np.iterable(found) and not isinstance(found, str) else None
    if values is None or values.dtype.kind not in "biuf":
        raise Wrong(f"a list of heights is asked for, you returned {found!r:.60}")
    return np.sort(np.ravel(values.astype(float))).round(4).tolist()


def told(headers: list) -> str:
    at = np.array([one.ImagePositionPatient for one in headers], float)
    axis = int(np.ptp(at, axis=0).argmax())
    plane = next(name for name, (stacked, _) in PLANES.items() if stacked == axis)
    return f"{plane} slices with {'xyz'[axis]} = {np.sort(at[:, axis]).tolist()}"


missing_heights = check(
    gaps(),
    stacks,
    {
        "one height a gap; two in a row are two": gaps(
            between=lambda low, high, _: (low + high) / 2
        ),
        "the largest gap alone, and two in a row are two": largest_gap,
        "one height a gap, where the next slice should be; two in a row are two": gaps(
            between=lambda low, high, usual: low + usual
        ),
        "in a sagittal stack every slice has the same z; project on the normal": patient_axis(2),
        "only sagittal slices lie along x; project on the normal": patient_axis(0),
        "these are indices; asked for are heights in mm": indices,
        "those are the slices on both sides of the gap, not what is missing": gaps(
            between=lambda low, high, _: [low, high]
        ),
        "the slice behind the gap is there": gaps(
            between=lambda low, high, usual: np.arange(low + usual, high + usual / 2, usual)
        ),
        "you found nothing; two gaps of the usual size side by side are one of twice that": (
            lambda headers: []
        ),
        "those are the slices that are there": lambda headers: [height_mm(one) for one in headers],
    },
    read=numbers_in_order,
    same=lambda found, wanted: alike(found, wanted, 2e-3),
    tell=told,
    cures={
        "the headers come in any order: sort the slices by height first": lambda headers: (
            sorted(headers, key=height_mm),
        )
    },
)

# --- 01: whiten the head ---


def heads(rng: np.random.Generator) -> Iterator[tuple]:
    for _ in range(10):
        head = rng.normal(rng.uniform(300, 900), rng.uniform(40, 120), (10, 12, 9)).clip(60)
        yield (np.pad(head, rng.integers(1, 6, (3, 2))),)


def whitened(centre=np.mean, spread=np.std, of=lambda image: image[image > 0]) -> Callable:
    return lambda image: (image - centre(of(image))) / spread(of(image))


whiten_head = check(
    whitened(),
    heads,
    {
        "mean 0 and deviation 1 over the whole array, air included": whitened(of=np.ravel),
        "the deviation is that of head and air; leave the air out of both": lambda image: (
            (image - image[image > 0].mean()) / image.std()
        ),
        "divided by the variance; the deviation is its square root": whitened(spread=np.var),
        "the mean is gone, the deviation is still to be divided by": whitened(spread=lambda _: 1),
        "the head is right, but the air did not go through the same formula": lambda image: (
            np.where(image > 0, whitened()(image), 0)
        ),
        "the range is 0 to 1; asked for are mean 0 and deviation 1": whitened(
            np.min, np.ptp, np.ravel
        ),
    },
    tell=lambda image: f"a head in {image.size - np.count_nonzero(image)} voxels of air",
)
