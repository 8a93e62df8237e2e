"""Turn medical images into TFRecord shards with a manifest.

    python -m helpers convert dicom disc/ records/ --dry-run
    python -m helpers convert decathlon Task09_Spleen/dataset.json spleen/ \\
        --split train=0.8,validation=0.2
    python -m helpers convert pictures images/ lesions/ --masks masks/ \\
        --map 0=0,255=1 --classes background,lesion

Every input file ends in a record, or in the report of rejected files with a
reason. The shards get their names when all of them are finished; interrupted,
the same command goes on where it stopped. A record holds pixels, shape,
spacing, mask, label, weight, modality and a salted hash for the case: no names,
no UIDs, no dates. Text that is burned into pixels needs your own eyes.

exit code: 0 all files are written, 1 some were rejected, 2 nothing was written,
130 Ctrl-C
"""

import argparse
import dataclasses
import functools
import secrets
from pathlib import Path

from helpers.commands import report
from helpers.commands.terminal import only_our_words
from helpers.errors import CourseDataError

KINDS = {  # and what they read
    "dicom": "a folder of DICOM files, each series a record; masks are not read",
    "decathlon": "a dataset.json with its NIfTI files, masks or labels; training becomes train",
    "pictures": "JPEG or PNG, with --masks for records of DeepLab, or with labels in a --table",
}


# Words of a command line. argparse tells which option a ValueError is about.


def whole(text: str) -> int:
    """A number of digits alone."""
    return range(2**32).index(int(text))


def pairs(text: str) -> dict[str, str]:
    """`a=b,c=d`, each key once."""
    found = [part.split("=") for part in text.split(",")]
    if len(dict(found)) < len(found):
        raise ValueError
    return dict(found)


def mapping(text: str) -> dict[int, int]:
    """`0=0,255=1`: the class id for each id that is stored."""
    return {int(old): range(256).index(int(new)) for old, new in pairs(text).items()}


def classes(text: str) -> dict[int, str]:
    """`background,lesion`, counted from 0, or `0=background,255=ignored`."""
    if "=" in text:
        return {int(number): name for number, name in pairs(text).items()}
    return dict(enumerate(text.split(",")))


def fractions(text: str) -> dict[str, float]:
    """`train=0.8,test=0.2`: names of splits, and parts that sum to 1."""
    parts = {name: float(part) for name, part in pairs(text).items()}
    named = all(map(str.isidentifier, parts))
    if not (named and min(parts.values()) > 0 and abs(sum(parts.values()) - 1) < 1e-6):
        raise ValueError
    return parts


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
    about = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = commands.add_parser("convert", help="medical images to TFRecords", **about)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", title="kinds")
    for kind, title in KINDS.items():
        one = kinds.add_parser(kind, help=title, **about)
        one.add_argument("input", type=Path, metavar="INPUT", help=title)
        one.add_argument("output", type=Path, metavar="OUTPUT", help="a folder, made if missing")
        for where, name, read, told in OPTIONS:
            if where == "all" or kind in where:
                how = {"action": "store_true"} if read is bool else {"type": read}
                one.add_argument(name, help=told, **how)
        one.set_defaults(run=run, refuse=one.error, seed=0, masks=None)


# The command


def run(chosen: argparse.Namespace) -> int:
    """Convert as the arguments say; returns the exit code."""
    if chosen.kind == "decathlon" and chosen.input.is_dir():
        chosen.input /= "dataset.json"
    base = chosen.paths and (chosen.input if chosen.input.is_dir() else chosen.input.parent)
    output = chosen.output.resolve()
    salt = (chosen.salt_file or output.with_name(f"{output.name}.salt")).resolve()
    given = [one.resolve() for one in (chosen.input, chosen.masks) if one]
    # Nothing that the next run would find again, or that would be handed on with the records.
    inside = {output: [salt, *given]} | {one: [salt, output] for one in given}
    if any(place.is_relative_to(folder) for folder in inside for place in inside[folder]):
        chosen.refuse("INPUT, OUTPUT and the salt file may not lie inside of each other")
    is_new = not salt.exists()
    secret = secrets.token_hex(32) if is_new else salt.read_text(errors="replace").strip()
    if len(secret) < 8:
        chosen.refuse("the salt file: less than 8 characters keep no secret")
    try:
        if is_new and not chosen.dry_run:
            salt.touch(0o600, exist_ok=False)
            salt.write_text(f"{secret}\n")
        with only_our_words():
            written = converted(chosen, secret)
    except CourseDataError as error:
        if hasattr(error, "rejected"):
            print(report.files(error.rejected, 0, base))
        raise
    finally:
        if is_new and not output.is_dir():  # nobody needs the salt of nothing
            salt.unlink(missing_ok=True)
    if chosen.dry_run:
        print("This is a dry run: nothing was written, this is what would be.\n")
    print(report.summary(written.manifest), end="\n\n")
    print(report.files(written.rejected, written.manifest.files["written"], base))
    return 1 if written.rejected else 0


def converted(chosen: argparse.Namespace, secret: str):
    """Find the cases, split them, write them."""
    from helpers import records, splits

    found, how = source(chosen)
    if chosen.split:
        fixed = [case for case in found.cases if case.split not in ("all", "train")]
        if any(case.split in chosen.split for case in fixed):
            chosen.refuse("the list has a section of that name already: call the part otherwise")
        rest = [case for case in found.cases if case.split in ("all", "train")]
        cases = (*splits.split(rest, chosen.split, seed=chosen.seed), *fixed)
        found = dataclasses.replace(found, cases=cases)
    how |= {name: vars(chosen)[name] for name in ("seed", "workers", "overwrite", "dry_run")}
    return records.write(chosen.output, found, salt=secret, shard_count=chosen.shards, **how)


def source(chosen: argparse.Namespace) -> tuple:
    """What the input holds, and how `records.write` is to read and write it."""
    if chosen.kind == "dicom":
        from helpers import dicom

        looks = {"allow_unchecked": chosen.allow_unchecked, "force": chosen.force}
        found = dicom.find(chosen.input, **looks, progress=True)
        return found, {"schema": "volume", "load": dicom.load}
    if chosen.kind == "decathlon":
        from helpers import lists as kind

        found, schema, load = kind.find(chosen.input, chosen.base), "volume", kind.load
        names = kind.read(chosen.input, chosen.base).labels
    else:
        from helpers import pictures as kind

        told = {"mask_suffix": chosen.mask_suffix, "patients": chosen.table}
        found, names = kind.find(chosen.input, chosen.masks, **told), {}
        schema, load = "classification", kind.load_pixels
        if chosen.masks:
            schema, load = "deeplab", kind.load_deeplab
        elif any(case.label is None for case in found.cases):
            chosen.refuse("pictures need --masks, or a --table with a column label")
    how = {"schema": schema, "load": functools.partial(load, mapping=chosen.map)}
    if schema != "classification":
        how["survey"] = functools.partial(kind.survey, mapping=chosen.map)
    return found, how | {"classes": chosen.classes or names}
