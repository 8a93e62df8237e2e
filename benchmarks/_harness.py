"""What every benchmark here needs: interleaved repeats, peak memory, a table, a JSON file."""

from __future__ import annotations

import contextlib
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from tqdm import tqdm

PROCESS_STATUS = "/proc/{}/status"  # Linux only
SAMPLE_EVERY_S = 0.02


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    repeats: int,
    consume: Callable[[object], object],
    verify: Callable[[str, object], None],
    label: str = "",
) -> dict[str, list[float]]:
    """Time every contender once a round, so that a slow minute of the machine hits them all.

    Args:
        contenders: name -> what is timed, from nothing to its result.
        repeats: rounds that count; one more comes first, for caches and lazy imports.
        consume: touches all of a result; runs inside the clock.
        verify: raises if the result of the contender of that name is wrong; runs outside.
        label: shown on the progress bar.

    Returns:
        name -> milliseconds, one for each round.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    bar = tqdm(total=(repeats + 1) * len(names), desc=label, leave=False)
    for round_number in range(repeats + 1):
        # Another order in each round: nobody always runs in the wake of the same neighbour.
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            start = time.perf_counter()
            result = contenders[name]()
            consume(result)
            elapsed_ms = 1000 * (time.perf_counter() - start)
            verify(name, result)
            del result
            if round_number:
                times_ms[name].append(elapsed_ms)
            bar.update()
        if not round_number:
            gc.freeze()  # the objects of large packages: each collection would walk them all
    bar.close()
    return times_ms


def peak_bytes(action: Callable[[], object]) -> int:
    """Memory that an action takes at its worst, over what the process held before.

    Call it in a process of its own: elsewhere than on Linux the peak cannot be set back, and one
    from before the action, an import say, is taken for the action's.
    """
    gc.collect()
    before = psutil.Process().memory_info().rss
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    result = action()
    peak = _peak_resident_bytes()
    del result
    return peak - before


def _peak_resident_bytes() -> int:
    if peak := _peak_by_status("self"):
        return peak  # not ru_maxrss, which begins with the peak of the process that started this
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _peak_by_status(pid: int | str) -> int:
    """The peak that Linux keeps of a process; 0 elsewhere, and for a process that has ended."""
    try:
        lines = Path(PROCESS_STATUS.format(pid)).read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")), 0)


def peak_of_tree(command: Sequence[str], cwd: Path | None = None) -> tuple[int, list[int]]:
    """Peak resident memory of a command and of each process that it starts, in bytes.

    Looked at every 20 ms; on Linux the system keeps the peak, so that only the last moments of a
    process can be missed.

    Raises:
        SystemExit: if the command fails.
    """
    peaks: dict[int, int] = {}
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=cwd)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in (process, *process.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        now = _peak_by_status(one.pid) or one.memory_info().rss
                        peaks[one.pid] = max(peaks.get(one.pid, 0), now)
            time.sleep(SAMPLE_EVERY_S)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{output.read()[-2000:]}")
    return peaks.pop(process.pid), sorted(peaks.values(), reverse=True)


def entry(
    name: str, value: float, unit: str, against: str, against_value: float
) -> dict[str, object]:
    """One comparison where less is better; `ratio` above 1 means that `value` is ahead."""
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "against": against,
        "against_value": round(against_value, 4),
        "ratio": round(against_value / value, 3),
    }


def compare(
    name: str, times_ms: Mapping[str, Sequence[float]], ours: str
) -> list[dict[str, object]]:
    """An entry for `ours` against everybody else, on medians."""
    medians = {who: statistics.median(times) for who, times in times_ms.items()}
    return [
        entry(name, medians[ours], "ms", who, median)
        for who, median in medians.items()
        if who != ours
    ]


def digits(value: float) -> str:
    """Three of them, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_times(
    title: str,
    names: Sequence[str],
    times_ms: Mapping[str, Sequence[float]],
    ours: str,
    columns: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Print medians, spread and how far `ours` is ahead; names without times are not installed.

    Args:
        title: of the table.
        names: of its rows.
        times_ms: name -> milliseconds of each round.
        ours: the row of the course.
        columns: further ones: heading -> name -> number.
    """
    width, columns = max(map(len, names)), columns or {}
    our_median = statistics.median(times_ms[ours])
    heads = [f"{'':{width}}", "median ms", "    min to max ms", f"{ours} is ahead", *columns]
    print(f"\n{title}\n  " + "  ".join(heads))
    for name in names:
        if name not in times_ms:
            print(f"  {name:{width}}  not installed")
            continue
        times = times_ms[name]
        median = statistics.median(times)
        cells = [f"{name:{width}}", digits(median), f"{digits(min(times))} to {digits(max(times))}"]
        cells.append("" if name == ours else f"{median / our_median:.2f} x")
        cells += [digits(column[name]) if name in column else "" for column in columns.values()]
        print("  " + "  ".join(f"{x:>{len(head)}}" for x, head in zip(cells, heads, strict=True)))


def write_json(path: str | Path, entries: Sequence[Mapping[str, object]]) -> None:
    """Write the entries of all comparisons as one JSON list."""
    Path(path).write_text(json.dumps(list(entries), indent=1) + "\n", encoding="utf-8")
