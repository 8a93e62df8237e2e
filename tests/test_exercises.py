"""A learner who knows every answer passes every check, in a fresh kernel, to the last cell."""

import pytest

from tools import cells, course


@pytest.mark.parametrize("path", cells.notebook_paths(), ids=lambda path: path.stem)
def test_the_solved_notebook_passes_all_its_checks(path, tmp_path, record_property):
    solved = cells.solved(cells.read(path))
    run = course.run(solved, path.stem, tmp_path / path.name, strict=True)
    record_property("checks", (run.checks_passed, run.checks_total))
    assert not run.problems, "\n" + "\n".join(run.problems)
    assert run.checks_passed == run.checks_total > 0
