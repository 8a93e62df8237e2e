"""The course in the augmentation benchmark: `augment.stage` and `crops` in tf.data.

Beside what is timed there is what the results are checked with: `... positions` sends images that
hold their own coordinates through the same stage with the same seed, and so tells where each voxel
of a result comes from.
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
    """A function that gives the first elements of an endless dataset; nobody works on after it."""

    def run(count: int) -> Iterator[tuple[np.ndarray, ...]]:
        for element in dataset.take(count).as_numpy_iterator():
            yield tuple(element[key] for key in ("image", "mask") if key in element)

    return run


def coordinates(shape: tuple[int, ...]) -> np.ndarray:
    """Each voxel's own place, float32 `[*shape, r]`."""
    return np.moveaxis(np.indices(shape, np.float32), 0, -1)


def elements(job: Mapping, keys: tuple[str, ...] = ("image", "mask")) -> dict[str, np.ndarray]:
    """All images, and masks, with an axis for channels."""
    pairs = [load(job, i) for i in range(job["volumes"])]
    fields = {key: [pair[i][..., None] for pair in pairs] for i, key in enumerate(keys)}
    return {key: np.stack(arrays) for key, arrays in fields.items()}


def warped(job: Mapping, transforms: list, positions: bool = False):
    whole = elements(job)
    dataset = tf.data.Dataset.from_tensor_slices(whole)
    if positions:
        place = tf.constant(coordinates(whole["mask"].shape[1:-1]))
        dataset = dataset.map(lambda element: element | {"image": place})
    stage = augment.stage(transforms, seed=SEED, num_parallel_calls=CALLS)
    return passes(dataset.repeat().apply(stage))


def read_pair(pair: tf.Tensor, edge: int) -> dict[str, tf.Tensor]:
    """Decode and resize: bytes again afterwards, as narrow as they were."""
    image = tf.io.decode_jpeg(tf.io.read_file(pair[0]), channels=3)
    mask = tf.io.decode_png(tf.io.read_file(pair[1]), channels=1)
    image = tf.cast(tf.round(tf.image.resize(image, (edge, edge))), tf.uint8)
    return {"image": image, "mask": tf.image.resize(mask, (edge, edge), "nearest")}


def pictures(job: Mapping, cached: bool, augmented: bool = True, positions: bool = False):
    """Batches of pictures, from files or from a cache of bytes."""
    edge = job["picture"]
    dataset = tf.data.Dataset.from_tensor_slices(np.array(job["pairs"]))
    if not cached:
        dataset = dataset.repeat()
    dataset = dataset.map(lambda pair: read_pair(pair, edge), num_parallel_calls=CALLS)
    if cached:
        dataset = dataset.cache().repeat()
    if positions:
        place = tf.constant(coordinates((edge, edge)))
        dataset = dataset.map(lambda element: element | {"image": place})
    dataset = dataset.batch(job["batch"], drop_remainder=True)
    if augmented:
        transforms = flip_and_rotate(job["amounts"])
        stage = augment.stage(transforms, seed=SEED, batched=True, num_parallel_calls=CALLS)
        dataset = dataset.apply(stage)
    return passes(dataset)


def cropped(job: Mapping, pairs: bool):
    """Images anywhere, or images and masks by places that are found once, before the cache."""
    whole = elements(job, ("image", "mask") if pairs else ("image",))
    dataset = tf.data.Dataset.from_tensor_slices(whole)
    options = {"per_image": job["crops"], "seed": SEED, "num_parallel_calls": CALLS}
    if pairs:
        dataset = dataset.apply(crops.locate())
    stage = (crops.pos_neg if pairs else crops.random)(job["crop"], **options)
    return passes(dataset.cache().repeat().apply(stage))


def cropped_by_hand(job: Mapping):
    """The same as `crops.random`, as one would write it for this size alone, without a check."""
    size, number = job["crop"], job["crops"]
    room = tf.constant(np.subtract(job["whole"], size) + 1, tf.float32)

    def cut(element: dict, one: tf.Tensor) -> dict:
        drawn = tf.random.stateless_uniform([number, len(size)], tf.stack([one, 0])) * room
        starts = tf.unstack(tf.pad(tf.cast(drawn, tf.int32), [[0, 0], [0, 1]]))
        parts = [tf.slice(element["image"], start, [*size, 1]) for start in starts]
        return {"image": tf.stack(parts)}

    dataset = tf.data.Dataset.from_tensor_slices(elements(job, ("image",))).cache().repeat()
    numbers = tf.data.Dataset.random(seed=SEED, rerandomize_each_iteration=True)
    both = tf.data.Dataset.zip(dataset, numbers)
    return passes(both.map(cut, num_parallel_calls=CALLS, deterministic=True))


def cropped_from_memory(job: Mapping):
    whole = [{"image": load(job, i)[0][..., None]} for i in range(job["volumes"])]
    order = tf.data.Dataset.range(len(whole)).repeat()
    stage = crops.random(job["crop"], per_image=job["crops"], seed=SEED)
    return passes(crops.from_memory(whole, stage, indices=order, batch_size=1))


def contenders(job: Mapping) -> dict:
    amounts = job["amounts"]
    return {
        "elastic": lambda: warped(job, elastic(amounts)),
        "elastic positions": lambda: warped(job, elastic(amounts), positions=True),
        "affine": lambda: warped(job, affine(amounts)),
        "affine positions": lambda: warped(job, affine(amounts), positions=True),
        "files": lambda: pictures(job, cached=False),
        "files positions": lambda: pictures(job, cached=False, positions=True),
        "files, not augmented": lambda: pictures(job, cached=False, augmented=False),
        "cache": lambda: pictures(job, cached=True),
        "cache positions": lambda: pictures(job, cached=True, positions=True),
        "cache, not augmented": lambda: pictures(job, cached=True, augmented=False),
        "crops": lambda: cropped(job, pairs=False),
        "crops of pairs": lambda: cropped(job, pairs=True),
        "crops by hand": lambda: cropped_by_hand(job),
        "crops from memory": lambda: cropped_from_memory(job),
    }
