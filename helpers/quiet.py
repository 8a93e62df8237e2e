"""Keep TensorFlow's greeting off the page.

At its first import TensorFlow's C++ part writes half a screen about processors and CUDA to the
process's stderr, before any log level is looked at. A notebook keeps that for ever. Here the first
import, and the first look for a GPU, run with file descriptor 2 in a temporary file; if the import
fails, what was held back is printed, because then it matters.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def native_stderr_held() -> Iterator[None]:
    """Hold back what this process writes to file descriptor 2; print it only after an error.

    Taught in: no lesson; imports of TensorFlow are held back by it.
    """
    kept, failed = os.dup(2), True
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                held.seek(0)
                sys.stderr.write(held.read().decode(errors="replace"))


def tensorflow_greeting() -> None:
    """From now on `import tensorflow` is silent in this process; calling it twice is harmless.

    Nothing is imported here. Warnings and errors that TensorFlow writes later still appear;
    `TF_CPP_MIN_LOG_LEVEL` is set to 1 (no information lines) unless it is set already.

    Taught in: no lesson; `import helpers` calls it.
    """
    # Not by `setdefault`: where AutoGraph comes by, it would warn of that method and print what it
    # belongs to, the whole environment with all that is secret in it.
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module as usual, but for what it writes to the process's stderr."""

    def exec_module(self, module):
        with native_stderr_held():
            super().exec_module(module)
            # The first look for a GPU complains about a missing driver: have it over with.
            module.config.list_physical_devices()


class _Finder:
    """Finds TensorFlow where it lies; all else is left to the usual finders."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        find = importlib.machinery.PathFinder.find_spec
        spec = find(name, path, target) if name == "tensorflow" else None
        if spec and spec.has_location:
            spec.loader = _Loader(name, spec.origin)
        return spec
