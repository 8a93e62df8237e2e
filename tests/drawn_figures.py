"""What figures look like to a notebook and to a reader, for the tests of all of them."""

from collections.abc import Callable, Iterable

from IPython.utils.capture import capture_output
from matplotlib.figure import Figure
from matplotlib.text import Text


def assert_readable(fig: Figure, texts: Iterable[Text]) -> None:
    """Fail with the first text that leaves the figure, or the first two that overlap.

    Args:
        fig: drawn already, so that sizes are known.
        texts: of the figure; empty ones do not count.
    """
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    for position, (text, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1, text
        for other, other_box in boxes[position + 1 :]:
            assert not box.overlaps(other_box), (text, other)


def outputs(function: Callable, *args, **kwargs) -> list:
    """What a call shows in a notebook; it returns and prints nothing."""
    with capture_output() as captured:
        assert function(*args, **kwargs) is None
    assert captured.stdout == captured.stderr == ""
    return captured.outputs
