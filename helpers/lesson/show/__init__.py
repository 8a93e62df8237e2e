"""Every picture the course draws.

Each function shows one figure whose title states a finding, and returns nothing:

    show.planes(volume, title="The liver fills the right side", window="soft tissue")
    show.images({"before": scan, "after": (turned, {"liver": mask})}, title="Turned together")
    show.bars({"files": 12.3, "records": 3.1}, unit="ms", title="Records are read faster")

What is drawn once is drawn where it is taught, with matplotlib, on a page of the course's style:

    fig, ax = show.chart("The network learns", height=2.5)
    ax.plot(losses)
    show.figure(fig, alt="A line that falls.")

Images are grey and in their physical aspect, masks are outlines, letters say which side is which.
Every figure has alternative text, made from its title and content unless `alt` says it better.

Modules: `page` (style, size, alternative text), `views` (which slice, seen from where), `panels`
(images and outlines), `leafing` (the viewer, and sliders where somebody can use them), `charts`.
"""

import ast
import inspect
import textwrap

from helpers.lesson.show.charts import bars, timeline
from helpers.lesson.show.leafing import frames, viewer
from helpers.lesson.show.page import PALETTE, chart, display, figure
from helpers.lesson.show.panels import images, planes

__all__ = [
    "PALETTE",
    "bars",
    "chart",
    "figure",
    "frames",
    "images",
    "planes",
    "source",
    "timeline",
    "viewer",
]


def source(function) -> None:
    """Show the source of a helper, without its docstring, as code.

    Args:
        function: or class, of this package or of a lesson.

    Example:
        show.source(crops.random)
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    (defined,) = ast.parse("\n".join(lines)).body
    if ast.get_docstring(defined) is not None:
        del lines[defined.body[0].lineno - 1 : defined.body[0].end_lineno]
    code = "\n".join(lines)
    display({"text/markdown": f"```python\n{code}\n```", "text/plain": code}, {})
