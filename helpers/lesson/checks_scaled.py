"""Check of notebook 06: image and mask enlarged or shrunk about the centre, their size kept."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from helpers.lesson.verdicts import VerdictError, ask, cause, few, judged, mapped, wrong

FACTORS = (1.6, 0.6, 2.0, 0.5, 1.0, 1.25, 0.8)
FILL, IGNORE = 127, 255
SIZES = ((46, 60, np.uint8), (51, 43, np.float32))  # height, width and dtype of the image
LEVELS = 1.0  # of rounding in the image
FILLED = 0.1  # of rounding where there is no image
# A mistake is named if it explains all but 2 % of what it covers, which has to be this share of
# the picture at least, and so much more of it than the right factor does.
COVERED, BETTER = 0.2, 0.02
PATCHES = ((0.05, 40.0), (0.55, 215.0))  # in which channel 2 is another: share of a side, value


@judged
def scaled(answer: Callable) -> str:
    """Notebook 06: `answer(image, mask, factor)` is the pair, enlarged (> 1) or shrunk (< 1).

    The image is uint8 or float32 `[y, x, 3]`, the mask uint8 `[y, x, 1]`, the factor a float32
    scalar; inside `Dataset.map` all are tensors. Both keep their size and centre: the image comes
    back as float32, bilinear, 127 where there is nothing, the mask as uint8, of the nearest
    pixels, 255 where there is nothing (random scale of DeepLab's training, Chen et al. 2017).
    """
    for height, width, dtype in SIZES:
        image, mask = _made_up(np.random.default_rng(height), height, width, dtype)
        _judge_alone(answer, image, mask)
        pairs, again = _mapped(answer, image, mask)
        for factor, found, other in zip(FACTORS, pairs, again, strict=True):
            for name, before, after, second in zip(
                ("image", "mask"), (image, mask), found, other, strict=True
            ):
                if after.shape != before.shape:
                    raise _resized(name, factor, before.shape, after.shape)
                if not np.array_equal(after, second, equal_nan=True):
                    raise wrong(
                        f"the {name} comes out otherwise the second time: the factor is given, "
                        "draw none of your own"
                    )
        for factor, found in zip(FACTORS, pairs, strict=True):
            _judge_image(found[0], image, factor)
            _judge_mask(found[1][..., 0], mask[..., 0], factor)
    return (
        f"right for {len(FACTORS)} factors from {min(FACTORS):g} to {max(FACTORS):g}, on a uint8 "
        "and a float32 image that the check made up"
    )


def _made_up(rng: np.random.Generator, height: int, width: int, dtype) -> tuple[np.ndarray, ...]:
    """A ramp along y, one along x and patches; a mask of three classes with an ignored corner."""
    y, x = np.indices((height, width))
    ramps = 20 + 4 * y, 225 - 3 * x
    patches, mask = np.full((height, width), 120.0), np.zeros((height, width, 1), np.uint8)
    for (start, value), label in zip(PATCHES, (2, 5), strict=True):
        top, left = (int(start * n) + rng.integers(3) for n in (height, width))
        part = slice(top, top + height // 3), slice(left, left + width // 3)
        patches[part], mask[part] = value, label
    mask[-height // 4 :, : width // 4] = IGNORE
    return np.stack([*ramps, patches], -1).astype(dtype), mask


def _judge_alone(answer: Callable, image: np.ndarray, mask: np.ndarray) -> None:
    import tensorflow as tf

    try:
        pair = ask(answer, tf.constant(image), tf.constant(mask), tf.constant(FACTORS[0]))
    except VerdictError as verdict:
        if isinstance(verdict.__cause__, Exception):
            raise wrong(f"your code raises {cause(verdict.__cause__)}") from verdict.__cause__
        raise
    if not isinstance(pair, tuple) or len(pair) != 2:
        hint = "; Dataset.map packs a list into one tensor" if isinstance(pair, list) else ""
        found = type(pair).__name__
        raise wrong(f"a tuple of two is asked for: return image, mask; found {found}{hint}")
    wanted = {"image": ("float32", image.shape), "mask": ("uint8", mask.shape)}
    for (name, (dtype, shape)), after in zip(wanted.items(), pair, strict=True):
        if after is None or after is ...:
            raise wrong(f"the {name} comes back as {after}: return image, mask")
        after = np.asarray(after)
        if after.shape != shape:
            raise _resized(name, FACTORS[0], shape, after.shape)
        if after.dtype != dtype:
            why = "class ids stay whole numbers" if name == "mask" else "bilinear makes fractions"
            raise wrong(f"the {name} is to be {dtype}, yours is {after.dtype}: {why}")


def _resized(name: str, factor: float, before: tuple, after: tuple) -> VerdictError:
    hint = ": cut off what goes over the border, fill what is missing"
    said = f"factor {factor:g}: the {name} had shape {before}, yours has {after}"
    return wrong(said + (hint if after[:2] != before[:2] else ""))


def _mapped(answer: Callable, image: np.ndarray, mask: np.ndarray) -> list[list[tuple]]:
    """What the answer makes of the pair inside `Dataset.map` for all `FACTORS`, in two passes."""
    import tensorflow as tf

    count = len(FACTORS)
    images, masks = (np.repeat(one[None], count, 0) for one in (image, mask))
    given = tf.data.Dataset.from_tensor_slices((images, masks, np.float32(FACTORS)))
    return mapped(answer, given, lambda made: [list(made.as_numpy_iterator()) for _ in range(2)])


def _judge_image(found: np.ndarray, image: np.ndarray, factor: float) -> None:
    said = f"factor {factor:g}: the image"
    if not np.isfinite(found).all():
        raise wrong(f"{said} holds NaN or infinite values")
    if found.max() <= 1.5:
        raise wrong(f"{said} has values up to {found.max():.3g}: keep those from 0 to 255")
    if factor != 1 and np.array_equal(found, image):
        raise wrong(f"{said} comes back as it was")
    channels = list(zip(np.moveaxis(found, -1, 0), np.moveaxis(image, -1, 0), strict=True))
    for after, before in channels:  # the ramps first: what lies where shows best in them
        fitting = _fitting(after, before, factor, FILL)
        fitting &= _inside(before.shape, factor, np.max) | (np.abs(after - FILL) < FILLED)
        if not fitting.all():
            raise wrong(_misplaced("image", after, before, factor, FILL, fitting))
    if factor > 1 and all(np.isin(after, [*before.flat, FILL]).all() for after, before in channels):
        raise wrong(f"{said} has no new values: nearest neighbour is for the mask, here bilinear")


def _judge_mask(found: np.ndarray, mask: np.ndarray, factor: float) -> None:
    strange = ~np.isin(found, [*mask.flat, IGNORE])
    if (strange & _inside(mask.shape, factor)).any():
        said = f"factor {factor:g}: the mask"
        new = f"the ids {few(np.unique(found[strange]))}, which were not in it"
        if lost := _lost(found, mask, factor):
            raise wrong(f"{said} {lost}, and has {new}")
        raise wrong(f'{said} has {new}: interpolated between ids; method="nearest"')
    fitting = _fitting(found, mask, factor, IGNORE)
    if not fitting.all():
        raise wrong(_misplaced("mask", found, mask, factor, IGNORE, fitting))


def _looked_up(one: np.ndarray, factor, fill, reach: float = 0, anchor: float = 0.5, pick=np.max):
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


def _reach(factor) -> int:
    """How far two right answers may lie apart, in pixels of the result.

    Rounding of the size and of odd margins and the conventions of resizing come to a pixel of the
    result and half of one of what came in.
    """
    return math.ceil(1.25 + 0.5 * float(np.max(factor)))


def _fitting(found: np.ndarray, one: np.ndarray, factor, fill: int, **about) -> np.ndarray:
    """Where `found` is what stands there, or within `_reach`, bool `[y, x]`."""
    about["reach"] = _reach(factor)
    if fill == FILL:
        one = one.astype(float)
        low, high = (_looked_up(one, factor, fill, pick=pick, **about) for pick in (np.min, np.max))
        return (found >= low - LEVELS) & (found <= high + LEVELS)
    ids = np.unique([*one.flat, fill])
    near = [(found == i) & _looked_up(one == i, factor, i == fill, **about) for i in ids]
    return np.logical_or.reduce(near)


def _inside(shape: tuple[int, int], factor, pick=np.min, **about) -> np.ndarray:
    """Where there is image for sure; with `pick=np.max`, where there may be some."""
    return _looked_up(np.ones(shape, bool), factor, False, _reach(factor), pick=pick, **about)


def _lost(found: np.ndarray, mask: np.ndarray, factor: float) -> str:
    """Which ids are nowhere, though some pixels have them for sure; empty if none."""
    sure = {"reach": _reach(factor), "pick": np.min}
    ids = [
        i
        for i in np.unique(mask).tolist()
        if not (found == i).any() and _looked_up(mask == i, factor, i == IGNORE, **sure).any()
    ]
    return f"lost the id{'s' * (len(ids) > 1)} {few(ids)}" if ids else ""


def _misplaced(name: str, found, one, factor: float, fill: int, fitting: np.ndarray) -> str:
    """What is wrong with an image's channel or with a mask."""
    said = f"factor {factor:g}: the {name}"
    outside = ~_inside(one.shape, factor, np.max)
    if fitting[_inside(one.shape, factor)].all() and not fitting[outside].all():
        values = np.unique(found[outside])
        there = " to ".join(f"{value:.4g}" for value in (values[0], values[-1])[: len(values)])
        why = ""
        if name == "mask":
            why = ", which is no class; 0 is the background" if there == "0" else ", to be ignored"
        return f"{said} holds {there} where nothing is known; asked for is {fill}{why}"
    if name == "mask" and np.array_equal(found, one):
        return f"{said} comes back as it was"
    if name == "image" and fitting.mean() > 0.7 and factor > 1:
        low, high = found.min(), found.max()
        if low < one.min() - LEVELS or high > one.max() + LEVELS:
            return (
                f"{said} has values from {low:.4g} to {high:.4g} where it had {one.min():g} to "
                f"{one.max():g}: bilinear never leaves these"
            )
    named = {
        "is shrunk where it should grow, or the reverse: is the factor inverted?": (
            1 / factor,
            0.5,
        ),
        "keeps its upper left corner where it was; keep the centre there": (factor, 0),
        "keeps its lower right corner where it was; keep the centre there": (factor, 1),
        "is scaled along y alone": ((factor, 1), 0.5),
        "is scaled along x alone": ((1, factor), 0.5),
        "is scaled by the factor's root; it is a factor of the sides, not of the area": (
            math.sqrt(factor),
            0.5,
        ),
        "is scaled twice": (factor**2, 0.5),
    }
    others = np.geomspace(1 / 3, 3, 61)
    ways = [*named.values(), *((by, 0.5) for by in others)]
    fits = []
    for by, anchor in ways:
        there = _inside(one.shape, by, anchor=anchor)
        fit = _fitting(found, one, by, fill, anchor=anchor)[there]
        telling = there.mean() > COVERED and fit.mean() > fitting[there].mean() + BETTER
        fits.append(fit.mean() if telling else 0)
    if max(fits[: len(named)]) > 0.98:
        return f"{said} {list(named)[int(np.argmax(fits[: len(named)]))]}"
    if max(fits) > 0.98:
        by = np.median(others[np.array(fits[len(named) :]) > 0.98])
        return f"{said} is scaled by about {by:.2g}: what has become of the factor?"
    if name == "mask" and (lost := _lost(found, one, factor)):
        return f"{said} {lost}"
    y, x = np.argwhere(~fitting)[0].tolist()
    return (
        f"{said} has other values in {100 * (1 - fitting.mean()):.2g} % of its pixels: at (y, x) = "
        f"({y}, {x}) {found[y, x]:.4g} for about {_looked_up(one, factor, fill)[y, x]:g}"
    )
