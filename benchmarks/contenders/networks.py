"""DeepLab: the course's network, a step of training as graphs, and the lesson's training.

An item is the loss of a step: nobody can give it without having done the work.
"""

import functools
import itertools
import json

import flops
import keras
import numpy as np
import tensorflow as tf

from contenders import SEED
from helpers import augment, deeplab

CLASSES, LEARNT_IN = 2, 8  # steps on one batch, after which its loss has to be smaller
CHANNELS, LOW_LEVEL_CHANNELS, OUTPUT_STRIDE = 256, 48, 16
RATE, MOMENTUM = 0.01, 0.9  # of the gradient descent that DeepLab is trained with


def ours(job) -> tuple[keras.Model, tuple]:
    """The course's network, and the shape of the features that its pyramid takes."""
    network = deeplab.model(
        CLASSES, backbone=job["backbone"], input_shape=(*job["size"], 3),
        output_stride=OUTPUT_STRIDE, aspp_width=CHANNELS, decoder_width=CHANNELS,
        low_level_width=LOW_LEVEL_CHANNELS,
    )  # fmt: skip
    return network, network.get_layer("aspp_concat").input[0].shape


def graphs(network: keras.Model, optimizer, batch) -> dict:
    """A pass forward and a step of training, which give the loss of images and masks."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    optimizer.build(network.trainable_variables)

    def forward(images, masks):
        return loss(masks, network(images, training=True))

    def training(images, masks):
        with tf.GradientTape() as tape:
            value = forward(images, masks)
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    specs = [tf.TensorSpec(one.shape, one.dtype) for one in batch]
    steps = {step.__name__: tf.function(step, autograph=False) for step in (forward, training)}
    return {name: step.get_concrete_function(*specs) for name, step in steps.items()}


def losses(graph, batches):
    """The loss of each step, as eight bytes: the checksum of fewer is the sum of single bytes."""
    for images, masks in batches:
        yield (graph(images, masks).numpy().astype(np.float64),)


@functools.cache
def trained(build, told: str) -> tuple:
    """A network, its features' shape, a batch that one can learn something from, its graphs."""
    job = json.loads(told)
    keras.utils.set_random_seed(SEED)
    network, features = build(job)
    height, width = job["size"]
    images = np.random.default_rng(SEED).integers(0, 156, (job["batch"], height, width, 3))
    masks = np.zeros((job["batch"], height, width, 1), np.uint8)
    masks[:, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    batch = tf.constant(images + 100 * masks, tf.float32), tf.constant(masks)
    optimizer = keras.optimizers.SGD(RATE, MOMENTUM)
    return network, features, batch, graphs(network, optimizer, batch)


def step(job, graph, build=ours):
    """Passes forward, or steps of training, on one batch that is always the same."""
    *_, batch, known = trained(build, json.dumps(job))
    return losses(known[graph], itertools.repeat(batch))


def told(job, build=ours):
    """Operations forward and backward, parameters; shapes of logits and features; some losses."""
    network, features, batch, known = trained(build, json.dumps(job))
    numbers = [*flops.count(known["forward"].graph), network.count_params()]
    logits = network(batch[0], training=False)
    learnt = list(losses(known["training"], [batch] * LEARNT_IN))
    yield tuple(map(np.array, (numbers, logits.shape, features[1:3], learnt)))


@functools.cache
def lesson(told: str) -> tuple:
    """Its batches without end, one of them that is repeated, and a step of its training.

    Batches are made smaller before the cache, shuffled, flipped and scaled. Both go through
    `tf.data` and into the same network, so that they differ in nothing but where they come from.
    """
    from helpers import pipeline  # the peers' environment lacks what this imports

    job = json.loads(told)
    keras.utils.set_random_seed(SEED)

    def smaller(element: dict) -> dict:
        image = tf.image.resize(element["image"], job["size"], antialias=True)
        mask = tf.image.resize(element["mask"], job["size"], "nearest")
        return element | {"image": tf.cast(tf.round(image), tf.uint8), "mask": mask}

    transforms = [augment.Flip("x"), augment.Flip("y"), augment.Zoom(job["zoom"])]
    filled = {"fill": job["fill"], "mask_fill": job["mask_fill"]}
    stage = augment.stage(transforms, seed=SEED, batched=True, num_parallel_calls=1, **filled)
    real = pipeline.segmentation(
        f"{job['folder']}/records", batch_size=job["batch"], repeat=True, seed=SEED,
        transforms=[lambda dataset: dataset.map(smaller, num_parallel_calls=2)],
        batch_transforms=[stage],
    ).apply(pipeline.pairs("mask"))  # fmt: skip
    batch = next(iter(real.take(1)))
    shape, how = (*job["size"], 3), job["network"]
    network = deeplab.model(CLASSES, input_shape=shape, batch_norm_momentum=0.9, **how)
    step = graphs(network, keras.optimizers.Adam(1e-3), batch)["training"]
    return {"real": real, "repeated": tf.data.Dataset.from_tensors(batch).repeat()}, step


def lesson_batches(job, batches):
    """Batches alone, as they come."""
    return lesson(json.dumps(job))[0][batches]


def lesson_training(job, batches):
    """Steps on batches; the dataset ends, so nobody works on after it."""
    both, step = lesson(json.dumps(job))
    return lambda count: losses(step, both[batches].take(count))
