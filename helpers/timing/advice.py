"""One sentence on what to try, from what was seen of a running pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.timing.tree import Explanation

BUSY = 0.85  # of all cores, or of a step's time
SPREAD = 0.5
OTHERS = 0.4
AFTER_KIND = {
    "Batch": "Batching copies every byte: batch the narrowest type and cast the batch, or crop "
    "before.",
    "Shuffle": "What waits to be shuffled is made before anything comes out: shuffle paths or "
    "numbers instead.",
    "Cache": "Serving from the cache is what takes the time left: cache fewer bytes.",
    "TFRecord": "Reading records sets the pace: store fewer bytes (int16), read several files at a "
    "time with interleave, or cache.",
    "Interleave": "Reading its sources sets the pace: raise its num_parallel_calls, store fewer "
    "bytes, or cache.",
    "FlatMap": "One source after the other: use interleave with num_parallel_calls.",
}


def sets_the_pace(seen: Explanation) -> bool:
    """Whether the slowest stage is at work most of the time while somebody waits for it."""
    fed = seen.waiting is not None and seen.waiting < 1 - BUSY
    return seen.bottleneck.share >= SPREAD and not fed


def advice(seen: Explanation) -> str:
    """What to try first; of the rules below, the first that fits."""
    stage = seen.bottleneck
    if seen.waiting is not None and seen.waiting < 1 - BUSY:
        return (
            f"The model waited {seen.waiting:.0%} of the time: it is fed, and the step is what "
            "takes the time."
        )
    if seen.filling:
        return "A cache was still being filled: read the dataset once, then ask again."
    if stage.share < SPREAD:
        return (
            f"No stage limits: even {stage.name} is at work only {stage.share:.0%} of the time. "
            "Fewer stages, or more examples in an element (batch first), are what is left."
        )
    if stage.operation == "Generator":
        return (
            "A Python generator works in one thread: convert to records once, or load with "
            "num_parallel_calls in a map, or in the workers of a PyDataset."
        )
    cores = f"{seen.cores_busy:.1f} of {seen.cores} cores"
    if seen.cores_busy >= BUSY * seen.cores:
        return (
            f"{cores} were at work: more calls at a time do not help. Make {stage.name} cheaper: "
            "cache what comes out of it if it is always the same, crop before it, use fewer bytes."
        )
    if stage.python:
        return (
            f"{stage.name} calls Python, where only one call at a time holds the lock ({cores} "
            "were at work): write it with TensorFlow's operations, cache what it gives, or load in "
            "worker processes."
        )
    if stage.kind in AFTER_KIND:
        return AFTER_KIND[stage.kind]
    if stage.parallelism == 1 and "Map" in stage.kind:
        return (
            f"{stage.name} works on one element at a time while {cores} were at work: raise its "
            "num_parallel_calls."
        )
    if seen.others_busy >= OTHERS * seen.cores:
        return (
            f"{stage.name} takes longest, but other programs kept {seen.others_busy:.1f} of "
            f"{seen.cores} cores busy: ask again when the machine is quiet."
        )
    if seen.cores_busy >= SPREAD * seen.cores:
        return (
            f"{stage.name} sets the pace while {cores} were at work: a call more at a time may "
            "help, fewer bytes or less work in it will."
        )
    return (
        f"{stage.name} waits rather than works ({cores} were at work): for the disk, the network, "
        "or its own input. More calls at a time, or a cache, may hide that."
    )
