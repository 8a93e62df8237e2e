"""What the tests of augmentation run, draw and measure with."""

import numpy as np
from scipy import stats

from helpers import augment
from helpers.augment.amounts import random_numbers
from helpers.augment.dataset import changed
from helpers.errors import CourseDataError

import tensorflow as tf  # isort: skip

SURE = 1e-4  # a right law is called wrong once in ten thousand fixed seeds


def ids(shape, count=256, seed=0):
    """A mask in which neighbours have different ids, so that each voxel can be told."""
    return np.random.default_rng(seed).integers(0, count, [*shape, 1], np.uint8)


def evenly_drawn(shape, low=0, high=255, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def act(transforms, images, masks=None, spacing=1):
    """What transforms make of a batch, without compiling; and of masks, if any."""
    batch = {"image": tf.constant(images, tf.float32)}
    batch |= {} if masks is None else {"mask": tf.constant(masks)}
    spacing = np.full((len(images), np.ndim(images) - 2), spacing, np.float32)
    numbers = random_numbers(transforms, np.shape(images), spacing, tf.constant([1, 2], tf.int64))
    image, mask, _ = changed(transforms, batch, spacing, *numbers)
    assert image.dtype == tf.float32 and image.shape == np.shape(images)
    return image.numpy() if masks is None else (image.numpy(), mask.numpy())


def many(transform, image, count=1500):
    """Results for many draws, as one batch."""
    return act([transform], np.broadcast_to(image, (count, *np.shape(image))))


def run(element, transforms, *, count=1, seed=1, **options):
    """What a compiled stage makes of an element, so many times."""
    dataset = tf.data.Dataset.from_tensors(element).repeat(count)
    return list(dataset.apply(augment.stage(transforms, seed=seed, **options)).as_numpy_iterator())


def evenly(found, low, high, slack=1e-4):
    """Whether values lie between the limits and are spread evenly."""
    slack *= high - low
    inside = low - slack <= found.min() and found.max() <= high + slack
    return inside and stats.kstest(found, "uniform", (low, high - low)).pvalue > SURE


def refusal(call, *args, **options):
    """What is said when something is refused, or None."""
    try:
        call(*args, **options)
    except (ValueError, TypeError, OverflowError, CourseDataError) as error:
        return f"{type(error).__name__}: {error}"
    return None
