"""Messages and frames are byte for byte what TensorFlow writes, and TensorFlow reads them."""

import hashlib
import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers.errors import CourseDataError
from helpers.records import tfrecord

VOXELS = arrays.arrays(
    dtype=st.sampled_from(["uint8", "<i2", ">i2", "<f4", ">f8", "bool"]),
    shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)
LISTS = st.one_of(st.binary(max_size=300), VOXELS, NUMBERS, st.tuples(st.floats(width=32)))
FEATURES = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), LISTS, max_size=6)


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
    elif isinstance(value[0], int):
        feature.int64_list.value.extend(value)
    else:
        feature.float_list.value.extend(value)
    return features


@settings(max_examples=25, deadline=None, derandomize=True)
@given(FEATURES)
@example({})
@example({"": b"", "é": (2,), "z": [1], "Z": b"a", "\U0001f9e0": (1.5,), "\uffee": (0,)})
@example({"label": (-1, 0, 127, 128, -(2**63), 2**63 - 1), "weight": (float("inf"), -0.0)})
@example({"image": np.arange(24, dtype=">i2").reshape(2, 3, 4).transpose(2, 0, 1)})
@example({"image": np.zeros((0, 3), np.float32), "long": bytes(20_000)})
def test_a_message_is_what_protocol_buffers_make_of_it(tf, features):
    pieces, starts = tfrecord.example(features)
    ours = joined(pieces)
    # Key by key, as their own order depends on the language. Messages of one type may be joined;
    # the whole is field 1 of `Example`, as bytes would be.
    several = [one_feature(tf, key, features[key]) for key in sorted(features)]
    content = b"".join(one.SerializeToString(deterministic=True) for one in several)
    assert ours == tf.train.BytesList(value=[content]).SerializeToString()
    for key, value in features.items():
        if isinstance(value, bytes | np.ndarray):
            raw = value if isinstance(value, bytes) else value.tobytes()
            assert ours[starts[key] : starts[key] + len(raw)] == raw


def test_an_array_is_copied_only_where_its_layout_asks_for_it():
    image = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    pieces, _ = tfrecord.example({"image": image, "case": b"a"})
    assert any(isinstance(one, np.ndarray) and np.shares_memory(one, image) for one in pieces)
    pieces, _ = tfrecord.example({"image": image.T})
    assert image.T.tobytes() in joined(pieces)


def test_a_message_that_tensorflow_would_lose_is_refused(monkeypatch):
    # Protocol buffers count in 32 bits with a sign: of 2 GiB, TensorFlow finds no feature.
    assert tfrecord.LARGEST == 2**31 - 1
    size = len(joined(tfrecord.example({"image": bytes(100)})[0]))
    monkeypatch.setattr(tfrecord, "LARGEST", size)
    tfrecord.example({"image": bytes(100)})
    with pytest.raises(CourseDataError, match=f"{size + 1} bytes") as refused:
        tfrecord.example({"image": bytes(101)})
    assert refused.value.code == "TOO_LARGE"


def test_tensorflow_reads_every_frame_and_finds_its_checksums_right(tf, tmp_path):
    messages = [[], [b""], [b"a" * 70_000, np.arange(9000, dtype=np.uint8)], [b"x", b"y"]]
    path = tmp_path / "some.tfrecord"
    with tfrecord.Writer(path) as writer:
        begins = [writer.write(message) for message in messages]
    content, expected = path.read_bytes(), [joined(message) for message in messages]
    assert [one.numpy() for one in tf.data.TFRecordDataset(str(path))] == expected
    assert (writer.records, writer.bytes) == (4, len(content))
    assert writer.sha256.hexdigest() == hashlib.sha256(content).hexdigest()
    pairs = zip(begins, expected, strict=True)
    assert [content[at : at + len(one)] for at, one in pairs] == expected
    with tfrecord.Writer(None) as counted:  # the same without a file
        assert [counted.write(message) for message in messages] == begins
    assert counted.sha256.digest() == writer.sha256.digest()
    with pytest.raises(FileExistsError), tfrecord.Writer(path):
        pass


def test_the_checksum_is_that_of_the_published_example():
    # https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4: 32 bytes of zeros, CRC 8a9136aa.
    crc = 0x8A9136AA
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert tfrecord.masked_crc([bytes(10), bytes(22)]) == masked.to_bytes(4, "little")


def test_a_file_is_on_the_disk_when_the_block_ends_well_and_closed_in_any_case(
    tmp_path, monkeypatch
):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.fstat(number).st_size))
    with tfrecord.Writer(tmp_path / "good") as writer:
        writer.write([b"abc"])
    assert flushed == [8 + 4 + 3 + 4]
    writer = tfrecord.Writer(tmp_path / "bad")
    with pytest.raises(TypeError), writer:
        writer.write([b"abc", None])
    assert len(flushed) == 1 and writer._file.closed
