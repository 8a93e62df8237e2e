"""Check of notebook 04: how long a training waited."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from helpers.lesson.checks.answers import check

# --- how long did it wait? ---


def trainings(rng: np.random.Generator) -> Iterator[tuple]:
    for n in range(20):
        steps = int(rng.integers(2, 9))
        step, gap = rng.uniform(0.02, 0.1, steps), rng.uniform(0.01, 0.3, steps)
        stops = 5 * n + np.cumsum(step + gap * (n != 3))  # once, it never waits
        yield stops - step, stops


def busy(starts: np.ndarray, stops: np.ndarray) -> float:
    return (stops - starts).sum() / (stops[-1] - starts[0])


waiting = check(
    lambda starts, stops: 1 - busy(starts, stops),
    trainings,
    {
        "that is the share in which a step ran; the rest is waiting": busy,
        "that is in per cent; a share lies between 0 and 1": lambda a, b: 100 * (1 - busy(a, b)),
        "those are seconds; divide by the time in all": lambda a, b: (a[1:] - b[:-1]).sum(),
        "that is a mean gap in seconds; add them up and divide by the time in all": lambda a, b: (
            a[1:] - b[:-1]
        ).mean(),
        "the clock began before the first step; measure from its start": lambda a, b: (
            1 - (b - a).sum() / b[-1]
        ),
        "waiting over working; divide by the time in all": lambda a, b: 1 / busy(a, b) - 1,
    },
    tell=lambda starts, stops: (
        f"{len(starts)} steps that took {(stops - starts).sum():.4g} of "
        f"{stops[-1] - starts[0]:.4g} s"
    ),
)
