"""From shards to a `tf.data.Dataset` of elements: image, mask, label, weight, spacing, case.

Streamed, TensorFlow reads record after record, checks each by its CRC and decodes it. Mapped, the
operating system keeps the shards in its page cache, and an image is copied from there straight
into its batch: the manifest knows where it begins.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from helpers import memory
from helpers.errors import CourseDataError, need
from helpers.records import manifest
from helpers.records.schema import DEFAULTS

LARGE = 2**16  # bytes; records beyond this are read straight into place
HUGE = 2**22  # bytes; shards of records beyond this are read at once
BUFFER = 2**18  # bytes of the reader of each shard, for smaller ones
SHUFFLED_BYTES = 256 * 2**20  # what a shuffle buffer of serialized records may hold
AT_A_TIME = 2  # batches decoded at once: each may be more than 100 MB
TAKING_TURNS = 4  # shards, of which each gives a record in its turn
KINDS = {"case": object, "label": np.int32, "weight": np.float32, "spacing": np.float32}
KINDS["modality"] = object


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
            None gives single elements.
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
    found, split, known = _opened(folder, split, check or ("full" if mapped else "size"))
    encoded, kinds = found.schema == "deeplab", sorted({*known["dtype"]})
    mixed = len(kinds) > 1 and not encoded
    if indices is not None and (seed is not None or not mapped):
        raise ValueError("indices need mapped=True, and take the place of seed")
    if batch is not None and batch < 1:
        raise ValueError("a batch holds 1 record or more")
    if batch and len({*known["shape"]}) > 1:
        raise ValueError("images of several shapes cannot share a batch: crop or resize them first")
    if mapped and encoded:
        raise ValueError("records that hold JPEG or PNG files have to be decoded, not mapped")
    if mixed:
        held = f"images are {', '.join(kinds)}: all are read as {np.result_type(*kinds)}"
        warnings.warn(held, stacklevel=2)
    if mapped:
        return _mapped(known, batch, seed, indices)
    if batch and (mixed or encoded):  # each is decoded in its own way
        return _streamed(known, None, seed, parser(found, split)).batch(batch)
    return _streamed(known, batch, seed, parser(found, split))


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
    known = _opened(folder, split, check)[-1]
    sampled = {key: _column(known, key) for key in ("label", "weight") if key in known}
    return {"case": known["case"]} | sampled


def images(folder: str | Path) -> Iterator[tuple[str, str, Path, np.ndarray | bytes]]:
    """Case, split, shard and image of each record, in the order of the manifest, unchecked.

        for case, split, path, image in records.images("records"): ...

    Args:
        folder: holds the shards and the manifest.

    Returns:
        Images as arrays `[z, y, x, c]` or `[y, x, c]`, views of the shard; JPEG and PNG files as
        bytes.

    Raises:
        CourseDataError: `NO_MANIFEST`, `MANIFEST_DAMAGED`, or the code of the first faulty shard.

    Taught in: no lesson; `leaks.check_records` uses it
    """
    for split in dict.fromkeys(manifest.load(folder).of_records("split")):
        known = _opened(folder, split, "size")[-1]
        rows = zip(known["case"], known["path"], _views(known, "image"), strict=True)
        for case, path, image in rows:
            yield case, split, path, image if image.ndim > 1 else image.tobytes()


def parser(found: manifest.Manifest, split: str) -> Callable:
    """The function that turns serialized records into elements; use it with `Dataset.map`.

        parse = records.parser(records.load_manifest("records"), "train")

    Args:
        found: the manifest of the set, which knows dtypes, shapes and optional fields.
        split: a split of the set.

    Returns:
        A function of a scalar string, or, where all images of the split have one shape and one
        dtype, also of a vector of strings: elements then have a leading batch axis.

    Raises:
        CourseDataError: `NO_PAIR` if only some records have a mask, `SHAPE_MISMATCH` if only some
            have a z axis.

    Taught in: writing TFRecords
    """
    import tensorflow as tf

    known, text = found.split(split), tf.io.FixedLenFeature([], tf.string)
    static, kinds = _shape(known), [*dict.fromkeys(known["dtype"])]
    spec = {"image": text, "image/dtype": text}
    spec["image/shape"] = tf.io.FixedLenFeature([len(static)], tf.int64)
    if "mask_at" in known:
        spec["mask"] = text
    for key in KINDS.keys() & known.keys():
        shape, stored = _column(known, key).shape[1:], np.int64 if key == "label" else KINDS[key]
        lacking = np.full(shape, DEFAULTS.get(key)).tolist()
        spec[key] = tf.io.FixedLenFeature(shape, stored, lacking)

    def arrays(serialized):
        element = tf.io.parse_example(serialized, spec)
        values = _decoded(element["image"], element.pop("image/dtype"), kinds)
        shape = element.pop("image/shape")
        image = tf.reshape(values, [-1, *static] if serialized.shape.rank else shape)
        element["image"] = image = tf.ensure_shape(image, [*serialized.shape, *static])
        if "mask" in element:
            ids = tf.io.decode_raw(element["mask"], tf.uint8)
            element["mask"] = tf.reshape(ids, tf.concat([tf.shape(image)[:-1], [1]], 0))
        if "label" in element:
            element["label"] = tf.cast(element["label"], tf.int32)
        return element

    parse = functools.partial(_photograph, static) if found.schema == "deeplab" else arrays
    # AutoGraph has nothing to convert here, and in notebooks it warns of what it cannot.
    return tf.autograph.experimental.do_not_convert(parse)


def _decoded(raw, dtype, kinds: list[str]):
    """Values in their dtype; where a split has several, in the narrowest that holds them all."""
    import tensorflow as tf

    if len(kinds) == 1:
        return tf.io.decode_raw(raw, kinds[0])
    wide = np.result_type(*kinds)
    ways = [lambda kind=kind: tf.cast(tf.io.decode_raw(raw, kind), wide) for kind in kinds]
    return tf.switch_case(tf.argmax(dtype == kinds, output_type=tf.int32), ways)


def _photograph(static: list[int | None], serialized):
    """An element from a record of DeepLab."""
    import tensorflow as tf

    text = tf.io.FixedLenFeature([], tf.string)
    keys = ("image/encoded", "image/segmentation/class/encoded", "image/filename")
    features = tf.io.parse_example(serialized, dict.fromkeys(keys, text))
    image, mask, case = map(features.get, keys)
    image = tf.io.decode_image(image, channels=3, expand_animations=False)
    mask = tf.ensure_shape(tf.io.decode_png(mask, channels=1), [*static[:-1], 1])
    return {"image": tf.ensure_shape(image, static), "mask": mask, "case": case}


def _streamed(known: dict, batch: int | None, seed: int | None, parse: Callable):
    """Records of up to four shards in turn; a seed shuffles both shards and records.

    TensorFlow's own message is no more than "corrupted record at 244", and of what was cut off
    between two records it knows nothing. So an error that names the shard stands where it ends,
    and as many records are taken as there should be.
    """
    import tensorflow as tf

    from helpers import draws

    counts = Counter(known["path"])
    mean_bytes = sum(path.stat().st_size for path in counts) // known["records"]

    def lost(words):  # at the first record that is missing
        tf.raw_ops.Assert(condition=False, data=["ALTERED_SHARD: cannot read all of", words])
        return tf.constant(-1, tf.int64), ""

    @tf.autograph.experimental.do_not_convert
    def whole(file, words, count):
        # A buffer is one more copy of a large record, but spares small ones a system call each.
        found = tf.data.TFRecordDataset(file, buffer_size=0 if mean_bytes > LARGE else BUFFER)
        # The numbers ask for each record once: a file that is gone would be asked for ever.
        found = tf.data.Dataset.zip(tf.data.Dataset.range(count), found).ignore_errors()
        end = tf.data.Dataset.from_tensors(words).map(lost)
        return found.concatenate(end).take(count)

    words = [f"{path.name}, which has {count} records" for path, count in counts.items()]
    shards = ([*map(str, counts)], words, np.array([*counts.values()]))
    dataset = tf.data.Dataset.from_tensor_slices(shards)
    if seed is not None:
        dataset = dataset.shuffle(len(counts), seed=seed)
    # Threads are worth their turns where a record takes longer than to wake one.
    at_once = {"num_parallel_calls": AT_A_TIME, "deterministic": True}
    how = at_once if mean_bytes > HUGE else {}
    dataset = dataset.interleave(whole, cycle_length=min(len(counts), TAKING_TURNS), **how)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(known["records"]))
    if seed is not None:
        room = max(1, SHUFFLED_BYTES // mean_bytes)
        dataset = dataset.shuffle(min(room, known["records"]), seed=seed + 1)
    dataset = dataset.batch(batch) if batch else dataset
    parsed = {"name": "records.parse", "num_parallel_calls": AT_A_TIME}
    return draws.map_named(dataset, lambda _, record: parse(record), **parsed)


def _mapped(known: dict, batch: int | None, seed: int | None, indices):
    """Records by their numbers: images copied out of mapped files, the rest looked up."""
    import tensorflow as tf

    from helpers import draws

    static, buffers = _shape(known), memory.Buffers()
    kinds = {"image": np.result_type(*{*known["dtype"]}), "mask": np.uint8}
    views = {key: [*_views(known, key)] for key in kinds if f"{key}_at" in known}
    small = {key: tf.constant(_column(known, key)) for key in KINDS.keys() & known.keys()}

    def copies(key, numbers):
        key, several = key.decode(), np.atleast_1d(numbers)
        first = views[key][several[0]]
        batch = buffers.empty((len(several), *first.shape), kinds[key])
        for place, number in enumerate(several):
            batch[place] = views[key][number]
        return batch if np.ndim(numbers) else batch[0]

    # A dataset that is made inside a graph is soon gone, and its function with it.
    held = memory.weakly if tf.executing_eagerly() else lambda function: function

    def load(numbers):  # refers to `copies`, so whoever holds the dataset holds the files
        element = {key: tf.gather(values, numbers) for key, values in small.items()}
        with tf.control_dependencies(element.values()):  # they refuse a number that no record has
            for key in views:
                found = tf.numpy_function(held(copies), [key, numbers], kinds[key], stateful=False)
                shape = static if key == "image" else [*static[:-1], 1]
                element[key] = tf.ensure_shape(found, [*numbers.shape, *shape])
        return element

    order = tf.data.Dataset.range(known["records"]) if indices is None else indices
    draws.check_indices(order)
    if seed is not None:
        order = order.shuffle(known["records"], seed=seed)
    if batch:
        endless = order.cardinality() == tf.data.INFINITE_CARDINALITY
        order = order.batch(batch, drop_remainder=bool(endless))
    return draws.map_named(order, load, name="records.mapped", num_parallel_calls=AT_A_TIME)


def _opened(folder: str | Path, split: str | None, check: str) -> tuple:
    """The manifest, the split's name, and what is known of its records: lists, one entry each."""
    if check not in ("size", "full"):
        raise ValueError(f'check can be "size" or "full", not {check!r}')
    found = manifest.load(folder)
    if split is None and len(found.splits) > 1:
        raise ValueError(f"which split? This set has: {', '.join(found.splits)}")
    split = split or found.splits[0]
    known = found.split(split)
    faults = manifest.verify(folder, split=split, full=check == "full")
    if faults:
        reason = f"{len(faults)} faulty shards; of the first: {faults[0].reason}"
        files = [Path(folder) / fault.file for fault in faults]
        raise CourseDataError(faults[0].code, reason, files)
    need(known["records"], "NOTHING_WRITTEN", "all cases of this split were rejected")
    shards = [shard for shard in found.shards if shard.split == split]
    known["path"] = [Path(folder) / one.file for one in shards for _ in range(one.records)]
    return found, split, known


def _shape(known: dict) -> list[int | None]:
    """The shape of an image as far as all of a split share it."""
    shapes = [[int(n) for n in text.split("x")] for text in {*known["shape"]}]
    ranks, masks = {len(shape) for shape in shapes}, known.get("mask_at", [])
    need(len(ranks) == 1, "SHAPE_MISMATCH", "images with and without a z axis in one split")
    found = f"{len(masks) - masks.count(None)} of {len(masks)} records have a mask"
    need(None not in masks, "NO_PAIR", found)
    return [axis[0] if len({*axis}) == 1 else None for axis in zip(*shapes, strict=True)]


def _column(known: dict, key: str) -> np.ndarray:
    """A column as an array, with the default where a record lacks it."""
    some = next(one for one in known[key] if one is not None)
    lacking = np.full(np.shape(some), DEFAULTS.get(key)).tolist()
    return np.array([lacking if one is None else one for one in known[key]], KINDS[key])


def _views(known: dict, key: str) -> Iterator[np.ndarray]:
    """The images or masks of all records, where they lie in files that are mapped into memory."""
    columns = ("path", f"{key}_at", "image_bytes", "shape", "dtype")
    rows = zip(*(known[column] for column in columns), strict=True)
    for path, of_shard in itertools.groupby(rows, key=lambda row: row[0]):
        file = np.memmap(path, np.uint8, "r")
        for _, at, size, shape, dtype in of_shard:
            sides = [int(n) for n in shape.split("x")]
            if key == "mask":
                sides, dtype = [*sides[:-1], 1], "uint8"
            elif dtype in ("jpeg", "png"):
                sides, dtype = [size], "uint8"
            yield np.ndarray(sides, np.dtype(dtype).newbyteorder("<"), file, at)
