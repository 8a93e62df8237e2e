"""Long-lived workers that take turns, so that libraries of two environments meet in one round.

    python benchmarks/_servers.py CONTENDERS.py JOB

TensorFlow and PyTorch live in environments of their own. A worker is one process of one of them:
it prepares each of its contenders once and then, whenever it is asked, runs one of them once.
Between two questions it waits for the next line. Questions and answers are lines of JSON on its
stdin and stdout, so there is no port and nothing to unpickle; what its libraries print goes to its
stderr. It ends when its stdin does, that is, at the latest with its parent.

A file of contenders has `contenders(job)`, which gives name -> prepare; `prepare()` gives run, and
each `run(count)` yields what one pass makes, `count` items, as tuples of arrays. Then it is done:
nobody works on after the answer. A question may tell more of the job, a size for instance.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

Item = tuple[np.ndarray, ...]
Run = Callable[[int], Iterator[Item]]
NOTHING: Mapping = {}
LAST_WORDS = 2000  # characters
ENDS_WITHIN_S = 10


class ContenderFailedError(RuntimeError):
    """A contender raised, or its worker died; the message holds what it said."""


def checksum(item: Sequence[np.ndarray]) -> int:
    """Look at every byte of an item's arrays, at the least cost: as a sum of 64-bit integers.

    Returns:
        The sum modulo 2**64; another one if a single voxel is another.
    """
    total = 0
    for array in item:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        whole = data.size // 8 * 8
        total += int(data[:whole].view(np.uint64).sum()) + int(data[whole:].sum())
    return total % 2**64


class Pass(NamedTuple):
    """One pass: its seconds, those until its first item, and the checksum of each item."""

    seconds: float
    first_s: float
    checksums: list[int]


def timed(run: Run, count: int, lead: int = 0, trail: int = 0) -> Pass:
    """Seconds that `count` items take, every byte looked at.

    Args:
        run: gives the items of one pass.
        count: items for which the clock runs.
        lead, trail: so many more at the beginning, and at the end, are looked at outside of the
            clock: it is to show a pipeline that runs, not one that starts.

    Raises:
        ValueError: if no item is left for the clock.
    """
    gc.collect()
    stamps, checksums = [time.perf_counter()], []
    for item in run(lead + count + trail):
        checksums.append(checksum(item))
        stamps.append(time.perf_counter())
    if len(checksums) <= lead + trail:
        raise ValueError(f"{len(checksums)} items, of which {lead} + {trail} are not timed")
    return Pass(stamps[-1 - trail] - stamps[lead], stamps[1] - stamps[0], checksums)


class Prepared:
    """A worker's contenders, each prepared when it is first asked for."""

    def __init__(self, contenders: Callable[[Mapping], Mapping], job: Mapping) -> None:
        self.contenders, self.job, self.told = contenders, job, None

    def __call__(self, name: str, told: Mapping) -> Run:
        """The contender of that name; those for another size are forgotten."""
        if told != self.told:
            self.told, self.ready = told, {}
            self.table = self.contenders({**self.job, **told})
        if name not in self.ready:
            self.ready[name] = self.table[name]()
        return self.ready[name]


def answer(question: Mapping, prepared: Prepared) -> dict:
    """What a worker says to a question: to time a pass, or to keep the items of one.

    Kept items are written to files of a `folder`, item 0's second array as `0_1.npy`, outside of
    any clock; `seconds` are those of the last item.
    """
    run, count = prepared(question["name"], question["told"]), question["count"]
    if "folder" not in question:
        return timed(run, count, question["lead"], question["trail"])._asdict()
    start, seconds = time.perf_counter(), 0.0
    for i, item in enumerate(run(count)):
        seconds = time.perf_counter() - start
        for j, array in enumerate(item):
            np.save(Path(question["folder"], f"{i}_{j}.npy"), array, allow_pickle=False)
        start = time.perf_counter()
    return {"seconds": seconds}


def serve(prepared: Prepared, questions: Iterable[str], answers: TextIO) -> None:
    """Answer one line for each line, until there are no more; an error is an answer, too."""
    for number, line in enumerate(questions):
        try:
            reply = answer(json.loads(line), prepared)
        except Exception:  # whatever a library may raise: the parent has to hear of it
            reply = {"error": traceback.format_exc()}
        if not number:
            gc.freeze()  # the objects of large packages: each collection would walk them all
        print(json.dumps(reply), file=answers, flush=True)


class Server:
    """The parent's end of one worker.

    Args:
        python: interpreter of the environment.
        contenders: the file that defines them.
        job: what they work on; anything that JSON can hold.
        env: variables that are added to the environment.
    """

    def __init__(
        self,
        python: Path | str,
        contenders: Path | str,
        job: Mapping,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the worker
        self.label = Path(contenders).stem
        self.process = subprocess.Popen(
            [str(python), str(Path(__file__).resolve()), str(contenders), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env=os.environ | dict(env or {}),
        )

    def _ask(self, question: Mapping) -> dict:
        try:
            print(json.dumps(question), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):  # it is dead, or it was closed
            line = ""
        if not line:
            code = self.process.wait()
            raise ContenderFailedError(
                f"{question['name']}: the worker of {self.label} has died (exit code {code}). Its "
                f"last words:\n{self._last_words()}"
            )
        reply = json.loads(line)
        if "error" in reply:
            words = f"{question['name']}: {reply['error']}{self._last_words()}"
            raise ContenderFailedError(words)
        return reply

    def _last_words(self) -> str:
        if self._words.closed:
            return "(closed)"
        self._words.seek(0)
        return self._words.read()[-LAST_WORDS:]

    def run(
        self, name: str, count: int, lead: int = 0, trail: int = 0, told: Mapping = NOTHING
    ) -> Pass:
        """One pass of a contender.

        Args:
            name: of the contender.
            count: items for which the clock runs.
            lead, trail: items at the beginning and at the end that are not timed.
            told: more of the job, a size for instance.

        Raises:
            ContenderFailedError: if the contender raises or its worker is dead.
        """
        question = {"name": name, "told": told, "count": count, "lead": lead, "trail": trail}
        return Pass(**self._ask(question))

    def keep(self, name: str, count: int, told: Mapping = NOTHING) -> tuple[list[Item], float]:
        """The items of a short pass, to be looked at, and the seconds that the last one took.

        Raises:
            ContenderFailedError: if the contender raises or its worker is dead.
        """
        with tempfile.TemporaryDirectory() as folder:
            question = {"name": name, "told": told, "count": count, "folder": folder}
            seconds = self._ask(question)["seconds"]
            items: dict[int, dict[int, np.ndarray]] = {}
            for path in Path(folder).glob("*.npy"):
                i, j = map(int, path.stem.split("_"))
                items.setdefault(i, {})[j] = np.load(path, allow_pickle=False)
            return [tuple(items[i][j] for j in sorted(items[i])) for i in sorted(items)], seconds

    def close(self) -> None:
        """End the worker; calling it twice is harmless."""
        if self._words.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._words.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def take_turns(
    contenders: Mapping[str, Callable[[], float]], rounds: int, tick: Callable[[], None]
) -> dict[str, list[float]]:
    """Ask every contender once a round, each round beginning with another; one runs at a time.

    Args:
        contenders: name -> what runs it once and gives a time; run before, for caches, compilers
            and lazy imports.
        rounds: how many times.
        tick: called after each run.

    Returns:
        name -> a time for each round.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        # Another order in each round: nobody always runs in the wake of the same neighbour.
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(contenders[name]())
            tick()
    return times


def main() -> None:
    source, job = Path(sys.argv[1]).resolve(), json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # from now on, what anybody prints is no answer
    questions = os.fdopen(os.dup(0), "r")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)  # processes that a library starts do not read the questions
    sys.path.insert(0, str(source.parent))
    # An import under its own name, so that what a library pickles for its workers is found there.
    module = importlib.import_module(source.stem)
    serve(Prepared(module.contenders, job), questions, answers)


if __name__ == "__main__":
    main()
