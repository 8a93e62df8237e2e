"""Several labels of one case, as a model's heads need them: Clara's `label_format`.

    dataset = dataset.apply(labels.heads([1, 1, 6]))     # label: {"binary": [2], "class_2": []}
    model = keras.Model(inputs, labels.layers(features, [1, 1, 6]))
    model.compile("adam", loss=labels.losses([1, 1, 6]))

A format has one whole number for each label: how many classes it has, and 1 for a label that is
yes or no. Binary labels share one head, for a sigmoid and binary cross-entropy; each of the others
has a head of its own, for a softmax and cross-entropy. Both leave out labels that are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import ops

from helpers import stage
from helpers.cases import MISSING
from helpers.errors import need

BINARY = "binary"


def positions(label_format: Sequence[int]) -> dict[str, list[int]]:
    """The heads by name, each with the positions of its labels, from 0.

    Args:
        label_format: number of classes of each label, 1 for a binary one.

    Raises:
        ValueError: for a format that is empty, or has numbers below 1.

    >>> positions([1, 6, 1])
    {'binary': [0, 2], 'class_1': [1]}

    Taught in: imbalanced classification
    """
    if len(label_format) == 0 or min(label_format) < 1:
        raise ValueError(f"a label format has numbers of classes from 1, not {label_format}")
    found = {}
    for number, size in enumerate(label_format):
        name = f"class_{number}" if size > 1 else BINARY
        found.setdefault(name, []).append(number)
    return found


def heads(label_format: Sequence[int]) -> Callable:
    """A stage that splits each element's `label` into what the heads of a model learn.

    `dataset.apply(labels.heads([1, 1, 6]))` makes of the label `[1, 0, 4]` the dict
    `{"binary": [1.0, 0.0], "class_2": 4}`. Keras takes such a dict where the model's outputs have
    these names: `binary` (2 logits) and `class_2` (6 logits).

    Args:
        label_format: number of classes of each label, 1 for a binary one.

    Returns:
        A stage for elements and for batches of them: `label`, whole numbers `[..., labels]`, or
        `[...]` where there is one label, becomes a dict. `binary`, if there are any, is float32
        `[..., binary labels]` in the order of the format; `class_N`, for a label at position N
        (from 0) that has classes, is int32 `[...]`. A label that is not known stays -1, in both: a
        loss has to leave it out, as those of `losses` do, because -1 is no class.

    Raises:
        CourseDataError: `UNKNOWN_LABEL` for another number of labels.
        ValueError: for an impossible format.
        tf.errors.InvalidArgumentError: while it runs, `UNKNOWN_LABEL` for an id out of range, with
            the case.

    Taught in: imbalanced classification
    """
    places = positions(label_format)
    largest = [max(size - 1, 1) for size in label_format]

    def split(element: dict) -> dict:
        label = tf.cast(element["label"], tf.int32)
        if len(largest) == 1 and label.shape[-1:] != [1]:
            label = label[..., tf.newaxis]
        found = f"found labels of shape {label.shape}, the format is {list(label_format)}"
        need(label.shape[-1:] == [len(largest)], "UNKNOWN_LABEL", found)
        fits = tf.reduce_all((label >= MISSING) & (label <= largest))
        about = ["found the label", label, "expected at most", largest, "and from 0, or -1"]
        checks = stage.require(fits, "UNKNOWN_LABEL", about, element.get("case"))
        with tf.control_dependencies(checks):
            label = tf.identity(label)
        parts = {name: label[..., where[0]] for name, where in places.items()}
        if BINARY in places:
            binary = tf.gather(label, places[BINARY], axis=-1)
            parts[BINARY] = tf.cast(binary, tf.float32)
        return element | {"label": parts}

    def apply(dataset):
        return stage.mapped(dataset, split, name="labels.heads", num_parallel_calls=None)

    return apply


def layers(features, label_format: Sequence[int]) -> dict:
    """The output layers of a model, one for each head, with the names that `heads` gives.

    Args:
        features: KerasTensor `[b, features]`, for instance of `GlobalMaxPooling2D`.
        label_format: number of classes of each label, 1 for a binary one.

    Returns:
        A KerasTensor of float32 logits for each name, whatever the model computes in: `binary`
        `[b, binary labels]`, `class_N` `[b, classes]`.

    Raises:
        ValueError: for an impossible format.

    Taught in: imbalanced classification
    """
    logits = {}
    for name, where in positions(label_format).items():
        count = len(where) if name == BINARY else label_format[where[0]]
        logits[name] = keras.layers.Dense(count, dtype="float32", name=name)(features)
    return logits


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
        For `compile(loss=)`: `binary` is a `KnownBinaryCrossentropy`, `class_N` is Keras'
        `SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)`. With a `sample_weight`
        for each case, the weighted sum is divided by the number of known labels.

    Raises:
        ValueError: for an impossible format, and for another number of weights than there are
            binary labels.

    For focal loss (Lin et al., Focal Loss for Dense Object Detection, ICCV 2017) of one binary
    label that is always known, `keras.losses.BinaryFocalCrossentropy(from_logits=True)` serves: it
    is exact for logits of any size. Its `apply_class_balancing=True` weighs POSITIVES with `alpha`,
    by default 0.25, and negatives with 1 - `alpha`: rare positives would count a third.

    Taught in: imbalanced classification
    """
    places = positions(label_format)
    classes = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=MISSING)
    found = dict.fromkeys(places, classes)
    if BINARY in places:
        count = len(places[BINARY])
        counts = [1.0] * count if weights is None else [float(one) for one in weights]
        if len(counts) != count:
            raise ValueError(f"{len(counts)} weights for {count} binary labels")
        found[BINARY] = KnownBinaryCrossentropy(counts)
    return found


@keras.saving.register_keras_serializable(package="helpers")
class KnownBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy from logits, averaged over the labels of a batch that are known.

    Called with labels `[b, labels]` of 0, 1 and, where not known, a negative number; and with
    logits of the same shape. A `sample_weight` is one number a case. The sum over all known labels
    is divided by their number, as Keras' `ignore_class` has it for classes; without any it is 0.

    Args:
        positive_weights: what a positive label counts, for each of the labels, where a negative
            one counts 1.
        options: `name` and others of `keras.losses.Loss`.

    Taught in: imbalanced classification
    """

    def __init__(self, positive_weights: Sequence[float], **options) -> None:
        super().__init__(**{"reduction": "sum"} | options)
        self.positive_weights = list(positive_weights)

    def call(self, y_true, y_pred):
        """What each case adds to the mean over the labels that are known."""
        known = ops.cast(y_true >= 0, y_pred.dtype)
        each = ops.binary_crossentropy(ops.maximum(y_true, 0), y_pred, from_logits=True)
        counts = ops.where(y_true > 0, self.positive_weights, 1.0)
        of_case = ops.sum(known * counts * each, axis=-1)
        return of_case / ops.maximum(ops.sum(known), 1)

    def get_config(self) -> dict:
        """What it is made of, for `keras.saving`."""
        return super().get_config() | {"positive_weights": self.positive_weights}
