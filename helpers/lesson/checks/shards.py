"""Checks of notebook 03: dtypes that lose nothing, a parser, and shards that are not as written."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from helpers.lesson.checks.answers import Wrong, ask, attempted, check, mapped, ranked, taken

# --- the narrowest type ---

NARROW = ("uint8", "int16", "uint16", "int32", "float32")


def arrays(rng: np.random.Generator) -> Iterator[tuple]:
    """Arrays as they come out of readers, wider than they need to be."""

    def whole(low: int, high: int, dtype: str) -> np.ndarray:
        """Random whole numbers; both ends of the range occur."""
        values = rng.integers(low, high, (3, 4, 5), np.int64, endpoint=True)
        values.flat[:2] = low, high
        return values.astype(dtype)

    one_half, one_eighth = whole(0, 200, "float64"), whole(0, 20_000, "float64")
    one_half.flat[-1], one_eighth.flat[-1] = 100.5, 20_000.125  # np.allclose would not see this
    yield (whole(0, 1, "bool"),)
    yield (whole(0, 255, "int64"),)  # class ids and the ignore id
    yield (whole(-1024, 3071, "float64"),)  # CT
    yield (np.zeros((3, 4, 5), np.float32),)
    yield (whole(-1024, 3071, ">i2"),)
    yield (whole(-1, 1, "int32"),)
    yield (whole(0, 65535, "int32"),)  # stored values of a PET
    yield (whole(0, 65535, ">u2"),)
    yield (whole(0, 200_000, "float64"),)
    yield (whole(0, 2**24 + 1, "int64"),)
    yield (whole(-100, 90_000, "float64") / 16,)
    yield (one_half,)
    yield (one_eighth,)


def first_of(*dtypes: str, equal: Callable = np.array_equal) -> Callable:
    """The first dtype that holds all values, by some test of equality; or else float32."""

    def answer(array: np.ndarray) -> np.ndarray:
        made = [array.astype(dtype) for dtype in (*dtypes, "float32")]
        return next((one for one in made if equal(one, array)), made[-1])

    return answer


def of_range(*dtypes: str) -> Callable:
    """The first dtype that has room between the least and the greatest value."""

    def answer(array: np.ndarray) -> np.ndarray:
        limits = [(np.iinfo(dtype).min, np.iinfo(dtype).max, dtype) for dtype in dtypes]
        fits = (d for low, high, d in limits if low <= array.min() and array.max() <= high)
        return array.astype(next(fits, "float32"))

    return answer


def swapped(array: np.ndarray) -> np.ndarray:
    return array if array.dtype in (">i2", ">u2") else first_of(*NARROW)(array)


def stored(found, array: np.ndarray) -> tuple:
    if not isinstance(found, np.ndarray):
        raise Wrong(f"asked for is the array, converted to it; you returned {found!r:.60}")
    if found.dtype.name not in NARROW:
        raise Wrong(f"you chose {found.dtype.name}, which is not one of {', '.join(NARROW)}")
    return found, found.dtype.itemsize, found.dtype.isnative


def from_to(array: np.ndarray) -> str:
    return f"{array.dtype.name} from {float(array.min()):g} to {float(array.max()):g}"


narrowest = check(
    first_of(*NARROW),
    arrays,
    {
        "float32 holds them, but so does an integer, in fewer bytes": first_of(),
        "there are no negative numbers in uint8": lambda array: array.astype(np.uint8),
        "there are no negative numbers in uint8; look at the minimum, too": lambda array: (
            array.astype("u1" if array.max() < 4096 else "i4")
        ),
        "so does uint8, in fewer bytes; and larger numbers than 32767 do not fit": lambda array: (
            array.astype(np.int16)
        ),
        "there are larger numbers than 255; they do not fit": lambda array: array.astype(
            "i2" if array.min() < 0 else "u1"
        ),
        "int32 holds them, but so does uint16": first_of("uint8", "int16", "int32"),
        "np.allclose is not equality: the fraction is gone": first_of(*NARROW, equal=np.allclose),
        "the range fits, but the fraction is gone": of_range(*NARROW[:4]),
        "the fraction is gone, and float32 has 24 binary digits": of_range(
            "uint8", "int16", "uint16"
        ),
        "float32 has 24 binary digits, int32 has room": first_of("uint8", "int16", "uint16"),
        "asked for is the array, converted to it": lambda array: first_of(*NARROW)(array).dtype,
        "its bytes still lie in big-endian order, and tobytes() would write them so": swapped,
    },
    read=stored,
    same=lambda found, wanted: np.array_equal(found[0], wanted[0]) and found[1:] == wanted[1:],
    tell=from_to,
)

# --- a parser ---


def records(rng: np.random.Generator) -> Iterator[tuple]:
    """A case: serialized examples of several shapes; every third has no spacing."""
    made = []
    for n in range(6):
        voxels = rng.integers(-1024, 3071, rng.permutation([2, 3, 5])).astype("<i2")
        spacing = rng.choice([0.5, 0.75, 1.25, 2.0, 5.0], 3, False).tolist()
        made.append(serialized(voxels, spacing if n % 3 != 1 else []))
    yield (made,)


def serialized(voxels: np.ndarray, spacing: list[float]) -> bytes:
    import tensorflow as tf

    fields = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[voxels.tobytes()])),
        "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=voxels.shape)),
    }
    if spacing:
        fields["spacing"] = tf.train.Feature(float_list=tf.train.FloatList(value=spacing))
    return tf.train.Example(features=tf.train.Features(feature=fields)).SerializeToString()


def parsing(
    default: float | None = 0.0,
    dtype: str = "int16",
    little: bool = True,
    shape: Callable = lambda shape: [*shape, 1],
    after: Callable = lambda image: image,
) -> Callable:
    """A parser by its default spacing, its way to decode, and what it makes of the shape."""

    def answer(serialized):
        import tensorflow as tf

        fallback = {} if default is None else {"default_value": [default] * 3}
        spec = {
            "image": tf.io.FixedLenFeature([], tf.string),
            "shape": tf.io.FixedLenFeature([3], tf.int64),
            "spacing": tf.io.FixedLenFeature([3], tf.float32, **fallback),
        }
        fields = tf.io.parse_single_example(serialized, spec)
        image = tf.io.decode_raw(fields["image"], dtype, little_endian=little)
        sides = tf.unstack(fields["shape"])
        return {"image": after(tf.reshape(image, shape(sides))), "spacing": fields["spacing"]}

    return answer


def as_float(image):
    import tensorflow as tf

    return tf.cast(image, tf.float32)


def unparsed(serialized):
    return {"image": serialized, "spacing": parsing()(serialized)["spacing"]}


def eager(serialized):
    import tensorflow as tf

    return parsing()(tf.constant(serialized.numpy()))


def unpacked(serialized):
    import tensorflow as tf

    fields = tf.io.parse_single_example(serialized, {"shape": tf.io.FixedLenFeature([3], tf.int64)})
    return parsing(shape=lambda _: [*fields["shape"], 1])(serialized)


def parsed(answer: Callable, made: list[bytes]) -> np.ndarray:
    """All that a parser makes of records in `Dataset.map`, one after the other, as numbers."""
    import tensorflow as tf

    dataset = mapped(answer, tf.data.Dataset.from_tensor_slices(made))
    spec = dataset.element_spec
    if not isinstance(spec, dict) or {*spec} != {"image", "spacing"}:
        found = sorted(spec) if isinstance(spec, dict) else type(spec).__name__
        raise Wrong(f'a dict with the keys "image" and "spacing" is asked for, found {found}')
    ranked("image", spec["image"])
    elements = taken(dataset, lambda dataset: [*dataset.as_numpy_iterator()])
    for name, dtype in {"image": tf.int16, "spacing": tf.float32}.items():
        if spec[name].dtype != dtype:
            raise Wrong(f"the {name} is {spec[name].dtype.name}, asked for is {dtype.name}")
    if spec["image"].shape.rank != 4:
        raise Wrong(f"the image has {spec['image'].shape.rank} axes, asked for is [z, y, x, 1]")
    parts = [(x["image"].shape, x["image"].ravel(), x["spacing"].ravel()) for x in elements]
    return np.concatenate(sum(parts, ()))


parse = check(
    parsing(),
    records,
    {
        "a record without spacing stops your parser: give it a default_value": parsing(None),
        "a record without spacing came out with other numbers; 0 says: not known": parsing(1.0),
        "the channel is missing": parsing(shape=lambda shape: shape),
        "the channel comes last": parsing(shape=lambda shape: [1, *shape]),
        "the axes are in another order": parsing(shape=lambda shape: [*shape[::-1], 1]),
        "each record has its own shape, and holds it": parsing(shape=lambda shape: [5, 3, 3, 1]),
        "on a tensor, + adds to every number: tf.concat puts lists together": parsing(
            shape=lambda shape: [one + 1 for one in shape]
        ),
        "the bytes are those of int16": parsing(dtype="float32"),
        "decoded as uint16, but int16 was written": parsing(dtype="uint16"),
        "the two bytes of each voxel are the wrong way round: little-endian": parsing(little=False),
        "int16 was written, and stays so until the end of the pipeline": parsing(after=as_float),
        "the image is still one string of bytes: tf.io.decode_raw makes numbers of it": unparsed,
        "there is no .numpy() in map: it calls your function once, without values": eager,
        "a tensor cannot be unpacked there; add the axis after reshaping: [..., tf.newaxis]": (
            unpacked
        ),
    },
    call=parsed,
    tell=lambda made: f"{len(made)} records",
)

# --- the faulty shards ---

# How a shard can come to differ from what was written, and what a check has to look at to see it.
FAULTS = {
    "missing": "is not there, and has to be named all the same",
    "empty": "is an empty file: it exists, and TensorFlow reads it without a word",
    "cut at a record": "has lost its last record: TensorFlow reads it to a clean end",
    "cut in a record": "ends in the middle of a record",
    "flipped": "has as many bytes as before, but one of them is another",
    "rewritten": "has the right size and checksums that fit, but the records are others",
    "listed otherwise": "is listed with a SHA-256 of which only the last digits differ",
}


def digits(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_shard(path: Path, rng: np.random.Generator) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in (90, 70, 80):
            writer.write(rng.bytes(size))


def damage(path: Path, kind: str, rng: np.random.Generator, entry: dict) -> None:
    content = bytearray(path.read_bytes())
    # Each record has 16 bytes of frame around it; the last one holds 80.
    if kind == "missing":
        path.unlink()
    elif kind == "rewritten":
        write_shard(path, rng)
    elif kind == "flipped":
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    elif kind == "listed otherwise":
        entry["sha256"] = entry["sha256"][:-2] + ("00" if entry["sha256"][-2:] != "00" else "ff")
    else:
        kept = {"empty": 0, "cut at a record": len(content) - 96, "cut in a record": 120}[kind]
        path.write_bytes(content[:kept])


def damages(_: np.random.Generator) -> Iterator[tuple]:
    """Cases: the faults of shards in a set, one each, and a seed."""
    kinds = [*FAULTS]
    for number, faults in enumerate(([], *([kind] for kind in kinds), kinds, kinds[::-1])):
        yield faults, number


def told(faults: list[str], _: int) -> str:
    if len(faults) == 1:
        return f"a set in which a shard {FAULTS[faults[0]]},"
    return f"a set in which {len(faults)} shards are not as written"


def found_in_set(answer: Callable, faults: list[str], seed: int) -> list[str]:
    """What an answer names in a set of eight shards, some of them damaged."""
    attempted(answer)
    rng, manifest = np.random.default_rng(seed), {}
    with tempfile.TemporaryDirectory() as root:
        paths = [Path(root, f"train-{n:05d}-of-00008.tfrecord") for n in range(8)]
        for path in paths:
            write_shard(path, rng)
            size = path.stat().st_size
            manifest[path.name] = {"records": 3, "bytes": size, "sha256": digits(path)}
        for path, kind in zip(rng.choice(paths, len(faults), replace=False), faults, strict=True):
            damage(path, kind, rng, manifest[path.name])
        try:
            found = ask(answer, Path(root), manifest)
        except Wrong as wrong:
            raise Wrong(str(wrong).replace(f"{root}/", "")) from wrong
    if isinstance(found, str) or not np.iterable(found):
        raise Wrong(f"a list of names is asked for, you returned a {type(found).__name__}")
    return sorted({Path(name).name for name in found})


def naming(is_faulty: Callable) -> Callable:
    """Names of the shards that a test of path and entry finds faulty."""
    return lambda folder, manifest: [
        name for name, entry in manifest.items() if is_faulty(Path(folder, name), entry)
    ]


def overlooking(is_faulty: Callable) -> Callable:
    """An answer that names what is missing, and of the rest what a test finds faulty."""
    return naming(lambda path, entry: not path.exists() or is_faulty(path, entry))


def changed(path: Path, entry: dict) -> bool:
    return digits(path) != entry["sha256"]


find_faulty = check(
    overlooking(changed),
    damages,
    {
        "nothing is named": lambda folder, manifest: [],
        "a shard that is there may be damaged": overlooking(lambda path, entry: False),
        "an empty file exists, too": overlooking(
            lambda path, entry: path.stat().st_size > 0 and changed(path, entry)
        ),
        "a shard can be cut between two records: compare the size": overlooking(
            lambda path, entry: path.stat().st_size == 0
        ),
        "a changed byte leaves the size as it was: only the SHA-256 can tell": overlooking(
            lambda path, entry: path.stat().st_size != entry["bytes"]
        ),
        "only the last digits differ; compare the whole SHA-256": overlooking(
            lambda path, entry: digits(path)[:8] != entry["sha256"][:8]
        ),
        "shards that are missing are to be named as well": naming(
            lambda path, entry: path.exists() and changed(path, entry)
        ),
        "you name what is exactly as it was written": lambda folder, manifest: sorted(manifest),
        "those are the names of the good ones": naming(
            lambda path, entry: path.exists() and not changed(path, entry)
        ),
        "a missing or damaged shard is to be named, and the rest looked at": naming(changed),
        "where nothing is wrong, an empty list is asked for": lambda *given: (
            overlooking(changed)(*given) or None
        ),
    },
    call=found_in_set,
    tell=told,
)
