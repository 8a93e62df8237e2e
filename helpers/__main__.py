"""The course's command line: `python -m helpers doctor | convert | verify`.

Nothing that is printed names a file, unless `--paths` asks for it: names of files and folders are
often names of patients, and terminals are copied into e-mails.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback

from helpers.commands import convert, verify
from helpers.commands.terminal import UsageError, say
from helpers.errors import CourseDataError

NOTHING, INTERRUPTED, CLOSED = 2, 130, 141


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code, 0 where all is well."""
    chosen = parsed(arguments)
    # A terminal that cannot write ✓ gets a question mark, not an error.
    sys.stdout.reconfigure(errors="replace")
    try:
        code = chosen.run(chosen)
        sys.stdout.flush()
        return code
    except CourseDataError as error:
        error.files = ()  # names of files
        say(str(error))
    except UsageError as error:
        say(f"Nothing was written: {error}")
    except KeyboardInterrupt:
        say("Interrupted. The same command goes on from here.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except Exception as error:
        if getattr(chosen, "paths", False):
            traceback.print_exc()
        say(f"Nothing was written: {unforeseen(error)}")
    return NOTHING


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments, with `run`, the function of the command that they name."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    check = commands.add_parser("doctor", help="is this computer ready for the course?")
    check.add_argument("--data-dir", default="data", help="where the synthetic data is to be kept")
    check.set_defaults(run=examine)
    convert.add_to(commands)
    verify.add_to(commands)
    chosen, rest = parser.parse_known_args(arguments)
    if rest:
        # A `*` of the shell may have become names of patients: options only are quoted.
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        parser.error(f"unknown: {' '.join(options) or f'{len(rest)} arguments too many'}")
    return chosen


def examine(chosen: argparse.Namespace) -> int:
    """Look at this computer; returns the exit code."""
    from helpers import doctor

    return 0 if doctor.report(chosen.data_dir) else 1


def unforeseen(error: Exception) -> str:
    """An error of a library or of the system, without its words: they may quote files."""
    if isinstance(error, OSError):
        return (
            f"{error.strerror or 'no such file or folder'}: INPUT, OUTPUT or what an option names"
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "BrokenProcessPool":
        return "a process ended early, most likely for want of memory; try --workers 1"
    return f"{type(error).__name__}, whose words may quote your files; --paths shows them"


if __name__ == "__main__":
    sys.exit(main())
