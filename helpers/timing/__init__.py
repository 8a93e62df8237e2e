"""How fast a pipeline is, how fast it could be, and where its time goes.

    print(timing.throughput(dataset))              # ms an element, its spread, MB/s
    print(timing.floor(dataset, stored="int16"))   # the machine's own limit for the same bytes
    print(timing.explain(dataset).to_string())  # its stages as a tree, and what each costs
    print(timing.held_mb(dataset))                 # the memory it holds, in a fresh process

The first two look at every byte. Times are medians of several repeats, told with their spread; to
compare two pipelines, let them `take_turns`; to see who worked when, record a `Timeline`.
"""

import importlib

_HOMES = {"explain": "costs", "floor": "moves", "held_mb": "fresh", "moving": "moves"}
_HOMES |= {"Timeline": "timeline", "take_turns": "turns", "throughput": "turns"}


def __getattr__(name: str):
    # TensorFlow comes with the first of these that is asked for: who draws `spans` does without.
    if name not in _HOMES:
        raise AttributeError(f"helpers.timing has no {name!r}")
    return getattr(importlib.import_module(f"helpers.timing.{_HOMES[name]}"), name)
