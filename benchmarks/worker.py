"""A worker: one process of one environment, which runs contenders when it is asked.

TensorFlow and PyTorch live in environments of their own. A worker prepares a contender when it is
first asked for it, and runs one pass whenever it is asked. In between it waits for a line, so one
works at a time. Questions and answers are lines of JSON on its stdin and stdout; what libraries
print goes to its stderr. It ends when its stdin does, that is, at the latest with its parent.
"""

import contextlib
import gc
import importlib
import json
import os
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

import checks
import numpy as np
import psutil
from contenders import Item, runs_of

Run = Callable[[int], Iterator[Item]]
ROOT = Path(__file__).resolve().parent.parent
LAST_WORDS = 2000  # characters
ENDS_WITHIN_S = 10


class ContenderFailedError(RuntimeError):
    """A contender raised or made something wrong, or its worker died; with what it said."""


class Pass(NamedTuple):
    """Seconds of a pass, and until its first item; checksums; `checks.exact_crc` of the last."""

    seconds: float
    first_s: float
    checksums: list[int]
    last: int


def timed(run: Run, count: int, lead: int = 0, trail: int = 0, look: str = "") -> Pass:
    """Seconds that `count` items take, every byte looked at.

    Args:
        run: gives the items of one pass.
        count: items for which the clock runs.
        lead, trail: so many more at the beginning, and at the end, are outside of the clock: it is
            to show a pipeline that runs, not one that starts.
        look: "thin" at a few voxels only; "whole" at the last item again, after the clock.
    """
    gc.collect()
    stamps, checksums, last = [time.perf_counter()], [], 0
    for item in run(lead + count + trail):
        checksums.append(checks.checksum(checks.thin(item) if look == "thin" else item))
        stamps.append(time.perf_counter())
        if look == "whole" and len(checksums) == lead + count + trail:
            last = checks.exact_crc(item[0])
    checks.need(len(checksums) > lead + trail, f"gave {len(checksums)} items, too few to be timed")
    return Pass(stamps[-1 - trail] - stamps[lead], stamps[1] - stamps[0], checksums, last)


def peak_resident(pid: int | str = "self") -> int:
    """The most memory that a process has held, in bytes; on macOS what it holds now."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")), 0)
    memory = psutil.Process(None if pid == "self" else pid).memory_info()
    return getattr(memory, "peak_wset", memory.rss)


def peak_bytes(run: Run) -> int:
    """Memory that an item takes at its worst, over what the process held before."""
    gc.collect()
    before = psutil.Process().memory_info().rss
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    (peak,) = [(checks.checksum(item), peak_resident())[1] for item in run(1)]
    return peak - before


class Contenders:
    """Those of one job, each prepared when it is first asked for; those of others are forgotten."""

    def __init__(self) -> None:
        self.job, self.ready = None, {}

    def answer(self, action: str, contender: str, settings: dict, job: dict, **more) -> dict:
        """What a worker says to a question: to look at items, to time a pass, to tell an item."""
        if job != self.job:
            self.job, self.ready = job, {}
        key = json.dumps([contender, settings])
        if key not in self.ready:
            module, _, name = contender.partition(".")
            prepare = getattr(importlib.import_module(f"contenders.{module}"), name)
            run, kind = runs_of(prepare(job, **settings)), more.get("kind", "")
            self.ready[key] = run, checks.Watch(kind, job)
        run, watch = self.ready[key]
        if action == "tell":
            return {"told": [array.tolist() for array in next(run(1))]}
        if action == "peak":
            return {"bytes": peak_bytes(run)}
        if action == "look":
            return {"seconds": self.look(run, **more)}
        more.pop("kind")
        found = timed(run, **more)
        watch.check(found.checksums, more["count"] + more["lead"] + more["trail"], found.last)
        return {"seconds": found.seconds, "first_s": found.first_s}

    def look(self, run: Run, kind: str, count: int) -> float:
        """Check some items, voxel by voxel; the seconds that the last one took."""
        items, start = [], time.perf_counter()
        for item in run(count):
            seconds = time.perf_counter() - start
            items.append(tuple(map(np.array, item)))
            start = time.perf_counter()
        checks.look(kind, items, self.job)
        return seconds


def serve(questions: Iterable[str], answers: TextIO) -> None:
    """Answer one line for each line, until there are no more; an error is an answer, too."""
    contenders = Contenders()
    for number, line in enumerate(questions):
        try:
            reply = contenders.answer(**json.loads(line))
        except Exception:  # whatever a library may raise: the parent has to hear of it
            reply = {"error": traceback.format_exc()}
        if not number:
            gc.freeze()  # the objects of large packages: each collection would walk them all
        print(json.dumps(reply), file=answers, flush=True)


class Worker:
    """The parent's end of a worker, in the environment of an interpreter."""

    def __init__(self, python: Path | str) -> None:
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the worker
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._words}
        self.process = subprocess.Popen(
            [str(python), __file__], text=True, env=os.environ | {"PYTHONPATH": paths}, **pipes
        )

    def ask(self, contender: str, **question: object) -> Mapping:
        """One question: the arguments of `Contenders.answer`."""
        try:
            line = json.dumps({"contender": contender, **question})
            print(line, file=self.process.stdin, flush=True)
            reply = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):  # it is dead, or it was closed
            reply = ""
        answer = json.loads(reply or '{"error": "its worker has died"}')
        if "error" in answer:
            self._words.seek(0)
            words = self._words.read()[-LAST_WORDS:]
            raise ContenderFailedError(f"{contender}: {answer['error']}\n{words}")
        return answer

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._words.close()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # from now on, what anybody prints is no answer
    questions = os.fdopen(os.dup(0), "r")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # libraries' own processes read no questions
    serve(questions, answers)


if __name__ == "__main__":
    main()
