"""What a command owes its terminal: no text out of a file, and a quick Ctrl-C."""

import contextlib
import logging
import multiprocessing
import os
import signal
import warnings


@contextlib.contextmanager
def only_our_words():
    """Silence what libraries print, here and in workers; Ctrl-C ends these at once.

    A decoder that gives up prints the path, or the element, that it gave up on. Python's own stderr
    goes on, for progress and errors.
    """

    def end(number, frame) -> None:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise KeyboardInterrupt

    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, end))
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable()
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        silence = stack.enter_context(open(os.devnull, "w"))
        for number in (1, 2):  # what C and workers write to
            kept = stack.enter_context(open(os.dup(number), "w", errors="replace", buffering=1))
            stack.callback(os.dup2, kept.fileno(), number)
            os.dup2(silence.fileno(), number)
        stack.enter_context(contextlib.redirect_stdout(silence))
        stack.enter_context(contextlib.redirect_stderr(kept))
        yield
