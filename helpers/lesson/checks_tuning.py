"""Checks of notebook 04: reading a timeline, the sliding window, and a pipeline made faster."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from helpers.lesson.verdicts import VerdictError, ask, ask_array, cause, close, few, judged, wrong

SHAPE, CROP = (40, 96, 96), (16, 32, 32)
VOLUMES, SHARDS, BATCH = 8, 2, 4
EPOCHS, ROUNDS = 3, 3
FACTOR = 5  # times as fast as the slow pipeline
BATCHES = VOLUMES // BATCH  # in an epoch
LONG = 10  # times as many batches in a measurement of the answer, which is quick


@judged
def waiting(answer: Callable) -> str:
    """Notebook 04: `answer(starts, stops)` is the share of the time in which no step ran.

    Both are float64 `[steps]`, in seconds and in order. The time is that from the first start to
    the last stop.
    """
    rng = np.random.default_rng(43)
    for trial in range(20):
        steps = int(rng.integers(2, 9))
        step_s = rng.uniform(0.02, 0.1, steps)
        gap_s = rng.uniform(0.01, 0.3, steps) * (trial != 3)  # once, it never waits
        starts = 5 * trial + np.cumsum(gap_s + step_s) - step_s
        stops = starts + step_s
        total = stops[-1] - starts[0]
        expected = 1 - step_s.sum() / total
        found = float(ask_array(answer, starts, stops, shape=()))
        if close(found, expected) or abs(found - expected) < 1e-6:
            continue
        seconds = f"from {few(starts, 3, '.2f')} to {few(stops, 3, '.2f')} s"
        shown = f"you returned {found:.4g} for steps {seconds}"
        if close(found, 1 - expected):
            raise wrong(f"{shown}: that is the share in which a step ran; the rest is waiting")
        if close(found, 100 * expected):
            raise wrong(f"{shown}: that is in per cent; a share lies between 0 and 1")
        if close(found, expected * total):
            raise wrong(f"{shown}: those are seconds; divide by the {total:.4g} s in all")
        if close(found, 1 - step_s.sum() / stops[-1]):
            raise wrong(f"{shown}: the clock began before the first step; measure from its start")
        if expected and close(found, expected * total / step_s.sum()):
            raise wrong(f"{shown}: waiting over working; divide by the time in all")
        raise wrong(f"{shown}: the steps took {step_s.sum():.4g} of {total:.4g} s")
    return "right on 20 trainings that the check made up, one of which never waits"


@judged
def epochs_to_see_all(answer: Callable) -> str:
    """Notebook 04: `answer(total, cache_num, replace_rate)` counts epochs until all were used."""
    trials = list(_caches(np.random.default_rng(47)))
    for total, cache_num, rate in trials:
        replaced = min(math.ceil(cache_num * rate), total - cache_num)
        left = total - cache_num
        expected = 1 + (-(-left // replaced) if left else 0)
        try:
            found = float(ask_array(answer, total, cache_num, rate, shape=()))
        except VerdictError as verdict:
            if "ZeroDivision" in verdict.line and not left:
                why = f"a cache of all {total} items replaces none: they are seen in epoch 1"
                raise wrong(why) from None
            raise
        if found == expected:
            continue
        shown = f"you returned {found:g} for {total} items, {cache_num} in the cache, {rate:g} new"
        if left and found == expected - 1:
            raise wrong(f"{shown}: so many swaps; before the first of them there is an epoch")
        if found == math.ceil(total / replaced if replaced else total / cache_num):
            raise wrong(f"{shown}: the first epoch has {cache_num} items, not {replaced}")
        if found != int(found):
            raise wrong(f"{shown}: epochs are whole; {replaced} items are replaced each time")
        raise wrong(
            f"{shown}: the first epoch shows {cache_num}, each further one {replaced} new ones; "
            f"all are seen in epoch {expected}"
        )
    return f"right on {len(trials)} caches that the check made up, from small ones to whole sets"


def _caches(rng: np.random.Generator) -> Iterator[tuple[int, int, float]]:
    yield 100, 50, 0.1
    yield 20, 20, 0.25
    yield 30, 25, 0.5
    made = 3
    while made < 30:
        total = int(rng.integers(10, 400))
        cache_num = int(rng.integers(2, total))
        text = str(rng.choice(["0.05", "0.1", "0.2", "0.25", "0.5"]))
        # Where rounding of binary fractions would make one more of it, nobody is to blame.
        if math.ceil(cache_num * float(text)) == math.ceil(cache_num * Fraction(text)):
            made += 1
            yield total, cache_num, float(text)


@judged
def faster(answer: Callable) -> str:
    """Notebook 04: `answer(files, shape, crop)` gives what `slow` does, five times as fast.

    The files are records of `write_slow`. The dataset is endless; its elements are batches of 4:
    `image` float32 `[4, *crop, 1]`, crops from anywhere in volumes of mean 0 and standard
    deviation 1, `case` int64 `[4]`. Each epoch has each volume once, and new crops.
    """
    try:  # writing the files takes seconds, which a stub need not wait for
        ask(answer, [], SHAPE, CROP)
    except VerdictError as verdict:
        if verdict.line.startswith("✎"):
            raise
    with tempfile.TemporaryDirectory() as root:
        files, volumes = write_slow(Path(root))
        dataset = ask(answer, list(files), SHAPE, CROP)
        found = _judge_elements(dataset, volumes)
        ratios = _ratios(iter(slow(files, SHAPE, CROP)), found)
    ratio = statistics.median(ratios)
    said = f"{ratio:.2g} times as fast as the slow one"
    if ratio < 1.1:
        raise wrong(f"the elements are right, but no faster ({said}); what is done in each epoch?")
    if ratio < FACTOR:
        raise wrong(
            f"the elements are right, and {said}; asked for is {FACTOR}: what gives the same "
            "result in each epoch need not be done in each"
        )
    return f"{said}, with the same volumes, new crops in each epoch, and nothing lost"


def write_slow(folder: Path) -> tuple[list[str], np.ndarray]:
    """The files of the exercise: GZIP, float lists, two shards.

    Returns:
        Their paths, and the volumes `[n, z, y, x]` as float32, by their `case`.
    """
    import tensorflow as tf

    volumes = np.random.default_rng(53).integers(-1024, 3072, (VOLUMES, *SHAPE))
    volumes = volumes.astype(np.float32)
    files = [str(folder / f"{shard}.tfrecord") for shard in range(SHARDS)]
    for shard, file in enumerate(files):
        with tf.io.TFRecordWriter(file, "GZIP") as writer:
            for case in range(shard, VOLUMES, SHARDS):
                voxels = tf.train.FloatList(value=volumes[case].ravel())
                number = tf.train.Int64List(value=[case])
                feature = {
                    "image": tf.train.Feature(float_list=voxels),
                    "case": tf.train.Feature(int64_list=number),
                }
                features = tf.train.Features(feature=feature)
                writer.write(tf.train.Example(features=features).SerializeToString())
    return files, volumes


def slow(files: list[str], shape: tuple[int, ...], crop: tuple[int, ...]):
    """The pipeline that the exercise begins with: all work for each crop, one step at a time."""
    import tensorflow as tf

    def parse(record):
        spec = {
            "image": tf.io.FixedLenFeature([*shape, 1], tf.float32),
            "case": tf.io.FixedLenFeature([], tf.int64),
        }
        return tf.io.parse_single_example(record, spec)

    def standardise(element):
        mean, variance = tf.nn.moments(element["image"], axes=[0, 1, 2, 3])
        return element | {"image": (element["image"] - mean) / tf.sqrt(variance)}

    def random_crop(element):
        return element | {"image": tf.image.random_crop(element["image"], [*crop, 1])}

    plain = tf.autograph.experimental.do_not_convert
    dataset = tf.data.TFRecordDataset(files, "GZIP").map(plain(parse)).map(plain(standardise))
    dataset = dataset.map(plain(random_crop)).repeat().batch(BATCH)
    options = tf.data.Options()
    options.experimental_optimization.map_parallelization = False
    options.experimental_optimization.inject_prefetch = False
    return dataset.with_options(options)


def _judge_elements(dataset, volumes: np.ndarray) -> Iterator:
    """Compare some epochs, and give the iterator for what comes after them."""
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset):
        raise wrong(f"a tf.data.Dataset is asked for, you returned {dataset!r:.60}")
    spec = dataset.element_spec
    if not isinstance(spec, Mapping) or not {"image", "case"} <= set(spec):
        raise wrong(f'elements are dicts with "image" and "case"; yours are {spec!r:.80}')
    if spec["image"].dtype != tf.float32:
        raise wrong(f"the slow pipeline gives float32, yours {spec['image'].dtype.name}")
    iterator = dataset.as_numpy_iterator()
    spread = np.sqrt(volumes.var(axis=(1, 2, 3), dtype=np.float64))
    means = volumes.mean(axis=(1, 2, 3), dtype=np.float64)
    seen = []
    for epoch in range(1, EPOCHS + 1):
        cases, starts = [], []
        for _ in range(BATCHES):
            try:
                batch = next(iterator)
            except StopIteration:
                raise wrong(
                    f"your dataset ends in epoch {epoch}; the slow one repeats without end"
                ) from None
            except Exception as error:
                raise wrong(f"reading your dataset raises {cause(error)}") from error
            if batch["image"].shape != (BATCH, *CROP, 1):
                raise wrong(
                    f"batches of shape {(BATCH, *CROP, 1)} are asked for, in each of them the same "
                    f"number; found {batch['image'].shape}"
                )
            for image, case in zip(batch["image"][..., 0], batch["case"], strict=True):
                stored = image * spread[case] + means[case]
                starts.append(_found(stored, volumes[case]))
                cases.append(int(case))
        if sorted(cases) != list(range(VOLUMES)):
            raise wrong(
                f"epoch {epoch} brings the cases {sorted(cases)}; the slow one brings each of the "
                f"{VOLUMES} once: shuffle before repeat, and leave none out"
            )
        seen.append([start for _, start in sorted(zip(cases, starts, strict=True))])
    if seen[0] == seen[1]:
        raise wrong(
            "the second epoch brings the very crops of the first: the cache stands behind the "
            "random crop, and has frozen it"
        )
    if len({start for epoch in seen for start in epoch}) < VOLUMES:
        raise wrong("most crops start at the same few places; the slow ones start anywhere")
    return iterator


def _found(stored: np.ndarray, volume: np.ndarray) -> tuple[int, ...]:
    """Where a crop lies in its volume."""
    room = np.subtract(volume.shape, stored.shape) + 1
    candidates = volume[tuple(slice(n) for n in room)]
    for start in np.argwhere(np.abs(candidates - stored[0, 0, 0]) < 0.5):
        box = tuple(slice(a, a + n) for a, n in zip(start, stored.shape, strict=True))
        if np.allclose(volume[box], stored, atol=0.5):
            return tuple(int(n) for n in start)
    raise wrong(
        "a crop is no part of its volume: after the slow steps a volume, not a crop, has mean 0 "
        "and standard deviation 1, and `case` tells which it is"
    )


def _ratios(slow_one: Iterator, answered: Iterator) -> list[float]:
    """How many times as fast the answer is, in rounds that take turns."""

    def seconds(iterator: Iterator, batches: int) -> float:
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        return (time.perf_counter() - start) / batches

    next(slow_one)
    seconds(answered, BATCHES)
    return [seconds(slow_one, BATCHES) / seconds(answered, LONG * BATCHES) for _ in range(ROUNDS)]
