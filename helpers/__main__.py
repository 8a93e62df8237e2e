"""The course's command line: `python -m helpers doctor | convert | verify`."""

import argparse
import os
import sys

from helpers import convert, doctor


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code, 0 where all is well."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    check = commands.add_parser("doctor", help="is this computer ready for the course?")
    check.add_argument("--data-dir", default="data", help="where the synthetic data is to be kept")
    check.set_defaults(run=lambda chosen: 0 if doctor.report(chosen.data_dir) else 1)
    convert.add_commands(commands)
    chosen, rest = parser.parse_known_args(arguments)
    if rest:
        # A `*` of the shell may have become names of patients: options only are quoted.
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        parser.error(f"unknown: {' '.join(options) or f'{len(rest)} arguments too many'}")
    # A terminal that cannot write ✓ gets a question mark, not an error.
    sys.stdout.reconfigure(errors="replace")
    try:
        code = chosen.run(chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


if __name__ == "__main__":
    sys.exit(main())
