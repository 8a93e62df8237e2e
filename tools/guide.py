"""Write into docs/converting.md what comes from the code: the table of codes, and a report.

python -m tools.guide
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers.errors import CODES, cure, meaning
from helpers.lesson import phantoms
from tools.cells import ROOT, show

GUIDE = ROOT / "docs" / "converting.md"


def table() -> str:
    """A row for each code: what is wrong, what to do."""
    rows = [f"| `{code}` | {meaning(code)} | {cure(code)} |" for code in CODES]
    return "\n".join(["| code | what is wrong | what to do |", "|---|---|---|", *rows])


def report() -> str:
    """What the commands of the guide print."""
    with tempfile.TemporaryDirectory() as scratch:
        disc = phantoms.messy_folder(Path(scratch) / "data")
        command = [sys.executable, "-m", "helpers", "convert", "dicom", disc, f"{scratch}/records"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return f"```text\n{done.stdout}```"


def main() -> None:
    """Write the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    text = re.sub(r"```text\n.*?```", lambda _: report(), text, count=1, flags=re.DOTALL)
    text = re.sub(r"\| code \|.*\|(?=\n\n)", lambda _: table(), text, flags=re.DOTALL)
    GUIDE.write_text(text, encoding="utf-8", newline="\n")
    print(f"{show(GUIDE)}: written")


if __name__ == "__main__":
    main()
