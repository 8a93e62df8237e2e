"""A page 8 inches wide in the course's style, shown as at most 80 kB with alternative text."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping
from pathlib import Path

import IPython
from matplotlib import pyplot
from matplotlib.figure import Figure

pyplot.style.use(Path(__file__).with_name("course.mplstyle"))

WIDTH_INCHES = 8.0
BUDGET_BYTES = 80_000
LEFT = 0.005  # of the width: where titles and notes begin
TITLE_CHARACTERS = 84
# After Okabe and Ito: told apart with any colour vision, on white and on grey images. The same
# thing keeps its colour throughout the course.
PALETTE = {
    "liver": "#E69F00",
    "spleen": "#56B4E9",
    "right kidney": "#CC79A7",
    "kidney": "#009E73",
    "lesion": "#F0E442",
    "metastasis": "#F0E442",
    "lung": "#0072B2",
    "bone": "#CC79A7",
    "heart": "#D55E00",
    "reference": "#E69F00",
    "network": "#56B4E9",
}
# Kind, dots an inch and quality, until one fits. Photographs and noise do not compress without
# loss; fewer colours would change skin.
WAYS = (
    ("png", 200, 100),
    ("png", 140, 100),
    ("jpeg", 200, 85),
    ("jpeg", 150, 80),
    ("jpeg", 110, 75),
    ("jpeg", 100, 50),
    ("jpeg", 70, 40),
    ("jpeg", 50, 30),
)


def chart(
    title: str,
    *,
    height: float = 2.5,
    rows: int = 1,
    columns: int = 1,
    **options,
) -> tuple:
    """A figure and its axes in the course's style: draw on them, then hand the figure to `figure`.

    Args:
        title: the finding, as a sentence.
        height: of all axes together, in inches.
        rows, columns: how many axes, below and beside each other.
        options: of matplotlib's `Figure.subplots`, such as `sharex`.

    Returns:
        What `matplotlib.pyplot.subplots` does: a figure, and one axes or an array of them.

    Example:
        fig, ax = show.chart("The network learns", height=2)
    """
    lines = textwrap.wrap(title, TITLE_CHARACTERS)
    fig = Figure(figsize=(WIDTH_INCHES, height + 0.2 + 0.2 * len(lines)), layout="constrained")
    fig.suptitle("\n".join(lines), x=LEFT, ha="left", size=11.5, weight="bold")
    return fig, fig.subplots(rows, columns, **options)


def figure(fig: Figure, alt: str) -> None:
    """Show a matplotlib figure once, as at most 80 kB, with alternative text.

    Args:
        fig: made by `chart`, by matplotlib or by pandas; one of pyplot's is closed.
        alt: what there is to see, for those who cannot. It is stored twice: as `alt` in the
            output's metadata, where nbconvert looks for it, and as `text/plain`, which readers
            without pictures show instead.

    Raises:
        ValueError: if `alt` is empty.

    Nothing is shown outside IPython.

    Example:
        show.figure(fig, alt="A line that falls, steeply at first.")
    """
    display(*bundle(fig, alt))


def bundle(fig: Figure, alt: str) -> tuple[dict, dict]:
    """A figure as Jupyter's MIME bundle, and its metadata; see `figure`."""
    if not alt.strip():
        raise ValueError("a figure needs alternative text: say what there is to see")
    for kind, dpi, quality in WAYS:
        picture = drawn(fig, kind, dpi, quality)
        if len(picture) <= BUDGET_BYTES:
            break
    pyplot.close(fig)
    alt, mime = " ".join(alt.split()), f"image/{kind}"
    data = {mime: base64.b64encode(picture).decode("ascii"), "text/plain": alt}
    # The width keeps a picture that is drawn at a higher resolution at its size, but sharp.
    return data, {mime: {"alt": alt, "width": round(100 * fig.get_figwidth())}}


def drawn(fig: Figure, kind: str, dpi: int, quality: int) -> bytes:
    """A figure as "png" or "jpeg"."""
    buffer = io.BytesIO()
    options = {"optimize": True} if kind == "png" else {"quality": quality, "subsampling": 0}
    fig.savefig(buffer, dpi=dpi, format=kind, pil_kwargs=options)
    return buffer.getvalue()


def display(data: Mapping, metadata: Mapping) -> None:
    """Hand a MIME bundle to the notebook; without IPython, do nothing."""
    if IPython.get_ipython() is not None:
        IPython.display.display(data, metadata=metadata, raw=True)
