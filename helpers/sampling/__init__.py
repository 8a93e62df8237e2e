"""Which case comes next, and how much it counts: balance by drawing, or by weights in the loss.

    from helpers import records, sampling
    known = records.index("records", "train")
    probabilities = sampling.automatic(known["label"])
    order = sampling.indices(probabilities, seed=0, groups=known["label"])
    dataset = records.read("records", "train", mapped=True, indices=order, batch=4)

Indices are drawn, and then only the drawn cases are read. Rejecting cases after reading them, as
`Dataset.rejection_resample` does, throws away most of the work. Where cases cannot be read by
number, `mixed` draws from one dataset a class. The other way is to draw as things come and weigh:

    weights = sampling.class_weights(known["label"])
    model.fit(dataset, class_weight=weights)
    dataset = dataset.apply(sampling.weighted(weights))      # where `class_weight` does not serve

One of the two is enough: together they correct twice. Only `indices`, `mixed` and `weighted` need
TensorFlow.
"""

from helpers.sampling.mixing import mixed
from helpers.sampling.orders import epoch, indices
from helpers.sampling.probabilities import automatic, element
from helpers.sampling.weights import class_weights, weighted

__all__ = ["automatic", "class_weights", "element", "epoch", "indices", "mixed", "weighted"]
