"""What a lesson is about fits on a screen, and reads without the rest of its module."""

import ast
import importlib
import inspect
import types

import pytest

from helpers.lesson import show
from tests.drawn_figures import outputs

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.usefixtures("shell")

MOST_LINES = 30
# In the order of the journey; those of one line stand together.
SHOWN = """
    volume.Volume.resample_like
    augment.warp.fused
    augment.warp.half augment.warp.from_centre augment.warp.b_spline augment.warp.upsample
    augment.warp.sizes augment.warp.coordinates augment.warp.resample
    crops.starts.starts crops.starts.group_ranges crops.starts.drawn_places
    crops.copies.copied smart_cache.SmartCache.swap
    sampling.class_weights sampling.systematic
    deeplab.encoders.stride_to_rate
    deeplab.network.normalised deeplab.network.pointwise deeplab.network.separable
    deeplab.network.aspp deeplab.masked_loss
    evaluation.checked evaluation.grouped evaluation.bootstrap
    predict.windows_along predict.window_weights predict.sliding_window
"""


def found(name: str):
    package, *rest = name.split(".")
    *modules, last = rest
    if modules and modules[-1][0].isupper():
        owner = getattr(importlib.import_module(f"helpers.{package}"), modules[-1])
    else:
        owner = importlib.import_module(".".join(["helpers", package, *modules]))
    return getattr(owner, last)


def strangers(thing, code: str) -> set[str]:
    """Functions of the package that the code calls and that are not shown themselves."""
    known = inspect.unwrap(thing).__globals__
    calls = [one.func for one in ast.walk(ast.parse(code)) if isinstance(one, ast.Call)]
    names = {one.id for one in calls if isinstance(one, ast.Name)}
    functions = [known[one] for one in names if isinstance(known.get(one), types.FunctionType)]
    ours = {one.__name__ for one in functions if one.__module__.startswith("helpers.")}
    shown = {name.split(".")[-1] for name in SHOWN.split()}
    return ours - shown - {"need", "listed", "_by"}  # which raise, and word


@pytest.mark.parametrize("name", SHOWN.split())
def test_what_a_lesson_shows_fits_on_a_screen_and_reads_by_itself(name):
    (code,) = (one.data["text/plain"] for one in outputs(show.source, found(name)))
    assert len(code.splitlines()) <= MOST_LINES
    assert strangers(found(name), code) == set()
