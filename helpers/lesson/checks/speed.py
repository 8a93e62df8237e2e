"""Checks of notebook 04: the sliding window, and a pipeline made faster."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from helpers.lesson.checks.answers import Check, Wrong, ask, attempted, cause, check

# --- when has everybody been seen? ---


def caches(rng: np.random.Generator) -> Iterator[tuple]:
    """Items, those in the cache, and a rate that a computer does not round up by mistake."""
    yield from ((100, 50, 0.1), (20, 20, 0.25), (30, 25, 0.5))
    for _ in range(20):
        total = int(rng.integers(10, 400))
        yield total, int(rng.integers(2, total)), float(rng.choice([0.0625, 0.125, 0.25, 0.5]))


def epochs(
    of: Callable = lambda total, cache_num: cache_num,
    seen: Callable = lambda total, cache_num: cache_num,
    whole: Callable = math.ceil,
) -> Callable:
    """Epochs, by what is replaced a part of, by what the first one shows, and by rounding."""

    def answer(total: int, cache_num: int, rate: float) -> float:
        if total == cache_num:
            return 1
        replaced = min(math.ceil(of(total, cache_num) * rate), total - cache_num)
        return 1 + whole((total - seen(total, cache_num)) / replaced)

    return answer


def not_rounded(total: int, cache_num: int, rate: float) -> float:
    return 1 + (total - cache_num) / (cache_num * rate)


def by_what_is_left(total: int, cache_num: int, rate: float) -> int:
    left = total - cache_num
    return 1 + math.ceil(left / min(math.ceil(cache_num * rate), left))


epochs_to_see_all = check(
    epochs(),
    caches,
    {
        "so many swaps; before the first of them there is an epoch": lambda *given: (
            epochs()(*given) - 1
        ),
        "the first epoch shows the whole cache, not as many items as are replaced": (
            lambda total, cache_num, rate: math.ceil(total / math.ceil(cache_num * rate))
        ),
        "the first epoch shows the cache; those are no new items": epochs(seen=lambda *_: 0),
        "epochs are whole": not_rounded,
        "epochs are whole, and what is left over takes one more": epochs(whole=math.floor),
        "the rate is a fraction of the cache, not of all items": epochs(of=lambda total, _: total),
        "a cache of all items replaces none, and they are seen in epoch 1": by_what_is_left,
    },
    tell=lambda total, cache_num, rate: (
        f"{total} items, {cache_num} in the cache, {math.ceil(rate * cache_num)} of them replaced"
    ),
)

# --- five times faster ---

SHAPE, CROP = (40, 96, 96), (16, 32, 32)
VOLUMES, SHARDS, BATCH = 8, 2, 4
BATCHES = VOLUMES // BATCH  # in an epoch
EPOCHS = 3  # that are looked at
LATER = 40  # epochs in which nothing has to be read
ROUNDS, LONG = 3, 10  # of measuring; so many times as many batches of the answer, which is quick


def write_slow(folder: Path) -> tuple[list[str], np.ndarray]:
    """The files of the exercise: GZIP, float lists, two shards.

    Returns:
        Their paths, and the volumes `[n, z, y, x]` as float32, by their `case`.
    """
    import tensorflow as tf

    volumes = np.random.default_rng(53).integers(-1024, 3072, (VOLUMES, *SHAPE))
    volumes = volumes.astype(np.float32)
    files = [str(Path(folder, f"{shard}.tfrecord")) for shard in range(SHARDS)]
    for shard, file in enumerate(files):
        with tf.io.TFRecordWriter(file, "GZIP") as writer:
            for case in range(shard, VOLUMES, SHARDS):
                voxels = tf.train.FloatList(value=volumes[case].ravel())
                feature = {
                    "image": tf.train.Feature(float_list=voxels),
                    "case": tf.train.Feature(int64_list=tf.train.Int64List(value=[case])),
                }
                features = tf.train.Features(feature=feature)
                writer.write(tf.train.Example(features=features).SerializeToString())
    return files, volumes


def steps(order: str = "standardise crop repeat batch") -> Callable:
    """A pipeline of named steps behind `read`; with the defaults, the one that is slow."""

    def answer(files: list[str], shape: tuple, crop: tuple):
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

        def corner(element):
            return element | {"image": tf.slice(element["image"], [0] * 4, [*crop, 1])}

        plain = tf.autograph.experimental.do_not_convert
        known = {
            "standardise": lambda dataset: dataset.map(plain(standardise)),
            "crop": lambda dataset: dataset.map(plain(random_crop)),
            "corner": lambda dataset: dataset.map(plain(corner)),
            "cache": lambda dataset: dataset.cache(),
            "repeat": lambda dataset: dataset.repeat(),
            "batch": lambda dataset: dataset.batch(BATCH),
        }
        dataset = tf.data.TFRecordDataset(files, "GZIP").map(plain(parse))
        for step in order.split():
            dataset = known[step](dataset)
        options = tf.data.Options()
        options.experimental_optimization.map_parallelization = False
        options.experimental_optimization.inject_prefetch = False
        return dataset.with_options(options)

    return answer


slow = steps()
AGAIN = "the files are read again in every epoch"
FROZEN = (
    "the second epoch brings the very crops of the first: the cache stands behind the random crop"
)


def judge_speed(answer: Callable) -> str:
    """`answer(files, shape, crop)` gives what `slow` does, without reading a file twice.

    Judged by the work that is left, since seconds depend on what else the machine does: when a few
    epochs have been seen, the files go, and whoever needs them again fails.
    """
    attempted(answer)  # writing the files takes seconds, which a stub need not wait for
    with tempfile.TemporaryDirectory() as root:
        files, volumes = write_slow(Path(root))
        dataset = ask(answer, list(files), SHAPE, CROP)
        found = batches_of(dataset)
        judge_epochs(found, volumes)
        ratio = measured(iter(slow(files, SHAPE, CROP)), found)
        for file in files:
            Path(file).unlink()
        try:
            for _ in range(LATER * BATCHES):
                next(found)
        except Exception as error:
            raise Wrong(
                f"the elements are right, but {AGAIN} ({ratio:.2g} times as fast as the slow one): "
                "what gives the same result in each epoch need not be done in each"
            ) from error
    return (
        "the same volumes, new crops in each epoch, nothing lost, and no file read twice: just now "
        f"{ratio:.2g} times as fast as the slow one"
    )


def batches_of(dataset) -> Iterator:
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset):
        raise Wrong(f"a tf.data.Dataset is asked for, you returned {dataset!r:.60}")
    spec = dataset.element_spec
    if not isinstance(spec, Mapping) or not {"image", "case"} <= set(spec):
        raise Wrong(f'elements are dicts with "image" and "case"; yours are {spec!r:.80}')
    if spec["image"].dtype != tf.float32:
        raise Wrong(f"the slow pipeline gives float32, yours {spec['image'].dtype.name}")
    return dataset.as_numpy_iterator()


def judge_epochs(iterator: Iterator, volumes: np.ndarray) -> None:
    seen = [epoch_of(iterator, volumes, epoch) for epoch in range(1, EPOCHS + 1)]
    if seen[0] == seen[1]:
        raise Wrong(f"{FROZEN}, and has frozen it")
    if len({start for epoch in seen for start in epoch}) < VOLUMES:
        raise Wrong("most crops start at the same few places; the slow ones start anywhere")


def epoch_of(iterator: Iterator, volumes: np.ndarray, epoch: int) -> list[tuple]:
    """Where the crops of an epoch start, by case."""
    starts = []
    for _ in range(BATCHES):
        try:
            batch = next(iterator)
        except StopIteration:
            why = "the slow one repeats without end"
            raise Wrong(f"your dataset ends in epoch {epoch}; {why}") from None
        except Exception as error:
            raise Wrong(f"reading your dataset raises {cause(error)}") from error
        if batch["image"].shape != (BATCH, *CROP, 1):
            raise Wrong(
                f"batches of shape {(BATCH, *CROP, 1)} are asked for, in each of them the same "
                f"number; found {batch['image'].shape}"
            )
        for image, case in zip(batch["image"][..., 0], batch["case"].tolist(), strict=True):
            volume = volumes[case].astype(float)
            starts.append((case, place_of(image * volume.std() + volume.mean(), volume)))
    if sorted(case for case, _ in starts) != list(range(VOLUMES)):
        raise Wrong(
            f"epoch {epoch} brings the cases {sorted(case for case, _ in starts)}; the slow one "
            f"brings each of the {VOLUMES} once: shuffle before repeat, and leave none out"
        )
    return sorted(starts)


def place_of(stored: np.ndarray, volume: np.ndarray) -> tuple[int, ...]:
    """Where a crop lies in its volume."""
    room = np.subtract(volume.shape, stored.shape) + 1
    candidates = volume[tuple(map(slice, room))]
    for start in np.argwhere(np.abs(candidates - stored[0, 0, 0]) < 0.5).tolist():
        box = tuple(slice(a, a + n) for a, n in zip(start, stored.shape, strict=True))
        if np.allclose(volume[box], stored, atol=0.5):
            return tuple(start)
    raise Wrong(
        "a crop is no part of its volume: after the slow steps a volume, not a crop, has mean 0 "
        "and standard deviation 1, and `case` tells which it is"
    )


def measured(slow_one: Iterator, answered: Iterator) -> float:
    """How many times as fast the answer is, in rounds that take turns; told, not judged."""

    def seconds(iterator: Iterator, batches: int) -> float:
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        return (time.perf_counter() - start) / batches

    next(slow_one)
    rounds = range(ROUNDS)
    turns = [(seconds(slow_one, BATCHES), seconds(answered, LONG * BATCHES)) for _ in rounds]
    return statistics.median(before / after for before, after in turns)


faster = Check(
    judge_speed,
    steps("standardise cache repeat crop batch"),
    {
        AGAIN: slow,
        "a crop is no part of its volume": steps("cache crop standardise repeat batch"),
        FROZEN: steps("standardise crop cache repeat batch"),
        "the second epoch brings the very crops of the first": steps(
            "standardise cache corner repeat batch"
        ),
        "the slow one repeats without end": steps("standardise cache crop batch"),
        "batches of shape": steps("standardise cache crop repeat"),
        "shuffle before repeat, and leave none out": "a case comes twice in an epoch",
    },
)
