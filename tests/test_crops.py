"""Crops come from where their rule says, image and mask together, by stages and from memory alike.

Voxels hold their own number, so that a crop tells where it was taken. Numbers drawn are compared
with probabilities worked out by hand.
"""

import gc
import math
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from helpers import crops, memory
from helpers.crops.starts import runs_of
from helpers.errors import CourseDataError

tf = pytest.importorskip("tensorflow")

few = settings(max_examples=12, deadline=None, derandomize=True)
UNLIKELY = 1e-3  # seeds are fixed: a rule that holds passes for ever
SPLIT = np.zeros((4, 5), np.uint8)  # five voxels of foreground, one in a corner
SPLIT[0, 0] = 1
SPLIT[2, 1:5] = 3


def numbered(shape, channels=1, dtype=np.int32) -> np.ndarray:
    """An image whose voxels hold their number in C order, 1000 more in each further channel."""
    image = np.arange(math.prod(shape)).reshape(*shape, 1) + 1000 * np.arange(channels)
    return image.astype(dtype)


def element(mask, channels=1, **fields) -> dict:
    mask = np.asarray(mask, np.uint8)
    return {"image": numbered(mask.shape, channels), "mask": mask[..., None]} | fields


def dataset(one: dict, count: int = 1):
    return tf.data.Dataset.from_tensors(one).repeat(count)


def streamed(elements, order=None):
    """A dataset of elements of which only the axes are known beforehand, not their lengths."""

    def spec(value):
        value = np.asarray(value)
        shape = [None] * (value.ndim - 1) + [value.shape[-1]] if value.ndim > 2 else value.shape
        return tf.TensorSpec(shape, tf.string if value.dtype.kind in "US" else value.dtype)

    signature = {key: spec(value) for key, value in elements[0].items()}
    order = range(len(elements)) if order is None else order
    return tf.data.Dataset.from_generator(
        lambda: (elements[n] for n in order), output_signature=signature
    )


def drawn(stage, one: dict, count: int, field="image") -> np.ndarray:
    """All crops of so many passes of an element, on one axis."""
    results = dataset(one, count).apply(stage).as_numpy_iterator()
    return np.concatenate([result[field] for result in results])


def follows(found: np.ndarray, expected: dict) -> None:
    """Chi-square: the numbers were drawn with these probabilities, and no others were."""
    values, counts = np.unique(found, return_counts=True)
    assert set(values.tolist()) == {key for key, p in expected.items() if p > 0}
    probabilities = np.array([expected[key] for key in values.tolist()])
    if len(values) > 1:
        assert stats.chisquare(counts, probabilities * found.size).pvalue > UNLIKELY


def refused(cases: dict, kind=ValueError) -> None:
    """Each call raises what its words say; all that do not are listed."""
    wrong = []
    for words, call in cases.items():
        try:
            call()
            wrong.append(f"{words}: not refused")
        except kind as error:
            if not all(word in str(error) for word in words.split(" ... ")):
                wrong.append(f"{words}: said {str(error)[:300]}")
    assert not wrong, "\n".join(wrong)


# Where crops are taken


@pytest.mark.parametrize(("shape", "size"), [((5, 7), (3, 4)), ((4, 5, 6), (2, 5, 4))])
def test_every_start_is_as_likely_the_last_one_too_and_crops_are_independent(shape, size):
    stage = crops.random(size, per_image=20, seed=3)
    found = drawn(stage, element(np.zeros(shape)), 200).reshape(4000, -1)[:, 0]
    starts = np.ndindex(*np.subtract(shape, size) + 1)
    numbers = [np.ravel_multi_index(start, shape) for start in starts]
    follows(found, dict.fromkeys(numbers, 1 / len(numbers)))
    pairs = drawn(crops.random((1, 1), per_image=2, seed=11), element(np.zeros((1, 3))), 1800)
    follows(pairs.reshape(-1, 2) @ [3, 1], dict.fromkeys(range(9), 1 / 9))


SHARES = [  # size, positive, negative
    *[((1, 1), 1, 1), ((1, 1), 3, 1), ((1, 1), 0.2, 0.8), ((1, 1), 1, 0), ((1, 1), 0, 2)],
    *[((3, 3), 2, 1), ((2, 4), 2, 1), ((4, 5), 2, 1)],
]


@pytest.mark.parametrize(("size", "positive", "negative"), SHARES)
def test_a_side_has_its_share_its_voxels_are_alike_and_crops_move_inward(size, positive, negative):
    share, rule = positive / (positive + negative), {}
    for voxel in np.ndindex(SPLIT.shape):
        start = np.clip(np.subtract(voxel, np.array(size) // 2), 0, np.subtract(SPLIT.shape, size))
        number = int(np.ravel_multi_index(start, SPLIT.shape))
        rule[number] = rule.get(number, 0) + (share / 5 if SPLIT[voxel] else (1 - share) / 15)
    stage = crops.pos_neg(size, positive=positive, negative=negative, per_image=20, seed=5)
    follows(drawn(stage, element(SPLIT), 200).reshape(4000, -1)[:, 0], rule)


def test_classes_that_the_mask_has_share_the_crops_by_their_weights():
    mask = np.zeros((3, 4, 5))
    mask[1, 2, 3:] = 1  # two voxels
    mask[0, 0, :4] = 2
    stage = crops.class_balanced((1, 1, 1), classes=[0, 1, 2, 7], per_image=3, seed=8)
    sizes = {id_: np.count_nonzero(mask == id_) for id_ in (0, 1, 2)}
    rule = {k: 1 / 3 / sizes[int(id_)] for k, id_ in enumerate(mask.ravel())}
    follows(drawn(stage, element(mask), 600).ravel(), rule)
    weights = {0: 1, 4: 5, 3: 9, 1: 0, 2: 2}  # 3 is absent, 1 is not wanted
    stage = crops.class_balanced(
        (1, 1), classes=list(weights), weights=list(weights.values()), per_image=20, seed=9
    )
    found = drawn(stage, element([[0, 0, 1, 1, 2, 2, 2, 4]]), 150, "mask")
    follows(found.ravel(), {0: 1 / 8, 4: 5 / 8, 2: 2 / 8, 1: 0})


@pytest.mark.parametrize(("fill", "ratio"), [(0, (1, 0)), (1, (0, 1)), (1, (1, 1))])
def test_if_one_side_is_empty_the_other_is_taken(fill, ratio):
    stage = crops.pos_neg((1, 1), positive=ratio[0], negative=ratio[1], per_image=5, seed=2)
    follows(drawn(stage, element(np.full((1, 4), fill)), 40), dict.fromkeys(range(4), 1 / 4))


def test_one_rule_draws_for_many_elements_what_it_draws_for_each():
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 3, (n, 6, 1)) for n in (7, 9, 8)]
    shapes = np.array([mask.shape[:2] for mask in masks])
    numbers = rng.integers(-(2**63), 2**63, (3, 5, 2))
    runs = [runs_of(tf.zeros(mask.shape), tf.constant(mask)) for mask in masks]
    groups, weights = ((1, 3), (0, 1)), (2, 1)

    def starts(some):
        owners = np.repeat(np.arange(len(some)), [len(runs[i]) for i in some])
        given = tf.constant(shapes[some]), (3, 4), tf.constant(numbers[some])
        joined = tf.concat([runs[i] for i in some], 0)
        return crops.starts(*given, joined, tf.constant(owners), groups, weights).numpy()

    each = [starts([i])[0] for i in range(3)]
    np.testing.assert_array_equal(starts([2, 0, 1]), [each[2], each[0], each[1]])


# Runs


@few
@given(st.data())
def test_runs_name_every_voxel_once_with_its_class(data):
    shape = data.draw(st.tuples(*[st.integers(1, 7)] * data.draw(st.integers(2, 3))))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    threshold = data.draw(st.sampled_from([None, -1, 0, 4, 4.5, 300]))
    mask = (
        rng.integers(-4, 4, shape)
        .clip(0)
        .astype(data.draw(st.sampled_from(["u1", "?", "u2", "i8"])))
    )
    image = rng.integers(0, 10, (*shape, 2)).astype(data.draw(st.sampled_from(["u1", "i2", "f4"])))
    (found,) = dataset({"image": image, "mask": mask[..., None]}).apply(
        crops.locate(image_threshold=threshold)
    )
    shown = np.ones(shape, bool) if threshold is None else (image > threshold).any(-1)
    expected = np.where((mask > 0) | shown, mask.astype(int), -1).ravel()
    again = np.full(mask.size, -9)
    for id_, first, length in found["runs"].numpy():
        assert (again[first : first + length] == -9).all()
        again[first : first + length] = id_
    np.testing.assert_array_equal(again, expected)
    assert found["runs"].dtype == tf.int32 and (np.diff(found["runs"][:, 0]) >= 0).all()


def test_an_organ_in_a_large_case_takes_a_tenth_of_a_megabyte_and_voxel_lists_84():
    z, y, x = np.ogrid[-80:80, -128:128, -128:128]
    mask = ((z / 40) ** 2 + (y / 60) ** 2 + (x / 50) ** 2 < 1).astype(np.uint8)
    lists = np.flatnonzero(mask).nbytes + np.flatnonzero(mask == 0).nbytes
    runs = runs_of(None, tf.constant(mask)).numpy()
    assert lists == 83_886_080 and 100_000 < runs.nbytes < 200_000
    assert runs[runs[:, 0] == 1, 2].sum() == np.count_nonzero(mask)


def test_located_or_not_crops_are_the_same_and_the_runs_are_gone():
    one = element(np.arange(900).reshape(9, 10, 10) % 11 % 3)
    located = dataset(one, 4).apply(crops.locate()).cache()
    maskless = located.map(lambda x: {key: x[key] for key in ("image", "runs")})
    stage = crops.pos_neg((2, 2, 2), per_image=3, seed=4)
    found = [d.apply(stage).as_numpy_iterator() for d in (located, maskless, dataset(one, 4))]
    for ours, without, other in zip(*found, strict=True):
        assert ours.keys() == {"image", "mask"} and without.keys() == {"image"}
        np.testing.assert_array_equal(ours["image"], other["image"])
        np.testing.assert_array_equal(without["image"], other["image"])
    for stage in (crops.random((2, 2, 2), seed=1), crops.centre((2, 2, 2))):
        assert "runs" not in located.apply(stage).element_spec


def test_background_is_what_the_image_shows_where_a_threshold_says_so():
    located = dataset(element(SPLIT)).apply(crops.locate(image_threshold=9)).repeat(200)
    stage = crops.pos_neg((1, 1), negative=3, per_image=20, seed=6)
    found = np.concatenate([x["image"].ravel() for x in located.apply(stage).as_numpy_iterator()])
    ids = dict(enumerate(SPLIT.ravel()))
    shown = sum(n > 9 and id_ == 0 for n, id_ in ids.items())
    rule = {n: 1 / 4 / 5 if id_ else (n > 9) * 3 / 4 / shown for n, id_ in ids.items()}
    follows(found, rule)


# What a crop holds

STAGES = {
    "random": lambda size, **more: crops.random(size, seed=1, **more),
    "pos_neg": lambda size, **more: crops.pos_neg(size, seed=1, **more),
    "class_balanced": lambda size, **more: crops.class_balanced(
        size, classes=[1, 30], seed=1, **more
    ),
}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("shape", "size"), [((8, 9), (3, 4)), ((5, 6, 7), (2, 3, 4))])
def test_image_and_mask_are_the_same_part_of_both_and_other_fields_are_repeated(name, shape, size):
    rest = {"label": np.int32(4), "case": "c7", "spacing": np.ones(len(shape), np.float32)}
    one = element(numbered(shape)[..., 0] % 256, channels=3, **rest)
    for data in (dataset(one), streamed([one])):
        data = data.apply(STAGES[name](size, per_image=6))
        spec = {key: value.shape.as_list() for key, value in data.element_spec.items()}
        (result,) = data.as_numpy_iterator()
        assert {key: list(value.shape) for key, value in result.items()} == spec
        assert spec["image"] == [6, *size, 3] and spec["mask"] == [6, *size, 1]
        for image, mask in zip(result["image"], result["mask"], strict=True):
            start = np.unravel_index(image[(0,) * (len(size) + 1)], shape)
            part = tuple(slice(s, s + k) for s, k in zip(start, size, strict=True))
            np.testing.assert_array_equal(image, one["image"][part])
            np.testing.assert_array_equal(mask, one["mask"][part])
        assert image.dtype == np.int32 and result["case"].tolist() == [b"c7"] * 6
        assert result["label"].tolist() == [4] * 6 and result["spacing"].shape == (6, len(shape))
        assert list(data.element_spec) == list(one)  # fields keep their order
    (single,) = dataset(one).apply(STAGES[name](size)).as_numpy_iterator()
    assert single["image"].shape == (*size, 3) and single["label"].shape == ()


def test_a_seed_fixes_the_stream_whatever_the_parallelism_and_epochs_differ():
    def epochs(stage, count=2):
        data = dataset(element(numbered((9, 9))[..., 0] % 4), 8).apply(stage)
        return [[x["image"].tolist() for x in data.as_numpy_iterator()] for _ in range(count)]

    for name, make in STAGES.items():
        one, two = epochs(make((2, 2), per_image=3, num_parallel_calls=1))
        assert epochs(make((2, 2), per_image=3, num_parallel_calls=8)) == [one, two], name
        assert one != two and len({str(x) for x in one}) > 4, name
    inside = epochs(crops.pos_neg((2, 2), per_image=3, seed=7), 1)
    assert epochs(crops.random((2, 2), per_image=3, seed=7), 1) != inside
    assert epochs(crops.pos_neg((2, 2), per_image=3, seed=8), 1) != inside


# The middle


@few
@given(st.data())
def test_the_middle_is_what_numpy_cuts_and_pads(data):
    axes = data.draw(st.integers(2, 3))
    shape, size = (data.draw(st.tuples(*[st.integers(1, 8)] * axes)) for _ in range(2))
    fill = data.draw(st.sampled_from([0, -7, "min"]))
    one = element(numbered(shape)[..., 0], channels=2) | {"image": numbered(shape, 2) - 20}
    expected = {"image": one["image"], "mask": one["mask"]}
    outside = {"image": one["image"].min() if fill == "min" else fill, "mask": 255}
    for axis, want in enumerate(size):  # an odd voxel is cut off, or added, at the end
        surplus = shape[axis] - want
        front, pad = max(surplus, 0) // 2, [(0, 0)] * (axes + 1)
        pad[axis] = (max(-surplus, 0) // 2, -(min(surplus, 0) // 2))
        for key, value in expected.items():
            value = value.take(np.arange(front, front + min(want, shape[axis])), axis)
            expected[key] = np.pad(value, pad, constant_values=outside[key])
    for elements in (dataset(one), streamed([one])):
        result = elements.apply(crops.centre(size, fill=fill, mask_fill=255))
        assert result.element_spec["image"].shape.as_list() == [*size, 2]
        (found,) = result.as_numpy_iterator()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, strict=True)


def test_nan_is_copied_and_not_spread():
    image = np.zeros((3, 3, 1), np.float32)
    image[1, 1] = np.nan
    for stage in (crops.random((3, 3), seed=1), crops.centre((3, 3))):
        (crop,) = dataset({"image": image}).apply(stage).as_numpy_iterator()
        np.testing.assert_array_equal(crop["image"], image)


# Batches of crops


@pytest.mark.parametrize(("whole", "expected"), [(True, 6), (False, None)])
def test_two_by_three_is_six_on_every_field(whole, expected):
    elements = [element(numbered((5, 6))[..., 0], label=np.int32(n), case="abc"[n]) for n in (0, 1)]
    data = streamed(elements).apply(crops.random((2, 3), per_image=3, seed=1))
    data = data.batch(2, drop_remainder=whole)
    merged = data.apply(crops.merge_batch_dims())
    assert merged.element_spec["image"].shape.as_list() == [expected, 2, 3, 1]
    (batch,) = merged.as_numpy_iterator()
    assert batch["image"].shape == (6, 2, 3, 1)
    assert batch["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch["case"].tolist() == [b"a"] * 3 + [b"b"] * 3
    (plain,) = streamed(elements).apply(crops.random((2, 3), per_image=3, seed=1)).batch(2)
    np.testing.assert_array_equal(batch["image"], tf.reshape(plain["image"], (6, 2, 3, 1)))


# From memory


def case(number, shape, channels=1, dtype=np.int16, **more) -> dict:
    """An image of numbers that say where they are, with a mask of ids 0 to 3 in some blocks."""
    rng = np.random.default_rng(number)
    ids = ndimage.zoom(rng.integers(0, 4, [-(-n // 2) for n in shape]), 2, order=0)
    mask = ids[tuple(slice(n) for n in shape)]
    image = (numbered(shape, channels) + 1000 * number).astype(dtype)
    fields = {"label": np.int32(number), "case": f"c-{number}"}
    return element(mask, **fields) | {"image": image} | more


def by_stages(elements, stage, *, order=None, batch_size=None, dtype=None):
    """What `from_memory` promises, written with the stages."""
    data = streamed(elements, order).apply(stage)
    if batch_size is not None:
        data = data.batch(batch_size)
        data = data if stage.per_image is None else data.apply(crops.merge_batch_dims())
    if dtype is None:
        return data
    return data.map(lambda x: x | {"image": tf.cast(x["image"], dtype)})


@pytest.mark.parametrize("name", STAGES)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.data())
def test_the_stream_from_memory_is_that_of_the_stages_one_by_one(name, data):
    axes = data.draw(st.integers(2, 3))
    smallest = data.draw(st.tuples(*[st.integers(2, 7)] * axes))
    size = tuple(data.draw(st.integers(1, n)) for n in smallest)
    channels = data.draw(st.integers(1, 3))
    dtype = data.draw(st.sampled_from([np.uint8, np.int16, np.int32, np.float32, np.bool_]))
    more = data.draw(st.lists(st.tuples(*[st.integers(0, 3)] * axes), min_size=1, max_size=4))
    shapes = [tuple(np.add(smallest, some)) for some in more]
    elements = [case(n, shape, channels, dtype) for n, shape in enumerate(shapes)]
    options = {"per_image": data.draw(st.sampled_from([None, 1, 3])), "seed": 4}
    if name == "pos_neg":
        options["positive"] = data.draw(st.sampled_from([0, 1, 3]))
    elif name == "class_balanced":
        options |= {"classes": [2, 0, 1, 3, 9], "weights": [2, 1, 1, 0.5, 1]}
    stage = getattr(crops, name)(size, **options)
    order = data.draw(st.lists(st.integers(0, len(more) - 1), min_size=1, max_size=9))
    result = {
        "batch_size": data.draw(st.sampled_from([None, 1, 2, 5])),
        "dtype": data.draw(st.sampled_from([None, "float16", "float32", "float64"])),
    }
    indices = tf.data.Dataset.from_tensor_slices(np.array(order, np.int64))
    ours = crops.from_memory(elements, stage, indices=indices, **result)
    theirs = by_stages(elements, stage, order=order, **result)
    for one, other in [*zip(ours, theirs, strict=True)] + [*zip(ours, theirs, strict=True)]:
        assert one.keys() == other.keys()
        for key, value in other.items():
            np.testing.assert_array_equal(one[key].numpy(), value.numpy(), strict=True)


def test_runs_that_were_located_are_drawn_from_and_whole_images_need_no_crop():
    elements = [case(n, (9, 8)) for n in range(4)]
    stage = crops.pos_neg((2, 2), per_image=3, seed=5)
    kept = memory.gather(streamed(elements).apply(crops.locate()))
    without = [{key: one[key] for key in one if key != "mask"} for one in kept]
    theirs = [x["image"].numpy().tolist() for x in by_stages(elements, stage, batch_size=2)]
    for some in (kept, without):
        ours = crops.from_memory(some, stage, batch_size=2, num_parallel_calls=4)
        assert [x["image"].numpy().tolist() for x in ours] == theirs
    (batch,) = crops.from_memory(kept, batch_size=4).as_numpy_iterator()
    np.testing.assert_array_equal(batch["image"], np.stack([one["image"] for one in kept]))
    kept.append(case(7, (3, 20)) | {"runs": kept[0]["runs"]})
    alone = crops.from_memory(kept, dtype="float32")
    assert alone.element_spec["image"] == tf.TensorSpec([None, None, 1], tf.float32)
    for one, other in zip(alone, kept, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


def test_shapes_are_known_as_far_as_they_can_be():
    elements = [case(n, (6, 6 + n)) | {"label": n, "weight": 0.5, "case": "é"} for n in range(3)]
    stage = crops.random((2, 3), per_image=3, seed=1)
    for endless, batch_size, lead in ((1, 2, 6), (0, 2, None), (1, None, 3), (0, None, 3)):
        order = tf.data.Dataset.range(3).repeat(None if endless else 1)
        ours = crops.from_memory(elements, stage, indices=order, batch_size=batch_size)
        assert ours.element_spec["image"].shape.as_list() == [lead, 2, 3, 1]
        assert ours.element_spec["label"] == tf.TensorSpec([lead], tf.int32)
        assert ours.element_spec["weight"] == tf.TensorSpec([lead], tf.float32)
        assert next(iter(ours))["case"].numpy()[0] == "é".encode()


def test_an_element_that_is_exchanged_stays_whole_and_its_runs_are_its_own():
    class Exchanged(list):  # another element each time that it is asked
        def __getitem__(self, index):
            self.append(n := len(self))
            mask = np.zeros((6 + n % 3, 6), np.uint8)
            mask[n % 6, n % 5] = 1
            return element(mask, label=np.int32(n)) | {"image": np.where(mask, n, -1)[..., None]}

        def __len__(self):
            return super().__len__() + 1

    stage = crops.pos_neg((1, 1), negative=0, per_image=2, seed=5)
    order = tf.data.Dataset.range(1).repeat(40)
    data = crops.from_memory(Exchanged(), stage, indices=order, batch_size=4)
    for batch in data.as_numpy_iterator():
        np.testing.assert_array_equal(batch["image"].ravel(), batch["label"])
    masks = [np.eye(6, dtype=np.uint8), np.eye(6, dtype=np.uint8)[::-1]]
    cache = [element(masks[1])]
    found = crops.from_memory(cache, stage)
    for n in range(12):  # the second time, another mask often lies where the first one lay
        cache[0] = element(masks[n % 2].copy())
        assert all((x["mask"] == 1).all() for x in found.as_numpy_iterator())


def test_elements_are_let_go_with_the_dataset_and_not_before():
    class Voxels(np.ndarray):
        pass

    elements = [case(n, (6, 6)) for n in range(4)]
    elements[0]["image"] = elements[0]["image"].view(Voxels)
    watched = weakref.ref(elements[0]["image"])
    data = crops.from_memory(elements, crops.pos_neg((2, 2), seed=1), batch_size=2)
    chains = [data.prefetch(1), data.unbatch(), tf.data.Dataset.zip(data, data)]
    chains += [tf.data.Dataset.range(2).flat_map(lambda i, inner=chains[0]: inner)]
    del elements, data
    gc.collect()
    assert [len(list(chain)) for chain in chains] == [2, 4, 2, 4]
    assert watched() is not None
    del chains
    gc.collect()
    assert watched() is None


def test_a_dataset_may_be_made_within_another():
    elements = [case(n, (6, 6)) for n in range(4)]

    def made(number):
        order = tf.data.Dataset.range(2 * number, 2 * number + 2)
        stage = crops.pos_neg((2, 2), seed=1)
        return crops.from_memory(elements, stage, indices=order, batch_size=2)

    data = tf.data.Dataset.range(2).interleave(made, cycle_length=2)
    assert [x["label"].tolist() for x in data.as_numpy_iterator()] == [[0, 1], [2, 3]]


ONE_CORE = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import numpy as np, tensorflow as tf
from helpers import crops
elements = [{"image": np.zeros((64, 64, 1)), "mask": np.eye(64, dtype="u1")[..., None]}] * 9
data = crops.from_memory(tuple(elements), crops.pos_neg((8, 8), seed=1), batch_size=3)
data = data.repeat(9).map(lambda x: x["image"], num_parallel_calls=8)
print(len(list(tf.data.Dataset.zip(data, data, data))))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux gives away one core")
def test_one_core_is_enough():
    found = subprocess.run(
        [sys.executable, "-c", ONE_CORE], capture_output=True, text=True, timeout=300
    )
    assert found.stdout == "27\n", found.stderr[-2000:]


# What is refused


def test_arguments_that_mean_nothing_are_refused_at_once():
    one, one_case = element(np.zeros((4, 6))), case(0, (6, 6))
    stage = crops.random((2, 2), seed=1)
    batches = dataset(one, 2).batch(2)
    uneven = dataset({"a": np.zeros((3, 2)), "b": np.zeros((2, 3))})

    def fed(elements=(one_case,), crop=stage, **more):
        return lambda: crops.from_memory(list(elements), crop, **more)

    def filled(**fills):
        return lambda: dataset(case(0, (6, 6), 1, np.uint8)).apply(crops.centre((8, 8), **fills))

    refused(
        {
            "(3,) voxels": lambda: dataset(one).apply(crops.random((3,), seed=1)),
            "(0, 3) voxels": lambda: dataset(one).apply(crops.centre((0, 3))),
            "(2, -1) voxels": lambda: dataset(one).apply(crops.random((2, -1), seed=1)),
            "or more, not 0": lambda: crops.random((2, 2), seed=1, per_image=0),
            "weights ... (0, 0)": lambda: crops.pos_neg((2, 2), seed=1, positive=0, negative=0),
            "weights ... (-1": lambda: crops.pos_neg((2, 2), seed=1, positive=-1),
            "weights ... nan": lambda: crops.pos_neg((2, 2), seed=1, negative=math.nan),
            "each with a weight: not [1, 30] with [1]": lambda: STAGES["class_balanced"](
                (2, 2), weights=[1]
            ),
            "classes ... [1, 1]": lambda: crops.class_balanced((2, 2), classes=[1, 1], seed=1),
            "image ... -1000": filled(fill=-1000),
            "image ... 0.5": filled(fill=0.5),
            "mask ... 256": filled(mask_fill=256),
            "no room for nan": filled(fill=math.nan),
            "(2, 2, 2) voxels": lambda: dataset(one).apply(crops.random((2, 2, 2), seed=1)),
            "(2, 2) voxels ... [None, 4, 6]": lambda: batches.apply(stage),
            "dicts": lambda: dataset((1, 2)).apply(stage),
            "same two batch axes": lambda: uneven.apply(crops.merge_batch_dims()),
            "not <function": fed(crop=crops.centre((2, 2))),
            "int16, which uint8 cannot": fed(dtype="uint8"),
            "int16, which bool cannot": fed(dtype="bool"),
            "single whole numbers": fed(indices=tf.data.Dataset.range(3).batch(2)),
            "dicts with an": fed([np.zeros((6, 6, 1))]),
            "element 1": fed([one_case, case(1, (6, 6), dtype=np.int32)]),
            "element 1 has": fed([one_case, {"image": one_case["image"]}]),
        }
    )


def test_data_that_cannot_be_cropped_is_named_before_the_first_batch():
    one, without = element(np.zeros((4, 6))), {"image": numbered((4, 6))}
    misfit = without | {"mask": np.zeros((4, 5, 1), np.uint8)}
    (located,) = memory.gather(streamed([case(0, (6, 6))]).apply(crops.locate()))
    located |= {"image": located["image"][1:], "mask": located["mask"][1:]}
    small = [case(0, (6, 6)), case(1, (2, 6))]

    def fed(elements, crop):
        return lambda: crops.from_memory(elements, crop)

    stages = [make((2, 2)) for make in STAGES.values()] + [crops.locate()]
    for stage in [*stages, crops.centre((2, 2))]:
        refused({"MASK_MISMATCH": lambda s=stage: dataset(misfit).apply(s)}, CourseDataError)
    for stage in stages[1:]:
        refused({"NO_PAIR": lambda s=stage: dataset(without).apply(s)}, CourseDataError)
    for make in STAGES.values():
        stage = make((5, 6))
        cases = {
            "CROP_TOO_LARGE ... (5, 6) voxels ... (4, 6)": lambda s=stage: dataset(one).apply(s),
            "CROP_TOO_LARGE ... (2, 6) ... element 1, case c-1": fed(small, stage),
        }
        refused(cases, CourseDataError)
    cases = {
        "EMPTY_LIST": fed([], stages[0]),
        "SHAPE_MISMATCH ... 36 voxels ... (5, 6) ... case c-0": fed([located], stages[1]),
        "SHAPE_MISMATCH ... element 1, case c-1": lambda: crops.from_memory(small, batch_size=2),
    }
    refused(cases, CourseDataError)


def test_or_it_stops_the_run_with_its_case():
    one = element(np.zeros((4, 6)), case="c-5")
    misfit = one | {"mask": np.ones((4, 5, 1), np.uint8)}
    changed = streamed([one]).apply(crops.locate())
    changed = changed.map(lambda x: x | {"image": x["image"][:, 1:], "mask": x["mask"][:, 1:]})
    dark = streamed([one]).apply(crops.locate(image_threshold=99))
    absent = crops.class_balanced((2, 2), classes=[7, 0], weights=[1, 0], seed=1)
    large = case(5, (6, 6)) | {"image": np.full((6, 6, 1), 200_000, np.float32)}
    grown = [case(5, (6, 6))]
    growing = crops.from_memory(grown, crops.random((4, 4), seed=1))
    grown[0] = case(5, (2, 6))
    three = tf.data.Dataset.from_tensors(np.int64(3))
    inside = crops.random((2, 2), seed=1)

    def fed(*elements, crop, **more):
        return crops.from_memory(list(elements), crop, batch_size=2, **more)

    runs = {
        "CROP_TOO_LARGE ... [4 7] ... [4 6] ... c-5": streamed([one]).apply(
            crops.random((4, 7), seed=1)
        ),
        "CROP_TOO_LARGE ... case c-5": growing,
        "MASK_MISMATCH ... [4 5 1] ... [4 6 1] ... c-5": streamed([misfit]).apply(crops.locate()),
        "MASK_MISMATCH ... c-5": streamed([misfit]).apply(crops.centre((2, 2))),
        "SHAPE_MISMATCH ... 24 ... [4 5] ... c-5": changed.apply(crops.pos_neg((2, 2), seed=1)),
        "NO_PLACE ... c-5": dark.apply(crops.pos_neg((2, 2), seed=2)),
        "NO_PLACE ... (7, 8) ... case c-5": fed(one, crop=absent),
        "NOT_FINITE ... float16, case c-5": fed(
            case(4, (6, 6), dtype=np.float32),
            large,
            crop=inside,
            dtype="float16",
        ),
        "index 3 ... of 1 elements": fed(one, crop=inside, indices=three),
    }
    refused({words: lambda d=data: list(d) for words, data in runs.items()}, tf.errors.OpError)
    assert len(list(streamed([one]).apply(crops.random((4, 6), seed=1)))) == 1
