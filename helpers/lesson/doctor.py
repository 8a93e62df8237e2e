"""Is this computer ready for the course? Every finding that is not good says what to do.

from helpers.lesson import doctor
doctor.report()                      # in a notebook
python -m helpers doctor             # in a terminal; exit code 1 if something is missing
"""

import shutil
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from importlib import metadata
from pathlib import Path

COURSE = "medical-imaging-input-pipelines"

# Ways to compress pixels, and the package that decodes them: a small file that comes with pydicom,
# the file that holds the same picture in a form that pydicom reads by itself, and how far the two
# may differ (baseline JPEG is not lossless).
COMPRESSIONS = {
    "JPEG baseline, by pillow": ("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle.dcm", 10),
    "JPEG lossless, by python-gdcm": ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm", 0),
    "JPEG-LS, by pyjpegls": ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", 0),
    "JPEG 2000, by pylibjpeg-openjpeg": ("MR_small_jp2klossless.dcm", "MR_small.dcm", 0),
    "RLE, by pylibjpeg-rle": ("MR_small_RLE.dcm", "MR_small.dcm", 0),
}
PROBE = """
import tensorflow as tf
assert float(tf.reduce_sum([1.0, 2.0])) == 3, "1 + 2 is not 3"
print(len(tf.config.list_physical_devices("GPU")))
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    """This Python in a process of its own, which a broken installation may end."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def packages() -> tuple[bool, str]:
    """Whether pip finds all that the course asks for, in versions that will do."""
    metadata.version(COURSE)  # raises where the course is not installed
    found = python("-m", "pip", "check").stdout.splitlines()
    wrong = [line for line in found if line.startswith(COURSE)]
    return not wrong, "; ".join(
        wrong
    ) or f"as required; TensorFlow {metadata.version('tensorflow')}"


def decoder(compressed: str, plain: str, tolerance: int) -> tuple[bool, str]:
    """Whether a compressed file of pydicom's own test data gives the picture of its twin."""
    import pydicom.data

    paths = [pydicom.data.get_testdata_file(one, download=False) for one in (compressed, plain)]
    with warnings.catch_warnings(action="ignore"):  # some of these files are odd on purpose
        one, other = (pydicom.dcmread(path).pixel_array.astype(int) for path in paths)
    difference = abs(one - other).max()
    return bool(difference <= tolerance), f"grey levels differ by at most {difference}"


def tensorflow() -> tuple[bool | None, str]:
    """Whether TensorFlow starts and computes, and on what."""
    done = python("-c", PROBE)
    if done.returncode:
        return False, (done.stderr.splitlines() or [f"ended with {done.returncode}"])[-1][:200]
    number = done.stdout.split()[-1]
    unseen = number == "0" and shutil.which("nvidia-smi")
    return None if unseen else True, f"starts; {number} GPUs" + " seen, but one is there" * bool(
        unseen
    )


def memory() -> tuple[bool, str]:
    """Whether the largest notebook fits: the system's memory, or a container's if it is less."""
    import psutil

    files = [Path("/sys/fs/cgroup", n) for n in ("memory.max", "memory/memory.limit_in_bytes")]
    limits = [file.read_text().strip() for file in files if file.is_file()]
    known = [int(limit) for limit in limits if limit.isdigit()]
    return enough(min([psutil.virtual_memory().available, *known]), 2.5)


def disk(data_dir: str | Path) -> tuple[bool, str]:
    """Whether the synthetic data can be written to a folder, there or not yet, and fits."""
    folder = Path(data_dir).absolute()
    folder = next(one for one in (folder, *folder.parents) if one.is_dir())
    with tempfile.TemporaryFile(dir=folder):  # raises where nothing can be written
        return enough(shutil.disk_usage(folder).free, 1.0)


def enough(free: float, needed_gb: float) -> tuple[bool, str]:
    """Whether so many bytes will do; how much more there is, changes, and is not said."""
    missing = "" if free >= needed_gb * 1e9 else f"only {free / 1e9:.2f} GB are free; "
    return not missing, f"{missing}{needed_gb} GB needed"


def report(data_dir: str | Path = "data") -> bool:
    """Print a line for each thing looked at; True if nothing stops the course.

    Args:
        data_dir: where the course's synthetic data will be kept; need not exist yet.
    """
    install = "pip install -r requirements.txt, or use .venv/bin/python"
    gpu = 'pip install tensorflow; for a GPU, on Linux or in WSL2, "tensorflow[and-cuda]"'
    version = ".".join(map(str, sys.version_info[:3]))
    checks = {
        "Python": (lambda: (sys.version_info >= (3, 11), version), "install 3.11 or newer"),
        "packages": (packages, install),
        **{kind: (partial(decoder, *files), install) for kind, files in COMPRESSIONS.items()},
        "TensorFlow": (tensorflow, gpu),
        "memory": (memory, "shut down other kernels and programs"),
        "data folder": (partial(disk, data_dir), "make room, or choose another DATA_DIR"),
    }
    ready = True
    for name, (look, advice) in checks.items():
        try:
            good, found = look()
        except Exception as error:  # whatever is wrong with the installation, the report goes on
            good, found = False, f"{type(error).__name__}: {str(error)[:200]}"
        sign = {None: "!", True: "✓", False: "✗"}[good]
        print(f"{sign} {name}: {found}" + ("" if good else f"\n    to do: {advice}"))
        ready = ready and sign != "✗"
    print("Ready." if ready else "To repair: see the lines with ✗.")
    return ready
