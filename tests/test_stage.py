"""What stages are built on: a seed for each element, checks; and any stage runs elsewhere."""

import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from helpers import augment, crops, labels, pipeline, stage
from tests.augmented import SURE, ids, refusal

import tensorflow as tf  # isort: skip


def uniform(element, seed):
    return tf.random.stateless_uniform([2], seed, alg="philox")


def seeds(element, seed):
    return seed


def made(function=seeds, *, count=2000, seed=1, name="stage", **options):
    numbers = tf.data.Dataset.range(count)
    return stage.seeded(numbers, function, seed=seed, name=name, **options)


def stream(*args, **options):
    """One pass over a dataset that is made anew."""
    return np.stack(list(made(*args, **options).as_numpy_iterator()))


def test_each_element_gets_an_integer_pair_of_its_own_and_names_share_none():
    found, other = stream(), stream(seed=2)
    assert found.shape == (2000, 2) and found.dtype == np.int64
    assert len(np.unique([*found[:, 0], *other[:, 0]])) == 4000
    np.testing.assert_array_equal(found, stream())
    crop, augmented = stream(uniform, name="crop"), stream(uniform, name="augment")
    assert not (crop == augmented).any()
    assert stats.pearsonr(crop[:, 0], augmented[:, 0]).pvalue > SURE
    # What is made from the seeds is uniform, and neighbours are independent.
    assert stats.kstest(crop.ravel(), "uniform").pvalue > SURE
    table = np.histogram2d(crop[:-1, 0], crop[1:, 0], bins=5, range=[[0, 1]] * 2)[0]
    assert stats.chisquare(table.ravel()).pvalue > SURE


def test_the_stream_does_not_depend_on_how_many_threads_work_on_it():
    def slow_at_first(element, seed):
        # The first elements take longest, so that threads would overtake one another.
        steps = tf.where(element < 8, 4000, 1)
        total = tf.while_loop(lambda i, t: i < steps, lambda i, t: (i + 1, t), (0, 0.0))[1]
        return uniform(element, seed) + total

    alone = stream(slow_at_first, count=64, num_parallel_calls=1)
    np.testing.assert_array_equal(stream(slow_at_first, count=64, num_parallel_calls=8), alone)
    np.testing.assert_array_equal(stream(slow_at_first, count=64), alone)


def test_seeds_at_the_ends_are_streams_of_their_own_and_beyond_is_refused():
    ends = [stream(seed=seed, count=8)[:, 0] for seed in (0, 1, 2**31 - 2)]
    assert len(np.unique(ends)) == 24
    for seed in (-1, 2**31 - 1, 0.5):
        with pytest.raises(ValueError, match="from 0 to 2147483646"):
            made(seed=seed)
    with pytest.raises(TypeError, match="seed"):
        stage.seeded(tf.data.Dataset.range(1), seeds, name="stage")


def test_the_next_epoch_draws_anew_and_epochs_are_the_same_when_made_anew():
    def epochs():
        dataset = made(count=10)
        return [np.stack(list(dataset.as_numpy_iterator())) for _ in range(3)]

    np.testing.assert_array_equal(epochs(), epochs())
    repeated = stage.seeded(tf.data.Dataset.range(10).repeat(3), seeds, seed=1, name="stage")
    for found in (np.concatenate(epochs()), list(made(count=10).repeat(3)), list(repeated)):
        assert len(np.unique(found, axis=0)) == 30


def test_length_order_name_and_structure_of_elements_stay():
    pairs = tf.data.Dataset.zip(tf.data.Dataset.range(50), tf.data.Dataset.range(5, 55))
    dataset = stage.seeded(pairs, lambda pair, seed: {"sum": pair}, seed=1, name="some.stage")
    assert dataset.cardinality() == 50 and dataset._name == "some_stage"
    found = [one["sum"] for one in dataset.as_numpy_iterator()]
    assert found == [(i, i + 5) for i in range(50)]


def test_a_watcher_gets_each_stage_of_its_block_also_if_that_fails_and_no_other():
    seen = []

    def wrap(name, function):
        seen.append(name)
        return lambda *given: function(*given) + 100

    def stages():
        plain = stage.mapped(tf.data.Dataset.range(3), lambda x: x, name="plain")
        return stage.seeded(plain, lambda x, seed: x, seed=1, name="drawn")

    with stage.watched(wrap):
        watched = stages()
    with pytest.raises(KeyError), stage.watched(wrap):
        raise KeyError
    assert [*watched, *stages()] == [200, 201, 202, 0, 1, 2] and seen == ["plain", "drawn"]


def spec(image=(4, 5, 1), mask=None, dtype=tf.uint8, **case):
    """An element_spec, with a mask and a case if they have a shape."""
    masks = {} if mask is None else {"mask": tf.TensorSpec(mask, dtype)}
    return {"image": tf.TensorSpec(image)} | masks | {k: tf.TensorSpec(v) for k, v in case.items()}


SPECS = [
    # element_spec, batched, what is said (nothing if it fits)
    (spec(), False, None),
    (spec(mask=(4, 5, 1)), False, None),
    (spec(mask=(None, None, 1)), False, None),
    (spec((2, 4, 5, 1), case=(2,)), True, None),
    (tf.TensorSpec((4, 5, 1)), False, "dicts"),
    ({"mask": tf.TensorSpec((4, 5, 1), tf.uint8)}, False, "dicts"),
    (spec(), True, r"b, y, x, c"),
    (spec((5, 1)), False, "unbatch"),
    (spec((2, 4, 5, 1), case=(2,)), False, "unbatch"),
    (spec((2, 4, 5, 1), case=()), True, "batches.*case"),
    (spec(mask=(4, 6, 1)), False, "MASK_MISMATCH"),
    (spec(mask=(4, 5)), False, "MASK_MISMATCH"),
    (spec(mask=(4, 5, 2)), False, "MASK_MISMATCH"),
    (spec(mask=(4, 5, 1), dtype=tf.float32), False, "MASK_MISMATCH.*float32"),
]


def test_elements_that_no_stage_can_take_are_refused_before_the_first():
    said = [(*row, refusal(stage.checked, row[0], batched=row[1])) for row in SPECS]
    assert not [row for row in said if (row[2] is None) != (row[3] is None)]
    assert not [row for row in said if row[2] and not re.search(row[2], row[3])]
    for numbers in (tf.data.Dataset.from_tensors(3.0), tf.data.Dataset.range(4).batch(2), [1, 2]):
        assert "whole numbers" in refusal(stage.check_indices, numbers)
    stage.check_indices(tf.data.Dataset.range(3))


# Elsewhere


def elements(**fields):
    return tf.data.Dataset.from_tensor_slices(fields)


def volumes():
    image = np.random.default_rng(0).normal(40, 100, (3, 12, 14, 16, 1)).astype(np.float32)
    spacing = np.float32([[2, 1, 1]] * 3)
    return elements(image=image, mask=ids((3, 12, 14, 16), 4), spacing=spacing, case=[*"abc"])


def photographs():
    return elements(image=ids((6, 16, 20, 1, 3))[..., 0, :, 0], mask=ids((6, 16, 20), 2)).batch(3)


def labelled(*label):
    return elements(image=np.ones((6, 4, 4, 1)), label=np.int32([*label] * 3))


BOTH = crops.pos_neg((3, 4, 5), per_image=2, seed=2)
BALANCED = crops.class_balanced((3, 4, 5), classes=[1, 2], seed=3)
SKIN = augment.stage(augment.dermoscopy(), seed=1, batched=True)
STAGES = {
    # Name: a function that gives a dataset which a stage made. Each runs in another process.
    "augment, volumes": lambda: volumes().apply(augment.stage(augment.ct(), seed=1)),
    "augment, batches": lambda: photographs().apply(SKIN),
    "locate": lambda: volumes().apply(crops.locate(image_threshold=5)),
    "random": lambda: volumes().apply(crops.random((3, 4, 5), seed=1)),
    "pos_neg with runs": lambda: volumes().apply(crops.locate()).apply(BOTH),
    "pos_neg without": lambda: volumes().apply(BOTH),
    "class_balanced": lambda: volumes().apply(BALANCED),
    "centre": lambda: volumes().apply(crops.centre((16, 4, 5), fill="min")),
    "merge_batch_dims": lambda: volumes().apply(BOTH).batch(3).apply(crops.merge_batch_dims()),
    "heads": lambda: labelled([0, 2], [1, -1]).apply(labels.heads([1, 3])),
    "pairs": lambda: volumes().apply(pipeline.pairs("mask")),
}
ELSEWHERE = """
import sys
import tensorflow as tf
for folder in sys.argv[1:]:
    want = tf.data.Dataset.load(folder + "/want")
    graph = tf.io.read_file(folder + "/graph")
    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph)
    found = tf.data.experimental.from_variant(variant, want.element_spec)
    for one, other in zip(found, want, strict=True):
        tf.nest.map_structure(lambda a, b: tf.debugging.assert_equal(a, b, folder), one, other)
assert "helpers" not in sys.modules
"""


def test_every_stage_runs_in_another_process_which_knows_nothing_of_ours(tmp_path):
    for name, function in STAGES.items():
        dataset = function()
        assert int(dataset.cardinality()) > 0
        dataset.save(str(tmp_path / name / "want"))
        variant = tf.data.experimental.to_variant(dataset)
        graph = tf.raw_ops.DatasetToGraphV2(input_dataset=variant, external_state_policy=1).numpy()
        assert b"PyFunc" not in graph, name
        (tmp_path / name / "graph").write_bytes(graph)
    folders = [str(tmp_path / name) for name in STAGES]
    program = [sys.executable, "-c", ELSEWHERE, *folders]
    ended = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
