"""What `python -m helpers convert` and `verify` print: tables for a terminal of 80 columns.

Nothing here names an input file unless it is asked to: names of files and folders are often names
of patients, and terminals are copied into e-mails.
"""

from __future__ import annotations

import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from helpers.cases import Rejection
from helpers.errors import CODES

WIDTH = 79
LISTED = 20  # files of an error that ended the run
USUAL = ("train", "validation", "test")  # splits in the order in which they are used
TITLE, COLUMN = 24, 10  # characters of a row's title, and of a number at least


def summary(manifest) -> str:
    """Records, patients, shards and classes of each split, a row for each fact.

    Args:
        manifest: a `records.Manifest`.
    """
    order = sorted(manifest.splits, key=lambda name: (*(name != one for one in USUAL), name))
    splits = {name: manifest.splits[name] for name in order}
    shards, stored = Counter(), Counter()
    for shard in manifest.shards:
        shards[shard.split] += 1
        stored[shard.split] += shard.bytes
    facts = {
        "records": [counts["records"] for counts in splits.values()],
        "patients": [len(counts["patients"]) for counts in splits.values()],
        "shards": [shards[name] for name in splits],
        "size": [size(stored[name]) for name in splits],
    }
    blocks = [_table("", list(splits), list(facts.items()))]
    if any("mask_records" in counts for counts in splits.values()):
        rows = list(_masks(splits, manifest.classes))
        blocks.append(_table("masks with", list(splits), rows, "of pixels"))
    if any("labels" in counts for counts in splits.values()):
        rows = list(_labels(splits, manifest.classes))
        blocks.append(_table("records labelled", list(splits), rows))
    return "\n\n".join([*blocks, _images(splits)])


def files(everything: int, rejected: Iterable[Rejection], base: Path | None) -> str:
    """How many input files there were and where they went, by code.

    Args:
        everything: the number of input files.
        rejected: those that became no record.
        base: name the files, relative to this folder, and the reasons; None: do not.
    """
    by_code: dict[str, list[Rejection]] = defaultdict(list)
    for one in rejected:
        by_code[one.code].append(one)
    counts = {code: sum(len(one.files) for one in ones) for code, ones in by_code.items()}
    lost = sum(counts.values())
    noun = "file" if everything == 1 else "files"
    lines = [f"{everything} {noun} = {everything - lost} written + {lost} rejected"]
    if not lost:
        return lines[0]
    longest = max(map(len, counts))
    lines += ["", f"{'files':>8}  {'rejected as':<{longest}}  which means"]
    for code in sorted(counts, key=lambda code: (-counts[code], code)):
        lines.append(_hanging(f"{counts[code]:>8}  {code:<{longest}}  ", CODES[code]))
        if base is not None:
            lines += _named(by_code[code], base)
    if base is None:
        lines += ["", "--paths names these files; beware, file names can be names of patients."]
    return "\n".join(lines)


def names(paths: Sequence[Path], base: Path) -> str:
    """The first files of an error, relative to a folder."""
    more = [f"    and {len(paths) - LISTED} more"] if len(paths) > LISTED else []
    return "\n".join([*(f"    {_relative(path, base)}" for path in paths[:LISTED]), *more])


def faults(manifest, found: Sequence) -> str:
    """What `records.verify` has found, a shard a line, and a line to end with."""
    longest = max((len(fault.code) for fault in found), default=0)
    lines = [
        _hanging(f"{fault.code:<{longest}}  ", f"{fault.file}: {fault.reason}") for fault in found
    ]
    held = size(sum(shard.bytes for shard in manifest.shards))
    shards = f"{len(manifest.shards)} shards, {manifest.records} records, {held}"
    wrong = f"{len(found)} {'fault' if len(found) == 1 else 'faults'}"
    lines.append(f"{shards}: {wrong if found else 'all as they were written'}")
    return "\n".join(lines)


def size(number: int) -> str:
    """Bytes for people: three digits and a unit, of 1000 of the one before."""
    amount, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    decimals = 1 if amount < 9.95 and unit != "B" else 0
    return f"{amount:.{decimals}f} {unit}"


def wrapped(text: str) -> str:
    """A message in lines that fit; what has no space in it stays whole."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _masks(splits: dict, classes: dict[int, str]) -> Iterator[tuple[str, list]]:
    """For each class how many masks have it, and its share of all pixels of all masks."""
    voxels = Counter()
    for counts in splits.values():
        voxels.update(counts.get("mask_voxels", {}))
    for number, name in classes.items():
        held = [counts.get("mask_records", {}).get(str(number), 0) for counts in splits.values()]
        share = voxels[str(number)] / max(1, voxels.total())
        yield f"  {number:>3} {name}", [*held, f"{100 * share:.2f} %"]
    empty = [counts.get("empty_masks", 0) for counts in splits.values()]
    if any(empty):
        yield "  nothing but 0", empty


def _labels(splits: dict, classes: dict[int, str]) -> Iterator[tuple[str, list]]:
    """For each class how many records have it; for several labels one after the other."""
    held = [Counter() for _ in splits]
    for counter, counts in zip(held, splits.values(), strict=True):
        for label, records in counts.get("labels", {}).items():
            for place, number in enumerate(label.split()):
                counter[place, int(number)] += records
    several = max(place for counter in held for place, _ in counter) > 0
    for place in sorted({place for counter in held for place, _ in counter}):
        if several:
            yield f" label {place + 1}", []
        for number, name in {**classes, -1: "(not known)"}.items():
            records = [counter[place, number] for counter in held]
            if number >= 0 or any(records):
                yield f"  {number:>3} {name}", records


def _images(splits: dict) -> str:
    """Shapes and dtypes, as a batch needs one of each; and what was done to how many images."""
    shapes, dtypes = Counter(), Counter()
    for counts in splits.values():
        shapes.update(counts["shapes"])
        dtypes.update(counts.get("dtypes", {}))
    stored = ", ".join(f"{records} of {name}" for name, records in _by_count(dtypes))
    one = " x ".join(next(iter(shapes)).split("x"))
    kinds = f"all {one}" if len(shapes) == 1 else f"{len(shapes)} different shapes"
    lines = [wrapped(f"images: {kinds}" + (f"; {stored}" if stored else ""))]
    notes = Counter()
    for counts in splits.values():
        notes.update(counts.get("notes", {}))
    lines += [f"{records:>7}  {note}" for note, records in _by_count(notes)]
    return "\n".join(lines)


def _by_count(counter: Counter) -> list[tuple[str, int]]:
    """The most frequent first, equals by name: cases come in the order of their hashes."""
    return sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))


def _table(title: str, columns: list[str], rows: list[tuple[str, list]], last: str = "") -> str:
    """Right-aligned columns, as many side by side as the width has room for.

    Args:
        title: stands above the names of the rows.
        columns: their heads.
        rows: name and cells; the last cell, if there is one more, stands below `last`.
        last: head of a column that has no split.
    """
    wide = max(COLUMN, *(len(head) + 2 for head in columns))
    room = WIDTH - TITLE - (COLUMN + 2 if last else 0)
    at_once = max(1, room // wide)
    lines = []
    for start in range(0, len(columns), at_once):
        end = start + at_once
        lines += [""] if start else []
        for name, cells in [(title, [*columns, last]), *rows]:
            short = name if len(name) <= TITLE else f"{name[: TITLE - 1]}…"
            line = "".join(f"{cell:>{wide}}" for cell in cells[: len(columns)][start:end])
            if end >= len(columns):
                line += "".join(f"{cell:>{COLUMN + 2}}" for cell in cells[len(columns) :])
            lines.append(f"{short:<{TITLE}}{line}".rstrip())
    return "\n".join(lines)


def _named(rejections: list[Rejection], base: Path) -> Iterator[str]:
    """Reasons, each with its files below it."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one in rejections:
        by_reason[one.reason] += [_relative(file, base) for file in one.files]
    for reason, names in sorted(by_reason.items(), key=lambda pair: min(pair[1])):
        if reason != CODES[rejections[0].code]:
            yield _hanging(" " * 10, _printable(reason))
        yield from (f"{' ' * 12}{name}" for name in sorted(names))


def _relative(file: Path, base: Path) -> str:
    try:
        return _printable(os.path.relpath(file, base))
    except ValueError:  # on another drive
        return _printable(str(file))


def _printable(text: str) -> str:
    """Whatever could move a terminal's cursor, or is half a character, as an escape."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def _hanging(head: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
