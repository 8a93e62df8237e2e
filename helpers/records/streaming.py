"""Shards as a stream of serialized records, which stops with the shard's name where one is broken.

TensorFlow's own message is no more than "corrupted record at 244". So the end of each shard is
filled up with markers in place of the records that could not be read, and a marker that arrives
stops the pipeline. All of that runs without Python, and no record is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from helpers import quiet
from helpers.records.manifest import Shard

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402


def serialized(
    shards: Sequence[tuple[Path, Shard]], *, seed: int | None, buffer_bytes: int, workers: int
) -> tf.data.Dataset:
    """The records of some shards, up to four of which take turns.

    Args:
        shards: files and what the manifest says of them.
        seed: of the order of the shards in each epoch, or None for the one given.
        buffer_bytes: of TensorFlow's reader, for each shard.
        workers: shards read at once.

    Returns:
        A dataset for `parsed`: the record's number in its shard, a mark, and the record. The mark
        is -1 where it is lost, and then some words stand in its place.
    """
    files = [str(path) for path, _ in shards]
    counts = [shard.records for _, shard in shards]
    words = [f"{shard.file}, which has {shard.records}" for _, shard in shards]
    dataset = tf.data.Dataset.from_tensor_slices((files, tf.constant(counts, tf.int64), words))
    if seed is not None:
        dataset = dataset.shuffle(len(files), seed=seed)

    def whole(file, count, words):
        found = tf.data.TFRecordDataset(file, buffer_size=buffer_bytes)
        # The range asks for each record at most once: a file that cannot be opened would be asked
        # for ever. After an error inside a file, the reader gives nothing more of it.
        found = tf.data.Dataset.zip(tf.data.Dataset.range(count), found).ignore_errors()
        lost = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), words)).repeat()
        return found.concatenate(lost).take(count).enumerate()

    dataset = dataset.interleave(
        tf.autograph.experimental.do_not_convert(whole),
        cycle_length=min(len(files), 4),
        num_parallel_calls=min(len(files), workers),
        deterministic=True,
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(sum(counts)))


def parsed(parse: Callable) -> Callable:
    """The function to map over `serialized`, or over batches of it.

    Args:
        parse: function of one serialized record, or of a vector of them.

    Returns:
        A function that gives what `parse` does. Where a record is lost it raises
        `tf.errors.InvalidArgumentError`: `ALTERED_SHARD`, the number of the record, the name of
        its shard, and how many there should be.
    """

    def stop(number, mark, record):
        if mark.shape.rank:
            first = tf.argmin(mark)
            number, record = number[first], record[first]
        about = [
            "ALTERED_SHARD: record", number, "counted from 0, cannot be read in", record,
            "as the manifest says; the file changed since it was looked at: run records.verify, "
            "then fetch it again",
        ]  # fmt: skip
        return tf.raw_ops.Assert(condition=False, data=about)

    def parse_found(number, marked):
        mark, record = marked
        there = tf.reduce_all(mark >= 0)
        # What is said lies in a branch of its own: a record that is there costs next to nothing.
        checked = tf.cond(there, tf.no_op, lambda: stop(number, mark, record))
        with tf.control_dependencies([checked]):
            return parse(record)

    return parse_found
