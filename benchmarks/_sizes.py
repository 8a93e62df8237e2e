"""How much the records benchmark measures, and where its output goes."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

MEMORY_DISK = Path("/dev/shm")  # a file system without a disk, on Linux


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured; `QUICK` ends within a minute and is too small to quote."""

    volumes: int = 32
    volume_shape: tuple[int, int, int] = (64, 256, 256)
    series: int = 12
    slices: int = 100
    pixels: int = 512
    few: int = 50
    many: int = 500
    small_slices: int = 8
    small_pixels: int = 256
    repeats: int = 5
    is_quick: bool = False


QUICK = Sizes(
    volumes=8, series=4, slices=12, pixels=256, few=5, many=25, small_slices=4, small_pixels=64,
    repeats=2, is_quick=True,
)  # fmt: skip


@contextlib.contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A folder for output that is removed afterwards."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark_output_", dir=place) as folder:
        yield Path(folder)


def places(data_dir: Path, megabytes: float, sizes: Sizes) -> dict[str, Path]:
    """Where output goes: the disk and, unless it has to be quick, memory if there is room.

    In memory it is the code that is measured; on the disk, its flushing as well.
    """
    found = {"disk": data_dir}
    with contextlib.suppress(OSError):
        if not sizes.is_quick and shutil.disk_usage(MEMORY_DISK).free > 4e6 * megabytes:
            found["memory"] = MEMORY_DISK
    return found
