"""Turn medical images into TFRecord shards with a manifest.

Every input file ends in a record, or in the report of rejected files with a reason. The shards get
their names when all of them are finished; interrupted, the same command goes on where it stopped. A
record holds pixels, shape, spacing, mask, label, weight, modality and a salted hash for the case:
no names, no UIDs, no dates. Text that is burned into pixels needs your own eyes.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import secrets
from pathlib import Path

from helpers.commands import report
from helpers.commands.terminal import UsageError, only_our_words
from helpers.errors import CourseDataError

KINDS = {  # what it reads; an example
    "dicom": (
        "a folder of DICOM files, each series a record; masks are not read",
        "disc/ records/ --dry-run",
    ),
    "decathlon": (
        "NIfTI files with masks or labels, listed in a dataset.json; training becomes train",
        "Task09_Spleen/dataset.json spleen/ --split train=0.8,validation=0.2",
    ),
    "pictures": (
        "JPEG or PNG, with --masks for records of DeepLab, or with labels in a --table",
        "images/ lesions/ --masks masks/ --map 0=0,255=1 --classes background,lesion",
    ),
}
ENDS = "exit code: 0 all files are written, 1 some were rejected, 2 nothing was written, 130 Ctrl-C"


# Words of a command line. argparse tells which option a ValueError is about.


def whole(text: str) -> int:
    """A number of digits alone."""
    return range(2**32).index(int(text))


def mapping(text: str) -> dict[int, int]:
    """`0=0,255=1`: the class id for each id that is stored."""
    return _pairs(text, int, lambda new: range(256).index(int(new)))


def classes(text: str) -> dict[int, str]:
    """`background,lesion`, counted from 0, or `0=background,255=ignored`."""
    if "=" not in text:
        text = ",".join(f"{number}={name}" for number, name in enumerate(text.split(",")))
    names = _pairs(text, whole, str)
    if not all(names.values()) or len(set(names.values())) < len(names):
        raise ValueError
    return names


def fractions(text: str) -> dict[str, float]:
    """`train=0.8,test=0.2`: parts that sum to 1."""
    parts = _pairs(text, str, float)
    if not min(parts.values()) > 0 or not math.isclose(sum(parts.values()), 1, abs_tol=1e-6):
        raise ValueError
    return parts


def _pairs(text: str, key, value) -> dict:
    pairs = [part.split("=") for part in text.split(",")]
    found = {key(name.strip()): value(said.strip()) for name, said in pairs}
    if len(found) < len(pairs):
        raise ValueError
    return found


OPTIONS = [  # for which kinds; name; what argparse makes of it; help
    ("dicom", "--allow-unchecked", bool, "take ultrasound and captures silent on burned-in text"),
    ("dicom", "--force", bool, "also read files without the DICOM preamble"),
    ("decathlon", "--base", Path, "where the paths in the list start, if not beside it"),
    ("pictures", "--masks", Path, "a folder of their masks: writes DeepLab records"),
    ("pictures", "--mask-suffix", str, "what masks are called more than images, if not found out"),
    ("pictures", "--table", Path, "CSV with columns file, patient and, without masks, label"),
    ("decathlon pictures", "--map", mapping, "OLD=NEW,...: class ids for ids in masks, 0=0,255=1"),
    ("decathlon pictures", "--classes", classes, "NAME,... from 0 on, or ID=NAME,... for any ids"),
    ("all", "--split", fractions, "by patient: train=0.7,validation=0.15,test=0.15"),
    ("all", "--seed", whole, "of the split and of the order in the shards; 0 if not given"),
    ("all", "--shards", whole, "files for each split; else one for 128 MiB, and at least 4"),
    ("all", "--salt-file", Path, "secret of the hashes; else OUTPUT.salt, made if it is missing"),
    ("all", "--overwrite", bool, "replace another set of records"),
    ("all", "--dry-run", bool, "read and check all, write nothing"),
    ("all", "--workers", whole, "processes; else one for each core"),
    ("all", "--paths", bool, "name the rejected files, relative to INPUT, with reasons"),
]


def add_to(commands) -> None:
    """Add the command, with its kinds, to the subparsers of a command line."""
    about = {"help": "medical images to TFRecords", "description": __doc__}
    parser = commands.add_parser("convert", epilog=f"{example('dicom')}. {ENDS}", **about)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", title="kinds")
    for kind, (title, _) in KINDS.items():
        told = {"help": title, "description": title, "epilog": f"{example(kind)}. {ENDS}"}
        one = kinds.add_parser(kind, **told)
        one.add_argument("input", type=Path, metavar="INPUT", help="what is to be converted")
        one.add_argument("output", type=Path, metavar="OUTPUT", help="a folder, made if missing")
        for where, name, read, told in OPTIONS:
            if where == "all" or kind in where.split():
                how = {"action": "store_true"} if read is bool else {"type": read}
                one.add_argument(name, help=told, **how)
        one.set_defaults(run=run, seed=0)


def example(kind: str) -> str:
    """A command line of this kind."""
    return f"example: python -m helpers convert {kind} {KINDS[kind][1]}"


# The command


def run(chosen: argparse.Namespace) -> int:
    """Convert as the arguments say; returns the exit code."""
    output = chosen.output.resolve()
    salt = (chosen.salt_file or output.with_name(f"{output.name}.salt")).resolve()
    if chosen.kind == "decathlon" and chosen.input.is_dir():
        chosen.input /= "dataset.json"
    folders = [chosen.input, *filter(None, [getattr(chosen, "masks", None)])]
    refuse_nesting(output, salt, [folder.resolve() for folder in folders])
    base = (folders[0] if folders[0].is_dir() else folders[0].parent) if chosen.paths else None
    is_new = not salt.exists()
    try:
        with only_our_words():
            written = converted(chosen, salt)
    except CourseDataError as error:
        if hasattr(error, "rejected"):
            print(report.files(error, base))
        raise
    finally:
        if is_new and not output.exists():  # nobody needs the salt of nothing
            salt.unlink(missing_ok=True)
    if chosen.dry_run:
        print("This is a dry run: nothing was written, this is what would be.\n")
    print(report.summary(written.manifest), report.files(written, base), sep="\n\n")
    return 1 if written.rejected else 0


def refuse_nesting(output: Path, salt: Path, folders: list[Path]) -> None:
    """Refuse places that lie in each other, before anything is read."""
    if output.is_file():
        raise UsageError("OUTPUT is a file, not a folder")
    found = "lies inside of INPUT, where the next run would find it"
    lost = "lies inside of OUTPUT, and would be handed on with the records"
    for place, name in ((output, "OUTPUT"), (salt, "the salt file")):
        if any(place.is_relative_to(folder) and folder.is_dir() for folder in folders):
            raise UsageError(f"{name} {found}")
    for place, name in ((salt, "the salt file"), *((folder, "INPUT") for folder in folders)):
        if place.is_relative_to(output):
            raise UsageError(f"{name} {lost}")


def converted(chosen: argparse.Namespace, salt: Path):
    """Find the cases, split them, write them."""
    from helpers import records
    from helpers.cases import Found

    found, schema, how = source(chosen)
    if chosen.split:
        found = Found(divided(found.cases, chosen.split, chosen.seed), found.rejected)
    secret = salt.read_text(errors="replace").strip() if salt.exists() else secrets.token_hex(32)
    if len(secret) < 8:
        raise UsageError("the salt file: less than 8 characters keep no secret")
    if not (salt.exists() or chosen.dry_run):
        with open(os.open(salt, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(f"{secret}\n")
    names = ("seed", "workers", "overwrite", "dry_run")
    options = {name: getattr(chosen, name) for name in names} | {"shard_count": chosen.shards}
    return records.write(chosen.output, found, schema, salt=secret, **options, **how)


def source(chosen: argparse.Namespace) -> tuple:
    """What the input holds, the schema of its records, and what `records.write` needs for them."""
    if chosen.kind == "dicom":
        from helpers import dicom

        looks = {"allow_unchecked": chosen.allow_unchecked, "force": chosen.force}
        return dicom.find(chosen.input, **looks, progress=True), "volume", {"load": dicom.load}
    if chosen.kind == "decathlon":
        from helpers import lists as kind

        found, load = kind.find(chosen.input, chosen.base), kind.load
        labelled = found.cases and all(case.label is not None for case in found.cases)
        schema = "classification" if labelled else "volume"
        names = chosen.classes or kind.read(chosen.input, chosen.base).labels
    else:
        from helpers import pictures as kind

        told = {"mask_suffix": chosen.mask_suffix, "patients": chosen.table}
        found, names = kind.find(chosen.input, chosen.masks, **told), chosen.classes or {}
        schema = "deeplab" if chosen.masks else "classification"
        load = kind.load_deeplab if chosen.masks else kind.load_pixels
        if not chosen.masks and any(case.label is None for case in found.cases):
            raise UsageError("pictures need --masks, or a --table with a column label")
    mapped = {"mapping": chosen.map} if chosen.map else {}
    how = {"load": functools.partial(load, **mapped), "classes": names}
    if schema != "classification":
        how["survey"] = functools.partial(kind.survey, **mapped)
    return found, schema, how


def divided(cases: tuple, parts: dict[str, float], seed: int) -> tuple:
    """The cases split by patient; of a data list only those of its training section."""
    from helpers import splits

    fixed = [case for case in cases if case.split not in ("all", "train")]
    if {case.split for case in fixed} & set(parts):
        raise UsageError("the list has a section of that name already: call the part otherwise")
    rest = [case for case in cases if case.split in ("all", "train")]
    return (*splits.split(rest, parts, seed=seed), *fixed)
