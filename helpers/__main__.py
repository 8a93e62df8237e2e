"""The course's command line: `python -m helpers doctor | convert | verify`.

Nothing that is printed names a file, unless `--paths` asks for it: names of files and folders are
often names of patients, and terminals are copied into e-mails.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

from helpers.commands import convert
from helpers.errors import CourseDataError

NOTHING, INTERRUPTED, CLOSED = 2, 130, 141


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code, 0 where all is well."""
    chosen = parsed(arguments)
    # A terminal that cannot write ✓ gets a question mark, not an error.
    sys.stdout.reconfigure(errors="replace")
    code = NOTHING
    try:
        code = chosen.run(chosen)
        sys.stdout.flush()
    except CourseDataError as error:
        error.files = ()  # names of files
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CLOSED
    except Exception as error:
        if getattr(chosen, "paths", False):
            traceback.print_exc()
        print("Nothing was written:", unforeseen(error), file=sys.stderr)
    return code


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments, with `run`, the function of the command that they name."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    doctor = commands.add_parser("doctor", help="is this computer ready for the course?")
    doctor.add_argument("--data-dir", default="data", help="where the synthetic data is to be kept")
    doctor.set_defaults(run=examine)
    convert.add_to(commands)
    check = commands.add_parser("verify", help="are records intact?", description=verify.__doc__)
    check.add_argument("folder", type=Path, metavar="FOLDER", help="holds shards and manifest")
    check.set_defaults(run=verify)
    chosen, rest = parser.parse_known_args(arguments)
    if rest:
        # A `*` of the shell may have become names of patients: options only are quoted.
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        parser.error(f"unknown: {' '.join(options) or f'{len(rest)} arguments too many'}")
    return chosen


def examine(chosen: argparse.Namespace) -> int:
    """Look at this computer; returns the exit code."""
    from helpers.lesson import doctor

    return 0 if doctor.report(chosen.data_dir) else 1


def verify(chosen: argparse.Namespace) -> int:
    """Compare the shards of a folder with its manifest: presence, size, SHA-256 of every byte.

    exit code: 0 whole, 1 a shard is not as it was written, 2 there is no usable manifest
    """
    from helpers import records

    faults = records.verify(chosen.folder)
    for fault in faults:
        print(f"{fault.code}  {fault.file}: {fault.reason}")
    held = records.load_manifest(chosen.folder)
    print(f"{len(held.shards)} shards, {held.records} records: {len(faults) or 'no'} faults")
    return 1 if faults else 0


def unforeseen(error: Exception) -> str:
    """An error of a library or of the system, without its words: they may quote files."""
    if isinstance(error, MemoryError) or type(error).__name__ == "BrokenProcessPool":
        return "a process ended early, most likely for want of memory; try --workers 1"
    said = getattr(error, "strerror", type(error).__name__) or "no such file or folder"
    return f"{said}; convert --paths tells more, and may quote your files"


if __name__ == "__main__":
    sys.exit(main())
