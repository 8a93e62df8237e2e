"""The three ways to read of the DLTK benchmark (2018), written anew for today's TensorFlow.

Kept as they were: what is stored, the order of the steps, sequential map, batch and prefetch, what
is done again for each example, and that the generator yields its first subject only. New are names
of functions that TensorFlow has renamed or dropped. The first way, volumes in memory fed to the
graph, reads nothing and is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tensorflow as tf
from _workload import Workload

BATCHES_AHEAD = 1  # prefetch of the TFRecord pipeline; the generator's is as large as a batch


def whitening(image: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 over the whole volume, in float32; constant gives 0."""
    image = image.astype(np.float32)
    mean, std = np.mean(image), np.std(image)
    return (image - mean) / std if std > 0 else np.zeros_like(image)


def random_start(shape: Iterable[int], crop: Iterable[int], draw: Callable) -> list[int]:
    """First voxel of a random crop; as published, the last possible start is never drawn."""
    rooms = [n - m for n, m in zip(shape, crop, strict=True)]
    return [int(draw(room)) if room > 0 else 0 for room in rooms]


def write_float_list(path: Path, examples: Iterable[tuple[np.ndarray, int]]) -> None:
    """Each voxel a number of a float list, all subjects in one file."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, label in examples:
            feature = {
                "train/image": tf.train.Feature(float_list=tf.train.FloatList(value=image.ravel())),
                "train/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def float_list(work: Workload, *, as_in_2018: bool) -> tf.data.Dataset:
    """Method 2: TFRecords of float lists.

    Args:
        work: the workload.
        as_in_2018: switch off what tf.data has since learnt to do by itself, making maps parallel
            and prefetching at the end.
    """
    spec = {
        "train/image": tf.io.FixedLenFeature([*work.crop, 1], tf.float32),
        "train/label": tf.io.FixedLenFeature([], tf.int64),
    }

    def decode(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.io.parse_single_example(serialized, spec)
        return features["train/image"], features["train/label"]

    dataset = tf.data.TFRecordDataset(str(work.float_list)).map(decode)
    dataset = dataset.repeat(None).batch(work.batch).prefetch(BATCHES_AHEAD)
    if as_in_2018:
        options = tf.data.Options()
        options.experimental_optimization.map_parallelization = False
        options.experimental_optimization.inject_prefetch = False
        dataset = dataset.with_options(options)
    return dataset


def generator(work: Workload) -> tf.data.Dataset:
    """Method 3: a Python generator that reads the image again for each example."""
    with open(work.table, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    signature = {
        "features": {"x": tf.TensorSpec([*work.crop, 1], tf.float32)},
        "labels": {"y": tf.TensorSpec([], tf.int32)},
    }

    def first_only() -> Iterator[dict]:
        yield next(_read_examples(work, rows))

    dataset = tf.data.Dataset.from_generator(first_only, output_signature=signature)
    return dataset.repeat(None).batch(work.batch).prefetch(work.batch)


def _read_examples(work: Workload, rows: Iterable[list[str]]) -> Iterator[dict]:
    """One whitened random crop of each subject, from NumPy's global random numbers."""
    for subject, sex, *_ in rows:
        path = work.folder / "1mm" / subject / "T1_1mm.nii.gz"
        image = whitening(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))[..., np.newaxis]
        start = random_start(image.shape[:3], work.crop, np.random.randint)
        crop = tuple(slice(a, a + n) for a, n in zip(start, work.crop, strict=True))
        yield {
            "features": {"x": image[crop].astype(np.float32)},
            "labels": {"y": np.int32(int(sex) - 1)},
        }
