"""What `convert` and `verify` print: where every file went, and what the records hold.

Nothing here names an input file unless it is asked to.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.commands.terminal import WIDTH, hanging
from helpers.errors import cure, meaning

USUAL = ("train", "validation", "test")  # splits in the order in which they are used


def summary(manifest) -> str:
    """Records, patients, shards and classes of each split, a row for each fact.

    Args:
        manifest: a `records.Manifest`.

    Taught in: no lesson; the converter uses it
    """
    import pandas as pd

    rows, classes = manifest.rows, manifest.classes
    shards = pd.DataFrame(map(vars, manifest.shards)).groupby("split")
    facts = pd.DataFrame(
        {
            "records": rows.groupby("split").size(),
            "patients": rows.groupby("split")["patient"].nunique(),
            "shards": shards.size(),
            "MB": shards["bytes"].sum().div(1e6).round(1),
        },
        dtype=object,
    )
    tables = [facts.fillna(0).T.rename_axis(columns=None)]
    if "voxels" in rows:
        masks = manifest.masks
        table = by_class(masks["id"], masks["split"], classes, "masks with")
        share = 100 * masks.groupby("id")["voxels"].sum() / masks["voxels"].sum()
        table["% of pixels"] = [round(share.get(number, 0), 2) for number in classes]
        tables.append(table)
    if "label" in rows:
        labels = rows[["label", "split"]].explode("label")
        place = labels.groupby(level=0).cumcount() + 1
        for number, some in labels.groupby(place):
            title = f"label {number}" if place.max() > 1 else "labelled"
            tables.append(by_class(some["label"], some["split"], classes, title))
    order = [*filter(tables[0].columns.__contains__, USUAL), *tables[0].columns]
    texts = []
    for table in tables:
        table = table.reindex(columns=dict.fromkeys([*order, *table.columns]), fill_value=0)
        texts.append(table.to_string(line_width=WIDTH))
    return "\n\n".join([*texts, images(rows)])


def by_class(ids, splits, classes: Mapping[int, str], title: str):
    """How many there are of each class in each split; 0 for a class that nothing has."""
    import pandas as pd

    names = {**classes, **dict.fromkeys({*ids} - {*classes}, "(not known)")}
    table = pd.crosstab(ids, splits).reindex(names, fill_value=0)
    table.index = [f"{number} {name}" for number, name in names.items()]
    return table.rename_axis(columns=title)


def images(rows) -> str:
    """Shapes and dtypes, as a batch needs one of each; and what was done to how many images."""
    shapes, dtypes = Counter(rows["shape"]), Counter(rows["dtype"])
    kinds = f"{len(shapes)} different shapes" if len(shapes) > 1 else f"all {shapes.popitem()[0]}"
    stored = ", ".join(f"{count} of {name}" for name, count in dtypes.most_common())
    notes = Counter(note for some in rows.get("notes", ()) for note in some or ())
    often = sorted(notes, key=lambda note: (-notes[note], note))
    lines = [hanging("", f"images: {kinds}; {stored}")]
    return "\n".join([*lines, *(f"{notes[note]:>7}  {note}" for note in often)])


def files(written, base: Path | None) -> str:
    """How many input files there were and where they went, by code, with what to do.

    Args:
        written: what `records.write` gave, or the error that has its `rejected`.
        base: name the rejected files, relative to this folder, and the reasons; None: do not.

    Taught in: no lesson; the converter uses it
    """
    counts: Counter = Counter()
    for one in written.rejected:
        counts[one.code] += len(one.files)
    lost = counts.total()
    total = written.manifest.files["all"] if hasattr(written, "manifest") else lost
    lines = [f"{total} files = {total - lost} written + {lost} rejected"]
    for code in sorted(counts, key=lambda code: (-counts[code], code)):
        lines.append(hanging(f"{counts[code]:>8}  {code:<15}  ", f"{meaning(code)}; {cure(code)}"))
        for one in written.rejected if base else ():
            if one.code == code:
                lines.append(hanging(" " * 10, printable(one.reason)))
                lines += [" " * 12 + printable(os.path.relpath(file, base)) for file in one.files]
    if lost and not base:
        lines.append("\n--paths names these files; beware, file names can be names of patients.")
    if getattr(written, "kept", 0):
        lines.append(f"\n{written.kept} shards were there already: verified and kept.")
    return "\n".join(lines)


def faults(manifest, found: Sequence) -> str:
    """What `records.verify` has found, a shard a line, and a line to end with.

    Args:
        manifest: of the set.
        found: a `records.Fault` for each shard that is not as it was written.

    Taught in: no lesson; the converter uses it
    """
    lines = [f"{fault.code}  {fault.file}: {fault.reason}" for fault in found]
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    held = f"{len(manifest.shards)} shards, {manifest.records} records, {size:.1f} MB"
    return "\n".join([*lines, f"{held}: {len(found) or 'no'} faults"])


def printable(text: str) -> str:
    """Whatever could move a terminal's cursor, or is half a character, as an escape."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
