"""What changes grey values and leaves every voxel where it is: masks are not touched.

An image is a float32 batch `[b, (z,) y, x, c]` in its own unit, amounts are `[b, 1, ..., k]`. An
amount of zero gives back the very same values.
"""

from dataclasses import field

import numpy as np
import tensorflow as tf

from helpers.augment.amounts import Amount, Transform, pair, plain
from helpers.augment.warp import from_centre, half, sizes, upsample

# Y, I, Q after NTSC: the hue is the angle in the plane of I and Q.
RGB_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)


@plain
class Grey(Transform):
    """A transform that changes grey values.

    Args:
        p: probability.
        each_channel: whether what is computed over an image is computed over each of its channels.

    Taught in: no lesson; `Brightness`, `Noise` and others are one
    """

    each_channel: bool = field(default=False, kw_only=True)

    def over(self, image, reduce):
        """Each image as one number, by `reduce`, or one for each channel.

        One axis after the other. A sum of millions of numbers in one go is wrong in float32: what
        is added no longer counts beside what is there. Sums of hundreds, and sums of these, do.
        """
        for axis in range(1, image.shape.rank - self.each_channel):
            image = reduce(image, axis, keepdims=True)
        return image

    def spread(self, image):
        """The standard deviation of each image, or of each channel."""
        distance = image - self.over(image, tf.reduce_mean)
        return tf.sqrt(self.over(distance**2, tf.reduce_mean))


@plain
class Brightness(Grey):
    """Add one number to the whole image.

    Args:
        amount: in the image's unit, or in its standard deviations.
        relative: whether the amount is in standard deviations.
        p, each_channel: as for `Grey`.

    Taught in: augmentation
    """

    amount: Amount
    relative: bool = False

    def limits(self, rank):
        """What is added."""
        return [pair(self.amount)]

    def change(self, image, amounts, extra):
        """The brighter or darker image."""
        return image + amounts * (self.spread(image) if self.relative else 1)


@plain
class Noise(Grey):
    """Add to each voxel a number of its own, from a normal distribution.

    Args:
        sigma: the largest standard deviation; that of an image is drawn between 0 and it. In the
            image's unit, or in its standard deviations. A pair gives both limits.
        relative: whether sigma is in standard deviations.
        p, each_channel: as for `Grey`.

    Taught in: augmentation
    """

    sigma: Amount
    relative: bool = False

    def limits(self, rank):
        """The standard deviation."""
        return [pair(self.sigma if np.iterable(self.sigma) else (0, self.sigma), least=0)]

    def extra(self, shape, spacing, seed):
        """A number above 0 and below 1 for each voxel."""
        return tf.random.stateless_uniform(shape, seed, 2.0**-24, 1)

    def change(self, image, amounts, extra):
        """The noisy image."""
        normal = tf.math.ndtri(extra)  # half the time that drawing normal numbers takes
        return image + normal * (amounts * (self.spread(image) if self.relative else 1))


@plain
class Contrast(Grey):
    """Stretch grey values about the image's mean.

    Args:
        factor: a number `a` draws between 1 - a and 1 + a; or a pair of factors.
        p, each_channel: as for `Grey`.

    Taught in: augmentation
    """

    factor: Amount

    def limits(self, rank):
        """How much more than its distance from the mean a value is moved."""
        return np.subtract([pair(self.factor, middle=1, least=0)], 1)

    def change(self, image, amounts, extra):
        """The stretched image."""
        return image + (image - self.over(image, tf.reduce_mean)) * amounts


@plain
class Gamma(Grey):
    """Bend the grey scale between the image's darkest and brightest value.

    Args:
        log_gamma: the logarithm of the exponent; more than 0 darkens the middle.
        p, each_channel: as for `Grey`.

    Taught in: augmentation
    """

    log_gamma: Amount

    def limits(self, rank):
        """The logarithm of the exponent."""
        return [pair(self.log_gamma)]

    def change(self, image, amounts, extra):
        """The image with darker or brighter middle greys."""
        low = self.over(image, tf.reduce_min)
        size = self.over(image, tf.reduce_max) - low
        bent = low + size * tf.math.divide_no_nan(image - low, size) ** tf.exp(amounts)
        return tf.where(amounts == 0, image, bent)


@plain
class BiasField(Grey):
    """Multiply by a smooth field, as the coils of an MR scanner do.

    Args:
        strength: largest coefficient of the polynomial of degree 3 whose exponential the field
            is (van Leemput and others, IEEE TMI 18, 1999).
        p: probability.

    For values that are a signal, with 0 for none: before whitening, and not for HU.

    Taught in: augmentation
    """

    strength: float = 0.3

    def limits(self, rank):
        """A coefficient for each product of powers, 4 to the number of axes."""
        degrees = sum(np.indices([4] * rank)).ravel()
        # Without the constant: how bright the whole image is belongs to Brightness.
        return [pair(self.strength if 0 < degree <= 3 else 0) for degree in degrees]

    def change(self, image, amounts, extra):
        """The image times the field."""
        batch, *spatial, _ = sizes(image)
        powers = []
        for n in spatial:
            power = (from_centre(n) / tf.maximum(half(n), 0.5))[:, None] ** np.arange(4.0)
            powers.append(tf.broadcast_to(power, [batch, n, 4]))
        coefficients = tf.reshape(amounts, [batch] + [4] * len(spatial))
        return image * tf.exp(upsample(coefficients, powers)[..., None])


@plain
class Cutout(Grey):
    """Cover a box of the image, which the mask still names: the network has to infer it.

    Args:
        part: the box's edges as a part of the image's, from 0 to 1.
        value: what the box is filled with; the mean of the image if None.
        p, each_channel: as for `Grey`; each channel has a mean of its own unless told otherwise.

    Taught in: augmentation
    """

    part: float = 0.25
    value: float | None = None
    each_channel: bool = field(default=True, kw_only=True)

    def limits(self, rank):
        """Whether, and the place along each axis."""
        if not (0 <= self.part <= 1 and np.isfinite(self.value or 0)):
            raise ValueError(f"a box covers a part of an edge, 0 to 1, with a number, not {self}")
        return [(1, 1)] + [(0, 1)] * rank

    def change(self, image, amounts, extra):
        """The image with its box."""
        acts, *places = tf.split(amounts, amounts.shape[-1], axis=-1)
        covered = acts > 0
        for axis, place in enumerate(places, start=1):
            size = tf.cast(tf.shape(image)[axis], tf.float32)
            edge = tf.round(self.part * size)
            start = tf.floor(place * (size - edge + 1))
            index = tf.reshape(tf.range(size), [-1] + [1] * (len(places) + 1 - axis))
            covered &= (index >= start) & (index < start + edge)
        mean = self.over(image, tf.reduce_mean)
        return tf.where(covered, mean if self.value is None else float(self.value), image)


@plain
class Hue(Grey):
    """Turn the colours: red becomes more yellow, or more violet. For RGB only.

    Args:
        degrees: on the circle of colours.
        p: probability.

    Taught in: no lesson; `augment.dermoscopy` has it
    """

    degrees: Amount

    def limits(self, rank):
        """An angle in radians."""
        return np.radians([pair(self.degrees)])

    def change(self, image, amounts, extra):
        """The image in other colours."""
        quarter = np.linalg.inv(RGB_TO_YIQ) @ [[0, 0, 0], [0, 0, -1], [0, 1, 0]] @ RGB_TO_YIQ
        once, twice = (tf.matmul(image, np.float32(q.T)) for q in (quarter, quarter @ quarter))
        return image + (1 - tf.cos(amounts)) * twice + tf.sin(amounts) * once  # of Rodrigues


@plain
class Saturation(Contrast):
    """Make colours paler or stronger. For RGB only.

    Args:
        factor: a number `a` draws between 1 - a and 1 + a; or a pair of factors. 0 is grey.
        p: probability.

    Taught in: no lesson; `augment.dermoscopy` has it
    """

    def change(self, image, amounts, extra):
        """The paler or stronger image."""
        return image + (image - tf.matmul(image, np.float32(RGB_TO_YIQ[:1].T))) * amounts


@plain
class Clip(Grey):
    """Cut off what the others have moved out of the range of values: 0 to 255, for instance.

    Args:
        low, high: smallest and largest value.
        p: probability.

    Taught in: no lesson; `augment.dermoscopy` and `augment.xray` have it
    """

    low: float
    high: float

    def limits(self, rank):
        """One amount: whether."""
        pair((self.low, self.high))
        return [(1, 1)]

    def change(self, image, amounts, extra):
        """The image within the range."""
        clipped = tf.clip_by_value(image, float(self.low), float(self.high))
        return tf.where(amounts > 0, clipped, image)


UNITS = "HU", "0 to 255", "signal"


@plain
class Unit(Transform):
    """Refuse images whose values cannot be in a unit; it changes nothing.

    Args:
        name: "HU"; "0 to 255"; or "signal", with 0 for none, as MR has it before whitening.
        p: has no say.

    An element, be it a batch, is looked at as a whole. One grey value throughout tells nothing,
    and is let through.

    Taught in: augmentation
    """

    name: str

    def limits(self, rank):
        """None; a unit that is not known is a KeyError."""
        if self.name not in UNITS:
            raise KeyError(self.name)
        return []

    def possible(self, image):
        """Whether an element's `image` can be in the unit.

        One crop by itself goes through whatever it holds: soft tissue alone, the air beside a
        patient, a dark corner.
        """
        ends = tf.reduce_min(image), tf.reduce_max(image)
        low, high = (tf.cast(end, tf.float32) for end in ends)
        if self.name == "HU":  # noise alone is more; what was scaled to 0 to 1, or whitened, less
            return (low == high) | (low < -10) | (high > 10)
        # Hardly anything is less than no signal; of what was whitened, half is.
        signal = tf.constant(True)
        if not image.dtype.is_unsigned:  # bytes, for instance, have no sign
            image = tf.cast(image, tf.float32)
            signal = tf.reduce_mean(image) >= tf.reduce_mean(tf.abs(image)) / 2
        if self.name == "0 to 255":  # a little beyond, by resizing; 12 bits are something else
            signal &= (high > 1) & (high < 320)
        return (low == high) | signal
