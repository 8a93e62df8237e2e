"""Where the crops of an element in memory are, as slices: what a stage's graph finds, by NumPy."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from helpers.crops.fixed import CentreCrop
from helpers.crops.laws import ARRAYS, Anywhere, Classes, Sides
from helpers.crops.stages import RandomCrop
from helpers.errors import CourseDataError

Slices = tuple[slice, ...]


class Cuts(NamedTuple):
    """The crops of one element.

    Args:
        extent: of each of them, in voxels.
        sources: where in the image each is taken from.
        target: where in the crop that comes to lie; None if it is all of it.
    """

    extent: tuple[int, ...]
    sources: list[Slices]
    target: Slices | None


class Drawing:
    """The law of a stage, applied to elements of arrays; it remembers places that it had to find.

    Args:
        stage: of `from_memory`.
    """

    def __init__(self, stage: RandomCrop | CentreCrop) -> None:
        self._stage = stage
        self._found: dict[tuple[int, int], tuple] = {}

    def prepare(self, element: dict) -> None:
        """Find the places that the stage draws from, unless the element has them.

        Raises:
            CourseDataError: `SHAPE_MISMATCH` for places of another shape than the image.
        """
        law = getattr(self._stage, "law", None)
        if isinstance(law, Sides | Classes):
            self._place(element, law)

    def cuts(self, element: dict, numbers: np.ndarray) -> Cuts:
        """Where the crops are.

        Args:
            element: that the stage has accepted.
            numbers: int64 `[k, axes]`, of the stage; `centre` needs none.

        Raises:
            CourseDataError: `NO_PLACE`, `SHAPE_MISMATCH`.
        """
        shape = np.array(element["image"].shape[:-1], np.int64)
        size = np.array(self._stage.size, np.int64)
        if isinstance(self._stage, CentreCrop):
            missing = size - np.minimum(shape, size)
            source = _slices(np.maximum(shape - size, 0) // 2, size - missing)
            target = _slices(missing // 2, size - missing) if missing.any() else None
            return Cuts(self._stage.size, [source], target)
        extent = np.minimum(shape, size)  # those that must not be smaller were refused before
        law, place = self._stage.law, None
        if not isinstance(law, Anywhere):
            place = self._place(element, law)
            limits = law.limits(ARRAYS, place)
            if not law.possible(ARRAYS, limits[:, 1] - limits[:, 0]):
                raise named("NO_PLACE", " ".join(map(str, law.nothing)), element)
        starts = law.starts(ARRAYS, place, shape, extent, numbers)
        return Cuts(tuple(extent.tolist()), [_slices(start, extent) for start in starts], None)

    def _place(self, element: dict, law: Sides | Classes) -> dict:
        place = element.get("places", {}).get(law.by)
        if place is None:
            return self._remembered(element, law)
        shape, located = element["image"].shape[:-1], tuple(np.asarray(place["shape"]).tolist())
        if tuple(shape) != located:
            raise named(
                "SHAPE_MISMATCH",
                f"places were located in a mask of {located}, but the image has {tuple(shape)}; "
                "let nothing between crops.locate and the crop change shapes",
                element,
            )
        return place

    def _remembered(self, element: dict, law: Sides | Classes) -> dict:
        """Places of these very arrays, for as long as they live."""
        arrays = element["image"], element["mask"]
        key = tuple(map(id, arrays))
        found = self._found.get(key)
        if found is None:
            # Eagerly, in this thread: a function of its own could wait for threads that wait here.
            place = law.find({"image": tf.constant(arrays[0]), "mask": tf.constant(arrays[1])})
            place = tf.nest.map_structure(lambda value: value.numpy(), place)
            forget = _forgetting(self._found, key)
            found = self._found[key] = place, [weakref.ref(one, forget) for one in arrays]
        return found[0]


def _forgetting(found: dict, key: tuple[int, int]):
    return lambda reference: found.pop(key, None)


def _slices(start: np.ndarray, extent: np.ndarray) -> Slices:
    return tuple(map(slice, start.tolist(), (start + extent).tolist()))


def named(code: str, message: str, element: dict, position: int | None = None) -> CourseDataError:
    """An error that names the element: by its case if it has one, and by its position."""
    names = [] if position is None else [f"element {position}"]
    if "case" in element:
        case = np.asarray(element["case"]).item()
        names.append(f"case {case.decode() if isinstance(case, bytes) else case}")
    return CourseDataError(code, f"{message} ({', '.join(names)})" if names else message)
