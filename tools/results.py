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
from collections.abc import Iterable
from pathlib import Path

from tools.cells import ROOT, show

README, COURSE_README = ROOT / "benchmarks" / "README.md", ROOT / "README.md"
PUBLISHED = ROOT / "docs"
PICTURED, PICTURE = "reading", "docs/images/reading.png"  # what stands in the course's README


def rows_of_markdown(head: list[str], rows: Iterable, left: int = 1) -> str:
    """A table; what stands behind its first columns is aligned to the right."""
    aligned = ["---"] * left + ["---:"] * (len(head) - left)
    lines = (" | ".join(row) for row in [head, *rows])
    first, *others = (f"| {line} |" for line in lines)
    return "\n".join([first.replace("|  |", "| |", 1), f"|{'|'.join(aligned)}|", *others])


def table(comparisons: list[dict]) -> str:
    """Times in plain ms: a row for each thing compared with, a column for each input.

    Cells are how many times as long the other takes, so above 1 means that the course is ahead.
    """
    plain = [row for row in comparisons if row["unit"] == "ms"]
    ratios = {(row["against"], kind(row)): f"{row['ratio']:.2f}" for row in plain}
    names = list(dict.fromkeys(name for name, _ in ratios))
    kinds = list(dict.fromkeys(one for name in names for n, one in ratios if n == name))
    rows = [[name, *(ratios.get((name, one), "") for one in kinds)] for name in names]
    return rows_of_markdown(["", *kinds], rows)


def kind(row: dict) -> str:
    """What the input is."""
    return row["name"].removeprefix("read_series, ")


def others(comparisons: list[dict]) -> str:
    """Comparisons of another kind, such as "ms an epoch" or sizes beside the usual one.

    A row for each thing that was measured, a table for all that were compared with the same others.
    """
    named: dict[tuple[str, str], dict[str, str]] = {}
    for row in comparisons:
        if row["unit"].startswith("ms "):
            what = row["name"], f"{digits(row['value'])} {row['unit']}"
            named.setdefault(what, {})[row["against"]] = f"{row['ratio']:.2f}"
    tables: dict[tuple[str, ...], list] = {}
    for what, ratios in named.items():
        tables.setdefault(tuple(ratios), []).append([*what, *ratios.values()])
    return "\n\n".join(rows_of_markdown(["", "here", *k], rows) for k, rows in tables.items())


def digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def between(text: str, name: str, written: str) -> str:
    """The text with something else between the markers of a name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = f"(?s){re.escape(begin)}.*?{re.escape(end)}"
    return re.sub(pattern, lambda _: f"{begin}\n\n{written}\n\n{end}", text)


def with_table(text: str, name: str, comparisons: list[dict]) -> str:
    """The README's text with the tables of one benchmark between its markers."""
    text = between(text, name, table(comparisons))
    return between(text, f"{name}, others", others(comparisons))


def picture(comparisons: list[dict]) -> str:
    """For the course's README: the picture of the benchmark of reading, and its words."""
    times = {(row["name"], row["against"]): row["against_value"] for row in comparisons}
    ours = {row["name"]: row["value"] for row in comparisons}
    memory, records, nifti = "from memory, random crops", "from records", "from NIfTI"
    floor, default = times[memory, "floor: NumPy, 1 thread"], times[memory, "MONAI CacheDataset"]
    lists, generator = (times[records, f"{row}, as in 2018"] for row in ("float_list", "generator"))
    cached = times[nifti, "pipeline.classification, cached"]
    alt = (
        f"What a batch takes, in ms. Random crops from memory: the floor {digits(floor)}, "
        f"crops.from_memory {digits(ours[memory])}, MONAI's CacheDataset {digits(default)}. "
        f"Stored crops: records, mapped, {digits(ours[records])}, float lists {digits(lists)}, "
        f"the generator {digits(generator)}. From NIfTI: {digits(ours[nifti])}, and once they "
        f"are cached {digits(cached)}"
    )
    words = (
        f"*Batches of 5 x 128x224x224 float32, as in a benchmark of 2018, in one run: random crops "
        f"from memory in {ours[memory] / floor:.2f} times what one thread needs to copy them; "
        f"records {lists / ours[records]:.1f} times as quick as that benchmark's float lists, and "
        f"{generator / ours[records]:.0f} times as quick as its generator. Filled dots are the "
        f"course's. [How it was measured](benchmarks/README.md)*"
    )
    return f"![{alt}]({PICTURE})\n\n{words}"


def main(path: Path) -> str | None:
    """Publish one JSON file; returns what is wrong."""
    name, text = path.stem, README.read_text(encoding="utf-8")
    if f"<!-- {name} -->" not in text:
        return f"the benchmarks' README has no place <!-- {name} -->"
    comparisons = json.loads(path.read_text(encoding="utf-8"))
    written = {
        PUBLISHED / f"{name}.json": json.dumps(comparisons, indent=1) + "\n",
        README: with_table(text, name, comparisons),
    }
    if name == PICTURED:
        text = COURSE_README.read_text(encoding="utf-8")
        written[COURSE_README] = between(text, PICTURED, picture(comparisons))
    for path, text in written.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{', '.join(map(show, written))}: written")
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
