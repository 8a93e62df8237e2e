"""The picture of the benchmark of reading for README: what a batch takes, beside the floor."""

import hashlib
import json

from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#444444"
LEFT_OUT = ("looking", "float_list, today", "MONAI SmartCacheDataset")  # enough to take in
WIDTH_INCHES, ROW_INCHES = 7.0, 0.21


def digest(entries) -> str:
    """Tells the comparisons of one run from those of another."""
    return hashlib.sha256(json.dumps(list(entries), sort_keys=True).encode()).hexdigest()


def rows_of(entries, name: str, ours: str, workers: bool) -> dict[str, float]:
    """Row -> milliseconds, the quickest first; entries do not name our row."""
    found = {one["against"]: one["against_value"] for one in entries if one["name"] == name}
    found[ours] = next(one["value"] for one in entries if one["name"] == name)
    shown = [who for who in found if not who.startswith(LEFT_OUT)]
    shown = [who for who in shown if workers or "workers" not in who]
    return {who: found[who] for who in sorted(shown, key=found.get)}


def write(path, entries, groups) -> None:
    """Draw dots on logarithmic axes, one below the other, and say of which run they are.

    Args:
        path: of the PNG.
        entries: of a run.
        groups: heading, name of a comparison, the course's row in it, whether workers are shown.
    """
    drawn = [(heading, which[1], rows_of(entries, *which)) for heading, *which in groups]
    heights = [len(rows) + 2 for *_, rows in drawn]
    fig = Figure((WIDTH_INCHES, ROW_INCHES * sum(heights)), layout="constrained")
    axes = fig.subplots(len(drawn), sharex=True, gridspec_kw={"height_ratios": heights})
    for ax, (heading, ours, rows) in zip(axes, drawn, strict=True):
        for y, (who, ms) in enumerate(rows.items()):
            mine = who.startswith((ours, "records,", "tf.data", "pipeline"))
            colour = BLUE if mine else GREY if who.startswith("floor") else ORANGE
            ax.plot(ms, y, "o", mec=colour, mfc=colour if mine else "white")
            words = f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"
            ax.annotate(words, (ms, y), (7, 0), textcoords="offset points", va="center", size=8)
        for floor in [ms for who, ms in rows.items() if who.startswith("floor")][:1]:
            ax.axvline(floor, color=GREY, lw=1, ls="--")
        ax.set_yticks(range(len(rows)), rows, size=8)
        ax.set_title(heading, loc="left", size=9, weight="bold")
        ax.margins(x=0.1)
        ax.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("ms for a batch; the dashed line is the floor", size=8)
    fig.savefig(path, dpi=80, metadata={"comparisons": digest(entries)})
