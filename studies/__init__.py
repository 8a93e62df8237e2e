"""What a study is: a lesson repeated with other patients and other numbers.

It shows which of the lesson's findings hold, and which were luck. Each module here describes one
study, as STUDY; `python -m tools.study` runs them. The lesson needs three things:

- the names SEED, DATA_DIR and RESULTS (None in the lesson) in its cell tagged `parameters`;
- patients and everything drawn that follow from SEED;
- a cell tagged `study` that, where RESULTS is a path, writes its results there as CSV: a row for
  each run of each treatment, with the columns `treatment`, `run` and the study's measures. `run`
  may be left out where each treatment has one. What is no treatment may call its column otherwise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

DECIMALS = 6  # what is judged is what is written to the JSON
GIVEN = ("SEED", "DATA_DIR", "RESULTS")  # the parameters that every run gets


@dataclass(frozen=True)
class Claim:
    """A sentence that a lesson says, and how to see whether it holds.

    Args:
        sentence: what is claimed; it stands in the report and on the page.
        holds: takes the table of means of one repetition (a row for each treatment, a column for
            each measure), gives bool.
        at_least: in how many of ten repetitions it has to hold. 0: counted, and not judged; for
            what the lesson says varies.
    """

    sentence: str
    holds: Callable[[pd.DataFrame], bool]
    at_least: int = 9

    def wanted(self, repetitions: int) -> int:
        """In how many of so many repetitions it has to hold, rounded up."""
        return -(-self.at_least * repetitions // 10)


@dataclass(frozen=True)
class Study:
    """One lesson, how it is repeated and what is claimed of it.

    Args:
        notebook: the lesson's file name without ending.
        measures: columns of its CSV that are reported; the first is the one that counts most.
        claims: what is judged.
        parameters: further parameters of the lesson, the same in every run, such as EPOCHS.
        seeds: how many seeds a complete study has: SEED = 0, 1, ...
        rows_of: what its rows are of, such as "task": the column of the CSV that is read as
            `treatment`, and its name on the page.
    """

    notebook: str
    measures: tuple[str, ...]
    claims: tuple[Claim, ...]
    parameters: Mapping[str, object] = field(default_factory=dict)
    seeds: int = 10
    rows_of: str = "treatment"


def ahead(
    one: str, other: str, measure: str, by: float | None = None
) -> Callable[[pd.DataFrame], bool]:
    """For a claim: one treatment's mean is above another's; with `by`, at least so much above.

    Example:
        `Claim("weights help", ahead("class weights", "nothing", "average_precision"))`
    """

    def holds(means: pd.DataFrame) -> bool:
        # Rounded: 0.35 - 0.2 is less than 0.15 in binary.
        lead = round(means.at[one, measure] - means.at[other, measure], DECIMALS)
        return lead > 0 if by is None else lead >= by

    return holds


def reaches(treatment: str, measure: str, value: float) -> Callable[[pd.DataFrame], bool]:
    """For a claim: one treatment's mean of a measure is a value or more.

    Example:
        `Claim("lesions: Dice is 0.9 or more", reaches("lesions", "Dice", 0.9), at_least=10)`
    """
    return lambda means: means.at[treatment, measure] >= value
