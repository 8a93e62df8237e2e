"""What a conversion owes its terminal: no text that a library found in a file, a quick Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def only_our_words() -> Iterator[None]:
    """Silence whatever libraries print, in this process and in the workers that it starts.

    A decoder that gives up prints the path or the element that it gave up on. Python's own stderr
    is kept for progress and errors.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept, python = [os.dup(1), os.dup(2)], sys.stderr
    silence = os.open(os.devnull, os.O_WRONLY)
    disabled = logging.root.manager.disable
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            if _descriptor(sys.stderr) == 2:
                sys.stderr = open(  # noqa: SIM115
                    os.dup(2), "w", encoding=python.encoding, errors="replace", buffering=1
                )
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            yield
    finally:
        logging.disable(disabled)
        for number, copy in enumerate(kept, start=1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(silence)
        if sys.stderr is not python:
            sys.stderr.close()
            sys.stderr = python


def _descriptor(stream) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return None


@contextlib.contextmanager
def workers_end_with_ctrl_c() -> Iterator[None]:
    """End worker processes at once when the user interrupts; otherwise they finish their shards."""

    def end(number, frame) -> None:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGINT, end)
    except ValueError:  # not in the main thread, where nobody can interrupt
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
