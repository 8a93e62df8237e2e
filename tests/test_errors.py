"""Bad data is named: a code from one table, a message for people, the files without their path."""

import pickle
import re
from pathlib import Path

import pytest

from helpers.errors import CODES, CourseDataError

HELPERS = Path(__file__).parents[1] / "helpers"


def test_a_code_that_nobody_can_look_up_is_a_bug():
    with pytest.raises(KeyError, match="NO_SUCH_CODE"):
        CourseDataError("NO_SUCH_CODE", "message")


def test_it_is_caught_as_a_value_error():
    with pytest.raises(ValueError, match="one file was cut"):
        raise CourseDataError("TRUNCATED", "one file was cut")


def test_it_says_code_message_and_file_names_but_not_where_they_lie():
    error = CourseDataError("TRUNCATED", "copy it again", ["/clinic/doe_john/a.dcm", Path("b.dcm")])
    assert str(error) == "[TRUNCATED] copy it again (files: a.dcm, b.dcm)"
    assert error.files == (Path("/clinic/doe_john/a.dcm"), Path("b.dcm"))
    assert (error.code, error.message) == ("TRUNCATED", "copy it again")


def test_without_files_it_speaks_of_none():
    assert str(CourseDataError("NO_SERIES", "an empty folder")) == "[NO_SERIES] an empty folder"


@pytest.mark.parametrize(
    ("count", "tail"), [(5, "4.dcm)"), (6, "4.dcm and 1 more)"), (800, "795 more)")]
)
def test_a_long_list_of_files_is_cut_after_five(count, tail):
    error = CourseDataError("GANTRY_TILT", "tilted", [f"{k}.dcm" for k in range(count)])
    assert str(error).endswith(tail)
    assert "5.dcm" not in str(error)
    assert len(error.files) == count


def test_it_survives_the_way_from_a_worker_process():
    error = CourseDataError("TRUNCATED", "copy it again", ["a.dcm"])
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 - what multiprocessing does by itself
    assert (twin.code, twin.message, twin.files) == (error.code, error.message, error.files)


def test_every_code_has_one_line_of_meaning():
    for code, meaning in CODES.items():
        assert re.fullmatch(r"[A-Z][A-Z_]+[A-Z]", code)
        assert meaning.strip() == meaning
        assert len(meaning) > 20
        assert "\n" not in meaning
    assert len(set(CODES.values())) == len(CODES)


def test_every_code_of_the_table_is_used_and_every_code_used_is_in_the_table():
    sources = {path.stem: path.read_text("utf-8") for path in HELPERS.rglob("*.py")}
    del sources["errors"]
    text = "\n".join(sources.values())
    assert {code for code in CODES if f'"{code}"' not in text} == set()
    raised = set(re.findall(r'CourseDataError\(\s*"([A-Z_]+)"', text))
    assert raised <= set(CODES)
    assert len(raised) > 10
