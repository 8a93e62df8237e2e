"""Feedback on exercises: what an answer does on fresh data, said in a line.

A check prints one line that begins with its verdict; `verdicts` says which. The checks of notebooks
00 and 01 stand here, the others in modules of their own: `checks.NAME` finds them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from pydicom.dataset import Dataset

from helpers.lesson.checks_augment import cached_then_augmented, crop_start, flip_pair
from helpers.lesson.checks_imbalance import class_weights, patient_split
from helpers.lesson.checks_in_scan import in_scan
from helpers.lesson.checks_receptive import receptive_field
from helpers.lesson.checks_records import find_faulty, narrowest, parse
from helpers.lesson.checks_scaled import scaled
from helpers.lesson.checks_scores import corrected, threshold
from helpers.lesson.checks_segmentation import dice_of_cases
from helpers.lesson.checks_tuning import epochs_to_see_all, faster, waiting
from helpers.lesson.verdicts import VerdictError, ask, ask_array, close, few, judged, wrong

__all__ = [
    "activity",
    "cached_then_augmented",
    "class_weights",
    "corrected",
    "crop_start",
    "dice_of_cases",
    "epochs_to_see_all",
    "faster",
    "find_faulty",
    "flip_pair",
    "in_scan",
    "missing_heights",
    "narrowest",
    "organ_ml",
    "parse",
    "patient_split",
    "receptive_field",
    "scaled",
    "threshold",
    "volume_dataset",
    "waiting",
    "whiten_head",
]

# Which patient axis slices are stacked along, and the orientation of their rows and columns.
PLANES = {
    "axial": (2, [1, 0, 0, 0, 1, 0]),
    "sagittal": (0, [0, 1, 0, 0, 0, -1]),
    "coronal": (1, [1, 0, 0, 0, 0, -1]),
}
AXES = "xyz"


@judged
def organ_ml(answer: Callable) -> str:
    """Notebook 00: `answer(mask, spacing_mm)` is the organ's volume in millilitres."""
    rng = np.random.default_rng(7)
    for trial in range(20):
        mask = rng.random((9, 14, 11)) < 0.3
        spacing_mm = tuple(float(mm) for mm in rng.choice([0.5, 0.7, 1.3, 2.0, 5.0], 3, False))
        # Also a mask of class ids: an organ's voxels count once, whatever its number.
        given = mask * np.uint8(3) if trial % 2 else mask
        expected = mask.sum() * np.prod(spacing_mm) / 1000
        found = float(ask_array(answer, given, spacing_mm, shape=()))
        if close(found, expected):
            continue
        shown = f"you returned {found:.6g}"
        if close(found, mask.sum()):
            raise wrong(f"{shown}: that is a number of voxels; how large is a voxel?")
        if close(found, expected * 1000):
            raise wrong(f"{shown}: that is mm³; a millilitre has 1000 of them")
        if trial % 2 and close(found, 3 * expected):
            raise wrong(f"{shown}: this mask holds the id 3, and you added up the ids")
        if any(close(found, mask.sum() * mm**3 / 1000) for mm in spacing_mm):
            raise wrong(f"{shown}: the voxels are {spacing_mm} mm, not cubes")
        raise wrong(f"{shown} ml for {mask.sum()} voxels of {spacing_mm} mm; it is {expected:.6g}")
    return "right on 20 organs that the check made up, half of them with other ids than 1"


@judged
def activity(answer: Callable) -> str:
    """Notebook 01: `answer(slices)` rescales each slice by its own numbers, `[z, y, x]`."""
    rng = np.random.default_rng(11)
    for trial in range(20):
        slices = []
        for _ in range(int(rng.integers(3, 7))):
            header = Dataset()
            header.Rows, header.Columns = 6, 8
            header.RescaleSlope = f"{rng.uniform(0.5, 40):.5f}"
            header.RescaleIntercept = str(int(rng.integers(-1000, 1000))) if trial % 2 else "0"
            slices.append(_with_pixels(header, rng.integers(0, 32000, (6, 8), dtype=np.uint16)))
        stored = np.stack([one.pixel_array for one in slices]).astype(np.float64)
        slopes = np.array([float(one.RescaleSlope) for one in slices])[:, None, None]
        intercepts = np.array([float(one.RescaleIntercept) for one in slices])[:, None, None]
        expected = stored * slopes + intercepts
        found = ask_array(answer, slices, shape=stored.shape)
        if close(found, expected):
            continue
        if close(found, stored):
            raise wrong("these are the stored values; the header says how to rescale them")
        if close(found, stored * slopes[0] + intercepts[0]):
            raise wrong("all slices got the numbers of the first; in PET each has its own")
        if close(found, stored * slopes):
            raise wrong("the slope is right, the intercept is missing")
        if close(found, (stored + intercepts) * slopes):
            raise wrong("the intercept is added after the slope has been applied, not before")
        if np.abs(found).max() < 33000 < np.abs(expected).max():
            raise wrong("the values wrap around: rescale in floating point, not in 16 bits")
        worst = np.unravel_index(np.abs(found - expected).argmax(), found.shape)
        raise wrong(
            f"at {tuple(int(i) for i in worst)} you have {found[worst]:.6g}, "
            f"slope x stored + intercept is {expected[worst]:.6g}"
        )
    return "right on 20 series that the check made up, each slice with its own slope"


@judged
def missing_heights(answer: Callable) -> str:
    """Notebook 01: `answer(headers)` lists the heights in mm where slices are missing."""
    rng = np.random.default_rng(13)
    for trial in range(20):
        count, gap_mm = int(rng.integers(9, 16)), float(rng.choice([1.25, 2.5, 3.0, 5.0]))
        start_mm = round(float(rng.uniform(-300, 100)), 1)
        heights = start_mm + gap_mm * np.arange(count)
        # At least two neighbours stay together, so that the usual distance can be told.
        number = 0 if trial == 4 else int(rng.integers(1, 4))
        lost = np.sort(rng.choice(np.arange(3, count - 1), number, replace=False))
        kept = rng.permutation(np.setdiff1d(np.arange(count), lost))
        plane = list(PLANES)[trial % 3]
        axis = PLANES[plane][0]
        headers = [_slice_header(plane, heights[i], int(k)) for k, i in enumerate(kept)]
        try:
            found = ask(answer, headers)
        except VerdictError as verdict:
            if plane == "axial" or not verdict.line.startswith("✗"):
                raise
            why = f"{verdict.line[2:]} (this series is {plane}: project on the normal)"
            raise wrong(why) from None
        try:
            found = np.sort(np.asarray(list(found), float).ravel())
        except (TypeError, ValueError):
            raise wrong(f"a list of heights is asked for, you returned {found!r:.60}") from None
        expected = heights[lost]
        if len(found) == len(expected) and np.allclose(found, expected, atol=0.01 * gap_mm):
            continue
        given = [float(one.ImagePositionPatient[axis]) for one in headers]
        shown = (
            f"you returned [{few(found)}] for a {plane} series with {AXES[axis]} = [{few(given)}]"
        )
        if len(found) == len(lost) and np.array_equal(found, lost):
            raise wrong(f"{shown}: these are indices; the check asks for heights in mm")
        if not len(expected):
            raise wrong(f"{shown}: nothing is missing there, the answer is an empty list")
        if plane == "sagittal" and not len(found):
            raise wrong(f"{shown}: in a sagittal stack every slice has the same z; project")
        if len(found) < len(expected):
            raise wrong(f"{shown}: [{few(expected)}] is what is missing; two in a row are two")
        raise wrong(f"{shown}; missing are [{few(expected)}]")
    return "right on 20 series that the check made up: axial, sagittal and coronal, one whole"


@judged
def whiten_head(answer: Callable) -> str:
    """Notebook 01: `answer(image)` has mean 0 and standard deviation 1 over the foreground."""
    rng = np.random.default_rng(17)
    for _ in range(10):
        head = rng.normal(rng.uniform(300, 900), rng.uniform(40, 120), (10, 12, 9)).clip(60)
        padding = [(int(n), int(m)) for n, m in rng.integers(1, 6, (3, 2))]
        image = np.pad(head, padding)
        inside = np.pad(np.ones(head.shape, bool), padding)
        found = ask_array(answer, image, shape=image.shape)
        values = found[inside]
        if abs(values.mean()) < 1e-3 and abs(values.std() - 1) < 1e-3:
            # The air has to be moved by the same rule, not set to something else.
            expected = (image - head.mean()) / head.std()
            if np.allclose(found, expected, rtol=1e-3, atol=1e-3):  # float32 is fine
                continue
            raise wrong("the head is right, but the air did not go through the same formula")
        if abs(found.mean()) < 1e-3 and abs(found.std() - 1) < 1e-3:
            raise wrong(
                "mean 0 and deviation 1 over the whole array, air included: "
                f"the head alone has {values.mean():.2f} and {values.std():.2f}"
            )
        if abs(values.mean()) < 1e-3 and close(values.std() * head.std(), 1.0):
            raise wrong("divided by the variance; the deviation is its square root")
        raise wrong(
            f"over the head the mean is {values.mean():.3f} and the deviation "
            f"{values.std():.3f}; the check asks for 0 and 1"
        )
    return "right on 10 heads that the check made up, each in another amount of air"


@judged
def volume_dataset(answer: Callable) -> str:
    """Notebook 01: `answer(folders, shape)` yields `{"image": [z, y, x, 1]}`, windowed."""
    import tempfile
    from pathlib import Path

    from helpers.lesson.phantoms import dicom_series
    from helpers.volume import Volume

    rng = np.random.default_rng(19)
    shape = (5, 8, 6)
    # Each slice is brighter than the one below it, so that a wrong order shows.
    ramp = np.linspace(-300, 400, shape[0])[:, None, None]
    with tempfile.TemporaryDirectory() as root:
        volumes, folders = [], []
        for case in range(3):
            voxels = np.rint(ramp + rng.normal(0, 20, shape)).astype(np.int16)
            folders.append(str(Path(root, f"case {case}")))
            dicom_series(Volume(voxels, (3, 1, 1)), folders[-1], seed=case)
            volumes.append(voxels)
        dataset = ask(answer, folders, shape)
        spec = getattr(dataset, "element_spec", None)
        if not isinstance(spec, dict) or set(spec) != {"image"}:
            raise wrong(f'each element should be a dict with the key "image"; found {spec!r:.80}')
        found_shape = spec["image"].shape
        if found_shape.rank is None or not found_shape.is_fully_defined():
            raise wrong(
                f"the static shape is {found_shape}: Keras cannot build on it; state it "
                "(tf.ensure_shape, or the output signature)"
            )
        if tuple(found_shape) != (*shape, 1):
            raise wrong(f"the shape is {tuple(found_shape)}, asked for is {(*shape, 1)}")
        if spec["image"].dtype.name != "float32":
            raise wrong(f"the dtype is {spec['image'].dtype.name}, asked for is float32")
        for round_ in range(2):
            found = _elements(dataset)
            if len(found) != len(volumes):
                when = "the second time through" if round_ else "in one pass"
                raise wrong(f"{len(found)} volumes {when}, from {len(volumes)} folders")
        _compare_volumes(found, volumes)
    return "right on 3 series that the check wrote: shape, dtype, order of slices, two passes"


def _compare_volumes(found: list[np.ndarray], volumes: list[np.ndarray]) -> None:
    for image, voxels in zip(found, volumes, strict=True):
        windowed = np.clip((voxels + 160) / 400, 0, 1)
        image = image[..., 0]
        if np.allclose(image, windowed, atol=1e-3):
            continue
        if np.allclose(image, voxels, atol=0.5):
            raise wrong("these are Hounsfield units; asked for is the soft-tissue window, 0 to 1")
        if np.allclose(np.sort(image.ravel()), np.sort(windowed.ravel()), atol=1e-3):
            raise wrong("the voxels are all there, but in another order: sort by position")
        if np.allclose(image, np.clip((voxels + 1024 + 160) / 400, 0, 1), atol=1e-3):
            raise wrong("stored values went through the window, not Hounsfield units")
        low, high = float(image.min()), float(image.max())
        raise wrong(f"values run from {low:.3g} to {high:.3g}; the window gives others, 0 to 1")


def _elements(dataset) -> list[np.ndarray]:
    try:
        return [np.asarray(element["image"]) for element in dataset.as_numpy_iterator()]
    except Exception as error:  # raised by the learner's function, inside the graph
        # TensorFlow wraps the error of a Python function; its last line of that form is the cause.
        causes = re.findall(r"^\w+(?:Error|Exception): .*", str(error), re.M)
        cause = causes[-1] if causes else f"{type(error).__name__}: {error}"
        found = re.search(r"pyfunc_\d+ is (\w+), but expects (\w+)", str(error))
        if found:
            why = f"your function returns {found[1]}, the dataset expects {found[2]}"
            raise wrong(why) from error
        hint = "; a path arrives as bytes: path.decode()" if re.search(r"bytes|b'", cause) else ""
        raise wrong(f"reading the dataset raises {cause[:160]}{hint}") from error


def _with_pixels(header: Dataset, pixels: np.ndarray) -> Dataset:
    """A data set in memory whose `pixel_array` works."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.PixelData = pixels.tobytes()
    return header


def _slice_header(plane: str, height_mm: float, instance: int) -> Dataset:
    """Position and orientation of a slice at a height along its own normal."""
    orientation = PLANES[plane][1]
    normal = np.cross(orientation[:3], orientation[3:])
    corner = np.where(normal == 0, [-90.0, -80.0, 310.0], 0.0) + normal * height_mm
    header = Dataset()
    header.InstanceNumber = instance
    header.ImageOrientationPatient = orientation
    header.ImagePositionPatient = [f"{mm:.6g}" for mm in corner]
    return header
