"""Messages and frames are what TensorFlow writes, and TensorFlow reads them."""

import os

import numpy as np
import psutil
import pytest

from helpers.errors import CourseDataError
from helpers.records import tfrecord

LONG = [1, 127, 128, 300, 2**14, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), -1, 0]
FEATURES = [
    {},
    {"": b"", "é": (2,), "z": [1], "Z": b"a", "\U0001f9e0": (1.5,), "\uffee": (0,)},
    {"label": LONG, "weight": (float("inf"), -0.0, 1e-45, 0.1)},
    *[{"image": np.ones((2, 1, 3), kind)} for kind in ("u1", "<i2", ">i2", "<f4", ">f8", "?")],
    {"image": np.arange(24, dtype=">i2").reshape(2, 3, 4).transpose(2, 0, 1), "a": np.array(7)},
    {"image": np.zeros((0, 3), np.float32), "long": bytes(20_000), "short": bytes(127)},
]


def joined(pieces) -> bytes:
    return b"".join(one if isinstance(one, bytes) else one.tobytes() for one in pieces)


@pytest.mark.parametrize("features", FEATURES)
def test_a_message_is_what_protocol_buffers_make_of_it(tf, features):
    pieces, starts = tfrecord.example(features)
    ours, expected = joined(pieces), tf.train.Example(features=tf.train.Features())
    for key, value in features.items():
        feature = expected.features.feature[key]
        if isinstance(value, bytes | np.ndarray):
            raw = value if isinstance(value, bytes) else value.tobytes()
            assert ours[starts[key] : starts[key] + len(raw)] == raw
            feature.bytes_list.value.append(raw)
        else:
            lists = feature.int64_list if isinstance(value[0], int) else feature.float_list
            lists.value.extend(value)
    # The order of keys depends on the language, so theirs is compared with theirs.
    again = tf.train.Example.FromString(ours).SerializeToString(deterministic=True)
    assert again == expected.SerializeToString(deterministic=True) and len(again) == len(ours)
    assert ours == joined(tfrecord.example(dict(reversed(features.items())))[0])


def test_a_large_array_is_not_copied_and_refused_where_tensorflow_would_lose_it():
    # Protocol buffers count in 32 bits with a sign: of 2 GiB, TensorFlow finds no feature.
    huge = np.zeros(2**31, np.uint8)  # the system gives no page that nobody touches
    pieces, _ = tfrecord.example({"image": huge[:-100]})
    assert any(isinstance(one, np.ndarray) and np.shares_memory(one, huge) for one in pieces)
    around = sum(map(len, pieces)) - (2**31 - 100)
    tfrecord.example({"image": huge[: 2**31 - 1 - around]})
    with pytest.raises(CourseDataError, match=f"{2**31} bytes") as refused:
        tfrecord.example({"image": huge[: 2**31 - around]})
    assert refused.value.code == "TOO_LARGE"


def test_tensorflow_finds_every_frame_whole_and_the_file_is_on_the_disk(tf, tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.fstat(number).st_size))
    messages = [[], [b""], [b"a" * 70_000, np.arange(9000, dtype=np.uint8)], [b"x", b"y"]]
    with tfrecord.Writer(tmp_path / "good") as writer:
        begins = [writer.write(message) for message in messages]
    content, expected = (tmp_path / "good").read_bytes(), [joined(one) for one in messages]
    found = tf.data.TFRecordDataset(str(tmp_path / "good"))
    assert [one.numpy() for one in found] == expected  # the reader compares both checksums
    pairs = zip(begins, expected, strict=True)
    assert [content[at : at + len(one)] for at, one in pairs] == expected
    assert flushed == [len(content)]
    with pytest.raises(TypeError), tfrecord.Writer(tmp_path / "bad") as writer:
        writer.write([b"abc", None])
    assert len(flushed) == 1
    assert str(tmp_path / "bad") not in [one.path for one in psutil.Process().open_files()]
