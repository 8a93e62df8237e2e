"""Every check passes right answers of several kinds and says what is wrong with wrong ones."""

import hashlib
import itertools
import random
from pathlib import Path

import numpy as np
import pydicom
import pytest

from helpers import dicom, intensity, quiet
from helpers.lesson import checks, checks_tuning
from tests import imbalance_answers, segmentation_answers, tuning_answers

quiet.tensorflow_greeting()
import tensorflow as tf  # noqa: E402

WRITTEN = []


@pytest.fixture(autouse=True)
def _the_slow_files_are_written_once(tmp_path_factory, monkeypatch):
    # Those of the exercise `faster` take longer to write than it takes to judge most answers.
    write = checks_tuning.write_slow

    def once(folder):
        if not WRITTEN:
            WRITTEN.append(write(tmp_path_factory.mktemp("slow")))
        return WRITTEN[0]

    monkeypatch.setattr(checks_tuning, "write_slow", once)


def said(capsys, check, answer) -> str:
    check(answer)
    return capsys.readouterr().out.strip()


def height_mm(header) -> float:
    row, column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    return float(np.dot(np.cross(row, column), np.array(header.ImagePositionPatient, float)))


def gaps_by(height, usual):
    def answer(headers):
        heights = np.sort([height(header) for header in headers])
        gaps = np.diff(heights)
        step = usual(gaps)
        return [
            low + step * k
            for low, gap in zip(heights, gaps, strict=False)
            for k in range(1, round(gap / step) if step else 0)
        ]

    return answer


def middle_of_largest_gap(headers):
    heights = np.sort([height_mm(header) for header in headers])
    i = np.diff(heights).argmax()
    return [(heights[i] + heights[i + 1]) / 2]


def indices_of_missing(headers):
    heights = np.sort([height_mm(header) for header in headers])
    step = np.median(np.diff(heights))
    there = np.round((heights - heights[0]) / step).astype(int)
    return np.setdiff1d(np.arange(there[-1] + 1), there)


def rescaled(slope, intercept, dtype=np.float64):
    def answer(slices):
        return np.stack(
            [
                (s.pixel_array * slope(s, slices) + intercept(s, slices)).astype(dtype)
                for s in slices
            ]
        )

    return answer


own_slope = lambda s, _: float(s.RescaleSlope)  # noqa: E731
own_intercept = lambda s, _: float(s.RescaleIntercept)  # noqa: E731


def whiten_in_place(image):
    head = image[image > 0]
    image -= head.mean()
    image /= head.std()
    return image


def round_trip(*dtypes, check=np.array_equal):
    """The first of some dtypes that passes a test."""

    def answer(array):
        with np.errstate(invalid="ignore"):
            return next(array.astype(d) for d in (*dtypes, "f4") if check(array.astype(d), array))

    return answer


def by_range(*dtypes, floats="f4"):
    """The first integer dtype that has room between the least and the greatest value."""

    def answer(array):
        for name in dtypes:
            limits = np.iinfo(name)
            if limits.min <= array.min() and array.max() <= limits.max:
                return array.astype(name)
        return array.astype(floats)

    return answer


def by_hand(array):
    whole = array.dtype.kind in "biu" or bool((array == np.floor(array)).all())
    answer = by_range("u1", "i2", "u2", "i4") if whole else by_range()
    return answer(array)


def as_it_came(array):
    """Keeps an integer array of two bytes, in whatever order they lie."""
    return array if array.dtype.kind in "iu" and array.dtype.itemsize == 2 else by_hand(array)


def parser(dtype="int16", order=None, channel=-1, default=0.0, key="image", **changes):
    """A parser with one thing, or nothing, wrong."""

    def answer(serialized):
        import tensorflow as tf

        fallback = {} if default is None else {"default_value": [default] * 3}
        spec = {
            key: tf.io.FixedLenFeature([], tf.string),
            "shape": tf.io.FixedLenFeature([3], tf.int64),
            "spacing": tf.io.FixedLenFeature([3], tf.float32, **fallback),
        }
        fields = tf.io.parse_single_example(serialized, spec)
        image = tf.io.decode_raw(fields[key], dtype, little_endian=changes.get("little", True))
        shape = fields["shape"] if order is None else tf.gather(fields["shape"], order)
        shape = changes.get("shape", shape)
        image = tf.reshape(image, shape)
        if channel is not None:
            image = tf.expand_dims(image, channel)
        image = tf.cast(image, changes.get("cast", image.dtype))
        image = changes.get("after", tf.identity)(image)
        spacing = changes.get("spacing", lambda mm: mm)(fields["spacing"])
        return {changes.get("name", "image"): image, "spacing": spacing}

    return answer


def parse_with_python(keep_rank):
    """Not TensorFlow's parser, but its generated classes; only good in map if wrapped."""

    def read(serialized):
        import tensorflow as tf

        feature = tf.train.Example.FromString(np.asarray(serialized).item()).features.feature
        shape = [*feature["shape"].int64_list.value, 1]
        image = np.frombuffer(feature["image"].bytes_list.value[0], "<i2").reshape(shape)
        spacing = feature["spacing"].float_list.value or [0, 0, 0]
        return image.astype(np.int16), np.array(spacing, np.float32)

    def answer(serialized):
        import tensorflow as tf

        image, spacing = tf.numpy_function(read, [serialized], (tf.int16, tf.float32))
        if keep_rank:
            image = tf.ensure_shape(image, (None, None, None, 1))
        return {"image": image, "spacing": spacing}

    def eager_only(serialized):
        image, spacing = read(serialized.numpy())
        return {"image": image, "spacing": spacing}

    return eager_only if keep_rank is None else answer


def faulty(*tests):
    """Names of the shards that one of the tests finds wrong; each gets the path and the entry."""

    def answer(folder, manifest):
        return [
            name
            for name, entry in manifest.items()
            if any(test(Path(folder, name), entry) for test in tests)
        ]

    return answer


def absent(path, _):
    return not path.exists()


def other_size(path, entry):
    return absent(path, 0) or path.stat().st_size != entry["bytes"]


def other_hash(path, entry):
    return hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]


def first_digits(path, entry):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8] != entry["sha256"][:8]


def none_if_whole(folder, manifest):
    return faulty(absent, other_hash)(folder, manifest) or None


def nearly_equal(array):
    """`np.allclose` in place of equality."""
    with np.errstate(invalid="ignore"):
        narrow = (array.astype(name) for name in ("u1", "i2", "u2", "i4", "f4"))
        return next(one for one in narrow if np.allclose(one, array))


def nothing_for_fractions(array):
    return None if (array != np.rint(array)).any() else by_hand(array)


def unpacking(serialized):
    import tensorflow as tf

    spec = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "shape": tf.io.FixedLenFeature([3], tf.int64),
        "spacing": tf.io.FixedLenFeature([3], tf.float32, [0.0] * 3),
    }
    fields = tf.io.parse_single_example(serialized, spec)
    image = tf.io.decode_raw(fields["image"], tf.int16)
    image = tf.reshape(image, [*fields["shape"], 1])
    return {"image": image, "spacing": fields["spacing"]}


def records_in(path):
    import tensorflow as tf

    return sum(1 for _ in tf.data.TFRecordDataset(str(path)))


def tensorflow_complains(path, _):
    import tensorflow as tf

    try:
        records_in(path)
    except (tf.errors.DataLossError, tf.errors.NotFoundError):
        return True
    return False


def other_count(path, entry):
    return tensorflow_complains(path, entry) or records_in(path) != entry["records"]


def sound(folder, manifest):
    return set(manifest) - set(faulty(other_size, other_hash)(folder, manifest))


def flip_of(draw=None, decide=tf.cond, axis=-2, mask_axis=None, cast=None, **changes):
    """Flips an image and its mask with one thing, or nothing, wrong."""
    draw = draw or (lambda seed: tf.random.stateless_uniform([], seed) < 0.5)
    mask_axis = axis if mask_axis is None else mask_axis

    def answer(image, mask, seed):
        flipped = tf.reverse(image, [axis]), tf.reverse(mask, [mask_axis])
        chosen = draw(seed)
        other = changes["mask_draw"](seed) if "mask_draw" in changes else chosen
        image = decide(chosen, lambda: flipped[0], lambda: image)
        mask = decide(other, lambda: flipped[1], lambda: mask)
        return image, mask if cast is None else tf.cast(mask, cast)

    return answer


def python_if(chosen, yes, no):
    return yes() if chosen else no()


def flip_with_an_if(image, mask, seed):
    if tf.random.stateless_uniform([], seed) > 0.5:
        image, mask = image[..., ::-1, :], mask[..., ::-1, :]
    return image, mask


def flip_by_whole_number(image, mask, seed):
    sides = tf.random.stateless_uniform([], seed, maxval=2, dtype=tf.int32)
    columns = tf.range(image.shape[-2])
    columns = tf.where(sides == 1, columns[::-1], columns)
    return tf.gather(image, columns, axis=-2), tf.gather(mask, columns, axis=-2)


def flip_together(image, mask, seed):
    """Through one tensor, in which the ids are fractions for a while."""
    both = tf.concat([image, tf.cast(mask, tf.float32)], -1)
    both = tf.where(tf.random.stateless_normal([], seed) > 0, tf.reverse(both, [-2]), both)
    return both[..., :-1], tf.cast(both[..., -1:], tf.uint8)


def flip_each_slice(image, mask, seed):
    """Takes a volume for a batch of pictures."""
    flip = tf.image.stateless_random_flip_left_right
    return flip(image, seed), flip(mask, seed)


def flip_with_python(keep_rank):
    def flip(image, mask, seed):
        step = int(np.random.default_rng(seed).choice([-1, 1]))
        return np.ascontiguousarray(image[..., ::step, :]), mask[..., ::step, :].copy()

    def answer(image, mask, seed):
        shapes = image.shape, mask.shape
        image, mask = tf.numpy_function(flip, [image, mask, seed], (tf.float32, tf.uint8))
        if keep_rank:
            image, mask = tf.ensure_shape(image, shapes[0]), tf.ensure_shape(mask, shapes[1])
        return image, mask

    return answer


def stateful(seed):
    return tf.random.uniform([]) < 0.5


def counted():
    """Flips every second pair that comes, whatever its seed."""
    calls = itertools.count()
    turn = lambda: np.bool_(next(calls) % 2)  # noqa: E731
    return flip_of(lambda seed: tf.ensure_shape(tf.numpy_function(turn, [], tf.bool), []))


def as_list(image, mask, seed):
    return list(flip_with_an_if(image, mask, seed))


def half(threshold):
    return lambda seed: tf.random.stateless_uniform([], seed) < threshold


def start_of(middle=lambda size: size // 2, low=0, high=0, clamp=np.clip, last=lambda start: start):
    """A crop's start with one thing, or nothing, wrong."""

    def answer(centre, size, shape):
        return last(clamp(centre - middle(size), low, shape - size + high))

    return answer


def start_by_loop(centre, size, shape):
    starts = []
    for c, s, n in zip(centre, size, shape, strict=True):
        starts.append(int(min(max(c - s // 2, 0), n - s)))
    return tuple(starts)


def start_by_moving_the_centre(centre, size, shape):
    centre = np.maximum(centre, size // 2)
    return np.minimum(centre, shape - (size + 1) // 2) - size // 2


def start_in_place(centre, size, shape):
    centre -= size // 2
    return np.clip(centre, 0, shape - size)


def none_at_the_edge(centre, size, shape):
    start = centre - size // 2
    if (start >= 0).all() and (start + size <= shape).all():
        return start


def never_from_zero(centre, size, shape):
    start = start_by_moving_the_centre(centre, size, shape)
    return np.where(centre > 0, np.maximum(start, 1), start)


def from_zero_if_outside(start, low, high):
    return np.where((start < low) | (start > high), 0, start)


def dataset_of(*steps):
    """A dataset of paths, passed through steps that each know `read` and `augment`."""

    def answer(paths, read, augment):
        dataset = tf.data.Dataset.from_tensor_slices(paths)
        for step in steps:
            dataset = step(dataset, read, augment)
        return dataset

    return answer


reading = lambda dataset, read, _: dataset.map(read)  # noqa: E731
augmenting = lambda dataset, _, augment: dataset.map(augment)  # noqa: E731
caching = lambda dataset, *_: dataset.cache()  # noqa: E731
batching = lambda dataset, *_: dataset.batch(2)  # noqa: E731


def shuffling(dataset, *_):
    return dataset.shuffle(6, seed=1)


def repeating(count=None):
    return lambda dataset, *_: dataset.repeat(count)


def taking(count):
    return lambda dataset, *_: dataset.take(count)


def reading_at_once(dataset, read, _):
    return dataset.interleave(
        lambda path: tf.data.Dataset.from_tensors(path).map(read), num_parallel_calls=2
    )


def in_memory(paths, read, augment):
    images = tf.stack([read(tf.constant(path))["image"] for path in paths])
    elements = tf.data.Dataset.from_tensor_slices({"image": images})
    return elements.map(augment, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def stale(paths, read, augment):
    """As if a file cache of an earlier run answered."""
    images = np.zeros((len(paths), 1, 3, 1), np.float32)
    images[:, 0, 0, 0] = range(len(paths))
    return tf.data.Dataset.from_tensor_slices({"image": images}).map(augment)


def failing(dataset, *_):
    return dataset.map(lambda path: {"image": tf.io.read_file(path + " lost")})


RIGHT = (
    tuning_answers.RIGHT
    | imbalance_answers.RIGHT
    | segmentation_answers.RIGHT
    | {
        "flip_pair": [
            flip_of(),
            flip_of(draw=half(0.48)),
            flip_of(decide=lambda chosen, yes, no: tf.where(chosen, yes(), no())),
            flip_of(decide=python_if),
            flip_with_an_if,
            flip_by_whole_number,
            flip_together,
            flip_with_python(keep_rank=True),
        ],
        "crop_start": [
            start_of(),
            start_of(last=list),
            start_of(clamp=tf.clip_by_value),
            start_by_loop,
            start_by_moving_the_centre,
        ],
        "cached_then_augmented": [
            dataset_of(reading, caching, augmenting),
            dataset_of(shuffling, reading, caching, shuffling, augmenting),
            dataset_of(reading, caching, shuffling, repeating(), augmenting),
            dataset_of(reading, caching, augmenting, repeating(2)),
            dataset_of(reading_at_once, caching, augmenting),
            in_memory,
        ],
        "narrowest": [
            round_trip("u1", "i2", "u2", "i4"),
            round_trip("u1", "u2", "i2", "i4"),
            by_hand,
        ],
        "parse": [
            parser(),
            parser(spacing=lambda mm: mm + 0),
            parse_with_python(keep_rank=True),
        ],
        "find_faulty": [
            faulty(absent, other_hash),
            faulty(other_size, other_hash),
            lambda *given: {Path(given[0], name) for name in faulty(absent, other_hash)(*given)},
        ],
        "organ_ml": [
            lambda mask, mm: np.count_nonzero(mask) * np.prod(mm) / 1000,
            lambda mask, mm: float((mask > 0).sum() * (mm[0] * mm[1] * mm[2]) * 1e-3),
        ],
        "activity": [
            rescaled(own_slope, own_intercept),
            lambda slices: np.stack(
                [pydicom.pixels.apply_rescale(s.pixel_array, s) for s in slices]
            ),
            rescaled(own_slope, own_intercept, np.float32),
        ],
        "missing_heights": [
            gaps_by(height_mm, np.median),
            gaps_by(height_mm, np.min),
            lambda headers: np.array(gaps_by(height_mm, np.min)(headers))[::-1],
        ],
        "whiten_head": [
            lambda image: (image - image[image > 0].mean()) / image[image > 0].std(),
            lambda image: ((image - image[image > 0].mean()) / image[image > 0].std()).astype("f4"),
            lambda image: intensity.whiten(image, image > 0),
        ],
    }
)

WRONG = (
    tuning_answers.WRONG
    | imbalance_answers.WRONG
    | segmentation_answers.WRONG
    | {
        "flip_pair": [
            (flip_of(mask_draw=lambda seed: half(0.5)(seed + 1)), "image and mask part company in"),
            (flip_of(draw=stateful, mask_draw=stateful), "image and mask part company in"),
            (flip_of(draw=stateful), "the same seed flips or not as it happens"),
            (counted(), "the same seed flips or not as it happens"),
            (flip_of(lambda _: np.random.rand() < 0.5, python_if), "NumPy is drawn once and stays"),
            (flip_of(lambda _: random.random() < 0.5, python_if), "random or NumPy is drawn once"),
            (flip_of(axis=0), "volumes [z, y, x, c]: the image is flipped along z; left and right"),
            (flip_of(axis=1), "volumes [z, y, x, c]: the image is flipped along y; left and right"),
            (flip_of(axis=2), "pictures [y, x, c]: the image is flipped along channel"),
            (flip_of(axis=-1), "flipped along channel; left and right lie along x"),
            (flip_of(mask_axis=1), "the mask is flipped along y"),
            (flip_of(mask_axis=-1), "the mask stays as it is where the image is flipped"),
            (flip_of(mask_draw=lambda seed: tf.constant(True)), "image and mask part company in"),
            (
                flip_of(draw=lambda seed: tf.constant(False), mask_draw=half(0.5)),
                "the image stays as it is where the mask is flipped",
            ),
            (
                flip_of(draw=lambda seed: tf.constant(True)),
                "every pair is flipped; asked for is one",
            ),
            (flip_of(draw=lambda seed: tf.constant(False)), "no pair is flipped; asked for is one"),
            (flip_of(draw=half(0.2)), "are flipped; asked for is one half"),
            (flip_of(cast="float32"), "the mask was uint8, yours is float32: class ids stay whole"),
            (
                lambda image, mask, seed: (image + 1, mask),
                "the image comes out with other values than went in",
            ),
            (lambda image, mask, seed: (tf.cast(image, tf.int16), mask), "a flip changes no value"),
            (lambda image, mask, seed: (image[..., 0], mask), "the image had shape (3, 4, 5, 2)"),
            (lambda image, mask, seed: (image, ...), "the mask comes back as Ellipsis"),
            (lambda image, mask, seed: {"image": image, "mask": mask}, "found dict"),
            (as_list, "packs a list into one tensor"),
            (flip_each_slice, "some slices flipped and others not"),
            (
                flip_of(lambda seed: np.random.default_rng(seed.numpy()).random() < 0.5, python_if),
                "Dataset.map raises AttributeError",
            ),
            (flip_with_python(keep_rank=False), "lost its number of axes"),
        ],
        "crop_start": [
            (start_of(clamp=lambda start, *_: start), "outside the image: the first voxel is 0"),
            (
                start_of(clamp=lambda start, low, high: np.maximum(start, 0)),
                "ends outside the image",
            ),
            (
                start_of(clamp=lambda start, low, high: np.minimum(start, high)),
                "the first voxel is 0",
            ),
            (start_of(high=-1), "(shape - size), nearer to the centre"),
            (never_from_zero, "it can start at 0, nearer to the centre"),
            (
                lambda *given: start_of()(np.minimum(given[0], given[2] - 2), *given[1:]),
                "has lost its centre",
            ),
            (
                start_of(clamp=lambda start, low, high: np.clip(start, low, np.maximum(high, 1))),
                "ends outside the image: the last start that fits is 0",
            ),
            (start_of(clamp=from_zero_if_outside), "has lost its centre"),
            (start_of(clamp=lambda start, low, high: start % (high + 1)), "has lost its centre"),
            (start_of(middle=lambda size: 0), "the centre itself: it begins half its size before"),
            (start_of(middle=lambda size: (size + 1) // 2), "room on both sides, and"),
            (start_of(middle=lambda size: (size - 1) // 2), "room on both sides, and"),
            (start_of(middle=lambda size: -(size // 2)), "room on both sides, and"),
            (start_of(middle=lambda size: size / 2), "that is between two voxels; divide with //"),
            (
                start_of(last=lambda start: start * 1.0),
                "of dtype float64: an index is a whole number",
            ),
            (start_of(last=lambda start: start[::-1]), "along an axis of"),
            (start_of(last=lambda start: start[0]), "one for each axis"),
            (start_of(last=lambda start: [slice(one) for one in start]), "a start for each axis"),
            (start_of(last=lambda start: start * np.nan), "starts at nan"),
            (start_in_place, "changes the array"),
            (none_at_the_edge, "a branch without return"),
        ],
        "cached_then_augmented": [
            (dataset_of(reading, augmenting, caching), "is frozen in it"),
            (dataset_of(reading, augmenting, caching, shuffling, repeating()), "is frozen in it"),
            (dataset_of(reading, augmenting), "read was called 18 times for 6 files"),
            (dataset_of(caching, reading, augmenting), "put cache() behind it"),
            (dataset_of(reading, repeating(3), caching, augmenting), "no repeat in front"),
            (dataset_of(reading, caching, taking(5), augmenting), "5 elements in one pass, from 6"),
            (dataset_of(reading, caching), "elements that augment has not seen"),
            (dataset_of(reading, augmenting, caching, augmenting), "more than once on its way"),
            (dataset_of(reading, caching, augmenting, batching), "the elements are batches"),
            (dataset_of(reading, caching, batching, shuffling, augmenting), "raises"),
            (
                dataset_of(taking(1), reading, caching, repeating(6), augmenting),
                "epoch 1 has 1 of the 6 cases",
            ),
            (dataset_of(), "each element should be what augment returns"),
            (dataset_of(failing), "reading the dataset raises NotFoundError"),
            (stale, "a cache file of an earlier run?"),
            (
                lambda paths, read, augment: [augment(read(path)) for path in paths],
                "a tf.data.Dataset",
            ),
        ],
        "narrowest": [
            (nearly_equal, "20000.125 became 20000: the fraction is gone"),
            (nothing_for_fractions, "a branch without return"),
            (
                lambda array: array.astype(np.float32),
                "bool from 0 to 1: float32 holds them, but so",
            ),
            (lambda array: array.astype(np.int16), "so does uint8, in fewer bytes"),
            (by_range("u1", "i2", "u2", "i4"), "the fraction is gone"),
            (round_trip("u1", "i2", "i4"), "int32 holds them, but so does uint16"),
            (by_range("u1", "i2", "u2"), "float32 has 24 binary digits"),
            (lambda array: array.astype(np.uint8), "-1024 became 0: there are no negative"),
            (
                lambda array: array.astype("u1" if array.max() < 4096 else "i4"),
                "no negative numbers",
            ),
            (lambda array: array.astype("i2" if array.min() < 0 else "u1"), "it does not fit"),
            (as_it_came, "its bytes still lie in big-endian order"),
            (lambda array: array.astype(np.min_scalar_type(array.min())), "not one of uint8"),
            (lambda array: by_hand(array).dtype, "asked for is the array"),
            (lambda array: by_hand(array).tobytes(), "an array is asked for"),
            (lambda array: by_hand(array).ravel(), "shape"),
        ],
        "parse": [
            (unpacking, "a tensor cannot be unpacked there"),
            (parser(default=None), "without spacing stops your parser"),
            (parser(default=1.0), "0 says: not known"),
            (parser(channel=None), "the channel is missing"),
            (parser(channel=0), "the channel comes last"),
            (parser(dtype="uint16"), "the image is uint16; what was written is int16"),
            (parser(dtype="float32"), "values, but the requested shape"),
            (parser(cast="float32"), "the image is float32"),
            (parser(little=False), "the wrong way round"),
            (parser(order=[2, 1, 0]), "in another order"),
            (parser(shape=[5, 3, 2]), "asked for is"),
            (parser(after=lambda image: image[::-1]), "not in their places"),
            (parser(after=lambda image: image + 1), "the first voxel is"),
            (parser(key="image/encoded"), "asks for 'image/encoded'; the records hold"),
            (parser(name="volume"), "found ['spacing', 'volume']"),
            (parser(spacing=lambda mm: mm[::-1]), "the spacing is"),
            (parser(spacing=lambda mm: mm[:, None]), "not float32 (3,)"),
            (parse_with_python(keep_rank=None), "there is no .numpy() there"),
            (parse_with_python(keep_rank=False), "lost its number of axes"),
            (lambda serialized: serialized, "a dict with the keys"),
        ],
        "find_faulty": [
            (faulty(absent, first_digits), "only the last digits differ"),
            (none_if_whole, "an empty list is asked for"),
            (faulty(absent), "TensorFlow reads it without a word"),
            (faulty(other_size), "one of them is another"),
            (faulty(tensorflow_complains), "TensorFlow reads it without a word"),
            (
                faulty(tensorflow_complains, lambda path, _: path.stat().st_size == 0),
                "has lost its last record: TensorFlow reads it to a clean end",
            ),
            (faulty(other_count), "only the SHA-256 can tell"),
            (faulty(other_hash), "raises FileNotFoundError: a missing or damaged shard is to be"),
            (faulty(lambda path, _: records_in(path) != 3), "raises NotFoundError: a missing"),
            (
                faulty(absent, lambda path, _: records_in(path) != 3),
                "raises DataLossError: a missing",
            ),
            (lambda folder, manifest: [], "is not there; the manifest lists it"),
            (lambda folder, manifest: sorted(manifest), "exactly as it was written"),
            (sound, "exactly as it was written"),
            (lambda folder, manifest: len(faulty(other_size)(folder, manifest)), "a list of names"),
            (lambda folder, manifest: "train", "a list of names"),
            (lambda folder, manifest: ["manifest.json"], "names out of the manifest"),
        ],
        "organ_ml": [
            (lambda mask, mm: mask.sum(), "number of voxels"),
            (lambda mask, mm: np.count_nonzero(mask) * np.prod(mm), "mm³"),
            (lambda mask, mm: mask.sum() * np.prod(mm) / 1000, "added up the ids"),
            (lambda mask, mm: np.count_nonzero(mask) * mm[2] ** 3 / 1000, "not cubes"),
            (lambda mask, mm: np.count_nonzero(mask) * sum(mm) / 1000, "it is"),
            (lambda mask, mm: mask * mm[0], "shape"),
            (lambda mask, mm: "12 ml", "array of numbers"),
        ],
        "activity": [
            (rescaled(lambda s, _: 1, lambda s, _: 0), "stored values"),
            (
                rescaled(
                    lambda s, all_: float(all_[0].RescaleSlope),
                    lambda s, all_: float(all_[0].RescaleIntercept),
                ),
                "each has its own",
            ),
            (rescaled(own_slope, lambda s, _: 0), "intercept is missing"),
            (
                lambda slices: np.stack(
                    [
                        (s.pixel_array + float(s.RescaleIntercept)) * float(s.RescaleSlope)
                        for s in slices
                    ]
                ),
                "after the slope",
            ),
            (
                lambda slices: np.stack(
                    [
                        (s.pixel_array * own_slope(s, 0) + own_intercept(s, 0))
                        .astype("i8")
                        .astype("i2")
                        for s in slices
                    ]
                ),
                "wrap around",
            ),
            (lambda slices: rescaled(own_slope, own_intercept)(slices)[::-1], "slope x stored"),
            (lambda slices: slices[0].pixel_array, "shape"),
        ],
        "missing_heights": [
            (middle_of_largest_gap, "two in a row are two"),
            (lambda headers: [], "two in a row are two"),
            (gaps_by(lambda h: float(h.ImagePositionPatient[2]), np.median), "same z"),
            (indices_of_missing, "indices"),
            (lambda headers: 12.5, "list of heights"),
            (lambda headers: [height_mm(h) for h in headers], "missing are"),
        ],
        "whiten_head": [
            (lambda image: (image - image.mean()) / image.std(), "air included"),
            (
                lambda image: (image - image[image > 0].mean()) / image[image > 0].var(),
                "square root",
            ),
            (
                lambda image: np.where(
                    image > 0, (image - image[image > 0].mean()) / image[image > 0].std(), 0
                ),
                "same formula",
            ),
            (whiten_in_place, "changes the array"),
            (lambda image: image / image.max(), "asks for 0 and 1"),
            (lambda image: image * np.nan, "NaN"),
        ],
    }
)


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
def test_any_right_answer_passes(name, answer, capsys):
    assert said(capsys, getattr(checks, name), answer).startswith("✓ ")


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [(name, *case) for name, cases in WRONG.items() for case in cases],
)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(name, answer, words, capsys):
    line = said(capsys, getattr(checks, name), answer)
    assert line.startswith("✗ ")
    assert words in line


@pytest.mark.parametrize("name", [*RIGHT, "volume_dataset"])
def test_an_untouched_stub_is_not_an_error(name, capsys, monkeypatch):
    monkeypatch.delenv("COURSE_CHECKS", raising=False)
    line = said(capsys, getattr(checks, name), lambda *_: ...)
    assert line.startswith("✎ not attempted yet: replace the ... with your code")


@pytest.mark.parametrize("name", [*RIGHT, "volume_dataset"])
def test_an_answer_that_raises_is_reported_not_raised(name, capsys):
    line = said(capsys, getattr(checks, name), lambda *_: 1 / 0)
    assert line == "✗ your code raises ZeroDivisionError: division by zero"


def test_strict_checks_raise_unless_the_answer_is_right(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_CHECKS", "strict")
    checks.organ_ml(RIGHT["organ_ml"][0])
    for answer in (lambda *_: None, lambda mask, mm: mask.sum()):
        with pytest.raises(AssertionError):
            checks.organ_ml(answer)
    assert capsys.readouterr().out.count("\n") == 3


def read_image(path):
    return dicom.read_series(path.decode()).voxels[..., np.newaxis].astype(np.float32)


def mapped(read, state_shape=True, windowed=True):
    def answer(folders, shape):
        import tensorflow as tf

        def element(path):
            hu = tf.numpy_function(read, [path], tf.float32)
            hu = tf.ensure_shape(hu, (*shape, 1)) if state_shape else hu
            return {"image": intensity.window(hu, 40, 400) if windowed else hu}

        return tf.data.Dataset.from_tensor_slices(folders).map(element)

    return answer


def generated(endless=True, key="image", dtype="float32"):
    def answer(folders, shape):
        import tensorflow as tf

        left = list(folders)

        def elements():
            for path in folders if endless else [left.pop() for _ in range(len(left))]:
                hu = dicom.read_series(path).voxels[..., np.newaxis]
                yield {key: intensity.window(hu, 40, 400).astype(dtype)}

        spec = {key: tf.TensorSpec((*shape, 1), dtype)}
        return tf.data.Dataset.from_generator(elements, output_signature=spec)

    return answer


def stored_in_order(path):
    series = dicom.scan(path.decode()).series[0]
    stack = np.stack([pydicom.dcmread(file).pixel_array for file in series.files])
    return stack[..., np.newaxis].astype(np.float32)


def by_name(path):
    files = sorted(Path(path.decode()).iterdir())
    stack = np.stack([pydicom.dcmread(file).pixel_array - 1024.0 for file in files])
    return stack[..., np.newaxis].astype(np.float32)


def unreadable(path):
    raise OSError("the disk is on fire")


@pytest.mark.parametrize("answer", [mapped(read_image), generated()])
def test_both_ways_to_make_a_dataset_pass(answer, capsys):
    assert said(capsys, checks.volume_dataset, answer).startswith("✓ right on 3 series")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (mapped(read_image, state_shape=False), "static shape"),
        (mapped(by_name), "sort by position"),
        (mapped(stored_in_order), "not Hounsfield units"),
        (mapped(read_image, windowed=False), "these are Hounsfield units"),
        (mapped(lambda path: read_image(path).astype(np.float64)), "returns double"),
        (mapped(lambda path: read_image(path) / 255, windowed=False), "the window gives others"),
        (mapped(lambda path: read_image(str(path).encode())), "decode()"),
        (mapped(unreadable), "the disk is on fire"),
        (generated(endless=False), "second time through"),
        (generated(key="volume"), 'key "image"'),
        (generated(dtype="int16"), "asked for is float32"),
        (lambda folders, shape: [read_image(folder.encode()) for folder in folders], "dict"),
    ],
)
def test_a_wrong_dataset_is_told_what_is_wrong_with_it(answer, words, capsys):
    line = said(capsys, checks.volume_dataset, answer)
    assert line.startswith("✗ ")
    assert words in line


def test_the_slow_pipeline_repeats_all_its_work_for_each_crop(tmp_path):
    files, volumes = checks_tuning.write_slow(tmp_path)
    batch = next(iter(tuning_answers.slow(files, checks_tuning.SHAPE, checks_tuning.CROP)))
    assert batch["image"].shape == (4, *checks_tuning.CROP, 1)
    read = tuning_answers.pipeline()(files, checks_tuning.SHAPE, checks_tuning.CROP)
    for element in read.as_numpy_iterator():
        assert np.array_equal(element["image"][..., 0], volumes[element["case"]])


@pytest.mark.parametrize(
    ("times", "words"),
    [(0.9, "no faster (0.9 times"), (4.9, "4.9 times as fast as the slow one; asked for is 5")],
)
def test_an_answer_is_judged_by_how_many_times_as_fast_it_is(times, words, capsys, monkeypatch):
    monkeypatch.setattr(checks_tuning, "_ratios", lambda *_: [0.1, times, 99.0])
    line = said(capsys, checks.faster, tuning_answers.RIGHT["faster"][0])
    assert line.startswith("✗ the elements are right, ")
    assert words in line
