"""The published pipelines in the benchmark of reading; `_published.py` has them as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from _tuning_inputs import batches_in_a_pass, work_of

from helpers import quiet

quiet.tensorflow_greeting()
import _published  # noqa: E402


def passes(job: Mapping, dataset, image):
    """A function that goes through as many batches as a pass has, of a dataset without an end."""
    finite = dataset.take(batches_in_a_pass(job))

    def run() -> Iterator[tuple[np.ndarray, ...]]:
        for element in finite.as_numpy_iterator():
            yield (image(element),)

    return run


def float_list(job: Mapping, as_in_2018: bool):
    dataset = _published.float_list(work_of(job), as_in_2018=as_in_2018)
    return passes(job, dataset, lambda element: element[0])


def contenders(job: Mapping) -> dict:
    return {
        "float_list": lambda: float_list(job, as_in_2018=True),
        "float_list, today": lambda: float_list(job, as_in_2018=False),
        "generator": lambda: passes(
            job, _published.generator(work_of(job)), lambda element: element["features"]["x"]
        ),
    }
