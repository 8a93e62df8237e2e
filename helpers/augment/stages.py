"""The stage: all pieces together, on datasets, and once for looking at."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from helpers import draws
from helpers.augment import appearance, spatial, warp
from helpers.elements import check_image, check_mask, fits, require
from helpers.errors import CourseDataError


def stage(
    pieces: Sequence,
    *,
    seed: int,
    spacing: Sequence[float] | None = None,
    fill: float | str = "edge",
    mask_fill: int = 0,
    batched: bool = False,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Augment image and mask of each element with one draw.

    Args:
        pieces: from this package. Those that move voxels make one warp, which comes first; the
            others follow in their order.
        seed: equal seeds give equal streams, whatever the parallelism; each epoch is another. Two
            of these stages want two seeds, also those of training and validation. A global seed
            (`tf.random.set_seed`, `keras.utils.set_random_seed`) has a say as well.
        spacing: in mm, of all elements; by default the element's own `spacing`, or voxels where
            there is none (0 stands for not known).
        fill: outside of the image: "edge" repeats its border, "reflect" mirrors it, a number is
            taken as it is (-1000 for HU).
        mask_fill: the class id outside, where `fill` is a number; 255 is what DeepLab ignores.
        batched: for pictures `[b, y, x, c]`; each gets draws of its own. Volumes go one by one.
            Say it: a batch of pictures has as many axes as a volume, and without a `case` or a
            `spacing` nothing else tells them apart.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage: `dataset.apply(stage(...))`. It belongs after `cache` and `repeat`. Elements are
        dicts; `image` becomes float32 in its own unit, `mask` keeps its dtype and has no id that
        it did not have. Other fields stay as they are, also maps of the same shape. Fixed
        shapes are compiled by XLA, which takes a second or two at the first element; images of
        varying shapes take several times as long each. Crop first: an elastic warp holds 16 bytes
        for each voxel.

    Raises:
        ValueError: for a piece that is none, or that does not fit the images.
        CourseDataError: `MASK_MISMATCH` if image and mask differ in shape.
        tf.errors.InvalidArgumentError: while running, `NOT_FINITE` for an image with NaN or
            infinities, `MASK_MISMATCH` where shapes are not known before; it names the case.
    """
    if not isinstance(pieces, Sequence):
        raise ValueError(f"pieces are a list, [augment.Rotate(15)] or augment.ct(), not {pieces!r}")
    pieces = tuple(pieces)
    for piece in pieces:
        if not isinstance(piece, spatial.PIECES + appearance.PIECES):
            raise ValueError(f"{piece!r} is no piece of an augmentation")
    fill, mask_fill = warp.checked_fill(fill, mask_fill)
    lengths = spacing is None or (np.ndim(spacing) == 1 and np.isfinite(spacing).all())
    if not lengths or (spacing is not None and np.min(spacing) <= 0):
        raise ValueError(f"a spacing is a positive length for each axis, not {spacing}")
    augmented = functools.partial(
        _augmented,
        pieces=pieces,
        spacing=spacing,
        fill=fill,
        mask_fill=mask_fill,
        batched=batched,
    )

    def apply(dataset: tf.data.Dataset) -> tf.data.Dataset:
        _check_elements(dataset.element_spec, batched)
        if "runs" in dataset.element_spec and any(isinstance(x, spatial.PIECES) for x in pieces):
            raise ValueError(
                "crop before you augment: `runs` of crops.locate do not move with the voxels"
            )
        return draws.map_with_seeds(
            dataset, augmented, seed=seed, name="augment", num_parallel_calls=num_parallel_calls
        )

    return apply


def once(pieces: Sequence, image, mask=None, *, seed: int = 0, **options):
    """Augment one image, to look at.

    Args:
        pieces: as for `stage`.
        image: array `[z, y, x, c]` or `[y, x, c]`.
        mask: class ids of the same spatial shape with one channel.
        seed: another one draws other amounts.
        options: `spacing`, `fill`, `mask_fill` of `stage`.

    Returns:
        The image as a float32 array, and the mask if there is one.
    """
    element = {"image": np.asarray(image)} | ({} if mask is None else {"mask": np.asarray(mask)})
    dataset = tf.data.Dataset.from_tensors(element)
    (result,) = dataset.apply(stage(pieces, seed=seed, **options)).as_numpy_iterator()
    return result["image"] if mask is None else (result["image"], result["mask"])


def _augmented(element: dict, seed, pieces, spacing, fill, mask_fill: int, batched: bool) -> dict:
    image, mask = element["image"], element.get("mask")
    moving = [piece for piece in pieces if isinstance(piece, spatial.PIECES)]
    changing = [piece for piece in pieces if isinstance(piece, appearance.PIECES)]
    image, mask = _checked(image, mask, element.get("case"), batched)
    if moving:
        first = 1 if batched else 0
        sizes = tf.shape(image)
        shape = [image.shape[i] or sizes[i] for i in range(first, image.shape.rank - 1)]
        spacing = _spacing(element, spacing, len(shape), sizes[:1] if batched else None)
        place, gates = spatial.draw(moving, shape, seed, spacing)
        image, mask = _moved(image, mask, moving, place, gates, fill, mask_fill, batched)
    else:
        image = tf.cast(image, tf.float32)
    if changing:
        known = image.shape.is_fully_defined() and warp.xla_works()
        # A stretch of seeds of its own for each piece.
        seeds = [tf.stack([seed[0], seed[1] + 1000 * (i + 1)]) for i in range(len(changing))]
        pairs = zip(changing, seeds, strict=True)
        drawn = [piece.draw(tf.shape(image), own, batched) for piece, own in pairs]
        image = _changer(tuple(map(_hashable, changing)), known, batched)(image, drawn)
    return element | {"image": image} | ({} if mask is None else {"mask": mask})


def _moved(image, mask, moving, place, gates, fill, mask_fill: int, batched: bool):
    static, mask_static = image.shape, None if mask is None else mask.shape
    if mask is not None:  # before the warp: what comes in from outside has no partner
        for piece, gate in zip(moving, gates, strict=True):
            if isinstance(piece, spatial.Flip) and piece.swap_ids:
                table = np.arange(warp.IDS, dtype=np.uint8)
                table[list(piece.swap_ids)] = list(piece.swap_ids.values())
                swapped = tf.gather(tf.cast(table, mask.dtype), tf.cast(mask, tf.int32))
                mask = _where(gate, swapped, mask)
    flips_only = all(isinstance(piece, spatial.Flip) for piece in moving)
    if flips_only:  # whole voxels change places: nothing to interpolate
        for piece, gate in zip(moving, gates, strict=True):
            rank = static.rank - (2 if batched else 1)
            axis = piece.position(rank) + (1 if batched else 0)
            image, mask = (
                None if one is None else _where(gate, tf.reverse(one, [axis]), one)
                for one in (image, mask)
            )
        image = tf.cast(image, tf.float32)
    else:

        def looked_up():
            found, ids = warp.resample(
                image, mask, place, fill=fill, mask_fill=mask_fill, batched=batched
            )
            return (found, image if mask is None else ids)

        def as_it_is():
            return tf.cast(image, tf.float32), image if mask is None else mask

        acts = tf.reduce_max(tf.stack(gates)) > 0
        image, ids = tf.cond(acts, looked_up, as_it_is)
        mask = None if mask is None else ids
    if mask is not None:
        mask = tf.ensure_shape(mask, mask_static)
    return tf.ensure_shape(image, static), mask


def _where(gate, new, old):
    """New where the gate is 1, for one element or for each of a batch."""
    ones = [1] * (old.shape.rank - gate.shape.rank)
    return tf.where(tf.reshape(gate > 0, tf.concat([tf.shape(gate), ones], 0)), new, old)


def _hashable(piece):
    """The same piece with tuples for lists."""
    pairs = dataclasses.asdict(piece).items()
    return dataclasses.replace(piece, **{k: tuple(v) for k, v in pairs if isinstance(v, list)})


@functools.cache
def _changer(changing: tuple, known: bool, batched: bool):
    """One function for equal pieces, so that XLA compiles each shape once."""

    def change(image, drawn):
        for number, piece in enumerate(changing):
            image = piece.change(image, drawn[number], batched)
        return image

    return tf.function(change, jit_compile=known, autograph=False)


def _spacing(element: dict, spacing, rank: int, batch):
    found = element.get("spacing") if spacing is None else tf.constant(spacing)
    found = None if found is None else tf.cast(found, tf.float32)
    shape = [rank] if batch is None else tf.concat([batch, [rank]], 0)
    if found is None:
        return tf.ones(shape)
    if found.shape.rank == 0 or found.shape[-1] != rank:
        raise ValueError(f"a spacing of shape {found.shape} for images of {rank} spatial axes")
    found = tf.where((found > 0) & tf.math.is_finite(found), found, 1.0)
    return tf.broadcast_to(found, shape)


def _checked(image, mask, case, batched: bool):
    """Image and mask, or an error while running that names the case."""
    checks = []
    if mask is not None:
        checks += fits(image, mask, case)
    if image.dtype.is_floating:  # NaN would spread to its neighbours in silence
        image = tf.cast(image, tf.float32)
        finite = tf.reduce_all(
            tf.math.is_finite(image), range(1 if batched else 0, image.shape.rank)
        )
        about = [
            "an image holds NaN, infinities, or more than float32 can; fill them first, or leave "
            "the case out"
        ]
        named = tf.boolean_mask(case, ~finite) if batched and case is not None else case
        checks += require(tf.reduce_all(finite), "NOT_FINITE", about, named)
    with tf.control_dependencies(checks):
        image = tf.identity(image)
        return image, None if mask is None else tf.identity(mask)


def _check_elements(spec, batched: bool) -> None:
    check_image(spec)
    image, mask = spec["image"], spec.get("mask")
    if image.dtype.is_complex or not (image.dtype.is_floating or image.dtype.is_integer):
        raise ValueError(f"an image holds real numbers, not {image.dtype.name}")
    allowed = (4,) if batched else (3, 4)
    if image.shape.rank not in allowed:
        raise ValueError(
            f"images here are {'[b, y, x, c]' if batched else '[z, y, x, c] or [y, x, c]'}, not of "
            f"shape {image.shape}. Augment volumes one by one, before .batch(), and several crops "
            "of an image after .unbatch(); tf.ensure_shape states what is not known"
        )
    for name, alone in (("case", 0), ("modality", 0), ("weight", 0), ("spacing", 1)):
        # A batch of pictures has the rank of a volume, and would be bent across its patients.
        if name in spec and (spec[name].shape.rank == alone + 1) != batched:
            raise ValueError(
                f"elements with a `{name}` of shape {spec[name].shape} are "
                f"{'single ones: leave out batched=True' if batched else 'batches: batched=True'}"
            )
    if mask is None:
        return
    check_mask(mask, image.shape)
    if mask.dtype != tf.uint8:
        raise CourseDataError(
            "MASK_MISMATCH",
            f"a mask holds class ids as uint8, found {mask.dtype.name}; tf.cast(mask, tf.uint8)",
        )
