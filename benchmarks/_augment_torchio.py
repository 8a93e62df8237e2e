"""TorchIO in the augmentation benchmark: subjects in memory behind its SubjectsLoader.

`job["style"]`: "plain" in one process, where SimpleITK's own threads use the cores; "workers" with
two worker processes, each with one thread.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping

import SimpleITK as sitk
import torch
import torchio
from _augment_inputs import load
from _peers_torch import SEED, Item, passes

ORDERS = {"image_interpolation": "linear", "label_interpolation": "nearest"}


def affine_amounts(amounts: Mapping[str, float]) -> dict[str, object]:
    degrees, shift = amounts["degrees"], amounts["shift"]
    return {"scales": amounts["zoom"], "degrees": degrees, "translation": shift, **ORDERS}


def elastic_amounts(amounts: Mapping[str, float], edge: int) -> dict[str, object]:
    """Cells of the grid, and the three more control points that a cubic spline needs.

    At 128 voxels, 32 between control points, these are the documented defaults: 7 and 7.5 mm.
    """
    points = max(round(edge / amounts["grid"]), 2) + 3
    return {"num_control_points": points, "max_displacement": amounts["displacement"], **ORDERS}


def subject(job: Mapping, number: int) -> torchio.Subject:
    image, mask = (torch.from_numpy(array)[None] for array in load(job, number))
    return torchio.Subject(
        image=torchio.ScalarImage(tensor=image), mask=torchio.LabelMap(tensor=mask)
    )


def worker_with_one_thread(_: int) -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def arrays(batch: Mapping) -> Item:
    return tuple(batch[key][torchio.DATA].numpy() for key in ("image", "mask"))


def warped(job: Mapping, transform: torchio.Transform):
    subjects = [subject(job, i) for i in range(job["volumes"])]
    dataset = torchio.SubjectsDataset(subjects, transform=transform)
    workers = "workers" in job["style"]
    options = {"worker_init_fn": worker_with_one_thread} if workers else {}
    return passes(dataset, job, arrays, 1, torchio.SubjectsLoader, **options)


def contenders(job: Mapping) -> dict:
    warnings.filterwarnings("ignore")  # about folding; stderr is kept for errors
    torch.manual_seed(SEED)
    affine = affine_amounts(job["amounts"])
    elastic = elastic_amounts(job["amounts"], job["edge"])
    alone = torchio.RandomElasticDeformation(**elastic)
    composed = torchio.Compose([torchio.RandomAffine(**affine), alone])
    both = torchio.RandomAffineElasticDeformation(affine_kwargs=affine, elastic_kwargs=elastic)
    return {
        "elastic alone": functools.partial(warped, job, alone),
        "elastic": functools.partial(warped, job, both),
        "elastic, composed": functools.partial(warped, job, composed),
        "affine": functools.partial(warped, job, torchio.RandomAffine(**affine)),
    }
