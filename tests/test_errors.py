"""Bad data is named: a code from one table, what was found, what to do, files by name."""

import pickle
import re
from pathlib import Path

import pytest

from helpers.errors import CODES, CourseDataError, cure, meaning, need

HELPERS = Path(__file__).parents[1] / "helpers"
FILES = ["/clinic/doe_john/a.dcm", *(f"{number}.dcm" for number in range(6))]


def test_an_error_says_what_was_found_what_to_do_and_the_first_files_but_not_where_they_lie():
    with pytest.raises(ValueError, match="9 bytes of 12") as caught:
        need(9 == 12, "TRUNCATED", "9 bytes of 12", *FILES)
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - as multiprocessing does
    assert str(error) == (
        "[TRUNCATED] 9 bytes of 12; copy the file again "
        "(a.dcm, 0.dcm, 1.dcm, 2.dcm, 3.dcm and 2 more)"
    )
    assert (error.code, error.message) == ("TRUNCATED", "9 bytes of 12")
    assert error.files == tuple(map(Path, FILES))
    assert str(CourseDataError("NO_PAIR", "one of two")).endswith("leave the other out")
    need(True, "TRUNCATED", "nothing")
    with pytest.raises(KeyError, match="NO_SUCH_CODE"):  # that nobody could look up
        need(False, "NO_SUCH_CODE", "message")


def test_every_code_says_what_is_wrong_and_what_to_do_in_words_of_its_own():
    for code, line in CODES.items():
        assert re.fullmatch("[A-Z]+(_[A-Z]+)*", code) and line.count(": ") == 1, code
        assert len(meaning(code)) > 10 and len(cure(code)) > 6, code
    assert len(set(map(meaning, CODES))) == len(CODES)


def test_every_code_of_the_table_is_used_and_every_code_used_is_in_the_table():
    sources = {path.stem: path.read_text("utf-8") for path in HELPERS.rglob("*.py")}
    del sources["errors"]
    text = "\n".join(sources.values())
    assert {code for code in CODES if f'"{code}"' not in text} == set()
    raised = re.findall(r'(?:CourseDataError\(\s*|need\([^"\n]*, )"([A-Z_]+)",', text)
    assert set(raised) <= set(CODES) and len(set(raised)) > 20
