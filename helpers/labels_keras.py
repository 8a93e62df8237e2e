"""Losses and metrics that leave out labels which are not known: what `labels` gives to Keras.

import helpers.labels_keras                        # then Keras knows what was saved
model = keras.saving.load_model("model.keras")
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="helpers")
class KnownBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy from logits, averaged over the labels of a batch that are known.

    Args:
        positive_weights: what a positive label counts, for each of the labels, where a negative
            one counts 1; None for 1.
        name: of the loss.

    Called with labels `[b, labels]` of 0, 1 and, where not known, a negative number; and with
    logits of the same shape. A `sample_weight` is one number a case. The sum over all known labels
    is divided by their number, as Keras' `ignore_class` has it for classes; without any it is 0.
    """

    def __init__(
        self,
        positive_weights: Sequence[float] | None = None,
        name: str = "known_binary_crossentropy",
    ) -> None:
        super().__init__(name=name)
        self.positive_weights = None if positive_weights is None else list(positive_weights)

    def call(self, y_true, y_pred):
        known = ops.cast(y_true >= 0, y_pred.dtype)
        weights = 1.0 if self.positive_weights is None else self.positive_weights
        positive = y_true * ops.softplus(-y_pred) * ops.convert_to_tensor(weights, y_pred.dtype)
        each = ops.where(y_true >= 0, positive + (1 - y_true) * ops.softplus(y_pred), 0.0)
        # Keras will divide by the number of cases, and copes with a weight for each of these.
        cases = ops.cast(ops.shape(y_true)[0], y_pred.dtype)
        return ops.sum(each, axis=-1) * ops.divide_no_nan(cases, ops.sum(known))

    def get_config(self) -> dict:
        return {"positive_weights": self.positive_weights, "name": self.name}


def _known(y_true, y_pred, sample_weight, *, classes: bool):
    """Labels, logits and weights with a weight of 0 where the label is not known."""
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.cast(y_true, y_pred.dtype)
    weight = ops.cast(y_true >= 0, y_pred.dtype)
    if sample_weight is not None:
        of_case = ops.cast(sample_weight, y_pred.dtype)
        weight = weight * (of_case if classes else ops.reshape(of_case, [-1, 1]))
    return ops.maximum(y_true, 0), y_pred, weight


@keras.saving.register_keras_serializable(package="helpers")
class KnownBinaryAccuracy(keras.metrics.BinaryAccuracy):
    """Share of the known labels `[b, labels]` whose logit has the right sign."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        known = _known(y_true, y_pred, sample_weight, classes=False)
        y_true, y_pred, weight = (ops.reshape(one, [-1, 1]) for one in known)
        return super().update_state(y_true, ops.sigmoid(y_pred), ops.reshape(weight, [-1]))


@keras.saving.register_keras_serializable(package="helpers")
class KnownClassAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """Share of the cases with a known class, `[b]`, whose logit of this class is the largest."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(*_known(y_true, y_pred, sample_weight, classes=True))
