"""What `convert` and `verify` print: where every file went, and what the records hold.

Nothing here names an input file unless it is asked to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from helpers.commands.terminal import WIDTH, hanging
from helpers.errors import cure, meaning

USUAL = ("train", "validation", "test")  # splits in the order in which they are used


def summary(manifest) -> str:
    """Records, patients, shards and classes of each split, a row for each fact.

    Args:
        manifest: a `records.Manifest`.

    Taught in: no lesson; the converter uses it.
    """
    import pandas as pd

    rows, shards = manifest.rows, pd.DataFrame(map(vars, manifest.shards))
    splits = sorted(manifest.splits, key=lambda name: (*(name != one for one in USUAL), name))
    facts = {
        "records": rows.groupby("split").size(),
        "patients": rows.groupby("split")["patient"].nunique(),
        "shards": shards.groupby("split").size(),
        "MB": (shards.groupby("split")["bytes"].sum() / 1e6).round(1),
    }
    tables = [pd.DataFrame(facts, dtype=object).T]
    if "voxels" in rows:
        masks = manifest.masks
        held = masks.groupby(["id", "split"]).size().unstack(fill_value=0)
        held["% of pixels"] = 100 * masks.groupby("id")["voxels"].sum() / masks["voxels"].sum()
        tables.append(named(held, manifest.classes, "masks with").round(2))
    if "label" in rows:
        labels = rows["label"].map(lambda one: one if isinstance(one, list) else [one])
        for place in range(len(labels.iloc[0])):
            counted = pd.crosstab(labels.str[place], rows["split"])
            title = f"label {place + 1}" if len(labels.iloc[0]) > 1 else "records labelled"
            tables.append(named(counted, {-1: "(not known)"} | manifest.classes, title))
    blocks = []
    for table in tables:
        table = table.reindex(columns=[*splits, *table.columns.difference(splits)])
        blocks.append(table.fillna(0).to_string(line_width=WIDTH))
    return "\n\n".join([*blocks, "\n".join(images(rows))])


def named(table, names: dict[int, str], title: str):
    """The table with a row for each class, called by number and name."""
    kept = [number for number in names if number >= 0 or number in table.index]
    table = table.reindex(kept, fill_value=0).rename_axis(index=None, columns=title)
    return table.set_axis([f"{number} {names[number]}" for number in kept])


def images(rows) -> Iterator[str]:
    """Shapes and dtypes, as a batch needs one of each; and what was done to how many images."""
    shapes = rows["shape"].unique()
    kinds = f"all {shapes[0]}" if len(shapes) == 1 else f"{len(shapes)} different shapes"
    dtypes = (f"{count} of {name}" for name, count in rows["dtype"].value_counts().items())
    yield hanging("", f"images: {kinds}; {', '.join(dtypes)}")
    if "notes" in rows:
        done = rows["notes"].explode().dropna().sort_values().value_counts(sort=False)
        done = done.sort_values(ascending=False, kind="stable")
        yield from (f"{count:>7}  {note}" for note, count in done.items())


def files(written, base: Path | None) -> str:
    """How many input files there were and where they went, by code, with what to do.

    Args:
        written: what `records.write` gave, or the error that has its `rejected`.
        base: name the rejected files, relative to this folder, and the reasons; None: do not.

    Taught in: no lesson; the converter uses it.
    """
    counts: dict[str, int] = {}
    for one in written.rejected:
        counts[one.code] = counts.get(one.code, 0) + len(one.files)
    lost = sum(counts.values())
    total = written.manifest.files["all"] if hasattr(written, "manifest") else lost
    lines = [f"{total} files = {total - lost} written + {lost} rejected"]
    for code in sorted(counts, key=lambda code: (-counts[code], code)):
        lines.append(hanging(f"{counts[code]:>8}  {code}  ", f"{meaning(code)}; {cure(code)}"))
        for one in written.rejected if base is not None else ():
            if one.code == code:
                lines.append(hanging(" " * 10, printable(one.reason)))
                lines += [" " * 12 + printable(os.path.relpath(file, base)) for file in one.files]
    if lost and base is None:
        lines.append("\n--paths names these files; beware, file names can be names of patients.")
    if kept := getattr(written, "kept", 0):
        lines.append(f"\n{kept} shards were there already: verified and kept.")
    return "\n".join(lines)


def faults(manifest, found: Sequence) -> str:
    """What `records.verify` has found, a shard a line, and a line to end with.

    Taught in: writing TFRecords
    """
    lines = [f"{fault.code}  {fault.file}: {fault.reason}" for fault in found]
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    verdict = f"{len(found)} faults" if found else "all as they were written"
    held = f"{len(manifest.shards)} shards, {manifest.records} records, {size:.1f} MB"
    return "\n".join([*lines, f"{held}: {verdict}"])


def printable(text: str) -> str:
    """Whatever could move a terminal's cursor, or is half a character, as an escape."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
