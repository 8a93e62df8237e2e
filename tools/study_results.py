"""What the runs of a study gave: read, judged and shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from studies import DECIMALS, Claim, Study
from tools.cells import NotebookError
from tools.study_lesson import Version

KEYS = ["treatment", "run"]
MACHINE = ["cores", "python", "tensorflow", "system"]


@dataclass(frozen=True)
class Results:
    """The rows of every seed, and what they come from.

    Args:
        name: of the study's module.
        study: what was studied.
        rows: columns `seed`, `treatment`, `run` and the study's measures.
        machine: as `tools.course.machine` describes it, with the keys `MACHINE`.
        version: of the lesson; None for numbers from before studies kept it.
    """

    name: str
    study: Study
    rows: pd.DataFrame
    machine: Mapping[str, object]
    version: Version | None = None

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of their runs."""
        return self.rows["seed"].unique().tolist()

    def held(self) -> list[tuple[Claim, int]]:
        """Each claim, and in how many seeds it holds."""
        by_seed = [rows for _, rows in self.rows.groupby("seed")]
        return [(claim, sum(map(bool, map(claim.holds, by_seed)))) for claim in self.study.claims]

    def failed(self) -> list[Claim]:
        """The claims that hold in fewer seeds than they say."""
        wanted = {claim: claim.wanted(len(self.seeds)) for claim in self.study.claims}
        return [claim for claim, held in self.held() if held < wanted[claim]]

    def seed_means(self) -> pd.DataFrame:
        """Means over the runs: a row for each seed and treatment, in the order of the results."""
        measures = list(self.study.measures)
        return self.rows.groupby(["seed", "treatment"], sort=False)[measures].mean()


def collect(path: Path, study: Study) -> pd.DataFrame:
    """Read what one run wrote, the columns of the study only.

    Raises:
        NotebookError: for a file that is missing, has no rows, lacks a column, has a value that is
            no finite number, or has two rows for one run of one treatment.
    """
    if not path.exists():
        raise NotebookError("the cell tagged study wrote nothing to RESULTS")
    try:
        # A treatment may be called "None" or "NA"; neither is a missing value.
        rows = pd.read_csv(path, dtype={study.rows_of: str}, keep_default_na=False)
    except pd.errors.EmptyDataError:
        rows = pd.DataFrame()
    measures = list(study.measures)
    missing = [name for name in [study.rows_of, *measures] if name not in rows]
    if missing:
        raise NotebookError(f"RESULTS lacks the column {', '.join(missing)}")
    if rows.empty:
        raise NotebookError("RESULTS has no rows")
    if "run" not in rows:
        rows = rows.assign(run=0)
    rows = rows[[study.rows_of, "run", *measures]].set_axis(KEYS + measures, axis=1)
    return checked(rows, study, KEYS)


def checked(rows: pd.DataFrame, study: Study, keys: list[str]) -> pd.DataFrame:
    """Rows with their measures as numbers, rounded to what is written.

    Args:
        rows: columns `keys` and the study's measures.
        study: what they are of.
        keys: columns that tell a run from any other; `KEYS`, and `seed` where there are several.

    Raises:
        NotebookError: for a value that is no finite number, or two rows for one run.
    """

    def where(row: pd.Series) -> str:
        return ", ".join(f"{'' if key == 'treatment' else f'{key} '}{row[key]}" for key in keys)

    for name in study.measures:
        numbers = pd.to_numeric(rows[name], errors="coerce")
        for _, row in rows[~np.isfinite(numbers)].iterrows():
            raise NotebookError(f"{where(row)}: {name} is no finite number: {row[name]!r}")
        rows = rows.assign(**{name: numbers.astype(float).round(DECIMALS)})
    for _, row in rows[rows.duplicated(keys)].iterrows():
        raise NotebookError(f"{where(row)}: two rows for one run")
    return rows


def together(by_seed: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """The rows of all seeds below each other, with the column `seed`.

    Raises:
        NotebookError: where a seed has other treatments or runs than the first one, and where all
            its numbers are those of another seed: then the lesson does not follow its SEED.
    """
    first, *_ = by_seed
    for seed in by_seed:
        # As text: what is a run's number here may be its name there.
        kept, other = (set(map(str, by_seed[k][KEYS].to_numpy().tolist())) for k in (first, seed))
        if kept != other:
            differ = ", ".join(sorted(kept ^ other))
            raise NotebookError(f"seeds {first} and {seed} differ in treatment and run: {differ}")
    seen: dict[tuple, int] = {}
    for seed, rows in by_seed.items():
        same = seen.setdefault(tuple(rows.drop(columns=KEYS).to_numpy().ravel()), seed)
        if same != seed:
            raise NotebookError(f"seeds {same} and {seed} gave the same numbers: is SEED used?")
    return pd.concat([rows.assign(seed=seed) for seed, rows in by_seed.items()], ignore_index=True)


def summary(results: Results) -> pd.DataFrame:
    """The table as text: mean over the seeds of each seed's mean, ± the standard deviation."""
    groups = results.seed_means().groupby("treatment", sort=False)
    mean, sd = groups.mean(), groups.std(ddof=1)
    cells = {
        name.replace("_", " "): [
            f"{m:.2f}" + ("" if np.isnan(s) else f" ± {s:.2f}")
            for m, s in zip(mean[name], sd[name], strict=True)
        ]
        for name in results.study.measures
    }
    return pd.DataFrame(cells, index=mean.index)


def _verdict(claim: Claim, held: int, seeds: int) -> tuple[str, str]:
    """A mark, and in how many seeds the claim holds."""
    wanted = claim.wanted(seeds)
    mark = "·" if claim.at_least == 0 else "✓" if held >= wanted else "✗"
    return mark, f"{held} of {seeds}" + (f", wanted {wanted}" if held < wanted else "")


def report(results: Results) -> str:
    """What is printed: the table, the first measure of each seed, and what became of the claims."""
    main, seeds = results.study.measures[0], results.seeds
    table = summary(results)
    each = results.seed_means()[main].unstack("seed").loc[table.index, seeds]
    lines = [
        f"{results.name}: {results.study.notebook}; {_spread(seeds)}",
        table.rename_axis(None).to_string(),
        f"{main.replace('_', ' ')} for each seed",
        each.rename_axis(None).rename_axis(None, axis=1).to_string(float_format="{:.2f}".format),
    ]
    claims = [
        "{0} {1}: {claim.sentence}".format(*_verdict(claim, held, len(seeds)), claim=claim)
        for claim, held in results.held()
    ]
    return "\n\n".join([*lines, "\n".join(claims)])


def _spread(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return "one seed, so no spread"
    return f"mean ± standard deviation over {len(seeds)} seeds"


def markdown(results: Results, note: str = "") -> str:
    """The same for the page: two tables, and above them what has to be said of their origin."""
    table, seeds = summary(results), results.seeds
    kept = results.version.parameters if results.version else {}
    own = ", ".join(f"{name} = {kept[name]}" for name in results.study.parameters if name in kept)
    lines = [
        f"{_spread(seeds)[:1].upper()}{_spread(seeds)[1:]}. "
        f"TensorFlow {results.machine['tensorflow']}, Python {results.machine['python']}, "
        f"{results.machine['cores']} cores." + (f" Run with {own}." if own else ""),
        "",
        *([f"*{note[0].upper()}{note[1:]}.*", ""] if note else []),
        f"| {results.study.rows_of} | " + " | ".join(table.columns) + " |",
        "|---|" + "---:|" * len(table.columns),
        *("| " + " | ".join([name, *cells]) + " |" for name, *cells in table.itertuples()),
        "",
        "| | holds in | claim |",
        "|---|---:|---|",
    ]
    for claim, held in results.held():
        lines.append("| " + " | ".join([*_verdict(claim, held, len(seeds)), claim.sentence]) + " |")
    return "\n".join(lines)
