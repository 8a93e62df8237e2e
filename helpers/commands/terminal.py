"""What a command owes its terminal: lines that fit, no text out of a file, a quick Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import textwrap
import warnings
from collections.abc import Iterator

WIDTH = 79


class UsageError(Exception):
    """Arguments that cannot be meant; the message names no file."""


def say(text: str) -> None:
    """Print a message to stderr, in lines that fit."""
    print(hanging("", text), file=sys.stderr)


def hanging(head: str, text: str) -> str:
    """Text in lines that fit, the first behind a head, the others below it."""
    below = " " * len(head)
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=below)


@contextlib.contextmanager
def only_our_words() -> Iterator[None]:
    """Silence what libraries print, here and in workers; Ctrl-C ends these at once.

    A decoder that gives up prints the path, or the element, that it gave up on. Python's own stderr
    goes on, for progress and errors.
    """

    def end(number, frame) -> None:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise KeyboardInterrupt

    sys.stdout.flush()
    kept, python, disabled = (os.dup(1), os.dup(2)), sys.stderr, logging.root.manager.disable
    before = signal.signal(signal.SIGINT, end)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as silence:
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            sys.stderr = os.fdopen(os.dup(2), "w", errors="replace", buffering=1)
            for number in (1, 2):
                os.dup2(silence.fileno(), number)
            yield
    finally:
        signal.signal(signal.SIGINT, before)
        logging.disable(disabled)
        sys.stderr = python
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
