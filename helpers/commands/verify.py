"""Compare the shards of a folder with its manifest: presence, size, SHA-256 of every byte.

exit code: 0 every shard is as it was written, 1 one is not, 2 there is no usable manifest
"""

from __future__ import annotations

import argparse
from pathlib import Path

from helpers.commands import report


def add_to(commands) -> None:
    """Add the command to the subparsers of a command line."""
    about = {"help": "are these records as they were written?", "description": __doc__}
    parser = commands.add_parser("verify", **about)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds shards and manifest")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Verify as the arguments say; returns the exit code."""
    from helpers import records

    faults = records.verify(chosen.folder)
    print(report.faults(records.load_manifest(chosen.folder), faults))
    return 1 if faults else 0
