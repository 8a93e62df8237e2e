"""What `convert` prints: what the records hold, and where every file went.

Nothing here names an input file unless it is asked to.
"""

import os
from collections import Counter

from helpers.errors import cure, listed, meaning


def summary(manifest) -> str:
    """Records, patients, shards and classes of each split, and what the images are.

    Args:
        manifest: a `records.Manifest`.

    Taught in: no lesson; the converter uses it
    """
    import numpy as np
    import pandas as pd

    rows = manifest.rows.set_index("split")
    splits = pd.Index([shard.split for shard in manifest.shards], name="split")
    shards = pd.DataFrame(map(vars, manifest.shards), splits).groupby("split")
    table = shards.agg(records=("records", "sum"), shards=("file", "size"), MB=("bytes", "sum"))
    table.insert(1, "patients", rows.groupby("split")["patient"].nunique())
    table = table.sort_values("records", ascending=False)
    table["MB"] /= 1e6
    ids = {}  # the class ids of all records, one by one
    if "voxels" in rows:
        ids["mask"] = rows["voxels"].dropna().map(list).explode().astype(int)
    if "label" in rows:
        labels = pd.DataFrame([*map(np.ravel, rows["label"])], rows.index).astype("Int64")
        ids |= {f"label {place + 1}": labels[place] for place in labels}
    for title, some in ids.items():
        counts = pd.crosstab(some.index, some).reindex(columns=[*manifest.classes])
        counts.columns = [f"{title}: {one} {name}" for one, name in manifest.classes.items()]
        table = table.join(counts)
    text = table.fillna(0).round(1).T.to_string(float_format="{:.12g}".format)
    kinds = [f"{name}: {listed(sorted({*rows[name]}), most=3)}" for name in ("shape", "dtype")]
    notes = Counter(sorted(rows["notes"].dropna().explode()) if "notes" in rows else [])
    often = [f"{count:>8}  {note}" for note, count in notes.most_common()]
    return "\n".join([text, "", *kinds, *often])


def files(rejected: tuple, written: int, base: os.PathLike | None) -> str:
    """How many input files there were and where they went, by code, with what to do.

    Args:
        rejected: a `cases.Rejection` for files that became no record.
        written: how many files did.
        base: name the rejected files, relative to this folder, and the reasons; None: do not.

    Taught in: no lesson; the converter uses it
    """
    counts = Counter(one.code for one in rejected for _ in one.files)
    lost = counts.total()
    lines = [f"{written + lost} files = {written} written + {lost} rejected"]
    for code, count in counts.most_common():
        lines.append(f"{count:>8}  {code}: {meaning(code)}")
        lines.append(f"          to do: {cure(code)}")
    for one in rejected if base else ():  # what could move a terminal's cursor is escaped
        names = [os.path.relpath(file, base) for file in one.files]
        lines += [f"{one.code}  {name!r}: {one.reason!r}" for name in names]
    if lost and not base:
        lines.append("\n--paths names these files; beware, file names can be names of patients.")
    return "\n".join(lines)
