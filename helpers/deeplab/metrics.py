"""Keras metrics for masks: over all pixels of an epoch, but for those that are ignored."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from helpers.deeplab import limits
from helpers.deeplab.limits import IGNORE


def mean_iou(classes: int, ignore: int = IGNORE, name: str = "mean_iou") -> keras.metrics.Metric:
    """Intersection over union, as the mean of the classes that occur in truth or prediction.

    Keras' own `MeanIoU(ignore_class=ignore, sparse_y_pred=False)`; of one class alone:
    `keras.metrics.IoU(..., target_class_ids=[1])`. The counts are of all pixels since the last
    reset, not one value an image: for this see `iou`. Without any pixel it is 0. What becomes
    of ids in a mask that are no class depends on Keras and on the device: they are left out without
    a word, or stop the training. `check` finds them before.

    Args:
        classes: how many there are.
        ignore: the id in a mask that is no class.
        name: in the history of `fit`.

    Returns:
        A metric for masks `[b, y, x, 1]` of class ids and logits `[b, y, x, classes]`.

    Raises:
        ValueError: for classes that leave no room for the ignored id.
    """
    limits.classes(classes, ignore)
    return keras.metrics.MeanIoU(classes, ignore_class=ignore, sparse_y_pred=False, name=name)


def mean_dice(
    classes: int,
    ignore: int = IGNORE,
    class_ids: Sequence[int] | None = None,
    name: str = "mean_dice",
) -> keras.metrics.Metric:
    """Dice coefficient, as the mean of the classes that occur in truth or prediction.

    Args:
        classes, ignore, name: as for `mean_iou`.
        class_ids: the classes to average, each of them once; None for all. [1] leaves the
            background out.

    Returns:
        A metric for masks `[b, y, x, 1]` of class ids and logits `[b, y, x, classes]`.

    Raises:
        ValueError: as for `mean_iou`, and for class ids that there are not.
    """
    limits.classes(classes, ignore)
    if class_ids is not None:
        class_ids = limits.chosen(class_ids, classes)
    return MeanDice(
        classes, ignore_class=ignore, sparse_y_pred=False, class_ids=class_ids, name=name
    )


@keras.saving.register_keras_serializable(package="helpers")
class MeanDice(keras.metrics.MeanIoU):
    """The metric of `mean_dice`: 2 TP / (2 TP + FP + FN) from the counts of `MeanIoU`."""

    def __init__(self, *counts, class_ids: Sequence[int] | None = None, **options) -> None:
        super().__init__(*counts, **options)
        self.class_ids = None if class_ids is None else list(class_ids)

    def result(self):
        matrix = ops.cast(self.total_cm, self.dtype)
        both = 2 * ops.diagonal(matrix)
        pixels = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1)
        if self.class_ids is not None:
            both, pixels = ops.take(both, self.class_ids), ops.take(pixels, self.class_ids)
        occurs = ops.cast(pixels > 0, self.dtype)
        return ops.divide_no_nan(ops.sum(ops.divide_no_nan(both, pixels)), ops.sum(occurs))

    def get_config(self) -> dict:
        return super().get_config() | {"class_ids": self.class_ids}
