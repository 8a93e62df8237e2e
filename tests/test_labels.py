"""A format of labels: how many outputs it takes, what fits it, and how it is split into heads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import labels
from helpers.errors import CourseDataError

CLARA = [1, 1, 1, 1, 1, 6, 6, 6, 6]
some = settings(max_examples=30, deadline=None, derandomize=True)
graphs = settings(max_examples=12, deadline=None, derandomize=True)


def split(tf, label_format, rows, **fields) -> list[dict]:
    """The label dict of each element."""
    elements = {"label": np.asarray(rows, np.int32), **fields}
    dataset = tf.data.Dataset.from_tensor_slices(elements).apply(labels.heads(label_format))
    return [element["label"] for element in dataset.as_numpy_iterator()]


@st.composite
def formats(draw):
    """A format, and labels that fit it."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=7))
    row = st.tuples(*(st.integers(-1, 1 if size == 1 else size - 1) for size in sizes))
    return sizes, draw(st.lists(row, min_size=1, max_size=5))


def test_five_binary_and_four_of_six_classes_take_29_outputs():
    assert labels.outputs(CLARA) == 5 + 24
    assert labels.outputs([1]) == 1 and labels.outputs(np.array([2, 3])) == 5


@pytest.mark.parametrize("wrong", [[], [0], [1, -2], [1.0], ["6"], [True, 2]])
def test_a_format_has_one_whole_number_for_each_label(wrong):
    for call in (labels.outputs, labels.heads, lambda found: labels.check(found, 0, "")):
        with pytest.raises(ValueError, match="one whole number for each label"):
            call(wrong)


@some
@given(formats())
def test_labels_of_the_format_are_let_through_and_all_others_are_not(made):
    sizes, rows = made
    for row in rows:
        for same in (row, list(row), np.array(row)):
            labels.check(sizes, same, "item 0")
        for place, size in enumerate(sizes):
            for beyond in (max(size, 2), -2, 0.5, None, "1"):
                wrong = [*row[:place], beyond, *row[place + 1 :]]
                expected = f"label {place}, counted from 0, is {beyond!r}; expected .* 0 to"
                with pytest.raises(CourseDataError, match=expected) as refused:
                    labels.check(sizes, wrong, "item 0")
                assert refused.value.code == "UNKNOWN_LABEL"
        for wrong in (row[:-1], (*row, 0)):
            with pytest.raises(CourseDataError, match=f"expected {len(sizes)}, as many as"):
                labels.check(sizes, wrong, "item 0")


def test_the_message_names_the_item_and_never_the_folder_of_its_file():
    labels.check([3], 2, "item 4")
    with pytest.raises(CourseDataError, match=r"item 4: label 0.* is 3; expected .* from 0 to 2"):
        labels.check([3], 3, "item 4")
    with pytest.raises(CourseDataError) as refused:
        labels.check([1, 1], 1, Path("/data/of a patient/scan.nii"))
    assert "scan.nii: found 1 label(s), expected 2" in str(refused.value)
    assert refused.value.files == (Path("/data/of a patient/scan.nii"),)
    assert "of a patient" not in str(refused.value)


@graphs
@given(formats())
def test_heads_hold_the_labels_of_their_positions(tf, made):
    sizes, rows = made
    stage = labels.heads(sizes)
    weights = np.arange(len(rows), dtype=np.float32)
    dataset = tf.data.Dataset.from_tensor_slices({"label": np.int32(rows), "weight": weights})
    (batch,) = dataset.batch(9).apply(stage).as_numpy_iterator()
    single = list(dataset.apply(stage).as_numpy_iterator())
    for number, (row, element) in enumerate(zip(rows, single, strict=True)):
        assert element["weight"] == number
        found, expected = element["label"], {}
        for place, (value, size) in enumerate(zip(row, sizes, strict=True)):
            if size == 1:
                expected.setdefault("binary", []).append(value)
            else:
                expected[f"class_{place}"] = value
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == (np.float32 if key == "binary" else np.int32)
            np.testing.assert_array_equal(batch["label"][key][number], value)


def test_the_heads_of_clara_s_example(tf):
    row = [1, 0, -1, 1, 0, 5, 0, -1, 3]
    (found,) = split(tf, CLARA, [row])
    np.testing.assert_array_equal(found.pop("binary"), [1.0, 0.0, -1.0, 1.0, 0.0])
    assert found == {"class_5": 5, "class_6": 0, "class_7": -1, "class_8": 3}


def test_a_single_label_may_be_a_number(tf):
    assert split(tf, [3], [2, 0, -1]) == [{"class_0": 2}, {"class_0": 0}, {"class_0": -1}]
    found = split(tf, [1], [1, 0])
    assert [one["binary"].tolist() for one in found] == [[1.0], [0.0]]


@pytest.mark.parametrize("row", [[2, 0], [0, 3], [-2, 0], [0, -2]])
def test_an_id_out_of_range_stops_the_pipeline_with_its_case(tf, row):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"UNKNOWN_LABEL.*case.*abc"):
        split(tf, [1, 3], [row], case=["abc"])


def test_elements_without_such_labels_are_refused_before_they_are_read(tf):
    for one in ({"label": [[1, 1, 1]]}, {"label": [1]}):
        with pytest.raises(CourseDataError, match=r"label.s., expected 2") as refused:
            tf.data.Dataset.from_tensor_slices(one).apply(labels.heads([2, 2]))
        assert refused.value.code == "UNKNOWN_LABEL"
    for one in ({"image": [1]}, {"label": [0.5]}, [1]):
        with pytest.raises(ValueError, match="a `label` of whole numbers"):
            tf.data.Dataset.from_tensor_slices(one).apply(labels.heads([1]))


def test_keras_learns_from_the_heads(tf):
    """Each head gets its own loss; what it learns is what the images say."""
    import keras

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    truth = np.stack([rng.integers(0, 2, 120), rng.integers(0, 3, 120)], axis=1).astype(np.int32)
    images = np.concatenate([truth[:, :1], np.eye(3)[truth[:, 1]]], axis=1).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices({"image": images, "label": truth})
    pairs = dataset.apply(labels.heads([1, 3])).map(lambda x: (x["image"], x["label"])).batch(20)
    inputs = keras.Input([4])
    heads = {name: keras.layers.Dense(n, name=name) for name, n in (("binary", 1), ("class_1", 3))}
    model = keras.Model(inputs, {name: head(inputs) for name, head in heads.items()})
    losses = {
        "binary": keras.losses.BinaryCrossentropy(from_logits=True),
        "class_1": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    model.compile(keras.optimizers.Adam(0.1), losses)
    model.fit(pairs, epochs=15, shuffle=False, verbose=0)
    found = model.predict(images, verbose=0)
    assert ((found["binary"][:, 0] > 0) == truth[:, 0]).all()
    assert (found["class_1"].argmax(axis=1) == truth[:, 1]).all()


def test_a_format_needs_no_tensorflow():
    code = (
        "import sys; from helpers import labels; labels.outputs([1, 6]); "
        "labels.check([1, 6], [0, 5], 'item'); labels.heads([1]); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
