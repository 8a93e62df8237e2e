"""The picture of the benchmark of reading: what a batch takes, beside the floor, for README."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from helpers.lesson import show

OF = "comparisons"  # the PNG's own text: of which run it is
ROW_INCHES = 0.25
OURS_COLOUR, OTHERS_COLOUR, LINE = "#0072B2", "#D55E00", "#333333"
LEFT, RIGHT = 0.6, 2.2  # times the least and the greatest value: how far the axis reaches
# Column of the published table -> its heading.
GROUPS = {
    "from memory, random crops": "Random crops from memory",
    "from records": "Stored crops from the page cache",
    "from NIfTI": "Random crops from .nii.gz",
}
OURS = ("crops.from_memory", "tf.data", "records,", "pipeline")
# The table has these as well; a picture with all of them would be too long to take in.
LEFT_OUT = ("floor", "looking", "float_list, today", "MONAI SmartCacheDataset")
WORKERS_IN = "from NIfTI"  # elsewhere two processes are slower than none
BETWEEN = 0.4  # rows of room between groups


def batches(entries: Sequence[Mapping], name: str) -> dict[str, float]:
    """Row -> milliseconds of a batch, of one comparison; the course's row is the first.

    The entries do not name it: it is the row that `_tuning_parts` has first.
    """
    from _tuning_parts import ORDER

    part = next(part for part in ORDER if part.name == name)
    found = [entry for entry in entries if entry["name"] == name]
    if not found:
        return {}
    return {part.ours: found[0]["value"]} | {one["against"]: one["against_value"] for one in found}


def digest(entries: Sequence[Mapping]) -> str:
    """Tells the comparisons of one run from those of another."""
    return hashlib.sha256(json.dumps(list(entries), sort_keys=True).encode()).hexdigest()


def figure(entries: Sequence[Mapping]):
    """Groups of dots on one logarithmic axis, each with a line from the floor of its group.

    Args:
        entries: of a run with the parts A, B and C, or some of them.

    Raises:
        ValueError: for a run that has none of them.
    """
    groups = {
        heading: _rows(batches(entries, name), with_workers=name == WORKERS_IN)
        for name, heading in GROUPS.items()
    }
    groups = {heading: rows for heading, rows in groups.items() if rows}
    if not groups:
        raise ValueError("the picture needs part A, B or C")
    memory = batches(entries, "from memory, random crops")
    floors = {heading: _floor(batches(entries, name)) for name, heading in GROUPS.items()}
    floors = {heading: floor or _floor(memory) for heading, floor in floors.items()}
    count = sum(len(rows) + 1 + BETWEEN for rows in groups.values()) - BETWEEN
    fig, ax = show.chart(_title(groups, floors), height=count * ROW_INCHES + 0.45)
    _draw(ax, groups, floors, count)
    return fig


def _rows(times: Mapping[str, float], with_workers: bool) -> dict[str, float]:
    kept = {
        name: ms
        for name, ms in times.items()
        if not name.startswith(LEFT_OUT) and (with_workers or "workers" not in name)
    }
    return dict(sorted(kept.items(), key=lambda pair: pair[1]))


def _floor(times: Mapping[str, float]) -> float | None:
    return next((ms for name, ms in times.items() if name.startswith("floor")), None)


def _title(groups: Mapping[str, Mapping[str, float]], floors: Mapping[str, float]) -> str:
    heading = next(iter(groups))
    ours = next(ms for name, ms in groups[heading].items() if name.startswith(OURS))
    slowest = max(ms for rows in groups.values() for ms in rows.values())
    if not floors[heading]:
        return "What a batch takes"
    return (
        f"A batch from memory takes {ours / floors[heading]:.1f} times as long as one thread "
        f"needs to copy it; the slowest way to read, {slowest / floors[heading]:.0f} times"
    )


def _draw(ax, groups, floors, count: float) -> None:
    values = [ms for rows in groups.values() for ms in rows.values()]
    values += [floor for floor in floors.values() if floor]
    ax.set_xscale("log")
    ax.set_xlim(LEFT * min(values), RIGHT * max(values))
    ax.set_ylim(count - 0.4, -0.6)
    ticks, names, y = [], [], 0.0
    for heading, rows in groups.items():
        ticks.append(y)
        names.append(heading)
        floor, first = floors[heading], y + 1
        for name, ms in rows.items():
            y += 1
            ticks.append(y)
            names.append(name)
            _dot(ax, y, ms, floor or ax.get_xlim()[0], name.startswith(OURS))
        if floor:
            ax.plot([floor] * 2, [first - 0.5, y + 0.5], color=LINE, lw=1.2, ls="--")
            text = f"floor: {_number(floor)}"
            ax.text(floor, first - 0.95, text, ha="center", va="center", size=8.5)
        y += 1 + BETWEEN
    ax.set_xlabel("ms for a batch, each line ten times the one before")
    ax.set_yticks(ticks, names)
    for label in ax.get_yticklabels():
        label.set_weight("bold" if label.get_text() in groups else "normal")
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.xaxis.set_minor_formatter(lambda value, _: "")
    ax.grid(axis="x", which="major", lw=0.8)
    ax.set_axisbelow(True)


def _dot(ax, y: float, ms: float, start: float, ours: bool) -> None:
    """A row's value; the course's are filled, others are open, so that colour is not needed."""
    colour = OURS_COLOUR if ours else OTHERS_COLOUR
    ax.plot([start, ms], [y, y], color=colour, lw=2.2, alpha=0.7, solid_capstyle="butt")
    face = colour if ours else "white"
    ax.plot([ms], [y], "o", ms=6.5, mec=colour, mfc=face, mew=1.6)
    ax.annotate(_number(ms), (ms, y), (7, 0), textcoords="offset points", va="center")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(path: Path, entries: Sequence[Mapping]) -> None:
    """Draw the comparisons as a PNG within the course's budget; it says of which run it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer, text = io.BytesIO(), PngInfo()
    figure(entries).savefig(buffer, dpi=140)
    text.add_text(OF, digest(entries))
    with Image.open(buffer) as drawn:  # a chart has few colours
        drawn.convert("RGB").quantize(64).save(path, "PNG", pnginfo=text, optimize=True)
