"""Notebook 06, trained longer: how well DeepLabV3+ segments, whoever the patients are.

The lesson writes a row for each task, "lesions" and "spleen", with the columns `task`, `mIoU` and
`Dice`, from cases that no training has seen: mIoU over the pixels of all cases, as a mean of the
classes; Dice of the lesion or the spleen, as a mean of the images or the volumes.
"""

from studies import Claim, Study, reaches

STUDY = Study(
    notebook="06_segmentation_with_deeplab",
    rows_of="task",
    measures=("mIoU", "Dice"),
    claims=(
        Claim("lesions: mIoU of 0.92 or more", reaches("lesions", "mIoU", 0.92), at_least=10),
        Claim(
            "spleen: Dice of whole volumes of 0.90 or more",
            reaches("spleen", "Dice", 0.90),
            at_least=10,
        ),
    ),
    # Longer than the lesson, which has to end within its minutes.
    parameters={"EPOCHS": 40, "CT_EPOCHS": 16},
    seeds=3,
)
