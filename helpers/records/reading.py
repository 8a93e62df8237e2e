"""From shards to a `tf.data.Dataset` of elements: image, mask, label, weight, spacing, case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers import quiet
from helpers.errors import CourseDataError
from helpers.records import listing, mapping
from helpers.records.manifest import Manifest

LARGE = 2**20  # bytes; records beyond this are read straight into place
SHUFFLED_BYTES = 256 * 2**20  # what a shuffle buffer of serialized records may hold
AT_A_TIME = 2  # shards read, and batches decoded, at once: each may be more than 100 MB


def read(
    folder: str | Path,
    split: str | None = None,
    *,
    batch: int | None = None,
    seed: int | None = None,
    mapped: bool = False,
    indices=None,
    check: str | None = None,
):
    """A dataset of the records of one split.

    Args:
        folder: holds the shards and the manifest.
        split: "train", for instance; may be left out where there is only one.
        batch: records in a batch; they are parsed and decoded together, which saves a copy of
            each. All images of the split must have one shape. The last batch may be smaller.
            None gives single elements.
        seed: shuffle shards and records, anew in each epoch, the same for the same seed whatever
            the parallelism (`tf.random.set_seed`, where it is called, has a say as well). The
            buffer holds serialized records, at most 256 MiB of them. None keeps the order of the
            shards.
        mapped: map the shards into memory and copy images straight into batches; quicker for
            large ones, and shuffled completely, so in another order. Python runs in the pipeline,
            so it cannot be sent to other machines. Not for "deeplab". While the dataset is in use,
            replace a shard rather than write into it: what is written shows in later batches, and
            to cut the file ends the process (SIGBUS). Nothing can check that in time.
        indices: a dataset of whole numbers, which record each time, in the order of
            `records.index`; for instance from `sampling.indices`. Only where mapped, without
            `seed`. Without end, it gives batches of a known size.
        check: "size" finds missing and cut shards; "full" reads every byte first. By default
            "size", and "full" where mapped, because that skips TFRecord's own checksums.

    Returns:
        A `tf.data.Dataset` of known length. Elements are dicts: `image` `[z, y, x, c]` or
        `[y, x, c]` in the dtype in which it is stored, `case` (string); where the split has them
        `mask` (uint8 class ids, one channel), `label` (int32, a vector where cases have several),
        `weight` (float32), `spacing` (float32, mm), `modality` (string). A record that lacks one
        that others have gets 1 for the weight, -1 for the label, 0 mm for the spacing and "".
        For Keras: `dataset.map(lambda x: (tf.cast(x["image"], tf.float32), x["mask"]))`.

    Raises:
        CourseDataError: `NO_MANIFEST`, `MANIFEST_DAMAGED`, or the code of the first faulty shard;
            `NOTHING_WRITTEN` for a split without records, `NO_PAIR` if only some have a mask,
            `SHAPE_MISMATCH` if only some have a z axis.
        ValueError: for an unknown split or check, for a batch of images of unequal shapes, and for
            indices that are no whole numbers, or where they have no say.
        tf.errors.InvalidArgumentError: while it runs. `ALTERED_SHARD` with the shard's name, if a
            record cannot be read any more; for an index that no record has.
    """
    if check is None:
        check = "full" if mapped else "size"
    if batch is not None and batch < 1:
        raise ValueError(f"a batch holds 1 record or more, not {batch}")
    if indices is not None and (seed is not None or not mapped):
        raise ValueError(
            "indices say which record comes next: they need mapped=True, and take the place of seed"
        )
    found, split, shards = listing.opened(Path(folder), split, check)
    counts = found.split(split)
    if batch and len(counts["shapes"]) > 1:
        raise ValueError(
            f"images of {len(counts['shapes'])} shapes cannot share a batch: crop, resize or pad "
            "them first, then call .batch()"
        )
    if mapped and found.schema == "deeplab":
        raise ValueError("records that hold JPEG or PNG files have to be decoded, not mapped")
    quiet.tensorflow_greeting()
    import tensorflow as tf

    from helpers import draws
    from helpers.records import streaming

    parse = parser(found, split)
    if mapped:
        one = tf.function(parse, autograph=False).get_concrete_function(
            tf.TensorSpec([], tf.string)
        )
        spec = {key: tf.TensorSpec(x.shape, x.dtype) for key, x in one.structured_outputs.items()}
        order = mapping.order(counts["records"], seed) if indices is None else indices
        return mapping.dataset(shards, spec, batch, order, AT_A_TIME)
    record_bytes = sum(shard.bytes for _, shard in shards) // counts["records"]
    # A buffer is one more copy of a large record, but spares many small ones a system call each.
    buffer_bytes = 0 if record_bytes > LARGE else LARGE
    dataset = streaming.serialized(shards, seed=seed, buffer_bytes=buffer_bytes, workers=AT_A_TIME)
    if seed is not None:
        room = max(1, SHUFFLED_BYTES // max(record_bytes, 1))
        dataset = dataset.shuffle(min(room, counts["records"]), seed=seed + 1)
    together = batch and _alike(found, counts)
    if together:
        dataset = dataset.batch(batch)
    dataset = draws.map_named(
        dataset,
        streaming.parsed(parse),
        name="records.parse",
        num_parallel_calls=AT_A_TIME,
    )
    return dataset if together or not batch else dataset.batch(batch)


def _alike(found: Manifest, counts: dict) -> bool:
    """Whether records can be decoded as one array: equal shapes and dtypes, nothing compressed."""
    return found.schema != "deeplab" and len(counts["shapes"]) == len(counts["dtypes"]) == 1


def parser(found: Manifest, split: str) -> Callable:
    """The function that turns serialized records into elements; use it with `Dataset.map`.

    Args:
        found: the manifest of the set, which knows dtypes, shapes and optional fields.
        split: a split of the set.

    Returns:
        A function of a scalar string, or, where all images of the split have one shape and one
        dtype, also of a vector of strings: elements then have a leading batch axis.
    """
    quiet.tensorflow_greeting()
    import tensorflow as tf

    counts = found.split(split)
    parse = (_deeplab if found.schema == "deeplab" else _arrays)(tf, counts)
    # Nothing in it is for AutoGraph to convert, and in notebooks AutoGraph warns of what it cannot.
    return tf.autograph.experimental.do_not_convert(parse)


def _arrays(tf, counts: dict) -> Callable:
    shapes = [[int(n) for n in text.split("x")] for text in counts["shapes"]]
    if len({len(one) for one in shapes}) > 1:
        raise CourseDataError(
            "SHAPE_MISMATCH",
            "this split holds images with and without a z axis; put them into splits of their own",
        )
    shape = shapes[0] if len(shapes) == 1 else None
    rank, channels = len(shapes[0]), {one[-1] for one in shapes}
    static = shape or [None] * (rank - 1) + [channels.pop() if len(channels) == 1 else None]
    dtypes = [tf.as_dtype(name) for name in counts["dtypes"]]
    stored = tf.as_dtype(np.result_type(*counts["dtypes"]))  # holds all of them
    fields = counts["fields"]
    label_size = listing.labels_in(counts)
    some_masks = "mask" in fields
    if some_masks and fields["mask"] < counts["records"]:
        raise CourseDataError(
            "NO_PAIR",
            f"{fields['mask']} of {counts['records']} records of this split have a mask; put the "
            "others into a split of their own",
        )

    spec = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "image/dtype": tf.io.FixedLenFeature([], tf.string),
        "image/shape": tf.io.FixedLenFeature([rank], tf.int64),
        "case": tf.io.FixedLenFeature([], tf.string),
    }
    # For records that lack what others have; 1 is the weight that changes nothing.
    default = listing.DEFAULTS
    optional = {
        "mask": ([], tf.string, ""),
        "label": ([label_size], tf.int64, [default["label"]] * label_size),
        "weight": ([], tf.float32, default["weight"]),
        "spacing": ([rank - 1], tf.float32, [default["spacing"]] * (rank - 1)),
        "modality": ([], tf.string, default["modality"]),
    }
    for key, (size, dtype, value) in optional.items():
        if key in fields:
            spec[key] = tf.io.FixedLenFeature(size, dtype, value)

    def values(raw, dtype_name):
        if len(dtypes) == 1:
            return tf.io.decode_raw(raw, dtypes[0])
        branches = [
            lambda dtype=dtype: tf.cast(tf.io.decode_raw(raw, dtype), stored) for dtype in dtypes
        ]
        which = tf.argmax(tf.equal(dtype_name, [dtype.name for dtype in dtypes]))
        return tf.switch_case(tf.cast(which, tf.int32), branches)

    def parse_one(features):
        size = features["image/shape"]
        image = tf.reshape(values(features["image"], features["image/dtype"]), size)
        return finish(features, tf.ensure_shape(image, static), size[:-1], static[:-1])

    def parse_batch(features):
        image = values(features["image"], None)
        image = tf.reshape(image, [-1, *shape])
        return finish(features, image, [-1, *shape[:-1]], [None, *shape[:-1]])

    def finish(features, image, size, static_size):
        element = {"image": image, "case": features["case"]}
        if some_masks:
            ids = tf.reshape(tf.io.decode_raw(features["mask"], tf.uint8), size)
            element["mask"] = tf.ensure_shape(ids, static_size)[..., tf.newaxis]
        if "label" in fields:
            label = tf.cast(features["label"], tf.int32)
            element["label"] = label if label_size > 1 else label[..., 0]
        for key in ("weight", "spacing", "modality"):
            if key in fields:
                element[key] = features[key]
        return element

    def parse(serialized):
        if serialized.shape.rank == 0:
            return parse_one(tf.io.parse_single_example(serialized, spec))
        return parse_batch(tf.io.parse_example(serialized, spec))

    return parse


def _deeplab(tf, counts: dict) -> Callable:
    shapes = [[int(n) for n in text.split("x")] for text in counts["shapes"]]
    height, width, _ = shapes[0] if len(shapes) == 1 else (None, None, None)
    keys = ("image/encoded", "image/filename", "image/segmentation/class/encoded")
    spec = {key: tf.io.FixedLenFeature([], tf.string) for key in keys}

    def parse(serialized):
        features = tf.io.parse_single_example(serialized, spec)
        image = tf.io.decode_image(features[keys[0]], channels=3, expand_animations=False)
        mask = tf.io.decode_png(features[keys[2]], channels=1)
        return {
            "image": tf.ensure_shape(image, [height, width, 3]),
            "mask": tf.ensure_shape(mask, [height, width, 1]),
            "case": features[keys[1]],
        }

    return parse
