"""The ways to read of the DLTK benchmark (2018), written anew for today's TensorFlow.

Kept as they were: what is stored, the order of the steps, sequential map, batch and prefetch, what
is done again for each example, and that the generator yields its first subject only. New are names
of functions that TensorFlow has renamed or dropped. The first way, volumes in memory fed to the
graph, reads nothing and is left out.
"""

import csv
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from contenders import box, nifti_voxels

BATCHES_AHEAD = 1  # prefetch of the TFRecord pipeline; the generator's is as large as a batch


def whitening(image: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 over the whole volume, in float32; constant gives 0."""
    image = image.astype(np.float32)
    mean, std = np.mean(image), np.std(image)
    return (image - mean) / std if std > 0 else np.zeros_like(image)


def write_float_list(path: Path, examples) -> None:
    """Each voxel a number of a float list, all subjects in one file; pairs of image and label."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, label in examples:
            feature = {
                "train/image": tf.train.Feature(float_list=tf.train.FloatList(value=image.ravel())),
                "train/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def float_list(job, as_in_2018):
    """Method 2: TFRecords of float lists.

    As in 2018: without what tf.data has since learnt to do by itself, making maps parallel and
    prefetching at the end.
    """
    spec = {
        "train/image": tf.io.FixedLenFeature([*job["crop"], 1], tf.float32),
        "train/label": tf.io.FixedLenFeature([], tf.int64),
    }

    def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        features = tf.io.parse_single_example(serialized, spec)
        return {"image": features["train/image"], "label": features["train/label"]}

    dataset = tf.data.TFRecordDataset(f"{job['folder']}/float_list.tfrecord").map(decode)
    dataset = dataset.repeat(None).batch(job["batch"]).prefetch(BATCHES_AHEAD)
    options = tf.data.Options()
    if as_in_2018:
        options.experimental_optimization.map_parallelization = False
        options.experimental_optimization.inject_prefetch = False
    return dataset.with_options(options)


def generator(job):
    """Method 3: a Python generator that reads the image again for each example."""
    with open(Path(job["folder"], "demographic_HH.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    signature = {
        "image": tf.TensorSpec([*job["crop"], 1], tf.float32),
        "label": tf.TensorSpec([], tf.int32),
    }

    def first_only():
        yield next(read_examples(job, rows))

    dataset = tf.data.Dataset.from_generator(first_only, output_signature=signature)
    return dataset.repeat(None).batch(job["batch"]).prefetch(job["batch"])


def read_examples(job, rows):
    """One whitened random crop of each subject, from NumPy's global random numbers.

    As published, the last possible start is never drawn.
    """
    for subject, sex, *_ in rows:
        path = f"{job['folder']}/1mm/{subject}/T1_1mm.nii.gz"
        image = whitening(nifti_voxels(path))
        room = np.maximum(np.subtract(image.shape, job["crop"]), 1)
        crop = image[box(np.random.randint(room), job["crop"])][..., np.newaxis]
        yield {"image": crop.astype(np.float32), "label": np.int32(int(sex) - 1)}


def crcs_in_records(job):
    """CRC-32 of the image bytes of each record in a folder, parsed by TensorFlow alone."""
    crcs = []
    for file in sorted(Path(job["folder"]).glob("*.tfrecord")):
        for serialized in tf.data.TFRecordDataset(str(file)):
            feature = tf.train.Example.FromString(serialized.numpy()).features.feature
            crcs.append(zlib.crc32(feature["image"].bytes_list.value[0]))
    yield (np.array(sorted(crcs)),)
