"""What every stage is built on: a named map, a seed for each element, and checks.

A stage takes a dataset and gives one: `dataset.apply(crops.random((96, 96, 96), seed=1))`.

Random numbers that come from a generator with a state depend on who asks first, and threads race.
Here each element meets a number of its own, and stateless operations make from it all that is
random about the element.
"""

from __future__ import annotations

import contextlib
import contextvars
import zlib
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from helpers.errors import need

AUTOTUNE = tf.data.AUTOTUNE
LARGEST_SEED = 2**31 - 1  # Dataset.random takes seeds modulo this
Wrap = Callable[[str, Callable], Callable]
_watch: contextvars.ContextVar[Wrap | None] = contextvars.ContextVar("watch", default=None)


@contextlib.contextmanager
def watched(wrap: Wrap) -> Iterator[None]:
    """Within this block, what each stage maps is `wrap(name, function)`: the way in for a Timeline.

    Args:
        wrap: gets the stage's name and its function, and returns a function of the same arguments.

    Taught in: no lesson; `timing.Timeline` is built on it
    """
    token = _watch.set(wrap)
    try:
        yield
    finally:
        _watch.reset(token)


def mapped(
    dataset: tf.data.Dataset,
    function: Callable,
    *,
    name: str,
    num_parallel_calls: int | None = AUTOTUNE,
) -> tf.data.Dataset:
    """`dataset.map`, in the order of the input, under a name that `timing` shows.

    Args:
        dataset: of any elements.
        function: as for `map`; nothing in it is for AutoGraph to convert.
        name: of the stage.
        num_parallel_calls: elements worked on at a time; None is one after another.

    Taught in: no lesson; all stages are built on it
    """
    wrap = _watch.get()
    function = function if wrap is None else wrap(name, function)
    return dataset.map(
        tf.autograph.experimental.do_not_convert(function),
        num_parallel_calls=num_parallel_calls,
        deterministic=None if num_parallel_calls is None else True,
        name=name.replace(".", "_"),
    )


def seeded(
    dataset: tf.data.Dataset,
    function: Callable,
    *,
    seed: int,
    name: str,
    num_parallel_calls: int | None = AUTOTUNE,
) -> tf.data.Dataset:
    """Map `function(element, seed)`, with another seed for each element.

    Args:
        dataset: of any elements; a tuple arrives as a tuple.
        function: gets the element and an int64 `[2]` for `tf.random.stateless_...`.
        seed: the same one gives the same stream, from a dataset that is made anew. Each epoch, be
            it by `repeat` or by iterating again, goes on with new numbers. `tf.random.set_seed`,
            where it is called, has a say as well.
        name: of the stage; stages of different names do not share numbers although they share the
            seed. Two of one name do.
        num_parallel_calls: elements worked on at a time; it changes nothing but the speed.

    Raises:
        ValueError: for a seed that is negative or too large.

    Taught in: augmentation
    """
    return mapped(
        tf.data.Dataset.zip(dataset, numbers(seed)),
        lambda element, number: function(element, salted(number, name)),
        name=name,
        num_parallel_calls=num_parallel_calls,
    )


def numbers(seed: int) -> tf.data.Dataset:
    """A number for each element to come, int64 `[]`, from which `salted` makes its seed.

    Args:
        seed: as of `seeded`.

    Taught in: no lesson; `seeded` is built on it, and `crops.from_memory`, which batches first
    """
    if not 0 <= seed < LARGEST_SEED or seed != int(seed):
        raise ValueError(f"a seed is a whole number from 0 to {LARGEST_SEED - 1}, not {seed}")
    return tf.data.Dataset.random(seed=int(seed), rerandomize_each_iteration=True)


def salted(number, name: str) -> tf.Tensor:
    """The seed of the element that has this number, in the stage of this name; int64 `[2]`.

    Taught in: no lesson; `seeded` is built on it
    """
    return tf.stack([number, tf.constant(zlib.crc32(name.encode()), tf.int64)])


def checked(spec, *, batched: bool = False) -> None:
    """Refuse elements that are no dicts with an image and, if they have one, a mask that fits.

    Args:
        spec: `dataset.element_spec`.
        batched: whether images are batches of pictures `[b, y, x, c]`.

    Raises:
        ValueError: for other elements, and for batches where single ones are expected.
        CourseDataError: `MASK_MISMATCH` for another shape, or for anything but whole numbers.

    Taught in: no lesson; all stages ask it
    """
    if not isinstance(spec, dict) or "image" not in spec:
        raise ValueError("elements are dicts with an `image` and, if you like, a `mask`")
    image, mask, case = (spec.get(name) for name in ("image", "mask", "case"))
    other = case is not None and (case.shape.rank == 1) != batched
    if image.shape.rank not in ((4,) if batched else (3, 4)) or other:
        wanted = "batches [b, y, x, c]" if batched else "single images [z, y, x, c] or [y, x, c]"
        cases = "" if case is None else f" with a case of {case.shape}"
        raise ValueError(
            f"{wanted} are taken, not {image.shape}{cases}; .unbatch() takes them apart"
        )
    if mask is not None:
        found = f"the mask is {mask.dtype.name} {mask.shape}, the image {image.shape}"
        wanted = f"expected whole numbers of shape {[*image.shape[:-1], 1]}: ids in one channel"
        fits = mask.shape.rank and mask.shape.is_compatible_with([*image.shape[:-1], 1])
        ids = mask.dtype.is_integer or mask.dtype.is_bool
        need(fits and ids, "MASK_MISMATCH", f"{found}; {wanted}")


def check_indices(indices: tf.data.Dataset) -> None:
    """Refuse `indices` that are no dataset of single whole numbers.

    Args:
        indices: whatever was given.

    Raises:
        ValueError: with what it holds instead.

    Taught in: no lesson; what reads by numbers asks it
    """
    spec = getattr(indices, "element_spec", None)
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank != 0 or not spec.dtype.is_integer:
        raise ValueError(f"indices is a dataset of single whole numbers, not of {spec}")


def require(ok, code: str, about: Sequence, case=None) -> list:
    """A check that runs with the graph.

    Args:
        ok: boolean tensor.
        code: of `errors.CODES`.
        about: strings and tensors: what was found, what was expected.
        case: the element's name, if it has one.

    Returns:
        For `tf.control_dependencies`. If `ok` is False, `tf.errors.InvalidArgumentError`.

    Taught in: no lesson; stages ask it
    """
    about = [f"{code}: {about[0]}", *about[1:]] + ([] if case is None else ["case", case])
    operation = tf.debugging.Assert(ok, about, summarize=8)
    return [] if operation is None else [operation]


def fitting(element: dict) -> list:
    """The check, as of `require`, that a mask fits its image where `checked` could not know it.

    Args:
        element: of a dataset, with `image` and maybe `mask`.

    Taught in: no lesson; stages ask it
    """
    image, mask = element["image"], element.get("mask")
    if mask is None or (image.shape[:-1].is_fully_defined() and mask.shape.is_fully_defined()):
        return []
    found, expected = tf.shape(mask), tf.concat([tf.shape(image)[:-1], [1]], 0)
    about = ["the mask has shape", found, "but the image needs", expected]
    same = tf.reduce_all(found == expected)
    return require(same, "MASK_MISMATCH", about, element.get("case"))
