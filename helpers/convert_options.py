"""The arguments of `convert` and `verify`: their help, their kinds, and what they cannot mean."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

LIST = "dataset.json"
LARGEST_SEED = 2**32 - 1  # of NumPy's RandomState, which scikit-learn draws with

CONVERT = """\
Turn medical images into TFRecord shards with a manifest.

Every input file ends in a record, or in the report of rejected files with a
reason. The shards get their names when all of them are finished; interrupted,
the same command goes on where it stopped. A record holds pixels, shape,
spacing, mask, label, weight, modality and a salted hash for the case: no
names, no UIDs, no dates. Text that is burned into pixels needs your own eyes.
"""
CONVERT_END = """\
python -m helpers convert dicom --help shows the options of a kind.

example: python -m helpers convert dicom disc/ records/ --dry-run
"""
STREAMS = """
The report goes to stdout, progress and errors to stderr.
exit code: 0 all files are part of a record, 1 some were rejected, 2 nothing
was written, 130 interrupted
"""
KINDS = {
    "dicom": (
        "DICOM files, each series a record",
        """\
Each series under a folder becomes a record: voxels [z, y, x] with rescale
slope and intercept applied, spacing in mm, modality. Radiographs and other
images without a position are records of their own. Masks are not read.
""",
        """\
examples:
  python -m helpers convert dicom disc/ records/ --dry-run
  python -m helpers convert dicom disc/ records/ \\
      --split train=0.7,validation=0.15,test=0.15
""",
    ),
    "decathlon": (
        "NIfTI files listed in a Decathlon dataset.json",
        """\
Each image of the list becomes a record, with its mask or its class label.
Sections become splits: training is called train, validation and test keep
their names. --split divides the training section and leaves the others alone.
""",
        """\
examples:
  python -m helpers convert decathlon Task09_Spleen/dataset.json spleen/
  python -m helpers convert decathlon Task09_Spleen/dataset.json spleen/ \\
      --split train=0.8,validation=0.2
""",
    ),
    "pictures": (
        "JPEG or PNG images with masks, or with labels",
        """\
With --masks, an image and the mask of its name become a record in the format
of TensorFlow's DeepLab: the image file's own bytes without metadata, and a PNG
of class ids. Otherwise --table has to give labels, and records hold pixels.
""",
        """\
examples:
  python -m helpers convert pictures images/ lesions/ --masks masks/ \\
      --map 0=0,255=1 --classes background,lesion
  python -m helpers convert pictures images/ nodules/ --table labels.csv \\
      --classes none,nodule --split train=0.7,validation=0.15,test=0.15
""",
    ),
}
VERIFY = """\
Compare the shards of a folder with its manifest: presence, size, SHA-256 of
every byte.

exit code: 0 every shard is as it was written, 1 one is not, 2 there is no
usable manifest
"""


class UsageError(Exception):
    """Arguments that cannot be meant; the message names no file."""


def converters(commands) -> list[argparse.ArgumentParser]:
    """Add `convert` to the subparsers of a command line; returns the parser of each kind."""
    form = argparse.RawDescriptionHelpFormatter
    convert = commands.add_parser(
        "convert",
        help="medical images to TFRecords",
        description=CONVERT,
        epilog=CONVERT_END + STREAMS,
        formatter_class=form,
    )
    kinds = convert.add_subparsers(dest="kind", required=True, metavar="KIND", title="kinds")
    parsers = []
    for kind, (title, description, examples) in KINDS.items():
        parser = kinds.add_parser(
            kind,
            help=title,
            usage=f"python -m helpers convert {kind} INPUT OUTPUT [options]",
            description=description,
            epilog=examples + STREAMS,
            formatter_class=form,
        )
        _add_input(kind, parser)
        _add_output(parser)
        parsers.append(parser)
    return parsers


def verifier(commands) -> argparse.ArgumentParser:
    """Add `verify` to the subparsers of a command line; returns its parser."""
    parser = commands.add_parser(
        "verify",
        help="are these records as they were written?",
        description=VERIFY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="holds shards and manifest.json"
    )
    return parser


def _add_input(kind: str, parser: argparse.ArgumentParser) -> None:
    """What differs from kind to kind: where the images are, and what goes with them."""
    about = {
        "dicom": "folder, searched with its subfolders",
        "decathlon": "the dataset.json, or the folder that holds it",
        "pictures": "folder of the images, searched with its subfolders",
    }
    parser.add_argument("input", type=Path, metavar="INPUT", help=about[kind])
    parser.add_argument(
        "output", type=Path, metavar="OUTPUT", help="folder of the records, made if it is missing"
    )
    group = parser.add_argument_group("what is read")
    if kind == "dicom":
        group.add_argument(
            "--allow-unchecked",
            action="store_true",
            help="take ultrasound and secondary captures that do not say whether text is burned "
            "into their pixels; look at them first. Images that say so are refused all the same",
        )
        group.add_argument(
            "--force", action="store_true", help="also read files without the DICOM preamble"
        )
        return
    if kind == "decathlon":
        group.add_argument(
            "--base",
            type=Path,
            metavar="FOLDER",
            help="where the paths in the list start, if not in its own folder",
        )
    else:
        group.add_argument(
            "--masks", type=Path, metavar="FOLDER", help="their masks: writes DeepLab records"
        )
        group.add_argument(
            "--mask-suffix",
            metavar="TEXT",
            help="what a mask is called more than its image, _segmentation for instance; found "
            "out if all masks share it",
        )
        group.add_argument(
            "--table",
            type=Path,
            metavar="CSV",
            help="columns file, patient and label (which only records without masks need); "
            "without it each image counts as a patient of its own",
        )
    group.add_argument(
        "--map",
        type=_mapping,
        metavar="OLD=NEW,...",
        help="the class id for each id that is stored in masks: 0=0,255=1",
    )
    group.add_argument(
        "--classes",
        type=_classes,
        metavar="NAME,...",
        help="names of the class ids from 0 on; ID=NAME,... for any ids, 255=ignored for instance",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--split",
        type=_fractions,
        metavar="NAME=PART,...",
        help="split by patient: train=0.7,validation=0.15,test=0.15",
    )
    group.add_argument(
        "--seed",
        type=_whole(0, LARGEST_SEED),
        default=0,
        metavar="N",
        help="of the split and of the order in the shards; 0 if not given",
    )
    group.add_argument(
        "--shards",
        type=_whole(1, 99_999),
        metavar="N",
        help="files for each split, instead of one for about 128 MiB and at least 4",
    )
    group.add_argument(
        "--salt-file",
        type=Path,
        metavar="FILE",
        help="secret for the hashes, by default OUTPUT.salt beside the output folder, made if it "
        "is missing. With it, anybody can look for a person in the records: do not hand it on",
    )
    group.add_argument("--overwrite", action="store_true", help="replace another set of records")
    group = parser.add_argument_group("how it runs")
    group.add_argument("--dry-run", action="store_true", help="read and check all, write nothing")
    group.add_argument(
        "--workers",
        type=_whole(1, 999),
        metavar="N",
        help="processes, one for each core if not given",
    )
    group.add_argument(
        "--paths",
        action="store_true",
        help="name the rejected files in the report, relative to INPUT, with reasons",
    )


def check_places(chosen: argparse.Namespace) -> Path:
    """Refuse places that are not there or lie in each other, before anything is read.

    Fills in `chosen.salt_file`, and `chosen.input` where a data list's folder was given.

    Returns:
        The folder from which the report names files.

    Raises:
        UsageError: with what to change.
    """
    if chosen.kind == "decathlon":
        if (chosen.input / LIST).is_file():
            chosen.input /= LIST
        need(chosen.input.is_file(), f"INPUT: there is no such file; expected a {LIST}")
        base = chosen.base or chosen.input.parent
        need(base.is_dir(), "--base: there is no such folder")
        inputs, searched = [base, chosen.input], []
    else:
        need(chosen.input.is_dir(), "INPUT: there is no such folder")
        base, inputs, searched = chosen.input, [chosen.input], [chosen.input]
    if chosen.kind == "pictures":
        need(
            chosen.masks or chosen.table,
            "what belongs to the pictures? Give --masks for DeepLab records, or --table with a "
            "column label for records of pixels",
        )
        need(chosen.masks or not chosen.map, "--map is about masks, and there are no --masks")
        if chosen.masks:
            need(chosen.masks.is_dir(), "--masks: there is no such folder")
            inputs = searched = [chosen.input, chosen.masks]
        if chosen.table:
            need(chosen.table.is_file(), "--table: there is no such file")
            inputs = [*inputs, chosen.table]
    need(chosen.output.is_dir() or not chosen.output.exists(), "OUTPUT is a file, not a folder")
    output = chosen.output.resolve()
    if not chosen.dry_run:
        there = next(place for place in (output, *output.parents) if place.exists())
        need(there.is_dir() and os.access(there, os.W_OK), "OUTPUT cannot be made or written to")
    if not chosen.salt_file:
        chosen.salt_file = output.with_name(f"{output.name}.salt")
    _refuse_nesting(output, chosen.salt_file.resolve(), inputs, searched)
    return base


def _refuse_nesting(output: Path, salt: Path, inputs: list[Path], searched: list[Path]) -> None:
    """`inputs` must not travel with the records, `searched` folders must not grow by a run."""
    found = "lies inside of a folder that is searched, where the next run would find it"
    lost = "lies inside of OUTPUT, and would be handed on with the records"
    for folder in (folder.resolve() for folder in searched):
        need(not output.is_relative_to(folder), f"OUTPUT {found}; choose a folder outside")
        need(not salt.is_relative_to(folder), f"the salt file {found}; choose another --salt-file")
    need(
        not any(place.resolve().is_relative_to(output) for place in inputs),
        f"an input {lost}; choose another OUTPUT",
    )
    need(not salt.is_relative_to(output), f"the salt file {lost}; choose another --salt-file")


def need(given: object, problem: str) -> None:
    """Refuse arguments with `UsageError(problem)` unless something is given."""
    if not given:
        raise UsageError(problem)


def _mapping(text: str) -> dict[int, int]:
    expected = "pairs of ids like 0=0,255=1, new ones from 0 to 255"
    mapping = {}
    for old, new in _pairs(text, expected):
        if not re.fullmatch("-?[0-9]{1,19}", old) or not re.fullmatch("[0-9]{1,3}", new):
            raise _expected(expected, text)
        mapping[int(old)] = int(new)
    if max(mapping.values()) > 255:
        raise _expected(expected, text)
    return mapping


def _classes(text: str) -> dict[int, str]:
    expected = "a name for each class, like background,lesion or 0=background,255=ignored"
    pairs = _pairs(text, expected) if "=" in text else enumerate(text.split(","))
    names = {}
    for number, name in pairs:
        if not re.fullmatch("[0-9]{1,9}", str(number)) or not name.strip():
            raise _expected(expected, text)
        names[int(number)] = name.strip()
    if len(set(names.values())) < len(names):
        raise argparse.ArgumentTypeError(f"two classes with one name in {text!r}")
    return names


def _fractions(text: str) -> dict[str, float]:
    expected = "parts that sum to 1, like train=0.8,test=0.2"
    fractions = {}
    for name, part in _pairs(text, expected):
        if not re.fullmatch("[A-Za-z0-9_]+", name):
            raise argparse.ArgumentTypeError("names of splits: letters, digits and underscores")
        if not re.fullmatch("[0-9]*[.]?[0-9]+", part) or float(part) == 0:
            raise _expected(expected, text)
        fractions[name] = float(part)
    if not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise _expected(expected, text)
    return fractions


def _pairs(text: str, expected: str) -> list[tuple[str, str]]:
    pairs = [part.split("=") for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise _expected(expected, text)
    stripped = [(name.strip(), value.strip()) for name, value in pairs]
    if len(dict(stripped)) < len(stripped):
        raise argparse.ArgumentTypeError(f"something stands twice in {text!r}")
    return stripped


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch("[0-9]{1,10}", text) or not lowest <= int(text) <= highest:
            raise _expected(f"a whole number from {lowest} to {highest}", text)
        return int(text)

    return convert


def _expected(what: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"expected {what}; found {text!r}")
