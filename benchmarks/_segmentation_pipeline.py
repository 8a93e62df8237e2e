"""Training as in the lesson on segmentation: with real batches, and with one that is repeated.

Both take turns in one process, with the same network and through `tf.data`, so that they differ in
nothing but where a batch comes from.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import numpy as np
from _segmentation_inputs import CLASSES, LESSON

from helpers import augment, deeplab, pipeline, quiet

quiet.tensorflow_greeting()
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

SEED = 1
RATE = 1e-3


def smaller(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Before the cache: image and mask in the lesson's size, bytes as before."""

    def resized(element: dict) -> dict:
        image = tf.image.resize(element["image"], LESSON["size"], antialias=True)
        mask = tf.image.resize(element["mask"], LESSON["size"], "nearest")
        image = tf.cast(tf.round(image), tf.uint8)
        return {"image": image, "mask": mask, "case": element["case"]}

    return dataset.map(resized, num_parallel_calls=2)


def batches(job: Mapping) -> tf.data.Dataset:
    """The lesson's input: cached, shuffled, flipped and scaled, without end."""
    transforms = [augment.Flip("x"), augment.Flip("y"), augment.Zoom(LESSON["zoom"])]
    stage = augment.stage(
        transforms,
        seed=SEED,
        fill=LESSON["fill"],
        mask_fill=LESSON["mask_fill"],
        batched=True,
        num_parallel_calls=1,
    )
    dataset = pipeline.segmentation(
        job["records"],
        batch_size=LESSON["batch"],
        transforms=[smaller],
        batch_transforms=[stage],
        repeat=True,
        seed=SEED,
    )
    return dataset.apply(pipeline.pairs("mask"))


class Lesson:
    """The lesson's network and input."""

    def __init__(self, job: Mapping) -> None:
        keras.utils.set_random_seed(SEED)
        self.items = job["lead"] + job["lesson_steps"] + job["trail"]
        self.batches = batches(job)
        batch = next(iter(self.batches.take(1)))
        self.repeated = tf.data.Dataset.from_tensors(batch).repeat()
        network = deeplab.model(
            len(CLASSES),
            backbone=LESSON["backbone"],
            input_shape=(*LESSON["size"], 3),
            aspp_width=LESSON["aspp_width"],
            decoder_width=LESSON["decoder_width"],
            low_level_width=LESSON["low_level_width"],
            batch_norm_momentum=0.9,
            alpha=LESSON["alpha"],
            rates=LESSON["rates"],
        )
        loss, optimizer = deeplab.loss(), keras.optimizers.Adam(RATE)
        optimizer.build(network.trainable_variables)

        def step(images, masks):
            with tf.GradientTape() as tape:
                value = loss(masks, network(images, training=True))
            variables = network.trainable_variables
            optimizer.apply(tape.gradient(value, variables), variables)
            return value

        specs = [tf.TensorSpec(one.shape, one.dtype) for one in batch]
        self.step = tf.function(step, autograph=False).get_concrete_function(*specs)

    def train(self, dataset: tf.data.Dataset) -> Iterator[tuple[np.ndarray]]:
        """The loss of each step; the dataset ends, so nobody works on after it."""
        for images, masks in dataset.take(self.items):
            # Eight bytes: the checksum of fewer is the sum of single bytes.
            yield (self.step(images, masks).numpy().astype(np.float64),)

    def look(self, dataset: tf.data.Dataset) -> Iterator[tuple[np.ndarray, ...]]:
        """Batches alone, as they come."""
        yield from dataset.take(self.items).as_numpy_iterator()


def contenders(job: Mapping) -> dict:
    made = functools.cache(lambda: Lesson(job))
    return {
        "real batches": lambda: lambda: made().train(made().batches),
        "one batch repeated": lambda: lambda: made().train(made().repeated),
        "batches alone": lambda: lambda: made().look(made().batches),
        "repeated alone": lambda: lambda: made().look(made().repeated),
    }
