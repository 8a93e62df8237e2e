"""From shards to a `tf.data.Dataset` of elements: image, mask, label, weight, spacing, case.

Images and masks come out of the shards, all else from the manifest, which has a row for each
record. Streamed, TensorFlow reads record after record, checks each by its CRC and decodes it.
Mapped, the operating system keeps the shards in its page cache, and an image is copied from there
straight into its batch: the manifest knows where it begins.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from helpers import memory
from helpers.errors import CourseDataError, need
from helpers.records import manifest
from helpers.records.schema import DEFAULTS

LARGE = 2**20  # bytes of a record; shards of larger ones are read at once, straight into place
BUFFER = 2**18  # bytes of the reader of each shard, for smaller ones
SHUFFLED_BYTES = 256 * 2**20  # what a shuffle buffer of serialized records may hold
AT_A_TIME = 2  # batches decoded at once: each may be more than 100 MB
TAKING_TURNS = 4  # shards, of which each gives a record in its turn


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

        dataset = records.read("records", "train", batch=2, seed=0)

    Args:
        folder: holds the shards and the manifest.
        split: "train", for instance; may be left out where there is only one.
        batch: records in a batch; they are parsed and decoded together, which saves a copy of
            each. All images of the split must have one shape. The last batch may be smaller.
            None or 0 gives single elements.
        seed: shuffle shards and records, anew in each epoch, the same for the same seed whatever
            the parallelism (`tf.random.set_seed`, where it is called, has a say as well). The
            buffer holds serialized records, at most 256 MiB of them. None keeps the order of the
            shards, of which four take turns.
        mapped: map the shards into memory and copy images straight into batches; quicker,
            and shuffled completely, so in another order. Python runs in the pipeline, so it cannot
            be sent to other machines. Not for "deeplab". While the dataset is in use, replace a
            shard rather than write into it: what is written shows in later batches, and to cut
            the file ends the process (SIGBUS). Nothing can check that in time.
        indices: a dataset of whole numbers, which record each time, in the order of
            `records.index`; for instance from `sampling.indices`. Only where mapped, without
            `seed`. Without end, it gives batches of a known size.
        check: "size" finds missing and cut shards; "full" reads every byte first. By default
            "size", and "full" where mapped, because that skips TFRecord's own checksums.

    Returns:
        A `tf.data.Dataset` of known length. Elements are dicts: `image` `[z, y, x, c]` or
        `[y, x, c]` in the dtype in which it is stored (where records differ, in the narrowest that
        holds all of them), `case` (string); where the split has them `mask` (uint8 class ids, one
        channel), `label` (int32, a vector where cases have several), `weight` (float32),
        `spacing` (float32, mm), `modality` (string). A record that lacks one that others have
        gets 1 for the weight, -1 for the label, 0 mm for the spacing and "".
        For Keras: `dataset.map(lambda x: (tf.cast(x["image"], tf.float32), x["mask"]))`.

    Raises:
        CourseDataError: `NO_MANIFEST`, `MANIFEST_DAMAGED`, or the code of the first faulty shard;
            `NOTHING_WRITTEN` for a split without records, `NO_PAIR` if only some have a mask,
            `SHAPE_MISMATCH` if only some have a z axis.
        ValueError: for an unknown split or check, for a batch of images of unequal shapes, and for
            indices that are no whole numbers, or where they have no say.
        tf.errors.InvalidArgumentError: while it runs. `ALTERED_SHARD` with the shard's name, if a
            record cannot be read any more; for an index that no record has.

    Taught in: writing TFRecords
    """
    import tensorflow as tf

    from helpers import stage

    found, known = _opened(folder, split, check or ("full" if mapped else "size"))
    encoded = found.schema == "deeplab"
    kinds = sorted({*known["dtype"]})
    mixed = len(kinds) > 1 and not encoded
    if indices is not None and (seed is not None or not mapped):
        raise ValueError("indices need mapped=True, and take the place of seed")
    if batch and len({*known["shape"]}) > 1:
        raise ValueError("images of several shapes cannot share a batch: crop or resize them first")
    if mapped and encoded:
        raise ValueError("records that hold JPEG or PNG files have to be decoded, not mapped")
    if mixed:
        held = f"images are {', '.join(kinds)}: all are read as {np.result_type(*kinds)}"
        warnings.warn(held, stacklevel=2)
    static = _static_shape(known)
    facts = {key: tf.constant(values) for key, values in _facts(known).items()}
    if mapped:
        arrays = _copied(known)
        dataset = tf.data.Dataset.range(known["records"]) if indices is None else indices
        stage.check_indices(dataset)
        if seed is not None:
            dataset = dataset.shuffle(known["records"], seed=seed)
    else:
        arrays = _photographs if encoded else _decoded(known, static)
        dataset = _streamed(known, seed)

    def element(numbers, *records):
        told = {key: tf.gather(values, numbers) for key, values in facts.items()}
        with tf.control_dependencies(told.values()):  # they refuse a number that no record has
            found = arrays(numbers, *records)
        for key, values in found.items():
            shape = static if key == "image" else [*static[:-1], 1]
            found[key] = tf.ensure_shape(values, [*numbers.shape, *shape])
        return found | told

    alone = not mapped and (mixed or encoded)  # each is decoded in its own way
    if batch and not alone:
        endless = dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        dataset = dataset.batch(batch, drop_remainder=bool(endless))
    name = "records.mapped" if mapped else "records.parse"
    dataset = stage.mapped(dataset, element, name=name, num_parallel_calls=AT_A_TIME)
    return dataset.batch(batch) if batch and alone else dataset


def index(folder: str | Path, split: str | None = None, *, check: str = "size") -> dict:
    """What to sample by: the case, label and weight of each record of one split.

        known = records.index("records", "train")
        chances = sampling.automatic(known["label"])

    Args:
        folder: holds the shards and the manifest.
        split: "train", for instance; may be left out where there is only one.
        check: as for `records.read`.

    Returns:
        `case`, a list of n salted hashes; and where the split has them, as its elements do,
        `label`, int32 `[n]` or, where cases have several, `[n, labels]`, and `weight`, float32
        `[n]`. A record that lacks what others have gets -1 for the label and 1 for the weight.
        They stand in the order of the shards in the manifest: these are the numbers of the records
        for `records.read(..., mapped=True, indices=...)`.

    Raises:
        CourseDataError: `NO_MANIFEST`, `MANIFEST_DAMAGED`, `NOTHING_WRITTEN`, or the code of the
            first faulty shard.
        ValueError: for an unknown split or check.

    Taught in: imbalanced classification
    """
    _, known = _opened(folder, split, check)
    facts = _facts(known)
    return {key: facts[key] for key in ("case", "label", "weight") if key in facts}


def _opened(folder: str | Path, split: str | None, check: str) -> tuple[manifest.Manifest, dict]:
    """The manifest, and what is known of a split's records: lists, one entry each."""
    found = manifest.load(folder)
    known = found.split(split)
    if check not in ("size", "full"):
        raise ValueError(f'check can be "size" or "full", not {check!r}')
    faults = manifest.verify(folder, split=known["split"], full=check == "full")
    if faults:
        reason = f"{len(faults)} faulty shards; of the first: {faults[0].reason}"
        files = [Path(folder) / fault.file for fault in faults]
        raise CourseDataError(faults[0].code, reason, files)
    need(known["records"], "NOTHING_WRITTEN", "all cases of this split were rejected")
    known["path"] = [Path(folder) / file for file in known["shard"]]
    known["sides"] = [[int(side) for side in text.split("x")] for text in known["shape"]]
    return found, known


def _static_shape(known: dict) -> list[int | None]:
    """The shape of an image as far as all of a split share it."""
    ranks = {len(sides) for sides in known["sides"]}
    masks = known.get("mask_at", [])
    need(len(ranks) == 1, "SHAPE_MISMATCH", "images with and without a z axis in one split")
    found = f"{len(masks) - masks.count(None)} of {len(masks)} records have a mask"
    need(None not in masks, "NO_PAIR", found)
    axes = zip(*known["sides"], strict=True)
    return [axis[0] if len({*axis}) == 1 else None for axis in axes]


def _facts(known: dict) -> dict:
    """What is known of each record besides image and mask; a default where one lacks it."""
    facts = {"case": known["case"]}
    for key in [one for one in DEFAULTS if one in known]:  # always in this order
        some = next(one for one in known[key] if one is not None)
        lacking = np.full(np.shape(some), DEFAULTS[key])
        values = [lacking.tolist() if one is None else one for one in known[key]]
        facts[key] = np.array(values, object if key == "modality" else lacking.dtype)
    return facts


def _streamed(known: dict, seed: int | None):
    """Numbers and records, of up to four shards in turn; a seed shuffles both shards and records.

    TensorFlow's own message is no more than "corrupted record at 244", and of what was cut off
    between two records it knows nothing. So an error that names the shard stands where it ends,
    and as many records are taken as there should be.
    """
    import tensorflow as tf

    counts = Counter(known["path"])
    mean_bytes = sum(path.stat().st_size for path in counts) // known["records"]
    large = mean_bytes > LARGE

    def lost(words):  # at the first record that is missing
        tf.raw_ops.Assert(condition=False, data=["ALTERED_SHARD: cannot read all of", words])
        return tf.constant(-1, tf.int64), ""

    # AutoGraph has nothing to convert here, and in notebooks it warns of what it cannot.
    @tf.autograph.experimental.do_not_convert
    def whole(file, words, end, count):
        # A buffer is one more copy of a large record, but spares small ones a system call each.
        found = tf.data.TFRecordDataset(file, buffer_size=0 if large else BUFFER)
        # The numbers ask for each record once: a file that is gone would be asked for ever.
        numbers = tf.data.Dataset.range(end - count, end)
        found = tf.data.Dataset.zip(numbers, found).ignore_errors()
        missing = tf.data.Dataset.from_tensors(words).map(lost)
        return found.concatenate(missing).take(count)

    words = [f"{path.name}, which has {count} records" for path, count in counts.items()]
    sizes = np.array([*counts.values()])
    shards = ([*map(str, counts)], words, np.cumsum(sizes), sizes)
    dataset = tf.data.Dataset.from_tensor_slices(shards)
    if seed is not None:
        dataset = dataset.shuffle(len(counts), seed=seed)
    turns = min(len(counts), TAKING_TURNS)
    # Threads are worth their turns where a record takes longer than to wake one.
    how = {"num_parallel_calls": min(turns, AT_A_TIME), "deterministic": True} if large else {}
    dataset = dataset.interleave(whole, cycle_length=turns, **how)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(known["records"]))
    if seed is not None:
        room = max(1, SHUFFLED_BYTES // mean_bytes)
        dataset = dataset.shuffle(min(room, known["records"]), seed=seed + 1)
    return dataset


def _decoded(known: dict, static: list[int | None]):
    """A function that finds image and mask in records, of which one batch has one dtype."""
    import tensorflow as tf

    kinds = sorted({*known["dtype"]})
    wide = np.result_type(*{*known["dtype"]})
    kind_of = [kinds.index(kind) for kind in known["dtype"]]
    text = tf.io.FixedLenFeature([], tf.string)
    spec = {key: text for key in ("image", "mask") if f"{key}_at" in known}

    def arrays(numbers, records):
        found = tf.io.parse_example(records, spec)
        ways = [lambda kind=kind: tf.io.decode_raw(found["image"], kind) for kind in kinds]
        if len(ways) == 1:
            values = ways[0]()
        else:
            ways = [lambda way=way: tf.cast(way(), wide) for way in ways]
            values = tf.switch_case(tf.gather(kind_of, numbers), ways)
        shape = [-1, *static] if numbers.shape.rank else tf.gather(known["sides"], numbers)
        found["image"] = tf.reshape(values, shape)
        if "mask" in found:
            ids = tf.io.decode_raw(found["mask"], tf.uint8)
            found["mask"] = tf.reshape(ids, tf.concat([tf.shape(found["image"])[:-1], [1]], 0))
        return found

    return arrays


def _photographs(_, record) -> dict:
    """Image and mask in a record of DeepLab."""
    import tensorflow as tf

    keys = ("image/encoded", "image/segmentation/class/encoded")
    spec = dict.fromkeys(keys, tf.io.FixedLenFeature([], tf.string))
    image, mask = map(tf.io.parse_single_example(record, spec).get, keys)
    image = tf.io.decode_image(image, channels=3, expand_animations=False)
    return {"image": image, "mask": tf.io.decode_png(mask, channels=1)}


def _copied(known: dict):
    """A function that copies images and masks out of mapped files, by their numbers."""
    import tensorflow as tf

    dtypes = {"image": np.result_type(*{*known["dtype"]}), "mask": np.uint8}
    buffers = memory.Buffers()
    views = {key: _views(known, key) for key in dtypes if f"{key}_at" in known}

    def copies(key, numbers):
        key = key.decode()
        several = np.atleast_1d(numbers)
        first = views[key][several[0]]
        batch = buffers.empty((len(several), *first.shape), dtypes[key])
        for place, number in enumerate(several):
            batch[place] = views[key][number]
        return batch if np.ndim(numbers) else batch[0]

    # A dataset that is made inside a graph is soon gone, and its function with it.
    held = memory.weakly if tf.executing_eagerly() else lambda function: function

    def arrays(numbers):  # refers to `copies`, so whoever holds the dataset holds the files
        found = {}
        for key in views:
            found[key] = tf.numpy_function(
                held(copies), [key, numbers], dtypes[key], stateful=False
            )
        return found

    return arrays


def _views(known: dict, key: str) -> list[np.ndarray]:
    """The images or masks of all records, where they lie in files that are mapped into memory."""
    files = {path: np.memmap(path, np.uint8, "r") for path in {*known["path"]}}
    views = []
    columns = (known[name] for name in ("path", f"{key}_at", "sides", "dtype"))
    for path, at, sides, dtype in zip(*columns, strict=True):
        if key == "mask":
            sides = [*sides[:-1], 1]
            dtype = "uint8"
        views.append(np.ndarray(sides, np.dtype(dtype).newbyteorder("<"), files[path], at))
    return views
