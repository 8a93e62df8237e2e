"""From shards to a `tf.data.Dataset` of elements: image, mask, label, weight, spacing, case.

Streamed, TensorFlow reads record after record, checks each by its CRC and decodes it. Mapped, the
operating system keeps the shards in its page cache, and an image is copied from there straight
into its batch: the manifest knows where it begins.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from helpers import memory, quiet
from helpers.errors import CourseDataError, listed, need
from helpers.records import manifest
from helpers.records.manifest import Manifest, Shard
from helpers.records.schema import DEFAULTS

LARGE = 2**16  # bytes; records beyond this are read straight into place
BUFFER = 2**18  # bytes of the reader of each shard, for smaller ones
SHUFFLED_BYTES = 256 * 2**20  # what a shuffle buffer of serialized records may hold
AT_A_TIME = 2  # batches decoded at once: each may be more than 100 MB
TAKING_TURNS = 4  # shards, of which each gives a record in its turn
KINDS = {"label": np.int32, "weight": np.float32, "spacing": np.float32, "modality": object}


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
    found, known, shards = _opened(Path(folder), split, check or ("full" if mapped else "size"))
    encoded, kinds = found.schema == "deeplab", {*known["dtype"]}
    wrong = {
        f"a batch holds 1 record or more, not {batch}": batch is not None and batch < 1,
        "indices need mapped=True, and take the place of seed": indices is not None
        and (seed is not None or not mapped),
        "images of several shapes cannot share a batch: crop, resize or pad them, then batch": batch
        and len({*known["shape"]}) > 1,
        "records that hold JPEG or PNG files have to be decoded, not mapped": mapped and encoded,
    }
    for problem, is_so in wrong.items():
        if is_so:
            raise ValueError(problem)
    if len(kinds) > 1 and not encoded:
        held = f"images are {', '.join(sorted(kinds))}: all are read as {np.result_type(*kinds)}"
        warnings.warn(held, stacklevel=2)
    quiet.tensorflow_greeting()
    import tensorflow as tf

    from helpers import draws

    parse = parser(found, shards[0][1].split)
    if mapped:
        order = tf.data.Dataset.range(known["records"]) if indices is None else indices
        order = order if seed is None else order.shuffle(known["records"], seed=seed)
        draws.check_indices(order)
        load, order = _mapped(known, shards, order, batch)
        return draws.map_named(order, load, name="records.mapped", num_parallel_calls=AT_A_TIME)
    record_bytes = sum(shard.bytes for _, shard in shards) // known["records"]
    dataset = _serialized(shards, seed, record_bytes)
    if seed is not None:
        room = max(1, SHUFFLED_BYTES // max(record_bytes, 1))
        dataset = dataset.shuffle(min(room, known["records"]), seed=seed + 1)
    together = batch and not encoded and len(kinds) == 1
    dataset = dataset.batch(batch) if together else dataset
    parse = _stopping(parse)
    dataset = draws.map_named(dataset, parse, name="records.parse", num_parallel_calls=AT_A_TIME)
    return dataset if together or not batch else dataset.batch(batch)


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
    known = _opened(Path(folder), split, check)[1]
    sampled = {key: _values(known, key) for key in ("label", "weight") if key in known}
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
    folder, found = Path(folder), manifest.load(folder)
    for split in dict.fromkeys(found.of_records("split")):
        _, known, shards = _opened(folder, split, "size")
        for case, (path, image, _) in zip(known["case"], _views(known, shards), strict=True):
            yield case, split, path, image


def parser(found: Manifest, split: str) -> Callable:
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
    quiet.tensorflow_greeting()
    import tensorflow as tf

    known = found.split(split)
    static, kinds = _static_shape(known), [*dict.fromkeys(known["dtype"])]
    text = tf.io.FixedLenFeature([], tf.string)

    def deeplab(serialized):
        keys = ("image/encoded", "image/segmentation/class/encoded", "image/filename")
        features = tf.io.parse_single_example(serialized, dict.fromkeys(keys, text))
        image = tf.io.decode_image(features[keys[0]], channels=3, expand_animations=False)
        mask = tf.io.decode_png(features[keys[1]], channels=1)
        element = {"image": tf.ensure_shape(image, static), "case": features[keys[2]]}
        return element | {"mask": tf.ensure_shape(mask, [*static[:-1], 1])}

    spec = {"image": text, "image/dtype": text, "case": text}
    spec["image/shape"] = tf.io.FixedLenFeature([len(static)], tf.int64)
    if "mask_at" in known:
        spec["mask"] = text
    for key in KINDS.keys() & known.keys():
        column = _values(known, key)
        dtype = tf.int64 if key == "label" else tf.as_dtype(column.dtype)
        default = np.full(column.shape[1:], DEFAULTS[key]).tolist()
        spec[key] = tf.io.FixedLenFeature(column.shape[1:], dtype, default)

    def decoded(features):
        ways = [lambda kind=kind: tf.io.decode_raw(features["image"], kind) for kind in kinds]
        if len(ways) == 1:
            return ways[0]()
        wide = [lambda way=way: tf.cast(way(), np.result_type(*kinds)) for way in ways]
        which = tf.argmax(tf.equal(features["image/dtype"], kinds))
        return tf.switch_case(tf.cast(which, tf.int32), wide)

    def arrays(serialized):
        several = serialized.shape.rank
        parse = tf.io.parse_example if several else tf.io.parse_single_example
        features = parse(serialized, spec)
        sides = [-1, *static] if several else features.pop("image/shape")
        image = tf.ensure_shape(tf.reshape(decoded(features), sides), [*[None] * several, *static])
        if "mask" in spec:
            ids = tf.reshape(tf.io.decode_raw(features["mask"], tf.uint8), tf.shape(image)[:-1])
            features["mask"] = tf.ensure_shape(ids, image.shape[:-1])[..., tf.newaxis]
        if "label" in spec:
            features["label"] = tf.cast(features["label"], tf.int32)
        features |= {"image": image}
        return {key: value for key, value in features.items() if "/" not in key}

    # Nothing in it is for AutoGraph to convert, and in notebooks AutoGraph warns of what it cannot.
    plain = tf.autograph.experimental.do_not_convert
    return plain(deeplab if found.schema == "deeplab" else arrays)


def _opened(
    folder: Path, split: str | None, check: str
) -> tuple[Manifest, dict, list[tuple[Path, Shard]]]:
    """The manifest, what it knows of a split, and its shards with records, looked at before."""
    found = manifest.load(folder)
    if check not in ("size", "full"):
        raise ValueError(f'check can be "size" or "full", not {check!r}')
    if split is None and len(found.splits) > 1:
        raise ValueError(f"which split? This set has: {', '.join(found.splits)}")
    split = split or found.splits[0]
    known = found.split(split)
    faults = manifest.verify(folder, split=split, full=check == "full")
    told = listed([f"{fault.code}: {fault.reason}" for fault in faults], most=4)
    if faults:
        files = [folder / fault.file for fault in faults]
        raise CourseDataError(faults[0].code, f"{len(faults)} faulty shards ({told})", files)
    need(known["records"], "NOTHING_WRITTEN", "all cases of this split were rejected")
    shards = [one for one in found.shards if one.split == split and one.records]
    return found, known, [(folder / one.file, one) for one in shards]


def _static_shape(known: dict) -> list[int | None]:
    """The shape of an image as far as all of a split share it."""
    shapes = [[int(n) for n in text.split("x")] for text in dict.fromkeys(known["shape"])]
    found = "images with and without a z axis in one split"
    need(len({len(shape) for shape in shapes}) == 1, "SHAPE_MISMATCH", found)
    masks = known["records"] - known.get("mask_at", []).count(None)
    found = f"{masks} of {known['records']} records of this split have a mask"
    need("mask_at" not in known or masks == known["records"], "NO_PAIR", found)
    return [axis[0] if len({*axis}) == 1 else None for axis in zip(*shapes, strict=True)]


def _values(known: dict, key: str) -> np.ndarray:
    """A column as an array, with the default where a record lacks it."""
    some = next(one for one in known[key] if one is not None)
    default = np.broadcast_to(DEFAULTS[key], np.shape(some)).tolist()
    return np.array([default if one is None else one for one in known[key]], KINDS[key])


def _serialized(shards: Sequence[tuple[Path, Shard]], seed: int | None, record_bytes: int):
    """The records of some shards, up to four of which take turns, each with its number.

    TensorFlow's own message is no more than "corrupted record at 244", and of what was cut off
    between two records it knows nothing. So the end of each shard is filled up with words in place
    of the records that could not be read, under the number -1, at which `_stopping` stops.
    """
    import tensorflow as tf

    files = [str(path) for path, _ in shards]
    counts = tf.constant([shard.records for _, shard in shards], tf.int64)
    words = [f"{shard.file}, which has {shard.records}" for _, shard in shards]
    dataset = tf.data.Dataset.from_tensor_slices((files, counts, words))
    if seed is not None:
        dataset = dataset.shuffle(len(files), seed=seed)

    def whole(file, count, words):
        # A buffer is one more copy of a large record, but spares small ones a system call each.
        found = tf.data.TFRecordDataset(file, buffer_size=0 if record_bytes > LARGE else BUFFER)
        # The range asks for each record at most once: a file that cannot be opened would be asked
        # for ever. After an error inside a file, the reader gives nothing more of it.
        found = tf.data.Dataset.zip(tf.data.Dataset.range(count), found).ignore_errors()
        lost = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), words)).repeat()
        return found.concatenate(lost).take(count)

    plain = tf.autograph.experimental.do_not_convert(whole)
    dataset = dataset.interleave(plain, cycle_length=min(len(files), TAKING_TURNS))
    total = sum(shard.records for _, shard in shards)
    return dataset.apply(tf.data.experimental.assert_cardinality(total))


def _stopping(parse: Callable) -> Callable:
    """A parser of `_serialized`, or of batches of it, that stops at a record that is lost."""
    import tensorflow as tf

    def parse_found(number, record):
        words = tf.strings.substr(record, 0, 200)
        if number.shape.rank:
            words = tf.gather(words, tf.argmin(number))
        about = ["ALTERED_SHARD: a record cannot be read in", words, "as the manifest says"]
        there = tf.raw_ops.Assert(condition=tf.reduce_all(number >= 0), data=about)
        with tf.control_dependencies([there]):
            return parse(record)

    return parse_found


def _views(known: dict, shards: Sequence[tuple[Path, Shard]]) -> Iterator[tuple]:
    """Shard, image and mask of each record: views of files that are mapped into memory."""
    keys = ("shape", "dtype", "image_at", "image_bytes", "mask_at")
    rows = zip(*(known.get(key, itertools.repeat(None)) for key in keys), strict=False)
    for path, shard in shards:
        file = np.memmap(path, np.uint8, "r").view(np.ndarray)
        for shape, dtype, at, size, mask_at in itertools.islice(rows, shard.records):
            sides, raw = [int(n) for n in shape.split("x")], file[at : at + size]
            if dtype in ("jpeg", "png"):
                yield path, raw.tobytes(), None
                continue
            image = raw.view(np.dtype(dtype).newbyteorder("<")).reshape(sides)
            if mask_at is None:
                yield path, image, None
                continue
            ids = file[mask_at : mask_at + image[..., 0].size]
            yield path, image, ids.reshape(*sides[:-1], 1)


def _mapped(known: dict, shards: Sequence[tuple[Path, Shard]], order, batch: int | None) -> tuple:
    """The function to map over numbers, or batches of them, that gives elements; and those."""
    import tensorflow as tf

    views, static = [*_views(known, shards)], _static_shape(known)
    stored = {"image": [image for _, image, _ in views]}
    dtypes = [np.result_type(*dict.fromkeys(known["dtype"]))]
    if "mask_at" in known:
        stored["mask"], dtypes = [mask for _, _, mask in views], [*dtypes, np.dtype(np.uint8)]
    small = {key: tf.constant(_values(known, key)) for key in KINDS.keys() & known.keys()}
    small["case"] = tf.constant(known["case"])
    buffers = memory.Buffers()

    def copies(numbers: np.ndarray) -> list[np.ndarray]:
        many, each = len(views), np.atleast_1d(numbers)
        if each.min() < 0 or each.max() >= many:
            raise ValueError(f"found the index {each.tolist()}, expected 0 to {many - 1}")
        made = []
        for arrays, dtype in zip(stored.values(), dtypes, strict=True):
            out = buffers.empty((len(each), *arrays[each[0]].shape), dtype)
            for into, number in zip(out, each, strict=True):
                one = arrays[number]
                if one.dtype == dtype:  # a view may begin anywhere: NumPy is quick only with bytes
                    one, into = one.view(np.uint8), into.view(np.uint8)
                np.copyto(into, one)
            made.append(out if np.ndim(numbers) else out[0])
        return made

    copying = memory.weakly(copies) if tf.executing_eagerly() else copies
    endless = order.cardinality() == tf.data.INFINITE_CARDINALITY
    lead = [] if batch is None else [batch if endless else None]

    def load(numbers, kept=copies):  # mapped, so whoever holds the dataset holds the files
        del kept
        found = tf.numpy_function(copying, [numbers], dtypes, stateful=False)
        with tf.control_dependencies(found):  # which says better what is wrong with a number
            element = {key: tf.gather(values, numbers) for key, values in small.items()}
        for key, one in zip(stored, found, strict=True):
            sides = static if key == "image" else [*static[:-1], 1]
            element[key] = tf.ensure_shape(one, [*lead, *sides])
        return element

    if batch is not None:
        order = order.batch(batch, drop_remainder=bool(endless))
    return load, order
