"""Is this computer ready for the course? Every finding that is not good says what to do.

from helpers.lesson import doctor
doctor.report()                      # in a notebook
python -m helpers doctor             # in a terminal; exit code 1 if something is missing
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "medical-imaging-input-pipelines"
INSTALL = "pip install -r requirements.txt"
OLDEST_PYTHON = (3, 11)
GIGABYTE = 1_000_000_000
NEEDED_MEMORY_BYTES = 1.5 * GIGABYTE
NEEDED_DISK_BYTES = 1.0 * GIGABYTE
PROBE_TIMEOUT_S = 180
WORTH_NAMING = ("tensorflow", "keras", "numpy", "SimpleITK", "pydicom")

# For each way to compress pixels: a small file that comes with pydicom, the file that holds the
# same picture in a form that pydicom reads by itself, how far the two may differ (baseline JPEG is
# not lossless), and the package that decodes it.
COMPRESSIONS = {
    "JPEG baseline": ("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle.dcm", 10, "pillow"),
    "JPEG lossless": ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm", 0, "python-gdcm"),
    "JPEG-LS": ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", 0, "pyjpegls"),
    "JPEG 2000": ("MR_small_jp2klossless.dcm", "MR_small.dcm", 0, "pylibjpeg-openjpeg"),
    "RLE": ("MR_small_RLE.dcm", "MR_small.dcm", 0, "pylibjpeg-rle"),
}

PROBE = """
import json, time
start = time.perf_counter()
import tensorflow as tf
seconds = time.perf_counter() - start
three = float(tf.reduce_sum(tf.constant([1.0, 2.0])))
gpus = [gpu.name for gpu in tf.config.list_physical_devices("GPU")]
built = bool(tf.test.is_built_with_cuda())
print(json.dumps({"seconds": seconds, "three": three, "gpus": gpus, "cuda": built}))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    `ok` is True, False (the course will not run), or None (it runs, but could run better). `advice`
    says what to do and is empty where all is well.
    """

    ok: bool | None
    name: str
    found: str
    advice: str = ""


def diagnose(data_dir: str | os.PathLike = "data") -> list[Finding]:
    """Look at Python, packages, decoders, TensorFlow, memory, disk and Jupyter.

    Args:
        data_dir: where the course's synthetic data will be kept; need not exist yet.

    Returns:
        One finding for each thing looked at, in the order of the report. Takes as long as one
        import of TensorFlow, which happens in a process of its own.
    """
    return [
        python_version(sys.version_info[:3]),
        *condensed(packages(installed_requirements())),
        *(decoder(name) for name in COMPRESSIONS),
        *tensorflow_health(probe_tensorflow()),
        memory(available_memory_bytes()),
        disk(Path(data_dir)),
        jupyter_kernel(),
    ]


def report(data_dir: str | os.PathLike = "data") -> bool:
    """Print the diagnosis, one line for each finding; True if nothing stops the course."""
    findings = diagnose(data_dir)
    coloured = wants_colour()
    for finding in findings:
        print(line(finding, coloured))
    wrong = sum(finding.ok is False for finding in findings)
    print("Ready." if not wrong else f"{wrong} to repair: see the lines with ✗.")
    return not wrong


def condensed(findings: list[Finding]) -> list[Finding]:
    """The good packages in one line, each bad one in its own."""
    good = [finding for finding in findings if finding.ok]
    shown = [f"{f.name} {f.found}" for f in good if f.name in WORTH_NAMING]
    summary = Finding(True, "packages", f"{len(good)} as required; {', '.join(shown)}")
    return [*([summary] if good else []), *(finding for finding in findings if not finding.ok)]


def line(finding: Finding, coloured: bool) -> str:
    """A finding as text; the sign at its front says what the colour says."""
    sign, colour = {True: ("✓", 32), False: ("✗", 31), None: ("!", 33)}[finding.ok]
    sign = f"\x1b[{colour}m{sign}\x1b[0m" if coloured else sign
    advice = f"\n    to do: {finding.advice}" if finding.advice else ""
    return f"{sign} {finding.name}: {finding.found}{advice}"


def wants_colour() -> bool:
    """Whether what is printed goes to somebody who sees colour: a terminal or a notebook."""
    ipython = sys.modules.get("IPython")
    in_notebook = ipython is not None and ipython.get_ipython() is not None
    return "NO_COLOR" not in os.environ and (in_notebook or sys.stdout.isatty())


def python_version(version: tuple[int, ...]) -> Finding:
    """Whether Python is new enough for TensorFlow and NumPy."""
    found = ".".join(map(str, version))
    if version[:2] >= OLDEST_PYTHON:
        return Finding(True, "Python", found)
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Finding(False, "Python", found, f"install Python {oldest} or newer, then: make lab")


def installed_requirements() -> list[str]:
    """What the installed course says it needs; empty where it is not installed."""
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []


def packages(
    requirements: Iterable[str], version_of: Callable[[str], str] = metadata.version
) -> list[Finding]:
    """One finding for each package the course needs on this system.

    Args:
        requirements: lines as packages state them, e.g. `numpy>=2.0`; those of extras are left out.
        version_of: name to installed version; raises `PackageNotFoundError`.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        where = "the course is not installed in this Python"
        return [Finding(False, "packages", where, f"{INSTALL}, or use .venv/bin/python")]

    findings = []
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = str(requirement.specifier)
        try:
            version = version_of(requirement.name)
        except metadata.PackageNotFoundError:
            findings.append(Finding(False, requirement.name, f"missing, wanted {wanted}", INSTALL))
            continue
        good = requirement.specifier.contains(version, prereleases=True)
        found = version if good else f"{version}, wanted {wanted}"
        findings.append(Finding(good, requirement.name, found, "" if good else INSTALL))
    return findings or [Finding(False, "course", "the course's package is not installed", INSTALL)]


def decoder(name: str) -> Finding:
    """Whether one kind of compressed DICOM file is decoded, and decoded to the right picture.

    Compares a small compressed file from pydicom's own test data with its twin.
    """
    compressed, plain, tolerance, package = COMPRESSIONS[name]
    label, advice = f"decoder for {name}", f"pip install {package}"
    try:
        import numpy as np
        import pydicom
        from pydicom.data import get_testdata_file

        with warnings.catch_warnings():
            # Some of these small files are odd on purpose; that is not what is asked here.
            warnings.simplefilter("ignore")
            decoded, expected = (
                pydicom.dcmread(get_testdata_file(file, download=False)).pixel_array.astype(int)
                for file in (compressed, plain)
            )
        difference = int(np.abs(decoded - expected).max())
    except Exception as error:
        # Whatever is wrong with the installation, the report goes on and says it.
        return Finding(False, label, f"{type(error).__name__}: {str(error)[:80]}", advice)
    if difference > tolerance:
        return Finding(False, label, f"wrong by up to {difference} grey levels", advice)
    return Finding(True, label, "a compressed file gives the right picture")


def probe_tensorflow() -> dict:
    """Import TensorFlow in a process of its own and ask it for a sum and its GPUs.

    A broken installation can end a process; this one goes on. Returns what the probe printed, or
    `{"error": text}`.
    """
    try:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PROBE_TIMEOUT_S} s"}
    if probe.returncode == 0:
        return json.loads(probe.stdout.splitlines()[-1])
    if probe.returncode < 0:
        return {"error": f"the process was ended by signal {-probe.returncode}"}
    return {"error": (probe.stderr.strip().splitlines() or ["no message"])[-1][:200]}


def tensorflow_health(probe: Mapping) -> list[Finding]:
    """Judge what `probe_tensorflow` saw: does TensorFlow compute, does it start fast, on what."""
    if "error" in probe or probe["three"] != 3.0:
        advice = f"pip install --force-reinstall tensorflow (processor: {platform.machine()})"
        found = probe.get("error", "1 + 2 is not 3")
        return [Finding(False, "TensorFlow starts", found, advice)]
    seconds = f"in {probe['seconds']:.0f} s"
    found = [Finding(True, "TensorFlow starts", seconds)]
    spec = importlib.util.find_spec("tensorflow")
    if spec and not Path(importlib.util.cache_from_source(spec.origin)).exists():
        advice = "unset PYTHONDONTWRITEBYTECODE and run this once more"
        slow = f"{seconds}; its modules are compiled anew at each start"
        found = [Finding(None, "TensorFlow starts", slow, advice)]
    if probe["gpus"]:
        return [*found, Finding(True, "GPU", f"{len(probe['gpus'])}, used without any edit")]
    if shutil.which("nvidia-smi"):
        advice = (
            'pip install "tensorflow[and-cuda]"'
            if sys.platform == "linux"
            else "run the course in WSL2: TensorFlow reaches a GPU only in Linux"
        )
        return [*found, Finding(None, "GPU", "there is one, TensorFlow does not see it", advice)]
    return [*found, Finding(True, "GPU", "none; the course is made for a processor alone")]


def available_memory_bytes() -> int:
    """Memory that can still be used: the system's, or a container's limit where that is lower."""
    import psutil

    available = psutil.virtual_memory().available
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        file = Path("/sys/fs/cgroup") / limit
        text = file.read_text().strip() if file.is_file() else ""
        if text.isdigit():
            available = min(available, int(text))
    return available


def memory(available_bytes: float) -> Finding:
    """Whether the largest notebook fits."""
    needed = f"{NEEDED_MEMORY_BYTES / GIGABYTE:.1f} GB"
    if available_bytes >= NEEDED_MEMORY_BYTES:
        # How much more changes from minute to minute; a committed report should not.
        return Finding(True, "memory", f"the {needed} needed are free")
    found = f"{available_bytes / GIGABYTE:.1f} GB free"
    return Finding(
        False, "memory", f"{found}, {needed} needed", "shut down other kernels and programs"
    )


def disk(data_dir: Path, free_bytes: float | None = None) -> Finding:
    """Whether the synthetic data can be written to `data_dir`, and fits."""
    folder = data_dir.absolute()
    while not folder.is_dir():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = "choose another folder: DATA_DIR at the top of each notebook"
        return Finding(False, "data folder", f"cannot be written: {error.strerror}", advice)
    free = shutil.disk_usage(folder).free if free_bytes is None else free_bytes
    needed = f"{NEEDED_DISK_BYTES / GIGABYTE:.1f} GB"
    if free >= NEEDED_DISK_BYTES:
        return Finding(True, "data folder", f"writable, and the {needed} needed are free")
    found = f"writable, {free / GIGABYTE:.1f} GB free"
    return Finding(False, "data folder", f"{found}, {needed} needed", "make room on this disk")


def jupyter_kernel() -> Finding:
    """Whether Jupyter's `python3` kernel is this Python, with these packages."""
    advice = "python -m ipykernel install --sys-prefix"
    try:
        from jupyter_client.kernelspec import KernelSpecManager

        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except Exception as error:
        # No Jupyter, no kernel of that name, or one that cannot be read: the cure is the same.
        return Finding(False, "Jupyter kernel", f"none ({type(error).__name__})", advice)
    # A bare name stands for the Python that runs Jupyter.
    if Path(command).name == command or Path(command).absolute() == Path(sys.executable).absolute():
        return Finding(True, "Jupyter kernel", "python3, with this Python")
    return Finding(None, "Jupyter kernel", "python3 belongs to another Python", advice)
