"""Crops: parts of a volume or picture that are small enough to train on.

    dataset = dataset.apply(crops.locate()).cache().repeat()
    dataset = dataset.apply(crops.pos_neg((96, 96, 96), per_image=4, seed=2))
    dataset = dataset.batch(2).apply(crops.merge_batch_dims())        # 2 x 4 = 8 crops

Of elements that lie in memory, `from_memory` makes the same batches at once, and faster. Elements
are dicts with `image` `[z, y, x, c]` or `[y, x, c]` and, where present, `mask` of the same spatial
shape with one channel; sizes are in voxels, in the order of these axes. Image and mask are always
cut at the same place, and voxels are copied as they are: NaN stays NaN, since other stages refuse
it.
"""

from helpers.crops.copies import copied, from_memory
from helpers.crops.cuts import centre, class_balanced, merge_batch_dims, pos_neg, random
from helpers.crops.starts import locate, starts

__all__ = [
    "centre",
    "class_balanced",
    "copied",
    "from_memory",
    "locate",
    "merge_batch_dims",
    "pos_neg",
    "random",
    "starts",
]
