"""Checks of notebook 03: dtypes that lose nothing, a parser, and shards that are not as written."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from helpers.lesson.verdicts import VerdictError, ask, cause, judged, wrong

NARROW = ("uint8", "int16", "uint16", "int32", "float32")

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


@judged
def narrowest(answer: Callable) -> str:
    """Notebook 03: `answer(array)` has the same numbers in the narrowest dtype of `NARROW`."""
    rng = np.random.default_rng(23)
    trials = [trial for _ in range(2) for trial in _arrays(rng)]
    for number, (what, array) in enumerate(trials):
        given = f"{what}, {array.dtype.name} from {float(array.min()):g} to {float(array.max()):g}"
        try:
            found = ask(answer, array)
        except VerdictError as verdict:
            if number and verdict.line.startswith("✎"):
                raise wrong(f"{given}: you returned None; is a branch without return?") from None
            raise
        if isinstance(found, type | np.dtype):
            raise wrong("you returned a dtype; asked for is the array, converted to it")
        if not isinstance(found, np.ndarray):
            raise wrong(f"an array is asked for, you returned {found!r:.60}")
        if found.shape != array.shape:
            raise wrong(f"your result has shape {found.shape}, the array has {array.shape}")
        kind = found.dtype.name
        if kind not in NARROW:
            raise wrong(f"{given}: you chose {kind}, which is not one of {', '.join(NARROW)}")
        if not np.array_equal(found, array):
            raise wrong(f"{given}: you chose {kind}, and {_lost(array, found)}")
        narrow = next(name for name in NARROW if _holds(name, array))
        if found.dtype.itemsize > np.dtype(narrow).itemsize:
            raise wrong(f"{given}: {kind} holds them, but so does {narrow}, in fewer bytes")
        if not found.dtype.isnative:
            raise wrong(
                f"{given}: {kind} is right, but its bytes still lie in big-endian order, and "
                "tobytes() would write them so"
            )
    return f"right on {len(trials)} arrays that the check made up: masks, CT, PET, big-endian ones"


def _arrays(rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays as they come out of readers, wider than they need to be."""
    shape = tuple(int(n) for n in rng.integers(3, 7, 3))

    def whole(low: int, high: int, dtype: str) -> np.ndarray:
        """Random whole numbers; both ends of the range occur."""
        values = rng.integers(low, high, shape, np.int64, endpoint=True)
        values.flat[:2] = low, high
        return values.astype(dtype)

    one_half, one_eighth = whole(0, 200, "float64"), whole(0, 20_000, "float64")
    one_half.flat[-1], one_eighth.flat[-1] = 100.5, 20_000.125  # np.allclose would not see this
    yield "a mask of True and False", whole(0, 1, "bool")
    yield "class ids and the ignore id", whole(0, 255, "int64")
    yield "CT in Hounsfield units", whole(-1024, 3071, "float64")
    yield "an image of one value", np.zeros(shape, np.float32)
    yield "a big-endian CT", whole(-1024, 3071, ">i2")
    yield "a difference of two masks", whole(-1, 1, "int32")
    yield "stored values of a PET", whole(0, 65535, "int32")
    yield "big-endian stored values", whole(0, 65535, ">u2")
    yield "counts", whole(0, 200_000, "float64")
    yield "numbers of regions", whole(0, 2**24 + 1, "int64")
    yield "rescaled PET with fractions", whole(-100, 90_000, "float64") / 16
    yield "whole numbers but for one voxel", one_half
    yield "large whole numbers but for one voxel", one_eighth


def _holds(dtype: str, array: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):  # a float too large for the dtype: just what is asked
        return np.array_equal(array.astype(dtype), array)


def _lost(array: np.ndarray, found: np.ndarray) -> str:
    at = tuple(int(i) for i in np.argwhere(found != array)[0])
    before, after = array[at].item(), found[at].item()
    change = f"{before:.10g} became {after:.10g}"
    if before != int(before):
        return f"{change}: the fraction is gone"
    if before < 0 <= after:
        return f"{change}: there are no negative numbers in that dtype"
    if found.dtype.kind == "f":
        return f"{change}: float32 has 24 binary digits, not one for each of these numbers"
    return f"{change}: it does not fit"


@judged
def parse(answer: Callable) -> str:
    """Notebook 03: `answer(serialized)` is `{"image": int16 [z, y, x, 1], "spacing": float32}`."""
    import tensorflow as tf

    rng = np.random.default_rng(29)
    volumes, spacings, records = [], [], []
    for trial in range(6):
        shape = tuple(int(n) for n in rng.permutation([2, 3, 5]))
        volumes.append(rng.integers(-1024, 3071, shape).astype("<i2"))
        spacing = [float(mm) for mm in rng.choice([0.5, 0.75, 1.25, 2.0, 5.0], 3, False)]
        spacings.append([0.0, 0.0, 0.0] if trial % 3 == 1 else spacing)
        records.append(_serialized(volumes[-1], spacings[-1]))
    for record, *expected in zip(records, volumes, spacings, strict=True):
        try:
            element = ask(answer, tf.constant(record))
        except VerdictError as verdict:
            raise _parser_failed(verdict) from None
        _compare_element(element, *expected)
    try:
        dataset = tf.data.Dataset.from_tensor_slices(records).map(answer)
    except Exception as error:  # whatever tracing a learner's code may raise
        why = "map has no values yet when it calls your function, so there is no .numpy() there"
        if re.search("[Ii]terat|unpack", str(error)):
            why = (
                "a tensor cannot be unpacked there; add the axis after reshaping: [..., tf.newaxis]"
            )
        raise wrong(
            f"it works on one record, but Dataset.map raises {cause(error)}; {why}"
        ) from error
    if dataset.element_spec["image"].shape.rank is None:
        raise wrong(
            "in Dataset.map the image has lost its number of axes: parse with TensorFlow's own "
            "operations, or state the shape (tf.ensure_shape)"
        )
    try:
        elements = list(dataset)
    except Exception as error:
        raise wrong(f"reading the mapped dataset raises {cause(error)}") from error
    for element, *expected in zip(elements, volumes, spacings, strict=True):
        _compare_element(element, *expected)
    return "right on 6 records that the check wrote, two of them without spacing, alone and in map"


def _serialized(voxels: np.ndarray, spacing: list[float]) -> bytes:
    import tensorflow as tf

    fields = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[voxels.tobytes()])),
        "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=voxels.shape)),
    }
    if any(spacing):
        fields["spacing"] = tf.train.Feature(float_list=tf.train.FloatList(value=spacing))
    return tf.train.Example(features=tf.train.Features(feature=fields)).SerializeToString()


def _parser_failed(verdict: VerdictError) -> VerdictError:
    absent = re.search(r"Feature: (\S+) .*required but could not be found", verdict.line)
    if absent and absent[1] == "spacing":
        return wrong("a record without spacing stops your parser: give it a default_value")
    if absent:
        return wrong(
            f"your parser asks for {absent[1]!r}; the records hold image, shape and, most of "
            "them, spacing"
        )
    added = "; on a tensor, + adds to every number: tf.concat puts lists together"
    hint = added if "requested shape" in verdict.line else ""
    return VerdictError(verdict.line[0], cause(verdict.line[2:]) + hint)


def _compare_element(element, voxels: np.ndarray, spacing: list[float]) -> None:
    if not isinstance(element, dict) or set(element) != {"image", "spacing"}:
        found = sorted(element) if isinstance(element, dict) else type(element).__name__
        raise wrong(f'a dict with the keys "image" and "spacing" is asked for, found {found}')
    image, found_mm = np.asarray(element["image"]), np.asarray(element["spacing"])
    if image.dtype.kind in "OS":
        raise wrong("the image is still one string of bytes: tf.io.decode_raw makes numbers of it")
    if image.dtype != np.int16:
        raise wrong(f"the image is {image.dtype.name}; what was written is int16, and stays so")
    if image.shape != (*voxels.shape, 1):
        hint = ": the channel is missing" if image.shape == voxels.shape else ""
        if image.shape == (1, *voxels.shape):
            hint = ": the channel comes last"
        elif sorted(image.shape) == sorted((*voxels.shape, 1)):
            hint = ": the axes are in another order"
        raise wrong(f"the image has shape {image.shape}, asked for is {(*voxels.shape, 1)}{hint}")
    if not np.array_equal(image[..., 0], voxels):
        if np.array_equal(image[..., 0], voxels.byteswap()):
            raise wrong("the two bytes of each voxel are the wrong way round: little-endian")
        if np.array_equal(np.sort(image.ravel()), np.sort(voxels.ravel())):
            raise wrong("the voxels are all there, but not in their places: reshape to [z, y, x]")
        raise wrong(f"the first voxel is {voxels.flat[0]}, in your image {image.flat[0]}")
    if found_mm.dtype != np.float32 or found_mm.shape != (3,):
        raise wrong(f"spacing is {found_mm.dtype.name} {found_mm.shape}, not float32 (3,)")
    if not np.allclose(found_mm, spacing):
        found = [float(mm) for mm in found_mm]
        if not any(spacing):
            raise wrong(f"a record without spacing came out with {found} mm; 0 says: not known")
        raise wrong(f"the spacing is {spacing} mm, yours {found}")


@judged
def find_faulty(answer: Callable) -> str:
    """Notebook 03: `answer(folder, manifest)` names the shards that are not as written."""
    rng = np.random.default_rng(31)
    kinds = list(FAULTS)
    nothing = None
    rounds = [[], *([kind] for kind in kinds), kinds, kinds[::-1]]
    for number, faults in enumerate(rounds):
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root, f"set {number}")
            manifest = _write_set(folder, rng, count=8)
            hurt = rng.choice(sorted(manifest), len(faults), replace=False)
            expected = dict(zip((str(name) for name in hurt), faults, strict=True))
            for name, kind in expected.items():
                if kind == "listed otherwise":
                    digits = manifest[name]["sha256"]
                    manifest[name]["sha256"] = digits[:-2] + ("00" if digits[-2:] != "00" else "ff")
                else:
                    _damage(folder / name, kind, rng)
            try:
                found = _names(answer, folder, manifest)
            except VerdictError as verdict:
                if faults or not verdict.line.startswith("✎"):
                    raise
                nothing = verdict  # an untouched stub, or no list where nothing is wrong
                continue
        if nothing:
            raise wrong("you returned None for a set without faults; an empty list is asked for")
        for name, kind in sorted(expected.items(), key=lambda item: kinds.index(item[1])):
            if name not in found:
                raise wrong(f"you do not name {name}, which {FAULTS[kind]}")
        for name in sorted(found - set(expected)):
            if name in manifest:
                raise wrong(f"you name {name}, which is exactly as it was written")
            raise wrong(f"you name {name!r:.60}; asked for are names out of the manifest")
    return f"right on {len(rounds)} sets that the check wrote and then damaged in {len(kinds)} ways"


def _write_set(folder: Path, rng: np.random.Generator, count: int) -> dict[str, dict]:
    """Shards of three records each, and what was written in each of them."""
    folder.mkdir()
    manifest = {}
    for number in range(count):
        path = folder / f"train-{number:05d}-of-{count:05d}.tfrecord"
        _write_shard(path, rng)
        content = path.read_bytes()
        manifest[path.name] = {
            "records": 3,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    return manifest


def _write_shard(path: Path, rng: np.random.Generator, sizes=(90, 70, 80)) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in sizes:
            writer.write(rng.bytes(size))


def _damage(path: Path, kind: str, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    # Each record has 16 bytes of frame around it; the last one holds 80.
    if kind == "missing":
        path.unlink()
    elif kind == "rewritten":
        _write_shard(path, rng)
    elif kind == "flipped":
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    else:
        kept = {"empty": 0, "cut at a record": len(content) - 96, "cut in a record": 120}[kind]
        path.write_bytes(content[:kept])


def _names(answer: Callable, folder: Path, manifest: dict) -> set[str]:
    try:
        found = ask(answer, folder, manifest)
        if isinstance(found, str):
            raise wrong(f"a list of names is asked for, you returned {found!r:.60}")
        return {Path(name).name for name in found}
    except VerdictError as verdict:
        if re.search(r"raises (FileNotFound|NotFound|DataLoss)Error", verdict.line):
            kind = re.search(r"\w+Error", verdict.line)[0]
            raise wrong(
                f"your code raises {kind}: a missing or damaged shard is to be named, and the "
                "rest looked at"
            ) from None
        raise
    except (TypeError, ValueError):
        raise wrong(f"a list of names is asked for, you returned {found!r:.60}") from None
