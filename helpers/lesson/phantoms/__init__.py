"""Synthetic data that looks like the real thing, from a seed, in seconds.

    from helpers.lesson import phantoms
    patient = phantoms.torso(7)                      # arrays: a CT with organ and lesion masks
    folder = phantoms.ct_torso("data", cases=4)      # files: DICOM series, written once

Arrays: `torso`, `brain`, `skin_lesion`, `nodule_patient`. Sets on disk, each made again only when
its version or its parameters change: `ct_torso`, `mr_brain`, `skin_lesions`, `nodules`,
`decathlon`, `messy_folder`. One series, with a fault if you like: `dicom_series` and `TRAPS`.
"""

from helpers.lesson.phantoms.brain import brain, mr_brain
from helpers.lesson.phantoms.disc import messy_folder
from helpers.lesson.phantoms.nodules import nodule_patient, nodules
from helpers.lesson.phantoms.scanner import ORIENTATIONS, dicom_series, oriented
from helpers.lesson.phantoms.sets import ct_torso, decathlon, fresh_set
from helpers.lesson.phantoms.skin import skin_lesion, skin_lesions
from helpers.lesson.phantoms.torso import ORGANS, Torso, torso
from helpers.lesson.phantoms.traps import TRAPS

__all__ = [
    "ORGANS",
    "ORIENTATIONS",
    "TRAPS",
    "Torso",
    "brain",
    "ct_torso",
    "decathlon",
    "dicom_series",
    "fresh_set",
    "messy_folder",
    "mr_brain",
    "nodule_patient",
    "nodules",
    "oriented",
    "skin_lesion",
    "skin_lesions",
    "torso",
]
