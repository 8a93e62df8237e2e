"""Crops come from where their law says, image and mask together, and whole volumes come back.

Voxels hold their own number, so that a crop tells where it was taken.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from helpers import crops
from helpers.crops import laws, places
from helpers.errors import CourseDataError

tf = pytest.importorskip("tensorflow")

few = settings(max_examples=60, deadline=None, derandomize=True)
UNLIKELY = 1e-3  # seeds are fixed: a law that holds passes for ever


def numbered(shape, channels=1, dtype=np.int32) -> np.ndarray:
    """An image whose voxels hold their number in C order, 1000 more in each further channel."""
    image = np.arange(math.prod(shape)).reshape(*shape, 1) + 1000 * np.arange(channels)
    return image.astype(dtype)


def element(shape, mask=None, channels=1, **fields) -> dict:
    mask = numbered(shape, dtype=np.uint8) if mask is None else np.asarray(mask, np.uint8)
    return {"image": numbered(shape, channels), "mask": mask.reshape(*shape, 1)} | fields


def dataset(one: dict, count: int = 1):
    return tf.data.Dataset.from_tensors(one).repeat(count)


def sizeless(one: dict):
    """A dataset of one element of which only the axes are known beforehand, not their lengths."""

    def spec(value):
        value = np.asarray(value)
        shape = [None] * (value.ndim - 1) + [value.shape[-1]] if value.ndim > 2 else value.shape
        return tf.TensorSpec(shape, tf.string if value.dtype.kind == "U" else value.dtype)

    signature = {key: spec(value) for key, value in one.items()}
    return tf.data.Dataset.from_generator(lambda: iter([one]), output_signature=signature)


def together(stage, one: dict, count: int) -> dict:
    """All crops of so many passes of an element, on one axis."""
    results = list(dataset(one, count).apply(stage).as_numpy_iterator())
    return {key: np.concatenate([x[key] for x in results]) for key in results[0]}


def first_voxels(images: np.ndarray, shape) -> np.ndarray:
    """Where crops of a numbered image start, `[n, axes]`."""
    corner = images[(slice(None), *[0] * (images.ndim - 1))]
    return np.stack(np.unravel_index(corner, shape), axis=1)


def follows(found: np.ndarray, expected: dict) -> None:
    """Chi-square: the numbers were drawn with these probabilities, and no others were."""
    values, counts = np.unique(found, return_counts=True)
    assert set(values.tolist()) == {key for key, p in expected.items() if p > 0}
    probabilities = np.array([expected[key] for key in values.tolist()])
    if len(values) > 1:
        assert stats.chisquare(counts, probabilities * len(found)).pvalue > UNLIKELY


SPLIT = np.zeros((4, 5), np.uint8)  # five voxels of foreground, one in a corner
SPLIT[0, 0] = 1
SPLIT[2, 1:5] = 3


# Where crops are taken


@pytest.mark.parametrize(
    ("shape", "size"), [((5, 7), (3, 4)), ((4, 5, 6), (2, 5, 4)), ((3, 3, 3), (3, 3, 3))]
)
def test_every_start_is_as_likely_the_last_one_too(shape, size):
    stage = crops.random(size, per_image=20, seed=3)
    found = first_voxels(together(stage, element(shape), 200)["image"], shape)
    rooms = [n - k + 1 for n, k in zip(shape, size, strict=True)]
    cells = np.ravel_multi_index(tuple(found.T), rooms)
    follows(cells, dict.fromkeys(range(math.prod(rooms)), 1 / math.prod(rooms)))


@pytest.mark.parametrize(("positive", "negative"), [(1, 1), (3, 1), (0.2, 0.8), (1, 0), (0, 2)])
def test_a_side_has_its_share_and_within_it_voxels_are_alike(positive, negative):
    stage = crops.pos_neg((1, 1), positive=positive, negative=negative, per_image=20, seed=5)
    found = together(stage, element(SPLIT.shape, SPLIT), 200)["image"].ravel()
    share = positive / (positive + negative)
    inside = np.flatnonzero(SPLIT)
    law = dict.fromkeys(range(SPLIT.size), (1 - share) / (SPLIT.size - len(inside)))
    law |= dict.fromkeys(inside.tolist(), share / len(inside))
    follows(found, law)


@pytest.mark.parametrize("size", [(3, 3), (2, 4), (4, 1), (4, 5)])
def test_a_crop_round_a_voxel_is_moved_inward_where_it_would_stick_out(size):
    stage = crops.pos_neg(size, positive=2, negative=1, per_image=20, seed=6)
    images = together(stage, element(SPLIT.shape, SPLIT), 150)["image"]
    law = {}
    for voxel in np.ndindex(SPLIT.shape):
        share = 2 / 3 / 5 if SPLIT[voxel] else 1 / 3 / 15
        start = [
            min(max(centre - k // 2, 0), n - k)
            for centre, k, n in zip(voxel, size, SPLIT.shape, strict=True)
        ]
        number = start[0] * 5 + start[1]
        law[number] = law.get(number, 0) + share
    follows(images[:, 0, 0, 0], law)


@pytest.mark.parametrize(
    ("length", "size", "starts"),
    [
        # By hand, from the rule of RandCropByPosNegLabeld: the centre of 4 is at 2, of 5 as well.
        (10, 4, {0: 0, 2: 0, 3: 1, 5: 3, 8: 6, 9: 6}),
        (10, 5, {0: 0, 3: 1, 7: 5, 9: 5}),
        (4, 4, {0: 0, 3: 0}),
        (6, 1, {0: 0, 5: 5}),
    ],
)
def test_one_voxel_of_foreground_fixes_the_crop(length, size, starts):
    masks = np.zeros((len(starts), length, 1, 1, 1), np.uint8)
    masks[range(len(starts)), list(starts)] = 2
    images = np.broadcast_to(numbered((length, 1, 1)), masks.shape)
    data = tf.data.Dataset.from_tensor_slices({"image": images, "mask": masks})
    cut = data.apply(crops.pos_neg((size, 1, 1), negative=0, seed=0)).as_numpy_iterator()
    found = [crop["image"].ravel().tolist() for crop in cut]
    assert found == [list(range(start, start + size)) for start in starts.values()]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_classes_that_the_mask_has_share_exactly_as_many_crops_as_were_asked_for(count):
    mask = np.zeros((3, 4, 5))
    mask[1, 2, 3:] = 1  # two voxels
    mask[0, 0, :4] = 2
    stage = crops.class_balanced((1, 1, 1), classes=[0, 1, 2, 7], per_image=count, seed=8)
    assert next(iter(dataset(element(mask.shape, mask)).apply(stage)))["image"].shape[0] == count
    found = together(stage, element(mask.shape, mask), 1800 // count)["image"].ravel()
    sizes = {id_: np.count_nonzero(mask == id_) for id_ in (0, 1, 2)}
    law = {k: 1 / 3 / sizes[int(id_)] for k, id_ in enumerate(mask.ravel())}
    follows(found, law)


def test_classes_are_drawn_by_their_weights():
    mask = np.array([[0, 0, 1, 1, 2, 2, 2, 4]])
    weights = {0: 1, 4: 5, 3: 9, 1: 0, 2: 2}  # 3 is absent, 1 is not wanted
    stage = crops.class_balanced(
        (1, 1), classes=list(weights), weights=list(weights.values()), per_image=20, seed=9
    )
    found = together(stage, element(mask.shape, mask), 150)["mask"].ravel()
    follows(found, {0: 1 / 8, 4: 5 / 8, 2: 2 / 8, 1: 0})


@pytest.mark.parametrize("seed", [11, 12])
def test_crops_of_one_image_are_drawn_independently(seed):
    stage = crops.random((1, 1), per_image=2, seed=seed)
    found = together(stage, element((1, 3)), 1800)["image"].reshape(-1, 2)
    follows(found @ [3, 1], dict.fromkeys(range(9), 1 / 9))


# What a crop holds

STAGES = {
    "random": lambda size, **more: crops.random(size, seed=1, **more),
    "pos_neg": lambda size, **more: crops.pos_neg(size, seed=1, **more),
    "class_balanced": lambda size, **more: crops.class_balanced(
        size, classes=[1, 30], seed=1, **({"per_image": 1} | more)
    ),
}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(
    ("shape", "size", "known"), [((8, 9), (3, 4), True), ((5, 6, 7), (2, 3, 4), False)]
)
def test_image_and_mask_are_the_same_part_of_both_and_other_fields_are_repeated(
    name, shape, size, known
):
    one = element(
        shape,
        channels=3,
        label=np.int32(4),
        case="c7",
        weight=np.float32(0.5),
        spacing=np.arange(len(shape), dtype=np.float32),
    )
    data = (dataset(one) if known else sizeless(one)).apply(STAGES[name](size, per_image=6))
    spec = {key: value.shape.as_list() for key, value in data.element_spec.items()}
    assert spec["image"] == [6, *size, 3] and spec["mask"] == [6, *size, 1]
    (result,) = data.as_numpy_iterator()
    assert {key: list(value.shape) for key, value in result.items()} == spec
    assert len(np.unique(result["image"][..., 0].reshape(6, -1)[:, 0])) > 1
    for image, mask in zip(result["image"], result["mask"], strict=True):
        start = np.unravel_index(image[(0,) * (len(size) + 1)], shape)
        part = tuple(slice(s, s + k) for s, k in zip(start, size, strict=True))
        np.testing.assert_array_equal(image, one["image"][part])
        np.testing.assert_array_equal(mask, one["mask"][part])
    assert image.dtype == np.int32 and mask.dtype == np.uint8
    assert result["label"].tolist() == [4] * 6
    assert result["case"].tolist() == [b"c7"] * 6
    assert result["weight"].tolist() == [0.5] * 6
    assert result["spacing"].tolist() == [list(range(len(shape)))] * 6


@pytest.mark.parametrize("name", ["random", "pos_neg"])
def test_without_a_count_the_element_keeps_its_axes(name):
    one = element((5, 6, 7), label=np.int32(4), case="c7")
    data = dataset(one).apply(STAGES[name]((2, 3, 4)))
    spec = {key: value.shape.as_list() for key, value in data.element_spec.items()}
    assert spec == {"image": [2, 3, 4, 1], "mask": [2, 3, 4, 1], "label": [], "case": []}
    (crop,) = data.as_numpy_iterator()
    np.testing.assert_array_equal(crop["image"] % 256, crop["mask"])


def test_an_image_without_a_mask_is_cropped_at_random_too():
    data = tf.data.Dataset.from_tensors({"image": numbered((4, 5))})
    (crop,) = data.apply(crops.random((4, 5), seed=1)).as_numpy_iterator()
    np.testing.assert_array_equal(crop["image"], numbered((4, 5)))


def test_nan_is_copied_and_not_spread():
    image = np.zeros((3, 3, 1), np.float32)
    image[1, 1] = np.nan
    for stage in (crops.random((3, 3), seed=1), crops.centre((3, 3))):
        (crop,) = dataset({"image": image}).apply(stage).as_numpy_iterator()
        np.testing.assert_array_equal(crop["image"], image)


# The stream


def stream(name, *, seed=7, epochs=1, more=None) -> list:
    """Numbers of the first voxels, image by image, of eight images that differ."""
    images = np.stack([numbered((9, 9)) + 100 * k for k in range(8)])
    masks = np.stack([numbered((9, 9), dtype=np.uint8)] * 8)
    data = tf.data.Dataset.from_tensor_slices({"image": images, "mask": masks})
    stage = {
        "random": crops.random((2, 2), per_image=3, seed=seed, **more or {}),
        "pos_neg": crops.pos_neg((2, 2), per_image=3, seed=seed, **more or {}),
        "class_balanced": crops.class_balanced(
            (2, 2), classes=[1, 2, 3, 40], per_image=3, seed=seed, **more or {}
        ),
    }[name]
    data = data.apply(stage)
    return [
        [x["image"][:, 0, 0, 0].tolist() for x in data.as_numpy_iterator()] for _ in range(epochs)
    ]


@pytest.mark.parametrize("name", STAGES)
def test_a_seed_fixes_the_stream_whatever_the_parallelism_and_epochs_differ(name):
    one, two = stream(name, epochs=2, more={"num_parallel_calls": 1})
    assert [[n // 100 for n in some] for some in one] == [[k] * 3 for k in range(8)]
    assert stream(name, epochs=2, more={"num_parallel_calls": 8}) == [one, two]
    assert one != two
    assert stream(name, seed=8) != [one]


def test_stages_of_one_seed_do_not_share_their_numbers():
    data = dataset(element((1, 81), np.ones(81)), 8)
    anywhere = data.apply(crops.random((1, 1), seed=7)).as_numpy_iterator()
    inside = data.apply(crops.pos_neg((1, 1), seed=7)).as_numpy_iterator()
    pairs = zip(anywhere, inside, strict=True)
    assert sum(a["image"].item() == b["image"].item() for a, b in pairs) < 3


def test_repeat_goes_on_with_new_crops():
    data = dataset(element((9, 9)), 1).repeat(6).apply(crops.random((2, 2), seed=1))
    assert len({x["image"].tobytes() for x in data.as_numpy_iterator()}) > 3


# Sides and classes that are not there


@pytest.mark.parametrize("located", [False, True])
@pytest.mark.parametrize(("fill", "ratio"), [(0, (1, 0)), (0, (1, 1)), (1, (0, 1)), (1, (1, 1))])
def test_if_one_side_is_empty_the_other_is_taken(fill, ratio, located):
    data = dataset(element((1, 4), np.full((1, 4), fill)), 40)
    data = data.apply(crops.locate()) if located else data
    stage = crops.pos_neg((1, 1), positive=ratio[0], negative=ratio[1], per_image=5, seed=2)
    found = np.concatenate([x["image"].ravel() for x in data.apply(stage).as_numpy_iterator()])
    follows(found, dict.fromkeys(range(4), 1 / 4))


@pytest.mark.parametrize("located", [False, True])
def test_two_empty_sides_are_an_error_that_names_the_case(located):
    data = dataset(element((2, 3), np.zeros((2, 3)), case="c-9"))
    data = data.apply(crops.locate(image_threshold=5)) if located else data
    stage = crops.pos_neg((1, 1), image_threshold=None if located else 5, seed=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"NO_PLACE: no voxel.*case.*c-9"):
        list(data.apply(stage))


@pytest.mark.parametrize("weights", [None, [1, 1, 0]])
def test_a_mask_with_none_of_the_classes_is_an_error(weights):
    data = dataset(element((2, 3), np.full((2, 3), 9), case="c-9"))
    classes = [1, 2, 3 if weights is None else 9]
    stage = crops.class_balanced((1, 1), classes=classes, weights=weights, per_image=2, seed=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"NO_PLACE: none of.*\[1 2 .*c-9"):
        list(data.apply(stage))


# Places that were found before


def groups_of(place: dict) -> dict:
    """The voxel numbers of each group, from the runs."""
    starts, before = place["starts"].numpy(), place["before"].numpy()
    total = max(int(limits[1]) for limits in place["groups"].values())
    lengths = np.diff([*before, total])
    every = [n for s, k in zip(starts, lengths, strict=True) for n in range(s, s + k)]
    return {name: every[first:end] for name, (first, end) in place["groups"].items()}


masks = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5), elements=st.integers(0, 3)
)


@few
@given(masks, st.one_of(st.none(), st.integers(-3, 12), st.floats(-3, 12)))
def test_runs_hold_the_voxels_that_numpy_finds(mask, threshold):
    rng = np.random.default_rng(mask.sum())
    image = rng.integers(0, 10, (*mask.shape, 2)).astype(rng.choice(["u1", "i2", "f4"]))
    one = {"image": tf.constant(image), "mask": tf.constant(mask[..., np.newaxis])}
    sides = places.find_sides(one, threshold)
    shown = np.ones(mask.shape, bool) if threshold is None else (image > threshold).any(-1)
    expected = {
        "foreground": np.flatnonzero(mask).tolist(),
        "background": np.flatnonzero((mask == 0) & shown).tolist(),
    }
    assert groups_of(sides) == expected
    classes = places.find_classes(one, [3, 0, 200])
    assert groups_of(classes) == {
        str(number): np.flatnonzero(mask == number).tolist() for number in (3, 0, 200)
    }
    for place in (sides, classes):
        total = max(int(limits[1]) for limits in place["groups"].values())
        if total:
            drawn = laws.voxels(laws.GRAPH, place, tf.range(total)).numpy().tolist()
            assert drawn == list(itertools.chain(*groups_of(place).values()))
        assert place["shape"].numpy().tolist() == list(mask.shape)


@pytest.mark.parametrize(
    ("dtype", "threshold", "shown"),
    [
        (np.uint8, -1, [0, 1, 255]),
        (np.uint8, -0.5, [0, 1, 255]),
        (np.uint8, 0, [1, 255]),
        (np.uint8, 254.5, [255]),
        (np.uint8, 255, []),
        (np.uint8, 1e6, []),
        (np.int16, -32769, [-32768, 0, 255]),
        (np.int16, -32768, [0, 255]),
        (np.int16, -0.5, [0, 255]),
        (np.float32, -0.5, [0, 255]),
    ],
)
def test_a_threshold_means_above_for_every_dtype(dtype, threshold, shown):
    values = [0, 1, 255] if dtype == np.uint8 else [-32768, 0, 255]
    image = np.array(values, dtype).reshape(1, 3, 1)
    one = {"image": tf.constant(image), "mask": tf.zeros([1, 3, 1], tf.uint8)}
    found = groups_of(places.find_sides(one, threshold))["background"]
    assert [values[n] for n in found] == shown


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.uint16, np.int64])
def test_masks_of_other_whole_numbers_work_too(dtype):
    one = element((2, 3), [[0, 1, 1], [0, 0, 1]])
    one["mask"] = one["mask"].astype(dtype)
    data = dataset(one).apply(crops.locate()).apply(crops.locate(by="class", classes=[1, 0]))
    (found,) = data
    expected = {"foreground": [1, 2, 5], "background": [0, 3, 4]}
    assert groups_of(found["places"]["foreground"]) == expected
    assert groups_of(found["places"]["class"]) == {"1": [1, 2, 5], "0": [0, 3, 4]}


def test_an_organ_in_a_large_case_takes_a_tenth_of_a_megabyte_and_voxel_lists_84():
    shape = (160, 256, 256)
    z, y, x = np.ogrid[-80:80, -128:128, -128:128]
    mask = ((z / 40) ** 2 + (y / 60) ** 2 + (x / 50) ** 2 < 1).astype(np.uint8)
    one = {"image": tf.zeros([*shape, 1], tf.int16), "mask": tf.constant(mask[..., np.newaxis])}
    place = places.find_sides(one, None)
    ours = sum(value.numpy().nbytes for value in tf.nest.flatten(place))
    lists = np.flatnonzero(mask).nbytes + np.flatnonzero(mask == 0).nbytes
    assert lists == 83_886_080
    assert 100_000 < ours < 130_000
    counts = [int(end - first) for first, end in place["groups"].values()]
    assert counts == [np.count_nonzero(mask), mask.size - np.count_nonzero(mask)]


def test_even_a_chessboard_takes_no_more_than_voxel_lists_do():
    mask = (np.indices((8, 9, 10)).sum(0) % 2).astype(np.uint8)[..., np.newaxis]
    place = places.find_sides({"image": tf.constant(mask), "mask": tf.constant(mask)}, None)
    assert place["starts"].numpy().nbytes + place["before"].numpy().nbytes <= 8 * mask.size


@pytest.mark.parametrize("threshold", [None, 700])
def test_located_or_not_the_crops_are_the_same_and_the_places_are_gone(threshold):
    mask = np.arange(900).reshape(9, 10, 10) % 11 == 0
    located = dataset(element(mask.shape, mask), 6).apply(crops.locate(image_threshold=threshold))
    located = located.apply(crops.locate(by="class", classes=[1, 0])).cache()
    plain = dataset(element(mask.shape, mask), 6)
    for with_places, without in (
        (
            crops.pos_neg((2, 2, 2), per_image=3, seed=4),
            crops.pos_neg((2, 2, 2), per_image=3, seed=4, image_threshold=threshold),
        ),
        (crops.class_balanced((2, 2, 2), classes=[0, 1], per_image=3, seed=4),) * 2,
    ):
        ours = list(located.apply(with_places).as_numpy_iterator())
        others = list(plain.apply(without).as_numpy_iterator())
        assert [set(x) for x in ours] == [{"image", "mask"}] * 6
        for one, other in zip(ours, others, strict=True):
            np.testing.assert_array_equal(one["image"], other["image"])
            np.testing.assert_array_equal(one["mask"], other["mask"])


def test_places_stand_for_a_mask_that_is_not_needed_any_more():
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[4, 5, 6] = 1
    located = dataset(element(mask.shape, mask)).apply(crops.locate())
    stage = crops.pos_neg((3, 3, 3), negative=0, per_image=2, seed=1)
    without = located.map(lambda one: {key: one[key] for key in ("image", "places")})
    (found,) = without.apply(stage).as_numpy_iterator()
    (expected,) = located.apply(stage).as_numpy_iterator()
    assert set(found) == {"image"}
    np.testing.assert_array_equal(found["image"], expected["image"])


@pytest.mark.parametrize("stage", [crops.random((2, 2), per_image=3, seed=1), crops.centre((2, 2))])
def test_every_crop_drops_places_since_they_no_longer_hold(stage):
    data = dataset(element((4, 4))).apply(crops.locate()).apply(stage)
    assert set(data.element_spec) == {"image", "mask"}


def test_places_of_another_shape_are_refused():
    data = dataset(element((4, 6), case="c3")).apply(crops.locate())
    data = data.map(lambda x: x | {"image": x["image"][:, 1:], "mask": x["mask"][:, 1:]})
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"SHAPE_MISMATCH.*\[4 6\].*\[4 5\]"):
        list(data.apply(crops.pos_neg((2, 2), seed=1)))


def test_places_for_something_else_are_refused():
    data = dataset(element((4, 6))).apply(crops.locate())
    with pytest.raises(ValueError, match=r"leave image_threshold out"):
        data.apply(crops.pos_neg((2, 2), image_threshold=3, seed=1))
    data = data.apply(crops.locate(by="class", classes=[1, 2]))
    with pytest.raises(ValueError, match=r"did not look for classes \[3\]"):
        data.apply(crops.class_balanced((2, 2), classes=[1, 3], per_image=1, seed=1))
    # Classes may be fewer, and in another order, than those looked for.
    stage = crops.class_balanced((1, 1), classes=[2], per_image=2, seed=1)
    (crop,) = data.apply(stage).as_numpy_iterator()
    assert crop["mask"].ravel().tolist() == [2, 2]


# Sizes


@pytest.mark.parametrize("name", STAGES)
def test_a_crop_larger_than_the_image_is_refused_before_and_while_running(name):
    one = element((4, 6), case="c-4")
    with pytest.raises(CourseDataError, match=r"a crop of \(5, 6\) .* of \(4, 6\)") as refused:
        dataset(one).apply(STAGES[name]((5, 6)))
    assert refused.value.code == "CROP_TOO_LARGE"
    data = sizeless(one).apply(STAGES[name]((4, 7)))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"CROP_TOO_LARGE.*\[4 7\].*\[4 6\].*c-4"
    ):
        list(data)
    assert len(list(sizeless(one).apply(STAGES[name]((4, 6))))) == 1


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("known", [True, False])
def test_unless_smaller_ones_are_allowed(name, known):
    one = element((4, 6))
    data = dataset(one) if known else sizeless(one)
    data = data.apply(STAGES[name]((5, 2), per_image=3, allow_smaller=True))
    sizes = [4, 2] if known else [None, None]
    assert data.element_spec["image"].shape.as_list() == [3, *sizes, 1]
    (result,) = data.as_numpy_iterator()
    assert result["image"].shape == result["mask"].shape == (3, 4, 2, 1)
    for image in result["image"]:
        start = image[0, 0, 0]
        np.testing.assert_array_equal(image, one["image"][:, start : start + 2])


@pytest.mark.parametrize("size", [(), (3,), (1, 2, 3, 4), (0, 3), (3, -1), (2.5, 3), 3, "ab", None])
def test_a_size_is_two_or_three_whole_numbers(size):
    for make in (*STAGES.values(), lambda size: crops.centre(size)):
        with pytest.raises(ValueError, match="a size is"):
            make(size)


@pytest.mark.parametrize(
    "make",
    [
        lambda: crops.random((2, 2), per_image=0, seed=1),
        lambda: crops.pos_neg((2, 2), positive=0, negative=0, seed=1),
        lambda: crops.pos_neg((2, 2), positive=-1, seed=1),
        lambda: crops.pos_neg((2, 2), negative=float("nan"), seed=1),
        lambda: crops.pos_neg((2, 2), image_threshold=float("nan"), seed=1),
        lambda: crops.class_balanced((2, 2), classes=[], per_image=1, seed=1),
        lambda: crops.class_balanced((2, 2), classes=[1, 1], per_image=1, seed=1),
        lambda: crops.class_balanced((2, 2), classes=[-1], per_image=1, seed=1),
        lambda: crops.class_balanced((2, 2), classes=[1, 2], weights=[1], per_image=1, seed=1),
        lambda: crops.class_balanced((2, 2), classes=[1], weights=[0], per_image=1, seed=1),
        lambda: crops.class_balanced((2, 2), classes=[1], per_image=None, seed=1),
        lambda: crops.locate(by="mask"),
        lambda: crops.locate(by="class"),
        lambda: crops.locate(classes=[1]),
        lambda: crops.locate(by="class", classes=[1], image_threshold=0),
        lambda: crops.centre((2, 2), fill="max"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_at_once(make):
    with pytest.raises(ValueError):
        make()


# Elements that do not fit

EVERY = [
    *[make((2, 2)) for make in STAGES.values()],
    crops.locate(),
    crops.locate(image_threshold=3),
    crops.locate(by="class", classes=[1]),
    crops.centre((2, 2)),
]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 5, 1), np.uint8), "the mask has shape"),
        (np.zeros((4, 6), np.uint8), "adds it"),
        (np.zeros((4, 6, 2), np.uint8), "one channel"),
        (np.zeros((4, 6, 1), np.float32), "whole numbers, not float32"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_before_anything_runs(mask, message):
    data = dataset({"image": numbered((4, 6)), "mask": mask})
    for stage in EVERY:
        with pytest.raises(CourseDataError, match=message) as refused:
            data.apply(stage)
        assert refused.value.code == "MASK_MISMATCH"


@pytest.mark.parametrize("stage", EVERY)
@pytest.mark.parametrize("shape", [(4, 5, 1), (6, 4, 1)])
def test_or_while_running_where_shapes_are_not_known(stage, shape):
    data = sizeless({"image": numbered((4, 6)), "mask": np.ones(shape, np.uint8), "case": "c-5"})
    found = rf"MASK_MISMATCH.*\[{shape[0]} {shape[1]} 1\].*\[4 6 1\].*c-5"
    with pytest.raises(tf.errors.InvalidArgumentError, match=found):
        list(data.apply(stage))


def test_without_a_mask_there_is_no_foreground():
    data = dataset({"image": numbered((4, 6))})
    for stage in (STAGES["pos_neg"]((2, 2)), STAGES["class_balanced"]((2, 2)), crops.locate()):
        with pytest.raises(CourseDataError, match="NO_PAIR"):
            data.apply(stage)


@pytest.mark.parametrize("make", [*STAGES.values(), crops.centre])
def test_batches_are_refused(make):
    volumes = dataset(element((4, 5, 6), case="a"), 2)
    with pytest.raises(ValueError, match=r"Crop before \.batch"):
        volumes.batch(2).apply(make((2, 2, 2)))
    # Four axes could be a volume; several cases show that they are not.
    with pytest.raises(ValueError, match="several cases"):
        dataset(element((5, 6), case="a"), 2).batch(2).apply(make((2, 2, 2)))
    with pytest.raises(ValueError, match=r"\[z, y, x, c\] are cropped, not shape \(5, 6, 1\)"):
        dataset(element((5, 6))).apply(make((2, 2, 2)))
    with pytest.raises(ValueError, match="dicts with an `image`"):
        tf.data.Dataset.from_tensors((1, 2)).apply(make((2, 2)))


# The middle


def middle(image, size, fill):
    """NumPy's way: cut the surplus, the odd voxel at the end; pad likewise."""
    for axis, want in enumerate(size):
        surplus = image.shape[axis] - want
        if surplus > 0:
            front = surplus // 2
            image = image.take(np.arange(front, front + want), axis)
        else:
            pad = [(0, 0)] * image.ndim
            pad[axis] = (-surplus // 2, -surplus - -surplus // 2)
            image = np.pad(image, pad, constant_values=fill)
    return image


def test_the_odd_voxel_is_at_the_end_by_hand():
    def of(length, size):
        data = dataset({"image": 1 + numbered((1, length))}).apply(crops.centre((1, size)))
        return next(data.as_numpy_iterator())["image"].ravel().tolist()

    assert of(7, 4) == [2, 3, 4, 5]
    assert of(6, 4) == [2, 3, 4, 5]
    assert of(4, 7) == [0, 1, 2, 3, 4, 0, 0]
    assert of(4, 6) == [0, 1, 2, 3, 4, 0]
    assert of(3, 3) == [1, 2, 3]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_the_middle_is_numpys(data):
    axes = data.draw(st.integers(2, 3))
    sides = st.tuples(*[st.integers(1, 8)] * axes)
    shape, size = data.draw(sides), data.draw(sides)
    fill = data.draw(st.sampled_from([0, -7, "min"]))
    one = element(shape, channels=2) | {"image": numbered(shape, 2) - 20}
    elements = data.draw(st.sampled_from([dataset, sizeless]))(one)
    result = elements.apply(crops.centre(size, fill=fill, mask_fill=255))
    assert result.element_spec["image"].shape.as_list() == [*size, 2]
    (found,) = result.as_numpy_iterator()
    outside = one["image"].min() if fill == "min" else fill
    np.testing.assert_array_equal(found["image"], middle(one["image"], size, outside))
    np.testing.assert_array_equal(found["mask"], middle(one["mask"], size, 255))
    assert found["image"].dtype == np.int32 and found["mask"].dtype == np.uint8


def test_a_fill_that_the_dtype_cannot_hold_is_refused():
    picture = {"image": np.zeros((4, 4, 3), np.uint8), "mask": np.zeros((4, 4, 1), np.uint8)}
    for wrong in ({"fill": -1000}, {"fill": 0.5}, {"mask_fill": 256}, {"mask_fill": -1}):
        with pytest.raises(ValueError, match="cannot hold the fill"):
            dataset(picture).apply(crops.centre((6, 6), **wrong))
    floating = {"image": np.zeros((4, 4, 3), np.float32)}
    with pytest.raises(ValueError, match="cannot hold the fill nan"):
        dataset(floating).apply(crops.centre((6, 6), fill=float("nan")))
    (result,) = dataset(floating).apply(crops.centre((4, 6), fill=0.5)).as_numpy_iterator()
    assert result["image"][0, :, 0].tolist() == [0.5, 0, 0, 0, 0, 0.5]


# Batches of crops


def three_images(**fields):
    images = np.stack([numbered((5, 6)) + 100 * k for k in range(3)])
    rest = {
        "mask": np.stack([numbered((5, 6), dtype=np.uint8)] * 3),
        "label": np.arange(3, dtype=np.int32),
        "case": np.array(["a", "b", "c"]),
        "spacing": np.ones((3, 2), np.float32),
    }
    return tf.data.Dataset.from_tensor_slices({"image": images} | rest | fields)


def test_two_by_three_is_six_on_every_field():
    batches = three_images().apply(crops.random((2, 3), per_image=2, seed=1)).batch(3)
    merged = batches.apply(crops.merge_batch_dims())
    (before,), (after,) = batches.as_numpy_iterator(), merged.as_numpy_iterator()
    assert {key: len(value) for key, value in after.items()} == dict.fromkeys(before, 6)
    assert after["label"].tolist() == [0, 0, 1, 1, 2, 2]
    assert after["case"].tolist() == [b"a", b"a", b"b", b"b", b"c", b"c"]
    assert after["image"].shape == (6, 2, 3, 1) and after["spacing"].shape == (6, 2)
    assert (after["image"][:, 0, 0, 0] // 100).tolist() == [0, 0, 1, 1, 2, 2]


def test_the_next_epoch_of_merged_batches_holds_the_same_voxels_as_the_unmerged():
    def batches():
        return three_images().apply(crops.random((2, 3), per_image=2, seed=1)).batch(2)

    for plain, merged in zip(
        batches().as_numpy_iterator(),
        batches().apply(crops.merge_batch_dims()).as_numpy_iterator(),
        strict=True,
    ):
        for key, value in merged.items():
            np.testing.assert_array_equal(value, plain[key].reshape(-1, *plain[key].shape[2:]))


@pytest.mark.parametrize(("whole", "expected"), [(True, 6), (False, None)])
def test_merged_shapes_are_known_where_they_can_be(whole, expected):
    data = three_images().apply(crops.random((2, 3), per_image=2, seed=1))
    merged = data.batch(3, drop_remainder=whole).apply(crops.merge_batch_dims())
    shapes = {key: value.shape.as_list() for key, value in merged.element_spec.items()}
    assert shapes["image"] == [expected, 2, 3, 1] and shapes["label"] == [expected]


def test_tuples_are_merged_too():
    data = tf.data.Dataset.from_tensors((np.zeros((2, 3, 4)), np.arange(6).reshape(2, 3)))
    ((images, numbers),) = data.apply(crops.merge_batch_dims()).as_numpy_iterator()
    assert images.shape == (6, 4) and numbers.tolist() == list(range(6))
    (alone,) = tf.data.Dataset.from_tensors(np.zeros((2, 3, 4))).apply(crops.merge_batch_dims())
    assert alone.shape == (6, 4)


@pytest.mark.parametrize("other", [np.zeros(2), np.zeros((3, 2)), np.zeros((2, 4, 5))])
def test_fields_without_two_common_batch_axes_are_not_merged(other):
    one = {"a": np.zeros((2, 3)), "b": other}
    with pytest.raises(ValueError, match="the same two batch axes"):
        tf.data.Dataset.from_tensors(one).apply(crops.merge_batch_dims())


# Whole volumes


@few
@given(st.data())
def test_overlaps_of_an_identity_average_to_the_image(data):
    axes = data.draw(st.integers(2, 3))
    sides = st.tuples(*[st.integers(1, 9 if axes == 2 else 6)] * axes)
    shape, size = data.draw(sides), data.draw(sides)
    overlap = data.draw(st.sampled_from([0, 0.25, 0.5, 0.75, 0.9]))
    blend = data.draw(st.sampled_from(["constant", "gaussian"]))
    batch = data.draw(st.integers(1, 5))
    image = np.random.default_rng(0).normal(0, 100, (*shape, 2)).astype(np.float32)
    seen = []

    def predict(windows):
        seen.append(windows.shape)
        return windows

    found = crops.sliding_window(predict, image, size, overlap=overlap, blend=blend, batch=batch)
    assert found.dtype == np.float32 and found.shape == image.shape
    np.testing.assert_allclose(found, image, rtol=2e-5, atol=1e-4)
    assert {one[1:] for one in seen} == {(*size, 2)}
    assert all(one[0] == batch for one in seen[:-1]) and 1 <= seen[-1][0] <= batch


def window_numbers(length, size, **options):
    """What comes of windows along one axis of which each predicts its own number."""
    count = itertools.count()

    def predict(windows):
        return np.stack([np.full(windows.shape[1:], next(count)) for _ in windows])

    image = np.zeros((1, length, 1), np.int16)
    return crops.sliding_window(predict, image, (1, size), **options).ravel().tolist()


def test_windows_stand_at_equal_steps_and_the_last_ends_with_the_image():
    assert window_numbers(6, 4) == [0, 0, 0.5, 0.5, 1, 1]
    assert window_numbers(7, 4) == [0, 0, 0.5, 1, 1.5, 1.5, 2]  # starts 0, 2 and 3
    assert window_numbers(8, 4, overlap=0) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert window_numbers(4, 4) == [0, 0, 0, 0]
    assert window_numbers(3, 1) == [0, 1, 2]
    # 20 x (1 - 0.9) is a little less than 2 in floating point, 10 x (1 - 0.7) more than 3.
    assert max(window_numbers(24, 20, overlap=0.9)) == 2  # starts 0, 2 and 4
    assert max(window_numbers(19, 10, overlap=0.7)) == 3  # starts 0, 3, 6 and 9
    assert max(window_numbers(12, 10, overlap=0.99)) == 2  # a step is 1 at least


def test_a_gaussian_trusts_the_middle_of_a_window():
    weight = np.exp(-0.5 * ((np.arange(8) - 3.5) / 1) ** 2)  # an eighth of 8 voxels is 1
    expected = weight[:4] / (weight[:4] + weight[4:])
    found = window_numbers(12, 8, blend="gaussian")
    np.testing.assert_allclose(found, [0] * 4 + expected.tolist() + [1] * 4, atol=1e-6)


def test_an_image_smaller_than_the_window_is_padded_with_its_border():
    image = np.array([[3], [5]], np.int16)[..., np.newaxis]  # two voxels of y

    def predict(windows):
        assert windows.dtype == np.int16
        assert windows.ravel().tolist() == [3, 3, 5, 5, 5]
        return windows * 10

    found = crops.sliding_window(predict, image, (5, 1))
    assert found.ravel().tolist() == [30, 50]


def test_a_network_may_give_other_channels_and_tensors():
    image = np.random.default_rng(1).normal(size=(6, 7, 8, 1)).astype(np.float32)
    network = tf.keras.layers.Conv3D(3, 1, bias_initializer="ones")
    whole = network(image[np.newaxis]).numpy()[0]
    for volume in (image, tf.constant(image)):
        found = crops.sliding_window(network, volume, (4, 4, 4), blend="gaussian")
        np.testing.assert_allclose(found, whole, atol=1e-5)
    model = tf.keras.Sequential([tf.keras.Input((4, 4, 4, 1)), network])
    found = crops.sliding_window(model.predict_on_batch, image, (4, 4, 4), batch=3)
    np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda x: x[:, 1:], r"must return \[4, 4, 4, k\], not shape \(4, 3, 4, 1\)"),
        (lambda x: x[:1], r"not shape \(1, 4, 4, 1\)"),
        (lambda x: x[..., 0], r"not shape \(4, 4, 4\)"),
        (lambda x: [x, x], "not list"),
        (lambda x: None, "not NoneType"),
    ],
)
def test_a_prediction_of_another_shape_is_refused(predict, message):
    with pytest.raises(ValueError, match=message):
        crops.sliding_window(predict, np.zeros((6, 6, 1), np.float32), (4, 4))


def test_a_prediction_that_changes_its_channels_is_refused():
    channels = itertools.count(1)
    with pytest.raises(ValueError, match="2 channels after 1"):
        crops.sliding_window(
            lambda x: np.repeat(x, next(channels), -1), np.zeros((6, 6, 1)), (4, 4), batch=1
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_get_into_the_average(bad):
    image = np.zeros((4, 9, 1), np.float32)
    image[2, 8] = bad
    with pytest.raises(CourseDataError, match=r"starts at voxel \(0, 5\)") as refused:
        crops.sliding_window(lambda x: x, image, (4, 4))
    assert refused.value.code == "NOT_FINITE"


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap": 1},
        {"overlap": -0.1},
        {"overlap": float("nan")},
        {"blend": "mean"},
        {"batch": 0},
        {"size": (4, 4, 4)},
        {"size": (0, 4)},
        {"image": np.zeros((0, 6, 1))},
        {"image": np.zeros((6, 6))},
    ],
)
def test_windows_that_cannot_be_are_refused(wrong):
    arguments = {"predict": lambda x: x, "image": np.zeros((6, 6, 1)), "size": (4, 4)}
    with pytest.raises(ValueError):
        crops.sliding_window(**(arguments | wrong))
