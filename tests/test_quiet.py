"""TensorFlow's greeting stays off the page; an error never does."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GREETING = """
import functools, os
os.write(2, b"a greeting about processors\\n")
class config:
    list_physical_devices = functools.cache(lambda: os.write(2, b"no driver found"))
"""
FAILURE = "import os\nos.write(2, b'libcuda says why')\nraise ImportError('a library is missing')"
LEVEL = "os.environ['TF_CPP_MIN_LOG_LEVEL']"
PROGRAMS = [  # what TensorFlow's import does, a program, what it leaves on stderr
    (GREETING, "import tensorflow", "a greeting about processors\n"),
    (GREETING, "import helpers, tensorflow as tf; tf.config.list_physical_devices()", ""),
    (GREETING, "import helpers; from helpers import quiet; import tensorflow", ""),
    (
        GREETING,
        "import helpers, importlib.util as u; u.find_spec('tensorflow')\nimport tensorflow",
        "",
    ),
    (GREETING, "import helpers, tensorflow, os; os.write(2, b'later')", "later"),
    (GREETING, f"import os; {LEVEL} = '0'; import helpers; os.write(2, {LEVEL}.encode())", "0"),
    (FAILURE, "import helpers, tensorflow", "libcuda says why"),
    (FAILURE, "import helpers; sys.path = [sys.path[1]]; import tensorflow", "No module named"),
]


def run(code: str, *path: Path) -> subprocess.CompletedProcess:
    """`code` in a fresh interpreter whose import path begins with `path`."""
    start = f"import sys; sys.path[:0] = {[str(p) for p in (*path, ROOT)]!r}\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)


@pytest.mark.parametrize("package, program, told", PROGRAMS)
def test_only_the_first_import_is_silent_and_a_failing_one_is_not(tmp_path, package, program, told):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(package)
    done = run(program, tmp_path)
    assert done.stderr == told if package == GREETING else told in done.stderr
    assert (done.returncode == 0) == (package == GREETING)


def test_the_real_import_is_silent_and_autograph_tells_no_secret(tmp_path):
    (tmp_path / "program.py").write_text(  # a file: AutoGraph converts only what it can read
        "import os; os.environ['A_SECRET'] = 'keep this'\n"
        "from helpers import quiet\n"
        "import tensorflow as tf\n"
        "tf.config.list_physical_devices('GPU')\n"
        "def stage(x):\n    quiet.tensorflow_greeting()\n    return x + 1\n"
        f"print(*tf.data.Dataset.range(2).map(stage).as_numpy_iterator(), {LEVEL})\n"
    )
    done = run("import program", tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "2", "1"])
    assert "keep this" not in done.stderr and "Unable to register" not in done.stderr


def test_the_ground_floor_comes_without_tensorflow():
    floor = "errors volume intensity dicom nifti pictures lists splits leaks cases records commands"
    lesson = "lesson.phantoms lesson.show"
    done = run(
        f"import importlib, sys\nfor name in '{floor} __main__ {lesson}'.split():\n"
        "    importlib.import_module('helpers.' + name)\n"
        "    assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules), name\n"
    )
    assert done.returncode == 0, done.stderr
