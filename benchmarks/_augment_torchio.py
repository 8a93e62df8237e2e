"""TorchIO in the augmentation benchmark: subjects in memory behind its SubjectsLoader.

`job["style"]`: "plain" in one process, where SimpleITK's own threads use the cores; "workers" with
two worker processes, each with one thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import SimpleITK as sitk
import torch
import torchio
from _augment_inputs import load

ORDERS = {"image_interpolation": "linear", "label_interpolation": "nearest"}
SEED = 1


def affine_amounts(amounts: Mapping[str, float]) -> dict[str, object]:
    return {
        "scales": amounts["zoom"],
        "degrees": amounts["degrees"],
        "translation": amounts["shift"],
        **ORDERS,
    }


def elastic_amounts(amounts: Mapping[str, float], edge: int) -> dict[str, object]:
    """Cells of the grid, and the three more control points that a cubic spline needs.

    At 128 voxels, 32 between control points, these are the documented defaults: 7 and 7.5 mm.
    """
    return {
        "num_control_points": max(round(edge / amounts["grid"]), 2) + 3,
        "max_displacement": amounts["displacement"],
        **ORDERS,
    }


def subject(folder: str, number: int) -> torchio.Subject:
    image, mask = (torch.from_numpy(array)[None] for array in load(folder, number))
    return torchio.Subject(
        image=torchio.ScalarImage(tensor=image), mask=torchio.LabelMap(tensor=mask)
    )


def worker_with_one_thread(_: int) -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def passes(job: Mapping, transform: torchio.Transform, count: int):
    subjects = [subject(job["warp"], i) for i in range(count)]
    options = {}
    if job["style"] == "workers":
        options = {"num_workers": 2, "persistent_workers": True}
        options["worker_init_fn"] = worker_with_one_thread
    dataset = torchio.SubjectsDataset(subjects, transform=transform)
    loader = torchio.SubjectsLoader(dataset, batch_size=1, **options)

    def run() -> Iterator[tuple[np.ndarray, ...]]:
        for batch in loader:
            yield tuple(batch[key][torchio.DATA].numpy() for key in ("image", "mask"))

    return run


def contenders(job: Mapping) -> dict:
    warnings.filterwarnings("ignore")  # about folding; stderr is kept for errors
    torch.manual_seed(SEED)
    amounts, slow = job["amounts"], job["slow_volumes"]
    affine = affine_amounts(amounts)
    elastic = elastic_amounts(amounts, job["edge"])
    return {
        "elastic alone": lambda: passes(job, torchio.RandomElasticDeformation(**elastic), slow),
        "elastic": lambda: passes(
            job,
            torchio.RandomAffineElasticDeformation(affine_kwargs=affine, elastic_kwargs=elastic),
            slow,
        ),
        "elastic, composed": lambda: passes(
            job,
            torchio.Compose(
                [torchio.RandomAffine(**affine), torchio.RandomElasticDeformation(**elastic)]
            ),
            slow,
        ),
        "affine": lambda: passes(job, torchio.RandomAffine(**affine), job["volumes"]),
    }
