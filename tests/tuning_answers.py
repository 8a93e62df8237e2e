"""Right and wrong answers to the exercises of notebook 04, for `test_checks.py`."""

import math

import numpy as np

from helpers import quiet
from helpers.lesson import checks_tuning

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402


def busy(starts, stops):
    return (stops - starts).sum() / (stops[-1] - starts[0])


def by_gaps(starts, stops):
    return (starts[1:] - stops[:-1]).sum() / (stops[-1] - starts[0])


def parse(shape):
    def parse_one(record):
        spec = {
            "image": tf.io.FixedLenFeature([*shape, 1], tf.float32),
            "case": tf.io.FixedLenFeature([], tf.int64),
        }
        return tf.io.parse_single_example(record, spec)

    return parse_one


def standardise(element):
    mean, variance = tf.nn.moments(element["image"], axes=[0, 1, 2, 3])
    return element | {"image": (element["image"] - mean) / tf.sqrt(variance)}


def crop_by(law, size):
    return lambda element: element | {"image": law(element["image"], [*size, 1])}


def corner(image, size):
    return tf.slice(image, [0, 0, 0, 0], size)


def pipeline(*steps):
    """A pipeline of named steps, so that an answer is read as its order."""

    def answer(files, shape, crop):
        dataset = tf.data.TFRecordDataset(files, "GZIP").map(parse(shape))
        known = {
            "standardise": lambda d: d.map(standardise),
            "crop": lambda d: d.map(crop_by(tf.image.random_crop, crop)),
            "corner": lambda d: d.map(crop_by(corner, crop)),
            "cache": lambda d: d.cache(),
            "shuffle": lambda d: d.shuffle(8, seed=1),
            "repeat": lambda d: d.repeat(),
            "batch": lambda d: d.batch(4),
            "batch of 2": lambda d: d.batch(2),
            "take 7": lambda d: d.take(7),
            "int16": lambda d: d.map(lambda e: e | {"image": tf.cast(e["image"], tf.int16)}),
            "relabel": lambda d: d.map(lambda e: e | {"case": (e["case"] + 1) % 8}),
            "tuple": lambda d: d.map(lambda e: (e["image"], e["case"])),
        }
        for step in steps:
            dataset = known[step](dataset)
        return dataset

    return answer


def in_memory(files, shape, crop):
    elements = list(pipeline("standardise")(files, shape, crop).as_numpy_iterator())
    images = tf.constant(np.stack([one["image"] for one in elements]))
    cases = tf.constant([one["case"] for one in elements])

    def element(number):
        image = tf.image.random_crop(images[number], [*crop, 1])
        return {"image": image, "case": cases[number]}

    order = tf.data.Dataset.range(len(elements)).shuffle(len(elements), seed=3)
    return order.repeat().map(element).batch(4)


def slow(files, shape, crop):
    return checks_tuning.slow(files, shape, crop)


def replaced(cache_num, rate):
    return math.ceil(cache_num * rate)


RIGHT = {
    "waiting": [
        lambda starts, stops: 1 - busy(starts, stops),
        by_gaps,
        lambda starts, stops: float(by_gaps(starts, stops)),
    ],
    "epochs_to_see_all": [
        lambda total, n, rate: 1 + math.ceil((total - n) / replaced(n, rate)),
        lambda total, n, rate: len(range(n, total, replaced(n, rate))) + 1,
    ],
    "faster": [
        pipeline("standardise", "cache", "crop", "repeat", "batch"),
        pipeline("standardise", "cache", "shuffle", "repeat", "crop", "batch"),
        in_memory,
    ],
}

WRONG = {
    "waiting": [
        (busy, "the share in which a step ran"),
        (lambda a, b: 100 * by_gaps(a, b), "in per cent"),
        (lambda a, b: (a[1:] - b[:-1]).sum(), "those are seconds"),
        (lambda a, b: 1 - (b - a).sum() / b[-1], "the clock began before the first step"),
        (lambda a, b: (a[1:] - b[:-1]).sum() / (b - a).sum(), "waiting over working"),
        (lambda a, b: (a[1:] - b[:-1]).mean(), "the steps took"),
        (lambda a, b: a[1:] - b[:-1], "has shape"),
    ],
    "epochs_to_see_all": [
        (lambda t, n, r: math.ceil((t - n) / replaced(n, r)), "before the first of them"),
        (lambda t, n, r: math.ceil(t / replaced(n, r)), "the first epoch has 50 items, not 5"),
        (lambda t, n, r: 1 + (t - n) / (n * r), "epochs are whole"),
        (lambda t, n, r: 1 + math.ceil((t - n) / replaced(t, r)), "all are seen in epoch"),
        (
            lambda t, n, r: 1 + math.ceil((t - n) / min(replaced(n, r), t - n)),
            "they are seen in epoch 1",
        ),
    ],
    "faster": [
        (slow, "times as fast as the slow one"),
        (pipeline("cache", "crop", "repeat", "batch"), "is no part of its volume"),
        (pipeline("cache", "crop", "standardise", "repeat", "batch"), "is no part of its volume"),
        (pipeline("standardise", "crop", "cache", "repeat", "batch"), "the cache stands behind"),
        (pipeline("standardise", "cache", "corner", "repeat", "batch"), "the very crops"),
        (pipeline("standardise", "cache", "crop", "batch"), "ends in epoch 2"),
        (pipeline("standardise", "cache", "crop", "repeat", "batch of 2"), "batches of shape"),
        (pipeline("standardise", "cache", "crop", "repeat"), "batches of shape"),
        (pipeline("standardise", "cache", "repeat", "batch"), "batches of shape"),
        (pipeline("take 7", "standardise", "cache", "crop", "repeat", "batch"), "leave none out"),
        (
            pipeline("standardise", "cache", "repeat", "shuffle", "crop", "batch"),
            "shuffle before repeat",
        ),
        (pipeline("standardise", "cache", "crop", "int16", "repeat", "batch"), "yours int16"),
        (pipeline("standardise", "relabel", "cache", "crop", "repeat", "batch"), "`case` tells"),
        (pipeline("standardise", "cache", "crop", "repeat", "batch", "tuple"), "are dicts"),
        (lambda files, shape, crop: files, "a tf.data.Dataset is asked for"),
        (lambda files, shape, crop: tf.data.TFRecordDataset(files), "are dicts"),
    ],
}
