"""Pin every package of the course, with what it needs in turn, for every system and Python.

    python -m tools.lock        pyproject.toml -> requirements.txt

The resolver, uv, is installed into a throw-away environment; the course itself does not need it.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tools.cells import ROOT

REQUIREMENTS = ROOT / "requirements.txt"
HEAD = """\
# Every package of the course, pinned, with what it needs in turn. Written by: make lock
-e .
"""
OPTIONS = [
    "--universal",
    "--python-version=3.11",
    "--all-extras",
    "--no-header",
    "--no-annotate",
    "--no-emit-index-url",
    "--no-emit-find-links",
]


def resolve() -> str:
    """The pins, one line a package, as `uv pip compile` finds them."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        scripts = Path(folder) / ("Scripts" if os.name == "nt" else "bin")
        install = [scripts / "python", "-m", "pip", "install", "--quiet", "uv"]
        subprocess.run(install, check=True)
        compile_them = [scripts / "uv", "pip", "compile", *OPTIONS, "pyproject.toml"]
        return subprocess.check_output(compile_them, cwd=ROOT, text=True)


def main() -> int:
    """Write requirements.txt; returns the exit code."""
    REQUIREMENTS.write_text(HEAD + resolve(), encoding="utf-8", newline="\n")
    print(f"{REQUIREMENTS.name}: written; now run: make test")
    return 0


if __name__ == "__main__":
    sys.exit(main())
