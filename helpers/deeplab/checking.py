"""A data set is looked through before DeepLab is trained with it, and bad data is named."""

import warnings

import numpy as np
import tensorflow as tf

from helpers import stage
from helpers.errors import listed, need

IGNORE = 255  # pixels nobody has outlined, or that padding added
SMALLEST = 17  # pixels; at output stride 16 fewer become a single feature, with nothing beside it


def check(dataset, classes, *, channels=3):
    """Look through a data set for what would spoil the training, or stop it later.

        print(deeplab.check(train, classes=2))     # then compare the values with `value_range`

    Args:
        dataset: of elements or batches: dicts with `image` `[..., y, x, c]`, `mask` `[..., y, x,
            1]`, where 255 is ignored, and maybe `case`. All of it is read, so cut one that repeats:
            `dataset.take(10)`.
        classes: how many there are.
        channels: of the model.

    Returns:
        A line that tells what there is. There is a warning, too, if all batches are of one image:
        in training the pyramid normalises one number an image over the batch. Of one image nothing
        is left of it, and the network that is evaluated is not the one that was trained.

    Raises:
        CourseDataError: with the case, or its place where it has no name: `UNKNOWN_LABEL` for ids
            that are neither a class nor ignored; `MASK_MISMATCH` for a mask of another size or of
            no whole numbers;
            `SHAPE_MISMATCH` for other channels, and for images of 16 pixels or fewer a side;
            `NOT_FINITE` for values that are NaN or infinite; `EMPTY_CLASS` if only one class occurs
            at all, or none.
        ValueError: for a data set that is known to have no end, or is not of such dicts.

    Taught in: segmentation with DeepLab
    """
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("the dataset repeats without end: look at a part of it, dataset.take(10)")
    stage.checked(dataset.element_spec | {"case": None})
    alone = batched = dataset.element_spec["image"].shape.rank == 4
    counts, images, sides, values = np.zeros(256, np.int64), 0, [], []
    for batch in (dataset if batched else dataset.batch(1)).as_numpy_iterator():
        alone = alone and len(batch["image"]) == 1
        for number, image in enumerate(batch["image"]):
            name = f"case {images}, counted from 0"
            if "case" in batch:
                name = f"case {batch['case'][number].decode(errors='replace')}"
            counts += _pixels(name, image, batch["mask"][number], classes, channels)
            images += 1
            sides.append(image.shape[:2])
            values += [image.min(), image.max()]
    there = np.flatnonzero(counts[:classes])
    found = f"class {there[0]} alone occurs" if len(there) else "no class occurs"
    hint = f"{counts[IGNORE]} pixels are {IGNORE}, which is ignored: is it the foreground?"
    need(len(there) > 1, "EMPTY_CLASS", f"{found} in {images} masks; {hint}")
    if alone:
        warnings.warn("batches of one image: the pyramid learns nothing of its mean", stacklevel=2)
    shares = [f"{share:.1%}" for share in counts / counts.sum()]
    height, width = np.min(sides, axis=0)
    return (
        f"{images} images of {height} x {width} pixels or more, values {min(values):g} to "
        f"{max(values):g}; pixels of each class: {', '.join(shares[:classes])}; ignored: "
        f"{shares[IGNORE]}"
    )


def _pixels(name, image, mask, classes, channels):
    """How many pixels have each id, if the network can be trained with image and mask."""
    found = f"{name}: the image has shape {image.shape}, the mask {mask.shape}"
    wanted = f"images of {channels} channels and {SMALLEST} x {SMALLEST} pixels or more"
    fits = image.shape[-1] == channels and min(image.shape[:2]) >= SMALLEST
    need(fits, "SHAPE_MISMATCH", f"{found}; the model takes {wanted}")
    need(mask.shape == (*image.shape[:2], 1), "MASK_MISMATCH", found)
    need(np.isfinite(image).all(), "NOT_FINITE", f"{name}: the image holds NaN or infinities")
    strange = sorted({*np.unique(mask).tolist()} - {*range(classes), IGNORE})
    found = f"{name}: the mask has the ids {listed(strange, most=5)}"
    wanted = f"0 to {classes - 1}, or {IGNORE} to be ignored; others come from interpolation"
    need(not strange, "UNKNOWN_LABEL", f"{found}; expected {wanted}")
    return np.bincount(mask.ravel(), minlength=256)
