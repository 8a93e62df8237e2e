"""The course's command line: `python -m helpers doctor`."""

import argparse
import sys

from helpers import doctor


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code, 0 where all is well."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    check = commands.add_parser("doctor", help="is this computer ready for the course?")
    check.add_argument("--data-dir", default="data", help="where the synthetic data is to be kept")
    chosen = parser.parse_args(arguments)
    # A terminal that cannot write ✓ gets a question mark, not an error.
    sys.stdout.reconfigure(errors="replace")
    return 0 if doctor.report(chosen.data_dir) else 1


if __name__ == "__main__":
    sys.exit(main())
