"""Cases for the tests of `helpers.records`, and loaders that worker processes can import.

A case's source is its number, and everything about the case follows from that.
"""

import contextlib
import hashlib
import io
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import records
from helpers.cases import Case, Found
from helpers.errors import CourseDataError
from helpers.records import tfrecord

ROOT = Path(__file__).parents[1]
SALT = "nobody knows this"
CLASSES = ("background", "liver", "lesion")
SHAPE = (3, 5, 4)
# Where these come out, something has leaked.
PATIENT, REASON = "Placeholder^Jane", "quoted from the file"


def case(number: int, **changes) -> Case:
    """Two cases share a patient; every second one has a weight."""
    known = {
        "name": f"{PATIENT} case {number}",
        "source": number,
        "files": (Path(f"{PATIENT}/{number}.img"), Path(f"{PATIENT}/{number}.hdr")),
        "patient": f"{PATIENT} {number // 2}",
        "split": "train",
        "label": number % 3,
        "weight": 0.25 * number if number % 2 else None,
    }
    return Case(**(known | changes))


def cases(count: int, test: int = 0, **changes) -> tuple[Case, ...]:
    """`count` cases, of which the last `test` are in a split of their own."""
    splits = ["train"] * (count - test) + ["test"] * test
    return tuple(case(n, **({"split": splits[n]} | changes)) for n in range(count))


def volume(case: Case) -> dict:
    """A CT with a mask of three classes; shape and narrowest dtype are the same for all."""
    random = np.random.default_rng(case.source)
    return {
        "image": random.integers(-1000, 3000, SHAPE),
        "spacing": (2.5, 0.75, 0.5),
        "mask": random.integers(0, 3, SHAPE),
        "modality": "CT",
    }


def ids(case: Case) -> frozenset[int]:
    return frozenset({0, 1, 2})


def as_given(case: Case) -> dict:
    """The source itself, for elements that a test has made."""
    return case.source


def ids_as_given(case: Case) -> frozenset[int]:
    mask = case.source.get("mask")
    return frozenset() if mask is None else frozenset(np.unique(mask).astype(int).tolist())


def refusing(case: Case) -> dict:
    """Refuses some cases by name, and finds the file of number 7 gone."""
    if case.source in (1, 4):
        raise CourseDataError("TRUNCATED", f"{REASON} of {case.patient}", case.files)
    if case.source == 7:
        raise FileNotFoundError(2, "No such file or directory", str(case.files[0]))
    return volume(case)


def without_tensorflow(case: Case) -> dict:
    assert "tensorflow" not in sys.modules
    return volume(case)


def pausing(case: Case) -> dict:
    """Says on stdout which process this is, and waits to be killed."""
    os.write(1, b"%d\n" % os.getpid())
    signal.pause()


def photograph(number: int) -> dict:
    """A file of JPEG or PNG with its mask, as `encode_deeplab` takes them."""
    random, file = np.random.default_rng(number), io.BytesIO()
    pixels = random.integers(0, 255, (12 + number, 9, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG" if number % 2 else "PNG")
    mask = random.choice(np.array([0, 1, 255], np.uint8), pixels.shape[:2])
    kind = {"format": "jpeg" if number % 2 else "png", "height": 12 + number, "width": 9}
    return {"image": file.getvalue(), "mask": mask, **kind}


def write(folder: Path, found: Found | tuple[Case, ...], load=volume, **options) -> records.Written:
    """`records.write` with what all of these tests pass; in this process unless told otherwise."""
    known = {"salt": SALT, "classes": CLASSES, "survey": ids, "workers": 1, "progress": False}
    found, schema = found if isinstance(found, Found) else Found(found), "volume"
    schema = options.pop("schema", schema)
    return records.write(folder, found, schema, load, **(known | options))


def digests(folder: Path) -> dict[str, str]:
    """By name, SHA-256 of all files that are not hidden."""
    files = [path for path in sorted(folder.glob("*")) if path.is_file()]
    shown = [path for path in files if not path.name.startswith(".")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shown}


def name_of(case: Case) -> str:
    """What a case is called in its record."""
    return records.case_hash(SALT, case.patient, case.name)


def names(dataset) -> list[str]:
    """The names of one epoch, in order."""
    return [element["case"].decode() for element in dataset.as_numpy_iterator()]


def ending(call, *arguments, **options) -> str:
    """The code with which a call is refused, empty where it is not."""
    try:
        call(*arguments, **options)
    except CourseDataError as error:
        return "LEAK" if PATIENT in error.message or REASON in error.message else error.code
    return ""


# Runs that die at a chosen moment.


def disturbed(kind: str, folder: Path, **options) -> None:
    """The run that is killed, and the same call again."""
    if kind == "overwriting":
        few = {"shard_count": 2, "salt": "another secret", "overwrite": True}
        write(folder, cases(6, test=2), **few, **options)
    else:
        write(folder, cases(14, test=4), refusing, shard_count=3, **options)


def killed_at_each_moment(kind: str, root: str, moments: int) -> None:
    """Die by SIGKILL at moments spread over a run, each time in another folder below `root`.

    A moment is a change in the file system, just before it is made, or a record, just before it is
    written. "whole" was not disturbed. With kind "workers", two processes write. Needs a process
    without threads, because it forks.
    """
    fork = multiprocessing.get_context("fork")
    watched, last, taken = "", -1, fork.Value("i")

    def step() -> None:
        with taken.get_lock():
            if taken.value == last:
                os.killpg(0, signal.SIGKILL)
            taken.value += 1

    def hook(event: str, arguments: tuple) -> None:
        changes = ("open", "os.rename", "os.remove", "os.mkdir")
        if watched and event in changes and str(arguments[0]).startswith(watched):
            step()

    def write_record(writer, message, original=tfrecord.Writer.write) -> int:
        step()
        return original(writer, message)

    def start(folder: Path, until: int) -> int:
        """Run in a process group of its own, and wait until all of the group are gone."""
        nonlocal last, taken, watched
        last, taken = until, fork.Value("i")  # the lock of the one before may have died locked
        reader, writer = os.pipe()
        if not (child := os.fork()):
            os.setsid()
            os.close(reader)
            if kind == "overwriting":
                write(folder, cases(8, test=2), shard_count=4)
            watched, taken.value = f"{folder}{os.sep}", 0
            tfrecord.Writer.write = write_record
            two = ProcessPoolExecutor(2, fork) if kind == "workers" else contextlib.nullcontext()
            with two as pool:
                disturbed(kind, folder, executor=pool)
            os._exit(0)
        os.close(writer)
        os.read(reader, 1)  # the end of the file: nobody holds the other end any more
        os.close(reader)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (-9 if until >= 0 else 0)
        return taken.get_obj().value

    os.fsync = lambda number: None  # what a killed process has written stays; no power is cut here
    sys.addaudithook(hook)
    steps = start(Path(root) / "whole", -1)
    for moment in np.unique(np.linspace(0, steps - 1, moments).astype(int)).tolist():
        start(Path(root) / f"{moment:04d}", moment)
