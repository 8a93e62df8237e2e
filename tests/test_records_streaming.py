"""A shard that breaks while a pipeline reads it stops the pipeline, with the shard's name."""

import numpy as np
import pytest

from helpers import records
from helpers.records import tfrecord
from tests.records_cases import cases, write

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def names(dataset) -> list[str]:
    return [element["case"].decode() for element in dataset.as_numpy_iterator()]


@pytest.fixture
def changing(tmp_path):
    """Records in three shards, of which the second is about to change."""
    write(tmp_path, cases(18), shard_count=3)
    shards = records.load_manifest(tmp_path).shards
    return tmp_path, tmp_path / shards[1].file, shards[1].records


def flipped(path) -> int:
    """A byte in the middle of the file changes; the number of the record that it lies in."""
    good = path.read_bytes()
    lengths = [12 + len(one) + 4 for one in tfrecord.messages(path)]
    path.write_bytes(good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 8])
                     + good[len(good) // 2 + 1 :])  # fmt: skip
    return int(np.searchsorted(np.cumsum(lengths), len(good) // 2, side="right"))


def cut(path) -> int:
    """The last two records and a part of the one before are gone."""
    lengths = [12 + len(one) + 4 for one in tfrecord.messages(path)]
    path.write_bytes(path.read_bytes()[: sum(lengths[:-3]) + 20])
    return len(lengths) - 3


def cut_between(path) -> int:
    """A file that ends between two records looks whole to TensorFlow's reader."""
    lengths = [12 + len(one) + 4 for one in tfrecord.messages(path)]
    path.write_bytes(path.read_bytes()[: sum(lengths[:-1])])
    return len(lengths) - 1


def emptied(path) -> int:
    path.write_bytes(b"")
    return 0


def removed(path) -> int:
    path.unlink()
    return 0


@pytest.mark.parametrize("harm", [flipped, cut, cut_between, emptied, removed])
@pytest.mark.parametrize("options", [{}, {"batch": 4}, {"seed": 3}, {"seed": 3, "batch": 5}])
def test_a_shard_that_breaks_while_it_is_read_is_named(tf, changing, harm, options):
    folder, path, count = changing
    dataset = records.read(folder, **options)
    assert len(records.index(folder)["case"]) == 18
    whole = [x["case"] for x in records.read(folder, **options).as_numpy_iterator()]
    first = harm(path)
    came, elements = [], dataset.as_numpy_iterator()
    with pytest.raises(tf.errors.InvalidArgumentError) as stopped:
        came.extend(element["case"] for element in elements)
    message = str(stopped.value)
    (number,) = {int(n) for n in _numbers(message)}
    assert "ALTERED_SHARD: record" in message
    assert f"{path.name}, which has {count}" in message and str(folder) not in message
    assert first <= number < count and (number == first or "seed" in options)
    # What came before is as it would have been.
    assert [np.array_equal(a, b) for a, b in zip(came, whole, strict=False)] == [True] * len(came)
    assert path.name in {fault.file for fault in records.verify(folder)}


def _numbers(message: str) -> list[str]:
    return [part.split("]")[0] for part in message.split("ALTERED_SHARD: record] [")[1:]]


def test_the_next_epoch_stops_where_a_shard_breaks_between_two(tf, changing):
    folder, path, _ = changing
    dataset = records.read(folder, seed=1)
    assert len(names(dataset)) == 18
    flipped(path)
    with pytest.raises(tf.errors.InvalidArgumentError, match=path.name):
        names(dataset)


def test_a_shard_that_cannot_be_opened_ends_the_pipeline_rather_than_hang(tf, tmp_path):
    """The reader is asked for each record once, and fails each time."""
    write(tmp_path, cases(40), shard_count=1)
    dataset = records.read(tmp_path)
    (path,) = tmp_path.glob("*.tfrecord")
    path.unlink()
    path.mkdir()
    with pytest.raises(tf.errors.InvalidArgumentError, match=path.name):
        names(dataset)
