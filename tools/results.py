"""The last published run of a benchmark, as a table in benchmarks/README.md.

    make bench BENCH_ARGS="--json build/dicom_reading.json"
    python -m tools.results build/dicom_reading.json

The comparisons are kept as docs/NAME.json, so that a test can see that the table is theirs. Those
of `reading` also give the course's README the words of a picture, which the benchmark draws:

    python benchmarks/reading.py --of docs/reading.json --picture docs/images/reading.png
"""

import json
import re
import sys
from pathlib import Path

from tools.cells import ROOT, show

README = ROOT / "benchmarks" / "README.md"
COURSE_README = ROOT / "README.md"
PUBLISHED = ROOT / "docs"
PICTURED = "reading"  # the benchmark whose picture stands in the course's README
PICTURE = "docs/images/reading.png"


def table(comparisons: list[dict]) -> str:
    """Markdown of times in plain ms: a row for each thing compared with, a column for each input.

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


def others(comparisons: list[dict]) -> str:
    """Markdown: comparisons of another kind, such as "ms an epoch" or sizes beside the usual one.

    A row for each thing that was measured, a table for all that were compared with the same others.
    """
    named: dict[tuple[str, str], dict[str, float]] = {}
    for row in comparisons:
        if row["unit"].startswith("ms "):
            what = row["name"], f"{_digits(row['value'])} {row['unit']}"
            named.setdefault(what, {})[row["against"]] = row["ratio"]
    tables: dict[tuple[str, ...], list[str]] = {}
    for what, ratios in named.items():
        head = ["| | here | " + " | ".join(ratios) + " |", "|---|---:|" + "---:|" * len(ratios)]
        cells = [*what, *(f"{ratio:.2f}" for ratio in ratios.values())]
        tables.setdefault(tuple(ratios), head).append("| " + " | ".join(cells) + " |")
    return "\n\n".join("\n".join(lines) for lines in tables.values())


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def between(text: str, name: str, written: str) -> str:
    """The text with something else between the markers of a name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    return re.sub(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda match: f"{begin}\n\n{written}\n\n{end}",
        text,
        flags=re.S,
    )


def with_table(text: str, name: str, comparisons: list[dict]) -> str:
    """The README's text with the tables of one benchmark between its markers."""
    text = between(text, name, table(comparisons))
    return between(text, f"{name}, others", others(comparisons))


def picture(comparisons: list[dict]) -> str:
    """Markdown for the course's README: the picture of the benchmark of reading, and its words.

    Raises:
        KeyError: for a run without the parts that the words speak of.
    """
    times = {(row["name"], row["against"]): row["against_value"] for row in comparisons}
    ours = {row["name"]: row["value"] for row in comparisons}
    memory, records, nifti = "from memory, random crops", "from records", "from NIfTI"
    floor, default = times[memory, "floor: NumPy, 1 thread"], times[memory, "MONAI CacheDataset"]
    lists, generator = (times[records, f"{row}, as in 2018"] for row in ("float_list", "generator"))
    cached = times[nifti, "pipeline.classification, cached"]
    alt = (
        f"What a batch takes, in ms. Random crops from memory: the floor {_digits(floor)}, "
        f"crops.from_memory {_digits(ours[memory])}, MONAI's CacheDataset {_digits(default)}. "
        f"Stored crops: records, mapped, {_digits(ours[records])}, float lists {_digits(lists)}, "
        f"the generator {_digits(generator)}. From NIfTI: {_digits(ours[nifti])}, and once they "
        f"are cached {_digits(cached)}"
    )
    words = (
        f"*Batches of 5 x 128x224x224 float32, as in a benchmark of 2018, in one run: random crops "
        f"from memory in {ours[memory] / floor:.2f} times what one thread needs to copy them; "
        f"records {lists / ours[records]:.1f} times as quick as that benchmark's float lists, and "
        f"{generator / ours[records]:.0f} times as quick as its generator. Filled dots are the "
        f"course's. [How it was measured](benchmarks/README.md)*"
    )
    return f"![{alt}]({PICTURE})\n\n{words}"


def with_picture(text: str, comparisons: list[dict]) -> str:
    """The course's README with the picture and its words between their markers."""
    return between(text, PICTURED, picture(comparisons))


def main(arguments: list[str] | None = None) -> int:
    """Publish one JSON file; returns the exit code."""
    paths = sys.argv[1:] if arguments is None else arguments
    if len(paths) != 1 or not Path(paths[0]).is_file():
        print("one JSON file of a benchmark is needed", file=sys.stderr)
        return 1
    name = Path(paths[0]).stem
    if f"<!-- {name} -->" not in README.read_text(encoding="utf-8"):
        print(f"the benchmarks' README has no place <!-- {name} -->", file=sys.stderr)
        return 1
    comparisons = json.loads(Path(paths[0]).read_text(encoding="utf-8"))
    kept = PUBLISHED / f"{name}.json"
    kept.write_text(json.dumps(comparisons, indent=1) + "\n", encoding="utf-8", newline="\n")
    text = with_table(README.read_text(encoding="utf-8"), name, comparisons)
    README.write_text(text, encoding="utf-8", newline="\n")
    written = [kept, README]
    if name == PICTURED:
        text = with_picture(COURSE_README.read_text(encoding="utf-8"), comparisons)
        COURSE_README.write_text(text, encoding="utf-8", newline="\n")
        written.append(COURSE_README)
    print(f"{', '.join(map(show, written))}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
