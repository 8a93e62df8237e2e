"""The machine's own limit: what it costs to move an element's bytes, and nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np

from helpers import memory
from helpers.timing.looking import array, leaves
from helpers.timing.throughput import Throughput, throughput

DISTINCT = 101  # values of the volumes that are moved
MORE_THAN_A_CACHE = 128 * 2**20  # bytes; what is read again stays in a cache that holds it all


def floor(
    like,
    *,
    stored: str | np.dtype | None = None,
    volume: Sequence[int] | None = None,
    elements: int = 20,
    repeats: int = 5,
    step: Callable | None = None,
    seed: int = 0,
) -> Throughput:
    """How long the machine takes to put such an element into memory, with no pipeline at all.

        print(timing.floor(dataset, stored="int16", volume=(180, 240, 240)))

    NumPy copies, and casts on the way, into memory that is in use already, in one thread. A
    pipeline that prepares elements on several cores can be quicker; one that is 1.3 times as slow
    is a good one.

    Args:
        like, stored, volume, seed: as for `moving`, which `take_turns` takes beside pipelines.
        elements, repeats, step: as for `throughput`.

    Returns:
        A `Throughput`, with the same look at every byte as a pipeline gets (or the same `step`).

    Raises:
        ValueError: as `moving`.
    """
    move = moving(like, stored=stored, volume=volume, seed=seed, tensors=step is not None)
    return throughput(move, elements=elements, repeats=repeats, step=step)


def moving(
    like,
    *,
    stored: str | np.dtype | None = None,
    volume: Sequence[int] | None = None,
    seed: int = 0,
    tensors: bool = False,
) -> Callable[[], object]:
    """A function each of whose calls moves the bytes of one element into a warm buffer.

        floor = timing.moving(dataset, stored="int16", volume=(180, 240, 240))
        timing.take_turns({"pipeline": dataset, "floor": floor}, elements=20)

    Args:
        like: an element, a dataset's `element_spec`, or the dataset itself (its first element is
            read where the spec leaves a size open). The image is the field of that name, else the
            largest field. Strings cost nothing.
        stored: type that the image is kept in, and cast from; None: its own.
        volume: spatial shape `[z, y, x]` or `[y, x]` of the images that crops are cut out of, each
            at another place. The image is then one crop, or a batch of them, with channels; fields
            of the same spatial shape, as a mask, are cut likewise. None: the whole element is
            copied as it is.
        seed: of the crops' places.
        tensors: the function gives tensors that share the buffers' memory, not arrays.

    Returns:
        The function. What one call gave is overwritten by the next. It holds 10 volumes, or as
        many elements as no processor's cache can hold, in memory.

    Raises:
        ValueError: for a crop that does not fit, or a field whose size is not known.
    """
    structure, fields = _fields(like)
    image = _image(structure, fields)
    types = [field.dtype for field in fields]
    if stored is not None:
        types[image] = np.dtype(stored)
    targets = [_aligned(field.shape, field.dtype) for field in fields]
    if volume is None:
        move = _whole(targets, types)
    else:
        move = _crops(targets, types, image, _spatial(volume, fields[image].shape), seed)
    results = [_tensor(target) for target in targets] if tensors else targets

    def moved():
        move()
        return _packed(structure, iter(results))

    return moved


def _whole(targets: list[np.ndarray], types: list[np.dtype]) -> Callable[[], None]:
    size = sum(t.size * kind.itemsize for t, kind in zip(targets, types, strict=True))
    distinct = min(64, max(2, math.ceil(MORE_THAN_A_CACHE / max(size, 1))))
    sources = [
        [_filled(target.shape, kind) for target, kind in zip(targets, types, strict=True)]
        for _ in range(distinct)
    ]
    turn = itertools.cycle(sources)

    def move() -> None:
        for target, source in zip(targets, next(turn), strict=True):
            np.copyto(target, source, casting="unsafe")

    return move


def _crops(
    targets: list[np.ndarray],
    types: list[np.dtype],
    image: int,
    volume: tuple[int, ...],
    seed: int,
    distinct: int = 10,
) -> Callable[[], None]:
    axes = len(volume)
    shape = targets[image].shape
    crop = shape[-1 - axes : -1]
    cut = [t.shape[:-1] == shape[:-1] and t.ndim == len(shape) for t in targets]
    pairs = [
        # Batch axes become one, and channels join the last axis: fewer for NumPy to step through.
        (
            target.reshape(-1, *crop[:-1], crop[-1] * target.shape[-1]),
            [_filled((*volume[:-1], volume[-1] * target.shape[-1]), kind) for _ in range(distinct)],
            target.shape[-1],
        )
        for target, kind, is_cut in zip(targets, types, cut, strict=True)
        if is_cut
    ]
    rest = [(t, k) for t, k, is_cut in zip(targets, types, cut, strict=True) if not is_cut]
    move_rest = _whole([t for t, _ in rest], [k for _, k in rest]) if rest else lambda: None
    count = len(pairs[0][0])
    places = np.random.default_rng(seed)
    highest = np.subtract(volume, crop) + 1
    numbers = itertools.count()

    def move() -> None:
        for i, start in enumerate(places.integers(highest, size=(count, axes))):
            number = next(numbers) % distinct
            for target, volumes, channels in pairs:
                # Only the last axis counts in channels as well.
                window = [slice(a, a + n) for a, n in zip(start[:-1], crop[:-1], strict=True)]
                last = slice(start[-1] * channels, (start[-1] + crop[-1]) * channels)
                np.copyto(target[i], volumes[number][(*window, last)], casting="unsafe")
        move_rest()

    return move


class _Field:
    """Shape and type of one value of an element; a string is nothing that would be moved."""

    def __init__(self, value) -> None:
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            value = array(value)
        kind = getattr(value.dtype, "as_numpy_dtype", value.dtype)
        sizes = tuple(value.shape) if getattr(value.shape, "rank", 0) is not None else (None,)
        self.known = all(isinstance(n, Integral) for n in sizes)
        self.dtype = np.dtype(kind)
        if self.dtype.kind in "OSU":
            self.known, sizes, self.dtype = True, (0,), np.dtype(np.uint8)
        self.shape = tuple(int(n) for n in sizes) if self.known else ()

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _fields(like) -> tuple[object, list[_Field]]:
    structure = getattr(like, "element_spec", like)
    fields = [_Field(value) for value in leaves(structure)]
    if not all(field.known for field in fields) and structure is not like:
        structure = next(iter(like), None)
        fields = [_Field(value) for value in leaves(structure)]
    if not fields or not all(field.known for field in fields):
        raise ValueError("the size of a field is not known: pass an element, or the dataset itself")
    return structure, fields


def _image(structure, fields: list[_Field]) -> int:
    if isinstance(structure, dict) and "image" in structure:
        before = itertools.takewhile(lambda name: name != "image", structure)
        return sum(len(list(leaves(structure[name]))) for name in before)
    return max(range(len(fields)), key=lambda i: fields[i].nbytes)


def _spatial(volume: Sequence[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    volume = tuple(int(n) for n in volume)
    crop = shape[-1 - len(volume) : -1]
    if len(shape) < len(volume) + 1 or any(a > b for a, b in zip(crop, volume, strict=True)):
        raise ValueError(
            f"a crop of {crop} is no part of a volume of {volume}: the image has shape {shape}, "
            "the volume is given by its spatial axes, without channels"
        )
    return volume


def _packed(structure, values):
    if isinstance(structure, dict):
        return {name: _packed(value, values) for name, value in structure.items()}
    if isinstance(structure, tuple | list):
        return tuple(_packed(value, values) for value in structure)
    return next(values)


def _filled(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    # Written, so that the pages are there. Small numbers, which every type holds, and which differ
    # from place to place, so that it shows what was cut where.
    values = np.empty(shape, dtype)
    values.reshape(-1)[...] = np.resize(np.arange(DISTINCT, dtype=np.uint8), values.size)
    return values


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    values = memory.Buffers().empty(shape, dtype)
    values[...] = 1  # zeros alone might not make the system hand the pages out
    return values


def _tensor(values: np.ndarray):
    import tensorflow as tf

    if not values.size:
        return tf.convert_to_tensor(values)
    return tf.experimental.dlpack.from_dlpack(values.__dlpack__())
