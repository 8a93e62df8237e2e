"""TensorFlow's greeting stays off the page; an error never does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.quiet import native_stderr_held

ROOT = Path(__file__).parents[1]


def run(code: str, *path: Path) -> subprocess.CompletedProcess:
    """`code` in a fresh interpreter whose import path begins with `path`."""
    start = f"import sys; sys.path[:0] = {[str(p) for p in (*path, ROOT)]!r}\n"
    return subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, timeout=300
    )


def pretend_tensorflow(folder: Path, body: str) -> Path:
    """A package of that name whose import writes to file descriptor 2, as C++ code does."""
    package = folder / "tensorflow"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text("import os\n" + body)
    return folder


QUIETLY = "from helpers import quiet; quiet.tensorflow_greeting(); import tensorflow"
CHATTY = """
os.write(2, b"a greeting about processors\\n")
class config:
    @staticmethod
    def list_physical_devices():
        os.write(2, b"no driver found\\n")
        return []
"""
BROKEN = """
os.write(2, b"libcuda says why\\n")
raise ImportError("a library is missing")
"""


def test_the_real_import_and_the_first_look_for_a_gpu_are_silent():
    done = run(
        "from helpers import quiet\n"
        "quiet.tensorflow_greeting(); quiet.tensorflow_greeting()\n"
        "import tensorflow as tf\n"
        "tf.config.list_physical_devices('GPU')\n"
        "print(int(tf.reduce_sum(tf.ones([2, 3]))), tf.__spec__.loader is tf.__loader__)\n"
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.split() == ["6", "True"]


def test_what_is_written_during_the_import_is_held_back(tmp_path):
    folder = pretend_tensorflow(tmp_path, CHATTY)
    loud = run("import tensorflow", folder)
    assert loud.stderr == "a greeting about processors\n"
    silent = run(
        "from helpers import quiet; quiet.tensorflow_greeting(); import tensorflow", folder
    )
    assert (silent.returncode, silent.stderr) == (0, "")


def test_asking_whether_it_is_installed_does_not_use_the_silence_up(tmp_path):
    done = run(
        "from helpers import quiet; quiet.tensorflow_greeting()\n"
        "import importlib.util; assert importlib.util.find_spec('tensorflow')\n"
        "import tensorflow",
        pretend_tensorflow(tmp_path, CHATTY),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_comes_after_the_import_is_shown(tmp_path):
    done = run(
        "from helpers import quiet; quiet.tensorflow_greeting(); import tensorflow, os\n"
        "os.write(2, b'a later warning')",
        pretend_tensorflow(tmp_path, CHATTY),
    )
    assert done.stderr == "a later warning"


def test_a_failing_import_shows_what_was_held_back(tmp_path):
    done = run(
        "from helpers import quiet; quiet.tensorflow_greeting(); import tensorflow",
        pretend_tensorflow(tmp_path, BROKEN),
    )
    assert done.returncode == 1
    assert "libcuda says why" in done.stderr
    assert "ImportError: a library is missing" in done.stderr


def test_a_missing_tensorflow_is_the_usual_import_error():
    done = run(
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]\n"
        "from helpers import quiet; quiet.tensorflow_greeting()\n"
        "try:\n    import tensorflow\n"
        "except ModuleNotFoundError as error:\n    print(error.name)\n"
    )
    assert done.stdout.strip() == "tensorflow"


def test_an_imported_tensorflow_is_left_alone():
    done = run(
        "import types; sys.modules['tensorflow'] = types.ModuleType('tensorflow')\n"
        "before = list(sys.meta_path)\n"
        "from helpers import quiet; quiet.tensorflow_greeting()\n"
        "print(before == sys.meta_path)"
    )
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(("given", "level"), [(None, "1"), ("0", "0"), ("3", "3")])
def test_a_log_level_that_somebody_set_is_kept(given, level, monkeypatch):
    if given is None:
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    else:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", given)
    done = run(
        "from helpers import quiet; quiet.tensorflow_greeting()\n"
        "import os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    )
    assert done.stdout.strip() == level


def test_held_text_is_dropped_on_success_and_printed_after_an_error(capfd):
    with native_stderr_held():
        os.write(2, b"greeting")
    assert capfd.readouterr().err == ""

    def fail():
        with native_stderr_held():
            os.write(2, b"the reason")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert capfd.readouterr().err == "the reason"
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"


def test_only_steps_of_a_dataset_import_tensorflow():
    # Their functions are TensorFlow from end to end; all else is used without it as well.
    done = run(
        "import importlib, pkgutil, helpers\n"
        "steps = ('helpers.augment', 'helpers.crops', 'helpers.deeplab', 'helpers.draws',\n"
        "         'helpers.elements', 'helpers.labels_keras', 'helpers.pipeline',\n"
        "         'helpers.timing', 'helpers.records.streaming')\n"
        "names = [m.name for m in pkgutil.iter_modules(helpers.__path__, 'helpers.')]\n"
        "names += ['helpers.records.' + m.name for m in\n"
        "          pkgutil.iter_modules(importlib.import_module('helpers.records').__path__)]\n"
        "names += ['helpers.phantoms.' + m.name for m in\n"
        "          pkgutil.iter_modules(importlib.import_module('helpers.phantoms').__path__)]\n"
        "names += ['helpers.sampling.' + m.name for m in\n"
        "          pkgutil.iter_modules(importlib.import_module('helpers.sampling').__path__)]\n"
        "names += ['helpers.smart_cache.' + m.name for m in\n"
        "          pkgutil.iter_modules(importlib.import_module('helpers.smart_cache').__path__)]\n"
        "assert set(steps) <= set(names)\n"
        "names = [n for n in names if n not in steps and not n.endswith('__main__')]\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules), name\n"
        "print(len(names))"
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_autograph_that_comes_by_prints_no_environment(tmp_path):
    (tmp_path / "program.py").write_text(  # a file: AutoGraph converts only what it can read
        "import os\n"
        "os.environ['A_SECRET'] = 'keep this'\n"
        "from helpers import quiet\n"
        "quiet.tensorflow_greeting()\n"
        "import tensorflow as tf\n"
        "def stage(x):\n"
        "    quiet.tensorflow_greeting()\n"
        "    return x + 1\n"
        "print(*tf.data.Dataset.range(2).map(stage).as_numpy_iterator())\n"
    )
    done = run("import program", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1 2"
    assert "keep this" not in done.stderr
