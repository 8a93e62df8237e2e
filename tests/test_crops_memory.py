"""Crops from memory are, bit for bit, those of the stages one by one."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import crops, memory
from helpers.errors import CourseDataError

tf = pytest.importorskip("tensorflow")

few = settings(max_examples=7, deadline=None, derandomize=True)
seeds = st.integers(0, 9)


def element(number, shape, channels=1, dtype=np.int16, mask=True, **more) -> dict:
    """An image of numbers that say where they are, with a mask of ids 0 to 3 in some blocks."""
    rng = np.random.default_rng(number)
    image = np.arange(np.prod(shape) * channels).reshape(*shape, channels) + 1000 * number
    ids = np.kron(rng.integers(0, 4, [-(-n // 2) for n in shape]), np.ones([2] * len(shape)))
    ids = ids[tuple(slice(n) for n in shape)].astype(np.uint8)[..., np.newaxis]
    one = {"image": image.astype(dtype)} | ({"mask": ids} if mask else {})
    return one | {"label": np.int32(number), "case": f"c-{number}"} | more


def dataset_of(elements, order=None):
    """The elements as any other dataset would give them: shapes are not known before."""

    def spec(value):
        value = np.asarray(value)
        shape = [None] * (value.ndim - 1) + [value.shape[-1]] if value.ndim > 2 else value.shape
        return tf.TensorSpec(shape, tf.string if value.dtype.kind in "US" else value.dtype)

    signature = {key: tf.nest.map_structure(spec, value) for key, value in elements[0].items()}
    numbers = range(len(elements)) if order is None else order
    return tf.data.Dataset.from_generator(
        lambda: (elements[n] for n in numbers), output_signature=signature
    )


def by_stages(elements, stage, *, order=None, batch_size=None, dtype=None):
    """What `from_memory` promises, written with the stages."""
    data = dataset_of(elements, order).apply(stage)
    if batch_size is not None:
        data = data.batch(batch_size)
        if stage.per_image is not None:
            data = data.apply(crops.merge_batch_dims())
    if dtype is not None:
        data = data.map(lambda x: x | {"image": tf.cast(x["image"], dtype)})
    return data


def assert_same_stream(ours, theirs) -> int:
    ours, theirs = (list(data.as_numpy_iterator()) for data in (ours, theirs))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        tf.nest.assert_same_structure(one, other)
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b, strict=isinstance(b, np.ndarray))
            assert np.asarray(a).dtype == np.asarray(b).dtype
    return len(ours)


def indices(order):
    return tf.data.Dataset.from_tensor_slices(np.asarray(order, np.int64))


# The law


DTYPES = [np.uint8, np.int16, np.int32, np.float32, np.bool_]
FLOATS = ["float16", "float32", "float64"]


@pytest.mark.parametrize("name", ["random", "pos_neg", "class_balanced", "centre"])
@few
@given(st.data())
def test_the_stream_is_that_of_the_stages_one_by_one(name, data):
    axes = data.draw(st.integers(2, 3))
    smallest = data.draw(st.tuples(*[st.integers(1, 7)] * axes))
    size = tuple(data.draw(st.integers(1, n)) for n in smallest)
    channels, dtype = data.draw(st.integers(1, 3)), data.draw(st.sampled_from(DTYPES))
    more = data.draw(st.lists(st.tuples(*[st.integers(0, 3)] * axes), min_size=1, max_size=4))
    elements = [
        element(n, tuple(np.add(smallest, some)), channels, dtype) for n, some in enumerate(more)
    ]
    options = {"per_image": data.draw(st.sampled_from([None, 1, 3])), "seed": data.draw(seeds)}
    if name == "pos_neg":
        options["positive"] = data.draw(st.sampled_from([0, 1, 3]))
        options["image_threshold"] = data.draw(st.sampled_from([None, -5]))
    elif name == "class_balanced":
        options |= {"classes": [2, 0, 1, 3, 9], "weights": [2, 1, 1, 0.5, 1], "per_image": 2}
    elif name == "centre":
        size, options = np.add(size, (-1, 3, 1)[:axes]).clip(1).tolist(), {}
    stage = getattr(crops, name)(size, **options)
    order = data.draw(st.lists(st.integers(0, len(more) - 1), min_size=1, max_size=9))
    result = {
        "batch_size": data.draw(st.sampled_from([None, 1, 2, 5])),
        "dtype": data.draw(st.sampled_from([None, *FLOATS])),
    }
    ours = crops.from_memory(elements, stage, indices=indices(order), **result)
    steps = -(-len(order) // (result["batch_size"] or 1))
    assert assert_same_stream(ours, by_stages(elements, stage, order=order, **result)) == steps


def stages(**more):
    return {
        "random": crops.random((3, 4), seed=1, **more),
        "pos_neg": crops.pos_neg((3, 4), seed=1, **more),
        "class_balanced": crops.class_balanced(
            (3, 4), classes=[1, 3], seed=1, **({"per_image": 1} | more)
        ),
        "centre": crops.centre((3, 9), fill=-5, mask_fill=255),
    }


@pytest.mark.parametrize("name", stages())
def test_the_next_epochs_are_the_same_too_and_differ_from_the_first(name):
    elements = [element(n, (9 + n, 8)) for n in range(5)]
    stage = stages()[name]
    ours, theirs = crops.from_memory(elements, stage), by_stages(elements, stage)
    epochs = [[x["image"].tolist() for x in ours.as_numpy_iterator()] for _ in range(3)]
    assert epochs == [[x["image"].tolist() for x in theirs.as_numpy_iterator()] for _ in range(3)]
    assert (epochs[0] != epochs[1]) == (name != "centre")
    repeated, expected = (
        make(elements, stage).repeat(2) for make in (crops.from_memory, by_stages)
    )
    assert assert_same_stream(repeated, expected) == 10


@pytest.mark.parametrize("workers", [1, 4])
def test_the_order_may_be_any_and_parallelism_changes_nothing(workers):
    elements = [element(n, (9, 8)) for n in range(6)]
    stage = crops.pos_neg((3, 4), per_image=2, seed=4)

    def order():
        return tf.data.Dataset.range(6).shuffle(6, seed=3).repeat(3)

    numbers = list(order().as_numpy_iterator())
    ours = crops.from_memory(
        elements, stage, indices=order(), batch_size=4, num_parallel_calls=workers
    )
    assert assert_same_stream(ours, by_stages(elements, stage, order=numbers, batch_size=4)) == 5
    assert len(ours) == 5


def test_without_an_order_each_element_comes_once():
    elements = [element(n, (6, 6)) for n in range(5)]
    data = crops.from_memory(elements, crops.random((2, 2), seed=1), batch_size=2)
    assert [x["label"].tolist() for x in data.as_numpy_iterator()] == [[0, 1], [2, 3], [4]]


# Fields and shapes


def test_other_fields_are_repeated_for_each_crop_dicts_too():
    more = {"weight": np.float32(0.5), "spacing": np.array([1, 2], np.float32)}
    elements = [
        element(n, (6, 6), **more, heads={"binary": np.ones(2, np.float32), "organ": np.int32(n)})
        for n in range(3)
    ]
    stage = crops.random((2, 3), per_image=2, seed=1)
    for batch_size in (None, 2):
        ours = crops.from_memory(elements, stage, batch_size=batch_size)
        assert_same_stream(ours, by_stages(elements, stage, batch_size=batch_size))
    first = next(ours.as_numpy_iterator())
    assert first["heads"]["organ"].tolist() == [0, 0, 1, 1]
    assert first["case"].tolist() == [b"c-0"] * 2 + [b"c-1"] * 2
    assert first["spacing"].tolist() == [[1, 2]] * 4


def test_numbers_and_texts_of_python_are_read_as_tensorflow_reads_them():
    elements = [element(n, (6, 6)) | {"label": n, "weight": 0.5, "case": "é"} for n in range(2)]
    batch = next(iter(crops.from_memory(elements, crops.random((2, 3), seed=1), batch_size=2)))
    assert batch["label"].dtype == tf.int32 and batch["weight"].dtype == tf.float32
    assert batch["case"].numpy().tolist() == ["é".encode()] * 2


@pytest.mark.parametrize(
    ("endless", "batch_size", "leading"),
    [(True, 2, [6]), (False, 2, [None]), (True, None, [3]), (False, None, [3])],
)
def test_shapes_are_known_as_far_as_they_can_be(endless, batch_size, leading):
    elements = [element(n, (6, 6 + n)) for n in range(3)]
    order = tf.data.Dataset.range(3).repeat(None if endless else 1)
    stage = crops.random((2, 3), per_image=3, seed=1)
    ours = crops.from_memory(elements, stage, indices=order, batch_size=batch_size, dtype="float16")
    spec = {key: value.shape.as_list() for key, value in ours.element_spec.items()}
    assert spec["image"] == [*leading, 2, 3, 1] and spec["mask"] == [*leading, 2, 3, 1]
    assert spec["label"] == spec["case"] == leading
    assert ours.element_spec["image"].dtype == tf.float16
    assert ours.element_spec["mask"].dtype == tf.uint8


def test_smaller_images_are_taken_whole_where_that_is_allowed():
    elements = [element(n, shape) for n, shape in enumerate([(4, 5), (2, 9), (7, 3)])]
    stage = crops.random((4, 4), per_image=2, seed=1, allow_smaller=True)
    ours = crops.from_memory(elements, stage)
    assert assert_same_stream(ours, by_stages(elements, stage)) == 3
    assert [len(x["image"][0]) for x in ours.as_numpy_iterator()] == [4, 2, 4]
    with pytest.raises(tf.errors.InvalidArgumentError, match="cannot share a batch: pad with"):
        list(crops.from_memory(elements, stage, batch_size=2))


@pytest.mark.parametrize("fill", [-7, "min"])
def test_the_middle_is_padded_in_the_stored_dtype(fill):
    elements = [element(n, shape) for n, shape in enumerate([(4, 5), (2, 9), (7, 3)])]
    stage = crops.centre((5, 4), fill=fill, mask_fill=9)
    ours = crops.from_memory(elements, stage, batch_size=3, dtype="float32")
    assert assert_same_stream(ours, by_stages(elements, stage, batch_size=3, dtype="float32")) == 1


# Places


def of_class(elements, located):
    stage = crops.class_balanced((2, 2), classes=[3, 1, 0], per_image=3, seed=5)
    return stage, located.apply(crops.locate(by="class", classes=[0, 1, 3]))


def of_sides(elements, located):
    return crops.pos_neg((2, 2), per_image=3, seed=5), located.apply(crops.locate())


@pytest.mark.parametrize("law", [of_class, of_sides])
def test_places_that_were_located_are_drawn_from_and_dropped(law):
    elements = [element(n, (7, 8)) for n in range(4)]
    stage, located = law(elements, dataset_of(elements))
    kept = memory.gather(located)
    assert set(kept[0]) == {*elements[0], "places"}
    for batch_size in (None, 3):
        ours = crops.from_memory(kept, stage, batch_size=batch_size)
        assert_same_stream(ours, by_stages(elements, stage, batch_size=batch_size))
    # It is these places that are used, not the mask once more.
    without = [{key: one[key] for key in one if key != "mask"} for one in kept]
    expected = [x["image"].tolist() for x in by_stages(elements, stage).as_numpy_iterator()]
    ours = crops.from_memory(without, stage).as_numpy_iterator()
    assert [x["image"].tolist() for x in ours] == expected


def test_a_mask_is_looked_through_once(monkeypatch):
    from helpers.crops import laws

    looked, find = [], laws.Sides.find
    monkeypatch.setattr(laws.Sides, "find", lambda law, one: looked.append(1) or find(law, one))
    elements = [element(n, (7, 8)) for n in range(4)]
    order = tf.data.Dataset.range(4).repeat(5)
    list(crops.from_memory(elements, crops.pos_neg((2, 2), seed=5), indices=order))
    assert len(looked) == 4


@pytest.mark.parametrize("name", stages())
def test_an_element_is_asked_for_when_it_is_due(name):
    cache, later = ([element(n, (9, 8)) for n in some] for some in ((0, 1), (7, 8)))
    stage = stages()[name]
    data = crops.from_memory(cache, stage)
    first = [x["label"].item() for x in data.as_numpy_iterator()]
    cache[:] = later
    second = list(data.as_numpy_iterator())
    assert first == [0, 1] and [x["label"].item() for x in second] == [7, 8]


def test_places_of_an_element_that_left_are_not_taken_for_a_new_one():
    wholes = [element(n, (6, 6)) for n in range(30)]
    cache, ids = [wholes[0]], []
    stage = crops.pos_neg((1, 1), negative=0, seed=5)
    data = crops.from_memory(cache, stage, indices=indices([0] * 5))
    for whole in wholes:
        cache[0] = None  # its arrays go; the next ones often take their places in memory
        cache[0] = {name: value[:] if name in ("image", "mask") else value
                    for name, value in whole.items()}  # fmt: skip
        ids.append((id(cache[0]["image"]), id(cache[0]["mask"])))
        assert all(x["mask"].item() > 0 for x in data.as_numpy_iterator())
    assert len(set(ids)) < len(ids)


# Memory


def test_batches_that_are_kept_stay_as_they_are():
    """Large ones: TensorFlow copies small arrays, whatever their place."""
    elements = [element(n, (40, 50, 3)) for n in range(6)]
    stage = crops.random((32, 48, 2), per_image=2, seed=1)
    data = crops.from_memory(
        elements, stage, indices=tf.data.Dataset.range(6).repeat(10), batch_size=3, dtype="float32"
    )
    kept = list(data.prefetch(3))
    copies = list(by_stages(elements * 10, stage, batch_size=3, dtype="float32"))
    assert len(kept) == 20
    for ours, theirs in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


def test_voxels_are_written_again_into_the_memory_of_batches_that_are_gone(monkeypatch):
    """How often depends on how many a busy machine holds at once; without it, all would be new."""
    found, used, calls = memory.Buffers._free, [], []

    def free(self, size):
        one = found(self, size)
        calls.append(size)
        if not any(seen() is one for seen in used):
            used.append(weakref.ref(one))
        return one

    monkeypatch.setattr(memory.Buffers, "_free", free)
    elements = [element(n, (40, 50, 3)) for n in range(3)]
    order = tf.data.Dataset.range(3).repeat()
    stage = crops.random((32, 48, 2), seed=1)
    data = crops.from_memory(elements, stage, indices=order, batch_size=2, dtype="float32")
    for _ in data.take(300).as_numpy_iterator():
        pass
    assert len(calls) >= 600
    assert 0 < len(used) < 0.9 * len(calls)


def test_elements_are_let_go_with_the_dataset():
    class Voxels(np.ndarray):
        pass

    elements = [element(0, (6, 6))]
    elements[0]["image"] = elements[0]["image"].view(Voxels)
    watched = weakref.ref(elements[0]["image"])
    data = crops.from_memory(elements, crops.pos_neg((2, 2), seed=1))
    list(data)
    del elements, data
    gc.collect()
    assert watched() is None


CHAINS = {
    "as it is": lambda data: data,
    "prefetched": lambda data: data.prefetch(1),
    "unbatched": lambda data: data.unbatch(),
    "zipped": lambda data: tf.data.Dataset.zip(tf.data.Dataset.range(9), data).map(lambda i, x: x),
    "sampled": lambda data: tf.data.Dataset.sample_from_datasets([data, data], seed=1),
    "captured": lambda data: tf.data.Dataset.range(2).flat_map(lambda i: data),
}


@pytest.mark.parametrize("name", CHAINS)
def test_and_not_before_the_last_of_what_was_made_of_it(name):
    elements = [element(n, (6, 6)) for n in range(4)]
    data = CHAINS[name](crops.from_memory(elements, crops.random((2, 2), seed=1), batch_size=2))
    del elements
    gc.collect()
    found = iter(data)
    del data
    gc.collect()
    assert {len(x["image"].shape) for x in found} == {3 if name == "unbatched" else 4}


def test_a_dataset_may_be_made_within_another():
    elements = [element(n, (6, 6)) for n in range(4)]
    stage = crops.pos_neg((2, 2), seed=1)

    def made(number):
        order = tf.data.Dataset.range(2 * number, 2 * number + 2)
        return crops.from_memory(elements, stage, indices=order, batch_size=2)

    data = tf.data.Dataset.range(2).interleave(made, cycle_length=2)
    assert [x["label"].tolist() for x in data.as_numpy_iterator()] == [[0, 1], [2, 3]]


# What is refused


def refused(code, elements, stage, **options):
    with pytest.raises(CourseDataError) as error:
        crops.from_memory(elements, stage, **options)
    assert error.value.code == code
    return str(error.value)


@pytest.mark.parametrize("name", ["random", "pos_neg", "class_balanced"])
def test_an_element_that_is_too_small_is_named_before_the_first_batch(name):
    elements = [element(0, (6, 6)), element(1, (6, 6)), element(2, (2, 6))]
    text = refused("CROP_TOO_LARGE", elements, stages()[name])
    assert "(2, 6)" in text and "element 2, case c-2" in text


def test_masks_that_do_not_fit_or_are_not_there_are_named():
    for wrong in (np.zeros((6, 5, 1), np.uint8), np.zeros((6, 6), np.uint8)):
        elements = [element(0, (6, 6)), element(1, (6, 6)) | {"mask": wrong}]
        assert "case c-1" in refused("MASK_MISMATCH", elements, stages()["random"])
    without = [element(0, (6, 6), mask=False)]
    refused("NO_PAIR", without, stages()["pos_neg"])
    assert len(list(crops.from_memory(without, stages()["random"]))) == 1


def test_places_of_another_shape_are_refused():
    (one,) = memory.gather(dataset_of([element(0, (6, 6))]).apply(crops.locate()))
    one["image"], one["mask"] = one["image"][1:], one["mask"][1:]
    text = refused("SHAPE_MISMATCH", [one], stages()["pos_neg"])
    assert "(6, 6)" in text and "(5, 6)" in text and "c-0" in text


def test_nothing_to_cut_is_refused():
    refused("EMPTY_LIST", [], stages()["random"])


@pytest.mark.parametrize("name", ["pos_neg", "class_balanced"])
def test_a_mask_without_a_voxel_to_draw_stops_the_run_with_its_case(name):
    nothing = {
        "pos_neg": crops.pos_neg((2, 2), image_threshold=9999, seed=1),
        "class_balanced": crops.class_balanced((2, 2), classes=[7, 8], per_image=1, seed=1),
    }[name]
    elements = [element(3, (6, 6)) | {"mask": np.zeros((6, 6, 1), np.uint8)}]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[NO_PLACE\].*case c-3"):
        list(crops.from_memory(elements, nothing, batch_size=1))


def test_what_comes_into_a_cache_later_is_checked_as_well():
    cache = [element(0, (6, 6))]
    data = crops.from_memory(cache, stages()["random"])
    for wrong, message in (
        (element(9, (2, 6)), r"CROP_TOO_LARGE.*case c-9"),
        (element(9, (6, 6), dtype=np.float32), r"image \(float32\)"),
        ({"image": cache[0]["image"]}, "has the fields"),
    ):
        cache[0] = wrong
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            list(data)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_that_is_not_there_is_refused(index):
    elements = [element(n, (6, 6)) for n in range(3)]
    data = crops.from_memory(elements, stages()["random"], indices=indices([0, index]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"index {index} .* of 3 elements"):
        list(data)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size is 1 or more"),
        ({"dtype": "uint8"}, "int16, which uint8 cannot hold"),
        ({"stage": crops.locate()}, "other stages are applied to the result"),
        ({"stage": lambda data: data}, "stage is what crops.random"),
        ({"indices": tf.data.Dataset.range(3).batch(2)}, "single whole numbers"),
        ({"indices": tf.data.Dataset.from_tensors(0.5)}, "single whole numbers"),
        ({"indices": [0, 1]}, "single whole numbers"),
        ({"elements": [np.zeros((6, 6, 1))]}, "elements are dicts"),
        ({"elements": [{"mask": np.zeros((6, 6, 1))}]}, "elements are dicts"),
        ({"elements": [element(0, (6, 6)), element(1, (6, 6), mask=False)]}, "has the fields"),
        ({"elements": [element(0, (6, 6)), element(1, (6, 6, 6))]}, "are cropped, not shape"),
        (
            {"elements": [element(n, (6, 6), spots=np.zeros(n)) for n in (1, 2)], "batch_size": 2},
            "`spots` differs in shape",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused_at_once(wrong, message):
    arguments = {"elements": [element(0, (6, 6))], "stage": stages()["random"]} | wrong
    with pytest.raises(ValueError, match=message):
        crops.from_memory(arguments.pop("elements"), arguments.pop("stage"), **arguments)


def test_fields_of_other_shapes_go_through_one_by_one():
    elements = [element(n, (6, 6), spots=np.zeros(n, np.float32)) for n in (1, 2)]
    data = crops.from_memory(elements, stages()["random"])
    assert data.element_spec["spots"].shape.as_list() == [None]
    assert [len(x["spots"]) for x in data] == [1, 2]


def test_a_stage_shows_its_arguments_and_cannot_be_changed():
    stage = crops.pos_neg((3, 4), positive=3, per_image=2, seed=1)
    assert stage == crops.pos_neg((3, 4), positive=3, per_image=2, seed=1)
    assert stage != crops.pos_neg((3, 4), positive=2, per_image=2, seed=1)
    assert "size=(3, 4)" in repr(stage) and "probability=0.75" in repr(stage)
    for one in (stage, crops.centre((3, 4))):
        with pytest.raises(AttributeError):
            one.size = (1, 1)


def test_a_number_of_python_is_not_cut_to_the_first_ones_dtype():
    elements = [{**element(0, (4, 4)), "weight": 1}, {**element(1, (4, 4)), "weight": 0.5}]
    with pytest.raises(ValueError, match="weight"):
        crops.from_memory(elements, crops.random((2, 2), seed=1))
