"""The course in the augmentation benchmark: `augment.stage` and `crops` in tf.data.

Beside what is timed there is what the results are checked with: `... positions` sends images that
hold their own coordinates through the same stage with the same seed, and so tells where each voxel
of a result comes from; `pictures` are those that a stage gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from _augment_inputs import load

from helpers import augment, crops, quiet

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

SEED = 1
CALLS = 2  # elements worked on at a time: one for each core


def affine(amounts: Mapping[str, float]) -> list:
    return [
        augment.Rotate(amounts["degrees"]),
        augment.Zoom(amounts["zoom"], each_axis=True),
        augment.Translate(amounts["shift"]),
    ]


def elastic(amounts: Mapping[str, float]) -> list:
    return [*affine(amounts), augment.Elastic(amounts["displacement"], grid=amounts["grid"])]


def flip_and_rotate(amounts: Mapping[str, float]) -> list:
    return [augment.Flip("x", p=0.5), augment.Rotate(amounts["degrees"])]


def passes(dataset: tf.data.Dataset):
    """A function that goes once through the dataset, which is finite: nobody works on after it."""

    def run() -> Iterator[tuple[np.ndarray, ...]]:
        for element in dataset.as_numpy_iterator():
            yield tuple(element[key] for key in ("image", "mask") if key in element)

    return run


def coordinates(shape: tuple[int, ...]) -> np.ndarray:
    """Each voxel's own place, float32 `[*shape, r]`."""
    return np.moveaxis(np.indices(shape, np.float32), 0, -1)


def volumes(job: Mapping, positions: bool) -> tf.data.Dataset:
    pairs = [load(job["warp"], i) for i in range(job["volumes"])]
    masks = np.stack([mask[..., None] for _, mask in pairs])
    if positions:
        place = tf.constant(coordinates(pairs[0][0].shape))
        return tf.data.Dataset.from_tensor_slices(masks).map(lambda m: {"image": place, "mask": m})
    images = np.stack([image[..., None] for image, _ in pairs])
    return tf.data.Dataset.from_tensor_slices({"image": images, "mask": masks})


def warped(job: Mapping, transforms: list, positions: bool = False):
    stage = augment.stage(transforms, seed=SEED, num_parallel_calls=CALLS)
    return passes(volumes(job, positions).repeat(job["long"]).apply(stage))


def read_pair(pair: tf.Tensor, edge: int) -> dict[str, tf.Tensor]:
    """Decode and resize: bytes again afterwards, as narrow as they were."""
    image = tf.io.decode_jpeg(tf.io.read_file(pair[0]), channels=3)
    mask = tf.io.decode_png(tf.io.read_file(pair[1]), channels=1)
    image = tf.cast(tf.round(tf.image.resize(image, (edge, edge))), tf.uint8)
    return {"image": image, "mask": tf.image.resize(mask, (edge, edge), "nearest")}


def pictures(job: Mapping, repeats: int = 1) -> tf.data.Dataset:
    pairs = tf.data.Dataset.from_tensor_slices(np.array(job["pairs"])).repeat(repeats)
    return pairs.map(lambda pair: read_pair(pair, job["picture"]), num_parallel_calls=CALLS)


def augmented_pictures(job: Mapping, dataset: tf.data.Dataset):
    stage = augment.stage(
        flip_and_rotate(job["amounts"]), seed=SEED, batched=True, num_parallel_calls=CALLS
    )
    return passes(dataset.batch(job["batch"], drop_remainder=True).apply(stage))


def picture_positions(job: Mapping):
    edge = job["picture"]
    mask = tf.zeros((edge, edge, 1), tf.uint8)
    place = {"image": tf.constant(coordinates((edge, edge))), "mask": mask}
    dataset = tf.data.Dataset.range(len(job["pairs"])).map(lambda _: place)
    return augmented_pictures(job, dataset)


def cropped(job: Mapping, pairs: bool):
    """Images anywhere, or images and masks by places that are found once, before the cache."""
    both = [load(job["crops_from"], i) for i in range(2)]
    keys = ("image", "mask") if pairs else ("image",)
    whole = {key: np.stack([pair[i][..., None] for pair in both]) for i, key in enumerate(keys)}
    dataset = tf.data.Dataset.from_tensor_slices(whole)
    options = {"per_image": job["crops"], "seed": SEED, "num_parallel_calls": CALLS}
    size = (job["crop"],) * 3
    if pairs:
        dataset = dataset.apply(crops.locate())
        stage = crops.pos_neg(size, **options)
    else:
        stage = crops.random(size, **options)
    return passes(dataset.cache().repeat(job["crop_passes"] * job["long"]).apply(stage))


def contenders(job: Mapping) -> dict:
    amounts = job["amounts"]
    return {
        "elastic": lambda: warped(job, elastic(amounts)),
        "elastic positions": lambda: warped(job, elastic(amounts), positions=True),
        "affine": lambda: warped(job, affine(amounts)),
        "affine positions": lambda: warped(job, affine(amounts), positions=True),
        "files": lambda: augmented_pictures(job, pictures(job, job["long"])),
        "cache": lambda: augmented_pictures(job, pictures(job).cache().repeat(job["long"])),
        # Two, as the second pass of one would draw other numbers.
        "files positions": lambda: picture_positions(job),
        "cache positions": lambda: picture_positions(job),
        "pictures": lambda: passes(pictures(job).batch(job["batch"])),
        "crops": lambda: cropped(job, pairs=False),
        "crops of pairs": lambda: cropped(job, pairs=True),
    }
