"""What stands in several places and comes from one: the public address and the measured minutes.

The text between these markers, in notebooks and in README.md, is written by commands:

    <!-- badges 01_loading_dicom -->…<!-- /badges -->         make badges ADDRESS=...
    <!-- measured 01_loading_dicom -->…<!-- /measured -->     make minutes

Inside a notebook the name may be left out.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

from nbformat import NotebookNode

from tools.cells import ROOT, NotebookError, notebook_paths, read, show, tags, write

MEASURED = ROOT / "docs" / "measured.json"
# Where `python -m tools.course` leaves its measurement, out of the way of git.
LAST_RUN = ROOT / "build" / "measured.json"
README = ROOT / "README.md"
PYPROJECT = ROOT / "pyproject.toml"

FIRST_NOTEBOOK = "00_start_here"
ADDRESS = re.compile(r"https://github\.com/[\w-]+/[\w-]+(?:\.(?!git\b)[\w-]+)*")
NOT_YET = "your-organisation"  # the owner, as long as the course is published nowhere
COMMENT = "# not found? README says how to install the course"
ON_ITS_OWN = f"""\
from importlib import metadata

if not [*metadata.distributions(name="medical-imaging-input-pipelines")]:  # opened on its own
    get_ipython().run_line_magic("pip", "install --quiet git+{{}}")

import helpers.lesson  {COMMENT}"""


def repository(pyproject: Path = PYPROJECT) -> str | None:
    """The course's public address, from `[project.urls]`; None while it has none.

    Raises NotebookError where it is not of the form `https://github.com/owner/name`.
    """
    address = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    if not ADDRESS.fullmatch(address):
        raise NotebookError(f"{address!r} is no address; wanted https://github.com/owner/name")
    return None if address.split("/")[3] == NOT_YET else address


def set_up(address: str | None) -> str:
    """The set-up cell: on a hosted service, where nothing but the notebook is, it installs."""
    return ON_ITS_OWN.format(address) if address else f"import helpers.lesson  {COMMENT}"


def badges(name: str, address: str | None) -> str:
    """The two badges of one notebook, as Markdown whose text also reads well without pictures."""
    if address is None:
        return ""
    place = address.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{name}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{place}/main?urlpath=lab/tree/notebooks/{name}.ipynb"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def measured(entry: dict, machine: dict) -> str:
    """A measurement in words: `55 minutes for you; 0.8 of computing on 2 cores, 890 MB`."""
    minutes = max(0.1, round(entry["seconds"] / 60, 1))
    # Rounded up to ten: the last digit differs from run to run.
    megabytes = -(-int(entry["peak_mb"]) // 10) * 10
    computing = f"{minutes} of computing on {machine['cores']} cores, {megabytes} MB"
    return f"{entry['learner_minutes']} minutes for you; {computing}"


def between(text: str, marker: str, name: str, write_for) -> str:
    """The text with everything between `marker`'s comments replaced by `write_for(name)`.

    A marker that names no notebook means the notebook `name`.
    """

    def replace(found: re.Match) -> str:
        target = found.group(2) or name
        return f"{found.group(1)}{write_for(target)}<!-- /{marker} -->"

    return re.sub(rf"(<!-- {marker}(?: (\w+))? -->)[^\n]*?<!-- /{marker} -->", replace, text)


def with_badges(notebook: NotebookNode, name: str, address: str | None) -> NotebookNode:
    """Write the badges and the set-up cell, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = between(
                cell.source, "badges", name, lambda target: badges(target, address)
            )
        elif "setup" in tags(cell):
            cell.source = set_up(address)
    return notebook


def with_minutes(notebook: NotebookNode, name: str, words: dict[str, str]) -> NotebookNode:
    """Write the measurement into the notebook's first lines, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = between(cell.source, "measured", name, words.__getitem__)
    return notebook


def readme_with_badges(text: str, address: str | None) -> str:
    """README's text with its badges; one without a name leads to the first notebook."""
    return between(text, "badges", FIRST_NOTEBOOK, lambda target: badges(target, address))


def readme_with_minutes(text: str, words: dict[str, str]) -> str:
    """README's text with the measurement in the rows of its course map."""
    return between(text, "measured", FIRST_NOTEBOOK, words.__getitem__)


def in_words(measurement: dict) -> dict[str, str]:
    """The whole measurement in words, by notebook name."""
    machine = measurement["machine"]
    return {entry["notebook"]: measured(entry, machine) for entry in measurement["notebooks"]}


def write_badges(address: str | None = None) -> None:
    """The command `make badges`: an address, if one is given, goes into pyproject.toml first."""
    if address:
        text = PYPROJECT.read_text(encoding="utf-8")
        text = re.sub(r'(?m)^Repository = ".*"$', f'Repository = "{address}"', text)
        PYPROJECT.write_text(text, encoding="utf-8", newline="\n")
    address = repository()
    for path in notebook_paths():
        write(with_badges(read(path), path.stem, address), path)
    text = readme_with_badges(README.read_text(encoding="utf-8"), address)
    README.write_text(text, encoding="utf-8", newline="\n")
    print(f"badges and set-up cells for {address}" if address else "no badges: no address yet")


def write_minutes(paths: list[Path]) -> None:
    """The command `minutes`: publish the last complete measurement, if every check passed in it."""
    if not LAST_RUN.exists():
        raise NotebookError(f"no {show(LAST_RUN)}; run the whole course first: make course")
    measurement = json.loads(LAST_RUN.read_text(encoding="utf-8"))
    words = in_words(measurement)
    missing = [path.stem for path in paths if path.stem not in words]
    if missing:
        raise NotebookError(f"not measured: {', '.join(missing)}; run: make course")
    for path in paths:
        write(with_minutes(read(path), path.stem, words), path)
        print(f"{show(path)}: {words[path.stem]}")
    text = README.read_text(encoding="utf-8")
    README.write_text(readme_with_minutes(text, words), encoding="utf-8", newline="\n")
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.write_text(json.dumps(measurement, indent=2) + "\n", encoding="utf-8", newline="\n")
    print(f"{show(README)} and {show(MEASURED)}: written")


if __name__ == "__main__":
    write_badges(*sys.argv[1:])
