"""`python -m helpers convert` and `verify`: records from a terminal, with a report to keep.

Nothing that is printed names a file, unless `--paths` asks for it: names of files and folders are
often names of patients, and terminals are copied into e-mails. What libraries print or put into
their exceptions is not printed at all, because it quotes whatever was found in a file.

Help has to come at once, so everything else is imported where it is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import secrets
import sys
import traceback
from pathlib import Path

from helpers import convert_options as options
from helpers import convert_report as report
from helpers import convert_terminal as terminal
from helpers.errors import CourseDataError

ALL, SOME_REJECTED, NOTHING, INTERRUPTED = 0, 1, 2, 130
SALT_LENGTH = 8  # characters that a salt must have: `records.write` refuses less
HINTS = {
    "UNKNOWN_LABEL": "On the command line, --classes NAME,... names the ids from 0 on, "
    "--classes ID=NAME,... any ids, --map OLD=NEW,... says what each stored id becomes.",
    "OTHER_SET": "On the command line, --overwrite replaces it.",
}


def add_commands(commands) -> None:
    """Add `convert` and `verify` to the subparsers of the course's command line."""
    for parser in options.converters(commands):
        parser.set_defaults(run=convert_command)
    options.verifier(commands).set_defaults(run=verify_command)


def convert_command(chosen: argparse.Namespace) -> int:
    """Convert as the arguments say; returns the exit code."""
    made: list[Path] = []
    base = None
    try:
        folder = options.check_places(chosen)
        base = folder if chosen.paths else None
        with terminal.only_our_words(), terminal.workers_end_with_ctrl_c():
            written = _convert(chosen, made)
    except CourseDataError as error:
        rejected = getattr(error, "rejected", ())
        if rejected:
            print(report.files(sum(len(one.files) for one in rejected), rejected, base))
        _clear(made)
        return _refuse(error, base)
    except options.UsageError as error:
        return _nothing(str(error), made)
    except KeyboardInterrupt:
        rest = "" if chosen.dry_run else " The same command goes on from here."
        print(f"\nInterrupted.{rest}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        # `str(error)` would quote the path that it is about.
        return _nothing(f"{_place(error, chosen)}: {error.strerror or 'not there'}", made)
    except Exception as error:
        if chosen.paths:
            traceback.print_exc()
        return _nothing(_unforeseen(error), made)
    _report(written, chosen.dry_run, base)
    return SOME_REJECTED if written.rejected else ALL


def verify_command(chosen: argparse.Namespace) -> int:
    """Verify as the arguments say; returns the exit code."""
    from helpers import records

    try:
        faults = records.verify(chosen.folder)
        manifest = records.load_manifest(chosen.folder)
    except CourseDataError as error:
        return _refuse(error, None)
    except OSError as error:
        print(report.wrapped(error.strerror or "there is no such folder"), file=sys.stderr)
        return NOTHING
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    print(report.faults(manifest, faults))
    return SOME_REJECTED if faults else ALL


def _convert(chosen: argparse.Namespace, made: list[Path]):
    """Find, split and write; `made` gets what has to go again if nothing is written."""
    from helpers import records
    from helpers.cases import Found

    salt = _salt(chosen.salt_file)
    found, schema, how = _source(chosen)
    if chosen.split:
        found = Found(_split(chosen, found.cases), found.rejected)
    if not chosen.dry_run:
        if not chosen.salt_file.exists():
            _keep(salt, chosen.salt_file, made)
        if not chosen.output.exists():
            made.append(chosen.output)
    return records.write(
        chosen.output,
        found,
        schema,
        salt=salt,
        seed=chosen.seed,
        shard_count=chosen.shards,
        workers=chosen.workers,
        overwrite=chosen.overwrite,
        dry_run=chosen.dry_run,
        **how,
    )


def _source(chosen: argparse.Namespace) -> tuple:
    """What the source holds, its schema, and the options of `records.write` that go with it."""
    if chosen.kind == "dicom":
        from helpers import dicom

        found = dicom.find(
            chosen.input,
            allow_unchecked=chosen.allow_unchecked,
            force=chosen.force,
            progress=True,
        )
        return found, "volume", {"load": dicom.load}
    if chosen.kind == "decathlon":
        from helpers import datalist
        from helpers import sources_decathlon as source

        found = source.find(chosen.input, chosen.base)
        labelled = found.cases and all(case.label is not None for case in found.cases)
        schema, load = "classification" if labelled else "volume", source.load
        names = chosen.classes or datalist.load(chosen.input, chosen.base).labels
    else:
        from helpers import sources_pictures as source

        found = source.find(
            chosen.input, chosen.masks, mask_suffix=chosen.mask_suffix, patients=chosen.table
        )
        schema = "deeplab" if chosen.masks else "classification"
        load = source.load_deeplab if chosen.masks else source.load_pixels
        names = chosen.classes or {}
        if not chosen.masks and any(case.label is None for case in found.cases):
            raise options.UsageError(
                "--table has no column label, which records without masks need"
            )
    mapped = {"mapping": chosen.map} if chosen.map else {}
    how = {"load": functools.partial(load, **mapped), "classes": names}
    if schema != "classification":
        how["survey"] = functools.partial(source.survey, **mapped)
    return found, schema, how


def _split(chosen: argparse.Namespace, cases: tuple) -> tuple:
    """The cases split by patient; of a data list only those of its training section."""
    from helpers import datalist

    fixed = [case for case in cases if case.split not in ("all", "train")]
    if taken := {case.split for case in fixed} & set(chosen.split):
        raise options.UsageError(
            f"the list has a section {', '.join(sorted(taken))}, which stays as it is: give the "
            "parts of the training section in --split other names"
        )
    divided = [case for case in cases if case.split in ("all", "train")]
    return (*datalist.split(divided, chosen.split, seed=chosen.seed), *fixed)


def _salt(path: Path) -> str:
    """The secret in a file; a new one if there is no such file."""
    if not path.exists():
        return secrets.token_hex(32)
    options.need(path.is_file(), "--salt-file: this is no file")
    try:
        salt = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise options.UsageError("--salt-file: expected text in UTF-8") from None
    options.need(
        len(salt) >= SALT_LENGTH,
        f"--salt-file: less than {SALT_LENGTH} characters keep no secret; leave the file out, and "
        "a new one is made",
    )
    return salt


def _keep(salt: str, path: Path, made: list[Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    made.append(path)
    with open(number, "w", encoding="ascii") as file:
        file.write(f"{salt}\n")


def _clear(made: list[Path]) -> None:
    """Remove what this run has made, unless there is something in it to go on from."""
    from helpers.records.folders import LOCK

    for path in reversed(made):
        with contextlib.suppress(OSError):
            if path.is_dir():
                if [one.name for one in path.iterdir()] != [LOCK]:
                    return
                (path / LOCK).unlink()
                path.rmdir()
            else:
                path.unlink()


def _place(error: OSError, chosen: argparse.Namespace) -> str:
    """Which argument an error of the system is about; its own words would quote a path."""
    path = Path(error.filename).resolve() if isinstance(error.filename, str) else Path()
    if path == chosen.salt_file.resolve():
        return "the salt file"
    return "OUTPUT" if path.is_relative_to(chosen.output.resolve()) else "INPUT"


def _unforeseen(error: Exception) -> str:
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "BrokenProcessPool":
        return "a process ended early, most likely for want of memory; try --workers 1"
    return (
        f"{name}, which should not happen. What it says may quote your files; --paths shows it all"
    )


def _report(written, dry_run: bool, base: Path | None) -> None:
    manifest = written.manifest
    if dry_run:
        print("This is a dry run: nothing was written, this is what would be.\n")
    print(report.summary(manifest))
    print()
    print(report.files(manifest.files["all"], written.rejected, base))
    if written.kept:
        shards = f"{written.kept} of {len(manifest.shards)} shards"
        print(f"\n{shards} were there already: verified and kept.")


def _refuse(error: CourseDataError, base: Path | None) -> int:
    """Say why nothing was written, and with a `base` which files were at fault."""
    print(report.wrapped(f"[{error.code}] {error.message}"), file=sys.stderr)
    if error.code in HINTS:
        print(report.wrapped(HINTS[error.code]), file=sys.stderr)
    if base is not None and error.files:
        print(report.names(error.files, base))
    return NOTHING


def _nothing(problem: str, made: list[Path]) -> int:
    _clear(made)
    print(report.wrapped(f"Nothing was written: {problem}"), file=sys.stderr)
    return NOTHING
