"""Feedback on exercises: what an answer does on fresh data, said in a line.

A check prints its verdict and returns the answer if it is right, the course's own otherwise, so
that a lesson goes on with it: `crop_start = checks.crop_start(crop_start)`. Each has `.right`, a
right answer, and `.mistakes`: what people get wrong -> an answer that is wrong in that way.
"""

from helpers.lesson.checks.datasets import cached_then_augmented, volume_dataset
from helpers.lesson.checks.geometry import in_scan
from helpers.lesson.checks.imbalance import class_weights, corrected, patient_split, threshold
from helpers.lesson.checks.overlap import dice_of_cases, receptive_field
from helpers.lesson.checks.pairs_and_crops import crop_start, flip_pair
from helpers.lesson.checks.reading_scans import (
    activity,
    missing_heights,
    organ_ml,
    whiten_head,
)
from helpers.lesson.checks.scaling import scaled
from helpers.lesson.checks.shards import find_faulty, narrowest, parse
from helpers.lesson.checks.speed import epochs_to_see_all, faster
from helpers.lesson.checks.timelines import waiting

__all__ = [
    "activity",
    "cached_then_augmented",
    "class_weights",
    "corrected",
    "crop_start",
    "dice_of_cases",
    "epochs_to_see_all",
    "faster",
    "find_faulty",
    "flip_pair",
    "in_scan",
    "missing_heights",
    "narrowest",
    "organ_ml",
    "parse",
    "patient_split",
    "receptive_field",
    "scaled",
    "threshold",
    "volume_dataset",
    "waiting",
    "whiten_head",
]
