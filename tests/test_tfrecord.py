"""Messages and frames are byte for byte what TensorFlow writes, and TensorFlow reads them."""

import hashlib
import itertools
import os
import struct
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers.errors import CourseDataError
from helpers.records import tfrecord

many = settings(max_examples=150, deadline=None, derandomize=True)
few = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VOXELS = arrays.arrays(
    dtype=st.sampled_from(["uint8", "<i2", ">i2", "<f4", ">f8", "bool"]),
    shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
KEYS = st.text(st.characters(codec="utf-8"), max_size=6)
FEATURES = st.dictionaries(
    KEYS,
    st.one_of(
        st.binary(max_size=300),
        VOXELS,
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
        st.tuples(st.floats(width=32), st.floats(width=32)),
    ),
    max_size=6,
)


def joined(pieces) -> bytes:
    return b"".join(one if isinstance(one, bytes) else one.tobytes() for one in pieces)


def one_feature(tf, key, value):
    """`tf.train.Features` of one key."""
    features = tf.train.Features()
    feature = features.feature[key]
    if isinstance(value, np.ndarray):
        feature.bytes_list.value.append(value.tobytes())
    elif isinstance(value, bytes):
        feature.bytes_list.value.append(value)
    elif value and isinstance(value[0], int):
        feature.int64_list.value.extend(value)
    else:
        feature.float_list.SetInParent()
        feature.float_list.value.extend(value)
    return features


def by_tensorflow(tf, features) -> bytes:
    """The message through protocol buffers, key by key: their own order depends on the language.

    Messages of one type may be joined; the whole is field 1 of `Example`, as bytes would be.
    """
    several = [one_feature(tf, key, features[key]) for key in sorted(features)]
    content = b"".join(one.SerializeToString(deterministic=True) for one in several)
    return tf.train.BytesList(value=[content]).SerializeToString()


@many
@given(FEATURES)
@example({})
@example({"": b"", "é": (), "z": [], "Z": b"a", "\U0001f9e0": (1.5,), "\uffee": (0,)})
@example({"label": (-1, 0, 127, 128, -(2**63), 2**63 - 1), "weight": (float("inf"), -0.0)})
@example({"image": np.arange(24, dtype=">i2").reshape(2, 3, 4).transpose(2, 0, 1)})
@example({"image": np.zeros((0, 3), np.float32), "long": bytes(20_000)})
def test_a_message_is_what_protocol_buffers_make_of_it(tf, features):
    ours = joined(tfrecord.example(features))
    assert ours == by_tensorflow(tf, features)
    together = tf.train.Features()
    for key, value in features.items():
        together.MergeFrom(one_feature(tf, key, value))
    assert tf.train.Example.FromString(ours) == tf.train.Example(features=together)


def test_an_array_is_copied_only_where_its_layout_asks_for_it():
    image = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    pieces = tfrecord.example({"image": image, "case": b"a"})
    assert any(piece is image for piece in pieces)
    (turned,) = (p for p in tfrecord.example({"image": image.T}) if isinstance(p, np.ndarray))
    assert turned.flags.c_contiguous and turned.tobytes() == image.T.tobytes()


@pytest.mark.parametrize(
    "value", [["text"], [True], [np.int64(3)], [1, 2.0], [None], 3, None, {1: 2}, object()]
)
def test_a_value_that_belongs_to_no_list_is_refused(value):
    with pytest.raises(TypeError, match="expected bytes, an array, ints or floats"):
        tfrecord.example({"key": value})


def test_a_message_that_tensorflow_would_lose_is_refused(monkeypatch):
    # Protocol buffers count in 32 bits with a sign: of 2 GiB, TensorFlow finds no feature.
    assert tfrecord.LARGEST == 2**31 - 1
    size = len(joined(tfrecord.example({"image": bytes(100)})))
    monkeypatch.setattr(tfrecord, "LARGEST", size)
    tfrecord.example({"image": bytes(100)})
    with pytest.raises(CourseDataError, match=f"{size + 1} bytes") as refused:
        tfrecord.example({"image": bytes(101)})
    assert refused.value.code == "TOO_LARGE"


@few
@given(st.lists(st.lists(st.one_of(st.binary(max_size=5000), VOXELS), max_size=4), max_size=5))
@example([[b"", b"a" * 4096, np.zeros(0, np.float32), b"b" * 4095, b"c", b"d" * 4094]])
@example([[np.zeros((70, 80), np.int16)], [], [b""]])
def test_tensorflow_reads_every_frame_and_finds_its_checksums_right(tf, tmp_path, messages):
    path = tmp_path / "a.tfrecord"
    path.unlink(missing_ok=True)
    with tfrecord.Writer(path) as writer, tfrecord.Writer(None) as counted:
        for pieces in messages:
            writer.write(pieces)
            counted.write(pieces)
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    assert read == [joined(pieces) for pieces in messages]
    content = path.read_bytes()
    found = (writer.records, writer.bytes, writer.sha256)
    assert found == (len(read), len(content), hashlib.sha256(content).hexdigest())
    assert found == (counted.records, counted.bytes, counted.sha256)
    with tf.io.TFRecordWriter(str(tmp_path / "b.tfrecord")) as other:
        for pieces in messages:
            other.write(joined(pieces))
    assert content == (tmp_path / "b.tfrecord").read_bytes()


def test_a_file_system_that_takes_a_part_at_a_time_gets_it_all(tmp_path):
    class Slow:
        def __init__(self):
            self.content = b""

        def write(self, view):
            self.content += bytes(view[:7])
            return min(7, len(view))

        def fileno(self):
            return os.open(tmp_path / "any", os.O_CREAT | os.O_WRONLY)

        def close(self):
            pass

    slow, pieces = Slow(), [b"head", np.arange(3000), b"tail"]
    with tfrecord.Writer(None) as writer, tfrecord.Writer(None) as counted:
        writer._file = slow
        writer.write(pieces)
        counted.write(pieces)
    assert hashlib.sha256(slow.content).hexdigest() == writer.sha256 == counted.sha256
    assert writer.bytes == len(slow.content)


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        tfrecord.Writer(path)
    assert path.read_bytes() == b"somebody else's"


def test_a_file_is_on_the_disk_when_the_block_ends_well_and_closed_in_any_case(
    tmp_path, monkeypatch
):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.fstat(number).st_size))
    with tfrecord.Writer(tmp_path / "a") as writer:
        writer.write([b"12345"])
    assert flushed == [writer.bytes]
    assert writer._file.closed

    def fail():
        with tfrecord.Writer(tmp_path / "b") as broken:
            handles.append(broken._file)
            raise KeyboardInterrupt

    handles = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert handles[0].closed and len(flushed) == 1


@pytest.fixture
def six(tmp_path):
    """A file of six records, and where each begins."""
    path = tmp_path / "six.tfrecord"
    starts = [0]
    with tfrecord.Writer(path) as writer:
        for number in range(6):
            writer.write(tfrecord.example({"image": np.full(50 + number, number, np.uint8)}))
            starts.append(writer.bytes)
    return path, starts


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("where", ["message", "checksum"])
def test_exactly_the_damaged_frame_is_found(six, number, where):
    path, starts = six
    content = bytearray(path.read_bytes())
    content[starts[number] + 40 if where == "message" else starts[number + 1] - 1] ^= 1
    path.write_bytes(content)
    assert list(tfrecord.frames(path)) == [other != number for other in range(6)]


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("byte", [0, 7, 8, 11])
def test_behind_a_damaged_length_nothing_can_be_found(six, number, byte):
    path, starts = six
    content = bytearray(path.read_bytes())
    content[starts[number] + byte] ^= 1
    path.write_bytes(content)
    assert list(tfrecord.frames(path)) == [True] * number + [False]


def test_a_length_beyond_the_end_takes_no_memory(six):
    path, starts = six
    length = struct.pack("<Q", 2**62)
    crc = struct.pack("<I", tfrecord.masked_crc([length]))
    path.write_bytes(path.read_bytes()[: starts[2]] + length + crc + bytes(100))
    assert list(tfrecord.frames(path)) == [True, True, False]


def test_a_file_cut_anywhere_has_the_frames_before_the_cut(six):
    path, starts = six
    content = path.read_bytes()
    for cut in range(starts[2] + 20):
        path.write_bytes(content[:cut])
        whole = sum(start <= cut for start in starts[1:])
        found = list(tfrecord.frames(path))
        assert found[:whole] == [True] * whole and True not in found[whole:]
        # Cut between two records, or within the twelve bytes before one, nothing looks wrong.
        assert found[whole:] == [False] * (cut - starts[whole] >= 12)


def test_the_checksum_is_that_of_the_published_examples():
    # RFC 3720 B.4: CRC-32C of 32 zeros, of 32 ones, of 0..31; TFRecord rotates it by 15 and adds.
    known = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E}
    for message, crc in known.items():
        masked = ((crc >> 15 | crc << 17) % 2**32 + 0xA282EAD8) % 2**32
        for cut in (0, 1, 31, 32):
            assert tfrecord.masked_crc([message[:cut], message[cut:]]) == masked


def test_hypothesis_meets_numbers_of_every_length(tf):
    lengths = itertools.chain.from_iterable((2**n - 1, 2**n) for n in range(64))
    numbers = [n for n in lengths if n < 2**63]
    numbers += [-n for n in numbers]
    assert sys.byteorder == "little"  # else `by_tensorflow` says nothing about raw bytes
    features = {"a": numbers}
    assert joined(tfrecord.example(features)) == by_tensorflow(tf, features)
    for size in (0, 1, 127, 128, 16383, 16384, 2**21 - 1, 2**21):
        features = {"a": bytes(size), "b": np.zeros(size, np.uint8)}
        assert joined(tfrecord.example(features)) == by_tensorflow(tf, features)
