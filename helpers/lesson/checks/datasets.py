"""Checks of notebooks 01 and 02 that are datasets: windowed volumes, augmenting after a cache."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from helpers.lesson.checks.answers import Check, Wrong, ask, cause

# --- 01: a dataset of one's own ---

SHAPE = (5, 8, 6)


def windowed(hu: np.ndarray, centre: float = 40, width: float = 400) -> np.ndarray:
    return np.clip((hu - centre) / width + 0.5, 0, 1)


CONTENTS = {
    "these are Hounsfield units; asked for is the soft-tissue window, 0 to 1": lambda hu: hu,
    "stored values went through the window, not Hounsfield units": lambda hu: windowed(hu + 1024),
    "centre and width of the window are swapped": lambda hu: windowed(hu, 400, 40),
    "the window's limits are 40 and 400; it is 400 wide around 40": lambda hu: windowed(
        hu, 220, 360
    ),
    "Hounsfield units are divided; a window has a centre and a width": lambda hu: hu / 400,
    "values from 0 to 255; asked for are 0 to 1": lambda hu: 255 * windowed(hu),
    "the window is not cut off at 0 and 1": lambda hu: (hu - 40) / 400 + 0.5,
    "the slices are in reverse: sort by position, from the feet up": lambda hu: windowed(hu[::-1]),
}


def dataset_of(change: Callable = windowed) -> Callable:
    """An answer whose images are what `change` makes of Hounsfield units."""

    def answer(folders: list[str], shape: tuple):
        import tensorflow as tf

        from helpers.dicom import read_series

        def read(path):
            return np.float32(change(read_series(path.decode()).voxels.astype(float))[..., None])

        def element(path):
            image = tf.numpy_function(read, [path], tf.float32)
            return {"image": tf.ensure_shape(image, (*shape, 1))}

        plain = tf.autograph.experimental.do_not_convert(element)
        return tf.data.Dataset.from_tensor_slices(folders).map(plain)

    return answer


def judge_dataset(answer: Callable) -> str:
    """`answer(folders, shape)` yields `{"image": float32 [z, y, x, 1]}`, windowed, twice."""
    from helpers.lesson.phantoms import dicom_series
    from helpers.volume import Volume

    rng = np.random.default_rng(19)
    # Each slice is brighter than the one below it, so that a wrong order shows.
    ramp = np.linspace(-300, 400, SHAPE[0])[:, None, None]
    volumes = [np.rint(ramp + rng.normal(0, 20, SHAPE)).astype(np.int16) for _ in range(3)]
    with tempfile.TemporaryDirectory() as root:
        folders = [str(Path(root, f"case {case}")) for case in range(len(volumes))]
        for case, voxels in enumerate(volumes):
            dicom_series(Volume(voxels, (3, 1, 1)), folders[case], seed=case)
        dataset = ask(answer, folders, SHAPE)
        judge_elements(getattr(dataset, "element_spec", None))
        passes = [images_of(dataset) for _ in range(2)]
    for when, images in zip(("in one pass", "the second time through"), passes, strict=True):
        if len(images) != len(volumes):
            raise Wrong(f"{len(images)} volumes {when}, from {len(volumes)} folders")
    judge_contents(np.stack(passes[1])[..., 0], np.stack(volumes))
    return "right on 3 series that the check wrote: shape, dtype, order of slices, two passes"


def judge_elements(spec) -> None:
    if not isinstance(spec, dict) or set(spec) != {"image"}:
        raise Wrong(f'each element should be a dict with the key "image"; found {spec!r:.80}')
    found = spec["image"].shape
    if not found.is_fully_defined():
        raise Wrong(
            f"the static shape is {found}: Keras cannot build on it; state it "
            "(tf.ensure_shape, or the output signature)"
        )
    if tuple(found) != (*SHAPE, 1):
        raise Wrong(f"the shape is {tuple(found)}, asked for is {(*SHAPE, 1)}")
    if spec["image"].dtype.name != "float32":
        raise Wrong(f"the dtype is {spec['image'].dtype.name}, asked for is float32")


def judge_contents(images: np.ndarray, volumes: np.ndarray) -> None:
    wanted = windowed(volumes)
    if np.allclose(images, wanted, atol=1e-3):
        return
    for what, change in CONTENTS.items():
        if np.allclose(images, [change(hu.astype(float)) for hu in volumes], 1e-3, 2e-3):
            raise Wrong(what)
    both = (np.sort(one.reshape(len(one), -1)) for one in (images, wanted))
    if np.allclose(*both, atol=1e-3):
        raise Wrong("the voxels are all there, but in another order: sort by position")
    at = tuple(map(int, np.argwhere(~np.isclose(images, wanted, atol=1e-3))[0]))
    raise Wrong(
        f"{volumes[at]} HU became {images[at]:.4g}; in a window of 400 around 40 it is "
        f"{wanted[at]:.4g}"
    )


def images_of(dataset) -> list[np.ndarray]:
    try:
        return [np.asarray(element["image"]) for element in dataset.as_numpy_iterator()]
    except Exception as error:  # raised by the learner's function, inside the graph
        found = re.search(r"pyfunc_\d+ is (\w+), but expects (\w+)", str(error))
        if found:
            why = f"your function returns {found[1]}, the dataset expects {found[2]}"
            raise Wrong(why) from error
        why = cause(error)
        hint = "; a path arrives as bytes: path.decode()" if re.search(r"bytes|b'", why) else ""
        raise Wrong(f"reading the dataset raises {why}{hint}") from error


volume_dataset = Check(
    judge_dataset, dataset_of(), {what: dataset_of(change) for what, change in CONTENTS.items()}
)

# --- cached, then augmented ---

EPOCHS = 3


def built(*order: str) -> Callable:
    """A dataset of paths, passed through named steps."""

    def answer(paths, read, augment):
        import tensorflow as tf

        known = {
            "read": lambda dataset: dataset.map(read),
            "augment": lambda dataset: dataset.map(augment),
            "cache": lambda dataset: dataset.cache(),
            "repeat": lambda dataset: dataset.repeat(EPOCHS),
            "batch": lambda dataset: dataset.batch(2),
            "lose": lambda dataset: dataset.take(5),
            "one": lambda dataset: dataset.take(1).repeat(6),
        }
        dataset = tf.data.Dataset.from_tensor_slices(paths)
        for step in order:
            dataset = known[step](dataset)
        return dataset

    return answer


BUILDS = {
    "augment stands before the cache, and is frozen in it": built("read", "augment", "cache"),
    "put cache() behind it": built("read", "augment"),
    "with no repeat in front of the cache": built("read", "repeat", "cache", "augment"),
    "5 elements in one pass, from 6 files": built("read", "cache", "lose", "augment"),
    "there are elements that augment has not seen": built("read", "cache"),
    "goes through augment more than once": built("read", "augment", "cache", "augment"),
    "the elements are batches": built("read", "cache", "augment", "batch"),
    "shuffle before repeat, and leave none out": built("one", "read", "cache", "augment"),
    "each element should be what augment returns": built(),
}


class Counted:
    """A reader and an augmentation that can be told apart by what they leave in the element.

    The image is `[1, 3, 1]`: the file's number, how often it was augmented, and the number of the
    last augmentation, which is given out once.
    """

    def __init__(self) -> None:
        import tensorflow as tf

        self.paths: list[str] = []
        tickets = itertools.count(1)

        def load(path) -> np.ndarray:
            name = os.fsdecode(np.asarray(path).item())  # bytes in a map, text outside of it
            self.paths.append(name)
            return np.float32([[[int(Path(name).read_text(encoding="utf-8"))], [0], [0]]])

        def change(image: np.ndarray) -> np.ndarray:
            return np.float32([[image[0, 0], image[0, 1] + 1, [next(tickets)]]])

        @tf.autograph.experimental.do_not_convert
        def read(path):
            image = tf.numpy_function(load, [path], tf.float32)
            return {"image": tf.ensure_shape(image, (1, 3, 1)), "case": path}

        @tf.autograph.experimental.do_not_convert
        def augment(element):
            image = tf.numpy_function(change, [element["image"]], tf.float32)
            return {**element, "image": tf.ensure_shape(image, (1, 3, 1))}

        self.read, self.augment = read, augment


def judge_build(answer: Callable) -> str:
    """`answer(paths, read, augment)` reads each file once, and augments in each epoch."""
    with tempfile.TemporaryDirectory() as root:
        paths = [str(Path(root, f"case {number}.txt")) for number in range(6)]
        for number, path in enumerate(paths):
            Path(path).write_text(str(number), encoding="utf-8")
        given = Counted()
        dataset = ask(answer, paths, given.read, given.augment)
        rows = rows_of(dataset, len(paths))
    judge_rows(rows, len(given.paths), len(paths))
    return (
        f"right on {len(paths)} files that the check wrote: each read once for {EPOCHS} epochs, "
        "and augmented anew in every one of them"
    )


def rows_of(dataset, count: int) -> np.ndarray:
    """What the images hold, `[EPOCHS, count, 3]`; a pass through the dataset may be several."""
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset):
        raise Wrong(f"a tf.data.Dataset is asked for, you returned {dataset!r:.60}")
    spec = dataset.element_spec
    if not isinstance(spec, Mapping) or "image" not in spec:
        raise Wrong(f"each element should be what augment returns, a dict; found {spec!r:.80}")
    if spec["image"].shape.rank == 4:
        raise Wrong("the elements are batches; here each is one image: leave batch to the end")
    rows: list[np.ndarray] = []
    while len(rows) < EPOCHS * count:
        before = len(rows)
        try:
            # To the end of the pass, since only then a cache is complete; unless there is no end.
            passed = itertools.islice(dataset.as_numpy_iterator(), EPOCHS * count)
            rows += [np.ravel(element["image"]) for element in passed]
        except Exception as error:
            raise Wrong(f"reading the dataset raises {cause(error)}") from error
        found = len(rows) - before
        if found == 0 or found % count:
            raise Wrong(f"{found} elements in one pass, from {count} files")
    return np.reshape(rows[: EPOCHS * count], (EPOCHS, count, 3))


def judge_rows(rows: np.ndarray, reads: int, count: int) -> None:
    for number, epoch in enumerate(rows, 1):
        there = len(set(epoch[:, 0]))
        if there < count:
            raise Wrong(
                f"epoch {number} has {there} of the {count} cases, some of them twice: shuffle "
                "before repeat, and leave none out"
            )
    times, tickets = rows[..., 1], rows[..., 2]
    if not times.all():
        raise Wrong("there are elements that augment has not seen")
    if len(np.unique(tickets)) < tickets.size:
        raise Wrong(
            "the second epoch brings the very pictures of the first: augment stands before the "
            "cache, and is frozen in it"
        )
    if times.max() > 1:
        raise Wrong("an element goes through augment more than once on its way")
    said = f"read was called {reads} times for {count} files in {EPOCHS} epochs"
    if reads > count:
        raise Wrong(
            f"{said}: put cache() behind it, with no repeat in front of the cache, and let each "
            "pass reach its end"
        )
    if reads < count:
        raise Wrong(f"{said}: something else made the elements; a cache file of an earlier run?")


cached_then_augmented = Check(judge_build, built("read", "cache", "augment"), BUILDS)
