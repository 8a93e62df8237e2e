"""Several labels of one case, as a model's heads need them: Clara's `label_format`.

    labels.outputs([1, 1, 1, 1, 1, 6, 6, 6, 6])          # 29: five binary, four of 6 classes
    dataset = dataset.apply(labels.heads([1, 1, 6]))     # label: {"binary": [2], "class_2": []}

A format has one whole number for each label: how many classes it has, and 1 for a label that is
yes or no. Binary labels share one head, for a sigmoid and binary cross-entropy; each of the others
has a head of its own, for a softmax and cross-entropy. Both leave out labels that are not known:

    model = keras.Model(inputs, labels.layers(features, [1, 1, 6]))
    model.compile("adam", loss=labels.losses([1, 1, 6]), metrics=labels.metrics([1, 1, 6]))

Only `heads`, `layers`, `losses` and `metrics` need TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np

from helpers.errors import CourseDataError

MISSING = -1  # a label that is not known; records and data lists have it so
BINARY = "binary"


def outputs(label_format: Sequence[int]) -> int:
    """How many numbers a model gives for one case: one a binary label, one a class of the others.

    Args:
        label_format: number of classes of each label, 1 for a binary one.

    Raises:
        ValueError: for a format that is empty, or has anything but whole numbers from 1.
    """
    return sum(_checked(label_format))


def check(label_format: Sequence[int], label: int | Sequence[int], where: str | Path = "") -> None:
    """Refuse a label that does not fit its format.

    Args:
        label_format: number of classes of each label, 1 for a binary one.
        label: of one case: a class id for each label, -1 where it is not known. A single number
            will do where there is one label.
        where: what to call the case in the message, for instance "item 7"; or its file.

    Raises:
        CourseDataError: `UNKNOWN_LABEL` for another number of labels, for ids out of range, and
            for what is no whole number.
        ValueError: for an impossible format.
    """
    sizes = _checked(label_format)
    values = np.atleast_1d(np.asarray(label, object)).tolist()
    name, files = (where.name, [where]) if isinstance(where, Path) else (where, [])
    begin = f"{name}: " if name else ""
    if len(values) != len(sizes):
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"{begin}found {len(values)} label(s), expected {len(sizes)}, as many as the format "
            f"has: {list(sizes)}; write {MISSING} for one that is not known",
            files,
        )
    for place, (value, size) in enumerate(zip(values, sizes, strict=True)):
        if not isinstance(value, Integral) or not MISSING <= value <= _largest(size):
            raise CourseDataError(
                "UNKNOWN_LABEL",
                f"{begin}label {place}, counted from 0, is {value!r}; expected a whole number from "
                f"0 to {_largest(size)}, or {MISSING} where it is not known",
                files,
            )


def heads(label_format: Sequence[int], *, num_parallel_calls: int = 2) -> Callable:
    """A stage that splits each element's `label` into what the heads of a model learn.

    `dataset.apply(labels.heads([1, 1, 6]))` makes of the label `[1, 0, 4]` the dict
    `{"binary": [1.0, 0.0], "class_2": 4}`. Keras takes such a dict where the model's outputs have
    these names: `binary` (2 logits) and `class_2` (6 logits).

    Args:
        label_format: number of classes of each label, 1 for a binary one.
        num_parallel_calls: elements worked on at a time.

    Returns:
        A stage for elements and for batches of them: `label`, whole numbers `[..., labels]`, or
        `[]` where there is one label, becomes a dict. `binary`, if there are any, is float32
        `[..., binary labels]` in the order of the format; `class_N`, for a label at position N
        (from 0) that has classes, is int32 `[...]`. A label that is not known stays -1, in both: a
        loss has to leave it out, as those of `losses` do, because -1 is no class.

    Raises:
        CourseDataError: `UNKNOWN_LABEL` for another number of labels.
        ValueError: for elements without a `label`, and for an impossible format.
        tf.errors.InvalidArgumentError: while it runs, `UNKNOWN_LABEL` for an id out of range, with
            the case.
    """
    sizes = _checked(label_format)
    places, largest = _places(sizes), [_largest(size) for size in sizes]

    def stage(dataset):
        import tensorflow as tf

        from helpers import draws, elements

        _check_spec(dataset.element_spec, sizes)

        def split(element: dict) -> dict:
            label = tf.cast(element["label"], tf.int32)
            label = label[tf.newaxis] if label.shape.rank == 0 else label
            fits = tf.reduce_all((label >= MISSING) & (label <= largest))
            about = ["found the label", label, "expected at most", largest, "and from 0, or -1"]
            with tf.control_dependencies(
                elements.require(fits, "UNKNOWN_LABEL", about, element.get("case"))
            ):
                label = tf.identity(label)
            parts = {f"class_{n}": label[..., n] for n, size in enumerate(sizes) if size > 1}
            if binary := places.get(BINARY):
                parts[BINARY] = tf.cast(tf.gather(label, binary, axis=-1), tf.float32)
            return element | {"label": parts}

        return draws.map_named(
            dataset, split, name="labels.heads", num_parallel_calls=num_parallel_calls
        )

    return stage


def layers(features, label_format: Sequence[int]) -> dict:
    """The output layers of a model, one for each head, with the names that `heads` gives.

    Args:
        features: KerasTensor `[b, features]`, for instance of `GlobalAveragePooling2D`.
        label_format: number of classes of each label, 1 for a binary one.

    Returns:
        A KerasTensor of float32 logits for each name, whatever the model computes in: `binary`
        `[b, binary labels]`, `class_N` `[b, classes]`.

    Raises:
        ValueError: for features of another rank, and for an impossible format.
    """
    sizes = _checked(label_format)
    if len(features.shape) != 2:
        raise ValueError(f"features are [b, features], not {features.shape}; pool or flatten them")
    import keras

    def logits(name: str, places: list[int]):
        count = len(places) if name == BINARY else sizes[places[0]]
        return keras.layers.Dense(count, dtype="float32", name=name)(features)

    return {name: logits(name, places) for name, places in _places(sizes).items()}


def losses(label_format: Sequence[int], weights: Sequence[float] | None = None) -> dict:
    """The loss of each head, from logits, over the labels of a batch that are known.

    A label of -1 changes neither the loss nor a gradient, and the loss of a batch in which a head
    knows no label is 0. Keras adds the losses of the heads; `compile(loss_weights=)` weighs them.

    Args:
        label_format: number of classes of each label, 1 for a binary one.
        weights: what a positive label counts, for each of the binary labels in the order of the
            format, where a negative one counts 1: n_0 / n_1 makes both classes count the same.
            That is the ratio of the two `sampling.class_weights` of this label.

    Returns:
        For `compile(loss=)`: `binary` is a `labels_keras.KnownBinaryCrossentropy`, `class_N` is
        Keras' `SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)`. With a
        `sample_weight` for each case, the weighted sum is divided by the number of known labels.

    Raises:
        ValueError: for an impossible format, and for weights that are not as many as there are
            binary labels, negative or not finite.

    For focal loss (Lin et al., Focal Loss for Dense Object Detection, ICCV 2017) of one binary
    label that is always known, `keras.losses.BinaryFocalCrossentropy(from_logits=True)` serves: it
    is exact for logits of any size. Its `apply_class_balancing=True` weighs POSITIVES with `alpha`,
    by default 0.25, and negatives with 1 - `alpha`: rare positives would count a third.
    """
    places = _places(_checked(label_format))
    binary = len(places.get(BINARY, ()))
    if weights is not None:
        weights = [float(one) for one in weights]
        if len(weights) != binary or not all(0 <= one < np.inf for one in weights):
            raise ValueError(
                f"weights are finite numbers from 0, one for each of {binary} binary label(s), not "
                f"{weights}"
            )
    from helpers import labels_keras

    def loss(name: str):
        if name == BINARY:
            return labels_keras.KnownBinaryCrossentropy(weights)
        return labels_keras.keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=MISSING
        )

    return {name: loss(name) for name in places}


def metrics(label_format: Sequence[int]) -> dict:
    """Metrics of each head over the known labels: Keras' own count -1 as a wrong answer.

    Args:
        label_format: number of classes of each label, 1 for a binary one.

    Returns:
        For `compile(metrics=)`: `accuracy` of each head. Where positives are rare, take
        scikit-learn's `average_precision_score` of the predictions instead.

    Raises:
        ValueError: for an impossible format.
    """
    places = _places(_checked(label_format))
    from helpers import labels_keras

    kinds = {BINARY: labels_keras.KnownBinaryAccuracy}
    return {
        name: [kinds.get(name, labels_keras.KnownClassAccuracy)(name="accuracy")] for name in places
    }


def _checked(label_format: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(label_format)
    if not sizes or not all(
        isinstance(size, Integral) and not isinstance(size, bool) and size >= 1 for size in sizes
    ):
        raise ValueError(
            "a label format has one whole number for each label: how many classes it has, 1 for "
            f"yes or no; found {label_format!r}"
        )
    return tuple(int(size) for size in sizes)


def _places(sizes: tuple[int, ...]) -> dict[str, list[int]]:
    """The heads by name, with the positions of their labels in the format."""
    binary = [place for place, size in enumerate(sizes) if size == 1]
    found = {f"class_{place}": [place] for place, size in enumerate(sizes) if size > 1}
    return ({BINARY: binary} if binary else {}) | found


def _largest(size: int) -> int:
    """The largest id of a label with so many classes; binary ones have 0 and 1."""
    return max(size - 1, 1)


def _check_spec(spec, sizes: tuple[int, ...]) -> None:
    """Refuse elements whose label cannot have the format."""
    label = spec.get("label") if isinstance(spec, dict) else None
    if label is None or not hasattr(label, "dtype") or not label.dtype.is_integer:
        raise ValueError("elements are dicts with a `label` of whole numbers, one for each label")
    if label.shape.rank == 0 and len(sizes) == 1:
        return
    found = label.shape[-1] if label.shape.rank else 1
    if found != len(sizes):
        raise CourseDataError(
            "UNKNOWN_LABEL",
            f"elements have {'an unknown number of' if found is None else found} label(s), "
            f"expected {len(sizes)}, as the format says: {list(sizes)}",
        )
