"""Pictures to leaf through: sliders where somebody can use them, else a still picture.

A widget needs a live front end: on a static page it is an error text, and its random id would make
every run of a notebook another file. So there is always a still picture, and the widget stands in
front of it only where `live_front_end` finds somebody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

import IPython
from matplotlib.figure import Figure

from helpers import intensity
from helpers.lesson.show import page, panels
from helpers.lesson.show.views import PLANES, limits, view
from helpers.volume import Volume

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
LIVE_DPI = 100  # a slider that is dragged wants a picture soon


def live_front_end() -> bool:
    """Whether somebody sees this kernel's widgets, rather than a tool that stores its outputs.

    True if the kernel belongs to a session that a Jupyter server opened for a notebook (it names
    the notebook in JPY_SESSION_NAME; papermill, nbconvert and nbval start kernels of their own,
    without it), to Visual Studio Code or to Colab. COURSE_STILL=1 in the environment overrules
    that, for tools that are themselves started from a notebook.
    """
    shell = IPython.get_ipython()
    if os.environ.get("COURSE_STILL", "0") not in ("", "0") or not hasattr(shell, "kernel"):
        return False
    in_code = "__vsc_ipynb_file__" in shell.user_ns
    return in_code or "JPY_SESSION_NAME" in os.environ or "google.colab" in sys.modules


def viewer(
    volume: Volume,
    masks: Mapping | None = None,
    *,
    title: str,
    window=None,
    alt: str | None = None,
) -> None:
    """Leaf through a volume; where no one can, see its three middle planes.

    Args:
        volume: what to leaf through.
        masks: name -> mask of the volume's shape.
        title, window, alt: as for `show.images`.

    Example:
        show.viewer(scan, {"liver": organs == 1}, window="soft tissue", title="A CT volume")
    """
    low, high = limits(volume.voxels, window)
    windows = {"as given": ((low + high) / 2, high - low)} | intensity.WINDOWS
    depths = volume.in_lps_order().shape

    def draw(plane: str, position: float, window: str) -> Figure:
        at = round(position * (depths[PLANES[plane][0]] - 1))
        one = view(volume, masks or {}, windows[window], None, plane, at)
        return panels.drawn({f"{plane} {at}": one}, title, windows[window])[0]

    still = panels.planes_drawn(volume, None, title, masks, window, alt)
    leaf(still, draw, plane=list(PLANES), position=(0.0, 1.0, 0.01), window=list(windows))


def frames(
    pictures: Mapping,
    *,
    title: str,
    label: str,
    window,
    alt: str | None = None,
    **where,
) -> None:
    """Show one thing at several strengths side by side; in a live notebook, leaf through them.

    Args:
        pictures: strength -> image or `(image, {name: mask})`, in the order of the slider.
        label: what the strengths are, with their unit.
        title, window, alt: as for `show.images`; one window for all, so that what differs between
            them is what was done to them.
        where: `spacing`, `plane` and `at`, as for `show.images`.

    Example:
        show.frames({0: image, 10: turned}, label="degrees", window="bone", title="Air comes in")
    """
    views = panels.as_views(pictures, window, **where)

    def draw(strength: str) -> Figure:
        return panels.drawn({strength: views[strength]}, title, window)[0]

    still = panels.drawn(views, title, window, alt, note=f"above each picture: {label}")
    leaf(still, draw, strength=list(views))


def leaf(
    still: tuple[Figure, str],
    draw: Callable[..., Figure],
    **controls,
) -> None:
    """Show a still picture, or where somebody can use them, controls with a picture that follows.

    Args:
        still: a figure and its alternative text.
        draw: called with the value of each control by its name.
        controls: name -> choices, or ends and step of a slider, as `ipywidgets.interact` has them.
    """
    data, metadata = page.bundle(*still)
    if live_front_end():
        import ipywidgets

        def follow(**chosen) -> None:
            picture = page.drawn(draw(**chosen), "jpeg", LIVE_DPI, 90)
            IPython.display.display(IPython.display.Image(picture))

        box = ipywidgets.interactive(follow, **controls)
        box.update()
        live = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
        data = {WIDGET_MIME: live, **data}
    page.display(data, metadata)
