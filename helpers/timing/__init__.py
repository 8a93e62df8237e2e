"""How fast a pipeline is, how fast it could be, and where its time goes.

    print(timing.throughput(dataset))              # ms an element, spread, MB/s, peak memory
    print(timing.floor(dataset, stored="int16"))   # the machine's own limit for the same bytes
    print(timing.explain(dataset))                 # its stages as a tree, the bottleneck marked

The first two look at every byte. Times are medians of several repeats, told with their spread; to
compare two pipelines, let them `take_turns`.
"""

from helpers.timing.explain import explain
from helpers.timing.floor import floor, moving
from helpers.timing.looking import look
from helpers.timing.throughput import Throughput, take_turns, throughput
from helpers.timing.timeline import Span, Timeline
from helpers.timing.tree import Explanation, Stage

__all__ = [
    "Explanation",
    "Span",
    "Stage",
    "Throughput",
    "Timeline",
    "explain",
    "floor",
    "look",
    "moving",
    "take_turns",
    "throughput",
]
