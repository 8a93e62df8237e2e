"""The doctor says what is wrong and what to do, and is right about it."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from helpers import __main__ as command_line
from helpers.lesson import doctor

GOOD_PROBE = {"seconds": 3.2, "three": 3.0, "gpus": [], "cuda": False}


def installed(versions):
    def version_of(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    return version_of


@pytest.mark.parametrize(
    ("version", "ok"),
    [((3, 11, 0), True), ((3, 14, 1), True), ((3, 10, 19), False), ((2, 7), False)],
)
def test_python_is_new_enough_from_3_11_on(version, ok):
    finding = doctor.python_version(version)
    assert finding.ok is ok
    assert bool(finding.advice) is not ok


def test_a_package_is_good_missing_or_of_the_wrong_version():
    found = doctor.packages(
        ["good>=1.0", "old>=2.0,<3", "absent>=1"], installed({"good": "1.5", "old": "1.9"})
    )
    assert [(f.name, f.ok) for f in found] == [("good", True), ("old", False), ("absent", False)]
    assert "1.9" in found[1].found and "2.0" in found[1].found
    assert found[0].advice == "" and all("requirements.txt" in f.advice for f in found[1:])


def test_a_release_candidate_counts_by_its_number():
    assert doctor.packages(["a>=1.0"], installed({"a": "1.1rc1"}))[0].ok
    assert not doctor.packages(["a>=1.1"], installed({"a": "1.1rc1"}))[0].ok


def test_packages_of_extras_and_of_other_systems_are_not_asked_for():
    requirements = ["a>=1", 'tool>=1; extra == "test"', 'b>=1; sys_platform == "no-such-system"']
    assert [f.name for f in doctor.packages(requirements, installed({"a": "1"}))] == ["a"]


def test_a_course_that_is_not_installed_is_one_red_line():
    (finding,) = doctor.packages([], installed({}))
    assert finding.ok is False and "requirements.txt" in finding.advice


def test_the_requirements_are_those_of_the_installed_course():
    names = {finding.name for finding in doctor.packages(doctor.installed_requirements())}
    assert {"tensorflow", "pydicom", "SimpleITK", "pylibjpeg-rle"} <= names
    assert "pytest" not in names


@pytest.mark.parametrize("name", doctor.COMPRESSIONS)
def test_every_compression_of_the_course_is_decoded_here(name):
    assert doctor.decoder(name).ok


def test_a_decoder_that_gives_another_picture_is_red(monkeypatch):
    monkeypatch.setitem(
        doctor.COMPRESSIONS, "RLE", ("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle.dcm", 0, "a-package")
    )
    finding = doctor.decoder("RLE")
    assert finding.ok is False and "grey levels" in finding.found and "a-package" in finding.advice


def test_without_a_decoder_the_line_is_red_and_names_the_package(monkeypatch):
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGLSLossless

    monkeypatch.setattr(get_decoder(JPEGLSLossless), "_available", {})
    finding = doctor.decoder("JPEG-LS")
    assert finding.ok is False and "pyjpegls" in finding.advice


def test_tensorflow_computes_here_and_is_asked_in_another_process():
    found = doctor.tensorflow_health(doctor.probe_tensorflow())
    assert all(finding.ok is not False for finding in found)
    code = "import sys; from helpers.lesson import doctor; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "code, said, seconds",
    [
        ("raise ImportError('no such library')", "no such library", 300),
        ("import os; os.abort()", "signal" if sys.platform != "win32" else "", 300),
        ("import time; time.sleep(600)", "no answer", 1),
    ],
)
def test_a_tensorflow_that_does_not_start_is_one_red_line(code, said, seconds, monkeypatch):
    monkeypatch.setattr(doctor, "PROBE", code)
    monkeypatch.setattr(doctor, "PROBE_TIMEOUT_S", seconds)
    (finding,) = doctor.tensorflow_health(doctor.probe_tensorflow())
    assert finding.ok is False and said in finding.found and "tensorflow" in finding.advice


def test_no_gpu_is_no_fault():
    gpu = doctor.tensorflow_health(GOOD_PROBE | {"gpus": ["/physical_device:GPU:0"]})[-1]
    assert gpu.ok and "1" in gpu.found


@pytest.mark.parametrize(("driver", "ok"), [(None, True), ("/usr/bin/nvidia-smi", None)])
def test_a_gpu_that_tensorflow_does_not_see_is_pointed_out(driver, ok, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: driver)
    gpu = doctor.tensorflow_health(GOOD_PROBE)[-1]
    assert gpu.name == "GPU" and gpu.ok is ok and bool(gpu.advice) is (ok is None)


def test_modules_that_are_compiled_at_each_start_are_pointed_out(monkeypatch, tmp_path):
    monkeypatch.setattr(
        doctor.importlib.util, "cache_from_source", lambda path: str(tmp_path / "absent.pyc")
    )
    start = doctor.tensorflow_health(GOOD_PROBE)[0]
    assert start.ok is None and "PYTHONDONTWRITEBYTECODE" in start.advice


@pytest.mark.parametrize(("available", "ok"), [(1.5e9, True), (1.49e9, False)])
def test_memory_is_enough_from_one_and_a_half_gigabytes_on(available, ok):
    finding = doctor.memory(available)
    assert finding.ok is ok and bool(finding.advice) is not ok


def test_a_container_s_limit_counts_where_it_is_lower_than_the_system_s_memory(monkeypatch):
    files = {"memory.max": "1000000\n"}
    monkeypatch.setattr(doctor.Path, "is_file", lambda self: self.name in files)
    monkeypatch.setattr(doctor.Path, "read_text", lambda self: files[self.name])
    assert doctor.available_memory_bytes() == 1_000_000
    files["memory.max"] = "max\n"
    assert doctor.available_memory_bytes() > 1_000_000


@pytest.mark.parametrize(("free", "ok"), [(1e9, True), (0.99e9, False)])
def test_a_gigabyte_of_disk_is_enough_and_the_folder_need_not_exist(free, ok, tmp_path):
    folder = tmp_path / "not" / "yet"
    assert doctor.disk(folder, free).ok is ok
    assert not folder.exists() and list(tmp_path.iterdir()) == []


def test_a_data_folder_that_cannot_be_written_is_red(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    finding = doctor.disk(tmp_path)
    assert finding.ok is False and "Permission denied" in finding.found


def test_a_kernel_of_another_python_is_pointed_out(monkeypatch, tmp_path):
    from jupyter_client import kernelspec

    def with_command(command):
        spec = kernelspec.KernelSpec(argv=[command])
        monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", lambda *_: spec)
        return doctor.jupyter_kernel().ok

    assert with_command("python") is True
    assert with_command(sys.executable) is True
    assert with_command(str(tmp_path / "python")) is None


def test_no_kernel_at_all_is_red(monkeypatch):
    from jupyter_client import kernelspec

    def none(self, name):
        raise kernelspec.NoSuchKernel(name)

    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", none)
    finding = doctor.jupyter_kernel()
    assert finding.ok is False and "ipykernel" in finding.advice


@pytest.mark.parametrize(("ok", "sign"), [(True, "✓"), (False, "✗"), (None, "!")])
def test_a_line_says_with_its_sign_what_its_colour_says(ok, sign):
    finding = doctor.Finding(ok, "disk", "full", "make room")
    assert doctor.line(finding, coloured=False) == f"{sign} disk: full\n    to do: make room"
    coloured = doctor.line(finding, coloured=True)
    assert sign in coloured and "\x1b[" in coloured


def test_the_exit_code_is_one_exactly_if_something_is_red(monkeypatch, capsys):
    good, middling, bad = (doctor.Finding(ok, "a", "b") for ok in (True, None, False))
    for findings, code in [([good], 0), ([good, middling], 0), ([good, bad, middling], 1)]:
        monkeypatch.setattr(doctor, "diagnose", lambda data_dir, found=findings: found)
        assert command_line.main(["doctor"]) == code
        printed = capsys.readouterr().out
        assert ("Ready." in printed) is (code == 0)
        assert "\x1b" not in printed


def test_this_computer_is_ready_and_the_report_holds_no_path(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "helpers", "doctor", "--data-dir", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert str(tmp_path) not in done.stdout and str(Path.home()) not in done.stdout


def test_good_packages_share_a_line_and_each_bad_one_has_its_own():
    found = doctor.packages(["numpy>=2", "b>=1", "c>=1"], installed({"numpy": "2.1", "b": "0.5"}))
    first, *others = doctor.condensed(found)
    assert first.ok and first.found == "1 as required; numpy 2.1"
    assert [finding.name for finding in others] == ["b", "c"]
    assert not any(finding.ok for finding in others)
