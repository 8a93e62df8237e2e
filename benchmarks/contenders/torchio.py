"""TorchIO: its warps, and its Queue of patches with uniformly drawn crops.

Without workers SimpleITK's own threads use the cores; each worker has one thread.
"""

import warnings

import SimpleITK as sitk
import torch
import torchio

from contenders import SEED, arrays, facts
from contenders.loaders import passes

warnings.filterwarnings("ignore")  # about folding; stderr is kept for errors
torch.manual_seed(SEED)

QUEUED = 2  # batches: how long a queue is has no default
ORDERS = {"image_interpolation": "linear", "label_interpolation": "nearest"}


def images(job, key="image", kind=torchio.ScalarImage) -> list[torchio.Image]:
    return [kind(tensor=torch.from_numpy(one)[None]) for one in arrays(job["folder"], key)]


def worker_with_one_thread(_: int) -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def warped(job, way, workers=0):
    """One of: "affine"; "elastic", in one resampling; "composed", in two; "elastic alone".

    Cells of the grid, and the three more control points that a cubic spline needs: at 128 voxels,
    32 between control points, these are the documented defaults, 7 and 7.5 mm.
    """
    amounts, move, bend = job["amounts"], dict(ORDERS), dict(ORDERS)
    move |= {"scales": amounts["zoom"], "degrees": amounts["degrees"]}
    move["translation"], bend["max_displacement"] = amounts["shift"], amounts["displacement"]
    bend["num_control_points"] = max(round(job["edge"] / amounts["grid"]), 2) + 3
    affine, elastic = torchio.RandomAffine(**move), torchio.RandomElasticDeformation(**bend)
    transform = {
        "affine": affine,
        "elastic": torchio.RandomAffineElasticDeformation(affine_kwargs=move, elastic_kwargs=bend),
        "composed": torchio.Compose([affine, elastic]),
        "elastic alone": elastic,
    }[way]
    both = zip(images(job), images(job, "mask", torchio.LabelMap), strict=True)
    subjects = [torchio.Subject(image=image, mask=mask) for image, mask in both]
    dataset = torchio.SubjectsDataset(subjects, transform=transform)
    options = {"worker_init_fn": worker_with_one_thread} if workers else {}

    def finish(batch) -> tuple:
        return tuple(batch[key][torchio.DATA].numpy() for key in ("image", "mask"))

    return passes(dataset, finish, 1, torchio.SubjectsLoader, workers=workers, **options)


def from_memory(job, each=1, workers=0):
    """Volumes `[1, z, y, x]` that are held, int16 as they are stored; `each` gives crops."""
    return queue(job, images(job), job["crop"], each, workers)


def from_nifti(job, workers=0):
    """Volumes `[1, x, y, z]` that are read whenever one is needed."""
    in_files = [torchio.ScalarImage(one["path"]) for one in facts(job["folder"])]
    return queue(job, in_files, job["crop"][::-1], 1, workers)


def queue(job, volumes, size, each, workers):
    """Runs that go through a queue, which is filled from as many volumes as it needs."""
    subjects = [torchio.Subject(image=image) for image in volumes]

    def run(count: int):
        needed = -(-job["batch"] * count // each)
        listed = [subjects[i % len(subjects)] for i in range(needed)]
        waiting = torchio.Queue(
            torchio.SubjectsDataset(listed), QUEUED * job["batch"], each,
            torchio.UniformSampler(tuple(size)), num_workers=workers, start_background=False,
        )  # fmt: skip
        for batch in torchio.SubjectsLoader(waiting, batch_size=job["batch"]):
            yield (batch["image"][torchio.DATA].float().numpy(),)

    return run
