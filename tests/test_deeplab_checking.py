"""What would spoil the training of DeepLab is named before it begins."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from helpers import deeplab, pipeline  # noqa: E402
from helpers.errors import CourseDataError  # noqa: E402

SIZE = (20, 24)


def dataset(changed: dict | None = None, count: int = 3, batch: int | None = None):
    """Cases a, b, c ..., of which b has other fields."""

    def elements():
        for number in range(count):
            random = np.random.default_rng(number)
            image = random.uniform(0, 255, (*SIZE, 3)).astype(np.float32)
            image[0, 0, 0] = number
            mask = np.zeros((*SIZE, 1), np.uint8)
            mask[5:9, 5:9] = 1
            mask[-1] = 255
            element = {"image": image, "mask": mask, "case": chr(ord("a") + number)}
            yield element | ((changed or {}) if number == 1 else {})

    signature = {
        "image": tf.TensorSpec([None, None, None]),
        "mask": tf.TensorSpec([None, None, None], tf.uint8),
        "case": tf.TensorSpec([], tf.string),
    }
    made = tf.data.Dataset.from_generator(elements, output_signature=signature)
    return made.batch(batch) if batch else made


def fields(height: int, width: int, channels: int = 3, ids=(0, 1)) -> dict:
    mask = np.resize(np.array(ids, np.uint8), (height, width, 1))
    return {"image": np.zeros((height, width, channels), np.float32), "mask": mask}


@pytest.mark.parametrize("batch", [None, 2])
def test_the_report_counts_cases_pixels_and_values(batch):
    found = deeplab.check(dataset(fields(18, 30) if batch is None else None, batch=batch), 2)
    with_b = batch is None
    ordinary = 2 if with_b else 3
    assert found.images == 3
    assert found.pixels == (
        ordinary * (20 * 24 - 16 - 24) + with_b * 270,
        ordinary * 16 + with_b * 270,
    )
    assert found.ignored == ordinary * 24
    assert found.smallest == ((18, 24) if with_b else SIZE)
    assert found.lowest == 0 and 254 < found.highest < 255
    assert str(found).startswith("3 images of ")


def test_pairs_for_keras_are_looked_through_as_well():
    pairs = dataset().apply(pipeline.pairs("mask"))
    weighted = pairs.map(lambda image, mask: (image, mask, 1.0))
    expected = deeplab.check(dataset(), 2)
    assert deeplab.check(pairs, 2) == deeplab.check(weighted.batch(2), 2) == expected
    wrong = dataset(fields(*SIZE, ids=(0, 9))).apply(pipeline.pairs("mask"))
    with pytest.raises(CourseDataError, match="case 1, counted from 0: the mask has the ids 9"):
        deeplab.check(wrong.batch(2), 2)
    later = dataset(count=2).apply(pipeline.pairs("mask")).concatenate(wrong)
    with pytest.raises(CourseDataError, match="case 3, counted from 0"):
        deeplab.check(later.batch(2), 2)


BAD = {
    "ids": (fields(*SIZE, ids=(0, 2, 7)), "UNKNOWN_LABEL", "ids 2, 7; expected 0 to 1, or 255"),
    "other size": (
        fields(*SIZE) | {"mask": fields(24, 20)["mask"]},
        "MASK_MISMATCH",
        r"\(24, 20, 1\), the image \(20, 24, 3\)",
    ),
    "two channels of mask": (
        fields(*SIZE) | {"mask": np.zeros((*SIZE, 2), np.uint8)},
        "MASK_MISMATCH",
        r"\(20, 24, 2\)",
    ),
    "small": (fields(16, 24), "SHAPE_MISMATCH", "16 x 24 pixels; with output stride 16"),
    "width as channels": (
        fields(*SIZE, 30),
        "SHAPE_MISMATCH",
        r"have 30 channels, the model takes 3; if this is the width",
    ),
    "many ids": (
        fields(*SIZE, ids=range(9)),
        "UNKNOWN_LABEL",
        "ids 2, 3, 4, 5, 6 and 2 more; .*interpolation",
    ),
    "grey": (fields(*SIZE, 1), "SHAPE_MISMATCH", r"have 1 channels, the model takes 3"),
    "alpha": (fields(*SIZE, 4), "SHAPE_MISMATCH", r"have 4 channels, the model takes 3"),
    "NaN": (
        fields(*SIZE) | {"image": np.full((*SIZE, 3), np.nan, np.float32)},
        "NOT_FINITE",
        "NaN or infinite",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_data_is_named_with_its_case(kind):
    changed, code, says = BAD[kind]
    with pytest.raises(CourseDataError, match=says) as caught:
        deeplab.check(dataset(changed), 2)
    assert caught.value.code == code
    assert "case b:" in caught.value.message


def test_what_is_bad_for_one_model_is_good_for_another():
    assert deeplab.check(dataset(fields(16, 24)), 2, output_stride=8).smallest == (16, 24)
    assert deeplab.check(dataset(fields(*SIZE, ids=(0, 2))), 3).pixels[2] == 240
    grey = tf.data.Dataset.from_tensors(fields(*SIZE, 1))
    assert deeplab.check(grey, 2, channels=1).images == 1


def test_a_mask_of_0_and_255_teaches_nothing_and_is_recognised():
    lesions = dataset().map(lambda e: e | {"mask": tf.cast(e["mask"] > 0, tf.uint8) * 255})
    with pytest.raises(CourseDataError, match="taken for ignored: map it to 1") as caught:
        deeplab.check(lesions, 2)
    assert caught.value.code == "EMPTY_CLASS"
    for ids, says in (((0,), "class 0 alone"), ((255,), "no class occurs")):
        with pytest.raises(CourseDataError, match=says):
            deeplab.check(tf.data.Dataset.from_tensors(fields(*SIZE, ids=ids)), 2)


def test_a_mask_of_one_class_and_ignored_pixels_is_not_taken_for_a_mask_of_0():
    signs = fields(*SIZE) | {"mask": fields(*SIZE)["mask"].astype(np.int8) * 2 - 1}
    with pytest.raises(CourseDataError, match="class 1 alone occurs") as caught:
        deeplab.check(tf.data.Dataset.from_tensors(signs), 2, ignore=-1)
    assert "masks of 0" not in caught.value.message
    # No interpolation makes an id below all others.
    with pytest.raises(CourseDataError, match=r"ids -1; expected 0 to 1, or 255 to be ignored;"):
        deeplab.check(tf.data.Dataset.from_tensors(signs), 2)


def test_without_an_ignored_id_none_is_offered():
    bad = tf.data.Dataset.from_tensors(fields(*SIZE, ids=(0, 1, 255)))
    with pytest.raises(CourseDataError, match=r"ids 255; expected 0 to 1;"):
        deeplab.check(bad, 2, ignore=None)


def test_a_name_in_another_encoding_is_still_a_name():
    small = fields(9, 24) | {"case": b"J\xe9r"}
    with pytest.raises(CourseDataError, match="case J\ufffdr: 9 x 24 pixels"):
        deeplab.check(tf.data.Dataset.from_tensors(small), 2)


def test_shapes_that_are_known_are_refused_without_reading():
    def unread():
        raise AssertionError("read")
        yield

    def of(image, mask, dtype=tf.uint8):
        signature = {"image": tf.TensorSpec(image), "mask": tf.TensorSpec(mask, dtype)}
        return tf.data.Dataset.from_generator(unread, output_signature=signature)

    for made, code in (
        (of([20, 24, 1], [20, 24, 1]), "SHAPE_MISMATCH"),
        (of([9, 20, 24, 3, 1], [9, 20, 24, 3, 1]), "SHAPE_MISMATCH"),
        (of([20, 24, 3], [24, 20, 1]), "MASK_MISMATCH"),
        (of([20, 24, 3], [20, 24]), "MASK_MISMATCH"),
        (of([20, 24, 3], [20, 24, 1], tf.float32), "MASK_MISMATCH"),
    ):
        with pytest.raises(CourseDataError) as caught:
            deeplab.check(made, 2)
        assert caught.value.code == code


def test_elements_without_a_mask_or_an_image_are_refused():
    with pytest.raises(CourseDataError, match="no mask"):
        deeplab.check(dataset().map(lambda e: {"image": e["image"]}), 2)
    with pytest.raises(ValueError, match="dicts with an `image`"):
        deeplab.check(tf.data.Dataset.range(3), 2)
    nested = dataset().map(lambda e: ({"image": e["image"]}, e["mask"]))
    with pytest.raises(CourseDataError, match="the image is no dense tensor, but a dict"):
        deeplab.check(nested, 2)
    words = tf.data.Dataset.from_tensors(fields(*SIZE) | {"image": np.full((*SIZE, 3), "a")})
    with pytest.raises(CourseDataError, match="of the type string; expected numbers"):
        deeplab.check(words, 2)
    with pytest.raises(CourseDataError, match="no axis of channels: add it"):
        deeplab.check(tf.data.Dataset.from_tensors((np.zeros((4, *SIZE)), np.zeros((4, *SIZE)))), 2)
    with pytest.raises(CourseDataError, match="no case"):
        deeplab.check(dataset(count=0), 2)


def test_a_dataset_without_end_needs_to_be_told_where_to_stop():
    endless = tf.data.Dataset.from_tensors(fields(*SIZE)).repeat()
    with pytest.raises(ValueError, match="take=100"):
        deeplab.check(endless, 2)
    assert deeplab.check(endless, 2, take=4).images == 4
    for wrong in ({"take": 0}, {"output_stride": 4}, {"classes": 1}, {"ignore": 1}):
        with pytest.raises(ValueError, match=r"take|output_stride|classes|ignored"):
            deeplab.check(endless, **{"classes": 2, "take": 1} | wrong)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_single_value_that_is_not_finite_is_found(value):
    changed = fields(*SIZE)
    changed["image"][3, 4, 1] = value
    with pytest.raises(CourseDataError, match="case b: the image has values that are NaN or inf"):
        deeplab.check(dataset(changed), 2)
