"""How much memory the process holds at its worst."""

from __future__ import annotations

import contextlib
import gc
import threading
from pathlib import Path

import psutil

SAMPLE_EVERY_S = 0.01
MB = 1e6


class Peak:
    """Within `with Peak() as peak:` the highest resident memory is kept; `peak.mb` tells it.

    On Linux the system keeps the peak itself and nothing between two looks is missed. Elsewhere a
    thread looks every 10 ms.
    """

    def __init__(self) -> None:
        self._before = self._highest = 0
        self._done = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def mb(self) -> float:
        """Decimal MB at the peak above what was resident at the start."""
        return max(0, self._highest - self._before) / MB

    def __enter__(self) -> Peak:
        gc.collect()
        self._before = self._highest = resident_bytes()
        if not _forget_the_peak():
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_) -> None:
        if self._watcher is None:
            self._highest = max(self._highest, _peak_kept_by_linux())
        else:
            self._done.set()
            self._watcher.join()

    def _watch(self) -> None:
        finished = False
        while not finished:
            finished = self._done.wait(SAMPLE_EVERY_S)
            self._highest = max(self._highest, resident_bytes())


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return psutil.Process().memory_info().rss


def _forget_the_peak() -> bool:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        # Where the system takes the order but does not follow it, the old peak stands.
        return 0 < _peak_kept_by_linux() <= resident_bytes() + MB
    return False


def _peak_kept_by_linux() -> int:
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")), 0)
    return 0
