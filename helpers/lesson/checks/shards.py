"""Checks of notebook 03: dtypes that lose nothing, a parser, and shards that are not as written."""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from helpers.lesson.checks.answers import Check, Missing, Wrong, ask, cause, check

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


def records(rng: np.random.Generator) -> list[tuple[bytes, np.ndarray, list[float]]]:
    """Serialized examples, what is in them, and their spacing, in mm; 0 where there is none."""
    made = []
    for n in range(6):
        voxels = rng.integers(-1024, 3071, rng.permutation([2, 3, 5])).astype("<i2")
        spacing = rng.choice([0.5, 0.75, 1.25, 2.0, 5.0], 3, False).tolist()
        spacing = [0.0] * 3 if n % 3 == 1 else spacing
        made.append((serialized(voxels, spacing), voxels, spacing))
    return made


def serialized(voxels: np.ndarray, spacing: list[float]) -> bytes:
    import tensorflow as tf

    fields = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[voxels.tobytes()])),
        "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=voxels.shape)),
    }
    if any(spacing):
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


PARSERS = {
    "without spacing stops your parser": parsing(default=None),
    "0 says: not known": parsing(default=1.0),
    "the channel is missing": parsing(shape=lambda shape: shape),
    "the channel comes last": parsing(shape=lambda shape: [1, *shape]),
    "the axes are in another order": parsing(shape=lambda shape: [*shape[::-1], 1]),
    "each record has its own shape": parsing(shape=lambda shape: [5, 3, 3, 1]),
    "on a tensor, + adds to every number": parsing(shape=lambda shape: [one + 1 for one in shape]),
    "the bytes are those of int16": parsing(dtype="float32"),
    "the image is uint16; what was written is int16": parsing(dtype="uint16"),
    "the wrong way round: little-endian": parsing(little=False),
    "the image is float32; what was written is int16": parsing(after=as_float),
    "not in their places": parsing(after=lambda image: image[::-1]),
    "the first voxel is": parsing(after=lambda image: image + 1),
}


def judge_parser(answer: Callable) -> str:
    """`answer(serialized)` is `{"image": int16 [z, y, x, 1], "spacing": float32 [3]}`."""
    import tensorflow as tf

    made = records(np.random.default_rng(29))
    for record, voxels, spacing in made:
        try:
            element = ask(answer, tf.constant(record))
        except Missing:
            raise
        except Wrong as wrong:
            raise Wrong(f"{wrong}{parser_failed(str(wrong), voxels)}") from wrong
        compare_element(element, voxels, spacing)
    try:
        dataset = tf.data.Dataset.from_tensor_slices([one[0] for one in made]).map(answer)
    except Exception as error:  # whatever tracing a learner's code may raise
        why = "map has no values yet when it calls your function, so there is no .numpy() there"
        if re.search("[Ii]terat|unpack", str(error)):
            why = (
                "a tensor cannot be unpacked there; add the axis after reshaping: [..., tf.newaxis]"
            )
        raise Wrong(
            f"it works on one record, but Dataset.map raises {cause(error)}; {why}"
        ) from error
    if dataset.element_spec["image"].shape.rank is None:
        raise Wrong(
            "in Dataset.map the image has lost its number of axes: parse with TensorFlow's own "
            "operations, or state the shape (tf.ensure_shape)"
        )
    try:
        elements = list(dataset)
    except Exception as error:
        raise Wrong(f"reading the mapped dataset raises {cause(error)}") from error
    for element, (_, voxels, spacing) in zip(elements, made, strict=True):
        compare_element(element, voxels, spacing)
    return "right on 6 records that the check wrote, two of them without spacing, alone and in map"


def parser_failed(said: str, voxels: np.ndarray) -> str:
    """What to add to an error of TensorFlow's."""
    absent = re.search(r"Feature: (\S+) .*required but could not be found", said)
    if absent and absent[1] == "spacing":
        return ": a record without spacing stops your parser: give it a default_value"
    if absent:
        return (
            f": your parser asks for {absent[1]!r}; the records hold image, shape and, most of "
            "them, spacing"
        )
    sizes = re.search(r"tensor with (\d+) values, but the requested shape has (\d+)", said)
    if not sizes:
        return ""
    there, asked = map(int, sizes.groups())
    if there != voxels.size:
        return f": the bytes are those of int16, of which there are {voxels.size}"
    if asked == math.prod(n + 1 for n in voxels.shape):
        return ": on a tensor, + adds to every number: tf.concat puts lists together"
    return ": each record has its own shape, and holds it"


def compare_element(element, voxels: np.ndarray, spacing: list[float]) -> None:
    if not isinstance(element, dict) or set(element) != {"image", "spacing"}:
        found = sorted(element) if isinstance(element, dict) else type(element).__name__
        raise Wrong(f'a dict with the keys "image" and "spacing" is asked for, found {found}')
    image, found_mm = np.asarray(element["image"]), np.asarray(element["spacing"])
    if image.dtype.kind in "OS":
        raise Wrong("the image is still one string of bytes: tf.io.decode_raw makes numbers of it")
    if image.dtype != np.int16:
        raise Wrong(f"the image is {image.dtype.name}; what was written is int16, and stays so")
    wanted = (*voxels.shape, 1)
    hints = {
        voxels.shape: ": the channel is missing",
        (1, *voxels.shape): ": the channel comes last",
        (*voxels.shape[::-1], 1): ": the axes are in another order",
    }
    if image.shape != wanted:
        default = ": each record has its own shape, and holds it" * (image.ndim == len(wanted))
        hint = hints.get(image.shape, default)
        raise Wrong(f"the image has shape {image.shape}, asked for is {wanted}{hint}")
    if not np.array_equal(image[..., 0], voxels):
        if np.array_equal(image[..., 0], voxels.byteswap()):
            raise Wrong("the two bytes of each voxel are the wrong way round: little-endian")
        if np.array_equal(np.sort(image.ravel()), np.sort(voxels.ravel())):
            raise Wrong("the voxels are all there, but not in their places: reshape to [z, y, x]")
        raise Wrong(f"the first voxel is {voxels.flat[0]}, in your image {image.flat[0]}")
    if found_mm.dtype != np.float32 or found_mm.shape != (3,):
        raise Wrong(f"spacing is {found_mm.dtype.name} {found_mm.shape}, not float32 (3,)")
    if not np.allclose(found_mm, spacing):
        if not any(spacing):
            found = found_mm.tolist()
            raise Wrong(f"a record without spacing came out with {found} mm; 0 says: not known")
        raise Wrong(f"the spacing is {spacing} mm, yours {found_mm.tolist()}")


parse = Check(judge_parser, parsing(), PARSERS)

# --- the faulty shards ---

# How a shard can come to differ from what was written, and what a check has to look at to see it.
FAULTS = {
    "missing": "is not there; the manifest lists it",
    "empty": "is an empty file: it exists, and TensorFlow reads it without a word",
    "cut at a record": (
        "has lost its last record: TensorFlow reads it to a clean end, but it is shorter than "
        "the manifest says"
    ),
    "cut in a record": "ends in the middle of a record",
    "flipped": "has as many bytes as before, but one of them is another",
    "rewritten": (
        "has the right size, the right number of records and checksums that fit, but the records "
        "are others: only the SHA-256 can tell"
    ),
    "listed otherwise": (
        "is listed with another SHA-256 than it has; only the last digits differ: compare all of it"
    ),
}


def digits(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def naming(is_faulty: Callable) -> Callable:
    """Names of the shards that a test of path and entry finds faulty, or that are not there."""

    def answer(folder, manifest: dict) -> list[str]:
        paths = {name: Path(folder, name) for name in manifest}
        return [
            name
            for name, path in paths.items()
            if not path.exists() or is_faulty(path, manifest[name])
        ]

    return answer


def all_named(folder, manifest: dict) -> list[str]:
    return sorted(manifest)


def missing_is_an_error(folder, manifest: dict) -> list[str]:
    return [
        name for name, entry in manifest.items() if digits(Path(folder, name)) != entry["sha256"]
    ]


find_right = naming(lambda path, entry: digits(path) != entry["sha256"])
FINDERS = {
    "is not there; the manifest lists it": lambda folder, manifest: [],
    "TensorFlow reads it without a word": naming(lambda path, entry: False),
    "has lost its last record": naming(lambda path, entry: path.stat().st_size == 0),
    "has as many bytes as before, but one of them is another": naming(
        lambda path, entry: path.stat().st_size != entry["bytes"]
    ),
    "only the last digits differ": naming(
        lambda path, entry: digits(path)[:8] != entry["sha256"][:8]
    ),
    "which is exactly as it was written": all_named,
    "a missing or damaged shard is to be named": missing_is_an_error,
    "an empty list is asked for": lambda *given: find_right(*given) or None,
}


def judge_finder(answer: Callable) -> str:
    """`answer(folder, manifest)` names the shards that are not as written."""
    rng = np.random.default_rng(31)
    kinds = list(FAULTS)
    rounds = [[], *([kind] for kind in kinds), kinds, kinds[::-1]]
    for faults in rounds:
        with tempfile.TemporaryDirectory() as root:
            manifest = write_set(Path(root), rng)
            hurt = rng.choice(sorted(manifest), len(faults), replace=False).tolist()
            expected = dict(zip(hurt, faults, strict=True))
            for name, kind in expected.items():
                damage(Path(root, name), kind, rng, manifest[name])
            found = names_of(answer, Path(root), manifest)
        for name, kind in sorted(expected.items(), key=lambda item: kinds.index(item[1])):
            if name not in found:
                raise Wrong(f"you do not name {name}, which {FAULTS[kind]}")
        for name in sorted(found - set(expected)):
            if name in manifest:
                raise Wrong(f"you name {name}, which is exactly as it was written")
            raise Wrong(f"you name {name!r:.60}; asked for are names out of the manifest")
    return f"right on {len(rounds)} sets that the check wrote and then damaged in {len(kinds)} ways"


def write_set(folder: Path, rng: np.random.Generator, count: int = 8) -> dict[str, dict]:
    """Shards of three records each, and what was written in each of them."""
    manifest = {}
    for number in range(count):
        path = folder / f"train-{number:05d}-of-{count:05d}.tfrecord"
        write_shard(path, rng)
        size = path.stat().st_size
        manifest[path.name] = {"records": 3, "bytes": size, "sha256": digits(path)}
    return manifest


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


def names_of(answer: Callable, folder: Path, manifest: dict) -> set[str]:
    try:
        found = ask(answer, folder, manifest)
    except Missing:
        raise
    except Wrong as wrong:
        if "returns None" in str(wrong):
            raise Wrong(f"{wrong} Where nothing is wrong, an empty list is asked for") from None
        if re.search(r"raises (FileNotFound|NotFound|DataLoss)Error", str(wrong)):
            kind = re.search(r"\w+Error", str(wrong))[0]
            raise Wrong(
                f"your code raises {kind}: a missing or damaged shard is to be named, and the "
                "rest looked at"
            ) from None
        raise
    if isinstance(found, str) or not np.iterable(found):
        raise Wrong(f"a list of names is asked for, you returned {found!r:.60}")
    return {Path(name).name for name in found}


find_faulty = Check(judge_finder, find_right, FINDERS)
