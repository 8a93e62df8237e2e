"""Ready-made pipelines for classification and segmentation, and what goes with them.

    dataset = pipeline.segmentation(
        "records", split="train", batch_size=2, transforms=[crops.locate()],
        crop=crops.pos_neg((96, 96, 96), per_image=4, seed=1),
        augment=[augment.stage(transforms, seed=2)],
    )
    model.fit(dataset.apply(pipeline.pairs("mask")), epochs=10)

Both only put stages in the right order, and anyone can write the same by hand:

    records or files -> transforms -> cache -> order of indices -> crop -> augment
        -> batch -> batch transforms -> cast -> prefetch

`PythonBatches` is for loaders and random work in Python. docs/pipeline_names.md says where the
arguments of Clara Train's pipelines went.
"""

from helpers.pipeline.batching import batches, classification, items, pairs, segmentation
from helpers.pipeline.python_batches import PythonBatches

__all__ = ["PythonBatches", "batches", "classification", "items", "pairs", "segmentation"]
