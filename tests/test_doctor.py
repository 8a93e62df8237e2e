"""The doctor says what is wrong and what to do, and is right about it."""

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from helpers import __main__ as command_line
from helpers.lesson import doctor


def replies(code=0, out="", err=""):
    """A process in place of those that the doctor starts."""
    return lambda *_, **__: SimpleNamespace(returncode=code, stdout=out, stderr=err)


def refuse(dir):
    raise PermissionError(13, "Permission denied")


def holds(available):
    return lambda: SimpleNamespace(available=available)


WRONG = f"{doctor.COURSE} 0.1.0 has requirement numpy>=2.0, but you have numpy 1.9."
OTHER = ("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle.dcm", 0)
RUN, FREE = (doctor.subprocess, "run"), namedtuple("usage", "free")


@pytest.mark.parametrize(
    "where, name, fake, look, good, said",
    [
        (doctor.sys, "version_info", (3, 10, 19), None, False, "install 3.11"),
        (
            *RUN,
            replies(out="x 1 requires y, which is not installed."),
            "packages",
            True,
            "as required",
        ),
        (*RUN, replies(1, out=WRONG), "packages", False, "numpy>=2.0, but you have numpy 1.9"),
        (doctor, "COURSE", "no-such-course", None, False, "requirements.txt"),
        (*RUN, replies(-6), "tensorflow", False, "ended with -6"),
        (*RUN, replies(1, err="x\nImportError: no such library"), "tensorflow", False, "no such"),
        (*RUN, replies(out="log\n1\n"), "tensorflow", True, "1 GPUs"),
        (
            doctor.shutil,
            "which",
            lambda _: "/bin/nvidia-smi",
            "tensorflow",
            None,
            "but one is there",
        ),
        (psutil, "virtual_memory", holds(2.49e9), "memory", False, "only 2.49 GB are free; 2.5"),
        (doctor.shutil, "disk_usage", lambda _: FREE(0.9e9), "disk", False, "only 0.90 GB"),
        (doctor.shutil, "disk_usage", lambda _: FREE(1e9), "disk", True, "1.0 GB needed"),
        (doctor.tempfile, "TemporaryFile", refuse, None, False, "PermissionError"),
        (doctor, "COMPRESSIONS", {"RLE, by x": OTHER}, None, False, "RLE, by x: grey levels"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(
    where, name, fake, look, good, said, monkeypatch, tmp_path, capsys
):
    if look == "tensorflow" and where is not doctor.subprocess:
        monkeypatch.setattr(*RUN, replies(out="0\n"))
    monkeypatch.setattr(where, name, fake)
    if look:
        folder = tmp_path / "not" / "yet"
        found = doctor.disk(folder) if look == "disk" else getattr(doctor, look)()
        assert found[0] is good and said in found[1] and not folder.exists()
    else:
        monkeypatch.setattr(doctor, "tensorflow", lambda: (None, "slow"))
        assert doctor.report(tmp_path) is good
        *lines, last = capsys.readouterr().out.splitlines()
        red = next(k for k, line in enumerate(lines) if line.startswith("✗"))
        assert "    to do: " in lines[red + 1] and said in "".join(lines[red : red + 2])
        assert "! TensorFlow: slow" in lines and last == "To repair: see the lines with ✗."


def test_what_could_be_better_stops_nobody(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "tensorflow", lambda: (None, "slow"))
    assert doctor.report(tmp_path)


def test_without_a_decoder_its_line_is_red_and_names_the_package(monkeypatch):
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGLSLossless

    monkeypatch.setattr(get_decoder(JPEGLSLossless), "_available", {})
    with pytest.raises(RuntimeError):
        doctor.decoder(*doctor.COMPRESSIONS["JPEG-LS, by pyjpegls"])


def test_a_container_s_limit_counts_where_it_is_lower_than_the_system_s_memory(monkeypatch):
    monkeypatch.setattr(doctor.Path, "is_file", lambda self: self.name == "memory.max")
    monkeypatch.setattr(doctor.Path, "read_text", lambda self: "1000000\n")
    assert doctor.memory() == (False, "only 0.00 GB are free; 2.5 GB needed")


def test_this_computer_is_ready_and_the_report_holds_no_path(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "helpers", "doctor", "--data-dir", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "") and "Ready." in done.stdout
    assert all(f"✓ {kind}: " in done.stdout for kind in doctor.COMPRESSIONS)
    assert str(tmp_path) not in done.stdout and str(Path.home()) not in done.stdout


@pytest.mark.parametrize("ready", [True, False])
def test_the_exit_code_is_one_exactly_if_something_is_red(ready, monkeypatch):
    monkeypatch.setattr(doctor, "report", lambda data_dir: ready)
    assert command_line.main(["doctor"]) == (0 if ready else 1)
