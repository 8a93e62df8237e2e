"""What changes grey values and leaves every voxel where it is.

Each piece has `draw(shape, seed, batched)`, which gives its random numbers, and
`change(image, drawn, batched)`, which uses them: float32 `[z, y, x, c]` or `[y, x, c]`, with a
batch axis in front where `batched`, in the image's own unit. They are two, because XLA draws other
numbers from a seed than TensorFlow's own kernels: a stream would depend on whether it is compiled.
Masks are not touched. An amount of zero, and a draw in which the piece does not act, give back the
very same values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import tensorflow as tf

from helpers.augment.amounts import between, checked, probability
from helpers.augment.warp import upsample

# Y, I, Q after NTSC: the hue is the angle in the plane of I and Q.
RGB_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float32
)
POLYNOMIAL_DEGREE = 3


@dataclass(frozen=True)
class Brightness:
    """Add one number to the whole image.

    Args:
        amount: in the image's unit, or in its standard deviations.
        p: probability.
        relative: whether the amount is in standard deviations.
        each_channel: whether each channel has a standard deviation of its own.
    """

    amount: float | Sequence
    p: float = 1.0
    relative: bool = False
    each_channel: bool = False

    def __post_init__(self) -> None:
        probability(self.p)
        checked(self.amount, "a change of brightness")

    def draw(self, shape, seed, batched: bool):
        number, gate = _draw(shape, seed, self.p, batched)
        return gate * between(self.amount, number)

    def change(self, image, drawn, batched: bool):
        return image + drawn * _unit(self, image, batched)


@dataclass(frozen=True)
class Offset:
    """Add to each channel a number of its own, from a normal distribution.

    Args:
        sigma: its standard deviation, in the image's unit or in its standard deviations.
        p: probability.
        relative: whether sigma is in standard deviations.
        each_channel: whether each channel has a standard deviation of its own.

    The rule is that of DLTK's `add_gaussian_offset`.
    """

    sigma: float
    p: float = 1.0
    relative: bool = False
    each_channel: bool = False

    def __post_init__(self) -> None:
        probability(self.p)
        _positive(self.sigma, "a standard deviation")

    def draw(self, shape, seed, batched: bool):
        _, gate = _draw(shape, seed, self.p, batched)
        size = tf.concat([tf.shape(gate)[:-1], shape[-1:]], 0)
        return gate * self.sigma * tf.random.stateless_normal(size, _other(seed), alg="philox")

    def change(self, image, drawn, batched: bool):
        return image + drawn * _unit(self, image, batched)


@dataclass(frozen=True)
class Noise:
    """Add to each voxel a number of its own, from a normal distribution.

    Args:
        sigma: the largest standard deviation; that of an image is drawn between 0 and it. In the
            image's unit, or in its standard deviations. A pair gives both limits.
        p: probability.
        relative: whether sigma is in standard deviations.
        each_channel: whether each channel has a standard deviation of its own.
    """

    sigma: float | Sequence
    p: float = 1.0
    relative: bool = False
    each_channel: bool = False

    def __post_init__(self) -> None:
        probability(self.p)
        _positive(self._limits()[0], "a standard deviation")
        checked(self._limits(), "a standard deviation")

    def _limits(self) -> tuple[float, float]:
        pair = (0.0, self.sigma) if isinstance(self.sigma, Real) else self.sigma
        return tuple(pair)

    def draw(self, shape, seed, batched: bool):
        number, gate = _draw(shape, seed, self.p, batched)
        grain = tf.random.stateless_normal(shape, _other(seed), alg="philox")
        return gate * between(self._limits(), number), grain

    def change(self, image, drawn, batched: bool):
        sigma, grain = drawn
        return image + grain * (sigma * _unit(self, image, batched))


@dataclass(frozen=True)
class Contrast:
    """Stretch grey values about the image's mean.

    Args:
        factor: a number `a` draws between 1 - a and 1 + a; or a pair of factors.
        p: probability.
        each_channel: whether each channel has a mean of its own.
    """

    factor: float | Sequence
    p: float = 1.0
    each_channel: bool = False

    def __post_init__(self) -> None:
        probability(self.p)
        _positive(_about_one(self.factor)[0], "a factor of contrast")

    def draw(self, shape, seed, batched: bool):
        number, gate = _draw(shape, seed, self.p, batched)
        return gate * (between(_about_one(self.factor), number) - 1)

    def change(self, image, drawn, batched: bool):
        return image + (image - _mean(image, batched, self.each_channel)) * drawn


@dataclass(frozen=True)
class Gamma:
    """Bend the grey scale between the image's darkest and brightest value.

    Args:
        log_gamma: the logarithm of the exponent; more than 0 darkens the middle.
        p: probability.
        each_channel: whether each channel has a darkest and brightest value of its own.
    """

    log_gamma: float | Sequence
    p: float = 1.0
    each_channel: bool = False

    def __post_init__(self) -> None:
        probability(self.p)
        checked(self.log_gamma, "the logarithm of gamma")

    def draw(self, shape, seed, batched: bool):
        number, gate = _draw(shape, seed, self.p, batched)
        return tf.exp(gate * between(self.log_gamma, number))

    def change(self, image, drawn, batched: bool):
        axes = _axes(image, batched, self.each_channel)
        low = tf.reduce_min(image, axes, keepdims=True)
        size = tf.reduce_max(image, axes, keepdims=True) - low
        bent = low + size * tf.pow(tf.math.divide_no_nan(image - low, size), drawn)
        return tf.where(drawn == 1, image, bent)


@dataclass(frozen=True)
class BiasField:
    """Multiply by a smooth field, as the coils of an MR scanner do.

    Args:
        strength: largest coefficient of the polynomial of degree 3 whose exponential the field
            is (van Leemput and others, IEEE TMI 18, 1999).
        p: probability.

    For values that are a signal, with 0 for none: before whitening, and not for HU.
    """

    strength: float = 0.3
    p: float = 1.0

    def __post_init__(self) -> None:
        probability(self.p)
        _positive(self.strength, "the strength of a field")

    def draw(self, shape, seed, batched: bool):
        _, gate = _draw(shape, seed, self.p, batched)
        rank = shape.shape[0] - (2 if batched else 1)
        degree = sum(np.indices([POLYNOMIAL_DEGREE + 1] * rank))
        # Without the constant: how bright the whole image is belongs to Brightness.
        used = ((degree > 0) & (degree <= POLYNOMIAL_DEGREE)).astype(np.float32)
        size = tf.concat([shape[:1] if batched else [1], used.shape], 0)
        limits = (-self.strength, self.strength)
        coefficients = tf.random.stateless_uniform(size, _other(seed), *limits, alg="philox")
        return used * coefficients * tf.reshape(gate, [-1, *[1] * rank])

    def change(self, image, drawn, batched: bool):
        first = 1 if batched else 0
        sizes = [image.shape[i] or tf.shape(image)[i] for i in range(first, image.shape.rank - 1)]
        exponents = np.arange(POLYNOMIAL_DEGREE + 1, dtype=np.float32)
        powers = [tf.linspace(-1.0, 1.0, n)[:, None] ** exponents for n in sizes]
        field = upsample(drawn, powers)[..., None]
        return image * tf.exp(field if batched else field[0])


@dataclass(frozen=True)
class Cutout:
    """Cover a box of the image, which the mask still names: the network has to infer it.

    Args:
        part: the box's edges as a part of the image's, from 0 to 1.
        value: what the box is filled with; the mean of each channel if None.
        p: probability.
    """

    part: float = 0.25
    value: float | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        probability(self.p)
        if not 0 <= self.part <= 1:
            raise ValueError(f"a box covers a part of an edge, from 0 to 1, not {self.part}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a box is filled with a finite value, not {self.value}")

    def draw(self, shape, seed, batched: bool):
        _, gate = _draw(shape, seed, self.p, batched)
        axes = shape.shape[0] - (2 if batched else 1)
        size = tf.concat([tf.shape(gate), [axes]], 0)
        return gate, tf.random.stateless_uniform(size, _other(seed), alg="philox")

    def change(self, image, drawn, batched: bool):
        gate, places = drawn
        first, rank = (1 if batched else 0), image.shape.rank
        covered = gate > 0
        for number, axis in enumerate(range(first, rank - 1)):
            size = tf.shape(image)[axis]
            edge = tf.cast(tf.round(self.part * tf.cast(size, tf.float32)), tf.int32)
            start = places[..., number] * tf.cast(size - edge + 1, tf.float32)
            line = [1] * rank
            line[axis] = -1
            index = tf.reshape(tf.range(size), line)
            start = tf.minimum(tf.cast(start, tf.int32), size - edge)
            covered &= (index >= start) & (index < start + edge)
        mean = _mean(image, batched, each_channel=True)
        value = mean if self.value is None else tf.cast(self.value, tf.float32)
        return tf.where(covered, value, image)


@dataclass(frozen=True)
class Hue:
    """Turn the colours: red becomes more yellow, or more violet. For RGB only.

    Args:
        degrees: on the circle of colours.
        p: probability.
    """

    degrees: float | Sequence
    p: float = 1.0

    def __post_init__(self) -> None:
        probability(self.p)
        checked(self.degrees, "an angle of hue")

    def draw(self, shape, seed, batched: bool):
        number, gate = _draw(shape, seed, self.p, batched)
        return gate * between(self.degrees, number) * (math.pi / 180)

    def change(self, image, drawn, batched: bool):
        _need_colour(image, "Hue")
        to_rgb = np.linalg.inv(RGB_TO_YIQ)
        # As a change, so that no turn changes nothing.
        plane = to_rgb @ np.diag([0, 1, 1]).astype(np.float32) @ RGB_TO_YIQ
        across = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)
        turned = (to_rgb @ across @ RGB_TO_YIQ).astype(np.float32)
        change = (tf.cos(drawn) - 1) * plane.astype(np.float32) + tf.sin(drawn) * turned
        return image + tf.matmul(image, change, transpose_b=True)


@dataclass(frozen=True)
class Saturation:
    """Make colours paler or stronger. For RGB only.

    Args:
        factor: a number `a` draws between 1 - a and 1 + a; or a pair of factors. 0 is grey.
        p: probability.
    """

    factor: float | Sequence
    p: float = 1.0

    def __post_init__(self) -> None:
        probability(self.p)
        _positive(_about_one(self.factor)[0], "a factor of saturation")

    def draw(self, shape, seed, batched: bool):
        number, gate = _draw(shape, seed, self.p, batched)
        return gate * (between(_about_one(self.factor), number) - 1)

    def change(self, image, drawn, batched: bool):
        _need_colour(image, "Saturation")
        grey = tf.reduce_sum(image * RGB_TO_YIQ[0], -1, keepdims=True)
        return image + (image - grey) * drawn


@dataclass(frozen=True)
class Clip:
    """Cut off what the others have moved out of the range of values: 0 to 255, for instance.

    Args:
        low, high: smallest and largest value.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        checked((self.low, self.high), "a range of values")

    def draw(self, shape, seed, batched: bool):
        return ()

    def change(self, image, drawn, batched: bool):
        return tf.clip_by_value(image, float(self.low), float(self.high))


PIECES = (
    Brightness,
    Offset,
    Noise,
    Contrast,
    Gamma,
    BiasField,
    Cutout,
    Hue,
    Saturation,
    Clip,
)


def _draw(shape, seed, p: float, batched: bool):
    """A uniform number and whether to act, each `[(b,) 1, ..., 1]`, for an image of a shape."""
    ones = [1] * (shape.shape[0] - 1)
    size = tf.concat([[2], shape[:1] if batched else [1], ones], 0)
    drawn = tf.random.stateless_uniform(size, seed, alg="philox")
    return drawn[0], tf.cast(drawn[1] < p, tf.float32)


def _other(seed):
    """A second seed: numbers from the first one are used up."""
    return tf.stack([seed[0], seed[1] + 1])


def _axes(image, batched: bool, each_channel: bool) -> list[int]:
    return list(range(1 if batched else 0, image.shape.rank - (1 if each_channel else 0)))


def _mean(image, batched: bool, each_channel: bool):
    return tf.reduce_mean(image, _axes(image, batched, each_channel), keepdims=True)


def _unit(piece, image, batched: bool):
    """What an amount is counted in: the image's unit, or its standard deviation."""
    if not piece.relative:
        return 1.0
    return tf.math.reduce_std(image, _axes(image, batched, piece.each_channel), keepdims=True)


def _about_one(factor: float | Sequence) -> tuple[float, float]:
    pair = (1 - factor, 1 + factor) if isinstance(factor, Real) else factor
    return checked(pair, "a factor")


def _positive(number: float, what: str) -> None:
    if not (isinstance(number, Real) and 0 <= number < math.inf):
        raise ValueError(f"{what} is a number from 0, not {number}")


def _need_colour(image, name: str) -> None:
    if image.shape[-1] != 3:
        raise ValueError(
            f"{name} is for images with 3 channels (RGB), not {image.shape[-1]}; tf.ensure_shape "
            "states a number that is not known"
        )
