"""Counts what loaders have loaded, so that one can wait for those in the background."""

from __future__ import annotations

import threading

AT_MOST_S = 600


class Loads:
    """A step behind a loader: hands on what was loaded, and counts it."""

    def __init__(self) -> None:
        self.count = 0
        self._condition = threading.Condition()

    def __call__(self, loaded):
        with self._condition:
            self.count += 1
            self._condition.notify_all()
        return loaded

    def wait_for(self, count: int) -> None:
        """Until so many have been loaded.

        Raises:
            TimeoutError: if that does not happen: a loader has failed.
        """
        with self._condition:
            if not self._condition.wait_for(lambda: self.count >= count, AT_MOST_S):
                raise TimeoutError(f"{self.count} of {count} volumes were loaded")
