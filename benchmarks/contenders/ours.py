"""The course's stages in tf.data: warps, flips and rotations of pictures, crops."""

import numpy as np
import tensorflow as tf

from contenders import AT_A_TIME, SEED, arrays, picture_files
from helpers import augment, crops

HOW = {"seed": SEED, "num_parallel_calls": AT_A_TIME}


def elements(job, keys=("image",)) -> list[dict[str, np.ndarray]]:
    """All images, and masks, with an axis for channels."""
    several = zip(*(arrays(job["folder"], key) for key in keys), strict=True)
    return [dict(zip(keys, (one[..., None] for one in each), strict=True)) for each in several]


def stacked(job, keys=("image",)) -> tf.data.Dataset:
    each = elements(job, keys)
    whole = {key: np.stack([one[key] for one in each]) for key in keys}
    return tf.data.Dataset.from_tensor_slices(whole)


def warped(job, elastic):
    amounts = job["amounts"]
    transforms = [
        augment.Rotate(amounts["degrees"]),
        augment.Zoom(amounts["zoom"], each_axis=True),
        augment.Translate(amounts["shift"]),
    ]
    if elastic:
        transforms.append(augment.Elastic(amounts["displacement"], grid=amounts["grid"]))
    return stacked(job, ("image", "mask")).repeat().apply(augment.stage(transforms, **HOW))


def pictures(job, cached, augmented=True):
    """Batches of pictures, from files or from a cache of bytes."""
    edge = job["picture"]

    def read(pair: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decode and resize: bytes again afterwards, as narrow as they were."""
        image = tf.io.decode_jpeg(tf.io.read_file(pair[0]), channels=3)
        mask = tf.io.decode_png(tf.io.read_file(pair[1]), channels=1)
        image = tf.cast(tf.round(tf.image.resize(image, (edge, edge))), tf.uint8)
        return {"image": image, "mask": tf.image.resize(mask, (edge, edge), "nearest")}

    dataset = tf.data.Dataset.from_tensor_slices(np.array(picture_files(job)))
    dataset = dataset if cached else dataset.repeat()
    dataset = dataset.map(read, num_parallel_calls=AT_A_TIME)
    dataset = dataset.cache().repeat() if cached else dataset
    dataset = dataset.batch(job["batch"], drop_remainder=True)
    if not augmented:
        return dataset
    transforms = [augment.Flip("x", p=0.5), augment.Rotate(job["amounts"]["degrees"])]
    return dataset.apply(augment.stage(transforms, batched=True, **HOW))


def cropped(job, masks=False):
    """Images anywhere, or images and masks by places that are found once, before the cache."""
    cut = crops.pos_neg if masks else crops.random
    sampler = cut(job["crop"], per_image=job["per_image"], **HOW)
    dataset = stacked(job, ("image", "mask")).apply(crops.locate()) if masks else stacked(job)
    return dataset.cache().repeat().apply(sampler)


def cropped_by_hand(job):
    """The same as `crops.random`, as one would write it for this size alone, without a check."""
    size, number = job["crop"], job["per_image"]
    room = tf.constant(np.subtract(job["whole"], size) + 1, tf.float32)

    def cut(element: dict, one: tf.Tensor) -> dict:
        drawn = tf.random.stateless_uniform([number, len(size)], tf.stack([one, 0])) * room
        starts = tf.unstack(tf.pad(tf.cast(drawn, tf.int32), [[0, 0], [0, 1]]))
        parts = [tf.slice(element["image"], start, [*size, 1]) for start in starts]
        return {"image": tf.stack(parts)}

    numbers = tf.data.Dataset.random(seed=SEED, rerandomize_each_iteration=True)
    both = tf.data.Dataset.zip(stacked(job).cache().repeat(), numbers)
    return both.map(cut, num_parallel_calls=AT_A_TIME, deterministic=True)


def cropped_from_memory(job):
    each = elements(job)
    order = tf.data.Dataset.range(len(each)).repeat()
    sampler = crops.random(job["crop"], per_image=job["per_image"], seed=SEED)
    return crops.from_memory(each, sampler, indices=order, batch_size=job["batch"])
