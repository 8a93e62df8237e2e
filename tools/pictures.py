"""The pictures that README shows, taken out of the executed notebooks: `make pictures`."""

import base64
from pathlib import Path

from tools.cells import NOTEBOOKS, ROOT, NotebookError, read, show

FOLDER = ROOT / "docs" / "images"

# File name -> notebook, and the title with which the picture's alternative text begins.
PICTURES = {
    "first_volume.jpg": ("00_start_here", "A CT volume: three planes of one array"),
    "slice_order.png": ("01_loading_dicom", "Only the position puts the spine together"),
    "flipped_slices.png": ("02_augmentation", "A trunk from the front. Before: liver"),
    "fed_network.png": ("04_tuning_the_pipeline", "The same four steps, before and after"),
    "treatments.png": ("05_imbalanced_classification", "'Nothing' fails, but not if it starts"),
}


def picture(name: str, title: str, notebooks: Path = NOTEBOOKS) -> bytes:
    """The one picture in a notebook whose alternative text begins with `title`.

    Raises NotebookError where there is none, or more than one.
    """
    found = [
        data
        for cell in read(notebooks / f"{name}.ipynb").cells
        for output in cell.get("outputs", [])
        for kind, data in output.get("data", {}).items()
        if output.metadata.get(kind, {}).get("alt", "").startswith(title)
    ]
    if len(found) != 1:
        raise NotebookError(f"{name} has {len(found)} pictures entitled {title!r}, wanted one")
    return base64.b64decode(found[0])


def write_pictures() -> None:
    """Write every picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, (name, title) in PICTURES.items():
        (FOLDER / file).write_bytes(picture(name, title))
        print(f"{name} -> {show(FOLDER / file)}")
