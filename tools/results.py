"""The last published run of a benchmark, as a table in benchmarks/README.md.

    make bench BENCH_ARGS="--json build/dicom_reading.json"
    python -m tools.results build/dicom_reading.json

The comparisons are kept as docs/NAME.json, so that a test can see that the table is theirs.
"""

import json
import re
import sys
from pathlib import Path

from tools.cells import ROOT, show

README = ROOT / "benchmarks" / "README.md"
PUBLISHED = ROOT / "docs"


def table(comparisons: list[dict]) -> str:
    """Markdown: one row for each thing compared with, one column for each kind of input.

    Args:
        comparisons: what a benchmark writes with --json; only times are taken.

    Cells are how many times as long the other takes, so above 1 means that the course is ahead.
    """
    ratios: dict[str, dict[str, float]] = {}
    for row in comparisons:
        if row["unit"] == "ms":
            kind = row["name"].removeprefix("read_series, ")
            ratios.setdefault(row["against"], {})[kind] = row["ratio"]
    kinds = list(dict.fromkeys(kind for row in ratios.values() for kind in row))
    lines = ["| | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)]
    for against, row in ratios.items():
        cells = [f"{row[kind]:.2f}" if kind in row else "" for kind in kinds]
        lines.append(f"| {against} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_table(text: str, name: str, comparisons: list[dict]) -> str:
    """The README's text with the table of one benchmark between its markers."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    return re.sub(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda match: f"{begin}\n\n{table(comparisons)}\n\n{end}",
        text,
        flags=re.S,
    )


def main(arguments: list[str] | None = None) -> int:
    """Publish one JSON file; returns the exit code."""
    paths = sys.argv[1:] if arguments is None else arguments
    if len(paths) != 1 or not Path(paths[0]).is_file():
        print("one JSON file of a benchmark is needed", file=sys.stderr)
        return 1
    name = Path(paths[0]).stem
    comparisons = json.loads(Path(paths[0]).read_text(encoding="utf-8"))
    kept = PUBLISHED / f"{name}.json"
    kept.write_text(json.dumps(comparisons, indent=1) + "\n", encoding="utf-8", newline="\n")
    text = with_table(README.read_text(encoding="utf-8"), name, comparisons)
    README.write_text(text, encoding="utf-8", newline="\n")
    print(f"{show(kept)} and {show(README)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
