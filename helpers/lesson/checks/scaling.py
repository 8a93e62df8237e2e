"""Check of notebook 06: image and mask enlarged or shrunk about the centre, their size kept."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from helpers.lesson.checks.answers import Check, Wrong, mapped_pairs, pair

FACTORS = (1.6, 0.6, 2.0, 0.5, 1.0, 1.25, 0.8)
FILL, IGNORE = 127, 255
SIZES = ((46, 60, np.uint8), (51, 43, np.float32))  # height, width and dtype of the image
LEVELS, FILLED = 1.0, 0.1  # of rounding in the image, and where there is none
# A mistake is named if it explains all but 2 % of what it covers, which has to be this share of
# the picture at least, and so much more of it than the right factor does.
COVERED, BETTER = 0.2, 0.02
PATCHES = ((0.05, 40.0, 2), (0.55, 215.0, 5))  # share of a side, value in channel 2, class id
WHY = {"image": "bilinear makes fractions", "mask": "class ids stay whole numbers"}

# What is wrong -> the factor, or two (y, x), and which part of a side stays where it was.
PLACES = {
    "is shrunk where it should grow, or the reverse: is the factor inverted?": (
        lambda factor: (1 / factor, 0.5)
    ),
    "keeps its upper left corner where it was; keep the centre there": lambda factor: (factor, 0),
    "keeps its lower right corner where it was; keep the centre there": lambda factor: (factor, 1),
    "is scaled along y alone": lambda factor: ((factor, 1), 0.5),
    "is scaled along x alone": lambda factor: ((1, factor), 0.5),
    "is scaled by the factor's root; it is a factor of the sides, not of the area": (
        lambda factor: (math.sqrt(factor), 0.5)
    ),
    "is scaled twice": lambda factor: (factor**2, 0.5),
}


def resized(
    place: Callable = lambda factor: (factor, 0.5),
    fill: float = FILL,
    ignore: int = IGNORE,
    methods: tuple = ("BILINEAR", "NEAREST"),
) -> Callable:
    """Image and mask, transformed about a point by a factor, or one for each axis."""

    def answer(image, mask, factor):
        import tensorflow as tf

        height, width, _ = image.shape
        by, anchor = place(factor)
        y, x = by if isinstance(by, tuple) else (by, by)
        back_y, back_x = 1 / tf.cast(y, tf.float32), 1 / tf.cast(x, tf.float32)
        top, left = anchor * (height - 1), anchor * (width - 1)
        rows = [back_x, 0.0, (1 - back_x) * left, 0.0, back_y, (1 - back_y) * top, 0.0, 0.0]

        def apply(one, how, outside):
            return tf.raw_ops.ImageProjectiveTransformV3(
                images=tf.cast(one, tf.float32)[None],
                transforms=tf.stack(rows)[None],
                output_shape=[height, width],
                fill_value=float(outside),
                interpolation=how,
                fill_mode="CONSTANT",
            )[0]

        image, mask = apply(image, methods[0], fill), apply(mask, methods[1], ignore)
        return image, tf.cast(mask, tf.uint8)

    return answer


def root(factor):
    return factor**0.5, 0.5


MISTAKES = {
    **{what: resized(place) for what, place in PLACES.items() if "root" not in what},
    "is scaled by the factor's root": resized(root),
    "the image holds 0 where nothing is known; asked for is 127": resized(fill=0),
    "the mask holds 0 where nothing is known; asked for is 255": resized(ignore=0),
    "the mask holds 127 where nothing is known; asked for is 255": resized(ignore=127),
    "nearest neighbour is for the mask, here bilinear": resized(methods=("NEAREST", "NEAREST")),
    'interpolated between ids; method="nearest"': resized(methods=("BILINEAR", "BILINEAR")),
    "what has become of the factor?": resized(lambda factor: (1.37, 0.5)),
    "the image comes back as it was": resized(lambda factor: (1.0, 0.5)),
    "the mask comes back as it was": lambda image, mask, factor: (
        resized()(image, mask, factor)[0],
        mask,
    ),
}


def judge_scaled(answer: Callable) -> str:
    """`answer(image, mask, factor)` is the pair, enlarged (> 1) or shrunk (< 1).

    The image is uint8 or float32 `[y, x, 3]`, the mask uint8 `[y, x, 1]`, the factor a float32
    scalar (random scale of DeepLab's training, Chen et al. 2017).
    """
    for height, width, dtype in SIZES:
        image, mask = made_up(np.random.default_rng(height), height, width, dtype)
        wanted = {"image": "float32", "mask": "uint8"}
        pair(answer, image, mask, np.float32(FACTORS[0]), wanted=wanted, why=WHY)
        passes = in_map(answer, image, mask)
        for factor, *both in zip(FACTORS, *passes, strict=True):
            for name, before, *after in zip(("image", "mask"), (image, mask), *both, strict=True):
                if after[0].shape != before.shape:
                    raise Wrong(
                        f"factor {factor:g}: the {name} had shape {before.shape}, yours has "
                        f"{after[0].shape}: cut off what goes over the border, fill what is missing"
                    )
                if not np.array_equal(*after, equal_nan=True):
                    raise Wrong(
                        f"the {name} comes out otherwise the second time: the factor is given, "
                        "draw none of your own"
                    )
        first = passes[0][0][0]
        moved = not np.array_equal(first, image)
        if moved and all(np.array_equal(found[0], first) for found in passes[0]):
            raise Wrong("it comes out the same for all factors: what has become of the factor?")
        for factor, found in zip(FACTORS, passes[0], strict=True):
            judge_image(found[0], image, factor)
            judge_mask(found[1][..., 0], mask[..., 0], factor)
    return (
        f"right for {len(FACTORS)} factors from {min(FACTORS):g} to {max(FACTORS):g}, on a uint8 "
        "and a float32 image that the check made up"
    )


def made_up(rng: np.random.Generator, height: int, width: int, dtype) -> tuple:
    """A ramp along y, one along x and patches; a mask of three classes with an ignored corner."""
    y, x = np.indices((height, width))
    patches, mask = np.full((height, width), 120.0), np.zeros((height, width, 1), np.uint8)
    for start, value, label in PATCHES:
        top, left = (int(start * n) + rng.integers(3) for n in (height, width))
        part = slice(top, top + height // 3), slice(left, left + width // 3)
        patches[part], mask[part] = value, label
    mask[-height // 4 :, : width // 4] = IGNORE
    return np.stack([20 + 4 * y, 225 - 3 * x, patches], -1).astype(dtype), mask


def in_map(answer: Callable, image: np.ndarray, mask: np.ndarray) -> list[list[tuple]]:
    """What the answer makes of the pair inside `Dataset.map` for all `FACTORS`, in two passes."""
    import tensorflow as tf

    images, masks = (np.repeat(one[None], len(FACTORS), 0) for one in (image, mask))
    given = tf.data.Dataset.from_tensor_slices((images, masks, np.float32(FACTORS)))
    return mapped_pairs(answer, given, lambda made: [[*made.as_numpy_iterator()] for _ in "12"])


def judge_image(found: np.ndarray, image: np.ndarray, factor: float) -> None:
    said = f"factor {factor:g}: the image"
    if not np.isfinite(found).all():
        raise Wrong(f"{said} holds NaN or infinite values")
    if found.max() <= 1.5:
        raise Wrong(f"{said} has values up to {found.max():.3g}: keep those from 0 to 255")
    if factor != 1 and np.array_equal(found, image):
        raise Wrong(f"{said} comes back as it was")
    channels = list(zip(np.moveaxis(found, -1, 0), np.moveaxis(image, -1, 0), strict=True))
    for after, before in channels:  # the ramps first: what lies where shows best in them
        fits = fitting(after, before, factor, FILL)
        fits &= inside(before.shape, factor, np.max) | (np.abs(after - FILL) < FILLED)
        if not fits.all():
            raise Wrong(f"{said} {misplaced('image', after, before, factor, FILL, fits)}")
    if factor > 1 and all(np.isin(after, [*before.flat, FILL]).all() for after, before in channels):
        raise Wrong(f"{said} has no new values: nearest neighbour is for the mask, here bilinear")


def judge_mask(found: np.ndarray, mask: np.ndarray, factor: float) -> None:
    said = f"factor {factor:g}: the mask"
    strange = ~np.isin(found, [*mask.flat, IGNORE]) & inside(mask.shape, factor)
    sure = {"reach": reach(factor), "pick": np.min}
    lost = [
        int(one)
        for one in np.unique(mask)
        if not (found == one).any() and looked_up(mask == one, factor, one == IGNORE, **sure).any()
    ]
    without = f"lost the id{'s' * (len(lost) > 1)} {', '.join(map(str, lost))}"
    if strange.any():
        new = f"has the ids {', '.join(map(str, np.unique(found[strange])[:5]))}"
        if lost:
            raise Wrong(f"{said} {without}, and {new}, which were not in it")
        raise Wrong(f'{said} {new}, not in it before: interpolated between ids; method="nearest"')
    fits = fitting(found, mask, factor, IGNORE)
    if not fits.all():
        why = misplaced("mask", found, mask, factor, IGNORE, fits)
        raise Wrong(f"{said} {without if lost and 'other values' in why else why}")


def looked_up(one: np.ndarray, factor, fill, reach: float = 0, anchor: float = 0.5, pick=np.max):
    """`one` `[y, x]`, scaled about a point (the centre) with the nearest pixels; `fill` outside.

    With `reach`, what `pick` makes of all that lies up to so many pixels of the result away.
    `factor` is one number or two (y, x).
    """
    # Where the image shrinks, by half pixels, so that all that came in is looked at.
    moves = np.arange(-reach, reach + 1, 0.5 if np.min(factor) < 1 else 1)[:, None]
    for axis, by in enumerate(np.broadcast_to(factor, 2)):
        n = one.shape[axis]
        fixed = anchor * (n - 1)
        at = np.floor((np.arange(n) + moves - fixed) / by + fixed + 0.5).astype(int)
        outside = np.full_like(np.take(one, [0], axis), fill)
        filled = np.concatenate([outside, one, outside], axis)
        one = pick(np.take(filled, np.clip(at, -1, n) + 1, axis), axis=axis)
    return one


def reach(factor) -> int:
    """How far two right answers may lie apart, in pixels of the result.

    Rounding of the size and of odd margins and the conventions of resizing come to a pixel of the
    result and half of one of what came in.
    """
    return math.ceil(1.25 + 0.5 * float(np.max(factor)))


def fitting(found: np.ndarray, one: np.ndarray, factor, fill: int, anchor=0.5) -> np.ndarray:
    """Where `found` is what stands there, or within `reach`, bool `[y, x]`."""
    about = {"reach": reach(factor), "anchor": anchor}
    if fill == FILL:
        one = one.astype(float)
        low, high = (looked_up(one, factor, fill, pick=pick, **about) for pick in (np.min, np.max))
        return (found >= low - LEVELS) & (found <= high + LEVELS)
    ids = np.unique([*one.flat, fill])
    near = [(found == i) & looked_up(one == i, factor, i == fill, **about) for i in ids]
    return np.logical_or.reduce(near)


def inside(shape: tuple[int, int], factor, pick=np.min, anchor=0.5) -> np.ndarray:
    """Where there is image for sure; with `pick=np.max`, where there may be some."""
    return looked_up(np.ones(shape, bool), factor, False, reach(factor), anchor, pick)


def misplaced(name: str, found, one, factor: float, fill: int, fits: np.ndarray) -> str:
    """What is wrong with an image's channel or with a mask."""
    outside = ~inside(one.shape, factor, np.max)
    if fits[inside(one.shape, factor)].all() and not fits[outside].all():
        ends = dict.fromkeys(
            f"{value:.4g}" for value in (found[outside].min(), found[outside].max())
        )
        why = ""
        if name == "mask":
            why = (
                ", which is no class; 0 is the background"
                if list(ends) == ["0"]
                else ", to be ignored"
            )
        return f"holds {' to '.join(ends)} where nothing is known; asked for is {fill}{why}"
    if name == "mask" and np.array_equal(found, one):
        return "comes back as it was"
    low, high = found.min(), found.max()
    beyond = low < one.min() - LEVELS or high > one.max() + LEVELS
    if name == "image" and factor > 1 and beyond and fits.mean() > 0.7:
        return (
            f"has values from {low:.4g} to {high:.4g} where it had {one.min():g} to "
            f"{one.max():g}: bilinear never leaves these"
        )
    scores = {}
    for what, place in PLACES.items():
        by, anchor = place(factor)
        there = inside(one.shape, by, anchor=anchor)
        fit = fitting(found, one, by, fill, anchor)[there].mean()
        if there.mean() > COVERED and fit > max(0.98, fits[there].mean() + BETTER):
            scores[what] = fit
    if scores:
        return max(scores, key=scores.get)
    y, x = np.argwhere(~fits)[0].tolist()
    return (
        f"has other values in {100 * (1 - fits.mean()):.2g} % of its pixels: at (y, x) = "
        f"({y}, {x}) {found[y, x]:.4g} for about {looked_up(one, factor, fill)[y, x]:g}"
    )


scaled = Check(judge_scaled, resized(), MISTAKES)
