"""Cases for the tests of `helpers.records`, and loaders that worker processes can import."""

import hashlib
import io
import itertools
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import records
from helpers.cases import Case, Found
from helpers.errors import CourseDataError

ROOT = Path(__file__).parents[1]
SALT = "nobody knows this"
SHAPE = (3, 5, 4)
# Where these come out, something has leaked.
PATIENT, REASON = "Placeholder^Jane", "quoted from the file"


def case(number: int, **changes) -> Case:
    """Its source is its number; two share a patient; every second one has a weight."""
    files = Path(f"{PATIENT}/{number}.img"), Path(f"{PATIENT}/{number}.hdr")
    known = {"name": f"{PATIENT} case {number}", "source": number, "files": files}
    known |= {"patient": f"{PATIENT} {number // 2}", "split": "train", "label": number % 3}
    known |= {"weight": 0.25 * number if number % 2 else None}
    return Case(**(known | changes))


def cases(count: int, test: int = 0, **changes) -> tuple[Case, ...]:
    """`count` cases, of which the last `test` are in a split of their own."""
    splits = ["train"] * (count - test) + ["test"] * test
    return tuple(case(n, **({"split": splits[n]} | changes)) for n in range(count))


def volume(case: Case) -> dict:
    """A CT with a mask of three classes; shape and narrowest dtype are the same for all."""
    assert multiprocessing.parent_process() is None or "tensorflow" not in sys.modules
    sys.audit("records_cases.volume")
    random = np.random.default_rng(case.source)
    image, mask = random.integers(-1000, 3000, SHAPE), random.integers(0, 3, SHAPE)
    notes = ("turned", "inverted") if case.source % 2 else ()
    known = {"spacing": (2.5, 0.75, 0.5), "modality": "CT", "notes": notes}
    return {"image": image, "mask": mask} | known


def as_given(case: Case) -> dict:
    """The source itself, for elements that a test has made."""
    return case.source


def refusing(case: Case) -> dict:
    """Refuses some cases by name, and finds the file of number 7 gone."""
    if case.source in (1, 4):
        raise CourseDataError("TRUNCATED", f"{REASON} of {case.patient}", case.files)
    if case.source == 7:
        raise FileNotFoundError(2, "No such file or directory", str(case.files[0]))
    return volume(case)


def crashing(case: Case) -> dict:
    raise RuntimeError("a fault of the loader")


def pausing(case: Case) -> dict:
    """Says on stdout which process this is, and waits to be killed."""
    os.write(1, b"%d\n" % os.getpid())
    signal.pause()


def photograph(number: int) -> dict:
    """A file of JPEG or PNG with its mask, as schema "deeplab" takes them."""
    random, file = np.random.default_rng(number), io.BytesIO()
    pixels = random.integers(0, 255, (12 + number, 9, 3)).astype(np.uint8)
    kind = "jpeg" if number % 2 else "png"
    Image.fromarray(pixels[..., 0] if number == 4 else pixels).save(file, kind)
    mask = random.choice(np.array([0, 1, 255], np.uint8), pixels.shape[:2])
    size = {"height": 12 + number, "width": 9}
    return {"image": file.getvalue(), "mask": mask, "format": kind, **size}


def write(folder: Path, found: Found | tuple[Case, ...], load=volume, **options) -> records.Written:
    """`records.write` with what all of these tests pass; in this process unless told otherwise."""
    known = {"salt": SALT, "classes": ("background", "liver", "lesion"), "schema": "volume"}
    options = known | {"workers": 1, "progress": False} | options
    found = found if isinstance(found, Found) else Found(found)
    return records.write(folder, found, load=load, **options)


def given(folder: Path, elements: list[dict], about=None, **options) -> Path:
    """Records of these elements, in one shard unless told otherwise; `about` changes the cases."""
    about = [{"label": None, "weight": None} | more for more in about or [{}] * len(elements)]
    made = [case(n, source=elements[n], **more) for n, more in enumerate(about)]
    write(folder, tuple(made), as_given, **({"shard_count": 1} | options))
    return folder


def photographs(folder: Path) -> dict[str, dict]:
    """Five photographs as records for DeepLab; what was given, by case."""
    made, classes = [photograph(n) for n in range(5)], {0: "skin", 1: "lesion", 255: "ignored"}
    given(folder, made, schema="deeplab", classes=classes, shard_count=4)
    return {name_of(case(n)): one for n, one in enumerate(made)}


def digests(folder: Path) -> dict[str, str]:
    """By name, SHA-256 of all files that are not hidden."""
    shown = [path for path in sorted(folder.glob("[!.]*")) if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shown}


def name_of(case: Case) -> str:
    """What a case is called in its record."""
    return records.case_hash(SALT, case.patient, case.name)


def ending(call, *arguments, **options) -> str:
    """The code with which a call is refused, empty where it is not."""
    try:
        call(*arguments, **options)
    except CourseDataError as error:
        return "LEAK" if PATIENT in error.message or REASON in error.message else error.code
    return ""


def disturbed(kind: str, folder: Path) -> records.Written:
    """The run that is killed, and the same call again."""
    if kind == "writing":
        return write(folder, cases(14, test=4), refusing, shard_count=3)
    return write(folder, cases(6, test=2), shard_count=2, salt="another secret", overwrite=True)


def killed_at(moment: int, kind: str, folder: Path) -> None:
    """Die by SIGKILL after that many changes in the file system and cases that were read."""
    if kind == "overwriting":
        write(folder, cases(8, test=2), shard_count=4)
    steps = itertools.count()

    def hook(event: str, arguments: tuple) -> None:
        changes = event in ("open", "os.rename", "os.remove", "os.mkdir")
        inside = changes and str(arguments[0]).startswith(f"{folder}{os.sep}")
        if (inside or event == "records_cases.volume") and next(steps) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    os.fsync = lambda number: None  # what a killed process has written stays; no power is cut here
    disturbed(kind, folder)


def killed_at_moments(kind: str, root: str) -> None:
    """Runs that die at every third moment, in folders below `root`; the last one lives."""
    fork = multiprocessing.get_context("fork")
    for moment in itertools.count(0, 3):
        folder = Path(root) / f"{moment:04d}"
        child = fork.Process(target=killed_at, args=(moment, kind, folder))
        child.start()
        child.join()
        if child.exitcode != -signal.SIGKILL:
            sys.exit(child.exitcode)
